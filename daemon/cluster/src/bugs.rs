//! Mistakes that others have made in this place, put back by the feature `known-bugs` to see whether the simulation finds
//! them (`docs/internals/simulation.md` says which it does).
//!
//! Without the feature, as in every daemon, nobody has any, and the compiler removes the questions.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The high watermark does not wait for the leader's own flush.
    WatermarkWithoutOwnFlush,
    /// A follower joins the in-sync set although it lacks what the leader had when its epoch began.
    JoinBelowEpochStart,
    /// Nobody compares leader epochs: a follower keeps the stream of a leader that was replaced and takes its records, and
    /// acknowledgements count for whichever epoch.
    LeaderWithoutFencing,
    /// A follower cuts its log at its own high watermark before it follows a new leader (what KIP-101 ended).
    TruncateToWatermark,
    /// The controller takes in-sync sets without looking at the partition epoch and at the members' daemon epochs.
    InSyncWithoutEpochs,
    /// A leader that comes back leads again under its old epoch, although it may have lost a tail.
    SameEpochAgain,
    /// A push stream rests while its leader does not lead, and goes on in the epoch in which it leads again, without
    /// comparing the logs again.
    StreamSurvivesEpoch,
    /// The controller elects when it decides to fence, on an image that entries under way may already have changed, instead
    /// of leaving the election to those who apply the entry.
    ElectionOnStaleImage,
    /// A log goes on to know a producer's batches after they were cut off: a repeat counts as a duplicate of nothing.
    ProducersSurviveTruncation,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::WatermarkWithoutOwnFlush,
        Self::JoinBelowEpochStart,
        Self::LeaderWithoutFencing,
        Self::TruncateToWatermark,
        Self::InSyncWithoutEpochs,
        Self::SameEpochAgain,
        Self::StreamSurvivesEpoch,
        Self::ElectionOnStaleImage,
        Self::ProducersSurviveTruncation,
    ];
}

#[cfg(feature = "known-bugs")]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on the daemons on this thread have this mistake.
#[cfg(feature = "known-bugs")]
pub fn put_back(bug: Bug) {
    if bug == Bug::ProducersSurviveTruncation {
        tradewind_log::bugs::let_producers_survive();
    }
    PRESENT.set(Some(bug));
}

#[cfg(feature = "known-bugs")]
pub(crate) fn has(bug: Bug) -> bool {
    PRESENT.get() == Some(bug)
}

#[cfg(not(feature = "known-bugs"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Elections that were decided too early, for [`Bug::ElectionOnStaleImage`]. All daemons of a simulation share them, as if
/// the fencing entry carried them.
#[cfg(feature = "known-bugs")]
mod early {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use tradewind_wire::ids::{NodeId, TopicId};

    use super::{Bug, has};
    use crate::apply::{Position, apply};
    use crate::command::Command;
    use crate::image::{Image, Partition};

    /// Daemon, its epoch, its session.
    type Fence = (NodeId, i64, i64);
    /// Partitions as they are to be.
    type Decided = BTreeMap<(TopicId, i32), Partition>;

    thread_local! {
        /// With the controller's term.
        static DECIDED: RefCell<BTreeMap<Fence, (u64, Decided)>> = RefCell::default();
    }

    /// Decides what fencing changes as if nothing were under way.
    pub(crate) fn decide(image: &Image, command: &Command) {
        let Command::Fence {
            node,
            daemon_epoch,
            session,
            term,
        } = command
        else {
            return;
        };
        if !has(Bug::ElectionOnStaleImage) {
            return;
        }
        let at = Position {
            index: image.index + 1,
            term: image.term,
        };
        let (next, _) = apply(image, at, command);
        let mut decided = BTreeMap::new();
        for (id, topic) in &next.topics {
            for (number, partition) in (0..).zip(&topic.partitions) {
                if image.partition(*id, number) != Some(partition) {
                    decided.insert((*id, number), partition.clone());
                }
            }
        }
        let fence = (*node, *daemon_epoch, *session);
        // The first entry of a term that fences is the one that is applied.
        DECIDED.with_borrow_mut(|all| {
            if all.get(&fence).is_none_or(|(decided_in, _)| decided_in != term) {
                all.insert(fence, (*term, decided));
            }
        });
    }

    /// What was decided for this fencing entry.
    pub(crate) fn decided(fence: Fence) -> Decided {
        if !has(Bug::ElectionOnStaleImage) {
            return BTreeMap::new();
        }
        let decided = DECIDED.with_borrow(|all| all.get(&fence).cloned());
        decided.unwrap_or_default().1
    }
}

#[cfg(feature = "known-bugs")]
pub(crate) use early::{decide, decided};
