//! Clients that go with their topic from cluster to cluster, as a switchover sends them, and what they saw of it.
//!
//! An idempotent writer per partition repeats each batch, here or there, until one of the clusters acknowledges it. A group
//! commits how far it could have read. At the end: the history of all this for its checker (`history.rs`), against the log
//! of either cluster; and how often each partition's acknowledgements went to the other cluster. More often than the topic
//! was moved would be two clusters that could be written to at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::MetadataRequest;
use tradewind_wire::messages::metadata::MetadataRequestTopic;

use crate::history::{Commit, History, Id, Outcome, Position, Write};
use crate::kafka::{Kafka, Refused};
use crate::load::{self, Written};
use crate::watch::Notes;
use crate::{Cluster, Mesh, Naming, wait};

/// The topic that moves.
pub const TOPIC: &str = "orders";
/// The group that moves with it.
pub const GROUP: &str = "billing";
/// The topic's partitions.
pub const PARTITIONS: i32 = 2;
/// The flow from the first cluster to the second.
pub const FLOW: &str = "east->west";
/// The flow that a switchover makes for the way back.
pub const BACK: &str = "west->east";

/// What a client rests after each request: the logs are to stay small.
const REST: Duration = Duration::from_millis(5);

/// The clients.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    /// By partition.
    batches: Vec<Arc<AtomicU64>>,
    commits: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<(Written, u64)>>>,
    reader: JoinHandle<Result<History>>,
}

/// What they saw.
#[derive(Debug)]
pub struct Seen {
    /// By partition.
    pub written: Vec<Written>,
    /// By partition: how often an acknowledgement came from another cluster than the one before.
    pub changes: Vec<u64>,
    /// Writes, commits and positions.
    pub history: History,
}

impl Clients {
    /// Starts them: they find [`TOPIC`] in the east.
    pub fn start(mesh: &Mesh) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(AtomicU64::new(0));
        let batches: Vec<Arc<AtomicU64>> = (0..PARTITIONS).map(|_| Arc::default()).collect();
        let notes = Notes::new(PARTITIONS);
        let sides = || [mesh.east.kafka(), mesh.west.kafka()];
        let writers = (0..).zip(0..).zip(&batches).map(|((partition, tag), batches)| {
            let writer = Writer {
                sides: sides(),
                at: 0,
                partition,
                tag,
                stop: Arc::clone(&stop),
                batches: Arc::clone(batches),
                notes: Arc::clone(&notes),
            };
            thread::spawn(move || writer.write())
        });
        let writers = writers.collect();
        let (both, stopped, counted) = (sides(), Arc::clone(&stop), Arc::clone(&commits));
        Self {
            writers,
            reader: thread::spawn(move || {
                read(both, &stopped, &counted, &notes).inspect_err(|error| eprintln!("{error:#}"))
            }),
            stop,
            batches,
            commits,
        }
    }

    /// Waits until so many more batches are written to each partition, and positions committed.
    pub fn go_on(&self, batches: u64) -> Result<()> {
        let written = || self.batches.iter().map(|count| count.load(Ordering::Relaxed));
        let before: Vec<u64> = written().collect();
        let committed = self.commits.load(Ordering::Relaxed);
        wait::until_true("clients go on", 90, || {
            ensure!(!self.reader.is_finished(), "the group has failed");
            ensure!(
                !self.writers.iter().any(JoinHandle::is_finished),
                "a writer gave up"
            );
            Ok(written()
                .zip(&before)
                .all(|(now, before)| now >= before + batches)
                && self.commits.load(Ordering::Relaxed) > committed + 2)
        })
    }

    /// Ends them.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen {
            written: Vec::new(),
            changes: Vec::new(),
            history: History::default(),
        };
        for writer in self.writers {
            let Ok(ended) = writer.join() else {
                bail!("a writer panicked")
            };
            let (written, changes) = ended?;
            seen.history.writes.extend(&written.writes);
            seen.written.push(written);
            seen.changes.push(changes);
        }
        let Ok(ended) = self.reader.join() else {
            bail!("the group panicked")
        };
        let read = ended?;
        (seen.history.commits, seen.history.positions) = (read.commits, read.positions);
        Ok(seen)
    }
}

