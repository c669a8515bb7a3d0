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
    /// Acknowledgements and pushed records count whichever leader epoch they belong to.
    LeaderWithoutFencing,
    /// A follower cuts its log at its own high watermark before it follows a new leader (what KIP-101 ended).
    TruncateToWatermark,
    /// The controller takes in-sync sets without looking at the partition epoch and at the members' daemon epochs.
    InSyncWithoutEpochs,
    /// A leader that comes back leads again under its old epoch, although it may have lost a tail.
    SameEpochAgain,
    /// A push stream goes on when the leader epoch changes, without comparing the logs again.
    StreamSurvivesEpoch,
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
    ];
}

#[cfg(feature = "known-bugs")]
thread_local! {
    static PRESENT: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on the daemons on this thread have this mistake.
#[cfg(feature = "known-bugs")]
pub fn put_back(bug: Bug) {
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
