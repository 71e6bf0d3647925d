//! Uses in an emergency: the roster, short life, anchoring after an outage, review and notice (R17).

use assent_ledger::testing::*;
use assent_ledger::{parameters, read};
use assent_proto::event::EventKind;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, Invalid, ObjectRef, ids::*};

/// A request for the scene's records because of an emergency.
pub(crate) fn ask(scene: &Scene) -> RequestAccess {
    let (purpose, emergency) = (Purpose::EmergencyTreatment, Some(EmergencyReason::AcuteThreat));
    RequestAccess { case: None, purpose, emergency, ..scene.ask(None) }
}

/// Hospital B uses in an emergency.
pub(crate) fn open(scene: &mut Scene) -> Result<PermitId, Denial> {
    let b = scene.four.hospital_b.clone();
    scene.request(&b, ask(scene))
}

/// A release in an outage at a time.
pub(crate) fn released(scene: &Scene, released_at: TimeMs) -> AnchorEmergency {
    let asked = ask(scene);
    AnchorEmergency {
        requester: scene.four.hospital_b.institution(),
        item: asked.item,
        account: scene.person.account(),
        reason: EmergencyReason::Unconscious,
        action: asked.action,
        output: asked.output,
        records: asked.records,
        staff: asked.staff,
        released_at,
        package: digest("package"),
    }
}

/// Hospital A anchors it, hospital B signs with it.
pub(crate) fn anchor(scene: &mut Scene, anchor: AnchorEmergency) -> Result<PermitId, Denial> {
    let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let action = Action::AnchorEmergency(Box::new(anchor));
    scene.world.run_with(&a, &b.key, action).map(|id| PermitId(id.0))
}

pub(crate) fn review(scene: &mut Scene, by: &Party, permit: PermitId) -> Result<BodyId, Denial> {
    let review = ReviewEmergency { permit, verdict: Verdict::Justified };
    scene.world.run(by, Action::ReviewEmergency(review))
}

pub(crate) fn notify(scene: &mut Scene, by: &Party, permit: PermitId) -> Result<BodyId, Denial> {
    let notice = digest("told");
    scene.world.run(by, Action::NotifyPerson(NotifyPerson { permit, notice }))
}

/// Lets time pass so that the next block is at `time`.
pub(crate) fn until(scene: &mut Scene, time: TimeMs) {
    scene.world.wait(time.0.checked_sub(scene.world.next().time.0).expect("time runs forward"));
}

/// What the next block would say, without making it.
pub(crate) fn would(scene: &mut Scene, by: &Party, action: Action) -> Result<(), Denial> {
    let tx = scene.world.sign(by, action);
    let applied = scene.world.apply(&[tx]).unwrap();
    Denial::from_number(applied.receipts[0].code).map_or(Ok(()), Err)
}

fn would_open(scene: &mut Scene) -> Result<(), Denial> {
    let (b, ask) = (scene.four.hospital_b.clone(), ask(scene));
    would(scene, &b, Action::RequestAccess(Box::new(ask)))
}

fn requester(scene: &Scene) -> Institution {
    scene.world.get(scene.four.hospital_b.institution())
}

fn emergency(scene: &Scene, permit: PermitId) -> Emergency {
    scene.world.get(ObjectRef::emergency(permit))
}

