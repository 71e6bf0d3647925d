//! Validators in one process under a virtual clock: the very replica that the node runs, over disks that lose
//! power and a network that loses, delays, reorders and repeats. Everything follows from a seed.

#![allow(dead_code, missing_docs, unreachable_pub)] // each test file uses its part

pub mod disk;

use std::collections::{BTreeMap, BTreeSet};

use assent_genesis::Genesis;
use assent_ledger::testing::{digest, secret};
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::transaction::Enrol;
use assent_proto::*;
use assent_replica::{Fault, Input, Output, PeerMessage, Replica};
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use disk::Disk;

/// How the network treats messages.
#[derive(Clone, Copy)]
pub struct Weather {
    /// Of 1000 messages, so many are lost.
    pub lost: u64,
    /// Of 1000 messages, so many come twice.
    pub repeated: u64,
    /// Longest way, ms; the way of each message is drawn, so that they overtake each other.
    pub way_ms: u64,
}

impl Weather {
    pub const FAIR: Weather = Weather { lost: 0, repeated: 0, way_ms: 5 };
    pub const FOUL: Weather = Weather { lost: 80, repeated: 30, way_ms: 60 };
}

/// What is going to happen.
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    Submit {
        tx: VerifiedTx,
        at: usize,
    },
    CutPower {
        at: usize,
        writes: u64,
    },
    Start {
        at: usize,
    },
    /// A client looks whether its transaction is final, and hands it to another validator if not.
    Look {
        tx: VerifiedTx,
    },
}

/// A machine that is on, or what is left of one that is off.
#[allow(clippy::large_enum_variant)] // never held in numbers
enum Machine {
    On(Box<Replica<Disk>>),
    Off(Disk),
    /// Taken apart for a moment.
    Gone,
}

/// A network of validators.
pub struct Sim {
    pub genesis: Genesis,
    pub keys: Vec<SecretKey>,
    pub operators: Vec<SecretKey>,
    pub addresses: Vec<Address>,
    pub now: TimeMs,
    pub weather: Weather,
    /// How far each machine's clock is ahead, ms.
    pub skew: Vec<u64>,
    /// Machines that were never switched on.
    fresh: Vec<bool>,
    machines: Vec<Machine>,
    queue: BTreeMap<(TimeMs, u64), Event>,
    sequence: u64,
    rng: ChaCha20Rng,
    trace: blake3::Hasher,
    /// What each machine has told to have committed: height to block.
    pub told: Vec<BTreeMap<Height, BlockId>>,
    pub submitted: BTreeSet<BodyId>,
    pub misbehaved: Vec<String>,
    pub refused: Vec<(BodyId, Invalid)>,
    /// Heights at which each machine came back.
    pub came_back: BTreeMap<usize, Height>,
    pub blocks_sent: u64,
    seed: u64,
}

impl Sim {
    /// Four validators, switched on.
    pub fn new(seed: u64, weather: Weather) -> Sim {
        let (genesis, keys, operators) = assent_genesis::testing::four();
        let n = keys.len();
        let mut sim = Sim {
            addresses: genesis.validators().validators.iter().map(|v| v.address()).collect(),
            now: genesis.time().plus(60_000),
            genesis,
            keys,
            operators,
            weather,
            skew: vec![0; n],
            fresh: vec![true; n],
            machines: (0..n).map(|_| Machine::Off(Disk::default())).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng: ChaCha20Rng::seed_from_u64(seed),
            trace: blake3::Hasher::new(),
            told: vec![BTreeMap::new(); n],
            submitted: BTreeSet::new(),
            misbehaved: Vec::new(),
            refused: Vec::new(),
            came_back: BTreeMap::new(),
            blocks_sent: 0,
            seed,
        };
        (0..n).for_each(|at| sim.start(at));
        sim
    }

