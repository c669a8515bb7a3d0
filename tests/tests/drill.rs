//! `drill`: a failover is rehearsed while the flow goes on under load. It says what would have come of it, nobody notices, and
//! nothing is left of it, whoever is killed meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_tests::load::{self, Load};
use tradewind_tests::{Cluster, Mesh, Naming, program, wait};
use tradewind_wire::compression::Codec;

const FLOW: &str = "east->west";
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;
/// Small segments: some of them are closed soon.
const CONFIGS: [(&str, &str); 1] = [("segment.bytes", "8000")];

/// Two clusters, a topic that is written to, and a group that stands in it.
fn begin(folder: &Path, daemons: i32) -> Result<(Mesh, Load)> {
    let mesh = Mesh::start(folder, daemons, Naming::Prefix)?;
    mesh.east.kafka().create_topic(TOPIC, PARTITIONS, &CONFIGS)?;
    let load = Load::start(|| mesh.east.kafka(), TOPIC, PARTITIONS, Codec::Lz4);
    wait::until_true("records are written", 60, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= 200)
    })?;
    let positions: Vec<_> = (0..PARTITIONS)
        .map(|partition| (partition, 3 + i64::from(partition)))
        .collect();
    wait::until("the group's position is committed", 30, || {
        mesh.east.kafka().commit("billing", TOPIC, &positions).map(Some)
    })?;
    wait::until("the west knows the group", 60, || {
        let groups = mesh.status()?["groups"].clone();
        ensure!(
            groups["exact"] == PARTITIONS && groups["total"] == PARTITIONS,
            "{groups}"
        );
        Ok(Some(()))
    })?;
    wait::until_true("the west has closed segments", 60, || {
        let mut kafka = mesh.west.kafka();
        let mut ends = (0..PARTITIONS).map(|partition| kafka.end("east.orders", partition));
        ends.try_fold(true, |all, end| Ok(all && end? > 800))
    })?;
    Ok((mesh, load))
}

/// The data directories of a cluster.
fn data(cluster: &Cluster) -> Vec<PathBuf> {
    let folders = cluster.daemons.iter();
    folders.map(|daemon| daemon.folder.join("data")).collect()
}

/// No branch is left, and no file is shared.
fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    for data in data(cluster) {
        ensure!(!data.join("branches").exists(), "{} has branches", data.display());
        single(&data)?;
    }
    Ok(())
}

fn single(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            single(&entry.path())?;
        } else {
            ensure!(meta.nlink() <= 1, "{} is shared", entry.path().display());
        }
    }
    Ok(())
}

/// The topics of a cluster as a client sees them.
fn topics(cluster: &Cluster) -> Result<Value> {
    program::json(&["topic", "list", "--bootstrap", &cluster.bootstrap()])
}

/// The report says that all would have been well, and the partitions of the topic were really looked at.
fn is_well(report: &Value) -> Result<()> {
    ensure!(
        report["passed"] == true && report["failures"] == Value::Array(Vec::new()),
        "{report}"
    );
    let all = report["partitions"].as_array().context("partitions")?;
    let of_topic = |line: &&Value| line["topic"] == "east.orders";
    let mut rehearsed = 0;
    for line in all.iter().filter(of_topic) {
        rehearsed += 1;
        ensure!(
            line["cut"].as_i64() > Some(0) && line["canary"] == line["cut"],
            "{line}"
        );
        ensure!(
            line["stable"] == line["cut"] && line["checksum"]["same"] == true,
            "{line}"
        );
        ensure!(line["linked_bytes"].as_u64() > Some(0), "{line}");
    }
    ensure!(rehearsed == PARTITIONS, "{report}");
    let groups = &report["groups"];
    ensure!(
        groups["exact"] == PARTITIONS && groups["total"] == PARTITIONS && groups["compared"] == PARTITIONS,
        "{groups}"
    );
    for position in report["positions"].as_array().context("positions")? {
        ensure!(position["record"] == position["offset"], "{position}");
        ensure!(
            position["offset"] == 3 + position["partition"].as_i64().unwrap_or(0),
            "{position}"
        );
    }
    ensure!(
        report["rto_ms"].as_f64() > Some(0.0) && report["rpo"]["records"].is_i64(),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_failover_is_rehearsed_under_load_and_nothing_is_left_of_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, load) = begin(folder.path(), 1)?;
    ensure!(mesh.status()?["drill"].is_null(), "a drill before any");
    let before = topics(&mesh.west)?;
    let page = folder.path().join("drill.html");
    let page = page.to_str().context("a path")?;
    let report = mesh.west.ask(&["drill", FLOW, "--html", page])?;
    is_well(&report)?;
    ensure!(fs::read_to_string(page)?.contains("passed"), "no page");
    nothing_is_left(&mesh.west)?;
    ensure!(topics(&mesh.west)? == before, "other topics than before");
    let last = mesh.status()?["drill"].clone();
    ensure!(
        last["verdict"] == "passed" && last["groups"] == serde_json::json!([2, 2]),
        "{last}"
    );
    // The flow has gone on, and what it copied is what the source has.
    let all = report["partitions"].as_array().context("partitions")?;
    let first = all
        .iter()
        .find(|line| line["topic"] == "east.orders" && line["partition"] == 0);
    let cut = first.and_then(|line| line["cut"].as_i64()).context("a cut")?;
    wait::until_true("the flow goes on", 60, || {
        Ok(mesh.west.kafka().end("east.orders", 0)? > cut)
    })?;
    let written = load.stop()?;
    mesh.wait_mirrored(1, 60)?;
    for written in &written {
        load::check(&mut mesh.west.kafka(), "east.orders", written)?;
    }
    let (same, verified) = mesh.verify(&[])?;
    ensure!(same, "{verified}");
    what_cannot_be_is_refused(&mesh)
}

