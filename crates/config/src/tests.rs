use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("tests/example.toml");
const REFERENCE: &str = include_str!("../../../config/spillway.toml");
const SHAPES: [(&str, &str); 4] = [
    ("example.toml", EXAMPLE),
    ("config/spillway.toml", REFERENCE),
    ("config/relay-only.toml", include_str!("../../../config/relay-only.toml")),
    ("config/one-layer.toml", include_str!("../../../config/one-layer.toml")),
];
const REQUIRED_ONLY: &str = r#"
cluster.name = "small"
node = [{ name = "r", layer = "relay", graphite = "127.0.0.1", link = "127.0.0.1", admin = "127.0.0.1" }]
store = [{ name = "s", addresses = ["127.0.0.1:2103"] }]
"#;

#[track_caller]
fn good(file: &str, text: &str) -> Loaded {
    load(file, text).unwrap_or_else(|problems| panic!("{}", problems.excerpts(false)))
}

#[test]
fn every_shipped_file_loads_without_a_warning() {
    for (file, text) in SHAPES {
        let loaded = good(file, text);
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.plain());
    }
}

#[test]
fn the_reference_says_what_is_the_default_anyway() {
    let reference = good("spillway.toml", REFERENCE).cluster;
    let small = good("small.toml", REQUIRED_ONLY).cluster;
    assert_eq!(small.partitions, reference.partitions);
    assert_eq!((&small.health, &reference.health), (&Health::default(), &Health::default()));
    assert_eq!((&small.send, &reference.send), (&Sending::default(), &Sending::default()));
    assert_eq!((&small.spill, &reference.spill), (&Spill::default(), &Spill::default()));
    assert_eq!((&small.final_, &reference.final_), (&Final::default(), &Final::default()));
    assert_eq!((&small.replay, &reference.replay), (&Replay::default(), &Replay::default()));
    assert_eq!((&small.receive, &reference.receive), (&Receive::default(), &Receive::default()));
    assert_eq!((&small.output, &reference.output), (&Output::default(), &Output::default()));
    assert_eq!((&small.supervise, &reference.supervise), (&Supervise::default(), &Supervise::default()));
    assert_eq!((&small.auth, &reference.auth), (&Auth::default(), &Auth::default()));
    assert_eq!((&small.tls, &reference.tls), (&Tls::default(), &Tls::default()));
    assert_eq!((&small.telemetry, &reference.telemetry), (&Telemetry::default(), &Telemetry::default()));
}

#[test]
fn the_reference_has_every_key_there_is() {
    // Each key that the walk asks for shows up in the effective configuration. The first of several nodes, routes and
    // rules is the one that documents.
    let shown = good("spillway.toml", REFERENCE).show();
    let mut seen = std::collections::BTreeSet::new();
    let mut header = "";
    for line in shown.lines() {
        if line.starts_with('[') {
            header = line.split_whitespace().next().unwrap_or_default();
            assert!(line.contains("spillway.toml:"), "{header} is not in the reference");
        } else if !line.is_empty() {
            let key = line.split_whitespace().next().unwrap_or_default();
            let first = seen.insert((header, key));
            assert!(!first || line.contains("spillway.toml:"), "{header} {key} is not in the reference");
        }
    }
}

#[test]
fn what_is_shown_loads_to_the_same_tree() {
    for (file, text) in SHAPES.into_iter().chain([("small.toml", REQUIRED_ONLY)]) {
        let loaded = good(file, text);
        let again = good("shown.toml", &loaded.show());
        assert_eq!(again.cluster, loaded.cluster, "{file}");
    }
}

#[test]
fn show_says_where_each_value_comes_from() {
    let shown = good("example.toml", EXAMPLE).show();
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(
        line("linger =").ends_with("\"100ms\"                            # example.toml:70"),
        "{}",
        line("linger =")
    );
    assert!(line("watchdog =").ends_with("# default"), "{}", line("watchdog ="));
}

#[test]
fn without_routes_everything_goes_everywhere() {
    let small = good("small.toml", REQUIRED_ONLY).cluster;
    let everything = engine::pattern::Selector::Glob("**".into());
    let route =
        engine::route::RouteSpec { selector: everything, to: vec![engine::route::Target::Store(0)], stop: false };
    assert_eq!(small.routes, [route]);
}

