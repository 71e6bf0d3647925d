//! A whole state instead of all blocks: how it is offered, fetched in parts from several peers, and put in the
//! place of ours.
//!
//! Nothing is believed: the header is certified by the validators to whom the changes since the founding lead,
//! each part is proved to be all that the state holds under its prefix, and the blocks of the replay window hang
//! together by their ids from that header downwards. Blocks below come later ([`crate::backfill`]), those above
//! as always.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use assent_genesis::Genesis;
use assent_ledger::State;
use assent_proto::block::UnknownProtocol;
use assent_proto::evidence::{Trust, verify_header};
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::state::Parameters;
use assent_proto::{Address, BlockId, CertifiedHeader, CommitCertificate, Hash, Height, ObjectRef, TimeMs};

use crate::backfill;
use crate::catchup::Taking;
use crate::execute;
use crate::message::{
    CATCH_UP_BLOCKS_MAX, CATCH_UP_BYTES_MAX, CHUNKS_MAX, Chunk, MESSAGE_BYTES_MAX, Offer, PeerMessage,
    SNAPSHOT_BITS_MAX,
};
use crate::replica::{Fault, Output, Replica};
use crate::restart::restore;
use crate::storage::{Commit, Gap, Storage, Tip};

/// How long offers are waited for, ms.
const OFFER_MS: u64 = 2_000;
/// How long an answer with parts or blocks may take, ms.
const ANSWER_MS: u64 = 5_000;
/// After an attempt that came to nothing, blocks are fetched for so long before the next, ms.
const AGAIN_MS: u64 = 30_000;
/// States that are held for others, and how long one is not given up after it was asked for, ms.
const HELD_MAX: usize = 2;
const HELD_MS: u64 = 60_000;
/// Parts that one peer is asked for at once.
const PARTS_ASKED: u32 = 32;
/// Answers that a peer may owe before it is asked no more for this state.
const MISSES_MAX: u32 = 3;
/// How much shorter a part's way may be than its prefix. Leaves lie evenly, so that it is rarely shorter at all;
/// who offers a state in far too many parts is found out by this.
const SHORTER_MAX: usize = 8;

/// When states are offered and wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRule {
    /// The state after every so many blocks is held for others.
    pub every: u64,
    /// From so many blocks behind on, a state is wanted.
    pub behind: u64,
    /// Leaves in a part of a state, on average.
    pub part_leaves: usize,
}

impl Default for SnapshotRule {
    fn default() -> Self {
        SnapshotRule { every: 1_000, behind: 10_000, part_leaves: 64 }
    }
}

/// States held for others, and the one that is being taken in.
pub(crate) struct Snapshots {
    genesis: Genesis,
    rule: SnapshotRule,
    /// The state at the tip, to be held if someone asks and none is held.
    newest: Option<Held>,
    held: BTreeMap<Height, Held>,
    join: Join,
    not_before: TimeMs,
}

/// A state that is held for others.
#[derive(Clone)]
struct Held {
    /// Without the changes of the validators.
    offer: Offer,
    state: State,
    asked: TimeMs,
}

enum Join {
    Idle,
    Offers(Offers),
    Parts(Box<Parts>),
}

/// Offers are being waited for.
struct Offers {
    until: TimeMs,
    silent: BTreeSet<Address>,
    offers: BTreeMap<Address, Box<Offer>>,
}

/// A state is being taken in: first its parts, then its replay window.
struct Parts {
    offer: Box<Offer>,
    /// Who offered it, and how many answers each owes.
    servers: BTreeMap<Address, u32>,
    todo: BTreeSet<u32>,
    of: u32,
    asked: BTreeMap<Address, Asked>,
    /// How long a transaction may live, once the part with the parameters is here.
    life_ms: Option<u64>,
    /// The next block of the window, downwards, with its id and certificate; none once it is complete.
    window: Option<(Height, BlockId, CommitCertificate)>,
}

struct Asked {
    what: What,
    until: TimeMs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Parts { first: u32, count: u32 },
    Blocks { from: Height },
}

impl Snapshots {
    pub(crate) fn new(genesis: Genesis) -> Snapshots {
        Snapshots {
            genesis,
            rule: SnapshotRule::default(),
            newest: None,
            held: BTreeMap::new(),
            join: Join::Idle,
            not_before: TimeMs(0),
        }
    }

    /// Whether a state is being taken in: blocks above ours are of no use meanwhile.
    pub(crate) fn is_taking(&self) -> bool {
        matches!(self.join, Join::Parts(_))
    }

