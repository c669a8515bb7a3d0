//! Cutting a log at either end, and what must not be remembered afterwards.

use tradewind_wire::batch::{ControlKind, control_batch};

use super::*;
use crate::{AppendError, TruncateError};

fn transactional(producer: i64, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder
        .append(1_000, None, Some(b"in a transaction"), &[])
        .producer(producer, 0, sequence)
        .transactional();
    Batch::parse(builder.build()).unwrap()
}

fn marker(kind: ControlKind, producer: i64) -> Batch {
    Batch::parse(control_batch(kind, producer, 0, 0, 1_000)).unwrap()
}

#[test]
fn what_was_truncated_is_not_remembered() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..40 {
        log.append(sequenced(1, 4, 0, i), i / 20).unwrap();
    }
    log.truncate_to(15).unwrap();
    assert_eq!((log.end(), log.last_epoch()), (15, Some(0)));
    assert!(log.append(sequenced(1, 4, 0, 14), 3).unwrap().duplicate);
    assert!(matches!(
        log.append(sequenced(1, 4, 0, 16), 3),
        Err(AppendError::Sequence(_))
    ));
    let appended = log.append(sequenced(1, 4, 0, 15), 3).unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (15, false));
    assert_eq!(log.end_offset_for_epoch(1), Some((0, 15)));
}

#[test]
fn a_batch_that_holds_the_offset_goes_whole() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(4, "a"), 0).unwrap();
    log.append(batch(4, "b"), 0).unwrap();
    log.truncate_to(6).unwrap();
    assert_eq!((log.end(), extents(&log)), (4, vec![(0, 4)]));
    assert!(matches!(
        log.truncate_to(-1),
        Err(TruncateError::OutOfRange { .. })
    ));
    log.truncate_to(100).unwrap();
    assert_eq!(log.end(), 4);
}

#[test]
fn the_start_moves_and_whole_segments_below_it_are_deleted() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..60 {
        log.append(batch(1, "a record that takes some room"), 0).unwrap();
    }
    let before = log.size_bytes();
    log.trim_to(41).unwrap();
    assert_eq!((log.start(), log.end()), (41, 60));
    assert!(log.size_bytes() < before / 2);
    assert!(log.read(40, 100, i64::MAX).is_err());
    assert_eq!(
        batches(&log.read(41, 1, i64::MAX).unwrap())[0]
            .header()
            .base_offset,
        41
    );
    assert!(matches!(
        log.trim_to(61),
        Err(TruncateError::OutOfRange { end: 60, .. })
    ));
    log.trim_to(5).unwrap();
    assert_eq!(log.start(), 41, "the start never goes back");
    drop(log);
    let (log, _) = bench.open(OpenHint {
        log_start: 41,
        ..OpenHint::default()
    });
    assert_eq!((log.start(), log.end()), (41, 60));
}

#[test]
fn a_cut_below_everything_that_is_left_starts_over_there() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..60 {
        log.append(batch(1, "a record that takes some room"), 0).unwrap();
    }
    log.trim_to(50).unwrap();
    log.truncate_to(7).unwrap();
    assert_eq!((log.start(), log.end(), log.size_bytes()), (7, 7, 0));
    assert_eq!(log.append(batch(1, "x"), 1).unwrap().base_offset, 7);
}

#[test]
fn a_reset_log_is_empty_where_it_was_told() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..30 {
        log.append(batch(1, "a record that takes some room"), 2).unwrap();
    }
    log.flush().unwrap();
    log.reset_at(1_000).unwrap();
    assert_eq!((log.start(), log.end(), log.flushed_end()), (1_000, 1_000, 1_000));
    assert_eq!((log.last_epoch(), log.size_bytes()), (None, 0));
    log.append_at(placed(batch(2, "x"), 1_000, 7), None).unwrap();
    drop(log);
    let (log, recovered) = bench.open(OpenHint {
        recovery_point: 30,
        log_start: 0,
        clean_shutdown: false,
    });
    assert!(!recovered.damaged);
    assert_eq!((log.start(), log.end()), (1_000, 1_002));
}

#[test]
fn aborted_transactions_are_listed_until_they_are_cut() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(1, "plain"), 0).unwrap();
    log.append(transactional(1, 0), 0).unwrap();
    log.append(transactional(2, 0), 0).unwrap();
    assert_eq!(log.last_stable_offset(3), 1);
    log.append(marker(ControlKind::Abort, 1), 0).unwrap();
    assert_eq!(log.last_stable_offset(4), 2);
    log.append(marker(ControlKind::Commit, 2), 0).unwrap();
    assert_eq!(log.last_stable_offset(5), 5);
    let aborted = log.aborted_transactions(0, 5);
    assert_eq!(
        aborted
            .iter()
            .map(|a| (a.producer_id, a.first_offset, a.last_offset))
            .collect::<Vec<_>>(),
        [(1, 1, 3)]
    );
    assert!(log.aborted_transactions(4, 5).is_empty() && log.aborted_transactions(0, 1).is_empty());

    // A kill and a stop keep them, once each.
    drop(log);
    let log = bench.fresh();
    assert_eq!(log.aborted_transactions(0, 5), aborted);
    log.close().unwrap();
    drop(log);
    let clean = OpenHint {
        recovery_point: 5,
        clean_shutdown: true,
        ..OpenHint::default()
    };
    let log = bench.open(clean).0;
    assert_eq!(log.aborted_transactions(0, 5), aborted);

    log.truncate_to(3).unwrap();
    assert!(log.aborted_transactions(0, 5).is_empty());
    assert_eq!(log.last_stable_offset(3), 1, "both are open again");
}

#[test]
fn an_epoch_in_which_nothing_was_written_is_forgotten_and_those_before_it_stay() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(3, "kept"), 1).unwrap();
    log.assign_epoch(4);
    assert_eq!(log.last_epoch(), Some(4));
    // There is nothing to cut, which is why a cut does not do it.
    log.truncate_to(log.end()).unwrap();
    assert_eq!(log.last_epoch(), Some(4));
    log.forget_empty_epochs();
    assert_eq!(log.last_epoch(), Some(1));
    log.forget_empty_epochs();
    assert_eq!((log.last_epoch(), log.end()), (Some(1), 3));
    log.append(batch(1, "next"), 2).unwrap();
    assert_eq!(log.end_offset_for_epoch(1), Some((1, 3)));
}
