//! `topic list` and `topic describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use tradewind_client::admin::{ConfigEntry, ConfigResource, Reassignment};
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, ClientError, Isolation, ListedOffset, OffsetSpec, TopicMetadata};

use super::health::Facts;
use super::selected;
use crate::cli::args::TopicFilter;
use crate::cli::output::{numbers, or_dash, table};
use crate::cli::select::TopicSelection;
use crate::cli::{Failure, Output};

#[derive(Serialize)]
struct Listed {
    topic: String,
    id: String,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
    under_replicated: usize,
    unavailable: usize,
}

/// Prints topics; with a filter only those that have a partition of that kind.
pub(super) async fn list(
    client: Client,
    topics: Vec<TopicSelection>,
    filter: TopicFilter,
    output: Output,
) -> Result<u8, Failure> {
    let found = selected(&client, &topics, filter.internal_only()).await?;
    let picture = Picture::take(&client, &found.topics, filter.needs_min_isr()).await?;
    let listed: Vec<Listed> = found
        .topics
        .values()
        .filter(|topic| {
            !filter.asks_for_trouble() || picture.facts(topic).any(|(_, facts)| facts.passes(&filter))
        })
        .map(|topic| Listed {
            topic: topic.name.clone(),
            id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            replication_factor: replication_factor(topic),
            internal: topic.internal,
            under_replicated: picture
                .facts(topic)
                .filter(|(_, facts)| facts.is_under_replicated())
                .count(),
            unavailable: picture
                .facts(topic)
                .filter(|(_, facts)| facts.is_unavailable())
                .count(),
        })
        .collect();
    let row = |topic: &Listed| {
        let mut notes = Vec::new();
        if topic.internal {
            notes.push("internal".to_owned());
        }
        if topic.under_replicated > 0 {
            notes.push(format!("{} under-replicated", topic.under_replicated));
        }
        if topic.unavailable > 0 {
            notes.push(format!("{} unavailable", topic.unavailable));
        }
        vec![
            topic.topic.clone(),
            topic.partitions.to_string(),
            topic.replication_factor.to_string(),
            notes.join(", "),
        ]
    };
    output.rows(
        &listed,
        &["topic", "partitions", "copies", ""],
        listed.iter().map(row),
    )?;
    Ok(found.complain())
}

#[derive(Serialize)]
struct Described {
    topic: String,
    id: String,
    internal: bool,
    partition_count: usize,
    replication_factor: usize,
    /// What is set on the topic itself.
    configs: BTreeMap<String, String>,
    /// Those that the filter lets through.
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    start: Option<i64>,
    end: Option<i64>,
}

/// Prints partitions and settings of topics; with a filter only partitions of that kind.
pub(super) async fn describe(
    client: Client,
    topics: Vec<TopicSelection>,
    filter: TopicFilter,
    output: Output,
) -> Result<u8, Failure> {
    let found = selected(&client, &topics, filter.internal_only()).await?;
    let picture = Picture::take(&client, &found.topics, true).await?;
    let ends = Ends::ask(&client, &found.topics).await;
    let mut described = Vec::new();
    for topic in found.topics.values() {
        let partitions: Vec<Partition> = picture
            .facts(topic)
            .filter(|(_, facts)| facts.passes(&filter))
            .map(|(number, facts)| partition(topic, number, facts, &ends))
            .collect();
        if partitions.is_empty() && filter.asks_for_trouble() {
            continue;
        }
        described.push(Described {
            topic: topic.name.clone(),
            id: topic.id.to_string(),
            internal: topic.internal,
            partition_count: topic.partitions.len(),
            replication_factor: replication_factor(topic),
            configs: picture.own_configs(&topic.name),
            partitions,
        });
    }
    let mut text = String::new();
    for topic in &described {
        if !text.is_empty() {
            text.push('\n');
        }
        topic.write(&mut text)?;
    }
    output.text(&described, &text)?;
    Ok(found.complain())
}

fn partition(topic: &TopicMetadata, number: i32, facts: Facts<'_>, ends: &Ends) -> Partition {
    let at = (topic.name.clone(), number);
    let offset = |of: &BTreeMap<TopicPartition, ListedOffset>| of.get(&at).map(|listed| listed.offset);
    Partition {
        partition: number,
        leader: facts.partition.leader,
        leader_epoch: facts.partition.leader_epoch,
        replicas: facts.partition.replicas.clone(),
        isr: facts.partition.isr.clone(),
        adding: facts
            .moving
            .map(|moving| moving.adding.clone())
            .unwrap_or_default(),
        removing: facts
            .moving
            .map(|moving| moving.removing.clone())
            .unwrap_or_default(),
        start: offset(&ends.starts),
        end: offset(&ends.ends),
    }
}

