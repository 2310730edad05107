//! The limits of a store link and their defaults (FAULTS A11, C8; DESIGN 4).

use std::time::Duration;

/// What happens when `retain_bytes` are held and the store takes nothing new for `ack_timeout`. While it does take
/// something, offers wait, whatever is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest unsent block is dropped.
    DropOldest,
    /// Offers go on waiting, nothing is ever dropped: who offers can bring the block again.
    Refuse,
    /// The oldest unsent blocks are due for the spill, at once and also while the store takes something; offers wait only
    /// for the spill. While that can take nothing, the oldest is dropped.
    Spill,
}

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
    /// How long a dead connection may go unnoticed with bytes on it: the `TCP_USER_TIMEOUT` of the shell's sockets.
    pub silence: Duration,
    /// Bytes of all blocks held: unsent, unconfirmed and copies for re-asserts.
    pub retain_bytes: u64,
    /// A store that took nothing new for this long gets no back-pressure on its behalf.
    pub ack_timeout: Duration,
    /// What happens at `retain_bytes`.
    pub overflow: Overflow,
    /// A process before this one may have written to the store, so that its bytes are read later than ours: what is written
    /// within `linger` of the start is written once more after that.
    pub follows_a_life: bool,
    /// Every block goes to disk when it is offered, for who has a spill ([`Overflow::Spill`]).
    pub journal: bool,
    /// The first reconnect waits up to this, see [`crate::backoff`].
    pub backoff_base: Duration,
    /// Bytes that may wait in our kernel unsent (`TCP_NOTSENT_LOWAT`): what is in doubt after a reset is that and what
    /// the peer's kernel holds. For the shell; the machine does not look at it.
    pub notsent_lowat_bytes: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rotate: Duration::from_secs(60),
            rotate_bytes: 64 << 20,
            receipt_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            retain_bytes: 512 << 20,
            ack_timeout: Duration::from_secs(3),
            overflow: Overflow::DropOldest,
            follows_a_life: false,
            journal: false,
            backoff_base: crate::backoff::BASE,
            notsent_lowat_bytes: 128 << 10,
        }
    }
}
