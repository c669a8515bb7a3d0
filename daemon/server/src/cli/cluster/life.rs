//! `cluster status`, `drain`, `undrain`, `add`, `remove`: how daemons stand, and what an operator does to one. Asked of a daemon over
//! HTTP; any daemon will do.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tradewind_cluster::overview::{DaemonOverview, MoveOverview, Overview};
use tradewind_wire::clock::Clock;

use super::moves;
use crate::cli::args::{AddArgs, DrainArgs, HttpArgs, RemoveArgs, StatusArgs};
use crate::cli::http::{get, post};
use crate::cli::output::{numbers, or_dash, table};
use crate::cli::{Failure, Output};
use crate::clock::SystemClock;

/// How often the cluster is looked at while a command waits.
const LOOK: Duration = Duration::from_millis(300);

/// How long the cluster may take to take a change over.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster as it stands.
pub(super) fn overview(at: &HttpArgs) -> Result<Overview, Failure> {
    get(at, "/v1/cluster")
}

/// `cluster status`: exit code 1 unless all is well.
pub(super) fn status(args: &StatusArgs, output: Output) -> Result<u8, Failure> {
    let mut overview = overview(&args.at)?;
    if let Some(patience) = args.wait {
        overview = wait(&args.at, patience, Overview::is_well, told_amiss)?;
    }
    output.text(&overview, &text(&overview))?;
    Ok(u8::from(!overview.is_well()))
}

/// Looks again until `is_done`, telling on standard error what is still missing; the last look when time is up.
fn wait(
    at: &HttpArgs,
    patience: Duration,
    is_done: impl Fn(&Overview) -> bool,
    missing: impl Fn(&Overview) -> String,
) -> Result<Overview, Failure> {
    let clock = SystemClock::new();
    let end = clock.monotonic() + patience;
    let mut told = String::new();
    loop {
        // A daemon that is just being restarted may be the one that is asked.
        let looked = overview(at);
        let left = end.saturating_sub(clock.monotonic());
        match looked {
            Ok(overview) if is_done(&overview) || left.is_zero() => return Ok(overview),
            Err(error) if left.is_zero() => return Err(error),
            Ok(overview) => {
                let now = missing(&overview);
                if now != told {
                    eprintln!("{now}");
                    told = now;
                }
            }
            Err(_) => {}
        }
        thread::sleep(LOOK);
    }
}

/// What is not well, in one line.
fn told_amiss(overview: &Overview) -> String {
    let mut amiss = Vec::new();
    if overview.controller.is_none() {
        amiss.push("no controller".to_owned());
    }
    for daemon in overview.daemons.iter().filter(|one| one.state != "active") {
        amiss.push(format!("daemon {} {}", daemon.id, daemon.state));
    }
    let counts = [
        (overview.leaderless, "leaderless"),
        (overview.under_min_isr, "below min.insync.replicas"),
        (overview.under_replicated, "under-replicated"),
        (overview.moves.len(), "moving"),
    ];
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        amiss.push(format!("{count} partitions {what}"));
    }
    if amiss.is_empty() {
        amiss.push("all is well".to_owned());
    }
    amiss.join(", ")
}

fn text(overview: &Overview) -> String {
    let mut text = format!(
        "cluster {}  controller {}  {} topics  {} partitions\n{}\n\n",
        or_dash(overview.cluster_id.as_ref()),
        or_dash(overview.controller),
        overview.topics,
        overview.partitions,
        told_amiss(overview),
    );
    let head = [
        "daemon",
        "state",
        "raft",
        "lag",
        "rack",
        "leads",
        "prefers",
        "replicas",
        "out of sync",
        "needed",
    ];
    let row = |one: &DaemonOverview| {
        vec![
            one.id.to_string(),
            if one.drained {
                format!("{}, drained", one.state)
            } else {
                one.state.clone()
            },
            or_dash(one.raft.as_ref()),
            or_dash(one.raft_lag),
            or_dash(one.rack.as_ref()),
            one.leaders.to_string(),
            one.preferred.to_string(),
            one.replicas.to_string(),
            one.out_of_sync.to_string(),
            one.needed.to_string(),
        ]
    };
    text += &table(&head, overview.daemons.iter().map(row));
    if !overview.moves.is_empty() {
        let row = |one: &MoveOverview| {
            vec![
                format!("{}-{}", one.topic, one.partition),
                numbers(&one.from),
                numbers(&one.to),
                numbers(&one.waits_for),
            ]
        };
        text.push('\n');
        text += &table(
            &["moving", "from", "to", "waits for"],
            overview.moves.iter().map(row),
        );
    }
    text
}

