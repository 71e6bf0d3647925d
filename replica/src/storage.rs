//! What a validator keeps across a crash, and what it asks of whoever keeps it. No rules of the chain here.

use bytes::Bytes;

use assent_ledger::State;
use assent_proto::merkle::Mountains;
use assent_proto::{
    BlockId, CertifiedHeader, CommitCertificate, Event, Hash, Height, Leaf, Receipt, ValidatorSet, VerifiedTx,
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
    /// Over all block ids up to and including this block's: what the next header's `history_root` names.
    pub mountains: Mountains,
    /// Who votes at the next height, if that is not the set of this one.
    pub next_validators: Option<ValidatorSet>,
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

    /// A committed block in its canonical encoding, with its certificate.
    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault>;

    /// Writes a block and all that it changes, synced, all or nothing; drops the proposals of its height and
    /// below.
    fn commit(&mut self, commit: &Commit) -> Result<(), StorageFault>;

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
}

/// The state at the tip as the storage holds it.
pub(crate) fn stored_state<S: Storage>(storage: &mut S) -> Result<State, StorageFault> {
    let mut leaves = Vec::new();
    storage.leaves(&mut |leaf| leaves.push(leaf))?;
    Ok(State::from_leaves(leaves))
}
