//! What the rules would say of a request, and who may ask. That an explanation is what then becomes of the request
//! is asked of every request in all of these tests: the sandbox compares the two (`World::block`).

use assent_ledger::testing::*;
use assent_ledger::{BlockContext, Verdict, explain, may_ask, may_sign};
use assent_proto::Denial;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;

/// What would become of it in the next block.
fn told(scene: &Scene, by: &Party, request: &RequestAccess) -> Option<Verdict> {
    explain(scene.world.state(), scene.world.next(), &by.institution(), request)
}

/// The number of the rule that would refuse it, and the rows behind it.
fn rule(scene: &Scene, by: &Party, request: &RequestAccess) -> (Denial, u32, &'static [u8]) {
    match told(scene, by, request) {
        Some(Verdict::Denied { denial, rule: Some(rule) }) => (denial, rule.number, rule.rule.rows),
        other => panic!("{other:?}"),
    }
}

/// The number of the one rule of the decision on the page that begins so.
fn numbered(text: &str) -> u32 {
    let page = assent_ledger::rules::page();
    let is_rule = |line: &&str| line.split('|').count() == 9;
    let lines: Vec<_> = page.lines().filter(is_rule).filter(|line| line.contains(text)).collect();
    assert_eq!(lines.len(), 1, "{text}: {lines:?}");
    lines[0].split('|').nth(1).unwrap().trim().parse().unwrap()
}

/// R6, R7: the use is told before it is made, and that it was made after.
#[test]
fn r7_an_explanation_consumes_nothing_and_tells_what_a_use_would() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.terms()).unwrap();
    let ask = scene.ask(Some(grant));
    let settled = numbered("no settlement is anchored for the one named");
    assert_eq!(rule(&scene, &insurer, &ask), (Denial::NotSettled, settled, &[6][..]));
    scene.settle();

    let before = scene.world.state().root();
    let life = assent_ledger::parameters(scene.world.state()).permit_life_ms;
    let permitted = Verdict::Permitted { until: scene.world.next().time.plus(life), uses_left: Some(0) };
    for _ in 0..3 {
        assert_eq!(told(&scene, &insurer, &ask), Some(permitted), "asking is no use");
    }
    assert_eq!(scene.world.state().root(), before);
    assert_eq!(scene.world.get::<GrantState>(grant).used, 0);

    let permit = scene.request(&insurer, ask.clone()).unwrap();
    let Verdict::Permitted { until, .. } = permitted else { unreachable!() };
    assert_eq!(scene.world.get::<Permit>(permit).expires_at, until);
    let exhausted = numbered("As many uses were permitted as the grant allows");
    assert_eq!(rule(&scene, &insurer, &ask), (Denial::GrantExhausted, exhausted, &[6, 7, 8][..]));
    scene.revoke(grant).unwrap();
    assert_eq!(rule(&scene, &insurer, &ask).0, Denial::GrantRevoked);
}

#[test]
fn r8_uses_left_are_told_of_a_grant_that_counts_them() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let left = |scene: &Scene, ask: &RequestAccess| match told(scene, &insurer, ask) {
        Some(Verdict::Permitted { uses_left, .. }) => uses_left,
        other => panic!("{other:?}"),
    };
    let standing = scene.grant(scene.standing(&insurer)).unwrap();
    assert_eq!(left(&scene, &scene.ask_statistics(standing)), None);
    let terms = Grant { mode: Mode::NTimes, uses: 2, ..scene.standing(&insurer) };
    let twice = scene.grant(terms).unwrap();
    let ask = scene.ask_statistics(twice);
    assert_eq!(left(&scene, &ask), Some(1));
    scene.request(&insurer, ask.clone()).unwrap();
    assert_eq!(left(&scene, &ask), Some(0));
}

