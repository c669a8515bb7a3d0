//! Reports as one HTML file each that needs nothing else: no script, no font, no other file.
//!
//! [`Page`] writes; a file for each kind of report says what is in it. Whatever a caller hands over is text, never markup: names
//! of topics and groups are anybody's.

pub(super) mod drill;
pub(super) mod moves;
pub(super) mod verify;

use std::fmt::Write;

use super::Failure;
use super::args::PageArgs;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b2733}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d5dde5;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}.facts{display:flex;flex-wrap:wrap;gap:1rem}\
.facts div{border:1px solid #d5dde5;border-radius:.5rem;padding:.6rem 1rem}.facts b{display:block;font-size:1.3rem}\
.passed{color:#17693a}.failed{color:#a3221b}code{font-size:.9em}\
@media(prefers-color-scheme:dark){body{background:#12181f;color:#dbe4ec}th,td,.facts div{border-color:#33414e}\
.passed{color:#5fce8d}.failed{color:#ff8d84}}";

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    html: String,
}

impl Page {
    /// What was done, to which flow, and how it ended; `good` decides the colour of that.
    pub(super) fn new(what: &str, flow: &str, verdict: &str, good: bool) -> Self {
        let [what, flow, verdict] = [what, flow, verdict].map(escaped);
        let class = if good { "passed" } else { "failed" };
        Self {
            html: format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
                 <meta name=\"viewport\" content=\"width=device-width\"><title>{what} of {flow}: {verdict}</title>\
                 <style>{STYLE}</style></head><body>\n\
                 <h1>{what} of <code>{flow}</code>: <span class=\"{class}\">{verdict}</span></h1>\n"
            ),
        }
    }

    /// A paragraph.
    pub(super) fn say(&mut self, text: &str) {
        let _ = writeln!(self.html, "<p>{}</p>", escaped(text));
    }

    /// The figures that count: what each is, and its value.
    pub(super) fn facts(&mut self, facts: &[(&str, String)]) {
        self.html += "<div class=\"facts\">";
        for (what, value) in facts {
            let _ = write!(self.html, "<div><b>{}</b>{}</div>", escaped(value), escaped(what));
        }
        self.html += "</div>\n";
    }

    /// Sentences under a title; nothing if there are none.
    pub(super) fn list(&mut self, title: &str, sentences: &[String]) {
        if sentences.is_empty() {
            return;
        }
        let _ = write!(self.html, "<h2>{}</h2>\n<ul>", escaped(title));
        for sentence in sentences {
            let _ = write!(self.html, "<li>{}</li>", escaped(sentence));
        }
        self.html += "</ul>\n";
    }

    /// A table under a title; nothing if it has no rows. Columns whose head ends with `#` hold numbers.
    pub(super) fn table(&mut self, title: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        let _ = write!(self.html, "<h2>{}</h2>\n<table><tr>", escaped(title));
        for column in head {
            let _ = write!(
                self.html,
                "<th>{}</th>",
                escaped(column.trim_end_matches(NUMBERS))
            );
        }
        self.html += "</tr>\n";
        for row in rows {
            self.html += "<tr>";
            for (cell, column) in row.iter().zip(head) {
                let class = if column.ends_with(NUMBERS) {
                    " class=\"n\""
                } else {
                    ""
                };
                let _ = write!(self.html, "<td{class}>{}</td>", escaped(cell));
            }
            self.html += "</tr>\n";
        }
        self.html += "</table>\n";
    }

    /// The file's text.
    pub(super) fn done(mut self) -> String {
        self.html += "</body></html>\n";
        self.html
    }
}

/// Marks the head of a column of numbers.
const NUMBERS: char = '#';

/// Writes the page to the file that was asked for, if one was, and says so.
pub(super) fn save(args: &PageArgs, page: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(file) = &args.html else { return Ok(()) };
    std::fs::write(file, page()).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    eprintln!("the report is in {}", file.display());
    Ok(())
}

/// A number that may not be known.
pub(super) fn number(value: Option<i64>) -> String {
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
pub(super) mod tests {
    use super::*;

    /// That `page` needs nothing else, and holds no name as markup.
    pub(in crate::cli) fn stands_alone(page: &str) {
        for outside in ["<orders>", "http:", "https:", "<script", "<link", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_is_handed_over_is_only_text() {
        let mut page = Page::new("Drill", "<orders>", "failed", false);
        page.say("<orders>");
        page.facts(&[("<orders>", "<orders>".to_owned())]);
        page.list("<orders>", &["<orders>".to_owned()]);
        page.list("never", &[]);
        page.table(
            "<orders>",
            &["<orders>", "n#"],
            [vec!["<orders>".to_owned(), "5".to_owned()]],
        );
        page.table("never", &["x"], []);
        let page = page.done();
        stands_alone(&page);
        assert!(
            page.contains("<td>&lt;orders&gt;</td><td class=\"n\">5</td>"),
            "{page}"
        );
        assert!(!page.contains("never"));
    }
}
