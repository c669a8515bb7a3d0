//! The reports of what moves a region: failover, switchover, failback.

use std::time::Duration;

use tradewind_mirror::failback_report::FailbackReport;
use tradewind_mirror::status::{FailoverReport, PromotedPosition};
use tradewind_mirror::switchover_report::SwitchoverReport;
use tradewind_wire::flow::HEARTBEATS_TOPIC;

use super::{Page, number};
use crate::cli::mirror;

/// Of a failover; `took` is how long the command waited for it.
pub(in crate::cli) fn failover(report: &FailoverReport, took: Duration) -> String {
    let mut page = Page::new("Failover", &report.flow, "clients write here", true);
    // Nobody counts heartbeats, and how many are missing says nothing.
    let heartbeats = format!(".{HEARTBEATS_TOPIC}");
    let topics = report
        .topics
        .iter()
        .filter(|topic| !topic.topic.ends_with(&heartbeats));
    let partitions = || topics.clone().flat_map(|topic| &topic.partitions);
    let lost = partitions().try_fold(0, |sum: i64, partition| Some(sum + partition.lost_records?));
    page.facts(&[
        ("records known at the source that are not here", number(lost)),
        ("until the command was done", format!("{} ms", took.as_millis())),
        ("group positions exact", exact(&report.groups)),
        ("partitions", partitions().count().to_string()),
    ]);
    let paused: Vec<String> = report
        .paused
        .iter()
        .map(|paused| format!("{}: the source may have more", mirror::paused(paused)))
        .collect();
    page.list("What stood still", &paused);
    let unanswered: Vec<String> = report
        .unanswered
        .iter()
        .map(|one| {
            format!(
                "{}-{}: its next leader aborts what was open",
                one.topic, one.partition
            )
        })
        .collect();
    page.list("Nobody says yet whether a transaction was open", &unanswered);
    let rows = report.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            vec![
                format!("{}-{}", topic.topic, partition.partition),
                partition.cut.to_string(),
                number(partition.lost_records),
            ]
        })
    });
    page.table(
        "Partitions",
        &["partition", "cut#", "records that did not arrive#"],
        rows,
    );
    let rows = report.aborted.iter().map(|transaction| {
        vec![
            format!("{}-{}", transaction.topic, transaction.partition),
            transaction.first_offset.to_string(),
            transaction.producer_id.to_string(),
            transaction.marker.to_string(),
        ]
    });
    page.table(
        "Transactions that were open and were aborted",
        &["partition", "began at#", "producer#", "abort marker#"],
        rows,
    );
    groups(&mut page, &report.groups);
    page.done()
}

/// Of a switchover.
pub(in crate::cli) fn switchover(report: &SwitchoverReport) -> String {
    let verdict = if report.promoted {
        "clients write here"
    } else {
        "given up"
    };
    let mut page = Page::new("Switchover", &report.flow, verdict, report.promoted);
    if !report.reason.is_empty() {
        page.say(&format!("{}.", report.reason));
    }
    let without = report.without_writes_ms;
    page.facts(&[
        (
            "without writes at either side, at most",
            without.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms} ms")),
        ),
        (
            "records lost",
            if report.promoted { "0" } else { "none moved" }.to_owned(),
        ),
        ("group positions exact", exact(&report.groups)),
        (
            "region epoch",
            report
                .region_epoch
                .map_or_else(|| "none".to_owned(), |epoch| epoch.to_string()),
        ),
    ]);
    let rows = report.topics.iter().flat_map(|topic| {
        (0..)
            .zip(&topic.ends)
            .map(|(partition, end): (i32, _)| vec![format!("{}-{partition}", topic.topic), end.to_string()])
    });
    page.table("Partitions", &["partition", "clients write from#"], rows);
    groups(&mut page, &report.groups);
    page.done()
}

/// Of a failback.
pub(in crate::cli) fn failback(report: &FailbackReport) -> String {
    let verdict = if report.ended {
        "its source is a mirror"
    } else {
        &report.step
    };
    let mut page = Page::new("Failback", &report.flow, verdict, report.ended);
    if !report.reason.is_empty() {
        page.say(&format!("{}.", report.reason));
    }
    let partitions = || report.topics.iter().flat_map(|topic| &topic.partitions);
    let kept: u64 = partitions().map(|partition| partition.records).sum();
    let time = |ms: Option<i64>| ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms} ms"));
    page.facts(&[
        ("records kept that never arrived here", kept.to_string()),
        (
            "until the source took no writes, once told",
            time(report.gave_way_took_ms),
        ),
        ("from the command to the end", time(report.took_ms)),
        ("group positions that came down", report.groups_total.to_string()),
        ("region epoch", report.region_epoch.to_string()),
    ]);
    let rows = report.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|kept| {
            let place = topic.rescue.as_deref().filter(|_| kept.records > 0);
            let anew = if kept.anew {
                "all of it, because it is compacted"
            } else {
                "from the cut on"
            };
            vec![
                format!("{}-{}", topic.topic, kept.partition),
                kept.cut.to_string(),
                kept.end.to_string(),
                kept.records.to_string(),
                kept.bytes.to_string(),
                place.unwrap_or("nothing was removed").to_owned(),
                anew.to_owned(),
            ]
        })
    });
    let head = [
        "partition",
        "cut#",
        "ended at#",
        "records kept#",
        "bytes#",
        "kept in",
        "copied from here",
    ];
    page.table("Partitions", &head, rows);
    let rows = report.groups.iter().map(|lowered| {
        vec![
            lowered.group.clone(),
            format!("{}-{}", lowered.topic, lowered.partition),
            lowered.before.to_string(),
            lowered.after.to_string(),
        ]
    });
    page.table(
        "Positions that came down",
        &["group", "partition", "from#", "to#"],
        rows,
    );
    let more = report.groups_total.saturating_sub(report.groups.len() as u64);
    if more > 0 {
        page.say(&format!("And {more} positions more."));
    }
    page.done()
}

