//! Topics, their configuration, producer ids.

use std::collections::BTreeMap;

use tradewind_wire::ids::{NodeId, TopicId};

use super::{Log, TOPIC, config, registration};
use crate::command::{Command, ConfigChange, ConfigResource, CreateTopic, GrowTopic, MetaError, Outcome};

#[test]
fn topics_are_refused_with_kafkas_reasons() {
    let mut log = Log::with(3);
    let mut create = |change: &dyn Fn(&mut CreateTopic)| {
        let mut create = CreateTopic::new("orders", TOPIC, 3, 2);
        create.clamp = false;
        change(&mut create);
        log.apply(&Command::CreateTopic(create))
    };
    for name in ["", ".", "..", "a/b", "é", &"x".repeat(250)] {
        let refused = create(&|topic| topic.name = name.to_owned());
        assert!(matches!(refused, Err(MetaError::InvalidTopic(_))), "{name}");
    }
    assert!(matches!(
        create(&|t| t.partitions = 0),
        Err(MetaError::InvalidPartitions(_))
    ));
    assert!(matches!(
        create(&|t| t.partitions = i32::MAX),
        Err(MetaError::InvalidPartitions(_))
    ));
    for factor in [0, -1, 4] {
        let refused = create(&|topic| topic.replication_factor = factor);
        assert!(
            matches!(refused, Err(MetaError::InvalidReplicationFactor(_))),
            "{factor}"
        );
    }
    for assignment in [
        vec![],
        vec![vec![]],
        vec![vec![1, 1]],
        vec![vec![1, 2], vec![3]],
        vec![vec![9]],
    ] {
        let refused = create(&|topic| topic.assignment = Some(assignment.clone()));
        assert!(
            matches!(refused, Err(MetaError::InvalidAssignment(_))),
            "{assignment:?}"
        );
    }
    let unknown = create(&|topic| {
        topic.configs.insert("no.such.key".to_owned(), "1".to_owned());
    });
    assert!(matches!(unknown, Err(MetaError::InvalidConfig(_))));

    let created = create(&|_| {}).unwrap();
    assert_eq!(
        created,
        Outcome::Topic {
            id: TOPIC,
            partitions: 3,
            replication_factor: 2
        }
    );
    assert_eq!(
        create(&|_| {}).unwrap(),
        created,
        "the same id is the same request again"
    );
    let exists = create(&|topic| topic.id = TopicId([8; 16]));
    assert_eq!(exists, Err(MetaError::TopicExists("orders".to_owned())));
    create(&|topic| (topic.name, topic.id) = ("a.b".to_owned(), TopicId([9; 16]))).unwrap();
    let collides = create(&|topic| (topic.name, topic.id) = ("a_b".to_owned(), TopicId([10; 16])));
    assert!(matches!(collides, Err(MetaError::InvalidTopic(_))));
}

#[test]
fn a_default_replication_factor_is_lowered_to_the_cluster() {
    let mut log = Log::with(1);
    let create = CreateTopic::new("orders", TOPIC, 1, 3);
    let outcome = log.must(&Command::CreateTopic(create));
    assert!(matches!(
        outcome,
        Outcome::Topic {
            replication_factor: 1,
            ..
        }
    ));
}

#[test]
fn a_topic_made_while_a_daemon_is_away_still_gets_all_its_replicas() {
    let mut log = Log::with(3);
    log.fence(2);
    log.must(&Command::CreateTopic(CreateTopic::new("orders", TOPIC, 6, 3)));
    let topic = log.image.topic("orders").unwrap();
    for partition in &topic.partitions {
        assert_eq!(partition.replicas.len(), 3);
        assert_eq!(partition.isr.len(), 2);
        assert_eq!(partition.leader, partition.replicas.first().copied());
        assert_ne!(partition.leader, Some(2));
    }
}

