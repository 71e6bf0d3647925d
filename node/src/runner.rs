//! The one thread that owns the replica. Everything else sends it messages and hears its outputs.
//!
//! It waits for nobody: outputs go into bounded queues that drop at the brim and count it, since a validator
//! that waits for its network could wait for itself. Signing, syncing and committing happen in here, in the
//! replica's order. No rule of the chain stands here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use assent_ledger::State;
use assent_proto::{Address, EnvelopeId, GenesisHash, Invalid, ObjectRef, SecretKey, TimeMs, VerifiedTx};
use assent_replica::{Evidence, Fault, Input, Output, PeerMessage, Replica};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock::Clock;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::network::{Admitted, Command, Commands};
use crate::progress::{Condition, Line, Progress};
use crate::report::Reporter;
use crate::store::Store;

/// Bytes of messages that each peer may always have waiting for the loop, whatever the others send.
const RESERVED_BYTES: u32 = 4 << 20;
/// Bytes beyond that which one peer may have waiting; the largest message fits.
const BORROWED_BYTES_MAX: u32 = 24 << 20;
/// The same of all peers together.
const COMMON_BYTES_MAX: u32 = 96 << 20;
/// Gossiped envelopes of one peer that wait to be verified.
const PEER_ENVELOPES_MAX: usize = 1024;
/// Counted for each message besides its bytes, so that small ones are bounded too.
const MESSAGE_BYTES: u32 = 4 << 10;
/// The most transactions that wait for the loop.
const TRANSACTIONS_MAX: u32 = 16 << 10;
/// How long the loop sleeps when the replica names no time.
const IDLE: Duration = Duration::from_secs(60);
/// The shortest time between two looks at how the replica is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the pool said to a submitted transaction.
pub type Verdict = Result<(), Invalid>;

/// What the loop is told.
enum Message {
    Peer { from: Address, message: Box<PeerMessage>, _room: PeerRoom },
    Up(Address),
    Down(Address),
    Gossiped { txs: Vec<VerifiedTx>, _room: OwnedSemaphorePermit },
    Submitted { txs: Vec<(VerifiedTx, oneshot::Sender<Verdict>)>, _room: OwnedSemaphorePermit },
    Condition(oneshot::Sender<Condition>),
    Stop,
}

/// The door to the loop. What peers and clients send needs room in it; control messages always pass.
#[derive(Clone)]
pub struct Inbox {
    door: mpsc::Sender<Message>,
    common_room: Arc<Semaphore>,
    tx_room: Arc<Semaphore>,
}

/// One peer's room: a part that is its own, and how much of the common part it may use besides. So a peer that
/// sends more than the loop takes fills its own share, and the others' messages still pass.
#[derive(Clone, Debug)]
pub struct Share {
    reserved: Arc<Semaphore>,
    borrowed: Arc<Semaphore>,
    /// For gossiped envelopes, which wait elsewhere.
    pub(crate) envelopes: Arc<Semaphore>,
}

/// What a waiting message holds of its peer's room.
enum PeerRoom {
    Reserved { _own: OwnedSemaphorePermit },
    Borrowed { _own: OwnedSemaphorePermit, _common: OwnedSemaphorePermit },
}

/// The loop's end of the door.
pub struct Mail(mpsc::Receiver<Message>);

/// A new door.
pub fn inbox() -> (Inbox, Mail) {
    let (door, mail) = mpsc::channel();
    let room = |n: u32| Arc::new(Semaphore::new(n as usize));
    (Inbox { door, common_room: room(COMMON_BYTES_MAX), tx_room: room(TRANSACTIONS_MAX) }, Mail(mail))
}

