//! The objects of the ledger's state, and the leaf that holds each.

use serde::Serialize;

use crate::block::PROTOCOL_OLDEST;
use crate::field::{Element, List, Message, enums, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::keys::{Algorithm, PublicKey};
use crate::transaction::*;
use crate::validators::{Validator, ValidatorSet};

enums! {
    /// The kinds of object.
    ObjectKind { /** [`Institution`]. */ Institution = 1, /** [`Account`]. */ Account = 2, /** [`Item`]. */ Item = 3,
        /** [`Batch`]. */ Batch = 4, /** [`Settlement`]. */ Settlement = 5, /** [`GrantState`]. */ Grant = 6,
        /** [`Permit`]. */ Permit = 7, /** [`Artifact`]. */ Artifact = 8, /** [`Review`]. */ Review = 9,
        /** [`Policy`]. */ Policy = 10, /** [`Parameters`]. */ Parameters = 11, /** [`Validators`]. */ Validators = 12,
        /** [`Nodes`]. */ Nodes = 13, /** [`Turns`]. */ Turns = 14, /** [`Proposal`]. */ Proposal = 15,
        /** [`Misconduct`]. */ Misconduct = 16, /** [`Delegation`]. */ Delegation = 17, /** [`Order`]. */ Order = 18,
        /** [`Emergency`]. */ Emergency = 19, /** [`Protocol`]. */ Protocol = 20, /** [`Release`]. */ Release = 21 }
    /// What an institution may do.
    Role { /** Enrols persons, anchors settlements (医保局). */ Bureau = 1, /** Holds care and fee details. */ Hospital = 2,
        /** Pays claims. */ Insurer = 3, /** Reviews and supervises. */ Regulator = 4, /** Follows the trail. */ Auditor = 5,
        /** Processes on behalf of others. */ Processor = 6, /** Issues orders. */ Court = 7 }
}

messages! {
    /// Names an object, its trail and its leaf.
    ObjectRef {
        /// Its kind.
        kind: ObjectKind,
        /// Its id among its kind.
        id: Hash,
    }
    /// How many events an object has seen, and the head of the hash chain over them.
    Trail {
        /// Events so far.
        length: u64,
        /// The head.
        head: Hash,
    }
    /// What the state trie holds at an object's key.
    Leaf {
        /// The object.
        object: ObjectRef,
        /// Its canonical encoding.
        #[serde(serialize_with = "crate::field::as_hex")]
        content: bytes::Bytes,
        /// Its trail.
        trail: Trail,
    }
    /// A key by which an institution acts, and for how long.
    OperatorKey {
        /// Algorithm.
        algorithm: Algorithm,
        /// The key.
        key: PublicKey,
        /// From when, inclusive, in block time.
        not_before: TimeMs,
        /// Until when, inclusive, in block time.
        not_after: TimeMs,
    }
    /// An institution.
    Institution {
        /// What it may do.
        roles: List<Role, 8>,
        /// By which keys.
        keys: List<OperatorKey, 8>,
        /// X25519 key that packages for it are encrypted to.
        encryption_key: Hash,
        /// The highest level that it may receive.
        max_level: Level,
        /// ISO 3166-1 numeric.
        jurisdiction: u32,
        /// Those of its proposals that the state holds, oldest first: open ones, and such as were decided or
        /// expired since it proposed last.
        proposals: List<ProposalId, PROPOSALS_MAX>,
        /// Whether it may act (R18).
        standing: Standing,
        /// Until when it may act in emergencies, inclusive (R17).
        rostered_until: Option<TimeMs>,
        /// Uses in emergencies that are not reviewed yet, or not told to the person.
        emergencies: List<OpenEmergency, 16>,
    }
    /// An insured person's account with one custodian.
    Account {
        /// The institution that checked the identity.
        enroller: InstitutionId,
        /// The custodian that it is for.
        custodian: InstitutionId,
        /// The key's algorithm.
        algorithm: Algorithm,
        /// The key.
        key: PublicKey,
        /// Since when.
        enrolled_height: Height,
        /// Revocations that came before their grants.
        early: List<EarlyRevocation, 16>,
        /// Institutions say that its owner has lost the key (R16).
        recovery: Option<Recovery>,
        /// Grants nothing until an in-person check: somebody holds the key, and somebody else says it is hers.
        frozen: bool,
        /// Delegations to guardians (R15): those in force when the newest came, and it.
        guardianships: List<DelegationId, 8>,
    }
    /// A key that is to replace an account's (R16).
    Recovery {
        /// Its algorithm.
        algorithm: Algorithm,
        /// The key.
        key: PublicKey,
        /// Of a frozen account, after an in-person check.
        in_person: bool,
        /// Who says so.
        approvals: List<InstitutionId, 8>,
        /// Forgotten after this block time unless enough have said so.
        until: TimeMs,
        /// Enough have: from this block time on the key is the account's, unless the old one vetoes before.
        ready_at: Option<TimeMs>,
    }
    /// One account's right to grant for another (R15).
    Delegation {
        /// For whom.
        ward: AccountId,
        /// Who.
        delegate: AccountId,
        /// As guardian or proxy.
        capacity: Capacity,
        /// Who confirmed it.
        issuer: InstitutionId,
        /// Hash of the document.
        document: Hash,
        /// For what.
        purposes: List<Purpose, 9>,
        /// Until when, exclusive.
        until: TimeMs,
        /// Set once it ended before.
        ended: Option<Ended>,
    }
    /// How and when a delegation ended.
    Ended {
        /// Why.
        cause: DelegationEnd,
        /// Height.
        height: Height,
        /// Block time.
        time: TimeMs,
    }
    /// The duties of a use in an emergency that are open.
    OpenEmergency {
        /// The use.
        permit: PermitId,
        /// To be reviewed by then.
        review_by: Option<TimeMs>,
        /// The person to be told by then.
        notify_by: Option<TimeMs>,
    }
    /// A use in an emergency (R17). Its id is its permit's.
    Emergency {
        /// Who used.
        requester: InstitutionId,
        /// Why.
        reason: EmergencyReason,
        /// Block time at which it was permitted or anchored.
        time: TimeMs,
        /// When the records were released, of one that was anchored afterwards.
        released_at: Option<TimeMs>,
        /// Anchored after the deadline.
        late: bool,
        /// What the review found.
        verdict: Option<Verdict>,
        /// Who reviewed it.
        reviewer: Option<InstitutionId>,
        /// At which height the person was told.
        notified_height: Option<Height>,
    }
    /// Access by order of a court or by statute (R41).
    Order {
        /// Who issued it.
        issuer: InstitutionId,
        /// What was signed.
        terms: IssueOrder,
        /// At which height.
        height: Height,
    }
    /// A revocation that came before its grant.
    EarlyRevocation {
        /// The grant.
        grant: GrantId,
        /// Until when it is remembered.
        until: TimeMs,
    }
    /// An item of the catalogue.
    Item {
        /// Item code.
        code: u32,
        /// Scope.
        scope: u32,
        /// Kind of data.
        category: Category,
        /// Its one source.
        custodian: InstitutionId,
        /// Sensitivity.
        level: Level,
        /// Use without a grant.
        opening: Opening,
        /// Recipients of a directed opening.
        recipients: List<InstitutionId, 16>,
        /// Since which height it has its level (R21).
        graded_height: Height,
    }
    /// An anchored batch.
    Batch {
        /// Its item.
        item: ItemId,
        /// Who anchored it.
        custodian: InstitutionId,
        /// Merkle root over the records.
        root: Hash,
        /// How many.
        count: u32,
        /// At which height.
        height: Height,
        /// At which block time.
        time: TimeMs,
    }
    /// That a case is settled.
    Settlement {
        /// The batch that settled it.
        batch: BatchId,
        /// Who settled it.
        settler: InstitutionId,
        /// At which height.
        height: Height,
    }
    /// A grant and what became of it.
    GrantState {
        /// Whose.
        account: AccountId,
        /// What was signed.
        terms: Grant,
        /// At which height.
        granted_height: Height,
        /// Uses so far.
        used: u32,
        /// Deliveries so far.
        delivered: u32,
        /// Set once it is revoked.
        revocation: Option<Revocation>,
        /// Set once the grantee attested erasure.
        erased_height: Option<Height>,
        /// Who signed it: the account, or its delegate (R15).
        signer: AccountId,
        /// The ward's word that it holds although the delegation has ended.
        ratified: bool,
        /// What was received is only kept, until a date.
        hold: Option<Hold>,
    }
    /// When a grant was revoked.
    Revocation {
        /// Height.
        height: Height,
        /// Block time.
        time: TimeMs,
    }
    /// A permitted use.
    Permit {
        /// The grant relied on.
        grant: Option<GrantId>,
        /// The item.
        item: ItemId,
        /// Whose records.
        account: Option<AccountId>,
        /// Who uses.
        requester: InstitutionId,
        /// Who releases.
        custodian: InstitutionId,
        /// For which matter.
        case: Option<CaseId>,
        /// For what.
        purpose: Purpose,
        /// To do what.
        action: UseAction,
        /// And receive what.
        output: Output,
        /// Level of the item when it was permitted.
        level: Level,
        /// Merkle root over the permitted records' leaves, in the order asked for.
        manifest: Hash,
        /// How many records.
        records: u32,
        /// Salted commitment to the acting member of staff.
        staff: Commitment,
        /// Permitted at this height.
        height: Height,
        /// To be released before this block time.
        expires_at: TimeMs,
        /// Set once delivered.
        delivered_height: Option<Height>,
        /// The legal order relied on.
        order: Option<OrderId>,
        /// The emergency relied on.
        emergency: Option<EmergencyReason>,
        /// The custodian said that it will not release; the use is given back.
        undelivered: bool,
        /// Of a use by order, at which height the person was told first since version 2 of the protocol is in force.
        notified_height: Option<Height>,
    }
    /// A release in an outage that was anchored since version 2 of the protocol is in force: it is so once.
    Release {
        /// The permit that its anchoring made.
        permit: PermitId,
    }
    /// A product of an activity.
    Artifact {
        /// The activity's body id.
        activity: BodyId,
        /// Who made it.
        agent: InstitutionId,
        /// How.
        kind: ActivityKind,
        /// Sensitivity.
        level: Level,
        /// At which height.
        height: Height,
    }
    /// A review that lets a requester use an item.
    Review {
        /// Who reviewed.
        reviewer: InstitutionId,
        /// Until when.
        until: TimeMs,
    }
    /// What one use case may see at most, and what it needs.
    PurposeRule {
        /// The use case.
        purpose: Purpose,
        /// Highest level.
        max_level: Level,
        /// Whether a request must name a case.
        needs_case: bool,
        /// Whether the case must be settled.
        needs_settlement: bool,
    }
    /// Use case × level, what is never permitted, and who changes both (R10, R14). The one in force is found under
    /// [`ObjectRef::POLICY`], each also under [`ObjectRef::policy`] of its version.
    Policy {
        /// Version.
        version: u32,
        /// One rule a use case; a use case without one is not permitted.
        rules: List<PurposeRule, 32>,
        /// The negative list: beats every basis.
        prohibited: List<Prohibition, 64>,
        /// Who decides on a change of it, and on grading down.
        committee: Committee,
    }
    /// An entry of the negative list. Everything that is named must match; at least one is.
    Prohibition {
        /// The use case.
        purpose: Option<Purpose>,
        /// The item.
        item: Option<ItemId>,
        /// The kind of data.
        category: Option<Category>,
    }
    /// So many institutions of these roles decide, at least one of each.
    Committee {
        /// Roles, 1 to 4.
        roles: List<Role, 4>,
        /// Institutions.
        approvals: u32,
    }
    /// Who votes, who is to, and who did.
    Validators {
        /// First height at which the current set votes.
        since: Height,
        /// Votes from then on, until the pending set does.
        current: ValidatorSet,
        /// Votes from a height on that was named when it was decided.
        pending: Option<PendingSet>,
        /// Keys that voted and do not any more, the latest to leave last.
        former: List<FormerValidator, 64>,
    }
    /// A set that is decided.
    PendingSet {
        /// First height at which it votes.
        from: Height,
        /// The set.
        set: ValidatorSet,
    }
    /// A key that voted once.
    FormerValidator {
        /// As it was at the end.
        validator: Validator,
        /// Last height at which it voted.
        until: Height,
    }
    /// By which version of the rules blocks are made. Not in the state before the first change: version 1.
    Protocol {
        /// In force, until the next is.
        active: u32,
        /// In force from a height on that was named when it was decided.
        next: Option<NextProtocol>,
    }
    /// A version that is decided.
    NextProtocol {
        /// The version.
        version: u32,
        /// First height at which it is in force.
        from: Height,
    }
    /// Who may connect: validators' nodes and observers.
    Nodes {
        /// Each key at most once.
        nodes: List<NodeRecord, 256>,
    }
    /// Validators that are passed over because they missed their turns.
    Turns {
        /// By address.
        missed: List<MissedTurn, 128>,
    }
    /// A validator that missed its turn.
    MissedTurn {
        /// Who.
        validator: Address,
        /// Turns missed without a good one between; 0 for one that is about to be cleared.
        strikes: u32,
        /// Height of the first for which it is passed over now.
        missed: Height,
        /// Passed over below this height.
        until: Height,
    }
    /// A proposed change, and how far it has come.
    Proposal {
        /// Who proposed it.
        proposer: InstitutionId,
        /// What.
        change: Change,
        /// Last block time at which it can be approved.
        until: TimeMs,
        /// Institutions that approve it.
        approvals: List<InstitutionId, 128>,
        /// Height at which it was decided.
        enacted: Option<Height>,
        /// Height at which it was proposed.
        height: Height,
    }
    /// A validator contradicted itself.
    Misconduct {
        /// Its consensus key.
        validator: PublicKey,
        /// Whose it is.
        institution: InstitutionId,
        /// At which height.
        height: Height,
        /// In which round.
        round: u32,
        /// In what.
        what: StatementKind,
        /// Who showed it.
        reporter: InstitutionId,
        /// At which height.
        reported: Height,
        /// First height at which the key does not vote any more for it.
        removed_from: Option<Height>,
    }
    /// Bounds that every validator must share.
    Parameters {
        /// How far ahead of block time a transaction may expire, ms.
        transaction_life_ms: u64,
        /// How long a permit may be released, ms.
        permit_life_ms: u64,
        /// How long an erasure may take after a revocation, ms.
        erasure_deadline_ms: u64,
        /// Most bytes of transactions in a block.
        block_bytes_max: u32,
        /// Most transactions in a block.
        block_transactions_max: u32,
        /// How far a proposer's clock may be from a validator's, ms.
        clock_bound_ms: u64,
        /// Longest time without a block, ms.
        heartbeat_ms: u64,
        /// What follows when a validator contradicts itself.
        equivocation: Consequence,
        /// How many institutions must say who an account's owner is (R16).
        recovery_approvals: u32,
        /// How long the old key can veto then, ms; and how long a recovery waits for approvals.
        recovery_delay_ms: u64,
        /// How long an emergency's permit may be released, ms (R17).
        emergency_permit_life_ms: u64,
        /// How long after a release in an outage it must be anchored, ms.
        emergency_anchor_ms: u64,
        /// How long its review may take, ms.
        emergency_review_ms: u64,
        /// How long telling the person may take, ms.
        emergency_notice_ms: u64,
    }
}

/// The most proposals of one institution that are open at a time, and so the most of them that the state holds.
pub const PROPOSALS_MAX: usize = 16;

impl Copy for ObjectRef {}
impl PartialOrd for ObjectRef {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ObjectRef {
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.kind, self.id).cmp(&(other.kind, other.id))
    }
}

