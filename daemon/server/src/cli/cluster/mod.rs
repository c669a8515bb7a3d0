//! `cluster ...`: brokers, the APIs they offer, what they store, the metadata quorum; and, in `life.rs` and `moves.rs`, what
//! an operator does to daemons.

mod life;
mod moves;

use std::collections::BTreeMap;

use serde::Serialize;
use tradewind_client::{Client, ClientError};
use tradewind_wire::api::ApiKey;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::api_versions::ApiVersion;
use tradewind_wire::messages::describe_quorum::{PartitionData, ReplicaState, asked};
use tradewind_wire::messages::{
    ApiVersionsRequest, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeQuorumRequest, versions,
};

use crate::cli::args::ClusterCommand;
use crate::cli::kafka::with_cluster;
use crate::cli::output::{numbers, or_dash};
use crate::cli::select::TopicSelection;
use crate::cli::{Failure, Output};

/// Runs a command on a cluster.
pub(in crate::cli) fn run(command: ClusterCommand, output: Output) -> Result<u8, Failure> {
    match command {
        ClusterCommand::Brokers(at) => with_cluster(&at, |client| brokers(client, output)),
        ClusterCommand::ApiVersions { brokers, at } => {
            with_cluster(&at, |client| api_versions(client, brokers, output))
        }
        ClusterCommand::LogDirs {
            brokers,
            topics,
            partitions,
            at,
        } => with_cluster(&at, |client| {
            log_dirs(client, brokers, topics, partitions, output)
        }),
        ClusterCommand::Status(args) => life::status(&args, output),
        ClusterCommand::Drain(args) => life::drain(&args, output),
        ClusterCommand::Undrain { daemon, at } => life::undrain(daemon, &at, output),
        ClusterCommand::Add(args) => life::add(&args, output),
        ClusterCommand::Remove(args) => life::remove(&args, output),
        ClusterCommand::Rebalance(args) => moves::rebalance(&args, output),
        ClusterCommand::Quorum(at) => with_cluster(&at, |client| quorum(client, output)),
    }
}

#[derive(Serialize)]
struct Brokers {
    cluster_id: Option<String>,
    controller: Option<i32>,
    brokers: Vec<Broker>,
}

#[derive(Serialize)]
struct Broker {
    broker: i32,
    host: String,
    port: i32,
    rack: Option<String>,
    controller: bool,
}

async fn brokers(client: Client, output: Output) -> Result<u8, Failure> {
    let metadata = client.metadata(&[]).await?;
    let broker = |broker: &tradewind_client::Broker| Broker {
        broker: broker.id,
        host: broker.host.clone(),
        port: broker.port,
        rack: broker.rack.clone(),
        controller: metadata.controller == Some(broker.id),
    };
    let all = Brokers {
        cluster_id: metadata.cluster_id.clone(),
        controller: metadata.controller,
        brokers: metadata.brokers.values().map(broker).collect(),
    };
    let row = |one: &Broker| {
        vec![
            one.broker.to_string(),
            format!("{}:{}", one.host, one.port),
            or_dash(one.rack.as_ref()),
            if one.controller { "controller" } else { "" }.to_owned(),
        ]
    };
    output.rows(
        &all,
        &["broker", "address", "rack", ""],
        all.brokers.iter().map(row),
    )?;
    Ok(0)
}

/// The brokers that were asked for, or all; an error for one that is not there.
async fn chosen(client: &Client, brokers: Vec<i32>) -> Result<Vec<i32>, Failure> {
    let metadata = client.metadata(&[]).await?;
    let there: Vec<i32> = metadata.brokers.keys().copied().collect();
    if let Some(missing) = brokers.iter().find(|id| !there.contains(id)) {
        let there = numbers(&there);
        return Err(Failure::Usage(format!(
            "there is no broker {missing}: there are {there}"
        )));
    }
    Ok(if brokers.is_empty() { there } else { brokers })
}

#[derive(Serialize)]
struct Offered {
    broker: i32,
    api: String,
    key: i16,
    min: i16,
    max: i16,
    /// The version that this program uses; `null` if it does not know the API.
    used: Option<i16>,
}

