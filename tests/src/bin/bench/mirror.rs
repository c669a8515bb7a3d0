//! How fast a flow copies what is there: three daemons in the east filled first, then three in the west started.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use tradewind_tests::{Mesh, Naming, wait};

use crate::clients::Java;
use crate::process;

/// What copying a backlog took.
pub(crate) struct Mirrored {
    pub(crate) megabytes: f64,
    pub(crate) target_cpu_per_gb: f64,
    pub(crate) source_cpu_per_gb: f64,
}

/// Fills one topic of the east with `bytes` while the west is away, starts the west and waits until nothing lags.
pub(crate) fn run(java: &Java, folder: &Path, bytes: u64) -> Result<Mirrored> {
    std::fs::create_dir_all(folder)?;
    let mut mesh = Mesh::start(folder, 3, Naming::Prefix)?;
    mesh.west.kill_all();
    let bootstrap = mesh.east.bootstrap();
    java.create_topic(&bootstrap, "backlog", crate::PARTITIONS, 3, "1")?;
    java.produce(&bootstrap, "backlog", bytes / 1024, 1024)?;

    let source = cpu(&mesh.east)?;
    let began = Instant::now();
    mesh.west.start_all()?;
    wait::until_true("the west has everything", 600, || {
        Ok(mesh
            .status()
            .is_ok_and(|status| status["lag_records"] == 0 && status["topics"].as_u64() >= Some(1)))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let gigabytes = bytes as f64 / 1e9;
    Ok(Mirrored {
        megabytes: bytes as f64 / 1e6 / seconds,
        target_cpu_per_gb: cpu(&mesh.west)? / gigabytes,
        source_cpu_per_gb: (cpu(&mesh.east)? - source) / gigabytes,
    })
}

fn cpu(cluster: &tradewind_tests::Cluster) -> Result<f64> {
    cluster
        .daemons
        .iter()
        .filter_map(|daemon| daemon.pid())
        .map(process::cpu_seconds)
        .sum()
}
