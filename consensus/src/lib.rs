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
//! exists; a signature in place of another is a [`Fault`]; a log that cannot be trusted, a statement of our own
//! that we do not remember, or one that peers remember and the log does not reach ([`Floor`]), makes us abstain
//! for the height ([`Output::Abstaining`]). What a crash tears off a log was never relied on, and is told from
//! damage: see [`log`].
//!
//! Who votes, and in which order they propose, is given anew for each height ([`Turns`]): a validator that is
//! removed observes, one that is added votes. How long a round waits is learnt, within [`Timeouts`]. Whoever
//! contradicts himself is told of as soon as his second statement is verified ([`Output::Equivocation`]), wherever
//! it came: alone, in a certificate, before its height or behind its decision.
//!
//! Certified blocks of others ([`Input::Certified`]) do not pass through the core: a quorum's precommits decide
//! by themselves, and the caller has executed the block. The certificate is verified and the height is over.

mod begin;
mod context;
mod convert;
mod decided;
mod driver;
mod heard;
pub mod log;
pub mod message;
mod pace;
mod receive;
mod signing;
mod timers;
mod types;

use arc_malachitebft_core_consensus as malachite;
use arc_malachitebft_core_consensus::{LocallyProposedValue, Params, State, process};
use arc_malachitebft_core_types::{Round, ValueOrigin, ValuePayload};
use arc_malachitebft_metrics::Metrics;
use assent_proto::validators::address;
use assent_proto::{
    Address, CertifiedHeader, CommitCertificate, GenesisHash, Header, Height, SecretKey, TimeMs, ValidatorSet,
};

use context::{At, Protocol, Roster, Value, Who};
use decided::Decided;
use driver::Hands;
use heard::Heard;
use log::{Body, VoteLog, Writer};
pub use message::{ConsensusMessage, Polka, SignedProposal, SignedVote, SkipRound};
use pace::Pace;
use signing::Signer;
pub use timers::Timeouts;
pub use types::{Abstention, Evidence, Fault, Floor, FloorStep, Input, Output, Refusal, Turns};

/// A validator's part in consensus, or an observer's.
pub struct Consensus {
    core: State<Protocol>,
    /// The core wants to count. Nobody reads it; it is made anew with the core, whose steps it follows.
    metrics: Metrics,
    hands: Hands,
    decided: Option<Decided>,
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
    /// At rest below height 1. Without a key it observes at each height, with one at those whose validator set
    /// does not hold it: it follows the votes and decides, and signs nothing.
    pub fn new(genesis: GenesisHash, key: Option<SecretKey>, timeouts: Timeouts) -> Self {
        let hands = Hands {
            genesis,
            me: key.as_ref().map_or(Address([0; 20]), |k| address(&k.public())),
            roster: Roster::nobody(),
            heard: Heard::default(),
            pace: Pace::new(timeouts),
            timers: Default::default(),
            signer: Signer::new(key),
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
            decided: None,
            phase: Phase::Resting,
            is_validator: false,
        }
    }

    /// Tells of the newest validator set that is known: of the height to come, or of a later one. Its members'
    /// messages are taken for heights that have not begun. A height that begins tells of its own set.
    pub fn know(&mut self, set: &ValidatorSet) {
        self.hands.heard.know(set);
    }

    /// The newest committed height, told before the first [`Consensus::start_height`] and whenever blocks are
    /// committed without it. A height at work at or below it is over.
    pub fn committed(&mut self, height: Height) {
        if height >= self.hands.height && self.phase != Phase::Stopped {
            self.hands.height = height;
            self.decided = self.decided.take().filter(|d| d.height() == height);
            self.rest();
        }
    }