impl ObjectRef {
    /// The policy.
    pub const POLICY: ObjectRef = ObjectRef { kind: ObjectKind::Policy, id: Hash::ZERO };
    /// A policy that is or was in force.
    pub fn policy(version: u32) -> ObjectRef {
        let mut id = Hash::ZERO;
        id.0[..4].copy_from_slice(&version.to_le_bytes());
        ObjectRef { kind: ObjectKind::Policy, id }
    }

    /// The emergency of a permit.
    pub fn emergency(permit: PermitId) -> ObjectRef {
        ObjectRef { kind: ObjectKind::Emergency, id: permit.0 }
    }

    /// A release in an outage: who used which records when. The order in which the records are named says nothing.
    pub fn release(anchor: &AnchorEmergency) -> ObjectRef {
        let mut records: Vec<_> = anchor.records.iter().map(|r| r.record.leaf()).collect();
        records.sort();
        let h = hash::RELEASE_ID.hasher().bytes(anchor.requester.as_bytes()).bytes(anchor.item.as_bytes());
        let h = records.iter().fold(h.number(anchor.released_at.0), |h, r| h.hash(r));
        ObjectRef { kind: ObjectKind::Release, id: h.end() }
    }

    /// By which rules blocks are made.
    pub const PROTOCOL: ObjectRef = ObjectRef { kind: ObjectKind::Protocol, id: Hash::ZERO };
    /// The parameters.
    pub const PARAMETERS: ObjectRef = ObjectRef { kind: ObjectKind::Parameters, id: Hash::ZERO };
    /// Who votes.
    pub const VALIDATORS: ObjectRef = ObjectRef { kind: ObjectKind::Validators, id: Hash::ZERO };
    /// Who may connect.
    pub const NODES: ObjectRef = ObjectRef { kind: ObjectKind::Nodes, id: Hash::ZERO };
    /// Who is passed over.
    pub const TURNS: ObjectRef = ObjectRef { kind: ObjectKind::Turns, id: Hash::ZERO };

