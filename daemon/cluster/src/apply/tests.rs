//! The rules one by one, each on a small image.

use std::collections::BTreeMap;

use tradewind_wire::flow::{FlowSource, FlowSpec, Lineage, Naming};
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};

use super::{Position, apply};
use crate::command::{
    Command, ConfigChange, ConfigResource, CreateTopic, ElectionKind, GrowTopic, IsrChange, LineageEntry,
    MetaError, MirrorBinding, Outcome, Registration, StaleWhat,
};
use crate::image::{DaemonState, FlowState, Image, MirrorState, Partition};

const TOPIC: TopicId = TopicId([7; 16]);

/// An image and the log that made it.
struct Log {
    image: Image,
    term: u64,
}

impl Log {
    /// Daemons 1 to `daemons`, registered.
    fn with(daemons: NodeId) -> Self {
        let mut log = Self {
            image: Image::default(),
            term: 1,
        };
        log.must(&Command::Init {
            cluster_id: ClusterId([1; 16]),
            cluster_number: 5,
        });
        for node in 1..=daemons {
            log.must(&Command::Register(registration(node, 1)));
        }
        log
    }

    /// As `with(3)`, with a topic of one partition on all three; its leader is returned first.
    fn with_topic() -> Self {
        let mut log = Self::with(3);
        let mut create = CreateTopic::new("orders", TOPIC, 1, 3);
        create.assignment = Some(vec![vec![1, 2, 3]]);
        log.must(&Command::CreateTopic(create));
        log
    }

    fn apply(&mut self, command: &Command) -> Result<Outcome, MetaError> {
        let at = Position {
            index: self.image.index + 1,
            term: self.term,
        };
        let (image, outcome) = apply(&self.image, at, command);
        assert_eq!(image.check(), Ok(()));
        self.image = image;
        outcome
    }

    #[track_caller]
    fn must(&mut self, command: &Command) -> Outcome {
        self.apply(command).unwrap()
    }

    fn partition(&self) -> &Partition {
        self.image.partition(TOPIC, 0).unwrap()
    }

    fn epoch(&self, node: NodeId) -> i64 {
        self.image.nodes[&node].epoch
    }

    fn fence(&mut self, node: NodeId) {
        let command = self.fence_command(node);
        self.must(&command);
    }

    fn fence_command(&self, node: NodeId) -> Command {
        let daemon = &self.image.nodes[&node];
        Command::Fence {
            node,
            daemon_epoch: daemon.epoch,
            session: daemon.session,
            term: self.term,
        }
    }

    fn unfence(&mut self, node: NodeId) {
        let daemon_epoch = self.epoch(node);
        self.must(&Command::Unfence { node, daemon_epoch });
    }

    fn isr_change(&self, isr: &[NodeId]) -> IsrChange {
        IsrChange {
            topic: TOPIC,
            partition: 0,
            leader_epoch: self.partition().leader_epoch,
            partition_epoch: self.partition().partition_epoch,
            isr: isr.iter().map(|&node| (node, self.epoch(node))).collect(),
        }
    }

    fn alter_isr(&mut self, change: IsrChange) -> Result<Vec<NodeId>, MetaError> {
        let node = self.partition().leader.unwrap();
        let daemon_epoch = self.epoch(node);
        let outcome = self.apply(&Command::AlterIsr {
            node,
            daemon_epoch,
            changes: vec![change],
        })?;
        match outcome {
            Outcome::IsrChanged(mut results) => results.remove(0).map(|state| state.isr),
            other => panic!("{other:?}"),
        }
    }

    fn shrink_to(&mut self, isr: &[NodeId]) {
        let change = self.isr_change(isr);
        assert_eq!(self.alter_isr(change).unwrap(), isr);
    }

