//! batch (to come)
