//! `bench cells`: this daemon and Apache Kafka side by side in named cells, each with the same client on both.
//!
//! ```text
//! cargo run --release -p tradewind-tests --bin bench -- cells [--cells NAME,NAME] [--rounds N] [--seconds N]
//!     [--bytes N] [--client java|librdkafka] [--json FILE]
//! ```
//!
//! A cell's name is what it measures: `3d-16p-100-none-all-flushed` is three daemons with as many copies, a topic of 16
//! partitions, records of 100 bytes, no compression, `acks=all`, every append flushed (`flush.messages=1`). Any such name
//! may be asked for; without `--cells` the twelve of [`CELLS`] are measured.
//!
//! In each round each system is started twice for the cells of one cluster size, the two taking turns: first each cell is
//! driven as fast as it goes, `--bytes` of it; then, for `--seconds`, at half of what the slower of the two has reached,
//! which gives the latencies. Neither the first load of each system nor the client's first second at half speed is counted:
//! what runs on Java compiles itself. `--client` says whose producer makes the load, Kafka's own or librdkafka's; topics are
//! made by Kafka's tool. Processor time is that of all daemons, without the client. What is printed are
//! medians over the rounds, ratios first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use serde_json::{Value, json};
use tradewind_tests::options::Options as Said;

use crate::clients::{Java, Librdkafka, Load, Produced, Producer};
use crate::figures::Figures;
use crate::systems::{self, SYSTEMS, System};
use crate::{baseline, write};

/// What is measured unless other cells are named.
const CELLS: [&str; 12] = [
    "1d-1p-1k-none-1",
    "1d-16p-100-none-all-flushed",
    "3d-1p-1k-none-all",
    "3d-1p-1k-none-all-flushed",
    "3d-16p-100-none-all",
    "3d-16p-100-none-all-flushed",
    "3d-16p-1k-none-all",
    "3d-16p-1k-lz4-all-flushed",
    "3d-16p-16k-none-all",
    "3d-16p-1k-zstd-all",
    "3d-256p-1k-none-1",
    "3d-256p-1k-none-all-flushed",
];

/// The figures of a cell that a ratio is made of. All but the first are better when small.
const RATIOS: [&str; 6] = [
    "mb_s",
    "cpu_s_per_gb",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "loaded_bytes",
];

/// The fewest records at half load, so that a 99.9th percentile is one of several.
const RECORDS_MIN: u64 = 5_000;

/// What one cell measures.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    name: String,
    daemons: u32,
    partitions: u32,
    record_bytes: u64,
    codec: String,
    acks: String,
    flushed: bool,
}

impl FromStr for Cell {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (rest, flushed) = match name.strip_suffix("-flushed") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let parts: Vec<&str> = rest.split('-').collect();
        let &[daemons, partitions, size, codec, acks] = parts.as_slice() else {
            bail!("cell {name}: not of the form 3d-16p-1k-lz4-all-flushed");
        };
        let number = |text: &str, unit: &str| -> Result<u32> {
            let digits = text
                .strip_suffix(unit)
                .with_context(|| format!("cell {name}: {text} is not a number and {unit}"))?;
            Ok(digits.parse()?)
        };
        let record_bytes = match size.strip_suffix('k') {
            Some(kib) => kib.parse::<u64>()? * 1024,
            None => size.parse()?,
        };
        ensure!(record_bytes > 0, "cell {name}: records of no bytes");
        ensure!(
            ["none", "gzip", "snappy", "lz4", "zstd"].contains(&codec),
            "cell {name}: no codec {codec}"
        );
        ensure!(["0", "1", "all"].contains(&acks), "cell {name}: no acks {acks}");
        Ok(Self {
            name: name.to_owned(),
            daemons: number(daemons, "d")?,
            partitions: number(partitions, "p")?,
            record_bytes,
            codec: codec.to_owned(),
            acks: acks.to_owned(),
            flushed,
        })
    }
}

impl Cell {
    fn load(&self, records: u64, rate: Option<u64>) -> Load {
        Load {
            records,
            record_bytes: self.record_bytes,
            payload: None,
            rate,
            uncounted: rate.unwrap_or(0),
            properties: vec![
                format!("acks={}", self.acks),
                format!("compression.type={}", self.codec),
            ],
        }
    }
}

struct Options {
    cells: Vec<Cell>,
    rounds: usize,
    seconds: u64,
    bytes: u64,
    librdkafka: bool,
    json: Option<PathBuf>,
}

/// What makes the loads.
struct Clients {
    java: Java,
    producer: Box<dyn Producer>,
}

impl Clients {
    fn find(options: &Options) -> Result<Self> {
        let java = Java::find()?;
        let producer: Box<dyn Producer> = if options.librdkafka {
            Box::new(Librdkafka::find()?)
        } else {
            Box::new(java.clone())
        };
        Ok(Self { java, producer })
    }
}

