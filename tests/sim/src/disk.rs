//! What a power failure does to a log: of what was not flushed some prefix is left, perhaps torn, perhaps followed by
//! rubbish.
//!
//! Only the segments' record files are treated so. The small files beside them are replaced atomically and flushed, and
//! the metadata's database is left as the killed process wrote it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Result;
use tradewind_cluster::Cluster;

use crate::entropy::Dice;

/// One log's part that is not flushed.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    /// The first offset that may be lost.
    from: i64,
    end: i64,
}

/// What a power failure could take from this daemon.
pub fn unflushed(cluster: &Cluster) -> Vec<Tail> {
    let mut tails: Vec<Tail> = cluster
        .replicas()
        .iter()
        .map(|replica| Tail {
            dir: replica.log().dir().to_owned(),
            from: replica.log().flushed_end(),
            end: replica.log().end(),
        })
        .filter(|tail| tail.from < tail.end)
        .collect();
    tails.sort_by(|a, b| a.dir.cmp(&b.dir));
    tails
}

impl Tail {
    /// Takes some of it away and says what.
    pub fn lose(&self, dice: &Dice) -> Result<Option<String>> {
        let mut segments: Vec<PathBuf> = std::fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        segments.sort();
        let Some(active) = segments.last() else {
            return Ok(None);
        };
        let file = OpenOptions::new().read(true).write(true).open(active)?;
        let size = file.metadata()?.len();
        let mut position = 0;
        let mut head = [0; 12];
        while position + 12 <= size {
            file.read_exact_at(&mut head, position)?;
            let (offset, length) = head.split_at(8);
            let offset = i64::from_be_bytes(offset.try_into()?);
            let length = i32::from_be_bytes(length.try_into()?);
            if length <= 0 || offset >= self.from {
                break;
            }
            position += 12 + u64::from(length.unsigned_abs());
        }
        if position >= size {
            return Ok(None);
        }
        let keep = match dice.range(0, 4) {
            0 => size,
            1 => position,
            _ => dice.range(position, size + 1),
        };
        file.set_len(keep)?;
        let rubbish = dice.range(0, 3) == 0;
        if rubbish {
            let bytes: Vec<u8> = (0..dice.range(1, 200)).map(|_| dice.next() as u8).collect();
            file.write_all_at(&bytes, keep)?;
        }
        Ok(Some(format!(
            "{} lost {} of {} bytes from offset {} on{}",
            self.dir.file_name().unwrap_or_default().to_string_lossy(),
            size - keep,
            size - position,
            self.from,
            if rubbish { ", rubbish follows" } else { "" }
        )))
    }
}
