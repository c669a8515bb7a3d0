//! The groups of one `__consumer_offsets` partition under one leader epoch.
//!
//! A shard is loading, then active, then closed; it never comes back. One lock guards its groups, is held for short
//! synchronous sections only, and over the append of a record, so that records stand in the log in the order in which
//! the groups decided. What an append brings about is settled when it is committed, and only while the shard is active.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Notify, oneshot};

use super::consumer::{ConsumerGroup, Record, Topics};
use super::coordinator::Now;
use super::error::GroupError;
use super::group::{Effect, Group, GroupConfig, GroupState, Token};
use super::join::JoinReply;
use super::journal::{Entry, Journal};
use super::migration::downgrade;
use super::offsets::Offsets;
use super::record::{GroupValue, Key, OffsetValue};
use super::sync::SyncReply;

/// How long a record of a coordinator may take to be committed (`offsets.commit.timeout.ms`).
pub(super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The groups of one partition under one leader epoch.
pub(super) struct Shard {
    /// The partition of `__consumer_offsets`.
    pub(super) partition: i32,
    /// The leader epoch under which this daemon coordinates it.
    pub(super) epoch: i32,
    pub(super) journal: Arc<dyn Journal>,
    state: Mutex<State>,
    /// Woken when a timer is set that ends before all others.
    timers: Arc<Notify>,
}

/// How far a shard is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Active,
    Closed,
}

/// Everything behind the shard's lock.
pub(super) struct State {
    phase: Phase,
    pub(super) groups: HashMap<String, GroupEntry>,
    waiting: HashMap<Token, Waiter>,
    timers: BTreeSet<(i64, String)>,
    next_token: Token,
}

/// A group with its positions.
pub(super) struct GroupEntry {
    /// The group of the classic protocol. While `consumer` is there it is empty and only waits to be used again.
    pub(super) group: Group,
    /// The group of the consumer protocol, if it is one.
    pub(super) consumer: Option<Box<ConsumerGroup>>,
    /// Where the last record of `consumer` stands, until that is replicated.
    pub(super) written: Option<i64>,
    pub(super) offsets: Offsets,
    timer: Option<i64>,
}

pub(super) enum Waiter {
    Join(oneshot::Sender<JoinReply>),
    Sync(oneshot::Sender<Result<SyncReply, GroupError>>),
}

impl GroupEntry {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            consumer: None,
            written: None,
            offsets: Offsets::default(),
            timer: None,
        }
    }

    /// Whether nobody is in the group.
    pub(super) fn is_empty(&self) -> bool {
        let consumers = self.consumer.as_ref().is_none_or(|consumer| consumer.is_empty());
        self.group.state() == GroupState::Empty && consumers
    }

    /// Whether nothing but committed positions could keep the group alive.
    pub(super) fn is_idle(&self) -> bool {
        self.group.is_idle() && self.is_empty()
    }

    /// What kind of group it is, under Kafka's name.
    pub(super) fn kind(&self) -> &'static str {
        if self.consumer.is_some() {
            "consumer"
        } else {
            "classic"
        }
    }

    fn deadline(&self) -> Option<i64> {
        let consumer = self.consumer.as_ref().and_then(|consumer| consumer.deadline());
        self.group.deadline().into_iter().chain(consumer).min()
    }
}

impl State {
    /// Names a request that waits.
    pub(super) fn wait(&mut self, waiter: Waiter) -> Token {
        self.next_token += 1;
        self.waiting.insert(self.next_token, waiter);
        self.next_token
    }

    /// The group, made if there is none.
    pub(super) fn entry(&mut self, id: &str, wall_ms: i64) -> &mut GroupEntry {
        self.groups
            .entry(id.to_owned())
            .or_insert_with(|| GroupEntry::new(Group::new(id, wall_ms)))
    }