fn what_cannot_be_is_refused(mesh: &Mesh) -> Result<()> {
    let url = mesh.west.daemons[0].url();
    let refused = |args: &[&str], word: &str| -> Result<()> {
        let output = program::run(&[&["drill"], args, &["--url", &url]].concat())?;
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.code() == Some(1) && told.contains(word),
            "{args:?}: {told}"
        );
        nothing_is_left(&mesh.west)
    };
    refused(&["north->west"], "no flow")?;
    refused(&[FLOW, "--topic", "paintings"], "no topic `paintings`")?;
    refused(&[FLOW, "--time-limit", "1h"], "at most 10 minutes")?;
    refused(
        &[FLOW, "--copy-limit", "0"],
        "bytes would have to be copied, 0 are allowed",
    )?;
    ensure!(
        mesh.status()?["drill"]["verdict"] == "failed",
        "it is not remembered"
    );
    mesh.fail_over()?;
    refused(&[FLOW], "failed over")
}

#[test]
fn daemons_that_are_killed_in_the_middle_leave_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut mesh, load) = begin(folder.path(), 3)?;
    is_well(&mesh.west.ask(&["drill", FLOW])?)?;
    let urls: Vec<String> = mesh.west.daemons.iter().map(|daemon| daemon.url()).collect();
    let (stop, drilled) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        // Drills without a pause, asked of whoever answers.
        let drilling = scope.spawn(|| {
            for url in urls.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                let done = program::run(&["drill", FLOW, "--url", url]);
                drilled.fetch_add(
                    u64::from(done.is_ok_and(|output| output.status.success())),
                    Ordering::Relaxed,
                );
            }
        });
        let kill = |cluster: &mut Cluster, id: i32| -> Result<()> {
            let before = drilled.load(Ordering::Relaxed);
            wait::until_true("drills pass", 60, || Ok(drilled.load(Ordering::Relaxed) > before))?;
            let daemon = cluster.daemon(id)?;
            daemon.kill();
            daemon.start()?;
            daemon.wait_ready()
        };
        let killed = [2, 1].into_iter().try_for_each(|id| kill(&mut mesh.west, id));
        stop.store(true, Ordering::Relaxed);
        ensure!(drilling.join().is_ok(), "drilling has panicked");
        killed
    })?;
    // What a crash leaves does not live longer than the next start.
    mesh.west.daemon(1)?.kill();
    let left = mesh.west.daemon(1)?.folder.join("data/branches/left/0");
    fs::create_dir_all(&left)?;
    fs::write(left.join("00000000000000000000.log"), b"left")?;
    mesh.west.daemon(1)?.start()?;
    mesh.west.daemon(1)?.wait_ready()?;
    let written = load.stop()?;
    mesh.wait_mirrored(1, 90)?;
    let report = wait::until("a drill passes again", 60, || {
        mesh.west.ask(&["drill", FLOW]).map(Some)
    })?;
    is_well(&report)?;
    nothing_is_left(&mesh.west)?;
    for written in &written {
        load::check(&mut mesh.west.kafka(), "east.orders", written)?;
    }
    let (same, verified) = mesh.verify(&[])?;
    ensure!(same, "{verified}");
    Ok(())
}
