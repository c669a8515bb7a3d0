//! What a track decides, case by case.

use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;

use super::*;
use crate::board::Board;
use crate::problems::partition_problems;

fn track() -> Track {
    let here = PartitionHere {
        name: "east.orders".into(),
        topic: TopicId([1; 16]),
        partition: 0,
    };
    let source = PartitionOf {
        topic: "orders".into(),
        id: TopicId([2; 16]),
        partition: 0,
    };
    Track::new(here, source, "cluster-e", 5)
}

fn log(end: i64) -> LogState {
    LogState {
        leader_epoch: 9,
        start: 0,
        deleted: 0,
        end,
        high_watermark: end,
    }
}

fn entry(target_first: i64, epoch: i32) -> Lineage {
    Lineage {
        target_first,
        source_cluster_id: "cluster-e".into(),
        source_topic_id: TopicId([2; 16]),
        source_epoch: epoch,
        source_first: target_first,
    }
}

fn batch(base: i64, count: i32, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder.base_offset(base).leader_epoch(epoch);
    for _ in 0..count {
        builder.append(1, None, Some(b"x"), &[]);
    }
    builder.build()
}

fn records(start: i64, high_watermark: i64, parts: &[Bytes]) -> Fetched {
    Fetched::Records {
        ends: SourceEnds {
            start,
            high_watermark,
        },
        bytes: parts.concat().into(),
    }
}

fn write_all(track: &mut Track, writes: VecDeque<Write>) {
    for write in writes {
        track.on_written(&write, write.next, 0);
    }
}

#[test]
fn an_empty_partition_reads_from_the_start_and_enters_each_source_epoch_once() {
    let mut track = track();
    assert_eq!(track.step(0), Step::Begin);
    track.begin(log(0), &[], 0);
    assert_eq!(track.step(0), Step::Fetch { from: 0 });
    let writes = track.on_fetched(
        records(0, 7, &[batch(0, 3, 4), batch(3, 2, 4), batch(5, 2, 5)]),
        0,
    );
    let shape: Vec<_> = writes
        .iter()
        .map(|write| {
            (
                write.previous_end,
                write.next,
                write.lineage.as_ref().map(|l| (l.target_first, l.source_epoch)),
            )
        })
        .collect();
    assert_eq!(shape, [(0, 5, Some((0, 4))), (5, 7, Some((5, 5)))]);
    write_all(&mut track, writes);
    assert_eq!(track.caught_up_ms(), Some(0));
    let more = track.on_fetched(records(0, 8, &[batch(7, 1, 5)]), 1);
    assert_eq!(more[0].lineage, None);
}

#[test]
fn after_a_restart_the_source_must_confirm_our_last_epoch() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 3), entry(6, 4), entry(10, 5)], 0);
    // The entry at the end belongs to a batch that never came.
    assert_eq!(track.step(0), Step::Check { epoch: 4 });
    track.on_epoch_end(EpochEnd { epoch: 4, end: 10 }, 0);
    assert_eq!(track.step(0), Step::Fetch { from: 10 });
    let newer = || records(0, 12, &[batch(10, 1, 5), batch(11, 1, 6)]);
    assert!(
        track.on_fetched(newer(), 0).is_empty(),
        "another epoch follows ours"
    );
    assert_eq!(track.step(0), Step::Check { epoch: 4 });
    track.on_epoch_end(EpochEnd { epoch: 4, end: 10 }, 0);
    let writes = track.on_fetched(newer(), 0);
    assert_eq!(writes[0].lineage, None, "it is not entered twice");
    assert_eq!(
        writes[1].lineage.as_ref().map(|entry| entry.source_epoch),
        Some(6)
    );
}

#[test]
fn an_epoch_that_ended_below_our_end_is_diverged() {
    for answer in [
        EpochEnd { epoch: 4, end: 9 },
        EpochEnd { epoch: 3, end: 20 },
        EpochEnd { epoch: -1, end: -1 },
    ] {
        let mut track = track();
        track.begin(log(10), &[entry(0, 4)], 0);
        track.on_epoch_end(answer, 0);
        assert_eq!(track.health().0, Health::Diverged, "{answer:?}");
        assert_eq!(track.step(RECHECK_MS - 1), Step::Wait { until_ms: RECHECK_MS });
        assert_eq!(track.step(RECHECK_MS), Step::Begin);
    }
}

