//! What validators say to each other, in canonical bytes. A message that decodes is well-formed and bounded,
//! and nothing more: its signatures are checked where it is used.

use assent_proto::field::{DecodeError, Element, List, Message};
use assent_proto::hash::Hash;
use assent_proto::validators::{VoteKind, proposal_message, vote_message};
use assent_proto::{Address, BlockId, GenesisHash, Header, Height, Signature};
use bytes::Bytes;

/// The most bytes of a consensus message.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;

/// The highest round that a message may name. Rounds grow by one at each failure, so no honest one is near.
pub const ROUND_MAX: u32 = 1_000_000;

/// Declares messages over the structs in a `wire` module.
macro_rules! messages {
    ($( $(#[$m:meta])* $vis:vis $name:ident as $wire:path { $( $(#[$fm:meta])* $f:ident : $t:ty ),* $(,)? } )*) => { $(
        $(#[$m])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name { $( $(#[$fm])* $vis $f: $t, )* }

        impl assent_proto::field::Element for $name {
            type Wire = $wire;
            fn read(w: Self::Wire, _: &'static str) -> Result<Self, assent_proto::field::DecodeError> {
                Ok(Self { $( $f: assent_proto::field::Field::read_field(w.$f, stringify!($f))?, )* })
            }
            fn write(&self) -> Self::Wire {
                use $wire as Wire;
                Wire { $( $f: assent_proto::field::Field::write_field(&self.$f), )* }
            }
        }
    )* };
}
pub(crate) use messages;

/// Declares enums of which number 0 is never valid.
macro_rules! enums {
    ($( $(#[$m:meta])* $vis:vis $name:ident { $( $(#[$vm:meta])* $v:ident = $n:literal ),* $(,)? } )*) => { $(
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        $vis enum $name { $( $(#[$vm])* $v = $n, )* }

        impl assent_proto::field::Element for $name {
            type Wire = i32;
            fn read(w: i32, field: &'static str) -> Result<Self, assent_proto::field::DecodeError> {
                match w { $( $n => Ok($name::$v), )* _ => Err(assent_proto::field::DecodeError::Enum(field)) }
            }
            fn write(&self) -> i32 { *self as i32 }
        }
        impl assent_proto::field::Field for $name {
            type Wire = i32;
            fn read_field(w: i32, field: &'static str) -> Result<Self, assent_proto::field::DecodeError> {
                assent_proto::field::Element::read(w, field)
            }
            fn write_field(&self) -> i32 { assent_proto::field::Element::write(self) }
        }
    )* };
}
pub(crate) use enums;

/// How prost carries the messages.
pub(crate) mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct Proposal {
        #[prost(uint32, tag = "1")]
        pub round: u32,
        #[prost(uint32, optional, tag = "2")]
        pub valid_round: Option<u32>,
        #[prost(message, optional, tag = "3")]
        pub header: Option<assent_proto::wire::Header>,
        #[prost(bytes = "bytes", tag = "4")]
        pub proposer: Bytes,
        #[prost(bytes = "bytes", tag = "5")]
        pub signature: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct Vote {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(uint64, tag = "2")]
        pub height: u64,
        #[prost(uint32, tag = "3")]
        pub round: u32,
        #[prost(bytes = "bytes", optional, tag = "4")]
        pub block: Option<Bytes>,
        #[prost(bytes = "bytes", tag = "5")]
        pub validator: Bytes,
        #[prost(bytes = "bytes", tag = "6")]
        pub signature: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct Polka {
        #[prost(uint64, tag = "1")]
        pub height: u64,
        #[prost(uint32, tag = "2")]
        pub round: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub block: Bytes,
        #[prost(message, repeated, tag = "4")]
        pub prevotes: Vec<PolkaVote>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct PolkaVote {
        #[prost(bytes = "bytes", tag = "1")]
        pub validator: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub signature: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct SkipRound {
        #[prost(uint64, tag = "1")]
        pub height: u64,
        #[prost(uint32, tag = "2")]
        pub round: u32,
        #[prost(bool, tag = "3")]
        pub precommits: bool,
        #[prost(message, repeated, tag = "4")]
        pub votes: Vec<RoundVote>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct RoundVote {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub block: Option<Bytes>,
        #[prost(bytes = "bytes", tag = "3")]
        pub validator: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        pub signature: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub struct ConsensusMessage {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
        pub kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    #[prost(skip_debug)]
    #[allow(clippy::large_enum_variant, reason = "lives only while it is decoded or encoded")]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Proposal(Proposal),
        #[prost(message, tag = "2")]
        Vote(Vote),
        #[prost(message, tag = "3")]
        Polka(Polka),
        #[prost(message, tag = "4")]
        SkipRound(SkipRound),
    }
}

messages! {
    /// A proposer's word that this header is what it proposes at the header's height, in this round.
    pub SignedProposal as wire::Proposal {
        /// Round.
        round: u32,
        /// The round in which a quorum prevoted for it, if it is proposed again.
        valid_round: Option<u32>,
        /// What is proposed. The body travels in parts, beside the consensus messages.
        header: Header,
        /// The proposer.
        proposer: Address,
        /// Over [`proposal_message`].
        signature: Signature,
    }
    /// Proof that a quorum prevoted for a block in a round.
    pub Polka as wire::Polka {
        /// Height.
        height: Height,
        /// Round.
        round: u32,
        /// The block.
        block: BlockId,
        /// The prevotes.
        prevotes: List<PolkaVote, 128>,
    }
    /// One validator's prevote in a [`Polka`].
    pub PolkaVote as wire::PolkaVote {
        /// The validator.
        validator: Address,
        /// Over [`vote_message`].
        signature: Signature,
    }
    /// Proof that a round may be entered or left: so many voted in it.
    pub SkipRound as wire::SkipRound {
        /// Height.
        height: Height,
        /// The round in which the votes were cast.
        round: u32,
        /// Whether it is a quorum of precommits, which ends the round; else votes of more than a third, which
        /// let a validator skip to it.
        precommits: bool,
        /// The votes.
        votes: List<RoundVote, 128>,
    }
}

/// A vote with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedVote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// Height.
    pub height: Height,
    /// Round.
    pub round: u32,
    /// The block, or `None` for nil.
    pub block: Option<BlockId>,
    /// The validator.
    pub validator: Address,
    /// Over [`vote_message`].
    pub signature: Signature,
}

/// One vote in a [`SkipRound`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundVote {
    /// Prevote or precommit.
    pub kind: VoteKind,
    /// The block, or `None` for nil.
    pub block: Option<BlockId>,
    /// The validator.
    pub validator: Address,
    /// Over [`vote_message`].
    pub signature: Signature,
}

fn read_kind(number: i32) -> Result<VoteKind, DecodeError> {
    match number {
        1 => Ok(VoteKind::Prevote),
        2 => Ok(VoteKind::Precommit),
        _ => Err(DecodeError::Enum("kind")),
    }
}

impl Element for SignedVote {
    type Wire = wire::Vote;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        Ok(SignedVote {
            kind: read_kind(w.kind)?,
            height: Height(w.height),
            round: w.round,
            block: w.block.map(|b| BlockId::read(b, "block")).transpose()?,
            validator: Address::read(w.validator, "validator")?,
            signature: Signature::read(w.signature, "signature")?,
        })
    }
    fn write(&self) -> Self::Wire {
        wire::Vote {
            kind: self.kind as i32,
            height: self.height.0,
            round: self.round,
            block: self.block.as_ref().map(Element::write),
            validator: self.validator.write(),
            signature: self.signature.write(),
        }
    }
}

impl Element for RoundVote {
    type Wire = wire::RoundVote;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        Ok(RoundVote {
            kind: read_kind(w.kind)?,
            block: w.block.map(|b| BlockId::read(b, "block")).transpose()?,
            validator: Address::read(w.validator, "validator")?,
            signature: Signature::read(w.signature, "signature")?,
        })
    }
    fn write(&self) -> Self::Wire {
        wire::RoundVote {
            kind: self.kind as i32,
            block: self.block.as_ref().map(Element::write),
            validator: self.validator.write(),
            signature: self.signature.write(),
        }
    }
}

/// A message from one validator to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "moved once from the wire to the core; few are held")]
pub enum ConsensusMessage {
    /// A proposal.
    Proposal(SignedProposal),
    /// A vote.
    Vote(SignedVote),
    /// Proof of a lock.
    Polka(Polka),
    /// Proof that a round may be entered or left.
    SkipRound(SkipRound),
}

impl Element for ConsensusMessage {
    type Wire = wire::ConsensusMessage;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        let message = match w.kind.ok_or(DecodeError::Missing("kind"))? {
            wire::Kind::Proposal(p) => ConsensusMessage::Proposal(Element::read(p, "proposal")?),
            wire::Kind::Vote(v) => ConsensusMessage::Vote(Element::read(v, "vote")?),
            wire::Kind::Polka(p) => ConsensusMessage::Polka(Element::read(p, "polka")?),
            wire::Kind::SkipRound(s) => ConsensusMessage::SkipRound(Element::read(s, "skip_round")?),
        };
        if message.round() > ROUND_MAX { Err(DecodeError::Bounds("round")) } else { Ok(message) }
    }
    fn write(&self) -> Self::Wire {
        let kind = match self {
            ConsensusMessage::Proposal(p) => wire::Kind::Proposal(p.write()),
            ConsensusMessage::Vote(v) => wire::Kind::Vote(v.write()),
            ConsensusMessage::Polka(p) => wire::Kind::Polka(p.write()),
            ConsensusMessage::SkipRound(s) => wire::Kind::SkipRound(s.write()),
        };
        wire::ConsensusMessage { kind: Some(kind) }
    }
}

impl Message for ConsensusMessage {
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;
}

impl ConsensusMessage {
    /// The canonical encoding.
    pub fn encode(&self) -> Bytes {
        Message::encode(self)
    }

    /// Reads the canonical encoding and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Message::decode(bytes)
    }

    /// The height that it is about.
    pub fn height(&self) -> Height {
        match self {
            ConsensusMessage::Proposal(p) => p.header.height,
            ConsensusMessage::Vote(v) => v.height,
            ConsensusMessage::Polka(p) => p.height,
            ConsensusMessage::SkipRound(s) => s.height,
        }
    }

    /// The round that it is about.
    pub fn round(&self) -> u32 {
        match self {
            ConsensusMessage::Proposal(p) => p.round,
            ConsensusMessage::Vote(v) => v.round,
            ConsensusMessage::Polka(p) => p.round,
            ConsensusMessage::SkipRound(s) => s.round,
        }
    }
}

impl SignedVote {
    /// What is signed.
    pub fn message(&self, genesis: &GenesisHash) -> Hash {
        vote_message(genesis, self.kind, self.height, self.round, self.block.as_ref(), &self.validator)
    }
}

impl SignedProposal {
    /// What is signed.
    pub fn message(&self, genesis: &GenesisHash) -> Hash {
        let Header { height, .. } = self.header;
        proposal_message(genesis, height, self.round, self.valid_round, &self.header.id(), &self.proposer)
    }
}
