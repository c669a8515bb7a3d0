//! The cluster's metadata as every daemon holds it: one immutable value per applied entry of the Raft log.
//!
//! Readers take an `Arc<Image>` and never lock. Only [`crate::apply`] makes the next image from this one; two daemons
//! that have applied the same index hold equal images. Topics are behind `Arc`, so the next image shares what did not
//! change.
//!
//! Invariants (checked by [`Image::check`] in tests and after every applied entry of a debug build): a partition's
//! leader is one of its replicas, in its in-sync set, and an active daemon; the in-sync set is never empty and a subset
//! of the replicas; the eligible and in-sync sets are disjoint; names and topics agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tradewind_wire::drill::DrillNote;
use tradewind_wire::failback::Failback;
use tradewind_wire::flow::{FlowSpec, Lineage, Origin, Pause};
use tradewind_wire::ids::{ClusterId, NodeId, TopicId};
use tradewind_wire::region::{RegionMove, Switchover, TopicFence};

/// Everything that Raft agrees on, after one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The log index of the last applied entry.
    pub index: u64,
    /// The Raft term of that entry.
    pub term: u64,
    /// The cluster's id; `None` until the cluster has been initialised.
    pub cluster_id: Option<ClusterId>,
    /// The cluster's number, the upper 16 bits of its producer ids; 0 until initialised.
    pub cluster_number: u16,
    /// The daemons of the Raft membership, voters and learners, whether registered or not.
    pub members: BTreeSet<NodeId>,
    /// The registered daemons.
    pub nodes: BTreeMap<NodeId, Daemon>,
    /// Topics by id.
    pub topics: BTreeMap<TopicId, Arc<Topic>>,
    /// Topic ids by name.
    pub names: BTreeMap<String, TopicId>,
    /// How many producer ids were handed out.
    pub next_producer_id: u64,
    /// Flows into this cluster, by name (`east->west`).
    pub flows: BTreeMap<String, Flow>,
    /// Flows that an operator has removed, by name: when, in ms since the epoch. Only a command declares one again.
    #[serde(default)]
    pub removed_flows: BTreeMap<String, i64>,
    /// Flows out of this cluster that move, or moved, topics away, by name.
    #[serde(default)]
    pub moves: BTreeMap<String, RegionMove>,
    /// The region epoch of what is shared with another cluster, by its name.
    #[serde(default)]
    pub regions: BTreeMap<String, u64>,
    /// The highest region epoch with this cluster that a source of a flow has told, by its name. It is not ours: it only
    /// says what a failover must be above.
    #[serde(default)]
    pub heard_epochs: BTreeMap<String, u64>,
    /// What other clusters copy from this one under the same names, and could take over, by their names.
    #[serde(default)]
    pub copied: BTreeMap<String, tradewind_wire::guard::Copied>,
    /// The operator's last word for each cluster that had not answered after a start.
    #[serde(default)]
    pub unguarded: BTreeMap<String, tradewind_wire::guard::Unguarded>,
    /// Cluster-wide dynamic configuration.
    pub cluster_configs: BTreeMap<String, String>,
    /// Per-daemon dynamic configuration.
    pub node_configs: BTreeMap<NodeId, BTreeMap<String, String>>,
    /// Configuration of consumer groups, by group id.
    #[serde(default)]
    pub group_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// The last deleted topics and the index of their deletion: a data directory may remove their files.
    pub tombstones: BTreeMap<TopicId, u64>,
    /// Daemons that an operator has drained: they lead only what no other can, and get no new replicas while others can
    /// take them.
    #[serde(default)]
    pub drained: BTreeSet<NodeId>,
}

/// A registered daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its node id.
    pub id: NodeId,
    /// The log index of its registration: what Kafka calls the broker epoch.
    pub epoch: i64,
    /// The log index at which its present session began: its registration or its last unfencing.
    pub session: i64,
    /// The random number of this run of the process.
    pub incarnation: u128,
    /// The operating system's boot id when it registered.
    pub boot_id: String,
    /// Whether it may lead.
    pub state: DaemonState,
    /// Its failure domain, if configured.
    pub rack: Option<String>,
    /// Where other daemons reach it, `host:port` (UDP).
    pub mesh: String,
    /// Where clients reach it.
    pub listeners: Vec<Endpoint>,
    /// The configuration defaults in its own file that decide about safety (see [`crate::config::SAFETY_KEYS`]).
    pub defaults: BTreeMap<String, String>,
}

