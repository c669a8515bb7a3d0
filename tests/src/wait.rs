//! Waiting on a condition with a deadline: what suites do instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `look` until it returns something, and fails with `what` and its last error after `seconds`.
pub fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() > deadline {
            match last {
                Some(error) => return Err(error).with_context(|| format!("not within {seconds} s: {what}")),
                None => bail!("not within {seconds} s: {what}"),
            }
        }
        thread::sleep(INTERVAL);
    }
}

/// Waits until `look` returns true; an error counts as "not yet".
pub fn until_true(what: &str, seconds: u64, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, seconds, || Ok(look()?.then_some(())))
}
