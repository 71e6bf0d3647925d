//! What wallets and institutions ask of the ledger: the checked form of `transaction.proto`.
//!
//! Only shape is checked here (lengths, counts, known numbers); whether it is allowed is the ledger's to say.

use serde::Serialize;

use crate::block::BlockId;
use crate::field::{DecodeError, Element, List, Message, enums, message_field, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::keys::{Algorithm, Claim, PublicKey, Signature};
use crate::state::{OperatorKey, Parameters, Policy, Role};
use crate::validators::{Validator, VoteKind, address, proposal_message, vote_message};
use crate::wire;

enums! {
    /// What kind of data an item of the catalogue is.
    Category { /** Claim documents. */ ClaimDocument = 1, /** Test results (检验检查结果). */ TestResult = 2, /** Encounters. */ Encounter = 3,
        /** Settlements (医保结算). */ Settlement = 4, /** Prescriptions. */ Prescription = 5 }
    /// Sensitivity (数据分级), least first (R11).
    Level { /** Not sensitive. */ None = 1, /** Low. */ Low = 2, /** Moderate. */ Moderate = 3, /** High. */ High = 4 }
    /// How an item may be used without the person's own grant (开放类型, R11).
    Opening { /** Not at all. */ Prohibited = 1, /** After the regulator's review. */ AfterReview = 2,
        /** By a named, authenticated person. */ RealName = 3, /** By any institution. */ Unconditional = 4,
        /** By named recipients. */ Directed = 5 }
    /// In which capacity a grant is signed.
    Capacity { /** For oneself. */ Own = 1, /** For a ward, by law or court. */ Guardian = 2,
        /** For another, by her power of attorney. */ Proxy = 3 }
    /// What the use is for; after HL7 v3-ActReason.
    Purpose { /** HPAYMT: paying a claim. */ ClaimsPayment = 1, /** TREAT: treatment. */ Treatment = 2,
        /** COC: reuse of another hospital's test result (检验结果互认). */ MutualRecognition = 3,
        /** HRESCH: research. */ Research = 4, /** PUBHLTH: statistics. */ Statistics = 5,
        /** HOPERAT: operations. */ Operations = 6, /** HMARKT: marketing. */ Marketing = 7,
        /** ETREAT: treatment in an emergency (R17). */ EmergencyTreatment = 8,
        /** HLEGAL: by order of a court or by statute (R41). */ Legal = 9 }
    /// What is done with the data.
    UseAction { /** Read. */ Read = 1, /** Keep a copy. */ Copy = 2, /** Compute on it. */ Compute = 3,
        /** Make new data of it. */ Derive = 4, /** Pass it on. */ Disclose = 5 }
    /// What leaves the custodian, most revealing first: a grant for one covers those after it.
    Output { /** The records. */ Raw = 1, /** Masked records. */ Masked = 2, /** A result alone. */ ResultOnly = 3 }
    /// How often a grant may be used (R6, R8).
    Mode { /** Once (一事一授权). */ OneTime = 1, /** A number of times. */ NTimes = 2, /** Until it ends. */ Standing = 3 }
    /// The legal basis that the notice named.
    LegalBasis { /** Consent. */ Consent = 1, /** Contract. */ Contract = 2, /** Statute. */ Statute = 3 }
    /// The language of the notice.
    Language { /** Chinese. */ Chinese = 1, /** English. */ English = 2 }
    /// What an activity did (R24).
    ActivityKind { /** Cleaning. */ Clean = 1, /** Masking. */ Mask = 2, /** Aggregation. */ Aggregate = 3,
        /** Reuse of a result as it stands (R28). */ Reuse = 4, /** Any other computation. */ Compute = 5 }
    /// The kinds of action, for events.
    ActionKind { /** [`Enrol`]. */ Enrol = 1, /** [`RegisterItem`]. */ RegisterItem = 2, /** [`Classify`]. */ Classify = 3,
        /** [`AnchorRecords`]. */ AnchorRecords = 4, /** [`Grant`]. */ Grant = 5, /** [`Revoke`]. */ Revoke = 6,
        /** [`RequestAccess`]. */ RequestAccess = 7, /** [`Deliver`]. */ Deliver = 8,
        /** [`AttestErasure`]. */ AttestErasure = 9, /** [`RecordActivity`]. */ RecordActivity = 10,
        /** [`ReviewOpening`]. */ ReviewOpening = 11, /** [`Propose`]. */ Propose = 12, /** [`Approve`]. */ Approve = 13,
        /** [`ReportEquivocation`]. */ ReportEquivocation = 14, /** [`NotDelivered`]. */ NotDelivered = 15,
        /** [`RotateKey`]. */ RotateKey = 16, /** [`Recover`]. */ Recover = 17, /** [`VetoRecovery`]. */ VetoRecovery = 18,
        /** [`Delegate`]. */ Delegate = 19, /** [`EndDelegation`]. */ EndDelegation = 20, /** [`Ratify`]. */ Ratify = 21,
        /** [`RotateOperator`]. */ RotateOperator = 22, /** [`AnchorEmergency`]. */ AnchorEmergency = 23,
        /** [`ReviewEmergency`]. */ ReviewEmergency = 24, /** [`NotifyPerson`]. */ NotifyPerson = 25,
        /** [`IssueOrder`]. */ IssueOrder = 26 }
    /// Why there was no time to ask the person (R17).
    EmergencyReason { /** She cannot be asked. */ Unconscious = 1, /** Her life or health is in acute danger. */ AcuteThreat = 2,
        /** A child, and nobody there who may decide. */ ChildWithoutGuardian = 3 }
    /// What the review of an emergency found.
    Verdict { /** It was one. */ Justified = 1, /** It was none, but could be taken for one. */ GoodFaith = 2,
        /** It was none. */ Abuse = 3 }
    /// Why a delegation ended (R15).
    DelegationEnd { /** One of the two wanted it. */ Revoked = 1, /** One of the two died. */ Death = 2,
        /** A court decided it. */ Court = 3 }
    /// On what an order rests (R41).
    OrderBasis { /** A court's decision. */ Court = 1, /** A criminal investigation. */ CriminalInvestigation = 2,
        /** An epidemic or another danger to public health. */ PublicHealth = 3,
        /** Supervision of the insurance fund. */ InsuranceSupervision = 4 }
    /// Why what should be erased is kept in storage (R9).
    HoldReason { /** A statute asks for it. */ StatutoryRetention = 1, /** A lawsuit. */ Litigation = 2,
        /** An investigation. */ Investigation = 3 }
    /// Whether an institution may act.
    Standing { /** It may. */ Active = 1, /** It may only fulfil its duties. */ Suspended = 2,
        /** The same, for good. */ Expelled = 3 }
    /// What a validator states when it signs.
    StatementKind { /** First vote of a round. */ Prevote = 1, /** Second vote of a round. */ Precommit = 2,
        /** A proposal. */ Proposal = 3 }
    /// What follows when a validator is shown to have contradicted itself.
    Consequence { /** It is on the chain for all to see. */ Record = 1,
        /** And its key stops voting, where a quorum is left without it. */ Remove = 2 }
}

messages! {
    /// What is signed.
    Body {
        /// The chain it is for.
        chain: ChainTag,
        /// Refused in a block whose time is later, or earlier by more than the transaction life.
        expires_at: TimeMs,
        /// Who asks.
        author: Author,
        /// What for.
        action: Action,
    }
    /// Opens an account with one custodian (开户). Signed by the enrolling institution, then by the new key.
    Enrol {
        /// The custodian that the account is for.
        custodian: InstitutionId,
        /// The new key's algorithm.
        algorithm: Algorithm,
        /// The new key.
        key: PublicKey,
    }
    /// Enters an item into the resource catalogue, with the author as its one source (R20).
    RegisterItem {
        /// Item code of the catalogue standard.
        code: u32,
        /// Whose data the code speaks of: an administrative or institutional scope.
        scope: u32,
        /// Kind of data.
        category: Category,
        /// Sensitivity.
        level: Level,
        /// Use without a grant.
        opening: Opening,
        /// Recipients of a directed opening; empty for any other.
        recipients: List<InstitutionId, 16>,
    }
    /// Grades an item anew (R11). Grading down is governance's, not the custodian's (R21).
    Classify {
        /// The item.
        item: ItemId,
        /// Sensitivity.
        level: Level,
        /// Use without a grant.
        opening: Opening,
        /// Recipients of a directed opening; empty for any other.
        recipients: List<InstitutionId, 16>,
    }
    /// Anchors records by the Merkle root over them (存证, R1). The batch's id is the id of this body.
    AnchorRecords {
        /// Their catalogue item.
        item: ItemId,
        /// Merkle root over [`Record::leaf`].
        root: Hash,
        /// How many; 1 to [`RECORDS_PER_BATCH_MAX`].
        count: u32,
        /// Cases that these settlements settle.
        settles: List<CaseId, 64>,
    }
    /// One record.
    Record {
        /// Whose.
        account: AccountId,
        /// Salted commitment to its content.
        commitment: Commitment,
        /// The day it speaks of.
        day: Day,
    }
    /// A record and its place in an anchored batch.
    RecordProof {
        /// The batch.
        batch: BatchId,
        /// The record.
        record: Record,
        /// Its index in the batch.
        index: u32,
        /// Siblings from the leaf up.
        path: List<Hash, 12>,
    }
    /// A person's authorization (授权), R2. Its id is the id of this body; the account is the author.
    Grant {
        /// Who may use.
        grantee: InstitutionId,
        /// In which capacity it is signed.
        capacity: Capacity,
        /// Items that it covers.
        items: List<ItemId, 16>,
        /// Categories that it covers besides.
        categories: List<Category, 8>,
        /// First day of the data, inclusive.
        data_from: Day,
        /// Last day of the data, inclusive.
        data_to: Day,
        /// The one matter; a one-time grant has one (R6).
        case: Option<CaseId>,
        /// For what.
        purpose: Purpose,
        /// What may be done.
        actions: List<UseAction, 5>,
        /// The most revealing output.
        output: Output,
        /// The highest level.
        max_level: Level,
        /// How often.
        mode: Mode,
        /// 1 for one-time, the number for n times, 0 for standing.
        uses: u32,
        /// From when, inclusive.
        not_before: TimeMs,
        /// Until when, inclusive.
        not_after: TimeMs,
        /// How long the grantee may keep what it received, in days.
        retention_days: u32,
        /// Whether it may be passed on.
        onward: bool,
        /// Where it may be used, ISO 3166-1 numeric.
        jurisdictions: List<u32, 8>,
        /// On what legal basis.
        legal_basis: LegalBasis,
        /// Hash of the notice that was shown.
        notice: Hash,
        /// In which language.
        language: Language,
        /// The policy in force when it was shown. A later one never widens what was granted under this one.
        policy_version: u32,
        /// By which the author signs for another, whose grant it is (R15).
        delegation: Option<DelegationId>,
    }
    /// Withdraws a grant (撤回, R9); effective before any use in its own block.
    Revoke {
        /// The grant.
        grant: GrantId,
    }
    /// Asks to use records (R3). The permit's id is the id of this body.
    RequestAccess {
        /// The grant relied on; without one, the item's opening type is the basis.
        grant: Option<GrantId>,
        /// The item.
        item: ItemId,
        /// Whose records, where they are one person's.
        account: Option<AccountId>,
        /// For which matter.
        case: Option<CaseId>,
        /// For what.
        purpose: Purpose,
        /// To do what.
        action: UseAction,
        /// And receive what.
        output: Output,
        /// Which records, 1 to 32.
        records: List<RecordProof, 32>,
        /// Salted commitment to the acting member of staff.
        staff: Commitment,
        /// The real-name requester, whose key signs second.
        person: Option<AccountId>,
        /// The basis is an emergency (R17).
        emergency: Option<EmergencyReason>,
        /// The basis is a legal order (R41).
        order: Option<OrderId>,
    }
    /// Tells that records were released against a permit (R3).
    Deliver {
        /// The permit.
        permit: PermitId,
        /// The newest finalised height that the custodian saw when it released.
        released_height: Height,
        /// Merkle root over the records released.
        manifest: Hash,
        /// How many.
        records: u32,
        /// Hash of the encrypted package.
        package: Hash,
    }
    /// Tells that what was received under a revoked grant is erased (R9).
    AttestErasure {
        /// The grant.
        grant: GrantId,
        /// Hash of the erasure report.
        report: Hash,
        /// What was received is only kept, until a date.
        hold: Option<Hold>,
    }
    /// Why data that a person wants erased is kept in storage, and used for nothing (R9).
    Hold {
        /// Why.
        reason: HoldReason,
        /// Until when.
        until: TimeMs,
    }
    /// Gives back the use that a permit consumed: the custodian did not release, and will not.
    NotDelivered {
        /// The permit.
        permit: PermitId,
    }
    /// A new key for the author's account (R16). The new key signs second.
    RotateKey {
        /// Its algorithm.
        algorithm: Algorithm,
        /// The key.
        key: PublicKey,
    }
    /// One institution's word that a person who lost her key is the account's owner (R16). The new key signs
    /// second.
    Recover {
        /// Whose key was lost.
        account: AccountId,
        /// The new key's algorithm.
        algorithm: Algorithm,
        /// The new key.
        key: PublicKey,
        /// Of a frozen account, after papers were looked at across a counter.
        in_person: bool,
    }
    /// Ends a recovery of the author's account and freezes the account until an in-person check (R16).
    VetoRecovery {
        /// The key that is not to replace the author's.
        key: PublicKey,
    }
    /// An institution confirms that one account may grant for another (R15). The delegation's id is the id of
    /// this body. The ward of a proxy signs second, of a guardian the delegate.
    Delegate {
        /// For whom.
        ward: AccountId,
        /// Who.
        delegate: AccountId,
        /// As guardian or proxy.
        capacity: Capacity,
        /// Hash of the power of attorney, the court's decision or the register's entry.
        document: Hash,
        /// For what, at least one.
        purposes: List<Purpose, 9>,
        /// The first moment of a quarter, UTC: until then, exclusive. Coarse, so that no birthday shows.
        until: TimeMs,
    }
    /// Ends a delegation (R15).
    EndDelegation {
        /// Which.
        delegation: DelegationId,
        /// Why.
        cause: DelegationEnd,
    }
    /// The ward's word that a delegate's grant holds although the delegation has ended (R15).
    Ratify {
        /// Which.
        grant: GrantId,
    }
    /// An institution changes its own keys (R18). A key that comes signs second.
    RotateOperator {
        /// A key that comes.
        add: Option<OperatorKey>,
        /// A key that goes.
        retire: Option<PublicKey>,
    }
    /// A release in an emergency while the chain could not be reached, on a record that both sides signed then
    /// (R17). The custodian is the author; an operator's key of the requester signs second. The permit's id is
    /// the id of this body.
    AnchorEmergency {
        /// Who used.
        requester: InstitutionId,
        /// What.
        item: ItemId,
        /// Whose records.
        account: AccountId,
        /// Why.
        reason: EmergencyReason,
        /// To do what.
        action: UseAction,
        /// And receive what.
        output: Output,
        /// Which records, 1 to 32.
        records: List<RecordProof, 32>,
        /// Salted commitment to the acting member of staff.
        staff: Commitment,
        /// When they were released.
        released_at: TimeMs,
        /// Hash of the encrypted package.
        package: Hash,
    }
    /// The regulator's verdict on a use in an emergency (R17).
    ReviewEmergency {
        /// The use.
        permit: PermitId,
        /// What was found.
        verdict: Verdict,
    }
    /// The requester has told the person of a use that she did not authorize (R17, R41).
    NotifyPerson {
        /// The use.
        permit: PermitId,
        /// Hash of what she was told.
        notice: Hash,
    }
    /// Access by order of a court or by statute (R41). An operator's key of the co-signer signs second. The
    /// order's id is the id of this body.
    IssueOrder {
        /// On what it rests.
        basis: OrderBasis,
        /// Hash of the order.
        document: Hash,
        /// Who may use.
        beneficiary: InstitutionId,
        /// Who signs with the author.
        cosigner: InstitutionId,
        /// One person's records; none: anyone's.
        account: Option<AccountId>,
        /// Items that it covers.
        items: List<ItemId, 16>,
        /// Categories that it covers besides.
        categories: List<Category, 8>,
        /// First day of the data, inclusive.
        data_from: Day,
        /// Last day of the data, inclusive.
        data_to: Day,
        /// What may be done.
        actions: List<UseAction, 5>,
        /// The most revealing output.
        output: Output,
        /// The highest level.
        max_level: Level,
        /// Until when, inclusive.
        not_after: TimeMs,
        /// Before this, uses join no person's trail: notice is deferred.
        notice_from: TimeMs,
    }
    /// Lineage (数据血缘): what was made of what (R24).
    RecordActivity {
        /// What was done.
        kind: ActivityKind,
        /// Permits whose records went in; with `artifacts` at most 256.
        permits: List<PermitId, 256>,
        /// Earlier products that went in.
        artifacts: List<ArtifactId, 256>,
        /// New products, 1 to 16.
        outputs: List<Product, 16>,
        /// Hash of the program or plan.
        plan: Hash,
        /// Denied requests whose data stayed out.
        excluded: List<BodyId, 256>,
    }
    /// A new product of an activity.
    Product {
        /// Its new id.
        id: ArtifactId,
        /// Its sensitivity: at least that of the inputs.
        level: Level,
    }
    /// The regulator's review of a use that an opening makes conditional on it (R11).
    ReviewOpening {
        /// The item.
        item: ItemId,
        /// Who may use it.
        requester: InstitutionId,
        /// For what.
        purpose: Purpose,
        /// Until when.
        until: TimeMs,
    }
    /// Proposes a change to the institutions that run validators. The proposal's id is the id of this body.
    Propose {
        /// What.
        change: Change,
        /// Last block time at which it can be approved.
        until: TimeMs,
    }
    /// Approves a change.
    Approve {
        /// Which.
        proposal: ProposalId,
    }
    /// Who is to vote: the whole set, so that who approves it sees all of it.
    ChangeValidators {
        /// [`crate::ValidatorSet::hash`] of the set in force when it was proposed.
        replaces: Hash,
        /// The new set.
        validators: List<Validator, 128>,
        /// First height at which it votes.
        from: Height,
        /// One for each key that does not vote yet.
        possessions: List<Possession, 128>,
    }
    /// A new key's signature over [`join_message`].
    Possession {
        /// The key.
        key: PublicKey,
        /// Its signature.
        signature: Signature,
    }
    /// An institution as it is to be: admitted, changed, suspended, expelled (R18).
    ChangeInstitution {
        /// Which; a new one's id is free to choose, once.
        institution: InstitutionId,
        /// Whether it may act.
        standing: Standing,
        /// What is to be known of it; none: as it is.
        record: Option<InstitutionRecord>,
        /// One for each operator's key that is new.
        possessions: List<Possession, 8>,
    }
    /// What is known of an institution.
    InstitutionRecord {
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
        /// Until when it may act in emergencies, inclusive.
        rostered_until: Option<TimeMs>,
    }
    /// By which version of the rules blocks are made, from a height on.
    ChangeProtocol {
        /// The one after that in force.
        version: u32,
        /// First height at which it is in force.
        from: Height,
    }
    /// Who may connect.
    ChangeNodes {
        /// New nodes.
        admit: List<NodeAdmission, 16>,
        /// Consensus keys of nodes that may not connect any more.
        remove: List<PublicKey, 16>,
    }
    /// A node with its keys' signatures over [`join_message`].
    NodeAdmission {
        /// The node.
        record: NodeRecord,
        /// By its consensus key.
        possession: Signature,
        /// By its network key.
        network_possession: Signature,
    }
    /// A node that may connect.
    NodeRecord {
        /// Whose it is.
        institution: InstitutionId,
        /// Its consensus key: names it, whether it votes or observes.
        key: PublicKey,
        /// The key of its libp2p identity.
        network_key: PublicKey,
    }
    /// Shows two statements of one validator of which an honest one makes at most one.
    ReportEquivocation {
        /// Its consensus key.
        validator: PublicKey,
        /// At which height.
        height: Height,
        /// In which round.
        round: u32,
        /// In what.
        what: StatementKind,
        /// The lower of the two.
        first: Statement,
        /// The higher.
        second: Statement,
    }
    /// What one of two contradictory statements says besides what both say.
    Statement {
        /// For which block; none votes for nil.
        block: Option<BlockId>,
        /// Of a proposal, the round in which a quorum prevoted for the block.
        valid_round: Option<u32>,
        /// The validator's signature.
        signature: Signature,
    }
}

/// The most records in one anchored batch.
pub const RECORDS_PER_BATCH_MAX: u32 = 4096;
/// The most inputs of one activity; bundles beyond.
pub const ACTIVITY_INPUTS_MAX: usize = 256;

/// Who asks: an institution or a person's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Author {
    /// An institution, by one of its operator keys.
    Institution(InstitutionId),
    /// An insured person, by the account's key.
    Account(AccountId),
}

