//! What several decide, and contradictions of validators. Rules 162 to 188.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::{ObjectRef, Policy, Proposal};
use assent_proto::transaction::*;
use assent_proto::validators::{POWER_MAX, Validator, ValidatorSet};

use super::{Asked, Done, Model, Verdict, event, has_role, has_twice, refuse};

const THIRTY_DAYS_MS: u64 = 30 * 86_400_000;

impl Model {
    /// What a proposal proposes, whether it has left the state or not.
    pub(crate) fn proposed(&self, id: ProposalId) -> Option<(&Done, &Propose)> {
        let d = self.done(id.0)?;
        match &d.asked.action {
            Action::Propose(p) => Some((d, p)),
            _ => None,
        }
    }

    pub(crate) fn proposals(&self) -> Vec<ProposalId> {
        let made = self.applied().filter(|d| matches!(d.asked.action, Action::Propose(_)));
        made.map(|d| ProposalId(d.asked.body.0)).collect()
    }

    /// A proposal as it is now, if it has not left the state.
    pub(crate) fn proposal(&self, id: ProposalId) -> Option<Proposal> {
        let (made, p) = self.proposed(id)?;
        let proposer = made.asked.institution();
        let mut proposal = Proposal {
            proposer,
            change: p.change.clone(),
            until: p.until,
            approvals: vec![proposer].try_into().expect("one of 128"),
            enacted: None,
            height: made.at.height,
        };
        let mut approvals = vec![proposer];
        for d in self.applied() {
            let again = matches!(d.asked.action, Action::Propose(_)) && d.asked.author == made.asked.author;
            let over = proposal.enacted.is_some() || proposal.until < d.at.time;
            if again && over && d.asked.body.0 != id.0 {
                return None;
            }
            if matches!(&d.asked.action, Action::Approve(a) if a.proposal == id) {
                // An approval counts while its author has a say; the next one finds out.
                let then = self.before(d);
                approvals.retain(|i| then.has_say(*i, &p.change).is_ok());
                approvals.push(d.asked.institution());
            }
            if d.enacts() == Some(id) {
                proposal.enacted = Some(d.at.height);
            }
        }
        proposal.approvals = approvals.try_into().expect("the world is small");
        Some(proposal)
    }

    /// The model as it was before a transaction.
    pub(crate) fn before(&self, d: &Done) -> Model {
        let place = self.history.iter().position(|x| x.asked.body == d.asked.body).expect("it is of it");
        Model { founding: self.founding.clone(), history: self.history[..place].to_vec(), at: d.at }
    }

    /// Proposals of an institution that the state holds, oldest first.
    pub(crate) fn proposals_of(&self, id: InstitutionId) -> Vec<ProposalId> {
        let own = |p: &ProposalId| self.proposal(*p).is_some_and(|p| p.proposer == id);
        self.proposals().into_iter().filter(own).collect()
    }

    fn is_over(&self, id: ProposalId) -> bool {
        self.proposal(id).is_none_or(|p| p.enacted.is_some() || p.until < self.at.time)
    }

    /// Rules 162 to 167.
    fn has_say(&self, id: InstitutionId, change: &Change) -> Result<(), Denial> {
        refuse(Denial::InstitutionSuspended, !self.is_active(id))?;
        match change {
            Change::Policy(_) => refuse(Denial::NotOnTheCommittee, !self.on_committee(id)),
            Change::Grading(c) => {
                let item = self.item(c.item);
                let source = item.as_ref().is_some_and(|i| i.custodian == id);
                refuse(Denial::NoSuchItem, item.is_none())?;
                refuse(Denial::NotOnTheCommittee, !source && !self.on_committee(id))
            }
            Change::Institution(c) => {
                self.runs_a_validator(id)?;
                refuse(Denial::SameInstitution, c.institution == id && self.widens(c))
            }
            Change::Validators(_) | Change::Nodes(_) | Change::Parameters(_) | Change::Protocol(_) => {
                self.runs_a_validator(id)
            }
        }
    }

