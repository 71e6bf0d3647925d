//! What no order of a run may break, judged by events alone, height by height: delegations that ended, accounts
//! whose key is in question, duties that are overdue, orders, standing, policy. It knows nothing of how the ledger
//! decides; what it must be told beforehand (which grant is under which delegation) comes with the workload.

use std::collections::{BTreeMap, BTreeSet};

use assent_proto::event::EventKind;
use assent_proto::state::Parameters;
use assent_proto::{Author, Event, Hash, Height, InstitutionId, ObjectKind, ObjectRef, TimeMs};

use super::workload::Workload;

/// What has come to pass so far.
pub(super) struct Rights {
    bounds: Parameters,
    /// Events of heights whose turn has not come: a machine that took in a whole state tells of later ones first.
    waiting: BTreeMap<Height, Vec<Event>>,
    next: Height,
    /// Which delegation a grant is under.
    delegated: BTreeMap<ObjectRef, ObjectRef>,
    ended: BTreeSet<ObjectRef>,
    ratified: BTreeSet<ObjectRef>,
    /// Until when an account grants nothing; without an end where it is frozen.
    challenged: BTreeMap<ObjectRef, Option<TimeMs>>,
    /// Permits that were released on, or given back.
    answered: BTreeSet<ObjectRef>,
    suspended: BTreeMap<Author, Height>,
    /// Duties by emergency: until when it must be reviewed, and the person told.
    duties: BTreeMap<Hash, Duties>,
    /// Until when an order is used, and from when on its person is told.
    orders: BTreeMap<ObjectRef, (TimeMs, TimeMs)>,
    /// Grants for what comes onto the negative list, and when it did.
    prohibited: BTreeSet<ObjectRef>,
    policy_changed: Option<Height>,
}

struct Duties {
    of: Author,
    review_by: Option<TimeMs>,
    notify_by: Option<TimeMs>,
}

impl Rights {
    pub(super) fn new(bounds: &Parameters) -> Rights {
        Rights {
            bounds: bounds.clone(),
            waiting: BTreeMap::new(),
            next: Height(1),
            delegated: BTreeMap::new(),
            ended: BTreeSet::new(),
            ratified: BTreeSet::new(),
            challenged: BTreeMap::new(),
            answered: BTreeSet::new(),
            suspended: BTreeMap::new(),
            duties: BTreeMap::new(),
            orders: BTreeMap::new(),
            prohibited: BTreeSet::new(),
            policy_changed: None,
        }
    }

    pub(super) fn expect(&mut self, w: &Workload) {
        let delegated = w.delegated.iter().map(|(grant, by)| (ObjectRef::from(*grant), ObjectRef::from(*by)));
        self.delegated.extend(delegated);
        self.orders.extend(w.orders.iter().map(|(id, end, told)| (ObjectRef::from(*id), (*end, *told))));
        self.prohibited.extend(w.prohibited.iter().map(|grant| ObjectRef::from(*grant)));
    }

    /// The events of a height, once; says what is wrong with them or with those that waited for them.
    pub(super) fn read(&mut self, height: Height, events: &[Event]) -> Result<(), String> {
        self.waiting.insert(height, events.to_vec());
        while let Some(events) = self.waiting.remove(&self.next) {
            self.next = self.next.next();
            for event in &events {
                self.judge(event).map_err(|what| {
                    let core = &event.core;
                    format!("{what}: {:?} of {:?} in {:?}", core.kind, core.object, core.height)
                })?;
                self.note(event);
            }
        }
        Ok(())
    }