impl Element for Author {
    type Wire = wire::Author;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        use wire::author::Who;
        Ok(match w.who.ok_or(DecodeError::Missing("author"))? {
            Who::Institution(b) => Author::Institution(Element::read(b, "institution")?),
            Who::Account(b) => Author::Account(Element::read(b, "account")?),
        })
    }
    fn write(&self) -> Self::Wire {
        use wire::author::Who;
        wire::Author {
            who: Some(match self {
                Author::Institution(id) => Who::Institution(id.write()),
                Author::Account(id) => Who::Account(id.write()),
            }),
        }
    }
}
message_field!(Author);

/// What a body asks for; one module of the ledger decides each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Action {
    Enrol(Enrol),
    RegisterItem(RegisterItem),
    Classify(Classify),
    AnchorRecords(AnchorRecords),
    Grant(Box<Grant>),
    Revoke(Revoke),
    RequestAccess(Box<RequestAccess>),
    Deliver(Deliver),
    AttestErasure(AttestErasure),
    RecordActivity(Box<RecordActivity>),
    ReviewOpening(ReviewOpening),
    Propose(Box<Propose>),
    Approve(Approve),
    ReportEquivocation(Box<ReportEquivocation>),
    NotDelivered(NotDelivered),
    RotateKey(RotateKey),
    Recover(Recover),
    VetoRecovery(VetoRecovery),
    Delegate(Delegate),
    EndDelegation(EndDelegation),
    Ratify(Ratify),
    RotateOperator(RotateOperator),
    AnchorEmergency(Box<AnchorEmergency>),
    ReviewEmergency(ReviewEmergency),
    NotifyPerson(NotifyPerson),
    IssueOrder(Box<IssueOrder>),
}

