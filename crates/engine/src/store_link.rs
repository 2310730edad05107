//! store_link (to come)
