//! What the controller does to the Raft group: daemons join it and leave it by an operator's word, and the right number of
//! them votes.
//!
//! One change at a time, under a lock of this daemon; a change that another daemon began, or that was cut off by a crash,
//! is finished by the rule of who votes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tradewind_wire::ids::NodeId;

use super::Core;
use crate::command::{Command, MetaError};
use crate::controller::voters;
use crate::image::DaemonState;
use crate::members::{MemberChange, MembersError};
use crate::metadata::ProposeError;
use crate::raft::{self, Status};

/// How long asking a daemon for its data directory may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one change of the Raft group may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many entries a learner may lack to be given a vote.
const CAUGHT_UP: u64 = 100;

impl Core {
    /// Makes a change, if this daemon is the controller.
    pub(super) async fn change_members(&self, change: MemberChange) -> Result<(), MembersError> {
        let _alone = self.membership.lock().await;
        if !self.group.status().is_leader {
            return Err(MembersError::Failed(
                "it is not the controller any more".to_owned(),
            ));
        }
        match change {
            MemberChange::Add { node, mesh, replace } => self.add(node, mesh, replace).await,
            MemberChange::Remove { node } => self.remove(node).await,
        }
    }

    async fn add(&self, node: NodeId, mesh: String, replace: bool) -> Result<(), MembersError> {
        let probed = raft::probe_at(&self.dialer, node, &mesh, PROBE_TIMEOUT).await;
        let probe = probed.map_err(|error| MembersError::Unreachable {
            node,
            mesh: mesh.clone(),
            reason: error.reason,
        })?;
        match self.group.storage_of(node) {
            Some(storage_id) if storage_id == probe.storage_id => return Ok(()),
            Some(_) if !replace => return Err(MembersError::OtherDirectory(node)),
            None if replace => return Err(MembersError::NotMember(node)),
            _ if !probe.blank => return Err(MembersError::NotBlank(node)),
            Some(_) => {
                self.must_be_out_of_service(node)?;
                // The number of voters stays: the newcomer is to have the lost one's vote.
                self.take_out(node, self.group.status().members.len()).await?;
            }
            None => {}
        }
        tracing::info!(node, mesh, replace, "a daemon is added by an operator");
        in_time(self.group.add_learner(node, &(mesh, probe.storage_id))).await
    }

    async fn remove(&self, node: NodeId) -> Result<(), MembersError> {
        let image = self.image();
        let status = self.group.status();
        if !status.members.contains(&node) && !image.nodes.contains_key(&node) {
            return Err(MembersError::NotMember(node));
        }
        self.must_be_out_of_service(node)?;
        let partitions = image.partitions_on(node);
        if partitions > 0 {
            return Err(MembersError::HoldsReplicas { node, partitions });
        }
        tracing::info!(node, "a daemon is removed by an operator");
        // First out of the group: then nothing new can be placed on it.
        if status.members.contains(&node) {
            self.take_out(node, status.members.len() - 1).await?;
        }
        let unregister = self.propose(Command::Unregister { node }, Instant::now() + CHANGE_TIMEOUT);
        match unregister.await {
            Ok(_) | Err(ProposeError::Refused(MetaError::UnknownNode(_))) => Ok(()),
            Err(error) => Err(MembersError::Failed(error.to_string())),
        }
    }

    fn must_be_out_of_service(&self, node: NodeId) -> Result<(), MembersError> {
        match self.image().nodes.get(&node) {
            Some(daemon) if daemon.state != DaemonState::Fenced => Err(MembersError::InService(node)),
            _ => Ok(()),
        }
    }

    /// Takes a daemon out of the Raft group, which has `members` members then.
    async fn take_out(&self, node: NodeId, members: usize) -> Result<(), MembersError> {
        let status = self.group.status();
        if status.voters.contains(&node) || status.joint {
            let mut rest = status.voters.clone();
            rest.remove(&node);
            let mut fit = self.fit(&status);
            fit.remove(&node);
            let chosen = voters::choose(voters::count(members), &rest, &fit, self.options.node);
            in_time(self.group.set_voters(&chosen)).await?;
        }
        in_time(self.group.remove(node)).await
    }

    /// Gives votes to as many daemons as are to have one, and finishes a change that was cut off.
    pub(crate) async fn keep_voters(&self) {
        let Ok(_alone) = self.membership.try_lock() else {
            return;
        };
        let status = self.group.status();
        let wanted = voters::count(status.members.len());
        if !status.is_leader || status.voters.len() == wanted && !status.joint {
            return;
        }
        let chosen = voters::choose(wanted, &status.voters, &self.fit(&status), self.options.node);
        if chosen != status.voters || status.joint {
            tracing::info!(before = ?status.voters, now = ?chosen, "other daemons vote");
            if let Err(error) = in_time(self.group.set_voters(&chosen)).await {
                tracing::warn!(%error, "could not change who votes");
            }
        }
    }

    /// The members that are in service and have nearly all of the log.
    fn fit(&self, status: &Status) -> BTreeSet<NodeId> {
        let (image, quorum) = (self.image(), self.group.quorum());
        let last = quorum.voters.iter().filter_map(|one| one.end).max().unwrap_or(0);
        let all = quorum.voters.iter().chain(&quorum.learners);
        let caught_up = all.filter(|one| one.end.is_some_and(|end| end + CAUGHT_UP >= last));
        caught_up
            .map(|one| one.node)
            .filter(|node| status.members.contains(node) && image.is_active(*node))
            .collect()
    }
}

/// The outcome of a change, which must not take for ever: without a majority it would.
async fn in_time(change: impl Future<Output = Result<(), String>>) -> Result<(), MembersError> {
    match timeout(CHANGE_TIMEOUT, change).await {
        Ok(changed) => changed.map_err(MembersError::Failed),
        Err(_) => Err(MembersError::Failed("no majority answers".to_owned())),
    }
}
