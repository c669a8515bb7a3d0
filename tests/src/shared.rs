//! Where the clusters are that all tests of one process share. Only touches folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A folder of this process below `parent`, of that name. It outlives the process, as the shared cluster does by a moment;
/// those of processes that have ended are removed.
///
/// # Errors
/// If the folder cannot be made.
pub fn folder(parent: &Path, name: &str) -> Result<PathBuf> {
    let all = parent.join(name);
    fs::create_dir_all(&all)?;
    for old in fs::read_dir(&all)?.flatten() {
        if !Path::new("/proc").join(old.file_name()).exists() {
            let _ = fs::remove_dir_all(old.path());
        }
    }
    let own = all.join(std::process::id().to_string());
    fs::create_dir_all(&own)?;
    Ok(own)
}
