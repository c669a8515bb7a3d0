//! `topic reassign ...` and `topic elect-leaders`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use tradewind_client::admin::{Election, Reassignment};
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, ClientError};
use tradewind_wire::error::ErrorCode;

use crate::cli::args::{PlanFormat, ReassignCommand};
use crate::cli::kafka::with_cluster;
use crate::cli::outcome::{Outcome, report};
use crate::cli::output::{numbers, print};
use crate::cli::plan::{self, Placement, placement};
use crate::cli::select::{self, PartitionSelection, TopicSelection};
use crate::cli::{Failure, Output, moves};

/// Runs a command on moves.
pub(super) fn run(command: ReassignCommand, output: Output) -> Result<u8, Failure> {
    match command {
        ReassignCommand::Plan {
            topics,
            brokers,
            replication_factor,
            print,
            at,
        } => with_cluster(&at, |client| {
            let factor = replication_factor.and_then(|factor| usize::try_from(factor).ok());
            make_plan(client, topics, brokers, factor, print, output)
        }),
        ReassignCommand::Apply { plan, execute, at } => {
            let plan = read(&plan)?;
            with_cluster(&at, |client| apply(client, plan, execute, output))
        }
        ReassignCommand::List(at) => with_cluster(&at, |client| list(client, output)),
        ReassignCommand::Verify { plan, at } => {
            let plan = read(&plan)?;
            with_cluster(&at, |client| verify(client, plan, output))
        }
        ReassignCommand::Cancel { partitions, all, at } => {
            with_cluster(&at, |client| cancel(client, partitions, all, output))
        }
    }
}

fn read(path: &Path) -> Result<Placement, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    plan::read(&text).map_err(wrong)
}

async fn make_plan(
    client: Client,
    topics: Vec<TopicSelection>,
    brokers: Vec<i32>,
    replication_factor: Option<usize>,
    format: PlanFormat,
    output: Output,
) -> Result<u8, Failure> {
    let found = select::topics(&client, &topics).await?;
    let known = client.cached();
    let mut racks: BTreeMap<i32, Option<String>> = BTreeMap::new();
    for (id, broker) in &known.brokers {
        if brokers.is_empty() || brokers.contains(id) {
            racks.insert(*id, broker.rack.clone());
        }
    }
    if let Some(missing) = brokers.iter().find(|id| !racks.contains_key(id)) {
        let there: Vec<i32> = known.brokers.keys().copied().collect();
        return Err(Failure::Usage(format!(
            "there is no broker {missing}: there are {}",
            numbers(&there)
        )));
    }
    let now = placement(&found.topics);
    let spread = plan::spread(&now, &racks, replication_factor).map_err(Failure::Usage)?;
    let changed: Placement = spread
        .into_iter()
        .filter(|(at, to)| now.get(at) != Some(to))
        .collect();
    let moves = moves::moves(&now, &changed);
    moves::tell(&moves, now.len());
    match format {
        PlanFormat::Kafka => print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&plan::write(&changed))?
        ))?,
        PlanFormat::Moves => moves::print(&moves, output)?,
    }
    Ok(found.complain())
}

async fn apply(client: Client, plan: Placement, execute: bool, output: Output) -> Result<u8, Failure> {
    let (now, missing) = placement_of(&client, &plan).await?;
    if !missing.is_empty() {
        return Err(Failure::Failed(anyhow::anyhow!(
            "the plan names what is not there, and nothing was moved: {}",
            missing.join(", ")
        )));
    }
    let pending = client.list_reassignments().await?;
    let mut wanted: BTreeMap<TopicPartition, Option<Vec<i32>>> = BTreeMap::new();
    for (at, to) in &plan {
        if now.get(at) != Some(to) || pending.contains_key(at) {
            wanted.insert(at.clone(), Some(to.clone()));
        }
    }
    let mut accepted = if execute && !wanted.is_empty() {
        moves::tell_way_back(&now, wanted.keys())?;
        client.alter_reassignments(&wanted).await?
    } else {
        BTreeMap::new()
    };
    let outcome = |one: moves::Move| {
        let at = (one.topic.clone(), one.partition);
        let result = match accepted.remove(&at) {
            Some(accepted) => accepted.map(|()| "moving".to_owned()),
            None if !wanted.contains_key(&at) => Ok("is there".to_owned()),
            None if execute => Err(ClientError::Missing {
                what: format!("move {}-{}", one.topic, one.partition),
            }),
            None => Ok("would move".to_owned()),
        };
        let mut outcome = Outcome::of_partition(&one.topic, one.partition, result);
        outcome.of.push(("from", numbers(&one.from).into()));
        outcome.of.push(("to", numbers(&one.to).into()));
        outcome
    };
    let outcomes: Vec<Outcome> = moves::moves(&now, &plan).into_iter().map(outcome).collect();
    let code = report(output, &outcomes)?;
    if !execute {
        eprintln!("nothing was moved: --execute does it");
    }
    Ok(code)
}

#[derive(Serialize)]
struct Pending {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
}

async fn list(client: Client, output: Output) -> Result<u8, Failure> {
    let pending: Vec<Pending> = client
        .list_reassignments()
        .await?
        .into_iter()
        .map(|((topic, partition), one)| Pending {
            topic,
            partition,
            replicas: one.replicas,
            adding: one.adding,
            removing: one.removing,
        })
        .collect();
    let row = |one: &Pending| {
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            numbers(&one.replicas),
            numbers(&one.adding),
            numbers(&one.removing),
        ]
    };
    let head = ["topic", "partition", "replicas", "adding", "removing"];
    output.rows(&pending, &head, pending.iter().map(row))?;
    Ok(0)
}

