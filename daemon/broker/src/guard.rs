//! Which topics clients may not write yet since this process began, because another cluster may have taken them over while
//! no daemon of this one ran.
//!
//! It holds what is waited for and judges the words that come; it asks nobody (the program does). What it knows is in memory
//! alone: the run of a cluster goes on as long as one of its daemons runs, and whoever starts learns from those that run
//! whether the other cluster was heard in it. After a full restart nobody can say so, and only three words open a topic:
//!
//! ```text
//! the other cluster's        it has taken nothing over, in words and by its epoch  Guard::heard
//! another daemon's           it does not wait, in this run of its process        Guard::colleague
//! the operator's             an entry behind this daemon's registration          Guard::operator
//! ```
//!
//! A topic that was opened stays open until the process ends, so that whoever looks before an append has looked enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tradewind_wire::guard::{GuardWord, Unguarded};
use tradewind_wire::ids::TopicId;

use crate::metrics;

/// The guard of one daemon. Nothing is guarded before [`Guard::begin`].
pub struct Guard {
    state: watch::Sender<State>,
    /// Whether anything is waited for: what a produce looks at first.
    guarding: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The clusters that may fence topics here and are to be heard after a start.
    peers: BTreeSet<String>,
    waits: BTreeMap<String, Wait>,
    /// Whose word opened what a cluster could have taken.
    opened: BTreeMap<String, String>,
}

/// What one cluster may have taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stake {
    /// The topics, with their names.
    pub topics: BTreeMap<TopicId, String>,
    /// The id that it had when it was last known to copy them; empty if it did not say.
    pub cluster_id: String,
}

/// What another cluster has said of itself, after it was asked by this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWord {
    /// The region epoch that it has with this side.
    pub region_epoch: u64,
    /// Whether it copies from here, and is not promoted.
    pub copies: bool,
    /// Whether it has taken topics over to which this side has not given way; none: it does not tell.
    pub taken: Option<bool>,
    /// Its id; empty if it did not say.
    pub cluster_id: String,
}

impl PeerWord {
    /// What of it speaks against clients writing here, where the region epoch with it is `own`. None: nothing.
    ///
    /// Epochs alone do not say it. One that is not above may be that of a failover (that cluster was built anew before, or
    /// flows both ways were failed over), and one that is above means nothing where it copies: this side was built anew.
    pub fn objection(&self, own: u64) -> Option<String> {
        let Self { region_epoch, .. } = self;
        if self.taken == Some(true) {
            return Some(format!(
                "it has taken topics over (region epoch {region_epoch}, here {own}): they stay as they are until it has \
                 them given way"
            ));
        }
        let denies = self.taken == Some(false) && self.copies;
        (*region_epoch > own && !denies).then(|| {
            format!(
                "it has region epoch {region_epoch}, here it is {own}: it has taken topics over, and this side has not \
                 heard of it or was built anew since"
            )
        })
    }
}

/// What is guarded because of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wait {
    /// What it may have taken over.
    pub stake: Stake,
    /// Why its word is not there yet, as last found.
    pub problem: String,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            state: watch::channel(State::default()).0,
            guarding: AtomicBool::new(false),
        }
    }
}

impl Guard {
    /// This process begins: by cluster that may fence topics here, what it may have taken over. Only the first call counts.
    pub fn begin(&self, peers: BTreeMap<String, Stake>) {
        self.state.send_if_modified(|state| {
            if !state.peers.is_empty() {
                return false;
            }
            state.peers = peers.keys().cloned().collect();
            let at_stake = peers.into_iter().filter(|(_, stake)| !stake.topics.is_empty());
            let wait = |stake| Wait {
                stake,
                problem: "it has not answered yet".to_owned(),
            };
            state.waits = at_stake.map(|(peer, stake)| (peer, wait(stake))).collect();
            self.guarding.store(!state.waits.is_empty(), Ordering::Release);
            true
        });
        self.measure();
    }

    /// The cluster whose word is waited for before clients may write this topic.
    pub fn waits_for(&self, topic: TopicId) -> Option<String> {
        if !self.guarding.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.borrow();
        let holds = |(_, wait): &(&String, &Wait)| wait.stake.topics.contains_key(&topic);
        state.waits.iter().find(holds).map(|(peer, _)| peer.clone())
    }

