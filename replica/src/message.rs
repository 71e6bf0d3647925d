//! What validators say to each other, and its strict bytes. What is to be done about it is said elsewhere.
//!
//! A tag, then fixed numbers little-endian, then bytes with their lengths; one value has one encoding, and
//! nothing may follow it. Nothing here is hashed or signed: what is, travels inside in its canonical form.

use bytes::Bytes;

use assent_consensus::ConsensusMessage;
use assent_proto::block::BLOCK_BYTES_MAX;
use assent_proto::envelope::ENVELOPE_BYTES_MAX;
use assent_proto::event::EVENT_BYTES_MAX;
use assent_proto::evidence::{LINKS_MAX, ValidatorLink};
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::trie::TrieProof;
use assent_proto::{
    BlockId, CertifiedHeader, CommitCertificate, DecodeError, Event, Hash, Height, Leaf, ObjectRef,
};

/// The most bytes of one message: a block and its certificate fit.
pub const MESSAGE_BYTES_MAX: usize = BLOCK_BYTES_MAX + (256 << 10);
/// The most bytes of a message that is broadcast.
pub const GOSSIP_BYTES_MAX: usize = 512 << 10;
/// The most bytes of a block's encoding in one part.
pub const PART_BYTES_MAX: usize = 256 << 10;
/// The most parts of one block.
const PARTS_MAX: u32 = (BLOCK_BYTES_MAX / PART_BYTES_MAX) as u32;
/// The most envelopes in one message.
pub const TRANSACTIONS_MAX: usize = 1024;
/// The most blocks in one answer to a validator that catches up.
pub const CATCH_UP_BLOCKS_MAX: usize = 64;
/// Bytes after which an answer to a validator that catches up ends; one block is always in it.
pub const CATCH_UP_BYTES_MAX: usize = 4 << 20;
/// The most parts of a state in one answer.
pub const CHUNKS_MAX: usize = 64;
/// A state is in at most two to the power of so many parts.
pub(crate) const SNAPSHOT_BITS_MAX: u8 = 20;

/// A piece of a proposed block's canonical encoding. It carries no signature: the block's id, which the signed
/// proposal names, is the hash of what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Height.
    pub height: Height,
    /// Round in which the block is proposed.
    pub round: u32,
    /// The block's id.
    pub block: BlockId,
    /// Which part, from 0.
    pub index: u32,
    /// Of how many, 1 to 64. All but the last have [`PART_BYTES_MAX`] bytes.
    pub of: u32,
    /// The bytes.
    pub bytes: Bytes,
}

/// What one validator says to one other, or to all.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // never held in numbers
pub enum PeerMessage {
    /// Envelopes that came in over the sender's own door; at most [`TRANSACTIONS_MAX`]. To all.
    Transactions(Vec<Bytes>),
    /// A proposal's header, a vote, or a certificate of votes. To all.
    Consensus(ConsensusMessage),
    /// A piece of a proposed block: to all from its proposer, to one who asked from anyone.
    Part(Part),
    /// Asks for the parts of a proposed block that did not arrive.
    GetProposal {
        /// Height.
        height: Height,
        /// Round in which it was proposed.
        round: u32,
        /// The block's id.
        block: BlockId,
    },
    /// Asks for final blocks from one height to another, upwards or downwards.
    CatchUp {
        /// The first height wanted.
        from: Height,
        /// The last.
        to: Height,
    },
    /// Final blocks in canonical encoding with their certificates, from the height asked for on, without gaps, no
    /// more than asked for; empty if the one asked has none. At most [`CATCH_UP_BLOCKS_MAX`].
    Blocks(Vec<(Bytes, CommitCertificate)>),
    /// The newest final height of the sender.
    Tip {
        /// That height.
        height: Height,
    },
    /// Asks for the newest statement of the sender's own that the one asked has seen: said after a start.
    AskVotes,
    /// The vote or proposal that was asked for, with its author's signature; none if none was seen.
    Votes(Option<Box<ConsensusMessage>>),
    /// Asks for the newest state that the peer offers whole.
    AskSnapshot,
    /// The newest state that the sender offers, if any.
    Snapshot(Option<Box<Offer>>),
    /// Asks for parts of an offered state, from one part on.
    AskChunks {
        /// The block after which the state stood.
        block: BlockId,
        /// The first part wanted.
        first: u32,
        /// How many; the answer may have fewer.
        count: u32,
    },
    /// Parts of an offered state; none if the sender does not have it any more. At most [`CHUNKS_MAX`].
    Chunks {
        /// The block after which the state stood.
        block: BlockId,
        /// The first part.
        first: u32,
        /// The parts.
        chunks: Vec<Chunk>,
    },
    /// Asks for the events of final blocks, downwards from one.
    AskEvents {
        /// The highest block.
        from: Height,
        /// The first event wanted of that block.
        first: u32,
        /// The lowest block.
        to: Height,
    },
    /// Events of final blocks, downwards; empty if the one asked has none. At most [`CATCH_UP_BLOCKS_MAX`] blocks.
    Events(Vec<BlockEvents>),
    /// Asks what came of a block, in hashes.
    AskOutcome {
        /// Its height.
        height: Height,
    },
    /// What came of a block, in hashes.
    Outcome(Box<Outcome>),
}

