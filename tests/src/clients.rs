//! Clients of real nodes: they sign real transactions, hand them in through any door until they know what became
//! of them, and keep a history of what they were told. Nothing is judged here: that is [`crate::checker`]'s.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use age::secrecy::SecretString;
use assent_client::error::Failure;
use assent_client::keyfile::{self, InstitutionSecrets};
use assent_client::rpc::api::ledger_client::LedgerClient;
use assent_client::rpc::api::{self, TransactionStatus};
use assent_genesis::Genesis;
use assent_ledger::testing::{Party, anchor_of, digest, enrol, list, one_use, record};
use assent_proto::field::{Element, Message};
use assent_proto::transaction::*;
use assent_proto::{Author, BodyId, Commitment, Envelope, Height, List, Receipt, TimeMs, ids::*, merkle};
use bytes::Bytes;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::sim::Random;

/// How long a client tries before it gives up, and for how long what it signs is good.
pub const LIFE: Duration = Duration::from_secs(180);
/// How long a call may take before another door is tried.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The pause before a client tries again: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Replies of this size are read: the largest block, and some.
const REPLY_BYTES_MAX: usize = 32 << 20;

/// Something to be registered, of which all that matters is that nobody has registered it: test results of moderate
/// level, prohibited in principle.
pub fn something(code: u32) -> RegisterItem {
    let (category, level, opening) = (Category::TestResult, Level::Moderate, Opening::Prohibited);
    RegisterItem { code, scope: 9, category, level, opening, recipients: List::empty() }
}

/// A client's end of a connection to a node, made when it is needed.
pub type Door = LedgerClient<Channel>;

/// The door of the node at a URL.
pub fn door(url: &str) -> Result<Door, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_string())?.connect_timeout(Duration::from_secs(2));
    Ok(LedgerClient::new(endpoint.connect_lazy()).max_decoding_message_size(REPLY_BYTES_MAX))
}

/// What a client was told of its transaction in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is final, in this block, with a denial's code or 0.
    Final {
        /// The block.
        height: Height,
        /// 0 where it was applied.
        code: u32,
    },
    /// No door took it; the last one said why.
    Refused(String),
    /// Nobody said anything of use: it may be final, or not.
    Unknown,
}

impl Outcome {
    /// Whether it is final and applied.
    pub fn is_applied(&self) -> bool {
        matches!(self, Outcome::Final { code: 0, .. })
    }
}

/// Everything that clients were told, one JSON object a line.
pub struct History {
    file: Mutex<BufWriter<File>>,
    /// How many lines of each outcome.
    pub tally: Tally,
}

/// Counts for a progress display.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub applied: AtomicU64,
    pub denied: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
}

impl Tally {
    fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Final { code: 0, .. } => &self.applied,
            Outcome::Final { .. } => &self.denied,
            Outcome::Refused(_) => &self.refused,
            Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All final ones.
    pub fn final_ones(&self) -> u64 {
        self.applied.load(Ordering::Relaxed) + self.denied.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (applied, denied, refused, unknown) =
            (n(&self.applied), n(&self.denied), n(&self.refused), n(&self.unknown));
        write!(f, "{applied} applied, {denied} denied, {refused} refused, {unknown} unknown")
    }
}

impl History {
    /// A new file.
    pub fn create(path: &Path) -> io::Result<History> {
        Ok(History { file: Mutex::new(BufWriter::new(File::create(path)?)), tally: Tally::default() })
    }

    fn write(&self, entry: &Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{entry}").expect("the history's disk has room");
    }

