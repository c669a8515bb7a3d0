//! Which leader epoch begins at which offset: what replicas compare to find where they diverge (KIP-101, KIP-279).
//!
//! Kept in memory, written to `leader-epochs` in Kafka's text format by [`crate::Log::flush`] before the flushed end moves:
//! an epoch whose records are flushed is therefore always in the file, and later ones are found again by recovery's scan.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// The epochs of one log, oldest first: both fields strictly rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    epoch: i32,
    start: i64,
}

impl Epochs {
    /// The newest epoch.
    pub(crate) fn last(&self) -> Option<i32> {
        self.entries.last().map(|e| e.epoch)
    }

    /// The epoch's first offset, if it is known.
    pub(crate) fn start_of(&self, epoch: i32) -> Option<i64> {
        self.entries.iter().find(|e| e.epoch == epoch).map(|e| e.start)
    }

    /// The epoch that an offset belongs to: the newest that begins at it or before it.
    pub(crate) fn of(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|e| e.start <= offset);
        after.checked_sub(1).map(|i| self.entries[i].epoch)
    }

    /// Lets `epoch` begin at `start` unless it is already known. Epochs without records vanish. Returns whether anything
    /// changed; an epoch older than the newest changes nothing.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> bool {
        if epoch < 0 || self.last().is_some_and(|last| epoch <= last) {
            return false;
        }
        self.entries.retain(|e| e.start < start);
        self.entries.push(Entry { epoch, start });
        true
    }

    /// The largest known epoch that is at most `asked`, and where it ends in a log that ends at `log_end`. An `asked` below
    /// every known epoch is answered with itself and the first known offset, as Kafka does.
    pub(crate) fn end_offset(&self, asked: i32, log_end: i64) -> Option<(i32, i64)> {
        let after = self.entries.partition_point(|e| e.epoch <= asked);
        let end = self.entries.get(after).map_or(log_end, |e| e.start);
        match after.checked_sub(1) {
            Some(i) => Some((self.entries[i].epoch, end)),
            None if self.entries.is_empty() => None,
            None => Some((asked, end)),
        }
    }

    /// Forgets epochs that begin at or after `end`.
    pub(crate) fn truncate(&mut self, end: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|e| e.start < end);
        self.entries.len() != before
    }

    /// Forgets epochs that end at or before `start`; the one that holds `start` begins there now.
    pub(crate) fn trim(&mut self, start: i64) -> bool {
        let after = self.entries.partition_point(|e| e.start <= start);
        let Some(holding) = after.checked_sub(1) else {
            return false;
        };
        let changed = holding > 0 || self.entries[holding].start != start;
        self.entries.drain(..holding);
        self.entries[0].start = start;
        changed
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for e in &self.entries {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {}", e.epoch, e.start);
        }
        text
    }

    /// Reads the file; `None` if it is absent or cannot be right.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(dir)) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut entries = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            entries.push(Entry {
                epoch: epoch.parse().ok()?,
                start: start.parse().ok()?,
            });
        }
        let rising = entries
            .windows(2)
            .all(|w| w[0].epoch < w[1].epoch && w[0].start < w[1].start)
            && entries.first().is_none_or(|e| e.epoch >= 0 && e.start >= 0);
        (rising && entries.len() == count).then_some(Self { entries })
    }
}

/// Where the file of a log in `dir` is.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("leader-epochs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut all = Epochs::default();
        for &(epoch, start) in entries {
            assert!(all.assign(epoch, start));
        }
        all
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let all = epochs(&[(2, 0), (5, 10), (7, 30)]);
        assert_eq!(all.end_offset(2, 40), Some((2, 10)));
        assert_eq!(all.end_offset(4, 40), Some((2, 10)));
        assert_eq!(all.end_offset(5, 40), Some((5, 30)));
        assert_eq!(all.end_offset(9, 40), Some((7, 40)));
        assert_eq!(all.end_offset(1, 40), Some((1, 0)));
        assert_eq!(Epochs::default().end_offset(1, 40), None);
    }

    #[test]
    fn an_offset_belongs_to_the_epoch_that_began_last_before_it() {
        let epochs = epochs(&[(2, 5), (4, 10)]);
        let of: Vec<_> = [4, 5, 9, 10, 99].map(|offset| epochs.of(offset)).into();
        assert_eq!(of, [None, Some(2), Some(2), Some(4), Some(4)]);
    }

    #[test]
    fn an_epoch_without_records_vanishes() {
        let all = epochs(&[(1, 0), (2, 10), (3, 10)]);
        assert_eq!(all, epochs(&[(1, 0), (3, 10)]));
    }

    #[test]
    fn older_epochs_change_nothing() {
        let mut all = epochs(&[(4, 0)]);
        assert!(!all.assign(4, 5) && !all.assign(3, 5) && !all.assign(-1, 5));
    }

    #[test]
    fn cutting_either_end_keeps_what_is_between() {
        let mut all = epochs(&[(1, 0), (2, 10), (3, 20)]);
        assert!(all.trim(15));
        assert_eq!(all, epochs(&[(2, 15), (3, 20)]));
        assert!(all.truncate(20));
        assert_eq!(all, epochs(&[(2, 15)]));
        assert!(!all.trim(15) && !all.truncate(16));
    }

    #[test]
    fn the_file_is_kafkas_and_a_bad_one_is_refused() {
        let all = epochs(&[(1, 0), (2, 10)]);
        assert_eq!(all.to_text(), "0\n2\n1 0\n2 10\n");
        assert_eq!(Epochs::parse(all.to_text().as_bytes()), Some(all));
        for bad in [
            "",
            "0\n",
            "1\n0\n",
            "0\n2\n1 0\n",
            "0\n2\n2 0\n1 5\n",
            "0\n1\nx y\n",
            "0\n1\n-1 0\n",
        ] {
            assert_eq!(Epochs::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
