//! Making a log durable.
//!
//! The end is captured *before* `fdatasync`, and the flushed end moves to what was captured: what is written while the call
//! runs is not claimed. The epochs file goes first, so that no flushed record has an epoch that a restart would not know.
//! When it fails, what was to be flushed is not believed again, not even after a restart (`suspect.rs`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::log::Log;
use crate::suspect::{self, Suspect};
use crate::{epochs, files, metrics};

/// What has waited longer than this to be written back the kernel may have written by itself (it begins with what is older
/// than 30 s, `vm.dirty_expire_centisecs`).
const WRITTEN_BY_ITSELF: Duration = Duration::from_secs(20);

impl Log {
    /// Has the kernel begin to write what was appended since the last call, and waits for nothing. So the disk works all the time,
    /// instead of being given all at once what many logs have gathered: whoever appends would have to wait for that,
    /// because the file system lets nobody change its journal meanwhile. Promises nothing: only a flush makes durable.
    pub fn write_back(&self) {
        let now = self.env.clock.monotonic();
        let (file, pages, before) = {
            let mut state = self.lock();
            if state.closed || self.poisoned().is_some() {
                return;
            }
            let before = std::mem::replace(&mut state.written_back_at, now);
            let active = state.active();
            let (file, pages) = (Arc::clone(&active.file), active.take_unwritten());
            self.publish(&state);
            (file, pages, before)
        };
        if now.saturating_sub(before) < WRITTEN_BY_ITSELF
            && let Ok(file) = file.held()
        {
            files::begin_writing(&file, pages);
        }
    }

    /// Flushes everything appended so far and returns the flushed end. Blocks; one flush runs at a time. An error puts the
    /// log out of service, because the kernel may have dropped the pages it could not write; unless there is only no space for
    /// the epochs file: then nothing was flushed, and the log is to be flushed again later.
    pub fn flush(&self) -> io::Result<i64> {
        let _one_at_a_time = self.flushing.lock();
        let (end, mut closed, active, epochs, unflushed) = {
            let mut state = self.lock();
            if let Some(reason) = self.poisoned() {
                return Err(io::Error::other(reason));
            }
            if state.closed
                || (state.flushed == state.end && state.unsynced.is_empty() && !state.epochs_dirty)
            {
                return Ok(state.flushed);
            }
            state.flush_cap = i64::MAX;
            let unflushed = (state.unflushed, state.unflushed_since);
            (state.unflushed, state.unflushed_since) = (0, i64::MAX);
            state.active().take_unwritten();
            self.publish(&state);
            let closed = std::mem::take(&mut state.unsynced);
            let active = Arc::clone(&state.active().file);
            let epochs = std::mem::take(&mut state.epochs_dirty).then(|| state.epochs.to_text());
            (state.end, closed, active, epochs, unflushed)
        };
        let known = epochs.map_or(Ok(()), |text| {
            files::replace(&epochs::path(&self.dir), text.as_bytes())
        });
        if let Err(error) = &known
            && files::is_disk_full(error)
        {
            metrics::disk_full();
            let mut state = self.lock();
            state.epochs_dirty = true;
            state.unflushed += unflushed.0;
            state.unflushed_since = state.unflushed_since.min(unflushed.1);
            // One that was removed meanwhile is no error at the next flush.
            state.unsynced.append(&mut closed);
            self.publish(&state);
            return known.map(|()| state.flushed);
        }
        closed.push(active);
        let synced = known.and_then(|()| closed.iter().try_for_each(|file| file.sync()));
        if let Err(error) = synced {
            let state = self.lock();
            if state.closed {
                // Deleted meanwhile, files and all.
                return Ok(state.flushed);
            }
            let flushed = state.flushed;
            drop(state);
            self.fail_flush(flushed, &error);
            return Err(error);
        }
        let mut state = self.lock();
        if let (Some(reason), false) = (self.poisoned(), state.closed) {
            // Of two that flush one file, only one is told that it failed: a new segment may have been begun meanwhile.
            return Err(io::Error::other(reason));
        }
        let durable = end.min(state.flush_cap).min(state.end);
        state.flushed = state.flushed.max(durable);
        self.publish(&state);
        Ok(state.flushed)
    }

    /// Puts the log out of service after an fsync failed when everything below `flushed` was flushed.
    pub(crate) fn fail_flush(&self, flushed: i64, error: &io::Error) {
        self.fail("flushing", error);
        let before = suspect::read(&self.dir).ok().flatten().unwrap_or_default();
        let suspect = Suspect {
            flushed: Some(flushed),
            ..before
        };
        if let Err(error) = suspect::write(&self.dir, suspect) {
            tracing::error!(dir = %self.dir.display(), %error, "cannot write down that a flush has failed");
        }
    }
}
