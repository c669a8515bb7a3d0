//! Compaction, rule by rule.

use std::sync::Mutex;

use super::*;
use crate::{CompactError, Compacted, Pace, ReadError, Step, Unpaced};

/// One record: key, value.
pub(super) type Pair<'a> = (&'a str, Option<&'a str>);

/// Room for more keys than any test has.
const ROOM: usize = 1 << 20;

impl Bench {
    /// As [`Bench::without_tail`], compacted, everything at once.
    pub(super) fn compacted() -> Self {
        let mut bench = Self::without_tail();
        bench.config.compact = true;
        bench.config.delete = false;
        bench.config.min_cleanable_ratio = 0.0;
        bench.config.delete_retention_ms = 1_000;
        bench
    }

    pub(super) fn now(&self) -> i64 {
        use tradewind_wire::clock::Clock as _;
        self.clock.now_ms()
    }
}

pub(super) fn keyed(codec: Codec, pairs: &[Pair<'_>]) -> Batch {
    let mut builder = BatchBuilder::new(codec, TimestampType::Create);
    for (i, (key, value)) in pairs.iter().enumerate() {
        builder.append(
            2_000 + i as i64,
            Some(key.as_bytes()),
            value.map(str::as_bytes),
            &[(b"h", Some(b"1")), (b"h", None)],
        );
    }
    Batch::parse(builder.build()).unwrap()
}

pub(super) fn put(log: &Log, pairs: &[Pair<'_>]) -> i64 {
    log.append(keyed(Codec::None, pairs), 0).unwrap().base_offset
}

/// Begins a new segment whatever the size.
pub(super) fn roll(log: &Log) {
    let mut state = log.lock();
    let end = state.end;
    if !state.active().is_empty() {
        log.roll(&mut state, end).unwrap();
    }
}

pub(super) fn compact(bench: &Bench, log: &Log) -> Compacted {
    log.compact(bench.now(), log.end(), ROOM, &Unpaced).unwrap()
}

/// A record as it is in the log: offset, key, value.
pub(super) type Stored = (i64, Option<String>, Option<String>);

/// Every record at or above the log start.
pub(super) fn records(log: &Log) -> Vec<Stored> {
    let mut found = Vec::new();
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
    for batch in all_batches(log) {
        for record in &batch.records(1 << 20).unwrap() {
            let record = record.unwrap();
            if record.offset >= log.start() {
                found.push((record.offset, text(record.key), text(record.value)));
            }
        }
    }
    found
}

pub(super) fn all_batches(log: &Log) -> Vec<Batch> {
    let (mut at, mut all) = (log.start(), Vec::new());
    loop {
        let end = log.end();
        let slice = log.read(at, 300, i64::MAX).unwrap();
        if slice.bytes == 0 {
            // All that was below the end may be gone, superseded by what has come since.
            if log.end() > end {
                continue;
            }
            return all;
        }
        all.extend(batches(&slice));
        all.iter().for_each(|batch| batch.check_crc().unwrap());
        at = slice.next_offset;
    }
}

pub(super) fn stored(offset: i64, key: &str, value: Option<&str>) -> Stored {
    (offset, Some(key.to_owned()), value.map(str::to_owned))
}

#[test]
fn the_newest_record_of_each_key_stays_at_its_offset() {
    for codec in Codec::ALL {
        let bench = Bench::compacted();
        let log = bench.fresh();
        for round in 0..5 {
            let value = format!("value of round {round}");
            let pairs: Vec<Pair<'_>> = ["a", "b", "c", ""].iter().map(|k| (*k, Some(&*value))).collect();
            log.append(keyed(codec, &pairs), 0).unwrap();
        }
        log.append(keyed(codec, &[("b", Some(""))]), 0).unwrap();
        roll(&log);
        put(&log, &[("c", Some("in the active segment"))]);
        let before = all_batches(&log);
        let done = compact(&bench, &log);
        assert!(done.bytes_after < done.bytes_before, "{done:?}");
        let last = "value of round 4";
        assert_eq!(
            records(&log),
            [
                stored(16, "a", Some(last)),
                stored(18, "c", Some(last)),
                stored(19, "", Some(last)),
                stored(20, "b", Some("")),
                stored(21, "c", Some("in the active segment")),
            ],
            "{}",
            codec.name()
        );
        let after = all_batches(&log);
        assert_eq!(after[0].header().compression(), Some(codec));
        assert_eq!(
            (after[0].header().base_offset, after[0].header().next_offset()),
            (16, 20)
        );
        assert_eq!(
            after[1].to_bytes(),
            before[5].to_bytes(),
            "a batch that stays whole stays as it was"
        );
        let kept = after[0].records(1 << 20).unwrap();
        let first = kept.iter().next().unwrap().unwrap();
        assert_eq!(
            first.headers.collect::<Vec<_>>(),
            [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]
        );
        assert_eq!(first.timestamp, 2_000);
        assert_eq!((log.start(), log.end()), (0, 22));
    }
}

#[test]
fn a_fetch_at_a_removed_offset_gives_the_next_batch() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..30 {
        put(&log, &[("k", Some(&format!("value number {i} and some room")))]);
    }
    roll(&log);
    compact(&bench, &log);
    for from in 0..30 {
        let slice = log.read(from, 1, i64::MAX).unwrap();
        assert_eq!(batches(&slice)[0].header().base_offset, 29);
        assert_eq!(slice.next_offset, 30);
    }
    assert!(matches!(
        log.read(31, 1, i64::MAX),
        Err(ReadError::OutOfRange { .. })
    ));
    assert_eq!(log.read(30, 1, i64::MAX).unwrap().bytes, 0);
}

#[test]
fn delete_retention_ms_keeps_a_tombstone_and_its_time_from_the_first_pass_on() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&log, &[("a", None)]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(records(&log), [stored(1, "b", Some("1")), stored(2, "a", None)]);
    let tombstone = &all_batches(&log)[1];
    assert_eq!(tombstone.header().delete_horizon(), Some(bench.now() + 1_000));
    assert_eq!(tombstone.header().max_timestamp, 2_000);
    let due = |log: &Log| log.dirtiness(bench.now(), log.end()).unwrap().due;
    assert!(!due(&log));
    bench.clock.set(bench.now() + 999);
    compact(&bench, &log);
    assert_eq!(records(&log).len(), 2, "not yet");
    // Also across a restart the time counts from the first pass.
    log.close().unwrap();
    let (log, _) = bench.open(OpenHint {
        recovery_point: log.end(),
        clean_shutdown: true,
        ..OpenHint::default()
    });
    compact(&bench, &log);
    assert!(!due(&log));
    bench.clock.set(bench.now() + 1);
    assert!(
        due(&log),
        "a log without new records is rid of its tombstones too"
    );
    compact(&bench, &log);
    assert_eq!(records(&log), [stored(1, "b", Some("1"))]);
}

