//! One mirror partition led here: what to ask the source next, and what to do with its answers.
//!
//! Pure: answers and the time come in, the next step and the writes come out. The position is always the log end here; a
//! track is thrown away and begun anew from the log whenever a write did not go as decided.
//!
//! ```text
//! begin(log, lineage) -> Check (where does our last source epoch end there?) -> Read -> writes
//!                          | ends below our end: diverged                        | out of range -> Range -> gap, or Check
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use tradewind_wire::flow::Lineage;
use tradewind_wire::ids::TopicId;

use super::batches::{BadSource, split_runs};
use super::{Compared, EpochEnd, Fetched, PartitionOf, SourceEnds};
use crate::target::{LogError, LogState, Tombstones};

/// How long a track waits after a fault that may pass, in ms.
pub const RETRY_MS: i64 = 250;
/// How long a halted track waits before it looks again whether what stopped it still holds, in ms.
pub const RECHECK_MS: i64 = 30_000;
/// How many answers in a row may bring only records above the high watermark that stands beside them. Kafka reads its
/// watermark before the records, and so may tell of one too few.
const ABOVE_AT_MOST: u8 = 3;

/// A mirror partition here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionHere {
    /// The topic's name.
    pub name: String,
    /// The topic's id.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
}

/// What a track wants from its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read the log and the lineage, then [`Track::begin`].
    Begin,
    /// Ask where this source epoch ends, then [`Track::on_epoch_end`].
    Check {
        /// The epoch of the last batch here.
        epoch: i32,
    },
    /// Ask where the source partition stands, then [`Track::on_range`].
    Range,
    /// Read from this offset, then [`Track::on_fetched`].
    Fetch {
        /// The first wanted offset.
        from: i64,
    },
    /// Nothing before this time (ms).
    Wait {
        /// When to ask again.
        until_ms: i64,
    },
}

/// One append: perhaps a lineage entry first, then whole batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The source epoch of the batches.
    pub epoch: i32,
    /// To be entered before the batches, if they begin a new source epoch or follow a gap.
    pub lineage: Option<Lineage>,
    /// The log end that they follow.
    pub previous_end: i64,
    /// The offset after them.
    pub next: i64,
    /// The batches.
    pub bytes: Bytes,
}

/// How a partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Finding out where it stands.
    Starting,
    /// Copying.
    Active,
    /// Waiting for something that should pass; the reason stands beside it.
    Retrying,
    /// Halted: the source's history is not ours.
    Diverged,
    /// Halted for another reason.
    Failed,
}

/// The state of one mirror partition.
#[derive(Debug)]
pub struct Track {
    /// The partition here.
    pub here: PartitionHere,
    /// The partition at the source.
    pub source: PartitionOf,
    cluster_id: String,
    source_epoch: i32,
    phase: Phase,
    leader_epoch: i32,
    end: i64,
    read_from: i64,
    last_epoch: Option<i32>,
    /// A lineage entry made for a batch that never came: (epoch, first offset). Not to be entered twice.
    entered: Option<(i32, i64)>,
    /// Where the source's records of the newest lineage entry begin: no later entry may begin below. Above the records that
    /// are read only where that entry tells of a gap further on.
    entered_up_to: i64,
    /// Nothing is read until the assignment says so again.
    barred: bool,
    pending_gap: Option<Gap>,
    gap: Option<Gap>,
    /// How far DeleteRecords has removed records at the source, as it last said; and here.
    deleted: i64,
    deleted_here: i64,
    /// Whether the source's leader has compared histories in this session: only then it may delete here.
    matched: bool,
    /// A newer source epoch whose first batch was seen behind our end: histories are compared once more before it is written.
    crossing: Option<i32>,
    /// The end here and the newer epoch behind it for which that was done.
    crossed: Option<(i64, i32)>,
    /// The epoch of the source's leader with which histories were compared, if it has confirmed it; else -1.
    compared_under: i32,
    /// Whether the source has confirmed, since this track last began, that our records are its own.
    compared: bool,
    /// Answers in a row that brought only what is not committed at the source.
    above: u8,
    /// What the log here says of tombstones; and since when they may have been missed, as far as this track knows.
    tombstones: Option<Tombstones>,
    away_since_ms: Option<i64>,
    /// Whether it was said that some may have been, for this absence; and whether the gap that says so is being written.
    tombstones_told: bool,
    telling: bool,
    /// Whether the last write was refused, or what was to be written: then an answer of the source alone proves nothing.
    refused: bool,
    health: Health,
    reason: Option<String>,
    ends: Option<SourceEnds>,
    caught_up_ms: Option<i64>,
    trimmed: usize,
    /// The push session that reads for this track, if one is open or asked for.
    session: Option<u32>,
}