/// A scene in which hospital B is amended at the founding.
fn amended(edit: impl FnOnce(&mut Institution)) -> Scene {
    let (mut world, four) = World::four();
    world.amend(four.hospital_b.institution(), edit);
    Scene::in_world(world, four)
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut s = Scene::new();
    let (bureau, b, insurer) = (s.four.bureau.clone(), s.four.hospital_b.clone(), s.four.insurer.clone());
    match code {
        Denial::NotRostered => s.request(&insurer, ask(&s)).map(drop),
        Denial::EmergencyDutyOverdue => {
            open(&mut s)?;
            s.world.wait(parameters(s.world.state()).emergency_notice_ms);
            open(&mut s).map(drop)
        }
        Denial::TooManyEmergencies => (0..17).try_for_each(|_| open(&mut s).map(drop)),
        Denial::AccountMissing => s.request(&b, RequestAccess { account: None, ..ask(&s) }).map(drop),
        Denial::NoSuchEmergency => review(&mut s, &bureau, PermitId(digest("none"))).map(drop),
        Denial::AlreadyReviewed => {
            let permit = open(&mut s)?;
            review(&mut s, &bureau, permit)?;
            review(&mut s, &bureau, permit).map(drop)
        }
        Denial::AlreadyNotified => {
            let permit = open(&mut s)?;
            notify(&mut s, &b, permit)?;
            notify(&mut s, &b, permit).map(drop)
        }
        Denial::ReleaseTimeUnknown => {
            let release = released(&s, s.world.next().time.plus(1));
            anchor(&mut s, release).map(drop)
        }
        _ => unreachable!("{code} is another module's"),
    }
}

#[test]
fn r17_an_emergency_needs_no_grant_and_opens_two_duties() {
    let mut scene = Scene::new();
    let permit = open(&mut scene).unwrap();
    let (now, p) = (scene.world.at().time, scene.world.get::<Permit>(permit));
    let parameters = parameters(scene.world.state());
    assert_eq!(p.expires_at, now.plus(parameters.emergency_permit_life_ms));
    assert!(parameters.emergency_permit_life_ms < parameters.permit_life_ms, "it is short");
    assert_eq!((p.emergency, p.account), (Some(EmergencyReason::AcuteThreat), Some(scene.person.account())));
    let expected = Emergency {
        requester: scene.four.hospital_b.institution(),
        reason: EmergencyReason::AcuteThreat,
        time: now,
        released_at: None,
        late: false,
        verdict: None,
        reviewer: None,
        notified_height: None,
    };
    assert_eq!(emergency(&scene, permit), expected);
    let duties = OpenEmergency {
        permit,
        review_by: Some(now.plus(parameters.emergency_review_ms)),
        notify_by: Some(now.plus(parameters.emergency_notice_ms)),
    };
    assert_eq!(requester(&scene).emergencies[..], [duties]);
    let trails: [ObjectRef; 4] = [
        permit.into(),
        scene.person.account().into(),
        scene.four.hospital_a.institution().into(),
        scene.four.hospital_b.institution().into(),
    ];
    for trail in trails {
        let kinds = scene.world.kinds(trail);
        assert_eq!(kinds[kinds.len() - 2..], [EventKind::Permitted, EventKind::EmergencyOpened], "{trail:?}");
    }
}

#[test]
fn r17_what_an_emergency_does_not_cover() {
    type Edit = fn(&Scene, &mut RequestAccess);
    let cases: [(Edit, Result<(), Denial>); 13] = [
        (|_, _| (), Ok(())),
        (|_, r| r.output = Output::Raw, Ok(())),
        (|_, r| r.output = Output::ResultOnly, Ok(())),
        (|_, r| r.action = UseAction::Compute, Ok(())),
        (|_, r| r.action = UseAction::Copy, Err(Denial::ActionNotCovered)),
        (|_, r| r.action = UseAction::Derive, Err(Denial::ActionNotCovered)),
        (|_, r| r.action = UseAction::Disclose, Err(Denial::ActionNotCovered)),
        (|_, r| r.account = None, Err(Denial::AccountMissing)),
        (|_, r| r.account = Some(AccountId(digest("nobody"))), Err(Denial::OtherAccount)),
        (|_, r| r.purpose = Purpose::Treatment, Err(Denial::PurposeNotCovered)),
        (|_, r| r.purpose = Purpose::Legal, Err(Denial::PurposeNotCovered)),
        (|_, r| r.purpose = Purpose::Marketing, Err(Denial::PurposeNotAllowed)),
        (|s, r| r.item = s.settlements, Err(Denial::OtherCustodian)),
    ];
    let mut scene = Scene::new();
    let b = scene.four.hospital_b.clone();
    for (i, (edit, expected)) in cases.into_iter().enumerate() {
        let mut ask = ask(&scene);
        edit(&scene, &mut ask);
        assert_eq!(would(&mut scene, &b, Action::RequestAccess(Box::new(ask))), expected, "case {i}");
    }
    let (insurer, ask) = (scene.four.insurer.clone(), ask(&scene));
    let asked = would(&mut scene, &insurer, Action::RequestAccess(Box::new(ask)));
    assert_eq!(asked, Err(Denial::NotRostered), "an insurer is on no roster");
}

