//! ivset (to come)
