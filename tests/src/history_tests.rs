//! Hand-made histories: a good one in which nothing is found, and bad ones, each with the one fault that it has.

use super::*;

fn at(begun: u64, ended: u64) -> Span {
    Span {
        begun: Moment::from_millis(begun),
        ended: Moment::from_millis(ended),
    }
}

fn id(number: u64) -> Id {
    Id { writer: 1, number }
}

fn write(first: u64, span: Span, outcome: Outcome) -> Write {
    Write {
        partition: 0,
        first: id(first),
        count: 2,
        span,
        outcome,
    }
}

fn log(numbers: &[u64]) -> Vec<(i64, Id)> {
    (0..).zip(numbers.iter().copied().map(id)).collect()
}

fn read(from: i64, records: &[(i64, u64)], span: Span) -> Read {
    Read {
        partition: 0,
        from,
        records: records
            .iter()
            .map(|&(offset, number)| (offset, id(number)))
            .collect(),
        span,
    }
}

fn told(end: i64, span: Span) -> Told {
    Told {
        partition: 0,
        end,
        span,
    }
}

fn commit(offset: i64, span: Span, acknowledged: bool) -> Commit {
    Commit {
        partition: 0,
        offset,
        span,
        acknowledged,
    }
}

fn position(offset: i64, span: Span) -> Position {
    Position {
        partition: 0,
        offset,
        span,
    }
}

/// Three batches, the second one without an answer; readers, ends and commits between them.
fn good() -> History {
    History {
        writes: vec![
            write(0, at(0, 10), Outcome::Acknowledged(0)),
            write(2, at(20, 30), Outcome::Unknown),
            write(4, at(40, 50), Outcome::Acknowledged(4)),
        ],
        reads: vec![
            read(0, &[(0, 0), (1, 1)], at(5, 15)),
            read(1, &[(1, 1), (2, 2), (3, 3), (4, 4)], at(45, 55)),
        ],
        ends: vec![told(2, at(12, 14)), told(4, at(32, 41)), told(6, at(60, 61))],
        refused_places: Vec::new(),
        commits: vec![
            commit(1, at(10, 20), true),
            commit(2, at(30, 40), false),
            commit(4, at(50, 60), true),
        ],
        positions: vec![
            position(-1, at(5, 12)),
            position(1, at(21, 22)),
            position(2, at(41, 42)),
            position(1, at(43, 44)),
            position(4, at(61, 62)),
        ],
        logs: BTreeMap::from([(0, log(&[0, 1, 2, 3, 4, 5]))]),
    }
}

/// What is found in the good history once `spoil` has been at it.
fn found(spoil: impl FnOnce(&mut History)) -> Vec<FaultKind> {
    let mut history = good();
    spoil(&mut history);
    let faults = history.check();
    assert!(faults.iter().all(|fault| fault.partition == 0));
    faults.into_iter().map(|fault| fault.kind).collect()
}

/// The good history, of which nobody read or asked anything: for faults that would show in many ways.
fn unseen(spoil: impl FnOnce(&mut History)) -> Vec<FaultKind> {
    found(|history| {
        history.reads.clear();
        history.ends.clear();
        spoil(history);
    })
}

#[test]
fn nothing_is_found_in_a_good_history() {
    assert_eq!(good().check(), []);
    assert_eq!(good().acknowledged(), 4);
}

#[test]
fn an_unknown_write_may_be_missing_if_it_is_missing_whole() {
    let missing = |numbers: &'static [u64]| {
        unseen(|history| {
            history.logs.insert(0, log(numbers));
            history.writes[2].outcome = Outcome::Unknown;
        })
    };
    assert_eq!(missing(&[0, 1, 4, 5]), []);
    assert_eq!(missing(&[0, 1, 2, 4, 5]), [FaultKind::Torn(id(2))]);
    assert_eq!(missing(&[0, 1, 2, 4, 5, 3]), [FaultKind::Torn(id(2))]);
}

#[test]
fn an_unknown_write_may_come_late_but_not_before_its_time() {
    let late = unseen(|history| {
        history.logs.insert(0, log(&[0, 1, 4, 5, 2, 3]));
        history.writes[2].outcome = Outcome::Acknowledged(2);
    });
    assert_eq!(late, []);
    let early = unseen(|history| {
        history.logs.insert(0, log(&[2, 3, 0, 1, 4, 5]));
        history.writes[0].outcome = Outcome::Acknowledged(2);
    });
    let kind = FaultKind::Reordered {
        earlier: id(0),
        later: id(2),
    };
    assert_eq!(early, [kind]);
}

#[test]
fn a_lost_record_is_found() {
    let lost = unseen(|history| {
        history.logs.insert(0, log(&[0, 1, 2, 3, 4]));
    });
    assert_eq!(lost, [FaultKind::Lost(id(5))]);
    let all = unseen(|history| history.logs.clear());
    assert_eq!(all, [0, 1, 4, 5].map(|number| FaultKind::Lost(id(number))));
}

#[test]
fn a_duplicate_is_found() {
    let kinds = unseen(|history| {
        history.logs.insert(0, log(&[0, 1, 2, 3, 4, 5, 4]));
    });
    let kind = FaultKind::Duplicated {
        id: id(4),
        first: 4,
        second: 6,
    };
    assert_eq!(kinds, [kind]);
}