#[test]
fn a_value_after_its_tombstone_is_kept() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", None)]);
    put(&log, &[("a", Some("2"))]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(records(&log), [stored(2, "a", Some("2"))]);
}

#[test]
fn readers_from_memory_see_what_compaction_left() {
    let mut bench = Bench::compacted();
    let tail = Arc::new(TailCache::default());
    bench.env.tail = Arc::clone(&tail);
    let log = bench.fresh();
    for i in 0..20 {
        put(&log, &[("k", Some(&format!("{i}")))]);
    }
    roll(&log);
    put(&log, &[("other", Some("in memory"))]);
    let before = tail.used();
    compact(&bench, &log);
    assert_eq!(
        records(&log),
        [
            stored(19, "k", Some("19")),
            stored(20, "other", Some("in memory"))
        ]
    );
    assert!(tail.used() < before / 10, "{} of {before}", tail.used());
    log.truncate_to(20).unwrap();
    assert_eq!(tail.used(), 0);
}

#[test]
fn records_without_a_key_go() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    log.append(batch(3, "from before the topic was compacted"), 0)
        .unwrap();
    put(&log, &[("a", Some("1"))]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(records(&log), [stored(3, "a", Some("1"))]);
}

#[test]
fn min_compaction_lag_ms_protects_young_records() {
    let mut bench = Bench::compacted();
    bench.config.min_compaction_lag_ms = 500;
    let log = bench.fresh();
    let now = bench.now();
    let at = |time| {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.append(time, Some(b"k"), Some(b"v"), &[]);
        log.append(Batch::parse(builder.build()).unwrap(), 0).unwrap();
    };
    at(now - 600);
    at(now - 501);
    roll(&log);
    at(now - 100);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(log.first_dirty(), 2);
    assert_eq!(
        extents(&log),
        [(1, 2), (2, 3)],
        "the young one supersedes nothing yet"
    );
    bench.clock.set(now + 500);
    compact(&bench, &log);
    assert_eq!(extents(&log), [(2, 3)]);
}

