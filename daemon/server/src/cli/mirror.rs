//! `mirror ...`: how flows stand, and what an operator does to them. Asked of a daemon over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tradewind_mirror::drill_report::DrillLine;
use tradewind_mirror::status::{FlowStatus, Paused};

use super::args::HttpArgs;
use super::args::{MirrorCommand, PauseArgs, ResumeArgs};
use super::http::{get, post};
use super::{Failure, Output, flows, guard, moment, verify};

/// Runs a command on flows.
pub(super) fn run(command: MirrorCommand, output: Output) -> Result<u8, Failure> {
    match command {
        MirrorCommand::Status(at) => status(&at, output),
        MirrorCommand::Plan(args) => flows::plan(&args, output),
        MirrorCommand::Apply(args) => flows::apply(&args, output),
        MirrorCommand::Remove(args) => flows::remove(&args, output),
        MirrorCommand::Pause(args) => pause(&args, output),
        MirrorCommand::Resume(which) => resume(&which, output),
        MirrorCommand::Verify(args) => verify::verify(&args, output),
        MirrorCommand::Guard(at) => guard::look(&at, output),
        MirrorCommand::Unguard(args) => guard::unguard(&args, output),
    }
}

/// `mirror status`: exit code 0 whenever it answered.
fn status(at: &HttpArgs, output: Output) -> Result<u8, Failure> {
    let flows: Vec<FlowStatus> = get(at, "/v1/mirror/status")?;
    let unknown = || "unknown".to_owned();
    let row = |flow: &FlowStatus| {
        vec![
            flow.flow.clone(),
            flow.state.clone(),
            flow.lag_records.map_or_else(unknown, |lag| lag.to_string()),
            flow.lag_seconds.map_or_else(unknown, |lag| format!("{lag:.1}")),
            flow.topics.to_string(),
            format!("{}/{}", flow.groups.exact, flow.groups.total),
            flow.drill.as_ref().map_or_else(|| "never".to_owned(), last_drill),
            attention(flow),
        ]
    };
    let head = [
        "flow",
        "state",
        "lag (records)",
        "lag (s)",
        "topics",
        "groups exact",
        "last drill",
        "attention",
    ];
    output.rows(&flows, &head, flows.iter().map(row))?;
    guard::warn(at);
    Ok(0)
}

/// What needs attention, what stands still and what may surprise, in one line.
fn attention(flow: &FlowStatus) -> String {
    let all = flow
        .problems
        .iter()
        .cloned()
        .chain(flow.paused.iter().map(paused))
        .chain(flow.notes.iter().cloned());
    all.collect::<Vec<_>>().join("; ")
}

/// How the last drill ended and how long ago that is.
fn last_drill(drill: &DrillLine) -> String {
    let ago = match drill.age_seconds {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    };
    format!("{}, {ago} ago", drill.verdict)
}

/// What stands still, since when and why.
pub(super) fn paused(paused: &Paused) -> String {
    let what = paused.topic.as_deref().unwrap_or("the flow");
    let mut text = format!("{what} is paused since {}", moment::utc(paused.since_ms));
    if !paused.reason.is_empty() {
        text += &format!(" ({})", paused.reason);
    }
    text
}

/// Exit code 0 when it is agreed on; repeating it changes nothing.
fn pause(args: &PauseArgs, output: Output) -> Result<u8, Failure> {
    let which = &args.which;
    let body = json!({ "flow": which.flow, "topic": which.topic, "reason": args.reason });
    let done: Value = post(&which.at, "/v1/mirror/pause", &body, CHANGE_TIMEOUT)?;
    let text = format!(
        "{} is paused: `tradewind mirror resume` lets it go on\n",
        named(which)
    );
    output.text(&done, &text)?;
    Ok(0)
}

fn resume(which: &ResumeArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flow": which.flow, "topic": which.topic });
    let done: Value = post(&which.at, "/v1/mirror/resume", &body, CHANGE_TIMEOUT)?;
    let rest = match which.topic {
        Some(_) => "",
        None => ", but for topics that were paused by name",
    };
    output.text(&done, &format!("{} is not paused any more{rest}\n", named(which)))?;
    Ok(0)
}

fn named(which: &ResumeArgs) -> String {
    match &which.topic {
        Some(topic) => format!("topic {topic} of flow {}", which.flow),
        None => format!("flow {}", which.flow),
    }
}

/// A change of the metadata log.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
