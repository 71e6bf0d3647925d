//! What races beside a grant and its withdrawal: keys that are replaced, lost and claimed, wards and their
//! guardians, emergencies and orders, releases that do not happen, grades, policy, and who may act at all. Steps
//! alone; what must come of them is told to the workload, and what always holds stands in [`super::rights`].

use assent_ledger::testing::{Party, Scene, anchor_of, digest, enrol, list, record, secret};
use assent_proto::keys::Algorithm;
use assent_proto::state::OperatorKey;
use assent_proto::transaction::*;
use assent_proto::{
    Action, Author, BodyId, Denial, GrantId, ItemId, List, SecretKey, TimeMs, VerifiedTx, ids::*, merkle,
};

use crate::clients::something;

use super::council::{self, Motion};
use super::workload::{Late, Step, What, Workload};
use super::{Founding, Random};

/// 2026-07-01T00:00:00Z, the first moment of a quarter after the founding of every chain of tests.
const QUARTER: TimeMs = TimeMs(1_782_864_000_000);

/// Where the races are run.
pub(super) struct Ground<'g> {
    pub(super) founding: &'g Founding,
    pub(super) scene: &'g mut Scene,
    /// Once these are final the scene's ground is laid.
    pub(super) ready: Vec<BodyId>,
}

/// Some races over so much time; each that changes what all share once at most.
pub(super) fn draw(w: &mut Workload, ground: &mut Ground, random: &mut Random, spread_ms: u64) {
    let mut together = vec![Workload::prohibit_against_use, Workload::suspend_against_use];
    for _ in 0..1 + random.below(4) / 3 {
        let at_ms = random.below(spread_ms);
        match random.below(20) {
            0 | 1 => w.rotate_against_use(ground, at_ms),
            2..=4 => w.recover_against_veto(ground, at_ms, random),
            5 | 6 => w.end_delegation_against_use(ground, at_ms),
            7..=9 => w.emergencies(ground, at_ms, random),
            10 | 11 => w.order(ground, at_ms, random),
            12 | 13 => w.give_back_against_delivery(ground, at_ms),
            14 => w.replace_operator(ground, at_ms),
            15 => w.grade_up_against_use(ground, at_ms),
            16 => w.hold(ground, at_ms),
            _ if together.is_empty() => w.give_back_against_delivery(ground, at_ms),
            _ => together.swap_remove(random.below(together.len() as u64) as usize)(w, ground, at_ms),
        }
    }
}

/// A person with two records at hospital A.
struct Newcomer {
    party: Party,
    item: ItemId,
    records: Vec<RecordProof>,
    ready: Vec<BodyId>,
}

impl Newcomer {
    /// A request on a standing grant, of her records.
    fn ask(&self, scene: &Scene, grant: GrantId) -> RequestAccess {
        RequestAccess {
            item: self.item,
            account: Some(self.party.account()),
            records: list(self.records.clone()),
            ..scene.ask_statistics(grant)
        }
    }

    /// Standing terms for the insurer.
    fn terms(&self, scene: &Scene) -> Grant {
        Grant { items: list(vec![self.item]), ..scene.standing(&scene.four.insurer) }
    }

    fn with(&self, key: &SecretKey) -> Party {
        Party { key: key.clone(), ..self.party.clone() }
    }
}

impl Workload {
    /// A name that nobody in the run has yet.
    fn name(&self, what: &str) -> String {
        format!("{what} {}", self.steps.len())
    }

    fn newcomer(&mut self, g: &mut Ground, item: ItemId, at_ms: u64) -> Newcomer {
        let (bureau, custodian) = (g.scene.four.bureau.clone(), g.scene.four.hospital_a.clone());
        let key = secret(&self.name("newcomer"));
        let enrolled = self.countersign(g, &bureau, &key, enrol(&custodian, &key), &[], at_ms);
        let party = Party { author: Author::Account(AccountId(enrolled.0)), key };
        let records: Vec<_> = (0..2).map(|n| record(&party, n, 100 + n)).collect();
        let anchor = Action::AnchorRecords(anchor_of(item, &records, &[]));
        let needs = [&g.ready[..], &[enrolled]].concat();
        let batch = BatchId(self.sign(g.scene, &custodian, anchor, &needs, at_ms).0);
        let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
        let proof = |(n, record): (usize, &Record)| RecordProof {
            batch,
            record: record.clone(),
            index: n as u32,
            path: list(merkle::path(&leaves, n)),
        };
        let records = records.iter().enumerate().map(proof).collect();
        Newcomer { party, item, records, ready: [needs, vec![BodyId(batch.0)]].concat() }
    }

