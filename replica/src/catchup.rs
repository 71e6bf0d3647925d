//! How a validator that fell behind gets the blocks that it missed: whom it asks, what it believes (nothing
//! that a quorum has not signed), what it tells others about itself.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use assent_proto::{Address, CertifiedHeader, CommitCertificate, Height, TimeMs};

use crate::execute::{self, Executed, Reject};
use crate::message::{CATCH_UP_BLOCKS_MAX, CATCH_UP_BYTES_MAX, PeerMessage};
use crate::replica::{Fault, Output, Replica};
use crate::storage::Storage;

/// How long one block behind is left to consensus itself, ms.
const PATIENCE_MS: u64 = 150;
/// How long an answer may take, ms; longer by as much for each that the peer did not give lately.
const ANSWER_MS: u64 = 2_000;
/// Answers missing in a row after which a peer is given no longer time.
const STALLS_MAX: u32 = 4;
/// How long a peer that lied is not asked again, ms.
const SHUN_MS: u64 = 60_000;
/// Tips are told at least so often, ms.
const TELL_MS: u64 = 2_000;
/// And at most so often: to all, and to one peer, ms.
const TELL_AGAIN_MS: u64 = 500;
/// Answers with blocks or parts that one peer gets in a second.
const SERVED_MAX: u32 = 64;
/// When nobody can be asked, it is tried again so much later, ms.
const RETRY_MS: u64 = 250;
/// Blocks that one peer is asked for at once.
const RANGE_BLOCKS: u64 = 32;
/// How far above the newest block others are asked for.
const WINDOW_BLOCKS: u64 = 1024;
/// Bytes of blocks that wait for those below them, with those that were asked for.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Peers that are asked at once.
const ASKED_MAX: usize = 12;
/// Bytes of blocks that are executed in one step, besides the last.
const STEP_BYTES_MAX: usize = 1 << 20;
/// Counted for a block besides its bytes, so that empty ones take their share too.
const BLOCK_BYTES: usize = 16 << 10;
/// Questions to a peer that are remembered, so that a late answer is not taken for a lie.
const PAST_MAX: usize = 16;
/// Answers that nobody asked for, in the time after which they are forgotten.
const UNASKED_MAX: u32 = 16;
const UNASKED_MS: u64 = 10_000;

/// What is known of one peer.
#[derive(Default)]
struct Peer {
    up: bool,
    tip: Height,
    /// It has no blocks below.
    base: Height,
    told: TimeMs,
    served: (TimeMs, u32),
    unasked: (TimeMs, u32),
    shunned: TimeMs,
    /// Answers that it has not given in a row, and until when others are asked instead.
    stalls: u32,
    rests: TimeMs,
    /// From which heights on it was asked for blocks.
    past: VecDeque<Height>,
}

/// A question that is open.
struct Asked {
    peer: Address,
    to: Height,
    until: TimeMs,
}

/// A block that came, and who sent it.
struct Waiting {
    bytes: Bytes,
    certificate: CommitCertificate,
    from: Address,
}

/// How far catching up has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest final block here.
    pub height: Height,
    /// The newest that connected peers have.
    pub target: Height,
    /// Questions for blocks that are open.
    pub asked: usize,
    /// Blocks that came and wait for those below them.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// The state that is being taken in, if one is.
    pub snapshot: Option<Taking>,
    /// Older blocks that are still to be fetched.
    pub missing: u64,
}

/// How far a state has been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taking {
    /// The height after which it stood.
    pub height: Height,
    /// Parts of it that are here.
    pub parts: u32,
    /// All parts.
    pub of: u32,
}

