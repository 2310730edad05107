use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use config::{Tls, TlsMode};
use engine::recv::HandshakeFault;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::keys::Look;
use crate::{Caller, Door, Failed, Keys, Port, Stream, TlsError};

/// An authority with a directory of its own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    fn new() -> Authority {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("spillway-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("makes a directory");
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        fs::write(directory.join("ca.pem"), params.self_signed(&key).expect("signs").pem()).expect("writes");
        Authority { issuer: Issuer::new(params, key), directory }
    }

    /// Writes `<node>.pem` and `<node>.key`, for `names`, valid until the end of `year`.
    fn issue(&self, node: &str, names: &[&str], year: i32) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = date_time_ymd(year, 12, 31);
        self.write(&format!("{node}.pem"), &params.signed_by(&key, &self.issuer).expect("signs").pem());
        self.write(&format!("{node}.key"), &key.serialize_pem());
    }

    /// Aside and renamed, as those who renew certificates do; readable by the owner.
    fn write(&self, name: &str, text: &str) {
        let aside = self.directory.join("aside");
        fs::write(&aside, text).expect("writes");
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("sets the mode");
        fs::rename(&aside, self.directory.join(name)).expect("renames");
    }

    /// As the cluster file says it; `authority` may be another one's.
    fn tls(&self, authority: &Authority) -> Tls {
        let (own, trusted) = (self.directory.display(), authority.directory.display());
        let text = format!(
            "cluster.name = \"c\"\nnode = [{{ name = \"r\", layer = \"relay\", graphite = \"127.0.0.1\", link = \"127.0.0.1\", \
             admin = \"127.0.0.1\" }}]\nstore = [{{ name = \"s\", addresses = [\"h:1\"] }}]\n[tls]\n\
             certificate = \"{own}/{{node}}.pem\"\nkey = \"{own}/{{node}}.key\"\nauthority = \"{trusted}/ca.pem\"\n"
        );
        config::load("tls.toml", &text).unwrap_or_else(|problems| panic!("{}", problems.plain())).cluster.tls
    }

    fn keys(&self, node: &str) -> Arc<Keys> {
        Keys::open(&self.tls(self), node).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.directory).expect("removes the directory");
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// What both sides make of one connection to `name`; where both agree, what the dialler says comes through.
async fn meet(door: &Door, caller: &Caller, name: &str) -> (Result<Stream, Failed>, Result<Stream, Failed>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let dialled = async {
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let mut stream = caller.call(stream, name).await?;
        // An answer to the certificate that a dialler shows comes only now.
        let said = async {
            stream.write_all(b"hello").await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match said.await {
            Ok(_) => Ok(stream),
            Err(error) => Err(Failed::in_handshake(&error)),
        }
    };
    let accepted = async {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut stream = door.open(stream).await?;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.map_err(|error| Failed::in_handshake(&error))?;
        assert_eq!(&said, b"hello");
        stream.write_all(b"!").await.expect("answers");
        stream.flush().await.expect("flushes");
        Ok(stream)
    };
    tokio::join!(accepted, dialled)
}

fn door(keys: &Arc<Keys>, mode: TlsMode) -> Door {
    Door::new(Some(keys), mode, Port::Links).expect("a door")
}

fn caller(keys: &Arc<Keys>, mode: TlsMode) -> Caller {
    Caller::new(Some(keys), mode, Port::Links).expect("a caller")
}

fn fault(result: &Result<Stream, Failed>) -> Option<HandshakeFault> {
    result.as_ref().err().map(|failed| failed.fault)
}

#[test]
fn both_sides_agree_in_every_mode_and_mutual_shows_the_diallers_names() {
    let authority = Authority::new();
    authority.issue("relay-1", &["relay-1"], 2040);
    authority.issue("final-1", &["final-1", "stats.example"], 2040);
    let (relay, fin) = (authority.keys("relay-1"), authority.keys("final-1"));
    for mode in [TlsMode::Off, TlsMode::On, TlsMode::Mutual] {
        let (accepted, dialled) = block_on(meet(&door(&fin, mode), &caller(&relay, mode), "final-1"));
        let accepted = accepted.unwrap_or_else(|failed| panic!("{mode:?}: {failed}"));
        let dialled = dialled.unwrap_or_else(|failed| panic!("{mode:?}: {failed}"));
        assert_eq!(accepted.has_peer_certificate(), mode == TlsMode::Mutual);
        assert_eq!(accepted.peer_is("relay-1"), mode == TlsMode::Mutual);
        assert!(!accepted.peer_is("relay-2") && !accepted.peer_is("final-1"));
        assert_eq!(dialled.peer_names(), if mode.is_on() { vec!["final-1", "stats.example"] } else { vec![] });
    }
    assert_eq!(fin.handshakes(), [(Port::Links, crate::Side::Accepted, "done", 2)]);
    assert_eq!(relay.handshakes(), [(Port::Links, crate::Side::Dialled, "done", 2)]);
}

#[test]
fn what_is_wrong_with_a_certificate_is_named_on_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("good", &["good"], 2040);
    authority.issue("old", &["old"], 2020);
    stranger.issue("good", &["good"], 2040);
    let (good, old) = (authority.keys("good"), authority.keys("old"));
    // Its own certificate is another authority's; it trusts ours.
    let foreign = Keys::open(&stranger.tls(&authority), "good").expect("opens");
    let check =
        |accepts: &Arc<Keys>, dials: &Arc<Keys>, name: &str, at_door: HandshakeFault, at_caller: HandshakeFault| {
            let (accepted, dialled) =
                block_on(meet(&door(accepts, TlsMode::Mutual), &caller(dials, TlsMode::Mutual), name));
            assert_eq!((fault(&accepted), fault(&dialled)), (Some(at_door), Some(at_caller)), "{name}");
        };
    use HandshakeFault::{Expired, Refused, Untrusted, WrongName};
    check(&good, &good, "other", Refused, WrongName);
    check(&foreign, &good, "good", Refused, Untrusted);
    check(&old, &good, "old", Refused, Expired);
    check(&good, &foreign, "good", Untrusted, Refused);
    check(&good, &old, "good", Expired, Refused);
    let (accepted, dialled) = block_on(meet(&door(&good, TlsMode::Mutual), &caller(&good, TlsMode::On), "good"));
    assert_eq!((fault(&accepted), fault(&dialled)), (Some(HandshakeFault::NoCertificate), Some(Refused)));
}

