//! The vote log: what a validator must remember to never contradict itself. It holds, in order, every input
//! that moved the core and, before each signature, the intent to make it. Where the bytes are kept is the
//! caller's business ([`VoteLog`]); what they mean is known here alone.
//!
//! A frame is its length (u32, little-endian), a check of 8 bytes, and an entry in canonical bytes. The check
//! covers everything from the beginning of the log to the end of the frame, so a byte changed, a frame left
//! out, repeated or moved is seen. A log that ends after a whole frame is an older log, and cannot be told from
//! one that was never longer: [`crate::Consensus`] watches for votes of its own that it does not remember.

use assent_proto::field::{DecodeError, Element, Message};
use assent_proto::hash::Hash;
use assent_proto::{Address, GenesisHash, Header, Height};

use crate::message::{Polka, SignedProposal, SignedVote, enums, messages};
use crate::timers::Step;

/// Where the log's bytes are kept: appended, never changed.
pub trait VoteLog {
    /// Appends bytes; they need not be durable yet.
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogFault>;
    /// Returns once everything appended is durable.
    fn sync(&mut self) -> Result<(), LogFault>;
}

/// The log could not be written: the node must stop, since it may not vote without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vote log cannot be written: {0}")]
pub struct LogFault(pub String);

/// The log cannot be trusted: the validator abstains for the height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vote log is damaged at byte {offset}: {reason}")]
pub struct LogDamaged {
    /// Where the frame begins that cannot be read.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Stands for a log that ought to be there and is not: given as the log's bytes, it is found damaged.
pub const LOST: &[u8] = &[0xff];

/// The most bytes of an entry.
const ENTRY_BYTES_MAX: usize = 64 << 10;
const HEAD_BYTES: usize = 12;

mod wire {
    use crate::message::wire::{Polka, Proposal, Vote};
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Start {
        #[prost(bytes = "bytes", tag = "1")]
        pub genesis: Bytes,
        #[prost(uint64, tag = "2")]
        pub height: u64,
        #[prost(bytes = "bytes", tag = "3")]
        pub validator: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Intent {
        #[prost(int32, tag = "1")]
        pub what: i32,
        #[prost(uint32, tag = "2")]
        pub round: u32,
        #[prost(bytes = "bytes", tag = "3")]
        pub message: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Elapsed {
        #[prost(int32, tag = "1")]
        pub step: i32,
        #[prost(uint32, tag = "2")]
        pub round: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Body {
        #[prost(uint32, tag = "1")]
        pub round: u32,
        #[prost(uint32, optional, tag = "2")]
        pub valid_round: Option<u32>,
        #[prost(bytes = "bytes", tag = "3")]
        pub proposer: Bytes,
        #[prost(message, optional, tag = "4")]
        pub header: Option<assent_proto::wire::Header>,
        #[prost(bool, tag = "5")]
        pub valid: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Abstain {}

    #[derive(Clone, PartialEq, prost::Message)]
    #[prost(skip_debug)]
    pub(crate) struct Entry {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
        pub kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    #[prost(skip_debug)]
    pub(crate) enum Kind {
        #[prost(message, tag = "1")]
        Start(Start),
        #[prost(message, tag = "2")]
        Intent(Intent),
        #[prost(message, tag = "3")]
        Proposal(Proposal),
        #[prost(message, tag = "4")]
        Vote(Vote),
        #[prost(message, tag = "5")]
        Polka(Polka),
        #[prost(message, tag = "6")]
        Elapsed(Elapsed),
        #[prost(message, tag = "7")]
        Body(Body),
        #[prost(message, tag = "8")]
        Abstain(Abstain),
    }
}

enums! {
    /// What a signature is for.
    pub(crate) What {
        /// A prevote.
        Prevote = 1,
        /// A precommit.
        Precommit = 2,
        /// A proposal.
        Proposal = 3,
    }
}

messages! {
    /// A height begins: what follows belongs to it.
    pub(crate) Start as wire::Start {
        genesis: GenesisHash,
        height: Height,
        validator: Address,
    }
    /// This is about to be signed.
    pub(crate) Intent as wire::Intent {
        what: What,
        round: u32,
        message: Hash,
    }
    /// A timer went off.
    pub(crate) Elapsed as wire::Elapsed {
        step: Step,
        round: u32,
    }
    /// A block was built or received, and executed.
    pub(crate) Body as wire::Body {
        round: u32,
        valid_round: Option<u32>,
        proposer: Address,
        header: Header,
        valid: bool,
    }
}

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Start(Start),
    Intent(Intent),
    Proposal(SignedProposal),
    Vote(SignedVote),
    Polka(Polka),
    Elapsed(Elapsed),
    Body(Body),
    /// Nothing more is signed at this height.
    Abstain,
}

impl Element for Entry {
    type Wire = wire::Entry;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        Ok(match w.kind.ok_or(DecodeError::Missing("kind"))? {
            wire::Kind::Start(e) => Entry::Start(Element::read(e, "start")?),
            wire::Kind::Intent(e) => Entry::Intent(Element::read(e, "intent")?),
            wire::Kind::Proposal(e) => Entry::Proposal(Element::read(e, "proposal")?),
            wire::Kind::Vote(e) => Entry::Vote(Element::read(e, "vote")?),
            wire::Kind::Polka(e) => Entry::Polka(Element::read(e, "polka")?),
            wire::Kind::Elapsed(e) => Entry::Elapsed(Element::read(e, "elapsed")?),
            wire::Kind::Body(e) => Entry::Body(Element::read(e, "body")?),
            wire::Kind::Abstain(_) => Entry::Abstain,
        })
    }
    fn write(&self) -> Self::Wire {
        let kind = match self {
            Entry::Start(e) => wire::Kind::Start(e.write()),
            Entry::Intent(e) => wire::Kind::Intent(e.write()),
            Entry::Proposal(e) => wire::Kind::Proposal(e.write()),
            Entry::Vote(e) => wire::Kind::Vote(e.write()),
            Entry::Polka(e) => wire::Kind::Polka(e.write()),
            Entry::Elapsed(e) => wire::Kind::Elapsed(e.write()),
            Entry::Body(e) => wire::Kind::Body(e.write()),
            Entry::Abstain => wire::Kind::Abstain(wire::Abstain {}),
        };
        wire::Entry { kind: Some(kind) }
    }
}

impl Message for Entry {
    const BYTES_MAX: usize = ENTRY_BYTES_MAX;
}

/// Writes frames. It knows the check of all that the log holds so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writer {
    chain: [u8; 32],
}

impl Writer {
    pub(crate) fn append(&mut self, log: &mut dyn VoteLog, entry: &Entry) -> Result<(), LogFault> {
        let bytes = entry.encode();
        let length = (bytes.len() as u32).to_le_bytes();
        self.chain = link(&self.chain, length, &bytes);
        log.append(&[&length, &self.chain[..8], &bytes].concat())
    }
}

fn link(chain: &[u8; 32], length: [u8; 4], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("assent 2026-11 vote log");
    hasher.update(chain).update(&length).update(bytes);
    *hasher.finalize().as_bytes()
}

/// Reads a whole log, and gives the writer that goes on with it.
pub(crate) fn read(log: &[u8]) -> Result<(Vec<Entry>, Writer), LogDamaged> {
    let mut entries = Vec::new();
    let mut writer = Writer::default();
    let mut offset = 0;
    while offset < log.len() {
        let damaged = |reason| LogDamaged { offset, reason };
        let (head, rest) = log[offset..].split_at_checked(HEAD_BYTES).ok_or(damaged("the frame is cut"))?;
        let length = [head[0], head[1], head[2], head[3]];
        let size = u32::from_le_bytes(length) as usize;
        if size > ENTRY_BYTES_MAX {
            return Err(damaged("the frame is too long"));
        }
        let bytes = rest.get(..size).ok_or(damaged("the frame is cut"))?;
        writer.chain = link(&writer.chain, length, bytes);
        if writer.chain[..8] != head[4..] {
            return Err(damaged("the check does not hold"));
        }
        entries.push(Entry::decode(bytes).map_err(|_| damaged("the entry is unknown"))?);
        offset += HEAD_BYTES + size;
    }
    Ok((entries, writer))
}

/// The entries of `height`, of a log that may begin with earlier heights. None if the height has not begun.
pub(crate) fn of_height(
    entries: Vec<Entry>,
    genesis: &GenesisHash,
    height: Height,
    validator: &Address,
) -> Result<Option<Vec<Entry>>, LogDamaged> {
    let damaged = |reason| LogDamaged { offset: 0, reason };
    let mut found: Option<Vec<Entry>> = None;
    let mut begun = false;
    for entry in entries {
        if let Entry::Start(start) = &entry {
            if start.genesis != *genesis || start.validator != *validator {
                return Err(damaged("the log is of another chain or validator"));
            }
            if start.height > height {
                return Err(damaged("the log is of a later height: the chain's store is older than the log"));
            }
            begun = true;
            // A height is begun once; a second beginning would make the first be forgotten.
            found = match (start.height == height, found) {
                (true, Some(_)) => return Err(damaged("the height begins twice")),
                (true, None) => Some(Vec::new()),
                (false, None) => None,
                (false, Some(_)) => return Err(damaged("an earlier height follows a later one")),
            };
        } else if !begun {
            return Err(damaged("the log has no beginning"));
        } else if let Some(found) = &mut found {
            found.push(entry);
        }
    }
    Ok(found)
}