impl Described {
    /// A line about the topic, then a table of its partitions.
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (topic, id, count) = (&self.topic, &self.id, self.partition_count);
        write!(
            text,
            "{topic}  id {id}  {count} partitions  {} copies",
            self.replication_factor
        )?;
        for (name, value) in &self.configs {
            write!(text, "  {name}={value}")?;
        }
        text.push('\n');
        let moves = self
            .partitions
            .iter()
            .any(|one| !one.adding.is_empty() || !one.removing.is_empty());
        let mut head = vec!["partition", "leader", "replicas", "in sync", "start", "end"];
        if moves {
            head.extend(["adding", "removing"]);
        }
        let row = |partition: &Partition| {
            let mut row = vec![
                partition.partition.to_string(),
                or_dash(partition.leader),
                numbers(&partition.replicas),
                numbers(&partition.isr),
                or_dash(partition.start),
                or_dash(partition.end),
            ];
            if moves {
                row.extend([numbers(&partition.adding), numbers(&partition.removing)]);
            }
            row
        };
        text.push_str(&table(&head, self.partitions.iter().map(row)));
        Ok(())
    }
}

fn replication_factor(topic: &TopicMetadata) -> usize {
    let replicas = topic
        .partitions
        .values()
        .map(|partition| partition.replicas.len());
    replicas.max().unwrap_or(0)
}

/// What is needed besides metadata to judge partitions.
struct Picture {
    alive: BTreeSet<i32>,
    moves: BTreeMap<TopicPartition, Reassignment>,
    configs: BTreeMap<ConfigResource, BTreeMap<String, ConfigEntry>>,
}

impl Picture {
    async fn take(
        client: &Client,
        topics: &BTreeMap<String, TopicMetadata>,
        with_configs: bool,
    ) -> Result<Self, ClientError> {
        let moves = match client.list_reassignments().await {
            // A cluster that cannot move replicas moves none.
            Err(ClientError::Unsupported { .. }) => BTreeMap::new(),
            moves => moves?,
        };
        let configs = if with_configs {
            let resources: Vec<_> = topics.keys().cloned().map(ConfigResource::Topic).collect();
            client.describe_configs(&resources).await?
        } else {
            BTreeMap::new()
        };
        Ok(Self {
            alive: client.cached().brokers.keys().copied().collect(),
            moves,
            configs,
        })
    }

    /// The topic's partitions, by number.
    fn facts<'a>(&'a self, topic: &'a TopicMetadata) -> impl Iterator<Item = (i32, Facts<'a>)> {
        let min_isr = self
            .configs
            .get(&ConfigResource::Topic(topic.name.clone()))
            .and_then(|configs| configs.get("min.insync.replicas")?.value.as_ref()?.parse().ok());
        topic.partitions.iter().map(move |(number, partition)| {
            let facts = Facts {
                partition,
                alive: &self.alive,
                min_isr,
                moving: self.moves.get(&(topic.name.clone(), *number)),
            };
            (*number, facts)
        })
    }

    fn own_configs(&self, topic: &str) -> BTreeMap<String, String> {
        let configs = self.configs.get(&ConfigResource::Topic(topic.to_owned()));
        let own = configs
            .into_iter()
            .flatten()
            .filter(|(_, entry)| entry.is_topics_own());
        own.map(|(name, entry)| (name.clone(), entry.value.clone().unwrap_or_default()))
            .collect()
    }
}

/// Where partitions begin and end. What cannot be had is left out: a description of a cluster in trouble must not fail
/// for it.
#[derive(Default)]
struct Ends {
    starts: BTreeMap<TopicPartition, ListedOffset>,
    ends: BTreeMap<TopicPartition, ListedOffset>,
}

impl Ends {
    async fn ask(client: &Client, topics: &BTreeMap<String, TopicMetadata>) -> Self {
        let mut led = Vec::new();
        for topic in topics.values() {
            for (number, partition) in &topic.partitions {
                if partition.leader.is_some() {
                    led.push((topic.name.clone(), *number));
                }
            }
        }
        let ask = async |spec| {
            let listed = client.list_offsets(&led, spec, Isolation::ReadUncommitted).await;
            listed.unwrap_or_else(|error| {
                eprintln!("offsets are not known: {error}");
                BTreeMap::new()
            })
        };
        let (starts, ends) = tokio::join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest));
        Self { starts, ends }
    }
}
