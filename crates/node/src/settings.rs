//! From the cluster file's sections to the settings of parts.

use config::{Output, Sending, Supervise};
use engine::restart::RestartPolicy;
use engine::store_link::Settings;

/// The smallest share of memory that one store address gets.
const RETAIN_MIN: u64 = 4 << 20;

/// Settings of the senders to stores. `addresses`: how many there are in all; they share the memory.
pub fn store_settings(output: &Output, send: &Sending, addresses: usize) -> Settings {
    let share = (send.retain_bytes as u64 / (addresses.max(1) as u64)).max(RETAIN_MIN);
    Settings {
        rotate: output.rotate,
        rotate_bytes: output.rotate_bytes,
        receipt_timeout: output.receipt_timeout,
        linger: output.linger_bound,
        retain_bytes: share,
        ack_timeout: send.ack_timeout,
        ..Settings::default()
    }
}

/// The supervisor's rule.
pub fn restart_policy(supervise: &Supervise) -> RestartPolicy {
    RestartPolicy {
        restarts: supervise.restarts,
        within: supervise.within,
        watchdog: supervise.watchdog,
        ..RestartPolicy::default()
    }
}
