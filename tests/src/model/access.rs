//! The decision on a request, in its fixed order, and reviews of openings (R3, R10, R11, R14, R17, R21, R41).
//! Rules 1 to 56 and 146 to 149.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::merkle;
use assent_proto::state::{Item, ObjectKind, ObjectRef, Policy, PurposeRule, Role};
use assent_proto::transaction::*;

use super::consent::Granted;
use super::delivery::Wanted;
use super::{Asked, Model, Verdict, event, has_role, has_twice, refuse};

/// On what a use rests.
enum Basis {
    Grant(Box<Granted>),
    Emergency,
    Order(Box<IssueOrder>),
    Opening,
}

impl Model {
    pub(crate) fn request(&self, asked: &Asked, r: &RequestAccess) -> Verdict {
        let w = Wanted::of_request(asked.institution(), r);
        let item = self.may_use(&w)?;
        let permit = PermitId(asked.body.0);
        if w.emergency.is_some() {
            return Ok(self.emergency_events(EventKind::EmergencyOpened, permit, &w, item.custodian));
        }
        Ok(vec![event(EventKind::Permitted, permit, self.use_trails(&w, item.custodian))])
    }

    /// The order of the decision. The first failure names the code.
    pub(crate) fn may_use(&self, w: &Wanted) -> Result<Item, Denial> {
        let requester = self.institution(w.requester).expect("who asks exists");
        let watches = requester.roles.iter().all(|r| matches!(r, Role::Regulator | Role::Auditor));
        refuse(Denial::NotPermittedRole, watches)?;

        let item = self.item(w.item).ok_or(Denial::NoSuchItem)?;
        let outage = w.released_at.is_some();
        refuse(Denial::NotTheSource, w.source.is_some_and(|source| source != item.custodian))?;
        refuse(Denial::CustodianSuspended, !outage && !self.is_active(item.custodian))?;

        let policy = self.policy();
        refuse(Denial::Prohibited, prohibits(policy, w, &item))?;

        let basis = self.basis(w, &item)?;
        self.state_of_basis(&basis, &item)?;
        self.time_of_basis(&basis, w)?;
        self.who_may_rely(&basis, w)?;
        let rule = self.rule_of_use(&basis, w);
        self.case(&basis, w, rule.as_ref().ok())?;
        let person = self.person_and_item(&basis, w, &item)?;
        self.records(&basis, w, person)?;

        let rule = rule?;
        purpose(&basis, w)?;
        self.signed_under_prohibition(&basis, w, &item)?;
        action_and_output(&basis, w)?;
        let ceiling = match &basis {
            Basis::Grant(g) => g.terms.max_level,
            Basis::Order(o) => o.max_level,
            Basis::Emergency | Basis::Opening => Level::High,
        };
        let ceilings = [ceiling, requester.max_level, rule.max_level];
        refuse(Denial::LevelTooHigh, ceilings.iter().any(|c| (item.level as u8) > (*c as u8)))?;
        if let Basis::Grant(g) = &basis {
            refuse(Denial::OutsideJurisdiction, !g.terms.jurisdictions.contains(&requester.jurisdiction))?;
        }
        let settled = w.case.is_some_and(|c| self.settlement(c).is_some());
        refuse(Denial::NotSettled, rule.needs_settlement && !settled)?;
        Ok(item)
    }

    /// Rules 5 to 12.
    fn basis(&self, w: &Wanted, item: &Item) -> Result<Basis, Denial> {
        let named = [w.grant.is_some(), w.emergency.is_some(), w.order.is_some()];
        refuse(Denial::SeveralBases, named.iter().filter(|n| **n).count() > 1)?;
        if let Some(id) = w.grant {
            let grant = self.grant_of(id).ok_or(Denial::NoSuchGrant)?;
            return Ok(Basis::Grant(Box::new(grant)));
        }
        if let Some(id) = w.order {
            return Ok(Basis::Order(Box::new(self.order(id).ok_or(Denial::NoSuchOrder)?.clone())));
        }
        if w.emergency.is_some() {
            return Ok(Basis::Emergency);
        }
        match item.opening {
            Opening::Prohibited => {
                refuse(Denial::NoBasis, w.account.is_some())?;
                Err(Denial::OpeningProhibited)
            }
            Opening::AfterReview => {
                let reviewed = self.reviewed_until(w.item, w.requester, w.purpose);
                refuse(Denial::ReviewMissing, reviewed.is_none_or(|until| until < self.at.time))?;
                Ok(Basis::Opening)
            }
            Opening::RealName => {
                refuse(Denial::RealNameMissing, w.person.is_none())?;
                Ok(Basis::Opening)
            }
            Opening::Directed => {
                refuse(Denial::NotARecipient, !item.recipients.contains(&w.requester))?;
                Ok(Basis::Opening)
            }
            Opening::Unconditional => Ok(Basis::Opening),
        }
    }

