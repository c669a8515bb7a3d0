//! [`Field`]: how a Rust type stands on the wire, in a given version.

use bytes::Bytes;

use super::{DecodeError, DecodeErrorKind, EncodeError, MAX_INITIAL_CAPACITY, Reader, Records, Str, Writer};
use crate::ids::{DirectoryId, TopicId};

/// What the bytes of a field depend on besides its type.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The version of the message.
    pub version: i16,
    /// Whether lengths are compact and structures end in tagged fields (KIP-482).
    pub flexible: bool,
    /// Whether null is allowed; only looked at by types that have one.
    pub nullable: bool,
}

impl At {
    /// The same for the elements of an array, which are never null.
    fn element(self) -> Self {
        Self {
            nullable: false,
            ..self
        }
    }
}

/// A type that a message's field can have.
pub trait Field: Sized {
    /// Takes a value off `r`.
    fn read(r: &mut Reader, at: At) -> Result<Self, DecodeError>;

    /// Puts this value into `w`.
    fn write(&self, w: &mut Writer, at: At) -> Result<(), EncodeError>;

    /// Some value that can stand in this place.
    #[cfg(test)]
    fn random(random: &mut crate::random::Random, at: At) -> Self;
}

macro_rules! plain {
    ($($ty:ty: $read:ident, $write:ident, $random:expr;)*) => {$(
        impl Field for $ty {
            fn read(r: &mut Reader, _: At) -> Result<Self, DecodeError> {
                r.$read()
            }

            fn write(&self, w: &mut Writer, _: At) -> Result<(), EncodeError> {
                w.$write(*self);
                Ok(())
            }

            #[cfg(test)]
            fn random(random: &mut crate::random::Random, _: At) -> Self {
                let value: fn(&mut crate::random::Random) -> Self = $random;
                value(random)
            }
        }
    )*};
}

plain! {
    bool: bool, put_bool, |r| r.below(2) == 1;
    i8: i8, put_i8, |r| r.integer() as i8;
    i16: i16, put_i16, |r| r.integer() as i16;
    u16: u16, put_u16, |r| r.integer() as u16;
    i32: i32, put_i32, |r| r.integer() as i32;
    i64: i64, put_i64, |r| r.integer();
    TopicId: uuid, put_uuid, |r| TopicId(std::array::from_fn(|_| r.integer() as u8));
    DirectoryId: uuid, put_uuid, |r| DirectoryId(std::array::from_fn(|_| r.integer() as u8));
}

/// A type that the wire can also say null for: `Option` of it is a [`Field`] as well.
pub trait Nullable: Sized {
    /// Takes a value or null off `r`.
    fn read_nullable(r: &mut Reader, at: At) -> Result<Option<Self>, DecodeError>;

    /// Puts a value, or null, into `w`.
    fn write_nullable(value: Option<&Self>, w: &mut Writer, at: At) -> Result<(), EncodeError>;

    /// Takes a value off `r` where there is never null.
    fn read_value(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
        Self::read_nullable(r, at)?.ok_or_else(|| DecodeErrorKind::UnexpectedNull.into())
    }

    /// Puts this value into `w` where there is never null.
    fn write_value(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), w, at)
    }

    /// Some value, never null.
    #[cfg(test)]
    fn random_value(random: &mut crate::random::Random, at: At) -> Self;
}

/// A structure: its fields one after the other, then, in flexible versions, its tagged fields.
pub trait Structure: Sized {
    /// Takes the fields off `r`.
    fn read_fields(r: &mut Reader, at: At) -> Result<Self, DecodeError>;

    /// Puts the fields into `w`.
    fn write_fields(&self, w: &mut Writer, at: At) -> Result<(), EncodeError>;

    /// Some value; fields that the version lacks have their default.
    #[cfg(test)]
    fn random_fields(random: &mut crate::random::Random, at: At) -> Self;
}

impl<T: Structure> Nullable for T {
    fn read_nullable(r: &mut Reader, at: At) -> Result<Option<Self>, DecodeError> {
        if r.i8()? < 0 {
            Ok(None)
        } else {
            T::read_fields(r, at).map(Some)
        }
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        w.put_i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| value.write_fields(w, at))
    }

    fn read_value(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
        T::read_fields(r, at)
    }

    fn write_value(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        self.write_fields(w, at)
    }

    #[cfg(test)]
    fn random_value(random: &mut crate::random::Random, at: At) -> Self {
        T::random_fields(random, at)
    }
}

impl<T: Nullable> Field for T {
    fn read(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
        T::read_value(r, at)
    }

    fn write(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        self.write_value(w, at)
    }

    #[cfg(test)]
    fn random(random: &mut crate::random::Random, at: At) -> Self {
        T::random_value(random, at)
    }
}

impl<T: Nullable> Field for Option<T> {
    fn read(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
        let value = T::read_nullable(r, at)?;
        if value.is_none() && !at.nullable {
            return Err(DecodeErrorKind::UnexpectedNull.into());
        }
        Ok(value)
    }

    fn write(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        if self.is_none() && !at.nullable {
            return Err(EncodeError::unexpected_null(at.version));
        }
        T::write_nullable(self.as_ref(), w, at)
    }

    #[cfg(test)]
    fn random(random: &mut crate::random::Random, at: At) -> Self {
        (!at.nullable || random.below(4) > 0).then(|| T::random_value(random, at))
    }
}

impl Nullable for Str {
    fn read_nullable(r: &mut Reader, at: At) -> Result<Option<Self>, DecodeError> {
        r.string(at.flexible)
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        w.put_string_length(value.map(|text| text.len()), at)?;
        w.put(value.map_or(&[], |text| text.as_bytes()));
        Ok(())
    }

    #[cfg(test)]
    fn random_value(random: &mut crate::random::Random, _: At) -> Self {
        random.text().into()
    }
}

impl Nullable for Bytes {
    fn read_nullable(r: &mut Reader, at: At) -> Result<Option<Self>, DecodeError> {
        r.bytes(at.flexible)
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        w.put_length(value.map(Self::len), at)?;
        value.into_iter().for_each(|bytes| w.put_shared(bytes));
        Ok(())
    }

    #[cfg(test)]
    fn random_value(random: &mut crate::random::Random, _: At) -> Self {
        random.bytes().into()
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn read_nullable(r: &mut Reader, at: At) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.count(at.flexible)? else {
            return Ok(None);
        };
        let mut elements = Self::with_capacity(count.min(MAX_INITIAL_CAPACITY));
        for _ in 0..count {
            elements.push(T::read(r, at.element())?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        w.put_length(value.map(Self::len), at)?;
        value
            .into_iter()
            .flatten()
            .try_for_each(|element| element.write(w, at.element()))
    }

    #[cfg(test)]
    fn random_value(random: &mut crate::random::Random, at: At) -> Self {
        (0..random.below(4))
            .map(|_| T::random(random, at.element()))
            .collect()
    }
}

impl Field for Records {
    fn read(r: &mut Reader, at: At) -> Result<Self, DecodeError> {
        Ok(r.bytes(at.flexible)?.map_or_else(Self::default, Self::from))
    }

    fn write(&self, w: &mut Writer, at: At) -> Result<(), EncodeError> {
        w.put_length(Some(self.len()), at)?;
        self.0.iter().for_each(|piece| w.put_shared(piece));
        Ok(())
    }

    #[cfg(test)]
    fn random(random: &mut crate::random::Random, _: At) -> Self {
        Self::from(Bytes::from(random.bytes()))
    }
}