#[test]
fn a_lower_end_in_the_same_epoch_only_means_wait() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 5)], 0);
    track.on_epoch_end(EpochEnd { epoch: 5, end: 8 }, 0);
    assert_eq!(track.health().0, Health::Retrying);
    assert_eq!(track.step(RETRY_MS), Step::Begin);
}

#[test]
fn retention_that_overtook_the_mirror_is_a_recorded_gap() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 5)], 0);
    track.on_epoch_end(EpochEnd { epoch: 5, end: 90 }, 0);
    assert!(track.on_fetched(Fetched::OutOfRange, 0).is_empty());
    assert_eq!(track.step(0), Step::Range);
    track.on_range(
        SourceEnds {
            start: 40,
            high_watermark: 90,
        },
        0,
    );
    assert_eq!(track.step(0), Step::Fetch { from: 40 });
    let writes = track.on_fetched(records(40, 90, &[batch(40, 2, 5)]), 0);
    assert_eq!(writes[0].previous_end, 10);
    let lineage = writes[0].lineage.as_ref().unwrap();
    assert_eq!((lineage.target_first, lineage.source_first), (10, 40));
    assert_eq!(track.gap(), Some(Gap { from: 10, to: 40 }));

    // Found again after a restart.
    let mut again = self::track();
    again.begin(log(42), &[entry(0, 5), lineage.clone()], 0);
    assert_eq!(again.gap(), Some(Gap { from: 10, to: 40 }));
}

#[test]
fn a_mirror_that_begins_on_an_old_topic_has_no_gap() {
    let mut track = track();
    track.begin(log(0), &[], 0);
    track.on_fetched(Fetched::OutOfRange, 0);
    track.on_range(
        SourceEnds {
            start: 40,
            high_watermark: 90,
        },
        0,
    );
    assert_eq!(track.step(0), Step::Fetch { from: 40 });
    assert_eq!(track.gap(), None);
}

#[test]
fn a_partition_of_which_the_source_keeps_nothing_is_well() {
    for (end, entries) in [(0, vec![]), (10, vec![entry(0, 5)])] {
        let mut track = track();
        track.begin(log(end), &entries, 0);
        if end > 0 {
            track.on_epoch_end(EpochEnd { epoch: 5, end: 500 }, 0);
        }
        track.on_fetched(Fetched::OutOfRange, 0);
        let ends = SourceEnds {
            start: 500,
            high_watermark: 500,
        };
        track.on_range(ends, 0);
        track.retry("the stream ended".to_owned(), 0);
        track.begin(log(end), &entries, 0);
        if end > 0 {
            track.on_epoch_end(EpochEnd { epoch: 5, end: 500 }, 0);
        }
        track.on_fetched(Fetched::OutOfRange, 0);
        track.on_range(ends, 0);
        assert_eq!(track.step(0), Step::Fetch { from: 500 });
        assert!(track.on_fetched(records(500, 500, &[]), 0).is_empty());
        assert_eq!(track.health().0, Health::Active, "our end is {end}");
    }
}

#[test]
fn a_partition_that_waits_for_its_turn_is_well_unless_its_writes_are_refused() {
    let mut track = track();
    track.begin(log(0), &[], 0);
    track.retry("the stream ended".to_owned(), 0);
    track.begin(log(0), &[], 0);
    track.on_fetched(records(0, 90, &[]), 0);
    assert_eq!(track.health().0, Health::Active);
    let _ = track.on_fetched(records(0, 90, &[batch(0, 2, 5)]), 0);
    track.on_write_failed(&LogError::NotEnoughReplicas, 0);
    track.begin(log(0), &[], 0);
    track.on_fetched(records(0, 90, &[]), 0);
    assert_eq!(track.health().0, Health::Retrying);
    let writes = track.on_fetched(records(0, 90, &[batch(0, 2, 5)]), 0);
    write_all(&mut track, writes);
    assert_eq!(track.health().0, Health::Active);
}

#[test]
fn a_refused_write_begins_again_from_the_log() {
    let mut track = track();
    track.begin(log(0), &[], 0);
    let _ = track.on_fetched(records(0, 7, &[batch(0, 3, 4)]), 0);
    track.on_write_failed(&LogError::OtherEnd { end: 3 }, 0);
    assert_eq!(track.step(RETRY_MS), Step::Begin);
    track.on_write_failed(&LogError::BadBatches("crc".into()), 0);
    assert_eq!(track.health().0, Health::Failed);
}

