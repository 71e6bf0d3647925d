//! Signing once and verifying strictly. A [`Signer`] remembers what it signed at this height and refuses to
//! sign anything else in its place; the checks of others' signatures follow ZIP-215, in batches.

use std::collections::{BTreeMap, BTreeSet};

use arc_malachitebft_core_types::{CertificateError, RoundCertificateType, ThresholdParam, ThresholdParams};
use assent_proto::hash::Hash;
use assent_proto::keys::{Claim, verify_batch};
use assent_proto::mutation::{Mutation, planted};
use assent_proto::validators::{VoteKind, proposal_message, vote_message};
use assent_proto::{Address, GenesisHash, Height, SecretKey, Signature};

use crate::Fault;
use crate::context::{Proposal, Protocol, Roster, Vote, Who};
use crate::convert::{CoreCommit, CorePolka, CoreRound, block_of, kind_of, round_of};
use crate::log::{Entry, Intent, VoteLog, What, Writer};
use crate::message::{SignedProposal, SignedVote};

/// Holds the key, and what was signed with it at this height.
#[derive(Debug)]
pub(crate) struct Signer {
    key: Option<SecretKey>,
    signed: BTreeMap<(What, u32), Hash>,
    height: Height,
    /// The newest height of which it is noted, outside the log, that something was signed.
    marked: Height,
}

impl Signer {
    pub(crate) fn new(key: Option<SecretKey>) -> Self {
        Signer { key, signed: BTreeMap::new(), height: Height(0), marked: Height(0) }
    }

    pub(crate) fn can_sign(&self) -> bool {
        self.key.is_some()
    }

    pub(crate) fn begin(&mut self, height: Height) {
        self.height = height;
        self.signed.clear();
    }

    pub(crate) fn set_marked(&mut self, marked: Height) {
        self.marked = marked;
    }

    /// Takes over what the log says was signed, or was about to be.
    pub(crate) fn remember(&mut self, what: What, round: u32, message: Hash) -> Result<(), Fault> {
        match self.signed.insert((what, round), message) {
            Some(other) if other != message => Err(Fault::Equivocation { round }),
            _ => Ok(()),
        }
    }

    pub(crate) fn has_signed(&self, what: What, round: u32, message: &Hash) -> bool {
        self.signed.get(&(what, round)) == Some(message)
    }

    /// Signs, once the intent is durable. Signing the same again needs no new intent: what the log held at the
    /// start was synced before it was relied on.
    pub(crate) fn sign(
        &mut self,
        intent: Intent,
        writer: &mut Writer,
        log: &mut dyn VoteLog,
    ) -> Result<Signature, Fault> {
        let key = self.key.as_ref().ok_or_else(|| Fault::Core("an observer was asked to sign".into()))?;
        let Intent { what, round, message } = intent;
        match self.signed.get(&(what, round)) {
            Some(before) if *before == message => {}
            Some(_) => return Err(Fault::Equivocation { round }),
            None => {
                writer.append(log, &Entry::Intent(intent))?;
                if !planted(Mutation::SkipLogSync) {
                    log.sync()?;
                }
                self.signed.insert((what, round), message);
            }
        }
        let signature = key.sign(&message.0);
        self.mark(log)?;
        Ok(signature)
    }

    /// Notes outside the log that something is signed at this height.
    pub(crate) fn mark(&mut self, log: &mut dyn VoteLog) -> Result<(), Fault> {
        if self.marked < self.height {
            log.mark(self.height)?;
            self.marked = self.height;
        }
        Ok(())
    }
}

/// What kind of signature a vote of this kind bears.
pub(crate) fn what(kind: VoteKind) -> What {
    match kind {
        VoteKind::Prevote => What::Prevote,
        VoteKind::Precommit => What::Precommit,
    }
}

pub(crate) fn vote_intent(genesis: &GenesisHash, vote: &Vote) -> Intent {
    let (kind, round) = (kind_of(vote.kind), round_of(vote.round));
    let block = block_of(&vote.value);
    let height = Height(vote.height.0);
    let message = vote_message(genesis, kind, height, round, block.as_ref(), &vote.validator.0);
    Intent { what: what(kind), round, message }
}

