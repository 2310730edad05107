//! Asks the admin API of all nodes at once. A node has [`DEADLINE`] for its whole answer; what one node does or does not
//! do never delays or spoils the answers of the others.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use config::{Cluster, Node};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::exit::{Exit, Failure};

/// For connecting, asking and answering together.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// A `/v1/status` of ten thousand peers has 3 MB; more is no answer of ours.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What came back from one node.
#[derive(Debug)]
pub(crate) struct Answer<'c, T> {
    pub(crate) node: &'c Node,
    /// The error is one line, meant to be read by a person.
    pub(crate) result: Result<T, String>,
}

/// Asks `path` of every node; the answers are in the order of the file.
///
/// # Errors
/// Only when this machine cannot ask anybody.
pub(crate) fn ask_all<'c, T: DeserializeOwned>(
    cluster: &'c Cluster,
    path: &str,
) -> Result<Vec<Answer<'c, T>>, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the client's runtime")?;
    let questions = cluster.nodes.iter().map(|node| ask::<T>(node.admin, path));
    let results = runtime.block_on(all(questions));
    Ok(cluster.nodes.iter().zip(results).map(|(node, result)| Answer { node, result }).collect())
}

/// How a command ends that asked all nodes.
pub(crate) fn exit_of<T>(answers: &[Answer<'_, T>]) -> Exit {
    match answers.iter().filter(|answer| answer.result.is_ok()).count() {
        0 => Exit::Unavailable,
        answered if answered == answers.len() => Exit::Ok,
        _ => Exit::Partial,
    }
}

/// One line for each node that did not answer.
pub(crate) fn silent<T>(answers: &[Answer<'_, T>]) -> String {
    let line = |answer: &Answer<'_, T>| {
        let error = answer.result.as_ref().err()?;
        Some(format!("spillway: {} does not answer: {error}\n", answer.node.name))
    };
    answers.iter().filter_map(line).collect()
}

async fn ask<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, exchange(address, path)).await {
        Ok(Ok(bytes)) => serde_json::from_slice(&bytes)
            .map_err(|error| format!("{address}: the answer is not what a node of this version says: {error}")),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("{address}: no answer within {} s", DEADLINE.as_secs())),
    }
}

/// One request on a connection of its own.
async fn exchange(address: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.with_context(|| format!("greet {address}"))?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .context("write the request")?;
    let answer = async move {
        let response = sender.send_request(request).await.with_context(|| format!("ask {address}"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("{address}: the answer breaks off: {error}"))?.to_bytes();
        if !status.is_success() {
            bail!("{address} answers {status}");
        }
        Ok(body)
    };
    // The connection must be driven while the answer is awaited; when the answer is there it is of no more use.
    tokio::pin!(connection);
    tokio::pin!(answer);
    let mut connected = true;
    poll_fn(|context| {
        if connected && connection.as_mut().poll(context).is_ready() {
            // Its end, good or bad, reaches the answer through the sender.
            connected = false;
        }
        answer.as_mut().poll(context)
    })
    .await
}

/// Waits for all futures at once; the results are in their order.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
