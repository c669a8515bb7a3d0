//! Starts clusters for suites in other languages and does to them what it is told.
//!
//! `mesh --folder DIR [--daemons N] [--naming prefix|identity] [--source-kafka HOST:PORT] [--one] [--config TOML]`
//!
//! Prints `east ADDRESSES`, `west ADDRESSES`, `east-url URL`, `west-url URL`, `east-data DIRS`, `west-data DIRS`, then
//! `ready`. With `--source-kafka` the east is that Kafka, and only the west is started. With `--one` there is one cluster
//! without any other, called `one`, and `--config` holds further lines of its daemons' configuration files. Each line of
//! standard input is a command, answered by `done` or `failed WHY`:
//!
//! - `kill CLUSTER [ID]`: SIGKILL to all daemons or one.
//! - `start CLUSTER`: starts those that do not run, and waits until they are ready.
//! - `restart CLUSTER ID`: SIGTERM to one, which must end well; starts it again, and waits until it is ready.
//!
//! Everything ends when standard input closes.

use std::io::{BufRead, stdin};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use tradewind_tests::{Cluster, ClusterSpec, Mesh, Naming};

/// What stood on the command line.
struct Arguments {
    folder: PathBuf,
    daemons: i32,
    naming: Naming,
    source_kafka: Option<String>,
    one: bool,
    config: String,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let mut clusters = start(&arguments)?;
    for cluster in &clusters {
        println!("{} {}", cluster.name, cluster.bootstrap());
        println!("{}-url {}", cluster.name, cluster.daemons[0].url());
        let data: Vec<String> = cluster
            .daemons
            .iter()
            .map(|d| d.folder.join("data").display().to_string())
            .collect();
        println!("{}-data {}", cluster.name, data.join(" "));
    }
    println!("ready");
    for line in stdin().lock().lines() {
        match obey(&line?, &mut clusters) {
            Ok(()) => println!("done"),
            Err(error) => println!("failed {error:#}"),
        }
    }
    Ok(())
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments {
        folder: PathBuf::new(),
        daemons: 3,
        naming: Naming::Prefix,
        source_kafka: None,
        one: false,
        config: String::new(),
    };
    let mut rest = std::env::args().skip(1);
    while let Some(option) = rest.next() {
        if option == "--one" {
            parsed.one = true;
            continue;
        }
        let value = rest.next().with_context(|| format!("{option} needs a value"))?;
        match (option.as_str(), value.as_str()) {
            ("--folder", _) => parsed.folder = value.into(),
            ("--daemons", _) => parsed.daemons = value.parse()?,
            ("--naming", "prefix") => parsed.naming = Naming::Prefix,
            ("--naming", "identity") => parsed.naming = Naming::Identity,
            ("--source-kafka", _) => parsed.source_kafka = Some(value),
            ("--config", _) => parsed.config = value,
            _ => bail!("unknown: {option} {value}"),
        }
    }
    if parsed.folder.as_os_str().is_empty() {
        bail!("--folder is required");
    }
    if !parsed.config.is_empty() && !parsed.one {
        bail!("--config is for --one");
    }
    std::fs::create_dir_all(&parsed.folder)?;
    parsed.folder = parsed.folder.canonicalize()?;
    Ok(parsed)
}

fn start(arguments: &Arguments) -> Result<Vec<Cluster>> {
    if arguments.one {
        let mut spec = ClusterSpec::new("one", arguments.daemons);
        spec.config.clone_from(&arguments.config);
        return Ok(vec![Cluster::start(&arguments.folder, &spec)?]);
    }
    let Some(kafka) = &arguments.source_kafka else {
        let mesh = Mesh::start(&arguments.folder, arguments.daemons, arguments.naming)?;
        return Ok(vec![mesh.east, mesh.west]);
    };
    let mut west = Cluster::prepare(&arguments.folder, "west", arguments.daemons)?;
    let naming = arguments.naming.word();
    west.configure(&format!(
        "[clusters.east]\nkafka = [\"{kafka}\"]\n\n[[mirror]]\nfrom = \"east\"\nnaming = \"{naming}\"\n"
    ))?;
    west.start_all()?;
    Ok(vec![west])
}

fn obey(line: &str, clusters: &mut [Cluster]) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (Some(command), Some(name)) = (words.first(), words.get(1)) else {
        bail!("unknown command: {line}");
    };
    let cluster = clusters
        .iter_mut()
        .find(|cluster| cluster.name == *name)
        .with_context(|| format!("no cluster {name} of ours"))?;
    match (*command, words.get(2)) {
        ("kill", None) => cluster.kill_all(),
        ("kill", Some(id)) => cluster.daemon(id.parse()?)?.kill(),
        ("start", None) => cluster.start_all()?,
        ("restart", Some(id)) => {
            let daemon = cluster.daemon(id.parse()?)?;
            let status = daemon.terminate()?;
            ensure!(status.success(), "daemon {id} ended with {status}");
            daemon.start()?;
            daemon.wait_ready()?;
        }
        _ => bail!("unknown command: {line}"),
    }
    Ok(())
}
