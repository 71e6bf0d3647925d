//! The hands of the core: it asks for effects, and these are done here. All that it may not do by itself,
//! signing, logging, keeping time, speaking, passes through [`Hands::handle`].

use arc_malachitebft_core_consensus::{Effect, Input, Resumable, Resume, VoteExtensionError};
use arc_malachitebft_core_types::{CertificateError, SignedMessage, Timeout};
use assent_proto::mutation::{Mutation, planted};
use assent_proto::{Address, GenesisHash, Height, PublicKey, TimeMs};

use crate::context::{Protocol, Roster};
use crate::convert::{self, CoreCommit, round_of};
use crate::heard::{self, Heard};
use crate::log::{Elapsed, Entry, VoteLog, Writer};
use crate::pace::Pace;
use crate::signing::{self, Signer};
use crate::timers::{Step, Timers};
use crate::{ConsensusMessage, Fault, Output, Refusal, SignedVote};

/// What the core acts through.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) genesis: GenesisHash,
    pub(crate) me: Address,
    pub(crate) roster: Roster,
    pub(crate) heard: Heard,
    pub(crate) pace: Pace,
    pub(crate) timers: Timers,
    pub(crate) signer: Signer,
    pub(crate) writer: Writer,
    /// Whether what the core asks to remember is written: a validator's own log, while it does not abstain.
    pub(crate) logging: bool,
    /// Whether the log is being replayed: what it holds is not written again.
    pub(crate) replaying: bool,
    pub(crate) now: TimeMs,
    pub(crate) height: Height,
    /// The round for which the core waits for a block of our own.
    pub(crate) awaiting: Option<u32>,
    /// The core's decision, until it is told.
    pub(crate) decided: Option<CoreCommit>,
    pub(crate) outputs: Vec<Output>,
    /// What went wrong; once set, no further effect is done.
    pub(crate) fault: Option<Fault>,
}

/// An effect was not done; why is in [`Hands::fault`].
#[derive(Debug)]
pub(crate) struct Stopped;

impl Hands {
    /// Does an effect. After a fault none is done any more: the core takes a failed effect without an answer
    /// for a done one, and must not come to sign what could not be logged.
    pub(crate) fn handle(
        &mut self,
        effect: Effect<Protocol>,
        log: &mut dyn VoteLog,
    ) -> Result<Resume<Protocol>, Stopped> {
        if self.fault.is_some() {
            return Err(Stopped);
        }
        self.perform(effect, log).map_err(|fault| {
            self.fault = Some(fault);
            Stopped
        })
    }

    #[allow(clippy::unit_arg, reason = "most effects are done by a call that answers nothing")]
    fn perform(
        &mut self,
        effect: Effect<Protocol>,
        log: &mut dyn VoteLog,
    ) -> Result<Resume<Protocol>, Fault> {
        let (genesis, roster) = (self.genesis, self.roster.clone());
        Ok(match effect {
            Effect::CancelAllTimeouts(r) => r.resume_with(self.timers.clear()),
            Effect::CancelTimeout(t, r) => r.resume_with(self.timers.cancel(&t)),
            Effect::ScheduleTimeout(t, r) => r.resume_with(self.schedule(&t)),
            Effect::StartRound(_, round, _, _, r) => r.resume_with(self.enter(round_of(round))),
            Effect::PublishConsensusMsg(m, r) => r.resume_with(self.broadcast(convert::published(m))),
            Effect::PublishLivenessMsg(m, r) => r.resume_with(self.broadcast(convert::liveness(m))),
            Effect::RepublishVote(v, r) => {
                r.resume_with(self.broadcast(ConsensusMessage::Vote(convert::vote_of(&v))))
            }
            Effect::RepublishRoundCertificate(c, r) => {
                r.resume_with(self.broadcast(ConsensusMessage::SkipRound(convert::skip_of(&c))))
            }
            Effect::GetValue(_, round, _, r) => r.resume_with(self.ask(round_of(round))),
            Effect::RestreamProposal(height, round, valid_round, _, block, r) => {
                self.outputs.push(Output::Restream {
                    height: Height(height.0),
                    round: round_of(round),
                    valid_round: valid_round.as_u32(),
                    block,
                });
                r.resume_with(())
            }
            Effect::Decide(certificate, _, r) => r.resume_with(self.decided = Some(certificate)),
            // Contradictions were told of when they were heard.
            Effect::Finalize(_, _, _, r) => r.resume_with(()),
            Effect::SignVote(vote, r) => {
                let intent = signing::vote_intent(&genesis, &vote);
                let signature = self.signer.sign(intent, &mut self.writer, log)?;
                let signed = SignedMessage::new(vote, signature);
                self.note(ConsensusMessage::Vote(convert::vote_of(&signed)));
                r.resume_with(signed)
            }
            Effect::SignProposal(proposal, r) => {
                let intent = signing::proposal_intent(&genesis, &proposal);
                let signature = self.signer.sign(intent, &mut self.writer, log)?;
                let signed = SignedMessage::new(proposal, signature);
                self.note(ConsensusMessage::Proposal(convert::proposal_of(&signed)));
                r.resume_with(signed)
            }
            Effect::VerifySignature(m, key, r) => {
                r.resume_with(self.hear(&key, convert::published(convert::signed(m))))
            }
            Effect::VerifyCommitCertificate(c, _, limits, r) => {
                r.resume_with(signing::verify_commit(&genesis, &c, &roster, limits))
            }
            Effect::VerifyPolkaCertificate(c, _, limits, r) => {
                let verdict = signing::verify_polka(&genesis, &c, &roster, limits);
                r.resume_with(self.judged(verdict, || convert::polka_votes(&c)))
            }
            Effect::VerifyRoundCertificate(c, _, limits, r) => {
                let verdict = signing::verify_round(&genesis, &c, &roster, limits);
                r.resume_with(self.judged(verdict, || convert::round_votes(&c)))
            }
            Effect::WalAppend(_, input, r) => r.resume_with(self.append(input, log)?),
            // Votes carry no extensions, and certified blocks do not come in through the core.
            Effect::ExtendVote(_, _, _, _, r) => r.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => {
                r.resume_with(Err(VoteExtensionError::InvalidVoteExtension))
            }
            Effect::VerifyExtendedCommitCertificate(_, _, _, _, r) => {
                r.resume_with(Err(CertificateError::VerificationError(None)))
            }
            Effect::CertVerifiedSyncValue(_, _, r) => r.resume_with(()),
            Effect::CertRejectedSyncValue(_, _, _, r) => r.resume_with(()),
        })
    }

