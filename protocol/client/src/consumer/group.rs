//! [`GroupConsumer`]: a member of a consumer group that reads the partitions it is given.
//!
//! Everything but the heartbeats happens within [`GroupConsumer::poll`]: joining, finding positions, fetching. Fetches go
//! on while the caller works on records, one per leader at a time, so memory is bounded by leaders times the fetch limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{sleep, timeout};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;

use super::assignor::{Assignor, TopicPartition};
use super::decode::decode;
use super::heartbeat::{Heartbeats, Signal, signal_of};
use super::member::{self, MemberError, Membership};
use super::{ConsumeError, ConsumerRecord, OffsetReset};
use crate::client::Client;
use crate::commits::OffsetToCommit;
use crate::error::ClientError;
use crate::fetch::{FetchLimits, FetchPosition, FetchedPartition, Isolation};
use crate::net::pool::Lane;
use crate::offsets::OffsetSpec;

/// How often the leader looks whether topics have grown.
const LOOK_AT_TOPICS: Duration = Duration::from_secs(5);

/// The pause after a fetch that failed.
const SETBACK: Duration = Duration::from_millis(100);

/// The settings of a [`GroupConsumer`].
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group.
    pub group: String,
    /// The topics to read.
    pub topics: BTreeSet<String>,
    /// A static id (KIP-345), so that a restart does not rebalance.
    pub instance_id: Option<String>,
    /// The strategies offered, best first.
    pub assignors: Vec<Assignor>,
    /// How long the coordinator waits for a heartbeat.
    pub session_timeout: Duration,
    /// How often one is sent.
    pub heartbeat_interval: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// Where to begin without a commit.
    pub reset: OffsetReset,
    /// Commit what was returned: this often, before each rebalance, and on closing. `None`: only on request.
    pub auto_commit: Option<Duration>,
    /// How much a fetch brings and waits.
    pub limits: FetchLimits,
    /// Bytes per partition and fetch, about.
    pub partition_max_bytes: i32,
    /// Records that one poll returns at most.
    pub max_poll_records: usize,
}

impl GroupConfig {
    /// The defaults for a group and its topics.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = String>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().collect(),
            instance_id: None,
            assignors: vec![Assignor::Range, Assignor::RoundRobin],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            reset: OffsetReset::Earliest,
            auto_commit: Some(Duration::from_secs(5)),
            limits: FetchLimits::default(),
            partition_max_bytes: 1 << 20,
            max_poll_records: 500,
        }
    }
}

/// A member of a group.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    /// For joins, which wait for other members.
    join_lane: Lane,
    /// For heartbeats, which must not wait behind them.
    beat_lane: Lane,
    fetch_lane: Lane,
    /// The id that the coordinator gave; empty before the first join.
    member_id: String,
    membership: Membership,
    heartbeats: Option<Heartbeats>,
    /// The next offset to fetch, by partition.
    positions: BTreeMap<TopicPartition, i64>,
    /// What has been returned by `poll` and not been committed.
    uncommitted: BTreeMap<TopicPartition, OffsetToCommit>,
    ready: VecDeque<ConsumerRecord>,
    fetches: FuturesUnordered<BoxFuture<'static, Fetched>>,
    fetching: BTreeSet<NodeId>,
    committed_at: Duration,
    looked_at: Duration,
}

/// A fetch that has ended.
#[derive(Debug)]
struct Fetched {
    node: NodeId,
    generation: i32,
    asked: Vec<FetchPosition>,
    answer: Result<Vec<FetchedPartition>, ClientError>,
}

impl GroupConsumer {
    /// A consumer that joins with its first poll.
    pub fn new(client: Client, config: GroupConfig) -> Self {
        let now = client.clock().monotonic();
        Self {
            join_lane: client.own_lane(),
            beat_lane: client.own_lane(),
            fetch_lane: client.own_lane(),
            client,
            config,
            member_id: String::new(),
            membership: Membership::default(),
            heartbeats: None,
            positions: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            ready: VecDeque::new(),
            fetches: FuturesUnordered::new(),
            fetching: BTreeSet::new(),
            committed_at: now,
            looked_at: now,
        }
    }

