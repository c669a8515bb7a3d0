//! One member's way from what it holds to what it shall hold: revoke first, then take what others have let go.
//!
//! ```text
//!            something to give up                 given up
//!   Stable ----------------------> Unrevoked --------------> next epoch, then as from Stable
//!      |  ^
//!      |  +-- everything that it waits for is free --+
//!      +----- something is still with others ----> Unreleased
//! ```

use std::collections::BTreeMap;

use super::records::{Current, Held, MemberState, Partitions};

use tradewind_wire::ids::TopicId;

/// Where a member goes, and what is known on the way.
pub(super) struct Goal<'a> {
    /// The epoch of the target assignment.
    pub(super) epoch: i32,
    /// The member's part of it.
    pub(super) target: &'a Partitions,
    /// What the member says it holds; `None` if it did not say.
    pub(super) owned: Option<&'a Partitions>,
    /// Whether some member, this one included, still has a partition.
    pub(super) taken: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Goal<'_> {
    /// The member's next step; where it is already if it can make none.
    pub(super) fn step(&self, current: &Current) -> Current {
        match current.state {
            MemberState::Stable if current.epoch == self.epoch => current.clone(),
            MemberState::Unrevoked if self.still_owns(&current.revoking) => current.clone(),
            MemberState::Unrevoked => self.next(current, current.epoch + 1),
            MemberState::Stable | MemberState::Unreleased => self.next(current, current.epoch),
            MemberState::Unknown => self.next(current, self.epoch),
        }
    }

    /// Whether the member holds any of `revoking`, or may do so as far as is known.
    fn still_owns(&self, revoking: &Held) -> bool {
        let Some(owned) = self.owned else { return true };
        owned.iter().any(|(topic, partitions)| {
            let revoking = revoking.get(topic);
            revoking.is_some_and(|revoking| {
                partitions
                    .iter()
                    .any(|partition| revoking.contains_key(partition))
            })
        })
    }

    fn next(&self, current: &Current, epoch: i32) -> Current {
        let (mut assigned, mut revoking) = (Held::new(), Held::new());
        for (topic, partitions) in &current.assigned {
            let target = self.target.get(topic);
            for (partition, since) in partitions {
                let keeps = target.is_some_and(|target| target.contains(partition));
                let into = if keeps { &mut assigned } else { &mut revoking };
                into.entry(*topic).or_default().insert(*partition, *since);
            }
        }
        if !revoking.is_empty() && self.still_owns(&revoking) {
            return at(current, epoch, MemberState::Unrevoked, assigned, revoking);
        }
        let mut waits = false;
        for (topic, partitions) in self.target {
            let held: BTreeMap<i32, i32> = assigned.get(topic).cloned().unwrap_or_default();
            for partition in partitions
                .iter()
                .filter(|partition| !held.contains_key(partition))
            {
                if (self.taken)(*topic, *partition) {
                    waits = true;
                } else {
                    assigned.entry(*topic).or_default().insert(*partition, self.epoch);
                }
            }
        }
        let state = if waits {
            MemberState::Unreleased
        } else {
            MemberState::Stable
        };
        at(current, self.epoch, state, assigned, Held::new())
    }
}

fn at(before: &Current, epoch: i32, state: MemberState, assigned: Held, revoking: Held) -> Current {
    let mut current = Current {
        epoch,
        previous_epoch: before.epoch,
        state,
        assigned,
        revoking,
    };
    // A step that changes nothing else is none.
    let same = Current {
        previous_epoch: before.previous_epoch,
        ..current.clone()
    };
    if same == *before {
        current.previous_epoch = before.previous_epoch;
    }
    current
}
