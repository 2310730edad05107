use super::*;

/// A directory of its own for each test, gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("spillway-identity-{}-{name}", std::process::id()));
        Scratch(path)
    }

    /// One life of the node.
    fn life(&self, now: u32) -> Result<Identity, IdentityError> {
        DataDir::open(&self.0)?.identity(UnixSeconds(now))
    }

    fn identity_file(&self) -> PathBuf {
        self.0.join("identity")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
fn sender_stays_while_epoch_grows_and_nonce_changes() {
    let scratch = Scratch::new("lives");
    let first = scratch.life(1_000).unwrap();
    assert_eq!(first.epoch, 1_000);
    let again_within_the_second = scratch.life(1_000).unwrap();
    assert_eq!(again_within_the_second.epoch, 1_001);
    let later = scratch.life(5_000).unwrap();
    assert_eq!(later.epoch, 5_000);
    let clock_went_back = scratch.life(2_000).unwrap();
    assert_eq!(clock_went_back.epoch, 5_001);
    for life in [again_within_the_second, later, clock_went_back] {
        assert_eq!(life.sender, first.sender);
        assert_ne!(life.nonce, first.nonce);
    }
}

#[test]
fn data_directory_restored_from_a_backup_gets_a_fresh_epoch() {
    let scratch = Scratch::new("backup");
    scratch.life(1_000).unwrap();
    let backup = fs::read(scratch.identity_file()).unwrap();
    let used = scratch.life(2_000).unwrap();
    fs::write(scratch.identity_file(), backup).unwrap();
    assert!(scratch.life(2_001).unwrap().epoch > used.epoch);
}

#[test]
fn restored_directory_with_a_clock_that_went_back_rises_above_what_the_cluster_knows() {
    let scratch = Scratch::new("backup-and-clock");
    let asked = scratch.life(1_000).unwrap().sender;
    let backup = fs::read(scratch.identity_file()).unwrap();
    let used = scratch.life(5_000).unwrap();
    fs::write(scratch.identity_file(), backup).unwrap();
    let life = DataDir::open(&scratch.0).unwrap().identity_above(UnixSeconds(7), |sender| {
        assert_eq!(sender, asked);
        used.epoch
    });
    assert_eq!(life.unwrap().epoch, used.epoch + 1);
    assert_eq!(scratch.life(7).unwrap().epoch, used.epoch + 2, "it is on disk");
}

#[test]
fn what_is_known_below_changes_nothing_and_a_new_sender_asks_nobody() {
    let scratch = Scratch::new("known-below");
    let first = DataDir::open(&scratch.0).unwrap().identity_above(UnixSeconds(1_000), |_| panic!("asked"));
    assert_eq!(first.unwrap().epoch, 1_000);
    let second = DataDir::open(&scratch.0).unwrap().identity_above(UnixSeconds(2_000), |_| 1_000);
    assert_eq!(second.unwrap().epoch, 2_000);
}

#[test]
fn sender_that_was_forgotten_has_no_epoch_left() {
    let scratch = Scratch::new("forgotten");
    scratch.life(1).unwrap();
    let life = DataDir::open(&scratch.0).unwrap().identity_above(UnixSeconds(2), |_| u32::MAX);
    assert!(matches!(life, Err(IdentityError::Exhausted { .. })));
}

#[test]
fn two_directories_are_two_senders() {
    let (one, two) = (Scratch::new("one"), Scratch::new("two"));
    assert_ne!(one.life(1).unwrap().sender, two.life(1).unwrap().sender);
}

#[test]
fn directory_in_use_is_refused_with_the_holders_pid() {
    let scratch = Scratch::new("in-use");
    let held = DataDir::open(&scratch.0).unwrap();
    let error = DataDir::open(&scratch.0).unwrap_err();
    assert!(matches!(&error, IdentityError::InUse { holder, .. } if *holder == std::process::id().to_string()));
    assert!(error.to_string().contains("stop it, or give this node its own"), "{error}");
    drop(held);
    DataDir::open(&scratch.0).unwrap();
}

#[test]
fn damaged_file_is_refused_and_left_as_it_is() {
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("other-format", b"spillway identity 2\nsender 1\nepoch 1\n"),
        ("no-sender", b"spillway identity 1\nsender xyz\nepoch 1\n"),
        ("no-epoch", b"spillway identity 1\nsender 0000000000000001\n"),
        ("epoch-too-large", b"spillway identity 1\nsender 0000000000000001\nepoch 4294967296\n"),
        ("not-text", b"\xff\xfe"),
    ];
    for (name, content) in cases {
        let scratch = Scratch::new(name);
        fs::create_dir_all(&scratch.0).unwrap();
        fs::write(scratch.identity_file(), content).unwrap();
        let error = scratch.life(1_000).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{name}: {error}");
        assert_eq!(fs::read(scratch.identity_file()).unwrap(), content, "{name}");
    }
}

#[test]
fn last_epoch_is_never_used_twice() {
    let scratch = Scratch::new("last-epoch");
    assert_eq!(scratch.life(u32::MAX).unwrap().epoch, u32::MAX);
    assert!(matches!(scratch.life(u32::MAX), Err(IdentityError::Exhausted { .. })));
}

#[test]
fn crash_while_writing_leaves_the_old_identity() {
    let scratch = Scratch::new("crash");
    let first = scratch.life(1_000).unwrap();
    fs::write(scratch.0.join("identity.new"), "spillway iden").unwrap();
    let second = scratch.life(1_000).unwrap();
    assert_eq!((second.sender, second.epoch), (first.sender, 1_001));
}

#[test]
fn directory_that_cannot_be_made_is_named() {
    let scratch = Scratch::new("not-a-directory");
    fs::create_dir_all(&scratch.0).unwrap();
    fs::write(scratch.0.join("file"), "").unwrap();
    let error = DataDir::open(scratch.0.join("file")).unwrap_err();
    assert!(matches!(error, IdentityError::Io { action: "create", .. }), "{error}");
    assert!(error.to_string().contains("/file"), "{error}");
}
