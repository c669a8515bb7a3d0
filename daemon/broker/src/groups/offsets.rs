//! The committed positions of one group, and who may change which.
//!
//! A position is visible once its record is committed; between its append and that moment it is *pending*. Whether a
//! mirror may write is decided against the newest of the two, so that a client's commit in flight is never overwritten.
//! Records are applied in the order of their offsets in the log, whatever order their acknowledgements come in.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{MirroredFrom, OffsetValue};

/// The positions of one group.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, Slot>>,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    committed: Option<Written>,
    pending: Option<Written>,
}

#[derive(Debug, Clone)]
struct Written {
    /// Where its record stands in `__consumer_offsets`.
    at: i64,
    value: OffsetValue,
}

/// What a flow wants to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredCommit {
    /// The topic's name here.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that clients here are to see.
    pub offset: i64,
    /// The group's own metadata, as at the source.
    pub metadata: String,
    /// Who writes it and why.
    pub mark: MirroredFrom,
}

/// What became of a [`MirroredCommit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirroredStatus {
    /// It is stored.
    Written,
    /// Exactly this was stored already.
    Unchanged,
    /// The group is in use here: it has committed by itself, a member is subscribed, or another flow writes it.
    OwnedHere,
    /// A newer version of this flow's is stored.
    Outdated,
}

impl Offsets {
    /// Whether nothing is stored or about to be.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The committed position of a partition.
    pub fn committed(&self, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.topics
            .get(topic)?
            .get(&partition)?
            .committed
            .as_ref()
            .map(|written| &written.value)
    }

