//! Compaction against a model of it, a map of the last value per key, and against crashes at every step.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;

use proptest::prelude::*;

use super::compaction::{Stored, all_batches, compact, keyed, records, roll};
use super::*;
use crate::{Pace, Step, Unpaced};

/// What was ever appended, by offset.
type Appended = BTreeMap<i64, (String, Option<String>)>;

/// What every reader of a compacted log relies on.
fn check(log: &Log, appended: &Appended) {
    let found = records(log);
    let stored: BTreeMap<i64, (String, Option<String>)> = found
        .iter()
        .map(|(offset, key, value): &Stored| (*offset, (key.clone().unwrap(), value.clone())))
        .collect();
    assert_eq!(stored.len(), found.len(), "no offset twice");
    for (offset, record) in &stored {
        assert_eq!(
            appended.get(offset),
            Some(record),
            "what stands at {offset} is what was put there"
        );
    }
    let mut last: HashMap<&str, (i64, Option<&str>)> = HashMap::new();
    for (offset, (key, value)) in appended {
        last.insert(key, (*offset, value.as_deref()));
    }
    for (key, (newest, value)) in last {
        let left: Vec<i64> = stored
            .iter()
            .filter(|(_, r)| r.0 == key)
            .map(|(o, _)| *o)
            .collect();
        if value.is_some() || !left.is_empty() {
            assert_eq!(left.last(), Some(&newest), "the newest of {key:?} is there");
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Append {
        keys: Vec<(u8, Option<u8>)>,
        codec: usize,
        producer: Option<i64>,
    },
    Roll,
    Compact {
        later_ms: i64,
        keys: usize,
        back: i64,
    },
    Kill,
    Stop,
    CutAboveWatermark(i64),
}

fn act() -> impl Strategy<Value = Act> {
    let pairs = proptest::collection::vec((0u8..8, proptest::option::weighted(0.8, any::<u8>())), 1..6);
    prop_oneof![
        8 => (pairs, 0usize..5, proptest::option::of(0i64..3))
            .prop_map(|(keys, codec, producer)| Act::Append { keys, codec, producer }),
        2 => Just(Act::Roll),
        3 => (0i64..800, 1usize..12, 0i64..6)
            .prop_map(|(later_ms, keys, back)| Act::Compact { later_ms, keys, back }),
        1 => Just(Act::Kill),
        1 => Just(Act::Stop),
        1 => (0i64..4).prop_map(Act::CutAboveWatermark),
    ]
}

struct Run {
    bench: Bench,
    log: Log,
    appended: Appended,
    /// Every batch of each producer with its offset.
    producers: HashMap<i64, Vec<(i64, Batch)>>,
    watermark: i64,
}

impl Run {
    fn new() -> Self {
        let mut bench = Bench::compacted();
        bench.config.segment_bytes = 500;
        let log = bench.fresh();
        Self {
            bench,
            log,
            appended: Appended::new(),
            producers: HashMap::new(),
            watermark: 0,
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Append {
                keys,
                codec,
                producer,
            } => self.append(keys, Codec::ALL[*codec], *producer),
            Act::Roll => roll(&self.log),
            Act::Compact { later_ms, keys, back } => {
                self.bench.clock.set(self.bench.now() + later_ms);
                self.watermark = self.watermark.max(self.log.end() - back);
                let done = self
                    .log
                    .compact(self.bench.now(), self.watermark, keys * 32, &Unpaced)
                    .unwrap();
                assert!(done.first_dirty <= self.watermark.max(self.log.start()));
            }
            Act::Kill => self.reopen(false),
            Act::Stop => self.reopen(true),
            Act::CutAboveWatermark(back) => self.cut((self.log.end() - back).max(self.watermark)),
        }
        self.repeat();
        check(&self.log, &self.appended);
        let looked_at = self.log.first_dirty();
        let stored: Vec<i64> = records(&self.log)
            .iter()
            .map(|r| r.0)
            .filter(|o| *o >= looked_at)
            .collect();
        let put: Vec<i64> = self.appended.range(looked_at..).map(|(o, _)| *o).collect();
        assert_eq!(stored, put, "nobody looked at these yet");
    }

    fn append(&mut self, keys: &[(u8, Option<u8>)], codec: Codec, producer: Option<i64>) {
        let text: Vec<_> = keys
            .iter()
            .map(|(k, v)| (format!("key {k}"), v.map(|v| format!("value {v}"))))
            .collect();
        let pairs: Vec<_> = text.iter().map(|(k, v)| (&**k, v.as_deref())).collect();
        let mut batch = keyed(codec, &pairs);
        if let Some(producer) = producer {
            let written = self.producers.entry(producer).or_default();
            let next = written
                .last()
                .map_or(0, |(_, last)| last.header().last_sequence() + 1);
            let mut bytes = batch.to_bytes().to_vec();
            bytes[43..51].copy_from_slice(&producer.to_be_bytes());
            bytes[51..53].copy_from_slice(&0i16.to_be_bytes());
            bytes[53..57].copy_from_slice(&next.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            batch = Batch::parse(bytes.into()).unwrap();
            written.push((self.log.end(), batch.clone()));
        }
        let base = self.log.append(batch, 0).unwrap().base_offset;
        for (i, pair) in text.into_iter().enumerate() {
            self.appended.insert(base + i as i64, pair);
        }
    }

    fn cut(&mut self, offset: i64) {
        if offset >= self.log.end() {
            return;
        }
        self.log.truncate_to(offset).unwrap();
        let end = self.log.end();
        assert!(end <= offset);
        // A batch over the border goes whole, below the watermark only because batches are committed whole.
        self.watermark = self.watermark.min(end);
        self.appended.retain(|at, _| *at < end);
        self.producers
            .values_mut()
            .for_each(|written| written.retain(|(at, _)| *at < end));
    }

    fn reopen(&mut self, clean: bool) {
        if clean {
            self.log.close().unwrap();
        }
        let hint = OpenHint {
            log_start: self.log.start(),
            recovery_point: self.log.flushed_end(),
            clean_shutdown: clean,
        };
        let (log, recovered) = self.bench.open(hint);
        assert_eq!(recovered, Recovered::default());
        let (before, after) = (all_batches(&self.log), all_batches(&log));
        assert_eq!(before, after);
        assert_eq!(
            (log.end(), log.first_dirty()),
            (self.log.end(), self.log.first_dirty())
        );
        self.log = log;
    }

    /// A repeat of each producer's last batch is known, whatever became of its records.
    fn repeat(&self) {
        for (offset, batch) in self.producers.values().filter_map(|written| written.last()) {
            let again = self.log.append(batch.clone(), 0).unwrap();
            assert_eq!((again.duplicate, again.base_offset), (true, *offset));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_compacted_log_holds_the_last_value_of_every_key(acts in proptest::collection::vec(act(), 1..50)) {
        let mut run = Run::new();
        for act in &acts {
            run.act(act);
        }
        // At rest nothing but the newest of each key and the tombstones that are not due is left.
        roll(&run.log);
        compact(&run.bench, &run.log);
        check(&run.log, &run.appended);
        let mut seen = std::collections::HashSet::new();
        for (_, key, _) in records(&run.log) {
            prop_assert!(seen.insert(key), "one record per key");
        }
    }
}

/// Copies the directory at every step.
struct Images {
    from: PathBuf,
    to: PathBuf,
    taken: Mutex<Vec<(Step, PathBuf)>>,
}

impl Pace for Images {
    fn spent(&self, _bytes: usize) -> bool {
        true
    }

    fn before(&self, step: Step) {
        let mut taken = self.taken.lock().unwrap();
        let image = self.to.join(taken.len().to_string());
        copy(&self.from, &image);
        taken.push((step, image));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let all = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = all
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Opens an image as after a power cut, checks it, and lets it be used.
fn survives(bench: &Bench, image: &Path, appended: &Appended, context: &str) {
    for clean_shutdown in [false, true] {
        let again = tempfile::tempdir().unwrap();
        copy(image, again.path());
        let hint = OpenHint {
            recovery_point: appended.len() as i64,
            clean_shutdown,
            ..OpenHint::default()
        };
        let (log, recovered) = Log::open(again.path(), bench.config.clone(), hint, &bench.env).unwrap();
        assert_eq!(recovered, Recovered::default(), "{context}");
        assert_eq!(log.end(), appended.len() as i64, "{context}");
        check(&log, appended);
        let left = names(again.path());
        let odd: Vec<_> = left
            .iter()
            .filter(|n| n.ends_with(".cleaned") || n.ends_with(".swap"))
            .collect();
        assert!(odd.is_empty(), "{context}: {odd:?}");
        log.compact(bench.now(), log.end(), 1 << 20, &Unpaced).unwrap();
        check(&log, appended);
        log.truncate_to(log.end() - 1).unwrap();
        log.append(keyed(Codec::None, &[("k", Some("goes on"))]), 0)
            .unwrap();
    }
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new() {
    let mut bench = Bench::compacted();
    bench.config.segment_bytes = 700;
    let log = bench.fresh();
    let mut appended = Appended::new();
    let put = |log: &Log, appended: &mut Appended, i: i64| {
        let (key, value) = (
            format!("key {}", i % 9),
            (i % 5 > 0).then(|| format!("value {i}")),
        );
        let pairs = [(&*key, value.as_deref())];
        let at = log
            .append(keyed(Codec::ALL[i as usize % 5], &pairs), 0)
            .unwrap()
            .base_offset;
        appended.insert(at, (key.clone(), value));
    };
    for i in 0..40 {
        put(&log, &mut appended, i);
    }
    roll(&log);
    // So that there are small segments, which the second round joins.
    compact(&bench, &log);
    for i in 40..60 {
        put(&log, &mut appended, i);
    }
    roll(&log);
    put(&log, &mut appended, 60);
    log.flush().unwrap();
    bench.clock.set(bench.now() + 2_000);
    let place = tempfile::tempdir().unwrap();
    let images = Images {
        from: bench.path().to_owned(),
        to: place.path().to_owned(),
        taken: Mutex::default(),
    };
    log.compact(bench.now(), log.end(), 1 << 20, &images).unwrap();
    check(&log, &appended);
    let taken = images.taken.into_inner().unwrap();
    let steps: Vec<Step> = taken.iter().map(|(step, _)| *step).collect();
    for step in [
        Step::Written,
        Step::Flushed,
        Step::Named,
        Step::Removed,
        Step::Renamed,
        Step::Checkpoint,
    ] {
        assert!(steps.contains(&step), "{step:?} was not looked at: {steps:?}");
    }
    for (step, image) in &taken {
        let context = format!("{step:?} {}", image.display());
        survives(&bench, image, &appended, &context);
        let files = names(image);
        if *step == Step::Written {
            // Not flushed: any part of it may be missing.
            for name in files.iter().filter(|n| n.ends_with(".log.cleaned")) {
                let path = image.join(name);
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                survives(&bench, image, &appended, &context);
            }
        }
        if *step == Step::Named {
            // Removals that are under way reach the disk in any order, and so do the new indexes.
            let swap = files.iter().find(|n| n.ends_with(".swap")).unwrap();
            let last: i64 = swap[21..41].parse().unwrap();
            let first: i64 = swap[..20].parse().unwrap();
            for name in &files {
                let Some(base) = name.get(..20).and_then(|n| n.parse::<i64>().ok()) else {
                    continue;
                };
                let old = (first + 1..=last).contains(&base) && !name.ends_with(".snapshot");
                let index = base == first && name.contains("index");
                if old || index {
                    let other = tempfile::tempdir().unwrap();
                    copy(image, other.path());
                    std::fs::remove_file(other.path().join(name)).unwrap();
                    survives(
                        &bench,
                        other.path(),
                        &appended,
                        &format!("{context} without {name}"),
                    );
                }
                if index {
                    let other = tempfile::tempdir().unwrap();
                    copy(image, other.path());
                    std::fs::write(other.path().join(name), [0; 24]).unwrap();
                    survives(
                        &bench,
                        other.path(),
                        &appended,
                        &format!("{context}, torn {name}"),
                    );
                }
            }
        }
    }
}

#[test]
fn readers_beside_compaction_see_every_key_and_no_torn_batch() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    for i in 0..200 {
        let (key, value) = (format!("key {}", i % 11), format!("value {i}"));
        log.append(keyed(Codec::Lz4, &[(&key, Some(&value))]), 0).unwrap();
        if i % 20 == 19 {
            roll(&log);
        }
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let found = records(&log);
                    let keys: std::collections::HashSet<_> = found.iter().map(|r| r.1.clone()).collect();
                    assert_eq!(keys.len(), 11);
                    assert!(found.windows(2).all(|w| w[0].0 < w[1].0));
                    log.offset_for_timestamp(0, i64::MAX).unwrap().unwrap();
                    log.max_timestamp(i64::MAX).unwrap().unwrap();
                }
            });
        }
        for i in 200..500 {
            let (key, value) = (format!("key {}", i % 11), format!("value {i}"));
            log.append(keyed(Codec::None, &[(&key, Some(&value))]), 0)
                .unwrap();
            if i % 10 == 0 {
                compact(&bench, &log);
            }
        }
        done.store(true, Ordering::Release);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn damaged_files_beside_a_compaction_never_panic(
        file in 0usize..1_000,
        flips in proptest::collection::vec((0usize..4_000, 1u8..), 1..6),
        swap in any::<[u8; 90]>(),
    ) {
        let bench = Bench::compacted();
        let log = bench.fresh();
        for i in 0..30 {
            log.append(keyed(Codec::None, &[(&format!("{}", i % 4), Some("v"))]), 0).unwrap();
            if i % 8 == 7 {
                roll(&log);
            }
        }
        compact(&bench, &log);
        log.close().unwrap();
        drop(log);
        let all = names(bench.path());
        let path = bench.path().join(&all[file % all.len()]);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, flip) in flips {
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= flip;
            }
        }
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(bench.path().join(format!("{:020}-{:020}.swap", 0, 8)), swap).unwrap();
        std::fs::write(bench.path().join("first-dirty"), &swap[..5]).unwrap();
        let (log, _) = bench.open(OpenHint::default());
        let _ = log.compact(bench.now(), log.end(), 1 << 20, &Unpaced);
        let _ = log.dirtiness(bench.now(), log.end());
        let mut at = log.start();
        while let Ok(slice) = log.read(at, 100, i64::MAX) {
            if slice.bytes == 0 { break }
            at = slice.next_offset;
        }
    }
}
