use std::sync::mpsc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn endpoint(port: u16, token_file: Option<std::path::PathBuf>) -> config::Notify {
    config::Notify {
        name: "ops".into(),
        authority: None,
        url: config::HookUrl { is_https: false, host: "127.0.0.1".into(), port, path: "/hook?x=1".into() },
        events: Topic::ALL.to_vec(),
        token_file,
        timeout: Duration::from_millis(300),
        give_up: Duration::from_secs(60),
        queue_bytes: 16 << 10,
    }
}

/// An endpoint that answers each connection with one of these, and sends on what it was asked. `None`: it never answers.
async fn answering(answers: Vec<Option<&'static str>>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, receiver) = mpsc::channel();
    #[allow(clippy::disallowed_methods, reason = "a test's endpoint has no supervisor")]
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut bytes = [0; 1024];
                let n = stream.read(&mut bytes).await.unwrap();
                request.extend_from_slice(&bytes[..n]);
            }
            asked.send(String::from_utf8(request).unwrap()).unwrap();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => kept.push(stream),
            }
        }
        std::future::pending::<()>().await;
    });
    (port, receiver)
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status_and_whatever_is_none_fails_by_its_name() {
    let answers = vec![
        Some("HTTP/1.1 204 No Content\r\n\r\n"),
        Some("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
        Some("HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n"),
        Some("HTTP/1.1 302 Elsewhere\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n"),
        Some("220 mail.example ESMTP\r\n"),
        Some(""),
        None,
    ];
    let (port, asked) = answering(answers).await;
    let endpoint = endpoint(port, None);
    let mut outcomes = Vec::new();
    for _ in 0..7 {
        outcomes.push(post::post(&endpoint, "{}").await.map_err(|(failure, _)| failure));
    }
    use Failure::{Broken, Refused, Status, Timeout};
    assert_eq!(outcomes, [Ok(()), Err(Status), Err(Refused), Err(Status), Err(Broken), Err(Broken), Err(Timeout)]);
    let request = asked.recv().unwrap();
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n") && request.ends_with("\r\n\r\n{}"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn nobody_there_is_a_failed_connection() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let failed = post::post(&endpoint(port, None), "{}").await.unwrap_err();
    assert_eq!(failed.0, Failure::Connect, "{failed:?}");
}

#[tokio::test]
async fn a_secret_comes_from_its_file_as_it_is_now_and_is_not_in_what_is_said_of_it() {
    let file = std::env::temp_dir().join(format!("spillway-token-{}", std::process::id()));
    let (port, asked) = answering(vec![Some("HTTP/1.1 200 OK\r\n\r\n"); 2]).await;
    let endpoint = endpoint(port, Some(file.clone()));
    for secret in ["s3cret-1", "s3cret-2"] {
        std::fs::write(&file, format!("{secret}\nmore\n")).unwrap();
        post::post(&endpoint, "{}").await.unwrap();
        let request = asked.recv().unwrap();
        assert!(request.contains(&format!("authorization: Bearer {secret}\r\n")), "{request}");
    }
    for (text, why) in [("", "empty"), ("s3cr\u{1}t\n", "no token")] {
        std::fs::write(&file, text).unwrap();
        let (failure, said) = post::post(&endpoint, "{}").await.unwrap_err();
        assert_eq!(failure, Failure::Token);
        assert!(said.contains(why) && !said.contains("s3cr"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(post::post(&endpoint, "{}").await.unwrap_err().0, Failure::Token);
}

#[tokio::test]
async fn an_endpoint_of_https_is_told_if_who_vouches_for_it_is_trusted_and_its_name_is_right() {
    let directory = std::env::temp_dir().join(format!("spillway-notices-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (ca_key, key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    std::fs::write(directory.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("own.pem"), own.pem()).unwrap();
    std::fs::write(directory.join("own.key"), key.serialize_pem()).unwrap();
    let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.join("own.key"), only_mine).unwrap();
    let path = |file: &str| directory.join(file).display().to_string();
    let file = |port: u16, host: &str, authority: &str| {
        let text = format!(
            "cluster.name = \"c\"\n\
             node = [{{ name = \"n\", layer = \"relay\", graphite = \"127.0.0.1\", link = \"127.0.0.1\", admin = \"127.0.0.1\" }}]\n\
             store = [{{ name = \"s\", addresses = [\"127.0.0.1:2103\"] }}]\n\
             [tls]\nadmin = \"on\"\ncertificate = \"{}\"\nkey = \"{}\"\nauthority = \"{}\"\n\
             [[notify]]\nname = \"ops\"\nurl = \"https://{host}:{port}/hook\"\nauthority = \"{authority}\"\n",
            path("own.pem"),
            path("own.key"),
            path("ca.pem")
        );
        config::load("c.toml", &text).unwrap_or_else(|problems| panic!("{}", problems.plain())).cluster
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let good = file(port, "localhost", &path("ca.pem"));
    let keys = tls::Keys::open(&good.tls, "n").unwrap();
    let door = tls::Door::new(Some(&keys), config::TlsMode::On, tls::Port::Admin).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test's endpoint has no supervisor")]
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = door.open(stream).await else { continue };
            let mut bytes = [0; 1024];
            assert!(stream.read(&mut bytes).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        }
    });
    assert_eq!(post::post(&good.notify[0], "{}").await, Ok(()));
    let machines = "/etc/ssl/certs/ca-certificates.crt";
    if std::path::Path::new(machines).exists() {
        let (failure, said) = post::post(&file(port, "localhost", machines).notify[0], "{}").await.unwrap_err();
        assert!(failure == Failure::Tls && !said.contains(machines), "the list itself can be used: {said}");
    }
    for (host, authority) in
        [("127.0.0.1", path("ca.pem")), ("localhost", path("own.pem")), ("localhost", path("nothing"))]
    {
        let failed = post::post(&file(port, host, &authority).notify[0], "{}").await.unwrap_err();
        assert_eq!(failed.0, Failure::Tls, "{failed:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

fn notices(topics: &[Topic]) -> Notices {
    let clock = Clock::new();
    let config = config::Notify { events: topics.to_vec(), ..endpoint(1, None) };
    let outbox = Mutex::new(Outbox::new(Limits { bytes: config.queue_bytes, age: config.give_up }));
    let endpoint = Arc::new(Endpoint { config, clock, outbox, wake: Notify::new() });
    Notices {
        cluster: "c".into(),
        node: "relay-1".into(),
        layer: "relay",
        clock,
        endpoints: vec![endpoint],
        number: AtomicU64::new(0),
    }
}

fn all(notices: &Notices) -> Vec<Notice> {
    let mut outbox = notices.endpoints[0].outbox();
    let mut all = Vec::new();
    outbox.hurry();
    while let Next::Send(attempt) = outbox.next(notices.clock.now()) {
        all.push(serde_json::from_str(&attempt.body).unwrap());
        outbox.ended(notices.clock.now(), attempt.number, Ok(()), 0);
    }
    all
}

fn entry(origin: &str, version: u64) -> Entry {
    Entry { version, origin: origin.into(), value: "drained".into(), when: 7, by: "anna".into() }
}

#[test]
fn an_order_is_said_under_its_version_by_the_node_whose_word_won() {
    let notices = notices(&Topic::ALL);
    let change = |version| Change { key: "drain/p".into(), old: String::new(), entry: entry("relay-1", version) };
    notices.ordered(&change(5));
    notices.ordered(&change(9));
    notices.superseded("drain/p", &entry("relay-1", 5));
    notices.superseded("drain/p", &entry("relay-2", 9));
    let said = all(&notices);
    let [Notice { id, what, old, new, by, text, event, at, .. }] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(
        [id.as_str(), what, old, new, by],
        ["orders/relay-1/9/drain/p", "drain/p", "", "drained", "anna on relay-1"]
    );
    assert_eq!(
        (event.as_str(), *at, text.as_str()),
        ("orders", 7, "drain/p: drained instead of nothing, ordered by anna on relay-1")
    );
}

#[test]
fn ids_are_never_the_same_and_a_long_field_is_cut() {
    let notices = notices(&Topic::ALL);
    for _ in 0..50 {
        notices
            .say(News { topic: Topic::Gaps, what: "spill/aggregate", old: "", new: &"é".repeat(50_000), text: "x" });
    }
    let said = all(&notices);
    let ids: std::collections::BTreeSet<&str> = said.iter().map(|notice| notice.id.as_str()).collect();
    assert!(!said.is_empty() && ids.len() == said.len());
    assert!(said.iter().all(|notice| notice.new.len() == FIELD_MAX));
}

#[test]
fn an_endpoint_hears_only_what_it_asked_for() {
    let notices = notices(&[Topic::Health]);
    notices.say(News { topic: Topic::Gaps, what: "", old: "", new: "", text: "" });
    notices.changed(
        "replay.",
        &[AuditEntry { at: 1, by: "a".into(), what: "rate".into(), old: "1".into(), new: "2".into() }],
    );
    assert_eq!(all(&notices), []);
}