/// Times are those of the block for which it is judged.
#[test]
fn r8_the_moment_that_is_asked_about_counts() {
    let mut scene = Scene::new();
    scene.settle();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.terms()).unwrap();
    let (ask, end) = (scene.ask(Some(grant)), scene.world.get::<GrantState>(grant).terms.not_after);
    let at = |time: TimeMs| {
        let block = BlockContext { time, ..scene.world.next() };
        explain(scene.world.state(), block, &insurer.institution(), &ask).unwrap().code()
    };
    assert_eq!([end.0 - 1, end.0, end.0 + 1].map(|t| at(TimeMs(t))), [0, 0, Denial::GrantExpired.number()]);
}

/// Several rules share a code: the basis and the step of the order tell which one it is.
#[test]
fn rules_that_share_a_code_are_told_apart() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let standing = scene.grant(scene.standing(&insurer)).unwrap();
    let good = scene.ask_statistics(standing);
    let stranger = AccountId(digest("nobody"));
    let elsewhere = {
        let (bureau, a) = (scene.four.bureau.clone(), scene.four.hospital_a.clone());
        scene.world.enrol(&bureau, &a, "another")
    };
    let theirs = Record { account: elsewhere.account(), ..scene.records[0].record.clone() };
    let mixed = vec![RecordProof { record: theirs, ..scene.records[0].clone() }];
    let opened = RequestAccess { account: Some(stranger), ..good.clone() };
    let cases = [
        (
            RequestAccess { account: Some(elsewhere.account()), ..good.clone() },
            Denial::OtherAccount,
            "The request names another account than the grant's.",
        ),
        (
            RequestAccess { records: list(mixed), ..good.clone() },
            Denial::OtherAccount,
            "A person is named, and a record is another's.",
        ),
        (
            RequestAccess { purpose: Purpose::Research, ..good.clone() },
            Denial::PurposeNotCovered,
            "The grant is for another purpose.",
        ),
        (
            RequestAccess { action: UseAction::Copy, ..good.clone() },
            Denial::ActionNotCovered,
            "The grant does not name the action.",
        ),
        (RequestAccess { grant: None, ..opened }, Denial::NoBasis, "what is missing is her grant"),
    ];
    for (request, denial, text) in cases {
        let (found, number, _) = rule(&scene, &insurer, &request);
        assert_eq!((found, number), (denial, numbered(text)), "{text}");
    }
}

/// The same of the bases that the person did not give.
#[test]
fn rules_that_share_a_code_are_told_apart_on_every_basis() {
    let mut stage = Stage::new();
    let (insurer, a) = (stage.scene.four.insurer.clone(), stage.scene.four.hospital_a.clone());
    let about = Some(stage.scene.person.account());
    let known = order(&mut stage, about, TimeMs(0));
    let date = stage.scene.world.at().time.plus(60_000);
    let deferred = order(&mut stage, None, date);
    let lab = stage.scene.world.item(&a, 8, Category::TestResult, Level::None, Opening::Unconditional);
    let proofs = [record(&stage.scene.person, 8, 100)];
    let records = list(stage.scene.world.anchor(&a, lab, &proofs, &[]));
    let plain = RequestAccess { purpose: Purpose::Legal, case: None, ..stage.scene.ask(None) };
    let ordered = RequestAccess { order: Some(known), ..plain.clone() };
    let open = RequestAccess { item: lab, records, ..plain.clone() };
    let cases = [
        (
            RequestAccess { account: Some(stage.bystander.account()), ..ordered.clone() },
            Denial::OrderDoesNotCover,
            "The order is about one account, and the request names another or none.",
        ),
        (
            RequestAccess { item: lab, ..ordered.clone() },
            Denial::OrderDoesNotCover,
            "The order names neither the item nor its category.",
        ),
        (
            RequestAccess { action: UseAction::Disclose, ..ordered.clone() },
            Denial::OrderDoesNotCover,
            "The order does not name the action, or covers only outputs that reveal less.",
        ),
        (
            RequestAccess { purpose: Purpose::Treatment, ..ordered.clone() },
            Denial::PurposeNotCovered,
            "The basis is an order, and the purpose is not legal.",
        ),
        (
            RequestAccess { account: None, order: Some(deferred), ..plain.clone() },
            Denial::AccountMissing,
            "The order defers notice and the request names no account",
        ),
        (
            open,
            Denial::PurposeNotCovered,
            "The basis is an opening, and the purpose is treatment in an emergency, or legal.",
        ),
    ];
    for (request, denial, text) in cases {
        let (found, number, _) = rule(&stage.scene, &insurer, &request);
        assert_eq!((found, number), (denial, numbered(text)), "{text}");
    }
}