#[test]
fn another_order_than_that_of_the_answers_is_found() {
    let kinds = unseen(|history| {
        history.logs.insert(0, log(&[4, 5, 2, 3, 0, 1]));
        history.writes[0].outcome = Outcome::Acknowledged(4);
        history.writes[2].outcome = Outcome::Acknowledged(0);
    });
    let kind = FaultKind::Reordered {
        earlier: id(0),
        later: id(4),
    };
    assert_eq!(kinds, [kind]);
}

#[test]
fn a_record_elsewhere_than_told_is_found() {
    let kinds = unseen(|history| history.writes[2].outcome = Outcome::Acknowledged(5));
    let misplaced = |number, told, found| FaultKind::Misplaced {
        id: id(number),
        told,
        found,
    };
    assert_eq!(kinds, [misplaced(4, 5, 4), misplaced(5, 6, 5)]);
}

#[test]
fn what_was_refused_or_never_written_is_found() {
    let refused = unseen(|history| history.writes[1].outcome = Outcome::Refused);
    assert_eq!(refused, [FaultKind::Refused(id(2)), FaultKind::Refused(id(3))]);
    let invented = unseen(|history| {
        history.logs.insert(0, log(&[0, 1, 2, 3, 4, 5, 77]));
    });
    let kind = FaultKind::Invented {
        id: id(77),
        offset: 6,
    };
    assert_eq!(invented, [kind]);
}

#[test]
fn an_offset_that_is_left_out_is_found() {
    let kinds = unseen(|history| {
        for record in &mut history.logs.get_mut(&0).unwrap()[4..] {
            record.0 += 1;
        }
        history.writes[2].outcome = Outcome::Acknowledged(5);
    });
    assert_eq!(kinds, [FaultKind::Hole { due: 4, found: 5 }]);
}

#[test]
fn a_read_that_changes_or_vanishes_is_found() {
    let changed = found(|history| history.reads[0].records[1].1 = id(3));
    let kind = FaultKind::Changed {
        offset: 1,
        read: id(3),
        found: Some(id(1)),
    };
    // Record 3 was begun only afterwards.
    assert_eq!(changed, [kind, FaultKind::Early(id(3))]);
    let vanished = unseen(|history| {
        history.reads.push(read(2, &[(2, 2), (3, 3)], at(31, 39)));
        history.logs.insert(0, log(&[0, 1]));
        history.writes.pop();
    });
    let gone = |offset, number| FaultKind::Changed {
        offset,
        read: id(number),
        found: None,
    };
    assert_eq!(vanished, [gone(2, 2), gone(3, 3)]);
}

#[test]
fn a_read_that_leaves_something_out_or_goes_back_is_found() {
    let skipped = found(|history| {
        history.reads[1].records.remove(1);
    });
    assert_eq!(skipped, [FaultKind::Skipped { due: 2, found: 3 }]);
    let back = found(|history| history.reads[1].records.swap(0, 1));
    assert_eq!(
        back,
        [
            FaultKind::Skipped { due: 1, found: 2 },
            FaultKind::Skipped { due: 3, found: 1 },
            FaultKind::Skipped { due: 2, found: 3 }
        ]
    );
    let elsewhere = found(|history| history.reads[1].from = 0);
    assert_eq!(elsewhere, [FaultKind::Skipped { due: 0, found: 1 }]);
}

#[test]
fn a_stale_end_is_found_after_an_answer_a_read_and_another_end() {
    let stale = |told, known| [FaultKind::Stale { told, known }];
    assert_eq!(found(|h| h.ends.push(told(1, at(16, 17)))), stale(1, 2));
    assert_eq!(found(|h| h.ends.push(told(4, at(56, 57)))), stale(4, 6));
    assert_eq!(found(|h| h.ends.push(told(3, at(42, 43)))), stale(3, 4));
    let by_read = found(|h| {
        h.reads.push(read(2, &[(2, 2)], at(25, 26)));
        h.ends.push(told(2, at(27, 28)));
    });
    assert_eq!(by_read, stale(2, 3));
    // A question that was on its way when the answer came may be answered with either.
    assert_eq!(found(|h| h.ends.push(told(0, at(9, 17)))), []);
}

#[test]
fn a_refused_place_is_found() {
    let kinds = found(|history| history.refused_places.push((0, 6)));
    assert_eq!(kinds, [FaultKind::PlaceRefused(6)]);
}

#[test]
fn a_group_that_goes_back_or_was_never_there_is_found() {
    let went_back = |told, known| [FaultKind::WentBack { told, known }];
    assert_eq!(
        found(|h| h.positions.push(position(1, at(61, 62)))),
        went_back(1, 4)
    );
    assert_eq!(
        found(|h| h.positions.push(position(-1, at(21, 22)))),
        went_back(-1, 1)
    );
    assert_eq!(
        found(|h| h.positions.push(position(9, at(61, 62)))),
        went_back(9, 4)
    );
    assert_eq!(
        found(|h| h.positions.push(position(4, at(41, 42)))),
        went_back(4, 1)
    );
    // A commit without an answer may still come.
    assert_eq!(found(|h| h.positions.push(position(2, at(61, 62)))), []);
}