    /// Kind and id in 33 bytes, as stored and hashed.
    pub fn key(&self) -> [u8; 33] {
        let mut key = [0; 33];
        key[0] = self.kind as u8;
        key[1..].copy_from_slice(&self.id.0);
        key
    }

    /// Reads what [`ObjectRef::key`] wrote.
    pub fn from_key(key: &[u8]) -> Option<ObjectRef> {
        let (kind, id) = key.split_first()?;
        let kind = ObjectKind::read(i32::from(*kind), "kind").ok()?;
        Some(ObjectRef { kind, id: Hash(id.try_into().ok()?) })
    }

    /// The path of the object's leaf in the state trie.
    pub fn path(&self) -> Hash {
        hash::TRIE_KEY.hash(&[&self.key()])
    }

    /// The trail of an object that has seen no event.
    pub fn new_trail(&self) -> Trail {
        Trail { length: 0, head: hash::TRAIL_START.hash(&[&self.key()]) }
    }
}

macro_rules! refs {
    ($($id:ident => $kind:ident),*) => { $(
        impl From<$id> for ObjectRef {
            fn from(id: $id) -> ObjectRef { ObjectRef { kind: ObjectKind::$kind, id: id.0 } }
        }
    )* };
}
refs!(InstitutionId => Institution, AccountId => Account, ItemId => Item, BatchId => Batch, CaseId => Settlement,
      GrantId => Grant, PermitId => Permit, ArtifactId => Artifact, ProposalId => Proposal,
      MisconductId => Misconduct, DelegationId => Delegation, OrderId => Order);

