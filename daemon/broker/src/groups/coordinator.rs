//! The coordinator: finds a group's shard, passes events to it and waits for what comes of them.
//!
//! It knows nothing of Kafka's requests; the handlers in `api/` turn those into calls here. It owns no connection and
//! no thread: [`Coordinator::run`] is its only task, for time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tradewind_wire::clock::Clock;

use super::consumer::{NoTopics, Topics};
use super::error::GroupError;
use super::group::{GroupConfig, GroupState};
use super::join::{Join, JoinReply};
use super::journal::Journal;
use super::record::partition_of;
use super::shard::{Env, GroupEntry, Shard, Waiter};
use super::sync::{Sync, SyncReply};

/// The two times that groups need.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Milliseconds of the monotonic clock: sessions and delays.
    pub mono_ms: i64,
    /// Milliseconds since the epoch: what is written down.
    pub wall_ms: i64,
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch of the last record read, -1 if not known.
    pub leader_epoch: i32,
    /// What the client wants to remember.
    pub metadata: String,
    /// How long it is to be kept, if not as long as `offsets.retention.minutes` says (OffsetCommit before version 5).
    pub retention_ms: Option<i64>,
}

/// In whose name positions are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committer {
    /// The member; empty from outside the group.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its generation, or its epoch; -1 from outside the group.
    pub generation: i32,
    /// Whether the request could carry an epoch (OffsetCommit 9 and later).
    pub knows_epochs: bool,
}

/// A group as DescribeGroups tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its state.
    pub state: GroupState,
    /// Its protocol type.
    pub protocol_type: String,
    /// The protocol of its generation; empty unless it is stable.
    pub protocol: String,
    /// Its members; metadata and assignment are empty unless it is stable.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its member id.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its host.
    pub client_host: String,
    /// Its metadata, verbatim.
    pub metadata: bytes::Bytes,
    /// Its assignment, verbatim.
    pub assignment: bytes::Bytes,
}

/// A group as ListGroups tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The group id.
    pub id: String,
    /// Its protocol type; empty for a group of which only positions are known.
    pub protocol_type: String,
    /// Its state, under Kafka's name.
    pub state: &'static str,
    /// `classic` or `consumer`.
    pub kind: &'static str,
}

/// Coordinates the groups whose partitions this daemon leads.
#[derive(Clone)]
pub struct Coordinator {
    pub(super) inner: Arc<Inner>,
}

/// What becomes of a JoinGroup.
enum Joining {
    /// Its answer comes when the group has one.
    Waits(oneshot::Receiver<JoinReply>),
    /// Its answer is there, and may be given when the record is replicated.
    Joined(Arc<Shard>, JoinReply, Option<i64>),
}

pub(super) struct Inner {
    pub(super) env: Env,
    /// How many partitions `__consumer_offsets` has.
    partitions: i32,
    shards: RwLock<HashMap<i32, Arc<Shard>>>,
    timers: Arc<Notify>,
}

