//! What handlers call for groups of the consumer protocol, and how a group changes from one protocol to the other.
//!
//! It changes when nobody is in it: its positions stay, and everything that the log holds of the old form is removed in
//! the batch that begins the new one, or before it.

use super::consumer::{ConsumerGroup, Heartbeat, HeartbeatReply, Refusal, Topics};
use super::coordinator::Coordinator;
use super::error::GroupError;
use super::journal::Entry;
use super::record::Key;
use super::shard::{COMMIT_TIMEOUT, GroupEntry, Shard, State};

impl Coordinator {
    /// Passes on a ConsumerGroupHeartbeat; its answer comes when what it says is replicated.
    pub async fn consumer_heartbeat(
        &self,
        group: &str,
        request: Heartbeat,
    ) -> Result<HeartbeatReply, Refusal> {
        request.check()?;
        let shard = self.shard(group)?;
        let env = &self.inner.env;
        let (reply, written) = {
            let mut state = shard.active()?;
            let now = (env.now)();
            let known = state
                .groups
                .get(group)
                .is_some_and(|entry| entry.consumer.is_some());
            if !known {
                if request.epoch != 0 {
                    return Err(GroupError::GroupNotFound.into());
                }
                let entry = state.entry(group, now.wall_ms);
                shard.become_consumer(entry)?;
            }
            let entry = state.entry(group, now.wall_ms);
            let Some(consumer) = &mut entry.consumer else {
                return Err(GroupError::GroupNotFound.into());
            };
            let topics = env.topics();
            let config = env.config.consumer.of_group(group, topics.as_ref());
            let reply = consumer.heartbeat(&config, topics.as_ref(), request, now.mono_ms, now.wall_ms);
            let outcome = reply.and_then(|reply| {
                shard.write(entry, env, now.mono_ms)?;
                Ok((reply, entry.written))
            });
            if outcome.is_err() && !known {
                entry.consumer = None;
                state.forget_if_blank(group);
            }
            shard.reschedule(&mut state, group);
            outcome?
        };
        if let Some(offset) = written {
            shard.journal.committed(offset, COMMIT_TIMEOUT).await?;
            if let Some(entry) = shard.active()?.groups.get_mut(group) {
                entry.written.take_if(|written| *written <= offset);
            }
        }
        Ok(reply)
    }

    /// Calls `read` with a group of the consumer protocol, if there is one of that name, and the topics.
    pub fn consumer<T>(
        &self,
        group: &str,
        read: impl FnOnce(&ConsumerGroup, &dyn Topics) -> T,
    ) -> Result<Option<T>, GroupError> {
        let shard = self.shard(group)?;
        let state = shard.active()?;
        let consumer = state
            .groups
            .get(group)
            .and_then(|entry| entry.consumer.as_deref());
        Ok(consumer.map(|consumer| read(consumer, self.inner.env.topics().as_ref())))
    }
}

impl Shard {
    /// Makes an empty group one of the consumer protocol. What the log holds of its classic form goes.
    fn become_consumer(&self, entry: &mut GroupEntry) -> Result<(), GroupError> {
        if !entry.is_empty() {
            return Err(GroupError::GroupNotFound);
        }
        if entry.group.generation() > 0 {
            let key = Key::Group {
                group: entry.group.id.clone(),
            };
            self.journal.append(&[(key.encode(), None)])?;
        }
        entry.group.pending.clear();
        entry.consumer = Some(Box::default());
        Ok(())
    }

    /// Makes a group that nobody is in one of the classic protocol again, if it was of the other.
    pub(super) fn return_to_classic(&self, state: &mut State, group: &str) -> Result<(), GroupError> {
        let Some(entry) = state.groups.get_mut(group) else {
            return Ok(());
        };
        let Some(consumer) = &entry.consumer else {
            return Ok(());
        };
        if !consumer.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        self.journal.append(&tombstones(group, consumer))?;
        entry.consumer = None;
        Ok(())
    }
}

/// The tombstones of everything that the log holds of a group of the consumer protocol.
pub(super) fn tombstones(group: &str, consumer: &ConsumerGroup) -> Vec<Entry> {
    let records = consumer.tombstones();
    records.iter().map(|record| record.encode(group)).collect()
}
