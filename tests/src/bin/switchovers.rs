//! Moves a region to and fro under load, again and again, kills daemons in the middle, and judges what clients saw.
//!
//! `switchovers --switchovers N --totals FILE [--seed S] [--batch N] [--folder DIR]`
//!
//! Three daemons in the east, three in the west; one idempotent writer per partition and a group go where the clusters send
//! them (`moving.rs`). Of four switchovers one is left alone. One loses a daemon of either side by SIGKILL at a moment of the
//! seed's choice, be it the one that was asked. Two lose one or all daemons of a side as soon as a step is seen: each step
//! with each of the four, in turn through the batches. Then the command is given again until it says that all is done.
//! After each: clients go on, and the cluster that was left takes no write and no commit. At the end of a batch: both clusters hold
//! every acknowledged record once and in order, and nothing else; no group was ever below its last acknowledged commit;
//! acknowledgements changed sides as often as the region moved, so that never two clusters took writes at once. As with
//! `crashes`, batches of 10 have seeds of their own, FILE keeps the totals, and the first batch with a fault ends the run.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tradewind_tests::batches::{self, Batch};
use tradewind_tests::moving::{self, BACK, Clients, FLOW};
use tradewind_tests::siege::middle_and_longest;
use tradewind_tests::{Cluster, Mesh, program, wait};

const DAEMONS: i32 = 3;

/// What all batches so far came to.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Totals {
    batches: u64,
    switchovers: u64,
    kills: u64,
    /// Records that were acknowledged, and found on both sides.
    records: u64,
    /// Commits of the group that were acknowledged.
    commits: u64,
    /// The longest time that a partition took no write, in ms, for each switchover in which nobody was killed.
    calm_ms: Vec<u64>,
    /// The same where one or all daemons of a side were killed.
    killed_ms: Vec<u64>,
    /// How often somebody was killed at each step, `STEP, WHO`. `done` is where the step was over before it was seen.
    #[serde(default)]
    at_steps: BTreeMap<String, u64>,
    /// The seed of the next batch.
    next_seed: u64,
}

impl batches::Totals for Totals {
    fn done(&self) -> u64 {
        self.switchovers
    }

    fn next_seed(&mut self) -> &mut u64 {
        &mut self.next_seed
    }

    fn told(&self) -> String {
        let gaps = |ms: &[u64]| {
            let times = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            middle_and_longest(times).map_or_else(
                || "none".to_owned(),
                |(middle, longest)| format!("p50 {middle:.2?}, max {longest:.2?} of {}", ms.len()),
            )
        };
        let steps = self
            .at_steps
            .iter()
            .map(|(at, times)| format!("{times} while {at}"));
        let steps: Vec<String> = steps.collect();
        format!(
            "{} switchovers in {} batches, {} daemons killed ({}); {} records acknowledged, each once on both sides; {} \
             commits kept; 0 faults; time without writes: nobody killed {}; somebody killed {}",
            self.switchovers,
            self.batches,
            self.kills,
            steps.join("; "),
            self.records,
            self.commits,
            gaps(&self.calm_ms),
            gaps(&self.killed_ms)
        )
    }
}

fn main() -> Result<()> {
    batches::run("switchovers", "switchovers", 10, batch)
}

fn batch(batch: Batch<'_>, totals: &mut Totals) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(batch.seed);
    let mut mesh = moving::begin(batch.folder, DAEMONS)?;
    let clients = Clients::start(&mesh);
    clients.go_on(10)?;
    let (mut moves, mut began) = (Vec::new(), Instant::now());
    // Batches of consecutive seeds take up the steps where the one before left them.
    for number in 0..batch.count {
        let moving = Moving {
            westward: number % 2 == 0,
            blow: match number % 4 {
                0 => Blow::None,
                3 => Blow::Sometime,
                one_or_two => {
                    let turn = number / 4 * 2 + one_or_two - 1;
                    Blow::At(At::turn(
                        turn.wrapping_add(batch.seed.wrapping_mul(batch.count / 2)),
                    ))
                }
            },
        };
        let (struck, told) = moving.go(&mut mesh, &mut rng)?;
        clients.go_on(10)?;
        moving::has_left(if moving.westward { &mesh.east } else { &mesh.west })?;
        let ended = Instant::now();
        moves.push((struck, told, began, ended));
        began = ended;
    }
    let seen = clients.stop()?;
    seen.ensure_changed(batch.count)?;
    for cluster in [&mesh.east, &mesh.west] {
        wait::until("both sides hold everything", 120, || {
            seen.holds(cluster).map(Some)
        })?;
    }
    for (struck, told, from, to) in moves {
        let gap = seen.without_writes(from, to).unwrap_or_default();
        let ms = u64::try_from(gap.as_millis())?;
        println!(
            "seed {}: {ms} ms without writes, {told} as told{}",
            batch.seed,
            struck
                .as_ref()
                .map_or_else(String::new, |struck| format!(", {struck}"))
        );
        let Some(struck) = struck else {
            totals.calm_ms.push(ms);
            continue;
        };
        totals.kills += struck.killed;
        totals.killed_ms.push(ms);
        *totals.at_steps.entry(struck.to_string()).or_default() += 1;
    }
    totals.batches += 1;
    totals.switchovers += batch.count;
    totals.records += seen.acknowledged();
    let commits = seen.history.commits.iter();
    totals.commits += commits.filter(|commit| commit.acknowledged).count() as u64;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct At {
    step: &'static str,
    source: bool,
    all: bool,
}

impl At {
    /// The sixteen of them in turn: the steps, then the side, then whether it loses all daemons.
    fn turn(turn: u64) -> Self {
        let steps = ["fencing", "draining", "settling", "promoted"];
        let bit = |place: u32| (turn >> place) & 1 == 1;
        Self {
            step: steps[usize::from(bit(0)) + 2 * usize::from(bit(1))],
            source: bit(2),
            all: bit(3),
        }
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy)]
enum Blow {
    None,
    /// One daemon of either side is killed at some moment.
    Sometime,
    /// As soon as this step is seen.
    At(At),
}

/// What happened.
#[derive(Debug)]
struct Struck {
    /// The step that was last seen.
    step: String,
    source: bool,
    killed: u64,
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.source { "source" } else { "target" };
        match self.killed {
            1 => write!(f, "{}, one of the {side}", self.step),
            _ => write!(f, "{}, all of the {side}", self.step),
        }
    }
}