/// Whether a daemon may lead partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// It may.
    Active,
    /// It is being stopped cleanly and hands its partitions over.
    Stopping,
    /// It has not been heard, or it lags: it leads nothing and is in no in-sync set that has another member.
    Fenced,
}

/// A listener for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The listener's name.
    pub name: String,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its id, new on every creation.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partitions; the position is the partition number.
    pub partitions: Vec<Partition>,
    /// Its configuration where it differs from the defaults.
    pub configs: BTreeMap<String, String>,
    /// What it mirrors, if it is or was a mirror.
    pub mirror: Option<MirrorTopic>,
    /// Whether it belongs to the system (`__consumer_offsets`).
    pub internal: bool,
    /// That clients may not write it here, because it is being moved to another cluster or has been.
    #[serde(default)]
    pub fence: Option<TopicFence>,
}

/// What a mirror topic mirrors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorTopic {
    /// The flow, its only writer while mirroring.
    pub flow: String,
    /// The topic's name in the source.
    pub source_topic: String,
    /// The topic's id in the source; zero if the source knows none.
    pub source_topic_id: TopicId,
    /// Whether the flow or clients write it.
    pub state: MirrorState,
    /// Whether an operator has it stand still, whatever the flow does.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// Where its records were first written, as its source said; none in what an earlier version made.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// Who writes a mirror topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// Its flow, and nobody else.
    Mirroring,
    /// Clients: the flow was failed over.
    Promoted,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its daemons, the preferred leader first. While replicas are moved: those of the target, then those that are to go.
    pub replicas: Vec<NodeId>,
    /// The move of its replicas that is under way.
    #[serde(default)]
    pub reassignment: Option<Reassignment>,
    /// The in-sync set, in the order of `replicas`. Never empty.
    pub isr: Vec<NodeId>,
    /// Replicas outside the in-sync set that hold every record acknowledged with acks=all (KIP-966).
    pub eligible: Vec<NodeId>,
    /// Replicas that may lack committed records: a last member that came back unsafe stays in `isr`, but leads only by
    /// an unclean election. Joining the in-sync set clears it.
    pub suspect: Vec<NodeId>,
    /// Replicas whose disk failed: they may not join until their daemon registers anew or reports them restored.
    pub failed: Vec<NodeId>,
    /// Its leader, if it has one.
    pub leader: Option<NodeId>,
    /// Counts changes of leader (and raises by lineage and failover); at most one leader per epoch.
    pub leader_epoch: i32,
    /// Counts every change of this partition's sets or leader: the compare-and-set of in-sync proposals.
    pub partition_epoch: i32,
    /// Which source epochs the records of a mirror came from, oldest first.
    pub lineage: Vec<Lineage>,
    /// Where mirroring ended, once failed over.
    pub cut: Option<Cut>,
    /// Where clients' writes ended when the topic was fenced.
    #[serde(default)]
    pub fenced_end: Option<i64>,
    /// The last failback that took records away here.
    #[serde(default)]
    pub truncation: Option<Truncation>,
}

/// Records that a failback has taken away, after they were kept elsewhere: every copy of the partition removes what was
/// written from offset `to` on under an earlier epoch than `leader_epoch`, before it leads or follows.
///
/// Nothing of what comes later is ever concerned, so it may be carried out at any time and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncation {
    /// The leader epoch that began with it.
    pub leader_epoch: i32,
    /// The first offset concerned.
    pub to: i64,
}

/// A move of a partition's replicas that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassignment {
    /// The replicas before it, to which it can be taken back.
    pub original: Vec<NodeId>,
    /// The replicas that the partition shall have.
    pub target: Vec<NodeId>,
}

impl Reassignment {
    /// The replicas that come.
    pub fn adding(&self) -> impl Iterator<Item = NodeId> {
        let new = |node: &NodeId| !self.original.contains(node);
        self.target.iter().copied().filter(new)
    }
}

/// Where a failed-over partition changed from mirrored to own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The leader epoch of the promotion, above both sides'.
    pub leader_epoch: i32,
    /// The end offset here: the first offset that clients may write.
    pub target_end: i64,
    /// The source's end as last known; `None` if it was never heard.
    pub source_end: Option<i64>,
}

/// A flow into this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// `source->target`.
    pub name: String,
    /// The source cluster's name.
    pub source: String,
    /// This cluster's name.
    pub target: String,
    /// What was declared.
    pub spec: FlowSpec,
    /// How far it is in its life.
    pub state: FlowState,
    /// Counts changes of the declaration.
    pub version: u32,
    /// Since when and why it is paused; kept through a failover, whose report tells it.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// The last switchover and how far it came.
    #[serde(default)]
    pub switchover: Option<Switchover>,
    /// What is known of a source that was failed over and may return.
    #[serde(default)]
    pub failback: Option<Failback>,
    /// Its last drills, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drills: Vec<DrillNote>,
}

