//! A cluster and a source in memory, for tests of the drivers: one daemon, one replica, no disk, no network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tradewind_wire::audit::{Audit, Auditor};
use tradewind_wire::batch::{BatchBuilder, TimestampType, split};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming, Pause};
use tradewind_wire::ids::{NodeId, TopicId};

use crate::source::*;
use crate::target::*;

pub(crate) const FLOW: &str = "east->west";

pub(crate) fn spec() -> FlowSpec {
    FlowSpec {
        source_cluster: "east".into(),
        target_cluster: "west".into(),
        source: FlowSource::Kafka(vec![]),
        topics: vec!["orders.*".into()],
        topics_exclude: vec![],
        groups: vec![".*".into()],
        groups_exclude: vec![],
        naming: Naming::Prefix {
            separator: ".".into(),
        },
    }
}

struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Default)]
struct Log {
    batches: Vec<Bytes>,
    end: i64,
}

/// A group's positions by topic and partition.
type Positions = BTreeMap<(String, i32), StoredPosition>;

pub(crate) struct FakeTarget {
    view: Mutex<Arc<View>>,
    index: watch::Sender<u64>,
    logs: Mutex<BTreeMap<(TopicId, i32), Log>>,
    groups: Mutex<BTreeMap<String, Positions>>,
    clock: Arc<TestClock>,
}

impl FakeTarget {
    pub(crate) fn new() -> Arc<Self> {
        let view = View {
            index: 1,
            active_nodes: vec![1],
            ..View::default()
        };
        Arc::new(Self {
            view: Mutex::new(Arc::new(view)),
            index: watch::channel(1).0,
            logs: Mutex::default(),
            groups: Mutex::default(),
            clock: Arc::new(TestClock(tokio::time::Instant::now())),
        })
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let mut view = self.view.lock();
        let mut next = View::clone(&view);
        next.index += 1;
        let done = change(&mut next);
        let index = next.index;
        *view = Arc::new(next);
        drop(view);
        self.index.send_replace(index);
        done
    }

    pub(crate) fn declare(&self, spec: FlowSpec) {
        self.change(|view| {
            let flow = FlowView {
                spec,
                state: FlowState::Active,
                paused: None,
                switchover: None,
                failback: None,
                drills: Vec::new(),
            };
            view.flows.insert(flow.spec.name(), flow);
        });
    }

    pub(crate) fn bytes(&self, topic: &str, partition: i32) -> Bytes {
        let view = self.view.lock().clone();
        let logs = self.logs.lock();
        view.topics
            .get(topic)
            .and_then(|topic| logs.get(&(topic.id, partition)))
            .map(|log| Bytes::from(log.batches.concat()))
            .unwrap_or_default()
    }

    /// Puts another batch in the place of the one that holds `offset`; none removes it.
    pub(crate) fn replace(&self, topic: &str, partition: i32, offset: i64, batch: Option<Bytes>) {
        let id = self.view.lock().topics[topic].id;
        let mut logs = self.logs.lock();
        let batches = &mut logs.get_mut(&(id, partition)).unwrap().batches;
        let at = batches
            .iter()
            .position(|batch| end_of(std::slice::from_ref(batch)) > offset)
            .unwrap();
        match batch {
            Some(batch) => batches[at] = batch,
            None => drop(batches.remove(at)),
        }
    }

    pub(crate) fn stored(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let groups = self.groups.lock();
        groups
            .get(group)?
            .get(&(topic.to_owned(), partition))
            .map(|stored| stored.offset)
    }

