//! What a drill makes of what the leaders found.

use super::*;
use crate::drill_report::DrillLine;
use crate::target::FlowMark;

const FLOW: &str = "east->west";

fn facts(offset: i64, source_offset: i64, status: PositionStatus) -> PositionFacts {
    PositionFacts {
        group: "billing".into(),
        topic: "east.orders".into(),
        partition: 0,
        offset,
        source_offset,
        status,
    }
}

fn stored(offset: i64, source_offset: Option<i64>) -> StoredPosition {
    StoredPosition {
        topic: "east.orders".into(),
        partition: 0,
        offset,
        metadata: String::new(),
        mark: source_offset.map(|source_offset| FlowMark {
            flow: FLOW.into(),
            source_offset,
            source_version: 7,
        }),
    }
}

fn standing(facts: PositionFacts, stored: Option<StoredPosition>) -> Standing {
    Standing {
        group: "billing".into(),
        facts: Some(facts),
        stored,
    }
}

/// A partition that would have been cut at 50, in which the record is found that the position wants, or the cut.
fn rehearsed(standing: &Standing, at_source: Option<bool>) -> PartitionRehearsed {
    let offset = standing.at().min(50);
    let mut rehearsed = answer(50, None, 1).unwrap();
    rehearsed.found.positions = vec![Found {
        offset,
        record: Some(offset),
        batch: Some((offset, offset + 1, 7)),
        problem: None,
    }];
    rehearsed.at_source = vec![at_source];
    rehearsed
}

fn judge(standing: &Standing, rehearsed: Option<&PartitionRehearsed>) -> (String, i64) {
    let judged = judged(
        FLOW,
        &planned(1, true),
        standing,
        rehearsed.map(|found| (found, 0)),
    );
    assert_eq!(judged.status == "failed", judged.problem.is_some(), "{judged:?}");
    (judged.status, judged.offset)
}

#[test]
fn a_position_is_exact_only_if_the_very_record_is_next() {
    let status = |standing: &Standing, at_source| judge(standing, Some(&rehearsed(standing, at_source)));
    let exact = standing(facts(40, 40, PositionStatus::Exact), Some(stored(40, Some(40))));
    assert_eq!(status(&exact, Some(true)), ("exact".into(), 40));
    assert_eq!(status(&exact, None), ("exact".into(), 40));
    assert_eq!(status(&exact, Some(false)).0, "failed");
    assert_eq!(judge(&exact, None).0, "failed");
    let ahead = standing(facts(48, 60, PositionStatus::Pending), Some(stored(48, Some(60))));
    assert_eq!(status(&ahead, Some(true)), ("cut".into(), 50));
    let own = standing(facts(20, 20, PositionStatus::OwnedHere), Some(stored(20, None)));
    assert_eq!(status(&own, Some(false)), ("owned-here".into(), 20));
    let alone = standing(facts(20, 20, PositionStatus::OwnedHere), None);
    assert_eq!(status(&alone, None), ("owned-here".into(), 20));
    // A failover only finishes positions that are stored.
    let unstored = standing(facts(-1, 40, PositionStatus::Pending), None);
    assert_eq!(status(&unstored, None).0, "failed");
    let mut removed = rehearsed(&exact, None);
    removed.found.positions[0].problem = Some("the log begins at 90".into());
    assert_eq!(judge(&exact, Some(&removed)).0, "failed");
}

#[test]
fn what_a_failover_would_make_of_a_position_is_judged_by_what_is_stored() {
    // The topic was created again at the source: its 40 is nobody's 40 here, and a failover would leave the group at 900.
    let again = standing(
        facts(900, 40, PositionStatus::Unmapped),
        Some(stored(900, Some(900))),
    );
    assert_eq!(judge(&again, Some(&rehearsed(&again, None))).0, "failed");
    // The write of 45 was refused: a failover knows of 30.
    let refused = standing(facts(45, 45, PositionStatus::Pending), Some(stored(30, Some(30))));
    assert_eq!(
        judge(&refused, Some(&rehearsed(&refused, Some(true)))),
        ("pending".into(), 30)
    );
    // The group has gone on since the pass.
    let later = standing(facts(40, 40, PositionStatus::Exact), Some(stored(45, Some(45))));
    assert_eq!(
        judge(&later, Some(&rehearsed(&later, Some(true)))),
        ("exact".into(), 45)
    );
    let mut diverged = rehearsed(&later, None);
    diverged.diverged = Some("its epoch 3 ends at 20 there".into());
    assert_eq!(judge(&later, Some(&diverged)).0, "failed");
    // The source has forgotten the group; a failover has not.
    let forgotten = Standing { facts: None, ..later };
    assert_eq!(
        judge(&forgotten, Some(&rehearsed(&forgotten, None))),
        ("exact".into(), 45)
    );
}

