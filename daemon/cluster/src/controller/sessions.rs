//! The daemons' sessions with their controller: who is silent, who lags, who may lead again.
//!
//! Sans-I/O: heartbeats and ticks come in with the time, actions go out. Sessions live only here, in the memory of the
//! controller, and begin when it is elected *and* has applied the first entry of its reign; the session of the controller
//! before it counts from its last call, since it has been silent since then.
//!
//! **No false storms.** A controller that was itself stopped or cut off must not take everyone else for dead: it
//! proposes to fence only while a quorum has answered recently and its own ticks are on time, gives everyone back the
//! time that it was late, and asks the quorum first when more than half would be fenced.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tradewind_wire::ids::{NodeId, TopicId};

use crate::image::{Daemon, DaemonState, Image};
use crate::metadata::Timing;

/// How recently a quorum must have answered for the controller to fence anyone.
const QUORUM_WITHIN: Duration = Duration::from_millis(300);

/// How long a confirmation of leadership is good for.
const CONFIRMED_FOR: Duration = Duration::from_millis(300);

/// How long a proposed action is waited for before it is proposed again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// How long a cluster must have been calm before preferred leaders are elected again.
const CALM: Duration = Duration::from_secs(10);

/// A daemon fenced twice within this time gets no preferred leadership for a while.
const FENCED_TWICE_WITHIN: Duration = Duration::from_secs(60);
const PENALTY: Duration = Duration::from_secs(30);

/// How many leaders one proposal restores.
const RESTORE_AT_ONCE: usize = 1_000;

/// What the controller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Propose to fence this session.
    Fence {
        node: NodeId,
        daemon_epoch: i64,
        session: i64,
        term: u64,
    },
    /// Propose to unfence.
    Unfence { node: NodeId, daemon_epoch: i64 },
    /// Ask a quorum whether this daemon still leads, and report [`Sessions::confirmed`].
    Confirm,
    /// Propose to elect the preferred leaders of these partitions.
    Restore(Vec<(TopicId, i32)>),
}

/// The sessions of one daemon that may be the controller.
pub(crate) struct Sessions {
    heartbeat: Duration,
    session: Duration,
    restore_every: Option<Duration>,
    reign: Option<Reign>,
}

struct Reign {
    number: u64,
    sessions: BTreeMap<NodeId, Session>,
    last_tick: Duration,
    confirmed: Option<Duration>,
    /// When daemons were fenced, the last few times.
    fences: BTreeMap<NodeId, VecDeque<Duration>>,
    last_change: Duration,
    last_restore: Duration,
}

struct Session {
    daemon_epoch: i64,
    since: Duration,
    heard: Duration,
    applied: u64,
    /// The index that it has to reach, and since when.
    goal: u64,
    goal_since: Duration,
    caught_up: bool,
    proposed: Option<Duration>,
}

impl Session {
    fn new(daemon: &Daemon, now: Duration, goal: u64) -> Self {
        Self {
            daemon_epoch: daemon.epoch,
            since: now,
            heard: now,
            applied: 0,
            goal,
            goal_since: now,
            caught_up: false,
            proposed: None,
        }
    }

    /// Whether a proposal about it is due, and notes that it is made.
    fn propose(&mut self, now: Duration) -> bool {
        let due = self.proposed.is_none_or(|at| now >= at + REPEAT_AFTER);
        if due {
            self.proposed = Some(now);
        }
        due
    }
}

impl Sessions {
    /// Sessions with the intervals of `timing`, and a tick with every heartbeat.
    pub(crate) fn new(timing: &Timing) -> Self {
        Self {
            heartbeat: timing.heartbeat,
            session: timing.session,
            restore_every: timing.restore_leaders,
            reign: None,
        }
    }

    /// The number of the present reign, if this daemon is the controller.
    pub(crate) fn reign(&self) -> Option<u64> {
        self.reign.as_ref().map(|reign| reign.number)
    }

    /// This daemon is the controller, and `image` has the first entry of its reign. `previous` is the controller before
    /// it and when it was last heard.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        number: u64,
        previous: Option<(NodeId, Duration)>,
        image: &Image,
    ) {
        let mut sessions: BTreeMap<NodeId, Session> = image
            .nodes
            .iter()
            .map(|(&node, daemon)| (node, Session::new(daemon, now, image.index)))
            .collect();
        if let Some((node, heard)) = previous
            && let Some(session) = sessions.get_mut(&node)
        {
            session.heard = heard.min(now);
        }
        self.reign = Some(Reign {
            number,
            sessions,
            last_tick: now,
            confirmed: None,
            fences: BTreeMap::new(),
            last_change: now,
            last_restore: now,
        });
    }

    /// This daemon is not the controller any more.
    pub(crate) fn end(&mut self) {
        self.reign = None;
    }

    /// A daemon says that it runs and how far it has applied the log.
    pub(crate) fn heartbeat(&mut self, now: Duration, node: NodeId, daemon_epoch: i64, applied: u64) {
        let session = self
            .reign
            .as_mut()
            .and_then(|reign| reign.sessions.get_mut(&node));
        if let Some(session) = session.filter(|session| session.daemon_epoch == daemon_epoch) {
            session.heard = now;
            session.applied = session.applied.max(applied);
        }
    }

    /// A quorum has confirmed this daemon's leadership.
    pub(crate) fn confirmed(&mut self, now: Duration) {
        if let Some(reign) = &mut self.reign {
            reign.confirmed = Some(now);
        }
    }

    /// What is to be done now. `quorum_ack` is how long ago a quorum last answered.
    pub(crate) fn tick(&mut self, now: Duration, image: &Image, quorum_ack: Option<Duration>) -> Vec<Action> {
        let (heartbeat, length) = (self.heartbeat, self.session);
        let Some(reign) = &mut self.reign else {
            return Vec::new();
        };
        let on_time = reign.forgive_lateness(now, heartbeat);
        reign.follow(now, image);
        let mut actions = Vec::new();
        let doomed = reign.doomed(now, length, image);
        let sure = on_time && quorum_ack.is_some_and(|ago| ago <= QUORUM_WITHIN);
        if !doomed.is_empty() && sure {
            let standing = image
                .nodes
                .values()
                .filter(|daemon| daemon.state != DaemonState::Fenced);
            let many = doomed.len() * 2 > standing.count();
            let confirmed = reign.confirmed.is_some_and(|at| now <= at + CONFIRMED_FOR);
            if many && !confirmed {
                actions.push(Action::Confirm);
            } else {
                actions.extend(reign.fence(now, image, &doomed));
            }
        }
        actions.extend(reign.unfence(now, length, image));
        actions.extend(reign.restore(self.restore_every, now, image).map(Action::Restore));
        actions
    }
}

