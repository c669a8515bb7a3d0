//! What a log does when the disk does not, and when many use it at once.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::AppendError;

/// Makes the active segment's file one that cannot be written.
fn break_disk(log: &Log) {
    let mut state = log.lock();
    let file = &state.active().file;
    file.replace(std::fs::File::open(file.path()).unwrap());
}

#[test]
fn a_failed_write_puts_the_log_out_of_service_but_not_its_readers() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(2, "x"), 0).unwrap();
    break_disk(&log);
    assert!(matches!(log.append(batch(1, "y"), 0), Err(AppendError::Io(_))));
    assert!(log.poisoned().unwrap().starts_with("appending: "));
    assert!(matches!(
        log.append(batch(1, "y"), 0),
        Err(AppendError::Poisoned(_))
    ));
    assert!(log.flush().is_err() && log.truncate_to(0).is_err() && log.retain(0, 0).is_empty());
    assert_eq!(
        (log.end(), log.flushed_end(), extents(&log)),
        (2, 0, vec![(0, 2)])
    );
    log.close().unwrap();
    drop(log);
    // What the file holds is whole.
    assert_eq!(bench.open(OpenHint::default()).1, Recovered::default());
}

#[test]
fn readers_beside_a_writer_see_whole_batches_in_order() {
    for bench in [Bench::new(), Bench::without_tail()] {
        let log = bench.fresh();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut at = 0;
                    while !done.load(Ordering::Acquire) || at < log.end() {
                        let slice = log.read(at, 500, i64::MAX).unwrap();
                        for batch in batches(&slice) {
                            batch.check_crc().unwrap();
                            assert_eq!(batch.header().base_offset, at);
                            at = batch.header().next_offset();
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let flushed = log.flush().unwrap();
                    assert!(flushed <= log.end());
                }
            });
            for i in 0..500 {
                log.append(batch(1 + i % 3, "a value that takes some room"), 0)
                    .unwrap();
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(log.flush().unwrap(), log.end());
    }
}

#[test]
fn readers_beside_truncations_never_see_torn_batches() {
    let bench = Bench::without_tail();
    let log = bench.fresh();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let from = log.end() / 2;
                    if let Ok(slice) = log.read(from, 2_000, i64::MAX) {
                        batches(&slice)
                            .iter()
                            .for_each(|batch| batch.check_crc().unwrap());
                    }
                }
            });
        }
        for i in 0..200 {
            log.append(batch(2, &"x".repeat(1 + i % 90)), 0).unwrap();
            if i % 7 == 6 {
                log.truncate_to(log.end() - 9).unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn the_tail_stays_within_its_limit_and_older_reads_go_to_the_file() {
    let mut bench = Bench::new();
    let tail = Arc::new(TailCache::new(5_000));
    bench.env = LogEnv {
        tail: Arc::clone(&tail),
        ..LogEnv::new(bench.clock.clone())
    };
    let other = Bench::new();
    let first = bench.fresh();
    let second = Log::open(
        other.path(),
        other.config.clone(),
        OpenHint::default(),
        &bench.env,
    )
    .unwrap()
    .0;
    for i in 0..100 {
        let log = if i % 3 == 0 { &first } else { &second };
        log.append(batch(1, &"y".repeat(i)), 0).unwrap();
        assert!(tail.used() <= 5_000);
    }
    assert_eq!(extents(&first).len() + extents(&second).len(), 100);
    drop(first);
    second.truncate_to(second.end() - 1).unwrap();
    assert_eq!(tail.used(), 0);
    second.append(batch(1, "z"), 0).unwrap();
    assert_eq!(extents(&second).last(), Some(&(second.end() - 1, second.end())));
}

#[test]
fn large_batches_are_shared_and_small_ones_do_not_pin_their_request() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.set_config(LogConfig::default());
    let large = batch(1, &"z".repeat(100_000));
    let place = large.payload().as_ptr();
    log.append(large, 0).unwrap();
    let slice = log.read(0, 1 << 20, i64::MAX).unwrap();
    assert_eq!(slice.records[1].as_ptr(), place, "the request's own bytes");
    let small = batch(1, "small");
    let place = small.payload().as_ptr();
    log.append(small, 0).unwrap();
    let slice = log.read(1, 1 << 20, i64::MAX).unwrap();
    assert_eq!(slice.records.len(), 1);
    assert_ne!(slice.records[0][61..].as_ptr(), place);
}

#[test]
fn segment_files_are_what_kafkas_tools_read() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..60 {
        log.append(timed(2, "a value that takes some room", i), 0)
            .unwrap();
    }
    log.close().unwrap();
    let mut logs: Vec<_> = std::fs::read_dir(bench.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    assert!(logs.len() > 3);
    let mut next = 0;
    for path in logs {
        let base: i64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        // Batches back to back and nothing else, as kafka-dump-log expects them.
        let mut at = 0;
        let mut found = Vec::new();
        for batch in split(bytes) {
            let batch = batch.unwrap();
            assert_eq!(batch.header().base_offset, next);
            next = batch.header().next_offset();
            found.push((at, *batch.header()));
            at += batch.size();
        }
        // Every index entry names a batch by its last offset and its position.
        for entry in std::fs::read(path.with_extension("index"))
            .unwrap()
            .chunks_exact(8)
        {
            let offset = base + i64::from(u32::from_be_bytes(entry[..4].try_into().unwrap()));
            let position = u32::from_be_bytes(entry[4..].try_into().unwrap()) as usize;
            assert!(
                found
                    .iter()
                    .any(|(at, h)| *at == position && h.last_offset() == offset)
            );
        }
        // The last entry of the time index is the segment's largest time.
        let times = std::fs::read(path.with_extension("timeindex")).unwrap();
        let last = times.chunks_exact(12).next_back().unwrap();
        let largest = found.iter().map(|(_, h)| h.max_timestamp).max().unwrap();
        assert_eq!(i64::from_be_bytes(last[..8].try_into().unwrap()), largest);
    }
    assert_eq!(next, 120);
}

#[test]
fn a_log_that_is_deleted_while_it_is_closed_or_flushed_fails_neither() {
    for i in 0..60 {
        let bench = Bench::new();
        let log = bench.fresh();
        for epoch in 0..5 {
            log.append(batch(1, "dirty"), epoch).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..(i % 10) * 20 {
                    std::hint::spin_loop();
                }
                log.discard();
                std::fs::remove_dir_all(bench.path()).unwrap();
            });
            scope.spawn(|| log.flush().unwrap());
            scope.spawn(|| log.close().unwrap());
        });
        assert_eq!(log.poisoned(), None);
        std::fs::create_dir(bench.path()).unwrap();
    }
}