/// A state that can be had in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The block after which it stood.
    pub certified: CertifiedHeader,
    /// The changes of the validators below that block.
    pub links: Vec<ValidatorLink>,
    /// Over the ids of the blocks below that block: what its `history_root` names.
    pub mountains: Mountains,
    /// Part `i` holds the leaves whose paths begin with the number `i` in so many bits.
    pub bits: u8,
}

/// A part of a state.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Its leaves by rising path.
    pub leaves: Vec<Leaf>,
    /// That they are all.
    pub proof: TrieProof,
}

/// Events of one block, or a stretch of them.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockEvents {
    /// The block.
    pub height: Height,
    /// Index of the first.
    pub first: u32,
    /// How many the block has in all.
    pub of: u32,
    /// The events.
    pub events: Vec<Event>,
}

/// What came of a block, in hashes: enough to see where another outcome differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The block.
    pub height: Height,
    /// The leaves of its events, over which its `events_root` stands.
    pub events: Vec<Hash>,
    /// Of which transaction each event is.
    pub transactions: Vec<u32>,
    /// The leaves that it changed, by key, zeros for one that left the state; none if the sender does not remember.
    pub changes: Vec<(ObjectRef, Hash)>,
}

const TRANSACTIONS: u8 = 1;
const CONSENSUS: u8 = 2;
const PART: u8 = 3;
const GET_PROPOSAL: u8 = 4;
const CATCH_UP: u8 = 5;
const BLOCKS: u8 = 6;
const TIP: u8 = 7;
const ASK_VOTES: u8 = 8;
const VOTES: u8 = 9;
const ASK_SNAPSHOT: u8 = 10;
const SNAPSHOT: u8 = 11;
const ASK_CHUNKS: u8 = 12;
const CHUNKS: u8 = 13;
const ASK_EVENTS: u8 = 14;
const EVENTS: u8 = 15;
const ASK_OUTCOME: u8 = 16;
const OUTCOME: u8 = 17;

