//! The use of data: the decision on a request, in its fixed order; the permit; and the reviews that openings
//! need. What each basis asks at a step of the order stands in `basis`, the duties of an emergency in
//! `emergency`, those of an order in `orders`.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Hash, merkle};

use crate::apply::Call;
use crate::basis::Basis;
use crate::outcome::Outcome;
use crate::rules::Ground;
use crate::{emergency, orders};

/// Permits a use, and consumes it at once, or names the first rule that says no (R3, R7).
pub(crate) fn request(call: &Call, by: &InstitutionId, request: &RequestAccess) -> Result<Outcome, Denial> {
    Ok(judge(call, by, request)?)
}

/// The same, with where in the order it is refused.
pub(crate) fn judge(call: &Call, by: &InstitutionId, request: &RequestAccess) -> Result<Outcome, Refusal> {
    let ask = Ask::of(call, by, request)?;
    ask.decide()?;
    Ok(ask.permit())
}

/// A denial, the step of the order that made it, and the basis where one was found: together they name one rule.
pub(crate) struct Refusal {
    pub(crate) denial: Denial,
    pub(crate) step: &'static str,
    pub(crate) ground: Option<Ground>,
}

impl Refusal {
    /// Before the order begins: the requester may do nothing at all.
    pub(crate) fn of_standing(denial: Denial) -> Refusal {
        Refusal { denial, step: "standing", ground: None }
    }

    /// At a step before the basis is found.
    fn at(step: &'static str) -> impl Fn(Denial) -> Refusal {
        move |denial| Refusal { denial, step, ground: None }
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Denial {
        refusal.denial
    }
}

/// A request with what it names, as far as that exists.
pub(crate) struct Ask<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) request: &'a RequestAccess,
    pub(crate) by: InstitutionId,
    pub(crate) requester: Institution,
    pub(crate) item: Item,
    basis: Basis,
    /// What the policy says of the use case; none where it is silent.
    rule: Option<PurposeRule>,
}

impl<'a> Ask<'a> {
    /// The first steps of the order: the institution, the item, the negative list, the basis. (The standing of
    /// the requester, who is the author, is asked before any rule. The place of the circuit breaker is here.)
    fn of(call: &'a Call<'a>, by: &InstitutionId, request: &'a RequestAccess) -> Result<Self, Refusal> {
        let requester = call.author(by);
        let item = usable(call, &requester, request)?;
        if call.state.get::<Institution>(item.custodian).is_some_and(|i| i.standing != Standing::Active) {
            return Err(Refusal::at("item")(Denial::CustodianSuspended));
        }
        not_prohibited(call.policy, request, &item).map_err(Refusal::at("negative list"))?;
        let basis = Basis::of(call, by, request, &item).map_err(Refusal::at("basis"))?;
        Ok(Ask::on(call, by, request, requester, item, basis))
    }

