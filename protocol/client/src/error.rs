//! Why a call to a cluster failed.

use std::time::Duration;

use tradewind_wire::api::ApiKey;
use tradewind_wire::codec::{DecodeError, EncodeError};
use tradewind_wire::error::ErrorCode;
use tradewind_wire::ids::NodeId;

/// Why a call failed. Every variant says what was tried, on whom.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No broker could be reached.
    #[error("no broker answers: {}", tried.join("; "))]
    NoBroker {
        /// Each address that was tried, and why it failed.
        tried: Vec<String>,
    },
    /// A connection could not be made.
    #[error("cannot connect to {addr}: {reason}")]
    Connect {
        /// The broker's address.
        addr: String,
        /// Why.
        reason: String,
    },
    /// The connection ended before the answer came. The request may have been carried out.
    #[error("{addr}: connection lost: {reason}")]
    Disconnected {
        /// The broker's address.
        addr: String,
        /// Why.
        reason: String,
    },
    /// The answer did not come in time. The request may have been carried out.
    #[error("{what} took longer than {after:?}")]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// Client and broker have no version of an API in common, or the one in common lacks what was asked.
    #[error("{addr} does not offer {} in a version that this needs", api.name())]
    Unsupported {
        /// The broker's address.
        addr: String,
        /// The API.
        api: ApiKey,
    },
    /// The request cannot be written in the version in common.
    #[error("cannot write a request: {0}")]
    Encode(#[from] EncodeError),
    /// The answer is not what it should be.
    #[error("{addr} answers {} with something else: {source}", api.name())]
    Decode {
        /// The broker's address.
        addr: String,
        /// The API.
        api: ApiKey,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The broker refused.
    #[error("{}: {}{}", what, code.name(), message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Broker {
        /// What was asked, of what.
        what: String,
        /// The broker's reason.
        code: ErrorCode,
        /// The broker's words, if any.
        message: Option<String>,
    },
    /// The broker is not in the cluster's metadata.
    #[error("broker {0} is not known")]
    UnknownBroker(NodeId),
    /// The partition has no leader at present.
    #[error("{topic}-{partition} has no leader")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The answer lacks what was asked about.
    #[error("{what}: the answer does not mention it")]
    Missing {
        /// What was asked about.
        what: String,
    },
}

impl ClientError {
    /// A refusal of `what`.
    pub(crate) fn broker(what: impl Into<String>, code: ErrorCode, message: Option<&str>) -> Self {
        Self::Broker {
            what: what.into(),
            code,
            message: message.map(str::to_owned),
        }
    }

    /// Whether the same call may well succeed later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NoBroker { .. }
            | Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::UnknownBroker(_)
            | Self::NoLeader { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Unsupported { .. } | Self::Encode(_) | Self::Decode { .. } | Self::Missing { .. } => false,
        }
    }

    /// The broker's reason, if a broker refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}
