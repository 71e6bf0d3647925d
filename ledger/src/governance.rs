//! What institutions decide together: who votes, who may connect, the bounds that all share, by which version of the
//! rules blocks are made, who is among them, what each use case may see, which item is graded down; and what follows when a validator contradicts itself.
//!
//! A change is decided once enough of those have approved it who have a say in it (`committee`). One function
//! ([`enact`]) judges a change, when it is proposed, when the last approval comes, and in a dry run
//! ([`preview`]): what it would refuse then it refuses before.
//!
//! The state keeps at most [`PROPOSALS_MAX`] proposals of an institution: those that are over leave it when the
//! institution makes its next. What happened to them stays provable by the trail of the validators.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::{POWER_MAX, Validator, ValidatorSet};
use assent_proto::{Address, List, ObjectRef};

use crate::State;
use crate::apply::Call;
use crate::outcome::Outcome;
use crate::overlay::Overlay;
use crate::{catalogue, committee, institutions};

/// How far ahead a proposal may end, ms: thirty days.
const PROPOSAL_LIFE_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// A new set votes at the earliest so many blocks above the one that decides on it, so that whoever is in it
/// knows it before.
const ACTIVATION_MIN: u64 = 2;
/// And at the latest so many: until then no other change can be decided.
const ACTIVATION_MAX: u64 = 1_000_000;
/// Approvals that a proposal remembers.
const APPROVALS_MAX: usize = List::<InstitutionId, 128>::MAX;
/// Voters of the past whose contradictions can still be shown.
const FORMER_MAX: usize = List::<FormerValidator, 64>::MAX;

/// Whether a change could be decided in a block at `height` on this state, and if not, which rule says so.
pub fn preview(state: &State, height: Height, change: &Change) -> Result<(), Denial> {
    enact(&Overlay::over(state), height, change).map(|_| ())
}

/// Puts a change before the others; its proposer approves it thereby.
pub(crate) fn propose(call: &Call, by: &InstitutionId, propose: &Propose) -> Result<Outcome, Denial> {
    committee::has_say(call, by, &propose.change)?;
    let now = call.block.time;
    if propose.until < now || propose.until > now.plus(PROPOSAL_LIFE_MAX_MS) {
        return Err(Denial::ProposalExpired);
    }
    let docket = Docket::of(call, by)?;
    enact(call.state, call.block.height, &propose.change)?;
    let id = ProposalId(call.body.0);
    let proposal = Proposal {
        proposer: *by,
        change: propose.change.clone(),
        until: propose.until,
        approvals: List::empty(),
        enacted: None,
        height: call.block.height,
    };
    let outcome = approved(call, by, id, proposal, EventKind::Proposed)?;
    Ok(docket.with(id).write(outcome, by))
}

/// What the state holds of an institution's proposals when it makes another.
struct Docket {
    institution: Institution,
    open: Vec<ProposalId>,
    over: Vec<ProposalId>,
}

impl Docket {
    /// An institution whose open proposals are as many as may be has to wait.
    fn of(call: &Call, by: &InstitutionId) -> Result<Docket, Denial> {
        let institution = call.author(by);
        let is_open = |id: &ProposalId| {
            let proposal: Proposal = call.state.get(*id).expect("an institution lists what the state holds");
            proposal.enacted.is_none() && call.block.time <= proposal.until
        };
        let (open, over): (Vec<_>, Vec<_>) = institution.proposals.iter().copied().partition(is_open);
        if open.len() == PROPOSALS_MAX {
            return Err(Denial::TooManyProposals);
        }
        Ok(Docket { institution, open, over })
    }

    fn with(mut self, id: ProposalId) -> Docket {
        self.open.push(id);
        self
    }

