//! A region moves and moves back under load, and loses nothing: every acknowledged record is there once, in order, and no
//! group reads again what it had committed. Daemons are killed in the middle; the source is never left writable beside the
//! target.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tradewind_tests::kafka::Refused;
use tradewind_tests::{Cluster, Kafka, Mesh, Naming, load, program, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::MetadataRequest;
use tradewind_wire::messages::metadata::MetadataRequestTopic;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: i32 = 2;
const FLOW: &str = "east->west";
const BACK: &str = "west->east";
/// What a client rests after each request: the logs are to stay small.
const REST: Duration = Duration::from_millis(5);

/// Clients that go to the other cluster when theirs refuses them: an idempotent writer per partition and a group.
struct Clients {
    stop: Arc<AtomicBool>,
    batches: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<u64>>>,
    reader: JoinHandle<Result<()>>,
}

impl Clients {
    fn start(mesh: &Mesh) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (batches, commits) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sides = || [mesh.east.kafka(), mesh.west.kafka()];
        let writers = (0..PARTITIONS).map(|partition| {
            let (sides, stop, batches) = (sides(), stop.clone(), batches.clone());
            thread::spawn(move || write(sides, partition, &stop, &batches))
        });
        let writers = writers.collect();
        let (both, stopped, counted) = (sides(), stop.clone(), commits.clone());
        Self {
            writers,
            reader: thread::spawn(move || {
                read(both, &stopped, &counted).inspect_err(|error| eprintln!("{error:#}"))
            }),
            stop,
            batches,
            commits,
        }
    }

    /// Waits until so many more batches are written and positions committed.
    fn go_on(&self, batches: u64) -> Result<()> {
        let (written, committed) = (
            self.batches.load(Ordering::Relaxed),
            self.commits.load(Ordering::Relaxed),
        );
        wait::until_true("clients go on", 60, || {
            ensure!(!self.reader.is_finished(), "the group has failed");
            ensure!(
                !self.writers.iter().any(JoinHandle::is_finished),
                "a writer gave up"
            );
            Ok(self.batches.load(Ordering::Relaxed) >= written + batches
                && self.commits.load(Ordering::Relaxed) > committed + 2)
        })
    }

    /// Ends them; answers how many records of each partition were acknowledged.
    fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |thread: JoinHandle<Result<u64>>| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a writer panicked"),
        };
        let written = self.writers.into_iter().map(ended).collect();
        match self.reader.join() {
            Ok(result) => result?,
            Err(_) => bail!("the group panicked"),
        }
        written
    }
}

/// Repeats each batch, here or there, until one of the clusters acknowledges it.
fn write(mut sides: [Kafka; 2], partition: i32, stop: &AtomicBool, batches: &AtomicU64) -> Result<u64> {
    let id = wait::until("a producer id", 30, || Ok(Some(sides[0].producer_id()?)))?;
    let (mut at, mut written) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let batch = load::numbered_batch(Codec::Lz4, Some(id), 0, written)?;
        wait::until("a batch is acknowledged", 90, || {
            let answer = sides[at].append(TOPIC, partition, batch.clone());
            if answer.is_err() {
                at = 1 - at;
            }
            answer.map(Some)
        })?;
        written += load::BATCH;
        batches.fetch_add(1, Ordering::Relaxed);
        wait::pace(REST);
    }
    Ok(written)
}

/// Reads and commits; at the other cluster from the position that is committed there, which must never be below the last
/// one that was acknowledged.
fn read(mut sides: [Kafka; 2], stop: &AtomicBool, commits: &AtomicU64) -> Result<()> {
    let mut acknowledged = vec![0; PARTITIONS as usize];
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        // As clients do: only metadata send them to the other cluster. Whoever went there after any error would find
        // positions that still lag.
        if told_to_leave(&mut sides[at]) {
            at = 1 - at;
        }
        let Ok(from) = sides[at].committed(GROUP, TOPIC, PARTITIONS) else {
            wait::pace(REST);
            continue;
        };
        let mut next = Vec::new();
        for (partition, (&from, last)) in (0..).zip(from.iter().zip(&acknowledged)) {
            ensure!(
                from.max(0) >= *last,
                "at side {at} partition {partition} stands at {from}, {last} was acknowledged"
            );
            let end = sides[at].end(TOPIC, partition).unwrap_or_else(|_| from.max(0));
            next.push((partition, end.max(from.max(0))));
        }
        if sides[at].commit(GROUP, TOPIC, &next).is_ok() {
            acknowledged = next.iter().map(|(_, offset)| *offset).collect();
            commits.fetch_add(1, Ordering::Relaxed);
        }
        wait::pace(REST);
    }
    Ok(())
}

