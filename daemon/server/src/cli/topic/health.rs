//! Which partitions an operator should look at, by Kafka's definitions. Pure: facts in, verdict out.

use std::collections::BTreeSet;

use tradewind_client::PartitionMetadata;
use tradewind_client::admin::Reassignment;

use crate::cli::args::TopicFilter;

/// What is known of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// Its leader and replicas.
    pub(super) partition: &'a PartitionMetadata,
    /// The brokers that are there.
    pub(super) alive: &'a BTreeSet<i32>,
    /// The topic's `min.insync.replicas`, if it was asked for.
    pub(super) min_isr: Option<usize>,
    /// Its move, if it has one.
    pub(super) moving: Option<&'a Reassignment>,
}

impl Facts<'_> {
    /// Whether a replica is out of sync. One that is only coming does not count: it has never been in sync.
    pub(super) fn is_under_replicated(self) -> bool {
        let coming = self.moving.map_or(0, |moving| moving.adding.len());
        self.partition.isr.len() < self.partition.replicas.len().saturating_sub(coming)
    }

    /// Whether nobody can write or read it.
    pub(super) fn is_unavailable(self) -> bool {
        self.partition
            .leader
            .is_none_or(|leader| !self.alive.contains(&leader))
    }

    /// Whether it refuses `acks=all`.
    pub(super) fn is_under_min_isr(self) -> bool {
        let too_few = |min| self.partition.isr.len() < min;
        self.min_isr
            .is_some_and(|min| self.partition.leader.is_none() || too_few(min))
    }

    /// Whether it refuses `acks=all` if one more replica is lost.
    pub(super) fn is_at_min_isr(self) -> bool {
        self.min_isr == Some(self.partition.isr.len())
    }

    /// Whether a filter lets it through: one condition that holds is enough, as with kafka-topics.
    pub(super) fn passes(self, filter: &TopicFilter) -> bool {
        let conditions = [
            (filter.under_replicated, self.is_under_replicated()),
            (filter.unavailable, self.is_unavailable()),
            (filter.under_min_isr, self.is_under_min_isr()),
            (filter.at_min_isr, self.is_at_min_isr()),
        ];
        let mut asked = conditions.iter().filter(|(asked, _)| *asked).peekable();
        asked.peek().is_none() || asked.any(|(_, holds)| *holds)
    }
}

impl TopicFilter {
    /// Whether it asks for partitions that something is wrong with.
    pub(super) fn asks_for_trouble(&self) -> bool {
        self.under_replicated || self.unavailable || self.needs_min_isr()
    }

    /// Whether it cannot be judged without `min.insync.replicas`.
    pub(super) fn needs_min_isr(&self) -> bool {
        self.under_min_isr || self.at_min_isr
    }

    /// Whose topics are wanted: `None` for all, else whether the cluster's own.
    pub(super) fn internal_only(&self) -> Option<bool> {
        match (self.internal, self.exclude_internal) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(leader: Option<i32>, replicas: &[i32], isr: &[i32]) -> PartitionMetadata {
        PartitionMetadata {
            leader,
            leader_epoch: 1,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
        }
    }

    /// under-replicated, unavailable, under min, at min
    fn verdict(partition: &PartitionMetadata, moving: Option<&Reassignment>) -> [bool; 4] {
        let facts = Facts {
            partition,
            alive: &BTreeSet::from([1, 2]),
            min_isr: Some(2),
            moving,
        };
        [
            facts.is_under_replicated(),
            facts.is_unavailable(),
            facts.is_under_min_isr(),
            facts.is_at_min_isr(),
        ]
    }

    #[test]
    fn trouble_is_told_by_kafkas_definitions() {
        let well = partition(Some(1), &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(verdict(&well, None), [false, false, false, false]);
        let one_out = partition(Some(1), &[1, 2, 3], &[1, 2]);
        assert_eq!(verdict(&one_out, None), [true, false, false, true]);
        let two_out = partition(Some(1), &[1, 2, 3], &[1]);
        assert_eq!(verdict(&two_out, None), [true, false, true, false]);
        let leaderless = partition(None, &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(verdict(&leaderless, None), [false, true, true, false]);
        let leader_gone = partition(Some(3), &[1, 2, 3], &[1, 2, 3]);
        assert_eq!(verdict(&leader_gone, None), [false, true, false, false]);
        let moving = Reassignment {
            replicas: vec![1, 2, 3, 4],
            adding: vec![4],
            removing: vec![1],
        };
        let coming = partition(Some(1), &[1, 2, 3, 4], &[1, 2, 3]);
        assert_eq!(verdict(&coming, Some(&moving)), [false, false, false, false]);
    }

    #[test]
    fn a_filter_lets_through_what_meets_any_of_its_conditions() {
        let one_out = partition(Some(1), &[1, 2, 3], &[1, 2]);
        let facts = Facts {
            partition: &one_out,
            alive: &BTreeSet::from([1, 2]),
            min_isr: Some(2),
            moving: None,
        };
        let mut filter = TopicFilter::default();
        assert!(facts.passes(&filter));
        filter.unavailable = true;
        assert!(!facts.passes(&filter));
        filter.at_min_isr = true;
        assert!(facts.passes(&filter));
    }
}
