//! `mirror plan`, `mirror apply`, `mirror remove`: the flows of a file, a daemon's or MirrorMaker 2's, against what the cluster
//! has declared.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tradewind_mirror::declaring::{FlowPlan, PlannedTopic, RemovedFlow};

use super::args::{ApplyArgs, FlowsArgs, RemoveFlowArgs};
use super::http::{get, post};
use super::{Failure, Output, mm2};
use crate::config::Overrides;

/// `mirror plan`: exit code 1 if something stands in the way.
pub(super) fn plan(args: &FlowsArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flows": flows(args)? });
    let plans: Vec<FlowPlan> = post(&args.at, "/v1/mirror/plan", &body, LOOK_TIMEOUT)?;
    output.text(&plans, &plans.iter().map(told).collect::<String>())?;
    Ok(u8::from(plans.iter().any(FlowPlan::is_refused)))
}

/// `mirror apply`: exit code 0 when it is agreed on. Repeating it changes nothing.
pub(super) fn apply(args: &ApplyArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flows": flows(&args.flows)?, "force": args.force });
    let plans: Vec<FlowPlan> = post(&args.flows.at, "/v1/mirror/apply", &body, LOOK_TIMEOUT)?;
    let mut text: String = plans.iter().map(told).collect();
    text += "declared: `tradewind mirror status` shows how they do\n";
    output.text(&plans, &text)?;
    Ok(0)
}

/// `mirror remove`: exit code 0 when it is agreed on.
pub(super) fn remove(args: &RemoveFlowArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flow": args.flow, "forget_source": args.forget_source });
    let removed: RemovedFlow = post(&args.at, "/v1/mirror/remove", &body, CHANGE_TIMEOUT)?;
    let mut text = format!("flow {} is removed: nothing is copied any more\n", removed.flow);
    if !removed.topics.is_empty() {
        text += &format!(
            "  {} stay as they are, and read-only: {}\n  delete those that nobody reads; `mirror apply` lets the flow go on where \
             they stand\n",
            count(removed.topics.len(), "mirror topic"),
            some(&removed.topics)
        );
    }
    output.text(&removed, &text)?;
    Ok(0)
}

/// The flows that are given, as the cluster keeps them.
fn flows(args: &FlowsArgs) -> Result<Value, Failure> {
    match (&args.file, &args.mm2) {
        (Some(file), _) => of_daemon(file),
        (None, Some(file)) => of_mm2(file, args),
        (None, None) => Err(Failure::Usage("--file or --mm2 says which flows".to_owned())),
    }
}

/// The flows of MirrorMaker 2's file into this cluster. What is not taken over is no part of the answer: it goes to standard error.
fn of_mm2(file: &Path, args: &FlowsArgs) -> Result<Value, Failure> {
    let wrong = |reason: String| Failure::Usage(format!("{}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let status: Value = get(&args.at, "/v1/status")?;
    let own = status["cluster"].as_str().unwrap_or_default();
    let alias = args.into.as_deref().unwrap_or(own);
    let taken = mm2::read(&text, alias, own).map_err(wrong)?;
    for sentence in &taken.told {
        eprintln!("{}: {sentence}", file.display());
    }
    Ok(serde_json::to_value(&taken.flows)?)
}

/// The flows of a daemon's configuration file.
fn of_daemon(file: &Path) -> Result<Value, Failure> {
    let overrides = Overrides::of_process(Vec::new());
    let loaded = crate::config::load(file, &overrides);
    let settings = loaded
        .map_err(|problems| Failure::Usage(problems.to_string()))?
        .settings;
    Ok(serde_json::to_value(&settings.flows)?)
}

/// A plan as a person reads it.
fn told(plan: &FlowPlan) -> String {
    let change = match plan.change.as_str() {
        "not-given" => "is not in the file: it stays as it is (`tradewind mirror remove` ends it)",
        "unchanged" => "is declared like that already",
        "added" => "is new",
        other => other,
    };
    let mut text = format!("flow {} {change}\n", plan.flow);
    for field in &plan.fields {
        text += &format!(
            "  {}: {} instead of {}\n",
            field.field, field.given, field.declared
        );
    }
    if !plan.creates.is_empty() {
        let name = |topic: &PlannedTopic| match topic.source == topic.here {
            true => topic.here.clone(),
            false => format!("{} (of {})", topic.here, topic.source),
        };
        let names: Vec<String> = plan.creates.iter().map(name).collect();
        text += &format!("  creates {}: {}\n", count(names.len(), "topic"), some(&names));
    }
    if !plan.stops.is_empty() {
        text += &format!("  copies no more, and leaves read-only: {}\n", some(&plan.stops));
    }
    for note in &plan.notes {
        text += &format!("  {note}\n");
    }
    for problem in &plan.problems {
        text += &format!("  ! {problem}\n");
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The first names of a list; all of them are in the JSON.
fn some(names: &[String]) -> String {
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names[..names.len().min(SHOWN)].join(", ") + more
}

/// Names in a line.
const SHOWN: usize = 10;
/// A look at every source, and then changes of the metadata log.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// A change of the metadata log.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
