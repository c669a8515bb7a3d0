//! Groups that can move: what a position at the source means here, and whether it may be written.
//!
//! Pure. In `preserve` mode an offset here is the offset there, so translation is a minimum: a position is visible up to
//! the high watermark here and moves on as data arrive. Whether a position may be written is decided twice: here from the
//! stored mark, and again by the coordinator in the same step as the write.

use std::collections::{BTreeMap, BTreeSet};

use crate::board::{PositionFacts, PositionStatus};
use crate::formats::Checkpoint;
use crate::source::Committed;
use crate::target::{CommitOutcome, FlowMark, MirroredPosition, StoredPosition};

/// What the target knows of the topics that a flow mirrors.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Source topic to the topic's name and partition count here (zero while it is not created yet).
    pub topics: BTreeMap<String, (String, i32)>,
    /// High watermarks here, where known.
    pub high_watermarks: BTreeMap<(String, i32), i64>,
    /// Topics here that were moved away and on which only the flow may commit: what groups once committed here by
    /// themselves is written over.
    pub moved: BTreeSet<String>,
    /// Where a position at the source means nothing here.
    pub foreign: Foreign,
}

/// What here is not the source's: positions there are no positions here.
#[derive(Debug, Clone, Default)]
pub struct Foreign {
    /// Topics that hold the records of another topic, which had the source topic's name before.
    pub topics: BTreeSet<String>,
    /// Partitions that have diverged.
    pub partitions: BTreeSet<(String, i32)>,
}

impl Foreign {
    fn has(&self, topic: &str, partition: i32) -> bool {
        self.topics.contains(topic) || self.partitions.contains(&(topic.to_owned(), partition))
    }
}

/// What to do about one position of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What to report, should the write (if any) succeed.
    pub facts: PositionFacts,
    /// What to write.
    pub write: Option<MirroredPosition>,
    /// The group's own metadata at the source.
    pub metadata: String,
}

/// Decides about every position that `group` has committed at the source on a topic that is mirrored here.
pub fn decide(
    flow: &str,
    group: &str,
    committed: &[Committed],
    stored: &[StoredPosition],
    here: &Here,
    now_ms: i64,
) -> Vec<Decision> {
    let stored: BTreeMap<(&str, i32), &StoredPosition> = stored
        .iter()
        .map(|position| ((position.topic.as_str(), position.partition), position))
        .collect();
    committed
        .iter()
        .filter(|committed| committed.offset >= 0)
        .filter_map(|committed| {
            let (topic, partitions) = here.topics.get(&committed.topic)?;
            let stored = stored.get(&(topic.as_str(), committed.partition)).copied();
            let exists = committed.partition < *partitions && !here.foreign.has(topic, committed.partition);
            let mark = here
                .high_watermarks
                .get(&(topic.clone(), committed.partition))
                .copied();
            Some(decide_one(
                flow,
                group,
                committed,
                topic,
                exists.then_some(mark),
                (stored, here.moved.contains(topic)),
                now_ms,
            ))
        })
        .collect()
}

/// `stored`: what is stored here, and whether only the flow may commit on the topic.
/// `high_watermark`: `None` if the partition does not exist here or is not the source's, `Some(None)` if its watermark is
/// not known now.
fn decide_one(
    flow: &str,
    group: &str,
    committed: &Committed,
    topic: &str,
    high_watermark: Option<Option<i64>>,
    (stored, moved): (Option<&StoredPosition>, bool),
    now_ms: i64,
) -> Decision {
    let mut decision = Decision {
        facts: PositionFacts {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition: committed.partition,
            offset: stored.map_or(-1, |stored| stored.offset),
            source_offset: committed.offset,
            status: PositionStatus::Unmapped,
        },
        write: None,
        metadata: committed.metadata.clone(),
    };
    let ours = stored
        .and_then(|stored| stored.mark.as_ref())
        .filter(|mark| mark.flow == flow);
    if stored.is_some() && ours.is_none() && !moved {
        decision.facts.status = PositionStatus::OwnedHere;
        return decision;
    }
    let Some(high_watermark) = high_watermark else {
        return decision;
    };
    // Without a watermark nothing is known to be readable; what is stored stays.
    let Some(high_watermark) = high_watermark else {
        let exact = ours.is_some_and(|mark| mark.source_offset == committed.offset)
            && decision.facts.offset == committed.offset;
        decision.facts.status = status(exact);
        return decision;
    };
    let visible = committed.offset.min(high_watermark).max(0);
    decision.facts.status = status(visible == committed.offset);
    let unchanged =
        decision.facts.offset == visible && ours.is_some_and(|mark| mark.source_offset == committed.offset);
    if !unchanged {
        let version = ours.map_or(now_ms, |mark| now_ms.max(mark.source_version + 1));
        decision.facts.offset = visible;
        decision.write = Some(MirroredPosition {
            topic: topic.to_owned(),
            partition: committed.partition,
            offset: visible,
            metadata: committed.metadata.clone(),
            mark: FlowMark {
                flow: flow.to_owned(),
                source_offset: committed.offset,
                source_version: version,
            },
        });
    }
    decision
}