/// What came of an answer with blocks.
pub(crate) enum Answer {
    Taken,
    /// Nobody asked for it, or it comes late or again.
    Ignored,
    Lie(&'static str),
}

/// The peers, the questions that are open, and the blocks that came out of their order.
#[derive(Default)]
pub(crate) struct CatchUp {
    peers: BTreeMap<Address, Peer>,
    /// By the first height asked for; one for each peer.
    asked: BTreeMap<Height, Asked>,
    waiting: BTreeMap<Height, Waiting>,
    waiting_bytes: usize,
    /// Bytes that were executed in this step.
    spent: usize,
    behind_since: Option<TimeMs>,
    wake: Option<TimeMs>,
    told: TimeMs,
    turn: usize,
}

impl CatchUp {
    /// The peers are these from now on: everyone who may connect besides us.
    pub(crate) fn admit(&mut self, nodes: impl Iterator<Item = Address>) {
        let mut before = std::mem::take(&mut self.peers);
        self.peers = nodes.map(|a| (a, before.remove(&a).unwrap_or_default())).collect();
        let gone: Vec<_> = before.into_keys().collect();
        gone.iter().for_each(|peer| self.forget(peer));
    }

    /// Whether a peer is connected.
    pub(crate) fn is_up(&self, peer: &Address) -> bool {
        self.peers.get(peer).is_some_and(|p| p.up)
    }

    /// How many peers are connected.
    pub(crate) fn connected(&self) -> usize {
        self.peers.values().filter(|p| p.up).count()
    }

    /// Whether it is a node of this chain.
    pub(crate) fn knows(&self, peer: &Address) -> bool {
        self.peers.contains_key(peer)
    }

    /// A connection came or went.
    pub(crate) fn up(&mut self, peer: &Address, up: bool) {
        if let Some(p) = self.peers.get_mut(peer) {
            *p = Peer { up, shunned: p.shunned, served: p.served, unasked: p.unasked, ..Peer::default() };
        }
        if !up {
            self.asked.retain(|_, a| a.peer != *peer);
        }
    }

    /// What was asked of a peer is asked of others, and what it sent is not believed.
    fn forget(&mut self, peer: &Address) {
        self.asked.retain(|_, a| a.peer != *peer);
        self.waiting.retain(|_, w| w.from != *peer);
        self.weigh();
    }

    fn weigh(&mut self) {
        self.waiting_bytes = self.waiting.values().map(|w| w.bytes.len() + BLOCK_BYTES).sum();
    }

    /// A peer has said, or shown, that it has final blocks up to a height.
    pub(crate) fn has(&mut self, peer: &Address, tip: Height) {
        if let Some(p) = self.peers.get_mut(peer) {
            p.tip = p.tip.max(tip);
        }
    }

    /// The highest tip among those connected.
    pub(crate) fn target(&self) -> Height {
        self.peers.values().filter(|p| p.up).map(|p| p.tip).max().unwrap_or_default()
    }

    /// Whether blocks are being asked for, or wait to be executed.
    pub(crate) fn asking(&self) -> bool {
        !self.asked.is_empty() || !self.waiting.is_empty()
    }

    /// Connected peers, beginning with another one at each call.
    pub(crate) fn in_turn(&mut self, now: TimeMs) -> Vec<Address> {
        self.turn = self.turn.wrapping_add(1);
        self.peers_in_turn(now)
    }

    /// Whether a peer may be served again; counts it as served.
    pub(crate) fn may_serve(&mut self, peer: &Address, now: TimeMs) -> bool {
        let Some(p) = self.peers.get_mut(peer) else { return false };
        if now >= p.served.0.plus(1_000) {
            p.served = (now, 0);
        }
        p.served.1 += 1;
        p.served.1 <= SERVED_MAX
    }

    /// Whether a peer may be told our tip again; counts it as told.
    fn may_tell(&mut self, peer: &Address, now: TimeMs) -> bool {
        let Some(p) = self.peers.get_mut(peer) else { return false };
        let may = p.told <= now;
        if may {
            p.told = now.plus(TELL_AGAIN_MS);
        }
        may
    }

    /// A peer broke the protocol: it is not asked for a while.
    pub(crate) fn shun(&mut self, peer: &Address, now: TimeMs) {
        if let Some(p) = self.peers.get_mut(peer) {
            p.shunned = now.plus(SHUN_MS);
            p.tip = Height(0);
        }
        self.forget(peer);
    }

    /// Whether a peer has not been asked too much lately to be asked for something besides blocks.
    pub(crate) fn is_idle(&self, peer: &Address, now: TimeMs) -> bool {
        let rested = self.peers.get(peer).is_some_and(|p| p.up && p.shunned <= now && p.rests <= now);
        rested && self.asked.values().all(|a| a.peer != *peer)
    }

