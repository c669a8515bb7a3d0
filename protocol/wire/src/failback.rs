//! Coming back after a failover: the words that the two clusters share about a lost primary that returns.
//!
//! The *target* of the flow, which was promoted by a failover, holds a [`Failback`] with its flow. The lost *source* holds
//! a [`RegionMove`](crate::region::RegionMove) like that of a switchover, in states of its own, and in it what became of
//! the records that never arrived ([`Tails`]).
//!
//! ```text
//! target:  Telling -> GaveWay           by itself, from the failover on
//!                       `-> Rescuing -> Lowering -> Done       only when an operator asks for it
//! source:  (free) -> GaveWay -> Rescuing -> Rescued -> Moved   writes and commits are refused from GaveWay on;
//!                                                              nothing is removed before Moved
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::flow::{FlowSource, FlowSpec};
use crate::ids::TopicId;

/// What the names of topics begin with that keep a divergent tail: `__diverged.<topic id>.<region epoch>`.
pub const RESCUE_PREFIX: &str = "__diverged.";

/// How many lowered positions are remembered one by one.
pub const MAX_LOWERED: usize = 1_000;

/// How many source epochs below a cut are compared, at most: the newest.
pub const MAX_HISTORY: usize = 16;

/// How often a failover gets a higher region epoch than it began with. One is enough for whoever tells what it has; a source
/// that refuses any number is lying.
pub const MAX_RAISES: u32 = 8;

/// What the target of a failed-over flow knows of its lost source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failback {
    /// The index of the entry that began the failover.
    pub attempt: u64,
    /// How far it is.
    pub step: FailbackStep,
    /// The region epoch that the failover gave to the flow's topics.
    pub region_epoch: u64,
    /// The highest region epoch that both sides have known, when it began or since: a failover of the source the other way
    /// need only be above this one. None: it was begun by an earlier version.
    #[serde(default)]
    pub floor: Option<u64>,
    /// How often the region epoch was raised since, because the source had a higher one; at most [`MAX_RAISES`].
    #[serde(default)]
    pub raised: u32,
    /// When the source was known to have given way, in ms since the epoch.
    #[serde(default)]
    pub gave_way_ms: Option<i64>,
    /// How long the source took over it, in ms: from the question to the committed and applied fence, by its own clock.
    #[serde(default)]
    pub gave_way_took_ms: Option<i64>,
    /// The topics that gave way, by id *there*.
    #[serde(default)]
    pub topics: Vec<TopicId>,
    /// When an operator asked for the way back.
    #[serde(default)]
    pub begun_ms: Option<i64>,
    /// What the source kept of each topic, by id there.
    #[serde(default)]
    pub tails: BTreeMap<TopicId, Tails>,
    /// Positions of groups at the source that come down to the cut: the first [`MAX_LOWERED`] of them.
    #[serde(default)]
    pub lowered: Vec<LoweredPosition>,
    /// How many positions come down.
    #[serde(default)]
    pub lowered_total: u64,
    /// When it was done.
    #[serde(default)]
    pub ended_ms: Option<i64>,
}

/// How far a failback is at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailbackStep {
    /// The source is to be told that clients write here: it has not confirmed it yet.
    Telling,
    /// The source takes neither writes nor commits on these topics. It waits for an operator.
    GaveWay,
    /// The source copies what never arrived here.
    Rescuing,
    /// All of it is kept. Positions of groups at the source come down; then its logs are cut and it mirrors.
    Lowering,
    /// The source is a mirror of this cluster.
    Done,
}

impl Failback {
    /// Whether the declaration `known` of the flow must not become `given` yet: while the lost source is still to be told or brought
    /// back, the naming and the kind of source stay, for by these it is reached, and these the flow back gets.
    pub fn bars(&self, known: &FlowSpec, given: &FlowSpec) -> bool {
        let kind = |spec: &FlowSpec| matches!(spec.source, FlowSource::Mesh(_));
        self.step != FailbackStep::Done && (known.naming != given.naming || kind(known) != kind(given))
    }
}

impl FailbackStep {
    /// Whether the daemons have something to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Telling | Self::Rescuing | Self::Lowering)
    }

    /// Its name, as it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Telling => "telling",
            Self::GaveWay => "gave-way",
            Self::Rescuing => "rescuing",
            Self::Lowering => "lowering",
            Self::Done => "done",
        }
    }
}

