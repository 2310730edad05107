//! How one life of a worker runs: as a task or as a thread, with its panic caught and its end reported.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, TryLockError};
use std::task::{Context, Poll};

use tokio::task::AbortHandle;

use super::worker::{Worker, WorkerError};
use super::{Inbox, Shared};

type BoxedLife = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;
type MakeLife = Box<dyn FnMut(Worker) -> BoxedLife + Send>;
type ThreadBody = Arc<dyn Fn(Worker) -> Result<(), WorkerError> + Send + Sync>;

/// What a worker does in each of its lives.
#[derive(Clone)]
pub(super) enum Body {
    Task(Arc<Mutex<MakeLife>>),
    Thread(ThreadBody),
}

impl Body {
    pub(super) fn task<F, Fut>(mut make: F) -> Body
    where
        F: FnMut(Worker) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        Body::Task(Arc::new(Mutex::new(Box::new(move |worker| Box::pin(make(worker)) as BoxedLife))))
    }
}

/// How a life ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Error(WorkerError),
    Panic(String),
    /// Its future was dropped before it ended: by the supervisor, or by a runtime that shuts down.
    Aborted,
}

/// The end of one life.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) slot: usize,
    pub(super) generation: u64,
    pub(super) outcome: Outcome,
}

/// Reports the end of a life exactly once, also when its future is only dropped.
struct Reporter {
    inbox: Arc<Inbox>,
    slot: usize,
    generation: u64,
    outcome: Outcome,
}

impl Reporter {
    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Aborted);
        self.inbox.push(Report { slot: self.slot, generation: self.generation, outcome });
    }
}

/// Starts a life. What comes back aborts it, if it can be aborted.
///
/// # Errors
/// When the kernel gives no thread.
pub(super) fn start(
    shared: &Shared,
    slot: usize,
    body: &Body,
    worker: Worker,
) -> Result<Option<AbortHandle>, WorkerError> {
    let generation = worker.generation();
    let reporter = Reporter { inbox: Arc::clone(&shared.inbox), slot, generation, outcome: Outcome::Aborted };
    match body {
        Body::Task(make) => {
            let make = Arc::clone(make);
            let task = shared.handle.spawn(async move {
                let life = async move {
                    let life = made(&make, worker)?;
                    life.await
                };
                let outcome = CatchPanic(Box::pin(life)).await;
                reporter.end(outcome);
            });
            Ok(Some(task.abort_handle()))
        }
        Body::Thread(body) => {
            let body = Arc::clone(body);
            let name = worker.name().to_owned();
            let thread = std::thread::Builder::new().name(name);
            thread.spawn(move || {
                let outcome = match catch_unwind(AssertUnwindSafe(|| body(worker))) {
                    Ok(Ok(())) => Outcome::Done,
                    Ok(Err(error)) => Outcome::Error(error),
                    Err(payload) => Outcome::Panic(panic_message(payload.as_ref())),
                };
                reporter.end(outcome);
            })?;
            Ok(None)
        }
    }
}

/// Calls the worker's constructor, in its own task, so that a constructor that hangs does not hang the supervisor.
fn made(make: &Mutex<MakeLife>, worker: Worker) -> Result<BoxedLife, WorkerError> {
    match make.try_lock() {
        Ok(mut make) => Ok(make(worker)),
        // A constructor that panicked is asked again: that is what a restart is.
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()(worker)),
        Err(TryLockError::WouldBlock) => Err(WorkerError::new("an earlier life still hangs in its constructor")),
    }
}

/// A future whose panic is its output.
pub(super) struct CatchPanic(pub(super) BoxedLife);

impl Future for CatchPanic {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(Outcome::Done),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(Outcome::Error(error)),
            Err(payload) => Poll::Ready(Outcome::Panic(panic_message(payload.as_ref()))),
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else {
        "panic without a message".to_owned()
    }
}