#[test]
fn r17_emergency_treatment_without_an_emergency_needs_a_grant_that_says_so() {
    let mut scene = Scene::new();
    let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let recipients = list(vec![b.institution()]);
    let (item, opening) = (scene.item, Opening::Directed);
    let open = Classify { item, level: Level::Moderate, opening, recipients };
    scene.world.run(&a, Action::Classify(open)).unwrap();
    for purpose in [Purpose::EmergencyTreatment, Purpose::Legal] {
        let plain = RequestAccess { purpose, case: None, ..scene.ask(None) };
        let verdict = would(&mut scene, &b, Action::RequestAccess(Box::new(plain.clone())));
        assert_eq!(verdict, Err(Denial::PurposeNotCovered), "{purpose:?}");
        let grant = scene.grant(Grant { purpose, ..scene.standing(&b) }).unwrap();
        scene.request(&b, RequestAccess { grant: Some(grant), ..plain }).unwrap();
    }
}

#[test]
fn r17_the_roster_ends_with_its_last_moment() {
    let end = TimeMs(assent_genesis::testing::TIME.0 + 1_000_000);
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::NotRostered))] {
        let mut scene = amended(|b| b.rostered_until = Some(end));
        until(&mut scene, TimeMs(end.0 - 1 + offset));
        assert_eq!(would_open(&mut scene), expected, "end - 1 + {offset}");
    }
    let mut scene = amended(|b| b.rostered_until = None);
    assert_eq!(open(&mut scene), Err(Denial::NotRostered));
}

#[test]
fn r17_an_overdue_duty_stops_the_next_emergency_until_both_are_done() {
    let deadline = |scene: &Scene, review: bool| {
        let duties = requester(scene).emergencies[0].clone();
        if review { duties.review_by.unwrap() } else { duties.notify_by.unwrap() }
    };
    for review_is_late in [false, true] {
        let mut scene = Scene::new();
        let (bureau, b) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
        let permit = open(&mut scene).unwrap();
        let by = deadline(&scene, review_is_late);
        // The other duty is done in time, so that only one can be late.
        if review_is_late {
            notify(&mut scene, &b, permit).unwrap();
        } else {
            review(&mut scene, &bureau, permit).unwrap();
        }
        for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::EmergencyDutyOverdue))] {
            until(&mut scene, TimeMs(by.0 - 1 + offset));
            assert_eq!(would_open(&mut scene), expected, "review late: {review_is_late}, by - 1 + {offset}");
        }
        if review_is_late {
            review(&mut scene, &bureau, permit).unwrap();
        } else {
            notify(&mut scene, &b, permit).unwrap();
        }
        assert!(requester(&scene).emergencies.is_empty());
        open(&mut scene).unwrap();
    }
}

#[test]
fn r17_one_of_two_overdue_duties_done_is_not_enough() {
    for review_first in [false, true] {
        let mut scene = Scene::new();
        let (bureau, b) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
        let permit = open(&mut scene).unwrap();
        scene.world.wait(parameters(scene.world.state()).emergency_review_ms + 1);
        assert_eq!(would_open(&mut scene), Err(Denial::EmergencyDutyOverdue));
        let mut act = |review_now: bool| match review_now {
            true => review(&mut scene, &bureau, permit).map(drop),
            false => notify(&mut scene, &b, permit).map(drop),
        };
        act(review_first).unwrap();
        assert_eq!(would_open(&mut scene), Err(Denial::EmergencyDutyOverdue), "{review_first}");
        let mut act = |review_now: bool| match review_now {
            true => review(&mut scene, &bureau, permit).map(drop),
            false => notify(&mut scene, &b, permit).map(drop),
        };
        act(!review_first).unwrap();
        assert_eq!(would_open(&mut scene), Ok(()), "{review_first}");
    }
}