    fn register_again(&mut self, change: impl FnOnce(&mut Registration)) {
        let mut registration = registration(1, 2);
        change(&mut registration);
        let node = registration.node;
        registration.incarnation = self.image.nodes[&node].incarnation + 1;
        registration.replaces = Some(self.image.nodes[&node].incarnation);
        self.must(&Command::Register(registration));
    }
}

/// A registration of a daemon whose file wants two in-sync replicas and does not flush.
fn registration(node: NodeId, incarnation: u128) -> Registration {
    Registration {
        node,
        incarnation,
        replaces: None,
        boot_id: "boot-1".to_owned(),
        clean_stop: false,
        damaged: Vec::new(),
        rack: None,
        mesh: format!("host-{node}:7100"),
        listeners: Vec::new(),
        defaults: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
    }
}

fn config(key: &str, value: &str) -> Command {
    Command::AlterConfigs {
        resource: ConfigResource::Topic(TOPIC),
        replace: false,
        changes: BTreeMap::from([(key.to_owned(), ConfigChange::Set(value.to_owned()))]),
    }
}

#[test]
fn fencing_the_leader_elects_in_the_same_entry_and_takes_it_out_of_the_set() {
    let mut log = Log::with_topic();
    assert_eq!(log.partition().leader, Some(1));
    log.fence(1);
    let partition = log.partition();
    assert_eq!((partition.leader, partition.leader_epoch), (Some(2), 1));
    assert_eq!(partition.isr, [2, 3]);
    assert!(
        partition.eligible.is_empty(),
        "two are enough for the watermark to move on without the third"
    );
}

#[test]
fn a_fence_for_an_earlier_session_registration_or_term_is_dropped() {
    let mut log = Log::with_topic();
    let stale_session = log.fence_command(1);
    log.fence(1);
    log.unfence(1);
    let refused = log.apply(&stale_session);
    assert!(matches!(
        refused,
        Err(MetaError::Stale {
            what: StaleWhat::Session,
            ..
        })
    ));
    let stale_term = log.fence_command(2);
    log.term += 1;
    assert!(matches!(
        log.apply(&stale_term),
        Err(MetaError::Stale {
            what: StaleWhat::Term,
            ..
        })
    ));
    let stale_registration = log.fence_command(1);
    log.register_again(|_| {});
    assert!(matches!(
        log.apply(&stale_registration),
        Err(MetaError::Stale {
            what: StaleWhat::DaemonEpoch,
            ..
        })
    ));
    assert!(
        log.image
            .nodes
            .values()
            .all(|daemon| daemon.state == DaemonState::Active)
    );
}

#[test]
fn the_last_member_stays_and_leads_again_when_it_comes_back() {
    let mut log = Log::with_topic();
    log.must(&config("min.insync.replicas", "1"));
    for node in [2, 3, 1] {
        log.fence(node);
    }
    assert_eq!(log.partition().isr, [1]);
    assert_eq!(log.partition().leader, None);
    log.unfence(2);
    assert_eq!(log.partition().leader, None, "2 may lack committed records");
    log.unfence(1);
    assert_eq!(log.partition().leader, Some(1));
}

#[test]
fn who_leaves_below_the_minimum_is_eligible_and_may_lead_cleanly() {
    let mut log = Log::with_topic();
    log.fence(3);
    log.fence(2);
    assert_eq!(log.partition().isr, [1]);
    assert_eq!(log.partition().eligible, [2], "3 left while two were enough");
    log.fence(1);
    log.unfence(3);
    assert_eq!(log.partition().leader, None);
    log.unfence(2);
    let partition = log.partition();
    assert_eq!(partition.leader, Some(2));
    assert_eq!(partition.isr, [2]);
    assert_eq!(partition.eligible, [1], "it was in sync when it fell silent");
    let change = log.isr_change(&[2, 3]);
    assert_eq!(log.alter_isr(change).unwrap(), [2, 3]);
    assert!(log.partition().eligible.is_empty(), "two are enough again");
}

