//! Drills of flows: the metadata log only remembers that there was one and how it ended. It changes nothing else.

use std::collections::BTreeMap;

use tradewind_wire::drill::{DrillNote, MAX_DRILL_TEXT, MAX_DRILLS};
use tradewind_wire::ids::NodeId;

use super::Position;
use super::flows::flow_mut;
use crate::command::{MetaError, Outcome};
use crate::image::{FlowState, Image};

/// Remembers the beginning of a drill, or its end. One begins only while no other one runs, and while the flow copies or is
/// paused: there is nothing to rehearse once it has been failed over.
pub(super) fn note(
    image: &mut Image,
    at: Position,
    name: &str,
    note: &DrillNote,
) -> Result<Outcome, MetaError> {
    let failure = note.end.as_ref().and_then(|end| end.failure.as_ref());
    if failure.is_some_and(|text| text.len() > MAX_DRILL_TEXT) {
        return Err(MetaError::TooMany {
            what: "bytes of a drill's failure".to_owned(),
            limit: MAX_DRILL_TEXT,
        });
    }
    let active = image.active().map(|daemon| (daemon.id, daemon.session));
    let sessions: BTreeMap<NodeId, i64> = active.collect();
    let flow = flow_mut(image, name)?;
    if let Some(known) = flow.drills.iter_mut().find(|known| known.id == note.id) {
        // The first end counts, as the first beginning does.
        if known.end.is_none() {
            known.end.clone_from(&note.end);
        }
        return Ok(Outcome::Done);
    }
    if !matches!(flow.state, FlowState::Active | FlowState::Paused) {
        return Err(MetaError::FlowState {
            flow: name.to_owned(),
            state: flow.state,
        });
    }
    let runs = |last: &DrillNote| {
        let session = sessions.get(&last.node).and_then(|at| u64::try_from(*at).ok());
        last.runs(session, note.begun_ms)
    };
    if note.end.is_none() && flow.drills.last().is_some_and(runs) {
        return Err(MetaError::Region(format!(
            "flow {name}: another drill runs: `mirror status` tells since when"
        )));
    }
    flow.drills.push(DrillNote {
        index: at.index,
        ..note.clone()
    });
    let surplus = flow.drills.len().saturating_sub(MAX_DRILLS);
    flow.drills.drain(..surplus);
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use tradewind_wire::drill::{DrillEnd, MAX_DRILL_MS};
    use tradewind_wire::flow::{FlowSource, FlowSpec, Naming};
    use tradewind_wire::ids::TopicId;

    use super::*;
    use crate::image::{Daemon, DaemonState};

    const FLOW: &str = "east->west";

    /// A cluster with a flow, whose daemon 1 is in service since entry 5.
    fn image() -> Image {
        let mut image = Image::default();
        let spec = FlowSpec {
            source_cluster: "east".into(),
            target_cluster: "west".into(),
            source: FlowSource::Kafka(vec![]),
            topics: vec![".*".into()],
            topics_exclude: vec![],
            groups: vec![],
            groups_exclude: vec![],
            naming: Naming::Identity,
        };
        super::super::flows::declare(&mut image, &spec).unwrap();
        let daemon = Daemon {
            id: 1,
            epoch: 5,
            session: 5,
            incarnation: 1,
            boot_id: String::new(),
            state: DaemonState::Active,
            rack: None,
            mesh: String::new(),
            listeners: Vec::new(),
            defaults: BTreeMap::new(),
        };
        image.nodes.insert(1, daemon);
        image
    }

    fn enter(image: &mut Image, index: u64, entry: &DrillNote) -> Result<Outcome, MetaError> {
        note(image, Position { index, term: 1 }, FLOW, entry)
    }

    fn begun(id: u8, at_ms: i64) -> DrillNote {
        DrillNote {
            id: TopicId([id; 16]),
            node: 1,
            begun_ms: at_ms,
            index: 0,
            end: None,
        }
    }

    fn ended(id: u8, passed: bool) -> DrillNote {
        DrillNote {
            end: Some(DrillEnd {
                at_ms: 9,
                passed,
                rpo_records: Some(0),
                rpo_ms: Some(0),
                rto_ms: 4,
                groups: (1, 1),
                partitions: 2,
                failure: None,
            }),
            ..begun(id, 5)
        }
    }

    #[test]
    fn one_drill_at_a_time_and_the_newest_are_kept() {
        let mut image = image();
        enter(&mut image, 10, &begun(1, 1_000)).unwrap();
        // Said again it is the same one.
        enter(&mut image, 11, &begun(1, 1_000)).unwrap();
        assert!(enter(&mut image, 12, &begun(2, 1_001)).is_err());
        enter(&mut image, 13, &ended(1, true)).unwrap();
        enter(&mut image, 14, &ended(1, false)).unwrap();
        let kept = &image.flows[FLOW].drills;
        assert_eq!((kept.len(), kept[0].index), (1, 10));
        assert!(kept[0].end.as_ref().is_some_and(|end| end.passed));
        for id in 2..30 {
            enter(&mut image, 20, &begun(id, 2_000)).unwrap();
            enter(&mut image, 21, &ended(id, true)).unwrap();
        }
        assert_eq!(image.flows[FLOW].drills.len(), MAX_DRILLS);
    }

    #[test]
    fn one_that_never_ended_stands_in_nobodys_way_for_long() {
        let mut image = image();
        enter(&mut image, 10, &begun(1, 1_000)).unwrap();
        assert!(enter(&mut image, 11, &begun(2, 1_000)).is_err());
        // Its daemon has started again since.
        image.nodes.get_mut(&1).unwrap().session = 12;
        enter(&mut image, 13, &begun(2, 1_000)).unwrap();
        assert!(enter(&mut image, 14, &begun(3, 1_000)).is_err());
        image.nodes.get_mut(&1).unwrap().state = DaemonState::Fenced;
        enter(&mut image, 15, &begun(3, 1_000)).unwrap();
        image.nodes.get_mut(&1).unwrap().state = DaemonState::Active;
        assert!(enter(&mut image, 16, &begun(4, 1_000)).is_err());
        enter(&mut image, 17, &begun(4, 1_000 + MAX_DRILL_MS)).unwrap();
    }

    #[test]
    fn there_is_nothing_to_rehearse_after_a_failover() {
        let mut image = image();
        let at = Position { index: 9, term: 1 };
        assert!(note(&mut image, at, "north->west", &begun(1, 0)).is_err());
        image.flows.get_mut(FLOW).unwrap().state = FlowState::Promoted;
        assert!(enter(&mut image, 10, &begun(1, 0)).is_err());
        let mut wordy = ended(1, false);
        wordy.end.as_mut().unwrap().failure = Some("x".repeat(MAX_DRILL_TEXT + 1));
        assert!(enter(&mut image, 11, &wordy).is_err());
    }
}
