//! Our messages as the core's, and back. Everything here is a change of clothes; nothing is checked.

use arc_malachitebft_core_consensus::{ConsensusMsg, LivenessMsg, ProposedValue, SignedConsensusMsg};
use arc_malachitebft_core_types as core;
use arc_malachitebft_core_types::{NilOrVal, Round, RoundCertificateType, Validity, VoteType};
use assent_proto::block::CommitSignature;
use assent_proto::field::List;
use assent_proto::validators::VoteKind;
use assent_proto::{BlockId, CommitCertificate, Height};

use crate::context::{At, Proposal, Protocol, Roster, Value, Vote, Who};
use crate::log::Body;
use crate::message::{ConsensusMessage, Polka, PolkaVote, RoundVote, SignedProposal, SignedVote, SkipRound};

pub(crate) type CoreVote = core::SignedVote<Protocol>;
pub(crate) type CoreProposal = core::SignedProposal<Protocol>;
pub(crate) type CorePolka = core::PolkaCertificate<Protocol>;
pub(crate) type CoreRound = core::RoundCertificate<Protocol>;
pub(crate) type CoreCommit = core::CommitCertificate<Protocol>;

const FEW: &str = "a validator set has at most 128 members, each of whom signs once";

/// A round that the core names in a message; those are never nil.
pub(crate) fn round_of(round: Round) -> u32 {
    round.as_u32().unwrap_or(0)
}

fn round_from(round: Option<u32>) -> Round {
    round.map_or(Round::Nil, Round::new)
}

pub(crate) fn kind_of(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

fn kind_from(kind: VoteKind) -> VoteType {
    match kind {
        VoteKind::Prevote => VoteType::Prevote,
        VoteKind::Precommit => VoteType::Precommit,
    }
}

pub(crate) fn block_of(value: &NilOrVal<BlockId>) -> Option<BlockId> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(*id),
    }
}

fn block_from(block: Option<BlockId>) -> NilOrVal<BlockId> {
    block.map_or(NilOrVal::Nil, NilOrVal::Val)
}

pub(crate) fn vote_from(v: &SignedVote) -> CoreVote {
    let vote = Vote {
        kind: kind_from(v.kind),
        height: At(v.height.0),
        round: Round::new(v.round),
        value: block_from(v.block),
        validator: Who(v.validator),
    };
    CoreVote::new(vote, v.signature)
}

pub(crate) fn vote_of(v: &CoreVote) -> SignedVote {
    SignedVote {
        kind: kind_of(v.kind),
        height: Height(v.height.0),
        round: round_of(v.round),
        block: block_of(&v.value),
        validator: v.validator.0,
        signature: v.signature,
    }
}

pub(crate) fn proposal_from(p: &SignedProposal) -> CoreProposal {
    let proposal = Proposal {
        height: At(p.header.height.0),
        round: Round::new(p.round),
        value: Value::of(p.header.clone()),
        valid_round: round_from(p.valid_round),
        proposer: Who(p.proposer),
    };
    CoreProposal::new(proposal, p.signature)
}

pub(crate) fn proposal_of(p: &CoreProposal) -> SignedProposal {
    SignedProposal {
        round: round_of(p.round),
        valid_round: p.valid_round.as_u32(),
        header: p.value.header().clone(),
        proposer: p.proposer.0,
        signature: p.signature,
    }
}

pub(crate) fn polka_from(p: &Polka) -> CorePolka {
    let signature = |v: &PolkaVote| core::PolkaSignature::new(Who(v.validator), v.signature);
    CorePolka {
        height: At(p.height.0),
        round: Round::new(p.round),
        value_id: p.block,
        polka_signatures: p.prevotes.iter().map(signature).collect(),
    }
}

pub(crate) fn polka_of(p: &CorePolka) -> Polka {
    let vote =
        |s: &core::PolkaSignature<Protocol>| PolkaVote { validator: s.address.0, signature: s.signature };
    Polka {
        height: Height(p.height.0),
        round: round_of(p.round),
        block: p.value_id,
        prevotes: List::try_from(p.polka_signatures.iter().map(vote).collect::<Vec<_>>()).expect(FEW),
    }
}

pub(crate) fn skip_from(s: &SkipRound) -> CoreRound {
    let signature = |v: &RoundVote| {
        core::RoundSignature::new(kind_from(v.kind), block_from(v.block), Who(v.validator), v.signature)
    };
    CoreRound {
        height: At(s.height.0),
        round: Round::new(s.round),
        cert_type: if s.precommits { RoundCertificateType::Precommit } else { RoundCertificateType::Skip },
        round_signatures: s.votes.iter().map(signature).collect(),
    }
}

