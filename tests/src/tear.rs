//! What a power cut does to a dead daemon's logs beyond what SIGKILL does: pages that nobody flushed are gone, in any
//! order, in part, or hold something else.
//!
//! A page cache cannot be dropped from outside, so the tail of each log is spoilt instead: from an offset on up to which
//! somebody was told of the records, or the daemon's own `checkpoints` say that they were flushed. What lies above may
//! have been flushed in truth; a power cut a moment earlier would have taken it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tradewind_wire::batch::{BATCH_OVERHEAD, BatchHeader};

/// The unit in which writes reach a disk.
const PAGE: u64 = 4096;

/// The file names of the segments in a partition's directory, in order.
pub fn segments(partition: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(partition)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Spoils what lies at or above `known` (per partition) in the logs of one topic in `data_dir`. Returns how many bytes were
/// open to it.
pub fn tear(data_dir: &Path, topic_id: &str, known: &[i64], rng: &mut StdRng) -> Result<u64> {
    let flushed = recovery_points(data_dir, topic_id)?;
    let mut open = 0;
    for (partition, &known) in known.iter().enumerate() {
        let dir = data_dir.join("topics").join(topic_id).join(partition.to_string());
        if !dir.exists() {
            continue;
        }
        let from = known.max(flushed.get(&partition).copied().unwrap_or(0));
        if let Some(last) = segments(&dir)?.last() {
            open += tear_file(last, from, rng)?;
        }
    }
    Ok(open)
}

/// The recovery points of a topic in the daemon's `checkpoints`, by partition.
fn recovery_points(data_dir: &Path, topic_id: &str) -> Result<HashMap<usize, i64>> {
    let path = data_dir.join("checkpoints");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut found = HashMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [topic, partition, _, recovery_point, ..] = fields[..]
            && topic == topic_id
        {
            found.insert(partition.parse()?, recovery_point.parse()?);
        }
    }
    Ok(found)
}

/// Spoils the batches of one segment that begin at or above `from`.
fn tear_file(path: &Path, from: i64, rng: &mut StdRng) -> Result<u64> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let (start, end) = (position_of(&mut file, from)?, file.metadata()?.len());
    if start >= end {
        return Ok(0);
    }
    let somewhere = |rng: &mut StdRng| rng.random_range(start..end);
    match rng.random_range(0..4) {
        // The file's length did not reach the disk.
        0 => file.set_len(somewhere(rng))?,
        // Its length did, the bytes did not.
        1 => {
            let at = somewhere(rng);
            zero(&file, at, end)?;
        }
        // One page in the middle did not, later ones did.
        2 => {
            let at = (somewhere(rng) / PAGE * PAGE).max(start);
            zero(&file, at, (at / PAGE * PAGE + PAGE).min(end))?;
        }
        // A page holds what was there before the file had it.
        _ => {
            let at = somewhere(rng);
            let length = usize::try_from((end - at).min(PAGE))?;
            let mut noise = vec![0; length];
            rng.fill_bytes(&mut noise);
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&noise)?;
        }
    }
    Ok(end - start)
}

fn zero(file: &File, from: u64, to: u64) -> Result<()> {
    let nothing = vec![0; usize::try_from(to - from)?];
    Ok(file.write_all_at(&nothing, from)?)
}

/// Where the first batch begins whose base offset is at least `from`; the file's end if there is none.
fn position_of(file: &mut File, from: i64) -> Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + BATCH_OVERHEAD) {
        let Ok(header) = BatchHeader::parse(header) else {
            break;
        };
        if header.base_offset >= from {
            break;
        }
        at += header.size();
    }
    Ok(at.min(bytes.len()) as u64)
}