impl Action {
    /// Its kind.
    pub fn kind(&self) -> ActionKind {
        match self {
            Action::Enrol(_) => ActionKind::Enrol,
            Action::RegisterItem(_) => ActionKind::RegisterItem,
            Action::Classify(_) => ActionKind::Classify,
            Action::AnchorRecords(_) => ActionKind::AnchorRecords,
            Action::Grant(_) => ActionKind::Grant,
            Action::Revoke(_) => ActionKind::Revoke,
            Action::RequestAccess(_) => ActionKind::RequestAccess,
            Action::Deliver(_) => ActionKind::Deliver,
            Action::AttestErasure(_) => ActionKind::AttestErasure,
            Action::RecordActivity(_) => ActionKind::RecordActivity,
            Action::ReviewOpening(_) => ActionKind::ReviewOpening,
            Action::Propose(_) => ActionKind::Propose,
            Action::Approve(_) => ActionKind::Approve,
            Action::ReportEquivocation(_) => ActionKind::ReportEquivocation,
            Action::NotDelivered(_) => ActionKind::NotDelivered,
            Action::RotateKey(_) => ActionKind::RotateKey,
            Action::Recover(_) => ActionKind::Recover,
            Action::VetoRecovery(_) => ActionKind::VetoRecovery,
            Action::Delegate(_) => ActionKind::Delegate,
            Action::EndDelegation(_) => ActionKind::EndDelegation,
            Action::Ratify(_) => ActionKind::Ratify,
            Action::RotateOperator(_) => ActionKind::RotateOperator,
            Action::AnchorEmergency(_) => ActionKind::AnchorEmergency,
            Action::ReviewEmergency(_) => ActionKind::ReviewEmergency,
            Action::NotifyPerson(_) => ActionKind::NotifyPerson,
            Action::IssueOrder(_) => ActionKind::IssueOrder,
        }
    }