#[test]
fn r17_sixteen_uses_wait_for_their_duties_at_most() {
    let mut scene = Scene::new();
    let (bureau, b) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
    let permits: Vec<_> = (0..16).map(|i| open(&mut scene).unwrap_or_else(|d| panic!("{i}: {d}"))).collect();
    assert_eq!(open(&mut scene), Err(Denial::TooManyEmergencies));
    let at = scene.world.at().time;
    let outage = released(&scene, at);
    assert_eq!(anchor(&mut scene, outage.clone()), Err(Denial::TooManyEmergencies));
    review(&mut scene, &bureau, permits[7]).unwrap();
    assert_eq!(open(&mut scene), Err(Denial::TooManyEmergencies), "one of two duties is done");
    notify(&mut scene, &b, permits[7]).unwrap();
    anchor(&mut scene, outage).unwrap();
    assert_eq!(open(&mut scene), Err(Denial::TooManyEmergencies));
    let waiting: Vec<_> = requester(&scene).emergencies.iter().map(|e| e.permit).collect();
    assert!(waiting.len() == 16 && !waiting.contains(&permits[7]));
}

#[test]
fn r17_a_release_in_an_outage_is_anchored_by_its_deadline_or_late() {
    let anchor_ms = parameters(Scene::new().world.state()).emergency_anchor_ms;
    for (offset, late) in [(0, false), (1, false), (2, true)] {
        let mut scene = Scene::new();
        let at = scene.world.at().time;
        let deadline = at.plus(anchor_ms);
        until(&mut scene, TimeMs(deadline.0 - 1 + offset));
        let release = released(&scene, at);
        let permit = anchor(&mut scene, release).unwrap();
        let (now, height) = (scene.world.at().time, scene.world.at().height);
        let e = emergency(&scene, permit);
        assert_eq!((e.late, e.released_at, e.time), (late, Some(at), now), "deadline - 1 + {offset}");
        let p: Permit = scene.world.get(permit);
        assert_eq!((p.delivered_height, p.expires_at), (Some(height), now));
        assert_eq!((p.requester, p.custodian), (e.requester, scene.four.hospital_a.institution()));
        assert_eq!(
            (p.purpose, p.emergency),
            (Purpose::EmergencyTreatment, Some(EmergencyReason::Unconscious))
        );
        let kind = if late { EventKind::EmergencyAnchoredLate } else { EventKind::EmergencyAnchored };
        let trails: [ObjectRef; 4] =
            [permit.into(), scene.person.account().into(), e.requester.into(), p.custodian.into()];
        for trail in trails {
            assert_eq!(scene.world.kinds(trail).last(), Some(&kind), "{trail:?}");
        }
        let parameters = parameters(scene.world.state());
        let duty = |ms| Some(if late { deadline } else { now.plus(ms) });
        let duties = OpenEmergency {
            permit,
            review_by: duty(parameters.emergency_review_ms),
            notify_by: duty(parameters.emergency_notice_ms),
        };
        assert_eq!(requester(&scene).emergencies[..], [duties]);
        let expected = if late { Err(Denial::EmergencyDutyOverdue) } else { Ok(()) };
        assert_eq!(would_open(&mut scene), expected);
    }
}

#[test]
fn r17_a_late_anchor_stops_the_next_emergency_in_its_own_block() {
    let mut scene = Scene::new();
    let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let at = scene.world.at().time;
    scene.world.wait(parameters(scene.world.state()).emergency_anchor_ms);
    let late = Action::AnchorEmergency(Box::new(released(&scene, at)));
    let body = scene.world.body(&a, late);
    let late = scene.world.seal(&body, &[&a.key, &b.key]);
    let ask = Action::RequestAccess(Box::new(ask(&scene)));
    let ask = scene.world.sign(&b, ask);
    let verdicts = scene.world.block(vec![late.clone(), ask]).unwrap();
    assert!(verdicts[0].is_ok());
    assert_eq!(verdicts[1], Err(Denial::EmergencyDutyOverdue));
    // What happened is told although duties are overdue.
    let at = scene.world.at().time;
    let again = released(&scene, at);
    anchor(&mut scene, again).unwrap();
}

