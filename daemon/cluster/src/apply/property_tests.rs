//! Random histories: the rules against a model of the logs that they protect.
//!
//! The model has one partition on three or four daemons. Leaders append, followers copy (cutting what diverges first),
//! the high watermark moves by the rule of the data half, daemons are fenced, restarted, robbed of their page cache,
//! replicas are moved (and those that are dropped deleted at once). In every history: one leader per epoch, epochs never fall, the image keeps its invariants, and a leader that was elected
//! cleanly has every committed record.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};

use super::{Position, apply};
use crate::command::{Command, CreateTopic, IsrChange, Move, Registration};
use crate::image::{DaemonState, Image, Partition};

const TOPIC: TopicId = TopicId([7; 16]);

#[derive(Debug, Clone)]
enum Event {
    Append,
    Copy(NodeId),
    Shrink(NodeId),
    Join(NodeId),
    Fence(NodeId),
    Unfence(NodeId),
    Stop(NodeId),
    /// The process was killed and comes back.
    Restart(NodeId),
    /// The machine lost its power; this many records of its log are gone.
    PowerLoss(NodeId, usize),
    Fail(NodeId),
    MinIsr(u8),
    RestorePreferred,
    /// The replicas shall be on these daemons.
    Move(Vec<NodeId>),
    CancelMove,
    Drain(NodeId, bool),
}

fn event(daemons: NodeId) -> impl Strategy<Value = Event> {
    let node = 1..=daemons;
    let all: Vec<NodeId> = node.clone().collect();
    let some = proptest::sample::subsequence(all.clone(), 1..=all.len()).prop_shuffle();
    prop_oneof![
        4 => Just(Event::Append),
        6 => node.clone().prop_map(Event::Copy),
        2 => node.clone().prop_map(Event::Shrink),
        4 => node.clone().prop_map(Event::Join),
        3 => node.clone().prop_map(Event::Fence),
        4 => node.clone().prop_map(Event::Unfence),
        1 => node.clone().prop_map(Event::Stop),
        3 => node.clone().prop_map(Event::Restart),
        1 => (node.clone(), 0usize..4).prop_map(|(node, lost)| Event::PowerLoss(node, lost)),
        1 => node.clone().prop_map(Event::Fail),
        1 => (node, proptest::bool::ANY).prop_map(|(node, on)| Event::Drain(node, on)),
        1 => (1u8..4).prop_map(Event::MinIsr),
        1 => Just(Event::RestorePreferred),
        2 => some.prop_map(Event::Move),
        1 => Just(Event::CancelMove),
    ]
}

/// A record: the leader epoch that it was appended under, and a number of its own.
type Record = (i32, u64);

struct Model {
    image: Image,
    logs: BTreeMap<NodeId, Vec<Record>>,
    committed: Vec<Record>,
    leaders: BTreeMap<i32, NodeId>,
    records: u64,
    incarnation: u128,
    boots: BTreeMap<NodeId, u32>,
}

impl Model {
    fn new(daemons: NodeId) -> Self {
        let mut model = Self {
            image: Image::default(),
            logs: (1..=daemons).map(|node| (node, Vec::new())).collect(),
            committed: Vec::new(),
            leaders: BTreeMap::new(),
            records: 0,
            incarnation: 0,
            boots: BTreeMap::new(),
        };
        model.propose(&Command::Init {
            cluster_id: ClusterId([1; 16]),
            cluster_number: 1,
        });
        for node in 1..=daemons {
            model.register(node);
        }
        let mut create = CreateTopic::new("orders", TOPIC, 1, 3);
        create.assignment = Some(vec![(1..=daemons).collect()]);
        model.propose(&Command::CreateTopic(create));
        model
    }

    fn propose(&mut self, command: &Command) {
        let before = self.image.partition(TOPIC, 0).cloned();
        let at = Position {
            index: self.image.index + 1,
            term: 1,
        };
        let (image, _) = apply(&self.image, at, command);
        assert_eq!(image.check(), Ok(()), "after {command:?}");
        self.image = image;
        if let (Some(before), Some(after)) = (before, self.image.partition(TOPIC, 0)) {
            for (node, log) in &mut self.logs {
                if !after.replicas.contains(node) {
                    log.clear();
                }
            }
            let dropped = before.replicas.iter().any(|node| !after.replicas.contains(node));
            assert!(
                !dropped || after.leader_epoch > before.leader_epoch,
                "a drop ends the epoch"
            );
            assert!(after.leader_epoch >= before.leader_epoch);
            assert!(after.partition_epoch >= before.partition_epoch);
            assert!(after == &before || after.partition_epoch > before.partition_epoch);
            if let Some(leader) = after.leader {
                let of_epoch = self.leaders.entry(after.leader_epoch).or_insert(leader);
                assert_eq!(*of_epoch, leader, "two leaders in epoch {}", after.leader_epoch);
                let log = &self.logs[&leader];
                assert!(
                    log.starts_with(&self.committed),
                    "leader {leader} lacks committed records after {command:?}: {log:?} {:?}",
                    self.committed
                );
            }
        }
    }

    fn partition(&self) -> &Partition {
        self.image.partition(TOPIC, 0).unwrap()
    }

    fn register(&mut self, node: NodeId) {
        self.incarnation += 1;
        let boot = self.boots.get(&node).copied().unwrap_or(0);
        let registration = Registration {
            node,
            incarnation: self.incarnation,
            replaces: self.image.nodes.get(&node).map(|daemon| daemon.incarnation),
            own: BTreeSet::new(),
            boot_id: format!("boot-{boot}"),
            clean_stop: false,
            damaged: Vec::new(),
            rack: None,
            mesh: String::new(),
            listeners: Vec::new(),
            defaults: BTreeMap::from([
                ("min.insync.replicas".to_owned(), "2".to_owned()),
                ("flush.messages".to_owned(), i64::MAX.to_string()),
            ]),
        };
        self.propose(&Command::Register(registration));
    }

