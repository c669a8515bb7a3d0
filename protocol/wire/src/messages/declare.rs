//! The macro that declares messages: one line per field makes the struct, its documentation, decoding and encoding.
//!
//! ```text
//! declare! {
//!     api Fetch, 4..=18, flexible 12: FetchRequest => FetchResponse;
//!
//!     /// One structure; request and response are structures as well.
//!     pub struct FetchTopic {
//!         /// What the field says.
//!         topic_id: TopicId [13+; ignorable],
//!         //        type     versions that have it; `ignorable`: may be dropped silently in the others
//!         max_bytes: i32 [3-14] = i32::MAX,
//!         //                      the value in versions that lack it, and in `Default` (else the type's own)
//!         cluster_id: Option<Str> [12+, tag 0, null 12+; ignorable],
//!         //                            a tagged field; the versions that allow null (else all)
//!     }
//! }
//! ```
//!
//! Fields stand in the order of the wire, tagged ones in the order of their numbers.

macro_rules! declare {
    ($(
        $kind:ident $key:ident, $min:literal ..= $max:literal, flexible $flexible:tt
            $(: $request:ident => $response:ident)?;
    )* $(
        $(#[$attribute:meta])*
        pub struct $name:ident { $(
            $(#[doc = $field_doc:literal])*
            $field:ident: $ty:ty [$($place:tt)*] $(= $default:expr)?,
        )* }
    )*) => {
        $($crate::messages::declare::message!($kind $key, $min, $max, $flexible $(, $request, $response)?);)*
        $(
            $(#[$attribute])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name { $(
                $(#[doc = $field_doc])*
                #[doc = concat!("\n\nVersions `", stringify!($($place)*), "`", $(", else `", stringify!($default), "`",)? ".")]
                pub $field: $ty,
            )* }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($field: $crate::messages::declare::default!($ty; $($default)?),)* }
                }
            }

            const _: () = {
                use $crate::codec::{At, DecodeError, EncodeError, Reader, Structure, TaggedFields, Writer};
                use $crate::messages::declare::{Place, default, place};

                /// Where each field stands.
                struct Places { $($field: Place,)* }
                const PLACES: Places = Places { $($field: place!($name $field [$($place)*]),)* };

                impl Structure for $name {
                    fn read_fields(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
                        $(
                            let mut $field: $ty = if PLACES.$field.is_plain(at) {
                                PLACES.$field.read(r, at)?
                            } else {
                                default!($ty; $($default)?)
                            };
                        )*
                        if at.flexible {
                            r.tagged_fields(|r, tag| {
                                $(if PLACES.$field.is_tagged_with(tag, at) {
                                    $field = PLACES.$field.read(r, at)?;
                                })*
                                Ok(())
                            })?;
                        }
                        Ok(Self { $($field),* })
                    }

                    fn write_fields(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
                        $(
                            if PLACES.$field.is_plain(at) {
                                PLACES.$field.write(&self.$field, w, at)?;
                            } else if !PLACES.$field.may_drop(at) && self.$field != default!($ty; $($default)?) {
                                return Err(PLACES.$field.not_in_version(at));
                            }
                        )*
                        if at.flexible {
                            let mut tags = TaggedFields::default();
                            $(
                                if let Some(tag) = PLACES.$field.tag(at)
                                    && self.$field != default!($ty; $($default)?)
                                {
                                    tags.push(tag, |w| PLACES.$field.write(&self.$field, w, at))?;
                                }
                            )*
                            tags.write(w);
                        }
                        Ok(())
                    }

                    #[cfg(test)]
                    fn random_fields(random: &mut $crate::random::Random, at: At) -> Self {
                        Self { $(
                            $field: if PLACES.$field.is_plain(at) || PLACES.$field.tag(at).is_some() && random.below(2) == 0 {
                                PLACES.$field.random(random, at)
                            } else {
                                default!($ty; $($default)?)
                            },
                        )* }
                    }
                }
            };
        )*
    };
}

