//! From bytes to verified transactions: envelopes are gathered into batches and verified on blocking threads.
//!
//! Each envelope that gossip brings is verified once; a bounded memory of envelope ids knows the rest. One
//! that a client submits is verified even so, unless it is known to be bad: the answer must be the pool's. A
//! full queue answers [`Invalid::Busy`], and drops what gossip brought, which will come again in a proposal. So does
//! a full pool, before any signature is looked at: under more load than there is room for, no time goes into what is
//! refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use assent_proto::envelope::{ENVELOPE_BYTES_MAX, Unverified, verify_decoded};
use assent_proto::{Address, Body, BodyId, Envelope, EnvelopeId, GenesisHash, Invalid, VerifiedTx};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::feed::{Feed, Outcome};
use crate::metrics::Metrics;
use crate::network::{Command, Commands};
use crate::runner::{Inbox, Share, Verdict};

/// Envelopes verified in one multiplication.
const BATCH_MAX: usize = 512;
/// The shortest time between two batches, unless one is full: in a batch of hundreds a signature costs half of what it
/// does alone. The first after a pause goes at once.
const EVERY: Duration = Duration::from_millis(20);
/// For each so many envelopes of a batch the next one gathers a millisecond longer: in hundreds they cost less still.
const GATHERS_PER_MS: u64 = 5;
/// But no longer than this.
const EVERY_MAX: Duration = Duration::from_millis(60);
/// Envelopes that wait to be verified. At their largest they are 200 MB.
const QUEUE_MAX: usize = 4096;
/// Of these, the most that gossip brought: clients always find room among themselves. No peer has more than its
/// share of them.
const GOSSIPED_MAX: usize = 3072;
/// Envelope ids remembered, in each of two generations.
const SEEN_MAX: usize = 1 << 16;

/// An envelope with where it came from.
struct Job {
    id: EnvelopeId,
    bytes: Bytes,
    origin: Origin,
}

enum Origin {
    Submitted(Client),
    Gossiped { author: Address, _room: [OwnedSemaphorePermit; 2] },
}

/// A client that waits for an answer.
struct Client {
    /// Whether it wants to hear what becomes of the transaction, too.
    follows: bool,
    tell: oneshot::Sender<Result<Accepted, Invalid>>,
}

/// A transaction is in the pool.
#[derive(Debug)]
pub struct Accepted {
    /// Which.
    pub body: BodyId,
    /// What becomes of it, for who follows it.
    pub fate: Option<oneshot::Receiver<Outcome>>,
}

/// The door to the intake.
#[derive(Clone)]
pub struct Intake {
    jobs: mpsc::Sender<Job>,
    gossip_room: Arc<Semaphore>,
    seen: Arc<Mutex<Seen>>,
    metrics: Metrics,
}

/// Starts the gathering task and gives its door.
pub fn start(
    genesis: GenesisHash,
    inbox: Inbox,
    network: Commands,
    feed: Arc<Feed>,
    metrics: Metrics,
) -> Intake {
    let (jobs, queue) = mpsc::channel(QUEUE_MAX);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let threads = available_parallelism().map_or(2, |n| n.get());
    let worker = Worker { genesis, inbox, network, feed, seen: seen.clone(), metrics: metrics.clone() };
    tokio::spawn(gather(queue, Arc::new(worker), Arc::new(Semaphore::new(threads))));
    Intake { jobs, gossip_room: Arc::new(Semaphore::new(GOSSIPED_MAX)), seen, metrics }
}

impl Intake {
    /// Verifies a client's envelope and offers it to the pool. Who `follows` it hears what becomes of it.
    pub async fn submit(&self, bytes: Bytes, follows: bool) -> Result<Accepted, Invalid> {
        let verdict = self.offer(bytes, follows).await;
        if let Err(reason) = &verdict {
            self.metrics.reject(*reason);
        }
        verdict
    }

