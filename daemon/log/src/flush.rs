//! Making a log durable.
//!
//! The end is captured *before* `fdatasync`, and the flushed end moves to what was captured: what is written while the call
//! runs is not claimed. The epochs file goes first, so that no flushed record has an epoch that a restart would not know.
//! When it fails, what was to be flushed is not believed again, not even after a restart (`suspect.rs`).

use std::io;
use std::sync::Arc;

use crate::log::Log;
use crate::suspect::{self, Suspect};
use crate::{epochs, files, metrics};

impl Log {
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
