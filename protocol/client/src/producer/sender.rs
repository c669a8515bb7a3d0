//! The producer's task: carries out what the accumulator decides, and feeds it the answers.
//!
//! One worker per broker keeps the requests of that broker in order without holding up the others, even while it connects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tradewind_wire::codec::Records;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;
use tradewind_wire::messages::produce::{PartitionProduceData, TopicProduceData};
use tradewind_wire::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};

use super::accumulator::{Answer, Fate, Outgoing, Round};
use super::queue::ProducerId;
use super::{Acks, Shared};
use crate::backoff::backoff;
use crate::client::Client;
use crate::error::ClientError;
use crate::net::connection::Reply;
use crate::net::pool::Lane;

/// The last version of Produce that names topics by name.
const NAMES_UNTIL: i16 = 12;

/// Events that wait for the sender.
const EVENT_QUEUE: usize = 64;

/// The pause after failing to get a producer id or metadata.
const SETBACK: Duration = Duration::from_millis(100);

/// What happened.
enum Event {
    /// A broker answered, or did not.
    Answered(NodeId, Vec<Answer>),
    /// A producer id was given, or not.
    Identity(Option<ProducerId>),
    /// Metadata were asked for.
    Refreshed,
}

struct Sender {
    client: Client,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    workers: HashMap<NodeId, mpsc::Sender<Vec<Outgoing>>>,
    in_flight: HashMap<NodeId, usize>,
    asking_identity: bool,
    refreshing: bool,
}

/// Runs until the producer is closed or dropped.
pub(super) async fn run(client: Client, shared: Arc<Shared>) {
    let (events, mut inbox) = mpsc::channel(EVENT_QUEUE);
    let mut sender = Sender {
        client,
        shared,
        events,
        workers: HashMap::new(),
        in_flight: HashMap::new(),
        asking_identity: false,
        refreshing: false,
    };
    let shared = sender.shared.clone();
    loop {
        let wait = sender.round();
        tokio::select! {
            () = shared.closed.cancelled() => break,
            Some(event) = inbox.recv() => sender.work_in(event),
            () = shared.work.notified() => {}
            () = sleep(wait) => {}
        }
    }
    shared.accumulator.lock().abandon();
}

impl Sender {
    /// Sends what can be sent; returns how long nothing will happen by time alone.
    fn round(&mut self) -> Duration {
        let now = self.client.clock().monotonic();
        let metadata = self.client.cached();
        let leader =
            |topic: &str, partition: i32| metadata.topics.get(topic)?.partitions.get(&partition)?.leader;
        let (in_flight, limit) = (&mut self.in_flight, self.shared.config.max_in_flight);
        let mut planned: HashMap<NodeId, usize> = HashMap::new();
        let room = |node| {
            let planned = planned
                .entry(node)
                .or_insert_with(|| in_flight.get(&node).copied().unwrap_or(0));
            *planned += 1;
            *planned <= limit
        };
        let round: Round = self.shared.accumulator.lock().round(now, leader, room);
        for (node, request) in round.sends {
            self.dispatch(node, request);
        }
        if round.wants_identity && !self.asking_identity {
            self.asking_identity = true;
            tokio::spawn(ask_identity(self.client.clone(), self.events.clone()));
        }
        if !round.leaderless.is_empty() && !self.refreshing {
            self.refreshing = true;
            let topics = round.leaderless.into_iter().collect();
            tokio::spawn(refresh(self.client.clone(), topics, self.events.clone()));
        }
        if round.idle {
            self.shared.idle.notify_waiters();
        }
        let wake_at = round.wake_at.unwrap_or(now + Duration::from_secs(60));
        // Never zero: what is due but held back by something else must not spin.
        wake_at.saturating_sub(now).max(Duration::from_millis(1))
    }

    fn dispatch(&mut self, node: NodeId, request: Vec<Outgoing>) {
        let worker = self.workers.entry(node).or_insert_with(|| {
            let (queue, requests) = mpsc::channel(self.shared.config.max_in_flight);
            let work = work(
                self.client.clone(),
                self.shared.clone(),
                node,
                requests,
                self.events.clone(),
            );
            tokio::spawn(work);
            queue
        });
        *self.in_flight.entry(node).or_default() += 1;
        // The worker's queue has a place for every request that may be in flight.
        if let Err(refused) = worker.try_send(request) {
            self.work_in(Event::Answered(node, lost(&refused.into_inner())));
        }
    }

    fn work_in(&mut self, event: Event) {
        match event {
            Event::Answered(node, answers) => {
                if let Some(count) = self.in_flight.get_mut(&node) {
                    *count = count.saturating_sub(1);
                }
                let now = self.client.clock().monotonic();
                let rng = self.client.rng();
                let mut accumulator = self.shared.accumulator.lock();
                for answer in &answers {
                    accumulator.answer(answer, |attempts| now + backoff(attempts, rng));
                }
                drop(accumulator);
                self.refresh_moved(&answers);
            }
            Event::Identity(given) => {
                self.asking_identity = false;
                if let Some(identity) = given {
                    self.shared.accumulator.lock().set_identity(identity);
                }
            }
            Event::Refreshed => self.refreshing = false,
        }
    }

    /// Asks for fresh metadata where an answer says that the leader is not where it was.
    fn refresh_moved(&mut self, answers: &[Answer]) {
        let moved = |answer: &&Answer| match answer.fate {
            Fate::Lost => true,
            Fate::Code(code) => code.is_retriable(),
            Fate::Taken { .. } | Fate::Unsendable(_) => false,
        };
        let mut topics: Vec<String> = answers
            .iter()
            .filter(moved)
            .map(|answer| answer.topic.clone())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        if !topics.is_empty() && !self.refreshing {
            self.refreshing = true;
            tokio::spawn(refresh(self.client.clone(), topics, self.events.clone()));
        }
    }
}

