//! partial (to come)