impl Reign {
    /// Gives every session back the time by which this tick is late; whether it is on time.
    fn forgive_lateness(&mut self, now: Duration, heartbeat: Duration) -> bool {
        let passed = now.saturating_sub(self.last_tick);
        self.last_tick = now;
        if passed <= heartbeat * 2 {
            return true;
        }
        let late = passed - heartbeat;
        for session in self.sessions.values_mut() {
            session.heard = (session.heard + late).min(now);
            session.goal_since = (session.goal_since + late).min(now);
        }
        false
    }

    /// Takes over registrations from the image, and moves the goals of those that reached theirs.
    fn follow(&mut self, now: Duration, image: &Image) {
        self.sessions.retain(|node, _| image.nodes.contains_key(node));
        for (&node, daemon) in &image.nodes {
            let session = self
                .sessions
                .entry(node)
                .or_insert_with(|| Session::new(daemon, now, image.index));
            if session.daemon_epoch != daemon.epoch {
                *session = Session::new(daemon, now, image.index);
                self.last_change = now;
            }
            if session.applied >= session.goal {
                session.caught_up = true;
                session.goal = image.index;
                session.goal_since = now;
            }
        }
    }

    /// Who has been silent, or behind, for longer than a session.
    fn doomed(&self, now: Duration, length: Duration, image: &Image) -> Vec<NodeId> {
        let is_over = |session: &Session| {
            now > session.heard + length
                || (now > session.goal_since + length && session.applied < session.goal)
        };
        self.sessions
            .iter()
            .filter(|(node, session)| {
                let daemon = image.nodes.get(node);
                daemon.is_some_and(|daemon| daemon.state != DaemonState::Fenced) && is_over(session)
            })
            .map(|(&node, _)| node)
            .collect()
    }

    fn fence(&mut self, now: Duration, image: &Image, doomed: &[NodeId]) -> Vec<Action> {
        let mut actions = Vec::new();
        for node in doomed {
            let (Some(daemon), Some(session)) = (image.nodes.get(node), self.sessions.get_mut(node)) else {
                continue;
            };
            if !session.propose(now) {
                continue;
            }
            session.caught_up = false;
            let fences = self.fences.entry(*node).or_default();
            fences.push_back(now);
            while fences.len() > 2 {
                fences.pop_front();
            }
            self.last_change = now;
            actions.push(Action::Fence {
                node: *node,
                daemon_epoch: daemon.epoch,
                session: daemon.session,
                term: self.number,
            });
        }
        actions
    }

    fn unfence(&mut self, now: Duration, length: Duration, image: &Image) -> Vec<Action> {
        let mut actions = Vec::new();
        for (&node, daemon) in &image.nodes {
            let Some(session) = self.sessions.get_mut(&node) else {
                continue;
            };
            if daemon.state != DaemonState::Fenced {
                continue;
            }
            let silent = now > session.heard + length;
            if silent {
                session.caught_up = false;
                session.goal = image.index;
                continue;
            }
            if session.caught_up && session.propose(now) {
                session.since = now;
                self.last_change = now;
                actions.push(Action::Unfence {
                    node,
                    daemon_epoch: daemon.epoch,
                });
            }
        }
        actions
    }

    /// Partitions whose preferred leader may lead but does not, once the cluster has been calm for a while.
    fn restore(
        &mut self,
        every: Option<Duration>,
        now: Duration,
        image: &Image,
    ) -> Option<Vec<(TopicId, i32)>> {
        if now < self.last_restore + every? || now < self.last_change + CALM {
            return None;
        }
        self.last_restore = now;
        let steady = |node: NodeId| {
            let fences = self.fences.get(&node);
            let punished = fences.is_some_and(|fences| {
                fences.len() == 2 && fences[1] <= fences[0] + FENCED_TWICE_WITHIN && now < fences[1] + PENALTY
            });
            let session = self.sessions.get(&node);
            image.is_active(node)
                && !image.drained.contains(&node)
                && !punished
                && session.is_some_and(|session| now >= session.since + CALM && session.caught_up)
        };
        let mut partitions = Vec::new();
        for topic in image.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                let Some(&preferred) = partition.replicas.first() else {
                    continue;
                };
                let could = partition.leader.is_some_and(|leader| leader != preferred)
                    && partition.isr.contains(&preferred)
                    && !partition.failed.contains(&preferred);
                if could && steady(preferred) && partitions.len() < RESTORE_AT_ONCE {
                    partitions.push((topic.id, number as i32));
                }
            }
        }
        (!partitions.is_empty()).then_some(partitions)
    }
}
