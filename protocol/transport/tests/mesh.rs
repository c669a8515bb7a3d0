//! The mesh over real UDP sockets on loopback: who gets in, what travels, and what a hostile or dying peer can do.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType, date_time_ymd};
use tokio::time::timeout;
use tradewind_transport::certs::{CertError, init_ca, issue};
use tradewind_transport::{
    BindError, ConnLost, ConnectError, Expect, FrameError, Mesh, MeshConn, MeshOptions, MeshTls, Peer,
    SendError, TransportOptions,
};

/// Longer than anything here should take, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// An authority in a directory of its own.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        init_ca(&dir.path().join("ca")).unwrap();
        Self(dir)
    }

    fn ca(&self) -> PathBuf {
        self.0.path().join("ca")
    }

    fn pem(&self) -> PathBuf {
        self.ca().join("ca.pem")
    }

    fn issue(&self, cluster: &str, node: i32) -> PathBuf {
        let out = self.0.path().join(format!("{cluster}-{node}"));
        issue(
            &self.ca(),
            cluster,
            node,
            &["127.0.0.1".into(), "localhost".into()],
            &out,
        )
        .unwrap();
        out
    }

    fn tls(&self, cluster: &str, node: i32) -> Arc<MeshTls> {
        self.tls_with(cluster, node, &[])
    }

    fn tls_with(&self, cluster: &str, node: i32, pinned: &[(String, PathBuf)]) -> Arc<MeshTls> {
        load(&self.issue(cluster, node), pinned)
    }
}

fn load(dir: &Path, pinned: &[(String, PathBuf)]) -> Arc<MeshTls> {
    let tls = MeshTls::load(
        &dir.join("ca.pem"),
        &dir.join("node.pem"),
        &dir.join("node.key"),
        pinned,
    );
    Arc::new(tls.unwrap())
}

fn bind(tls: Arc<MeshTls>) -> Mesh {
    Mesh::bind(loopback(), tls, MeshOptions::new([7; 64])).unwrap()
}

fn expect(cluster: &str, node: impl Into<Option<i32>>) -> Expect {
    Expect {
        cluster: cluster.into(),
        node: node.into(),
    }
}

fn addr(mesh: &Mesh) -> String {
    mesh.local_addr().unwrap().to_string()
}

async fn connected(from: &Mesh, to: &Mesh, expect: &Expect) -> (MeshConn, MeshConn) {
    let target = addr(to);
    let (dialled, accepted) = timeout(PATIENCE, async {
        tokio::join!(from.connect(&target, expect), to.accept())
    })
    .await
    .unwrap();
    (dialled.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn two_daemons_know_each_other_and_exchange_frames() {
    let authority = Authority::new();
    let one = bind(authority.tls("east", 1));
    let two = bind(authority.tls("east", 2));
    let (dialled, accepted) = connected(&one, &two, &expect("east", 2)).await;
    assert_eq!(
        *dialled.peer(),
        Peer::Daemon {
            cluster: "east".into(),
            node: 2
        }
    );
    assert_eq!(
        *accepted.peer(),
        Peer::Daemon {
            cluster: "east".into(),
            node: 1
        }
    );

    let (mut tx, mut rx) = dialled.open().await.unwrap();
    let large = Bytes::from((0..3_000_000u32).map(|i| (i / 7) as u8).collect::<Vec<_>>());
    let echo = tokio::spawn(async move {
        let (mut tx, mut rx) = accepted.accept().await.unwrap().unwrap();
        let mut frames = 0;
        while let Some(frame) = rx.recv().await.unwrap() {
            tx.send(&[frame]).await.unwrap();
            frames += 1;
        }
        tx.finish();
        tx.closed().await;
        frames
    });
    let sent = [
        vec![Bytes::from_static(b"hello")],
        vec![],
        vec![
            Bytes::from_static(b"head"),
            large.clone(),
            Bytes::new(),
            large.slice(5..5_000),
        ],
    ];
    timeout(PATIENCE, async {
        for parts in &sent {
            tx.send(parts).await.unwrap();
            assert_eq!(rx.recv().await.unwrap().unwrap(), Bytes::from(parts.concat()));
        }
        tx.finish();
        assert_eq!(rx.recv().await.unwrap(), None);
    })
    .await
    .unwrap();
    assert_eq!(echo.await.unwrap(), 3);
    assert!(dialled.rtt() > Duration::ZERO);
}

#[tokio::test]
async fn closing_tells_the_peer_why() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("east", 2)));
    let (dialled, accepted) = connected(&one, &two, &expect("east", None)).await;
    assert!(!accepted.is_closed());
    dialled.close("enough");
    assert_eq!(
        timeout(PATIENCE, accepted.closed()).await.unwrap(),
        ConnLost::ClosedByPeer("enough".into())
    );
    assert!(accepted.accept().await.unwrap().is_none());
    assert!(dialled.is_closed());
    two.close().await;
    assert!(timeout(PATIENCE, two.accept()).await.unwrap().is_none());
}