/// How far a flow is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// It copies.
    Active,
    /// It is held by the operator.
    Paused,
    /// It copies until the source, which is being fenced, has no more: see its switchover.
    SwitchingOver,
    /// Failover has begun: nothing mirrored is appended any more, cuts are being recorded.
    FailingOver,
    /// Every partition's cut is recorded; clients write its topics.
    Promoted,
}

impl Image {
    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Whether a switchover is bringing this topic here: its groups' last positions at the source are still to come.
    pub fn is_arriving(&self, topic: &Topic) -> bool {
        let flow = topic.mirror.as_ref().filter(|_| topic.is_mirroring());
        let flow = flow.and_then(|mirror| self.flows.get(&mirror.flow));
        flow.is_some_and(|flow| flow.state == FlowState::SwitchingOver)
    }

    /// One partition of the topic with this id.
    pub fn partition(&self, topic: TopicId, partition: i32) -> Option<&Partition> {
        self.topics.get(&topic)?.partition(partition)
    }

    /// Whether `node` is registered and active.
    pub fn is_active(&self, node: NodeId) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|daemon| daemon.state == DaemonState::Active)
    }

    /// The registered and active daemons, by id.
    pub fn active(&self) -> impl Iterator<Item = &Daemon> {
        self.nodes
            .values()
            .filter(|daemon| daemon.state == DaemonState::Active)
    }

    /// How many partitions have a replica on `node`, or had one before a move that can be taken back.
    pub fn partitions_on(&self, node: NodeId) -> usize {
        let holds = |partition: &&Partition| {
            let before = partition.reassignment.as_ref().map(|moving| &moving.original);
            partition.replicas.contains(&node) || before.is_some_and(|before| before.contains(&node))
        };
        let all = self.topics.values().flat_map(|topic| &topic.partitions);
        all.filter(holds).count()
    }

    /// Where the records of a mirror topic were first written; as far as that was never asked, what it was copied from.
    pub fn origin(&self, topic: &Topic) -> Option<Origin> {
        let mirror = topic.mirror.as_ref()?;
        if let Some(origin) = &mirror.origin {
            return Some(origin.clone());
        }
        let lineage = topic
            .partitions
            .iter()
            .find_map(|partition| partition.lineage.last());
        let source = mirror.flow.split("->").next().unwrap_or_default();
        Some(Origin {
            cluster_id: lineage.map_or_else(String::new, |lineage| lineage.source_cluster_id.clone()),
            cluster: source.to_owned(),
            topic: mirror.source_topic.clone(),
            topic_id: mirror.source_topic_id,
            tells: false,
        })
    }

    /// The value of configuration `key` for `topic` as seen by `node`: the topic's own, the daemon's and the cluster's
    /// dynamic ones, the daemon's file, the key's default; `None` for a key without any.
    pub fn topic_config(&self, topic: &Topic, key: &str, node: Option<NodeId>) -> Option<String> {
        if let Some(value) = topic.configs.get(key) {
            return Some(value.clone());
        }
        let of_node = node.and_then(|id| self.node_configs.get(&id)?.get(key));
        if let Some(value) = of_node.or_else(|| self.cluster_configs.get(key)) {
            return Some(value.clone());
        }
        let of_file = node.and_then(|id| self.nodes.get(&id)?.defaults.get(key));
        of_file
            .cloned()
            .or_else(|| crate::config::default_of(key).map(str::to_owned))
    }

    /// The configuration `key` that was set for consumer group `group`, if it was.
    pub fn group_config(&self, group: &str, key: &str) -> Option<&str> {
        self.group_configs.get(group)?.get(key).map(String::as_str)
    }

    /// How many in-sync replicas the high watermark of `partition` needs to move under `leader`: its
    /// `min.insync.replicas`, never more than there are replicas.
    pub fn min_isr(&self, topic: &Topic, partition: &Partition, leader: Option<NodeId>) -> usize {
        self.min_isr_configured(topic, leader)
            .clamp(1, partition.steady_replicas())
    }

    /// `min.insync.replicas` of `topic` under `leader`, whatever the number of replicas.
    pub(crate) fn min_isr_configured(&self, topic: &Topic, leader: Option<NodeId>) -> usize {
        let configured = self.topic_config(topic, "min.insync.replicas", leader);
        configured
            .and_then(|value| value.trim().parse::<usize>().ok())
            .unwrap_or(1)
    }

    /// Whether the daemon `node` flushes every append to `topic` before it acknowledges it.
    pub fn flushes_every_append(&self, topic: &Topic, node: NodeId) -> bool {
        let messages = self.topic_config(topic, "flush.messages", Some(node));
        messages.is_some_and(|value| value.trim() == "1")
    }

    /// The first broken invariant, in words.
    pub fn check(&self) -> Result<(), String> {
        for (name, id) in &self.names {
            match self.topics.get(id) {
                Some(topic) if topic.name == *name && topic.id == *id => {}
                _ => return Err(format!("name {name} and its topic {id} disagree")),
            }
        }
        if self.names.len() != self.topics.len() {
            return Err("a topic without a name".to_owned());
        }
        for topic in self.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                self.check_partition(partition)
                    .map_err(|what| format!("{}-{number}: {what}: {partition:?}", topic.name))?;
            }
        }
        Ok(())
    }

    fn check_partition(&self, partition: &Partition) -> Result<(), &'static str> {
        let replicas: BTreeSet<_> = partition.replicas.iter().collect();
        if partition.isr.is_empty() {
            return Err("the in-sync set is empty");
        }
        let sets = [
            &partition.isr,
            &partition.eligible,
            &partition.suspect,
            &partition.failed,
        ];
        for set in sets {
            if !set.iter().all(|node| replicas.contains(node)) {
                return Err("a set has a member that is no replica");
            }
            if set.iter().collect::<BTreeSet<_>>().len() != set.len() {
                return Err("a set names a member twice");
            }
        }
        if let Some(moving) = &partition.reassignment
            && !partition.replicas.starts_with(&moving.target)
        {
            return Err("the target of a move does not come first among the replicas");
        }
        if partition.eligible.iter().any(|node| partition.isr.contains(node)) {
            return Err("eligible and in-sync sets overlap");
        }
        if partition
            .eligible
            .iter()
            .any(|node| partition.suspect.contains(node))
        {
            return Err("a suspect replica is eligible");
        }
        if let Some(leader) = partition.leader {
            if !partition.isr.contains(&leader) {
                return Err("the leader is not in sync");
            }
            if !self.is_active(leader) {
                return Err("the leader is not active");
            }
            if partition.suspect.contains(&leader) || partition.failed.contains(&leader) {
                return Err("the leader is suspect or failed");
            }
        }
        Ok(())
    }
}