    fn runs_a_validator(&self, id: InstitutionId) -> Result<(), Denial> {
        let votes = self.set_at(self.at.height).validators.iter().any(|v| v.institution == id);
        refuse(Denial::NotAValidatorsInstitution, !votes)
    }

    fn on_committee(&self, id: InstitutionId) -> bool {
        let roles = &self.policy().committee.roles;
        self.institution(id).is_some_and(|i| roles.iter().any(|r| has_role(&i, *r)))
    }

    /// Rules 175 to 177.
    fn is_enough(&self, change: &Change, approvals: &[InstitutionId]) -> bool {
        let say: Vec<_> = approvals.iter().filter(|i| self.has_say(**i, change).is_ok()).collect();
        match change {
            Change::Policy(_) => {
                let committee = &self.policy().committee;
                let there = |r| say.iter().any(|i| self.institution(**i).is_some_and(|i| has_role(&i, r)));
                say.len() >= committee.approvals as usize && committee.roles.iter().all(|r| there(*r))
            }
            Change::Grading(c) => {
                let source = self.item(c.item).map(|i| i.custodian);
                let another = |i: &&&InstitutionId| Some(***i) != source && self.on_committee(***i);
                say.iter().any(|i| Some(**i) == source) && say.iter().any(|i| another(&i))
            }
            _ => {
                let set = self.set_at(self.at.height);
                quorum(&set, set.validators.iter().filter(|v| say.contains(&&v.institution)))
            }
        }
    }

    pub(crate) fn propose(&self, asked: &Asked, a: &Propose) -> Verdict {
        let (id, now) = (asked.institution(), self.at.time);
        self.has_say(id, &a.change)?;
        refuse(Denial::ProposalExpired, a.until < now || a.until > now.plus(THIRTY_DAYS_MS))?;
        let (over, open): (Vec<_>, Vec<_>) =
            self.proposals_of(id).into_iter().partition(|p| self.is_over(*p));
        refuse(Denial::TooManyProposals, open.len() >= 16)?;
        self.check_change(&a.change)?;
        let proposal = ProposalId(asked.body.0);
        let trail = [ObjectRef::VALIDATORS];
        let mut events: Vec<_> = over.into_iter().map(|p| event(EventKind::Retired, p, trail)).collect();
        events.push(event(EventKind::Proposed, proposal, trail));
        if self.is_enough(&a.change, &[id]) {
            events.extend(self.enactment(proposal, &a.change));
        }
        Ok(events)
    }

    pub(crate) fn approve(&self, asked: &Asked, a: &Approve) -> Verdict {
        let id = asked.institution();
        let p = self.proposal(a.proposal).ok_or(Denial::NoSuchProposal)?;
        self.has_say(id, &p.change)?;
        refuse(Denial::ProposalEnacted, p.enacted.is_some())?;
        refuse(Denial::ProposalExpired, p.until < self.at.time)?;
        refuse(Denial::AlreadyApproved, p.approvals.contains(&id))?;
        if let Change::Grading(c) = &p.change {
            let graded = self.item(c.item).map(|i| i.graded_height);
            refuse(Denial::StaleChange, graded.is_some_and(|h| h > p.height))?;
        }
        let mut events = vec![event(EventKind::Approved, a.proposal, [ObjectRef::VALIDATORS])];
        let approvals: Vec<_> = p.approvals.iter().copied().chain([id]).collect();
        if self.is_enough(&p.change, &approvals) {
            self.check_change(&p.change)?;
            events.extend(self.enactment(a.proposal, &p.change));
        }
        Ok(events)
    }

