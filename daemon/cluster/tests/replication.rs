//! One and three daemons' cluster halves in this process, over real QUIC and real files.
//!
//! What needs a process that dies is in the workspace's `tests/`.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tradewind_cluster::command::{Command, CreateTopic, Outcome};
use tradewind_cluster::metadata::Timing;
use tradewind_cluster::replica::{Isolation, Reading, Replica};
use tradewind_cluster::{CleanerOptions, Cluster, ClusterOptions};
use tradewind_log::{Checkpoints, DataDir};
use tradewind_tests::wait;
use tradewind_transport::{Mesh, MeshOptions, MeshTls, certs};
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType};
use tradewind_wire::clock::{Clock, Rng};
use tradewind_wire::compression::Codec;
use tradewind_wire::ids::{NodeId, TopicId};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_daemon_appends_commits_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::new(dir.path(), 1);
    let cluster = nodes.start(1).await;
    cluster.join().await.unwrap();
    let topic = create(&cluster, "orders", 1).await;
    let replica = leader_of(std::slice::from_ref(&cluster), topic).await;
    append(&replica, "one").await;
    append(&replica, "two").await;
    let fetched = replica
        .fetch(&Reading {
            from: 0,
            max_bytes: 1 << 20,
            whole_first: true,
            isolation: Isolation::ReadUncommitted,
            leader_epoch: None,
            last_epoch: None,
            at_follower: false,
        })
        .unwrap();
    assert_eq!(fetched.high_watermark, 2);
    assert_eq!(
        fetched.records.iter().map(|chunk| chunk.len()).sum::<usize>(),
        fetched.bytes
    );
    cluster.stop().await;
    drop((replica, cluster));

    let cluster = nodes.start(1).await;
    cluster.join().await.unwrap();
    let replica = leader_of(std::slice::from_ref(&cluster), topic).await;
    assert_eq!(replica.log().end(), 2, "records outlive a clean stop");
    append(&replica, "three").await;
    cluster.stop().await;
}

/// With nothing appended elsewhere, the flusher takes what is due in its order: when a later append is flushed, an earlier one
/// that is not would have been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_messages_and_flush_ms_say_when_records_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::new(dir.path(), 1);
    let cluster = nodes.start(1).await;
    cluster.join().await.unwrap();
    let never = i64::MAX.to_string();
    let topic = async |name: &str, messages: &str, ms: &str| {
        let mut topic = CreateTopic::new(name, TopicId::random(&**cluster.rng()), 1, 1);
        let configs = [("flush.messages", messages), ("flush.ms", ms)];
        topic.configs = configs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let id = propose(&cluster, topic).await;
        leader_of(std::slice::from_ref(&cluster), id).await
    };
    let by_count = topic("count", "3", &never).await;
    let by_age = topic("age", &never, "200").await;
    let left = topic("left", &never, &never).await;
    let each = topic("each", "1", &never).await;
    let appended = |replica: &Replica| replica.append(one("x"), 1).unwrap();
    let flushed = |replica: &Replica| replica.log().flushed_end();
    appended(&left);
    for _ in 0..2 {
        appended(&by_count);
    }
    appended(&each);
    until("each append is flushed", || flushed(&each) == 1).await;
    assert_eq!((flushed(&by_count), flushed(&left)), (0, 0));
    appended(&by_count);
    until("three are enough", || flushed(&by_count) == 3).await;
    appended(&by_age);
    until("it has waited for long enough", || flushed(&by_age) == 1).await;
    assert_eq!(flushed(&left), 0, "the operating system does it");
    cluster.stop().await;
}

