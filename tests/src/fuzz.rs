//! What is done with bytes that a fuzzer thinks up: they are decoded as everything that comes from outside, and
//! executed as a chain of properly signed transactions whose bodies are arbitrary. Whatever they are, there is no
//! panic, and what was taken is what was sent.
//!
//! Used by the fuzzer (`tests/fuzz`) and by `tests/tests/corpus.rs`, which runs all that the fuzzer found worth
//! keeping. Nothing here may depend on more than the pure crates, so that the fuzzer builds in a minute.

#![allow(clippy::unwrap_used, reason = "a panic is what the fuzzer looks for")]

use std::sync::LazyLock;

use bytes::Bytes;

use assent_consensus::ConsensusMessage;
use assent_genesis::{Admission, Genesis, Rules, ValidatorPiece};
use assent_ledger::testing::{Scene, digest, secret};
use assent_ledger::{State, parameters};
use assent_proto::evidence::Evidence;
use assent_proto::field::Message;
use assent_proto::keys::SecretKey;
use assent_proto::question::SignedQuestion;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::*;
use assent_replica::PeerMessage;

/// Steps that one input may ask for, so that it ends soon.
const STEPS_MAX: usize = 64;

// ---- decoding

/// Decodes bytes as what their first byte says, as strictly as a node does.
pub fn decode(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else { return };
    match what % 24 {
        0 => same(bytes, Body::decode(bytes).ok().map(|b| b.encode())),
        1 => again::<Block>(bytes),
        2 => again::<Header>(bytes),
        3 => again::<CommitCertificate>(bytes),
        4 => again::<Evidence>(bytes),
        5 => again::<ValidatorSet>(bytes),
        6 => again::<Envelope>(bytes),
        7 => again::<EventCore>(bytes),
        8 => same(bytes, ConsensusMessage::decode(bytes).ok().map(|m| m.encode())),
        9 => same(bytes, PeerMessage::decode(&Bytes::copy_from_slice(bytes)).ok().map(|m| m.encode())),
        10 => text(bytes, |t| drop(Genesis::parse(t))),
        11 => text(bytes, |t| drop(Rules::parse(t))),
        12 => text(bytes, |t| drop(ValidatorPiece::parse(t))),
        13 => text(bytes, |t| drop(Admission::parse(t))),
        14 => drop(Event::decode_whole(bytes)),
        15 => drop(envelope::verify(BASE.scene.world.genesis(), &[Bytes::copy_from_slice(bytes)])),
        16 => again::<SignedQuestion>(bytes),
        _ => object(bytes),
    }
}

fn again<T: Message>(bytes: &[u8]) {
    same(bytes, T::decode(bytes).ok().map(|t| t.encode()));
}

/// One value has one encoding.
fn same(bytes: &[u8], encoded: Option<Bytes>) {
    assert!(encoded.is_none_or(|e| e == bytes), "what was taken is not what was sent");
}

