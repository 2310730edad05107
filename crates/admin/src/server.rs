//! The listener's loop and its connections.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use engine::recv::{AcceptOutcome, Disposition};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use runtime::net::SocketProfile;
use runtime::{Clock, ConnectionSet, Supervisor, Worker, WorkerError};
use tokio::net::{TcpListener, TcpStream};

use crate::door::{Keeper, Peer};
use crate::places::Places;
use crate::{Controls, Door, handlers};

/// What one admin server bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed at once.
    pub connections: usize,
    /// Of these, from one address.
    pub of_one_address: usize,
    /// How long a client may take for a request's head, and a kept connection may be silent.
    pub head: Duration,
    /// How long a connection may last in all, whatever its client does.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        // A person, a few scrapers and the CLI: 256 is far above need and far below the limit of files. They may come from
        // one machine, or through one gateway, and whoever else is there must not leave them without.
        Limits {
            connections: 256,
            of_one_address: 96,
            head: Duration::from_secs(30),
            connection: Duration::from_secs(600),
        }
    }
}

/// What an admin server is made of.
pub struct Server {
    pub limits: Limits,
    pub listener: TcpListener,
    pub controls: Arc<dyn Controls>,
    pub door: Door,
    pub tls: tls::Door,
    pub clock: Clock,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).field("door", &self.door).finish_non_exhaustive()
    }
}

/// What each connection gets.
#[derive(Clone)]
struct Entry {
    limits: Limits,
    router: Router,
    tls: tls::Door,
    places: Places,
}

/// To who speaks HTTP where it should be TLS.
const SPEAKS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 57\r\n\
    connection: close\r\n\r\n{\"error\":\"this port speaks TLS: ask it with https://...\"}";

/// Serves the API as the worker `admin`, until the supervisor stops it.
///
/// # Errors
/// When the listener cannot be handed to the worker's own runtime.
pub fn serve(server: Server, supervisor: &Supervisor) -> io::Result<()> {
    let Server { limits, listener, controls, door, tls, clock } = server;
    // Kept outside the worker, so that each of its lives listens on the same socket and no client is refused between.
    let kept = Arc::new(Mutex::new(Some(listener.into_std()?)));
    let keeper = Arc::new(Keeper::new(door, supervisor.node(), clock, controls.telemetry()));
    // Connections of a life that hangs are still there in the next one.
    let places = Places::default();
    supervisor.spawn_isolated("admin", move |worker| {
        let kept = Arc::clone(&kept);
        let entry = Entry {
            limits,
            router: handlers::router(Arc::clone(&controls), &keeper),
            tls: tls.clone(),
            places: places.clone(),
        };
        async move {
            // Empty only after a stop: an earlier life has ended in order.
            let life = opened(&kept).as_ref().map(std::net::TcpListener::try_clone).transpose()?;
            if let Some(life) = life {
                accept_loop(entry, TcpListener::from_std(life)?, worker.clone()).await?;
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

async fn accept_loop(entry: Entry, listener: TcpListener, worker: Worker) -> Result<(), WorkerError> {
    let mut connections = ConnectionSet::new(entry.limits.connections);
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
                Ok((stream, from)) => open(entry.clone(), stream, from.ip(), &mut connections),
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

fn open(entry: Entry, stream: TcpStream, from: IpAddr, connections: &mut ConnectionSet) {
    if let Err(error) = runtime::net::apply(&stream, SocketProfile::Client) {
        tracing::debug!(%error, "admin client was gone before it was served");
        return;
    }
    let (limit, share) = (entry.limits.connections, entry.limits.of_one_address);
    let Some(place) = entry.places.take(from.to_canonical(), share) else {
        tracing::debug!(%from, share, "too many admin connections from one address; closed one");
        return;
    };
    let connection = async move {
        let _place = place;
        match tokio::time::timeout(entry.limits.connection, converse(entry, stream, from)).await {
            Ok(()) => {}
            Err(_elapsed) => tracing::debug!("admin connection lasted too long"),
        }
    };
    if !connections.spawn(connection) {
        tracing::warn!(limit, "too many admin connections; closed one");
    }
}

async fn converse(entry: Entry, stream: TcpStream, from: IpAddr) {
    let stream = match entry.tls.open_or(stream, SPEAKS_TLS).await {
        Ok(stream) => stream,
        Err(failed) => {
            tracing::debug!(%from, %failed, "admin client sent away");
            return;
        }
    };
    let peer = Peer { address: from.to_canonical(), is_certified: stream.has_peer_certificate() };
    let service = TowerToHyperService::new(entry.router.layer(Extension(peer)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(entry.limits.head).keep_alive(true).max_headers(64);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection ended");
    }
}
