//! Accounts, keys, recovery (R16, R18); guardians and proxies (R15). Rules 65 to 96 but those of grants, and 190.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::{Delegation, Ended, ObjectRef, Parameters, Recovery, Role};
use assent_proto::transaction::*;

use super::{Asked, Model, Verdict, event, has_role, has_twice, refuse};

/// What became of an account.
pub(crate) struct Person {
    pub(crate) enroller: InstitutionId,
    pub(crate) custodian: InstitutionId,
    pub(crate) key: PublicKey,
    pub(crate) enrolled: Height,
    pub(crate) frozen: bool,
    /// One that waits for approvals or for the end of its delay.
    pub(crate) recovery: Option<Recovery>,
}

impl Person {
    /// Time goes on: a delay ends and the new key counts, or too few have approved and it is forgotten.
    fn pass(&mut self, now: TimeMs) {
        let Some(r) = &self.recovery else { return };
        match r.ready_at {
            Some(at) if at <= now => {
                self.key = r.key;
                self.recovery = None;
            }
            None if r.until < now => self.recovery = None,
            _ => (),
        }
    }

    /// Neither the old key nor the new may authorize anything.
    pub(crate) fn challenged(&self) -> bool {
        self.frozen || self.recovery.is_some()
    }
}

impl Model {
    /// An account as it is now.
    pub(crate) fn person(&self, id: AccountId) -> Option<Person> {
        let opened = self.done(id.0)?;
        let Action::Enrol(e) = &opened.asked.action else { return None };
        let mut person = Person {
            enroller: opened.asked.institution(),
            custodian: e.custodian,
            key: e.key,
            enrolled: opened.at.height,
            frozen: false,
            recovery: None,
        };
        for (place, d) in self.history.iter().enumerate().filter(|(_, d)| d.verdict.is_ok()) {
            person.pass(d.at.time);
            let own = d.asked.author == Author::Account(id);
            match &d.asked.action {
                Action::RotateKey(r) if own => person.key = r.key,
                Action::VetoRecovery(_) if own => {
                    person.recovery = None;
                    person.frozen = true;
                }
                Action::Recover(r) if r.account == id => {
                    let p = self.parameters_at(d.at.height);
                    self.heed_those_who_may_speak(&mut person, place);
                    approve_recovery(&mut person, r, d.asked.institution(), d.at.time, p);
                }
                _ => (),
            }
        }
        person.pass(self.at.time);
        Some(person)
    }

    /// Rule 190: a signature by a key that was replaced earlier in the block only takes back.
    pub(crate) fn keys_still_count(&self, asked: &Asked) -> Result<(), Denial> {
        let takes_back =
            matches!(asked.action, Action::Revoke(_) | Action::VetoRecovery(_) | Action::EndDelegation(_));
        if takes_back {
            return Ok(());
        }
        if let Author::Account(id) = asked.author {
            let current = self.person(id).map(|p| p.key);
            refuse(Denial::KeyReplaced, current != Some(asked.signers[0]))?;
        }
        let second = match &asked.action {
            Action::RequestAccess(r) => r.person,
            Action::Delegate(d) if d.capacity == Capacity::Guardian => Some(d.delegate),
            Action::Delegate(d) => Some(d.ward),
            _ => None,
        };
        if let Some(id) = second {
            let current = self.person(id).map(|p| p.key);
            refuse(Denial::KeyReplaced, current != Some(asked.signers[1]))?;
        }
        Ok(())
    }

    pub(crate) fn enrol(&self, asked: &Asked, a: &Enrol) -> Verdict {
        let author = self.author(asked);
        refuse(Denial::NotPermittedRole, !has_role(&author, Role::Bureau))?;
        refuse(Denial::NoSuchInstitution, self.institution(a.custodian).is_none())?;
        let account = AccountId(asked.body.0);
        Ok(vec![event(EventKind::Enrolled, account, [asked.author_ref(), a.custodian.into()])])
    }

    pub(crate) fn rotate_key(&self, asked: &Asked, _: &RotateKey) -> Verdict {
        let id = asked.person();
        let person = self.person(id).expect("the author has an account");
        refuse(Denial::AccountFrozen, person.challenged())?;
        Ok(vec![event(EventKind::KeyRotated, id, [])])
    }

    pub(crate) fn veto(&self, asked: &Asked, a: &VetoRecovery) -> Verdict {
        let id = asked.person();
        let person = self.person(id).expect("the author has an account");
        refuse(Denial::AccountFrozen, person.frozen)?;
        refuse(Denial::NoRecovery, person.recovery.is_none_or(|r| r.key != a.key))?;
        Ok(vec![event(EventKind::RecoveryVetoed, id, [])])
    }

