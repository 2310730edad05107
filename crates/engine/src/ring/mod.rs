//! ring (to come)