/// Implements [`Message`](super::Message), and for requests [`Request`](super::Request).
macro_rules! message {
    (api $key:ident, $min:literal, $max:literal, $flexible:tt, $request:ident, $response:ident) => {
        $crate::messages::declare::message!(message $request, $min, $max, $flexible);
        $crate::messages::declare::message!(message $response, $min, $max, $flexible);

        impl $crate::messages::Request for $request {
            const KEY: $crate::api::ApiKey = $crate::api::ApiKey::$key;
            type Response = $response;
        }
    };
    (message $message:ident, $min:literal, $max:literal, never) => {
        $crate::messages::declare::message!(message $message, $min, $max, { i16::MAX });
    };
    (message $message:ident, $min:literal, $max:literal, $flexible:tt) => {
        impl $crate::messages::Message for $message {
            const NAME: &'static str = stringify!($message);
            const VERSIONS: (i16, i16) = ($min, $max);
            const FLEXIBLE_FROM: i16 = $flexible;
        }
    };
}

macro_rules! default {
    ($ty:ty;) => {
        <$ty as Default>::default()
    };
    ($ty:ty; $value:expr) => {
        $value
    };
}

macro_rules! place {
    ($structure:ident $field:ident [
        $from:literal $(+)? $(- $to:literal)? $(, tag $tag:literal)? $(, null $null:literal +)? $(; $ignorable:ident)?
    ]) => {
        Place {
            structure: stringify!($structure),
            field: stringify!($field),
            from: $from,
            to: Place::or(&[$($to)?], i16::MAX),
            tag: Place::or(&[$(Some($tag))?], None),
            null_from: Place::or(&[$($null)?], i16::MIN),
            ignorable: Place::or(&[$({ stringify!($ignorable); true })?], false),
        }
    };
}

pub(crate) use {declare, default, message, place};

use crate::codec::{At, DecodeError, EncodeError, Field, Reader, Writer};

/// What the declaration of a field says about its place on the wire.
pub(crate) struct Place {
    pub(crate) structure: &'static str,
    pub(crate) field: &'static str,
    pub(crate) from: i16,
    pub(crate) to: i16,
    pub(crate) tag: Option<u32>,
    pub(crate) null_from: i16,
    pub(crate) ignorable: bool,
}

impl Place {
    /// What was declared, or else what goes without saying.
    pub(crate) const fn or<T: Copy>(declared: &[T], otherwise: T) -> T {
        match declared {
            [value] => *value,
            _ => otherwise,
        }
    }

    const fn has(&self, at: At) -> bool {
        self.from <= at.version && at.version <= self.to
    }

    /// Whether the version has the field in its row, not as a tagged one.
    pub(crate) const fn is_plain(&self, at: At) -> bool {
        self.tag.is_none() && self.has(at)
    }

    /// The field's number if the version has it as a tagged field.
    pub(crate) const fn tag(&self, at: At) -> Option<u32> {
        if self.has(at) { self.tag } else { None }
    }

    /// Whether a tagged field of this number is the field.
    pub(crate) const fn is_tagged_with(&self, tag: u32, at: At) -> bool {
        matches!(self.tag(at), Some(own) if own == tag)
    }

    /// Whether a value can be left out without loss, or is written as a tagged field anyway.
    pub(crate) const fn may_drop(&self, at: At) -> bool {
        self.ignorable || self.has(at)
    }

    /// Reads the field, naming it should that fail.
    pub(crate) fn read<T: Field>(&self, r: &mut Reader, at: At) -> Result<T, DecodeError> {
        T::read(r, self.at(at)).map_err(|error| error.within(self.structure, self.field))
    }

    /// Writes the field, naming it should that fail.
    pub(crate) fn write<T: Field>(&self, value: &T, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        value
            .write(w, self.at(at))
            .map_err(|error| error.within(self.structure, self.field))
    }

    /// The error of a field that is set where the version lacks it.
    pub(crate) const fn not_in_version(&self, at: At) -> EncodeError {
        EncodeError::FieldNotInVersion {
            structure: self.structure,
            field: self.field,
            version: at.version,
        }
    }

    #[cfg(test)]
    pub(crate) fn random<T: Field>(&self, random: &mut crate::random::Random, at: At) -> T {
        T::random(random, self.at(at))
    }

    const fn at(&self, at: At) -> At {
        At {
            nullable: at.version >= self.null_from,
            ..at
        }
    }
}
