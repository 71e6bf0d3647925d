//! What goes into consensus and what comes out of it, in words of the chain. Nothing here acts.

use assent_proto::{Address, BlockId, CertifiedHeader, Header, Height, ValidatorSet};

use crate::log::{LogDamaged, LogFault};
use crate::message::{ConsensusMessage, SignedProposal, SignedVote};

/// Who votes at a height and in which order they propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The validators.
    pub set: ValidatorSet,
    /// Each validator's index in the set, once. The proposer of round `r` is entry `r`, counted around.
    pub order: Vec<u32>,
}

/// How far a validator is known to have come: nothing below is to be signed by it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// Height of the newest statement.
    pub height: Height,
    /// Its round.
    pub round: u32,
    /// What it was, in the order in which a round goes.
    pub step: FloorStep,
}

/// The steps of a round, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FloorStep {
    /// The proposal.
    Proposal,
    /// The first vote.
    Prevote,
    /// The second vote.
    Precommit,
}

/// What may happen to a validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Timers that are due fire.
    Wake,
    /// A peer says something; not yet verified.
    Message(ConsensusMessage),
    /// Our own block, asked for by [`Output::GetValue`]; its body is stored already.
    Built {
        /// Height asked for.
        height: Height,
        /// Round asked for.
        round: u32,
        /// The header of the block.
        header: Header,
    },
    /// A peer's whole block is here, was executed and is stored.
    Received {
        /// Height.
        height: Height,
        /// The round for which it came.
        round: u32,
        /// Who proposed it.
        proposer: Address,
        /// The round in which a quorum prevoted for it, if the proposer said so.
        valid_round: Option<u32>,
        /// Its header.
        header: Header,
        /// Whether execution gave the roots that the header names. False only for deterministic faults.
        valid: bool,
    },
    /// A block that is final already; the caller has executed it and its roots agree.
    Certified(CertifiedHeader),
}

/// What a validator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell every peer.
    Broadcast(ConsensusMessage),
    /// Answer with [`Input::Built`] without delay; the same block for the same height and round.
    GetValue {
        /// Height.
        height: Height,
        /// Round.
        round: u32,
    },
    /// Send the body of this block again, for this round.
    Restream {
        /// Height.
        height: Height,
        /// Round.
        round: u32,
        /// The round of the quorum of prevotes, if it is proposed again.
        valid_round: Option<u32>,
        /// The block.
        block: BlockId,
    },
    /// The block is final: commit it. Nothing more happens until [`crate::Consensus::start_height`].
    Decided {
        /// The header and its certificate, by validator index.
        certified: CertifiedHeader,
    },
    /// A validator contradicted itself.
    Equivocation(Evidence),
    /// Nothing is signed until the next height begins.
    Abstaining {
        /// The height.
        height: Height,
        /// Why.
        why: Abstention,
    },
    /// A message or an answer was not taken. The chain is none the worse for it.
    Refused {
        /// Why.
        reason: Refusal,
    },
}

/// Two signed statements of one validator of which an honest one makes at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "rare")]
pub enum Evidence {
    /// Two votes of one kind in one round.
    Votes(SignedVote, SignedVote),
    /// Two proposals in one round.
    Proposals(Box<(SignedProposal, SignedProposal)>),
}

/// Why a validator signs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abstention {
    /// The vote log cannot be read.
    #[error(transparent)]
    Log(LogDamaged),
    /// Replaying the log did not lead to what it says was signed.
    #[error("the vote log does not lead to the votes that it holds")]
    Diverged,
    /// A signature of ours turned up that the log does not know: the disk may be an old copy.
    #[error("a peer holds a signature of ours that the vote log does not know")]
    UnknownSignature,
    /// Others hold a statement of ours that is newer than what the log leads to: the disk may be an old copy.
    #[error(
        "peers hold a vote of ours of height {}, round {}, which the vote log does not know: the disk may be an old copy; nothing is signed until the chain has passed that height",
        .0.height, .0.round
    )]
    Floor(Floor),
    /// It was so decided earlier in this height.
    #[error("the validator abstained already before it was restarted")]
    Before,
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Signed by nobody in the validator set, or by the wrong one.
    #[error("it is not signed by a validator whose turn it is")]
    Stranger,
    /// The signature does not hold.
    #[error("its signature does not hold")]
    BadSignature,
    /// The certificate does not hold.
    #[error("its certificate does not hold")]
    BadCertificate,
    /// For another chain.
    #[error("it is for another chain")]
    OtherChain,
    /// Too far above the present height or round: we are behind, or the sender is beside itself.
    #[error("it is too far ahead of the present height or round")]
    TooFarAhead,
    /// For a later height, by nobody in the sets known here so far: a change of validators may have passed us by.
    #[error("its author is in no validator set that is known here yet")]
    NotKnownYet,
    /// An answer that nobody asked for, or for another height.
    #[error("nobody asked for it at this height and round")]
    NotAsked,
}

/// What ends the node: it may not go on voting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The vote log cannot be written.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// The core asked for a signature that contradicts an earlier one.
    #[error("refused to sign twice in round {round}; the state machine is at fault")]
    Equivocation {
        /// The round.
        round: u32,
    },
    /// The core failed.
    #[error("the consensus core failed: {0}")]
    Core(String),
    /// A height was begun that is not above the one before.
    #[error("height {wanted} cannot begin after height {last}")]
    Order {
        /// The height asked for.
        wanted: Height,
        /// The newest height begun or committed.
        last: Height,
    },
    /// The turns of a height do not name each validator once.
    #[error("the order of turns at height {0} does not name each validator once")]
    Turns(Height),
    /// An earlier fault ended it.
    #[error("consensus has stopped after a fault")]
    Stopped,
}