    /// A peer has not answered in time: others are asked before it.
    pub(crate) fn stalled(&mut self, peer: &Address, now: TimeMs) {
        if let Some(p) = self.peers.get_mut(peer) {
            p.stalls = (p.stalls + 1).min(STALLS_MAX);
            p.rests = now.plus(ANSWER_MS << p.stalls);
        }
    }

    /// A peer has answered in time.
    pub(crate) fn answered(&mut self, peer: &Address) {
        if let Some(p) = self.peers.get_mut(peer) {
            (p.stalls, p.rests) = (0, TimeMs(0));
        }
    }

    /// The questions for blocks above `head` that are due now; `at_once` when the next is known to be final.
    fn ask(&mut self, now: TimeMs, head: Height, at_once: bool) -> Vec<(Address, Height, Height)> {
        self.wake = None;
        self.drop_below(head.next());
        let target = if at_once { self.target().max(head.next()) } else { self.target() };
        if target <= head {
            self.behind_since = None;
            self.asked.clear();
            return Vec::new();
        }
        let since = *self.behind_since.get_or_insert(now);
        if !at_once && target == head.next() && self.asked.is_empty() && now < since.plus(PATIENCE_MS) {
            self.wake = Some(since.plus(PATIENCE_MS));
            return Vec::new();
        }
        self.give_up_late(now);
        let mut questions = Vec::new();
        while let Some((from, to)) = self.hole(head, target) {
            let Some(peer) = self.choose(now, from, at_once && from == head.next()) else {
                self.wake = Some(now.plus(RETRY_MS));
                break;
            };
            self.remember(&peer, from);
            let p = &self.peers[&peer];
            let until = now.plus(ANSWER_MS * u64::from(1 + p.stalls));
            self.asked.insert(from, Asked { peer, to, until });
            questions.push((peer, from, to));
        }
        let late = self.asked.values().map(|a| a.until).min();
        self.wake = self.wake.into_iter().chain(late).min();
        questions
    }

    /// A peer is asked for blocks from a height on, upwards or downwards: an answer may come late.
    pub(crate) fn remember(&mut self, peer: &Address, from: Height) {
        let Some(p) = self.peers.get_mut(peer) else { return };
        if p.past.len() == PAST_MAX {
            p.past.pop_front();
        }
        p.past.push_back(from);
    }

    /// One question is answered; another for the same blocks, given up and asked again, may be so yet.
    pub(crate) fn settle(&mut self, peer: &Address, from: Height) {
        let past = self.peers.get_mut(peer).map(|p| &mut p.past);
        if let Some((past, at)) =
            past.and_then(|past| past.iter().position(|h| *h == from).map(|at| (past, at)))
        {
            past.remove(at);
        }
    }

    fn give_up_late(&mut self, now: TimeMs) {
        let late: Vec<_> = self.asked.values().filter(|a| a.until <= now).map(|a| a.peer).collect();
        self.asked.retain(|_, a| now < a.until);
        late.iter().for_each(|peer| self.stalled(peer, now));
    }

    /// The lowest heights that are neither here nor asked for, if there is room for them.
    fn hole(&self, head: Height, target: Height) -> Option<(Height, Height)> {
        let last = Height(target.0.min(head.0.saturating_add(WINDOW_BLOCKS)));
        let mut from = head.next();
        loop {
            if from > last || self.asked.len() >= ASKED_MAX {
                return None;
            }
            match self.asked.range(..=from).next_back() {
                Some((_, asked)) if asked.to >= from => from = asked.to.next(),
                _ if self.waiting.contains_key(&from) => from = from.next(),
                _ => break,
            }
        }
        let room = WAITING_BYTES_MAX.saturating_sub(self.waiting_bytes);
        // The very next block is always asked for: without it the others wait for ever.
        if from != head.next() && room < CATCH_UP_BYTES_MAX * (self.asked.len() + 1) {
            return None;
        }
        let taken = self.asked.range(from..).map(|(h, _)| *h).next();
        let taken = taken.into_iter().chain(self.waiting.range(from..).map(|(h, _)| *h).next()).min();
        let end = taken.and_then(Height::previous).unwrap_or(last).min(last);
        Some((from, end.min(Height(from.0 + RANGE_BLOCKS - 1))))
    }