/// Measures, prints, and writes the JSON file if one is asked for.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = options(arguments)?;
    let folder = tempfile::tempdir()?;
    let clients = Clients::find(&options)?;
    let (file, flushed) = (
        baseline::file_write(folder.path(), options.bytes)?,
        baseline::file_write_flushed(folder.path(), options.bytes.min(64 << 20))?,
    );
    let (tcp, quic) = (
        baseline::loopback_tcp(options.bytes)?,
        baseline::loopback_quic(folder.path(), options.bytes)?,
    );
    println!(
        "baselines, MB/s: file {file:.0}, flushed every 256 KiB {flushed:.0}, TCP over loopback {tcp:.0}, QUIC {quic:.0}"
    );
    let mut figures = Figures::default();
    for round in 0..options.rounds {
        for daemons in [1, 3] {
            let cells: Vec<&Cell> = options
                .cells
                .iter()
                .filter(|cell| cell.daemons == daemons)
                .collect();
            if !cells.is_empty() {
                measure(&options, &clients, folder.path(), round, &cells, &mut figures)?;
            }
        }
    }
    print(&options.cells, &figures);
    if options.json.is_some() {
        let ratios: Vec<Value> = options
            .cells
            .iter()
            .map(|cell| {
                let ratios =
                    RATIOS.map(|figure| (figure.to_owned(), json!(ratio(&figures, &cell.name, figure))));
                json!({ "cell": cell.name, "ratio": serde_json::Map::from_iter(ratios) })
            })
            .collect();
        let figures = json!({
            "client": if options.librdkafka { "librdkafka" } else { "java" },
            "baseline_mb_s": { "file": file, "file_flushed": flushed, "tcp": tcp, "quic": quic },
            "ratios": ratios,
            "figures": figures.json(),
        });
        write(options.json.as_deref(), &figures)?;
    }
    Ok(())
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut said = Said::read(arguments)?;
    let all = || CELLS.iter().map(|name| name.parse()).collect();
    let options = Options {
        cells: said.take_list("--cells")?.map_or_else(all, Ok)?,
        rounds: said.take("--rounds")?.unwrap_or(3),
        seconds: said.take("--seconds")?.unwrap_or(10),
        bytes: said.take("--bytes")?.unwrap_or(256 << 20),
        librdkafka: match said.take::<String>("--client")?.as_deref() {
            None | Some("java") => false,
            Some("librdkafka") => true,
            Some(other) => bail!("--client {other}: java or librdkafka"),
        },
        json: said.take("--json")?,
    };
    said.end("see the head of tests/src/bin/bench/cells.rs")?;
    for cell in &options.cells {
        ensure!(
            [1, 3].contains(&cell.daemons),
            "cell {}: one daemon or three",
            cell.name
        );
    }
    Ok(options)
}

/// One round of the cells of one cluster size: all at full speed, then all at half of the slower one's.
fn measure(
    options: &Options,
    clients: &Clients,
    folder: &Path,
    round: usize,
    cells: &[&Cell],
    figures: &mut Figures,
) -> Result<()> {
    let mut slower: BTreeMap<&str, f64> = BTreeMap::new();
    for full in [true, false] {
        // Who comes first changes from round to round.
        for turn in 0..2 {
            let name = SYSTEMS[(turn + round) % 2];
            let daemons = cells.first().map_or(3, |cell| cell.daemons);
            let place = folder.join(format!("{name}-{round}-{daemons}-{full}"));
            let system = systems::start(name, &place, "", daemons)?;
            let mut note = |cell: &str, figure: &'static str, value: f64| {
                figures.note(cell, name, figure, value);
            };
            let cluster = format!("{daemons}d");
            note(&cluster, "ready_s", system.start_seconds());
            note(&cluster, "idle_bytes", system.idle_bytes()? as f64);
            warm_up(options, clients, &*system, daemons)?;
            for cell in cells {
                let load = if full {
                    cell.load(options.bytes / cell.record_bytes, None)
                } else {
                    let rate = slower.get(cell.name.as_str()).copied().unwrap_or(0.0) / 2.0;
                    let rate = (rate as u64).max(1);
                    cell.load((rate * (options.seconds + 1)).max(RECORDS_MIN), Some(rate))
                };
                let (produced, cpu) = drive(clients, &*system, cell, &load)?;
                if full {
                    let rate = slower.entry(&cell.name).or_insert(f64::MAX);
                    *rate = rate.min(produced.records);
                    let gigabytes = (load.records * load.record_bytes) as f64 / 1e9;
                    note(&cell.name, "mb_s", produced.megabytes);
                    note(&cell.name, "cpu_s_per_gb", cpu / gigabytes);
                    note(&cell.name, "loaded_bytes", system.idle_bytes()? as f64);
                    println!(
                        "round {round} {name:9} {:30} {:7.1} MB/s {:6.1} CPU s/GB",
                        cell.name,
                        produced.megabytes,
                        cpu / gigabytes
                    );
                } else {
                    note(&cell.name, "p50_ms", produced.p50_ms as f64);
                    note(&cell.name, "p99_ms", produced.p99_ms as f64);
                    note(&cell.name, "p999_ms", produced.p999_ms as f64);
                    println!(
                        "round {round} {name:9} {:30} {:7.1} MB/s  p50 {} p99 {} p99.9 {} ms",
                        cell.name, produced.megabytes, produced.p50_ms, produced.p99_ms, produced.p999_ms
                    );
                }
            }
        }
    }
    Ok(())
}

