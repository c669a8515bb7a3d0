//! A cluster was down as a whole, and another one may have taken its topics over meanwhile. Nothing is acknowledged before
//! that one was heard, or an operator has said so; daemons that are restarted one by one are never held up.

use std::fs;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tradewind_tests::kafka::Refused;
use tradewind_tests::relay::Relay;
use tradewind_tests::{Cluster, Daemon, Kafka, MachineClock, Mesh, Naming, load, program, wait};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::create_partitions::CreatePartitionsTopic;
use tradewind_wire::messages::delete_topics::DeleteTopicState;
use tradewind_wire::messages::{CreatePartitionsRequest, DeleteTopicsRequest};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;

/// How often each partition is written to in vain.
const ATTEMPTS: u64 = 5;

/// One batch that every copy in sync is to have.
fn append(kafka: &mut Kafka, partition: i32) -> Result<i64> {
    kafka.append(TOPIC, partition, load::numbered_batch(Codec::None, None, 0, 0)?)
}

/// Each partition takes a batch, sooner or later.
fn takes_writes(cluster: &Cluster) -> Result<()> {
    let mut kafka = cluster.kafka();
    for partition in 0..PARTITIONS {
        wait::until("a batch is acknowledged", 30, || {
            append(&mut kafka, partition).map(Some)
        })?;
    }
    Ok(())
}

/// Every partition's leader refuses, with words about the guard, several times; nothing is acknowledged meanwhile.
fn refuses_writes(cluster: &Cluster) -> Result<()> {
    let mut kafka = cluster.kafka();
    for partition in 0..PARTITIONS {
        let mut refusals = 0;
        wait::until("its leader refuses", 30, || {
            let refused = match append(&mut kafka, partition) {
                Ok(at) => return Ok(Some(Err(at))),
                Err(refused) => refused,
            };
            let code = refused.downcast_ref::<Refused>().map(|refused| refused.0);
            let guarded = format!("{refused:#}").contains("read-only since this cluster started");
            // Before there is a leader others refuse, in other words.
            refusals += u64::from(guarded && code == Some(ErrorCode::NotLeaderOrFollower));
            Ok((refusals >= ATTEMPTS).then_some(Ok(())))
        })?
        .map_err(|at| anyhow::anyhow!("partition {partition} took a batch at {at}"))?;
    }
    refuses_changes(cluster)
}

/// The topic is neither deleted nor grown: the other side may have it as it is.
fn refuses_changes(cluster: &Cluster) -> Result<()> {
    let mut kafka = cluster.kafka();
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some(TOPIC.into()),
            ..Default::default()
        }],
        timeout_ms: 5_000,
        ..Default::default()
    };
    let deleted = kafka.any(&delete, 6)?.responses;
    let grow = CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: TOPIC.into(),
            count: PARTITIONS + 1,
            ..Default::default()
        }],
        timeout_ms: 5_000,
        ..Default::default()
    };
    let grown = kafka.any(&grow, 3)?.results;
    let codes = deleted.iter().map(|result| result.error_code);
    let codes: Vec<i16> = codes
        .chain(grown.iter().map(|result| result.error_code))
        .collect();
    ensure!(
        codes == [ErrorCode::PolicyViolation.code(); 2],
        "{deleted:?} {grown:?}"
    );
    Ok(())
}

/// Where each partition ends.
fn ends(cluster: &Cluster) -> Result<Vec<i64>> {
    let mut kafka = cluster.kafka();
    let mut end = |partition| {
        wait::until("its leader says where it ends", 30, || {
            kafka.end(TOPIC, partition).map(Some)
        })
    };
    (0..PARTITIONS).map(&mut end).collect()
}

/// What a daemon says of its guard.
fn guard(daemon: &Daemon) -> Result<Value> {
    let lines = program::json(&["mirror", "guard", "--url", &daemon.url()])?;
    lines.get(0).cloned().context("no line")
}

/// The east knows that the west copies from it.
fn wait_known(mesh: &Mesh) -> Result<()> {
    wait::until("the east knows what the west copies", 30, || {
        let line = guard(&mesh.east.daemons[0])?;
        ensure!(line["copies"] == true && line["heard_ms_ago"].is_u64(), "{line}");
        Ok(Some(()))
    })
}

