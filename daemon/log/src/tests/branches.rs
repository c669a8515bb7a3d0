//! Branches: what they hold, and that neither side ever changes a byte of the other's.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tradewind_wire::batch::{ControlKind, control_batch};

use super::compaction::{compact, put};
use super::*;
use crate::{BranchError, BranchLimits, Branched, TruncateError, Volume};

const FREE: BranchLimits = BranchLimits {
    copy_bytes: u64::MAX,
    until: Duration::MAX,
};

/// Every file of a directory, by name: its bytes and how many names it has.
type Files = BTreeMap<String, (Vec<u8>, u64)>;

fn files(dir: &Path) -> Files {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let file = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let links = entry.metadata().unwrap().nlink();
        (name, (std::fs::read(entry.path()).unwrap(), links))
    };
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(file)
        .collect()
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    files(dir)
        .into_iter()
        .map(|(name, (bytes, _))| (name, bytes))
        .collect()
}

fn place(bench: &Bench) -> PathBuf {
    bench.path().join("branch")
}

fn branch_at(bench: &Bench, log: &Log, up_to: i64) -> (Log, Branched) {
    let made = log.branch(&place(bench), up_to, FREE).unwrap();
    let (branch, recovered) = Log::open(&place(bench), bench.config.clone(), made.hint, &bench.env).unwrap();
    assert_eq!(recovered, Recovered::default());
    (branch, made)
}

/// A log of 60 batches of one record in many segments, whose leader epoch rises every ten.
fn filled(bench: &Bench) -> Log {
    let log = bench.fresh();
    for i in 0..60 {
        let batch = sequenced(1, 4, 0, i);
        log.append(batch, i / 10).unwrap();
    }
    log
}

#[test]
fn a_branch_holds_what_lies_below_its_end_wherever_that_is() {
    for up_to in 0..=60 {
        let bench = Bench::without_tail();
        let log = filled(&bench);
        let (branch, made) = branch_at(&bench, &log, up_to);
        assert_eq!((branch.start(), branch.end()), (0, up_to));
        let below: Vec<_> = (0..up_to).map(|at| (at, at + 1)).collect();
        assert_eq!(extents(&branch), below);
        assert_eq!(branch.last_epoch(), (up_to > 0).then(|| (up_to as i32 - 1) / 10));
        for epoch in 0..branch.last_epoch().unwrap_or(0) {
            assert_eq!(
                branch.end_offset_for_epoch(epoch),
                log.end_offset_for_epoch(epoch)
            );
        }
        let shared = files(&place(&bench))
            .into_iter()
            .filter(|(name, (_, links))| name.ends_with(".log") && *links == 2);
        assert_eq!(shared.count(), made.linked_segments);
        assert!(made.copied_bytes < 1_000, "{made:?}");
        // Its producer goes on where the branch ends, and not elsewhere.
        if up_to > 0 {
            let repeated = branch.append(sequenced(1, 4, 0, up_to as i32 - 1), 9).unwrap();
            assert!(repeated.duplicate);
            assert!(branch.append(sequenced(1, 4, 0, up_to as i32 + 1), 9).is_err());
        }
        let next = branch.append(sequenced(1, 4, 0, up_to as i32), 9).unwrap();
        assert_eq!((next.base_offset, next.duplicate), (up_to, false));
    }
}

#[test]
fn an_open_transaction_is_open_in_the_branch() {
    let bench = Bench::without_tail();
    let log = bench.fresh();
    let transactional = |producer: i64, sequence: i32| {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder
            .append(1_000, None, Some(b"in a transaction"), &[])
            .producer(producer, 0, sequence)
            .transactional();
        Batch::parse(builder.build()).unwrap()
    };
    let abort = || Batch::parse(control_batch(ControlKind::Abort, 7, 0, 0, 1_000)).unwrap();
    for i in 0..20 {
        log.append(transactional(7, i), 0).unwrap();
    }
    log.append(abort(), 0).unwrap();
    log.append(transactional(8, 0), 0).unwrap();
    for _ in 0..20 {
        log.append(batch(1, "beside it"), 0).unwrap();
    }
    let end = log.end();
    let (branch, _) = branch_at(&bench, &log, end);
    assert_eq!(branch.last_stable_offset(end), 21);
    assert_eq!(
        branch.aborted_transactions(0, end),
        log.aborted_transactions(0, end)
    );
}

