//! Catching up, joining by a whole state, filling in what is older, and parting from the chain: real replicas
//! over disks in memory, with peers that lie, stall, flood and go away. Everything follows from the code alone.

#![allow(clippy::unwrap_used)] // the helpers of a test fail as the test does

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use assent_proto::field::Message;
use assent_proto::state::Institution;
use assent_proto::*;
use assent_replica::{Fault, Input, Output, PeerMessage, Replica, SnapshotRule, Storage};
use assent_tests::sim::disk::{Disk, Rot, Unsynced};
use assent_tests::sim::{Random, Sim, Weather};

/// What becomes of a message on its way: what arrives, each after so many ms.
type Way = Box<dyn FnMut(usize, usize, PeerMessage) -> Vec<(u64, PeerMessage)>>;

const NEWCOMER: usize = 3;
/// States are wanted early and offered often, in many parts.
const EAGER: SnapshotRule = SnapshotRule { every: 1, behind: 8, part_leaves: 2 };
/// No states, whatever happens.
const NEVER: SnapshotRule = SnapshotRule { every: u64::MAX, behind: u64::MAX, part_leaves: 64 };

/// Four validators: three that hold a chain, and one that has yet to get it.
struct Net {
    sim: Sim,
    now: TimeMs,
    replicas: Vec<Option<Replica<Disk>>>,
    letters: BTreeMap<(TimeMs, u64), (usize, usize, PeerMessage)>,
    sequence: u64,
    way: Way,
    rule: SnapshotRule,
    faults: BTreeMap<usize, Fault>,
    /// The disks of those that stopped themselves.
    stopped: BTreeMap<usize, Disk>,
    blamed: BTreeSet<(usize, usize)>,
    joined: BTreeMap<usize, Vec<Height>>,
    /// Questions for blocks: who, whom, from, to.
    asked: Vec<(usize, usize, u64, u64)>,
    enrolled: u64,
}

fn straight(_: usize, _: usize, message: PeerMessage) -> Vec<(u64, PeerMessage)> {
    vec![(5, message)]
}

/// The disks of three validators after so many enrolments, and when that was; made once.
fn chain(enrolments: u64) -> (TimeMs, Vec<Disk>) {
    static CHAINS: Mutex<BTreeMap<u64, (TimeMs, Vec<Disk>)>> = Mutex::new(BTreeMap::new());
    let mut chains = CHAINS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut sim = Sim::new(1, Weather::FAIR);
        for n in 0..enrolments {
            let tx = sim.enrolment(&format!("person {n}"));
            sim.submit_in(n * 100, tx);
        }
        sim.run_until(120_000, "all are enrolled", |sim| sim.all_final());
        (sim.now, (0..3).map(|at| sim.disk(at).clone()).collect())
    };
    chains.entry(enrolments).or_insert_with(make).clone()
}

impl Net {
    /// The chain of so many enrolments, and a newcomer with an empty disk.
    fn new(enrolments: u64, rule: SnapshotRule, way: Way) -> Net {
        let (now, disks) = chain(enrolments);
        let mut net = Net {
            now,
            sim: Sim::new(1, Weather::FAIR),
            replicas: (0..4).map(|_| None).collect(),
            letters: BTreeMap::new(),
            sequence: 0,
            way,
            rule,
            faults: BTreeMap::new(),
            stopped: BTreeMap::new(),
            blamed: BTreeSet::new(),
            joined: BTreeMap::new(),
            asked: Vec::new(),
            enrolled: enrolments,
        };
        disks.into_iter().enumerate().for_each(|(at, disk)| net.start(at, disk));
        net.start(NEWCOMER, Disk::default());
        net
    }

    fn start(&mut self, at: usize, disk: Disk) {
        let key = Some(self.sim.keys[at].clone());
        match Replica::open(self.now, self.sim.genesis.clone(), key, disk) {
            Ok((mut replica, outputs)) => {
                replica.set_snapshot_rule(self.rule);
                self.replicas[at] = Some(replica);
                self.tell(at, outputs);
            }
            Err(fault) => {
                self.faults.insert(at, fault);
                return;
            }
        }
        for other in (0..4).filter(|o| *o != at) {
            if self.replicas[other].is_some() {
                self.step(other, Input::PeerUp(self.sim.addresses[at]));
                self.step(at, Input::PeerUp(self.sim.addresses[other]));
            }
        }
    }

