//! Transactions that wait for a block: bounded in count, in bytes, and for each institution, so that nobody
//! can crowd out the others (nobody pays fees). Whether a transaction is valid is not decided here.

use std::collections::{BTreeMap, BTreeSet};

use assent_ledger::State;
use assent_proto::envelope::ENVELOPE_BYTES_MAX;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::state::Object;
use assent_proto::{Author, Body, BodyId, EnvelopeId, InstitutionId, Invalid, ObjectRef, TimeMs, VerifiedTx};

/// The most transactions that wait: some seconds' worth. Who comes beyond that is told to come again, which is better
/// for everyone than to wait longer than a client does.
pub const POOL_TRANSACTIONS_MAX: usize = 32_768;
/// The most bytes of transactions that wait.
pub const POOL_BYTES_MAX: usize = 128 << 20;

/// What one institution may hold at most: an equal share, but an eighth of the whole where there are many, for
/// not all come at once.
const SHARES_MAX: usize = 8;
/// This part of all room is for what protects: a revocation finds some when everything else is told to come again.
const PROTECTING_PART: usize = 8;
/// What a transaction counts against a share of a block besides its bytes: its signatures and its execution cost
/// about as much.
const COST_BYTES: usize = 512;

/// Waiting transactions in the order of their arrival.
pub(crate) struct Pool {
    entries: BTreeMap<u64, Entry>,
    by_body: BTreeMap<BodyId, u64>,
    by_envelope: BTreeMap<EnvelopeId, u64>,
    by_expiry: BTreeSet<(TimeMs, u64)>,
    held: BTreeMap<InstitutionId, Held>,
    total: Load,
    most: Load,
    share: Load,
    arrivals: u64,
}

/// What a block has room for.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// So many transactions.
    pub(crate) transactions: usize,
    /// So many bytes of them.
    pub(crate) bytes: usize,
}

impl Room {
    fn takes(&self, tx: &VerifiedTx) -> bool {
        self.transactions > 0 && tx.bytes().len() <= self.bytes
    }
    fn take(&mut self, tx: &VerifiedTx) {
        self.transactions -= 1;
        self.bytes -= tx.bytes().len();
    }
}

/// Whose transactions the pool takes no more of for now, unless they protect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Full {
    /// Everybody's.
    everyone: bool,
    /// Those that count to these institutions' shares.
    institutions: BTreeSet<InstitutionId>,
}

impl Full {
    /// Whether the pool would refuse it. Who asks before looking at signatures spends nothing on what is refused.
    pub fn refuses(&self, state: &State, body: &Body) -> bool {
        if body.action.protects() || !self.everyone && self.institutions.is_empty() {
            return false;
        }
        self.everyone || answerable(state, &body.author).is_some_and(|i| self.institutions.contains(&i))
    }
}

/// What waits of one institution.
#[derive(Default)]
struct Held {
    load: Load,
    /// By arrival: what protects, and the rest.
    protecting: BTreeSet<u64>,
    rest: BTreeSet<u64>,
}

struct Entry {
    tx: VerifiedTx,
    institution: InstitutionId,
}

#[derive(Clone, Copy, Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }
    fn sub(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
    fn takes(&self, bytes: usize, most: &Load) -> bool {
        self.count < most.count && self.bytes + bytes <= most.bytes
    }
    fn for_the_rest(&self) -> Load {
        Load {
            count: self.count - self.count / PROTECTING_PART,
            bytes: self.bytes - self.bytes / PROTECTING_PART,
        }
    }
}

impl Pool {
    /// An empty pool on a chain of so many institutions.
    pub(crate) fn new(institutions: usize) -> Self {
        Self::bounded(POOL_TRANSACTIONS_MAX, POOL_BYTES_MAX, institutions)
    }

