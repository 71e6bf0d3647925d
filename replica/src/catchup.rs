//! How a validator that fell behind gets the blocks that it missed: whom it asks, what it believes (nothing
//! that a quorum has not signed), what it tells others about itself.

use std::collections::BTreeMap;

use bytes::Bytes;

use assent_proto::{Address, CommitCertificate, Height, TimeMs};

use crate::execute::{self, Executed, Reject};
use crate::message::{CATCH_UP_BLOCKS_MAX, CATCH_UP_BYTES_MAX, PeerMessage};
use crate::replica::{Fault, Output, Replica};
use crate::storage::Storage;

/// How long one block behind is left to consensus itself, ms.
const PATIENCE_MS: u64 = 150;
/// How long an answer may take, ms.
const ANSWER_MS: u64 = 2_000;
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

/// What is known of one peer.
#[derive(Default)]
struct Peer {
    up: bool,
    tip: Height,
    told: TimeMs,
    served: (TimeMs, u32),
    shunned: TimeMs,
}

struct Asked {
    peer: Address,
    until: TimeMs,
}

/// The peers, and the question that is open.
#[derive(Default)]
pub(crate) struct CatchUp {
    peers: BTreeMap<Address, Peer>,
    asked: Option<Asked>,
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
        if self.asked.as_ref().is_some_and(|a| !self.peers.contains_key(&a.peer)) {
            self.asked = None;
        }
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
            p.up = up;
        }
        if !up && self.asked.as_ref().is_some_and(|a| a.peer == *peer) {
            self.asked = None;
        }
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

    /// Whether blocks are being asked for.
    pub(crate) fn asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Connected peers, beginning with another one at each call.
    pub(crate) fn in_turn(&mut self, now: TimeMs) -> Vec<Address> {
        let mut up: Vec<_> =
            self.peers.iter().filter(|(_, p)| p.up && p.shunned <= now).map(|(a, _)| *a).collect();
        if !up.is_empty() {
            self.turn = (self.turn + 1) % up.len();
            up.rotate_left(self.turn);
        }
        up
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
        if self.asked.as_ref().is_some_and(|a| a.peer == *peer) {
            self.asked = None;
        }
    }

    /// Whom to ask for the block above `head` now, if anyone; `at_once` when it is known to be final.
    fn ask(&mut self, now: TimeMs, head: Height, at_once: bool) -> Option<Address> {
        self.wake = None;
        let target = self.target();
        if target <= head && !at_once {
            (self.behind_since, self.asked) = (None, None);
            return None;
        }
        let since = *self.behind_since.get_or_insert(now);
        if !at_once && target == head.next() && now < since.plus(PATIENCE_MS) {
            self.wake = Some(since.plus(PATIENCE_MS));
            return None;
        }
        if let Some(until) = self.asked.as_ref().map(|a| a.until).filter(|until| now < *until) {
            self.wake = Some(until);
            return None;
        }
        if let Some(late) = self.asked.take().and_then(|late| self.peers.get_mut(&late.peer)) {
            // Whoever does not answer has to tell its tip again before it is asked again.
            late.tip = Height(0);
        }
        let peer = self.choose(now, head, at_once);
        let wait = if peer.is_some() { ANSWER_MS } else { RETRY_MS };
        self.wake = Some(now.plus(wait));
        self.asked = peer.map(|peer| Asked { peer, until: now.plus(wait) });
        peer
    }

    fn choose(&mut self, now: TimeMs, head: Height, at_once: bool) -> Option<Address> {
        let turn = self.in_turn(now);
        let ahead = turn.iter().find(|a| self.peers.get(*a).is_some_and(|p| p.tip > head));
        ahead.or(if at_once { turn.first() } else { None }).copied()
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

    /// Asks for blocks if others have more.
    pub(crate) fn ask_for_blocks(&mut self) {
        let head = self.head.height;
        if let Some(to) = self.catch_up.ask(self.now, head, self.awaiting_body) {
            self.out.push(Output::Send { to, message: PeerMessage::CatchUp { from: head.next() } });
        }
    }

    /// Answers a peer that asks for blocks.
    pub(crate) fn serve_blocks(&mut self, to: Address, from: Height) -> Result<(), Fault> {
        if !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        let (mut blocks, mut bytes, mut height) = (Vec::new(), 0, from);
        while height <= self.head.height && height > Height(0) && blocks.len() < CATCH_UP_BLOCKS_MAX {
            let Some((block, certificate)) = self.storage.block(height)? else {
                return Err(Fault::DamagedBlock { height, what: "it is missing" });
            };
            bytes += block.len();
            if bytes > CATCH_UP_BYTES_MAX && !blocks.is_empty() {
                break;
            }
            blocks.push((block, certificate));
            height = height.next();
        }
        self.out.push(Output::Send { to, message: PeerMessage::Blocks(blocks) });
        Ok(())
    }

    /// Takes the blocks that were asked for; others are ignored.
    pub(crate) fn blocks_heard(
        &mut self,
        from: Address,
        blocks: Vec<(Bytes, CommitCertificate)>,
    ) -> Result<(), Fault> {
        if self.catch_up.asked.as_ref().is_none_or(|a| a.peer != from) {
            return Ok(());
        }
        self.catch_up.asked = None;
        if blocks.is_empty() {
            if let Some(p) = self.catch_up.peers.get_mut(&from) {
                p.tip = Height(0);
            }
            return Ok(());
        }
        for (bytes, certificate) in blocks {
            if certificate.height <= self.head.height {
                continue; // consensus was faster
            }
            match self.certified(bytes, &certificate)? {
                Ok(executed) => self.commit(executed, certificate)?,
                Err(what) => {
                    self.blame(from, what);
                    break;
                }
            }
        }
        Ok(())
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
        let executed = match self.candidates.remove(&id) {
            Some(known) => known,
            None => execute::execute(chain, &self.head, &self.pool, block, bytes),
        };
        executed.map(Ok).map_err(|reject| diverged(height, reject))
    }
}

/// A quorum certified what is not valid here.
pub(crate) fn diverged(height: Height, reject: Reject) -> Fault {
    match reject {
        Reject::Root { what, ours, header } => Fault::Diverged { height, what, ours, certified: header },
        other => Fault::CertifiedInvalid { height, what: other.to_string() },
    }
}
