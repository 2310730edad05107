//! `spillway top` on a terminal (util-linux's `script` lends one): keys, what the screen says, and what the nodes then do.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use testkit::{Cluster, Keep, Process, Sink, TempDir, eventually};

use crate::{SOON, support, when};

const ROWS: usize = 45;
const COLUMNS: usize = 180;

/// A terminal with `top` on it.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    output: PathBuf,
}

impl Terminal {
    #[track_caller]
    fn open(dir: &TempDir) -> Terminal {
        let output = dir.path().join("terminal");
        let (binary, file) = (support::spillway(), dir.path().join("spillway.toml"));
        let size = format!("stty rows {ROWS} cols {COLUMNS}");
        let command = format!("{size}; exec {} --config {} top", binary.display(), file.display());
        let mut script = Command::new("script");
        script.args(["-qfec", &command, "/dev/null"]).env("TERM", "xterm-256color").env("NO_COLOR", "1");
        script.stdin(Stdio::piped()).stdout(File::create(&output).expect("creates"));
        let mut child = script.spawn().expect("util-linux is here");
        let keys = child.stdin.take();
        Terminal { child, keys, output }
    }

    #[track_caller]
    fn press(&mut self, keys: &str) {
        self.keys.as_mut().expect("open").write_all(keys.as_bytes()).expect("it listens");
    }

    fn screen(&self) -> String {
        let bytes = fs::read(&self.output).expect("reads");
        shown(&String::from_utf8_lossy(&bytes))
    }

    /// Waits until all of these stand on the screen.
    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        eventually(SOON, &format!("{parts:?}"), || {
            let screen = self.screen();
            if parts.iter().all(|part| screen.contains(part)) { Ok(()) } else { Err(format!("\n{screen}")) }
        });
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        eventually(SOON, "top to end", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal goes with it, and `top` with its terminal. Has it ended, there is nobody to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a terminal shows that got this: text, and moves of the cursor (`CSI row;column H`, `CSI 2 J`).
fn shown(output: &str) -> String {
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut rest = output.chars();
    while let Some(char) = rest.next() {
        match char {
            '\u{1b}' => {
                if rest.next() != Some('[') {
                    continue;
                }
                let mut parameters = String::new();
                let end = rest.find(|char| {
                    parameters.push(*char);
                    ('@'..='~').contains(char)
                });
                let mut numbers = parameters.split(';').map(|part| part.trim_end_matches(char::is_alphabetic).parse());
                let mut number = || numbers.next().and_then(Result::ok).unwrap_or(1_usize);
                match end {
                    Some('H') => (row, column) = (number() - 1, number() - 1),
                    Some('J') => cells = vec![vec![' '; COLUMNS]; ROWS],
                    Some(_) | None => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            char => {
                if let Some(cell) = cells.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                    *cell = char;
                }
                column += 1;
            }
        }
    }
    let lines = cells.iter().map(|cells| cells.iter().collect::<String>().trim_end().to_owned() + "\n");
    lines.collect()
}

#[test]
fn an_operator_switches_modes_drains_a_node_and_sets_the_rate_by_keys() {
    let (dir, sink) = (TempDir::new("top"), Sink::start(Keep::Count));
    let cluster = Cluster::new(1, 2, 1).store("carbon", &[sink.address()]).route_all(&["carbon"]);
    let process = Process::up(&support::spillway(), &cluster, dir.path());
    let api = |name: &str| cluster.named(name).api();
    let mut top = Terminal::open(&dir);
    top.shows(&["5 of 5 nodes ready", "health modes: partial auto", "m health mode", "d drain node"]);

    top.press("mal");
    top.shows(&[
        "spillway health mode lenient --all",
        "mode of final: as the cluster file says -> lenient",
        "y does it",
    ]);
    let modes =
        || api("partial-1").modes().map(|modes| modes.layers.into_iter().map(|layer| layer.mode).collect::<Vec<_>>());
    assert_eq!(modes(), Ok(vec!["auto".to_owned(), "auto".to_owned()]), "a preview changes nothing");
    top.press("y");
    top.shows(&["(5 of 5 nodes)", "health modes: partial lenient"]);
    assert_eq!(modes(), Ok(vec!["lenient".to_owned(), "lenient".to_owned()]));

    let traffic = || {
        let pools = api("relay-1").health()?.0.pools;
        let of = pools.into_iter().flat_map(|pool| pool.nodes).find(|node| node.node == "partial-2");
        of.map(|node| node.eligible).ok_or("relay-1 does not know partial-2".to_owned())
    };
    top.press("jj");
    top.shows(&[" partial-2 "]);
    top.press("d");
    top.shows(&["spillway node drain partial-2", "partial-2: active -> drained", "partial-2 would lose traffic"]);
    assert_eq!(traffic(), Ok(true));
    top.press("y");
    eventually(SOON, "the drain", || traffic().and_then(|traffic| when(!traffic, traffic)));
    top.shows(&["no traffic from relay-1 and replayer-1: an operator drained it"]);
    top.press("d");
    top.shows(&["spillway node undrain partial-2", "partial-2 would gain traffic"]);
    top.press("\r");
    eventually(SOON, "traffic again", || traffic().and_then(|traffic| when(traffic, traffic)));

    top.press("r12345/s\r");
    top.shows(&["-> 12345/s", "y does it"]);
    top.press("y");
    eventually(SOON, "the rate", || {
        let rate = api("replayer-1").replay()?.settings.rate;
        when(rate == 12_345, rate)
    });
    top.shows(&["replayer-1: up to 12345/s"]);
    top.press("q");
    assert!(top.ends().success(), "{}", top.screen());
    drop(process);
}
