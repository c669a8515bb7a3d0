//! `topic list`, `describe`, `create`, `alter`, `delete` and `add-partitions`.

use std::collections::BTreeMap;

use serde::Serialize;
use tradewind_client::admin::{ConfigChange, ConfigResource, NewTopic};
use tradewind_client::{Client, Isolation, OffsetSpec};

use super::args::TopicCommand;
use super::kafka::{pairs, with_client};
use super::{Failure, Output};

/// Runs a command on topics.
pub(super) fn run(command: TopicCommand, output: Output) -> Result<u8, Failure> {
    match command {
        TopicCommand::List(at) => with_client(&at, |client| list(client, output)),
        TopicCommand::Describe { topic, at } => with_client(&at, |client| describe(client, topic, output)),
        TopicCommand::Create {
            topic,
            partitions,
            replication_factor,
            set,
            at,
        } => {
            let new = NewTopic {
                name: topic,
                partitions: (partitions >= 0).then_some(partitions),
                replication_factor: (replication_factor >= 0).then_some(replication_factor),
                configs: pairs(&set)?,
                ..NewTopic::default()
            };
            with_client(&at, async |client| {
                let id = client.create_topic(&new).await?;
                eprintln!("created {} with id {id}", new.name);
                Ok(0)
            })
        }
        TopicCommand::Alter {
            topic,
            set,
            unset,
            at,
        } => {
            let mut changes: BTreeMap<_, _> = pairs(&set)?
                .into_iter()
                .map(|(name, value)| (name, ConfigChange::Set(value)))
                .collect();
            changes.extend(unset.into_iter().map(|name| (name, ConfigChange::Delete)));
            if changes.is_empty() {
                return Err(Failure::Usage(
                    "nothing to change: say --set NAME=VALUE or --unset NAME".into(),
                ));
            }
            with_client(&at, async |client| {
                client
                    .alter_configs(&ConfigResource::Topic(topic), &changes, false)
                    .await?;
                Ok(0)
            })
        }
        TopicCommand::Delete { topics, at } => with_client(&at, async |client| {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut failed = 0;
            for (name, result) in names.iter().zip(client.delete_topics(&names).await?) {
                if let Err(error) = result {
                    eprintln!("{name}: {error}");
                    failed = 1;
                }
            }
            Ok(failed)
        }),
        TopicCommand::AddPartitions { topic, count, at } => with_client(&at, async |client| {
            client.create_partitions(&topic, count).await?;
            Ok(0)
        }),
    }
}

#[derive(Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

async fn list(client: Client, output: Output) -> Result<u8, Failure> {
    let metadata = client.metadata_of_all().await?;
    let listed: Vec<Listed> = metadata
        .topics
        .values()
        .map(|topic| Listed {
            topic: topic.name.clone(),
            partitions: topic.partitions.len(),
            replication_factor: topic
                .partitions
                .values()
                .map(|partition| partition.replicas.len())
                .max()
                .unwrap_or(0),
            internal: topic.internal,
        })
        .collect();
    let row = |topic: &Listed| {
        let internal = if topic.internal { "internal" } else { "" };
        let counts = [topic.partitions, topic.replication_factor].map(|count| count.to_string());
        vec![
            topic.topic.clone(),
            counts[0].clone(),
            counts[1].clone(),
            internal.to_owned(),
        ]
    };
    output.rows(
        &listed,
        &["topic", "partitions", "copies", ""],
        listed.iter().map(row),
    )?;
    Ok(0)
}

#[derive(Serialize)]
struct Described {
    topic: String,
    id: String,
    /// What is set on the topic itself.
    configs: BTreeMap<String, String>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    start: Option<i64>,
    end: Option<i64>,
}

async fn describe(client: Client, topic: String, output: Output) -> Result<u8, Failure> {
    let known = client.topic(&topic).await?;
    let partitions: Vec<_> = known
        .partitions
        .keys()
        .map(|partition| (topic.clone(), *partition))
        .collect();
    let starts = client
        .list_offsets(&partitions, OffsetSpec::Earliest, Isolation::ReadUncommitted)
        .await?;
    let ends = client
        .list_offsets(&partitions, OffsetSpec::Latest, Isolation::ReadUncommitted)
        .await?;
    let resource = ConfigResource::Topic(topic.clone());
    let configs = client
        .describe_configs(std::slice::from_ref(&resource))
        .await?
        .remove(&resource)
        .unwrap_or_default();
    let own = configs.into_iter().filter(|(_, entry)| entry.is_topics_own());
    let partition = |(number, partition): (&i32, &tradewind_client::PartitionMetadata)| {
        let at = (topic.clone(), *number);
        DescribedPartition {
            partition: *number,
            leader: partition.leader,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            start: starts.get(&at).map(|listed| listed.offset),
            end: ends.get(&at).map(|listed| listed.offset),
        }
    };
    let described = Described {
        id: known.id.to_string(),
        configs: own
            .map(|(name, entry)| (name, entry.value.unwrap_or_default()))
            .collect(),
        partitions: known.partitions.iter().map(partition).collect(),
        topic,
    };
    for (name, value) in &described.configs {
        eprintln!("{name}={value}");
    }
    let or_none = |number: Option<i64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let row = |partition: &DescribedPartition| {
        vec![
            partition.partition.to_string(),
            or_none(partition.leader.map(i64::from)),
            format!("{:?}", partition.replicas),
            format!("{:?}", partition.isr),
            or_none(partition.start),
            or_none(partition.end),
        ]
    };
    let head = ["partition", "leader", "replicas", "in sync", "start", "end"];
    output.rows(&described, &head, described.partitions.iter().map(row))?;
    Ok(0)
}