    /// Makes sure that the file holds everything.
    pub fn flush(&self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Who acts for institutions.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Cast {
    pub bureau: Party,
    pub hospital_a: Party,
    pub hospital_b: Party,
    pub insurer: Party,
}

impl Cast {
    /// Opens the operators' key files of a devnet.
    pub fn open(dir: &Path, genesis: &Genesis, passphrase: &str) -> Result<Cast, Failure> {
        let passphrase = SecretString::from(passphrase);
        let party = |slug: &str| -> Result<Party, Failure> {
            let path = dir.join(slug).join("operator.age");
            let secrets: InstitutionSecrets = keyfile::open(&path, &passphrase)?;
            let entry = genesis.institution(slug).expect("the devnet has the four institutions");
            Ok(Party { author: Author::Institution(entry.id), key: secrets.operator()? })
        };
        Ok(Cast {
            bureau: party("bureau")?,
            hospital_a: party("hospital-a")?,
            hospital_b: party("hospital-b")?,
            insurer: party("insurer")?,
        })
    }
}

/// What all clients of a run share.
#[derive(Clone)]
pub struct Clients {
    /// The chain.
    pub genesis: Arc<Genesis>,
    /// Who acts for institutions.
    pub cast: Cast,
    /// A door to each node.
    pub doors: Vec<Door>,
    /// What they were told.
    pub history: Arc<History>,
    sequence: Arc<AtomicU64>,
    expiry: Arc<AtomicU64>,
}

/// A transaction to be handed in.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Its id.
    pub id: BodyId,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it does, for the history.
    pub what: &'static str,
    /// The grant that it is about, for the history.
    pub grant: Option<GrantId>,
}

impl Signed {
    /// Says what it is about.
    pub fn about(mut self, what: &'static str, grant: Option<GrantId>) -> Signed {
        (self.what, self.grant) = (what, grant);
        self
    }
}

/// What a door said.
enum Answer {
    Final(Height, u32),
    Later(Duration),
    Refused(String),
    Nothing,
}

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}

impl Clients {
    /// Over the nodes at these addresses.
    pub fn new(
        genesis: Arc<Genesis>,
        cast: Cast,
        urls: &[String],
        history: Arc<History>,
    ) -> Result<Clients, tonic::transport::Error> {
        let doors = urls.iter().map(|url| door(url)).collect::<Result<_, _>>()?;
        Ok(Clients { genesis, cast, doors, history, sequence: Arc::default(), expiry: Arc::default() })
    }

