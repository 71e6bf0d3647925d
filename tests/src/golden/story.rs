//! What the first golden chain tells: every kind of transaction and of event at least once, under the first version
//! of the protocol, the change to the second, and what that one decides otherwise. Written once and never again: a
//! later chain has a story and a file of its own.

#![allow(clippy::unwrap_used, reason = "what the story does must be applied, or there is no story")]

use assent_genesis::Genesis;
use assent_ledger::parameters;
use assent_ledger::testing::*;
use assent_proto::keys::{Algorithm, encryption_public};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, Height, List, ObjectRef, SecretKey, TimeMs, ids::*};

/// 2027-01-01, a first moment of a quarter.
const NEXT_YEAR: TimeMs = TimeMs(1_798_761_600_000);

/// The chain that is told.
pub struct Told {
    /// The founding document.
    pub genesis: Genesis,
    /// All that happened.
    pub world: World,
    /// The keys of all who ever vote in it.
    pub keys: Vec<SecretKey>,
    /// Heights at which the first in turn was silent.
    pub missed: Vec<Height>,
}

/// Tells it.
pub fn first() -> Told {
    let (genesis, mut keys, _) = assent_genesis::testing::four();
    keys.push(secret("fifth"));
    let mut story = Story { s: Scene::new(), keys: keys.clone() };
    story.data();
    story.grants();
    story.denials();
    story.keys_of_persons();
    story.wards();
    story.grading();
    story.emergencies();
    let told = story.orders();
    story.products();
    story.council();
    let release = story.outage();
    story.second_version(told, release);
    let missed = story.silence(&genesis);
    Told { genesis, world: story.s.world, keys, missed }
}

struct Story {
    s: Scene,
    keys: Vec<SecretKey>,
}

impl Story {
    fn four(&self) -> Four {
        self.s.four.clone()
    }

    fn run(&mut self, by: &Party, action: Action) -> BodyId {
        self.s.world.run(by, action).unwrap()
    }

    /// Proposed by the bureau, then approved until it is decided; an approval too many is denied.
    fn decide(&mut self, change: Change) -> ProposalId {
        let Four { bureau, hospital_a, hospital_b, .. } = self.four();
        let until = self.s.world.at().time.plus(3_600_000);
        let proposal = ProposalId(self.run(&bureau, Action::Propose(Box::new(Propose { change, until }))).0);
        for by in [hospital_a, hospital_b] {
            let approved = self.s.world.run(&by, Action::Approve(Approve { proposal }));
            assert!(matches!(approved, Ok(_) | Err(Denial::ProposalEnacted)), "{approved:?}");
        }
        assert!(self.s.world.get::<Proposal>(proposal).enacted.is_some());
        proposal
    }

    fn pass_to(&mut self, height: u64) {
        while self.s.world.next().height.0 < height {
            self.s.world.block(vec![]).unwrap();
        }
    }

    fn deliver(&mut self, permit: PermitId) {
        let delivery = self.s.delivery(permit);
        self.s.deliver(&self.four().hospital_a, delivery).unwrap();
    }

    /// Open data of every kind.
    fn data(&mut self) {
        let Four { bureau, hospital_a: a, insurer, .. } = self.four();
        let (category, level) = (Category::TestResult, Level::Low);
        let reviewed = self.s.world.item(&a, 7, category, level, Opening::AfterReview);
        let record = record(&self.s.person, 70, 100);
        let records = list(self.s.world.anchor(&a, reviewed, &[record], &[]));
        let (purpose, requester) = (Purpose::Statistics, insurer.institution());
        let ask = RequestAccess { item: reviewed, records, purpose, case: None, ..self.s.ask(None) };
        self.s.request(&insurer, ask.clone()).unwrap_err();
        let review = ReviewOpening { item: reviewed, requester, purpose, until: NEXT_YEAR };
        self.run(&bureau, Action::ReviewOpening(review));
        self.s.request(&insurer, ask).unwrap();
        for (code, opening) in [(8, Opening::RealName), (9, Opening::Unconditional)] {
            self.s.world.item(&a, code, Category::Encounter, Level::None, opening);
        }
        self.s.settle();
    }

