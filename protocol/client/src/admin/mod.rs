//! Changing and describing a cluster: topics, configurations, groups.
//!
//! Changes go to the controller. One that may have been carried out is not sent again: the caller sees the error and
//! decides.

mod configs;
mod groups;
mod moves;
mod records;
mod topics;

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::Request;

pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSynonym};
pub use groups::{Assigned, GroupDescription, GroupKind, GroupListing, GroupMember, MemberToRemove};
pub use moves::{Election, Reassignment};
pub use records::Deleted;
pub use topics::NewTopic;

use crate::client::{ANY_VERSION, Client};
use crate::consumer::assignor::TopicPartition;
use crate::error::ClientError;
use crate::net::pool::Lane;

/// What came of each partition of a request about several.
pub type Outcomes = BTreeMap<TopicPartition, Result<(), ClientError>>;

impl Client {
    /// Calls the controller. Tried again only where the request was certainly not carried out: no connection, or the
    /// broker says that it is not the controller.
    async fn at_controller<R: Request>(
        &self,
        build: impl Fn(i16) -> R,
        codes: impl Fn(&R::Response) -> Vec<i16>,
    ) -> Result<R::Response, ClientError> {
        let (build, codes) = (&build, &codes);
        let limit = self.config().request_timeout + Duration::from_secs(2);
        // The inner result is settled; the outer one decides about another try.
        self.retrying(|| async move {
            let metadata = self.metadata(&[]).await?;
            let node = metadata
                .controller
                .or_else(|| metadata.brokers.keys().next().copied());
            let node = node.ok_or_else(|| ClientError::NoBroker { tried: Vec::new() })?;
            match self
                .send_built(node, Lane::Short, limit, ANY_VERSION, build)
                .await
            {
                Ok(answer) if codes(&answer).contains(&ErrorCode::NotController.code()) => {
                    Err(ClientError::broker(R::KEY.name(), ErrorCode::NotController, None))
                }
                Ok(answer) => Ok(Ok(answer)),
                Err(error @ (ClientError::Connect { .. } | ClientError::UnknownBroker(_))) => Err(error),
                Err(error) => Ok(Err(error)),
            }
        })
        .await?
    }

    pub(crate) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

fn refusal(what: String, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::broker(what, code, message)),
    }
}