    fn enactment(&self, proposal: ProposalId, change: &Change) -> Vec<super::Happening> {
        let about = match change {
            Change::Validators(_) => ObjectRef::VALIDATORS,
            Change::Nodes(_) => ObjectRef::NODES,
            Change::Parameters(_) => ObjectRef::PARAMETERS,
            Change::Institution(c) => c.institution.into(),
            Change::Policy(_) => ObjectRef::POLICY,
            Change::Grading(c) => c.item.into(),
            Change::Protocol(_) => ObjectRef::PROTOCOL,
        };
        let enacted = event(EventKind::Enacted, about, [ObjectRef::VALIDATORS, proposal.into()]);
        let besides = match change {
            Change::Grading(c) => Some(event(EventKind::Classified, c.item, [])),
            Change::Institution(c) => Some(event(self.institution_event(c), c.institution, [])),
            _ => None,
        };
        [enacted].into_iter().chain(besides).collect()
    }

    /// What each kind of change asks besides.
    fn check_change(&self, change: &Change) -> Result<(), Denial> {
        match change {
            Change::Validators(c) => self.check_validators(c),
            Change::Nodes(c) => self.check_nodes(c),
            // No sequence proposes one yet.
            Change::Protocol(c) => self.check_protocol(c),
            // The bounds stand nowhere in the table: they are the founding's.
            Change::Parameters(p) => {
                refuse(Denial::BadParameters, assent_genesis::check_parameters(p).is_err())
            }
            Change::Institution(c) => self.check_institution(c),
            Change::Policy(p) => refuse(Denial::BadPolicy, !self.is_good(p)),
            Change::Grading(c) => {
                let item = self.item(c.item).ok_or(Denial::NoSuchItem)?;
                refuse(Denial::NotGradedDown, (c.level as u8) >= (item.level as u8))?;
                self.may_open(item.custodian, c.level, c.opening, &c.recipients)
            }
        }
    }

    /// Rule 178.
    fn is_good(&self, p: &Policy) -> bool {
        let uses: Vec<_> = p.rules.iter().map(|r| r.purpose).collect();
        let names = |x: &assent_proto::state::Prohibition| {
            x.purpose.is_some() || x.item.is_some() || x.category.is_some()
        };
        let committee = &p.committee;
        // Two that are decided in one block follow each other, too.
        let newest = self.policies().last().map_or(1, |(_, p)| p.version);
        p.version == newest + 1
            && !uses.is_empty()
            && !has_twice(&uses)
            && p.rules.iter().all(|r| r.needs_case || !r.needs_settlement)
            && p.prohibited.iter().all(names)
            && !committee.roles.is_empty()
            && !has_twice(&committee.roles)
            && committee.approvals as usize >= committee.roles.len()
            && committee.approvals <= 128
    }

    /// Versions that were decided, each with the first height at which it is in force, oldest first.
    pub(crate) fn versions(&self) -> Vec<(Height, u32)> {
        let decided = self.enacted().filter_map(|(_, _, c)| match c {
            Change::Protocol(c) => Some((c.from, c.version)),
            _ => None,
        });
        [(Height(0), self.founding.version)].into_iter().chain(decided).collect()
    }

    /// The version of the rules by which a height is made.
    pub(crate) fn version_at(&self, height: Height) -> u32 {
        self.versions().into_iter().rfind(|(from, _)| *from <= height).map_or(1, |(_, version)| version)
    }

    /// Rules 188 and 189.
    fn check_protocol(&self, c: &ChangeProtocol) -> Result<(), Denial> {
        let h = self.at.height;
        let pending = self.versions().iter().any(|(from, _)| *from > h);
        refuse(Denial::BadProtocol, c.version != self.version_at(h) + 1 || pending)?;
        let ahead = c.from.0.saturating_sub(h.0);
        refuse(Denial::ActivationOutOfRange, !(2..=1_000_000).contains(&ahead))
    }

