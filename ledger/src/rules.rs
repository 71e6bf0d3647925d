//! The rules of this crate as a table that people can read: what is refused, and what takes effect; in which order,
//! by which row of the requirements and which article of law. Nothing is decided here. A test holds the table to
//! the code, module by module and code by code, and to RULES.md, which is written from it (`rules/page.rs`).

use assent_proto::code::Denial::{self, *};
use assent_proto::transaction::Purpose;

use crate::access::Refusal;

use Law::*;
use Part::*;
pub use page::page;

mod page;

/// The most rules: people must be able to read all of them (R10).
pub const RULES_MAX: usize = 200;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of what it is a rule.
    pub part: Part,
    /// Where it stands in its part. In [`Part::Decision`] the steps are taken in the order of the table, and the
    /// first failure names the code.
    pub step: &'static str,
    /// The module of this crate that asks it.
    pub module: &'static str,
    /// The code it refuses with; none for what takes effect.
    pub denial: Option<Denial>,
    /// When it refuses, or what takes effect.
    pub text: &'static str,
    /// Numbers of the rows of the requirements that it follows: 9 for R9. None where only the working of the
    /// network asks it.
    pub rows: &'static [u8],
    /// The law that it is meant to keep to.
    pub law: &'static [Article],
    /// The bases of which alone it is asked, where another rule has its step and its code.
    pub grounds: &'static [Ground],
}

/// On what a request rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// How the item is open.
    Opening,
    /// A grant.
    Grant,
    /// An emergency.
    Emergency,
    /// A legal order.
    Order,
}

/// Of what a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Asked of every transaction.
    Everyone,
    /// May this institution use this, now, for this, on this basis.
    Decision,
    /// Grants and their withdrawal.
    Grants,
    /// Accounts and keys.
    Persons,
    /// Guardians and proxies.
    Delegations,
    /// What follows a permit.
    Deliveries,
    /// Emergencies and their duties.
    Emergencies,
    /// Legal orders.
    Orders,
    /// The catalogue, grading and opening.
    Catalogue,
    /// Lineage.
    Lineage,
    /// Institutions.
    Institutions,
    /// Changes that several decide.
    Changes,
}

/// A law that rules cite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// 中华人民共和国个人信息保护法.
    Pipl,
    /// 中华人民共和国数据安全法.
    DataSecurity,
    /// 中华人民共和国民法典.
    CivilCode,
    /// 中华人民共和国电子签名法.
    Signatures,
    /// 中华人民共和国基本医疗卫生与健康促进法.
    BasicHealth,
    /// Regulation (EU) 2016/679.
    Gdpr,
}

/// An article of a law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Article(
    /// The law.
    pub Law,
    /// The article, with paragraph or item where one is meant.
    pub &'static str,
);

/// The standard codes that a purpose translates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurposeCodes {
    /// The purpose.
    pub purpose: Purpose,
    /// Code and display of HL7 v3-ActReason.
    pub act_reason: (&'static str, &'static str),
    /// Code and label of the GA4GH Data Use Ontology, if it has one that fits.
    pub duo: Option<(&'static str, &'static str)>,
    /// How far the codes fit.
    pub fit: &'static str,
}

const fn refuses(
    (part, step, module): (Part, &'static str, &'static str),
    denial: Denial,
    text: &'static str,
    rows: &'static [u8],
    law: &'static [Article],
) -> Rule {
    Rule { part, step, module, denial: Some(denial), text, rows, law, grounds: &[] }
}

const fn effects(
    (part, step, module): (Part, &'static str, &'static str),
    text: &'static str,
    rows: &'static [u8],
    law: &'static [Article],
) -> Rule {
    Rule { part, step, module, denial: None, text, rows, law, grounds: &[] }
}

impl Rule {
    const fn of(self, grounds: &'static [Ground]) -> Rule {
        Rule { grounds, ..self }
    }

    fn is_asked_of(&self, ground: Option<Ground>) -> bool {
        self.grounds.is_empty() || ground.is_some_and(|ground| self.grounds.contains(&ground))
    }
}

/// A rule with its number in RULES.md. Unlike a code's, it moves when a rule comes or goes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The number.
    pub number: u32,
    /// The rule.
    pub rule: &'static Rule,
}

/// The rule by which a request was refused.
pub(crate) fn of_refusal(refusal: &Refusal) -> Option<Numbered> {
    page::numbered().find(|Numbered { rule, .. }| {
        matches!(rule.part, Everyone | Decision)
            && rule.denial == Some(refusal.denial)
            && rule.step == refusal.step
            && rule.is_asked_of(refusal.ground)
    })
}

