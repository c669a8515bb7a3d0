//! How the client behaves towards brokers that are old, slow, silent or gone: against a fake one.
#![allow(clippy::unwrap_used)]

mod fake;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Act, Fake, Script, TestClock, all_versions, answer, answer_in, serve_stream, usual};
use tokio::time::{Instant, timeout};
use tradewind_client::{Client, ClientConfig, ClientError, Producer, ProducerConfig, Record, Transport};
use tradewind_transport::certs::{init_ca, issue};
use tradewind_transport::{Mesh, MeshOptions, MeshTls};
use tradewind_wire::api::{ApiKey, RequestHeader, unsupported_api_versions};
use tradewind_wire::batch::Batch;
use tradewind_wire::codec::Reader;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::mesh::{Conversation, Hello, Welcome};
use tradewind_wire::messages::list_groups::ListedGroup;
use tradewind_wire::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use tradewind_wire::messages::{
    ApiVersionsRequest, InitProducerIdRequest, InitProducerIdResponse, ListGroupsRequest, ListGroupsResponse,
    Message, ProduceRequest, ProduceResponse,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn client(addr: SocketAddr) -> Client {
    client_with(addr, |_| {})
}

fn client_with(addr: SocketAddr, change: impl FnOnce(&mut ClientConfig)) -> Client {
    let clock = Arc::new(TestClock(Instant::now()));
    let mut config = ClientConfig::new(vec![addr.to_string()], clock);
    config.request_timeout = Duration::from_secs(10);
    change(&mut config);
    Client::new(config)
}

/// Answers ListGroups with one group, named as the client calls itself.
fn groups(header: &RequestHeader) -> Act {
    let group = ListedGroup {
        group_id: header.client_id.clone().unwrap_or_default(),
        ..Default::default()
    };
    let response = ListGroupsResponse {
        groups: vec![group],
        ..Default::default()
    };
    answer::<ListGroupsRequest>(header, &response)
}

#[tokio::test]
async fn an_old_broker_that_refuses_the_version_of_the_first_request_is_understood() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let fake = Fake::start(|addr| {
        Arc::new(move |header: &RequestHeader, _| match header.key() {
            Some(ApiKey::ApiVersions) => {
                seen.lock().unwrap().push(header.api_version);
                if header.api_version > 2 {
                    let mut refusal = unsupported_api_versions();
                    refusal.api_keys[0].max_version = 2;
                    answer_in::<ApiVersionsRequest>(header, 0, &refusal)
                } else {
                    let mut old = all_versions();
                    old.api_keys
                        .iter_mut()
                        .for_each(|api| api.max_version = api.min_version + 1);
                    answer::<ApiVersionsRequest>(header, &old)
                }
            }
            Some(ApiKey::ListGroups) => {
                assert_eq!(header.api_version, 1);
                groups(header)
            }
            _ => usual(header, addr).unwrap(),
        })
    });
    let listed = timeout(PATIENCE, client(fake.addr).list_groups())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(listed[0].group, "tradewind");
    assert_eq!(asked.lock().unwrap().as_slice(), [3, 2]);
}