    /// Drops a group of which nothing is known and nothing was written: a refused request must leave no trace.
    pub(super) fn forget_if_blank(&mut self, id: &str) {
        let blank = |entry: &GroupEntry| {
            entry.consumer.is_none()
                && entry.group.is_idle()
                && entry.group.generation() == 0
                && entry.offsets.is_empty()
        };
        if self.groups.get(id).is_some_and(blank) {
            self.groups.remove(id);
        }
    }

    /// Takes a group out of memory. Whoever waits for it has to look again.
    pub(super) fn take_out(&mut self, id: &str) {
        let Some(mut entry) = self.groups.remove(id) else {
            return;
        };
        if let Some(timer) = entry.timer {
            self.timers.remove(&(timer, id.to_owned()));
        }
        let mut effects = Vec::new();
        entry.group.close(GroupError::Unavailable, &mut effects);
        for effect in effects {
            self.answer(effect);
        }
    }

    fn answer(&mut self, effect: Effect) {
        match effect {
            Effect::Joined { token, reply } => {
                if let Some(Waiter::Join(waiter)) = self.waiting.remove(&token) {
                    let _ = waiter.send(reply);
                }
            }
            Effect::Synced { token, reply } => {
                if let Some(Waiter::Sync(waiter)) = self.waiting.remove(&token) {
                    let _ = waiter.send(reply);
                }
            }
            Effect::Store { .. } => {}
        }
    }
}

impl Shard {
    /// A shard that has yet to load.
    pub(super) fn new(
        partition: i32,
        epoch: i32,
        journal: Arc<dyn Journal>,
        timers: Arc<Notify>,
    ) -> Arc<Self> {
        let state = State {
            phase: Phase::Loading,
            groups: HashMap::new(),
            waiting: HashMap::new(),
            timers: BTreeSet::new(),
            next_token: 0,
        };
        Arc::new(Self {
            partition,
            epoch,
            journal,
            state: Mutex::new(state),
            timers,
        })
    }