#[test]
fn a_follower_that_truncates_during_a_drill_leaves_its_branch_alone() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    log.branch(&place(&bench), 45, FREE).unwrap();
    let before = contents(&place(&bench));
    // Into a segment that both share, and anew from there: what a follower does whose leader has another history.
    log.truncate_to(22).unwrap();
    for i in 0..40 {
        log.append(batch(1, &format!("another history {i}")), 20).unwrap();
    }
    assert_eq!(contents(&place(&bench)), before);
    log.truncate_to(3).unwrap();
    log.append(batch(1, "and another"), 21).unwrap();
    log.trim_to(2).unwrap();
    log.flush().unwrap();
    assert_eq!(contents(&place(&bench)), before);
    log.reset_at(100).unwrap();
    log.append(batch(1, "from nothing"), 22).unwrap();
    log.close().unwrap();
    assert_eq!(contents(&place(&bench)), before);
    let hint = OpenHint {
        recovery_point: 0,
        ..OpenHint::default()
    };
    let (branch, recovered) = Log::open(&place(&bench), bench.config.clone(), hint, &bench.env).unwrap();
    assert_eq!(recovered, Recovered::default());
    assert_eq!(branch.end(), 45);
    // And the log is sound, with what it was given since.
    let (log, recovered) = bench.open(OpenHint {
        log_start: 100,
        recovery_point: 0,
        clean_shutdown: false,
    });
    assert_eq!(recovered, Recovered::default());
    assert_eq!(extents(&log), [(100, 101)]);
}

#[test]
fn a_cut_while_the_branch_is_made_is_noticed() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                log.truncate_to(log.end() - 7).unwrap();
                for _ in 0..8 {
                    log.append(batch(1, &format!("history {i}")), 20).unwrap();
                }
            }
        });
        let mut made_any = 0;
        for _ in 0..100 {
            let up_to = log.end();
            match log.branch(&place(&bench), up_to, FREE) {
                Ok(made) => {
                    let opened = Log::open(&place(&bench), bench.config.clone(), made.hint, &bench.env);
                    let (branch, recovered) = opened.unwrap();
                    assert_eq!((branch.end(), recovered), (up_to, Recovered::default()));
                    assert_eq!(extents(&branch).len() as i64, up_to);
                    made_any += 1;
                }
                Err(BranchError::Cut | BranchError::OutOfRange { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let _ = std::fs::remove_dir_all(place(&bench));
        }
        done.store(true, Ordering::Relaxed);
        assert!(made_any > 0);
    });
}

#[test]
fn whatever_happens_to_the_branch_the_log_keeps_its_bytes() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    log.flush().unwrap();
    let before = contents(bench.path());
    let made = log.branch(&place(&bench), 45, FREE).unwrap();
    // Its indexes are spoilt, so that opening it writes them anew; and a segment in the middle, so that it is cut there.
    let mut spoilt = 0;
    for (name, (bytes, _)) in files(&place(&bench)) {
        let path = place(&bench).join(&name);
        if name.ends_with(".index") {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
            std::fs::hard_link(&path, bench.path().join(format!("other-{name}"))).unwrap();
            spoilt += 1;
        }
    }
    assert!(spoilt > 2);
    let others = contents(bench.path());
    let (branch, _) = Log::open(&place(&bench), bench.config.clone(), made.hint, &bench.env).unwrap();
    branch.truncate_to(22).unwrap();
    for i in 0..40 {
        branch
            .append(batch(1, &format!("the branch's own {i}")), 20)
            .unwrap();
    }
    branch.close().unwrap();
    assert_eq!(contents(bench.path()), others);
    std::fs::remove_dir_all(place(&bench)).unwrap();
    for (name, bytes) in before {
        assert_eq!(std::fs::read(bench.path().join(&name)).unwrap(), bytes, "{name}");
    }
    log.append(sequenced(1, 4, 0, 60), 9).unwrap();
    assert_eq!(extents(&log).len(), 61);
}