    /// All committed positions, by topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &OffsetValue)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions.iter().filter_map(move |(partition, slot)| {
                slot.committed
                    .as_ref()
                    .map(|written| (topic.as_str(), *partition, &written.value))
            })
        })
    }

    /// Topic and partition of everything that stands in the log, committed or about to be.
    pub fn keys(&self) -> impl Iterator<Item = (&str, i32)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .keys()
                .map(move |partition| (topic.as_str(), *partition))
        })
    }

    /// The partitions of `topic` that stand in the log, committed or about to be.
    pub fn partitions_of(&self, topic: &str) -> Vec<i32> {
        let partitions = self.topics.get(topic);
        partitions
            .map(|all| all.keys().copied().collect())
            .unwrap_or_default()
    }

    fn slot(&mut self, topic: &str, partition: i32) -> &mut Slot {
        let partitions = self.topics.entry(topic.to_owned()).or_default();
        partitions.entry(partition).or_default()
    }

    /// A record was appended at `at`; nobody sees it yet.
    pub fn begin(&mut self, topic: &str, partition: i32, at: i64, value: OffsetValue) {
        let slot = self.slot(topic, partition);
        slot.pending = Some(Written { at, value });
    }

    /// The record at `at` is committed and holds `value`.
    pub fn apply(&mut self, topic: &str, partition: i32, at: i64, value: OffsetValue) {
        let slot = self.slot(topic, partition);
        if slot.committed.as_ref().is_none_or(|written| written.at < at) {
            slot.committed = Some(Written { at, value });
        }
        slot.pending.take_if(|pending| pending.at <= at);
    }

    /// As [`Offsets::apply`], for a record that this coordinator appended: nothing if it was removed since.
    pub fn confirm(&mut self, topic: &str, partition: i32, at: i64, value: OffsetValue) {
        let slot = self
            .topics
            .get(topic)
            .and_then(|partitions| partitions.get(&partition));
        if slot.is_some() {
            self.apply(topic, partition, at, value);
        }
    }

    /// It is not known whether the record at `at` will ever be committed: it does not count.
    pub fn give_up(&mut self, topic: &str, partition: i32, at: i64) {
        let Some(partitions) = self.topics.get_mut(topic) else {
            return;
        };
        if let Some(slot) = partitions.get_mut(&partition) {
            slot.pending.take_if(|pending| pending.at == at);
            if slot.pending.is_none() && slot.committed.is_none() {
                partitions.remove(&partition);
            }
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// The position is gone.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Whether a flow may write `commit`: only over nothing, or over what itself wrote last, and never backwards in
    /// versions. `None` means yes.
    pub fn mirror_refusal(&self, commit: &MirroredCommit) -> Option<MirroredStatus> {
        let slot = self.topics.get(&commit.topic)?.get(&commit.partition)?;
        let newest = slot.pending.as_ref().or(slot.committed.as_ref())?;
        let Some(mark) = newest
            .value
            .mirrored
            .as_ref()
            .filter(|mark| mark.flow == commit.mark.flow)
        else {
            return Some(MirroredStatus::OwnedHere);
        };
        if mark.source_version > commit.mark.source_version {
            return Some(MirroredStatus::Outdated);
        }
        let same = *mark == commit.mark
            && newest.value.offset == commit.offset
            && newest.value.metadata == commit.metadata
            && slot.pending.is_none();
        same.then_some(MirroredStatus::Unchanged)
    }

    /// The positions whose time is over: those that `is_over` says, of no topic in `kept`, no flow's, and with
    /// no commit in flight.
    pub fn expired(
        &self,
        is_over: impl Fn(&OffsetValue) -> bool,
        kept: &BTreeSet<String>,
    ) -> Vec<(String, i32)> {
        let pending = |topic: &str, partition: i32| {
            let slot = self
                .topics
                .get(topic)
                .and_then(|partitions| partitions.get(&partition));
            slot.is_some_and(|slot| slot.pending.is_some())
        };
        self.iter()
            .filter(|(topic, _, value)| is_over(value) && value.mirrored.is_none() && !kept.contains(*topic))
            .filter(|(topic, partition, _)| !pending(topic, *partition))
            .map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect()
    }

    /// Whether some position was written by `flow`.
    pub fn has_flow(&self, flow: &str) -> bool {
        self.iter()
            .any(|(_, _, value)| value.mirrored.as_ref().is_some_and(|mark| mark.flow == flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(offset: i64) -> OffsetValue {
        OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 100,
            expire_timestamp_ms: None,
            mirrored: None,
        }
    }

    fn mirrored(flow: &str, offset: i64, source_version: i64) -> MirroredCommit {
        let mark = MirroredFrom {
            flow: flow.into(),
            source_offset: offset,
            source_version,
        };
        MirroredCommit {
            topic: "t".into(),
            partition: 0,
            offset,
            metadata: String::new(),
            mark,
        }
    }

    fn value(commit: &MirroredCommit) -> OffsetValue {
        OffsetValue {
            mirrored: Some(commit.mark.clone()),
            ..own(commit.offset)
        }
    }

    #[test]
    fn acknowledgements_out_of_order_do_not_turn_a_position_back() {
        let mut offsets = Offsets::default();
        offsets.begin("t", 0, 10, own(1));
        offsets.begin("t", 0, 11, own(2));
        assert_eq!(
            offsets.committed("t", 0),
            None,
            "nothing is visible before it is committed"
        );
        offsets.apply("t", 0, 11, own(2));
        offsets.apply("t", 0, 10, own(1));
        assert_eq!(offsets.committed("t", 0).unwrap().offset, 2);
    }

    #[test]
    fn a_commit_that_failed_leaves_no_trace() {
        let mut offsets = Offsets::default();
        offsets.begin("t", 0, 10, own(1));
        offsets.give_up("t", 0, 10);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_flow_writes_over_nothing_and_over_itself_only() {
        let mut offsets = Offsets::default();
        let first = mirrored("e->w", 5, 1);
        assert_eq!(offsets.mirror_refusal(&first), None);
        offsets.apply("t", 0, 1, value(&first));
        assert_eq!(offsets.mirror_refusal(&first), Some(MirroredStatus::Unchanged));
        assert_eq!(
            offsets.mirror_refusal(&mirrored("e->w", 3, 2)),
            None,
            "a rewind with a newer version is followed"
        );
        assert_eq!(
            offsets.mirror_refusal(&mirrored("e->w", 9, 0)),
            Some(MirroredStatus::Outdated)
        );
        assert_eq!(
            offsets.mirror_refusal(&mirrored("n->w", 9, 9)),
            Some(MirroredStatus::OwnedHere)
        );
        offsets.begin("t", 0, 2, own(7));
        assert_eq!(
            offsets.mirror_refusal(&mirrored("e->w", 9, 9)),
            Some(MirroredStatus::OwnedHere),
            "a client's commit in flight counts"
        );
    }

    #[test]
    fn mirrored_and_subscribed_positions_do_not_expire() {
        let mut offsets = Offsets::default();
        offsets.apply("t", 0, 1, value(&mirrored("e->w", 5, 1)));
        offsets.apply("a", 0, 2, own(5));
        offsets.apply("b", 1, 3, own(5));
        let kept = BTreeSet::from(["a".to_owned()]);
        let before = |end| move |value: &OffsetValue| value.commit_timestamp_ms < end;
        assert_eq!(offsets.expired(before(101), &kept), [("b".to_owned(), 1)]);
        assert_eq!(offsets.expired(before(100), &kept), []);
        assert!(offsets.has_flow("e->w"));
    }
}
