//! The loop: the next event by virtual time, one machine's step, what it says on its way. What happens in a
//! run is put into the queue from outside; what must hold is told to the [`Watch`].

use std::collections::{BTreeMap, BTreeSet};

use assent_consensus::{ConsensusMessage, Evidence};
use assent_genesis::Genesis;
use assent_ledger::testing::secret;
use assent_ledger::{State, read};
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::state::{Account, Institution};
use assent_proto::transaction::Enrol;
use assent_proto::validators::VoteKind;
use assent_proto::{
    Action, Address, Author, Body, BodyId, CommitCertificate, Hash, Height, MisconductId, SecretKey, TimeMs,
    VerifiedTx,
};
use assent_replica::{Fault, Input, Output, PeerMessage, Replica, SnapshotRule};
use bytes::Bytes;

use super::byzantine::{Behaviour, Liar};
use super::council;
use super::disk::{Disk, Rot, Unsynced};
use super::invariants::Watch;
use super::machine::Machine;
use super::network::{Network, Told, Trouble, Weather};
use super::workload::{Step, What};
use super::{Founding, Random};

/// How long a client waits for what its transaction builds on, and for its being final, ms.
const CLIENT_LOOKS_MS: u64 = 300;
const CLIENT_PATIENCE_MS: u64 = 3_000;
/// Who stopped because of a damaged disk comes back with an empty one after so long, ms.
const REPAIR_MS: u64 = 1_500;
/// Whether a machine abstains is looked at after so many of its steps.
const LOOKS_EVERY: u64 = 8;
/// A node that came later tries its connections so often, ms.
const KNOCK_MS: u64 = 500;
/// Contradictions that are reported in a run.
const REPORTS_MAX: usize = 3;
/// Envelopes that are remembered as verified.
const VERIFIED_MAX: usize = 4_096;

/// What is going to happen.
#[allow(clippy::large_enum_variant, reason = "few at a time")]
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Bytes,
        /// What is said to one goes over a connection, which ends with either of the two processes.
        life: Option<u64>,
        /// In which of its lives the sender said it.
        said_in: u64,
    },
    /// What the network or the node's own doors tell a machine.
    Tell {
        to: usize,
        input: Input,
        /// As above: what the network says of connections is said to one process.
        life: Option<u64>,
    },
    /// A client looks at where its transaction stands.
    Client(Box<Step>),
    CutPower {
        at: usize,
        writes: u64,
        unsynced: Unsynced,
    },
    Start {
        at: usize,
    },
    Trouble(Trouble),
    Skew {
        at: usize,
        ahead_ms: i64,
    },
    /// Its process is stopped for a while, and what comes queues up.
    Pause {
        at: usize,
        ms: u64,
    },
    SlowDisk {
        at: usize,
        sync_ms: u64,
    },
    CopyDisk {
        at: usize,
    },
    /// It loses power, and comes back with its copied disk, or without a copy with an empty one.
    ReplaceDisk {
        at: usize,
    },
    Rot {
        at: usize,
        what: Rot,
    },
    /// A node that came later tries to connect to those that it has no connection with.
    Knock {
        at: usize,
    },
    Heal,
}

