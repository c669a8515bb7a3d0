//! `mirror verify`: has a flow compared with its source, piece by piece, at a pace of its own.
//!
//! The daemons keep nothing between two pieces: this command may be broken off and begun again at any time.

use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tradewind_mirror::verify::{Compared, Piece, Plan, PlannedPartition, Stretch};
use tradewind_wire::clock::Clock;

use super::args::{HttpArgs, VerifyArgs};
use super::http::post;
use super::{Failure, Output, page};
use crate::clock::SystemClock;

/// A look at the source, and a question to every daemon.
const PLAN_TIMEOUT: Duration = Duration::from_secs(40);
/// One piece, wherever it is compared.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a piece is asked for again: leaders move, daemons start.
const TRIES: usize = 15;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) flow: String,
    /// When the source was looked at.
    pub(super) at_ms: i64,
    /// `same`, `different`, or `incomplete`: no difference found, but not everything could be looked at.
    pub(super) verdict: &'static str,
    pub(super) batches: u64,
    pub(super) bytes: u64,
    pub(super) partitions: Vec<Line>,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Compared below this offset.
    pub(super) to: i64,
    pub(super) batches: u64,
    pub(super) bytes: u64,
    pub(super) differences: Vec<Stretch>,
    pub(super) skipped: Vec<Stretch>,
    /// Why it was not compared to its end.
    pub(super) problem: Option<String>,
}

/// Exit code 0 only if all that both sides keep is the same.
pub(super) fn verify(args: &VerifyArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flow": args.flow, "topics": args.topic });
    let plan: Plan = post(&args.at, "/v1/mirror/verify", &body, PLAN_TIMEOUT)?;
    let pace = Pace {
        bytes_per_second: args.rate.saturating_mul(1 << 20),
        clock: SystemClock::new(),
    };
    let lines: Vec<Line> = plan
        .partitions
        .iter()
        .map(|partition| compare(&args.at, &plan.flow, partition, &pace))
        .collect();
    let verdict = if lines.iter().any(|line| !line.differences.is_empty()) {
        "different"
    } else if lines.iter().any(|line| line.problem.is_some()) {
        "incomplete"
    } else {
        "same"
    };
    let report = Report {
        flow: plan.flow,
        at_ms: plan.at_ms,
        verdict,
        batches: lines.iter().map(|line| line.batches).sum(),
        bytes: lines.iter().map(|line| line.bytes).sum(),
        partitions: lines,
    };
    output.text(&report, &told(&report))?;
    page::save(&args.page, || page::verify::page(&report))?;
    Ok(u8::from(verdict != "same"))
}

struct Pace {
    bytes_per_second: u64,
    clock: SystemClock,
}

impl Pace {
    /// Waits until so many bytes may have been compared since `began`.
    fn keep(&self, began: Duration, bytes: u64) {
        let due = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64);
        thread::sleep((began + due).saturating_sub(self.clock.monotonic()));
    }
}

fn compare(at: &HttpArgs, flow: &str, planned: &PlannedPartition, pace: &Pace) -> Line {
    let mut line = Line {
        topic: planned.topic.clone(),
        partition: planned.partition,
        to: 0,
        batches: 0,
        bytes: 0,
        differences: Vec::new(),
        skipped: Vec::new(),
        problem: planned.refused.clone(),
    };
    let mut tries = 0;
    while line.problem.is_none() && line.to < planned.to {
        let piece = Piece {
            flow: flow.to_owned(),
            topic: planned.topic.clone(),
            partition: planned.partition,
            from: line.to,
            to: planned.to,
            first: line.to == 0,
        };
        let began = pace.clock.monotonic();
        match post::<Compared>(at, "/v1/mirror/verify/piece", &json!(piece), PIECE_TIMEOUT) {
            Ok(compared) if compared.to > line.to => {
                tries = 0;
                line.to = compared.to;
                line.batches += compared.batches;
                line.bytes += compared.bytes;
                line.differences.extend(compared.differences);
                line.skipped.extend(compared.skipped);
                pace.keep(began, compared.bytes);
            }
            Ok(_) => line.problem = Some("the comparison does not get any further".to_owned()),
            Err(error) => {
                tries += 1;
                if tries == TRIES {
                    line.problem = Some(error.to_string());
                }
                thread::sleep(PAUSE);
            }
        }
    }
    line
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for line in &report.partitions {
        let of = format!("{}-{}", line.topic, line.partition);
        for stretch in &line.differences {
            text += &format!(
                "  ! {of}  offsets {} to {}: {}\n",
                stretch.from,
                stretch.to - 1,
                stretch.what
            );
        }
        for stretch in &line.skipped {
            text += &format!(
                "    {of}  offsets {} to {} not compared: {}\n",
                stretch.from,
                stretch.to - 1,
                stretch.what
            );
        }
        if let Some(problem) = &line.problem {
            text += &format!("  ! {of}  not compared from offset {} on: {problem}\n", line.to);
        }
    }
    let verdict = match report.verdict {
        "same" => "all that was compared is the same on both sides",
        "different" => "NOT the same on both sides",
        _ => "no difference was found, but not everything could be compared",
    };
    text += &format!(
        "flow {}: {verdict} ({} partitions, {} batches, {} MB)\n",
        report.flow,
        report.partitions.len(),
        report.batches,
        report.bytes / 1_000_000
    );
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) fn report(topic: &str) -> Report {
        let stretch = |from, to, what: &str| Stretch {
            from,
            to,
            what: what.to_owned(),
        };
        let line = Line {
            topic: topic.to_owned(),
            partition: 3,
            to: 90,
            batches: 8,
            bytes: 2_000_000,
            differences: vec![stretch(40, 50, "other batches here than at the source")],
            skipped: vec![stretch(0, 20, "not kept on both sides any more")],
            problem: Some("nobody answers".to_owned()),
        };
        Report {
            flow: "east->west".to_owned(),
            at_ms: 0,
            verdict: "different",
            batches: 8,
            bytes: 2_000_000,
            partitions: vec![line],
        }
    }

    #[test]
    fn a_report_names_topic_partition_and_offsets() {
        assert_eq!(
            told(&report("east.orders")),
            "  ! east.orders-3  offsets 40 to 49: other batches here than at the source\n\
             \x20   east.orders-3  offsets 0 to 19 not compared: not kept on both sides any more\n\
             \x20 ! east.orders-3  not compared from offset 90 on: nobody answers\n\
             flow east->west: NOT the same on both sides (1 partitions, 8 batches, 2 MB)\n"
        );
    }
}