/// R18: that an institution may do nothing is asked before the order begins, also here.
#[test]
fn r18_a_suspended_requester_and_who_no_block_could_hold() {
    let (mut world, four) = World::four();
    world.amend(four.insurer.institution(), |i: &mut Institution| i.standing = Standing::Suspended);
    let scene = Scene::in_world(world, four);
    let (insurer, ask) = (scene.four.insurer.clone(), scene.ask(None));
    let number = numbered("The author is suspended or expelled, and this is none of the duties");
    assert_eq!(rule(&scene, &insurer, &ask), (Denial::InstitutionSuspended, number, &[18][..]));

    let nobody = Party { author: Author::Institution(InstitutionId(digest("nobody"))), ..insurer.clone() };
    assert_eq!(told(&scene, &nobody, &ask), None, "who does not exist requests nothing");
    let unsigned = RequestAccess { person: Some(AccountId(digest("nobody"))), ..ask };
    assert_eq!(told(&scene, &insurer, &unsigned), None, "who does not exist signs nothing");
}

/// The stage for who may ask: a ward with a delegate at hospital A, a bystander there, and one at hospital B.
struct Stage {
    scene: Scene,
    delegate: Party,
    bystander: Party,
    elsewhere: Party,
}

impl Stage {
    fn new() -> Stage {
        let mut scene = Scene::new();
        let four = scene.four.clone();
        let mut enrol = |custodian, name| scene.world.enrol(&four.bureau, custodian, name);
        let delegate = enrol(&four.hospital_a, "delegate");
        let bystander = enrol(&four.hospital_a, "bystander");
        let elsewhere = enrol(&four.hospital_b, "elsewhere");
        Stage { scene, delegate, bystander, elsewhere }
    }

    /// Everybody there is, by name.
    fn everybody(&self) -> [(&'static str, Author); 8] {
        let four = &self.scene.four;
        [
            ("bureau", four.bureau.author),
            ("hospital-a", four.hospital_a.author),
            ("hospital-b", four.hospital_b.author),
            ("insurer", four.insurer.author),
            ("person", self.scene.person.author),
            ("delegate", self.delegate.author),
            ("bystander", self.bystander.author),
            ("elsewhere", self.elsewhere.author),
        ]
    }

    /// Who may ask it.
    fn parties(&self, requester: &Party, request: &RequestAccess) -> Vec<&'static str> {
        let (state, time) = (self.scene.world.state(), self.scene.world.at().time);
        let may = |asker: &Author| may_ask(state, time, asker, &requester.institution(), request);
        self.everybody().iter().filter(|(_, asker)| may(asker)).map(|(name, _)| *name).collect()
    }

    /// A grant that the delegate signed for the person, with what it takes.
    fn delegated(&mut self) -> GrantId {
        let (bureau, person, delegate) =
            (self.scene.four.bureau.clone(), self.scene.person.clone(), self.delegate.clone());
        // 2027-10-01, the first moment of a quarter.
        let until = TimeMs(1_822_348_800_000);
        let act = Delegate {
            ward: person.account(),
            delegate: delegate.account(),
            capacity: Capacity::Guardian,
            document: digest("birth"),
            purposes: list(vec![Purpose::ClaimsPayment]),
            until,
        };
        let made = self.scene.world.run_with(&bureau, &delegate.key, Action::Delegate(act)).unwrap();
        let delegation = Some(DelegationId(made.0));
        let terms = Grant { capacity: Capacity::Guardian, delegation, ..self.scene.terms() };
        let made = self.scene.world.run(&delegate, Action::Grant(Box::new(terms))).unwrap();
        GrantId(made.0)
    }
}

