//! The metadata of three daemons over real QUIC on the loopback, with certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tradewind_transport::{FrameRx, FrameTx, Mesh, MeshOptions, MeshTls, certs};
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::{Hello, MESH_VERSION, Welcome};

use crate::image::DaemonState;
use crate::metadata::{Metadata, MetadataOptions, Timing};
use crate::peers::{Own, Pool, link};
use crate::test_net::{PATIENCE, TestClock, TestRng, controller, create_topic, registration, until};

/// A cluster's certificates and, per daemon, the address that it keeps.
struct QuicCluster {
    dir: TempDir,
    addresses: Vec<(NodeId, SocketAddr)>,
}

/// One running daemon.
struct QuicDaemon {
    metadata: Metadata,
    mesh: Mesh,
    accepting: tokio::task::JoinHandle<()>,
}

impl QuicDaemon {
    async fn kill(self) {
        self.accepting.abort();
        self.metadata.abandon().await;
        self.mesh.close().await;
    }
}

impl QuicCluster {
    fn new(nodes: &[NodeId]) -> Self {
        let dir = TempDir::new().unwrap();
        let ca = dir.path().join("ca");
        certs::init_ca(&ca).unwrap();
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut addresses = Vec::new();
        for &node in nodes {
            certs::issue(
                &ca,
                "east",
                node,
                &hosts,
                &dir.path().join(format!("cert-{node}")),
            )
            .unwrap();
            let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            addresses.push((node, free.local_addr().unwrap()));
        }
        Self { dir, addresses }
    }

    fn mesh(&self, node: NodeId, listen: SocketAddr) -> Mesh {
        let at = self.dir.path().join(format!("cert-{node}"));
        let tls = MeshTls::load(
            &at.join("ca.pem"),
            &at.join("node.pem"),
            &at.join("node.key"),
            &[],
        )
        .unwrap();
        Mesh::bind(listen, Arc::new(tls), MeshOptions::new([node as u8; 64])).unwrap()
    }

    async fn start(&self, node: NodeId) -> QuicDaemon {
        let listen = self.addresses.iter().find(|(id, _)| *id == node).unwrap().1;
        let mesh = self.mesh(node, listen);
        let options = MetadataOptions {
            node,
            cluster_name: "east".to_owned(),
            cluster_id: None,
            storage_id: [node as u8; 16],
            dir: self.dir.path().join(format!("meta-{node}")),
            seeds: self
                .addresses
                .iter()
                .map(|(id, at)| (*id, at.to_string()))
                .collect(),
            clock: Arc::new(TestClock::new()),
            rng: Arc::new(TestRng::new(node as u64)),
            timing: Timing::default(),
        };
        let own = Own {
            cluster_name: "east".to_owned(),
            node,
            cluster_id: Arc::default(),
        };
        let dialling = self.mesh(node, "127.0.0.1:0".parse().unwrap());
        let pool = Arc::new(Pool::new(dialling, own));
        let metadata = Metadata::start(options, move || pool).await.unwrap();
        let accepting = tokio::spawn(accept(mesh.clone(), node, metadata.clone()));
        QuicDaemon {
            metadata,
            mesh,
            accepting,
        }
    }

    async fn register(&self, daemon: &QuicDaemon, incarnation: u128) {
        let node = daemon.metadata.node_id();
        let mut registration = registration(node, incarnation);
        registration.mesh = self
            .addresses
            .iter()
            .find(|(id, _)| *id == node)
            .unwrap()
            .1
            .to_string();
        tokio::time::timeout(PATIENCE, daemon.metadata.register(registration))
            .await
            .unwrap()
            .unwrap();
    }
}

/// As the mesh's gate, without its checks.
async fn accept(mesh: Mesh, node: NodeId, metadata: Metadata) {
    while let Some(connection) = mesh.accept().await {
        let metadata = metadata.clone();
        tokio::spawn(async move {
            while let Ok(Some((tx, rx))) = connection.accept().await {
                tokio::spawn(welcome(tx, rx, node, metadata.clone()));
            }
        });
    }
}

async fn welcome(mut tx: FrameTx, mut rx: FrameRx, node: NodeId, metadata: Metadata) {
    let Ok(Some(frame)) = rx.recv().await else {
        return;
    };
    let hello = Hello::decode(frame).unwrap();
    let storage_id = [node as u8; 16];
    assert!(hello.expect_storage.is_none_or(|expected| expected == storage_id));
    let welcome = Welcome::Accepted {
        version: MESH_VERSION,
        cluster_id: None,
        node,
        storage_id,
    };
    if tx.send(&[welcome.encode()]).await.is_ok() {
        let link = link(hello.node, [0; 16], tx, rx);
        metadata.serve(hello.conversation, hello.node, link).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_agree_over_quic_lose_their_controller_and_take_it_back() {
    let cluster = QuicCluster::new(&[1, 2, 3]);
    let mut all = Vec::new();
    for node in 1..=3 {
        all.push(cluster.start(node).await);
    }
    for (i, daemon) in all.iter().enumerate() {
        cluster.register(daemon, i as u128 + 1).await;
    }
    for (i, daemon) in all.iter().enumerate() {
        create_topic(&daemon.metadata, &format!("topic-{i}"), i as u8 + 1)
            .await
            .unwrap();
    }
    let leader = controller(&all.iter().map(|daemon| &daemon.metadata).collect::<Vec<_>>()).await;
    let at = all
        .iter()
        .position(|daemon| daemon.metadata.node_id() == leader)
        .unwrap();
    all.remove(at).kill().await;

    create_topic(&all[0].metadata, "after", 9).await.unwrap();
    until(&all[1].metadata, "the dead controller fenced", |image| {
        image.nodes[&leader].state == DaemonState::Fenced
    })
    .await;

    let back = cluster.start(leader).await;
    cluster.register(&back, 99).await;
    until(&back.metadata, "everything that happened meanwhile", |image| {
        image.topics.len() == 4 && image.nodes[&leader].state == DaemonState::Active
    })
    .await;
    all.push(back);
    for daemon in all {
        daemon.kill().await;
    }
}
