//! sketch (to come)
