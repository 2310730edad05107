//! pool (to come)