    fn write(self, outcome: Outcome, by: &InstitutionId) -> Outcome {
        let proposals = self.open.try_into().expect("there was room for one more");
        // What it proposed may have been decided at once, and about itself.
        let institution = outcome.written(*by).unwrap_or(self.institution);
        let outcome = outcome.write(*by, &Institution { proposals, ..institution });
        self.over.into_iter().fold(outcome, |outcome, id| outcome.retire(id, [ObjectRef::VALIDATORS]))
    }
}

/// Approves a change; the approval that is enough puts it in force.
pub(crate) fn approve(call: &Call, by: &InstitutionId, approve: &Approve) -> Result<Outcome, Denial> {
    let proposal: Proposal = call.state.get(approve.proposal).ok_or(Denial::NoSuchProposal)?;
    committee::has_say(call, by, &proposal.change)?;
    if proposal.enacted.is_some() {
        return Err(Denial::ProposalEnacted);
    }
    if call.block.time > proposal.until {
        return Err(Denial::ProposalExpired);
    }
    if proposal.approvals.contains(by) {
        return Err(Denial::AlreadyApproved);
    }
    fresh(call, &proposal)?;
    approved(call, by, approve.proposal, proposal, EventKind::Approved)
}

/// Who approved grading an item down approved of what it was then; it was graded anew since.
fn fresh(call: &Call, proposal: &Proposal) -> Result<(), Denial> {
    let Change::Grading(c) = &proposal.change else { return Ok(()) };
    let item: Item = call.state.get(c.item).expect("an item of the catalogue stays in it");
    if item.graded_height > proposal.height { Err(Denial::StaleChange) } else { Ok(()) }
}

fn approved(
    call: &Call,
    by: &InstitutionId,
    id: ProposalId,
    mut proposal: Proposal,
    kind: EventKind,
) -> Result<Outcome, Denial> {
    // Institutions that have no say any more make room: an approval counts while its author has one.
    let counts = |a: &&InstitutionId| committee::has_say(call, a, &proposal.change).is_ok();
    let mut approvals: Vec<_> = proposal.approvals.iter().filter(counts).copied().collect();
    approvals.push(*by);
    // Full, and yet not enough, if hardly anybody who approves is of a role that is missing.
    if approvals.len() > APPROVALS_MAX {
        approvals.remove(0);
    }
    let enough = committee::is_enough(call, &proposal.change, &approvals);
    proposal.approvals = approvals.try_into().expect("cut to the bound");
    // All on the validators' trail, so that the list of all proposals, and of what became of them, is complete
    // by one proof.
    let trails: BTreeSet<ObjectRef> =
        [proposal.proposer.into(), ObjectRef::VALIDATORS, subject(&proposal.change)].into();
    // An institution that is to be admitted has no trail yet.
    let trails = trails.into_iter().filter(|t| call.state.has(*t));
    if !enough {
        return Ok(Outcome::default().write(id, &proposal).event(kind, id, trails));
    }
    let enacted = enact(call.state, call.block.height, &proposal.change)?;
    proposal.enacted = Some(call.block.height);
    let outcome = Outcome::default().write(id, &proposal).event(kind, id, trails);
    Ok(enacted.write(outcome, id.into()))
}

/// On whose trail a proposal is found besides.
fn subject(change: &Change) -> ObjectRef {
    match change {
        Change::Validators(_) | Change::Nodes(_) | Change::Parameters(_) | Change::Protocol(_) => {
            ObjectRef::VALIDATORS
        }
        Change::Institution(c) => c.institution.into(),
        Change::Policy(_) => ObjectRef::POLICY,
        Change::Grading(c) => c.item.into(),
    }
}

pub(crate) fn validators(state: &Overlay) -> Validators {
    state.get(ObjectRef::VALIDATORS).expect("the founding state holds the validators")
}

fn nodes(state: &Overlay) -> Nodes {
    state.get(ObjectRef::NODES).expect("the founding state holds the nodes")
}

/// What a change writes.
enum Enacted {
    Validators(Validators),
    Nodes(Nodes),
    Parameters(Parameters),
    Institution(InstitutionId, Institution, EventKind),
    Policy(Policy),
    Grading(ItemId, Item),
    Protocol(Protocol),
}