/// Records that the source no longer had when they were wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first missing offset.
    pub from: i64,
    /// The first offset that was there again.
    pub to: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begin,
    Check(i32),
    Range,
    Read,
    Wait(i64),
}

impl Track {
    /// A track that has not looked at its log yet. `source_epoch` is the source leader's epoch by its metadata.
    pub fn new(here: PartitionHere, source: PartitionOf, cluster_id: &str, source_epoch: i32) -> Self {
        Self {
            here,
            source,
            cluster_id: cluster_id.to_owned(),
            source_epoch,
            phase: Phase::Begin,
            leader_epoch: -1,
            end: 0,
            read_from: 0,
            last_epoch: None,
            entered: None,
            entered_up_to: 0,
            barred: false,
            pending_gap: None,
            gap: None,
            deleted: 0,
            deleted_here: 0,
            matched: false,
            crossing: None,
            crossed: None,
            compared_under: -1,
            compared: false,
            above: 0,
            tombstones: None,
            away_since_ms: None,
            tombstones_told: false,
            telling: false,
            refused: false,
            health: Health::Starting,
            reason: None,
            ends: None,
            caught_up_ms: None,
            trimmed: 0,
            session: None,
        }
    }

    /// The next step.
    pub fn step(&self, now_ms: i64) -> Step {
        match self.phase {
            _ if self.barred => Step::Wait {
                until_ms: now_ms.saturating_add(RECHECK_MS),
            },
            Phase::Wait(until_ms) if now_ms < until_ms => Step::Wait { until_ms },
            Phase::Begin | Phase::Wait(_) => Step::Begin,
            Phase::Check(epoch) => Step::Check { epoch },
            Phase::Range => Step::Range,
            Phase::Read => Step::Fetch { from: self.read_from },
        }
    }

    /// Takes position and history from the log led here and its lineage.
    pub fn begin(&mut self, log: LogState, lineage: &[Lineage], now_ms: i64) {
        self.leader_epoch = log.leader_epoch;
        self.end = log.end;
        self.read_from = log.end;
        self.pending_gap = None;
        self.deleted_here = log.deleted;
        self.matched = false;
        self.compared = false;
        self.compared_under = -1;
        self.telling = false;
        self.crossing = None;
        self.gap = lineage
            .iter()
            .rev()
            .find(|entry| entry.source_first > entry.target_first)
            .map(|entry| Gap {
                from: entry.target_first,
                to: entry.source_first,
            });
        // An entry at the end was made for a batch that never came: it says nothing about what is here.
        self.entered = lineage
            .last()
            .filter(|entry| entry.target_first >= log.end && entry.source_cluster_id == self.cluster_id)
            .map(|entry| (entry.source_epoch, entry.target_first));
        let newest = lineage.last().filter(|entry| {
            entry.source_cluster_id == self.cluster_id && entry.source_topic_id == self.source.id
        });
        self.entered_up_to = newest.map_or(0, |entry| entry.source_first);
        let last = lineage.iter().rev().find(|entry| entry.target_first < log.end);
        self.last_epoch = last.map(|entry| entry.source_epoch);
        match last {
            Some(entry) if entry.source_cluster_id != self.cluster_id => self.halt(
                Health::Diverged,
                format!(
                    "the records here come from cluster {}, the source is cluster {}",
                    entry.source_cluster_id, self.cluster_id
                ),
                now_ms,
            ),
            // Batches from before leader epochs (KIP-101) cannot be checked by them.
            Some(entry) if entry.source_epoch < 0 => {
                self.compared = true;
                self.phase = Phase::Read;
            }
            Some(entry) => self.phase = Phase::Check(entry.source_epoch),
            None if log.end > 0 => {
                self.halt(
                    Health::Failed,
                    "it holds records that no flow wrote".into(),
                    now_ms,
                );
            }
            None => {
                self.compared = true;
                self.phase = Phase::Read;
            }
        }
    }

