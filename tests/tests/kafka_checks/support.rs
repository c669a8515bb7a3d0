//! What the checks share: the cluster that is judged, topics of their own, and short forms of the requests they send.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tradewind_tests::kafka::Connection;
use tradewind_tests::{Cluster, Kafka, shared, wait};
use tradewind_wire::batch::{BatchBuilder, TimestampType};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::TopicId;
use tradewind_wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use tradewind_wire::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use tradewind_wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopic,
};
use tradewind_wire::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use tradewind_wire::messages::{
    CreateTopicsRequest, FetchRequest, FetchResponse, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest,
};

/// How long a change may take to be seen everywhere.
pub(crate) const SOON: u64 = 30;

/// Settings of every cluster of ours that is judged; Apache Kafka is started with the same (`tests/clients/run`).
pub(crate) const SETTINGS: &str = "[topic_defaults]\n\
     \"group.initial.rebalance.delay.ms\" = 0\n\
     \"group.max.size\" = 8\n\
     \"group.min.session.timeout.ms\" = 1000\n\
     \"log.cleaner.backoff.ms\" = 200\n\
     \"log.retention.check.interval.ms\" = 500\n\
     \"offsets.retention.check.interval.ms\" = 500\n\
     \"replica.selector.class\" = \"rack-aware\"\n";

/// The cluster that is judged.
struct Target {
    bootstrap: Vec<SocketAddr>,
    /// Where the second listener of some broker is.
    other: Option<SocketAddr>,
    /// Where the listener is that only one broker has.
    alone: Option<SocketAddr>,
    /// Held so that its daemons live as long as this process.
    _cluster: Option<Cluster>,
}

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| find_target().expect("there is a cluster to judge"))
}

fn find_target() -> Result<Target> {
    if let Ok(addresses) = std::env::var("KAFKA_BOOTSTRAP") {
        let parsed = addresses.split(',').map(str::parse).collect::<Result<_, _>>();
        let listener = |name| -> Result<Option<SocketAddr>> {
            Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?)
        };
        return Ok(Target {
            bootstrap: parsed
                .with_context(|| format!("KAFKA_BOOTSTRAP={addresses}: addresses are needed"))?,
            other: listener("KAFKA_OTHER")?,
            alone: listener("KAFKA_ALONE")?,
            _cluster: None,
        });
    }
    let folder = shared::folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "kafka-checks")?;
    let mut cluster = Cluster::prepare(&folder, "east", 3)?;
    let (other, alone) = configure(&cluster, SETTINGS)?;
    cluster.start_all()?;
    Ok(Target {
        bootstrap: cluster.daemons.iter().map(|daemon| daemon.kafka).collect(),
        other: Some(other),
        alone: Some(alone),
        _cluster: Some(cluster),
    })
}

/// Gives every daemon `more` settings, a rack and a second listener, and the first a third one; returns both of the first's.
fn configure(cluster: &Cluster, more: &str) -> Result<(SocketAddr, SocketAddr)> {
    cluster.configure(more)?;
    let mut first = None;
    let alone = tradewind_tests::ports::free();
    for daemon in &cluster.daemons {
        let other = tradewind_tests::ports::free();
        let file = daemon.folder.join("tradewind.toml");
        let text = fs::read_to_string(&file)?
            .replace("[node]\n", &format!("[node]\nrack = \"rack{}\"\n", daemon.id));
        let mut listeners = format!("\n[[kafka.listener]]\nlisten = \"{other}\"\nname = \"other\"\n");
        if first.is_none() {
            listeners += &format!("\n[[kafka.listener]]\nlisten = \"{alone}\"\nname = \"alone\"\n");
        }
        fs::write(file, text + &listeners)?;
        first.get_or_insert(other);
    }
    Ok((first.context("a cluster has a daemon")?, alone))
}

/// Whether Apache Kafka is judged, or any cluster that this process cannot stop or configure.
pub(crate) fn is_foreign() -> bool {
    std::env::var_os("KAFKA_BOOTSTRAP").is_some()
}

/// Whether it is Apache Kafka that is judged.
pub(crate) fn is_oracle() -> bool {
    std::env::var_os("KAFKA_ORACLE").is_some()
}

/// Says that this test ends without a verdict; `tests/clients/run checks` counts it as skipped.
pub(crate) fn not_here(why: &str) {
    println!("not run here: {why}");
}

