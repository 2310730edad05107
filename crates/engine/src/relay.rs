//! relay (to come)
