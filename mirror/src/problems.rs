//! What is wrong with partitions, in sentences for `mirror status`: what it is, and what to do about it.

use crate::board::Board;
use crate::source::track::Health;

/// After how long a partition that only tries again is a problem, in ms. Leaders move within seconds.
const RETRYING_LONG_MS: i64 = 10_000;

/// What the complaint of a gap says of its partition.
pub(crate) const GAPPED: &str = " is gapped: ";

/// One sentence for each partition that needs attention, as far as this daemon copies it.
pub(crate) fn partition_problems(board: &Board, now_ms: i64) -> Vec<String> {
    let mut problems = Vec::new();
    for (here, facts) in board.partitions() {
        let of = format!("{}/{}", here.name, here.partition);
        let reason = facts
            .reason
            .unwrap_or_else(|| "the source's leader has not answered yet".into());
        match facts.health {
            Health::Diverged => problems.push(format!("{of} is diverged: {reason}")),
            Health::Failed => problems.push(format!("{of} has failed: {reason}")),
            Health::Starting | Health::Active | Health::Retrying => {}
        }
        let retrying = facts.retrying_since_ms.map(|since| now_ms.saturating_sub(since));
        if let Some(for_ms) = retrying.filter(|for_ms| *for_ms >= RETRYING_LONG_MS) {
            problems.push(format!("{of} has tried again for {} s: {reason}", for_ms / 1000));
        }
        if let Some(gap) = facts.gap {
            problems.push(format!(
                "{of}{GAPPED}the source had removed offsets {} to {} before they were copied",
                gap.from,
                gap.to - 1
            ));
        }
    }
    problems
}
