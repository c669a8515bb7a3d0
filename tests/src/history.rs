//! What clients did to one topic, and whether a log that loses nothing could have answered so.
//!
//! Pure: events in, faults out. Who recorded the events (`watch.rs`, `load.rs`) and what was done to the cluster meanwhile
//! is of no concern here. The properties are those that Jepsen's Kafka workload looks for, for topics without compaction
//! and transactions:
//!
//! - what was acknowledged is in the log, whole, once, at the offset that was told; what was refused is not; what is neither
//!   (a request without an answer) is there whole or not at all;
//! - the log holds nothing that nobody wrote, and no offset is left out;
//! - a write that began after another was acknowledged stands behind it;
//! - what a consumer read is what the log has there: nothing once read changes or vanishes; a read leaves nothing out and
//!   starts where it was asked to;
//! - an end that is told covers everything acknowledged, read or told before the question; no consumer's place is refused;
//! - a group's position is one that was committed and not yet replaced.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// When something happened: the time since the history began.
pub type Moment = Duration;

/// From the first byte of a request to the last of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The request was about to be sent.
    pub begun: Moment,
    /// The answer was there, or was given up.
    pub ended: Moment,
}

/// One record, as its writer named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its writer.
    pub writer: u32,
    /// Its number among the writer's records.
    pub number: u64,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Under `acks=all`, with the offset of its first record.
    Acknowledged(i64),
    /// Nobody knows whether the log has it.
    Unknown,
    /// With an error that says that the log does not have it.
    Refused,
}

/// One batch, repeats of an idempotent writer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Its partition.
    pub partition: i32,
    /// Its first record.
    pub first: Id,
    /// How many records it has, numbered from the first on.
    pub count: u64,
    /// From the first attempt to the last answer.
    pub span: Span,
    /// How it ended.
    pub outcome: Outcome,
}

/// One fetch that returned records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its partition.
    pub partition: i32,
    /// The offset that was asked for.
    pub from: i64,
    /// What came, with offsets.
    pub records: Vec<(i64, Id)>,
    /// When.
    pub span: Span,
}

/// A partition's end, as a broker told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The partition.
    pub partition: i32,
    /// The offset after its last committed record.
    pub end: i64,
    /// When.
    pub span: Span,
}

/// A group's commit of one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: i32,
    /// The position.
    pub offset: i64,
    /// When.
    pub span: Span,
    /// Whether it was acknowledged; otherwise nobody knows.
    pub acknowledged: bool,
}

/// A group's position as it was told; -1 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// What was told.
    pub offset: i64,
    /// When.
    pub span: Span,
}

/// Everything that was done and seen.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Every batch that was sent.
    pub writes: Vec<Write>,
    /// Every fetch that returned records.
    pub reads: Vec<Read>,
    /// Every answer to the question for an end.
    pub ends: Vec<Told>,
    /// Partition and offset of every place that a consumer had come to and that was refused as out of range.
    pub refused_places: Vec<(i32, i64)>,
    /// One group's commits.
    pub commits: Vec<Commit>,
    /// The same group's positions.
    pub positions: Vec<Position>,
    /// Each partition as it is read from its beginning when all is over.
    pub logs: BTreeMap<i32, Vec<(i64, Id)>>,
}

/// What a log that loses nothing cannot have done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: {kind}")]
pub struct Fault {
    /// Where.
    pub partition: i32,
    /// What.
    pub kind: FaultKind,
}

/// The ways to be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// Acknowledged and not there.
    #[error("{0:?} was acknowledged and is lost")]
    Lost(Id),
    /// There, but not at the offset that was told.
    #[error("{id:?} was acknowledged at {told} and stands at {found}")]
    Misplaced {
        /// The record.
        id: Id,
        /// Where it was said to be.
        told: i64,
        /// Where it is.
        found: i64,
    },
    /// There more than once.
    #[error("{id:?} stands at {first} and at {second}")]
    Duplicated {
        /// The record.
        id: Id,
        /// The lower offset.
        first: i64,
        /// The higher one.
        second: i64,
    },
    /// Refused and there all the same.
    #[error("{0:?} was refused and is there")]
    Refused(Id),
    /// Some records of a batch are there and others are not, or others stand between them.
    #[error("the batch of {0:?} is there in part")]
    Torn(Id),
    /// Nobody wrote it.
    #[error("{id:?} at {offset} was never written")]
    Invented {
        /// The record.
        id: Id,
        /// Where it is.
        offset: i64,
    },
    /// An offset that no record has.
    #[error("the log has {found} where {due} was due")]
    Hole {
        /// The next offset in order.
        due: i64,
        /// What comes instead.
        found: i64,
    },
    /// In front of what was acknowledged before it was begun.
    #[error("{later:?} was begun after {earlier:?} was acknowledged and stands in front of it")]
    Reordered {
        /// Acknowledged first.
        earlier: Id,
        /// Begun afterwards.
        later: Id,
    },
    /// A consumer saw something else than the log holds.
    #[error("{read:?} was read at {offset}, where the log has {found:?}")]
    Changed {
        /// The offset.
        offset: i64,
        /// What was read there.
        read: Id,
        /// What is there at last, if anything.
        found: Option<Id>,
    },
    /// A consumer saw a record before anybody began to write it.
    #[error("{0:?} was read before it was written")]
    Early(Id),
    /// A fetch went on with another offset than the next one.
    #[error("a read came to {found} where {due} was due")]
    Skipped {
        /// The next offset in order.
        due: i64,
        /// What came instead.
        found: i64,
    },
    /// An end below what was known to be there.
    #[error("the end was told as {told} after {known} was known")]
    Stale {
        /// What was told.
        told: i64,
        /// What had been acknowledged, read or told before.
        known: i64,
    },
    /// A consumer had read up to here, and the broker says that there is no such offset.
    #[error("a consumer's place {0} was refused")]
    PlaceRefused(i64),
    /// The group's position is none that it could have.
    #[error("the group's position was told as {told}; the last one known was {known}")]
    WentBack {
        /// What was told.
        told: i64,
        /// The newest commit that was known to hold.
        known: i64,
    },
}

