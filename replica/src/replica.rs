//! The machine itself: inputs in, outputs out, and the order in which things happen between them. Each part
//! of the work has a file of its own; here they are put together, and here alone consensus is stepped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use assent_consensus as consensus;
use assent_consensus::log::{LogFault, VoteLog};
use assent_consensus::{Abstention, Consensus, ConsensusMessage, Evidence, SignedProposal};
use assent_ledger::State;
use assent_proto::validators::{VoteKind, address};
use assent_proto::{
    Address, BlockId, BodyId, CertifiedHeader, CommitCertificate, EnvelopeId, GenesisHash, Hash, Height,
    Invalid, Leaf, ObjectRef, PublicKey, TimeMs, VerifiedTx, envelope,
};

use crate::backfill::Backfill;
use crate::catchup::CatchUp;
use crate::divergence::{Case, Divergence, Recent};
use crate::execute::{Chain, Executed, Head, Reject};
use crate::inquiry::Inquiry;
use crate::message::{GOSSIP_BYTES_MAX, PeerMessage, TRANSACTIONS_MAX};
use crate::parts::Bodies;
use crate::pool::{Full, Pool, answerable};
use crate::proposal::Seen;
use crate::snapshot::Snapshots;
use crate::storage::{Commit, Storage, StorageFault};

/// What happens to a validator.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // never held in numbers
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
    /// A connection to a node is there.
    PeerUp(Address),
    /// The last connection to a node is gone.
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
    /// A state that was taken in whole is the newest from now on; its block is final and stored, and what came of
    /// it is fetched later.
    Joined(Box<CertifiedHeader>, State),
    /// A transaction was not taken.
    Refused {
        /// Its bytes: another with the same body may be signed as it should be.
        envelope: EnvelopeId,
        /// Its body id.
        body: BodyId,
        /// Why. [`Invalid::Busy`] may be tried again, the others may not.
        reason: Invalid,
    },
    /// A transaction left the pool again without being committed.
    Dropped {
        /// Its body id.
        body: BodyId,
        /// Why: it expired, or the state has changed since it was taken.
        reason: Invalid,
    },
    /// A validator contradicted itself: to be put on the chain. Told once for each contradiction.
    Equivocation(Evidence),
    /// A peer broke the protocol; the node decides the consequence.
    Misbehaved {
        /// Who.
        peer: Address,
        /// How.
        what: &'static str,
    },
}

/// After a block, what waits is gathered for so long before the next begins for its sake, ms: whatever is in a block,
/// deciding on it costs every validator some milliseconds, and a share of them less the more there is.
const GATHER_MS: u64 = 40;
/// For each so many transactions of the block it is a millisecond more: who has much to decide decides it in fewer goes.
const GATHER_PER_MS: u64 = 5;
/// But no longer than this.
const GATHER_MS_MAX: u64 = 200;
/// So many transactions are enough not to wait for more.
const GATHERED: usize = 1000;
/// Contradictions that are remembered, so that each is told once.
const CONTRADICTIONS_MAX: usize = 256;

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
    #[error(
        "the stored chain was founded by genesis {stored}, but the genesis file is {given}: use the file that the chain was started with, or another data directory"
    )]
    OtherGenesis {
        /// Named by the stored headers.
        stored: GenesisHash,
        /// Of the genesis file.
        given: GenesisHash,
    },
    /// The stored leaves are not the state that the newest stored header names.
    #[error(
        "the stored state at height {height} has root {stored}, but its header says {header}: the data directory is damaged; restore it or catch up from the other validators with an empty one"
    )]
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
    #[error(
        "diverged from the chain at height {height}: {what} is {ours} here, but a quorum certified {certified}"
    )]
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
    /// As [`Fault::Diverged`] or [`Fault::CertifiedInvalid`], after the peers were asked what differs.
    #[error("{0}")]
    Explained(Box<Divergence>),
    /// The chain goes on by rules that came after this program. Nothing is damaged, and nobody is at fault: what is
    /// stored is good for a newer program to go on with.
    #[error(
        "block {height} is made by protocol version {version}, and this program knows versions up to {known}: install a newer program and start it with the same folder"
    )]
    NewerProtocol {
        /// The first height that this program cannot execute, or one above it.
        height: Height,
        /// Its version.
        version: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// A quorum made final a block that the rules do not allow.
    #[error(
        "diverged from the chain at height {height}: a quorum certified a block that is not valid here: {what}"
    )]
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
    /// Why this validator signs nothing at the height in progress, if so.
    pub abstaining: Option<Abstention>,
    /// Whether the validators that are connected, with us if we are one, are no quorum: nothing can be decided.
    pub waiting_for_quorum: bool,
    /// Whether it still asks the others, after its start, for what they have seen of it, and votes not before.
    pub inquiring: bool,
    /// Peers that are connected, observers among them.
    pub connected: usize,
    /// Validators of the height in progress.
    pub validators: usize,
    /// Whether we are one of them.
    pub voting: bool,
    /// Those of them whose turns come last, because they missed some.
    pub passed_over: Vec<Address>,
    /// The highest height that is final as far as connected peers say.
    pub target: Height,
    /// Which rules are in force, and which are to be.
    pub rules: Rules,
}

