use super::*;

const EXPLAINED: &str = r#"
cluster.name = "explained"
[[node]]
name = "r"
layer = "relay"
graphite = "127.0.0.1:2003"
link = "127.0.0.1:8651"
admin = "127.0.0.1:8641"
[[node]]
name = "f"
layer = "final"
link = "127.0.0.1:8653"
admin = "127.0.0.1:8643"
[[store]]
name = "carbon"
addresses = ["10.0.0.1:2003", "10.0.0.2:2003", "10.0.0.3:2003"]
[[store]]
name = "six"
addresses = ["[::1]:2003=a"]
[[route]]
regex = '^secret\.'
to = ["drop"]
stop = true
[[route]]
glob = "web.**"
to = ["aggregate", "carbon"]
stop = true
[[route]]
glob = "foo"
to = ["carbon", "six"]
[[rule]]
name = "requests"
glob = "web.<host>.requests"
output = "all.{host}.{function}"
interval = "10s"
grace = "5s"
functions = ["sum", "p99"]
to = ["six"]
[[rule]]
name = "raw"
glob = "web.*.quiet"
output = "all.quiet"
functions = ["max"]
completeness = true
drop_raw = true
to = ["six"]
"#;

#[track_caller]
fn explained(name: &str, line: &str, expected: &str) {
    let file = File::new(name, EXPLAINED);
    let said = spillway(&["explain", line, "--config", file.path()]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Ok, ""), "{line}");
    // Which partition a key is in is the engine's to say.
    let out: Vec<&str> = said.out.lines().filter(|line| !line.starts_with("  partition  ")).collect();
    assert_eq!(out, expected.lines().collect::<Vec<_>>(), "{line}");
}

#[test]
fn explain_follows_a_raw_series_to_its_addresses() {
    // foo is on host 3 of three in COMPAT 4.2.
    let expected = "\
series     foo
value      1e3
timestamp  1700000000 (now)
route 3    glob foo -> carbon, six
raw        carbon 10.0.0.3:2003, six [::1]:2003=a
";
    explained("raw", "foo 1e3", expected);
}

#[test]
fn explain_follows_an_aggregated_series_to_its_window() {
    let expected = "\
series     web.a.requests
value      3
timestamp  1699999997 (3s ago)
route 2    glob web.** -> aggregate, carbon, stop
raw        carbon 10.0.0.3:2003
rule       requests: all.a.{function}
  window     1699999990 to 1700000000, first emitted at 1700000005 at the latest (in 5s)
  output     all.a.sum -> six [::1]:2003=a
  output     all.a.p99 -> six [::1]:2003=a
";
    explained("aggregated", "web.a.requests 3 1699999997", expected);
}

#[test]
fn explain_says_why_something_is_not_stored() {
    let dropped = "\
series     secret.key
value      1
timestamp  1700000000 (now)
route 1    regex ^secret\\. -> drop, stop
raw        not stored: a route drops it
";
    explained("dropped", "secret.key 1 -1", dropped);
    let unrouted = "\
series     other
value      1
timestamp  1700000000 (now)
route      none matches
raw        not stored: no route takes it
";
    explained("unrouted", "other 1", unrouted);
    let quiet = "\
series     web.a.quiet
value      1
timestamp  1500000000 (2314d 19h ago)
route 2    glob web.** -> aggregate, carbon, stop
raw        not stored: a rule says drop_raw
rule       raw: all.quiet
  window     1500000000 to 1500000010, past the horizon: it would be counted as too_old
  output     all.quiet -> six [::1]:2003=a
  output     all.quiet.__complete -> six [::1]:2003=a
";
    explained("quiet", "web.a.quiet 1 1500000000", quiet);
}

#[test]
fn explain_gives_the_reason_of_a_rejected_line() {
    explained("rejected", "foo nan 1", "rejected: nan\n");
    let file = File::new("rejected-json", EXPLAINED);
    let json = spillway(&["explain", "--json", "foo", "x", "1", "--config", file.path()]).json();
    assert_eq!((&json["line"], &json["rejected"]), (&"foo x 1".into(), &"bad_value".into()));
    let json = spillway(&["explain", "--json", "web.a.requests", "-1.5", "--config", file.path()]).json();
    assert_eq!(json["point"]["value"], "-1.5");
    let partition = json["rules"][0]["partition"].as_u64().expect("a number");
    assert!(partition < 16);
}