/// Of a power failure the cluster hears with the first registration after it, however many runs there were in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_not_registered_does_not_hide_how_the_one_before_ended() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::new(dir.path(), 1);
    let data = dir.path().join("data-1");
    let is_clean = || Checkpoints::load(&data).unwrap().clean;
    let run = async |registers: bool| {
        let cluster = nodes.start(1).await;
        if registers {
            cluster.join().await.unwrap();
        }
        cluster.stop().await;
    };
    run(true).await;
    assert!(is_clean(), "it was registered and stopped in order");
    run(false).await;
    assert!(is_clean(), "nothing has happened since");
    Checkpoints {
        clean: false,
        ..Checkpoints::load(&data).unwrap()
    }
    .store(&data)
    .unwrap();
    run(false).await;
    assert!(
        !is_clean(),
        "the cluster does not know yet of a run that did not stop in order"
    );
    run(true).await;
    assert!(is_clean(), "now it does");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_replicate_and_hand_over() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = Nodes::new(dir.path(), 3);
    let started = tokio::join!(nodes.start(1), nodes.start(2), nodes.start(3));
    let mut all = vec![started.0, started.1, started.2];
    for joined in futures::future::join_all(all.iter().map(Cluster::join)).await {
        joined.unwrap();
    }
    until("all three are active", || all[0].image().active().count() == 3).await;
    let topic = create(&all[1], "orders", 3).await;
    let replica = leader_of(&all, topic).await;
    for i in 0..50 {
        append(&replica, &format!("record {i}")).await;
    }
    for cluster in &all {
        until("every copy ends at 50", || {
            copy(cluster, topic).is_some_and(|copy| copy.log().end() == 50)
        })
        .await;
        let of_copy = bytes(&copy(cluster, topic).unwrap());
        assert_eq!(of_copy, bytes(&replica), "copies are the same bytes");
        until("every copy knows the watermark", || {
            copy(cluster, topic).unwrap().high_watermark() == 50
        })
        .await;
    }

    let leader = all[0].image().partition(topic, 0).unwrap().leader.unwrap();
    let stopped = all.remove(
        all.iter()
            .position(|cluster| cluster.node_id() == leader)
            .unwrap(),
    );
    stopped.stop().await;
    drop((replica, stopped));
    let left = all;
    let replica = leader_of(&left, topic).await;
    append(&replica, "after the first leader").await;
    assert_eq!(replica.log().end(), 51);

    let back = nodes.start(leader).await;
    back.join().await.unwrap();
    until("the old leader has caught up and is in sync", || {
        let image = left[0].image();
        let in_sync = image
            .partition(topic, 0)
            .is_some_and(|partition| partition.isr.len() == 3);
        in_sync && copy(&back, topic).is_some_and(|copy| copy.log().end() == 51)
    })
    .await;
    for cluster in left {
        cluster.stop().await;
    }
    back.stop().await;
}

/// A follower that hears of a topic before its leader does is refused and asks again, however busy the other copies on its
/// stream keep it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_refused_asks_again_while_others_are_busy() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Nodes::new(dir.path(), 3);
    nodes.lag_max = DEADLINE * 10;
    let started = tokio::join!(nodes.start(1), nodes.start(2), nodes.start(3));
    let all = [started.0, started.1, started.2];
    for joined in futures::future::join_all(all.iter().map(Cluster::join)).await {
        joined.unwrap();
    }
    until("all three are active", || all[0].image().active().count() == 3).await;
    let partitions = 12;
    let busy = CreateTopic::new("busy", TopicId::random(&**all[0].rng()), partitions, 3);
    let busy = propose(&all[0], busy).await;
    let led = |cluster: &Cluster| -> Vec<Arc<Replica>> {
        let copies = (0..partitions).filter_map(|partition| cluster.replica(busy, partition));
        copies.filter(|copy| copy.is_leader()).collect()
    };
    until("each daemon leads some", || {
        all.iter().all(|cluster| !led(cluster).is_empty())
    })
    .await;
    let load = futures::future::join_all(all.iter().map(async |cluster| {
        loop {
            for replica in led(cluster) {
                append(&replica, "more").await;
            }
        }
    }));
    let create_more = async {
        for i in 0..12 {
            let topic = create(&all[i % 3], &format!("new-{i}"), 3).await;
            append(&*leader_of(&all, topic).await, "first").await;
        }
    };
    tokio::select! {
        _ = load => unreachable!("it has no end"),
        () = create_more => {}
    }
    for cluster in all {
        cluster.stop().await;
    }
}

/// A cluster's certificates, addresses and directories.
struct Nodes {
    dir: std::path::PathBuf,
    lag_max: Duration,
    seeds: BTreeMap<NodeId, String>,
}

impl Nodes {
    fn new(dir: &Path, count: i32) -> Self {
        certs::init_ca(&dir.join("ca")).unwrap();
        let mut seeds = BTreeMap::new();
        // Held together until all are drawn, so that no two are the same.
        let sockets: Vec<UdpSocket> = (0..count)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        for (node, socket) in (1..).zip(&sockets) {
            seeds.insert(node, socket.local_addr().unwrap().to_string());
            let out = dir.join(format!("certs-{node}"));
            certs::issue(&dir.join("ca"), "east", node, &["127.0.0.1".to_owned()], &out).unwrap();
        }
        Self {
            dir: dir.to_owned(),
            lag_max: Duration::from_secs(5),
            seeds,
        }
    }

