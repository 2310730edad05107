//! A node's own numbers and words: metrics with names from an enum, and logs to stderr.
//!
//! [`Telemetry`] belongs to one node; nothing here is global but the log set-up, so several nodes share a process.

mod graphite;
mod logging;
mod metric;
mod prometheus;
mod registry;

pub use logging::{LogSite, LoggingError, init_logging};
pub use metric::{Kind, Metric};
pub use registry::Telemetry;