/// Half of what a cell takes, sent and not counted: a system that compiles itself while it runs is measured afterwards.
fn warm_up(options: &Options, clients: &Clients, system: &dyn System, daemons: u32) -> Result<()> {
    let cell: Cell = format!("{daemons}d-16p-1k-none-all").parse()?;
    let topic = Cell {
        name: "warm-up".to_owned(),
        ..cell
    };
    let load = topic.load(options.bytes / 2 / topic.record_bytes, None);
    drive(clients, system, &topic, &load).map(drop)
}

/// One run of the client on a new topic: what it said, and the daemons' processor seconds meanwhile.
fn drive(clients: &Clients, system: &dyn System, cell: &Cell, load: &Load) -> Result<(Produced, f64)> {
    let flush = if cell.flushed { "1" } else { "9223372036854775807" };
    let bootstrap = system.bootstrap();
    clients
        .java
        .create_topic(&bootstrap, &cell.name, cell.partitions, cell.daemons, flush)?;
    let before = system.cpu_seconds()?;
    let produced = clients.producer.load(&bootstrap, &cell.name, load)?;
    Ok((produced, system.cpu_seconds()? - before))
}

fn ratio(figures: &Figures, cell: &str, figure: &'static str) -> f64 {
    figures.ratio(cell, figure, SYSTEMS)
}

fn print(cells: &[Cell], figures: &Figures) {
    println!("\nratios, ours / Apache Kafka's, medians of the rounds");
    println!(
        "  {:30} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "cell", "MB/s", "CPU/GB", "p50", "p99", "p99.9", "memory"
    );
    for cell in cells {
        let line = RATIOS.map(|figure| format!("{:7.2}", ratio(figures, &cell.name, figure)));
        println!("  {:30} {}", cell.name, line.join(" "));
    }
    for cluster in ["1d", "3d"] {
        let [ready, idle] = ["ready_s", "idle_bytes"].map(|figure| ratio(figures, cluster, figure));
        if ready.is_finite() {
            println!("  {cluster}: start-up {ready:.4}, idle memory {idle:.3}");
        }
    }
    println!(
        "\nours | Apache Kafka's: MB/s, CPU s/GB at full speed; p50, p99, p99.9 ms at half of the slower one's"
    );
    for cell in cells {
        let line = SYSTEMS.map(|system| {
            let figure = |figure| figures.of(&cell.name, system, figure);
            format!(
                "{:6.1} {:6.1} {:4.0} {:4.0} {:4.0}",
                figure("mb_s"),
                figure("cpu_s_per_gb"),
                figure("p50_ms"),
                figure("p99_ms"),
                figure("p999_ms")
            )
        });
        println!("  {:30} {}", cell.name, line.join("  | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_what_its_name_says() {
        let cell: Cell = "3d-256p-16k-zstd-all-flushed".parse().unwrap();
        assert_eq!(
            (cell.daemons, cell.partitions, cell.record_bytes),
            (3, 256, 16_384)
        );
        assert_eq!(
            (cell.codec.as_str(), cell.acks.as_str(), cell.flushed),
            ("zstd", "all", true)
        );
        for wrong in [
            "3d",
            "3d-1p-1k-none-2",
            "3d-1p-1k-brotli-1",
            "3-1p-1k-none-1",
            "3d-1p-0-none-1",
            "3d-1p-1k-none-1-",
        ] {
            assert!(wrong.parse::<Cell>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_cells_are_twelve_and_cover_every_choice() {
        let cells: Vec<Cell> = CELLS.iter().map(|name| name.parse().unwrap()).collect();
        let have = |wanted: &dyn Fn(&Cell) -> bool| assert!(cells.iter().any(wanted));
        for (daemons, partitions) in [(1, 1), (3, 16), (3, 256)] {
            have(&|cell| (cell.daemons, cell.partitions) == (daemons, partitions));
        }
        for (size, codec) in [(100, "none"), (1024, "lz4"), (1024, "zstd"), (16_384, "none")] {
            have(&|cell| (cell.record_bytes, cell.codec.as_str()) == (size, codec));
        }
        for (acks, flushed) in [("1", false), ("all", false), ("all", true)] {
            have(&|cell| (cell.acks.as_str(), cell.flushed) == (acks, flushed));
        }
        assert!(cells.iter().all(|cell| cell.acks == "all" || !cell.flushed));
    }
}