#[test]
fn max_compaction_lag_ms_makes_old_records_due_and_closes_their_segment() {
    let mut bench = Bench::compacted();
    bench.config.min_cleanable_ratio = 1.0;
    bench.config.max_compaction_lag_ms = 5_000;
    let log = bench.fresh();
    bench.clock.set(2_000);
    put(&log, &[("k", Some("1"))]);
    put(&log, &[("k", Some("2"))]);
    let due = |log: &Log| log.dirtiness(bench.now(), log.end()).unwrap().due;
    bench.clock.set(7_000);
    log.retain(bench.now(), log.end());
    assert!(!due(&log));
    bench.clock.set(7_001);
    log.retain(bench.now(), log.end());
    assert!(due(&log), "the segment was closed and is late");
    compact(&bench, &log);
    assert!(!due(&log));
    assert_eq!(records(&log), [stored(1, "k", Some("2"))]);
}

#[test]
fn min_cleanable_dirty_ratio_says_when_it_is_worth_it() {
    let mut bench = Bench::compacted();
    bench.config.min_cleanable_ratio = 0.5;
    bench.config.segment_bytes = 1 << 20;
    let log = bench.fresh();
    for i in 0..10 {
        put(&log, &[(&format!("key {i}"), Some("a value"))]);
    }
    roll(&log);
    assert_eq!(log.dirtiness(bench.now(), log.end()).unwrap().ratio, 1.0);
    compact(&bench, &log);
    for i in 0..11 {
        let dirtiness = log.dirtiness(bench.now(), log.end()).unwrap();
        assert_eq!(dirtiness.due, i > 10, "{i}: {dirtiness:?}");
        put(&log, &[(&format!("key {i}"), Some("a value"))]);
        roll(&log);
    }
    assert!(log.dirtiness(bench.now(), log.end()).unwrap().due);
}

#[test]
fn cleanup_policy_delete_alone_is_never_compacted() {
    let mut bench = Bench::compacted();
    bench.config.compact = false;
    let log = bench.fresh();
    put(&log, &[("k", Some("1"))]);
    put(&log, &[("k", Some("2"))]);
    roll(&log);
    assert_eq!(log.dirtiness(bench.now(), log.end()), None);
    assert!(log.compact(bench.now(), log.end(), ROOM, &Unpaced).is_err());
    assert_eq!(extents(&log).len(), 2);
}

