//! What a status says, and that it never says too little.

use super::*;
use crate::board::Observed;

fn observation(partitions: &[(i32, i64, i64)]) -> Observation {
    Observation {
        at_ms: 5_000,
        topics: 1,
        partitions: partitions
            .iter()
            .map(|(partition, start, high_watermark)| Observed {
                here: "east.orders".into(),
                partition: *partition,
                start: *start,
                high_watermark: *high_watermark,
                another: false,
            })
            .collect(),
        awaited: vec![],
    }
}

fn report(partitions: &[(i32, i64)]) -> DaemonReport {
    DaemonReport {
        partitions: partitions
            .iter()
            .map(|(partition, high_watermark)| PartitionReport {
                topic: "east.orders".into(),
                id: TopicId([1; 16]),
                partition: *partition,
                high_watermark: *high_watermark,
                source_end: None,
                behind_since_ms: Some(4_000),
                diverged: false,
            })
            .collect(),
        ..DaemonReport::default()
    }
}

fn known(observation: Option<Observation>, reports: Vec<DaemonReport>) -> Known {
    Known {
        observation,
        reports,
        ..Known::default()
    }
}

fn status(known: &Known) -> FlowStatus {
    flow_status("east->west", FlowState::Active, known, 6_000)
}

#[test]
fn lag_is_null_until_the_source_was_seen_whole() {
    let status = status(&known(None, vec![report(&[(0, 10)])]));
    assert_eq!(
        (status.state.as_str(), status.lag_records, status.lag_seconds),
        ("starting", None, None)
    );
    let json = serde_json::to_value(&status).unwrap();
    assert!(json["lag_records"].is_null());
}

#[test]
fn lag_counts_partitions_that_do_not_exist_here_yet() {
    let status = status(&known(
        Some(observation(&[(0, 0, 10), (1, 0, 7)])),
        vec![report(&[(0, 10)])],
    ));
    assert_eq!(status.lag_records, Some(7));
}

#[test]
fn lag_is_summed_over_the_leaders_and_zero_only_when_nothing_is_missing() {
    let reports = vec![report(&[(0, 10)]), report(&[(1, 4)])];
    let behind = status(&known(
        Some(observation(&[(0, 0, 10), (1, 0, 7)])),
        reports.clone(),
    ));
    assert_eq!((behind.lag_records, behind.lag_seconds), (Some(3), Some(2.0)));
    let even = status(&known(Some(observation(&[(0, 0, 10), (1, 0, 4)])), reports));
    assert_eq!(
        (even.lag_records, even.lag_seconds, even.state.as_str()),
        (Some(0), Some(0.0), "active")
    );
}

#[test]
fn what_is_paused_may_be_behind_since_then() {
    let mut reports = vec![report(&[(0, 10)]), report(&[(1, 4)])];
    for partition in reports.iter_mut().flat_map(|report| &mut report.partitions) {
        partition.behind_since_ms = None;
    }
    let mut known = known(Some(observation(&[(0, 0, 10), (1, 0, 7)])), reports);
    assert_eq!(status(&known).lag_seconds, Some(1.0));
    let pause = |topic: Option<&str>, since_ms| Paused {
        topic: topic.map(str::to_owned),
        since_ms,
        reason: String::new(),
    };
    known.paused = vec![pause(Some("east.bills"), 1_000)];
    assert_eq!(status(&known).lag_seconds, Some(1.0), "another topic");
    known.paused.push(pause(Some("east.orders"), 2_000));
    assert_eq!(status(&known).lag_seconds, Some(4.0));
    known.paused.push(pause(None, 1_500));
    assert_eq!(status(&known).lag_seconds, Some(4.5));
}

#[test]
fn records_that_the_source_removed_are_not_lag() {
    let status = status(&known(Some(observation(&[(0, 40, 40)])), vec![report(&[(0, 0)])]));
    assert_eq!(status.lag_records, Some(0));
}

#[test]
fn a_newer_end_heard_by_a_link_counts() {
    let mut heard = report(&[(0, 10)]);
    heard.partitions[0].source_end = Some(12);
    assert_eq!(
        status(&known(Some(observation(&[(0, 0, 10)])), vec![heard])).lag_records,
        Some(2)
    );
}

