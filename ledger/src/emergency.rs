//! Uses in an emergency and their duties (R17): who may use so, releases in an outage that are anchored
//! afterwards, the review, and that the person is told.

use assent_proto::List;
use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;

use crate::access::{Ask, permit_trails};
use crate::apply::Call;
use crate::outcome::Outcome;

/// Whether the requester is on the roster, now or when the records were released, and has fulfilled the duties
/// of its earlier emergencies. What happened in an outage is told whatever else is overdue; but at most so many
/// wait at a time.
pub(crate) fn may_use(ask: &Ask, released_at: Option<TimeMs>) -> Result<(), Denial> {
    let (now, requester) = (ask.call.block.time, &ask.requester);
    let at = released_at.unwrap_or(now);
    if requester.rostered_until.is_none_or(|until| at > until) {
        return Err(Denial::NotRostered);
    }
    if released_at.is_none() && requester.emergencies.iter().any(|e| is_overdue(e, now)) {
        return Err(Denial::EmergencyDutyOverdue);
    }
    if requester.emergencies.len() >= EMERGENCIES_MAX {
        return Err(Denial::TooManyEmergencies);
    }
    Ok(())
}

/// The most uses of an institution that wait for review or notice.
const EMERGENCIES_MAX: usize = List::<OpenEmergency, 16>::MAX;

fn is_overdue(open: &OpenEmergency, now: TimeMs) -> bool {
    [open.review_by, open.notify_by].into_iter().flatten().any(|by| by < now)
}

/// Opens the duties of a use that is permitted, or was made in an outage.
pub(crate) fn open(
    call: &Call,
    outcome: Outcome,
    id: &PermitId,
    permit: &Permit,
    requester: Institution,
    released_at: Option<TimeMs>,
) -> Outcome {
    let reason = permit.emergency.expect("an emergency is the basis of a request that names it");
    let deadline = released_at.map(|at| at.plus(call.parameters.emergency_anchor_ms));
    let missed = deadline.filter(|deadline| call.block.time > *deadline);
    let emergency = Emergency {
        requester: permit.requester,
        reason,
        time: call.block.time,
        released_at,
        late: missed.is_some(),
        verdict: None,
        reviewer: None,
        notified_height: None,
    };
    let kind = match (released_at, missed) {
        (None, _) => EventKind::EmergencyOpened,
        (Some(_), None) => EventKind::EmergencyAnchored,
        (Some(_), Some(_)) => EventKind::EmergencyAnchoredLate,
    };
    let object = ObjectRef::emergency(*id);
    outcome
        .write(object, &emergency)
        .write(permit.requester, &with_duties(requester, duties(call, id, missed)))
        .event(kind, object, permit_trails(call, id, permit))
}

/// Of a release that was anchored late, both are overdue from the deadline on that it missed.
fn duties(call: &Call, permit: &PermitId, missed: Option<TimeMs>) -> OpenEmergency {
    let by = |ms| Some(missed.unwrap_or_else(|| call.block.time.plus(ms)));
    let Parameters { emergency_review_ms, emergency_notice_ms, .. } = call.parameters;
    OpenEmergency {
        permit: *permit,
        review_by: by(*emergency_review_ms),
        notify_by: by(*emergency_notice_ms),
    }
}

fn with_duties(mut requester: Institution, duties: OpenEmergency) -> Institution {
    let mut open = std::mem::take(&mut requester.emergencies).into_vec();
    open.push(duties);
    requester.emergencies = open.try_into().expect("fewer than the most are open");
    requester
}

/// Tells of a release in an outage (R17). It is decided like a request at the time of the release.
pub(crate) fn anchor(call: &Call, by: &InstitutionId, a: &AnchorEmergency) -> Result<Outcome, Denial> {
    let request = asked(a);
    let ask = Ask::after_outage(call, by, (&a.requester, &request), a.released_at)?;
    ask.decide()?;
    if call.version < ONCE_SINCE {
        return Ok(ask.permit());
    }
    let release = ObjectRef::release(a);
    if call.state.has(release) {
        return Err(Denial::AlreadyAnchored);
    }
    Ok(ask.permit().write(release, &Release { permit: PermitId(call.body.0) }))
}

/// The protocol version since which a release is anchored, and notice of a use by order given, once: before, either
/// could be told again, and be counted twice by who reads the trails.
const ONCE_SINCE: u32 = 2;

