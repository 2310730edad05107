//! Asks the admin API of nodes, all at once. A node has a deadline for its whole answer; what one node does or does not
//! do never delays or spoils the answers of the others.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use admin_api::{Refused, paths};
use anyhow::{Context as _, anyhow};
use config::{Cluster, Node};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::exit::{Exit, Failure};
use crate::pass::{self, Shown};

/// For connecting, asking and answering together.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// For what a node has to read from its disk: above the 20 s after which the node itself says that its disk is stuck.
pub(crate) const DISK_DEADLINE: Duration = Duration::from_secs(25);
/// A `/v1/status` of ten thousand peers has 3 MB, a page of an export 16 MiB at the most; more is no answer of ours.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Where an export goes on.
const NEXT: &str = "x-spillway-next";

/// What came back from one node.
#[derive(Debug)]
pub(crate) struct Answer<'c, T> {
    pub(crate) node: &'c Node,
    pub(crate) result: Result<T, Fault>,
}

/// Why a node did not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// No answer, or none that can be understood. One line, meant to be read by a person.
    Silent(String),
    /// It said no, and why; nothing has changed there.
    Refused { code: u16, refused: Refused },
}

impl Fault {
    /// The node does not have what was asked for, and that is no fault of it.
    pub(crate) fn is_not_here(&self) -> bool {
        matches!(self, Fault::Refused { code: 404, .. })
    }

    /// It does not let us in, or not so far.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Fault::Refused { code: 401 | 403 | 429, .. })
    }

    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Fault::Refused { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Silent(error) => f.write_str(error),
            Fault::Refused { refused, .. } => f.write_str(&refused.error),
        }
    }
}

/// What is asked of a node.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: Method,
    path: String,
    body: Bytes,
    deadline: Duration,
    /// 503 has the same answer: a node that is unwell says so by it.
    takes_unwell: bool,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Request {
        Request { method: Method::GET, path: path.into(), body: Bytes::new(), deadline: DEADLINE, takes_unwell: false }
    }

    /// What a node says of its own health, also when that is bad.
    pub(crate) fn health() -> Request {
        Request { takes_unwell: true, ..Request::get(paths::HEALTH) }
    }

    /// Something the node reads from its disk.
    pub(crate) fn read(path: impl Into<String>) -> Request {
        Request { deadline: DISK_DEADLINE, ..Request::get(path) }
    }

    /// # Errors
    /// When `body` cannot be encoded, which is our own fault.
    pub(crate) fn put(path: &str, body: &impl Serialize) -> anyhow::Result<Request> {
        Ok(Request { method: Method::PUT, body: encode(body)?, ..Request::get(path) })
    }

    /// Something the node does on its disk.
    ///
    /// # Errors
    /// As [`Request::put`].
    pub(crate) fn post(path: &str, body: &impl Serialize) -> anyhow::Result<Request> {
        Ok(Request { method: Method::POST, body: encode(body)?, ..Request::read(path) })
    }

    /// Something that takes no time.
    pub(crate) fn quick(self) -> Request {
        Request { deadline: DEADLINE, ..self }
    }

    pub(crate) fn post_bytes(path: impl Into<String>, body: Bytes) -> Request {
        Request { method: Method::POST, body, ..Request::read(path) }
    }
}

fn encode(body: &impl Serialize) -> anyhow::Result<Bytes> {
    Ok(serde_json::to_vec(body).context("encode the request")?.into())
}

/// An answer of 200.
#[derive(Debug)]
pub(crate) struct Reply {
    from: SocketAddr,
    pub(crate) body: Bytes,
    /// Where an export goes on.
    pub(crate) next: Option<u64>,
    /// There is more for who shows a token.
    is_partial: bool,
}

impl Reply {
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::Silent(format!("{}: the answer is not what a node of this version says: {error}", self.from))
        })
    }
}

/// Asks nodes. One for a command, however often it asks.
#[derive(Debug)]
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// # Errors
    /// When this machine cannot ask anybody, or not with the token file that was given.
    pub(crate) fn new() -> Result<Client, Failure> {
        pass::check()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the client's runtime")?;
        Ok(Client { runtime })
    }

    /// Sends all requests at once; the replies are in their order.
    pub(crate) fn exchange<'c>(&self, requests: Vec<(&'c Node, Request)>) -> Vec<Answer<'c, Reply>> {
        self.drive(exchange_all(requests))
    }

    /// Runs something that asks by itself.
    pub(crate) fn drive<F: Future>(&self, what: F) -> F::Output {
        self.runtime.block_on(what)
    }

    /// As [`Client::exchange`], with answers of one type.
    pub(crate) fn all<'c, T: DeserializeOwned>(&self, requests: Vec<(&'c Node, Request)>) -> Vec<Answer<'c, T>> {
        self.exchange(requests).into_iter().map(Answer::decoded).collect()
    }

    /// # Errors
    /// When the node does not answer or says no.
    pub(crate) fn raw(&self, node: &Node, request: Request) -> Result<Reply, Fault> {
        self.runtime.block_on(ask(node, request))
    }

    /// # Errors
    /// When the node does not answer or says no.
    pub(crate) fn one<T: DeserializeOwned>(&self, node: &Node, request: Request) -> Result<T, Fault> {
        self.raw(node, request)?.decode()
    }

    /// Lets time pass between two looks.
    pub(crate) fn wait(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }
}

impl<'c> Answer<'c, Reply> {
    pub(crate) fn decoded<T: DeserializeOwned>(self) -> Answer<'c, T> {
        Answer { node: self.node, result: self.result.and_then(|reply| reply.decode()) }
    }
}