    /// The partitions that this member reads at present.
    pub fn assignment(&self) -> &[TopicPartition] {
        &self.membership.partitions
    }

    /// The next records; none if none arrive within `max_wait`. May take longer where the group rebalances. Call it at
    /// least every rebalance timeout. Cancel-safe, apart from a join that starts over.
    pub async fn poll(&mut self, max_wait: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        self.keep_membership().await?;
        self.commit_if_due().await;
        let end = self.client.clock().monotonic() + max_wait;
        while self.ready.is_empty() {
            self.start_fetches();
            let left = end.saturating_sub(self.client.clock().monotonic());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            let Some(heartbeats) = &self.heartbeats else {
                return Ok(Vec::new());
            };
            tokio::select! {
                Some(fetched) = self.fetches.next() => self.work_in(fetched).await?,
                // The next poll joins again.
                () = heartbeats.raised() => return Ok(Vec::new()),
                () = sleep(left) => return Ok(Vec::new()),
            }
        }
        let count = self.ready.len().min(self.config.max_poll_records);
        let records: Vec<ConsumerRecord> = self.ready.drain(..count).collect();
        for record in &records {
            self.uncommitted.insert(
                (record.topic.clone(), record.partition),
                OffsetToCommit {
                    offset: record.offset + 1,
                    leader_epoch: record.leader_epoch,
                    metadata: String::new(),
                },
            );
        }
        Ok(records)
    }

    /// Commits everything that `poll` has returned so far.
    pub async fn commit(&mut self) -> Result<(), ConsumeError> {
        let offsets = self.uncommitted.clone();
        self.commit_offsets(&offsets).await?;
        self.uncommitted
            .retain(|partition, commit| offsets.get(partition) != Some(commit));
        Ok(())
    }

    /// Commits these offsets, as this member.
    pub async fn commit_offsets(
        &mut self,
        offsets: &BTreeMap<TopicPartition, OffsetToCommit>,
    ) -> Result<(), ConsumeError> {
        let instance = self.config.instance_id.as_deref();
        let generation = self.membership.generation;
        let committed = self
            .client
            .commit_as(&self.config.group, &self.member_id, instance, generation, offsets)
            .await;
        self.committed_at = self.client.clock().monotonic();
        if let Err(error) = &committed
            && let (Some(signal), Some(heartbeats)) = (error.code().and_then(of_commit), &self.heartbeats)
        {
            heartbeats.raise(signal);
        }
        Ok(committed?)
    }

    /// Reads a partition from another offset on, if it is this member's.
    pub fn seek(&mut self, topic: &str, partition: i32, offset: i64) {
        let key = (topic.to_owned(), partition);
        if let Some(position) = self.positions.get_mut(&key) {
            *position = offset;
            self.ready
                .retain(|record| record.topic != topic || record.partition != partition);
            self.uncommitted.remove(&key);
        }
    }

