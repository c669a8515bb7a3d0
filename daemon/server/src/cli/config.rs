//! `config init`, `config check` and `config show`.

use serde::Serialize;

use super::args::{ConfigArgs, ConfigCommand};
use super::{Failure, Output};
use crate::config::{self, Overrides};

/// Runs a command on configuration; a wrong one is exit code 2, as it is for `start`.
pub(super) fn run(command: ConfigCommand, output: Output) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Init => {
            let text = config::template();
            output.text(&text, &text)?;
        }
        ConfigCommand::Check(args) => {
            #[derive(Serialize)]
            struct Checked {
                ok: bool,
                problems: Vec<String>,
            }
            let problems = match load(&args) {
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
            return Ok(if ok { 0 } else { 2 });
        }
        ConfigCommand::Show(args) => {
            let loaded = load(&args).map_err(|problems| Failure::Usage(problems.to_string()))?;
            let shown = config::show(&loaded.written);
            let row = |line: &config::Shown| vec![line.key.clone(), line.value.clone(), line.origin.clone()];
            output.rows(&shown, &["key", "value", "origin"], shown.iter().map(row))?;
        }
    }
    Ok(0)
}

fn load(args: &ConfigArgs) -> Result<config::Loaded, config::Problems> {
    config::load(&args.config, &Overrides::of_process(args.set.clone()))
}
