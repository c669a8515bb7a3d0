//! Digests of what a partition led here holds, for a mirror that is compared with its source: its own daemons ask on the
//! side of the target, another cluster's on that of the source.
//!
//! Reads files, never memory: it is the disk that is asked. One question at a time, each bounded in bytes
//! ([`AUDIT_BYTES_MAX`](tradewind_wire::audit::AUDIT_BYTES_MAX)), so that it takes one core at most; how often to ask is the asker's affair.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tradewind_log::{Log, ReadError};
use tradewind_transport::{FrameRx, FrameTx};
use tradewind_wire::audit::{Audit, AuditAnswer, AuditAsk, Auditor};

use crate::replica::Replica;
use crate::replicate::leader::LeaderHost;

/// Bytes per read.
const READ_BYTES: usize = 1 << 20;
/// How long the next question on a stream may take to come.
const IDLE: Duration = Duration::from_secs(30);

/// The one place for questions of a daemon.
pub(crate) type Audits = Arc<Semaphore>;

/// Makes the place.
pub(crate) fn audits() -> Audits {
    Arc::new(Semaphore::new(1))
}

/// Answers the questions of one stream.
pub(crate) async fn serve(host: Arc<dyn LeaderHost>, audits: Audits, mut tx: FrameTx, mut rx: FrameRx) {
    while let Ok(Ok(Some(frame))) = tokio::time::timeout(IDLE, rx.recv()).await {
        let answer = match AuditAsk::decode(frame) {
            Some(ask) => match host.replica(ask.topic, ask.partition) {
                Some(replica) => audit(replica, &audits, ask.bounds, ask.items).await,
                None => Err("there is no such partition here".to_owned()),
            },
            None => Err("not a question of this version".to_owned()),
        };
        let answer = answer.map_or_else(AuditAnswer::Refused, AuditAnswer::Found);
        if tx.send(&[answer.encode()]).await.is_err() {
            return;
        }
    }
}

/// Looks at the ranges between `bounds` of a partition led here, up to its high watermark.
pub(crate) async fn audit(
    replica: Arc<Replica>,
    audits: &Audits,
    bounds: Vec<i64>,
    items: bool,
) -> Result<Audit, String> {
    let _place = audits.acquire().await.map_err(|error| error.to_string())?;
    let looking = tokio::task::spawn_blocking(move || look(&replica, bounds, items));
    looking.await.map_err(|error| error.to_string())?
}

/// Gives an auditor what it wants of a log's files below `up_to`.
pub(crate) fn feed(auditor: &mut Auditor, log: &Log, up_to: i64) -> Result<(), String> {
    auditor.nothing_below(log.start());
    while let Some(from) = auditor.wants().filter(|from| *from < up_to) {
        let slice = match log.read_stored(from, READ_BYTES, up_to) {
            Ok(slice) => slice,
            // Retention came between; what it took is below the start that is told.
            Err(ReadError::OutOfRange { start, .. }) if start > from => {
                auditor.nothing_below(start);
                continue;
            }
            Err(error) => return Err(format!("cannot read at offset {from}: {error}")),
        };
        let mut moved = false;
        for records in slice.records {
            moved |= auditor.add(records).map_err(|error| error.to_string())?;
        }
        if !moved {
            auditor.nothing_below(up_to);
        }
    }
    Ok(())
}

fn look(replica: &Replica, bounds: Vec<i64>, items: bool) -> Result<Audit, String> {
    let view = replica.leader(None).map_err(|error| error.to_string())?;
    let mut auditor = Auditor::new(bounds, items).ok_or("bounds that are no ranges")?;
    let log = replica.log();
    feed(&mut auditor, log, view.high_watermark)?;
    // Whoever led when the reading began may have lost the log's end to another since.
    replica
        .leader(Some(view.epoch))
        .map_err(|error| error.to_string())?;
    Ok(auditor.finish(log.start(), view.high_watermark, Some(log.compactable_to())))
}