/// By which protocol versions blocks are made, and which this program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// In force at the height in progress.
    pub version: u32,
    /// Decided and not in force yet: the version, and the first height at which it is.
    pub next: Option<(u32, Height)>,
    /// The newest that this program knows.
    pub known: u32,
}

impl Rules {
    /// What is decided and this program does not know: there it will stop.
    pub fn ends(&self) -> Option<(u32, Height)> {
        self.next.filter(|(version, _)| *version > self.known)
    }
}

/// A validator, or an observer that follows without a vote.
pub struct Replica<S: Storage> {
    pub(crate) storage: S,
    pub(crate) chain: Chain,
    /// The newest protocol version that is known here.
    pub(crate) known: u32,
    /// A certified header of a later one was seen: there is no way on.
    pub(crate) outdated: Option<Fault>,
    /// Our key, if we have one. Whether it votes is for each height to say.
    pub(crate) key: Option<PublicKey>,
    /// Leaves that block 1 writes besides its own; empty afterwards.
    pub(crate) founding: Vec<Leaf>,
    pub(crate) head: Head,
    pub(crate) pool: Pool,
    pub(crate) consensus: Consensus,
    /// Until when what waits for the next height is gathered.
    pub(crate) gathers_until: TimeMs,
    /// Whether that height is decided and its body is still missing.
    pub(crate) awaiting_body: bool,
    /// Whether the vote log holds what was said before the start, so that the height goes on without a reason.
    pub(crate) resumes: bool,
    /// What consensus asked for and was not done yet.
    pub(crate) work: VecDeque<consensus::Output>,
    pub(crate) out: Vec<Output>,
    pub(crate) now: TimeMs,
    pub(crate) bodies: Bodies,
    /// Proposals of the height above the head.
    pub(crate) seen: BTreeMap<BlockId, Seen>,
    /// One of each proposer for each of the first rounds of the height after.
    pub(crate) early: BTreeMap<(u32, Address), SignedProposal>,
    /// Their verdicts.
    pub(crate) candidates: BTreeMap<BlockId, Result<Executed, Reject>>,
    /// Why nothing is signed at the height in progress, if so.
    pub(crate) abstaining: Option<Abstention>,
    pub(crate) catch_up: CatchUp,
    pub(crate) snapshots: Snapshots,
    pub(crate) backfill: Backfill,
    pub(crate) recent: Recent,
    /// Where we parted from the chain, while it is looked into.
    pub(crate) case: Option<Box<Case>>,
    pub(crate) inquiry: Inquiry,
    /// Contradictions that were told.
    pub(crate) contradicted: BTreeSet<Contradiction>,
}

/// Names a contradiction: height, round, who, and in what.
type Contradiction = (Height, u32, Address, Option<VoteKind>);