    async fn offer(&self, bytes: Bytes, follows: bool) -> Result<Accepted, Invalid> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        let id = Envelope::id(&bytes);
        if let Some(Some(reason)) = self.lock().get(&id) {
            return Err(reason);
        }
        let (tell, hear) = oneshot::channel();
        let job = Job { id, bytes, origin: Origin::Submitted(Client { follows, tell }) };
        self.jobs.try_send(job).map_err(|_| Invalid::Busy)?;
        hear.await.unwrap_or(Err(Invalid::Busy))
    }

    /// Takes what a node gossiped, as far as its share goes.
    pub fn gossiped(&self, author: Address, share: &Share, envelopes: Vec<Bytes>) {
        for bytes in envelopes {
            let id = Envelope::id(&bytes);
            if self.lock().get(&id).is_none() && self.enqueue(id, bytes, author, share).is_none() {
                self.metrics.dropped.inc();
            }
        }
    }

    fn enqueue(&self, id: EnvelopeId, bytes: Bytes, author: Address, share: &Share) -> Option<()> {
        let own = share.envelopes.clone().try_acquire_owned().ok()?;
        let common = self.gossip_room.clone().try_acquire_owned().ok()?;
        let origin = Origin::Gossiped { author, _room: [own, common] };
        self.jobs.try_send(Job { id, bytes, origin }).ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what waits, up to a batch, and verifies on as many threads as there are cores.
async fn gather(mut queue: mpsc::Receiver<Job>, worker: Arc<Worker>, threads: Arc<Semaphore>) {
    let mut next = Instant::now();
    loop {
        if queue.len() < BATCH_MAX {
            tokio::time::sleep_until(next).await;
        }
        let mut batch = Vec::with_capacity(BATCH_MAX);
        if queue.recv_many(&mut batch, BATCH_MAX).await == 0 {
            return;
        }
        let longer = Duration::from_millis(batch.len() as u64 / GATHERS_PER_MS);
        next = Instant::now() + (EVERY + longer).min(EVERY_MAX);
        let Ok(thread) = threads.clone().acquire_owned().await else { return };
        let worker = worker.clone();
        tokio::spawn(async move {
            worker.process(batch).await;
            drop(thread);
        });
    }
}

struct Worker {
    genesis: GenesisHash,
    inbox: Inbox,
    network: Commands,
    feed: Arc<Feed>,
    seen: Arc<Mutex<Seen>>,
    metrics: Metrics,
}

impl Worker {
    async fn process(&self, batch: Vec<Job>) {
        let bytes: Vec<Bytes> = batch.iter().map(|j| j.bytes.clone()).collect();
        let (genesis, full, view) = (self.genesis, self.feed.full(), self.feed.view());
        let verify = move || {
            verify_unless(&genesis, &bytes, |body| {
                view.as_ref().is_some_and(|v| full.refuses(&v.state, body))
            })
        };
        let Ok(verdicts) = tokio::task::spawn_blocking(verify).await else {
            return;
        };
        let refused = verdicts.iter().filter(|v| matches!(v, Err(Invalid::Busy))).count();
        self.metrics.verified.inc_by((verdicts.len() - refused) as u64);
        let (mut submitted, mut gossiped) = (Vec::new(), Vec::new());
        for (job, verdict) in batch.into_iter().zip(verdicts) {
            let reason = verdict.as_ref().err().copied();
            if reason != Some(Invalid::Busy) {
                self.remember(job.id, reason);
            }
            match (job.origin, verdict) {
                (Origin::Submitted(client), Ok(tx)) => submitted.push((tx, client)),
                (Origin::Gossiped { .. }, Ok(tx)) => gossiped.push(tx),
                (Origin::Submitted(client), Err(reason)) => {
                    // The client may have gone.
                    let _ = client.tell.send(Err(reason));
                }
                (Origin::Gossiped { .. }, Err(Invalid::Busy)) => {
                    self.metrics.dropped.inc();
                }
                (Origin::Gossiped { author, .. }, Err(reason)) => self.punish(author, reason),
            }
        }
        if !gossiped.is_empty() && self.inbox.gossiped(gossiped).await.is_err() {
            self.metrics.dropped.inc();
        }
        if !submitted.is_empty() {
            self.hand_in(submitted).await;
        }
    }

    /// Hands submitted transactions to the pool and its verdicts to those who wait. Who follows one listens before
    /// the pool has it, so that nothing falls between.
    async fn hand_in(&self, submitted: Vec<(VerifiedTx, Client)>) {
        let (mut txs, mut waiting) = (Vec::new(), Vec::new());
        for (tx, client) in submitted {
            let (tell, hear) = oneshot::channel::<Verdict>();
            let body = tx.body_id();
            let fate = client.follows.then(|| self.feed.wait(body));
            waiting.push((Accepted { body, fate }, client.tell, hear));
            txs.push((tx, tell));
        }
        // If the loop has ended, every `hear` below fails, and the clients hear that it is busy.
        let _ = self.inbox.submitted(txs).await;
        for (accepted, tell, hear) in waiting {
            let _ = tell.send(hear.await.unwrap_or(Err(Invalid::Busy)).map(|()| accepted));
        }
    }

    /// A validator that follows the protocol gossips only what it has verified.
    fn punish(&self, peer: Address, reason: Invalid) {
        self.metrics.reject(reason);
        let _ =
            self.network.send(Command::Punish { peer, what: "gossiped a transaction that does not verify" });
    }

    fn remember(&self, id: EnvelopeId, verdict: Option<Invalid>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id, verdict);
    }
}