#[test]
fn cleanup_policy_compact_and_delete_does_both() {
    let mut bench = Bench::compacted();
    bench.config.delete = true;
    bench.config.retention_ms = 10_000;
    let log = bench.fresh();
    bench.clock.set(2_000);
    for _ in 0..2 {
        put(&log, &[("a", Some("old"))]);
        put(&log, &[("b", Some("old"))]);
    }
    roll(&log);
    compact(&bench, &log);
    assert_eq!(extents(&log), [(2, 3), (3, 4)]);
    bench.clock.set(20_000);
    put(&log, &[("c", Some("new"))]);
    roll(&log);
    assert_eq!(log.retain(bench.now(), log.end()), [0, 4]);
    assert_eq!((log.start(), log.end()), (5, 5));
    compact(&bench, &log);
}

#[test]
fn nothing_at_or_above_the_watermark_nor_in_the_active_segment_is_touched() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for _ in 0..3 {
        put(&log, &[("k", Some("v"))]);
        put(&log, &[("k", Some("v"))]);
        roll(&log);
    }
    put(&log, &[("k", Some("v"))]);
    put(&log, &[("k", Some("v"))]);
    log.compact(bench.now(), 3, ROOM, &Unpaced).unwrap();
    assert_eq!(
        extents(&log),
        [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    );
    assert_eq!(log.first_dirty(), 2);
    compact(&bench, &log);
    assert_eq!(extents(&log), [(5, 6), (6, 7), (7, 8)]);
}

#[test]
fn small_segments_are_joined_and_reads_find_their_way() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..60 {
        put(
            &log,
            &[(&format!("k{}", i % 7), Some("a value that takes some room"))],
        );
    }
    roll(&log);
    let count = |log: &Log| log.lock().segments.len();
    let before = count(&log);
    assert!(before > 6);
    compact(&bench, &log);
    // The second pass finds them small.
    compact(&bench, &log);
    assert!(count(&log) < before);
    assert_eq!(extents(&log), (53..60).map(|o| (o, o + 1)).collect::<Vec<_>>());
    let on_disk = std::fs::read_dir(bench.path()).unwrap();
    let logs = on_disk.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "log"));
    assert_eq!(logs.count(), count(&log), "what was replaced is gone");
    for time in 0..3_000 {
        let found = log.offset_for_timestamp(time, i64::MAX).unwrap();
        assert_eq!(found.map(|m| m.offset), (time <= 2_000).then_some(53));
    }
    assert_eq!(log.max_timestamp(i64::MAX).unwrap().unwrap().offset, 53);
    assert_eq!(log.end_offset_for_epoch(0), Some((0, 60)));
    log.close().unwrap();
    let clean = OpenHint {
        recovery_point: 60,
        clean_shutdown: true,
        ..OpenHint::default()
    };
    for hint in [clean, OpenHint::default()] {
        let (again, recovered) = bench.open(hint);
        assert_eq!(recovered, Recovered::default());
        assert_eq!((again.start(), again.end(), again.first_dirty()), (0, 60, 60));
        assert_eq!(extents(&again), extents(&log));
        assert_eq!(again.max_timestamp(i64::MAX).unwrap().unwrap().offset, 53);
    }
}

#[test]
fn a_map_without_room_takes_several_passes() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for round in 0..3 {
        for key in 0..40 {
            put(&log, &[(&format!("key {key}"), Some(&format!("round {round}")))]);
        }
    }
    roll(&log);
    let done = log.compact(bench.now(), log.end(), 10 * 32, &Unpaced).unwrap();
    assert!(done.passes > 5, "{done:?}");
    assert_eq!(done.first_dirty, 120);
    assert_eq!(extents(&log), (80..120).map(|o| (o, o + 1)).collect::<Vec<_>>());
}

#[test]
fn a_batch_with_more_keys_than_the_map_has_room_for_is_taken_in_parts() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    let keys: Vec<String> = (0..50).map(|i| format!("{i}")).collect();
    let pairs: Vec<Pair<'_>> = keys.iter().map(|k| (&**k, Some("v"))).collect();
    put(&log, &pairs[..25]);
    put(&log, &pairs);
    roll(&log);
    log.compact(bench.now(), log.end(), 3 * 32, &Unpaced).unwrap();
    assert_eq!(
        records(&log).iter().map(|r| r.0).collect::<Vec<_>>(),
        (25..75).collect::<Vec<_>>()
    );
}

