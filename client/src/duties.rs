//! What institutions still owe after a use that no person authorized, or a revocation: reviews, notices, erasures;
//! and which of them are overdue (R9, R17). Fed with every event of every block by [`crate::audit`], so that none is
//! missing; until when each is due is looked up, proved: holds and emergencies carry dates of their own.

use std::collections::{BTreeMap, BTreeSet};

use assent_proto::event::{EventCore, EventKind};
use assent_proto::state::{Object, ObjectRef, OpenEmergency, Parameters};
use assent_proto::{PermitId, TimeMs};
use serde_json::{Value, json};

use assent_genesis::Genesis;

use crate::error::Failure;
use crate::rpc::Node;
use crate::words::{self, Lang};

/// The duties that are open, as the events so far tell.
#[derive(Default)]
pub(crate) struct Duties {
    /// Grants, and when the erasure fell due to be attested; the time allowed counts from here.
    erasures: BTreeMap<ObjectRef, TimeMs>,
    /// Grants of which something is kept in storage by law.
    held: BTreeSet<ObjectRef>,
    emergencies: BTreeMap<ObjectRef, Emergency>,
}

/// An emergency whose duties are not all done.
struct Emergency {
    since: TimeMs,
    review: bool,
    notice: bool,
}

impl Duties {
    /// Takes one event in.
    pub(crate) fn event(&mut self, core: &EventCore) {
        match core.kind {
            EventKind::ErasureDue => {
                self.erasures.insert(core.object, core.time);
            }
            EventKind::ErasureAttested => {
                self.erasures.remove(&core.object);
                self.held.remove(&core.object);
            }
            EventKind::ErasureHeld => {
                self.held.insert(core.object);
            }
            EventKind::EmergencyOpened | EventKind::EmergencyAnchored | EventKind::EmergencyAnchoredLate => {
                let open = Emergency { since: core.time, review: true, notice: true };
                self.emergencies.insert(core.object, open);
            }
            EventKind::EmergencyReviewed => self.done(core, |e| e.review = false),
            // Of a use by order the permit is told of, and nothing was open.
            EventKind::PersonNotified => self.done(core, |e| e.notice = false),
            _ => {}
        }
    }

    fn done(&mut self, core: &EventCore, what: impl Fn(&mut Emergency)) {
        self.emergencies.get_mut(&core.object).into_iter().for_each(what);
        self.emergencies.retain(|_, e| e.review || e.notice);
    }

    /// The erasures that are due, by the bounds in force: they may have been changed, and count for duties from
    /// before too.
    pub(crate) fn erasures(
        &self,
        node: &mut Node,
        bounds: &Parameters,
        now: TimeMs,
    ) -> Result<Vec<Value>, Failure> {
        let mut list = Vec::new();
        for (grant, since) in &self.erasures {
            let held = match self.held.contains(grant) {
                true => held_until(node, grant)?,
                false => None,
            };
            let due = since.plus(bounds.erasure_deadline_ms);
            let due = held.map_or(due, |held| due.max(held));
            list.push(json!({ "grant": grant.id, "due": due, "overdue": due < now, "held_until": held }));
        }
        Ok(list)
    }

    /// The emergencies that are not reviewed or not told to the person.
    pub(crate) fn emergencies(
        &self,
        genesis: &Genesis,
        node: &mut Node,
        now: TimeMs,
    ) -> Result<Vec<Value>, Failure> {
        let mut list = Vec::new();
        for (object, e) in &self.emergencies {
            let permit = PermitId(object.id);
            let Some(Object::Emergency(held)) = node.object(*object)?.object else {
                return Err(Failure::Proof(format!(
                    "the emergency of the permit {permit} is not on the chain"
                )));
            };
            let requester = node.institution(held.requester)?;
            let duties = requester.map(|r| r.emergencies).unwrap_or_default();
            let open = duties.iter().find(|o| o.permit == permit);
            // What was done since the newest block that was followed is not open any more.
            if let Some(open) = open {
                let entry = emergency_json(open, e.since, now);
                list.push(with_requester(entry, words::slug(genesis, &held.requester)));
            }
        }
        Ok(list)
    }
}

fn with_requester(mut entry: Value, requester: String) -> Value {
    entry["requester"] = json!(requester);
    entry
}

fn emergency_json(open: &OpenEmergency, since: TimeMs, now: TimeMs) -> Value {
    let overdue = [open.review_by, open.notify_by].into_iter().flatten().any(|due| due < now);
    json!({
        "permit": open.permit, "since": since, "review_by": open.review_by, "notify_by": open.notify_by,
        "overdue": overdue,
    })
}

fn held_until(node: &mut Node, grant: &ObjectRef) -> Result<Option<TimeMs>, Failure> {
    match node.object(*grant)?.object {
        Some(Object::Grant(g)) => Ok(g.hold.map(|h| h.until)),
        _ => Err(Failure::Proof(format!("the grant {} of an erasure duty is not on the chain", grant.id))),
    }
}