#[test]
fn a_port_that_is_left_out_is_the_layers_default() {
    let small = good("small.toml", REQUIRED_ONLY).cluster;
    let relay = small.node("r").expect("there is one");
    let ports =
        [relay.graphite, relay.link, Some(relay.admin)].map(|address| address.map_or(0, |address| address.port()));
    assert_eq!(ports, [2003, 8651, 8641]);
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let text = REQUIRED_ONLY.replace(
        "addresses = [\"127.0.0.1:2103\"] }",
        "addresses = [\"127.0.0.1:2103\"] }, { name = \"t\", addresses = [\"h:1\"] }",
    ) + "[[route]]\nglob = \"**\"\nto = [\"s\"]\n";
    let loaded = good("warn.toml", &text);
    assert_eq!(loaded.warnings.plain(), "warn.toml:4:67: warning: store[2].name: nothing leads to store \"t\"\n");
    assert_eq!(loaded.warnings.error_count(), 0);
}

#[test]
fn a_spill_that_hardly_works_as_meant_is_a_warning() {
    let warnings = |more: &str| good("spill.toml", &format!("{REQUIRED_ONLY}{more}")).warnings.plain();
    for (text, key, message) in [
        ("[spill]\nquota = \"512MiB\"\n", "spill.quota", "512MiB is not larger than send.retain (512MiB)"),
        ("[send]\nretain = \"21GiB\"\n", "send.retain", "spill.quota: 20GiB is not larger than send.retain (21GiB)"),
        ("[spill]\nsync = \"4s\"\n", "spill.sync", "4s is longer than send.ack_timeout (3s)"),
    ] {
        let said = warnings(text);
        assert!(said.contains(&format!("warning: {key}: {message}")) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(warnings("[spill]\nquota = \"513MiB\"\nsync = \"3s\"\n"), "");
    assert_eq!(warnings("[spill]\nsync = \"always\"\n"), "");
}

#[test]
fn an_admin_api_beyond_loopback_needs_tokens_or_certificates_or_a_word_that_it_is_meant() {
    let files = "[tls]\ncertificate = \"c\"\nkey = \"k\"\nauthority = \"a\"\n";
    let cases = [
        ("127.0.0.1", "", true),
        ("127.8.0.1", "", true),
        ("[::1]:8641", "", true),
        ("[::ffff:127.0.0.1]:8641", "", true),
        ("0.0.0.0", "", false),
        ("[::]:8641", "", false),
        ("10.0.0.1", "", false),
        ("10.0.0.1", "[auth]\noperate = \"tokens/operate\"", true),
        ("10.0.0.1", "[auth]\nread = \"tokens/read\"", true),
        ("10.0.0.1", "[auth]\nread = \"\"", false),
        ("10.0.0.1", "[auth]\nopen = true", true),
        ("10.0.0.1", &format!("{files}admin = \"mutual\""), true),
        // The server shows who it is, not who asks.
        ("10.0.0.1", &format!("{files}admin = \"on\""), false),
    ];
    for (admin, rest, fits) in cases {
        let text = REQUIRED_ONLY.replace("admin = \"127.0.0.1\"", &format!("admin = \"{admin}\"")) + rest;
        match load("auth.toml", &text) {
            Ok(_) => assert!(fits, "{admin} {rest}"),
            Err(problems) => {
                let said = problems.plain();
                assert!(!fits && said.lines().count() == 1, "{admin} {rest}: {said}");
                for word in ["node[1].admin", "could change this node", "`[auth]`", "tls.admin", "auth.open = true"] {
                    assert!(said.contains(word), "{word}: {said}");
                }
            }
        }
    }
}

#[test]
fn tokens_that_contradict_themselves_are_problems() {
    let said = |auth: &str| match load("auth.toml", &format!("{REQUIRED_ONLY}[auth]\n{auth}")) {
        Ok(loaded) => loaded.warnings.plain(),
        Err(problems) => problems.plain(),
    };
    assert!(said("operate = \"a\"\nopen = true").contains("auth.open: there are tokens"));
    assert!(said("metrics = \"token\"").contains("auth.metrics: no token is there"));
    assert!(said("read = \"a\"\noperate = \"a\"").contains("auth.read: the same file as auth.operate"));
    assert!(said("read = \"a\"").contains("warning: auth.read: nobody may change anything"));
    assert!(said("operate = \"a\"\nmetrics = \"tokens\"").contains("did you mean \"token\"?"));
    assert_eq!(said("read = \"a\"\noperate = \"b\"\nmetrics = \"token\""), "");
}

#[test]
fn what_tls_needs_must_be_there_and_is_named_after_the_node() {
    let with = |tls: &str| format!("{REQUIRED_ONLY}[tls]\n{tls}");
    let files = "certificate = \"tls/{node}.pem\"\nkey = \"/k\"\n";
    let tls = good("tls.toml", &with(&format!("{files}graphite = \"on\""))).cluster.tls;
    assert!(tls.is_on() && !tls.links.is_on());
    let paths = [&tls.certificate, &tls.key].map(|path| path.as_ref().map(|path| path.of("relay-1")));
    assert_eq!(paths, [Some("tls/relay-1.pem".into()), Some("/k".into())]);
    // Whoever dials a link or asks the admin API checks what it is shown.
    for word in ["links = \"on\"", "admin = \"on\"", "graphite = \"mutual\""] {
        let problems = load("tls.toml", &with(&format!("{files}{word}"))).expect_err(word).plain();
        assert!(problems.contains("needs `authority`") && problems.lines().count() == 1, "{problems}");
    }
}

#[test]
fn a_node_that_no_certificate_can_name_is_a_problem_only_where_names_are_checked() {
    for (name, fits) in
        [("relay-1", true), ("a_b.c", true), ("r.1", false), ("a..b", false), ("a-", false), ("7", false)]
    {
        let files = "certificate = \"c\"\nkey = \"k\"\nauthority = \"a\"\n";
        let text = |mode: &str| {
            REQUIRED_ONLY.replace("name = \"r\"", &format!("name = \"{name}\"")) + &format!("[tls]\n{files}{mode}")
        };
        assert_eq!(load("tls.toml", &text("links = \"mutual\"")).is_ok(), fits, "{name}");
        good("tls.toml", &text("graphite = \"mutual\""));
    }
}

/// Each `tests/bad/NAME.toml` beside `NAME.txt`, which holds both renderings. `SPILLWAY_BLESS=1` writes them anew.
#[test]
fn bad_files_are_answered_with_all_their_problems() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/bad");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory).expect("lists").map(|entry| entry.expect("entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 12, "found only {}", files.len());
    for path in files {
        let text = fs::read_to_string(&path).expect("reads");
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        let problems = load(&name, &text).expect_err(&name);
        let actual = format!("{}\n{}", problems.plain(), problems.excerpts(false));
        let golden = path.with_extension("txt");
        if std::env::var_os("SPILLWAY_BLESS").is_some() {
            fs::write(&golden, &actual).expect("writes");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(actual, expected, "{}", golden.display());
    }
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let problems = load("x.toml", "a = 1").expect_err("bad");
    assert!(problems.excerpts(true).contains('\u{1b}'));
    assert!(!problems.excerpts(false).contains('\u{1b}'));
}

/// Neither loading nor any rendering panics, and whatever loads can be shown and loaded again.
fn survives(text: &str) {
    match load("f.toml", text) {
        Ok(loaded) => assert_eq!(good("again.toml", &loaded.show()).cluster, loaded.cluster),
        Err(problems) => {
            assert!(problems.error_count() > 0);
            assert!(problems.excerpts(false).len() + problems.plain().len() > 0);
            for problem in &problems.problems {
                assert!(problem.line >= 1 && problem.column >= 1 && !problem.message.is_empty());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn any_bytes_of_toml_are_answered(text in "[\\[\\]a-c=\"'.{},\\n#0-9 é\u{0}\r\t-]{0,200}") {
        survives(&text);
    }

    #[test]
    fn a_good_file_with_a_piece_replaced_is_answered(
        at in 0usize..4000, length in 0usize..60, piece in "[\\[\\]a-z=\"'.{},\\n#0-9 é\\\\/%*<-]{0,12}"
    ) {
        let start = EXAMPLE.floor_char_boundary(at);
        let end = EXAMPLE.floor_char_boundary((start + length).min(EXAMPLE.len())).max(start);
        let mut text = EXAMPLE.to_owned();
        text.replace_range(start..end, &piece);
        survives(&text);
    }
}