impl Enacted {
    fn write(&self, outcome: Outcome, proposal: ObjectRef) -> Outcome {
        let trails = [proposal, ObjectRef::VALIDATORS];
        let enacted = |outcome: Outcome, object| outcome.event(EventKind::Enacted, object, trails);
        match self {
            Enacted::Validators(v) => enacted(outcome.write(ObjectRef::VALIDATORS, v), ObjectRef::VALIDATORS),
            Enacted::Nodes(n) => enacted(outcome.write(ObjectRef::NODES, n), ObjectRef::NODES),
            Enacted::Parameters(p) => enacted(outcome.write(ObjectRef::PARAMETERS, p), ObjectRef::PARAMETERS),
            Enacted::Institution(id, institution, kind) => {
                enacted(outcome.write(*id, institution), (*id).into()).event(*kind, *id, [proposal])
            }
            Enacted::Policy(p) => {
                let outcome = outcome.write(ObjectRef::policy(p.version), p).write(ObjectRef::POLICY, p);
                enacted(outcome, ObjectRef::POLICY)
            }
            Enacted::Grading(id, item) => {
                enacted(outcome.write(*id, item), (*id).into()).event(EventKind::Classified, *id, [proposal])
            }
            Enacted::Protocol(p) => enacted(outcome.write(ObjectRef::PROTOCOL, p), ObjectRef::PROTOCOL),
        }
    }
}

fn enact(state: &Overlay, height: Height, change: &Change) -> Result<Enacted, Denial> {
    match change {
        Change::Validators(change) => enact_validators(state, height, change).map(Enacted::Validators),
        Change::Nodes(change) => enact_nodes(state, height, change).map(Enacted::Nodes),
        Change::Parameters(p) => {
            assent_genesis::check_parameters(p).map_err(|_| Denial::BadParameters)?;
            Ok(Enacted::Parameters(p.clone()))
        }
        Change::Institution(change) => {
            let (institution, kind) = institutions::changed(state, height, change)?;
            Ok(Enacted::Institution(change.institution, institution, kind))
        }
        Change::Policy(policy) => enact_policy(state, policy).map(Enacted::Policy),
        Change::Grading(c) => catalogue::graded_down(state, height, c).map(|i| Enacted::Grading(c.item, i)),
        Change::Protocol(c) => enact_protocol(state, height, c).map(Enacted::Protocol),
    }
}

/// The next version, of which each is kept: a grant is judged by the one that its author was shown, too.
fn enact_policy(state: &Overlay, policy: &Policy) -> Result<Policy, Denial> {
    let before: Policy = state.get(ObjectRef::POLICY).expect("the founding state holds the policy");
    let follows = before.version.checked_add(1) == Some(policy.version);
    if follows && assent_genesis::check_policy(policy).is_ok() {
        Ok(policy.clone())
    } else {
        Err(Denial::BadPolicy)
    }
}

/// The next version, one at a time. Whether this program knows it plays no part: the state must be the same
/// wherever the block is executed, and who does not know it stops before its height.
fn enact_protocol(state: &Overlay, height: Height, change: &ChangeProtocol) -> Result<Protocol, Denial> {
    let before: Protocol = state.get(ObjectRef::PROTOCOL).unwrap_or_default();
    let active = before.at(height);
    let pending = before.next.as_ref().is_some_and(|next| height < next.from);
    if pending || active.checked_add(1) != Some(change.version) {
        return Err(Denial::BadProtocol);
    }
    soon(height, change.from)?;
    Ok(Protocol { active, next: Some(NextProtocol { version: change.version, from: change.from }) })
}

/// Whether a height is far enough above the block that decides on it for everyone to know it before, and no
/// farther than it may be.
fn soon(height: Height, from: Height) -> Result<(), Denial> {
    let range = height.0 + ACTIVATION_MIN..=height.0 + ACTIVATION_MAX;
    if range.contains(&from.0) { Ok(()) } else { Err(Denial::ActivationOutOfRange) }
}