    pub(crate) fn recover(&self, asked: &Asked, a: &Recover) -> Verdict {
        let (id, author) = (asked.institution(), self.author(asked));
        let may = has_role(&author, Role::Bureau) || has_role(&author, Role::Hospital);
        refuse(Denial::NotPermittedRole, !may)?;
        let mut person = self.person(a.account).ok_or(Denial::NoSuchAccount)?;
        refuse(Denial::AccountFrozen, person.frozen && !a.in_person)?;
        refuse(Denial::AccountNotFrozen, !person.frozen && a.in_person)?;
        if let Some(r) = &person.recovery {
            refuse(Denial::AlreadyApproved, r.approvals.contains(&id))?;
            refuse(Denial::OtherRecovery, r.key != a.key || r.ready_at.is_some())?;
        }
        let (enroller, parameters) = (person.enroller, self.parameters());
        self.heed_those_who_may_speak(&mut person, self.history.len());
        let approvals = approve_recovery(&mut person, a, id, self.at.time, parameters);
        let enough = approvals.len() >= parameters.recovery_approvals as usize;
        let heard = approvals.contains(&enroller) || !self.vouches_before(enroller, self.history.len());
        refuse(Denial::NotPermittedRole, enough && !heard)?;
        let mut events = vec![event(EventKind::RecoveryApproved, a.account, [asked.author_ref()])];
        if enough {
            events.push(event(EventKind::RecoveryReady, a.account, [asked.author_ref()]));
        }
        Ok(events)
    }

    /// Rule 79: the word of an institution that may not speak any more is gone once another one speaks.
    fn heed_those_who_may_speak(&self, person: &mut Person, place: usize) {
        let Some(recovery) = &mut person.recovery else { return };
        let mut approvals = recovery.approvals.to_vec();
        approvals.retain(|i| self.vouches_before(*i, place));
        recovery.approvals = approvals.try_into().expect("fewer than before");
    }

    fn vouches_before(&self, id: InstitutionId, place: usize) -> bool {
        self.institution_before(id, place).is_some_and(|i| {
            i.standing == Standing::Active && (has_role(&i, Role::Bureau) || has_role(&i, Role::Hospital))
        })
    }
}

/// One institution more says so. Tells who has said it by now.
fn approve_recovery(
    person: &mut Person,
    a: &Recover,
    by: InstitutionId,
    now: TimeMs,
    parameters: &Parameters,
) -> Vec<InstitutionId> {
    let mut approvals = person.recovery.take().map_or(vec![], |r| {
        person.recovery = Some(r.clone());
        r.approvals.into_vec()
    });
    approvals.push(by);
    let delay = parameters.recovery_delay_ms;
    let until = person.recovery.as_ref().map_or(now.plus(delay), |r| r.until);
    let enough = approvals.len() >= parameters.recovery_approvals as usize;
    let seen = approvals.clone();
    if enough && a.in_person {
        person.key = a.key;
        person.frozen = false;
        person.recovery = None;
        return seen;
    }
    let approvals = approvals.try_into().expect("at most eight are asked for");
    let ready_at = enough.then(|| now.plus(delay));
    let (algorithm, key, in_person) = (a.algorithm, a.key, a.in_person);
    person.recovery = Some(Recovery { algorithm, key, in_person, approvals, until, ready_at });
    seen
}

/// The first moment of a quarter, counted from that of 1970 on: found by walking, day by day.
pub(crate) fn quarter(time: TimeMs) -> Option<u64> {
    let day_ms = 86_400_000;
    if !time.0.is_multiple_of(day_ms) {
        return None;
    }
    let (mut day, mut quarter) = (0, 0);
    while day < time.0 / day_ms {
        day += quarter_days(quarter);
        quarter += 1;
    }
    (day == time.0 / day_ms).then_some(quarter)
}

/// The quarter that a time lies in, and its first moment.
pub(crate) fn quarter_of(time: TimeMs) -> (u64, TimeMs) {
    let (mut day, mut quarter) = (0, 0);
    while (day + quarter_days(quarter)) * 86_400_000 <= time.0 {
        day += quarter_days(quarter);
        quarter += 1;
    }
    (quarter, TimeMs(day * 86_400_000))
}

/// The first moment of the `n`th quarter.
pub(crate) fn quarter_start(n: u64) -> TimeMs {
    TimeMs((0..n).map(quarter_days).sum::<u64>() * 86_400_000)
}

fn quarter_days(quarter: u64) -> u64 {
    let year = 1970 + quarter / 4;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match quarter % 4 {
        0 => 31 + 28 + 31 + u64::from(leap),
        1 => 30 + 31 + 30,
        _ if quarter % 4 == 2 => 31 + 31 + 30,
        _ => 31 + 30 + 31,
    }
}

impl Model {
    /// A delegation as it is now.
    pub(crate) fn delegation(&self, id: DelegationId) -> Option<Delegation> {
        let confirmed = self.done(id.0)?;
        let Action::Delegate(a) = &confirmed.asked.action else { return None };
        let ended = self.applied().find_map(|d| match &d.asked.action {
            Action::EndDelegation(e) if e.delegation == id => {
                Some(Ended { cause: e.cause, height: d.at.height, time: d.at.time })
            }
            _ => None,
        });
        Some(Delegation {
            ward: a.ward,
            delegate: a.delegate,
            capacity: a.capacity,
            issuer: confirmed.asked.institution(),
            document: a.document,
            purposes: a.purposes.clone(),
            until: a.until,
            ended,
        })
    }

