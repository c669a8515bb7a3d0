//! A plain, blocking Kafka client for judging: one request at a time, no retries that hide anything.
//!
//! It shares the wire format with the daemon, and nothing else; the client that users have (`protocol/client`) is tested
//! in its own crate. Kafka's own clients judge the wire format itself (`tests/clients`).

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tradewind_wire::api::{RequestHeader, ResponseHeader};
use tradewind_wire::batch::{Batch, split};
use tradewind_wire::codec::{Reader, Writer};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use tradewind_wire::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic};
use tradewind_wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopic,
};
use tradewind_wire::messages::metadata::{MetadataRequestTopic, MetadataResponsePartition};
use tradewind_wire::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use tradewind_wire::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use tradewind_wire::messages::produce::{PartitionProduceData, TopicProduceData};
use tradewind_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ListOffsetsRequest, Message, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetFetchRequest,
    ProduceRequest, Request,
};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer that is read.
const ANSWER_BYTES: usize = 128 * 1024 * 1024;

/// A broker's refusal.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
pub struct Refused(pub ErrorCode);

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// The producer's time in ms.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// One connection to one broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            correlation: 0,
        })
    }

    /// Sends a request in this version and waits for its answer.
    pub fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let correlation = self.send(request, version)?;
        self.receive::<R>(version, correlation)
    }

    /// Sends a request in this version and does not wait; returns the number that its answer will carry.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32> {
        self.correlation += 1;
        let mut w = Writer::new();
        header(R::KEY.code(), version, self.correlation).encode(&mut w)?;
        request.encode(&mut w, version)?;
        self.write_frame(&w.into_bytes())?;
        Ok(self.correlation)
    }

    /// Sends a header of this API and version, and after it any bytes as the body; returns the correlation id.
    pub fn send_body(&mut self, api_key: i16, version: i16, body: &[u8]) -> Result<i32> {
        self.correlation += 1;
        let mut w = Writer::new();
        header(api_key, version, self.correlation).encode(&mut w)?;
        w.put(body);
        self.write_frame(&w.into_bytes())?;
        Ok(self.correlation)
    }

    /// Reads the next answer, which must be the one to this request and must hold nothing more.
    pub fn receive<R: Request>(&mut self, version: i16, correlation: i32) -> Result<R::Response> {
        let mut r = Reader::new(self.read_frame()?);
        let answered = ResponseHeader::decode(&mut r, R::KEY, version)?;
        ensure!(
            answered.correlation_id == correlation,
            "answers are out of order: {} where {correlation} was due",
            answered.correlation_id
        );
        let response = R::Response::decode(&mut r, version)?;
        ensure!(
            r.remaining() == 0,
            "{} bytes after the answer to {}",
            r.remaining(),
            R::NAME
        );
        Ok(response)
    }

    /// Fails unless the broker closes this connection without a further byte.
    pub fn expect_closed(&mut self) -> Result<()> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("an answer where the connection should be closed"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("the connection is still open"),
        }
    }

    /// Sends any bytes as one frame.
    pub fn write_frame(&mut self, bytes: &[u8]) -> Result<()> {
        let length = i32::try_from(bytes.len())?;
        self.stream.write_all(&length.to_be_bytes())?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends any bytes without a length.
    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads one frame.
    pub fn read_frame(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        ensure!(length <= ANSWER_BYTES, "an answer of {length} bytes");
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }
}

fn header(api_key: i16, api_version: i16, correlation_id: i32) -> RequestHeader {
    RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id: Some("suites".into()),
    }
}

/// A cluster, as a client sees it.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: Vec<SocketAddr>,
    connections: HashMap<SocketAddr, Connection>,
    leaders: HashMap<(String, i32), SocketAddr>,
}

impl Kafka {
    /// A client that has not connected yet.
    pub fn new(bootstrap: Vec<SocketAddr>) -> Self {
        Self {
            bootstrap,
            connections: HashMap::new(),
            leaders: HashMap::new(),
        }
    }

    /// Sends a request to one broker; a connection that failed is forgotten.
    pub fn at<R: Request>(&mut self, address: SocketAddr, request: &R, version: i16) -> Result<R::Response> {
        let mut connection = match self.connections.remove(&address) {
            Some(connection) => connection,
            None => Connection::open(address)?,
        };
        let response = connection.ask(request, version)?;
        self.connections.insert(address, connection);
        Ok(response)
    }

    /// Sends a request to the first broker that answers.
    pub fn any<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let mut last = None;
        for address in self.bootstrap.clone() {
            match self.at(address, request, version) {
                Ok(response) => return Ok(response),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no bootstrap address")?)
    }

    /// Creates a topic with the cluster's default number of replicas.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
        self.create_topic_with(name, partitions, -1, configs)
    }

