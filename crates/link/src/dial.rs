//! The dialling side: connect, greet, run, and come back with full-jitter back-off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::backoff::Backoff;
use engine::wire::{Frame, Hello, HelloOk};
use runtime::net::{self, SocketProfile};
use runtime::{Worker, WorkerError};
use tracing::info;

use crate::connection::{Ended, Handler, first_frame, run, send};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// What the dialling service decides.
pub trait Dialer: Handler + 'static {
    /// The greeting.
    fn hello(&self) -> Hello;
    /// The peer welcomed us.
    fn up(&self, welcome: &HelloOk);
    /// The link is down, or could not come up. Called once for each attempt, so repeats must be harmless.
    fn down(&self, why: &Ended);
    /// Whether the peer has acknowledged anything since this was asked last: only that proves a link good.
    fn progressed(&self) -> bool;
}

/// Keeps a link to `addr` (host:port) up until the worker is asked to stop.
///
/// # Errors
/// Only what a failpoint injects: a peer that is away is no failure of the worker.
pub async fn dial(worker: Worker, addr: String, peer: String, service: Arc<dyn Dialer>) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    let backoff = Mutex::new(Backoff::new());
    // A former life of this worker may have left a link up in the books.
    service.down(&Ended::Stopping);
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("connect").await?;
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ended::Stopping,
            result = once(&worker, &addr, &*service, &backoff) => match result {
                Ok(ended) => ended,
                Err(error) => {
                    service.down(&Ended::Stopping);
                    return Err(error);
                }
            },
        };
        service.down(&ended);
        if worker.should_stop() {
            break;
        }
        let wait = locked(&backoff).on_failure(runtime::random_u64().unwrap_or(u64::MAX / 2));
        info!(%peer, addr, why = %ended, wait_ms = wait.as_millis(), "link down");
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = worker.idle(tokio::time::sleep(wait)) => {}
        }
    }
    Ok(())
}

/// One connection from dialling to its end.
async fn once(
    worker: &Worker,
    addr: &str,
    service: &dyn Dialer,
    backoff: &Mutex<Backoff>,
) -> Result<Ended, WorkerError> {
    let mut stream = match worker.idle(net::connect(addr, SocketProfile::Internal, CONNECT_WITHIN)).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Ended::Io(std::io::Error::other(error.to_string()))),
    };
    if let Err(ended) = send(&mut stream, &Frame::Hello(service.hello())).await {
        return Ok(ended);
    }
    let mut early = bytes::BytesMut::new();
    let welcome = match worker.idle(first_frame(&mut stream, &mut early)).await {
        Ok(Frame::HelloOk(welcome)) => welcome,
        Ok(Frame::Refuse(reason)) => return Ok(Ended::Refused(reason)),
        Ok(_) => return Ok(Ended::Unexpected("the answer to a greeting must be a welcome or a refusal")),
        Err(ended) => return Ok(ended),
    };
    service.up(&welcome);
    let watched = Watched { worker, service, backoff };
    tokio::select! {
        biased;
        ended = run(stream, early, &watched, worker.clock()) => Ok(ended),
        failed = beat(worker) => failed,
    }
}

/// The worker's heart: it beats as long as the task is polled. Never ends by itself.
async fn beat(worker: &Worker) -> Result<Ended, WorkerError> {
    loop {
        worker.failpoint_async("run").await?;
        worker.beat();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The service, and at every tick a look whether the link has proved itself.
struct Watched<'a> {
    worker: &'a Worker,
    service: &'a dyn Dialer,
    backoff: &'a Mutex<Backoff>,
}

fn locked(backoff: &Mutex<Backoff>) -> MutexGuard<'_, Backoff> {
    backoff.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for Watched<'_> {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        self.service.frame(frame)
    }

    fn next(&self, out: &mut crate::Outgoing) {
        self.service.next(out);
    }

    fn wake(&self) -> &tokio::sync::Notify {
        self.service.wake()
    }

    fn tick(&self) {
        if self.service.progressed() {
            locked(self.backoff).on_progress(self.worker.clock().now());
        }
        self.service.tick();
    }
}
