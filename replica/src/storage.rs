//! What a validator keeps across a crash, and what it asks of whoever keeps it. No rules of the chain here.

use bytes::Bytes;

use assent_ledger::{Gather, State};
use assent_proto::evidence::ValidatorLink;
use assent_proto::merkle::Mountains;
use assent_proto::{
    BlockId, Body, BodyId, CertifiedHeader, CommitCertificate, Event, Hash, Height, Leaf, ObjectRef, Receipt,
    ValidatorSet, VerifiedTx,
};

/// All that one final block changes, written at once.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The header and what makes it final.
    pub certified: CertifiedHeader,
    /// The block in its canonical encoding.
    pub block: Bytes,
    /// Its transactions, in the block's order.
    pub txs: Vec<VerifiedTx>,
    /// One for each transaction.
    pub receipts: Vec<Receipt>,
    /// All its events, in order.
    pub events: Vec<Event>,
    /// Leaves that changed, in their final form, by ascending key. At height 1 all founding leaves are
    /// among them, so that the stored leaves are the whole state from the first block on.
    pub leaves: Vec<Leaf>,
    /// Objects whose leaves have left the state, by ascending key.
    pub removed: Vec<ObjectRef>,
    /// Over all block ids up to and including this block's: what the next header's `history_root` names.
    pub mountains: Mountains,
    /// Who votes at the next height, if that is not the set of this one.
    pub next_validators: Option<ValidatorSet>,
}

/// An older final block with what came of it, as another node told and as its header's roots prove.
#[derive(Clone, Debug)]
pub struct Past {
    /// The header and what makes it final.
    pub certified: CertifiedHeader,
    /// The block in its canonical encoding.
    pub block: Bytes,
    /// Its transactions with their ids, in the block's order.
    pub bodies: Vec<(BodyId, Body)>,
    /// One for each transaction.
    pub receipts: Vec<Receipt>,
    /// All its events, in order.
    pub events: Vec<Event>,
}

/// Heights, both inclusive, of which the storage lacks what came of the blocks, and often the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The lowest.
    pub from: Height,
    /// The highest.
    pub to: Height,
}

impl Gap {
    /// How many heights.
    pub fn count(&self) -> u64 {
        self.to.0 + 1 - self.from.0
    }

    /// Whether a height is among them.
    pub fn holds(&self, height: Height) -> bool {
        (self.from..=self.to).contains(&height)
    }
}

impl Commit {
    /// The block's id.
    pub fn block_id(&self) -> BlockId {
        self.certified.certificate.block
    }

    /// The block's height.
    pub fn height(&self) -> Height {
        self.certified.header.height
    }

    /// The state root after the block.
    pub fn state_root(&self) -> Hash {
        self.certified.header.state_root
    }
}

/// The newest final block.
#[derive(Clone, Debug)]
pub struct Tip {
    /// Its header and certificate.
    pub certified: CertifiedHeader,
    /// As [`Commit::mountains`].
    pub mountains: Mountains,
}

/// The disk failed or held something that cannot be. Always fatal: a validator that goes on after a failed
/// write could sign twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage failed: {0}")]
pub struct StorageFault(pub String);

/// Synchronous storage. What a call has written is there for the next call; what survives a crash is said at
/// each.
pub trait Storage {
    /// The newest committed block, and `None` before block 1.
    fn tip(&mut self) -> Result<Option<Tip>, StorageFault>;

    /// Hands over every leaf of the state at the tip, in any order; none before block 1.
    fn leaves(&mut self, each: &mut dyn FnMut(Leaf)) -> Result<(), StorageFault>;

    /// A committed block in its canonical encoding, with its certificate. None if it was never here (see
    /// [`Storage::gaps`]) or is damaged: the storage has then said so to its operator. What is handed out is what
    /// was committed.
    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault>;

    /// Writes a block and all that it changes, synced, all or nothing; drops the proposals of its height and
    /// below.
    fn commit(&mut self, commit: &Commit) -> Result<(), StorageFault>;

    /// All events of a committed block; none if they were never here or are damaged.
    fn events(&mut self, height: Height) -> Result<Option<Vec<Event>>, StorageFault>;

    /// Every change of the validators up to the tip, in order.
    fn links(&mut self) -> Result<Vec<ValidatorLink>, StorageFault>;

    /// Heights at or below the tip of which something is missing, rising and apart from each other.
    fn gaps(&mut self) -> Result<Vec<Gap>, StorageFault>;

    /// Writes an older block and all that is known of it, and that the gaps are these from now on, all or nothing;
    /// survives a crash once a later synced write has.
    fn fill(&mut self, past: &Past, gaps: &[Gap]) -> Result<(), StorageFault>;

    /// Begins to take in the state at a height above the tip, beside the state at the tip: whatever was taken in
    /// before and not finished is gone.
    fn begin_snapshot(&mut self) -> Result<(), StorageFault>;

    /// Takes in leaves of that state; survives a crash only once it is finished.
    fn put_leaves(&mut self, leaves: &[Leaf]) -> Result<(), StorageFault>;

    /// Takes in a block of that state's replay window. It is final; what came of it is not known.
    fn put_block(&mut self, certified: &CertifiedHeader, block: &Bytes) -> Result<(), StorageFault>;

    /// The state that was taken in is the one at the tip from now on, synced, all or nothing, with the changes of
    /// validators up to it. A crash before leaves the tip and its state as they were.
    fn finish_snapshot(
        &mut self,
        tip: &Tip,
        links: &[ValidatorLink],
        gaps: &[Gap],
    ) -> Result<(), StorageFault>;

    /// Keeps the body of an undecided proposal, synced: it must survive a crash before it is voted for.
    fn put_proposal(
        &mut self,
        height: Height,
        round: u32,
        block: &BlockId,
        bytes: &Bytes,
    ) -> Result<(), StorageFault>;

    /// The kept bodies of a height with the rounds in which they came.
    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault>;

    /// Appends to the vote log; survives a crash only once synced.
    fn log_append(&mut self, bytes: &[u8]) -> Result<(), StorageFault>;

    /// Makes all that was appended survive.
    fn log_sync(&mut self) -> Result<(), StorageFault>;

    /// The whole vote log.
    fn log_read(&mut self) -> Result<Vec<u8>, StorageFault>;

    /// Empties the vote log, synced.
    fn log_reset(&mut self) -> Result<(), StorageFault>;

    /// Keeps the vote log's first bytes and nothing behind them, synced.
    fn log_truncate(&mut self, bytes: usize) -> Result<(), StorageFault>;

    /// Notes outside the vote log, synced, that something was signed at this height: an emptied log is known by
    /// it. No other call changes the note.
    fn log_mark(&mut self, height: Height) -> Result<(), StorageFault>;

    /// The height that was noted last; 0 if none ever was.
    fn log_marked(&mut self) -> Result<Height, StorageFault>;
}

/// The state at the tip as the storage holds it.
pub(crate) fn stored_state<S: Storage>(storage: &mut S) -> Result<State, StorageFault> {
    let mut gather = Gather::default();
    storage.leaves(&mut |leaf| gather.add(&leaf))?;
    Ok(gather.state())
}
