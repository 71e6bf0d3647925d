//! A sandbox in which tests make transactions, put them into blocks and look at what became of them.
//!
//! For tests of this crate and of those above it; nothing here runs in a node. All keys are derived from
//! fixed bytes, all signatures are real, and every transaction goes the way of [`verify`], [`crate::check()`]
//! and [`apply()`].

use assent_proto::code::{Denial, Invalid};
use assent_proto::envelope::{Envelope, VerifiedTx, verify};
use assent_proto::event::{Event, EventKind};
use assent_proto::field::{List, Message};
use assent_proto::keys::{Algorithm, SecretKey};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::{Validator, ValidatorSet, VoteKind, vote_message};
use assent_proto::{BlockId, GenesisHash, Hash, hash, ids::*, merkle};

use crate::{
    Applied, BlockContext, Content, InvalidBlock, ParentTurns, ReplayWindow, State, Verdict, apply, check,
    explain, parameters, read,
};

/// Whoever can sign: an institution by its operator, or a person by her wallet.
#[derive(Clone)]
pub struct Party {
    /// As whom.
    pub author: Author,
    /// By which key.
    pub key: SecretKey,
}

impl Party {
    /// The institution's id.
    pub fn institution(&self) -> InstitutionId {
        match self.author {
            Author::Institution(id) => id,
            Author::Account(_) => panic!("a person is no institution"),
        }
    }

    /// The person's account.
    pub fn account(&self) -> AccountId {
        match self.author {
            Author::Account(id) => id,
            Author::Institution(_) => panic!("an institution is no person"),
        }
    }
}

/// The institutions of the sandbox.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Four {
    pub bureau: Party,
    pub hospital_a: Party,
    pub hospital_b: Party,
    pub insurer: Party,
}

impl Four {
    /// The four of whom each is found by its slug.
    pub fn of(party: impl Fn(&str) -> Party) -> Four {
        Four {
            bureau: party("bureau"),
            hospital_a: party("hospital-a"),
            hospital_b: party("hospital-b"),
            insurer: party("insurer"),
        }
    }
}

/// A chain of blocks without a network.
#[derive(Clone)]
pub struct World {
    genesis: GenesisHash,
    founding: State,
    state: State,
    window: ReplayWindow,
    at: BlockContext,
    sequence: u64,
    blocks: Vec<(BlockContext, Vec<VerifiedTx>)>,
    events: Vec<Event>,
    parent: ParentTurns,
}

/// Time between two blocks of the sandbox, ms.
pub const BLOCK_MS: u64 = 1000;

impl World {
    /// A chain from its founding leaves.
    pub fn found(genesis: GenesisHash, time: TimeMs, leaves: impl IntoIterator<Item = Leaf>) -> World {
        let founding = State::from_leaves(leaves);
        World {
            genesis,
            state: founding.clone(),
            founding,
            window: ReplayWindow::new(),
            at: BlockContext { height: Height(0), time },
            sequence: 0,
            blocks: Vec::new(),
            events: Vec::new(),
            parent: ParentTurns::default(),
        }
    }

    /// The chain of [`assent_genesis::testing::four`] and its institutions' operators.
    pub fn four() -> (World, Four) {
        let (genesis, _, operators) = assent_genesis::testing::four();
        let party = |slug: &str| {
            let found = genesis.institutions().iter().zip(&operators).find(|(entry, _)| entry.slug == slug);
            let (entry, key) = found.expect("the test chain has the four");
            Party { author: Author::Institution(entry.id), key: key.clone() }
        };
        (World::found(genesis.hash(), genesis.time(), genesis.leaves()), Four::of(party))
    }

    /// The chain.
    pub fn genesis(&self) -> &GenesisHash {
        &self.genesis
    }

    /// The state before the next block.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The founding state.
    pub fn founding(&self) -> &State {
        &self.founding
    }

    /// The window before the next block.
    pub fn window(&self) -> &ReplayWindow {
        &self.window
    }

    /// Where the newest block stands.
    pub fn at(&self) -> BlockContext {
        self.at
    }

    /// Where the next block will stand.
    pub fn next(&self) -> BlockContext {
        BlockContext { height: self.at.height.next(), time: self.at.time.plus(BLOCK_MS) }
    }

    /// Every block so far.
    pub fn blocks(&self) -> &[(BlockContext, Vec<VerifiedTx>)] {
        &self.blocks
    }

