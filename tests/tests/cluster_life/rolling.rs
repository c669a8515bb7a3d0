//! What every upgrade and every move is made of, while clients write and read: each daemon is stopped (SIGTERM) and started
//! again; all replicas of a topic go round the daemons. The first error that a client's library hands out fails the test.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tradewind_client::admin::NewTopic;
use tradewind_tests::load::ensure_sound;
use tradewind_tests::{Cluster, ClusterSpec, Kafka, wait};

use crate::clients::{self, Clients};

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 4;

/// Waits until every partition has a leader, and all of its replicas are in sync; they are `replicas`, where given.
fn whole(kafka: &mut Kafka, replicas: Option<&[i32]>) -> Result<()> {
    wait::until_true("all replicas are in sync", 60, || {
        for partition in kafka.partitions(TOPIC)? {
            ensure!(partition.leader_id >= 0, "{partition:?}");
            let (all, in_sync) = (&partition.replica_nodes, &partition.isr_nodes);
            ensure!(in_sync.len() == all.len(), "{partition:?}");
            ensure!(replicas.is_none_or(|replicas| all == replicas), "{partition:?}");
        }
        Ok(true)
    })
}

/// Ends the clients: nothing that was acknowledged is lost, repeated or out of order, and nobody read anything else.
fn sound(clients: Clients, what: &str) -> Result<()> {
    let history = clients.end()?;
    ensure_sound(&history)?;
    let read: usize = history.reads.iter().map(|read| read.records.len()).sum();
    println!(
        "{what}: {} records acknowledged, {read} read, no error",
        history.acknowledged()
    );
    Ok(())
}

#[test]
fn every_daemon_is_restarted_and_no_client_sees_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")])?;
    whole(&mut kafka, None)?;
    let mut clients = Clients::start(&cluster.bootstrap(), cluster.kafka(), TOPIC, PARTITIONS)?;
    clients.get_on(50)?;
    for id in [1, 2, 3] {
        let status = cluster.daemon(id)?.terminate()?;
        ensure!(status.success(), "daemon {id} ended with {status}");
        clients.get_on(50)?;
        let daemon = cluster.daemon(id)?;
        daemon.start()?;
        daemon.wait_ready()?;
        whole(&mut kafka, None)?;
        clients.get_on(50)?;
    }
    sound(clients, "3 daemons restarted")
}

#[test]
fn all_replicas_go_round_and_no_client_sees_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    let runtime = tokio::runtime::Runtime::new()?;
    let admin = clients::client(&cluster.bootstrap());
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(PARTITIONS),
        replication_factor: Some(2),
        ..NewTopic::default()
    };
    runtime.block_on(admin.create_topic(&topic))?;
    whole(&mut kafka, None)?;
    let mut clients = Clients::start(&cluster.bootstrap(), cluster.kafka(), TOPIC, PARTITIONS)?;
    clients.get_on(50)?;
    for replicas in [[1, 2], [2, 3], [3, 1], [2, 1]] {
        let one = |partition| ((TOPIC.to_owned(), partition), Some(replicas.to_vec()));
        let moves: BTreeMap<_, _> = (0..PARTITIONS).map(one).collect();
        for ((topic, partition), begun) in runtime.block_on(admin.alter_reassignments(&moves))? {
            begun.with_context(|| format!("{topic}-{partition}"))?;
        }
        whole(&mut kafka, Some(&replicas))?;
        clients.get_on(50)?;
    }
    sound(clients, "4 moves of all replicas")
}