    fn countersign(
        &mut self,
        g: &mut Ground,
        by: &Party,
        second: &SecretKey,
        action: Action,
        needs: &[BodyId],
        at_ms: u64,
    ) -> BodyId {
        let body = g.scene.world.body(by, action);
        let tx: VerifiedTx = g.scene.world.seal(&body, &[&by.key, second]);
        self.push(tx, needs, at_ms)
    }

    fn grants(&mut self, g: &mut Ground, by: &Party, terms: Grant, needs: &[BodyId], at_ms: u64) -> GrantId {
        GrantId(self.sign(g.scene, by, Action::Grant(Box::new(terms)), needs, at_ms).0)
    }

    fn asks(
        &mut self,
        g: &mut Ground,
        by: &Party,
        request: RequestAccess,
        needs: &[BodyId],
        at_ms: u64,
    ) -> BodyId {
        self.sign(g.scene, by, Action::RequestAccess(Box::new(request)), needs, at_ms)
    }

    fn decided(
        &mut self,
        motion: &Motion,
        council: &[Party],
        by: InstitutionId,
        needs: &[BodyId],
        at_ms: u64,
    ) -> Vec<BodyId> {
        let way = council::way(motion, council, by, needs, at_ms);
        self.steps.extend(way.steps);
        way.decided
    }

    /// R16: a key is replaced while the old one still grants; what it granted stands, and the new one goes on.
    fn rotate_against_use(&mut self, g: &mut Ground, at_ms: u64) {
        let insurer = g.scene.four.insurer.clone();
        let who = self.newcomer(g, g.scene.item, at_ms);
        let terms = who.terms(g.scene);
        let grant = self.grants(g, &who.party, terms.clone(), &who.ready, at_ms);
        let granted = [BodyId(grant.0)];
        let key = secret(&self.name("rotated"));
        let rotate = Action::RotateKey(RotateKey { algorithm: Algorithm::Ed25519, key: key.public() });
        let rotated = self.countersign(g, &who.party, &key, rotate, &granted, at_ms);
        let late = self.grants(g, &who.party, terms.clone(), &granted, at_ms);
        self.replaced.push((BodyId(late.0), rotated));
        let used = self.asks(g, &insurer, who.ask(g.scene, grant), &granted, at_ms);
        let hers = self.grants(g, &who.with(&key), terms, &[rotated], at_ms);
        let again = self.asks(g, &insurer, who.ask(g.scene, hers), &[BodyId(hers.0)], at_ms);
        let revoke = Action::Revoke(Revoke { grant });
        let revoked = self.sign(g.scene, &who.with(&key), revoke, &[rotated, used], at_ms);
        let after = self.asks(g, &insurer, who.ask(g.scene, grant), &[revoked], at_ms);
        self.applied.extend([rotated, used, BodyId(hers.0), again, revoked]);
        self.denied_as.push((after, Denial::GrantRevoked));
    }

