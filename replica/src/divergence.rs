//! What a validator does when a quorum certified what it computes otherwise: it signs nothing more, keeps its
//! disk as it is, asks its peers what came of that block with them, and says which transaction and which leaf
//! differ first. Then it stops. What it answers to another that asks so stands here too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use assent_ledger::{Applied, InvalidBlock};
use assent_proto::envelope::Envelope;
use assent_proto::field::Message;
use assent_proto::transaction::body_id;
use assent_proto::{
    Address, Author, Block, Body, BodyId, CertifiedHeader, GenesisHash, Hash, Height, Leaf, ObjectRef,
    TimeMs, merkle,
};

use crate::catchup::diverged;
use crate::execute::{self, Reject};
use crate::message::{Outcome, PeerMessage};
use crate::replica::{Fault, Input, Output, Replica};
use crate::storage::{Commit, Storage};

/// How long peers have to answer, ms.
const ANSWER_MS: u64 = 10_000;
/// Commits that are remembered for others, and the bytes of their blocks.
const RECENT_MAX: usize = 64;
const RECENT_BYTES_MAX: usize = 16 << 20;
/// Between two answers to whomever, ms: each costs hashing a block's leaves.
const SERVE_MS: u64 = 250;
/// Bytes of an answer.
const OUTCOME_BYTES_MAX: usize = 12 << 20;

/// Where this validator parted from the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The height.
    pub height: Height,
    /// Id of the certified block.
    pub block: assent_proto::BlockId,
    /// What differs in the header, or why the block is not valid here.
    pub what: String,
    /// The first transaction that differs: its index and body id.
    pub transaction: Option<(u32, BodyId)>,
    /// The first object whose leaf differs.
    pub key: Option<ObjectRef>,
    /// The hash of its leaf here, after the block or, if it is not valid here, before it.
    pub ours: Option<Hash>,
    /// The hash of its leaf with the others after the block.
    pub theirs: Option<Hash>,
    /// How many peers told the same of the others' side.
    pub told_by: usize,
    /// Objects whose leaves in memory are not what their hashes or the disk say: the machine failed, not the rules.
    pub damaged: Vec<ObjectRef>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        match &self.transaction {
            Some((index, body)) => write!(f, "; first differs transaction {index}, {body}")?,
            None => write!(f, "; no transaction of the block differs by itself")?,
        }
        if let Some(key) = &self.key {
            let hash = |h: &Option<Hash>| h.map_or("not there".into(), |h| h.to_string());
            let (ours, theirs) = (hash(&self.ours), hash(&self.theirs));
            write!(f, "; first differs {:?} {}: {ours} here, {theirs} with the others", key.kind, key.id)?;
            write!(f, " ({} told so)", self.told_by)?;
        }
        if !self.damaged.is_empty() {
            write!(f, "; {} leaves in memory are not those on disk", self.damaged.len())?;
        }
        Ok(())
    }
}

/// The question that is open after a divergence.
pub(crate) struct Case {
    fault: Fault,
    certified: CertifiedHeader,
    block: Option<Block>,
    /// The transaction at which the block is not valid here.
    refused: Option<u32>,
    ours: Option<Applied>,
    silent: BTreeSet<Address>,
    told: BTreeMap<Address, Box<Outcome>>,
    until: Option<TimeMs>,
}

/// What came of the newest blocks, for others that ask.
#[derive(Default)]
pub(crate) struct Recent {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    due: TimeMs,
}

impl Recent {
    /// A block became final.
    pub(crate) fn committed(&mut self, commit: &Arc<Commit>) {
        self.bytes += commit.block.len();
        self.commits.push_back(commit.clone());
        while self.commits.len() > RECENT_MAX || self.commits.len() > 1 && self.bytes > RECENT_BYTES_MAX {
            let dropped = self.commits.pop_front().expect("there are several");
            self.bytes -= dropped.block.len();
        }
    }
}

impl Case {
    /// When the question is given up.
    pub(crate) fn until(&self) -> Option<TimeMs> {
        self.until
    }
}

impl<S: Storage> Replica<S> {
    /// Makes one leaf of the state another than its hash says, as a fault of the memory does. For tests.
    #[doc(hidden)]
    pub fn damage_state(&mut self, leaf: Leaf) {
        self.head.state = self.head.state.damaged(leaf);
    }

    /// Whether this validator has parted from the chain and asks why.
    pub fn is_diverged(&self) -> bool {
        self.case.as_ref().is_some_and(|c| c.until.is_some())
    }

    // ---- for others