fn status(exact: bool) -> PositionStatus {
    if exact {
        PositionStatus::Exact
    } else {
        PositionStatus::Pending
    }
}

/// Takes the coordinator's word for what became of the writes; `None` if they failed as a whole.
pub fn settle(decisions: &mut [Decision], outcomes: Option<&[CommitOutcome]>) {
    let writes = decisions.iter_mut().filter(|decision| decision.write.is_some());
    for (at, decision) in writes.enumerate() {
        match outcomes.and_then(|outcomes| outcomes.get(at)) {
            Some(CommitOutcome::Written) => {}
            Some(CommitOutcome::OwnedHere) => decision.facts.status = PositionStatus::OwnedHere,
            // The next pass reads what is stored and decides again.
            Some(CommitOutcome::Outdated) | None => decision.facts.status = PositionStatus::Pending,
        }
    }
}

/// The checkpoints to emit: every position that this daemon has not emitted so before. Remembers them in `emitted`.
pub fn checkpoints(decisions: &[Decision], emitted: &mut Emitted) -> Vec<Checkpoint> {
    let mapped = decisions.iter().filter(|decision| {
        let facts = &decision.facts;
        // A position that was rewound at the source may stand further on here until it can be followed: whoever took that
        // for its translation would skip records.
        (0..=facts.source_offset).contains(&facts.offset)
            && matches!(facts.status, PositionStatus::Exact | PositionStatus::Pending)
    });
    mapped
        .filter_map(|decision| {
            let facts = &decision.facts;
            let key = (facts.group.clone(), facts.topic.clone(), facts.partition);
            let value = (facts.source_offset, facts.offset);
            if emitted.insert(key, value) == Some(value) {
                return None;
            }
            Some(Checkpoint {
                group: facts.group.clone(),
                topic: facts.topic.clone(),
                partition: facts.partition,
                upstream: facts.source_offset,
                downstream: facts.offset,
                metadata: decision.metadata.clone(),
            })
        })
        .collect()
}