#[test]
fn the_last_batch_of_each_producer_keeps_its_header_and_its_sequence() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    let from = |producer, sequence| {
        let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::Create);
        builder.append(2_000, Some(b"k"), Some(b"v"), &[]);
        builder.append(2_001, Some(b"k"), Some(b"v"), &[]);
        builder.producer(producer, 3, sequence);
        Batch::parse(builder.build()).unwrap()
    };
    for i in 0..4 {
        log.append(from(7, 2 * i), 0).unwrap();
    }
    put(&log, &[("k", Some("newest"))]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(records(&log), [stored(8, "k", Some("newest"))]);
    let left = all_batches(&log);
    let header = left[0].header();
    assert_eq!(
        (header.base_offset, header.next_offset(), header.records_count),
        (6, 8, 0)
    );
    drop(log);
    // Even without snapshots, what is left tells where the producer stands.
    for entry in std::fs::read_dir(bench.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "snapshot") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (log, _) = bench.open(OpenHint::default());
    let again = log.append(from(7, 6), 0).unwrap();
    assert_eq!((again.duplicate, again.base_offset), (true, 6));
    assert!(log.append(from(7, 10), 0).is_err(), "a gap is still a gap");
    assert!(!log.append(from(7, 8), 0).unwrap().duplicate);
    // Once it has written more, the emptied batch goes.
    roll(&log);
    compact(&bench, &log);
    assert_eq!(all_batches(&log)[0].header().base_offset, 9);
}

#[test]
fn the_last_batch_of_a_pass_keeps_its_header() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("a", Some("1"))]);
    log.append(batch(2, "no key"), 0).unwrap();
    roll(&log);
    compact(&bench, &log);
    assert_eq!(
        extents(&log),
        [(0, 1), (1, 3)],
        "who follows this log reaches its end"
    );
    assert_eq!(records(&log), [stored(0, "a", Some("1"))]);
    put(&log, &[("b", Some("1"))]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(extents(&log), [(0, 1), (3, 4)]);
}

#[test]
fn a_cut_below_the_first_dirty_offset_lowers_it() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..20 {
        put(&log, &[(&format!("{i}"), Some("v"))]);
    }
    roll(&log);
    compact(&bench, &log);
    assert_eq!(log.first_dirty(), 20);
    log.truncate_to(11).unwrap();
    assert_eq!(log.first_dirty(), 11);
    drop(log);
    let (log, _) = bench.open(OpenHint::default());
    assert_eq!(log.first_dirty(), 11, "it was written down");
    log.reset_at(50).unwrap();
    assert_eq!(log.first_dirty(), 50);
}

/// Does something at one step, once.
struct At<F>(Step, Mutex<Option<F>>);

impl<F: FnOnce() + Send> Pace for At<F> {
    fn spent(&self, _bytes: usize) -> bool {
        true
    }

    fn before(&self, step: Step) {
        if step == self.0
            && let Some(act) = self.1.lock().unwrap().take()
        {
            act();
        }
    }
}

#[test]
fn a_cut_meanwhile_ends_the_work() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..20 {
        put(&log, &[("k", Some(&format!("{i}")))]);
    }
    roll(&log);
    let pace = At(Step::Flushed, Mutex::new(Some(|| log.truncate_to(15).unwrap())));
    let ended = log.compact(bench.now(), 20, ROOM, &pace);
    assert!(matches!(ended, Err(CompactError::Interrupted)), "{ended:?}");
    assert_eq!(records(&log).last(), Some(&stored(14, "k", Some("14"))));
    assert_eq!(log.first_dirty(), 0);
}

