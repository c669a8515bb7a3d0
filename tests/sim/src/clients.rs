//! Those who write: some send each batch once and never ask again, others are idempotent producers that repeat a batch,
//! to whoever leads then, until it is acknowledged.
//!
//! They know the leader from the daemons' own claims, so that a leader that was replaced and does not know it is written to
//! as well.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;

use crate::entropy::Dice;
use crate::host::Host;
use crate::oracle::Key;
use crate::weather::Weather;
use crate::world::World;

/// How long a client waits for an answer.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// The first producer id.
const FIRST_PRODUCER: i64 = 1_000;

/// One write's end, as its client saw it.
struct Answer {
    key: Key,
    offset: i64,
    epoch: i32,
    values: Vec<u64>,
    committed: bool,
    /// Of which producer, and which of its attempts.
    attempt: Option<(usize, u64)>,
}

/// An idempotent producer. It has one batch under way at a time.
#[derive(Debug)]
struct Producer {
    id: i64,
    key: Key,
    sequence: i32,
    flight: Option<Flight>,
    /// When it does something again.
    at: u64,
    attempts: u64,
}

/// A batch that is not acknowledged yet.
#[derive(Debug, Clone)]
struct Flight {
    values: Vec<u64>,
}

/// All clients of a run.
pub struct Clients {
    dice: Dice,
    writes: u64,
    acks_one: u64,
    producers: Vec<Producer>,
    answers: Arc<Mutex<Vec<Answer>>>,
    next_value: u64,
    unknown: usize,
    /// Until when nobody sends anything.
    rest_until: u64,
}

impl Clients {
    /// Those of `seed`. There are no producers before [`Self::begin`].
    pub fn new(seed: u64, weather: &Weather) -> Self {
        Self {
            dice: Dice::new(seed, "clients"),
            writes: weather.writes,
            acks_one: weather.acks_one,
            producers: Vec::new(),
            answers: Arc::default(),
            next_value: 1,
            unknown: 0,
            rest_until: 0,
        }
    }

    /// The partition that one of the producers writes to, if there is one.
    pub fn key_of_a_producer(&self, dice: &Dice) -> Option<Key> {
        dice.pick(&self.producers).map(|producer| producer.key)
    }

    /// Nobody sends anything before `until`.
    pub fn rest(&mut self, until: u64) {
        self.rest_until = until;
    }

    /// Lets `count` producers begin, each with a partition of its own choice.
    pub fn begin(&mut self, count: u64, keys: &[Key]) {
        for id in (FIRST_PRODUCER..).take(count as usize) {
            if let Some(&key) = self.dice.pick(keys) {
                self.producers.push(Producer {
                    id,
                    key,
                    sequence: 0,
                    flight: None,
                    at: 0,
                    attempts: 0,
                });
            }
        }
    }

    /// Records of which their client was not told that they are committed.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// Whether nobody waits for an acknowledgement.
    pub fn have_all(&self) -> bool {
        self.producers.iter().all(|producer| producer.flight.is_none())
    }

    /// What producers of this partition sent before may be lost, and with it what is known of them: they begin anew.
    pub fn start_over(&mut self, key: Key) {
        let count = self.producers.len() as i64;
        for producer in self.producers.iter_mut().filter(|producer| producer.key == key) {
            producer.id += count;
            producer.sequence = 0;
            producer.attempts += 1;
            if let Some(flight) = producer.flight.take() {
                self.unknown += flight.values.len();
            }
        }
    }

    fn values(&mut self) -> Vec<u64> {
        let count = self.dice.range(1, 4);
        let values = (0..count).map(|i| self.next_value + i).collect();
        self.next_value += count;
        values
    }

    fn batch(&self, host: &Host, values: &[u64], producer: Option<(i64, i32)>) -> Option<Batch> {
        let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
        for value in values {
            let mut bytes = value.to_be_bytes().to_vec();
            bytes.resize(8 + self.dice.range(0, 200) as usize, b'.');
            builder.append(host.clock.now_ms(), None, Some(&bytes), &[]);
        }
        if let Some((id, sequence)) = producer {
            builder.producer(id, 0, sequence);
        }
        Batch::parse(builder.build()).ok()
    }