/// A cluster of daemons for one test alone, which may kill them. None where a foreign cluster is judged.
pub(crate) fn own_cluster(daemons: i32, more: &str) -> Result<Option<(tempfile::TempDir, Cluster)>> {
    if is_foreign() {
        not_here("it needs daemons of its own");
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::prepare(folder.path(), "east", daemons)?;
    cluster.configure(more)?;
    cluster.start_all()?;
    Ok(Some((folder, cluster)))
}

/// A client of the judged cluster.
pub(crate) fn kafka() -> Kafka {
    Kafka::new(target().bootstrap.clone())
}

/// A connection to some broker.
pub(crate) fn connect() -> Result<Connection> {
    Connection::open(target().bootstrap[0])
}

/// A connection to some broker's second listener, if there is one.
pub(crate) fn connect_other() -> Result<Option<Connection>> {
    target().other.map(Connection::open).transpose()
}

/// A connection to the listener that only one broker has, if there is such a listener.
pub(crate) fn connect_alone() -> Result<Option<Connection>> {
    target().alone.map(Connection::open).transpose()
}

/// Every broker, as they advertise themselves.
pub(crate) fn brokers() -> Result<Vec<(i32, SocketAddr)>> {
    let none = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    addresses(&kafka().any(&none, 12)?)
}

/// The brokers of a Metadata answer.
pub(crate) fn addresses(response: &MetadataResponse) -> Result<Vec<(i32, SocketAddr)>> {
    let brokers = response.brokers.iter();
    brokers
        .map(|b| Ok((b.node_id, format!("{}:{}", &*b.host, b.port).parse()?)))
        .collect()
}

/// How many replicas a topic of the checks has: three where there are three brokers.
pub(crate) fn replication() -> Result<i16> {
    Ok(i16::try_from(brokers()?.len().min(3))?)
}

/// `name` with a part that no other run has.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

/// The error of this number; the tests compare and print names.
pub(crate) fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

/// The time in ms since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}

/// A topic of one test, and a connection to the leader of its partition 0.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) kafka: Kafka,
    pub(crate) leader: Connection,
    pub(crate) leader_address: SocketAddr,
}

impl Topic {
    /// Makes a topic of one partition.
    pub(crate) fn new(name: &str, configs: &[(&str, &str)]) -> Result<Self> {
        Self::with_partitions(name, 1, configs)
    }

    /// Makes a topic, and waits until every broker knows it and all replicas are in sync.
    pub(crate) fn with_partitions(name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<Self> {
        let name = unique(name);
        let replicas = replication()?;
        create(&name, partitions, replicas, configs)?;
        let mut kafka = kafka();
        await_topic(&mut kafka, &name, usize::try_from(replicas)?)?;
        Self::open(name, kafka)
    }

    /// Makes a topic of one partition in a test's own cluster, and waits until every daemon has a copy in sync.
    pub(crate) fn in_cluster(cluster: &Cluster, name: &str, configs: &[(&str, &str)]) -> Result<Self> {
        let (name, mut kafka) = (unique(name), cluster.kafka());
        kafka.create_topic(&name, 1, configs)?;
        await_topic(&mut kafka, &name, cluster.daemons.len())?;
        Self::open(name, kafka)
    }

    /// A topic that is there.
    pub(crate) fn open(name: String, mut kafka: Kafka) -> Result<Self> {
        let leader_address = kafka.leader(&name, 0, true)?;
        let metadata = kafka.metadata(&name)?;
        Ok(Self {
            id: metadata.topics.first().context("the topic")?.topic_id,
            leader: Connection::open(leader_address)?,
            leader_address,
            name,
            kafka,
        })
    }

    /// Appends a batch to partition 0 with `acks=all`; whatever becomes of it.
    pub(crate) fn produce(&mut self, batch: impl Into<Bytes>) -> Result<PartitionProduceResponse> {
        let request = produce_request(&self.name, 0, -1, batch.into());
        produced(self.leader.ask(&request, 9)?)
    }

    /// Appends a batch to partition 0, which must work; returns its base offset.
    pub(crate) fn append(&mut self, batch: impl Into<Bytes>) -> Result<i64> {
        let answer = self.produce(batch)?;
        ensure!(
            answer.error_code == 0,
            "{:?}: {:?}",
            error(answer.error_code),
            answer.error_message
        );
        Ok(answer.base_offset)
    }

    /// Appends so many records, one per batch.
    pub(crate) fn append_singly(&mut self, count: usize) -> Result<()> {
        for number in 0..count {
            self.append(batch(&[&format!("record {number}")]))?;
        }
        Ok(())
    }

    /// Reads partition 0 from this offset; whatever comes.
    pub(crate) fn fetch(&mut self, offset: i64) -> Result<PartitionData> {
        fetched(self.leader.ask(&fetch_request(&self.name, offset), 11)?)
    }

    /// Looks up an offset of partition 0.
    pub(crate) fn list_offsets(&mut self, timestamp: i64) -> Result<ListOffsetsPartitionResponse> {
        let request = list_offsets_request(&self.name, timestamp);
        let response = self.leader.ask(&request, 8)?;
        let topic = response.topics.into_iter().next().context("the topic")?;
        topic.partitions.into_iter().next().context("the partition")
    }
}

/// Creates a topic by one request, which must work.
pub(crate) fn create(name: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) -> Result<()> {
    let config = |&(name, value): &(&str, &str)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: replicas,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        }],
        timeout_ms: 30_000,
        ..Default::default()
    };
    let response = kafka().any(&request, 7)?;
    let result = response.topics.first().context("an answer for the topic")?;
    ensure!(
        result.error_code == 0,
        "creating {name}: {:?} {:?}",
        error(result.error_code),
        result.error_message
    );
    Ok(())
}