impl PeerMessage {
    /// The encoding.
    pub fn encode(&self) -> Bytes {
        let out = match self {
            PeerMessage::Transactions(list) => {
                list.iter().fold(Writer::new(TRANSACTIONS).u32(list.len() as u32), |w, t| w.sized(t))
            }
            PeerMessage::Consensus(m) => Writer::new(CONSENSUS).raw(&m.encode()),
            PeerMessage::Part(p) => {
                Writer::new(PART).place(p.height, p.round, &p.block).u32(p.index).u32(p.of).raw(&p.bytes)
            }
            PeerMessage::GetProposal { height, round, block } => {
                Writer::new(GET_PROPOSAL).place(*height, *round, block)
            }
            PeerMessage::CatchUp { from, to } => Writer::new(CATCH_UP).u64(from.0).u64(to.0),
            PeerMessage::Blocks(list) => list
                .iter()
                .fold(Writer::new(BLOCKS).u32(list.len() as u32), |w, (b, c)| w.sized(b).sized(&c.encode())),
            PeerMessage::Tip { height } => Writer::new(TIP).u64(height.0),
            PeerMessage::AskVotes => Writer::new(ASK_VOTES),
            PeerMessage::Votes(None) => Writer::new(VOTES),
            PeerMessage::Votes(Some(m)) => Writer::new(VOTES).raw(&m.encode()),
            PeerMessage::AskSnapshot => Writer::new(ASK_SNAPSHOT),
            PeerMessage::Snapshot(None) => Writer::new(SNAPSHOT).raw(&[0]),
            PeerMessage::Snapshot(Some(offer)) => Writer::new(SNAPSHOT).raw(&[1]).offer(offer),
            PeerMessage::AskChunks { block, first, count } => {
                Writer::new(ASK_CHUNKS).raw(&block.0.0).u32(*first).u32(*count)
            }
            PeerMessage::Chunks { block, first, chunks } => Writer::new(CHUNKS)
                .raw(&block.0.0)
                .u32(*first)
                .list(chunks, |w, c| w.list(&c.leaves, Writer::message).message(&c.proof)),
            PeerMessage::AskEvents { from, first, to } => {
                Writer::new(ASK_EVENTS).u64(from.0).u32(*first).u64(to.0)
            }
            PeerMessage::Events(blocks) => Writer::new(EVENTS).list(blocks, |w, b| {
                w.u64(b.height.0).u32(b.first).u32(b.of).list(&b.events, Writer::message)
            }),
            PeerMessage::AskOutcome { height } => Writer::new(ASK_OUTCOME).u64(height.0),
            PeerMessage::Outcome(outcome) => Writer::new(OUTCOME).outcome(outcome),
        };
        out.0.into()
    }

    /// Reads just what [`PeerMessage::encode`] writes. Envelopes and blocks inside are bounded but not yet
    /// looked into.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge(MESSAGE_BYTES_MAX));
        }
        let mut r = Reader(bytes.clone());
        let message = match r.u8()? {
            TRANSACTIONS => {
                PeerMessage::Transactions(r.list(TRANSACTIONS_MAX, |r| r.sized(ENVELOPE_BYTES_MAX))?)
            }
            CONSENSUS => PeerMessage::Consensus(ConsensusMessage::decode(&r.rest())?),
            PART => PeerMessage::Part(r.part()?),
            GET_PROPOSAL => {
                let (height, round, block) = r.place()?;
                PeerMessage::GetProposal { height, round, block }
            }
            CATCH_UP => PeerMessage::CatchUp { from: r.height()?, to: r.height()? },
            BLOCKS => PeerMessage::Blocks(r.list(CATCH_UP_BLOCKS_MAX, Reader::certified_block)?),
            TIP => PeerMessage::Tip { height: r.height()? },
            ASK_SNAPSHOT => PeerMessage::AskSnapshot,
            SNAPSHOT => PeerMessage::Snapshot(match r.u8()? {
                0 => None,
                1 => Some(Box::new(r.offer()?)),
                _ => return Err(DecodeError::Enum("offer")),
            }),
            ASK_CHUNKS => {
                let (block, first) = (BlockId(Hash(r.array()?)), r.u32()?);
                PeerMessage::AskChunks { block, first, count: r.u32()? }
            }
            CHUNKS => {
                let (block, first) = (BlockId(Hash(r.array()?)), r.u32()?);
                PeerMessage::Chunks { block, first, chunks: r.list(CHUNKS_MAX, Reader::chunk)? }
            }
            ASK_EVENTS => {
                let (from, first) = (r.height()?, r.u32()?);
                PeerMessage::AskEvents { from, first, to: r.height()? }
            }
            EVENTS => PeerMessage::Events(r.list(CATCH_UP_BLOCKS_MAX, Reader::block_events)?),
            ASK_OUTCOME => PeerMessage::AskOutcome { height: r.height()? },
            OUTCOME => PeerMessage::Outcome(Box::new(r.outcome()?)),
            ASK_VOTES => PeerMessage::AskVotes,
            VOTES if r.0.is_empty() => PeerMessage::Votes(None),
            VOTES => PeerMessage::Votes(Some(Box::new(ConsensusMessage::decode(&r.rest())?))),
            _ => return Err(DecodeError::Enum("tag")),
        };
        if r.0.is_empty() { Ok(message) } else { Err(DecodeError::NotCanonical) }
    }
}

