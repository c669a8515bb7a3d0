//! A region is lost with records that the other side never got, and comes back: it gives way by itself, what it has alone is
//! kept before anything is removed, and it becomes a mirror. Daemons are killed in the middle. Nothing disappears.

use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tradewind_tests::kafka::Refused;
use tradewind_tests::{Cluster, Kafka, MachineClock, Mesh, Naming, load, program, wait};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::MetadataRequest;
use tradewind_wire::messages::metadata::MetadataRequestTopic;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;
const FLOW: &str = "east->west";
const BACK: &str = "west->east";

/// Who wrote a record.
const BEFORE: u32 = 0;
const TAIL: u32 = 1;
const AFTER: u32 = 2;
const HOME: u32 = 3;

/// Writes so many batches into each partition, every one acknowledged by all copies.
fn write(cluster: &Cluster, writer: u32, batches: u64) -> Result<()> {
    let mut kafka = cluster.kafka();
    for partition in 0..PARTITIONS {
        for number in 0..batches {
            let batch = load::numbered_batch(Codec::Lz4, None, writer, number * load::BATCH)?;
            wait::until("a batch is acknowledged", 60, || {
                kafka.append(TOPIC, partition, batch.clone()).map(Some)
            })?;
        }
    }
    Ok(())
}

/// Writer and number of every record, with its offset.
fn read(cluster: &Cluster, topic: &str, partition: i32) -> Result<Vec<(i64, u32, u64)>> {
    let log = load::read_log(&mut cluster.kafka(), topic, partition)?;
    Ok(log.iter().map(|(at, id)| (*at, id.writer, id.number)).collect())
}

/// What these writers wrote into a partition one after the other, from this offset on.
fn written(from: u64, parts: &[(u32, u64)]) -> Vec<(i64, u32, u64)> {
    let all = parts
        .iter()
        .flat_map(|(writer, batches)| (0..batches * load::BATCH).map(|number| (*writer, number)));
    (from as i64..)
        .zip(all)
        .map(|(at, (writer, number))| (at, writer, number))
        .collect()
}

fn commit(cluster: &Cluster, group: &str, offset: u64) -> Result<()> {
    let positions: Vec<_> = (0..PARTITIONS)
        .map(|partition| (partition, offset as i64))
        .collect();
    let mut kafka = cluster.kafka();
    wait::until("a position is committed", 30, || {
        kafka.commit(group, TOPIC, &positions).map(Some)
    })
}

/// Two clusters; the east is lost with a tail of so many batches in each partition that the west never got, and the west has
/// taken over and was written to.
fn lose_the_east(folder: &std::path::Path, daemons: i32, configs: &[(&str, &str)]) -> Result<Mesh> {
    let mut mesh = Mesh::start(folder, daemons, Naming::Identity)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, configs)?;
    write(&mesh.east, BEFORE, 4)?;
    commit(&mesh.east, "billing", 2 * load::BATCH)?;
    mesh.wait_mirrored(1, 60)?;
    mesh.west.ask(&["mirror", "pause", FLOW])?;
    write(&mesh.east, TAIL, 3)?;
    commit(&mesh.east, "billing", 6 * load::BATCH)?;
    commit(&mesh.east, "night", 7 * load::BATCH)?;
    mesh.east.kill_all();
    mesh.fail_over()?;
    write(&mesh.west, AFTER, 2)?;
    Ok(mesh)
}

fn refusal(error: &anyhow::Error) -> Option<ErrorCode> {
    error.downcast_ref::<Refused>().map(|refused| refused.0)
}

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

