//! A network of validators in one loop: virtual time, seeded loss and reordering, crashes. It checks at every
//! step what must always hold: no validator contradicts itself, no two decide differently, every certificate
//! verifies. Blocks are headers without bodies; bodies are taken to be executed when they arrive.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::large_enum_variant)]

use std::collections::BTreeMap;

use assent_consensus::log::{LogFault, VoteLog};
use assent_consensus::*;
use assent_proto::hash::Hash;
use assent_proto::validators::VoteKind;
use assent_proto::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A log in memory, which knows what a crash may take from it.
#[derive(Clone, Default)]
pub struct MemoryLog {
    pub durable: Vec<u8>,
    pub pending: Vec<Vec<u8>>,
    pub syncs: usize,
    /// What is noted outside the log.
    pub mark: Height,
    /// Appends and syncs left until every further one fails.
    pub fails_after: Option<usize>,
}

impl MemoryLog {
    fn may_fail(&mut self) -> Result<(), LogFault> {
        match &mut self.fails_after {
            Some(0) => Err(LogFault("the disk is full".into())),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub fn all(&self) -> Vec<u8> {
        [self.durable.clone(), self.pending.concat()].concat()
    }
}

impl VoteLog for MemoryLog {
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogFault> {
        self.may_fail()?;
        self.pending.push(bytes.to_vec());
        Ok(())
    }
    fn sync(&mut self) -> Result<(), LogFault> {
        self.may_fail()?;
        self.syncs += 1;
        self.durable = self.all();
        self.pending.clear();
        Ok(())
    }
    fn truncate(&mut self, bytes: usize) -> Result<(), LogFault> {
        self.may_fail()?;
        self.durable = self.all();
        self.durable.truncate(bytes);
        self.pending.clear();
        Ok(())
    }
    fn mark(&mut self, height: Height) -> Result<(), LogFault> {
        self.may_fail()?;
        self.mark = height;
        Ok(())
    }
    fn marked(&mut self) -> Result<Height, LogFault> {
        Ok(self.mark)
    }
}

pub struct Chain {
    pub genesis: GenesisHash,
    pub keys: Vec<SecretKey>,
    pub set: ValidatorSet,
}

pub fn chain() -> Chain {
    let (genesis, keys, _) = assent_genesis::testing::four();
    Chain { genesis: genesis.hash(), keys, set: genesis.validators().clone() }
}

impl Chain {
    pub fn address(&self, i: usize) -> Address {
        let v = self.set.validators.iter().find(|v| v.key == self.keys[i].public());
        v.unwrap().address()
    }

    /// All take turns, beginning with another one at each height.
    pub fn turns(&self, height: u64) -> Turns {
        Turns { set: self.set.clone(), order: self.set.turns(Height(height), |_| false) }
    }

    /// The node whose turn it is.
    pub fn proposer(&self, height: u64, round: u32) -> usize {
        let Turns { set, order } = self.turns(height);
        let key = set.validators[order[round as usize % order.len()] as usize].key;
        self.keys.iter().position(|k| k.public() == key).unwrap()
    }

    pub fn header(&self, height: u64, parent: BlockId, builder: Address, salt: u64) -> Header {
        Header {
            version: 1,
            genesis: self.genesis,
            height: Height(height),
            parent,
            time: TimeMs(1000 + salt),
            builder,
            tx_root: Hash([1; 32]),
            body_bytes: 0,
            events_root: Hash([2; 32]),
            history_root: Hash([3; 32]),
            state_root: Hash([4; 32]),
            validators: self.set.hash(),
            next_validators: self.set.hash(),
            parent_certificate: Hash::ZERO,
        }
    }

    pub fn vote(
        &self,
        i: usize,
        kind: VoteKind,
        height: u64,
        round: u32,
        block: Option<BlockId>,
    ) -> SignedVote {
        let mut vote = SignedVote {
            kind,
            height: Height(height),
            round,
            block,
            validator: self.address(i),
            signature: Signature([0; 64]),
        };
        vote.signature = self.keys[i].sign(vote.message(&self.genesis).as_bytes());
        vote
    }

    pub fn proposal(&self, i: usize, round: u32, header: Header) -> SignedProposal {
        let mut p = SignedProposal {
            round,
            valid_round: None,
            header,
            proposer: self.address(i),
            signature: Signature([0; 64]),
        };
        p.signature = self.keys[i].sign(p.message(&self.genesis).as_bytes());
        p
    }

    pub fn consensus(&self, i: usize) -> Consensus {
        let key = self.keys.get(i).cloned();
        let mut consensus = Consensus::new(self.genesis, key, Timeouts::default());
        consensus.know(&self.set);
        consensus
    }
}

pub struct Node {
    pub core: Option<Consensus>,
    pub log: MemoryLog,
    pub decided: Vec<CertifiedHeader>,
    /// Starts and wakes of an earlier life are ignored.
    life: u64,
    /// The one wake that counts.
    wake: Option<u64>,
    pub abstained: Vec<(Height, Abstention)>,
    pub evidence: Vec<Evidence>,
    pub refused: Vec<Refusal>,
}

#[derive(Clone, Debug)]
enum Event {
    Start { node: usize, life: u64 },
    Wake { node: usize, life: u64 },
    Deliver { to: usize, input: Input },
    CatchUp,
    Crash { node: usize },
    Restart { node: usize },
}

pub struct Network {
    pub chain: Chain,
    pub nodes: Vec<Node>,
    pub rng: ChaCha8Rng,
    pub now: u64,
    pub loss_permille: u64,
    /// Each message takes this and up to 60 ms more.
    pub delay: u64,
    /// How far each node's clock is ahead.
    pub skew: [u64; 8],
    /// The validator that also signs against itself.
    pub traitor: Option<usize>,
    /// Whether a crash may leave half a frame.
    pub torn: bool,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    headers: BTreeMap<BlockId, Header>,
    signed: BTreeMap<(Address, u8, Height, u32), Hash>,
    pub trace: Hash,
}

impl Network {
    /// `count` nodes; those past the fourth are observers.
    pub fn new(seed: u64, count: usize, loss_permille: u64) -> Self {
        let chain = chain();
        let node = |i| Node {
            core: Some(chain.consensus(i)),
            log: MemoryLog::default(),
            decided: Vec::new(),
            life: 0,
            wake: None,
            abstained: Vec::new(),
            evidence: Vec::new(),
            refused: Vec::new(),
        };
        let nodes = (0..count).map(node).collect();
        let mut network = Network {
            chain,
            nodes,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            loss_permille,
            delay: 5,
            skew: [0; 8],
            traitor: None,
            torn: false,
            events: BTreeMap::new(),
            sequence: 0,
            headers: BTreeMap::new(),
            signed: BTreeMap::new(),
            trace: Hash::ZERO,
        };
        for node in 0..count {
            network.at(0, Event::Start { node, life: 0 });
        }
        network.at(700, Event::CatchUp);
        network
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    pub fn crash(&mut self, time: u64, node: usize, down_ms: u64) {
        self.at(time, Event::Crash { node });
        self.at(time + down_ms, Event::Restart { node });
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].core = None;
        self.nodes[node].life += 1;
        self.nodes[node].wake = None;
    }

    /// Runs until every living node has decided `height`.
    pub fn run_to(&mut self, height: usize) {
        while self.nodes.iter().any(|n| n.core.is_some() && n.decided.len() < height) {
            let ((time, _), event) = self.events.pop_first().expect("a running network has timers");
            assert!(time < 3_600_000, "no decision within an hour: {:?}", self.heights());
            self.now = time;
            let line = format!("{time} {event:?}");
            self.trace = assent_proto::hash::DOCUMENT.hash(&[&self.trace.0, line.as_bytes()]);
            self.handle(event);
        }
    }

    pub fn heights(&self) -> Vec<usize> {
        self.nodes.iter().map(|n| n.decided.len()).collect()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start { node, life } if self.nodes[node].life == life => self.start(node),
            Event::Wake { node, life } if self.nodes[node].life == life => {
                if self.nodes[node].wake == Some(self.now) {
                    self.nodes[node].wake = None;
                    self.step(node, Input::Wake);
                }
            }
            Event::Start { .. } | Event::Wake { .. } => {}
            Event::Deliver { to, input } if self.is_early(to, &input) => {
                self.at(self.now + 10, Event::Deliver { to, input });
            }
            Event::Deliver { to, input } => self.step(to, input),
            Event::CatchUp => self.catch_up(),
            Event::Crash { node } => self.crash_now(node),
            Event::Restart { node } => {
                if self.nodes[node].core.is_none() {
                    self.nodes[node].core = Some(self.chain.consensus(node));
                    self.start(node);
                }
            }
        }
    }

    /// A body of a height that has not begun there: it is kept, as a replica does.
    fn is_early(&self, to: usize, input: &Input) -> bool {
        let Input::Received { height, .. } = input else { return false };
        let node = &self.nodes[to];
        let at_work = |core: &Consensus| core.is_running() && core.height() == *height;
        node.decided.len() < height.0 as usize && node.core.as_ref().is_some_and(|core| !at_work(core))
    }

    fn start(&mut self, i: usize) {
        let now = TimeMs(self.now + self.skew[i]);
        let node = &mut self.nodes[i];
        let height = Height(node.decided.len() as u64 + 1);
        let Some(core) = &mut node.core else { return };
        if core.height() >= height {
            return;
        }
        core.committed(Height(height.0 - 1));
        let held = node.log.all();
        let turns = self.chain.turns(height.0);
        let outputs = core.start_height(now, height, turns, None, &held, &mut node.log).unwrap();
        self.obey(i, outputs);
    }

    fn step(&mut self, i: usize, input: Input) {
        let now = TimeMs(self.now + self.skew[i]);
        let node = &mut self.nodes[i];
        let Some(core) = &mut node.core else { return };
        let outputs = core.step(now, input, &mut node.log).unwrap();
        self.obey(i, outputs);
    }

    fn obey(&mut self, i: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Broadcast(message) => self.broadcast(i, message),
                Output::GetValue { height, round } => self.build(i, height, round),
                Output::Restream { height, round, valid_round, block } => {
                    let header = self.headers[&block].clone();
                    let proposer = self.chain.address(self.chain.proposer(height.0, round));
                    let valid = true;
                    self.send(i, Input::Received { height, round, proposer, valid_round, header, valid });
                }
                Output::Decided { certified } => self.decide(i, certified),
                Output::Equivocation(e) => self.nodes[i].evidence.push(e),
                Output::Abstaining { height, why } => self.nodes[i].abstained.push((height, why)),
                Output::Refused { reason } => self.nodes[i].refused.push(reason),
            }
        }
        let life = self.nodes[i].life;
        let wake = self.nodes[i].core.as_ref().and_then(|c| c.next_wake());
        let due = wake.map(|t| t.0.saturating_sub(self.skew[i]).max(self.now));
        if let Some(time) = due
            && self.nodes[i].wake != due
        {
            self.nodes[i].wake = due;
            self.at(time, Event::Wake { node: i, life });
        }
    }

    /// Never the same header twice, so that a validator which forgot its proposal would contradict itself.
    fn build(&mut self, i: usize, height: Height, round: u32) {
        let parent = self.nodes[i].decided.last().map_or(BlockId(self.chain.genesis.0), |c| c.header.id());
        let salt = self.now * 1000 + self.below(1000);
        let header = self.chain.header(height.0, parent, self.chain.address(i), salt);
        self.headers.insert(header.id(), header.clone());
        self.step(i, Input::Built { height, round, header });
    }

    fn broadcast(&mut self, i: usize, message: ConsensusMessage) {
        self.must_not_contradict(i, &message);
        let decoded = ConsensusMessage::decode(&message.encode()).unwrap();
        assert_eq!(decoded, message);
        if let ConsensusMessage::Proposal(p) = &message {
            let body = Input::Received {
                height: p.header.height,
                round: p.round,
                proposer: p.proposer,
                valid_round: p.valid_round,
                header: p.header.clone(),
                valid: true,
            };
            self.send(i, body);
        }
        if let (Some(t), ConsensusMessage::Vote(v)) = (self.traitor, &message)
            && i == t
        {
            let other = BlockId(Hash([self.now as u8; 32]));
            let lie = self.chain.vote(t, v.kind, v.height.0, v.round, Some(other));
            self.send(i, Input::Message(ConsensusMessage::Vote(lie)));
        }
        self.send(i, Input::Message(message));
    }

    fn send(&mut self, from: usize, input: Input) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let (lost, delay) = (self.below(1000) < self.loss_permille, self.delay + self.below(60));
            if !lost {
                self.at(self.now + delay, Event::Deliver { to, input: input.clone() });
            }
        }
    }

    /// What was once signed for a place stays what is signed for it, through every crash.
    fn must_not_contradict(&mut self, i: usize, message: &ConsensusMessage) {
        let me = self.chain.keys.get(i).map(|_| self.chain.address(i));
        let (who, what, signed) = match message {
            ConsensusMessage::Vote(v) => (v.validator, v.kind as u8, v.message(&self.chain.genesis)),
            ConsensusMessage::Proposal(p) => (p.proposer, 3, p.message(&self.chain.genesis)),
            ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => return,
        };
        if me == Some(who) {
            let place = (who, what, message.height(), message.round());
            let before = *self.signed.entry(place).or_insert(signed);
            assert_eq!(before, signed, "node {i} contradicts itself: {message:?}");
        }
    }

    fn decide(&mut self, i: usize, certified: CertifiedHeader) {
        let CertifiedHeader { header, certificate } = &certified;
        let (genesis, set) = (&self.chain.genesis, &self.chain.set);
        assert_eq!(header.height.0, self.nodes[i].decided.len() as u64 + 1);
        certificate.verify(genesis, set, header.height, &header.id()).unwrap();
        for (j, other) in self.nodes.iter().enumerate() {
            if let Some(theirs) = other.decided.get(header.height.0 as usize - 1) {
                assert_eq!(theirs.header, *header, "nodes {i} and {j} decided differently");
            }
        }
        let node = &mut self.nodes[i];
        node.decided.push(certified);
        node.log = MemoryLog { syncs: node.log.syncs, mark: node.log.mark, ..Default::default() };
        let life = node.life;
        let pause = self.below(20);
        self.at(self.now + pause, Event::Start { node: i, life });
    }

    /// Nodes that are behind get a block that is final elsewhere.
    fn catch_up(&mut self) {
        let best = (0..self.nodes.len()).max_by_key(|i| self.nodes[*i].decided.len()).unwrap();
        for i in 0..self.nodes.len() {
            let height = self.nodes[i].decided.len();
            if let Some(certified) = self.nodes[best].decided.get(height).cloned() {
                self.at(self.now + 1, Event::Deliver { to: i, input: Input::Certified(certified) });
            }
        }
        self.at(self.now + 700, Event::CatchUp);
    }

    /// The power fails: what was not synced may be lost, from the end.
    fn crash_now(&mut self, i: usize) {
        self.kill(i);
        let frames = self.nodes[i].log.pending.len() as u64;
        let keep = self.below(frames + 1) as usize;
        let (torn, cut) = (self.torn, self.below(12) as usize + 1);
        let log = &mut self.nodes[i].log;
        let mut kept = log.pending[..keep].concat();
        if torn && let Some(next) = log.pending.get(keep) {
            kept.extend(&next[..cut]);
        }
        log.durable.extend(kept);
        log.pending.clear();
    }
}
