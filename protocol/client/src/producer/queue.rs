//! The batches of one partition on their way to the leader: order, sequence numbers, retries. No I/O and no clock.
//!
//! Invariants that make retries safe (Kafka's idempotent producer, KIP-98):
//! - a batch keeps the sequence number of its first sending until the broker has certainly not taken it;
//! - after a failure nothing more is sent until everything in flight has been answered; then the rest goes again, in order;
//! - a sequence number the broker refuses while an earlier batch is open is only that batch's consequence, and is tried
//!   again behind it. With nothing earlier open it means that the batch was not taken: the partition then starts over
//!   under a fresh producer id;
//! - until a producer id's first batch has been taken, only one is in flight: a broker that has not seen the id takes any
//!   sequence number, so it could refuse the first batch (a leader that is not ready) and take the second.

use std::collections::VecDeque;
use std::time::Duration;

use tradewind_wire::batch::{BatchBuilder, add_sequence};

/// A producer id and epoch, as InitProducerId answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerId {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// A closed batch and whom to tell (`T`) what became of it.
#[derive(Debug)]
pub(crate) struct Sealed<T> {
    pub(crate) builder: BatchBuilder,
    pub(crate) waiters: T,
    /// When it is given up, on the clock's monotonic time.
    pub(crate) deadline: Duration,
    sequence: Option<i32>,
    number: u64,
    attempts: u32,
}

impl<T> Sealed<T> {
    pub(crate) fn new(builder: BatchBuilder, waiters: T, deadline: Duration) -> Self {
        Self {
            builder,
            waiters,
            deadline,
            sequence: None,
            number: 0,
            attempts: 0,
        }
    }

    fn count(&self) -> i32 {
        i32::try_from(self.builder.count()).unwrap_or(i32::MAX)
    }
}

/// What the broker said of a batch, as far as the order of things goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the log, now or from an earlier try.
    Taken,
    /// It may or may not be in the log; try again.
    Retry,
    /// Its sequence number does not follow what the broker has seen.
    SequenceRefused,
    /// It is not in the log and never will be.
    Refused,
}

/// The batches of one partition.
#[derive(Debug)]
pub(crate) struct PartitionQueue<T> {
    idempotent: bool,
    identity: Option<ProducerId>,
    /// The last identity that was given up: never taken again.
    burned: Option<ProducerId>,
    next_sequence: i32,
    /// Whether a batch has been taken under `identity`.
    established: bool,
    /// In order; those that have a sequence number come first.
    waiting: VecDeque<Sealed<T>>,
    /// In the order sent.
    in_flight: VecDeque<Sealed<T>>,
    /// Something failed: nothing is sent until `in_flight` is empty.
    draining: bool,
    /// What to do about sequence numbers once drained.
    renumber: Option<Renumber>,
    /// Nothing is sent before this time.
    not_before: Duration,
    last_number: u64,
}

/// How the waiting batches get new sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Renumber {
    /// From here on, under the same producer id: what failed had this number and was not taken.
    From(i32),
    /// From zero, under a fresh producer id.
    FreshId,
}

impl<T> PartitionQueue<T> {
    pub(crate) fn new(idempotent: bool) -> Self {
        Self {
            idempotent,
            identity: None,
            burned: None,
            next_sequence: 0,
            established: false,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            draining: false,
            renumber: None,
            not_before: Duration::ZERO,
            last_number: 0,
        }
    }

    /// Takes a closed batch.
    pub(crate) fn push(&mut self, mut batch: Sealed<T>) {
        self.last_number += 1;
        batch.number = self.last_number;
        self.waiting.push_back(batch);
    }

    /// Whether batches wait for a producer id.
    pub(crate) fn needs_identity(&self) -> bool {
        self.idempotent && self.identity.is_none() && !self.waiting.is_empty()
    }

    /// Takes a producer id, unless it is the one that this partition has given up.
    pub(crate) fn set_identity(&mut self, identity: ProducerId) {
        if self.identity.is_none() && self.burned != Some(identity) {
            self.identity = Some(identity);
            self.next_sequence = 0;
        }
    }

    /// The next batch to send, marked as in flight: its number here, and its bytes.
    pub(crate) fn take(&mut self, now: Duration, max_in_flight: usize) -> Option<(u64, bytes::Bytes)> {
        let alone = self.draining || self.idempotent && !self.established;
        let room = if alone { 1 } else { max_in_flight };
        if now < self.not_before || self.in_flight.len() >= room || self.needs_identity() {
            return None;
        }
        let mut batch = self.waiting.pop_front()?;
        self.draining = false;
        if let Some(identity) = self.identity {
            let sequence = match batch.sequence {
                Some(sequence) => sequence,
                None => {
                    let sequence = self.next_sequence;
                    self.next_sequence = add_sequence(sequence, batch.count());
                    sequence
                }
            };
            batch.sequence = Some(sequence);
            batch.builder.producer(identity.id, identity.epoch, sequence);
        }
        batch.attempts += 1;
        let sent = (batch.number, batch.builder.build());
        self.in_flight.push_back(batch);
        Some(sent)
    }

