//! What the clients of a measurement do: the way of each person's records from her enrolment to what was made of them,
//! signed before the clock runs. Only a delivery is signed on the way: it names a block that its custodian has seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;

use assent_ledger::testing::{Party, activity, anchor_of, digest, enrol, one_use, product, record};
use assent_proto::field::Message;
use assent_proto::transaction::{Action, ActivityKind, Deliver, Level, Record, body_id};
use assent_proto::{
    AccountId, Author, BatchId, Body, BodyId, CaseId, Commitment, Envelope, GenesisHash, GrantId, Hash,
    Height, PermitId, SecretKey, TimeMs, merkle,
};
use bytes::Bytes;

use crate::clients::{Cast, Catalogue, proofs, use_of};

/// Transactions of one person.
pub const STEPS: usize = 7;
/// Signatures on them, all that a validator verifies.
pub const SIGNATURES: usize = 8;
/// What is handed in together, and only after all of the group before is final.
pub const WAVES: [&[Step]; 5] = [
    &[Step::Enrol, Step::Anchor, Step::Settle],
    &[Step::Grant],
    &[Step::Request],
    &[Step::Deliver],
    &[Step::Record],
];
/// Records of a person, and how many of them are asked for.
const RECORDS: (u32, usize) = (4, 2);

/// One transaction of a person, in the order of her way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Step {
    Enrol,
    Anchor,
    Settle,
    Grant,
    Request,
    Deliver,
    Record,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; STEPS] =
        [Step::Enrol, Step::Anchor, Step::Settle, Step::Grant, Step::Request, Step::Deliver, Step::Record];
}

/// A person's transactions.
pub struct Person {
    signed: [Bytes; STEPS],
    permit: PermitId,
    manifest: Hash,
    expires_at: TimeMs,
}

/// Who signs for whom.
pub struct Signer {
    genesis: GenesisHash,
    cast: Cast,
    catalogue: Catalogue,
    sequence: AtomicU64,
}

/// Does so many things on all cores.
fn on_all_cores<T: Send>(count: usize, one: impl Fn() -> T + Sync) -> Vec<T> {
    let threads = available_parallelism().map_or(1, |n| n.get()).min(count.max(1));
    let share = |thread| count / threads + usize::from(thread < count % threads);
    let part = |thread| (0..share(thread)).map(|_| one()).collect::<Vec<_>>();
    let part = &part;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("signing does not fail")).collect()
    })
}

impl Signer {
    /// For a chain, its institutions and their catalogue.
    pub fn new(genesis: GenesisHash, cast: Cast, catalogue: Catalogue) -> Signer {
        Signer { genesis, cast, catalogue, sequence: AtomicU64::new(0) }
    }

    /// So many persons whom nobody has seen yet; what they sign is good until then.
    pub fn persons(&self, count: usize, expires_at: TimeMs) -> Vec<Person> {
        on_all_cores(count, || self.person(expires_at))
    }

    fn person(&self, expires_at: TimeMs) -> Person {
        let (cast, n) = (&self.cast, self.sequence.fetch_add(1, Ordering::Relaxed));
        let key = SecretKey::from_bytes(&digest(&format!("person {n}")).0);
        let sign = |by: &Party, action| self.sign(expires_at, by, action, None);
        let (enrolment, enrolled) =
            self.sign(expires_at, &cast.bureau, enrol(&cast.hospital_a, &key), Some(&key));
        let account = AccountId(enrolment.0);
        let party = Party { author: Author::Account(account), key };
        let records: Vec<_> = (0..RECORDS.0).map(|i| record(&party, i, 100 + i)).collect();
        let anchor = anchor_of(self.catalogue.claims, &records, &[]);
        let (batch, anchored) = sign(&cast.hospital_a, Action::AnchorRecords(anchor));
        let case = CaseId(digest(&format!("case {n}")));
        let settlement = anchor_of(self.catalogue.settlements, &[record(&party, 1000, 100)], &[case]);
        let (_, settled) = sign(&cast.bureau, Action::AnchorRecords(settlement));
        let notice = digest(&format!("notice {n}"));
        let terms = one_use(&cast.insurer, self.catalogue.claims, case, expires_at.plus(3_600_000), notice);
        let (grant, granted) = sign(&party, Action::Grant(Box::new(terms)));
        let asked = proofs(BatchId(batch.0), &records)[..RECORDS.1].to_vec();
        let staff = Commitment(digest(&format!("staff {n}")));
        let request = use_of(self.catalogue.claims, GrantId(grant.0), account, case, asked, staff);
        let (permit, requested) = sign(&cast.insurer, Action::RequestAccess(Box::new(request)));
        let permit = PermitId(permit.0);
        let made = product(&format!("product {n}"), Level::Moderate);
        let (_, recorded) = sign(&cast.insurer, activity(ActivityKind::Reuse, &[permit], &[], &[&made]));
        let leaves: Vec<_> = records[..RECORDS.1].iter().map(Record::leaf).collect();
        Person {
            signed: [enrolled, anchored, settled, granted, requested, Bytes::new(), recorded],
            permit,
            manifest: merkle::root(&leaves),
            expires_at,
        }
    }

    /// A step of a person. `seen` is the newest height that her custodian knows of.
    pub fn envelope(&self, person: &Person, step: Step, seen: Height) -> Bytes {
        if step != Step::Deliver {
            return person.signed[step as usize].clone();
        }
        let (permit, manifest, records) = (person.permit, person.manifest, RECORDS.1 as u32);
        let delivery =
            Deliver { permit, released_height: seen, manifest, records, package: digest("package") };
        self.sign(person.expires_at, &self.cast.hospital_a, Action::Deliver(delivery), None).1
    }

    /// A transaction, with a second key where the action wants one.
    pub fn sign(
        &self,
        expires_at: TimeMs,
        by: &Party,
        action: Action,
        second: Option<&SecretKey>,
    ) -> (BodyId, Bytes) {
        let body = Body { chain: self.genesis.tag(), expires_at, author: by.author, action };
        let keys: Vec<_> = std::iter::once(&by.key).chain(second).collect();
        let envelope = Envelope::sign(&self.genesis, &body, &keys);
        (body_id(&self.genesis, &envelope.body), envelope.encode())
    }
}
