//! What follows a permit: release, or none and the use given back; erasure and holds (R3, R7, R8, R9).

use assent_ledger::parameters;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::{GrantState, Permit};
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, ids::*};

use crate::emergency::until;

/// A settled scene with a grant under edited terms, and the insurer's permit on it.
fn permitted(edit: impl FnOnce(&mut Grant)) -> (Scene, GrantId, PermitId) {
    let mut scene = Scene::new();
    scene.settle();
    let mut terms = scene.terms();
    edit(&mut terms);
    let grant = scene.grant(terms).unwrap();
    let insurer = scene.four.insurer.clone();
    let permit = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    (scene, grant, permit)
}

fn not_delivered(scene: &mut Scene, by: &Party, permit: PermitId) -> Result<BodyId, Denial> {
    scene.world.run(by, Action::NotDelivered(NotDelivered { permit }))
}

fn attest(scene: &mut Scene, grant: GrantId, hold: Option<Hold>) -> Result<BodyId, Denial> {
    let insurer = scene.four.insurer.clone();
    let attest = AttestErasure { grant, report: digest("report"), hold };
    scene.world.run(&insurer, Action::AttestErasure(attest))
}

fn hold(until: TimeMs) -> Option<Hold> {
    Some(Hold { reason: HoldReason::Litigation, until })
}

fn used(scene: &Scene, grant: GrantId) -> u32 {
    scene.world.get::<GrantState>(grant).used
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    assert_eq!(code, Denial::AlreadyUndelivered, "the others are another module's");
    let (mut scene, _, permit) = permitted(|_| ());
    let a = scene.four.hospital_a.clone();
    not_delivered(&mut scene, &a, permit)?;
    not_delivered(&mut scene, &a, permit).map(drop)
}

#[test]
fn r7_what_was_not_delivered_can_be_asked_for_again() {
    let (mut scene, grant, permit) = permitted(|_| ());
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantExhausted));
    not_delivered(&mut scene, &a, permit).unwrap();
    assert!(scene.world.get::<Permit>(permit).undelivered);
    assert_eq!(used(&scene, grant), 0);
    let trails: [ObjectRef; 5] = [
        permit.into(),
        grant.into(),
        scene.person.account().into(),
        insurer.institution().into(),
        a.institution().into(),
    ];
    for trail in trails {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::NotDelivered), "{trail:?}");
    }
    let delivery = scene.delivery(permit);
    assert_eq!(scene.deliver(&a, delivery), Err(Denial::PermitDead), "it said that it will not");
    let again = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let delivery = scene.delivery(again);
    scene.deliver(&a, delivery).unwrap();
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantExhausted));
}

#[test]
fn r24_nothing_is_made_of_what_was_not_delivered() {
    let mut scene = Scene::new();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    let permit = scene.request(&insurer, scene.ask_statistics(grant)).unwrap();
    not_delivered(&mut scene, &a, permit).unwrap();
    let made = activity(ActivityKind::Clean, &[permit], &[], &[&product("out", Level::High)]);
    assert_eq!(scene.world.run(&insurer, made), Err(Denial::NotDelivered));
}

#[test]
fn r3_a_denial_joins_the_permit_that_is_the_authors() {
    let (mut scene, grant, permit) = permitted(|_| ());
    let a = scene.four.hospital_a.clone();
    not_delivered(&mut scene, &a, permit).unwrap();
    assert_eq!(not_delivered(&mut scene, &a, permit), Err(Denial::AlreadyUndelivered));
    let expected = [EventKind::NotDelivered, EventKind::Denied];
    for trail in [permit.into(), grant.into(), scene.person.account().into()] as [ObjectRef; 3] {
        let kinds = scene.world.kinds(trail);
        assert_eq!(kinds[kinds.len() - 2..], expected, "{trail:?}");
    }
}

