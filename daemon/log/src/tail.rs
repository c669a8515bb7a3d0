//! The newest batches of all logs in memory, within one limit: what followers, mirrors and live consumers read.
//!
//! Each log has a [`Tail`], a run of batches without holes up to its end. The [`TailCache`] remembers in which order batches
//! came in over all logs and drops the oldest beyond the limit. Large batches share the buffer they arrived in; small ones
//! are copied so that they do not pin a whole request.
//!
//! Locks: the cache's order is locked before a tail, never the other way round.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_wire::batch::{BATCH_OVERHEAD, Batch};

use crate::metrics;
use crate::read::ReadSlice;

/// Batches below this size are copied.
const COPY_BELOW: usize = 16 << 10;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD: usize = 160;
/// Slices in one answer: what a sender puts into one vectored write, twice over.
const MAX_SLICES: usize = 128;

/// The limit over all tails, and the order in which to drop.
#[derive(Debug)]
pub struct TailCache {
    limit: usize,
    used: AtomicUsize,
    order: Mutex<VecDeque<(Arc<Tail>, u64)>>,
}

impl TailCache {
    /// A cache of at most `limit` bytes. With 0 every read goes to the file.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            order: Mutex::new(VecDeque::new()),
        }
    }

    /// Bytes held at the moment.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Keeps a batch that has just been written at the end of `tail`'s log, which was `end` before.
    pub(crate) fn push(&self, tail: &Arc<Tail>, batch: &Batch, end: i64) {
        if self.limit == 0 {
            return;
        }
        let cost = batch.size() + ENTRY_OVERHEAD;
        let sequence = tail.push(batch, end, cost);
        let mut used = self.used.fetch_add(cost, Ordering::Relaxed) + cost;
        let mut order = self.order.lock();
        order.push_back((Arc::clone(tail), sequence));
        // Entries of logs that dropped them by themselves cost nothing but their place in the order.
        while used > self.limit || order.len() > self.limit / ENTRY_OVERHEAD {
            let Some((oldest, sequence)) = order.pop_front() else {
                break;
            };
            let freed = oldest.drop_through(sequence);
            self.used.fetch_sub(freed, Ordering::Relaxed);
            metrics::tail_evicted(freed);
            used = used.saturating_sub(freed);
        }
        drop(order);
        metrics::tail(used);
    }

    /// Gives back what a tail has dropped by itself.
    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for TailCache {
    fn default() -> Self {
        Self::new(64 << 20)
    }
}

/// The newest batches of one log.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    run: Mutex<Run>,
}

#[derive(Debug, Default)]
struct Run {
    /// No offset from here on is missing.
    complete_from: i64,
    entries: VecDeque<Entry>,
    next_sequence: u64,
}

#[derive(Debug)]
struct Entry {
    next_offset: i64,
    sequence: u64,
    cost: usize,
    size: usize,
    /// A small batch whole, or a header.
    head: Bytes,
    /// The payload of a large batch.
    body: Option<Bytes>,
}

impl Tail {
    fn push(&self, batch: &Batch, end: i64, cost: usize) -> u64 {
        let header = batch.header_bytes();
        let payload = batch.payload();
        let (head, body) = if batch.size() < COPY_BELOW {
            let mut whole = Vec::with_capacity(batch.size());
            whole.extend_from_slice(&header);
            whole.extend_from_slice(&payload);
            (Bytes::from(whole), None)
        } else {
            (Bytes::copy_from_slice(&header), Some(payload))
        };
        debug_assert_eq!(header.len(), BATCH_OVERHEAD);
        let mut run = self.run.lock();
        if run.entries.is_empty() {
            run.complete_from = end;
        }
        let sequence = run.next_sequence;
        run.next_sequence += 1;
        run.entries.push_back(Entry {
            next_offset: batch.header().next_offset(),
            sequence,
            cost,
            size: batch.size(),
            head,
            body,
        });
        sequence
    }

    /// The batches from the one that holds `from` (or the first after it) on; `None` if they are not all here.
    pub(crate) fn read(&self, from: i64, max_bytes: usize, up_to: i64) -> Option<ReadSlice> {
        let run = self.run.lock();
        if run.entries.is_empty() || from < run.complete_from {
            return None;
        }
        let first = run.entries.partition_point(|e| e.next_offset <= from);
        let mut slice = ReadSlice::empty(from);
        for entry in run.entries.range(first..) {
            let full = slice.bytes > 0
                && (slice.bytes + entry.size > max_bytes || slice.records.len() + 2 > MAX_SLICES);
            if full || entry.next_offset > up_to {
                break;
            }
            slice.records.push(entry.head.clone());
            slice.records.extend(entry.body.clone());
            slice.bytes += entry.size;
            slice.next_offset = entry.next_offset;
        }
        Some(slice)
    }

    /// Drops entries up to this one from the front. Returns what they cost.
    fn drop_through(&self, sequence: u64) -> usize {
        let mut run = self.run.lock();
        let mut freed = 0;
        while run.entries.front().is_some_and(|e| e.sequence <= sequence)
            && let Some(entry) = run.entries.pop_front()
        {
            freed += entry.cost;
            run.complete_from = entry.next_offset;
        }
        freed
    }

    /// Drops what ends at or below `offset`: compaction has rewritten it. Returns what it cost.
    pub(crate) fn drop_below(&self, offset: i64) -> usize {
        let mut run = self.run.lock();
        let mut freed = 0;
        while run.entries.front().is_some_and(|e| e.next_offset <= offset)
            && let Some(entry) = run.entries.pop_front()
        {
            freed += entry.cost;
            run.complete_from = entry.next_offset;
        }
        freed
    }

    /// Drops everything: the log was cut or reset. Returns what it cost.
    pub(crate) fn clear(&self) -> usize {
        let mut run = self.run.lock();
        run.entries.drain(..).map(|e| e.cost).sum()
    }
}