/// The hash of an object's content, without its trail: what an event commits to.
pub fn object_hash(object: &ObjectRef, content: &[u8]) -> Hash {
    hash::OBJECT.hash(&[&object.key(), content])
}

/// A leaf's hash from its parts.
pub fn leaf_hash(object: &ObjectRef, object_hash: &Hash, trail: &Trail) -> Hash {
    hash::TRIE_LEAF.hash(&[&object.key(), &object_hash.0, &trail.length.to_le_bytes(), &trail.head.0])
}

impl Leaf {
    /// The hash of the content.
    pub fn object_hash(&self) -> Hash {
        object_hash(&self.object, &self.content)
    }

    /// The leaf's hash in the trie.
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.object, &self.object_hash(), &self.trail)
    }
}

/// The typed content of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Object {
    Institution(Institution),
    Account(Account),
    Item(Item),
    Batch(Batch),
    Settlement(Settlement),
    Grant(Box<GrantState>),
    Permit(Box<Permit>),
    Artifact(Artifact),
    Review(Review),
    Policy(Policy),
    Parameters(Parameters),
    Validators(Validators),
    Nodes(Nodes),
    Turns(Turns),
    Proposal(Box<Proposal>),
    Misconduct(Misconduct),
    Delegation(Delegation),
    Order(Box<Order>),
    Emergency(Emergency),
    Protocol(Protocol),
    Release(Release),
}

