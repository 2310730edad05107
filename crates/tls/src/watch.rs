//! The worker that looks after the files.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Worker, WorkerError};
use tracing::{info, warn};

use crate::keys::{Keys, Look};

/// So a new certificate is in use within twice this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes up files that have changed until the worker is asked to stop.
///
/// # Errors
/// Only what a failpoint injects: files that cannot be used keep the former ones in use.
pub async fn watch(worker: Worker, keys: Arc<Keys>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    loop {
        worker.failpoint_async("look").await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = worker.idle(tokio::time::sleep(LOOK_EVERY)) => {}
        }
        match keys.look() {
            Look::Same => {}
            Look::New => {
                info!(node = worker.node(), certificate = %keys.certificate().display(), "TLS files read anew")
            }
            Look::Kept(error) => {
                warn!(node = worker.node(), %error, "new TLS files cannot be used: those read before are kept in use");
            }
        }
    }
}
