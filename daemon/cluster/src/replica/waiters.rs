//! Those who wait for a partition to move: producers for their offset, fetches for anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::CommitError;

/// Appends that wait for the high watermark, by offset.
#[derive(Debug, Default)]
pub(super) struct CommitWaiters {
    by_offset: BTreeMap<i64, Vec<oneshot::Sender<Result<(), CommitError>>>>,
}

impl CommitWaiters {
    /// Waits until the watermark lies above `last_offset`. Bounded by the requests in flight, which connections bound.
    pub(super) fn wait(&mut self, last_offset: i64) -> oneshot::Receiver<Result<(), CommitError>> {
        let (sender, receiver) = oneshot::channel();
        let waiting = self.by_offset.entry(last_offset).or_default();
        waiting.retain(|sender| !sender.is_closed());
        waiting.push(sender);
        receiver
    }

    /// The high watermark is `high_watermark` now.
    pub(super) fn reached(&mut self, high_watermark: i64) {
        let later = self.by_offset.split_off(&high_watermark);
        for sender in std::mem::replace(&mut self.by_offset, later)
            .into_values()
            .flatten()
        {
            let _ = sender.send(Ok(()));
        }
    }

    /// Leadership ended: nobody here can say any more.
    pub(super) fn fail(&mut self) {
        for sender in std::mem::take(&mut self.by_offset).into_values().flatten() {
            let _ = sender.send(Err(CommitError::NotLeader));
        }
    }
}

/// Long-polled fetches: each registered waiter is notified once.
#[derive(Debug, Default)]
pub(super) struct ProgressWaiters {
    waiting: Mutex<Waiting>,
    /// Counts the calls of [`Self::wake`].
    pub(super) moves: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<Weak<Notify>>,
    prune_at: usize,
}

/// Below this many, waiters whose fetch has ended are not looked for.
const PRUNE_MIN: usize = 64;

impl ProgressWaiters {
    pub(super) fn register(&self, waiter: &Arc<Notify>) {
        let mut waiting = self.waiting.lock();
        if waiting.waiters.len() >= waiting.prune_at.max(PRUNE_MIN) {
            waiting.waiters.retain(|waiter| waiter.strong_count() > 0);
            waiting.prune_at = waiting.waiters.len() * 2;
        }
        waiting.waiters.push(Arc::downgrade(waiter));
    }

    pub(super) fn wake(&self) {
        // Before the waiters are taken: whoever registers and then sees the old number is among them.
        self.moves.fetch_add(1, Ordering::AcqRel);
        let waiters = std::mem::take(&mut self.waiting.lock().waiters);
        for waiter in waiters.iter().filter_map(Weak::upgrade) {
            waiter.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_wait_for_a_watermark_above_their_last_offset() {
        let mut waiters = CommitWaiters::default();
        let mut at_four = waiters.wait(4);
        let mut at_five = waiters.wait(5);
        waiters.reached(5);
        assert_eq!(at_four.try_recv(), Ok(Ok(())));
        assert!(at_five.try_recv().is_err());
        waiters.fail();
        assert_eq!(at_five.try_recv(), Ok(Err(CommitError::NotLeader)));
    }

    #[test]
    fn ended_fetches_do_not_pile_up() {
        let waiters = ProgressWaiters::default();
        for _ in 0..10_000 {
            waiters.register(&Arc::new(Notify::new()));
        }
        assert!(waiters.waiting.lock().waiters.len() <= 2 * PRUNE_MIN);
    }
}
