//! Prints results as a table for people or as JSON for programs.

use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::args::Format;

/// Where results go, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Prints to standard output in this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// How results are printed.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `value` as JSON, or `rows` under `head` as a table.
    pub(crate) fn rows<T: Serialize>(
        self,
        value: &T,
        head: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => print(&table(head, rows)),
        }
    }

    /// Prints `value` as JSON, or `text` for people.
    pub(crate) fn text<T: Serialize>(self, value: &T, text: &str) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => print(text),
        }
    }

    fn json<T: Serialize>(self, value: &T) -> io::Result<()> {
        print(&format!("{}\n", serde_json::to_string_pretty(value)?))
    }
}

/// `rows` under `head`, each line ended.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(head.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    format!("{}\n", table.trim_fmt())
}

/// A value that may be missing, as it stands in a table: `-` for none, as Kafka's tools have it.
pub(super) fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Numbers of brokers or partitions, as they stand in a table: `1,2,3`, `-` for none.
pub(super) fn numbers(numbers: &[i32]) -> String {
    if numbers.is_empty() {
        return "-".to_owned();
    }
    let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Writes to standard output; a reader that has gone (`| head`) is no failure.
pub(super) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
