//! Who persons are to the ledger: enrolment, and the keys that sign for an account (R16, R18). Whether a
//! transaction's signatures are of such keys is for `check`; what persons authorize is for `consent`.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Account, Institution, Recovery, Role};
use assent_proto::transaction::{Enrol, Recover, RotateKey, Standing, VetoRecovery};

use crate::apply::Call;
use crate::outcome::Outcome;

/// Opens an account. Only a bureau has seen the person's papers.
pub(crate) fn enrol(call: &Call, by: &InstitutionId, enrol: &Enrol) -> Result<Outcome, Denial> {
    if !call.author(by).has(Role::Bureau) {
        return Err(Denial::NotPermittedRole);
    }
    if !call.state.has(enrol.custodian) {
        return Err(Denial::NoSuchInstitution);
    }
    let id = AccountId(call.body.0);
    let account = Account {
        enroller: *by,
        custodian: enrol.custodian,
        algorithm: enrol.algorithm,
        key: enrol.key,
        enrolled_height: call.block.height,
        early: Default::default(),
        recovery: None,
        frozen: false,
        guardianships: assent_proto::List::empty(),
    };
    Ok(Outcome::default().write(id, &account).event(EventKind::Enrolled, id, [enrol.custodian.into()]))
}

/// An account as it stands at the block's time: what time alone does to a recovery is done.
pub(crate) fn person(call: &Call, id: &AccountId) -> Option<Account> {
    call.state.get(*id).map(|account| settled(account, call.block.time))
}

/// The account of the person who asks.
pub(crate) fn author(call: &Call, id: &AccountId) -> Account {
    person(call, id).expect("the author of an admitted transaction exists")
}

/// A recovery that is ready has replaced the key once its delay is over; one that is not is forgotten.
fn settled(mut account: Account, time: TimeMs) -> Account {
    match account.recovery.take() {
        Some(r) if r.ready_at.is_some_and(|at| at <= time) => replaced(account, &r),
        Some(r) if r.ready_at.is_none() && r.until < time => account,
        recovery => Account { recovery, ..account },
    }
}

fn replaced(account: Account, recovery: &Recovery) -> Account {
    Account { algorithm: recovery.algorithm, key: recovery.key, recovery: None, frozen: false, ..account }
}

/// While two claim an account, whoever holds its key can withdraw by it, and give nothing.
pub(crate) fn unchallenged(account: &Account) -> Result<(), Denial> {
    if account.frozen || account.recovery.is_some() { Err(Denial::AccountFrozen) } else { Ok(()) }
}

/// Replaces the author's key. Not while somebody says that it was lost: a thief could shake off every
/// recovery so, and the veto, which freezes, is the answer to a false one.
pub(crate) fn rotate(call: &Call, person: &AccountId, to: &RotateKey) -> Result<Outcome, Denial> {
    let account = author(call, person);
    unchallenged(&account)?;
    let account = Account { algorithm: to.algorithm, key: to.key, ..account };
    Ok(Outcome::default().write(*person, &account).event(EventKind::KeyRotated, *person, []))
}

/// Ends a recovery while its delay runs. Whoever holds the old key may be its thief, so that it is worth
/// nothing either from now on; and he cannot veto what institutions saw across a counter.
pub(crate) fn veto(call: &Call, person: &AccountId, veto: &VetoRecovery) -> Result<Outcome, Denial> {
    let account = author(call, person);
    if account.frozen {
        return Err(Denial::AccountFrozen);
    }
    let recovery = account.recovery.as_ref().filter(|r| r.key == veto.key).ok_or(Denial::NoRecovery)?;
    let approvers: Vec<_> = recovery.approvals.iter().map(|i| (*i).into()).collect();
    let account = Account { recovery: None, frozen: true, ..account };
    Ok(Outcome::default().write(*person, &account).event(EventKind::RecoveryVetoed, *person, approvers))
}

/// Says that an account's owner has lost her key and holds another. So many institutions as the parameters
/// ask for replace it: after a delay in which the old key can veto, or at once when they saw her in person.
pub(crate) fn recover(call: &Call, by: &InstitutionId, asked: &Recover) -> Result<Outcome, Denial> {
    if !vouches(&call.author(by)) {
        return Err(Denial::NotPermittedRole);
    }
    let account = person(call, &asked.account).ok_or(Denial::NoSuchAccount)?;
    match (account.frozen, asked.in_person) {
        (true, false) => return Err(Denial::AccountFrozen),
        (false, true) => return Err(Denial::AccountNotFrozen),
        _ => {}
    }
    let recovery = joined(call, by, asked, &account)?;
    let (id, enroller, ready) = (asked.account, account.enroller, recovery.ready_at.is_some());
    let account = if ready && recovery.in_person {
        replaced(account, &recovery)
    } else {
        Account { recovery: Some(recovery), ..account }
    };
    let told = |outcome: Outcome, kind| outcome.event(kind, id, [enroller.into()]);
    let approved = told(Outcome::default().write(id, &account), EventKind::RecoveryApproved);
    Ok(if ready { told(approved, EventKind::RecoveryReady) } else { approved })
}

/// The recovery with one more institution's word, ready if that was the last.
fn joined(call: &Call, by: &InstitutionId, asked: &Recover, account: &Account) -> Result<Recovery, Denial> {
    let recovery = account.recovery.clone().unwrap_or_else(|| begun(call, asked));
    if recovery.approvals.contains(by) {
        return Err(Denial::AlreadyApproved);
    }
    if recovery.ready_at.is_some() || (recovery.algorithm, recovery.key) != (asked.algorithm, asked.key) {
        return Err(Denial::OtherRecovery);
    }
    let mut approvals = recovery.approvals.into_vec();
    // The word of an institution that was suspended since is worth nothing.
    approvals.retain(|i| counts(call, i));
    approvals.push(*by);
    let enough = approvals.len() >= call.parameters.recovery_approvals as usize;
    if enough && !approvals.contains(&account.enroller) && counts(call, &account.enroller) {
        // Strangers to the person cannot take her account: the last seat is its enroller's while that can speak.
        return Err(Denial::NotPermittedRole);
    }
    let delay = if asked.in_person { 0 } else { call.parameters.recovery_delay_ms };
    Ok(Recovery {
        approvals: approvals.try_into().map_err(|_| Denial::OtherRecovery)?,
        ready_at: enough.then(|| call.block.time.plus(delay)),
        ..recovery
    })
}

fn begun(call: &Call, asked: &Recover) -> Recovery {
    Recovery {
        algorithm: asked.algorithm,
        key: asked.key,
        in_person: asked.in_person,
        approvals: Default::default(),
        until: call.block.time.plus(call.parameters.recovery_delay_ms),
        ready_at: None,
    }
}

/// Whose word on a person counts: of institutions that see her papers.
fn vouches(institution: &Institution) -> bool {
    institution.standing == Standing::Active
        && (institution.has(Role::Bureau) || institution.has(Role::Hospital))
}

fn counts(call: &Call, id: &InstitutionId) -> bool {
    call.state.get::<Institution>(*id).is_some_and(|i| vouches(&i))
}