    /// How far.
    pub(crate) fn taking(&self) -> Option<Taking> {
        let Join::Parts(p) = &self.join else { return None };
        let height = p.offer.certified.header.height;
        Some(Taking { height, parts: p.of - p.todo.len() as u32, of: p.of })
    }

    /// A block became final; `below` is over the ids of those before it.
    pub(crate) fn committed(&mut self, now: TimeMs, below: &Mountains, commit: &Commit, state: &State) {
        let bits = state.bits_for(self.rule.part_leaves).min(SNAPSHOT_BITS_MAX.into()) as u8;
        let (certified, mountains) = (commit.certified.clone(), below.clone());
        let offer = Offer { certified, links: Vec::new(), mountains, bits };
        let held = Held { offer, state: state.clone(), asked: TimeMs(0) };
        if commit.height().0.is_multiple_of(self.rule.every) {
            self.hold(now, held.clone());
        }
        self.newest = Some(held);
    }

    fn hold(&mut self, now: TimeMs, held: Held) {
        self.held.insert(held.offer.certified.header.height, held);
        while self.held.len() > HELD_MAX {
            let newest = self.held.keys().next_back().copied();
            let unused =
                |(h, held): &(&Height, &Held)| Some(**h) != newest && now >= held.asked.plus(HELD_MS);
            let dropped = self.held.iter().find(unused).map(|(h, _)| *h);
            // If all are in use, the one in the middle was begun last.
            let dropped = dropped.or_else(|| self.held.keys().nth(1).copied());
            dropped.and_then(|height| self.held.remove(&height));
        }
    }

    /// When something is due.
    pub(crate) fn next_wake(&self) -> Option<TimeMs> {
        match &self.join {
            Join::Idle => None,
            Join::Offers(o) => Some(o.until),
            Join::Parts(p) => p.asked.values().map(|a| a.until).min(),
        }
    }

    /// A connection is gone.
    pub(crate) fn down(&mut self, peer: &Address) {
        match &mut self.join {
            Join::Idle => {}
            Join::Offers(o) => {
                o.silent.remove(peer);
                o.offers.remove(peer);
            }
            Join::Parts(p) => {
                p.asked.remove(peer);
                p.servers.remove(peer);
            }
        }
    }

    /// The offer that most peers make, of those above a height; among equals the newest.
    fn best(offers: &Offers, above: Height) -> Option<(Box<Offer>, BTreeMap<Address, u32>)> {
        let mut groups: BTreeMap<_, (Box<Offer>, BTreeMap<Address, u32>)> = BTreeMap::new();
        for (peer, offer) in &offers.offers {
            let height = offer.certified.header.height;
            if height > above {
                let key = (height, offer.certified.certificate.block, offer.bits);
                groups.entry(key).or_insert_with(|| (offer.clone(), BTreeMap::new())).1.insert(*peer, 0);
            }
        }
        groups.into_iter().max_by_key(|((height, ..), (_, servers))| (servers.len(), *height)).map(|(_, g)| g)
    }
}

impl Parts {
    fn new(offer: Box<Offer>, servers: BTreeMap<Address, u32>) -> Parts {
        let of = 1u32 << offer.bits;
        let CertifiedHeader { header, certificate } = offer.certified.clone();
        Parts {
            window: Some((header.height, header.id(), certificate)),
            servers,
            todo: (0..of).collect(),
            of,
            asked: BTreeMap::new(),
            life_ms: None,
            offer,
        }
    }

    /// The next question for a server that is asked for nothing.
    fn question(&self) -> Option<What> {
        let open: BTreeSet<u32> = self.asked.values().flat_map(|a| a.what.parts()).collect();
        let mut free = self.todo.iter().filter(|i| !open.contains(i)).copied();
        if let Some(first) = free.next() {
            let more = free.zip(first + 1..).take_while(|(i, expected)| i == expected);
            let most = PARTS_ASKED.min(CHUNKS_MAX as u32) as usize;
            return Some(What::Parts { first, count: 1 + more.take(most - 1).count() as u32 });
        }
        let (from, ..) = self.window.as_ref().filter(|_| self.todo.is_empty())?;
        let asked = self.asked.values().any(|a| matches!(a.what, What::Blocks { .. }));
        (!asked).then_some(What::Blocks { from: *from })
    }

