//! How long a point takes at half load, from the client's write until its aggregate arrives at the store: markers that
//! are the only points of windows that are long due. That is more than from sealing to `Durable`: it has in addition the
//! linger before sealing, and the emission after the commit. From sealing to `Durable` is what the relay itself counts, since
//! its start.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::{Cluster, Feed, Fleet, Probe, Sink};

/// Without a measured throughput: million points per second.
const FULL: f64 = 0.5;
const WARM: Duration = Duration::from_secs(5);
/// From sealing to `Durable`, p99 at half load.
const PROMISED_MS: u64 = 1_200;
const WATCH: Duration = Duration::from_secs(20);

const RULES: &str = "[[rule]]\nname = \"load\"\nglob = \"load.<group>.*\"\noutput = \"groups.{group}.{function}\"\n\
    interval = \"10s\"\ngrace = \"2s\"\nfunctions = [\"sum\", \"count\", \"avg\", \"min\", \"max\"]\nto = [\"probes\"]\n\n\
    [[rule]]\nname = \"probe\"\nglob = \"probe.<m>\"\noutput = \"probed.{m}\"\ninterval = \"1s\"\ngrace = \"0s\"\n\
    functions = [\"last\"]\nto = [\"probes\"]\n\n[[route]]\nglob = \"**\"\nto = [\"aggregate\"]\n";

/// Runs it and prints the figures. `full`: million points per second at full load, as measured.
pub(crate) fn print(full: Option<f64>) {
    let full = full.unwrap_or(FULL);
    for journal in [false, true] {
        for share in [0.1, 0.5] {
            run(full * share, share, journal);
        }
    }
}

fn run(millions: f64, share: f64, journal: bool) {
    let sink: Sink = Probe::sink();
    let cluster = Cluster::new(1, 1, 1).store("probes", &[sink.address()]).with(RULES);
    let cluster = cluster.with(&format!("[send]\njournal = {journal}\n"));
    let fleet = Fleet::new("latency", cluster, crate::systems::program).up();
    let to: SocketAddr = fleet.cluster.graphite();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of points")]
    let rate = (millions * 1e6) as u64;
    let feed = Feed { series: 10_000, late_every: 0, ..Feed::new(to, rate) }.start();
    std::thread::sleep(WARM);
    let mut probe = Probe::start(sink, to, Duration::from_millis(20));
    let (lines, mark) = (feed.lines(), probe.mark());
    std::thread::sleep(WATCH);
    let taken = (feed.lines() - lines) as f64 / WATCH.as_secs_f64();
    let status = fleet.api("relay-1").status();
    probe.rest();
    std::thread::sleep(Duration::from_secs(2));
    let seen = probe.between(mark, probe.mark());
    println!(
        "latency at {:.0} % of full load ({taken:.0} points/s, journal {journal}): median {:.0} ms, p99 {:.0} ms, longest \
         {:.0} ms, {} markers, {} missing",
        share * 100.0,
        seen.median.as_secs_f64() * 1e3,
        seen.p99.as_secs_f64() * 1e3,
        seen.longest.as_secs_f64() * 1e3,
        seen.count,
        seen.missing
    );
    match status {
        Ok(status) => {
            let figure = |name: &str| status.figures.get(name).copied().unwrap_or_default();
            // Batches that went to the spill have another way, and would flatter the figure if they were not named.
            let spilled: u64 = status.ledger.destinations.iter().map(|to| to.spill_pending).sum();
            println!(
                "    from sealing to Durable: median {} ms, p99 {} ms, promised {PROMISED_MS} ms at half load; {} batches, \
                 {} sent again, {spilled} points in the spill",
                figure("durable_p50_ms"),
                figure("durable_p99_ms"),
                figure("batches_durable"),
                figure("batches_resent"),
            );
        }
        Err(why) => println!("    from sealing to Durable: {why}"),
    }
    drop(feed.finish());
    fleet.end();
}
