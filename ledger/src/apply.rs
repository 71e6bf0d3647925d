//! A block applied to the state before it: admission of all its transactions, then each in block order.
//!
//! What protects a person (revocations) stands physically before everything else, or the block is invalid.
//! Nothing else about a transaction's neighbours does that: a dependency inside a block yields a denial.

use std::collections::BTreeSet;

use assent_proto::code::{Denial, Invalid};
use assent_proto::envelope::VerifiedTx;
use assent_proto::event::{Event, Receipt};
use assent_proto::hash::Hash;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::state::*;
use assent_proto::transaction::{Action, Author, Standing};
use assent_proto::{Leaf, ObjectRef, merkle};

use crate::check::Second;
use crate::outcome::{Origin, Outcome, Record};
use crate::overlay::Overlay;
use crate::{
    ParentTurns, ReplayWindow, State, access, catalogue, check, consent, delegation, delivery, emergency,
    governance, identity, institutions, lineage, orders, parameters, policy, protocol, turns,
};

/// Where and when a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockContext {
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: TimeMs,
}

/// What a block has made.
#[derive(Clone)]
pub struct Applied {
    /// The state after it.
    pub state: State,
    /// Its events in order.
    pub events: Vec<Event>,
    /// One receipt a transaction, in block order.
    pub receipts: Vec<Receipt>,
    /// The final leaf of every object that changed or whose trail went on, by key.
    pub changes: Vec<Leaf>,
    /// Objects that have left the state, by key.
    pub removed: Vec<ObjectRef>,
    /// Merkle root over the leaves of the events.
    pub events_root: Hash,
}

/// Why no state can follow from a block. Whoever proposed it is at fault, whatever the network did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// A transaction may be in no block at this place.
    #[error("transaction {index} may not be in this block: {reason}")]
    Transaction {
        /// Its index.
        index: usize,
        /// Why.
        reason: Invalid,
    },
    /// A protecting transaction stands behind one that does not protect.
    #[error("transaction {index} protects and stands behind one that does not")]
    PhaseOrder {
        /// Its index.
        index: usize,
    },
    /// The same body twice, under whichever signatures.
    #[error("transaction {index} has the body of an earlier one")]
    Duplicate {
        /// Index of the later one.
        index: usize,
    },
    /// More transactions, or more bytes of them, than the parameters allow.
    #[error("the block's transactions are more or larger than allowed")]
    TooLarge,
}

/// Applies a block's transactions, in their order, to the state before it, after what its parent's certificate
/// shows about turns.
///
/// The cost is that of the transactions; nothing walks what depends on them.
pub fn apply(
    state: &State,
    window: &ReplayWindow,
    block: BlockContext,
    parent: &ParentTurns,
    txs: &[VerifiedTx],
) -> Result<Applied, InvalidBlock> {
    let (parameters, policy) = (parameters(state), policy(state));
    let version = protocol(state).at(block.height);
    within_bounds(&parameters, txs)?;
    in_phases(txs)?;
    let mut overlay = Overlay::over(state);
    admissible(&overlay, window, &parameters, version, block.time, txs)?;

    turns::account(&mut overlay, block.height, parent);
    let mut record = Record::of(block);
    for (index, tx) in txs.iter().enumerate() {
        let (body, action) = (tx.body_id(), &tx.body().action);
        let origin =
            Origin { transaction: index as u32, body, author: tx.body().author, action: action.kind() };
        let signer = tx.signers()[0];
        let (parameters, policy) = (&parameters, &policy);
        let call = Call { state: &overlay, parameters, policy, version, block, body, signer };
        let decided = may_act(&call, &tx.body().author, action)
            .and_then(|()| second_holds_key(&call, tx))
            .and_then(|()| decide(&call, &tx.body().author, action));
        match decided {
            Ok(outcome) => record.applied(&mut overlay, &origin, outcome),
            Err(denial) => {
                let trails = concerned(&call, &tx.body().author, action);
                record.denied(&mut overlay, &origin, denial, trails);
            }
        }
    }

    let changes = overlay.into_changes();
    Ok(Applied {
        state: changes.removed.iter().fold(state.with(&changes.written), |s, o| s.without(o)),
        events_root: merkle::root(&record.leaves),
        events: record.events,
        receipts: record.receipts,
        changes: changes.written,
        removed: changes.removed,
    })
}

