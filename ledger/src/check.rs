//! Whether a transaction may be in a block at all: decided from its bytes and the state before the block,
//! never from its neighbours. What the rules then say to it is for the other modules.

use assent_proto::code::Invalid;
use assent_proto::envelope::VerifiedTx;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::{Account, Institution, Parameters};
use assent_proto::transaction::{Action, Author, Body};

use crate::{ReplayWindow, State, read};

/// Validity against the state before the block, in a block of this time.
///
/// A refused transaction makes its block invalid; a node that is handed one answers with the code. Its
/// signatures hold already and it is for this chain: only [`assent_proto::envelope::verify`] makes a
/// [`VerifiedTx`].
pub fn check(
    state: &State,
    window: &ReplayWindow,
    parameters: &Parameters,
    time: TimeMs,
    tx: &VerifiedTx,
) -> Result<(), Invalid> {
    timely(parameters, time, tx.body())?;
    if window.contains(&tx.body_id(), tx.body().expires_at) {
        return Err(Invalid::Replay);
    }
    fits(tx.body())?;
    signatures_counted(tx)?;
    author_signed(state, time, tx.body(), &tx.signers()[0])?;
    second_signed(state, tx)
}

fn timely(parameters: &Parameters, time: TimeMs, body: &Body) -> Result<(), Invalid> {
    if body.expires_at < time {
        return Err(Invalid::Expired);
    }
    if body.expires_at > time.plus(parameters.transaction_life_ms) {
        return Err(Invalid::TooFarAhead);
    }
    Ok(())
}

/// Persons grant and revoke, institutions do everything else: no institution's key can authorize (R2).
fn fits(body: &Body) -> Result<(), Invalid> {
    let persons = matches!(body.action, Action::Grant(_) | Action::Revoke(_));
    if persons == matches!(body.author, Author::Account(_)) { Ok(()) } else { Err(Invalid::WrongKey) }
}

fn signatures_counted(tx: &VerifiedTx) -> Result<(), Invalid> {
    let asked = match &tx.body().action {
        Action::Enrol(_) => 2,
        Action::RequestAccess(r) if r.person.is_some() => 2,
        _ => 1,
    };
    if tx.signers().len() == asked { Ok(()) } else { Err(Invalid::MissingSignature) }
}

fn author_signed(state: &State, time: TimeMs, body: &Body, signer: &PublicKey) -> Result<(), Invalid> {
    let current = match &body.author {
        Author::Account(id) => account(state, id).ok_or(Invalid::UnknownAuthor)?.key == *signer,
        Author::Institution(id) => {
            let institution: Institution = read(state, *id).ok_or(Invalid::UnknownAuthor)?;
            institution.keys.iter().any(|k| k.key == *signer && (k.not_before..=k.not_after).contains(&time))
                || (matches!(body.action, Action::ReportEquivocation(_)) && votes_for(state, id, signer))
        }
    };
    if current { Ok(()) } else { Err(Invalid::WrongKey) }
}

/// A node holds no operator's key: what it saw of others' contradictions it reports by the key that it votes
/// with.
fn votes_for(state: &State, institution: &InstitutionId, key: &PublicKey) -> bool {
    let validators = crate::validators(state);
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    validators
        .current
        .validators
        .iter()
        .chain(pending)
        .any(|v| v.key == *key && v.institution == *institution)
}

/// The new key proves that its owner has it; the real-name requester signs that she asks.
fn second_signed(state: &State, tx: &VerifiedTx) -> Result<(), Invalid> {
    let owner = match &tx.body().action {
        Action::Enrol(e) => {
            e.key.check().map_err(|_| Invalid::BadKey)?;
            e.key
        }
        Action::RequestAccess(r) => match r.person {
            Some(person) => account(state, &person).ok_or(Invalid::WrongKey)?.key,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    if tx.signers()[1] == owner { Ok(()) } else { Err(Invalid::WrongKey) }
}

fn account(state: &State, id: &AccountId) -> Option<Account> {
    read(state, *id)
}