#[tokio::test]
async fn another_authority_is_refused_in_both_directions() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (one, two) = (bind(ours.tls("east", 1)), bind(theirs.tls("east", 2)));
    let refused = timeout(PATIENCE, one.connect(&addr(&two), &expect("east", 2)))
        .await
        .unwrap();
    assert!(matches!(
        refused,
        Err(ConnectError::Handshake {
            reason: ConnLost::Certificate(_),
            ..
        })
    ));

    // A dialler that trusts us, but whose own certificate we do not trust, learns of it from the dial.
    let pinned = [("east".to_owned(), ours.pem())];
    let trusting = bind(theirs.tls_with("west", 1, &pinned));
    let refused = timeout(PATIENCE, trusting.connect(&addr(&one), &expect("east", 1)))
        .await
        .unwrap();
    assert!(
        matches!(
            &refused,
            Err(ConnectError::Handshake {
                reason: ConnLost::Certificate(_),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_wrong_cluster_or_node_is_named_in_the_error() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("west", 2)));
    for wrong in [expect("east", None), expect("west", 3)] {
        let refused = timeout(PATIENCE, one.connect(&addr(&two), &wrong)).await.unwrap();
        match refused {
            Err(ConnectError::WrongPeer { found, expected, .. }) => {
                assert_eq!(
                    found,
                    Peer::Daemon {
                        cluster: "west".into(),
                        node: 2
                    }
                );
                assert_eq!(expected, wrong);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_pinned_authority_vouches_for_its_cluster_and_no_other() {
    let (east_ca, west_ca) = (Authority::new(), Authority::new());
    let west_pinned = [("west".to_owned(), west_ca.pem())];
    let east_pinned = [("east".to_owned(), east_ca.pem())];
    let east = bind(east_ca.tls_with("east", 1, &west_pinned));
    let west = bind(west_ca.tls_with("west", 1, &east_pinned));
    connected(&east, &west, &expect("west", 1)).await;
    connected(&west, &east, &expect("east", 1)).await;

    // West's authority signs a daemon of "east", and east's one of "west": neither may.
    let false_east = bind(west_ca.tls_with("east", 9, &[]));
    let refused = timeout(PATIENCE, east.connect(&addr(&false_east), &expect("east", 9)))
        .await
        .unwrap();
    assert!(
        matches!(refused, Err(ConnectError::Handshake { .. })),
        "{refused:?}"
    );
    let false_west = bind(east_ca.tls_with("west", 9, &[]));
    let refused = timeout(PATIENCE, east.connect(&addr(&false_west), &expect("west", 9)))
        .await
        .unwrap();
    assert!(
        matches!(refused, Err(ConnectError::Handshake { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn frames_over_the_limit_are_errors_on_both_sides() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("east", 2)));
    let (dialled, accepted) = connected(&one, &two, &expect("east", 2)).await;
    let (mut tx, _rx) = dialled.open().await.unwrap();
    let huge = Bytes::from(vec![0; tradewind_transport::MAX_FRAME_BYTES + 1]);
    assert!(matches!(tx.send(&[huge]).await, Err(SendError::TooLong(_))));
    tx.send(&[Bytes::from_static(b"0123456789")]).await.unwrap();
    tx.send(&[Bytes::from_static(b"0123456789a")]).await.unwrap();
    let (_tx, mut rx) = timeout(PATIENCE, accepted.accept())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    rx.set_limit(10);
    assert_eq!(rx.recv().await.unwrap().unwrap().len(), 10);
    assert!(matches!(
        rx.recv().await,
        Err(FrameError::TooLong {
            length: 11,
            limit: 10
        })
    ));
}

#[tokio::test]
async fn a_stream_that_ends_early_is_not_a_clean_end() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("east", 2)));
    let (dialled, accepted) = connected(&one, &two, &expect("east", 2)).await;
    let (mut tx, _rx) = dialled.open().await.unwrap();
    tx.send(&[Bytes::from_static(b"first")]).await.unwrap();
    let (_tx, mut rx) = timeout(PATIENCE, accepted.accept())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(rx.recv().await.unwrap().unwrap(), "first");
    // More than the windows hold, so that the send is certainly dropped half-way.
    let stuck = [Bytes::from(vec![1; 80 << 20])];
    assert!(
        timeout(Duration::from_millis(200), tx.send(&stuck))
            .await
            .is_err()
    );
    assert!(matches!(tx.send(&[]).await, Err(SendError::Closed)));
    drop(tx);
    assert!(matches!(
        timeout(PATIENCE, rx.recv()).await.unwrap(),
        Err(FrameError::Reset(_))
    ));
}

#[tokio::test]
async fn garbage_datagrams_disturb_nobody() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("east", 2)));
    let (dialled, accepted) = connected(&one, &two, &expect("east", 2)).await;
    let target = two.local_addr().unwrap();
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind(loopback()).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for i in 0..10_000usize {
            let mut datagram: Vec<u8> = Vec::new();
            while datagram.len() < 1 + i % 1_400 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                datagram.extend_from_slice(&state.to_be_bytes());
            }
            // Every third one claims to be the first packet of a QUIC v1 connection.
            if i % 3 == 0 && datagram.len() > 5 {
                datagram[0] = 0xc0 | datagram[0] & 0x0f;
                datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
                datagram.resize(1_200, 0);
            }
            // The kernel may drop them; that is its business.
            let _ = socket.send_to(&datagram, target);
        }
    });
    let (mut tx, mut rx) = dialled.open().await.unwrap();
    tokio::spawn(async move {
        let (mut tx, mut rx) = accepted.accept().await.unwrap().unwrap();
        while let Some(frame) = rx.recv().await.unwrap() {
            tx.send(&[frame]).await.unwrap();
        }
    });
    let exchange = async {
        while !flood.is_finished() {
            tx.send(&[Bytes::from_static(b"ping")]).await.unwrap();
            assert_eq!(rx.recv().await.unwrap().unwrap(), "ping");
        }
    };
    timeout(PATIENCE, exchange).await.unwrap();
    flood.await.unwrap();
    let three = bind(authority.tls("east", 3));
    connected(&three, &two, &expect("east", 2)).await;
}