    /// Every event so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events of one trail, in order.
    pub fn trail(&self, object: impl Into<ObjectRef>) -> Vec<&Event> {
        let object = object.into();
        self.events.iter().filter(|e| e.link(&object).is_some()).collect()
    }

    /// What happened on one trail, in order.
    pub fn kinds(&self, object: impl Into<ObjectRef>) -> Vec<EventKind> {
        self.trail(object).iter().map(|e| e.core.kind).collect()
    }

    /// Reads an object that must exist.
    pub fn get<T: Content>(&self, object: impl Into<ObjectRef>) -> T {
        read(&self.state, object).expect("the test made this object")
    }

    /// Replaces a founding object, before the first block.
    pub fn amend<T: Content>(&mut self, object: impl Into<ObjectRef>, edit: impl FnOnce(&mut T)) {
        assert!(self.blocks.is_empty(), "the founding is amended before the first block");
        let object = object.into();
        let mut value: T = self.get(object);
        edit(&mut value);
        self.founding = self.founding.with([&leaf(object, &value)]);
        self.state = self.founding.clone();
    }

    /// What the parent certificates of the blocks from now on show.
    pub fn see(&mut self, parent: ParentTurns) {
        self.parent = parent;
    }

    /// Lets time pass without a block.
    pub fn wait(&mut self, ms: u64) {
        self.at.time = self.at.time.plus(ms);
    }

    /// A body of its own, even if the same was asked before.
    pub fn body(&mut self, by: &Party, action: Action) -> Body {
        self.sequence += 1;
        let expires_at = self.next().time.plus(60_000 + self.sequence);
        Body { chain: self.genesis.tag(), expires_at, author: by.author, action }
    }

    /// Signs a body and verifies its signatures.
    pub fn seal(&self, body: &Body, keys: &[&SecretKey]) -> VerifiedTx {
        let bytes = Envelope::sign(&self.genesis, body, keys).encode();
        verify(&self.genesis, &[bytes]).remove(0).expect("the sandbox makes canonical transactions")
    }

    /// A transaction with its author's signature alone.
    pub fn sign(&mut self, by: &Party, action: Action) -> VerifiedTx {
        let body = self.body(by, action);
        self.seal(&body, &[&by.key])
    }

    /// Whether a transaction may be in the next block.
    pub fn check(&self, tx: &VerifiedTx) -> Result<(), Invalid> {
        let next = self.next();
        let version = crate::protocol(&self.state).at(next.height);
        check(&self.state, &self.window, &parameters(&self.state), version, next.time, tx)
    }

    /// What the next block would make, without making it.
    pub fn apply(&self, txs: &[VerifiedTx]) -> Result<Applied, InvalidBlock> {
        apply(&self.state, &self.window, self.next(), &self.parent, txs)
    }

    /// Makes the next block and tells each transaction's verdict.
    pub fn block(&mut self, txs: Vec<VerifiedTx>) -> Result<Vec<Result<BodyId, Denial>>, InvalidBlock> {
        let applied = self.apply(&txs)?;
        self.explained(&txs, &applied);
        self.at = self.next();
        self.state = applied.state;
        self.window.committed(self.at.time, &txs);
        self.events.extend(applied.events);
        self.blocks.push((self.at, txs));
        Ok(applied.receipts.iter().map(|r| Denial::from_number(r.code).map_or(Ok(r.body), Err)).collect())
    }

    /// What was explained of the request with which a block begins is what became of it.
    fn explained(&self, txs: &[VerifiedTx], applied: &Applied) {
        let Some(Body { author: Author::Institution(by), action: Action::RequestAccess(request), .. }) =
            txs.first().map(VerifiedTx::body)
        else {
            return;
        };
        let told = explain(&self.state, self.next(), by, request).expect("a block could hold it");
        let (became, id) = (&applied.receipts[0], PermitId(txs[0].body_id().0));
        assert_eq!(told.code(), became.code, "{request:?}");
        match told {
            Verdict::Denied { denial, rule } => {
                let rule = rule.unwrap_or_else(|| panic!("no rule is named for {denial:?} of {request:?}"));
                assert_eq!(rule.rule.denial, Some(denial));
            }
            // What a later transaction of the block did besides is not the explanation's matter.
            Verdict::Permitted { until, uses_left } if txs.len() == 1 => {
                let permit: Permit = read(&applied.state, id).expect("it was permitted");
                let grant = permit.grant.and_then(|id| read::<GrantState>(&applied.state, id));
                let counted = grant.filter(|g| g.terms.mode != Mode::Standing);
                assert_eq!(until, permit.expires_at);
                assert_eq!(uses_left, counted.map(|g| g.terms.uses - g.used));
            }
            Verdict::Permitted { .. } => {}
        }
    }