/// Nothing more can be told: the loop is full, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Inbox {
    /// Room for a peer's messages.
    pub fn share(&self) -> Share {
        let room = |n: u32| Arc::new(Semaphore::new(n as usize));
        Share {
            reserved: room(RESERVED_BYTES),
            borrowed: room(BORROWED_BYTES_MAX),
            envelopes: Arc::new(Semaphore::new(PEER_ENVELOPES_MAX)),
        }
    }

    /// Hands over a peer's message of `bytes` bytes, within the peer's share.
    pub fn peer(
        &self,
        from: Address,
        share: &Share,
        message: PeerMessage,
        bytes: usize,
    ) -> Result<(), NoRoom> {
        let size = u32::try_from(bytes).map_err(|_| NoRoom)?.saturating_add(MESSAGE_BYTES);
        let room = self.peer_room(share, size)?;
        self.send(Message::Peer { from, message: Box::new(message), _room: room })
    }

    fn peer_room(&self, share: &Share, size: u32) -> Result<PeerRoom, NoRoom> {
        let take = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(size).map_err(|_| NoRoom);
        if let Ok(own) = take(&share.reserved) {
            return Ok(PeerRoom::Reserved { _own: own });
        }
        let own = take(&share.borrowed)?;
        Ok(PeerRoom::Borrowed { _own: own, _common: take(&self.common_room)? })
    }

    /// A validator is connected.
    pub fn up(&self, peer: Address) {
        // The loop has ended if this fails, and the node with it.
        let _ = self.send(Message::Up(peer));
    }

    /// A validator is gone.
    pub fn down(&self, peer: Address) {
        let _ = self.send(Message::Down(peer));
    }

    /// Hands over gossiped transactions; waits for room.
    pub async fn gossiped(&self, txs: Vec<VerifiedTx>) -> Result<(), NoRoom> {
        let room = self.room(txs.len()).await?;
        self.send(Message::Gossiped { txs, _room: room })
    }

    /// Hands over submitted transactions; waits for room.
    pub async fn submitted(&self, txs: Vec<(VerifiedTx, oneshot::Sender<Verdict>)>) -> Result<(), NoRoom> {
        let room = self.room(txs.len()).await?;
        self.send(Message::Submitted { txs, _room: room })
    }

    /// How the replica is.
    pub async fn condition(&self) -> Result<Condition, NoRoom> {
        let (tell, hear) = oneshot::channel();
        self.send(Message::Condition(tell))?;
        hear.await.map_err(|_| NoRoom)
    }

    /// Ends the loop after what it is doing.
    pub fn stop(&self) {
        let _ = self.send(Message::Stop);
    }

    async fn room(&self, txs: usize) -> Result<OwnedSemaphorePermit, NoRoom> {
        let n = u32::try_from(txs).map_err(|_| NoRoom)?.min(TRANSACTIONS_MAX);
        self.tx_room.clone().acquire_many_owned(n).await.map_err(|_| NoRoom)
    }

    fn send(&self, message: Message) -> Result<(), NoRoom> {
        self.door.send(message).map_err(|_| NoRoom)
    }
}

/// Whom the loop tells.
pub struct Outlets {
    /// The network task.
    pub network: Commands,
    /// The public interface.
    pub feed: Arc<Feed>,
    /// Counters.
    pub metrics: Metrics,
}

/// The loop.
pub struct Runner {
    replica: Replica<Store>,
    clock: Clock,
    outlets: Outlets,
    last_commit: Option<Instant>,
    reporter: Reporter,
    progress: Progress,
    /// When the replica was looked at last, and whether something has happened since.
    looked: Option<Instant>,
    news: bool,
    /// The leaf with the nodes of the registry that the network knows, or is yet to be told.
    nodes: bytes::Bytes,
    admit: Option<Vec<Admitted>>,
}

impl Runner {
    /// A loop around a replica of a validator with this key.
    pub fn new(
        replica: Replica<Store>,
        genesis: GenesisHash,
        key: SecretKey,
        clock: Clock,
        outlets: Outlets,
    ) -> Runner {
        let nodes = nodes_leaf(replica.state());
        Runner {
            replica,
            clock,
            outlets,
            last_commit: None,
            reporter: Reporter::new(genesis, key),
            progress: Progress::default(),
            looked: None,
            news: true,
            nodes,
            admit: None,
        }
    }

    /// Runs until it is told to stop or the replica faults. `first` is what opening the replica gave.
    pub fn run(mut self, first: Vec<Output>, mail: Mail) -> Result<(), Fault> {
        self.tell(first)?;
        loop {
            let patience = self.wake()?.min(self.look());
            match mail.0.recv_timeout(patience) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(message) => self.take(message)?,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.news = true;
        }
    }