// ---- who votes

fn enact_validators(
    state: &Overlay,
    height: Height,
    change: &ChangeValidators,
) -> Result<Validators, Denial> {
    let before = validators(state);
    if before.pending.as_ref().is_some_and(|p| height < p.from) {
        return Err(Denial::ChangePending);
    }
    let set = before.at(height);
    if change.replaces != set.hash() {
        return Err(Denial::StaleChange);
    }
    soon(height, change.from)?;
    let next = ValidatorSet { validators: change.validators.clone() };
    well_formed(state, &next)?;
    let new = next.validators.iter().filter(|v| !set.validators.iter().any(|old| old.key == v.key));
    for v in new {
        if !change.possessions.iter().any(|p| p.key == v.key) {
            return Err(Denial::MissingPossession);
        }
    }
    live_quorum(state, height, set, &next)?;
    Ok(succeeded(&before, height, change.from, next))
}

fn well_formed(state: &Overlay, set: &ValidatorSet) -> Result<(), Denial> {
    let (nodes, mut keys) = (nodes(state), BTreeSet::new());
    let good = |v: &Validator| {
        let node = nodes.by_key(&v.key);
        (1..=POWER_MAX).contains(&v.power)
            && v.key.check().is_ok()
            && node.is_some_and(|n| n.institution == v.institution)
            && institutions::is_active(state, &v.institution)
    };
    let distinct = set.validators.iter().all(|v| keys.insert(v.key));
    let all = !set.validators.is_empty() && distinct && set.validators.iter().all(good);
    if all { Ok(()) } else { Err(Denial::BadValidatorSet) }
}

/// Of a new set only those are known to be alive that vote now and are not passed over. They alone must be a
/// quorum of it, or the chain could stop with the change.
fn live_quorum(
    state: &Overlay,
    height: Height,
    set: &ValidatorSet,
    next: &ValidatorSet,
) -> Result<(), Denial> {
    let turns: Turns = state.get(ObjectRef::TURNS).expect("the founding state holds the turns");
    let alive = |v: &&Validator| {
        let address: Address = v.address();
        set.by_address(&address).is_some() && !turns.passed_over(&address, height)
    };
    let power = next.validators.iter().filter(alive).map(|v| u64::from(v.power)).sum();
    if next.is_quorum(power) { Ok(()) } else { Err(Denial::NoLiveQuorum) }
}

/// The validators once `next` was decided at `height` to vote from `from` on.
fn succeeded(before: &Validators, height: Height, from: Height, next: ValidatorSet) -> Validators {
    let (since, current) = match &before.pending {
        Some(p) if height >= p.from => (p.from, p.set.clone()),
        _ => (before.since, before.current.clone()),
    };
    let stays = |key: &PublicKey| next.validators.iter().any(|v| v.key == *key);
    let until = Height(from.0 - 1);
    let leaving = current.validators.iter().filter(|v| !stays(&v.key));
    let mut former: Vec<_> = before.former.iter().filter(|f| !stays(&f.validator.key)).cloned().collect();
    former.extend(leaving.map(|v| FormerValidator { validator: v.clone(), until }));
    let kept = former.split_off(former.len().saturating_sub(FORMER_MAX));
    Validators {
        since,
        current,
        pending: Some(PendingSet { from, set: next }),
        former: kept.try_into().expect("cut to the bound"),
    }
}

// ---- who may connect

