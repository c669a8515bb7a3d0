//! Group commit: a few threads that make dirty logs durable and tell their replicas how far.
//!
//! A replica is queued at most once, and flushed by at most one thread at a time; what is appended meanwhile goes with
//! its next flush. So the number of fsyncs follows the disk, not the number of appends. When nothing is to be flushed, the
//! same threads have the kernel begin to write what is not flushed each time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tradewind_wire::clock::Clock;

use crate::metrics;
use crate::replica::Replica;
use crate::threads;

/// How many fsyncs run side by side.
const THREADS: usize = 8;

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const FLUSHING: u8 = 2;
/// Dirtied again while it is being flushed.
const AGAIN: u8 = 3;

/// Where one replica stands in the queue.
#[derive(Debug, Default)]
pub(crate) struct FlushState {
    flush: AtomicU8,
    /// Whether it is queued to be written back.
    write_back: AtomicBool,
}

impl FlushState {
    /// Something was appended; true if the replica must be queued.
    fn dirty(&self) -> bool {
        let next = |state| match state {
            IDLE => Some(QUEUED),
            FLUSHING => Some(AGAIN),
            _ => None,
        };
        self.flush.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
    }

    fn begin(&self) {
        self.flush.store(FLUSHING, Ordering::Release);
    }

    /// The flush is over; true if the replica must be queued again.
    fn done(&self) -> bool {
        let next = |state| Some(if state == AGAIN { QUEUED } else { IDLE });
        self.flush.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(AGAIN)
    }

    /// Much was appended; true if the replica must be queued to be written back.
    fn unwritten(&self) -> bool {
        !self.write_back.swap(true, Ordering::AcqRel)
    }

    fn written_back(&self) {
        self.write_back.store(false, Ordering::Release);
    }
}

/// The queue of dirty replicas and its threads, which end when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Flusher {
    queue: Arc<Queue>,
    _stop: Arc<StopOnDrop>,
}

#[derive(Default)]
struct Queue {
    dirty: Mutex<Dirty>,
    wake: Condvar,
    /// As `wake`, for a simulation's task.
    woken: Notify,
}

#[derive(Default)]
struct Dirty {
    replicas: VecDeque<Weak<Replica>>,
    /// To be written back, not flushed.
    unwritten: VecDeque<Weak<Replica>>,
    stopped: bool,
}

struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.dirty.lock().stopped = true;
        self.0.wake.notify_all();
        self.0.woken.notify_one();
    }
}

impl Flusher {
    /// Starts the threads.
    pub(crate) fn start(clock: &Arc<dyn Clock>) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        if threads::are_simulated() {
            tokio::spawn(Arc::clone(&queue).work_in_a_task(Arc::clone(clock)));
        }
        let threads = if threads::are_simulated() { 0 } else { THREADS };
        for i in 0..threads {
            let (queue, clock) = (Arc::clone(&queue), Arc::clone(clock));
            std::thread::Builder::new()
                .name(format!("flush-{i}"))
                .spawn(move || queue.work(&*clock))?;
        }
        Ok(Self {
            _stop: Arc::new(StopOnDrop(Arc::clone(&queue))),
            queue,
        })
    }

    /// The replica's log has unflushed records: flush them soon and call [`Replica::flushed`].
    pub(crate) fn enqueue(&self, replica: &Weak<Replica>) {
        if replica
            .upgrade()
            .is_some_and(|replica| replica.flush_state.dirty())
        {
            self.queue.push(replica.clone());
        }
    }

    /// The replica's log has much that the kernel was not asked to write yet: have it begin soon.
    pub(crate) fn enqueue_write_back(&self, replica: &Weak<Replica>) {
        if replica
            .upgrade()
            .is_some_and(|replica| replica.flush_state.unwritten())
        {
            self.queue.dirty.lock().unwritten.push_back(replica.clone());
            self.queue.wake.notify_one();
            self.queue.woken.notify_one();
        }
    }
}

impl Queue {
    fn push(&self, replica: Weak<Replica>) {
        self.dirty.lock().replicas.push_back(replica);
        self.wake.notify_one();
        self.woken.notify_one();
    }

    fn work(&self, clock: &dyn Clock) {
        loop {
            let next = {
                let mut dirty = self.dirty.lock();
                loop {
                    if let Some(replica) = dirty.replicas.pop_front() {
                        break replica;
                    }
                    if dirty.stopped {
                        return;
                    }
                    if let Some(replica) = dirty.unwritten.pop_front() {
                        MutexGuard::unlocked(&mut dirty, || write_back(&replica));
                        continue;
                    }
                    self.wake.wait(&mut dirty);
                }
            };
            let Some(replica) = next.upgrade() else { continue };
            replica.flush_state.begin();
            self.flush(next, &replica, clock);
        }
    }

    async fn work_in_a_task(self: Arc<Self>, clock: Arc<dyn Clock>) {
        loop {
            let unwritten = self.dirty.lock().unwritten.pop_front();
            if let Some(replica) = unwritten {
                write_back(&replica);
            }
            let next = self.dirty.lock().replicas.pop_front();
            let Some(next) = next else {
                if self.dirty.lock().stopped {
                    return;
                }
                self.woken.notified().await;
                continue;
            };
            let Some(replica) = next.upgrade() else { continue };
            replica.flush_state.begin();
            tokio::time::sleep(threads::flush_takes(replica.own_node())).await;
            self.flush(next, &replica, &*clock);
        }
    }

    fn flush(&self, next: Weak<Replica>, replica: &Replica, clock: &dyn Clock) {
        let began = clock.monotonic();
        match replica.log().flush() {
            Ok(end) => {
                metrics::flushed(clock.monotonic().saturating_sub(began));
                replica.flushed(end);
            }
            // Not even the small files have room: the log stays in service, and is flushed again by its age.
            Err(_) if replica.log().poisoned().is_none() => {}
            Err(error) => replica.failed(format!("flush: {error}")),
        }
        if replica.flush_state.done() {
            self.push(next);
        }
    }
}

fn write_back(replica: &Weak<Replica>) {
    if let Some(replica) = replica.upgrade() {
        replica.flush_state.written_back();
        replica.log().write_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_queued_once_and_again_if_dirtied_meanwhile() {
        let state = FlushState::default();
        assert!(state.dirty());
        assert!(!state.dirty());
        state.begin();
        assert!(!state.dirty());
        assert!(!state.dirty());
        assert!(state.done());
        state.begin();
        assert!(!state.done());
        assert!(state.dirty());
    }
}
