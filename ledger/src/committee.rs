//! Who has a say in a change, and whether enough have approved it. What the change does is not asked here.
//!
//! Who is among the institutions, who votes, who connects, and the bounds that all share, is for the institutions
//! whose validators vote: with more than two thirds of the power, the same that a block needs. What data may be
//! used for is not theirs: the committee that the policy in force names decides on the next policy (R10), and its
//! members, with the item's source, on grading down (R21).

use assent_proto::ObjectRef;
use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::ValidatorSet;

use crate::apply::Call;
use crate::institutions;

/// Whether an institution may propose and approve a change.
pub(crate) fn has_say(call: &Call, by: &InstitutionId, change: &Change) -> Result<(), Denial> {
    if !institutions::is_active(call.state, by) {
        return Err(Denial::InstitutionSuspended);
    }
    match change {
        Change::Validators(_) | Change::Nodes(_) | Change::Parameters(_) | Change::Protocol(_) => {
            votes(call, by)
        }
        Change::Institution(change) => {
            votes(call, by)?;
            // Nobody has a say in what itself may do (R10).
            let own = change.institution == *by && institutions::widens(call.state, change);
            if own { Err(Denial::SameInstitution) } else { Ok(()) }
        }
        Change::Policy(_) if on_committee(call, by) => Ok(()),
        Change::Policy(_) => Err(Denial::NotOnTheCommittee),
        Change::Grading(c) if source(call, c)? == *by || on_committee(call, by) => Ok(()),
        Change::Grading(_) => Err(Denial::NotOnTheCommittee),
    }
}

/// Whether institutions, each of which has a say, are enough to decide.
pub(crate) fn is_enough(call: &Call, change: &Change, approvals: &[InstitutionId]) -> bool {
    match change {
        Change::Validators(_)
        | Change::Nodes(_)
        | Change::Parameters(_)
        | Change::Institution(_)
        | Change::Protocol(_) => is_quorum(call, approvals),
        Change::Policy(_) => is_committee(call, approvals),
        // Two approvals: the source's, and that of another on the committee.
        Change::Grading(c) => source(call, c).is_ok_and(|source| {
            approvals.contains(&source) && approvals.iter().any(|a| *a != source && on_committee(call, a))
        }),
    }
}

fn votes(call: &Call, by: &InstitutionId) -> Result<(), Denial> {
    let own = voting(call).validators.iter().any(|v| v.institution == *by);
    if own { Ok(()) } else { Err(Denial::NotAValidatorsInstitution) }
}

fn is_quorum(call: &Call, approvals: &[InstitutionId]) -> bool {
    let set = voting(call);
    let power = set.validators.iter().filter(|v| approvals.contains(&v.institution));
    set.is_quorum(power.map(|v| u64::from(v.power)).sum())
}

fn voting(call: &Call) -> ValidatorSet {
    let validators: Validators =
        call.state.get(ObjectRef::VALIDATORS).expect("the founding state holds the validators");
    validators.at(call.block.height).clone()
}

fn on_committee(call: &Call, by: &InstitutionId) -> bool {
    let institution = call.author(by);
    call.policy.committee.roles.iter().any(|role| institution.has(*role))
}

/// So many institutions as the policy in force says, each of its roles among them.
fn is_committee(call: &Call, approvals: &[InstitutionId]) -> bool {
    let Committee { roles, approvals: least } = &call.policy.committee;
    let institutions: Vec<_> = approvals.iter().map(|a| call.author(a)).collect();
    institutions.len() as u64 >= u64::from(*least)
        && roles.iter().all(|role| institutions.iter().any(|i| i.has(*role)))
}

fn source(call: &Call, c: &Classify) -> Result<InstitutionId, Denial> {
    call.state.get::<Item>(c.item).map(|item| item.custodian).ok_or(Denial::NoSuchItem)
}
