//! QUIC and TCP endpoints, identities and framing.