    /// What the log here says of the tombstones of its topic; after [`Track::begin`].
    pub fn on_tombstones(&mut self, tombstones: Option<Tombstones>, now_ms: i64) {
        self.tombstones = tombstones;
        if self.away_since_ms.is_none() {
            // A mirror that begins has no record yet whose deletion it could miss.
            let written_ms = tombstones.and_then(|tombstones| tombstones.written_ms);
            self.away_since_ms = if self.end == 0 { Some(now_ms) } else { written_ms };
        }
    }

    /// Whether records that are missing at the source may have been deletions that compaction has removed since.
    fn may_have_missed_tombstones(&self, now_ms: i64) -> bool {
        let Some(tombstones) = self.tombstones else {
            return false;
        };
        let since_ms = self.caught_up_ms.max(self.away_since_ms);
        let away_ms = since_ms.map_or(i64::MAX, |since_ms| now_ms.saturating_sub(since_ms));
        self.end > 0 && !self.tombstones_told && away_ms > tombstones.kept_ms
    }

    /// As [`Track::on_epoch_end`], from a leader that has confirmed its own epoch: records of epochs up to that one follow what
    /// it has compared, whoever sends them. One without some of our records would have written over them in a newer epoch.
    pub fn on_compared(&mut self, answer: Compared, now_ms: i64) {
        self.on_epoch_end(answer.end, now_ms);
        if self.compared {
            self.compared_under = answer.leader_epoch;
        }
    }

    /// The source says where our last source epoch ends there.
    pub fn on_epoch_end(&mut self, answer: EpochEnd, now_ms: i64) {
        self.session = None;
        let Some(last) = self.last_epoch else {
            self.phase = Phase::Begin;
            return;
        };
        let crossing = self.crossing.take();
        if answer.epoch == last && answer.end >= self.end {
            self.crossed = crossing.map(|epoch| (self.end, epoch));
            self.compared = true;
            self.phase = Phase::Read;
        } else if crossing.is_none() && self.source_epoch >= 0 && self.source_epoch <= last {
            // Our epoch is still the newest there: an old leader, or one that has not caught up with its own log.
            self.retry(
                format!(
                    "the source's epoch {last} ends at {} there, at {} here",
                    answer.end, self.end
                ),
                now_ms,
            );
        } else {
            let fork = if answer.epoch < 0 {
                "is unknown".to_owned()
            } else {
                format!("ends at {}", answer.end)
            };
            let reason = format!(
                "the source's epoch {last} {fork} there, but records up to {} are here: the source has lost them (an unclean \
                 election, or a copy put back) or is another one",
                self.end
            );
            self.halt(Health::Diverged, reason, now_ms);
        }
    }

    /// The source says where the partition stands, after a read out of range.
    pub fn on_range(&mut self, ends: SourceEnds, now_ms: i64) {
        self.ends = Some(ends);
        self.session = None;
        if ends.start > ends.high_watermark {
            let reason = format!(
                "the source says that it begins at {} and ends at {}",
                ends.start, ends.high_watermark
            );
            self.retry(reason, now_ms);
        } else if self.read_from < ends.start {
            // A mirror that begins on an old topic misses nothing that it ever promised.
            if self.end > 0 {
                let from = self.pending_gap.map_or(self.end, |gap| gap.from);
                self.pending_gap = Some(Gap { from, to: ends.start });
                self.gap = self.pending_gap;
            }
            self.read_from = ends.start;
            self.phase = Phase::Read;
        } else if self.read_from > ends.high_watermark {
            let reason = format!(
                "the source ends at {}, below {} here: it has lost records, or its leader has not caught up with its own log",
                ends.high_watermark, self.read_from
            );
            self.retry(reason, now_ms);
        } else {
            self.phase = Phase::Read;
        }
    }