    /// Whether it protects a person and so goes before everything else in its block.
    pub fn protects(&self) -> bool {
        matches!(
            self,
            Action::Revoke(_) | Action::RotateKey(_) | Action::VetoRecovery(_) | Action::EndDelegation(_)
        )
    }
}

impl Element for Action {
    type Wire = wire::body::Action;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        use wire::body::Action as W;
        Ok(match w {
            W::Enrol(m) => Action::Enrol(Element::read(m, "enrol")?),
            W::RegisterItem(m) => Action::RegisterItem(Element::read(m, "register_item")?),
            W::Classify(m) => Action::Classify(Element::read(m, "classify")?),
            W::AnchorRecords(m) => {
                let a = AnchorRecords::read(m, "anchor_records")?;
                within(1..=u64::from(RECORDS_PER_BATCH_MAX), u64::from(a.count), "count")?;
                Action::AnchorRecords(a)
            }
            W::Grant(m) => Action::Grant(Box::new(Element::read(m, "grant")?)),
            W::Revoke(m) => Action::Revoke(Element::read(m, "revoke")?),
            W::RequestAccess(m) => {
                let a = RequestAccess::read(m, "request_access")?;
                within(1..=32, a.records.len() as u64, "records")?;
                Action::RequestAccess(Box::new(a))
            }
            W::Deliver(m) => Action::Deliver(Element::read(m, "deliver")?),
            W::AttestErasure(m) => Action::AttestErasure(Element::read(m, "attest_erasure")?),
            W::RecordActivity(m) => {
                let a = RecordActivity::read(m, "record_activity")?;
                let inputs = a.permits.len() + a.artifacts.len();
                within(1..=ACTIVITY_INPUTS_MAX as u64, inputs as u64, "inputs")?;
                within(1..=16, a.outputs.len() as u64, "outputs")?;
                Action::RecordActivity(Box::new(a))
            }
            W::ReviewOpening(m) => Action::ReviewOpening(Element::read(m, "review_opening")?),
            W::Propose(m) => Action::Propose(Box::new(Element::read(m, "propose")?)),
            W::Approve(m) => Action::Approve(Element::read(m, "approve")?),
            W::ReportEquivocation(m) => {
                let a = ReportEquivocation::read(m, "report_equivocation")?;
                a.check()?;
                Action::ReportEquivocation(Box::new(a))
            }
            W::NotDelivered(m) => Action::NotDelivered(Element::read(m, "not_delivered")?),
            W::RotateKey(m) => Action::RotateKey(Element::read(m, "rotate_key")?),
            W::Recover(m) => Action::Recover(Element::read(m, "recover")?),
            W::VetoRecovery(m) => Action::VetoRecovery(Element::read(m, "veto_recovery")?),
            W::Delegate(m) => Action::Delegate(Element::read(m, "delegate")?),
            W::EndDelegation(m) => Action::EndDelegation(Element::read(m, "end_delegation")?),
            W::Ratify(m) => Action::Ratify(Element::read(m, "ratify")?),
            W::RotateOperator(m) => Action::RotateOperator(Element::read(m, "rotate_operator")?),
            W::AnchorEmergency(m) => {
                let a = AnchorEmergency::read(m, "anchor_emergency")?;
                within(1..=32, a.records.len() as u64, "records")?;
                Action::AnchorEmergency(Box::new(a))
            }
            W::ReviewEmergency(m) => Action::ReviewEmergency(Element::read(m, "review_emergency")?),
            W::NotifyPerson(m) => Action::NotifyPerson(Element::read(m, "notify_person")?),
            W::IssueOrder(m) => Action::IssueOrder(Box::new(Element::read(m, "issue_order")?)),
        })
    }
    fn write(&self) -> Self::Wire {
        use wire::body::Action as W;
        match self {
            Action::Enrol(m) => W::Enrol(m.write()),
            Action::RegisterItem(m) => W::RegisterItem(m.write()),
            Action::Classify(m) => W::Classify(m.write()),
            Action::AnchorRecords(m) => W::AnchorRecords(m.write()),
            Action::Grant(m) => W::Grant(m.write()),
            Action::Revoke(m) => W::Revoke(m.write()),
            Action::RequestAccess(m) => W::RequestAccess(m.write()),
            Action::Deliver(m) => W::Deliver(m.write()),
            Action::AttestErasure(m) => W::AttestErasure(m.write()),
            Action::RecordActivity(m) => W::RecordActivity(m.write()),
            Action::ReviewOpening(m) => W::ReviewOpening(m.write()),
            Action::Propose(m) => W::Propose(m.write()),
            Action::Approve(m) => W::Approve(m.write()),
            Action::ReportEquivocation(m) => W::ReportEquivocation(m.write()),
            Action::NotDelivered(m) => W::NotDelivered(m.write()),
            Action::RotateKey(m) => W::RotateKey(m.write()),
            Action::Recover(m) => W::Recover(m.write()),
            Action::VetoRecovery(m) => W::VetoRecovery(m.write()),
            Action::Delegate(m) => W::Delegate(m.write()),
            Action::EndDelegation(m) => W::EndDelegation(m.write()),
            Action::Ratify(m) => W::Ratify(m.write()),
            Action::RotateOperator(m) => W::RotateOperator(m.write()),
            Action::AnchorEmergency(m) => W::AnchorEmergency(m.write()),
            Action::ReviewEmergency(m) => W::ReviewEmergency(m.write()),
            Action::NotifyPerson(m) => W::NotifyPerson(m.write()),
            Action::IssueOrder(m) => W::IssueOrder(m.write()),
        }
    }
}
message_field!(Action);