fn text(bytes: &[u8], read: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

fn object(bytes: &[u8]) {
    let Some((kind, content)) = bytes.split_first() else { return };
    drop(Object::decode(ObjectKind::ALL[usize::from(*kind) % ObjectKind::ALL.len()], content));
}

// ---- executing

/// Where every input begins, and which ids and keys its bodies can mean.
struct Base {
    scene: Scene,
    ids: Vec<Hash>,
    ring: Vec<SecretKey>,
}

static BASE: LazyLock<Base> = LazyLock::new(Base::new);

impl Base {
    fn new() -> Base {
        let mut scene = Scene::new();
        scene.settle();
        let four = scene.four.clone();
        let names = ["child", "delegate", "thief"];
        let persons = names.map(|name| scene.world.enrol(&four.bureau, &four.hospital_b, name));
        let openings = [Opening::Unconditional, Opening::RealName, Opening::AfterReview];
        for (n, opening) in (10..).zip(openings) {
            let level = if opening == Opening::Unconditional { Level::None } else { Level::Moderate };
            scene.world.item(&four.hospital_b, n, Category::TestResult, level, opening);
        }
        let terms = scene.terms();
        let grant = scene.grant(terms).unwrap();
        let permit = scene.request(&four.insurer, scene.ask(Some(grant))).unwrap();
        let standing = scene.standing(&four.insurer);
        scene.grant(standing).unwrap();
        let mut ids: Vec<_> = scene.world.state().leaves().map(|leaf| leaf.object.id).collect();
        ids.extend([scene.case.0, permit.0, digest("notice"), digest("staff")]);
        let parties = [four.bureau, four.hospital_a, four.hospital_b, four.insurer, scene.person.clone()];
        let mut ring: Vec<_> = parties.into_iter().chain(persons).map(|p| p.key).collect();
        ring.extend((0..3).map(|n| secret(&format!("spare {n}"))));
        Base { scene, ids, ring }
    }

    fn key(&self, public: &PublicKey) -> Option<&SecretKey> {
        self.ring.iter().find(|key| key.public() == *public)
    }
}

/// Executes what the bytes say: steps of time, ends of blocks, and transactions with their bodies.
///
/// In a body, 32 bytes of which all but the first are zero mean an object or a key that the chain knows. The chain and
/// the moment until which a body is valid are put right, and it is signed by its author's current key, where
/// that is known; a second signature is by the key that the step names.
pub fn execute(mut data: &[u8]) {
    let mut run = Run { scene: BASE.scene.clone(), made: Vec::new(), block: Vec::new(), steps: 0 };
    while run.steps < STEPS_MAX && run.step(&mut data).is_some() {
        run.steps += 1;
    }
    run.end_block(true);
    run.is_sound();
}

struct Run {
    scene: Scene,
    /// Ids of what was done here.
    made: Vec<Hash>,
    block: Vec<VerifiedTx>,
    steps: usize,
}

impl Run {
    fn step(&mut self, data: &mut &[u8]) -> Option<()> {
        let op = take(data)?;
        match op % 4 {
            0 => {
                let (power, more) = (take(data)? % 40, take(data)?);
                self.end_block(true);
                self.scene.world.wait((1 << power) + u64::from(more));
            }
            1 => self.end_block(op & 4 == 0),
            _ => {
                let (second, low, high) = (take(data)?, take(data)?, take(data)?);
                let length = usize::from(u16::from_le_bytes([low, high])).min(data.len());
                let (body, rest) = data.split_at(length);
                *data = rest;
                if let Some(tx) = self.transaction(op, second, body) {
                    self.block.push(tx);
                }
            }
        }
        Some(())
    }

    fn transaction(&mut self, op: u8, second: u8, bytes: &[u8]) -> Option<VerifiedTx> {
        let mut body = Body::decode(&self.with_ids(bytes)).ok()?;
        let world = &self.scene.world;
        body.chain = world.genesis().tag();
        if op & 4 == 0 {
            body.expires_at = world.next().time.plus(60_000 + self.steps as u64);
        }
        let second = &BASE.ring[usize::from(second) % BASE.ring.len()];
        let first = match &body.author {
            Author::Account(id) => {
                let account: Option<Account> = assent_ledger::read(world.state(), *id);
                account.and_then(|a| BASE.key(&a.key_at(world.next().time))).unwrap_or(second)
            }
            Author::Institution(id) => {
                let institution: Option<Institution> = assent_ledger::read(world.state(), *id);
                let keys = institution.map(|i| i.keys);
                let known = keys.iter().flat_map(|keys| keys.iter()).find_map(|key| BASE.key(&key.key));
                known.unwrap_or(second)
            }
        };
        let keys = if op & 8 == 0 { vec![first] } else { vec![first, second] };
        let envelope = Envelope::sign(world.genesis(), &body, &keys).encode();
        let tx = envelope::verify(world.genesis(), &[envelope]).remove(0).ok()?;
        world.check(&tx).ok()?;
        self.block.iter().all(|other| other.body_id() != tx.body_id()).then_some(tx)
    }

    /// The bytes with known ids and keys in place of their numbers.
    fn with_ids(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let mut at = 0;
        while at + 33 <= bytes.len() {
            let number = usize::from(bytes[at + 1]);
            if bytes[at] == 32 && bytes[at + 2..at + 33].iter().all(|b| *b == 0) {
                bytes[at + 1..at + 33].copy_from_slice(&self.known(number));
                at += 32;
            }
            at += 1;
        }
        bytes
    }

    fn known(&self, number: usize) -> [u8; 32] {
        let keys = BASE.ring.len();
        match number.checked_sub(keys) {
            None => BASE.ring[number].public().0.0,
            Some(number) => {
                let all = BASE.ids.iter().chain(&self.made);
                all.clone().nth(number % (BASE.ids.len() + self.made.len())).expect("within them").0
            }
        }
    }

    /// Makes a block of what waits: what protects first, or as it came.
    fn end_block(&mut self, in_phases: bool) {
        let mut txs = std::mem::take(&mut self.block);
        if in_phases {
            txs.sort_by_key(|tx| !tx.body().action.protects());
        }
        let fits = txs.len() <= parameters(self.scene.world.state()).block_transactions_max as usize;
        let made: Vec<_> = txs.iter().map(|tx| tx.body_id().0).collect();
        let before = self.scene.world.state().root();
        match self.scene.world.block(txs) {
            Ok(receipts) => {
                assert_eq!(receipts.len(), made.len(), "each has its receipt");
                self.made.extend(made);
            }
            Err(_) => {
                assert!(!in_phases || !fits, "what may be in a block makes a block");
                assert_eq!(self.scene.world.state().root(), before);
            }
        }
    }

    /// What the chain has become is what it says: each leaf can be read, the root is that of the leaves, no
    /// grant is used more often than it allows.
    fn is_sound(&self) {
        let state = self.scene.world.state();
        assert_eq!(State::from_leaves(state.leaves()).root(), state.root(), "the root is the leaves'");
        for leaf in state.leaves() {
            let object =
                Object::decode(leaf.object.kind, &leaf.content).expect("what was written can be read");
            if let Object::Grant(grant) = object {
                let bounded = grant.terms.mode != Mode::Standing;
                assert!(!bounded || grant.used <= grant.terms.uses, "used more often than granted");
            }
        }
        for event in self.scene.world.events() {
            assert_eq!(Event::decode_whole(&event.encode()).as_ref(), Ok(event));
        }
    }
}

fn take(data: &mut &[u8]) -> Option<u8> {
    let (first, rest) = data.split_first()?;
    *data = rest;
    Some(*first)
}

// ---- where the fuzzer begins

/// Inputs for [`execute`] out of bodies: each alone, with a second signature or without, and all one after another,
/// as a chain that grows. Ids that a body repeats stay the same in all of them.
pub fn seeds(bodies: &[Bytes]) -> Vec<Vec<u8>> {
    let step = |op: u8, body: &[u8]| {
        let body = with_numbers(body);
        let length = u16::try_from(body.len()).unwrap().to_le_bytes();
        [&[op, 4, length[0], length[1]], &body[..], &[1]].concat()
    };
    let alone = bodies.iter().flat_map(|body| [step(2, body), step(10, body)]);
    let all = |op: u8| bodies.iter().flat_map(|body| step(op, body)).collect::<Vec<_>>();
    alone
        .chain(bodies.chunks(6).map(|some| some.iter().flat_map(|b| step(10, b)).collect()))
        .chain([all(2)])
        .collect()
}

/// The bytes with a number in place of each id of 32 bytes.
fn with_numbers(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let mut at = 0;
    while at + 33 <= body.len() {
        let id = &body[at + 1..at + 33];
        if body[at] == 32 && id.iter().all(|b| *b == id[0]) {
            body[at + 2..at + 33].fill(0);
            at += 32;
        }
        at += 1;
    }
    body
}