impl Object {
    /// Reads a leaf's content as the kind that its key says.
    pub fn decode(kind: ObjectKind, content: &[u8]) -> Result<Object, crate::field::DecodeError> {
        Ok(match kind {
            ObjectKind::Institution => Object::Institution(Message::decode(content)?),
            ObjectKind::Account => Object::Account(Message::decode(content)?),
            ObjectKind::Item => Object::Item(Message::decode(content)?),
            ObjectKind::Batch => Object::Batch(Message::decode(content)?),
            ObjectKind::Settlement => Object::Settlement(Message::decode(content)?),
            ObjectKind::Grant => Object::Grant(Box::new(Message::decode(content)?)),
            ObjectKind::Permit => Object::Permit(Box::new(Message::decode(content)?)),
            ObjectKind::Artifact => Object::Artifact(Message::decode(content)?),
            ObjectKind::Review => Object::Review(Message::decode(content)?),
            ObjectKind::Policy => Object::Policy(Message::decode(content)?),
            ObjectKind::Parameters => Object::Parameters(Message::decode(content)?),
            ObjectKind::Validators => Object::Validators(Message::decode(content)?),
            ObjectKind::Nodes => Object::Nodes(Message::decode(content)?),
            ObjectKind::Turns => Object::Turns(Message::decode(content)?),
            ObjectKind::Proposal => Object::Proposal(Box::new(Message::decode(content)?)),
            ObjectKind::Misconduct => Object::Misconduct(Message::decode(content)?),
            ObjectKind::Delegation => Object::Delegation(Message::decode(content)?),
            ObjectKind::Order => Object::Order(Box::new(Message::decode(content)?)),
            ObjectKind::Emergency => Object::Emergency(Message::decode(content)?),
            ObjectKind::Protocol => Object::Protocol(Message::decode(content)?),
            ObjectKind::Release => Object::Release(Message::decode(content)?),
        })
    }
}

