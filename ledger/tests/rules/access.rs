//! The decision on a request, and what follows from a permit.

use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::{GrantState, Institution, Permit};
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, ids::*};

#[test]
fn r3_a_request_gets_a_permit_and_a_delivery_joins_it() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let p: Permit = scene.world.get(permit);
    assert_eq!((p.requester, p.custodian), (insurer.institution(), a.institution()));
    assert_eq!((p.records, p.grant, p.staff), (2, Some(grant), Commitment(digest("staff"))));
    let delivery = scene.delivery(permit);
    let height = delivery.released_height;
    scene.deliver(&a, delivery).unwrap();
    assert_eq!(scene.world.get::<Permit>(permit).delivered_height, Some(height));
    assert_eq!(scene.world.get::<GrantState>(grant).delivered, 1);
    let trails: [ObjectRef; 5] = [
        permit.into(),
        grant.into(),
        scene.person.account().into(),
        insurer.institution().into(),
        a.institution().into(),
    ];
    for trail in trails {
        let kinds = scene.world.kinds(trail);
        assert_eq!(kinds[kinds.len() - 2..], [EventKind::Permitted, EventKind::Delivered], "{trail:?}");
    }
}

#[test]
fn r4_an_unmatched_delivery_is_on_the_custodians_trail() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let invented = Deliver {
        permit: PermitId(digest("invented")),
        released_height: scene.world.at().height,
        manifest: digest("manifest"),
        records: 1,
        package: digest("package"),
    };
    assert_eq!(scene.deliver(&a, invented.clone()), Err(Denial::NoSuchPermit));
    let event = *scene.world.trail(a.institution()).last().unwrap();
    assert_eq!((event.core.kind, event.core.code), (EventKind::Denied, Denial::NoSuchPermit.number()));
    assert_eq!(event.links.len(), 1, "no trail is invented");
}

#[test]
fn r6_second_use_other_case_and_no_settlement_are_three_codes() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.terms()).unwrap();
    let ask = scene.ask(Some(grant));
    assert_eq!(scene.request(&insurer, ask.clone()), Err(Denial::NotSettled));
    scene.settle();
    let other = RequestAccess { case: Some(CaseId(digest("another case"))), ..ask.clone() };
    assert_eq!(scene.request(&insurer, other), Err(Denial::OtherCase));
    scene.request(&insurer, ask.clone()).unwrap();
    assert_eq!(scene.request(&insurer, ask), Err(Denial::GrantExhausted));
}

#[test]
fn r8_n_uses_are_permitted_and_no_more() {
    for n in [1, 2, 5] {
        let mut scene = Scene::new();
        scene.settle();
        let insurer = scene.four.insurer.clone();
        let grant = scene.grant(Grant { mode: Mode::NTimes, uses: n, ..scene.terms() }).unwrap();
        for _ in 0..n {
            scene.request(&insurer, scene.ask(Some(grant))).unwrap();
        }
        assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantExhausted));
        assert_eq!(scene.world.get::<GrantState>(grant).used, n);
    }
}

#[test]
fn r8_a_standing_grant_lasts_until_it_ends() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    let end = scene.world.get::<GrantState>(grant).terms.not_after;
    for _ in 0..3 {
        scene.request(&insurer, scene.ask_statistics(grant)).unwrap();
    }
    scene.world.wait(end.0 - scene.world.next().time.0);
    scene.request(&insurer, scene.ask_statistics(grant)).expect("at its last moment");
    assert_eq!(scene.request(&insurer, scene.ask_statistics(grant)), Err(Denial::GrantExpired));
}

