//! The rehearsal of one partition's promotion, by the daemon that leads it, on a branch of its log.
//!
//! ```text
//! branch ─ open ─ promote ─ canary ─ positions ─ checksum ─ drop
//! ```
//!
//! Nobody sees the branch: it has an id of its own and no place in the metadata, no follower and no client. The log that it
//! came from is only read, and goes on taking what is mirrored. The branch is gone when the rehearsal ends, however it ends;
//! what a crash leaves the next start removes ([`DataDir`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tradewind_log::{BranchLimits, DataDir, Log, LogEnv, TailCache};
use tradewind_wire::audit::{AuditItem, Auditor, RangeDigest};
use tradewind_wire::batch::{Batch, BatchBuilder, TimestampType, split};
use tradewind_wire::clock::Clock;
use tradewind_wire::compression::Codec;
use tradewind_wire::drill::{Checksum, Found, Rehearsal, Rehearsed, Timed};
use tradewind_wire::ids::TopicId;

use crate::audit::feed;
use crate::inner::Inner;
use crate::replica::Replica;

/// Records that are written as a client would.
const CANARIES: usize = 3;
/// Bytes per read.
const READ_BYTES: usize = 64 << 10;
/// What one batch may unpack to.
const MAX_DECOMPRESSED: usize = 64 << 20;
/// Batches that are looked through for a record, at most: compaction may have emptied some.
const BATCHES: usize = 1_000;

/// The one place for rehearsals of a daemon.
pub(crate) type Rehearsals = Arc<Semaphore>;

/// Makes the place.
pub(crate) fn rehearsals() -> Rehearsals {
    Arc::new(Semaphore::new(1))
}

/// Rehearses; waits until no other rehearsal runs here, which counts as time of this one.
pub(crate) async fn rehearse(
    inner: &Arc<Inner>,
    replica: Arc<Replica>,
    wish: Rehearsal,
) -> Result<Rehearsed, String> {
    let time = Duration::from_millis(wish.time_ms);
    let until = inner.clock.monotonic().saturating_add(time);
    let place = tokio::time::timeout(time, inner.rehearsals.clone().acquire_owned()).await;
    let place = place.map_err(|_| "another rehearsal on its daemon took all of its time".to_owned())?;
    let place = place.map_err(|error| error.to_string())?;
    let mut env = LogEnv::new(Arc::clone(&inner.clock));
    env.room = Arc::clone(&inner.room);
    // The canary is read from the file, and the metric of the cache is that of the real logs.
    env.tail = Arc::new(TailCache::new(0));
    let data_dir = Arc::clone(&inner.data_dir);
    let id = TopicId::random(inner.rng.as_ref());
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        let clock = Arc::clone(&env.clock);
        let branch = Branch { data_dir, id };
        let mut steps = Steps {
            clock,
            done: Vec::new(),
        };
        let mut told = on_branch(&replica, &branch, &env, (&wish, until), &mut steps)?;
        let dropped = steps.run("drop", || branch.data_dir.remove_branch(id));
        dropped.map_err(|error| format!("cannot remove the branch: {error}"))?;
        told.steps = steps.done;
        Ok(told)
    });
    working.await.map_err(|error| error.to_string())?
}

/// The place of a branch; what is in it goes with it.
struct Branch {
    data_dir: Arc<DataDir>,
    id: TopicId,
}

impl Drop for Branch {
    fn drop(&mut self) {
        if let Err(error) = self.data_dir.remove_branch(self.id) {
            tracing::error!(%error, "cannot remove a branch; the next start will");
        }
    }
}

/// Steps and how long they took.
struct Steps {
    clock: Arc<dyn Clock>,
    done: Vec<Timed>,
}

