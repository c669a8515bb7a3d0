//! Tests of whole logs: what they have in common, and one file per subject.

mod basics;
mod branches;
mod compaction;
mod compaction_model;
mod compaction_transactions;
mod configs;
mod cutting;
mod failures;
mod faults;
mod full;
mod images;
mod model;
mod recovery;
mod times;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType, split};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;

use crate::{Log, LogConfig, LogEnv, OpenHint, ReadSlice, Recovered, TailCache};

/// A clock that tests move by hand.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// A log in a directory of its own.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) env: LogEnv,
    pub(crate) config: LogConfig,
}

impl Bench {
    /// Small segments and a dense index, so that little data crosses many borders.
    pub(crate) fn new() -> Self {
        let clock = Arc::new(TestClock::default());
        clock.set(1_000_000);
        Self {
            dir: tempfile::tempdir().unwrap(),
            env: LogEnv::new(clock.clone()),
            clock,
            config: LogConfig {
                segment_bytes: 1_000,
                index_interval_bytes: 150,
                ..LogConfig::default()
            },
        }
    }

    /// As [`Self::new`], and every read goes to the files.
    pub(crate) fn without_tail() -> Self {
        let mut bench = Self::new();
        bench.env.tail = Arc::new(TailCache::new(0));
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn open(&self, hint: OpenHint) -> (Log, Recovered) {
        Log::open(self.path(), self.config.clone(), hint, &self.env).unwrap()
    }

    pub(crate) fn fresh(&self) -> Log {
        self.open(OpenHint::default()).0
    }
}

/// A batch of `count` records whose values tell them apart.
pub(crate) fn batch(count: usize, value: &str) -> Batch {
    timed(count, value, 1_000)
}

/// As [`batch`], with times rising from `timestamp`.
pub(crate) fn timed(count: usize, value: &str, timestamp: i64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for i in 0..count {
        builder.append(timestamp + i as i64, None, Some(value.as_bytes()), &[]);
    }
    Batch::parse(builder.build()).unwrap()
}

/// As [`batch`], from an idempotent producer.
pub(crate) fn sequenced(count: usize, producer: i64, epoch: i16, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for i in 0..count {
        builder.append(1_000 + i as i64, None, Some(b"sequenced"), &[]);
    }
    builder.producer(producer, epoch, sequence);
    Batch::parse(builder.build()).unwrap()
}

/// A batch that has its offsets and epoch already.
pub(crate) fn placed(mut batch: Batch, base_offset: i64, epoch: i32) -> Bytes {
    batch.set_base_offset(base_offset);
    batch.set_leader_epoch(epoch);
    batch.to_bytes()
}

/// The batches of an answer.
pub(crate) fn batches(slice: &ReadSlice) -> Vec<Batch> {
    let bytes = Bytes::from(slice.records.concat());
    assert_eq!(bytes.len(), slice.bytes);
    split(bytes).map(Result::unwrap).collect()
}

/// Everything in the log, read piece by piece, as (base offset, next offset).
pub(crate) fn extents(log: &Log) -> Vec<(i64, i64)> {
    let mut at = log.start();
    let mut all = Vec::new();
    loop {
        let slice = log.read(at, 300, i64::MAX).unwrap();
        if slice.bytes == 0 {
            return all;
        }
        for batch in batches(&slice) {
            batch.check_crc().unwrap();
            all.push((batch.header().base_offset, batch.header().next_offset()));
        }
        assert!(slice.next_offset > at);
        at = slice.next_offset;
    }
}
