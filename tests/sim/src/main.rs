//! The simulation's command: runs one seed in this process, or many, each in a process of its own.
//!
//! A process of its own, because a few things (Tokio's numbering of runtimes, hash tables) would otherwise depend on the
//! seeds before. A seed that fails is printed with the command that repeats it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};
#[cfg(feature = "known-bugs")]
use tradewind_cluster::bugs::{Bug, put_back};

mod ambush;
mod clients;
mod disk;
mod entropy;
mod host;
mod net;
mod oracle;
mod scripts;
mod storm;
mod trace;
mod weather;
mod world;

use crate::world::{Plan, run};

/// Simulated clusters under faults, from seeds.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Run only this seed, in this process.
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs", "twice"])]
    seed: Option<u64>,
    /// How many seeds to run; with --totals, how many the totals shall have.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Keep what came out in this file, and go on from what it has.
    #[arg(long, conflicts_with = "seed")]
    totals: Option<PathBuf>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Run each seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// How long the faults last, in simulated seconds.
    #[arg(long, default_value_t = 20)]
    storm: u64,
    /// How long founding the cluster, and coming back after the storm, may take, in simulated seconds.
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// The mistake to put back (needs the feature `known-bugs`): the run is then meant to fail.
    #[cfg(feature = "known-bugs")]
    #[arg(long)]
    bug: Option<String>,
    /// Put each known mistake back by itself and look for the first of the seeds that finds it: each must be found.
    #[cfg(feature = "known-bugs")]
    #[arg(long, conflicts_with_all = ["seed", "bug", "twice"])]
    known_bugs: bool,
    /// With --seed: print what happens. Daemons' own logs come with RUST_LOG.
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// With --seed: print every datagram and write, too.
    #[arg(long, requires = "seed")]
    everything: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.seed {
        Some(seed) => one(&args, seed),
        #[cfg(feature = "known-bugs")]
        None if args.known_bugs => find_known_bugs(&args),
        None => match &args.totals {
            Some(path) => batches(&args, path),
            None => many(&args).map(|failed| failed.is_empty()),
        },
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(args: &Args, seed: u64) -> Result<bool> {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .without_time()
            .with_ansi(false)
            .init();
    }
    // A thread of its own, so that what was done until here (setting up a log, say) has not drawn hash tables' keys.
    std::thread::scope(|scope| {
        let running = scope.spawn(|| one_here(args, seed));
        running.join().map_err(|_| anyhow::anyhow!("the run panicked"))?
    })
}

fn one_here(args: &Args, seed: u64) -> Result<bool> {
    let panics = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&panics);
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("{panic}");
        seen.lock()
            .unwrap_or_else(|p| p.into_inner())
            .push(panic.to_string());
    }));
    #[cfg(feature = "known-bugs")]
    if let Some(name) = &args.bug {
        let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == *name);
        put_back(*bug.with_context(|| format!("there is no {name} among {:?}", Bug::ALL))?);
    }
    let dir = Scratch::new()?;
    let plan = Plan {
        seed,
        storm_ms: args.storm * 1_000,
        patience_ms: args.patience * 1_000,
        verbose: args.verbose,
        everything: args.everything,
    };
    let result = run(plan, &dir.0);
    let panicked = panics.lock().unwrap_or_else(|p| p.into_inner()).first().cloned();
    if let Some(panicked) = panicked {
        println!("seed {seed}: FAILED: {panicked}");
        return Ok(false);
    }
    match result {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            Ok(true)
        }
        Err(error) => {
            println!("seed {seed}: FAILED: {error:#}");
            Ok(false)
        }
    }
}

/// A directory for one run, in memory if possible.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let dir = base.join(format!("tradewind-sim-{}", std::process::id()));
        // Left by a process of that number that was killed.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How many seeds are run before the totals are written down.
const BATCH: u64 = 100;

/// Runs what the totals in `path` lack of the seeds.
fn batches(args: &Args, path: &Path) -> Result<bool> {
    let mut totals = match std::fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} are no totals", path.display()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Totals {
            from: args.from,
            ..Totals::default()
        },
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    anyhow::ensure!(
        totals.from == args.from,
        "{} has seeds from {} on, not from {}",
        path.display(),
        totals.from,
        args.from
    );
    while totals.seeds < args.seeds {
        let batch = Args {
            from: totals.from + totals.seeds,
            seeds: BATCH.min(args.seeds - totals.seeds),
            ..args.clone()
        };
        totals.failed.extend(many(&batch)?);
        totals.seeds += batch.seeds;
        std::fs::write(path, serde_json::to_vec(&totals)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    println!(
        "{} seeds from {} in all, {} failed: {:?}",
        totals.seeds,
        totals.from,
        totals.failed.len(),
        totals.failed
    );
    Ok(totals.failed.is_empty())
}

/// What came out of many seeds, one after the other.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Totals {
    /// The first.
    from: u64,
    /// How many.
    seeds: u64,
    /// Those that failed.
    failed: Vec<u64>,
}

