//! The report of a drill.

use tradewind_mirror::drill_report::DrillReport;

use super::{Page, number};
use crate::cli::{drill, moment};

/// The page.
pub(in crate::cli) fn page(report: &DrillReport) -> String {
    let verdict = if report.passed { "passed" } else { "failed" };
    let mut page = Page::new("Drill", &report.flow, verdict, report.passed);
    page.say(&format!(
        "Begun {} and done after {} ms. Drill {}.",
        moment::utc(report.begun_ms),
        report.took_ms,
        report.id
    ));
    page.facts(&[
        ("records that would have been lost", number(report.rpo.records)),
        (
            "until clients could have written",
            format!("{:.0} ms", report.rto_ms),
        ),
        (
            "group positions exact",
            format!("{} / {}", report.groups.exact, report.groups.total),
        ),
        (
            "of them compared with the source",
            report.groups.compared.to_string(),
        ),
    ]);
    page.say(&format!("{}.", drill::rpo(report)));
    page.list("What was not as it should be", &report.failures);
    page.list("What needs attention besides", &report.attention);
    let head = [
        "partition",
        "daemon#",
        "cut#",
        "behind#",
        "committed to#",
        "steps (ms)",
        "branch",
    ];
    page.table(
        "Partitions",
        &head,
        report.partitions.iter().map(|partition| {
            let steps: Vec<String> = partition
                .steps
                .iter()
                .map(|step| format!("{} {:.1}", step.step, step.micros as f64 / 1_000.0))
                .collect();
            vec![
                format!("{}-{}", partition.topic, partition.partition),
                number(partition.node.map(i64::from)),
                number(partition.cut),
                number(partition.lost_records),
                number(partition.stable),
                steps.join(", "),
                drill::held(partition),
            ]
        }),
    );
    let head = [
        "group",
        "partition",
        "goes on at#",
        "next record#",
        "status",
        "at the source",
        "",
    ];
    page.table(
        "Groups",
        &head,
        report.positions.iter().map(|position| {
            let source = match position.at_source {
                Some(true) => "the same batch",
                Some(false) => "another batch",
                None => "not compared",
            };
            vec![
                position.group.clone(),
                format!("{}-{}", position.topic, position.partition),
                position.offset.to_string(),
                number(position.record),
                position.status.clone(),
                source.to_owned(),
                position.problem.clone().unwrap_or_default(),
            ]
        }),
    );
    page.done()
}

#[cfg(test)]
mod tests {
    use super::super::tests::stands_alone;
    use super::*;

    #[test]
    fn the_page_is_one_file_and_names_are_only_text() {
        let page = page(&drill::tests::report());
        assert!(page.contains("Drill of <code>east-&gt;west</code>: <span class=\"failed\">failed"));
        assert!(page.contains("east.&lt;orders&gt;-3") && page.contains("a &amp; b"));
        assert!(page.contains("<b>12</b>records that would have been lost"));
        stands_alone(&page);
    }
}
