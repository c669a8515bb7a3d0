//! The data directory: one lock, one identity, and a directory per partition.
//!
//! ```text
//! DATA_DIR/VERSION                            format, storage id, cluster id once known
//! DATA_DIR/LOCK                               held for as long as the daemon runs
//! DATA_DIR/topics/<topic-id>/<partition>/     one log each
//! DATA_DIR/topics/<topic-id>/<partition>.stray.<ms>    set aside, not deleted
//! DATA_DIR/branches/<id>/                     branches of logs, while a drill runs
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tradewind_wire::clock::Rng;
use tradewind_wire::ids::{ClusterId, TopicId};

use crate::files;

/// The folder of branches: nothing in it outlives the process that made it.
const BRANCHES: &str = "branches";
/// The one format so far.
const FORMAT: &str = "1";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process has it.
    #[error("{path}: in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It was written by another version of the program, or is damaged.
    #[error("{path}: {reason}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It belongs to another cluster.
    #[error("{path}: belongs to cluster {found}, not {expected}")]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster that it belongs to.
        found: ClusterId,
        /// The cluster of this daemon.
        expected: ClusterId,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The volume that holds a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The data directory, absolute.
    pub path: PathBuf,
    /// The volume's size in bytes, if the operating system says.
    pub total_bytes: Option<i64>,
    /// What is free there for this process, in bytes.
    pub usable_bytes: Option<i64>,
}

/// An open data directory. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Mutex<Identity>,
    fresh: bool,
    _lock: File,
}

#[derive(Debug, Clone, Copy)]
struct Identity {
    storage_id: TopicId,
    cluster_id: Option<ClusterId>,
}