/// Two clusters and a topic that the west copies, which the east knows.
fn copied(folder: &std::path::Path, daemons: i32) -> Result<(Mesh, Vec<Relay>)> {
    let (mesh, relays) = Mesh::start_parted(folder, daemons)?;
    mesh.east.kafka().create_topic(
        TOPIC,
        PARTITIONS,
        &[("min.insync.replicas", &daemons.min(2).to_string())],
    )?;
    takes_writes(&mesh.east)?;
    mesh.wait_mirrored(1, 60)?;
    wait_known(&mesh)?;
    Ok((mesh, relays))
}

/// Every daemon of the east says that its topic is held, everywhere where one looks.
fn all_wait(east: &Cluster) -> Result<()> {
    for daemon in &east.daemons {
        let line = guard(daemon)?;
        ensure!(
            line["state"] == "waiting" && line["guarded"] == 1 && line["topics"][0] == TOPIC,
            "{line}"
        );
        ensure!(daemon.metric("tradewind_guarded_topics{peer=\"west\"}")? == Some(1.0));
        let log = fs::read_to_string(daemon.folder.join("log"))?;
        ensure!(
            log.contains("tradewind mirror unguard --accept-two-sides"),
            "{log}"
        );
    }
    let told = program::run(&["status", "--url", &east.daemons[0].url()])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("read-only since this start, until west"), "{told}");
    let told = program::run(&["mirror", "status", "--url", &east.daemons[0].url()])?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    ensure!(told.contains("read-only since this start, until west"), "{told}");
    Ok(())
}

/// Heals the line. A client goes on trying, from before that until the east has given way, and always in vain.
fn gives_way(mesh: &Mesh, relays: &[Relay]) -> Result<()> {
    let writer = thread::spawn({
        let mut kafka = mesh.east.kafka();
        let stop = mesh.west.daemons[0].url();
        move || -> Result<u64> {
            for attempt in 0.. {
                if append(&mut kafka, attempt % PARTITIONS).is_ok() {
                    bail!("attempt {attempt} was acknowledged");
                }
                let flows = program::json(&["mirror", "status", "--url", &stop])?;
                if flows[0]["failback"]["step"] == "gave-way" {
                    return Ok(attempt as u64);
                }
            }
            Ok(0)
        }
    });
    relays.iter().for_each(Relay::heal);
    let healed = MachineClock::default();
    let attempts = writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    println!(
        "gave way {:?} after the line was whole, {attempts} attempts in vain",
        healed.monotonic()
    );
    Ok(())
}

#[test]
fn a_primary_that_was_down_as_a_whole_takes_nothing_before_it_gives_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut mesh, relays) = copied(folder.path(), 3)?;
    mesh.east.kill_all();
    mesh.fail_over()?;
    relays.iter().for_each(Relay::cut);
    mesh.east.start_all()?;
    refuses_writes(&mesh.east)?;
    all_wait(&mesh.east)?;
    let before = ends(&mesh.east)?;
    gives_way(&mesh, &relays)?;
    wait::until("the guard is off once the fence is there", 30, || {
        let line = guard(&mesh.east.daemons[2])?;
        ensure!(line["state"] == "off", "{line}");
        Ok(Some(()))
    })?;
    let mut kafka = mesh.east.kafka();
    ensure!(
        append(&mut kafka, 0).is_err(),
        "it took a batch after it gave way"
    );
    ensure!(ends(&mesh.east)? == before, "something was written");
    Ok(())
}

