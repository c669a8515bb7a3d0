//! A Kafka cluster of one broker in memory that answers what it is told to, true or not: a source that no real broker would
//! be. It knows what a mirror asks of a source, and nothing else.
//!
//! A partition's records are the bytes that a test puts there, with the offsets, epochs, lengths and CRCs that they claim.
//! Everything else that can be asked (who leads, which epochs there were, where the log begins and ends, whose topic it is)
//! is a field, so that a lie is a value. It ends with its [`Liar`].

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tradewind_wire::api::{ApiKey, RequestHeader, ResponseHeader, decode_header};
use tradewind_wire::batch::{BatchBuilder, BatchHeader, ControlKind, TimestampType, control_batch};
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::api_versions::ApiVersion;
use tradewind_wire::messages::describe_configs::DescribeConfigsResult;
use tradewind_wire::messages::fetch::{FetchPartition, FetchableTopicResponse, PartitionData};
use tradewind_wire::messages::find_coordinator::Coordinator;
use tradewind_wire::messages::list_groups::ListedGroup;
use tradewind_wire::messages::list_offsets::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use tradewind_wire::messages::metadata::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use tradewind_wire::messages::offset_fetch::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use tradewind_wire::messages::offset_for_leader_epoch::{EpochEndOffset, OffsetForLeaderTopicResult};
use tradewind_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest, DescribeConfigsResponse, FetchRequest,
    FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse,
    ListOffsetsRequest, ListOffsetsResponse, Message, MetadataRequest, MetadataResponse, OffsetFetchRequest,
    OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, Request, versions,
};

/// The only broker's id.
const NODE: i32 = 7;
/// The largest request that is read.
const REQUEST_BYTES: usize = 1 << 20;
/// What it offers. OffsetFetch and FindCoordinator begin where groups are asked about in a list.
const OFFERED: [(ApiKey, i16); 9] = [
    (ApiKey::ApiVersions, 0),
    (ApiKey::Metadata, 4),
    (ApiKey::ListOffsets, 1),
    (ApiKey::Fetch, 4),
    (ApiKey::OffsetForLeaderEpoch, 2),
    (ApiKey::DescribeConfigs, 1),
    (ApiKey::ListGroups, 0),
    (ApiKey::FindCoordinator, 4),
    (ApiKey::OffsetFetch, 8),
];

/// What the cluster says of itself.
#[derive(Debug, Default)]
pub struct World {
    /// The topics by name.
    pub topics: BTreeMap<String, Topic>,
    /// The groups by name.
    pub groups: BTreeMap<String, Group>,
}

/// A topic.
#[derive(Debug)]
pub struct Topic {
    /// Its id, as Metadata tells it.
    pub id: TopicId,
    /// Its id, as Fetch answers tell it.
    pub fetched_as: TopicId,
    /// The numbers of its partitions, as Metadata tells them. All have the same records.
    pub numbers: Vec<i32>,
    /// What its partitions are.
    pub partition: Partition,
}

/// A partition.
#[derive(Debug, Default)]
pub struct Partition {
    /// The leader's epoch, as Metadata tells it.
    pub epoch: i32,
    /// Leader epochs, with where they begin.
    pub history: Vec<(i32, i64)>,
    /// The log start.
    pub start: i64,
    /// The high watermark, which is the end too.
    pub end: i64,
    /// Batches, each with the offset after it.
    pub batches: Vec<(i64, Bytes)>,
    /// What a Fetch of it is refused with; 0 for no refusal.
    pub refusal: i16,
}

/// A group.
#[derive(Debug, Default)]
pub struct Group {
    /// Its positions by topic, all in partition 0.
    pub positions: BTreeMap<String, i64>,
    /// What OffsetFetch is refused with; 0 for no refusal.
    pub refusal: i16,
}

impl Partition {
    /// Appends a sound batch of these values behind what is there, in the newest epoch of the history.
    pub fn produce(&mut self, values: &[&str]) {
        let mut builder = self.builder();
        for value in values {
            builder.append(1_700_000_000_000, Some(b"key"), Some(value.as_bytes()), &[]);
        }
        self.put(builder.build());
    }

    /// As [`Self::produce`], but as part of a transaction.
    pub fn produce_in_transaction(&mut self, producer_id: i64, values: &[&str]) {
        let mut builder = self.builder();
        for value in values {
            builder.append(1_700_000_000_000, Some(b"key"), Some(value.as_bytes()), &[]);
        }
        builder.producer(producer_id, 3, 0).transactional();
        self.put(builder.build());
    }

