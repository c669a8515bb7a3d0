//! The Raft log, vote and a few own facts in redb (`meta.redb`).
//!
//! Log and vote are durable before openraft goes on (the vote, which must never be forgotten, by a two-phase commit);
//! the committed position is only a hint for a quicker start and rides along with the next durable commit. Commits run
//! on the blocking pool, so that a slow disk does not hold up heartbeats.
//!
//! The log reader never returns an error or a hole: openraft 0.9 does not survive either with its followers intact. It
//! panics, which ends the process.
//!
//! openraft 0.9 gives each replication stream a reader of its own and leaves the streams of a leader that was deposed as they
//! are, until this daemon leads again. Such a stream may go on where it stood in the old log, after the new leader has cut that
//! log and written its own entries: a follower that has not heard of the new leader would put them behind entries that they do
//! not follow. So a reader gives nothing any more once another vote was saved than the one under which it was made. openraft
//! takes that for a heartbeat, and ends the stream when it next looks.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, LogState, RaftLogReader, StorageIOError};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;

use super::types::{Entry, LogId, StorageError, TypeConfig, Vote, decode, encode};
use crate::threads;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
const OWNER: &str = "owner";
const INCARNATIONS: &str = "incarnations";

/// How many bytes of entries one read for replication returns at most: an AppendEntries must be through within a
/// heartbeat interval.
const READ_BYTES_MAX: usize = 128 << 10;

/// The page cache; the log is small.
const CACHE_BYTES: usize = 8 << 20;

/// Whose metadata a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) cluster_name: String,
    pub(crate) node: NodeId,
    pub(crate) storage_id: [u8; 16],
}

/// The Raft log of this daemon. Clones share the file.
#[derive(Clone)]
pub(crate) struct LogStore {
    db: Arc<Database>,
    /// How often a vote for another leader was saved. It counts before that vote is on disk, hence before anything is done
    /// to the log for the new leader.
    leaders: Arc<AtomicU64>,
    /// In a reader of a replication stream: `leaders` when it was made.
    made_under: Option<u64>,
}