impl<S: Storage> Replica<S> {
    /// Takes one input at `now` and says what is to be done. A fault is final: the replica may not be stepped
    /// again.
    pub fn step(&mut self, now: TimeMs, input: Input) -> Result<Vec<Output>, Fault> {
        self.now = self.now.max(now);
        if self.case.is_some() {
            return self.hear_why(input);
        }
        // Said one step late, so that what the last block gave is told and sent.
        self.check_known()?;
        self.take(input).and_then(|()| self.settle()).or_else(|fault| self.ask_why(fault))
    }

    /// Whether the next block can be executed by this program at all.
    pub(crate) fn check_known(&self) -> Result<(), Fault> {
        let (height, version, known) = (self.head.height.next(), self.head.next_version(), self.known);
        match &self.outdated {
            Some(fault) => Err(fault.clone()),
            None if version > known => Err(Fault::NewerProtocol { height, version, known }),
            None => Ok(()),
        }
    }

    fn take(&mut self, input: Input) -> Result<(), Fault> {
        match input {
            Input::Wake => {}
            Input::Transactions { txs, gossip } => self.admit(txs, gossip),
            Input::Peer { from, message } => self.hear(from, message)?,
            Input::PeerUp(peer) => {
                self.catch_up.up(&peer, true);
                let message = PeerMessage::Tip { height: self.head.height };
                self.out.push(Output::Send { to: peer, message });
            }
            Input::PeerDown(peer) => {
                self.catch_up.up(&peer, false);
                self.inquiry.down(&peer);
                self.snapshots.down(&peer);
                self.backfill.down(&peer);
            }
        }
        Ok(())
    }

    /// When the runner has to send [`Input::Wake`].
    pub fn next_wake(&self) -> Option<TimeMs> {
        if let Some(case) = &self.case {
            return case.until();
        }
        if self.check_known().is_err() {
            return Some(self.now);
        }
        let mut wake = self.next_fetch();
        if self.consensus.is_running() {
            let consensus = self.consensus.next_wake();
            wake = consensus.into_iter().chain(self.next_proposal_wake()).fold(wake, TimeMs::min);
        } else if !self.awaiting_body && self.may_begin() {
            let waits = (self.pool.len() > 0).then_some(self.gathers_until);
            wake = waits.into_iter().fold(wake.min(self.heartbeat()), TimeMs::min);
        }
        Some(self.next_question().map_or(wake, |ask| ask.min(wake)))
    }

    /// The address of our key.
    pub(crate) fn me(&self) -> Option<Address> {
        self.key.as_ref().map(address)
    }

    /// The state after the newest final block.
    pub fn state(&self) -> &State {
        &self.head.state
    }

    /// How the validator is.
    pub fn status(&self) -> Status {
        let (voting, me) = (&self.head.next, self.me());
        let present = |a: &Address| Some(*a) == me || self.catch_up.is_up(a);
        let turns = assent_ledger::turns(&self.head.state);
        let passed_over = |a: &&Address| turns.passed_over(a, self.head.height.next());
        Status {
            height: self.head.height,
            time: self.head.time,
            round: self.round(),
            pool_transactions: self.pool.len(),
            pool_bytes: self.pool.bytes(),
            catching_up: self.catch_up.asking(),
            state_root: self.head.state.root(),
            abstaining: self.abstaining,
            waiting_for_quorum: !voting.is_quorum(present),
            inquiring: !self.may_begin(),
            connected: self.catch_up.connected(),
            validators: voting.addresses().len(),
            voting: me.is_some_and(|me| voting.holds(&me)),
            passed_over: voting.addresses().iter().filter(passed_over).copied().collect(),
            target: self.catch_up.target().max(self.head.height),
            rules: self.rules(),
        }
    }

    fn rules(&self) -> Rules {
        let next = self.head.protocol.next.as_ref().filter(|next| self.head.height.next() < next.from);
        let next = next.map(|next| (next.version, next.from));
        Rules { version: self.head.next_version(), next, known: self.known }
    }

