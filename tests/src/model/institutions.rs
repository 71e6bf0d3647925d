//! Who institutions are, their standing and keys (R18). Rules 159 to 161 and 189.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::check_encryption_key;
use assent_proto::state::{Institution, ObjectRef, OperatorKey};
use assent_proto::transaction::*;

use super::{Asked, Model, Verdict, event, has_twice, refuse};

impl Model {
    /// An institution as it is now, without what is worked out elsewhere: its proposals and emergencies.
    pub(crate) fn institution(&self, id: InstitutionId) -> Option<Institution> {
        self.institution_before(id, self.history.len())
    }

    /// As it was before the transaction at a place in the history.
    pub(crate) fn institution_before(&self, id: InstitutionId, place: usize) -> Option<Institution> {
        let mut i = self.founding.institutions.get(&id).cloned();
        for d in self.history[..place].iter().filter(|d| d.verdict.is_ok()) {
            if let Action::RotateOperator(r) = &d.asked.action
                && d.asked.author == Author::Institution(id)
                && let Some(i) = &mut i
            {
                let keys = rotated(i.keys.to_vec(), r);
                i.keys = keys.try_into().expect("rule 161");
            }
            let change = d.enacts().and_then(|p| self.proposed(p)).map(|(_, p)| &p.change);
            if let Some(Change::Institution(c)) = change
                && c.institution == id
            {
                i = Some(changed(i, c));
            }
        }
        i
    }

    /// All that were ever admitted.
    pub(crate) fn institutions(&self) -> Vec<InstitutionId> {
        let admitted = self.enacted().filter_map(|(_, _, c)| match c {
            Change::Institution(c) => Some(c.institution),
            _ => None,
        });
        let mut all: Vec<_> = self.founding.institutions.keys().copied().chain(admitted).collect();
        all.sort();
        all.dedup();
        all
    }

    pub(crate) fn author(&self, asked: &Asked) -> Institution {
        self.institution(asked.institution()).expect("a valid author exists")
    }

    pub(crate) fn is_active(&self, id: InstitutionId) -> bool {
        self.institution(id).is_some_and(|i| i.standing == Standing::Active)
    }

    /// Rule 189.
    pub(crate) fn may_act(&self, asked: &Asked) -> Result<(), Denial> {
        let Author::Institution(id) = asked.author else { return Ok(()) };
        let duty = matches!(
            asked.action,
            Action::Deliver(_)
                | Action::NotDelivered(_)
                | Action::AttestErasure(_)
                | Action::NotifyPerson(_)
                | Action::AnchorEmergency(_)
                | Action::RotateOperator(_)
                | Action::EndDelegation(_)
                | Action::ReportEquivocation(_)
        );
        refuse(Denial::InstitutionSuspended, !duty && !self.is_active(id))
    }

    /// Rules 159 and 160.
    pub(crate) fn check_institution(&self, c: &ChangeInstitution) -> Result<(), Denial> {
        let before = self.institution(c.institution);
        if let Some(r) = &c.record {
            let keys: Vec<_> = r.keys.iter().map(|k| k.key).collect();
            let sane = |k: &OperatorKey| k.key.check().is_ok() && k.not_before <= k.not_after;
            let good = !r.roles.is_empty()
                && !has_twice(&r.roles)
                && !keys.is_empty()
                && !has_twice(&keys)
                && r.keys.iter().all(sane)
                && check_encryption_key(&r.encryption_key).is_ok()
                && (1..=999).contains(&r.jurisdiction);
            refuse(Denial::BadInstitution, !good)?;
        }
        match &before {
            None => {
                let admitted = c.record.is_some() && c.standing == Standing::Active;
                refuse(Denial::BadInstitution, !admitted)?;
            }
            Some(i) => {
                refuse(Denial::BadInstitution, i.standing == Standing::Expelled)?;
                refuse(Denial::BadInstitution, changed(Some(i.clone()), c) == *i)?;
                let voting = c.standing != Standing::Active && self.votes_or_will(c.institution);
                refuse(Denial::BadInstitution, voting)?;
            }
        }
        let known: Vec<_> = before.iter().flat_map(|i| i.keys.iter().map(|k| k.key)).collect();
        let shown = |k: &OperatorKey| known.contains(&k.key) || c.possessions.iter().any(|p| p.key == k.key);
        let shown = c.record.as_ref().is_none_or(|r| r.keys.iter().all(shown));
        refuse(Denial::MissingPossession, !shown)
    }

    /// Rule 164: whether an institution's change lets it do more than before.
    pub(crate) fn widens(&self, c: &ChangeInstitution) -> bool {
        let Some(i) = self.institution(c.institution) else { return true };
        let active = c.standing == Standing::Active && i.standing != Standing::Active;
        active
            || c.record.as_ref().is_some_and(|r| {
                r.roles.iter().any(|role| !i.roles.contains(role))
                    || (r.max_level as u8) > (i.max_level as u8)
                    || r.jurisdiction != i.jurisdiction
                    || r.rostered_until > i.rostered_until
            })
    }

    /// What an enacted change of an institution is called.
    pub(crate) fn institution_event(&self, c: &ChangeInstitution) -> EventKind {
        let before = self.institution(c.institution).map(|i| i.standing);
        match (before, c.standing) {
            (Some(b), s) if b == s => EventKind::Admitted,
            (None, _) => EventKind::Admitted,
            (_, Standing::Active) => EventKind::Reinstated,
            (_, Standing::Suspended) => EventKind::Suspended,
            (_, Standing::Expelled) => EventKind::Expelled,
        }
    }

    pub(crate) fn rotate_operator(&self, asked: &Asked, a: &RotateOperator) -> Verdict {
        let i = self.author(asked);
        let known = |k: &assent_proto::PublicKey| i.keys.iter().any(|o| o.key == *k);
        refuse(Denial::BadKeys, a.add.is_none() && a.retire.is_none())?;
        refuse(Denial::BadKeys, a.retire.is_some_and(|k| !known(&k)))?;
        if let Some(k) = &a.add {
            let never = k.not_after < k.not_before || k.not_after < self.at.time;
            refuse(Denial::BadKeys, known(&k.key) || never)?;
        }
        let keys = rotated(i.keys.to_vec(), a);
        let counts = |k: &&OperatorKey| (k.not_before..=k.not_after).contains(&self.at.time);
        refuse(Denial::BadKeys, keys.len() > 8 || !keys.iter().any(|k| counts(&k)))?;
        let own: ObjectRef = asked.author_ref();
        Ok(vec![event(EventKind::OperatorRotated, own, [])])
    }
}

fn rotated(mut keys: Vec<OperatorKey>, r: &RotateOperator) -> Vec<OperatorKey> {
    keys.retain(|k| r.retire != Some(k.key));
    keys.extend(r.add.clone());
    keys
}

fn changed(before: Option<Institution>, c: &ChangeInstitution) -> Institution {
    let (proposals, emergencies) =
        before.as_ref().map_or_else(Default::default, |i| (i.proposals.clone(), i.emergencies.clone()));
    match &c.record {
        None => Institution { standing: c.standing, ..before.expect("rule 159") },
        Some(r) => Institution {
            roles: r.roles.clone(),
            keys: r.keys.clone(),
            encryption_key: r.encryption_key,
            max_level: r.max_level,
            jurisdiction: r.jurisdiction,
            proposals,
            standing: c.standing,
            rostered_until: r.rostered_until,
            emergencies,
        },
    }
}