    /// Makes a block of one valid transaction.
    pub fn submit(&mut self, tx: VerifiedTx) -> Result<BodyId, Denial> {
        self.block(vec![tx]).expect("the sandbox submits valid transactions").remove(0)
    }

    /// Signs and submits.
    pub fn run(&mut self, by: &Party, action: Action) -> Result<BodyId, Denial> {
        let tx = self.sign(by, action);
        self.submit(tx)
    }

    /// Signs with a second key and submits.
    pub fn run_with(&mut self, by: &Party, second: &SecretKey, action: Action) -> Result<BodyId, Denial> {
        let body = self.body(by, action);
        let tx = self.seal(&body, &[&by.key, second]);
        self.submit(tx)
    }

    /// Opens an account with a custodian.
    pub fn enrol(&mut self, bureau: &Party, custodian: &Party, name: &str) -> Party {
        let key = secret(name);
        let id = self.run_with(bureau, &key, enrol(custodian, &key)).expect("a bureau enrols");
        Party { author: Author::Account(AccountId(id.0)), key }
    }

    /// Registers an item of scope 1.
    pub fn item(
        &mut self,
        source: &Party,
        code: u32,
        category: Category,
        level: Level,
        opening: Opening,
    ) -> ItemId {
        let recipients = List::empty();
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients };
        self.run(source, Action::RegisterItem(item)).expect("the source registers");
        ItemId::of(code, 1)
    }

    /// Anchors records in one batch and proves the place of each.
    pub fn anchor(
        &mut self,
        source: &Party,
        item: ItemId,
        records: &[Record],
        settles: &[CaseId],
    ) -> Vec<RecordProof> {
        let anchor = Action::AnchorRecords(anchor_of(item, records, settles));
        let batch = BatchId(self.run(source, anchor).expect("the source anchors").0);
        let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
        let proof = |(index, record): (usize, &Record)| RecordProof {
            batch,
            record: record.clone(),
            index: index as u32,
            path: list(merkle::path(&leaves, index)),
        };
        records.iter().enumerate().map(proof).collect()
    }
}

/// A person with an account at hospital A, whose five records of one item are anchored there; the insurer
/// is about to ask for them because of one case.
#[derive(Clone)]
pub struct Scene {
    /// The chain.
    pub world: World,
    /// The institutions.
    pub four: Four,
    /// The person.
    pub person: Party,
    /// Claim documents of hospital A, of moderate level, prohibited in principle.
    pub item: ItemId,
    /// The bureau's settlements.
    pub settlements: ItemId,
    /// Her records, of days 100 to 104.
    pub records: Vec<RecordProof>,
    /// The case.
    pub case: CaseId,
}

impl Scene {
    /// The scene in a fresh [`World::four`].
    pub fn new() -> Scene {
        let (world, four) = World::four();
        Scene::in_world(world, four)
    }

    /// The scene in a world that was amended.
    pub fn in_world(mut world: World, four: Four) -> Scene {
        let person = world.enrol(&four.bureau, &four.hospital_a, "person");
        let (claims, moderate, shut) = (Category::ClaimDocument, Level::Moderate, Opening::Prohibited);
        let item = world.item(&four.hospital_a, 1, claims, moderate, shut);
        let settlements = world.item(&four.bureau, 2, Category::Settlement, moderate, shut);
        let records: Vec<_> = (0..5).map(|i| record(&person, i, 100 + i)).collect();
        let records = world.anchor(&four.hospital_a, item, &records, &[]);
        Scene { world, four, person, item, settlements, records, case: CaseId(digest("case")) }
    }

    /// The bureau settles the case.
    pub fn settle(&mut self) {
        let (bureau, case) = (self.four.bureau.clone(), self.case);
        let settlement = record(&self.person, 1000, 100);
        self.world.anchor(&bureau, self.settlements, &[settlement], &[case]);
    }

    /// As [`one_use`], to the insurer, for an hour.
    pub fn terms(&self) -> Grant {
        let until = self.world.at().time.plus(3_600_000);
        one_use(&self.four.insurer, self.item, self.case, until, digest("notice"))
    }