#[test]
fn a_changed_minimum_forgets_who_was_eligible() {
    let mut log = Log::with_topic();
    log.fence(3);
    log.fence(2);
    assert_eq!(log.partition().eligible, [2]);
    log.must(&config("min.insync.replicas", "3"));
    assert!(log.partition().eligible.is_empty());
}

#[test]
fn a_killed_daemon_that_returns_at_once_keeps_its_place_but_not_its_epoch() {
    let mut log = Log::with_topic();
    let before = log.partition().clone();
    log.register_again(|_| {});
    assert_eq!(log.partition().leader, Some(1));
    assert_eq!(log.partition().leader_epoch, before.leader_epoch + 1);
    assert_eq!(log.partition().isr, [1, 2, 3]);
    // A follower's return changes nothing at all.
    let before = log.partition().clone();
    log.register_again(|registration| registration.node = 2);
    assert_eq!(*log.partition(), before);
}

#[test]
fn after_a_power_loss_only_topics_flushed_per_append_are_trusted() {
    let mut log = Log::with_topic();
    log.register_again(|registration| registration.boot_id = "boot-2".to_owned());
    assert_eq!(log.partition().leader, Some(2));
    assert_eq!(log.partition().isr, [2, 3]);

    let mut log = Log::with_topic();
    log.must(&config("flush.messages", "1"));
    log.register_again(|registration| registration.boot_id = "boot-2".to_owned());
    assert_eq!(log.partition().leader, Some(1));
    assert_eq!(log.partition().isr, [1, 2, 3]);

    let mut log = Log::with_topic();
    log.register_again(|registration| {
        registration.boot_id = "boot-2".to_owned();
        registration.clean_stop = true;
    });
    assert_eq!(log.partition().isr, [1, 2, 3], "a clean stop flushes everything");
}

#[test]
fn damage_counts_whatever_the_configuration() {
    let mut log = Log::with_topic();
    log.must(&config("flush.messages", "1"));
    log.register_again(|registration| registration.damaged = vec![(TOPIC, 0)]);
    assert_eq!(log.partition().isr, [2, 3]);
    assert_eq!(log.partition().leader, Some(2));
}

#[test]
fn an_unsafe_last_member_stays_without_leading_until_an_unclean_election() {
    let mut log = Log::with_topic();
    log.must(&config("min.insync.replicas", "1"));
    log.fence(2);
    log.fence(3);
    log.register_again(|registration| registration.damaged = vec![(TOPIC, 0)]);
    let partition = log.partition();
    assert_eq!(
        (&partition.isr[..], &partition.suspect[..], partition.leader),
        (&[1][..], &[1][..], None)
    );
    // Coming back once more without finding new damage does not make it whole.
    log.register_again(|_| {});
    assert_eq!(log.partition().leader, None);
    let outcome = log.must(&Command::Elect {
        kind: ElectionKind::Unclean,
        partitions: vec![(TOPIC, 0)],
    });
    assert_eq!(outcome, Outcome::Elected(vec![Ok(1)]));
    assert!(log.partition().suspect.is_empty());
}

#[test]
fn unclean_elections_happen_by_themselves_where_configured() {
    let mut log = Log::with_topic();
    log.must(&config("min.insync.replicas", "1"));
    for node in [2, 3, 1] {
        log.fence(node);
    }
    log.unfence(3);
    assert_eq!(log.partition().leader, None);
    log.must(&config("unclean.leader.election.enable", "true"));
    assert_eq!(
        (log.partition().leader, &log.partition().isr[..]),
        (Some(3), &[3][..])
    );
}