#[test]
fn r17_what_cannot_be_anchored() {
    type Edit = fn(&Scene, &mut AnchorEmergency);
    let cases: [(Edit, Result<(), Denial>); 10] = [
        (|_, _| (), Ok(())),
        (|s, a| a.released_at = s.world.next().time, Ok(())),
        (|s, a| a.released_at = s.world.next().time.plus(1), Err(Denial::ReleaseTimeUnknown)),
        (|_, a| a.item = ItemId(digest("none")), Err(Denial::NoSuchItem)),
        (|s, a| a.item = s.settlements, Err(Denial::NotTheSource)),
        (|_, a| a.account = AccountId(digest("nobody")), Err(Denial::OtherAccount)),
        (|_, a| a.action = UseAction::Derive, Err(Denial::ActionNotCovered)),
        (|_, a| a.output = Output::Raw, Ok(())),
        (|s, a| a.records = list(vec![s.records[0].clone(); 2]), Err(Denial::DuplicateRecord)),
        (
            |s, a| a.records = list(vec![RecordProof { index: 1, ..s.records[0].clone() }]),
            Err(Denial::RecordNotAnchored),
        ),
    ];
    for (i, (edit, expected)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new();
        let mut release = released(&scene, scene.world.at().time);
        edit(&scene, &mut release);
        assert_eq!(anchor(&mut scene, release).map(drop), expected, "case {i}");
    }
}

#[test]
fn r17_an_anchor_needs_the_requesters_signature() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let insurer = scene.four.insurer.clone();
    let at = scene.world.at().time;
    let action = Action::AnchorEmergency(Box::new(released(&scene, at)));
    let alone = scene.world.sign(&a, action.clone());
    assert_eq!(scene.world.check(&alone), Err(Invalid::MissingSignature));
    let body = scene.world.body(&a, action);
    let other = scene.world.seal(&body, &[&a.key, &insurer.key]);
    assert_eq!(scene.world.check(&other), Err(Invalid::WrongKey));
}

#[test]
fn r17_the_roster_covered_the_release() {
    let end = TimeMs(assent_genesis::testing::TIME.0 + 1_000_000);
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::NotRostered))] {
        let mut scene = amended(|b| b.rostered_until = Some(end));
        until(&mut scene, end.plus(500_000));
        let release = released(&scene, TimeMs(end.0 - 1 + offset));
        assert_eq!(anchor(&mut scene, release).map(drop), expected, "end - 1 + {offset}");
    }
}

#[test]
fn r17_a_suspended_requesters_release_is_still_told() {
    let mut scene = amended(|b| b.standing = Standing::Suspended);
    let at = scene.world.at().time;
    let release = released(&scene, at);
    let permit = anchor(&mut scene, release).unwrap();
    assert_eq!(requester(&scene).emergencies[0].permit, permit);
}