#[test]
fn a_drill_runs_as_long_as_the_metadata_log_lets_no_other_begin() {
    let note = DrillNote {
        id: TopicId::default(),
        node: 1,
        begun_ms: 1_000,
        index: 10,
        end: None,
    };
    let verdict = |session, now_ms| DrillLine::of(&note, session, now_ms).verdict;
    assert_eq!(verdict(Some(9), 2_000), "running");
    assert_eq!(
        verdict(Some(11), 2_000),
        "cut-short",
        "its daemon has started again"
    );
    assert_eq!(verdict(None, 2_000), "cut-short", "its daemon is fenced");
    assert_eq!(verdict(Some(9), 1_000 + MAX_DRILL_MS), "cut-short");
}

fn planned(leader: NodeId, counts: bool) -> Planned {
    Planned {
        topic: "east.orders".into(),
        id: TopicId::default(),
        partition: 0,
        counts,
        leader: Some(leader),
        positions: Vec::new(),
    }
}

fn answer(cut: i64, source_end: Option<i64>, micros: u64) -> Answered {
    let step = |step: &str| tradewind_wire::drill::Timed {
        step: step.to_owned(),
        micros,
    };
    Ok(PartitionRehearsed {
        found: Rehearsed {
            cut,
            steps: vec![step("branch"), step("canary"), step("checksum")],
            ..Rehearsed::default()
        },
        source_end,
        behind_since_ms: Some(7_000),
        at_source: Vec::new(),
        diverged: None,
    })
}

fn status(state: &str) -> FlowStatus {
    serde_json::from_value(serde_json::json!({
        "flow": "east->west", "state": state, "lag_records": 0, "lag_seconds": 3.0, "topics": 1,
        "groups": { "exact": 0, "total": 0 },
    }))
    .unwrap()
}

#[test]
fn what_would_be_lost_is_what_the_source_was_known_to_have_above_the_cuts() {
    let plan = [planned(1, true), planned(2, true), planned(1, false)];
    let of = |state: &str, answers: &[Answered]| {
        let rpo = rpo(&status(state), &plan, answers, 10_000);
        (rpo.records, rpo.seconds)
    };
    // Heartbeats are nobody's data.
    let none = [
        answer(5, Some(5), 1),
        answer(9, Some(8), 1),
        answer(1, Some(4), 1),
    ];
    assert_eq!(of("active", &none), (Some(0), Some(0.0)));
    let some = [answer(5, Some(9), 1), answer(9, Some(9), 1), answer(1, None, 1)];
    assert_eq!(of("active", &some), (Some(4), Some(3.0)));
    let unseen = [answer(5, None, 1), answer(9, Some(9), 1), answer(1, None, 1)];
    assert_eq!(of("active", &unseen), (None, Some(3.0)));
    assert_eq!(of("source-unreachable", &none), (Some(0), Some(3.0)));
}

#[test]
fn leaders_work_side_by_side_and_each_on_one_partition_at_a_time() {
    let plan = [planned(1, true), planned(2, true), planned(1, true)];
    let answers = [
        answer(1, None, 1_000),
        answer(1, None, 1_500),
        answer(1, None, 2_000),
    ];
    assert_eq!(slowest(&plan, &answers), 6.0);
    let failed = [answer(1, None, 1_000), answer(1, None, 1_500), Err("gone".into())];
    assert_eq!(slowest(&plan, &failed), 3.0);
}