#[test]
fn a_torn_tail_is_cut_without_touching_who_shares_it() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    log.flush().unwrap();
    drop(log);
    // As if a crash had left a branch that shares even the last segment.
    std::fs::create_dir(place(&bench)).unwrap();
    for name in files(bench.path()).into_keys() {
        std::fs::hard_link(bench.path().join(&name), place(&bench).join(&name)).unwrap();
    }
    let last = files(bench.path())
        .into_keys()
        .filter(|name| name.ends_with(".log"))
        .max()
        .unwrap();
    let path = bench.path().join(&last);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let before = contents(&place(&bench));
    let (log, recovered) = bench.open(OpenHint::default());
    assert!(recovered.truncated_bytes > 0);
    assert_eq!(log.end(), 59);
    for i in 59..80 {
        log.append(sequenced(1, 4, 0, i), 9).unwrap();
    }
    log.close().unwrap();
    assert_eq!(contents(&place(&bench)), before);
}

#[test]
fn compaction_and_retention_leave_the_branch_alone() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..80 {
        put(&log, &[(["a", "b", "c"][i % 3], Some("a value that takes room"))]);
    }
    let (branch, made) = branch_at(&bench, &log, 70);
    assert!(made.linked_segments > 3);
    let before = contents(&place(&bench));
    let done = compact(&bench, &log);
    assert!(done.bytes_after < done.bytes_before);
    log.trim_to(60).unwrap();
    assert_eq!(contents(&place(&bench)), before);
    assert_eq!(extents(&branch).len(), 70);
    // What is shared no longer costs the volume what it did.
    drop(branch);
    std::fs::remove_dir_all(place(&bench)).unwrap();
    assert!(files(bench.path()).values().all(|(_, links)| *links == 1));
    // A branch of what was compacted is what is left of it.
    let (branch, _) = branch_at(&bench, &log, 80);
    assert_eq!(extents(&branch), extents(&log));
    assert_eq!(branch.first_dirty(), log.first_dirty());
}

#[test]
fn what_would_cost_too_much_is_refused_and_leaves_nothing() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    let refused = |up_to: i64, limits: BranchLimits| {
        let error = log.branch(&place(&bench), up_to, limits).unwrap_err();
        assert!(!place(&bench).exists(), "{error}");
        error
    };
    let nothing = BranchLimits {
        copy_bytes: 0,
        ..FREE
    };
    assert!(matches!(refused(60, nothing), BranchError::TooLarge { .. }));
    let at_once = BranchLimits {
        until: Duration::ZERO,
        ..FREE
    };
    assert!(matches!(refused(60, at_once), BranchError::OutOfTime));
    let volume = |usable_bytes| Volume {
        path: place(&bench),
        total_bytes: None,
        usable_bytes: Some(usable_bytes),
    };
    bench.env.room.note(&volume(10), 11);
    assert!(matches!(refused(60, FREE), BranchError::DiskFull));
    bench.env.room.note(&volume(12), 11);
    assert!(matches!(refused(61, FREE), BranchError::OutOfRange { .. }));
    assert!(matches!(refused(-1, FREE), BranchError::OutOfRange { .. }));
    log.trim_to(30).unwrap();
    assert!(matches!(refused(29, FREE), BranchError::OutOfRange { .. }));
    let (branch, _) = branch_at(&bench, &log, 30);
    assert_eq!((branch.start(), branch.end(), extents(&branch)), (30, 30, vec![]));
    drop(branch);
    std::fs::remove_dir_all(place(&bench)).unwrap();
    log.close().unwrap();
    assert!(matches!(refused(40, FREE), BranchError::Unusable(_)));
}