fn within(range: std::ops::RangeInclusive<u64>, n: u64, field: &'static str) -> Result<(), DecodeError> {
    if range.contains(&n) { Ok(()) } else { Err(DecodeError::Bounds(field)) }
}

/// The most bytes in one body.
pub const BODY_BYTES_MAX: usize = 48 << 10;

impl Body {
    /// Reads a canonical body of at most [`BODY_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(DecodeError::TooLarge(BODY_BYTES_MAX));
        }
        <Self as Message>::decode(bytes)
    }
}

/// The id of a body on a chain, from its canonical bytes.
pub fn body_id(genesis: &GenesisHash, body: &[u8]) -> BodyId {
    BodyId(hash::BODY_ID.hash(&[genesis.as_bytes(), body]))
}

impl Record {
    /// The record's leaf in its batch, and in a permit's manifest.
    pub fn leaf(&self) -> Hash {
        let (account, commitment) = (self.account.as_bytes(), self.commitment.as_bytes());
        hash::RECORD.hash(&[account, commitment, &self.day.0.to_le_bytes()])
    }
}

impl ReviewOpening {
    /// Under what the review is found.
    pub fn review_id(item: &ItemId, requester: &InstitutionId, purpose: Purpose) -> Hash {
        hash::REVIEW_ID.hash(&[item.as_bytes(), requester.as_bytes(), &[purpose as u8]])
    }
}

