//! One validator through its one door: what it does with liars, lost bodies, wrong blocks and damaged disks.

#![allow(clippy::unwrap_used)] // the helpers of a test fail as the test does

use assent_consensus::{ConsensusMessage, SignedProposal, SignedVote};
use assent_proto::envelope::verify;
use assent_proto::field::Message;
use assent_proto::validators::{VoteKind, vote_message};
use assent_proto::*;
use assent_replica::{Fault, Input, Output, PeerMessage, Replica};
use assent_tests::sim::disk::Disk;
use assent_tests::sim::{Sim, Weather};
use bytes::Bytes;

type Certified = (Bytes, CommitCertificate);
type Lie<'a> = &'a dyn Fn(Vec<Certified>) -> Vec<Certified>;
type Break = fn(&mut Header);

/// A chain of some blocks, as machine 0 holds it.
fn chain() -> (Sim, Vec<Certified>) {
    let mut sim = Sim::new(1, Weather::FAIR);
    for n in 0..5 {
        let tx = sim.enrolment(&format!("person {n}"));
        sim.submit_in(n * 300, tx);
    }
    sim.run_until(60_000, "five are enrolled", |sim| sim.all_final());
    let blocks = sim.disk(0).blocks.values().cloned().collect();
    (sim, blocks)
}

/// A validator of that chain on an empty disk, which knows that two peers are far ahead.
fn newcomer(sim: &Sim, height: u64) -> (Replica<Disk>, Vec<Output>) {
    let now = sim.now;
    let opened = Replica::open(now, sim.genesis.clone(), Some(sim.keys[3].clone()), Disk::default());
    let (mut replica, mut outputs) = opened.expect("an empty disk is a fresh start");
    for peer in [0, 1] {
        outputs.extend(replica.step(now, Input::PeerUp(sim.addresses[peer])).unwrap());
        outputs.extend(hear(&mut replica, sim, peer, PeerMessage::Tip { height: Height(height) }).unwrap());
    }
    (replica, outputs)
}

fn hear(
    replica: &mut Replica<Disk>,
    sim: &Sim,
    from: usize,
    message: PeerMessage,
) -> Result<Vec<Output>, Fault> {
    let now = sim.now.max(TimeMs(replica.next_wake().map_or(0, |_| sim.now.0)));
    replica.step(now, Input::Peer { from: sim.addresses[from], message })
}

fn asked(sim: &Sim, outputs: &[Output]) -> Option<usize> {
    outputs.iter().find_map(|o| match o {
        Output::Send { to, message: PeerMessage::CatchUp { .. } } => {
            sim.addresses.iter().position(|a| a == to)
        }
        _ => None,
    })
}

fn blamed(sim: &Sim, outputs: &[Output]) -> Vec<usize> {
    let index = |peer: &Address| sim.addresses.iter().position(|a| a == peer);
    let peer = |o: &Output| match o {
        Output::Misbehaved { peer, .. } => index(peer),
        _ => None,
    };
    outputs.iter().filter_map(peer).collect()
}

/// A certificate by the first `signers` validators.
fn certify(sim: &Sim, header: &Header, signers: usize) -> CommitCertificate {
    let (genesis, block) = (sim.genesis.hash(), header.id());
    let sign = |i: usize| {
        let kind = VoteKind::Precommit;
        let message = vote_message(&genesis, kind, header.height, 0, Some(&block), &sim.addresses[i]);
        block::CommitSignature { validator: i as u32, signature: sim.keys[i].sign(&message.0) }
    };
    let signatures = (0..signers).map(sign).collect::<Vec<_>>().try_into().unwrap();
    CommitCertificate { height: header.height, round: 0, block, signatures }
}

