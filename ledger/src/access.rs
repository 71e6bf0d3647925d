//! The use of data: the decision on a request, in its fixed order; and the reviews that openings need.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Hash, merkle};

use crate::apply::Call;
use crate::outcome::Outcome;

/// Permits a use, and consumes it at once, or names the first rule that says no (R3, R7).
pub(crate) fn request(call: &Call, by: &InstitutionId, request: &RequestAccess) -> Result<Outcome, Denial> {
    let ask = Ask::of(call, by, request)?;
    ask.decide()?;
    Ok(ask.permit())
}

/// A request with what it names, as far as that exists.
struct Ask<'a> {
    call: &'a Call<'a>,
    request: &'a RequestAccess,
    by: InstitutionId,
    requester: Institution,
    item: Item,
    /// The grant relied on; without one, the item's opening type is the basis.
    grant: Option<GrantState>,
    rule: Option<&'a PurposeRule>,
}

impl<'a> Ask<'a> {
    /// The first steps of the order: the institution, the item, the basis.
    fn of(call: &'a Call<'a>, by: &InstitutionId, request: &'a RequestAccess) -> Result<Self, Denial> {
        let requester = call.author(by);
        if !uses_data(&requester) {
            return Err(Denial::NotPermittedRole);
        }
        let item: Item = call.state.get(request.item).ok_or(Denial::NoSuchItem)?;
        let grant = match request.grant {
            Some(id) => Some(call.state.get::<GrantState>(id).ok_or(Denial::NoSuchGrant)?),
            None => {
                open_to(call, by, request, &item)?;
                None
            }
        };
        Ok(Ask { call, request, by: *by, requester, item, grant, rule: call.policy.rule(request.purpose) })
    }

    /// The rest of the order, which is fixed: the first failure names the code.
    fn decide(&self) -> Result<(), Denial> {
        self.grant_in_force()?;
        self.case()?;
        self.custodian()?;
        self.records()?;
        let rule = self.purpose()?;
        self.action()?;
        self.level(rule)?;
        self.jurisdiction()?;
        self.settled(rule)
    }

    /// State, time, grantee. Whether uses are left is part of the grant's state (exhausted), so nothing
    /// remains to be asked of it at the end of the order.
    fn grant_in_force(&self) -> Result<(), Denial> {
        let Some(GrantState { terms, used, revocation, .. }) = &self.grant else { return Ok(()) };
        let time = self.call.block.time;
        if revocation.is_some() {
            return Err(Denial::GrantRevoked);
        }
        if terms.mode != Mode::Standing && *used >= terms.uses {
            return Err(Denial::GrantExhausted);
        }
        if time < terms.not_before {
            return Err(Denial::GrantNotYetValid);
        }
        if time > terms.not_after {
            return Err(Denial::GrantExpired);
        }
        if terms.grantee != self.by {
            return Err(Denial::OtherGrantee);
        }
        Ok(())
    }

    fn case(&self) -> Result<(), Denial> {
        let granted = self.grant.as_ref().and_then(|g| g.terms.case);
        if self.request.case.is_none() && self.rule.is_some_and(|r| r.needs_case) {
            return Err(Denial::CaseMissing);
        }
        if granted.is_some() && granted != self.request.case {
            return Err(Denial::OtherCase);
        }
        Ok(())
    }

    /// The person's account is one with the item's custodian, and the grant covers the item.
    fn custodian(&self) -> Result<(), Denial> {
        if let (Some(grant), Some(named)) = (&self.grant, self.request.account)
            && grant.account != named
        {
            return Err(Denial::OtherAccount);
        }
        if let Some(id) = self.account() {
            let account: Account = self.call.state.get(id).ok_or(Denial::OtherAccount)?;
            if account.custodian != self.item.custodian {
                return Err(Denial::OtherCustodian);
            }
        }
        let covered =
            |t: &Grant| t.items.contains(&self.request.item) || t.categories.contains(&self.item.category);
        if self.grant.as_ref().is_some_and(|g| !covered(&g.terms)) {
            return Err(Denial::ItemNotCovered);
        }
        Ok(())
    }

