//! `DATA_DIR/checkpoints`: per partition the log start, the recovery point and a hint of the watermark, in one file that is
//! replaced as a whole.
//!
//! Text, one line per partition, with a CRC-32C at the end. The `clean` mark says that the daemon stopped in order and
//! nothing has been written since; the first write after a start takes it away.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use tradewind_wire::ids::TopicId;

use crate::files;
use crate::log::OpenHint;

/// What is saved of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionCheckpoint {
    /// [`crate::Log::start`].
    pub log_start: i64,
    /// [`crate::Log::flushed_end`].
    pub recovery_point: i64,
    /// The high watermark: after a restart only a hint, never a truncation point.
    pub high_watermark: i64,
    /// How far DeleteRecords has moved the log start; the rest of the way was retention's. At most `log_start`.
    pub deleted: i64,
}

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoints {
    /// By topic and partition.
    pub partitions: BTreeMap<(TopicId, i32), PartitionCheckpoint>,
    /// Whether the daemon stopped in order after this was written.
    pub clean: bool,
}

/// Why the checkpoints could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is damaged. Opening the logs without it scans them whole.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

const HEAD: &str = "tradewind-checkpoints 1";

impl Checkpoints {
    /// Reads the file in `data_dir`; empty and not clean if there is none.
    pub fn load(data_dir: &Path) -> Result<Self, CheckpointError> {
        let path = path(data_dir);
        let text = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(CheckpointError::Io { path, source }),
        };
        Self::parse(&text).map_err(|reason| CheckpointError::Damaged {
            path,
            reason: reason.to_owned(),
        })
    }

    /// Replaces the file in `data_dir`, durably.
    pub fn store(&self, data_dir: &Path) -> Result<(), CheckpointError> {
        let path = path(data_dir);
        files::replace(&path, self.to_text().as_bytes())
            .map_err(|source| CheckpointError::Io { path, source })
    }

    /// What to open a partition's log with.
    pub fn hint(&self, topic: TopicId, partition: i32) -> OpenHint {
        let known = self.partitions.get(&(topic, partition)).copied();
        OpenHint {
            log_start: known.unwrap_or_default().log_start,
            recovery_point: known.unwrap_or_default().recovery_point,
            // A log that the file does not name was not there at the clean stop.
            clean_shutdown: self.clean && known.is_some(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\nclean {}\n", self.clean);
        for ((topic, partition), c) in &self.partitions {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{topic} {partition} {} {} {}",
                c.log_start, c.recovery_point, c.high_watermark
            );
            // Only where there is one: the line is then an older program's too.
            if c.deleted > 0 {
                let _ = write!(text, " {}", c.deleted);
            }
            text.push('\n');
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text")?;
        let (body, crc) = text.rsplit_once("crc ").ok_or("no checksum")?;
        if u32::from_str_radix(crc.trim_end(), 16) != Ok(crc32c::crc32c(body.as_bytes())) {
            return Err("checksum does not match");
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return Err("unknown version");
        }
        let clean = match lines.next() {
            Some("clean true") => true,
            Some("clean false") => false,
            _ => return Err("no clean mark"),
        };
        let partitions = lines
            .map(|line| entry(line).ok_or("bad line"))
            .collect::<Result<_, _>>()?;
        Ok(Self { partitions, clean })
    }
}

fn entry(line: &str) -> Option<((TopicId, i32), PartitionCheckpoint)> {
    let mut fields = line.split(' ');
    let key = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let mut checkpoint = PartitionCheckpoint {
        log_start: fields.next()?.parse().ok()?,
        recovery_point: fields.next()?.parse().ok()?,
        high_watermark: fields.next()?.parse().ok()?,
        deleted: 0,
    };
    if let Some(deleted) = fields.next() {
        checkpoint.deleted = deleted.parse().ok()?;
    }
    fields.next().is_none().then_some((key, checkpoint))
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("checkpoints")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoints {
        let mut all = Checkpoints {
            clean: true,
            ..Checkpoints::default()
        };
        for i in 0..5u8 {
            let checkpoint = PartitionCheckpoint {
                log_start: i.into(),
                recovery_point: 10,
                high_watermark: -1,
                deleted: i64::from(i % 2),
            };
            all.partitions
                .insert((TopicId([i; 16]), i32::from(i)), checkpoint);
        }
        all
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoints::load(dir.path()).unwrap(), Checkpoints::default());
        sample().store(dir.path()).unwrap();
        assert_eq!(Checkpoints::load(dir.path()).unwrap(), sample());
    }

    #[test]
    fn a_partition_that_is_not_named_was_not_stopped_cleanly() {
        let hint = sample().hint(TopicId([9; 16]), 0);
        assert_eq!(hint, OpenHint::default());
        assert!(sample().hint(TopicId([2; 16]), 2).clean_shutdown);
    }

    #[test]
    fn damage_is_told_apart_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let text = sample().to_text();
        for cut in [0, 10, text.len() / 2, text.len() - 3] {
            std::fs::write(path(dir.path()), &text[..cut]).unwrap();
            assert!(
                matches!(
                    Checkpoints::load(dir.path()),
                    Err(CheckpointError::Damaged { .. })
                ),
                "{cut}"
            );
        }
    }
}