#[test]
fn a_liar_is_named_and_another_is_asked() {
    let (sim, blocks) = chain();
    let last = blocks.len() as u64;
    let two_signatures = |mut b: Vec<Certified>| {
        let signatures = b[0].1.signatures.iter().take(2).cloned().collect::<Vec<_>>();
        b[0].1.signatures = signatures.try_into().unwrap();
        b
    };
    let other_certificate = |mut b: Vec<Certified>| {
        b[1].1 = b[2].1.clone();
        b
    };
    let without_body = |mut b: Vec<Certified>| {
        let at = b.iter().position(|(b, _)| !Block::decode(b).unwrap().transactions.is_empty()).unwrap();
        let mut block = Block::decode(&b[at].0).unwrap();
        block.transactions.clear();
        b[at].0 = block.encode();
        b
    };
    let flipped = |mut b: Vec<Certified>| {
        let mut bytes = b[0].0.to_vec();
        bytes[40] ^= 1;
        b[0].0 = bytes.into();
        b
    };
    let forged = |mut b: Vec<Certified>| {
        let mut signatures = b[0].1.signatures.clone().into_vec();
        signatures[0].signature.0[3] ^= 1;
        b[0].1.signatures = signatures.try_into().unwrap();
        b
    };
    let gap = |b: Vec<Certified>| [&b[..1], &b[2..]].concat();
    let lies: [(&str, Lie); 6] = [
        ("no quorum", &two_signatures),
        ("another block's certificate", &other_certificate),
        ("transactions left out", &without_body),
        ("a flipped byte", &flipped),
        ("a forged signature", &forged),
        ("a block left out", &gap),
    ];
    for (lie, tell) in lies {
        let (mut replica, outputs) = newcomer(&sim, last);
        let first = asked(&sim, &outputs).expect("somebody is asked");
        let told = PeerMessage::Blocks(tell(blocks.clone()));
        let outputs = hear(&mut replica, &sim, first, told).unwrap();
        assert_eq!(blamed(&sim, &outputs), [first], "{lie}");
        let second = asked(&sim, &outputs).expect("another is asked at once");
        assert_ne!(first, second, "{lie}");
        let outputs = hear(&mut replica, &sim, second, PeerMessage::Blocks(blocks.clone())).unwrap();
        assert_eq!(blamed(&sim, &outputs), [0; 0], "{lie}");
        assert_eq!(replica.status().height, Height(last), "{lie}");
        assert_eq!(replica.status().state_root, sim.replica(0).unwrap().status().state_root);
    }
}

#[test]
fn blocks_that_nobody_asked_for_are_not_looked_at() {
    let (sim, blocks) = chain();
    let (mut replica, outputs) = newcomer(&sim, blocks.len() as u64);
    let other = if asked(&sim, &outputs) == Some(0) { 1 } else { 0 };
    hear(&mut replica, &sim, other, PeerMessage::Blocks(blocks)).unwrap();
    assert_eq!(replica.status().height, Height(0));
}

#[test]
fn who_does_not_answer_is_passed_over() {
    let (sim, blocks) = chain();
    let (mut replica, outputs) = newcomer(&sim, blocks.len() as u64);
    let first = asked(&sim, &outputs).unwrap();
    let mut now = sim.now;
    let second = loop {
        now = replica.next_wake().unwrap().max(now);
        assert!(now.0 < sim.now.0 + 10_000, "another is asked within seconds");
        if let Some(peer) = asked(&sim, &replica.step(now, Input::Wake).unwrap()) {
            break peer;
        }
    };
    assert_ne!(first, second);
}

