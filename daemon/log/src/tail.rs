//! The newest batches of all logs in memory, within one limit: what followers, mirrors and live consumers read.
//!
//! Each log has a [`Tail`], a run of batches without holes up to its end. The [`TailCache`] remembers in which order batches
//! came in over all logs and drops the oldest beyond the limit. Batches share the buffer they arrived in, unless so little
//! is kept of it that a copy costs less memory. Whoever appends sees to it that a batch is not a small part of its buffer.
//!
//! Locks: the cache's order is locked before a tail, never the other way round.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_wire::batch::Batch;

use crate::metrics;
use crate::read::ReadSlice;

/// Appends of fewer bytes are copied: what they arrived in may be a read buffer that is larger.
const COPY_BELOW: usize = 8 << 10;
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

    /// Keeps a batch that has just been written at the end of `tail`'s log, which was `end` before. It was appended
    /// together with others that share its buffer, `together` bytes in all.
    pub(crate) fn push(&self, tail: &Arc<Tail>, batch: &Batch, end: i64, together: usize) {
        if self.limit == 0 {
            return;
        }
        let cost = batch.size() + ENTRY_OVERHEAD;
        let sequence = tail.push(batch, end, cost, together);
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
    /// The whole batch, or its header if that was changed since the batch arrived.
    head: Bytes,
    /// The payload, if it is not in `head`.
    body: Option<Bytes>,
}

impl Tail {
    fn push(&self, batch: &Batch, end: i64, cost: usize, together: usize) -> u64 {
        let (head, body) = match batch.received() {
            Some(received) if together >= COPY_BELOW => (received, None),
            _ if together >= COPY_BELOW => (
                Bytes::copy_from_slice(&batch.header_bytes()),
                Some(batch.payload()),
            ),
            _ => {
                let mut whole = Vec::with_capacity(batch.size());
                whole.extend_from_slice(&batch.header_bytes());
                whole.extend_from_slice(&batch.payload());
                (Bytes::from(whole), None)
            }
        };
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

#[cfg(test)]
mod tests {
    use tradewind_wire::batch::{BatchBuilder, TimestampType, split};
    use tradewind_wire::compression::Codec;

    use super::*;

    fn batch(value: usize) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.append(1, None, Some(&vec![b'v'; value]), &[]);
        builder.build()
    }

    /// Whether `part` lies within the memory of `whole`.
    fn shares(part: &Bytes, whole: &Bytes) -> bool {
        whole.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn what_fills_the_buffer_it_came_in_is_kept_in_it_and_a_little_is_copied() {
        let cache = TailCache::default();
        let frame = Bytes::from(vec![batch(5_000); 3].concat());
        for (together, is_shared) in [(frame.len(), true), (COPY_BELOW - 1, false)] {
            let tail = Arc::new(Tail::default());
            for (offset, mut batch) in (0..).zip(split(frame.clone()).map(Result::unwrap)) {
                batch.set_base_offset(offset);
                cache.push(&tail, &batch, offset, together);
            }
            let slice = tail.read(0, usize::MAX, 3).unwrap();
            assert_eq!(slice.next_offset, 3);
            let body = slice.records.last().unwrap();
            assert_eq!(shares(body, &frame), is_shared, "together {together}");
            let mut whole = Bytes::from(slice.records.concat());
            for offset in 0..3 {
                let read = Batch::split_off_front(&mut whole).unwrap().unwrap();
                assert_eq!((read.header().base_offset, read.check_crc()), (offset, Ok(())));
            }
        }
    }

    #[test]
    fn a_batch_whose_header_was_not_changed_is_one_slice() {
        let cache = TailCache::default();
        let (tail, frame) = (Arc::new(Tail::default()), batch(COPY_BELOW));
        cache.push(&tail, &Batch::parse(frame.clone()).unwrap(), 0, frame.len());
        let slice = tail.read(0, usize::MAX, 1).unwrap();
        assert_eq!(slice.records, std::slice::from_ref(&frame));
        assert!(shares(&slice.records[0], &frame));
    }
}
