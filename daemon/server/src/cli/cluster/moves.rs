//! `cluster rebalance`, and the moves of `cluster drain --replicas`: what is to go where comes from `plan.rs`; here it is
//! done, a few partitions at a time, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_client::admin::Election;
use tradewind_client::consumer::assignor::TopicPartition;
use tradewind_client::{Client, ClientError};
use tradewind_cluster::overview::{DaemonOverview, Overview};

use super::life::{find, overview};
use crate::cli::args::RebalanceArgs;
use crate::cli::kafka::{client, runtime};
use crate::cli::plan::{self, Placement};
use crate::cli::{Failure, Output, moves};

/// How often the moves under way are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What is to move where, and from where.
struct Planned {
    now: Placement,
    to: Placement,
}

impl Planned {
    fn print(&self, output: Output) -> Result<(), Failure> {
        let moves = moves::moves(&self.now, &self.to);
        moves::tell(&moves, self.now.len());
        moves::print(&moves, output)
    }
}

/// `cluster rebalance`: shows the moves; with --execute, makes them and waits until they are done.
pub(super) fn rebalance(args: &RebalanceArgs, output: Output) -> Result<u8, Failure> {
    let before = overview(&args.at)?;
    for id in &args.without {
        find(&before, *id)?;
    }
    let brokers = takers(&before, &args.without);
    // Everything would be copied away from a daemon that is only being restarted.
    let is_out = |one: &&DaemonOverview| !args.without.contains(&one.id) && !brokers.contains_key(&one.id);
    if let Some(out) = before.daemons.iter().find(is_out) {
        let (id, why) = (out.id, if out.drained { "drained" } else { &out.state });
        return Err(Failure::Usage(format!(
            "daemon {id} is {why}: wait until it is in service, or say --without {id} to move everything away from it"
        )));
    }
    run(&before, |client| async move {
        let planned = plan(&client, |now| plan::spread(now, &brokers, None)).await?;
        planned.print(output)?;
        if planned.to.is_empty() {
            return Ok(0);
        }
        if !args.execute {
            eprintln!("nothing was moved: --execute does it");
            return Ok(0);
        }
        execute(&client, &planned, args.parallel).await
    })
}

/// Fails unless the replicas of `daemon` can be taken by others.
pub(super) fn plan_without(before: &Overview, daemon: i32) -> Result<(), Failure> {
    let brokers = takers(before, &[daemon]);
    run(before, |client| async move {
        plan(&client, |now| plan::vacate(now, &brokers, daemon)).await?;
        Ok(())
    })
}

/// Moves all replicas of `daemon` to others.
pub(super) fn empty(before: &Overview, daemon: i32, parallel: usize, output: Output) -> Result<u8, Failure> {
    let brokers = takers(before, &[daemon]);
    run(before, |client| async move {
        let planned = plan(&client, |now| plan::vacate(now, &brokers, daemon)).await?;
        if !output.is_json() {
            planned.print(output)?;
        }
        execute(&client, &planned, parallel).await
    })
}

/// The daemons that may take replicas, with their racks.
fn takers(overview: &Overview, without: &[i32]) -> BTreeMap<i32, Option<String>> {
    let fit = |one: &&DaemonOverview| one.state == "active" && !one.drained && !without.contains(&one.id);
    let all = overview.daemons.iter().filter(fit);
    all.map(|one| (one.id, one.rack.clone())).collect()
}

/// Works with a Kafka client that begins where the daemons say that they listen.
fn run<T, F>(overview: &Overview, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let active = overview.daemons.iter().filter(|one| one.state == "active");
    let bootstrap: Vec<String> = active.flat_map(|one| one.listeners.clone()).collect();
    runtime()?.block_on(async { work(client(&bootstrap)).await })
}

/// What changes when all partitions are placed as `place` says. Refused while anything moves.
async fn plan(
    client: &Client,
    place: impl FnOnce(&Placement) -> Result<Placement, String>,
) -> Result<Planned, Failure> {
    let known = client.metadata_of_all().await?;
    let now = plan::placement(&known.topics);
    let moving = client.list_reassignments().await?;
    if let Some((topic, partition)) = moving.keys().next() {
        return Err(Failure::Failed(anyhow::anyhow!(
            "{} partitions are moving, {topic}-{partition} among them: wait for them (`cluster status --wait 10m`) or take \
             them back (`topic reassign cancel --all`)",
            moving.len()
        )));
    }
    let placed = place(&now).map_err(Failure::Usage)?;
    let to = placed
        .into_iter()
        .filter(|(at, to)| now.get(at) != Some(to))
        .collect();
    Ok(Planned { now, to })
}

/// Makes the moves, at most `parallel` partitions at a time, and waits until they are done. A daemon that is lost meanwhile
/// holds them up until it is back; ending the command ends nothing that was begun.
async fn execute(client: &Client, planned: &Planned, parallel: usize) -> Result<u8, Failure> {
    moves::tell_way_back(&planned.now, planned.to.keys())?;
    let mut waiting: BTreeMap<TopicPartition, Option<Vec<i32>>> = planned
        .to
        .iter()
        .map(|(at, to)| (at.clone(), Some(to.clone())))
        .collect();
    let all = waiting.len();
    let (mut under_way, mut refused) = (BTreeSet::new(), 0);
    let mut told = String::new();
    loop {
        let pending = retriable(client.list_reassignments().await)?;
        if let Some(pending) = &pending {
            under_way.retain(|at| pending.contains_key(at));
        }
        while pending.is_some() && under_way.len() < parallel.max(1) && !waiting.is_empty() {
            let Some((at, to)) = waiting.pop_first() else {
                break;
            };
            match client
                .alter_reassignments(&BTreeMap::from([(at.clone(), to)]))
                .await
            {
                Ok(begun) => match begun.into_values().next() {
                    Some(Err(error)) => {
                        eprintln!("{error}");
                        refused += 1;
                    }
                    _ => drop(under_way.insert(at)),
                },
                Err(error) => return Err(error.into()),
            }
        }
        let done = all - waiting.len() - under_way.len() - refused;
        let now = format!("{done} of {all} partitions moved, {} under way", under_way.len());
        if now != told {
            eprintln!("{now}");
            told = now;
        }
        if waiting.is_empty() && under_way.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    // Who was to lead only after the move leads now, not when the cluster next looks for it.
    if let Err(error) = client.elect_leaders(Election::Preferred, None).await {
        eprintln!("preferred leaders are not elected yet: {error}");
    }
    Ok(u8::from(refused > 0))
}

/// An answer, or none if it may well come later.
fn retriable<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_retriable() => {
            eprintln!("{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