/// What was emitted last, by (group, topic, partition): (upstream, downstream).
pub type Emitted = BTreeMap<(String, String, i32), (i64, i64)>;

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "east->west";

    fn here(high_watermark: i64) -> Here {
        Here {
            topics: [("orders".to_owned(), ("east.orders".to_owned(), 2))].into(),
            high_watermarks: [(("east.orders".to_owned(), 0), high_watermark)].into(),
            moved: BTreeSet::new(),
            foreign: Foreign::default(),
        }
    }

    fn committed(offset: i64) -> Vec<Committed> {
        vec![Committed {
            topic: "orders".into(),
            partition: 0,
            offset,
            metadata: "m".into(),
        }]
    }

    fn stored(offset: i64, mark: Option<(&str, i64, i64)>) -> Vec<StoredPosition> {
        vec![StoredPosition {
            topic: "east.orders".into(),
            partition: 0,
            offset,
            metadata: "m".into(),
            mark: mark.map(|(flow, source_offset, source_version)| FlowMark {
                flow: flow.into(),
                source_offset,
                source_version,
            }),
        }]
    }

    fn one(committed: &[Committed], stored: &[StoredPosition], here: &Here) -> Decision {
        let mut all = decide(FLOW, "g", committed, stored, here, 1_000);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    fn written(decision: &Decision) -> Option<(i64, i64)> {
        decision
            .write
            .as_ref()
            .map(|write| (write.offset, write.mark.source_offset))
    }

    #[test]
    fn a_position_whose_records_are_here_is_exact() {
        let decision = one(&committed(40), &[], &here(50));
        assert_eq!(decision.facts.status, PositionStatus::Exact);
        assert_eq!(written(&decision), Some((40, 40)));
    }

    #[test]
    fn a_position_ahead_of_the_data_is_visible_up_to_the_watermark_and_moves_with_it() {
        let decision = one(&committed(40), &[], &here(30));
        assert_eq!(decision.facts.status, PositionStatus::Pending);
        assert_eq!(written(&decision), Some((30, 40)));
        let later = one(&committed(40), &stored(30, Some((FLOW, 40, 1_000))), &here(45));
        assert_eq!(later.facts.status, PositionStatus::Exact);
        assert_eq!(written(&later), Some((40, 40)));
        assert_eq!(
            later.write.unwrap().mark.source_version,
            1_001,
            "never an older version than is stored"
        );
    }

    #[test]
    fn what_is_stored_already_is_not_written_again() {
        let decision = one(&committed(40), &stored(40, Some((FLOW, 40, 900))), &here(50));
        assert_eq!(
            (decision.facts.status, decision.write),
            (PositionStatus::Exact, None)
        );
    }

    #[test]
    fn a_rewind_at_the_source_is_followed() {
        let decision = one(&committed(5), &stored(40, Some((FLOW, 40, 900))), &here(50));
        assert_eq!(written(&decision), Some((5, 5)));
    }

    #[test]
    fn a_group_that_committed_here_is_left_alone() {
        for mark in [None, Some(("north->west", 3, 1))] {
            let decision = one(&committed(40), &stored(3, mark), &here(50));
            assert_eq!(
                (decision.facts.status, decision.write),
                (PositionStatus::OwnedHere, None)
            );
            assert_eq!(decision.facts.offset, 3);
        }
    }

    #[test]
    fn on_a_diverged_partition_nothing_is_written_and_nothing_counts_as_exact() {
        let mut here = here(100);
        here.foreign.partitions.insert(("east.orders".into(), 0));
        for stored in [
            stored(5, None),
            stored(40, Some((FLOW, 40, 7))),
            stored(5, Some((FLOW, 5, 7))),
        ] {
            let decision = one(&committed(40), &stored, &here);
            assert_eq!(decision.write, None);
            assert_ne!(decision.facts.status, PositionStatus::Exact);
        }
        let mut recreated = self::here(100);
        recreated.foreign.topics.insert("east.orders".into());
        let decision = one(&committed(40), &stored(40, Some((FLOW, 40, 7))), &recreated);
        assert_eq!(
            (decision.write, decision.facts.status),
            (None, PositionStatus::Unmapped)
        );
    }

    #[test]
    fn without_a_watermark_nothing_is_written() {
        let mut here = here(0);
        here.high_watermarks.clear();
        let decision = one(&committed(40), &[], &here);
        assert_eq!(
            (decision.facts.status, decision.write),
            (PositionStatus::Pending, None)
        );
    }

    #[test]
    fn a_partition_that_is_not_here_is_unmapped_and_counted_and_other_topics_are_not() {
        let mut commits = committed(40);
        commits[0].partition = 2;
        commits.push(Committed {
            topic: "elsewhere".into(),
            ..commits[0].clone()
        });
        let decision = one(&commits, &[], &here(50));
        assert_eq!(
            (decision.facts.status, decision.write),
            (PositionStatus::Unmapped, None)
        );
    }

    #[test]
    fn an_empty_partition_has_position_zero() {
        let decision = one(&committed(0), &[], &here(0));
        assert_eq!(
            (decision.facts.status, written(&decision)),
            (PositionStatus::Exact, Some((0, 0)))
        );
    }

    #[test]
    fn outcomes_settle_the_status_and_checkpoints_are_emitted_once() {
        let mut decisions = decide(FLOW, "g", &committed(40), &[], &here(50), 1_000);
        let mut emitted = Emitted::new();
        settle(&mut decisions, Some(&[CommitOutcome::Written]));
        let checkpoint = &checkpoints(&decisions, &mut emitted)[0];
        assert_eq!(
            (
                checkpoint.topic.as_str(),
                checkpoint.upstream,
                checkpoint.downstream
            ),
            ("east.orders", 40, 40)
        );
        assert!(checkpoints(&decisions, &mut emitted).is_empty());
        settle(&mut decisions, Some(&[CommitOutcome::OwnedHere]));
        assert_eq!(decisions[0].facts.status, PositionStatus::OwnedHere);
        settle(&mut decisions, None);
        assert_eq!(decisions[0].facts.status, PositionStatus::Pending);
    }
}
