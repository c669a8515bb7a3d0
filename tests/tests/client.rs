//! Our own client against a real cluster: three daemons, or with `KAFKA_BOOTSTRAP=host:port,...` whichever it is, Apache
//! Kafka (`tests/clients/kafka/start`) too.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tradewind_client::admin::{ConfigChange, ConfigResource, NewTopic};
use tradewind_client::consumer::assignor::Assignor;
use tradewind_client::producer::partitioner::partition_of;
use tradewind_client::{
    Client, ClientConfig, ConsumerRecord, FetchLimits, FetchPosition, GroupConfig, GroupConsumer, Isolation,
    OffsetReset, OffsetSpec, PartitionReader, Producer, ProducerConfig, Record,
};
use tradewind_tests::{Cluster, ClusterSpec, MachineClock, shared, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;

const PATIENCE: Duration = Duration::from_secs(60);

async fn until_true(what: &str, look: impl AsyncFnMut() -> bool) {
    wait::until_true_async(what, PATIENCE.as_secs(), look)
        .await
        .unwrap();
}

/// Where the cluster is: one that all tests here share, and that ends with this process, unless another one is named.
fn bootstrap() -> Vec<String> {
    static OURS: OnceLock<Cluster> = OnceLock::new();
    let named = std::env::var("KAFKA_BOOTSTRAP").unwrap_or_else(|_| {
        let start = || {
            let folder = shared::folder(Path::new(env!("CARGO_TARGET_TMPDIR")), "client")?;
            Cluster::start(&folder, &ClusterSpec::new("east", 3))
        };
        OURS.get_or_init(|| start().expect("a cluster starts"))
            .bootstrap()
    });
    named.split(',').map(str::to_owned).collect()
}

fn client() -> Client {
    Client::new(ClientConfig::new(bootstrap(), Arc::new(MachineClock::default())))
}

/// A name that no earlier run has used.
fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

async fn create(client: &Client, name: &str, partitions: i32) -> String {
    let name = unique(name);
    let topic = NewTopic {
        name: name.clone(),
        partitions: Some(partitions),
        ..NewTopic::default()
    };
    timeout(PATIENCE, client.create_topic(&topic))
        .await
        .unwrap()
        .unwrap();
    name
}

async fn produce(client: &Client, topic: &str, count: usize, config: ProducerConfig) -> Vec<(i32, i64)> {
    let producer = Producer::start(client.clone(), config);
    let mut deliveries = Vec::new();
    for i in 0..count {
        let mut record = Record::new(topic, format!("value {i}")).with_key(format!("key {}", i % 100));
        record.headers = vec![("h".into(), Some("1".into())), ("h".into(), None)];
        deliveries.push(producer.send(record).await.unwrap());
    }
    producer.flush().await;
    let mut placed = Vec::new();
    for delivery in deliveries {
        let delivered = timeout(PATIENCE, delivery).await.unwrap().unwrap();
        placed.push((delivered.partition, delivered.offset));
    }
    producer.close(PATIENCE).await;
    placed
}

async fn read_all(client: &Client, topic: &str, partition: i32, end: i64) -> Vec<ConsumerRecord> {
    let reader = PartitionReader::at(client.clone(), topic, partition, OffsetSpec::Earliest).await;
    let mut reader = reader.unwrap();
    let mut records = Vec::new();
    timeout(PATIENCE, async {
        while reader.position() < end {
            records.extend(reader.poll(Duration::from_millis(500)).await.unwrap());
        }
    })
    .await
    .unwrap();
    records
}

#[tokio::test]
async fn what_is_produced_in_every_codec_is_read_back_in_order() {
    let client = client();
    for codec in Codec::ALL {
        let topic = create(&client, codec.name(), 3).await;
        let config = ProducerConfig {
            compression: codec,
            batch_bytes: 4_000,
            ..ProducerConfig::default()
        };
        let placed = produce(&client, &topic, 5_000, config).await;
        let mut seen = BTreeSet::new();
        for partition in 0..3 {
            let latest = client
                .list_offset(&topic, partition, OffsetSpec::Latest, Isolation::default())
                .await
                .unwrap();
            let end = latest.unwrap().offset;
            let records = read_all(&client, &topic, partition, end).await;
            assert_eq!(records.len() as i64, end);
            let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            for record in records {
                let value = std::str::from_utf8(record.value.as_ref().unwrap()).unwrap();
                let number: usize = value.strip_prefix("value ").unwrap().parse().unwrap();
                assert_eq!(placed[number], (partition, record.offset));
                assert_eq!(record.headers.len(), 2);
                let key = record.key.unwrap().to_vec();
                assert_eq!(partition_of(&key, 3), partition);
                assert!(last.insert(key, number).is_none_or(|before| before < number));
                assert!(seen.insert(number));
            }
        }
        assert_eq!(seen.len(), 5_000);
    }
}

#[tokio::test]
async fn topics_are_created_described_changed_grown_and_deleted() {
    let client = client();
    let name = create(&client, "admin", 2).await;
    let again = NewTopic {
        name: name.clone(),
        partitions: Some(2),
        ..NewTopic::default()
    };
    let again = client
        .create_topics(&[again], false)
        .await
        .unwrap()
        .remove(0)
        .unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::TopicAlreadyExists));

    let resource = ConfigResource::Topic(name.clone());
    let change = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Set("3600000".to_owned()))]);
    client.alter_configs(&resource, &change, false).await.unwrap();
    let retention = async || {
        let described = client
            .describe_configs(std::slice::from_ref(&resource))
            .await
            .unwrap();
        described[&resource]["retention.ms"].clone()
    };
    // Each question may go to another daemon: both from one answer.
    until_true("the topic's setting is changed", async || {
        let now = retention().await;
        now.value.as_deref() == Some("3600000") && now.is_topics_own()
    })
    .await;

    client.create_partitions(&name, 4).await.unwrap();
    until_true("the topic has grown", async || {
        let known = client.metadata(&[&name]).await.unwrap();
        known.topics[&name].partitions.len() == 4
    })
    .await;
    let fewer = client.create_partitions(&name, 3).await.unwrap_err();
    assert_eq!(fewer.code(), Some(ErrorCode::InvalidPartitions));

    assert!(client.metadata_of_all().await.unwrap().topics.contains_key(&name));
    client.delete_topics(&[&name]).await.unwrap().remove(0).unwrap();
    until_true("the topic is gone", async || {
        let known = client.metadata_of_all().await.unwrap();
        !known.topics.contains_key(&name)
    })
    .await;
}

