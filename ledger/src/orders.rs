//! Access by order of a court or by statute (R41): how an order comes to be, and until when nobody is told.
//! What a request that rests on one must keep to is `basis`.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;

/// Enters an order that two have signed and a third may use. Nobody who signs it uses it (R10).
pub(crate) fn issue(call: &Call, by: &InstitutionId, terms: &IssueOrder) -> Result<Outcome, Denial> {
    let issuer = call.author(by);
    if !(issuer.has(Role::Court) || issuer.has(Role::Regulator)) {
        return Err(Denial::NotPermittedRole);
    }
    if terms.cosigner == *by || terms.beneficiary == *by || terms.cosigner == terms.beneficiary {
        return Err(Denial::SameInstitution);
    }
    active(call, &terms.cosigner)?;
    active(call, &terms.beneficiary)?;
    if terms.account.is_some_and(|account| !call.state.has(account)) {
        return Err(Denial::NoSuchAccount);
    }
    if !consistent(call, terms) {
        return Err(Denial::BadTerms);
    }
    let id = OrderId(call.body.0);
    let order = Order { issuer: *by, terms: terms.clone(), height: call.block.height };
    let person = terms.account.filter(|_| !is_deferred(call, &order)).map(ObjectRef::from);
    let trails = [terms.beneficiary.into(), terms.cosigner.into()].into_iter().chain(person);
    Ok(Outcome::default().write(id, &order).event(EventKind::OrderIssued, id, trails))
}

fn active(call: &Call, id: &InstitutionId) -> Result<(), Denial> {
    let institution: Institution = call.state.get(*id).ok_or(Denial::NoSuchInstitution)?;
    if institution.standing == Standing::Active { Ok(()) } else { Err(Denial::InstitutionSuspended) }
}

/// Whether the terms can mean something: something may be done with something, from a period that runs
/// forward, after this block.
fn consistent(call: &Call, terms: &IssueOrder) -> bool {
    let something = !(terms.items.is_empty() && terms.categories.is_empty());
    something
        && !terms.actions.is_empty()
        && terms.not_after > call.block.time
        && terms.data_from <= terms.data_to
}

/// Whether the order that a use rests on defers that the person is told of it.
pub(crate) fn defers_notice(call: &Call, order: Option<OrderId>) -> bool {
    let order = order.and_then(|id| call.state.get::<Order>(id));
    order.is_some_and(|order| is_deferred(call, &order))
}

fn is_deferred(call: &Call, order: &Order) -> bool {
    call.block.time < order.terms.notice_from
}

/// The trails that a denial joins of a request that names an order: its own, and the person's whom it names
/// unless notice is deferred; if the order is the requester's to use.
pub(crate) fn concerned(call: &Call, by: &InstitutionId, id: &OrderId) -> Vec<ObjectRef> {
    let order = call.state.get::<Order>(*id).filter(|order| order.terms.beneficiary == *by);
    order.map_or(Vec::new(), |order| {
        let person = order.terms.account.filter(|_| !is_deferred(call, &order));
        std::iter::once((*id).into()).chain(person.map(ObjectRef::from)).collect()
    })
}
