//! `mirror guard` and `mirror unguard`: what clients may not write since a daemon started. Asked of it over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::{HttpArgs, UnguardArgs};
use super::http::{get, post};
use super::{Failure, Output, moment};
use crate::guard::GuardLine;

/// Exit code 0 whenever it answered.
pub(super) fn look(at: &HttpArgs, output: Output) -> Result<u8, Failure> {
    let lines: Vec<GuardLine> = get(at, "/v1/mirror/guard")?;
    let row = |line: &GuardLine| {
        let heard = line
            .heard_ms_ago
            .map(|ms| format!("{:.1} s ago", ms as f64 / 1e3));
        vec![
            line.peer.clone(),
            line.state.clone(),
            line.guarded.to_string(),
            if line.copies { "yes" } else { "no" }.to_owned(),
            heard.unwrap_or_default(),
            remark(line),
        ]
    };
    let head = [
        "cluster",
        "guard",
        "read-only topics",
        "copies from here",
        "heard",
        "remark",
    ];
    output.rows(&lines, &head, lines.iter().map(row))?;
    Ok(0)
}

fn remark(line: &GuardLine) -> String {
    let mut remarks = Vec::new();
    if !line.problem.is_empty() {
        remarks.push(line.problem.clone());
    }
    if let Some(by) = &line.opened_by {
        remarks.push(format!("opened by {by}"));
    }
    if let Some(word) = &line.overridden {
        let mut text = format!("overridden at {}", moment::utc(word.at_ms));
        if !word.reason.is_empty() {
            text += &format!(" ({})", word.reason);
        }
        remarks.push(text);
    }
    remarks.join("; ")
}

/// Exit code 0 when nothing is guarded any more; repeating it changes nothing.
pub(super) fn unguard(args: &UnguardArgs, output: Output) -> Result<u8, Failure> {
    if !args.accept_two_sides {
        return Err(Failure::Usage(
            "another cluster may have taken these topics over, and then two sides take writes; say --accept-two-sides if you \
             know that it has not, or mean it"
                .into(),
        ));
    }
    let body = json!({ "accept_two_sides": args.accept_two_sides, "reason": args.reason });
    let done: Value = post(&args.at, "/v1/mirror/unguard", &body, CHANGE_TIMEOUT)?;
    let peers: Vec<&str> = done["waited_for"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let text = if peers.is_empty() {
        "nothing was guarded here\n".to_owned()
    } else {
        format!(
            "clients may write again, without the word of {}: if clients write there too, `tradewind failback` there keeps \
             what they wrote here\n",
            peers.join(", ")
        )
    };
    output.text(&done, &text)?;
    Ok(0)
}

/// Says on standard error what is guarded, beside a status that is about flows.
pub(super) fn warn(at: &HttpArgs) {
    // A daemon of an earlier version has no guard.
    let lines: Vec<GuardLine> = get(at, "/v1/mirror/guard").unwrap_or_default();
    for sentence in lines.iter().filter_map(GuardLine::sentence) {
        eprintln!("! {sentence}");
    }
}

/// A change of the metadata log.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