    /// A client of this cluster commits.
    pub(crate) fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let stored = StoredPosition {
            topic: topic.into(),
            partition,
            offset,
            metadata: String::new(),
            mark: None,
        };
        self.groups
            .lock()
            .entry(group.into())
            .or_default()
            .insert((topic.into(), partition), stored);
    }

    fn topic_view(name: &str, id: u8, count: i32, mirror: Option<MirrorBinding>) -> Arc<TopicView> {
        let partition = PartitionView {
            leader: Some(1),
            leader_epoch: 0,
            lineage: vec![],
            cut: None,
            fenced_end: None,
        };
        Arc::new(TopicView {
            name: name.into(),
            id: TopicId([id; 16]),
            partitions: vec![partition; count as usize],
            configs: BTreeMap::new(),
            mirror,
            paused: None,
            fence: None,
        })
    }

    fn create(&self, name: &str, count: i32, mirror: Option<MirrorBinding>) {
        self.change(|view| {
            let id = view.topics.len() as u8 + 100;
            let topic = Self::topic_view(name, id, count, mirror);
            view.topics.entry(name.to_owned()).or_insert(topic);
        });
    }

    fn epoch(&self, topic: TopicId, partition: i32) -> Result<i32, LogError> {
        let view = self.view.lock().clone();
        let found = view.topics.values().find(|known| known.id == topic);
        found
            .and_then(|topic| topic.partitions.get(partition as usize))
            .map(|partition| partition.leader_epoch)
            .ok_or(LogError::NotLeader)
    }
}

fn partition_of(view: &mut View, topic: TopicId, partition: i32) -> Option<&mut PartitionView> {
    let topic = view.topics.values_mut().find(|known| known.id == topic)?;
    Arc::make_mut(topic).partitions.get_mut(partition as usize)
}

#[async_trait]
impl Target for FakeTarget {
    fn node_id(&self) -> NodeId {
        1
    }

