//! Grants and their withdrawal.

use assent_ledger::parameters;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::{Account, GrantState};
use assent_proto::transaction::*;
use assent_proto::{Denial, ids::*};

#[test]
fn contradictory_terms_are_denied() {
    type Edit = fn(&mut Grant);
    let edits: [(&str, Edit); 14] = [
        ("ends before it begins", |g| g.not_before = g.not_after.plus(1)),
        ("has ended", |g| g.not_after = TimeMs(1)),
        ("data from after data to", |g| g.data_from = Day(g.data_to.0 + 1)),
        ("one time, no uses", |g| g.uses = 0),
        ("one time, two uses", |g| g.uses = 2),
        ("one time, no case", |g| g.case = None),
        ("n times, none", |g| (g.mode, g.uses) = (Mode::NTimes, 0)),
        ("standing, counted", |g| (g.mode, g.uses) = (Mode::Standing, 1)),
        ("nothing", |g| g.items = list(vec![])),
        ("to do nothing", |g| g.actions = list(vec![])),
        ("nowhere", |g| g.jurisdictions = list(vec![])),
        ("under a policy to come", |g| g.policy_version = 2),
        ("n times, no end of uses named", |g| (g.mode, g.uses, g.case) = (Mode::NTimes, 0, None)),
        ("ends with the block", |g| g.not_after = TimeMs(0)),
    ];
    let mut scene = Scene::new();
    for (name, edit) in edits {
        let mut terms = scene.terms();
        edit(&mut terms);
        assert_eq!(scene.grant(terms), Err(Denial::BadTerms), "{name}");
    }
    let terms = Grant { not_after: scene.world.next().time.plus(1), ..scene.terms() };
    assert!(scene.grant(terms).is_ok(), "ends just after the block");
    let terms = Grant { not_after: scene.world.next().time, ..scene.terms() };
    assert_eq!(scene.grant(terms), Err(Denial::BadTerms), "ends with the block");
}

#[test]
fn r9_a_revocation_comes_before_its_grant() {
    let mut scene = Scene::new();
    scene.settle();
    let (person, insurer) = (scene.person.clone(), scene.four.insurer.clone());
    let granting = scene.world.sign(&person, Action::Grant(Box::new(scene.terms())));
    let grant = GrantId(granting.body_id().0);
    scene.revoke(grant).unwrap();
    assert_eq!(scene.world.kinds(person.account()).last(), Some(&EventKind::RevokedEarly));
    scene.world.submit(granting).unwrap();
    assert!(scene.world.get::<GrantState>(grant).revocation.is_some(), "born revoked");
    assert!(scene.world.get::<Account>(person.account()).early.is_empty(), "and no longer remembered");
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantRevoked));
}

#[test]
fn r9_anothers_early_revocation_does_not_touch_a_grant() {
    let mut scene = Scene::new();
    let (person, bureau, a) =
        (scene.person.clone(), scene.four.bureau.clone(), scene.four.hospital_a.clone());
    let other = scene.world.enrol(&bureau, &a, "other");
    let granting = scene.world.sign(&person, Action::Grant(Box::new(scene.terms())));
    let grant = GrantId(granting.body_id().0);
    scene.world.run(&other, Action::Revoke(Revoke { grant })).unwrap();
    scene.world.submit(granting).unwrap();
    assert_eq!(scene.world.get::<GrantState>(grant).revocation, None);
}

#[test]
fn r9_early_revocations_are_bounded_and_forgotten() {
    let mut scene = Scene::new();
    let early = |i: u8| GrantId(digest(&format!("grant {i}")));
    for i in 0..16 {
        scene.revoke(early(i)).unwrap();
        scene.revoke(early(i)).unwrap();
    }
    assert_eq!(scene.revoke(early(16)), Err(Denial::TooManyEarlyRevocations));
    scene.world.wait(parameters(scene.world.state()).transaction_life_ms);
    scene.revoke(early(16)).unwrap();
    let account: Account = scene.world.get(scene.person.account());
    assert_eq!(account.early.iter().map(|e| e.grant).collect::<Vec<_>>(), [early(16)]);
}

#[test]
fn r9_past_use_opens_an_erasure_duty() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let delivery = scene.delivery(permit);
    scene.deliver(&a, delivery).unwrap();
    let attest = Action::AttestErasure(AttestErasure { grant, report: digest("report"), hold: None });
    assert_eq!(scene.world.run(&insurer, attest.clone()), Err(Denial::NoErasureDuty), "not before");

    scene.revoke(grant).unwrap();
    let parameters = parameters(scene.world.state());
    let revoked = scene.world.at().time;
    let due = scene.world.get::<GrantState>(grant).erasure_due(&parameters);
    assert_eq!(due, Some(revoked.plus(parameters.erasure_deadline_ms)));
    for trail in [insurer.institution().into(), scene.person.account().into(), grant.into()]
        as [assent_proto::ObjectRef; 3]
    {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::ErasureDue));
    }

    scene.world.run(&insurer, attest.clone()).unwrap();
    assert_eq!(scene.world.get::<GrantState>(grant).erasure_due(&parameters), None);
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::ErasureAttested));
    assert_eq!(scene.world.run(&insurer, attest), Err(Denial::NoErasureDuty), "nor twice");
}

#[test]
fn r9_a_permit_that_was_not_released_dies_with_its_grant() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    scene.revoke(grant).unwrap();
    let delivery = scene.delivery(permit);
    assert_eq!(scene.deliver(&a, delivery), Err(Denial::PermitDead));
    assert!(!scene.world.kinds(insurer.institution()).contains(&EventKind::ErasureDue));
}

#[test]
fn r9_a_release_before_the_revocation_that_was_recorded_first_opens_the_duty() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let released = scene.delivery(permit);
    scene.revoke(grant).unwrap();
    scene.deliver(&a, released).unwrap();
    let last_two = |kinds: Vec<EventKind>| kinds[kinds.len() - 2..].to_vec();
    let expected = [EventKind::Delivered, EventKind::ErasureDue];
    assert_eq!(last_two(scene.world.kinds(insurer.institution())), expected);
    assert_eq!(last_two(scene.world.kinds(scene.person.account())), expected);
}

#[test]
fn r9_an_attested_duty_opens_again_for_a_later_delivery() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let terms = Grant { mode: Mode::NTimes, uses: 2, ..scene.terms() };
    let grant = scene.grant(terms).unwrap();
    let first = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let second = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let (first, second) = (scene.delivery(first), scene.delivery(second));
    scene.deliver(&a, first).unwrap();
    scene.revoke(grant).unwrap();
    let attest = Action::AttestErasure(AttestErasure { grant, report: digest("report"), hold: None });
    scene.world.run(&insurer, attest.clone()).unwrap();
    scene.deliver(&a, second).unwrap();
    assert!(scene.world.run(&insurer, attest).is_ok());
}
