//! The rules have versions: one comes into force at a height, by the word of those who run validators, and what
//! it changes is judged by the version in force, to the block.

use assent_ledger::testing::*;
use assent_ledger::{preview, protocol, read};
use assent_proto::event::EventKind;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, Height, ObjectRef, ids::*};

use crate::emergency::{anchor, notify, released, until};
use crate::orders;

fn change(version: u32, from: u64) -> Change {
    Change::Protocol(ChangeProtocol { version, from: Height(from) })
}

/// Proposed by the bureau, approved by two more: in force from `from` on.
pub(crate) fn decide(scene: &mut Scene, version: u32, from: u64) -> Result<ProposalId, Denial> {
    let Four { bureau, hospital_a, hospital_b, .. } = scene.four.clone();
    let until = scene.world.at().time.plus(3_600_000);
    let propose = Action::Propose(Box::new(Propose { change: change(version, from), until }));
    let proposal = ProposalId(scene.world.run(&bureau, propose)?.0);
    for by in [hospital_a, hospital_b] {
        scene.world.run(&by, Action::Approve(Approve { proposal }))?;
    }
    Ok(proposal)
}

/// Lets blocks pass so that the next is at a height.
fn pass_to(scene: &mut Scene, height: u64) {
    assert!(scene.world.next().height.0 <= height);
    while scene.world.next().height.0 < height {
        scene.world.block(vec![]).unwrap();
    }
}

/// Puts version 2 in force from the next block on.
pub(crate) fn second_version(scene: &mut Scene) {
    let from = scene.world.next().height.0 + 4;
    decide(scene, 2, from).unwrap();
    pass_to(scene, from);
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut scene = Scene::new();
    match code {
        Denial::BadProtocol => {
            let from = scene.world.next().height.0 + 100;
            decide(&mut scene, 1, from).map(drop)
        }
        Denial::AlreadyAnchored => {
            second_version(&mut scene);
            let release = released(&scene, scene.world.at().time);
            anchor(&mut scene, release.clone())?;
            anchor(&mut scene, release).map(drop)
        }
        _ => unreachable!("{code} is another module's"),
    }
}

#[test]
fn a_chain_begins_by_the_first_version_and_its_state_does_not_say_so() {
    let scene = Scene::new();
    assert!(read::<Protocol>(scene.world.founding(), ObjectRef::PROTOCOL).is_none());
    assert_eq!(protocol(scene.world.state()), Protocol { active: 1, next: None });
}

#[test]
fn a_version_comes_into_force_at_its_height_and_not_a_block_before() {
    let mut scene = Scene::new();
    let from = scene.world.next().height.0 + 20;
    let proposal = decide(&mut scene, 2, from).unwrap();
    let decided = scene.world.at().height;
    let now = protocol(scene.world.state());
    let next = Some(NextProtocol { version: 2, from: Height(from) });
    assert_eq!(now, Protocol { active: 1, next });
    assert_eq!((now.at(decided), now.at(Height(from - 1)), now.at(Height(from))), (1, 1, 2));
    let told = scene.world.kinds(ObjectRef::PROTOCOL);
    assert_eq!(told, [EventKind::Enacted], "it has a trail of its own");
    for trail in [ObjectRef::from(proposal), ObjectRef::VALIDATORS] {
        assert_eq!(scene.world.kinds(trail).last(), Some(&EventKind::Enacted), "{trail:?}");
    }
    pass_to(&mut scene, from + 1);
    let later = decide(&mut scene, 3, from + 100);
    assert!(later.is_ok(), "a version that no program knows yet is decided all the same: {later:?}");
    let now = protocol(scene.world.state());
    assert_eq!((now.active, now.at(Height(from + 100))), (2, 3));
}

#[test]
fn one_version_at_a_time_and_far_enough_ahead() {
    let scene = Scene::new();
    let height = scene.world.next().height;
    let ahead =
        |version, blocks: u64| preview(scene.world.state(), height, &change(version, height.0 + blocks));
    let too_near_or_far = Err(Denial::ActivationOutOfRange);
    for (version, expected) in
        [(0, false), (1, false), (2, true), (3, false), (u32::MAX, false)].map(|(v, good)| (v, good))
    {
        let expected = if expected { Ok(()) } else { Err(Denial::BadProtocol) };
        assert_eq!(ahead(version, 100), expected, "version {version}");
    }
    for (blocks, expected) in [(0, too_near_or_far), (1, too_near_or_far), (2, Ok(())), (3, Ok(()))] {
        assert_eq!(ahead(2, blocks), expected, "{blocks} ahead");
    }
    for (blocks, expected) in [(999_999, Ok(())), (1_000_000, Ok(())), (1_000_001, too_near_or_far)] {
        assert_eq!(ahead(2, blocks), expected, "{blocks} ahead");
    }
    let far = Change::Protocol(ChangeProtocol { version: 2, from: Height(u64::MAX) });
    assert_eq!(preview(scene.world.state(), height, &far), too_near_or_far);
}