    /// How much of its log `node` shares with the leader: what it may acknowledge.
    fn acked(&self, node: NodeId, leader: NodeId) -> usize {
        let (own, leading) = (&self.logs[&node], &self.logs[&leader]);
        own.iter().zip(leading).take_while(|(a, b)| a == b).count()
    }

    /// Moves the high watermark as the data half does: the least acknowledged end of the set, if it is large enough.
    fn advance(&mut self) {
        let partition = self.partition();
        let Some(leader) = partition.leader else {
            return;
        };
        let topic = self.image.topic("orders").unwrap();
        if partition.isr.len() < self.image.min_isr(topic, partition, Some(leader)) {
            return;
        }
        let acked = partition.isr.iter().map(|&node| self.acked(node, leader));
        let end = acked.min().unwrap_or(0);
        if end > self.committed.len() {
            self.committed = self.logs[&leader][..end].to_vec();
        }
    }

    fn alter_isr(&mut self, change: impl FnOnce(&mut Vec<NodeId>)) {
        let partition = self.partition().clone();
        let Some(leader) = partition.leader else {
            return;
        };
        let mut isr = partition.isr;
        change(&mut isr);
        let with_epochs = isr
            .iter()
            .map(|node| (*node, self.image.nodes[node].epoch))
            .collect();
        self.propose(&Command::AlterIsr {
            node: leader,
            daemon_epoch: self.image.nodes[&leader].epoch,
            changes: vec![IsrChange {
                topic: TOPIC,
                partition: 0,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                isr: with_epochs,
            }],
        });
    }

    fn step(&mut self, event: &Event) {
        let leader = self.partition().leader;
        match *event {
            Event::Append => {
                if let Some(leader) = leader {
                    self.records += 1;
                    let record = (self.partition().leader_epoch, self.records);
                    self.logs.get_mut(&leader).unwrap().push(record);
                }
            }
            Event::Copy(node) => {
                let copies = self.image.is_active(node) && self.partition().replicas.contains(&node);
                if let Some(leader) = leader.filter(|_| copies) {
                    let log = self.logs[&leader].clone();
                    self.logs.insert(node, log);
                }
            }
            Event::Shrink(node) => self.alter_isr(|isr| isr.retain(|member| *member != node)),
            Event::Join(node) => {
                // Caught up: past the watermark, and past the start of the leader's epoch.
                if leader.is_some_and(|leader| self.acked(node, leader) == self.logs[&leader].len()) {
                    self.alter_isr(|isr| {
                        if !isr.contains(&node) {
                            isr.push(node);
                        }
                    });
                }
            }
            Event::Fence(node) => {
                let daemon = &self.image.nodes[&node];
                let command = Command::Fence {
                    node,
                    daemon_epoch: daemon.epoch,
                    session: daemon.session,
                    term: 1,
                };
                self.propose(&command);
            }
            Event::Unfence(node) => {
                let daemon_epoch = self.image.nodes[&node].epoch;
                self.propose(&Command::Unfence { node, daemon_epoch });
            }
            Event::Stop(node) => {
                let daemon_epoch = self.image.nodes[&node].epoch;
                self.propose(&Command::Stopping { node, daemon_epoch });
            }
            Event::Restart(node) => self.register(node),
            Event::PowerLoss(node, lost) => {
                let log = self.logs.get_mut(&node).unwrap();
                log.truncate(log.len().saturating_sub(lost));
                *self.boots.entry(node).or_default() += 1;
                self.power_lost(node);
            }
            Event::Fail(node) => {
                let daemon_epoch = self.image.nodes[&node].epoch;
                self.propose(&Command::ReplicaFailed {
                    node,
                    daemon_epoch,
                    replicas: vec![(TOPIC, 0)],
                    reason: String::new(),
                });
            }
            Event::MinIsr(value) => {
                let change = crate::command::ConfigChange::Set(value.to_string());
                self.propose(&Command::AlterConfigs {
                    resource: crate::command::ConfigResource::Topic(TOPIC),
                    replace: false,
                    changes: BTreeMap::from([("min.insync.replicas".to_owned(), change)]),
                });
            }
            Event::Move(ref target) => self.reassign(Some(target.clone())),
            Event::CancelMove => self.reassign(None),
            Event::Drain(node, on) => self.propose(&Command::Drain {
                node,
                on,
                force: true,
            }),
            Event::RestorePreferred => self.propose(&Command::Elect {
                kind: crate::command::ElectionKind::Preferred,
                partitions: vec![(TOPIC, 0)],
            }),
        }
        self.advance();
    }

    fn reassign(&mut self, replicas: Option<Vec<NodeId>>) {
        self.propose(&Command::Reassign {
            moves: vec![Move {
                topic: TOPIC,
                partition: 0,
                replicas,
            }],
            resize: true,
        });
    }

    /// Between the loss and the registration nobody may take the daemon for a leader: the registration is what tells.
    fn power_lost(&mut self, node: NodeId) {
        self.register(node);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_loses_a_committed_record_or_has_two_leaders_in_one_epoch(
        events in proptest::collection::vec(event(3), 1..80),
    ) {
        let mut model = Model::new(3);
        for event in &events {
            model.step(event);
        }
    }

    #[test]
    fn the_same_holds_with_four_daemons(events in proptest::collection::vec(event(4), 1..60)) {
        let mut model = Model::new(4);
        for event in &events {
            model.step(event);
        }
        let active = model.image.nodes.values().filter(|d| d.state == DaemonState::Active).count();
        prop_assert!(active <= 4);
    }
}
