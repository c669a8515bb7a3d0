//! Groups of the consumer protocol through the coordinator: what is answered when, what survives, what changes protocol.

use std::sync::Arc;

use futures::FutureExt as _;

use super::consumer::tests::{Shelf, facts};
use super::coordinator_tests::*;
use super::*;

async fn with_topic(journal: &Memory) -> Coordinator {
    let coordinator = serving(journal).await;
    let mut shelf = Shelf::default();
    shelf.put("t", 4);
    coordinator.set_topics(Arc::new(shelf));
    coordinator
}

fn heartbeat(member_id: &str, epoch: i32) -> Heartbeat {
    let joins = epoch == 0;
    Heartbeat {
        member_id: member_id.into(),
        epoch,
        rebalance_timeout_ms: joins.then_some(60_000),
        topics: joins.then(|| ["t".to_owned()].into()),
        owned: joins.then(Partitions::new),
        ..Heartbeat::default()
    }
}

fn member(member_id: &str, epoch: i32) -> Committer {
    Committer {
        member_id: member_id.into(),
        instance_id: None,
        generation: epoch,
        knows_epochs: true,
    }
}

fn kinds(coordinator: &Coordinator) -> Vec<(&'static str, &'static str)> {
    let all = coordinator.list().unwrap();
    all.iter().map(|group| (group.kind, group.state)).collect()
}

#[tokio::test]
async fn a_heartbeat_is_answered_when_what_it_says_is_replicated() {
    let journal = Memory::new();
    let coordinator = with_topic(&journal).await;
    journal.hold();
    let mut joining = Box::pin(coordinator.consumer_heartbeat("g", heartbeat("a", 0)));
    assert!(
        (&mut joining).now_or_never().is_none(),
        "nothing is promised that may be lost"
    );
    // Nor may another answer speak of it.
    let mut again = Box::pin(coordinator.consumer_heartbeat("g", heartbeat("a", 1)));
    assert!((&mut again).now_or_never().is_none());
    journal.release();
    assert_eq!(joining.await.unwrap().epoch, 1);
    assert_eq!(again.await.unwrap().epoch, 1);
    journal.hold();
    let steady = coordinator.consumer_heartbeat("g", heartbeat("a", 1));
    assert!(
        steady.now_or_never().is_some(),
        "nothing to write, nothing to wait for"
    );
}

#[tokio::test]
async fn members_and_positions_survive_a_change_of_coordinator() {
    let journal = Memory::new();
    let coordinator = with_topic(&journal).await;
    coordinator
        .consumer_heartbeat("g", heartbeat("a", 0))
        .await
        .unwrap();
    coordinator
        .consumer_heartbeat("g", heartbeat("b", 0))
        .await
        .unwrap();
    let commit = |coordinator: &Coordinator, member: Committer| {
        let coordinator = coordinator.clone();
        async move { coordinator.commit("g", &member, vec![position(7)]).await }
    };
    assert_eq!(commit(&coordinator, member("a", 1)).await, Ok(vec![Ok(())]));
    let stale = commit(&coordinator, member("a", 9)).await;
    assert_eq!(stale, Err(GroupError::StaleEpoch));
    let unknown = commit(&coordinator, outsider()).await;
    assert_eq!(unknown, Err(GroupError::UnknownMember));
    let again = with_topic(&journal).await;
    let of = |coordinator: &Coordinator| coordinator.consumer("g", |group, _| facts(group)).unwrap();
    assert_eq!(of(&again), of(&coordinator));
    assert_eq!(
        again
            .consumer_heartbeat("g", heartbeat("a", 1))
            .await
            .unwrap()
            .epoch,
        1
    );
    assert_eq!(again.delete("g").await, Err(GroupError::NotEmpty));
    let of_topic = [("t".to_owned(), 0)];
    let kept = again.delete_positions("g", &of_topic).await;
    assert_eq!(kept, Ok(vec![Err(GroupError::SubscribedToTopic)]));
    for id in ["a", "b"] {
        again.consumer_heartbeat("g", heartbeat(id, -1)).await.unwrap();
    }
    assert_eq!(kinds(&again), [("consumer", "Empty")]);
    assert_eq!(again.delete("g").await, Ok(()));
    assert_eq!(with_topic(&journal).await.list().unwrap(), []);
}

#[tokio::test]
async fn an_empty_group_changes_its_protocol_and_keeps_its_positions() {
    let journal = Memory::new();
    let coordinator = with_topic(&journal).await;
    let (running, stop) = running(&coordinator);
    let joined = coordinator.join("g", join("", &["t"])).await;
    let classic = Committer {
        knows_epochs: false,
        ..member(&joined.member_id, joined.generation)
    };
    coordinator
        .leave("g", &[(classic.member_id.clone(), None)])
        .unwrap();
    coordinator
        .commit("g", &outsider(), vec![position(5)])
        .await
        .unwrap();
    coordinator
        .consumer_heartbeat("g", heartbeat("a", 0))
        .await
        .unwrap();
    assert_eq!(kinds(&coordinator), [("consumer", "Stable")]);
    assert_eq!(
        coordinator.describe("g"),
        Ok(None),
        "not one that DescribeGroups knows"
    );
    assert_eq!(
        coordinator.heartbeat("g", &classic),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(kinds(&with_topic(&journal).await), [("consumer", "Stable")]);
    coordinator
        .consumer_heartbeat("g", heartbeat("a", -1))
        .await
        .unwrap();
    let back = coordinator.join("g", join("", &["t"])).await;
    assert_eq!(back.error, None);
    assert!(back.generation > joined.generation, "generations go on rising");
    assert_eq!(coordinator.consumer("g", |_, _| ()), Ok(None));
    let again = with_topic(&journal).await;
    assert_eq!(
        again.consumer("g", |_, _| ()),
        Ok(None),
        "nothing of it is left in the log"
    );
    let read = |offsets: Option<&Offsets>| offsets?.committed("t", 0).map(|value| value.offset);
    assert_eq!(again.positions("g", read), Ok(Some(5)));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_refused_makes_no_group() {
    let coordinator = with_topic(&Memory::new()).await;
    let refused = coordinator.consumer_heartbeat("g", heartbeat("a", 3)).await;
    assert_eq!(refused.unwrap_err().error, GroupError::GroupNotFound);
    let mut broken = heartbeat("a", 0);
    broken.regex = Some("(".into());
    let refused = coordinator.consumer_heartbeat("g", broken).await;
    assert_eq!(refused.unwrap_err().error, GroupError::InvalidRegex);
    assert_eq!(coordinator.list().unwrap(), []);
}

#[tokio::test]
async fn a_group_has_settings_of_its_own() {
    let coordinator = with_topic(&Memory::new()).await;
    let mut shelf = Shelf::default();
    shelf.put("t", 4);
    shelf.settings.insert("consumer.heartbeat.interval.ms", "7000");
    shelf.settings.insert("consumer.session.timeout.ms", "50000");
    coordinator.set_topics(Arc::new(shelf));
    let reply = coordinator
        .consumer_heartbeat("g", heartbeat("a", 0))
        .await
        .unwrap();
    assert_eq!(reply.heartbeat_interval_ms, 7_000);
    let deadline = coordinator.consumer("g", |group, _| group.deadline()).unwrap();
    assert_eq!(deadline, Some(Some(50_000)));
}
