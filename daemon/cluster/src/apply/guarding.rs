//! What the guard of a cluster that starts needs from before the start: which clusters copy what from here, and what an
//! operator has said for those that did not answer.
//!
//! Whether topics are guarded now is no replicated state: a daemon knows it in memory, since an entry would be read again
//! after the next start.

use tradewind_wire::guard::{Copied, Unguarded};

use super::Position;
use crate::command::{MetaError, Outcome};
use crate::image::Image;

/// How many other clusters are remembered.
const MAX_PEERS: usize = 1_000;
/// How many characters of a reason are kept.
const MAX_REASON: usize = 1_000;
/// How long the name of a cluster may be, in bytes.
const MAX_NAME: usize = 255;

/// `peer` copies this from here by now; none: nothing any more.
pub(super) fn copied(image: &mut Image, peer: &str, copied: Option<&Copied>) -> Result<Outcome, MetaError> {
    let Some(copied) = copied else {
        image.copied.remove(peer);
        return Ok(Outcome::Done);
    };
    if !copied.is_bounded() {
        return Err(too_many("bytes of patterns", Copied::MAX_BYTES));
    }
    may_enter(image.copied.len(), image.copied.contains_key(peer), peer)?;
    image.copied.insert(peer.to_owned(), copied.clone());
    Ok(Outcome::Done)
}

/// An operator lets clients write although `peers` have not answered. It counts for the daemons that are registered now.
pub(super) fn unguard(
    image: &mut Image,
    at: Position,
    peers: &[String],
    (at_ms, reason): (i64, &str),
) -> Result<Outcome, MetaError> {
    for peer in peers {
        may_enter(image.unguarded.len(), image.unguarded.contains_key(peer), peer)?;
        let word = Unguarded {
            index: at.index,
            at_ms,
            reason: reason.chars().take(MAX_REASON).collect(),
        };
        image.unguarded.insert(peer.clone(), word);
    }
    Ok(Outcome::Done)
}

fn may_enter(entries: usize, known: bool, peer: &str) -> Result<(), MetaError> {
    if peer.len() > MAX_NAME {
        return Err(too_many("bytes of a cluster's name", MAX_NAME));
    }
    if entries >= MAX_PEERS && !known {
        return Err(too_many("other clusters", MAX_PEERS));
    }
    Ok(())
}

fn too_many(what: &str, limit: usize) -> MetaError {
    MetaError::TooMany {
        what: what.to_owned(),
        limit,
    }
}
