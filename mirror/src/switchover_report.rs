//! What is told to the outside about a switchover: the JSON of `switchover` and of its line in `mirror status`.

use serde::{Deserialize, Serialize};
use tradewind_wire::region::{SwitchStep, Switchover};

use crate::status::PromotedPosition;
use crate::target::View;

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchoverWish {
    /// After so long it is given up, unless it is promoted, in ms.
    pub timeout_ms: i64,
    /// How long groups may commit at the source once its writes are fenced, in ms; less if they stand at the end sooner.
    pub group_drain_ms: i64,
}

/// How a switchover stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwitchoverReport {
    /// `source->target`.
    pub flow: String,
    /// Its number: the index in the target's metadata log at which it began.
    pub attempt: u64,
    /// `fencing`, `draining`, `settling`, `promoted`, `done`, `aborting`, `aborted`, `failed-over`.
    pub step: String,
    /// Whether nothing is left to be done for it.
    pub ended: bool,
    /// Whether clients may write at the target.
    pub promoted: bool,
    /// What it waits for, or why it was given up; empty if neither.
    pub reason: String,
    /// For how long neither side took writes at most, in ms: from before the fence was asked for to the promotion. Null
    /// before that.
    pub without_writes_ms: Option<i64>,
    /// The region epoch of the promotion; null before it.
    pub region_epoch: Option<u64>,
    /// Every topic that moves, once the source is fenced.
    pub topics: Vec<MovedTopicReport>,
    /// Every group position that the flow wrote, once promoted: `exact`, or `owned-here`.
    pub groups: Vec<PromotedPosition>,
}

/// A topic that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedTopicReport {
    /// Its name.
    pub topic: String,
    /// Where each partition ends at the source, which is where the target's clients begin to write.
    pub ends: Vec<i64>,
}

impl SwitchoverReport {
    /// What the view says; without groups.
    pub(crate) fn of(view: &View, flow: &str, switchover: &Switchover, reason: Option<String>) -> Self {
        let promoted = matches!(switchover.step, SwitchStep::Promoted | SwitchStep::Done);
        let name = |id| {
            view.topics
                .values()
                .find(|topic| topic.id == id)
                .map(|topic| topic.name.clone())
        };
        let topics = switchover.ends.iter().map(|(id, ends)| MovedTopicReport {
            topic: name(*id).unwrap_or_else(|| id.to_string()),
            ends: ends.iter().map(|end| end.end).collect(),
        });
        Self {
            flow: flow.to_owned(),
            attempt: switchover.attempt,
            step: switchover.step.name().to_owned(),
            ended: !switchover.step.is_open(),
            promoted,
            reason: reason
                .filter(|_| switchover.step.is_open())
                .unwrap_or_else(|| switchover.reason.clone()),
            without_writes_ms: switchover
                .ended_ms
                .filter(|_| promoted)
                .map(|ended| ended - switchover.begun_ms),
            region_epoch: promoted.then_some(switchover.region_epoch),
            topics: topics.collect(),
            groups: Vec::new(),
        }
    }
}

/// The last switchover of a flow, in its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverLine {
    /// As in [`SwitchoverReport::step`].
    pub step: String,
    /// When it began, in ms since the epoch.
    pub begun_ms: i64,
    /// Why it was given up; empty if it was not.
    pub reason: String,
}

impl SwitchoverLine {
    pub(crate) fn of(switchover: &Switchover) -> Option<Self> {
        (switchover.step != SwitchStep::Done).then(|| Self {
            step: switchover.step.name().to_owned(),
            begun_ms: switchover.begun_ms,
            reason: switchover.reason.clone(),
        })
    }
}

/// Why a switchover did not begin, or could not be given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchoverError {
    /// No such flow.
    #[error("no flow `{0}` into this cluster: `mirror status` names them")]
    UnknownFlow(String),
    /// None was begun.
    #[error("flow `{0}` was never switched over")]
    None(String),
    /// It is refused, and nothing has changed.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The metadata log did not answer; it may or may not have begun.
    #[error("flow `{0}`: no answer from the controller; repeat the command")]
    Unavailable(String),
}