impl History {
    /// Everything that is wrong with it, partition by partition; empty if nothing is.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut partitions: Vec<i32> = self.logs.keys().copied().collect();
        partitions.extend(self.writes.iter().map(|write| write.partition));
        partitions.extend(self.commits.iter().map(|commit| commit.partition));
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let one = Partition::new(self, partition);
            let mut kinds = Vec::new();
            one.check_log(&mut kinds);
            one.check_writes(&mut kinds);
            one.check_order(&mut kinds);
            one.check_reads(&mut kinds);
            one.check_ends(&mut kinds);
            one.check_positions(&mut kinds);
            let refused = self.refused_places.iter().filter(|(at, _)| *at == partition);
            kinds.extend(refused.map(|&(_, offset)| FaultKind::PlaceRefused(offset)));
            faults.extend(kinds.into_iter().map(|kind| Fault { partition, kind }));
        }
        faults
    }

    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let acknowledged = |write: &&Write| matches!(write.outcome, Outcome::Acknowledged(_));
        self.writes
            .iter()
            .filter(acknowledged)
            .map(|write| write.count)
            .sum()
    }

    /// How many writes have an end that nobody knows.
    pub fn unknown(&self) -> u64 {
        let unknown = self.writes.iter().filter(|w| w.outcome == Outcome::Unknown);
        unknown.count() as u64
    }
}

/// One partition's part of a history.
struct Partition<'a> {
    history: &'a History,
    partition: i32,
    log: &'a [(i64, Id)],
    /// Where each record stands first.
    places: HashMap<Id, i64>,
    /// The write that each record belongs to, by writer and first number.
    writes: BTreeMap<Id, &'a Write>,
}

impl<'a> Partition<'a> {
    fn new(history: &'a History, partition: i32) -> Self {
        let log: &[(i64, Id)] = history.logs.get(&partition).map_or(&[], Vec::as_slice);
        let mut places = HashMap::with_capacity(log.len());
        for &(offset, id) in log {
            places.entry(id).or_insert(offset);
        }
        let own = history.writes.iter().filter(|w| w.partition == partition);
        Self {
            history,
            partition,
            log,
            places,
            writes: own.map(|write| (write.first, write)).collect(),
        }
    }

