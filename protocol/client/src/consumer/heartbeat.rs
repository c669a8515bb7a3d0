//! Heartbeats in the background, as long as a generation stands; they tell when it no longer does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::HeartbeatRequest;

use super::group::GroupConfig;
use crate::client::Client;
use crate::net::pool::Lane;

/// What a heartbeat learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The group rebalances: join again with the same id.
    Rejoin,
    /// The coordinator does not know this member in this generation: join anew.
    Expelled,
    /// Another member has the same static id, or the group may not be used: no more.
    Fatal(ErrorCode),
}

/// Sends heartbeats until dropped.
#[derive(Debug)]
pub(super) struct Heartbeats {
    state: Arc<State>,
    _ends_with_me: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    signal: Mutex<Option<Signal>>,
    raised: Notify,
}

impl Heartbeats {
    pub(super) fn start(
        client: Client,
        lane: Lane,
        config: GroupConfig,
        member_id: &str,
        generation: i32,
    ) -> Self {
        let state = Arc::new(State::default());
        let ended = CancellationToken::new();
        let beat = HeartbeatRequest {
            group_id: (&config.group).into(),
            generation_id: generation,
            member_id: member_id.into(),
            group_instance_id: config.instance_id.as_ref().map(Into::into),
        };
        let work = run(client, lane, config, beat, state.clone());
        let until = ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = until.cancelled() => {}
            }
        });
        Self {
            state,
            _ends_with_me: ended.drop_guard(),
        }
    }

    /// What has been learnt, if the generation no longer stands.
    pub(super) fn signal(&self) -> Option<Signal> {
        *self.state.signal.lock()
    }

    /// Waits until there is a signal. Cancel-safe.
    pub(super) async fn raised(&self) {
        while self.signal().is_none() {
            let raised = self.state.raised.notified();
            if self.signal().is_some() {
                return;
            }
            raised.await;
        }
    }

    /// Reports what another answer of the coordinator told.
    pub(super) fn raise(&self, signal: Signal) {
        self.state.raise(signal);
    }
}

impl State {
    fn raise(&self, signal: Signal) {
        self.signal.lock().get_or_insert(signal);
        // Kept for one who comes later; there is one consumer.
        self.raised.notify_one();
    }
}

/// What the coordinator's refusal means for a member.
pub(super) fn signal_of(code: ErrorCode) -> Option<Signal> {
    match code {
        ErrorCode::None => None,
        ErrorCode::RebalanceInProgress => Some(Signal::Rejoin),
        ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => Some(Signal::Expelled),
        code if code.is_retriable() => None,
        code => Some(Signal::Fatal(code)),
    }
}

async fn run(client: Client, lane: Lane, config: GroupConfig, beat: HeartbeatRequest, state: Arc<State>) {
    loop {
        sleep(config.heartbeat_interval).await;
        let build = |version: i16| {
            let mut beat = beat.clone();
            if version < 3 {
                beat.group_instance_id = None;
            }
            beat
        };
        let code =
            |answer: &tradewind_wire::messages::HeartbeatResponse| ErrorCode::from_code(answer.error_code);
        let limit = config.session_timeout.max(Duration::from_secs(1));
        match client
            .at_coordinator(&config.group, lane, limit, build, code)
            .await
        {
            Ok(answer) => {
                if let Some(signal) = signal_of(code(&answer)) {
                    state.raise(signal);
                    return;
                }
            }
            // The session may survive this; if not, the next heartbeat is told.
            Err(error) => tracing::debug!(group = %config.group, %error, "no heartbeat"),
        }
    }
}