#[test]
fn in_sync_proposals_are_compare_and_set() {
    let mut log = Log::with_topic();
    let stale = log.isr_change(&[1, 2]);
    log.shrink_to(&[1, 3]);
    assert!(matches!(
        log.alter_isr(stale),
        Err(MetaError::Stale {
            what: StaleWhat::PartitionEpoch,
            ..
        })
    ));
    let mut lost_answer = log.isr_change(&[1, 3]);
    lost_answer.partition_epoch -= 1;
    assert_eq!(
        log.alter_isr(lost_answer).unwrap(),
        [1, 3],
        "already so is success"
    );

    let mut old_leader = log.isr_change(&[1, 2, 3]);
    old_leader.leader_epoch -= 1;
    assert!(log.alter_isr(old_leader).is_err());
    let without_leader = log.isr_change(&[2, 3]);
    assert!(matches!(
        log.alter_isr(without_leader),
        Err(MetaError::InvalidIsr(_))
    ));
    let mut stranger = log.isr_change(&[1]);
    stranger.isr.push((9, 1));
    assert!(matches!(log.alter_isr(stranger), Err(MetaError::InvalidIsr(_))));
    let mut other_run = log.isr_change(&[1, 2, 3]);
    other_run.isr[1].1 -= 1;
    assert!(matches!(
        log.alter_isr(other_run),
        Err(MetaError::Stale {
            what: StaleWhat::DaemonEpoch,
            ..
        })
    ));
    log.fence(2);
    let fenced = log.isr_change(&[1, 2, 3]);
    assert_eq!(log.alter_isr(fenced), Err(MetaError::Ineligible(2)));
}

#[test]
fn a_failed_replica_leaves_and_stays_out_until_it_is_restored() {
    let mut log = Log::with_topic();
    let report = |log: &Log| Command::ReplicaFailed {
        node: 1,
        daemon_epoch: log.epoch(1),
        replicas: vec![(TOPIC, 0)],
        reason: "EIO".to_owned(),
    };
    let command = report(&log);
    log.must(&command);
    assert_eq!(
        (log.partition().leader, &log.partition().isr[..]),
        (Some(2), &[2, 3][..])
    );
    let join = log.isr_change(&[1, 2, 3]);
    assert_eq!(log.alter_isr(join), Err(MetaError::Ineligible(1)));
    let daemon_epoch = log.epoch(1);
    log.must(&Command::ReplicaRestored {
        node: 1,
        daemon_epoch,
        replicas: vec![(TOPIC, 0)],
    });
    let join = log.isr_change(&[1, 2, 3]);
    assert_eq!(log.alter_isr(join).unwrap(), [1, 2, 3]);
}

#[test]
fn a_clean_stop_hands_over_and_the_preferred_leader_comes_back_by_election() {
    let mut log = Log::with_topic();
    let daemon_epoch = log.epoch(1);
    log.must(&Command::Stopping {
        node: 1,
        daemon_epoch,
    });
    assert_eq!(log.partition().leader, Some(2));
    log.register_again(|registration| registration.clean_stop = true);
    assert_eq!(log.partition().leader, Some(2));
    let elect = Command::Elect {
        kind: ElectionKind::Preferred,
        partitions: vec![(TOPIC, 0)],
    };
    assert_eq!(
        log.must(&elect),
        Outcome::Elected(vec![Err(MetaError::NoEligibleLeader)]),
        "not in sync yet"
    );
    let join = log.isr_change(&[1, 2, 3]);
    log.alter_isr(join).unwrap();
    assert_eq!(log.must(&elect), Outcome::Elected(vec![Ok(1)]));
    assert_eq!(log.partition().leader, Some(1));
    assert_eq!(
        log.must(&elect),
        Outcome::Elected(vec![Err(MetaError::ElectionNotNeeded)])
    );
}

#[test]
fn another_disk_under_a_known_id_is_refused_while_the_first_lives_and_trusted_with_nothing_after() {
    let mut log = Log::with_topic();
    let mut other = registration(1, 77);
    assert_eq!(
        log.apply(&Command::Register(other.clone())),
        Err(MetaError::DuplicateNode(1))
    );
    log.fence(1);
    log.fence(2);
    log.fence(3);
    assert_eq!(log.partition().isr, [3]);
    assert_eq!(log.partition().eligible, [2]);
    other.node = 2;
    log.must(&Command::Register(other));
    assert_eq!(log.partition().leader, None, "its disk is not the eligible one");
}

