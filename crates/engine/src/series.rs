//! series (to come)
