//! What follows a permit: the release, or that there is none; and erasure after a revocation.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;

use crate::access::permit_trails;
use crate::apply::Call;
use crate::outcome::Outcome;

/// Joins a release to its permit (R3).
pub(crate) fn deliver(call: &Call, by: &InstitutionId, d: &Deliver) -> Result<Outcome, Denial> {
    let permit = own_permit(call, by, &d.permit)?;
    let grant = grant_of(call, &permit);
    may_deliver(call, d, &permit, grant.as_ref().map(|(_, g)| g))?;
    let trails = permit_trails(call, &d.permit, &permit);
    let permit = Permit { delivered_height: Some(d.released_height), ..permit };
    let outcome = Outcome::default().write(d.permit, &permit).event(
        EventKind::Delivered,
        d.permit,
        trails.iter().copied(),
    );
    let Some((id, grant)) = grant else { return Ok(outcome) };
    // Records released before a revocation that was recorded first open the duty now, even if an earlier
    // delivery's was attested already.
    let grant = GrantState { delivered: grant.delivered.saturating_add(1), erased_height: None, ..grant };
    let outcome = outcome.write(id, &grant);
    if grant.erasure_due(call.parameters).is_none() {
        return Ok(outcome);
    }
    Ok(outcome.event(EventKind::ErasureDue, id, trails))
}

/// A permit that is this custodian's to release on.
fn own_permit(call: &Call, by: &InstitutionId, id: &PermitId) -> Result<Permit, Denial> {
    let permit: Permit = call.state.get(*id).ok_or(Denial::NoSuchPermit)?;
    if permit.custodian == *by { Ok(permit) } else { Err(Denial::NotTheCustodian) }
}

fn grant_of(call: &Call, permit: &Permit) -> Option<(GrantId, GrantState)> {
    permit.grant.map(|id| (id, call.state.get(id).expect("the grant of a permit exists")))
}

/// The permit lived at the release height, and what was released is what was permitted, once.
fn may_deliver(call: &Call, d: &Deliver, permit: &Permit, grant: Option<&GrantState>) -> Result<(), Denial> {
    if d.released_height < permit.height || d.released_height >= call.block.height {
        return Err(Denial::ReleaseHeightUnknown);
    }
    let revoked = grant.and_then(|g| g.revocation.as_ref()).is_some_and(|r| r.height <= d.released_height);
    if revoked || permit.undelivered || is_over(call, permit) {
        return Err(Denial::PermitDead);
    }
    if permit.delivered_height.is_some() {
        return Err(Denial::AlreadyDelivered);
    }
    if (d.manifest, d.records) != (permit.manifest, permit.records) {
        return Err(Denial::ManifestMismatch);
    }
    Ok(())
}

fn is_over(call: &Call, permit: &Permit) -> bool {
    call.block.time > permit.expires_at
}

/// Gives back the use that a permit consumed, once and within the permit's life: nothing was released, and
/// nothing will be. Who releases to itself cannot say so: it has the records (R10).
pub(crate) fn not_delivered(call: &Call, by: &InstitutionId, n: &NotDelivered) -> Result<Outcome, Denial> {
    let permit = own_permit(call, by, &n.permit)?;
    if permit.requester == *by {
        return Err(Denial::SameInstitution);
    }
    if is_over(call, &permit) {
        return Err(Denial::PermitDead);
    }
    if permit.delivered_height.is_some() {
        return Err(Denial::AlreadyDelivered);
    }
    if permit.undelivered {
        return Err(Denial::AlreadyUndelivered);
    }
    let grant = grant_of(call, &permit);
    let trails = permit_trails(call, &n.permit, &permit);
    let permit = Permit { undelivered: true, ..permit };
    let outcome =
        Outcome::default().write(n.permit, &permit).event(EventKind::NotDelivered, n.permit, trails);
    Ok(match grant {
        Some((id, grant)) => outcome.write(id, &GrantState { used: grant.used.saturating_sub(1), ..grant }),
        None => outcome,
    })
}

/// Ends an erasure duty, or tells until when the law keeps what should be erased in storage (R9).
pub(crate) fn attest_erasure(call: &Call, by: &InstitutionId, a: &AttestErasure) -> Result<Outcome, Denial> {
    let grant: GrantState = call.state.get(a.grant).ok_or(Denial::NoSuchGrant)?;
    if grant.terms.grantee != *by {
        return Err(Denial::OtherGrantee);
    }
    if grant.erasure_due(call.parameters).is_none() {
        return Err(Denial::NoErasureDuty);
    }
    let (grant, kind) = match &a.hold {
        Some(hold) if hold.until <= call.block.time => return Err(Denial::BadTerms),
        Some(hold) => (GrantState { hold: Some(hold.clone()), ..grant }, EventKind::ErasureHeld),
        // What is erased is held no more: a hold that stayed would put off the duty of a later delivery.
        None => {
            let erased = GrantState { erased_height: Some(call.block.height), hold: None, ..grant };
            (erased, EventKind::ErasureAttested)
        }
    };
    let trails = [grant.account.into()];
    Ok(Outcome::default().write(a.grant, &grant).event(kind, a.grant, trails))
}
