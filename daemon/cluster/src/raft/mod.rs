//! The cluster's Raft group, and the only place that knows openraft.
//!
//! [`Group`] is what the rest of the metadata half sees: it proposes, reports who leads, and answers peers. The store is
//! redb ([`store`]), the state machine is the image ([`machine`]), the network is the mesh ([`network`]). What openraft
//! 0.9 does and does not do (no pre-vote, no transfer of leadership, an isolated leader that goes on accepting
//! proposals) is dealt with by those who use it: every proposal has a deadline, and sessions ask for a recent quorum.

mod machine;
mod network;
mod runtime;
mod store;
mod types;

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod suite_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, Config, ServerState, SnapshotPolicy};
use tokio::sync::watch;
use tradewind_wire::ids::NodeId;
use tradewind_wire::mesh::Conversation;

use self::machine::Machine;
pub(crate) use self::machine::{Answer, WaitGuard, Waiting};
pub(crate) use self::network::Probe;
use self::network::{Network, Reply, Request};
use self::store::{LogStore, Owner};
use self::types::{Member, Raft, node_id, raft_id, reign};
pub(crate) use self::types::{Origin, Proposal, decode, encode};
use crate::image::Image;
use crate::link::{Link, LinkError};
use crate::metadata::{StartError, Timing};
use crate::quorum::{Quorum, QuorumMember};
use crate::rpc::{self, Caller, Dialer};

/// After how many entries the state is written down and the log before it removed.
const SNAPSHOT_EVERY: u64 = 5_000;

/// How many entries stay in the log behind a snapshot, for followers that are only a little late.
const KEEP_BEHIND_SNAPSHOT: u64 = 1_000;

/// How long sending and installing a snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a Raft group is opened with.
pub(crate) struct GroupOptions {
    pub(crate) node: NodeId,
    pub(crate) cluster_name: String,
    pub(crate) storage_id: [u8; 16],
    pub(crate) dir: PathBuf,
    pub(crate) timing: Timing,
}

/// How the group stands, as this daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Status {
    /// The leader, as last heard.
    pub(crate) leader: Option<NodeId>,
    /// The number of its reign; see [`types::reign`].
    pub(crate) reign: u64,
    /// Whether this daemon leads.
    pub(crate) is_leader: bool,
    /// The index of the last entry applied here.
    pub(crate) applied: u64,
    /// As leader: how long ago a quorum last answered.
    pub(crate) quorum_ack: Option<Duration>,
    /// The members: voters and learners.
    pub(crate) members: BTreeSet<NodeId>,
    /// Those of them that vote, or will when a change that is under way is done.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Whether a change of the voters is under way, or was cut off.
    pub(crate) joint: bool,
    /// Why Raft ended for good.
    pub(crate) fatal: Option<String>,
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// This daemon does not lead; perhaps that one does.
    NotLeader(Option<NodeId>),
    /// Raft has stopped here.
    Stopped,
}

/// This daemon's part in the Raft group.
#[derive(Clone)]
pub(crate) struct Group {
    raft: Raft,
    store: LogStore,
    waiting: Waiting,
    storage_id: [u8; 16],
}

