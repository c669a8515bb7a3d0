//! The comparison of one piece, by the daemon that leads the partition here.

use tradewind_wire::audit::{Audit, AuditItem, RangeDigest};

use super::{Compared, Pair, Piece, differences, note};
use crate::source::Source;
use crate::target::Target;

/// Bytes of batches here whose digests are made one, roughly.
const RANGE_BYTES: u64 = 4 << 20;
/// How often the beginning of a piece may move before it is given up: logs that are cut faster than they are read.
const TRIES: usize = 8;
/// Ranges of a piece that are looked at batch by batch; further ones are the next piece's.
const DETAILED: usize = 4;

const INSIDE: &str = "a side begins inside a batch of the other";
const OTHER_BOUNDS: &str = "other batches here than at the source";

/// Compares a piece. What was found is true of what both sides kept while they were asked.
pub(crate) async fn compare(
    target: &dyn Target,
    source: &dyn Source,
    pair: &Pair,
    piece: &Piece,
) -> Result<Compared, String> {
    let mut found = Compared {
        to: piece.from,
        ..Compared::default()
    };
    let mut first = piece.first;
    for _ in 0..TRIES {
        let from = found.to;
        if from >= piece.to {
            return Ok(found);
        }
        let here = ours(target, pair, from, piece.to).await?;
        let bounds = bounds(&here, from, pair.budget);
        let there = theirs(source, pair, bounds.clone(), false).await?;
        let (floor, why) = floor(pair, &here, &there);
        if floor > from {
            found.to = floor.min(piece.to);
            note(&mut found.skipped, from, found.to, why);
            first = true;
            continue;
        }
        if here.inside != there.inside || here.inside.is_some() {
            found.to = here.inside.max(there.inside).unwrap_or(from).min(piece.to);
            if first || here.inside == there.inside {
                note(&mut found.skipped, from, found.to, INSIDE);
            } else {
                note(&mut found.differences, from, found.to, OTHER_BOUNDS);
            }
            first = true;
            continue;
        }
        ranges(target, source, pair, (&here, &there), &bounds, &mut found).await?;
        return match found.to > from {
            true => Ok(found),
            false => Err(format!(
                "the end is {} here and {} at the source: a leader may be catching up",
                here.high_watermark, there.high_watermark
            )),
        };
    }
    Ok(found)
}

async fn ours(target: &dyn Target, pair: &Pair, from: i64, to: i64) -> Result<Audit, String> {
    let found = target
        .audit(pair.here.id, pair.partition, vec![from, to], true)
        .await;
    found.map_err(|error| format!("here: {error}"))
}

async fn theirs(source: &dyn Source, pair: &Pair, bounds: Vec<i64>, items: bool) -> Result<Audit, String> {
    let count = bounds.len().saturating_sub(1);
    let found = source.audit(pair.leader, &pair.source, bounds, items).await;
    let found = found.map_err(|error| error.to_string())?;
    if found.ranges.len() != count {
        return Err("the source answered something else".into());
    }
    Ok(found)
}

/// Cuts what was found here into ranges of about [`RANGE_BYTES`], the last of which ends where the looking ended.
fn bounds(here: &Audit, from: i64, budget: u64) -> Vec<i64> {
    let mut bounds = vec![from];
    let (mut in_range, mut all) = (0, 0);
    let mut end = here.complete_to;
    for item in &here.items {
        in_range += u64::from(item.bytes);
        all += u64::from(item.bytes);
        if all >= budget {
            end = item.next;
            break;
        }
        if in_range >= RANGE_BYTES && item.next < end {
            bounds.push(item.next);
            in_range = 0;
        }
    }
    // A log that ends here below what is wanted: the source says whether there is more.
    bounds.push(end.max(from + 1));
    bounds
}

/// Below which offset nothing can be compared, and why.
fn floor(pair: &Pair, here: &Audit, there: &Audit) -> (i64, &'static str) {
    let start = here.log_start.max(there.log_start);
    let policy = pair.here.configs.get("cleanup.policy");
    let compacts = policy.is_some_and(|policy| policy.contains("compact"));
    if there.compacted_to.is_none() && compacts {
        return (
            i64::MAX,
            "a compacted topic, of a source that does not say what it has compacted",
        );
    }
    match here.compacted_to.max(there.compacted_to) {
        Some(to) if to > start => (to, "compaction may have rewritten it on one side"),
        _ => (start, "not kept on both sides any more"),
    }
}

/// Compares range by range as far as both sides were looked at; batch by batch where the digests differ.
async fn ranges(
    target: &dyn Target,
    source: &dyn Source,
    pair: &Pair,
    (here, there): (&Audit, &Audit),
    bounds: &[i64],
    found: &mut Compared,
) -> Result<(), String> {
    let mut detailed = 0;
    for (range, digest) in bounds.windows(2).zip(&there.ranges) {
        let (from, to) = (range[0], range[1]);
        let mine = digest_of(&here.items, from, to);
        let is_complete = to <= there.complete_to.min(here.complete_to);
        if is_complete && mine == *digest && mine.damaged == 0 {
            found.batches += u64::from(mine.batches);
            found.bytes += mine.bytes;
            found.to = to;
            continue;
        }
        if detailed == DETAILED {
            return Ok(());
        }
        detailed += 1;
        let mine = ours(target, pair, from, to).await?;
        let their = theirs(source, pair, vec![from, to], true).await?;
        let complete = mine.complete_to.min(their.complete_to).min(to);
        let (floor, why) = floor(pair, &mine, &their);
        note(&mut found.skipped, from, floor.min(complete), why);
        let between = |items: &[AuditItem]| -> Vec<AuditItem> {
            let kept = items
                .iter()
                .filter(|item| item.base >= floor && item.base < complete);
            kept.copied().collect()
        };
        let (batches, bytes) = differences(
            &between(&mine.items),
            &between(&their.items),
            &mut found.differences,
        );
        found.batches += batches;
        found.bytes += bytes;
        found.to = found.to.max(complete);
        if complete < to {
            return Ok(());
        }
    }
    Ok(())
}

fn digest_of(items: &[AuditItem], from: i64, to: i64) -> RangeDigest {
    let mut digest = RangeDigest::default();
    for item in items.iter().filter(|item| (from..to).contains(&item.base)) {
        digest.add(item);
    }
    digest
}
