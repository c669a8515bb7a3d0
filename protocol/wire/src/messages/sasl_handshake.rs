//! SaslHandshake: settles the SASL mechanism (KIP-43, KIP-152).

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api SaslHandshake, 0..=1, flexible never: SaslHandshakeRequest => SaslHandshakeResponse;

    /// The mechanism that the client wants.
    pub struct SaslHandshakeRequest {
        /// The mechanism's name, such as `SCRAM-SHA-512`.
        mechanism: Str [0+],
    }

    /// Whether it can have it.
    pub struct SaslHandshakeResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// The mechanisms that the broker has.
        mechanisms: Vec<Str> [0+],
    }
}
