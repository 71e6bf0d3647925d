//! A validator never contradicts what it signed: the intent is durable before the signature, a log that a crash
//! tore is cut back to what was synced, one that is damaged is not used, and what others remember counts (R7).
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use assent_consensus::log::LOST;
use assent_consensus::*;
use assent_proto::validators::VoteKind::{self, Precommit, Prevote};
use assent_proto::{Address, BlockId, Hash, Header, Height, TimeMs};
use common::{Chain, MemoryLog, chain};

/// What a height does to node 0, in which another proposes first.
struct Script {
    chain: Chain,
    inputs: Vec<(u64, Input)>,
    /// Blocks that node 0 builds differ by it.
    salt: u64,
}

/// Several rounds of height 1. In round 0 a block is proposed (another one for another `salt`) and, if `locks`,
/// wins the prevotes but not the precommits; then rounds fail, up to one in which node 0 proposes: the block that
/// it is locked on, or one of its own. It wins the prevotes there, and nearly the precommits.
fn script(locks: bool, salt: u64) -> Script {
    let chain = chain();
    let first = chain.proposer(1, 0);
    assert_ne!(first, 0, "node 0 does not begin");
    let mine = (1..4).find(|round| chain.proposer(1, *round) == 0).unwrap();
    let header = chain.header(1, BlockId(chain.genesis.0), chain.address(first), salt);
    let id = header.id();
    let mut inputs = Vec::new();
    let mut say = |time: u64, m: ConsensusMessage| inputs.push((time, Input::Message(m)));
    let vote = |i, kind, round, block| ConsensusMessage::Vote(chain.vote(i, kind, 1, round, block));
    let others = [(first, 1), (if first == 1 { 2 } else { 1 }, 2)].map(|(i, _)| i);
    let mut time = 10;
    say(time, ConsensusMessage::Proposal(chain.proposal(first, 0, header.clone())));
    inputs.push((time, received(&chain, first, &header)));
    for round in 0..=mine {
        let ours = round == mine;
        let block = (locks && (round == 0 || ours)).then_some(id);
        for kind in [Prevote, Precommit] {
            // Nobody agrees to the precommits of round 0; of the last round only one is heard.
            let said = if kind == Precommit && !ours { None } else { block };
            let count = if kind == Precommit && ours { 1 } else { 2 };
            for i in &others[..count] {
                inputs.push((time, Input::Message(vote(*i, kind, round, said))));
            }
            time += 20_000;
            if !ours || !locks {
                inputs.push((time, Input::Wake));
            }
        }
    }
    Script { chain, inputs, salt }
}

fn received(chain: &Chain, proposer: usize, header: &Header) -> Input {
    Input::Received {
        height: header.height,
        round: 0,
        proposer: chain.address(proposer),
        valid_round: None,
        header: header.clone(),
        valid: true,
    }
}

/// Node 0 at work, and what it said.
struct Life {
    node: Consensus,
    log: MemoryLog,
    outputs: Vec<Output>,
    /// Its statements, each with what was durable when it left.
    said: Vec<(usize, ConsensusMessage)>,
}

impl Life {
    /// Starts on a disk that holds `log`.
    fn start(s: &Script, log: MemoryLog, floor: Option<Floor>) -> Result<Life, Fault> {
        let held = log.all();
        Life::start_with(s, log, floor, &held)
    }

    fn start_with(s: &Script, mut log: MemoryLog, floor: Option<Floor>, held: &[u8]) -> Result<Life, Fault> {
        let mut node = s.chain.consensus(0);
        let outputs = node.start_height(TimeMs(0), Height(1), s.chain.turns(1), floor, held, &mut log)?;
        let mut life = Life { node, log, outputs: Vec::new(), said: Vec::new() };
        life.obey(s, TimeMs(0), outputs)?;
        Ok(life)
    }

    fn step(&mut self, s: &Script, now: TimeMs, input: Input) -> Result<(), Fault> {
        let outputs = self.node.step(now, input, &mut self.log)?;
        self.obey(s, now, outputs)
    }

    fn run(&mut self, s: &Script) -> Result<(), Fault> {
        s.inputs.iter().try_for_each(|(time, input)| self.step(s, TimeMs(*time), input.clone()))
    }