    /// Looks at how the replica is, tells what is news, and says when to look again. A look costs little, but
    /// not so little that it may be taken after every message.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        let since = self.looked.map_or(LOOK_EVERY, |at| now.saturating_duration_since(at));
        let due = self.progress.next_look(now).unwrap_or(IDLE);
        if since < LOOK_EVERY && !self.is_urgent() {
            return if self.news { LOOK_EVERY - since } else { due };
        }
        if self.news || due.is_zero() {
            self.looked = Some(now);
            self.news = false;
            let condition = Condition::of(&self.replica);
            self.outlets.metrics.show(&condition);
            self.progress.look(&condition, now).iter().for_each(Line::log);
        }
        self.progress.next_look(now).unwrap_or(IDLE).max(LOOK_EVERY)
    }

    /// Whether something began that may be over before the next look: taking in a small state is, and a node
    /// that has parted from the chain may end at its next message.
    fn is_urgent(&self) -> bool {
        let takes = self.replica.progress().snapshot.is_some();
        takes && !self.progress.is_taking() || self.replica.is_diverged()
    }

    /// Fires what is due and says how long nothing will be.
    fn wake(&mut self) -> Result<Duration, Fault> {
        if self.replica.next_wake().is_some_and(|at| at <= self.clock.now()) {
            self.step(Input::Wake)?;
        }
        let now = self.clock.now();
        Ok(self.replica.next_wake().map_or(IDLE, |at| until(now, at)))
    }

    fn take(&mut self, message: Message) -> Result<(), Fault> {
        match message {
            Message::Peer { from, message, _room } => self.step(Input::Peer { from, message: *message }),
            Message::Up(peer) => self.step(Input::PeerUp(peer)),
            Message::Down(peer) => self.step(Input::PeerDown(peer)),
            Message::Gossiped { txs, _room } => self.pool(txs, Vec::new(), false),
            Message::Submitted { txs, _room } => {
                let (txs, replies) = txs.into_iter().unzip();
                self.pool(txs, replies, true)
            }
            Message::Condition(tell) => {
                // Whoever asked may have gone.
                let _ = tell.send(Condition::of(&self.replica));
                Ok(())
            }
            Message::Stop => Ok(()),
        }
    }

    fn step(&mut self, input: Input) -> Result<(), Fault> {
        let now = self.clock.now();
        let outputs = self.replica.step(now, input)?;
        self.tell(outputs)
    }

    /// Hands transactions to the pool and tells each submitter, in the order of `replies`, what it said.
    fn pool(
        &mut self,
        txs: Vec<VerifiedTx>,
        replies: Vec<oneshot::Sender<Verdict>>,
        gossip: bool,
    ) -> Result<(), Fault> {
        let envelopes: Vec<EnvelopeId> = txs.iter().map(VerifiedTx::envelope_id).collect();
        self.outlets.feed.accepted(txs.iter());
        let now = self.clock.now();
        let outputs = self.replica.step(now, Input::Transactions { txs, gossip })?;
        self.outlets.feed.fills(self.replica.full());
        let refused: HashMap<EnvelopeId, Invalid> = outputs.iter().filter_map(refusal).collect();
        self.tell(outputs)?;
        for (envelope, reply) in envelopes.iter().zip(replies) {
            let _ = reply.send(refused.get(envelope).map_or(Ok(()), |reason| Err(*reason)));
        }
        Ok(())
    }

    fn tell(&mut self, outputs: Vec<Output>) -> Result<(), Fault> {
        let mut reports = false;
        for output in outputs {
            match output {
                Output::Broadcast(message) => self.send(Command::Broadcast(message)),
                Output::Send { to, message } => self.send(Command::Send { to, message }),
                Output::Misbehaved { peer, what } => self.send(Command::Punish { peer, what }),
                // Who handed it in is told by `pool`. Who waits for the same body under another signature is not.
                Output::Refused { body, reason, .. } => {
                    self.outlets.metrics.reject(reason);
                    if !self.replica.pending(&body) {
                        self.outlets.feed.not_taken(&body);
                    }
                }
                Output::Dropped { body, reason } => {
                    self.outlets.metrics.reject(reason);
                    self.outlets.feed.dropped(&body, reason);
                }
                Output::Equivocation(evidence) => {
                    self.equivocation(&evidence);
                    reports = true;
                }
                Output::Committed(commit, state) => {
                    self.committed(&commit, state);
                    reports = true;
                }
                Output::Joined(certified, state) => {
                    self.outlets.metrics.height.set(certified.header.height.0);
                    self.admit(&state);
                    self.outlets.feed.joined(*certified, state);
                }
            }
        }
        if reports { self.report() } else { Ok(()) }
    }

    fn equivocation(&mut self, evidence: &Evidence) {
        self.outlets.metrics.equivocations.inc();
        tracing::warn!(?evidence, "a validator contradicted itself");
        let status = self.replica.status();
        self.reporter.seen(evidence, self.replica.state(), status.height);
    }

    /// Hands in the reports of contradictions whose time has come.
    fn report(&mut self) -> Result<(), Fault> {
        if self.reporter.is_idle() {
            return Ok(());
        }
        let status = self.replica.status();
        let due = self.reporter.due(self.replica.state(), status.height, self.clock.now().max(status.time));
        if due.is_empty() { Ok(()) } else { self.pool(due, Vec::new(), true) }
    }

    /// Tells the network when the registry of nodes has changed. It must not miss it: what finds no room is told
    /// again after the next block.
    fn admit(&mut self, state: &State) {
        let nodes = nodes_leaf(state);
        if nodes != self.nodes {
            self.nodes = nodes;
            self.admit = Some(Admitted::registered(state));
        }
        if let Some(nodes) = self.admit.take()
            && self.outlets.network.send(Command::Admit(nodes.clone())).is_err()
        {
            self.admit = Some(nodes);
        }
    }

    fn send(&self, command: Command) {
        if self.outlets.network.send(command).is_err() {
            self.outlets.metrics.dropped.inc();
        }
    }

    fn committed(&mut self, commit: &assent_replica::Commit, state: State) {
        let (header, certificate) = (&commit.certified.header, &commit.certified.certificate);
        let denied = commit.receipts.iter().filter(|r| r.code != 0).count();
        let metrics = &self.outlets.metrics;
        metrics.height.set(header.height.0);
        metrics.transactions.inc_by(commit.receipts.len() as u64);
        metrics.denied.inc_by(denied as u64);
        if let Some(last) = self.last_commit.replace(Instant::now()) {
            Metrics::observe(&metrics.block_interval, last.elapsed());
        }
        tracing::info!(
            height = header.height.0,
            round = certificate.round,
            transactions = commit.receipts.len(),
            denied,
            events = commit.events.len(),
            builder = %header.builder,
            signers = certificate.signatures.len(),
            "block is final"
        );
        self.admit(&state);
        self.outlets.feed.fills(self.replica.full());
        self.outlets.feed.committed(commit, state);
    }
}

