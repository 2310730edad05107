//! The accepting side: the loop around accept, and greeting who comes in.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::recv::AcceptOutcome;
use engine::wire::{Frame, RefuseReason};
use runtime::net::{self, SocketProfile, TcpListener, TcpStream};
use runtime::{Supervisor, Worker, WorkerError};
use tls::{Door, Stream};
use tracing::{debug, info, warn};

use crate::connection::{Ended, Greeted, accept, send};

/// Accepts links until the worker is asked to stop. The listener outlives the worker. Each connection is a task of the
/// `group`, and over when what `serve` made of it is.
///
/// # Errors
/// Only what a failpoint injects: errors of accept are rested out.
pub async fn listen<S, F>(
    worker: Worker,
    listener: Arc<TcpListener>,
    supervisor: Supervisor,
    group: &'static str,
    serve: S,
) -> Result<(), WorkerError>
where
    S: Fn(TcpStream) -> F,
    F: Future<Output = Ended> + Send + 'static,
{
    let opened = |stream, peer: SocketAddr| {
        let (node, serving) = (worker.node().to_owned(), serve(stream));
        supervisor.spawn_connection(group, async move {
            let ended = serving.await;
            tell(&node, &peer.to_string(), &ended);
        });
    };
    let rests = |error: &io::Error, _: AcceptOutcome, pause: Duration| {
        warn!(node = worker.node(), %error, ?pause, "the listener of links rests");
    };
    net::accept_all(&worker, &listener, opened, rests).await
}

/// Bytes that are no frame mean that something speaks to this port that should not: a person must look. A peer that
/// went away is everyday business.
fn tell(node: &str, peer: &str, ended: &Ended) {
    let is_foreign = matches!(ended, Ended::Frame(_) | Ended::Refused(_) | Ended::Unexpected(_));
    if is_foreign || matches!(ended, Ended::Tls(failed) if failed.fault.wants_a_person()) {
        warn!(%node, %peer, why = %ended, "link closed");
    } else {
        info!(%node, %peer, why = %ended, "link closed");
    }
}

/// Makes a connection that was accepted ready, through `door`, and reads its greeting.
///
/// # Errors
/// When no greeting comes in time, something else does, or the greeting is not that of the certificate's owner.
pub async fn greeted(stream: TcpStream, door: &Door) -> Result<Greeted, Ended> {
    if let Err(error) = net::apply(&stream, SocketProfile::Internal) {
        debug!(%error, "set socket options of a link");
    }
    accept(stream, door).await
}

/// Refuses a peer; gives how its connection ended.
pub async fn refuse(stream: &mut Stream, reason: RefuseReason) -> Ended {
    match send(stream, &Frame::Refuse(reason)).await {
        Ok(()) => Ended::Refused(reason),
        Err(ended) => ended,
    }
}