    /// The round of the height in progress.
    pub(crate) fn round(&self) -> u32 {
        if self.consensus.is_running() { self.consensus.round() } else { 0 }
    }

    /// For whom the pool has no room.
    pub fn full(&self) -> Full {
        self.pool.full()
    }

    /// Whether a transaction waits in the pool.
    pub fn pending(&self, body: &BodyId) -> bool {
        self.pool.holds(body)
    }

    /// The storage as it is.
    pub fn storage_ref(&self) -> &S {
        &self.storage
    }

    /// The storage, to read from.
    pub fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Gives the storage back: the validator is gone, what it has written remains.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Does all that is due, until nothing is.
    pub(crate) fn settle(&mut self) -> Result<Vec<Output>, Fault> {
        loop {
            let running = self.consensus.is_running();
            if self.check_known().is_err() {
                break;
            } else if let Some(output) = self.work.pop_front() {
                self.obey(output)?;
            } else if self.take_waiting()? {
                continue;
            } else if !running && self.height_wanted() {
                self.begin_height()?;
            } else if running && self.consensus.next_wake().is_some_and(|due| due <= self.now) {
                self.drive(consensus::Input::Wake)?;
            } else if !running || !self.judge_proposals()? {
                break;
            }
        }
        self.ask_for_bodies();
        self.seek_snapshot()?;
        self.ask_for_blocks();
        self.fill_past()?;
        self.ask_for_votes();
        self.tell_tip(false);
        Ok(std::mem::take(&mut self.out))
    }

    /// No empty blocks: a height begins when enough waits, when others have begun it, or when the chain was
    /// silent for too long.
    fn height_wanted(&self) -> bool {
        let wanted =
            || self.resumes || self.gathered() || self.others_began() || self.now >= self.heartbeat();
        !self.awaiting_body && wanted() && self.may_begin()
    }

    fn gathered(&self) -> bool {
        self.pool.len() >= GATHERED || self.pool.len() > 0 && self.now >= self.gathers_until
    }

    fn others_began(&self) -> bool {
        self.consensus.has_messages_for(self.head.height.next())
    }

    fn heartbeat(&self) -> TimeMs {
        self.head.time.plus(self.head.parameters.heartbeat_ms)
    }

    /// Starts consensus on the height above the head, with what the vote log remembers of it.
    pub(crate) fn begin_height(&mut self) -> Result<(), Fault> {
        let remembered = self.storage.log_read()?;
        let (height, turns, floor) = (self.head.height.next(), self.head.next.turns(), self.inquiry.floor());
        let mut log = Log { storage: &mut self.storage, fault: None };
        let outputs = self.consensus.start_height(self.now, height, turns, floor, &remembered, &mut log);
        let outputs = log.outcome(outputs)?;
        self.close_inquiry();
        self.resumes = false;
        self.abstaining = None;
        self.work.extend(outputs);
        Ok(())
    }

    /// Steps consensus; what it asks for is done in its order, later.
    pub(crate) fn drive(&mut self, input: consensus::Input) -> Result<(), Fault> {
        let mut log = Log { storage: &mut self.storage, fault: None };
        let outputs = self.consensus.step(self.now, input, &mut log);
        self.work.extend(log.outcome(outputs)?);
        Ok(())
    }

    fn obey(&mut self, output: consensus::Output) -> Result<(), Fault> {
        use consensus::Output as O;
        match output {
            O::Broadcast(message) => self.out.push(Output::Broadcast(PeerMessage::Consensus(message))),
            O::GetValue { height, round } => self.propose(height, round)?,
            O::Restream { height, round, block, .. } => self.restream(height, round, block)?,
            O::Decided { certified } => self.decided(certified)?,
            O::Equivocation(evidence) => self.equivocation(evidence),
            O::Abstaining { why, .. } => self.abstaining = Some(why),
            O::Refused { .. } => {} // a peer's fault was blamed when it came in
        }
        Ok(())
    }