/// Waits until every broker shows leaders and so many in-sync replicas, and the leaders serve.
pub(crate) fn await_topic(kafka: &mut Kafka, name: &str, in_sync: usize) -> Result<()> {
    let all = kafka.any(&metadata_request(&[name]), 12)?;
    for (_, address) in addresses(&all)? {
        wait::until_true("every broker knows the topic", SOON, || {
            let response = kafka.at(address, &metadata_request(&[name]), 12)?;
            let topic = response.topics.first().context("the topic")?;
            let good = |p: &_| is_whole(p, in_sync);
            Ok(topic.error_code == 0 && !topic.partitions.is_empty() && topic.partitions.iter().all(good))
        })?;
    }
    let partitions = i32::try_from(kafka.partitions(name)?.len())?;
    for partition in 0..partitions {
        wait::until_true("the leader serves", SOON, || {
            let leader = kafka.leader(name, partition, true)?;
            let mut request = list_offsets_request(name, -1);
            request.topics[0].partitions[0].partition_index = partition;
            let response = kafka.at(leader, &request, 8)?;
            Ok(response.topics[0].partitions[0].error_code == 0)
        })?;
    }
    Ok(())
}

fn is_whole(
    partition: &tradewind_wire::messages::metadata::MetadataResponsePartition,
    in_sync: usize,
) -> bool {
    partition.error_code == 0 && partition.leader_id >= 0 && partition.isr_nodes.len() == in_sync
}

/// Metadata of these topics; creates none.
pub(crate) fn metadata_request(names: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| tradewind_wire::messages::metadata::MetadataRequestTopic {
        name: Some((*name).into()),
        ..Default::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    }
}

/// A batch for one partition.
pub(crate) fn produce_request(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: batch.into(),
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The answer for the one partition that was written to.
pub(crate) fn produced(
    response: tradewind_wire::messages::ProduceResponse,
) -> Result<PartitionProduceResponse> {
    let topic = response.responses.into_iter().next().context("the topic")?;
    topic
        .partition_responses
        .into_iter()
        .next()
        .context("the partition")
}

/// A producer id and its epoch, asked for until the brokers can give one.
pub(crate) fn producer_id(kafka: &mut Kafka) -> Result<(i64, i16)> {
    wait::until("there are producer ids", SOON, || kafka.producer_id().map(Some))
}

/// The partitions that the leader of partition 0 leads.
pub(crate) fn led_with_the_first(topic: &mut Topic) -> Result<Vec<i32>> {
    let partitions = topic.kafka.partitions(&topic.name)?;
    let leader = partitions.first().context("a partition")?.leader_id;
    let led = partitions.iter().filter(|p| p.leader_id == leader);
    Ok(led.map(|p| p.partition_index).collect())
}

/// A fetch of partition 0 by name, outside of any session, that does not wait long.
pub(crate) fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 16 << 20,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![fetch_partition(0, offset)],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// One partition of a fetch.
pub(crate) fn fetch_partition(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: 8 << 20,
        ..Default::default()
    }
}

/// The answer for the one partition that was read.
pub(crate) fn fetched(response: FetchResponse) -> Result<PartitionData> {
    ensure!(response.error_code == 0, "{:?}", error(response.error_code));
    let topic = response.responses.into_iter().next().context("the topic")?;
    topic.partitions.into_iter().next().context("the partition")
}

/// A lookup in partition 0.
pub(crate) fn list_offsets_request(topic: &str, timestamp: i64) -> ListOffsetsRequest {
    ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                ..Default::default()
            }],
        }],
        timeout_ms: 10_000,
        ..Default::default()
    }
}

/// An uncompressed batch of values without keys, with the time of now.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for value in values {
        builder.append(now(), None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}