    fn stop(&mut self, at: usize) -> Disk {
        let replica = self.replicas[at].take().unwrap();
        for other in (0..4).filter(|o| *o != at) {
            self.step(other, Input::PeerDown(self.sim.addresses[at]));
        }
        replica.into_storage()
    }

    fn step(&mut self, at: usize, input: Input) {
        let Some(replica) = &mut self.replicas[at] else { return };
        match replica.step(self.now, input) {
            Ok(outputs) => self.tell(at, outputs),
            Err(fault) => {
                self.faults.insert(at, fault);
                let disk = self.stop(at);
                self.stopped.insert(at, disk);
            }
        }
    }

    fn tell(&mut self, at: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Broadcast(message) => {
                    (0..4).filter(|to| *to != at).for_each(|to| self.send(at, to, message.clone()));
                }
                Output::Send { to, message } => {
                    let to = self.sim.addresses.iter().position(|a| *a == to).unwrap();
                    if let PeerMessage::CatchUp { from, to: last } = &message {
                        self.asked.push((at, to, from.0, last.0));
                    }
                    self.send(at, to, message);
                }
                Output::Misbehaved { peer, .. } => {
                    let peer = self.sim.addresses.iter().position(|a| *a == peer).unwrap();
                    self.blamed.insert((at, peer));
                }
                Output::Joined(certified, state) => {
                    assert_eq!(state.root(), certified.header.state_root);
                    self.joined.entry(at).or_default().push(certified.header.height);
                }
                Output::Committed(commit, state) => assert_eq!(state.root(), commit.state_root()),
                Output::Refused { .. } | Output::Dropped { .. } | Output::Equivocation(_) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        for (ms, message) in (self.way)(from, to, message) {
            self.sequence += 1;
            // What cannot be decoded was never sent.
            let message = PeerMessage::decode(&message.encode()).unwrap();
            self.letters.insert((self.now.plus(ms), self.sequence), (from, to, message));
        }
    }

    /// Runs until `done`, or fails after so much virtual time.
    fn run(&mut self, most_ms: u64, what: &str, done: impl Fn(&Net) -> bool) {
        let end = self.now.plus(most_ms);
        while !done(self) {
            let wakes = self.replicas.iter().enumerate();
            let wakes = wakes.filter_map(|(at, r)| Some((r.as_ref()?.next_wake()?, at)));
            let wake = wakes.min();
            let letter = self.letters.keys().next().map(|(t, _)| *t);
            let next = wake.map(|(t, _)| t).into_iter().chain(letter).min().unwrap();
            assert!(next <= end, "{what}: not after {most_ms} ms\n{}", self.describe());
            // A machine is not woken more often than once in a millisecond.
            self.now = self.now.max(next);
            match wake {
                Some((t, at)) if letter.is_none_or(|l| t < l) => {
                    self.step(at, Input::Wake);
                    if self.replica_wake(at).is_some_and(|w| w <= self.now) {
                        self.now = self.now.plus(1);
                    }
                }
                _ => {
                    let (_, (from, to, message)) = self.letters.pop_first().unwrap();
                    self.deliver(from, to, message);
                }
            }
        }
    }

    fn replica_wake(&self, at: usize) -> Option<TimeMs> {
        self.replicas[at].as_ref()?.next_wake()
    }

    fn deliver(&mut self, from: usize, to: usize, message: PeerMessage) {
        let from = self.sim.addresses[from];
        self.step(to, Input::Peer { from, message });
    }

    fn describe(&self) -> String {
        let state = |(at, r): (usize, &Option<Replica<Disk>>)| match r {
            Some(r) => format!("{at}: {:?} {:?} wake {:?}\n", r.status(), r.progress(), r.next_wake()),
            None => format!("{at}: off, {:?}\n", self.faults.get(&at)),
        };
        let replicas: String = self.replicas.iter().enumerate().map(state).collect();
        format!("{replicas}now {:?}, blamed {:?}, joined {:?}", self.now, self.blamed, self.joined)
    }

