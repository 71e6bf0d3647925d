//! Who may grant for another, and until when (R15). The grants themselves are `consent`'s; that those of an
//! ended delegation count as suspended is asked at each use.

use std::cmp::Reverse;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::field::List;
use assent_proto::ids::*;
use assent_proto::state::{Account, Delegation, Ended, GrantState, Institution, Role};
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::calendar::Quarter;
use crate::identity::{author, person, unchallenged};
use crate::outcome::Outcome;

/// The longest delegation: to the hundredth quarter after this one, 25 years.
const QUARTERS_MAX: u64 = 100;

/// Confirms that one account may grant for another.
///
/// Its depth is one: a grant names one delegation, whose delegate signs it. Whether the delegate is a ward is
/// read from her own account, which tells of her guardianships; whether the ward is somebody's delegate is not
/// looked for, as nothing can be granted through both.
pub(crate) fn delegate(call: &Call, by: &InstitutionId, asked: &Delegate) -> Result<Outcome, Denial> {
    if !consistent(asked) {
        return Err(Denial::BadTerms);
    }
    let ward = person(call, &asked.ward).ok_or(Denial::NoSuchAccount)?;
    let delegate = person(call, &asked.delegate).ok_or(Denial::NoSuchAccount)?;
    if !confirms(by, &call.author(by), asked, &ward) {
        return Err(Denial::NotPermittedRole);
    }
    unchallenged(if asked.capacity == Capacity::Guardian { &delegate } else { &ward })?;
    if !fit_end(call.block.time, asked.until) {
        return Err(Denial::DelegationEndUnfit);
    }
    if !guardianships(call, &delegate).is_empty() {
        return Err(Denial::DelegationChain);
    }
    let id = DelegationId(call.body.0);
    let trails = [asked.ward.into(), asked.delegate.into()];
    let confirmed = Outcome::default().write(id, &confirmed_by(by, asked));
    Ok(entered(call, id, asked, ward, confirmed).event(EventKind::Delegated, id, trails))
}

/// For oneself nobody delegates, nor to oneself; and something is delegated, each purpose once.
fn consistent(asked: &Delegate) -> bool {
    let purposes = &asked.purposes;
    let once = (1..purposes.len()).all(|i| !purposes[..i].contains(&purposes[i]));
    asked.capacity != Capacity::Own && asked.ward != asked.delegate && !purposes.is_empty() && once
}

/// Whoever enrolled the ward or holds her data knows her papers; a court may name a guardian to anybody.
fn confirms(by: &InstitutionId, institution: &Institution, asked: &Delegate, ward: &Account) -> bool {
    let knows = (institution.has(Role::Bureau) || institution.has(Role::Hospital))
        && (ward.enroller == *by || ward.custodian == *by);
    knows || (institution.has(Role::Court) && asked.capacity == Capacity::Guardian)
}

fn fit_end(now: TimeMs, until: TimeMs) -> bool {
    let end = Quarter::of(until);
    until > now && end.start == until && end.number <= Quarter::of(now).number + QUARTERS_MAX
}

fn confirmed_by(by: &InstitutionId, asked: &Delegate) -> Delegation {
    Delegation {
        ward: asked.ward,
        delegate: asked.delegate,
        capacity: asked.capacity,
        issuer: *by,
        document: asked.document,
        purposes: asked.purposes.clone(),
        until: asked.until,
        ended: None,
    }
}

/// The protocol version since which an account tells of all guardianships in force: before, of the one that lasts
/// longest, so that a ward whose other guardian was left seemed to be none.
const ALL_GUARDIANS_SINCE: u32 = 2;

/// Guardianships show in the ward's account. Of more than it holds, those that last longest; of two alike the later.
fn entered(call: &Call, id: DelegationId, asked: &Delegate, ward: Account, outcome: Outcome) -> Outcome {
    if asked.capacity != Capacity::Guardian {
        return outcome;
    }
    let most = if call.version < ALL_GUARDIANS_SINCE { 1 } else { List::<DelegationId, 8>::MAX };
    let mut guarded = guardianships(call, &ward);
    guarded.insert(0, (asked.until, id));
    guarded.sort_by_key(|(until, _)| Reverse(*until));
    let guarded: Vec<_> = guarded.into_iter().take(most).map(|(_, id)| id).collect();
    let guardianships = guarded.try_into().expect("cut to what fits");
    outcome.write(asked.ward, &Account { guardianships, ..ward })
}

