//! Lineage: what was made of what (R24). Outputs are new ids, so the graph cannot have cycles.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Artifact, ObjectRef, Permit};
use assent_proto::transaction::{ActivityKind, Level, Product, RecordActivity, UseAction};

use crate::access::permit_person;
use crate::apply::Call;
use crate::outcome::Outcome;

/// Records an activity. One event tells it, about its first product; it joins the trails of the agent, of
/// every permit with its custodian and person, and of every product that went in or came out.
///
/// A revocation between the permit and this record does not refuse it: what was done must stay traceable.
pub(crate) fn record_activity(
    call: &Call,
    by: &InstitutionId,
    a: &RecordActivity,
) -> Result<Outcome, Denial> {
    if repeats(&a.permits) || repeats(&a.artifacts) || repeats(&a.excluded) {
        return Err(Denial::DuplicateRecord);
    }
    let mut trails = BTreeSet::new();
    let mut level = Level::None;
    for id in &a.permits {
        let permit = usable(call, by, a.kind, id)?;
        level = level.max(permit.level);
        trails.extend([ObjectRef::from(*id), permit.custodian.into()]);
        trails.extend(permit_person(call, &permit));
    }
    for id in &a.artifacts {
        level = level.max(own_artifact(call, by, id)?.level);
        trails.insert((*id).into());
    }
    new_products(call, level, &a.outputs)?;
    trails.extend(a.outputs.iter().map(|p| ObjectRef::from(p.id)));
    Ok(a.outputs
        .iter()
        .fold(Outcome::default(), |outcome, p| outcome.write(p.id, &artifact(call, by, a, p)))
        .event(EventKind::ActivityRecorded, a.outputs[0].id, trails))
}

fn repeats<T: Ord>(ids: &[T]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() < ids.len()
}

/// The author's own permit, whose records it has: delivered, or its own to begin with.
fn usable(call: &Call, by: &InstitutionId, kind: ActivityKind, id: &PermitId) -> Result<Permit, Denial> {
    let permit: Permit = call.state.get(*id).ok_or(Denial::NoSuchPermit)?;
    if permit.requester != *by {
        return Err(Denial::NotTheRequester);
    }
    if permit.delivered_height.is_none() && permit.custodian != *by {
        return Err(Denial::NotDelivered);
    }
    if !allows(permit.action, kind) {
        return Err(Denial::ActionNotPermitted);
    }
    Ok(permit)
}

/// Making new data needs a permit to compute or derive; reusing a result as it stands (R28) needs one to do
/// anything with it but pass it on.
fn allows(action: UseAction, kind: ActivityKind) -> bool {
    match kind {
        ActivityKind::Reuse => action != UseAction::Disclose,
        _ => matches!(action, UseAction::Compute | UseAction::Derive),
    }
}

fn own_artifact(call: &Call, by: &InstitutionId, id: &ArtifactId) -> Result<Artifact, Denial> {
    let artifact: Artifact = call.state.get(*id).ok_or(Denial::NoSuchArtifact)?;
    if artifact.agent == *by { Ok(artifact) } else { Err(Denial::NotTheMaker) }
}

/// Every product's id is new, and its level is at least that of all that went in.
fn new_products(call: &Call, inputs: Level, products: &[Product]) -> Result<(), Denial> {
    let mut seen = BTreeSet::new();
    for product in products {
        if call.state.has(product.id) || !seen.insert(product.id) {
            return Err(Denial::OutputExists);
        }
        if product.level < inputs {
            return Err(Denial::OutputLevelTooLow);
        }
    }
    Ok(())
}

fn artifact(call: &Call, by: &InstitutionId, a: &RecordActivity, product: &Product) -> Artifact {
    Artifact {
        activity: call.body,
        agent: *by,
        kind: a.kind,
        level: product.level,
        height: call.block.height,
    }
}