#[test]
fn what_a_quorum_certified_and_we_compute_otherwise_stops_us_and_names_both() {
    let (sim, blocks) = chain();
    let (mut replica, outputs) = newcomer(&sim, blocks.len() as u64);
    let first = asked(&sim, &outputs).unwrap();
    let mut block = Block::decode(&blocks[0].0).unwrap();
    let ours = std::mem::replace(&mut block.header.state_root, Hash([9; 32]));
    let wrong = vec![(block.encode(), certify(&sim, &block.header, 3))];
    let outputs = hear(&mut replica, &sim, first, PeerMessage::Blocks(wrong)).unwrap();
    let asks = |o: &Output| matches!(o, Output::Send { message: PeerMessage::AskOutcome { .. }, .. });
    assert!(!outputs.is_empty() && outputs.iter().all(asks), "it says nothing else any more: {outputs:?}");
    let when = replica.next_wake().expect("it waits for answers so long");
    let fault = replica.step(when, Input::Wake).expect_err("diverged");
    let told = fault.to_string();
    let names = |what: &str| assert!(told.contains(what), "{what}: {told}");
    assert!(matches!(fault, Fault::Explained(_)), "{told}");
    ["height 1", "state root", &ours.to_string(), &Hash([9; 32]).to_string()].into_iter().for_each(names);
}

#[test]
fn strangers_are_named_and_not_heard() {
    let (sim, blocks) = chain();
    let (mut replica, _) = newcomer(&sim, blocks.len() as u64);
    let stranger = Address([7; 20]);
    let message = PeerMessage::CatchUp { from: Height(1), to: Height(9) };
    let outputs = replica.step(sim.now, Input::Peer { from: stranger, message }).unwrap();
    assert!(matches!(outputs[..], [Output::Misbehaved { peer, .. }] if peer == stranger), "{outputs:?}");
}

#[test]
fn a_disk_of_another_chain_or_with_a_damaged_state_does_not_start() {
    let (mut sim, _) = chain();
    let open = |genesis, disk| Replica::open(sim.now, genesis, None, disk).map(|_| ());
    let other = assent_genesis::testing::devnet(5, 4).genesis;
    let (given, stored) = (other.hash(), sim.genesis.hash());
    let genesis = sim.genesis.clone();
    let disk = sim_disk(&sim);
    assert_eq!(open(other, disk.clone()), Err(Fault::OtherGenesis { stored, given }));
    assert_eq!(open(genesis.clone(), disk.clone()), Ok(()));
    let mut lost = disk.clone();
    lost.leaves.pop_last();
    assert!(matches!(open(genesis.clone(), lost), Err(Fault::DamagedState { .. })));
    let mut hole = disk.clone();
    hole.blocks.pop_last();
    assert!(matches!(open(genesis, hole), Err(Fault::DamagedBlock { .. })));
    sim.stop(0);
}

fn sim_disk(sim: &Sim) -> Disk {
    sim.replica(0).expect("on").storage_ref().clone()
}

#[test]
fn a_replay_is_refused_after_a_restart_too() {
    let (sim, blocks) = chain();
    let with =
        blocks.iter().map(|(b, _)| Block::decode(b).unwrap()).find(|b| !b.transactions.is_empty()).unwrap();
    let tx = verify(&sim.genesis.hash(), &with.transactions).remove(0).unwrap();
    let (body, txs) = (tx.body_id(), vec![tx]);
    let (mut replica, _) = Replica::open(sim.now, sim.genesis.clone(), None, sim_disk(&sim)).unwrap();
    let outputs = replica.step(sim.now, Input::Transactions { txs, gossip: true }).unwrap();
    let refused =
        |o: &Output| matches!(o, Output::Refused { body: b, reason: Invalid::Replay, .. } if *b == body);
    assert!(outputs.iter().any(refused), "{outputs:?}");
    assert!(!replica.pending(&body));
}

