//! Debian's collectd and carbon-cache, each with a configuration and a folder of the test's own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Process, TempDir, announced_only, eventually, reserve, unix_now};

use super::whisper;

/// How long either may take to end.
const END: Duration = Duration::from_secs(20);

/// carbon-cache 1.1.7 with one point a second for ten minutes.
pub(crate) struct CarbonCache {
    process: Process,
    address: SocketAddr,
    whisper: PathBuf,
}

impl CarbonCache {
    #[track_caller]
    pub(crate) fn start(dir: &TempDir) -> CarbonCache {
        let [line, query] = reserve(2)[..] else { panic!("two ports were asked for") };
        let root = dir.path().display();
        let config = dir.write(
            "carbon/carbon.conf",
            &format!(
                "[cache]\nSTORAGE_DIR = {root}/carbon\nLOCAL_DATA_DIR = {root}/carbon/whisper\nCONF_DIR = {root}/carbon\n\
                 LOG_DIR = {root}/carbon\nPID_DIR = {root}/carbon\nUSER =\nENABLE_LOGROTATION = False\n\
                 MAX_CACHE_SIZE = inf\nMAX_UPDATES_PER_SECOND = inf\nMAX_CREATES_PER_MINUTE = inf\n\
                 LINE_RECEIVER_INTERFACE = 127.0.0.1\nLINE_RECEIVER_PORT = {}\nENABLE_UDP_LISTENER = False\n\
                 PICKLE_RECEIVER_PORT = 0\nCACHE_QUERY_INTERFACE = 127.0.0.1\nCACHE_QUERY_PORT = {}\n\
                 CACHE_WRITE_STRATEGY = naive\nCARBON_METRIC_INTERVAL = 0\nENABLE_TAGS = False\nLOG_UPDATES = False\n",
                line.port(),
                query.port()
            ),
        );
        dir.write("carbon/storage-schemas.conf", "[all]\npattern = .*\nretentions = 1s:10m\n");
        dir.write(
            "carbon/storage-aggregation.conf",
            "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = last\n",
        );
        let mut command = Command::new("carbon-cache");
        command
            .arg(format!("--config={}", config.display()))
            .args(["--nodaemon", "--pidfile"])
            .arg(dir.path().join("carbon/pid"))
            .arg("start");
        let process = Process::start("carbon-cache", command, &dir.path().join("carbon.log"));
        eventually(Duration::from_secs(20), "carbon-cache to listen", || TcpStream::connect(line));
        CarbonCache { process, address: line, whisper: dir.path().join("carbon/whisper") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The points of a series as the files hold them now.
    pub(crate) fn fetch(&self, name: &str, from: u64, until: u64) -> Result<BTreeMap<u64, f64>, String> {
        let file = self.whisper.join(format!("{}.wsp", name.replace('.', "/")));
        whisper::fetch(&file, from, until)
    }

    /// Ends it; its log must be without alarms.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait_end(END);
        announced_only("carbon-cache", &self.process.log_text(), &[]);
    }
}

/// collectd with a handful of plug-ins that every Linux machine can feed, each second.
pub(crate) struct Collectd {
    process: Process,
    log: PathBuf,
}

impl Collectd {
    #[track_caller]
    pub(crate) fn start(dir: &TempDir, host: &str, target: SocketAddr) -> Collectd {
        let log = dir.path().join(format!("{host}.collectd.log"));
        let config = dir.write(&format!("{host}.conf"), &configuration(dir.path(), host, target, &log));
        wait_for_middle_of_rounding();
        let mut command = Command::new("/usr/sbin/collectd");
        command.arg("-f").arg("-C").arg(config);
        let process = Process::start(host, command, &dir.path().join(format!("{host}.out")));
        Collectd { process, log }
    }

    /// Ends it in order, so that it writes what it still buffers; its log must be without alarms.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait_end(END);
        assert!(status.success(), "collectd ended with {status}: {}", self.process.log_text());
        let log = std::fs::read_to_string(&self.log).expect("collectd wrote its log");
        announced_only("collectd", &log, &[]);
    }
}

/// collectd reads each second, counted from its start, and rounds a point's time to the nearest second. Started near a
/// half second, two readings would now and then share a second; near a full one, jitter of +-0.4 s does no harm.
fn wait_for_middle_of_rounding() {
    eventually(Duration::from_secs(2), "the turn of a second", || {
        let fraction = unix_now().fract();
        (fraction > 0.9).then_some(()).ok_or(fraction)
    });
}

fn configuration(dir: &Path, host: &str, target: SocketAddr, log: &Path) -> String {
    let (dir, log) = (dir.display(), log.display());
    let plug_ins: String = ["cpu", "load", "memory", "uptime", "contextswitch", "processes", "interface"]
        .iter()
        .map(|name| format!("LoadPlugin {name}\n"))
        .collect();
    format!(
        "Hostname \"{host}\"\nFQDNLookup false\nBaseDir \"{dir}\"\nPIDFile \"{dir}/{host}.pid\"\n\
         PluginDir \"/usr/lib/collectd\"\nTypesDB \"/usr/share/collectd/types.db\"\nInterval 1\n\
         LoadPlugin logfile\n<Plugin logfile>\n LogLevel info\n File \"{log}\"\n Timestamp true\n PrintSeverity true\n\
         </Plugin>\n{plug_ins}\
         <Plugin cpu>\n ReportByCpu true\n ReportByState true\n ValuesPercentage false\n</Plugin>\n\
         LoadPlugin write_graphite\n<Plugin write_graphite>\n <Node \"relay\">\n  Host \"{}\"\n  Port \"{}\"\n\
         Protocol \"tcp\"\n  LogSendErrors true\n  Prefix \"collectd.\"\n  StoreRates true\n  AlwaysAppendDS false\n\
         EscapeCharacter \"_\"\n </Node>\n</Plugin>\n",
        target.ip(),
        target.port()
    )
}