    /// Records what became of an in-flight batch; hands it back if its fate is settled. After a retriable failure nothing
    /// is sent before `retry_at`.
    pub(crate) fn answer(&mut self, number: u64, verdict: Verdict, retry_at: Duration) -> Option<Sealed<T>> {
        let at = self.in_flight.iter().position(|batch| batch.number == number)?;
        let first = at == 0 && self.waiting.front().is_none_or(|waiting| waiting.number > number);
        let batch = self.in_flight.remove(at)?;
        let settled = match verdict {
            Verdict::Taken => {
                self.established = true;
                Some(batch)
            }
            Verdict::Retry => self.again(batch, retry_at),
            Verdict::SequenceRefused => {
                if first {
                    self.renumber = Some(Renumber::FreshId);
                }
                self.again(batch, retry_at)
            }
            Verdict::Refused => {
                if let (Some(sequence), None) = (batch.sequence, self.renumber) {
                    self.renumber = Some(Renumber::From(sequence));
                }
                self.draining = true;
                Some(batch)
            }
        };
        self.drained();
        settled
    }

    /// Takes out the waiting batches whose time is up. Sequence numbers stay as they are: whether an expired batch was
    /// taken shows when the next one is answered.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Sealed<T>> {
        let mut expired = Vec::new();
        while self.waiting.front().is_some_and(|batch| batch.deadline <= now) {
            expired.extend(self.waiting.pop_front());
        }
        expired
    }

    /// Takes out everything, in flight or not: the producer is closed.
    pub(crate) fn abandon(&mut self) -> Vec<Sealed<T>> {
        self.in_flight.drain(..).chain(self.waiting.drain(..)).collect()
    }

    /// How often an in-flight batch has been sent.
    pub(crate) fn attempts(&self, number: u64) -> u32 {
        let batch = self.in_flight.iter().find(|batch| batch.number == number);
        batch.map_or(0, |batch| batch.attempts)
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// When something changes by time alone, if anything waits. What waits for an answer, a leader or an id is not
    /// waiting for the time.
    pub(crate) fn next_event(&self, now: Duration) -> Option<Duration> {
        let front = self.waiting.front()?;
        let retry = Some(self.not_before).filter(|at| *at > now && self.in_flight.is_empty());
        Some(retry.unwrap_or(front.deadline).min(front.deadline))
    }

    fn again(&mut self, batch: Sealed<T>, retry_at: Duration) -> Option<Sealed<T>> {
        self.draining = true;
        self.not_before = self.not_before.max(retry_at);
        let at = self
            .waiting
            .iter()
            .position(|waiting| waiting.number > batch.number);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), batch);
        None
    }

    fn drained(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        match self.renumber.take() {
            Some(Renumber::FreshId) => {
                self.burned = self.identity.take();
                self.established = false;
                self.next_sequence = 0;
            }
            Some(Renumber::From(sequence)) => {
                // Batches before the refused one that must be sent again keep their numbers.
                let kept =
                    |batch: &Sealed<T>| batch.sequence.is_some_and(|own| own.wrapping_sub(sequence) < 0);
                let split = self
                    .waiting
                    .iter()
                    .position(|batch| !kept(batch))
                    .unwrap_or(self.waiting.len());
                self.next_sequence = sequence;
                self.waiting
                    .iter_mut()
                    .skip(split)
                    .for_each(|batch| batch.sequence = None);
                return;
            }
            None => return,
        }
        self.waiting.iter_mut().for_each(|batch| batch.sequence = None);
    }
}

#[cfg(test)]
mod tests {
    use tradewind_wire::batch::{Batch, TimestampType};
    use tradewind_wire::compression::Codec;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const LATE: Duration = Duration::from_secs(1_000);