/// How many positions are the same record as at the source, of all.
fn exact(positions: &[PromotedPosition]) -> String {
    let exact = positions.iter().filter(|position| position.status == "exact");
    format!("{} / {}", exact.count(), positions.len())
}

fn groups(page: &mut Page, positions: &[PromotedPosition]) {
    let rows = positions.iter().map(|position| {
        vec![
            position.group.clone(),
            format!("{}-{}", position.topic, position.partition),
            position.offset.to_string(),
            position.status.clone(),
        ]
    });
    page.table("Groups", &["group", "partition", "goes on at#", "status"], rows);
}

#[cfg(test)]
mod tests {
    use tradewind_mirror::failback_report::{KeptPartition, KeptTopic, LoweredGroup};
    use tradewind_mirror::status::{PromotedPartition, PromotedTopic, UnansweredPartition};
    use tradewind_mirror::switchover_report::MovedTopicReport;

    use super::super::tests::stands_alone;
    use super::*;

    fn position(status: &str) -> PromotedPosition {
        PromotedPosition {
            group: "a & b".to_owned(),
            topic: "<orders>".to_owned(),
            partition: 0,
            offset: 40,
            status: status.to_owned(),
        }
    }

    #[test]
    fn a_failover_says_what_did_not_arrive() {
        let partition = |partition, lost_records| PromotedPartition {
            partition,
            cut: 90,
            lost_records,
        };
        let mut report = FailoverReport {
            flow: "east->west".to_owned(),
            topics: vec![
                PromotedTopic {
                    topic: "<orders>".to_owned(),
                    partitions: vec![partition(0, Some(3)), partition(1, Some(4))],
                },
                PromotedTopic {
                    topic: "east.heartbeats".to_owned(),
                    partitions: vec![partition(0, None)],
                },
            ],
            groups: vec![position("exact"), position("cut")],
            paused: Vec::new(),
            aborted: Vec::new(),
            unanswered: vec![UnansweredPartition {
                topic: "<orders>".to_owned(),
                partition: 1,
            }],
        };
        let page = failover(&report, Duration::from_millis(120));
        stands_alone(&page);
        for said in [
            "<b>7</b>records known at the source that are not here",
            "<b>120 ms</b>until the command was done",
            "&lt;orders&gt;-1: its next leader aborts",
            "<b>1 / 2</b>group positions exact",
            "<td>&lt;orders&gt;-1</td><td class=\"n\">90</td><td class=\"n\">4</td>",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        // One that nobody knows makes the sum unknown.
        report.topics[0].partitions[0].lost_records = None;
        let page = failover(&report, Duration::ZERO);
        assert!(
            page.contains("<b>unknown</b>records known at the source"),
            "{page}"
        );
    }

    #[test]
    fn a_switchover_says_how_long_nobody_could_write() {
        let mut report = SwitchoverReport {
            flow: "east->west".to_owned(),
            attempt: 7,
            step: "done".to_owned(),
            ended: true,
            promoted: true,
            reason: String::new(),
            without_writes_ms: Some(412),
            region_epoch: Some(3),
            topics: vec![MovedTopicReport {
                topic: "<orders>".to_owned(),
                ends: vec![90, 91],
            }],
            groups: vec![position("exact")],
        };
        let page = switchover(&report);
        stands_alone(&page);
        assert!(page.contains("<b>412 ms</b>without writes"), "{page}");
        assert!(
            page.contains("<td>&lt;orders&gt;-1</td><td class=\"n\">91</td>"),
            "{page}"
        );
        (report.promoted, report.without_writes_ms) = (false, None);
        report.reason = "its time was up".to_owned();
        let page = switchover(&report);
        assert!(
            page.contains("class=\"failed\">given up") && page.contains("its time was up."),
            "{page}"
        );
    }

    #[test]
    fn a_failback_says_what_is_kept_and_where() {
        let report = FailbackReport {
            flow: "east->west".to_owned(),
            step: "done".to_owned(),
            ended: true,
            reason: String::new(),
            region_epoch: 3,
            gave_way_took_ms: Some(15),
            took_ms: Some(900),
            topics: vec![KeptTopic {
                topic: "<orders>".to_owned(),
                rescue: Some("orders.rescued".to_owned()),
                partitions: vec![KeptPartition {
                    partition: 0,
                    cut: 90,
                    end: 97,
                    records: 7,
                    bytes: 800,
                    anew: false,
                }],
            }],
            groups: vec![LoweredGroup {
                group: "a & b".to_owned(),
                topic: "<orders>".to_owned(),
                partition: 0,
                before: 95,
                after: 90,
            }],
            groups_total: 5,
        };
        let page = failback(&report);
        stands_alone(&page);
        for said in [
            "<b>7</b>records kept",
            "orders.rescued",
            "a &amp; b",
            "And 4 positions more.",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
    }
}
