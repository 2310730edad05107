//! final_node (to come)