#[test]
fn r11_the_opening_type_is_the_basis_without_a_grant() {
    for level in Level::ALL {
        for opening in Opening::ALL {
            if *level == Level::High && *opening != Opening::Prohibited
                || *opening == Opening::Unconditional && *level != Level::None
            {
                continue; // cannot be in the catalogue: see r11_every_level_with_every_opening
            }
            let mut scene = opened(*level, *opening);
            let (insurer, b) = (scene.four.insurer.clone(), scene.four.hospital_b.clone());
            let ask =
                RequestAccess { account: None, case: None, purpose: Purpose::Statistics, ..scene.ask(None) };
            let plain = scene.request(&insurer, ask.clone()).map(|_| ());
            let strange = scene.request(&b, ask.clone()).map(|_| ());
            let named = RequestAccess { person: Some(scene.person.account()), ..ask.clone() };
            let key = scene.person.key.clone();
            let real_name =
                scene.world.run_with(&insurer, &key, Action::RequestAccess(Box::new(named))).map(|_| ());
            review(&mut scene, &insurer, Purpose::Statistics);
            let reviewed = scene.request(&insurer, ask).map(|_| ());
            let all = |verdict: Result<(), Denial>| [verdict; 4];
            let expected = match opening {
                Opening::Prohibited => all(Err(Denial::OpeningProhibited)),
                Opening::AfterReview => {
                    let missing = Err(Denial::ReviewMissing);
                    [missing, missing, missing, Ok(())]
                }
                Opening::RealName => {
                    let missing = Err(Denial::RealNameMissing);
                    [missing, missing, Ok(()), missing]
                }
                Opening::Directed => [Ok(()), Err(Denial::NotARecipient), Ok(()), Ok(())],
                Opening::Unconditional => all(Ok(())),
            };
            assert_eq!([plain, strange, real_name, reviewed], expected, "{level:?} {opening:?}");
        }
    }
}

/// A scene whose item is of this level and opening, directed to the insurer where it is directed.
fn opened(level: Level, opening: Opening) -> Scene {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let directed = (opening == Opening::Directed).then(|| scene.four.insurer.institution());
    let recipients = list(directed.into_iter().collect());
    let item = RegisterItem { code: 9, scope: 1, category: Category::TestResult, level, opening, recipients };
    scene.world.run(&a, Action::RegisterItem(item)).unwrap();
    scene.item = ItemId::of(9, 1);
    let records = [record(&scene.person, 1, 100), record(&scene.person, 2, 101)];
    scene.records = scene.world.anchor(&a, scene.item, &records, &[]);
    scene
}

fn review(scene: &mut Scene, requester: &Party, purpose: Purpose) {
    let (bureau, until) = (scene.four.bureau.clone(), scene.world.at().time.plus(60_000));
    let review = ReviewOpening { item: scene.item, requester: requester.institution(), purpose, until };
    scene.world.run(&bureau, Action::ReviewOpening(review)).unwrap();
}

#[test]
fn r11_a_review_is_for_one_requester_and_purpose_until_its_end() {
    let mut scene = opened(Level::Moderate, Opening::AfterReview);
    let (insurer, b) = (scene.four.insurer.clone(), scene.four.hospital_b.clone());
    review(&mut scene, &insurer, Purpose::Statistics);
    let ask = RequestAccess { account: None, case: None, purpose: Purpose::Statistics, ..scene.ask(None) };
    let other = RequestAccess { purpose: Purpose::Research, ..ask.clone() };
    assert!(scene.request(&insurer, ask.clone()).is_ok());
    assert_eq!(scene.request(&b, ask.clone()), Err(Denial::ReviewMissing));
    assert_eq!(scene.request(&insurer, other), Err(Denial::ReviewMissing));
    scene.world.wait(60_000);
    assert_eq!(scene.request(&insurer, ask), Err(Denial::ReviewMissing));
}

#[test]
fn r11_a_grant_is_a_basis_of_its_own_capped_by_the_least_ceiling() {
    let use_cases = [
        (Purpose::Treatment, Level::High),
        (Purpose::Research, Level::Moderate),
        (Purpose::Operations, Level::Low),
    ];
    for item in Level::ALL {
        for receiver in Level::ALL {
            let mut scene = graded(*item, *receiver);
            let insurer = scene.four.insurer.clone();
            for granted in Level::ALL {
                for (purpose, use_case) in use_cases {
                    let terms = Grant { max_level: *granted, purpose, ..scene.standing(&insurer) };
                    let grant = scene.grant(terms).unwrap();
                    let ask = RequestAccess { purpose, ..scene.ask_statistics(grant) };
                    let open = item <= granted && item <= receiver && *item <= use_case;
                    let expected = if open { Ok(()) } else { Err(Denial::LevelTooHigh) };
                    let verdict = scene.request(&insurer, ask).map(|_| ());
                    assert_eq!(verdict, expected, "{item:?} {granted:?} {receiver:?} {purpose:?}");
                }
            }
        }
    }
}

