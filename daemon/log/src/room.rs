//! Whether the disk has room for records: one flag that all logs of a daemon share, set by who looks at the volume.
//!
//! A part of the disk is held back from records, so that what is small and must be writable (metadata, checkpoints, epochs,
//! indexes) still is when they have filled the rest.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::datadir::Volume;
use crate::metrics;

/// The flag. While it says full, every append is refused as by a disk without space; all else goes on.
#[derive(Debug, Default)]
pub struct Room {
    full: AtomicBool,
}

impl Room {
    /// Takes note of how much is free; less than `reserve` bytes is full. A volume that does not tell has room.
    pub fn note(&self, volume: &Volume, reserve: u64) {
        let Some(usable) = volume.usable_bytes else { return };
        let full = u64::try_from(usable).is_ok_and(|usable| usable < reserve);
        metrics::disk(usable, full);
        if self.full.swap(full, Ordering::AcqRel) == full {
            return;
        }
        let path = volume.path.display();
        if full {
            tracing::error!(%path, usable, reserve, "disk is full up to its reserve: writes are refused");
        } else {
            tracing::info!(%path, usable, reserve, "disk has room again: writes are taken");
        }
    }

    /// Whether appends are refused.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }
}
