//! Whether a transaction may be in a block at all: decided from its bytes and the state before the block,
//! never from its neighbours. What the rules then say to it is for the other modules.

use assent_proto::code::Invalid;
use assent_proto::envelope::VerifiedTx;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::{Account, Institution, ObjectRef, Parameters, Validators};
use assent_proto::transaction::{Action, Author, Body, Capacity};

use crate::overlay::Overlay;
use crate::{ReplayWindow, State};

/// Validity against the state before the block, in a block of this time, by the protocol version in force at its
/// height.
///
/// A refused transaction makes its block invalid; a node that is handed one answers with the code. Its
/// signatures hold already and it is for this chain: only [`assent_proto::envelope::verify`] makes a
/// [`VerifiedTx`].
pub fn check(
    state: &State,
    window: &ReplayWindow,
    parameters: &Parameters,
    version: u32,
    time: TimeMs,
    tx: &VerifiedTx,
) -> Result<(), Invalid> {
    admit(&Overlay::over(state), window, parameters, version, time, tx)
}

/// The same against an overlay in which nothing has changed yet: a block's transactions have few authors.
pub(crate) fn admit(
    state: &Overlay,
    window: &ReplayWindow,
    parameters: &Parameters,
    version: u32,
    time: TimeMs,
    tx: &VerifiedTx,
) -> Result<(), Invalid> {
    if tx.body().since() > version {
        return Err(Invalid::NotYetActive);
    }
    timely(parameters, time, tx.body())?;
    if window.contains(&tx.body_id(), tx.body().expires_at) {
        return Err(Invalid::Replay);
    }
    fits(tx.body())?;
    signatures_counted(tx)?;
    author_signed(state, time, tx.body(), &tx.signers()[0])?;
    second_signed(state, time, tx)
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

/// What persons do and institutions do not: no institution's key can authorize (R2). Either of both kinds
/// may end a delegation.
fn fits(body: &Body) -> Result<(), Invalid> {
    let person = matches!(body.author, Author::Account(_));
    let fits = match body.action {
        Action::Grant(_)
        | Action::Revoke(_)
        | Action::RotateKey(_)
        | Action::VetoRecovery(_)
        | Action::Ratify(_) => person,
        Action::EndDelegation(_) => true,
        _ => !person,
    };
    if fits { Ok(()) } else { Err(Invalid::WrongKey) }
}

fn signatures_counted(tx: &VerifiedTx) -> Result<(), Invalid> {
    let asked = 1 + usize::from(Second::of(&tx.body().action).is_some());
    if tx.signers().len() == asked { Ok(()) } else { Err(Invalid::MissingSignature) }
}

fn author_signed(state: &Overlay, time: TimeMs, body: &Body, signer: &PublicKey) -> Result<(), Invalid> {
    let signs = signs_for(state, time, &body.author, signer).ok_or(Invalid::UnknownAuthor)?;
    let reports = match &body.author {
        Author::Institution(id) if matches!(body.action, Action::ReportEquivocation(_)) => {
            votes_for(state, id, signer)
        }
        _ => false,
    };
    if signs || reports { Ok(()) } else { Err(Invalid::WrongKey) }
}

/// Whether the key is one by which this author may sign now. None where there is no such author.
pub(crate) fn signs_for(state: &Overlay, time: TimeMs, author: &Author, key: &PublicKey) -> Option<bool> {
    match author {
        Author::Account(id) => account(state, id).map(|a| a.key_at(time) == *key),
        Author::Institution(id) => state.get::<Institution>(*id).map(|i| operates(&i, time, key)),
    }
}

fn operates(institution: &Institution, time: TimeMs, key: &PublicKey) -> bool {
    institution.keys.iter().any(|k| k.key == *key && (k.not_before..=k.not_after).contains(&time))
}

/// A node holds no operator's key: what it saw of others' contradictions it reports by the key that it votes
/// with.
fn votes_for(state: &Overlay, institution: &InstitutionId, key: &PublicKey) -> bool {
    let validators: Validators =
        state.get(ObjectRef::VALIDATORS).expect("the founding state holds the validators");
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    validators
        .current
        .validators
        .iter()
        .chain(pending)
        .any(|v| v.key == *key && v.institution == *institution)
}

/// Who signs besides the author.
pub(crate) enum Second {
    /// A key that comes: its owner proves to have it.
    New(PublicKey),
    /// A person: she asks under her name, delegates, or takes on a guardianship.
    Person(AccountId),
    /// An institution, by an operator's key.
    Institution(InstitutionId),
}

impl Second {
    /// Who has to, if anybody.
    pub(crate) fn of(action: &Action) -> Option<Second> {
        if let Some(key) = action.new_key() {
            return Some(Second::New(*key));
        }
        match action {
            Action::RequestAccess(r) => r.person.map(Second::Person),
            Action::Delegate(d) if d.capacity == Capacity::Guardian => Some(Second::Person(d.delegate)),
            Action::Delegate(d) => Some(Second::Person(d.ward)),
            Action::AnchorEmergency(a) => Some(Second::Institution(a.requester)),
            Action::IssueOrder(o) => Some(Second::Institution(o.cosigner)),
            _ => None,
        }
    }
}

fn second_signed(state: &Overlay, time: TimeMs, tx: &VerifiedTx) -> Result<(), Invalid> {
    let Some(second) = Second::of(&tx.body().action) else { return Ok(()) };
    let signer = &tx.signers()[1];
    let holds = match second {
        Second::New(_) if !tx.new_key_is_sound() => return Err(Invalid::BadKey),
        Second::New(key) => key == *signer,
        Second::Person(id) => account(state, &id).is_some_and(|a| a.key_at(time) == *signer),
        Second::Institution(id) => state.get::<Institution>(id).is_some_and(|i| operates(&i, time, signer)),
    };
    if holds { Ok(()) } else { Err(Invalid::WrongKey) }
}

fn account(state: &Overlay, id: &AccountId) -> Option<Account> {
    state.get(*id)
}
