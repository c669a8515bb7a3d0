//! `config init`, `config check` and `config show`.

use serde::Serialize;

use crate::cli::args::ConfigArgs;
use crate::cli::{Failure, Output};
use crate::config::{self, Overrides};

/// Prints a commented file.
pub(super) fn init(output: Output) -> Result<u8, Failure> {
    let text = config::template();
    output.text(&text, &text)?;
    Ok(0)
}

/// Says what is wrong with a file.
pub(super) fn check(args: &ConfigArgs, output: Output) -> Result<u8, Failure> {
    #[derive(Serialize)]
    struct Checked {
        ok: bool,
        problems: Vec<String>,
    }
    let problems = match load(args) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    };
    let ok = problems.is_empty();
    let text = if ok {
        format!("{}: good\n", args.config.display())
    } else {
        String::new()
    };
    if !ok {
        eprintln!("{}", problems.join("\n"));
    }
    output.text(&Checked { ok, problems }, &text)?;
    Ok(if ok { 0 } else { 2 })
}

/// Prints the values in force.
pub(super) fn show(args: &ConfigArgs, output: Output) -> Result<u8, Failure> {
    let loaded = load(args).map_err(|problems| Failure::Usage(problems.to_string()))?;
    let shown = config::show(&loaded.written);
    let row = |line: &config::Shown| vec![line.key.clone(), line.value.clone(), line.origin.clone()];
    output.rows(&shown, &["key", "value", "origin"], shown.iter().map(row))?;
    Ok(0)
}

fn load(args: &ConfigArgs) -> Result<config::Loaded, config::Problems> {
    config::load(&args.config, &Overrides::of_process(args.set.clone()))
}