    /// Creates a topic.
    pub fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let config = |&(name, value): &(&str, &str)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: replicas,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..Default::default()
        };
        let response = self.any(&request, 7)?;
        let result = response.topics.first().context("no answer for the topic")?;
        good(result.error_code).with_context(|| format!("creating {name}: {:?}", result.error_message))
    }

    /// What any broker tells about a topic.
    pub fn metadata(&mut self, topic: &str) -> Result<MetadataResponse> {
        let asked = MetadataRequestTopic {
            name: Some(topic.into()),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![asked]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        self.any(&request, 12)
    }

    /// A topic's partitions, by rising number.
    pub fn partitions(&mut self, topic: &str) -> Result<Vec<MetadataResponsePartition>> {
        let mut response = self.metadata(topic)?;
        let found = response.topics.pop().context("no answer for the topic")?;
        good(found.error_code).with_context(|| format!("metadata of {topic}"))?;
        let mut partitions = found.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        Ok(partitions)
    }

    /// Where a partition's leader is, asked anew if it is not known or `refresh` says so.
    pub fn leader(&mut self, topic: &str, partition: i32, refresh: bool) -> Result<SocketAddr> {
        let key = (topic.to_owned(), partition);
        if let Some(address) = self.leaders.get(&key).filter(|_| !refresh) {
            return Ok(*address);
        }
        self.leaders.remove(&key);
        let response = self.metadata(topic)?;
        let found = response.topics.first().context("no answer for the topic")?;
        good(found.error_code)?;
        let led = found
            .partitions
            .iter()
            .find(|p| p.partition_index == partition)
            .context("no such partition")?;
        good(led.error_code)?;
        let broker = response
            .brokers
            .iter()
            .find(|b| b.node_id == led.leader_id)
            .context("no leader")?;
        let address = format!("{}:{}", &*broker.host, broker.port).parse()?;
        self.leaders.insert(key, address);
        Ok(address)
    }

    /// Fails with the partition's error if there is one; then its leader is looked up again by the next call.
    fn good_leader(&mut self, topic: &str, partition: i32, code: i16) -> Result<(), Refused> {
        good(code).inspect_err(|_| {
            self.leaders.remove(&(topic.to_owned(), partition));
        })
    }

    /// Asks the partition's leader; after any failure the leader is looked up again by the next call.
    fn at_leader<R: Request>(
        &mut self,
        topic: &str,
        partition: i32,
        request: &R,
        version: i16,
    ) -> Result<R::Response> {
        let address = self.leader(topic, partition, false)?;
        let response = self.at(address, request, version);
        if response.is_err() {
            self.leaders.remove(&(topic.to_owned(), partition));
        }
        response
    }

    /// A producer id and its epoch.
    pub fn producer_id(&mut self) -> Result<(i64, i16)> {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        let response = self.any(&request, 4)?;
        good(response.error_code)?;
        Ok((response.producer_id, response.producer_epoch))
    }

    /// Appends one batch with `acks=all`, once; returns its base offset.
    pub fn append(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<i64> {
        let data = PartitionProduceData {
            index: partition,
            records: batch.into(),
        };
        let topic_data = TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 5_000,
            topic_data: vec![topic_data],
            ..Default::default()
        };
        let response = self.at_leader(topic, partition, &request, 9)?;
        let answer = response
            .responses
            .first()
            .and_then(|topic| topic.partition_responses.first())
            .context("no answer for the partition")?;
        self.good_leader(topic, partition, answer.error_code)
            .with_context(|| format!("{:?}", answer.error_message))?;
        Ok(answer.base_offset)
    }

    /// Whole batches from `offset` on, as the leader has them, and its high watermark.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(Vec<Batch>, i64)> {
        let wanted = FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: 8 * 1024 * 1024,
            ..Default::default()
        };
        let fetch_topic = FetchTopic {
            topic: topic.into(),
            partitions: vec![wanted],
            ..Default::default()
        };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 16 * 1024 * 1024,
            topics: vec![fetch_topic],
            ..Default::default()
        };
        let mut response = self.at_leader(topic, partition, &request, 11)?;
        good(response.error_code)?;
        let data = response
            .responses
            .first_mut()
            .and_then(|topic| topic.partitions.first_mut())
            .context("no answer for the partition")?;
        self.good_leader(topic, partition, data.error_code)?;
        let batches: Result<Vec<Batch>, _> = split(data.records.to_bytes()).collect();
        Ok((batches?, data.high_watermark))
    }

    /// Every batch from `from` up to the high watermark.
    pub fn batches(&mut self, topic: &str, partition: i32, from: i64) -> Result<Vec<Batch>> {
        let (mut all, mut at) = (Vec::new(), from);
        loop {
            let (batches, high_watermark) = self.fetch(topic, partition, at)?;
            if at >= high_watermark {
                return Ok(all);
            }
            let last = batches
                .last()
                .with_context(|| format!("nothing at {at}, below {high_watermark}"))?;
            at = last.header().next_offset();
            all.extend(batches);
        }
    }

    /// Every record from `from` up to the high watermark, CRCs checked.
    pub fn records(&mut self, topic: &str, partition: i32, from: i64) -> Result<Vec<Record>> {
        unpacked(&self.batches(topic, partition, from)?, from)
    }

    /// The records of one fetch at `from`, CRCs checked.
    pub fn records_at(&mut self, topic: &str, partition: i32, from: i64) -> Result<Vec<Record>> {
        unpacked(&self.fetch(topic, partition, from)?.0, from)
    }

    /// The partition's high watermark.
    pub fn end(&mut self, topic: &str, partition: i32) -> Result<i64> {
        self.offset_at(topic, partition, -1)
    }

    /// The high watermarks of a topic's first partitions in one request: one broker must lead them all.
    pub fn ends(&mut self, topic: &str, partitions: i32) -> Result<Vec<i64>> {
        self.offsets_at(topic, 0..partitions, -1)
    }

    /// The partition's log start.
    pub fn start(&mut self, topic: &str, partition: i32) -> Result<i64> {
        self.offset_at(topic, partition, -2)
    }

    /// Deletes the records below `offset`; returns the low watermark.
    pub fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> Result<i64> {
        let asked = DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: partition,
                offset,
            }],
        };
        let request = DeleteRecordsRequest {
            topics: vec![asked],
            timeout_ms: 10_000,
        };
        let response = self.at_leader(topic, partition, &request, 2)?;
        let answer = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first())
            .context("no answer for the partition")?;
        self.good_leader(topic, partition, answer.error_code)?;
        Ok(answer.low_watermark)
    }

    fn offset_at(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let found = self.offsets_at(topic, partition..partition + 1, timestamp)?;
        found.first().copied().context("no answer")
    }

    /// Asks the leader of the first of these partitions, which must lead them all.
    fn offsets_at(&mut self, topic: &str, partitions: Range<i32>, timestamp: i64) -> Result<Vec<i64>> {
        let wanted = partitions.clone().map(|partition_index| ListOffsetsPartition {
            partition_index,
            timestamp,
            ..Default::default()
        });
        let asked = ListOffsetsTopic {
            name: topic.into(),
            partitions: wanted.collect(),
        };
        let request = ListOffsetsRequest {
            topics: vec![asked],
            ..Default::default()
        };
        let mut response = self.at_leader(topic, partitions.start, &request, 7)?;
        let mut found = response.topics.pop().context("no answer")?.partitions;
        found.sort_by_key(|partition| partition.partition_index);
        ensure!(found.len() == partitions.len(), "no answer for some partitions");
        let mut offset = |answer: &ListOffsetsPartitionResponse| -> Result<i64> {
            self.good_leader(topic, answer.partition_index, answer.error_code)?;
            Ok(answer.offset)
        };
        found.iter().map(&mut offset).collect()
    }

    /// Commits a group's position from outside the group, as an empty group allows.
    pub fn commit(&mut self, group: &str, topic: &str, positions: &[(i32, i64)]) -> Result<()> {
        let partitions =
            positions.iter().map(
                |&(partition_index, committed_offset)| OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset,
                    ..Default::default()
                },
            );
        let request = OffsetCommitRequest {
            group_id: group.into(),
            topics: vec![OffsetCommitRequestTopic {
                name: topic.into(),
                partitions: partitions.collect(),
            }],
            ..Default::default()
        };
        let coordinator = self.coordinator(group)?;
        let response = self.at(coordinator, &request, 8)?;
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            good(partition.error_code)
                .with_context(|| format!("commit of {topic}/{}", partition.partition_index))?;
        }
        Ok(())
    }

    /// A group's positions in a topic; -1 where it has none.
    pub fn committed(&mut self, group: &str, topic: &str, partitions: i32) -> Result<Vec<i64>> {
        let topics = OffsetFetchRequestTopics {
            name: topic.into(),
            partition_indexes: (0..partitions).collect(),
        };
        let asked = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![topics]),
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![asked],
            ..Default::default()
        };
        let coordinator = self.coordinator(group)?;
        let response = self.at(coordinator, &request, 8)?;
        let answer = response.groups.first().context("no answer for the group")?;
        good(answer.error_code)?;
        let mut found = vec![-1; usize::try_from(partitions)?];
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            good(partition.error_code)?;
            *found
                .get_mut(usize::try_from(partition.partition_index)?)
                .context("a partition not asked for")? = partition.committed_offset;
        }
        Ok(found)
    }

    /// Which broker looks after a group.
    pub fn coordinator(&mut self, group: &str) -> Result<SocketAddr> {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec![group.into()],
            ..Default::default()
        };
        let response = self.any(&request, 4)?;
        let Some(found) = response.coordinators.first() else {
            bail!("no answer for the group")
        };
        good(found.error_code)?;
        Ok(format!("{}:{}", &*found.host, found.port).parse()?)
    }
}

/// The records of some batches at or above `from`.
fn unpacked(batches: &[Batch], from: i64) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    for batch in batches {
        batch.check_crc()?;
        for record in batch.records(ANSWER_BYTES)?.iter() {
            let record = record?;
            if record.offset < from {
                continue;
            }
            let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
            all.push(Record {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(copy),
                value: record.value.map(copy),
                headers: record
                    .headers
                    .map(|(name, value)| (copy(name), value.map(copy)))
                    .collect(),
            });
        }
    }
    Ok(all)
}

fn good(code: i16) -> Result<(), Refused> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        error => Err(Refused(error)),
    }
}
