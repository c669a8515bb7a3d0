//! The rules one by one, each on a small image: daemons and in-sync sets here, topics and flows beside.

mod draining;
mod failbacks;
mod flows;
mod guarding;
mod moves;
mod region_epochs;
mod regions;
mod topics;

use std::collections::{BTreeMap, BTreeSet};

use tradewind_wire::ids::{ClusterId, NodeId, TopicId};

use super::{Position, apply};
use crate::command::{
    Command, ConfigChange, ConfigResource, CreateTopic, ElectionKind, IsrChange, MetaError, Outcome,
    Registration, StaleWhat,
};
use crate::image::{DaemonState, Image, Partition};

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
        own: BTreeSet::new(),
        boot_id: "boot-1".to_owned(),
        clean_stop: false,
        damaged: Vec::new(),
        rack: None,
        mesh: format!("host-{node}:7100"),
        listeners: Vec::new(),
        defaults: BTreeMap::from([
            ("min.insync.replicas".to_owned(), "2".to_owned()),
            ("flush.messages".to_owned(), i64::MAX.to_string()),
        ]),
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
fn a_daemon_whose_image_is_old_is_known_by_any_of_its_runs() {
    let mut log = Log::with_topic();
    log.fence(1);
    log.fence(2);
    log.fence(3);
    assert_eq!(log.partition().isr, [3]);
    let before = log.image.nodes[&3].incarnation;
    let mut back = registration(3, before + 7);
    back.own = BTreeSet::from([before, before + 7]);
    log.must(&Command::Register(back));
    assert!(
        log.partition().suspect.is_empty(),
        "it is the same data directory"
    );
    assert_eq!(log.partition().leader, Some(3));
    let mut stranger = registration(3, before + 8);
    stranger.own = BTreeSet::from([before + 8]);
    log.fence(3);
    log.must(&Command::Register(stranger));
    assert_eq!(log.partition().suspect, [3], "it is another one");
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
