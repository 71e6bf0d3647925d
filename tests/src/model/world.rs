//! The small world in which sequences happen: seven institutions, their keys, five persons, some items with records.
//! Everything is derived from fixed bytes. What was anchored under which root is remembered here, as custodians do.

use std::collections::BTreeMap;

use assent_genesis::devnet::Devnet;
use assent_ledger::testing::{digest, list, secret};
use assent_ledger::{BlockContext, State};
use assent_proto::envelope::{Envelope, VerifiedTx, verify};
use assent_proto::field::Message;
use assent_proto::ids::*;
use assent_proto::keys::{PublicKey, SecretKey};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Hash, Leaf};

use super::{Founding, Model};

/// How many ways the chain is founded in.
pub(crate) const FOUNDINGS: u64 = 4;

/// Keys, and what only custodians know.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) genesis: GenesisHash,
    pub(crate) keys: BTreeMap<PublicKey, SecretKey>,
    pub(crate) voters: Vec<(InstitutionId, SecretKey)>,
    /// The records under each root.
    pub(crate) anchored: BTreeMap<Hash, Vec<Record>>,
    sequence: u64,
}

/// A founding of both sides.
pub(crate) struct Founded {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) state: State,
}

/// The `n`th founding.
pub(crate) fn found(n: u64) -> Founded {
    let devnet = assent_genesis::testing::devnet(4, 7);
    let mut leaves: Vec<_> = devnet.genesis.leaves().into_iter().map(|l| amended(l, &devnet, n)).collect();
    // As after a change that brought version 2 into force.
    let version = if n == 2 { 2 } else { 1 };
    if version != 1 {
        let (object, protocol) = (ObjectRef::PROTOCOL, Protocol { active: version, next: None });
        leaves.push(Leaf { object, content: protocol.encode(), trail: object.new_trail() });
    }
    let get = |object: &ObjectRef| {
        let leaf = leaves.iter().find(|l| l.object == *object).expect("it is founded");
        Object::decode(leaf.object.kind, &leaf.content).expect("a founding is canonical")
    };
    let institutions = devnet.genesis.institutions().iter().map(|i| match get(&i.id.into()) {
        Object::Institution(x) => (i.id, x),
        _ => unreachable!("it is an institution"),
    });
    let (Object::Policy(policy), Object::Parameters(parameters), Object::Nodes(nodes)) =
        (get(&ObjectRef::POLICY), get(&ObjectRef::PARAMETERS), get(&ObjectRef::NODES))
    else {
        unreachable!("these are what they are named")
    };
    let founding = Founding {
        institutions: institutions.collect(),
        parameters,
        policy,
        validators: devnet.genesis.validators().clone(),
        nodes: nodes.nodes.into_vec(),
        version,
    };
    let at = BlockContext { height: Height(0), time: devnet.genesis.time() };
    let world = World::of(&devnet);
    Founded { world, model: Model::found(founding, at), state: State::from_leaves(leaves) }
}