    /// Checks a part; inside, what is wrong with it.
    fn check(&self, index: u32, chunk: &Chunk) -> Result<(), &'static str> {
        let bits = u16::from(self.offer.bits);
        let root = &self.offer.certified.header.state_root;
        if chunk.proof.verify_subtree(root, &prefix(index, bits), bits, &chunk.leaves).is_err() {
            return Err("it sent a part of a state that its certified root does not hold");
        }
        if chunk.proof.steps.len() + SHORTER_MAX < usize::from(bits) {
            return Err("it offered a state in far more parts than it has leaves for");
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.todo.is_empty() && self.window.is_none()
    }
}

impl What {
    fn parts(self) -> std::ops::Range<u32> {
        match self {
            What::Parts { first, count } => first..first + count,
            What::Blocks { .. } => 0..0,
        }
    }
}

/// The paths of part `index` begin so.
fn prefix(index: u32, bits: u16) -> Hash {
    let mut hash = Hash::ZERO;
    if bits > 0 {
        hash.0[..4].copy_from_slice(&(index << (32 - bits)).to_be_bytes());
    }
    hash
}

impl<S: Storage> Replica<S> {
    /// Changes when states are offered and wanted.
    pub fn set_snapshot_rule(&mut self, rule: SnapshotRule) {
        self.snapshots.rule = rule;
    }

    // ---- for others

    /// A peer asks for the newest state that we hold.
    pub(crate) fn snapshot_asked(&mut self, to: Address) -> Result<(), Fault> {
        if !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        if self.snapshots.held.is_empty()
            && let Some(newest) = self.snapshots.newest.clone()
        {
            self.snapshots.hold(self.now, newest);
        }
        let offer = self.snapshots.held.values_mut().next_back().map(|held| {
            held.asked = self.now;
            Box::new(held.offer.clone())
        });
        let offer = match offer {
            Some(mut offer) => {
                let height = offer.certified.header.height;
                offer.links = self.storage.links()?;
                offer.links.retain(|l| l.certified.header.height < height);
                Some(offer)
            }
            None => None,
        };
        self.out.push(Output::Send { to, message: PeerMessage::Snapshot(offer) });
        Ok(())
    }

    /// A peer asks for parts of a state.
    pub(crate) fn chunks_asked(&mut self, to: Address, block: BlockId, first: u32, count: u32) {
        if !self.catch_up.may_serve(&to, self.now) {
            return;
        }
        let now = self.now;
        let mut held = self.snapshots.held.values_mut();
        let chunks = held.find(|h| h.offer.certified.certificate.block == block).map(|held| {
            held.asked = now;
            chunks(held, first, count)
        });
        let message = PeerMessage::Chunks { block, first, chunks: chunks.unwrap_or_default() };
        self.out.push(Output::Send { to, message });
    }

    // ---- for us

    /// Does what is due to take in a state, if one is wanted.
    pub(crate) fn seek_snapshot(&mut self) -> Result<(), Fault> {
        match &self.snapshots.join {
            Join::Idle => self.ask_for_offers(),
            Join::Offers(o) if o.silent.is_empty() || o.until <= self.now => self.choose_offer()?,
            Join::Offers(_) => {}
            Join::Parts(p) if p.is_complete() => self.install()?,
            Join::Parts(_) => self.ask_for_parts(),
        }
        Ok(())
    }

    fn ask_for_offers(&mut self) {
        let behind = self.catch_up.target().0.saturating_sub(self.head.height.0);
        if behind <= self.snapshots.rule.behind || self.now < self.snapshots.not_before {
            return;
        }
        let peers = self.catch_up.in_turn(self.now);
        for to in &peers {
            self.out.push(Output::Send { to: *to, message: PeerMessage::AskSnapshot });
        }
        let until = self.now.plus(OFFER_MS);
        let silent = peers.into_iter().collect();
        self.snapshots.join = Join::Offers(Offers { until, silent, offers: BTreeMap::new() });
    }

    /// A peer offers a state, or none.
    pub(crate) fn snapshot_heard(&mut self, from: Address, offer: Option<Box<Offer>>) {
        let Join::Offers(offers) = &mut self.snapshots.join else { return self.unasked_for(from) };
        if !offers.silent.remove(&from) {
            return self.unasked_for(from);
        }
        let Some(offer) = offer else { return };
        match check_offer(&self.snapshots.genesis, &offer) {
            Ok(()) => match offer.certified.header.check_known(self.known) {
                Ok(()) => {
                    offers.offers.insert(from, offer);
                }
                // A quorum made that block; who offers it is right, and we are the ones who cannot go on.
                Err(UnknownProtocol { height, version, known }) => {
                    self.outdated = Some(Fault::NewerProtocol { height, version, known });
                }
            },
            Err(what) => self.blame(from, what),
        }
    }