    /// Why clients may not change this topic yet, if so.
    pub fn refusal(&self, topic: TopicId, name: &str) -> Option<String> {
        let peer = self.waits_for(topic)?;
        Some(format!(
            "Topic '{name}' is read-only since this cluster started, until '{peer}' says that it has not taken it over."
        ))
    }

    /// Whether the word of this cluster is waited for.
    pub fn waits(&self, peer: &str) -> bool {
        self.state.borrow().waits.contains_key(peer)
    }

    /// Everything that is waited for, by cluster.
    pub fn waiting(&self) -> BTreeMap<String, Wait> {
        self.state.borrow().waits.clone()
    }

    /// Whose word opened what this cluster could have taken; none if nothing was guarded because of it, or is still.
    pub fn opened_by(&self, peer: &str) -> Option<String> {
        self.state.borrow().opened.get(peer).cloned()
    }

    /// Returns once nothing is waited for.
    pub async fn open(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.waits.is_empty()).await;
    }

    /// The cluster `peer` has answered a question of this process, and knew of everything that was decided there before it.
    /// This side's region epoch with it is `own`. Whether the topics are open.
    pub fn heard(&self, peer: &str, word: &PeerWord, own: u64) -> bool {
        let known = {
            let state = self.state.borrow();
            state.waits.get(peer).map(|wait| wait.stake.cluster_id.clone())
        };
        let another = known.filter(|known| {
            let both_said = !known.is_empty() && !word.cluster_id.is_empty();
            both_said && *known != word.cluster_id
        });
        let objection = another.map(|known| {
            format!(
                "cluster {} answers under its name, but {known} was it that copied from here: nobody can say what that one \
                 has taken over",
                word.cluster_id
            )
        });
        if let Some(objection) = objection.or_else(|| word.objection(own)) {
            self.note(peer, objection);
            return false;
        }
        self.clear(peer, peer);
        true
    }

    /// What this daemon tells another that starts. `index` is what it has applied.
    pub fn word(&self, peer: &str, index: u64) -> GuardWord {
        let state = self.state.borrow();
        GuardWord {
            clear: state.peers.contains(peer) && !state.waits.contains_key(peer),
            index,
        }
    }

    /// Daemon `node` has said this, and this one has applied the metadata log up to `applied`: a fence that the other knows
    /// must be known here before anything is opened. Whether the topics are open.
    pub fn colleague(&self, peer: &str, node: i32, word: &GuardWord, applied: u64) -> bool {
        let counts = word.clear && applied >= word.index;
        if counts {
            self.clear(peer, &format!("daemon {node}, which ran before"));
        }
        counts
    }

    /// An operator's word as the metadata log has it. It is for the daemons that were registered then: after the next start
    /// it means nothing. Whether the topics are open.
    pub fn operator(&self, peer: &str, word: Option<&Unguarded>, daemon_epoch: Option<i64>) -> bool {
        let since = daemon_epoch.and_then(|epoch| u64::try_from(epoch).ok());
        let counts = word
            .zip(since)
            .is_some_and(|(word, registered)| word.index > registered);
        if counts {
            self.clear(peer, "an operator");
        }
        counts
    }

    /// Remembers why the word of a cluster is not there.
    pub fn note(&self, peer: &str, problem: String) {
        self.state.send_if_modified(|state| {
            let wait = state.waits.get_mut(peer);
            let wait = wait.filter(|wait| wait.problem != problem);
            wait.map(|wait| wait.problem = problem).is_some()
        });
    }

    fn clear(&self, peer: &str, by: &str) {
        let mut opened = 0;
        self.state.send_if_modified(|state| {
            let Some(wait) = state.waits.remove(peer) else {
                return false;
            };
            opened = wait.stake.topics.len();
            state.opened.insert(peer.to_owned(), by.to_owned());
            self.guarding.store(!state.waits.is_empty(), Ordering::Release);
            true
        });
        if opened > 0 {
            tracing::info!(
                peer,
                by,
                topics = opened,
                "the guard is off: clients may write again"
            );
            self.measure();
        }
    }

    fn measure(&self) {
        let state = self.state.borrow();
        for peer in &state.peers {
            let topics = state.waits.get(peer).map_or(0, |wait| wait.stake.topics.len());
            metrics::guarded(peer, topics);
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
