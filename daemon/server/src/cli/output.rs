//! Prints results as a table for people or as JSON for programs.

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

    /// Prints `value` as JSON, or `rows` under `head` as a table.
    pub(crate) fn rows<T: Serialize>(
        self,
        value: &T,
        head: &[&str],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => {
                let mut table = Table::new();
                table
                    .load_preset(presets::NOTHING)
                    .set_header(head.iter().map(|name| name.to_uppercase()));
                for row in rows {
                    table.add_row(row);
                }
                print(&format!("{}\n", table.trim_fmt()))
            }
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

/// Writes to standard output; a reader that has gone (`| head`) is no failure.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
