//! The reference model: what the rules say, written a second time, from REQUIREMENTS and the table of rules alone.
//!
//! Naive and slow on purpose. The whole history is kept, and every fact (uses left, keys, duties, who is on a
//! roster, whether a delegation is in force) is worked out from it again whenever it is asked. Nothing here may
//! call a rule of `ledger`; of `proto` it takes types, ids and hashes. `driver` runs sequences that `generator`
//! makes against both and compares them; one file holds the rules of each group, in the order of RULES.md.

mod access;
mod catalogue;
mod consent;
mod delivery;
mod driver;
mod emergency;
mod generator;
mod governance;
mod institutions;
mod lineage;
mod objects;
mod orders;
mod persons;
mod validity;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use assent_ledger::BlockContext;
use assent_proto::code::Denial;
use assent_proto::envelope::VerifiedTx;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::{Institution, ObjectRef, Parameters, Policy, Role};
use assent_proto::transaction::{Action, Author, Change, NodeRecord};
use assent_proto::validators::ValidatorSet;

pub use driver::{Coverage, Disagreement, run_seed};

/// What a chain was founded with.
#[derive(Clone)]
pub(crate) struct Founding {
    pub(crate) institutions: BTreeMap<InstitutionId, Institution>,
    pub(crate) parameters: Parameters,
    pub(crate) policy: Policy,
    pub(crate) validators: ValidatorSet,
    pub(crate) nodes: Vec<NodeRecord>,
    /// The version of the rules.
    pub(crate) version: u32,
}

/// One event that the model expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    pub(crate) kind: EventKind,
    /// What it is about.
    pub(crate) object: ObjectRef,
    /// Trails that it must join. Of persons' trails, those and no others.
    pub(crate) trails: BTreeSet<ObjectRef>,
}

/// What a transaction asks for.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) body: BodyId,
    pub(crate) author: Author,
    pub(crate) signers: Vec<PublicKey>,
    pub(crate) action: Action,
}

/// What came of it.
pub(crate) type Verdict = Result<Vec<Happening>, Denial>;

/// One transaction of the history.
#[derive(Clone)]
pub(crate) struct Done {
    pub(crate) at: BlockContext,
    pub(crate) asked: Asked,
    pub(crate) verdict: Verdict,
}

/// The rules and the history that they look at.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) founding: Founding,
    pub(crate) history: Vec<Done>,
    /// The block that is being decided, or the newest.
    pub(crate) at: BlockContext,
}

impl Model {
    pub(crate) fn found(founding: Founding, at: BlockContext) -> Model {
        Model { founding, history: Vec::new(), at }
    }

    /// Decides a block's transactions in their order.
    pub(crate) fn block(&mut self, at: BlockContext, txs: &[VerifiedTx]) -> &[Done] {
        self.at = at;
        let from = self.history.len();
        for tx in txs {
            let asked = Asked {
                body: tx.body_id(),
                author: tx.body().author,
                signers: tx.signers().to_vec(),
                action: tx.body().action.clone(),
            };
            let verdict = self.decide(&asked);
            self.history.push(Done { at, asked, verdict });
        }
        &self.history[from..]
    }

    /// What the rules say to one transaction now.
    pub(crate) fn decide(&self, asked: &Asked) -> Verdict {
        self.may_act(asked)?;
        self.keys_still_count(asked)?;
        match &asked.action {
            Action::Enrol(a) => self.enrol(asked, a),
            Action::RotateKey(a) => self.rotate_key(asked, a),
            Action::VetoRecovery(a) => self.veto(asked, a),
            Action::Recover(a) => self.recover(asked, a),
            Action::Delegate(a) => self.delegate(asked, a),
            Action::EndDelegation(a) => self.end_delegation(asked, a),
            Action::Ratify(a) => self.ratify(asked, a),
            Action::Grant(a) => self.grant(asked, a),
            Action::Revoke(a) => self.revoke(asked, a),
            Action::RequestAccess(a) => self.request(asked, a),
            Action::ReviewOpening(a) => self.review_opening(asked, a),
            Action::Deliver(a) => self.deliver(asked, a),
            Action::NotDelivered(a) => self.not_delivered(asked, a),
            Action::AttestErasure(a) => self.attest_erasure(asked, a),
            Action::AnchorEmergency(a) => self.anchor_emergency(asked, a),
            Action::ReviewEmergency(a) => self.review_emergency(asked, a),
            Action::NotifyPerson(a) => self.notify_person(asked, a),
            Action::IssueOrder(a) => self.issue_order(asked, a),
            Action::RegisterItem(a) => self.register_item(asked, a),
            Action::Classify(a) => self.classify(asked, a),
            Action::AnchorRecords(a) => self.anchor_records(asked, a),
            Action::RecordActivity(a) => self.record_activity(asked, a),
            Action::RotateOperator(a) => self.rotate_operator(asked, a),
            Action::Propose(a) => self.propose(asked, a),
            Action::Approve(a) => self.approve(asked, a),
            Action::ReportEquivocation(a) => self.report(asked, a),
        }
    }