    /// One of the hosts whose daemon says that it leads.
    fn leader<'a>(&self, hosts: &'a [Host], key: Key) -> Option<&'a Host> {
        let leads = |host: &&Host| {
            let cluster = host.cluster();
            cluster.is_some_and(|cluster| cluster.replica(key.0, key.1).is_some_and(|r| r.is_leader()))
        };
        let leaders: Vec<&Host> = hosts.iter().filter(leads).collect();
        self.dice.pick(&leaders).copied()
    }

    /// Sends a batch; its offset if it was taken.
    fn send(
        &self,
        host: &Host,
        key: Key,
        (values, acks): (Vec<u64>, i16),
        batch: Batch,
        attempt: Option<(usize, u64)>,
    ) -> Option<i64> {
        let answers = Arc::clone(&self.answers);
        let sent = host.within(|runtime, cluster| {
            let replica = cluster.replica(key.0, key.1)?;
            let (appended, epoch) = replica.append(batch, acks).ok()?;
            let offset = appended.base_offset;
            if acks == -1 {
                runtime.spawn(async move {
                    let answer = replica
                        .committed(appended.last_offset, epoch, CLIENT_PATIENCE)
                        .await;
                    let answer = Answer {
                        key,
                        offset,
                        epoch,
                        values,
                        committed: answer.is_ok(),
                        attempt,
                    };
                    answers.lock().unwrap_or_else(|p| p.into_inner()).push(answer);
                });
            }
            Some(offset)
        });
        sent.flatten()
    }
}

impl World {
    /// Lets clients do what they do in this millisecond. With `last` producers finish what they have begun, and nothing
    /// new is written.
    pub fn write(&mut self, last: bool) {
        if self.now < self.clients.rest_until {
            return;
        }
        if !last {
            self.write_once();
        }
        for i in 0..self.clients.producers.len() {
            self.produce(i, last);
        }
    }

    fn write_once(&mut self) {
        let clients = &mut self.clients;
        if !clients.dice.chance(clients.writes) {
            return;
        }
        let keys = keys_of(&self.topics);
        let Some(&key) = clients.dice.pick(&keys) else {
            return;
        };
        let acks = if clients.dice.chance(clients.acks_one) {
            1
        } else {
            -1
        };
        let Some(host) = clients.leader(&self.hosts, key) else {
            return;
        };
        let values = clients.values();
        let Some(batch) = clients.batch(host, &values, None) else {
            return;
        };
        let offset = clients.send(host, key, (values, acks), batch, None);
        let node = host.node;
        self.trace.note(self.now, || {
            format!("write {key:?} on node {node}, acks {acks}: {offset:?}")
        });
    }

    /// A producer begins a batch, or sends the present one again.
    fn produce(&mut self, i: usize, last: bool) {
        let now = self.now;
        if self.clients.producers[i].at > now {
            return;
        }
        let clients = &mut self.clients;
        if clients.producers[i].flight.is_none() {
            if last {
                return;
            }
            let values = clients.values();
            clients.producers[i].flight = Some(Flight { values });
        }
        let (again, patience) = (clients.dice.range(5, 100), clients.dice.range(50, 3_000));
        let producer = &mut clients.producers[i];
        let Some(flight) = producer.flight.clone() else {
            return;
        };
        producer.attempts += 1;
        producer.at = now + again;
        let (key, id, sequence) = (producer.key, producer.id, producer.sequence);
        let attempt = producer.attempts;
        let Some(host) = clients.leader(&self.hosts, key) else {
            return;
        };
        let Some(batch) = clients.batch(host, &flight.values, Some((id, sequence))) else {
            return;
        };
        let offset = clients.send(host, key, (flight.values, -1), batch, Some((i, attempt)));
        if offset.is_some() {
            clients.producers[i].at = now + patience;
        }
        let node = host.node;
        self.trace.note(now, || {
            format!("producer {id} sends {sequence} of {key:?} to node {node}: {offset:?}")
        });
    }

    /// Takes in what clients were told.
    pub fn hear(&mut self) -> Result<()> {
        let answers = std::mem::take(&mut *self.clients.answers.lock().unwrap_or_else(|p| p.into_inner()));
        for answer in answers {
            let Answer {
                key,
                offset,
                epoch,
                values,
                committed,
                attempt,
            } = answer;
            self.trace.note(self.now, || {
                format!("answer {key:?} {offset} {values:?} {committed}")
            });
            if let Some((i, attempt)) = attempt {
                let backoff = match self.clients.dice.range(0, 3) {
                    0 => self.clients.dice.range(50, 2_000),
                    _ => self.clients.dice.range(1, 50),
                };
                let producer = &mut self.clients.producers[i];
                if producer.attempts != attempt {
                    // It has given up on this attempt.
                    continue;
                }
                producer.at = self.now + backoff;
                if !committed {
                    continue;
                }
                producer.flight = None;
                producer.sequence += values.len() as i32;
            }
            if !committed {
                self.clients.unknown += values.len();
                continue;
            }
            for (offset, value) in (offset..).zip(values) {
                self.oracle.acknowledged(key, offset, value, epoch)?;
            }
        }
        Ok(())
    }
}

/// Every partition of these topics.
pub fn keys_of(topics: &[(tradewind_wire::ids::TopicId, i32)]) -> Vec<Key> {
    let of = |(id, partitions): &(tradewind_wire::ids::TopicId, i32)| {
        let id = *id;
        (0..*partitions).map(move |partition| (id, partition))
    };
    topics.iter().flat_map(of).collect()
}
