//! The newest decision: its certificate grows by precommits that come after it, so that a slow validator is seen
//! to live. Nothing here is verified; who adds a vote has done that.

use assent_proto::block::CommitSignature;
use assent_proto::field::List;
use assent_proto::validators::VoteKind;
use assent_proto::{CommitCertificate, Height};

use crate::context::{Roster, Who};
use crate::message::SignedVote;

/// A certificate and those who could sign it.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) roster: Roster,
    certificate: CommitCertificate,
}

impl Decided {
    pub(crate) fn new(roster: Roster, certificate: CommitCertificate) -> Self {
        Decided { roster, certificate }
    }

    pub(crate) fn height(&self) -> Height {
        self.certificate.height
    }

    pub(crate) fn certificate(&self) -> &CommitCertificate {
        &self.certificate
    }

    /// Whether a vote is a precommit for the decision that the certificate does not have yet.
    pub(crate) fn lacks(&self, vote: &SignedVote) -> bool {
        let CommitCertificate { height, round, block, signatures } = &self.certificate;
        (vote.kind, vote.height, vote.round, vote.block.as_ref())
            == (VoteKind::Precommit, *height, *round, Some(block))
            && self.index(vote).is_some_and(|i| signatures.iter().all(|s| s.validator != i))
    }

    /// Adds a verified precommit, if it is lacking.
    pub(crate) fn add(&mut self, vote: &SignedVote) {
        let Some(validator) = self.index(vote).filter(|_| self.lacks(vote)) else { return };
        let mut signatures = self.certificate.signatures.clone().into_vec();
        signatures.push(CommitSignature { validator, signature: vote.signature });
        signatures.sort_by_key(|s| s.validator);
        self.certificate.signatures =
            List::try_from(signatures).expect("each of at most 128 validators signs once");
    }

    fn index(&self, vote: &SignedVote) -> Option<u32> {
        self.roster.index(&Who(vote.validator)).map(|i| i as u32)
    }

    /// The certificate's precommits, one by one.
    pub(crate) fn votes(&self) -> Vec<SignedVote> {
        let CommitCertificate { height, round, block, signatures } = &self.certificate;
        let vote = |s: &CommitSignature| {
            let voter = self.roster.at(s.validator as usize)?;
            Some(SignedVote {
                kind: VoteKind::Precommit,
                height: *height,
                round: *round,
                block: Some(*block),
                validator: voter.address.0,
                signature: s.signature,
            })
        };
        signatures.iter().filter_map(vote).collect()
    }
}
