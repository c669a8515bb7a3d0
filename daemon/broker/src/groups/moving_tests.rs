//! Groups of a topic that moves: commits are refused, the flow's word counts, and the last positions are told once.

use std::collections::HashMap;
use std::sync::Arc;

use tradewind_wire::ids::TopicId;

use super::coordinator_tests::{Memory, loaded, outsider, position, serving};
use super::*;

/// One topic, `t`, that moves.
struct Moving {
    left: bool,
}

impl Topics for Moving {
    fn version(&self) -> u64 {
        1
    }

    fn topic(&self, name: &str) -> Option<(TopicId, i32)> {
        (name == "t").then_some((TopicId([1; 16]), 1))
    }

    fn name(&self, _: TopicId) -> Option<String> {
        Some("t".to_owned())
    }

    fn names(&self) -> Vec<String> {
        vec!["t".to_owned()]
    }

    fn moves(&self, name: &str) -> bool {
        name == "t"
    }

    fn has_left(&self, name: &str) -> bool {
        self.left && name == "t"
    }

    fn any_moves(&self) -> bool {
        true
    }
}

fn by_flow(offset: i64) -> MirroredCommit {
    MirroredCommit {
        topic: "t".into(),
        partition: 0,
        offset,
        metadata: String::new(),
        mark: MirroredFrom {
            flow: "west->east".into(),
            source_offset: offset,
            source_version: 1,
        },
    }
}

#[tokio::test]
async fn what_groups_committed_themselves_gives_way_once_the_topic_has_left() {
    let coordinator = serving(&Memory::new()).await;
    coordinator
        .commit("g", &outsider(), vec![position(7)])
        .await
        .unwrap();
    let arriving = Arc::new(Moving { left: false });
    coordinator.set_topics(arriving);
    let other = Position {
        topic: "other".into(),
        ..position(1)
    };
    let outcomes = coordinator
        .commit("g", &outsider(), vec![position(8), other])
        .await;
    assert_eq!(outcomes.unwrap(), [Err(GroupError::Unavailable), Ok(())]);
    let written = coordinator.mirrored_commit("g", vec![by_flow(9)]).await;
    assert_eq!(
        written.unwrap(),
        [MirroredStatus::OwnedHere],
        "an arriving topic's groups keep their own"
    );
    coordinator.set_topics(Arc::new(Moving { left: true }));
    let written = coordinator.mirrored_commit("g", vec![by_flow(9)]).await;
    assert_eq!(written.unwrap(), [MirroredStatus::Written]);
}

#[tokio::test]
async fn last_positions_are_told_of_partitions_loaded_under_the_epoch_that_fenced_them() {
    let journal = Memory::new();
    let coordinator = serving(&journal).await;
    coordinator
        .commit("g", &outsider(), vec![position(7)])
        .await
        .unwrap();
    coordinator.set_topics(Arc::new(Moving { left: true }));
    let partition = coordinator.partition_of("g");
    let epochs = HashMap::from([(partition, 2)]);
    assert_eq!(
        coordinator.last_positions(&epochs).0,
        [0; 0],
        "loaded before the fence"
    );
    coordinator.elected(partition, 2, Arc::new(journal));
    loaded(&coordinator, "g").await;
    let (partitions, positions) = coordinator.last_positions(&epochs);
    assert_eq!(partitions, [partition]);
    let told: Vec<_> = positions
        .iter()
        .map(|last| (last.group.as_str(), last.offset))
        .collect();
    assert_eq!(told, [("g", 7)]);
}