    fn replica(&self, at: usize) -> &Replica<Disk> {
        self.replicas[at].as_ref().unwrap_or_else(|| panic!("{}", self.describe()))
    }

    fn height(&self, at: usize) -> u64 {
        self.replicas[at].as_ref().map_or(0, |r| r.status().height.0)
    }

    fn in_step(&self) -> bool {
        self.height(NEWCOMER) >= self.height(0) && self.height(0) == self.height(1)
    }

    fn complete(&self) -> bool {
        self.in_step() && self.replica(NEWCOMER).progress().missing == 0
    }

    /// One more person is enrolled, through server 0.
    fn enrol(&mut self) -> VerifiedTx {
        self.enrolled += 1;
        self.sim.now = self.now;
        let tx = self.sim.enrolment(&format!("person {}", self.enrolled));
        self.step(0, Input::Transactions { txs: vec![tx.clone()], gossip: true });
        tx
    }

    /// A block more on the servers, so that they hold a state for others.
    fn one_more_block(&mut self) {
        let before = self.height(0);
        self.enrol();
        self.run(60_000, "a block more", |net| (0..3).all(|at| net.height(at) > before));
    }

    fn blamed_by_newcomer(&self) -> Vec<usize> {
        self.blamed.iter().filter(|(by, _)| *by == NEWCOMER).map(|(_, peer)| *peer).collect()
    }

    /// The newcomer holds what the others hold: blocks, and what came of them.
    fn same_disks(&self) {
        let (ours, theirs) = (self.replica(NEWCOMER).storage_ref(), self.replica(0).storage_ref());
        let height = ours.height().min(theirs.height());
        for h in (1..=height.0).map(Height) {
            assert_eq!(ours.blocks[&h].0, theirs.blocks[&h].0, "block {h:?}");
            assert_eq!(ours.outcomes[&h], theirs.outcomes[&h], "what came of block {h:?}");
        }
        if ours.height() == theirs.height() {
            assert_eq!(ours.leaves, theirs.leaves);
        }
        assert_eq!(ours.links, theirs.links);
        assert!(ours.gaps.is_empty() && ours.staged.is_none());
    }
}

// ---- blocks from several peers

