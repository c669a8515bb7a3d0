//! What a log makes of its files after a crash. A killed process is a log that is opened again without having been closed;
//! a power cut is the same with bytes missing or changed.

use std::path::PathBuf;

use super::*;

/// Where the last segment is, and what is in it.
fn last_segment(bench: &Bench) -> (PathBuf, Vec<u8>) {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(bench.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    let path = logs.pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

fn hint(recovery_point: i64) -> OpenHint {
    OpenHint {
        recovery_point,
        ..OpenHint::default()
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..40 {
        log.append(batch(2, &format!("record number {i}")), 3).unwrap();
    }
    let before = extents(&log);
    std::mem::forget(log);
    let (log, recovered) = bench.open(OpenHint::default());
    assert_eq!(recovered, Recovered::default());
    assert_eq!(extents(&log), before);
    assert_eq!(
        (log.end(), log.flushed_end(), log.last_epoch()),
        (80, 80, Some(3))
    );
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_at_the_batch_before() {
    let bench = Bench::new();
    let log = bench.fresh();
    let mut ends = vec![(0, 0)];
    for i in 0..4 {
        log.append(batch(2, &format!("record {i}")), 0).unwrap();
        ends.push((log.size_bytes(), log.end()));
    }
    drop(log);
    let (path, whole) = last_segment(&bench);
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let (log, recovered) = bench.open(OpenHint::default());
        let (size, end) = *ends
            .iter()
            .rev()
            .find(|(size, _)| *size <= length as u64)
            .unwrap();
        assert_eq!((log.size_bytes(), log.end()), (size, end), "cut at {length}");
        assert_eq!(recovered.truncated_bytes, length as u64 - size);
        assert!(!recovered.damaged);
        // The log goes on from there.
        assert_eq!(log.append(batch(1, "next"), 0).unwrap().base_offset, end);
    }
}

#[test]
fn a_flipped_bit_above_the_recovery_point_cuts_the_log_there() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..3 {
        log.append(batch(1, &format!("{i}")), 0).unwrap();
    }
    drop(log);
    let (path, whole) = last_segment(&bench);
    let size = whole.len() / 3;
    for at in size..2 * size {
        let mut bad = whole.clone();
        bad[at] ^= 0x04;
        std::fs::write(&path, &bad).unwrap();
        let (log, recovered) = bench.open(hint(1));
        // Base offset and leader epoch lie outside the CRC: a change that keeps them in order cannot be seen.
        let outside = at - size < 8 || (12..16).contains(&(at - size));
        if !outside {
            assert_eq!(log.end(), 1, "byte {at}");
            assert!(recovered.truncated_bytes > 0 && !recovered.damaged);
        }
    }
}

#[test]
fn damage_below_the_recovery_point_is_reported_and_kept_aside() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..30 {
        log.append(batch(1, &format!("a record that takes some room {i}")), 0)
            .unwrap();
    }
    drop(log);
    let (path, whole) = last_segment(&bench);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (log, recovered) = bench.open(hint(30));
    assert!(recovered.damaged);
    assert_eq!(log.end(), 29);
    let kept = std::fs::read(crate::files::with_suffix(&path, ".damaged.0")).unwrap();
    assert_eq!(kept, whole[..whole.len() - 1]);
}

#[test]
fn a_log_that_is_shorter_than_what_was_flushed_is_reported() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(5, "x"), 0).unwrap();
    drop(log);
    assert!(!bench.open(hint(5)).1.damaged);
    assert!(bench.open(hint(6)).1.damaged);
    std::fs::remove_file(last_segment(&bench).0).unwrap();
    assert!(bench.open(hint(5)).1.damaged, "all of it is gone");
}

