//! Sessions against a clock that the test holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_wire::ids::{NodeId, TopicId};

use super::sessions::{Action, Sessions};
use crate::apply::{Position, apply};
use crate::command::{Command, CreateTopic, Registration};
use crate::image::Image;
use crate::metadata::Timing;

const TICK: Duration = Duration::from_millis(100);
const SESSION: Duration = Duration::from_secs(1);
const QUORUM: Option<Duration> = Some(Duration::from_millis(50));

/// A controller of three daemons, the time, and who sends heartbeats.
struct Scene {
    sessions: Sessions,
    image: Image,
    now: Duration,
    alive: Vec<NodeId>,
}

impl Scene {
    fn new() -> Self {
        Self::with(Timing::default())
    }

    fn with(timing: Timing) -> Self {
        let timing = Timing {
            heartbeat: TICK,
            session: SESSION,
            ..timing
        };
        let mut scene = Self {
            sessions: Sessions::new(&timing),
            image: Image::default(),
            now: Duration::from_secs(100),
            alive: vec![1, 2, 3],
        };
        for node in 1..=3 {
            scene.propose(&Command::Register(Registration {
                node,
                incarnation: 1,
                replaces: None,
                own: BTreeSet::new(),
                boot_id: String::new(),
                clean_stop: false,
                damaged: Vec::new(),
                rack: None,
                mesh: String::new(),
                listeners: Vec::new(),
                defaults: BTreeMap::new(),
            }));
        }
        scene.sessions.begin(scene.now, 1, None, &scene.image);
        scene
    }

    fn propose(&mut self, command: &Command) {
        let at = Position {
            index: self.image.index + 1,
            term: 1,
        };
        let (image, outcome) = apply(&self.image, at, command);
        outcome.unwrap();
        self.image = image;
    }

    fn beat(&mut self) {
        for &node in &self.alive {
            let epoch = self.image.nodes[&node].epoch;
            self.sessions.heartbeat(self.now, node, epoch, self.image.index);
        }
    }

    /// One tick on time, after everyone's heartbeats.
    fn tick(&mut self) -> Vec<Action> {
        self.now += TICK;
        self.beat();
        self.sessions.tick(self.now, &self.image, QUORUM)
    }

    /// Ticks for `time`, carrying out what is asked; all that was asked.
    fn run(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while self.now < end {
            for action in self.tick() {
                self.carry_out(&action);
                all.push(action);
            }
        }
        all
    }

    fn carry_out(&mut self, action: &Action) {
        match action.clone() {
            Action::Fence {
                node,
                daemon_epoch,
                session,
                term,
            } => self.propose(&Command::Fence {
                node,
                daemon_epoch,
                session,
                term,
            }),
            Action::Unfence { node, daemon_epoch } => {
                self.propose(&Command::Unfence { node, daemon_epoch });
            }
            Action::Confirm => self.sessions.confirmed(self.now),
            Action::Restore(partitions) => self.propose(&Command::Elect {
                kind: crate::command::ElectionKind::Preferred,
                partitions,
            }),
        }
    }
}

fn fenced(actions: &[Action]) -> Vec<NodeId> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Fence { node, .. } => Some(*node),
            _ => None,
        })
        .collect()
}

#[test]
fn a_silent_daemon_is_fenced_after_a_session_and_unfenced_when_it_is_heard() {
    let mut scene = Scene::new();
    assert_eq!(scene.run(SESSION * 3), []);
    scene.alive.retain(|node| *node != 2);
    assert_eq!(fenced(&scene.run(SESSION - TICK)), [] as [NodeId; 0]);
    assert_eq!(fenced(&scene.run(TICK * 3)), [2]);
    assert_eq!(scene.run(SESSION * 3), [], "nothing more is to be done about it");
    scene.alive.push(2);
    let actions = scene.run(SESSION);
    assert!(
        matches!(actions[..], [Action::Unfence { node: 2, .. }]),
        "{actions:?}"
    );
}

#[test]
fn a_daemon_that_applies_nothing_is_fenced_and_comes_back_only_when_caught_up() {
    let mut scene = Scene::new();
    scene.run(SESSION);
    scene.alive.retain(|node| *node != 2);
    let stuck_at = scene.image.index;
    scene.propose(&Command::AllocateProducerIds { node: 1 });
    let mut actions = Vec::new();
    for _ in 0..15 {
        let epoch = scene.image.nodes[&2].epoch;
        scene.sessions.heartbeat(scene.now, 2, epoch, stuck_at);
        for action in scene.tick() {
            scene.carry_out(&action);
            actions.push(action);
        }
    }
    assert_eq!(fenced(&actions), [2], "heard, but behind");
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Unfence { .. }))
    );
    scene.alive.push(2);
    let actions = scene.run(SESSION * 2);
    assert!(
        matches!(actions[..], [Action::Unfence { node: 2, .. }]),
        "{actions:?}"
    );
}