async fn api_versions(client: Client, brokers: Vec<i32>, output: Output) -> Result<u8, Failure> {
    let mut offered = Vec::new();
    for broker in chosen(&client, brokers).await? {
        let request = ApiVersionsRequest {
            client_software_name: "tradewind".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let answer = client.send(broker, request).await?;
        offered.extend(answer.api_keys.iter().map(|api| offer(broker, api)));
    }
    let row = |one: &Offered| {
        vec![
            one.broker.to_string(),
            format!("{}({})", one.api, one.key),
            format!("{}-{}", one.min, one.max),
            or_dash(one.used),
        ]
    };
    output.rows(
        &offered,
        &["broker", "api", "versions", "used"],
        offered.iter().map(row),
    )?;
    Ok(0)
}

fn offer(broker: i32, api: &ApiVersion) -> Offered {
    let known = ApiKey::from_code(api.api_key);
    let used = known.and_then(versions).and_then(|ours| {
        let highest = ours.max.min(api.max_version);
        (highest >= ours.min.max(api.min_version)).then_some(highest)
    });
    Offered {
        broker,
        api: known.map_or("unknown", ApiKey::name).to_owned(),
        key: api.api_key,
        min: api.min_version,
        max: api.max_version,
        used,
    }
}

#[derive(Serialize)]
struct LogDir {
    broker: i32,
    dir: String,
    error: Option<&'static str>,
    /// Of the partitions that were asked for.
    bytes: i64,
    /// Of the volume; `null` if the broker does not tell.
    total_bytes: Option<i64>,
    usable_bytes: Option<i64>,
    partitions: Vec<Log>,
}

#[derive(Serialize)]
struct Log {
    topic: String,
    partition: i32,
    bytes: i64,
    offset_lag: i64,
    is_future: bool,
}

async fn log_dirs(
    client: Client,
    brokers: Vec<i32>,
    topics: Vec<TopicSelection>,
    per_partition: bool,
    output: Output,
) -> Result<u8, Failure> {
    let mut dirs = Vec::new();
    for broker in chosen(&client, brokers).await? {
        let answer = client
            .send(broker, DescribeLogDirsRequest { topics: None })
            .await?;
        refused(&format!("directories of broker {broker}"), answer.error_code)?;
        dirs.extend(log_dirs_of(broker, &answer, &topics));
    }
    for one in &dirs {
        if let Some(error) = one.error {
            eprintln!("broker {}: {}: {error}", one.broker, one.dir);
        }
    }
    let failed = u8::from(dirs.iter().any(|one| one.error.is_some()));
    if per_partition {
        let row = |one: &LogDir, log: &Log| {
            vec![
                one.broker.to_string(),
                one.dir.clone(),
                log.topic.clone(),
                log.partition.to_string(),
                log.bytes.to_string(),
                log.offset_lag.to_string(),
            ]
        };
        let head = ["broker", "dir", "topic", "partition", "bytes", "lag"];
        let rows = dirs
            .iter()
            .flat_map(|one| one.partitions.iter().map(|log| row(one, log)));
        output.rows(&dirs, &head, rows)?;
    } else {
        let row = |one: &LogDir| {
            vec![
                one.broker.to_string(),
                one.dir.clone(),
                one.partitions.len().to_string(),
                one.bytes.to_string(),
                or_dash(one.usable_bytes),
                or_dash(one.total_bytes),
            ]
        };
        let head = ["broker", "dir", "partitions", "bytes", "free", "volume"];
        output.rows(&dirs, &head, dirs.iter().map(row))?;
    }
    Ok(failed)
}

fn log_dirs_of(broker: i32, answer: &DescribeLogDirsResponse, topics: &[TopicSelection]) -> Vec<LogDir> {
    let is_meant = |topic: &str| topics.is_empty() || topics.iter().any(|one| one.matches(topic));
    let dir = |told: &tradewind_wire::messages::describe_log_dirs::DescribeLogDirsResult| {
        let mut partitions = Vec::new();
        for topic in told.topics.iter().filter(|topic| is_meant(&topic.name)) {
            partitions.extend(topic.partitions.iter().map(|one| Log {
                topic: topic.name.to_string(),
                partition: one.partition_index,
                bytes: one.partition_size,
                offset_lag: one.offset_lag,
                is_future: one.is_future_key,
            }));
        }
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        LogDir {
            broker,
            dir: told.log_dir.to_string(),
            error: (told.error_code != 0).then(|| ErrorCode::from_code(told.error_code).name()),
            bytes: partitions.iter().map(|log| log.bytes).sum(),
            total_bytes: (told.total_bytes >= 0).then_some(told.total_bytes),
            usable_bytes: (told.usable_bytes >= 0).then_some(told.usable_bytes),
            partitions,
        }
    };
    answer.results.iter().map(dir).collect()
}

#[derive(Serialize)]
struct Quorum {
    leader: Option<i32>,
    leader_epoch: i32,
    high_watermark: i64,
    members: Vec<QuorumMember>,
}

#[derive(Serialize)]
struct QuorumMember {
    node: i32,
    voter: bool,
    leader: bool,
    end: Option<i64>,
    /// How far behind the leader's end it is.
    lag: Option<i64>,
    last_caught_up_ms: Option<i64>,
}

async fn quorum(client: Client, output: Output) -> Result<u8, Failure> {
    let request = DescribeQuorumRequest {
        topics: vec![asked::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![asked::PartitionData { partition_index: 0 }],
        }],
    };
    let answer = client.any(&request).await?;
    refused("quorum", answer.error_code)?;
    let told = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    let told = told.ok_or_else(|| ClientError::Missing {
        what: "quorum".to_owned(),
    })?;
    refused("quorum", told.error_code)?;
    let quorum = members(told);
    let row = |one: &QuorumMember| {
        let role = match (one.leader, one.voter) {
            (true, _) => "leader",
            (_, true) => "follower",
            _ => "observer",
        };
        vec![
            one.node.to_string(),
            role.to_owned(),
            or_dash(one.end),
            or_dash(one.lag),
        ]
    };
    output.rows(
        &quorum,
        &["node", "role", "end", "lag"],
        quorum.members.iter().map(row),
    )?;
    Ok(0)
}