impl Validators {
    /// The set that votes at a height, none below [`Validators::since`].
    pub fn at(&self, height: Height) -> &ValidatorSet {
        match &self.pending {
            Some(pending) if height >= pending.from => &pending.set,
            _ => &self.current,
        }
    }
}

impl Default for Protocol {
    /// As every chain begins.
    fn default() -> Protocol {
        Protocol { active: PROTOCOL_OLDEST, next: None }
    }
}

impl Protocol {
    /// The version in force at a height: of this state's block or above it.
    pub fn at(&self, height: Height) -> u32 {
        match &self.next {
            Some(next) if height >= next.from => next.version,
            _ => self.active,
        }
    }
}

impl Turns {
    /// Whether a validator's turn comes after all others' at a height: of this state's block or above it. What
    /// is seen of a height in the block above counts from the one after that on.
    pub fn passed_over(&self, validator: &Address, height: Height) -> bool {
        let counts = |m: &MissedTurn| height.0 > m.missed.0 + 1 && height < m.until;
        self.missed.iter().any(|m| m.validator == *validator && counts(m))
    }
}

impl Nodes {
    /// The node that a consensus key names.
    pub fn by_key(&self, key: &PublicKey) -> Option<&NodeRecord> {
        self.nodes.iter().find(|n| n.key == *key)
    }
}

impl Account {
    /// The key that signs for it at a block time: a recovery that is ready needs nobody to carry it out.
    pub fn key_at(&self, time: TimeMs) -> PublicKey {
        match &self.recovery {
            Some(r) if r.ready_at.is_some_and(|at| at <= time) => r.key,
            _ => self.key,
        }
    }
}

impl Delegation {
    /// Whether it is in force at a block time.
    pub fn is_in_force(&self, time: TimeMs) -> bool {
        self.ended.is_none() && time < self.until
    }
}

impl Prohibition {
    /// Whether a use is prohibited by it.
    pub fn covers(&self, purpose: Purpose, item: &ItemId, category: Category) -> bool {
        self.purpose.is_none_or(|p| p == purpose)
            && self.item.is_none_or(|i| i == *item)
            && self.category.is_none_or(|c| c == category)
    }
}

impl Policy {
    /// The rule for a use case.
    pub fn rule(&self, purpose: Purpose) -> Option<&PurposeRule> {
        self.rules.iter().find(|r| r.purpose == purpose)
    }
}

impl Institution {
    /// Whether it has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

impl GrantState {
    /// Until when the grantee must have attested erasure: set once a grant was revoked that had been
    /// delivered on, and not yet attested (R9).
    pub fn erasure_due(&self, parameters: &Parameters) -> Option<TimeMs> {
        match (&self.revocation, self.delivered, self.erased_height) {
            (Some(r), 1.., None) => {
                let deadline = r.time.plus(parameters.erasure_deadline_ms);
                // A hold says storage only: the duty waits for its end.
                Some(self.hold.as_ref().map_or(deadline, |h| deadline.max(h.until)))
            }
            _ => None,
        }
    }
}