/// Waits until the west knows that the east has given way: from then on it takes neither writes nor commits.
fn wait_gave_way(mesh: &Mesh) -> Result<()> {
    wait::until("the east gives way", 60, || {
        let status = mesh.status()?;
        ensure!(status["failback"]["step"] == "gave-way", "{status}");
        Ok(Some(()))
    })?;
    let mut kafka = mesh.east.kafka();
    let batch = load::numbered_batch(Codec::None, None, 9, 0)?;
    let refused = match kafka.append(TOPIC, 0, batch) {
        Ok(at) => bail!("the returned primary took a batch at {at}"),
        Err(error) => error,
    };
    ensure!(
        refusal(&refused) == Some(ErrorCode::NotLeaderOrFollower),
        "{refused:#}"
    );
    let refused = wait::until("the coordinator has loaded", 30, || {
        let refused = kafka.commit("billing", TOPIC, &[(0, 1)]).err();
        let loading = refused.as_ref().and_then(refusal) == Some(ErrorCode::CoordinatorLoadInProgress);
        Ok((!loading).then_some(refused))
    })?;
    let refused = refused.context("a commit is taken")?;
    ensure!(
        refusal(&refused) == Some(ErrorCode::CoordinatorNotAvailable),
        "{refused:#}"
    );
    ensure!(told_to_leave(&mut kafka), "metadata send nobody away");
    Ok(())
}

/// The report names each tail, and the rescue topic has it at the same offsets; its name.
fn tails_are_kept(mesh: &Mesh, report: &Value) -> Result<String> {
    ensure!(report["step"] == "done" && report["ended"] == true, "{report}");
    let topic = &report["topics"][0];
    ensure!(topic["topic"] == TOPIC, "{report}");
    let rescue = topic["rescue"].as_str().context("no rescue topic")?;
    for partition in 0..PARTITIONS {
        let kept = &topic["partitions"][partition as usize];
        ensure!(
            kept["cut"] == 4 * load::BATCH
                && kept["end"] == 7 * load::BATCH
                && kept["records"] == 3 * load::BATCH,
            "{report}"
        );
        let tail = read(&mesh.east, rescue, partition)?;
        ensure!(
            tail == written(4 * load::BATCH, &[(TAIL, 3)]),
            "partition {partition} of {rescue} has {tail:?}"
        );
    }
    for (group, before) in [("billing", 6), ("night", 7)] {
        let lowered = report["groups"].as_array().context("no groups")?;
        let lowered: Vec<_> = lowered
            .iter()
            .filter(|lowered| lowered["group"] == group)
            .collect();
        let right = |lowered: &&&Value| {
            lowered["before"] == before * load::BATCH && lowered["after"] == 4 * load::BATCH
        };
        ensure!(
            lowered.iter().filter(right).count() == PARTITIONS as usize,
            "{group}: {report}"
        );
    }
    let batch = load::numbered_batch(Codec::None, None, 9, 0)?;
    ensure!(
        mesh.east.kafka().append(rescue, 0, batch).is_err(),
        "a client wrote to {rescue}"
    );
    Ok(rescue.to_owned())
}

/// The cluster has what was written before the loss and after the failover, and nothing else.
fn holds(cluster: &Cluster, more: &[(u32, u64)]) -> Result<()> {
    let parts = [&[(BEFORE, 4), (AFTER, 2)], more].concat();
    for partition in 0..PARTITIONS {
        let log = read(cluster, TOPIC, partition)?;
        ensure!(
            log == written(0, &parts),
            "partition {partition} of {} has {log:?}",
            cluster.name
        );
    }
    Ok(())
}

