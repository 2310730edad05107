//! Who is let in, who is not and what he is told, over a real connection.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use admin_api::access::Role;
use admin_api::{Refused, ReplayStatus};
use auth::Keys;

use super::operator::{operated_node, serving, spill};
use super::*;

const READ: &str = "authorization: Bearer may-only-look-0123456789\r\n";
const OPERATE: &str = "authorization: bearer may-do-anything-0123456789\r\n";
const WRONG: &str = "authorization: Bearer nobody-has-this-0123456789\r\n";

/// A directory with the two files, gone when the test is over.
struct Tokens(PathBuf);

impl Tokens {
    fn new() -> Tokens {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("spillway-door-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let tokens = Tokens(dir);
        tokens.write("read", "may-only-look-0123456789");
        tokens.write("operate", "may-do-anything-0123456789");
        tokens
    }

    fn write(&self, name: &str, text: &str) {
        let (new, path) = (self.0.join("new"), self.0.join(name));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn door(&self) -> Door {
        let files = [(Role::Read, self.0.join("read")), (Role::Operate, self.0.join("operate"))];
        Door { keys: Some(Keys::open(files)), ..Door::open() }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Server {
    /// The status code, the head and the body.
    async fn show(&self, headers: &str, method: &str, path: &str) -> (u16, String, String) {
        let (head, body) = self.ask_with(headers, method, path, "").await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
    }

    fn refused(&self, reason: &str) -> u64 {
        let text = self.node.telemetry.render_prometheus();
        let sample = text.lines().find(|line| {
            line.starts_with("spillway_admin_refused_total") && line.contains(&format!("reason=\"{reason}\""))
        });
        sample.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_path_asks_for_what_it_takes_and_says_so() {
    let tokens = Tokens::new();
    let server = start_behind(tokens.door(), Limits::default());
    // With nothing, a wrong token, one that may look, one that may change.
    let cases = [
        ("GET", "/v1/live", [200, 200, 200, 200]),
        ("GET", "/metrics", [200, 200, 200, 200]),
        ("GET", "/v1/health", [200, 401, 200, 200]),
        ("GET", "/v1/status", [401, 401, 200, 200]),
        ("GET", "/v1/nowhere", [401, 401, 404, 404]),
        ("PUT", "/v1/health/mode", [401, 401, 403, 400]),
        ("PUT", "/v1/replay", [401, 401, 403, 404]),
        ("POST", "/v1/nodes/x/drain", [401, 401, 403, 404]),
        ("DELETE", "/v1/live", [401, 401, 403, 405]),
    ];
    for (method, path, expected) in cases {
        for (headers, code) in ["", WRONG, READ, OPERATE].into_iter().zip(expected) {
            let (said, head, body) = server.show(headers, method, path).await;
            assert_eq!(said, code, "{method} {path} with {headers:?}: {body}");
            if code == 401 || code == 403 {
                assert!(head.contains("www-authenticate: bearer"), "{head}");
                let Refused { error, .. } = serde_json::from_str(&body).unwrap();
                assert!(error.contains("auth.operate"), "it does not say what to do: {error}");
                assert!(!error.contains("0123456789"), "it says the token: {error}");
            }
        }
    }
    assert_eq!(server.refused("no_token"), 6);
    assert_eq!(server.refused("wrong_token"), 7);
    assert_eq!(server.refused("role"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_hears_the_verdict_without_its_reason() {
    let tokens = Tokens::new();
    let server = start_behind(tokens.door(), Limits::default());
    *server.node.verdict.lock().unwrap() =
        Verdict::Degraded { worker: "w".to_owned(), restarts: 3, error: "open /srv/x: denied".to_owned() };
    let (code, head, body) = server.show("", "GET", "/v1/health").await;
    assert_eq!(code, 503);
    assert!(head.contains("www-authenticate: bearer"), "there is more for who has a token: {head}");
    assert!(body.contains("\"degraded\"") && !body.contains("/srv"), "{body}");
    let (code, head, body) = server.show(READ, "GET", "/v1/health").await;
    assert!(code == 503 && !head.contains("www-authenticate") && body.contains("/srv"), "{head} {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_no_token_is_a_wrong_one() {
    let tokens = Tokens::new();
    let server = start_behind(tokens.door(), Limits::default());
    for value in ["", "Bearer", "Bearer ", "Basic bWF5LWRvLWFueXRoaW5n", "may-do-anything-0123456789", "\u{e4}"] {
        let (code, ..) = server.show(&format!("authorization: {value}\r\n"), "GET", "/v1/status").await;
        assert_eq!(code, 401, "{value:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wrong_tokens_are_put_off_and_a_right_one_is_let_in_all_the_same() {
    let tokens = Tokens::new();
    let server = start_behind(tokens.door(), Limits::default());
    let mut codes = Vec::new();
    for _ in 0..20 {
        let (code, head, _) = server.show(WRONG, "GET", "/v1/status").await;
        assert_eq!(code == 429, head.contains("retry-after: "), "{head}");
        codes.push(code);
    }
    // On a slow machine one or the other comes back meanwhile.
    assert_eq!(codes[..10], [401; 10]);
    assert!(codes.contains(&429), "{codes:?}");
    assert!(server.refused("too_many") > 0);
    assert_eq!(server.show(OPERATE, "GET", "/v1/status").await.0, 200);
    assert_eq!(server.show("", "GET", "/v1/live").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_change_without_a_restart_and_a_lost_file_is_seen_in_the_metrics() {
    let tokens = Tokens::new();
    let server = start_behind(tokens.door(), Limits::default());
    let unusable = || {
        let text = server.node.telemetry.render_prometheus();
        text.lines().any(|line| {
            line.starts_with("spillway_admin_token_file_unusable")
                && line.contains("\"operate\"")
                && line.ends_with(" 1")
        })
    };
    tokens.write("operate", "may-do-anything-9876543210");
    assert_eq!(server.show(OPERATE, "GET", "/v1/status").await.0, 401);
    let fresh = "authorization: Bearer may-do-anything-9876543210\r\n";
    assert_eq!(server.show(fresh, "GET", "/v1/status").await.0, 200);
    assert!(!unusable());
    fs::remove_file(tokens.0.join("operate")).unwrap();
    assert_eq!(server.show(fresh, "GET", "/v1/status").await.0, 200, "what was in force stays in force");
    assert!(unusable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_hears_role_and_address_besides_what_the_caller_says_of_itself() {
    let tokens = Tokens::new();
    let server = serving(Arc::new(operated_node(spill)), tokens.door());
    let by = async |headers: &str, said: &str| {
        let body = serde_json::json!({ "rate": 7, "by": said }).to_string();
        let (_, body) = server.ask_with(headers, "PUT", "/v1/replay", &body).await;
        serde_json::from_str::<ReplayStatus>(&body).unwrap().settings.changed_by
    };
    assert_eq!(by(OPERATE, "anna@ops").await, "anna@ops (operate from 127.0.0.1)");
    assert_eq!(by(OPERATE, "").await, "unknown (operate from 127.0.0.1)");
    assert_eq!(by(OPERATE, "an\u{1b}[31mna\n").await, "an[31mna (operate from 127.0.0.1)");
    assert!(by(OPERATE, &"x".repeat(100_000)).await.len() < 300);
    let open = serving(Arc::new(operated_node(spill)), Door::open());
    let body = r#"{"rate":7,"by":"anna@ops"}"#;
    let (_, body) = open.ask_with("", "PUT", "/v1/replay", body).await;
    assert_eq!(serde_json::from_str::<ReplayStatus>(&body).unwrap().settings.changed_by, "anna@ops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_can_be_closed() {
    let tokens = Tokens::new();
    let server = start_behind(Door { open_metrics: false, ..tokens.door() }, Limits::default());
    assert_eq!(server.show("", "GET", "/metrics").await.0, 401);
    assert_eq!(server.show(READ, "GET", "/metrics").await.0, 200);
}
