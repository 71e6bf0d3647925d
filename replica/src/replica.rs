//! The machine itself: inputs in, outputs out, and the order in which things happen between them. Each part
//! of the work has a file of its own; here they are put together, and here alone consensus is stepped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use assent_consensus as consensus;
use assent_consensus::{Consensus, ConsensusMessage, LogFault, VoteLog};
use assent_genesis::Genesis;
use assent_ledger::{ReplayWindow, State};
use assent_proto::merkle::Mountains;
use assent_proto::state::Parameters;
use assent_proto::{
    Address, BlockId, BodyId, CertifiedHeader, GenesisHash, Hash, Header, Height, Invalid, SecretKey, TimeMs,
    ValidatorSet, VerifiedTx,
};

use crate::message::PeerMessage;
use crate::storage::{Commit, Storage, StorageFault};

/// What happens to a validator.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time that [`Replica::next_wake`] named has come.
    Wake,
    /// Transactions whose signatures hold.
    Transactions {
        /// The transactions, in the order in which they came.
        txs: Vec<VerifiedTx>,
        /// Whether they came in over this validator's own door and the others are to be told.
        gossip: bool,
    },
    /// A peer said something.
    Peer {
        /// Who wrote the message (not who passed it on); the network has made sure of it.
        from: Address,
        /// The message.
        message: PeerMessage,
    },
    /// A connection to a validator is there.
    PeerUp(Address),
    /// The last connection to a validator is gone.
    PeerDown(Address),
}

/// What a validator does.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell all peers.
    Broadcast(PeerMessage),
    /// Tell one peer.
    Send {
        /// Whom.
        to: Address,
        /// What.
        message: PeerMessage,
    },
    /// A block is final and stored; the state is the one after it.
    Committed(Arc<Commit>, State),
    /// A transaction was not taken, or was taken and left the pool again without being committed.
    Refused {
        /// Its body id.
        body: BodyId,
        /// Why. [`Invalid::Busy`] may be tried again, the others may not.
        reason: Invalid,
    },
    /// A peer broke the protocol; the node decides the consequence.
    Misbehaved {
        /// Who.
        peer: Address,
        /// How.
        what: &'static str,
    },
}

/// Why a validator stops. Nothing of this is to be retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The consensus machine.
    #[error("consensus stopped: {0}")]
    Consensus(String),
    /// The data directory belongs to another chain.
    #[error("the stored chain was founded by genesis {stored}, but the genesis file is {given}: use the file that the chain was started with, or another data directory")]
    OtherGenesis {
        /// Named by the stored headers.
        stored: GenesisHash,
        /// Of the genesis file.
        given: GenesisHash,
    },
    /// The stored leaves are not the state that the newest stored header names.
    #[error("the stored state at height {height} has root {stored}, but its header says {header}: the data directory is damaged; restore it or catch up from the other validators with an empty one")]
    DamagedState {
        /// The newest stored height.
        height: Height,
        /// Root over the stored leaves.
        stored: Hash,
        /// What the header says.
        header: Hash,
    },
    /// A stored block is missing or unreadable.
    #[error("the stored block at height {height} is missing or unreadable: {what}")]
    DamagedBlock {
        /// Which.
        height: Height,
        /// In what way.
        what: &'static str,
    },
    /// A quorum made final what this validator computes otherwise.
    #[error("diverged from the chain at height {height}: {what} is {ours} here, but a quorum certified {certified}")]
    Diverged {
        /// Where.
        height: Height,
        /// Which field of the header.
        what: &'static str,
        /// Computed here.
        ours: Hash,
        /// In the certified header.
        certified: Hash,
    },
    /// A quorum made final a block that the rules do not allow.
    #[error("diverged from the chain at height {height}: a quorum certified a block that is not valid here: {what}")]
    CertifiedInvalid {
        /// Where.
        height: Height,
        /// Which rule.
        what: String,
    },
}

/// How a validator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Newest final height.
    pub height: Height,
    /// Its block time; the founding time at height 0.
    pub time: TimeMs,
    /// Round of the height in progress.
    pub round: u32,
    /// Transactions waiting.
    pub pool_transactions: usize,
    /// Their bytes.
    pub pool_bytes: usize,
    /// Whether a peer told of a final height above the one in progress.
    pub catching_up: bool,
    /// State root after the newest final block.
    pub state_root: Hash,
}