    /// A number that nothing else in the run has.
    pub fn fresh(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Signs, with a second key where the action wants one.
    pub fn sign(&self, by: &Party, action: Action, second: Option<&assent_proto::SecretKey>) -> Signed {
        let genesis = self.genesis.hash();
        // No two bodies expire in the same millisecond: also what was signed before is a new body.
        let earliest = now_ms() + LIFE.as_millis() as u64;
        let later = |last: u64| Some(earliest.max(last + 1));
        let last = self.expiry.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        let expires_at = TimeMs(earliest.max(last.expect("there is always a later one") + 1));
        let body = Body { chain: genesis.tag(), expires_at, author: by.author, action };
        let keys: Vec<_> = std::iter::once(&by.key).chain(second).collect();
        let envelope = Envelope::sign(&genesis, &body, &keys);
        let id = body_id(&genesis, &envelope.body);
        Signed { id, bytes: envelope.encode(), what: "other", grant: None }
    }

    /// Hands a transaction in, first through this door, until its fate is known or its life is over; writes down
    /// what came of it.
    pub async fn submit(&self, who: &str, first_door: usize, tx: &Signed) -> Outcome {
        let submitted_ms = now_ms();
        let (outcome, last_door) = self.until_known(first_door, tx).await;
        self.history.tally.count(&outcome);
        let mut entry = json!({
            "client": who, "what": tx.what, "body": tx.id.to_string(), "first_door": first_door,
            "door": last_door, "submitted_ms": submitted_ms, "ended_ms": now_ms(),
        });
        if let Some(grant) = tx.grant {
            entry["grant"] = json!(grant.to_string());
        }
        match &outcome {
            Outcome::Final { height, code } => {
                entry["outcome"] = json!("final");
                entry["height"] = json!(height.0);
                entry["code"] = json!(code);
            }
            Outcome::Refused(why) => (entry["outcome"], entry["why"]) = (json!("refused"), json!(why)),
            Outcome::Unknown => entry["outcome"] = json!("unknown"),
        }
        self.history.write(&entry);
        outcome
    }

    async fn until_known(&self, first_door: usize, tx: &Signed) -> (Outcome, usize) {
        let deadline = Instant::now() + LIFE;
        let (mut at, mut pause, mut refused) = (first_door, PAUSE.0, None);
        loop {
            match ask(&self.doors[at], tx).await {
                Answer::Final(height, code) => return (Outcome::Final { height, code }, at),
                Answer::Later(wait) => tokio::time::sleep(wait).await,
                answer => {
                    // A door that lags behind may refuse what another one takes.
                    refused = if let Answer::Refused(why) = answer { Some(why) } else { None };
                    at = (at + 1) % self.doors.len();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            if Instant::now() > deadline {
                return (refused.map_or(Outcome::Unknown, Outcome::Refused), at);
            }
        }
    }
}

async fn ask(door: &Door, tx: &Signed) -> Answer {
    let mut door = door.clone();
    let request = api::SubmitRequest { envelope: tx.bytes.clone(), wait: api::Wait::Final as i32 };
    let status = match tokio::time::timeout(CALL_MAX, door.submit(request)).await {
        Err(_) => return Answer::Nothing,
        Ok(Ok(reply)) => return reply.into_inner().receipt.map_or(Answer::Nothing, receipt),
        Ok(Err(status)) => status,
    };
    let text = |key| status.metadata().get(key).and_then(|v| v.to_str().ok());
    if let Some(wait) = text("retry-after-ms").and_then(|v| v.parse().ok()) {
        return Answer::Later(Duration::from_millis(wait));
    }
    match text("assent-name") {
        // It was committed already: an earlier call's answer was lost.
        Some("Replay") => look_up(&mut door, tx).await,
        Some(name) => Answer::Refused(name.to_string()),
        None => Answer::Nothing,
    }
}

async fn look_up(door: &mut Door, tx: &Signed) -> Answer {
    let request = api::TransactionRequest { body_id: tx.id.write(), wait: false };
    match tokio::time::timeout(CALL_MAX, door.get_transaction(request)).await {
        Ok(Ok(reply)) => reply.into_inner().receipt.map_or(Answer::Nothing, receipt),
        _ => Answer::Nothing,
    }
}

fn receipt(wire: assent_proto::wire::Receipt) -> Answer {
    match Receipt::read(wire, "receipt") {
        Ok(receipt) => Answer::Final(receipt.height, receipt.code),
        Err(_) => Answer::Nothing,
    }
}

/// How the node behind a door says that a transaction is; `None` while it does not answer.
pub async fn fate(door: &Door, id: &BodyId) -> Option<TransactionStatus> {
    let request = api::TransactionRequest { body_id: id.write(), wait: false };
    let reply = tokio::time::timeout(CALL_MAX, door.clone().get_transaction(request)).await.ok()?.ok()?;
    TransactionStatus::try_from(reply.into_inner().status).ok()
}

/// How the node behind a door says that it is; `None` while it does not answer.
pub async fn status(door: &Door) -> Option<api::StatusReply> {
    const STATUS_MAX: Duration = Duration::from_secs(3);
    let reply = tokio::time::timeout(STATUS_MAX, door.clone().get_status(api::StatusRequest {})).await;
    Some(reply.ok()?.ok()?.into_inner())
}

/// The catalogue that persons' records belong to.
#[derive(Clone, Copy)]
pub struct Catalogue {
    /// Claim documents of hospital A.
    pub claims: ItemId,
    /// Settlements of the bureau.
    pub settlements: ItemId,
}

/// Registers the catalogue. It must work: nothing disturbs the network yet.
pub async fn lay_ground(clients: &Clients) -> Catalogue {
    let (shut, moderate) = (Opening::Prohibited, Level::Moderate);
    let items = [
        (&clients.cast.hospital_a, 1, Category::ClaimDocument),
        (&clients.cast.bureau, 2, Category::Settlement),
    ];
    for (source, code, category) in items {
        let recipients = assent_proto::List::empty();
        let item = RegisterItem { code, scope: 1, category, level: moderate, opening: shut, recipients };
        let tx = clients.sign(source, Action::RegisterItem(item), None).about("register", None);
        let outcome = clients.submit("ground", 0, &tx).await;
        assert!(outcome.is_applied(), "an undisturbed network registers items: {outcome:?}");
    }
    Catalogue { claims: ItemId::of(1, 1), settlements: ItemId::of(2, 1) }
}

/// The records of an anchored batch with their places in it.
pub fn proofs(batch: BatchId, records: &[Record]) -> Vec<RecordProof> {
    let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
    let proof = |(i, record): (usize, &Record)| {
        let path = list(merkle::path(&leaves, i));
        RecordProof { batch, record: record.clone(), index: i as u32, path }
    };
    records.iter().enumerate().map(proof).collect()
}

/// The insurer reads a person's records to pay the claim of a case.
pub fn use_of(
    item: ItemId,
    grant: GrantId,
    account: AccountId,
    case: CaseId,
    records: Vec<RecordProof>,
    staff: Commitment,
) -> RequestAccess {
    RequestAccess {
        grant: Some(grant),
        item,
        account: Some(account),
        case: Some(case),
        purpose: Purpose::ClaimsPayment,
        action: UseAction::Read,
        output: Output::Masked,
        records: list(records),
        staff,
        person: None,
        emergency: None,
        order: None,
    }
}

/// A person, and the insurer that asks for her records.
struct Person<'a> {
    clients: &'a Clients,
    name: String,
    random: Random,
    catalogue: Catalogue,
}

/// Her account with records and a settled case.
struct Account {
    party: Party,
    case: CaseId,
    records: Vec<RecordProof>,
}

/// Lives a person's life until it is told to stop: grants for one use that are asked for through two doors at once,
/// revocations against uses, revocations before their grants; now and then with a new account.
pub async fn live(
    clients: Clients,
    n: u64,
    seed: u64,
    catalogue: Catalogue,
    stop: Arc<AtomicBool>,
    pace: Duration,
) {
    let random = Random::new(seed.wrapping_mul(1000).wrapping_add(n));
    let mut person = Person { clients: &clients, name: format!("person {n}"), random, catalogue };
    let stopped = || stop.load(Ordering::Relaxed);
    while !stopped() {
        let Some(account) = person.open_account().await else { continue };
        for _ in 0..20 {
            if stopped() {
                return;
            }
            match person.random.below(4) {
                0 | 1 => person.use_twice(&account).await,
                2 => person.revoke_against_use(&account).await,
                _ => person.revoke_before_grant(&account).await,
            }
            tokio::time::sleep(pace).await;
        }
    }
}

impl Person<'_> {
    fn any_door(&mut self) -> usize {
        self.random.below(self.clients.doors.len() as u64) as usize
    }

    /// Another door than this one, where there is one.
    fn other_door(&mut self, door: usize) -> usize {
        let n = self.clients.doors.len();
        (door + 1 + self.random.below(n as u64 - 1) as usize) % n
    }

    async fn submit(&self, door: usize, tx: &Signed) -> Outcome {
        self.clients.submit(&self.name, door, tx).await
    }

    /// Enrols, has records anchored and a case settled; `None` where one of these did not become final.
    async fn open_account(&mut self) -> Option<Account> {
        let (c, n) = (self.clients, self.clients.fresh());
        let key = assent_proto::SecretKey::from_bytes(&digest(&format!("{} {n}", self.name)).0);
        let action = enrol(&c.cast.hospital_a, &key);
        let enrolment = c.sign(&c.cast.bureau, action, Some(&key)).about("enrol", None);
        let door = self.any_door();
        self.submit(door, &enrolment).await.is_applied().then_some(())?;
        let party = Party { author: Author::Account(AccountId(enrolment.id.0)), key };

        let records: Vec<_> = (0..4).map(|i| record(&party, i, 100 + i)).collect();
        let anchor = anchor_of(self.catalogue.claims, &records, &[]);
        let anchoring = c.sign(&c.cast.hospital_a, Action::AnchorRecords(anchor), None).about("anchor", None);
        let case = CaseId(digest(&format!("case {n}")));
        let settlement = anchor_of(self.catalogue.settlements, &[record(&party, 1000, 100)], &[case]);
        let settling = c.sign(&c.cast.bureau, Action::AnchorRecords(settlement), None).about("settle", None);
        let (a, b) = (self.any_door(), self.any_door());
        let (anchored, settled) = tokio::join!(self.submit(a, &anchoring), self.submit(b, &settling));
        (anchored.is_applied() && settled.is_applied()).then_some(())?;

        Some(Account { party, case, records: proofs(BatchId(anchoring.id.0), &records) })
    }

    /// One time, this case: the insurer may read the person's records to pay the claim.
    fn grant(&self, account: &Account) -> Signed {
        let unique = digest(&format!("notice {}", self.clients.fresh()));
        let until = TimeMs(now_ms() + 3_600_000);
        let insurer = &self.clients.cast.insurer;
        let terms = one_use(insurer, self.catalogue.claims, account.case, until, unique);
        let signed = self.clients.sign(&account.party, Action::Grant(Box::new(terms)), None);
        let id = GrantId(signed.id.0);
        signed.about("grant", Some(id))
    }

    fn request(&self, account: &Account, grant: GrantId, what: &'static str) -> Signed {
        let staff = Commitment(digest(&format!("staff {}", self.clients.fresh())));
        let (id, case, records) = (account.party.account(), account.case, account.records[..2].to_vec());
        let request = use_of(self.catalogue.claims, grant, id, case, records, staff);
        let signed =
            self.clients.sign(&self.clients.cast.insurer, Action::RequestAccess(Box::new(request)), None);
        signed.about(what, Some(grant))
    }

    fn revocation(&self, account: &Account, grant: GrantId) -> Signed {
        let signed = self.clients.sign(&account.party, Action::Revoke(Revoke { grant }), None);
        signed.about("revoke", Some(grant))
    }

    /// A grant for one use is used through two doors at once: one of the two is denied.
    async fn use_twice(&mut self, account: &Account) {
        let grant = self.grant(account);
        let door = self.any_door();
        if !self.submit(door, &grant).await.is_applied() {
            return;
        }
        let id = GrantId(grant.id.0);
        let (one, other) = (self.request(account, id, "compete"), self.request(account, id, "compete"));
        let elsewhere = self.other_door(door);
        tokio::join!(self.submit(door, &one), self.submit(elsewhere, &other));
    }

    /// A revocation and a use set out at the same moment; a use after the revocation is final follows.
    async fn revoke_against_use(&mut self, account: &Account) {
        let grant = self.grant(account);
        let door = self.any_door();
        if !self.submit(door, &grant).await.is_applied() {
            return;
        }
        let id = GrantId(grant.id.0);
        let (usage, revocation) = (self.request(account, id, "race"), self.revocation(account, id));
        let elsewhere = self.other_door(door);
        let (_, revoked) = tokio::join!(self.submit(door, &usage), self.submit(elsewhere, &revocation));
        if revoked.is_applied() {
            let door = self.any_door();
            self.submit(door, &self.request(account, id, "after-revocation")).await;
        }
    }

    /// A revocation is final before the grant that it names is handed in.
    async fn revoke_before_grant(&mut self, account: &Account) {
        let grant = self.grant(account);
        let id = GrantId(grant.id.0);
        let door = self.any_door();
        if !self.submit(door, &self.revocation(account, id)).await.is_applied() {
            return;
        }
        let elsewhere = self.other_door(door);
        self.submit(elsewhere, &grant).await;
        self.submit(door, &self.request(account, id, "after-revocation")).await;
    }
}
