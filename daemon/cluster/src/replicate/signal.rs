//! Which sessions of a stream have something to say.
//!
//! An append puts the session's handle on its stream's ready list and wakes the stream once, however many partitions
//! are ready by then.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One stream's ready list.
#[derive(Debug, Default)]
pub(crate) struct StreamSignal {
    ready: Mutex<Ready>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Ready {
    order: Vec<u32>,
    listed: HashSet<u32>,
}

impl StreamSignal {
    /// Puts `handle` on the list.
    pub(crate) fn mark(&self, handle: u32) {
        {
            let mut ready = self.ready.lock();
            if !ready.listed.insert(handle) {
                return;
            }
            ready.order.push(handle);
        }
        self.notify.notify_one();
    }

    /// Wakes the stream without a handle.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for the next wake-up. Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// The handles that were marked since the last call, in that order.
    pub(crate) fn take(&self) -> Vec<u32> {
        let mut ready = self.ready.lock();
        ready.listed.clear();
        std::mem::take(&mut ready.order)
    }
}

/// The streams that want to hear of one replica.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    list: Mutex<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    signal: Weak<StreamSignal>,
    handle: u32,
    kind: Kind,
}

/// What a stream wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// New records, a new watermark, another leader: the serving side.
    Push,
    /// A finished flush: the reading side, which acknowledges it.
    Ack,
}

impl Subscribers {
    pub(crate) fn add(&self, signal: &Arc<StreamSignal>, handle: u32, kind: Kind) {
        let mut list = self.list.lock();
        list.retain(|subscriber| subscriber.signal.strong_count() > 0);
        list.push(Subscriber {
            signal: Arc::downgrade(signal),
            handle,
            kind,
        });
    }

    pub(crate) fn remove(&self, signal: &Arc<StreamSignal>, handle: u32) {
        let gone = Arc::downgrade(signal);
        self.list
            .lock()
            .retain(|subscriber| subscriber.handle != handle || !subscriber.signal.ptr_eq(&gone));
    }

    /// The log or the watermark moved.
    pub(crate) fn ready(&self) {
        self.mark(Kind::Push);
    }

    /// A follower's flush is done.
    pub(crate) fn acked(&self) {
        self.mark(Kind::Ack);
    }

    fn mark(&self, kind: Kind) {
        for subscriber in self
            .list
            .lock()
            .iter()
            .filter(|subscriber| subscriber.kind == kind)
        {
            if let Some(signal) = subscriber.signal.upgrade() {
                signal.mark(subscriber.handle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_marks_are_one_wake_up_and_each_handle_comes_once() {
        let signal = Arc::new(StreamSignal::default());
        let subscribers = Subscribers::default();
        subscribers.add(&signal, 7, Kind::Push);
        subscribers.add(&signal, 8, Kind::Ack);
        subscribers.ready();
        subscribers.ready();
        signal.woken().await;
        assert_eq!(signal.take(), [7]);
        subscribers.acked();
        assert_eq!(signal.take(), [8]);
        subscribers.remove(&signal, 7);
        subscribers.ready();
        assert!(signal.take().is_empty());
    }
}