#[test]
fn records_of_another_cluster_or_of_nobody_are_not_written_over() {
    let mut track = track();
    let mut other = entry(0, 4);
    other.source_cluster_id = "cluster-x".into();
    track.begin(log(10), &[other], 0);
    assert_eq!(track.health().0, Health::Diverged);
    track.begin(log(10), &[], 0);
    assert_eq!(track.health().0, Health::Failed);
}

#[test]
fn a_barred_track_waits_until_it_is_allowed_again() {
    let mut track = track();
    track.bar(Some("created again"), 0);
    assert!(matches!(track.step(RECHECK_MS * 2), Step::Wait { .. }));
    assert_eq!(track.health(), (Health::Failed, Some("created again")));
    track.bar(None, 0);
    assert_eq!(track.step(0), Step::Begin);
    track.begin(log(0), &[], 0);
    track.bar(None, 0);
    assert_eq!(track.step(0), Step::Fetch { from: 0 });
}

#[test]
fn an_old_record_format_halts_with_its_offset() {
    let mut track = track();
    track.begin(log(0), &[], 0);
    let mut old = batch(0, 1, 1).to_vec();
    old[16] = 0;
    assert!(track.on_fetched(records(0, 1, &[old.into()]), 0).is_empty());
    assert_eq!(
        track.health(),
        (Health::Failed, Some("old record format at offset 0"))
    );
}

#[test]
fn what_was_deleted_at_the_source_is_deleted_here_after_a_match_and_is_no_gap() {
    let mut track = track();
    track.begin(log(40), &[entry(0, 5)], 0);
    let stands = |start| SourceEnds {
        start,
        high_watermark: 60,
    };
    // A source that cannot compare histories deletes nothing here.
    track.on_deleted(Some(15), stands(20));
    assert_eq!(track.to_delete(), None);
    track.on_match();
    assert_eq!(track.to_delete(), Some(15), "the rest was retention's");
    track.on_deleted(Some(500), stands(30));
    assert_eq!(track.to_delete(), Some(30), "what the source still has");
    track.on_deleted_here(22);
    assert_eq!(track.to_delete(), Some(30), "the watermark was at 22");
    track.retry("the source is away".to_owned(), 0);
    assert_eq!(track.to_delete(), None, "not in a wait, which it would prolong");
    track.begin(log(40), &[entry(0, 5)], 1_000);
    track.on_match();
    track.on_deleted_here(30);
    assert_eq!(track.to_delete(), None);
    track.on_deleted(Some(45), stands(45));
    assert_eq!(track.to_delete(), Some(40), "there is no more here");
    track.on_deleted_here(40);
    assert_eq!(track.to_delete(), None, "and nothing to ask for again");

    // Deleted before it could be copied: nothing was missed. A part of it was removed by retention.
    track.on_deleted(Some(50), stands(55));
    track.on_range(stands(55), 0);
    assert_eq!(track.gap(), Some(Gap { from: 50, to: 55 }));
    track.on_deleted(Some(55), stands(55));
    assert_eq!(track.gap(), None);
    let mut again = self::track();
    let gap = Lineage {
        source_first: 55,
        ..entry(40, 5)
    };
    let known = LogState {
        start: 55,
        deleted: 55,
        ..log(60)
    };
    again.begin(known, &[entry(0, 5), gap], 0);
    assert_eq!(again.gap(), None, "also after a restart");
}

/// An unclean election while the mirror reads: the new leader lacks offsets 7 to 9, and is past 10 again before it is read.
#[test]
fn an_unclean_election_that_has_grown_past_our_end_again_is_diverged_and_nothing_is_written() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 5)], 0);
    track.on_epoch_end(EpochEnd { epoch: 5, end: 10 }, 0);
    let writes = track.on_fetched(records(0, 11, &[batch(10, 1, 5)]), 0);
    write_all(&mut track, writes);
    let regrown = || records(0, 14, &[batch(11, 3, 6)]);
    for metadata in [5, 6] {
        // Whether the source's metadata say so yet or not.
        let mut fork = self::track();
        fork.on_source_epoch(metadata);
        fork.begin(log(11), &[entry(0, 5)], 0);
        fork.on_epoch_end(EpochEnd { epoch: 5, end: 11 }, 0);
        assert!(fork.on_fetched(regrown(), 0).is_empty());
        assert_eq!(fork.step(0), Step::Check { epoch: 5 });
        fork.on_epoch_end(EpochEnd { epoch: 5, end: 7 }, 0);
        let (health, reason) = fork.health();
        assert_eq!(health, Health::Diverged);
        assert!(reason.unwrap().contains("ends at 7 there"), "{reason:?}");
    }
    // A clean one goes on.
    assert!(track.on_fetched(regrown(), 0).is_empty());
    assert_eq!(track.step(0), Step::Check { epoch: 5 });
    track.on_epoch_end(EpochEnd { epoch: 5, end: 11 }, 0);
    assert_eq!(track.step(0), Step::Fetch { from: 11 });
    let writes = track.on_fetched(regrown(), 0);
    assert_eq!(writes.len(), 1);
    write_all(&mut track, writes);
    let writes = track.on_fetched(records(0, 16, &[batch(14, 1, 6), batch(15, 1, 7)]), 0);
    assert_eq!(writes.len(), 2, "within one answer histories are one leader's");
}