/// Gives the devnet's hospitals the parts that a devnet has not, and bounds at which something happens.
fn amended(leaf: Leaf, devnet: &Devnet, n: u64) -> Leaf {
    let start = devnet.genesis.time();
    let slug = devnet.genesis.institutions().iter().find(|i| ObjectRef::from(i.id) == leaf.object);
    let content = match Object::decode(leaf.object.kind, &leaf.content).expect("canonical") {
        Object::Institution(mut i) => {
            match slug.map_or("", |i| i.slug.as_str()) {
                "hospital-b" => i.rostered_until = Some(start.plus(9 * DAY_MS)),
                // It holds data and runs no validator, so it can be suspended.
                "hospital-c" => (i.roles, i.rostered_until) = (list(vec![Role::Court, Role::Hospital]), None),
                "hospital-d" => {
                    (i.roles, i.rostered_until) = (list(vec![Role::Regulator, Role::Auditor]), None);
                }
                "hospital-e" => {
                    (i.roles, i.max_level) = (list(vec![Role::Processor]), Level::Low);
                    i.rostered_until = Some(start.plus(2 * DAY_MS));
                }
                "insurer" => (i.max_level, i.jurisdiction) = (Level::Moderate, 344),
                _ => (),
            }
            i.encode()
        }
        Object::Parameters(mut p) => {
            match n {
                1 => (p.equivocation, p.recovery_approvals) = (Consequence::Remove, 1),
                2 => (p.recovery_approvals, p.permit_life_ms) = (3, 3_600_000),
                3 => (p.emergency_review_ms, p.erasure_deadline_ms) = (DAY_MS, DAY_MS),
                _ => (),
            }
            p.encode()
        }
        Object::Policy(mut p) => {
            if n == 3 {
                let entry = Prohibition {
                    purpose: Some(Purpose::Research),
                    item: None,
                    category: Some(Category::TestResult),
                };
                (p.prohibited, p.committee.approvals) = (list(vec![entry]), 3);
            }
            p.encode()
        }
        _ => return leaf,
    };
    Leaf { content, ..leaf }
}

pub(crate) const DAY_MS: u64 = 86_400_000;

impl World {
    fn of(devnet: &Devnet) -> World {
        let operators = devnet.institutions.iter().map(|i| i.operator.clone());
        let nodes = devnet.nodes.iter().flat_map(|n| [n.consensus.clone(), n.network.clone()]);
        let own = (0..32).map(wallet).chain((0..12).map(operator)).chain((0..8).map(consensus));
        let keys = operators.chain(nodes).chain(own).map(|k| (k.public(), k)).collect();
        let institution = |slug: &str| assent_genesis::institution_id(slug);
        let voters =
            devnet.nodes.iter().map(|n| (institution(&n.institution), n.consensus.clone())).collect();
        let genesis = devnet.genesis.hash();
        World { genesis, keys, voters, anchored: BTreeMap::new(), sequence: 0 }
    }

    /// A body of its own.
    pub(crate) fn body(&mut self, author: Author, action: Action, expires_at: TimeMs) -> Body {
        self.sequence += 1;
        Body { chain: self.genesis.tag(), expires_at: expires_at.plus(self.sequence), author, action }
    }

    pub(crate) fn secret(&self, key: &PublicKey) -> &SecretKey {
        self.keys.get(key).expect("every key of this world is known")
    }

    pub(crate) fn seal(&self, bodies: &[(Body, Vec<PublicKey>)]) -> Vec<VerifiedTx> {
        let sign = |(body, keys): &(Body, Vec<PublicKey>)| {
            let keys: Vec<_> = keys.iter().map(|k| self.secret(k)).collect();
            Envelope::sign(&self.genesis, body, &keys).encode()
        };
        let bytes: Vec<_> = bodies.iter().map(sign).collect();
        verify(&self.genesis, &bytes)
            .into_iter()
            .map(|tx| tx.expect("what is made here is canonical"))
            .collect()
    }
}

pub(crate) fn wallet(n: u64) -> SecretKey {
    secret(&format!("wallet {n}"))
}

pub(crate) fn operator(n: u64) -> SecretKey {
    secret(&format!("operator {n}"))
}

pub(crate) fn consensus(n: u64) -> SecretKey {
    secret(&format!("consensus {n}"))
}

pub(crate) fn case(n: u64) -> CaseId {
    CaseId(digest(&format!("case {n}")))
}

pub(crate) fn artifact(n: u64) -> ArtifactId {
    ArtifactId(digest(&format!("product {n}")))
}

/// An institution that is never there unless it is admitted.
pub(crate) fn newcomer() -> InstitutionId {
    InstitutionId(digest("newcomer"))
}

/// The same at every call with the same seed: SplitMix64.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// So many times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let i = self.below(of.len() as u64) as usize;
        of.get(i).cloned()
    }

    /// One of what is always there.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        self.pick(of).expect("it is never empty")
    }
}
