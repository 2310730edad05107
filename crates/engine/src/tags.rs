//! tags (to come)
