//! Older blocks that a snapshot passed over, or that were found damaged: fetched in the background, downwards,
//! slowly, and believed only as far as the chain itself proves them. A block must have the id that its child
//! names, its certificate is the one that its child carries, its events those of its `events_root`; receipts
//! follow from both.

use std::collections::VecDeque;

use bytes::Bytes;

use assent_proto::envelope::Envelope;
use assent_proto::field::Message;
use assent_proto::transaction::body_id;
use assent_proto::{
    Address, Block, BlockId, Body, BodyId, CertifiedHeader, CommitCertificate, Event, GenesisHash, Hash,
    Header, Height, Receipt, TimeMs, merkle,
};

use crate::execute;
use crate::message::{BlockEvents, CATCH_UP_BLOCKS_MAX, CATCH_UP_BYTES_MAX, PeerMessage};
use crate::replica::{Fault, Output, Replica};
use crate::storage::{Gap, Past, Storage};

/// Between two questions, ms.
const PACE_MS: u64 = 50;
/// How long an answer may take, and how long until it is tried again when nobody had one, ms.
const ANSWER_MS: u64 = 5_000;
const AGAIN_MS: u64 = 2_000;
/// Blocks that are asked for at once.
const ASKED_BLOCKS: u64 = 16;
/// The most events of one block.
const EVENTS_MAX: u32 = 1 << 20;

/// What is missing and how far it is.
#[derive(Default)]
pub(crate) struct Backfill {
    /// Rising and apart from each other.
    gaps: Vec<Gap>,
    asked: Option<Asked>,
    due: TimeMs,
    /// Blocks whose ids hold, downwards from the highest that is missing.
    blocks: VecDeque<Whole>,
    /// Events of the first of them that came so far, all from one peer.
    events: Vec<Event>,
    events_from: Option<Address>,
}

struct Asked {
    peer: Address,
    what: What,
    until: TimeMs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Blocks,
    Events,
}

struct Whole {
    certified: CertifiedHeader,
    block: Block,
    bytes: Bytes,
}

impl Backfill {
    /// What the storage says that it lacks.
    pub(crate) fn new(gaps: Vec<Gap>) -> Backfill {
        Backfill { gaps, ..Backfill::default() }
    }

    /// How many blocks are missing.
    pub(crate) fn missing(&self) -> u64 {
        self.gaps.iter().map(Gap::count).sum()
    }

    /// Of which heights something is missing.
    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// A block that should be here is not, or is damaged.
    pub(crate) fn lacks(&mut self, height: Height, head: Height) {
        if height > Height(0) && height <= head && !self.gaps.iter().any(|g| g.holds(height)) {
            self.lack(Gap { from: height, to: height });
        }
    }

    /// These are missing too.
    pub(crate) fn lack(&mut self, gap: Gap) {
        let mut all = std::mem::take(&mut self.gaps);
        all.push(gap);
        all.sort_by_key(|g| g.from);
        for gap in all {
            match self.gaps.last_mut() {
                Some(last) if gap.from <= last.to.next() => last.to = last.to.max(gap.to),
                _ => self.gaps.push(gap),
            }
        }
        // What was begun need not be the highest any more.
        self.start_over();
        self.asked = None;
    }

    fn top(&self) -> Option<Gap> {
        self.gaps.last().copied()
    }

    /// The highest is here now.
    fn filled(&mut self) {
        if let Some(last) = self.gaps.last_mut() {
            match last.to.previous().filter(|below| *below >= last.from) {
                Some(below) => last.to = below,
                None => {
                    self.gaps.pop();
                }
            }
        }
    }

    fn start_over(&mut self) {
        self.blocks.clear();
        self.events.clear();
        self.events_from = None;
    }

    /// A connection is gone.
    pub(crate) fn down(&mut self, peer: &Address) {
        if self.asked.as_ref().is_some_and(|a| a.peer == *peer) {
            self.asked = None;
        }
    }

    /// When something is due.
    pub(crate) fn next_wake(&self) -> Option<TimeMs> {
        self.gaps.last()?;
        Some(self.asked.as_ref().map_or(self.due, |a| a.until))
    }
}

impl<S: Storage> Replica<S> {
    // ---- for others