    fn cluster_name(&self) -> &str {
        "west"
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn view(&self) -> Arc<View> {
        self.view.lock().clone()
    }

    async fn changed(&self, seen: u64) {
        let _ = self.index.subscribe().wait_for(|index| *index > seen).await;
    }

    async fn create_mirror_topic(&self, topic: NewMirrorTopic) -> Result<(), CommandError> {
        self.create(&topic.name, topic.partitions, Some(topic.binding));
        Ok(())
    }

    async fn create_internal_topic(
        &self,
        name: &str,
        partitions: i32,
        _configs: BTreeMap<String, String>,
    ) -> Result<(), CommandError> {
        self.create(name, partitions, None);
        Ok(())
    }

    async fn grow_topic(&self, topic: TopicId, partitions: i32) -> Result<(), CommandError> {
        self.change(|view| {
            let topic = view.topics.values_mut().find(|known| known.id == topic);
            let partitions_now = &mut Arc::make_mut(topic.unwrap()).partitions;
            let mut fresh = partitions_now[0].clone();
            fresh.lineage.clear();
            partitions_now.resize(partitions as usize, fresh);
        });
        Ok(())
    }

    async fn set_topic_configs(
        &self,
        topic: TopicId,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<(), CommandError> {
        if changes.iter().any(|(name, _)| name == "unheard.of") {
            return Err(CommandError::Refused("unknown config".into()));
        }
        self.change(|view| {
            let topic = view.topics.values_mut().find(|known| known.id == topic);
            let configs = &mut Arc::make_mut(topic.unwrap()).configs;
            for (name, value) in changes {
                match value {
                    Some(value) => configs.insert(name, value),
                    None => configs.remove(&name),
                };
            }
        });
        Ok(())
    }

    async fn enter_lineage(
        &self,
        entries: Vec<LineageEntry>,
    ) -> Result<Vec<Result<i32, CommandError>>, CommandError> {
        let enter = |view: &mut View| {
            let results = entries.into_iter().map(|entry| {
                let partition =
                    partition_of(view, entry.topic, entry.partition).ok_or(CommandError::Stale)?;
                partition.leader_epoch = partition.leader_epoch.max(entry.lineage.source_epoch);
                partition.lineage.push(entry.lineage);
                Ok(partition.leader_epoch)
            });
            results.collect()
        };
        Ok(self.change(enter))
    }

    async fn pause(&self, flow: &str, topic: Option<&str>, pause: Option<Pause>) -> Result<(), CommandError> {
        self.change(|view| match topic {
            Some(topic) => Arc::make_mut(view.topics.get_mut(topic).unwrap()).paused = pause,
            None => {
                let flow = view.flows.get_mut(flow).unwrap();
                flow.state = if pause.is_some() {
                    FlowState::Paused
                } else {
                    FlowState::Active
                };
                flow.paused = pause;
            }
        });
        Ok(())
    }

    async fn begin_failover(&self, flow: &str) -> Result<(), CommandError> {
        self.change(|view| {
            let declared = view.flows.get_mut(flow).unwrap();
            if declared.state == FlowState::Promoted {
                return;
            }
            declared.state = FlowState::FailingOver;
            for topic in view.topics.values_mut() {
                if topic.mirror.as_ref().is_some_and(|mirror| mirror.flow == flow) {
                    for partition in &mut Arc::make_mut(topic).partitions {
                        partition.leader_epoch += 1;
                    }
                }
            }
        });
        Ok(())
    }

    async fn record_cuts(&self, flow: &str, cuts: Vec<CutEntry>) -> Result<(), CommandError> {
        self.change(|view| {
            for cut in cuts {
                let partition = partition_of(view, cut.topic, cut.partition).unwrap();
                partition.cut.get_or_insert(Cut {
                    offset: cut.cut,
                    source_end: cut.source_end,
                });
            }
            let open = view
                .topics_of(flow)
                .any(|(topic, _)| topic.partitions.iter().any(|p| p.cut.is_none()));
            if !open {
                view.flows.get_mut(flow).unwrap().state = FlowState::Promoted;
            }
        });
        Ok(())
    }

    fn log(&self, topic: TopicId, partition: i32) -> Result<LogState, LogError> {
        let leader_epoch = self.epoch(topic, partition)?;
        let end = self.logs.lock().get(&(topic, partition)).map_or(0, |log| log.end);
        Ok(LogState {
            leader_epoch,
            start: 0,
            deleted: 0,
            end,
            high_watermark: end,
        })
    }

    async fn audit(
        &self,
        topic: TopicId,
        partition: i32,
        bounds: Vec<i64>,
        items: bool,
    ) -> Result<Audit, String> {
        let mut auditor = Auditor::new(bounds, items).unwrap();
        let logs = self.logs.lock();
        let log = logs.get(&(topic, partition));
        let end = log.map_or(0, |log| log.end);
        if let (Some(from), Some(log)) = (auditor.wants(), log) {
            let kept = log
                .batches
                .iter()
                .filter(|batch| end_of(std::slice::from_ref(batch)) > from);
            let bytes: Vec<u8> = kept.flatten().copied().collect();
            auditor.add(bytes.into()).unwrap();
        }
        auditor.nothing_below(end);
        Ok(auditor.finish(0, end, Some(0)))
    }

    async fn delete_mirrored(
        &self,
        _topic: TopicId,
        _partition: i32,
        _leader_epoch: i32,
        offset: i64,
    ) -> Result<i64, LogError> {
        Ok(offset)
    }

    async fn append_mirrored(
        &self,
        topic: TopicId,
        partition: i32,
        leader_epoch: i32,
        previous_end: i64,
        batches: Bytes,
    ) -> Result<i64, LogError> {
        let current = self.epoch(topic, partition)?;
        if current != leader_epoch {
            return Err(LogError::OtherEpoch { current });
        }
        let mut logs = self.logs.lock();
        let log = logs.entry((topic, partition)).or_default();
        if log.end != previous_end {
            return Err(LogError::OtherEnd { end: log.end });
        }
        for batch in split(batches) {
            let batch = batch.map_err(|error| LogError::BadBatches(error.to_string()))?;
            assert!(batch.header().base_offset >= log.end, "overlap");
            log.end = batch.header().next_offset();
            log.batches.push(batch.to_bytes());
        }
        Ok(log.end)
    }

    async fn await_high_watermark(
        &self,
        _topic: TopicId,
        _partition: i32,
        _leader_epoch: i32,
        _offset: i64,
        _timeout: Duration,
    ) -> Result<(), LogError> {
        Ok(())
    }

    async fn append_own(&self, topic: &str, partition: i32, batch: Bytes) -> Result<(), LogError> {
        let id = self.view.lock().topics[topic].id;
        let mut logs = self.logs.lock();
        logs.entry((id, partition)).or_default().batches.push(batch);
        Ok(())
    }

    async fn prepare_groups(&self) -> Result<(), CommandError> {
        Ok(())
    }

    fn coordinates(&self, _group: &str) -> bool {
        true
    }

    async fn group_positions(&self, group: &str) -> Result<Vec<StoredPosition>, GroupError> {
        let groups = self.groups.lock();
        Ok(groups
            .get(group)
            .map(|positions| positions.values().cloned().collect())
            .unwrap_or_default())
    }

    async fn mirrored_groups(&self, flow: &str) -> Vec<String> {
        let ours = |stored: &StoredPosition| stored.mark.as_ref().is_some_and(|mark| mark.flow == flow);
        let groups = self.groups.lock();
        groups
            .iter()
            .filter(|(_, all)| all.values().any(ours))
            .map(|(group, _)| group.clone())
            .collect()
    }

    async fn mirrored_commit(
        &self,
        group: &str,
        positions: Vec<MirroredPosition>,
    ) -> Result<Vec<CommitOutcome>, GroupError> {
        let mut groups = self.groups.lock();
        let stored = groups.entry(group.to_owned()).or_default();
        let write = |position: MirroredPosition| {
            let key = (position.topic.clone(), position.partition);
            if stored.get(&key).is_some_and(|stored| stored.mark.is_none()) {
                return CommitOutcome::OwnedHere;
            }
            stored.insert(
                key,
                StoredPosition {
                    topic: position.topic,
                    partition: position.partition,
                    offset: position.offset,
                    metadata: position.metadata,
                    mark: Some(position.mark),
                },
            );
            CommitOutcome::Written
        };
        Ok(positions.into_iter().map(write).collect())
    }

    async fn call(&self, node: NodeId, _request: Bytes, _timeout: Duration) -> Result<Bytes, CallError> {
        Err(CallError {
            node,
            reason: "there is no other daemon".into(),
        })
    }
}

#[derive(Default)]
struct SourceState {
    topics: BTreeMap<String, (TopicId, Vec<Vec<Bytes>>)>,
    configs: Vec<SourceConfig>,
    hidden: BTreeSet<String>,
    groups: BTreeMap<String, Vec<Committed>>,
    dead: bool,
}

/// A source with one broker, number 7, at leader epoch 3.
#[derive(Default)]
pub(crate) struct FakeSource {
    state: Mutex<SourceState>,
    moved: tokio::sync::Notify,
}

impl FakeSource {
    pub(crate) fn create(&self, topic: &str, id: u8, partitions: usize) {
        let mut state = self.state.lock();
        let (_, logs) = state
            .topics
            .entry(topic.into())
            .or_insert((TopicId([id; 16]), Vec::new()));
        logs.resize(partitions, Vec::new());
    }

    /// Deletes a topic and creates it again, empty.
    pub(crate) fn recreate(&self, topic: &str, id: u8) {
        self.state
            .lock()
            .topics
            .insert(topic.into(), (TopicId([id; 16]), vec![Vec::new()]));
    }

    /// Appends one compressed batch.
    pub(crate) fn produce(&self, topic: &str, partition: usize, values: &[&str]) {
        let mut state = self.state.lock();
        let log = &mut state.topics.get_mut(topic).unwrap().1[partition];
        let mut builder = BatchBuilder::new(Codec::Zstd, TimestampType::Create);
        builder.base_offset(end_of(log)).leader_epoch(3);
        for value in values {
            builder.append(1, None, Some(value.as_bytes()), &[]);
        }
        log.push(builder.build());
        drop(state);
        self.moved.notify_waiters();
    }

    pub(crate) fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let mut state = self.state.lock();
        let positions = state.groups.entry(group.into()).or_default();
        positions.retain(|known| (known.topic.as_str(), known.partition) != (topic, partition));
        positions.push(Committed {
            topic: topic.into(),
            partition,
            offset,
            metadata: String::new(),
        });
    }

    pub(crate) fn set_config(&self, name: &str, value: &str) {
        self.state.lock().configs.push(SourceConfig {
            name: name.into(),
            value: Some(value.into()),
            own: true,
        });
    }

    /// From now on nobody is told the configs of this topic, or the positions of this group.
    pub(crate) fn hide(&self, name: &str) {
        self.state.lock().hidden.insert(name.into());
    }

    pub(crate) fn kill(&self) {
        self.state.lock().dead = true;
    }

    pub(crate) fn bytes(&self, topic: &str, partition: usize) -> Bytes {
        self.state.lock().topics[topic].1[partition].concat().into()
    }

    fn alive(&self) -> Result<parking_lot::MutexGuard<'_, SourceState>, SourceError> {
        let state = self.state.lock();
        if state.dead {
            return Err(SourceError::Unreachable("it is dead".into()));
        }
        Ok(state)
    }

