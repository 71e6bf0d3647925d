//! Access by order of a court or by statute: who orders, its scope and end, and notice that is deferred (R41).

use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, Invalid, ObjectRef, ids::*};

use crate::emergency::{notify, until, would};

/// The bureau orders, hospital B signs with it, the insurer may use: the scene's item, of the person.
pub(crate) fn terms(scene: &Scene) -> IssueOrder {
    let Four { insurer, hospital_b, .. } = &scene.four;
    let order = scene.order(insurer, hospital_b, scene.world.at().time.plus(1_000_000));
    IssueOrder { actions: list(vec![UseAction::Read, UseAction::Derive]), ..order }
}

pub(crate) fn issue(scene: &mut Scene, terms: IssueOrder) -> Result<OrderId, Denial> {
    let (bureau, b) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
    let action = Action::IssueOrder(Box::new(terms));
    scene.world.run_with(&bureau, &b.key, action).map(|id| OrderId(id.0))
}

/// A request that keeps to the order.
pub(crate) fn ask(scene: &Scene, order: OrderId) -> RequestAccess {
    RequestAccess { order: Some(order), case: None, purpose: Purpose::Legal, ..scene.ask(None) }
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut s = Scene::new();
    let (b, insurer) = (s.four.hospital_b.clone(), s.four.insurer.clone());
    let notice_from = s.world.at().time.plus(500_000);
    let ordered = IssueOrder { notice_from, ..terms(&s) };
    let order = issue(&mut s, ordered)?;
    let mut request = ask(&s, order);
    match code {
        Denial::NoSuchOrder => request.order = Some(OrderId(digest("none"))),
        Denial::OrderExpired => s.world.wait(1_000_000),
        Denial::NotTheBeneficiary => return s.request(&b, request).map(drop),
        Denial::OrderDoesNotCover => request.output = Output::Raw,
        Denial::NoNoticeDue => {
            let permit = s.request(&insurer, request)?;
            return notify(&mut s, &insurer, permit).map(drop);
        }
        _ => unreachable!("{code} is another module's"),
    }
    s.request(&insurer, request).map(drop)
}

#[test]
fn r41_an_order_is_a_basis_without_a_grant() {
    let mut scene = Scene::new();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let ordered = terms(&scene);
    let order = issue(&mut scene, ordered).unwrap();
    let (person, b) = (scene.person.account(), scene.four.hospital_b.institution());
    let told: [ObjectRef; 4] = [order.into(), insurer.institution().into(), b.into(), person.into()];
    for trail in told {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::OrderIssued), "{trail:?}");
    }
    let permit = scene.request(&insurer, ask(&scene, order)).unwrap();
    assert_eq!(scene.world.get::<Permit>(permit).order, Some(order));
    let delivery = scene.delivery(permit);
    scene.deliver(&a, delivery).unwrap();
    for trail in [order.into(), permit.into(), person.into(), a.institution().into()] as [ObjectRef; 4] {
        let kinds = scene.world.kinds(trail);
        assert_eq!(kinds[kinds.len() - 2..], [EventKind::Permitted, EventKind::Delivered], "{trail:?}");
    }
}

