//! partial_node (to come)