#[test]
fn several_peers_are_asked_for_different_blocks_at_once() {
    let mut net = Net::new(100, NEVER, Box::new(straight));
    let last = net.height(0);
    assert!(last > 80, "the chain is long enough to be divided: {last}");
    net.run(60_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    assert!(net.blamed.is_empty());
    // Before the first answer came, three peers had been asked, each for other blocks.
    let first: Vec<_> = net.asked.iter().filter(|q| q.0 == NEWCOMER).take(3).collect();
    assert_eq!(first.iter().map(|q| q.1).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
    assert!(first.iter().map(|q| (q.2, q.3)).is_sorted_by(|a, b| a.1 < b.0), "{first:?}");
    let progress = net.replica(NEWCOMER).progress();
    assert_eq!((progress.asked, progress.waiting, progress.waiting_bytes), (0, 0, 0));
    assert_eq!(progress.height, progress.target);
}

/// Server 0 never answers the newcomer.
fn blocks_of_0_are_lost(from: usize, to: usize, message: PeerMessage) -> Vec<(u64, PeerMessage)> {
    let lost = from == 0 && to == NEWCOMER && matches!(message, PeerMessage::Blocks(_));
    if lost { Vec::new() } else { vec![(5, message)] }
}

#[test]
fn blocks_wait_for_those_below_them() {
    // Server 0 is slow: what it is asked for is the lowest, and comes last.
    let way = |from: usize, _: usize, m: PeerMessage| {
        let slow = from == 0 && matches!(m, PeerMessage::Blocks(_));
        vec![(if slow { 1_500 } else { 5 }, m)]
    };
    let mut net = Net::new(100, NEVER, Box::new(way));
    net.run(60_000, "blocks wait", |net| net.replica(NEWCOMER).progress().waiting > 30);
    net.run(60_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    assert!(net.blamed.is_empty());
}

#[test]
fn who_stalls_is_passed_over_and_not_blamed() {
    let mut net = Net::new(100, NEVER, Box::new(blocks_of_0_are_lost));
    net.run(60_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    assert!(net.blamed.is_empty());
    let again = net.asked.iter().filter(|q| q.0 == NEWCOMER && q.1 == 0).count();
    assert!(again <= 3, "who does not answer is asked rarely, not {again} times");
}

#[test]
fn who_lies_is_blamed_and_nothing_of_it_is_kept() {
    type Lie = fn(&mut Vec<(bytes::Bytes, CommitCertificate)>);
    let lies: [(&str, Lie); 5] = [
        ("a forged signature in the middle", |b| {
            let at = b.len() / 2;
            let mut signatures = b[at].1.signatures.clone().into_vec();
            signatures[0].signature.0[3] ^= 1;
            b[at].1.signatures = signatures.try_into().unwrap();
        }),
        ("another block's body", |b| b[0].0 = b[1].0.clone()),
        ("a block left out", |b| {
            b.remove(1);
        }),
        ("more than asked for", |b| {
            let mut more = b.last().unwrap().clone();
            while b.len() < 40 {
                more.1.height = more.1.height.next();
                b.push(more.clone());
            }
        }),
        ("too few signatures", |b| {
            let signatures = b[0].1.signatures.iter().take(2).cloned().collect::<Vec<_>>();
            b[0].1.signatures = signatures.try_into().unwrap();
        }),
    ];
    for (what, lie) in lies {
        let way = move |from: usize, to: usize, m: PeerMessage| match m {
            PeerMessage::Blocks(mut b) if from == 1 && to == NEWCOMER && b.len() > 1 => {
                lie(&mut b);
                vec![(5, PeerMessage::Blocks(b))]
            }
            m => vec![(5, m)],
        };
        let mut net = Net::new(100, NEVER, Box::new(way));
        net.run(60_000, what, Net::in_step);
        assert_eq!(net.blamed_by_newcomer(), [1], "{what}");
        net.same_disks();
    }
}

#[test]
fn a_flood_is_bounded_blamed_and_survived() {
    let way = |from: usize, to: usize, m: PeerMessage| match m {
        PeerMessage::Blocks(_) if from == 2 && to == NEWCOMER => {
            (0..60).map(|n| (5 + n, m.clone())).collect()
        }
        m => vec![(5, m)],
    };
    let mut net = Net::new(100, NEVER, Box::new(way));
    let most = 64 << 20;
    net.run(60_000, "the newcomer is in step", move |net| {
        assert!(net.replica(NEWCOMER).progress().waiting_bytes <= most);
        net.in_step() && net.blamed_by_newcomer() == [2]
    });
    net.same_disks();
}

#[test]
fn an_answer_that_comes_again_later_is_no_lie() {
    // The copy comes while the next question to the same peer is open.
    let way = |_: usize, _: usize, m: PeerMessage| match m {
        PeerMessage::Blocks(_) => vec![(20, m.clone()), (30, m)],
        m => vec![(5, m)],
    };
    let mut net = Net::new(300, NEVER, Box::new(way));
    net.run(60_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    assert!(net.blamed.is_empty());
}

#[test]
fn who_answers_with_other_blocks_than_asked_for_is_passed_over() {
    let way = |from: usize, to: usize, m: PeerMessage| match m {
        PeerMessage::Blocks(mut b) if from == 1 && to == NEWCOMER && b.len() > 1 => {
            b.remove(0);
            vec![(5, PeerMessage::Blocks(b))]
        }
        m => vec![(5, m)],
    };
    let mut net = Net::new(300, NEVER, Box::new(way));
    net.run(60_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    let asked = net.asked.iter().filter(|q| q.0 == NEWCOMER && q.1 == 1).count();
    assert!(asked <= 5, "who does not answer what was asked is asked rarely, not {asked} times");
}

#[test]
fn what_was_asked_of_one_that_goes_away_is_asked_of_others_at_once() {
    let mut net = Net::new(100, NEVER, Box::new(blocks_of_0_are_lost));
    net.run(10_000, "server 0 is asked", |net| net.asked.iter().any(|q| q.0 == NEWCOMER && q.1 == 0));
    let begun = net.now;
    let gone = net.sim.addresses[0];
    net.step(NEWCOMER, Input::PeerDown(gone));
    let last = net.height(1);
    net.run(60_000, "in step without it", move |net| net.height(NEWCOMER) >= last);
    assert!(net.now.0 < begun.0 + 2_000, "before an answer of server 0 would have been given up");
}

// ---- a whole state

#[test]
fn a_newcomer_joins_by_a_state_and_fetches_what_is_older() {
    let mut net = Net::new(60, EAGER, Box::new(straight));
    let disk = net.stop(NEWCOMER);
    net.one_more_block();
    let tip = net.height(0);
    net.start(NEWCOMER, disk);
    net.run(60_000, "the newcomer joins", |net| net.joined.contains_key(&NEWCOMER));
    let at = net.joined[&NEWCOMER][0];
    assert!(at.0 + 2 >= tip, "it joined near the tip: {at:?} of {tip}");
    net.one_more_block();
    net.run(60_000, "it goes on as the others do", Net::in_step);
    net.run(600_000, "what is older is here", Net::complete);
    net.same_disks();
    assert!(net.blamed.is_empty());
    assert_eq!(net.joined[&NEWCOMER].len(), 1);
}

#[test]
fn parts_of_a_state_come_from_several_peers() {
    let servers = std::rc::Rc::new(std::cell::RefCell::new(BTreeSet::new()));
    let seen = servers.clone();
    let way = move |from: usize, to: usize, m: PeerMessage| {
        if matches!(&m, PeerMessage::Chunks { chunks, .. } if to == NEWCOMER && !chunks.is_empty()) {
            seen.borrow_mut().insert(from);
        }
        vec![(5, m)]
    };
    let rule = SnapshotRule { part_leaves: 1, ..EAGER };
    let mut net = Net::new(100, rule, Box::new(way));
    let disk = net.stop(NEWCOMER);
    net.one_more_block();
    net.start(NEWCOMER, disk);
    net.run(60_000, "the newcomer joins", |net| net.joined.contains_key(&NEWCOMER));
    assert_eq!(*servers.borrow(), BTreeSet::from([0, 1, 2]));
}

/// R29: nothing of a state is believed that does not follow from a certified header.
#[test]
fn a_state_with_a_lie_in_it_is_refused_and_the_liar_blamed() {
    type Lie = fn(PeerMessage) -> PeerMessage;
    let lies: [(&str, Lie); 7] = [
        ("a leaf changed", |m| match m {
            PeerMessage::Chunks { block, first, mut chunks } => {
                if let Some(leaf) = chunks.iter_mut().flat_map(|c| c.leaves.iter_mut()).next() {
                    leaf.trail.length += 1;
                }
                PeerMessage::Chunks { block, first, chunks }
            }
            m => m,
        }),
        ("a leaf left out", |m| match m {
            PeerMessage::Chunks { block, first, mut chunks } => {
                if let Some(chunk) = chunks.iter_mut().find(|c| !c.leaves.is_empty()) {
                    chunk.leaves.pop();
                }
                PeerMessage::Chunks { block, first, chunks }
            }
            m => m,
        }),
        ("parts in another order", |m| match m {
            PeerMessage::Chunks { block, first, mut chunks } => {
                chunks.reverse();
                PeerMessage::Chunks { block, first, chunks }
            }
            m => m,
        }),
        ("a state root of its own", |m| match m {
            PeerMessage::Snapshot(Some(mut offer)) => {
                offer.certified.header.state_root = Hash([7; 32]);
                PeerMessage::Snapshot(Some(offer))
            }
            m => m,
        }),
        ("another history", |m| match m {
            PeerMessage::Snapshot(Some(mut offer)) => {
                let count = offer.mountains.count();
                let mut other = merkle::Mountains::default();
                (0..count).for_each(|n| other.push(&Hash([n as u8; 32])));
                offer.mountains = other;
                PeerMessage::Snapshot(Some(offer))
            }
            m => m,
        }),
        ("a change of validators of its own", |m| match m {
            PeerMessage::Snapshot(Some(mut offer)) => {
                let next = assent_genesis::testing::devnet(5, 4).genesis.validators().clone();
                offer.links.push(evidence::ValidatorLink { certified: offer.certified.clone(), next });
                PeerMessage::Snapshot(Some(offer))
            }
            m => m,
        }),
        ("another block in the window", |m| match m {
            PeerMessage::Blocks(mut blocks) if blocks.len() > 2 => {
                blocks[1].0 = blocks[0].0.clone();
                PeerMessage::Blocks(blocks)
            }
            m => m,
        }),
    ];
    for (what, lie) in lies {
        let way = move |from: usize, to: usize, m: PeerMessage| {
            let m = if from == 1 && to == NEWCOMER { lie(m) } else { m };
            // The liar is the quickest, so that it is heard.
            vec![(if from == 1 { 2 } else { 40 }, m)]
        };
        let mut net = Net::new(60, EAGER, Box::new(way));
        let disk = net.stop(NEWCOMER);
        net.one_more_block();
        net.start(NEWCOMER, disk);
        net.run(300_000, what, |net| net.in_step());
        net.run(600_000, what, Net::complete);
        if what != "another block in the window" || !net.blamed.is_empty() {
            assert_eq!(net.blamed_by_newcomer(), [1], "{what}");
        }
        net.same_disks();
    }
}

#[test]
fn servers_that_go_away_or_stall_do_not_end_the_join() {
    let way = |from: usize, to: usize, m: PeerMessage| match m {
        PeerMessage::Chunks { .. } if from == 0 && to == NEWCOMER => Vec::new(),
        m => vec![(5, m)],
    };
    let mut net = Net::new(60, SnapshotRule { part_leaves: 1, ..EAGER }, Box::new(way));
    let disk = net.stop(NEWCOMER);
    net.one_more_block();
    net.start(NEWCOMER, disk);
    net.run(60_000, "parts come", |net| {
        net.replica(NEWCOMER).progress().snapshot.is_some_and(|s| s.parts > 0)
    });
    net.stop(2);
    net.run(120_000, "the newcomer joins", |net| net.joined.contains_key(&NEWCOMER));
    assert!(net.blamed.is_empty());
}

/// A crash at any write leaves the old state or none, never a mix; the newcomer joins after it.
#[test]
fn a_crash_at_any_write_of_a_join_is_survived() {
    for write in 0.. {
        let mut net = Net::new(40, EAGER, Box::new(straight));
        let mut disk = net.stop(NEWCOMER);
        net.one_more_block();
        disk.cut_power_after(write);
        net.start(NEWCOMER, disk);
        net.run(120_000, "the power goes, or it is in step", |net| {
            net.replicas[NEWCOMER].is_none() || net.complete()
        });
        if net.replicas[NEWCOMER].is_some() {
            assert!(write > 10, "the power went at {write} writes");
            return;
        }
        let fault = net.faults.remove(&NEWCOMER).unwrap();
        assert!(matches!(&fault, Fault::Storage(f) if Disk::is_power_cut(f)), "{fault}");
        let left = net.stopped.remove(&NEWCOMER).unwrap();
        let left = left.after_power_cut(Unsynced::Lost, &mut Random::new(write));
        let state = assent_ledger::State::from_leaves(left.leaves.values().cloned());
        let header = left.tip.as_ref().map(|t| t.certified.header.state_root);
        assert_eq!(header.unwrap_or(Hash::ZERO), state.root(), "never a mix");
        net.start(NEWCOMER, left);
        assert!(net.faults.is_empty(), "{:?}", net.faults);
        net.run(600_000, "it joins after the crash", Net::complete);
        net.same_disks();
    }
}

/// What was final in the replay window is not taken again by one that joined by a state.
#[test]
fn a_replay_is_refused_after_a_join() {
    let mut net = Net::new(40, EAGER, Box::new(straight));
    let disk = net.stop(NEWCOMER);
    let tx = net.enrol();
    net.run(60_000, "it is final", |net| (0..3).all(|at| net.replica(at).status().pool_transactions == 0));
    net.start(NEWCOMER, disk);
    net.run(60_000, "the newcomer joins", |net| net.joined.contains_key(&NEWCOMER));
    let now = net.now;
    let input = Input::Transactions { txs: vec![tx.clone()], gossip: true };
    let outputs = net.replicas[NEWCOMER].as_mut().unwrap().step(now, input).unwrap();
    let refused = |o: &Output| matches!(o, Output::Refused { body, reason: Invalid::Replay, .. } if *body == tx.body_id());
    assert!(outputs.iter().any(refused), "{outputs:?}");
}

#[test]
fn events_that_are_not_those_of_a_block_are_refused_and_others_asked() {
    let way = |from: usize, to: usize, m: PeerMessage| match m {
        PeerMessage::Events(mut blocks) if from == 2 && to == NEWCOMER => {
            blocks.iter_mut().flat_map(|b| b.events.iter_mut()).for_each(|e| e.core.code ^= 1);
            vec![(5, PeerMessage::Events(blocks))]
        }
        m => vec![(5, m)],
    };
    let mut net = Net::new(60, EAGER, Box::new(way));
    let disk = net.stop(NEWCOMER);
    net.one_more_block();
    net.start(NEWCOMER, disk);
    net.run(600_000, "what is older is here", |net| net.joined.contains_key(&NEWCOMER) && net.complete());
    net.same_disks();
    assert_eq!(net.blamed_by_newcomer(), [2]);
}

/// Filling in goes on where it was after a restart.
#[test]
fn what_is_older_is_fetched_over_restarts() {
    let mut net = Net::new(60, EAGER, Box::new(straight));
    let disk = net.stop(NEWCOMER);
    net.one_more_block();
    net.start(NEWCOMER, disk);
    net.run(60_000, "it joins", |net| net.joined.contains_key(&NEWCOMER));
    let mut before = net.replica(NEWCOMER).progress().missing;
    let mut restarts = 0;
    while net.replica(NEWCOMER).progress().missing > 0 {
        let less = before.saturating_sub(10);
        net.run(60_000, "some are fetched", move |net| net.replica(NEWCOMER).progress().missing <= less);
        let disk = net.stop(NEWCOMER).after_power_cut(Unsynced::Lost, &mut Random::new(before));
        net.start(NEWCOMER, disk);
        let now = net.replica(NEWCOMER).progress().missing;
        assert!(now < before, "what was fetched is not fetched again");
        (before, restarts) = (now, restarts + 1);
    }
    assert!(restarts > 2);
    net.run(60_000, "in step", Net::complete);
    net.same_disks();
}

// ---- damage

#[test]
fn a_damaged_block_is_not_served_and_comes_back_from_the_others() {
    let mut net = Net::new(60, NEVER, Box::new(straight));
    let mut random = Random::new(3);
    let mut disk = net.stop(1);
    let newcomer = net.stop(NEWCOMER);
    // Old enough that the replay window does not need it at the start: the disk says when it is read.
    assert!(disk.rot(Rot::Block, &mut random));
    let good: Vec<_> = net.replica(0).storage_ref().blocks.values().map(|(b, _)| b.clone()).collect();
    let damaged = disk.blocks.values().zip(&good).position(|((b, _), good)| b != good);
    let damaged = Height(damaged.expect("a bit flipped") as u64 + 1);
    let healthy = net.replica(0).storage_ref().blocks[&damaged].clone();
    let rotten = std::mem::replace(disk.blocks.get_mut(&damaged).unwrap(), healthy);
    net.start(1, disk);
    net.replicas[1].as_mut().unwrap().storage().blocks.insert(damaged, rotten);
    assert_eq!(net.replicas[1].as_mut().unwrap().storage().block(damaged).unwrap(), None);
    net.start(NEWCOMER, newcomer);
    net.run(120_000, "the newcomer is in step", Net::in_step);
    net.same_disks();
    let asked = net.sim.addresses[NEWCOMER];
    let message = PeerMessage::CatchUp { from: damaged, to: damaged };
    net.step(1, Input::Peer { from: asked, message });
    net.run(120_000, "the block is whole again", |net| {
        net.replica(1).progress().missing == 0
            && net.replica(1).storage_ref().blocks[&damaged].0
                == net.replica(0).storage_ref().blocks[&damaged].0
    });
    assert!(net.blamed.is_empty());
    assert!(net.replicas[1].as_mut().unwrap().storage().block(damaged).unwrap().is_some());
}

// ---- divergence

/// A validator whose memory changed one leaf names the transaction and the leaf, and after the repair ends on the
/// same roots.
#[test]
fn a_planted_leaf_is_named_with_the_first_transaction_that_met_it() {
    let mut net = Net::new(40, NEVER, Box::new(straight));
    net.run(60_000, "all are in step", Net::in_step);
    // The bureau's leaf, into whose trail every enrolment goes.
    let bureau = ObjectRef::from(net.sim.genesis.institutions()[0].id);
    let mut leaf = net.replica(NEWCOMER).state().get(&bureau).unwrap().clone();
    leaf.trail.length += 1;
    let (theirs, wrong) = (leaf.clone(), leaf.hash());
    net.replicas[NEWCOMER].as_mut().unwrap().damage_state(leaf);
    let tx = net.enrol();
    net.run(60_000, "it parts from the chain", |net| net.faults.contains_key(&NEWCOMER));
    let fault = net.faults.remove(&NEWCOMER).unwrap();
    let Fault::Explained(d) = &fault else { panic!("{fault}") };
    assert_eq!(d.transaction.map(|(_, body)| body), Some(tx.body_id()), "{d}");
    assert_eq!(d.key, Some(bureau), "{d}");
    assert_eq!(d.damaged, [bureau], "{d}");
    assert!(d.told_by >= 2 && d.theirs.is_some() && d.theirs != d.ours, "{d}");
    assert_ne!(d.ours, Some(wrong), "the leaf after the block, not the one planted: {theirs:?}");
    let words = fault.to_string();
    assert!(words.contains(&tx.body_id().to_string()) && words.contains(&bureau.id.to_string()), "{words}");
    // The others go on, and the one that was repaired catches up from nothing to the same roots.
    net.one_more_block();
    net.start(NEWCOMER, Disk::default());
    net.run(60_000, "it is repaired", Net::in_step);
    net.same_disks();
    let roots: BTreeSet<_> = [0, NEWCOMER].map(|at| net.replica(at).status().state_root).into();
    assert_eq!(roots.len(), 1);
}

/// A leaf whose keys differ makes a transaction invalid here that the others took.
#[test]
fn a_leaf_that_makes_a_block_invalid_is_named_too() {
    let mut net = Net::new(6, NEVER, Box::new(straight));
    net.run(60_000, "all are in step", Net::in_step);
    let bureau = ObjectRef::from(net.sim.genesis.institutions()[0].id);
    let mut leaf = net.replica(NEWCOMER).state().get(&bureau).unwrap().clone();
    let mut content = Institution::decode(&leaf.content).unwrap();
    let mut operators = content.keys.into_vec();
    operators.iter_mut().for_each(|key| key.not_after = TimeMs(1));
    content.keys = operators.try_into().unwrap();
    leaf.content = content.encode();
    net.replicas[NEWCOMER].as_mut().unwrap().damage_state(leaf);
    let tx = net.enrol();
    net.run(60_000, "it parts from the chain", |net| net.faults.contains_key(&NEWCOMER));
    let fault = net.faults.remove(&NEWCOMER).unwrap();
    let Fault::Explained(d) = &fault else { panic!("{fault}") };
    assert_eq!(d.transaction.map(|(_, body)| body), Some(tx.body_id()), "{d}");
    assert_eq!((d.key, &d.damaged[..]), (Some(bureau), &[bureau][..]), "{d}");
}
