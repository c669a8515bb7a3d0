//! Clients that look on while others write: consumers, who asks for ends, and a group that commits; and what all clients
//! know together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use tradewind_wire::error::ErrorCode;

use crate::history::{Commit, History, Id, Moment, Position, Read, Span, Told};
use crate::kafka::{Kafka, Refused};
use crate::load::id_of;
use crate::wait;

/// The group whose positions are committed.
pub const GROUP: &str = "watchers";

/// How long a client rests after something failed.
const REST: Duration = Duration::from_millis(5);

/// How long the group rests between rounds of commits.
const COMMIT_REST: Duration = Duration::from_millis(50);

/// What the clients of one topic know together, and whether they still move.
#[derive(Debug)]
pub struct Notes {
    began: Instant,
    /// Per partition, the end that some client was told of: acknowledged, read, or asked for.
    known: Vec<AtomicI64>,
    /// Per client, how many requests have ended.
    beats: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Notes {
    /// Nothing known of this many partitions.
    pub fn new(partitions: i32) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            known: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            beats: Mutex::default(),
        })
    }

    /// The history's clock.
    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// From `begun` until now.
    pub fn since(&self, begun: Moment) -> Span {
        Span {
            begun,
            ended: self.now(),
        }
    }

    /// A client was told that the partition reaches to `end`.
    pub fn knows(&self, partition: i32, end: i64) {
        if let Some(known) = usize::try_from(partition).ok().and_then(|p| self.known.get(p)) {
            known.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// The highest end of each partition that any client was told of.
    pub fn known(&self) -> Vec<i64> {
        self.known.iter().map(|end| end.load(Ordering::Acquire)).collect()
    }

    /// Counts the requests of one more client.
    pub(crate) fn client(&self) -> Arc<AtomicU64> {
        let beat = Arc::new(AtomicU64::new(0));
        self.beats.lock().push(Arc::clone(&beat));
        beat
    }

    /// Waits until every request that was under way has ended: with all daemons dead, nobody is told anything afterwards.
    pub fn settled(&self) -> Result<()> {
        let beats = self.beats.lock().clone();
        let before: Vec<u64> = beats.iter().map(|beat| beat.load(Ordering::Acquire)).collect();
        wait::until_true("every client's request has ended", 60, || {
            let moved = |(beat, before): (&Arc<AtomicU64>, &u64)| beat.load(Ordering::Acquire) > *before;
            Ok(beats.iter().zip(&before).all(moved))
        })
    }
}

/// The onlookers.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<History>>,
}

impl Watch {
    /// Starts a consumer of the topic's first `partitions` partitions, and a group that commits how far it has come.
    pub fn start(cluster: impl Fn() -> Kafka, topic: &str, partitions: i32, notes: &Arc<Notes>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let onlooker = || Onlooker {
            kafka: cluster(),
            topic: topic.to_owned(),
            partitions,
            stop: Arc::clone(&stop),
            beat: notes.client(),
            notes: Arc::clone(notes),
            seen: History::default(),
        };
        let (consumer, group) = (onlooker(), onlooker());
        Self {
            threads: vec![
                thread::spawn(move || consumer.consume()),
                thread::spawn(move || group.commit()),
            ],
            stop,
        }
    }

    /// Ends them and returns what they saw.
    pub fn stop(self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = History::default();
        for thread in self.threads {
            let seen = thread
                .join()
                .map_err(|_| anyhow::anyhow!("an onlooker panicked"))?;
            all.reads.extend(seen.reads);
            all.ends.extend(seen.ends);
            all.refused_places.extend(seen.refused_places);
            all.commits.extend(seen.commits);
            all.positions.extend(seen.positions);
        }
        Ok(all)
    }
}

struct Onlooker {
    kafka: Kafka,
    topic: String,
    partitions: i32,
    stop: Arc<AtomicBool>,
    beat: Arc<AtomicU64>,
    notes: Arc<Notes>,
    seen: History,
}

impl Onlooker {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// A request has ended. After a failure the next one waits a little.
    fn beat(&self, failed: bool) {
        self.beat.fetch_add(1, Ordering::Release);
        if failed {
            wait::pace(REST);
        }
    }

    /// Follows every partition from its beginning, and asks for its end each time.
    fn consume(mut self) -> History {
        let mut places = vec![0; usize::try_from(self.partitions).unwrap_or(0)];
        while self.goes_on() {
            for (partition, place) in (0..).zip(&mut places) {
                self.ask_end(partition);
                self.fetch(partition, place);
            }
        }
        self.seen
    }

    fn ask_end(&mut self, partition: i32) {
        let begun = self.notes.now();
        let answer = self.kafka.end(&self.topic, partition);
        let span = self.notes.since(begun);
        if let Ok(end) = answer {
            self.notes.knows(partition, end);
            self.seen.ends.push(Told { partition, end, span });
        }
        self.beat(answer.is_err());
    }

    fn fetch(&mut self, partition: i32, place: &mut i64) {
        let begun = self.notes.now();
        let answer = self.kafka.fetch(&self.topic, partition, *place);
        let span = self.notes.since(begun);
        match &answer {
            Ok((batches, _)) => {
                let records = batches.iter().flat_map(|batch| named(batch, *place)).collect();
                let read = Read {
                    partition,
                    from: *place,
                    records,
                    span,
                };
                if let Some(&(last, _)) = read.records.last() {
                    *place = last + 1;
                    self.notes.knows(partition, *place);
                    self.seen.reads.push(read);
                }
            }
            Err(error) => {
                let code = error.downcast_ref::<Refused>().map(|refused| refused.0);
                if code == Some(ErrorCode::OffsetOutOfRange) {
                    self.seen.refused_places.push((partition, *place));
                }
            }
        }
        self.beat(answer.is_err());
    }

    /// Commits the end that is known, again and again, and asks what the group's position is.
    fn commit(mut self) -> History {
        while self.goes_on() {
            for (partition, end) in (0..).zip(self.notes.known()) {
                let begun = self.notes.now();
                let answer = self.kafka.commit(GROUP, &self.topic, &[(partition, end)]);
                self.seen.commits.push(Commit {
                    partition,
                    offset: end,
                    span: self.notes.since(begun),
                    acknowledged: answer.is_ok(),
                });
                self.beat(answer.is_err());
            }
            let begun = self.notes.now();
            let answer = self.kafka.committed(GROUP, &self.topic, self.partitions);
            let span = self.notes.since(begun);
            for (partition, offset) in (0..).zip(answer.as_deref().unwrap_or_default()) {
                self.seen.positions.push(Position {
                    partition,
                    offset: *offset,
                    span,
                });
            }
            self.beat(answer.is_err());
            wait::pace(COMMIT_REST);
        }
        self.seen
    }
}

/// The records of a batch from `from` on. One that cannot be read becomes one that nobody wrote.
fn named(batch: &tradewind_wire::batch::Batch, from: i64) -> Vec<(i64, Id)> {
    let broken = |offset| {
        let id = Id {
            writer: u32::MAX,
            number: u64::MAX,
        };
        vec![(offset, id)]
    };
    let read = || -> Result<Vec<(i64, Id)>> {
        batch.check_crc()?;
        let mut all = Vec::new();
        for record in batch.records(1 << 20)?.iter() {
            let record = record?;
            if record.offset >= from {
                all.push((record.offset, id_of(record.key, record.value)?));
            }
        }
        Ok(all)
    };
    read().unwrap_or_else(|_| broken(batch.header().base_offset.max(from)))
}