#[test]
fn appends_and_retention_go_on_meanwhile() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..20 {
        put(&log, &[("k", Some(&format!("{i}")))]);
    }
    roll(&log);
    let act = || {
        put(&log, &[("k", Some("meanwhile"))]);
        roll(&log);
        log.flush().unwrap();
    };
    log.compact(bench.now(), 20, ROOM, &At(Step::Named, Mutex::new(Some(act))))
        .unwrap();
    assert_eq!(log.end(), 21);
    assert_eq!(
        records(&log),
        [stored(19, "k", Some("19")), stored(20, "k", Some("meanwhile"))]
    );
    let trim = || log.trim_to(20).unwrap();
    let ended = log.compact(bench.now(), 21, ROOM, &At(Step::Flushed, Mutex::new(Some(trim))));
    assert!(
        matches!(ended, Err(CompactError::Interrupted)),
        "its segment is gone: {ended:?}"
    );
    assert_eq!(records(&log), [stored(20, "k", Some("meanwhile"))]);
    let files = std::fs::read_dir(bench.path())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    let left: Vec<_> = files
        .filter(|f| f.to_str().unwrap().contains(".cleaned"))
        .collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

#[test]
fn a_daemon_that_stops_is_not_waited_for() {
    struct Stop;
    impl Pace for Stop {
        fn spent(&self, _bytes: usize) -> bool {
            false
        }
    }
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("k", Some("1"))]);
    put(&log, &[("k", Some("2"))]);
    roll(&log);
    assert!(matches!(
        log.compact(bench.now(), 2, ROOM, &Stop),
        Err(CompactError::Interrupted)
    ));
    assert_eq!(extents(&log).len(), 2);
}

#[test]
fn damage_is_not_copied_under_a_new_checksum() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..6 {
        put(&log, &[("k", Some(&format!("value {i}")))]);
    }
    roll(&log);
    let path = crate::segment::log_path(bench.path(), 0);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let ended = log.compact(bench.now(), 6, ROOM, &Unpaced);
    assert!(matches!(ended, Err(CompactError::Damaged { .. })), "{ended:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the segment is as it was");
    assert_eq!(log.first_dirty(), 0);
}

#[test]
fn a_batch_that_cannot_be_unpacked_is_kept_as_it_is() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("k", Some("1"))]);
    let mut odd = keyed(Codec::None, &[("k", Some("2"))]).to_bytes().to_vec();
    odd[22] = 4; // Says zstd, is none.
    let crc = crc32c::crc32c(&odd[21..]);
    odd[17..21].copy_from_slice(&crc.to_be_bytes());
    log.append_at(placed(Batch::parse(odd.into()).unwrap(), 1, 0), None)
        .unwrap();
    put(&log, &[("k", Some("3"))]);
    roll(&log);
    let done = compact(&bench, &log);
    assert_eq!(done.unreadable_batches, 1);
    assert_eq!(extents(&log), [(1, 2), (2, 3)]);
}

#[test]
fn a_mirrored_logs_horizons_wait_for_the_retention_here() {
    for mirrored in [false, true] {
        let mut bench = Bench::compacted();
        bench.config.mirrored = mirrored;
        let log = bench.fresh();
        let mut rewrite = tradewind_wire::batch::Rewrite::new(
            keyed(Codec::None, &[("k", None)]).header(),
            Some(bench.now() - 5),
        );
        let source = keyed(Codec::None, &[("k", None)]);
        rewrite.push(&source.records(1_000).unwrap().iter().next().unwrap().unwrap());
        let batch = Batch::parse(rewrite.finish()).unwrap();
        log.append_at(placed(batch, 0, 0), None).unwrap();
        put(&log, &[("other", Some("v"))]);
        roll(&log);
        compact(&bench, &log);
        assert_eq!(records(&log).len(), 1 + usize::from(mirrored));
        bench.clock.set(bench.now() + 1_001);
        compact(&bench, &log);
        assert_eq!(records(&log).len(), 1);
    }
}
