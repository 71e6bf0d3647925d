//! Every object that the state should hold, made of the history. What the state keeps for its own convenience and
//! no rule speaks of (order of lists, what is over and not yet swept away) is brought into one form on both sides.

use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::keys::Algorithm;
use assent_proto::state::*;
use assent_proto::transaction::*;

use super::Model;

impl Model {
    /// Names of all objects, in no order.
    pub(crate) fn objects(&self) -> Vec<ObjectRef> {
        let mut all = vec![ObjectRef::POLICY, ObjectRef::PARAMETERS, ObjectRef::VALIDATORS, ObjectRef::NODES];
        all.push(ObjectRef::TURNS);
        all.extend(self.policies().into_iter().map(|(_, p)| ObjectRef::policy(p.version)));
        all.extend((self.versions() != [(Height(0), 1)]).then_some(ObjectRef::PROTOCOL));
        all.extend(self.institutions().into_iter().map(ObjectRef::from));
        all.extend(self.proposals().into_iter().filter(|p| self.proposal(*p).is_some()).map(ObjectRef::from));
        all.extend(self.artifacts().into_iter().map(ObjectRef::from));
        all.extend(self.permits().map(|p| ObjectRef::from(p.id)));
        all.extend(
            self.permits().filter(|p| p.request.emergency.is_some()).map(|p| ObjectRef::emergency(p.id)),
        );
        for d in self.applied() {
            let id = d.asked.body.0;
            match &d.asked.action {
                Action::Enrol(_) => all.push(AccountId(id).into()),
                Action::RegisterItem(r) => all.push(ItemId::of(r.code, r.scope).into()),
                Action::AnchorRecords(a) => {
                    all.push(BatchId(id).into());
                    all.extend(a.settles.iter().map(|c| ObjectRef::from(*c)));
                }
                Action::Grant(_) => all.push(GrantId(id).into()),
                Action::Delegate(_) => all.push(DelegationId(id).into()),
                Action::IssueOrder(_) => all.push(OrderId(id).into()),
                Action::ReviewOpening(r) => {
                    let id = ReviewOpening::review_id(&r.item, &r.requester, r.purpose);
                    all.push(ObjectRef { kind: ObjectKind::Review, id });
                }
                Action::ReportEquivocation(r) => all.push(r.id().into()),
                Action::AnchorEmergency(a) if self.version_at(d.at.height) >= 2 => {
                    all.push(ObjectRef::release(a));
                }
                _ => (),
            }
        }
        all.sort();
        all.dedup();
        all
    }

    /// An object as it should be now.
    pub(crate) fn object(&self, object: &ObjectRef) -> Option<Object> {
        let id = object.id;
        Some(match object.kind {
            ObjectKind::Institution => Object::Institution(self.whole_institution(InstitutionId(id))?),
            ObjectKind::Account => Object::Account(self.whole_account(AccountId(id))?),
            ObjectKind::Item => Object::Item(self.item(ItemId(id))?),
            ObjectKind::Batch => Object::Batch(self.batch(BatchId(id))?),
            ObjectKind::Settlement => {
                let d = self.settlement(CaseId(id))?;
                let settler = d.asked.institution();
                Object::Settlement(Settlement {
                    batch: BatchId(d.asked.body.0),
                    settler,
                    height: d.at.height,
                })
            }
            ObjectKind::Grant => Object::Grant(Box::new(self.whole_grant(GrantId(id))?)),
            ObjectKind::Permit => Object::Permit(Box::new(self.whole_permit(PermitId(id))?)),
            ObjectKind::Artifact => Object::Artifact(self.artifact(ArtifactId(id))?),
            ObjectKind::Review => Object::Review(self.review(object)?),
            ObjectKind::Policy => Object::Policy(self.whole_policy(object)?),
            ObjectKind::Parameters => Object::Parameters(self.newest_parameters()),
            ObjectKind::Validators | ObjectKind::Turns => return None,
            // Since the second version of the protocol; chains here are of the first.
            ObjectKind::Protocol => return None,
            ObjectKind::Release => Object::Release(Release { permit: self.anchored_since_2(object)? }),
            ObjectKind::Nodes => Object::Nodes(Nodes { nodes: self.nodes().try_into().expect("rule 186") }),
            ObjectKind::Proposal => Object::Proposal(Box::new(self.proposal(ProposalId(id))?)),
            ObjectKind::Misconduct => Object::Misconduct(self.misconduct(MisconductId(id))?),
            ObjectKind::Delegation => Object::Delegation(self.delegation(DelegationId(id))?),
            ObjectKind::Order => Object::Order(Box::new(self.whole_order(OrderId(id))?)),
            ObjectKind::Emergency => Object::Emergency(self.emergency(PermitId(id))?),
        })
    }

    fn whole_institution(&self, id: InstitutionId) -> Option<Institution> {
        let mut i = self.institution(id)?;
        i.proposals = self.proposals_of(id).try_into().expect("rule 169");
        i.emergencies = self.open_emergencies(id).try_into().expect("rule 25");
        Some(i)
    }