#[test]
fn registering_twice_with_one_incarnation_is_one_registration() {
    let mut log = Log::with(1);
    let again = log.must(&Command::Register(registration(1, 1)));
    assert_eq!(again, Outcome::Registered { epoch: log.epoch(1) });
}

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

fn flow_spec() -> FlowSpec {
    FlowSpec {
        source_cluster: "east".to_owned(),
        target_cluster: "west".to_owned(),
        source: FlowSource::Mesh(vec!["east-1:7100".to_owned()]),
        topics: vec![".*".to_owned()],
        topics_exclude: Vec::new(),
        groups: vec![".*".to_owned()],
        groups_exclude: Vec::new(),
        naming: Naming::Identity,
    }
}

/// A flow with one mirror topic of two partitions on three daemons.
fn mirrored() -> Log {
    let mut log = Log::with(3);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    let mut create = CreateTopic::new("orders", TOPIC, 2, 3);
    create.assignment = Some(vec![vec![1, 2, 3], vec![2, 3, 1]]);
    create.mirror = Some(MirrorBinding {
        flow: "east->west".to_owned(),
        source_topic: "orders".to_owned(),
        source_topic_id: TopicId([3; 16]),
    });
    log.must(&Command::CreateTopic(create));
    log
}

fn lineage_entry(log: &Log, source_epoch: i32, first: i64) -> LineageEntry {
    LineageEntry {
        topic: TOPIC,
        partition: 0,
        leader_epoch: log.partition().leader_epoch,
        lineage: Lineage {
            target_first: first,
            source_cluster_id: "abc".to_owned(),
            source_topic_id: TopicId([3; 16]),
            source_epoch,
            source_first: first,
        },
    }
}

