//! Layers the sources of a configuration: file, then `conf.d/*.toml` beside it, then environment, then `--set`.
//!
//! Tables are merged key by key; a list replaces the whole list below it. Defaults come last, where a value is read
//! ([`super::settings`]), so that "not written" stays visible.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Map, Source, Value};

use super::problem::{Problem, Problems};
use super::settings::Settings;
use super::source;

/// What stands over the files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// Environment variables, of which those that begin with `TRADEWIND__` count.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set a.b=c` arguments, in order.
    pub(crate) set: Vec<String>,
}

impl Overrides {
    /// The process's environment and these `--set` arguments.
    pub(crate) fn of_process(set: Vec<String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self { environment, set }
    }
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What the daemon is told.
    pub(crate) settings: Settings,
    /// Every value that was written, with its origin.
    pub(crate) written: Value,
}

/// Reads `path` and what stands over it; every mistake of every source comes back together.
pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut builder = Config::builder();
    for file in files(path, &mut problems) {
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let from = problems.len();
                builder = builder.add_source(Layer(source::file(&file, &text, &mut problems)));
                problems[from..].sort_by_key(Problem::line);
            }
            Err(error) => {
                let origin = file.display().to_string();
                let unread = Problem::new(origin, format!("cannot read: {error}"));
                if file == path {
                    // Nothing else could be said about it.
                    return Err(Problems(vec![unread]));
                }
                problems.push(unread);
            }
        }
    }
    for (name, value) in environment(&overrides.environment) {
        let path: Vec<String> = name[PREFIX.len()..]
            .split("__")
            .map(|part| part.to_lowercase())
            .collect();
        builder = builder.add_source(Layer(source::single(&name, &path, &value, &mut problems)));
    }
    for argument in &overrides.set {
        let origin = format!("--set {argument}");
        match argument.split_once('=') {
            Some((key, value)) => {
                let path: Vec<String> = key.split('.').map(str::to_owned).collect();
                builder = builder.add_source(Layer(source::single(&origin, &path, value, &mut problems)));
            }
            None => problems.push(Problem::new(origin, "write KEY=VALUE")),
        }
    }
    let written = builder
        .build()
        .map(|config| config.cache)
        .map_err(|error| Problems(vec![Problem::new(path.display().to_string(), error.to_string())]))?;
    let problems = RefCell::new(problems);
    let settings = Settings::read(&written, &path.display().to_string(), &problems);
    match (settings, problems.into_inner()) {
        (Some(settings), problems) if problems.is_empty() => Ok(Loaded { settings, written }),
        (_, problems) => Err(Problems(problems)),
    }
}

/// The file itself and, sorted, the `*.toml` files of `conf.d` beside it.
fn files(path: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    let directory = path.parent().unwrap_or_else(|| Path::new("")).join("conf.d");
    match std::fs::read_dir(&directory) {
        Ok(entries) => {
            let mut more: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .collect();
            more.sort();
            files.extend(more);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => problems.push(Problem::new(
            directory.display().to_string(),
            format!("cannot read: {error}"),
        )),
    }
    files
}

/// Sorted, so that the order in which a process was given its variables does not matter.
fn environment(variables: &[(String, String)]) -> Vec<(String, String)> {
    let mut variables: Vec<_> = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .cloned()
        .collect();
    variables.sort();
    variables
}

#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

const PREFIX: &str = "TRADEWIND__";