    /// A peer asks for events, downwards.
    pub(crate) fn events_asked(
        &mut self,
        to: Address,
        from: Height,
        first: u32,
        last: Height,
    ) -> Result<(), Fault> {
        if !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        let (mut blocks, mut bytes, mut first) = (Vec::new(), 0, first as usize);
        let mut height = from;
        while height >= last && height > Height(0) && height <= self.head.height {
            if blocks.len() == CATCH_UP_BLOCKS_MAX || bytes > CATCH_UP_BYTES_MAX {
                break;
            }
            if self.backfill.gaps.iter().any(|g| g.holds(height)) {
                break;
            }
            let Some(all) = self.storage.events(height)? else {
                self.backfill.lacks(height, self.head.height);
                break;
            };
            let of = all.len();
            let size = |e: &Event| e.links.len() * 84 + 256;
            let fit = all.iter().skip(first).take_while(|e| {
                bytes += size(e);
                bytes <= CATCH_UP_BYTES_MAX
            });
            let mut events: Vec<_> = fit.cloned().collect();
            if events.is_empty() && first < of {
                if !blocks.is_empty() {
                    break;
                }
                events.extend(all.get(first).cloned());
            }
            let whole = first + events.len() >= of;
            blocks.push(BlockEvents { height, first: first as u32, of: of as u32, events });
            if !whole {
                break;
            }
            first = 0;
            height = height.previous().expect("above 0");
        }
        self.out.push(Output::Send { to, message: PeerMessage::Events(blocks) });
        Ok(())
    }

    // ---- for us

    /// Does what is due to get the highest block that is missing.
    pub(crate) fn fill_past(&mut self) -> Result<(), Fault> {
        let Some(gap) = self.backfill.top() else { return Ok(()) };
        if let Some(late) = self.backfill.asked.take_if(|a| a.until <= self.now) {
            self.catch_up.stalled(&late.peer, self.now);
        }
        if self.backfill.asked.is_some() || self.now < self.backfill.due {
            return Ok(());
        }
        if self.snapshots.is_taking() {
            self.backfill.due = self.now.plus(AGAIN_MS);
            return Ok(());
        }
        // Newer blocks come first. But who promises some for ever must not keep the older ones away: slower then.
        let pace = if self.catch_up.asking() { AGAIN_MS } else { PACE_MS };
        self.backfill.due = self.now.plus(pace);
        if self.backfill.blocks.is_empty() {
            self.stored_past(gap)?;
        }
        self.write_empty_past()?;
        let Some(gap) = self.backfill.top() else { return Ok(()) };
        match self.backfill.blocks.front().map(|b| b.certified.header.height) {
            None if self.backfill.blocks.is_empty() => {
                let last = Height(gap.to.0.saturating_sub(ASKED_BLOCKS - 1)).max(gap.from);
                self.ask_past(What::Blocks, PeerMessage::CatchUp { from: gap.to, to: last });
            }
            None => {}
            Some(from) => {
                let to = self.backfill.blocks.back().map_or(from, |b| b.certified.header.height);
                let first = self.backfill.events.len() as u32;
                self.ask_past(What::Events, PeerMessage::AskEvents { from, first, to });
            }
        }
        Ok(())
    }

    fn ask_past(&mut self, what: What, message: PeerMessage) {
        let now = self.now;
        let begun = self.backfill.events_from.filter(|_| what == What::Events);
        let turn = self.catch_up.in_turn(now);
        let mut order = begun.into_iter().chain(turn).filter(|p| self.catch_up.is_idle(p, now));
        let Some(peer) = order.next() else {
            self.backfill.due = now.plus(AGAIN_MS);
            return;
        };
        let mut message = message;
        if begun.is_some_and(|begun| begun != peer) {
            // Events of one block are of one peer, so that it is known who lied.
            self.backfill.events.clear();
            self.backfill.events_from = None;
            if let PeerMessage::AskEvents { first, .. } = &mut message {
                *first = 0;
            }
        }
        self.backfill.asked = Some(Asked { peer, what, until: now.plus(ANSWER_MS) });
        if let PeerMessage::CatchUp { from, .. } = &message {
            self.catch_up.remember(&peer, *from);
        }
        self.out.push(Output::Send { to: peer, message });
    }

