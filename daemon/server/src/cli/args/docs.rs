//! `docs/reference/cli.md`: every command's help, as the program prints it. The test says whether it is current, and
//! writes it if `WRITE_DOCS=1`.

use std::fmt::Write;
use std::path::Path;

use clap::{Command, CommandFactory};

use super::Cli;

const HEAD: &str = "# Commands

Every command of `tradewind`, as its `--help` prints it. This page is written by
`WRITE_DOCS=1 cargo test -p tradewind-server args::docs`, and a test says when it is out of date.

Data go to standard output, everything else to standard error. Exit codes: 0 good, 1 something failed or is not as it
should be, 2 wrong usage or configuration (nothing was begun). `-o json` prints what programs read: the names of its
fields stay, new ones may come. Every command works against Apache Kafka too, except those that ask a daemon over HTTP
(`status`, `mirror`, `failover`, `failback`, `switchover`, `drill`); one whose API a cluster does not offer says so, and `tradewind cluster api-versions`
shows what it does.
";

/// The page.
fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut cli = Cli::command();
    cli.build();
    section(&mut cli, "tradewind", 2, &mut text);
    text
}

fn section(command: &mut Command, path: &str, depth: usize, text: &mut String) {
    let help = command.clone().bin_name(path).render_help().to_string();
    let _ = write!(text, "\n{} {path}\n\n```text\n", "#".repeat(depth));
    for line in help.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("```\n");
    let names: Vec<String> = command
        .get_subcommands()
        .map(|child| child.get_name().to_owned())
        .collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(child) = command.find_subcommand_mut(name) {
            section(child, &format!("{path} {name}"), (depth + 1).min(4), text);
        }
    }
}

#[test]
fn the_page_of_commands_is_current() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/cli.md"
    ));
    let page = page();
    if std::env::var_os("WRITE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let differs = written
        .lines()
        .zip(page.lines())
        .position(|(is, ought)| is != ought);
    assert!(
        written == page,
        "docs/reference/cli.md is out of date from line {:?} on: WRITE_DOCS=1 writes it",
        differs.map(|line| line + 1)
    );
}
