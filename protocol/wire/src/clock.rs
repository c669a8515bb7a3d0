//! Time and randomness as the rest of the project sees them: two traits, implemented by the program and by the simulation.
//!
//! Deciding code takes one of these (or a plain `now`) instead of asking the operating system, so that one seed can
//! replay a whole run.

use std::time::Duration;

/// A source of wall-clock and monotonic time.
pub trait Clock: Send + Sync {
    /// Wall-clock time in milliseconds since the Unix epoch: what Kafka calls a timestamp. May jump.
    fn now_ms(&self) -> i64;

    /// Time since an arbitrary fixed point. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// A source of random numbers. Not for keys: those come from the TLS library.
pub trait Rng: Send + Sync {
    /// The next 64 uniformly distributed bits.
    fn next_u64(&self) -> u64;
}
