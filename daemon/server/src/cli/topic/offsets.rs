//! `topic offsets` and `topic delete-records`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, Isolation, OffsetSpec};

use crate::cli::outcome::{Outcome, report};
use crate::cli::output::or_dash;
use crate::cli::select::{self, PartitionSelection, RecordPosition};
use crate::cli::{Failure, Output};

#[derive(Serialize)]
struct Line {
    topic: String,
    partition: i32,
    /// `null` if there is no such record, or no leader to say.
    offset: Option<i64>,
    /// The record's, if a record was looked for.
    timestamp: Option<i64>,
}

/// Prints the offset that `spec` names in each partition.
pub(super) async fn print(
    client: Client,
    selections: Vec<PartitionSelection>,
    spec: OffsetSpec,
    exclude_internal: bool,
    output: Output,
) -> Result<u8, Failure> {
    let (found, mut partitions) = select::partitions(&client, &selections).await?;
    partitions.retain(|(topic, _)| !exclude_internal || !found.topics[topic].internal);
    let (led, leaderless): (Vec<_>, Vec<_>) = partitions
        .into_iter()
        .partition(|(topic, partition)| found.topics[topic].partitions[partition].leader.is_some());
    let listed = client
        .list_offsets(&led, spec, Isolation::ReadUncommitted)
        .await?;
    for (topic, partition) in &leaderless {
        eprintln!("{topic}-{partition} has no leader");
    }
    let mut lines: Vec<Line> = led
        .iter()
        .chain(&leaderless)
        .map(|at| {
            let listed = listed.get(at);
            Line {
                topic: at.0.clone(),
                partition: at.1,
                offset: listed.map(|listed| listed.offset),
                timestamp: listed
                    .map(|listed| listed.timestamp)
                    .filter(|timestamp| *timestamp >= 0),
            }
        })
        .collect();
    lines.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let row = |line: &Line| {
        vec![
            line.topic.clone(),
            line.partition.to_string(),
            or_dash(line.offset),
            or_dash(line.timestamp),
        ]
    };
    let head = ["topic", "partition", "offset", "timestamp"];
    output.rows(&lines, &head, lines.iter().map(row))?;
    Ok(found.complain().max(u8::from(!leaderless.is_empty())))
}

/// The file of kafka-delete-records.
#[derive(Deserialize)]
struct File {
    #[serde(default = "first_version")]
    version: i64,
    partitions: Vec<FilePartition>,
}

#[derive(Deserialize)]
struct FilePartition {
    topic: String,
    partition: i32,
    offset: i64,
}

fn first_version() -> i64 {
    1
}

/// The offsets to delete up to, from the command line and a file. A partition twice is an error: which one is meant?
pub(super) fn to_delete(
    positions: Vec<RecordPosition>,
    file: Option<&Path>,
) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
    let mut all = positions;
    if let Some(path) = file {
        let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        all.extend(read(&text).map_err(wrong)?);
    }
    let mut offsets = BTreeMap::new();
    for position in all {
        let at = (position.topic, position.partition);
        if offsets.contains_key(&at) {
            return Err(Failure::Usage(format!("{}:{} is named twice", at.0, at.1)));
        }
        offsets.insert(at, position.offset);
    }
    Ok(offsets)
}

fn read(text: &str) -> Result<Vec<RecordPosition>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not known: it is 1", file.version));
    }
    let position = |one: FilePartition| {
        if one.partition < 0 || one.offset < -1 || one.topic.is_empty() {
            let (topic, partition, offset) = (one.topic, one.partition, one.offset);
            return Err(format!("no place to delete to: {topic}:{partition}:{offset}"));
        }
        Ok(RecordPosition {
            topic: one.topic,
            partition: one.partition,
            offset: one.offset,
        })
    };
    file.partitions.into_iter().map(position).collect()
}

/// Deletes the records below these offsets.
pub(super) async fn delete_records(
    client: Client,
    offsets: BTreeMap<TopicPartition, i64>,
    output: Output,
) -> Result<u8, Failure> {
    let mut deleted = client.delete_records(&offsets).await?;
    let mut outcomes = Vec::new();
    for at in offsets.keys() {
        if let Some(result) = deleted.remove(at) {
            let start = result.as_ref().ok().copied();
            let result = result.map(|_| "deleted".to_owned());
            let mut outcome = Outcome::of_partition(&at.0, at.1, result);
            outcome.of.push(("start", start.into()));
            outcomes.push(outcome);
        }
    }
    report(output, &outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(topic: &str, partition: i32, offset: i64) -> RecordPosition {
        RecordPosition {
            topic: topic.to_owned(),
            partition,
            offset,
        }
    }

    #[test]
    fn kafkas_file_is_read() {
        let text = r#"{"partitions": [{"topic": "a", "partition": 1, "offset": -1}], "version": 1}"#;
        assert_eq!(read(text).unwrap(), [place("a", 1, -1)]);
        for wrong in [
            "",
            "{}",
            r#"{"partitions": [], "version": 2}"#,
            r#"{"partitions": [{"topic": "a", "partition": 1}]}"#,
            r#"{"partitions": [{"topic": "a", "partition": 1, "offset": -2}]}"#,
            r#"{"partitions": [{"topic": "", "partition": 1, "offset": 2}]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_partition_has_one_offset() {
        let twice = to_delete(vec![place("a", 0, 1), place("a", 0, 2)], None);
        assert!(matches!(twice, Err(Failure::Usage(_))));
        let two = to_delete(vec![place("a", 0, 1), place("a", 1, -1)], None).unwrap();
        assert_eq!(two[&("a".to_owned(), 1)], -1);
        let no_file = to_delete(Vec::new(), Some(Path::new("/nowhere")));
        assert!(matches!(no_file, Err(Failure::Usage(message)) if message.contains("/nowhere")));
    }
}
