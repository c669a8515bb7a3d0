//! `failback`: brings the lost source of a failed-over flow back as a mirror. Begins it at a daemon of the side that took over,
//! over HTTP, then watches it.

use serde_json::json;
use tradewind_mirror::failback_report::FailbackReport;

use super::args::FailbackArgs;
use super::http::post;
use super::switchover::{BEGIN_TIMEOUT, encoded, watch};
use super::{Failure, Output, page};

/// Exit code 0 when the source is a mirror of this cluster.
pub(super) fn run(args: &FailbackArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({ "flow": args.flow });
    let begun: FailbackReport = post(&args.at, "/v1/failback", &body, BEGIN_TIMEOUT)?;
    let path = format!("/v1/failback?flow={}", encoded(&args.flow));
    let report = watch(&args.at, &path, begun, progress, |report| report.ended)?;
    output.text(&report, &summary(&report))?;
    page::save(&args.page, || page::moves::failback(&report))?;
    Ok(0)
}

fn progress(report: &FailbackReport) -> String {
    let what = match report.step.as_str() {
        "telling" => "the source is told that clients write here",
        "gave-way" => "the source takes no writes; it waits for the command",
        "rescuing" => "the source keeps what never arrived here",
        "lowering" => "positions of groups come down at the source; then it copies from here",
        "done" => "done",
        _ => "unknown to this program",
    };
    if report.reason.is_empty() {
        format!("{}: {what}", report.step)
    } else {
        format!("{}: {what} ({})", report.step, report.reason)
    }
}

fn summary(report: &FailbackReport) -> String {
    let mut lines = format!(
        "flow {}: its source is a mirror of this cluster, since region epoch {}\n",
        report.flow, report.region_epoch
    );
    for topic in &report.topics {
        for kept in &topic.partitions {
            lines += &format!(
                "  {}-{}  cut at {}  ended at {}",
                topic.topic, kept.partition, kept.cut, kept.end
            );
            lines += &match &topic.rescue {
                Some(rescue) if kept.records > 0 => {
                    format!(
                        "  {} records ({} bytes) kept in {rescue}\n",
                        kept.records, kept.bytes
                    )
                }
                _ => "  nothing was removed\n".to_owned(),
            };
        }
    }
    for lowered in &report.groups {
        lines += &format!(
            "  group {}  {}-{}  from {} down to {}\n",
            lowered.group, lowered.topic, lowered.partition, lowered.before, lowered.after
        );
    }
    let told = report.groups.len() as u64;
    if report.groups_total > told {
        lines += &format!("  and {} positions more\n", report.groups_total - told);
    }
    lines
}