#[test]
fn r14_r11_the_policy_and_the_levels_bound_emergencies_too() {
    type Edit = fn(&mut World, &Four);
    let limits: [(Edit, Denial); 4] = [
        (
            |w, f| w.amend(f.hospital_b.institution(), |b: &mut Institution| b.max_level = Level::Low),
            Denial::LevelTooHigh,
        ),
        (
            |w, _| {
                w.amend(ObjectRef::POLICY, |p: &mut Policy| {
                    let of = |r: &PurposeRule| r.purpose == Purpose::EmergencyTreatment;
                    let low = |r: PurposeRule| PurposeRule {
                        max_level: if of(&r) { Level::Low } else { r.max_level },
                        ..r
                    };
                    p.rules = list(p.rules.iter().cloned().map(low).collect());
                })
            },
            Denial::LevelTooHigh,
        ),
        (
            |w, _| {
                w.amend(ObjectRef::POLICY, |p: &mut Policy| {
                    let of = |r: &PurposeRule| r.purpose == Purpose::EmergencyTreatment;
                    p.rules = list(p.rules.iter().filter(|r| !of(r)).cloned().collect());
                })
            },
            Denial::PurposeNotAllowed,
        ),
        (
            |w, _| {
                w.amend(ObjectRef::POLICY, |p: &mut Policy| {
                    let purpose = Some(Purpose::EmergencyTreatment);
                    p.prohibited = list(vec![Prohibition { purpose, item: None, category: None }]);
                })
            },
            Denial::Prohibited,
        ),
    ];
    for (edit, denial) in limits {
        let (mut world, four) = World::four();
        edit(&mut world, &four);
        let mut scene = Scene::in_world(world, four);
        assert_eq!(open(&mut scene), Err(denial));
        let release = released(&scene, scene.world.at().time);
        assert_eq!(anchor(&mut scene, release), Err(denial), "anchored");
    }
}

#[test]
fn r17_who_only_supervises_has_no_emergencies() {
    let mut scene = amended(|b| b.roles = list(vec![Role::Auditor, Role::Regulator]));
    assert_eq!(open(&mut scene), Err(Denial::NotPermittedRole));
    let release = released(&scene, scene.world.at().time);
    assert_eq!(anchor(&mut scene, release), Err(Denial::NotPermittedRole));
}

#[test]
fn r17_r41_neither_an_emergency_nor_an_order_stops_at_a_border() {
    let mut scene = amended(|b| b.jurisdiction = 840);
    let (b, bureau, insurer) =
        (scene.four.hospital_b.clone(), scene.four.bureau.clone(), scene.four.insurer.clone());
    open(&mut scene).unwrap();
    let (beneficiary, cosigner) = (b.institution(), insurer.institution());
    let ordered = IssueOrder { beneficiary, cosigner, ..crate::orders::terms(&scene) };
    let ordered = Action::IssueOrder(Box::new(ordered));
    let order = OrderId(scene.world.run_with(&bureau, &insurer.key, ordered).unwrap().0);
    scene.request(&b, crate::orders::ask(&scene, order)).unwrap();
    let grant = scene.grant(scene.standing(&b)).unwrap();
    assert_eq!(scene.request(&b, scene.ask_statistics(grant)), Err(Denial::OutsideJurisdiction));
}

#[test]
fn r17_a_policy_that_wants_a_settlement_leaves_no_room_for_emergencies() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::POLICY, |p: &mut Policy| {
        let settled = |r| PurposeRule { needs_settlement: true, ..r };
        p.rules = list(p.rules.iter().cloned().map(settled).collect());
    });
    let mut scene = Scene::in_world(world, four);
    assert_eq!(open(&mut scene), Err(Denial::NotSettled));
    let release = released(&scene, scene.world.at().time);
    assert_eq!(anchor(&mut scene, release), Err(Denial::NotSettled));
}

#[test]
fn r17_a_use_that_was_not_released_is_reviewed_and_told_all_the_same() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let permit = open(&mut scene).unwrap();
    scene.world.run(&a, Action::NotDelivered(NotDelivered { permit })).unwrap();
    assert_eq!(requester(&scene).emergencies.len(), 1);
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::NotDelivered));
}

#[test]
fn r17_no_emergency_needs_a_case() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::POLICY, |p: &mut Policy| {
        p.rules = list(p.rules.iter().map(|r| PurposeRule { needs_case: true, ..*r }).collect());
    });
    let mut scene = Scene::in_world(world, four);
    open(&mut scene).unwrap();
    let b = scene.four.hospital_b.clone();
    let purpose = Purpose::EmergencyTreatment;
    let grant = scene.grant(Grant { purpose, ..scene.standing(&b) }).unwrap();
    let ask = RequestAccess { purpose, case: None, ..scene.ask(Some(grant)) };
    assert_eq!(scene.request(&b, ask), Err(Denial::CaseMissing), "a grant for the same purpose does");
}