#[test]
fn replicas_are_spread_over_racks_and_leaders_over_daemons() {
    let mut log = Log::with(0);
    for node in 1..=6 {
        let mut registration = registration(node, 1);
        registration.rack = Some(format!("rack-{}", node % 3));
        log.must(&Command::Register(registration));
    }
    log.must(&Command::CreateTopic(CreateTopic::new("orders", TOPIC, 12, 3)));
    let mut leaders: BTreeMap<NodeId, usize> = BTreeMap::new();
    for partition in &log.image.topic("orders").unwrap().partitions {
        *leaders.entry(partition.leader.unwrap()).or_default() += 1;
        let mut racks: Vec<_> = partition.replicas.iter().map(|node| node % 3).collect();
        racks.sort_unstable();
        racks.dedup();
        assert_eq!(racks.len(), 3, "{partition:?}");
    }
    assert_eq!(leaders.values().copied().collect::<Vec<_>>(), [2; 6]);
}

#[test]
fn topics_grow_but_do_not_shrink_and_deleted_ones_leave_a_tombstone() {
    let mut log = Log::with_topic();
    let grow = |count| {
        Command::GrowTopic(GrowTopic {
            id: TOPIC,
            count,
            assignment: None,
            flow: None,
        })
    };
    log.must(&grow(4));
    assert_eq!(log.image.topic("orders").unwrap().partitions.len(), 4);
    for count in [4, 3, 0, -1] {
        assert!(matches!(
            log.apply(&grow(count)),
            Err(MetaError::InvalidPartitions(_))
        ));
    }
    log.must(&Command::DeleteTopic { id: TOPIC });
    assert!(log.image.topic("orders").is_none());
    assert_eq!(log.image.tombstones[&TOPIC], log.image.index);
    assert!(matches!(
        log.apply(&Command::DeleteTopic { id: TOPIC }),
        Err(MetaError::UnknownTopic(_))
    ));
}

#[test]
fn configs_change_key_by_key_or_as_a_whole() {
    let mut log = Log::with_topic();
    log.must(&config("retention.ms", "1000"));
    log.must(&config("cleanup.policy", "compact"));
    let resource = ConfigResource::Topic(TOPIC);
    let change = |replace, key: &str, change| Command::AlterConfigs {
        resource: resource.clone(),
        replace,
        changes: BTreeMap::from([(key.to_owned(), change)]),
    };
    log.must(&change(
        false,
        "cleanup.policy",
        ConfigChange::Append("delete".into()),
    ));
    let configs = |log: &Log| log.image.topic("orders").unwrap().configs.clone();
    assert_eq!(configs(&log)["cleanup.policy"], "compact,delete");
    log.must(&change(
        false,
        "cleanup.policy",
        ConfigChange::Subtract("compact".into()),
    ));
    assert_eq!(configs(&log)["cleanup.policy"], "delete");
    log.must(&change(false, "retention.ms", ConfigChange::Delete));
    assert!(!configs(&log).contains_key("retention.ms"));
    log.must(&change(true, "segment.ms", ConfigChange::Set("5".into())));
    assert_eq!(configs(&log).len(), 1, "replacing forgets the rest");
    let bad = change(false, "segment.ms", ConfigChange::Append("5".into()));
    assert!(matches!(log.apply(&bad), Err(MetaError::InvalidConfig(_))));
}

#[test]
fn producer_ids_carry_the_clusters_number_and_run_out() {
    let mut log = Log::with(1);
    let first = log.must(&Command::AllocateProducerIds { node: 1 });
    assert_eq!(
        first,
        Outcome::ProducerIds {
            first: 5 << 36,
            count: 1000
        }
    );
    let second = log.must(&Command::AllocateProducerIds { node: 1 });
    assert_eq!(
        second,
        Outcome::ProducerIds {
            first: (5 << 36) + 1000,
            count: 1000
        }
    );
    log.image.next_producer_id = (1 << 36) - 999;
    assert_eq!(
        log.apply(&Command::AllocateProducerIds { node: 1 }),
        Err(MetaError::ProducerIdsExhausted)
    );
}
