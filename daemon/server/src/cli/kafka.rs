//! What the Kafka-speaking commands share: a client and a runtime to run it on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_client::{Client, ClientConfig};

use super::Failure;
use super::args::KafkaArgs;
use crate::clock::SystemClock;

/// A client of the cluster at these addresses; it connects when it is first used.
pub(crate) fn client(bootstrap: &[String]) -> Client {
    let mut config = ClientConfig::new(bootstrap.to_vec(), Arc::new(SystemClock::new()));
    config.client_id = "tradewind-cli".to_owned();
    Client::new(config)
}

/// Runs what `work` makes of a client to its end.
pub(super) fn with_client<T, F>(at: &KafkaArgs, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    runtime()?.block_on(async { work(client(&at.bootstrap)).await })
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
