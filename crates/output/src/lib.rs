//! Sending to plain Graphite stores over TCP.
//!
//! `engine::store_link` decides what is sent, when, and what the books say; this crate owns the socket. One
//! [`StoreSender`] is one address and one worker.

mod connection;
mod hand;
mod sender;
#[cfg(test)]
mod tests;

pub use sender::{OfferError, StoreSender, StoreStatus};
