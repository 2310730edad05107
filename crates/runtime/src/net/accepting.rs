//! The loop around `accept`, the same for every listener of a worker.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use engine::recv::{AcceptOutcome, Disposition};
use tracing::debug;

use super::{TcpListener, TcpStream};
use crate::{Worker, WorkerError};

/// For the reactor to say that somebody waits.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// Gives every connection to `opened` until the worker is asked to stop, and beats. An error of accept is rested out as
/// `engine::recv` says, and told to `rests` with how long; what passes by itself is only logged. The listener outlives
/// the worker. Who waits to be accepted when the worker is asked to stop is accepted still: its kernel has told it that it is
/// connected, and what it has written would be thrown away with the listener.
///
/// # Errors
/// Only what a failpoint injects.
pub async fn accept_all(
    worker: &Worker,
    listener: &TcpListener,
    mut opened: impl FnMut(TcpStream, SocketAddr),
    mut rests: impl FnMut(&io::Error, AcceptOutcome, Duration),
) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    loop {
        worker.failpoint_async("accept").await?;
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => {
                while let Ok(Ok((stream, peer))) = tokio::time::timeout(LAST_LOOK, listener.accept()).await {
                    opened(stream, peer);
                }
                return Ok(());
            }
            accepted = tokio::time::timeout(worker.beat_interval(), listener.accept()) => accepted,
        };
        worker.beat();
        match accepted {
            Err(_) => {} // nobody came; time to beat
            Ok(Ok((stream, peer))) => opened(stream, peer),
            Ok(Err(error)) => {
                let outcome = AcceptOutcome::of_error(error.kind(), error.raw_os_error());
                match outcome.disposition() {
                    Disposition::PauseAccept(pause) => {
                        rests(&error, outcome, pause);
                        worker.idle(tokio::time::sleep(pause)).await;
                    }
                    Disposition::Continue | Disposition::Retry | Disposition::Close { .. } => debug!(%error, "accept"),
                }
            }
        }
    }
}