    /// Uses, one too many, one given back; withdrawal before, after and together with a use; erasure and a hold.
    fn grants(&mut self) {
        let Four { hospital_a: a, insurer, .. } = self.four();
        let person = self.s.person.clone();
        let once = self.s.grant(self.s.terms()).unwrap();
        let ask = self.s.ask(Some(once));
        let permit = self.s.request(&insurer, ask.clone()).unwrap();
        self.s.request(&insurer, ask.clone()).unwrap_err();
        self.run(&a, Action::NotDelivered(NotDelivered { permit }));
        let permit = self.s.request(&insurer, ask).unwrap();
        self.deliver(permit);
        let again = self.s.delivery(permit);
        self.s.deliver(&a, again).unwrap_err();
        self.s.revoke(once).unwrap();
        let hold = Hold { reason: HoldReason::Litigation, until: self.s.world.at().time.plus(60_000) };
        for hold in [Some(hold), None] {
            let attest = AttestErasure { grant: once, report: digest("report"), hold };
            self.run(&insurer, Action::AttestErasure(attest));
        }
        // Withdrawn before it came.
        let grant = self.s.world.sign(&person, Action::Grant(Box::new(self.s.terms())));
        self.s.revoke(GrantId(grant.body_id().0)).unwrap();
        self.s.world.submit(grant).unwrap();
        // In one block with a use: the withdrawal comes first, however they were handed in.
        let several = Grant { mode: Mode::NTimes, uses: 3, ..self.s.terms() };
        let grant = self.s.grant(several).unwrap();
        let ask = Action::RequestAccess(Box::new(self.s.ask(Some(grant))));
        let ask = self.s.world.sign(&insurer, ask);
        let revoke = self.s.world.sign(&person, Action::Revoke(Revoke { grant }));
        let verdicts = self.s.world.block(vec![revoke, ask]).unwrap();
        assert_eq!(verdicts[1], Err(Denial::GrantRevoked));
    }

    /// Requests that break one thing each.
    fn denials(&mut self) {
        let Four { hospital_a: a, hospital_b: b, insurer, .. } = self.four();
        let standing = Grant { mode: Mode::NTimes, uses: 99, ..self.s.terms() };
        let grant = self.s.grant(standing).unwrap();
        let asks: [fn(&Scene, &mut RequestAccess); 14] = [
            |_, r| r.grant = Some(GrantId(digest("none"))),
            |_, r| r.grant = None,
            |_, r| r.case = None,
            |_, r| r.case = Some(CaseId(digest("other"))),
            |_, r| r.account = Some(AccountId(digest("other"))),
            |_, r| r.item = ItemId(digest("other")),
            |s, r| r.item = s.settlements,
            |s, r| r.records = list(vec![s.records[4].clone()]),
            |s, r| r.records = list(vec![RecordProof { index: 1, ..s.records[0].clone() }]),
            |s, r| r.records = list(vec![s.records[0].clone(), s.records[0].clone()]),
            |_, r| r.action = UseAction::Disclose,
            |_, r| r.output = Output::Raw,
            |_, r| r.purpose = Purpose::Research,
            |_, r| r.emergency = Some(EmergencyReason::AcuteThreat),
        ];
        for edit in asks {
            let mut ask = self.s.ask(Some(grant));
            edit(&self.s, &mut ask);
            self.s.request(&insurer, ask).unwrap_err();
        }
        let ask = self.s.ask(Some(grant));
        self.s.request(&b, ask).unwrap_err();
        let terms: [fn(&mut Grant); 5] = [
            |g| g.max_level = Level::Low,
            |g| g.jurisdictions = list(vec![840]),
            |g| g.items = list(vec![ItemId(digest("other"))]),
            |g| g.not_before = g.not_after,
            |g| g.purpose = Purpose::Marketing,
        ];
        for edit in terms {
            let mut terms = self.s.terms();
            edit(&mut terms);
            let purpose = terms.purpose;
            let grant = self.s.grant(terms).unwrap();
            let ask = RequestAccess { purpose, ..self.s.ask(Some(grant)) };
            self.s.request(&insurer, ask).unwrap_err();
        }
        self.s.grant(Grant { uses: 2, ..self.s.terms() }).unwrap_err();
        self.s.grant(Grant { grantee: InstitutionId(digest("none")), ..self.s.terms() }).unwrap_err();
        let stranger = Deliver { permit: PermitId(digest("none")), ..some_delivery() };
        self.s.deliver(&a, stranger).unwrap_err();
        let (category, level, recipients) = (Category::ClaimDocument, Level::High, List::empty());
        let taken =
            RegisterItem { code: 1, scope: 1, category, level, opening: Opening::Prohibited, recipients };
        self.s.world.run(&a, Action::RegisterItem(taken)).unwrap_err();
    }

