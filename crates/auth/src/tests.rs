use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use admin_api::access::Role;

use crate::{Keys, read_tokens};

const ANNA: &str = "anna-has-this-token";
const BEN: &str = "ben-has-that-token==";

/// A directory that is gone when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spillway-auth-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Put in place by renaming, as one should.
    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let (new, path) = (self.path("new"), self.path(name));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_token_file_is_taken_only_if_it_is_safe_and_right() {
    let dir = Dir::new();
    let long = "x".repeat(257);
    let many = format!("{ANNA}\n").repeat(17);
    let cases = [
        (ANNA, 0o600, Ok(1)),
        ("# who: anna\n\n anna-has-this-token \r\nben-has-that-token==\n", 0o640, Ok(2)),
        (ANNA, 0o400, Ok(1)),
        // As Kubernetes mounts a Secret for a group.
        (ANNA, 0o440, Ok(1)),
        (ANNA, 0o644, Err("its mode is 644")),
        (ANNA, 0o604, Err("chmod 600, or 640")),
        (ANNA, 0o602, Err("its mode is 602")),
        (ANNA, 0o660, Err("its mode is 660")),
        ("", 0o600, Err("no token")),
        ("# nothing yet\n", 0o600, Err("at least 16 characters")),
        ("fifteen-letters\n", 0o600, Err("line 1: a token has 16 to 256 characters, this one 15")),
        (&long, 0o600, Err("this one 257")),
        ("anna-has-this-token\ntwo words in this one\n", 0o600, Err("line 2: a token has letters")),
        ("\u{e4}nna-has-this-token", 0o600, Err("letters, digits")),
        (&many, 0o600, Err("line 17: more than 16")),
    ];
    for (text, mode, expected) in cases {
        let path = dir.write("tokens", text, mode);
        match (read_tokens(&path), expected) {
            (Ok(tokens), Ok(count)) => assert_eq!(tokens.len(), count, "{text}"),
            (Err(error), Err(part)) => {
                let said = error.to_string();
                assert!(said.contains(part) && said.contains("/tokens"), "{said}");
                assert!(!said.contains("anna") && !said.contains("fifteen"), "it tells what is in the file: {said}");
            }
            (read, expected) => panic!("{text:?} with mode {mode:o}: {read:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn what_is_no_file_is_said_and_holds_nobody_up() {
    let dir = Dir::new();
    let said = |path: PathBuf| read_tokens(&path).unwrap_err().to_string();
    assert!(said(dir.path("nowhere")).contains("No such file"));
    assert!(said(dir.0.clone()).contains("it is no file"));
    let fifo = dir.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(said(fifo).contains("it is no file"));
    assert!(said(dir.write("huge", &"#".repeat(20_000), 0o600)).contains("more than 16384 bytes"));
}

#[test]
fn no_way_of_printing_shows_a_token() {
    let dir = Dir::new();
    let path = dir.write("tokens", ANNA, 0o600);
    let tokens = read_tokens(&path).unwrap();
    assert_eq!(tokens[0].expose(), ANNA);
    assert_eq!(format!("{:?}", tokens[0]), "Secret(..)");
    let keys = Keys::open([(Role::Read, path)]);
    assert!(!format!("{keys:?} {keys:#?}").contains("anna-has"));
}

#[test]
fn a_token_has_the_highest_role_of_the_files_it_stands_in() {
    let dir = Dir::new();
    let read = dir.write("read", &format!("{ANNA}\n{BEN}"), 0o600);
    let operate = dir.write("operate", BEN, 0o600);
    let keys = Keys::open([(Role::Read, read), (Role::Operate, operate)]);
    assert_eq!(keys.role_of(ANNA.as_bytes()), Some(Role::Read));
    assert_eq!(keys.role_of(BEN.as_bytes()), Some(Role::Operate));
    for wrong in ["", "anna-has-this-tokem", "anna-has-this-token ", "anna-has-this-toke", "# comment"] {
        assert_eq!(keys.role_of(wrong.as_bytes()), None, "{wrong:?}");
    }
}

#[test]
fn a_changed_file_holds_at_once_and_a_broken_one_leaves_the_earlier_tokens_in_force() {
    let dir = Dir::new();
    let path = dir.path("operate");
    let keys = Keys::open([(Role::Operate, path.clone())]);
    let has = |token: &str| keys.role_of(token.as_bytes()) == Some(Role::Operate);
    let is_at_fault = || keys.faults()[0].1.is_some();
    assert!(!has(ANNA) && is_at_fault(), "the file is not there yet");
    dir.write("operate", ANNA, 0o600);
    assert!(has(ANNA) && !is_at_fault(), "it is there, without a restart");
    dir.write("operate", &format!("{ANNA}\n{BEN}"), 0o600);
    assert!(has(ANNA) && has(BEN), "while it is being changed there are two");
    dir.write("operate", BEN, 0o600);
    assert!(!has(ANNA) && has(BEN), "the old one is gone");
    for (text, mode) in [("", 0o600), ("short", 0o600), (ANNA, 0o644)] {
        dir.write("operate", text, mode);
        assert!(!has(ANNA) && has(BEN) && is_at_fault(), "{text:?} {mode:o}");
    }
    fs::remove_file(&path).unwrap();
    assert!(has(BEN) && is_at_fault(), "gone altogether");
    dir.write("operate", ANNA, 0o600);
    assert!(has(ANNA) && !has(BEN) && !is_at_fault(), "whole again");
}
