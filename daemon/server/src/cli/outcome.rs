//! What became of each thing that a command was to change: one line each, and an exit code that says whether all is well.

use serde::Serialize;
use serde_json::{Map, Value};
use tradewind_client::ClientError;

use super::{Failure, Output};

/// What became of one thing.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What it is: its column and value, such as topic and partition.
    pub(super) of: Vec<(&'static str, Value)>,
    /// What was done, in a word or two, or why not.
    pub(super) result: Result<String, ClientError>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    of: Map<String, Value>,
    result: &'a str,
    error: Option<Refused>,
}

#[derive(Serialize)]
struct Refused {
    /// Kafka's name of the reason; `null` if no broker gave one.
    code: Option<&'static str>,
    message: String,
}

impl Outcome {
    /// What became of a topic.
    pub(super) fn of_topic(topic: &str, result: Result<String, ClientError>) -> Self {
        Self {
            of: vec![("topic", topic.into())],
            result,
        }
    }

    /// What became of a partition.
    pub(super) fn of_partition(topic: &str, partition: i32, result: Result<String, ClientError>) -> Self {
        Self {
            of: vec![("topic", topic.into()), ("partition", partition.into())],
            result,
        }
    }
}

/// Prints the outcomes; why something failed goes to standard error too. Exit code 1 if anything did.
pub(super) fn report(output: Output, outcomes: &[Outcome]) -> Result<u8, Failure> {
    let mut failed = 0;
    let mut lines = Vec::new();
    for outcome in outcomes {
        let error = match &outcome.result {
            Ok(_) => None,
            Err(error) => {
                failed = 1;
                eprintln!("{error}");
                Some(Refused {
                    code: error.code().map(|code| code.name()),
                    message: error.to_string(),
                })
            }
        };
        lines.push(Line {
            of: outcome
                .of
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            result: outcome.result.as_deref().unwrap_or("failed"),
            error,
        });
    }
    let names = outcomes
        .first()
        .map(|outcome| outcome.of.iter().map(|(name, _)| *name));
    let head: Vec<&str> = names.into_iter().flatten().chain(["result"]).collect();
    let row = |(outcome, line): (&Outcome, &Line<'_>)| {
        let of = outcome.of.iter().map(|(_, value)| plain(value));
        of.chain([line.result.to_owned()]).collect()
    };
    if !lines.is_empty() || output.is_json() {
        output.rows(&lines, &head, outcomes.iter().zip(&lines).map(row))?;
    }
    Ok(failed)
}

/// A value as it stands in a table.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
