//! Daemons are added, removed and replaced; who votes follows.

use std::collections::BTreeSet;

use tradewind_tests::wait;
use tradewind_wire::ids::NodeId;

use crate::image::DaemonState;
use crate::members::{MemberChange, MembersError};
use crate::metadata::Metadata;
use crate::test_net::{PATIENCE, TestCluster, controller, create_topic, until};

fn add(node: NodeId, replace: bool) -> MemberChange {
    let mesh = format!("node-{node}");
    MemberChange::Add { node, mesh, replace }
}

/// Asks whoever is the controller.
async fn change(all: &[Metadata], change: MemberChange) -> Result<(), MembersError> {
    let leader = controller(&all.iter().collect::<Vec<_>>()).await;
    let leader = all.iter().find(|metadata| metadata.node_id() == leader).unwrap();
    leader.change_members(change).await
}

/// Waits until exactly these vote.
async fn voters(all: &[Metadata], wanted: &[NodeId]) {
    let look = async || {
        let quorum = all[0].quorum().await.unwrap();
        let now: Vec<NodeId> = quorum.voters.iter().map(|one| one.node).collect();
        if now == wanted {
            Ok(())
        } else {
            Err(format!("{quorum:?}"))
        }
    };
    let what = format!("{wanted:?} vote");
    wait::until_async(&what, PATIENCE.as_secs(), look).await.unwrap();
}

/// Takes a daemon out of the list and stops it as a kill would.
async fn kill(cluster: &TestCluster, all: &mut Vec<Metadata>, node: NodeId) {
    let at = all
        .iter()
        .position(|metadata| metadata.node_id() == node)
        .unwrap();
    cluster.kill(all.remove(at)).await;
    until(&all[0], "it fenced", |image| {
        image.nodes[&node].state == DaemonState::Fenced
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_added_another_removed_and_the_new_one_votes_in_its_place() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    let fourth = cluster.start(4).await;
    change(&all, add(4, false)).await.unwrap();
    change(&all, add(4, false)).await.unwrap();
    cluster.register(&fourth).await.unwrap();
    all.push(fourth);
    until(&all[0], "four daemons", |image| image.is_active(4)).await;
    voters(&all, &[1, 2, 3]).await;

    let remove = MemberChange::Remove { node: 1 };
    assert_eq!(
        change(&all, remove.clone()).await,
        Err(MembersError::InService(1))
    );
    kill(&cluster, &mut all, 1).await;
    change(&all, remove.clone()).await.unwrap();
    assert_eq!(change(&all, remove).await, Err(MembersError::NotMember(1)));
    until(&all[0], "three members", |image| {
        image.members == BTreeSet::from([2, 3, 4]) && !image.nodes.contains_key(&1)
    })
    .await;
    voters(&all, &[2, 3, 4]).await;

    // With two of these three there is a majority, so the new one's vote counts.
    kill(&cluster, &mut all, 2).await;
    create_topic(&all[0], "orders", 1).await.unwrap();
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemon_is_replaced_by_one_with_an_empty_disk() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    create_topic(&all[0], "orders", 1).await.unwrap();
    kill(&cluster, &mut all, 3).await;
    cluster.lose_disk(3);
    let blank = cluster.start(3).await;
    assert_eq!(
        change(&all, add(3, false)).await,
        Err(MembersError::OtherDirectory(3))
    );
    change(&all, add(3, true)).await.unwrap();
    cluster.register(&blank).await.unwrap();
    all.push(blank);
    until(&all[2], "itself in no in-sync set", |image| {
        let mut partitions = image.topic("orders").unwrap().partitions.iter();
        image.is_active(3) && partitions.all(|partition| !partition.isr.contains(&3))
    })
    .await;
    voters(&all, &[1, 2, 3]).await;
    kill(&cluster, &mut all, 2).await;
    create_topic(&all[1], "after", 2).await.unwrap();
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_and_a_third_daemon_are_added_and_then_all_vote() {
    let cluster = TestCluster::new(&[1]);
    let mut all = cluster.up().await;
    for node in [2, 3] {
        voters(&all, &[1]).await;
        let more = cluster.start(node).await;
        change(&all, add(node, false)).await.unwrap();
        cluster.register(&more).await.unwrap();
        all.push(more);
    }
    voters(&all, &[1, 2, 3]).await;
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_refused_and_change_nothing() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    create_topic(&all[0], "orders", 1).await.unwrap();
    assert!(matches!(
        change(&all, add(7, false)).await,
        Err(MembersError::Unreachable { node: 7, .. })
    ));
    let stranger = cluster.start(4).await;
    assert_eq!(change(&all, add(4, true)).await, Err(MembersError::NotMember(4)));
    // A live daemon's disk is exchanged: it must be dead for the cluster first.
    let at = all.iter().position(|metadata| metadata.node_id() == 3).unwrap();
    cluster.kill(all.remove(at)).await;
    cluster.lose_disk(3);
    let blank = cluster.start(3).await;
    until(&all[0], "it fenced", |image| {
        image.nodes[&3].state == DaemonState::Fenced
    })
    .await;
    let remove = change(&all, MemberChange::Remove { node: 3 }).await;
    assert_eq!(
        remove,
        Err(MembersError::HoldsReplicas {
            node: 3,
            partitions: 3
        })
    );
    assert_eq!(all[0].image().members, BTreeSet::from([1, 2, 3]));
    voters(&all, &[1, 2, 3]).await;
    for metadata in [all, vec![stranger, blank]].concat() {
        cluster.kill(metadata).await;
    }
}
