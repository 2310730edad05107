//! ledger (to come)
