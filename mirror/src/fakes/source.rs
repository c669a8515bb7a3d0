//! A source in memory: one broker, asked by Fetch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tradewind_wire::batch::{BatchBuilder, TimestampType, split};
use tradewind_wire::compression::Codec;
use tradewind_wire::flow::Provenance;
use tradewind_wire::ids::{NodeId, TopicId};
use tradewind_wire::region::RegionAsk;

use crate::source::*;

#[derive(Default)]
struct SourceState {
    topics: BTreeMap<String, (TopicId, Vec<Vec<Bytes>>)>,
    configs: Vec<SourceConfig>,
    hidden: BTreeSet<String>,
    groups: BTreeMap<String, Vec<Committed>>,
    dead: bool,
    /// Whether nobody is told where an epoch ends.
    silent: bool,
    /// As soon as it is a source that says so: what its topics are.
    origins: Option<Origins>,
    /// Whether it does not answer that question.
    mute: bool,
    /// How long it takes over it.
    ponders: Duration,
}

/// A source with one broker, number 7, at leader epoch 3.
#[derive(Default)]
pub(crate) struct FakeSource {
    state: Mutex<SourceState>,
    /// How often it was asked where epochs end.
    pub(crate) questions: AtomicUsize,
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

    /// From now on nobody is told where an epoch ends; or everybody again.
    pub(crate) fn keep_epochs(&self, silent: bool) {
        self.state.lock().silent = silent;
    }

    /// From now on it says of these topics that they are its own, and of others nothing.
    pub(crate) fn says_own(&self, ids: &[u8]) {
        let own = ids.iter().map(|id| (TopicId([*id; 16]), Provenance::Own));
        self.state.lock().origins = Some(own.collect());
    }

    /// How long it takes to say what its topics are.
    pub(crate) fn ponders(&self, time: Duration) {
        self.state.lock().ponders = time;
    }

    /// Whether the question what its topics are stays without an answer.
    pub(crate) fn mute(&self, mute: bool) {
        self.state.lock().mute = mute;
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

pub(super) fn end_of(log: &[Bytes]) -> i64 {
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
    async fn origins(&self, _ask: &RegionAsk) -> Result<Option<Origins>, SourceError> {
        let ponders = self.state.lock().ponders;
        tokio::time::sleep(ponders).await;
        while self.state.lock().mute {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.state.lock().origins.clone())
    }

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
                word: Word::Untold,
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

    async fn epoch_ends(
        &self,
        asked: &[(PartitionOf, i32)],
    ) -> Result<BTreeMap<PartitionOf, Result<Compared, SourceError>>, SourceError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let state = self.alive()?;
        if state.silent {
            return Err(SourceError::Unreachable("it does not say".into()));
        }
        let told = asked.iter().map(|(partition, epoch)| {
            let end = end_of(&state.topics[&partition.topic].1[partition.partition as usize]);
            let end = EpochEnd { epoch: *epoch, end };
            let leader_epoch = 3;
            (partition.clone(), Ok(Compared { end, leader_epoch }))
        });
        Ok(told.collect())
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
