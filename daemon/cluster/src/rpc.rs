//! Requests and answers over a [`Link`]: many under way at once, each with its number.
//!
//! The asking side may give up on an answer at any moment without hurting the others; a link that breaks ends all of
//! them. Deadlines are the caller's.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

use crate::link::{FrameSink, FrameSource, Link, LinkError, Peers};

/// How many requests of one link are answered at once.
const CONCURRENT: usize = 256;

/// How many frames may wait to be sent.
const QUEUE: usize = 64;

/// After so many calls in a row without an answer in time, the link is taken for dead and opened anew.
const SILENT_CALLS: u32 = 10;

/// The asking side of a link.
pub(crate) struct Caller {
    node: NodeId,
    out: mpsc::Sender<Vec<Bytes>>,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    next: AtomicU64,
    silent: AtomicU32,
    reader: AbortOnDropHandle<()>,
    _writer: AbortOnDropHandle<()>,
}

impl Caller {
    /// Takes a link over. Must be called within a runtime.
    pub(crate) fn new(node: NodeId, link: Link) -> Self {
        let (out, queue) = mpsc::channel(QUEUE);
        let pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>> = Arc::default();
        let reader = tokio::spawn(read_answers(link.rx, Arc::clone(&pending)));
        let writer = tokio::spawn(write_frames(link.tx, queue));
        Self {
            node,
            out,
            pending,
            next: AtomicU64::new(1),
            silent: AtomicU32::new(0),
            reader: AbortOnDropHandle::new(reader),
            _writer: AbortOnDropHandle::new(writer),
        }
    }

    /// Whether the link can no longer be used.
    pub(crate) fn is_dead(&self) -> bool {
        self.reader.is_finished()
            || self.out.is_closed()
            || self.silent.load(Ordering::Relaxed) >= SILENT_CALLS
    }

    /// Sends a request that consists of `parts` and waits for its answer, at most `timeout`.
    pub(crate) async fn call(&self, parts: &[Bytes], timeout: Duration) -> Result<Bytes, LinkError> {
        // Counted as silent until answered, so that a caller who gives up early is counted too.
        self.silent.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(timeout, self.exchange(parts)).await {
            Ok(Ok(answer)) => {
                self.silent.store(0, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.failed("no answer in time")),
        }
    }

    async fn exchange(&self, parts: &[Bytes]) -> Result<Bytes, LinkError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, answer) = oneshot::channel();
        self.pending.lock().insert(number, tx);
        let _forget = Forget {
            pending: &self.pending,
            number,
        };
        let mut frame = Vec::with_capacity(parts.len() + 1);
        frame.push(Bytes::copy_from_slice(&number.to_be_bytes()));
        frame.extend_from_slice(parts);
        let sent = self.out.send(frame).await;
        sent.map_err(|_| self.failed("the link is closed"))?;
        answer.await.map_err(|_| self.failed("the link is closed"))
    }

    fn failed(&self, reason: &str) -> LinkError {
        LinkError {
            node: self.node,
            reason: reason.to_owned(),
        }
    }
}

/// Takes a request out of the pending ones when its caller is done with it.
struct Forget<'a> {
    pending: &'a Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.number);
    }
}

async fn read_answers(
    mut rx: Box<dyn FrameSource>,
    pending: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
) {
    while let Ok(Some(mut frame)) = rx.recv().await {
        let Ok(number) = frame.try_get_u64() else {
            break;
        };
        let waiter = pending.lock().remove(&number);
        if let Some(waiter) = waiter {
            let _ = waiter.send(frame);
        }
    }
    // Whoever waits on is told by the dropped senders.
    pending.lock().clear();
}

async fn write_frames(mut tx: Box<dyn FrameSink>, mut queue: mpsc::Receiver<Vec<Bytes>>) {
    while let Some(parts) = queue.recv().await {
        if tx.send(&parts).await.is_err() {
            return;
        }
    }
}