/// A clean election: the leader that was compared with has begun an epoch, and its first batch comes.
#[test]
fn a_leader_that_has_confirmed_its_epoch_is_asked_once_for_each_election() {
    let under = |leader_epoch| {
        let mut track = track();
        track.begin(log(10), &[entry(0, 5)], 0);
        let end = EpochEnd { epoch: 5, end: 10 };
        track.on_compared(Compared { end, leader_epoch }, 0);
        let first = track.on_fetched(records(0, 12, &[batch(10, 1, 6)]), 0);
        (track, first)
    };
    let (mut track, writes) = under(6);
    assert_eq!(writes.len(), 1, "epoch 6 is the one that it leads under");
    write_all(&mut track, writes);
    assert!(track.on_fetched(records(0, 12, &[batch(11, 1, 7)]), 0).is_empty());
    assert_eq!(track.step(0), Step::Check { epoch: 6 }, "somebody else leads");
    for before in [-1, 5] {
        let (track, writes) = under(before);
        assert!(writes.is_empty());
        assert_eq!(track.step(0), Step::Check { epoch: 5 });
    }
}

#[test]
fn a_source_that_compared_histories_itself_is_not_asked_again() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 5)], 0);
    track.on_match();
    assert_eq!(track.on_fetched(records(0, 11, &[batch(10, 1, 6)]), 0).len(), 1);
}

#[test]
fn records_above_the_sources_own_watermark_wait_and_are_told_when_they_stay_there() {
    let mut track = track();
    track.begin(log(0), &[], 0);
    let writes = track.on_fetched(records(0, 3, &[batch(0, 3, 5), batch(3, 2, 5)]), 0);
    assert_eq!((writes.len(), writes[0].next), (1, 3));
    write_all(&mut track, writes);
    for _ in 1..ABOVE_AT_MOST {
        assert!(track.on_fetched(records(0, 3, &[batch(3, 2, 5)]), 0).is_empty());
        assert_eq!(
            track.step(0),
            Step::Fetch { from: 3 },
            "Kafka tells of one too few at times"
        );
    }
    assert!(track.on_fetched(records(0, 3, &[batch(3, 2, 5)]), 0).is_empty());
    assert_eq!(track.health().0, Health::Retrying);
    track.begin(log(3), &[entry(0, 5)], RETRY_MS);
    track.on_epoch_end(EpochEnd { epoch: 5, end: 3 }, RETRY_MS);
    let writes = track.on_fetched(records(0, 5, &[batch(3, 2, 5)]), RETRY_MS);
    assert_eq!(writes.len(), 1);
    assert_eq!(track.health().0, Health::Retrying, "nothing is written yet");
    write_all(&mut track, writes);
    assert_eq!(track.health(), (Health::Active, None));
}

#[test]
fn impossible_ends_and_a_full_disk_are_told_and_move_nothing() {
    let mut track = track();
    track.begin(log(10), &[entry(0, 5)], 0);
    track.on_epoch_end(EpochEnd { epoch: 5, end: 90 }, 0);
    track.on_fetched(Fetched::OutOfRange, 0);
    let ends = SourceEnds {
        start: 80,
        high_watermark: 60,
    };
    track.on_range(ends, 0);
    assert_eq!((track.health().0, track.gap()), (Health::Retrying, None));
    track.on_write_failed(&LogError::Full, 0);
    let (health, reason) = track.health();
    assert_eq!(health, Health::Failed);
    assert!(reason.unwrap().contains("node.disk_reserve"), "{reason:?}");
}