impl Event {
    /// Whose turn it is, of those that wait while a machine does nothing.
    fn machine(&self) -> Option<usize> {
        match self {
            Event::Deliver { to, .. } | Event::Tell { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// Validators in one process.
pub struct Sim {
    /// The chain.
    pub genesis: Genesis,
    /// Consensus keys in the order of the validators.
    pub keys: Vec<SecretKey>,
    /// Operators' keys in the order of the institutions.
    pub operators: Vec<SecretKey>,
    /// Validators' addresses.
    pub addresses: Vec<Address>,
    /// The virtual time.
    pub now: TimeMs,
    /// The network.
    pub network: Network,
    /// What must hold.
    pub watch: Watch,
    /// All the randomness.
    pub random: Random,
    /// Answers with blocks that were sent.
    pub blocks_sent: u64,
    /// Heights at which machines came back.
    pub came_back: BTreeMap<usize, Height>,
    /// What correct machines said of others.
    pub misbehaved: BTreeSet<(Address, &'static str)>,
    /// What clients handed in or will, by ticket.
    pub submitted: BTreeSet<BodyId>,
    /// Machines that stopped because of a damaged disk.
    pub stopped: u64,
    /// How often a correct machine took in a whole state.
    pub states_taken: u64,
    machines: Vec<Machine>,
    queue: BTreeMap<(TimeMs, u64), Event>,
    sequence: u64,
    trace: blake3::Hasher,
    seed: u64,
    founding: Founding,
    fresh: Vec<bool>,
    /// What was signed for tickets whose transactions are signed late.
    signed: BTreeMap<BodyId, VerifiedTx>,
    /// Transactions by a key that does not count any more, or never will.
    given_up: BTreeSet<BodyId>,
    /// Tickets of nodes that have come.
    joined: BTreeSet<BodyId>,
    /// Connections with nodes that came later, lower machine first.
    links: BTreeSet<(usize, usize)>,
    /// Nodes that came later and knock.
    knocking: BTreeSet<usize>,
    /// Contradictions that were reported.
    reported: BTreeSet<MisconductId>,
    /// Envelopes that were verified once need not be verified at each machine.
    verified: BTreeMap<Hash, VerifiedTx>,
}

impl Sim {
    /// Four correct validators, switched on.
    pub fn new(seed: u64, weather: Weather) -> Sim {
        let mut sim = Sim::found(seed, Founding::four(), weather);
        sim.start_all();
        sim
    }

    /// Machines that are off.
    pub fn found(seed: u64, founding: Founding, weather: Weather) -> Sim {
        let n = founding.keys.len();
        Sim {
            now: founding.genesis.time().plus(60_000),
            genesis: founding.genesis.clone(),
            keys: founding.keys.clone(),
            operators: founding.operators.clone(),
            addresses: founding.addresses.clone(),
            network: Network::new(weather),
            watch: Watch::new(n, &founding.genesis),
            random: Random::new(seed),
            blocks_sent: 0,
            came_back: BTreeMap::new(),
            misbehaved: BTreeSet::new(),
            submitted: BTreeSet::new(),
            stopped: 0,
            states_taken: 0,
            machines: founding.keys.iter().map(|k| Machine::new(k.clone())).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            trace: blake3::Hasher::new(),
            seed,
            founding,
            fresh: vec![true; n],
            signed: BTreeMap::new(),
            given_up: BTreeSet::new(),
            joined: BTreeSet::new(),
            links: BTreeSet::new(),
            knocking: BTreeSet::new(),
            reported: BTreeSet::new(),
            verified: BTreeMap::new(),
        }
    }

    // ---- what happens to whom

    /// Makes a validator a liar, before it is switched on.
    pub fn corrupt(&mut self, at: usize, behaviour: Behaviour) {
        self.machines[at].liar = Some(Liar::new(behaviour, &self.founding, at));
    }

    /// When machines offer and want whole states, before any is switched on or added.
    pub fn rule_snapshots(&mut self, rule: SnapshotRule) {
        self.machines.iter_mut().for_each(|m| m.rule = rule);
    }

    /// A machine of a node that is to be admitted, off. Says which machine it is.
    pub fn add_joiner(&mut self, name: &str) -> usize {
        let mut machine = Machine::later(secret(name));
        machine.rule = self.machines[0].rule;
        self.addresses.push(machine.address);
        self.machines.push(machine);
        self.fresh.push(true);
        self.watch.add_machine();
        self.machines.len() - 1
    }

    /// Runs a second process with the key of a validator, before it is switched on. Says which machine it is.
    pub fn double(&mut self, at: usize) -> usize {
        let second = self.machines[at].second();
        self.machines.push(second);
        self.fresh.push(true);
        self.watch.add_machine();
        self.addresses.push(self.addresses[at]);
        self.machines.len() - 1
    }

    /// Switches all machines on.
    pub fn start_all(&mut self) {
        for at in (0..self.machines.len()).filter(|at| !self.machines[*at].absent).collect::<Vec<_>>() {
            self.start(at);
        }
    }

    /// Hands a workload to its clients, who do not give up.
    pub fn employ(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.submitted.insert(step.ticket());
            self.after(step.at_ms, Event::Client(Box::new(step)));
        }
    }

    /// A client that does not give up hands a transaction to a validator, later to another, until it is final.
    pub fn submit_in(&mut self, ms: u64, tx: VerifiedTx) {
        self.employ(vec![Step { what: What::Signed(tx), needs: Vec::new(), at_ms: ms }]);
    }

    /// Something comes in over a machine's own door, if it is on then.
    pub fn hand_in(&mut self, ms: u64, at: usize, input: Input) {
        self.after(ms, Event::Tell { to: at, input, life: None });
    }

    /// Cuts a machine's power at some write from then on.
    pub fn cut_power_in(&mut self, ms: u64, at: usize, writes: u64, unsynced: Unsynced) {
        self.after(ms, Event::CutPower { at, writes, unsynced });
    }

    /// Switches a machine on; if it is on, off and on again.
    pub fn start_in(&mut self, ms: u64, at: usize) {
        self.after(ms, Event::Start { at });
    }

    /// Puts links out of order.
    pub fn trouble_in(&mut self, ms: u64, trouble: Trouble) {
        self.after(ms, Event::Trouble(trouble));
    }

    /// Sets a machine's clock ahead, or behind.
    pub fn skew_in(&mut self, ms: u64, at: usize, ahead_ms: i64) {
        self.after(ms, Event::Skew { at, ahead_ms });
    }

    /// Stops a machine's process for a while.
    pub fn pause_in(&mut self, ms: u64, at: usize, lasts_ms: u64) {
        self.after(ms, Event::Pause { at, ms: lasts_ms });
    }

    /// Sets how long a machine's disk takes for a sync.
    pub fn slow_disk_in(&mut self, ms: u64, at: usize, sync_ms: u64) {
        self.after(ms, Event::SlowDisk { at, sync_ms });
    }

    /// Copies a machine's disk away.
    pub fn copy_disk_in(&mut self, ms: u64, at: usize) {
        self.after(ms, Event::CopyDisk { at });
    }

    /// Restarts a machine with the copy of its disk, or without a copy with an empty one.
    pub fn replace_disk_in(&mut self, ms: u64, at: usize) {
        self.after(ms, Event::ReplaceDisk { at });
    }

    /// Flips a bit of a machine's disk.
    pub fn rot_in(&mut self, ms: u64, at: usize, what: Rot) {
        self.after(ms, Event::Rot { at, what });
    }

    /// Keeps only so many blocks on each disk.
    pub fn keep_blocks(&mut self, keep: u64) {
        self.machines.iter_mut().for_each(|m| m.keep_blocks(keep));
    }

    /// The network is in order and all machines are on, from then on.
    pub fn heal_in(&mut self, ms: u64) {
        self.after(ms, Event::Heal);
    }

    /// An enrolment of a person of this name by the bureau: valid at once, committed once.
    pub fn enrolment(&self, name: &str) -> VerifiedTx {
        let key = secret(name);
        let institutions = self.genesis.institutions();
        let enrol = Enrol { custodian: institutions[1].id, algorithm: Algorithm::Ed25519, key: key.public() };
        let author = Author::Institution(institutions[0].id);
        self.sign(author, Action::Enrol(enrol), &[&self.operators[0], &key])
    }

    /// A transaction signed now.
    pub fn sign(&self, author: Author, action: Action, keys: &[&SecretKey]) -> VerifiedTx {
        let genesis = self.genesis.hash();
        let expires_at = self.now.plus(300_000);
        let body = Body { chain: genesis.tag(), expires_at, author, action };
        let bytes = Envelope::sign(&genesis, &body, keys).encode();
        verify(&genesis, &[bytes]).remove(0).expect("signed above")
    }

    // ---- running

    /// Lets time pass until `done`; an error after so much virtual time, or when something must not be.
    pub fn run(&mut self, most_ms: u64, what: &str, done: impl Fn(&Sim) -> bool) -> Result<(), String> {
        let end = self.now.plus(most_ms);
        while !done(self) {
            self.put_off();
            let event = self.queue.keys().next().map(|(t, _)| *t);
            let wakes = self.machines.iter().enumerate().filter_map(|(at, m)| Some((m.next_wake()?, at)));
            let wake = wakes.min();
            let next = event.into_iter().chain(wake.map(|(t, _)| t)).min();
            let Some(next) = next.filter(|t| *t <= end) else {
                return Err(format!("{what}: not after {most_ms} ms\n{}", self.describe()));
            };
            self.now = self.now.max(next);
            match wake {
                Some((t, at)) if event.is_none_or(|e| t < e) => self.step(at, Input::Wake),
                _ => {
                    let (_, event) = self.queue.pop_first().expect("peeked above");
                    self.happen(event);
                }
            }
            if let Some(broken) = self.watch.broken() {
                return Err(format!("{broken}\n{}", self.describe()));
            }
        }
        Ok(())
    }

    /// What is for a machine that does nothing just now waits in its order until it does something.
    fn put_off(&mut self) {
        while let Some((&(time, sequence), event)) = self.queue.first_key_value() {
            let until = event.machine().map_or(TimeMs(0), |at| self.machines[at].busy_until);
            if until <= time {
                return;
            }
            let event = self.queue.remove(&(time, sequence)).expect("looked at above");
            self.queue.insert((until, sequence), event);
        }
    }

    /// As [`Sim::run`], failing the test with the seed.
    pub fn run_until(&mut self, most_ms: u64, what: &str, done: impl Fn(&Sim) -> bool) {
        let seed = self.seed;
        self.run(most_ms, what, done).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        self.run_until(ms + 60_000, "time passes", |sim| sim.now >= end);
    }

    /// The fingerprint of everything that happened.
    pub fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }

    // ---- looking

    /// How many machines there are, those that run with another's key counted.
    pub fn machines(&self) -> usize {
        self.machines.len()
    }

    /// Messages on their way, and other events to come.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The machines that do not lie.
    pub fn correct(&self) -> Vec<usize> {
        let there = |at: &usize| self.machines[*at].liar.is_none() && !self.machines[*at].absent;
        (0..self.machines.len()).filter(there).collect()
    }

    /// The machines with nothing wrong so far.
    pub fn sound(&self) -> Vec<usize> {
        self.correct().into_iter().filter(|at| self.machines[*at].is_sound()).collect()
    }

    /// How often liars lied.
    pub fn lies(&self) -> u64 {
        self.machines.iter().filter_map(|m| m.liar.as_ref()).map(|l| l.lies).sum()
    }

    /// How often liars lied about a whole state or a part of one.
    pub fn false_states(&self) -> u64 {
        self.machines.iter().filter_map(|m| m.liar.as_ref()).map(|l| l.false_states).sum()
    }

    /// A machine's disk, whether it is on or off.
    pub fn disk(&self, at: usize) -> &Disk {
        self.machines[at].disk()
    }

    /// A machine's replica, if it is on.
    pub fn replica(&self, at: usize) -> Option<&Replica<Disk>> {
        self.machines[at].replica()
    }

    /// The newest height that a machine has told of.
    pub fn height(&self, at: usize) -> Height {
        self.watch.height(at)
    }

    /// Whether everything handed in is final at every correct machine, and all of them are on and at the same
    /// height.
    pub fn all_final(&self) -> bool {
        let correct = self.correct();
        let height = self.height(correct[0]);
        correct.iter().all(|at| self.replica(*at).is_some_and(|r| r.status().height == height))
            && self.submitted.iter().all(|ticket| self.is_done(ticket))
    }

    /// Whether every correct machine has all blocks and what came of them, those below a state that it took in
    /// too.
    pub fn all_filled(&self) -> bool {
        self.correct().iter().all(|at| self.replica(*at).is_some_and(|r| r.progress().missing == 0))
    }

    /// Whether what a ticket stands for is final.
    pub fn is_final(&self, ticket: &BodyId) -> bool {
        self.joined.contains(ticket) || self.watch.is_final(&self.body_of(ticket))
    }

    /// Whether nothing is to come of what a ticket stands for: it is final, or its client has given it up.
    fn is_done(&self, ticket: &BodyId) -> bool {
        self.is_final(ticket) || self.given_up.contains(ticket)
    }

    /// The body that a ticket stands for, once it is signed.
    pub fn body_of(&self, ticket: &BodyId) -> BodyId {
        self.signed.get(ticket).map_or(*ticket, VerifiedTx::body_id)
    }

    /// The newest state that a correct machine shows.
    pub fn newest_state(&self) -> (Height, State) {
        let on = self.correct().into_iter().filter_map(|at| self.replica(at));
        let newest = on.max_by_key(|r| r.status().height).map(|r| (r.status().height, r.state().clone()));
        newest.unwrap_or_else(|| (Height(0), State::from_leaves(self.genesis.leaves())))
    }

    /// Whether a machine's precommit is in a certificate above a height that a correct machine holds.
    pub fn has_voted_above(&self, at: usize, height: Height) -> bool {
        let Some((voter, _)) = self.genesis.validators().by_address(&self.addresses[at]) else {
            return false;
        };
        let signed =
            |(_, (_, c)): (_, &(Bytes, CommitCertificate))| c.signatures.iter().any(|s| s.validator == voter);
        let on = self.correct().into_iter().filter_map(|at| self.replica(at));
        on.into_iter().any(|r| r.storage_ref().blocks.range(height.next()..).any(signed))
    }

    /// Fails unless the correct machines hold one chain with every acknowledged transaction in it once.
    pub fn check_disks(&mut self) -> Result<(), String> {
        for at in self.correct() {
            self.watch.check_disk(at, self.machines[at].disk());
        }
        let liars = self.machines.iter().filter(|m| !m.is_sound());
        let liars: BTreeSet<_> = liars.map(|m| m.address).collect();
        if let Some((peer, what)) = self.misbehaved.iter().find(|(peer, _)| !liars.contains(peer)) {
            let what = format!("a correct validator, {peer}, was blamed: {what}");
            self.watch.violated(what);
        }
        match self.watch.broken() {
            Some(broken) => Err(format!("{broken}\n{}", self.describe())),
            None => Ok(()),
        }
    }

    /// As [`Sim::check_disks`], failing the test with the seed.
    pub fn check_agreement(&mut self) {
        let seed = self.seed;
        self.check_disks().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }

    // ---- what happens

    fn after(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now.plus(ms), self.sequence), event);
    }

    fn note(&mut self, what: u8, at: usize, bytes: &[u8]) {
        self.trace.update(&self.now.0.to_le_bytes()).update(&[what, at as u8]).update(bytes);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, life, .. } | Event::Tell { to, life, .. }
                if life.is_some_and(|l| l != self.machines[to].life) => {}
            // A new process of the sender has a connection of its own, and what was on its way is lost.
            Event::Deliver { from, life: Some(_), said_in, .. } if said_in != self.machines[from].life => {}
            Event::Deliver { from, to, bytes, said_in, .. } => {
                self.deliver(from, to, &bytes, said_in == self.machines[from].life);
            }
            Event::Tell { to, input, .. } => self.step(to, input),
            Event::Client(step) => self.client(step),
            Event::CutPower { at, writes, unsynced } => {
                self.note(b'c', at, &[]);
                self.machines[at].unsynced = unsynced;
                self.machines[at].cut_power_after(writes);
            }
            Event::Start { at } => {
                // A machine whose power did not go at a write goes now.
                self.stop(at);
                self.start(at);
            }
            Event::Trouble(trouble) => self.network.trouble(trouble),
            Event::Skew { at, ahead_ms } => self.machines[at].ahead_ms = ahead_ms,
            Event::Pause { at, ms } => {
                let until = self.now.plus(ms);
                self.machines[at].busy_until = self.machines[at].busy_until.max(until);
            }
            Event::SlowDisk { at, sync_ms } => self.machines[at].slow_disk(sync_ms),
            Event::CopyDisk { at } => self.machines[at].copy_disk(),
            Event::ReplaceDisk { at } => self.replace_disk(at),
            Event::Rot { at, what } => {
                self.note(b'b', at, &[]);
                self.machines[at].rot(what, &mut self.random);
            }
            Event::Knock { at } => self.knock(at),
            Event::Heal => {
                self.note(b'h', 0, &[]);
                self.network.heal();
                for at in 0..self.machines.len() {
                    self.machines[at].ahead_ms = 0;
                    self.machines[at].slow_disk(0);
                    if self.machines[at].rotten {
                        self.replace_disk(at);
                    }
                }
                self.start_all();
            }
        }
    }

    fn replace_disk(&mut self, at: usize) {
        self.note(b'r', at, &[]);
        self.stop(at);
        self.machines[at].replace_disk();
        self.watch.replaced(at, self.machines[at].disk());
        self.start(at);
    }

    fn client(&mut self, step: Box<Step>) {
        let ticket = step.ticket();
        if self.is_final(&ticket) {
            return;
        }
        if !step.needs.iter().all(|need| self.is_done(need)) {
            return self.after(CLIENT_LOOKS_MS, Event::Client(step));
        }
        if self.has_lost_its_key(&step.what) {
            self.given_up.insert(ticket);
            return;
        }
        let tx = match &step.what {
            What::Join { at, .. } => {
                self.machines[*at].absent = false;
                self.joined.insert(ticket);
                self.start(*at);
                return;
            }
            What::Signed(tx) => tx.clone(),
            What::Late(late) => match self.signed.get(&ticket) {
                Some(tx) => tx.clone(),
                None => {
                    let tx = late.sign(self);
                    self.signed.insert(ticket, tx.clone());
                    tx
                }
            },
        };
        let at = self.random.below(self.machines.len() as u64) as usize;
        self.note(b's', at, tx.envelope_id().as_bytes());
        if self.machines[at].busy_until <= self.now {
            self.step(at, Input::Transactions { txs: vec![tx], gossip: true });
        }
        self.after(CLIENT_PATIENCE_MS, Event::Client(step));
    }

    /// Whether a client knows that its key does not sign for the author any more, or will not begin to. Who waits for
    /// a recovery that nobody has vetoed waits.
    fn has_lost_its_key(&self, what: &What) -> bool {
        let What::Signed(tx) = what else { return false };
        let (height, state) = self.newest_state();
        if height < self.watch.newest() {
            return false;
        }
        let key = &tx.signers()[0];
        match &tx.body().author {
            Author::Account(id) => read::<Account>(&state, *id).is_some_and(|account| {
                let comes = account.recovery.as_ref().is_some_and(|r| r.ready_at.is_some() && r.key == *key);
                account.key_at(self.now) != *key && !comes
            }),
            Author::Institution(id) => read::<Institution>(&state, *id).is_some_and(|i| {
                !matches!(tx.body().action, Action::ReportEquivocation(_))
                    && i.keys.iter().all(|k| k.key != *key)
            }),
        }
    }

    /// What the node does: decodes, and verifies transactions before it hands them in.
    fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes, in_time: bool) {
        if self.is_link_of_later(from, to) && !self.links.contains(&(from.min(to), from.max(to))) {
            return;
        }
        self.note(b'd', to, blake3::hash(bytes).as_bytes());
        if let Some(liar) = &mut self.machines[to].liar {
            liar.hear(bytes);
        }
        let honest = self.machines[from].liar.is_none();
        let Ok(message) = PeerMessage::decode(bytes) else {
            if honest {
                self.watch.violated(format!("machine {from} sent what cannot be decoded"));
            }
            return;
        };
        if in_time && self.machines[to].replica().is_some() {
            self.watch.hears(to, self.machines[to].life, &self.addresses[from], &message);
        }
        let input = match message {
            PeerMessage::Transactions(envelopes) if honest => {
                let txs: Option<Vec<_>> = envelopes.iter().map(|e| self.verify_once(e)).collect();
                let Some(txs) = txs else {
                    return self.watch.violated(format!("machine {from} passed on an unsigned transaction"));
                };
                Input::Transactions { txs, gossip: false }
            }
            message => Input::Peer { from: self.addresses[from], message },
        };
        self.step(to, input);
    }

    fn verify_once(&mut self, envelope: &Bytes) -> Option<VerifiedTx> {
        let hash = Hash(*blake3::hash(envelope).as_bytes());
        if let Some(tx) = self.verified.get(&hash) {
            return Some(tx.clone());
        }
        let tx = verify(&self.genesis.hash(), std::slice::from_ref(envelope)).remove(0).ok()?;
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(hash, tx.clone());
        Some(tx)
    }

    fn step(&mut self, at: usize, input: Input) {
        if let Some(result) = self.machines[at].step(self.now, input) {
            self.stepped(at, result);
        }
    }

    fn stepped(&mut self, at: usize, result: Result<Vec<Output>, Fault>) {
        match result {
            Ok(outputs) if self.machines[at].liar.is_some() => self.lie(at, outputs),
            Ok(outputs) => {
                outputs.into_iter().for_each(|o| self.output(at, o));
                self.must_vote(at);
            }
            Err(Fault::Storage(fault)) if Disk::is_power_cut(&fault) => self.stop(at),
            // Its own lies may make it stop; that is no one's loss.
            Err(_) if self.machines[at].liar.is_some() => self.machines[at].discard(),
            Err(fault) if self.machines[at].rotten && stops_for_damage(&fault) => {
                self.note(b'x', at, &[]);
                self.stopped += 1;
                self.stop(at);
                self.after(REPAIR_MS, Event::ReplaceDisk { at });
            }
            Err(fault) => self.watch.violated(format!("machine {at} stopped: {fault}")),
        }
    }

    /// Whoever remembers all that it signed has no reason to abstain.
    fn must_vote(&mut self, at: usize) {
        let machine = &self.machines[at];
        // Who abstains does so for a height: it is enough to look now and then.
        if !machine.steps.is_multiple_of(LOOKS_EVERY) {
            return;
        }
        let abstains = machine.replica().and_then(|r| r.status().abstaining);
        if let Some(why) = abstains.filter(|_| machine.is_sound()) {
            self.watch.violated(format!("machine {at} abstains with a disk that lost nothing: {why}"));
        }
    }

    fn lie(&mut self, at: usize, outputs: Vec<Output>) {
        let Some(mut liar) = self.machines[at].liar.take() else { return };
        let letters = liar.speak(outputs, self.machines[at].replica(), &mut self.random);
        self.machines[at].liar = Some(liar);
        for (to, bytes) in letters {
            let message = PeerMessage::decode(&bytes);
            if let Ok(message) = &message {
                self.watch.overhears(&self.addresses[at], message);
            }
            self.send(at, to, &bytes, None, message.as_ref().map_or(Told::ToAll, told));
        }
    }

    fn output(&mut self, at: usize, output: Output) {
        match output {
            Output::Broadcast(message) => {
                self.hold_to(at, &message);
                let (bytes, what) = (message.encode(), told(&message));
                for to in (0..self.machines.len()).filter(|to| *to != at) {
                    self.send(at, to, &bytes, None, what);
                }
            }
            Output::Send { to, message } => {
                self.hold_to(at, &message);
                self.blocks_sent += matches!(message, PeerMessage::Blocks(_)) as u64;
                let what = match message {
                    PeerMessage::Blocks(_) => Told::Blocks,
                    _ => Told::ToOne,
                };
                let bytes = message.encode();
                let to: Vec<_> = (0..self.machines.len()).filter(|o| self.addresses[*o] == to).collect();
                if to.is_empty() {
                    self.watch.violated(format!("machine {at} speaks to a stranger"));
                }
                for to in to.into_iter().filter(|to| *to != at) {
                    let life = Some(self.machines[to].life);
                    self.send(at, to, &bytes, life, what);
                }
            }
            Output::Committed(commit, state) => {
                self.note(b'f', at, &commit.block_id().0.0);
                if state.root() != commit.state_root() {
                    self.watch.violated(format!("machine {at} shows a state that is not the header's"));
                }
                self.watch.committed(at, &commit, &state);
            }
            Output::Joined(certified, state) => {
                let block = (certified.header.id(), state.root());
                self.note(b'j', at, &block.0.0.0);
                if state.root() != certified.header.state_root {
                    self.watch.violated(format!("machine {at} took in a state that is not the header's"));
                }
                self.states_taken += 1;
                self.watch.joined(at, certified.header.height, block);
            }
            Output::Equivocation(evidence) => self.report(at, &evidence),
            Output::Refused { .. } | Output::Dropped { .. } => {}
            // One of two with a key gets answers to what the other asked.
            Output::Misbehaved { .. } if self.machines[at].twin => {}
            Output::Misbehaved { peer, what } => {
                self.misbehaved.insert((peer, what));
            }
        }
    }

    /// What a validator does that sees a contradiction: one report of each goes to the clients.
    fn report(&mut self, at: usize, evidence: &Evidence) {
        let Some(tx) = council::report(self, self.machines[at].key(), evidence) else { return };
        let Action::ReportEquivocation(report) = &tx.body().action else { return };
        if self.reported.len() < REPORTS_MAX && self.reported.insert(report.id()) {
            self.employ(vec![Step { what: What::Signed(tx), needs: Vec::new(), at_ms: 0 }]);
        }
    }

    fn hold_to(&mut self, at: usize, message: &PeerMessage) {
        let address = self.addresses[at];
        let machine = &self.machines[at];
        if machine.is_sound() {
            self.watch.says(&address, message, None);
        } else if machine.liar.is_none() && !machine.twin {
            let honest = |m: &Machine| m.liar.is_none() && !m.twin && !m.forgot;
            let mind = |m: &Machine| (m.address, honest(m).then_some(m.life));
            let minds: Vec<_> = self.machines.iter().map(mind).collect();
            self.watch.says(&address, message, Some(&minds));
        } else {
            self.watch.overhears(&address, message);
        }
    }

    /// What a machine says leaves it when its disk is done.
    fn send(&mut self, from: usize, to: usize, bytes: &Bytes, life: Option<u64>, what: Told) {
        let held = self.machines[from].busy_until.0.saturating_sub(self.now.0);
        for ms in self.network.ways(self.now, from, to, what, &mut self.random) {
            let said_in = self.machines[from].life;
            self.after(held + ms, Event::Deliver { from, to, bytes: bytes.clone(), life, said_in });
        }
    }

    /// The power goes, if it is on.
    pub fn stop(&mut self, at: usize) {
        if self.machines[at].stop(&mut self.random) {
            self.note(b'p', at, &[]);
            let address = self.addresses[at];
            let still = |m: &Machine| m.address == address && m.replica().is_some();
            if !self.machines.iter().any(still) {
                self.tell_others(at, Input::PeerDown(address));
            }
            self.unlink(at);
        }
    }

    /// The power comes, if it is off.
    pub fn start(&mut self, at: usize) {
        // Before it opens: a vote log may hold a decision that opening commits, and tells.
        if self.machines[at].liar.is_none() && self.machines[at].replica().is_none() {
            if !self.machines[at].rotten {
                self.watch.restarted(at, self.machines[at].disk());
            }
            let height = self.machines[at].disk().height();
            if !std::mem::replace(&mut self.fresh[at], false) {
                self.came_back.insert(at, height);
            }
        }
        let Some(result) = self.machines[at].start(self.now, &self.genesis) else { return };
        self.note(b'u', at, &[]);
        self.stepped(at, result);
        if self.machines[at].replica().is_none() {
            return;
        }
        self.tell_others(at, Input::PeerUp(self.addresses[at]));
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            if self.machines[other].replica().is_some() && !self.is_link_of_later(at, other) {
                self.tell(at, Input::PeerUp(self.addresses[other]));
            }
        }
        if self.machines[at].came_later && self.knocking.insert(at) {
            self.knock(at);
        }
    }

    /// Tells all that are not connected by knocking.
    fn tell_others(&mut self, at: usize, input: Input) {
        for other in (0..self.machines.len()).filter(|o| *o != at) {
            if !self.is_link_of_later(at, other) {
                self.tell(other, input.clone());
            }
        }
    }

    fn is_link_of_later(&self, one: usize, other: usize) -> bool {
        self.machines[one].came_later || self.machines[other].came_later
    }

    /// Connections with a node that came later are there once both let each other in.
    fn knock(&mut self, at: usize) {
        for other in (0..self.machines.len()).filter(|o| *o != at) {
            let link = (at.min(other), at.max(other));
            let mutual = self.machines[at].admits(&self.machines[other])
                && self.machines[other].admits(&self.machines[at]);
            if mutual && self.links.insert(link) {
                self.tell(at, Input::PeerUp(self.addresses[other]));
                self.tell(other, Input::PeerUp(self.addresses[at]));
            }
        }
        self.after(KNOCK_MS, Event::Knock { at });
    }

    fn unlink(&mut self, at: usize) {
        let gone: Vec<_> = self.links.iter().filter(|(a, b)| *a == at || *b == at).copied().collect();
        for link in gone {
            self.links.remove(&link);
            let other = if link.0 == at { link.1 } else { link.0 };
            self.tell(other, Input::PeerDown(self.addresses[at]));
        }
    }

    /// In the order in which it happened: who is told of a connection's end after its beginning does without it.
    fn tell(&mut self, to: usize, input: Input) {
        let life = Some(self.machines[to].life);
        self.after(0, Event::Tell { to, input, life });
    }

    fn describe(&self) -> String {
        let state = |(at, m): (usize, &Machine)| {
            let role = match &m.liar {
                Some(liar) => format!("{:?}", liar.behaviour()),
                None if m.twin => "one of two with a key".into(),
                None if m.forgot || m.rotten => "with a bad disk".into(),
                None => "correct".into(),
            };
            match m.replica() {
                Some(r) => format!("  {at} ({role}): {:?} wake {:?}\n", r.status(), r.next_wake()),
                None => format!("  {at} ({role}): off\n"),
            }
        };
        let machines: String = self.machines.iter().enumerate().map(state).collect();
        let open = self.submitted.iter().filter(|ticket| !self.is_done(ticket)).count();
        format!(
            "{} ms after the start, {open} of {} transactions open\n{machines}came back: {:?}, blamed: {:?}",
            self.now.0 - self.genesis.time().0 - 60_000,
            self.submitted.len(),
            self.came_back,
            self.misbehaved
        )
    }
}

/// Whether a fault is what a damaged disk has to lead to.
fn stops_for_damage(fault: &Fault) -> bool {
    matches!(fault, Fault::Storage(_) | Fault::DamagedState { .. } | Fault::DamagedBlock { .. })
}

fn told(message: &PeerMessage) -> Told {
    match message {
        PeerMessage::Consensus(ConsensusMessage::Vote(v)) if v.kind == VoteKind::Precommit => Told::Precommit,
        _ => Told::ToAll,
    }
}
