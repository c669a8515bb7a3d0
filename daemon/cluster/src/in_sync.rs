//! Proposes in-sync sets: gathers what this daemon's leaders want and sends it to the controller, one entry at a time. Also
//! tells it of copies here that are out of service.
//!
//! A proposal whose outcome is unknown is sent again until the controller answers: asked twice, the second is refused as
//! stale, and the image tells which. Until then the replica counts the proposed members into its maximal set.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tradewind_wire::ids::{NodeId, TopicId};

use crate::command::{Command, IsrChange, Outcome};
use crate::metadata::{Metadata, ProposeError};
use crate::metrics;
use crate::replica::Replica;
use crate::replicas::Replicas;

/// How often leaders look for followers that lag.
const LAG_CHECK: Duration = Duration::from_millis(500);
/// How long one proposal may take before it is sent again.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// At most this many partitions in one entry.
const CHANGES_MAX: usize = 2_000;

/// The partitions that asked to be looked at.
#[derive(Default)]
pub(crate) struct InSync {
    asked: Mutex<HashSet<(TopicId, i32)>>,
    notify: Notify,
}

impl InSync {
    /// A follower came, failed or may join: look at this partition now.
    pub(crate) fn check(&self, replica: &Replica) {
        self.asked.lock().insert((replica.topic, replica.partition));
        self.notify.notify_one();
    }

    /// Runs for as long as the daemon does. `lag_max` is `replica.lag.time.max.ms`.
    pub(crate) async fn run(
        &self,
        own: NodeId,
        metadata: Metadata,
        replicas: Arc<Replicas>,
        lag_max: Duration,
    ) {
        let lag_max_ms = i64::try_from(lag_max.as_millis()).unwrap_or(i64::MAX);
        let mut undecided: Vec<(Arc<Replica>, IsrChange)> = Vec::new();
        // Goes on while partitions ask to be looked at: those that are silent are looked at by nothing else.
        let mut ticks = tokio::time::interval(LAG_CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let all = tokio::select! {
                () = self.notify.notified() => false,
                _ = ticks.tick() => true,
            };
            let asked = std::mem::take(&mut *self.asked.lock());
            let looked_at: Vec<Arc<Replica>> = if all {
                replicas.all()
            } else {
                asked
                    .iter()
                    .filter_map(|(topic, partition)| replicas.of(*topic, *partition))
                    .collect()
            };
            let Some(daemon_epoch) = metadata.standing().borrow().daemon_epoch else {
                continue;
            };
            if all {
                report_failed(own, &metadata, &looked_at, daemon_epoch).await;
            }
            let mut changes = std::mem::take(&mut undecided);
            gather(own, &metadata, &looked_at, lag_max_ms, daemon_epoch, &mut changes);
            if !changes.is_empty() {
                undecided = propose(own, &metadata, daemon_epoch, changes).await;
            }
        }
    }
}

/// Tells the controller of copies here that are out of service, so that others lead and nobody waits for them.
///
/// A copy that is the last one in sync is not told of: nobody could lead in its place, and what it has can be read.
async fn report_failed(own: NodeId, metadata: &Metadata, all: &[Arc<Replica>], daemon_epoch: i64) {
    let mut failed = Vec::new();
    let mut first = None;
    let image = metadata.image();
    for replica in all {
        let reason = match (replica.failure(), replica.log().poisoned()) {
            (Some(reason), _) => reason,
            (None, Some(reason)) => {
                replica.failed(reason.clone());
                reason
            }
            (None, None) => continue,
        };
        let news = image
            .partition(replica.topic, replica.partition)
            .is_some_and(|now| {
                let other = |set: &[NodeId]| set.iter().any(|member| *member != own);
                let waited_for = now.isr.contains(&own) || now.eligible.contains(&own);
                waited_for && !now.failed.contains(&own) && (other(&now.isr) || other(&now.eligible))
            });
        if news && failed.len() < CHANGES_MAX {
            failed.push((replica.topic, replica.partition));
            first.get_or_insert(reason);
        }
    }
    let Some(reason) = first else { return };
    tracing::warn!(
        replicas = failed.len(),
        reason,
        "telling the controller of replicas that are out of service"
    );
    let command = Command::ReplicaFailed {
        node: own,
        daemon_epoch,
        replicas: failed,
        reason,
    };
    // Told again at the next look unless the image has it by then.
    if let Err(error) = metadata.propose(command, PROPOSE_TIMEOUT).await {
        tracing::warn!(%error, "replicas that are out of service are not told of yet");
    }
}

fn gather(
    own: NodeId,
    metadata: &Metadata,
    candidates: &[Arc<Replica>],
    lag_max_ms: i64,
    daemon_epoch: i64,
    changes: &mut Vec<(Arc<Replica>, IsrChange)>,
) {
    let image = metadata.image();
    let epochs: HashMap<NodeId, i64> = image
        .nodes
        .iter()
        .map(|(node, daemon)| (*node, daemon.epoch))
        .collect();
    for replica in candidates {
        if changes.len() >= CHANGES_MAX {
            break;
        }
        let partition = image.partition(replica.topic, replica.partition);
        let has_failed = |node| partition.is_some_and(|partition| partition.failed.contains(&node));
        let may_be_in = |node| image.is_active(node) && !has_failed(node);
        let Some(proposal) = replica.propose_in_sync(lag_max_ms, may_be_in) else {
            continue;
        };
        let isr = proposal
            .members
            .iter()
            .map(|(node, session)| {
                let registered = epochs.get(node).copied().unwrap_or(-1);
                let epoch = if *node == own {
                    daemon_epoch
                } else {
                    session.filter(|e| *e > 0).unwrap_or(registered)
                };
                (*node, epoch)
            })
            .collect();
        let change = IsrChange {
            topic: replica.topic,
            partition: replica.partition,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr,
        };
        tracing::info!(
            topic = %replica.topic_name, partition = replica.partition, isr = ?change.isr, "proposing an in-sync set"
        );
        changes.push((Arc::clone(replica), change));
    }
}

/// Sends one entry; returns what is still undecided.
async fn propose(
    own: NodeId,
    metadata: &Metadata,
    daemon_epoch: i64,
    changes: Vec<(Arc<Replica>, IsrChange)>,
) -> Vec<(Arc<Replica>, IsrChange)> {
    metrics::in_sync_proposed(changes.len());
    let command = Command::AlterIsr {
        node: own,
        daemon_epoch,
        changes: changes.iter().map(|(_, change)| change.clone()).collect(),
    };
    match metadata.propose(command, PROPOSE_TIMEOUT).await {
        Ok(Outcome::IsrChanged(results)) => {
            for ((replica, change), result) in changes.iter().zip(results) {
                if let Err(error) = result {
                    tracing::debug!(topic = %replica.topic_name, partition = replica.partition, %error, "in-sync set refused");
                    replica.in_sync_refused(change.leader_epoch);
                }
            }
            Vec::new()
        }
        Err(ProposeError::Timeout | ProposeError::Stopped) => changes,
        Ok(_) | Err(_) => {
            for (replica, change) in &changes {
                replica.in_sync_refused(change.leader_epoch);
            }
            Vec::new()
        }
    }
}