impl Part {
    /// The parts of a block, in order.
    pub fn split(height: Height, round: u32, block: BlockId, bytes: &Bytes) -> Vec<Part> {
        let of = bytes.len().div_ceil(PART_BYTES_MAX) as u32;
        (0..of)
            .map(|index| {
                let from = index as usize * PART_BYTES_MAX;
                let bytes = bytes.slice(from..bytes.len().min(from + PART_BYTES_MAX));
                Part { height, round, block, index, of, bytes }
            })
            .collect()
    }

    fn check(self) -> Result<Part, DecodeError> {
        let last = self.index.checked_add(1) == Some(self.of);
        let fits = if last {
            (1..=PART_BYTES_MAX).contains(&self.bytes.len())
        } else {
            self.bytes.len() == PART_BYTES_MAX
        };
        if self.of > PARTS_MAX || self.index >= self.of {
            return Err(DecodeError::Bounds("of"));
        }
        if fits { Ok(self) } else { Err(DecodeError::Bounds("bytes")) }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(tag: u8) -> Self {
        Writer(vec![tag])
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }
    fn sized(self, bytes: &[u8]) -> Self {
        self.u32(bytes.len() as u32).raw(bytes)
    }
    fn message<M: Message>(self, m: &M) -> Self {
        self.sized(&m.encode())
    }
    fn list<T>(self, items: &[T], item: impl Fn(Self, &T) -> Self) -> Self {
        items.iter().fold(self.u32(items.len() as u32), item)
    }
    fn offer(self, offer: &Offer) -> Self {
        self.message(&offer.certified)
            .list(&offer.links, Writer::message)
            .u64(offer.mountains.count())
            .list(offer.mountains.peaks(), |w, p| w.raw(&p.0))
            .raw(&[offer.bits])
    }
    fn outcome(self, outcome: &Outcome) -> Self {
        self.u64(outcome.height.0)
            .list(&outcome.events, |w, h| w.raw(&h.0))
            .list(&outcome.transactions, |w, i| w.u32(*i))
            .list(&outcome.changes, |w, (object, hash)| w.raw(&object.key()).raw(&hash.0))
    }
    fn place(self, height: Height, round: u32, block: &BlockId) -> Self {
        self.u64(height.0).u32(round).raw(&block.0.0)
    }
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if n > self.0.len() {
            return Err(DecodeError::Malformed);
        }
        Ok(self.0.split_to(n))
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N)?;
        Ok(bytes[..].try_into().expect("take gives as many bytes as asked for"))
    }
    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }
    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
    fn sized(&mut self, max: usize) -> Result<Bytes, DecodeError> {
        let n = self.u32()? as usize;
        if n > max { Err(DecodeError::TooLarge(max)) } else { self.take(n) }
    }
    fn list<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let n = self.u32()? as usize;
        if n > max {
            return Err(DecodeError::Bounds("list"));
        }
        (0..n).map(|_| item(self)).collect()
    }
    fn height(&mut self) -> Result<Height, DecodeError> {
        self.u64().map(Height)
    }
    /// A message in its canonical encoding, no larger than its kind may be.
    fn message<M: Message>(&mut self) -> Result<M, DecodeError> {
        M::decode(&self.sized(M::BYTES_MAX)?)
    }
    fn hash(&mut self) -> Result<Hash, DecodeError> {
        self.array().map(Hash)
    }
    fn offer(&mut self) -> Result<Offer, DecodeError> {
        let certified = self.message()?;
        let links = self.list(LINKS_MAX, Reader::message)?;
        let count = self.u64()?;
        let peaks = self.list(64, Reader::hash)?;
        let mountains = Mountains::from_parts(count, peaks).ok_or(DecodeError::Bounds("peaks"))?;
        let bits = self.u8()?;
        if bits > SNAPSHOT_BITS_MAX {
            return Err(DecodeError::Bounds("bits"));
        }
        Ok(Offer { certified, links, mountains, bits })
    }
    fn chunk(&mut self) -> Result<Chunk, DecodeError> {
        Ok(Chunk { leaves: self.list(MESSAGE_BYTES_MAX, Reader::message)?, proof: self.message()? })
    }
    fn block_events(&mut self) -> Result<BlockEvents, DecodeError> {
        let (height, first, of) = (self.height()?, self.u32()?, self.u32()?);
        let events = self.list(MESSAGE_BYTES_MAX, |r| Event::decode_whole(&r.sized(EVENT_BYTES_MAX)?))?;
        Ok(BlockEvents { height, first, of, events })
    }
    fn outcome(&mut self) -> Result<Outcome, DecodeError> {
        let height = self.height()?;
        let events = self.list(MESSAGE_BYTES_MAX, Reader::hash)?;
        let transactions = self.list(MESSAGE_BYTES_MAX, Reader::u32)?;
        let change = |r: &mut Reader| {
            let object = ObjectRef::from_key(&r.array::<33>()?).ok_or(DecodeError::Enum("object"))?;
            Ok((object, r.hash()?))
        };
        let changes = self.list(MESSAGE_BYTES_MAX, change)?;
        if transactions.len() != events.len() {
            return Err(DecodeError::Bounds("transactions"));
        }
        Ok(Outcome { height, events, transactions, changes })
    }
    fn place(&mut self) -> Result<(Height, u32, BlockId), DecodeError> {
        Ok((Height(self.u64()?), self.u32()?, BlockId(Hash(self.array()?))))
    }
    fn part(&mut self) -> Result<Part, DecodeError> {
        let (height, round, block) = self.place()?;
        let (index, of) = (self.u32()?, self.u32()?);
        Part { height, round, block, index, of, bytes: self.rest() }.check()
    }
    fn certified_block(&mut self) -> Result<(Bytes, CommitCertificate), DecodeError> {
        let block = self.sized(BLOCK_BYTES_MAX)?;
        let certificate = self.sized(CommitCertificate::BYTES_MAX)?;
        Ok((block, CommitCertificate::decode(&certificate)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::Header;
    use assent_proto::field::List;
    use proptest::prelude::*;

    fn samples() -> Vec<PeerMessage> {
        let block = BlockId(Hash([7; 32]));
        let certificate = CommitCertificate { height: Height(3), round: 1, block, signatures: List::empty() };
        let body = Bytes::from(vec![5; PART_BYTES_MAX + 9]);
        let mut all = vec![
            PeerMessage::Transactions(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]),
            PeerMessage::GetProposal { height: Height(9), round: 2, block },
            PeerMessage::CatchUp { from: Height(4), to: Height(2) },
            PeerMessage::Blocks(vec![(Bytes::from_static(b"block"), certificate)]),
            PeerMessage::Blocks(Vec::new()),
            PeerMessage::Tip { height: Height(u64::MAX) },
            PeerMessage::AskVotes,
            PeerMessage::Votes(None),
            PeerMessage::Votes(Some(Box::new(vote()))),
            PeerMessage::AskSnapshot,
            PeerMessage::Snapshot(None),
            PeerMessage::Snapshot(Some(Box::new(offer()))),
            PeerMessage::AskChunks { block, first: 3, count: 4 },
            PeerMessage::Chunks { block, first: 3, chunks: chunks() },
            PeerMessage::Chunks { block, first: 3, chunks: Vec::new() },
            PeerMessage::AskEvents { from: Height(9), first: 7, to: Height(3) },
            PeerMessage::Events(vec![BlockEvents { height: Height(9), first: 0, of: 1, events: Vec::new() }]),
            PeerMessage::AskOutcome { height: Height(9) },
            PeerMessage::Outcome(Box::new(Outcome {
                height: Height(9),
                events: vec![Hash([1; 32]), Hash([2; 32])],
                transactions: vec![0, 3],
                changes: vec![(ObjectRef::POLICY, Hash([3; 32]))],
            })),
        ];
        all.extend(Part::split(Height(9), 0, block, &body).into_iter().map(PeerMessage::Part));
        all
    }

    fn offer() -> Offer {
        let genesis = assent_genesis::testing::four().0;
        let block = BlockId(Hash([7; 32]));
        let header = Header {
            version: 1,
            genesis: genesis.hash(),
            height: Height(3),
            parent: block,
            time: assent_proto::TimeMs(1),
            builder: assent_proto::Address([4; 20]),
            tx_root: Hash::ZERO,
            body_bytes: 0,
            events_root: Hash::ZERO,
            history_root: Hash::ZERO,
            state_root: Hash::ZERO,
            validators: Hash::ZERO,
            next_validators: Hash::ZERO,
            parent_certificate: Hash::ZERO,
        };
        let certificate = CommitCertificate { height: Height(3), round: 1, block, signatures: List::empty() };
        let certified = CertifiedHeader { header, certificate };
        let links =
            vec![ValidatorLink { certified: certified.clone(), next: genesis.validators().clone() }; 2];
        let mut mountains = Mountains::default();
        (0..5).for_each(|n| mountains.push(&Hash([n; 32])));
        Offer { certified, links, mountains, bits: 3 }
    }

    fn chunks() -> Vec<Chunk> {
        let state = assent_ledger::State::from_leaves(assent_genesis::testing::four().0.leaves());
        let (leaves, proof) = state.subtree(&Hash::ZERO, 1);
        vec![Chunk { leaves, proof }; 2]
    }

    fn vote() -> ConsensusMessage {
        ConsensusMessage::Vote(assent_consensus::SignedVote {
            kind: assent_proto::validators::VoteKind::Prevote,
            height: Height(9),
            round: 3,
            block: None,
            validator: assent_proto::Address([4; 20]),
            signature: assent_proto::Signature([5; 64]),
        })
    }

    #[test]
    fn every_kind_reads_back_and_nothing_may_follow_or_lack() {
        for m in samples() {
            let bytes = m.encode();
            assert_eq!(PeerMessage::decode(&bytes).as_ref(), Ok(&m));
            let cut = bytes.slice(..bytes.len() - 1);
            assert_ne!(PeerMessage::decode(&cut).as_ref(), Ok(&m));
            if !matches!(m, PeerMessage::Part(_)) {
                assert!(PeerMessage::decode(&cut).is_err(), "cut {m:?}");
                let more = [&bytes[..], &[0]].concat().into();
                assert!(PeerMessage::decode(&more).is_err(), "one more byte after {m:?}");
            }
        }
    }

    #[test]
    fn counts_and_sizes_are_bounded_before_anything_is_kept() {
        let refused = |bytes: Vec<u8>| PeerMessage::decode(&bytes.into()).expect_err("out of bounds");
        let many = Writer::new(TRANSACTIONS).u32(u32::MAX).0;
        assert_eq!(refused(many), DecodeError::Bounds("list"));
        let long = Writer::new(TRANSACTIONS).u32(1).u32(u32::MAX).0;
        assert_eq!(refused(long), DecodeError::TooLarge(ENVELOPE_BYTES_MAX));
        assert_eq!(refused(vec![0; MESSAGE_BYTES_MAX + 1]), DecodeError::TooLarge(MESSAGE_BYTES_MAX));
        assert_eq!(refused(vec![99]), DecodeError::Enum("tag"));
        let part = |index, of, n| {
            let place = Writer::new(PART).place(Height(1), 0, &BlockId(Hash::ZERO));
            PeerMessage::decode(&place.u32(index).u32(of).raw(&vec![0; n]).0.into())
        };
        assert!(part(0, 1, 10).is_ok());
        assert!(part(0, 2, 10).is_err(), "only the last part is short");
        assert!(part(0, 1, PART_BYTES_MAX + 1).is_err());
        assert!(part(1, 1, 10).is_err());
        assert!(part(0, PARTS_MAX + 1, PART_BYTES_MAX).is_err());
        assert!(part(u32::MAX, 0, 1).is_err());
        assert!(part(0, 1, 0).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_what_decodes_encodes_to_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 1u8..18) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = tag; }
            let bytes = Bytes::from(bytes);
            if let Ok(m) = PeerMessage::decode(&bytes) {
                prop_assert_eq!(m.encode(), bytes);
            }
        }
    }
}
