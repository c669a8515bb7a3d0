//! Where a reset puts a position, by the rules of kafka-consumer-groups. Pure: facts in, offset out.

/// How a new position is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The first record that is kept.
    Earliest,
    /// Behind the last record.
    Latest,
    /// Where the group is; behind the last record where it has committed nothing.
    Current,
    /// This offset, or the nearest there is.
    Offset(i64),
    /// So far from where the group is, or the nearest there is.
    ShiftBy(i64),
    /// The first record of this moment (ms since 1970) or later; behind the last record if there is none.
    At(i64),
    /// As a file says, or the nearest there is.
    File,
}

/// What is known of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// The first offset that is kept.
    pub(super) start: i64,
    /// The offset behind the last record.
    pub(super) end: i64,
    /// What the group has committed.
    pub(super) committed: Option<i64>,
    /// The first record of the moment that is asked for.
    pub(super) at: Option<i64>,
    /// What the file says.
    pub(super) filed: Option<i64>,
}

/// A new position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// The next offset to read.
    pub(super) offset: i64,
    /// The offset that was meant, if there is no such one.
    pub(super) instead_of: Option<i64>,
}

impl Strategy {
    /// The new position, or why there is none.
    pub(super) fn target(self, facts: Facts) -> Result<Target, &'static str> {
        let exactly = |offset| Target {
            offset,
            instead_of: None,
        };
        let nearest = |offset: i64| {
            let there = offset.clamp(facts.start, facts.end.max(facts.start));
            Target {
                offset: there,
                instead_of: (there != offset).then_some(offset),
            }
        };
        Ok(match self {
            Self::Earliest => exactly(facts.start),
            Self::Latest => exactly(facts.end),
            Self::Current => exactly(facts.committed.unwrap_or(facts.end)),
            Self::At(_) => exactly(facts.at.unwrap_or(facts.end)),
            Self::Offset(offset) => nearest(offset),
            Self::ShiftBy(by) => {
                let committed = facts.committed.ok_or("nothing is committed to shift from")?;
                nearest(committed.saturating_add(by))
            }
            Self::File => nearest(facts.filed.ok_or("the file does not say where to")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        start: 10,
        end: 20,
        committed: Some(15),
        at: Some(12),
        filed: Some(18),
    };

    fn target(strategy: Strategy, facts: Facts) -> (i64, Option<i64>) {
        let target = strategy.target(facts).unwrap();
        (target.offset, target.instead_of)
    }

    #[test]
    fn each_strategy_has_its_offset() {
        assert_eq!(target(Strategy::Earliest, FACTS), (10, None));
        assert_eq!(target(Strategy::Latest, FACTS), (20, None));
        assert_eq!(target(Strategy::Current, FACTS), (15, None));
        assert_eq!(target(Strategy::Offset(13), FACTS), (13, None));
        assert_eq!(target(Strategy::ShiftBy(3), FACTS), (18, None));
        assert_eq!(target(Strategy::ShiftBy(-5), FACTS), (10, None));
        assert_eq!(target(Strategy::At(0), FACTS), (12, None));
        assert_eq!(target(Strategy::File, FACTS), (18, None));
    }

    #[test]
    fn an_offset_that_is_not_there_becomes_the_nearest_and_that_is_told() {
        assert_eq!(target(Strategy::Offset(9), FACTS), (10, Some(9)));
        assert_eq!(target(Strategy::Offset(21), FACTS), (20, Some(21)));
        assert_eq!(target(Strategy::ShiftBy(-6), FACTS), (10, Some(9)));
        assert_eq!(target(Strategy::ShiftBy(i64::MAX), FACTS), (20, Some(i64::MAX)));
        let filed = Facts {
            filed: Some(0),
            ..FACTS
        };
        assert_eq!(target(Strategy::File, filed), (10, Some(0)));
    }

    #[test]
    fn what_is_missing_becomes_the_end_or_an_error() {
        let nothing = Facts {
            committed: None,
            at: None,
            filed: None,
            ..FACTS
        };
        assert_eq!(target(Strategy::Current, nothing), (20, None));
        assert_eq!(target(Strategy::At(99), nothing), (20, None));
        assert!(Strategy::ShiftBy(1).target(nothing).is_err());
        assert!(Strategy::File.target(nothing).is_err());
    }

    #[test]
    fn where_a_group_is_stays_even_if_it_is_not_there_any_more() {
        let behind = Facts {
            committed: Some(3),
            ..FACTS
        };
        assert_eq!(target(Strategy::Current, behind), (3, None));
    }
}