    async fn start(&self, node: NodeId) -> Cluster {
        let certs = self.dir.join(format!("certs-{node}"));
        let file = |name: &str| certs.join(name);
        let tls =
            Arc::new(MeshTls::load(&file("ca.pem"), &file("node.pem"), &file("node.key"), &[]).unwrap());
        let data = self.dir.join(format!("data-{node}"));
        let rng: Arc<dyn Rng> = Arc::new(Counter(AtomicU64::new(node as u64 * 1_000_003)));
        let data_dir = Arc::new(DataDir::open(&data, &*rng).unwrap());
        let options = || MeshOptions::new([node as u8; 64]);
        let control_tls = Arc::clone(&tls);
        let control_mesh = Box::new(move || {
            Mesh::bind(
                "127.0.0.1:0".parse().unwrap(),
                control_tls,
                MeshOptions::new([0; 64]),
            )
            .map_err(std::io::Error::other)
        });
        // A port is free again only when the last clone of the endpoint before is gone.
        let listen = self.seeds[&node].parse().unwrap();
        let bind = async || Mesh::bind(listen, Arc::clone(&tls), options());
        let mesh = wait::until_async("the port is free", DEADLINE.as_secs(), bind).await;
        let mesh = mesh.unwrap();
        let cluster = Cluster::start(ClusterOptions {
            cluster_name: "east".to_owned(),
            node,
            rack: None,
            meta_dir: data.clone(),
            data_dir,
            seeds: self.seeds.clone(),
            mesh,
            control_mesh,
            mesh_addr: self.seeds[&node].clone(),
            listeners: Vec::new(),
            defaults: BTreeMap::from([
                ("flush.messages".to_owned(), "1".to_owned()),
                (
                    "min.insync.replicas".to_owned(),
                    if self.seeds.len() > 1 { "2" } else { "1" }.to_owned(),
                ),
            ]),
            replica_lag_max: self.lag_max,
            retention_check: Duration::from_secs(60),
            cleaner: CleanerOptions::default(),
            disk_reserve: 0,
            boot_id: "boot".to_owned(),
            timing: Timing::default(),
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            rng,
        });
        cluster.await.unwrap()
    }
}

async fn create(cluster: &Cluster, name: &str, replication_factor: i16) -> TopicId {
    let topic = CreateTopic::new(name, TopicId::random(&**cluster.rng()), 1, replication_factor);
    propose(cluster, topic).await
}

async fn propose(cluster: &Cluster, topic: CreateTopic) -> TopicId {
    match cluster
        .propose(Command::CreateTopic(topic), DEADLINE)
        .await
        .unwrap()
    {
        Outcome::Topic { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn copy(cluster: &Cluster, topic: TopicId) -> Option<Arc<Replica>> {
    cluster.replica(topic, 0)
}

async fn leader_of(clusters: &[Cluster], topic: TopicId) -> Arc<Replica> {
    let find = || {
        clusters
            .iter()
            .filter_map(|cluster| copy(cluster, topic))
            .find(|copy| copy.is_leader())
    };
    until("someone leads", || find().is_some()).await;
    find().unwrap()
}

fn one(value: &str) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.append(1, None, Some(value.as_bytes()), &[]);
    Batch::parse(builder.build()).unwrap()
}

async fn append(replica: &Replica, value: &str) {
    let batch = one(value);
    // A new leader has to see its followers first.
    let append = async || replica.append(batch.clone(), -1);
    let taken = wait::until_async("the leader takes a batch", DEADLINE.as_secs(), append).await;
    let (appended, epoch) = taken.unwrap();
    let committed = replica.committed(appended.last_offset, epoch, DEADLINE).await;
    committed.unwrap();
}

fn bytes(replica: &Replica) -> Vec<u8> {
    replica.log().read(0, 1 << 20, i64::MAX).unwrap().records.concat()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let look = async || condition();
    let waited = wait::until_true_async(what, DEADLINE.as_secs(), look).await;
    waited.unwrap();
}

struct Counter(AtomicU64);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        // SplitMix64, so that ids drawn in a row are not near each other.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