#[test]
fn of_a_grant_its_parties_may_ask_and_nobody_else() {
    let mut stage = Stage::new();
    let (insurer, b) = (stage.scene.four.insurer.clone(), stage.scene.four.hospital_b.clone());
    let own = stage.scene.grant(stage.scene.terms()).unwrap();
    let ask = stage.scene.ask(Some(own));
    assert_eq!(stage.parties(&insurer, &ask), ["hospital-a", "insurer", "person"]);
    let delegated = stage.delegated();
    let by_delegate = stage.scene.ask(Some(delegated));
    assert_eq!(stage.parties(&insurer, &by_delegate), ["hospital-a", "insurer", "person", "delegate"]);

    // Naming oneself makes nobody a party: as requester, as the person of the records, as who signs second.
    assert_eq!(stage.parties(&b, &ask), ["hospital-a", "insurer", "person"]);
    for name in [&stage.bystander, &stage.elsewhere] {
        let named = Some(name.account());
        let ask = RequestAccess { account: named, person: named, ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &ask), ["hospital-a", "insurer", "person"]);
    }
    // Nor does holding another item: the account is none of that house's.
    let item = stage.scene.world.item(&b, 7, Category::ClaimDocument, Level::Low, Opening::Prohibited);
    let at_b = RequestAccess { item, ..ask.clone() };
    assert_eq!(stage.parties(&insurer, &at_b), ["insurer", "person"]);
    assert_eq!(stage.parties(&b, &at_b), ["insurer", "person"]);

    // What does not exist is nobody's.
    let unknown = RequestAccess { grant: Some(GrantId(digest("none"))), ..ask.clone() };
    assert!(stage.parties(&insurer, &unknown).is_empty());
    let unknown = RequestAccess { item: ItemId(digest("none")), ..ask.clone() };
    assert!(stage.parties(&insurer, &unknown).is_empty());
    let nobody = Party { author: Author::Institution(InstitutionId(digest("none"))), ..insurer };
    assert!(stage.parties(&nobody, &ask).is_empty());
}

#[test]
fn of_an_opening_and_of_an_emergency_who_would_use_who_holds_and_who_is_meant() {
    let stage = Stage::new();
    let insurer = stage.scene.four.insurer.clone();
    let opened = stage.scene.ask(None);
    let emergency = RequestAccess { emergency: Some(EmergencyReason::Unconscious), ..opened.clone() };
    for ask in [opened, emergency] {
        assert_eq!(stage.parties(&insurer, &ask), ["hospital-a", "insurer", "person"]);
        let nobody_named = RequestAccess { account: None, ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &nobody_named), ["hospital-a", "insurer"]);
        let of_another_house = RequestAccess { account: Some(stage.elsewhere.account()), ..ask };
        assert_eq!(stage.parties(&insurer, &of_another_house), ["hospital-a", "insurer"]);
    }
}

/// A legal order of the bureau and hospital B, for the insurer, about the person or anybody.
fn order(stage: &mut Stage, account: Option<AccountId>, notice_from: TimeMs) -> OrderId {
    let (bureau, b) = (stage.scene.four.bureau.clone(), stage.scene.four.hospital_b.clone());
    let terms = IssueOrder {
        basis: OrderBasis::InsuranceSupervision,
        document: digest("order"),
        beneficiary: stage.scene.four.insurer.institution(),
        cosigner: b.institution(),
        account,
        items: list(vec![stage.scene.item]),
        categories: list(Vec::new()),
        data_from: Day(0),
        data_to: Day(1000),
        actions: list(vec![UseAction::Read]),
        output: Output::Raw,
        max_level: Level::High,
        not_after: stage.scene.world.at().time.plus(3_600_000),
        notice_from,
    };
    let issued = stage.scene.world.run_with(&bureau, &b.key, Action::IssueOrder(Box::new(terms)));
    OrderId(issued.unwrap().0)
}

