//! What the programs share that do the same to clusters again and again, batch by batch, until it was done often enough:
//! their options, the file that keeps what all batches came to, and the command that repeats a batch with a fault.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::options::Options;

/// What all batches so far came to.
pub trait Totals: Default + Serialize + DeserializeOwned {
    /// How often it was done.
    fn done(&self) -> u64;
    /// The seed of the next batch.
    fn next_seed(&mut self) -> &mut u64;
    /// All of it in a line.
    fn told(&self) -> String;
}

/// One batch: where its files go, its seed, and how often it is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// An empty folder.
    pub folder: &'a Path,
    /// Everything that is drawn comes from this.
    pub seed: u64,
    /// At least one.
    pub count: u64,
}

struct Said {
    count: u64,
    totals: PathBuf,
    seed: u64,
    batch: u64,
    folder: Option<PathBuf>,
}

impl Said {
    fn read(program: &str, unit: &str, batch: u64) -> Result<Self> {
        let usage = format!("{program} --{unit} N --totals FILE [--seed S] [--batch N] [--folder DIR]");
        let mut options = Options::read(std::env::args().skip(1))?;
        let said = Self {
            count: options.take(&format!("--{unit}"))?.unwrap_or(0),
            totals: options.take("--totals")?.unwrap_or_default(),
            seed: options.take("--seed")?.unwrap_or(1),
            batch: options.take("--batch")?.unwrap_or(batch),
            folder: options.take("--folder")?,
        };
        options.end(&usage)?;
        if said.count == 0 || said.batch == 0 || said.totals.as_os_str().is_empty() {
            bail!(usage);
        }
        Ok(said)
    }

    fn folder(&self) -> Result<tempfile::TempDir> {
        let Some(folder) = &self.folder else {
            return Ok(tempfile::tempdir()?);
        };
        fs::create_dir_all(folder)?;
        Ok(tempfile::tempdir_in(folder)?)
    }

    /// `/dev/null` keeps nothing.
    fn keeps(&self) -> bool {
        self.totals != Path::new("/dev/null")
    }

    fn load<T: Totals>(&self) -> Result<T> {
        let path = &self.totals;
        if self.keeps() && path.exists() && fs::metadata(path)?.len() > 0 {
            let text = fs::read_to_string(path)?;
            return serde_json::from_str(&text).with_context(|| path.display().to_string());
        }
        let mut totals = T::default();
        *totals.next_seed() = self.seed;
        Ok(totals)
    }

    fn save<T: Totals>(&self, totals: &T) -> Result<()> {
        if self.keeps() {
            fs::write(&self.totals, serde_json::to_string_pretty(totals)?)?;
        }
        Ok(())
    }
}

/// Runs batches of `batch` each, unless the command line says another number, until the file of totals says that it was
/// done as often as `--unit` (say, `--kills`) asks. The file is written after each batch. The first batch that fails ends the run: its files stay
/// where they are, and the command that draws the same again is printed.
pub fn run<T: Totals>(
    program: &str,
    unit: &str,
    batch: u64,
    mut one: impl FnMut(Batch<'_>, &mut T) -> Result<()>,
) -> Result<()> {
    let said = Said::read(program, unit, batch)?;
    let mut totals: T = said.load()?;
    while totals.done() < said.count {
        let folder = said.folder()?;
        let seed = *totals.next_seed();
        let count = said.batch.min(said.count - totals.done());
        let batch = Batch {
            folder: folder.path(),
            seed,
            count,
        };
        if let Err(error) = one(batch, &mut totals) {
            println!("the clusters' files are in {}", folder.keep().display());
            println!("again: {program} --{unit} {count} --batch {count} --totals /dev/null --seed {seed}");
            return Err(error);
        }
        *totals.next_seed() += 1;
        said.save(&totals)?;
        println!("{}", totals.told());
    }
    Ok(())
}