#[test]
fn r8_each_permit_gives_back_one_use_once() {
    for n in [1, 2, 3] {
        let (mut scene, grant, first) = permitted(|g| (g.mode, g.uses) = (Mode::NTimes, n));
        let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
        let mut permits = vec![first];
        for _ in 1..n {
            permits.push(scene.request(&insurer, scene.ask(Some(grant))).unwrap());
        }
        assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantExhausted));
        for (given_back, permit) in permits.iter().enumerate() {
            assert_eq!(used(&scene, grant), n - given_back as u32);
            not_delivered(&mut scene, &a, *permit).unwrap();
            assert_eq!(not_delivered(&mut scene, &a, *permit), Err(Denial::AlreadyUndelivered));
        }
        assert_eq!(used(&scene, grant), 0);
        for _ in 0..n {
            scene.request(&insurer, scene.ask(Some(grant))).unwrap();
        }
        assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantExhausted));
    }
}

#[test]
fn r8_a_standing_grant_counts_what_was_given_back_too() {
    let mut scene = Scene::new();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    let permits: Vec<_> =
        (0..2).map(|_| scene.request(&insurer, scene.ask_statistics(grant)).unwrap()).collect();
    not_delivered(&mut scene, &a, permits[0]).unwrap();
    assert_eq!(used(&scene, grant), 1);
    scene.request(&insurer, scene.ask_statistics(grant)).unwrap();
    assert_eq!(used(&scene, grant), 2);
}

#[test]
fn r3_who_says_not_delivered_is_the_custodian_and_nobody_else() {
    let (mut scene, grant, permit) = permitted(|_| ());
    let Four { bureau, hospital_b: b, insurer, .. } = scene.four.clone();
    for stranger in [bureau, b, insurer] {
        assert_eq!(not_delivered(&mut scene, &stranger, permit), Err(Denial::NotTheCustodian));
    }
    let a = scene.four.hospital_a.clone();
    let none = PermitId(digest("none"));
    assert_eq!(not_delivered(&mut scene, &a, none), Err(Denial::NoSuchPermit));
    assert_eq!(used(&scene, grant), 1);
    assert_eq!(scene.world.kinds(permit), [EventKind::Permitted], "strangers write into nobody's trail");
}

#[test]
fn r10_who_holds_the_records_itself_gets_no_use_back() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let grant = scene.grant(scene.standing(&a)).unwrap();
    let permit = scene.request(&a, scene.ask_statistics(grant)).unwrap();
    assert_eq!(not_delivered(&mut scene, &a, permit), Err(Denial::SameInstitution));
    assert_eq!(used(&scene, grant), 1);
}

#[test]
fn r3_a_permit_lives_until_its_last_moment() {
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::PermitDead))] {
        for delivered in [true, false] {
            let (mut scene, grant, permit) = permitted(|_| ());
            let a = scene.four.hospital_a.clone();
            let life = parameters(scene.world.state()).permit_life_ms;
            let end = scene.world.get::<Permit>(permit).expires_at;
            assert_eq!(end, scene.world.at().time.plus(life));
            let delivery = scene.delivery(permit);
            until(&mut scene, TimeMs(end.0 - 1 + offset));
            let verdict = match delivered {
                true => scene.deliver(&a, delivery).map(drop),
                false => not_delivered(&mut scene, &a, permit).map(drop),
            };
            assert_eq!(verdict, expected, "end - 1 + {offset}, delivered: {delivered}");
            assert_eq!(used(&scene, grant), u32::from(delivered || verdict.is_err()));
        }
    }
}

#[test]
fn r7_delivered_and_not_delivered_in_one_block_in_both_orders() {
    for delivered_first in [true, false] {
        let (mut scene, grant, permit) = permitted(|_| ());
        let a = scene.four.hospital_a.clone();
        let delivery = scene.delivery(permit);
        let yes = scene.world.sign(&a, Action::Deliver(delivery));
        let no = scene.world.sign(&a, Action::NotDelivered(NotDelivered { permit }));
        let both = if delivered_first { vec![yes, no] } else { vec![no, yes] };
        let verdicts = scene.world.block(both).unwrap();
        let refused = if delivered_first { Denial::AlreadyDelivered } else { Denial::PermitDead };
        assert!(verdicts[0].is_ok());
        assert_eq!(verdicts[1], Err(refused));
        assert_eq!(used(&scene, grant), u32::from(delivered_first));
    }
}

