use socket2::SockRef;

use super::*;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

const STORE: SocketProfile = SocketProfile::Store { notsent_lowat: 128 * 1024 };

#[tokio::test]
async fn taken_port_is_named_with_the_process_that_holds_it() {
    let first = listen(local(0), 16).unwrap();
    let addr = first.local_addr().unwrap();
    let error = listen(addr, 16).unwrap_err();
    let said = error.to_string();
    let ListenError::Taken { addr: taken, holder } = error else { panic!("{said}") };
    assert_eq!(taken, addr);
    let holder = holder.unwrap();
    assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    assert!(said.contains(&addr.to_string()) && said.contains(&holder), "{said}");
    drop(first);
    listen(addr, 16).unwrap();
}

#[tokio::test]
async fn address_that_is_not_ours_is_another_error() {
    // TEST-NET-1 (RFC 5737) is no address of this machine.
    let error = listen(SocketAddr::from(([192, 0, 2, 1], 2003)), 16).unwrap_err();
    assert!(matches!(error, ListenError::Other { .. }), "{error}");
}

#[test]
fn only_a_listening_socket_on_the_port_holds_it() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:07D3 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 20 4\n\
        1: 00000000:07D4 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 222 1 0 100 0\n\
        2: 0100007F:07D3 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 333 1 0 100 0\n";
    assert_eq!(holder::listening_inode(table, 2003), Some(333));
    assert_eq!(holder::listening_inode(table, 2004), Some(222));
    assert_eq!(holder::listening_inode(table, 2005), None);
    assert_eq!(holder::listening_inode("", 2005), None);
}

#[tokio::test]
async fn every_profile_finds_idle_and_busy_dead_peers() {
    let listener = listen(local(0), 16).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let secs = Duration::from_secs;
    let cases = [
        (SocketProfile::Internal, secs(5), secs(2), secs(10)),
        (STORE, secs(10), secs(5), secs(60)),
        (SocketProfile::Client, secs(60), secs(20), secs(120)),
    ];
    for (profile, keepalive, interval, user_timeout) in cases {
        let stream = connect(&addr, profile, secs(10)).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap(), "{profile:?}");
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive, "{profile:?}");
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), interval, "{profile:?}");
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3, "{profile:?}");
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(user_timeout), "{profile:?}");
        assert!(socket.tcp_nodelay().unwrap(), "{profile:?}");
        if profile == STORE {
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
        }
        let (accepted, _) = listener.accept().await.unwrap();
        apply(&accepted, profile).unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(user_timeout), "{profile:?}");
    }
}

#[tokio::test]
async fn peer_that_does_not_listen_refuses() {
    let listener = listen(local(0), 16).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = connect(&addr, SocketProfile::Internal, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Refused { addr: named, .. } if *named == addr), "{error}");
}

#[tokio::test]
async fn peer_that_does_not_answer_costs_no_more_than_the_time_out() {
    // With a full accept queue the kernel drops the SYN, as a black hole would.
    let listener = listen(local(0), 0).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let mut held = Vec::new();
    let error = loop {
        match connect(&addr, SocketProfile::Internal, Duration::from_millis(300)).await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
        assert!(held.len() < 64, "the accept queue never fills");
    };
    assert!(matches!(&error, ConnectError::Timeout { addr: named, .. } if *named == addr), "{error}");
}

#[tokio::test]
async fn name_that_does_not_resolve_is_named() {
    let error = connect("no port here", STORE, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
}

#[test]
fn limit_of_open_files_is_raised_to_what_is_allowed() {
    let raised = raise_nofile_limit().unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(limit.current, limit.maximum);
    assert_eq!(limit.maximum.unwrap_or(u64::MAX), raised);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_to_be_accepted_when_the_worker_is_to_stop_is_accepted_still() {
    let listener = std::sync::Arc::new(listen(local(0), 16).unwrap());
    let addr = listener.local_addr().unwrap();
    let clients = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    let supervisor = crate::Supervisor::new("accepting", crate::Clock::new(), Default::default()).unwrap();
    let (opened, seen) = tokio::sync::mpsc::unbounded_channel();
    supervisor.spawn_task("listener", move |worker| {
        let (listener, opened) = (std::sync::Arc::clone(&listener), opened.clone());
        async move {
            worker.idle(worker.stopping().cancelled()).await;
            let tell = |_, peer| opened.send(peer).unwrap();
            accept_all(&worker, &listener, tell, |error, _, _| panic!("{error}")).await
        }
    });
    assert_eq!(supervisor.shutdown(Duration::from_secs(5)).await, Vec::<String>::new());
    let mut seen = seen;
    for client in clients {
        assert_eq!(seen.recv().await, Some(client.local_addr().unwrap()));
    }
}