    fn judge(&self, event: &Event) -> Result<(), &'static str> {
        let core = &event.core;
        let ends = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
        for (_, told) in self.orders_of(event) {
            let silent = event.links.iter().all(|l| l.trail.kind != ObjectKind::Account);
            ends(core.time >= told || silent, "a person is told what an order defers")?;
        }
        match core.kind {
            EventKind::Permitted => self.judge_use(event),
            EventKind::Granted | EventKind::KeyRotated => {
                ends(
                    !self.is_challenged(&core.author, core.time),
                    "an account whose key is in question acts",
                )?;
                let over = self.delegated.get(&core.object).is_some_and(|by| self.ended.contains(by));
                ends(!over, "a delegate grants after the end")
            }
            EventKind::EmergencyOpened => {
                let own = self.duties.values().filter(|d| d.of == core.author);
                let mut due = own.flat_map(|d| [d.review_by, d.notify_by]).flatten();
                ends(!due.any(|by| by < core.time), "an emergency while a duty is overdue")
            }
            EventKind::Delivered | EventKind::NotDelivered => {
                ends(!self.answered.contains(&core.object), "a permit is answered twice")
            }
            _ => Ok(()),
        }
    }

    fn judge_use(&self, event: &Event) -> Result<(), &'static str> {
        let (core, ends) = (&event.core, |holds, what| if holds { Ok(()) } else { Err(what) });
        let suspended = self.suspended.get(&core.author).is_some_and(|since| *since < core.height);
        ends(!suspended, "who is suspended uses")?;
        for (not_after, _) in self.orders_of(event) {
            ends(core.time <= not_after, "an order is used after its end")?;
        }
        for grant in event.links.iter().map(|l| l.trail) {
            let over = self.delegated.get(&grant).is_some_and(|by| self.ended.contains(by));
            ends(!over || self.ratified.contains(&grant), "a use of a grant whose delegation has ended")?;
            let changed = self.policy_changed.is_some_and(|at| at < core.height);
            ends(!changed || !self.prohibited.contains(&grant), "a use that the negative list names")?;
        }
        Ok(())
    }

    fn orders_of(&self, event: &Event) -> impl Iterator<Item = (TimeMs, TimeMs)> {
        event.links.iter().filter_map(|l| self.orders.get(&l.trail).copied())
    }

    fn is_challenged(&self, author: &Author, time: TimeMs) -> bool {
        let Author::Account(id) = author else { return false };
        self.challenged.get(&(*id).into()).is_some_and(|until| until.is_none_or(|until| time < until))
    }

    fn note(&mut self, event: &Event) {
        let core = &event.core;
        let named = Author::Institution(InstitutionId(core.object.id));
        match core.kind {
            EventKind::DelegationEnded => drop(self.ended.insert(core.object)),
            EventKind::Ratified => drop(self.ratified.insert(core.object)),
            EventKind::RecoveryVetoed => drop(self.challenged.insert(core.object, None)),
            EventKind::RecoveryReady => self.recovered(core.object, core.time),
            EventKind::Delivered | EventKind::NotDelivered => drop(self.answered.insert(core.object)),
            EventKind::Suspended => drop(self.suspended.insert(named, core.height)),
            EventKind::Reinstated => drop(self.suspended.remove(&named)),
            EventKind::Enacted if core.object == ObjectRef::POLICY => self.policy_changed = Some(core.height),
            EventKind::EmergencyOpened => self.owe(event, false),
            EventKind::EmergencyAnchored => self.owe(event, false),
            EventKind::EmergencyAnchoredLate => self.owe(event, true),
            EventKind::EmergencyReviewed => self.done(core.object, |d| d.review_by = None),
            EventKind::PersonNotified => self.done(core.object, |d| d.notify_by = None),
            _ => {}
        }
    }

    /// A frozen account has a key again; of any other the old one can veto for a while.
    fn recovered(&mut self, account: ObjectRef, time: TimeMs) {
        if self.challenged.get(&account) == Some(&None) {
            self.challenged.remove(&account);
        } else {
            self.challenged.insert(account, Some(time.plus(self.bounds.recovery_delay_ms)));
        }
    }

    /// Who used owes review and notice: at once where it was anchored too late. What was released in an outage is
    /// anchored by the custodian, who is not the one that owes.
    fn owe(&mut self, event: &Event, at_once: bool) {
        let core = &event.core;
        let outage = core.kind != EventKind::EmergencyOpened;
        let institutions = event.links.iter().map(|l| l.trail).filter(|t| t.kind == ObjectKind::Institution);
        let mut others = institutions.map(|t| Author::Institution(InstitutionId(t.id)));
        let of = if outage { others.find(|i| *i != core.author).unwrap_or(core.author) } else { core.author };
        let by = |ms| Some(if at_once { TimeMs(core.time.0 - 1) } else { core.time.plus(ms) });
        let (review_by, notify_by) =
            (by(self.bounds.emergency_review_ms), by(self.bounds.emergency_notice_ms));
        self.duties.insert(core.object.id, Duties { of, review_by, notify_by });
    }

    fn done(&mut self, emergency: ObjectRef, done: impl Fn(&mut Duties)) {
        self.duties.get_mut(&emergency.id).into_iter().for_each(done);
    }
}

#[cfg(test)]
mod tests {
    use assent_genesis::default_parameters;
    use assent_ledger::testing::digest;
    use assent_proto::event::{EventCore, Link};
    use assent_proto::transaction::ActionKind;
    use assent_proto::{AccountId, BodyId, DelegationId, GrantId, OrderId, PermitId};

    use super::*;

    const A: Author = Author::Institution(InstitutionId(Hash([1; 32])));
    const B: Author = Author::Institution(InstitutionId(Hash([2; 32])));
    const PERSON: AccountId = AccountId(Hash([3; 32]));

    /// An event in a block of its own, at as many seconds.
    fn event(kind: EventKind, height: u64, author: Author, object: ObjectRef, trails: &[ObjectRef]) -> Event {
        let core = EventCore {
            height: Height(height),
            transaction: 0,
            event: 0,
            time: TimeMs(height * 1_000),
            body: BodyId(Hash::ZERO),
            author,
            action: ActionKind::Enrol,
            kind,
            code: 0,
            object,
            object_hash: Hash::ZERO,
        };
        let link = |trail: &ObjectRef| Link { trail: *trail, index: 0, head_before: Hash::ZERO };
        Event { core, links: trails.iter().map(link).collect::<Vec<_>>().try_into().unwrap() }
    }