    fn queue(batches: &[(&'static str, usize)]) -> PartitionQueue<&'static str> {
        let mut queue = PartitionQueue::new(true);
        queue.set_identity(ProducerId { id: 7, epoch: 0 });
        queue.established = true;
        for (name, records) in batches {
            queue.push(sealed(name, *records));
        }
        queue
    }

    fn sealed(name: &'static str, records: usize) -> Sealed<&'static str> {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        for _ in 0..records {
            builder.append(0, None, Some(name.as_bytes()), &[]);
        }
        Sealed::new(builder, name, LATE)
    }

    /// Sends all that may be sent: (number, producer id, first sequence).
    fn send(queue: &mut PartitionQueue<&'static str>) -> Vec<(u64, i64, i32)> {
        std::iter::from_fn(|| queue.take(NOW, 5))
            .map(|(number, bytes)| {
                let header = *Batch::parse(bytes).unwrap().header();
                (number, header.producer_id, header.base_sequence)
            })
            .collect()
    }

    #[test]
    fn five_are_in_flight_and_sequences_count_records() {
        let mut queue = queue(&[("a", 1), ("b", 10), ("c", 2), ("d", 1), ("e", 1), ("f", 1)]);
        let sent = send(&mut queue);
        assert_eq!(sent, [(1, 7, 0), (2, 7, 1), (3, 7, 11), (4, 7, 13), (5, 7, 14)]);
        assert_eq!(queue.answer(1, Verdict::Taken, NOW).unwrap().waiters, "a");
        assert_eq!(send(&mut queue), [(6, 7, 15)]);
    }

    #[test]
    fn a_failed_batch_is_sent_again_in_order_with_its_number() {
        let mut queue = queue(&[("a", 1), ("b", 1), ("c", 1)]);
        send(&mut queue);
        assert!(queue.answer(1, Verdict::Retry, NOW).is_none());
        assert!(send(&mut queue).is_empty(), "b and c are still open");
        // The broker refuses what follows a gap.
        assert!(queue.answer(2, Verdict::SequenceRefused, NOW).is_none());
        assert!(queue.answer(3, Verdict::SequenceRefused, NOW).is_none());
        assert_eq!(send(&mut queue), [(1, 7, 0), (2, 7, 1), (3, 7, 2)]);
        for number in 1..=3 {
            assert!(queue.answer(number, Verdict::Taken, NOW).is_some());
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn a_retry_waits_until_its_time() {
        let mut queue = queue(&[("a", 1)]);
        send(&mut queue);
        assert_eq!(queue.attempts(1), 1);
        let later = NOW + Duration::from_millis(100);
        queue.answer(1, Verdict::Retry, later);
        assert!(queue.take(NOW, 5).is_none());
        assert_eq!(queue.next_event(NOW), Some(later));
        assert!(queue.take(later, 5).is_some());
        assert_eq!(queue.attempts(1), 2);
    }

    #[test]
    fn a_sequence_refused_with_nothing_before_it_starts_over_under_a_fresh_id() {
        let mut queue = queue(&[("a", 1), ("b", 2)]);
        send(&mut queue);
        queue.answer(1, Verdict::SequenceRefused, NOW);
        queue.answer(2, Verdict::SequenceRefused, NOW);
        assert!(queue.needs_identity());
        queue.set_identity(ProducerId { id: 7, epoch: 0 });
        assert!(send(&mut queue).is_empty(), "the old id is burned");
        queue.set_identity(ProducerId { id: 8, epoch: 0 });
        assert_eq!(send(&mut queue), [(1, 8, 0)]);
        queue.answer(1, Verdict::Taken, NOW);
        assert_eq!(send(&mut queue), [(2, 8, 1)]);
    }

    #[test]
    fn a_refused_batch_leaves_no_gap() {
        let mut queue = queue(&[("a", 1), ("b", 5), ("c", 1), ("d", 1)]);
        send(&mut queue);
        queue.answer(1, Verdict::Retry, NOW);
        assert_eq!(queue.answer(2, Verdict::Refused, NOW).unwrap().waiters, "b");
        queue.answer(3, Verdict::SequenceRefused, NOW);
        assert!(send(&mut queue).is_empty());
        queue.answer(4, Verdict::SequenceRefused, NOW);
        assert_eq!(send(&mut queue), [(1, 7, 0), (3, 7, 1), (4, 7, 2)]);
    }

    #[test]
    fn what_expires_keeps_the_numbers_of_the_rest() {
        let mut queue = queue(&[]);
        let mut first = sealed("a", 3);
        first.deadline = NOW + Duration::from_secs(1);
        queue.push(first);
        queue.push(sealed("b", 1));
        send(&mut queue);
        queue.answer(1, Verdict::Retry, NOW);
        queue.answer(2, Verdict::Retry, NOW);
        let expired = queue.expire(NOW + Duration::from_secs(2));
        assert_eq!(
            expired.iter().map(|batch| batch.waiters).collect::<Vec<_>>(),
            ["a"]
        );
        assert_eq!(send(&mut queue), [(2, 7, 3)]);
        // It was not taken after all: the broker sees a gap, and b goes again under a fresh id.
        queue.answer(2, Verdict::SequenceRefused, NOW);
        queue.set_identity(ProducerId { id: 9, epoch: 0 });
        assert_eq!(send(&mut queue), [(2, 9, 0)]);
    }

    #[test]
    fn the_first_batch_under_an_id_goes_alone() {
        let mut queue = queue(&[("a", 1), ("b", 1), ("c", 1)]);
        queue.established = false;
        assert_eq!(send(&mut queue), [(1, 7, 0)]);
        queue.answer(1, Verdict::Retry, NOW);
        assert_eq!(send(&mut queue), [(1, 7, 0)]);
        queue.answer(1, Verdict::Taken, NOW);
        assert_eq!(send(&mut queue), [(2, 7, 1), (3, 7, 2)]);
    }

    #[test]
    fn without_idempotence_there_are_no_sequences() {
        let mut queue = PartitionQueue::new(false);
        queue.push(sealed("a", 1));
        assert_eq!(send(&mut queue), [(1, -1, -1)]);
    }
}
