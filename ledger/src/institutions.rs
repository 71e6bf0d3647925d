//! Who institutions are: admission, standing, keys (R18). Who decides on them is for `committee` to say.
//!
//! That no two institutions share a key is asked of the founding document, and later of nobody: there is no index
//! of keys, and a shared one lets its holder do no more than it could with two.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::{PublicKey, check_encryption_key};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Hash, List};

use crate::apply::Call;
use crate::governance::validators;
use crate::outcome::Outcome;
use crate::overlay::Overlay;

/// Whether an institution exists and may act.
pub(crate) fn is_active(state: &Overlay, id: &InstitutionId) -> bool {
    state.get::<Institution>(*id).is_some_and(|i| i.standing == Standing::Active)
}

// ---- what others decide on it

/// The institution as it is once a change of it is decided, and what that is called.
pub(crate) fn changed(
    state: &Overlay,
    height: Height,
    change: &ChangeInstitution,
) -> Result<(Institution, EventKind), Denial> {
    let before: Option<Institution> = state.get(change.institution);
    let after = as_decided(before.as_ref(), change).ok_or(Denial::BadInstitution)?;
    if let Some(record) = &change.record {
        is_sound(record)?;
        all_proved(before.as_ref(), record, &change.possessions)?;
    }
    if after.standing != Standing::Active && is_to_vote(state, height, &change.institution) {
        return Err(Denial::BadInstitution);
    }
    let kind = match (before.map(|b| b.standing), after.standing) {
        (Some(Standing::Suspended), Standing::Active) => EventKind::Reinstated,
        (Some(Standing::Active), Standing::Suspended) => EventKind::Suspended,
        (Some(Standing::Active | Standing::Suspended), Standing::Expelled) => EventKind::Expelled,
        _ => EventKind::Admitted,
    };
    Ok((after, kind))
}

/// Whether a change lets an institution do more than before, or answer to another law: nothing that it may have a
/// say in.
pub(crate) fn widens(state: &Overlay, change: &ChangeInstitution) -> bool {
    let Some(before) = state.get::<Institution>(change.institution) else { return false };
    let Some(after) = as_decided(Some(&before), change) else { return false };
    (before.standing != Standing::Active && after.standing == Standing::Active)
        || after.roles.iter().any(|role| !before.has(*role))
        || after.max_level > before.max_level
        || after.jurisdiction != before.jurisdiction
        || after.rostered_until > before.rostered_until
}

/// None for what is no change: nothing new, anything of whoever was expelled, an admission without a record or
/// of whoever may not act.
fn as_decided(before: Option<&Institution>, change: &ChangeInstitution) -> Option<Institution> {
    let standing = change.standing;
    let Some(before) = before else {
        let record = change.record.as_ref().filter(|_| standing == Standing::Active)?;
        return Some(described(record, standing, List::empty(), List::empty()));
    };
    let after = match &change.record {
        None => Institution { standing, ..before.clone() },
        Some(r) => described(r, standing, before.proposals.clone(), before.emergencies.clone()),
    };
    (before.standing != Standing::Expelled && after != *before).then_some(after)
}

fn described(
    record: &InstitutionRecord,
    standing: Standing,
    proposals: List<ProposalId, PROPOSALS_MAX>,
    emergencies: List<OpenEmergency, 16>,
) -> Institution {
    let InstitutionRecord { roles, keys, encryption_key, max_level, jurisdiction, rostered_until } =
        record.clone();
    Institution {
        roles,
        keys,
        encryption_key,
        max_level,
        jurisdiction,
        proposals,
        standing,
        rostered_until,
        emergencies,
    }
}

/// What a founding document asks of an institution is asked of one that comes later, too.
fn is_sound(record: &InstitutionRecord) -> Result<(), Denial> {
    let (mut roles, mut keys) = (BTreeSet::new(), BTreeSet::<Hash>::from([record.encryption_key]));
    let sound = !record.roles.is_empty()
        && record.roles.iter().all(|role| roles.insert(*role))
        && !record.keys.is_empty()
        && record.keys.iter().all(|k| is_sane(k) && keys.insert(k.key.0))
        && check_encryption_key(&record.encryption_key).is_ok()
        && (1..=999).contains(&record.jurisdiction);
    if sound { Ok(()) } else { Err(Denial::BadInstitution) }
}

fn is_sane(key: &OperatorKey) -> bool {
    key.key.check().is_ok() && key.not_before <= key.not_after
}

/// Each key by which it did not act before shows that its owner has it. The signatures hold, or the body would
/// not be here.
fn all_proved(
    before: Option<&Institution>,
    record: &InstitutionRecord,
    possessions: &[Possession],
) -> Result<(), Denial> {
    let known = |key: &PublicKey| before.is_some_and(|b| b.keys.iter().any(|k| k.key == *key));
    let proved = |key: &PublicKey| possessions.iter().any(|p| p.key == *key);
    let all = record.keys.iter().all(|k| known(&k.key) || proved(&k.key));
    if all { Ok(()) } else { Err(Denial::MissingPossession) }
}

/// Whether validators of it vote, or are decided to: they must be gone before it may not act any more, or the
/// chain could be left without whom it needs.
fn is_to_vote(state: &Overlay, height: Height, id: &InstitutionId) -> bool {
    let validators = validators(state);
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    validators.at(height).validators.iter().chain(pending).any(|v| v.institution == *id)
}

// ---- what it decides itself

/// An institution's keys come and go without anybody else; one that counts now is left (R18). A key that comes
/// signs from the next block on, one that goes to the end of this one: validity is against the state before it.
pub(crate) fn rotate_operator(
    call: &Call,
    by: &InstitutionId,
    r: &RotateOperator,
) -> Result<Outcome, Denial> {
    let institution = call.author(by);
    let keys = rotated(&institution.keys, r, call.block.time).ok_or(Denial::BadKeys)?;
    let institution = Institution { keys, ..institution };
    Ok(Outcome::default().write(*by, &institution).event(EventKind::OperatorRotated, *by, []))
}

fn rotated(before: &List<OperatorKey, 8>, r: &RotateOperator, now: TimeMs) -> Option<List<OperatorKey, 8>> {
    if r.add.is_none() && r.retire.is_none() {
        return None;
    }
    let has = |key: &PublicKey| before.iter().any(|k| k.key == *key);
    if r.retire.as_ref().is_some_and(|key| !has(key)) {
        return None;
    }
    if r.add.as_ref().is_some_and(|k| has(&k.key) || !is_sane(k) || k.not_after < now) {
        return None;
    }
    let stays = before.iter().filter(|k| r.retire.as_ref() != Some(&k.key));
    let keys: Vec<_> = stays.chain(&r.add).cloned().collect();
    let counts = keys.iter().any(|k| (k.not_before..=k.not_after).contains(&now));
    if counts { keys.try_into().ok() } else { None }
}