#[test]
fn segments_after_a_torn_one_go_with_it() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..40 {
        log.append(batch(1, &format!("a record that takes some room {i}")), 0)
            .unwrap();
    }
    drop(log);
    let first = bench.path().join(format!("{:020}.log", 0));
    let whole = std::fs::read(&first).unwrap();
    std::fs::write(&first, &whole[..whole.len() - 3]).unwrap();
    let (log, recovered) = bench.open(OpenHint::default());
    assert!(recovered.truncated_bytes > 0 && !recovered.damaged);
    assert_eq!(last_segment(&bench).0, first);
    let extents = extents(&log);
    assert_eq!(extents.last().map(|e| e.1), Some(log.end()));
}

#[test]
fn a_clean_stop_is_trusted_and_everything_is_remembered() {
    let bench = Bench::new();
    let log = bench.fresh();
    for i in 0..20 {
        log.append(sequenced(2, 9, 1, i * 2), 5).unwrap();
    }
    let before = extents(&log);
    log.close().unwrap();
    drop(log);
    let clean = OpenHint {
        recovery_point: 40,
        clean_shutdown: true,
        ..OpenHint::default()
    };
    let (log, recovered) = bench.open(clean);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(extents(&log), before);
    assert_eq!((log.flushed_end(), log.last_epoch()), (40, Some(5)));
    assert!(log.append(sequenced(2, 9, 1, 38), 5).unwrap().duplicate);
    assert!(!log.append(sequenced(2, 9, 1, 40), 5).unwrap().duplicate);
}

#[test]
fn producers_are_remembered_without_a_clean_stop_and_without_snapshots() {
    for snapshots in [true, false] {
        let bench = Bench::new();
        let log = bench.fresh();
        for i in 0..40 {
            log.append(sequenced(1, i64::from(i % 3), 0, i / 3), 0).unwrap();
        }
        drop(log);
        if !snapshots {
            for entry in std::fs::read_dir(bench.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == "snapshot") {
                    std::fs::write(path, b"nonsense").unwrap();
                }
            }
        }
        let (log, _) = bench.open(OpenHint::default());
        let again = log.append(sequenced(1, 0, 0, 12), 0).unwrap();
        assert!(again.duplicate);
        assert_eq!(again.base_offset, 36);
        assert!(
            log.append(sequenced(1, 0, 0, 15), 0).is_err(),
            "a gap is still a gap"
        );
    }
}

#[test]
fn indexes_that_are_missing_or_wrong_are_rebuilt_or_ignored() {
    for damage in [None, Some(&b"12345678"[..]), Some(&[0; 16][..]), Some(&b"x"[..])] {
        let bench = Bench::without_tail();
        let log = bench.fresh();
        for i in 0..60 {
            log.append(timed(1, &format!("a record that takes some room {i}"), i), 0)
                .unwrap();
        }
        let before = extents(&log);
        log.close().unwrap();
        drop(log);
        for entry in std::fs::read_dir(bench.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "index" || e == "timeindex") {
                match damage {
                    None => std::fs::remove_file(path).unwrap(),
                    Some(bytes) => std::fs::write(path, bytes).unwrap(),
                }
            }
        }
        let clean = OpenHint {
            recovery_point: 60,
            clean_shutdown: true,
            ..OpenHint::default()
        };
        let (log, recovered) = bench.open(clean);
        assert_eq!(recovered, Recovered::default());
        assert_eq!(extents(&log), before);
        for i in 0..60 {
            assert_eq!(
                log.offset_for_timestamp(i, i64::MAX).unwrap().unwrap().offset,
                i,
                "{damage:?}"
            );
        }
    }
}

#[test]
fn a_cut_below_the_checkpoint_is_checked_after_a_crash() {
    let mut bench = Bench::new();
    bench.config.segment_bytes = 1 << 20;
    let log = bench.fresh();
    for _ in 0..10 {
        log.append(batch(1, "old"), 0).unwrap();
    }
    log.flush().unwrap();
    // The checkpoint on disk says 10 from here on.
    log.truncate_to(5).unwrap();
    for _ in 0..10 {
        log.append(batch(1, "new"), 1).unwrap();
    }
    drop(log);
    let (path, mut whole) = last_segment(&bench);
    let seventh = whole.len() / 15 * 7 + 70;
    whole[seventh] ^= 1;
    std::fs::write(&path, &whole).unwrap();
    let (log, recovered) = bench.open(hint(10));
    assert!(!recovered.damaged, "what was cut is no loss");
    assert_eq!(
        log.end(),
        7,
        "the torn record below the old recovery point was found"
    );
    log.checkpointed(7).unwrap();
    drop(log);
    assert!(
        bench.open(hint(10)).1.damaged,
        "from now on the checkpoint counts again"
    );
}