/// Answers the requests of one link until it ends. A request that `answer` gives nothing for stays unanswered.
pub(crate) async fn serve<F>(link: Link, answer: impl Fn(Bytes) -> F)
where
    F: Future<Output = Option<Bytes>> + Send + 'static,
{
    let (out, queue) = mpsc::channel(QUEUE);
    let writer = AbortOnDropHandle::new(tokio::spawn(write_frames(link.tx, queue)));
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    let mut rx = link.rx;
    while let Ok(Some(mut frame)) = rx.recv().await {
        let Ok(number) = frame.try_get_u64() else {
            break;
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        if writer.is_finished() {
            break;
        }
        let (work, out) = (answer(frame), out.clone());
        tokio::spawn(async move {
            if let Some(body) = work.await {
                let number = Bytes::copy_from_slice(&number.to_be_bytes());
                // A link that ended meanwhile needs no answer.
                let _ = out.send(vec![number, body]).await;
            }
            drop(slot);
        });
    }
}

/// Knows where daemons are and opens conversations with them.
pub(crate) struct Dialer {
    peers: Arc<dyn Peers>,
    addresses: Box<dyn Fn(NodeId) -> Vec<String> + Send + Sync>,
    /// Where members of the Raft group were when they became it: all that is known of one that has yet to register.
    learnt: Mutex<HashMap<NodeId, String>>,
}

impl Dialer {
    /// `addresses` gives the addresses of a daemon, the likeliest first.
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        addresses: impl Fn(NodeId) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            peers,
            addresses: Box::new(addresses),
            learnt: Mutex::default(),
        }
    }

    /// Notes an address that is tried when no other answers.
    pub(crate) fn learn(&self, node: NodeId, address: &str) {
        self.learnt.lock().insert(node, address.to_owned());
    }

    /// Opens a conversation at the first address that answers.
    pub(crate) async fn dial(
        &self,
        node: NodeId,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError> {
        let mut failed = LinkError {
            node,
            reason: "no address is known".to_owned(),
        };
        let mut addresses = (self.addresses)(node);
        let learnt = self.learnt.lock().get(&node).cloned();
        addresses.extend(learnt.filter(|learnt| !addresses.contains(learnt)));
        for address in addresses {
            match self.dial_at(node, &address, conversation, expect_storage).await {
                Ok(link) => return Ok(link),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Opens a conversation at this address.
    pub(crate) async fn dial_at(
        &self,
        node: NodeId,
        address: &str,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Result<Link, LinkError> {
        self.peers.open(node, address, conversation, expect_storage).await
    }
}

/// A conversation with one daemon that is opened when needed, and again when it broke. Dialling goes on while nobody
/// waits: a call's deadline is often shorter than a handshake.
pub(crate) struct Line {
    dialer: Arc<Dialer>,
    node: NodeId,
    conversation: Conversation,
    expect_storage: Option<[u8; 16]>,
    caller: Option<Arc<Caller>>,
    dialling: Option<JoinHandle<Result<Link, LinkError>>>,
}

impl Line {
    /// A line to `node`; opens nothing yet.
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        node: NodeId,
        conversation: Conversation,
        expect_storage: Option<[u8; 16]>,
    ) -> Self {
        Self {
            dialer,
            node,
            conversation,
            expect_storage,
            caller: None,
            dialling: None,
        }
    }

    /// The open line. Cancel-safe.
    pub(crate) async fn caller(&mut self) -> Result<Arc<Caller>, LinkError> {
        if let Some(caller) = self.caller.as_ref().filter(|caller| !caller.is_dead()) {
            return Ok(Arc::clone(caller));
        }
        self.caller = None;
        let dialling = self.dialling.get_or_insert_with(|| {
            let dialer = Arc::clone(&self.dialer);
            let (node, conversation, storage) = (self.node, self.conversation, self.expect_storage);
            tokio::spawn(async move { dialer.dial(node, conversation, storage).await })
        });
        let dialled = dialling.await;
        self.dialling = None;
        let link = dialled.map_err(|error| LinkError {
            node: self.node,
            reason: error.to_string(),
        })??;
        let caller = Arc::new(Caller::new(self.node, link));
        self.caller = Some(Arc::clone(&caller));
        Ok(caller)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(dialling) = &self.dialling {
            dialling.abort();
        }
    }
}