impl Seen {
    /// Each partition of this cluster holds what was acknowledged, once, in order and where it was told to be, and nothing
    /// else; positions were never lost.
    pub fn holds(&self, cluster: &Cluster) -> Result<()> {
        let (mut kafka, mut history) = (cluster.kafka(), self.history.clone());
        for partition in 0..PARTITIONS {
            let log = load::read_log(&mut kafka, TOPIC, partition)?;
            history.logs.insert(partition, log);
        }
        load::ensure_sound(&history)
    }

    /// Fails unless acknowledgements of every partition went to the other cluster exactly so often.
    pub fn ensure_changed(&self, times: u64) -> Result<()> {
        let changes = &self.changes;
        ensure!(
            changes.iter().all(|changed| *changed == times),
            "acknowledgements changed sides {changes:?} times in {times} moves"
        );
        Ok(())
    }

    /// Records that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.written.iter().map(|written| written.acknowledged).sum()
    }

    /// The longest time that a partition took no write, of those that came to their end between `from` and `to`.
    pub fn without_writes(&self, from: Instant, to: Instant) -> Option<Duration> {
        let gaps = self.written.iter().filter_map(|w| load::longest_gap(w, from, to));
        gaps.max()
    }
}

struct Writer {
    sides: [Kafka; 2],
    at: usize,
    partition: i32,
    tag: u32,
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    notes: Arc<Notes>,
}

impl Writer {
    fn write(mut self) -> Result<(Written, u64)> {
        let id = wait::until("a producer id", 30, || Ok(Some(self.sides[0].producer_id()?)))?;
        let mut seen = Written {
            partition: self.partition,
            ..Written::default()
        };
        let (mut last, mut changes) = (self.at, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let first = seen.acknowledged;
            let batch = load::numbered_batch(Codec::Lz4, Some(id), self.tag, first)?;
            let begun = self.notes.now();
            let base = wait::until("a batch is acknowledged", 120, || {
                let answer = self.sides[self.at].append(TOPIC, self.partition, batch.clone());
                if answer.is_err() {
                    self.at = 1 - self.at;
                }
                answer.map(Some)
            })?;
            changes += u64::from(self.at != last);
            last = self.at;
            seen.writes.push(Write {
                partition: self.partition,
                first: Id {
                    writer: self.tag,
                    number: first,
                },
                count: load::BATCH,
                span: self.notes.since(begun),
                outcome: Outcome::Acknowledged(base),
            });
            seen.acknowledged += load::BATCH;
            seen.times.push(Instant::now());
            self.batches.fetch_add(1, Ordering::Relaxed);
            wait::pace(REST);
        }
        Ok((seen, changes))
    }
}

/// Reads and commits; at the other cluster from the position that is committed there, which must never be below the last
/// one that was acknowledged.
fn read(mut sides: [Kafka; 2], stop: &AtomicBool, commits: &AtomicU64, notes: &Notes) -> Result<History> {
    let (mut seen, mut acknowledged) = (History::default(), vec![0; PARTITIONS as usize]);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        // As clients do: only metadata send them to the other cluster. Whoever went there after any error would find
        // positions that still lag.
        if told_to_leave(&mut sides[at]) {
            at = 1 - at;
        }
        let begun = notes.now();
        let Ok(from) = sides[at].committed(GROUP, TOPIC, PARTITIONS) else {
            wait::pace(REST);
            continue;
        };
        let span = notes.since(begun);
        let mut next = Vec::new();
        for (partition, (&from, last)) in (0..).zip(from.iter().zip(&acknowledged)) {
            ensure!(
                from.max(0) >= *last,
                "at side {at} partition {partition} stands at {from}, {last} was acknowledged"
            );
            seen.positions.push(Position {
                partition,
                offset: from,
                span,
            });
            let end = sides[at].end(TOPIC, partition).unwrap_or_else(|_| from.max(0));
            next.push((partition, end.max(from.max(0))));
        }
        let begun = notes.now();
        let committed = sides[at].commit(GROUP, TOPIC, &next).is_ok();
        let span = notes.since(begun);
        seen.commits
            .extend(next.iter().map(|&(partition, offset)| Commit {
                partition,
                offset,
                span,
                acknowledged: committed,
            }));
        if committed {
            acknowledged = next.iter().map(|(_, offset)| *offset).collect();
            commits.fetch_add(1, Ordering::Relaxed);
        }
        wait::pace(REST);
    }
    Ok(seen)
}

