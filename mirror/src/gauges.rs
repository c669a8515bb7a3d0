//! The gauges of a flow: this daemon's share of what `mirror status` tells of all of it.
//!
//! They speak of the partitions that this daemon copies, from what its links and logs know; nobody is asked. Summed (or, of
//! seconds, the greatest taken) over the daemons they are those of the flow.

use tradewind_wire::flow::HEARTBEATS_TOPIC;

use crate::board::PositionStatus;
use crate::flow::Flow;
use crate::metrics;
use crate::source::track::Health;

/// One number for each flow and daemon.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Gauges {
    /// Records that the source has and this cluster has not.
    pub(crate) lag_records: i64,
    /// For how long the one that is behind for longest has been, in seconds; while the source does not answer at least
    /// since it last did.
    pub(crate) lag_seconds: f64,
    /// Whether the source answered when it was last asked.
    pub(crate) source_up: bool,
    /// Partitions that are copied, or were about to be when the source was last seen.
    pub(crate) active: usize,
    /// Partitions that try again.
    pub(crate) retrying: usize,
    /// Partitions whose source has another history.
    pub(crate) diverged: usize,
    /// Partitions halted for another reason.
    pub(crate) failed: usize,
    /// Partitions that lack records which the source had removed before they were copied.
    pub(crate) gapped: usize,
    /// Group positions that this daemon keeps: the same record as at the source; not there yet; left alone; without meaning.
    pub(crate) positions: Positions,
}

/// Group positions, by how they relate to those at the source.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Positions {
    pub(crate) exact: usize,
    pub(crate) pending: usize,
    pub(crate) owned_here: usize,
    pub(crate) unmapped: usize,
}

/// Sets the flow's gauges.
pub(crate) fn publish(flow: &Flow) {
    metrics::flow(&flow.name, &gauges(flow));
}

/// The flow does not run here any more.
pub(crate) fn clear(flow: &Flow) {
    let none = Gauges {
        source_up: true,
        ..Gauges::default()
    };
    metrics::flow(&flow.name, &none);
}

fn gauges(flow: &Flow) -> Gauges {
    let now_ms = flow.target.clock().now_ms();
    let mut all = Gauges {
        source_up: !flow.board.is_unreachable(),
        ..Gauges::default()
    };
    let mut since_ms = now_ms;
    if !all.source_up {
        since_ms = flow.board.last_heard_ms().unwrap_or(now_ms);
    }
    for (here, facts) in flow.board.partitions() {
        match facts.health {
            Health::Starting | Health::Active => all.active += 1,
            Health::Retrying => all.retrying += 1,
            Health::Diverged => all.diverged += 1,
            Health::Failed => all.failed += 1,
        }
        all.gapped += usize::from(facts.gap.is_some());
        let Some(ends) = facts.ends.filter(|_| facts.source.topic != HEARTBEATS_TOPIC) else {
            continue;
        };
        let have = flow.target.log(here.topic, here.partition);
        let have = have.map_or(0, |log| log.high_watermark);
        let behind = ends.high_watermark - have.max(ends.start);
        if behind > 0 {
            all.lag_records = all.lag_records.saturating_add(behind);
            since_ms = since_ms.min(facts.behind_since_ms);
        }
    }
    for position in flow.board.groups().iter().flat_map(|groups| &groups.positions) {
        *match position.status {
            PositionStatus::Exact => &mut all.positions.exact,
            PositionStatus::Pending => &mut all.positions.pending,
            PositionStatus::OwnedHere => &mut all.positions.owned_here,
            PositionStatus::Unmapped => &mut all.positions.unmapped,
        } += 1;
    }
    all.lag_seconds = now_ms.saturating_sub(since_ms).max(0) as f64 / 1_000.0;
    all
}
