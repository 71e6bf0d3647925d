//! What persons authorize and withdraw. Whether a use is covered is for `access` to decide.

use std::collections::BTreeMap;

use assent_proto::ObjectRef;
use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Account, EarlyRevocation, GrantState, Revocation};
use assent_proto::transaction::{Grant, Mode, Revoke};

use crate::apply::Call;
use crate::delegation::principal;
use crate::identity::{author, person, unchallenged};
use crate::outcome::Outcome;

/// Authorizes (R2): for the author, or for a ward whose delegate she is (R15). A grant whose revocation came
/// first, by either of the two, is born revoked (R9).
pub(crate) fn grant(call: &Call, signer: &AccountId, terms: &Grant) -> Result<Outcome, Denial> {
    unchallenged(&author(call, signer))?;
    let account = principal(call, signer, terms)?;
    if !consistent(call, terms) {
        return Err(Denial::BadTerms);
    }
    if !call.state.has(terms.grantee) {
        return Err(Denial::NoSuchInstitution);
    }
    let id = GrantId(call.body.0);
    let early = early_revokers(call, &id, [account, *signer]);
    let grant = GrantState {
        account,
        terms: terms.clone(),
        granted_height: call.block.height,
        used: 0,
        delivered: 0,
        revocation: (!early.is_empty()).then(|| now(call)),
        erased_height: None,
        signer: *signer,
        ratified: false,
        hold: None,
    };
    let trails = parties(&grant);
    let delegation = terms.delegation.map(ObjectRef::from);
    let granted = Outcome::default().write(id, &grant).event(
        EventKind::Granted,
        id,
        trails.into_iter().chain(delegation),
    );
    if early.is_empty() {
        return Ok(granted);
    }
    let forgotten = early.iter().fold(granted, |outcome, (id, account)| outcome.write(*id, account));
    Ok(forgotten.event(EventKind::Revoked, id, trails))
}

/// Those who revoked this grant before it came, without that memory.
fn early_revokers(call: &Call, grant: &GrantId, persons: [AccountId; 2]) -> BTreeMap<AccountId, Account> {
    let revoked = |id: AccountId| {
        let mut account = person(call, &id).expect("who signs a grant, and for whom, exists");
        take_early(&mut account, grant, call.block.time).then_some((id, account))
    };
    persons.into_iter().filter_map(revoked).collect()
}

/// The trails of a grant's parties.
fn parties(grant: &GrantState) -> [ObjectRef; 3] {
    [grant.terms.grantee.into(), grant.account.into(), grant.signer.into()]
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

/// Withdraws (R9): its owner, or the delegate who signed it. A grant that is not here yet is remembered for as
/// long as it could still come. Whatever became of the author's account, withdrawing takes nothing from her.
pub(crate) fn revoke(call: &Call, person: &AccountId, revoke: &Revoke) -> Result<Outcome, Denial> {
    let Some(grant) = call.state.get::<GrantState>(revoke.grant) else {
        return revoke_early(call, person, revoke.grant);
    };
    if grant.account != *person && grant.signer != *person {
        return Err(Denial::NotTheGrantor);
    }
    if grant.revocation.is_some() {
        return Err(Denial::AlreadyRevoked);
    }
    let trails = parties(&grant);
    let grant = GrantState { revocation: Some(now(call)), ..grant };
    let revoked =
        Outcome::default().write(revoke.grant, &grant).event(EventKind::Revoked, revoke.grant, trails);
    if grant.erasure_due(call.parameters).is_none() {
        return Ok(revoked);
    }
    Ok(revoked.event(EventKind::ErasureDue, revoke.grant, trails))
}

fn revoke_early(call: &Call, person: &AccountId, grant: GrantId) -> Result<Outcome, Denial> {
    let mut account = author(call, person);
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

fn now(call: &Call) -> Revocation {
    Revocation { height: call.block.height, time: call.block.time }
}
