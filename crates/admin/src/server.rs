//! The listener's loop and its connections.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use engine::recv::{AcceptOutcome, Disposition};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::net::SocketProfile;
use runtime::{ConnectionSet, Supervisor, Worker, WorkerError};
use tokio::net::{TcpListener, TcpStream};

use crate::{Controls, handlers};

/// What one admin server bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
    pub connections: usize,
    /// How long a client may take for a request's head, and a kept connection may be silent.
    pub head: Duration,
    /// How long a connection may last in all, whatever its client does.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        // A person, a few scrapers and the CLI: 256 is far above need and far below the limit of files.
        Limits { connections: 256, head: Duration::from_secs(30), connection: Duration::from_secs(600) }
    }
}

/// Serves the API as the worker `admin`, until the supervisor stops it.
///
/// # Errors
/// When the listener cannot be handed to the worker's own runtime.
pub fn serve(listener: TcpListener, controls: Arc<dyn Controls>, supervisor: &Supervisor) -> io::Result<()> {
    serve_with(Limits::default(), listener, controls, supervisor)
}

/// As [`serve`], with other limits.
///
/// # Errors
/// As [`serve`].
pub fn serve_with(
    limits: Limits,
    listener: TcpListener,
    controls: Arc<dyn Controls>,
    supervisor: &Supervisor,
) -> io::Result<()> {
    // Kept outside the worker, so that each of its lives listens on the same socket and no client is refused between.
    let kept = Arc::new(Mutex::new(Some(listener.into_std()?)));
    supervisor.spawn_isolated("admin", move |worker| {
        let kept = Arc::clone(&kept);
        let router = handlers::router(Arc::clone(&controls));
        async move {
            // Empty only after a stop: an earlier life has ended in order.
            let life = opened(&kept).as_ref().map(std::net::TcpListener::try_clone).transpose()?;
            if let Some(life) = life {
                accept_loop(limits, TcpListener::from_std(life)?, router, worker.clone()).await?;
            }
            // Closes the port, so that a client is refused and does not wait for an answer. A fenced life leaves it to
            // its successor.
            if worker.stopping().is_cancelled() {
                opened(&kept).take();
            }
            Ok(())
        }
    });
    Ok(())
}

fn opened(kept: &Mutex<Option<std::net::TcpListener>>) -> MutexGuard<'_, Option<std::net::TcpListener>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept_loop(limits: Limits, listener: TcpListener, router: Router, worker: Worker) -> Result<(), WorkerError> {
    let mut connections = ConnectionSet::new(limits.connections);
    let stopping = worker.stopping();
    while !worker.should_stop() {
        worker.beat();
        worker.failpoint("admin.accept")?;
        // A life that was fenced while it hung must not take a client from its successor, only to drop it.
        if worker.should_stop() {
            break;
        }
        // Wakes up now and then for the failpoint and for the fence.
        let wait = tokio::time::sleep(worker.beat_interval());
        tokio::select! {
            () = stopping.cancelled() => break,
            () = wait => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => open(limits, stream, router.clone(), &mut connections),
                Err(error) => rest(&error, &worker).await,
            },
        }
    }
    Ok(())
}

/// Does what `engine::recv` says about a failed accept.
async fn rest(error: &io::Error, worker: &Worker) {
    let outcome = AcceptOutcome::of_error(error.kind(), error.raw_os_error());
    match outcome.disposition() {
        Disposition::PauseAccept(pause) => {
            tracing::warn!(%error, ?pause, "admin listener rests");
            worker.idle(tokio::time::sleep(pause)).await;
        }
        Disposition::Continue | Disposition::Retry | Disposition::Close { .. } => {}
    }
}

fn open(limits: Limits, stream: TcpStream, router: Router, connections: &mut ConnectionSet) {
    if let Err(error) = runtime::net::apply(&stream, SocketProfile::Client) {
        tracing::debug!(%error, "admin client was gone before it was served");
        return;
    }
    let connection = async move {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.head).keep_alive(true).max_headers(64);
        let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        match tokio::time::timeout(limits.connection, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "admin connection ended"),
            Err(_elapsed) => tracing::debug!("admin connection lasted too long"),
        }
    };
    if !connections.spawn(connection) {
        tracing::warn!(limit = limits.connections, "too many admin connections; closed one");
    }
}
