//! Fetch: reads batches, and waits for them where there are none yet.
//!
//! Record bytes go from the log into the answer as they are. There are no fetch sessions: the session id is always 0,
//! which clients take as "ask for everything again" (KIP-227). One waiter is shared by all partitions of a request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tradewind_cluster::Cluster;
use tradewind_cluster::image::Image;
use tradewind_cluster::replica::{Isolation, Replica, ReplicaError};
use tradewind_wire::codec::Records;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::fetch::{
    AbortedTransaction, FetchPartition, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use tradewind_wire::messages::{FetchRequest, FetchResponse};

use crate::broker::Broker;
use crate::dispatch::Call;
use crate::{errors, metrics, topics};

/// The most bytes of records in one answer (`fetch.max.bytes`), whatever the client asks for.
const MAX_BYTES: usize = 55 << 20;
/// A reader this many records behind the end probably reads from the disk: it is read for on a blocking thread.
const COLD_BEHIND: i64 = 50_000;
/// The longest wait of one fetch.
const MAX_WAIT: Duration = Duration::from_secs(300);

pub(crate) async fn handle(broker: &Broker, call: Call<'_>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 && request.session_epoch > 0 {
        return FetchResponse {
            error_code: ErrorCode::FetchSessionIdNotFound.code(),
            ..Default::default()
        };
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let plan = Arc::new(Plan::new(broker.cluster(), request));
    let deadline = tokio::time::Instant::now() + wait;
    let mut found = loop {
        // A new waiter each time round: a partition forgets one that it has woken, and one that nobody owns any more.
        let waiter = Arc::new(Notify::new());
        plan.register(&waiter);
        let found = plan.read().await;
        if found.bytes >= min_bytes || found.failed || plan.reads.is_empty() {
            break found;
        }
        if tokio::time::timeout_at(deadline, waiter.notified())
            .await
            .is_err()
        {
            // Time is up: whatever there is, though it be less than was wanted.
            break plan.read().await;
        }
    };
    metrics::fetched(found.bytes);
    let image = broker.cluster().image();
    let node_endpoints = if call.version >= 16 {
        leaders(&found.topics, &image, &call.connection.listener)
    } else {
        Vec::new()
    };
    FetchResponse {
        responses: std::mem::take(&mut found.topics),
        node_endpoints,
        ..Default::default()
    }
}

/// What a request asks for, resolved once.
struct Plan {
    topics: Vec<FetchTopic>,
    /// One per partition, in the order of the request.
    reads: Vec<Read>,
    isolation: Isolation,
    max_bytes: usize,
}

enum Read {
    From(Arc<Replica>),
    Failed(ErrorCode),
}

/// What one pass over the partitions came to.
struct Found {
    topics: Vec<FetchableTopicResponse>,
    bytes: usize,
    failed: bool,
}

impl Plan {
    fn new(cluster: &Cluster, request: FetchRequest) -> Self {
        let image = cluster.image();
        let mut reads = Vec::new();
        for topic in &request.topics {
            let found = topics::find(&image, &topic.topic, topic.topic_id);
            reads.extend(topic.partitions.iter().map(|wanted| match found {
                Err(error) => Read::Failed(error),
                Ok(topic) if topic.partition(wanted.partition).is_none() => {
                    Read::Failed(ErrorCode::UnknownTopicOrPartition)
                }
                Ok(topic) => match cluster.replica(topic.id, wanted.partition) {
                    Some(replica) => Read::From(replica),
                    None => Read::Failed(ErrorCode::NotLeaderOrFollower),
                },
            }));
        }
        let isolation = if request.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        };
        Self {
            topics: request.topics,
            reads,
            isolation,
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_BYTES),
        }
    }

    fn register(&self, waiter: &Arc<Notify>) {
        for read in &self.reads {
            if let Read::From(replica) = read {
                replica.on_progress(waiter);
            }
        }
    }

    async fn read(self: &Arc<Self>) -> Found {
        if !self.is_cold() {
            return self.read_now();
        }
        let plan = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || plan.read_now()).await;
        read.unwrap_or_else(|_| Found {
            topics: Vec::new(),
            bytes: 0,
            failed: true,
        })
    }

    fn is_cold(&self) -> bool {
        let wanted = self.topics.iter().flat_map(|topic| &topic.partitions);
        self.reads.iter().zip(wanted).any(|(read, wanted)| match read {
            Read::From(replica) => replica.high_watermark() - wanted.fetch_offset > COLD_BEHIND,
            Read::Failed(_) => false,
        })
    }

    fn read_now(&self) -> Found {
        let mut found = Found {
            topics: Vec::with_capacity(self.topics.len()),
            bytes: 0,
            failed: false,
        };
        let mut reads = self.reads.iter();
        for topic in &self.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (wanted, read) in topic.partitions.iter().zip(&mut reads) {
                let data = self.read_partition(wanted, read, found.bytes);
                found.bytes += data.records.len();
                found.failed |= data.error_code != ErrorCode::None.code();
                partitions.push(data);
            }
            found.topics.push(FetchableTopicResponse {
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
                partitions,
            });
        }
        found
    }

    fn read_partition(&self, wanted: &FetchPartition, read: &Read, so_far: usize) -> PartitionData {
        let replica = match read {
            Read::From(replica) => replica,
            Read::Failed(error) => return failed(wanted.partition, *error),
        };
        let limit = usize::try_from(wanted.partition_max_bytes)
            .unwrap_or(0)
            .min(self.max_bytes.saturating_sub(so_far));
        let epoch = (wanted.current_leader_epoch >= 0).then_some(wanted.current_leader_epoch);
        let mut fetched = match replica.fetch(wanted.fetch_offset, limit, self.isolation, epoch) {
            Ok(fetched) => fetched,
            Err(error) => return refused(wanted.partition, &error),
        };
        // The first batch of the first partition with data is sent whole, however large: else a consumer would never get
        // past it (KIP-74). Behind others it has to fit.
        if so_far > 0 && fetched.bytes > limit {
            fetched.records.clear();
        }
        PartitionData {
            partition_index: wanted.partition,
            high_watermark: fetched.high_watermark,
            last_stable_offset: fetched.last_stable_offset,
            log_start_offset: fetched.log_start,
            aborted_transactions: self.aborted(replica, wanted.fetch_offset, fetched.next_offset),
            records: Records::from(fetched.records),
            ..Default::default()
        }
    }

    /// Null unless the client filters by it: some clients drop records that it names whatever they asked for.
    fn aborted(&self, replica: &Replica, from: i64, to: i64) -> Option<Vec<AbortedTransaction>> {
        if self.isolation == Isolation::ReadUncommitted {
            return None;
        }
        let of = replica.log().aborted_transactions(from, to).into_iter();
        let respond = of.map(|aborted| AbortedTransaction {
            producer_id: aborted.producer_id,
            first_offset: aborted.first_offset,
        });
        Some(respond.collect())
    }
}