#[test]
fn a_lost_region_comes_back_with_its_tail_kept_and_takes_over_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = lose_the_east(folder.path(), 1, &[])?;
    mesh.east.start_all()?;
    let ready = MachineClock::default();
    wait_gave_way(&mesh)?;
    println!("gave way {:?} after it was ready", ready.monotonic());
    // Nothing is removed before somebody asks for it.
    ensure!(read(&mesh.east, TOPIC, 0)? == written(0, &[(BEFORE, 4), (TAIL, 3)]));
    let report = mesh.west.ask(&["failback", FLOW])?;
    println!(
        "fenced {} ms after it was told; back in {} ms",
        report["gave_way_took_ms"], report["took_ms"]
    );
    let rescue = tails_are_kept(&mesh, &report)?;
    wait::until("the flow back has copied all", 60, || {
        holds(&mesh.east, &[]).map(Some)
    })?;
    // The group that the west knows stands where it stands there; the other one at the cut.
    let stands = |group: &str, at: u64| -> Result<()> {
        wait::until("the group stands", 30, || {
            let committed = mesh.east.kafka().committed(group, TOPIC, PARTITIONS)?;
            ensure!(
                committed == vec![at as i64; PARTITIONS as usize],
                "{group}: {committed:?}"
            );
            Ok(Some(()))
        })
    };
    stands("billing", 2 * load::BATCH)?;
    stands("night", 4 * load::BATCH)?;
    // Said again it says the same and changes nothing.
    let again = mesh.west.ask(&["failback", FLOW])?;
    ensure!(again == report, "{again} is not {report}");
    // And home.
    wait::until("the flow back is active", 60, || {
        let home = mesh.east.ask(&["switchover", BACK])?;
        ensure!(home["promoted"] == true, "{home}");
        Ok(Some(()))
    })?;
    write(&mesh.east, HOME, 1)?;
    holds(&mesh.east, &[(HOME, 1)])?;
    wait::until("the west has copied all", 60, || {
        holds(&mesh.west, &[(HOME, 1)]).map(Some)
    })?;
    mesh.east.ask(&["topic", "delete", &rescue, "--yes"]).ok();
    Ok(())
}

#[test]
fn daemons_that_are_killed_in_the_middle_only_delay_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // With every copy needed, one that is away holds the rescue up.
    let mut mesh = lose_the_east(folder.path(), 3, &[("min.insync.replicas", "3")])?;
    mesh.east.start_all()?;
    wait_gave_way(&mesh)?;
    mesh.east.daemon(3)?.kill();
    let url = mesh.west.daemons[0].url();
    let begun = thread::spawn(move || program::run(&["failback", FLOW, "--url", &url, "-o", "json"]));
    wait::until("it begins", 60, || {
        let status = mesh.status()?;
        ensure!(status["failback"]["step"] == "rescuing", "{status}");
        Ok(Some(()))
    })?;
    // Nothing of the tail may go before all of it is kept.
    ensure!(read(&mesh.east, TOPIC, 1)? == written(0, &[(BEFORE, 4), (TAIL, 3)]));
    mesh.west.daemon(1)?.kill();
    mesh.east.kill_all();
    mesh.east.start_all()?;
    mesh.west.start_all()?;
    let report = wait::until("the command goes on", 60, || {
        mesh.west.ask(&["failback", FLOW]).map(Some)
    })?;
    drop(begun.join());
    tails_are_kept(&mesh, &report)?;
    wait::until("the flow back has copied all", 60, || {
        holds(&mesh.east, &[]).map(Some)
    })
}

#[test]
fn what_cannot_come_back_is_refused_and_a_grant_that_comes_late_is_enough() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start(folder.path(), 1, Naming::Identity)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &[])?;
    write(&mesh.east, BEFORE, 1)?;
    mesh.wait_mirrored(1, 60)?;
    let url = mesh.west.daemons[0].url();
    let refused = |flow: &str, word: &str| -> Result<()> {
        let output = program::run(&["failback", flow, "--url", &url])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && told.contains(word), "{flow}: {told}");
        Ok(())
    };
    refused("north->west", "no flow")?;
    refused(FLOW, "not failed over")?;
    mesh.forbid_fences()?;
    mesh.east.kill_all();
    mesh.fail_over()?;
    mesh.east.start_all()?;
    refused(FLOW, "may_fence")?;
    let batch = load::numbered_batch(Codec::None, None, 9, 0)?;
    wait::until("who grants nothing is not fenced", 30, || {
        mesh.east.kafka().append(TOPIC, 0, batch.clone()).map(Some)
    })?;
    mesh.east.kill_all();
    mesh.configure_east("")?;
    mesh.east.start_all()?;
    wait_gave_way(&mesh)
}
