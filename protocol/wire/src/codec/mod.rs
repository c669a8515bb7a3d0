//! Reading and writing Kafka's primitive types: integers, strings, arrays, varints, tagged fields.
//!
//! This module knows nothing of particular messages; those are declared in [`crate::messages`]. It holds the promise
//! that what arrives from a network can neither panic nor make the process allocate more than the frame justifies:
//! [`Reader`] checks every length against what is left before it takes or reserves anything.
//!
//! ```text
//! frame: Bytes -> Reader -> Field::read -> message -> Field::write -> Writer -> Vec<Bytes> -> socket
//! ```

mod error;
mod field;
mod reader;
mod records;
mod text;
mod writer;

pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use field::{At, Field, Nullable, Structure};
pub use reader::{
    MAX_ELEMENTS, MAX_ELEMENTS_PER_FRAME, MAX_INITIAL_CAPACITY, MAX_STRING, MAX_TAGGED_FIELDS, Reader,
};
pub use records::Records;
pub use text::Str;
pub(crate) use writer::TaggedFields;
pub use writer::{SHARE_FROM, Writer};