    /// The source says that records below `deleted` were removed there by DeleteRecords, not by retention. Whatever it
    /// says, what it still has counts as not deleted.
    /// A source that does not say keeps to what was said before.
    pub fn on_deleted(&mut self, deleted: Option<i64>, ends: SourceEnds) {
        self.deleted = deleted.unwrap_or(self.deleted).min(ends.start);
    }

    /// Up to where records are to be deleted here because they were at the source, if that is not done yet and the source's
    /// history is ours.
    pub fn to_delete(&self) -> Option<i64> {
        let up_to = self.deleted.min(self.end);
        (self.matched && self.phase == Phase::Read && up_to > self.deleted_here).then_some(up_to)
    }

    /// Records were deleted here: the log begins at `start` now, which is below what was wanted as long as the high
    /// watermark is.
    pub fn on_deleted_here(&mut self, start: i64) {
        self.deleted_here = start.min(self.deleted);
    }

    /// What a read brought. The writes are to be carried out in order; after each comes [`Track::on_written`], and the
    /// first that fails ends them with [`Track::on_write_failed`].
    pub fn on_fetched(&mut self, fetched: Fetched, now_ms: i64) -> VecDeque<Write> {
        match fetched {
            Fetched::Records { ends, bytes } => return self.on_records(ends, &bytes, now_ms),
            Fetched::OutOfRange => self.phase = Phase::Range,
            // A daemon that has just started may not know it yet; whether the topic is gone, discovery decides.
            Fetched::UnknownTopic => self.retry("the source's leader does not know the topic".into(), now_ms),
            Fetched::Elsewhere => self.retry("the source's leader is moving".into(), now_ms),
            Fetched::Refused(reason) => self.retry(
                format!("the source refuses reads: {reason}; let the flow's user read the topic there"),
                now_ms,
            ),
            Fetched::Missing => self.retry("the source's answers leave the partition out".into(), now_ms),
        }
        VecDeque::new()
    }

    fn on_records(&mut self, ends: SourceEnds, bytes: &Bytes, now_ms: i64) -> VecDeque<Write> {
        self.on_ends(ends, now_ms);
        let (runs, fault) = split_runs(bytes, self.read_from, ends.high_watermark);
        if let Some(first) = runs.runs.first()
            && self.must_compare(first.epoch)
        {
            self.crossing = Some(first.epoch);
            self.compared = false;
            self.phase = Phase::Check(self.last_epoch.unwrap_or(-1));
            return VecDeque::new();
        }
        match runs.above {
            Some(offset) if runs.runs.is_empty() => {
                self.above = self.above.saturating_add(1);
                if self.above >= ABOVE_AT_MOST {
                    let reason = format!(
                        "the source sends offset {offset}, above its own high watermark {}",
                        ends.high_watermark
                    );
                    self.retry(reason, now_ms);
                    self.refused = true;
                }
                return VecDeque::new();
            }
            _ => self.above = 0,
        }
        self.trimmed += runs.trimmed;
        if let Some((_, to)) = runs.hole
            && self.pending_gap.is_none()
            && self.may_have_missed_tombstones(now_ms)
        {
            self.pending_gap = Some(Gap { from: self.end, to });
            self.gap = self.pending_gap;
            self.telling = true;
        }
        let mut writes = VecDeque::new();
        let (mut end, mut epoch) = (self.end, self.last_epoch);
        for run in runs.runs {
            let gap = self.pending_gap.take();
            let entered = self
                .entered
                .take()
                .is_some_and(|(epoch, first)| epoch == run.epoch && first <= run.first);
            let new = epoch != Some(run.epoch) && !entered || gap.is_some();
            let begins = gap.map_or(run.first, |gap| gap.to.max(run.first));
            let lineage = new.then(|| {
                self.entered_up_to = self.entered_up_to.max(begins);
                Lineage {
                    target_first: gap.map_or(run.first, |gap| gap.from),
                    source_cluster_id: self.cluster_id.clone(),
                    source_topic_id: self.source.id,
                    source_epoch: run.epoch,
                    source_first: self.entered_up_to,
                }
            });
            epoch = Some(run.epoch);
            writes.push_back(Write {
                epoch: run.epoch,
                lineage,
                previous_end: end,
                next: run.next,
                bytes: run.bytes,
            });
            end = run.next;
        }
        self.read_from = runs.next;
        match fault {
            Some(fault @ (BadSource::OldFormat { .. } | BadSource::Damaged { .. })) if writes.is_empty() => {
                self.halt(Health::Failed, fault.to_string(), now_ms);
            }
            _ => {}
        }
        writes
    }