#[test]
fn a_partition_without_a_leader_counts_from_what_was_last_known() {
    let mut known = known(Some(observation(&[(0, 0, 10)])), vec![]);
    assert_eq!(status(&known).lag_records, Some(10));
    known.last_known.insert(("east.orders".into(), 0), 8);
    assert_eq!(status(&known).lag_records, Some(2));
}

#[test]
fn an_unreachable_source_keeps_the_last_lag_and_its_age() {
    let mut known = known(Some(observation(&[(0, 0, 10)])), vec![report(&[(0, 10)])]);
    known.unreachable = Some("source unreachable: nobody answers".into());
    let status = status(&known);
    assert_eq!(
        (status.state.as_str(), status.lag_records),
        ("source-unreachable", Some(0))
    );
    assert_eq!(status.lag_seconds, Some(1.0));
}

#[test]
fn groups_are_counted_once_per_partition() {
    let position = |partition, status| crate::board::PositionFacts {
        group: "g".into(),
        topic: "east.orders".into(),
        partition,
        offset: 1,
        source_offset: 1,
        status,
    };
    let mut one = report(&[]);
    one.groups.positions = vec![
        position(0, PositionStatus::Exact),
        position(1, PositionStatus::Pending),
    ];
    one.groups.seen = vec!["g".into(), "moving".into()];
    let mut other = one.clone();
    other.groups.done = vec!["g".into()];
    let one_more = other.clone();
    let status = status(&known(Some(observation(&[])), vec![one, other]));
    assert_eq!(status.groups, GroupCounts { exact: 1, total: 2 });
    // What is stored on a diverged partition is no position of the source, however alike the numbers are.
    let mut led = report(&[(0, 9), (1, 9)]);
    led.partitions[0].diverged = true;
    let apart = self::status(&known(Some(observation(&[])), vec![one_more, led]));
    assert_eq!(apart.groups, GroupCounts { exact: 0, total: 2 });
    assert_eq!(
        status.problems.len(),
        1,
        "a group that nobody looked after is said: {:?}",
        status.problems
    );
}

#[test]
fn a_topic_created_again_lags_by_all_of_its_records_however_few() {
    let mut seen = observation(&[(0, 2, 7)]);
    let here = vec![report(&[(0, 50)])];
    assert_eq!(
        status(&known(Some(seen.clone()), here.clone())).lag_records,
        Some(0)
    );
    seen.partitions[0].another = true;
    let status = status(&known(Some(seen), here));
    assert_eq!(status.lag_records, Some(5), "nothing of it is here");
}

#[test]
fn a_group_whose_positions_the_source_keeps_to_itself_is_not_said_to_lack_a_coordinator() {
    let mut report = report(&[]);
    report.groups.seen = vec!["a".into(), "b".into(), "c".into()];
    report.groups.done = vec!["a".into()];
    report.groups.untold = vec![("b".into(), "GROUP_AUTHORIZATION_FAILED".into())];
    let problems = status(&known(Some(observation(&[])), vec![report])).problems;
    let said = |of: &str, word: &str| {
        problems
            .iter()
            .any(|said| said.starts_with(of) && said.contains(word))
    };
    assert_eq!(problems.len(), 2);
    assert!(
        said("group b:", "GROUP_AUTHORIZATION_FAILED") && said("group c ", "no coordinator"),
        "{problems:?}"
    );
}

#[test]
fn an_unreachable_source_is_told_with_its_reason() {
    let mut known = known(Some(observation(&[])), vec![report(&[])]);
    known.unreachable = Some("source unreachable: certificate expired".into());
    let status = status(&known);
    assert_eq!(status.state, "source-unreachable");
    assert_eq!(status.problems, ["source unreachable: certificate expired"]);
}

#[test]
fn a_topic_that_waits_for_the_sources_word_makes_the_flow_degraded_and_not_unreachable() {
    let mut observation = observation(&[(0, 0, 5)]);
    observation.awaited.push("late".into());
    let known = Known {
        observation: Some(observation),
        reports: vec![report(&[(0, 5)])],
        ..Known::default()
    };
    let status = flow_status("east->west", FlowState::Active, &known, 6_000);
    assert_eq!((status.state.as_str(), status.lag_records), ("degraded", Some(0)));
    assert!(status.problems[0].starts_with("late: the source has not said"));
}