fn failed(partition: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code: error.code(),
        high_watermark: -1,
        ..Default::default()
    }
}

fn refused(partition: i32, error: &ReplicaError) -> PartitionData {
    let code = match errors::of_replica(error) {
        // The Java consumer throws at codes that it does not expect here; these it does.
        code @ (ErrorCode::NotLeaderOrFollower
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::KafkaStorageError) => code,
        _ => ErrorCode::UnknownServerError,
    };
    let mut data = failed(partition, code);
    if let ReplicaError::NotLeader { leader, epoch } = error {
        data.current_leader = LeaderIdAndEpoch {
            leader_id: leader.unwrap_or(-1),
            leader_epoch: *epoch,
        };
    }
    data
}

/// Where to reach the leaders that partitions name (KIP-951).
fn leaders(found: &[FetchableTopicResponse], image: &Image, listener: &str) -> Vec<NodeEndpoint> {
    let named = found
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.current_leader.leader_id);
    let nodes: BTreeSet<i32> = named.filter(|node| *node >= 0).collect();
    let endpoint = |node: &i32| {
        let daemon = image.nodes.get(node)?;
        let (host, port) = topics::address(daemon, listener)?;
        let rack = daemon.rack.as_deref().map(Into::into);
        Some(NodeEndpoint {
            node_id: *node,
            host: host.into(),
            port,
            rack,
        })
    };
    nodes.iter().filter_map(endpoint).collect()
}