#[test]
fn a_controller_that_was_stopped_itself_fences_nobody() {
    let mut scene = Scene::new();
    scene.run(SESSION);
    // Stopped for a minute; the first tick afterwards comes before any heartbeat is read.
    scene.now += Duration::from_secs(60);
    assert_eq!(scene.sessions.tick(scene.now, &scene.image, QUORUM), []);
    assert_eq!(scene.run(SESSION * 3), []);
}

#[test]
fn a_controller_without_a_quorum_fences_nobody() {
    let mut scene = Scene::new();
    scene.alive.retain(|node| *node == 1);
    for quorum in [None, Some(Duration::from_millis(301))] {
        for _ in 0..30 {
            scene.now += TICK;
            scene.beat();
            assert_eq!(scene.sessions.tick(scene.now, &scene.image, quorum), []);
        }
    }
}

#[test]
fn before_more_than_half_are_fenced_leadership_is_confirmed() {
    let mut scene = Scene::new();
    scene.run(SESSION);
    scene.alive.retain(|node| *node == 1);
    let mut first = Vec::new();
    while first.is_empty() {
        first = scene.tick();
    }
    assert_eq!(first, [Action::Confirm]);
    assert_eq!(scene.tick(), [Action::Confirm], "not confirmed yet");
    scene.sessions.confirmed(scene.now);
    assert_eq!(fenced(&scene.tick()), [2, 3]);
}

#[test]
fn a_new_controller_gives_everyone_a_session_except_the_one_before_it() {
    let mut scene = Scene::new();
    scene.alive = vec![2];
    let heard = scene.now - Duration::from_millis(800);
    scene.sessions.begin(scene.now, 2, Some((1, heard)), &scene.image);
    assert_eq!(fenced(&scene.tick()), [] as [NodeId; 0]);
    assert_eq!(fenced(&scene.tick()), [] as [NodeId; 0]);
    assert_eq!(fenced(&scene.tick()), [1]);
}

#[test]
fn only_the_reign_that_began_counts_heartbeats() {
    let mut scene = Scene::new();
    scene.sessions.end();
    assert_eq!(scene.sessions.reign(), None);
    scene.alive.clear();
    assert_eq!(scene.run(SESSION * 3), []);
}

const TOPIC: TopicId = TopicId([7; 16]);

impl Scene {
    /// A topic whose leader is to be daemon 2.
    fn prefer_daemon_2(&mut self) {
        let mut create = CreateTopic::new("orders", TOPIC, 1, 3);
        create.assignment = Some(vec![vec![2, 1, 3]]);
        self.propose(&Command::CreateTopic(create));
    }

    fn leader(&self) -> Option<NodeId> {
        self.image.partition(TOPIC, 0).unwrap().leader
    }

    /// Daemon 2 is silent until daemon 1 leads, returns, and is in sync again.
    fn flap_daemon_2(&mut self) {
        self.alive.retain(|node| *node != 2);
        self.run(SESSION * 2);
        assert_eq!(self.leader(), Some(1));
        self.alive.push(2);
        self.run(SESSION);
        let partition = self.image.partition(TOPIC, 0).unwrap().clone();
        let node = partition.leader.unwrap();
        self.propose(&Command::AlterIsr {
            node,
            daemon_epoch: self.image.nodes[&node].epoch,
            changes: vec![crate::command::IsrChange {
                topic: TOPIC,
                partition: 0,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                isr: (1..=3).map(|n| (n, self.image.nodes[&n].epoch)).collect(),
            }],
        });
    }
}

#[test]
fn preferred_leaders_return_once_the_cluster_is_calm_but_not_to_a_daemon_that_flaps() {
    let mut scene = Scene::new();
    scene.prefer_daemon_2();
    scene.flap_daemon_2();
    scene.run(Duration::from_secs(8));
    assert_eq!(scene.leader(), Some(1), "too early");
    scene.run(Duration::from_secs(12));
    assert_eq!(scene.leader(), Some(2));

    scene.flap_daemon_2();
    scene.run(Duration::from_secs(20));
    assert_eq!(scene.leader(), Some(1), "fenced twice in a minute");
    scene.run(Duration::from_secs(25));
    assert_eq!(scene.leader(), Some(2));
}

#[test]
fn preferred_leaders_wait_to_be_asked_for_where_that_is_configured() {
    let mut scene = Scene::with(Timing {
        restore_leaders: None,
        ..Timing::default()
    });
    scene.prefer_daemon_2();
    scene.flap_daemon_2();
    scene.run(Duration::from_secs(60));
    assert_eq!(scene.leader(), Some(1));
}
