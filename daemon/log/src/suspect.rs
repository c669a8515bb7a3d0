//! `suspect`: a file beside the segments of a log that could not be flushed or was found damaged, there until the cluster
//! knows.
//!
//! After a failed flush the page cache may hold what the disk does not, and it may say so no second time. What
//! the next start finds above the flushed end proves nothing then, however sound it looks; it is cut. What is found
//! missing below it is remembered here too, because a daemon may end between finding it and telling it.

use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::log::Log;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Suspect {
    /// A flush failed, and only what lies below this was flushed before.
    pub(crate) flushed: Option<i64>,
    /// Flushed records are missing or damaged.
    pub(crate) damaged: bool,
    /// What a flush failed to save has been cut.
    pub(crate) unflushed_lost: bool,
}

/// Reads the file. One that cannot be right says the worst.
pub(crate) fn read(dir: &Path) -> io::Result<Option<Suspect>> {
    match std::fs::read(path(dir)) {
        Ok(bytes) => Ok(Some(parse(&bytes).unwrap_or_else(|| Suspect {
            damaged: true,
            ..Suspect::default()
        }))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the file, durably.
pub(crate) fn write(dir: &Path, suspect: Suspect) -> io::Result<()> {
    let flushed = suspect.flushed.unwrap_or(-1);
    let text = format!(
        "flushed {flushed}\ndamaged {}\nunflushed-lost {}\n",
        suspect.damaged, suspect.unflushed_lost
    );
    files::replace(&path(dir), text.as_bytes())
}

fn parse(bytes: &[u8]) -> Option<Suspect> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let flushed: i64 = value("flushed")?.parse().ok()?;
    Some(Suspect {
        flushed: (flushed >= 0).then_some(flushed),
        damaged: value("damaged")?.parse().ok()?,
        unflushed_lost: value("unflushed-lost")?.parse().ok()?,
    })
}

fn path(dir: &Path) -> PathBuf {
    dir.join("suspect")
}

impl Log {
    /// Says that the cluster knows what [`crate::Recovered`] told of this log, so that the next start need not tell it again.
    pub fn told(&self) -> io::Result<()> {
        if self.poisoned().is_some() {
            return Ok(());
        }
        files::remove_if_present(&path(&self.dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_anything_else_is_the_worst() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        for flushed in [None, Some(0), Some(77)] {
            for (damaged, unflushed_lost) in [(false, true), (true, false)] {
                let suspect = Suspect {
                    flushed,
                    damaged,
                    unflushed_lost,
                };
                write(dir.path(), suspect).unwrap();
                assert_eq!(read(dir.path()).unwrap(), Some(suspect));
            }
        }
        for text in [
            "",
            "flushed 3",
            "flushed x\ndamaged false\n",
            "flushed 3\ndamaged maybe\n",
        ] {
            std::fs::write(path(dir.path()), text).unwrap();
            let worst = Suspect {
                damaged: true,
                ..Suspect::default()
            };
            assert_eq!(read(dir.path()).unwrap(), Some(worst), "{text:?}");
        }
    }
}