    fn choose_offer(&mut self) -> Result<(), Fault> {
        let join = std::mem::replace(&mut self.snapshots.join, Join::Idle);
        let Join::Offers(offers) = join else { return Ok(()) };
        // What saves few blocks is not worth its while.
        let above = Height(self.head.height.0.saturating_add(self.snapshots.rule.behind / 2));
        self.snapshots.not_before = self.now.plus(AGAIN_MS);
        if let Some((offer, servers)) = Snapshots::best(&offers, above) {
            self.storage.begin_snapshot()?;
            self.snapshots.join = Join::Parts(Box::new(Parts::new(offer, servers)));
            self.catch_up.pause();
            self.ask_for_parts();
        }
        Ok(())
    }

    fn ask_for_parts(&mut self) {
        let Join::Parts(parts) = &mut self.snapshots.join else { return };
        let late: Vec<_> = parts.asked.iter().filter(|(_, a)| a.until <= self.now).map(|(p, _)| *p).collect();
        for peer in late {
            parts.asked.remove(&peer);
            let misses = parts.servers.entry(peer).or_default();
            *misses += 1;
            if *misses >= MISSES_MAX {
                parts.servers.remove(&peer);
            }
        }
        let block = parts.offer.certified.certificate.block;
        let mut idle: Vec<_> = parts.servers.iter().filter(|(p, _)| !parts.asked.contains_key(p)).collect();
        idle.sort_by_key(|(_, misses)| **misses);
        for to in idle.into_iter().map(|(p, _)| *p).collect::<Vec<_>>() {
            let Some(what) = parts.question() else { break };
            parts.asked.insert(to, Asked { what, until: self.now.plus(ANSWER_MS) });
            let message = match what {
                What::Parts { first, count } => PeerMessage::AskChunks { block, first, count },
                What::Blocks { from } => {
                    let last = Height(from.0.saturating_sub(CATCH_UP_BLOCKS_MAX as u64 - 1).max(1));
                    self.catch_up.remember(&to, from);
                    PeerMessage::CatchUp { from, to: last }
                }
            };
            self.out.push(Output::Send { to, message });
        }
        if parts.servers.is_empty() {
            // Nobody has it any more. What was taken in is dropped when the next is begun.
            self.snapshots.join = Join::Idle;
            self.snapshots.not_before = self.now.plus(AGAIN_MS);
        }
    }

    /// A peer sent parts of a state.
    pub(crate) fn chunks_heard(
        &mut self,
        from: Address,
        block: BlockId,
        first: u32,
        chunks: Vec<Chunk>,
    ) -> Result<(), Fault> {
        let Join::Parts(parts) = &mut self.snapshots.join else {
            self.unasked_for(from);
            return Ok(());
        };
        let Some(Asked { what: What::Parts { first: asked, count }, .. }) = parts.asked.get(&from) else {
            self.unasked_for(from);
            return Ok(());
        };
        let count = *count;
        if *asked != first || parts.offer.certified.certificate.block != block {
            return Ok(()); // an answer that comes late
        }
        parts.asked.remove(&from);
        if chunks.is_empty() {
            parts.servers.remove(&from);
        }
        let mut lie = (chunks.len() as u64 > u64::from(count)).then_some("it sent more parts than asked for");
        for (index, chunk) in (first..).zip(chunks) {
            if lie.is_some() || !parts.todo.contains(&index) {
                continue;
            }
            match parts.check(index, &chunk) {
                Ok(()) => {
                    self.storage.put_leaves(&chunk.leaves)?;
                    parts.todo.remove(&index);
                    let found = chunk.leaves.iter().find(|l| l.object == ObjectRef::PARAMETERS);
                    let found = found.and_then(|leaf| Parameters::decode(&leaf.content).ok());
                    parts.life_ms = found.map(|p| p.transaction_life_ms).or(parts.life_ms);
                }
                Err(what) => lie = Some(what),
            }
        }
        match lie {
            Some(what) => {
                parts.servers.remove(&from);
                self.blame(from, what);
            }
            None => {
                parts.servers.entry(from).and_modify(|misses| *misses = 0);
            }
        }
        Ok(())
    }

