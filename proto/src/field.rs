//! From wire messages to checked types and back: one value has one encoding.
//!
//! A message is accepted if every field is present and within its bounds, and if encoding it again gives
//! the very bytes that came in ([`Message::decode`]). Unknown fields, unknown enum numbers, non-minimal
//! numbers, fields out of order or given twice, explicit defaults: all change the bytes, and are refused.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a protobuf message of this type.
    #[error("the bytes are not a message of this type")]
    Malformed,
    /// More bytes than this message may have.
    #[error("the message is larger than {0} bytes")]
    TooLarge(usize),
    /// It decodes, but it is not the one canonical encoding.
    #[error("the encoding is not canonical")]
    NotCanonical,
    /// A field is absent.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field of fixed length has another length.
    #[error("field {0} has the wrong length")]
    Length(&'static str),
    /// An enum number that this version does not know, or 0.
    #[error("field {0} has an unknown number")]
    Enum(&'static str),
    /// Too many or too few elements, or a number out of range.
    #[error("field {0} is out of bounds")]
    Bounds(&'static str),
}

/// A value of which a message may hold one, none or many.
pub trait Element: Sized {
    /// How prost carries one of it.
    type Wire;
    /// Checks it.
    fn read(w: Self::Wire, field: &'static str) -> Result<Self, DecodeError>;
    /// Writes it.
    fn write(&self) -> Self::Wire;
}

/// A field of a message.
pub trait Field: Sized {
    /// How prost carries the field.
    type Wire;
    /// Checks it.
    fn read_field(w: Self::Wire, field: &'static str) -> Result<Self, DecodeError>;
    /// Writes it.
    fn write_field(&self) -> Self::Wire;
}

/// A message with one canonical encoding.
pub trait Message: Element<Wire: prost::Message + Default> {
    /// The most bytes that an encoding may have.
    const BYTES_MAX: usize = 64 << 10;

    /// The canonical encoding.
    fn encode(&self) -> Bytes {
        prost::Message::encode_to_vec(&self.write()).into()
    }

    /// Reads the canonical encoding and nothing else.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(DecodeError::TooLarge(Self::BYTES_MAX));
        }
        let wire = <Self::Wire as prost::Message>::decode(bytes).map_err(|_| DecodeError::Malformed)?;
        let message = Self::read(wire, "message")?;
        if message.encode() != bytes {
            return Err(DecodeError::NotCanonical);
        }
        Ok(message)
    }
}

/// Makes a type that prost carries bare (numbers, bytes, enums) a field.
macro_rules! plain_field {
    ($t:ty) => {
        impl $crate::field::Field for $t {
            type Wire = <$t as $crate::field::Element>::Wire;
            fn read_field(w: Self::Wire, field: &'static str) -> Result<Self, $crate::field::DecodeError> {
                $crate::field::Element::read(w, field)
            }
            fn write_field(&self) -> Self::Wire {
                $crate::field::Element::write(self)
            }
        }
    };
}
pub(crate) use plain_field;

/// Makes a message a field: prost carries it as an option, and it must be there.
macro_rules! message_field {
    ($t:ty) => {
        impl $crate::field::Field for $t {
            type Wire = Option<<$t as $crate::field::Element>::Wire>;
            fn read_field(w: Self::Wire, field: &'static str) -> Result<Self, $crate::field::DecodeError> {
                $crate::field::Element::read(w.ok_or($crate::field::DecodeError::Missing(field))?, field)
            }
            fn write_field(&self) -> Self::Wire {
                Some($crate::field::Element::write(self))
            }
        }
    };
}
pub(crate) use message_field;

macro_rules! numbers {
    ($($t:ty),*) => { $(
        impl Element for $t {
            type Wire = $t;
            fn read(w: $t, _: &'static str) -> Result<Self, DecodeError> { Ok(w) }
            fn write(&self) -> $t { *self }
        }
        plain_field!($t);
    )* };
}
numbers!(u32, u64, bool);

impl Element for Bytes {
    type Wire = Bytes;
    fn read(w: Bytes, _: &'static str) -> Result<Self, DecodeError> {
        Ok(w)
    }
    fn write(&self) -> Bytes {
        self.clone()
    }
}
plain_field!(Bytes);

/// Shows bytes as hexadecimal digits where a message is printed as JSON.
pub(crate) fn as_hex<S: serde::Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(bytes))
}

/// The same for bytes that may be absent.
pub(crate) fn as_optional_hex<S: serde::Serializer>(bytes: &Option<Bytes>, s: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(hex::encode).serialize(s)
}

impl<T: Element> Field for Option<T> {
    type Wire = Option<T::Wire>;
    fn read_field(w: Self::Wire, field: &'static str) -> Result<Self, DecodeError> {
        w.map(|w| T::read(w, field)).transpose()
    }
    fn write_field(&self) -> Self::Wire {
        self.as_ref().map(T::write)
    }
}

/// At most `MAX` elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The most elements.
    pub const MAX: usize = MAX;

    /// No elements.
    pub fn empty() -> Self {
        List(Vec::new())
    }

    /// The elements.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T, const MAX: usize> std::ops::Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = DecodeError;
    fn try_from(v: Vec<T>) -> Result<Self, DecodeError> {
        if v.len() > MAX { Err(DecodeError::Bounds("list")) } else { Ok(List(v)) }
    }
}

impl<T: Element, const MAX: usize> Field for List<T, MAX> {
    type Wire = Vec<T::Wire>;
    fn read_field(w: Self::Wire, field: &'static str) -> Result<Self, DecodeError> {
        if w.len() > MAX {
            return Err(DecodeError::Bounds(field));
        }
        w.into_iter().map(|w| T::read(w, field)).collect::<Result<_, _>>().map(List)
    }
    fn write_field(&self) -> Self::Wire {
        self.0.iter().map(T::write).collect()
    }
}

/// Declares messages: a struct, and its way from and to the wire.
macro_rules! messages {
    ($( $(#[$m:meta])* $name:ident { $( $(#[$fm:meta])* $f:ident : $t:ty ),* $(,)? } )*) => { $(
        $(#[$m])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
        pub struct $name { $( $(#[$fm])* pub $f: $t, )* }

        impl $crate::field::Element for $name {
            type Wire = $crate::wire::$name;
            fn read(w: Self::Wire, _: &'static str) -> Result<Self, $crate::field::DecodeError> {
                Ok(Self { $( $f: $crate::field::Field::read_field(w.$f, stringify!($f))?, )* })
            }
            fn write(&self) -> Self::Wire {
                $crate::wire::$name { $( $f: $crate::field::Field::write_field(&self.$f), )* }
            }
        }
        $crate::field::message_field!($name);
        impl $crate::field::Message for $name {}
    )* };
}
pub(crate) use messages;

/// Declares enums of which number 0 is never valid.
macro_rules! enums {
    ($( $(#[$m:meta])* $name:ident { $( $(#[$vm:meta])* $v:ident = $n:literal ),* $(,)? } )*) => { $(
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum $name { $( $(#[$vm])* $v = $n, )* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$( $name::$v, )*];
        }

        impl $crate::field::Element for $name {
            type Wire = i32;
            fn read(w: i32, field: &'static str) -> Result<Self, $crate::field::DecodeError> {
                match w { $( $n => Ok($name::$v), )* _ => Err($crate::field::DecodeError::Enum(field)) }
            }
            fn write(&self) -> i32 { *self as i32 }
        }
        $crate::field::plain_field!($name);
    )* };
}
pub(crate) use enums;
