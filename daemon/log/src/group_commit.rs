//! Group commit: a bounded number of threads that flush the logs that have something to flush.
//!
//! A log that is marked while it waits is flushed once; one that is marked while it is being flushed is flushed again. So
//! under load each flush carries everything that arrived during the one before.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::log::Log;

/// Called with each flushed log and its flushed end, on a flusher thread.
pub type OnFlushed = dyn Fn(&Arc<Log>, io::Result<i64>) + Send + Sync;

/// The set of logs to flush, and the threads that do it.
pub struct GroupCommit {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    on_flushed: Box<OnFlushed>,
}

/// At most one entry per open log, so bounded by their number.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<Log>>,
    /// Logs that wait, by address.
    marked: HashSet<usize>,
    stopping: bool,
}

impl GroupCommit {
    /// Starts `threads` flushers, 1 to 8. `on_flushed` must not block.
    pub fn start(threads: usize, on_flushed: Box<OnFlushed>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            more: Condvar::new(),
            on_flushed,
        });
        let threads = (0..threads.clamp(1, 8))
            .map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("flush-{i}"))
                    .spawn(move || shared.work())
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Asks for a flush of what is in the log now. Cheap; does not wait. After [`Self::stop`] it does nothing.
    pub fn mark(&self, log: &Arc<Log>) {
        let mut queue = self.shared.queue.lock();
        if !queue.stopping && queue.marked.insert(address(log)) {
            queue.waiting.push_back(Arc::clone(log));
            drop(queue);
            self.shared.more.notify_one();
        }
    }

    /// How many logs wait for a flush.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().waiting.len()
    }

    /// Flushes what is marked and ends the threads. Blocks.
    pub fn stop(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.more.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let log = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(log) = queue.waiting.pop_front() {
                        // From here on a mark means another flush.
                        queue.marked.remove(&address(&log));
                        break log;
                    }
                    if queue.stopping {
                        return;
                    }
                    self.more.wait(&mut queue);
                }
            };
            let result = log.flush();
            (self.on_flushed)(&log, result);
        }
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for GroupCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCommit")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

fn address(log: &Arc<Log>) -> usize {
    Arc::as_ptr(log) as usize
}
