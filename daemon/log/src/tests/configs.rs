//! Each topic setting that a log obeys does what it says. Those of compaction are tried in `compaction.rs`.

use super::*;
use crate::AppendError;

fn bases(log: &Log) -> Vec<i64> {
    log.lock().segments.iter().map(|s| s.base).collect()
}

#[test]
fn segment_bytes_closes_a_segment_before_it_grows_past_it() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..40 {
        log.append(batch(1, "a value that takes some room"), 0).unwrap();
    }
    let state = log.lock();
    assert!(state.segments.len() > 3);
    assert!(
        state
            .segments
            .iter()
            .all(|s| s.size <= bench.config.segment_bytes)
    );
}

#[test]
fn segment_ms_closes_an_old_segment_at_the_next_append_and_while_idle() {
    let mut bench = Bench::new();
    bench.config.segment_ms = 5_000;
    let log = bench.fresh();
    log.append(batch(1, "x"), 0).unwrap();
    bench.clock.set(1_005_000);
    log.append(batch(1, "x"), 0).unwrap();
    assert_eq!(bases(&log), [0]);
    bench.clock.set(1_005_001);
    log.append(batch(1, "x"), 0).unwrap();
    assert_eq!(bases(&log), [0, 2]);
    bench.clock.set(1_010_002);
    assert!(log.roll_if_due(1_010_002));
    assert_eq!(bases(&log), [0, 2, 3]);
    assert!(!log.roll_if_due(2_000_000), "an empty segment has no age");
}

#[test]
fn segment_jitter_ms_closes_segments_earlier_by_less_than_that_and_not_all_alike() {
    let ages: Vec<i64> = (0..20)
        .map(|_| {
            let mut bench = Bench::new();
            bench.config.segment_ms = 10_000;
            bench.config.segment_jitter_ms = 4_000;
            let log = bench.fresh();
            log.append(batch(1, "x"), 0).unwrap();
            (0..=10_001)
                .find(|age| log.roll_if_due(1_000_000 + age))
                .expect("the segment is closed in time")
        })
        .collect();
    assert!(ages.iter().all(|age| (6_001..=10_001).contains(age)), "{ages:?}");
    assert!(ages.iter().any(|age| *age != ages[0]), "{ages:?}");
}