/// R41: until its date an order shows to nobody whom it is kept from, and looks to her like one that does not
/// exist.
#[test]
fn r41_a_deferred_order_does_not_show_through_a_question() {
    let mut stage = Stage::new();
    let insurer = stage.scene.four.insurer.clone();
    let about = Some(stage.scene.person.account());
    let date = stage.scene.world.at().time.plus(60_000);
    for account in [about, None] {
        let kept = order(&mut stage, account, date);
        let ask = RequestAccess { order: Some(kept), purpose: Purpose::Legal, ..stage.scene.ask(None) };
        let unknown = RequestAccess { order: Some(OrderId(digest("none"))), ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &ask), ["hospital-a", "insurer"], "{account:?}");
        assert!(stage.parties(&insurer, &unknown).is_empty());
        // Nor through a grant or an emergency of hers beside it.
        let own = stage.scene.grant(stage.scene.terms()).unwrap();
        let beside = RequestAccess { grant: Some(own), ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &beside), ["hospital-a", "insurer"]);
        let beside = RequestAccess { emergency: Some(EmergencyReason::AcuteThreat), ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &beside), ["hospital-a", "insurer"]);

        let person = stage.scene.person.author;
        let at = |time| may_ask(stage.scene.world.state(), time, &person, &insurer.institution(), &ask);
        assert_eq!([date.0 - 1, date.0, date.0 + 1].map(|t| at(TimeMs(t))), [false, true, true]);
    }
}

#[test]
fn of_an_order_only_whom_and_what_it_covers() {
    let mut stage = Stage::new();
    let (insurer, b) = (stage.scene.four.insurer.clone(), stage.scene.four.hospital_b.clone());
    let about = Some(stage.scene.person.account());
    let known = order(&mut stage, about, TimeMs(0));
    let ask = RequestAccess { order: Some(known), purpose: Purpose::Legal, ..stage.scene.ask(None) };
    assert_eq!(stage.parties(&insurer, &ask), ["hospital-a", "insurer", "person"]);
    assert_eq!(stage.parties(&b, &ask), ["hospital-a", "insurer", "person"], "the requester's word is none");
    let another = RequestAccess { account: Some(stage.bystander.account()), ..ask.clone() };
    assert_eq!(stage.parties(&insurer, &another), ["hospital-a", "insurer", "person"]);
    let a = stage.scene.four.hospital_a.clone();
    for holder in [&a, &b] {
        let code = if holder.institution() == a.institution() { 8 } else { 9 };
        let item = stage.scene.world.item(holder, code, Category::Encounter, Level::Low, Opening::Prohibited);
        let uncovered = RequestAccess { item, ..ask.clone() };
        assert_eq!(stage.parties(&insurer, &uncovered), ["insurer"], "who is not concerned is not told");
    }
}

/// R16, R18: a key speaks for its owner while it is current, and for nobody else.
#[test]
fn r16_only_a_current_key_asks() {
    let mut stage = Stage::new();
    let insurer = stage.scene.four.insurer.clone();
    let person = stage.scene.person.clone();
    let may = |stage: &Stage, who: &Author, key: &assent_proto::SecretKey| {
        may_sign(stage.scene.world.state(), stage.scene.world.at().time, who, &key.public())
    };
    assert!(may(&stage, &person.author, &person.key) && may(&stage, &insurer.author, &insurer.key));
    assert!(!may(&stage, &person.author, &insurer.key) && !may(&stage, &insurer.author, &person.key));
    let nobody = Author::Account(AccountId(digest("nobody")));
    assert!(!may(&stage, &nobody, &person.key));

    let fresh = secret("fresh");
    let rotate = RotateKey { algorithm: assent_proto::keys::Algorithm::Ed25519, key: fresh.public() };
    stage.scene.world.run_with(&person, &fresh, Action::RotateKey(rotate)).unwrap();
    assert!(may(&stage, &person.author, &fresh) && !may(&stage, &person.author, &person.key));
    let ends = stage.scene.world.get::<Institution>(insurer.institution()).keys[0].not_after;
    let at = |time| may_sign(stage.scene.world.state(), time, &insurer.author, &insurer.key.public());
    assert!(at(ends) && !at(TimeMs(ends.0 + 1)));
}