#[test]
fn r7_a_use_given_back_in_a_block_counts_in_the_same_block() {
    for given_back_first in [true, false] {
        let (mut scene, grant, permit) = permitted(|_| ());
        let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
        let back = scene.world.sign(&a, Action::NotDelivered(NotDelivered { permit }));
        let ask = Action::RequestAccess(Box::new(scene.ask(Some(grant))));
        let ask = scene.world.sign(&insurer, ask);
        let both = if given_back_first { vec![back, ask] } else { vec![ask, back] };
        let verdicts = scene.world.block(both).unwrap();
        assert_eq!(verdicts.iter().filter(|v| v.is_ok()).count(), 1 + usize::from(given_back_first));
        assert_eq!(used(&scene, grant), u32::from(given_back_first));
    }
}

#[test]
fn r9_a_use_can_be_given_back_on_a_revoked_grant_and_opens_no_duty() {
    let (mut scene, grant, permit) = permitted(|_| ());
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    scene.revoke(grant).unwrap();
    not_delivered(&mut scene, &a, permit).unwrap();
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantRevoked));
    assert_eq!(attest(&mut scene, grant, None), Err(Denial::NoErasureDuty));
}

/// A scene with an erasure duty: delivered, then revoked.
fn duty() -> (Scene, GrantId, TimeMs) {
    let (mut scene, grant, permit) = permitted(|_| ());
    let a = scene.four.hospital_a.clone();
    let delivery = scene.delivery(permit);
    scene.deliver(&a, delivery).unwrap();
    scene.revoke(grant).unwrap();
    let deadline = scene.world.at().time.plus(parameters(scene.world.state()).erasure_deadline_ms);
    (scene, grant, deadline)
}

fn due(scene: &Scene, grant: GrantId) -> Option<TimeMs> {
    scene.world.get::<GrantState>(grant).erasure_due(&parameters(scene.world.state()))
}

#[test]
fn r9_a_hold_puts_the_duty_off_and_does_not_end_it() {
    let (mut scene, grant, deadline) = duty();
    assert_eq!(due(&scene, grant), Some(deadline));
    let held = deadline.plus(1000);
    attest(&mut scene, grant, hold(held)).unwrap();
    assert_eq!(due(&scene, grant), Some(held));
    let insurer = scene.four.insurer.institution();
    for trail in [grant.into(), scene.person.account().into(), insurer.into()] as [ObjectRef; 3] {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::ErasureHeld), "{trail:?}");
    }
    let shorter = TimeMs(deadline.0 - 1000);
    attest(&mut scene, grant, hold(shorter)).unwrap();
    assert_eq!(due(&scene, grant), Some(deadline), "a hold shortens no deadline");
    attest(&mut scene, grant, None).unwrap();
    assert_eq!(due(&scene, grant), None);
    assert_eq!(attest(&mut scene, grant, hold(held)), Err(Denial::NoErasureDuty));
}

#[test]
fn r9_a_hold_ends_in_the_future() {
    for (offset, expected) in [(0, Err(Denial::BadTerms)), (1, Err(Denial::BadTerms)), (2, Ok(()))] {
        let (mut scene, grant, _) = duty();
        let until = TimeMs(scene.world.next().time.0 - 1 + offset);
        assert_eq!(attest(&mut scene, grant, hold(until)).map(drop), expected, "now - 1 + {offset}");
    }
}

#[test]
fn r9_without_a_duty_there_is_nothing_to_hold() {
    let (mut scene, grant, _) = permitted(|_| ());
    let far = scene.world.next().time.plus(1000);
    assert_eq!(attest(&mut scene, grant, hold(far)), Err(Denial::NoErasureDuty), "not revoked");
    scene.revoke(grant).unwrap();
    assert_eq!(attest(&mut scene, grant, hold(far)), Err(Denial::NoErasureDuty), "never delivered");
}

#[test]
fn r9_a_hold_on_what_is_erased_puts_off_no_later_duty() {
    let (mut scene, grant, first) = permitted(|g| (g.mode, g.uses) = (Mode::NTimes, 2));
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let second = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let (first, second) = (scene.delivery(first), scene.delivery(second));
    scene.deliver(&a, first).unwrap();
    scene.revoke(grant).unwrap();
    let deadline = scene.world.at().time.plus(parameters(scene.world.state()).erasure_deadline_ms);
    attest(&mut scene, grant, hold(deadline.plus(1000))).unwrap();
    attest(&mut scene, grant, None).unwrap();
    scene.deliver(&a, second).unwrap();
    assert_eq!(due(&scene, grant), Some(deadline));
}
