//! The loop: the next event by virtual time, one machine's step, what it says on its way. What happens in a
//! run is put into the queue from outside; what must hold is told to the [`Watch`].

use std::collections::{BTreeMap, BTreeSet};

use assent_genesis::Genesis;
use assent_ledger::testing::secret;
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::transaction::Enrol;
use assent_proto::{
    Action, Address, Author, Body, BodyId, CommitCertificate, Height, SecretKey, TimeMs, VerifiedTx,
};
use assent_replica::{Fault, Input, Output, PeerMessage, Replica};
use bytes::Bytes;

use super::byzantine::{Behaviour, Liar};
use super::disk::{Disk, Unsynced};
use super::invariants::Watch;
use super::machine::Machine;
use super::network::{Network, Trouble, Weather};
use super::workload::Step;
use super::{Founding, Random};

/// How long a client waits for what its transaction builds on, and for its being final, ms.
const CLIENT_LOOKS_MS: u64 = 300;
const CLIENT_PATIENCE_MS: u64 = 3_000;

/// What is going to happen.
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Bytes,
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
        ahead_ms: u64,
    },
    Heal,
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
    /// What clients handed in or will.
    pub submitted: BTreeSet<BodyId>,
    machines: Vec<Machine>,
    queue: BTreeMap<(TimeMs, u64), Event>,
    sequence: u64,
    trace: blake3::Hasher,
    seed: u64,
    founding: Founding,
    fresh: Vec<bool>,
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
            watch: Watch::new(n),
            random: Random::new(seed),
            blocks_sent: 0,
            came_back: BTreeMap::new(),
            misbehaved: BTreeSet::new(),
            submitted: BTreeSet::new(),
            machines: founding.keys.iter().map(|k| Machine::new(k.clone())).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            trace: blake3::Hasher::new(),
            seed,
            founding,
            fresh: vec![true; n],
        }
    }

    // ---- what happens to whom

    /// Makes a validator a liar, before it is switched on.
    pub fn corrupt(&mut self, at: usize, behaviour: Behaviour) {
        self.machines[at].liar = Some(Liar::new(behaviour, &self.founding, at));
    }

    /// Switches all machines on.
    pub fn start_all(&mut self) {
        (0..self.machines.len()).for_each(|at| self.start(at));
    }

    /// Hands a workload to its clients, who do not give up.
    pub fn employ(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.submitted.insert(step.tx.body_id());
            self.after(step.at_ms, Event::Client(Box::new(step)));
        }
    }

    /// A client that does not give up hands a transaction to a validator, later to another, until it is final.
    pub fn submit_in(&mut self, ms: u64, tx: VerifiedTx) {
        self.employ(vec![Step { tx, needs: Vec::new(), at_ms: ms }]);
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

    /// Sets a machine's clock ahead.
    pub fn skew_in(&mut self, ms: u64, at: usize, ahead_ms: u64) {
        self.after(ms, Event::Skew { at, ahead_ms });
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
        let genesis = self.genesis.hash();
        let body = Body {
            chain: genesis.tag(),
            expires_at: self.now.plus(300_000),
            author: Author::Institution(institutions[0].id),
            action: Action::Enrol(enrol),
        };
        let bytes = Envelope::sign(&genesis, &body, &[&self.operators[0], &key]).encode();
        verify(&genesis, &[bytes]).remove(0).expect("signed above")
    }

    // ---- running

    /// Lets time pass until `done`; an error after so much virtual time, or when something must not be.
    pub fn run(&mut self, most_ms: u64, what: &str, done: impl Fn(&Sim) -> bool) -> Result<(), String> {
        let end = self.now.plus(most_ms);
        while !done(self) {
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

    /// The machines that do not lie.
    pub fn correct(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|at| self.machines[*at].liar.is_none()).collect()
    }

    /// How often liars lied.
    pub fn lies(&self) -> u64 {
        self.machines.iter().filter_map(|m| m.liar.as_ref()).map(|l| l.lies).sum()
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
            && self.submitted.iter().all(|b| self.watch.is_final(b))
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
        let genesis = self.genesis.hash();
        for at in self.correct() {
            self.watch.check_disk(at, &genesis, self.machines[at].disk());
        }
        let liars = self.machines.iter().zip(&self.addresses).filter(|(m, _)| m.liar.is_some());
        let liars: BTreeSet<_> = liars.map(|(_, address)| *address).collect();
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
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
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
            Event::Heal => {
                self.note(b'h', 0, &[]);
                self.network.heal();
                (0..self.machines.len()).for_each(|at| self.machines[at].ahead_ms = 0);
                self.start_all();
            }
        }
    }

    fn client(&mut self, step: Box<Step>) {
        if self.watch.is_final(&step.tx.body_id()) {
            return;
        }
        if !step.needs.iter().all(|need| self.watch.is_final(need)) {
            return self.after(CLIENT_LOOKS_MS, Event::Client(step));
        }
        let at = self.random.below(self.machines.len() as u64) as usize;
        self.note(b's', at, step.tx.envelope_id().as_bytes());
        self.step(at, Input::Transactions { txs: vec![step.tx.clone()], gossip: true });
        self.after(CLIENT_PATIENCE_MS, Event::Client(step));
    }

    /// What the node does: decodes, and verifies transactions before it hands them in.
    fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes) {
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
        let input = match message {
            PeerMessage::Transactions(envelopes) if honest => {
                let verdicts = verify(&self.genesis.hash(), &envelopes);
                if verdicts.iter().any(Result::is_err) {
                    self.watch.violated(format!("machine {from} passed on an unsigned transaction"));
                }
                Input::Transactions { txs: verdicts.into_iter().flatten().collect(), gossip: false }
            }
            message => Input::Peer { from: self.addresses[from], message },
        };
        self.step(to, input);
    }

    fn step(&mut self, at: usize, input: Input) {
        if let Some(result) = self.machines[at].step(self.now, input) {
            self.stepped(at, result);
        }
    }

    fn stepped(&mut self, at: usize, result: Result<Vec<Output>, Fault>) {
        match result {
            Ok(outputs) if self.machines[at].liar.is_some() => self.lie(at, outputs),
            Ok(outputs) => outputs.into_iter().for_each(|o| self.output(at, o)),
            Err(Fault::Storage(fault)) if Disk::is_power_cut(&fault) => self.stop(at),
            // Its own lies may make it stop; that is no one's loss.
            Err(_) if self.machines[at].liar.is_some() => self.machines[at].discard(),
            Err(fault) => self.watch.violated(format!("machine {at} stopped: {fault}")),
        }
    }

    fn lie(&mut self, at: usize, outputs: Vec<Output>) {
        let Some(mut liar) = self.machines[at].liar.take() else { return };
        let letters = liar.speak(outputs, self.machines[at].replica(), &mut self.random);
        self.machines[at].liar = Some(liar);
        letters.into_iter().for_each(|(to, bytes)| self.send(at, to, &bytes));
    }

    fn output(&mut self, at: usize, output: Output) {
        match output {
            Output::Broadcast(message) => {
                self.watch.says(&self.addresses[at], &message);
                let bytes = message.encode();
                for to in (0..self.machines.len()).filter(|to| *to != at) {
                    self.send(at, to, &bytes);
                }
            }
            Output::Send { to, message } => {
                self.watch.says(&self.addresses[at], &message);
                self.blocks_sent += matches!(message, PeerMessage::Blocks(_)) as u64;
                match self.addresses.iter().position(|a| *a == to) {
                    Some(to) => self.send(at, to, &message.encode()),
                    None => self.watch.violated(format!("machine {at} speaks to a stranger, {to}")),
                }
            }
            Output::Committed(commit, state) => {
                self.note(b'f', at, &commit.block_id().0.0);
                if state.root() != commit.state_root() {
                    self.watch.violated(format!("machine {at} shows a state that is not the header's"));
                }
                self.watch.committed(at, &commit);
            }
            Output::Refused { .. } => {}
            Output::Misbehaved { peer, what } => {
                self.misbehaved.insert((peer, what));
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: &Bytes) {
        for ms in self.network.ways(self.now, from, to, &mut self.random) {
            self.after(ms, Event::Deliver { from, to, bytes: bytes.clone() });
        }
    }

    /// The power goes, if it is on.
    pub fn stop(&mut self, at: usize) {
        if self.machines[at].stop(&mut self.random) {
            self.note(b'p', at, &[]);
            self.tell_others(at, Input::PeerDown(self.addresses[at]));
        }
    }

    /// The power comes, if it is off.
    pub fn start(&mut self, at: usize) {
        // Before it opens: a vote log may hold a decision that opening commits, and tells.
        if self.machines[at].liar.is_none() && self.machines[at].replica().is_none() {
            let disk = self.machines[at].disk();
            self.watch.restarted(at, disk);
            if !std::mem::replace(&mut self.fresh[at], false) {
                self.came_back.insert(at, disk.height());
            }
        }
        let Some(result) = self.machines[at].start(self.now, &self.genesis) else { return };
        self.note(b'u', at, &[]);
        self.stepped(at, result);
        self.tell_others(at, Input::PeerUp(self.addresses[at]));
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            if self.machines[other].replica().is_some() {
                self.step(at, Input::PeerUp(self.addresses[other]));
            }
        }
    }

    fn tell_others(&mut self, at: usize, input: Input) {
        (0..self.machines.len()).filter(|o| *o != at).for_each(|other| self.step(other, input.clone()));
    }

    fn describe(&self) -> String {
        let state = |(at, m): (usize, &Machine)| {
            let role = m.liar.as_ref().map_or("correct".into(), |l| format!("{:?}", l.behaviour()));
            match m.replica() {
                Some(r) => format!("  {at} ({role}): {:?} wake {:?}\n", r.status(), r.next_wake()),
                None => format!("  {at} ({role}): off\n"),
            }
        };
        let machines: String = self.machines.iter().enumerate().map(state).collect();
        let open = self.submitted.iter().filter(|b| !self.watch.is_final(b)).count();
        format!(
            "{} ms after the start, {open} of {} transactions open\n{machines}came back: {:?}, blamed: {:?}",
            self.now.0 - self.genesis.time().0 - 60_000,
            self.submitted.len(),
            self.came_back,
            self.misbehaved
        )
    }
}
