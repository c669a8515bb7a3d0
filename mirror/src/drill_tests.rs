//! What a drill makes of what the leaders found.

use super::*;

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

fn found(offset: i64) -> Found {
    Found {
        offset,
        record: Some(offset),
        batch: Some((offset, offset + 1, 7)),
        problem: None,
    }
}

#[test]
fn a_position_is_exact_only_if_the_very_record_is_next() {
    let exact = facts(40, 40, PositionStatus::Exact);
    let status = |facts: &PositionFacts, found: Option<&Found>, at_source| {
        let judged = judged(facts, found, at_source);
        assert_eq!(judged.status == "failed", judged.problem.is_some(), "{judged:?}");
        judged.status
    };
    assert_eq!(status(&exact, Some(&found(40)), Some(true)), "exact");
    assert_eq!(status(&exact, Some(&found(40)), None), "exact");
    assert_eq!(status(&exact, Some(&found(40)), Some(false)), "failed");
    assert_eq!(status(&exact, None, None), "failed");
    let ahead = facts(50, 60, PositionStatus::Pending);
    assert_eq!(status(&ahead, Some(&found(50)), Some(true)), "cut");
    let own = facts(20, 20, PositionStatus::OwnedHere);
    assert_eq!(status(&own, Some(&found(20)), Some(false)), "owned-here");
    // A failover only finishes positions that are stored.
    let unstored = facts(-1, 40, PositionStatus::Pending);
    assert_eq!(status(&unstored, Some(&found(40)), None), "failed");
    let removed = Found {
        problem: Some("the log begins at 90".into()),
        ..found(40)
    };
    assert_eq!(status(&exact, Some(&removed), None), "failed");
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