    /// Begins a height, with what the vote log holds: nothing, or this height's entries, perhaps after those of
    /// earlier heights. The caller empties the log after each commit, before it begins the next height.
    ///
    /// `turns` says who votes and in which order they propose: so it is decided for each height whether this
    /// validator is one. `floor` is the newest statement of our own that peers told of, if they were asked.
    ///
    /// If the log is damaged (give [`log::LOST`] if it is missing where it must not be), the validator abstains for
    /// the height and writes nothing, so that it abstains again after a restart. If it does not reach the floor,
    /// the validator abstains as well, and notes that in the log.
    pub fn start_height(
        &mut self,
        now: TimeMs,
        height: Height,
        turns: Turns,
        floor: Option<Floor>,
        log_bytes: &[u8],
        log: &mut dyn VoteLog,
    ) -> Result<Vec<Output>, Fault> {
        self.check_alive()?;
        let last = self.hands.height;
        if height < last || (height == last && height.0 > 0) {
            return Err(Fault::Order { wanted: height, last });
        }
        let roster = Roster::of(turns);
        self.guarded(|c| {
            let roster = roster.ok_or(Fault::Turns(height))?;
            c.begin(now, height, roster, floor, log_bytes, log)
        })
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
        self.hands.heard.has_any(height)
    }

    /// Whether this machine votes at the height at work: it is of the set, and does not abstain.
    pub fn is_voting(&self) -> bool {
        self.is_running() && self.is_validator && self.hands.logging
    }

    /// The certificate of the newest decision, with the precommits for it that came since: what a proposer of the
    /// next height does best to carry. None if newer blocks were committed without consensus.
    pub fn certificate(&self) -> Option<&CommitCertificate> {
        self.decided.as_ref().map(Decided::certificate)
    }

    /// The height and round of the newest vote or proposal of a validator that was verified here. It is forgotten
    /// when the process ends.
    pub fn newest_statement(&self, who: &Address) -> Option<Floor> {
        self.newest_message(who).map(Floor::of)
    }

    /// That vote or proposal itself: with its signature it proves to its author what was forgotten. Given to
    /// [`Input::Message`] before its height begins, it counts as a floor.
    pub fn newest_message(&self, who: &Address) -> Option<&ConsensusMessage> {
        self.hands.heard.newest(who)
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
        self.hands.heard.forget_below(self.hands.height);
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
                if valid {
                    self.hands.pace.body(round, now);
                }
                let body = Body { round, valid_round, proposer, header, valid };
                let value = convert::body_from(&body);
                self.drive(now, malachite::Input::ProposedValue(value, ValueOrigin::Consensus), log)
            }
            Input::Certified(certified) => {
                self.certified(now, certified);
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

    pub(crate) fn propose(
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
    fn certified(&mut self, now: TimeMs, certified: CertifiedHeader) {
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
        self.keep_decision(now, certificate.clone());
        self.rest();
        self.hands.outputs.push(Output::Decided { certified });
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
        self.keep_decision(self.hands.now, certified.certificate.clone());
        self.rest();
        self.hands.outputs.push(Output::Decided { certified });
    }

    /// Keeps the certificate, with all precommits that were heard for its block.
    fn keep_decision(&mut self, now: TimeMs, certificate: CommitCertificate) {
        self.hands.pace.decided(certificate.round, now);
        let mut decided = Decided::new(self.hands.roster.clone(), certificate);
        for vote in decided.votes() {
            self.hands.note(ConsensusMessage::Vote(vote));
        }
        for message in self.hands.heard.of(decided.height()) {
            if let ConsensusMessage::Vote(vote) = message {
                decided.add(vote);
            }
        }
        self.decided = Some(decided);
    }
}

/// A core for one height. A new one for each: nothing is carried from height to height but the messages that
/// came early, which are kept verified, in [`Heard`], and not in the core's own queue.
fn fresh_core(hands: &Hands, height: Height, votes: bool) -> State<Protocol> {
    let params = Params {
        address: Who(hands.me),
        threshold_params: Default::default(),
        value_payload: ValuePayload::ProposalAndParts,
        enabled: votes,
    };
    State::new(Protocol, At(height.0), hands.roster.clone(), params, 1, 1)
}
