//! What a leader knows of its partition's copies, and what follows from it: the high watermark and the in-sync set.
//!
//! Plain values in, decisions out; no log, no clock, no network. Invariants, from `cluster.md`:
//! - the high watermark is the smallest ack offset over the *maximal* in-sync set (committed and proposed), the leader's
//!   own included; it never falls within a leader epoch and stands still while the committed set is below
//!   min(`min.insync.replicas`, replication factor);
//! - a follower joins only at or past both the high watermark and this epoch's start offset;
//! - a proposal of unknown outcome stays in the maximal set until the image or a definite refusal resolves it.

use std::collections::BTreeMap;

use tradewind_wire::ids::NodeId;

use crate::bugs::{self, Bug};

/// The leader's view of one partition within one leader epoch.
#[derive(Debug)]
pub(crate) struct Leadership {
    /// The leader epoch.
    pub(crate) epoch: i32,
    /// The log's end when this epoch began here.
    pub(crate) epoch_start: i64,
    /// This daemon.
    own: NodeId,
    own_ack: i64,
    min_in_sync: usize,
    /// The committed in-sync set and the partition epoch that it belongs to.
    in_sync: Vec<NodeId>,
    partition_epoch: i32,
    /// The in-sync set that this leader has asked for and not yet seen decided.
    proposed: Option<Vec<NodeId>>,
    followers: BTreeMap<NodeId, Follower>,
    high_watermark: i64,
    /// Where the log must begin at the latest on whoever may lead next.
    start_floor: i64,
}

/// One follower as its leader sees it.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    /// The end of what it has made as durable as the topic asks; -1 until it said so in this epoch.
    pub(crate) ack: i64,
    /// The registration under which it follows; 0 until it opened a session.
    pub(crate) daemon_epoch: i64,
    /// When it last had everything, in the caller's milliseconds.
    pub(crate) caught_up_ms: i64,
    /// It said that it cannot append.
    pub(crate) failed: bool,
    /// Its log start, as far as it survives a crash there; -1 until it said so.
    pub(crate) log_start: i64,
}

/// What a partition's image says, as far as leadership depends on it.
#[derive(Debug, Clone)]
pub(crate) struct Assignment<'a> {
    pub(crate) replicas: &'a [NodeId],
    pub(crate) in_sync: &'a [NodeId],
    pub(crate) partition_epoch: i32,
    /// As configured.
    pub(crate) min_in_sync: usize,
    /// No more can be asked to be in sync.
    pub(crate) steady_replicas: usize,
}

impl Leadership {
    /// Leadership of `own` from `epoch` on. `high_watermark` is what this daemon last knew, never above `end`.
    pub(crate) fn new(
        own: NodeId,
        epoch: i32,
        end: i64,
        own_ack: i64,
        high_watermark: i64,
        assignment: &Assignment<'_>,
        now_ms: i64,
    ) -> Self {
        let mut leadership = Self {
            epoch,
            epoch_start: end,
            own,
            own_ack,
            min_in_sync: 1,
            in_sync: Vec::new(),
            partition_epoch: i32::MIN,
            proposed: None,
            followers: BTreeMap::new(),
            high_watermark: high_watermark.min(end),
            start_floor: i64::MIN,
        };
        leadership.assign(assignment, now_ms);
        leadership
    }