/// A deletion that was written and cleaned away while the mirror did not read is not in what the source still has.
#[test]
fn holes_in_a_compacted_topic_after_a_long_absence_are_a_recorded_gap() {
    let kept = Tombstones {
        kept_ms: 1_000,
        written_ms: Some(100),
    };
    let read = |end, parts: &[Bytes], tombstones, now_ms| {
        let mut track = track();
        let lineage = [entry(0, 5)];
        track.begin(log(end), if end > 0 { &lineage[..] } else { &[] }, now_ms);
        track.on_tombstones(tombstones, now_ms);
        track.on_epoch_end(EpochEnd { epoch: 5, end: 20 }, now_ms);
        let writes = track.on_fetched(records(0, 20, parts), now_ms);
        let gap = writes[0]
            .lineage
            .clone()
            .filter(|entry| entry.source_first > entry.target_first);
        assert_eq!(gap.is_some(), track.gap().is_some());
        (track, gap.map(|gap| (gap.target_first, gap.source_first)))
    };
    let holes = [batch(14, 2, 5), batch(16, 4, 5)];
    assert_eq!(
        read(10, &holes, Some(kept), 1_100).1,
        None,
        "not away for so long"
    );
    let (mut track, gap) = read(10, &holes, Some(kept), 1_101);
    assert_eq!(gap, Some((10, 14)));
    assert_eq!(track.gap(), Some(Gap { from: 10, to: 14 }));
    assert_eq!(read(10, &holes, None, 1_101).1, None, "not compacted");
    assert_eq!(read(0, &holes, Some(kept), 9_999).1, None, "a mirror that begins");
    let whole = [batch(10, 6, 5), batch(16, 4, 5)];
    assert_eq!(read(10, &whole, Some(kept), 1_101).1, None, "nothing is missing");
    let inside = [batch(10, 6, 5), batch(18, 2, 5)];
    assert_eq!(read(10, &inside, Some(kept), 1_101).1, Some((10, 18)));

    // Told once; and not while it keeps up.
    let writes = [Write {
        epoch: 5,
        lineage: None,
        previous_end: 10,
        next: 16,
        bytes: Bytes::new(),
    }];
    write_all(&mut track, writes.into());
    track.on_written(
        &Write {
            epoch: 5,
            lineage: None,
            previous_end: 16,
            next: 20,
            bytes: Bytes::new(),
        },
        20,
        1_200,
    );
    let writes = track.on_fetched(records(0, 30, &[batch(25, 5, 5)]), 2_100);
    assert_eq!(writes[0].lineage, None);
}

/// What was told of an absence years ago says nothing of this one.
#[test]
fn each_absence_is_told_whatever_gaps_there_were_before() {
    let kept = Tombstones {
        kept_ms: 1_000,
        written_ms: Some(100),
    };
    let mut track = track();
    let old = Lineage {
        target_first: 4,
        source_first: 8,
        ..entry(4, 5)
    };
    track.begin(log(20), &[entry(0, 5), old.clone()], 200);
    track.on_tombstones(Some(kept), 200);
    track.on_match();
    // It is away for no time, writes, and knows of more that it has not got yet.
    let writes = track.on_fetched(records(0, 40, &[batch(20, 5, 5)]), 300);
    assert_eq!(writes[0].lineage, None);
    write_all(&mut track, writes);
    // Then the source is away for long.
    track.begin(log(25), &[entry(0, 5), old], 9_000);
    track.on_match();
    let writes = track.on_fetched(records(0, 40, &[batch(30, 10, 5)]), 9_000);
    let gap = writes[0].lineage.as_ref().unwrap();
    assert_eq!((gap.target_first, gap.source_first), (25, 30));
    write_all(&mut track, writes);
    // All is here: whatever is missing after the next absence is told again.
    track.begin(log(40), &[entry(0, 5), gap_of(25, 30)], 99_000);
    track.on_match();
    let writes = track.on_fetched(records(0, 60, &[batch(50, 10, 5)]), 99_000);
    assert!(writes[0].lineage.is_some());
}

fn gap_of(target_first: i64, source_first: i64) -> Lineage {
    Lineage {
        source_first,
        ..entry(target_first, 5)
    }
}