#[test]
fn r41_out_of_scope_is_refused() {
    type Edit = fn(&Scene, &mut RequestAccess);
    let no = Err(Denial::OrderDoesNotCover);
    let cases: [(Edit, Result<(), Denial>); 18] = [
        (|_, _| (), Ok(())),
        (|_, r| r.order = Some(OrderId(digest("none"))), Err(Denial::NoSuchOrder)),
        (|_, r| r.account = None, no),
        (|_, r| r.account = Some(AccountId(digest("nobody"))), no),
        (|s, r| r.records = list(vec![s.records[3].clone()]), Ok(())),
        (|s, r| r.records = list(vec![s.records[4].clone()]), no),
        (|_, r| r.action = UseAction::Derive, Ok(())),
        (|_, r| r.action = UseAction::Copy, no),
        (|_, r| r.action = UseAction::Disclose, no),
        (|_, r| r.output = Output::ResultOnly, Ok(())),
        (|_, r| r.output = Output::Raw, no),
        (|_, r| r.purpose = Purpose::Treatment, Err(Denial::PurposeNotCovered)),
        (|_, r| r.purpose = Purpose::EmergencyTreatment, Err(Denial::PurposeNotCovered)),
        (|_, r| r.purpose = Purpose::Marketing, Err(Denial::PurposeNotAllowed)),
        (|s, r| r.grant = Some(GrantId(s.item.0)), Err(Denial::SeveralBases)),
        (|_, r| r.emergency = Some(EmergencyReason::AcuteThreat), Err(Denial::SeveralBases)),
        (|s, r| r.records = list(vec![s.records[0].clone(); 2]), Err(Denial::DuplicateRecord)),
        (|s, r| r.item = s.settlements, Err(Denial::OtherCustodian)),
    ];
    let mut scene = Scene::new();
    let (b, insurer) = (scene.four.hospital_b.clone(), scene.four.insurer.clone());
    let ordered = terms(&scene);
    let order = issue(&mut scene, ordered).unwrap();
    for (i, (edit, expected)) in cases.into_iter().enumerate() {
        let mut ask = ask(&scene, order);
        edit(&scene, &mut ask);
        assert_eq!(would(&mut scene, &insurer, Action::RequestAccess(Box::new(ask))), expected, "case {i}");
    }
    let ask = ask(&scene, order);
    assert_eq!(scene.request(&b, ask.clone()), Err(Denial::NotTheBeneficiary));
    assert_eq!(scene.world.kinds(order), [EventKind::OrderIssued], "a stranger writes into nobody's trail");
    scene.request(&insurer, RequestAccess { output: Output::Raw, ..ask }).unwrap_err();
    assert_eq!(scene.world.kinds(order), [EventKind::OrderIssued, EventKind::Denied]);
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::Denied));
}

#[test]
fn r41_items_categories_and_persons_that_an_order_covers() {
    type Edit = fn(&mut IssueOrder);
    let no = Err(Denial::OrderDoesNotCover);
    let cases: [(Edit, Result<(), Denial>); 6] = [
        (|o| o.items = list(vec![ItemId(digest("other"))]), no),
        (|o| o.categories = list(vec![Category::Encounter]), Ok(())),
        (|o| (o.items, o.categories) = (list(vec![]), list(vec![Category::Encounter])), no),
        (|o| (o.items, o.categories) = (list(vec![]), list(vec![Category::ClaimDocument])), Ok(())),
        (|o| o.account = None, Ok(())),
        (|o| o.max_level = Level::Low, Err(Denial::LevelTooHigh)),
    ];
    for (i, (edit, expected)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new();
        let insurer = scene.four.insurer.clone();
        let mut terms = terms(&scene);
        edit(&mut terms);
        let order = issue(&mut scene, terms).unwrap();
        let ask = ask(&scene, order);
        assert_eq!(scene.request(&insurer, ask).map(drop), expected, "case {i}");
    }
}

#[test]
fn r41_an_order_ends_with_its_last_moment() {
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::OrderExpired))] {
        let mut scene = Scene::new();
        let insurer = scene.four.insurer.clone();
        let terms = terms(&scene);
        let end = terms.not_after;
        let order = issue(&mut scene, terms).unwrap();
        until(&mut scene, TimeMs(end.0 - 1 + offset));
        let ask = ask(&scene, order);
        assert_eq!(scene.request(&insurer, ask).map(drop), expected, "end - 1 + {offset}");
    }
}

#[test]
fn r41_an_unsigned_order_is_refused() {
    let mut scene = Scene::new();
    let (bureau, a) = (scene.four.bureau.clone(), scene.four.hospital_a.clone());
    let action = Action::IssueOrder(Box::new(terms(&scene)));
    let alone = scene.world.sign(&bureau, action.clone());
    assert_eq!(scene.world.check(&alone), Err(Invalid::MissingSignature));
    let body = scene.world.body(&bureau, action);
    let other = scene.world.seal(&body, &[&bureau.key, &a.key]);
    assert_eq!(scene.world.check(&other), Err(Invalid::WrongKey));
}