/// One switchover.
struct Moving {
    westward: bool,
    blow: Blow,
}

impl Moving {
    /// Moves the region; who was killed meanwhile, and how many ms without writes the report tells.
    fn go(&self, mesh: &mut Mesh, rng: &mut StdRng) -> Result<(Option<Struck>, i64)> {
        let flow = if self.westward { FLOW } else { BACK };
        moving::wait_active(self.target(mesh), flow)?;
        let asked = rng.random_range(0..usize::try_from(DAEMONS)?);
        let url = self.target(mesh).daemons[asked].url();
        let agent = ureq::agent();
        let before = look(&agent, &url, flow)?.map_or(0, |last| attempt(&last));
        let begun = {
            let url = url.clone();
            thread::spawn(move || program::run(&["switchover", flow, "--url", &url, "-o", "json"]))
        };
        let struck = match self.blow {
            Blow::None => None,
            Blow::Sometime => {
                wait::moment(rng, 1_000);
                let (step, source) = ("some step".to_owned(), rng.random_bool(0.5));
                let cluster = self.side(mesh, source);
                cluster.daemon(rng.random_range(1..=DAEMONS))?.kill();
                Some(Struck {
                    step,
                    source,
                    killed: 1,
                })
            }
            Blow::At(at) => {
                let step = reached(&agent, &url, flow, before, at.step)?;
                let cluster = self.side(mesh, at.source);
                let killed = if at.all {
                    cluster.kill_all();
                    u64::try_from(DAEMONS)?
                } else {
                    cluster.daemon(rng.random_range(1..=DAEMONS))?.kill();
                    1
                };
                Some(Struck {
                    step,
                    source: at.source,
                    killed,
                })
            }
        };
        if let Some(struck) = &struck {
            wait::moment(rng, 2_000);
            self.side(mesh, struck.source).start_all()?;
        }
        let output = begun
            .join()
            .map_err(|_| anyhow::anyhow!("the command panicked"))??;
        // It may have been the one that was asked who was killed.
        ensure!(
            struck.is_some() || output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let report = wait::until("the switchover is done", 120, || {
            self.target(mesh).ask(&["switchover", flow]).map(Some)
        })?;
        moving::promoted(&report)?;
        let told = report["without_writes_ms"]
            .as_i64()
            .context("no time without writes")?;
        Ok((struck, told))
    }

    fn target<'a>(&self, mesh: &'a Mesh) -> &'a Cluster {
        if self.westward { &mesh.west } else { &mesh.east }
    }

    fn side<'a>(&self, mesh: &'a mut Mesh, source: bool) -> &'a mut Cluster {
        if self.westward == source {
            &mut mesh.east
        } else {
            &mut mesh.west
        }
    }
}

/// What this daemon says of the flow's last switchover; `None` if it never had one.
fn look(agent: &ureq::Agent, url: &str, flow: &str) -> Result<Option<Value>> {
    let answer = agent
        .get(format!("{url}/v1/switchover"))
        .query("flow", flow)
        .call();
    match answer {
        Ok(mut answer) => Ok(Some(answer.body_mut().read_json()?)),
        Err(ureq::Error::StatusCode(404)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn attempt(report: &Value) -> u64 {
    report["attempt"].as_u64().unwrap_or_default()
}

/// Looks until the attempt after `before` is at this step or beyond it; where it was.
fn reached(agent: &ureq::Agent, url: &str, flow: &str, before: u64, step: &str) -> Result<String> {
    let order = ["fencing", "draining", "settling", "promoted", "done"];
    let place = |step: &str| order.iter().position(|known| *known == step);
    wait::until_seen(&format!("{flow} is {step}"), 60, || {
        let seen = look(agent, url, flow)?.filter(|report| attempt(report) > before);
        let at = seen.as_ref().and_then(|report| report["step"].as_str());
        Ok(at.filter(|at| place(at) >= place(step)).map(ToOwned::to_owned))
    })
}