pub(crate) fn skip_of(s: &CoreRound) -> SkipRound {
    let vote = |s: &core::RoundSignature<Protocol>| RoundVote {
        kind: kind_of(s.vote_type),
        block: block_of(&s.value_id),
        validator: s.address.0,
        signature: s.signature,
    };
    SkipRound {
        height: Height(s.height.0),
        round: round_of(s.round),
        precommits: s.cert_type == RoundCertificateType::Precommit,
        votes: List::try_from(s.round_signatures.iter().map(vote).collect::<Vec<_>>()).expect(FEW),
    }
}

pub(crate) fn body_from(b: &Body) -> ProposedValue<Protocol> {
    ProposedValue {
        height: At(b.header.height.0),
        round: Round::new(b.round),
        valid_round: round_from(b.valid_round),
        proposer: Who(b.proposer),
        value: Value::of(b.header.clone()),
        validity: Validity::from_bool(b.valid),
    }
}

pub(crate) fn body_of(v: &ProposedValue<Protocol>) -> Body {
    Body {
        round: round_of(v.round),
        valid_round: v.valid_round.as_u32(),
        proposer: v.proposer.0,
        header: v.value.header().clone(),
        valid: v.validity.is_valid(),
    }
}

pub(crate) fn published(message: SignedConsensusMsg<Protocol>) -> ConsensusMessage {
    match message {
        SignedConsensusMsg::Vote(v) => ConsensusMessage::Vote(vote_of(&v)),
        SignedConsensusMsg::Proposal(p) => ConsensusMessage::Proposal(proposal_of(&p)),
    }
}

/// What the core wants verified, with its signature.
pub(crate) fn signed(
    m: core::SignedMessage<Protocol, ConsensusMsg<Protocol>>,
) -> SignedConsensusMsg<Protocol> {
    match m.message {
        ConsensusMsg::Vote(v) => SignedConsensusMsg::Vote(CoreVote::new(v, m.signature)),
        ConsensusMsg::Proposal(p) => SignedConsensusMsg::Proposal(CoreProposal::new(p, m.signature)),
    }
}

/// The votes of a certificate, one by one.
pub(crate) fn polka_votes(p: &CorePolka) -> Vec<SignedVote> {
    let vote = |s: &core::PolkaSignature<Protocol>| SignedVote {
        kind: VoteKind::Prevote,
        height: Height(p.height.0),
        round: round_of(p.round),
        block: Some(p.value_id),
        validator: s.address.0,
        signature: s.signature,
    };
    p.polka_signatures.iter().map(vote).collect()
}

/// The votes of a certificate, one by one.
pub(crate) fn round_votes(c: &CoreRound) -> Vec<SignedVote> {
    let vote = |s: &core::RoundSignature<Protocol>| SignedVote {
        kind: kind_of(s.vote_type),
        height: Height(c.height.0),
        round: round_of(c.round),
        block: block_of(&s.value_id),
        validator: s.address.0,
        signature: s.signature,
    };
    c.round_signatures.iter().map(vote).collect()
}

pub(crate) fn liveness(message: LivenessMsg<Protocol>) -> ConsensusMessage {
    match message {
        LivenessMsg::Vote(v) => ConsensusMessage::Vote(vote_of(&v)),
        LivenessMsg::PolkaCertificate(p) => ConsensusMessage::Polka(polka_of(&p)),
        LivenessMsg::SkipRoundCertificate(s) => ConsensusMessage::SkipRound(skip_of(&s)),
    }
}

/// The certificate as the chain keeps it: by the validators' order, not in that of arrival.
pub(crate) fn commit_of(c: &CoreCommit, roster: &Roster) -> CommitCertificate {
    let entry = |s: &core::CommitSignature<Protocol>| CommitSignature {
        validator: roster.index(&s.address).expect("the core counts validators alone") as u32,
        signature: s.signature,
    };
    let mut signatures: Vec<_> = c.commit_signatures.iter().map(entry).collect();
    signatures.sort_by_key(|s| s.validator);
    signatures.dedup_by_key(|s| s.validator);
    CommitCertificate {
        height: Height(c.height.0),
        round: round_of(c.round),
        block: c.value_id,
        signatures: List::try_from(signatures).expect(FEW),
    }
}