    /// Commits (if that is automatic) and leaves the group. Takes at most `limit`.
    pub async fn close(mut self, limit: Duration) -> Result<(), ConsumeError> {
        let work = async {
            if self.config.auto_commit.is_some() && self.heartbeats.is_some() {
                self.commit().await?;
            }
            self.heartbeats = None;
            member::leave(&self.client, self.beat_lane, &self.config, &self.member_id).await?;
            Ok(())
        };
        let timed_out = || ClientError::TimedOut {
            what: "closing a consumer".to_owned(),
            after: limit,
        };
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(timed_out().into()))
    }

    /// Joins if this member is not in a standing generation.
    async fn keep_membership(&mut self) -> Result<(), ConsumeError> {
        self.look_at_topics().await;
        match self.heartbeats.as_ref().map(Heartbeats::signal) {
            Some(None) => return Ok(()),
            Some(Some(Signal::Rejoin)) => {
                if self.config.auto_commit.is_some()
                    && let Err(error) = self.commit().await
                {
                    tracing::debug!(group = %self.config.group, %error, "no commit before a rebalance");
                }
            }
            Some(Some(Signal::Expelled)) => self.member_id.clear(),
            Some(Some(Signal::Fatal(code))) => {
                return Err(MemberError::Refused {
                    group: self.config.group.clone(),
                    code,
                }
                .into());
            }
            None => {}
        }
        // Eager: whatever was read and not returned belongs to whoever gets the partition next.
        self.heartbeats = None;
        self.ready.clear();
        self.uncommitted.clear();
        self.positions.clear();
        self.membership =
            member::join(&self.client, self.join_lane, &self.config, &mut self.member_id).await?;
        self.positions = find_positions(&self.client, &self.config, &self.membership.partitions).await?;
        let (client, config) = (self.client.clone(), self.config.clone());
        self.heartbeats = Some(Heartbeats::start(
            client,
            self.beat_lane,
            config,
            &self.member_id,
            self.membership.generation,
        ));
        tracing::debug!(
            group = %self.config.group,
            generation = self.membership.generation,
            partitions = self.membership.partitions.len(),
            "joined"
        );
        Ok(())
    }

    /// The leader shares out anew when a topic has grown or appeared.
    async fn look_at_topics(&mut self) {
        let now = self.client.clock().monotonic();
        let (Some(shared_out), Some(heartbeats)) = (&self.membership.shared_out, &self.heartbeats) else {
            return;
        };
        if now.saturating_sub(self.looked_at) < LOOK_AT_TOPICS {
            return;
        }
        self.looked_at = now;
        let topics = shared_out
            .keys()
            .chain(&self.config.topics)
            .map(String::as_str)
            .collect();
        match member::partition_counts(&self.client, &topics).await {
            Ok(counts) if counts != *shared_out => heartbeats.raise(Signal::Rejoin),
            Ok(_) => {}
            Err(error) => tracing::debug!(group = %self.config.group, %error, "cannot look at topics"),
        }
    }

    async fn commit_if_due(&mut self) {
        let Some(every) = self.config.auto_commit else {
            return;
        };
        let now = self.client.clock().monotonic();
        if self.uncommitted.is_empty() || now.saturating_sub(self.committed_at) < every {
            return;
        }
        if let Err(error) = self.commit().await {
            tracing::debug!(group = %self.config.group, %error, "no automatic commit");
        }
    }

    /// Starts a fetch at every leader of ours that has none.
    fn start_fetches(&mut self) {
        let metadata = self.client.cached();
        let mut by_leader: BTreeMap<NodeId, Vec<FetchPosition>> = BTreeMap::new();
        let mut leaderless = BTreeSet::new();
        for ((topic, partition), offset) in &self.positions {
            let known = metadata.topics.get(topic);
            let leader = known
                .and_then(|known| known.partitions.get(partition))
                .and_then(|p| Some((p.leader?, p)));
            let (Some(known), Some((node, leader))) = (known, leader) else {
                leaderless.insert(topic.clone());
                continue;
            };
            by_leader.entry(node).or_default().push(FetchPosition {
                topic: topic.clone(),
                topic_id: known.id,
                partition: *partition,
                offset: *offset,
                leader_epoch: leader.leader_epoch,
                max_bytes: self.config.partition_max_bytes,
            });
        }
        for (node, asked) in by_leader {
            if self.fetching.insert(node) {
                self.fetches.push(Box::pin(self.fetch(node, asked)));
            }
        }
        // One refresh at a time, under the id of no broker.
        if !leaderless.is_empty() && self.fetching.insert(NO_BROKER) {
            let topics = leaderless.into_iter().collect();
            self.fetches.push(Box::pin(refresh(
                self.client.clone(),
                topics,
                self.membership.generation,
            )));
        }
    }

    fn fetch(&self, node: NodeId, asked: Vec<FetchPosition>) -> impl Future<Output = Fetched> + Send + use<> {
        let (client, lane, limits) = (self.client.clone(), self.fetch_lane, self.config.limits);
        let generation = self.membership.generation;
        async move {
            let answer = client.fetch_from(node, lane, &asked, limits).await;
            let failed = |fetched: &FetchedPartition| fetched.error.is_some();
            if answer
                .as_ref()
                .map_or(true, |partitions| partitions.iter().any(failed))
            {
                let topics: Vec<&str> = asked.iter().map(|position| position.topic.as_str()).collect();
                if let Err(error) = client.metadata(&topics).await {
                    tracing::debug!(%error, "cannot refresh metadata");
                }
                sleep(SETBACK).await;
            }
            Fetched {
                node,
                generation,
                asked,
                answer,
            }
        }
    }

    /// Works in what a fetch brought, unless it was asked in another generation or from another position.
    async fn work_in(&mut self, fetched: Fetched) -> Result<(), ConsumeError> {
        self.fetching.remove(&fetched.node);
        let partitions = match fetched.answer {
            Ok(partitions) if fetched.generation == self.membership.generation => partitions,
            Ok(_) => return Ok(()),
            Err(error) if error.is_retriable() => {
                tracing::debug!(node = fetched.node, %error, "cannot fetch");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let hide_aborted = self.config.limits.isolation == Isolation::ReadCommitted;
        for partition in partitions {
            let key = (partition.topic.clone(), partition.partition);
            let is_it = |asked: &&FetchPosition| asked.topic == key.0 && asked.partition == key.1;
            let asked = fetched.asked.iter().find(is_it).map(|asked| asked.offset);
            if asked.is_none() || self.positions.get(&key).copied() != asked {
                continue;
            }
            let offset = asked.unwrap_or_default();
            match partition.error {
                None => {
                    let decoded = decode(&partition, offset, hide_aborted)?;
                    self.ready.extend(decoded.records);
                    self.positions.insert(key, decoded.next);
                }
                Some(ErrorCode::OffsetOutOfRange) => {
                    let position = reset_position(&self.client, &self.config, &key, offset).await?;
                    self.positions.insert(key, position);
                }
                // Fresh metadata have been asked for.
                Some(code) if code.is_retriable() => {}
                Some(code) => {
                    return Err(ClientError::broker(format!("{}-{}", key.0, key.1), code, None).into());
                }
            }
        }
        Ok(())
    }
}

impl Drop for GroupConsumer {
    /// The connections were this member's alone.
    fn drop(&mut self) {
        for lane in [self.join_lane, self.beat_lane, self.fetch_lane] {
            self.client.release(lane);
        }
    }
}

/// Where to begin: at the commits, or where the rule says.
async fn find_positions(
    client: &Client,
    config: &GroupConfig,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, i64>, ConsumeError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let commits = client.offset_fetch(&config.group, Some(partitions)).await?;
    let mut positions: BTreeMap<TopicPartition, i64> = commits
        .into_iter()
        .map(|(partition, commit)| (partition, commit.offset))
        .collect();
    for partition in partitions {
        if !positions.contains_key(partition) {
            let position = reset_position(client, config, partition, -1).await?;
            positions.insert(partition.clone(), position);
        }
    }
    Ok(positions)
}

async fn reset_position(
    client: &Client,
    config: &GroupConfig,
    partition: &TopicPartition,
    offset: i64,
) -> Result<i64, ConsumeError> {
    let spec = match config.reset {
        OffsetReset::Earliest => OffsetSpec::Earliest,
        OffsetReset::Latest => OffsetSpec::Latest,
        OffsetReset::Fail => {
            let (topic, partition) = partition.clone();
            return Err(ConsumeError::OutOfRange {
                topic,
                partition,
                offset,
            });
        }
    };
    let listed = client
        .list_offset(&partition.0, partition.1, spec, config.limits.isolation)
        .await?;
    Ok(listed.map_or(0, |listed| listed.offset))
}

/// What the refusal of a commit says about the membership; most refusals are about the commit only.
fn of_commit(code: ErrorCode) -> Option<Signal> {
    match code {
        ErrorCode::RebalanceInProgress
        | ErrorCode::UnknownMemberId
        | ErrorCode::IllegalGeneration
        | ErrorCode::FencedInstanceId => signal_of(code),
        _ => None,
    }
}

/// Stands for a refresh of metadata among the fetches.
const NO_BROKER: NodeId = -1;

async fn refresh(client: Client, topics: Vec<String>, generation: i32) -> Fetched {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    if let Err(error) = client.metadata(&names).await {
        tracing::debug!(%error, "cannot refresh metadata");
    }
    sleep(SETBACK).await;
    Fetched {
        node: NO_BROKER,
        generation,
        asked: Vec::new(),
        answer: Ok(Vec::new()),
    }
}