/// What a proposal changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Who votes.
    Validators(ChangeValidators),
    /// Who may connect.
    Nodes(ChangeNodes),
    /// The bounds that every validator shares.
    Parameters(Parameters),
    /// Who an institution is, and whether it may act.
    Institution(Box<ChangeInstitution>),
    /// Use case by level, and what is never permitted.
    Policy(Policy),
    /// An item graded down (R21).
    Grading(Classify),
    /// The version of the rules.
    Protocol(ChangeProtocol),
}

impl Element for Change {
    type Wire = wire::Change;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        use wire::change::Change as W;
        Ok(match w.change.ok_or(DecodeError::Missing("change"))? {
            W::Validators(m) => Change::Validators(Element::read(m, "validators")?),
            W::Nodes(m) => Change::Nodes(Element::read(m, "nodes")?),
            W::Parameters(m) => Change::Parameters(Element::read(m, "parameters")?),
            W::Institution(m) => Change::Institution(Box::new(Element::read(m, "institution")?)),
            W::Policy(m) => Change::Policy(Element::read(m, "policy")?),
            W::Grading(m) => Change::Grading(Element::read(m, "grading")?),
            W::Protocol(m) => Change::Protocol(Element::read(m, "protocol")?),
        })
    }
    fn write(&self) -> Self::Wire {
        use wire::change::Change as W;
        wire::Change {
            change: Some(match self {
                Change::Validators(m) => W::Validators(m.write()),
                Change::Nodes(m) => W::Nodes(m.write()),
                Change::Parameters(m) => W::Parameters(m.write()),
                Change::Institution(m) => W::Institution(m.write()),
                Change::Policy(m) => W::Policy(m.write()),
                Change::Grading(m) => W::Grading(m.write()),
                Change::Protocol(m) => W::Protocol(m.write()),
            }),
        }
    }
}
message_field!(Change);