impl Group {
    /// Opens the store and starts Raft on the current runtime. Images go to `images`; a store that belongs to another
    /// daemon is refused.
    pub(crate) async fn open(
        options: &GroupOptions,
        dialer: Arc<Dialer>,
        images: watch::Sender<Arc<Image>>,
    ) -> Result<Self, StartError> {
        let storage = |error: io::Error| StartError::Storage {
            dir: options.dir.clone(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(&options.dir).map_err(storage)?;
        let store = LogStore::open(&options.dir.join("meta.redb")).map_err(storage)?;
        check_owner(&store, options)?;
        let waiting = Waiting::default();
        let machine = Machine::open(options.node, &options.dir, images, waiting.clone()).map_err(storage)?;
        let config = Arc::new(raft_config(&options.cluster_name, &options.timing)?);
        let network = Network::new(dialer);
        let raft = Raft::new(raft_id(options.node), config, network, store.clone(), machine)
            .await
            .map_err(|error| storage(io::Error::other(error.to_string())))?;
        Ok(Self {
            raft,
            store,
            waiting,
            storage_id: options.storage_id,
        })
    }

    /// Whether this daemon has never been part of the group.
    pub(crate) async fn is_blank(&self) -> bool {
        !self.raft.is_initialized().await.unwrap_or(true)
    }

    /// Makes the first group of `voters` (mesh address and data directory of each). Only on a blank daemon.
    pub(crate) async fn initialize(
        &self,
        voters: &BTreeMap<NodeId, (String, [u8; 16])>,
    ) -> Result<(), String> {
        let members: BTreeMap<u64, Member> = voters
            .iter()
            .map(|(node, member)| (raft_id(*node), as_member(member)))
            .collect();
        self.raft
            .initialize(members)
            .await
            .map_err(|error| error.to_string())
    }

    /// Adds a daemon that follows the log without a vote. Only on the leader.
    pub(crate) async fn add_learner(&self, node: NodeId, member: &(String, [u8; 16])) -> Result<(), String> {
        let added = self
            .raft
            .add_learner(raft_id(node), as_member(member), false)
            .await;
        added.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The data directory of a member.
    pub(crate) fn storage_of(&self, node: NodeId) -> Option<[u8; 16]> {
        let metrics = self.raft.metrics().borrow().clone();
        let member = metrics.membership_config.membership().get_node(&raft_id(node));
        member.map(|member| member.storage_id)
    }

    /// Makes these members vote, and no others, who stay members. Only on the leader. A change that was cut off half-way is
    /// finished by the next one.
    pub(crate) async fn set_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), String> {
        let voters: BTreeSet<u64> = voters.iter().map(|node| raft_id(*node)).collect();
        let goal = ChangeMembers::ReplaceAllVoters(voters);
        let changed = self.raft.change_membership(goal, true).await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Takes a member out that does not vote. Only on the leader.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<(), String> {
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([raft_id(node)]));
        let removed = self.raft.change_membership(gone, true).await;
        removed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Appends a proposal, if this daemon leads, and waits until it is applied here. Whether it was is unknown to a
    /// caller that gives up.
    pub(crate) async fn append(&self, proposal: Proposal) -> Result<u64, NotTaken> {
        match self.raft.client_write(proposal).await {
            Ok(written) => Ok(written.log_id.index),
            Err(error) => match error.forward_to_leader() {
                Some(forward) => Err(NotTaken::NotLeader(forward.leader_id.map(node_id))),
                None => Err(NotTaken::Stopped),
            },
        }
    }

    /// Waits here for the proposal with this nonce to be applied.
    pub(crate) fn wait(&self, nonce: u64) -> (WaitGuard, tokio::sync::oneshot::Receiver<Answer>) {
        self.waiting.wait(nonce)
    }

    /// Asks a quorum whether this daemon still leads.
    pub(crate) async fn confirm_leadership(&self) -> bool {
        self.raft.ensure_linearizable().await.is_ok()
    }

    /// How the group stands now.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow().clone();
        let configs = metrics.membership_config.membership().get_joint_config();
        let voters = configs.last();
        // A member that was told of the leader knows its vote, too.
        let leader = metrics.current_leader.map(node_id);
        Status {
            leader,
            reign: reign(metrics.vote.leader_id()),
            is_leader: metrics.state == ServerState::Leader,
            applied: metrics.last_applied.map_or(0, |id| id.index),
            quorum_ack: metrics.millis_since_quorum_ack.map(Duration::from_millis),
            members: metrics
                .membership_config
                .nodes()
                .map(|(id, _)| node_id(*id))
                .collect(),
            voters: voters.into_iter().flatten().map(|id| node_id(*id)).collect(),
            joint: configs.len() > 1,
            fatal: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// The group with the ends of all logs, as far as this daemon knows them.
    pub(crate) fn quorum(&self) -> Quorum {
        let metrics = self.raft.metrics().borrow().clone();
        let end_of = |id: &u64| match &metrics.replication {
            _ if *id == metrics.id => metrics.last_log_index.map(|index| index + 1),
            Some(known) => known
                .get(id)
                .map(|matching| matching.map_or(0, |at| at.index + 1)),
            None => None,
        };
        let members = metrics.membership_config.membership();
        let member = |id: &u64| QuorumMember {
            node: node_id(*id),
            end: end_of(id),
            storage_id: members.get_node(id).map_or([0; 16], |member| member.storage_id),
        };
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let all: BTreeSet<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
        Quorum {
            leader: metrics.current_leader.map(node_id),
            term: metrics.current_term,
            committed_end: metrics.last_applied.map_or(0, |id| id.index + 1),
            voters: voters.iter().map(member).collect(),
            learners: all.difference(&voters).map(member).collect(),
        }
    }

    /// Wakes whenever [`Self::status`] may have changed.
    pub(crate) fn changes(&self) -> impl AsyncChanges + use<> {
        self.raft.metrics()
    }

    /// Answers the calls of one peer until its stream ends.
    pub(crate) async fn serve(&self, link: Link, heard: impl Fn()) {
        rpc::serve(link, |frame| {
            heard();
            network::answer(self.raft.clone(), self.storage_id, frame)
        })
        .await;
    }

    /// The incarnations under which this data directory may be registered, oldest first.
    pub(crate) fn incarnations(&self) -> io::Result<Vec<u128>> {
        self.store.incarnations()
    }

    /// Remembers them.
    pub(crate) fn set_incarnations(&self, incarnations: &[u128]) -> io::Result<()> {
        self.store.set_incarnations(incarnations)
    }

    /// Writes a snapshot of everything applied and purges the log up to it.
    #[cfg(test)]
    pub(crate) async fn compact(&self) {
        let applied = self.status().applied;
        self.raft.trigger().snapshot().await.unwrap();
        let patience = Some(crate::test_net::PATIENCE);
        let built = |metrics: &openraft::RaftMetrics<u64, Member>| {
            metrics.snapshot.is_some_and(|id| id.index >= applied)
        };
        self.raft.wait(patience).metrics(built, "snapshot").await.unwrap();
        self.raft.trigger().purge_log(applied).await.unwrap();
        let purged = |metrics: &openraft::RaftMetrics<u64, Member>| {
            metrics.purged.is_some_and(|id| id.index >= applied)
        };
        self.raft.wait(patience).metrics(purged, "purge").await.unwrap();
    }

    /// Stops Raft; the store is closed when the last clone is gone.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

/// A watch on the group, of which only the waking is of interest.
pub(crate) trait AsyncChanges: Send {
    /// Waits for the next change; for ever, once Raft has ended and this was told.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

impl AsyncChanges for watch::Receiver<openraft::RaftMetrics<u64, Member>> {
    async fn changed(&mut self) {
        if Self::changed(self).await.is_err() {
            // Raft has ended: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Asks a daemon whether it is blank.
pub(crate) async fn probe(dialer: &Dialer, node: NodeId, timeout: Duration) -> Result<Probe, LinkError> {
    ask_probe(node, dialer.dial(node, Conversation::Raft, None), timeout).await
}

/// The same at an address that nobody has told yet.
pub(crate) async fn probe_at(
    dialer: &Dialer,
    node: NodeId,
    mesh: &str,
    timeout: Duration,
) -> Result<Probe, LinkError> {
    ask_probe(
        node,
        dialer.dial_at(node, mesh, Conversation::Raft, None),
        timeout,
    )
    .await
}

async fn ask_probe(
    node: NodeId,
    dialled: impl Future<Output = Result<Link, LinkError>>,
    timeout: Duration,
) -> Result<Probe, LinkError> {
    let failed = |reason: &str| LinkError {
        node,
        reason: reason.to_owned(),
    };
    let asked = async {
        let caller = Caller::new(node, dialled.await?);
        let parts =
            network::request_frame(&Request::Probe, None).map_err(|error| failed(&error.to_string()))?;
        let answer = caller.call(&parts, timeout).await?;
        match decode(&answer) {
            Ok(Reply::Probe(probe)) => Ok(probe),
            _ => Err(failed("the answer is to another question")),
        }
    };
    tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| Err(failed("no answer in time")))
}

fn as_member((mesh, storage_id): &(String, [u8; 16])) -> Member {
    Member {
        mesh: mesh.clone(),
        storage_id: *storage_id,
    }
}

fn check_owner(store: &LogStore, options: &GroupOptions) -> Result<(), StartError> {
    let storage = |error: io::Error| StartError::Storage {
        dir: options.dir.clone(),
        reason: error.to_string(),
    };
    let wanted = Owner {
        cluster_name: options.cluster_name.clone(),
        node: options.node,
        storage_id: options.storage_id,
    };
    match store.owner().map_err(storage)? {
        None => store.set_owner(&wanted).map_err(storage),
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(StartError::Foreign {
            dir: options.dir.clone(),
            found: describe(&found),
            wanted: describe(&wanted),
        }),
    }
}

fn describe(owner: &Owner) -> String {
    let Owner {
        cluster_name,
        node,
        storage_id,
    } = owner;
    format!(
        "node {node} of {cluster_name} (data directory {:032x})",
        u128::from_be_bytes(*storage_id)
    )
}

fn raft_config(cluster_name: &str, timing: &Timing) -> Result<Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election.0),
        election_timeout_max: ms(timing.election.1),
        install_snapshot_timeout: ms(SNAPSHOT_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: KEEP_BEHIND_SNAPSHOT,
        replication_lag_threshold: SNAPSHOT_EVERY,
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Options(error.to_string()))
}

/// Whether metadata was ever written in `dir`.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join("meta.redb").exists()
}