    fn read(rights: &mut Rights, events: &[Event]) -> Result<(), String> {
        events.iter().try_for_each(|e| rights.read(e.core.height, std::slice::from_ref(e)))
    }

    /// The events pass but for the last, which is refused for this reason.
    fn refuses(w: &Workload, events: &[Event], why: &str) {
        let bounds = Parameters {
            recovery_delay_ms: 2_000,
            emergency_review_ms: 1_000,
            emergency_notice_ms: 1_000,
            ..default_parameters()
        };
        let mut rights = Rights::new(&bounds);
        rights.expect(w);
        let (last, before) = events.split_last().unwrap();
        read(&mut rights, before).unwrap();
        let what = read(&mut rights, std::slice::from_ref(last)).unwrap_err();
        assert!(what.starts_with(why), "{what}");
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        let (grant, permit) = (GrantId(digest("grant")), ObjectRef::from(PermitId(digest("permit"))));
        let (delegation, order) = (DelegationId(digest("delegation")), OrderId(digest("order")));
        let (person, on) = (ObjectRef::from(PERSON), ObjectRef::from(grant));
        let none = Workload::default();
        let used = |height, trails: &[ObjectRef]| event(EventKind::Permitted, height, A, permit, trails);

        let w = Workload { delegated: vec![(grant, delegation)], ..Workload::default() };
        let ended = event(EventKind::DelegationEnded, 1, B, delegation.into(), &[]);
        refuses(&w, &[ended.clone(), used(2, &[on])], "a use of a grant whose delegation has ended");
        let granted = event(EventKind::Granted, 2, Author::Account(PERSON), on, &[]);
        refuses(&w, &[ended, granted], "a delegate grants after the end");

        let of = |kind, height| event(kind, height, Author::Account(PERSON), on, &[]);
        let told = |kind, height| event(kind, height, B, person, &[]);
        let ready = told(EventKind::RecoveryReady, 1);
        refuses(&none, &[ready.clone(), of(EventKind::Granted, 2)], "an account whose key is in question");
        let veto = told(EventKind::RecoveryVetoed, 2);
        let late = of(EventKind::KeyRotated, 3);
        refuses(&none, &[ready.clone(), veto.clone(), late], "an account whose key is in question");
        let mut rights = Rights::new(&Parameters { recovery_delay_ms: 2_000, ..default_parameters() });
        read(&mut rights, &[ready, told(EventKind::Enrolled, 2), of(EventKind::Granted, 3)]).unwrap();

        let suspended = event(EventKind::Suspended, 1, B, InstitutionId(Hash([1; 32])).into(), &[]);
        refuses(&none, &[suspended, used(2, &[])], "who is suspended uses");
        let w = Workload { prohibited: vec![grant], ..Workload::default() };
        let enacted = event(EventKind::Enacted, 1, B, ObjectRef::POLICY, &[]);
        refuses(&w, &[enacted, used(2, &[on])], "a use that the negative list names");

        let w = Workload { orders: vec![(order, TimeMs(1_000), TimeMs(9_000))], ..Workload::default() };
        refuses(&w, &[used(1, &[order.into(), person])], "a person is told what an order defers");
        let first = used(1, &[order.into()]);
        refuses(&w, &[first, used(2, &[order.into()])], "an order is used after its end");

        let delivered = event(EventKind::Delivered, 1, B, permit, &[]);
        let not = event(EventKind::NotDelivered, 2, B, permit, &[]);
        refuses(&none, &[delivered, not], "a permit is answered twice");

        let opened = |height, name: &str| {
            let emergency = ObjectRef::emergency(PermitId(digest(name)));
            event(EventKind::EmergencyOpened, height, A, emergency, &[])
        };
        let notice = event(EventKind::PersonNotified, 2, A, opened(1, "one").core.object, &[]);
        let again = opened(3, "two");
        refuses(&none, &[opened(1, "one"), notice, again], "an emergency while a duty is overdue");
    }

    #[test]
    fn what_is_told_out_of_order_is_judged_in_order() {
        let (permit, clinic) = (ObjectRef::from(PermitId(digest("permit"))), InstitutionId(Hash([1; 32])));
        let all = [
            event(EventKind::Suspended, 1, B, clinic.into(), &[]),
            event(EventKind::Reinstated, 2, B, clinic.into(), &[]),
            event(EventKind::Permitted, 3, A, permit, &[]),
        ];
        let mut rights = Rights::new(&default_parameters());
        read(&mut rights, &[all[2].clone(), all[0].clone(), all[1].clone()]).unwrap();
        let mut rights = Rights::new(&default_parameters());
        assert!(
            read(
                &mut rights,
                &[all[2].clone(), all[0].clone(), event(EventKind::Settled, 2, B, permit, &[])]
            )
            .is_err()
        );
    }
}
