//! The admin API lets in who shows a token, and nobody can see the token.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use admin_api::AuditEntry;
use testkit::{Authority, Cluster, Keep, Layer, Process, Sink, TempDir, eventually, http, reserve};

use crate::{SOON, small_cluster, support, when};

/// EX_USAGE and EX_NOPERM of sysexits(3).
const BAD_CONFIG: i32 = 64;
const NO_PERMISSION: i32 = 77;

const READ: &str = "may-only-look-EfGh0123456789";
const OPERATE: &str = "may-do-anything-AbCd0123456789";
const FRESH: &str = "may-do-anything-XyZz9876543210";

fn write_token(dir: &Path, role: &str, text: &str) {
    let tokens = dir.join("tokens");
    fs::create_dir_all(&tokens).expect("makes the directory");
    let (new, path) = (tokens.join("new"), tokens.join(role));
    fs::write(&new, text).expect("writes");
    fs::set_permissions(&new, Permissions::from_mode(0o600)).expect("sets the mode");
    fs::rename(new, path).expect("puts it in place");
}

/// A cluster that asks for tokens, running.
struct Guarded {
    dir: TempDir,
    cluster: Cluster,
    process: Process,
    _sink: Sink,
}

impl Guarded {
    fn start(name: &str) -> Guarded {
        Guarded::with(name, "[auth]\nread = \"tokens/read\"\noperate = \"tokens/operate\"\n", Process::up)
    }

    fn with(name: &str, toml: &str, up: fn(&Path, &Cluster, &Path) -> Process) -> Guarded {
        let dir = TempDir::new(name);
        let sink = Sink::start(Keep::Count);
        let cluster = small_cluster(&sink).with(toml);
        write_token(dir.path(), "read", READ);
        write_token(dir.path(), "operate", OPERATE);
        let process = up(&support::spillway(), &cluster, dir.path());
        Guarded { dir, cluster, process, _sink: sink }
    }

    fn relay(&self) -> SocketAddr {
        self.cluster.first(Layer::Relay).admin
    }

    fn code(&self, token: Option<&str>, line: &str) -> u16 {
        let answer = http::ask_as(token, self.relay(), line, r#"{"mode":"lenient","by":"test"}"#);
        answer.unwrap_or_else(|error| panic!("{line}: {error}")).status
    }

    /// The CLI in the directory where the cluster file's paths begin.
    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(support::spillway());
        command.args(arguments).args(["--config", "spillway.toml"]).current_dir(self.dir.path());
        command.env_remove("SPILLWAY_TOKEN_FILE").env_remove("SPILLWAY_CONFIG");
        command
    }