/// What one partition of the target has of the source's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The first offset that is not the source's.
    pub cut: i64,
    /// Below it: source leader epochs with the first offset of each, rising; the newest [`MAX_HISTORY`]. A negative epoch
    /// stands for records that a switchover had agreed on.
    pub epochs: Vec<(i32, i64)>,
}

impl History {
    /// Where this history and another one part, whose leader epochs end where `ends` says (as OffsetForLeaderEpoch does: the
    /// largest epoch that is not above the asked one, and its end) and whose log ends at `end`. At most the cut and `end`.
    ///
    /// Epochs that both sides know are taken as equal up to the lower of their ends (KIP-101); batches are not compared.
    pub fn fork(&self, end: i64, ends: impl Fn(i32) -> Option<(i32, i64)>) -> i64 {
        let mut bound = self.cut.min(end);
        for (epoch, first) in self.epochs.iter().rev() {
            if *epoch < 0 {
                return bound;
            }
            match ends(*epoch) {
                Some((known, its_end)) if known == *epoch => return bound.min(its_end),
                _ => bound = bound.min(*first),
            }
        }
        bound
    }
}

/// What the returned source knows of one of its topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tails {
    /// The topic that keeps the records above the cuts; none if there are none.
    pub rescue: Option<Rescue>,
    /// One per partition.
    pub partitions: Vec<Tail>,
}

/// A topic that keeps what another one lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
}

/// One partition of [`Tails`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// What the target has.
    pub history: History,
    /// What was found and kept, once it is committed.
    pub kept: Option<Kept>,
}

/// What one partition had that the target has not. All of it is committed and flushed in the rescue topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where the two histories part: what follows is removed.
    pub cut: i64,
    /// Where the log ended.
    pub end: i64,
    /// How many records lay between.
    pub records: u64,
    /// Their batches' bytes.
    pub bytes: u64,
    /// Whether everything is to be copied anew, because the topic is compacted: its cleaner may have removed records below
    /// the cut for the sake of those above.
    #[serde(default)]
    pub anew: bool,
}

impl Kept {
    /// From where on records are to be removed; none if nothing is.
    pub fn removed_from(&self) -> Option<i64> {
        (self.cut < self.end).then_some(if self.anew { 0 } else { self.cut })
    }
}

/// A group's position that comes down to a cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoweredPosition {
    /// The group.
    pub group: String,
    /// The topic's name at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where it stood.
    pub before: i64,
    /// Where it stands: at the cut.
    pub after: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log as the epochs of its offsets, from zero on.
    fn ends(log: &[i32], asked: i32) -> Option<(i32, i64)> {
        let known = log.iter().copied().filter(|epoch| *epoch <= asked).max()?;
        let end = log.iter().position(|epoch| *epoch > asked).unwrap_or(log.len());
        Some((known, end as i64))
    }

    fn history(log: &[i32]) -> History {
        let mut epochs: Vec<(i32, i64)> = Vec::new();
        for (offset, epoch) in (0..).zip(log) {
            if epochs.last().is_none_or(|(last, _)| last != epoch) {
                epochs.push((*epoch, offset));
            }
        }
        History {
            cut: log.len() as i64,
            epochs,
        }
    }

    #[test]
    fn what_was_agreed_is_not_compared() {
        let agreed = History {
            cut: 9,
            epochs: vec![(-1, 0)],
        };
        assert_eq!(agreed.fork(20, |_| None), 9);
        assert_eq!(agreed.fork(5, |_| None), 5);
    }

    proptest! {
        /// One leader per epoch: two logs agree on an epoch up to the lower of its ends. Both begin alike and go on apart.
        #[test]
        fn histories_part_where_their_logs_do(
            common in proptest::collection::vec(0..3i32, 0..8),
            here in proptest::collection::vec(0..3i32, 0..6),
            there in proptest::collection::vec(0..3i32, 0..6),
        ) {
            let sums = |from: i32, steps: &[i32], odd: i32| -> Vec<i32> {
                let mut epoch = from;
                steps.iter().map(|step| { epoch += 2 * step; epoch + odd }).collect()
            };
            let both = sums(0, &common, 0);
            let last = both.last().copied().unwrap_or(0);
            // After the fork the epochs of one side are even and above, those of the other odd.
            let mut ours = both.clone();
            ours.extend(sums(last + 2, &here, 0));
            let mut theirs = both.clone();
            theirs.extend(sums(last + 2, &there, 1));
            let fork = history(&ours).fork(theirs.len() as i64, |asked| ends(&theirs, asked));
            prop_assert_eq!(fork, both.len() as i64);
        }
    }
}