#[test]
fn epochs_are_known_again_with_and_without_their_file() {
    for keep in [true, false] {
        let bench = Bench::new();
        let log = bench.fresh();
        for i in 0..30 {
            log.append(
                batch(1, "a record that takes some room, to fill segments"),
                i / 10,
            )
            .unwrap();
        }
        log.flush().unwrap();
        drop(log);
        if !keep {
            std::fs::remove_file(bench.path().join("leader-epochs")).unwrap();
        }
        let (log, recovered) = bench.open(hint(30));
        assert_eq!(recovered, Recovered::default());
        assert_eq!(log.end_offset_for_epoch(0), Some((0, 10)));
        assert_eq!(log.end_offset_for_epoch(1), Some((1, 20)));
        assert_eq!(log.end_offset_for_epoch(2), Some((2, 30)));
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    /// Opens whatever is there and does everything that reads.
    fn exercise(bench: &Bench, hint: OpenHint) {
        let (log, _) = bench.open(hint);
        let (start, end) = (log.start(), log.end());
        assert!(start <= end && log.flushed_end() <= end);
        let mut at = start;
        while let Ok(slice) = log.read(at, 100, i64::MAX) {
            if slice.bytes == 0 {
                break;
            }
            at = slice.next_offset;
        }
        let _ = log.offset_for_timestamp(0, i64::MAX);
        let _ = log.max_timestamp(i64::MAX);
        let _ = log.last_stable_offset(end);
        let _ = log.truncate_to(start + (end - start) / 2);
        let appended = log.append(batch(1, "after all that"), i32::MAX);
        // Damage that nobody was told of may show when the log is cut, and puts it out of service.
        let excused = log.poisoned().is_some() || log.end() > i64::MAX / 2;
        assert!(appended.is_ok() || excused, "{appended:?}");
        let _ = log.retain(i64::MAX, end);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bytes_as_a_segment_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            recovery_point in 0i64..20,
            clean_shutdown: bool,
        ) {
            let bench = Bench::without_tail();
            std::fs::write(bench.path().join(format!("{:020}.log", 0)), &bytes).unwrap();
            exercise(&bench, OpenHint { recovery_point, clean_shutdown, log_start: 0 });
        }

        #[test]
        fn a_real_log_with_damage_anywhere_never_panics(
            file in 0usize..1_000,
            flips in proptest::collection::vec((0usize..4_000, 1u8..), 1..6),
            cut in 0usize..4_000,
            recovery_point in 0i64..80,
            clean_shutdown: bool,
        ) {
            let bench = Bench::without_tail();
            let log = bench.fresh();
            for i in 0..20 {
                log.append(sequenced(2, 1, 0, i * 2), i / 8).unwrap();
                log.append(batch(1, "plain"), i / 8).unwrap();
            }
            log.close().unwrap();
            drop(log);
            let mut files: Vec<_> =
                std::fs::read_dir(bench.path()).unwrap().map(|e| e.unwrap().path()).collect();
            files.sort();
            let path = &files[file % files.len()];
            let mut bytes = std::fs::read(path).unwrap();
            bytes.truncate(bytes.len().min(cut).max(bytes.len() / 2));
            for (at, flip) in flips {
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] ^= flip;
                }
            }
            std::fs::write(path, bytes).unwrap();
            exercise(&bench, OpenHint { recovery_point, clean_shutdown, log_start: 0 });
        }
    }
}
