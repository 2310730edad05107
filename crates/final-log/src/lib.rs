//! How a final node keeps its partitions in a store: the order of the log over the lives of who writes it ([`journal`]),
//! and partitions from what a store holds ([`recover`]). No thread and no clock: the aggregator drives it with its log
//! thread, the simulator with a queue of events.

pub mod journal;
pub mod recover;
