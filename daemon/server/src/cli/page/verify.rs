//! The report of a verification.

use super::Page;
use crate::cli::moment;
use crate::cli::verify::{Line, Report};

/// The page.
pub(in crate::cli) fn page(report: &Report) -> String {
    let mut page = Page::new(
        "Verification",
        &report.flow,
        report.verdict,
        report.verdict == "same",
    );
    page.say(&format!(
        "The source was looked at {}.",
        moment::utc(report.at_ms)
    ));
    page.facts(&[
        ("partitions", report.partitions.len().to_string()),
        ("batches compared", report.batches.to_string()),
        ("bytes compared", report.bytes.to_string()),
        (
            "stretches that differ",
            count(report, |line| line.differences.len()),
        ),
        ("stretches not compared", count(report, |line| line.skipped.len())),
    ]);
    let rows = report.partitions.iter().flat_map(|line| {
        let kinds = [("differs", &line.differences), ("not compared", &line.skipped)];
        kinds.into_iter().flat_map(move |(kind, stretches)| {
            stretches.iter().map(move |stretch| {
                vec![
                    format!("{}-{}", line.topic, line.partition),
                    kind.to_owned(),
                    stretch.from.to_string(),
                    (stretch.to - 1).to_string(),
                    stretch.what.clone(),
                ]
            })
        })
    });
    page.table(
        "Stretches",
        &["partition", "", "from offset#", "to offset#", ""],
        rows,
    );
    let rows = report.partitions.iter().map(|line| {
        vec![
            format!("{}-{}", line.topic, line.partition),
            line.to.to_string(),
            line.batches.to_string(),
            line.bytes.to_string(),
            line.problem.clone().unwrap_or_default(),
        ]
    });
    let head = [
        "partition",
        "compared below#",
        "batches#",
        "bytes#",
        "why no further",
    ];
    page.table("Partitions", &head, rows);
    page.done()
}

fn count(report: &Report, of: impl Fn(&Line) -> usize) -> String {
    report.partitions.iter().map(of).sum::<usize>().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tests::stands_alone;
    use crate::cli::verify::tests::report;

    #[test]
    fn the_page_says_what_differs() {
        let page = super::page(&report("<orders>"));
        stands_alone(&page);
        assert!(page.contains("class=\"failed\">different"), "{page}");
        assert!(
            page.contains("<td>&lt;orders&gt;-3</td><td>differs</td><td class=\"n\">40</td>"),
            "{page}"
        );
        assert!(page.contains("nobody answers"), "{page}");
    }
}