    /// A key that changes, one that is lost, and a recovery that is vetoed and then made in person.
    fn keys_of_persons(&mut self) {
        let Four { bureau, hospital_a: a, hospital_b: b, insurer, .. } = self.four();
        let new = secret("rotated");
        let (algorithm, key) = (Algorithm::Ed25519, new.public());
        let rotate = Action::RotateKey(RotateKey { algorithm, key });
        self.s.world.run_with(&self.s.person.clone(), &new, rotate).unwrap();
        self.s.person.key = new;

        let lost = self.s.world.enrol(&bureau, &a, "loses her key");
        let recover = |person: &Party, key: &SecretKey, in_person| {
            let (account, key) = (person.account(), key.public());
            Action::Recover(Recover { account, algorithm, key, in_person })
        };
        let found = secret("found");
        for by in [&bureau, &a] {
            self.s.world.run_with(by, &found, recover(&lost, &found, false)).unwrap();
        }
        self.s.world.run_with(&insurer, &found, recover(&lost, &found, false)).unwrap_err();
        let delay = parameters(self.s.world.state()).recovery_delay_ms;
        self.s.world.wait(delay);
        let back = Party { key: found, ..lost };
        let terms = self.s.terms();
        self.run(&back, Action::Grant(Box::new(terms)));

        let robbed = self.s.world.enrol(&bureau, &b, "is robbed");
        let (thief, hers) = (secret("thief"), secret("in person"));
        self.s.world.run_with(&bureau, &thief, recover(&robbed, &thief, false)).unwrap();
        self.run(&robbed, Action::VetoRecovery(VetoRecovery { key: thief.public() }));
        let terms = Action::Grant(Box::new(self.s.terms()));
        self.s.world.run(&robbed, terms).unwrap_err();
        for by in [&bureau, &b] {
            self.s.world.run_with(by, &hers, recover(&robbed, &hers, true)).unwrap();
        }
    }