/// A broker's worker: starts its requests in order, and lets each wait for its answer apart.
async fn work(
    client: Client,
    shared: Arc<Shared>,
    node: NodeId,
    mut requests: mpsc::Receiver<Vec<Outgoing>>,
    events: mpsc::Sender<Event>,
) {
    let limit = client.config().request_timeout;
    while let Some(batches) = requests.recv().await {
        let started = timeout(limit, start(&client, &shared, node, &batches)).await;
        let (events, closed) = (events.clone(), shared.closed.clone());
        let answers = match started {
            Ok(Ok(Some(reply))) => {
                tokio::spawn(async move {
                    let answers = tokio::select! {
                        answers = answered(reply, &batches, limit) => answers,
                        () = closed.cancelled() => return,
                    };
                    let _ = events.send(Event::Answered(node, answers)).await;
                });
                continue;
            }
            Ok(Ok(None)) => all(
                &batches,
                &Fate::Taken {
                    base_offset: -1,
                    append_time: None,
                },
            ),
            Ok(Err(error)) if error.is_retriable() => {
                tracing::debug!(node, %error, "cannot produce");
                lost(&batches)
            }
            Ok(Err(error)) => all(&batches, &Fate::Unsendable(error)),
            Err(_) => lost(&batches),
        };
        if events.send(Event::Answered(node, answers)).await.is_err() {
            return;
        }
    }
}

/// Writes one request; the answer is to be waited for, unless there is none (acks=0).
async fn start(
    client: &Client,
    shared: &Shared,
    node: NodeId,
    batches: &[Outgoing],
) -> Result<Option<Reply<ProduceRequest>>, ClientError> {
    let (connection, version) = client
        .connection_to::<ProduceRequest>(node, Lane::Produce, NAMES_UNTIL)
        .await?;
    let timeout_ms = i32::try_from(client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
    let request = request(batches, shared.config.acks, timeout_ms);
    if shared.config.acks == Acks::None {
        connection.tell(version, &request).await?;
        return Ok(None);
    }
    connection.begin(version, &request).await.map(Some)
}

async fn answered(reply: Reply<ProduceRequest>, batches: &[Outgoing], limit: Duration) -> Vec<Answer> {
    let connection = reply.connection().clone();
    match timeout(limit, reply.wait()).await {
        Ok(Ok(response)) => answers(batches, &response),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no answer to a produce request");
            lost(batches)
        }
        Err(_) => {
            connection.close("a produce request was not answered in time");
            lost(batches)
        }
    }
}

fn request(batches: &[Outgoing], acks: Acks, timeout_ms: i32) -> ProduceRequest {
    let mut topic_data: Vec<TopicProduceData> = Vec::new();
    // Batches come ordered by topic.
    for batch in batches {
        if topic_data.last().is_none_or(|topic| *topic.name != *batch.topic) {
            topic_data.push(TopicProduceData {
                name: (&batch.topic).into(),
                ..Default::default()
            });
        }
        if let Some(topic) = topic_data.last_mut() {
            let records = Records::from(batch.bytes.clone());
            topic.partition_data.push(PartitionProduceData {
                index: batch.partition,
                records,
            });
        }
    }
    ProduceRequest {
        transactional_id: None,
        acks: acks.code(),
        timeout_ms,
        topic_data,
    }
}

fn answers(batches: &[Outgoing], response: &ProduceResponse) -> Vec<Answer> {
    let fate = |batch: &Outgoing| {
        let topic = response
            .responses
            .iter()
            .find(|topic| *topic.name == *batch.topic)?;
        let found = topic
            .partition_responses
            .iter()
            .find(|answer| answer.index == batch.partition)?;
        Some(match ErrorCode::from_code(found.error_code) {
            ErrorCode::None => Fate::Taken {
                base_offset: found.base_offset,
                append_time: (found.log_append_time_ms >= 0).then_some(found.log_append_time_ms),
            },
            code => Fate::Code(code),
        })
    };
    let answer = |batch: &Outgoing| Answer {
        topic: batch.topic.clone(),
        partition: batch.partition,
        number: batch.number,
        // A broker that says nothing of a batch may or may not have taken it.
        fate: fate(batch).unwrap_or(Fate::Lost),
    };
    batches.iter().map(answer).collect()
}

fn lost(batches: &[Outgoing]) -> Vec<Answer> {
    all(batches, &Fate::Lost)
}

fn all(batches: &[Outgoing], fate: &Fate) -> Vec<Answer> {
    let answer = |batch: &Outgoing| Answer {
        topic: batch.topic.clone(),
        partition: batch.partition,
        number: batch.number,
        fate: fate.clone(),
    };
    batches.iter().map(answer).collect()
}

async fn ask_identity(client: Client, events: mpsc::Sender<Event>) {
    let request = InitProducerIdRequest {
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let identity = match client.any(&request).await {
        Ok(answer) if answer.error_code == ErrorCode::None.code() => Some(ProducerId {
            id: answer.producer_id,
            epoch: answer.producer_epoch,
        }),
        Ok(answer) => {
            let code = ErrorCode::from_code(answer.error_code).name();
            tracing::debug!(code, "no producer id");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "no producer id");
            None
        }
    };
    if identity.is_none() {
        sleep(SETBACK).await;
    }
    let _ = events.send(Event::Identity(identity)).await;
}

async fn refresh(client: Client, topics: Vec<String>, events: mpsc::Sender<Event>) {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    if let Err(error) = client.metadata(&topics).await {
        tracing::debug!(%error, "cannot refresh metadata");
    }
    // Metadata that still know no leader are not asked for again at once.
    sleep(SETBACK).await;
    let _ = events.send(Event::Refreshed).await;
}
