//! Newtypes for every 32-byte name, and the small units. Never a bare `u64` or `[u8; 32]` at a boundary.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::field::{DecodeError, Element};
use crate::hash::{self, Hash};

macro_rules! ids {
    ($( $(#[$doc:meta])* $name:ident; )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub Hash);
        impl $name {
            /// Reads 64 hexadecimal digits.
            pub fn from_hex(text: &str) -> Option<Self> { Hash::from_hex(text).map(Self) }
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; 32] { &self.0.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&self.0, f) }
        }
        impl std::str::FromStr for $name {
            type Err = &'static str;
            fn from_str(s: &str) -> Result<Self, Self::Err> { Self::from_hex(s).ok_or("64 hexadecimal digits are expected") }
        }
        impl Element for $name {
            type Wire = Bytes;
            fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> { Hash::read(w, field).map(Self) }
            fn write(&self) -> Bytes { self.0.write() }
        }
        crate::field::plain_field!($name);
    )* };
}

ids! {
    /// The hash of the founding document: names the chain.
    GenesisHash;
    /// An institution: of the founding document, or admitted later.
    InstitutionId;
    /// An insured person's account with one custodian (handle): the id of the body that enrolled it.
    AccountId;
    /// An item of the resource catalogue (数据资源目录), from its code and scope.
    ItemId;
    /// An anchored batch of records: the id of the body that anchored it.
    BatchId;
    /// A commitment to the one matter (一事) that an authorization is for.
    CaseId;
    /// A person's authorization: the id of the body that granted it.
    GrantId;
    /// A permitted use: the id of the body that requested it.
    PermitId;
    /// A product of an activity, named by whoever made it.
    ArtifactId;
    /// A proposed change: the id of the body that proposed it.
    ProposalId;
    /// One account's right to grant for another: the id of the body that confirmed it.
    DelegationId;
    /// Access by order of a court or by statute: the id of the body that issued it.
    OrderId;
    /// A validator's contradiction, from whose it was, height, round and kind.
    MisconductId;
    /// Names what a transaction does; see [`crate::hash::BODY_ID`].
    BodyId;
    /// Names a transaction's bytes; see [`crate::hash::ENVELOPE_ID`].
    EnvelopeId;
    /// A salted commitment.
    Commitment;
}

impl Element for Hash {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        w[..].try_into().map(Hash).map_err(|_| DecodeError::Length(field))
    }
    fn write(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}
crate::field::plain_field!(Hash);

impl GenesisHash {
    /// The head of the hash, which every body carries so that a body for another chain is refused by name.
    pub fn tag(&self) -> ChainTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0.0[..8]);
        ChainTag(tag)
    }
}

impl ItemId {
    /// The item's id: one (code, scope) is one item, so a second source cannot be registered (R20).
    pub fn of(code: u32, scope: u32) -> Self {
        ItemId(hash::ITEM_ID.hash(&[&code.to_le_bytes(), &scope.to_le_bytes()]))
    }
}

/// The first 8 bytes of the genesis hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainTag(pub [u8; 8]);

impl Element for ChainTag {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        w[..].try_into().map(ChainTag).map_err(|_| DecodeError::Length(field))
    }
    fn write(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}
crate::field::plain_field!(ChainTag);

/// A validator's address: the first 20 bytes of the hash of its consensus key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}
impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl Element for Address {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        w[..].try_into().map(Address).map_err(|_| DecodeError::Length(field))
    }
    fn write(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}
crate::field::plain_field!(Address);

macro_rules! units {
    ($( $(#[$doc:meta])* $name:ident($inner:ty); )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl Element for $name {
            type Wire = $inner;
            fn read(w: $inner, _: &'static str) -> Result<Self, DecodeError> { Ok(Self(w)) }
            fn write(&self) -> $inner { self.0 }
        }
        crate::field::plain_field!($name);
    )* };
}

units! {
    /// A block's height; the first block has height 1, the founding state height 0.
    Height(u64);
    /// Unix time in milliseconds; on the chain always block time.
    TimeMs(u64);
    /// Days since 1970-01-01.
    Day(u32);
}

impl Height {
    /// The height above.
    pub fn next(self) -> Height {
        Height(self.0 + 1)
    }
    /// The height below, and `None` below the founding state.
    pub fn previous(self) -> Option<Height> {
        self.0.checked_sub(1).map(Height)
    }
}

impl TimeMs {
    /// This time and `ms` milliseconds, at the end of time at most.
    pub fn plus(self, ms: u64) -> TimeMs {
        TimeMs(self.0.saturating_add(ms))
    }
}
