//! Drained daemons: what they hand over, what they do not get, and when a drain is refused.

use super::*;
use crate::overview::Overview;

fn drain(node: NodeId, force: bool) -> Command {
    Command::Drain {
        node,
        on: true,
        force,
    }
}

fn undrain(node: NodeId) -> Command {
    Command::Drain {
        node,
        on: false,
        force: false,
    }
}

#[test]
fn a_drained_leader_hands_over_and_stays_in_sync() {
    let mut log = Log::with_topic();
    let epoch = log.partition().leader_epoch;
    log.must(&drain(1, false));
    assert_eq!(log.partition().leader, Some(2));
    assert_eq!(log.partition().isr, [1, 2, 3]);
    assert_eq!(log.partition().leader_epoch, epoch + 1);
    // It stays the preferred one, but nobody gives it back what it has handed over.
    let elect = Command::Elect {
        kind: ElectionKind::Preferred,
        partitions: vec![(TOPIC, 0)],
    };
    assert_eq!(
        log.must(&elect),
        Outcome::Elected(vec![Err(MetaError::NoEligibleLeader)])
    );
    log.must(&undrain(1));
    assert_eq!(log.must(&elect), Outcome::Elected(vec![Ok(1)]));
}

#[test]
fn others_are_elected_before_a_drained_one_which_leads_what_nobody_else_can() {
    let mut log = Log::with_topic();
    log.must(&drain(1, false));
    log.fence(2);
    assert_eq!(log.partition().leader, Some(3));
    log.fence(3);
    assert_eq!(log.partition().leader, Some(1));
}

#[test]
fn a_drain_that_takes_partitions_below_min_isr_is_refused() {
    let mut log = Log::with_topic();
    log.must(&config("min.insync.replicas", "2"));
    log.must(&drain(1, false));
    // The first is as good as gone.
    let needed = MetaError::Needed {
        node: 2,
        partitions: 1,
        some: vec!["orders-0".to_owned()],
    };
    assert_eq!(log.apply(&drain(2, false)), Err(needed));
    assert!(!log.image.drained.contains(&2));
    assert_eq!(log.partition().leader, Some(2));
    log.must(&drain(2, true));
    assert_eq!(log.partition().leader, Some(3));
    assert_eq!(log.apply(&drain(9, true)), Err(MetaError::UnknownNode(9)));
}

#[test]
fn new_partitions_go_elsewhere_while_others_can_take_them() {
    let mut log = Log::with(3);
    log.must(&drain(2, false));
    let on = |log: &Log, name: &str| {
        let topic = log.image.topic(name).unwrap();
        topic
            .partitions
            .iter()
            .flat_map(|p| p.replicas.clone())
            .collect::<Vec<_>>()
    };
    log.must(&Command::CreateTopic(CreateTopic::new(
        "two",
        TopicId([1; 16]),
        6,
        2,
    )));
    assert!(!on(&log, "two").contains(&2));
    log.must(&Command::CreateTopic(CreateTopic::new(
        "three",
        TopicId([2; 16]),
        1,
        3,
    )));
    assert!(on(&log, "three").contains(&2));
}

#[test]
fn an_overview_counts_what_each_daemon_leads_holds_and_is_needed_for() {
    let mut log = Log::with_topic();
    log.must(&config("min.insync.replicas", "2"));
    log.fence(3);
    let overview = Overview::of(&log.image, Some(1), None);
    let daemons: Vec<_> = overview
        .daemons
        .iter()
        .map(|one| {
            (
                one.id,
                one.state.as_str(),
                one.leaders,
                one.replicas,
                one.out_of_sync,
                one.needed,
            )
        })
        .collect();
    let expected = [
        (1, "active", 1, 1, 0, 1),
        (2, "active", 0, 1, 0, 1),
        (3, "fenced", 0, 1, 1, 0),
    ];
    assert_eq!(daemons, expected);
    assert_eq!((overview.under_replicated, overview.under_min_isr), (1, 0));
    assert!(!overview.is_well());
}