    /// Standing terms for a grantee that makes statistics.
    pub fn standing(&self, grantee: &Party) -> Grant {
        Grant {
            grantee: grantee.institution(),
            case: None,
            purpose: Purpose::Statistics,
            actions: list(vec![UseAction::Read, UseAction::Derive]),
            mode: Mode::Standing,
            uses: 0,
            ..self.terms()
        }
    }

    /// An order about her records of the item, without a deferred notice.
    pub fn order(&self, beneficiary: &Party, cosigner: &Party, not_after: TimeMs) -> IssueOrder {
        IssueOrder {
            basis: OrderBasis::InsuranceSupervision,
            document: digest("order"),
            beneficiary: beneficiary.institution(),
            cosigner: cosigner.institution(),
            account: Some(self.person.account()),
            items: list(vec![self.item]),
            categories: List::empty(),
            data_from: Day(100),
            data_to: Day(103),
            actions: list(vec![UseAction::Read]),
            output: Output::Masked,
            max_level: Level::Moderate,
            not_after,
            notice_from: TimeMs(0),
        }
    }

    /// The person grants.
    pub fn grant(&mut self, terms: Grant) -> Result<GrantId, Denial> {
        let person = self.person.clone();
        self.world.run(&person, Action::Grant(Box::new(terms))).map(|id| GrantId(id.0))
    }

    /// The person revokes.
    pub fn revoke(&mut self, grant: GrantId) -> Result<BodyId, Denial> {
        let person = self.person.clone();
        self.world.run(&person, Action::Revoke(Revoke { grant }))
    }

    /// A request that keeps to [`Scene::terms`], for the first two records.
    pub fn ask(&self, grant: Option<GrantId>) -> RequestAccess {
        RequestAccess {
            grant,
            item: self.item,
            account: Some(self.person.account()),
            case: Some(self.case),
            purpose: Purpose::ClaimsPayment,
            action: UseAction::Read,
            output: Output::Masked,
            records: list(self.records.iter().take(2).cloned().collect()),
            staff: Commitment(digest("staff")),
            person: None,
            emergency: None,
            order: None,
        }
    }

    /// A request that keeps to [`Scene::standing`].
    pub fn ask_statistics(&self, grant: GrantId) -> RequestAccess {
        let (purpose, action) = (Purpose::Statistics, UseAction::Derive);
        RequestAccess { case: None, purpose, action, ..self.ask(Some(grant)) }
    }

    /// An institution requests.
    pub fn request(&mut self, by: &Party, request: RequestAccess) -> Result<PermitId, Denial> {
        self.world.run(by, Action::RequestAccess(Box::new(request))).map(|id| PermitId(id.0))
    }

    /// A delivery of just what was permitted, released at the newest height.
    pub fn delivery(&self, permit: PermitId) -> Deliver {
        let p: Permit = self.world.get(permit);
        let (released_height, package) = (self.world.at().height, digest("package"));
        Deliver { permit, released_height, manifest: p.manifest, records: p.records, package }
    }

    /// The custodian delivers.
    pub fn deliver(&mut self, by: &Party, delivery: Deliver) -> Result<BodyId, Denial> {
        self.world.run(by, Action::Deliver(delivery))
    }
}

impl Default for Scene {
    fn default() -> Self {
        Scene::new()
    }
}

/// Where all of the sandbox's institutions are: China.
pub const JURISDICTION: u32 = 156;

/// A hash that stands for something named.
pub fn digest(name: &str) -> Hash {
    hash::DOCUMENT.hash(&[name.as_bytes()])
}

/// The key of somebody named.
pub fn secret(name: &str) -> SecretKey {
    SecretKey::from_bytes(&digest(name).0)
}

/// A list within its bounds.
pub fn list<T, const MAX: usize>(elements: Vec<T>) -> List<T, MAX> {
    elements.try_into().expect("the test keeps to the bounds")
}

/// A person's record.
pub fn record(person: &Party, n: u32, day: u32) -> Record {
    let commitment = Commitment(digest(&format!("record {n}")));
    Record { account: person.account(), commitment, day: Day(day) }
}

/// Asks for an account with a custodian under a new key.
pub fn enrol(custodian: &Party, key: &SecretKey) -> Action {
    let (algorithm, key) = (Algorithm::Ed25519, key.public());
    Action::Enrol(Enrol { custodian: custodian.institution(), algorithm, key })
}