/// Open duties in words: how many, and each that is overdue.
pub(crate) fn in_words(erasures: &[Value], emergencies: &[Value], lang: Lang) -> String {
    let mut text = format!(
        "{}: {}; {}: {}\n",
        lang.pick("open erasure duties", "未完成的删除义务"),
        erasures.len(),
        lang.pick("emergencies to be reviewed or told", "待审查或告知的急救使用"),
        emergencies.len()
    );
    let overdue = lang.pick("overdue", "已逾期");
    let late = |list: &&Value| list["overdue"] == true;
    for e in erasures.iter().filter(late) {
        let what = lang.pick("erasure under the grant", "授权项下的删除");
        text += &format!("  {overdue}: {what} {}, {}\n", plain(&e["grant"]), time(&e["due"]));
    }
    for e in emergencies.iter().filter(late) {
        let due = |by: &Value, en, zh| match by.is_null() {
            true => String::new(),
            false => format!(", {} {}", lang.pick(en, zh), time(by)),
        };
        text += &format!(
            "  {overdue}: {} {} {}{}{}\n",
            lang.pick("emergency", "急救使用"),
            plain(&e["requester"]),
            plain(&e["permit"]),
            due(&e["review_by"], "review by", "审查期限"),
            due(&e["notify_by"], "notice by", "告知期限"),
        );
    }
    text
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| "?".to_owned(), |ms| words::show_time(TimeMs(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::transaction::{ActionKind, Author};
    use assent_proto::{AccountId, BodyId, GrantId, Hash, Height};

    fn core(kind: EventKind, object: ObjectRef, time: u64) -> EventCore {
        EventCore {
            height: Height(1),
            transaction: 0,
            event: 0,
            time: TimeMs(time),
            body: BodyId(Hash::ZERO),
            author: Author::Account(AccountId(Hash::ZERO)),
            action: ActionKind::RequestAccess,
            kind,
            code: 0,
            object,
            object_hash: Hash::ZERO,
        }
    }

    fn use_of(n: u8) -> ObjectRef {
        ObjectRef::emergency(PermitId(Hash([n; 32])))
    }

    #[test]
    fn r17_an_emergency_is_open_until_it_is_reviewed_and_told() {
        let mut duties = Duties::default();
        let kinds =
            [EventKind::EmergencyOpened, EventKind::EmergencyAnchored, EventKind::EmergencyAnchoredLate];
        for (n, kind) in (1..).zip(kinds) {
            duties.event(&core(kind, use_of(n), 7));
        }
        duties.event(&core(EventKind::PersonNotified, use_of(1), 8));
        duties.event(&core(EventKind::EmergencyReviewed, use_of(2), 8));
        assert_eq!(duties.emergencies.len(), 3);
        duties.event(&core(EventKind::EmergencyReviewed, use_of(1), 9));
        duties.event(&core(EventKind::PersonNotified, use_of(2), 9));
        assert_eq!(duties.emergencies.keys().collect::<Vec<_>>(), [&use_of(3)]);
        let permit = ObjectRef::from(PermitId(Hash([3; 32])));
        duties.event(&core(EventKind::PersonNotified, permit, 9));
        let left = &duties.emergencies[&use_of(3)];
        assert!(left.review && left.notice, "a notice under an order ends no emergency's duty");
    }

    #[test]
    fn r17_a_duty_is_overdue_from_the_moment_after_its_last() {
        let entry = |review_by: Option<u64>, notify_by: Option<u64>, now| {
            let permit = PermitId(Hash([1; 32]));
            let (review_by, notify_by) = (review_by.map(TimeMs), notify_by.map(TimeMs));
            let open = OpenEmergency { permit, review_by, notify_by };
            with_requester(emergency_json(&open, TimeMs(1), TimeMs(now)), "hospital-b".into())
        };
        for (review_by, notify_by, now, overdue) in [
            (Some(9), Some(5), 5, false),
            (Some(9), Some(5), 6, true),
            (Some(9), None, 9, false),
            (Some(9), None, 10, true),
            (None, Some(5), 6, true),
        ] {
            let entry = entry(review_by, notify_by, now);
            assert_eq!(entry["overdue"], overdue, "{entry}");
            let told = in_words(&[], &[entry], Lang::En);
            assert_eq!(told.contains("overdue: emergency hospital-b 0101"), overdue, "{told}");
        }
    }

    #[test]
    fn r9_an_erasure_is_due_until_it_is_attested() {
        let mut duties = Duties::default();
        let grant = ObjectRef::from(GrantId(Hash([3; 32])));
        duties.event(&core(EventKind::ErasureDue, grant, 5));
        assert_eq!(duties.erasures.get(&grant), Some(&TimeMs(5)));
        duties.event(&core(EventKind::ErasureHeld, grant, 6));
        assert!(duties.erasures.contains_key(&grant) && duties.held.contains(&grant));
        duties.event(&core(EventKind::ErasureAttested, grant, 7));
        assert!(duties.erasures.is_empty() && duties.held.is_empty());
    }
}
