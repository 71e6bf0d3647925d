//! What persons authorize and withdraw. Whether a use is covered is for `access` to decide.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Account, EarlyRevocation, GrantState, Revocation};
use assent_proto::transaction::{Grant, Mode, Revoke};

use crate::apply::Call;
use crate::outcome::Outcome;

/// Authorizes (R2). A grant whose revocation came first is born revoked (R9).
pub(crate) fn grant(call: &Call, person: &AccountId, terms: &Grant) -> Result<Outcome, Denial> {
    if !consistent(call, terms) {
        return Err(Denial::BadTerms);
    }
    if !call.state.has(terms.grantee) {
        return Err(Denial::NoSuchInstitution);
    }
    let id = GrantId(call.body.0);
    let mut account = account(call, person);
    let early = take_early(&mut account, &id, call.block.time);
    let grant = GrantState {
        account: *person,
        terms: terms.clone(),
        granted_height: call.block.height,
        used: 0,
        delivered: 0,
        revocation: early.then(|| now(call)),
        erased_height: None,
        signer: *person,
        ratified: false,
        hold: None,
    };
    let trails = [terms.grantee.into()];
    let granted = Outcome::default().write(id, &grant).event(EventKind::Granted, id, trails);
    if !early {
        return Ok(granted);
    }
    Ok(granted.write(*person, &account).event(EventKind::Revoked, id, trails))
}

/// Whether the terms can mean something: periods run forward and reach past this block, uses fit the mode,
/// a one-time grant has its case (R6), and something is granted somewhere to be done.
fn consistent(call: &Call, terms: &Grant) -> bool {
    let uses = match terms.mode {
        Mode::OneTime => terms.uses == 1 && terms.case.is_some(),
        Mode::NTimes => terms.uses >= 1,
        Mode::Standing => terms.uses == 0,
    };
    let something = !(terms.items.is_empty() && terms.categories.is_empty());
    let done_somewhere = !(terms.actions.is_empty() || terms.jurisdictions.is_empty());
    uses && something
        && done_somewhere
        && terms.not_before <= terms.not_after
        && terms.not_after > call.block.time
        && terms.data_from <= terms.data_to
        && terms.policy_version <= call.policy.version
}

/// Withdraws (R9). A grant that is not here yet is remembered for as long as it could still come.
pub(crate) fn revoke(call: &Call, person: &AccountId, revoke: &Revoke) -> Result<Outcome, Denial> {
    let Some(grant) = call.state.get::<GrantState>(revoke.grant) else {
        return revoke_early(call, person, revoke.grant);
    };
    if grant.account != *person {
        return Err(Denial::NotTheGrantor);
    }
    if grant.revocation.is_some() {
        return Err(Denial::AlreadyRevoked);
    }
    let trails = [grant.terms.grantee.into()];
    let grant = GrantState { revocation: Some(now(call)), ..grant };
    let revoked =
        Outcome::default().write(revoke.grant, &grant).event(EventKind::Revoked, revoke.grant, trails);
    if grant.erasure_due(call.parameters).is_none() {
        return Ok(revoked);
    }
    Ok(revoked.event(EventKind::ErasureDue, revoke.grant, trails))
}

fn revoke_early(call: &Call, person: &AccountId, grant: GrantId) -> Result<Outcome, Denial> {
    let mut account = account(call, person);
    take_early(&mut account, &grant, call.block.time);
    let mut early = account.early.into_vec();
    early.push(EarlyRevocation { grant, until: call.block.time.plus(call.parameters.transaction_life_ms) });
    account.early = early.try_into().map_err(|_| Denial::TooManyEarlyRevocations)?;
    Ok(Outcome::default().write(*person, &account).event(EventKind::RevokedEarly, *person, []))
}

/// Drops the entries whose time has passed, and the one for this grant; whether that one was in force.
fn take_early(account: &mut Account, grant: &GrantId, time: TimeMs) -> bool {
    let mut early = std::mem::take(&mut account.early).into_vec();
    early.retain(|e| e.until >= time);
    let before = early.len();
    early.retain(|e| e.grant != *grant);
    let taken = early.len() < before;
    account.early = early.try_into().expect("entries were only dropped");
    taken
}

fn account(call: &Call, person: &AccountId) -> Account {
    call.state.get(*person).expect("the author of an admitted transaction exists")
}

fn now(call: &Call) -> Revocation {
    Revocation { height: call.block.height, time: call.block.time }
}