/// Two clusters with a flow of one topic that has begun to copy.
fn begin(folder: &std::path::Path, daemons: i32) -> Result<Mesh> {
    let mesh = Mesh::start(folder, daemons, Naming::Identity)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &[])?;
    mesh.wait_mirrored(1, 60)?;
    Ok(mesh)
}

fn wait_active(target: &Cluster, flow: &str) -> Result<()> {
    wait::until("the flow is active", 60, || {
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

fn refusal(error: &anyhow::Error) -> Option<ErrorCode> {
    error.downcast_ref::<Refused>().map(|refused| refused.0)
}

/// Whether metadata say that the topic has moved.
fn told_to_leave(kafka: &mut Kafka) -> bool {
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

/// A cluster that was left: it refuses writes and commits in the words that send clients away, and can be read.
fn has_left(cluster: &Cluster) -> Result<()> {
    let mut kafka = cluster.kafka();
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    let written = kafka.append(TOPIC, 0, batch).err().context("a write is taken")?;
    ensure!(
        refusal(&written) == Some(ErrorCode::NotLeaderOrFollower),
        "{written:#}"
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

/// Each partition holds what was acknowledged, once and in order, and nothing else.
fn holds(cluster: &Cluster, written: &[u64]) -> Result<()> {
    let mut kafka = cluster.kafka();
    for (partition, written) in (0..).zip(written) {
        let log = load::read_log(&mut kafka, TOPIC, partition)?;
        ensure!(
            log.len() as u64 == *written,
            "partition {partition} has {} of {written}",
            log.len()
        );
        for (number, (offset, id)) in (0..).zip(&log) {
            ensure!(
                *offset == number && id.number == number as u64,
                "partition {partition}: record {} at {offset}, expected {number}",
                id.number
            );
        }
    }
    Ok(())
}

fn promoted(report: &Value) -> Result<()> {
    ensure!(report["promoted"] == true && report["step"] == "done", "{report}");
    let ends = report["topics"][0]["ends"].as_array().context("no ends")?;
    ensure!(
        report["topics"][0]["topic"] == TOPIC && ends.len() == PARTITIONS as usize,
        "{report}"
    );
    ensure!(report["without_writes_ms"].as_i64() >= Some(0), "{report}");
    println!("{} ms without writes", report["without_writes_ms"]);
    Ok(())
}

fn back_and_forth(daemons: i32, times: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = begin(folder.path(), daemons)?;
    let clients = Clients::start(&mesh);
    clients.go_on(20)?;
    let all = [(FLOW, &mesh.west, &mesh.east), (BACK, &mesh.east, &mesh.west)];
    for number in 0..times {
        let (flow, target, source) = all[number % 2];
        wait_active(target, flow)?;
        promoted(&target.ask(&["switchover", flow])?)?;
        clients.go_on(20)?;
        has_left(source)?;
        // Said again it says the same and changes nothing.
        promoted(&target.ask(&["switchover", flow])?)?;
    }
    clients.go_on(5)?;
    let written = clients.stop()?;
    let last = all[(times - 1) % 2];
    holds(last.1, &written)?;
    // What was left has become the mirror, to the last record.
    wait::until("the flow back has copied all", 60, || {
        holds(last.2, &written).map(Some)
    })
}

#[test]
fn a_region_of_one_daemon_moves_and_moves_back_under_load() -> Result<()> {
    back_and_forth(1, 3)
}

#[test]
fn a_region_of_three_daemons_moves_under_load() -> Result<()> {
    back_and_forth(3, 2)
}

/// Waits until the switchover of the flow is at one of these steps.
fn wait_step(target: &Cluster, steps: &[&str]) -> Result<String> {
    wait::until("the step is reached", 60, || {
        let status = target.ask(&["mirror", "status"])?;
        let step = status[0]["switchover"]["step"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ensure!(steps.contains(&step.as_str()), "{status}");
        Ok(Some(step))
    })
}

/// Begins a switchover that waits for a group which stands at its beginning, and leaves it at that.
fn begin_and_hold(mesh: &Mesh) -> Result<JoinHandle<Result<std::process::Output>>> {
    mesh.east.kafka().commit("slow", TOPIC, &[(0, 0)])?;
    let url = mesh.west.daemons[0].url();
    let begun = thread::spawn(move || {
        program::run(&[
            "switchover",
            FLOW,
            "--group-drain",
            "4s",
            "--url",
            &url,
            "-o",
            "json",
        ])
    });
    wait_step(&mesh.west, &["draining"])?;
    Ok(begun)
}

#[test]
fn a_daemon_of_either_side_that_is_killed_in_the_middle_only_delays_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = begin(folder.path(), 1)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let begun = begin_and_hold(&mesh)?;
    mesh.west.kill_all();
    // The fence outlives whoever asked for it, and its own daemon.
    mesh.east.kill_all();
    mesh.east.start_all()?;
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    let refused = wait::until("the source answers", 30, || {
        match mesh.east.kafka().append(TOPIC, 0, batch.clone()) {
            Ok(at) => bail!("a fenced topic took a batch at {at}"),
            Err(error) => Ok(refusal(&error)),
        }
    })?;
    ensure!(refused == ErrorCode::NotLeaderOrFollower, "{refused:?}");
    mesh.west.start_all()?;
    promoted(&wait::until("the command goes on", 30, || {
        mesh.west.ask(&["switchover", FLOW]).map(Some)
    })?)?;
    drop(begun.join());
    clients.go_on(10)?;
    has_left(&mesh.east)?;
    let written = clients.stop()?;
    holds(&mesh.west, &written)?;
    wait::until("the flow back has copied all", 60, || {
        holds(&mesh.east, &written).map(Some)
    })
}

#[test]
fn what_is_given_up_leaves_everything_as_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = begin(folder.path(), 1)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let begun = begin_and_hold(&mesh)?;
    let report = mesh.west.ask(&["switchover", FLOW, "--abort"])?;
    ensure!(
        report["promoted"] == false && report["step"] == "aborted",
        "{report}"
    );
    let output = begun.join().ok().context("the command panicked")??;
    ensure!(output.status.code() == Some(1), "{output:?}");
    clients.go_on(10)?;
    let seen = AtomicI64::new(mesh.east.kafka().end(TOPIC, 0)?);
    wait::until_true("clients write in the east again", 30, || {
        Ok(mesh.east.kafka().end(TOPIC, 0)? > seen.load(Ordering::Relaxed))
    })?;
    // And then it is done after all.
    wait_active(&mesh.west, FLOW)?;
    promoted(&mesh.west.ask(&["switchover", FLOW])?)?;
    clients.go_on(10)?;
    holds(&mesh.west, &clients.stop()?)
}

#[test]
fn what_cannot_be_switched_over_is_refused_before_anything_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = begin(folder.path(), 1)?;
    let url = mesh.west.daemons[0].url();
    let refused = |args: &[&str], word: &str| -> Result<()> {
        let output = program::run(&[&["switchover"], args, &["--url", &url]].concat())?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && told.contains(word),
            "{args:?}: {told}"
        );
        Ok(())
    };
    refused(&["north->west"], "no flow")?;
    refused(&[FLOW, "--abort"], "never switched over")?;
    mesh.west.ask(&["mirror", "pause", FLOW])?;
    refused(&[FLOW], "paused")?;
    mesh.west.ask(&["mirror", "resume", FLOW])?;
    mesh.forbid_fences()?;
    mesh.east.kill_all();
    mesh.east.start_all()?;
    wait_active(&mesh.west, FLOW)?;
    refused(&[FLOW], "may_fence")?;
    let status = mesh.status()?;
    ensure!(
        status["state"] == "active" && status["switchover"].is_null(),
        "{status}"
    );
    let batch = load::numbered_batch(Codec::None, None, 7, 0)?;
    wait::until("the east takes writes", 30, || {
        mesh.east.kafka().append(TOPIC, 0, batch.clone()).map(Some)
    })?;
    Ok(())
}
