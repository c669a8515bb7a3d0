//! Daemons come and go for good, under load: one is added and another removed; a dead one is replaced by an empty one.

use anyhow::{Result, ensure};
use serde_json::Value;
use tradewind_tests::load::ensure_sound;
use tradewind_tests::{Cluster, wait};

use crate::commands::{daemons, done, loaded, number, refused};

/// The ids of the daemons that vote.
fn voters(daemons: &[Value]) -> Vec<i64> {
    let votes = |one: &&Value| matches!(one["raft"].as_str(), Some("leader" | "voter"));
    let ids = daemons.iter().filter(votes).filter_map(|one| one["id"].as_i64());
    ids.collect()
}

/// Waits until these vote.
fn vote(cluster: &Cluster, wanted: &[i64]) -> Result<()> {
    wait::until_true("the right daemons vote", 30, || {
        let daemons = daemons(cluster)?;
        ensure!(voters(&daemons) == wanted, "{daemons:?}");
        Ok(true)
    })
}

#[test]
fn a_fourth_daemon_is_added_and_takes_the_place_of_the_first() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, mut clients) = loaded(folder.path(), 3, &[1, 2, 3])?;
    let nowhere = cluster.daemons[0].http.to_string();
    refused(&cluster, &["add", "4", "--mesh", &nowhere], "does not answer at")?;
    cluster.start_another()?;
    let mesh = cluster.daemon(4)?.mesh.to_string();
    refused(
        &cluster,
        &["add", "4", "--mesh", &mesh, "--replace"],
        "daemon 4 is no member",
    )?;
    done(&cluster, &["add", "4", "--mesh", &mesh])?;
    cluster.daemon(4)?.wait_ready()?;
    refused(&cluster, &["remove", "1"], "daemon 1 is in service")?;

    // Asked of a daemon that stays.
    cluster.daemons.rotate_left(1);
    done(&cluster, &["drain", "1", "--replicas"])?;
    let emptied = daemons(&cluster)?;
    ensure!(number(&emptied, 1, "replicas") == 0, "{emptied:?}");
    ensure!(number(&emptied, 4, "replicas") > 0, "{emptied:?}");
    ensure!(cluster.daemon(1)?.terminate()?.success());
    done(&cluster, &["remove", "1"])?;
    vote(&cluster, &[2, 3, 4])?;
    clients.get_on(50)?;
    ensure_sound(&clients.end()?)
}

#[test]
fn a_dead_daemon_is_replaced_by_one_with_an_empty_data_directory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, mut clients) = loaded(folder.path(), 3, &[3, 1, 2])?;
    let lost = cluster.daemon(3)?;
    lost.kill();
    std::fs::remove_dir_all(lost.folder.join("data"))?;
    lost.start()?;
    let mesh = lost.mesh.to_string();
    clients.get_on(50)?;
    let url = cluster.daemons[0].url();
    let add = ["cluster", "add", "3", "--mesh", &mesh, "--url", &url];
    let said = wait::until("the daemon answers", 30, || {
        let output = tradewind_tests::program::run(&add)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(!output.status.success());
        Ok(Some(said).filter(|said| !said.contains("does not answer")))
    })?;
    ensure!(said.contains("is a member with another data directory"), "{said}");
    done(&cluster, &["add", "3", "--mesh", &mesh, "--replace"])?;
    cluster.daemon(3)?.wait_ready()?;
    let whole = daemons(&cluster)?;
    ensure!(
        number(&whole, 3, "out_of_sync") == 0 && number(&whole, 3, "replicas") > 0,
        "{whole:?}"
    );
    vote(&cluster, &[1, 2, 3])?;

    // Its copies and its vote are worth something: without another one, writes go on.
    done(&cluster, &["drain", "1"])?;
    ensure!(cluster.daemon(1)?.terminate()?.success());
    clients.get_on(50)?;
    cluster.start_all()?;
    ensure_sound(&clients.end()?)
}

#[test]
fn a_dead_daemon_is_emptied_and_removed_without_ever_coming_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, mut clients) = loaded(folder.path(), 4, &[2, 1, 3])?;
    cluster.daemon(2)?.kill();
    clients.get_on(50)?;
    refused(&cluster, &["remove", "2"], "daemon 2 holds replicas")?;
    done(&cluster, &["drain", "2", "--replicas"])?;
    done(&cluster, &["remove", "2"])?;
    vote(&cluster, &[1, 3, 4])?;
    let left = daemons(&cluster)?;
    ensure!(left.iter().all(|one| one["out_of_sync"] == 0), "{left:?}");
    // What it had in its hands is worth nothing: it is no member, and nobody takes it for one.
    let back = cluster.daemon(2)?;
    back.start()?;
    clients.get_on(200)?;
    ensure!(daemons(&cluster)?.len() == 3, "it is back");
    ensure_sound(&clients.end()?)
}
