//! The dialling side: connect, greet, run, and come back with full-jitter back-off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::backoff::Backoff;
use engine::verdict::Verdict;
use engine::wire::{Frame, Hello, HelloOk, RefuseReason};
use runtime::net::{self, SocketProfile};
use runtime::{Worker, WorkerError};
use tls::Caller;
use tracing::{error, info, warn};

use crate::connection::{Ended, Handler, Outgoing, first_frame, run, send};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// What every dialled link has, whatever is said on it: [`dial`] keeps it, its service owns it and reads it.
#[derive(Debug, Default)]
pub struct Standing {
    up: AtomicBool,
    progressed: AtomicBool,
    /// Pings that are to be answered: with what the service writes next, so that a pong proves that it can.
    pings: Mutex<Vec<u64>>,
    last_error: Mutex<Option<String>>,
    verdict: Mutex<Option<Verdict>>,
}

impl Standing {
    /// The peer has welcomed us, and the connection has not ended.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Why the link was lost, or could not come up, last.
    pub fn last_error(&self) -> Option<String> {
        locked(&self.last_error).clone()
    }

    /// What the peer last said of itself; `None` while the link is down.
    pub fn verdict(&self) -> Option<Verdict> {
        locked(&self.verdict).clone()
    }

    /// The peer has acknowledged something: only that proves a link good.
    pub fn progress(&self) {
        self.progressed.store(true, Ordering::Relaxed);
    }

    fn begin(&self) {
        locked(&self.pings).clear();
        self.up.store(true, Ordering::Relaxed);
    }

    /// Whether it was up.
    fn end(&self, why: &Ended) -> bool {
        *locked(&self.verdict) = None;
        *locked(&self.last_error) = Some(why.to_string());
        self.up.swap(false, Ordering::Relaxed)
    }
}

/// What the dialling service decides. Of the frames it gets all but pings and pongs: those are [`dial`]'s. Verdicts are
/// noted before it hears of them.
pub trait Dialer: Handler + 'static {
    /// The greeting.
    fn hello(&self) -> Hello;
    /// Where [`dial`] keeps what it knows of the link.
    fn standing(&self) -> &Standing;
    /// The peer welcomed us.
    fn up(&self, welcome: &HelloOk);
    /// The link is down, or could not come up. Called once for each attempt, so repeats must be harmless.
    fn down(&self, why: &Ended, was_up: bool);

    /// Asked at every frame: whether the link may go on.
    ///
    /// # Errors
    /// Why not; the connection ends.
    fn may_go_on(&self) -> Result<(), Ended> {
        Ok(())
    }

    /// The peer does not want us: that is for a person, unless the service knows better.
    fn refused(&self, node: &str, peer: &str, reason: RefuseReason) {
        error!(node, peer, why = reason.explain(), "link refused");
    }
}

/// Keeps a link to the node `peer` at `addr` (host:port) up until the worker is asked to stop. `caller` asks the peer for a
/// certificate of its name, if it asks for one.
///
/// # Errors
/// Only what a failpoint injects: a peer that is away is no failure of the worker.
pub async fn dial(
    worker: Worker,
    (addr, peer): (String, String),
    caller: Caller,
    service: Arc<dyn Dialer>,
) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    let backoff = Mutex::new(Backoff::new());
    // A former life of this worker may have left a link up in the books.
    over(&*service, &Ended::Stopping);
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint_async("connect").await?;
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ended::Stopping,
            result = once(&worker, (&addr, &peer), &caller, &*service, &backoff) => match result {
                Ok(ended) => ended,
                Err(error) => {
                    over(&*service, &Ended::Stopping);
                    return Err(error);
                }
            },
        };
        if let Ended::Refused(reason) = &ended {
            service.refused(worker.node(), &peer, *reason);
        }
        if let Ended::Tls(failed) = &ended
            && failed.fault.wants_a_person()
        {
            warn!(node = worker.node(), %peer, addr, why = %failed, "no TLS with the peer");
        }
        over(&*service, &ended);
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

fn over(service: &dyn Dialer, why: &Ended) {
    let was_up = service.standing().end(why);
    service.down(why, was_up);
}

/// One connection from dialling to its end.
async fn once(
    worker: &Worker,
    (addr, peer): (&str, &str),
    caller: &Caller,
    service: &dyn Dialer,
    backoff: &Mutex<Backoff>,
) -> Result<Ended, WorkerError> {
    let stream = match worker.idle(net::connect(addr, SocketProfile::Internal, CONNECT_WITHIN)).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Ended::Io(std::io::Error::other(error.to_string()))),
    };
    let mut stream = match worker.idle(caller.call(stream, peer)).await {
        Ok(stream) => stream,
        Err(failed) => return Ok(failed.into()),
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
    info!(node = worker.node(), peer, "link up");
    service.standing().begin();
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

/// The service, less what every dialled link has; at every tick a look whether the link has proved itself.
struct Watched<'a> {
    worker: &'a Worker,
    service: &'a dyn Dialer,
    backoff: &'a Mutex<Backoff>,
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for Watched<'_> {
    fn frame(&self, frame: Frame) -> Result<(), Ended> {
        let standing = self.service.standing();
        if let Frame::Ping { echo } = frame {
            locked(&standing.pings).push(echo);
            self.service.wake().notify_one();
        } else {
            if let Frame::Verdict(verdict) = &frame {
                *locked(&standing.verdict) = Some(verdict.clone());
            }
            self.service.frame(frame)?;
        }
        self.service.may_go_on()
    }

    fn next(&self, out: &mut Outgoing) {
        for echo in std::mem::take(&mut *locked(&self.service.standing().pings)) {
            out.frame(&Frame::Pong { echo });
        }
        self.service.next(out);
    }

    fn wake(&self) -> &tokio::sync::Notify {
        self.service.wake()
    }

    fn tick(&self) {
        if self.service.standing().progressed.swap(false, Ordering::Relaxed) {
            locked(self.backoff).on_progress(self.worker.clock().now());
        }
        self.service.tick();
    }
}

#[cfg(test)]
mod tests;