    /// R16: two institutions say whose account it is. Unless the old key vetoes in time the new one takes over; if
    /// it does, papers across a counter decide.
    fn recover_against_veto(&mut self, g: &mut Ground, at_ms: u64, random: &mut Random) {
        let (insurer, bureau) = (g.scene.four.insurer.clone(), g.scene.four.bureau.clone());
        let hospital = g.scene.four.hospital_a.clone();
        let who = self.newcomer(g, g.scene.item, at_ms);
        let terms = who.terms(g.scene);
        let grant = self.grants(g, &who.party, terms.clone(), &who.ready, at_ms);
        let key = secret(&self.name("recovered"));
        let said = [&bureau, &hospital]
            .map(|by| self.countersign(g, by, &key, recover(&who, &key, false), &[BodyId(grant.0)], at_ms));
        let used = self.asks(g, &insurer, who.ask(g.scene, grant), &said[..1], at_ms);
        self.applied.push(used);
        self.grants(g, &who.party, terms.clone(), &said[..1], at_ms);
        let hers = BodyId(self.grants(g, &who.with(&key), terms.clone(), &said, at_ms).0);
        if random.chance(400) {
            let old = self.grants(g, &who.party, terms, &[hers], at_ms);
            self.replaced.push((BodyId(old.0), hers));
            return;
        }
        let veto = Action::VetoRecovery(VetoRecovery { key: key.public() });
        let vetoed = self.sign(g.scene, &who.party, veto, &said[..1], at_ms);
        self.rivals.push((vetoed, hers));
        let key = secret(&self.name("papers"));
        let needs = [said[0], said[1], vetoed, hers];
        let seen = [&bureau, &hospital]
            .map(|by| self.countersign(g, by, &key, recover(&who, &key, true), &needs, at_ms));
        self.grants(g, &who.with(&key), terms, &seen, at_ms);
    }

    /// R15: a guardian's word ends while it is used; the ward's own lets it hold again.
    fn end_delegation_against_use(&mut self, g: &mut Ground, at_ms: u64) {
        let (insurer, bureau) = (g.scene.four.insurer.clone(), g.scene.four.bureau.clone());
        let ward = self.newcomer(g, g.scene.item, at_ms);
        let guardian = self.newcomer(g, g.scene.item, at_ms);
        let delegate = Action::Delegate(Delegate {
            ward: ward.party.account(),
            delegate: guardian.party.account(),
            capacity: Capacity::Guardian,
            document: digest("the register's entry"),
            purposes: list(vec![Purpose::Statistics]),
            until: QUARTER,
        });
        let needs = [&ward.ready[..], &guardian.ready].concat();
        let delegated = self.countersign(g, &bureau, &guardian.party.key, delegate, &needs, at_ms);
        let delegation = DelegationId(delegated.0);
        let terms =
            Grant { capacity: Capacity::Guardian, delegation: Some(delegation), ..ward.terms(g.scene) };
        let grant = self.grants(g, &guardian.party, terms.clone(), &[delegated], at_ms);
        let first = self.asks(g, &insurer, ward.ask(g.scene, grant), &[BodyId(grant.0)], at_ms);
        let end = Action::EndDelegation(EndDelegation { delegation, cause: DelegationEnd::Death });
        let ended = self.sign(g.scene, &bureau, end, &[first], at_ms);
        let racing = self.asks(g, &insurer, ward.ask(g.scene, grant), &[first], at_ms);
        let late = self.grants(g, &guardian.party, terms, &[ended], at_ms);
        let ratify = Action::Ratify(Ratify { grant });
        let ratified = self.sign(g.scene, &ward.party, ratify, &[ended, racing], at_ms);
        let last = self.asks(g, &insurer, ward.ask(g.scene, grant), &[ratified], at_ms);
        self.delegated.extend([(grant, delegation), (late, delegation)]);
        self.applied.extend([delegated, first, ended, ratified, last]);
        self.denied_as.push((BodyId(late.0), Denial::DelegationOver));
    }

    /// R17: emergencies of one hospital, and releases in an outage that are anchored sooner or later, against their
    /// reviews and notices.
    fn emergencies(&mut self, g: &mut Ground, at_ms: u64, random: &mut Random) {
        let (a, b) = (g.scene.four.hospital_a.clone(), g.scene.four.hospital_b.clone());
        let ready = g.ready.clone();
        let ask = RequestAccess {
            case: None,
            purpose: Purpose::EmergencyTreatment,
            emergency: Some(EmergencyReason::Unconscious),
            ..g.scene.ask(None)
        };
        let first = if random.chance(500) {
            self.asks(g, &b, ask.clone(), &ready, at_ms)
        } else {
            let anchor = AnchorEmergency {
                requester: b.institution(),
                item: ask.item,
                account: g.scene.person.account(),
                reason: EmergencyReason::AcuteThreat,
                action: ask.action,
                output: ask.output,
                records: ask.records.clone(),
                staff: ask.staff,
                // A moment before, by the clock of the run, which begins a minute after the founding.
                released_at: g.founding.genesis.time().plus(59_000 + at_ms),
                package: digest("package"),
            };
            self.countersign(g, &a, &b.key, Action::AnchorEmergency(Box::new(anchor)), &ready, at_ms)
        };
        self.asks(g, &b, ask.clone(), &[first], at_ms + random.below(4_000));
        let done = self.fulfil(g, &b, PermitId(first.0), at_ms + random.below(4_000));
        self.asks(g, &b, ask, &done, at_ms);
    }