#[test]
fn what_came_over_the_own_door_is_passed_on_once_and_nothing_else() {
    let sim = Sim::new(1, Weather::FAIR);
    let tx = sim.enrolment("person");
    let passed_on = |outputs: &[Output]| {
        outputs.iter().filter(|o| matches!(o, Output::Broadcast(PeerMessage::Transactions(_)))).count()
    };
    let (mut a, _) = Replica::open(sim.now, sim.genesis.clone(), None, Disk::default()).unwrap();
    let hand_in = |gossip| Input::Transactions { txs: vec![tx.clone()], gossip };
    assert_eq!(passed_on(&a.step(sim.now, hand_in(true)).unwrap()), 1);
    assert_eq!(passed_on(&a.step(sim.now, hand_in(true)).unwrap()), 0);
    let (mut b, _) = Replica::open(sim.now, sim.genesis.clone(), None, Disk::default()).unwrap();
    assert_eq!(passed_on(&b.step(sim.now, hand_in(false)).unwrap()), 0);
    assert_eq!(b.status().pool_transactions, 1);
}

/// A validator that was just started and is connected to all others.
fn asking(sim: &Sim, at: usize, disk: Disk) -> (Replica<Disk>, Vec<Output>) {
    let (mut replica, mut outputs) =
        Replica::open(sim.now, sim.genesis.clone(), Some(sim.keys[at].clone()), disk).unwrap();
    for peer in (0..4).filter(|p| *p != at) {
        outputs.extend(replica.step(sim.now, Input::PeerUp(sim.addresses[peer])).unwrap());
    }
    (replica, outputs)
}

/// The proposer of block 1, another validator, and the proposer's proposal with its parts.
struct Proposed {
    sim: Sim,
    proposer: Replica<Disk>,
    voter: Replica<Disk>,
    proposal: SignedProposal,
    block: Block,
}

const PROPOSER: usize = 1;
const VOTER: usize = 2;

fn proposed() -> Proposed {
    let sim = Sim::new(1, Weather::FAIR);
    let open = |i: usize| {
        let (mut replica, mut outputs) = asking(&sim, i, Disk::default());
        for peer in (0..4).filter(|p| *p != i) {
            outputs.extend(hear(&mut replica, &sim, peer, PeerMessage::Votes(None)).unwrap());
        }
        (replica, outputs)
    };
    let ((proposer, outputs), (voter, _)) = (open(PROPOSER), open(VOTER));
    let proposal = outputs.iter().find_map(|o| match o {
        Output::Broadcast(PeerMessage::Consensus(ConsensusMessage::Proposal(p))) => Some(p.clone()),
        _ => None,
    });
    let part = outputs.iter().find_map(|o| match o {
        Output::Broadcast(PeerMessage::Part(p)) => Some(p.bytes.clone()),
        _ => None,
    });
    let block = Block::decode(&part.expect("its body in one part")).unwrap();
    Proposed { proposer, voter, proposal: proposal.expect("it is its turn"), block, sim }
}

impl Proposed {
    /// Changes the block and signs it anew, as a lying proposer would.
    fn lie(&mut self, change: impl FnOnce(&mut Block)) {
        change(&mut self.block);
        self.proposal.header = self.block.header.clone();
        let message = self.proposal.message(&self.sim.genesis.hash());
        self.proposal.signature = self.sim.keys[PROPOSER].sign(&message.0);
    }

    fn voter_hears(&mut self, message: PeerMessage) -> Vec<Output> {
        let from = self.sim.addresses[PROPOSER];
        self.voter.step(self.sim.now, Input::Peer { from, message }).unwrap()
    }

    fn hear_proposal(&mut self) -> Vec<Output> {
        let proposal = ConsensusMessage::Proposal(self.proposal.clone());
        self.voter_hears(PeerMessage::Consensus(proposal))
    }

    fn hear_parts(&mut self) -> Vec<Output> {
        let header = &self.block.header;
        let parts = assent_replica::Part::split(header.height, 0, header.id(), &self.block.encode());
        parts.into_iter().flat_map(|p| self.voter_hears(PeerMessage::Part(p))).collect()
    }
}

/// The prevote among the outputs: for a block, or for nil.
fn prevote(outputs: &[Output]) -> Option<Option<BlockId>> {
    outputs.iter().find_map(|o| match o {
        Output::Broadcast(PeerMessage::Consensus(ConsensusMessage::Vote(v)))
            if v.kind == VoteKind::Prevote =>
        {
            Some(v.block)
        }
        _ => None,
    })
}

