//! What a flow's source has said that its topics are: its own, or mirrors of what.
//!
//! A look at the source takes what was last heard and waits for nothing: what a topic is changes rarely. One that nothing was
//! said of waits until [`run`] has heard more. Only before anything was ever heard, and for somebody who asks for a status,
//! is the question asked at once, and then it has a short time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tradewind_wire::region::{RegionAsk, RegionWish};

use crate::flow::Flow;
use crate::source::{Origins, SourceTopics, Word};

/// How long whoever looks waits for an answer.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);
/// How long the task that asks beside the looks waits: the answer names every topic of the source, and the line may be thin.
pub(crate) const BESIDE: Duration = Duration::from_secs(30);
/// After how long the source is asked again: a topic may be promoted, or become a mirror.
const AGAIN: Duration = Duration::from_secs(5);
/// After how long one that does not say is asked again: it may be of a later version by then.
const UNTOLD_AGAIN: Duration = Duration::from_secs(60);

/// What the source last said, and whether somebody wants to hear more.
#[derive(Default)]
pub(crate) struct Hearing {
    heard: Mutex<Heard>,
    wanted: Notify,
}

impl Hearing {
    /// One that knows what this one knows now.
    pub(crate) fn known(&self) -> Self {
        Self {
            heard: Mutex::new(self.heard.lock().clone()),
            wanted: Notify::new(),
        }
    }
}

#[derive(Clone, Default)]
struct Heard {
    /// None until it has answered; then none if it is none that says so.
    said: Option<Option<Origins>>,
    /// When it answered (monotonic).
    at: Duration,
}

impl Heard {
    /// Whether this is still good for these topics.
    fn is_current(&self, topics: &SourceTopics, now: Duration) -> bool {
        let age = now.saturating_sub(self.at);
        match &self.said {
            None => false,
            Some(None) => age < UNTOLD_AGAIN,
            Some(Some(said)) => {
                let mut all = topics.topics.values();
                age < AGAIN && all.all(|topic| said.contains_key(&topic.id))
            }
        }
    }

    fn put_into(&self, topics: &mut SourceTopics) {
        for topic in topics.topics.values_mut() {
            topic.word = match &self.said {
                None => Word::Awaited,
                Some(None) => Word::Untold,
                Some(Some(said)) => said.get(&topic.id).cloned().map_or(Word::Awaited, Word::Says),
            };
        }
    }

    /// Whether `said` has a word on a topic of which nothing was heard.
    fn is_news(&self, said: &Option<Origins>) -> bool {
        match (&self.said, said) {
            (None, _) | (Some(None), Some(_)) => true,
            (Some(_), None) => false,
            (Some(Some(known)), Some(said)) => said.keys().any(|topic| !known.contains_key(topic)),
        }
    }
}

/// Adds to a look what the source last said its topics are. Has more asked for where that is old or lacks something.
pub(crate) async fn add(flow: &Flow, topics: &mut SourceTopics) {
    let now = flow.target.clock().monotonic();
    let (never, mut current) = {
        let heard = flow.hearing.heard.lock();
        (heard.said.is_none(), heard.is_current(topics, now))
    };
    // The first word is worth a moment. Where that is too short for it, it comes beside the looks as well.
    if never {
        ask(flow, AT_ONCE).await;
        current = flow.hearing.heard.lock().is_current(topics, now);
    }
    if !current {
        flow.hearing.wanted.notify_one();
    }
    flow.hearing.heard.lock().put_into(topics);
}

/// The same for somebody who waits for it, because nothing was said of a topic: asks at once.
pub(crate) async fn add_now(flow: &Flow, topics: &mut SourceTopics, within: Duration) {
    ask(flow, within).await;
    flow.hearing.heard.lock().put_into(topics);
}

/// Asks whenever a look wants to hear more, until cancelled; has the flow look again when there is something new.
pub(crate) async fn run(flow: &Flow, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = flow.hearing.wanted.notified() => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            news = ask(flow, BESIDE) => if news {
                flow.refresh.notify_one();
            }
        }
    }
}

/// Asks the source. Whether it spoke of a topic that nothing was known of.
async fn ask(flow: &Flow, within: Duration) -> bool {
    let asked_at = flow.target.clock().monotonic();
    let ask = RegionAsk {
        flow: flow.spec.clone(),
        cluster_id: flow.target.view().cluster_id.clone(),
        attempt: 0,
        wish: RegionWish::Origins,
    };
    match tokio::time::timeout(within, flow.source.origins(&ask)).await {
        Ok(Ok(said)) => {
            let mut heard = flow.hearing.heard.lock();
            let news = heard.is_news(&said);
            // Two may ask at a time; the one that asked last knows best.
            if heard.said.is_none() || heard.at <= asked_at {
                *heard = Heard {
                    said: Some(said),
                    at: asked_at,
                };
            }
            return news;
        }
        Ok(Err(error)) => {
            tracing::debug!(flow = flow.name, %error, "the source does not say what its topics are");
        }
        Err(_) => tracing::debug!(
            flow = flow.name,
            "the source does not say in time what its topics are"
        ),
    }
    false
}