    /// A guardian whose delegation ends and whose grant the ward lets hold; and a proxy.
    fn wards(&mut self) {
        let Four { bureau, hospital_a: a, insurer, .. } = self.four();
        let ward = self.s.world.enrol(&bureau, &a, "ward");
        let guardian = self.s.world.enrol(&bureau, &a, "guardian");
        let asked = |capacity| Delegate {
            ward: ward.account(),
            delegate: guardian.account(),
            capacity,
            document: digest("entry in the register"),
            purposes: list(vec![Purpose::ClaimsPayment, Purpose::Treatment]),
            until: NEXT_YEAR,
        };
        let delegate = Action::Delegate(asked(Capacity::Guardian));
        let id = self.s.world.run_with(&bureau, &guardian.key, delegate).unwrap();
        let delegation = DelegationId(id.0);
        let terms = Grant { capacity: Capacity::Guardian, delegation: Some(delegation), ..self.s.terms() };
        let grant = GrantId(self.run(&guardian, Action::Grant(Box::new(terms))).0);
        let end = EndDelegation { delegation, cause: DelegationEnd::Court };
        self.run(&bureau, Action::EndDelegation(end.clone()));
        self.s.world.run(&bureau, Action::EndDelegation(end)).unwrap_err();
        let ask = RequestAccess { account: Some(ward.account()), ..self.s.ask(Some(grant)) };
        self.s.request(&insurer, ask).unwrap_err();
        self.run(&ward, Action::Ratify(Ratify { grant }));
        self.s.world.run(&ward, Action::Ratify(Ratify { grant })).unwrap_err();
        let proxy = Action::Delegate(asked(Capacity::Proxy));
        self.s.world.run_with(&bureau, &ward.key, proxy).unwrap();
    }

    /// Up by the source, which suspends a grant; down by two.
    fn grading(&mut self) {
        let Four { hospital_a: a, insurer, .. } = self.four();
        let item = self.s.world.item(&a, 20, Category::Prescription, Level::Low, Opening::Prohibited);
        let held = record(&self.s.person, 200, 100);
        let records = list(self.s.world.anchor(&a, item, &[held], &[]));
        let terms = Grant { items: list(vec![item]), ..self.s.standing(&insurer) };
        let grant = self.s.grant(terms).unwrap();
        let ask = RequestAccess { item, records, ..self.s.ask_statistics(grant) };
        self.s.request(&insurer, ask.clone()).unwrap();
        let (opening, recipients) = (Opening::Prohibited, List::empty());
        let graded = |level| Classify { item, level, opening, recipients: recipients.clone() };
        self.run(&a, Action::Classify(graded(Level::High)));
        self.s.request(&insurer, ask).unwrap_err();
        self.s.world.run(&a, Action::Classify(graded(Level::Low))).unwrap_err();
        self.decide(Change::Grading(graded(Level::Moderate)));
    }

    /// One that is reviewed and told; one by whoever is on no roster.
    fn emergencies(&mut self) {
        let Four { bureau, hospital_b: b, insurer, .. } = self.four();
        let (purpose, emergency) = (Purpose::EmergencyTreatment, Some(EmergencyReason::AcuteThreat));
        let ask = RequestAccess { case: None, purpose, emergency, ..self.s.ask(None) };
        let permit = self.s.request(&b, ask.clone()).unwrap();
        self.s.request(&insurer, ask).unwrap_err();
        self.deliver(permit);
        let review = ReviewEmergency { permit, verdict: Verdict::Justified };
        self.run(&bureau, Action::ReviewEmergency(review.clone()));
        self.s.world.run(&bureau, Action::ReviewEmergency(review)).unwrap_err();
        self.tell(&b, permit).unwrap();
        self.tell(&b, permit).unwrap_err();
    }

    fn tell(&mut self, by: &Party, permit: PermitId) -> Result<BodyId, Denial> {
        self.s.world.run(by, Action::NotifyPerson(NotifyPerson { permit, notice: digest("told") }))
    }

    /// A use by order, of which the first version lets the person be told twice; gives its permit.
    fn orders(&mut self) -> PermitId {
        let Four { bureau, hospital_b: b, insurer, .. } = self.four();
        let now = self.s.world.at().time;
        let order = self.s.order(&insurer, &b, NEXT_YEAR);
        let terms = IssueOrder { notice_from: now.plus(600_000), ..order };
        let order = self.s.world.run_with(&bureau, &b.key, Action::IssueOrder(Box::new(terms))).unwrap();
        let (order, purpose) = (Some(OrderId(order.0)), Purpose::Legal);
        let ask = RequestAccess { order, purpose, case: None, ..self.s.ask(None) };
        let permit = self.s.request(&insurer, ask.clone()).unwrap();
        self.s.request(&b, ask).unwrap_err();
        self.tell(&insurer, permit).unwrap_err();
        self.s.world.wait(600_000);
        self.tell(&insurer, permit).unwrap();
        self.tell(&insurer, permit).unwrap();
        permit
    }

