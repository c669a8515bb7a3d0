//! Compaction in the background: a few threads for the whole daemon that take the dirtiest log that is due, one at a time.
//!
//! Leaders and followers alike: each copy is compacted by its own daemon, below its own high watermark. What is read and
//! written is paced by one budget for all threads. A log that cannot be compacted (damage, a full disk) is left alone for a
//! while and said to be so; it goes on being written and read.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tradewind_log::{CompactError, Pace};
use tradewind_wire::clock::Clock;

use crate::metrics;
use crate::replica::Replica;
use crate::replicas::{Key, Replicas};
use crate::threads;

/// How long a log that could not be compacted is left alone.
const RETRY: Duration = Duration::from_secs(10 * 60);

/// How this daemon compacts: Kafka's `log.cleaner.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanerOptions {
    /// `log.cleaner.threads`: logs that are compacted side by side.
    pub threads: usize,
    /// `log.cleaner.backoff.ms`: how long a thread waits when no log is due.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: bytes for the keys of all logs that are being compacted, shared by the threads.
    pub map_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: bytes read and written by all threads together.
    pub bytes_per_second: u64,
}

impl Default for CleanerOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            backoff: Duration::from_secs(15),
            map_bytes: 128 << 20,
            bytes_per_second: u64::MAX,
        }
    }
}

/// The threads; they end when this is stopped or dropped.
pub(crate) struct Cleaner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    replicas: Weak<Replicas>,
    clock: Arc<dyn Clock>,
    options: CleanerOptions,
    stopped: AtomicBool,
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Default)]
struct Work {
    /// Logs that a thread has.
    taken: HashSet<Key>,
    /// Logs that are left alone until then, by the monotonic clock.
    later: HashMap<Key, Duration>,
    /// When the budget allows the next read or write.
    free_at: Duration,
}

impl Cleaner {
    /// Starts the threads.
    pub(crate) fn start(
        replicas: &Arc<Replicas>,
        options: CleanerOptions,
        clock: &Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            replicas: Arc::downgrade(replicas),
            clock: Arc::clone(clock),
            options,
            stopped: AtomicBool::new(false),
            work: Mutex::default(),
            wake: Condvar::new(),
        });
        let mut threads = Vec::new();
        let count = if threads::are_simulated() {
            0
        } else {
            options.threads.max(1)
        };
        for i in 0..count {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("compact-{i}"));
            threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Ends the threads; a compaction that is under way is given up at its next batch. Blocks until they are gone.
    pub(crate) fn stop(&self) {
        self.shared.end();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a compaction thread has panicked");
            }
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    fn end(&self) {
        let _work = self.work.lock();
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn work(&self) {
        while !self.is_stopped() {
            let Some(replicas) = self.replicas.upgrade() else {
                return;
            };
            let next = self.next(&replicas);
            drop(replicas);
            match next {
                Some(replica) => self.compact(&replica),
                None => {
                    let mut work = self.work.lock();
                    if !self.is_stopped() {
                        self.wake.wait_for(&mut work, self.options.backoff);
                    }
                }
            }
        }
    }

    /// The dirtiest log that is due and that no other thread has; it is taken.
    fn next(&self, replicas: &Replicas) -> Option<Arc<Replica>> {
        let (now_ms, now) = (self.clock.now_ms(), self.clock.monotonic());
        let mut best: Option<(f64, Arc<Replica>)> = None;
        for replica in replicas.all() {
            if self.is_stopped() {
                return None;
            }
            let log = replica.log();
            if !log.config().compact || !self.may_take(&replica, now) {
                continue;
            }
            // A follower's segments age too, and nobody else closes them.
            log.roll_if_due(now_ms);
            let Some(dirtiness) = log.dirtiness(now_ms, replica.high_watermark()) else {
                continue;
            };
            if dirtiness.due && best.as_ref().is_none_or(|(ratio, _)| dirtiness.ratio > *ratio) {
                best = Some((dirtiness.ratio, replica));
            }
        }
        let (_, replica) = best?;
        let mut work = self.work.lock();
        work.taken.insert(key(&replica)).then_some(replica)
    }

    fn may_take(&self, replica: &Replica, now: Duration) -> bool {
        let mut work = self.work.lock();
        let key = key(replica);
        if work.later.get(&key).is_some_and(|later| *later <= now) {
            work.later.remove(&key);
        }
        !work.taken.contains(&key) && !work.later.contains_key(&key)
    }

    fn compact(&self, replica: &Replica) {
        let began = self.clock.monotonic();
        let map_bytes = self.options.map_bytes / self.options.threads.max(1);
        let log = replica.log();
        let result = log.compact(self.clock.now_ms(), replica.high_watermark(), map_bytes, self);
        let took = self.clock.monotonic().saturating_sub(began);
        let mut retry = None;
        match result {
            Ok(done) => {
                metrics::compacted(took);
                tracing::info!(
                    topic = %replica.topic_name, partition = replica.partition, passes = done.passes,
                    before = done.bytes_before, after = done.bytes_after, first_dirty = done.first_dirty,
                    took_ms = took.as_millis() as u64, "compacted a log"
                );
                if done.unreadable_batches > 0 {
                    tracing::warn!(
                        topic = %replica.topic_name, partition = replica.partition,
                        batches = done.unreadable_batches, "batches that do not unpack were kept as they are"
                    );
                }
            }
            // Cut, deleted, or the daemon stops: looked at again, if there is anything to look at.
            Err(CompactError::Interrupted | CompactError::Busy) => {}
            Err(error) => {
                metrics::compaction_failed();
                tracing::error!(
                    topic = %replica.topic_name, partition = replica.partition, %error,
                    "cannot compact a log; it is left as it is"
                );
                retry = Some(self.clock.monotonic() + RETRY);
            }
        }
        let mut work = self.work.lock();
        work.taken.remove(&key(replica));
        if let Some(retry) = retry {
            work.later.insert(key(replica), retry);
        }
    }
}

impl Pace for Shared {
    fn spent(&self, bytes: usize) -> bool {
        let rate = self.options.bytes_per_second;
        if rate == u64::MAX {
            return !self.is_stopped();
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut work = self.work.lock();
        let free_at = work.free_at.max(self.clock.monotonic()) + cost;
        work.free_at = free_at;
        while !self.is_stopped() {
            let now = self.clock.monotonic();
            if now >= free_at {
                return true;
            }
            self.wake.wait_for(&mut work, free_at - now);
        }
        false
    }
}

fn key(replica: &Replica) -> Key {
    (replica.topic, replica.partition)
}