/// A scene whose item is of this level, and whose insurer may receive up to another.
fn graded(level: Level, receiver: Level) -> Scene {
    let (mut world, four) = World::four();
    world.amend(four.insurer.institution(), |i: &mut Institution| i.max_level = receiver);
    let person = world.enrol(&four.bureau, &four.hospital_a, "person");
    let item = world.item(&four.hospital_a, 1, Category::ClaimDocument, level, Opening::Prohibited);
    let records = [record(&person, 1, 100), record(&person, 2, 101)];
    let records = world.anchor(&four.hospital_a, item, &records, &[]);
    Scene { world, four, person, item, settlements: item, records, case: CaseId(digest("case")) }
}

#[test]
fn the_order_of_the_decision_is_fixed() {
    // Everything is wrong at first; each step mends what was named, and the next failure is named.
    let mut scene = Scene::new();
    let (insurer, b) = (scene.four.insurer.clone(), scene.four.hospital_b.clone());
    let bureau = scene.four.bureau.clone();
    let elsewhere = scene.world.enrol(&bureau, &b, "elsewhere");
    let person = std::mem::replace(&mut scene.person, elsewhere.clone());
    let terms = |scene: &Scene| Grant {
        grantee: b.institution(),
        items: list(vec![ItemId(digest("other"))]),
        data_to: Day(100),
        purpose: Purpose::Treatment,
        actions: list(vec![UseAction::Copy]),
        output: Output::ResultOnly,
        max_level: Level::None,
        not_before: scene.world.at().time.plus(3_000_000),
        jurisdictions: list(vec![840]),
        ..scene.terms()
    };
    let mut ask = scene.ask(Some(GrantId(digest("no grant"))));
    (ask.item, ask.purpose, ask.case) =
        (ItemId(digest("no item")), Purpose::Marketing, Some(CaseId(digest("other"))));
    ask.records = list(vec![RecordProof { batch: BatchId(digest("no batch")), ..scene.records[1].clone() }]);

    let mut steps = Vec::new();
    let mut step = |scene: &mut Scene, ask: &RequestAccess| {
        let verdict = scene.request(&insurer, ask.clone()).unwrap_err();
        steps.push(verdict);
    };
    step(&mut scene, &ask); // NoSuchItem
    ask.item = scene.item;
    step(&mut scene, &ask); // NoSuchGrant
    let mut granted = terms(&scene);
    let grant = |scene: &mut Scene, terms: &Grant| Some(scene.grant(terms.clone()).unwrap());
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // GrantNotYetValid
    granted.not_before = TimeMs(0);
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // OtherGrantee
    granted.grantee = insurer.institution();
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // OtherCase
    ask.case = Some(scene.case);
    ask.account = Some(person.account());
    step(&mut scene, &ask); // OtherAccount
    ask.account = None;
    step(&mut scene, &ask); // OtherCustodian
    scene.person = person.clone();
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // ItemNotCovered
    granted.items = list(vec![scene.item]);
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // PeriodNotCovered
    granted.data_to = Day(103);
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // RecordNotAnchored
    ask.records = list(vec![scene.records[0].clone(), scene.records[0].clone()]);
    step(&mut scene, &ask); // DuplicateRecord
    ask.records = list(vec![scene.records[0].clone()]);
    step(&mut scene, &ask); // PurposeNotAllowed
    ask.purpose = Purpose::ClaimsPayment;
    step(&mut scene, &ask); // PurposeNotCovered
    granted.purpose = Purpose::ClaimsPayment;
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // ActionNotCovered
    granted.actions = list(vec![UseAction::Read]);
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // OutputNotCovered
    granted.output = Output::Masked;
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // LevelTooHigh
    granted.max_level = Level::Moderate;
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // OutsideJurisdiction
    granted.jurisdictions = list(vec![JURISDICTION]);
    ask.grant = grant(&mut scene, &granted);
    step(&mut scene, &ask); // NotSettled
    scene.settle();
    scene.request(&insurer, ask.clone()).unwrap();
    let used = scene.request(&insurer, ask.clone()).unwrap_err();
    scene.revoke(ask.grant.unwrap()).unwrap();
    let revoked = scene.request(&insurer, ask).unwrap_err();

    use Denial::*;
    let order = [
        NoSuchItem,
        NoSuchGrant,
        GrantNotYetValid,
        OtherGrantee,
        OtherCase,
        OtherAccount,
        OtherCustodian,
        ItemNotCovered,
        PeriodNotCovered,
        RecordNotAnchored,
        DuplicateRecord,
        PurposeNotAllowed,
        PurposeNotCovered,
        ActionNotCovered,
        OutputNotCovered,
        LevelTooHigh,
        OutsideJurisdiction,
        NotSettled,
    ];
    assert_eq!(steps, order);
    assert_eq!((used, revoked), (GrantExhausted, GrantRevoked));
}