#[test]
fn plain_and_encrypted_notice_each_other_and_say_what_would_be_right() {
    let authority = Authority::new();
    authority.issue("good", &["good"], 2040);
    let keys = authority.keys("good");
    let (accepted, dialled) = block_on(meet(&door(&keys, TlsMode::On), &Caller::plain(), "good"));
    assert_eq!((fault(&accepted), fault(&dialled)), (Some(HandshakeFault::Plain), Some(HandshakeFault::Closed)));
    // A plain door hands the connection on; who reads it finds no line and no frame. Here it hangs up.
    let (_, dialled) = block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let dialled = async {
            let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
            caller(&keys, TlsMode::On).call(stream, "good").await
        };
        let accepted = async {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = Door::plain().open(stream).await.expect("opens");
            let mut first = [0; 2];
            stream.read_exact(&mut first).await.expect("reads");
            assert!(engine::recv::begins_tls(&first));
        };
        tokio::join!(accepted, dialled)
    });
    assert_eq!(fault(&dialled), Some(HandshakeFault::Closed));
}

#[test]
fn a_plain_peer_gets_its_answer_whatever_it_has_sent_meanwhile() {
    let authority = Authority::new();
    authority.issue("good", &["good"], 2040);
    let keys = authority.keys("good");
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        stream.write_all(&[b'x'; 50_000]).await.expect("writes");
        let (accepted, _) = listener.accept().await.expect("accepts");
        let door = door(&keys, TlsMode::On);
        let mut answer = String::new();
        let (refused, read) = tokio::join!(door.open_or(accepted, b"speak TLS"), async {
            stream.read_to_string(&mut answer).await?;
            stream.shutdown().await
        });
        read.expect("the answer arrives before a reset");
        assert_eq!((fault(&refused), answer.as_str()), (Some(HandshakeFault::Plain), "speak TLS"));
    });
}

