//! What a power cut may leave of a log: of everything written since the last flush any page may have reached the disk, in
//! any order, or not; of files that were replaced, the old one or the new.
//!
//! The images are made from two copies of the directory: one taken when a flush had returned (all of that is there), and
//! one at the cut. The unit is smaller than a disk's, so that many borders fall into every batch.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PAGE: usize = 64;

type Files = BTreeMap<String, Vec<u8>>;

fn files(bench: &Bench) -> Files {
    let entries = std::fs::read_dir(bench.path()).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Numbers that a case draws, one after the other.
struct Draws<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Draws<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let high = usize::from(*self.0.next().unwrap_or(&0));
        let low = usize::from(*self.0.next().unwrap_or(&0));
        (high << 8 | low) % limit
    }
}

/// One file as the cut may have left it.
fn torn(
    durable: Option<&Vec<u8>>,
    current: Option<&Vec<u8>>,
    in_place: bool,
    draws: &mut Draws<'_>,
) -> Option<Vec<u8>> {
    let (before, after) = (durable.cloned(), current.cloned());
    if before == after {
        return after;
    }
    let (Some(after), true) = (&after, in_place) else {
        return if draws.below(2) == 0 { before } else { after };
    };
    let before = before.unwrap_or_default();
    let (low, high) = (before.len().min(after.len()), before.len().max(after.len()));
    let length = match draws.below(3) {
        0 => low,
        1 => high,
        _ => low + draws.below(high - low + 1),
    };
    let mut image = Vec::with_capacity(length);
    while image.len() < length {
        let page = image.len()..(image.len() + PAGE).min(length);
        let of = |bytes: &[u8]| {
            let mut copy = bytes
                .get(page.start..page.end.min(bytes.len()))
                .unwrap_or_default()
                .to_vec();
            copy.resize(page.len(), 0);
            copy
        };
        image.extend(if draws.below(2) == 0 {
            of(&before)
        } else {
            of(after)
        });
    }
    Some(image)
}

#[derive(Debug, Clone)]
enum Step {
    Append { count: usize, producer: bool },
    Cut(i64),
    Flush,
    Trim(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..4, any::<bool>()).prop_map(|(count, producer)| Step::Append { count, producer }),
        1 => (0i64..8).prop_map(Step::Cut),
        2 => Just(Step::Flush),
        1 => (0i64..6).prop_map(Step::Trim),
    ]
}

struct Run {
    bench: Bench,
    log: Log,
    epoch: i32,
    sequence: i32,
    /// Every batch that was ever written, with every place that it had.
    ever: Vec<(i64, Bytes)>,
    /// The log's batches by base offset.
    now: BTreeMap<i64, Bytes>,
    durable: Files,
    /// What the last flush vouched for and no cut has taken back.
    floor: i64,
    /// What the checkpoints say of it.
    recovery_point: i64,
}

impl Run {
    fn new() -> Self {
        let mut bench = Bench::without_tail();
        bench.config.segment_bytes = 700;
        let log = bench.fresh();
        let durable = files(&bench);
        Self {
            bench,
            log,
            epoch: 0,
            sequence: 0,
            ever: Vec::new(),
            now: BTreeMap::new(),
            durable,
            floor: 0,
            recovery_point: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { count, producer } => {
                let value = format!("batch {} of epoch {}", self.ever.len(), self.epoch);
                let batch = if producer {
                    sequenced(count, 5, i16::try_from(self.epoch).unwrap(), self.sequence)
                } else {
                    batch(count, &value)
                };
                if producer {
                    self.sequence += i32::try_from(count).unwrap();
                }
                let base = self.log.append(batch, self.epoch).unwrap().base_offset;
                let bytes = Bytes::from(self.log.read(base, 1, i64::MAX).unwrap().records.concat());
                self.ever.push((base, bytes.clone()));
                self.now.insert(base, bytes);
            }
            Step::Cut(back) => {
                let offset = (self.log.end() - back).max(self.log.start());
                self.log.truncate_to(offset).unwrap();
                let end = self.log.end();
                self.now.retain(|base, _| *base < end);
                self.floor = self.floor.min(end);
                let files = files(&self.bench);
                let last = files.keys().rfind(|name| name.ends_with(".log")).cloned();
                self.synced("recovery-point");
                self.synced(&last.unwrap());
                // A log is cut because another leader has another log; its producers begin anew here.
                self.epoch += 1;
                self.sequence = 0;
            }
            Step::Flush => {
                self.floor = self.log.flush().unwrap();
                self.recovery_point = self.floor;
                self.log.checkpointed(self.floor).unwrap();
                self.durable = files(&self.bench);
            }
            Step::Trim(forward) => {
                let offset = (self.log.start() + forward)
                    .min(self.log.flushed_end())
                    .max(self.log.start());
                self.log.trim_to(offset).unwrap();
            }
        }
        // Segments that are gone are gone for good, and all but the last are flushed (`faults.rs` has the proof of that).
        self.durable
            .retain(|name, _| !name.ends_with(".log") || self.bench.path().join(name).exists());
        let mut logs: Files = files(&self.bench);
        logs.retain(|name, _| name.ends_with(".log"));
        logs.pop_last();
        self.durable.extend(logs);
    }