    /// Sets that were decided, each with the first height at which it votes and the height that decided it, oldest
    /// first. One that did not vote yet when the next was decided never does.
    pub(crate) fn sets(&self) -> Vec<(Height, ValidatorSet, Height)> {
        let mut sets = vec![(Height(0), self.founding.validators.clone(), Height(0))];
        for d in self.applied() {
            let change = d.enacts().and_then(|p| self.proposed(p)).map(|(_, p)| &p.change);
            if let Some(Change::Validators(c)) = change {
                sets.push((c.from, ValidatorSet { validators: c.validators.clone() }, d.at.height));
            }
            if let Action::ReportEquivocation(r) = &d.asked.action
                && d.has(EventKind::ValidatorRemoved)
            {
                let (from, newest, _) = sets.last().expect("from the founding on").clone();
                let left = newest.validators.iter().filter(|v| v.key != r.validator).cloned();
                let left: Vec<_> = left.collect();
                let soonest = Height(d.at.height.0 + 2);
                if from > d.at.height {
                    sets.pop();
                }
                let set = ValidatorSet { validators: left.try_into().expect("fewer than before") };
                sets.push((from.max(soonest), set, d.at.height));
            }
        }
        sets
    }

    /// Who votes at a height.
    pub(crate) fn set_at(&self, height: Height) -> ValidatorSet {
        let decided = self.sets().into_iter().rfind(|(from, ..)| *from <= height);
        decided.expect("from the founding on").1
    }

    /// A set that is decided and does not vote yet.
    pub(crate) fn pending_set(&self) -> Option<(Height, ValidatorSet)> {
        let next = self.sets().into_iter().rfind(|(from, ..)| *from > self.at.height);
        next.map(|(from, set, _)| (from, set))
    }

    /// Whether validators of an institution vote or are decided to.
    pub(crate) fn votes_or_will(&self, id: InstitutionId) -> bool {
        let (now, then) = (self.set_at(self.at.height), self.pending_set());
        let all = now.validators.iter().chain(then.iter().flat_map(|(_, s)| s.validators.iter()));
        all.into_iter().any(|v| v.institution == id)
    }

    /// Rules 180 to 185.
    fn check_validators(&self, c: &ChangeValidators) -> Result<(), Denial> {
        refuse(Denial::ChangePending, self.pending_set().is_some())?;
        let now = self.set_at(self.at.height);
        refuse(Denial::StaleChange, c.replaces != now.hash())?;
        let (h, from) = (self.at.height.0, c.from.0);
        refuse(Denial::ActivationOutOfRange, from < h + 2 || from > h + 1_000_000)?;
        let keys: Vec<_> = c.validators.iter().map(|v| v.key).collect();
        let nodes = self.nodes();
        let good = |v: &Validator| {
            let node = nodes.iter().any(|n| n.key == v.key && n.institution == v.institution);
            self.is_active(v.institution)
                && node
                && v.key.check().is_ok()
                && (1..=POWER_MAX).contains(&v.power)
        };
        let set = !keys.is_empty() && !has_twice(&keys) && c.validators.iter().all(good);
        refuse(Denial::BadValidatorSet, !set)?;
        let votes = |k: &PublicKey| now.validators.iter().any(|v| v.key == *k);
        let shown = |k: &PublicKey| votes(k) || c.possessions.iter().any(|p| p.key == *k);
        refuse(Denial::MissingPossession, !keys.iter().all(shown))?;
        let next = ValidatorSet { validators: c.validators.clone() };
        let live = quorum(&next, next.validators.iter().filter(|v| votes(&v.key)));
        refuse(Denial::NoLiveQuorum, !live)
    }

    /// Nodes that may connect.
    pub(crate) fn nodes(&self) -> Vec<NodeRecord> {
        let mut nodes = self.founding.nodes.clone();
        for (_, _, change) in self.enacted() {
            if let Change::Nodes(c) = change {
                nodes.retain(|n| !c.remove.contains(&n.key));
                nodes.extend(c.admit.iter().map(|a| a.record.clone()));
            }
        }
        nodes
    }

