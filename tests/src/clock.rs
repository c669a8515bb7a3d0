//! The machine's time, for clients that want a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tradewind_wire::clock::Clock;

/// The machine's clock; its monotonic time begins when it is made.
#[derive(Debug)]
pub struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MachineClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        i64::try_from(since.map_or(0, |since| since.as_millis())).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}