    /// This file was flushed before anything else happened.
    fn synced(&mut self, name: &str) {
        if let Ok(bytes) = std::fs::read(self.bench.path().join(name)) {
            self.durable.insert(name.to_owned(), bytes);
        }
    }

    /// The power is cut: another directory, as the disk may have it, must open well.
    fn cut_power(&self, draws: &mut Draws<'_>) {
        let current = files(&self.bench);
        let other = Bench {
            config: self.bench.config.clone(),
            ..Bench::without_tail()
        };
        for name in self.durable.keys().chain(current.keys()) {
            let in_place = name.ends_with(".log");
            if let Some(bytes) = torn(self.durable.get(name), current.get(name), in_place, draws) {
                std::fs::write(other.path().join(name), bytes).unwrap();
            }
        }
        let hint = OpenHint {
            log_start: self.log.start().min(self.floor),
            recovery_point: self.recovery_point,
            clean_shutdown: false,
        };
        let (log, recovered) = other.open(hint);
        assert!(!recovered.damaged, "{recovered:?}");
        assert!(log.end() >= self.floor, "{} of {} flushed", log.end(), self.floor);
        assert_eq!(log.start(), hint.log_start);
        let found = self.check(&log);
        drop(log);
        // Once more, as after a second cut while the first was recovered from.
        let (log, _) = other.open(hint);
        assert_eq!(self.check(&log), found);
        let end = log.end();
        assert_eq!(
            log.append(batch(1, "and on it goes"), self.epoch + 1)
                .unwrap()
                .base_offset,
            end
        );
    }

    /// Reads all of a log: nothing but what was written, where it was written, and all that was flushed.
    fn check(&self, log: &Log) -> Vec<(i64, Bytes)> {
        let (mut at, mut found) = (log.start(), Vec::new());
        while at < log.end() {
            let slice = log.read(at, 200, i64::MAX).unwrap();
            assert!(slice.bytes > 0, "nothing at {at}");
            for batch in batches(&slice) {
                let one = (batch.header().base_offset, batch.to_bytes());
                assert!(self.ever.contains(&one), "{} was never written", one.0);
                assert!(one.0 <= at, "{at} is left out");
                at = batch.header().next_offset();
                found.push(one);
            }
        }
        for (base, bytes) in self
            .now
            .iter()
            .filter(|(base, _)| **base >= log.start() && **base < self.floor)
        {
            assert!(
                found.contains(&(*base, bytes.clone())),
                "{base} was flushed and is gone"
            );
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_a_power_cut_leaves_holds_all_that_was_flushed_and_nothing_else(
        steps in proptest::collection::vec(step(), 1..50),
        draws in proptest::collection::vec(any::<u8>(), 64..256),
    ) {
        let mut run = Run::new();
        let mut draws = Draws(draws.iter().cycle());
        for (i, step) in steps.iter().enumerate() {
            run.step(step);
            if i % 4 == 3 {
                run.cut_power(&mut draws);
            }
        }
        run.cut_power(&mut draws);
    }
}