    fn schedule(&mut self, timeout: &Timeout) {
        self.timers.schedule(self.now, &self.pace, timeout);
    }

    fn broadcast(&mut self, message: ConsensusMessage) {
        self.outputs.push(Output::Broadcast(message));
    }

    pub(crate) fn refuse(&mut self, reason: Refusal) {
        self.outputs.push(Output::Refused { reason });
    }

    fn enter(&mut self, round: u32) {
        self.awaiting = None;
        self.heard.enter(self.height, round);
        // What the log tells again happened at other times.
        if !self.replaying {
            self.pace.enter(round, self.now);
        }
    }

    /// Whether a statement's signature holds. What was verified once, before its height began, is not verified
    /// again.
    fn hear(&mut self, key: &PublicKey, message: ConsensusMessage) -> bool {
        let unsigned = planted(Mutation::UnsignedVotes) && matches!(message, ConsensusMessage::Vote(_));
        if !unsigned && !self.heard.has(&message) && !heard::holds(&self.genesis, key, &message) {
            self.refuse(Refusal::BadSignature);
            return false;
        }
        if let ConsensusMessage::Proposal(p) = &message
            && !self.replaying
        {
            self.pace.proposal(p.round, self.now);
        }
        self.note(message);
        true
    }

    /// Remembers a verified statement, and tells at once if it contradicts another.
    pub(crate) fn note(&mut self, message: ConsensusMessage) {
        let evidence = self.heard.note(message);
        self.outputs.extend(evidence.map(Output::Equivocation));
    }

    fn judged<T>(
        &mut self,
        verdict: Result<(), T>,
        votes: impl FnOnce() -> Vec<SignedVote>,
    ) -> Result<(), T> {
        match &verdict {
            Ok(()) => votes().into_iter().for_each(|vote| self.note(ConsensusMessage::Vote(vote))),
            Err(_) => self.refuse(Refusal::BadCertificate),
        }
        verdict
    }

    /// Asks for a block. While the log is replayed the question waits: the log may hold the answer.
    fn ask(&mut self, round: u32) {
        self.awaiting = Some(round);
        if !self.replaying {
            self.outputs.push(Output::GetValue { height: self.height, round });
        }
    }

    fn append(&mut self, input: Input<Protocol>, log: &mut dyn VoteLog) -> Result<(), Fault> {
        if !self.logging || self.replaying {
            return Ok(());
        }
        let entry = entry_of(input).ok_or_else(|| Fault::Core("the core logs an unknown input".into()))?;
        Ok(self.writer.append(log, &entry)?)
    }
}

/// The entry that stands for an input; `None` for those that are never logged.
fn entry_of(input: Input<Protocol>) -> Option<Entry> {
    match input {
        Input::Vote(v) => Some(Entry::Vote(convert::vote_of(&v))),
        Input::Proposal(p) => Some(Entry::Proposal(convert::proposal_of(&p))),
        Input::PolkaCertificate(c) => Some(Entry::Polka(convert::polka_of(&c))),
        Input::TimeoutElapsed(t) => Step::of(&t).map(|(step, round)| Entry::Elapsed(Elapsed { step, round })),
        Input::ProposedValue(v, _) => Some(Entry::Body(convert::body_of(&v))),
        Input::StartHeight(..)
        | Input::RoundCertificate(_)
        | Input::Propose(_)
        | Input::SyncValueResponse(_) => None,
    }
}

/// The input that an entry stands for; `None` for entries that only the signer needs.
pub(crate) fn input_of(entry: &Entry) -> Option<Input<Protocol>> {
    use arc_malachitebft_core_types::ValueOrigin;
    match entry {
        Entry::Vote(v) => Some(Input::Vote(convert::vote_from(v))),
        Entry::Proposal(p) => Some(Input::Proposal(convert::proposal_from(p))),
        Entry::Polka(c) => Some(Input::PolkaCertificate(convert::polka_from(c))),
        Entry::Elapsed(e) => Some(Input::TimeoutElapsed(e.step.timeout(e.round))),
        Entry::Body(b) => Some(Input::ProposedValue(convert::body_from(b), ValueOrigin::Consensus)),
        Entry::Start(_) | Entry::Intent(_) | Entry::Abstain => None,
    }
}
