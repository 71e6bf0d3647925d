//! Grants and withdrawal (R2, R6, R8, R9), and grants for a ward (R15). Rules 57 to 64, 85 to 89.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{ObjectRef, Revocation};
use assent_proto::transaction::*;

use super::{Asked, Done, Model, Verdict, event, refuse};

/// A grant and what became of it.
pub(crate) struct Granted {
    pub(crate) terms: Grant,
    /// Whose.
    pub(crate) account: AccountId,
    pub(crate) signer: AccountId,
    pub(crate) height: Height,

    pub(crate) used: u32,
    pub(crate) delivered: u32,
    pub(crate) revoked: Option<Revocation>,
    pub(crate) ratified: bool,
}

impl Model {
    /// A grant as it is now.
    pub(crate) fn grant_of(&self, id: GrantId) -> Option<Granted> {
        let of = |d: &Done| d.asked.body.0 == id.0 && d.verdict.is_ok();
        let place = self.history.iter().position(of)?;
        let given = &self.history[place];
        let Action::Grant(terms) = &given.asked.action else { return None };
        let signer = given.asked.person();
        let account = terms.delegation.map_or(Some(signer), |d| Some(self.delegation(d)?.ward))?;
        let permits = self.permits_on(id);
        let count = |n: usize| u32::try_from(n).expect("a history is short");
        let withdrawn = |d: &&Done| matches!(&d.asked.action, Action::Revoke(r) if r.grant == id);
        // A withdrawal that came before it counts from the grant on.
        let early = self.remembered(account, id, place) || self.remembered(signer, id, place);
        let early = early.then_some(given);
        let revoked = early.or_else(|| self.applied().filter(withdrawn).find(|d| d.has(EventKind::Revoked)));
        Some(Granted {
            terms: (**terms).clone(),
            account,
            signer,
            height: given.at.height,

            used: count(permits.iter().filter(|p| !p.undelivered).count()),
            delivered: count(permits.iter().filter(|p| p.delivered.is_some()).count()),
            revoked: revoked.map(|d| Revocation { height: d.at.height, time: d.at.time }),
            ratified: self.applied().any(|d| matches!(&d.asked.action, Action::Ratify(r) if r.grant == id)),
        })
    }

    pub(crate) fn grants(&self) -> Vec<GrantId> {
        let given = self.applied().filter(|d| matches!(d.asked.action, Action::Grant(_)));
        given.map(|d| GrantId(d.asked.body.0)).collect()
    }

    /// Withdrawals that wait for their grants, with the time until which they are remembered: as long as a body
    /// signed before could still come.
    pub(crate) fn early(&self, account: AccountId) -> Vec<(GrantId, TimeMs)> {
        self.early_then(account, self.history.len(), self.at.time)
    }

    fn early_then(&self, account: AccountId, place: usize, now: TimeMs) -> Vec<(GrantId, TimeMs)> {
        let early = self.history[..place].iter().filter(|d| d.has(EventKind::RevokedEarly));
        let own = early.filter(|d| d.asked.author == Author::Account(account));
        let waits = own.filter_map(|d| match &d.asked.action {
            Action::Revoke(r) => {
                let until = d.at.time.plus(self.parameters_at(d.at.height).transaction_life_ms);
                Some((r.grant, until))
            }
            _ => None,
        });
        waits.filter(|(grant, until)| *until >= now && !self.is_given(*grant, account, place)).collect()
    }

    /// Whether a grant of an account had come by then, as its own or as its delegate's.
    fn is_given(&self, id: GrantId, account: AccountId, place: usize) -> bool {
        let given = self.history[..place].iter().find(|d| d.asked.body.0 == id.0 && d.verdict.is_ok());
        let Some(Action::Grant(terms)) = given.map(|d| &d.asked.action) else { return false };
        let ward = terms.delegation.and_then(|d| self.delegation(d)).map(|d| d.ward);
        given.is_some_and(|d| d.asked.author == Author::Account(account)) || ward == Some(account)
    }

    /// Whether an account had withdrawn a grant before it came.
    fn remembered(&self, account: AccountId, id: GrantId, place: usize) -> bool {
        let then = self.early_then(account, place, self.history[place].at.time);
        then.iter().any(|(grant, _)| *grant == id)
    }

    pub(crate) fn grant(&self, asked: &Asked, a: &Grant) -> Verdict {
        let signer = asked.person();
        refuse(Denial::AccountFrozen, self.person(signer).expect("the author has an account").challenged())?;
        refuse(Denial::BadTerms, a.delegation.is_none() && a.capacity != Capacity::Own)?;
        let mut account = signer;
        if let Some(id) = a.delegation {
            let d = self.delegation(id).ok_or(Denial::NoSuchDelegation)?;
            let fits = d.delegate == signer && d.capacity == a.capacity && d.purposes.contains(&a.purpose);
            refuse(Denial::NotTheDelegate, !fits)?;
            refuse(Denial::DelegationOver, !self.delegation_in_force(id))?;
            refuse(Denial::DelegationChain, self.has_guardian(signer))?;
            account = d.ward;
        }
        refuse(Denial::BadTerms, self.contradicts_itself(a))?;
        refuse(Denial::NoSuchInstitution, self.institution(a.grantee).is_none())?;
        let id = GrantId(asked.body.0);
        let trails: [ObjectRef; 3] = [account.into(), signer.into(), a.grantee.into()];
        let mut events = vec![event(EventKind::Granted, id, trails)];
        // Rule 59.
        if [account, signer].iter().any(|a| self.early(*a).iter().any(|(grant, _)| *grant == id)) {
            events.push(event(EventKind::Revoked, id, trails));
        }
        Ok(events)
    }

    /// Rule 57.
    fn contradicts_itself(&self, a: &Grant) -> bool {
        let mode = match a.mode {
            Mode::OneTime => a.uses == 1 && a.case.is_some(),
            Mode::NTimes => a.uses >= 1,
            Mode::Standing => a.uses == 0,
        };
        let something = !a.items.is_empty() || !a.categories.is_empty();
        let granted = something && !a.actions.is_empty() && !a.jurisdictions.is_empty();
        let forward = a.data_from <= a.data_to && a.not_before <= a.not_after && a.not_after > self.at.time;
        !(mode && granted && forward && a.policy_version <= self.policy().version)
    }

    pub(crate) fn revoke(&self, asked: &Asked, a: &Revoke) -> Verdict {
        let id = asked.person();
        let Some(grant) = self.grant_of(a.grant) else {
            let early = self.early(id);
            refuse(Denial::AlreadyRevoked, early.iter().any(|(g, _)| *g == a.grant))?;
            refuse(Denial::TooManyEarlyRevocations, early.len() >= 16)?;
            return Ok(vec![event(EventKind::RevokedEarly, id, [])]);
        };
        refuse(Denial::NotTheGrantor, id != grant.account && id != grant.signer)?;
        refuse(Denial::AlreadyRevoked, grant.revoked.is_some())?;
        let persons: [ObjectRef; 2] = [grant.account.into(), grant.signer.into()];
        let trails = persons.into_iter().chain([grant.terms.grantee.into()]);
        let mut events = vec![event(EventKind::Revoked, a.grant, trails.clone())];
        if grant.delivered > 0 {
            events.push(event(EventKind::ErasureDue, a.grant, trails));
        }
        Ok(events)
    }
}