/// Removes, then admits: one change can give a node a new network key. Who votes keeps a node.
fn enact_nodes(state: &Overlay, height: Height, change: &ChangeNodes) -> Result<Nodes, Denial> {
    let mut nodes = nodes(state).nodes.into_vec();
    for key in &change.remove {
        let at = nodes.iter().position(|n| n.key == *key).ok_or(Denial::BadNodes)?;
        nodes.remove(at);
    }
    for admission in &change.admit {
        let record = &admission.record;
        let taken = |key: &PublicKey| nodes.iter().any(|n| n.key == *key || n.network_key == *key);
        let good = record.key != record.network_key
            && record.key.check().is_ok()
            && record.network_key.check().is_ok()
            && !taken(&record.key)
            && !taken(&record.network_key)
            && institutions::is_active(state, &record.institution);
        if !good {
            return Err(Denial::BadNodes);
        }
        nodes.push(record.clone());
    }
    let nodes = Nodes { nodes: nodes.try_into().map_err(|_| Denial::BadNodes)? };
    let validators = validators(state);
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    let mut voting = validators.at(height).validators.iter().chain(pending);
    let kept = voting.all(|v| nodes.by_key(&v.key).is_some_and(|n| n.institution == v.institution));
    if kept && !(change.admit.is_empty() && change.remove.is_empty()) {
        Ok(nodes)
    } else {
        Err(Denial::BadNodes)
    }
}

// ---- contradictions

/// Puts a contradiction on the chain; its signatures hold, or the body would not be here. What follows is for
/// the parameters to say: a key is removed only where the others alive are a quorum without it.
pub(crate) fn report_equivocation(
    call: &Call,
    by: &InstitutionId,
    report: &ReportEquivocation,
) -> Result<Outcome, Denial> {
    let id = report.id();
    if call.state.has(id) {
        return Err(Denial::AlreadyReported);
    }
    let before = validators(call.state);
    let institution = whose(&before, call.block.height, report).ok_or(Denial::NotAValidatorThen)?;
    let after = match call.parameters.equivocation {
        Consequence::Record => None,
        Consequence::Remove => without(call, &before, &report.validator),
    };
    let misconduct = Misconduct {
        validator: report.validator,
        institution,
        height: report.height,
        round: report.round,
        what: report.what,
        reporter: *by,
        reported: call.block.height,
        removed_from: after.as_ref().and_then(|a| a.pending.as_ref()).map(|p| p.from),
    };
    let trails = [institution.into(), ObjectRef::VALIDATORS];
    let outcome = Outcome::default().write(id, &misconduct);
    Ok(match after {
        None => outcome.event(EventKind::EquivocationReported, id, trails),
        Some(after) => outcome
            .write(ObjectRef::VALIDATORS, &after)
            .event(EventKind::EquivocationReported, id, trails)
            .event(EventKind::ValidatorRemoved, ObjectRef::VALIDATORS, [id.into(), institution.into()]),
    })
}

/// Whose key it is: that votes, is decided to vote, or voted at that height. What the key signed before it
/// voted counts too: nobody but its owner could sign it, and an honest owner does so never.
fn whose(validators: &Validators, height: Height, report: &ReportEquivocation) -> Option<InstitutionId> {
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    let present = validators.at(height).validators.iter().chain(pending);
    let former = validators.former.iter().filter(|f| report.height <= f.until).map(|f| &f.validator);
    present.chain(former).find(|v| v.key == report.validator).map(|v| v.institution)
}

/// The validators without a key, from the next possible height on; none if the key does not vote then anyway,
/// or if without it no quorum is known to be alive.
fn without(call: &Call, before: &Validators, key: &PublicKey) -> Option<Validators> {
    let height = call.block.height;
    let set = before.at(height);
    let pending = before.pending.as_ref().filter(|p| height < p.from);
    let latest = pending.map_or(set, |p| &p.set);
    if !latest.validators.iter().any(|v| v.key == *key) {
        return None;
    }
    let rest: Vec<_> = latest.validators.iter().filter(|v| v.key != *key).cloned().collect();
    let next = ValidatorSet { validators: rest.try_into().expect("fewer than before") };
    live_quorum(call.state, height, set, &next).ok()?;
    let soonest = Height(height.0 + ACTIVATION_MIN);
    let from = pending.map_or(soonest, |p| p.from.max(soonest));
    Some(succeeded(before, height, from, next))
}