    fn decided(&mut self, certified: CertifiedHeader) -> Result<(), Fault> {
        let CertifiedHeader { header, certificate } = certified;
        if header.height != self.head.height.next() {
            return Ok(());
        }
        let id = header.id();
        self.recall(&id)?;
        self.execute_body(&id);
        match self.candidates.remove(&id) {
            Some(Ok(executed)) => self.commit(executed, certificate),
            Some(Err(reject)) => {
                let bytes = self.bodies.get(&id).map(|b| b.bytes.clone());
                Err(self.diverge(CertifiedHeader { header, certificate }, bytes, reject))
            }
            None => {
                self.awaiting_body = true;
                Ok(())
            }
        }
    }

    /// Makes a block final here: stored in one write, then told.
    pub(crate) fn commit(&mut self, executed: Executed, certificate: CommitCertificate) -> Result<(), Fault> {
        let Executed { header, bytes, txs, applied } = executed;
        let head = self.head.after(&header, &txs, certificate.clone(), &applied);
        let commit = Arc::new(Commit {
            certified: CertifiedHeader { header, certificate },
            block: bytes,
            txs,
            receipts: applied.receipts,
            events: applied.events,
            leaves: with_founding(std::mem::take(&mut self.founding), applied.changes),
            removed: applied.removed,
            mountains: head.mountains.clone(),
            next_validators: (head.next.hash() != self.head.next.hash()).then(|| head.next.set().clone()),
        });
        self.storage.commit(&commit)?;
        self.storage.log_reset()?;
        let before = std::mem::replace(&mut self.head, head);
        let gathers_ms = GATHER_MS + commit.txs.len() as u64 / GATHER_PER_MS;
        self.gathers_until = self.now.plus(gathers_ms.min(GATHER_MS_MAX));
        self.snapshots.committed(self.now, &before.mountains, &commit, &self.head.state);
        self.leave_height();
        if commit.leaves.iter().any(|l| l.object == ObjectRef::NODES) {
            self.follow_nodes();
        }
        self.clear_pool(&commit);
        self.recent.committed(&commit);
        self.out.push(Output::Committed(commit, self.head.state.clone()));
        self.tell_tip(true);
        Ok(())
    }

    /// A state was put in the place of ours: all that belonged to ours is over.
    pub(crate) fn enter_state(&mut self) {
        self.work.clear();
        self.leave_height();
        self.follow_nodes();
        for body in self.pool.expire(self.head.time.plus(1)) {
            self.out.push(Output::Dropped { body, reason: Invalid::Expired });
        }
    }

    fn leave_height(&mut self) {
        (self.awaiting_body, self.resumes) = (false, false);
        self.abstaining = None;
        self.consensus.committed(self.head.height);
        self.know_voters();
        self.leave_proposals();
        self.catch_up.advanced();
    }

    /// Tells consensus whose messages may come early: of the next height and, if others vote there, of the one
    /// after.
    pub(crate) fn know_voters(&mut self) {
        let next = self.head.height.next();
        let validators = assent_ledger::validators(&self.head.state);
        let later = validators.at(next.next());
        if later != self.head.next.set() {
            self.consensus.know(later);
        }
        self.consensus.know(self.head.next.set());
    }

    /// Speaks from now on with those nodes that the newest state admits, whether they vote or observe.
    pub(crate) fn follow_nodes(&mut self) {
        let me = self.me();
        let nodes = assent_ledger::nodes(&self.head.state).nodes;
        self.catch_up.admit(nodes.iter().map(|n| address(&n.key)).filter(|a| Some(*a) != me));
    }

    /// What was committed leaves the pool, and what no later block may hold.
    fn clear_pool(&mut self, commit: &Commit) {
        for tx in &commit.txs {
            self.pool.remove(&tx.body_id());
        }
        for body in self.pool.expire(self.head.time.plus(1)) {
            self.out.push(Output::Dropped { body, reason: Invalid::Expired });
        }
    }