/// For what a key joins a chain that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyUse {
    /// It votes, or names an observer.
    Consensus = 1,
    /// It is a libp2p identity.
    Network = 2,
    /// An institution acts by it.
    Operator = 3,
}

/// What a key signs to show that its owner holds it and wants it to serve the institution on this chain.
pub fn join_message(
    genesis: &GenesisHash,
    institution: &InstitutionId,
    key_use: KeyUse,
    key: &PublicKey,
) -> Hash {
    let algorithm = Algorithm::Ed25519 as u64;
    let h = hash::JOIN.hasher().bytes(genesis.as_bytes()).bytes(institution.as_bytes());
    h.number(key_use as u64).number(algorithm).hash(&key.0).end()
}

impl Action {
    /// The key that comes with it, whose owner signs second.
    pub fn new_key(&self) -> Option<&PublicKey> {
        match self {
            Action::Enrol(e) => Some(&e.key),
            Action::RotateKey(r) => Some(&r.key),
            Action::Recover(r) => Some(&r.key),
            Action::RotateOperator(r) => r.add.as_ref().map(|k| &k.key),
            _ => None,
        }
    }

    /// The signatures that the body itself carries, besides those of its signers. All must hold. A possession
    /// of a key that the change does not name is no shape that an action has.
    pub(crate) fn claims(&self, genesis: &GenesisHash) -> Result<Vec<Claim>, DecodeError> {
        match self {
            Action::Propose(p) => p.change.claims(genesis),
            Action::ReportEquivocation(r) => Ok(r.claims(genesis)),
            _ => Ok(Vec::new()),
        }
    }
}

