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
    let permit: Permit = call.state.get(d.permit).ok_or(Denial::NoSuchPermit)?;
    if permit.custodian != *by {
        return Err(Denial::NotTheCustodian);
    }
    let grant =
        permit.grant.map(|id| (id, call.state.get::<GrantState>(id).expect("the grant of a permit exists")));
    may_deliver(call, d, &permit, grant.as_ref().map(|(_, g)| g))?;
    let trails = permit_trails(&d.permit, &permit);
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

/// The permit lived at the release height, and what was released is what was permitted, once.
fn may_deliver(call: &Call, d: &Deliver, permit: &Permit, grant: Option<&GrantState>) -> Result<(), Denial> {
    if d.released_height < permit.height || d.released_height >= call.block.height {
        return Err(Denial::ReleaseHeightUnknown);
    }
    let revoked = grant.and_then(|g| g.revocation.as_ref()).is_some_and(|r| r.height <= d.released_height);
    if revoked || call.block.time > permit.expires_at {
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

/// Ends an erasure duty (R9).
pub(crate) fn attest_erasure(call: &Call, by: &InstitutionId, a: &AttestErasure) -> Result<Outcome, Denial> {
    let grant: GrantState = call.state.get(a.grant).ok_or(Denial::NoSuchGrant)?;
    if grant.terms.grantee != *by {
        return Err(Denial::OtherGrantee);
    }
    if grant.erasure_due(call.parameters).is_none() {
        return Err(Denial::NoErasureDuty);
    }
    let grant = GrantState { erased_height: Some(call.block.height), ..grant };
    let trails = [grant.account.into()];
    Ok(Outcome::default().write(a.grant, &grant).event(EventKind::ErasureAttested, a.grant, trails))
}


/// Gives back the use that a permit consumed.
pub(crate) fn not_delivered(_: &Call, _: &InstitutionId, _: &NotDelivered) -> Result<Outcome, Denial> {
    todo!()
}
