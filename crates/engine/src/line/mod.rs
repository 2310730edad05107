//! line (to come)