fn members(told: &PartitionData) -> Quorum {
    let leader = (told.leader_id >= 0).then_some(told.leader_id);
    let end = |one: &ReplicaState| (one.log_end_offset >= 0).then_some(one.log_end_offset);
    let voters = told.current_voters.iter().map(|one| (one, true));
    let all: BTreeMap<i32, _> = voters
        .chain(told.observers.iter().map(|one| (one, false)))
        .map(|(one, voter)| (one.replica_id, (one, voter)))
        .collect();
    let leaders_end = leader.and_then(|id| end(all.get(&id)?.0));
    let member = |(one, voter): (&ReplicaState, bool)| QuorumMember {
        node: one.replica_id,
        voter,
        leader: leader == Some(one.replica_id),
        end: end(one),
        lag: leaders_end.zip(end(one)).map(|(leader, own)| leader - own),
        last_caught_up_ms: (one.last_caught_up_timestamp >= 0).then_some(one.last_caught_up_timestamp),
    };
    Quorum {
        leader,
        leader_epoch: told.leader_epoch,
        high_watermark: told.high_watermark,
        members: all.into_values().map(member).collect(),
    }
}

fn refused(what: &str, code: i16) -> Result<(), Failure> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(Failure::Failed(anyhow::anyhow!("{what}: {}", code.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_used_is_the_highest_in_common() {
        let api = |api_key, min_version, max_version| ApiVersion {
            api_key,
            min_version,
            max_version,
        };
        let ours = versions(ApiKey::Fetch).unwrap();
        assert_eq!(offer(1, &api(1, 0, 999)).used, Some(ours.max));
        assert_eq!(offer(1, &api(1, 0, 5)).used, Some(5));
        assert_eq!(offer(1, &api(1, 998, 999)).used, None);
        let unknown = offer(1, &api(9_999, 0, 1));
        assert_eq!((unknown.api.as_str(), unknown.used), ("unknown", None));
    }

    #[test]
    fn lag_in_a_quorum_is_behind_the_leader() {
        let state = |replica_id, log_end_offset| ReplicaState {
            replica_id,
            log_end_offset,
            ..Default::default()
        };
        let told = PartitionData {
            leader_id: 2,
            current_voters: vec![state(1, 90), state(2, 100), state(3, -1)],
            observers: vec![state(4, 100)],
            ..Default::default()
        };
        let quorum = members(&told);
        let lags: Vec<_> = quorum
            .members
            .iter()
            .map(|one| (one.node, one.voter, one.lag))
            .collect();
        let expected = [
            (1, true, Some(10)),
            (2, true, Some(0)),
            (3, true, None),
            (4, false, Some(0)),
        ];
        assert_eq!(lags, expected);
    }
}