    /// A number below `n`.
    pub fn draw(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
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

    /// A client that does not give up: hands the transaction to a validator, later to another, until it is
    /// final.
    pub fn submit_in(&mut self, ms: u64, tx: VerifiedTx) {
        self.submitted.insert(tx.body_id());
        let at = self.draw(self.machines.len() as u64) as usize;
        self.after(ms, Event::Submit { tx: tx.clone(), at });
        self.after(ms + 4_000, Event::Look { tx });
    }

    /// Cuts a machine's power at some write from then on.
    pub fn cut_power_in(&mut self, ms: u64, at: usize, writes: u64) {
        self.after(ms, Event::CutPower { at, writes });
    }

    /// Switches a machine on.
    pub fn start_in(&mut self, ms: u64, at: usize) {
        self.after(ms, Event::Start { at });
    }

    /// Lets time pass until `done`, or fails with the seed after so much virtual time.
    pub fn run_until(&mut self, most_ms: u64, what: &str, done: impl Fn(&Sim) -> bool) {
        let end = self.now.plus(most_ms);
        while !done(self) {
            let (event, wake) = (self.queue.keys().next().map(|(t, _)| *t), self.next_wake());
            let next =
                event.into_iter().chain(wake.map(|(t, _)| t)).min().expect("validators never stop to wake");
            assert!(next <= end, "seed {}: {what}: not after {most_ms} ms\n{}", self.seed, self.describe());
            self.now = self.now.max(next);
            match wake {
                Some((t, at)) if event.is_none_or(|e| t < e) => self.step(at, Input::Wake),
                _ => {
                    let (_, event) = self.queue.pop_first().expect("peeked above");
                    self.happen(event);
                }
            }
        }
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

    /// A machine's disk, whether it is on or off.
    pub fn disk(&mut self, at: usize) -> &Disk {
        match &mut self.machines[at] {
            Machine::On(replica) => replica.storage(),
            Machine::Off(disk) => disk,
            Machine::Gone => unreachable!("only within one event"),
        }
    }

    pub fn replica(&self, at: usize) -> Option<&Replica<Disk>> {
        match &self.machines[at] {
            Machine::On(replica) => Some(replica),
            _ => None,
        }
    }

    /// The newest height that a machine has told of.
    pub fn height(&self, at: usize) -> Height {
        self.told[at].keys().next_back().copied().unwrap_or_default()
    }

    pub fn heights(&self) -> Vec<Height> {
        (0..self.machines.len()).map(|at| self.height(at)).collect()
    }

    /// Whether everything handed in is final at every machine, and all are on.
    pub fn all_final(&self) -> bool {
        self.machines.iter().all(|m| match m {
            Machine::On(replica) => {
                self.submitted.iter().all(|b| replica.state().get(&AccountId(b.0).into()).is_some())
            }
            _ => false,
        })
    }

    fn next_wake(&self) -> Option<(TimeMs, usize)> {
        let wake = |(at, m): (usize, &Machine)| match m {
            Machine::On(r) => r.next_wake().map(|t| (TimeMs(t.0.saturating_sub(self.skew[at])), at)),
            _ => None,
        };
        self.machines.iter().enumerate().filter_map(wake).min()
    }

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
            Event::Submit { tx, at } => self.submit(at, tx),
            Event::Look { tx } => {
                let account = AccountId(tx.body_id().0).into();
                if !self
                    .machines
                    .iter()
                    .any(|m| matches!(m, Machine::On(r) if r.state().get(&account).is_some()))
                {
                    let at = self.draw(self.machines.len() as u64) as usize;
                    self.submit(at, tx.clone());
                    self.after(4_000, Event::Look { tx });
                }
            }
            Event::CutPower { at, writes } => {
                self.note(b'c', at, &[]);
                if let Machine::On(replica) = &mut self.machines[at] {
                    replica.storage().cut_power_after(writes);
                }
            }
            Event::Start { at } => {
                // A machine whose power did not go at a write goes now.
                self.stop(at);
                self.start(at);
            }
        }
    }

    fn submit(&mut self, at: usize, tx: VerifiedTx) {
        self.note(b's', at, tx.envelope_id().as_bytes());
        self.step(at, Input::Transactions { txs: vec![tx], gossip: true });
    }

