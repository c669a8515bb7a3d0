//! `mirror plan`, `mirror apply`, `mirror remove`: the flows of a configuration file against what the cluster has declared.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tradewind_mirror::declaring::{FlowPlan, PlannedTopic, RemovedFlow};

use super::args::{ApplyArgs, FlowsArgs, RemoveFlowArgs};
use super::http::post;
use super::{Failure, Output};
use crate::config::Overrides;

/// `mirror plan`: exit code 1 if something stands in the way.
pub(super) fn plan(args: &FlowsArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flows": flows(&args.file)? });
    let plans: Vec<FlowPlan> = post(&args.at, "/v1/mirror/plan", &body, LOOK_TIMEOUT)?;
    output.text(&plans, &plans.iter().map(told).collect::<String>())?;
    Ok(u8::from(plans.iter().any(FlowPlan::is_refused)))
}

/// `mirror apply`: exit code 0 when it is agreed on. Repeating it changes nothing.
pub(super) fn apply(args: &ApplyArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flows": flows(&args.flows.file)?, "force": args.force });
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

/// The flows of a daemon's configuration file, as its cluster keeps them.
fn flows(file: &Path) -> Result<Value, Failure> {
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
