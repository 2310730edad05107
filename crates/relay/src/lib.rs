//! The relay's shell: clients' bytes in, batches out to the aggregators, blocks of lines out to plain stores.
//!
//! ```text
//!  client tasks          router threads                 lanes                    workers that send
//!  read, cut into   -->  parse, decide per series, -->  one open batch for  -->  relay.link.<peer>   (batches, acknowledged)
//!  whole lines           write canonical lines          each destination        relay.store.<s>.<n> (blocks, receipts)
//!        byte_queue            one commit a block            sealed by size or linger (relay.keeper)
//! ```
//!
//! State lives outside the workers. A router takes a block, works on its own scratch memory and publishes the result in
//! one commit; if it dies before, its successor takes the same block again; if a hung one wakes up after its successor
//! began, its commit is refused. So a panic or a hang of any worker here loses nothing and counts nothing twice.

mod bad;
mod books;
mod controls;
mod decide;
mod doubt;
mod ingest;
mod keeper;
mod lanes;
mod router;
mod shared;
mod spill;
mod start;
mod stop;
mod uplink;
mod watching;

pub use start::{Running, start};
