//! What handlers call for groups of the consumer protocol, and how one that nobody is in becomes a classic group again:
//! its positions stay, and everything else that the log holds of it is removed before.

use super::consumer::{ConsumerGroup, Heartbeat, HeartbeatReply, Refusal, Topics};
use super::coordinator::Coordinator;
use super::error::GroupError;
use super::journal::Entry;
use super::shard::{COMMIT_TIMEOUT, Shard, State};

impl Coordinator {
    /// Passes on a ConsumerGroupHeartbeat; its answer comes when what it says is replicated.
    pub async fn consumer_heartbeat(
        &self,
        group: &str,
        request: Heartbeat,
    ) -> Result<HeartbeatReply, Refusal> {
        request.check()?;
        self.is_still_here(group)?;
        let shard = self.shard(group)?;
        let env = &self.inner.env;
        let (reply, written) = {
            let mut state = shard.active()?;
            let now = (env.now)();
            let known = state
                .groups
                .get(group)
                .is_some_and(|entry| entry.consumer.is_some());
            if !known && request.epoch != 0 {
                return Err(GroupError::GroupNotFound.into());
            }
            let entry = state.entry(group, now.wall_ms);
            let topics = env.topics();
            let config = env.config.consumer.of_group(group, topics.as_ref());
            let mut effects = Vec::new();
            let outcome = match &mut entry.consumer {
                Some(consumer) => consumer
                    .heartbeat(&config, topics.as_ref(), request, now.mono_ms, now.wall_ms)
                    .and_then(|reply| {
                        shard.write(entry, env, now, &mut effects)?;
                        Ok(reply)
                    }),
                None => shard.upgrade(entry, env, &config, request, now, &mut effects),
            };
            let written = entry.written;
            shard.settle(&mut state, group, effects, env);
            (outcome?, written)
        };
        self.replicated(&shard, group, written).await?;
        Ok(reply)
    }

    /// Waits until the record at `written`, if any, is replicated.
    pub(super) async fn replicated(
        &self,
        shard: &Shard,
        group: &str,
        written: Option<i64>,
    ) -> Result<(), GroupError> {
        let Some(offset) = written else { return Ok(()) };
        shard.journal.committed(offset, COMMIT_TIMEOUT).await?;
        if let Some(entry) = shard.active()?.groups.get_mut(group) {
            entry.written.take_if(|written| *written <= offset);
        }
        Ok(())
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
