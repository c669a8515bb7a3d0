//! What the tests of `tradewind cluster ...` share: a loaded cluster, and its commands, that succeed or are refused.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tradewind_client::admin::NewTopic;
use tradewind_tests::{Cluster, ClusterSpec, program};

use crate::clients::{self, Clients};

pub(crate) const TOPIC: &str = "ledger";
pub(crate) const PARTITIONS: i32 = 4;

/// A cluster whose topic has its replicas on these daemons, and clients at work.
pub(crate) fn loaded(folder: &Path, daemons: i32, replicas: &[i32]) -> Result<(Cluster, Clients)> {
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
pub(crate) fn cluster_command(cluster: &Cluster, args: &[&str]) -> Result<(bool, String)> {
    let url = cluster.daemons[0].url();
    let output = program::run(&[&["cluster"], args, &["--url", &url]].concat())?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.success(), said))
}

/// As [`cluster_command`], which must succeed.
pub(crate) fn done(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let (good, said) = cluster_command(cluster, args)?;
    ensure!(good, "cluster {}: {said}", args.join(" "));
    Ok(())
}

/// As [`cluster_command`], which must be refused with these words, with no replica moved and no daemon drained.
pub(crate) fn refused(cluster: &Cluster, args: &[&str], words: &str) -> Result<()> {
    let before = as_they_are(cluster)?;
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
    let after = as_they_are(cluster)?;
    ensure!(shown(&before) == shown(&after), "{before:?} became {after:?}");
    Ok(())
}

/// The daemons as `cluster status` has them, be all well or not.
fn as_they_are(cluster: &Cluster) -> Result<Vec<Value>> {
    let url = cluster.daemons[0].url();
    let output = program::run(&["cluster", "status", "--url", &url, "-o", "json"])?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    Ok(status["daemons"].as_array().context("daemons")?.clone())
}

/// The daemons as `cluster status` has them when all is well.
pub(crate) fn daemons(cluster: &Cluster) -> Result<Vec<Value>> {
    let status = cluster.ask(&["cluster", "status", "--wait", "30s"])?;
    Ok(status["daemons"].as_array().context("daemons")?.clone())
}

pub(crate) fn number(daemons: &[Value], id: usize, what: &str) -> i64 {
    daemons[id - 1][what].as_i64().unwrap_or(-1)
}