pub(crate) fn proposal_intent(genesis: &GenesisHash, p: &Proposal) -> Intent {
    let round = round_of(p.round);
    let (height, block) = (Height(p.height.0), p.value.block());
    let message = proposal_message(genesis, height, round, p.valid_round.as_u32(), &block, &p.proposer.0);
    Intent { what: What::Proposal, round, message }
}

/// The intent that a vote, once signed, proves.
pub(crate) fn intent_of_vote(genesis: &GenesisHash, v: &SignedVote) -> Intent {
    Intent { what: what(v.kind), round: v.round, message: v.message(genesis) }
}

/// The intent that a proposal, once signed, proves.
pub(crate) fn intent_of_proposal(genesis: &GenesisHash, p: &SignedProposal) -> Intent {
    Intent { what: What::Proposal, round: p.round, message: p.message(genesis) }
}

/// One signature of a certificate.
struct Part {
    who: Who,
    message: Hash,
    signature: Signature,
}

type Verdict = Result<(), CertificateError<Protocol>>;

/// Whether enough validators, each once, signed what they are said to have signed.
fn verify(parts: Vec<Part>, roster: &Roster, threshold: ThresholdParam) -> Verdict {
    let mut seen = BTreeSet::new();
    let mut claims = Vec::with_capacity(parts.len());
    let mut signed = 0;
    for Part { who, message, signature } in parts {
        if !seen.insert(who) {
            return Err(CertificateError::DuplicateVote(who));
        }
        let voter = roster.voter(&who).ok_or(CertificateError::UnknownValidator(who))?;
        signed += voter.power;
        claims.push(Claim { key: voter.key, message, signature });
    }
    let total = roster.total_power();
    if !threshold.is_met(signed, total) {
        return Err(CertificateError::NotEnoughVotingPower {
            signed,
            total,
            expected: threshold.min_expected(total),
        });
    }
    // Last, so that a certificate that cannot suffice costs no verification.
    if verify_batch(&claims).contains(&false) {
        return Err(CertificateError::VerificationError(None));
    }
    Ok(())
}

pub(crate) fn verify_commit(
    g: &GenesisHash,
    c: &CoreCommit,
    roster: &Roster,
    limits: ThresholdParams,
) -> Verdict {
    let height = Height(c.height.0);
    let message = |who: &Address| {
        vote_message(g, VoteKind::Precommit, height, round_of(c.round), Some(&c.value_id), who)
    };
    let part = |s: &arc_malachitebft_core_types::CommitSignature<Protocol>| Part {
        who: s.address,
        message: message(&s.address.0),
        signature: s.signature,
    };
    verify(c.commit_signatures.iter().map(part).collect(), roster, limits.quorum)
}

pub(crate) fn verify_polka(
    g: &GenesisHash,
    c: &CorePolka,
    roster: &Roster,
    limits: ThresholdParams,
) -> Verdict {
    let height = Height(c.height.0);
    let message =
        |who: &Address| vote_message(g, VoteKind::Prevote, height, round_of(c.round), Some(&c.value_id), who);
    let part = |s: &arc_malachitebft_core_types::PolkaSignature<Protocol>| Part {
        who: s.address,
        message: message(&s.address.0),
        signature: s.signature,
    };
    verify(c.polka_signatures.iter().map(part).collect(), roster, limits.quorum)
}

pub(crate) fn verify_round(
    g: &GenesisHash,
    c: &CoreRound,
    roster: &Roster,
    limits: ThresholdParams,
) -> Verdict {
    let (height, round) = (Height(c.height.0), round_of(c.round));
    let precommits = c.cert_type == RoundCertificateType::Precommit;
    let mut parts = Vec::with_capacity(c.round_signatures.len());
    for s in &c.round_signatures {
        let kind = kind_of(s.vote_type);
        if precommits && kind == VoteKind::Prevote {
            return Err(CertificateError::InvalidVoteType(s.address));
        }
        let message = vote_message(g, kind, height, round, block_of(&s.value_id).as_ref(), &s.address.0);
        parts.push(Part { who: s.address, message, signature: s.signature });
    }
    verify(parts, roster, if precommits { limits.quorum } else { limits.honest })
}