    /// Whom to ask for a block: who has it and is asked for nothing else. Who did not answer lately is asked only
    /// where nobody better has it.
    fn choose(&mut self, now: TimeMs, from: Height, at_once: bool) -> Option<Address> {
        let busy = |a: &Address| self.asked.values().any(|asked| asked.peer == *a);
        let has = |p: &Peer| p.tip >= from && p.base <= from || at_once;
        let turn = self.peers_in_turn(now);
        let have: Vec<_> = turn.iter().filter(|a| has(&self.peers[*a])).collect();
        let stalls = |a: &Address| (self.peers[a].rests > now, self.peers[a].stalls);
        let best = have.iter().map(|a| stalls(a).0).min()?;
        let idle = have.into_iter().filter(|a| !busy(a) && stalls(a).0 == best);
        let chosen = idle.min_by_key(|a| (self.peers[*a].tip < from, stalls(a))).copied();
        self.turn = self.turn.wrapping_add(1);
        chosen
    }

    fn peers_in_turn(&self, now: TimeMs) -> Vec<Address> {
        let up = self.peers.iter().filter(|(_, p)| p.up && p.shunned <= now);
        let mut up: Vec<_> = up.map(|(a, _)| *a).collect();
        if !up.is_empty() {
            let by = self.turn % up.len();
            up.rotate_left(by);
        }
        up
    }

    /// Takes an answer with blocks.
    fn take(
        &mut self,
        now: TimeMs,
        head: Height,
        peer: &Address,
        blocks: Vec<(Bytes, CommitCertificate)>,
    ) -> Answer {
        let first = blocks.first().map(|(_, c)| c.height);
        let open = self.asked.iter().find(|(_, a)| a.peer == *peer).map(|(from, a)| (*from, a.to));
        let Some((from, to)) = open else { return self.late(now, peer, first) };
        let p = self.peers.get_mut(peer).expect("it was asked");
        match first {
            None => {
                // It may be that it has only newer ones.
                (p.tip, p.base) = (Height(0), from.next());
                self.asked.remove(&from);
                return Answer::Ignored;
            }
            // To a question that was given up, or to one that is answered already: an answer can come twice.
            Some(other) if other != from => return self.late(now, peer, first),
            Some(_) => {}
        }
        if blocks.len() as u64 > to.0 + 1 - from.0 {
            return Answer::Lie("it sent more blocks than were asked for");
        }
        let heights = from.0..;
        if blocks.iter().zip(heights).any(|((_, c), height)| c.height.0 != height) {
            return Answer::Lie("it sent blocks with gaps between them");
        }
        self.asked.remove(&from);
        self.settle(peer, from);
        self.answered(peer);
        for (bytes, certificate) in blocks {
            let height = certificate.height;
            if height > head && !self.waiting.contains_key(&height) {
                self.waiting_bytes += bytes.len() + BLOCK_BYTES;
                self.waiting.insert(height, Waiting { bytes, certificate, from: *peer });
            }
        }
        self.trim(head);
        Answer::Taken
    }

    /// Lets the highest blocks go, those that wait longest, until the rest is within the bound.
    fn trim(&mut self, head: Height) {
        while self.waiting_bytes > WAITING_BYTES_MAX {
            match self.waiting.pop_last() {
                Some((height, w)) if height > head.next() => {
                    self.waiting_bytes -= w.bytes.len() + BLOCK_BYTES;
                }
                Some((height, w)) => {
                    self.waiting.insert(height, w);
                    return;
                }
                None => return,
            }
        }
    }

    fn drop_below(&mut self, next: Height) {
        if self.waiting.first_key_value().is_some_and(|(h, _)| *h < next) {
            self.waiting = self.waiting.split_off(&next);
            self.weigh();
        }
        self.asked.retain(|_, a| a.to >= next);
    }