    fn read(&self, from: &FetchFrom) -> Result<Fetched, SourceError> {
        let state = self.alive()?;
        // As Kafka does from Fetch 13 on: topics are named by id.
        let known = state.topics.get(&from.partition.topic);
        let Some((_, logs)) = known.filter(|(id, _)| *id == from.partition.id) else {
            return Ok(Fetched::UnknownTopic);
        };
        let log = &logs[from.partition.partition as usize];
        let records: Vec<Bytes> = log
            .iter()
            .filter(|batch| end_of(std::slice::from_ref(batch)) > from.offset)
            .cloned()
            .collect();
        Ok(Fetched::Records {
            ends: SourceEnds {
                start: 0,
                high_watermark: end_of(log),
            },
            bytes: records.concat().into(),
        })
    }
}

fn end_of(log: &[Bytes]) -> i64 {
    log.last().map_or(0, |batch| {
        split(batch.clone())
            .next()
            .unwrap()
            .unwrap()
            .header()
            .next_offset()
    })
}

#[async_trait]
impl Source for FakeSource {
    async fn topics(&self) -> Result<SourceTopics, SourceError> {
        let state = self.alive()?;
        let topics = state.topics.iter().map(|(name, (id, logs))| {
            let leader = SourceLeader {
                leader: Some(7),
                epoch: 3,
            };
            let topic = SourceTopic {
                id: *id,
                internal: false,
                partitions: vec![leader; logs.len()],
            };
            (name.clone(), topic)
        });
        Ok(SourceTopics {
            cluster_id: "cluster-e".into(),
            topics: topics.collect(),
        })
    }