    /// Rules 13 to 16.
    fn state_of_basis(&self, basis: &Basis, item: &Item) -> Result<(), Denial> {
        let Basis::Grant(g) = basis else { return Ok(()) };
        refuse(Denial::GrantRevoked, g.revoked.is_some())?;
        refuse(Denial::GrantExhausted, g.terms.mode != Mode::Standing && g.used >= g.terms.uses)?;
        let over = g.terms.delegation.is_some_and(|d| !self.delegation_in_force(d));
        refuse(Denial::DelegationOver, over && !g.ratified)?;
        let above = (item.level as u8) > (g.terms.max_level as u8);
        refuse(Denial::GrantSuspended, above && item.graded_height > g.height)
    }

    /// Rules 17 to 20.
    fn time_of_basis(&self, basis: &Basis, w: &Wanted) -> Result<(), Denial> {
        let now = self.at.time;
        match basis {
            Basis::Grant(g) => {
                refuse(Denial::GrantNotYetValid, now < g.terms.not_before)?;
                refuse(Denial::GrantExpired, now > g.terms.not_after)
            }
            Basis::Emergency => refuse(Denial::ReleaseTimeUnknown, w.released_at.is_some_and(|t| t > now)),
            Basis::Order(o) => refuse(Denial::OrderExpired, now > o.not_after),
            Basis::Opening => Ok(()),
        }
    }

    /// Rules 21 to 25.
    fn who_may_rely(&self, basis: &Basis, w: &Wanted) -> Result<(), Denial> {
        match basis {
            Basis::Grant(g) => refuse(Denial::OtherGrantee, g.terms.grantee != w.requester),
            Basis::Order(o) => refuse(Denial::NotTheBeneficiary, o.beneficiary != w.requester),
            Basis::Emergency => self.may_in_emergency(w),
            Basis::Opening => Ok(()),
        }
    }

    fn may_in_emergency(&self, w: &Wanted) -> Result<(), Denial> {
        let roster = self.institution(w.requester).and_then(|i| i.rostered_until);
        let when = w.released_at.unwrap_or(self.at.time);
        refuse(Denial::NotRostered, roster.is_none_or(|until| until < when))?;
        let open = self.open_emergencies(w.requester);
        let late = |by: Option<TimeMs>| by.is_some_and(|t| t < self.at.time);
        let overdue = open.iter().any(|e| late(e.review_by) || late(e.notify_by));
        refuse(Denial::EmergencyDutyOverdue, w.released_at.is_none() && overdue)?;
        refuse(Denial::TooManyEmergencies, open.len() >= 16)
    }

    /// Rules 41 and 46: the rule in force, and whatever is stricter in the one under which a grant was signed.
    fn rule_of_use(&self, basis: &Basis, w: &Wanted) -> Result<PurposeRule, Denial> {
        let find = |p: &Policy| p.rules.iter().find(|r| r.purpose == w.purpose).cloned();
        let now = find(self.policy()).ok_or(Denial::PurposeNotAllowed)?;
        let Basis::Grant(g) = basis else { return Ok(now) };
        let signed = self.policy_of(g.terms.policy_version).and_then(find);
        let then = signed.ok_or(Denial::PurposeNotAllowed)?;
        let lower =
            if (now.max_level as u8) < (then.max_level as u8) { now.max_level } else { then.max_level };
        Ok(PurposeRule {
            purpose: w.purpose,
            max_level: lower,
            needs_case: now.needs_case || then.needs_case,
            needs_settlement: now.needs_settlement || then.needs_settlement,
        })
    }

    /// Rules 26 and 27.
    fn case(&self, basis: &Basis, w: &Wanted, rule: Option<&PurposeRule>) -> Result<(), Denial> {
        let emergency = matches!(basis, Basis::Emergency);
        let needed = rule.is_some_and(|r| r.needs_case);
        refuse(Denial::CaseMissing, !emergency && needed && w.case.is_none())?;
        if let Basis::Grant(g) = basis {
            refuse(Denial::OtherCase, g.terms.case.is_some() && g.terms.case != w.case)?;
        }
        Ok(())
    }

    /// Rules 28 to 35. Tells whose records alone it may be.
    fn person_and_item(&self, basis: &Basis, w: &Wanted, item: &Item) -> Result<Option<AccountId>, Denial> {
        let mut person = w.account;
        match basis {
            Basis::Grant(g) => {
                refuse(Denial::OtherAccount, w.account.is_some_and(|a| a != g.account))?;
                person = Some(g.account);
            }
            Basis::Order(o) => {
                refuse(Denial::OrderDoesNotCover, o.account.is_some() && o.account != w.account)?;
                refuse(Denial::AccountMissing, self.at.time < o.notice_from && w.account.is_none())?;
            }
            Basis::Emergency => refuse(Denial::AccountMissing, w.account.is_none())?,
            Basis::Opening => (),
        }
        if let Some(id) = person {
            let account = self.person(id).ok_or(Denial::OtherAccount)?;
            refuse(Denial::OtherCustodian, account.custodian != item.custodian)?;
        }
        let covers = |items: &[ItemId], categories: &[Category]| {
            items.contains(&w.item) || categories.contains(&item.category)
        };
        match basis {
            Basis::Grant(g) => {
                refuse(Denial::ItemNotCovered, !covers(&g.terms.items, &g.terms.categories))?;
            }
            Basis::Order(o) => refuse(Denial::OrderDoesNotCover, !covers(&o.items, &o.categories))?,
            Basis::Emergency | Basis::Opening => (),
        }
        Ok(person)
    }