/// `cluster drain`: exit code 0 when the daemon can be stopped without harm.
pub(super) fn drain(args: &DrainArgs, output: Output) -> Result<u8, Failure> {
    let before = overview(&args.at)?;
    let daemon = find(&before, args.daemon)?;
    if args.replicas {
        // What cannot be done is found out before anything changes.
        moves::plan_without(&before, daemon.id)?;
    }
    // With the replicas everything moves in the end, also what only this daemon can lead now.
    let force = args.force || args.replicas;
    change(&args.at, daemon.id, true, force)?;
    let mut code = 0;
    if args.replicas {
        code = moves::empty(&before, daemon.id, args.parallel, output)?;
    }
    let id = daemon.id;
    let leads = |overview: &Overview| find(overview, id).map_or(0, |one| one.leaders);
    let after = wait(
        &args.at,
        args.wait,
        |overview| leads(overview) == 0,
        |overview| format!("daemon {id} leads {} partitions", leads(overview)),
    )?;
    let daemon = find(&after, id)?;
    let mut text = format!(
        "daemon {id} is drained: it leads {} partitions and holds {} replicas\n",
        daemon.leaders, daemon.replicas
    );
    if daemon.needed > 0 {
        code = 1;
        text += &format!(
            "{} partitions cannot do without it: stopping it now interrupts them\n",
            daemon.needed
        );
    } else if daemon.leaders > 0 {
        code = 1;
        text += "it still leads: stopping it now makes clients wait for an election\n";
    } else {
        text += "it can be stopped\n";
    }
    output.text(daemon, &text)?;
    Ok(code)
}

/// `cluster undrain`.
pub(super) fn undrain(daemon: i32, at: &HttpArgs, output: Output) -> Result<u8, Failure> {
    let answer = change(at, daemon, false, false)?;
    let text = format!(
        "daemon {daemon} is in service again; it leads what it prefers after a while without changes\n"
    );
    output.text(&answer, &text)?;
    Ok(0)
}

/// `cluster add`: exit code 0 when the daemon is in service.
pub(super) fn add(args: &AddArgs, output: Output) -> Result<u8, Failure> {
    let id = args.daemon;
    let body = json!({ "node": id, "mesh": args.mesh, "replace": args.replace });
    let _: Value = post(&args.at, "/v1/cluster/add", &body, CHANGE_TIMEOUT)?;
    let state = |overview: &Overview| {
        let found = overview.daemons.iter().find(|one| one.id == id);
        found.map_or_else(|| "not registered".to_owned(), |one| one.state.clone())
    };
    let after = wait(
        &args.at,
        args.wait,
        |overview| state(overview) == "active",
        |overview| format!("daemon {id} is a member: {}", state(overview)),
    )?;
    let daemon = find(&after, id)?;
    let is_in = daemon.state == "active";
    let text = if !is_in {
        format!("daemon {id} is a member, but {}: see its log\n", daemon.state)
    } else if args.replace {
        format!(
            "daemon {id} is in service; it copies {} replicas (`cluster status --wait 1h`)\n",
            daemon.out_of_sync
        )
    } else {
        format!("daemon {id} is in service and empty; `cluster rebalance` gives it its share\n")
    };
    output.text(daemon, &text)?;
    Ok(u8::from(!is_in))
}

/// `cluster remove`.
pub(super) fn remove(args: &RemoveArgs, output: Output) -> Result<u8, Failure> {
    let id = args.daemon;
    find(&overview(&args.at)?, id)?;
    // A daemon that has just been stopped is taken for dead a moment later.
    wait(
        &args.at,
        args.wait,
        |overview| {
            let found = overview.daemons.iter().find(|one| one.id == id);
            found.is_none_or(|one| one.state != "stopping")
        },
        |_| format!("daemon {id} is stopping"),
    )?;
    let answer: Value = post(
        &args.at,
        "/v1/cluster/remove",
        &json!({ "node": id }),
        CHANGE_TIMEOUT,
    )?;
    let text = format!(
        "daemon {id} is no member any more; take it out of `cluster.nodes` in the other daemons' files, too\n"
    );
    output.text(&answer, &text)?;
    Ok(0)
}

fn change(at: &HttpArgs, node: i32, on: bool, force: bool) -> Result<Value, Failure> {
    let body = json!({ "node": node, "on": on, "force": force });
    post(at, "/v1/cluster/drain", &body, CHANGE_TIMEOUT)
}

/// The daemon of this number, or which there are.
pub(super) fn find(overview: &Overview, id: i32) -> Result<&DaemonOverview, Failure> {
    overview.daemons.iter().find(|one| one.id == id).ok_or_else(|| {
        let ids: Vec<i32> = overview.daemons.iter().map(|one| one.id).collect();
        Failure::Usage(format!("there is no daemon {id}: there are {}", numbers(&ids)))
    })
}