#[test]
fn a_block_is_voted_for_once_its_body_is_here_whatever_came_first() {
    for parts_first in [false, true] {
        let mut p = proposed();
        let id = p.block.header.id();
        let (first, second) = match parts_first {
            true => (p.hear_parts(), p.hear_proposal()),
            false => (p.hear_proposal(), p.hear_parts()),
        };
        assert_eq!(prevote(&first), None);
        assert_eq!(prevote(&second), Some(Some(id)));
        let kept = assent_replica::Storage::proposals(p.voter.storage(), Height(1)).unwrap();
        assert_eq!(kept, [(0, p.block.encode())], "the body is on disk before the vote is sent");
    }
}

#[test]
fn a_body_that_was_lost_is_asked_for() {
    let mut p = proposed();
    p.hear_proposal();
    let mut now = p.sim.now;
    let request = loop {
        now = p.voter.next_wake().unwrap().max(now);
        assert!(now.0 <= p.sim.now.0 + 500, "within half a second");
        let outputs = p.voter.step(now, Input::Wake).unwrap();
        let request = outputs.into_iter().find_map(|o| match o {
            Output::Send { to, message: m @ PeerMessage::GetProposal { .. } } => Some((to, m)),
            _ => None,
        });
        if let Some(request) = request {
            break request;
        }
    };
    assert_eq!(request.0, p.sim.addresses[PROPOSER], "the proposer is asked first");
    let asker = p.sim.addresses[VOTER];
    let outputs = p.proposer.step(now, Input::Peer { from: asker, message: request.1 }).unwrap();
    let mut heard = Vec::new();
    for output in outputs {
        if let Output::Send { to, message } = output {
            assert_eq!(to, asker);
            heard.extend(p.voter_hears(message));
        }
    }
    assert_eq!(prevote(&heard), Some(Some(p.block.header.id())));
}

#[test]
fn a_block_that_breaks_a_rule_gets_a_vote_for_nil() {
    let rules: [(&str, Break); 11] = [
        ("version", |h| h.version = 2),
        ("parent", |h| h.parent = BlockId(Hash([1; 32]))),
        ("time", |h| h.time = assent_genesis::testing::TIME),
        ("builder", |h| h.builder = Address([1; 20])),
        ("body length", |h| h.body_bytes += 1),
        ("events root", |h| h.events_root = Hash([1; 32])),
        ("history root", |h| h.history_root = Hash([1; 32])),
        ("state root", |h| h.state_root = Hash([1; 32])),
        ("validators", |h| h.validators = Hash([1; 32])),
        ("next validators", |h| h.next_validators = Hash([1; 32])),
        ("time of day", |h| h.time = TimeMs(1)),
    ];
    for (rule, break_it) in rules {
        let mut p = proposed();
        p.lie(|b| break_it(&mut b.header));
        p.hear_proposal();
        assert_eq!(prevote(&p.hear_parts()), Some(None), "{rule}");
    }
}