impl Steps {
    fn run<T>(&mut self, step: &str, act: impl FnOnce() -> T) -> T {
        let began = self.clock.monotonic();
        let result = act();
        let took = self.clock.monotonic().saturating_sub(began);
        self.done.push(Timed {
            step: step.to_owned(),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
        result
    }
}

fn on_branch(
    replica: &Replica,
    place: &Branch,
    env: &LogEnv,
    (wish, until): (&Rehearsal, Duration),
    steps: &mut Steps,
) -> Result<Rehearsed, String> {
    let view = replica.leader(None).map_err(|error| error.to_string())?;
    if env.room.is_full() {
        return Err("the disk is full up to its reserve".to_owned());
    }
    let (log, cut) = (replica.log(), view.high_watermark);
    let dir = place.data_dir.branch_dir(place.id, wish.partition);
    // A copy must not take the room from what is mirrored meanwhile.
    let free = place.data_dir.volume().usable_bytes;
    let free = free.map_or(u64::MAX, |bytes| u64::try_from(bytes).unwrap_or(0));
    let limits = BranchLimits {
        copy_bytes: wish.copy_bytes.min(free / 2),
        until,
    };
    let made = steps.run("branch", || log.branch(&dir, cut, limits));
    let made = made.map_err(|error| format!("no branch at offset {cut}: {error}"))?;
    // Whoever led when it was made may have lost the log's end to another since.
    replica
        .leader(Some(view.epoch))
        .map_err(|error| error.to_string())?;
    if env.clock.monotonic() >= until {
        return Err("no time was left to open the branch".to_owned());
    }
    let config = (*log.config()).clone();
    let opened = steps.run("open", || Log::open(&dir, config, made.hint, env));
    let (branch, recovered) = opened.map_err(|error| format!("the branch cannot be opened: {error}"))?;
    let mut told = Rehearsed {
        cut,
        log_start: branch.start(),
        linked_segments: made.linked_segments as u64,
        linked_bytes: made.linked_bytes,
        copied_bytes: made.copied_bytes,
        ..Rehearsed::default()
    };
    if recovered.damaged || recovered.truncated_bytes > 0 {
        let detail = recovered.detail.unwrap_or_default();
        told.failures
            .push(format!("recovery found the branch damaged: {detail}"));
    }
    if branch.end() != cut {
        told.failures.push(format!(
            "the branch ends at {}, not at the high watermark {cut}",
            branch.end()
        ));
    }
    told.cut = branch.end();
    told.leader_epoch = view.epoch.saturating_add(1);
    steps.run("promote", || promote(&branch, &mut told));
    let wrote = steps.run("canary", || canary(&branch, &mut told, env.clock.now_ms()));
    if let Err(reason) = wrote {
        told.failures
            .push(format!("no record could be written: {reason}"));
    }
    told.positions = steps.run("positions", || {
        let all = wish.positions.iter();
        all.map(|position| next_record(&branch, told.cut, *position))
            .collect()
    });
    let in_time = || env.clock.monotonic() < until;
    match steps.run("checksum", || {
        checksum(log, &branch, told.cut, wish.check_bytes, in_time)
    }) {
        Ok(checksum) => {
            if checksum.same == Some(false) {
                told.failures.push(format!(
                    "offsets {} to {} are not what the log has",
                    checksum.from,
                    checksum.to - 1
                ));
            }
            told.checksum = Some(checksum);
        }
        Err(reason) => told.failures.push(reason),
    }
    branch.discard();
    Ok(told)
}

/// What a promotion does to a log: records up to the cut are inherited, and a leader epoch above begins there.
fn promote(branch: &Log, told: &mut Rehearsed) {
    branch.set_inherited(told.cut);
    branch.assign_epoch(told.leader_epoch);
    told.stable = branch.last_stable_offset(told.cut);
    let before = branch.end_offset_for_epoch(told.leader_epoch - 1);
    if let Some((epoch, end)) = before.filter(|(_, end)| *end != told.cut) {
        told.failures.push(format!(
            "epoch {epoch} ends at {end}: consumers would be sent there, not to the cut {}",
            told.cut
        ));
    }
}

/// Writes what a client would write first, durably, and reads it back.
fn canary(branch: &Log, told: &mut Rehearsed, now_ms: i64) -> Result<(), String> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for number in 0..CANARIES {
        builder.append(now_ms, Some(b"drill"), Some(number.to_string().as_bytes()), &[]);
    }
    let batch = Batch::parse(builder.build()).map_err(|error| error.to_string())?;
    let appended = branch.append(batch, told.leader_epoch);
    let appended = appended.map_err(|error| error.to_string())?;
    branch.flush().map_err(|error| error.to_string())?;
    told.canary = Some(appended.base_offset);
    if appended.base_offset != told.cut {
        return Err(format!(
            "it went to {}, not to {}",
            appended.base_offset, told.cut
        ));
    }
    let read = branch.read_stored(told.cut, READ_BYTES, i64::MAX);
    let read = read.map_err(|error| error.to_string())?;
    let found = split(Bytes::from(read.records.concat())).next();
    let found = found.and_then(Result::ok).map(|batch| *batch.header());
    let right = |header: &tradewind_wire::batch::BatchHeader| {
        header.base_offset == told.cut
            && header.partition_leader_epoch == told.leader_epoch
            && header.next_offset() == told.cut + CANARIES as i64
    };
    if !found.as_ref().is_some_and(right) {
        return Err("it is not read back".to_owned());
    }
    Ok(())
}

/// What a group would have read next that stands at `position` at the source.
fn next_record(branch: &Log, cut: i64, position: i64) -> Found {
    let mut found = Found {
        offset: position.min(cut),
        ..Found::default()
    };
    if found.offset < branch.start() {
        found.problem = Some(format!(
            "the log begins at {}: its `auto.offset.reset` would decide",
            branch.start()
        ));
        return found;
    }
    if let Err(problem) = look_for(branch, cut, &mut found) {
        found.problem = Some(problem);
    }
    found
}

fn look_for(branch: &Log, cut: i64, found: &mut Found) -> Result<(), String> {
    let mut at = found.offset;
    for _ in 0..BATCHES {
        let read = branch.read_stored(at, READ_BYTES, branch.end());
        let read = read.map_err(|error| error.to_string())?;
        if read.bytes == 0 {
            return Err("there is nothing to read".to_owned());
        }
        at = read.next_offset;
        for batch in split(Bytes::from(read.records.concat())) {
            let batch = batch.map_err(|error| error.to_string())?;
            let header = *batch.header();
            if header.is_control() || header.next_offset() <= found.offset {
                continue;
            }
            let records = batch
                .records(MAX_DECOMPRESSED)
                .map_err(|error| format!("the batch at {}: {error}", header.base_offset))?;
            let next = records.iter().map_while(Result::ok).map(|record| record.offset);
            let next = next.filter(|offset| *offset >= found.offset).min();
            if let Some(next) = next {
                found.record = Some(next);
                if header.base_offset < cut {
                    let item = AuditItem::of(&batch);
                    found.batch = Some((item.base, item.next, item.digest));
                }
                return Ok(());
            }
        }
    }
    Err(format!("no record within {BATCHES} reads"))
}

/// The digest of the newest whole batches of the branch below the cut, of so many bytes, compared with the log's. Read in pieces
/// of [`AUDIT_BYTES_MAX`](tradewind_wire::audit::AUDIT_BYTES_MAX) at most.
fn checksum(
    log: &Log,
    branch: &Log,
    cut: i64,
    bytes: u64,
    in_time: impl Fn() -> bool,
) -> Result<Checksum, String> {
    let from = branch.recent_from(cut, bytes);
    let from = from.map_err(|error| format!("the newest part is not found: {error}"))?;
    let (mut here, mut there) = (RangeDigest::default(), RangeDigest::default());
    let (mut to, mut whole) = (from, true);
    while to < cut {
        if !in_time() {
            return Err(format!("no time was left to compare offsets {to} to {}", cut - 1));
        }
        let next = digest(&mut here, branch, to, cut)?;
        if next <= to {
            break;
        }
        whole &= digest(&mut there, log, to, next)? == next;
        to = next;
    }
    // Asked after both were read: what was removed or rewritten meanwhile is no difference.
    let comparable = whole && log.start() <= from && log.compactable_to() <= from;
    // Where nothing was looked at nothing is the same.
    let looked = to == cut && here.batches > 0;
    Ok(Checksum {
        from,
        to,
        batches: here.batches,
        bytes: here.bytes,
        digest: format!("{:016x}", here.digest),
        same: (comparable && looked).then_some(here == there && here.damaged == 0),
    })
}

/// Takes batches between two offsets into a digest, and says up to where.
fn digest(sum: &mut RangeDigest, log: &Log, from: i64, to: i64) -> Result<i64, String> {
    let mut auditor = Auditor::new(vec![from, to], true).ok_or("bounds that are no range")?;
    feed(&mut auditor, log, to)?;
    let found = auditor.finish(log.start(), to, None);
    found.items.iter().for_each(|item| sum.add(item));
    Ok(found.complete_to)
}