    /// A peer asks what came of a block.
    pub(crate) fn outcome_asked(&mut self, to: Address, height: Height) -> Result<(), Fault> {
        if self.now < self.recent.due || !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        self.recent.due = self.now.plus(SERVE_MS);
        let recent = self.recent.commits.iter().find(|c| c.height() == height);
        let (events, changes) = match recent {
            Some(commit) => (commit.events.clone(), changes(&commit.leaves, &commit.removed)),
            None => (self.storage.events(height)?.unwrap_or_default(), BTreeMap::new()),
        };
        let fits = events.len() * 36 + changes.len() * 65 <= OUTCOME_BYTES_MAX;
        let changes = if fits { changes } else { BTreeMap::new() };
        let outcome = Outcome {
            height,
            transactions: events.iter().map(|e| e.core.transaction).collect(),
            events: events.iter().map(assent_proto::Event::leaf).collect(),
            changes: changes.into_iter().collect(),
        };
        self.out.push(Output::Send { to, message: PeerMessage::Outcome(Box::new(outcome)) });
        Ok(())
    }

    // ---- for us

    /// A quorum certified what is not valid here: remembers the case, and says so.
    pub(crate) fn diverge(
        &mut self,
        certified: CertifiedHeader,
        bytes: Option<Bytes>,
        reject: Reject,
    ) -> Fault {
        let refused = refused_at(&reject);
        let fault = diverged(certified.header.height, reject);
        let id = certified.header.id();
        let block = bytes.and_then(|bytes| execute::decode(&id, &bytes).ok());
        let ours = block.as_ref().and_then(|b| execute::outcome(&self.chain, &self.head, &self.pool, b));
        self.case = Some(Box::new(Case {
            fault: fault.clone(),
            certified,
            block,
            refused,
            ours,
            silent: BTreeSet::new(),
            told: BTreeMap::new(),
            until: None,
        }));
        fault
    }

    /// After a fault: if it is a divergence that peers can explain, they are asked; else it stands.
    pub(crate) fn ask_why(&mut self, fault: Fault) -> Result<Vec<Output>, Fault> {
        let peers = self.catch_up.in_turn(TimeMs(u64::MAX));
        let Some(case) = self.case.as_mut().filter(|c| c.fault == fault) else { return Err(fault) };
        let height = case.certified.header.height;
        case.silent = peers.iter().copied().collect();
        case.until = Some(self.now.plus(ANSWER_MS));
        for to in peers {
            self.out.push(Output::Send { to, message: PeerMessage::AskOutcome { height } });
        }
        self.close_case()
    }

    /// Nothing else is heard any more than what explains the divergence.
    pub(crate) fn hear_why(&mut self, input: Input) -> Result<Vec<Output>, Fault> {
        let Some(case) = &mut self.case else { return Ok(Vec::new()) };
        match input {
            Input::Peer { from, message: PeerMessage::Outcome(outcome) } if case.silent.remove(&from) => {
                let header = &case.certified.header;
                // The events are proved by the certified header; whoever shows others tells nothing.
                if outcome.height == header.height && merkle::root(&outcome.events) == header.events_root {
                    case.told.insert(from, outcome);
                }
            }
            Input::PeerDown(peer) => {
                case.silent.remove(&peer);
            }
            Input::Transactions { txs, .. } => {
                let refused = |tx: &assent_proto::VerifiedTx| Output::Refused {
                    envelope: tx.envelope_id(),
                    body: tx.body_id(),
                    reason: assent_proto::Invalid::Busy,
                };
                self.out.extend(txs.iter().map(refused));
            }
            _ => {}
        }
        self.close_case()
    }

    /// Stops with what was found out, once everyone has answered or the time is up.
    fn close_case(&mut self) -> Result<Vec<Output>, Fault> {
        let waiting = |c: &Case| !c.silent.is_empty() && c.until.is_some_and(|until| self.now < until);
        if self.case.as_deref().is_some_and(waiting) {
            return Ok(std::mem::take(&mut self.out));
        }
        let damaged = self.damaged_leaves()?;
        let case = self.case.take().expect("the case is open");
        Err(Fault::Explained(Box::new(self.explain(*case, damaged))))
    }

    /// Objects whose leaves are not what their hashes or the disk say.
    fn damaged_leaves(&mut self) -> Result<Vec<ObjectRef>, Fault> {
        let mut damaged: BTreeSet<_> = self.head.state.unsound().into_iter().collect();
        let state = &self.head.state;
        self.storage.leaves(&mut |leaf| {
            if state.get(&leaf.object).as_ref() != Some(&leaf) {
                damaged.insert(leaf.object);
            }
        })?;
        Ok(damaged.into_iter().collect())
    }