    /// Whether blocks from a peer are those of a replay window that it was asked for.
    pub(crate) fn wants_window(&self, from: &Address, blocks: &[(Bytes, CommitCertificate)]) -> bool {
        let Join::Parts(parts) = &self.snapshots.join else { return false };
        let first = parts.asked.get(from).and_then(|a| match a.what {
            What::Blocks { from } => Some(from),
            _ => None,
        });
        first.is_some_and(|first| backfill::fall_from(first, blocks))
    }

    /// A peer sent blocks of the replay window, downwards.
    pub(crate) fn window_heard(
        &mut self,
        from: Address,
        blocks: Vec<(Bytes, CommitCertificate)>,
    ) -> Result<(), Fault> {
        let Join::Parts(parts) = &mut self.snapshots.join else { return Ok(()) };
        parts.asked.remove(&from);
        if blocks.is_empty() {
            parts.servers.remove(&from);
        }
        let Some(life) = parts.life_ms else {
            return Err(Fault::DamagedBlock {
                height: parts.offer.certified.header.height,
                what: "the state after it, taken from peers, holds no parameters",
            });
        };
        let oldest = TimeMs(parts.offer.certified.header.time.0.saturating_sub(life));
        for (bytes, _) in blocks.into_iter().take(CATCH_UP_BLOCKS_MAX) {
            let Some((height, id, certificate)) = parts.window.take() else { break };
            let Ok(block) = execute::decode(&id, &bytes) else {
                parts.window = Some((height, id, certificate));
                parts.servers.remove(&from);
                self.blame(from, "it sent a block that is not the one which its child names");
                break;
            };
            let header = block.header;
            let (time, parent) = (header.time, header.parent);
            self.storage.put_block(&CertifiedHeader { header, certificate }, &bytes)?;
            let below = height.previous().filter(|below| *below > self.head.height && time >= oldest);
            parts.window = match (below, block.parent_certificate) {
                (Some(below), Some(certificate)) => Some((below, parent, certificate)),
                _ => None,
            };
        }
        Ok(())
    }

    /// Puts the state that was taken in in the place of ours.
    fn install(&mut self) -> Result<(), Fault> {
        let join = std::mem::replace(&mut self.snapshots.join, Join::Idle);
        let Join::Parts(parts) = join else { return Ok(()) };
        let Offer { certified, links, mut mountains, .. } = *parts.offer;
        mountains.push(&certified.certificate.block.0);
        let (height, tip) = (certified.header.height, Tip { certified: certified.clone(), mountains });
        if height <= self.head.height {
            return Ok(());
        }
        self.backfill.lack(Gap { from: self.head.height.next(), to: height });
        self.storage.finish_snapshot(&tip, &links, self.backfill.gaps())?;
        self.storage.log_reset()?;
        self.head = restore(&self.snapshots.genesis, tip, &mut self.storage)?;
        self.founding.clear();
        self.enter_state();
        self.out.push(Output::Joined(Box::new(certified), self.head.state.clone()));
        self.tell_tip(true);
        Ok(())
    }
}

/// Whether an offer is what the chain certified; inside, what is wrong with it.
fn check_offer(genesis: &Genesis, offer: &Offer) -> Result<(), &'static str> {
    let trust = Trust { genesis: genesis.hash(), validators: genesis.validators().clone() };
    let header = &offer.certified.header;
    let set =
        trust.follow(&offer.links).map_err(|_| "it showed a change of validators that does not hold")?;
    let above = offer.links.last().is_none_or(|l| l.certified.header.height < header.height);
    if !above || verify_header(&offer.certified, &trust, &set).is_err() {
        return Err("it offered a state whose header no quorum certified");
    }
    let below = header.height.0.checked_sub(1);
    if Some(offer.mountains.count()) != below || offer.mountains.root() != header.history_root {
        return Err("it offered a state with another history than its header's");
    }
    Ok(())
}

/// Parts of a state, as many as fit into an answer.
fn chunks(held: &Held, first: u32, count: u32) -> Vec<Chunk> {
    let bits = u16::from(held.offer.bits);
    let end = first.saturating_add(count.min(CHUNKS_MAX as u32)).min(1 << bits);
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    for index in first..end {
        let (leaves, proof) = held.state.subtree(&prefix(index, bits), bits);
        bytes += proof.steps.len() * 40 + leaves.iter().map(|l| l.content.len() + 160).sum::<usize>();
        let most = if chunks.is_empty() { MESSAGE_BYTES_MAX / 2 } else { CATCH_UP_BYTES_MAX };
        if bytes > most {
            break;
        }
        chunks.push(Chunk { leaves, proof });
    }
    chunks
}
