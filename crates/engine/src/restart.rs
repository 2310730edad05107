//! restart (to come)
