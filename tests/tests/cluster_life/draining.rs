//! `tradewind cluster drain`, `undrain`, `rebalance` and `status` on a cluster under load.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_client::admin::NewTopic;
use tradewind_tests::load::ensure_sound;
use tradewind_tests::{Cluster, ClusterSpec, program};

use crate::clients::{self, Clients};

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 4;

/// A cluster whose topic has its replicas on these daemons, and clients at work.
fn loaded(folder: &std::path::Path, daemons: i32, replicas: &[i32]) -> Result<(Cluster, Clients)> {
    let cluster = Cluster::start(folder, &ClusterSpec::new("east", daemons))?;
    let min_isr = (replicas.len() - 1).to_string();
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        assignment: (0..PARTITIONS).map(|_| replicas.to_vec()).collect(),
        configs: [("min.insync.replicas".to_owned(), min_isr)].into(),
        ..NewTopic::default()
    };
    let admin = clients::client(&cluster.bootstrap());
    tokio::runtime::Runtime::new()?.block_on(admin.create_topic(&topic))?;
    let mut clients = Clients::start(&cluster.bootstrap(), cluster.kafka(), TOPIC, PARTITIONS)?;
    clients.get_on(50)?;
    Ok((cluster, clients))
}

/// `tradewind cluster ARGS`, asked of the first daemon: whether it succeeded, and what it said.
fn cluster_command(cluster: &Cluster, args: &[&str]) -> Result<(bool, String)> {
    let url = cluster.daemons[0].url();
    let output = program::run(&[&["cluster"], args, &["--url", &url]].concat())?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.success(), said))
}

/// As [`cluster_command`], which must succeed.
fn done(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let (good, said) = cluster_command(cluster, args)?;
    ensure!(good, "cluster {}: {said}", args.join(" "));
    Ok(())
}

/// As [`cluster_command`], which must be refused with these words, with no replica moved and no daemon drained.
fn refused(cluster: &Cluster, args: &[&str], words: &str) -> Result<()> {
    let before = daemons(cluster)?;
    let (good, said) = cluster_command(cluster, args)?;
    ensure!(
        !good && said.contains(words),
        "cluster {}: {said}",
        args.join(" ")
    );
    let shown = |all: &[Value]| -> Vec<Value> {
        let of = |one: &Value| serde_json::json!([one["replicas"], one["drained"]]);
        all.iter().map(of).collect()
    };
    let after = daemons(cluster)?;
    ensure!(shown(&before) == shown(&after), "{before:?} became {after:?}");
    Ok(())
}

/// The daemons as `cluster status` has them when all is well.
fn daemons(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = cluster.ask(&["cluster", "status", "--wait", "30s"])?;
    Ok(status["daemons"].as_array().context("daemons")?.clone())
}

fn number(daemons: &[Value], id: usize, what: &str) -> i64 {
    daemons[id - 1][what].as_i64().unwrap_or(-1)
}

#[test]
fn a_drained_daemon_leads_nothing_even_after_its_restart_and_no_second_one_can_be_drained() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut cluster, mut clients) = loaded(folder.path(), 3, &[2, 1, 3])?;
    ensure!(number(&daemons(&cluster)?, 2, "leaders") >= PARTITIONS.into());
    done(&cluster, &["drain", "2"])?;
    let drained = daemons(&cluster)?;
    ensure!(number(&drained, 2, "leaders") == 0, "{drained:?}");
    ensure!(number(&drained, 2, "out_of_sync") == 0, "{drained:?}");
    clients.get_on(50)?;
    let daemon = cluster.daemon(2)?;
    ensure!(daemon.terminate()?.success());
    daemon.start()?;
    daemon.wait_ready()?;
    let back = daemons(&cluster)?;
    ensure!(number(&back, 2, "leaders") == 0, "{back:?}");
    clients.get_on(50)?;
    refused(&cluster, &["drain", "1"], "cannot do without daemon 1")?;
    refused(&cluster, &["drain", "7"], "there is no daemon 7")?;
    // The groups' positions have three replicas, and two daemons would be left.
    refused(
        &cluster,
        &["drain", "3", "--replicas"],
        "no other daemon can take",
    )?;
    done(&cluster, &["undrain", "2"])?;
    let admin = clients::client(&cluster.bootstrap());
    let preferred = admin.elect_leaders(tradewind_client::admin::Election::Preferred, None);
    tokio::runtime::Runtime::new()?.block_on(preferred)?;
    ensure!(number(&daemons(&cluster)?, 2, "leaders") >= PARTITIONS.into());
    clients.get_on(50)?;
    ensure_sound(&clients.end()?)
}

#[test]
fn replicas_are_spread_over_all_daemons_and_taken_away_from_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (cluster, mut clients) = loaded(folder.path(), 4, &[1, 2])?;
    let before = daemons(&cluster)?;
    done(&cluster, &["rebalance"])?;
    let planned = daemons(&cluster)?;
    ensure!(
        (1..=4).all(|id| number(&before, id, "replicas") == number(&planned, id, "replicas")),
        "a plan has moved something: {planned:?}"
    );
    done(&cluster, &["rebalance", "--execute"])?;
    let even = daemons(&cluster)?;
    for what in ["replicas", "leaders"] {
        let of: Vec<i64> = (1..=4).map(|id| number(&even, id, what)).collect();
        let (least, most) = (of.iter().min(), of.iter().max());
        ensure!(
            most.zip(least).is_some_and(|(most, least)| most - least <= 1),
            "{what}: {of:?}"
        );
    }
    clients.get_on(50)?;
    done(&cluster, &["drain", "4", "--replicas"])?;
    let empty = daemons(&cluster)?;
    ensure!(number(&empty, 4, "replicas") == 0, "{empty:?}");
    ensure!(empty[3]["drained"] == true, "{empty:?}");
    refused(&cluster, &["rebalance", "--execute"], "daemon 4 is drained")?;
    refused(
        &cluster,
        &["drain", "3", "--replicas"],
        "no other daemon can take",
    )?;
    clients.get_on(50)?;
    ensure_sound(&clients.end()?)
}