    /// Appends the marker that ends a transaction.
    pub fn end_transaction(&mut self, kind: ControlKind, producer_id: i64) {
        let mut marker = control_batch(kind, producer_id, 3, 1, 1_700_000_000_000).to_vec();
        marker[..8].copy_from_slice(&self.end.to_be_bytes());
        marker[12..16].copy_from_slice(&self.newest().to_be_bytes());
        self.put(marker.into());
    }

    /// A builder of the next sound batch.
    pub fn builder(&self) -> BatchBuilder {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        builder.base_offset(self.end).leader_epoch(self.newest());
        builder
    }

    /// Appends whatever these bytes are. If they begin like a batch the log ends where that says, else one offset later.
    pub fn put(&mut self, bytes: Bytes) {
        let claimed = BatchHeader::parse(&bytes).map(|header| header.next_offset());
        self.end = claimed.unwrap_or(0).max(self.end + 1);
        self.batches.push((self.end, bytes));
    }

    /// A leader is elected that has only what lies below `end`: a new epoch begins there.
    pub fn elect(&mut self, end: i64) {
        self.batches.retain(|(next, _)| *next <= end);
        self.history.retain(|(_, first)| *first < end);
        self.epoch = self.newest().max(self.epoch) + 1;
        self.history.push((self.epoch, end));
        self.end = end;
    }

    fn newest(&self) -> i32 {
        self.history.last().map_or(self.epoch, |(epoch, _)| *epoch)
    }

    /// Kafka's rule: the largest known epoch that is not above `asked`, and where the next one begins.
    fn epoch_end(&self, asked: i32) -> (i32, i64) {
        let Some(at) = self.history.iter().rposition(|(epoch, _)| *epoch <= asked) else {
            return (-1, -1);
        };
        if asked > self.newest() {
            return (-1, -1);
        }
        let next = self.history.get(at + 1).map_or(self.end, |(_, first)| *first);
        (self.history[at].0, next)
    }
}

/// The cluster. Connections end with it.
pub struct Liar {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    addr: SocketAddr,
    world: Mutex<World>,
    changed: Condvar,
    over: AtomicBool,
}

impl Liar {
    /// Listens on a port of its own.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a liar's listener")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            addr,
            world: Mutex::default(),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.over.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A connection that fails is the other side's to notice.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Creates a topic with one empty partition in leader epoch 5.
    pub fn create(&self, topic: &str) {
        self.change(|world| {
            let mut id = [0; 16];
            let name = topic.as_bytes();
            let length = name.len().min(15);
            id[..length].copy_from_slice(&name[..length]);
            id[15] = 1;
            let created = Topic {
                id: TopicId(id),
                fetched_as: TopicId(id),
                numbers: vec![0],
                partition: Partition {
                    epoch: 5,
                    history: vec![(5, 0)],
                    ..Partition::default()
                },
            };
            world.topics.insert(topic.to_owned(), created);
        });
    }