fn enter(log: &mut Log, entry: LineageEntry) -> Result<i32, MetaError> {
    match log.must(&Command::Lineage { entries: vec![entry] }) {
        Outcome::Lineage(mut results) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn declaring_a_flow_again_changes_nothing_and_another_declaration_is_another_version() {
    let mut log = mirrored();
    let again = log.must(&Command::DeclareFlow { spec: flow_spec() });
    let active = |version| Outcome::Flow {
        version,
        state: FlowState::Active,
    };
    assert_eq!(again, active(1));
    let mut spec = flow_spec();
    spec.topics = vec!["orders".to_owned()];
    assert_eq!(log.must(&Command::DeclareFlow { spec }), active(2));
    let refused = log.apply(&Command::RemoveFlow {
        flow: "east->west".to_owned(),
    });
    assert!(matches!(refused, Err(MetaError::MirrorTopic { .. })));
}

#[test]
fn lineage_raises_the_leader_epoch_to_the_sources_and_never_lowers_it() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    assert_eq!(enter(&mut log, entry.clone()), Ok(5));
    assert_eq!(enter(&mut log, entry), Ok(5), "an answer that was lost");
    assert_eq!(log.partition().lineage.len(), 1);
    for _ in 0..3 {
        log.fence(log.partition().leader.unwrap());
        let fenced: Vec<_> = log
            .image
            .nodes
            .values()
            .filter(|daemon| daemon.state == DaemonState::Fenced)
            .map(|daemon| daemon.id)
            .collect();
        for node in fenced {
            log.unfence(node);
        }
    }
    let above = log.partition().leader_epoch;
    assert!(above > 6);
    let entry = lineage_entry(&log, 6, 10);
    assert_eq!(enter(&mut log, entry), Ok(above));
    let backwards = lineage_entry(&log, 5, 20);
    assert!(matches!(
        enter(&mut log, backwards),
        Err(MetaError::LineageOrder(_))
    ));
    let mut stale = lineage_entry(&log, 8, 20);
    stale.leader_epoch -= 1;
    assert!(matches!(
        enter(&mut log, stale),
        Err(MetaError::Stale {
            what: StaleWhat::LeaderEpoch,
            ..
        })
    ));
}

#[test]
fn failover_fences_mirrored_appends_and_promotes_with_the_last_cut() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    enter(&mut log, entry).unwrap();
    let flow = "east->west".to_owned();
    let cut = |log: &Log, partition, at| Command::RecordCut {
        flow: "east->west".to_owned(),
        topic: TOPIC,
        partition,
        leader_epoch: log.image.partition(TOPIC, partition).unwrap().leader_epoch,
        cut: at,
        source_end: Some(120),
    };
    let early = cut(&log, 0, 100);
    assert!(matches!(log.apply(&early), Err(MetaError::FlowState { .. })));
    log.must(&Command::BeginFailover { flow: flow.clone() });
    assert_eq!(log.partition().leader_epoch, 6, "above both sides'");
    assert!(matches!(
        log.apply(&early),
        Err(MetaError::Stale {
            what: StaleWhat::LeaderEpoch,
            ..
        })
    ));
    let late_entry = lineage_entry(&log, 9, 100);
    assert!(matches!(
        enter(&mut log, late_entry),
        Err(MetaError::NotMirroring(_))
    ));
    log.must(&Command::BeginFailover { flow: flow.clone() });
    assert_eq!(
        log.partition().leader_epoch,
        6,
        "beginning twice is beginning once"
    );

    let first = cut(&log, 0, 100);
    log.must(&first);
    let again = cut(&log, 0, 90);
    let Outcome::Cut(recorded) = log.must(&again) else {
        panic!("not a cut");
    };
    assert_eq!(
        (recorded.target_end, recorded.leader_epoch),
        (100, 6),
        "the first one stands"
    );
    assert_eq!(log.image.flows[&flow].state, FlowState::FailingOver);
    let grow = GrowTopic {
        id: TOPIC,
        count: 3,
        assignment: None,
        flow: Some(flow.clone()),
    };
    assert!(log.apply(&Command::GrowTopic(grow)).is_err());

    let last = cut(&log, 1, 7);
    log.must(&last);
    assert_eq!(log.image.flows[&flow].state, FlowState::Promoted);
    let topic = log.image.topic("orders").unwrap();
    assert_eq!(topic.mirror.as_ref().unwrap().state, MirrorState::Promoted);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    assert_eq!(
        log.image.flows[&flow].state,
        FlowState::Promoted,
        "a daemon that restarts with the flow in its file does not undo a failover"
    );
}

#[test]
fn a_mirror_topic_grows_only_by_its_flow() {
    let mut log = mirrored();
    let grow = |flow: Option<&str>| {
        Command::GrowTopic(GrowTopic {
            id: TOPIC,
            count: 3,
            assignment: None,
            flow: flow.map(str::to_owned),
        })
    };
    assert!(matches!(
        log.apply(&grow(None)),
        Err(MetaError::MirrorTopic { .. })
    ));
    log.must(&grow(Some("east->west")));
}

#[test]
fn a_flow_without_topics_is_promoted_at_once() {
    let mut log = Log::with(1);
    log.must(&Command::DeclareFlow { spec: flow_spec() });
    let outcome = log.must(&Command::BeginFailover {
        flow: "east->west".to_owned(),
    });
    assert!(matches!(
        outcome,
        Outcome::Flow {
            state: FlowState::Promoted,
            ..
        }
    ));
}

#[test]
fn commands_and_images_survive_being_stored() {
    let mut log = mirrored();
    let entry = lineage_entry(&log, 5, 0);
    enter(&mut log, entry).unwrap();
    let json = serde_json::to_string(&log.image).unwrap();
    assert_eq!(serde_json::from_str::<Image>(&json).unwrap(), log.image);
    let mut big = registration(1, u128::MAX - 1);
    big.replaces = Some(u128::MAX);
    let command = Command::Register(big);
    let json = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
}