    /// An answer to a question that was given up is excused once.
    fn late(&mut self, now: TimeMs, peer: &Address, first: Option<Height>) -> Answer {
        let past = self.peers.get_mut(peer).map(|p| &mut p.past);
        let known = past.and_then(|past| {
            let at = past.iter().position(|h| first.is_none_or(|first| *h == first))?;
            past.remove(at)
        });
        if known.is_some() { Answer::Ignored } else { self.unasked(now, peer) }
    }

    /// An answer that nobody waits for: some come late or twice, many are an attack.
    pub(crate) fn unasked(&mut self, now: TimeMs, peer: &Address) -> Answer {
        let Some(p) = self.peers.get_mut(peer) else { return Answer::Ignored };
        if now >= p.unasked.0.plus(UNASKED_MS) {
            p.unasked = (now, 0);
        }
        p.unasked.1 += 1;
        match p.unasked.1 {
            n if n > UNASKED_MAX => {
                p.unasked = (now, 0);
                Answer::Lie("it sends answers that nobody asked for")
            }
            _ => Answer::Ignored,
        }
    }

    /// The next block, if it is here and this step may still execute one.
    fn next(&mut self, next: Height) -> Option<Waiting> {
        if self.spent >= STEP_BYTES_MAX {
            return None;
        }
        let waiting = self.waiting.remove(&next)?;
        self.waiting_bytes -= waiting.bytes.len() + BLOCK_BYTES;
        self.spent += waiting.bytes.len() + BLOCK_BYTES;
        Some(waiting)
    }

    /// What waits and what was asked for is of no use: another state is being taken in.
    pub(crate) fn pause(&mut self) {
        self.asked.clear();
        self.waiting.clear();
        self.weigh();
        self.wake = None;
    }

    fn progress(&self, height: Height) -> Progress {
        Progress {
            height,
            target: self.target().max(height),
            asked: self.asked.len(),
            waiting: self.waiting.len(),
            waiting_bytes: self.waiting_bytes,
            ..Progress::default()
        }
    }

    /// A block became final here: being behind is counted anew.
    pub(crate) fn advanced(&mut self) {
        self.behind_since = None;
    }

    /// When to ask again, or to tell the tip.
    pub(crate) fn next_wake(&self) -> TimeMs {
        let tell = self.told.plus(TELL_MS);
        self.wake.map_or(tell, |ask| ask.min(tell))
    }
}

impl<S: Storage> Replica<S> {
    /// Tells all peers our tip, if it is time; sooner after a commit.
    pub(crate) fn tell_tip(&mut self, committed: bool) {
        let again = if committed { TELL_AGAIN_MS } else { TELL_MS };
        if self.now >= self.catch_up.told.plus(again) {
            self.catch_up.told = self.now;
            self.out.push(Output::Broadcast(PeerMessage::Tip { height: self.head.height }));
        }
    }

    /// Tells one peer our tip.
    pub(crate) fn tell_tip_to(&mut self, to: Address) {
        if self.catch_up.may_tell(&to, self.now) {
            self.out.push(Output::Send { to, message: PeerMessage::Tip { height: self.head.height } });
        }
    }

    /// A peer told its tip.
    pub(crate) fn tip_heard(&mut self, from: Address, height: Height) {
        self.catch_up.has(&from, height);
        if height < self.head.height {
            self.tell_tip_to(from);
        }
    }

    /// How far catching up has come.
    pub fn progress(&self) -> Progress {
        let missing = self.backfill.missing();
        Progress { snapshot: self.snapshots.taking(), missing, ..self.catch_up.progress(self.head.height) }
    }

    /// When something has to be asked for, or the tip to be told.
    pub(crate) fn next_fetch(&self) -> TimeMs {
        let others = self.snapshots.next_wake().into_iter().chain(self.backfill.next_wake());
        others.fold(self.catch_up.next_wake(), TimeMs::min)
    }

    /// Asks for blocks if others have more: several peers at once, for different ones.
    pub(crate) fn ask_for_blocks(&mut self) {
        self.catch_up.spent = 0;
        if self.snapshots.is_taking() {
            return self.catch_up.pause();
        }
        let head = self.head.height;
        for (to, from, last) in self.catch_up.ask(self.now, head, self.awaiting_body) {
            self.out.push(Output::Send { to, message: PeerMessage::CatchUp { from, to: last } });
        }
        if self.catch_up.waiting.contains_key(&head.next()) {
            self.catch_up.wake = Some(self.now);
        }
    }