    /// What is made of what.
    fn products(&mut self) {
        let a = self.four().hospital_a;
        let grant = self.s.grant(self.s.standing(&a)).unwrap();
        let ask = self.s.ask_statistics(grant);
        let permit = self.s.request(&a, ask).unwrap();
        let (made, next) = (product("cleaned", Level::High), product("counted", Level::High));
        self.run(&a, activity(ActivityKind::Clean, &[permit], &[], &[&made]));
        self.run(&a, activity(ActivityKind::Aggregate, &[], &[made.id], &[&next]));
        let again = activity(ActivityKind::Mask, &[permit], &[], &[&made]);
        self.s.world.run(&a, again).unwrap_err();
    }

    /// Bounds, policy, nodes, validators, an institution that comes and goes, and a validator that contradicts
    /// itself.
    fn council(&mut self) {
        let Four { hospital_a: a, hospital_b: b, insurer, .. } = self.four();
        let mut bounds = parameters(self.s.world.state());
        (bounds.equivocation, bounds.heartbeat_ms) = (Consequence::Remove, 7_000);
        self.decide(Change::Parameters(bounds));
        let mut policy = assent_ledger::policy(self.s.world.state());
        policy.version += 1;
        let entry = Prohibition { purpose: Some(Purpose::Operations), item: None, category: None };
        policy.prohibited = list(vec![entry]);
        self.decide(Change::Policy(policy));

        let (genesis, fifth) = (*self.s.world.genesis(), self.keys[4].clone());
        let admit = admission(&genesis, a.institution(), &fifth, &secret("fifth: network"));
        let nodes = ChangeNodes { admit: list(vec![admit]), remove: List::empty() };
        self.decide(Change::Nodes(nodes));
        let from = Height(self.s.world.next().height.0 + 6);
        let (state, next) = (self.s.world.state(), self.s.world.next().height);
        let seat = change_validators(&genesis, state, next, from, &[&fifth], |set| {
            set.push(assent_proto::Validator {
                algorithm: Algorithm::Ed25519,
                key: fifth.public(),
                power: 1,
                institution: a.institution(),
            });
        });
        self.decide(Change::Validators(seat));
        self.pass_to(from.0 + 2);
        let report = contradiction(&genesis, &self.keys[3], Height(5), 0);
        self.run(&b, Action::ReportEquivocation(Box::new(report.clone())));
        self.s.world.run(&a, Action::ReportEquivocation(Box::new(report))).unwrap_err();
        let here = self.s.world.next().height.0;
        self.pass_to(here + 4);

        let newcomer = Party {
            author: Author::Institution(assent_genesis::institution_id("hospital-z")),
            key: secret("hospital-z"),
        };
        self.decide(admitted(&genesis, &newcomer));
        self.s.world.item(&newcomer, 30, Category::Encounter, Level::Low, Opening::Prohibited);
        for standing in [Standing::Suspended, Standing::Active, Standing::Expelled] {
            let institution = newcomer.institution();
            let (record, possessions) = (None, List::empty());
            let change = ChangeInstitution { institution, standing, record, possessions };
            self.decide(Change::Institution(Box::new(change)));
        }
        let code = RegisterItem {
            code: 31,
            scope: 1,
            category: Category::Encounter,
            level: Level::Low,
            opening: Opening::Prohibited,
            recipients: List::empty(),
        };
        self.s.world.run(&newcomer, Action::RegisterItem(code)).unwrap_err();

        let new = secret("insurer's second key");
        let (not_before, not_after) = (self.s.world.at().time, NEXT_YEAR);
        let key = OperatorKey { algorithm: Algorithm::Ed25519, key: new.public(), not_before, not_after };
        let rotate = Action::RotateOperator(RotateOperator { add: Some(key), retire: None });
        self.s.world.run_with(&insurer, &new, rotate).unwrap();
    }

