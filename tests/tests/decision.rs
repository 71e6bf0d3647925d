//! May this institution use this, now, for this, on this basis: each group of the decision's rules on four real
//! processes, by transactions that are signed here and handed in through one door after the other. What a node says
//! of a transaction is believed once its proof verifies; every denial is told by its code. Only what the rules say
//! over the network is asked here: every case of every rule is `ledger`'s.
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use std::time::{Duration, Instant};

use assent_client::error::Failure;
use assent_client::files;
use assent_client::rpc::{Final, Node};
use assent_genesis::devnet::{self, Plan};
use assent_genesis::{Genesis, default_parameters, default_policy, institution_id};
use assent_ledger::testing::{Party, anchor_of, digest, enrol, list, one_use, record, secret};
use assent_proto::code::{Denial, Invalid};
use assent_proto::event::EventKind;
use assent_proto::evidence::{Claim, Evidence};
use assent_proto::keys::{Algorithm, encryption_public};
use assent_proto::question::{Question, SignedQuestion};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Envelope, List, ObjectRef, SecretKey, ids::*, merkle};
use assent_tests::checker;
use assent_tests::clients::now_ms;
use assent_tests::network::{Network, PATIENCE};

const HOUR_MS: u64 = 3_600_000;
/// The least that a delay or deadline may be.
const SHORT_MS: u64 = 1_000;

// ---- The network, and how one speaks to it

/// Who acts for institutions. Those of the first four run a validator each.
#[derive(Clone)]
struct Cast {
    bureau: Party,
    hospital_a: Party,
    hospital_b: Party,
    insurer: Party,
    hospital_c: Party,
    /// No institution until it is admitted.
    court: Party,
}

impl Cast {
    /// A quorum of the validators' institutions.
    fn quorum(&self) -> [Party; 3] {
        [self.bureau.clone(), self.hospital_a.clone(), self.hospital_b.clone()]
    }
}

/// A person with four records of claims at hospital A.
#[derive(Clone)]
struct Person {
    party: Party,
    records: Vec<RecordProof>,
}

/// A running network, a door to each node, and what all stories need.
struct Chain {
    network: Network,
    _dir: tempfile::TempDir,
    genesis: Genesis,
    doors: Vec<Node>,
    /// The door to be used next.
    next: usize,
    /// The newest height that a door has shown: the next one is used once it is there too.
    height: Height,
    sequence: u64,
    /// Requests of which was told before what would become of them.
    foretold: u32,
    cast: Cast,
    /// Claim documents of hospital A, of moderate level, prohibited in principle.
    item: ItemId,
}

impl Chain {
    /// Founds a chain with a hospital that runs no validator, and blocks twice a second even where nothing is asked,
    /// so that its time goes on.
    fn start() -> Chain {
        let dir = tempfile::tempdir().unwrap();
        let parameters = Parameters { heartbeat_ms: 500, ..default_parameters() };
        let plan = Plan {
            chain_id: "decision".into(),
            time: TimeMs(now_ms()),
            nodes: 4,
            institutions: 5,
            parameters,
            policy: default_policy(),
        };
        let made = devnet::found(&plan, &mut files::random_32).unwrap();
        for node in &made.nodes {
            let home = dir.path().join(&node.institution);
            std::fs::create_dir(&home).unwrap();
            for (name, key) in [("consensus.key", &node.consensus), ("network.key", &node.network)] {
                let line = format!("{}\n", hex::encode(key.to_bytes()));
                files::create(&home.join(name), line.as_bytes()).unwrap();
            }
        }
        files::create(&dir.path().join("genesis.toml"), made.genesis.to_toml().as_bytes()).unwrap();
        let network = Network::over(dir.path()).unwrap();
        network.start_all().unwrap();
        let party = |slug: &str| {
            let key = made.institutions.iter().find(|i| i.slug == slug).unwrap().operator.clone();
            Party { author: Author::Institution(institution_id(slug)), key }
        };
        let court = Party { author: Author::Institution(institution_id("court")), key: secret("court") };
        let cast = Cast {
            bureau: party("bureau"),
            hospital_a: party("hospital-a"),
            hospital_b: party("hospital-b"),
            insurer: party("insurer"),
            hospital_c: party("hospital-c"),
            court,
        };
        let doors = (0..4).map(|i| Node::connect(&network.url(i), &made.genesis).unwrap()).collect();
        let mut chain = Chain {
            network,
            _dir: dir,
            genesis: made.genesis,
            doors,
            next: 0,
            height: Height(0),
            sequence: 0,
            foretold: 0,
            cast: cast.clone(),
            item: ItemId::of(1, 1),
        };
        chain.register(&cast.hospital_a, 1);
        chain
    }

    /// Another door than the last, once its node is as far as the others were.
    fn door(&mut self) -> &mut Node {
        let (deadline, at) = (Instant::now() + PATIENCE, self.next);
        self.next = (at + 1) % self.doors.len();
        loop {
            // One that is too busy to say where it is says so.
            let status = self.doors[at].status();
            if status.as_ref().is_ok_and(|s| s.height >= self.height.0) {
                break;
            }
            let told = status.map(|s| s.height);
            assert!(Instant::now() < deadline, "node {at} does not reach block {}: {told:?}", self.height);
            std::thread::sleep(Duration::from_millis(10));
        }
        &mut self.doors[at]
    }

    /// Signs a body of its own, even if the same was asked before.
    fn sign(&mut self, by: &Party, second: Option<&SecretKey>, action: Action) -> Envelope {
        self.sequence += 1;
        let genesis = self.genesis.hash();
        let expires_at = TimeMs(now_ms() + 300_000 + self.sequence);
        let body = Body { chain: genesis.tag(), expires_at, author: by.author, action };
        let keys: Vec<_> = std::iter::once(&by.key).chain(second).collect();
        Envelope::sign(&genesis, &body, &keys)
    }