/// What had moved there and back has a region epoch. A target that was built anew since begins at zero.
#[test]
fn a_target_that_was_built_anew_takes_over_above_the_number_of_its_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut mesh, relays) = copied(folder.path(), 1)?;
    mesh.west.ask(&["switchover", "east->west"])?;
    wait::until("the flow back runs", 60, || {
        let flows = mesh.east.ask(&["mirror", "status"])?;
        ensure!(flows[0]["state"] == "active", "{flows}");
        Ok(Some(()))
    })?;
    mesh.east.ask(&["switchover", "west->east"])?;
    takes_writes(&mesh.east)?;
    let lost = guard(&mesh.east.daemons[0])?["copied_by"].clone();
    ensure!(lost.is_string(), "the west did not say which cluster it is");
    mesh.west.kill_all();
    for daemon in &mesh.west.daemons {
        fs::remove_dir_all(daemon.folder.join("data"))?;
    }
    mesh.west.start_all()?;
    mesh.wait_mirrored(1, 60)?;
    wait::until("the east knows the new west", 30, || {
        let line = guard(&mesh.east.daemons[0])?;
        ensure!(
            line["copied_by"].is_string() && line["copied_by"] != lost,
            "{line}"
        );
        Ok(Some(()))
    })?;
    // A source is not held up by the number that a target has lost, nor the other way round.
    mesh.east.kill_all();
    mesh.east.start_all()?;
    takes_writes(&mesh.east)?;
    mesh.wait_mirrored(1, 60)?;
    mesh.east.kill_all();
    mesh.fail_over()?;
    relays.iter().for_each(Relay::cut);
    mesh.east.start_all()?;
    refuses_writes(&mesh.east)?;
    let before = ends(&mesh.east)?;
    gives_way(&mesh, &relays)?;
    ensure!(append(&mut mesh.east.kafka(), 0).is_err(), "it took a batch");
    ensure!(ends(&mesh.east)? == before, "something was written");
    Ok(())
}

#[test]
fn without_a_failover_it_takes_writes_when_the_line_is_back_and_a_rolling_restart_needs_no_line() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let (mut mesh, relays) = copied(folder.path(), 3)?;
    relays.iter().for_each(Relay::cut);
    for id in 1..=3 {
        let daemon = mesh.east.daemon(id)?;
        daemon.terminate()?;
        daemon.start()?;
        daemon.wait_ready()?;
        let line = guard(daemon)?;
        ensure!(line["state"] == "off", "{line}");
        let by = line["opened_by"].as_str().unwrap_or_default();
        ensure!(
            by.starts_with("daemon ") && by.ends_with("which ran before"),
            "{line}"
        );
        let log = fs::read_to_string(daemon.folder.join("log"))?;
        ensure!(!log.contains("topics are read-only"), "{log}");
        takes_writes(&mesh.east)?;
    }
    mesh.east.kill_all();
    mesh.east.start_all()?;
    refuses_writes(&mesh.east)?;
    all_wait(&mesh.east)?;
    relays.iter().for_each(Relay::heal);
    let healed = MachineClock::default();
    takes_writes(&mesh.east)?;
    println!(
        "all partitions written {:?} after the line was whole",
        healed.monotonic()
    );
    Ok(())
}

#[test]
fn an_operator_may_do_without_the_word_and_the_next_start_asks_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start(folder.path(), 1, Naming::Identity)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &[])?;
    takes_writes(&mesh.east)?;
    mesh.wait_mirrored(1, 60)?;
    wait_known(&mesh)?;
    mesh.west.kill_all();
    let again = |mesh: &mut Mesh| -> Result<()> {
        mesh.east.kill_all();
        mesh.east.start_all()
    };
    again(&mut mesh)?;
    refuses_writes(&mesh.east)?;
    let url = mesh.east.daemons[0].url();
    let careless = program::run(&["mirror", "unguard", "--url", &url])?;
    ensure!(careless.status.code() == Some(2), "{careless:?}");
    refuses_writes(&mesh.east)?;
    let said = [
        "mirror",
        "unguard",
        "--accept-two-sides",
        "--reason",
        "west is gone",
    ];
    let done = mesh.east.ask(&said)?;
    ensure!(done["waited_for"][0] == "west", "{done}");
    takes_writes(&mesh.east)?;
    let line = guard(&mesh.east.daemons[0])?;
    ensure!(
        line["opened_by"] == "an operator" && line["overridden"]["reason"] == "west is gone",
        "{line}"
    );
    let done = mesh.east.ask(&said)?;
    ensure!(done["waited_for"].as_array().is_some_and(Vec::is_empty), "{done}");
    // The entry is in the log for good, its meaning is not.
    again(&mut mesh)?;
    refuses_writes(&mesh.east)?;
    // It is the last table of the file.
    mesh.configure_east("boot_guard = false\n")?;
    again(&mut mesh)?;
    takes_writes(&mesh.east)?;
    let line = guard(&mesh.east.daemons[0])?;
    ensure!(line["state"] == "not wanted" && line["guarded"] == 0, "{line}");
    Ok(())
}
