use super::*;
use config::Cluster;

const HEAD: &str = r#"
[cluster]
name = "t"
[[node]]
name = "relay-1"
layer = "relay"
graphite = "127.0.0.1:1"
link = "127.0.0.1:9"
admin = "127.0.0.1:2"
data = "/nowhere/1"
[[node]]
name = "final-1"
layer = "final"
link = "127.0.0.1:7"
admin = "127.0.0.1:8"
data = "/nowhere/4"
[[store]]
name = "a"
addresses = ["127.0.0.1:2003"]
[[store]]
name = "b"
addresses = ["127.0.0.1:2004"]
"#;

/// A cluster with one rule a name; the output is `<name>.{function}`.
fn cluster(head: &str, rules: &[&str]) -> Cluster {
    let mut text = head.to_owned();
    for name in rules {
        text.push_str(&format!(
            "[[rule]]\nname = \"{name}\"\nglob = \"{name}.*\"\ninterval = \"10s\"\nfunctions = [\"sum\", \"p99.9\"]\noutput = \"out.{name}.{{function}}\"\nto = [\"b\"]\n"
        ));
    }
    config::load("t.toml", &text).unwrap_or_else(|problems| panic!("{}", problems.plain())).cluster
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("spillway-rules-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn open(&self, cluster: &Cluster) -> RuleBook {
        RuleBook::open(&self.0, cluster, 1).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(&self.0).unwrap().map(name).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn rules_of_former_days_are_known_by_their_version_after_a_change_of_the_file() {
    let folder = Folder::new("former");
    let (old, new) = (cluster(HEAD, &["x", "y"]), cluster(HEAD, &["y"]));
    let first = folder.open(&old);
    assert!(first.former().is_empty());
    let second = folder.open(&new);
    assert_eq!(second.former().keys().copied().collect::<Vec<u64>>(), [first.in_force().version()]);
    let gone = old.rules[0].id();
    assert_eq!(second.in_force().spec(gone), Some(&old.rules[0]), "its windows can still be emitted");
    assert_eq!(second.in_force().len(), 1);
    assert_eq!(second.former()[&first.in_force().version()].len(), 2);
    let third = folder.open(&old);
    assert_eq!(third.in_force().version(), first.in_force().version());
    assert_eq!(third.former().keys().copied().collect::<Vec<u64>>(), [second.in_force().version()], "back again");
}

#[test]
fn a_former_rules_stores_are_found_by_their_names() {
    let folder = Folder::new("stores");
    folder.open(&cluster(HEAD, &["x"]));
    let swapped = HEAD.replace("\"a\"", "\"c\"").replace("\"b\"", "\"a\"").replace("\"c\"", "\"b\"");
    let rules = folder.open(&cluster(&swapped, &["x", "y"]));
    let former = rules.former();
    let set = former.values().next().unwrap();
    assert_eq!(set.spec(cluster(HEAD, &["x"]).rules[0].id()).unwrap().to, [0]);
}

#[test]
fn the_oldest_sets_are_forgotten() {
    let folder = Folder::new("oldest");
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    let versions: Vec<u64> =
        names.iter().map(|name| folder.open(&cluster(HEAD, &[name])).in_force().version()).collect();
    let rules = folder.open(&cluster(HEAD, &["n39"]));
    let known: std::collections::BTreeSet<u64> = rules.former().keys().copied().collect();
    assert_eq!(known, versions[8..39].iter().copied().collect());
}

#[test]
fn a_damaged_file_is_put_aside_and_a_newer_one_left_alone() {
    let folder = Folder::new("damaged");
    let path = folder.0.join("rules.json");
    let one = cluster(HEAD, &["x"]);
    fs::write(&path, "{\"format\": 1, \"sets\": [{").unwrap();
    assert!(folder.open(&one).former().is_empty());
    assert_eq!(folder.files(), ["rules.json", "rules.json.damaged-1"]);
    fs::write(&path, "{\"format\": 2, \"groups\": []}").unwrap();
    let error = RuleBook::open(&folder.0, &one, 2).unwrap_err().to_string();
    assert!(error.contains("has format 2"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"format\": 2, \"groups\": []}");
}

#[test]
fn what_is_told_teaches_another_node_and_lasts() {
    let (teacher, pupil) = (Folder::new("teacher"), Folder::new("pupil"));
    let (old, new) = (cluster(HEAD, &["x", "y"]), cluster(HEAD, &["y"]));
    let version = teacher.open(&old).in_force().version();
    let told = teacher.open(&new).told();
    let book = pupil.open(&new);
    assert!(!book.knows(version) && told.len() == 2);
    assert_eq!(book.learn(&told[1]), Ok(Some(version)));
    assert_eq!(book.learn(&told[1]), Ok(None), "once is enough");
    assert_eq!(book.learn(&told[0]), Ok(None), "its own");
    assert_eq!(book.in_force().spec(old.rules[0].id()), Some(&old.rules[0]), "also where its outputs go");
    assert_eq!(book.told(), told, "it tells it on");
    assert!(pupil.open(&new).knows(version), "and knows it after a start");
    let error = book.learn(b"{\"version\": \"x\", \"rules\": []}").unwrap_err();
    assert!(error.contains("its version"), "{error}");
}
