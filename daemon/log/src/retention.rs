//! Forgetting: whole closed segments that are too old or too many, and producers that no longer write.

use std::sync::Arc;

use crate::log::{Log, State};
use crate::segment::Segment;
use crate::truncate::advance_start;

impl Log {
    /// Applies `retention.ms`, `retention.bytes`, `segment.ms` and the expiry of producers. Returns the base offsets of the
    /// segments that were deleted, and deletes their files: not for a network thread.
    ///
    /// Nothing at or above `high_watermark` goes; a mirror that holds records back passes a lower one.
    pub fn retain(&self, now_ms: i64, high_watermark: i64) -> Vec<i64> {
        let _files = self.replacing.lock();
        let doomed = {
            let mut state = self.lock();
            if self.check_open(&state).is_err() {
                return Vec::new();
            }
            let oldest_ms = now_ms.saturating_sub(state.config.producer_expiry_ms);
            state.producers.expire(oldest_ms);
            if self.roll_if_aged(&mut state, now_ms, high_watermark).is_err() && self.poisoned().is_some() {
                // The error is told. On a full disk, what can go must all the more.
                return Vec::new();
            }
            let doomed = match new_start(&state, now_ms, high_watermark) {
                Some(start) => advance_start(&mut state, start),
                None => Vec::new(),
            };
            self.publish(&state);
            doomed
        };
        self.delete_files(&doomed);
        doomed.iter().map(|s| s.base).collect()
    }

    /// Closes the active segment if `segment.ms` says so: what a follower does, whose leader decides what is deleted.
    /// Returns whether it did. Flushes a file: not for a network thread.
    pub fn roll_if_due(&self, now_ms: i64) -> bool {
        let mut state = self.lock();
        let base = state.active().base;
        let open = self.check_open(&state).is_ok();
        open && self.roll_if_aged(&mut state, now_ms, i64::MIN).is_ok() && state.active().base != base
    }

    /// Closes the active segment if its time has come, so that an idle partition forgets too.
    fn roll_if_aged(&self, state: &mut State, now_ms: i64, high_watermark: i64) -> Result<(), ()> {
        let (config, end) = (Arc::clone(&state.config), state.end);
        let expired = end <= high_watermark
            && state
                .segments
                .back()
                .is_some_and(|s| is_expired(state, s, now_ms));
        let active = state.active();
        let aged = active.is_aged(&config, now_ms);
        if !active.is_empty() && (aged || expired) {
            self.roll(state, end).map_err(|_| ())?;
        }
        Ok(())
    }
}

/// The log start after retention, if it moves.
fn new_start(state: &State, now_ms: i64, high_watermark: i64) -> Option<i64> {
    let retention_bytes = u64::try_from(state.config.retention_bytes).ok();
    let mut size: u64 = state.segments.iter().map(|s| s.size).sum();
    let mut start = None;
    for (segment, next) in state.segments.iter().zip(state.segments.iter().skip(1)) {
        let too_many = retention_bytes.is_some_and(|limit| size - segment.size >= limit);
        let goes = state.config.delete && (too_many || is_expired(state, segment, now_ms));
        if next.base > high_watermark || !goes {
            break;
        }
        size -= segment.size;
        start = Some(next.base);
    }
    start.filter(|start| *start > state.start)
}

/// Whether the segment's newest record is older than `retention.ms`. Without timestamps its first append counts.
fn is_expired(state: &State, segment: &Segment, now_ms: i64) -> bool {
    let newest = segment.max_timestamp.map(|max| max.0).or(segment.first_append_ms);
    state.config.delete
        && state.config.retention_ms >= 0
        && newest.is_some_and(|newest| now_ms.saturating_sub(newest) > state.config.retention_ms)
}
