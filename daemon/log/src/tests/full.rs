//! A disk without space: appends are refused, nothing is lost, and the log goes on when there is room again.

use super::*;
use crate::datadir::Volume;
use crate::files::full;
use crate::{AppendError, Room};

/// Appends until a segment would have to be begun, whose files cannot be made.
fn fill(log: &Log) -> i64 {
    for i in 0..100 {
        match log.append(sequenced(2, 7, 0, i * 2), 0) {
            Ok(appended) => assert_eq!(appended.base_offset, i64::from(i) * 2),
            Err(AppendError::DiskFull) => return log.end(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no segment had to be begun");
}

#[test]
fn a_segment_for_which_there_is_no_room_is_begun_when_there_is() {
    for file in [".index", ".timeindex", ".snapshot", ".log"] {
        let bench = Bench::new();
        let log = bench.fresh();
        full::set(Some(file));
        let end = fill(&log);
        assert!(end > 0, "{file}");
        for _ in 0..3 {
            let again = log.append(sequenced(2, 7, 0, end as i32), 0);
            assert!(matches!(again, Err(AppendError::DiskFull)), "{file}: {again:?}");
        }
        // All else goes on: reads, flushes, repeats, and whatever still fits.
        assert_eq!(extents(&log).last(), Some(&(end - 2, end)));
        assert_eq!(log.flush().unwrap(), end);
        let repeat = log.append(sequenced(2, 7, 0, end as i32 - 2), 0).unwrap();
        assert!(repeat.duplicate);
        assert!(log.retain(0, end).is_empty());
        assert_eq!(log.poisoned(), None);
        full::set(None);
        let next = log.append(sequenced(2, 7, 0, end as i32), 0).unwrap();
        assert_eq!(next.base_offset, end);
        assert!(log.lock().segments.len() == 2, "{file}");
        log.flush().unwrap();
        let before = extents(&log);
        drop(log);
        let hint = OpenHint {
            recovery_point: end + 2,
            ..OpenHint::default()
        };
        let (log, recovered) = bench.open(hint);
        assert_eq!(recovered, Recovered::default(), "{file}");
        assert_eq!(extents(&log), before);
        assert!(log.append(sequenced(2, 7, 0, end as i32), 0).unwrap().duplicate);
    }
}

#[test]
fn a_segment_that_was_not_begun_leaves_no_hole_behind() {
    // The successor's file cannot be made; a smaller batch still fits into the old segment; then the daemon is killed.
    let bench = Bench::new();
    let log = bench.fresh();
    full::set(Some(".log"));
    fill(&log);
    full::set(None);
    let small = log.append(batch(1, ""), 0).unwrap();
    log.flush().unwrap();
    drop(log);
    let hint = OpenHint {
        recovery_point: small.last_offset + 1,
        ..OpenHint::default()
    };
    let (log, recovered) = bench.open(hint);
    assert_eq!(recovered, Recovered::default());
    assert_eq!(log.end(), small.last_offset + 1);
}

#[test]
fn a_flush_without_room_for_the_epochs_is_repeated_and_claims_nothing_before() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(2, "x"), 3).unwrap();
    full::set(Some("leader-epochs"));
    for _ in 0..2 {
        assert!(log.flush().is_err());
        assert_eq!((log.flushed_end(), log.poisoned()), (0, None));
        assert!(log.unflushed_bytes() > 0 && log.unflushed_since().is_some());
    }
    log.append(batch(1, "y"), 3).unwrap();
    full::set(None);
    assert_eq!(log.flush().unwrap(), 3);
    assert_eq!((log.unflushed_bytes(), log.unflushed_since()), (0, None));
    drop(log);
    let (log, _) = bench.open(OpenHint {
        recovery_point: 3,
        ..OpenHint::default()
    });
    assert_eq!((log.end(), log.last_epoch()), (3, Some(3)));
}

#[test]
fn the_reserve_is_held_back_from_records_of_every_log() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(1, "x"), 0).unwrap();
    let volume = |usable_bytes| Volume {
        path: bench.path().to_owned(),
        total_bytes: None,
        usable_bytes,
    };
    bench.env.room.note(&volume(Some(99)), 100);
    assert!(matches!(log.append(batch(1, "y"), 0), Err(AppendError::DiskFull)));
    let followed = log.append_at(placed(batch(1, "y"), 1, 0), None);
    assert!(matches!(followed, Err(AppendError::DiskFull)));
    assert_eq!((log.end(), log.flush().unwrap(), log.poisoned()), (1, 1, None));
    // A volume that does not tell changes nothing.
    bench.env.room.note(&volume(None), 100);
    assert!(bench.env.room.is_full());
    bench.env.room.note(&volume(Some(100)), 100);
    assert_eq!(log.append(batch(1, "y"), 0).unwrap().base_offset, 1);
    assert!(!Room::default().is_full());
}
