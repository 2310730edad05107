//! Completions and man pages, which need no cluster file.

use std::process::Command as Process;

use super::*;

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        Directory(std::env::temp_dir().join(format!("spillway-cli-{}-{name}", std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removes");
    }
}

#[test]
fn completions_know_the_commands_and_are_good_shell() {
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef spillway"), ("fish", "complete -c spillway")] {
        let said = spillway(&["completions", shell]);
        assert_eq!((said.exit, said.err.as_str()), (Exit::Ok, ""), "{shell}");
        for word in [mark, "replay", "audit", "canary", "spill", "completions", "console", "i-know-it-is-open"] {
            assert!(said.out.contains(word), "{word} is missing for {shell}");
        }
        assert_eq!(spillway(&["completions", shell, "--json"]).json()["script"], said.out);
    }
    let script = File::new("completions", &spillway(&["completions", "bash"]).out);
    let checked = Process::new("bash").args(["-n", script.path()]).output().expect("bash runs");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    let other = spillway(&["completions", "tcsh"]);
    assert_eq!(other.exit, Exit::Usage);
    assert!(other.err.contains("possible values: bash, zsh, fish"), "{}", other.err);
}

#[test]
fn every_command_has_a_man_page_and_the_first_names_the_exit_codes() {
    let directory = Directory::new("man");
    let path = directory.0.to_str().expect("UTF-8");
    let said = spillway(&["man", path]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Ok, ""));
    let page = |name: &str| fs::read_to_string(directory.0.join(format!("{name}.1"))).expect(name);
    for text in ["Exit codes", "refused: it would lose data", "spillway\\-replay(1)"] {
        assert!(page("spillway").contains(text), "{text} in {}", page("spillway"));
    }
    for name in ["spillway-replay-rate", "spillway-replay-cursor-advance", "spillway-spill-export", "spillway-man"] {
        assert!(page(name).contains("Exit codes"), "{name}");
    }
    assert!(page("spillway-replay-rate").contains("Points per second"), "{}", page("spillway-replay-rate"));
    for text in ["127.0.0.1:8640", "i\\-know\\-it\\-is\\-open", "ssh"] {
        assert!(page("spillway-console").contains(text), "{text} in {}", page("spillway-console"));
    }
    let pages = spillway(&["man", path, "--json"]).json()["pages"].as_array().map(Vec::len);
    assert_eq!(pages, fs::read_dir(&directory.0).ok().map(Iterator::count));
    let taken = File::new("man-taken", "");
    assert_eq!(spillway(&["man", taken.path()]).exit, Exit::Usage);
}
