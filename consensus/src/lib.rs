//! BFT consensus: Malachite's core state machine, driven, with its vote log.
//!
//! ```text
//!  Input ──▶ step ──▶ core (Tendermint, pure) ──▶ effects ──▶ Output
//!                                                   └──▶ vote log: input, intent, sync, then signature
//! ```
//!
//! [`Consensus::step`] is the whole of it: no socket, no clock, no disk of its own. The value that is decided
//! is the block's [`Header`], which names the roots after the block; bodies travel outside, and the caller says
//! by [`Input::Received`] that one is here, was executed and is stored.
//!
//! What keeps a validator from contradicting itself: the intent to sign is durable before the signature
//! exists; a signature in place of another is a [`Fault`]; a log that cannot be trusted, or a vote of our own
//! that we do not remember, makes us abstain for the height ([`Output::Abstaining`]).
//!
//! Certified blocks of others ([`Input::Certified`]) do not pass through the core: a quorum's precommits decide
//! by themselves, and the caller has executed the block. The certificate is verified and the height is over.

mod ahead;
mod context;
mod convert;
mod driver;
pub mod log;
pub mod message;
mod signing;
mod timers;

use arc_malachitebft_core_consensus as malachite;
use arc_malachitebft_core_consensus::{LocallyProposedValue, Params, State, process};
use arc_malachitebft_core_types::{Round, ValueOrigin, ValuePayload, VoteExtensionPolicy};
use arc_malachitebft_metrics::Metrics;
use assent_proto::{
    Address, BlockId, CertifiedHeader, GenesisHash, Header, Height, SecretKey, TimeMs, ValidatorSet,
};

use ahead::Ahead;
use context::{At, Protocol, Roster, Value, Who};
use driver::Hands;
use log::{Body, Entry, Intent, LogDamaged, LogFault, Start, VoteLog, Writer};
pub use message::{ConsensusMessage, Polka, SignedProposal, SignedVote, SkipRound};
use signing::Signer;
pub use timers::Timeouts;

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
    /// The block is final: commit it. Nothing more happens until [`Consensus::start_height`].
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
    /// An earlier fault ended it.
    #[error("consensus has stopped after a fault")]
    Stopped,
}

/// A validator's part in consensus, or an observer's.
pub struct Consensus {
    core: State<Protocol>,
    /// The core wants to count. Nobody reads it; it is made anew with the core, whose steps it follows.
    metrics: Metrics,
    hands: Hands,
    ahead: Ahead,
    phase: Phase,
    is_validator: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between heights.
    Resting,
    /// At work on a height.
    Running,
    /// A fault ended it.
    Stopped,
}

impl Consensus {
    /// At rest below height 1. Without a key, or with one that is not in the set, it observes: it follows the
    /// votes and decides, and signs nothing.
    pub fn new(
        genesis: GenesisHash,
        key: Option<SecretKey>,
        validators: ValidatorSet,
        timeouts: Timeouts,
    ) -> Self {
        let own = |k: &SecretKey| validators.validators.iter().find(|v| v.key == k.public());
        let me = key.as_ref().and_then(own).map(|v| v.address());
        let roster = Roster::of(validators);
        let hands = Hands {
            genesis,
            me: me.unwrap_or(Address([0; 20])),
            roster: roster.clone(),
            timeouts,
            timers: Default::default(),
            signer: Signer::new(key.filter(|_| me.is_some())),
            writer: Writer::default(),
            logging: false,
            replaying: false,
            now: TimeMs(0),
            height: Height(0),
            awaiting: None,
            decided: None,
            outputs: Vec::new(),
            fault: None,
        };
        Consensus {
            core: fresh_core(&hands, Height(1), false),
            metrics: Metrics::new(),
            hands,
            ahead: Ahead::default(),
            phase: Phase::Resting,
            is_validator: me.is_some(),
        }
    }

    /// The newest committed height, told before the first [`Consensus::start_height`] and whenever blocks are
    /// committed without it. A height at work at or below it is over.
    pub fn committed(&mut self, height: Height) {
        if height >= self.hands.height && self.phase != Phase::Stopped {
            self.hands.height = height;
            self.rest();
        }
    }

    /// Begins a height, with what the vote log holds: nothing, or this height's entries, perhaps after those of
    /// earlier heights. The caller empties the log after each commit, before it begins the next height. If the
    /// log is damaged (give [`log::LOST`] if it is missing where it must not be), the validator abstains for
    /// the height and writes nothing, so that it abstains again after a restart.
    pub fn start_height(
        &mut self,
        now: TimeMs,
        height: Height,
        log_bytes: &[u8],
        log: &mut dyn VoteLog,
    ) -> Result<Vec<Output>, Fault> {
        self.check_alive()?;
        let last = self.hands.height;
        if height < last || (height == last && height.0 > 0) {
            return Err(Fault::Order { wanted: height, last });
        }
        self.guarded(|c| c.begin(now, height, log_bytes, log))
    }

