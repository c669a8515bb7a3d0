//! Files as the log uses them: positional vectored writes, atomic replacement, and a bounded number of descriptors.
//!
//! The active segment of each log keeps its descriptor; closed segments share a bounded set that is opened on demand.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Slices per `pwritev`: the kernel's `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

/// Writes all of `slices` at `position`. After an error some prefix may have been written.
pub(crate) fn write_all_at(file: &File, slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    let mut rest = slices;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(MAX_SLICES)];
        match rustix::io::pwritev(file, some, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks the kernel to begin writing these whole pages, and does not wait. Says nothing about durability, and failures show
/// at the next flush.
///
/// `sync_file_range` would say so in plain words, but has no safe binding. `POSIX_FADV_DONTNEED` begins to write what is dirty,
/// and drops what is clean already: so it is only for pages that have just been written to.
pub(crate) fn begin_writing(file: &File, pages: Range<u64>) {
    if let Some(length) = NonZeroU64::new(pages.end.saturating_sub(pages.start)) {
        let _ = rustix::fs::fadvise(file, pages.start, Some(length), rustix::fs::Advice::DontNeed);
    }
}

/// Whether the error says that there is no space: the one failure after which a log remains usable.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Lets tests fill the disk for whoever is about to write a small file or begin a segment, on this thread.
#[cfg(test)]
pub(crate) mod full {
    use std::cell::Cell;

    thread_local!(static FULL: Cell<Option<&'static str>> = const { Cell::new(None) });

    /// From now on no file whose name ends so can be made.
    pub(crate) fn set(end: Option<&'static str>) {
        FULL.set(end);
    }

    /// The error of a full disk, if this file shall meet it.
    pub(crate) fn check(path: &std::path::Path) -> std::io::Result<()> {
        match FULL.get() {
            Some(end) if path.to_string_lossy().ends_with(end) => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces the file at `path` by `contents`, durably and all at once: readers and crashes see the old or the new.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    full::check(path)?;
    let temporary = with_suffix(path, ".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Gives a file that has more than one name a copy of its own under this one: its first `keep` bytes, durably. Whoever is
/// about to write to a segment in place asks for this first, because a branch may share it. Returns whether it was shared;
/// a file that is not, or not there, stays as it is.
pub(crate) fn unshare(path: &Path, keep: u64) -> io::Result<bool> {
    let shared = copy_shared(path, keep)?;
    if shared {
        adopt_copy(path)?;
    }
    Ok(shared)
}

/// The first half of [`unshare`], which changes nothing of the file: makes the copy beside it. Nothing is left of one that
/// fails.
pub(crate) fn copy_shared(path: &Path, keep: u64) -> io::Result<bool> {
    let meta = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    if meta.nlink() <= 1 {
        return Ok(false);
    }
    let temporary = with_suffix(path, ".tmp");
    let copying = || {
        let mut copy = File::create(&temporary)?;
        io::copy(&mut File::open(path)?.take(keep), &mut copy)?;
        #[cfg(test)]
        full::check(&temporary)?;
        // The age of records without a time is their file's.
        let _ = copy.set_modified(meta.modified()?);
        copy.sync_all()
    };
    copying().inspect_err(|_: &io::Error| drop(std::fs::remove_file(&temporary)))?;
    Ok(true)
}

/// The second half: puts the copy in the file's place.
pub(crate) fn adopt_copy(path: &Path) -> io::Result<()> {
    std::fs::rename(with_suffix(path, ".tmp"), path)?;
    sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Removes a file that may be absent.
pub(crate) fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `path` with `suffix` after its whole name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// One `.log` file, open or not.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    slot: Mutex<Option<Arc<File>>>,
}

impl SegmentFile {
    /// Creates the file anew, or opens what is there, for good: an active segment. It is nobody else's from then on.
    pub(crate) fn active(path: PathBuf) -> io::Result<Arc<Self>> {
        unshare(&path, u64::MAX)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        Ok(Arc::new(Self {
            path,
            slot: Mutex::new(Some(Arc::new(file))),
        }))
    }

    /// A closed segment, opened when it is first read.
    pub(crate) fn closed(path: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            path,
            slot: Mutex::new(None),
        })
    }

    /// A file that is open already and stays so until the cache shuts it.
    pub(crate) fn opened(path: PathBuf, file: File) -> Arc<Self> {
        Arc::new(Self {
            path,
            slot: Mutex::new(Some(Arc::new(file))),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file. Closed segments are entered in `cache`, which may shut another one.
    pub(crate) fn open(self: &Arc<Self>, cache: &FileCache) -> io::Result<Arc<File>> {
        let file = {
            let mut slot = self.slot.lock();
            if let Some(file) = &*slot {
                return Ok(Arc::clone(file));
            }
            let file = Arc::new(OpenOptions::new().read(true).write(true).open(&self.path)?);
            *slot = Some(Arc::clone(&file));
            file
        };
        cache.enter(self);
        Ok(file)
    }

    /// The open file of an active segment, which is not in the cache. Opens one that the cache has shut.
    pub(crate) fn held(&self) -> io::Result<Arc<File>> {
        let mut slot = self.slot.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(&self.path)?);
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Makes a file that has just been made durable, contents and all.
    pub(crate) fn sync_made(&self) -> io::Result<()> {
        #[cfg(test)]
        full::check(&self.path)?;
        self.held()?.sync_all()
    }

    /// When the file was last written to, in ms since the epoch, if its file system tells.
    pub(crate) fn modified_ms(&self) -> Option<i64> {
        let modified = self.held().ok()?.metadata().ok()?.modified().ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    }

    /// Makes the file's contents durable. A file that has been deleted meanwhile needs nothing.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.held() {
            Ok(file) => file.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Swaps the open file, so that tests can make the disk fail.
    #[cfg(test)]
    pub(crate) fn replace(&self, file: File) {
        *self.slot.lock() = Some(Arc::new(file));
    }

    fn shut(&self) {
        *self.slot.lock() = None;
    }
}

/// Bounds how many closed segments are open at once, over all logs. First opened, first shut; a reader that still holds
/// the file keeps it until it is done.
#[derive(Debug)]
pub struct FileCache {
    limit: usize,
    open: Mutex<VecDeque<Weak<SegmentFile>>>,
}

impl FileCache {
    /// A cache of at most `limit` closed segments, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            open: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes over a segment whose file is open: one just opened for a read, or one that has just been closed to appends.
    pub(crate) fn enter(&self, segment: &Arc<SegmentFile>) {
        let oldest = {
            let mut open = self.open.lock();
            open.push_back(Arc::downgrade(segment));
            if open.len() > self.limit {
                open.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest.and_then(|weak| weak.upgrade()) {
            oldest.shut();
        }
    }
}

impl Default for FileCache {
    fn default() -> Self {
        Self::new(512)
    }
}