    /// What the node does: decodes, and verifies transactions before it hands them in.
    fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes) {
        self.note(b'd', to, blake3::hash(bytes).as_bytes());
        let message = PeerMessage::decode(bytes).expect("what a replica encodes decodes");
        let input = match message {
            PeerMessage::Transactions(envelopes) => {
                let verdicts = verify(&self.genesis.hash(), &envelopes);
                Input::Transactions {
                    txs: verdicts.into_iter().map(|v| v.expect("gossiped")).collect(),
                    gossip: false,
                }
            }
            message => Input::Peer { from: self.addresses[from], message },
        };
        self.step(to, input);
    }

    fn step(&mut self, at: usize, input: Input) {
        let now = self.now.plus(self.skew[at]);
        let Machine::On(replica) = &mut self.machines[at] else { return };
        match replica.step(now, input) {
            Ok(outputs) => outputs.into_iter().for_each(|o| self.output(at, o)),
            Err(Fault::Storage(fault)) if Disk::is_power_cut(&fault) => self.stop(at),
            Err(fault) => panic!("seed {}: machine {at} stopped: {fault}\n{}", self.seed, self.describe()),
        }
    }

    fn output(&mut self, at: usize, output: Output) {
        match output {
            Output::Broadcast(message) => {
                let bytes = message.encode();
                let others = (0..self.machines.len()).filter(|to| *to != at);
                others.collect::<Vec<_>>().into_iter().for_each(|to| self.send(at, to, &bytes));
            }
            Output::Send { to, message } => {
                self.blocks_sent += matches!(message, PeerMessage::Blocks(_)) as u64;
                let to =
                    self.addresses.iter().position(|a| *a == to).expect("replicas know validators alone");
                self.send(at, to, &message.encode());
            }
            Output::Committed(commit, state) => {
                assert_eq!(state.root(), commit.state_root());
                self.note(b'f', at, commit.block_id().0.as_bytes());
                let before = self.told[at].insert(commit.height(), commit.block_id());
                assert!(before.is_none(), "seed {}: a height is told once", self.seed);
            }
            Output::Refused { body, reason } => self.refused.push((body, reason)),
            Output::Misbehaved { peer, what } => self.misbehaved.push(format!("{at} of {peer}: {what}")),
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let Weather { lost, repeated, way_ms } = self.weather;
        if self.draw(1000) < lost {
            return;
        }
        let copies = if self.draw(1000) < repeated { 2 } else { 1 };
        for _ in 0..copies {
            let ms = 1 + self.draw(way_ms);
            self.after(ms, Event::Deliver { from, to, bytes: bytes.clone() });
        }
    }

    /// The power goes, if it is on.
    pub fn stop(&mut self, at: usize) {
        match std::mem::replace(&mut self.machines[at], Machine::Gone) {
            Machine::On(replica) => {
                self.machines[at] = Machine::Off(replica.into_storage().after_power_cut());
                self.note(b'p', at, &[]);
                self.tell_others(at, Input::PeerDown(self.addresses[at]));
            }
            off => self.machines[at] = off,
        }
    }

    /// The power comes, if it is off.
    pub fn start(&mut self, at: usize) {
        let disk = match std::mem::replace(&mut self.machines[at], Machine::Gone) {
            Machine::Off(disk) => disk,
            on => {
                self.machines[at] = on;
                return;
            }
        };
        self.note(b'u', at, &[]);
        if !std::mem::replace(&mut self.fresh[at], false) {
            self.came_back.insert(at, disk.height());
            // A block that was stored when the power went was perhaps never told.
            self.told[at] = disk.blocks.keys().map(|h| (*h, disk.at(*h).expect("stored").0)).collect();
        }
        let (now, key) = (self.now.plus(self.skew[at]), self.keys[at].clone());
        let opened = Replica::open(now, self.genesis.clone(), Some(key), disk);
        let (replica, outputs) =
            opened.unwrap_or_else(|f| panic!("seed {}: {at} does not start: {f}", self.seed));
        self.machines[at] = Machine::On(Box::new(replica));
        outputs.into_iter().for_each(|o| self.output(at, o));
        self.tell_others(at, Input::PeerUp(self.addresses[at]));
        for other in 0..self.machines.len() {
            if other != at && matches!(self.machines[other], Machine::On(_)) {
                self.step(at, Input::PeerUp(self.addresses[other]));
            }
        }
    }

    fn tell_others(&mut self, at: usize, input: Input) {
        (0..self.machines.len()).filter(|o| *o != at).for_each(|other| self.step(other, input.clone()));
    }

    /// Fails unless the machines hold one chain with every transaction in it once.
    pub fn check_agreement(&mut self) {
        let seed = self.seed;
        let heights: Vec<_> = (0..self.machines.len()).map(|at| self.disk(at).height()).collect();
        let lowest = *heights.iter().min().expect("four machines");
        for h in 1..=lowest.0 {
            let all: BTreeSet<_> =
                (0..heights.len()).map(|at| self.disk(at).at(Height(h)).expect("stored")).collect();
            assert_eq!(all.len(), 1, "seed {seed}: two blocks at height {h}");
        }
        for (at, height) in heights.iter().enumerate() {
            let genesis = self.genesis.hash();
            let disk = self.disk(at);
            let mut times = BTreeMap::<BodyId, u32>::new();
            for h in 1..=height.0 {
                let block = disk.read(Height(h)).expect("stored");
                for tx in verify(&genesis, &block.transactions) {
                    *times.entry(tx.expect("committed").body_id()).or_default() += 1;
                }
            }
            let stored = assent_ledger::State::from_leaves(disk.leaves.values().cloned()).root();
            assert_eq!(
                Some(stored),
                disk.at(*height).map(|(_, root)| root),
                "seed {seed}: the leaves are the state"
            );
            let once = self.submitted.iter().map(|b| (*b, 1)).collect();
            assert_eq!(times, once, "seed {seed}: machine {at}: every transaction once and no other");
        }
        assert_eq!(self.misbehaved, [""; 0], "seed {seed}: nobody misbehaved");
    }

    /// Whether a machine's precommit is in a certificate above a height.
    pub fn has_voted_above(&self, at: usize, height: Height) -> bool {
        let Some(voter) = self.genesis.validators().by_address(&self.addresses[at]).map(|(i, _)| i) else {
            return false;
        };
        self.machines.iter().any(|m| match m {
            // Certificates stand in the blocks that other machines have stored.
            Machine::On(replica) => replica_blocks(replica)
                .range(height.next()..)
                .any(|(_, (_, c))| c.signatures.iter().any(|s| s.validator == voter)),
            _ => false,
        })
    }

    fn describe(&self) -> String {
        let state = |(at, m): (usize, &Machine)| match m {
            Machine::On(r) => format!("  {at}: {:?} wake {:?}\n", r.status(), r.next_wake()),
            _ => format!("  {at}: off\n"),
        };
        let machines: String = self.machines.iter().enumerate().map(state).collect();
        let signers: Vec<_> = self
            .machines
            .iter()
            .find_map(|m| match m {
                Machine::On(r) => Some(
                    replica_blocks(r)
                        .values()
                        .map(|(_, c)| c.signatures.iter().map(|s| s.validator).collect::<Vec<_>>())
                        .collect(),
                ),
                _ => None,
            })
            .unwrap_or_default();
        format!(
            "at {}\n{machines}came back: {:?}, refused: {:?}, misbehaved: {:?}\nsigners: {signers:?}",
            self.now, self.came_back, self.refused, self.misbehaved
        )
    }
}

fn replica_blocks(replica: &Replica<Disk>) -> &BTreeMap<Height, (Bytes, CommitCertificate)> {
    &replica.storage_ref().blocks
}

/// A name that is a hash, for things that need one.
pub fn named(name: &str) -> Hash {
    digest(name)
}
