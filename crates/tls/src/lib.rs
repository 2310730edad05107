//! TLS of a node: its certificate and key from PEM files, and connections that are encrypted or plain.
//!
//! [`Keys`] are the files of a node, read again when they change: connections made from then on use the new ones, those
//! that are open stay. What cannot be read keeps the old ones in use, is said and counted. [`Door`] takes connections that
//! were accepted, [`Caller`] those that were dialled; each gives a [`Stream`] or the reason why there is none, from the
//! closed list [`engine::recv::HandshakeFault`]. Either may be plain; then it costs one branch a connection.
//!
//! Who dials a node asks for the node's name of the cluster file among the names of its certificate, never for the
//! address. No session is resumed, so that every handshake checks certificates, and so that nothing is sent to a
//! client that only writes: unread bytes would turn its close into a reset.
//!
//! Versions 1.2 and 1.3, ciphers of rustls with ring. Nothing of a key is ever shown, by no message, log or `Debug`.

mod caller;
mod door;
mod expiry;
mod failed;
mod keys;
mod material;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod watch;

pub use caller::{BlockingStream, Caller};
pub use door::Door;
pub use failed::Failed;
pub use keys::{Keys, State, TlsError};
pub use stream::{Encrypted, Stream};
pub use tally::{Port, Side};
pub use watch::watch;