/// Each try goes well until its write: what is told of it must not begin anew with each answer of the source.
#[test]
fn a_write_that_is_refused_again_and_again_is_told_over_both_kinds_of_links() {
    for pushed in [false, true] {
        let (mut track, board) = (track(), Board::default());
        let mut now_ms = 0;
        while now_ms < 11_000 {
            track.begin(log(10), &[entry(0, 5)], now_ms);
            if pushed {
                track.on_match();
                let ends = SourceEnds {
                    start: 0,
                    high_watermark: 12,
                };
                track.on_ends(ends, now_ms);
            } else {
                track.on_epoch_end(EpochEnd { epoch: 5, end: 10 }, now_ms);
            }
            board.set_partition(&track, now_ms);
            assert_eq!(
                track.on_fetched(records(0, 12, &[batch(10, 2, 5)]), now_ms).len(),
                1
            );
            board.set_partition(&track, now_ms);
            track.on_write_failed(&LogError::NotEnoughReplicas, now_ms);
            board.set_partition(&track, now_ms);
            now_ms += RETRY_MS;
        }
        let problems = partition_problems(&board, now_ms);
        let told = "east.orders/0 has tried again for 11 s: not enough in-sync replicas";
        assert_eq!(problems, [told], "pushed: {pushed}");
        track.begin(log(10), &[entry(0, 5)], now_ms);
        track.on_match();
        let writes = track.on_fetched(records(0, 12, &[batch(10, 2, 5)]), now_ms);
        write_all(&mut track, writes);
        board.set_partition(&track, now_ms);
        assert_eq!(partition_problems(&board, now_ms), [""; 0]);
    }
}

#[test]
fn only_what_was_compared_since_its_log_was_looked_at_counts_as_the_sources() {
    let mut track = track();
    assert!(!track.is_compared());
    track.begin(log(10), &[entry(0, 5)], 0);
    assert!(!track.is_compared());
    track.on_epoch_end(EpochEnd { epoch: 5, end: 10 }, 0);
    assert!(track.is_compared());
    // A newer epoch behind ours: the source's leader may be another one, which lacks some of ours.
    assert!(track.on_fetched(records(0, 11, &[batch(10, 1, 6)]), 0).is_empty());
    assert!(!track.is_compared());
    track.on_epoch_end(EpochEnd { epoch: 5, end: 7 }, 0);
    assert!(!track.is_compared() && track.health().0 == Health::Diverged);
    track.begin(log(10), &[entry(0, 5)], RECHECK_MS);
    track.on_match();
    assert!(!track.is_compared(), "it is diverged until it does well again");
    track.on_ends(
        SourceEnds {
            start: 0,
            high_watermark: 10,
        },
        RECHECK_MS,
    );
    assert!(track.is_compared());
    track.begin(log(0), &[], 0);
    assert!(track.is_compared(), "there is nothing to compare");
}

/// The metadata log refuses an entry that begins at the source below the one before (`apply/flows.rs`), and such a refusal is
/// final.
#[test]
fn a_hole_behind_a_change_of_epoch_leaves_entries_that_follow_each_other() {
    let kept = Tombstones {
        kept_ms: 1_000,
        written_ms: Some(100),
    };
    let starts = |writes: &VecDeque<Write>| -> Vec<_> {
        let entries = writes.iter().filter_map(|write| write.lineage.as_ref());
        entries
            .map(|entry| (entry.source_epoch, entry.target_first, entry.source_first))
            .collect()
    };
    let read = |track: &mut Track, lineage: &[Lineage], parts: &[Bytes]| {
        track.begin(log(10), lineage, 2_000);
        track.on_tombstones(Some(kept), 2_000);
        track.on_epoch_end(EpochEnd { epoch: 5, end: 15 }, 2_000);
        let writes = track.on_fetched(records(0, 30, parts), 2_000);
        if !writes.is_empty() {
            return writes;
        }
        // Another epoch behind ours is compared first.
        track.on_epoch_end(EpochEnd { epoch: 5, end: 15 }, 2_000);
        track.on_fetched(records(0, 30, parts), 2_000)
    };
    let mut track = track();
    let two = [batch(10, 5, 5), batch(15, 2, 6), batch(20, 4, 6)];
    let writes = read(&mut track, &[entry(0, 5)], &two);
    assert_eq!(starts(&writes), [(5, 10, 20), (6, 15, 20)]);

    // The entry is there, its records are not; by now another leader of the source has them, and fewer holes.
    let gap = Lineage {
        target_first: 10,
        source_first: 20,
        ..entry(0, 5)
    };
    let whole = [batch(10, 8, 6), batch(18, 2, 7)];
    let writes = read(&mut track, &[entry(0, 5), gap], &whole);
    assert_eq!(starts(&writes), [(6, 10, 20), (7, 18, 20)]);
}