/// Runs the seeds; those that fail.
fn many(args: &Args) -> Result<Vec<u64>> {
    let next = AtomicU64::new(args.from);
    let end = args.from + args.seeds;
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return Ok(());
                }
                let (well, said) = child(args, seed)?;
                let again = if args.twice {
                    Some(child(args, seed)?.1)
                } else {
                    None
                };
                print!("{said}");
                let differs = again.is_some_and(|again| again != said);
                if differs {
                    println!("seed {seed}: FAILED: two runs differ");
                }
                if !well || differs {
                    let features = if cfg!(feature = "known-bugs") {
                        " --features known-bugs"
                    } else {
                        ""
                    };
                    println!(
                        "repeat with: cargo run -p tradewind-sim{features} --bin sim -- {} --verbose",
                        of_seed(args, seed).join(" ")
                    );
                    failed.lock().unwrap_or_else(|p| p.into_inner()).push(seed);
                }
            }
        };
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let mut failed = failed.into_inner().unwrap_or_else(|p| p.into_inner());
    failed.sort_unstable();
    println!(
        "{} seeds from {}, {} failed: {failed:?}",
        args.seeds,
        args.from,
        failed.len()
    );
    Ok(failed)
}

/// Says of each known mistake which seed finds it. A seed that fails without it, too, finds nothing.
#[cfg(feature = "known-bugs")]
fn find_known_bugs(args: &Args) -> Result<bool> {
    let mut missing = 0;
    for bug in Bug::ALL {
        let with = Args {
            bug: Some(format!("{bug:?}")),
            ..args.clone()
        };
        let next = AtomicU64::new(args.from);
        let found: Mutex<Option<(u64, String)>> = Mutex::default();
        let is_found = || found.lock().unwrap_or_else(|p| p.into_inner()).is_some();
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                while !is_found() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds {
                        break;
                    }
                    let (well, said) = child(&with, seed)?;
                    if well || !child(args, seed)?.0 {
                        continue;
                    }
                    let mut found = found.lock().unwrap_or_else(|p| p.into_inner());
                    if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                        *found = Some((seed, said));
                    }
                }
                Ok(())
            };
            let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
        })?;
        match found.into_inner().unwrap_or_else(|p| p.into_inner()) {
            Some((seed, said)) => {
                let said = said
                    .lines()
                    .find(|line| line.contains("FAILED"))
                    .unwrap_or_default();
                println!("{bug:?}: found within {} seeds: {said}", seed - args.from + 1);
            }
            None => {
                missing += 1;
                println!("{bug:?}: NOT FOUND within {} seeds", args.seeds);
            }
        }
    }
    println!(
        "{} known mistakes, {missing} failed to be found in {} seeds from {}",
        Bug::ALL.len(),
        args.seeds,
        args.from
    );
    Ok(missing == 0)
}

/// The arguments that run one seed as it is run among many.
fn of_seed(args: &Args, seed: u64) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in [
        ("--seed", seed),
        ("--storm", args.storm),
        ("--patience", args.patience),
    ] {
        all.extend([name.to_owned(), value.to_string()]);
    }
    #[cfg(feature = "known-bugs")]
    if let Some(bug) = &args.bug {
        all.extend(["--bug".to_owned(), bug.clone()]);
    }
    all
}

/// How often it is looked whether a run is done, and how many times at most, however far its simulated time has come.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 30_000;

fn child(args: &Args, seed: u64) -> Result<(bool, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(of_seed(args, seed))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a run")?;
    let mut looks = 0;
    // It prints a line at its end, which a pipe holds.
    while child.try_wait()?.is_none() {
        if looks == LOOKS {
            child.kill()?;
            child.wait()?;
            let said = format!("seed {seed}: FAILED: not done after {:?}\n", LOOK * LOOKS);
            return Ok((false, said));
        }
        looks += 1;
        std::thread::sleep(LOOK);
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.success(), said))
}
