//! The limits of a store link and their defaults (FAULTS A9, A11, C8; DESIGN 4).

use std::time::Duration;

/// The limits of one link. Every duration is elapsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A receipt is asked for when the oldest unconfirmed block of the connection is this old ...
    pub rotate: Duration,
    /// ... or when this many bytes are unconfirmed (at most half of `retain_bytes` is used).
    pub rotate_bytes: u64,
    /// How long the first wait for a receipt lasts.
    pub receipt_timeout: Duration,
    /// How long bytes of a lost connection may still reach the store.
    pub linger: Duration,
    /// Bytes of all blocks held: unsent, unconfirmed and copies for re-asserts.
    pub retain_bytes: u64,
    /// A store that took nothing new for this long gets no back-pressure on its behalf.
    pub ack_timeout: Duration,
    /// Reconnects wait a random time up to `backoff_base` doubled with every attempt, up to `backoff_cap`.
    pub backoff_base: Duration,
    /// Bytes that may wait in our kernel unsent (`TCP_NOTSENT_LOWAT`): what is in doubt after a reset is that and what
    /// the peer's kernel holds. For the shell; the machine does not look at it.
    pub notsent_lowat_bytes: u32,
    /// See `backoff_base`.
    pub backoff_cap: Duration,
    /// The attempts are counted from zero again after a connection that lived this long, or a receipt.
    pub backoff_reset: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rotate: Duration::from_secs(60),
            rotate_bytes: 64 << 20,
            receipt_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(60),
            retain_bytes: 512 << 20,
            ack_timeout: Duration::from_secs(3),
            backoff_base: Duration::from_millis(50),
            notsent_lowat_bytes: 128 << 10,
            backoff_cap: Duration::from_secs(5),
            backoff_reset: Duration::from_secs(10),
        }
    }
}