#[test]
fn a_crowd_that_does_not_go_on_holds_up_the_others_for_one_time_out_at_most() {
    let authority = Authority::new();
    authority.issue("good", &["good"], 2040);
    let keys = authority.keys("good");
    let (door, caller) = (door(&keys, TlsMode::On), caller(&keys, TlsMode::On));
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let mut crowd = tokio::task::JoinSet::new();
        let mut peers = Vec::new();
        for _ in 0..70 {
            let mut peer = TcpStream::connect(address).await.expect("connects");
            // A record begun: it gets a turn and keeps it.
            peer.write_all(&[0x16, 3, 1, 2, 0]).await.expect("writes");
            peers.push(peer);
            let (door, (stream, _)) = (door.clone(), listener.accept().await.expect("accepts"));
            #[allow(clippy::disallowed_methods, reason = "a test has no supervisor")]
            crowd.spawn(async move { door.open(stream).await });
        }
        let (accepted, dialled) =
            tokio::time::timeout(Duration::from_secs(8), meet(&door, &caller, "good")).await.expect("turns come free");
        // The dialler's own patience is as long as a turn: either it got in or it comes again.
        assert!(matches!(fault(&dialled), None | Some(HandshakeFault::Timeout)), "{dialled:?}");
        // All who had a turn have lost it, before their peers leave.
        for _ in 0..64 {
            crowd.join_next().await;
        }
        drop((accepted, peers));
        let (accepted, dialled) = meet(&door, &caller, "good").await;
        assert_eq!((fault(&accepted), fault(&dialled)), (None, None));
    });
    let timed_out = keys
        .handshakes()
        .into_iter()
        .find(|(_, side, what, _)| *side == crate::Side::Accepted && *what == "tls_timeout");
    assert!(timed_out.is_some_and(|(.., count)| count >= 64), "{:?}", keys.handshakes());
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the dialler of a test that blocks has no supervisor")]
fn the_blocking_dialler_speaks_the_same() {
    let authority = Authority::new();
    authority.issue("good", &["good"], 2040);
    let keys = authority.keys("good");
    for (name, works) in [("good", true), ("other", false)] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
            let address = listener.local_addr().expect("an address");
            let (caller, door) = (caller(&keys, TlsMode::Mutual), door(&keys, TlsMode::Mutual));
            let dialled = tokio::task::spawn_blocking(move || {
                let stream = std::net::TcpStream::connect(address).expect("connects");
                let mut stream = caller.call_blocking(stream, name).expect("a stream");
                let mut answer = [0; 1];
                stream.write_all(b"?").and_then(|()| stream.read_exact(&mut answer)).map(|()| answer[0])
            });
            let (accepted, _) = listener.accept().await.expect("accepts");
            if let Ok(mut stream) = door.open(accepted).await {
                assert_eq!(stream.read_u8().await.expect("reads"), b'?');
                stream.write_all(b"!").await.expect("writes");
                stream.flush().await.expect("flushes");
            }
            let said = dialled.await.expect("no panic");
            assert_eq!(said.is_ok(), works, "{said:?}");
            if let Err(error) = said {
                assert_eq!(Failed::in_handshake(&error).fault, HandshakeFault::WrongName);
            }
        });
    }
}