    fn bounded(count: usize, bytes: usize, institutions: usize) -> Self {
        let shares = institutions.clamp(1, SHARES_MAX);
        Pool {
            entries: BTreeMap::new(),
            by_body: BTreeMap::new(),
            by_envelope: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
            held: BTreeMap::new(),
            total: Load::default(),
            most: Load { count, bytes },
            share: Load { count: count / shares, bytes: bytes / shares },
            arrivals: 0,
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.total.count
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.total.bytes
    }

    /// For whom there is no room for one more of the largest.
    pub(crate) fn full(&self) -> Full {
        let lacks = |load: &Load, most: &Load| !load.takes(ENVELOPE_BYTES_MAX, &most.for_the_rest());
        let held = self.held.iter().filter(|(_, held)| lacks(&held.load, &self.share));
        Full { everyone: lacks(&self.total, &self.most), institutions: held.map(|(id, _)| *id).collect() }
    }

    /// The transaction with these bytes.
    pub(crate) fn get(&self, id: &EnvelopeId) -> Option<&VerifiedTx> {
        self.by_envelope.get(id).and_then(|at| self.entries.get(at)).map(|e| &e.tx)
    }

    /// Whether the same thing waits already, under whatever signature.
    pub(crate) fn holds(&self, body: &BodyId) -> bool {
        self.by_body.contains_key(body)
    }

    /// Takes a valid transaction that it does not hold, or says that it is full.
    pub(crate) fn admit(&mut self, tx: VerifiedTx, institution: InstitutionId) -> Result<(), Invalid> {
        debug_assert!(!self.holds(&tx.body_id()), "asked before");
        let bytes = tx.bytes().len();
        let protects = tx.body().action.protects();
        let [most, share] =
            [self.most, self.share].map(|all| if protects { all } else { all.for_the_rest() });
        let held = self.held.entry(institution).or_default();
        if !self.total.takes(bytes, &most) || !held.load.takes(bytes, &share) {
            return Err(Invalid::Busy);
        }
        held.load.add(bytes);
        self.total.add(bytes);
        let at = self.arrivals;
        self.arrivals += 1;
        if protects {
            held.protecting.insert(at)
        } else {
            held.rest.insert(at)
        };
        self.by_body.insert(tx.body_id(), at);
        self.by_envelope.insert(tx.envelope_id(), at);
        self.by_expiry.insert((tx.body().expires_at, at));
        self.entries.insert(at, Entry { tx, institution });
        Ok(())
    }

    /// What goes into a block of that room, of what `may` be in it: what protects first, then the rest, each by
    /// arrival. If not all have room, each institution gets as much of it as any other that has so much to send;
    /// in the block's order a share makes no difference.
    pub(crate) fn choose(&self, mut room: Room, mut may: impl FnMut(&VerifiedTx) -> bool) -> Vec<VerifiedTx> {
        let mut chosen = self.fair(&mut room, &mut may, |held| &held.protecting);
        chosen.extend(self.fair(&mut room, &mut may, |held| &held.rest));
        if planted(Mutation::RevokeInBlockOrder) {
            chosen.sort_unstable();
        }
        chosen.into_iter().map(|at| self.entries[&at].tx.clone()).collect()
    }

    /// Takes turns: next is always the institution that was given the least so far, and among equals the one
    /// whose transaction has waited longest.
    fn fair(
        &self,
        room: &mut Room,
        may: &mut impl FnMut(&VerifiedTx) -> bool,
        queue: impl Fn(&Held) -> &BTreeSet<u64>,
    ) -> Vec<u64> {
        let mut queues: BTreeMap<InstitutionId, _> =
            self.held.iter().map(|(id, held)| (*id, queue(held).iter().copied())).collect();
        let mut turns = BTreeSet::new();
        for (id, queue) in &mut queues {
            turns.extend(queue.next().map(|at| (0, at, *id)));
        }
        let mut chosen = Vec::new();
        while let Some((given, at, id)) = turns.pop_first() {
            let tx = &self.entries[&at].tx;
            if !room.takes(tx) {
                continue; // the others may have smaller ones
            }
            let fits = may(tx);
            if fits {
                room.take(tx);
                chosen.push(at);
            }
            let given = if fits { given + COST_BYTES + tx.bytes().len() } else { given };
            let next = queues.get_mut(&id).and_then(Iterator::next);
            turns.extend(next.map(|at| (given, at, id)));
        }
        chosen.sort_unstable();
        chosen
    }

    /// Drops a transaction.
    pub(crate) fn remove(&mut self, body: &BodyId) {
        if let Some(at) = self.by_body.get(body).copied() {
            self.drop_at(at);
        }
    }

    /// Drops all that no block at `time` or later may hold, and names them.
    pub(crate) fn expire(&mut self, time: TimeMs) -> Vec<BodyId> {
        let mut gone = Vec::new();
        while let Some((expires_at, at)) = self.by_expiry.first().copied() {
            if expires_at >= time {
                break;
            }
            gone.push(self.drop_at(at));
        }
        gone
    }

    fn drop_at(&mut self, at: u64) -> BodyId {
        let Entry { tx, institution } =
            self.entries.remove(&at).expect("the indexes name entries that are there");
        let (body, bytes) = (tx.body_id(), tx.bytes().len());
        self.by_body.remove(&body);
        self.by_envelope.remove(&tx.envelope_id());
        self.by_expiry.remove(&(tx.body().expires_at, at));
        self.total.sub(bytes);
        let held = self.held.get_mut(&institution).expect("counted when it was admitted");
        held.load.sub(bytes);
        held.protecting.remove(&at);
        held.rest.remove(&at);
        if held.load.count == 0 {
            self.held.remove(&institution);
        }
        body
    }
}

/// To whose share a transaction counts: a person's to the institution that enrolled the person's account.
pub(crate) fn answerable(state: &State, author: &Author) -> Option<InstitutionId> {
    match author {
        Author::Institution(id) => Some(*id),
        Author::Account(id) => {
            let leaf = state.get(&ObjectRef::from(*id))?;
            match Object::decode(leaf.object.kind, &leaf.content) {
                Ok(Object::Account(account)) => Some(account.enroller),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::envelope::{Envelope, verify};
    use assent_proto::field::Message;
    use assent_proto::transaction::{AttestErasure, Revoke};
    use assent_proto::{Action, Body, GenesisHash, GrantId, Hash, SecretKey};

    fn tx(n: u8, expires_at: u64, protects: bool) -> VerifiedTx {
        let genesis = GenesisHash(Hash([1; 32]));
        let grant = GrantId(Hash([n; 32]));
        let action = if protects {
            Action::Revoke(Revoke { grant })
        } else {
            Action::AttestErasure(AttestErasure { grant, report: Hash::ZERO, hold: None })
        };
        let author = Author::Institution(InstitutionId(Hash([2; 32])));
        let body = Body { chain: genesis.tag(), expires_at: TimeMs(expires_at), author, action };
        let bytes = Envelope::sign(&genesis, &body, &[&SecretKey::from_bytes(&[3; 32])]).encode();
        verify(&genesis, &[bytes]).remove(0).expect("signed above")
    }

    const WIDE: Room = Room { transactions: 100, bytes: 1 << 20 };

    fn institution(n: u8) -> InstitutionId {
        InstitutionId(Hash([n; 32]))
    }

    #[test]
    fn what_protects_goes_first_and_the_rest_by_arrival() {
        let mut pool = Pool::bounded(10, 1 << 20, 1);
        let all = [tx(1, 9, false), tx(2, 9, true), tx(3, 9, false), tx(4, 9, true)];
        all.iter().for_each(|t| pool.admit(t.clone(), institution(1)).unwrap());
        let order: Vec<_> = pool.choose(WIDE, |_| true).iter().map(VerifiedTx::body_id).collect();
        assert_eq!(order, [1, 3, 0, 2].map(|i| all[i].body_id()));
    }

    #[test]
    fn nobody_crowds_out_the_others_and_what_leaves_makes_room() {
        let mut pool = Pool::bounded(4, 1 << 20, 2);
        let (a, b) = (institution(1), institution(2));
        assert_eq!(pool.admit(tx(1, 9, false), a), Ok(()));
        assert_eq!(pool.admit(tx(2, 9, false), a), Ok(()));
        assert_eq!(pool.admit(tx(3, 9, false), a), Err(Invalid::Busy), "half of four");
        assert_eq!(pool.admit(tx(3, 9, false), b), Ok(()));
        pool.remove(&tx(1, 9, false).body_id());
        assert_eq!(pool.admit(tx(4, 9, false), a), Ok(()));
        let bytes = tx(1, 9, false).bytes().len();
        assert_eq!((pool.len(), pool.bytes()), (3, 3 * bytes));
        let mut narrow = Pool::bounded(100, 3 * bytes, 1);
        assert_eq!(narrow.admit(tx(1, 9, false), a), Ok(()));
        assert_eq!(narrow.admit(tx(2, 9, false), a), Ok(()));
        assert_eq!(narrow.admit(tx(3, 9, false), a), Err(Invalid::Busy), "bytes are bounded too");
    }

    #[test]
    fn what_protects_finds_room_when_the_rest_does_not() {
        let mut pool = Pool::bounded(32, 1 << 20, 2);
        let admitted = |pool: &mut Pool, protects| {
            let all = (0..99).map(|n| tx(if protects { 100 + n } else { n }, 9, protects));
            all.filter(|t| pool.admit(t.clone(), institution(1)).is_ok()).count()
        };
        assert_eq!(admitted(&mut pool, false), 14, "an eighth of the share is kept");
        assert_eq!(admitted(&mut pool, true), 2);
    }

    #[test]
    fn who_is_told_of_a_full_share_is_told_what_the_pool_would_say() {
        let empty = State::default();
        let mut pool = Pool::bounded(32, 1 << 20, 2);
        // The author of all is institution 2.
        let refuses = |pool: &Pool, protects| pool.full().refuses(&empty, tx(99, 9, protects).body());
        for n in 0..14 {
            assert!(!refuses(&pool, false), "{n}");
            pool.admit(tx(n, 9, false), institution(2)).unwrap();
        }
        assert!(refuses(&pool, false), "its share is full");
        assert!(!refuses(&pool, true), "of the rest");
        let mut others = Pool::bounded(32, 1 << 20, 2);
        (0..14).for_each(|n| others.admit(tx(n, 9, false), institution(1)).unwrap());
        assert!(!refuses(&others, false), "another's share is");
        (14..28).for_each(|n| others.admit(tx(n, 9, false), institution(3)).unwrap());
        assert!(refuses(&others, false), "all is full");
        pool.remove(&tx(0, 9, false).body_id());
        assert!(!refuses(&pool, false), "room again");
    }

    #[test]
    fn a_contended_block_is_shared_and_what_a_share_leaves_goes_to_the_others() {
        let mut pool = Pool::bounded(100, 1 << 20, 1);
        // One institution sends twenty, then two others two and nine.
        for (n, who) in
            (0..20).map(|n| (n, 1)).chain((20..22).map(|n| (n, 2))).chain((22..31).map(|n| (n, 3)))
        {
            pool.admit(tx(n, 9, n % 5 == 4), institution(who)).unwrap();
        }
        let whose = |tx: &VerifiedTx| {
            let at = pool.by_body[&tx.body_id()];
            (pool.entries[&at].institution.0.0[0], at)
        };
        let of = |room: Room| pool.choose(room, |_| true).iter().map(whose).collect::<Vec<_>>();
        let count = |chosen: &[(u8, u64)], who| chosen.iter().filter(|(w, _)| *w == who).count();
        // Six protect: four of the first institution, two of the third.
        let chosen = of(Room { transactions: 16, ..WIDE });
        assert_eq!(chosen[..6].iter().map(|(_, at)| *at).collect::<Vec<_>>(), [4, 9, 14, 19, 24, 29]);
        assert!(chosen[6..].is_sorted_by_key(|(_, at)| *at), "by arrival: {chosen:?}");
        assert_eq!([1, 2, 3].map(|who| count(&chosen[6..], who)), [4, 2, 4], "ten places for the rest");
        // Bytes are shared as places are, and where all have room nothing is left out.
        let bytes = tx(0, 9, false).bytes().len();
        let chosen = of(Room { transactions: 100, bytes: 6 * tx(4, 9, true).bytes().len() + 6 * bytes });
        assert_eq!([1, 2, 3].map(|who| count(&chosen[6..], who)), [2, 2, 2]);
        assert_eq!(of(WIDE).len(), 31);
        // What may not be in it takes nobody's share.
        let none_of_first = pool.choose(Room { transactions: 8, ..WIDE }, |tx| whose(tx).0 != 1);
        assert_eq!(none_of_first.len(), 8);
    }

    #[test]
    fn with_room_for_one_nobody_waits_for_ever() {
        let mut pool = Pool::bounded(100, 1 << 20, 1);
        for n in 0..6 {
            pool.admit(tx(n, 9, false), institution(3 - n / 2)).unwrap();
        }
        let mut order = Vec::new();
        while pool.len() > 0 {
            let one = pool.choose(Room { transactions: 1, ..WIDE }, |_| true).remove(0);
            order.push(pool.by_body[&one.body_id()]);
            pool.remove(&one.body_id());
        }
        assert_eq!(order, [0, 1, 2, 3, 4, 5], "the oldest goes first among equals");
    }

    #[test]
    fn the_expired_leave_every_index() {
        let mut pool = Pool::bounded(10, 1 << 20, 1);
        let (old, last, young) = (tx(1, 5, true), tx(2, 7, false), tx(3, 9, false));
        for t in [&old, &last, &young] {
            pool.admit(t.clone(), institution(1)).unwrap();
        }
        assert_eq!(pool.expire(TimeMs(7)), [old.body_id()], "expiry is inclusive");
        assert!(!pool.holds(&old.body_id()) && pool.get(&old.envelope_id()).is_none());
        assert_eq!(pool.expire(TimeMs(10)), [last.body_id(), young.body_id()]);
        assert_eq!((pool.len(), pool.bytes(), pool.choose(WIDE, |_| true).len()), (0, 0, 0));
    }
}
