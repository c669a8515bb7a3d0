//! Waiting on a condition with a deadline: what suites do instead of sleeping. [`pace`] and [`span`] are for the two pauses
//! that wait for nothing, so that each of them says which it is.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::Rng;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// The same, for what may be over soon.
const BRIEFLY: Duration = Duration::from_millis(1);

/// Calls `look` until it returns something, and fails with `what` and its last error after `seconds`.
pub fn until<T>(what: &str, seconds: u64, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_each(INTERVAL, what, seconds, look)
}

/// As [`until`], for what lasts a few milliseconds and is to be seen while it does.
pub fn until_seen<T>(what: &str, seconds: u64, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_each(BRIEFLY, what, seconds, look)
}

fn until_each<T>(
    interval: Duration,
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
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
        thread::sleep(interval);
    }
}

/// Waits until `look` returns true; an error counts as "not yet".
pub fn until_true(what: &str, seconds: u64, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, seconds, || Ok(look()?.then_some(())))
}

/// As [`until`], in a task: `look` returns what is waited for, or says what there is instead. It is called at least once.
/// Time is the runtime's; a `look` that has not ended at the deadline is dropped.
pub async fn until_async<T, E: Display>(
    what: &str,
    seconds: u64,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let mut last = None;
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(instead) => last = Some(format!("{instead:#}")),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(seconds), looking).await;
    found.map_err(|_| {
        let last = last.unwrap_or_else(|| "no look has ended".to_owned());
        anyhow::anyhow!("not within {seconds} s: {what}: {last}")
    })
}

/// As [`until_true`], in a task.
pub async fn until_true_async(what: &str, seconds: u64, mut look: impl AsyncFnMut() -> bool) -> Result<()> {
    let look = async || if look().await { Ok(()) } else { Err("not yet") };
    until_async(what, seconds, look).await
}

/// Lets a client of a load rest, so that it does not come as often as it could. Nothing is waited for.
pub fn pace(rest: Duration) {
    thread::sleep(rest);
}

/// As [`pace`], in a task.
pub async fn pace_async(rest: Duration) {
    tokio::time::sleep(rest).await;
}

/// Lets a time pass that is itself what is measured or tested: that of a cut, of silence, of doing nothing.
pub fn span(length: Duration) {
    thread::sleep(length);
}

/// As [`span`], in a task.
pub async fn span_async(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Lets a seed choose the moment at which something happens: no condition is waited for.
pub fn moment(rng: &mut impl Rng, at_most_ms: u64) {
    thread::sleep(Duration::from_millis(rng.random_range(0..=at_most_ms)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_is_named_with_what_there_was_instead() {
        let mut looks = 0;
        let failed = until_async("the moon is blue", 0, async || {
            looks += 1;
            Err::<(), _>(format!("it is grey, look {looks}"))
        });
        let told = failed.await.unwrap_err().to_string();
        assert_eq!(told, "not within 0 s: the moon is blue: it is grey, look 1");
        let failed = until_true_async("an answer comes", 0, async || std::future::pending().await);
        let told = failed.await.unwrap_err().to_string();
        assert_eq!(told, "not within 0 s: an answer comes: no look has ended");
    }

    #[tokio::test]
    async fn what_comes_is_returned() {
        let mut looks = 0;
        let found = until_async("the third look", 60, async || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });
        assert_eq!(found.await.unwrap(), 3);
    }
}
