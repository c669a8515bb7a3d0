//! Control batches: the markers that end a transaction in a partition.

use bytes::{BufMut, Bytes};

use super::{Batch, BatchBuilder, NO_SEQUENCE, TimestampType};
use crate::compression::Codec;

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlKind {
    /// The producer's transaction is aborted.
    Abort,
    /// The producer's transaction is committed.
    Commit,
    /// Something else, which concerns no transaction.
    Other(i16),
}

impl ControlKind {
    /// What the control batch says, or `None` if it is no control batch or cannot be read.
    pub fn of(batch: &Batch) -> Option<Self> {
        /// Markers are a few bytes; none is ever compressed.
        const LIMIT: usize = 4096;
        if !batch.header().is_control() {
            return None;
        }
        let records = batch.records(LIMIT).ok()?;
        let first = records.iter().next()?.ok()?;
        // Key: version, kind.
        let kind = first.key?.get(2..4)?;
        Some(match i16::from_be_bytes([kind[0], kind[1]]) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }
}

/// A marker that ends the producer's transaction.
pub fn control_batch(
    kind: ControlKind,
    producer_id: i64,
    epoch: i16,
    coordinator_epoch: i32,
    now_ms: i64,
) -> Bytes {
    let code = match kind {
        ControlKind::Abort => 0,
        ControlKind::Commit => 1,
        ControlKind::Other(code) => code,
    };
    let mut key = Vec::with_capacity(4);
    key.put_i16(0);
    key.put_i16(code);
    let mut value = Vec::with_capacity(6);
    value.put_i16(0);
    value.put_i32(coordinator_epoch);
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    builder
        .append(now_ms, Some(&key), Some(&value), &[])
        .producer(producer_id, epoch, NO_SEQUENCE)
        .transactional()
        .control();
    builder.build()
}
