//! `topic ...`: what kafka-topics, kafka-get-offsets, kafka-delete-records, kafka-reassign-partitions and
//! kafka-leader-election do. Which command is carried out where; the smaller ones are here.

mod describe;
mod health;
mod offsets;
mod reassign;

use std::collections::BTreeMap;

use tradewind_client::admin::{ConfigChange, ConfigResource, NewTopic};
use tradewind_client::{Client, ClientError};
use tradewind_wire::error::ErrorCode;

use super::args::{AlterArgs, CreateArgs, TopicCommand};
use super::kafka::{confirm, pairs, with_cluster};
use super::outcome::{Outcome, report};
use super::select::{self, TopicSelection};
use super::{Failure, Output};

/// Runs a command on topics.
pub(super) fn run(command: TopicCommand, output: Output) -> Result<u8, Failure> {
    match command {
        TopicCommand::List { topics, filter, at } => {
            with_cluster(&at, |client| describe::list(client, topics, filter, output))
        }
        TopicCommand::Describe { topics, filter, at } => {
            with_cluster(&at, |client| describe::describe(client, topics, filter, output))
        }
        TopicCommand::Create(args) => create(args, output),
        TopicCommand::Alter(args) => alter(args, output),
        TopicCommand::AddPartitions { topic, count, at } => with_cluster(&at, async |client| {
            let grown = client.create_partitions(&topic, count).await;
            report(
                output,
                &[Outcome::of_topic(&topic, grown.map(|()| partitions(count)))],
            )
        }),
        TopicCommand::Delete {
            topics,
            if_exists,
            yes,
            at,
        } => {
            let found = with_cluster(&at, async |client| Ok(select::topics(&client, &topics).await?))?;
            let missing = if if_exists { 0 } else { found.complain() };
            let names: Vec<&str> = found.topics.keys().map(String::as_str).collect();
            if names.is_empty() {
                return Ok(missing);
            }
            confirm(&format!("delete {} with all records", names.join(", ")), yes)?;
            let failed = with_cluster(&at, |client| delete(client, &names, if_exists, output))?;
            Ok(failed.max(missing))
        }
        TopicCommand::Offsets {
            partitions,
            at_time,
            exclude_internal,
            at,
        } => with_cluster(&at, |client| {
            offsets::print(client, partitions, at_time.0, exclude_internal, output)
        }),
        TopicCommand::DeleteRecords {
            offsets,
            file,
            yes,
            at,
        } => {
            let positions = offsets::to_delete(offsets, file.as_deref())?;
            confirm(&format!("delete records of {} partitions", positions.len()), yes)?;
            with_cluster(&at, |client| offsets::delete_records(client, positions, output))
        }
        TopicCommand::Reassign(command) => reassign::run(command, output),
        TopicCommand::ElectLeaders {
            partitions,
            unclean,
            yes,
            at,
        } => {
            if unclean {
                confirm("elect leaders that may lack records", yes)?;
            }
            with_cluster(&at, |client| reassign::elect(client, partitions, unclean, output))
        }
    }
}

fn partitions(count: i32) -> String {
    format!("{count} partitions")
}

fn create(args: CreateArgs, output: Output) -> Result<u8, Failure> {
    let configs = pairs(&args.set)?;
    let new = |name: String| NewTopic {
        name,
        partitions: args.partitions,
        replication_factor: args.replication_factor,
        assignment: args.assignment.iter().map(|brokers| brokers.0.clone()).collect(),
        configs: configs.clone(),
    };
    let topics: Vec<NewTopic> = args.topics.into_iter().map(new).collect();
    with_cluster(&args.at, async |client| {
        let mut outcomes = Vec::new();
        for topic in &topics {
            let created = if args.validate_only {
                let checked = client.create_topics(std::slice::from_ref(topic), true).await?;
                checked.into_iter().next().map_or_else(
                    || {
                        Err(ClientError::Missing {
                            what: topic.name.clone(),
                        })
                    },
                    |checked| checked.map(|_| "can be created".to_owned()),
                )
            } else {
                client.create_topic(topic).await.map(|id| {
                    if !output.is_json() {
                        eprintln!("created {} with id {id}", topic.name);
                    }
                    "created".to_owned()
                })
            };
            let result = match created {
                Err(error) if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                    Ok("exists".to_owned())
                }
                created => created,
            };
            outcomes.push(Outcome::of_topic(&topic.name, result));
        }
        report(output, &outcomes)
    })
}

fn alter(args: AlterArgs, output: Output) -> Result<u8, Failure> {
    let changes = changes(&args.set, &args.unset)?;
    if changes.is_empty() && args.partitions.is_none() {
        return Err(Failure::Usage(
            "nothing to change: say --partitions N, --set NAME=VALUE or --unset NAME".into(),
        ));
    }
    with_cluster(&args.at, async |client| {
        let mut outcomes = Vec::new();
        let would = if args.validate_only { "can have " } else { "" };
        if !changes.is_empty() {
            let resource = ConfigResource::Topic(args.topic.clone());
            let altered = client
                .alter_configs(&resource, &changes, args.validate_only)
                .await;
            let done = altered.map(|()| format!("{would}new settings"));
            outcomes.push(Outcome::of_topic(&args.topic, done));
        }
        if let Some(count) = args.partitions {
            let assignment: Vec<_> = args.assignment.iter().map(|brokers| brokers.0.clone()).collect();
            let grown = client
                .create_partitions_at(&args.topic, count, &assignment, args.validate_only)
                .await;
            let done = grown.map(|()| format!("{would}{}", partitions(count)));
            outcomes.push(Outcome::of_topic(&args.topic, done));
        }
        report(output, &outcomes)
    })
}

/// What `--set` and `--unset` say; an error if they disagree.
pub(super) fn changes(set: &[String], unset: &[String]) -> Result<BTreeMap<String, ConfigChange>, Failure> {
    let mut changes: BTreeMap<_, _> = pairs(set)?
        .into_iter()
        .map(|(name, value)| (name, ConfigChange::Set(value)))
        .collect();
    for name in unset {
        if changes.insert(name.clone(), ConfigChange::Delete).is_some() {
            return Err(Failure::Usage(format!("`{name}` is to be set and unset")));
        }
    }
    Ok(changes)
}

async fn delete(client: Client, names: &[&str], if_exists: bool, output: Output) -> Result<u8, Failure> {
    let deleted = client.delete_topics(names).await?;
    let outcome = |(name, deleted): (&&str, Result<(), ClientError>)| {
        let result = match deleted {
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                Ok("did not exist".to_owned())
            }
            deleted => deleted.map(|()| "deleted".to_owned()),
        };
        Outcome::of_topic(name, result)
    };
    let outcomes: Vec<Outcome> = names.iter().zip(deleted).map(outcome).collect();
    report(output, &outcomes)
}

/// The topics that are selected, without the cluster's own if they are to be left out.
async fn selected(
    client: &Client,
    topics: &[TopicSelection],
    internal: Option<bool>,
) -> Result<select::Found, ClientError> {
    let mut found = select::topics(client, topics).await?;
    if let Some(internal) = internal {
        found.topics.retain(|_, topic| topic.internal == internal);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_set_or_unset_but_not_both() {
        let set = ["a=1".to_owned(), "b=x=y".to_owned()];
        let both = changes(&set, &["c".to_owned()]).unwrap();
        assert_eq!(both["b"], ConfigChange::Set("x=y".to_owned()));
        assert_eq!(both["c"], ConfigChange::Delete);
        assert!(changes(&set, &["a".to_owned()]).is_err());
        assert!(changes(&["a".to_owned()], &[]).is_err());
    }
}