    fn said(&self, arguments: &[&str]) -> Output {
        self.cli(arguments).output().expect("spillway runs")
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn without_a_token_one_sees_that_it_lives_with_one_the_state_and_with_the_other_one_changes_it() {
    let guarded = Guarded::start("auth");
    let modes = "PUT /v1/health/mode";
    for (token, codes) in
        [(None, [200, 200, 200, 401, 401]), (Some(READ), [200, 200, 200, 200, 403]), (Some(OPERATE), [200; 5])]
    {
        let lines = ["GET /v1/live", "GET /v1/health", "GET /metrics", "GET /v1/status", modes];
        assert_eq!(lines.map(|line| guarded.code(token, line)), codes, "{token:?}");
    }
    let audit = http::ask_as(Some(READ), guarded.relay(), "GET /v1/control/audit", "").expect("answers");
    let audit: Vec<AuditEntry> = serde_json::from_str(&audit.body).expect("an audit log");
    assert!(audit[0].by.starts_with("test (operate from 127.0.0.1)"), "{audit:?}");

    // The CLI takes the token from the file that the cluster file names.
    for arguments in
        [&["status"][..], &["ledger"], &["health", "mode", "auto", "--all"], &["node", "drain", "partial-1"]]
    {
        let said = guarded.said(arguments);
        assert_eq!(said.status.code(), Some(0), "{arguments:?}: {}", text(&said));
    }
    let only = guarded.dir.path().join("tokens/read");
    let said = guarded.cli(&["node", "undrain", "partial-1"]).env("SPILLWAY_TOKEN_FILE", only).output().expect("runs");
    assert_eq!(said.status.code(), Some(NO_PERMISSION), "{}", text(&said));
    assert!(text(&said).contains("it takes one of auth.operate"), "{}", text(&said));
    guarded.end();
}

#[test]
fn a_token_is_changed_without_a_restart_and_the_old_one_is_worth_nothing() {
    let guarded = Guarded::start("auth-rotation");
    let status = "GET /v1/status";
    write_token(guarded.dir.path(), "operate", &format!("{OPERATE}\n{FRESH}\n"));
    assert_eq!([OPERATE, FRESH].map(|token| guarded.code(Some(token), status)), [200, 200]);
    write_token(guarded.dir.path(), "operate", FRESH);
    assert_eq!([OPERATE, FRESH].map(|token| guarded.code(Some(token), status)), [401, 200]);
    assert_eq!(guarded.said(&["status"]).status.code(), Some(0));
    fs::remove_file(guarded.dir.path().join("tokens/operate")).expect("removes");
    assert_eq!(guarded.code(Some(FRESH), status), 200, "what was in force stays in force");
    let relay = guarded.cluster.first(Layer::Relay).api();
    eventually(SOON, "the metrics to tell both", || {
        let unusable = relay.metric("spillway_admin_token_file_unusable", "role=\"operate\"")?;
        let refused = relay.metric("spillway_admin_refused_total", "reason=\"wrong_token\"")?;
        when(unusable >= 1.0 && refused >= 1.0, (unusable, refused))
    });
    guarded.end();
}

#[test]
fn no_token_is_in_a_process_list_an_environment_a_log_or_what_config_show_prints() {
    let guarded = Guarded::start("auth-secrets");
    assert_eq!(guarded.code(Some("nobody-has-this-one-0123456789"), "GET /v1/status"), 401);
    // A command that stays, and has shown its token.
    let mut watching = guarded.cli(&["replay", "status", "--watch"]);
    let mut watching = Process::start(
        "watch",
        std::mem::replace(&mut watching, Command::new("true")),
        &guarded.dir.path().join("watch.log"),
    );
    eventually(SOON, "the command to have been answered", || {
        when(watching.log_text().contains("replayer-1"), watching.log_text())
    });
    let mut seen = text(&guarded.said(&["config", "show"]));
    seen += &text(&guarded.said(&["config", "show", "--json"]));
    seen += &text(&guarded.said(&["health", "mode", "strict", "--all", "--dry-run"]));
    for process in [guarded.process.id(), watching.id()] {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{process}/{file}")).expect("the process lives");
            seen += &String::from_utf8_lossy(&bytes);
        }
    }
    seen += &watching.log_text();
    seen += &guarded.process.log_text();
    assert!(seen.contains("tokens/operate") && seen.contains("admin request refused"), "{seen}");
    for secret in [READ, OPERATE, "nobody-has-this"] {
        assert!(!seen.contains(secret), "{secret} is in:\n{seen}");
    }
    assert!(watching.ended().is_none());
    drop(watching);
    guarded.end();
}

#[test]
fn the_console_shows_the_cluster_by_a_token_that_its_page_does_not_have() {
    let guarded = Guarded::start("auth-console");
    let [listen] = reserve(1)[..] else { panic!("one port was asked for") };
    let command = guarded.cli(&["console", "--listen", &listen.to_string()]);
    let console = Process::start("console", command, &guarded.dir.path().join("console.log"));
    let mut seen = String::new();
    eventually(SOON, "the console to show what nodes say to those with a token", || {
        seen = http::get(listen, "/api/state").map_err(|error| error.to_string())?.body;
        when(seen.contains("replayer-1") && seen.contains("ready") && !seen.contains("refuses"), &seen)
    });
    for path in ["/", "/app.js", "/style.css"] {
        seen += &http::get(listen, path).expect("the console answers").body;
    }
    seen += &console.log_text();
    for secret in [READ, OPERATE, "Bearer"] {
        assert!(!seen.contains(secret), "{secret} is in:\n{seen}");
    }
    drop(console);
    guarded.end();
}

#[test]
fn an_admin_port_for_everybody_is_refused_before_anything_starts() {
    let dir = TempDir::new("auth-exposed");
    let sink = Sink::start(Keep::Count);
    let cluster = small_cluster(&sink);
    let relay = cluster.first(Layer::Relay).admin;
    let check = |rest: &str, admin: &str| {
        let toml = cluster.toml().replace(&format!("admin = \"{relay}\""), &format!("admin = \"{admin}\""));
        let file = dir.write("cluster.toml", &format!("{toml}\n{rest}"));
        Command::new(support::spillway()).args(["config", "check", "--config"]).arg(file).output().expect("runs")
    };
    let open = format!("0.0.0.0:{}", relay.port());
    let said = check("", &open);
    assert_eq!(said.status.code(), Some(BAD_CONFIG), "{}", text(&said));
    for part in ["node[1].admin", "everybody who reaches", "`[auth]`", "auth.open = true"] {
        assert!(text(&said).contains(part), "{part}: {}", text(&said));
    }
    assert_eq!(check("[auth]\noperate = \"tokens/operate\"", &open).status.code(), Some(0));
    assert_eq!(check("[auth]\nopen = true", &open).status.code(), Some(0));
    // The same when the command line opens what the file has on loopback.
    let file = dir.write("cluster.toml", &cluster.toml());
    let relay = Command::new(support::program(Layer::Relay))
        .args(["--node", "relay-1", "--bind", "0.0.0.0", "--config"])
        .arg(file)
        .current_dir(dir.path())
        .output()
        .expect("runs");
    assert_eq!(relay.status.code(), Some(BAD_CONFIG), "{}", text(&relay));
    assert!(text(&relay).contains("--bind 0.0.0.0: everybody who reaches"), "{}", text(&relay));
}

const NAMES: [&str; 5] = ["relay-1", "partial-1", "final-1", "replayer-1", "operator"];

/// With certificates for all nodes and the operator.
fn up_with_certificates(binary: &Path, cluster: &Cluster, dir: &Path) -> Process {
    Authority::new().equip(dir, NAMES);
    Process::up_unready(binary, cluster, dir, None)
}

#[test]
fn over_tls_a_token_is_what_it_is_without_and_plain_http_is_told_so() {
    let files = Authority::FILES;
    let toml = format!("[auth]\nread = \"tokens/read\"\noperate = \"tokens/operate\"\n{files}admin = \"on\"\n");
    let guarded = Guarded::with("auth-tls", &toml, up_with_certificates);
    guarded.wait_for_cli();
    let plain = http::get(guarded.relay(), "/v1/live").expect("an answer in its own language");
    assert!(plain.status == 400 && plain.body.contains("this port speaks TLS"), "{plain:?}");
    let said = guarded.said(&["health", "mode", "lenient", "--all"]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let only = guarded.dir.path().join("tokens/read");
    let said =
        guarded.cli(&["health", "mode", "auto", "--all"]).env("SPILLWAY_TOKEN_FILE", only).output().expect("runs");
    assert_eq!(said.status.code(), Some(NO_PERMISSION), "{}", text(&said));
    // Another authority's node is none of ours, whatever it says: no token goes there.
    Authority::new().equip(guarded.dir.path(), []);
    let said = guarded.said(&["status"]);
    assert_eq!(said.status.code(), Some(69), "{}", text(&said));
    guarded.end();
}

#[test]
fn with_mutual_tls_the_certificate_is_what_lets_in_and_it_may_change() {
    let guarded =
        Guarded::with("auth-mutual", &format!("{}admin = \"mutual\"\n", Authority::FILES), up_with_certificates);
    guarded.wait_for_cli();
    let said = guarded.said(&["health", "mode", "lenient", "--all"]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let shown = text(&guarded.said(&["health", "show"]));
    assert!(shown.contains("lenient"), "{shown}");
    // Signed by somebody else.
    Authority::new().issue(guarded.dir.path(), "operator", "operator");
    let said = guarded.said(&["status"]);
    assert_eq!(said.status.code(), Some(69), "{}", text(&said));
    fs::remove_file(guarded.dir.path().join("tls/operator.key")).expect("removes");
    let said = guarded.said(&["status"]);
    assert!(said.status.code() == Some(69) && text(&said).contains("tls/operator.key"), "{}", text(&said));
    // What looks at files only needs none.
    assert_eq!(guarded.said(&["config", "show"]).status.code(), Some(0));
    guarded.end();
}

impl Guarded {
    /// Until every node is ready, as the CLI sees it.
    fn wait_for_cli(&self) {
        eventually(SOON, "every node to answer the CLI", || {
            let said = self.said(&["status"]);
            when(said.status.code() == Some(0), text(&said))
        });
    }

    /// Stops it; of what it logged only refusals and the token file are what the tests have done.
    fn end(self) {
        self.process.stop(&["admin request refused", "token file cannot be used", "the layer went lenient"]);
    }
}
