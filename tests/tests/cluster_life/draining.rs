//! `tradewind cluster drain`, `undrain`, `rebalance` and `status` on a cluster under load.

use anyhow::{Result, ensure};
use tradewind_tests::load::ensure_sound;

use crate::clients;
use crate::commands::{PARTITIONS, daemons, done, loaded, number, refused};

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