/// The request that would have been made.
fn asked(a: &AnchorEmergency) -> RequestAccess {
    RequestAccess {
        grant: None,
        item: a.item,
        account: Some(a.account),
        case: None,
        purpose: Purpose::EmergencyTreatment,
        action: a.action,
        output: a.output,
        records: a.records.clone(),
        staff: a.staff,
        person: None,
        emergency: Some(a.reason),
        order: None,
    }
}

/// The regulator's verdict; nobody reviews itself (R10).
pub(crate) fn review(call: &Call, by: &InstitutionId, r: &ReviewEmergency) -> Result<Outcome, Denial> {
    if !call.author(by).has(Role::Regulator) {
        return Err(Denial::NotPermittedRole);
    }
    let emergency = of(call, &r.permit).ok_or(Denial::NoSuchEmergency)?;
    if emergency.requester == *by {
        return Err(Denial::SameInstitution);
    }
    if emergency.verdict.is_some() {
        return Err(Denial::AlreadyReviewed);
    }
    let emergency = Emergency { verdict: Some(r.verdict), reviewer: Some(*by), ..emergency };
    let reviewed = |open: &mut OpenEmergency| open.review_by = None;
    Ok(fulfilled(call, &r.permit, &emergency, EventKind::EmergencyReviewed, reviewed))
}

/// The requester has told the person: of an emergency, once; of a use by order, as soon as the order lets it.
pub(crate) fn notify(call: &Call, by: &InstitutionId, n: &NotifyPerson) -> Result<Outcome, Denial> {
    let permit: Permit = call.state.get(n.permit).ok_or(Denial::NoSuchPermit)?;
    if permit.requester != *by {
        return Err(Denial::NotTheRequester);
    }
    match of(call, &n.permit) {
        Some(emergency) => notify_of_emergency(call, n, emergency),
        None => notify_of_order(call, n, &permit),
    }
}

fn notify_of_emergency(call: &Call, n: &NotifyPerson, emergency: Emergency) -> Result<Outcome, Denial> {
    if emergency.notified_height.is_some() {
        return Err(Denial::AlreadyNotified);
    }
    let emergency = Emergency { notified_height: Some(call.block.height), ..emergency };
    let told = |open: &mut OpenEmergency| open.notify_by = None;
    Ok(fulfilled(call, &n.permit, &emergency, EventKind::PersonNotified, told))
}

/// The permit's trail tells that notice was given, and since version 2 the permit itself, so that it is given once.
fn notify_of_order(call: &Call, n: &NotifyPerson, permit: &Permit) -> Result<Outcome, Denial> {
    let due = permit.order.is_some() && crate::access::permit_person(call, permit).is_some();
    if !due {
        return Err(Denial::NoNoticeDue);
    }
    let trails = permit_trails(call, &n.permit, permit);
    let told = |outcome: Outcome| outcome.event(EventKind::PersonNotified, n.permit, trails);
    if call.version < ONCE_SINCE {
        return Ok(told(Outcome::default()));
    }
    if permit.notified_height.is_some() {
        return Err(Denial::AlreadyNotified);
    }
    let permit = Permit { notified_height: Some(call.block.height), ..permit.clone() };
    Ok(told(Outcome::default().write(n.permit, &permit)))
}

fn of(call: &Call, permit: &PermitId) -> Option<Emergency> {
    call.state.get(ObjectRef::emergency(*permit))
}

/// A duty is done: it leaves the requester's list, and the use with it once none is left.
fn fulfilled(
    call: &Call,
    id: &PermitId,
    emergency: &Emergency,
    kind: EventKind,
    done: impl Fn(&mut OpenEmergency),
) -> Outcome {
    let permit: Permit = call.state.get(*id).expect("an emergency's permit exists");
    let mut requester: Institution = call.state.get(permit.requester).expect("institutions stay");
    let mut open = std::mem::take(&mut requester.emergencies).into_vec();
    open.iter_mut().filter(|e| e.permit == *id).for_each(done);
    open.retain(|e| e.review_by.is_some() || e.notify_by.is_some());
    requester.emergencies = open.try_into().expect("entries were only dropped");
    let object = ObjectRef::emergency(*id);
    Outcome::default().write(object, emergency).write(permit.requester, &requester).event(
        kind,
        object,
        permit_trails(call, id, &permit),
    )
}