#[tokio::test]
async fn raw_fetches_and_offsets_tell_the_truth() {
    let client = client();
    let topic = create(&client, "raw", 1).await;
    produce(&client, &topic, 100, ProducerConfig::default()).await;
    let known = client.topic(&topic).await.unwrap();
    let (_, epoch) = client.leader(&topic, 0).await.unwrap();
    let position = |offset| FetchPosition {
        topic: topic.clone(),
        topic_id: known.id,
        partition: 0,
        offset,
        leader_epoch: epoch,
        max_bytes: 1 << 20,
    };
    let fetched = client.fetch(&position(0), FetchLimits::default()).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.log_start), (100, 0));
    assert!(!fetched.records.is_empty());
    // Without a topic id the request goes by name.
    let mut by_name = position(100);
    by_name.topic_id = tradewind_wire::ids::TopicId::ZERO;
    let limits = FetchLimits {
        max_wait: Duration::from_millis(50),
        ..FetchLimits::default()
    };
    assert!(client.fetch(&by_name, limits).await.unwrap().records.is_empty());
    let beyond = client.fetch(&position(101), limits).await.unwrap_err();
    assert_eq!(beyond.code(), Some(ErrorCode::OffsetOutOfRange));

    let end = client.offset_for_leader_epoch(&topic, 0, epoch).await.unwrap();
    assert_eq!(end, Some((epoch, 100)));
    let at = |spec| client.list_offset(&topic, 0, spec, Isolation::default());
    assert_eq!(at(OffsetSpec::Earliest).await.unwrap().unwrap().offset, 0);
    let none = at(OffsetSpec::At(i64::MAX / 2)).await.unwrap();
    assert_eq!(none, None);
    assert_eq!(at(OffsetSpec::At(0)).await.unwrap().unwrap().offset, 0);
    let both = client
        .list_offsets(&[(topic.clone(), 0)], OffsetSpec::Latest, Isolation::default())
        .await;
    assert_eq!(both.unwrap()[&(topic.clone(), 0)].offset, 100);
    let missing = client.topic(&unique("missing")).await.unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::UnknownTopicOrPartition));
}

type Seen = Arc<Mutex<BTreeSet<(i32, i64)>>>;
type Driven = (JoinHandle<GroupConsumer>, Arc<AtomicUsize>);

/// Polls in a task until the sender is dropped; tells how many partitions the member has.
fn drive(mut consumer: GroupConsumer, seen: Seen) -> (Driven, oneshot::Sender<()>) {
    let size = Arc::new(AtomicUsize::new(0));
    let (stop, mut stopped) = oneshot::channel();
    let told = size.clone();
    let task = tokio::spawn(async move {
        while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            let records = consumer.poll(Duration::from_millis(100)).await.unwrap();
            seen.lock()
                .unwrap()
                .extend(records.iter().map(|record| (record.partition, record.offset)));
            told.store(consumer.assignment().len(), Ordering::Relaxed);
        }
        consumer
    });
    ((task, size), stop)
}