/// The registry of nodes as the state holds it.
fn nodes_leaf(state: &State) -> bytes::Bytes {
    state.get(&ObjectRef::NODES).map(|leaf| leaf.content.clone()).unwrap_or_default()
}

fn refusal(output: &Output) -> Option<(EnvelopeId, Invalid)> {
    match output {
        Output::Refused { envelope, reason, .. } => Some((*envelope, *reason)),
        _ => None,
    }
}

/// How long from `now` until `at`; at least a millisecond, so that a replica that asks again and again to be
/// woken at once cannot take the whole core.
fn until(now: TimeMs, at: TimeMs) -> Duration {
    Duration::from_millis(at.0.saturating_sub(now.0).max(1)).min(IDLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_genesis::testing;
    use assent_replica::MESSAGE_BYTES_MAX;

    fn peers() -> Vec<Address> {
        testing::four().0.nodes().iter().map(|n| n.address()).collect()
    }

    fn tip() -> PeerMessage {
        PeerMessage::Tip { height: assent_proto::Height(1) }
    }

    /// Peers that flood fill what is theirs and what is common; the others' votes still pass.
    #[test]
    fn one_peer_cannot_crowd_out_another() {
        let (inbox, mail) = inbox();
        let peers = peers();
        let fill = |peer: &Address, share: &Share, bytes: usize| {
            (0..100_000).take_while(|_| inbox.peer(*peer, share, tip(), bytes).is_ok()).count()
        };
        let mut bytes = 0;
        for flooder in &peers[..3] {
            let share = inbox.share();
            for size in [MESSAGE_BYTES_MAX, 256 << 10, 10] {
                bytes += fill(flooder, &share, size) * (size + MESSAGE_BYTES as usize);
            }
        }
        assert!(bytes <= (3 * RESERVED_BYTES + COMMON_BYTES_MAX) as usize, "{bytes}");
        let share = inbox.share();
        assert!(fill(&peers[3], &share, 256 << 10) >= 15, "its reserve is there");
        while mail.0.try_recv().is_ok() {}
        assert!(inbox.peer(peers[3], &share, tip(), MESSAGE_BYTES_MAX).is_ok(), "and all is there again");
    }
}