    /// The regulator reviews, the requester tells the person.
    fn fulfil(&mut self, g: &mut Ground, requester: &Party, permit: PermitId, at_ms: u64) -> [BodyId; 2] {
        let (bureau, needs) = (g.scene.four.bureau.clone(), [BodyId(permit.0)]);
        let review = Action::ReviewEmergency(ReviewEmergency { permit, verdict: Verdict::Justified });
        let notice = Action::NotifyPerson(NotifyPerson { permit, notice: digest("letter") });
        let reviewed = self.sign(g.scene, &bureau, review, &needs, at_ms);
        [reviewed, self.sign(g.scene, requester, notice, &needs, at_ms)]
    }

    /// R41: an order is used until it ends, and may defer that the person is told.
    fn order(&mut self, g: &mut Ground, at_ms: u64, random: &mut Random) {
        let (insurer, bureau) = (g.scene.four.insurer.clone(), g.scene.four.bureau.clone());
        let cosigner = g.scene.four.hospital_a.clone();
        let (ready, begins) = (g.ready.clone(), g.founding.genesis.time().plus(60_000));
        let day_ms = 86_400_000;
        let deferred = random.chance(500);
        let ends_soon = random.chance(500);
        let not_after = begins.plus(if ends_soon { at_ms + 1_000 + random.below(3_000) } else { day_ms });
        let terms = IssueOrder {
            document: digest("the order"),
            notice_from: if deferred { begins.plus(day_ms) } else { TimeMs(0) },
            ..g.scene.order(&insurer, &cosigner, not_after)
        };
        let told = (terms.not_after, terms.notice_from);
        let issue = Action::IssueOrder(Box::new(terms));
        let issued = self.countersign(g, &bureau, &cosigner.key, issue, &ready, at_ms);
        let order = OrderId(issued.0);
        self.orders.push((order, told.0, told.1));
        let ask =
            RequestAccess { case: None, purpose: Purpose::Legal, order: Some(order), ..g.scene.ask(None) };
        let first = self.asks(g, &insurer, ask.clone(), &[issued], at_ms);
        self.release(g, PermitId(first.0), &ask, &[first], at_ms);
        self.asks(g, &insurer, ask, &[first], at_ms + random.below(4_000));
        let notice = NotifyPerson { permit: PermitId(first.0), notice: digest("letter") };
        let told = self.sign(g.scene, &insurer, Action::NotifyPerson(notice), &[first], at_ms);
        if !ends_soon {
            self.applied.extend([issued, first]);
            match deferred {
                true => self.denied_as.push((told, Denial::NoNoticeDue)),
                false => self.applied.push(told),
            }
        }
    }

    /// Hospital A tells that it released what was asked for.
    fn release(
        &mut self,
        g: &Ground,
        permit: PermitId,
        ask: &RequestAccess,
        needs: &[BodyId],
        at_ms: u64,
    ) -> BodyId {
        let leaves: Vec<_> = ask.records.iter().map(|p| p.record.leaf()).collect();
        let ticket = BodyId(digest(&format!("release of {}", permit.0)));
        let late = Late::Deliver {
            by: g.scene.four.hospital_a.clone(),
            permit,
            manifest: merkle::root(&leaves),
            records: leaves.len() as u32,
            ticket,
        };
        self.steps.push(Step { what: What::Late(late), needs: needs.to_vec(), at_ms });
        ticket
    }

