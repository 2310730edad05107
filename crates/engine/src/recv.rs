//! recv (to come)
