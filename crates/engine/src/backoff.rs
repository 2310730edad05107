//! backoff (to come)
