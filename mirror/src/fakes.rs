//! A cluster and a source in memory, for tests of the drivers: one daemon, one replica, no disk, no network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tradewind_wire::audit::{Audit, Auditor};
use tradewind_wire::batch::split;
use tradewind_wire::clock::Clock;
use tradewind_wire::flow::{FlowSource, FlowSpec, Naming, Origin, Pause};
use tradewind_wire::ids::{NodeId, TopicId};

use crate::target::*;

mod source;

pub(crate) use source::FakeSource;
use source::end_of;

pub(crate) const FLOW: &str = "east->west";

pub(crate) fn spec() -> FlowSpec {
    FlowSpec {
        source_cluster: "east".into(),
        target_cluster: "west".into(),
        source: FlowSource::Kafka(vec!["east-1:9092".into()]),
        topics: vec!["orders.*".into()],
        topics_exclude: vec![],
        groups: vec![".*".into()],
        groups_exclude: vec![],
        naming: Naming::Prefix {
            separator: ".".into(),
        },
    }
}

struct TestClock {
    began: tokio::time::Instant,
    /// By how many ms the calendar was moved on.
    skipped_ms: AtomicI64,
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        let skipped_ms = self.skipped_ms.load(Ordering::Relaxed);
        1_700_000_000_000 + skipped_ms + self.began.elapsed().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
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
    /// Why mirrored batches are refused, if they are.
    refusal: Mutex<Option<LogError>>,
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
            refusal: Mutex::default(),
            clock: Arc::new(TestClock {
                began: tokio::time::Instant::now(),
                skipped_ms: AtomicI64::new(0),
            }),
        })
    }

    /// Moves the calendar on.
    pub(crate) fn skip_ms(&self, ms: i64) {
        self.clock.skipped_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Refuses mirrored batches, or takes them again.
    pub(crate) fn refuse(&self, refusal: Option<LogError>) {
        *self.refusal.lock() = refusal;
    }

    /// Deletes a topic and its log.
    pub(crate) fn delete(&self, topic: &str) {
        let gone = self.change(|view| view.topics.remove(topic));
        let gone = gone.map(|topic| topic.id);
        self.logs.lock().retain(|(topic, _), _| Some(*topic) != gone);
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
            let id = view.index as u8;
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

    async fn set_origin(&self, _flow: &str, topic: TopicId, origin: Origin) -> Result<(), CommandError> {
        self.change(|view| {
            let topic = view.topics.values_mut().find(|known| known.id == topic);
            let bound = topic.and_then(|topic| Arc::make_mut(topic).mirror.as_mut());
            bound.unwrap().origin = Some(origin);
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

    async fn declare_flow(&self, spec: FlowSpec) -> Result<(), CommandError> {
        self.change(|view| view.removed_flows.remove(&spec.name()));
        self.declare(spec);
        Ok(())
    }

    async fn remove_flow(&self, flow: &str, _forget_source: bool) -> Result<(), CommandError> {
        self.change(|view| {
            view.flows.remove(flow);
            view.removed_flows.insert(flow.to_owned(), 1);
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
        if let Some(refusal) = self.refusal.lock().clone() {
            return Err(refusal);
        }
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