    /// Notes what is said, and builds what is asked for: never the same twice.
    fn obey(&mut self, s: &Script, now: TimeMs, outputs: Vec<Output>) -> Result<(), Fault> {
        for output in outputs {
            match &output {
                Output::Broadcast(m @ (ConsensusMessage::Vote(_) | ConsensusMessage::Proposal(_))) => {
                    self.said.push((self.log.durable.len(), m.clone()));
                }
                Output::GetValue { height, round } => {
                    let salt = 1_000_000 + s.salt * 1_000 + self.said.len() as u64;
                    let (height, round) = (*height, *round);
                    let me = s.chain.address(0);
                    let header = s.chain.header(height.0, BlockId(s.chain.genesis.0), me, salt);
                    self.step(s, now, Input::Built { height, round, header })?;
                }
                _ => {}
            }
            self.outputs.push(output);
        }
        Ok(())
    }

    fn abstention(&self) -> Option<Abstention> {
        abstention(&self.outputs)
    }

    fn statements(&self) -> Vec<ConsensusMessage> {
        self.said.iter().map(|(_, m)| m.clone()).collect()
    }
}

fn abstention(outputs: &[Output]) -> Option<Abstention> {
    outputs.iter().find_map(|o| match o {
        Output::Abstaining { why, .. } => Some(*why),
        _ => None,
    })
}

/// A whole life on an empty disk.
fn record(s: &Script) -> Life {
    let mut life = Life::start(s, MemoryLog::default(), None).unwrap();
    life.run(s).unwrap();
    assert_eq!(life.abstention(), None);
    life
}

/// What node 0 signed for each place; it panics if that was two things.
fn signed(chain: &Chain, said: &[ConsensusMessage]) -> BTreeMap<(u32, u8), Hash> {
    let mut places = BTreeMap::new();
    for m in said {
        let (place, hash) = match m {
            ConsensusMessage::Vote(v) => ((v.round, v.kind as u8), v.message(&chain.genesis)),
            ConsensusMessage::Proposal(p) => ((p.round, 3), p.message(&chain.genesis)),
            _ => unreachable!("statements alone are kept"),
        };
        let before = *places.entry(place).or_insert(hash);
        assert_eq!(before, hash, "it contradicts itself: {m:?}");
    }
    places
}

/// A disk that holds these bytes.
fn disk(bytes: &[u8], mark: Height) -> MemoryLog {
    MemoryLog { durable: bytes.to_vec(), mark, ..Default::default() }
}

/// Where each frame ends.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while at < bytes.len() {
        at += 20 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert_eq!(at, bytes.len());
    ends
}

/// How much of the log is durable when the first signature leaves.
fn first_release(life: &Life) -> usize {
    life.said.first().unwrap().0
}

#[test]
fn the_recorded_height_has_all_that_can_be_signed_in_several_rounds() {
    for locks in [true, false] {
        let s = script(locks, 0);
        let life = record(&s);
        let places = signed(&s.chain, &life.statements());
        let rounds = places.keys().map(|(round, _)| *round).max().unwrap();
        let kinds: Vec<u8> = places.keys().filter(|(r, _)| *r == rounds).map(|(_, k)| *k).collect();
        assert!(rounds >= 1, "{places:?}");
        assert_eq!(kinds, [1, 2, 3], "of each kind in the last round: {places:?}");
        assert_eq!(life.node.newest_statement(&s.chain.address(0)).unwrap().round, rounds);
        // Another block in round 0 leads elsewhere: a validator that forgot would contradict itself.
        let other = signed(&s.chain, &record(&script(locks, 7)).statements());
        assert!(places.iter().any(|(place, hash)| other.get(place).is_some_and(|h| h != hash)));
    }
}

#[test]
fn replay_says_the_very_same_and_writes_nothing() {
    for locks in [true, false] {
        let s = script(locks, 0);
        let first = record(&s);
        let held = first.log.all();
        let again = Life::start(&s, disk(&held, Height(1)), None).unwrap();
        assert_eq!(again.abstention(), None);
        let (before, after) = (held.len(), again.log.all().len());
        assert_eq!(after, before, "what the log holds is not written again: locked {locks}");
        let (before, after) = (signed(&s.chain, &first.statements()), signed(&s.chain, &again.statements()));
        assert!(!after.is_empty() && after.iter().all(|(place, hash)| before[place] == *hash));
    }
}