#[test]
fn segment_index_bytes_closes_a_segment_whose_index_is_full() {
    let mut bench = Bench::new();
    bench.config.segment_bytes = 1 << 20;
    bench.config.index_interval_bytes = 0;
    bench.config.segment_index_bytes = 80;
    let log = bench.fresh();
    for i in 0..100 {
        log.append(timed(1, "x", 1_000), i).unwrap();
    }
    assert!(bases(&log).len() > 5, "{:?}", bases(&log));
    log.close().unwrap();
    for entry in std::fs::read_dir(bench.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "index" || e == "timeindex") {
            assert!(
                std::fs::metadata(&path).unwrap().len() <= 80,
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn index_interval_bytes_spaces_the_entries_of_the_index() {
    let entries = |interval| {
        let mut bench = Bench::new();
        bench.config.segment_bytes = 1 << 20;
        bench.config.index_interval_bytes = interval;
        let log = bench.fresh();
        for _ in 0..100 {
            log.append(batch(1, "a value that takes some room"), 0).unwrap();
        }
        log.close().unwrap();
        std::fs::read(bench.path().join(format!("{:020}.index", 0)))
            .unwrap()
            .len()
            / 8
    };
    assert_eq!(entries(0), 99);
    let (dense, sparse) = (entries(300), entries(3_000));
    assert!(dense > 2 * sparse && sparse > 0, "{dense} {sparse}");
}

#[test]
fn retention_ms_removes_closed_segments_of_old_records() {
    let mut bench = Bench::new();
    bench.config.retention_ms = 10_000;
    let log = bench.fresh();
    for time in [980_000, 995_000] {
        for i in 0..10 {
            log.append(timed(1, &"x".repeat(100), time + i), 0).unwrap();
        }
    }
    assert!(!log.retain(1_000_000, log.end()).is_empty());
    let first = log.offset_for_timestamp(0, i64::MAX).unwrap().unwrap();
    assert!(log.start() <= 10 && log.start() > 0, "{}", log.start());
    assert!(first.offset >= log.start());
    bench.config.retention_ms = -1;
    log.set_config(bench.config);
    assert!(log.retain(i64::MAX, log.end()).is_empty(), "-1 keeps everything");
}

#[test]
fn retention_bytes_removes_the_oldest_segments_beyond_it() {
    let mut bench = Bench::new();
    bench.config.retention_ms = -1;
    bench.config.retention_bytes = 2_500;
    let log = bench.fresh();
    for _ in 0..60 {
        log.append(batch(1, &"x".repeat(100)), 0).unwrap();
    }
    assert!(!log.retain(1_000_000, log.end()).is_empty());
    assert!((2_500..4_000).contains(&log.size_bytes()), "{}", log.size_bytes());
    assert!(log.retain(1_000_000, log.end()).is_empty());
}

#[test]
fn max_message_bytes_refuses_a_larger_batch_of_a_client_only() {
    let mut bench = Bench::new();
    let one = batch(1, "of some size");
    bench.config.max_message_bytes = one.size();
    let log = bench.fresh();
    log.append(one, 0).unwrap();
    let refused = log.append(batch(1, "of some size!"), 0);
    assert!(
        matches!(refused, Err(AppendError::TooLarge { .. })),
        "{refused:?}"
    );
    log.append_at(placed(batch(1, "of some size!"), 1, 0), None)
        .unwrap();
}

#[test]
fn message_timestamp_type_log_append_time_is_what_every_lookup_sees() {
    let mut bench = Bench::without_tail();
    bench.config.timestamp_type = TimestampType::LogAppend;
    let log = bench.fresh();
    for i in 0..20 {
        bench.clock.set(1_000_000 + i * 10);
        // The producer's own times are of no account.
        let appended = log
            .append(timed(2, "a value that takes some room", 5_000 - i), 0)
            .unwrap();
        assert_eq!(appended.log_append_time_ms, 1_000_000 + i * 10);
    }
    for batch in batches(&log.read(0, 1 << 20, i64::MAX).unwrap()) {
        batch.check_crc().unwrap();
        assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppend);
        let time = 1_000_000 + batch.header().base_offset * 5;
        assert_eq!(batch.header().max_timestamp, time);
        let records = batch.records(1_000).unwrap();
        assert!(records.iter().all(|r| r.unwrap().timestamp == time));
    }
    let find = |log: &Log, time| {
        log.offset_for_timestamp(time, i64::MAX)
            .unwrap()
            .map(|m| m.offset)
    };
    let check = |log: &Log| {
        assert_eq!(find(log, 5_000), Some(0));
        assert_eq!(find(log, 1_000_101), Some(22));
        assert_eq!(find(log, 1_000_191), None);
        assert_eq!(log.max_timestamp(i64::MAX).unwrap().unwrap().offset, 38);
    };
    check(&log);
    log.close().unwrap();
    let clean = OpenHint {
        recovery_point: 40,
        clean_shutdown: true,
        ..OpenHint::default()
    };
    check(&bench.open(clean).0);
}

#[test]
fn flush_ms_has_the_age_of_the_oldest_unflushed_record_to_go_by() {
    let bench = Bench::new();
    let log = bench.fresh();
    assert_eq!(log.unflushed_since(), None);
    log.append(batch(1, "x"), 0).unwrap();
    bench.clock.set(1_000_500);
    log.append(batch(1, "x"), 0).unwrap();
    assert_eq!(log.unflushed_since(), Some(1_000_000));
    log.flush().unwrap();
    assert_eq!(log.unflushed_since(), None);
    log.append(batch(1, "x"), 0).unwrap();
    assert_eq!(log.unflushed_since(), Some(1_000_500));
}

#[test]
fn producer_id_expiration_ms_forgets_idle_producers() {
    let mut bench = Bench::new();
    bench.config.producer_expiry_ms = 10_000;
    let log = bench.fresh();
    log.append(sequenced(1, 7, 0, 0), 0).unwrap();
    log.retain(1_010_000, log.end());
    assert!(log.append(sequenced(1, 7, 0, 0), 0).unwrap().duplicate);
    log.retain(1_010_001, log.end());
    assert_eq!(log.producers(), 0);
    let any = log.append(sequenced(1, 7, 0, 12), 0).unwrap();
    assert!(!any.duplicate, "an unknown producer may start anywhere");
}