    /// Rule 186.
    fn check_nodes(&self, c: &ChangeNodes) -> Result<(), Denial> {
        let nodes = self.nodes();
        let (now, then) = (self.set_at(self.at.height), self.pending_set());
        let votes = |k: &PublicKey| {
            now.validators
                .iter()
                .chain(then.iter().flat_map(|(_, s)| s.validators.iter()))
                .any(|v| v.key == *k)
        };
        let known = |k: &PublicKey| nodes.iter().any(|n| n.key == *k);
        refuse(Denial::BadNodes, c.admit.is_empty() && c.remove.is_empty())?;
        refuse(Denial::BadNodes, c.remove.iter().any(|k| !known(k) || votes(k)) || has_twice(&c.remove))?;
        let mut taken: Vec<PublicKey> = Vec::new();
        for n in nodes.iter().filter(|n| !c.remove.contains(&n.key)) {
            taken.extend([n.key, n.network_key]);
        }
        for NodeAdmission { record: n, .. } in &c.admit {
            let free = !taken.contains(&n.key) && !taken.contains(&n.network_key) && n.key != n.network_key;
            let good = n.key.check().is_ok() && n.network_key.check().is_ok();
            refuse(Denial::BadNodes, !self.is_active(n.institution) || !free || !good)?;
            taken.extend([n.key, n.network_key]);
        }
        refuse(Denial::BadNodes, nodes.len() + c.admit.len() - c.remove.len() > 256)
    }

    /// The transaction that reported a contradiction.
    pub(crate) fn reported(&self, id: MisconductId) -> Option<&Done> {
        self.applied().find(|d| matches!(&d.asked.action, Action::ReportEquivocation(r) if r.id() == id))
    }

    pub(crate) fn report(&self, asked: &Asked, a: &ReportEquivocation) -> Verdict {
        refuse(Denial::AlreadyReported, self.reported(a.id()).is_some())?;
        let of = self.whose(a);
        let of = of.ok_or(Denial::NotAValidatorThen)?;
        let trails: [ObjectRef; 3] = [of.into(), asked.author_ref(), ObjectRef::VALIDATORS];
        let mut events = vec![event(EventKind::EquivocationReported, a.id(), trails)];
        if self.removes(a) {
            let trails = [of.into(), a.id().into()];
            events.push(event(EventKind::ValidatorRemoved, ObjectRef::VALIDATORS, trails));
        }
        Ok(events)
    }

    /// Whose key it is that votes, is decided to, or voted at that height.
    pub(crate) fn whose(&self, a: &ReportEquivocation) -> Option<InstitutionId> {
        let sets = self.sets();
        let now = self.at.height;
        let votes =
            |set: &ValidatorSet| set.validators.iter().find(|v| v.key == a.validator).map(|v| v.institution);
        let current = votes(&self.set_at(now)).or_else(|| votes(&self.pending_set()?.1));
        current.or_else(|| {
            // The last set with the key, which voted until the next one did.
            let last = sets.iter().rposition(|(_, s, _)| votes(s).is_some())?;
            let until = sets.get(last + 1).map(|(from, ..)| from.0 - 1)?;
            if a.height.0 <= until { votes(&sets[last].1) } else { None }
        })
    }

    fn removes(&self, a: &ReportEquivocation) -> bool {
        let newest = self.pending_set().map_or_else(|| self.set_at(self.at.height), |(_, set)| set);
        let votes = newest.validators.iter().any(|v| v.key == a.validator);
        let remove = self.parameters().equivocation == Consequence::Remove;
        let left: Vec<_> = newest.validators.iter().filter(|v| v.key != a.validator).cloned().collect();
        let left = ValidatorSet { validators: left.try_into().expect("fewer than before") };
        let now = self.set_at(self.at.height);
        let live = left.validators.iter().filter(|v| now.validators.iter().any(|n| n.key == v.key));
        remove && votes && quorum(&left, live)
    }
}

fn quorum<'a>(set: &ValidatorSet, with: impl Iterator<Item = &'a Validator>) -> bool {
    let power: u64 = with.map(|v| u64::from(v.power)).sum();
    let all: u64 = set.validators.iter().map(|v| u64::from(v.power)).sum();
    power * 3 > all * 2
}