#[test]
fn a_version_that_is_decided_bars_others_until_it_is_in_force() {
    let mut scene = Scene::new();
    let from = scene.world.next().height.0 + 20;
    decide(&mut scene, 2, from).unwrap();
    let at = |scene: &Scene, height: u64, version| {
        preview(scene.world.state(), Height(height), &change(version, height + 50))
    };
    for version in [1, 2, 3] {
        assert_eq!(at(&scene, from - 1, version), Err(Denial::BadProtocol), "version {version} before");
    }
    assert_eq!(at(&scene, from, 2), Err(Denial::BadProtocol));
    assert_eq!(at(&scene, from, 3), Ok(()));
}

#[test]
fn only_those_who_run_validators_decide_on_the_version() {
    let (mut world, four) = World::four();
    let insurer = four.insurer.clone();
    world.amend(ObjectRef::VALIDATORS, |v: &mut Validators| {
        let rest = v.current.validators.iter().filter(|v| v.institution != insurer.institution());
        v.current.validators = list(rest.cloned().collect());
    });
    let mut scene = Scene::in_world(world, four);
    let from = scene.world.next().height.0 + 20;
    let until = scene.world.at().time.plus(3_600_000);
    let propose = Action::Propose(Box::new(Propose { change: change(2, from), until }));
    assert_eq!(scene.world.run(&insurer, propose), Err(Denial::NotAValidatorsInstitution));
    assert_eq!(protocol(scene.world.state()), Protocol::default());
    decide(&mut scene, 2, from).expect("the other three do");
}

/// A scene with a use by an order of which the person can be told.
fn ordered() -> (Scene, PermitId) {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let terms = orders::terms(&scene);
    let order = orders::issue(&mut scene, terms).unwrap();
    let ask = orders::ask(&scene, order);
    let permit = scene.request(&insurer, ask).unwrap();
    (scene, permit)
}

#[test]
fn r41_notice_of_a_use_by_order_is_given_once_from_version_2_on() {
    let (mut scene, permit) = ordered();
    let insurer = scene.four.insurer.clone();
    let from = scene.world.next().height.0 + 10;
    decide(&mut scene, 2, from).unwrap();
    pass_to(&mut scene, from - 2);
    for _ in 0..2 {
        notify(&mut scene, &insurer, permit).expect("version 1 lets her be told again");
        assert_eq!(
            scene.world.get::<Permit>(permit).notified_height,
            None,
            "and writes what it always wrote"
        );
    }
    assert_eq!(scene.world.next().height, Height(from));
    notify(&mut scene, &insurer, permit).expect("the first since version 2");
    assert_eq!(scene.world.get::<Permit>(permit).notified_height, Some(Height(from)));
    assert_eq!(notify(&mut scene, &insurer, permit), Err(Denial::AlreadyNotified));
    let told = scene.world.kinds(permit).into_iter().filter(|kind| *kind == EventKind::PersonNotified);
    assert_eq!(told.count(), 3);
}

#[test]
fn r17_a_release_in_an_outage_is_anchored_once_from_version_2_on() {
    let mut scene = Scene::new();
    let release = released(&scene, scene.world.at().time);
    anchor(&mut scene, release.clone()).unwrap();
    anchor(&mut scene, release.clone()).expect("version 1 enters it twice");
    assert!(read::<Release>(scene.world.state(), ObjectRef::release(&release)).is_none());
    second_version(&mut scene);
    let first = anchor(&mut scene, release.clone()).expect("the first since version 2");
    let held: Release = scene.world.get(ObjectRef::release(&release));
    assert_eq!(held.permit, first);

    // What is another release, and what is the same one.
    let records = release.records.to_vec();
    let reordered = list(records.iter().rev().cloned().collect());
    let fewer = list(records[..1].to_vec());
    let later = release.released_at.plus(1);
    until(&mut scene, later.plus(10_000));
    let again = Err(Denial::AlreadyAnchored);
    for (what, other, expected) in [
        ("the same", release.clone(), again),
        ("records in another order", AnchorEmergency { records: reordered, ..release.clone() }, again),
        (
            "another reason",
            AnchorEmergency { reason: EmergencyReason::AcuteThreat, ..release.clone() },
            again,
        ),
        ("another package", AnchorEmergency { package: digest("other"), ..release.clone() }, again),
        ("another time", AnchorEmergency { released_at: later, ..release.clone() }, Ok(())),
        ("fewer records", AnchorEmergency { records: fewer, ..release.clone() }, Ok(())),
    ] {
        assert_eq!(anchor(&mut scene, other).map(drop), expected, "{what}");
    }
}
