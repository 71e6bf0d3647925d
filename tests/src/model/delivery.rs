//! Permits, deliveries, erasure (R3, R8, R9). Rules 97 to 113.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::ObjectRef;
use assent_proto::transaction::*;
use assent_proto::{Hash, merkle};

use super::{Asked, Done, Model, Verdict, event, refuse};

/// What was asked for, by a request or by a release in an outage.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) requester: InstitutionId,
    pub(crate) grant: Option<GrantId>,
    pub(crate) order: Option<OrderId>,
    pub(crate) emergency: Option<EmergencyReason>,
    pub(crate) item: ItemId,
    pub(crate) account: Option<AccountId>,
    pub(crate) case: Option<CaseId>,
    pub(crate) purpose: Purpose,
    pub(crate) action: UseAction,
    pub(crate) output: Output,
    pub(crate) records: Vec<RecordProof>,
    pub(crate) staff: Commitment,
    pub(crate) person: Option<AccountId>,
    /// Of a release in an outage: when.
    pub(crate) released_at: Option<TimeMs>,
    /// And who says that it released.
    pub(crate) source: Option<InstitutionId>,
}

impl Wanted {
    pub(crate) fn of_request(requester: InstitutionId, r: &RequestAccess) -> Wanted {
        Wanted {
            requester,
            grant: r.grant,
            order: r.order,
            emergency: r.emergency,
            item: r.item,
            account: r.account,
            case: r.case,
            purpose: r.purpose,
            action: r.action,
            output: r.output,
            records: r.records.to_vec(),
            staff: r.staff,
            person: r.person,
            released_at: None,
            source: None,
        }
    }

    pub(crate) fn of_outage(source: InstitutionId, a: &AnchorEmergency) -> Wanted {
        Wanted {
            requester: a.requester,
            grant: None,
            order: None,
            emergency: Some(a.reason),
            item: a.item,
            account: Some(a.account),
            case: None,
            purpose: Purpose::EmergencyTreatment,
            action: a.action,
            output: a.output,
            records: a.records.to_vec(),
            staff: a.staff,
            person: None,
            released_at: Some(a.released_at),
            source: Some(source),
        }
    }

    pub(crate) fn manifest(&self) -> Hash {
        merkle::root(&self.records.iter().map(|r| r.record.leaf()).collect::<Vec<_>>())
    }