    /// The groups, if they may be asked for.
    pub(super) fn active(&self) -> Result<MutexGuard<'_, State>, GroupError> {
        let state = self.state.lock();
        match state.phase {
            Phase::Loading => Err(GroupError::Loading),
            Phase::Active => Ok(state),
            Phase::Closed => Err(GroupError::NotCoordinator),
        }
    }

    /// Reads the partition, then serves. Returns whether it serves now.
    pub(super) async fn load(self: &Arc<Self>, config: &GroupConfig, now: impl Fn() -> Now) -> bool {
        let loaded = Arc::new(Mutex::new(Loaded::default()));
        let into = Arc::clone(&loaded);
        let each = Box::new(move |offset: i64, key: &[u8], value: Option<&[u8]>| {
            into.lock().apply(offset, key, value)
        });
        if let Err(error) = self.journal.replay(each).await {
            tracing::debug!(partition = self.partition, epoch = self.epoch, %error, "group partition not loaded");
            return false;
        }
        let loaded = std::mem::take(&mut *loaded.lock());
        let now = now();
        let mut state = self.state.lock();
        if state.phase != Phase::Loading {
            return false;
        }
        state.groups = loaded.into_groups(config, now);
        state.phase = Phase::Active;
        let ids: Vec<String> = state.groups.keys().cloned().collect();
        for id in &ids {
            self.reschedule(&mut state, id);
        }
        tracing::debug!(
            partition = self.partition,
            epoch = self.epoch,
            groups = ids.len(),
            "coordinating groups"
        );
        true
    }

    /// Ends the shard; everyone who waits is told that the coordinator is elsewhere.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        let mut effects = Vec::new();
        for entry in state.groups.values_mut() {
            entry.group.close(GroupError::NotCoordinator, &mut effects);
        }
        for effect in effects {
            state.answer(effect);
        }
        state.groups.clear();
        state.waiting.clear();
        state.timers.clear();
    }

    /// Carries out what a group wants done.
    pub(super) fn settle(self: &Arc<Self>, state: &mut State, id: &str, effects: Vec<Effect>, env: &Env) {
        let mut left = effects;
        while !left.is_empty() {
            let mut more = Vec::new();
            for effect in left {
                let Effect::Store { id: store } = effect else {
                    state.answer(effect);
                    continue;
                };
                let Some(entry) = state.groups.get_mut(id) else {
                    continue;
                };
                let record = (
                    Key::Group { group: id.to_owned() }.encode(),
                    Some(entry.group.value().encode()),
                );
                match self.journal.append(&[record]) {
                    Ok(offset) => self.await_store(id, store, offset, env),
                    Err(error) => {
                        let now = (env.now)();
                        entry.group.stored(
                            &env.config,
                            store,
                            Err(error),
                            now.mono_ms,
                            now.wall_ms,
                            &mut more,
                        );
                    }
                }
            }
            left = more;
        }
        state.forget_if_blank(id);
        self.reschedule(state, id);
    }

    fn await_store(self: &Arc<Self>, id: &str, store: u64, offset: i64, env: &Env) {
        let (shard, id, env) = (Arc::clone(self), id.to_owned(), env.clone());
        let committed = self.journal.committed(offset, COMMIT_TIMEOUT);
        tokio::spawn(async move {
            let outcome = committed.await;
            let Ok(mut state) = shard.active() else { return };
            let Some(entry) = state.groups.get_mut(&id) else {
                return;
            };
            let (now, mut effects) = ((env.now)(), Vec::new());
            entry.group.stored(
                &env.config,
                store,
                outcome,
                now.mono_ms,
                now.wall_ms,
                &mut effects,
            );
            shard.settle(&mut state, &id, effects, &env);
        });
    }

    /// Lets time pass for every group whose timer has ended. Returns when the next one ends.
    pub(super) fn tick(self: &Arc<Self>, env: &Env) -> Option<i64> {
        let mut state = self.active().ok()?;
        let now = (env.now)();
        while let Some((deadline, id)) = state.timers.first().cloned() {
            if deadline > now.mono_ms {
                return Some(deadline);
            }
            state.timers.pop_first();
            let Some(entry) = state.groups.get_mut(&id) else {
                continue;
            };
            entry.timer = None;
            let mut effects = Vec::new();
            if let Some(consumer) = &mut entry.consumer {
                consumer.tick(&env.config.consumer, env.topics().as_ref(), now.mono_ms);
                if let Err(error) = self.write(entry, env, now, &mut effects) {
                    tracing::debug!(group = id, %error, "members that timed out not removed");
                }
            }
            entry
                .group
                .tick(&env.config, now.mono_ms, now.wall_ms, &mut effects);
            self.settle(&mut state, &id, effects, env);
        }
        None
    }

    /// Appends what a group of the consumer protocol has written, or takes it back. If only members of the classic protocol
    /// are left the group becomes a classic one with the same batch.
    pub(super) fn write(
        &self,
        entry: &mut GroupEntry,
        env: &Env,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let Some(consumer) = &mut entry.consumer else {
            return Ok(());
        };
        let id = &entry.group.id;
        let mut records: Vec<Entry> = consumer.unwritten().map(|record| record.encode(id)).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut classic = None;
        if consumer.falls_back(&env.config.consumer) {
            let (group, more) = downgrade(&entry.group, consumer, env, now);
            classic = Some(group);
            records.extend(more);
        }
        match self.journal.append(&records) {
            Ok(base) => {
                entry.written = Some(base + records.len() as i64 - 1);
                consumer.settle();
                if let Some(classic) = classic {
                    entry.consumer = None;
                    entry.group.take_over(classic, &env.config, now, out);
                }
                Ok(())
            }
            Err(error) => {
                consumer.roll_back(&env.config.consumer, now.mono_ms);
                Err(error)
            }
        }
    }

    /// Makes sure that a timer ends no later than the group's next deadline. One that ends early only looks again.
    pub(super) fn reschedule(&self, state: &mut State, id: &str) {
        let Some(entry) = state.groups.get_mut(id) else {
            return;
        };
        let Some(deadline) = entry.deadline() else {
            return;
        };
        if entry.timer.is_some_and(|timer| timer <= deadline) {
            return;
        }
        if let Some(timer) = entry.timer.replace(deadline) {
            state.timers.remove(&(timer, id.to_owned()));
        }
        let first = state.timers.first().is_none_or(|(first, _)| deadline < *first);
        state.timers.insert((deadline, id.to_owned()));
        if first {
            self.timers.notify_one();
        }
    }
}