#[tokio::test]
async fn a_group_shares_a_topic_and_goes_on_where_it_was() {
    let client = client();
    let topic = create(&client, "group", 4).await;
    let group = unique("readers");
    produce(&client, &topic, 1_000, ProducerConfig::default()).await;
    let mut config = GroupConfig::new(&group, [topic.clone()]);
    config.heartbeat_interval = Duration::from_millis(200);
    // So that what was returned before a rebalance is committed before it too.
    config.auto_commit = Some(PATIENCE);
    config.reset = OffsetReset::Earliest;
    let mut alone = GroupConsumer::new(client.clone(), config.clone());
    let mut seen = BTreeSet::new();
    timeout(PATIENCE, async {
        while seen.len() < 500 {
            for record in alone.poll(Duration::from_millis(500)).await.unwrap() {
                assert!(seen.insert((record.partition, record.offset)));
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(alone.assignment().len(), 4);
    alone.commit().await.unwrap();
    let committed = client.offset_fetch(&group, None).await.unwrap();
    let total: i64 = committed.values().map(|commit| commit.offset).sum();
    assert_eq!(total as usize, seen.len());

    // A second member takes half, and both go on at the commits: nothing twice, nothing missing.
    config.assignors = vec![Assignor::RoundRobin, Assignor::Range];
    let second = GroupConsumer::new(client.clone(), config);
    let shared = Arc::new(Mutex::new(seen));
    let (members, stop): (Vec<_>, Vec<_>) = [alone, second]
        .into_iter()
        .map(|consumer| drive(consumer, shared.clone()))
        .unzip();
    until_true("two members share everything", async || {
        let sizes = members.iter().map(|(_, size)| size.load(Ordering::Relaxed));
        shared.lock().unwrap().len() == 1_000 && sizes.eq([2, 2])
    })
    .await;
    let described = client.describe_groups(&[&group]).await.unwrap();
    assert_eq!(
        (described[0].members.len(), &*described[0].group_state),
        (2, "Stable")
    );
    assert!(
        client
            .list_groups()
            .await
            .unwrap()
            .iter()
            .any(|listed| listed.group == group)
    );
    drop(stop);
    for (member, _) in members {
        let mut member = timeout(PATIENCE, member).await.unwrap().unwrap();
        member.commit().await.unwrap();
        member.close(PATIENCE).await.unwrap();
    }
    let committed = client.offset_fetch(&group, None).await.unwrap();
    assert_eq!(committed.values().map(|commit| commit.offset).sum::<i64>(), 1_000);

    client
        .offset_commit(&group, &BTreeMap::from([((topic.clone(), 0), 7.into())]))
        .await
        .unwrap();
    let one = client
        .offset_fetch(&group, Some(&[(topic.clone(), 0)]))
        .await
        .unwrap();
    assert_eq!(one[&(topic, 0)].offset, 7);
    client.delete_group(&group).await.unwrap();
    assert!(client.offset_fetch(&group, None).await.unwrap().is_empty());
}

/// Whoever runs this may kill brokers meanwhile; `KAFKA_SECONDS` says for how long it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_are_there_once_and_in_order_whatever_happens_meanwhile() {
    let seconds = std::env::var("KAFKA_SECONDS").map_or(5, |text| text.parse().unwrap());
    let client = client();
    let topic = create(&client, "once", 3).await;
    let producer = Producer::start(client.clone(), ProducerConfig::default());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut deliveries = Vec::new();
    while Instant::now() < end {
        let number = deliveries.len();
        let mut record = Record::new(&topic, number.to_string());
        record.partition = Some(i32::try_from(number % 3).unwrap());
        deliveries.push(producer.send(record).await.unwrap());
        if number % 10 == 0 {
            wait::pace_async(Duration::from_millis(1)).await;
        }
    }
    timeout(PATIENCE, producer.flush()).await.unwrap();
    let mut acknowledged = 0;
    for delivery in deliveries {
        timeout(PATIENCE, delivery).await.unwrap().unwrap();
        acknowledged += 1;
    }
    println!("{acknowledged} records acknowledged");
    for partition in 0..3 {
        let latest = client
            .list_offset(&topic, partition, OffsetSpec::Latest, Isolation::default())
            .await;
        let records = read_all(&client, &topic, partition, latest.unwrap().unwrap().offset).await;
        let numbers = records.iter().map(|record| {
            let value = std::str::from_utf8(record.value.as_ref().unwrap()).unwrap();
            value.parse::<usize>().unwrap()
        });
        assert!(numbers.eq((0..acknowledged).filter(|number| number % 3 == partition as usize)));
    }
}
