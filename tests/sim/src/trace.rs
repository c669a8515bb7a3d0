//! What happened, as a number that two runs of one seed must share, and as text for whoever looks into one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The trace of one run. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hash: AtomicU32,
    /// Printed as it happens, if that is wanted.
    verbose: bool,
    /// The small things, too.
    everything: bool,
}

impl Trace {
    /// A trace that is only a number, or is also printed.
    pub fn new(verbose: bool, everything: bool) -> Self {
        Self(Arc::new(Shared {
            verbose,
            everything,
            ..Shared::default()
        }))
    }

    /// Something small happened, `now` being in milliseconds.
    pub fn note(&self, now: u64, what: impl FnOnce() -> String) {
        let what = what();
        let hash = self.0.hash.load(Ordering::Relaxed);
        let hash = crc32c::crc32c_append(hash, &now.to_be_bytes());
        self.0
            .hash
            .store(crc32c::crc32c_append(hash, what.as_bytes()), Ordering::Relaxed);
        if self.0.everything {
            println!("{:>9.3} {what}", now as f64 / 1_000.0);
        }
    }

    /// Something happened that a person wants to read of.
    pub fn tell(&self, now: u64, what: &str) {
        self.note(now, || what.to_owned());
        if self.0.verbose && !self.0.everything {
            println!("{:>9.3} {what}", now as f64 / 1_000.0);
        }
    }

    /// Everything that happened, as a number.
    pub fn digest(&self) -> u32 {
        self.0.hash.load(Ordering::Relaxed)
    }
}
