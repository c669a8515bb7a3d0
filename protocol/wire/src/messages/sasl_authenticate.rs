//! SaslAuthenticate: carries the tokens of a SASL exchange (KIP-152, KIP-368).

use bytes::Bytes;

use crate::codec::Str;
use crate::messages::declare::declare;

declare! {
    api SaslAuthenticate, 0..=2, flexible 2: SaslAuthenticateRequest => SaslAuthenticateResponse;

    /// The client's token.
    pub struct SaslAuthenticateRequest {
        /// The token, in the mechanism's own format.
        auth_bytes: Bytes [0+],
    }

    /// The broker's token.
    pub struct SaslAuthenticateResponse {
        /// An [`ErrorCode`](crate::error::ErrorCode), zero for none.
        error_code: i16 [0+],
        /// What went wrong, in words.
        error_message: Option<Str> [0+],
        /// The token, in the mechanism's own format.
        auth_bytes: Bytes [0+],
        /// After how many milliseconds the client must authenticate again; zero for never.
        session_lifetime_ms: i64 [1+; ignorable],
    }
}
