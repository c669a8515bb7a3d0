//! What gauges say: of a flow while it copies, of its drill, when its source is gone; of a cluster that lacks a daemon.

use anyhow::Result;
use tradewind_tests::{Cluster, ClusterSpec, Mesh, Naming, load, wait};
use tradewind_wire::compression::Codec;

#[test]
fn the_gauges_of_a_flow_follow_its_lag_and_its_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start(folder.path(), 1, Naming::Prefix)?;
    let mut east = mesh.east.kafka();
    east.create_topic("orders", 2, &[])?;
    east.append("orders", 0, load::numbered_batch(Codec::Zstd, None, 0, 0)?)?;
    mesh.wait_mirrored(1, 60)?;
    let measured = |mesh: &Mesh, name: &str, more: &str| {
        let name = format!("tradewind_mirror_{name}{{flow=\"east->west\"{more}}}");
        mesh.west.daemons[0].metric(&name)
    };
    wait::until_true("all is measured as here", 30, || {
        // Those of the topic and that of the heartbeats.
        Ok(measured(&mesh, "lag_records", "")? == Some(0.0)
            && measured(&mesh, "lag_seconds", "")? == Some(0.0)
            && measured(&mesh, "source_up", "")? == Some(1.0)
            && measured(&mesh, "partitions", ",state=\"active\"")? == Some(3.0)
            && measured(&mesh, "partitions", ",state=\"failed\"")? == Some(0.0))
    })?;
    mesh.west.ask(&["drill", "east->west"])?;
    assert_eq!(measured(&mesh, "drill_passed", "")?, Some(1.0));
    assert!(measured(&mesh, "drill_end_timestamp_seconds", "")? > Some(1.7e9));
    assert_eq!(measured(&mesh, "state", ",state=\"active\"")?, Some(1.0));
    assert_eq!(measured(&mesh, "state", ",state=\"paused\"")?, Some(0.0));
    mesh.west.ask(&["mirror", "pause", "east->west"])?;
    assert_eq!(measured(&mesh, "state", ",state=\"active\"")?, Some(0.0));
    assert_eq!(measured(&mesh, "state", ",state=\"paused\"")?, Some(1.0));
    mesh.west.ask(&["mirror", "resume", "east->west"])?;
    mesh.east.kill_all();
    wait::until_true("the source is measured as gone", 30, || {
        Ok(measured(&mesh, "source_up", "")? == Some(0.0) && measured(&mesh, "lag_seconds", "")? > Some(0.0))
    })
}

#[test]
fn a_cluster_that_lacks_a_daemon_says_what_is_amiss() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    cluster.kafka().create_topic("orders", 6, &[])?;
    let says = |cluster: &Cluster, expected: &[(&str, f64)]| {
        for (name, value) in expected {
            if cluster.daemons[0].metric(&format!("tradewind_{name}"))? != Some(*value) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let well = [
        ("leaderless_partitions", 0.0),
        ("under_replicated_partitions", 0.0),
        ("under_min_isr_partitions", 0.0),
        ("daemons{state=\"active\"}", 3.0),
        ("daemons{state=\"fenced\"}", 0.0),
        ("out_of_sync_replicas", 0.0),
    ];
    wait::until_true("all is well", 60, || says(&cluster, &well))?;
    let measured = |cluster: &Cluster, name: &str| cluster.daemons[0].metric(name);
    let partitions = measured(&cluster, "tradewind_partitions")?;
    assert!(partitions >= Some(6.0), "{partitions:?}");
    assert_eq!(measured(&cluster, "tradewind_replicas")?, partitions);
    // Ours never expire.
    let expiry = measured(&cluster, "tradewind_certificate_expiry_timestamp_seconds")?;
    assert!(expiry > Some(4e9), "{expiry:?}");

    cluster.daemons[2].kill();
    let lacking = [
        ("leaderless_partitions", 0.0),
        ("under_replicated_partitions", partitions.unwrap_or_default()),
        ("daemons{state=\"active\"}", 2.0),
        ("daemons{state=\"fenced\"}", 1.0),
    ];
    wait::until_true("a daemon is missing", 60, || says(&cluster, &lacking))?;
    cluster.start_all()?;
    wait::until_true("all is well again", 60, || says(&cluster, &well))
}
