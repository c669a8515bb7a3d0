//! What a flow's gauges say while it copies, and when its source is gone.

use anyhow::Result;
use tradewind_tests::{Mesh, Naming, load, wait};
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
    mesh.east.kill_all();
    wait::until_true("the source is measured as gone", 30, || {
        Ok(measured(&mesh, "source_up", "")? == Some(0.0) && measured(&mesh, "lag_seconds", "")? > Some(0.0))
    })
}
