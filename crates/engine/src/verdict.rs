//! verdict (to come)