    /// It does what it is for: something was written, there is nothing to write, or nothing was refused so far.
    fn is_well(&mut self) {
        self.health = Health::Active;
        self.reason = None;
        self.refused = false;
    }

    /// Whether histories are to be compared before records of `epoch` are written behind ours. Since they last were the
    /// source may have elected a leader that lacked some of ours, and have grown past our end again. A push session ends
    /// with its leader, and behind a gap there is nothing to compare.
    fn must_compare(&self, epoch: i32) -> bool {
        let newer = self.last_epoch.is_some_and(|last| last >= 0 && epoch > last);
        let compared =
            self.matched || epoch <= self.compared_under || self.crossed == Some((self.end, epoch));
        newer && !compared && self.pending_gap.is_none()
    }

    /// The source's ends are known to be these now.
    pub fn on_ends(&mut self, ends: SourceEnds, now_ms: i64) {
        self.ends = Some(ends);
        // What the source does not keep any more is not missing.
        let is_level = self.end.max(ends.start) >= ends.high_watermark;
        if is_level {
            self.caught_up_ms = Some(now_ms);
            self.tombstones_told = false;
        }
        // One that is behind and gets nothing this time waits for its turn, unless its writes are what fails.
        if self.phase == Phase::Read && !self.barred && (is_level || !self.refused) {
            self.is_well();
        }
    }

    /// A write of [`Track::on_fetched`] is in the log, which now ends at `end`.
    pub fn on_written(&mut self, write: &Write, end: i64, now_ms: i64) {
        if end != write.next {
            self.on_write_failed(&LogError::OtherEnd { end }, now_ms);
            return;
        }
        self.end = end;
        self.last_epoch = Some(write.epoch);
        self.is_well();
        // Told once for each absence; the entry with it is in the metadata log.
        self.tombstones_told |= std::mem::take(&mut self.telling);
        if self.ends.is_some_and(|ends| end >= ends.high_watermark) {
            self.caught_up_ms = Some(now_ms);
            self.tombstones_told = false;
        }
    }

    /// A lineage entry is in the metadata log; the partition's leader epoch here may have been raised by it.
    pub fn on_lineage(&mut self, leader_epoch: i32) {
        self.leader_epoch = leader_epoch;
    }

    /// A write did not go as decided: everything begins again from the log.
    pub fn on_write_failed(&mut self, error: &LogError, now_ms: i64) {
        self.refused = true;
        match error {
            LogError::NotLeader | LogError::OtherEpoch { .. } | LogError::OtherEnd { .. } => {
                // Passes within moments as a rule; a halt keeps its own reason.
                if matches!(self.health, Health::Starting | Health::Active) {
                    self.health = Health::Retrying;
                    self.reason = Some(error.to_string());
                }
                self.session = None;
                self.phase = Phase::Wait(now_ms + RETRY_MS / 5);
            }
            LogError::BadBatches(reason) => self.halt(Health::Failed, reason.clone(), now_ms),
            LogError::Full => {
                let reason = format!(
                    "{error}, up to node.disk_reserve: make room there or move copies away; copying goes on by itself"
                );
                self.halt(Health::Failed, reason, now_ms);
            }
            LogError::NotEnoughReplicas | LogError::TimedOut | LogError::Unusable(_) => {
                self.retry(error.to_string(), now_ms);
            }
        }
    }

