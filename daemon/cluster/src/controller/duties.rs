//! Carries out the controller's duties on every tick, and at once when a reign begins: sessions, the cluster's name, who votes, daemons that are to follow
//! the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tradewind_wire::ids::{ClusterId, NodeId};

use super::sessions::Action;
use crate::command::{Command, ElectionKind};
use crate::metrics;
use crate::node::Core;
use crate::raft::{self, Proposal, Status};

/// How long a proposal of the controller itself may take.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long asking a new daemon for its data directory may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs for as long as the daemon does.
pub(crate) async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(core.timing().heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let housekeeping = Arc::new(AtomicBool::new(false));
    let mut leader_before = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = reign_begins(&core) => {}
        }
        let status = core.group.status();
        tick(&core, &status, leader_before, &housekeeping);
        if !status.is_leader {
            leader_before = status.leader.or(leader_before);
        }
    }
}

/// Returns when this daemon has become the controller and has applied what came before.
async fn reign_begins(core: &Arc<Core>) {
    let begun = core.sessions.lock().reign();
    let mut images = core.images.clone();
    while images.changed().await.is_ok() {
        let status = core.group.status();
        if status.is_leader && core.image().term == status.reign && begun != Some(status.reign) {
            return;
        }
    }
    std::future::pending().await
}

fn tick(core: &Arc<Core>, status: &Status, leader_before: Option<NodeId>, housekeeping: &Arc<AtomicBool>) {
    let image = core.image();
    let now = core.now();
    let mut sessions = core.sessions.lock();
    if !status.is_leader || image.term != status.reign {
        if !status.is_leader {
            sessions.end();
        }
        return;
    }
    if sessions.reign() != Some(status.reign) {
        let previous = leader_before.and_then(|node| Some((node, core.last_heard(node)?)));
        sessions.begin(now, status.reign, previous, &image);
        tracing::info!(reign = status.reign, "this daemon is the controller");
    }
    let actions = sessions.tick(now, &image, Core::quorum_ack(status));
    drop(sessions);
    for action in actions {
        carry_out(core, action);
    }
    if !housekeeping.swap(true, Ordering::Relaxed) {
        let (core, status, busy) = (Arc::clone(core), status.clone(), Arc::clone(housekeeping));
        tokio::spawn(async move {
            keep_house(&core, &status).await;
            busy.store(false, Ordering::Relaxed);
        });
    }
}

fn carry_out(core: &Arc<Core>, action: Action) {
    let command = match action {
        Action::Confirm => {
            let core = Arc::clone(core);
            tokio::spawn(async move {
                let confirmed = tokio::time::timeout(PROPOSE_TIMEOUT, core.group.confirm_leadership()).await;
                if confirmed == Ok(true) {
                    core.sessions.lock().confirmed(core.now());
                }
            });
            return;
        }
        Action::Fence {
            node,
            daemon_epoch,
            session,
            term,
        } => {
            metrics::fence_proposed();
            tracing::warn!(node, daemon_epoch, "fencing a daemon that is silent or behind");
            Command::Fence {
                node,
                daemon_epoch,
                session,
                term,
            }
        }
        Action::Unfence { node, daemon_epoch } => {
            tracing::info!(node, daemon_epoch, "unfencing a daemon that has caught up");
            Command::Unfence { node, daemon_epoch }
        }
        Action::Restore(partitions) => {
            tracing::info!(partitions = partitions.len(), "restoring preferred leaders");
            Command::Elect {
                kind: ElectionKind::Preferred,
                partitions,
            }
        }
    };
    #[cfg(feature = "known-bugs")]
    crate::bugs::decide(&core.image(), &command);
    propose(core, command);
}

/// Proposes without waiting: a tick that still sees the need proposes again.
fn propose(core: &Arc<Core>, command: Command) {
    let group = core.group.clone();
    tokio::spawn(async move {
        let proposal = Proposal {
            origin: None,
            command,
        };
        if let Ok(Err(error)) = tokio::time::timeout(PROPOSE_TIMEOUT, group.append(proposal)).await {
            tracing::debug!(?error, "a proposal of the controller was not taken");
        }
    });
}

/// Names the cluster, and lets configured daemons that are not members yet follow the log.
async fn keep_house(core: &Arc<Core>, status: &Status) {
    if core.image().cluster_id.is_none() {
        // 1 to 65535: number 0 stands for producer ids of other systems.
        let number = core.rng().next_u64() % u64::from(u16::MAX) + 1;
        let command = Command::Init {
            cluster_id: ClusterId::random(core.rng()),
            cluster_number: number as u16,
        };
        let proposal = Proposal {
            origin: None,
            command,
        };
        let _ = tokio::time::timeout(PROPOSE_TIMEOUT, core.group.append(proposal)).await;
    }
    core.keep_voters().await;
    let strangers = core
        .seeds()
        .iter()
        .filter(|(node, _)| !status.members.contains(node));
    for (&node, mesh) in strangers {
        match raft::probe(&core.dialer, node, PROBE_TIMEOUT).await {
            Ok(probe) if probe.blank => {
                tracing::info!(node, "a new daemon follows the metadata log");
                let member = (mesh.clone(), probe.storage_id);
                let added =
                    tokio::time::timeout(PROPOSE_TIMEOUT, core.group.add_learner(node, &member)).await;
                if !matches!(added, Ok(Ok(()))) {
                    tracing::warn!(node, ?added, "could not add a daemon to the metadata group");
                }
            }
            Ok(_) => tracing::warn!(node, "a configured daemon belongs to another metadata group"),
            Err(error) => tracing::debug!(node, %error, "a configured daemon does not answer yet"),
        }
    }
    if core.seeds().keys().any(|node| !status.members.contains(node)) {
        tokio::time::sleep(core.timing().session / 2).await;
    }
}