    /// The trails that a denial must join, and persons' trails that it may: those of whom it concerns. While an order
    /// defers notice, none of theirs.
    pub(crate) fn denial_trails(&self, asked: &Asked) -> (BTreeSet<ObjectRef>, BTreeSet<ObjectRef>) {
        let mut must: BTreeSet<_> = [asked.author_ref()].into();
        let mut may = BTreeSet::new();
        let grant = match &asked.action {
            Action::RequestAccess(r) => r.grant,
            Action::Revoke(r) => Some(r.grant),
            Action::Ratify(r) => Some(r.grant),
            Action::AttestErasure(a) => Some(a.grant),
            _ => None,
        };
        // Matched is a grant that is the author's own affair, and the only basis that is named.
        let matched = |g: &consent::Granted| match (asked.author, &asked.action) {
            (Author::Institution(id), Action::RequestAccess(_)) => g.terms.grantee == id,
            (Author::Institution(id), _) => g.terms.grantee == id,
            (Author::Account(id), Action::Ratify(_)) => g.account == id,
            (Author::Account(id), _) => g.account == id || g.signer == id,
        };
        // A withdrawal may come before its grant in the same block: then there is none yet.
        let place = |body: Hash32| self.history.iter().position(|d| d.asked.body.0 == body);
        let there = |g: &GrantId| place(g.0) < place(asked.body.0);
        let named = grant.filter(there).and_then(|g| Some((g, self.grant_of(g)?)));
        if let Some((id, g)) = named.filter(|(_, g)| matched(g)) {
            // Of several bases none is the one.
            let one = !matches!(&asked.action, Action::RequestAccess(r) if r.emergency.is_some() || r.order.is_some());
            must.extend(one.then_some(ObjectRef::from(id)));
            may.extend([ObjectRef::from(g.account), g.signer.into()]);
        }
        let permit = match &asked.action {
            Action::Deliver(d) => Some(d.permit),
            Action::NotDelivered(d) => Some(d.permit),
            Action::NotifyPerson(d) => Some(d.permit),
            Action::ReviewEmergency(d) => Some(d.permit),
            _ => None,
        };
        if let Some(p) = permit.and_then(|p| self.permit(p)) {
            may.extend(self.told(&p.request));
            may.extend(p.request.person.map(ObjectRef::from));
        }
        match &asked.action {
            Action::RequestAccess(r) => {
                let w = delivery::Wanted::of_request(asked.institution(), r);
                may.extend(self.told(&w));
                may.extend(w.person.map(ObjectRef::from));
                let order = r.order.and_then(|o| self.order(o)).filter(|o| self.at.time >= o.notice_from);
                may.extend(order.and_then(|o| o.account).map(ObjectRef::from));
            }
            Action::AnchorEmergency(a) => may.extend([ObjectRef::from(a.account)]),
            Action::Recover(r) => may.extend([ObjectRef::from(r.account)]),
            Action::Delegate(d) => may.extend([ObjectRef::from(d.ward), d.delegate.into()]),
            Action::EndDelegation(e) => {
                let parties =
                    self.delegation(e.delegation).map(|d| [ObjectRef::from(d.ward), d.delegate.into()]);
                may.extend(parties.into_iter().flatten());
            }
            _ => (),
        }
        (must, may)
    }

    /// What was applied, oldest first.
    pub(crate) fn applied(&self) -> impl DoubleEndedIterator<Item = &Done> {
        self.history.iter().filter(|d| d.verdict.is_ok())
    }