/// R7: a crash cuts the log anywhere behind what was synced. Whatever comes afterwards, the validator goes on and
/// contradicts nothing that left it.
#[test]
fn a_log_cut_at_any_byte_is_used_up_to_there_and_contradicts_nothing() {
    for locks in [true, false] {
        let (s, liars) = (script(locks, 0), script(locks, 7));
        let life = record(&s);
        let held = life.log.all();
        let ends = frame_ends(&held);
        for frame in ends.windows(2) {
            let [whole, end] = [frame[0], frame[1]];
            let released: Vec<_> =
                life.said.iter().filter(|(durable, _)| *durable <= whole).map(|(_, m)| m.clone()).collect();
            let mark = Height(u64::from(!released.is_empty()));
            let mut after = Life::start(&s, disk(&held[..whole], mark), None).unwrap();
            assert_eq!(after.abstention(), None, "cut at {whole}");
            assert!(after.log.durable[..whole] == held[..whole], "cut at {whole}");
            // A cut within the next frame leads to the very same.
            for cut in (whole + 1..end).filter(|cut| locks || cut % 5 == 0) {
                let torn = Life::start(&s, disk(&held[..cut], mark), None).unwrap();
                assert!(torn.outputs == after.outputs && torn.log.all() == after.log.all(), "cut at {cut}");
            }
            after.run(&liars).unwrap();
            signed(&s.chain, &[released, after.statements()].concat());
            // The log that was continued is whole, and leads there once more.
            let again = Life::start(&s, after.log.clone(), None).unwrap();
            assert_eq!(again.abstention(), None, "continued at {whole}");
            signed(&s.chain, &[after.statements(), again.statements()].concat());
        }
    }
}

/// A file whose length was kept and whose bytes were not ends in zeros.
#[test]
fn a_tail_of_zeros_is_cut_off() {
    let s = script(true, 0);
    let life = record(&s);
    let held = life.log.all();
    let ends = frame_ends(&held);
    for cut in 0..held.len() {
        let whole = ends.iter().copied().rfind(|end| *end <= cut).unwrap();
        let end = ends.iter().copied().find(|end| *end > cut).unwrap();
        // The second is of interest where zeros begin within a check, the third is long either way.
        let tails = [(8, true), (end - cut, cut + 12 > end), (held.len() - cut + 5_000, cut % 4 == 0)];
        for (zeros, _) in tails.into_iter().filter(|(_, tried)| *tried) {
            let torn = [&held[..cut], &vec![0; zeros][..]].concat();
            // Only what was never synced can be torn: no later signature has left.
            let mark = Height(u64::from(whole >= first_release(&life)));
            let after = Life::start(&s, disk(&torn, mark), None).unwrap();
            match after.abstention() {
                None => assert!(after.log.durable[..whole] == held[..whole], "{cut} and {zeros} zeros"),
                Some(why) => {
                    // A frame as long as it ought to be, of whose check less than eight bytes are zero.
                    assert!(matches!(why, Abstention::Log(_)));
                    assert!(zeros == end - cut && zeros < 8, "{cut} and {zeros} zeros: {why}");
                }
            }
        }
    }
}

fn must_abstain(s: &Script, bytes: &[u8], what: &str) {
    let mut life = Life::start(s, disk(bytes, Height(1)), None).unwrap();
    assert!(matches!(life.abstention(), Some(Abstention::Log(_))), "{what}: {:?}", life.outputs);
    assert!(life.log.all() == bytes, "{what}: the log stays as it is, so that a restart abstains again");
    life.step(s, TimeMs(90_000), Input::Wake).unwrap();
    assert!(life.said.is_empty(), "{what}");
}

/// Every bit of what frames a frame, and each byte of what is in it, of a log that was synced to its end.
#[test]
fn a_log_with_anything_flipped_makes_it_abstain() {
    for locks in [true, false] {
        let s = script(locks, 0);
        let held = record(&s).log.all();
        assert!(held.len() > 2_000, "{}", held.len());
        let ends = frame_ends(&held);
        for at in 0..held.len() {
            let begin = ends.iter().copied().rfind(|end| *end <= at).unwrap();
            let end = ends.iter().copied().find(|end| *end > at).unwrap();
            let frames = at < begin + 12 || at >= end - 8;
            let bits = (0..8).filter(|bit| frames || at % 8 == *bit).map(|bit| held[at] ^ (1 << bit));
            let others = [0x00, 0xff].into_iter().filter(|byte| *byte != held[at] && locks);
            for byte in bits.chain(others) {
                let mut flipped = held.clone();
                flipped[at] = byte;
                must_abstain(&s, &flipped, &format!("byte {at} is {byte} for {}", held[at]));
            }
        }
    }
}