/// Two clusters of so many daemons, with a flow of one topic that has begun to copy.
pub fn begin(folder: &Path, daemons: i32) -> Result<Mesh> {
    let mesh = Mesh::start(folder, daemons, Naming::Identity)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &[])?;
    // A topic that the flow has seen may still have to be made.
    let mut west = mesh.west.kafka();
    wait::until("the topic is in the west", 60, || {
        let ends = (0..PARTITIONS).map(|partition| west.end(TOPIC, partition));
        ends.collect::<Result<Vec<i64>>>().map(Some)
    })?;
    mesh.wait_mirrored(1, 60)?;
    Ok(mesh)
}

/// Waits until the target copies at least one topic of this flow.
pub fn wait_active(target: &Cluster, flow: &str) -> Result<()> {
    wait::until("the flow is active", 90, || {
        let status = target.ask(&["mirror", "status"])?;
        let line = status
            .as_array()
            .and_then(|all| all.iter().find(|line| line["flow"] == flow));
        let line = line.with_context(|| format!("no {flow} in {status}"))?;
        ensure!(
            line["state"] == "active" && line["topics"].as_u64() >= Some(1),
            "{line}"
        );
        Ok(Some(()))
    })
}

/// The code of a broker's refusal, if the error is one.
pub fn refusal(error: &anyhow::Error) -> Option<ErrorCode> {
    error.downcast_ref::<Refused>().map(|refused| refused.0)
}

/// Whether metadata say that the topic has moved.
pub fn told_to_leave(kafka: &mut Kafka) -> bool {
    let topic = MetadataRequestTopic {
        name: Some(TOPIC.into()),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let told = kafka.any(&request, 13).map(|answer| answer.error_code);
    told.is_ok_and(|code| code == ErrorCode::RebootstrapRequired.code())
}

/// A cluster that was left: it refuses writes, deletions and commits in the words that send clients away, and can be read.
pub fn has_left(cluster: &Cluster) -> Result<()> {
    let mut kafka = cluster.kafka();
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    let written = kafka.append(TOPIC, 0, batch).err().context("a write is taken")?;
    ensure!(
        refusal(&written) == Some(ErrorCode::NotLeaderOrFollower),
        "{written:#}"
    );
    let deleted = kafka
        .delete_records(TOPIC, 0, 1)
        .err()
        .context("records are deleted")?;
    // Fenced, or by now a mirror.
    let told = [ErrorCode::NotLeaderOrFollower, ErrorCode::PolicyViolation];
    ensure!(
        refusal(&deleted).is_some_and(|code| told.contains(&code)),
        "{deleted:#}"
    );
    let committed = kafka
        .commit("another", TOPIC, &[(0, 1)])
        .err()
        .context("a commit is taken")?;
    ensure!(
        refusal(&committed) == Some(ErrorCode::CoordinatorNotAvailable),
        "{committed:#}"
    );
    ensure!(told_to_leave(&mut kafka), "metadata send nobody away");
    ensure!(!kafka.fetch(TOPIC, 0, 0)?.0.is_empty(), "nothing can be read");
    Ok(())
}

/// Fails unless this report of a switchover is of one that is done.
pub fn promoted(report: &Value) -> Result<()> {
    ensure!(report["promoted"] == true && report["step"] == "done", "{report}");
    let ends = report["topics"][0]["ends"].as_array().context("no ends")?;
    ensure!(
        report["topics"][0]["topic"] == TOPIC && ends.len() == PARTITIONS as usize,
        "{report}"
    );
    ensure!(report["without_writes_ms"].as_i64() >= Some(0), "{report}");
    Ok(())
}