#[test]
fn r17_the_regulator_reviews_once_and_not_itself() {
    let mut scene = Scene::new();
    let (bureau, a, b) =
        (scene.four.bureau.clone(), scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let permit = open(&mut scene).unwrap();
    assert_eq!(review(&mut scene, &a, permit), Err(Denial::NotPermittedRole));
    assert_eq!(review(&mut scene, &b, permit), Err(Denial::NotPermittedRole));
    assert_eq!(review(&mut scene, &bureau, PermitId(digest("none"))), Err(Denial::NoSuchEmergency));
    let grant = scene.grant(scene.standing(&b)).unwrap();
    let granted = scene.request(&b, scene.ask_statistics(grant)).unwrap();
    assert_eq!(review(&mut scene, &bureau, granted), Err(Denial::NoSuchEmergency), "no emergency");
    review(&mut scene, &bureau, permit).unwrap();
    let e = emergency(&scene, permit);
    assert_eq!((e.verdict, e.reviewer), (Some(Verdict::Justified), Some(bureau.institution())));
    let left = requester(&scene).emergencies[0].clone();
    assert!(left.review_by.is_none() && left.notify_by.is_some());
    let trails: [ObjectRef; 3] = [permit.into(), b.institution().into(), scene.person.account().into()];
    for trail in trails {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::EmergencyReviewed), "{trail:?}");
    }
    assert_eq!(review(&mut scene, &bureau, permit), Err(Denial::AlreadyReviewed));

    let mut scene = amended(|b| b.roles = list(vec![Role::Hospital, Role::Regulator]));
    let b = scene.four.hospital_b.clone();
    let permit = open(&mut scene).unwrap();
    assert_eq!(review(&mut scene, &b, permit), Err(Denial::SameInstitution));
}

#[test]
fn r17_the_requester_tells_the_person_once() {
    let mut scene = Scene::new();
    let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let (first, second) = (open(&mut scene).unwrap(), open(&mut scene).unwrap());
    assert_eq!(notify(&mut scene, &a, first), Err(Denial::NotTheRequester));
    assert_eq!(notify(&mut scene, &b, PermitId(digest("none"))), Err(Denial::NoSuchPermit));
    notify(&mut scene, &b, first).unwrap();
    let height = scene.world.at().height;
    assert_eq!(emergency(&scene, first).notified_height, Some(height));
    assert_eq!(scene.world.kinds(scene.person.account()).last(), Some(&EventKind::PersonNotified));
    let open_duties = requester(&scene).emergencies;
    assert!(open_duties[0].notify_by.is_none() && open_duties[0].review_by.is_some());
    assert!(open_duties[1].permit == second && open_duties[1].notify_by.is_some(), "the other's stays");
    assert_eq!(notify(&mut scene, &b, first), Err(Denial::AlreadyNotified));
    let grant = scene.grant(scene.standing(&b)).unwrap();
    let granted = scene.request(&b, scene.ask_statistics(grant)).unwrap();
    assert_eq!(notify(&mut scene, &b, granted), Err(Denial::NoNoticeDue), "she authorized it");
}

#[test]
fn r17_an_emergencys_permit_is_released_within_its_short_life() {
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::PermitDead))] {
        let mut scene = Scene::new();
        let a = scene.four.hospital_a.clone();
        let permit = open(&mut scene).unwrap();
        let delivery = scene.delivery(permit);
        let end = scene.world.get::<Permit>(permit).expires_at;
        until(&mut scene, TimeMs(end.0 - 1 + offset));
        assert_eq!(scene.deliver(&a, delivery).map(drop), expected, "end - 1 + {offset}");
    }
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let at = scene.world.at().time;
    let release = released(&scene, at);
    let permit = anchor(&mut scene, release).unwrap();
    let delivery = Deliver { released_height: scene.world.at().height, ..scene.delivery(permit) };
    assert!(scene.deliver(&a, delivery).is_err(), "what was anchored is not released again");
    assert!(read::<Emergency>(scene.world.state(), ObjectRef::emergency(permit)).is_some());
}