    /// Takes one input. Every error is final.
    pub fn step(&mut self, now: TimeMs, input: Input, log: &mut dyn VoteLog) -> Result<Vec<Output>, Fault> {
        self.check_alive()?;
        self.guarded(|c| c.take(now, input, log))
    }

    /// When [`Input::Wake`] is next needed.
    pub fn next_wake(&self) -> Option<TimeMs> {
        self.hands.timers.next()
    }

    /// The height at work, or the last one if at rest.
    pub fn height(&self) -> Height {
        self.hands.height
    }

    /// The round at work.
    pub fn round(&self) -> u32 {
        self.core.round().as_u32().unwrap_or(0)
    }

    /// Whether a height is at work: begun and not decided.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether a verified message for this later height is at hand: a reason to begin it.
    pub fn has_messages_for(&self, height: Height) -> bool {
        self.ahead.has(height)
    }

    fn check_alive(&self) -> Result<(), Fault> {
        if self.phase == Phase::Stopped { Err(Fault::Stopped) } else { Ok(()) }
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<Vec<Output>, Fault> {
        let result = work(self);
        let outputs = std::mem::take(&mut self.hands.outputs);
        match result {
            Ok(()) => Ok(outputs),
            Err(fault) => {
                self.phase = Phase::Stopped;
                self.hands.timers.clear();
                Err(fault)
            }
        }
    }

    fn rest(&mut self) {
        self.phase = Phase::Resting;
        self.hands.timers.clear();
        self.hands.awaiting = None;
        self.ahead.drop_through(self.hands.height);
    }

    // ---- beginning a height

    fn begin(
        &mut self,
        now: TimeMs,
        height: Height,
        log_bytes: &[u8],
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        self.hands.height = height;
        self.hands.signer.forget();
        self.hands.writer = Writer::default();
        self.phase = Phase::Running;
        match self.read_log(log_bytes) {
            Ok(Some(entries)) => self.resume(now, &entries, log)?,
            Ok(None) => self.begin_fresh(now, log)?,
            Err(why) => self.begin_abstaining(now, why, log)?,
        }
        for message in self.ahead.take(height) {
            if self.phase == Phase::Running {
                self.deliver(now, message, log)?;
            }
        }
        Ok(())
    }

    /// The entries of this height, and the writer set to go on after them.
    fn read_log(&mut self, log_bytes: &[u8]) -> Result<Option<Vec<Entry>>, Abstention> {
        if !self.is_validator {
            return Ok(None);
        }
        let Hands { genesis, height, me, .. } = self.hands;
        let (entries, writer) = log::read(log_bytes).map_err(Abstention::Log)?;
        let entries = log::of_height(entries, &genesis, height, &me).map_err(Abstention::Log)?;
        if entries.iter().flatten().any(|e| *e == Entry::Abstain) {
            return Err(Abstention::Before);
        }
        self.hands.writer = writer;
        Ok(entries)
    }

    fn begin_fresh(&mut self, now: TimeMs, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let Hands { genesis, height, me, .. } = self.hands;
        self.hands.logging = self.is_validator;
        self.renew_core(self.is_validator);
        if self.is_validator {
            self.hands.writer.append(log, &Entry::Start(Start { genesis, height, validator: me }))?;
        }
        self.start_core(now, log)
    }

    fn begin_abstaining(&mut self, now: TimeMs, why: Abstention, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let height = self.hands.height;
        self.hands.logging = false;
        self.hands.replaying = false;
        self.hands.awaiting = None;
        self.hands.outputs.clear();
        self.hands.timers.clear();
        self.renew_core(false);
        self.hands.outputs.push(Output::Abstaining { height, why });
        self.start_core(now, log)
    }

    fn renew_core(&mut self, votes: bool) {
        self.core = fresh_core(&self.hands, self.hands.height, votes);
        self.metrics = Metrics::new();
    }

    fn start_core(&mut self, now: TimeMs, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let (height, roster) = (At(self.hands.height.0), self.hands.roster.clone());
        let policy = VoteExtensionPolicy::Disabled;
        self.drive(now, malachite::Input::StartHeight(height, roster, false, None, policy), log)
    }

    /// Leads the core to where the log left it. If it does not come to the same votes, nothing is signed.
    fn resume(&mut self, now: TimeMs, entries: &[Entry], log: &mut dyn VoteLog) -> Result<(), Fault> {
        self.hands.logging = true;
        self.hands.replaying = true;
        self.renew_core(true);
        match self.replay(now, entries, log) {
            Ok(()) => {
                self.hands.replaying = false;
                if self.phase == Phase::Running { self.answer_from_log(now, entries, log) } else { Ok(()) }
            }
            Err(Fault::Log(fault)) => Err(Fault::Log(fault)),
            Err(_) => {
                self.phase = Phase::Running;
                self.hands.writer.append(log, &Entry::Abstain)?;
                log.sync().map_err(Fault::Log)?;
                self.begin_abstaining(now, Abstention::Diverged, log)
            }
        }
    }

    fn replay(&mut self, now: TimeMs, entries: &[Entry], log: &mut dyn VoteLog) -> Result<(), Fault> {
        let genesis = self.hands.genesis;
        for entry in entries {
            let intent = match entry {
                Entry::Intent(i) => i.clone(),
                Entry::Vote(v) if v.validator == self.hands.me => signing::intent_of_vote(&genesis, v),
                Entry::Proposal(p) if p.proposer == self.hands.me => signing::intent_of_proposal(&genesis, p),
                _ => continue,
            };
            self.hands.signer.remember(intent.what, intent.round, intent.message)?;
        }
        self.start_core(now, log)?;
        let inputs: Vec<_> = entries.iter().filter_map(driver::input_of).collect();
        self.core.index_wal_entries(inputs.iter());
        for input in inputs {
            self.drive(now, input, log)?;
        }
        self.core.reset_entries_index();
        Ok(())
    }

    /// If the core waits for a block of ours that the log knows, it gets that one and no other; a proposal
    /// that was signed already is said again, since it may never have left.
    fn answer_from_log(
        &mut self,
        now: TimeMs,
        entries: &[Entry],
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        let Some(round) = self.hands.awaiting else { return Ok(()) };
        let (me, height) = (self.hands.me, self.hands.height);
        let signed = entries.iter().find_map(|e| match e {
            Entry::Proposal(p) if p.proposer == me && p.round == round => Some(p),
            _ => None,
        });
        if let Some(p) = signed {
            self.hands.awaiting = None;
            let block = p.header.id();
            self.hands.outputs.push(Output::Broadcast(ConsensusMessage::Proposal(p.clone())));
            self.hands.outputs.push(Output::Restream { height, round, valid_round: p.valid_round, block });
            return Ok(());
        }
        let built = entries.iter().find_map(|e| match e {
            Entry::Body(b) if b.proposer == me && b.round == round => Some(b.header.clone()),
            _ => None,
        });
        match built {
            Some(header) => {
                let block = header.id();
                self.propose(now, round, header, log)?;
                self.hands.outputs.push(Output::Restream { height, round, valid_round: None, block });
                Ok(())
            }
            None => {
                self.hands.outputs.push(Output::GetValue { height, round });
                Ok(())
            }
        }
    }

    // ---- inputs

    fn take(&mut self, now: TimeMs, input: Input, log: &mut dyn VoteLog) -> Result<(), Fault> {
        match input {
            Input::Wake => self.wake(now, log),
            Input::Message(message) => self.message(now, message, log),
            Input::Built { height, round, header } => {
                let asked = self.is_at(height) && self.hands.awaiting == Some(round);
                if !asked || !self.fits(&header) {
                    self.hands.refuse(Refusal::NotAsked);
                    return Ok(());
                }
                self.propose(now, round, header, log)
            }
            Input::Received { height, round, proposer, valid_round, header, valid } => {
                if !self.is_at(height) || !self.fits(&header) {
                    self.hands.refuse(Refusal::NotAsked);
                    return Ok(());
                }
                let body = Body { round, valid_round, proposer, header, valid };
                let value = convert::body_from(&body);
                self.drive(now, malachite::Input::ProposedValue(value, ValueOrigin::Consensus), log)
            }
            Input::Certified(certified) => {
                self.certified(certified);
                Ok(())
            }
        }
    }

    fn is_at(&self, height: Height) -> bool {
        self.is_running() && height == self.hands.height
    }

    fn fits(&self, header: &Header) -> bool {
        header.genesis == self.hands.genesis && header.height == self.hands.height
    }

    fn wake(&mut self, now: TimeMs, log: &mut dyn VoteLog) -> Result<(), Fault> {
        while let Some(timeout) = self.hands.timers.take_due(now) {
            self.drive(now, malachite::Input::TimeoutElapsed(timeout), log)?;
        }
        Ok(())
    }

    fn propose(
        &mut self,
        now: TimeMs,
        round: u32,
        header: Header,
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        self.hands.awaiting = None;
        let (height, value) = (At(self.hands.height.0), Value::of(header));
        let proposed = LocallyProposedValue::new(height, Round::new(round), value);
        self.drive(now, malachite::Input::Propose(proposed), log)
    }

    /// A block that a quorum precommitted is final whatever the core thinks of it.
    fn certified(&mut self, certified: CertifiedHeader) {
        let CertifiedHeader { header, certificate } = &certified;
        if !self.is_at(header.height) {
            return self.hands.refuse(Refusal::NotAsked);
        }
        if !self.fits(header) {
            return self.hands.refuse(Refusal::OtherChain);
        }
        let set = self.hands.roster.set();
        if certificate.verify(&self.hands.genesis, set, header.height, &header.id()).is_err() {
            return self.hands.refuse(Refusal::BadCertificate);
        }
        self.rest();
        self.hands.outputs.push(Output::Decided { certified });
    }

    fn message(
        &mut self,
        now: TimeMs,
        message: ConsensusMessage,
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        let height = message.height();
        if self.is_at(height) {
            self.deliver(now, message, log)
        } else if height > self.hands.height {
            self.keep(message);
            Ok(())
        } else {
            // Of a height that is over. Its sender will learn of the block.
            Ok(())
        }
    }

    /// Keeps a message for a later height, once its signature holds.
    fn keep(&mut self, message: ConsensusMessage) {
        let Hands { genesis, height, .. } = self.hands;
        if let Err(reason) = self.ahead.keep(&genesis, &self.hands.roster, height, message) {
            self.hands.refuse(reason);
        }
    }

    /// Hands a message of this height to the core.
    fn deliver(
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
        let Hands { roster, height, genesis, .. } = &self.hands;
        match message {
            ConsensusMessage::Proposal(p) if p.header.genesis != *genesis => Some(Refusal::OtherChain),
            ConsensusMessage::Proposal(p)
                if roster.proposer(At(height.0), p.round).address != Who(p.proposer) =>
            {
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
        let unknown = |(intent, signature): &(Intent, assent_proto::Signature)| {
            !self.hands.signer.has_signed(intent.what, intent.round, &intent.message)
                && key.is_some_and(|k| k.verify(&intent.message.0, signature))
        };
        own_signatures(message, &self.hands.genesis, &self.hands.me).iter().any(unknown)
    }

    fn abstain_from_now(&mut self, log: &mut dyn VoteLog) -> Result<(), Fault> {
        self.hands.writer.append(log, &Entry::Abstain)?;
        log.sync()?;
        self.hands.logging = false;
        self.hands.awaiting = None;
        self.core.params.enabled = false;
        let (height, why) = (self.hands.height, Abstention::UnknownSignature);
        self.hands.outputs.push(Output::Abstaining { height, why });
        Ok(())
    }

    // ---- the core

    fn drive(
        &mut self,
        now: TimeMs,
        input: malachite::Input<Protocol>,
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        if self.phase != Phase::Running {
            return Ok(());
        }
        let hands = &mut self.hands;
        hands.now = now;
        let result: Result<(), malachite::Error<Protocol>> = process!(
            input: input,
            state: &mut self.core,
            metrics: &self.metrics,
            with: effect => hands.handle(effect, log)
        );
        if let Some(fault) = self.hands.fault.take() {
            return Err(fault);
        }
        result.map_err(|e| Fault::Core(e.to_string()))?;
        self.conclude();
        Ok(())
    }

    /// Tells of the decision, if the core came to one.
    fn conclude(&mut self) {
        let Some(commit) = self.hands.decided.take() else { return };
        let (_, value) = self.core.decided_value().expect("the core keeps what it decided");
        let certificate = convert::commit_of(&commit, &self.hands.roster);
        let certified = CertifiedHeader { header: value.header().clone(), certificate };
        self.rest();
        self.hands.outputs.push(Output::Decided { certified });
    }
}

/// A core for one height. A new one for each: nothing is carried from height to height but the messages that
/// came early, which are kept verified, in [`Ahead`], and not in the core's own queue.
fn fresh_core(hands: &Hands, height: Height, votes: bool) -> State<Protocol> {
    let params = Params {
        address: Who(hands.me),
        threshold_params: Default::default(),
        value_payload: ValuePayload::ProposalAndParts,
        enabled: votes,
    };
    State::new(Protocol, At(height.0), hands.roster.clone(), params, 1, 1)
}

/// The signatures in a message that claim to be `me`'s, with what they are over.
fn own_signatures(
    message: &ConsensusMessage,
    genesis: &GenesisHash,
    me: &Address,
) -> Vec<(Intent, assent_proto::Signature)> {
    use assent_proto::validators::VoteKind;
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