impl Change {
    fn claims(&self, genesis: &GenesisHash) -> Result<Vec<Claim>, DecodeError> {
        let claim = |institution: &InstitutionId, key_use, key: PublicKey, signature| Claim {
            key,
            message: join_message(genesis, institution, key_use, &key),
            signature,
        };
        match self {
            Change::Validators(change) => {
                let joined = |p: &Possession| {
                    let validator = change.validators.iter().find(|v| v.key == p.key);
                    let validator = validator.ok_or(DecodeError::Bounds("possessions"))?;
                    Ok(claim(&validator.institution, KeyUse::Consensus, p.key, p.signature))
                };
                change.possessions.iter().map(joined).collect()
            }
            Change::Nodes(change) => {
                let joined = |a: &NodeAdmission| {
                    let NodeRecord { institution, key, network_key } = &a.record;
                    [
                        claim(institution, KeyUse::Consensus, *key, a.possession),
                        claim(institution, KeyUse::Network, *network_key, a.network_possession),
                    ]
                };
                Ok(change.admit.iter().flat_map(joined).collect())
            }
            Change::Institution(change) => {
                let keys = change.record.iter().flat_map(|r| &r.keys).map(|k| k.key).collect::<Vec<_>>();
                let joined = |p: &Possession| {
                    let known = keys.contains(&p.key);
                    let claim = || claim(&change.institution, KeyUse::Operator, p.key, p.signature);
                    known.then(claim).ok_or(DecodeError::Bounds("possessions"))
                };
                change.possessions.iter().map(joined).collect()
            }
            Change::Parameters(_) | Change::Policy(_) | Change::Grading(_) | Change::Protocol(_) => {
                Ok(Vec::new())
            }
        }
    }
}

impl ReportEquivocation {
    /// A report about two statements, in whichever order they come. None if they do not contradict each other.
    pub fn of(
        validator: PublicKey,
        height: Height,
        round: u32,
        what: StatementKind,
        statements: [Statement; 2],
    ) -> Option<Self> {
        let [mut first, mut second] = statements;
        if first.rank() > second.rank() {
            std::mem::swap(&mut first, &mut second);
        }
        let report = ReportEquivocation { validator, height, round, what, first, second };
        report.check().is_ok().then_some(report)
    }

    /// Names the contradiction, whatever the evidence for it.
    pub fn id(&self) -> MisconductId {
        let h = hash::MISCONDUCT_ID.hasher().hash(&self.validator.0).number(self.height.0);
        MisconductId(h.number(u64::from(self.round)).number(self.what as u64).end())
    }

    /// One body for one pair: in order, and different in what they say.
    fn check(&self) -> Result<(), DecodeError> {
        let (first, second) = (self.first.says(), self.second.says());
        let votes = self.what != StatementKind::Proposal;
        let strange = |s: &Statement| if votes { s.valid_round.is_some() } else { s.block.is_none() };
        if first == second || self.first.rank() > self.second.rank() {
            return Err(DecodeError::Bounds("second"));
        }
        if strange(&self.first) || strange(&self.second) {
            return Err(DecodeError::Bounds("first"));
        }
        Ok(())
    }

    fn claims(&self, genesis: &GenesisHash) -> Vec<Claim> {
        [&self.first, &self.second]
            .map(|s| Claim { key: self.validator, message: self.message(genesis, s), signature: s.signature })
            .into()
    }

    fn message(&self, genesis: &GenesisHash, s: &Statement) -> Hash {
        let (who, height, round) = (address(&self.validator), self.height, self.round);
        let vote = |kind| vote_message(genesis, kind, height, round, s.block.as_ref(), &who);
        match (self.what, &s.block) {
            (StatementKind::Proposal, Some(block)) => {
                proposal_message(genesis, height, round, s.valid_round, block, &who)
            }
            (StatementKind::Precommit, _) => vote(VoteKind::Precommit),
            // A proposal without a block is refused when it is read.
            (StatementKind::Prevote | StatementKind::Proposal, _) => vote(VoteKind::Prevote),
        }
    }
}

impl Statement {
    fn says(&self) -> (Option<BlockId>, Option<u32>) {
        (self.block, self.valid_round)
    }

    fn rank(&self) -> (Option<BlockId>, Option<u32>, [u8; 64]) {
        (self.block, self.valid_round, self.signature.0)
    }
}