/// Every rule, in the order in which it is read, and within the decision in the order in which it is asked.
pub static RULES: &[Rule] = &[
    // ---- every transaction
    refuses(
        (Everyone, "standing", "apply"),
        InstitutionSuspended,
        "The author is suspended or expelled, and this is none of the duties that it keeps: to record a \
         delivery, or that there is none; to attest erasure; to tell a person; to anchor an emergency; to \
         change its own keys; to end a delegation; to report a contradiction.",
        &[18],
        &[],
    ),
    refuses(
        (Everyone, "key", "apply"),
        KeyReplaced,
        "A person signs, first or second, by a key that was replaced earlier in this block, and does not \
         merely take back: revoke, veto a recovery, end a delegation.",
        &[16],
        &[Article(Signatures, "15")],
    ),
    // ---- the decision
    refuses(
        (Decision, "role", "access"),
        NotPermittedRole,
        "The requester has no role but to supervise or to audit: who watches over uses does not use.",
        &[3, 10],
        &[],
    ),
    refuses((Decision, "item", "access"), NoSuchItem, "The item is not in the catalogue.", &[20], &[]),
    refuses(
        (Decision, "item", "access"),
        CustodianSuspended,
        "The item's custodian is suspended or expelled. Not asked of a release in an outage, which has \
         happened.",
        &[18],
        &[],
    ),
    refuses(
        (Decision, "negative list", "access"),
        Prohibited,
        "An entry of the negative list in force names the purpose, the item or its category; of several \
         that it names, all. No basis prevails against it.",
        &[14],
        &[Article(Pipl, "10")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        SeveralBases,
        "The request names more than one of grant, emergency and legal order.",
        &[11, 41],
        &[Article(Pipl, "13")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        NoSuchGrant,
        "The grant named does not exist.",
        &[2, 3],
        &[Article(Pipl, "13(1)"), Article(Pipl, "29")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        NoSuchOrder,
        "The legal order named does not exist.",
        &[41],
        &[Article(Pipl, "13(3)")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        NoBasis,
        "No basis is named, the item's opening is prohibited, and the request is for one person's records: \
         what is missing is her grant.",
        &[2, 11],
        &[Article(Pipl, "13(1)"), Article(Pipl, "29"), Article(BasicHealth, "92")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        OpeningProhibited,
        "No basis is named, the item's opening is prohibited, and the request names no person.",
        &[11],
        &[Article(DataSecurity, "21")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        ReviewMissing,
        "No basis is named, the item is open after review, and no review of this requester, item and \
         purpose is in force.",
        &[11],
        &[Article(DataSecurity, "21")],
    ),
    refuses(
        (Decision, "basis", "basis"),
        RealNameMissing,
        "No basis is named, the item is open under a real name, and no person has signed second.",
        &[11],
        &[],
    ),
    refuses(
        (Decision, "basis", "basis"),
        NotARecipient,
        "No basis is named, the item is open to named recipients, and the requester is none of them.",
        &[11],
        &[],
    ),
    refuses(
        (Decision, "state of the basis", "basis"),
        GrantRevoked,
        "The grant was withdrawn: at any height below, or earlier in this block, where withdrawals stand \
         first.",
        &[9],
        &[Article(Pipl, "15"), Article(Gdpr, "7(3)")],
    ),
    refuses(
        (Decision, "state of the basis", "basis"),
        GrantExhausted,
        "As many uses were permitted as the grant allows: one, or n.",
        &[6, 7, 8],
        &[Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "state of the basis", "basis"),
        DelegationOver,
        "A delegate signed the grant, her delegation is not in force at the block's time, and the ward has \
         not ratified the grant.",
        &[15],
        &[Article(CivilCode, "171"), Article(CivilCode, "173"), Article(CivilCode, "175")],
    ),
    refuses(
        (Decision, "state of the basis", "basis"),
        GrantSuspended,
        "The item's level is above the grant's, and dates from a block after the grant's: it counts as suspended.",
        &[21],
        &[Article(DataSecurity, "21"), Article(Pipl, "29")],
    ),
    refuses(
        (Decision, "time", "basis"),
        GrantNotYetValid,
        "The block's time is before the grant's first moment.",
        &[8],
        &[Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "time", "basis"),
        GrantExpired,
        "The block's time is after the grant's last moment.",
        &[8],
        &[Article(Pipl, "14"), Article(Pipl, "19")],
    ),
    refuses(
        (Decision, "time", "basis"),
        ReleaseTimeUnknown,
        "A release in an outage is said to lie after the block's time.",
        &[17],
        &[],
    ),
    refuses(
        (Decision, "time", "basis"),
        OrderExpired,
        "The block's time is after the order's last moment.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "who may rely on it", "basis"),
        OtherGrantee,
        "The grant is for another institution.",
        &[3],
        &[Article(Pipl, "14"), Article(Pipl, "23")],
    ),
    refuses(
        (Decision, "who may rely on it", "basis"),
        NotTheBeneficiary,
        "The legal order is for another institution.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "who may rely on it", "emergency"),
        NotRostered,
        "The requester is not on the roster for emergencies at the block's time, or was not when the \
         records were released in an outage.",
        &[17],
        &[Article(Pipl, "13(4)")],
    ),
    refuses(
        (Decision, "who may rely on it", "emergency"),
        EmergencyDutyOverdue,
        "A review or a notice of one of the requester's earlier emergencies is overdue. Not asked of a \
         release in an outage, which has happened.",
        &[17],
        &[Article(Pipl, "18")],
    ),
    refuses(
        (Decision, "who may rely on it", "emergency"),
        TooManyEmergencies,
        "Sixteen of the requester's emergencies wait for review or notice.",
        &[17],
        &[],
    ),
    refuses(
        (Decision, "case", "access"),
        CaseMissing,
        "The use case needs a case and the request names none. Not asked in an emergency.",
        &[6, 10],
        &[Article(Pipl, "6")],
    ),
    refuses(
        (Decision, "case", "access"),
        OtherCase,
        "The grant is for one case, and the request names another or none.",
        &[6],
        &[Article(Pipl, "6"), Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "person", "basis"),
        OtherAccount,
        "The request names another account than the grant's.",
        &[3],
        &[Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "person", "basis"),
        OrderDoesNotCover,
        "The order is about one account, and the request names another or none.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "person", "basis"),
        AccountMissing,
        "The order defers notice and the request names no account: nobody could tell later whom to tell.",
        &[41],
        &[Article(Pipl, "18"), Article(Pipl, "35")],
    )
    .of(&[Ground::Order]),
    refuses(
        (Decision, "person", "basis"),
        AccountMissing,
        "The basis is an emergency and the request names no account.",
        &[17],
        &[Article(Pipl, "13(4)"), Article(Pipl, "18")],
    )
    .of(&[Ground::Emergency]),
    refuses((Decision, "custodian", "access"), OtherAccount, "The account named does not exist.", &[3], &[]),
    refuses(
        (Decision, "custodian", "access"),
        OtherCustodian,
        "The account is one with another custodian than the item's.",
        &[1, 3],
        &[],
    ),
    refuses(
        (Decision, "item covered", "basis"),
        ItemNotCovered,
        "The grant names neither the item nor its category.",
        &[3, 11],
        &[Article(Pipl, "6"), Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "item covered", "basis"),
        OrderDoesNotCover,
        "The order names neither the item nor its category.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "records", "access"),
        OtherAccount,
        "A person is named, and a record is another's.",
        &[3],
        &[Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "records", "basis"),
        PeriodNotCovered,
        "A record speaks of a day outside the grant's period.",
        &[3, 8],
        &[Article(Pipl, "6"), Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "records", "basis"),
        OrderDoesNotCover,
        "A record speaks of a day outside the order's period.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "records", "access"),
        RecordNotAnchored,
        "A record is not proved to be in the batch named, or the batch is not one of this item.",
        &[1],
        &[],
    ),
    refuses((Decision, "records", "access"), DuplicateRecord, "A record is named twice.", &[3], &[]),
    refuses(
        (Decision, "purpose", "access"),
        PurposeNotAllowed,
        "The policy in force has no rule for the purpose; or, for a grant, the policy has none under which \
         it was signed.",
        &[10],
        &[Article(Pipl, "6")],
    ),
    refuses(
        (Decision, "purpose", "basis"),
        PurposeNotCovered,
        "The grant is for another purpose.",
        &[3, 10],
        &[Article(Pipl, "6"), Article(Pipl, "14")],
    )
    .of(&[Ground::Grant]),
    refuses(
        (Decision, "purpose", "basis"),
        PurposeNotCovered,
        "The basis is an emergency, and the purpose is not treatment in one.",
        &[17],
        &[Article(Pipl, "13(4)")],
    )
    .of(&[Ground::Emergency]),
    refuses(
        (Decision, "purpose", "basis"),
        PurposeNotCovered,
        "The basis is an order, and the purpose is not legal.",
        &[41],
        &[Article(Pipl, "13(3)")],
    )
    .of(&[Ground::Order]),
    refuses(
        (Decision, "purpose", "basis"),
        PurposeNotCovered,
        "The basis is an opening, and the purpose is treatment in an emergency, or legal.",
        &[11, 17, 41],
        &[Article(Pipl, "13(3)"), Article(Pipl, "13(4)")],
    )
    .of(&[Ground::Opening]),
    refuses(
        (Decision, "purpose", "access"),
        Prohibited,
        "The use was on the negative list under which the grant was signed, though it is not any more: a \
         loosening never widens a grant.",
        &[10, 14],
        &[Article(Pipl, "14")],
    ),
    effects(
        (Decision, "purpose", "basis"),
        "Of a grant, whatever is stricter counts: the rule in force, or that of the policy under which it \
         was signed. The lower level; a case or a settlement if either asks for it.",
        &[10],
        &[Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "action and output", "basis"),
        ActionNotCovered,
        "The grant does not name the action.",
        &[3],
        &[Article(Pipl, "14")],
    )
    .of(&[Ground::Grant]),
    refuses(
        (Decision, "action and output", "basis"),
        OutputNotCovered,
        "The output is more revealing than the grant's: raw records, then masked ones, then a result alone.",
        &[3],
        &[Article(Pipl, "6"), Article(Pipl, "14")],
    ),
    refuses(
        (Decision, "action and output", "basis"),
        ActionNotCovered,
        "In an emergency something else is asked for than to read or to compute.",
        &[17],
        &[Article(Pipl, "6"), Article(Pipl, "13(4)")],
    )
    .of(&[Ground::Emergency]),
    refuses(
        (Decision, "action and output", "basis"),
        OrderDoesNotCover,
        "The order does not name the action, or covers only outputs that reveal less.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Decision, "level", "access"),
        LevelTooHigh,
        "The item's level is above the lowest of three ceilings: the basis's (an opening and an emergency \
         have none of their own), the requester's, the use case's.",
        &[10, 11],
        &[Article(DataSecurity, "21"), Article(Pipl, "28"), Article(Pipl, "29")],
    ),
    refuses(
        (Decision, "jurisdiction", "basis"),
        OutsideJurisdiction,
        "The grant does not name the requester's jurisdiction. Of the other bases none is asked yet.",
        &[32],
        &[Article(Pipl, "38"), Article(Pipl, "39")],
    ),
    refuses(
        (Decision, "settlement", "access"),
        NotSettled,
        "The use case needs a settled case, and no settlement is anchored for the one named.",
        &[6],
        &[],
    ),
    effects(
        (Decision, "permit", "access"),
        "Otherwise the use is permitted, by an event that commits to the acting member of staff; one use \
         of the grant is consumed with it, in the order in which consensus put the requests.",
        &[3, 7],
        &[Article(Pipl, "51"), Article(Pipl, "54")],
    ),
    effects(
        (Decision, "permit", "access"),
        "The permit lapses unless the records are released within its life; a permit of an emergency has a \
         shorter one.",
        &[3, 17],
        &[Article(Pipl, "6")],
    ),
    effects(
        (Decision, "permit", "access"),
        "It joins the trails of the requester, the custodian, the item, the basis, of who asked under her own \
         name, and of every person whose records it permits; hers only once an order does not defer it any \
         more. What becomes of it later joins the same, but not the item's, and of persons only that of the \
         one whom the permit names.",
        &[4, 5, 41],
        &[Article(Pipl, "7"), Article(Pipl, "44")],
    ),
    // ---- grants
    refuses(
        (Grants, "to grant", "consent"),
        BadTerms,
        "The terms contradict themselves: a one-time grant has one use and a case, an n-times grant at \
         least one use, a standing one no number; something must be granted to be done with something \
         somewhere; periods run forward and end after this block; the policy named is none of the future. \
         Asked after all that a grant for a ward asks.",
        &[6, 8],
        &[Article(Pipl, "14"), Article(Pipl, "17")],
    ),
    refuses((Grants, "to grant", "consent"), NoSuchInstitution, "The grantee does not exist.", &[2], &[]),
    effects(
        (Grants, "to grant", "consent"),
        "A grant whose withdrawal, by the person or the delegate who signs, came before it is withdrawn \
         from the start.",
        &[9],
        &[Article(Pipl, "15")],
    ),
    refuses(
        (Grants, "to withdraw", "consent"),
        NotTheGrantor,
        "The author is neither the person whose grant it is nor the delegate who signed it.",
        &[9, 15],
        &[Article(Pipl, "15")],
    ),
    refuses((Grants, "to withdraw", "consent"), AlreadyRevoked, "The grant was withdrawn before.", &[9], &[]),
    refuses(
        (Grants, "to withdraw", "consent"),
        TooManyEarlyRevocations,
        "Sixteen withdrawals of the account wait for grants that have not come, each for as long as a \
         transaction may live.",
        &[9],
        &[],
    ),
    effects(
        (Grants, "to withdraw", "consent"),
        "A withdrawal takes effect before any use in its own block, whoever orders the block, and also \
         from a frozen account. Permits that were not released on die.",
        &[9, 16],
        &[Article(Pipl, "15"), Article(Pipl, "50"), Article(Gdpr, "7(3)")],
    ),
    effects(
        (Grants, "to withdraw", "consent"),
        "What was delivered before stands, and opens the grantee's duty to erase, with a deadline.",
        &[9],
        &[Article(Pipl, "15"), Article(Pipl, "47"), Article(Gdpr, "17(1)(b)")],
    ),
    // ---- persons
    refuses(
        (Persons, "to enrol", "identity"),
        NotPermittedRole,
        "The author is no bureau: only one has seen the person's papers.",
        &[18],
        &[],
    ),
    refuses(
        (Persons, "to enrol", "identity"),
        NoSuchInstitution,
        "The custodian does not exist.",
        &[18],
        &[],
    ),
    refuses(
        (Persons, "challenged account", "identity"),
        AccountFrozen,
        "An account that is frozen, or that institutions are about to recover, wants to grant, to ratify, \
         to take a new key, to name a proxy or to become a guardian.",
        &[16],
        &[Article(Signatures, "15")],
    ),
    refuses(
        (Persons, "to veto a recovery", "identity"),
        AccountFrozen,
        "The account is frozen: whoever holds the old key cannot veto what institutions saw across a \
         counter.",
        &[16],
        &[],
    ),
    refuses(
        (Persons, "to veto a recovery", "identity"),
        NoRecovery,
        "No recovery with this key is pending, or its delay is over.",
        &[16],
        &[],
    ),
    effects(
        (Persons, "to veto a recovery", "identity"),
        "A veto ends the recovery and freezes the account: neither key grants anything before an in-person \
         check.",
        &[16],
        &[Article(Signatures, "15")],
    ),
    refuses(
        (Persons, "to recover", "identity"),
        NotPermittedRole,
        "The author is neither a bureau nor a hospital.",
        &[16],
        &[],
    ),
    refuses((Persons, "to recover", "identity"), NoSuchAccount, "The account does not exist.", &[16], &[]),
    refuses(
        (Persons, "to recover", "identity"),
        AccountFrozen,
        "The account is frozen, and the author does not say that it saw the person.",
        &[16],
        &[Article(Signatures, "15")],
    ),
    refuses(
        (Persons, "to recover", "identity"),
        AccountNotFrozen,
        "The account is not frozen: without the delay for a veto no key is replaced.",
        &[16],
        &[],
    ),
    refuses(
        (Persons, "to recover", "identity"),
        AlreadyApproved,
        "The institution has approved the recovery that is pending before, with whichever key.",
        &[16],
        &[],
    ),
    refuses(
        (Persons, "to recover", "identity"),
        OtherRecovery,
        "A recovery with another key is pending; or enough have approved this one, and its delay runs.",
        &[16],
        &[],
    ),
    refuses(
        (Persons, "to recover", "identity"),
        NotPermittedRole,
        "Enough would approve, but not the person's enroller, which may still act: strangers do not take \
         an account.",
        &[16],
        &[],
    ),
    effects(
        (Persons, "to recover", "identity"),
        "Once as many institutions as the parameters ask for have approved, the new key replaces the old \
         one: after a delay in which the old one may veto, or at once where they saw the person of a \
         frozen account. Grants stay. An approval by one that was suspended or lost its role since is \
         dropped when the next one approves.",
        &[16],
        &[Article(Signatures, "15"), Article(Pipl, "50")],
    ),
    // ---- delegations
    refuses(
        (Delegations, "to delegate", "delegation"),
        BadTerms,
        "It is for oneself or to oneself, in no capacity for another, or for no purpose or one named twice.",
        &[15],
        &[Article(CivilCode, "161"), Article(CivilCode, "165")],
    ),
    refuses(
        (Delegations, "to delegate", "delegation"),
        NoSuchAccount,
        "The ward's or the delegate's account does not exist.",
        &[15],
        &[],
    ),
    refuses(
        (Delegations, "to delegate", "delegation"),
        NotPermittedRole,
        "The author is neither a bureau or hospital that enrolled the ward or holds her data nor, for a \
         guardian, a court.",
        &[15],
        &[Article(CivilCode, "27"), Article(CivilCode, "34")],
    ),
    refuses(
        (Delegations, "to delegate", "delegation"),
        DelegationEndUnfit,
        "The end is not the first moment of a quarter (UTC), is not ahead, or is more than a hundred \
         quarters ahead.",
        &[15],
        &[Article(Pipl, "6")],
    ),
    refuses(
        (Delegations, "to delegate", "delegation"),
        DelegationChain,
        "The delegate has a guardian in force herself. Under version 1 of the protocol her account tells of \
         one guardianship, the one that lasts longest, and when that is ended early no other is looked for; \
         from version 2 on it tells of all.",
        &[15],
        &[Article(CivilCode, "169")],
    ),
    effects(
        (Delegations, "to delegate", "delegation"),
        "A proxy is confirmed with the ward's own signature, a guardianship with the guardian's alone; \
         both persons see it on their trails.",
        &[15],
        &[Article(Pipl, "31"), Article(CivilCode, "27"), Article(CivilCode, "34"), Article(CivilCode, "165")],
    ),
    refuses(
        (Delegations, "to grant for a ward", "delegation"),
        BadTerms,
        "The grant names no delegation and is not signed for oneself.",
        &[15],
        &[Article(CivilCode, "161")],
    ),
    refuses(
        (Delegations, "to grant for a ward", "delegation"),
        NoSuchDelegation,
        "The delegation named does not exist.",
        &[15],
        &[Article(CivilCode, "171")],
    ),
    refuses(
        (Delegations, "to grant for a ward", "delegation"),
        NotTheDelegate,
        "The delegation is another's, in another capacity, or not for this purpose.",
        &[15],
        &[Article(CivilCode, "171"), Article(Pipl, "31")],
    ),
    refuses(
        (Delegations, "to grant for a ward", "delegation"),
        DelegationOver,
        "The delegation has ended, or its date has come.",
        &[15],
        &[Article(CivilCode, "173"), Article(CivilCode, "175")],
    ),
    refuses(
        (Delegations, "to grant for a ward", "delegation"),
        DelegationChain,
        "The delegate has got a guardian herself since.",
        &[15],
        &[Article(CivilCode, "173"), Article(CivilCode, "175")],
    ),
    refuses(
        (Delegations, "to end one", "delegation"),
        NoSuchDelegation,
        "The delegation named does not exist.",
        &[15],
        &[],
    ),
    refuses(
        (Delegations, "to end one", "delegation"),
        DelegationEndUnfit,
        "A person names another cause than her own wish or is none of the two; or an institution names \
         that cause, or neither confirmed the delegation nor is a court.",
        &[15],
        &[
            Article(CivilCode, "36"),
            Article(CivilCode, "39"),
            Article(CivilCode, "173"),
            Article(CivilCode, "175"),
        ],
    ),
    refuses(
        (Delegations, "to end one", "delegation"),
        AlreadyEnded,
        "The delegation has ended, or its date has come.",
        &[15],
        &[Article(CivilCode, "173"), Article(CivilCode, "175")],
    ),
    effects(
        (Delegations, "to end one", "delegation"),
        "An end takes effect before any use in its own block: grants that were signed by it count as \
         suspended from then on.",
        &[15],
        &[Article(CivilCode, "173"), Article(CivilCode, "175")],
    ),
    refuses((Delegations, "to ratify", "delegation"), NoSuchGrant, "The grant does not exist.", &[15], &[]),
    refuses(
        (Delegations, "to ratify", "delegation"),
        NotTheGrantor,
        "The grant is not the author's own: only the ward ratifies.",
        &[15],
        &[Article(CivilCode, "171")],
    ),
    refuses(
        (Delegations, "to ratify", "delegation"),
        NothingToRatify,
        "No delegate signed the grant, her delegation is in force, it was ratified before, or it was \
         withdrawn.",
        &[15],
        &[Article(CivilCode, "171")],
    ),
    // ---- deliveries
    refuses(
        (Deliveries, "any", "delivery"),
        NoSuchPermit,
        "The permit does not exist: a delivery without a match, on the record.",
        &[3, 4],
        &[Article(Pipl, "10")],
    ),
    refuses(
        (Deliveries, "any", "delivery"),
        NotTheCustodian,
        "The permit is to be released on by another custodian.",
        &[3],
        &[],
    ),
    refuses(
        (Deliveries, "to deliver", "delivery"),
        ReleaseHeightUnknown,
        "The release height is below the permit's, or not below this block's.",
        &[3, 9],
        &[],
    ),
    refuses(
        (Deliveries, "to deliver", "delivery"),
        PermitDead,
        "The permit's life was over when the delivery was recorded; or its grant was withdrawn at or below \
         the release height; or the custodian had said that it would not release.",
        &[3, 9],
        &[Article(Pipl, "15")],
    ),
    refuses(
        (Deliveries, "to deliver", "delivery"),
        AlreadyDelivered,
        "A delivery on this permit was recorded before.",
        &[3, 7],
        &[],
    ),
    refuses(
        (Deliveries, "to deliver", "delivery"),
        ManifestMismatch,
        "What was released is not, record by record, what was permitted.",
        &[3],
        &[Article(Pipl, "6")],
    ),
    effects(
        (Deliveries, "to deliver", "delivery"),
        "Records released before a withdrawal that was recorded first open the duty to erase now.",
        &[9],
        &[Article(Pipl, "47"), Article(Gdpr, "17(1)(b)")],
    ),
    refuses(
        (Deliveries, "not delivered", "delivery"),
        SameInstitution,
        "Requester and custodian are one: it has the records.",
        &[8, 10],
        &[],
    ),
    refuses((Deliveries, "not delivered", "delivery"), PermitDead, "The permit's life is over.", &[8], &[]),
    refuses(
        (Deliveries, "not delivered", "delivery"),
        AlreadyDelivered,
        "A delivery on this permit was recorded before.",
        &[8],
        &[],
    ),
    refuses(
        (Deliveries, "not delivered", "delivery"),
        AlreadyUndelivered,
        "The custodian has said so before.",
        &[8],
        &[],
    ),
    effects(
        (Deliveries, "not delivered", "delivery"),
        "One use is given back to the grant, and the permit dies.",
        &[8],
        &[],
    ),
    refuses((Deliveries, "erasure", "delivery"), NoSuchGrant, "The grant does not exist.", &[9], &[]),
    refuses(
        (Deliveries, "erasure", "delivery"),
        OtherGrantee,
        "The grant is for another institution.",
        &[9],
        &[Article(Pipl, "47")],
    ),
    refuses(
        (Deliveries, "erasure", "delivery"),
        NoErasureDuty,
        "The grant was not withdrawn, nothing was delivered on it, or erasure was attested since.",
        &[9],
        &[Article(Pipl, "47")],
    ),
    refuses(
        (Deliveries, "erasure", "delivery"),
        BadTerms,
        "A legal hold does not end after this block.",
        &[9],
        &[Article(Pipl, "47")],
    ),
    effects(
        (Deliveries, "erasure", "delivery"),
        "A legal hold with a coded reason puts the duty off until its end: until then what was received is \
         stored and used for nothing. An overdue duty shows in the report.",
        &[9],
        &[Article(Pipl, "47"), Article(Gdpr, "17(3)")],
    ),
    // ---- emergencies
    effects(
        (Emergencies, "use", "emergency"),
        "A use that is permitted in an emergency opens two duties of the requester: that the regulator \
         reviews it, and that the person is told, each by a deadline.",
        &[17],
        &[Article(Pipl, "13(4)"), Article(Pipl, "18")],
    ),
    refuses(
        (Emergencies, "release in an outage", "access"),
        NoSuchInstitution,
        "The requester does not exist.",
        &[17],
        &[],
    ),
    refuses(
        (Emergencies, "release in an outage", "access"),
        NotTheSource,
        "The author is not the item's custodian.",
        &[17],
        &[],
    ),
    effects(
        (Emergencies, "release in an outage", "emergency"),
        "It is decided like a request in an emergency now, but the roster is asked for the time of the \
         release. After the deadline it is entered all the same, marked late, and both duties are overdue \
         at once.",
        &[17],
        &[Article(Pipl, "18")],
    ),
    refuses(
        (Emergencies, "release in an outage", "emergency"),
        AlreadyAnchored,
        "From protocol version 2 on: a release of the same records of the item to the same requester at the same time was anchored since.",
        &[17],
        &[],
    ),
    refuses(
        (Emergencies, "review", "emergency"),
        NotPermittedRole,
        "The author is no regulator.",
        &[17],
        &[],
    ),
    refuses(
        (Emergencies, "review", "emergency"),
        NoSuchEmergency,
        "The permit named has no emergency for its basis, or does not exist.",
        &[17],
        &[],
    ),
    refuses(
        (Emergencies, "review", "emergency"),
        SameInstitution,
        "The author is who used: nobody reviews itself.",
        &[10, 17],
        &[],
    ),
    refuses((Emergencies, "review", "emergency"), AlreadyReviewed, "There is a verdict.", &[17], &[]),
    refuses((Emergencies, "notice", "emergency"), NoSuchPermit, "The permit does not exist.", &[17, 41], &[]),
    refuses(
        (Emergencies, "notice", "emergency"),
        NotTheRequester,
        "The permit is another institution's.",
        &[17, 41],
        &[Article(Pipl, "18"), Article(Pipl, "35")],
    ),
    refuses(
        (Emergencies, "notice", "emergency"),
        AlreadyNotified,
        "The person was told of this emergency before.",
        &[17],
        &[],
    ),
    refuses(
        (Emergencies, "notice", "emergency"),
        NoNoticeDue,
        "The permit rests neither on an emergency nor, with one person named, on an order; or the order \
         still defers notice.",
        &[17, 41],
        &[Article(Pipl, "18"), Article(Pipl, "35")],
    ),
    refuses(
        (Emergencies, "notice", "emergency"),
        AlreadyNotified,
        "From protocol version 2 on: the person was told of this use by order since. Under version 1 she can be \
         told again.",
        &[41],
        &[Article(Pipl, "35")],
    ),
    // ---- orders
    refuses(
        (Orders, "to issue", "orders"),
        NotPermittedRole,
        "The author is neither a court nor a regulator.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    refuses(
        (Orders, "to issue", "orders"),
        SameInstitution,
        "Two of author, co-signer and beneficiary are one: nobody who signs an order uses it.",
        &[10, 41],
        &[],
    ),
    refuses(
        (Orders, "to issue", "orders"),
        NoSuchInstitution,
        "The co-signer or the beneficiary does not exist.",
        &[41],
        &[],
    ),
    refuses(
        (Orders, "to issue", "orders"),
        InstitutionSuspended,
        "The co-signer or the beneficiary is suspended or expelled.",
        &[18, 41],
        &[],
    ),
    refuses((Orders, "to issue", "orders"), NoSuchAccount, "The account named does not exist.", &[41], &[]),
    refuses(
        (Orders, "to issue", "orders"),
        BadTerms,
        "Nothing is covered or nothing may be done with it, the period does not run forward, or the end is \
         not ahead.",
        &[41],
        &[Article(Pipl, "34")],
    ),
    effects(
        (Orders, "notice", "orders"),
        "Until the date that the order names, it and its uses are on no person's trail; from then on the \
         requester is to tell her, and what is recorded from then on joins her trail.",
        &[41],
        &[Article(Pipl, "18"), Article(Pipl, "35")],
    ),
    // ---- catalogue
    refuses(
        (Catalogue, "to register", "catalogue"),
        NotPermittedRole,
        "The author has no role that holds such data: settlements are a bureau's, all else a hospital's or \
         a bureau's.",
        &[1, 20],
        &[],
    ),
    refuses(
        (Catalogue, "to register", "catalogue"),
        ItemTaken,
        "The item has its one source already. Asked after level and opening.",
        &[20],
        &[],
    ),
    refuses(
        (Catalogue, "level and opening", "catalogue"),
        OpeningNotAllowed,
        "A highly sensitive item is opened at all, or one of low or moderate sensitivity unconditionally.",
        &[11],
        &[Article(DataSecurity, "21"), Article(Pipl, "28")],
    ),
    refuses(
        (Catalogue, "level and opening", "catalogue"),
        RecipientsMismatch,
        "A directed opening names no recipients, or another one names some.",
        &[11],
        &[],
    ),
    refuses(
        (Catalogue, "level and opening", "catalogue"),
        NoSuchInstitution,
        "A recipient does not exist.",
        &[11],
        &[],
    ),
    refuses(
        (Catalogue, "level and opening", "catalogue"),
        SameInstitution,
        "The custodian is a recipient of its own opening.",
        &[10, 11],
        &[],
    ),
    refuses(
        (Catalogue, "to grade", "catalogue"),
        NoSuchItem,
        "The item is not in the catalogue.",
        &[20],
        &[],
    ),
    refuses(
        (Catalogue, "to grade", "catalogue"),
        NotTheSource,
        "The author is not the item's source; asked of anchoring, too.",
        &[20, 21],
        &[Article(DataSecurity, "21")],
    ),
    refuses(
        (Catalogue, "to grade", "catalogue"),
        GradingDown,
        "The level is lower than the item's: its source alone does not decide that.",
        &[21],
        &[Article(DataSecurity, "21")],
    ),
    refuses(
        (Catalogue, "to grade down by proposal", "catalogue"),
        NotGradedDown,
        "The level is not lower than the item's.",
        &[21],
        &[],
    ),
    refuses(
        (Catalogue, "to anchor", "catalogue"),
        NotPermittedRole,
        "Cases are said to be settled by another than a bureau, or with other data than settlements.",
        &[1, 6],
        &[],
    ),
    refuses((Catalogue, "to anchor", "catalogue"), DuplicateRecord, "A case is named twice.", &[6], &[]),
    refuses((Catalogue, "to anchor", "catalogue"), AlreadySettled, "A case is settled already.", &[6], &[]),
    refuses(
        (Catalogue, "to review an opening", "access"),
        NotPermittedRole,
        "The author is no regulator.",
        &[11],
        &[],
    ),
    refuses(
        (Catalogue, "to review an opening", "access"),
        NoSuchItem,
        "The item is not in the catalogue.",
        &[11],
        &[],
    ),
    refuses(
        (Catalogue, "to review an opening", "access"),
        NoSuchInstitution,
        "The requester does not exist.",
        &[11],
        &[],
    ),
    refuses(
        (Catalogue, "to review an opening", "access"),
        SameInstitution,
        "The author is the requester: who authorizes does not use.",
        &[10, 11],
        &[],
    ),
    // ---- lineage
    refuses(
        (Lineage, "to record", "lineage"),
        DuplicateRecord,
        "A permit, product or excluded request is named twice.",
        &[24],
        &[],
    ),
    refuses((Lineage, "to record", "lineage"), NoSuchPermit, "A permit does not exist.", &[24], &[]),
    refuses(
        (Lineage, "to record", "lineage"),
        NotTheRequester,
        "A permit is another institution's.",
        &[24],
        &[],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        NotDelivered,
        "A permit's records were not delivered, and its requester is not their custodian, who has them.",
        &[24],
        &[],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        ActionNotPermitted,
        "A permit does not allow what was done: making new data needs one to compute or derive, reuse any \
         but one to disclose.",
        &[24, 28],
        &[Article(Pipl, "6")],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        NoSuchArtifact,
        "A product that went in does not exist.",
        &[24],
        &[],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        NotTheMaker,
        "A product that went in was made by another institution.",
        &[24],
        &[],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        OutputExists,
        "A product's id is taken or named twice: so the graph has no cycles.",
        &[24],
        &[],
    ),
    refuses(
        (Lineage, "to record", "lineage"),
        OutputLevelTooLow,
        "A product's level is below the highest that went in.",
        &[21, 24],
        &[Article(DataSecurity, "21")],
    ),
    // ---- institutions
    refuses(
        (Institutions, "to change one", "institutions"),
        BadInstitution,
        "The record has no role, no key, a role or a key twice, or a key or a jurisdiction that is none; \
         nothing changes; it was expelled; it is new and without a record or not active; or it is to stop \
         acting while validators of it vote or are decided to.",
        &[18],
        &[],
    ),
    refuses(
        (Institutions, "to change one", "institutions"),
        MissingPossession,
        "A key that is new has not signed that it is to act for the institution.",
        &[18],
        &[Article(Signatures, "13")],
    ),
    refuses(
        (Institutions, "own keys", "institutions"),
        BadKeys,
        "Nothing changes, the key to go is unknown, the key to come is known or can never count, there are \
         more than eight, or none is left that counts now.",
        &[18],
        &[Article(Signatures, "15")],
    ),
    // ---- changes
    refuses(
        (Changes, "who has a say", "committee"),
        InstitutionSuspended,
        "An institution that is suspended or expelled has none.",
        &[18],
        &[],
    ),
    refuses(
        (Changes, "who has a say", "committee"),
        NotAValidatorsInstitution,
        "Of validators, nodes, parameters, institutions and the protocol: no validator of the author votes.",
        &[18],
        &[],
    ),
    refuses(
        (Changes, "who has a say", "committee"),
        SameInstitution,
        "The change lets its author do more than before: be active again, have another role, a higher \
         level, another jurisdiction, a longer time on the roster.",
        &[10, 18],
        &[],
    ),
    refuses(
        (Changes, "who has a say", "committee"),
        NotOnTheCommittee,
        "Of the policy: the author has no role of the committee that the policy in force names.",
        &[10, 30],
        &[],
    ),
    refuses(
        (Changes, "who has a say", "committee"),
        NotOnTheCommittee,
        "Of grading down: the author is neither the item's source nor on the committee.",
        &[21],
        &[],
    ),
    refuses(
        (Changes, "who has a say", "committee"),
        NoSuchItem,
        "Of grading down: the item is not in the catalogue. Asked before whether the author is on the committee.",
        &[21],
        &[],
    ),
    refuses(
        (Changes, "to propose", "governance"),
        ProposalExpired,
        "The end is past, or more than thirty days ahead.",
        &[10],
        &[],
    ),
    refuses(
        (Changes, "to propose", "governance"),
        TooManyProposals,
        "Sixteen proposals of the author are open.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "to approve", "governance"),
        NoSuchProposal,
        "The proposal does not exist, or was over and has left the state.",
        &[],
        &[],
    ),
    refuses((Changes, "to approve", "governance"), ProposalEnacted, "The proposal was decided.", &[], &[]),
    refuses(
        (Changes, "to approve", "governance"),
        ProposalExpired,
        "The proposal's time has passed.",
        &[10],
        &[],
    ),
    refuses(
        (Changes, "to approve", "governance"),
        AlreadyApproved,
        "The institution has approved it before.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "to approve", "governance"),
        StaleChange,
        "Of grading down: the item was graded since it was proposed.",
        &[21],
        &[],
    ),
    effects(
        (Changes, "to decide", "committee"),
        "Validators, nodes, parameters, institutions and the protocol: once institutions approve whose validators hold \
         more than two thirds of the power.",
        &[18],
        &[],
    ),
    effects(
        (Changes, "to decide", "committee"),
        "The policy: once as many institutions approve as the policy in force asks for, each role of its \
         committee among them. It counts from the next block on.",
        &[10, 30],
        &[Article(Pipl, "51")],
    ),
    effects(
        (Changes, "to decide", "committee"),
        "Grading down: once the item's source approves, and another institution on the committee.",
        &[21],
        &[Article(DataSecurity, "21")],
    ),
    refuses(
        (Changes, "policy", "governance"),
        BadPolicy,
        "The version is not the one after the newest that was decided; a use case has two rules or asks for a settlement without a case; an \
         entry of the negative list names nothing; or the committee has no role, one twice, or fewer \
         approvals than roles.",
        &[10, 14, 30],
        &[],
    ),
    refuses(
        (Changes, "parameters", "governance"),
        BadParameters,
        "A parameter is out of its bounds.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        ChangePending,
        "Another change of the validators is decided and not in force.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        StaleChange,
        "The set to be replaced is not the one in force.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        ActivationOutOfRange,
        "The height is less than two blocks or more than a million ahead.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        BadValidatorSet,
        "A validator is of an institution that may not act, has no node, a bad key or power, or is named \
         twice; or there is none.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        MissingPossession,
        "A new key has not signed that it is to vote.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "validators", "governance"),
        NoLiveQuorum,
        "Of the new set, those that vote now and are not passed over are no quorum.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "protocol", "governance"),
        BadProtocol,
        "The version is not the one after that in force, or another is decided and not in force.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "protocol", "governance"),
        ActivationOutOfRange,
        "The height is less than two blocks or more than a million ahead.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "nodes", "governance"),
        BadNodes,
        "A node to go is unknown or of a validator that votes; one to come is of an institution that may \
         not act, has a bad key or one that is taken; nothing changes; or there are more than 256.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "contradictions", "governance"),
        AlreadyReported,
        "The contradiction was reported before.",
        &[],
        &[],
    ),
    refuses(
        (Changes, "contradictions", "governance"),
        NotAValidatorThen,
        "The key does not vote, is not decided to, and did not at that height, or left too long ago.",
        &[],
        &[],
    ),
];

const CLINICAL_CARE: Option<(&str, &str)> = Some(("DUO:0000043", "clinical care use"));
const MEDICAL_RESEARCH: Option<(&str, &str)> =
    Some(("DUO:0000006", "health or medical or biomedical research"));

/// What each purpose translates to, for exports. The ledger keeps its own numbers.
pub static PURPOSES: &[PurposeCodes] = &[
    purpose(
        Purpose::ClaimsPayment,
        ("HPAYMT", "healthcare payment"),
        None,
        "narrower than its code: the payment of one claim",
    ),
    purpose(Purpose::Treatment, ("TREAT", "treatment"), CLINICAL_CARE, "the same"),
    purpose(
        Purpose::MutualRecognition,
        ("COC", "coordination of care"),
        CLINICAL_CARE,
        "narrower than its codes: reuse of another hospital's test result (检验结果互认)",
    ),
    purpose(
        Purpose::Research,
        ("HRESCH", "healthcare research"),
        MEDICAL_RESEARCH,
        "the same; never DUO:0000042, research for any purpose",
    ),
    purpose(
        Purpose::Statistics,
        ("PUBHLTH", "public health"),
        None,
        "near: statistics for the public's health; DUO has a permission for research alone",
    ),
    purpose(Purpose::Operations, ("HOPERAT", "healthcare operations"), None, "the same"),
    purpose(Purpose::Marketing, ("HMARKT", "healthcare marketing"), None, "the same"),
    purpose(
        Purpose::EmergencyTreatment,
        ("ETREAT", "Emergency Treatment"),
        CLINICAL_CARE,
        "the same; that the person was not asked would be BTG, break the glass, besides",
    ),
    purpose(
        Purpose::Legal,
        ("HLEGAL", "legal"),
        None,
        "narrower than its code: by an order that is on the chain",
    ),
];

const fn purpose(
    purpose: Purpose,
    act_reason: (&'static str, &'static str),
    duo: Option<(&'static str, &'static str)>,
    fit: &'static str,
) -> PurposeCodes {
    PurposeCodes { purpose, act_reason, duo, fit }
}