/// As [`Client::exchange`], for who has other things to do meanwhile.
pub(crate) async fn exchange_all(requests: Vec<(&Node, Request)>) -> Vec<Answer<'_, Reply>> {
    let nodes: Vec<&Node> = requests.iter().map(|(node, _)| *node).collect();
    let results = all(requests.into_iter().map(|(node, request)| ask(node, request))).await;
    nodes.into_iter().zip(results).map(|(node, result)| Answer { node, result }).collect()
}

/// Asks `path` of every node; the answers are in the order of the file.
///
/// # Errors
/// Only when this machine cannot ask anybody.
pub(crate) fn ask_all<'c, T: DeserializeOwned>(
    cluster: &'c Cluster,
    path: &str,
) -> Result<Vec<Answer<'c, T>>, Failure> {
    Ok(Client::new()?.all(cluster.nodes.iter().map(|node| (node, Request::get(path))).collect()))
}

/// How a command ends that asked nodes.
pub(crate) fn exit_of<T>(answers: &[Answer<'_, T>]) -> Exit {
    exit_of_results(answers.iter().map(|answer| answer.result.as_ref().err()))
}

/// As [`exit_of`]; an item is one node, with its fault if it has one. A refusal wins: something was not done; and first of
/// all that one may not, for then the others say little.
pub(crate) fn exit_of_results<'a>(faults: impl Iterator<Item = Option<&'a Fault>>) -> Exit {
    let (mut asked, mut answered, mut refused, mut forbidden) = (0usize, 0usize, 0usize, 0usize);
    for fault in faults {
        asked += 1;
        match fault {
            None => answered += 1,
            Some(fault) if fault.is_forbidden() => forbidden += 1,
            Some(fault) if fault.is_refusal() && !fault.is_not_here() => refused += 1,
            Some(_) => {}
        }
    }
    if forbidden > 0 {
        return Exit::NoPermission;
    }
    match (answered, refused) {
        (_, 1..) => Exit::Refused,
        (0, 0) => Exit::Unavailable,
        (_, 0) if answered == asked => Exit::Ok,
        (_, 0) => Exit::Partial,
    }
}

/// One line for each node that did not answer, or said no.
pub(crate) fn silent<T>(answers: &[Answer<'_, T>]) -> String {
    answers.iter().filter_map(|answer| Some(complaint(&answer.node.name, answer.result.as_ref().err()?))).collect()
}

/// One line about a node that did not do what it was asked.
pub(crate) fn complaint(node: &str, fault: &Fault) -> String {
    let verb = if fault.is_refusal() { "refuses" } else { "does not answer" };
    format!("spillway: {node} {verb}: {fault}\n")
}

async fn ask(node: &Node, request: Request) -> Result<Reply, Fault> {
    let address = node.admin;
    let (deadline, takes_unwell) = (request.deadline, request.takes_unwell);
    let shown = pass::shown();
    match tokio::time::timeout(deadline, exchange(node, request, &shown)).await {
        // Half of it could be taken for all of it.
        Ok(Ok((_, reply))) if reply.is_partial => {
            let error = format!("it says its verdict only; {}", shown.hint);
            Err(Fault::Refused { code: 401, refused: Refused { error, would_lose: None } })
        }
        Ok(Ok((status, reply))) if status.is_success() => Ok(reply),
        Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, reply))) if takes_unwell => Ok(reply),
        Ok(Ok((status, reply))) => Err(refusal(status, &reply, &shown)),
        Ok(Err(error)) => Err(Fault::Silent(format!("{error:#}"))),
        Err(_) => Err(Fault::Silent(format!("{address}: no answer within {} s", deadline.as_secs()))),
    }
}

fn refusal(status: StatusCode, reply: &Reply, shown: &Shown) -> Fault {
    // "Not now" is no answer to the question: asked again, it may be another one.
    match reply.decode::<Refused>() {
        Ok(mut refused) if [401, 403, 429].contains(&status.as_u16()) => {
            refused.error = format!("{}; {}", refused.error, shown.hint);
            Fault::Refused { code: status.as_u16(), refused }
        }
        Ok(refused) if status.is_client_error() => Fault::Refused { code: status.as_u16(), refused },
        Ok(refused) => Fault::Silent(format!("{} answers {status}: {}", reply.from, refused.error)),
        Err(_) => Fault::Silent(format!("{} answers {status}", reply.from)),
    }
}

/// One request on a connection of its own.
async fn exchange(node: &Node, request: Request, shown: &Shown) -> anyhow::Result<(StatusCode, Reply)> {
    let address = node.admin;
    let caller = shown.caller.as_ref().map_err(|error| anyhow!("{error}"))?;
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let stream = caller.call(stream, &node.name).await.map_err(|failed| anyhow!("{address}: {failed}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.with_context(|| format!("greet {address}"))?;
    let mut head =
        hyper::Request::builder().method(request.method).uri(request.path).header(header::HOST, address.to_string());
    if !request.body.is_empty() {
        // What is not JSON (an import) is taken whatever it is called.
        head = head.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = &shown.token {
        let value = header::HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        // Not shown by whatever prints the request.
        let mut value = value.map_err(|_| anyhow!("{address}: the token does not fit into a header"))?;
        value.set_sensitive(true);
        head = head.header(header::AUTHORIZATION, value);
    }
    let request = head.body(Full::new(request.body)).context("write the request")?;
    let answer = async move {
        let response = sender.send_request(request).await.with_context(|| format!("ask {address}"))?;
        let status = response.status();
        let is_partial = !status.is_client_error() && response.headers().contains_key(header::WWW_AUTHENTICATE);
        let next = response.headers().get(NEXT).and_then(|next| next.to_str().ok()?.parse().ok());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("{address}: the answer breaks off: {error}"))?.to_bytes();
        Ok((status, Reply { from: address, body, next, is_partial }))
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