    /// Takes valid transactions into the pool and says of the others why not.
    fn admit(&mut self, txs: Vec<VerifiedTx>, gossip: bool) {
        let time = self.head.next_time(self.now);
        let mut news = Vec::new();
        for tx in txs {
            let (envelope, body, bytes) = (tx.envelope_id(), tx.body_id(), tx.bytes().clone());
            if self.pool.holds(&body) {
                continue;
            }
            match self.admit_one(time, tx) {
                Ok(()) => news.push(bytes),
                Err(reason) => self.out.push(Output::Refused { envelope, body, reason }),
            }
        }
        if gossip {
            self.gossip(news);
        }
    }

    fn admit_one(&mut self, time: TimeMs, tx: VerifiedTx) -> Result<(), Invalid> {
        self.head.check(time, &tx)?;
        let institution = answerable(&self.head.state, &tx.body().author).ok_or(Invalid::UnknownAuthor)?;
        self.pool.admit(tx, institution)
    }

    fn gossip(&mut self, mut envelopes: Vec<bytes::Bytes>) {
        while !envelopes.is_empty() {
            let mut room = GOSSIP_BYTES_MAX - 1024;
            let fits = |e: &bytes::Bytes| {
                let fit = room.checked_sub(e.len() + 4);
                room = fit.unwrap_or(0);
                fit.is_some()
            };
            let n = envelopes.iter().take(TRANSACTIONS_MAX).map(fits).take_while(|fit| *fit).count();
            let rest = envelopes.split_off(n.max(1));
            self.out.push(Output::Broadcast(PeerMessage::Transactions(envelopes)));
            envelopes = rest;
        }
    }

    fn hear(&mut self, from: Address, message: PeerMessage) -> Result<(), Fault> {
        if !self.catch_up.knows(&from) {
            self.blame(from, "it is no node of this chain");
            return Ok(());
        }
        match message {
            PeerMessage::Transactions(envelopes) => self.envelopes_heard(from, &envelopes),
            PeerMessage::Consensus(message) => self.consensus_heard(from, message)?,
            PeerMessage::Part(part) => self.part_heard(from, part),
            PeerMessage::GetProposal { height, round, block } => {
                self.serve_body(from, height, round, block)?
            }
            PeerMessage::CatchUp { from: first, to: last } => self.serve_blocks(from, first, last)?,
            PeerMessage::Blocks(blocks) => self.blocks_heard(from, blocks)?,
            PeerMessage::Tip { height } => self.tip_heard(from, height),
            PeerMessage::AskVotes => self.votes_asked(from),
            PeerMessage::Votes(newest) => self.votes_heard(from, newest),
            PeerMessage::AskSnapshot => self.snapshot_asked(from)?,
            PeerMessage::Snapshot(offer) => self.snapshot_heard(from, offer),
            PeerMessage::AskChunks { block, first, count } => self.chunks_asked(from, block, first, count),
            PeerMessage::Chunks { block, first, chunks } => self.chunks_heard(from, block, first, chunks)?,
            PeerMessage::AskEvents { from: top, first, to } => self.events_asked(from, top, first, to)?,
            PeerMessage::Events(blocks) => self.events_heard(from, blocks)?,
            PeerMessage::AskOutcome { height } => self.outcome_asked(from, height)?,
            PeerMessage::Outcome(_) => {} // we ask for it only when we hear nothing else
        }
        Ok(())
    }

    /// The node verifies what peers pass on before it hands it in; what comes unverified is verified here.
    fn envelopes_heard(&mut self, from: Address, envelopes: &[bytes::Bytes]) {
        let verdicts = envelope::verify(&self.chain.genesis, envelopes);
        if verdicts.iter().any(Result::is_err) {
            self.blame(from, "it passed on a transaction that is malformed or not signed");
        }
        self.admit(verdicts.into_iter().flatten().collect(), false);
    }

