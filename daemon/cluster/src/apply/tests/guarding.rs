//! What is remembered for the guard of the next start.

use tradewind_wire::guard::Copied;
use tradewind_wire::region::RegionCommand;

use super::Log;
use crate::command::{Command, MetaError};
use crate::image::Image;

fn copied(peer: &str, topics: Option<&str>) -> Command {
    Command::Region(RegionCommand::Copied {
        peer: peer.to_owned(),
        copied: topics.map(|topics| Copied {
            topics: vec![topics.to_owned()],
            ..Copied::default()
        }),
    })
}

fn unguard(peer: &str) -> Command {
    Command::Region(RegionCommand::Unguard {
        peers: vec![peer.to_owned()],
        at_ms: 7,
        reason: "r".repeat(2_000),
    })
}

#[test]
fn what_others_copy_is_remembered_until_they_say_otherwise() {
    let mut log = Log::with(1);
    log.must(&copied("west", Some("orders")));
    log.must(&copied("south", Some(".*")));
    log.must(&copied("west", Some("sales")));
    assert_eq!(log.image.copied["west"].topics, ["sales"]);
    log.must(&copied("south", None));
    log.must(&copied("nobody", None));
    assert_eq!(log.image.copied.len(), 1);
    let refused = log.apply(&copied("west", Some(&"x".repeat(70_000))));
    assert!(matches!(refused, Err(MetaError::TooMany { .. })), "{refused:?}");
    assert_eq!(log.image.copied["west"].topics, ["sales"]);
    let many = Command::Region(RegionCommand::Copied {
        peer: "west".to_owned(),
        copied: Some(Copied {
            bound: vec![super::TOPIC; Copied::MAX_BOUND + 1],
            ..Copied::default()
        }),
    });
    assert!(log.apply(&many).is_err());
    // One of an earlier version names none, and has no id.
    let earlier: Copied = serde_json::from_str(r#"{"topics":["a"],"topics_exclude":[]}"#).unwrap();
    assert!(earlier.bound.is_empty() && earlier.cluster_id.is_empty());
    let refused = log.apply(&copied(&"w".repeat(300), Some("a")));
    assert!(matches!(refused, Err(MetaError::TooMany { .. })), "{refused:?}");
}

#[test]
fn an_operators_word_is_for_the_daemons_that_were_registered() {
    let mut log = Log::with(3);
    log.must(&unguard("west"));
    let word = &log.image.unguarded["west"];
    assert_eq!((word.at_ms, word.reason.len()), (7, 1_000));
    let index = word.index;
    assert!(
        log.image
            .nodes
            .values()
            .all(|daemon| (daemon.epoch as u64) < index)
    );
    log.register_again(|_| ());
    assert!(
        log.epoch(1) as u64 > index,
        "a daemon that starts again is not concerned"
    );
    assert!((log.epoch(2) as u64) < index);
    // A file of an earlier version has neither.
    let mut stored = serde_json::to_value(&log.image).unwrap();
    let fields = stored.as_object_mut().unwrap();
    fields.remove("copied");
    fields.remove("unguarded");
    let read: Image = serde_json::from_value(stored).unwrap();
    assert!(read.copied.is_empty() && read.unguarded.is_empty());
}