    /// The same for a release in an outage, which the item's custodian tells (R17). Neither side's standing is
    /// asked: it happened, and what follows from it is a duty.
    pub(crate) fn after_outage(
        call: &'a Call<'a>,
        by: &InstitutionId,
        (requester, request): (&InstitutionId, &'a RequestAccess),
        released_at: TimeMs,
    ) -> Result<Self, Denial> {
        let user: Institution = call.state.get(*requester).ok_or(Denial::NoSuchInstitution)?;
        let item = usable(call, &user, request)?;
        if item.custodian != *by {
            return Err(Denial::NotTheSource);
        }
        not_prohibited(call.policy, request, &item)?;
        let basis = Basis::Emergency { released_at: Some(released_at) };
        Ok(Ask::on(call, requester, request, user, item, basis))
    }

    fn on(
        call: &'a Call<'a>,
        by: &InstitutionId,
        request: &'a RequestAccess,
        requester: Institution,
        item: Item,
        basis: Basis,
    ) -> Self {
        let rule = basis.rule(call, request.purpose);
        Ask { call, request, by: *by, requester, item, basis, rule }
    }

    /// The rest of the order, which is fixed: the first failure names the code. Whether uses are left is part
    /// of a grant's state (exhausted), so nothing remains to be asked of it at the end; the place of the
    /// co-signature is after the settlement.
    pub(crate) fn decide(&self) -> Result<(), Refusal> {
        let ground = Some(self.basis.ground());
        let at = |step| move |denial| Refusal { denial, step, ground };
        self.basis.state(self).map_err(at("state of the basis"))?;
        self.basis.time(self).map_err(at("time"))?;
        self.basis.user(self).map_err(at("who may rely on it"))?;
        self.case().map_err(at("case"))?;
        self.basis.account(self).map_err(at("person"))?;
        self.custodian().map_err(at("custodian"))?;
        self.basis.item(self).map_err(at("item covered"))?;
        self.records().map_err(at("records"))?;
        let rule = self.purpose().map_err(at("purpose"))?;
        self.basis.action(self).map_err(at("action and output"))?;
        self.level(rule).map_err(at("level"))?;
        self.basis.jurisdiction(self).map_err(at("jurisdiction"))?;
        self.settled(rule).map_err(at("settlement"))
    }

    fn case(&self) -> Result<(), Denial> {
        let needed = self.basis.can_need_case() && self.rule.as_ref().is_some_and(|r| r.needs_case);
        if needed && self.request.case.is_none() {
            return Err(Denial::CaseMissing);
        }
        match self.basis.case() {
            Some(case) if self.request.case != Some(case) => Err(Denial::OtherCase),
            _ => Ok(()),
        }
    }

    /// The person's account is one with the item's custodian.
    fn custodian(&self) -> Result<(), Denial> {
        let Some(id) = self.account() else { return Ok(()) };
        let account: Account = self.call.state.get(id).ok_or(Denial::OtherAccount)?;
        if account.custodian == self.item.custodian { Ok(()) } else { Err(Denial::OtherCustodian) }
    }

    /// Each record is the person's, from the period of the basis, anchored under this item, and named once.
    fn records(&self) -> Result<(), Denial> {
        let mut seen = BTreeSet::new();
        for proof in &self.request.records {
            if self.account().is_some_and(|account| account != proof.record.account) {
                return Err(Denial::OtherAccount);
            }
            self.basis.day(proof.record.day)?;
            if !self.anchored(proof) {
                return Err(Denial::RecordNotAnchored);
            }
            if !seen.insert(proof.record.leaf()) {
                return Err(Denial::DuplicateRecord);
            }
        }
        Ok(())
    }

    fn anchored(&self, proof: &RecordProof) -> bool {
        self.call.state.get::<Batch>(proof.batch).is_some_and(|batch| {
            let (index, count) = (u64::from(proof.index), u64::from(batch.count));
            batch.item == self.request.item
                && merkle::verify(&batch.root, &proof.record.leaf(), index, count, &proof.path)
        })
    }

    /// The use case is one that the policy knows, and the one that the basis is for. What was on the negative
    /// list when a grant was signed stays so for this grant.
    fn purpose(&self) -> Result<&PurposeRule, Denial> {
        let rule = self.rule.as_ref().ok_or(Denial::PurposeNotAllowed)?;
        self.basis.purpose(self.request.purpose)?;
        if let Some(signed_under) = self.basis.policy(self.call) {
            not_prohibited(&signed_under, self.request, &self.item)?;
        }
        Ok(rule)
    }

    /// The item's level is within what the basis, the institution and the use case may see (R11).
    fn level(&self, rule: &PurposeRule) -> Result<(), Denial> {
        let ceiling = self.basis.max_level().min(self.requester.max_level).min(rule.max_level);
        if self.item.level <= ceiling { Ok(()) } else { Err(Denial::LevelTooHigh) }
    }

    /// Where the use case needs it, the case is settled: a settlement for it is anchored (R6).
    fn settled(&self, rule: &PurposeRule) -> Result<(), Denial> {
        let settled = || self.request.case.is_some_and(|case| self.call.state.has(case));
        if !rule.needs_settlement || settled() { Ok(()) } else { Err(Denial::NotSettled) }
    }

    /// Whose records, where they are one person's.
    fn account(&self) -> Option<AccountId> {
        self.basis.person().or(self.request.account)
    }

    /// Consumes a use and makes the permit, with the duties that come with its basis.
    pub(crate) fn permit(self) -> Outcome {
        let id = PermitId(self.call.body.0);
        let permit = self.terms();
        let outcome = Outcome::default().write(id, &permit);
        let outcome = outcome.event(EventKind::Permitted, id, self.permitted_trails(&id, &permit));
        match self.basis {
            Basis::Grant(grant) => {
                let used = grant.used.saturating_add(1);
                let grant_id = permit.grant.expect("a grant is the basis of a request that names it");
                outcome.write(grant_id, &GrantState { used, ..*grant })
            }
            Basis::Emergency { released_at } => {
                emergency::open(self.call, outcome, &id, &permit, self.requester, released_at)
            }
            Basis::Opening | Basis::Order(_) => outcome,
        }
    }

    fn terms(&self) -> Permit {
        let request = self.request;
        let leaves: Vec<Hash> = request.records.iter().map(|p| p.record.leaf()).collect();
        Permit {
            grant: request.grant,
            item: request.item,
            account: self.account(),
            requester: self.by,
            custodian: self.item.custodian,
            case: request.case,
            purpose: request.purpose,
            action: request.action,
            output: request.output,
            level: self.item.level,
            manifest: merkle::root(&leaves),
            records: leaves.len() as u32,
            staff: request.staff,
            height: self.call.block.height,
            expires_at: self.call.block.time.plus(self.basis.permit_life_ms(self.call)),
            delivered_height: self.basis.is_released().then_some(self.call.block.height),
            order: request.order,
            emergency: request.emergency,
            undelivered: false,
            notified_height: None,
        }
    }

    /// The trail of the item and of every person whose record is permitted, so that an opening's use shows in
    /// hers too; unless an order defers that she is told.
    fn permitted_trails(&self, id: &PermitId, permit: &Permit) -> Vec<ObjectRef> {
        let mut trails = permit_trails(self.call, id, permit);
        trails.push(permit.item.into());
        if !orders::defers_notice(self.call, permit.order) {
            let persons = self.request.records.iter().map(|p| p.record.account).chain(self.request.person);
            trails.extend(persons.map(ObjectRef::from));
        }
        trails
    }
}

/// The item, if the institution may use data at all. Whoever only supervises has no use for it.
fn usable(call: &Call, requester: &Institution, request: &RequestAccess) -> Result<Item, Refusal> {
    if !requester.roles.iter().any(|r| !matches!(r, Role::Regulator | Role::Auditor)) {
        return Err(Refusal::at("role")(Denial::NotPermittedRole));
    }
    call.state.get(request.item).ok_or_else(|| Refusal::at("item")(Denial::NoSuchItem))
}

/// The negative list beats every basis (R14).
fn not_prohibited(policy: &Policy, request: &RequestAccess, item: &Item) -> Result<(), Denial> {
    let listed = |p: &Prohibition| p.covers(request.purpose, &request.item, item.category);
    if policy.prohibited.iter().any(listed) { Err(Denial::Prohibited) } else { Ok(()) }
}

/// The trails of a permit and of those between whom it stands. While an order defers notice, the person's is
/// not among them (R41).
pub(crate) fn permit_trails(call: &Call, id: &PermitId, permit: &Permit) -> Vec<ObjectRef> {
    let mut trails = vec![(*id).into(), permit.requester.into(), permit.custodian.into()];
    trails.extend(permit.grant.map(ObjectRef::from));
    trails.extend(permit.order.map(ObjectRef::from));
    trails.extend(permit_person(call, permit));
    trails
}

/// The trail of the person whose records are permitted, as long as no order defers that she is told.
pub(crate) fn permit_person(call: &Call, permit: &Permit) -> Option<ObjectRef> {
    permit.account.filter(|_| !orders::defers_notice(call, permit.order)).map(ObjectRef::from)
}

/// Opens an item to a requester after review, until a time; a time that has passed ends it (R11). Who reviews
/// may not use (R10).
pub(crate) fn review_opening(call: &Call, by: &InstitutionId, r: &ReviewOpening) -> Result<Outcome, Denial> {
    if !call.author(by).has(Role::Regulator) {
        return Err(Denial::NotPermittedRole);
    }
    if !call.state.has(r.item) {
        return Err(Denial::NoSuchItem);
    }
    if !call.state.has(r.requester) {
        return Err(Denial::NoSuchInstitution);
    }
    if r.requester == *by {
        return Err(Denial::SameInstitution);
    }
    let id = review_ref(&r.item, &r.requester, r.purpose);
    let review = Review { reviewer: *by, until: r.until };
    let trails = [r.item.into(), r.requester.into()];
    Ok(Outcome::default().write(id, &review).event(EventKind::OpeningReviewed, id, trails))
}

/// Under what a review is found.
pub(crate) fn review_ref(item: &ItemId, requester: &InstitutionId, purpose: Purpose) -> ObjectRef {
    ObjectRef { kind: ObjectKind::Review, id: ReviewOpening::review_id(item, requester, purpose) }
}
