//! What the loop tells the public interface: the newest final state, and what became of transactions.
//!
//! The newest header and the state after it change together, so that a proof and the header that it leads to
//! always fit. Nothing here decides anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assent_ledger::State;
use assent_proto::{BodyId, CertifiedHeader, Height, Invalid, Receipt, TimeMs, VerifiedTx};
use assent_replica::{Commit, Full};
use tokio::sync::{oneshot, watch};

/// The most bodies whose fate is followed; those beyond are unknown until they are final.
const PENDING_MAX: usize = 1 << 18;
/// From how many waiters on those that gave up are swept out at each block.
const WAITERS_SWEEP: usize = 1024;

/// The state after a final block, with that block's header.
pub struct View {
    /// The header and what makes it final.
    pub certified: CertifiedHeader,
    /// The state after it.
    pub state: State,
}

/// What became of a transaction: a receipt, or why it was not taken.
pub type Outcome = Result<Receipt, Invalid>;

/// The board on which the loop writes and from which the interface reads. It shows no state until it is told one.
#[derive(Default)]
pub struct Feed {
    view: watch::Sender<Option<Arc<View>>>,
    full: Mutex<Arc<Full>>,
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    /// Taken into the pool, until when they can be committed.
    pending: HashMap<BodyId, TimeMs>,
    waiters: HashMap<BodyId, Vec<oneshot::Sender<Outcome>>>,
}

impl Feed {
    /// Shows the state with which the node starts; none before the first block.
    pub fn begin(&self, first: Option<View>) {
        self.view.send_replace(first.map(Arc::new));
    }

    /// The newest final state.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.borrow().clone()
    }

    /// Tells of each newer state.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.subscribe()
    }

    /// For whom the pool has no room.
    pub fn full(&self) -> Arc<Full> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pool has room again, or none any more.
    pub fn fills(&self, full: Full) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(full);
    }

    /// Whether a body waits in the pool, as far as this node knows.
    pub fn is_pending(&self, body: &BodyId) -> bool {
        self.bodies().pending.contains_key(body)
    }

    /// Hears what becomes of a body from now on. Ask the database after this for what became of it before.
    pub fn wait(&self, body: BodyId) -> oneshot::Receiver<Outcome> {
        let (tell, hear) = oneshot::channel();
        self.bodies().waiters.entry(body).or_default().push(tell);
        hear
    }

    /// The pool took these.
    pub fn accepted<'a>(&self, txs: impl Iterator<Item = &'a VerifiedTx>) {
        let mut bodies = self.bodies();
        for tx in txs {
            if bodies.pending.len() < PENDING_MAX {
                bodies.pending.insert(tx.body_id(), tx.body().expires_at);
            }
        }
    }

    /// The pool did not take this.
    pub fn not_taken(&self, body: &BodyId) {
        self.bodies().pending.remove(body);
    }

    /// The pool let this go.
    pub fn dropped(&self, body: &BodyId, reason: Invalid) {
        let mut bodies = self.bodies();
        bodies.pending.remove(body);
        bodies.tell(body, &Err(reason));
    }

    /// A block is final and stored: show its state first, then tell those who wait for its transactions.
    pub fn committed(&self, commit: &Commit, state: State) {
        let view = View { certified: commit.certified.clone(), state };
        self.view.send_replace(Some(Arc::new(view)));
        let mut bodies = self.bodies();
        for receipt in &commit.receipts {
            bodies.pending.remove(&receipt.body);
            bodies.tell(&receipt.body, &Ok(receipt.clone()));
        }
        bodies.sweep(commit.certified.header.time);
    }

    /// A state was taken in whole: it is shown. Those who wait for transactions below it are not told of them.
    pub fn joined(&self, certified: CertifiedHeader, state: State) {
        let time = certified.header.time;
        self.view.send_replace(Some(Arc::new(View { certified, state })));
        self.bodies().sweep(time);
    }

    /// The newest final height that is shown.
    pub fn height(&self) -> Height {
        self.view.borrow().as_ref().map_or(Height(0), |v| v.certified.header.height)
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bodies {
    fn tell(&mut self, body: &BodyId, outcome: &Outcome) {
        for waiter in self.waiters.remove(body).unwrap_or_default() {
            // Whoever no longer waits does not need to know.
            let _ = waiter.send(outcome.clone());
        }
    }

    /// Forgets what can no longer happen: bodies whose time has passed, waiters that went away.
    fn sweep(&mut self, time: TimeMs) {
        self.pending.retain(|_, expires| *expires >= time);
        if self.waiters.len() >= WAITERS_SWEEP {
            self.waiters.retain(|_, waiting| waiting.iter().any(|w| !w.is_closed()));
        }
    }
}