    fn explain(&self, case: Case, damaged: Vec<ObjectRef>) -> Divergence {
        let genesis = self.chain.genesis;
        let (theirs, told_by) = most_told(&case.told);
        let differs = first_difference(&case, theirs);
        let transaction = differs.or(case.refused);
        let identified = transaction.and_then(|index| {
            let envelope = case.block.as_ref()?.transactions.get(index as usize)?;
            identify(&genesis, envelope).map(|(id, body)| (index, id, body))
        });
        let key = differing_key(&case, theirs, transaction, &damaged);
        let author = identified.as_ref().map(|(_, _, body)| match body.author {
            Author::Institution(id) => id.into(),
            Author::Account(id) => ObjectRef::from(id),
        });
        let key = key.or(author.filter(|_| case.ours.is_none()));
        let ours = key.and_then(|key| match &case.ours {
            Some(applied) => applied.state.get(&key).map(|leaf| leaf.hash()),
            None => self.head.state.get(&key).map(|leaf| leaf.hash()),
        });
        let changed = |key: &ObjectRef| theirs?.changes.iter().find(|(k, _)| k == key).map(|(_, h)| *h);
        let there = |hash: &Hash| *hash != Hash::ZERO;
        Divergence {
            height: case.certified.header.height,
            block: case.certified.header.id(),
            what: case.fault.to_string(),
            transaction: identified.map(|(index, id, _)| (index, id)),
            ours,
            theirs: key.as_ref().and_then(changed).filter(there),
            key,
            told_by,
            damaged,
        }
    }
}

/// What became of each leaf that a block changed: its hash, and zeros for one that has left the state.
fn changes(leaves: &[Leaf], removed: &[ObjectRef]) -> BTreeMap<ObjectRef, Hash> {
    let removed = removed.iter().map(|object| (*object, Hash::ZERO));
    leaves.iter().map(|l| (l.object, l.hash())).chain(removed).collect()
}

/// The transaction at which a block is refused.
fn refused_at(reject: &Reject) -> Option<u32> {
    match reject {
        Reject::Transaction(index, _) => Some(*index as u32),
        Reject::Ledger(
            InvalidBlock::Transaction { index, .. }
            | InvalidBlock::PhaseOrder { index }
            | InvalidBlock::Duplicate { index },
        ) => Some(*index as u32),
        _ => None,
    }
}

/// What most peers tell; those that remember the leaves count for more than any number that do not.
fn most_told(told: &BTreeMap<Address, Box<Outcome>>) -> (Option<&Outcome>, usize) {
    let count = |o: &Outcome| told.values().filter(|other| ***other == *o).count();
    let best = told.values().map(|o| &**o).max_by_key(|o| (!o.changes.is_empty(), count(o)));
    (best, best.map_or(0, count))
}

/// The transaction of the first event that differs.
fn first_difference(case: &Case, theirs: Option<&Outcome>) -> Option<u32> {
    let (ours, theirs) = (&case.ours.as_ref()?.events, theirs?);
    let same = ours.iter().zip(&theirs.events).take_while(|(a, b)| a.leaf() == **b).count();
    let here = ours.get(same).map(|e| e.core.transaction);
    here.into_iter().chain(theirs.transactions.get(same).copied()).min()
}

/// The object whose leaf differs first. One that the machine itself damaged is the cause of all others; otherwise
/// it is one that the first transaction concerns.
fn differing_key(
    case: &Case,
    theirs: Option<&Outcome>,
    transaction: Option<u32>,
    damaged: &[ObjectRef],
) -> Option<ObjectRef> {
    if let Some(first) = damaged.first() {
        return Some(*first);
    }
    let (ours, theirs) = (case.ours.as_ref()?, theirs.filter(|t| !t.changes.is_empty())?);
    let here = changes(&ours.changes, &ours.removed);
    let there: BTreeMap<_, _> = theirs.changes.iter().copied().collect();
    let all: BTreeSet<_> = here.keys().chain(there.keys()).copied().collect();
    let differing: Vec<_> = all.into_iter().filter(|k| here.get(k) != there.get(k)).collect();
    let own = ours.events.iter().filter(|e| Some(e.core.transaction) == transaction);
    let concerned: BTreeSet<_> =
        own.flat_map(|e| e.links.iter().map(|l| l.trail).chain([e.core.object])).collect();
    differing.iter().find(|k| concerned.contains(k)).or(differing.first()).copied()
}

fn identify(genesis: &GenesisHash, envelope: &[u8]) -> Option<(BodyId, Body)> {
    let envelope = Envelope::decode(envelope).ok()?;
    Some((body_id(genesis, &envelope.body), Body::decode(&envelope.body).ok()?))
}