#[tokio::test]
async fn an_api_that_the_broker_lacks_is_an_error_that_names_it() {
    let fake = Fake::start(|addr| {
        Arc::new(move |header: &RequestHeader, _| match header.key() {
            Some(ApiKey::ApiVersions) => {
                let mut few = all_versions();
                few.api_keys
                    .retain(|api| api.api_key != ApiKey::ListGroups.code());
                answer::<ApiVersionsRequest>(header, &few)
            }
            _ => usual(header, addr).unwrap(),
        })
    });
    let refused = timeout(PATIENCE, client(fake.addr).list_groups())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ClientError::Unsupported {
                api: ApiKey::ListGroups,
                ..
            }
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_silent_broker_costs_the_deadline_and_the_next_call_gets_a_new_connection() {
    let calls = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(|addr| {
        Arc::new(move |header: &RequestHeader, _| match header.key() {
            Some(ApiKey::ListGroups) if calls.fetch_add(1, Ordering::SeqCst) == 0 => Act::Silence,
            Some(ApiKey::ListGroups) => groups(header),
            _ => usual(header, addr).unwrap(),
        })
    });
    let client = client_with(fake.addr, |config| {
        config.request_timeout = Duration::from_millis(300)
    });
    client.metadata(&[]).await.unwrap();
    let started = Instant::now();
    let late = client.send(1, ListGroupsRequest::default()).await.unwrap_err();
    assert!(matches!(late, ClientError::TimedOut { .. }), "{late}");
    assert!(started.elapsed() < Duration::from_secs(5));
    client.send(1, ListGroupsRequest::default()).await.unwrap();
    assert_eq!(fake.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let fake = Fake::start(|addr| {
        Arc::new(move |header: &RequestHeader, _| usual(header, addr).unwrap_or_else(|| groups(header)))
    });
    let client = client(fake.addr);
    client.metadata(&[]).await.unwrap();
    let calls = (0..500).map(|_| client.send(1, ListGroupsRequest::default()));
    let answers = timeout(PATIENCE, futures::future::join_all(calls)).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broker_that_hangs_up_fails_those_who_wait_and_others_are_tried() {
    let gone = Fake::start(|_| Arc::new(|_: &RequestHeader, _| Act::Close));
    let here = Fake::start(|addr| Arc::new(move |header: &RequestHeader, _| usual(header, addr).unwrap()));
    let client = client_with(gone.addr, |config| config.bootstrap.push(here.addr.to_string()));
    let metadata = timeout(PATIENCE, client.metadata(&["t"])).await.unwrap().unwrap();
    assert_eq!(metadata.cluster_id.as_deref(), Some("fake"));
    assert_eq!(client.leader("t", 0).await.unwrap(), (1, 3));
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_use_up_the_time_of_the_others() {
    let hung = Fake::start(|_| Arc::new(|_: &RequestHeader, _| Act::Silence));
    let here = Fake::start(|addr| Arc::new(move |header: &RequestHeader, _| usual(header, addr).unwrap()));
    let client = client_with(hung.addr, |config| {
        config.bootstrap.push(here.addr.to_string());
        config.request_timeout = Duration::from_secs(3);
    });
    let metadata = timeout(PATIENCE, client.metadata(&["t"])).await.unwrap().unwrap();
    assert_eq!(metadata.brokers.len(), 1);
}

#[tokio::test]
async fn those_who_ask_for_metadata_at_the_same_time_share_an_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let fake = Fake::start(|addr| {
        Arc::new(move |header: &RequestHeader, _| {
            count.fetch_add(
                usize::from(header.key() == Some(ApiKey::Metadata)),
                Ordering::SeqCst,
            );
            usual(header, addr).unwrap()
        })
    });
    let client = client(fake.addr);
    let calls = (0..100).map(|_| client.metadata(&["t"]));
    let answers = timeout(PATIENCE, futures::future::join_all(calls)).await.unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().unwrap().topics.contains_key("t"))
    );
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
}

/// Base offsets by (producer id, first sequence), and the end.
type FakeLog = (HashMap<(i64, i32), i64>, i64);

/// A broker that takes batches as Kafka does, by producer id and sequence, and loses the first `lose` answers.
fn taking_and_losing(addr: SocketAddr, lose: usize) -> Script {
    let ids = AtomicUsize::new(0);
    let lost = AtomicUsize::new(0);
    let log: Mutex<FakeLog> = Mutex::default();
    Arc::new(
        move |header: &RequestHeader, mut body: Reader| match header.key() {
            Some(ApiKey::InitProducerId) => {
                let producer_id = ids.fetch_add(1, Ordering::SeqCst) as i64;
                let response = InitProducerIdResponse {
                    producer_id,
                    ..Default::default()
                };
                answer::<InitProducerIdRequest>(header, &response)
            }
            Some(ApiKey::Produce) => {
                let request = ProduceRequest::decode(&mut body, header.api_version).unwrap();
                let records = request.topic_data[0].partition_data[0].records.to_bytes();
                let batch = *Batch::parse(records).unwrap().header();
                let mut log = log.lock().unwrap();
                let end = log.1;
                let known = log.0.contains_key(&(batch.producer_id, batch.base_sequence));
                let base = *log
                    .0
                    .entry((batch.producer_id, batch.base_sequence))
                    .or_insert(end);
                if !known {
                    log.1 += i64::from(batch.records_count);
                }
                if lost.fetch_add(1, Ordering::SeqCst) < lose {
                    return Act::Close;
                }
                let partition = PartitionProduceResponse {
                    base_offset: base,
                    ..Default::default()
                };
                let response = ProduceResponse {
                    responses: vec![TopicProduceResponse {
                        name: "t".into(),
                        partition_responses: vec![partition],
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                answer::<ProduceRequest>(header, &response)
            }
            _ => usual(header, addr).unwrap(),
        },
    )
}

#[tokio::test]
async fn lost_answers_neither_lose_nor_duplicate_records() {
    let fake = Fake::start(|addr| taking_and_losing(addr, 3));
    let config = ProducerConfig {
        batch_bytes: 1_000,
        ..ProducerConfig::default()
    };
    let producer = Producer::start(client(fake.addr), config);
    let mut deliveries = Vec::new();
    for i in 0..200 {
        deliveries.push(
            producer
                .send(Record::new("t", format!("value {i}")))
                .await
                .unwrap(),
        );
    }
    timeout(PATIENCE, producer.flush()).await.unwrap();
    for (i, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, i as i64);
    }
    producer.close(PATIENCE).await;
}

#[tokio::test]
async fn a_refused_batch_fails_alone() {
    let fake = Fake::start(|addr| {
        let usual = taking_and_losing(addr, 0);
        Arc::new(move |header: &RequestHeader, body: Reader| {
            if header.key() == Some(ApiKey::Produce) {
                let request = ProduceRequest::decode(&mut body.clone(), header.api_version).unwrap();
                if request.topic_data[0].partition_data[0].records.len() > 10_000 {
                    let partition = PartitionProduceResponse {
                        error_code: ErrorCode::MessageTooLarge.code(),
                        ..Default::default()
                    };
                    let response = ProduceResponse {
                        responses: vec![TopicProduceResponse {
                            name: "t".into(),
                            partition_responses: vec![partition],
                            ..Default::default()
                        }],
                        ..Default::default()
                    };
                    return answer::<ProduceRequest>(header, &response);
                }
            }
            usual(header, body)
        })
    });
    let producer = Producer::start(client(fake.addr), ProducerConfig::default());
    let send = async |size: usize| {
        let delivery = producer.send(Record::new("t", vec![7; size])).await.unwrap();
        timeout(PATIENCE, delivery).await.unwrap()
    };
    assert_eq!(send(10).await.unwrap().offset, 0);
    assert!(
        send(20_000)
            .await
            .unwrap_err()
            .to_string()
            .contains("MESSAGE_TOO_LARGE")
    );
    assert_eq!(send(10).await.unwrap().offset, 1);
    assert!(producer.send(Record::new("t", vec![7; 2 << 20])).await.is_err());
}

/// A mesh endpoint of daemon 1 of `cluster`, under one authority for all.
fn endpoint(dir: &std::path::Path, cluster: &str) -> Mesh {
    let ca = dir.join("ca");
    if !ca.exists() {
        init_ca(&ca).unwrap();
    }
    let out = dir.join(cluster);
    issue(&ca, cluster, 1, &["127.0.0.1".to_owned()], &out).unwrap();
    let tls = MeshTls::load(
        &out.join("ca.pem"),
        &out.join("node.pem"),
        &out.join("node.key"),
        &[],
    )
    .unwrap();
    Mesh::bind(
        "127.0.0.1:0".parse().unwrap(),
        Arc::new(tls),
        MeshOptions::new([1; 64]),
    )
    .unwrap()
}

#[tokio::test]
async fn the_mesh_carries_the_same_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (east, west) = (endpoint(dir.path(), "east"), endpoint(dir.path(), "west"));
    let addr = west.local_addr().unwrap();
    tokio::spawn(async move {
        let script: Script =
            Arc::new(move |header: &RequestHeader, _| usual(header, addr).unwrap_or_else(|| groups(header)));
        while let Some(conn) = west.accept().await {
            while let Ok(Some((mut tx, mut rx))) = conn.accept().await {
                let hello = Hello::decode(rx.recv().await.unwrap().unwrap()).unwrap();
                assert_eq!((&*hello.cluster_name, hello.node), ("east", 1));
                let welcome = if hello.conversation == Conversation::Query {
                    Welcome::Accepted {
                        version: 1,
                        cluster_id: None,
                        node: 1,
                        storage_id: [0; 16],
                    }
                } else {
                    Welcome::Refused {
                        reason: "only queries here".to_owned(),
                    }
                };
                tx.send(&[welcome.encode()]).await.unwrap();
                tokio::spawn(serve_stream(tx, rx, script.clone()));
            }
        }
    });
    let over = |conversation, cluster: &str| {
        let transport = Transport::Mesh {
            mesh: east.clone(),
            cluster: cluster.to_owned(),
            conversation,
            options: None,
        };
        client_with(addr, |config| config.transport = transport)
    };
    let listed = timeout(PATIENCE, over(Conversation::Query, "west").list_groups())
        .await
        .unwrap();
    assert_eq!(listed.unwrap().len(), 1);
    let refused = timeout(PATIENCE, over(Conversation::Kafka, "west").metadata(&[]))
        .await
        .unwrap();
    assert!(refused.unwrap_err().to_string().contains("only queries here"));
    let stranger = timeout(PATIENCE, over(Conversation::Query, "north").metadata(&[]))
        .await
        .unwrap();
    assert!(
        stranger
            .unwrap_err()
            .to_string()
            .contains("is west/1, not any daemon of north")
    );
}