impl Topic {
    /// One of its partitions.
    pub fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    /// Whether it was moved to another cluster and is its mirror here.
    pub fn has_moved(&self) -> bool {
        self.fence.is_some() && self.is_mirroring()
    }

    /// Whether clients are to look for it in another cluster: it is its mirror here, or gave way to a failover there.
    pub fn is_elsewhere(&self) -> bool {
        self.has_moved() || self.fence.as_ref().is_some_and(|fence| fence.gone)
    }

    /// Whether only its flow may write it.
    pub fn is_mirroring(&self) -> bool {
        matches!(
            self.mirror,
            Some(MirrorTopic {
                state: MirrorState::Mirroring,
                ..
            })
        )
    }
}

impl Partition {
    /// How many replicas it is to have: while they are moved, afterwards.
    pub fn replication_factor(&self) -> usize {
        match &self.reassignment {
            Some(moving) => moving.target.len(),
            None => self.replicas.len(),
        }
    }

    /// The least number of replicas that it has before, while and after they are moved; at least 1. No more than these
    /// can be asked to be in sync.
    pub fn steady_replicas(&self) -> usize {
        let replicas = match &self.reassignment {
            Some(moving) => moving.original.len().min(moving.target.len()),
            None => self.replicas.len(),
        };
        replicas.max(1)
    }

    /// The replicas that come, while they are moved.
    pub fn adding(&self) -> Vec<NodeId> {
        self.reassignment
            .as_ref()
            .map_or_else(Vec::new, |moving| moving.adding().collect())
    }

    /// The replicas that are to go, while they are moved.
    pub fn removing(&self) -> Vec<NodeId> {
        let Some(moving) = &self.reassignment else {
            return Vec::new();
        };
        let going = |node: &NodeId| !moving.target.contains(node);
        self.replicas.iter().copied().filter(going).collect()
    }

    /// The source epoch that the newest mirrored records came from.
    pub fn source_epoch(&self) -> Option<i32> {
        self.lineage.last().map(|lineage| lineage.source_epoch)
    }
}