#[test]
fn r41_r10_three_institutions_stand_behind_an_order() {
    type Edit = fn(&Scene, &mut IssueOrder);
    let cases: [(Edit, Denial); 9] = [
        (|s, o| o.beneficiary = s.four.bureau.institution(), Denial::SameInstitution),
        (|s, o| o.beneficiary = s.four.hospital_b.institution(), Denial::SameInstitution),
        (|_, o| o.beneficiary = InstitutionId(digest("none")), Denial::NoSuchInstitution),
        (|_, o| o.account = Some(AccountId(digest("nobody"))), Denial::NoSuchAccount),
        (|_, o| o.items = list(vec![]), Denial::BadTerms),
        (|_, o| o.actions = list(vec![]), Denial::BadTerms),
        (|_, o| o.data_from = Day(o.data_to.0 + 1), Denial::BadTerms),
        (|s, o| o.not_after = s.world.next().time, Denial::BadTerms),
        (|s, o| o.not_after = TimeMs(s.world.next().time.0 - 1), Denial::BadTerms),
    ];
    for (i, (edit, denial)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new();
        let mut terms = terms(&scene);
        edit(&scene, &mut terms);
        assert_eq!(issue(&mut scene, terms), Err(denial), "case {i}");
    }
    let mut scene = Scene::new();
    let bureau = scene.four.bureau.clone();
    let own = IssueOrder { cosigner: bureau.institution(), ..terms(&scene) };
    let own = scene.world.run_with(&bureau, &bureau.key, Action::IssueOrder(Box::new(own)));
    assert_eq!(own, Err(Denial::SameInstitution), "one institution is not two");
    let just = IssueOrder { not_after: scene.world.next().time.plus(1), data_to: Day(100), ..terms(&scene) };
    issue(&mut scene, just).expect("ends just after the block, speaks of one day");
}

#[test]
fn r41_a_court_or_a_regulator_orders() {
    for (role, expected) in [
        (Role::Court, Ok(())),
        (Role::Regulator, Ok(())),
        (Role::Bureau, Err(Denial::NotPermittedRole)),
        (Role::Auditor, Err(Denial::NotPermittedRole)),
        (Role::Hospital, Err(Denial::NotPermittedRole)),
    ] {
        let (mut world, four) = World::four();
        world.amend(four.hospital_a.institution(), |i: &mut Institution| {
            i.roles = list(vec![role, Role::Hospital])
        });
        let mut scene = Scene::in_world(world, four);
        let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
        let action = Action::IssueOrder(Box::new(terms(&scene)));
        assert_eq!(scene.world.run_with(&a, &b.key, action).map(drop), expected, "{role:?}");
    }
}

#[test]
fn r41_nobody_suspended_stands_behind_an_order() {
    for beneficiary in [true, false] {
        for standing in [Standing::Suspended, Standing::Expelled] {
            let (mut world, four) = World::four();
            let whose = if beneficiary { &four.insurer } else { &four.hospital_b };
            world.amend(whose.institution(), |i: &mut Institution| i.standing = standing);
            let mut scene = Scene::in_world(world, four);
            let ordered = terms(&scene);
            assert_eq!(issue(&mut scene, ordered), Err(Denial::InstitutionSuspended));
        }
    }
}

/// A scene with an order whose notice is deferred, and when it is due.
fn deferred() -> (Scene, OrderId, TimeMs) {
    let mut scene = Scene::new();
    let notice_from = scene.world.at().time.plus(500_000);
    let ordered = IssueOrder { notice_from, ..terms(&scene) };
    let order = issue(&mut scene, ordered).unwrap();
    (scene, order, notice_from)
}

