//! What a log does on a good day.

use super::*;
use crate::{AppendError, ReadError, SequenceError};

#[test]
fn offsets_are_given_in_order_and_read_back() {
    for bench in [Bench::new(), Bench::without_tail()] {
        let log = bench.fresh();
        for i in 0..50 {
            let appended = log.append(batch(3, &format!("value {i}")), 4).unwrap();
            assert_eq!((appended.base_offset, appended.last_offset), (i * 3, i * 3 + 2));
        }
        assert_eq!((log.start(), log.end(), log.last_epoch()), (0, 150, Some(4)));
        assert_eq!(
            extents(&log),
            (0..50).map(|i| (i * 3, i * 3 + 3)).collect::<Vec<_>>()
        );
        let middle = log.read(76, 1, i64::MAX).unwrap();
        assert_eq!(
            batches(&middle)[0].header().base_offset,
            75,
            "the batch that holds the offset comes whole"
        );
        assert_eq!(batches(&middle)[0].header().partition_leader_epoch, 4);
    }
}

#[test]
fn reads_stop_at_the_bound_and_refuse_what_is_outside() {
    for bench in [Bench::new(), Bench::without_tail()] {
        let log = bench.fresh();
        for _ in 0..4 {
            log.append(batch(5, "x"), 0).unwrap();
        }
        assert_eq!(log.read(0, 1 << 20, 10).unwrap().next_offset, 10);
        assert_eq!(
            log.read(0, 1 << 20, 14).unwrap().next_offset,
            10,
            "no batch may reach past the bound"
        );
        assert_eq!(log.read(10, 1 << 20, 10).unwrap(), ReadSlice::empty(10));
        assert_eq!(log.read(20, 1 << 20, i64::MAX).unwrap(), ReadSlice::empty(20));
        assert!(matches!(
            log.read(21, 1, i64::MAX),
            Err(ReadError::OutOfRange {
                start: 0,
                end: 20,
                ..
            })
        ));
        assert!(matches!(
            log.read(-1, 1, i64::MAX),
            Err(ReadError::OutOfRange { .. })
        ));
    }
}

#[test]
fn offsets_are_kept_when_they_come_with_the_batch() {
    for bench in [Bench::new(), Bench::without_tail()] {
        let log = bench.fresh();
        let two = [placed(batch(2, "a"), 0, 1), placed(batch(2, "b"), 10, 2)].concat();
        let appended = log.append_at(Bytes::from(two), None).unwrap();
        assert_eq!((appended.base_offset, appended.last_offset), (0, 11));
        assert_eq!(extents(&log), [(0, 2), (10, 12)]);
        assert_eq!(log.end_offset_for_epoch(1), Some((1, 10)));
        // An offset in the gap gives the batch after it.
        assert_eq!(
            batches(&log.read(5, 1, i64::MAX).unwrap())[0]
                .header()
                .base_offset,
            10
        );
        let again = log.append_at(placed(batch(1, "c"), 11, 2), None);
        assert!(matches!(
            again,
            Err(AppendError::OffsetOrder { end: 12, found: 11 })
        ));
        let older = log.append_at(placed(batch(1, "c"), 12, 1), None);
        assert!(matches!(
            older,
            Err(AppendError::StaleEpoch { epoch: 1, last: 2 })
        ));
        // A mirror stamps its own epoch.
        log.append_at(placed(batch(1, "c"), 12, 1), Some(7)).unwrap();
        assert_eq!(log.last_epoch(), Some(7));
    }
}

#[test]
fn nothing_of_a_bad_run_is_appended() {
    let bench = Bench::new();
    let log = bench.fresh();
    let mut damaged = placed(batch(1, "b"), 1, 0).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let run = [&placed(batch(1, "a"), 0, 0)[..], &damaged].concat();
    assert!(matches!(
        log.append_at(Bytes::from(run), None),
        Err(AppendError::Batch(_))
    ));
    let cut = placed(batch(1, "a"), 0, 0);
    assert!(log.append_at(cut.slice(..cut.len() - 1), None).is_err());
    assert_eq!((log.end(), log.size_bytes()), (0, 0));
}