/// Verifies all whose bodies are not refused for want of room.
fn verify_unless(
    genesis: &GenesisHash,
    envelopes: &[Bytes],
    is_refused: impl Fn(&Body) -> bool,
) -> Vec<Result<VerifiedTx, Invalid>> {
    let decode = |bytes| match Unverified::decode(genesis, bytes)? {
        tx if is_refused(tx.body()) => Err(Invalid::Busy),
        tx => Ok(tx),
    };
    verify_decoded(envelopes.iter().map(decode).collect())
}

/// Envelopes that were verified, with what was wrong with them. The older half is forgotten at once.
#[derive(Default)]
struct Seen {
    young: HashMap<EnvelopeId, Option<Invalid>>,
    old: HashMap<EnvelopeId, Option<Invalid>>,
}

impl Seen {
    fn get(&self, id: &EnvelopeId) -> Option<Option<Invalid>> {
        self.young.get(id).or_else(|| self.old.get(id)).copied()
    }

    fn insert(&mut self, id: EnvelopeId, verdict: Option<Invalid>) {
        if self.young.len() >= SEEN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::field::Message;
    use assent_proto::transaction::{AttestErasure, Revoke};
    use assent_proto::{Action, Author, GrantId, Hash, InstitutionId, SecretKey, TimeMs};

    #[test]
    fn what_finds_no_room_is_refused_before_its_signature_is_looked_at() {
        let genesis = GenesisHash(Hash([1; 32]));
        let signed = |protects: bool| {
            let grant = GrantId(Hash([2; 32]));
            let action = match protects {
                true => Action::Revoke(Revoke { grant }),
                false => Action::AttestErasure(AttestErasure { grant, report: Hash::ZERO, hold: None }),
            };
            let author = Author::Institution(InstitutionId(Hash([3; 32])));
            let body = Body { chain: genesis.tag(), expires_at: TimeMs(9), author, action };
            Envelope::sign(&genesis, &body, &[&SecretKey::from_bytes(&[4; 32])])
        };
        let forged = |envelope: Envelope| {
            let mut entry = envelope.signatures[0].clone();
            entry.signature.0[40] ^= 1;
            Envelope { signatures: vec![entry].try_into().unwrap(), ..envelope }.encode()
        };
        let envelopes = [
            signed(false).encode(),
            forged(signed(false)),
            signed(true).encode(),
            forged(signed(true)),
            Bytes::from_static(b"no envelope"),
        ];
        let verdicts = |is_refused: fn(&Body) -> bool| {
            let verdicts = verify_unless(&genesis, &envelopes, is_refused);
            verdicts.into_iter().map(|v| v.err()).collect::<Vec<_>>()
        };
        let [bad, busy, none] = [Invalid::BadSignature, Invalid::Busy, Invalid::Malformed].map(Some);
        assert_eq!(verdicts(|_| false), [None, bad, None, bad, none]);
        assert_eq!(verdicts(|body| !body.action.protects()), [busy, busy, None, bad, none]);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let mut seen = Seen::default();
        let id = |n: u32| {
            let mut hash = Hash::ZERO;
            hash.0[..4].copy_from_slice(&n.to_be_bytes());
            EnvelopeId(hash)
        };
        let count = 3 * SEEN_MAX as u32;
        (0..count).for_each(|n| seen.insert(id(n), (n % 2 == 0).then_some(Invalid::BadSignature)));
        assert!(seen.young.len() + seen.old.len() <= 2 * SEEN_MAX);
        assert_eq!(seen.get(&id(count - 1)), Some(None));
        assert_eq!(seen.get(&id(count - 2)), Some(Some(Invalid::BadSignature)));
        assert_eq!(seen.get(&id(0)), None);
    }
}