    /// Answers a peer that asks for blocks, upwards or downwards, as far as they are here.
    pub(crate) fn serve_blocks(&mut self, to: Address, from: Height, last: Height) -> Result<(), Fault> {
        if !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        let (mut blocks, mut bytes, mut height) = (Vec::new(), 0, from);
        while height <= self.head.height && height > Height(0) && blocks.len() < CATCH_UP_BLOCKS_MAX {
            let Some((block, certificate)) = self.storage.block(height)? else {
                self.backfill.lacks(height, self.head.height);
                break;
            };
            bytes += block.len();
            if bytes > CATCH_UP_BYTES_MAX && !blocks.is_empty() {
                break;
            }
            blocks.push((block, certificate));
            height = match height.cmp(&last) {
                std::cmp::Ordering::Less => height.next(),
                std::cmp::Ordering::Equal => break,
                std::cmp::Ordering::Greater => height.previous().expect("above the last"),
            };
        }
        self.out.push(Output::Send { to, message: PeerMessage::Blocks(blocks) });
        Ok(())
    }

    /// Takes the blocks that were asked for; others are ignored. They are executed in their order, later.
    pub(crate) fn blocks_heard(
        &mut self,
        from: Address,
        blocks: Vec<(Bytes, CommitCertificate)>,
    ) -> Result<(), Fault> {
        if self.wants_past(&from, &blocks) {
            if let Some((_, first)) = blocks.first() {
                self.catch_up.settle(&from, first.height);
            }
            return self.past_heard(from, blocks);
        }
        if let Answer::Lie(what) = self.catch_up.take(self.now, self.head.height, &from, blocks) {
            self.blame(from, what);
        }
        Ok(())
    }

    /// A peer sent an answer that was not asked for.
    pub(crate) fn unasked_for(&mut self, from: Address) {
        if let Answer::Lie(what) = self.catch_up.unasked(self.now, &from) {
            self.blame(from, what);
        }
    }

    /// Verifies and executes the next block, if it is here. Says whether there was one.
    pub(crate) fn take_waiting(&mut self) -> Result<bool, Fault> {
        let Some(Waiting { bytes, certificate, from }) = self.catch_up.next(self.head.height.next()) else {
            return Ok(false);
        };
        match self.certified(bytes, &certificate)? {
            Ok(executed) => self.commit(executed, certificate)?,
            Err(what) => self.blame(from, what),
        }
        Ok(true)
    }

    /// Checks that a quorum made the block final, and only then executes it. Inside, what the peer did wrong;
    /// a block that a quorum signed and that does not execute to its header stops this validator.
    fn certified(
        &mut self,
        bytes: Bytes,
        certificate: &CommitCertificate,
    ) -> Result<Result<Executed, &'static str>, Fault> {
        let (chain, height, id) = (&self.chain, self.head.height.next(), certificate.block);
        if certificate.verify(&chain.genesis, self.head.next.set(), height, &id).is_err() {
            return Ok(Err("it sent a block without a quorum's certificate for the height asked for"));
        }
        let Ok(block) = execute::decode(&id, &bytes) else {
            return Ok(Err("it sent a body that its certified header does not commit to"));
        };
        let certified = CertifiedHeader { header: block.header.clone(), certificate: certificate.clone() };
        let body = bytes.clone();
        let executed = match self.candidates.remove(&id) {
            Some(known) => known,
            None => execute::execute(chain, &self.head, &self.pool, block, bytes),
        };
        executed.map(Ok).map_err(|reject| self.diverge(certified, Some(body), reject))
    }
}

/// A quorum certified what is not valid here.
pub(crate) fn diverged(height: Height, reject: Reject) -> Fault {
    match reject {
        Reject::Root { what, ours, header } => Fault::Diverged { height, what, ours, certified: header },
        other => Fault::CertifiedInvalid { height, what: other.to_string() },
    }
}