#[test]
fn a_denial_joins_the_grant_that_it_matched_and_no_strangers() {
    let mut scene = Scene::new();
    let (insurer, b) = (scene.four.insurer.clone(), scene.four.hospital_b.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let before = scene.world.kinds(scene.person.account()).len();
    assert_eq!(scene.request(&b, scene.ask(Some(grant))), Err(Denial::OtherGrantee));
    assert_eq!(scene.world.kinds(grant), [EventKind::Granted], "a stranger writes into nobody's trail");
    assert_eq!(scene.world.kinds(scene.person.account()).len(), before);
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::NotSettled));
    assert_eq!(scene.world.kinds(grant), [EventKind::Granted, EventKind::Denied]);
    assert_eq!(scene.world.kinds(scene.person.account()).len(), before + 1);
    let denied = *scene.world.trail(grant).last().unwrap();
    assert_eq!(denied.core.object, insurer.institution().into());
    assert_eq!(denied.core.object_hash, assent_proto::Hash::ZERO);
}

#[test]
fn r3_a_denial_changes_nothing_but_trails() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.terms()).unwrap();
    let ask = Action::RequestAccess(Box::new(scene.ask(Some(grant))));
    let tx = scene.world.sign(&insurer, ask);
    let applied = scene.world.apply(&[tx]).unwrap();
    assert_eq!(applied.receipts[0].code, Denial::NotSettled.number());
    for leaf in &applied.changes {
        let before = scene.world.state().get(&leaf.object).unwrap();
        assert_eq!(leaf.content, before.content);
        assert_eq!(leaf.trail.length, before.trail.length + 1);
    }
    assert_eq!(applied.changes.len(), 3, "the requester's, the grant's and the person's");
}

#[test]
fn an_openings_use_shows_in_every_trail_of_whom_it_concerns() {
    let mut scene = opened(Level::Low, Opening::Directed);
    let insurer = scene.four.insurer.clone();
    let ask = RequestAccess { account: None, case: None, purpose: Purpose::Statistics, ..scene.ask(None) };
    scene.request(&insurer, ask).unwrap();
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::Permitted));
    assert_eq!(scene.world.kinds(scene.item).last(), Some(&EventKind::Permitted));
}

#[test]
fn a_record_of_another_item_is_not_anchored_under_this_one() {
    // Else a record could be had under an item of a lower level, or one that is open.
    let mut scene = Scene::new();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let lower = scene.world.item(&a, 60, Category::ClaimDocument, Level::None, Opening::Unconditional);
    let purpose = Purpose::Statistics;
    let ask = RequestAccess { item: lower, case: None, purpose, ..scene.ask(None) };
    assert_eq!(scene.request(&insurer, ask), Err(Denial::RecordNotAnchored));
}

#[test]
fn a_delivery_by_another_than_the_custodian_joins_nobodys_trail() {
    let mut scene = Scene::new();
    scene.settle();
    let (b, insurer) = (scene.four.hospital_b.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let delivery = scene.delivery(permit);
    assert_eq!(scene.deliver(&b, delivery.clone()), Err(Denial::NotTheCustodian));
    assert_eq!(scene.world.events().last().unwrap().links.len(), 1);
    let late = Deliver { released_height: scene.world.next().height, ..delivery };
    let a = scene.four.hospital_a.clone();
    assert_eq!(scene.deliver(&a, late), Err(Denial::ReleaseHeightUnknown));
    let denied = scene.world.events().last().unwrap();
    assert!(denied.link(&permit.into()).is_some() && denied.link(&grant.into()).is_some());
}