    fn try_submit(
        &mut self,
        by: &Party,
        second: Option<&SecretKey>,
        action: Action,
    ) -> Result<Final, Failure> {
        let told = match &action {
            Action::RequestAccess(request) => self.explained(by, by.institution(), request),
            _ => None,
        };
        let envelope = self.sign(by, second, action);
        let done = self.door().submit(&envelope)?.0;
        self.height = self.height.max(done.height);
        if let Some(told) = told {
            assert_eq!(told, done.denial(), "as it was told: {:?}", done.body().action);
            self.foretold += 1;
        }
        Ok(done)
    }

    /// What a door tells one who asks whether a request would be permitted: the denial's code; nothing if he is no
    /// party to it.
    fn explained(
        &mut self,
        by: &Party,
        requester: InstitutionId,
        asked: &RequestAccess,
    ) -> Option<Option<u32>> {
        let (chain, time) = (self.genesis.hash().tag(), TimeMs(now_ms()));
        let question =
            Question { chain, time, asker: by.author, requester, request: Box::new(asked.clone()) };
        let signed = SignedQuestion::sign(&self.genesis.hash(), &question, &by.key);
        match self.door().explain(&signed) {
            Ok(told) => {
                assert_eq!(told.rule.is_some(), told.denial.is_some(), "a denial has its rule");
                Some(told.denial.map(Denial::number))
            }
            Err(Failure::Refused { number, .. }) if number == Invalid::NotAParty.number() => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// What must be applied, with a second signature.
    fn run_with(&mut self, by: &Party, second: Option<&SecretKey>, action: Action) -> Final {
        let done = self.try_submit(by, second, action).unwrap();
        let denial = done.denial().map(|code| Denial::from_number(code).unwrap());
        assert_eq!(denial, None, "{:?}", done.body().action);
        done
    }

    fn run(&mut self, by: &Party, action: Action) -> Final {
        self.run_with(by, None, action)
    }

    /// What the rules deny: it is committed with this code.
    fn denied_with(&mut self, why: Denial, by: &Party, second: Option<&SecretKey>, action: Action) {
        let done = self.try_submit(by, second, action).unwrap();
        let denial = done.denial().map(|code| Denial::from_number(code).unwrap());
        assert_eq!(denial, Some(why), "{:?}", done.body().action);
    }

    fn denied(&mut self, why: Denial, by: &Party, action: Action) {
        self.denied_with(why, by, None, action);
    }

    /// What is in no block: every door refuses it by this code.
    fn refused(&mut self, why: Invalid, by: &Party, second: Option<&SecretKey>, action: Action) {
        for _ in 0..self.doors.len() {
            match self.try_submit(by, second, action.clone()) {
                Err(Failure::Refused { number, name, .. }) => {
                    assert_eq!((number, name.as_str()), (why.number(), why.name()));
                }
                Err(other) => panic!("{other}"),
                Ok(done) => panic!("it is in block {}: {:?}", done.height, done.body().action),
            }
        }
    }

    fn object(&mut self, object: impl Into<ObjectRef>) -> Object {
        let seen = self.door().object(object.into()).unwrap();
        self.height = self.height.max(seen.height);
        seen.object.unwrap()
    }

    fn account(&mut self, person: &Party) -> Account {
        match self.object(person.account()) {
            Object::Account(account) => account,
            other => panic!("{other:?}"),
        }
    }

    fn grant_state(&mut self, grant: GrantId) -> GrantState {
        match self.object(grant) {
            Object::Grant(grant) => *grant,
            other => panic!("{other:?}"),
        }
    }

    fn permit(&mut self, permit: PermitId) -> Permit {
        match self.object(permit) {
            Object::Permit(permit) => *permit,
            other => panic!("{other:?}"),
        }
    }

    /// What happened to an object, first to last; proved to be all.
    fn trail(&mut self, object: impl Into<ObjectRef>) -> Vec<EventKind> {
        let trail = self.door().trail(object.into()).unwrap().unwrap();
        trail.events.iter().map(|e| e.core.kind).collect()
    }

    /// Waits until a block is of a later time than this.
    fn wait_past(&mut self, time: TimeMs) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.door().policy().unwrap();
            self.height = self.height.max(shown.height);
            if shown.time > time {
                return;
            }
            assert!(Instant::now() < deadline, "the chain's time stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    // ---- What every story does

    fn register(&mut self, source: &Party, code: u32) -> ItemId {
        let (category, level, opening) = (Category::ClaimDocument, Level::Moderate, Opening::Prohibited);
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients: List::empty() };
        self.run(source, Action::RegisterItem(item));
        ItemId::of(code, 1)
    }

    /// Opens an account at hospital A, where four records are anchored.
    fn person(&mut self, name: &str) -> Person {
        let (cast, key) = (self.cast.clone(), secret(name));
        let enrolled = self.run_with(&cast.bureau, Some(&key), enrol(&cast.hospital_a, &key));
        let party = Party { author: Author::Account(AccountId(enrolled.tx.body_id().0)), key };
        let records: Vec<_> = (0..4).map(|i| record(&party, i, 100 + i)).collect();
        let anchor = Action::AnchorRecords(anchor_of(self.item, &records, &[]));
        let batch = BatchId(self.run(&cast.hospital_a, anchor).tx.body_id().0);
        let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
        let proof = |(i, record): (usize, &Record)| {
            let path = list(merkle::path(&leaves, i));
            RecordProof { batch, record: record.clone(), index: i as u32, path }
        };
        Person { party, records: records.iter().enumerate().map(proof).collect() }
    }

    /// So many times, for treatment, no case named.
    fn treatment(&self, grantee: &Party, uses: u32) -> Grant {
        let until = TimeMs(now_ms() + HOUR_MS);
        let once = one_use(grantee, self.item, CaseId(digest("none")), until, digest("notice"));
        Grant { case: None, purpose: Purpose::Treatment, mode: Mode::NTimes, uses, ..once }
    }

    fn grant(&mut self, by: &Party, terms: Grant) -> GrantId {
        GrantId(self.run(by, Action::Grant(Box::new(terms))).tx.body_id().0)
    }

    /// A request that keeps to [`Chain::treatment`], without a basis.
    fn ask(&self, person: &Person) -> RequestAccess {
        RequestAccess {
            grant: None,
            item: self.item,
            account: Some(person.party.account()),
            case: None,
            purpose: Purpose::Treatment,
            action: UseAction::Read,
            output: Output::Masked,
            records: list(person.records.iter().take(2).cloned().collect()),
            staff: Commitment(digest("staff")),
            person: None,
            emergency: None,
            order: None,
        }
    }

    /// The same on the basis of a grant.
    fn ask_by(&self, person: &Person, grant: GrantId) -> Action {
        request(RequestAccess { grant: Some(grant), ..self.ask(person) })
    }

    fn permitted(&mut self, by: &Party, request: Action) -> PermitId {
        let done = self.run(by, request);
        assert_eq!(done.outcome(), "permitted");
        PermitId(done.tx.body_id().0)
    }

    fn delivery(&mut self, permit: PermitId) -> Action {
        let p = self.permit(permit);
        Action::Deliver(Deliver {
            permit,
            released_height: self.height,
            manifest: p.manifest,
            records: p.records,
            package: digest("package"),
        })
    }

    /// Has a change decided: the first proposes it, the others approve, and the last approval is the one that counts.
    fn decide(&mut self, by: &[Party], change: Change) {
        let until = TimeMs(now_ms() + HOUR_MS);
        let proposed = self.run(&by[0], Action::Propose(Box::new(Propose { change, until })));
        assert!(!happened(&proposed, EventKind::Enacted), "one does not decide alone");
        let proposal = ProposalId(proposed.tx.body_id().0);
        for (i, party) in by.iter().enumerate().skip(1) {
            let approved = self.run(party, Action::Approve(Approve { proposal }));
            assert_eq!(happened(&approved, EventKind::Enacted), i + 1 == by.len());
        }
    }

    /// The validators' institutions change the bounds for what comes next.
    fn amend(&mut self, edit: impl FnOnce(&mut Parameters)) {
        let mut parameters = self.genesis.parameters().clone();
        edit(&mut parameters);
        self.decide(&self.cast.quorum(), Change::Parameters(parameters));
    }

    /// A court joins the chain that runs already.
    fn admit_court(&mut self) {
        let Party { key, .. } = &self.cast.court;
        let (id, operator) = (self.cast.court.institution(), key.public());
        let message = join_message(&self.genesis.hash(), &id, KeyUse::Operator, &operator);
        let possession = Possession { key: operator, signature: key.sign(&message.0) };
        let record = InstitutionRecord {
            roles: list(vec![Role::Court]),
            keys: list(vec![OperatorKey {
                algorithm: Algorithm::Ed25519,
                key: operator,
                not_before: TimeMs(0),
                not_after: TimeMs(now_ms() + 1000 * HOUR_MS),
            }]),
            encryption_key: encryption_public(&[7; 32]),
            max_level: Level::High,
            jurisdiction: 156,
            rostered_until: None,
        };
        let change = ChangeInstitution {
            institution: id,
            standing: Standing::Active,
            record: Some(record),
            possessions: list(vec![possession]),
        };
        self.decide(&self.cast.quorum(), Change::Institution(Box::new(change)));
    }

    /// R7, and what holds at the end of every story: a grant for one use that is asked for through two doors at once
    /// is permitted once; and all four nodes have the same chain and the same state.
    fn finish(mut self, person: &Person) {
        self.explain_and_use_once(person);
        assert!(self.foretold > 2, "{} requests were explained before", self.foretold);
        for (one, other) in [(0, 1), (2, 3), (3, 0)] {
            self.use_once_through_two(person, one, other);
        }
        let urls: Vec<_> = (0..4).map(|i| self.network.url(i)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let findings = runtime.block_on(checker::check(&self.genesis, &urls, None, &[], || {}));
        assert!(findings.is_clean(), "{:#?}", findings.failed);
        println!("{:?}", findings.chain);
        self.network.stop_all().unwrap();
    }

    /// What every door tells every party of a use, before and after it is made; and that it tells nobody else.
    fn explain_and_use_once(&mut self, person: &Person) {
        let (a, b, insurer) =
            (self.cast.hospital_a.clone(), self.cast.hospital_b.clone(), self.cast.insurer.clone());
        let grant = self.grant(&person.party, self.treatment(&b, 1));
        let asked = RequestAccess { grant: Some(grant), ..self.ask(person) };
        let told = |chain: &mut Chain, by: &Party| {
            let told: Vec<_> =
                (0..chain.doors.len()).map(|_| chain.explained(by, b.institution(), &asked)).collect();
            assert!(told.iter().all(|answer| *answer == told[0]), "{told:?}");
            told[0]
        };
        for party in [&a, &b, &person.party] {
            assert_eq!(told(self, party), Some(None), "it would be permitted");
        }
        assert_eq!(told(self, &insurer), None, "it is none of its business");
        self.permitted(&b, request(asked.clone()));
        for party in [&a, &b, &person.party] {
            assert_eq!(told(self, party), Some(Some(Denial::GrantExhausted.number())));
        }
        assert_eq!(told(self, &insurer), None);
        self.denied(Denial::GrantExhausted, &b, request(asked));
    }

    fn use_once_through_two(&mut self, person: &Person, one: usize, other: usize) {
        let case = CaseId(digest(&format!("doors {one} {other}")));
        let b = self.cast.hospital_b.clone();
        let terms = Grant { case: Some(case), mode: Mode::OneTime, uses: 1, ..self.treatment(&b, 1) };
        let grant = self.grant(&person.party, terms);
        let asked = RequestAccess { grant: Some(grant), case: Some(case), ..self.ask(person) };
        let signed = [0, 1].map(|_| self.sign(&b, None, request(asked.clone())));
        for _ in 0..self.doors.len() {
            self.door();
        }
        let (genesis, urls) = (&self.genesis, [one, other].map(|i| self.network.url(i)));
        let (urls, signed) = (&urls, &signed);
        let mut denials = std::thread::scope(|scope| {
            let submit = |i: usize| {
                let (url, envelope) = (urls[i].as_str(), &signed[i]);
                scope.spawn(move || {
                    let mut door = Node::connect(url, genesis).unwrap();
                    let done = door.submit(envelope).unwrap().0;
                    (done.denial(), done.height)
                })
            };
            let both = [0, 1].map(submit);
            both.into_iter().map(|b| b.join().unwrap()).collect::<Vec<_>>()
        });
        denials.sort();
        let codes: Vec<_> = denials.iter().map(|d| d.0).collect();
        assert_eq!(codes, [None, Some(Denial::GrantExhausted.number())], "doors {one} and {other}");
        self.height = self.height.max(denials[0].1).max(denials[1].1);
    }
}

fn request(asked: RequestAccess) -> Action {
    Action::RequestAccess(Box::new(asked))
}

fn happened(done: &Final, kind: EventKind) -> bool {
    done.events.iter().any(|e| e.core.kind == kind)
}

// ---- Persons: keys lost and replaced, and who signs for whom

/// R15, R16, R18: a court is admitted; a wallet is replaced, lost, and wrongly claimed; a guardian signs for a ward.
#[test]
fn r15_r16_persons_keep_their_accounts_and_wards_their_word() {
    let mut chain = Chain::start();
    chain.admit_court();
    let person = chain.person("person");
    let person = r16_a_key_is_rotated(&mut chain, person);
    let person = r16_a_lost_key_is_recovered_after_the_delay(&mut chain, person);
    let person = r16_a_veto_freezes_and_papers_thaw(&mut chain, person);
    r15_a_guardian_signs_until_a_court_ends_it(&mut chain);
    chain.finish(&person);
}

/// The old key is refused at every door; what it granted stands.
fn r16_a_key_is_rotated(chain: &mut Chain, old: Person) -> Person {
    let (b, key) = (chain.cast.hospital_b.clone(), secret("rotated"));
    let granted = chain.grant(&old.party, chain.treatment(&b, 2));
    let rotate = RotateKey { algorithm: Algorithm::Ed25519, key: key.public() };
    chain.refused(
        Invalid::WrongKey,
        &old.party,
        Some(&secret("stranger")),
        Action::RotateKey(rotate.clone()),
    );
    let done = chain.run_with(&old.party, Some(&key), Action::RotateKey(rotate));
    assert!(happened(&done, EventKind::KeyRotated));
    let new = Person { party: Party { key, ..old.party.clone() }, ..old.clone() };
    let terms = Action::Grant(Box::new(chain.treatment(&b, 1)));
    chain.refused(Invalid::WrongKey, &old.party, None, terms.clone());
    chain.permitted(&b, chain.ask_by(&old, granted));
    chain.run(&new.party, terms);
    new
}

/// The bureau, which enrolled her, and a hospital say who she is; from the end of the delay on her new key counts.
fn r16_a_lost_key_is_recovered_after_the_delay(chain: &mut Chain, lost: Person) -> Person {
    let (cast, key) = (chain.cast.clone(), secret("recovered"));
    let granted = chain.grant(&lost.party, chain.treatment(&cast.hospital_b, 1));
    let recover = recovery(&lost.party, &key, false);
    chain.denied_with(Denial::NotPermittedRole, &cast.insurer, Some(&key), recover.clone());
    let first = chain.run_with(&cast.hospital_a, Some(&key), recover.clone());
    assert!(!happened(&first, EventKind::RecoveryReady));
    chain.denied_with(Denial::AlreadyApproved, &cast.hospital_a, Some(&key), recover.clone());
    // Neither gives anything while it lasts.
    let terms = Action::Grant(Box::new(chain.treatment(&cast.hospital_b, 1)));
    chain.denied(Denial::AccountFrozen, &lost.party, terms.clone());
    chain.amend(|p| p.recovery_delay_ms = SHORT_MS);
    let second = chain.run_with(&cast.bureau, Some(&key), recover);
    assert!(happened(&second, EventKind::RecoveryReady));
    let ready_at = chain.account(&lost.party).recovery.unwrap().ready_at.unwrap();
    assert_eq!(ready_at, second.time.plus(SHORT_MS));
    chain.wait_past(ready_at);
    chain.amend(|_| {});
    let found = Person { party: Party { key, ..lost.party.clone() }, ..lost.clone() };
    chain.refused(Invalid::WrongKey, &lost.party, None, terms.clone());
    chain.run(&found.party, terms);
    chain.permitted(&cast.hospital_b, chain.ask_by(&found, granted));
    found
}

/// Two institutions are deceived; the key that is there vetoes, and from then on nobody gives anything until she has
/// shown her papers to both.
fn r16_a_veto_freezes_and_papers_thaw(chain: &mut Chain, hers: Person) -> Person {
    let (cast, thief, key) = (chain.cast.clone(), secret("thief"), secret("in person"));
    let claimed = recovery(&hers.party, &thief, false);
    chain.denied_with(Denial::AccountNotFrozen, &cast.bureau, Some(&key), recovery(&hers.party, &key, true));
    chain.run_with(&cast.bureau, Some(&thief), claimed.clone());
    let ready = chain.run_with(&cast.hospital_b, Some(&thief), claimed.clone());
    assert!(happened(&ready, EventKind::RecoveryReady));
    let terms = Action::Grant(Box::new(chain.treatment(&cast.hospital_b, 1)));
    let by_thief = Party { key: thief.clone(), ..hers.party.clone() };
    chain.refused(Invalid::WrongKey, &by_thief, None, terms.clone());
    let veto = Action::VetoRecovery(VetoRecovery { key: thief.public() });
    let vetoed = chain.run(&hers.party, veto.clone());
    assert!(happened(&vetoed, EventKind::RecoveryVetoed));
    assert!(chain.account(&hers.party).frozen);
    chain.denied(Denial::AccountFrozen, &hers.party, terms.clone());
    chain.denied_with(Denial::AccountFrozen, &cast.bureau, Some(&thief), claimed);
    let papers = recovery(&hers.party, &key, true);
    chain.run_with(&cast.hospital_a, Some(&key), papers.clone());
    let seen = chain.run_with(&cast.bureau, Some(&key), papers);
    assert!(happened(&seen, EventKind::RecoveryReady));
    let thawed = Person { party: Party { key, ..hers.party.clone() }, ..hers.clone() };
    chain.refused(Invalid::WrongKey, &hers.party, None, terms.clone());
    chain.run(&thawed.party, terms);
    chain.denied(Denial::NoRecovery, &thawed.party, veto);
    thawed
}

fn recovery(of: &Party, key: &SecretKey, in_person: bool) -> Action {
    let (algorithm, key) = (Algorithm::Ed25519, key.public());
    Action::Recover(Recover { account: of.account(), algorithm, key, in_person })
}

/// What the guardian granted is suspended once her word ends, and holds again by the ward's own.
fn r15_a_guardian_signs_until_a_court_ends_it(chain: &mut Chain) {
    let cast = chain.cast.clone();
    let (ward, guardian) = (chain.person("ward"), chain.person("guardian"));
    let asked = Delegate {
        ward: ward.party.account(),
        delegate: guardian.party.account(),
        capacity: Capacity::Guardian,
        document: digest("the register's entry"),
        purposes: list(vec![Purpose::Treatment]),
        until: january_after_next(),
    };
    let unfit = Delegate { until: asked.until.plus(1), ..asked.clone() };
    let signs = Some(&guardian.party.key);
    chain.denied_with(Denial::DelegationEndUnfit, &cast.bureau, signs, Action::Delegate(unfit));
    chain.refused(Invalid::WrongKey, &cast.bureau, Some(&ward.party.key), Action::Delegate(asked.clone()));
    let delegated = chain.run_with(&cast.bureau, signs, Action::Delegate(asked));
    let delegation = DelegationId(delegated.tx.body_id().0);

    let own = chain.treatment(&cast.hospital_b, 3);
    let for_ward = Grant { capacity: Capacity::Guardian, delegation: Some(delegation), ..own };
    let research = Grant { purpose: Purpose::Research, ..for_ward.clone() };
    chain.denied(Denial::NotTheDelegate, &guardian.party, Action::Grant(Box::new(research)));
    let grant = chain.grant(&guardian.party, for_ward.clone());
    let state = chain.grant_state(grant);
    assert_eq!((state.account, state.signer), (ward.party.account(), guardian.party.account()));
    chain.permitted(&cast.hospital_b, chain.ask_by(&ward, grant));

    let end = |cause| Action::EndDelegation(EndDelegation { delegation, cause });
    chain.denied(Denial::DelegationEndUnfit, &cast.insurer, end(DelegationEnd::Court));
    chain.run(&cast.court, end(DelegationEnd::Court));
    chain.denied(Denial::DelegationOver, &cast.hospital_b, chain.ask_by(&ward, grant));
    chain.denied(Denial::DelegationOver, &guardian.party, Action::Grant(Box::new(for_ward)));
    let ratify = Action::Ratify(Ratify { grant });
    chain.denied(Denial::NotTheGrantor, &guardian.party, ratify.clone());
    chain.run(&ward.party, ratify.clone());
    chain.permitted(&cast.hospital_b, chain.ask_by(&ward, grant));
    chain.denied(Denial::NothingToRatify, &ward.party, ratify);
    assert_eq!(
        chain.trail(delegation),
        [EventKind::Delegated, EventKind::Granted, EventKind::DelegationEnded]
    );
}

/// The first moment of a year that begins at least a year from now.
fn january_after_next() -> TimeMs {
    let year = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year();
    let date = jiff::civil::date(year + 2, 1, 1).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    TimeMs(date.timestamp().as_millisecond() as u64)
}

// ---- Bases without the person's word, and what follows a permit

/// R9, R17, R41: emergencies and their duties, a court's order, storage by law, a use that is given back.
#[test]
fn r9_r17_r41_what_rests_on_no_word_of_hers_has_its_duties() {
    let mut chain = Chain::start();
    chain.admit_court();
    let person = chain.person("person");
    let ends = r41_an_order_is_issued_that_ends_soon(&mut chain, &person);
    r17_an_emergency_has_its_duties(&mut chain, &person);
    r17_a_release_in_an_outage_is_anchored(&mut chain, &person);
    r41_an_order_is_its_beneficiarys(&mut chain, &person);
    r9_what_should_be_erased_is_held(&mut chain, &person);
    what_is_not_delivered_is_given_back(&mut chain, &person);
    r41_an_order_has_expired(&mut chain, &person, ends);
    chain.finish(&person);
}

fn in_emergency(chain: &Chain, person: &Person) -> Action {
    let (purpose, emergency) = (Purpose::EmergencyTreatment, Some(EmergencyReason::Unconscious));
    request(RequestAccess { purpose, emergency, ..chain.ask(person) })
}

/// The next emergency waits until the last one's person is told.
fn r17_an_emergency_has_its_duties(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let asked = in_emergency(chain, person);
    chain.denied(Denial::NotRostered, &cast.insurer, asked.clone());
    chain.amend(|p| p.emergency_notice_ms = SHORT_MS);
    let first = chain.run(&cast.hospital_b, asked.clone());
    assert!(happened(&first, EventKind::Permitted) && happened(&first, EventKind::EmergencyOpened));
    every_proof_verifies_offline(chain, &first);
    let permit = PermitId(first.tx.body_id().0);
    chain.amend(|_| {});
    chain.wait_past(first.time.plus(SHORT_MS));
    chain.denied(Denial::EmergencyDutyOverdue, &cast.hospital_b, asked.clone());
    chain.permitted(&cast.hospital_c, asked.clone());
    fulfil(chain, &cast.hospital_b, permit);
    chain.permitted(&cast.hospital_b, asked);
    let verdict = Verdict::Justified;
    let again = Action::ReviewEmergency(ReviewEmergency { permit, verdict });
    chain.denied(Denial::AlreadyReviewed, &cast.bureau, again);
    let trail = chain.trail(permit);
    let review = trail.iter().position(|k| *k == EventKind::EmergencyReviewed).unwrap();
    assert!(trail.iter().skip(review).any(|k| *k == EventKind::PersonNotified), "{trail:?}");
    assert!(chain.trail(person.party.account()).contains(&EventKind::EmergencyOpened));
}

/// The regulator reviews; the requester tells the person.
fn fulfil(chain: &mut Chain, requester: &Party, permit: PermitId) {
    let cast = chain.cast.clone();
    let review = Action::ReviewEmergency(ReviewEmergency { permit, verdict: Verdict::Justified });
    let notice = Action::NotifyPerson(NotifyPerson { permit, notice: digest("letter") });
    chain.denied(Denial::NotPermittedRole, requester, review.clone());
    chain.run(&cast.bureau, review);
    chain.denied(Denial::NotTheRequester, &cast.hospital_a, notice.clone());
    chain.run(requester, notice);
}

/// R29: each event's evidence convinces whoever has the genesis file, without any node; no changed byte does.
fn every_proof_verifies_offline(chain: &Chain, done: &Final) {
    let trust = Genesis::parse(&chain.genesis.to_toml()).unwrap().trust();
    let mut kinds = Vec::new();
    for good in &done.evidence {
        let (evidence, _) = Evidence::check(good, &trust).unwrap();
        let Claim::Event(claim) = evidence.claim else { panic!("{:?}", evidence.claim) };
        assert_eq!(claim.event.core.body, done.tx.body_id());
        kinds.push(claim.event.core.kind);
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            assert!(Evidence::check(&bad, &trust).is_err(), "byte {at}");
        }
    }
    assert_eq!(kinds, [EventKind::Permitted, EventKind::EmergencyOpened]);
}

/// Both sides signed it when the chain could not be reached. Late is told as late, and shuts the door until reviewed.
fn r17_a_release_in_an_outage_is_anchored(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let released = |ago_ms| {
        Action::AnchorEmergency(Box::new(AnchorEmergency {
            requester: cast.hospital_b.institution(),
            item: chain.item,
            account: person.party.account(),
            reason: EmergencyReason::AcuteThreat,
            action: UseAction::Read,
            output: Output::Masked,
            records: list(person.records.iter().take(2).cloned().collect()),
            staff: Commitment(digest("staff")),
            released_at: TimeMs(now_ms() - ago_ms),
            package: digest("package"),
        }))
    };
    let (recently, late) = (released(60_000), released(48 * HOUR_MS));
    let (a, b_signs) = (&cast.hospital_a, Some(&cast.hospital_b.key));
    chain.refused(Invalid::WrongKey, a, Some(&cast.insurer.key), recently.clone());
    chain.denied_with(Denial::NotTheSource, &cast.bureau, b_signs, recently.clone());
    let anchored = chain.run_with(a, b_signs, recently);
    assert!(happened(&anchored, EventKind::EmergencyAnchored));
    let permit = PermitId(anchored.tx.body_id().0);
    assert_eq!(chain.permit(permit).delivered_height, Some(anchored.height));
    chain.permitted(&cast.hospital_b, in_emergency(chain, person));

    let anchored = chain.run_with(a, b_signs, late);
    assert!(happened(&anchored, EventKind::EmergencyAnchoredLate));
    let permit = PermitId(anchored.tx.body_id().0);
    match chain.object(ObjectRef::emergency(permit)) {
        Object::Emergency(emergency) => assert!(emergency.late),
        other => panic!("{other:?}"),
    }
    chain.denied(Denial::EmergencyDutyOverdue, &cast.hospital_b, in_emergency(chain, person));
    fulfil(chain, &cast.hospital_b, permit);
    chain.permitted(&cast.hospital_b, in_emergency(chain, person));
}

/// The court's, with the bureau; for the insurer, of this person's records.
fn order(chain: &Chain, person: &Person, life_ms: u64, notice_from: TimeMs) -> IssueOrder {
    let cast = &chain.cast;
    IssueOrder {
        basis: OrderBasis::Court,
        document: digest("the court's decision"),
        beneficiary: cast.insurer.institution(),
        cosigner: cast.bureau.institution(),
        account: Some(person.party.account()),
        items: list(vec![chain.item]),
        categories: List::empty(),
        data_from: Day(100),
        data_to: Day(103),
        actions: list(vec![UseAction::Read]),
        output: Output::Masked,
        max_level: Level::Moderate,
        not_after: TimeMs(now_ms() + life_ms),
        notice_from,
    }
}

fn by_order(chain: &Chain, person: &Person, order: OrderId) -> Action {
    request(RequestAccess { purpose: Purpose::Legal, order: Some(order), ..chain.ask(person) })
}

fn issue(chain: &mut Chain, terms: IssueOrder) -> OrderId {
    let cast = chain.cast.clone();
    let signs = Some(&cast.bureau.key);
    OrderId(chain.run_with(&cast.court, signs, Action::IssueOrder(Box::new(terms))).tx.body_id().0)
}

/// So long that it is issued before it ends; the other stories are told meanwhile.
fn r41_an_order_is_issued_that_ends_soon(chain: &mut Chain, person: &Person) -> (OrderId, TimeMs) {
    let (cast, mut life_ms) = (chain.cast.clone(), 15_000);
    loop {
        let terms = order(chain, person, life_ms, TimeMs(0));
        let (not_after, issue) = (terms.not_after, Action::IssueOrder(Box::new(terms)));
        let done = chain.try_submit(&cast.court, Some(&cast.bureau.key), issue).unwrap();
        match done.denial().map(|code| Denial::from_number(code).unwrap()) {
            None => return (OrderId(done.tx.body_id().0), not_after),
            // A busy machine took longer than the order's life to make a block of it.
            Some(Denial::BadTerms) if done.time >= not_after => life_ms *= 2,
            Some(other) => panic!("{other:?}"),
        }
    }
}

fn r41_an_order_is_its_beneficiarys(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let open = order(chain, person, HOUR_MS, TimeMs(0));
    let unsigned = Action::IssueOrder(Box::new(open.clone()));
    chain.refused(Invalid::WrongKey, &cast.court, Some(&cast.hospital_a.key), unsigned.clone());
    chain.denied_with(Denial::NotPermittedRole, &cast.hospital_a, Some(&cast.bureau.key), unsigned);
    let (bureau, b_signs) = (cast.bureau.institution(), Some(&cast.hospital_b.key));
    let own = IssueOrder { beneficiary: bureau, cosigner: cast.hospital_b.institution(), ..open.clone() };
    chain.denied_with(Denial::SameInstitution, &cast.bureau, b_signs, Action::IssueOrder(Box::new(own)));

    let id = issue(chain, open);
    let asked = by_order(chain, person, id);
    chain.denied(Denial::NotTheBeneficiary, &cast.hospital_b, asked.clone());
    chain.permitted(&cast.insurer, asked);
    let others =
        RequestAccess { output: Output::Raw, purpose: Purpose::Legal, order: Some(id), ..chain.ask(person) };
    chain.denied(Denial::OrderDoesNotCover, &cast.insurer, request(others));

    // Of one that defers notice her trail shows nothing, and nothing can be told yet.
    let deferred = order(chain, person, HOUR_MS, TimeMs(now_ms() + HOUR_MS));
    let before = chain.trail(person.party.account());
    let id = issue(chain, deferred);
    let permit = chain.permitted(&cast.insurer, by_order(chain, person, id));
    assert_eq!(chain.trail(person.party.account()), before);
    assert_eq!(chain.trail(id), [EventKind::OrderIssued, EventKind::Permitted]);
    let notice = Action::NotifyPerson(NotifyPerson { permit, notice: digest("letter") });
    chain.denied(Denial::NoNoticeDue, &cast.insurer, notice);
}

fn r41_an_order_has_expired(chain: &mut Chain, person: &Person, (order, not_after): (OrderId, TimeMs)) {
    let insurer = chain.cast.insurer.clone();
    chain.wait_past(not_after);
    chain.denied(Denial::OrderExpired, &insurer, by_order(chain, person, order));
}

/// What was received under a revoked grant is only kept, and the duty waits for the end of that.
fn r9_what_should_be_erased_is_held(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let grant = chain.grant(&person.party, chain.treatment(&cast.hospital_b, 2));
    let permit = chain.permitted(&cast.hospital_b, chain.ask_by(person, grant));
    let unreleased = chain.permitted(&cast.hospital_b, chain.ask_by(person, grant));
    let delivery = chain.delivery(permit);
    chain.run(&cast.hospital_a, delivery);
    let attest = |hold| Action::AttestErasure(AttestErasure { grant, report: digest("report"), hold });
    let until = TimeMs(now_ms() + 1000 * HOUR_MS);
    let hold = Hold { reason: HoldReason::Litigation, until };
    chain.denied(Denial::NoErasureDuty, &cast.hospital_b, attest(Some(hold.clone())));

    let revoked = chain.run(&person.party, Action::Revoke(Revoke { grant }));
    assert!(happened(&revoked, EventKind::ErasureDue));
    let dead = chain.delivery(unreleased);
    chain.denied(Denial::PermitDead, &cast.hospital_a, dead);
    chain.denied(Denial::GrantRevoked, &cast.hospital_b, chain.ask_by(person, grant));
    let held = chain.run(&cast.hospital_b, attest(Some(hold.clone())));
    assert!(happened(&held, EventKind::ErasureHeld));
    let state = chain.grant_state(grant);
    assert_eq!((state.hold.as_ref(), state.erased_height), (Some(&hold), None));
    assert_eq!(state.erasure_due(chain.genesis.parameters()), Some(until));
    let erased = chain.run(&cast.hospital_b, attest(None));
    assert!(happened(&erased, EventKind::ErasureAttested));
    assert_eq!(chain.grant_state(grant).erasure_due(chain.genesis.parameters()), None);
}

/// R7: the one use is given back once; its permit is dead then.
fn what_is_not_delivered_is_given_back(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let case = CaseId(digest("given back"));
    let once = Grant { case: Some(case), mode: Mode::OneTime, ..chain.treatment(&cast.hospital_b, 1) };
    let grant = chain.grant(&person.party, once);
    let asked = request(RequestAccess { grant: Some(grant), case: Some(case), ..chain.ask(person) });
    let permit = chain.permitted(&cast.hospital_b, asked.clone());
    chain.denied(Denial::GrantExhausted, &cast.hospital_b, asked.clone());
    let not = Action::NotDelivered(NotDelivered { permit });
    chain.denied(Denial::NotTheCustodian, &cast.hospital_b, not.clone());
    let told = chain.run(&cast.hospital_a, not.clone());
    assert!(happened(&told, EventKind::NotDelivered));
    chain.denied(Denial::AlreadyUndelivered, &cast.hospital_a, not);
    let dead = chain.delivery(permit);
    chain.denied(Denial::PermitDead, &cast.hospital_a, dead);
    let permit = chain.permitted(&cast.hospital_b, asked.clone());
    let delivery = chain.delivery(permit);
    chain.run(&cast.hospital_a, delivery);
    chain.denied(Denial::GrantExhausted, &cast.hospital_b, asked);
}

// ---- What institutions decide together

/// R10, R14, R18, R21: the policy, who may act, and grading, each decided by those whose say it is.
#[test]
fn r10_r14_r18_r21_what_is_decided_together_counts_at_every_door() {
    let mut chain = Chain::start();
    let person = chain.person("person");
    r14_the_negative_list_beats_a_valid_grant(&mut chain, &person);
    r18_a_suspended_institution_only_owes(&mut chain, &person);
    r21_grading_up_suspends_and_two_grade_down(&mut chain, &person);
    r10_who_authorizes_does_not_use(&mut chain);
    chain.finish(&person);
}

/// The regulator and a hospital decide it; the grant is as valid as before.
fn r14_the_negative_list_beats_a_valid_grant(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let research = Purpose::Research;
    let terms = chain.treatment(&cast.hospital_c, 0);
    let terms = Grant { purpose: research, mode: Mode::Standing, ..terms };
    let grant = chain.grant(&person.party, terms);
    let asked = request(RequestAccess { purpose: research, grant: Some(grant), ..chain.ask(person) });
    chain.permitted(&cast.hospital_c, asked.clone());
    let entry = Prohibition { purpose: Some(research), item: None, category: None };
    let policy = Policy { version: 2, prohibited: list(vec![entry]), ..chain.genesis.policy().clone() };
    let change = Change::Policy(policy);
    let until = TimeMs(now_ms() + HOUR_MS);
    let stranger = Action::Propose(Box::new(Propose { change: change.clone(), until }));
    chain.denied(Denial::NotOnTheCommittee, &cast.insurer, stranger);
    chain.decide(&[cast.bureau, cast.hospital_b], change);
    for _ in 0..chain.doors.len() {
        chain.denied(Denial::Prohibited, &cast.hospital_c, asked.clone());
    }
}

/// The validators' institutions suspend a hospital, and reinstate it; not one of theirs while its validator votes.
fn r18_a_suspended_institution_only_owes(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let grant = chain.grant(&person.party, chain.treatment(&cast.hospital_c, 5));
    let asked = chain.ask_by(person, grant);
    let permit = chain.permitted(&cast.hospital_c, asked.clone());
    let delivery = chain.delivery(permit);
    chain.run(&cast.hospital_a, delivery);
    let theirs = chain.register(&cast.hospital_c, 7);
    let standing = |party: &Party, standing| {
        let institution = party.institution();
        Change::Institution(Box::new(ChangeInstitution {
            institution,
            standing,
            record: None,
            possessions: List::empty(),
        }))
    };
    let until = TimeMs(now_ms() + HOUR_MS);
    let voter = Propose { change: standing(&cast.insurer, Standing::Suspended), until };
    chain.denied(Denial::BadInstitution, &cast.bureau, Action::Propose(Box::new(voter)));
    chain.decide(&cast.quorum(), standing(&cast.hospital_c, Standing::Suspended));

    chain.denied(Denial::InstitutionSuspended, &cast.hospital_c, asked.clone());
    let of_theirs = RequestAccess { item: theirs, grant: Some(grant), ..chain.ask(person) };
    chain.denied(Denial::CustodianSuspended, &cast.hospital_b, request(of_theirs));
    // What it owes it may do, and has to.
    chain.run(&person.party, Action::Revoke(Revoke { grant }));
    let attest = AttestErasure { grant, report: digest("report"), hold: None };
    chain.run(&cast.hospital_c, Action::AttestErasure(attest));
    let own = Propose { change: standing(&cast.hospital_c, Standing::Active), until };
    chain.denied(Denial::InstitutionSuspended, &cast.hospital_c, Action::Propose(Box::new(own)));

    chain.decide(&cast.quorum(), standing(&cast.hospital_c, Standing::Active));
    let grant = chain.grant(&person.party, chain.treatment(&cast.hospital_c, 1));
    chain.permitted(&cast.hospital_c, chain.ask_by(person, grant));
}

/// The source grades its item up alone, and down not without another of the committee.
fn r21_grading_up_suspends_and_two_grade_down(chain: &mut Chain, person: &Person) {
    let cast = chain.cast.clone();
    let grant = chain.grant(&person.party, chain.treatment(&cast.hospital_b, 5));
    let asked = chain.ask_by(person, grant);
    chain.permitted(&cast.hospital_b, asked.clone());
    let to =
        |level| Classify { item: chain.item, level, opening: Opening::Prohibited, recipients: List::empty() };
    let (up, down) = (to(Level::High), to(Level::Moderate));
    chain.run(&cast.hospital_a, Action::Classify(up));
    chain.denied(Denial::GrantSuspended, &cast.hospital_b, asked.clone());
    chain.denied(Denial::GradingDown, &cast.hospital_a, Action::Classify(down.clone()));
    chain.decide(&[cast.bureau, cast.hospital_a], Change::Grading(down));
    chain.permitted(&cast.hospital_b, asked);
}

/// The bureau is the regulator, and a bureau too: it opens nothing to itself.
fn r10_who_authorizes_does_not_use(chain: &mut Chain) {
    let bureau = chain.cast.bureau.clone();
    let review = |requester: &Party| {
        Action::ReviewOpening(ReviewOpening {
            item: chain.item,
            requester: requester.institution(),
            purpose: Purpose::Statistics,
            until: TimeMs(now_ms() + HOUR_MS),
        })
    };
    let (own, anothers) = (review(&bureau), review(&chain.cast.insurer));
    chain.denied(Denial::SameInstitution, &bureau, own);
    chain.run(&bureau, anothers);
}