    /// R7: the one use is given back or released, and only where it was given back it is permitted again.
    fn give_back_against_delivery(&mut self, g: &mut Ground, at_ms: u64) {
        let (insurer, hospital) = (g.scene.four.insurer.clone(), g.scene.four.hospital_a.clone());
        let (person, ready) = (g.scene.person.clone(), g.ready.clone());
        let grant = self.grants(g, &person, g.scene.terms(), &ready, at_ms);
        let ask = g.scene.ask(Some(grant));
        let asked = self.asks(g, &insurer, ask.clone(), &[ready, vec![BodyId(grant.0)]].concat(), at_ms);
        let permit = PermitId(asked.0);
        let not = Action::NotDelivered(NotDelivered { permit });
        let given_back = self.sign(g.scene, &hospital, not, &[asked], at_ms);
        let released = self.release(g, permit, &ask, &[asked], at_ms);
        let again = self.asks(g, &insurer, ask, &[given_back, released], at_ms);
        self.one_time.push(grant);
        self.applied.push(asked);
        self.alike.push((given_back, again));
    }

    /// R9: what was received under a revoked grant is held by law, and erased later.
    fn hold(&mut self, g: &mut Ground, at_ms: u64) {
        let (insurer, person) = (g.scene.four.insurer.clone(), g.scene.person.clone());
        let ready = g.ready.clone();
        let grant = self.grants(g, &person, g.scene.standing(&insurer), &ready, at_ms);
        let ask = g.scene.ask_statistics(grant);
        let asked = self.asks(g, &insurer, ask.clone(), &[ready, vec![BodyId(grant.0)]].concat(), at_ms);
        let released = self.release(g, PermitId(asked.0), &ask, &[asked], at_ms);
        let revoke = Action::Revoke(Revoke { grant });
        let revoked = self.sign(g.scene, &person, revoke, &[released], at_ms);
        let attest = |hold| Action::AttestErasure(AttestErasure { grant, report: digest("report"), hold });
        let hold = Hold { reason: HoldReason::Litigation, until: QUARTER };
        let held = self.sign(g.scene, &insurer, attest(Some(hold)), &[revoked], at_ms);
        let erased = self.sign(g.scene, &insurer, attest(None), &[held], at_ms);
        self.applied.extend([asked, revoked, held, erased]);
    }

    /// An institution's key comes, acts, and is retired while it still acts.
    fn replace_operator(&mut self, g: &mut Ground, at_ms: u64) {
        let b = g.scene.four.hospital_b.clone();
        let ready = g.ready.clone();
        let key = secret(&self.name("operator"));
        let entry = OperatorKey {
            algorithm: Algorithm::Ed25519,
            key: key.public(),
            not_before: TimeMs(0),
            not_after: QUARTER,
        };
        let add = Action::RotateOperator(RotateOperator { add: Some(entry), retire: None });
        let added = self.countersign(g, &b, &key, add, &ready, at_ms);
        let by_new = Party { key: key.clone(), ..b.clone() };
        let item = self.item();
        let first = self.sign(g.scene, &by_new, Action::RegisterItem(item), &[added], at_ms);
        let retire = Action::RotateOperator(RotateOperator { add: None, retire: Some(key.public()) });
        let retired = self.sign(g.scene, &b, retire, &[first], at_ms);
        let item = self.item();
        let late = self.sign(g.scene, &by_new, Action::RegisterItem(item), &[first], at_ms);
        self.retired.push((late, retired));
        self.applied.extend([added, first, retired]);
    }

    /// An item that nobody has registered.
    fn item(&self) -> RegisterItem {
        something(self.steps.len() as u32)
    }