    fn whole_account(&self, id: AccountId) -> Option<Account> {
        let p = self.person(id)?;
        let early = self.early(id).into_iter().map(|(grant, until)| EarlyRevocation { grant, until });
        Some(Account {
            enroller: p.enroller,
            custodian: p.custodian,
            algorithm: Algorithm::Ed25519,
            key: p.key,
            enrolled_height: p.enrolled,
            early: early.collect::<Vec<_>>().try_into().expect("rule 62"),
            recovery: p.recovery,
            frozen: p.frozen,
            guardianships: self.guardians_told(id).try_into().expect("at most eight"),
        })
    }

    fn batch(&self, id: BatchId) -> Option<Batch> {
        let d = self.done(id.0)?;
        let Action::AnchorRecords(a) = &d.asked.action else { return None };
        let (item, root, count) = (a.item, a.root, a.count);
        let custodian = d.asked.institution();
        Some(Batch { item, custodian, root, count, height: d.at.height, time: d.at.time })
    }

    fn whole_grant(&self, id: GrantId) -> Option<GrantState> {
        let g = self.grant_of(id)?;
        let erasure = self.erasure(id);
        Some(GrantState {
            account: g.account,
            terms: g.terms,
            granted_height: g.height,
            used: g.used,
            delivered: g.delivered,
            revocation: g.revoked,
            erased_height: erasure.as_ref().and_then(|e| e.erased),
            signer: g.signer,
            ratified: g.ratified,
            hold: erasure.and_then(|e| e.hold),
        })
    }

    fn whole_permit(&self, id: PermitId) -> Option<Permit> {
        let p = self.permit(id)?;
        let (w, records) = (&p.request, p.request.records.len());
        Some(Permit {
            grant: w.grant,
            item: w.item,
            account: self.named(w),
            requester: w.requester,
            custodian: p.custodian,
            case: w.case,
            purpose: w.purpose,
            action: w.action,
            output: w.output,
            level: p.level,
            manifest: w.manifest(),
            records: u32::try_from(records).expect("at most 32"),
            staff: w.staff,
            height: p.height,
            expires_at: p.expires_at,
            delivered_height: p.delivered,
            order: w.order,
            emergency: w.emergency,
            undelivered: p.undelivered,
            notified_height: self.told_since_2(id),
        })
    }

    fn review(&self, object: &ObjectRef) -> Option<Review> {
        let of = |r: &ReviewOpening| ReviewOpening::review_id(&r.item, &r.requester, r.purpose) == object.id;
        let mut reviews = self.applied().filter_map(|d| match &d.asked.action {
            Action::ReviewOpening(r) if of(r) => {
                Some(Review { reviewer: d.asked.institution(), until: r.until })
            }
            _ => None,
        });
        reviews.next_back()
    }

    fn whole_policy(&self, object: &ObjectRef) -> Option<Policy> {
        let policies = self.policies();
        let newest = || policies.last().map(|(_, p)| (*p).clone());
        if *object == ObjectRef::POLICY {
            return newest();
        }
        policies.iter().map(|(_, p)| *p).find(|p| ObjectRef::policy(p.version) == *object).cloned()
    }

    fn newest_parameters(&self) -> Parameters {
        self.parameters_at(self.at.height.next()).clone()
    }

    fn misconduct(&self, id: MisconductId) -> Option<Misconduct> {
        let d = self.reported(id)?;
        let Action::ReportEquivocation(r) = &d.asked.action else { return None };
        let removed = d.has(EventKind::ValidatorRemoved);
        Some(Misconduct {
            validator: r.validator,
            institution: self.before(d).whose(r)?,
            height: r.height,
            round: r.round,
            what: r.what,
            reporter: d.asked.institution(),
            reported: d.at.height,
            removed_from: removed.then(|| self.removed_from(d)),
        })
    }

    /// The first height without a key, as it was known when it was removed.
    fn removed_from(&self, removal: &super::Done) -> Height {
        let mut then = self.before(removal);
        then.history.push(removal.clone());
        then.sets().last().expect("from the founding on").0
    }

    fn whole_order(&self, id: OrderId) -> Option<Order> {
        let issuer = self.done(id.0)?.asked.institution();
        let height = self.done(id.0)?.at.height;
        Some(Order { issuer, terms: self.order(id)?.clone(), height })
    }
}

/// One form for what no rule speaks of.
pub(crate) fn plain(object: Object, now: TimeMs) -> Object {
    match object {
        Object::Institution(mut i) => {
            let mut keys = i.keys.into_vec();
            keys.sort_by_key(|k| k.key);
            i.keys = keys.try_into().expect("as many as before");
            let mut roles: Vec<Role> = i.roles.into_vec();
            roles.sort_by_key(|r| *r as u8);
            i.roles = roles.try_into().expect("as many as before");
            Object::Institution(i)
        }
        Object::Account(mut a) => {
            a.key = a.key_at(now);
            let over = |r: &Recovery| match r.ready_at {
                Some(at) => at <= now,
                None => r.until < now,
            };
            a.recovery = a.recovery.filter(|r| !over(r));
            let mut early = a.early.into_vec();
            early.retain(|e| e.until >= now);
            early.sort_by_key(|e| e.grant);
            a.early = early.try_into().expect("no more than before");
            Object::Account(a)
        }
        Object::Nodes(n) => {
            let mut nodes = n.nodes.into_vec();
            nodes.sort_by_key(|n| n.key);
            Object::Nodes(Nodes { nodes: nodes.try_into().expect("as many as before") })
        }
        other => other,
    }
}
