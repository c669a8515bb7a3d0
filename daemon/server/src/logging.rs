//! What the program says about itself: text for people at a terminal, JSON for collectors; and how it dies of a bug.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error. `TRADEWIND_LOG` filters them, as `RUST_LOG` does elsewhere; `info` if not set.
pub(crate) fn install() {
    let filter = EnvFilter::try_from_env("TRADEWIND_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second installation (in tests) is not worth failing for.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

/// Makes a panic end the process: a daemon whose invariant broke must not go on with half of its tasks.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!(
            "tradewind {} stops because of a bug in it: {panic}\n{}",
            env!("CARGO_PKG_VERSION"),
            std::backtrace::Backtrace::force_capture(),
        );
        std::process::abort();
    }));
}

/// openraft and quinn say at `info` what is detail here.
const DEFAULT_FILTER: &str = "info,openraft=warn,openraft::raft::responder=error,quinn=warn,quinn_proto=warn";
