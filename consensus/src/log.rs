//! The vote log: what a validator must remember to never contradict itself. It holds, in order, every input
//! that moved the core and, before each signature, the intent to make it. Where the bytes are kept is the
//! caller's business ([`VoteLog`]); what they mean is known here alone.
//!
//! # Frames
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the entry, little-endian |
//! | 8 | check over everything before this frame, and the length |
//! | … | the entry, in canonical bytes |
//! | 8 | check over everything up to here |
//!
//! So a byte changed, a frame left out, repeated or moved is seen, and a changed length does not look like a log
//! that ends too early.
//!
//! # What a crash may do, and what it may not
//!
//! A signature leaves this machine only after [`VoteLog::sync`] has returned for its intent. What a crash may take
//! is what was appended after the last sync, and whose loss hurts nobody: no signature rests on it. It takes it
//! from the end: the file is shorter, or ends in zeros where its length was kept and its bytes were not. Reading
//! therefore knows two faults.
//!
//! - *Torn*: the last frame is not all there, or it fails its check and its end is nothing but zeros (at least as
//!   many as a check has bytes). Then that frame was never synced, or the file was cut by something other than a
//!   crash. It is cut off, durably, and the validator goes on with what is before it.
//! - *Damaged*: anything else. The validator abstains for the height.
//!
//! One changed byte is never taken for a tear, wherever it is. In a frame with others behind it, what is behind is
//! there and is not zero. In the last one, which may be synced and relied on, a changed byte leaves the frame as
//! long as it was, and its closing check with at most one byte more of zeros: it would need eight. A changed
//! length fails the check over the length, which a tear leaves alone unless all behind it is zero.
//!
//! # What the log cannot tell by itself
//!
//! Whoever cuts synced bytes off, or puts an older copy in place, leaves a log that was once the right one. Three
//! things stand against that: [`VoteLog::mark`], kept elsewhere, says that this height has a signature, so that a
//! log without one is known to be lost; peers are asked for our newest statement ([`crate::Floor`]); and a
//! signature of ours that we hear and do not remember silences us at once.

use assent_proto::field::{DecodeError, Element, Message};
use assent_proto::hash::Hash;
use assent_proto::{Address, GenesisHash, Header, Height};

use crate::message::{Polka, SignedProposal, SignedVote, enums, messages};
use crate::timers::Step;

/// Where the log's bytes are kept: appended, never changed.
pub trait VoteLog {
    /// Appends bytes; they need not be durable yet.
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogFault>;
    /// Returns once everything appended is durable, by this process or by one before it.
    fn sync(&mut self) -> Result<(), LogFault>;
    /// Keeps the first `bytes` bytes and nothing behind them, durably. Called once at a start, before anything is
    /// appended, if a crash tore the end.
    fn truncate(&mut self, bytes: usize) -> Result<(), LogFault>;
    /// Notes durably, and not in the log itself, that something was signed at this height. Called after the first
    /// intent of a height is synced and before its signature leaves.
    fn mark(&mut self, height: Height) -> Result<(), LogFault>;
    /// The height that was marked last; 0 if none ever was.
    fn marked(&mut self) -> Result<Height, LogFault>;
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
pub const LOST: &[u8] = b"the vote log is lost";

/// The most bytes of an entry.
const ENTRY_BYTES_MAX: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;
const CHECK_BYTES: usize = 8;
const HEAD_BYTES: usize = LENGTH_BYTES + CHECK_BYTES;
/// The shortest entry is a tag and a length of 0.
const FRAME_BYTES_MIN: usize = HEAD_BYTES + 2 + CHECK_BYTES;

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
        let head = check_of_length(&self.chain, length);
        self.chain = link(&self.chain, length, &bytes);
        log.append(&[&length, &head[..], &bytes, &self.chain[..CHECK_BYTES]].concat())
    }
}

fn check_of_length(chain: &[u8; 32], length: [u8; LENGTH_BYTES]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("assent 2026-11 vote log length");
    hasher.update(chain).update(&length);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn link(chain: &[u8; 32], length: [u8; LENGTH_BYTES], bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("assent 2026-11 vote log");
    hasher.update(chain).update(&length).update(bytes);
    *hasher.finalize().as_bytes()
}

/// What a log says.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) entries: Vec<Entry>,
    /// Goes on where the whole frames end.
    pub(crate) writer: Writer,
    /// Bytes of whole frames: what is behind them was torn.
    pub(crate) whole: usize,
}

/// Reads a log up to its end or to where it is torn.
pub(crate) fn read(log: &[u8]) -> Result<Contents, LogDamaged> {
    if log == LOST {
        return Err(LogDamaged { offset: 0, reason: "it is not there" });
    }
    let mut contents = Contents { entries: Vec::new(), writer: Writer::default(), whole: 0 };
    while contents.whole < log.len() {
        let offset = contents.whole;
        match frame(&log[offset..], &mut contents.writer) {
            Ok((bytes, frame_bytes)) => {
                let unknown = |_| LogDamaged { offset, reason: "the entry is unknown" };
                contents.entries.push(Entry::decode(bytes).map_err(unknown)?);
                contents.whole += frame_bytes;
            }
            Err(Broken::Torn) => break,
            Err(Broken::Damaged(reason)) => return Err(LogDamaged { offset, reason }),
        }
    }
    Ok(contents)
}

enum Broken {
    Torn,
    Damaged(&'static str),
}

/// The entry's bytes of the first frame in `rest`, and how long the frame is.
fn frame<'a>(rest: &'a [u8], writer: &mut Writer) -> Result<(&'a [u8], usize), Broken> {
    if rest.len() < FRAME_BYTES_MIN {
        return Err(Broken::Torn);
    }
    let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>().expect("longer than the least");
    if behind[..CHECK_BYTES] != check_of_length(&writer.chain, *length) {
        return Err(torn_or(rest, HEAD_BYTES, "the check of a length does not hold"));
    }
    let size = u32::from_le_bytes(*length) as usize;
    if size > ENTRY_BYTES_MAX {
        return Err(Broken::Damaged("a frame is longer than any can be"));
    }
    let frame_bytes = HEAD_BYTES + size + CHECK_BYTES;
    let Some(frame) = rest.get(..frame_bytes) else { return Err(Broken::Torn) };
    let (bytes, check) = frame[HEAD_BYTES..].split_at(size);
    let chain = link(&writer.chain, *length, bytes);
    if chain[..CHECK_BYTES] != *check {
        return Err(torn_or(rest, frame_bytes, "a check does not hold"));
    }
    writer.chain = chain;
    Ok((bytes, frame_bytes))
}

/// A frame that fails its check is torn if the file ends in zeros that begin within it.
fn torn_or(rest: &[u8], within: usize, reason: &'static str) -> Broken {
    let zeros = rest.iter().rev().take_while(|b| **b == 0).count();
    if zeros >= CHECK_BYTES && rest.len() - zeros < within { Broken::Torn } else { Broken::Damaged(reason) }
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
