//! window (to come)