impl LogStore {
    /// Opens the file, creating it and its tables if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let db = builder.create(path).map_err(other)?;
        let store = Self {
            db: Arc::new(db),
            leaders: Arc::default(),
            made_under: None,
        };
        store.commit(Sync::TwoPhase, |txn| {
            txn.open_table(LOG)?;
            txn.open_table(FACTS)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Whose file this is; `None` if it is new.
    pub(crate) fn owner(&self) -> io::Result<Option<Owner>> {
        self.fact(OWNER)
    }

    /// Makes it `owner`'s.
    pub(crate) fn set_owner(&self, owner: &Owner) -> io::Result<()> {
        self.put_fact(OWNER, owner, Sync::TwoPhase)
    }

    /// The incarnations under which this data directory may be registered, oldest first (from before there was an order: by
    /// number).
    pub(crate) fn incarnations(&self) -> io::Result<Vec<u128>> {
        let texts: Option<Vec<String>> = self.fact(INCARNATIONS)?;
        let texts = texts.unwrap_or_default();
        Ok(texts
            .iter()
            .filter_map(|text| u128::from_str_radix(text, 16).ok())
            .collect())
    }

    /// Remembers them.
    pub(crate) fn set_incarnations(&self, incarnations: &[u128]) -> io::Result<()> {
        let texts: Vec<String> = incarnations
            .iter()
            .map(|number| format!("{number:032x}"))
            .collect();
        self.put_fact(INCARNATIONS, &texts, Sync::Yes)
    }

    fn fact<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let txn = self.db.begin_read().map_err(other)?;
        let table = txn.open_table(FACTS).map_err(other)?;
        let found = table.get(key).map_err(other)?;
        found
            .map(|bytes| {
                decode(bytes.value()).map_err(|error| io::Error::other(format!("fact {key}: {error}")))
            })
            .transpose()
    }

    fn put_fact<T: Serialize>(&self, key: &str, value: &T, sync: Sync) -> io::Result<()> {
        let bytes = encode(value)?;
        self.commit(sync, |txn| {
            txn.open_table(FACTS)?.insert(key, bytes.as_slice())?;
            Ok(())
        })
    }

    fn commit(
        &self,
        sync: Sync,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> io::Result<()> {
        let mut txn = self.db.begin_write().map_err(other)?;
        if sync == Sync::No {
            txn.set_durability(Durability::None).map_err(other)?;
        }
        txn.set_two_phase_commit(sync == Sync::TwoPhase);
        change(&txn).map_err(other)?;
        txn.commit().map_err(other)
    }

    /// Runs `job` where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = self.clone();
        threads::blocking(move || job(store))
            .await
            .map_err(io::Error::other)?
    }

    fn read(&self, range: impl RangeBounds<u64>, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let txn = self.db.begin_read().map_err(other)?;
        let table = txn.open_table(LOG).map_err(other)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in table.range(range).map_err(other)? {
            let (index, stored) = row.map_err(other)?;
            bytes += stored.value().len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            let entry: Entry = decode(stored.value())
                .map_err(|error| io::Error::other(format!("log entry {}: {error}", index.value())))?;
            if entry.log_id.index != index.value() {
                return Err(io::Error::other(format!(
                    "log entry {} calls itself {}",
                    index.value(),
                    entry.log_id
                )));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Whether this reader's stream is that of a leader who may have been deposed.
    fn is_stale(&self) -> bool {
        let now = self.leaders.load(Ordering::SeqCst);
        self.made_under.is_some_and(|then| then != now)
    }

    fn last(&self) -> io::Result<Option<LogId>> {
        let txn = self.db.begin_read().map_err(other)?;
        let table = txn.open_table(LOG).map_err(other)?;
        let last = table.last().map_err(other)?;
        last.map(|(index, stored)| {
            decode::<Entry>(stored.value())
                .map(|entry| entry.log_id)
                .map_err(|error| io::Error::other(format!("log entry {}: {error}", index.value())))
        })
        .transpose()
    }

    fn append_entries(&self, entries: &[(u64, Vec<u8>)]) -> io::Result<()> {
        self.commit(Sync::Yes, |txn| {
            let mut table = txn.open_table(LOG)?;
            for (index, bytes) in entries {
                table.insert(index, bytes.as_slice())?;
            }
            Ok(())
        })
    }

    fn remove(&self, range: (Bound<u64>, Bound<u64>), purged: Option<&LogId>) -> io::Result<()> {
        let purged = purged.map(encode).transpose()?;
        self.commit(Sync::TwoPhase, |txn| {
            if let Some(purged) = &purged {
                txn.open_table(FACTS)?.insert(PURGED, purged.as_slice())?;
            }
            txn.open_table(LOG)?.retain_in(range, |_, _| false)?;
            Ok(())
        })
    }
}

/// How durable a commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// With the next one that is.
    No,
    /// When it returns.
    Yes,
    /// When it returns, and not even a disk that tears a page undoes it.
    TwoPhase,
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(whole(self.read(range, usize::MAX)))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let entries = whole(self.read(start..end, READ_BYTES_MAX));
        // After the read: what it has read may be what the next leader wrote.
        if self.is_stale() {
            return Ok(Vec::new());
        }
        let first = entries.first().map(|entry| entry.log_id.index);
        assert!(
            start >= end || first == Some(start),
            "metadata log lacks entry {start}"
        );
        Ok(entries)
    }
}

/// The entries, which must follow each other without a hole, or the end of the process.
fn whole(read: io::Result<Vec<Entry>>) -> Vec<Entry> {
    let entries = match read {
        Ok(entries) => entries,
        Err(error) => panic!("metadata log cannot be read: {error}"),
    };
    let dense = entries
        .windows(2)
        .all(|pair| pair[1].log_id.index == pair[0].log_id.index + 1);
    assert!(dense, "metadata log has a hole");
    entries
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let read = || {
            let purged: Option<LogId> = self.fact(PURGED)?;
            let last = self.last()?.or(purged);
            Ok(LogState {
                last_purged_log_id: purged,
                last_log_id: last,
            })
        };
        read().map_err(|error| failure(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }

    async fn get_log_reader(&mut self) -> Self {
        Self {
            made_under: Some(self.leaders.load(Ordering::SeqCst)),
            ..self.clone()
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let save = move |store: Self| {
            let before: Option<Vote> = store.fact(VOTE)?;
            if before.map(|before| before.leader_id) != Some(vote.leader_id) {
                store.leaders.fetch_add(1, Ordering::SeqCst);
            }
            store.put_fact(VOTE, &vote, Sync::TwoPhase)
        };
        self.blocking(save)
            .await
            .map_err(|error| failure(ErrorSubject::Vote, ErrorVerb::Write, &error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.fact(VOTE)
            .map_err(|error| failure(ErrorSubject::Vote, ErrorVerb::Read, &error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.put_fact(COMMITTED, &committed, Sync::No)
            .map_err(|error| failure(ErrorSubject::Store, ErrorVerb::Write, &error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed: io::Result<Option<Option<LogId>>> = self.fact(COMMITTED);
        committed
            .map(Option::flatten)
            .map_err(|error| failure(ErrorSubject::Store, ErrorVerb::Read, &error))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let encoded: Result<Vec<_>, _> = entries
            .into_iter()
            .map(|entry| encode(&entry).map(|bytes| (entry.log_id.index, bytes)))
            .collect();
        let encoded = encoded
            .map_err(|error| failure(ErrorSubject::Logs, ErrorVerb::Write, &io::Error::other(error)))?;
        let written = self.blocking(move |store| store.append_entries(&encoded)).await;
        match written {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => Err(failure(ErrorSubject::Logs, ErrorVerb::Write, &error)),
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking(move |store| store.remove((Bound::Included(log_id.index), Bound::Unbounded), None))
            .await
            .map_err(|error| failure(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking(move |store| {
            store.remove((Bound::Unbounded, Bound::Included(log_id.index)), Some(&log_id))
        })
        .await
        .map_err(|error| failure(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }
}

fn failure(subject: ErrorSubject<u64>, verb: ErrorVerb, error: &io::Error) -> StorageError {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}

fn other(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;

    fn write(store: &LogStore, term: u64, indexes: std::ops::RangeInclusive<u64>) {
        let entry = |index| Entry {
            log_id: LogId::new(CommittedLeaderId::new(term, 1), index),
            payload: EntryPayload::Blank,
        };
        let rows: Vec<_> = indexes
            .map(|index| (index, encode(&entry(index)).unwrap()))
            .collect();
        store.append_entries(&rows).unwrap();
    }

    #[tokio::test]
    async fn a_stream_of_a_deposed_leader_reads_nothing_of_what_the_next_one_wrote() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut store = LogStore::open(&dir.path().join("meta.redb")).unwrap();
        let terms = |entries: Vec<Entry>| -> Vec<_> {
            let ids = entries.iter().map(|entry| entry.log_id);
            ids.map(|id| (id.leader_id.term, id.index)).collect()
        };
        store.save_vote(&Vote::new(1, 1)).await.unwrap();
        write(&store, 1, 1..=6);
        let mut reader = store.get_log_reader().await;
        // Its own vote, now granted, changes nothing.
        store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        let read = reader.limited_get_log_entries(4, 6).await.unwrap();
        assert_eq!(terms(read), [(1, 4), (1, 5)]);

        store.save_vote(&Vote::new_committed(2, 2)).await.unwrap();
        let at = LogId::new(CommittedLeaderId::new(1, 1), 3);
        store.truncate(at).await.unwrap();
        assert!(reader.limited_get_log_entries(4, 6).await.unwrap().is_empty());
        write(&store, 2, 3..=9);
        assert!(reader.limited_get_log_entries(4, 6).await.unwrap().is_empty());
        let mut next = store.get_log_reader().await;
        let read = next.limited_get_log_entries(4, 6).await.unwrap();
        assert_eq!(terms(read), [(2, 4), (2, 5)]);
    }

    #[test]
    fn runs_keep_their_order_and_those_that_an_older_version_wrote_are_read() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = LogStore::open(&dir.path().join("meta.redb")).unwrap();
        assert!(store.incarnations().unwrap().is_empty());
        let text = |number: u128| format!("{number:032x}");
        let older: BTreeSet<String> = [u128::MAX, 2].map(text).into();
        store.put_fact(INCARNATIONS, &older, Sync::Yes).unwrap();
        assert_eq!(store.incarnations().unwrap(), [2, u128::MAX]);
        store.set_incarnations(&[u128::MAX, 2, 7]).unwrap();
        assert_eq!(store.incarnations().unwrap(), [u128::MAX, 2, 7]);
    }
}
