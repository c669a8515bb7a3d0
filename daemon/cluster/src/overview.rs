//! A cluster at a glance, for people who run it: each daemon with what it leads and holds, what is amiss, what moves.
//!
//! Pure: made from an image and what the Raft leader says of its group. [`needed`] is also the rule by which a drain is
//! refused, so that what is shown and what is enforced are the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tradewind_wire::ids::NodeId;

use crate::image::{DaemonState, Image, Partition, Topic};
use crate::quorum::Quorum;

/// A cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overview {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The controller, if one is known.
    pub controller: Option<NodeId>,
    /// The daemons, registered or members of the Raft group, by id.
    pub daemons: Vec<DaemonOverview>,
    /// How many topics there are.
    pub topics: usize,
    /// How many partitions they have.
    pub partitions: usize,
    /// Partitions without a leader.
    pub leaderless: usize,
    /// Partitions with a replica out of sync; one that is only coming does not count.
    pub under_replicated: usize,
    /// Partitions that refuse `acks=all`.
    pub under_min_isr: usize,
    /// Moves of replicas that are not done.
    pub moves: Vec<MoveOverview>,
}

/// One daemon of a cluster at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DaemonOverview {
    /// Its id.
    pub id: NodeId,
    /// `active`, `stopping`, `fenced`, or `not registered` for a member that has not registered yet.
    pub state: String,
    /// Whether it is drained: it leads only what nobody else can.
    pub drained: bool,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Where other daemons reach it.
    pub mesh: String,
    /// Where clients reach it, `host:port`.
    pub listeners: Vec<String>,
    /// Its part in the Raft group: `leader`, `voter`, `learner`; none if it is no member, or nobody could be asked.
    pub raft: Option<String>,
    /// How many entries of the metadata log it lacks; none if that is not known.
    pub raft_lag: Option<u64>,
    /// Partitions that it leads.
    pub leaders: usize,
    /// Partitions that it should lead when all is well.
    pub preferred: usize,
    /// Replicas on it, those that are coming or going included.
    pub replicas: usize,
    /// Replicas on it that are not in sync.
    pub out_of_sync: usize,
    /// Partitions that would refuse `acks=all`, or have no leader, if it stopped now.
    pub needed: usize,
}

/// A move that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MoveOverview {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The daemons before it.
    pub from: Vec<NodeId>,
    /// The daemons after it, the preferred leader first.
    pub to: Vec<NodeId>,
    /// The daemons that have yet to catch up.
    pub waits_for: Vec<NodeId>,
}

impl Overview {
    /// The cluster as `image` has it, and its Raft group as `quorum` has it.
    pub fn of(image: &Image, controller: Option<NodeId>, quorum: Option<&Quorum>) -> Self {
        let mut daemons: BTreeMap<NodeId, DaemonOverview> = BTreeMap::new();
        for &id in image.members.iter().chain(image.nodes.keys()) {
            daemons
                .entry(id)
                .or_insert_with(|| daemon(image, controller, quorum, id));
        }
        let mut overview = Self {
            cluster_id: image.cluster_id.map(|id| id.to_string()),
            controller,
            topics: image.topics.len(),
            ..Self::default()
        };
        let mut count = |id: NodeId, add: fn(&mut DaemonOverview)| {
            if let Some(daemon) = daemons.get_mut(&id) {
                add(daemon);
            }
        };
        for topic in image.topics.values() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                overview.count(image, topic, number, partition);
                if let Some(leader) = partition.leader {
                    count(leader, |daemon| daemon.leaders += 1);
                }
                if let Some(&preferred) = partition.replicas.first() {
                    count(preferred, |daemon| daemon.preferred += 1);
                }
                for &id in &partition.replicas {
                    count(id, |daemon| daemon.replicas += 1);
                    if !partition.isr.contains(&id) {
                        count(id, |daemon| daemon.out_of_sync += 1);
                    }
                    if is_needed(image, topic, partition, id) {
                        count(id, |daemon| daemon.needed += 1);
                    }
                }
            }
        }
        overview.daemons = daemons.into_values().collect();
        overview
    }

    fn count(&mut self, image: &Image, topic: &Topic, number: i32, partition: &Partition) {
        let coming = partition.adding();
        let mut due = partition.replicas.iter().filter(|id| !coming.contains(id));
        self.partitions += 1;
        self.leaderless += usize::from(partition.leader.is_none());
        self.under_replicated += usize::from(due.any(|id| !partition.isr.contains(id)));
        let min_isr = image.min_isr(topic, partition, partition.leader);
        self.under_min_isr += usize::from(partition.isr.len() < min_isr);
        if let Some(moving) = &partition.reassignment {
            let missing = |id: &NodeId| !partition.isr.contains(id);
            self.moves.push(MoveOverview {
                topic: topic.name.clone(),
                partition: number,
                from: moving.original.clone(),
                to: moving.target.clone(),
                waits_for: moving.target.iter().copied().filter(missing).collect(),
            });
        }
    }

    /// Whether every partition has its leader and all of its replicas, nothing moves, and every daemon is active.
    pub fn is_well(&self) -> bool {
        let active = |daemon: &DaemonOverview| daemon.state == "active";
        self.controller.is_some()
            && self.leaderless + self.under_replicated + self.under_min_isr == 0
            && self.moves.is_empty()
            && self.daemons.iter().all(active)
    }
}