/// An account's guardianships in force, each with its end: any of them makes a ward.
fn guardianships(call: &Call, account: &Account) -> Vec<(TimeMs, DelegationId)> {
    let in_force = |id: &DelegationId| {
        let delegation: Delegation = call.state.get(*id)?;
        delegation.is_in_force(call.block.time).then_some((delegation.until, *id))
    };
    account.guardianships.iter().filter_map(in_force).collect()
}

/// Whose a grant is: the signer's own, or that of the ward for whom she may sign it.
pub(crate) fn principal(call: &Call, signer: &AccountId, terms: &Grant) -> Result<AccountId, Denial> {
    let Some(id) = terms.delegation else {
        return if terms.capacity == Capacity::Own { Ok(*signer) } else { Err(Denial::BadTerms) };
    };
    let delegation: Delegation = call.state.get(id).ok_or(Denial::NoSuchDelegation)?;
    let hers = delegation.delegate == *signer;
    if !hers || delegation.capacity != terms.capacity || !delegation.purposes.contains(&terms.purpose) {
        return Err(Denial::NotTheDelegate);
    }
    if !delegation.is_in_force(call.block.time) {
        return Err(Denial::DelegationOver);
    }
    if !guardianships(call, &author(call, signer)).is_empty() {
        // She became a ward herself after it was confirmed.
        return Err(Denial::DelegationChain);
    }
    Ok(delegation.ward)
}

/// Ends a delegation before its time. Either of the two may, whatever became of her key's standing; what
/// they cannot say themselves an office says for them.
pub(crate) fn end(call: &Call, author: &Author, asked: &EndDelegation) -> Result<Outcome, Denial> {
    let delegation: Delegation = call.state.get(asked.delegation).ok_or(Denial::NoSuchDelegation)?;
    if !may_end(call, author, asked.cause, &delegation) {
        return Err(Denial::DelegationEndUnfit);
    }
    if !delegation.is_in_force(call.block.time) {
        return Err(Denial::AlreadyEnded);
    }
    let trails = [delegation.ward.into(), delegation.delegate.into()];
    let ended = Ended { cause: asked.cause, height: call.block.height, time: call.block.time };
    let delegation = Delegation { ended: Some(ended), ..delegation };
    let outcome = Outcome::default().write(asked.delegation, &delegation);
    Ok(outcome.event(EventKind::DelegationEnded, asked.delegation, trails))
}

fn may_end(call: &Call, author: &Author, cause: DelegationEnd, delegation: &Delegation) -> bool {
    match author {
        Author::Account(person) => {
            cause == DelegationEnd::Revoked && (delegation.ward == *person || delegation.delegate == *person)
        }
        Author::Institution(by) => {
            cause != DelegationEnd::Revoked && (delegation.issuer == *by || call.author(by).has(Role::Court))
        }
    }
}

/// The ward takes over what her delegate granted, once the delegation is over.
pub(crate) fn ratify(call: &Call, ward: &AccountId, asked: &Ratify) -> Result<Outcome, Denial> {
    unchallenged(&author(call, ward))?;
    let grant: GrantState = call.state.get(asked.grant).ok_or(Denial::NoSuchGrant)?;
    if grant.account != *ward {
        return Err(Denial::NotTheGrantor);
    }
    if !lapsed(call, &grant) {
        return Err(Denial::NothingToRatify);
    }
    let trails = [grant.terms.grantee.into(), grant.signer.into()];
    let grant = GrantState { ratified: true, ..grant };
    Ok(Outcome::default().write(asked.grant, &grant).event(EventKind::Ratified, asked.grant, trails))
}

/// Whether nothing but its delegation's end keeps a grant from holding.
fn lapsed(call: &Call, grant: &GrantState) -> bool {
    let Some(id) = grant.terms.delegation else { return false };
    let delegation: Delegation = call.state.get(id).expect("a grant's delegation exists");
    !delegation.is_in_force(call.block.time) && !grant.ratified && grant.revocation.is_none()
}
