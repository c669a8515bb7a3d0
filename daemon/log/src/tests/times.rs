//! Finding by time, and forgetting by time and size.

use super::*;
use crate::TimeMatch;

#[test]
fn the_exact_record_is_found_inside_its_batch_for_every_codec() {
    for codec in Codec::ALL {
        let bench = Bench::without_tail();
        let log = bench.fresh();
        for i in 0..20i64 {
            let mut builder = BatchBuilder::new(codec, TimestampType::Create);
            for j in 0..3 {
                builder.append(
                    i * 30 + j * 10,
                    None,
                    Some(b"some value that fills the segment"),
                    &[],
                );
            }
            log.append(Batch::parse(builder.build()).unwrap(), 6).unwrap();
        }
        for offset in 0..60 {
            let expected = TimeMatch {
                offset,
                timestamp: offset * 10,
                leader_epoch: 6,
            };
            assert_eq!(log.offset_for_timestamp(offset * 10, 60).unwrap(), Some(expected));
            assert_eq!(
                log.offset_for_timestamp(offset * 10 - 9, 60).unwrap(),
                Some(expected)
            );
        }
        assert_eq!(log.offset_for_timestamp(591, 60).unwrap(), None);
        assert_eq!(
            log.offset_for_timestamp(100, 10).unwrap(),
            None,
            "nothing above the bound is seen"
        );
        assert_eq!(log.max_timestamp(60).unwrap().map(|m| m.offset), Some(59));
        assert_eq!(log.max_timestamp(30).unwrap().map(|m| m.offset), Some(29));
    }
}

#[test]
fn a_deleted_record_is_not_the_latest_though_its_batch_is_still_there() {
    let bench = Bench::without_tail();
    let log = bench.fresh();
    let mut builder = BatchBuilder::new(Codec::Lz4, TimestampType::Create);
    for time in [100, 90, 40, 40] {
        builder.append(time, None, Some(b"value"), &[]);
    }
    log.append(Batch::parse(builder.build()).unwrap(), 0).unwrap();
    log.append(timed(1, "a younger batch", 40), 0).unwrap();
    let latest = |log: &Log| {
        log.max_timestamp(i64::MAX)
            .unwrap()
            .map(|m| (m.offset, m.timestamp))
    };
    assert_eq!(latest(&log), Some((0, 100)));
    log.trim_to(1).unwrap();
    assert_eq!(latest(&log), Some((1, 90)));
    log.trim_to(2).unwrap();
    assert_eq!(latest(&log), Some((2, 40)));
    log.append(timed(1, "a younger batch", 41), 0).unwrap();
    assert_eq!(latest(&log), Some((5, 41)));
}

#[test]
fn times_out_of_order_give_the_first_record_that_is_late_enough() {
    let bench = Bench::without_tail();
    let log = bench.fresh();
    let times = [50, 10, 90, 20, 90, 30, 100, 100, 5];
    for time in times {
        log.append(timed(1, "a value that takes some room in its segment", time), 0)
            .unwrap();
    }
    for wanted in [0, 10, 50, 51, 90, 95, 100, 101] {
        let expected = times.iter().position(|t| *t >= wanted).map(|i| i as i64);
        let found = log
            .offset_for_timestamp(wanted, i64::MAX)
            .unwrap()
            .map(|m| m.offset);
        assert_eq!(found, expected, "{wanted}");
    }
    assert_eq!(
        log.max_timestamp(i64::MAX)
            .unwrap()
            .map(|m| (m.offset, m.timestamp)),
        Some((6, 100))
    );
    log.trim_to(3).unwrap();
    assert_eq!(
        log.offset_for_timestamp(0, i64::MAX).unwrap().map(|m| m.offset),
        Some(3)
    );
}

#[test]
fn a_log_without_times_finds_nothing() {
    let bench = Bench::new();
    let log = bench.fresh();
    assert_eq!(log.offset_for_timestamp(0, i64::MAX).unwrap(), None);
    assert_eq!(log.max_timestamp(i64::MAX).unwrap(), None);
    log.append(timed(1, "x", -1), 0).unwrap();
    assert_eq!(log.offset_for_timestamp(0, i64::MAX).unwrap(), None);
    assert_eq!(log.max_timestamp(i64::MAX).unwrap(), None);
}

#[test]
fn records_that_do_not_decompress_fail_no_lookup() {
    let bench = Bench::new();
    let log = bench.fresh();
    let mut bytes = timed(3, "not a gzip stream", 70).to_bytes().to_vec();
    bytes[22] |= 1;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    log.append(Batch::parse(Bytes::from(bytes)).unwrap(), 0).unwrap();
    assert_eq!(
        log.offset_for_timestamp(71, i64::MAX).unwrap().map(|m| m.offset),
        Some(0)
    );
}

#[test]
fn old_segments_go_and_the_watermark_holds_them() {
    let mut bench = Bench::new();
    bench.config.retention_ms = 100;
    let log = bench.fresh();
    for i in 0..60 {
        log.append(timed(1, "a value that takes some room in its segment", i), 0)
            .unwrap();
    }
    assert!(log.retain(200, 0).is_empty(), "nothing is committed");
    assert!(log.retain(90, 60).is_empty(), "nothing is old");
    let deleted = log.retain(140, 60);
    assert_eq!(deleted.first(), Some(&0));
    assert!(log.start() > 0 && log.start() <= 40);
    // All of it is old: also what was being written to.
    assert!(!log.retain(1_000, 60).is_empty());
    assert_eq!((log.start(), log.end(), log.size_bytes()), (60, 60, 0));
    assert_eq!(log.append(batch(1, "x"), 0).unwrap().base_offset, 60);
}

#[test]
fn the_oldest_go_when_there_are_too_many_bytes() {
    let mut bench = Bench::new();
    bench.config.retention_bytes = 2_500;
    bench.config.retention_ms = -1;
    let log = bench.fresh();
    for _ in 0..60 {
        log.append(batch(1, "a value that takes some room in its segment"), 0)
            .unwrap();
    }
    log.retain(i64::MAX, 60);
    assert!((2_500..3_600).contains(&log.size_bytes()), "{}", log.size_bytes());
    log.set_config(LogConfig {
        delete: false,
        ..bench.config
    });
    assert!(log.retain(i64::MAX, 60).is_empty());
}

#[test]
fn an_aged_segment_is_closed_even_if_nothing_is_written() {
    let mut bench = Bench::new();
    bench.config.segment_ms = 50;
    bench.config.retention_ms = -1;
    let log = bench.fresh();
    log.append(batch(1, "x"), 0).unwrap();
    log.retain(1_000_060, 1);
    let second = bench.path().join(format!("{:020}.log", 1));
    assert!(second.exists());
    log.retain(1_000_200, 1);
    log.append(batch(1, "y"), 0).unwrap();
    assert_eq!(extents(&log), [(0, 1), (1, 2)]);
}