#[tokio::test]
async fn a_restart_is_noticed_by_the_stateless_reset() {
    let authority = Authority::new();
    let dir = authority.issue("east", 2);
    let one = bind(authority.tls("east", 1));

    // The first life of daemon 2: its runtime is torn down with nothing said to anyone, as by SIGKILL.
    let life = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let tls = load(&dir, &[]);
    let first = life.spawn(async move { bind(tls) }).await.unwrap();
    let listen = first.local_addr().unwrap();
    let acceptor = first.clone();
    let accepting = life.spawn(async move { acceptor.accept().await.unwrap() });
    let dialled = one
        .connect(&listen.to_string(), &expect("east", 2))
        .await
        .unwrap();
    let accepted = accepting.await.unwrap();
    tokio::task::spawn_blocking(move || life.shutdown_timeout(PATIENCE))
        .await
        .unwrap();
    // Only now, when nothing can be sent any more: these hold the socket.
    drop((accepted, first));
    let second = rebind(listen, &dir).await;
    let lost = timeout(Duration::from_secs(2), dialled.closed()).await.unwrap();
    assert_eq!(lost, ConnLost::Restarted);
    connected(&one, &second, &expect("east", 2)).await;
}

/// Binds the address again as soon as the torn-down runtime has let go of it.
async fn rebind(listen: SocketAddr, dir: &Path) -> Mesh {
    timeout(PATIENCE, async {
        loop {
            match Mesh::bind(listen, load(dir, &[]), MeshOptions::new([7; 64])) {
                Ok(mesh) => return mesh,
                Err(BindError::InUse(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_silent_address_times_out_and_a_wrong_one_says_so() {
    let authority = Authority::new();
    let mut options = MeshOptions::new([7; 64]);
    options.handshake_timeout = Duration::from_millis(300);
    let one = Mesh::bind(loopback(), authority.tls("east", 1), options).unwrap();
    let silent = UdpSocket::bind(loopback()).unwrap();
    let target = silent.local_addr().unwrap().to_string();
    assert!(matches!(
        one.connect(&target, &expect("east", 2)).await,
        Err(ConnectError::TimedOut { .. })
    ));
    assert!(matches!(
        one.connect("nonsense", &expect("east", 2)).await,
        Err(ConnectError::Resolve { .. })
    ));
}

#[tokio::test]
async fn links_may_have_settings_of_their_own() {
    let authority = Authority::new();
    let (one, two) = (bind(authority.tls("east", 1)), bind(authority.tls("west", 2)));
    let line = TransportOptions::line();
    let target = addr(&two);
    let west = expect("west", None);
    let (dialled, accepted) = timeout(PATIENCE, async {
        tokio::join!(one.connect_with(&target, &west, &line), two.accept())
    })
    .await
    .unwrap();
    assert_eq!(
        *accepted.unwrap().peer(),
        Peer::Daemon {
            cluster: "east".into(),
            node: 1
        }
    );
    dialled.unwrap().fit_to_line();
}

/// The acceptor of a link sends, the dialler reads as fast as it likes: what is between them is bounded by the sender's
/// window and the reader's.
#[tokio::test]
async fn a_slow_reader_of_a_link_bounds_what_its_sender_holds() {
    const FRAME: usize = 256 << 10;
    const FRAMES: usize = 120;
    const SEND_WINDOW: u64 = 4 << 20;
    let window = TransportOptions::line_window(Duration::ZERO) as usize;
    let authority = Authority::new();
    let one = bind(authority.tls("east", 1));
    let mut options = MeshOptions::new([8; 64]);
    options.transport.send_window = SEND_WINDOW;
    let two = Mesh::bind(loopback(), authority.tls("west", 2), options).unwrap();
    let (target, west, line) = (addr(&two), expect("west", None), TransportOptions::line());
    let (dialled, accepted) = timeout(PATIENCE, async {
        tokio::join!(one.connect_with(&target, &west, &line), two.accept())
    })
    .await
    .unwrap();
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let (mut hello, mut reader) = dialled.open().await.unwrap();
    hello.send(&[Bytes::from_static(b"hello")]).await.unwrap();
    let (mut sender, _) = accepted.accept().await.unwrap().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = sent.clone();
    let sending = tokio::spawn(async move {
        let frame = Bytes::from(vec![7; FRAME]);
        for _ in 0..FRAMES {
            sender.send(std::slice::from_ref(&frame)).await.unwrap();
            counting.fetch_add(FRAME, Ordering::SeqCst);
        }
        sender.closed().await;
    });
    // The sender runs ahead as far as it is let.
    while sent.load(Ordering::SeqCst) < SEND_WINDOW as usize {
        tokio::task::yield_now().await;
    }
    let (mut read, mut under_way, mut held) = (0, 0, 0);
    while read < FRAME * FRAMES {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        // What the reader has taken out of the stream and not yet returned may be sent again at once.
        held = held.max(reader.buffered());
        under_way = under_way.max(sent.load(Ordering::SeqCst) - read - reader.buffered());
        read += timeout(PATIENCE, reader.recv())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .len();
    }
    let bound = SEND_WINDOW as usize + window + FRAME;
    assert!(
        under_way <= bound,
        "{under_way} bytes were under way, of {bound} allowed"
    );
    assert!(
        held <= window + FRAME,
        "{held} bytes were held, of {window} allowed"
    );
    drop(reader);
    sending.abort();
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_port() {
    let authority = Authority::new();
    let dir = authority.issue("east", 1);
    let one = bind(load(&dir, &[]));
    let listen = one.local_addr().unwrap();
    drop(one);
    rebind(listen, &dir).await;
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let authority = Authority::new();
    let one = bind(authority.tls("east", 1));
    let listen = one.local_addr().unwrap();
    let again = Mesh::bind(listen, authority.tls("east", 2), MeshOptions::new([7; 64]));
    assert!(matches!(again, Err(BindError::InUse(at)) if at == listen));

    let tcp = tradewind_transport::tcp::bind(loopback()).unwrap();
    let listen = tcp.local_addr().unwrap();
    assert!(matches!(tradewind_transport::tcp::bind(listen), Err(BindError::InUse(at)) if at == listen));
}

#[test]
fn certificate_files_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;

    let authority = Authority::new();
    let dir = authority.issue("east", 1);
    for key in [authority.ca().join("ca.key"), dir.join("node.key")] {
        assert_eq!(
            std::fs::metadata(key).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(matches!(init_ca(&authority.ca()), Err(CertError::Exists(_))));
    assert!(matches!(
        issue(&authority.ca(), "east", 1, &[], &dir),
        Err(CertError::Exists(_))
    ));
    let out = authority.0.path().join("new");
    assert!(matches!(
        issue(&authority.ca(), "ea/st", 1, &[], &out),
        Err(CertError::ClusterName(_))
    ));
    assert!(matches!(
        issue(&authority.ca(), "east", -1, &[], &out),
        Err(CertError::Node(-1))
    ));
    assert!(matches!(
        issue(&authority.ca(), "east", 1, &["not a host".into()], &out),
        Err(CertError::Host(_))
    ));
    assert!(!out.exists());
}

#[test]
fn wrong_tls_files_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (dir, foreign) = (authority.issue("east", 1), other.issue("east", 1));
    let (ca, cert, key) = (dir.join("ca.pem"), dir.join("node.pem"), dir.join("node.key"));
    let problem = |ca: &Path, cert: &Path, key: &Path, pinned: &[(String, PathBuf)]| {
        MeshTls::load(ca, cert, key, pinned).unwrap_err().to_string()
    };
    assert_eq!(
        MeshTls::load(&ca, &cert, &key, &[]).unwrap().identity(),
        ("east", 1)
    );
    let missing = dir.join("missing.pem");
    assert!(problem(&missing, &cert, &key, &[]).contains("missing.pem"));
    assert!(problem(&key, &cert, &key, &[]).contains("holds no"));
    assert!(problem(&other.pem(), &cert, &key, &[]).contains("is not signed by"));
    assert!(problem(&ca, &cert, &foreign.join("node.key"), &[]).contains("does not belong to"));
    assert!(problem(&ca, &authority.pem(), &key, &[]).contains("carries no tradewind://"));
    assert!(problem(&ca, &cert, &key, &[("west".into(), missing)]).contains("missing.pem"));
    assert!(problem(&ca, &cert, &key, &[("a/b".into(), ca.clone())]).contains("a/b"));
}

#[test]
fn a_daemon_whose_own_certificate_has_expired_says_so_when_it_starts() {
    let authority = Authority::new();
    let dir = authority.issue("east", 1);
    let (ca, cert, key) = (dir.join("ca.pem"), dir.join("node.pem"), dir.join("node.key"));
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let signer = KeyPair::from_pem(&read(authority.ca().join("ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read(ca.clone()), signer).unwrap();
    let mut params = CertificateParams::default();
    let name = "tradewind://east/1".to_owned().try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(name)];
    params.not_before = date_time_ymd(2019, 1, 1);
    let problem = |params: &CertificateParams| {
        let pair = KeyPair::from_pem(&read(key.clone())).unwrap();
        std::fs::write(&cert, params.signed_by(&pair, &issuer).unwrap().pem()).unwrap();
        MeshTls::load(&ca, &cert, &key, &[])
            .err()
            .map(|error| error.to_string())
    };
    params.not_after = date_time_ymd(2500, 1, 1);
    assert_eq!(problem(&params), None);
    let expires_seconds = MeshTls::load(&ca, &cert, &key, &[]).unwrap().expires_seconds();
    assert_eq!(expires_seconds, 16_725_225_600);
    params.not_after = date_time_ymd(2020, 1, 1);
    let said = problem(&params).unwrap();
    assert!(said.contains("node.pem: the certificate has expired"), "{said}");
    params.not_after = date_time_ymd(3000, 1, 1);
    params.not_before = date_time_ymd(2999, 1, 1);
    let said = problem(&params).unwrap();
    assert!(said.contains("is not valid yet"), "{said}");
}