#[test]
fn a_transaction_that_is_not_valid_makes_its_block_invalid() {
    let sim = Sim::new(1, Weather::FAIR);
    let good = sim.enrolment("person");
    let forged = {
        let mut bytes = good.bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    let blocks = [
        ("a forged signature", vec![forged]),
        ("the same thing twice", vec![good.bytes().clone(), good.bytes().clone()]),
        ("no transaction at all", vec![Bytes::from_static(b"garbage")]),
    ];
    for (what, transactions) in blocks {
        let mut p = proposed();
        p.lie(|b| {
            b.header.tx_root = block::tx_root(&transactions);
            b.header.body_bytes = transactions.iter().map(Bytes::len).sum::<usize>() as u32;
            b.transactions = transactions;
        });
        p.hear_proposal();
        assert_eq!(prevote(&p.hear_parts()), Some(None), "{what}");
    }
}

/// What was signed among the outputs.
fn signed(outputs: &[Output]) -> Vec<&ConsensusMessage> {
    let message = |o: &'_ Output| matches!(o, Output::Broadcast(PeerMessage::Consensus(_)));
    let told = outputs.iter().filter(|o| message(o)).filter_map(|o| match o {
        Output::Broadcast(PeerMessage::Consensus(m)) => Some(m),
        _ => None,
    });
    told.collect()
}

fn prevote_of(sim: &Sim, at: usize, height: u64, round: u32) -> ConsensusMessage {
    let (kind, block, validator) = (VoteKind::Prevote, Some(BlockId(Hash([8; 32]))), sim.addresses[at]);
    let genesis = sim.genesis.hash();
    let message = vote_message(&genesis, kind, Height(height), round, block.as_ref(), &validator);
    let signature = sim.keys[at].sign(&message.0);
    ConsensusMessage::Vote(SignedVote { kind, height: Height(height), round, block, validator, signature })
}

#[test]
fn after_a_start_nothing_is_signed_before_a_quorum_has_told_what_it_has_seen() {
    let sim = Sim::new(1, Weather::FAIR);
    let (mut replica, outputs) = asking(&sim, PROPOSER, Disk::default());
    let asks = |o: &Output| matches!(o, Output::Send { message: PeerMessage::AskVotes, .. });
    assert_eq!(outputs.iter().filter(|o| asks(o)).count(), 3, "each is asked once");
    assert!(signed(&outputs).is_empty() && replica.status().inquiring);
    let answer = |message: Option<ConsensusMessage>| PeerMessage::Votes(message.map(Box::new));
    // One that shows what is not ours is blamed, and is no answer; one that answers twice answers once.
    let outputs = hear(&mut replica, &sim, 0, answer(Some(prevote_of(&sim, 2, 9, 0)))).unwrap();
    assert_eq!(blamed(&sim, &outputs), [0]);
    for _ in 0..2 {
        let outputs = hear(&mut replica, &sim, 2, answer(None)).unwrap();
        assert!(signed(&outputs).is_empty() && replica.status().inquiring);
    }
    let outputs = hear(&mut replica, &sim, 3, answer(None)).unwrap();
    assert!(!signed(&outputs).is_empty() && !replica.status().inquiring, "three of four are a quorum");
}

#[test]
fn who_does_not_answer_for_our_votes_is_asked_again() {
    let sim = Sim::new(1, Weather::FAIR);
    let (mut replica, _) = asking(&sim, PROPOSER, Disk::default());
    let (mut now, mut again) = (sim.now, Vec::new());
    loop {
        now = replica.next_wake().unwrap().max(now.plus(1));
        if now > sim.now.plus(1_200) {
            break;
        }
        again.extend(replica.step(now, Input::Wake).unwrap());
    }
    let asked = again.iter().filter(|o| matches!(o, Output::Send { message: PeerMessage::AskVotes, .. }));
    assert_eq!(asked.count(), 6, "twice in the second that follows");
    assert!(signed(&again).is_empty());
}

#[test]
fn a_vote_of_ours_that_we_do_not_remember_keeps_us_from_signing_until_it_is_past() {
    let (sim, blocks) = chain();
    let height = blocks.len() as u64;
    let (mut replica, _) = asking(&sim, 3, sim_disk(&sim));
    let remembered = PeerMessage::Votes(Some(Box::new(prevote_of(&sim, 3, height + 1, 2))));
    let mut outputs = hear(&mut replica, &sim, 0, remembered).unwrap();
    outputs.extend(hear(&mut replica, &sim, 1, PeerMessage::Votes(None)).unwrap());
    let tx = sim.enrolment("one more");
    outputs.extend(replica.step(sim.now, Input::Transactions { txs: vec![tx], gossip: true }).unwrap());
    assert!(signed(&outputs).is_empty(), "{outputs:?}");
    let floor = assent_consensus::Floor::of(&prevote_of(&sim, 3, height + 1, 2));
    assert_eq!(replica.status().abstaining, Some(assent_consensus::Abstention::Floor(floor)));
}

#[test]
fn what_a_validator_was_heard_to_say_last_is_told_to_it_after_its_start() {
    let mut p = proposed();
    p.hear_proposal();
    let outputs = p.voter_hears(PeerMessage::AskVotes);
    let told = outputs.iter().find_map(|o| match o {
        Output::Send { to, message: PeerMessage::Votes(m) } if *to == p.sim.addresses[PROPOSER] => m.clone(),
        _ => None,
    });
    assert_eq!(told, Some(Box::new(ConsensusMessage::Proposal(p.proposal.clone()))));
}

#[test]
fn who_votes_alone_asks_nobody() {
    let made = assent_genesis::testing::devnet(1, 1);
    let key = made.nodes[0].consensus.clone();
    let now = made.genesis.time().plus(60_000);
    let (replica, _) = Replica::open(now, made.genesis, Some(key), Disk::default()).unwrap();
    let status = replica.status();
    assert!(!status.inquiring && status.voting && !status.waiting_for_quorum);
    assert_eq!(status.height, Height(1), "the first heartbeat");
}

#[test]
fn the_status_says_who_is_missing() {
    let sim = Sim::new(1, Weather::FAIR);
    let (mut replica, _) = asking(&sim, 0, Disk::default());
    let seen = |r: &Replica<Disk>| {
        let s = r.status();
        (s.connected, s.validators, s.voting, s.waiting_for_quorum)
    };
    assert_eq!(seen(&replica), (3, 4, true, false));
    replica.step(sim.now, Input::PeerDown(sim.addresses[1])).unwrap();
    assert_eq!(seen(&replica), (2, 4, true, false));
    replica.step(sim.now, Input::PeerDown(sim.addresses[2])).unwrap();
    assert_eq!(seen(&replica), (1, 4, true, true));
    let (observer, _) = Replica::open(sim.now, sim.genesis.clone(), None, Disk::default()).unwrap();
    assert_eq!(seen(&observer), (0, 4, false, true));
}

#[test]
fn a_contradiction_is_told_once() {
    let mut p = proposed();
    p.hear_proposal();
    let told = |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::Equivocation(_))).count();
    p.lie(|b| b.header.time = b.header.time.plus(1));
    let outputs = p.hear_proposal();
    assert_eq!((told(&outputs), blamed(&p.sim, &outputs)), (1, vec![PROPOSER]));
    p.lie(|b| b.header.time = b.header.time.plus(1));
    assert_eq!(told(&p.hear_proposal()), 0, "a third says nothing new");
}

#[test]
fn an_untimely_block_gets_no_answer_until_it_is_timely() {
    let mut p = proposed();
    let bound = p.sim.genesis.parameters().clock_bound_ms;
    let now = p.sim.now;
    p.lie(|b| b.header.time = now.plus(bound + 300));
    p.hear_proposal();
    assert_eq!(prevote(&p.hear_parts()), None, "neither valid nor invalid");
    let wake = p.voter.next_wake().unwrap();
    assert!(wake <= now.plus(300), "it is looked at again when it becomes timely");
    let outputs = p.voter.step(now.plus(300), Input::Wake).unwrap();
    assert_eq!(prevote(&outputs), Some(Some(p.block.header.id())));
}

#[test]
fn a_proposal_that_its_author_did_not_sign_is_blamed_and_its_body_not_executed() {
    let mut p = proposed();
    p.proposal.signature.0[5] ^= 1;
    let outputs = p.hear_proposal();
    assert_eq!(blamed(&p.sim, &outputs), [PROPOSER]);
    assert_eq!(prevote(&p.hear_parts()), None);
}