    /// A message of a height that is over, or far ahead, shows who is behind whom; consensus takes the rest, and
    /// keeps what is early.
    fn consensus_heard(&mut self, from: Address, message: ConsensusMessage) -> Result<(), Fault> {
        let (height, next) = (message.height(), self.head.height.next());
        if height < next {
            self.tell_tip_to(from);
        }
        if height > next {
            self.catch_up.has(&from, Height(height.0 - 1));
        }
        let proposal = match &message {
            ConsensusMessage::Proposal(proposal) => Some(proposal.clone()),
            _ => None,
        };
        let before = self.work.len();
        self.drive(consensus::Input::Message(message))?;
        if self.work.range(before..).any(refused_for_cause) {
            self.blame(from, "it sent a consensus message that is not what its author signed");
        } else if let Some(proposal) = proposal {
            self.proposal_heard(proposal);
        }
        Ok(())
    }

    /// A validator contradicted itself. Both statements bear its signature, whoever passed them on.
    fn equivocation(&mut self, evidence: Evidence) {
        let (height, round, who, kind) = match &evidence {
            Evidence::Votes(vote, _) => (vote.height, vote.round, vote.validator, Some(vote.kind)),
            Evidence::Proposals(two) => (two.0.header.height, two.0.round, two.0.proposer, None),
        };
        while self.contradicted.len() >= CONTRADICTIONS_MAX {
            self.contradicted.pop_first();
        }
        if self.contradicted.insert((height, round, who, kind)) {
            self.out.push(Output::Equivocation(evidence));
            self.blame(who, "it signed two different messages for one round");
        }
    }

    /// Tells that a peer broke the protocol, and asks it for nothing for a while.
    pub(crate) fn blame(&mut self, peer: Address, what: &'static str) {
        self.catch_up.shun(&peer, self.now);
        self.out.push(Output::Misbehaved { peer, what });
    }
}

/// Whether consensus found something that no honest peer sends.
fn refused_for_cause(output: &consensus::Output) -> bool {
    use consensus::Refusal as R;
    match output {
        consensus::Output::Refused { reason } => {
            matches!(reason, R::Stranger | R::BadSignature | R::BadCertificate | R::OtherChain)
        }
        _ => false,
    }
}

/// The leaves that a block changed, and at block 1 the founding ones that it did not.
fn with_founding(founding: Vec<Leaf>, changes: Vec<Leaf>) -> Vec<Leaf> {
    let key = |leaf: &Leaf| leaf.object;
    let mut leaves: BTreeMap<ObjectRef, Leaf> = founding.into_iter().map(|l| (key(&l), l)).collect();
    if leaves.is_empty() {
        return changes;
    }
    leaves.extend(changes.into_iter().map(|l| (key(&l), l)));
    leaves.into_values().collect()
}

/// Lets consensus write its vote log into the storage, and keeps the storage's own word if it fails.
struct Log<'a, S: Storage> {
    storage: &'a mut S,
    fault: Option<StorageFault>,
}

impl<S: Storage> Log<'_, S> {
    fn note(&mut self, result: Result<(), StorageFault>) -> Result<(), LogFault> {
        result.map_err(|fault| {
            let told = LogFault(fault.0.clone());
            self.fault = Some(fault);
            told
        })
    }

    fn outcome<T>(self, outputs: Result<T, consensus::Fault>) -> Result<T, Fault> {
        match self.fault {
            Some(fault) => Err(fault.into()),
            None => outputs.map_err(|fault| Fault::Consensus(fault.to_string())),
        }
    }
}

impl<S: Storage> VoteLog for Log<'_, S> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogFault> {
        let result = self.storage.log_append(bytes);
        self.note(result)
    }
    fn sync(&mut self) -> Result<(), LogFault> {
        let result = self.storage.log_sync();
        self.note(result)
    }
    fn truncate(&mut self, bytes: usize) -> Result<(), LogFault> {
        let result = self.storage.log_truncate(bytes);
        self.note(result)
    }
    fn mark(&mut self, height: Height) -> Result<(), LogFault> {
        let result = self.storage.log_mark(height);
        self.note(result)
    }
    fn marked(&mut self) -> Result<Height, LogFault> {
        let marked = self.storage.log_marked();
        let height = marked.as_ref().copied().unwrap_or_default();
        self.note(marked.map(|_| ()))?;
        Ok(height)
    }
}
