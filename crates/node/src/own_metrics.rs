//! A node's own metrics as Graphite lines: sent like any client's, so that they take the same way as what they measure.

use std::sync::Arc;
use std::time::Duration;

use config::{Cluster, Layer, Node, OwnMetrics};
use engine::ring::Ring;
use engine::time::UnixSeconds;
use runtime::net::{self, SocketProfile};
use runtime::{Supervisor, Worker, WorkerError};
use tls::Caller;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use crate::tls::Tls;

const SEND_WITHIN: Duration = Duration::from_secs(2);

/// Where lines go.
#[derive(Clone, Debug)]
enum To {
    /// A relay's Graphite port, with its name: a relay's own, else the cluster's first.
    Relay(String, String),
    /// The addresses of one store, each line by the store's ring.
    Store(Vec<String>, Ring),
}

/// Starts the worker `<layer>.telemetry` that reports every `telemetry.interval`, unless that is off.
///
/// `lines`: brings the metrics up to date and renders them.
pub fn report_own_metrics(
    cluster: &Cluster,
    me: &Node,
    (supervisor, tls): (&Supervisor, &Tls),
    lines: impl Fn(UnixSeconds) -> Vec<u8> + Send + Sync + 'static,
) {
    let Some(to) = destination(cluster, me) else { return };
    let caller = match &to {
        To::Relay(..) => tls.graphite_caller.clone(),
        To::Store(..) => Caller::plain(),
    };
    let to = Destination { to, caller };
    let (interval, prefix, lines) = (cluster.telemetry.interval, cluster.telemetry.prefix.clone(), Arc::new(lines));
    supervisor.spawn_task(format!("{}.telemetry", me.layer.as_str()), move |worker| {
        report(worker, interval, prefix.clone(), to.clone(), Arc::clone(&lines))
    });
}

/// With how it is spoken to.
#[derive(Clone, Debug)]
struct Destination {
    to: To,
    caller: Caller,
}

impl Destination {
    fn name(&self) -> &str {
        match &self.to {
            To::Relay(name, _) => name,
            To::Store(..) => "",
        }
    }
}

fn destination(cluster: &Cluster, me: &Node) -> Option<To> {
    match &cluster.telemetry.graphite {
        OwnMetrics::Off => None,
        OwnMetrics::Route => {
            let relay = std::iter::once(me).chain(cluster.layer(Layer::Relay)).find(|node| node.graphite.is_some())?;
            relay.graphite.map(|graphite| To::Relay(relay.name.clone(), graphite.to_string()))
        }
        OwnMetrics::Store(index) => cluster.stores.get(*index).map(|store| {
            let addresses = store.addresses.iter().map(|address| format!("{}:{}", address.host, address.port));
            To::Store(addresses.collect(), Ring::build(store))
        }),
    }
}

async fn report(
    worker: Worker,
    interval: Duration,
    prefix: String,
    to: Destination,
    lines: Arc<impl Fn(UnixSeconds) -> Vec<u8> + Send + Sync + 'static>,
) -> Result<(), WorkerError> {
    let stop = worker.stopping();
    loop {
        worker.failpoint_async("report").await?;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = worker.idle(tokio::time::sleep(interval)) => {}
        }
        let rendered = lines(worker.clock().unix());
        for (addr, bytes) in shares(&to.to, &prefix, &rendered) {
            // A report that does not arrive is told by the next one: totals lose nothing.
            if let Err(error) = worker.idle(send((&addr, to.name()), &to.caller, &bytes)).await {
                debug!(%addr, %error, "own metrics not sent");
            }
        }
    }
}

/// The lines for each address, with the prefix before each name.
fn shares(to: &To, prefix: &str, lines: &[u8]) -> Vec<(String, Vec<u8>)> {
    let addresses: Vec<String> = match to {
        To::Relay(_, addr) => vec![addr.clone()],
        To::Store(addresses, _) => addresses.clone(),
    };
    let mut shares: Vec<(String, Vec<u8>)> = addresses.into_iter().map(|addr| (addr, Vec::new())).collect();
    let mut picked = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let whole = [prefix.as_bytes(), line].concat();
        picked.clear();
        match to {
            To::Relay(..) => picked.push(0),
            To::Store(_, ring) => {
                ring.pick(whole.split(|byte| *byte == b' ').next().unwrap_or_default(), &mut picked);
            }
        }
        for &index in &picked {
            if let Some((_, share)) = shares.get_mut(index) {
                share.extend_from_slice(&whole);
            }
        }
    }
    shares.retain(|(_, share)| !share.is_empty());
    shares
}

async fn send((addr, name): (&str, &str), caller: &Caller, bytes: &[u8]) -> std::io::Result<()> {
    let connect = net::connect(addr, SocketProfile::Client, SEND_WITHIN);
    let stream = connect.await.map_err(|error| std::io::Error::other(error.to_string()))?;
    let mut stream = caller.call(stream, name).await.map_err(std::io::Error::other)?;
    let written = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(SEND_WITHIN, written).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_the_prefix_and_goes_to_the_relay() {
        let shares = shares(&To::Relay("r".into(), "r:1".into()), "my.", b"a 1 2\nb 3 4\n");
        assert_eq!(shares, [("r:1".to_owned(), b"my.a 1 2\nmy.b 3 4\n".to_vec())]);
    }

    #[test]
    fn nothing_to_say_is_nothing_to_send() {
        assert_eq!(shares(&To::Relay("r".into(), "r:1".into()), "", b""), []);
    }
}