    /// Takes over what the image says within the same leader epoch. A changed partition epoch resolves any proposal.
    pub(crate) fn assign(&mut self, assignment: &Assignment<'_>, now_ms: i64) {
        self.min_in_sync = assignment.min_in_sync.clamp(1, assignment.steady_replicas.max(1));
        if assignment.partition_epoch != self.partition_epoch {
            self.partition_epoch = assignment.partition_epoch;
            self.in_sync = assignment.in_sync.to_vec();
            self.proposed = None;
        }
        self.followers
            .retain(|node, _| assignment.replicas.contains(node));
        for node in assignment.replicas.iter().filter(|node| **node != self.own) {
            self.followers.entry(*node).or_insert(Follower {
                ack: -1,
                daemon_epoch: 0,
                caught_up_ms: now_ms,
                failed: false,
                log_start: -1,
            });
        }
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    pub(crate) fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    pub(crate) fn in_sync(&self) -> &[NodeId] {
        &self.in_sync
    }

    pub(crate) fn follower(&self, node: NodeId) -> Option<&Follower> {
        self.followers.get(&node)
    }

    /// Whether writes with acks=all are allowed: the committed set is large enough.
    pub(crate) fn enough_in_sync(&self) -> bool {
        self.in_sync.len() >= self.min_in_sync
    }

    /// The leader's own copy reaches `ack`. Returns whether the high watermark moved.
    pub(crate) fn own_ack(&mut self, ack: i64) -> bool {
        self.own_ack = self.own_ack.max(ack);
        self.advance()
    }

    /// The log grew from `old_end` at `now_ms`: whoever had everything until now had it at `now_ms`.
    pub(crate) fn grew(&mut self, old_end: i64, now_ms: i64) {
        for follower in self.followers.values_mut() {
            if follower.ack >= old_end {
                follower.caught_up_ms = now_ms;
            }
        }
    }

    /// A follower opened a session: what it said in an earlier one counts no more.
    pub(crate) fn session_opened(&mut self, node: NodeId, daemon_epoch: i64) {
        if let Some(follower) = self.followers.get_mut(&node) {
            // Within an epoch a follower's log only grows, so the ack of the same registration still holds.
            if follower.daemon_epoch != daemon_epoch {
                follower.ack = -1;
                follower.log_start = -1;
            }
            follower.daemon_epoch = daemon_epoch;
            follower.failed = false;
        }
    }

    /// A follower's copy reaches `ack` while the log ends at `end`. Returns whether the high watermark moved.
    pub(crate) fn follower_ack(&mut self, node: NodeId, ack: i64, end: i64, now_ms: i64) -> bool {
        let Some(follower) = self.followers.get_mut(&node) else {
            return false;
        };
        follower.ack = follower.ack.max(ack.min(end));
        if follower.ack >= end {
            follower.caught_up_ms = now_ms;
        }
        self.advance()
    }

    /// A follower's log begins at `log_start` now, and will after a crash. Returns whether that is news.
    pub(crate) fn follower_start(&mut self, node: NodeId, log_start: i64) -> bool {
        match self.followers.get_mut(&node) {
            Some(follower) if follower.log_start < log_start => {
                follower.log_start = log_start;
                true
            }
            _ => false,
        }
    }

    /// From now on only a copy whose log begins at `offset` or later may join the in-sync set: one that began earlier
    /// would, as the next leader, show records again that were deleted.
    pub(crate) fn hold_start(&mut self, offset: i64) {
        self.start_floor = self.start_floor.max(offset);
    }

    /// The earliest log start among the copies that may lead next, `own` being this daemon's.
    pub(crate) fn low_watermark(&self, own: i64) -> i64 {
        let maximal = self.in_sync.iter().chain(self.proposed.iter().flatten());
        let starts = maximal.filter_map(|node| self.followers.get(node));
        starts.map(|follower| follower.log_start).fold(own, i64::min)
    }

    /// A follower cannot append any more.
    pub(crate) fn follower_failed(&mut self, node: NodeId) {
        if let Some(follower) = self.followers.get_mut(&node) {
            follower.failed = true;
        }
    }

    /// Recomputes the high watermark; returns whether it moved.
    pub(crate) fn advance(&mut self) -> bool {
        if !self.enough_in_sync() {
            return false;
        }
        let maximal = self.in_sync.iter().chain(self.proposed.iter().flatten());
        let others = self.in_sync.iter().any(|node| *node != self.own);
        let own_ack = if bugs::has(Bug::WatermarkWithoutOwnFlush) && others {
            i64::MAX
        } else {
            self.own_ack
        };
        let reached = maximal
            .map(|node| match self.followers.get(node) {
                Some(follower) => follower.ack,
                None if *node == self.own => own_ack,
                None => -1,
            })
            .min()
            .unwrap_or(-1)
            .min(own_ack);
        let moved = reached > self.high_watermark;
        self.high_watermark = self.high_watermark.max(reached);
        moved
    }

    /// The in-sync set that the leader wants, if it differs from the committed one and nothing is pending.
    ///
    /// `end` is the log's end, `lag_max_ms` is `replica.lag.time.max.ms`. Only who `may_be_in` is added: a dead follower of an
    /// idle partition has everything, and a set that names it is refused whole, for all others who join.
    pub(crate) fn wanted(
        &self,
        end: i64,
        now_ms: i64,
        lag_max_ms: i64,
        may_be_in: impl Fn(NodeId) -> bool,
    ) -> Option<Vec<NodeId>> {
        if self.proposed.is_some() {
            return None;
        }
        let stays = |node: NodeId| match self.followers.get(&node) {
            None => node == self.own,
            Some(follower) => {
                let lags = follower.ack < end && now_ms - follower.caught_up_ms > lag_max_ms;
                !follower.failed && !lags
            }
        };
        let mut wanted: Vec<NodeId> = self.in_sync.iter().copied().filter(|node| stays(*node)).collect();
        for (node, follower) in &self.followers {
            if !self.in_sync.contains(node) && self.may_join(follower) && may_be_in(*node) {
                wanted.push(*node);
            }
        }
        wanted.sort_unstable();
        let mut committed = self.in_sync.clone();
        committed.sort_unstable();
        (wanted != committed && !wanted.is_empty()).then_some(wanted)
    }

    fn may_join(&self, follower: &Follower) -> bool {
        !follower.failed
            && follower.ack >= self.high_watermark
            && (follower.ack >= self.epoch_start || bugs::has(Bug::JoinBelowEpochStart))
            && follower.log_start >= self.start_floor
    }

    /// Whether some follower could join or has failed; needs no clock, so it is asked on every ack.
    pub(crate) fn may_change(&self) -> bool {
        self.proposed.is_none()
            && self
                .followers
                .iter()
                .any(|(node, follower)| match self.in_sync.contains(node) {
                    true => follower.failed,
                    false => self.may_join(follower),
                })
    }

    /// The leader sends `set` to the controller.
    pub(crate) fn propose(&mut self, set: Vec<NodeId>) {
        self.proposed = Some(set);
    }

    /// The controller refused the proposal for good; the image is what counts.
    pub(crate) fn proposal_refused(&mut self) -> bool {
        self.proposed = None;
        self.advance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICAS: [NodeId; 3] = [1, 2, 3];

    fn assignment(in_sync: &[NodeId], partition_epoch: i32) -> Assignment<'_> {
        Assignment {
            replicas: &REPLICAS,
            in_sync,
            partition_epoch,
            min_in_sync: 2,
            steady_replicas: 3,
        }
    }

    fn leader(in_sync: &[NodeId]) -> Leadership {
        Leadership::new(1, 5, 10, 10, 4, &assignment(in_sync, 1), 0)
    }

    #[test]
    fn the_watermark_is_the_slowest_in_sync_copy() {
        let mut l = leader(&[1, 2, 3]);
        assert!(!l.follower_ack(2, 10, 10, 1));
        assert!(l.follower_ack(3, 8, 10, 1));
        assert_eq!(l.high_watermark(), 8);
    }

    #[test]
    fn the_leaders_own_flush_counts() {
        let mut l = Leadership::new(1, 5, 10, 6, 4, &assignment(&[1, 2], 1), 0);
        l.follower_ack(2, 10, 10, 1);
        assert_eq!(l.high_watermark(), 6);
        assert!(l.own_ack(10));
        assert_eq!(l.high_watermark(), 10);
    }

    #[test]
    fn below_min_in_sync_the_watermark_stands_still() {
        let mut l = leader(&[1]);
        assert!(!l.own_ack(10));
        assert_eq!(l.high_watermark(), 4);
        assert!(!l.enough_in_sync());
    }

    #[test]
    fn a_proposed_member_holds_the_watermark_back() {
        let mut l = leader(&[1, 2]);
        l.follower_ack(2, 10, 10, 1);
        l.propose(vec![1, 2, 3]);
        l.own_ack(20);
        l.follower_ack(2, 20, 20, 1);
        assert_eq!(
            l.high_watermark(),
            10,
            "follower 3 may already be in the committed set"
        );
        l.proposal_refused();
        assert_eq!(l.high_watermark(), 20);
    }

    #[test]
    fn a_follower_joins_only_past_the_epoch_start() {
        let mut l = leader(&[1, 2]);
        l.follower_ack(3, 9, 10, 1);
        assert_eq!(
            l.wanted(10, 1, 1000, |_| true),
            None,
            "9 is past the watermark 4 but below the epoch start 10"
        );
        l.follower_ack(3, 10, 10, 1);
        assert_eq!(l.wanted(10, 1, 1000, |_| true), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_dead_follower_that_has_everything_keeps_nobody_else_out() {
        let mut l = leader(&[1]);
        l.follower_ack(2, 10, 10, 1);
        l.follower_ack(3, 10, 10, 1);
        assert_eq!(l.wanted(10, 1, 1000, |node| node != 2), Some(vec![1, 3]));
        assert_eq!(l.wanted(10, 1, 1000, |_| false), None);
    }

    #[test]
    fn a_lagging_follower_leaves_and_an_idle_one_stays() {
        let mut l = leader(&[1, 2, 3]);
        l.follower_ack(2, 10, 10, 100);
        l.follower_ack(3, 10, 10, 100);
        assert_eq!(l.wanted(10, 50_000, 1000, |_| true), None, "idle is not late");
        l.grew(10, 50_000);
        l.follower_ack(2, 20, 20, 50_100);
        assert_eq!(l.wanted(20, 50_900, 1000, |_| true), None);
        assert_eq!(l.wanted(20, 51_200, 1000, |_| true), Some(vec![1, 2]));
    }

    #[test]
    fn a_failed_follower_leaves_at_once() {
        let mut l = leader(&[1, 2, 3]);
        l.follower_failed(3);
        assert_eq!(l.wanted(10, 1, 1000, |_| true), Some(vec![1, 2]));
    }

    #[test]
    fn the_low_watermark_is_that_of_the_copies_that_may_lead_next() {
        let mut l = leader(&[1, 2]);
        assert_eq!(l.low_watermark(7), -1, "follower 2 has not said");
        assert!(l.follower_start(2, 5));
        assert!(!l.follower_start(2, 5), "no news");
        assert_eq!(l.low_watermark(7), 5, "follower 3 does not count");
        l.propose(vec![1, 2, 3]);
        assert_eq!(l.low_watermark(7), -1, "it may be in the committed set already");
        l.follower_start(3, 9);
        assert_eq!(l.low_watermark(4), 4);
    }

    #[test]
    fn a_copy_that_still_has_deleted_records_does_not_join() {
        let mut l = leader(&[1, 2]);
        l.hold_start(6);
        l.follower_ack(3, 10, 10, 1);
        assert_eq!(l.wanted(10, 1, 1000, |_| true), None);
        l.follower_start(3, 6);
        assert_eq!(l.wanted(10, 1, 1000, |_| true), Some(vec![1, 2, 3]));
        l.session_opened(3, 8);
        l.follower_ack(3, 10, 10, 1);
        assert_eq!(
            l.wanted(10, 1, 1000, |_| true),
            None,
            "a new registration must say it anew"
        );
    }

    #[test]
    fn an_image_change_resolves_the_proposal() {
        let mut l = leader(&[1, 2]);
        l.follower_ack(2, 10, 10, 1);
        l.follower_ack(3, 10, 10, 1);
        l.propose(vec![1, 2, 3]);
        l.assign(&assignment(&[1, 2], 1), 2);
        assert_eq!(
            l.wanted(10, 2, 1000, |_| true),
            None,
            "same partition epoch: still undecided"
        );
        l.assign(&assignment(&[1, 2], 2), 2);
        assert_eq!(
            l.wanted(10, 2, 1000, |_| true),
            Some(vec![1, 2, 3]),
            "asked anew under the new partition epoch"
        );
    }
}