/// The copy that a cut needs is made before the cut begins: a disk without room for it leaves the log as it was.
#[test]
fn a_cut_of_what_a_branch_shares_needs_room_and_changes_nothing_without() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    let made = log.branch(&place(&bench), 45, FREE).unwrap();
    let before = (contents(bench.path()), extents(&log));
    crate::files::full::set(Some(".log.tmp"));
    let refused = log.truncate_to(25);
    crate::files::full::set(None);
    assert!(matches!(refused, Err(TruncateError::NoRoom)), "{refused:?}");
    assert_eq!(log.poisoned(), None);
    assert_eq!((contents(bench.path()), extents(&log)), before);
    log.append(sequenced(1, 4, 0, 60), 6).unwrap();
    log.truncate_to(25).unwrap();
    assert_eq!(log.end(), 25);
    let (branch, recovered) = Log::open(&place(&bench), bench.config.clone(), made.hint, &bench.env).unwrap();
    assert_eq!((branch.end(), recovered), (45, Recovered::default()));
}

#[test]
fn the_newest_part_of_a_log_is_found_by_bytes_wherever_segments_begin() {
    let bench = Bench::without_tail();
    let log = filled(&bench);
    let size = |from: i64, to: i64| -> u64 {
        let slice = log.read_stored(from, usize::MAX >> 1, to).unwrap();
        slice.records.iter().map(|bytes| bytes.len() as u64).sum()
    };
    let one = size(0, 1);
    for up_to in 1..=60 {
        assert_eq!(log.recent_from(up_to, 0).unwrap(), up_to, "nothing is wanted");
        assert_eq!(
            log.recent_from(up_to, 1).unwrap(),
            up_to - 1,
            "one batch at least"
        );
        for batches in [1, 2, 7, 30] {
            let from = log.recent_from(up_to, batches * one).unwrap();
            assert_eq!(from, (up_to - batches as i64).max(0), "{batches} below {up_to}");
            let odd = log.recent_from(up_to, batches * one + one / 2).unwrap();
            assert_eq!(odd, from, "whole batches");
        }
        assert_eq!(log.recent_from(up_to, u64::MAX).unwrap(), 0);
    }
    log.trim_to(5).unwrap();
    assert_eq!(log.recent_from(60, u64::MAX).unwrap(), 5);
    assert_eq!(log.recent_from(5, u64::MAX).unwrap(), 5);
}

/// Cuts a log and lets it grow again to the same size, when it is first asked for the time.
#[derive(Default)]
struct CutsMeanwhile(parking_lot::Mutex<Option<Arc<Log>>>);

impl Clock for CutsMeanwhile {
    fn now_ms(&self) -> i64 {
        1_000
    }

    fn monotonic(&self) -> Duration {
        let log = self.0.lock().take();
        if let Some(log) = log {
            log.truncate_to(59).unwrap();
            log.append(sequenced(1, 4, 0, 59), 9).unwrap();
        }
        Duration::ZERO
    }
}

#[test]
fn a_cut_is_noticed_even_if_the_log_has_grown_again() {
    let mut bench = Bench::without_tail();
    let clock = Arc::new(CutsMeanwhile::default());
    bench.env.clock = clock.clone();
    let log = Arc::new(filled(&bench));
    *clock.0.lock() = Some(Arc::clone(&log));
    let made = log.branch(&place(&bench), 60, FREE);
    assert!(matches!(made, Err(BranchError::Cut)), "{made:?}");
    assert_eq!(log.end(), 60);
    assert!(!place(&bench).exists());
}