#[test]
fn r41_while_notice_is_deferred_nothing_joins_a_persons_trail() {
    let (mut scene, order, _) = deferred();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let account = scene.person.account();
    let before = scene.world.kinds(account);
    assert!(!before.contains(&EventKind::OrderIssued));
    let ask = RequestAccess { action: UseAction::Derive, ..ask(&scene, order) };
    scene.request(&insurer, RequestAccess { output: Output::Raw, ..ask.clone() }).unwrap_err();
    // A grant named besides does not tell her either.
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    let granted = scene.world.kinds(account);
    scene.request(&insurer, RequestAccess { grant: Some(grant), ..ask.clone() }).unwrap_err();
    let permit = scene.request(&insurer, ask).unwrap();
    let early = Deliver { released_height: Height(0), ..scene.delivery(permit) };
    scene.deliver(&a, early).unwrap_err();
    let delivery = scene.delivery(permit);
    scene.deliver(&a, delivery).unwrap();
    let made = activity(ActivityKind::Clean, &[permit], &[], &[&product("out", Level::High)]);
    scene.world.run(&insurer, made).unwrap();
    notify(&mut scene, &insurer, permit).unwrap_err();
    assert_eq!(granted.len(), before.len() + 1);
    assert_eq!(scene.world.kinds(account), granted);
    use EventKind::*;
    assert_eq!(scene.world.kinds(order), [OrderIssued, Denied, Denied, Permitted, Denied, Delivered, Denied]);
    assert!(scene.world.kinds(scene.item).contains(&Permitted), "the item's trail tells it");
}

#[test]
fn r41_a_use_that_is_kept_from_a_person_names_her() {
    // Else nothing would tell afterwards whom to tell.
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let notice_from = scene.world.at().time.plus(500_000);
    let anyone = IssueOrder { notice_from, account: None, ..terms(&scene) };
    let order = issue(&mut scene, anyone).unwrap();
    let named = ask(&scene, order);
    let unnamed = RequestAccess { account: None, ..named.clone() };
    assert_eq!(scene.request(&insurer, unnamed.clone()), Err(Denial::AccountMissing));
    scene.request(&insurer, named).unwrap();
    assert!(!scene.world.kinds(scene.person.account()).contains(&EventKind::Permitted));
    until(&mut scene, notice_from);
    let permit = scene.request(&insurer, unnamed).unwrap();
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::Permitted));
    assert_eq!(notify(&mut scene, &insurer, permit), Err(Denial::NoNoticeDue), "her trail has told her");
}

#[test]
fn r41_notice_is_given_from_its_date_on() {
    for (offset, expected) in [(0, Err(Denial::NoNoticeDue)), (1, Ok(())), (2, Ok(()))] {
        let (mut scene, order, notice_from) = deferred();
        let (b, insurer) = (scene.four.hospital_b.clone(), scene.four.insurer.clone());
        let ask = ask(&scene, order);
        let permit = scene.request(&insurer, ask).unwrap();
        assert_eq!(notify(&mut scene, &b, permit), Err(Denial::NotTheRequester));
        until(&mut scene, TimeMs(notice_from.0 - 1 + offset));
        assert_eq!(notify(&mut scene, &insurer, permit).map(drop), expected, "notice_from - 1 + {offset}");
        let told = scene.world.kinds(scene.person.account()).last() == Some(&EventKind::PersonNotified);
        assert_eq!(told, expected.is_ok());
    }
}

#[test]
fn r41_from_the_date_of_notice_on_uses_show_at_once() {
    for (offset, shown) in [(0, false), (1, true), (2, true)] {
        let (mut scene, order, notice_from) = deferred();
        let insurer = scene.four.insurer.clone();
        until(&mut scene, TimeMs(notice_from.0 - 1 + offset));
        let ask = ask(&scene, order);
        scene.request(&insurer, ask).unwrap();
        let seen = scene.world.kinds(scene.person.account()).contains(&EventKind::Permitted);
        assert_eq!(seen, shown, "notice_from - 1 + {offset}");
    }
}
