//! wire (to come)
