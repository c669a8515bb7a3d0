//! The coordinator: finds a group's shard, passes events to it and waits for what comes of them.
//!
//! It knows nothing of Kafka's requests; the handlers in `api/` turn those into calls here. It owns no connection and
//! no thread: [`Coordinator::run`] is its only task, for time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tradewind_wire::clock::Clock;

use super::error::GroupError;
use super::group::{GroupConfig, GroupState};
use super::join::{Join, JoinReply};
use super::journal::{Entry, Journal};
use super::offsets::{MirroredCommit, MirroredStatus};
use super::record::{Key, OffsetValue, partition_of, subscribed_topics};
use super::shard::{COMMIT_TIMEOUT, Env, GroupEntry, Shard, Waiter};
use super::sync::{Sync, SyncReply};

/// How often expired positions are looked for (`offsets.retention.check.interval.ms`).
const EXPIRY_INTERVAL_MS: i64 = 10 * 60 * 1000;

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
}

/// In whose name positions are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committer {
    /// The member; empty from outside the group.
    pub member_id: String,
    /// Its static instance id.
    pub instance_id: Option<String>,
    /// Its generation; -1 from outside the group.
    pub generation: i32,
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
    /// Its state.
    pub state: GroupState,
}

/// Coordinates the groups whose partitions this daemon leads.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    /// How many partitions `__consumer_offsets` has.
    partitions: i32,
    shards: RwLock<HashMap<i32, Arc<Shard>>>,
    timers: Arc<Notify>,
}