fn within_bounds(parameters: &Parameters, txs: &[VerifiedTx]) -> Result<(), InvalidBlock> {
    let bytes: u64 = txs.iter().map(|tx| tx.bytes().len() as u64).sum();
    let fits = txs.len() as u64 <= u64::from(parameters.block_transactions_max)
        && bytes <= u64::from(parameters.block_bytes_max);
    if fits { Ok(()) } else { Err(InvalidBlock::TooLarge) }
}

fn in_phases(txs: &[VerifiedTx]) -> Result<(), InvalidBlock> {
    if planted(Mutation::RevokeInBlockOrder) {
        return Ok(());
    }
    let protects = |tx: &VerifiedTx| tx.body().action.protects();
    let rest = txs.iter().position(|tx| !protects(tx)).unwrap_or(txs.len());
    match txs[rest..].iter().position(protects) {
        Some(late) => Err(InvalidBlock::PhaseOrder { index: rest + late }),
        None => Ok(()),
    }
}

fn admissible(
    state: &Overlay,
    window: &ReplayWindow,
    parameters: &Parameters,
    version: u32,
    time: TimeMs,
    txs: &[VerifiedTx],
) -> Result<(), InvalidBlock> {
    let mut seen = BTreeSet::new();
    for (index, tx) in txs.iter().enumerate() {
        if !seen.insert(tx.body_id()) {
            return Err(InvalidBlock::Duplicate { index });
        }
        check::admit(state, window, parameters, version, time, tx)
            .map_err(|reason| InvalidBlock::Transaction { index, reason })?;
    }
    Ok(())
}

/// What a rule may look at: the state as the block has left it so far, what was in force before the block (a
/// policy or parameters that the block decides on count from the next one on), where it stands.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a Overlay<'a>,
    pub(crate) parameters: &'a Parameters,
    pub(crate) policy: &'a Policy,
    /// The protocol version in force at the block's height: what later versions changed is asked of it.
    pub(crate) version: u32,
    pub(crate) block: BlockContext,
    pub(crate) body: BodyId,
    /// The author's key: current before the block.
    pub(crate) signer: PublicKey,
}

impl Call<'_> {
    /// The institution that asks.
    pub(crate) fn author(&self, id: &InstitutionId) -> Institution {
        self.state.get(*id).expect("the author of an admitted transaction exists")
    }
}

/// Whether the author may still act at all, whatever the block decided before: asked of every transaction, here
/// and nowhere else.
pub(crate) fn may_act(call: &Call, author: &Author, action: &Action) -> Result<(), Denial> {
    match author {
        Author::Institution(by) if is_duty(action) || call.author(by).standing == Standing::Active => Ok(()),
        Author::Institution(_) => Err(Denial::InstitutionSuspended),
        Author::Account(person) => holds_key(call, person, action),
    }
}

/// What an institution owes others, it owes them also while it is suspended, and after it was expelled.
fn is_duty(action: &Action) -> bool {
    matches!(
        action,
        Action::Deliver(_)
            | Action::NotDelivered(_)
            | Action::AttestErasure(_)
            | Action::NotifyPerson(_)
            | Action::AnchorEmergency(_)
            | Action::RotateOperator(_)
            | Action::EndDelegation(_)
            | Action::ReportEquivocation(_)
    )
}

/// The key is still the account's. One that was replaced earlier in this block authorizes nothing more; what it
/// only takes back stands, or a revocation would be lost to the order in which a block was put together (R9).
fn holds_key(call: &Call, person: &AccountId, action: &Action) -> Result<(), Denial> {
    let takes_back = action.protects() && !matches!(action, Action::RotateKey(_));
    if takes_back || signs_for(call, person, &call.signer) { Ok(()) } else { Err(Denial::KeyReplaced) }
}

/// The same of a person who signs second: she asks for nothing, delegates nothing and takes on no guardianship by
/// a key that was replaced earlier in this block.
fn second_holds_key(call: &Call, tx: &VerifiedTx) -> Result<(), Denial> {
    match Second::of(&tx.body().action) {
        Some(Second::Person(id)) if !signs_for(call, &id, &tx.signers()[1]) => Err(Denial::KeyReplaced),
        _ => Ok(()),
    }
}

fn signs_for(call: &Call, person: &AccountId, key: &PublicKey) -> bool {
    let account: Account = call.state.get(*person).expect("who signs an admitted transaction exists");
    account.key_at(call.block.time) == *key
}