    pub(crate) fn delegation_in_force(&self, id: DelegationId) -> bool {
        self.delegation(id).is_some_and(|d| d.ended.is_none() && self.at.time < d.until)
    }

    /// Every delegation that was confirmed, oldest first.
    pub(crate) fn delegations(&self) -> Vec<DelegationId> {
        let confirmed = self.applied().filter(|d| matches!(d.asked.action, Action::Delegate(_)));
        confirmed.map(|d| DelegationId(d.asked.body.0)).collect()
    }

    /// Whether an account has a guardian in force, of those that it tells of: under version 1 the guardianship that
    /// lasts longest, from version 2 on all that are in force when another comes.
    pub(crate) fn has_guardian(&self, account: AccountId) -> bool {
        self.guardians_told(account).into_iter().any(|id| self.delegation_in_force(id))
    }

    pub(crate) fn guardians_told(&self, account: AccountId) -> Vec<DelegationId> {
        let mut told: Vec<(TimeMs, DelegationId)> = Vec::new();
        for (place, d) in self.history.iter().enumerate().filter(|(_, d)| d.verdict.is_ok()) {
            let Action::Delegate(a) = &d.asked.action else { continue };
            if a.ward != account || a.capacity != Capacity::Guardian {
                continue;
            }
            let ended = |id: DelegationId| {
                let ends = |d: &super::Done| matches!(&d.asked.action, Action::EndDelegation(e) if e.delegation == id);
                self.history[..place].iter().any(|d| d.verdict.is_ok() && ends(d))
            };
            told.retain(|(until, id)| *until > d.at.time && !ended(*id));
            told.insert(0, (a.until, DelegationId(d.asked.body.0)));
            told.sort_by_key(|(until, _)| std::cmp::Reverse(*until));
            told.truncate(if self.version_at(d.at.height) < 2 { 1 } else { 8 });
        }
        told.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn delegate(&self, asked: &Asked, a: &Delegate) -> Verdict {
        let purposes: Vec<_> = a.purposes.to_vec();
        let oneself = a.ward == a.delegate || a.capacity == Capacity::Own;
        refuse(Denial::BadTerms, oneself || purposes.is_empty() || has_twice(&purposes))?;
        let ward = self.person(a.ward).ok_or(Denial::NoSuchAccount)?;
        let delegate = self.person(a.delegate).ok_or(Denial::NoSuchAccount)?;

        let (id, author) = (asked.institution(), self.author(asked));
        let serves = has_role(&author, Role::Bureau) || has_role(&author, Role::Hospital);
        let knows = id == ward.enroller || id == ward.custodian;
        let guardian = a.capacity == Capacity::Guardian;
        let may = serves && knows || guardian && has_role(&author, Role::Court);
        refuse(Denial::NotPermittedRole, !may)?;

        // Who signs second is who could be a thief.
        let signer = if guardian { &delegate } else { &ward };
        refuse(Denial::AccountFrozen, signer.challenged())?;
        let end = quarter(a.until).ok_or(Denial::DelegationEndUnfit)?;
        let (this, _) = quarter_of(self.at.time);
        refuse(Denial::DelegationEndUnfit, a.until <= self.at.time || end - this > 100)?;
        refuse(Denial::DelegationChain, self.has_guardian(a.delegate))?;
        let id = DelegationId(asked.body.0);
        let trails = [a.ward.into(), a.delegate.into(), asked.author_ref()];
        Ok(vec![event(EventKind::Delegated, id, trails)])
    }

    pub(crate) fn end_delegation(&self, asked: &Asked, a: &EndDelegation) -> Verdict {
        let d = self.delegation(a.delegation).ok_or(Denial::NoSuchDelegation)?;
        let own_wish = a.cause == DelegationEnd::Revoked;
        let fits = match asked.author {
            Author::Account(id) => own_wish && (id == d.ward || id == d.delegate),
            Author::Institution(id) => {
                !own_wish && (id == d.issuer || has_role(&self.author(asked), Role::Court))
            }
        };
        refuse(Denial::DelegationEndUnfit, !fits)?;
        refuse(Denial::AlreadyEnded, d.ended.is_some() || self.at.time >= d.until)?;
        let trails: [ObjectRef; 2] = [d.ward.into(), d.delegate.into()];
        Ok(vec![event(EventKind::DelegationEnded, a.delegation, trails)])
    }

    pub(crate) fn ratify(&self, asked: &Asked, a: &Ratify) -> Verdict {
        let id = asked.person();
        let frozen = self.person(id).expect("the author has an account").challenged();
        refuse(Denial::AccountFrozen, frozen)?;
        let grant = self.grant_of(a.grant).ok_or(Denial::NoSuchGrant)?;
        refuse(Denial::NotTheGrantor, grant.account != id)?;
        let over = grant.terms.delegation.is_some_and(|d| !self.delegation_in_force(d));
        refuse(Denial::NothingToRatify, !over || grant.ratified || grant.revoked.is_some())?;
        Ok(vec![event(EventKind::Ratified, a.grant, [id.into(), grant.signer.into()])])
    }
}