    /// Changes what it says, and wakes who waits for records.
    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let done = change(&mut self.shared.world.lock());
        self.shared.changed.notify_all();
        done
    }

    /// Changes a topic's partition.
    pub fn partition<T>(&self, topic: &str, change: impl FnOnce(&mut Partition) -> T) -> Result<T> {
        self.change(|world| {
            let topic = world.topics.get_mut(topic).context("no such topic")?;
            Ok(change(&mut topic.partition))
        })
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        // Lets the listener's thread look up.
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        while let Some(frame) = self.read(&mut stream)? {
            let (header, mut body) = decode_header(frame)?;
            let answer = self.answer(&header, &mut body)?;
            let length = i32::try_from(answer.len())?;
            stream.write_all(&[&length.to_be_bytes()[..], &answer[..]].concat())?;
        }
        Ok(())
    }

    /// The next request; nothing once it is over.
    fn read(&self, stream: &mut TcpStream) -> Result<Option<Bytes>> {
        let mut length = [0; 4];
        if !self.fill(stream, &mut length)? {
            return Ok(None);
        }
        let length = usize::try_from(i32::from_be_bytes(length))?;
        ensure!(length <= REQUEST_BYTES, "a request of {length} bytes");
        let mut frame = vec![0; length];
        Ok(self.fill(stream, &mut frame)?.then(|| frame.into()))
    }

    fn fill(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.over.load(Ordering::Acquire) {
                return Ok(false);
            }
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn answer(&self, header: &RequestHeader, body: &mut Reader) -> Result<Bytes> {
        match header.key().context("an unknown API")? {
            ApiKey::ApiVersions => with(header, body, |_: ApiVersionsRequest| offered()),
            ApiKey::Metadata => with(header, body, |_: MetadataRequest| self.metadata()),
            ApiKey::ListOffsets => with(header, body, |asked: ListOffsetsRequest| self.offsets(&asked)),
            ApiKey::Fetch => with(header, body, |asked: FetchRequest| self.fetch(&asked)),
            ApiKey::OffsetForLeaderEpoch => with(header, body, |asked: OffsetForLeaderEpochRequest| {
                self.epoch_ends(&asked)
            }),
            ApiKey::DescribeConfigs => with(header, body, |asked: DescribeConfigsRequest| configs(&asked)),
            ApiKey::ListGroups => with(header, body, |_: ListGroupsRequest| self.groups()),
            ApiKey::FindCoordinator => with(header, body, |asked: FindCoordinatorRequest| {
                self.coordinators(&asked)
            }),
            ApiKey::OffsetFetch => with(header, body, |asked: OffsetFetchRequest| self.positions(&asked)),
            other => anyhow::bail!("{other:?} was not offered"),
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let world = self.world.lock();
        let topics = world.topics.iter().map(|(name, topic)| MetadataResponseTopic {
            name: Some(name.into()),
            topic_id: topic.id,
            partitions: topic
                .numbers
                .iter()
                .map(|number| MetadataResponsePartition {
                    partition_index: *number,
                    leader_id: NODE,
                    leader_epoch: topic.partition.epoch,
                    replica_nodes: vec![NODE],
                    isr_nodes: vec![NODE],
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: NODE,
                host: self.addr.ip().to_string().into(),
                port: i32::from(self.addr.port()),
                rack: None,
            }],
            cluster_id: Some("cluster-of-the-liar".into()),
            controller_id: NODE,
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn offsets(&self, asked: &ListOffsetsRequest) -> ListOffsetsResponse {
        let world = self.world.lock();
        let topics = asked.topics.iter().map(|topic| {
            let known = world.topics.get(&*topic.name);
            let partition = |index: i32, timestamp: i64| {
                let (error_code, offset) = match (known, timestamp) {
                    (None, _) => (ErrorCode::UnknownTopicOrPartition.code(), -1),
                    (Some(topic), -2) => (0, topic.partition.start),
                    (Some(topic), _) => (0, topic.partition.end),
                };
                ListOffsetsPartitionResponse {
                    partition_index: index,
                    error_code,
                    offset,
                    ..Default::default()
                }
            };
            ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|asked| partition(asked.partition_index, asked.timestamp))
                    .collect(),
            }
        });
        ListOffsetsResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    /// Waits for records as a broker does.
    fn fetch(&self, asked: &FetchRequest) -> FetchResponse {
        let wait = Duration::from_millis(u64::try_from(asked.max_wait_ms).unwrap_or(0));
        let until = Instant::now() + wait;
        let mut world = self.world.lock();
        loop {
            let (response, brings) = read(&world, asked);
            if brings || self.over.load(Ordering::Acquire) {
                return response;
            }
            if self.changed.wait_until(&mut world, until).timed_out() {
                return response;
            }
        }
    }

    fn epoch_ends(&self, asked: &OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        let world = self.world.lock();
        let topics = asked.topics.iter().map(|topic| {
            let known = world.topics.get(&*topic.topic);
            let end = |partition: i32, epoch: i32| {
                let (leader_epoch, end_offset) =
                    known.map_or((-1, -1), |topic| topic.partition.epoch_end(epoch));
                EpochEndOffset {
                    error_code: known.map_or(ErrorCode::UnknownTopicOrPartition.code(), |_| 0),
                    partition,
                    leader_epoch,
                    end_offset,
                }
            };
            OffsetForLeaderTopicResult {
                topic: topic.topic.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|asked| end(asked.partition, asked.leader_epoch))
                    .collect(),
            }
        });
        OffsetForLeaderEpochResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn groups(&self) -> ListGroupsResponse {
        let world = self.world.lock();
        let groups = world.groups.keys().map(|group| ListedGroup {
            group_id: group.into(),
            protocol_type: "consumer".into(),
            ..Default::default()
        });
        ListGroupsResponse {
            groups: groups.collect(),
            ..Default::default()
        }
    }

    fn coordinators(&self, asked: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        let coordinators = asked.coordinator_keys.iter().map(|key| Coordinator {
            key: key.clone(),
            node_id: NODE,
            host: self.addr.ip().to_string().into(),
            port: i32::from(self.addr.port()),
            ..Default::default()
        });
        FindCoordinatorResponse {
            coordinators: coordinators.collect(),
            ..Default::default()
        }
    }

    fn positions(&self, asked: &OffsetFetchRequest) -> OffsetFetchResponse {
        let world = self.world.lock();
        let groups = asked.groups.iter().map(|asked| {
            let known = world.groups.get(&*asked.group_id);
            let position = |(topic, offset): (&String, &i64)| OffsetFetchResponseTopics {
                name: topic.into(),
                partitions: vec![OffsetFetchResponsePartitions {
                    partition_index: 0,
                    committed_offset: *offset,
                    ..Default::default()
                }],
            };
            let refusal = known.map_or(0, |group| group.refusal);
            let told = known.filter(|_| refusal == 0);
            OffsetFetchResponseGroup {
                group_id: asked.group_id.clone(),
                topics: told
                    .into_iter()
                    .flat_map(|group| &group.positions)
                    .map(position)
                    .collect(),
                error_code: refusal,
            }
        });
        OffsetFetchResponse {
            groups: groups.collect(),
            ..Default::default()
        }
    }
}

/// Decodes a request, and encodes what it is answered with.
fn with<R: Request>(
    header: &RequestHeader,
    body: &mut Reader,
    answer: impl FnOnce(R) -> R::Response,
) -> Result<Bytes> {
    let version = header.api_version;
    let response = answer(R::decode(body, version)?);
    let mut w = Writer::new();
    ResponseHeader {
        correlation_id: header.correlation_id,
    }
    .encode(&mut w, R::KEY, version);
    response.encode(&mut w, version)?;
    Ok(w.into_bytes())
}

fn offered() -> ApiVersionsResponse {
    let offered = OFFERED.iter().filter_map(|(key, from)| {
        Some(ApiVersion {
            api_key: key.code(),
            min_version: *from,
            max_version: versions(*key)?.max,
        })
    });
    ApiVersionsResponse {
        api_keys: offered.collect(),
        ..Default::default()
    }
}

/// No topic has settings of its own.
fn configs(asked: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = asked.resources.iter().map(|resource| DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..Default::default()
    });
    DescribeConfigsResponse {
        results: results.collect(),
        ..Default::default()
    }
}

/// What is there now, and whether any of it is worth an answer.
fn read(world: &World, asked: &FetchRequest) -> (FetchResponse, bool) {
    let mut brings = asked.topics.is_empty();
    let mut responses = Vec::new();
    for wanted in &asked.topics {
        let mut topics = world.topics.iter();
        let known = topics.find(|(name, topic)| {
            if wanted.topic_id.is_zero() {
                *wanted.topic == **name
            } else {
                wanted.topic_id == topic.id
            }
        });
        let partitions = wanted.partitions.iter().map(|asked| {
            let data = match known {
                Some((_, topic)) => partition_data(&topic.partition, asked),
                None => refused(asked.partition, ErrorCode::UnknownTopicId.code()),
            };
            brings |= data.error_code != 0 || !data.records.is_empty();
            data
        });
        let partitions = partitions.collect();
        responses.push(FetchableTopicResponse {
            topic: wanted.topic.clone(),
            topic_id: known.map_or(wanted.topic_id, |(_, topic)| topic.fetched_as),
            partitions,
        });
    }
    let response = FetchResponse {
        responses,
        ..Default::default()
    };
    (response, brings)
}

fn partition_data(partition: &Partition, asked: &FetchPartition) -> PartitionData {
    if partition.refusal != 0 {
        return refused(asked.partition, partition.refusal);
    }
    if asked.fetch_offset < partition.start || asked.fetch_offset > partition.end {
        return refused(asked.partition, ErrorCode::OffsetOutOfRange.code());
    }
    let wanted = partition
        .batches
        .iter()
        .filter(|(next, _)| *next > asked.fetch_offset);
    let pieces: Vec<Bytes> = wanted.map(|(_, bytes)| bytes.clone()).collect();
    PartitionData {
        partition_index: asked.partition,
        high_watermark: partition.end,
        last_stable_offset: partition.end,
        log_start_offset: partition.start,
        records: pieces.into(),
        ..Default::default()
    }
}

fn refused(partition: i32, error_code: i16) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code,
        high_watermark: -1,
        ..Default::default()
    }
}
