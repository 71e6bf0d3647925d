//! What peers say, and what is made of it: the height at work takes it, a later one keeps it, the last decision
//! may gain a signature by it. Nothing is signed here.

use arc_malachitebft_core_consensus as malachite;
use assent_proto::validators::VoteKind;
use assent_proto::{Address, GenesisHash, Signature, TimeMs};

use crate::context::Who;
use crate::log::{Intent, VoteLog};
use crate::{
    Abstention, Consensus, ConsensusMessage, Fault, Hands, Output, Refusal, SignedVote, convert, heard,
    signing,
};

impl Consensus {
    pub(crate) fn message(
        &mut self,
        now: TimeMs,
        message: ConsensusMessage,
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        let height = message.height();
        if self.is_at(height) {
            return self.deliver(now, message, log);
        }
        if height > self.hands.height {
            self.keep(message)
        } else {
            self.late(message)
        }
        Ok(())
    }

    /// Keeps a message for a later height, once its signature holds.
    fn keep(&mut self, message: ConsensusMessage) {
        let Hands { genesis, height, me, .. } = self.hands;
        match self.hands.heard.keep(&genesis, &me, height, message) {
            Ok(evidence) => self.hands.outputs.extend(evidence.map(Output::Equivocation)),
            Err(reason) => self.hands.refuse(reason),
        }
    }

    /// A message of a height that is over. It is of use if it adds to the newest decision's certificate, shows that
    /// its author contradicted itself, or is the newest that its author said: who lost its disk asks us for that.
    /// Nothing else is worth a verification.
    fn late(&mut self, message: ConsensusMessage) {
        let Some((_, _, who)) = heard::place(&message) else { return };
        let Hands { genesis, heard, .. } = &mut self.hands;
        let decided = self.decided.as_mut().filter(|d| d.height() == message.height());
        let of_use = decided.as_ref().is_some_and(|d| {
            matches!(&message, ConsensusMessage::Vote(v) if d.lacks(v)) || heard.is_contradicted(&message)
        });
        if !of_use && !heard.is_newest(&who, &message) {
            return;
        }
        let key = match &decided {
            Some(decided) => heard::key_in(&decided.roster, &who),
            None => heard.key(&who),
        };
        let Some(key) = key else { return };
        if !heard.has(&message) && !heard::holds(genesis, &key, &message) {
            return self.hands.refuse(Refusal::BadSignature);
        }
        let Some(decided) = decided else { return heard.renew(who, message) };
        if let ConsensusMessage::Vote(vote) = &message {
            decided.add(vote);
        }
        self.hands.note(message);
    }

    /// Hands a message of this height to the core.
    pub(crate) fn deliver(
        &mut self,
        now: TimeMs,
        message: ConsensusMessage,
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        if let Some(reason) = self.objection(&message) {
            self.hands.refuse(reason);
            return Ok(());
        }
        if self.betrays_lost_memory(&message) {
            self.abstain_from_now(log)?;
        }
        let input = match &message {
            ConsensusMessage::Proposal(p) => malachite::Input::Proposal(convert::proposal_from(p)),
            ConsensusMessage::Vote(v) => malachite::Input::Vote(convert::vote_from(v)),
            ConsensusMessage::Polka(p) => malachite::Input::PolkaCertificate(convert::polka_from(p)),
            ConsensusMessage::SkipRound(s) => malachite::Input::RoundCertificate(convert::skip_from(s)),
        };
        self.drive(now, input, log)
    }

    /// What can be said against a message before anything is verified.
    fn objection(&self, message: &ConsensusMessage) -> Option<Refusal> {
        let too_far = |round: u32| round > self.round().saturating_add(malachite::MAX_FUTURE_ROUND_LOOKAHEAD);
        let Hands { roster, genesis, .. } = &self.hands;
        match message {
            ConsensusMessage::Proposal(p) if p.header.genesis != *genesis => Some(Refusal::OtherChain),
            ConsensusMessage::Proposal(p) if roster.proposer(p.round).address != Who(p.proposer) => {
                Some(Refusal::Stranger)
            }
            ConsensusMessage::Vote(v) if roster.voter(&Who(v.validator)).is_none() => Some(Refusal::Stranger),
            ConsensusMessage::Proposal(p) if too_far(p.round) => Some(Refusal::TooFarAhead),
            ConsensusMessage::Vote(v) if too_far(v.round) => Some(Refusal::TooFarAhead),
            _ => None,
        }
    }

    /// Whether a message holds a true signature of ours that we do not remember: then the log is an old copy.
    fn betrays_lost_memory(&self, message: &ConsensusMessage) -> bool {
        if !self.hands.logging {
            return false;
        }
        let key = self.hands.roster.voter(&Who(self.hands.me)).map(|v| v.key);
        let unknown = |(intent, signature): &(Intent, Signature)| {
            !self.hands.signer.has_signed(intent.what, intent.round, &intent.message)
                && key.is_some_and(|k| k.verify(&intent.message.0, signature))
        };
        own_signatures(message, &self.hands.genesis, &self.hands.me).iter().any(unknown)
    }

    fn abstain_from_now(&mut self, log: &mut dyn VoteLog) -> Result<(), Fault> {
        self.write_abstention(log)?;
        self.hands.logging = false;
        self.hands.awaiting = None;
        self.core.params.enabled = false;
        let (height, why) = (self.hands.height, Abstention::UnknownSignature);
        self.hands.outputs.push(Output::Abstaining { height, why });
        Ok(())
    }
}

/// The signatures in a message that claim to be `me`'s, with what they are over.
fn own_signatures(
    message: &ConsensusMessage,
    genesis: &GenesisHash,
    me: &Address,
) -> Vec<(Intent, Signature)> {
    let vote = |kind, block, signature| SignedVote {
        kind,
        height: message.height(),
        round: message.round(),
        block,
        validator: *me,
        signature,
    };
    let votes: Vec<SignedVote> = match message {
        ConsensusMessage::Proposal(p) if p.proposer == *me => {
            return vec![(signing::intent_of_proposal(genesis, p), p.signature)];
        }
        ConsensusMessage::Proposal(_) => Vec::new(),
        ConsensusMessage::Vote(v) => Some(v).filter(|v| v.validator == *me).cloned().into_iter().collect(),
        ConsensusMessage::Polka(p) => {
            let own = p.prevotes.iter().filter(|v| v.validator == *me);
            own.map(|v| vote(VoteKind::Prevote, Some(p.block), v.signature)).collect()
        }
        ConsensusMessage::SkipRound(s) => {
            let own = s.votes.iter().filter(|v| v.validator == *me);
            own.map(|v| vote(v.kind, v.block, v.signature)).collect()
        }
    };
    votes.iter().map(|v| (signing::intent_of_vote(genesis, v), v.signature)).collect()
}
