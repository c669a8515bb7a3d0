//! What forgets positions and groups, and what has to stay.

use super::coordinator_tests::*;
use super::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn at(topic: &str, offset: i64) -> Position {
    Position {
        topic: topic.into(),
        ..position(offset)
    }
}

fn stored_in(coordinator: &Coordinator, topic: &str) -> Option<i64> {
    let read = |offsets: Option<&Offsets>| offsets?.committed(topic, 0).map(|value| value.offset);
    coordinator.positions("g", read).unwrap()
}

/// One member of `g` that reads `topics`, with its assignment.
async fn member(coordinator: &Coordinator, protocol_type: &str, topics: &[&str]) -> Committer {
    let mut request = join("", topics);
    request.protocol_type = protocol_type.into();
    let reply = coordinator.join("g", request).await;
    assert_eq!(reply.error, None);
    let sync = Sync {
        token: 0,
        member_id: reply.member_id.clone(),
        instance_id: None,
        generation: reply.generation,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    coordinator.sync("g", sync).await.unwrap();
    Committer {
        member_id: reply.member_id,
        instance_id: None,
        generation: reply.generation,
        knows_epochs: true,
    }
}

#[tokio::test]
async fn positions_are_deleted_one_by_one_unless_the_group_reads_the_topic() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    let unknown = coordinator.delete_positions("g", &[("a".into(), 0)]).await;
    assert_eq!(unknown, Err(GroupError::GroupNotFound));
    let (running, stop) = running(&coordinator);
    let committer = member(&coordinator, "consumer", &["a"]).await;
    let positions = vec![at("a", 1), at("b", 2)];
    coordinator.commit("g", &committer, positions).await.unwrap();
    let all = [("a".to_owned(), 0), ("b".to_owned(), 0), ("b".to_owned(), 9)];
    let outcomes = coordinator.delete_positions("g", &all).await.unwrap();
    assert_eq!(outcomes, [Err(GroupError::SubscribedToTopic), Ok(()), Ok(())]);
    assert_eq!(stored_in(&coordinator, "a"), Some(1));
    assert_eq!(stored_in(&coordinator, "b"), None);
    let again = serving(&journal).await;
    assert_eq!(stored_in(&again, "b"), None, "gone from the log as well");
    assert_eq!(stored_in(&again, "a"), Some(1));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_group_of_another_type_has_to_be_empty() {
    let coordinator = serving(&Memory::new()).await;
    let (running, stop) = running(&coordinator);
    let committer = member(&coordinator, "connect", &[]).await;
    coordinator
        .commit("g", &committer, vec![at("a", 1)])
        .await
        .unwrap();
    let all = [("a".to_owned(), 0)];
    assert_eq!(
        coordinator.delete_positions("g", &all).await,
        Err(GroupError::NotEmpty)
    );
    coordinator.leave("g", &[(committer.member_id, None)]).unwrap();
    assert_eq!(coordinator.delete_positions("g", &all).await, Ok(vec![Ok(())]));
    // A group that its last member has just left can be deleted at once, whether or not that is written.
    assert_eq!(coordinator.delete("g").await, Ok(()));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn positions_of_a_deleted_topic_go() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    let positions = vec![at("a", 1), at("b", 2)];
    coordinator.commit("g", &outsider(), positions).await.unwrap();
    coordinator.topics_deleted(&["a".into(), "unheard".into()]);
    for coordinator in [coordinator, serving(&journal).await] {
        assert_eq!(stored_in(&coordinator, "a"), None);
        assert_eq!(stored_in(&coordinator, "b"), Some(2));
    }
}

#[tokio::test]
async fn a_clients_own_retention_goes_first() {
    let journal = Memory::new();
    let (coordinator, clock) = coordinator();
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(journal.clone()));
    loaded(&coordinator, "g").await;
    let mut short = at("short", 1);
    short.retention_ms = Some(1_000);
    let positions = vec![short, at("usual", 2)];
    coordinator.commit("g", &outsider(), positions).await.unwrap();
    clock.0.store(1_000, Ordering::SeqCst);
    coordinator.expire(&coordinator.shard("g").unwrap());
    for coordinator in [coordinator, serving(&journal).await] {
        assert_eq!(stored_in(&coordinator, "short"), None);
        assert_eq!(stored_in(&coordinator, "usual"), Some(2));
    }
}

#[tokio::test]
async fn positions_of_an_empty_group_count_from_when_it_became_empty() {
    let journal = Memory::new();
    let (coordinator, clock) = coordinator();
    coordinator.elected(coordinator.partition_of("g"), 1, Arc::new(journal.clone()));
    loaded(&coordinator, "g").await;
    let (running, stop) = running(&coordinator);
    let committer = member(&coordinator, "consumer", &["a"]).await;
    coordinator
        .commit("g", &committer, vec![at("a", 1), at("b", 2)])
        .await
        .unwrap();
    stop.cancel();
    running.await.unwrap();
    let (shard, week) = (coordinator.shard("g").unwrap(), 7 * 24 * 60 * 60 * 1000);
    clock.0.store(week, Ordering::SeqCst);
    coordinator.expire(&shard);
    assert_eq!(stored_in(&coordinator, "a"), Some(1), "its topic is being read");
    assert_eq!(stored_in(&coordinator, "b"), None, "nobody reads this one");
    coordinator.leave("g", &[(committer.member_id, None)]).unwrap();
    clock.0.store(2 * week - 1, Ordering::SeqCst);
    coordinator.expire(&shard);
    assert_eq!(stored_in(&coordinator, "a"), Some(1));
    clock.0.store(2 * week, Ordering::SeqCst);
    coordinator.expire(&shard);
    assert_eq!(stored_in(&coordinator, "a"), None);
}
