//! What the Kafka-speaking commands share: a client, a runtime to run it on, and a bound on how long it takes.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, stderr, stdin};
use std::sync::Arc;
use std::time::Duration;

use tradewind_client::{Client, ClientConfig};

use super::Failure;
use super::args::{ClusterArgs, KafkaArgs};
use crate::clock::SystemClock;

/// How much longer than its own calls a command may take before it is ended, so that they can say what went wrong.
const GRACE: Duration = Duration::from_secs(1);

/// A client of the cluster at these addresses; it connects when it is first used.
pub(crate) fn client(bootstrap: &[String]) -> Client {
    Client::new(config(bootstrap))
}

fn config(bootstrap: &[String]) -> ClientConfig {
    let mut config = ClientConfig::new(bootstrap.to_vec(), Arc::new(SystemClock::new()));
    config.client_id = "tradewind-cli".to_owned();
    config
}

/// Runs what `work` makes of a client to its end.
pub(super) fn with_client<T, F>(at: &KafkaArgs, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    runtime()?.block_on(async { work(client(&at.bootstrap)).await })
}

/// The same, ended when its time is up.
pub(super) fn with_cluster<T, F>(at: &ClusterArgs, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut config = config(&at.kafka.bootstrap);
    config.request_timeout = at.timeout;
    config.connect_timeout = config.connect_timeout.min(at.timeout);
    runtime()?.block_on(async {
        let whole = tokio::time::timeout(at.timeout + GRACE, work(Client::new(config)));
        whole.await.unwrap_or_else(|_| {
            let waited = humantime::format_duration(at.timeout);
            Err(Failure::Failed(anyhow::anyhow!(
                "not done after {waited}; what was begun may be done yet (--timeout gives more time)"
            )))
        })
    })
}

/// A runtime for one command.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Reads `NAME=VALUE` arguments.
pub(super) fn pairs(arguments: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |argument: &String| match argument.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::Usage(format!("`{argument}`: write NAME=VALUE"))),
    };
    arguments.iter().map(pair).collect()
}

/// Asks whether to do what cannot be taken back. Without a terminal nobody can answer, and `--yes` is needed.
pub(super) fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::Usage(format!(
            "{what} cannot be taken back: say --yes to do it"
        )));
    }
    eprint!("{what}? This cannot be taken back. [y/N] ");
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Usage("nothing was done".to_owned())),
    }
}
