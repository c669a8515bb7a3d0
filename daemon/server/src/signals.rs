//! When to stop: SIGTERM and SIGINT once to drain, twice to stop at once; or when standard input closes.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// Hand work over, then end.
    pub(crate) drain: CancellationToken,
    /// End now. Whoever only drains waits no longer.
    pub(crate) now: CancellationToken,
}

/// Listens for signals, and with `stdin` for the end of standard input, which means "now".
pub(crate) fn listen(stdin: bool) -> std::io::Result<Stop> {
    let stop = Stop {
        drain: CancellationToken::new(),
        now: CancellationToken::new(),
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told.drain.is_cancelled() {
                told.now.cancel();
                return;
            }
            told.drain.cancel();
        }
    });
    if stdin {
        let told = stop.clone();
        // A thread, because reading standard input cannot be cancelled; it ends with the process.
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let mut stdin = std::io::stdin().lock();
                let mut sink = [0; 64];
                while stdin.read(&mut sink).is_ok_and(|read| read > 0) {}
                told.now.cancel();
                told.drain.cancel();
            })?;
    }
    Ok(stop)
}

/// Keeps SIGXFSZ from ending the process: a file that may not grow any further is an error of the write, as a full disk is.
pub(crate) fn outlive_file_limit() -> std::io::Result<()> {
    // Having been listened for once, it never does again what it does by default.
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// Keeps SIGHUP from ending the process: elsewhere it means "read the configuration again", which is not available yet.
pub(crate) fn outlive_hangup() -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!("SIGHUP: reading the configuration again is not available yet; restart instead");
        }
    });
    Ok(())
}
