//! Several daemons' metadata together: bootstrap, proposals, losing the controller, fencing, restarts.

use std::time::Duration;

use crate::command::{Command, MetaError, Outcome};
use crate::image::DaemonState;
use crate::metadata::{ProposeError, RegisterError};
use crate::test_net::{PATIENCE, TestCluster, controller, create_topic, registration, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_daemon_makes_its_cluster_and_remembers_it() {
    let cluster = TestCluster::new(&[1]);
    let first = cluster.start(1).await;
    cluster.register(&first).await.unwrap();
    let created = create_topic(&first, "orders", 7).await.unwrap();
    assert!(matches!(
        created,
        Outcome::Topic {
            partitions: 3,
            replication_factor: 1,
            ..
        }
    ));
    let before = first.image();
    assert!(before.cluster_id.is_some() && before.cluster_number > 0);
    assert_eq!(
        before.topic("orders").unwrap().partitions[0].leader,
        Some(1),
        "the answer came with the image"
    );
    cluster.kill(first).await;

    let second = cluster.start(1).await;
    let epoch = cluster.register(&second).await.unwrap();
    let after = second.image();
    assert_eq!(after.cluster_id, before.cluster_id);
    let partition = &after.topic("orders").unwrap().partitions[0];
    assert_eq!(partition.leader, Some(1));
    assert_eq!(
        partition.leader_epoch, 1,
        "the returned leader has a new epoch, even though it leads again"
    );
    assert_eq!(after.nodes[&1].epoch, epoch);
    let mut standing = second.standing();
    let ready = standing.wait_for(|s| s.caught_up && s.in_touch && s.daemon_epoch == Some(epoch));
    tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
    cluster.kill(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_of_three_can_propose_and_sees_what_it_did() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let all = cluster.up().await;
    for (i, metadata) in all.iter().enumerate() {
        let name = format!("topic-{i}");
        create_topic(metadata, &name, i as u8 + 1).await.unwrap();
        assert!(metadata.image().topic(&name).is_some());
        let again = create_topic(metadata, &name, i as u8 + 100).await;
        assert_eq!(again, Err(ProposeError::Refused(MetaError::TopicExists(name))));
    }
    let mut blocks = Vec::new();
    for metadata in &all {
        let node = metadata.node_id();
        let outcome = metadata
            .propose(Command::AllocateProducerIds { node }, PATIENCE)
            .await;
        blocks.push(outcome.unwrap());
    }
    blocks.dedup();
    assert_eq!(blocks.len(), 3, "no producer id is given twice: {blocks:?}");
    for metadata in &all {
        until(metadata, "three topics", |image| image.topics.len() == 3).await;
    }
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_go_on_after_the_controller_is_killed_and_it_comes_back() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    create_topic(&all[0], "before", 1).await.unwrap();
    let leader = controller(&all.iter().collect::<Vec<_>>()).await;
    let dead = all.remove(all.iter().position(|m| m.node_id() == leader).unwrap());
    cluster.kill(dead).await;

    create_topic(&all[0], "after", 2).await.unwrap();
    until(
        &all[1],
        "the dead controller fenced, and nothing led by it",
        |image| {
            image.nodes[&leader].state == DaemonState::Fenced
                && image.topics.values().all(|topic| {
                    let mut partitions = topic.partitions.iter();
                    partitions
                        .all(|p| p.leader.is_some() && p.leader != Some(leader) && !p.isr.contains(&leader))
                })
        },
    )
    .await;

    let back = cluster.start(leader).await;
    cluster.register(&back).await.unwrap();
    until(&back, "itself active again", |image| {
        image.nodes[&leader].state == DaemonState::Active && image.topic("after").is_some()
    })
    .await;
    all.push(back);
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_daemons_may_be_killed_at_once() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let all = cluster.up().await;
    create_topic(&all[1], "orders", 1).await.unwrap();
    let before = all[1].image();
    for metadata in all {
        cluster.kill(metadata).await;
    }
    let all = cluster.up().await;
    for metadata in &all {
        until(metadata, "the topic with leaders under new epochs", |image| {
            let topic = image.topic("orders").unwrap();
            image.cluster_id == before.cluster_id
                && topic
                    .partitions
                    .iter()
                    .all(|partition| partition.leader.is_some())
                && image
                    .nodes
                    .values()
                    .all(|daemon| daemon.state == DaemonState::Active)
        })
        .await;
    }
    for (old, new) in before
        .topic("orders")
        .unwrap()
        .partitions
        .iter()
        .zip(&all[0].image().topic("orders").unwrap().partitions)
    {
        assert!(new.leader_epoch > old.leader_epoch);
    }
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_daemon_is_fenced_and_unfenced_when_it_is_heard_again() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let all = cluster.up().await;
    create_topic(&all[0], "orders", 1).await.unwrap();
    let leader = controller(&all.iter().collect::<Vec<_>>()).await;
    let other = all.iter().find(|m| m.node_id() != leader).unwrap();
    let silent = other.node_id();
    let witness = all.iter().find(|m| m.node_id() == leader).unwrap();
    let epoch = witness.image().nodes[&silent].epoch;

    cluster.isolate(silent);
    until(witness, "the silent daemon fenced", |image| {
        image.nodes[&silent].state == DaemonState::Fenced
    })
    .await;
    let mut standing = other.standing();
    let out_of_touch = standing.wait_for(|standing| !standing.in_touch);
    tokio::time::timeout(PATIENCE, out_of_touch)
        .await
        .expect("it must notice that nobody answers it")
        .unwrap();

    cluster.heal();
    until(other, "itself unfenced under the same registration", |image| {
        let daemon = &image.nodes[&silent];
        daemon.state == DaemonState::Active && daemon.epoch == epoch && daemon.session > epoch
    })
    .await;
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_controller_loses_touch_and_its_proposals_do_not_happen_twice() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let all = cluster.up().await;
    let leader = controller(&all.iter().collect::<Vec<_>>()).await;
    let lonely = all.iter().find(|m| m.node_id() == leader).unwrap();
    let others: Vec<_> = all.iter().filter(|m| m.node_id() != leader).collect();

    cluster.isolate(leader);
    let proposal = {
        let lonely = lonely.clone();
        tokio::spawn(async move { create_topic(&lonely, "orders", 1).await })
    };
    let mut standing = lonely.standing();
    tokio::time::timeout(PATIENCE, standing.wait_for(|standing| !standing.in_touch))
        .await
        .expect("a controller without a quorum must not be in touch")
        .unwrap();
    assert_ne!(controller(&others).await, leader);
    assert!(others[0].image().topic("orders").is_none());

    cluster.heal();
    assert!(matches!(proposal.await.unwrap(), Ok(Outcome::Topic { .. })));
    until(others[0], "the topic", |image| image.topic("orders").is_some()).await;
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_daemons_follows_without_a_vote() {
    let cluster = TestCluster::new(&[1, 2]);
    let all = cluster.up().await;
    create_topic(&all[1], "orders", 1).await.unwrap();
    assert_eq!(controller(&all.iter().collect::<Vec<_>>()).await, 1);
    assert_eq!(all[0].image().members, [1, 2].into());
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_under_a_live_id_is_refused() {
    let cluster = TestCluster::new(&[1]);
    let metadata = cluster.start(1).await;
    cluster.register(&metadata).await.unwrap();
    // As if proposed from another data directory: it knows nothing of the first incarnation.
    let stranger = Command::Register(registration(1, 999));
    let refused = metadata.propose(stranger, PATIENCE).await;
    assert_eq!(refused, Err(ProposeError::Refused(MetaError::DuplicateNode(1))));
    cluster.kill(metadata.clone()).await;
    assert_eq!(cluster.register(&metadata).await, Err(RegisterError::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_hands_leadership_over_at_once() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let all = cluster.up().await;
    create_topic(&all[0], "orders", 1).await.unwrap();
    let leaving = all[2].clone();
    leaving.stop(PATIENCE).await;
    until(&all[0], "a stopping daemon that leads nothing", |image| {
        image.nodes[&3].state != DaemonState::Active
            && image
                .topic("orders")
                .unwrap()
                .partitions
                .iter()
                .all(|partition| partition.leader.is_some_and(|leader| leader != 3))
    })
    .await;
    assert_eq!(
        leaving
            .propose(Command::AllocateProducerIds { node: 3 }, Duration::from_secs(1))
            .await,
        Err(ProposeError::Stopped)
    );
    for metadata in all {
        cluster.kill(metadata).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_to_stop_does_not_wait_for_those_who_are_gone() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    let last = all.remove(1);
    for metadata in all {
        cluster.kill(metadata).await;
    }
    let stopped = tokio::time::timeout(PATIENCE, last.stop(PATIENCE * 10)).await;
    assert!(stopped.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_away_for_longer_than_the_log_reaches_gets_a_snapshot() {
    let cluster = TestCluster::new(&[1, 2, 3]);
    let mut all = cluster.up().await;
    let away = all.pop().unwrap();
    cluster.kill(away).await;
    for i in 0..5 {
        create_topic(&all[0], &format!("topic-{i}"), i + 1).await.unwrap();
    }
    until(&all[1], "five topics", |image| image.topics.len() == 5).await;
    for metadata in &all {
        metadata.compact().await;
    }
    let back = cluster.start(3).await;
    cluster.register(&back).await.unwrap();
    assert_eq!(back.image().topics.len(), 5);
    create_topic(&back, "after", 9).await.unwrap();
    all.push(back);
    for metadata in all {
        cluster.kill(metadata).await;
    }

    // Snapshot, then log: what every one of them finds on its own disk.
    for metadata in cluster.up().await {
        until(&metadata, "all six topics", |image| image.topics.len() == 6).await;
    }
}