    /// R21: an item is graded above a grant's level while it is used.
    fn grade_up_against_use(&mut self, g: &mut Ground, at_ms: u64) {
        let (insurer, hospital) = (g.scene.four.insurer.clone(), g.scene.four.hospital_a.clone());
        let item = self.item();
        let id = ItemId::of(item.code, item.scope);
        let registered = self.sign(g.scene, &hospital, Action::RegisterItem(item), &[], at_ms);
        g.ready.push(registered);
        let who = self.newcomer(g, id, at_ms);
        let grant = self.grants(g, &who.party, who.terms(g.scene), &who.ready, at_ms);
        let needs = [BodyId(grant.0)];
        let (level, opening) = (Level::High, Opening::Prohibited);
        let up = Classify { item: id, level, opening, recipients: List::empty() };
        let graded = self.sign(g.scene, &hospital, Action::Classify(up), &needs, at_ms);
        for _ in 0..2 {
            self.asks(g, &insurer, who.ask(g.scene, grant), &needs, at_ms);
        }
        let after = self.asks(g, &insurer, who.ask(g.scene, grant), &[graded], at_ms);
        self.closing.push(id);
        self.applied.push(graded);
        self.denied_as.push((after, Denial::GrantSuspended));
    }

    /// R10, R14: a purpose comes onto the negative list while it is used; from the next block on no grant helps.
    fn prohibit_against_use(&mut self, g: &mut Ground, at_ms: u64) {
        let (bureau, b) = (g.scene.four.bureau.clone(), g.scene.four.hospital_b.clone());
        let (person, ready) = (g.scene.person.clone(), g.ready.clone());
        let purpose = Purpose::Research;
        let terms = Grant { purpose, ..g.scene.standing(&b) };
        let grant = self.grants(g, &person, terms, &ready, at_ms);
        let needs = [ready, vec![BodyId(grant.0)]].concat();
        let ask = RequestAccess { purpose, ..g.scene.ask_statistics(grant) };
        let before = self.asks(g, &b, ask.clone(), &needs, at_ms);
        let motion = Motion::Prohibit(purpose);
        let council = [bureau.clone(), b.clone()];
        let decided = self.decided(&motion, &council, bureau.institution(), &[before], at_ms);
        for need in [before, decided[0]] {
            self.asks(g, &b, ask.clone(), &[need], at_ms);
        }
        let after = self.asks(g, &b, ask, &decided, at_ms);
        self.prohibited.push(grant);
        self.applied.push(before);
        self.denied_as.push((after, Denial::Prohibited));
    }

    /// R18: an institution without a validator is admitted, suspended while it uses, and reinstated.
    fn suspend_against_use(&mut self, g: &mut Ground, at_ms: u64) {
        let four = &g.scene.four;
        // All of them: if the insurer's validator comes to weigh more meanwhile, three are no quorum.
        let council = [&four.bureau, &four.hospital_a, &four.hospital_b, &four.insurer].map(Party::clone);
        let (by, name) = (four.bureau.institution(), "clinic");
        let clinic = council::newcomer(name);
        let motion = |standing| Motion::Stand(name.into(), standing);
        let admitted = self.decided(&Motion::Welcome(name.into()), &council, by, &[], at_ms);
        let person = g.scene.person.clone();
        let terms = g.scene.standing(&clinic);
        let grant = self.grants(g, &person, terms, &[&g.ready[..], &admitted].concat(), at_ms);
        let ask = g.scene.ask_statistics(grant);
        let first = self.asks(g, &clinic, ask.clone(), &[BodyId(grant.0)], at_ms);
        let suspended = self.decided(&motion(Standing::Suspended), &council, by, &[first], at_ms);
        self.asks(g, &clinic, ask.clone(), &suspended[..1], at_ms);
        let after = self.asks(g, &clinic, ask.clone(), &suspended, at_ms);
        let reinstated = self.decided(&motion(Standing::Active), &council, by, &[after], at_ms);
        let again = self.asks(g, &clinic, ask, &reinstated, at_ms);
        self.applied.push(first);
        // The bureau's validator may be voted out meanwhile, and the bureau with it.
        self.if_moved.push((suspended[0], after, Some(Denial::InstitutionSuspended)));
        self.if_moved.push((reinstated[0], again, None));
    }
}

fn recover(who: &Newcomer, key: &SecretKey, in_person: bool) -> Action {
    let (account, algorithm, key) = (who.party.account(), Algorithm::Ed25519, key.public());
    Action::Recover(Recover { account, algorithm, key, in_person })
}
