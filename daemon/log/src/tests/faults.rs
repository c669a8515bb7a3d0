//! One thing wrong with the files of a sound log: a bit, a file that is gone, an fsync that fails. Whatever it is, what is
//! served is what was written; the rest is an error or reported damage, and does not hinder the good part.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;

use super::*;
use crate::{AppendError, ReadError};

/// Base offset and leader epoch lie outside a batch's CRC, in Kafka's format: a change there that keeps them in order
/// cannot be seen.
const UNPROTECTED: [std::ops::Range<usize>; 2] = [0..8, 12..16];

/// Whether the byte at this place of a segment is one of those.
fn is_unprotected(segment: &[u8], at: usize) -> bool {
    let mut start = 0;
    for batch in split(Bytes::copy_from_slice(segment)).map(Result::unwrap) {
        if at < start + batch.size() {
            return UNPROTECTED.iter().any(|range| range.contains(&(at - start)));
        }
        start += batch.size();
    }
    false
}

/// A log of several segments on disk, flushed, and what it holds.
struct Sample {
    bench: Bench,
    /// The batches by base offset.
    written: BTreeMap<i64, Bytes>,
    end: i64,
    /// Every file with its contents.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Sample {
    fn new(clean: bool) -> Self {
        let bench = Bench::without_tail();
        let log = bench.fresh();
        for i in 0..24 {
            log.append(sequenced(2, 7, 0, i * 2), i / 9).unwrap();
            log.append(timed(1, "a plain record", i64::from(i)), i / 9)
                .unwrap();
        }
        log.flush().unwrap();
        let mut written = BTreeMap::new();
        let mut at = 0;
        while at < log.end() {
            for batch in batches(&log.read(at, 1, i64::MAX).unwrap()) {
                at = batch.header().next_offset();
                written.insert(batch.header().base_offset, batch.to_bytes());
            }
        }
        let end = log.end();
        if clean {
            log.close().unwrap();
        }
        drop(log);
        let mut files: Vec<_> = std::fs::read_dir(bench.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        Self {
            bench,
            written,
            end,
            files,
        }
    }

    /// Puts everything back as it was.
    fn restore(&self) {
        for entry in std::fs::read_dir(self.bench.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (path, bytes) in &self.files {
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Whether this is a batch of the log but for what is not protected.
    fn is_moved(&self, found: &[u8]) -> bool {
        let masked = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            UNPROTECTED.iter().for_each(|range| bytes[range.clone()].fill(0));
            bytes
        };
        self.written
            .values()
            .any(|original| masked(original) == masked(found))
    }

    /// Opens the log and reads all of it; `same` compares what is read with what was written.
    fn judge(&self, clean: bool, context: &str, same: impl Fn(&[u8], &[u8]) -> bool) -> Verdict {
        let hint = OpenHint {
            recovery_point: self.end,
            clean_shutdown: clean,
            log_start: 0,
        };
        let (log, recovered) = self.bench.open(hint);
        let mut verdict = Verdict {
            damaged: recovered.damaged,
            refused: 0,
            missing: 0,
            producer_known: true,
        };
        for (&base, original) in &self.written {
            if base < log.start() || base >= log.end() {
                verdict.missing += 1;
                continue;
            }
            match log.read(base, 1, i64::MAX) {
                Ok(slice) if slice.bytes == 0 => verdict.missing += 1,
                Ok(slice) => {
                    let found = slice.records.concat();
                    assert!(same(&found, original), "{context}: another batch at {base}");
                }
                Err(ReadError::Damaged { .. } | ReadError::Io { .. }) => verdict.refused += 1,
                Err(error) => panic!("{context}: {error}"),
            }
        }
        if verdict.missing == 0 && verdict.refused == 0 {
            let again = log.append(sequenced(2, 7, 0, 46), 3);
            verdict.producer_known = again.is_ok_and(|appended| appended.duplicate);
        }
        assert!(
            verdict.missing == 0 || verdict.damaged,
            "{context}: {} batches are gone and nobody is told",
            verdict.missing
        );
        verdict
    }
}

#[derive(Debug)]
struct Verdict {
    damaged: bool,
    /// Batches that could not be read.
    refused: usize,
    /// Batches that the log does not have.
    missing: usize,
    /// Whether a repeat of the producer's last batch is taken for one.
    producer_known: bool,
}

impl Verdict {
    fn is_whole(&self) -> bool {
        self.refused == 0 && self.missing == 0
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or("")
}

#[test]
fn a_flipped_bit_in_any_file_is_never_served() {
    for clean in [false, true] {
        let sample = Sample::new(clean);
        let mut refused = 0;
        for (path, bytes) in &sample.files {
            for at in (0..bytes.len()).step_by(41) {
                sample.restore();
                let mut spoilt = bytes.clone();
                spoilt[at] ^= 1 << (at % 8);
                std::fs::write(path, &spoilt).unwrap();
                let context = format!("{} at {at}, clean: {clean}", path.display());
                let is_log = extension(path) == "log";
                let unseen = is_log && is_unprotected(bytes, at);
                let verdict = sample.judge(clean, &context, |found, original| {
                    found == original || unseen && sample.is_moved(found)
                });
                assert!(is_log || verdict.is_whole(), "{context}: {verdict:?}");
                assert!(unseen || verdict.producer_known, "{context}: {verdict:?}");
                // Besides the bad one only those are refused that are found by way of it, up to the next index entry.
                assert!(verdict.damaged || verdict.refused <= 4, "{context}: {verdict:?}");
                refused += verdict.refused;
            }
        }
        assert!(refused > 10, "{refused} refused");
    }
}

#[test]
fn a_missing_file_of_any_kind_changes_nothing_or_is_reported() {
    for clean in [false, true] {
        let sample = Sample::new(clean);
        let logs = sample.files.iter().filter(|(path, _)| extension(path) == "log");
        let last = logs.map(|(path, _)| path).next_back().unwrap();
        for (path, _) in &sample.files {
            sample.restore();
            std::fs::remove_file(path).unwrap();
            let context = format!("{} is gone, clean: {clean}", path.display());
            let verdict = sample.judge(clean, &context, |found, original| found == original);
            assert!(
                verdict.refused == 0 && verdict.producer_known,
                "{context}: {verdict:?}"
            );
            let is_log = extension(path) == "log";
            assert_eq!(!verdict.is_whole(), is_log, "{context}: {verdict:?}");
            assert_eq!(verdict.damaged, is_log, "{context}: {verdict:?}");
            if is_log && path != last {
                // What came after it is kept aside, not deleted.
                let kept = std::fs::read_dir(sample.bench.path())
                    .unwrap()
                    .filter(|entry| {
                        entry
                            .as_ref()
                            .unwrap()
                            .path()
                            .to_string_lossy()
                            .contains(".damaged.")
                    })
                    .count();
                let first = path.ends_with(format!("{:020}.log", 0));
                assert!(first || kept > 0, "{context}");
            }
        }
    }
}

#[test]
fn damage_is_told_at_every_start_until_it_is_known() {
    let sample = Sample::new(true);
    let hint = |recovery_point| OpenHint {
        recovery_point,
        ..OpenHint::default()
    };
    let mut logs = sample.files.iter().filter(|(path, _)| extension(path) == "log");
    let (path, bytes) = logs.next_back().unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    // A start without a word of the checkpoints trusts nothing, and finds the damage again by its mark.
    assert!(sample.bench.open(hint(sample.end)).1.damaged);
    let (log, recovered) = sample.bench.open(hint(0));
    assert!(recovered.damaged, "it was forgotten");
    log.told().unwrap();
    drop(log);
    assert!(!sample.bench.open(hint(0)).1.damaged);
}

/// Makes the active segment's file one that takes writes and cannot be flushed.
fn break_flushes(log: &Log) {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    log.lock().active().file.replace(null);
}

#[test]
fn a_segment_is_flushed_before_its_successor_takes_anything() {
    let bench = Bench::new();
    let log = bench.fresh();
    log.append(batch(1, "flushed"), 0).unwrap();
    log.flush().unwrap();
    break_flushes(&log);
    // Or a power cut might take the end of the one and leave the other: a hole in the log.
    let failed = (0..100).find_map(|_| log.append(batch(1, "until the segment is full"), 0).err());
    assert!(matches!(failed, Some(AppendError::Io(_))), "{failed:?}");
    assert!(log.poisoned().unwrap().starts_with("flushing: "));
    assert_eq!(log.flushed_end(), 1);
    drop(log);
    let (log, recovered) = bench.open(OpenHint::default());
    assert_eq!((log.end(), recovered.unflushed_lost), (1, true));
}

#[test]
fn what_a_failed_flush_was_to_save_is_not_believed_after_a_restart() {
    let bench = Bench::new();
    let log = bench.fresh();
    for _ in 0..10 {
        log.append(batch(1, "flushed"), 0).unwrap();
    }
    log.flush().unwrap();
    for _ in 0..20 {
        log.append(batch(1, "in the page cache, and nowhere else"), 0)
            .unwrap();
    }
    break_flushes(&log);
    assert!(log.flush().is_err());
    assert!(log.poisoned().unwrap().starts_with("flushing: "));
    assert_eq!((log.flushed_end(), log.end()), (10, 30));
    // Readers go on with what is in memory; nobody writes, and a second flush does not pretend.
    assert_eq!(log.read(0, 1 << 20, 10).unwrap().next_offset, 10);
    assert!(matches!(
        log.append(batch(1, "x"), 0),
        Err(AppendError::Poisoned(_))
    ));
    assert!(log.flush().is_err());
    log.close().unwrap();
    log.told().unwrap();
    drop(log);
    // Not even a stop in order vouches for the rest.
    let clean = OpenHint {
        recovery_point: 10,
        clean_shutdown: true,
        log_start: 0,
    };
    let (log, recovered) = bench.open(clean);
    assert_eq!(
        (log.end(), recovered.damaged, recovered.unflushed_lost),
        (10, false, true)
    );
    assert_eq!(extents(&log).len(), 10);
    assert_eq!(log.append(batch(1, "again"), 1).unwrap().base_offset, 10);
    log.flush().unwrap();
    drop(log);
    // What has been appended since stays, whether the cluster has heard of the failure or not.
    let (log, recovered) = bench.open(OpenHint::default());
    assert_eq!(
        (log.end(), recovered.damaged, recovered.unflushed_lost),
        (11, false, true)
    );
    log.told().unwrap();
    log.close().unwrap();
    drop(log);
    assert_eq!(bench.open(OpenHint::default()).1, Recovered::default());
}