fn decide(call: &Call, author: &Author, action: &Action) -> Result<Outcome, Denial> {
    match (author, action) {
        (Author::Account(person), Action::Grant(grant)) => consent::grant(call, person, grant),
        (Author::Account(person), Action::Revoke(revoke)) => consent::revoke(call, person, revoke),
        (Author::Account(person), Action::RotateKey(rotate)) => identity::rotate(call, person, rotate),
        (Author::Account(person), Action::VetoRecovery(veto)) => identity::veto(call, person, veto),
        (Author::Account(person), Action::Ratify(ratify)) => delegation::ratify(call, person, ratify),
        (author, Action::EndDelegation(end)) => delegation::end(call, author, end),
        (Author::Institution(by), action) => match action {
            Action::Enrol(enrol) => identity::enrol(call, by, enrol),
            Action::RegisterItem(item) => catalogue::register(call, by, item),
            Action::Classify(classify) => catalogue::classify(call, by, classify),
            Action::AnchorRecords(anchor) => catalogue::anchor(call, by, anchor),
            Action::RequestAccess(request) => access::request(call, by, request),
            Action::Deliver(delivery) => delivery::deliver(call, by, delivery),
            Action::AttestErasure(attest) => delivery::attest_erasure(call, by, attest),
            Action::ReviewOpening(review) => access::review_opening(call, by, review),
            Action::RecordActivity(activity) => lineage::record_activity(call, by, activity),
            Action::Propose(propose) => governance::propose(call, by, propose),
            Action::Approve(approve) => governance::approve(call, by, approve),
            Action::ReportEquivocation(report) => governance::report_equivocation(call, by, report),
            Action::Recover(recover) => identity::recover(call, by, recover),
            Action::Delegate(delegate) => delegation::delegate(call, by, delegate),
            Action::NotDelivered(not) => delivery::not_delivered(call, by, not),
            Action::AnchorEmergency(anchor) => emergency::anchor(call, by, anchor),
            Action::ReviewEmergency(review) => emergency::review(call, by, review),
            Action::NotifyPerson(notify) => emergency::notify(call, by, notify),
            Action::IssueOrder(order) => orders::issue(call, by, order),
            Action::RotateOperator(rotate) => institutions::rotate_operator(call, by, rotate),
            Action::Grant(_)
            | Action::Revoke(_)
            | Action::RotateKey(_)
            | Action::VetoRecovery(_)
            | Action::Ratify(_)
            | Action::EndDelegation(_) => unreachable!("only persons' are admitted"),
        },
        (Author::Account(_), _) => unreachable!("only institutions' are admitted"),
    }
}

/// The trails that a denial joins besides its author's: of the grant or permit that it names, if that
/// exists and is the author's to use. A stranger writes into nobody's trail.
fn concerned(call: &Call, author: &Author, action: &Action) -> Vec<ObjectRef> {
    match (author, action) {
        (Author::Institution(by), Action::RequestAccess(r)) => match (&r.order, &r.grant) {
            (Some(order), _) => orders::concerned(call, by, order),
            (None, Some(grant)) => grant_trails(call, grant, |g| g.terms.grantee == *by),
            (None, None) => Vec::new(),
        },
        (Author::Institution(by), Action::AttestErasure(a)) => {
            grant_trails(call, &a.grant, |g| g.terms.grantee == *by)
        }
        (Author::Account(person), Action::Revoke(r)) => {
            grant_trails(call, &r.grant, |g| g.account == *person || g.signer == *person)
        }
        (Author::Account(person), Action::Ratify(r)) => {
            grant_trails(call, &r.grant, |g| g.account == *person)
        }
        (Author::Institution(by), Action::Deliver(d)) => {
            permit_trails(call, &d.permit, |p| p.custodian == *by)
        }
        (Author::Institution(by), Action::NotDelivered(n)) => {
            permit_trails(call, &n.permit, |p| p.custodian == *by)
        }
        (Author::Institution(by), Action::NotifyPerson(n)) => {
            permit_trails(call, &n.permit, |p| p.requester == *by)
        }
        _ => Vec::new(),
    }
}

fn permit_trails(call: &Call, id: &PermitId, concerns: impl Fn(&Permit) -> bool) -> Vec<ObjectRef> {
    let permit = call.state.get::<Permit>(*id).filter(concerns);
    permit.map_or(Vec::new(), |permit| access::permit_trails(call, id, &permit))
}

fn grant_trails(call: &Call, id: &GrantId, concerns: impl Fn(&GrantState) -> bool) -> Vec<ObjectRef> {
    let grant = call.state.get::<GrantState>(*id).filter(concerns);
    grant.map_or(Vec::new(), |grant| vec![(*id).into(), grant.account.into()])
}
