//! `drill`: has a failover rehearsed beside the flow that runs, and tells what it would have come to.

use std::time::Duration;

use serde_json::json;
use tradewind_mirror::drill_report::{DrillReport, DrilledPartition};

use super::args::DrillArgs;
use super::http::post;
use super::{Failure, Output, page};

/// What a drill may take besides its own time.
const MARGIN: Duration = Duration::from_secs(90);

/// Exit code 0 only if everything was as it should be.
pub(super) fn run(args: &DrillArgs, output: Output) -> Result<u8, Failure> {
    let body = json!({
        "flow": args.flow,
        "topics": args.topic,
        "copy_bytes": args.copy_limit.saturating_mul(1 << 20),
        "check_bytes": args.check.saturating_mul(1 << 20),
        "time_ms": u64::try_from(args.time_limit.as_millis()).unwrap_or(u64::MAX),
    });
    let report: DrillReport = post(&args.at, "/v1/drill", &body, args.time_limit + MARGIN)?;
    output.text(&report, &told(&report))?;
    page::save(&args.page, || page::drill::page(&report))?;
    Ok(u8::from(!report.passed))
}

/// The sentence that says what would have been lost.
pub(super) fn rpo(report: &DrillReport) -> String {
    let records = match report.rpo.records {
        Some(0) => "no record would have been lost".to_owned(),
        Some(records) => format!("{records} records would have been lost"),
        None => "nobody knows how many records would have been lost".to_owned(),
    };
    match report.rpo.seconds {
        Some(seconds) if seconds > 0.0 => format!("{records}, something was behind for {seconds:.1} s"),
        Some(_) => records,
        None => format!("{records}, nor for how long something was behind"),
    }
}

/// What was shared and copied, what the digest says.
pub(super) fn held(partition: &DrilledPartition) -> String {
    let checksum = match &partition.checksum {
        Some(sum) => {
            let same = match sum.same {
                Some(true) => "the same as in the log",
                Some(false) => "NOT the same as in the log",
                None => "not comparable with the log any more",
            };
            format!("offsets {} to {}: {} {same}", sum.from, sum.to, sum.digest)
        }
        None => "no digest".to_owned(),
    };
    format!(
        "{:.1} MB linked, {:.1} MB copied; {checksum}",
        partition.linked_bytes as f64 / 1e6,
        partition.copied_bytes as f64 / 1e6
    )
}

fn told(report: &DrillReport) -> String {
    let mut text = String::new();
    for partition in &report.partitions {
        let of = format!("{}-{}", partition.topic, partition.partition);
        let cut = partition
            .cut
            .map_or_else(|| "not rehearsed".to_owned(), |cut| format!("cut at {cut}"));
        text += &format!("  {of}  {cut}");
        match partition.lost_records {
            Some(0) | None => {}
            Some(lost) => text += &format!("  {lost} records behind"),
        }
        if let (Some(stable), Some(cut)) = (partition.stable, partition.cut)
            && stable < cut
        {
            text += &format!("  a transaction is open since offset {stable}");
        }
        text += &format!("  {}\n", held(partition));
    }
    for position in report
        .positions
        .iter()
        .filter(|position| position.status != "exact")
    {
        text += &format!(
            "  group {}  {}-{}  at {}  {}\n",
            position.group, position.topic, position.partition, position.offset, position.status
        );
    }
    for failure in &report.failures {
        text += &format!("  ! {failure}\n");
    }
    for attention in &report.attention {
        text += &format!("  needs attention besides: {attention}\n");
    }
    let all = report.partitions.iter().all(|partition| partition.cut.is_some());
    text += &format!(
        "flow {}: drill {}: {}; clients could have written after {:.0} ms{}; {} of {} group positions exact \
         ({} compared with the source)\n",
        report.flow,
        if report.passed { "passed" } else { "FAILED" },
        rpo(report),
        report.rto_ms,
        if all { "" } else { " to what was rehearsed" },
        report.groups.exact,
        report.groups.total,
        report.groups.compared
    );
    text
}

#[cfg(test)]
pub(super) mod tests {
    use tradewind_mirror::drill_report::{DrilledGroups, DrilledPosition, Rpo};

    use super::*;

    pub(in crate::cli) fn report() -> DrillReport {
        DrillReport {
            id: "AAAA".to_owned(),
            flow: "east->west".to_owned(),
            begun_ms: 1_000_000,
            took_ms: 40,
            passed: false,
            rpo: Rpo {
                records: Some(12),
                seconds: Some(0.25),
            },
            rto_ms: 21.4,
            metadata_ms: 3.0,
            groups: DrilledGroups {
                exact: 1,
                compared: 1,
                total: 2,
            },
            partitions: vec![DrilledPartition {
                topic: "east.<orders>".to_owned(),
                partition: 3,
                node: Some(1),
                cut: Some(90),
                lost_records: Some(12),
                stable: Some(80),
                canary: Some(90),
                linked_bytes: 2_000_000,
                copied_bytes: 100_000,
                steps: Vec::new(),
                checksum: None,
            }],
            positions: vec![DrilledPosition {
                group: "a & b".to_owned(),
                topic: "east.<orders>".to_owned(),
                partition: 3,
                offset: 90,
                status: "cut".to_owned(),
                record: Some(90),
                at_source: None,
                problem: None,
            }],
            failures: vec!["east.<orders>/3: x".to_owned()],
            attention: Vec::new(),
        }
    }

    #[test]
    fn a_report_says_what_would_have_come_of_it() {
        assert_eq!(
            told(&report()),
            "  east.<orders>-3  cut at 90  12 records behind  a transaction is open since offset 80  \
             2.0 MB linked, 0.1 MB copied; no digest\n\
             \x20 group a & b  east.<orders>-3  at 90  cut\n\
             \x20 ! east.<orders>/3: x\n\
             flow east->west: drill FAILED: 12 records would have been lost, something was behind for 0.2 s; \
             clients could have written after 21 ms; 1 of 2 group positions exact (1 compared with the source)\n"
        );
    }
}