fn daemon(image: &Image, controller: Option<NodeId>, quorum: Option<&Quorum>, id: NodeId) -> DaemonOverview {
    let registered = image.nodes.get(&id);
    let state = match registered.map(|daemon| daemon.state) {
        Some(DaemonState::Active) => "active",
        Some(DaemonState::Stopping) => "stopping",
        Some(DaemonState::Fenced) => "fenced",
        None => "not registered",
    };
    let among = |members: &[crate::QuorumMember]| members.iter().find(|member| member.node == id).copied();
    let (voter, learner) = quorum.map_or((None, None), |quorum| {
        (among(&quorum.voters), among(&quorum.learners))
    });
    let raft = match (voter, learner) {
        (Some(_), _) if controller == Some(id) => Some("leader"),
        (Some(_), _) => Some("voter"),
        (None, Some(_)) => Some("learner"),
        (None, None) => None,
    };
    let end = quorum.and_then(|quorum| {
        quorum
            .voters
            .iter()
            .find(|one| quorum.leader == Some(one.node))?
            .end
    });
    let own = voter.or(learner).and_then(|member| member.end);
    DaemonOverview {
        id,
        state: state.to_owned(),
        drained: image.drained.contains(&id),
        rack: registered.and_then(|daemon| daemon.rack.clone()),
        mesh: registered.map(|daemon| daemon.mesh.clone()).unwrap_or_default(),
        listeners: registered
            .iter()
            .flat_map(|daemon| &daemon.listeners)
            .map(|at| format!("{}:{}", at.host, at.port))
            .collect(),
        raft: raft.map(str::to_owned),
        raft_lag: end.zip(own).map(|(end, own)| end.saturating_sub(own)),
        ..DaemonOverview::default()
    }
}

/// The partitions that would refuse `acks=all`, or have no leader, if `node` stopped now.
pub(crate) fn needed(image: &Image, node: NodeId) -> Vec<(String, i32)> {
    let mut needed = Vec::new();
    for topic in image.topics.values() {
        for (number, partition) in (0..).zip(&topic.partitions) {
            if is_needed(image, topic, partition, node) {
                needed.push((topic.name.clone(), number));
            }
        }
    }
    needed.sort_unstable();
    needed
}

/// Whether the partition would refuse `acks=all`, or have no leader, if `node` stopped now. Daemons that are drained count
/// as stopped, for they are about to be.
fn is_needed(image: &Image, topic: &Topic, partition: &Partition, node: NodeId) -> bool {
    let stays = |id: &&NodeId| **id != node && image.is_active(**id) && !image.drained.contains(id);
    let staying = partition.isr.iter().filter(stays).count();
    partition.isr.contains(&node) && staying < image.min_isr(topic, partition, partition.leader)
}
