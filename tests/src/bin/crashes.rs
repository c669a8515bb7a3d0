//! Kills the daemons of a real cluster under load, again and again, and judges what their clients saw.
//!
//! `crashes --kills N --totals FILE [--seed S] [--batch N] [--folder DIR]`
//!
//! Goes on until the totals in FILE say that N processes were killed (by SIGKILL), in batches of 100 unless told
//! otherwise, each with a cluster of its own and a seed of its own: S plus the batch's number. FILE is written after each
//! batch, so that a run can be broken off and taken up again. The first batch whose history has a fault ends the run: it
//! prints the faults and the command that draws the same strikes again, and leaves the cluster's files where they are. The
//! seed fixes who is killed and when, not what the machine does meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tradewind_tests::siege::{Siege, SiegeSpec, Strike, Target, middle_and_longest};

/// What all batches so far came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    /// Histories that were judged.
    batches: u64,
    /// Strikes by target.
    strikes: BTreeMap<Target, u64>,
    /// Processes killed.
    kills: u64,
    /// Bytes at the ends of logs that power cuts spoilt.
    torn_bytes: u64,
    /// Records acknowledged under `acks=all`.
    acknowledged: u64,
    /// Writes whose end nobody knows.
    unknown: u64,
    /// Records read while all this went on.
    read: u64,
    /// Ends and positions of a group that were told.
    told: u64,
    /// Faults in the histories.
    faults: u64,
    /// Milliseconds without writes, for each leader killed while all was well.
    leader_ms: Vec<u64>,
    /// The same where the leader was also the controller.
    controller_ms: Vec<u64>,
    /// The seed of the next batch.
    next_seed: u64,
}

struct Arguments {
    kills: u64,
    totals: PathBuf,
    seed: u64,
    batch: u64,
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments {
        kills: 0,
        totals: PathBuf::new(),
        seed: 1,
        batch: 100,
        folder: None,
    };
    let mut rest = std::env::args().skip(1);
    while let Some(option) = rest.next() {
        let value = rest.next().with_context(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--kills" => parsed.kills = value.parse()?,
            "--totals" => parsed.totals = value.into(),
            "--seed" => parsed.seed = value.parse()?,
            "--batch" => parsed.batch = value.parse()?,
            "--folder" => parsed.folder = Some(value.into()),
            _ => bail!("unknown: {option} {value}"),
        }
    }
    if parsed.kills == 0 || parsed.batch == 0 || parsed.totals.as_os_str().is_empty() {
        bail!("crashes --kills N --totals FILE [--seed S] [--batch N] [--folder DIR]");
    }
    Ok(parsed)
}

fn run() -> Result<bool> {
    let arguments = arguments()?;
    let mut totals = load(&arguments)?;
    while totals.kills < arguments.kills {
        let folder = match &arguments.folder {
            Some(folder) => {
                fs::create_dir_all(folder)?;
                tempfile::tempdir_in(folder)?
            }
            None => tempfile::tempdir()?,
        };
        let seed = totals.next_seed;
        let sound = batch(folder.path(), seed, &arguments, &mut totals);
        if !matches!(sound, Ok(true)) {
            if let Err(error) = &sound {
                println!("{error:#}");
            }
            println!("the cluster's files are in {}", folder.keep().display());
            println!(
                "again: crashes --kills {0} --batch {0} --totals /dev/null --seed {seed}",
                arguments.batch
            );
            return sound;
        }
        totals.next_seed += 1;
        if is_kept(&arguments.totals) {
            fs::write(&arguments.totals, serde_json::to_string_pretty(&totals)?)?;
        }
        println!("{}", told(&totals));
    }
    Ok(true)
}

fn is_kept(totals: &Path) -> bool {
    totals != Path::new("/dev/null")
}

fn load(arguments: &Arguments) -> Result<Totals> {
    let path = &arguments.totals;
    if is_kept(path) && path.exists() && fs::metadata(path)?.len() > 0 {
        return serde_json::from_str(&fs::read_to_string(path)?).with_context(|| path.display().to_string());
    }
    Ok(Totals {
        next_seed: arguments.seed,
        ..Totals::default()
    })
}

/// One cluster, its strikes, and the verdict on its history.
fn batch(folder: &Path, seed: u64, arguments: &Arguments, totals: &mut Totals) -> Result<bool> {
    let spec = SiegeSpec {
        seed,
        rest: Duration::from_millis(8),
        segment_bytes: 1 << 20,
        ..SiegeSpec::default()
    };
    let mut siege = Siege::start(folder, spec)?;
    let due = arguments.batch.min(arguments.kills.saturating_sub(totals.kills));
    let mut kills = 0;
    while kills < due {
        kills += siege.strike_any()?;
    }
    let (history, strikes) = siege.end()?;
    let faults = history.check();
    for fault in faults.iter().take(20) {
        println!("{fault}");
    }
    totals.batches += 1;
    totals.faults += faults.len() as u64;
    totals.acknowledged += history.acknowledged();
    totals.unknown += history.unknown();
    totals.read += history
        .reads
        .iter()
        .map(|read| read.records.len() as u64)
        .sum::<u64>();
    totals.told += (history.ends.len() + history.positions.len()) as u64;
    strikes.iter().for_each(|strike| totals.count(strike));
    println!(
        "seed {seed}: {} strikes, {} records acknowledged, {} faults",
        strikes.len(),
        history.acknowledged(),
        faults.len()
    );
    Ok(faults.is_empty())
}

impl Totals {
    fn count(&mut self, strike: &Strike) {
        *self.strikes.entry(strike.target).or_default() += 1;
        self.kills += strike.kills;
        self.torn_bytes += strike.torn_bytes;
        if let Some(gap) = strike.without_writes {
            let ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            if strike.controller {
                self.controller_ms.push(ms);
            } else {
                self.leader_ms.push(ms);
            }
        }
    }
}

fn told(totals: &Totals) -> String {
    let gaps = |ms: &[u64]| {
        let times = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        middle_and_longest(times).map_or_else(
            || "none".to_owned(),
            |(middle, longest)| format!("p50 {middle:.2?}, max {longest:.2?} of {}", ms.len()),
        )
    };
    let mut strikes: Vec<String> = Vec::new();
    for (target, count) in &totals.strikes {
        strikes.push(format!("{count} {target:?}").to_lowercase());
    }
    format!(
        "{} processes killed in {} batches ({}; {} KiB spoilt); {} records acknowledged, {} writes without an answer, {} records read \
         meanwhile, {} ends and positions told; {} faults; time without writes: leader {}; controller {}",
        totals.kills,
        totals.batches,
        strikes.join(", "),
        totals.torn_bytes >> 10,
        totals.acknowledged,
        totals.unknown,
        totals.read,
        totals.told,
        totals.faults,
        gaps(&totals.leader_ms),
        gaps(&totals.controller_ms),
    )
}
