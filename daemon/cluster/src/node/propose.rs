//! What this daemon gets into the log: proposals through whoever is the controller, its registration, its clean stop.
//!
//! A proposal is handed over again until some controller has taken it; its number makes repetition harmless. The answer
//! comes from this daemon's own state machine.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{ATTEMPT_TIMEOUT, Core};
use crate::apply::MAX_INCARNATIONS;
use crate::command::{Command, MetaError, Outcome, Registration};
use crate::control;
use crate::metadata::{ProposeError, RegisterError};
use crate::raft::{AsyncChanges, NotTaken, Origin, Proposal};

/// How long to wait before another attempt, if nothing else happens.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long one proposal of a registration may take.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

impl Core {
    /// Gets a command into the log and waits until it is applied here.
    pub(super) async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(ProposeError::NoController);
        };
        let nonce = self.rng().next_u64();
        let proposal = Proposal {
            origin: Some(Origin {
                node: self.options.node,
                nonce,
            }),
            command,
        };
        let (_guard, mut answer) = self.group.wait(nonce);
        let mut sent = false;
        let forwarding = self.forward(&proposal, &mut sent);
        tokio::select! {
            biased;
            answered = &mut answer => return answered.map_err(|_| ProposeError::Stopped)?.map_err(Into::into),
            () = tokio::time::sleep_until(deadline) => {}
            stopped = forwarding => {
                if stopped {
                    return Err(ProposeError::Stopped);
                }
                if let Ok(answered) = timeout_at(deadline, answer).await {
                    return answered.map_err(|_| ProposeError::Stopped)?.map_err(Into::into);
                }
            }
        }
        if sent {
            Err(ProposeError::Timeout)
        } else {
            Err(ProposeError::NoController)
        }
    }

    /// Hands the proposal to the controller, whoever that is, until one has taken it. True if Raft has stopped here.
    async fn forward(&self, proposal: &Proposal, sent: &mut bool) -> bool {
        let mut hint = None;
        let mut changes = self.group.changes();
        loop {
            let status = self.group.status();
            let reply = match hint.take().or(status.leader) {
                Some(leader) if leader == self.options.node => {
                    *sent = true;
                    match timeout(ATTEMPT_TIMEOUT, self.group.append(proposal.clone())).await {
                        Ok(Err(NotTaken::Stopped)) => return true,
                        Ok(Ok(_)) => return false,
                        Ok(Err(NotTaken::NotLeader(leader))) => control::Reply::NotController(leader),
                        Err(_) => control::Reply::Unknown,
                    }
                }
                Some(leader) => {
                    *sent = true;
                    let request = control::Request::Propose(Box::new(proposal.clone()));
                    let asked = self.lines.ask(leader, &request, ATTEMPT_TIMEOUT).await;
                    asked.unwrap_or_else(|error| {
                        tracing::debug!(%error, "the controller did not take a proposal");
                        control::Reply::Unknown
                    })
                }
                None => control::Reply::NotController(None),
            };
            match reply {
                control::Reply::Taken { .. } => return false,
                control::Reply::NotController(Some(other)) if other != self.options.node => {
                    hint = Some(other);
                }
                _ => {}
            }
            let _ = timeout(RETRY_AFTER, changes.changed()).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Registers this run of the daemon; see [`crate::metadata::Metadata::register`].
    pub(super) async fn register(&self, mut registration: Registration) -> Result<i64, RegisterError> {
        let storage = |error: std::io::Error| RegisterError::Storage(error.to_string());
        let mut own = self.group.incarnations().map_err(storage)?;
        let stays_duplicate_until = Instant::now() + self.timing().session * 3;
        // Remembered before it is proposed: if it is applied, but this process does not live to see it, the next run
        // must know that it was its own.
        let registered = self.image().nodes.get(&registration.node).cloned();
        remember(
            &mut own,
            registration.incarnation,
            registered.map(|daemon| daemon.incarnation),
        );
        self.group.set_incarnations(&own).map_err(storage)?;
        registration.own = own.iter().copied().collect();
        self.contact.lock().incarnation = Some(registration.incarnation);
        // The first thing in a new cluster's image is its name.
        let named = self
            .images
            .clone()
            .wait_for(|image| image.cluster_id.is_some())
            .await
            .is_ok();
        if !named {
            return Err(RegisterError::Stopped);
        }
        loop {
            let registered = self
                .image()
                .nodes
                .get(&registration.node)
                .map(|daemon| daemon.incarnation);
            registration.replaces = registered.filter(|incarnation| own.contains(incarnation));
            let command = Command::Register(registration.clone());
            match self.propose(command, Instant::now() + REGISTER_TIMEOUT).await {
                Ok(Outcome::Registered { epoch }) => {
                    let only = [registration.incarnation];
                    self.group.set_incarnations(&only).map_err(storage)?;
                    self.refresh();
                    return Ok(epoch);
                }
                // A process that was killed a moment ago is live until it is fenced.
                Err(ProposeError::Refused(MetaError::DuplicateNode(_)))
                    if Instant::now() < stays_duplicate_until =>
                {
                    tokio::time::sleep(self.timing().heartbeat).await;
                }
                Err(ProposeError::Refused(error)) => return Err(RegisterError::Refused(error)),
                Err(ProposeError::Stopped) => return Err(RegisterError::Stopped),
                Ok(_) | Err(_) => tracing::info!("not registered yet: no controller answers"),
            }
        }
    }

    /// Announces a clean stop: when it is applied, others lead what this daemon led, as far as any can.
    pub(super) async fn hand_over(&self, limit: Duration) {
        let Some(daemon_epoch) = self.standing.borrow().daemon_epoch else {
            return;
        };
        let command = Command::Stopping {
            node: self.options.node,
            daemon_epoch,
        };
        let proposed = self.propose(command, Instant::now() + limit);
        let mut standing = self.standing.subscribe();
        // When all daemons are being stopped, the last ones find nobody to hand over to.
        let alone = standing.wait_for(|standing| !standing.in_touch);
        tokio::select! {
            handed_over = proposed => if let Err(error) = handed_over {
                tracing::warn!(%error, "stopping without having handed over");
            },
            _ = alone => tracing::warn!("stopping without having handed over: no controller answers"),
        }
        if self.standing.borrow().is_controller {
            // The others learn what is committed with the next heartbeats; without them only from the next controller.
            tokio::time::sleep(self.timing().heartbeat * 3).await;
        }
    }
}

/// Adds `run` to the runs under which this data directory may be registered, oldest first; at most [`MAX_INCARNATIONS`] are
/// kept.
///
/// The first is one that has seen its registration applied, and `registered` is the one that the image here names: a later
/// run may have been registered as well, but often none was, since a daemon that is started again and again without a
/// controller leaves a run each time. So these two stay, and of the others the oldest goes.
fn remember(runs: &mut Vec<u128>, run: u128, registered: Option<u128>) {
    runs.retain(|known| *known != run);
    while runs.len() >= MAX_INCARNATIONS {
        let second_is_registered = runs.get(1).copied() == registered;
        runs.remove(if second_is_registered { 2 } else { 1 });
    }
    runs.push(run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_that_is_registered_is_remembered_however_many_come_after_it_that_are_not() {
        // Later runs have smaller and greater numbers than the first.
        let later = |i: u128| if i.is_multiple_of(2) { i } else { u128::MAX - i };
        let registered = 1 << 100;
        let mut runs = vec![registered];
        let tries = 3 * MAX_INCARNATIONS as u128;
        for i in 0..tries {
            remember(&mut runs, later(i), Some(registered));
        }
        assert_eq!(runs.len(), MAX_INCARNATIONS);
        assert_eq!(runs[0], registered);
        let newest = (tries - MAX_INCARNATIONS as u128 + 1..tries).map(later);
        assert_eq!(runs[1..], newest.collect::<Vec<_>>());
    }

    #[test]
    fn a_run_that_did_not_see_its_registration_but_has_one_is_remembered() {
        let mut runs = Vec::new();
        for run in 0..3 * MAX_INCARNATIONS as u128 {
            remember(&mut runs, run, Some(5));
        }
        assert_eq!(runs.len(), MAX_INCARNATIONS);
        assert_eq!(runs[..2], [0, 5]);
        remember(&mut runs, 5, Some(5));
        assert_eq!(runs.last(), Some(&5), "each is there once");
        assert_eq!(runs.len(), MAX_INCARNATIONS);
    }
}
