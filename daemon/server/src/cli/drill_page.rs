//! The report of a drill as one HTML file that needs nothing else: no script, no font, no other file.

use std::fmt::Write;

use tradewind_mirror::drill_report::DrillReport;

use super::{drill, moment};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b2733}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d5dde5;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.facts{display:flex;flex-wrap:wrap;gap:1rem}\
.facts div{border:1px solid #d5dde5;border-radius:.5rem;padding:.6rem 1rem}.facts b{display:block;font-size:1.3rem}\
.passed{color:#17693a}.failed{color:#a3221b}code{font-size:.9em}\
@media(prefers-color-scheme:dark){body{background:#12181f;color:#dbe4ec}th,td,.facts div{border-color:#33414e}\
.passed{color:#5fce8d}.failed{color:#ff8d84}}";

/// The page.
pub(super) fn page(report: &DrillReport) -> String {
    let (verdict, class) = match report.passed {
        true => ("passed", "passed"),
        false => ("failed", "failed"),
    };
    let flow = escaped(&report.flow);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Drill of {flow}: {verdict}</title>\
         <style>{STYLE}</style></head><body>\n\
         <h1>Drill of <code>{flow}</code>: <span class=\"{class}\">{verdict}</span></h1>\n\
         <p>Begun {} and done after {} ms. Drill <code>{}</code>.</p>\n",
        escaped(&moment::utc(report.begun_ms)),
        report.took_ms,
        escaped(&report.id)
    );
    let records = report
        .rpo
        .records
        .map_or_else(|| "unknown".to_owned(), |records| records.to_string());
    let facts = [
        ("records that would have been lost", records),
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
    ];
    html += "<div class=\"facts\">";
    for (what, value) in facts {
        let _ = write!(html, "<div><b>{}</b>{what}</div>", escaped(&value));
    }
    html += "</div>\n";
    let _ = writeln!(html, "<p>{}.</p>", escaped(&drill::rpo(report)));
    list(&mut html, "What was not as it should be", &report.failures);
    list(&mut html, "What needs attention besides", &report.attention);
    partitions(&mut html, report);
    positions(&mut html, report);
    html += "</body></html>\n";
    html
}

fn list(html: &mut String, title: &str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    let _ = write!(html, "<h2>{title}</h2>\n<ul>");
    for sentence in sentences {
        let _ = write!(html, "<li>{}</li>", escaped(sentence));
    }
    html.push_str("</ul>\n");
}

fn partitions(html: &mut String, report: &DrillReport) {
    html.push_str(
        "<h2>Partitions</h2>\n<table><tr><th>partition</th><th>daemon</th><th>cut</th><th>behind</th>\
         <th>committed to</th><th>steps (ms)</th><th>branch</th></tr>\n",
    );
    for partition in &report.partitions {
        let steps: Vec<String> = partition
            .steps
            .iter()
            .map(|step| format!("{} {:.1}", step.step, step.micros as f64 / 1_000.0))
            .collect();
        let _ = writeln!(
            html,
            "<tr><td>{}-{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&partition.topic),
            partition.partition,
            number(partition.node.map(i64::from)),
            number(partition.cut),
            number(partition.lost_records),
            number(partition.stable),
            escaped(&steps.join(", ")),
            escaped(&drill::held(partition))
        );
    }
    html.push_str("</table>\n");
}

fn positions(html: &mut String, report: &DrillReport) {
    html.push_str(
        "<h2>Groups</h2>\n<table><tr><th>group</th><th>partition</th><th>goes on at</th><th>next record</th>\
         <th>status</th><th>at the source</th><th></th></tr>\n",
    );
    for position in &report.positions {
        let source = match position.at_source {
            Some(true) => "the same batch",
            Some(false) => "another batch",
            None => "not compared",
        };
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}-{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td>\
             <td>{source}</td><td>{}</td></tr>",
            escaped(&position.group),
            escaped(&position.topic),
            position.partition,
            position.offset,
            number(position.record),
            escaped(&position.status),
            escaped(position.problem.as_deref().unwrap_or_default())
        );
    }
    html.push_str("</table>\n");
}

fn number(value: Option<i64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

/// Names of topics and groups are anybody's text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_and_names_are_only_text() {
        let page = page(&drill::tests::report());
        assert!(page.contains("Drill of <code>east-&gt;west</code>: <span class=\"failed\">failed"));
        assert!(page.contains("east.&lt;orders&gt;-3") && page.contains("a &amp; b"));
        assert!(page.contains("<b>12</b>records that would have been lost"));
        for outside in ["<orders>", "http:", "https:", "<script", "<link", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