    /// Something that should pass: begin again a little later.
    pub fn retry(&mut self, reason: String, now_ms: i64) {
        self.health = Health::Retrying;
        self.reason = Some(reason);
        self.session = None;
        self.phase = Phase::Wait(now_ms + RETRY_MS);
    }

    /// The assignment forbids reading, for this reason; or, with `None`, allows it (again).
    pub fn bar(&mut self, reason: Option<&str>, now_ms: i64) {
        match reason {
            Some(reason) => {
                self.halt(Health::Failed, reason.to_owned(), now_ms);
                self.barred = true;
            }
            None if self.barred => {
                self.barred = false;
                self.phase = Phase::Begin;
            }
            None => {}
        }
    }

    /// Something that a person must look at: nothing is copied until it has changed.
    pub fn halt(&mut self, health: Health, reason: String, now_ms: i64) {
        self.health = health;
        self.reason = Some(reason);
        self.session = None;
        self.phase = Phase::Wait(now_ms + RECHECK_MS);
    }

    /// Push session `handle` was asked for: no other is until this track begins again.
    pub fn on_session_started(&mut self, handle: u32) {
        self.session = Some(handle);
    }

    /// Whether the source's leader has compared histories in the open session.
    pub fn is_matched(&self) -> bool {
        self.matched
    }

    /// The push session that is open or asked for. Frames of any other are not this track's any more.
    pub fn session(&self) -> Option<u32> {
        self.session
    }

    /// The source's leader has compared histories: the session's records follow ours.
    pub fn on_match(&mut self) {
        if matches!(self.phase, Phase::Check(_)) {
            self.phase = Phase::Read;
        }
        self.matched = true;
        self.compared = true;
    }

    /// Whether what is here is known to be the source's, since this daemon last looked at its log: only then a position there
    /// means anything here.
    pub fn is_compared(&self) -> bool {
        self.compared && self.health != Health::Diverged
    }

    /// The source epoch to compare by when a push session starts; -1 if there is nothing to compare. Behind a gap there is
    /// not: the source no longer knows where our last epoch ended.
    pub fn session_epoch(&self) -> i32 {
        match self.pending_gap {
            Some(_) => -1,
            None => self.last_epoch.unwrap_or(-1),
        }
    }

    /// The next offset wanted from the source.
    pub fn read_from(&self) -> i64 {
        self.read_from
    }

    /// The source's metadata name this leader epoch now.
    pub fn on_source_epoch(&mut self, epoch: i32) {
        self.source_epoch = epoch;
    }

    /// The epoch to append under.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The log end here, as far as this track knows.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The epoch at the source of the last batch here.
    pub fn last_epoch(&self) -> Option<i32> {
        self.last_epoch
    }

    /// How it does, and why if not well.
    pub fn health(&self) -> (Health, Option<&str>) {
        (self.health, self.reason.as_deref())
    }

    /// The newest gap in what was copied. What somebody deleted was not missed.
    pub fn gap(&self) -> Option<Gap> {
        let deleted = self.deleted.max(self.deleted_here);
        self.gap.filter(|gap| gap.to > deleted).map(|gap| Gap {
            from: gap.from.max(deleted),
            to: gap.to,
        })
    }

    /// Where the source stood when it last said so.
    pub fn ends(&self) -> Option<SourceEnds> {
        self.ends
    }

    /// When everything known at the source was last here, in ms.
    pub fn caught_up_ms(&self) -> Option<i64> {
        self.caught_up_ms
    }

    /// How many batches were packed again.
    pub fn trimmed(&self) -> usize {
        self.trimmed
    }
}

#[cfg(test)]
#[path = "track_tests.rs"]
mod tests;