#[test]
fn whoever_abstains_says_nothing_whatever_it_hears_and_again_after_a_restart() {
    let s = script(true, 0);
    let mut damaged = record(&s).log.all();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut life = Life::start(&s, disk(&damaged, Height(1)), None).unwrap();
    for _ in 0..2 {
        assert!(matches!(life.abstention(), Some(Abstention::Log(_))));
        life.run(&s).unwrap();
        assert!(life.said.is_empty(), "{:?}", life.said);
        assert!(!life.node.is_voting());
        life = Life::start(&s, life.log.clone(), None).unwrap();
    }
}

#[test]
fn frames_left_out_repeated_or_exchanged_make_it_abstain() {
    let s = script(true, 0);
    let held = record(&s).log.all();
    let ends = frame_ends(&held);
    for pair in ends.windows(3) {
        let [a, b, c] = [pair[0], pair[1], pair[2]];
        must_abstain(&s, &[&held[..a], &held[b..]].concat(), "a frame left out");
        must_abstain(&s, &[&held[..b], &held[a..]].concat(), "a frame repeated");
        must_abstain(&s, &[&held[..a], &held[b..c], &held[a..b], &held[c..]].concat(), "frames exchanged");
    }
}

/// Something other than a crash: the log is gone, emptied, or cut before the first signature.
#[test]
fn a_lost_log_is_known_by_the_mark_kept_elsewhere() {
    let s = script(true, 0);
    let life = record(&s);
    assert_eq!(life.log.mark, Height(1), "the mark is set when something is signed");
    let held = life.log.all();
    must_abstain(&s, LOST, "a log that the caller misses");
    for cut in 0..first_release(&life) {
        let intent_is_there = frame_ends(&held).windows(2).any(|f| {
            // The first intent is the frame that ends where the first signature left.
            f[1] == first_release(&life) && cut >= f[1]
        });
        assert!(!intent_is_there);
        must_abstain(&s, &held[..cut], &format!("cut at {cut}"));
    }
    // Of a height that this disk has passed already.
    let mut later = disk(b"", Height(5));
    let mut node = s.chain.consensus(0);
    let outputs = node.start_height(TimeMs(0), Height(1), s.chain.turns(1), None, b"", &mut later).unwrap();
    assert!(matches!(abstention(&outputs), Some(Abstention::Log(_))));
    // Of the height below: that is how it must be.
    let mut log = disk(b"", Height(1));
    let mut node = s.chain.consensus(0);
    node.committed(Height(1));
    let outputs = node.start_height(TimeMs(0), Height(2), s.chain.turns(2), None, b"", &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
}

#[test]
fn nothing_leaves_before_its_intent_and_the_mark_are_durable() {
    let s = script(true, 0);
    let mut faults = 0;
    for fails_after in 0..200 {
        let log = MemoryLog { fails_after: Some(fails_after), ..Default::default() };
        let mut node = s.chain.consensus(0);
        let mut log = log;
        let started = node.start_height(TimeMs(0), Height(1), s.chain.turns(1), None, b"", &mut log);
        let mut life = Life { node, log, outputs: Vec::new(), said: Vec::new() };
        let ran = started.and_then(|outputs| life.obey(&s, TimeMs(0), outputs)).and_then(|()| life.run(&s));
        if !life.said.is_empty() {
            assert_eq!(life.log.mark, Height(1));
        }
        let released = life.statements();
        let places = signed(&s.chain, &released).len();
        assert!(places <= life.log.syncs, "every statement that left had its intent synced");
        if let Err(fault) = ran {
            faults += 1;
            assert!(matches!(fault, Fault::Log(_)));
            assert_eq!(life.node.step(TimeMs(99), Input::Wake, &mut life.log), Err(Fault::Stopped));
            // What was synced leads on, and contradicts nothing.
            let left = disk(&life.log.durable, life.log.mark);
            let mut after = Life::start(&s, left, None).unwrap();
            assert_eq!(after.abstention(), None, "fails after {fails_after}");
            after.run(&script(true, 7)).unwrap();
            signed(&s.chain, &[released, after.statements()].concat());
        }
    }
    assert!((20..200).contains(&faults), "{faults}");
}

/// The process died between writing and syncing; the machine did not. What is read back is not yet durable.
#[test]
fn what_is_read_back_is_made_durable_before_it_is_relied_on() {
    let s = script(true, 0);
    let first = record(&s);
    let held = first.log.all();
    for end in frame_ends(&held) {
        let unsynced = MemoryLog { pending: vec![held[..end].to_vec()], ..Default::default() };
        let life = Life::start(&s, unsynced, None).unwrap();
        if !life.said.is_empty() {
            assert!(life.log.durable[..end] == held[..end], "{end}");
            assert_eq!(life.log.mark, Height(1), "and the mark, if it had not been set");
        }
    }
}

// ---- what others remember

fn floor(height: u64, round: u32) -> Option<Floor> {
    floor_at(height, round, FloorStep::Prevote)
}

fn floor_at(height: u64, round: u32, step: FloorStep) -> Option<Floor> {
    Some(Floor { height: Height(height), round, step })
}

#[test]
fn below_the_floor_nothing_is_signed() {
    let s = script(true, 0);
    let life = record(&s);
    let held = life.log.all();
    let reached = life.node.newest_statement(&s.chain.address(0)).unwrap().round;
    let before_last = frame_ends(&held).into_iter().rfind(|end| *end < life.said.last().unwrap().0).unwrap();
    let cut = &held[..before_last];
    let cases: [(&[u8], Option<Floor>, bool); 11] = [
        (b"", None, false),
        (b"", floor(0, 9), false),
        (b"", floor(1, 0), true),
        (b"", floor(2, 0), true),
        (&held, floor(1, 0), false),
        (&held, floor(1, reached), false),
        (&held, floor(1, reached + 1), true),
        (&held, floor(2, 0), true),
        // The precommit of the last round is cut off, at the end of a frame.
        (&held, floor_at(1, reached, FloorStep::Precommit), false),
        (cut, floor_at(1, reached, FloorStep::Prevote), false),
        (cut, floor_at(1, reached, FloorStep::Precommit), true),
    ];
    for (bytes, floor, abstains) in cases {
        let mark = Height(u64::from(!bytes.is_empty()));
        let mut life = Life::start(&s, disk(bytes, mark), floor).unwrap();
        let why = abstains.then(|| Abstention::Floor(floor.unwrap()));
        assert_eq!(life.abstention(), why, "{} bytes, {floor:?}", bytes.len());
        life.run(&s).unwrap();
        assert_eq!(life.said.is_empty(), abstains);
        if abstains {
            // Even if nobody tells of it any more.
            let mut again = Life::start(&s, life.log.clone(), None).unwrap();
            assert_eq!(again.abstention(), Some(Abstention::Before));
            again.run(&s).unwrap();
            assert!(again.said.is_empty());
        }
    }
}

#[test]
fn above_the_floor_it_votes_again() {
    let s = script(true, 0);
    let mut life = Life::start(&s, MemoryLog::default(), floor(1, 3)).unwrap();
    assert!(matches!(life.abstention(), Some(Abstention::Floor(_))));
    life.node.committed(Height(1));
    let mut log = MemoryLog::default();
    let outputs =
        life.node.start_height(TimeMs(9), Height(2), s.chain.turns(2), floor(1, 3), b"", &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
    assert!(life.node.is_voting());
}

/// A peer shows what it has of us before the height begins: exact, where the floor knows the round alone.
#[test]
fn an_own_statement_heard_before_the_height_begins_counts_as_a_floor() {
    let s = script(true, 0);
    let life = record(&s);
    let held = life.log.all();
    for (height, kind, block, abstains) in [
        (1, Prevote, Some(BlockId(Hash([9; 32]))), true),
        (3, Precommit, None, true),
        (9, Precommit, None, true),
        (40, Precommit, None, true),
    ] {
        let own = s.chain.vote(0, kind, height, 0, block);
        let mut node = s.chain.consensus(0);
        let mut log = disk(&held, Height(1));
        node.step(TimeMs(1), Input::Message(ConsensusMessage::Vote(own)), &mut log).unwrap();
        let outputs =
            node.start_height(TimeMs(2), Height(1), s.chain.turns(1), None, &held, &mut log).unwrap();
        assert_eq!(abstention(&outputs).is_some(), abstains, "{height}");
    }
    // Those that the log knows do no harm.
    let mut node = s.chain.consensus(0);
    let mut log = disk(&held, Height(1));
    for m in life.statements() {
        node.step(TimeMs(1), Input::Message(m), &mut log).unwrap();
    }
    let outputs = node.start_height(TimeMs(2), Height(1), s.chain.turns(1), None, &held, &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
}

#[test]
fn an_own_signature_that_it_does_not_remember_silences_it() {
    let s = script(true, 0);
    let mut life = Life::start(&s, MemoryLog::default(), None).unwrap();
    let old = s.chain.vote(0, Prevote, 1, 0, Some(BlockId(Hash([9; 32]))));
    life.step(&s, TimeMs(5), Input::Message(ConsensusMessage::Vote(old))).unwrap();
    assert_eq!(life.abstention(), Some(Abstention::UnknownSignature));
    life.run(&s).unwrap();
    assert!(life.said.is_empty());
    let again = Life::start(&s, life.log.clone(), None).unwrap();
    assert_eq!(again.abstention(), Some(Abstention::Before), "a restart does not make it forget");
}

#[test]
fn its_own_votes_coming_back_do_not_silence_it() {
    let s = script(true, 0);
    let first = record(&s);
    let mut life = Life::start(&s, disk(&first.log.all(), Height(1)), None).unwrap();
    for m in first.statements() {
        life.step(&s, TimeMs(70), Input::Message(m)).unwrap();
    }
    assert_eq!(life.abstention(), None);
}

#[test]
fn peers_can_say_what_they_have_seen_of_others() {
    let s = script(true, 0);
    let mut life = record(&s);
    let stranger = Address([7; 20]);
    assert_eq!(life.node.newest_statement(&stranger), None);
    let who = (1..4).find(|i| life.node.newest_statement(&s.chain.address(*i)).is_some()).unwrap();
    let newest = |life: &mut Life, kind: VoteKind, height: u64, round: u32, valid: bool| {
        let mut vote = s.chain.vote(who, kind, height, round, None);
        if !valid {
            vote.signature.0[7] ^= 1;
        }
        life.step(&s, TimeMs(70), Input::Message(ConsensusMessage::Vote(vote))).unwrap();
        life.node.newest_statement(&s.chain.address(who))
    };
    assert_eq!(newest(&mut life, Prevote, 3, 2, true), floor(3, 2));
    assert_eq!(newest(&mut life, Precommit, 3, 1, true), floor(3, 2), "older");
    assert_eq!(newest(&mut life, Precommit, 3, 2, true), floor_at(3, 2, FloorStep::Precommit));
    assert_eq!(newest(&mut life, Precommit, 4, 0, false), floor_at(3, 2, FloorStep::Precommit), "not signed");
    assert_eq!(newest(&mut life, Prevote, 4, 0, true), floor(4, 0));
    let proof = life.node.newest_message(&s.chain.address(who)).unwrap();
    assert_eq!(Floor::of(proof), floor(4, 0).unwrap());
}

// ---- heights

#[test]
fn a_log_of_another_height_is_told_from_this_ones() {
    let s = script(true, 0);
    let mut log = record(&s).log;
    let held = log.all();
    // Of the height below: the height begins anew, behind it.
    let mut node = s.chain.consensus(0);
    node.committed(Height(1));
    let outputs = node.start_height(TimeMs(50), Height(2), s.chain.turns(2), None, &held, &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
    let both = log.all();
    assert!(both.len() > held.len());
    let mut node = s.chain.consensus(0);
    node.committed(Height(1));
    let outputs = node.start_height(TimeMs(50), Height(2), s.chain.turns(2), None, &both, &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
    // Of a height above: the store is older than the log.
    let life = Life::start_with(&s, MemoryLog::default(), None, &both).unwrap();
    assert!(matches!(life.abstention(), Some(Abstention::Log(_))));
}

#[test]
fn heights_begin_in_order_and_with_everyones_turn() {
    let s = script(true, 0);
    let mut life = Life::start(&s, MemoryLog::default(), None).unwrap();
    let again = life.node.start_height(TimeMs(60), Height(1), s.chain.turns(1), None, b"", &mut life.log);
    assert_eq!(again, Err(Fault::Order { wanted: Height(1), last: Height(1) }));
    for order in [vec![], vec![0, 1, 2], vec![0, 1, 2, 2], vec![0, 1, 2, 4], vec![0, 1, 2, 3, 3]] {
        let mut node = s.chain.consensus(0);
        let turns = Turns { set: s.chain.set.clone(), order };
        let begun = node.start_height(TimeMs(60), Height(1), turns, None, b"", &mut life.log);
        assert_eq!(begun, Err(Fault::Turns(Height(1))));
    }
}
