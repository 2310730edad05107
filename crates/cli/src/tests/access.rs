//! What a command shows to nodes, and what it says when that is not enough.

use std::os::unix::fs::PermissionsExt as _;

use super::fake_node::{Reply, bad, good};
use super::*;

const ANNA: &str = "anna-may-do-anything";
const BEN: &str = "ben-may-only-look-on";

/// A file of tokens that is gone when the test is over.
struct Tokens(PathBuf);

impl Tokens {
    fn new(name: &str, text: &str, mode: u32) -> Tokens {
        let path = std::env::temp_dir().join(format!("spillway-cli-{}-{name}.tokens", std::process::id()));
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets the mode");
        Tokens(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("removes");
    }
}

/// Lets in who shows one of these; `may_change` may change, too.
fn guarded() -> FakeNode {
    FakeNode::responding(|asked| {
        let is = |token: &str| asked.shown.as_deref() == Some(&format!("Bearer {token}"));
        match (is(ANNA), is(BEN), asked.what.starts_with("GET")) {
            (true, _, true) | (_, true, true) => good(&books(4)),
            (true, _, false) => good(&serde_json::json!({})),
            (_, true, false) => bad(403, "with this token one may look, not change"),
            (false, false, _) => with_challenge(bad(401, "this takes a token")),
        }
    })
}

fn with_challenge((code, headers, body): Reply) -> Reply {
    (code, format!("{headers}www-authenticate: Bearer\r\n"), body)
}

/// The cluster file of one such node, with these lines of `[auth]`.
fn file(name: &str, node: &FakeNode, auth: &str) -> File {
    let file = cluster(name, &[("relay-1", node)]);
    let text = fs::read_to_string(file.path()).expect("reads");
    fs::write(file.path(), format!("{text}\n[auth]\n{auth}")).expect("writes");
    file
}

fn shown(node: &FakeNode) -> Vec<String> {
    let asked = node.asked("GET /v1/ledger");
    asked.into_iter().map(|asked| asked.shown.unwrap_or_default()).collect()
}

#[test]
fn the_token_is_the_first_one_of_the_file_that_may_most() {
    let (operate, read) =
        (Tokens::new("most-o", &format!("# anna\n{ANNA}\n{BEN}\n"), 0o600), Tokens::new("most-r", BEN, 0o640));
    let node = guarded();
    let both = file("most", &node, &format!("operate = \"{}\"\nread = \"{}\"", operate.path(), read.path()));
    assert_eq!(spillway(&["ledger", "--config", both.path()]).exit, Exit::Ok);
    let given = ["ledger", "--token-file", read.path(), "--config", both.path()];
    assert_eq!(spillway(&given).exit, Exit::Ok);
    // One that the caller cannot read is passed over: so it is for who may only look.
    let only = file("only", &node, &format!("operate = \"/nowhere/operate\"\nread = \"{}\"", read.path()));
    assert_eq!(spillway(&["ledger", "--config", only.path()]).exit, Exit::Ok);
    assert_eq!(shown(&node), [format!("Bearer {ANNA}"), format!("Bearer {BEN}"), format!("Bearer {BEN}")]);
}

#[test]
fn who_shows_nothing_is_told_what_to_do_and_ends_with_77() {
    let node = guarded();
    let none = cluster("none", &[("relay-1", &node)]);
    let said = spillway(&["ledger", "--config", none.path()]);
    assert_eq!((said.exit, said.exit.code()), (Exit::NoPermission, 77));
    for part in ["relay-1 refuses: this takes a token", "--token-file FILE", "SPILLWAY_TOKEN_FILE"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let open = Tokens::new("open", ANNA, 0o644);
    let unsafe_ = file("unsafe", &node, &format!("operate = \"{}\"", open.path()));
    let said = spillway(&["ledger", "--config", unsafe_.path()]);
    assert_eq!(said.exit, Exit::NoPermission);
    assert!(said.err.contains("its mode is 644") && said.err.contains("chmod 600"), "{}", said.err);
    assert!(!said.err.contains(ANNA), "it says the token: {}", said.err);
    assert_eq!(shown(&node), ["", ""]);
}

#[test]
fn a_token_file_that_was_given_is_used_or_nothing_is_done() {
    let node = guarded();
    let operate = Tokens::new("given", ANNA, 0o600);
    let other = file("given", &node, &format!("operate = \"{}\"", operate.path()));
    let said = spillway(&["ledger", "--token-file", "/nowhere/token", "--config", other.path()]);
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.err.contains("use the token file: read /nowhere/token: No such file"), "{}", said.err);
    assert!(shown(&node).is_empty());
    // What asks nobody needs none.
    let check = ["config", "check", "--token-file", "/nowhere/token", "--config", other.path()];
    assert_eq!(spillway(&check).exit, Exit::Ok);
}

#[test]
fn who_may_only_look_is_told_whose_token_was_not_enough() {
    let node = guarded();
    let read = Tokens::new("look", BEN, 0o600);
    let only = file("look", &node, &format!("read = \"{}\"", read.path()));
    let said = spillway(&["health", "mode", "lenient", "--all", "--config", only.path()]);
    assert_eq!(said.exit, Exit::NoPermission, "{}", said.err);
    let part = format!("one may look, not change; sent was the first token of {}", read.path());
    assert!(said.err.contains(&part), "{}", said.err);
    assert!(!format!("{said:?}").contains(BEN));
}

#[test]
fn a_node_that_says_its_verdict_only_is_not_taken_for_one_without_pools() {
    let health = serde_json::json!({ "node": "relay-1", "layer": "relay", "verdict": { "state": "ready" } });
    let node = FakeNode::responding(move |_| with_challenge(good(&health)));
    let none = cluster("verdict", &[("relay-1", &node)]);
    let said = spillway(&["health", "show", "--config", none.path()]);
    assert_eq!(said.exit, Exit::NoPermission, "{}", said.err);
    assert!(said.err.contains("it says its verdict only; no token was sent"), "{}", said.err);
    // Nor is it dead, and so safe to restart.
    let said = spillway(&["rollout", "check", "relay-1", "--config", none.path()]);
    assert_eq!(said.exit, Exit::NoPermission, "{}", said.err);
    assert!(said.out.contains("not now") && said.out.contains("did not let us look"), "{}", said.out);
}

#[test]
fn config_show_names_the_files_and_never_opens_them() {
    let operate = Tokens::new("show", ANNA, 0o644);
    let node = guarded();
    let with = file("show", &node, &format!("operate = \"{}\"", operate.path()));
    for arguments in [["config", "show"], ["config", "check"]] {
        let said = spillway(&[&arguments[..], &["--config", with.path()]].concat());
        assert_eq!(said.exit, Exit::Ok, "{}", said.err);
        assert!(!format!("{said:?}").contains(ANNA));
    }
    assert!(spillway(&["config", "show", "--config", with.path()]).out.contains(operate.path()));
}