#[test]
fn a_repeat_gets_the_original_offset_and_is_not_written() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(4, "x"), 0).unwrap();
    let first = log.append(sequenced(2, 7, 0, 0), 0).unwrap();
    log.append(sequenced(1, 7, 0, 2), 0).unwrap();
    let again = log.append(sequenced(2, 7, 0, 0), 0).unwrap();
    assert!(again.duplicate && !first.duplicate);
    assert_eq!(
        (again.base_offset, again.last_offset),
        (first.base_offset, first.last_offset)
    );
    assert_eq!(log.end(), 7);
    let gap = log.append(sequenced(1, 7, 0, 9), 0);
    assert!(matches!(
        gap,
        Err(AppendError::Sequence(SequenceError::OutOfOrder {
            expected: 3,
            ..
        }))
    ));
}

#[test]
fn limits_and_epochs_are_kept() {
    let mut bench = Bench::new();
    bench.config.max_message_bytes = 500;
    let log = bench.fresh();
    assert!(matches!(
        log.append(batch(1, &"x".repeat(600)), 0),
        Err(AppendError::TooLarge { limit: 500, .. })
    ));
    log.set_config(LogConfig {
        max_message_bytes: 5_000,
        ..bench.config
    });
    let larger = log.append(batch(1, &"x".repeat(2_000)), 0);
    assert!(matches!(
        larger,
        Err(AppendError::LargerThanSegment { limit: 1_000, .. })
    ));
    log.assign_epoch(3);
    assert!(matches!(
        log.append(batch(1, "x"), 2),
        Err(AppendError::StaleEpoch { epoch: 2, last: 3 })
    ));
    // A follower takes what its leader took.
    log.append_at(placed(batch(1, &"x".repeat(2_000)), 0, 3), None)
        .unwrap();
    assert_eq!(extents(&log), [(0, 1)]);
}

#[test]
fn log_append_time_is_the_brokers() {
    let mut bench = Bench::new();
    bench.config.timestamp_type = TimestampType::LogAppend;
    let log = bench.fresh();
    let first = log.append(sequenced(2, 1, 0, 0), 0).unwrap();
    assert_eq!(first.log_append_time_ms, 1_000_000);
    bench.clock.set(2_000_000);
    let again = log.append(sequenced(2, 1, 0, 0), 0).unwrap();
    assert_eq!((again.duplicate, again.log_append_time_ms), (true, 1_000_000));
    let stored = &batches(&log.read(0, 1, i64::MAX).unwrap())[0];
    stored.check_crc().unwrap();
    assert_eq!(stored.header().timestamp_type(), TimestampType::LogAppend);
    assert_eq!(
        log.offset_for_timestamp(999_999, i64::MAX)
            .unwrap()
            .map(|m| m.offset),
        Some(0)
    );
}

#[test]
fn whole_pages_are_written_back_once() {
    let mut bench = Bench::new();
    bench.config.segment_bytes = 1 << 20;
    let log = bench.fresh();
    for _ in 0..3 {
        log.append(batch(1, &"x".repeat(3000)), 0).unwrap();
    }
    let written = log.size_bytes();
    assert_eq!(log.unwritten_bytes(), written);
    log.write_back();
    assert_eq!(log.unwritten_bytes(), written % 4096, "the last page is not full");
    log.append(batch(1, &"y".repeat(5000)), 0).unwrap();
    log.flush().unwrap();
    assert!(log.unwritten_bytes() < 4096, "a flush writes, too");
    log.truncate_to(1).unwrap();
    let kept = log.size_bytes();
    log.append(batch(1, "z"), 0).unwrap();
    assert!(
        log.unwritten_bytes() >= log.size_bytes() - kept,
        "what is written after a cut is new"
    );
}

#[test]
fn flushing_moves_the_flushed_end_and_closing_refuses_what_follows() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..30 {
        log.append(batch(2, "some bytes to cross segments with"), 0)
            .unwrap();
    }
    assert_eq!((log.flushed_end(), log.unflushed_bytes()), (0, log.size_bytes()));
    log.write_back();
    assert_eq!(
        (log.flushed_end(), log.unflushed_bytes()),
        (0, log.size_bytes()),
        "which is no flush"
    );
    assert_eq!(log.flush().unwrap(), 60);
    assert_eq!((log.flushed_end(), log.unflushed_bytes()), (60, 0));
    log.close().unwrap();
    assert!(matches!(log.append(batch(1, "x"), 0), Err(AppendError::Closed)));
    assert_eq!(extents(&log).len(), 30, "reads go on");
}