/// An anchoring of records under an item.
pub fn anchor_of(item: ItemId, records: &[Record], settles: &[CaseId]) -> AnchorRecords {
    let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
    let (root, count) = (merkle::root(&leaves), leaves.len() as u32);
    AnchorRecords { item, root, count, settles: list(settles.to_vec()) }
}

/// One time, this case: the grantee may read the person's records under an item to pay the claim.
pub fn one_use(grantee: &Party, item: ItemId, case: CaseId, not_after: TimeMs, notice: Hash) -> Grant {
    Grant {
        grantee: grantee.institution(),
        capacity: Capacity::Own,
        items: list(vec![item]),
        categories: List::empty(),
        data_from: Day(100),
        data_to: Day(103),
        case: Some(case),
        purpose: Purpose::ClaimsPayment,
        actions: list(vec![UseAction::Read]),
        output: Output::Masked,
        max_level: Level::Moderate,
        mode: Mode::OneTime,
        uses: 1,
        not_before: TimeMs(0),
        not_after,
        retention_days: 30,
        onward: false,
        jurisdictions: list(vec![JURISDICTION]),
        legal_basis: LegalBasis::Consent,
        notice,
        language: Language::Chinese,
        policy_version: 1,
        delegation: None,
    }
}

/// An activity on permits and products.
pub fn activity(
    kind: ActivityKind,
    permits: &[PermitId],
    artifacts: &[ArtifactId],
    outputs: &[&Product],
) -> Action {
    Action::RecordActivity(Box::new(RecordActivity {
        kind,
        permits: list(permits.to_vec()),
        artifacts: list(artifacts.to_vec()),
        outputs: list(outputs.iter().map(|p| (*p).clone()).collect()),
        plan: digest("plan"),
        excluded: List::empty(),
    }))
}

/// A product of a name and a level.
pub fn product(name: &str, level: Level) -> Product {
    Product { id: ArtifactId(digest(name)), level }
}

/// The validators that vote at `height` after an edit, to vote from `from` on; `keys` may be new among them.
pub fn change_validators(
    genesis: &GenesisHash,
    state: &State,
    height: Height,
    from: Height,
    keys: &[&SecretKey],
    edit: impl FnOnce(&mut Vec<Validator>),
) -> ChangeValidators {
    let before: ValidatorSet = crate::validators(state).at(height).clone();
    let replaces = before.hash();
    let mut validators = before.validators.into_vec();
    edit(&mut validators);
    let possession = |key: &&SecretKey| {
        let validator = validators.iter().find(|v| v.key == key.public())?;
        let message = join_message(genesis, &validator.institution, KeyUse::Consensus, &key.public());
        Some(Possession { key: key.public(), signature: key.sign(&message.0) })
    };
    let possessions = list(keys.iter().filter_map(possession).collect());
    ChangeValidators { replaces, validators: list(validators), from, possessions }
}

/// A node of an institution, with its keys' signatures.
pub fn admission(
    genesis: &GenesisHash,
    institution: InstitutionId,
    key: &SecretKey,
    network: &SecretKey,
) -> NodeAdmission {
    let sign =
        |key_use, key: &SecretKey| key.sign(&join_message(genesis, &institution, key_use, &key.public()).0);
    NodeAdmission {
        record: NodeRecord { institution, key: key.public(), network_key: network.public() },
        possession: sign(KeyUse::Consensus, key),
        network_possession: sign(KeyUse::Network, network),
    }
}

/// Two precommits of one key for two blocks.
pub fn contradiction(
    genesis: &GenesisHash,
    key: &SecretKey,
    height: Height,
    round: u32,
) -> ReportEquivocation {
    let who = assent_proto::validators::address(&key.public());
    let statement = |name| {
        let block = Some(BlockId(digest(name)));
        let message = vote_message(genesis, VoteKind::Precommit, height, round, block.as_ref(), &who);
        Statement { block, valid_round: None, signature: key.sign(&message.0) }
    };
    let what = StatementKind::Precommit;
    let statements = [statement("one block"), statement("another")];
    ReportEquivocation::of(key.public(), height, round, what, statements).expect("they differ")
}

fn leaf<T: Content>(object: ObjectRef, value: &T) -> Leaf {
    Leaf { object, content: value.encode(), trail: object.new_trail() }
}