    /// A release in an outage, anchored in time, again (the first version lets it be so), and one anchored late.
    fn outage(&mut self) -> AnchorEmergency {
        let Four { hospital_a: a, hospital_b: b, .. } = self.four();
        let ask = self.s.ask(None);
        let release = AnchorEmergency {
            requester: b.institution(),
            item: ask.item,
            account: self.s.person.account(),
            reason: EmergencyReason::Unconscious,
            action: ask.action,
            output: ask.output,
            records: ask.records,
            staff: ask.staff,
            released_at: self.s.world.at().time,
            package: digest("package"),
        };
        for _ in 0..2 {
            self.anchor(&a, &b, &release).unwrap();
        }
        let wait = parameters(self.s.world.state()).emergency_anchor_ms;
        self.s.world.wait(wait);
        let late = AnchorEmergency { released_at: release.released_at.plus(1), ..release.clone() };
        self.anchor(&a, &b, &late).unwrap();
        release
    }

    fn anchor(&mut self, by: &Party, with: &Party, release: &AnchorEmergency) -> Result<BodyId, Denial> {
        self.s.world.run_with(by, &with.key, Action::AnchorEmergency(Box::new(release.clone())))
    }

    /// From its height on both of what could be told twice is told once.
    fn second_version(&mut self, told: PermitId, release: AnchorEmergency) {
        let Four { hospital_a: a, hospital_b: b, insurer, .. } = self.four();
        let from = Height(self.s.world.next().height.0 + 6);
        self.decide(Change::Protocol(ChangeProtocol { version: 2, from }));
        self.pass_to(from.0 - 1);
        self.tell(&insurer, told).unwrap();
        self.tell(&insurer, told).unwrap();
        assert_eq!(self.tell(&insurer, told), Err(Denial::AlreadyNotified));
        self.anchor(&a, &b, &release).unwrap();
        assert_eq!(self.anchor(&a, &b, &release), Err(Denial::AlreadyAnchored));
    }

    /// The last block but one is decided in its second round, and the last one counts the turn that was missed.
    fn silence(&mut self, genesis: &Genesis) -> Vec<Height> {
        let missed = self.s.world.at().height;
        let shown = super::silent_first(&self.s.world, &self.keys, genesis);
        self.s.world.see(shown);
        self.s.world.block(vec![]).unwrap();
        let turns: Turns = self.s.world.get(ObjectRef::TURNS);
        assert_eq!(turns.missed.len(), 1);
        vec![missed]
    }
}

fn some_delivery() -> Deliver {
    let (manifest, package) = (digest("manifest"), digest("package"));
    Deliver { permit: PermitId(digest("none")), released_height: Height(1), manifest, records: 1, package }
}

/// A hospital that is to be among the institutions.
fn admitted(genesis: &GenesisHash, who: &Party) -> Change {
    let (institution, key) = (who.institution(), who.key.public());
    let message = join_message(genesis, &institution, KeyUse::Operator, &key);
    let operator =
        OperatorKey { algorithm: Algorithm::Ed25519, key, not_before: TimeMs(0), not_after: NEXT_YEAR };
    let record = InstitutionRecord {
        roles: list(vec![Role::Hospital]),
        keys: list(vec![operator]),
        encryption_key: encryption_public(&[7; 32]),
        max_level: Level::High,
        jurisdiction: JURISDICTION,
        rostered_until: None,
    };
    Change::Institution(Box::new(ChangeInstitution {
        institution,
        standing: Standing::Active,
        record: Some(record),
        possessions: list(vec![Possession { key, signature: who.key.sign(&message.0) }]),
    }))
}