#[derive(Serialize)]
struct Verified {
    topic: String,
    partition: i32,
    planned: Vec<i32>,
    replicas: Vec<i32>,
    /// `done`, `moving`, `elsewhere` or `missing`.
    state: &'static str,
}

async fn verify(client: Client, plan: Placement, output: Output) -> Result<u8, Failure> {
    let (now, _) = placement_of(&client, &plan).await?;
    let pending = client.list_reassignments().await?;
    let verified: Vec<Verified> = plan
        .into_iter()
        .map(|(at, planned)| Verified {
            state: state(&planned, now.get(&at), pending.get(&at)),
            replicas: now.get(&at).cloned().unwrap_or_default(),
            topic: at.0,
            partition: at.1,
            planned,
        })
        .collect();
    let row = |one: &Verified| {
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            numbers(&one.planned),
            numbers(&one.replicas),
            one.state.to_owned(),
        ]
    };
    let head = ["topic", "partition", "planned", "replicas", "state"];
    output.rows(&verified, &head, verified.iter().map(row))?;
    Ok(u8::from(verified.iter().any(|one| one.state != "done")))
}

/// How far a partition is on its way to where it is planned to be.
fn state(planned: &[i32], now: Option<&Vec<i32>>, pending: Option<&Reassignment>) -> &'static str {
    match (now, pending) {
        (None, _) => "missing",
        (_, Some(pending)) if pending.target() == planned => "moving",
        (Some(now), None) if now == planned => "done",
        _ => "elsewhere",
    }
}

async fn cancel(
    client: Client,
    selections: Vec<PartitionSelection>,
    all: bool,
    output: Output,
) -> Result<u8, Failure> {
    let pending = client.list_reassignments().await?;
    let is_meant = |(topic, partition): &TopicPartition| {
        let meant = |one: &PartitionSelection| one.topic.matches(topic) && one.has(*partition);
        all || selections.iter().any(meant)
    };
    let back: BTreeMap<TopicPartition, Option<Vec<i32>>> = pending
        .into_keys()
        .filter(is_meant)
        .map(|at| (at, None))
        .collect();
    if back.is_empty() {
        eprintln!("no move of these is under way");
        report(output, &[])?;
        return Ok(0);
    }
    let outcomes: Vec<Outcome> = client
        .alter_reassignments(&back)
        .await?
        .into_iter()
        .map(|((topic, partition), result)| {
            Outcome::of_partition(&topic, partition, result.map(|()| "taken back".to_owned()))
        })
        .collect();
    report(output, &outcomes)
}

/// Elects leaders: of these partitions, or of all.
pub(super) async fn elect(
    client: Client,
    selections: Vec<PartitionSelection>,
    unclean: bool,
    output: Output,
) -> Result<u8, Failure> {
    let election = if unclean {
        Election::Unclean
    } else {
        Election::Preferred
    };
    let (found, partitions) = if selections.is_empty() {
        (select::Found::default(), None)
    } else {
        let (found, partitions) = select::partitions(&client, &selections).await?;
        (found, Some(partitions))
    };
    let elected = client.elect_leaders(election, partitions.as_deref()).await?;
    let outcomes: Vec<Outcome> = elected
        .into_iter()
        .map(|((topic, partition), result)| {
            let result = match result {
                Err(error) if error.code() == Some(ErrorCode::ElectionNotNeeded) => {
                    Ok("not needed".to_owned())
                }
                result => result.map(|()| "elected".to_owned()),
            };
            Outcome::of_partition(&topic, partition, result)
        })
        .collect();
    if outcomes.is_empty() {
        eprintln!("every partition has its preferred leader");
    }
    Ok(report(output, &outcomes)?.max(found.complain()))
}

/// Where the partitions of a plan are now, and the names of those that are not there.
async fn placement_of(client: &Client, plan: &Placement) -> Result<(Placement, Vec<String>), ClientError> {
    let mut names: Vec<&str> = plan.keys().map(|(topic, _)| topic.as_str()).collect();
    names.dedup();
    let known = client.metadata(&names).await?;
    let mut now = placement(&known.topics);
    now.retain(|at, _| plan.contains_key(at));
    let missing = plan.keys().filter(|at| !now.contains_key(*at));
    let missing = missing
        .map(|(topic, partition)| format!("{topic}-{partition}"))
        .collect();
    Ok((now, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_done_when_it_is_where_it_was_planned_and_nothing_moves() {
        let moving = |replicas: &[i32], removing: &[i32]| Reassignment {
            replicas: replicas.to_vec(),
            adding: Vec::new(),
            removing: removing.to_vec(),
        };
        assert_eq!(state(&[1, 2], Some(&vec![1, 2]), None), "done");
        assert_eq!(state(&[1, 2], Some(&vec![2, 1]), None), "elsewhere");
        assert_eq!(state(&[1, 2], None, None), "missing");
        assert_eq!(
            state(&[1, 2], Some(&vec![1, 2, 3]), Some(&moving(&[1, 2, 3], &[3]))),
            "moving"
        );
        assert_eq!(
            state(&[1, 2], Some(&vec![1, 2, 3]), Some(&moving(&[1, 2, 3], &[1]))),
            "elsewhere"
        );
    }
}
