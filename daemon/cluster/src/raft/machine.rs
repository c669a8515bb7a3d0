//! The state machine: the image in memory, a snapshot file now and then, and whoever waits for an entry here.
//!
//! A proposal is answered from the daemon that proposed it, when *it* applies the entry: its own image then shows the
//! change. What every origin's last proposals came to is part of the state, so that one that arrives twice is applied
//! once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, ErrorSubject, ErrorVerb, RaftSnapshotBuilder, Snapshot, StorageIOError,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tradewind_wire::ids::NodeId;

use super::types::{
    Entry, LogId, Origin, Proposal, SnapshotMeta, StorageError, StoredMembership, TypeConfig, decode, encode,
    node_id, reign,
};
use crate::apply::{Position, apply};
use crate::command::{MetaError, Outcome};
use crate::image::Image;
use crate::threads;

/// What a proposal came to.
pub(crate) type Answer = Result<Outcome, MetaError>;

/// How many of an origin's last proposals are remembered. An origin has far fewer under way at once.
const REMEMBERED: usize = 256;

/// Everything that a snapshot holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    last_applied: Option<LogId>,
    membership: StoredMembership,
    image: Arc<Image>,
    answered: BTreeMap<NodeId, VecDeque<(u64, Answer)>>,
}

/// Those who wait here for their proposals to be applied, by nonce.
#[derive(Clone, Default)]
pub(crate) struct Waiting {
    by_nonce: Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>,
}

impl Waiting {
    /// Waits for the proposal with this nonce. Dropping the guard gives up.
    pub(crate) fn wait(&self, nonce: u64) -> (WaitGuard, oneshot::Receiver<Answer>) {
        let (tx, rx) = oneshot::channel();
        self.by_nonce.lock().insert(nonce, tx);
        let guard = WaitGuard {
            waiting: self.clone(),
            nonce,
        };
        (guard, rx)
    }

    fn answer(&self, nonce: u64, answer: Answer) {
        let waiter = self.by_nonce.lock().remove(&nonce);
        if let Some(waiter) = waiter {
            // A proposer that has given up is of no interest.
            let _ = waiter.send(answer);
        }
    }

    fn waits_for(&self, nonce: u64) -> bool {
        self.by_nonce.lock().contains_key(&nonce)
    }
}

/// See [`Waiting::wait`].
pub(crate) struct WaitGuard {
    waiting: Waiting,
    nonce: u64,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.waiting.by_nonce.lock().remove(&self.nonce);
    }
}

/// The state machine of one daemon.
pub(crate) struct Machine {
    node: NodeId,
    state: State,
    images: watch::Sender<Arc<Image>>,
    waiting: Waiting,
    snapshots: SnapshotFile,
}

impl Machine {
    /// Reads the last snapshot of `dir`, if there is one. New images go to `images`.
    pub(crate) fn open(
        node: NodeId,
        dir: &Path,
        images: watch::Sender<Arc<Image>>,
        waiting: Waiting,
    ) -> io::Result<Self> {
        let snapshots = SnapshotFile {
            path: dir.join("meta.snapshot"),
        };
        let state = match snapshots.read()? {
            Some(bytes) => decode(&bytes).map_err(|error| snapshots.unreadable(&error))?,
            None => State::default(),
        };
        images.send_replace(Arc::clone(&state.image));
        Ok(Self {
            node,
            state,
            images,
            waiting,
            snapshots,
        })
    }

