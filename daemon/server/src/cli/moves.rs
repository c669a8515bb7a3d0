//! The moves that a plan (`plan.rs`) comes to, as `topic reassign plan` and `cluster rebalance` tell them.

use serde::Serialize;
use tradewind_client::consumer::assignor::TopicPartition;

use super::output::numbers;
use super::plan::{self, Placement};
use super::{Failure, Output};

/// A partition, where it is and where it shall be.
#[derive(Debug, Serialize)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) from: Vec<i32>,
    pub(super) to: Vec<i32>,
}

/// What moves when everything in `to` is placed as it says there.
pub(super) fn moves(now: &Placement, to: &Placement) -> Vec<Move> {
    let one = |(at, to): (&TopicPartition, &Vec<i32>)| Move {
        topic: at.0.clone(),
        partition: at.1,
        from: now.get(at).cloned().unwrap_or_default(),
        to: to.clone(),
    };
    to.iter().map(one).collect()
}

/// Says how much `moves` change of `partitions` partitions, and how many replicas are copied for it.
pub(super) fn tell(moves: &[Move], partitions: usize) {
    let new = |one: &Move| one.to.iter().filter(|id| !one.from.contains(id)).count();
    let copies: usize = moves.iter().map(new).sum();
    eprintln!(
        "{} of {partitions} partitions change, {copies} replicas are copied",
        moves.len()
    );
}

/// Prints the moves.
pub(super) fn print(moves: &[Move], output: Output) -> Result<(), Failure> {
    let row = |one: &Move| {
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            numbers(&one.from),
            numbers(&one.to),
        ]
    };
    let head = ["topic", "partition", "from", "to"];
    Ok(output.rows(&moves, &head, moves.iter().map(row))?)
}

/// Says the plan that puts these partitions back where they are now.
pub(super) fn tell_way_back<'a>(
    now: &Placement,
    moved: impl Iterator<Item = &'a TopicPartition>,
) -> Result<(), Failure> {
    let back: Placement = moved
        .filter_map(|at| Some((at.clone(), now.get(at)?.clone())))
        .collect();
    let text = serde_json::to_string(&plan::write(&back))?;
    eprintln!("the plan to go back: {text}");
    Ok(())
}