impl Coordinator {
    /// A coordinator that has no shards yet.
    pub fn new(mut config: GroupConfig, partitions: i32, clock: Arc<dyn Clock>) -> Self {
        config.consumer.classic_max_size = config.max_size;
        let now = Arc::new(move || Now {
            mono_ms: i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX),
            wall_ms: clock.now_ms(),
        });
        let inner = Inner {
            env: Env {
                config: Arc::new(config),
                now,
                topics: Arc::new(RwLock::new(Arc::new(NoTopics))),
            },
            partitions,
            shards: RwLock::new(HashMap::new()),
            timers: Arc::new(Notify::new()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The partition of `__consumer_offsets` that holds `group`.
    pub fn partition_of(&self, group: &str) -> i32 {
        partition_of(group, self.inner.partitions)
    }

    /// The partitions coordinated here and under which leader epoch each.
    pub fn epochs(&self) -> HashMap<i32, i32> {
        self.inner
            .shards
            .read()
            .iter()
            .map(|(partition, shard)| (*partition, shard.epoch))
            .collect()
    }

    /// The topics that there are from now on. To be told before the first [`Coordinator::elected`].
    pub fn set_topics(&self, topics: Arc<dyn Topics>) {
        *self.inner.env.topics.write() = topics;
    }

    /// This daemon leads `partition` under `epoch` from now on: loads it in a task of its own, then serves it.
    pub fn elected(&self, partition: i32, epoch: i32, journal: Arc<dyn Journal>) {
        let shard = Shard::new(partition, epoch, journal, Arc::clone(&self.inner.timers));
        let older = self.inner.shards.write().insert(partition, Arc::clone(&shard));
        if let Some(older) = older {
            older.close();
        }
        let env = self.inner.env.clone();
        tokio::spawn(async move { shard.load(&env.config, || (env.now)()).await });
    }

    /// This daemon does not lead `partition` any more.
    pub fn resigned(&self, partition: i32) {
        let shard = self.inner.shards.write().remove(&partition);
        if let Some(shard) = shard {
            shard.close();
        }
    }

    /// Runs timers until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let env = &self.inner.env;
        let interval = env.config.retention_check_interval_ms.max(1);
        let mut expiry = (env.now)().mono_ms + interval;
        loop {
            let shards = self.shards();
            let next = shards.iter().filter_map(|shard| shard.tick(env)).min();
            let now = (env.now)().mono_ms;
            if now >= expiry {
                expiry = now + interval;
                for shard in &shards {
                    self.expire(shard);
                }
            }
            let wait = next.map_or(expiry, |next| next.min(expiry)) - now;
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inner.timers.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether `group` is coordinated here and may be asked for.
    pub fn coordinates(&self, group: &str) -> Result<(), GroupError> {
        self.shard(group)?.active().map(drop)
    }

    /// Passes on a JoinGroup and waits for its answer.
    pub async fn join(&self, group: &str, mut join: Join) -> JoinReply {
        let mut member_id = join.member_id.clone();
        let fresh_id = join.fresh_id.clone();
        let joining = (|| {
            self.is_still_here(group)?;
            let shard = self.shard(group)?;
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if !join.member_id.is_empty() && !state.groups.contains_key(group) {
                return Err(GroupError::UnknownMember);
            }
            if let Some((reply, written)) = self.join_consumers(&shard, &mut state, group, &join)? {
                drop(state);
                return Ok(Joining::Joined(shard, reply, written));
            }
            shard.return_to_classic(&mut state, group)?;
            let (answer, waiting) = oneshot::channel();
            join.token = state.wait(Waiter::Join(answer));
            let mut effects = Vec::new();
            let entry = state.entry(group, now.wall_ms);
            entry.group.join(
                &self.inner.env.config,
                join,
                now.mono_ms,
                now.wall_ms,
                &mut effects,
            );
            shard.settle(&mut state, group, effects, &self.inner.env);
            Ok(Joining::Waits(waiting))
        })();
        match joining {
            Ok(Joining::Waits(waiting)) => waiting
                .await
                .unwrap_or_else(|_| JoinReply::refused(GroupError::NotCoordinator, member_id)),
            Ok(Joining::Joined(shard, reply, written)) => match self.replicated(&shard, group, written).await
            {
                Ok(()) => reply,
                Err(error) => JoinReply::refused(error, member_id),
            },
            Err(error) => {
                match error {
                    GroupError::MemberIdRequired => member_id = fresh_id,
                    GroupError::GroupFull => member_id.clear(),
                    _ => {}
                }
                JoinReply::refused(error, member_id)
            }
        }
    }

    /// Passes on a SyncGroup and waits for its answer.
    pub async fn sync(&self, group: &str, mut sync: Sync) -> Result<SyncReply, GroupError> {
        self.is_still_here(group)?;
        let shard = self.shard(group)?;
        let (answer, waiting) = oneshot::channel();
        let synced = {
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if !state.groups.contains_key(group) {
                return Err(GroupError::UnknownMember);
            }
            let synced = self.sync_consumers(&shard, &mut state, group, &sync)?;
            if synced.is_none() {
                sync.token = state.wait(Waiter::Sync(answer));
                let mut effects = Vec::new();
                state
                    .entry(group, now.wall_ms)
                    .group
                    .sync(sync, now.mono_ms, &mut effects);
                shard.settle(&mut state, group, effects, &self.inner.env);
            }
            synced
        };
        let Some((reply, written)) = synced else {
            return waiting.await.unwrap_or(Err(GroupError::NotCoordinator));
        };
        self.replicated(&shard, group, written).await?;
        Ok(reply)
    }

    /// Passes on a Heartbeat.
    pub fn heartbeat(&self, group: &str, member: &Committer) -> Result<(), GroupError> {
        self.is_still_here(group)?;
        let shard = self.shard(group)?;
        let mut state = shard.active()?;
        let now = (self.inner.env.now)();
        if let Some(outcome) = self.heartbeat_consumers(&shard, &mut state, group, member) {
            return outcome;
        }
        let entry = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
        entry.group.heartbeat(
            &member.member_id,
            member.instance_id.as_deref(),
            member.generation,
            now.mono_ms,
        )
    }

    /// Passes on a LeaveGroup; one outcome per member (id and instance id).
    pub fn leave(
        &self,
        group: &str,
        members: &[(String, Option<String>)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard(group)?;
        let mut state = shard.active()?;
        let now = (self.inner.env.now)();
        if let Some(outcomes) = self.leave_consumers(&shard, &mut state, group, members) {
            return outcomes;
        }
        let mut effects = Vec::new();
        let outcomes = members
            .iter()
            .map(|(id, instance)| {
                let entry = state.groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
                let config = &self.inner.env.config;
                entry.group.leave(
                    config,
                    id,
                    instance.as_deref(),
                    now.mono_ms,
                    now.wall_ms,
                    &mut effects,
                )
            })
            .collect();
        shard.settle(&mut state, group, effects, &self.inner.env);
        Ok(outcomes)
    }

    /// Calls `read` with the committed positions of `group`, if it has any.
    pub fn positions<T>(
        &self,
        group: &str,
        read: impl FnOnce(Option<&super::Offsets>) -> T,
    ) -> Result<T, GroupError> {
        let shard = self.shard(group)?;
        let state = shard.active()?;
        Ok(read(state.groups.get(group).map(|entry| &entry.offsets)))
    }

    /// Describes a group of the classic protocol; `None` if there is none of that name.
    pub fn describe(&self, group: &str) -> Result<Option<Description>, GroupError> {
        let shard = self.shard(group)?;
        let state = shard.active()?;
        let classic = state.groups.get(group).filter(|entry| entry.consumer.is_none());
        Ok(classic.map(describe))
    }

    /// The groups coordinated here. [`GroupError::Loading`] if some are still being loaded.
    pub fn list(&self) -> Result<Vec<Listing>, GroupError> {
        let shards = self.shards();
        let mut all = Vec::new();
        for shard in shards {
            let state = match shard.active() {
                Ok(state) => state,
                Err(GroupError::Loading) => return Err(GroupError::Loading),
                Err(_) => continue,
            };
            all.extend(state.groups.values().map(list));
        }
        Ok(all)
    }

    /// The groups coordinated here that hold a position which `flow` wrote.
    pub fn mirrored_groups(&self, flow: &str) -> Vec<String> {
        let shards = self.shards();
        let mut all = Vec::new();
        for shard in shards {
            let Ok(state) = shard.active() else { continue };
            let of_flow = state.groups.values().filter(|entry| entry.offsets.has_flow(flow));
            all.extend(of_flow.map(|entry| entry.group.id.clone()));
        }
        all
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.inner.shards.read().values().cloned().collect()
    }

    pub(super) fn shard(&self, group: &str) -> Result<Arc<Shard>, GroupError> {
        let partition = self.partition_of(group);
        self.inner
            .shards
            .read()
            .get(&partition)
            .cloned()
            .ok_or(GroupError::NotCoordinator)
    }
}

fn list(entry: &GroupEntry) -> Listing {
    let group = &entry.group;
    let (protocol_type, state) = match &entry.consumer {
        Some(consumer) => ("consumer", consumer.state().name()),
        None => (group.protocol_type().unwrap_or_default(), group.state().name()),
    };
    Listing {
        id: group.id.clone(),
        protocol_type: protocol_type.to_owned(),
        state,
        kind: entry.kind(),
    }
}

fn describe(entry: &GroupEntry) -> Description {
    let group = &entry.group;
    let stable = group.state() == GroupState::Stable;
    let protocol = group.protocol().filter(|_| stable).unwrap_or_default();
    let members = group.members().map(|member| DescribedMember {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: if stable {
            member.metadata(protocol)
        } else {
            bytes::Bytes::new()
        },
        assignment: if stable {
            member.assignment.clone()
        } else {
            bytes::Bytes::new()
        },
    });
    Description {
        state: group.state(),
        protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
        protocol: protocol.to_owned(),
        members: members.collect(),
    }
}