    /// Blocks of the gap that are here already, because a replay window needed them.
    fn stored_past(&mut self, gap: Gap) -> Result<(), Fault> {
        let mut bytes = 0;
        let mut height = gap.to;
        while height >= gap.from && (self.backfill.blocks.len() as u64) < ASKED_BLOCKS {
            let Some((stored, _)) = self.storage.block(height)? else { break };
            bytes += stored.len();
            let fits = bytes <= CATCH_UP_BYTES_MAX || self.backfill.blocks.is_empty();
            if !fits || !self.take_past(stored)? {
                break;
            }
            height = height.previous().expect("above a gap's lowest");
        }
        Ok(())
    }

    /// What the next block downwards must be: its id, and what makes it final.
    fn expected_past(&mut self) -> Result<Option<(Height, BlockId, CommitCertificate)>, Fault> {
        if let Some(child) = self.backfill.blocks.back() {
            return Ok(named_parent(&child.block));
        }
        let Some(gap) = self.backfill.top() else { return Ok(None) };
        if gap.to == self.head.height {
            let certificate = self.head.certificate.clone();
            return Ok(certificate.map(|c| (gap.to, self.head.id, c)));
        }
        let above = gap.to.next();
        match self.storage.block(above)? {
            Some((bytes, _)) => Ok(Block::decode(&bytes).ok().as_ref().and_then(named_parent)),
            None => {
                self.backfill.lacks(above, self.head.height);
                Ok(None)
            }
        }
    }

    /// Takes a block if it is the next downwards; says whether it was.
    fn take_past(&mut self, bytes: Bytes) -> Result<bool, Fault> {
        let Some((height, id, certificate)) = self.expected_past()? else { return Ok(false) };
        let Ok(block) = execute::decode(&id, &bytes) else { return Ok(false) };
        if block.header.height != height {
            return Ok(false);
        }
        let certified = CertifiedHeader { header: block.header.clone(), certificate };
        self.backfill.blocks.push_back(Whole { certified, block, bytes });
        Ok(true)
    }

    /// Whether blocks from a peer are older ones that it was asked for.
    pub(crate) fn wants_past(&self, from: &Address, blocks: &[(Bytes, CommitCertificate)]) -> bool {
        if self.wants_window(from, blocks) {
            return true;
        }
        let asked = self.backfill.asked.as_ref().is_some_and(|a| a.peer == *from && a.what == What::Blocks);
        asked && self.backfill.top().is_some_and(|gap| fall_from(gap.to, blocks))
    }

    /// A peer sent older blocks.
    pub(crate) fn past_heard(
        &mut self,
        from: Address,
        blocks: Vec<(Bytes, CommitCertificate)>,
    ) -> Result<(), Fault> {
        if self.wants_window(&from, &blocks) {
            return self.window_heard(from, blocks);
        }
        self.backfill.asked = None;
        if blocks.is_empty() {
            self.backfill.due = self.now.plus(AGAIN_MS);
            return Ok(());
        }
        let room = self.backfill.top().map_or(0, |g| g.count().min(ASKED_BLOCKS));
        if blocks.len() as u64 > room {
            self.blame(from, "it sent more blocks than were asked for");
            return Ok(());
        }
        for (bytes, _) in blocks {
            if !self.take_past(bytes)? {
                if self.expected_past()?.is_some() {
                    self.blame(from, "it sent a block that is not the one which its child names");
                }
                break;
            }
        }
        Ok(())
    }

    /// A peer sent events of older blocks.
    pub(crate) fn events_heard(&mut self, from: Address, blocks: Vec<BlockEvents>) -> Result<(), Fault> {
        let asked = self.backfill.asked.as_ref().is_some_and(|a| a.peer == from && a.what == What::Events);
        if !asked {
            self.unasked_for(from);
            return Ok(());
        }
        self.backfill.asked = None;
        self.catch_up.answered(&from);
        if blocks.is_empty() {
            self.backfill.due = self.now.plus(AGAIN_MS);
        }
        for piece in blocks {
            self.write_empty_past()?;
            let Some(front) = self.backfill.blocks.front() else { break };
            if piece.height > front.certified.header.height {
                continue; // without events, and written already
            }
            if let Err(what) = self.take_events(from, piece)? {
                self.backfill.events.clear();
                self.backfill.events_from = None;
                self.blame(from, what);
                break;
            }
        }
        Ok(())
    }

