//! deltas (to come)