    /// Rules 36 to 40.
    fn records(&self, basis: &Basis, w: &Wanted, person: Option<AccountId>) -> Result<(), Denial> {
        for proof in &w.records {
            let record = &proof.record;
            refuse(Denial::OtherAccount, person.is_some_and(|p| p != record.account))?;
            match basis {
                Basis::Grant(g) => {
                    let inside = (g.terms.data_from..=g.terms.data_to).contains(&record.day);
                    refuse(Denial::PeriodNotCovered, !inside)?;
                }
                Basis::Order(o) => {
                    let inside = (o.data_from..=o.data_to).contains(&record.day);
                    refuse(Denial::OrderDoesNotCover, !inside)?;
                }
                Basis::Emergency | Basis::Opening => (),
            }
            refuse(Denial::RecordNotAnchored, !self.is_anchored(w.item, proof))?;
        }
        let records: Vec<_> = w.records.iter().map(|p| p.record.clone()).collect();
        refuse(Denial::DuplicateRecord, has_twice(&records))
    }

    fn is_anchored(&self, item: ItemId, proof: &RecordProof) -> bool {
        let Some(d) = self.done(proof.batch.0) else { return false };
        let Action::AnchorRecords(a) = &d.asked.action else { return false };
        let (leaf, index) = (proof.record.leaf(), u64::from(proof.index));
        a.item == item && merkle::verify(&a.root, &leaf, index, u64::from(a.count), &proof.path)
    }

    /// Rule 45.
    fn signed_under_prohibition(&self, basis: &Basis, w: &Wanted, item: &Item) -> Result<(), Denial> {
        let Basis::Grant(g) = basis else { return Ok(()) };
        let then = self.policy_of(g.terms.policy_version);
        refuse(Denial::Prohibited, then.is_some_and(|p| prohibits(p, w, item)))
    }

    /// Until when a use was reviewed last.
    pub(crate) fn reviewed_until(&self, item: ItemId, by: InstitutionId, purpose: Purpose) -> Option<TimeMs> {
        let mut reviews = self.applied().filter_map(|d| match &d.asked.action {
            Action::ReviewOpening(r) => Some(r),
            _ => None,
        });
        let same = |r: &&ReviewOpening| (r.item, r.requester, r.purpose) == (item, by, purpose);
        reviews.rfind(same).map(|r| r.until)
    }

    pub(crate) fn review_opening(&self, asked: &Asked, a: &ReviewOpening) -> Verdict {
        refuse(Denial::NotPermittedRole, !has_role(&self.author(asked), Role::Regulator))?;
        refuse(Denial::NoSuchItem, self.item(a.item).is_none())?;
        refuse(Denial::NoSuchInstitution, self.institution(a.requester).is_none())?;
        refuse(Denial::SameInstitution, a.requester == asked.institution())?;
        let id = ReviewOpening::review_id(&a.item, &a.requester, a.purpose);
        let review = ObjectRef { kind: ObjectKind::Review, id };
        let trails = [asked.author_ref(), a.item.into(), a.requester.into()];
        Ok(vec![event(EventKind::OpeningReviewed, review, trails)])
    }
}

/// Rule 4: everything that an entry names matches.
fn prohibits(policy: &Policy, w: &Wanted, item: &Item) -> bool {
    policy.prohibited.iter().any(|p| {
        p.purpose.is_none_or(|x| x == w.purpose)
            && p.item.is_none_or(|x| x == w.item)
            && p.category.is_none_or(|x| x == item.category)
    })
}

/// Rules 42 to 44.
fn purpose(basis: &Basis, w: &Wanted) -> Result<(), Denial> {
    let fits = match basis {
        Basis::Grant(g) => g.terms.purpose == w.purpose,
        Basis::Emergency => w.purpose == Purpose::EmergencyTreatment,
        Basis::Order(_) => w.purpose == Purpose::Legal,
        Basis::Opening => !matches!(w.purpose, Purpose::EmergencyTreatment | Purpose::Legal),
    };
    refuse(Denial::PurposeNotCovered, !fits)
}

/// Rules 47 to 50. What reveals less has the higher number.
fn action_and_output(basis: &Basis, w: &Wanted) -> Result<(), Denial> {
    let reveals_more = |than: Output| (w.output as u8) < (than as u8);
    match basis {
        Basis::Grant(g) => {
            refuse(Denial::ActionNotCovered, !g.terms.actions.contains(&w.action))?;
            refuse(Denial::OutputNotCovered, reveals_more(g.terms.output))
        }
        Basis::Emergency => {
            let little = matches!(w.action, UseAction::Read | UseAction::Compute);
            refuse(Denial::ActionNotCovered, !little)
        }
        Basis::Order(o) => {
            let covered = o.actions.contains(&w.action) && !reveals_more(o.output);
            refuse(Denial::OrderDoesNotCover, !covered)
        }
        Basis::Opening => Ok(()),
    }
}
