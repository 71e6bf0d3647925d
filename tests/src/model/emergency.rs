//! Emergencies and their duties (R17). Rules 114 to 125.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Emergency, ObjectRef, OpenEmergency, Role};
use assent_proto::transaction::*;

use super::delivery::{Permitted, Wanted};
use super::{Asked, Model, Verdict, event, has_role, refuse};

impl Model {
    /// The emergency that a permit rests on.
    pub(crate) fn emergency(&self, id: PermitId) -> Option<Emergency> {
        let permit = self.permit(id)?;
        let reason = permit.request.emergency?;
        let opened = self.done(id.0).expect("a permit is of a request");
        let reviewed = self.applied().find_map(|d| match &d.asked.action {
            Action::ReviewEmergency(r) if r.permit == id => Some((d.asked.institution(), r.verdict)),
            _ => None,
        });
        let told = self.applied().find_map(|d| match &d.asked.action {
            Action::NotifyPerson(n) if n.permit == id => Some(d.at.height),
            _ => None,
        });
        Some(Emergency {
            requester: permit.request.requester,
            reason,
            time: opened.at.time,
            released_at: permit.request.released_at,
            late: opened.has(EventKind::EmergencyAnchoredLate),
            verdict: reviewed.map(|(_, v)| v),
            reviewer: reviewed.map(|(i, _)| i),
            notified_height: told,
        })
    }

    /// An institution's emergencies that wait for review or notice, oldest first.
    pub(crate) fn open_emergencies(&self, requester: InstitutionId) -> Vec<OpenEmergency> {
        let own = self.permits().filter(|p| p.request.requester == requester);
        let duties = own.filter_map(|p| Some(self.duties(&p, self.emergency(p.id)?)));
        duties.filter(|e| e.review_by.is_some() || e.notify_by.is_some()).collect()
    }

    fn duties(&self, permit: &Permitted, e: Emergency) -> OpenEmergency {
        let then = self.parameters_at(permit.height);
        // Late, both are overdue at once: since the deadline that was missed.
        let missed = e.released_at.filter(|_| e.late).map(|t| t.plus(then.emergency_anchor_ms));
        let by = |ms| missed.unwrap_or(e.time.plus(ms));
        OpenEmergency {
            permit: permit.id,
            review_by: e.verdict.is_none().then(|| by(then.emergency_review_ms)),
            notify_by: e.notified_height.is_none().then(|| by(then.emergency_notice_ms)),
        }
    }

    pub(crate) fn anchor_emergency(&self, asked: &Asked, a: &AnchorEmergency) -> Verdict {
        refuse(Denial::NoSuchInstitution, self.institution(a.requester).is_none())?;

        let w = Wanted::of_outage(asked.institution(), a);
        let item = self.may_use(&w)?;
        let anchored = self.anchored_since_2(&ObjectRef::release(a)).is_some();
        refuse(Denial::AlreadyAnchored, self.version_at(self.at.height) >= 2 && anchored)?;
        let late = self.at.time > a.released_at.plus(self.parameters().emergency_anchor_ms);
        let kind = if late { EventKind::EmergencyAnchoredLate } else { EventKind::EmergencyAnchored };
        let permit = PermitId(asked.body.0);
        Ok(self.emergency_events(kind, permit, &w, item.custodian))
    }

    /// A use in an emergency is told as a use and as an emergency.
    pub(crate) fn emergency_events(
        &self,
        kind: EventKind,
        permit: PermitId,
        w: &Wanted,
        custodian: InstitutionId,
    ) -> Vec<super::Happening> {
        let parties: [ObjectRef; 3] = [w.requester.into(), custodian.into(), permit.into()];
        let trails = parties.into_iter().chain(w.account.map(ObjectRef::from));
        vec![
            event(EventKind::Permitted, permit, self.use_trails(w, custodian)),
            event(kind, ObjectRef::emergency(permit), trails),
        ]
    }

    /// The permit of a release in an outage that was anchored under version 2 or later.
    pub(crate) fn anchored_since_2(&self, release: &ObjectRef) -> Option<PermitId> {
        self.applied().find_map(|d| match &d.asked.action {
            Action::AnchorEmergency(a) if ObjectRef::release(a) == *release => {
                (self.version_at(d.at.height) >= 2).then_some(PermitId(d.asked.body.0))
            }
            _ => None,
        })
    }

    /// When the person was told first of a use by order, under version 2 or later.
    pub(crate) fn told_since_2(&self, id: PermitId) -> Option<Height> {
        self.permit(id)?.request.order?;
        self.applied().find_map(|d| match &d.asked.action {
            Action::NotifyPerson(n) if n.permit == id => {
                (self.version_at(d.at.height) >= 2).then_some(d.at.height)
            }
            _ => None,
        })
    }

    pub(crate) fn review_emergency(&self, asked: &Asked, a: &ReviewEmergency) -> Verdict {
        refuse(Denial::NotPermittedRole, !has_role(&self.author(asked), Role::Regulator))?;
        let e = self.emergency(a.permit).ok_or(Denial::NoSuchEmergency)?;
        refuse(Denial::SameInstitution, e.requester == asked.institution())?;
        refuse(Denial::AlreadyReviewed, e.verdict.is_some())?;
        let permit = self.permit(a.permit).expect("an emergency is of a permit");
        let trails = [asked.author_ref(), e.requester.into(), a.permit.into()];
        let trails = trails.into_iter().chain(permit.request.account.map(ObjectRef::from));
        Ok(vec![event(EventKind::EmergencyReviewed, ObjectRef::emergency(a.permit), trails)])
    }

    pub(crate) fn notify_person(&self, asked: &Asked, a: &NotifyPerson) -> Verdict {
        let p = self.permit(a.permit).ok_or(Denial::NoSuchPermit)?;
        refuse(Denial::NotTheRequester, p.request.requester != asked.institution())?;
        let told = self.emergency(a.permit).is_some_and(|e| e.notified_height.is_some());
        refuse(Denial::AlreadyNotified, told)?;
        let order = p.request.order.and_then(|o| self.order(o));
        let by_order = order.is_some_and(|o| p.request.account.is_some() && self.at.time >= o.notice_from);
        refuse(Denial::NoNoticeDue, p.request.emergency.is_none() && !by_order)?;
        let again = self.version_at(self.at.height) >= 2 && self.told_since_2(a.permit).is_some();
        refuse(Denial::AlreadyNotified, again)?;
        let object = match p.request.emergency {
            Some(_) => ObjectRef::emergency(a.permit),
            None => a.permit.into(),
        };
        let trails = [asked.author_ref(), a.permit.into()];
        let trails = trails.into_iter().chain(p.request.account.map(ObjectRef::from));
        Ok(vec![event(EventKind::PersonNotified, object, trails)])
    }
}