    /// Whose records they are, and whom the request names.
    pub(crate) fn persons(&self) -> Vec<AccountId> {
        let mut all: Vec<_> = self.records.iter().map(|r| r.record.account).chain(self.account).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// A permit and what became of it.
pub(crate) struct Permitted {
    pub(crate) id: PermitId,
    pub(crate) request: Wanted,
    pub(crate) custodian: InstitutionId,
    pub(crate) level: Level,
    pub(crate) height: Height,
    pub(crate) expires_at: TimeMs,
    pub(crate) delivered: Option<Height>,
    pub(crate) undelivered: bool,
}

impl Model {
    pub(crate) fn permit(&self, id: PermitId) -> Option<Permitted> {
        let place = self.history.iter().position(|d| d.asked.body.0 == id.0)?;
        self.permit_at(place, &self.history[place])
    }

    /// Permits that rest on a grant.
    pub(crate) fn permits_on(&self, id: GrantId) -> Vec<Permitted> {
        let on = |d: &Done| matches!(&d.asked.action, Action::RequestAccess(r) if r.grant == Some(id));
        let places = (0..self.history.len()).filter(|p| on(&self.history[*p]));
        places.filter_map(|p| self.permit_at(p, &self.history[p])).collect()
    }

    /// Every permit as it is now, oldest first.
    pub(crate) fn permits(&self) -> impl Iterator<Item = Permitted> {
        self.history.iter().enumerate().filter_map(|(place, d)| self.permit_at(place, d))
    }

    fn permit_at(&self, place: usize, d: &Done) -> Option<Permitted> {
        d.verdict.as_ref().ok()?;
        let parameters = self.parameters_at(d.at.height);
        let request = match &d.asked.action {
            Action::RequestAccess(r) => Wanted::of_request(d.asked.institution(), r),
            Action::AnchorEmergency(a) => Wanted::of_outage(d.asked.institution(), a),
            _ => return None,
        };
        let emergency = request.emergency.is_some();
        let life = if emergency { parameters.emergency_permit_life_ms } else { parameters.permit_life_ms };
        let id = PermitId(d.asked.body.0);
        let item = self.item_at(request.item, place).expect("what is permitted is in the catalogue");
        let recorded = self.applied().find_map(|d| match &d.asked.action {
            Action::Deliver(x) if x.permit == id => Some(x.released_height),
            _ => None,
        });
        let outage = request.released_at.map(|_| d.at.height);
        Some(Permitted {
            id,
            custodian: item.custodian,
            level: item.level,
            height: d.at.height,
            // What was released in an outage is not to be released again.
            expires_at: d.at.time.plus(if request.released_at.is_some() { 0 } else { life }),
            delivered: outage.or(recorded),
            undelivered: self
                .applied()
                .any(|d| matches!(&d.asked.action, Action::NotDelivered(x) if x.permit == id)),
            request,
        })
    }

    /// Whether an order keeps a use from persons' trails still.
    fn defers(&self, w: &Wanted) -> bool {
        w.order.and_then(|o| self.order(o)).is_some_and(|o| self.at.time < o.notice_from)
    }

    /// Whom an event about a permit may be told now: everybody whose records it permits, unless an order defers it.
    pub(crate) fn told(&self, w: &Wanted) -> Vec<ObjectRef> {
        if self.defers(w) { vec![] } else { w.persons().into_iter().map(ObjectRef::from).collect() }
    }

    /// The trails that a permit joins.
    pub(crate) fn use_trails(&self, w: &Wanted, custodian: InstitutionId) -> Vec<ObjectRef> {
        let mut trails = self.delivery_trails(w, custodian);
        trails.push(w.item.into());
        trails.extend(self.told(w));
        // Who asked under her own name; while an order defers notice, she is on no trail either.
        trails.extend(w.person.filter(|_| !self.defers(w)).map(ObjectRef::from));
        trails
    }

    /// The trails that what becomes of a permit joins. A permit keeps one person's name, not those of all whose
    /// records it permits: they see the permit alone.
    fn delivery_trails(&self, w: &Wanted, custodian: InstitutionId) -> Vec<ObjectRef> {
        let mut trails: Vec<ObjectRef> = vec![w.requester.into(), custodian.into()];
        trails.extend(w.grant.map(ObjectRef::from));
        trails.extend(w.order.map(ObjectRef::from));
        let told = self.told(w);
        trails.extend(self.named(w).map(ObjectRef::from).filter(|p| told.contains(p)));
        trails
    }

    /// The one person that a use is about: named, or the grant's.
    pub(crate) fn named(&self, w: &Wanted) -> Option<AccountId> {
        w.account.or_else(|| Some(self.grant_of(w.grant?)?.account))
    }

    pub(crate) fn deliver(&self, asked: &Asked, a: &Deliver) -> Verdict {
        let p = self.permit(a.permit).ok_or(Denial::NoSuchPermit)?;
        refuse(Denial::NotTheCustodian, p.custodian != asked.institution())?;
        let known = (p.height..self.at.height).contains(&a.released_height);
        refuse(Denial::ReleaseHeightUnknown, !known)?;
        let grant = p.request.grant.and_then(|g| self.grant_of(g));
        let revoked = grant.and_then(|g| g.revoked);
        let withdrawn = revoked.as_ref().is_some_and(|r| r.height <= a.released_height);
        refuse(Denial::PermitDead, self.at.time > p.expires_at || withdrawn || p.undelivered)?;
        refuse(Denial::AlreadyDelivered, p.delivered.is_some())?;
        let same = a.manifest == p.request.manifest() && a.records as usize == p.request.records.len();
        refuse(Denial::ManifestMismatch, !same)?;
        let mut events =
            vec![event(EventKind::Delivered, a.permit, self.delivery_trails(&p.request, p.custodian))];
        if let (Some(id), Some(_)) = (p.request.grant, revoked) {
            let account = self.grant_of(id).expect("it was relied on").account;
            events.push(event(EventKind::ErasureDue, id, [account.into(), p.request.requester.into()]));
        }
        Ok(events)
    }

    pub(crate) fn not_delivered(&self, asked: &Asked, a: &NotDelivered) -> Verdict {
        let p = self.permit(a.permit).ok_or(Denial::NoSuchPermit)?;
        refuse(Denial::NotTheCustodian, p.custodian != asked.institution())?;
        refuse(Denial::SameInstitution, p.custodian == p.request.requester)?;
        refuse(Denial::PermitDead, self.at.time > p.expires_at)?;
        refuse(Denial::AlreadyDelivered, p.delivered.is_some())?;
        refuse(Denial::AlreadyUndelivered, p.undelivered)?;
        Ok(vec![event(EventKind::NotDelivered, a.permit, self.delivery_trails(&p.request, p.custodian))])
    }

    /// The place in the history of what last opened the duty to erase what came of a grant, and since when it runs.
    pub(crate) fn erasure(&self, id: GrantId) -> Option<Erasure> {
        let revoked = self.grant_of(id)?.revoked?;
        let mut erasure: Option<Erasure> = None;
        let permit_of = |d: &Done| match &d.asked.action {
            Action::Deliver(x) => self.permit(x.permit).and_then(|p| p.request.grant) == Some(id),
            _ => false,
        };
        for d in self.applied() {
            match &d.asked.action {
                _ if permit_of(d) => {
                    let hold = erasure.take().and_then(|e| e.hold);
                    erasure = Some(Erasure { since: revoked.time, hold, erased: None });
                }
                Action::AttestErasure(x) if x.grant == id => {
                    if let Some(e) = &mut erasure {
                        match &x.hold {
                            Some(hold) => e.hold = Some(hold.clone()),
                            None => (e.erased, e.hold) = (Some(d.at.height), None),
                        }
                    }
                }
                _ => (),
            }
        }
        erasure
    }

    /// Until when erasure must be attested, where it must (R9).
    pub(crate) fn erasure_due(&self, id: GrantId) -> Option<TimeMs> {
        let e = self.erasure(id)?;
        if e.erased.is_some() {
            return None;
        }
        let deadline = e.since.plus(self.parameters().erasure_deadline_ms);
        Some(e.hold.map_or(deadline, |h| h.until.max(deadline)))
    }

    pub(crate) fn attest_erasure(&self, asked: &Asked, a: &AttestErasure) -> Verdict {
        let grant = self.grant_of(a.grant).ok_or(Denial::NoSuchGrant)?;
        refuse(Denial::OtherGrantee, grant.terms.grantee != asked.institution())?;
        refuse(Denial::NoErasureDuty, self.erasure_due(a.grant).is_none())?;
        let held = a.hold.as_ref();
        refuse(Denial::BadTerms, held.is_some_and(|h| h.until <= self.at.time))?;
        let kind = if held.is_some() { EventKind::ErasureHeld } else { EventKind::ErasureAttested };
        Ok(vec![event(kind, a.grant, [asked.author_ref(), grant.account.into()])])
    }
}

/// What became of the duty to erase.
pub(crate) struct Erasure {
    since: TimeMs,
    pub(crate) hold: Option<Hold>,
    pub(crate) erased: Option<Height>,
}
