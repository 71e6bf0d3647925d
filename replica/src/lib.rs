//! A whole validator as a pure machine: `step(now, input) -> outputs` over a small [`Storage`].
//!
//! What a validator decides and in which order lives here: which transactions wait, what goes into a block,
//! what a received block must be, when a height begins, how one that fell behind catches up. No sockets, no
//! clock, no disk, no randomness: the node brings these, the simulator stands in for them, and both run the
//! same code. Consensus and ledger do not know each other; they meet in `execute.rs`.

mod backfill;
mod catchup;
mod divergence;
mod execute;
mod inquiry;
mod message;
mod parts;
mod pool;
mod proposal;
mod replica;
mod restart;
mod snapshot;
mod storage;
mod voting;

pub use assent_consensus::{Abstention, ConsensusMessage, Evidence, SignedProposal, SignedVote};
pub use catchup::{Progress, Taking};
pub use divergence::Divergence;
pub use message::{
    BlockEvents, CATCH_UP_BLOCKS_MAX, CATCH_UP_BYTES_MAX, CHUNKS_MAX, Chunk, GOSSIP_BYTES_MAX,
    MESSAGE_BYTES_MAX, Offer, Outcome, PART_BYTES_MAX, Part, PeerMessage, TRANSACTIONS_MAX,
};
pub use pool::{Full, POOL_BYTES_MAX, POOL_TRANSACTIONS_MAX};
pub use replica::{Fault, Input, Output, Replica, Rules, Status};
pub use snapshot::SnapshotRule;
pub use storage::{Commit, Gap, Past, Storage, StorageFault, Tip};
