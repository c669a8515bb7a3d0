//! The one place that asks the operating system for time and randomness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::RngCore;
use tradewind_wire::clock::{Clock, Rng};

/// The machine's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that the rest of the project is given"
    )]
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that the rest of the project is given"
    )]
    fn now_ms(&self) -> i64 {
        // Before 1970 only on a machine without a clock; zero is then as good as any.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The operating system's random numbers, through a generator per thread.
#[derive(Debug)]
pub(crate) struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}