#[test]
fn new_files_are_taken_up_when_they_have_settled_and_broken_ones_are_not() {
    let authority = Authority::new();
    authority.issue("r", &["r"], 2040);
    let keys = authority.keys("r");
    let first = keys.state().not_after;
    assert!(matches!(keys.look(), Look::Same));
    authority.issue("r", &["r"], 2050);
    assert!(matches!(keys.look(), Look::Same), "the next file may be on its way");
    assert!(matches!(keys.look(), Look::New));
    let second = keys.state();
    assert!(second.not_after > first);
    assert_eq!((second.reloads, second.failures, second.last_error), (1, 0, None));

    authority.write("r.pem", "no certificate");
    assert!(matches!(keys.look(), Look::Same));
    assert!(matches!(keys.look(), Look::Kept(_)));
    // Said and counted once, not at every look.
    assert!(matches!(keys.look(), Look::Same));
    let third = keys.state();
    assert_eq!((third.not_after, third.reloads, third.failures), (second.not_after, 1, 1));
    assert!(third.last_error.is_some_and(|error| error.contains("r.pem")));
    let (accepted, _) = block_on(meet(&door(&keys, TlsMode::Mutual), &caller(&keys, TlsMode::Mutual), "r"));
    assert_eq!(fault(&accepted), None, "the former certificate is still shown");

    fs::remove_file(authority.directory.join("r.key")).expect("removes");
    authority.issue("r", &["r"], 2060);
    assert!(matches!(keys.look(), Look::Same));
    assert!(matches!(keys.look(), Look::New));
    assert_eq!(keys.state().last_error, None);
}

#[test]
fn a_certificate_whose_key_is_not_there_yet_is_no_news() {
    let authority = Authority::new();
    authority.issue("r", &["r"], 2040);
    let keys = authority.keys("r");
    let former_key = fs::read_to_string(authority.directory.join("r.key")).expect("reads");
    authority.issue("r", &["r"], 2050);
    let new_key = fs::read_to_string(authority.directory.join("r.key")).expect("reads");
    authority.write("r.key", &former_key);
    assert!(matches!(keys.look(), Look::Same));
    authority.write("r.key", &new_key);
    assert!(matches!(keys.look(), Look::Same));
    assert!(matches!(keys.look(), Look::New));
}

#[test]
fn files_that_cannot_be_used_are_refused_with_their_name_and_without_their_content() {
    let authority = Authority::new();
    authority.issue("r", &["r"], 2040);
    authority.issue("s", &["s"], 2040);
    let path = |name: &str| authority.directory.join(name);
    let refused = |node: &str| match Keys::open(&authority.tls(&authority), node) {
        Ok(keys) => panic!("{keys:?}"),
        Err(error) => error,
    };
    assert!(matches!(refused("nobody"), TlsError::Read { .. }));

    let key = fs::read_to_string(path("s.key")).expect("reads");
    authority.write("r.key", &key);
    assert!(matches!(refused("r"), TlsError::Mismatch { .. }));
    let secret: String = key.lines().nth(1).expect("a line").chars().take(20).collect();
    authority.write("r.key", &key.replace("PRIVATE KEY", "SECRET"));
    let said = refused("r");
    assert!(matches!(said, TlsError::Empty { .. }) && !said.to_string().contains(&secret), "{said}");
    authority.write("r.key", &key.replace('\n', "!\n"));
    let said = format!("{:?} {}", refused("r"), refused("r"));
    assert!(said.contains("r.key") && !said.contains(&secret), "{said}");

    authority.write("r.key", &key);
    fs::set_permissions(path("s.key"), fs::Permissions::from_mode(0o644)).expect("sets the mode");
    let said = refused("s").to_string();
    assert!(said.contains("s.key is open to every user of this machine (mode 0644): chmod o= "), "{said}");
    // A group may: that is how Kubernetes hands out secrets.
    fs::set_permissions(path("s.key"), fs::Permissions::from_mode(0o640)).expect("sets the mode");
    let keys = authority.keys("s");
    assert!(keys.is_for("S") && !keys.is_for("r"));
    assert!(!format!("{keys:?}").contains(&secret));
}