    /// The applied transaction of a body.
    pub(crate) fn done(&self, body: Hash32) -> Option<&Done> {
        self.applied().find(|d| d.asked.body.0 == body)
    }

    /// Changes that were decided, each with the transaction that decided it.
    pub(crate) fn enacted(&self) -> impl DoubleEndedIterator<Item = (&Done, ProposalId, &Change)> {
        self.applied().filter_map(|d| {
            let id = d.enacts()?;
            Some((d, id, &self.proposed(id)?.1.change))
        })
    }

    /// The parameters that count at a height: what a block decides counts from the next.
    pub(crate) fn parameters_at(&self, height: Height) -> &Parameters {
        let changed = self.enacted().filter(|(d, ..)| d.at.height < height);
        let mut changed = changed.filter_map(|(_, _, c)| match c {
            Change::Parameters(p) => Some(p),
            _ => None,
        });
        changed.next_back().unwrap_or(&self.founding.parameters)
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        self.parameters_at(self.at.height)
    }

    /// Every policy that is or is about to be in force, with the height of the block that decided it.
    pub(crate) fn policies(&self) -> Vec<(Height, &Policy)> {
        let decided = self.enacted().filter_map(|(d, _, c)| match c {
            Change::Policy(p) => Some((d.at.height, p)),
            _ => None,
        });
        std::iter::once((Height(0), &self.founding.policy)).chain(decided).collect()
    }

    /// The policy in force: what a block decides counts from the next.
    pub(crate) fn policy(&self) -> &Policy {
        let before = |(height, _): &(Height, &Policy)| *height < self.at.height;
        self.policies().into_iter().rfind(before).map_or(&self.founding.policy, |(_, p)| p)
    }

    pub(crate) fn policy_of(&self, version: u32) -> Option<&Policy> {
        self.policies().into_iter().map(|(_, p)| p).find(|p| p.version == version)
    }
}

/// The bytes that name something, whatever it is.
pub(crate) type Hash32 = assent_proto::Hash;

impl Done {
    /// The proposal that this transaction decided.
    fn enacts(&self) -> Option<ProposalId> {
        self.verdict.as_ref().ok()?.iter().find(|h| h.kind == EventKind::Enacted)?;
        match &self.asked.action {
            Action::Propose(_) => Some(ProposalId(self.asked.body.0)),
            Action::Approve(a) => Some(a.proposal),
            _ => None,
        }
    }

    pub(crate) fn has(&self, kind: EventKind) -> bool {
        self.verdict.as_ref().is_ok_and(|events| events.iter().any(|h| h.kind == kind))
    }
}

impl Asked {
    /// The institution that asks. Whether an institution may ask at all is a matter of validity.
    pub(crate) fn institution(&self) -> InstitutionId {
        match self.author {
            Author::Institution(id) => id,
            Author::Account(_) => unreachable!("a person does not ask this"),
        }
    }

    pub(crate) fn person(&self) -> AccountId {
        match self.author {
            Author::Account(id) => id,
            Author::Institution(_) => unreachable!("an institution does not ask this"),
        }
    }

    pub(crate) fn author_ref(&self) -> ObjectRef {
        match self.author {
            Author::Account(id) => id.into(),
            Author::Institution(id) => id.into(),
        }
    }
}

/// An event on its object's trail and on others.
pub(crate) fn event(
    kind: EventKind,
    object: impl Into<ObjectRef>,
    trails: impl IntoIterator<Item = ObjectRef>,
) -> Happening {
    let object = object.into();
    Happening { kind, object, trails: trails.into_iter().chain([object]).collect() }
}

/// Refuses with a code when a rule's condition holds.
pub(crate) fn refuse(code: Denial, when: bool) -> Result<(), Denial> {
    if when { Err(code) } else { Ok(()) }
}

/// Whether the institution has the role.
pub(crate) fn has_role(institution: &Institution, role: Role) -> bool {
    institution.roles.contains(&role)
}

/// Whether one of several is there twice.
pub(crate) fn has_twice<T: PartialEq>(all: &[T]) -> bool {
    all.iter().enumerate().any(|(i, x)| all[..i].contains(x))
}
