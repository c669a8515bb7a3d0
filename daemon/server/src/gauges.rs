//! Gauges that are made from the metadata and not kept: when somebody asks for metrics, and at no other time.
//!
//! What they say of the cluster, every daemon says of all of it, as of the metadata that it has applied.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tradewind_cluster::Cluster;
use tradewind_cluster::image::{FlowState, Image, Topic};
use tradewind_cluster::overview::Overview;
use tradewind_wire::drill::DrillNote;
use tradewind_wire::ids::NodeId;

use crate::metrics;

/// The states of a flow, as they are written in metrics.
const FLOW_STATES: [(FlowState, &str); 5] = [
    (FlowState::Active, "active"),
    (FlowState::Paused, "paused"),
    (FlowState::SwitchingOver, "switching-over"),
    (FlowState::FailingOver, "failing-over"),
    (FlowState::Promoted, "promoted"),
];

/// Which flows were told of: an exporter forgets nothing by itself, so what is gone must be set to 0.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    flows: Mutex<BTreeSet<String>>,
}

/// What of the metadata is measured.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Topics, partitions, and how many of them lack what.
    pub(crate) overview: Overview,
    /// Topics that clients may not write, because another cluster has them or is about to.
    pub(crate) fenced_topics: usize,
    /// Partitions led here, replicas here, and those of them that are out of sync.
    pub(crate) here: [usize; 3],
}

/// A flow's last drill that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LastDrill {
    /// When it ended, in seconds since the epoch.
    pub(crate) ended_seconds: f64,
    /// Whether all was as it should be.
    pub(crate) passed: bool,
    /// How long it took until the last partition took a record.
    pub(crate) rto_seconds: f64,
}

impl Gauges {
    /// Sets them from what is applied here now.
    pub(crate) fn publish(&self, cluster: &Cluster) {
        let image = cluster.image();
        metrics::metadata(&measured(
            &image,
            cluster.metadata().controller(),
            cluster.node_id(),
        ));
        let mut told = self.flows.lock();
        for gone in told.iter().filter(|name| !image.flows.contains_key(*name)) {
            metrics::flow(gone, FLOW_STATES.map(|(_, word)| (word, false)), None);
        }
        for flow in image.flows.values() {
            let states = FLOW_STATES.map(|(state, word)| (word, state == flow.state));
            metrics::flow(&flow.name, states, last_drill(&flow.drills));
        }
        *told = image.flows.keys().cloned().collect();
    }
}

fn measured(image: &Image, controller: Option<NodeId>, own: NodeId) -> Measured {
    let overview = Overview::of(image, controller, None);
    let here = overview.daemons.iter().find(|daemon| daemon.id == own);
    Measured {
        fenced_topics: image.topics.values().filter(|topic| is_fenced(topic)).count(),
        here: here.map_or([0; 3], |daemon| {
            [daemon.leaders, daemon.replicas, daemon.out_of_sync]
        }),
        overview,
    }
}

fn is_fenced(topic: &Topic) -> bool {
    topic.fence.is_some() && !topic.is_mirroring()
}

fn last_drill(drills: &[DrillNote]) -> Option<LastDrill> {
    let end = drills.iter().rev().find_map(|drill| drill.end.as_ref())?;
    Some(LastDrill {
        ended_seconds: end.at_ms as f64 / 1_000.0,
        passed: end.passed,
        rto_seconds: end.rto_ms as f64 / 1_000.0,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tradewind_cluster::image::Partition;
    use tradewind_wire::drill::DrillEnd;
    use tradewind_wire::ids::TopicId;
    use tradewind_wire::region::TopicFence;

    use super::*;

    #[test]
    fn what_is_amiss_is_counted() {
        let partition = |leader: Option<NodeId>, isr: &[NodeId]| Partition {
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            leader,
            ..Partition::default()
        };
        let mut image = Image::default();
        image.members.extend([1, 2, 3]);
        let topic = Topic {
            id: TopicId([1; 16]),
            name: "orders".to_owned(),
            configs: [].into(),
            mirror: None,
            internal: false,
            partitions: vec![
                partition(Some(1), &[1, 2, 3]),
                partition(Some(2), &[2]),
                partition(None, &[3]),
            ],
            fence: Some(TopicFence {
                flow: "east->west".to_owned(),
                groups: false,
                gone: false,
            }),
        };
        image.topics.insert(topic.id, Arc::new(topic));
        let found = measured(&image, Some(1), 2);
        let overview = &found.overview;
        assert_eq!((overview.topics, overview.partitions), (1, 3));
        assert_eq!((overview.leaderless, overview.under_replicated), (1, 2));
        assert_eq!(found.here, [1, 3, 1]);
        assert_eq!(found.fenced_topics, 1);
    }

    #[test]
    fn the_last_drill_is_the_last_that_ended() {
        let note = |begun_ms: i64, end: Option<DrillEnd>| DrillNote {
            id: TopicId([2; 16]),
            node: 1,
            begun_ms,
            index: 5,
            end,
        };
        let end = DrillEnd {
            at_ms: 7_500,
            passed: true,
            rpo_records: Some(0),
            rpo_ms: Some(0),
            rto_ms: 1_250,
            groups: (3, 3),
            partitions: 4,
            failure: None,
        };
        assert_eq!(last_drill(&[note(6_000, None)]), None);
        let expected = LastDrill {
            ended_seconds: 7.5,
            passed: true,
            rto_seconds: 1.25,
        };
        assert_eq!(
            last_drill(&[note(6_000, Some(end)), note(9_000, None)]),
            Some(expected)
        );
    }
}