    fn write_of(&self, id: Id) -> Option<&'a Write> {
        let (_, write) = self.writes.range(..=id).next_back()?;
        let first = write.first;
        (first.writer == id.writer && id.number - first.number < write.count).then_some(write)
    }

    fn check_log(&self, faults: &mut Vec<FaultKind>) {
        let mut due = 0;
        for &(offset, id) in self.log {
            if offset != due {
                faults.push(FaultKind::Hole { due, found: offset });
            }
            due = offset + 1;
            if self.write_of(id).is_none() {
                faults.push(FaultKind::Invented { id, offset });
            }
            let first = self.places.get(&id).copied().unwrap_or(offset);
            if first != offset {
                faults.push(FaultKind::Duplicated {
                    id,
                    first,
                    second: offset,
                });
            }
        }
    }

    fn check_writes(&self, faults: &mut Vec<FaultKind>) {
        for write in self.writes.values() {
            let ids = (0..write.count).map(|i| Id {
                writer: write.first.writer,
                number: write.first.number + i,
            });
            let mut base = None;
            let (mut found, mut together) = (0, true);
            for (id, i) in ids.zip(0..) {
                let place = self.places.get(&id).copied();
                match (write.outcome, place) {
                    (Outcome::Acknowledged(_), None) => faults.push(FaultKind::Lost(id)),
                    (Outcome::Acknowledged(told), Some(place)) if place != told + i => {
                        faults.push(FaultKind::Misplaced {
                            id,
                            told: told + i,
                            found: place,
                        });
                    }
                    (Outcome::Refused, Some(_)) => faults.push(FaultKind::Refused(id)),
                    _ => {}
                }
                if let Some(place) = place {
                    found += 1;
                    together &= *base.get_or_insert(place - i) == place - i;
                }
            }
            if found > 0 && (found < write.count || !together) && write.outcome == Outcome::Unknown {
                faults.push(FaultKind::Torn(write.first));
            }
        }
    }

    /// A write that began after another one had ended stands behind it. A write whose end nobody knows may be late.
    fn check_order(&self, faults: &mut Vec<FaultKind>) {
        let mut latest: Option<&Write> = None;
        for &(_, id) in self.log {
            let Some(write) = self.write_of(id).filter(|write| write.first == id) else {
                continue;
            };
            if let Some(before) = latest
                && matches!(write.outcome, Outcome::Acknowledged(_))
                && before.span.begun > write.span.ended
            {
                faults.push(FaultKind::Reordered {
                    earlier: write.first,
                    later: before.first,
                });
            }
            if latest.is_none_or(|before| before.span.begun < write.span.begun) {
                latest = Some(write);
            }
        }
    }

    fn check_reads(&self, faults: &mut Vec<FaultKind>) {
        let at = |offset| {
            let found = self.log.binary_search_by_key(&offset, |record| record.0);
            found.ok().map(|i| self.log[i].1)
        };
        for read in self
            .history
            .reads
            .iter()
            .filter(|r| r.partition == self.partition)
        {
            let mut due = read.from;
            for &(offset, id) in &read.records {
                if offset != due {
                    faults.push(FaultKind::Skipped { due, found: offset });
                }
                due = offset + 1;
                let found = at(offset);
                if found != Some(id) {
                    faults.push(FaultKind::Changed {
                        offset,
                        read: id,
                        found,
                    });
                }
                if self.write_of(id).is_some_and(|w| w.span.begun > read.span.ended) {
                    faults.push(FaultKind::Early(id));
                }
            }
        }
    }

    /// Ends never fall behind what was known when they were asked for.
    fn check_ends(&self, faults: &mut Vec<FaultKind>) {
        let own = |partition: i32| partition == self.partition;
        // (when it was known, the end that it proves)
        let mut known: Vec<(Moment, i64)> = Vec::new();
        for write in self.writes.values() {
            if let Outcome::Acknowledged(base) = write.outcome {
                let count = i64::try_from(write.count).unwrap_or(i64::MAX);
                known.push((write.span.ended, base.saturating_add(count)));
            }
        }
        for read in self.history.reads.iter().filter(|r| own(r.partition)) {
            if let Some(&(last, _)) = read.records.last() {
                known.push((read.span.ended, last + 1));
            }
        }
        let mut asked: Vec<&Told> = self.history.ends.iter().filter(|t| own(t.partition)).collect();
        known.extend(asked.iter().map(|told| (told.span.ended, told.end)));
        known.sort_unstable();
        asked.sort_unstable_by_key(|told| told.span.begun);
        let (mut next, mut highest) = (known.iter().peekable(), 0);
        for told in asked {
            while let Some(&&(_, end)) = next.peek().filter(|(when, _)| *when < told.span.begun) {
                highest = highest.max(end);
                next.next();
            }
            if told.end < highest {
                faults.push(FaultKind::Stale {
                    told: told.end,
                    known: highest,
                });
            }
        }
    }

    /// A group's position is a register that one client writes: a position may be told from when its commit begins until
    /// another one, begun after it had ended, is known to hold. A commit without an answer may take effect at any time.
    fn check_positions(&self, faults: &mut Vec<FaultKind>) {
        let own = |partition: i32| partition == self.partition;
        let commits: Vec<&Commit> = self.history.commits.iter().filter(|c| own(c.partition)).collect();
        for told in self.history.positions.iter().filter(|p| own(p.partition)) {
            let holding = |c: &&&Commit| c.acknowledged && c.span.ended < told.span.begun;
            let newest = commits.iter().filter(holding).max_by_key(|c| c.span.begun);
            let possible = commits.iter().any(|c| {
                let replaced = newest.is_some_and(|n| c.acknowledged && n.span.begun > c.span.ended);
                c.offset == told.offset && c.span.begun < told.span.ended && !replaced
            });
            let nothing_yet = told.offset == -1 && newest.is_none();
            if !possible && !nothing_yet {
                faults.push(FaultKind::WentBack {
                    told: told.offset,
                    known: newest.map_or(-1, |commit| commit.offset),
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
