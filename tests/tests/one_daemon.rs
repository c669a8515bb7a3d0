//! One daemon on its own: it starts, keeps what it is given, and comes back from a crash and from SIGTERM.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context, Result, ensure};
use tradewind_tests::load::{self, Load};
use tradewind_tests::{Cluster, ClusterSpec, program, wait};
use tradewind_wire::compression::Codec;

const TOPIC: &str = "notes";

/// A started daemon with two partitions that hold some records.
fn written(folder: &std::path::Path, codec: Codec) -> Result<(Cluster, Vec<load::Written>)> {
    let cluster = Cluster::start(folder, &ClusterSpec::new("east", 1))?;
    cluster.kafka().create_topic(TOPIC, 2, &[])?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 2, codec);
    wait::until_true("records are written", 30, || Ok(load.batches() >= 100))?;
    let written = load.stop()?;
    Ok((cluster, written))
}

fn all_there(cluster: &Cluster, written: &[load::Written]) -> Result<()> {
    written
        .iter()
        .try_for_each(|partition| load::check(&mut cluster.kafka(), TOPIC, partition))
}

#[test]
fn sigterm_ends_it_well_and_everything_is_there_after_a_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, written) = written(folder.path(), Codec::Gzip)?;
    let status = cluster.daemons[0].terminate()?;
    ensure!(
        status.code() == Some(0),
        "{status}:\n{}",
        cluster.daemons[0].log_tail()
    );
    cluster.start_all()?;
    all_there(&cluster, &written)
}

#[test]
fn sigkill_loses_nothing_that_was_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, written) = written(folder.path(), Codec::Snappy)?;
    cluster.kill_all();
    cluster.start_all()?;
    all_there(&cluster, &written)
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, written) = written(folder.path(), Codec::None)?;
    let topics = cluster.daemons[0].folder.join("data/topics");
    cluster.kill_all();
    // Half a batch at the end of each log, as a power cut leaves it.
    let mut torn = 0;
    for topic in fs::read_dir(&topics)?.flatten() {
        for partition in fs::read_dir(topic.path())?.flatten() {
            let segments = fs::read_dir(partition.path())?
                .flatten()
                .map(|entry| entry.path());
            let Some(last) = segments
                .filter(|p| p.extension().is_some_and(|e| e == "log"))
                .max()
            else {
                continue;
            };
            let whole = fs::read(&last)?;
            let piece = &whole[..whole.len().min(90)];
            File::options().append(true).open(&last)?.write_all(piece)?;
            torn += usize::from(!piece.is_empty());
        }
    }
    ensure!(torn >= 2, "only {torn} logs were torn");
    cluster.start_all()?;
    all_there(&cluster, &written)
}

#[test]
fn another_process_on_the_same_data_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let file = cluster.daemons[0].folder.join("tradewind.toml");
    let [kafka, mesh, http] = [(); 3].map(|()| tradewind_tests::ports::free().to_string());
    let second = program::run(&[
        "start",
        "--config",
        file.to_str().context("UTF-8")?,
        "--set",
        &format!("mesh.listen={mesh}"),
        "--set",
        &format!("http.listen={http}"),
        "--set",
        &format!("kafka.listener=[{{listen=\"{kafka}\"}}]"),
    ])?;
    let said = String::from_utf8_lossy(&second.stderr);
    ensure!(!second.status.success(), "two daemons on one folder");
    ensure!(
        said.contains("data"),
        "the message does not name the folder: {said}"
    );
    Ok(())
}

#[test]
fn the_command_line_writes_and_reads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let at = cluster.bootstrap();
    program::stdout(&[
        "topic",
        "create",
        "orders",
        "--partitions",
        "2",
        "--bootstrap",
        &at,
    ])?;
    let topics = program::json(&["topic", "list", "--bootstrap", &at])?;
    ensure!(topics.to_string().contains("orders"), "{topics}");
    let status = cluster.ask(&["status"])?;
    ensure!(status["cluster"] == "east", "{status}");
    Ok(())
}