impl Coordinator {
    /// A coordinator that has no shards yet.
    pub fn new(config: GroupConfig, partitions: i32, clock: Arc<dyn Clock>) -> Self {
        let now = Arc::new(move || Now {
            mono_ms: i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX),
            wall_ms: clock.now_ms(),
        });
        let inner = Inner {
            env: Env {
                config: Arc::new(config),
                now,
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

    /// This daemon leads `partition` under `epoch` from now on: loads it in a task of its own, then serves it.
    pub fn elected(&self, partition: i32, epoch: i32, journal: Arc<dyn Journal>) {
        let shard = Shard::new(partition, epoch, journal, Arc::clone(&self.inner.timers));
        let older = self.inner.shards.write().insert(partition, Arc::clone(&shard));
        if let Some(older) = older {
            older.close();
        }
        let now = Arc::clone(&self.inner.env.now);
        tokio::spawn(async move { shard.load(|| now()).await });
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
        let mut expiry = (env.now)().mono_ms + EXPIRY_INTERVAL_MS;
        loop {
            let shards: Vec<Arc<Shard>> = self.inner.shards.read().values().cloned().collect();
            let next = shards.iter().filter_map(|shard| shard.tick(env)).min();
            let now = (env.now)().mono_ms;
            if now >= expiry {
                expiry = now + EXPIRY_INTERVAL_MS;
                for shard in &shards {
                    self.expire(shard).await;
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
        let member_id = join.member_id.clone();
        let waiting = (|| {
            let shard = self.shard(group)?;
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if !join.member_id.is_empty() && !state.groups.contains_key(group) {
                return Err(GroupError::UnknownMember);
            }
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
            Ok(waiting)
        })();
        match waiting {
            Ok(waiting) => waiting
                .await
                .unwrap_or_else(|_| JoinReply::refused(GroupError::NotCoordinator, member_id)),
            Err(error) => JoinReply::refused(error, member_id),
        }
    }

    /// Passes on a SyncGroup and waits for its answer.
    pub async fn sync(&self, group: &str, mut sync: Sync) -> Result<SyncReply, GroupError> {
        let waiting = {
            let shard = self.shard(group)?;
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if !state.groups.contains_key(group) {
                return Err(GroupError::UnknownMember);
            }
            let (answer, waiting) = oneshot::channel();
            sync.token = state.wait(Waiter::Sync(answer));
            let mut effects = Vec::new();
            state
                .entry(group, now.wall_ms)
                .group
                .sync(sync, now.mono_ms, &mut effects);
            shard.settle(&mut state, group, effects, &self.inner.env);
            waiting
        };
        waiting.await.unwrap_or(Err(GroupError::NotCoordinator))
    }

    /// Passes on a Heartbeat.
    pub fn heartbeat(&self, group: &str, member: &Committer) -> Result<(), GroupError> {
        let shard = self.shard(group)?;
        let mut state = shard.active()?;
        let now = (self.inner.env.now)();
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

    /// Commits positions and waits until they are committed; one outcome per position.
    pub async fn commit(
        &self,
        group: &str,
        committer: &Committer,
        positions: Vec<Position>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let shard = self.shard(group)?;
        let (mut outcomes, mut values) = (Vec::with_capacity(positions.len()), Vec::new());
        let base = {
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            if committer.generation >= 0 && !state.groups.contains_key(group) {
                return Err(GroupError::GroupNotFound);
            }
            let entry = state.entry(group, now.wall_ms);
            let instance = committer.instance_id.as_deref();
            let checked =
                entry
                    .group
                    .check_commit(&committer.member_id, instance, committer.generation, now.mono_ms);
            if let Err(error) = checked {
                state.forget_if_blank(group);
                return Err(error);
            }
            let entry = state.entry(group, now.wall_ms);
            for position in positions {
                if position.metadata.len() > self.inner.env.config.max_metadata_bytes {
                    outcomes.push(Err(GroupError::MetadataTooLarge));
                    continue;
                }
                outcomes.push(Ok(()));
                let value = OffsetValue {
                    offset: position.offset,
                    leader_epoch: position.leader_epoch,
                    metadata: position.metadata,
                    commit_timestamp_ms: now.wall_ms,
                    mirrored: None,
                };
                values.push((position.topic, position.partition, value));
            }
            let appended = append_positions(&shard, group, entry, &values);
            state.forget_if_blank(group);
            appended?
        };
        self.finish_commit(&shard, group, base, values).await?;
        Ok(outcomes)
    }

    /// Writes positions for a flow, each only if the group is not in use here and the flow wrote the stored one itself.
    /// Waits until they are committed; one status per position.
    pub async fn mirrored_commit(
        &self,
        group: &str,
        commits: Vec<MirroredCommit>,
    ) -> Result<Vec<MirroredStatus>, GroupError> {
        let shard = self.shard(group)?;
        let (mut statuses, mut values) = (Vec::with_capacity(commits.len()), Vec::new());
        let base = {
            let mut state = shard.active()?;
            let now = (self.inner.env.now)();
            let entry = state.entry(group, now.wall_ms);
            let subscribed = subscriptions(entry);
            for commit in commits {
                if !subscribed.allows(&commit.topic) {
                    statuses.push(MirroredStatus::OwnedHere);
                    continue;
                }
                if let Some(refusal) = entry.offsets.mirror_refusal(&commit) {
                    statuses.push(refusal);
                    continue;
                }
                statuses.push(MirroredStatus::Written);
                let value = OffsetValue {
                    offset: commit.offset,
                    leader_epoch: -1,
                    metadata: commit.metadata,
                    commit_timestamp_ms: now.wall_ms,
                    mirrored: Some(commit.mark),
                };
                values.push((commit.topic, commit.partition, value));
            }
            let appended = append_positions(&shard, group, entry, &values);
            state.forget_if_blank(group);
            appended?
        };
        self.finish_commit(&shard, group, base, values).await?;
        Ok(statuses)
    }

    async fn finish_commit(
        &self,
        shard: &Arc<Shard>,
        group: &str,
        base: i64,
        values: Vec<(String, i32, OffsetValue)>,
    ) -> Result<(), GroupError> {
        if values.is_empty() {
            return Ok(());
        }
        let last = base + values.len() as i64 - 1;
        let outcome = shard.journal.committed(last, COMMIT_TIMEOUT).await;
        let mut state = shard.active()?;
        let Some(entry) = state.groups.get_mut(group) else {
            return outcome;
        };
        for (at, (topic, partition, value)) in (base..).zip(values) {
            match outcome {
                Ok(()) => entry.offsets.apply(&topic, partition, at, value),
                Err(_) => entry.offsets.give_up(&topic, partition, at),
            }
        }
        state.forget_if_blank(group);
        outcome
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

    /// Describes a group; `None` if there is none of that name.
    pub fn describe(&self, group: &str) -> Result<Option<Description>, GroupError> {
        let shard = self.shard(group)?;
        let state = shard.active()?;
        Ok(state.groups.get(group).map(describe))
    }

    /// The groups coordinated here. [`GroupError::Loading`] if some are still being loaded.
    pub fn list(&self) -> Result<Vec<Listing>, GroupError> {
        let shards: Vec<Arc<Shard>> = self.inner.shards.read().values().cloned().collect();
        let mut all = Vec::new();
        for shard in shards {
            let state = match shard.active() {
                Ok(state) => state,
                Err(GroupError::Loading) => return Err(GroupError::Loading),
                Err(_) => continue,
            };
            all.extend(state.groups.values().map(|entry| Listing {
                id: entry.group.id.clone(),
                protocol_type: entry.group.protocol_type().unwrap_or_default().to_owned(),
                state: entry.group.state(),
            }));
        }
        Ok(all)
    }

    /// The groups coordinated here that hold a position which `flow` wrote.
    pub fn mirrored_groups(&self, flow: &str) -> Vec<String> {
        let shards: Vec<Arc<Shard>> = self.inner.shards.read().values().cloned().collect();
        let mut all = Vec::new();
        for shard in shards {
            let Ok(state) = shard.active() else { continue };
            let of_flow = state.groups.values().filter(|entry| entry.offsets.has_flow(flow));
            all.extend(of_flow.map(|entry| entry.group.id.clone()));
        }
        all
    }

    /// Deletes a group without members, with its positions.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let shard = self.shard(group)?;
        let removals = {
            let state = shard.active()?;
            let entry = state.groups.get(group).ok_or(GroupError::GroupNotFound)?;
            match entry.group.state() {
                GroupState::Dead => return Err(GroupError::GroupNotFound),
                GroupState::Empty if entry.group.is_idle() => removals(entry),
                _ => return Err(GroupError::NotEmpty),
            }
        };
        shard.remove(&removals).await?;
        let mut state = shard.active()?;
        if state.groups.get(group).is_some_and(|entry| entry.group.is_idle()) {
            state.groups.remove(group);
        }
        Ok(())
    }

    fn shard(&self, group: &str) -> Result<Arc<Shard>, GroupError> {
        let partition = self.partition_of(group);
        self.inner
            .shards
            .read()
            .get(&partition)
            .cloned()
            .ok_or(GroupError::NotCoordinator)
    }

    /// Removes what has expired. A removal that fails is tried again the next time.
    async fn expire(&self, shard: &Shard) {
        let now = (self.inner.env.now)();
        let before = now.wall_ms - self.inner.env.config.offsets_retention_ms;
        let expired: Vec<(String, Vec<(String, i32)>)> = {
            let Ok(state) = shard.active() else { return };
            let of = |entry: &GroupEntry| (entry.group.id.clone(), expired(entry, before));
            let all = state.groups.values();
            all.filter(|entry| entry.group.is_idle() || entry.group.state() == GroupState::Stable)
                .map(of)
                .collect()
        };
        for (group, positions) in expired {
            self.expire_group(shard, &group, &positions).await;
        }
    }

    async fn expire_group(&self, shard: &Shard, group: &str, positions: &[(String, i32)]) {
        if !positions.is_empty() {
            let key = |(topic, partition): &(String, i32)| (offset_key(group, topic, *partition), None);
            let entries: Vec<Entry> = positions.iter().map(key).collect();
            if let Err(error) = shard.remove(&entries).await {
                tracing::debug!(group, %error, "expired positions not removed");
                return;
            }
            let Ok(mut state) = shard.active() else { return };
            let Some(entry) = state.groups.get_mut(group) else {
                return;
            };
            for (topic, partition) in positions {
                entry.offsets.remove(topic, *partition);
            }
        }
        // A group that nobody is in and that remembers nothing is forgotten.
        let forgettable = |entry: &GroupEntry| entry.group.is_idle() && entry.offsets.is_empty();
        let removal = [(
            Key::Group {
                group: group.to_owned(),
            }
            .encode(),
            None,
        )];
        {
            let Ok(state) = shard.active() else { return };
            if !state.groups.get(group).is_some_and(forgettable) {
                return;
            }
        }
        if shard.remove(&removal).await.is_ok()
            && let Ok(mut state) = shard.active()
            && state.groups.get(group).is_some_and(forgettable)
        {
            state.groups.remove(group);
        }
    }
}

/// Which positions of a group are over: those of a group that has been empty long enough, those of a group that only
/// ever committed, and those of topics that a stable group no longer reads.
fn expired(entry: &GroupEntry, before_ms: i64) -> Vec<(String, i32)> {
    let group = &entry.group;
    let kept = match group.state() {
        GroupState::Empty if group.protocol_type().is_none() || group.state_since_ms() < before_ms => {
            BTreeSet::new()
        }
        GroupState::Stable if group.protocol_type() == Some("consumer") => match subscriptions(entry) {
            Subscriptions::Topics(topics) => topics,
            Subscriptions::Unknown => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    entry.offsets.expired(before_ms, &kept)
}

enum Subscriptions {
    Topics(BTreeSet<String>),
    Unknown,
}

impl Subscriptions {
    fn allows(&self, topic: &str) -> bool {
        matches!(self, Self::Topics(topics) if !topics.contains(topic))
    }
}

/// What the members of a group read. Members whose metadata is not Kafka's own may read anything.
fn subscriptions(entry: &GroupEntry) -> Subscriptions {
    let mut all = BTreeSet::new();
    for member in entry.group.members() {
        for (_, metadata) in &member.protocols {
            match subscribed_topics(metadata) {
                Some(topics) if entry.group.protocol_type() == Some("consumer") => all.extend(topics),
                _ => return Subscriptions::Unknown,
            }
        }
    }
    Subscriptions::Topics(all)
}

fn append_positions(
    shard: &Shard,
    group: &str,
    entry: &mut GroupEntry,
    values: &[(String, i32, OffsetValue)],
) -> Result<i64, GroupError> {
    if values.is_empty() {
        return Ok(-1);
    }
    let records: Vec<Entry> = values
        .iter()
        .map(|(topic, partition, value)| (offset_key(group, topic, *partition), Some(value.encode())))
        .collect();
    let base = shard.journal.append(&records)?;
    for (at, (topic, partition, value)) in (base..).zip(values) {
        entry.offsets.begin(topic, *partition, at, value.clone());
    }
    Ok(base)
}

fn offset_key(group: &str, topic: &str, partition: i32) -> bytes::Bytes {
    Key::Offset {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
    }
    .encode()
}

fn removals(entry: &GroupEntry) -> Vec<Entry> {
    let group = &entry.group.id;
    let offsets = entry
        .offsets
        .iter()
        .map(|(topic, partition, _)| (offset_key(group, topic, partition), None));
    offsets
        .chain([(Key::Group { group: group.clone() }.encode(), None)])
        .collect()
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