/// What a shard needs of its surroundings.
#[derive(Clone)]
pub(super) struct Env {
    pub(super) config: Arc<GroupConfig>,
    pub(super) now: Arc<dyn Fn() -> Now + Send + Sync>,
    pub(super) topics: Arc<RwLock<Arc<dyn Topics>>>,
}

impl Env {
    /// The topics as far as they are known now.
    pub(super) fn topics(&self) -> Arc<dyn Topics> {
        Arc::clone(&self.topics.read())
    }
}

/// What was read so far.
#[derive(Default)]
struct Loaded {
    groups: HashMap<String, GroupValue>,
    consumers: HashMap<String, ConsumerGroup>,
    offsets: HashMap<String, Offsets>,
}

impl Loaded {
    fn apply(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) {
        match Record::decode(key, value) {
            Ok(None) => {}
            Ok(Some((group, record))) => return self.apply_consumer(group, record),
            Err(error) => {
                tracing::warn!(offset, %error, "record of the offsets topic skipped");
                return;
            }
        }
        let key = match Key::decode(key) {
            Ok(key) => key,
            Err(error) => {
                tracing::debug!(offset, %error, "record of the offsets topic skipped");
                return;
            }
        };
        let malformed = |error| tracing::warn!(offset, %error, "record of the offsets topic skipped");
        match (key, value) {
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                Some(value),
            ) => match OffsetValue::decode(value) {
                Ok(value) => self
                    .offsets
                    .entry(group)
                    .or_default()
                    .apply(&topic, partition, offset, value),
                Err(error) => malformed(error),
            },
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                None,
            ) => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.remove(&topic, partition);
                }
            }
            (Key::Group { group }, Some(value)) => match GroupValue::decode(value) {
                Ok(value) => drop(self.groups.insert(group, value)),
                Err(error) => malformed(error),
            },
            (Key::Group { group }, None) => drop(self.groups.remove(&group)),
        }
    }

    fn apply_consumer(&mut self, group: String, record: Record) {
        if record == Record::Group(None) {
            self.consumers.remove(&group);
        } else if let Some(consumer) = self.consumers.get_mut(&group) {
            consumer.apply(record);
        } else if !record.is_tombstone() {
            self.consumers.entry(group).or_default().apply(record);
        }
    }

    fn into_groups(mut self, config: &GroupConfig, now: Now) -> HashMap<String, GroupEntry> {
        let mut groups = HashMap::new();
        for (id, mut consumer) in self.consumers {
            consumer.restart_timers(&config.consumer, now.mono_ms);
            let mut entry = GroupEntry::new(Group::new(&id, now.wall_ms));
            entry.consumer = Some(Box::new(consumer));
            entry.offsets = self.offsets.remove(&id).unwrap_or_default();
            self.groups.remove(&id);
            groups.insert(id, entry);
        }
        for (id, value) in self.groups {
            let mut entry = GroupEntry::new(Group::restored(&id, value, now.mono_ms));
            entry.offsets = self.offsets.remove(&id).unwrap_or_default();
            groups.insert(id, entry);
        }
        for (id, offsets) in self.offsets {
            if !offsets.is_empty() {
                let mut entry = GroupEntry::new(Group::new(&id, now.wall_ms));
                entry.offsets = offsets;
                groups.insert(id, entry);
            }
        }
        groups
    }
}
