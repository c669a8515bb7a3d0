//! `switchover`: moves a region without loss. Begins it at a daemon of the target over HTTP, then watches it.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::json;
use tradewind_mirror::switchover_report::SwitchoverReport;

use super::args::{HttpArgs, SwitchoverArgs};
use super::http::{get, post};
use super::{Failure, Output, page};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How many looks in a row may fail: the daemon may be starting again.
const FAILED_LOOKS: u32 = 50;
/// Beginning it asks the source first.
pub(super) const BEGIN_TIMEOUT: Duration = Duration::from_secs(40);

/// Exit code 0 when clients may write at the target and the source has taken up the flow back; 1 when it was given up.
pub(super) fn run(args: &SwitchoverArgs, output: Output) -> Result<u8, Failure> {
    let body = if args.abort {
        json!({ "flow": args.flow, "abort": true })
    } else {
        json!({
            "flow": args.flow,
            "timeout_ms": millis(args.give_up_after),
            "group_drain_ms": millis(args.group_drain),
        })
    };
    let begun: SwitchoverReport = post(&args.at, "/v1/switchover", &body, BEGIN_TIMEOUT)?;
    let path = format!("/v1/switchover?flow={}", encoded(&args.flow));
    let report = watch(&args.at, &path, begun, progress, |report| report.ended)?;
    output.text(&report, &summary(&report))?;
    page::save(&args.page, || page::moves::switchover(&report))?;
    Ok(u8::from(!report.promoted && !args.abort))
}

/// Looks at what was begun until it has ended, and tells each step on standard error.
pub(super) fn watch<T: DeserializeOwned>(
    at: &HttpArgs,
    path: &str,
    mut report: T,
    progress: impl Fn(&T) -> String,
    ended: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let (mut told, mut failed) = (String::new(), 0);
    loop {
        let line = progress(&report);
        if line != told {
            eprintln!("{line}");
            told = line;
        }
        if ended(&report) {
            return Ok(report);
        }
        std::thread::sleep(LOOK);
        match get(at, path) {
            Ok(now) => (report, failed) = (now, 0),
            Err(error) if failed >= FAILED_LOOKS => return Err(error),
            Err(_) => failed += 1,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A flow's name in a query: everything but letters, digits and a few signs by its number.
pub(super) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn progress(report: &SwitchoverReport) -> String {
    let what = match report.step.as_str() {
        "fencing" => "the source refuses writes now and says where its records end",
        "draining" => "the last records arrive; groups may still commit at the source",
        "settling" => "groups are fenced at the source; their last positions are written here",
        "promoted" => "clients may write here; the source takes up the flow back",
        "done" => "done",
        "aborting" => "given up; the source is told to take writes again",
        "aborted" => "given up; the source takes writes again",
        "failed-over" => "a failover took its place; the source stays fenced",
        _ => "unknown to this program",
    };
    let mut line = format!("{}: {what}", report.step);
    if !report.reason.is_empty() && (report.step == "aborting" || report.step == "aborted") {
        line += &format!(" ({})", report.reason);
    }
    line
}

fn summary(report: &SwitchoverReport) -> String {
    let mut lines = match (report.promoted, report.without_writes_ms) {
        (true, Some(time)) => format!(
            "flow {} is switched over: clients write here; {time} ms without writes\n",
            report.flow
        ),
        (true, None) => format!("flow {} is switched over: clients write here\n", report.flow),
        (false, _) => format!("flow {} is not switched over: {}\n", report.flow, report.reason),
    };
    for topic in &report.topics {
        for (partition, end) in topic.ends.iter().enumerate() {
            lines += &format!("  {}-{partition}  at {end}\n", topic.topic);
        }
    }
    for position in &report.groups {
        lines += &format!(
            "  group {}  {}-{}  at {}  {}\n",
            position.group, position.topic, position.partition, position.offset, position.status
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_flow_is_named_in_a_query() {
        assert_eq!(super::encoded("east->west"), "east-%3Ewest");
    }
}