    /// Each record is the person's, from the granted period, anchored under this item, and named once.
    fn records(&self) -> Result<(), Denial> {
        let mut seen = BTreeSet::new();
        for proof in &self.request.records {
            if self.account().is_some_and(|account| account != proof.record.account) {
                return Err(Denial::OtherAccount);
            }
            let period = self.grant.as_ref().map(|g| g.terms.data_from..=g.terms.data_to);
            if period.is_some_and(|p| !p.contains(&proof.record.day)) {
                return Err(Denial::PeriodNotCovered);
            }
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

    fn purpose(&self) -> Result<&'a PurposeRule, Denial> {
        let rule = self.rule.ok_or(Denial::PurposeNotAllowed)?;
        if self.grant.as_ref().is_some_and(|g| g.terms.purpose != self.request.purpose) {
            return Err(Denial::PurposeNotCovered);
        }
        Ok(rule)
    }

    fn action(&self) -> Result<(), Denial> {
        let Some(GrantState { terms, .. }) = &self.grant else { return Ok(()) };
        if !terms.actions.contains(&self.request.action) {
            return Err(Denial::ActionNotCovered);
        }
        // Outputs are ordered from the most revealing: a grant for one covers those after it.
        if self.request.output < terms.output {
            return Err(Denial::OutputNotCovered);
        }
        Ok(())
    }

    /// The item's level is within what the basis, the institution and the use case may see (R11).
    fn level(&self, rule: &PurposeRule) -> Result<(), Denial> {
        let basis = self.grant.as_ref().map_or(Level::High, |g| g.terms.max_level);
        let ceiling = basis.min(self.requester.max_level).min(rule.max_level);
        if self.item.level <= ceiling { Ok(()) } else { Err(Denial::LevelTooHigh) }
    }

    fn jurisdiction(&self) -> Result<(), Denial> {
        match &self.grant {
            Some(g) if !g.terms.jurisdictions.contains(&self.requester.jurisdiction) => {
                Err(Denial::OutsideJurisdiction)
            }
            _ => Ok(()),
        }
    }

    /// Where the use case needs it, the case is settled: a settlement for it is anchored (R6).
    fn settled(&self, rule: &PurposeRule) -> Result<(), Denial> {
        let settled = || self.request.case.is_some_and(|case| self.call.state.has(case));
        if !rule.needs_settlement || settled() { Ok(()) } else { Err(Denial::NotSettled) }
    }

    /// Whose records, where they are one person's.
    fn account(&self) -> Option<AccountId> {
        self.grant.as_ref().map(|g| g.account).or(self.request.account)
    }

    /// Consumes a use and makes the permit. It joins the trail of every person whose record it permits, so
    /// that an opening's use shows in hers too.
    fn permit(self) -> Outcome {
        let (request, id) = (self.request, PermitId(self.call.body.0));
        let leaves: Vec<Hash> = request.records.iter().map(|p| p.record.leaf()).collect();
        let permit = Permit {
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
            expires_at: self.call.block.time.plus(self.call.parameters.permit_life_ms),
            delivered_height: None,
            order: request.order,
            emergency: request.emergency,
            undelivered: false,
        };
        let persons = request.records.iter().map(|p| p.record.account).chain(request.person);
        let trails = permit_trails(&id, &permit).into_iter().chain([permit.item.into()]);
        let trails: Vec<_> = trails.chain(persons.map(ObjectRef::from)).collect();
        let outcome = Outcome::default().write(id, &permit).event(EventKind::Permitted, id, trails);
        match (request.grant, self.grant) {
            (Some(grant_id), Some(grant)) => {
                outcome.write(grant_id, &GrantState { used: grant.used.saturating_add(1), ..grant })
            }
            _ => outcome,
        }
    }
}

/// Whoever only supervises has no use for the data itself.
fn uses_data(institution: &Institution) -> bool {
    institution.roles.iter().any(|r| !matches!(r, Role::Regulator | Role::Auditor))
}

/// Whether the item's opening type is a basis for the request (R11). Of an item that is not open, a request
/// for one person's records lacks her grant (`NoBasis`); any other asks for what is not open at all.
fn open_to(call: &Call, by: &InstitutionId, request: &RequestAccess, item: &Item) -> Result<(), Denial> {
    let (open, otherwise) = match item.opening {
        Opening::Prohibited if request.account.is_some() => (false, Denial::NoBasis),
        Opening::Prohibited => (false, Denial::OpeningProhibited),
        Opening::AfterReview => (reviewed(call, by, request), Denial::ReviewMissing),
        Opening::RealName => (request.person.is_some(), Denial::RealNameMissing),
        Opening::Directed => (item.recipients.contains(by), Denial::NotARecipient),
        Opening::Unconditional => (true, Denial::NoBasis),
    };
    if open { Ok(()) } else { Err(otherwise) }
}

fn reviewed(call: &Call, by: &InstitutionId, request: &RequestAccess) -> bool {
    let review = call.state.get::<Review>(review_ref(&request.item, by, request.purpose));
    review.is_some_and(|r| r.until >= call.block.time)
}

fn review_ref(item: &ItemId, requester: &InstitutionId, purpose: Purpose) -> ObjectRef {
    ObjectRef { kind: ObjectKind::Review, id: ReviewOpening::review_id(item, requester, purpose) }
}

/// The trails of a permit and of those between whom it stands.
pub(crate) fn permit_trails(id: &PermitId, permit: &Permit) -> Vec<ObjectRef> {
    let mut trails = vec![(*id).into(), permit.requester.into(), permit.custodian.into()];
    trails.extend(permit.grant.map(ObjectRef::from));
    trails.extend(permit.account.map(ObjectRef::from));
    trails
}

/// Opens an item to a requester after review, until a time; a time that has passed ends it (R11).
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
    let id = review_ref(&r.item, &r.requester, r.purpose);
    let review = Review { reviewer: *by, until: r.until };
    let trails = [r.item.into(), r.requester.into()];
    Ok(Outcome::default().write(id, &review).event(EventKind::OpeningReviewed, id, trails))
}