impl DataDir {
    /// Opens or creates the directory and takes its lock. Removes the branches that a crash has left.
    pub fn open(path: &Path, rng: &dyn Rng) -> Result<Self, DataDirError> {
        let topics = path.join("topics");
        std::fs::create_dir_all(&topics).map_err(|e| io_error(&topics, e))?;
        let lock = lock(path)?;
        remove_branches(path)?;
        let version = path.join("VERSION");
        let (identity, fresh) = match std::fs::read_to_string(&version) {
            Ok(text) => (
                Identity::parse(&text).map_err(|reason| DataDirError::Version {
                    path: version,
                    reason,
                })?,
                false,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity {
                    storage_id: TopicId::random(rng),
                    cluster_id: None,
                };
                files::replace(&version, identity.to_text().as_bytes()).map_err(|e| io_error(&version, e))?;
                (identity, true)
            }
            Err(error) => return Err(io_error(&version, error)),
        };
        Ok(Self {
            path: path.to_owned(),
            identity: Mutex::new(identity),
            fresh,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The volume that holds it. Asks the operating system.
    pub fn volume(&self) -> Volume {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let stat = rustix::fs::statvfs(&self.path).ok();
        let bytes = |blocks: u64, size: u64| i64::try_from(blocks.saturating_mul(size)).unwrap_or(i64::MAX);
        Volume {
            path,
            total_bytes: stat.as_ref().map(|stat| bytes(stat.f_blocks, stat.f_frsize)),
            usable_bytes: stat.map(|stat| bytes(stat.f_bavail, stat.f_frsize)),
        }
    }

    /// The identity of this storage, drawn when the directory was created: 128 random bits.
    pub fn storage_id(&self) -> [u8; 16] {
        self.identity.lock().storage_id.0
    }

    /// Whether the directory was created by this start.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The cluster that the directory belongs to, once it has joined one.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.identity.lock().cluster_id
    }

    /// Records the cluster for good; refused if the directory belongs to another one.
    pub fn set_cluster_id(&self, cluster_id: ClusterId) -> Result<(), DataDirError> {
        let mut identity = self.identity.lock();
        match identity.cluster_id {
            Some(found) if found == cluster_id => Ok(()),
            Some(found) => Err(DataDirError::OtherCluster {
                path: self.path.clone(),
                found,
                expected: cluster_id,
            }),
            None => {
                let next = Identity {
                    cluster_id: Some(cluster_id),
                    ..*identity
                };
                let version = self.path.join("VERSION");
                files::replace(&version, next.to_text().as_bytes()).map_err(|e| io_error(&version, e))?;
                *identity = next;
                Ok(())
            }
        }
    }

    /// Where a partition's log is, or would be.
    pub fn partition_dir(&self, topic: TopicId, partition: i32) -> PathBuf {
        self.topic_dir(topic).join(partition.to_string())
    }

    /// The partitions that have a directory, in order.
    pub fn partitions(&self) -> Result<Vec<(TopicId, i32)>, DataDirError> {
        let mut found = Vec::new();
        for (topic, name) in names(&self.path.join("topics"))? {
            let Ok(id) = name.parse::<TopicId>() else { continue };
            for (_, partition) in names(&topic)? {
                if let Ok(number) = partition.parse::<i32>()
                    && number >= 0
                {
                    found.push((id, number));
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Sets a partition aside that nobody knows: renamed, never deleted here. Returns its new place.
    pub fn set_stray(&self, topic: TopicId, partition: i32, now_ms: i64) -> Result<PathBuf, DataDirError> {
        let from = self.partition_dir(topic, partition);
        let to = files::with_suffix(&from, &format!(".stray.{now_ms}"));
        std::fs::rename(&from, &to)
            .and_then(|()| files::sync_dir(&self.topic_dir(topic)))
            .map_err(|e| io_error(&from, e))?;
        Ok(to)
    }

    /// Deletes what was set aside at or before `before_ms`. Returns what was deleted.
    pub fn remove_strays(&self, before_ms: i64) -> Result<Vec<PathBuf>, DataDirError> {
        let mut removed = Vec::new();
        for (topic, _) in names(&self.path.join("topics"))? {
            for (path, name) in names(&topic)? {
                let since = name
                    .rsplit_once(".stray.")
                    .and_then(|(_, ms)| ms.parse::<i64>().ok());
                if since.is_some_and(|since| since <= before_ms) {
                    std::fs::remove_dir_all(&path).map_err(|e| io_error(&path, e))?;
                    removed.push(path);
                }
            }
        }
        Ok(removed)
    }

    /// Deletes a partition's files: its topic was deleted, or it was moved away. A missing directory is no error.
    pub fn remove_partition(&self, topic: TopicId, partition: i32) -> Result<(), DataDirError> {
        let dir = self.partition_dir(topic, partition);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&dir, error)),
            _ => {}
        }
        // The last partition takes the topic's directory with it; strays keep it.
        match std::fs::remove_dir(self.topic_dir(topic)) {
            Ok(()) => files::sync_dir(&self.path.join("topics")).map_err(|e| io_error(&dir, e)),
            Err(_) => Ok(()),
        }
    }

    /// A place for a branch of a log, which nothing else uses: of this id, for a partition.
    pub fn branch_dir(&self, id: TopicId, partition: i32) -> PathBuf {
        self.branches().join(id.to_string()).join(partition.to_string())
    }

    /// Deletes the branches of this id. A missing directory is no error.
    pub fn remove_branch(&self, id: TopicId) -> Result<(), DataDirError> {
        let dir = self.branches().join(id.to_string());
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&dir, error)),
            _ => {}
        }
        // The last one takes the folder with it.
        let _ = std::fs::remove_dir(self.branches());
        Ok(())
    }

    fn branches(&self) -> PathBuf {
        self.path.join(BRANCHES)
    }

    fn topic_dir(&self, topic: TopicId) -> PathBuf {
        self.path.join("topics").join(topic.to_string())
    }
}

impl Identity {
    fn to_text(self) -> String {
        let cluster = self.cluster_id.map(|id| id.to_string()).unwrap_or_default();
        format!(
            "format={FORMAT}\nstorage_id={}\ncluster_id={cluster}\n",
            self.storage_id
        )
    }