    fn take_events(&mut self, from: Address, piece: BlockEvents) -> Result<Result<(), &'static str>, Fault> {
        let front = self.backfill.blocks.front().expect("the caller looked");
        let follows = piece.first as usize == self.backfill.events.len() && piece.of <= EVENTS_MAX;
        let most = (piece.of as usize).checked_sub(self.backfill.events.len());
        let fits = most.is_some_and(|most| piece.events.len() <= most);
        if piece.height != front.certified.header.height || !follows || !fits || piece.events.is_empty() {
            return Ok(Err("it sent other events than those asked for"));
        }
        self.backfill.events.extend(piece.events);
        self.backfill.events_from = Some(from);
        if self.backfill.events.len() < piece.of as usize {
            return Ok(Ok(()));
        }
        let events = std::mem::take(&mut self.backfill.events);
        self.backfill.events_from = None;
        let leaves: Vec<Hash> = events.iter().map(Event::leaf).collect();
        if merkle::root(&leaves) != front.certified.header.events_root {
            return Ok(Err("it sent events that are not those of the block"));
        }
        self.write_past(events)?;
        Ok(Ok(()))
    }

    /// Blocks without events need no more than themselves.
    fn write_empty_past(&mut self) -> Result<(), Fault> {
        let none = merkle::root(&[]);
        while self.backfill.blocks.front().is_some_and(|b| b.certified.header.events_root == none) {
            self.write_past(Vec::new())?;
        }
        Ok(())
    }

    fn write_past(&mut self, events: Vec<Event>) -> Result<(), Fault> {
        let Some(Whole { certified, block, bytes }) = self.backfill.blocks.pop_front() else { return Ok(()) };
        let height = certified.header.height;
        let outcome = outcome(&self.chain.genesis, &certified.header, &block, &events);
        let (bodies, receipts) = outcome.ok_or(Fault::DamagedBlock {
            height,
            what: "a quorum certified it with transactions that cannot be decoded",
        })?;
        self.backfill.filled();
        let past = Past { certified, block: bytes, bodies, receipts, events };
        self.storage.fill(&past, self.backfill.gaps())?;
        Ok(())
    }
}

/// Whether blocks may answer a question for those from a height downwards. Those that rise come late, for a question
/// for newer ones, which may have begun at the same height.
pub(crate) fn fall_from(first: Height, blocks: &[(Bytes, CommitCertificate)]) -> bool {
    let heights: Vec<_> = blocks.iter().map(|(_, c)| c.height).collect();
    heights.first().is_none_or(|h| *h == first) && heights.windows(2).all(|two| two[1] < two[0])
}

/// Which block a block stands on, and what makes that one final.
fn named_parent(block: &Block) -> Option<(Height, BlockId, CommitCertificate)> {
    let below = block.header.height.previous()?;
    Some((below, block.header.parent, block.parent_certificate.clone()?))
}

/// A block's bodies under their ids, and what came of each.
type Outcome = (Vec<(BodyId, Body)>, Vec<Receipt>);

/// The bodies and receipts of a block's transactions, as its events show what came of them.
fn outcome(genesis: &GenesisHash, header: &Header, block: &Block, events: &[Event]) -> Option<Outcome> {
    let (mut bodies, mut receipts, mut first) = (Vec::new(), Vec::new(), 0u32);
    for (index, bytes) in (0u32..).zip(&block.transactions) {
        let envelope = Envelope::decode(bytes).ok()?;
        let body = body_id(genesis, &envelope.body);
        let own = events.iter().skip(first as usize).take_while(|e| e.core.transaction == index);
        let (count, code) = own.fold((0, 0), |(n, code), e| (n + 1, e.core.code.max(code)));
        let (height, first_event) = (header.height, first);
        receipts.push(Receipt { body, height, transaction: index, code, first_event, events: count });
        bodies.push((body, Body::decode(&envelope.body).ok()?));
        first += count;
    }
    (first as usize == events.len()).then_some((bodies, receipts))
}
