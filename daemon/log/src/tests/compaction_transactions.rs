//! Compaction and transactions: aborted records, markers, and what is still open. Mirrored logs may hold all of these.

use tradewind_wire::batch::{ControlKind, control_batch};

use super::compaction::{Pair, Stored, all_batches, compact, put, records, roll, stored};
use super::*;

/// A batch of a transaction.
fn in_transaction(producer: i64, sequence: i32, pairs: &[Pair<'_>]) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::Create);
    for (key, value) in pairs {
        builder.append(2_000, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    builder.producer(producer, 0, sequence).transactional();
    Batch::parse(builder.build()).unwrap()
}

fn end_transaction(log: &Log, kind: ControlKind, producer: i64) -> i64 {
    let marker = Batch::parse(control_batch(kind, producer, 0, 0, 2_000)).unwrap();
    let at = log.end();
    log.append_at(placed(marker, at, 0), None).unwrap();
    at
}

#[test]
fn aborted_records_go_and_supersede_nothing() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("a", Some("kept"))]);
    log.append(in_transaction(7, 0, &[("a", Some("aborted"))]), 0)
        .unwrap();
    end_transaction(&log, ControlKind::Abort, 7);
    log.append(in_transaction(7, 1, &[("b", Some("committed"))]), 0)
        .unwrap();
    end_transaction(&log, ControlKind::Commit, 7);
    roll(&log);
    compact(&bench, &log);
    let data = |log: &Log| -> Vec<Stored> {
        let (mut found, all) = (Vec::new(), all_batches(log));
        for batch in all.iter().filter(|batch| !batch.header().is_control()) {
            for r in &batch.records(1 << 20).unwrap() {
                let r = r.unwrap();
                let text = |b: Option<&[u8]>| b.map(|b| String::from_utf8(b.to_vec()).unwrap());
                found.push((r.offset, text(r.key), text(r.value)));
            }
        }
        found
    };
    let left = [stored(0, "a", Some("kept")), stored(3, "b", Some("committed"))];
    assert_eq!(data(&log), left);
    let markers = |log: &Log| -> Vec<(i64, bool)> {
        let all = all_batches(log);
        let control = all.iter().filter(|batch| batch.header().is_control());
        control
            .map(|b| (b.header().base_offset, b.header().has_delete_horizon()))
            .collect()
    };
    assert_eq!(
        markers(&log),
        [(2, false), (4, false)],
        "the pass still saw records of both"
    );
    compact(&bench, &log);
    // The aborted transaction has no batch left: its marker has a time to go.
    assert_eq!(markers(&log), [(2, true), (4, false)]);
    bench.clock.set(bench.now() + 1_000);
    assert!(log.dirtiness(bench.now(), log.end()).unwrap().due);
    compact(&bench, &log);
    assert_eq!(markers(&log), [(4, false)]);
    assert_eq!(data(&log), left);
    assert_eq!(log.last_stable_offset(log.end()), 5);
}

#[test]
fn an_open_transaction_holds_compaction_back() {
    let bench = Bench::compacted();
    let log = bench.fresh();
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    roll(&log);
    log.append(in_transaction(7, 0, &[("a", Some("undecided"))]), 0)
        .unwrap();
    roll(&log);
    put(&log, &[("a", Some("3"))]);
    roll(&log);
    compact(&bench, &log);
    assert_eq!(log.first_dirty(), 2);
    assert_eq!(records(&log).iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2, 3]);
    end_transaction(&log, ControlKind::Commit, 7);
    compact(&bench, &log);
    assert_eq!(log.first_dirty(), 4);
    let offsets: Vec<i64> = records(&log).iter().map(|r| r.0).collect();
    assert_eq!(offsets, [3, 4], "the newest and the marker");
}