    fn parse(text: &str) -> Result<Self, String> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .ok_or_else(|| format!("no {name} in it"))
        };
        let format = field("format")?;
        if format != FORMAT {
            return Err(format!("has format {format}, this program knows {FORMAT}"));
        }
        let cluster = field("cluster_id")?;
        Ok(Self {
            storage_id: field("storage_id")?
                .parse()
                .map_err(|e| format!("storage_id: {e}"))?,
            cluster_id: match cluster {
                "" => None,
                text => Some(text.parse().map_err(|e| format!("cluster_id: {e}"))?),
            },
        })
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let name = path.join("LOCK");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name)
        .map_err(|e| io_error(&name, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error(&name, error)),
    }
}

/// Removes what a drill left that was cut short. Before any log is opened: shared files are nobody's own.
fn remove_branches(path: &Path) -> Result<(), DataDirError> {
    let branches = path.join(BRANCHES);
    match std::fs::remove_dir_all(&branches) {
        Ok(()) => {
            tracing::info!(path = %branches.display(), "removed branches that a crash had left");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(&branches, error)),
    }
}

/// The directories in a directory, with their names.
fn names(dir: &Path) -> Result<Vec<(PathBuf, String)>, DataDirError> {
    let list = || -> io::Result<Vec<(PathBuf, String)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                found.push((entry.path(), name));
            }
        }
        Ok(found)
    };
    list().map_err(|e| io_error(dir, e))
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Counter(AtomicU64);

    impl Rng for Counter {
        fn next_u64(&self) -> u64 {
            self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
        }
    }

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(path, &Counter(AtomicU64::new(7)))
    }

    #[test]
    fn identity_survives_and_belongs_to_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(first.is_fresh());
        let storage = first.storage_id();
        first.set_cluster_id(ClusterId([1; 16])).unwrap();
        drop(first);
        let again = open(dir.path()).unwrap();
        assert!(!again.is_fresh());
        assert_eq!(
            (again.storage_id(), again.cluster_id()),
            (storage, Some(ClusterId([1; 16])))
        );
        assert!(matches!(
            again.set_cluster_id(ClusterId([2; 16])),
            Err(DataDirError::OtherCluster { .. })
        ));
    }

    #[test]
    fn only_one_may_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(DataDirError::Locked { .. })));
        drop(first);
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_version_from_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "format=9\nstorage_id=x\ncluster_id=\n",
            "format=1\nstorage_id=x\ncluster_id=\n",
        ] {
            std::fs::write(dir.path().join("VERSION"), text).unwrap();
            assert!(
                matches!(open(dir.path()), Err(DataDirError::Version { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn branches_go_with_the_run_that_made_them() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        let branches = dir.path().join("branches");
        for id in [1, 2] {
            let place = data.branch_dir(TopicId([id; 16]), 0);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("file"), b"x").unwrap();
        }
        data.remove_branch(TopicId([1; 16])).unwrap();
        data.remove_branch(TopicId([1; 16])).unwrap();
        assert!(branches.exists());
        // What a crash leaves.
        drop(data);
        let data = open(dir.path()).unwrap();
        assert!(!branches.exists());
        assert_eq!(data.partitions().unwrap(), []);
        std::fs::create_dir_all(data.branch_dir(TopicId([3; 16]), 0)).unwrap();
        data.remove_branch(TopicId([3; 16])).unwrap();
        assert!(!branches.exists());
    }

    #[test]
    fn strays_are_set_aside_and_removed_when_old() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        let topic = TopicId([3; 16]);
        for partition in [0, 1, 10] {
            std::fs::create_dir_all(data.partition_dir(topic, partition)).unwrap();
        }
        assert_eq!(data.partitions().unwrap(), [(topic, 0), (topic, 1), (topic, 10)]);
        let stray = data.set_stray(topic, 1, 500).unwrap();
        assert_eq!(data.partitions().unwrap(), [(topic, 0), (topic, 10)]);
        assert!(data.remove_strays(499).unwrap().is_empty());
        assert_eq!(data.remove_strays(500).unwrap(), [stray]);
        data.remove_partition(topic, 0).unwrap();
        data.remove_partition(topic, 10).unwrap();
        data.remove_partition(topic, 10).unwrap();
        assert!(!dir.path().join("topics").join(topic.to_string()).exists());
    }
}
