//! What can be wrong with a message's bytes, or with a message that is to become bytes.

/// A frame that does not hold the message it should, and the field where that showed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{kind}", place(.at))]
pub struct DecodeError {
    /// Structure and field that were being read, innermost first found; `None` outside of any.
    pub at: Option<(&'static str, &'static str)>,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

/// The ways in which bytes fail to be a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The version is not one this crate knows; found before the body is looked at.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The frame ends before the value does.
    #[error("{needed} bytes needed where {left} are left")]
    Truncated {
        /// How many bytes the value takes.
        needed: usize,
        /// How many the frame still has.
        left: usize,
    },
    /// A length below zero that does not stand for null either.
    #[error("a length of {length}")]
    NegativeLength {
        /// The length as read.
        length: i64,
    },
    /// A null where this version allows none.
    #[error("null where this version has none")]
    UnexpectedNull,
    /// More elements than one array, or all arrays of one frame together, may have.
    #[error("{count} elements where at most {limit} are taken")]
    TooManyElements {
        /// How many there would be.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// More tagged fields than one structure may have.
    #[error("{count} tagged fields where at most {limit} are taken")]
    TooManyTaggedFields {
        /// How many there would be.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A string longer than any version could write.
    #[error("a string of {length} bytes where at most {limit} are taken")]
    StringTooLong {
        /// How many bytes it has.
        length: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    InvalidUtf8,
    /// A variable-length integer of more bytes, or bits, than its type has.
    #[error("a variable-length integer that does not fit its type")]
    InvalidVarint,
}

impl DecodeError {
    /// Names the place, unless an inner one has been named already.
    pub(crate) fn within(mut self, structure: &'static str, field: &'static str) -> Self {
        self.at.get_or_insert((structure, field));
        self
    }
}

impl From<DecodeErrorKind> for DecodeError {
    fn from(kind: DecodeErrorKind) -> Self {
        Self { at: None, kind }
    }
}

fn place(at: &Option<(&'static str, &'static str)>) -> String {
    at.map_or_else(String::new, |(structure, field)| format!("{structure}.{field}: "))
}

/// A message that cannot be written in the version asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The version is not one this crate knows.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is set that the version lacks and that the receiver must not miss.
    #[error("{structure}.{field} is set, but version {version} does not have it")]
    FieldNotInVersion {
        /// The structure's name.
        structure: &'static str,
        /// The field's name.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null that cannot be null in the version.
    #[error("{structure}.{field} is null, which version {version} does not allow")]
    UnexpectedNull {
        /// The structure's name.
        structure: &'static str,
        /// The field's name.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A string, byte string or array is longer than the version's length field can say.
    #[error("{structure}.{field} is too long for version {version}: {length}")]
    TooLong {
        /// The structure's name.
        structure: &'static str,
        /// The field's name.
        field: &'static str,
        /// The version asked for.
        version: i16,
        /// Bytes, or elements of an array.
        length: usize,
    },
}

impl EncodeError {
    /// A null where none may be, at a place not yet named.
    pub(crate) fn unexpected_null(version: i16) -> Self {
        Self::UnexpectedNull {
            structure: "",
            field: "",
            version,
        }
    }

    /// A length that cannot be said, at a place not yet named.
    pub(crate) fn too_long(length: Option<usize>, version: i16) -> Self {
        Self::TooLong {
            structure: "",
            field: "",
            version,
            length: length.unwrap_or_default(),
        }
    }

    /// Names the place, unless an inner one has been named already.
    pub(crate) fn within(mut self, outer: &'static str, name: &'static str) -> Self {
        if let Self::UnexpectedNull { structure, field, .. } | Self::TooLong { structure, field, .. } =
            &mut self
            && structure.is_empty()
        {
            *structure = outer;
            *field = name;
        }
        self
    }
}