    async fn configs(&self, topics: &[String]) -> Result<BTreeMap<String, Vec<SourceConfig>>, SourceError> {
        let state = self.alive()?;
        Ok(topics
            .iter()
            .filter(|topic| !state.hidden.contains(*topic))
            .map(|topic| (topic.clone(), state.configs.clone()))
            .collect())
    }

    async fn ends(
        &self,
        partitions: &[PartitionOf],
    ) -> Result<BTreeMap<PartitionOf, SourceEnds>, SourceError> {
        let state = self.alive()?;
        let ends = partitions.iter().map(|partition| {
            let log = &state.topics[&partition.topic].1[partition.partition as usize];
            let ends = SourceEnds {
                start: 0,
                high_watermark: end_of(log),
            };
            (partition.clone(), ends)
        });
        Ok(ends.collect())
    }

    async fn epoch_end(&self, partition: &PartitionOf, epoch: i32) -> Result<EpochEnd, SourceError> {
        let state = self.alive()?;
        let end = end_of(&state.topics[&partition.topic].1[partition.partition as usize]);
        Ok(EpochEnd { epoch, end })
    }

    async fn groups(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.alive()?.groups.keys().cloned().collect())
    }

    async fn committed(&self, groups: &[String]) -> Result<BTreeMap<String, Told>, SourceError> {
        let state = self.alive()?;
        let told = |group: &String| match state.hidden.contains(group) {
            true => Err("GROUP_AUTHORIZATION_FAILED".to_owned()),
            false => Ok(state.groups[group].clone()),
        };
        Ok(groups.iter().map(|group| (group.clone(), told(group))).collect())
    }

    async fn fetch(
        &self,
        _node: NodeId,
        partitions: Vec<FetchFrom>,
        wait_ms: i32,
    ) -> Result<Vec<(PartitionOf, Fetched)>, SourceError> {
        let moved = self.moved.notified();
        let read = || -> Result<Vec<_>, SourceError> {
            partitions
                .iter()
                .map(|from| Ok((from.partition.clone(), self.read(from)?)))
                .collect()
        };
        let first = read()?;
        let empty = |(_, fetched): &(PartitionOf, Fetched)| matches!(fetched, Fetched::Records { bytes, .. } if bytes.is_empty());
        if !first.iter().all(empty) {
            return Ok(first);
        }
        let _ = tokio::time::timeout(Duration::from_millis(wait_ms as u64), moved).await;
        read()
    }
}