    fn apply_entry(&mut self, entry: Entry, answers: &mut Vec<(u64, Answer)>) {
        let at = Position {
            index: entry.log_id.index,
            term: reign(&entry.log_id.leader_id),
        };
        match entry.payload {
            EntryPayload::Blank => self.state.image = Arc::new(moved(&self.state.image, at)),
            EntryPayload::Membership(membership) => {
                let mut image = moved(&self.state.image, at);
                image.members = membership.nodes().map(|(id, _)| node_id(*id)).collect();
                self.state.image = Arc::new(image);
                self.state.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(proposal) => {
                let origin = proposal.origin;
                let answer = self.apply_proposal(at, &proposal);
                if let Some(origin) = origin.filter(|origin| origin.node == self.node) {
                    answers.push((origin.nonce, answer));
                }
            }
        }
        self.state.last_applied = Some(entry.log_id);
    }

    fn apply_proposal(&mut self, at: Position, proposal: &Proposal) -> Answer {
        if let Some(answer) = proposal.origin.and_then(|origin| self.answered(origin)).cloned() {
            self.state.image = Arc::new(moved(&self.state.image, at));
            return answer;
        }
        let (image, answer) = apply(&self.state.image, at, &proposal.command);
        if let Err(error) = &answer {
            tracing::debug!(index = at.index, %error, command = ?proposal.command, "refused a proposal");
        }
        self.state.image = Arc::new(image);
        if let Some(origin) = proposal.origin {
            let answered = self.state.answered.entry(origin.node).or_default();
            answered.push_back((origin.nonce, answer.clone()));
            while answered.len() > REMEMBERED {
                answered.pop_front();
            }
        }
        answer
    }

    fn answered(&self, origin: Origin) -> Option<&Answer> {
        let answered = self.state.answered.get(&origin.node)?;
        let found = answered.iter().rev().find(|(nonce, _)| *nonce == origin.nonce);
        found.map(|(_, answer)| answer)
    }

    fn publish(&self) {
        self.images.send_replace(Arc::clone(&self.state.image));
    }
}

/// The image at a later position, otherwise the same.
fn moved(image: &Image, at: Position) -> Image {
    Image {
        index: at.index,
        term: at.term,
        ..image.clone()
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.last_applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut answers = Vec::new();
        let mut count = 0;
        for entry in entries {
            self.apply_entry(entry, &mut answers);
            count += 1;
        }
        // Whoever is answered finds the change in the image.
        self.publish();
        for (nonce, answer) in answers {
            self.waiting.answer(nonce, answer);
        }
        Ok(vec![(); count])
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError> {
        let mut state: State = decode(&snapshot)
            .map_err(|error| failure(ErrorVerb::Read, &io::Error::other(error.to_string())))?;
        state.last_applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        let snapshots = self.snapshots.clone();
        blocking(move || snapshots.write(&snapshot)).await?;
        self.state = state;
        self.publish();
        let own = self.state.answered.get(&self.node).into_iter().flatten();
        for (nonce, answer) in own.filter(|(nonce, _)| self.waiting.waits_for(*nonce)) {
            self.waiting.answer(*nonce, answer.clone());
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let snapshots = self.snapshots.clone();
        let Some(bytes) = blocking(move || snapshots.read()).await? else {
            return Ok(None);
        };
        let state: State =
            decode(&bytes).map_err(|error| failure(ErrorVerb::Read, &io::Error::other(error.to_string())))?;
        Ok(Some(Snapshot {
            meta: meta_of(&state),
            snapshot: Box::new(bytes),
        }))
    }
}

/// Builds snapshots beside the state machine.
pub(crate) struct Builder {
    state: State,
    snapshots: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        let bytes = blocking(move || {
            let bytes = Bytes::from(encode(&state)?);
            snapshots.write(&bytes)?;
            Ok(bytes)
        })
        .await?;
        Ok(Snapshot {
            meta: meta_of(&self.state),
            snapshot: Box::new(bytes),
        })
    }
}

fn meta_of(state: &State) -> SnapshotMeta {
    let id = state.last_applied.map_or_else(String::new, |id| id.to_string());
    SnapshotMeta {
        last_log_id: state.last_applied,
        last_membership: state.membership.clone(),
        snapshot_id: id,
    }
}

/// The file of the last snapshot: a CRC-32C, then the bytes. Replaced atomically.
#[derive(Clone)]
struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotFile {
    fn read(&self) -> io::Result<Option<Bytes>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let crc = bytes.first_chunk::<4>().copied();
        let crc = crc.ok_or_else(|| self.unreadable(&"too short"))?;
        let body = bytes.slice(4..);
        if crc32c::crc32c(&body) != u32::from_be_bytes(crc) {
            return Err(self.unreadable(&"checksum mismatch"));
        }
        Ok(Some(body))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write as _;
        let temporary = self.path.with_extension("snapshot.new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&crc32c::crc32c(bytes).to_be_bytes())?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        if let Some(dir) = self.path.parent() {
            std::fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn unreadable(&self, why: &dyn std::fmt::Display) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {why}", self.path.display()),
        )
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let done = threads::blocking(job).await.map_err(io::Error::other);
    done.and_then(|result| result)
        .map_err(|error| failure(ErrorVerb::Write, &error))
}

fn failure(verb: ErrorVerb, error: &io::Error) -> StorageError {
    StorageIOError::new(ErrorSubject::Snapshot(None), verb, AnyError::new(error)).into()
}
