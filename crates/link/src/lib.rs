//! One end of an acknowledged link: frames in, frames out, and the certainty of noticing within five seconds that the
//! other end is gone.
//!
//! What is said and decided is the service's ([`Handler`]); how bytes move is here. A connection always reads, also
//! while it cannot write: overload is said with windows and Nacks, never by TCP back-pressure, for a peer that does
//! not read looks dead to its kernel (FAULTS B7). A ping goes out every second; the peer's *workers* answer it, so a
//! pong proves more than a socket. Silence of [`DEAD_AFTER`] ends the connection.

mod connection;
mod dial;
mod listen;
mod visit;

pub use connection::{DEAD_AFTER, Ended, Greeted, Handler, Outgoing, PING_EVERY, run, send};
pub use dial::{Dialer, Standing, dial};
pub use listen::{greeted, listen, refuse};
pub use visit::visit;
