//! The log against a model of itself: a list of batches. Whatever is done, in whatever order, both must agree, also after
//! a kill or a clean stop in between.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::AppendError;

#[derive(Debug, Clone)]
enum Step {
    Append { count: usize, producer: Option<i64> },
    Repeat { producer: i64 },
    AppendAt { gap: i64, count: usize, newer: bool },
    NewEpoch,
    TruncateBack(i64),
    TrimForward(i64),
    ResetForward(i64),
    Flush,
    Kill,
    Stop,
    Retain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1usize..5, proptest::option::of(0i64..3)).prop_map(|(count, producer)| Step::Append { count, producer }),
        2 => (0i64..3).prop_map(|producer| Step::Repeat { producer }),
        3 => (0i64..4, 1usize..4, any::<bool>())
            .prop_map(|(gap, count, newer)| Step::AppendAt { gap, count, newer }),
        1 => Just(Step::NewEpoch),
        2 => (0i64..20).prop_map(Step::TruncateBack),
        1 => (0i64..10).prop_map(Step::TrimForward),
        1 => (0i64..5).prop_map(Step::ResetForward),
        1 => Just(Step::Flush),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        1 => Just(Step::Retain),
    ]
}

/// What a batch is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    base: i64,
    next: i64,
    epoch: i32,
    /// Producer and first sequence.
    sequence: Option<(i64, i32)>,
}

struct Model {
    batches: Vec<Kept>,
    start: i64,
    end: i64,
    epoch: i32,
}

impl Model {
    fn push(&mut self, base: i64, count: usize, sequence: Option<(i64, i32)>) {
        let next = base + count as i64;
        self.batches.push(Kept {
            base,
            next,
            epoch: self.epoch,
            sequence,
        });
        self.end = next;
    }

    /// The sequence that would continue each producer.
    fn sequences(&self) -> HashMap<i64, i32> {
        let mut next = HashMap::new();
        for kept in &self.batches {
            if let Some((producer, first)) = kept.sequence {
                next.insert(producer, first + (kept.next - kept.base) as i32);
            }
        }
        next
    }

    fn truncate(&mut self, offset: i64) {
        if offset >= self.end {
            return;
        }
        self.batches.retain(|kept| kept.next <= offset);
    }
}

fn check(log: &Log, model: &Model) {
    assert_eq!((log.start(), log.end()), (model.start, model.end));
    assert!(log.flushed_end() <= log.end());
    let visible: Vec<_> = model
        .batches
        .iter()
        .filter(|kept| kept.next > model.start)
        .collect();
    let mut at = log.start();
    let mut read = Vec::new();
    while at < log.end() {
        let slice = log.read(at, 200, i64::MAX).unwrap();
        if slice.bytes == 0 {
            break;
        }
        read.extend(batches(&slice));
        at = slice.next_offset;
    }
    assert_eq!(read.len(), visible.len());
    for (batch, kept) in read.iter().zip(visible) {
        let header = batch.header();
        batch.check_crc().unwrap();
        let found = (
            header.base_offset,
            header.next_offset(),
            header.partition_leader_epoch,
        );
        assert_eq!(found, (kept.base, kept.next, kept.epoch));
    }
}

struct Run {
    bench: Bench,
    log: Log,
    model: Model,
}

impl Run {
    fn new(tail: bool) -> Self {
        let mut bench = if tail { Bench::new() } else { Bench::without_tail() };
        bench.config.segment_bytes = 600;
        let log = bench.fresh();
        Self {
            bench,
            log,
            model: Model {
                batches: Vec::new(),
                start: 0,
                end: 0,
                epoch: 0,
            },
        }
    }

    fn step(&mut self, step: &Step) {
        let model = &mut self.model;
        match *step {
            Step::Append { count, producer } => {
                let sequence = producer.map(|id| (id, model.sequences().get(&id).copied().unwrap_or(0)));
                let batch = match sequence {
                    Some((id, first)) => sequenced(count, id, 0, first),
                    None => batch(count, "plain"),
                };
                let appended = self.log.append(batch, model.epoch).unwrap();
                assert!(!appended.duplicate);
                assert_eq!(appended.base_offset, model.end);
                model.push(appended.base_offset, count, sequence);
            }
            Step::Repeat { producer } => {
                let mut known = model
                    .batches
                    .iter()
                    .filter(|k| k.sequence.is_some_and(|s| s.0 == producer));
                if let Some(last) = known.next_back()
                    && let Some((_, first)) = last.sequence
                {
                    let again = sequenced((last.next - last.base) as usize, producer, 0, first);
                    let appended = self.log.append(again, model.epoch).unwrap();
                    assert_eq!((appended.duplicate, appended.base_offset), (true, last.base));
                }
            }
            Step::AppendAt { gap, count, newer } => {
                model.epoch += i32::from(newer);
                let base = model.end + gap;
                let two = [
                    placed(batch(count, "first"), base, model.epoch),
                    placed(batch(1, "second"), base + count as i64, model.epoch),
                ];
                self.log.append_at(Bytes::from(two.concat()), None).unwrap();
                model.push(base, count, None);
                model.push(base + count as i64, 1, None);
                let stale = self
                    .log
                    .append_at(placed(batch(1, "stale"), base, model.epoch), None);
                assert!(matches!(stale, Err(AppendError::OffsetOrder { .. })));
            }
            Step::NewEpoch => {
                model.epoch += 1;
                self.log.assign_epoch(model.epoch);
            }
            Step::TruncateBack(back) => {
                let offset = (model.end - back).max(model.start);
                self.log.truncate_to(offset).unwrap();
                model.truncate(offset);
                let end = self.log.end();
                if offset < model.end {
                    // Below the offset if a batch reaches over it or a gap precedes it.
                    let last = model.batches.last().map_or(0, |kept| kept.next);
                    assert!(
                        (last..=offset).contains(&end),
                        "{end} is not in {last}..={offset}"
                    );
                } else {
                    assert_eq!(end, model.end);
                }
                model.end = end;
                model.start = model.start.min(end);
            }
            Step::TrimForward(forward) => {
                let offset = (model.start + forward).min(model.end);
                self.log.trim_to(offset).unwrap();
                model.start = offset;
            }
            Step::ResetForward(forward) => {
                let offset = model.end + forward;
                self.log.reset_at(offset).unwrap();
                model.batches.clear();
                (model.start, model.end) = (offset, offset);
            }
            Step::Flush => assert_eq!(self.log.flush().unwrap(), model.end),
            Step::Kill => self.reopen(false),
            Step::Stop => self.reopen(true),
            Step::Retain => {
                // Nothing is old enough and nothing too much.
                assert!(self.log.retain(self.bench.clock.now_ms(), model.end).is_empty());
            }
        }
        check(&self.log, &self.model);
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
        self.log = log;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_log_is_the_list_of_its_batches(
        steps in proptest::collection::vec(step(), 1..60),
        tail: bool,
    ) {
        let mut run = Run::new(tail);
        for step in &steps {
            run.step(step);
        }
    }
}
