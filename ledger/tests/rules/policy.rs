//! The policy and its versions, the negative list, the committee, grading down (R10, R14, R21).

use assent_ledger::preview;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, ids::*};

use crate::institutions::{approve, propose};

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, insurer, .. } = s.four.clone();
    match code {
        Denial::Prohibited => {
            s.settle();
            let grant = s.grant(s.terms())?;
            let next = next(&s, |p| p.prohibited = list(vec![no(Purpose::ClaimsPayment)]));
            let proposal = propose(&mut s, &bureau, next)?;
            approve(&mut s, &a, proposal)?;
            s.request(&insurer, s.ask(Some(grant))).map(drop)
        }
        Denial::BadPolicy => {
            let change = next(&s, |p| p.version += 1);
            propose(&mut s, &bureau, change).map(drop)
        }
        Denial::NotOnTheCommittee => {
            let change = next(&s, |_| ());
            propose(&mut s, &insurer, change).map(drop)
        }
        Denial::NotGradedDown => {
            let change = grading(&s, Level::Moderate);
            propose(&mut s, &a, change).map(drop)
        }
        other => unreachable!("{other} is another module's"),
    }
}

fn next(s: &Scene, edit: impl FnOnce(&mut Policy)) -> Change {
    let mut policy: Policy = s.world.get(ObjectRef::POLICY);
    policy.version += 1;
    edit(&mut policy);
    Change::Policy(policy)
}

fn no(purpose: Purpose) -> Prohibition {
    Prohibition { purpose: Some(purpose), item: None, category: None }
}

fn grading(s: &Scene, level: Level) -> Change {
    Change::Grading(Classify { item: s.item, level, opening: Opening::Prohibited, recipients: list(vec![]) })
}

fn classify(s: &mut Scene, level: Level) -> Result<BodyId, Denial> {
    let (a, item) = (s.four.hospital_a.clone(), s.item);
    let recipients = list(vec![]);
    s.world.run(&a, Action::Classify(Classify { item, level, opening: Opening::Prohibited, recipients }))
}

#[test]
fn r10_the_committee_decides_each_of_its_roles_among_them() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, hospital_b: b, insurer } = s.four.clone();
    let change = next(&s, |p| p.rules = list(p.rules[1..].to_vec()));
    assert_eq!(preview(s.world.state(), s.world.next().height, &change), Ok(()));
    let proposal = propose(&mut s, &a, change).unwrap();
    assert_eq!(approve(&mut s, &insurer, proposal), Err(Denial::NotOnTheCommittee));
    assert_eq!(approve(&mut s, &a, proposal), Err(Denial::AlreadyApproved));
    approve(&mut s, &b, proposal).unwrap();
    assert_eq!(s.world.get::<Policy>(ObjectRef::POLICY).version, 1, "two hospitals, no regulator");
    approve(&mut s, &bureau, proposal).unwrap();
    let in_force: Policy = s.world.get(ObjectRef::POLICY);
    assert_eq!((in_force.version, in_force.rule(Purpose::ClaimsPayment)), (2, None));
    assert_eq!(s.world.get::<Policy>(ObjectRef::policy(2)), in_force);
    assert_eq!(s.world.get::<Policy>(ObjectRef::policy(1)).version, 1, "versions are kept");
    let enacted = s.world.kinds(ObjectRef::POLICY);
    assert_eq!(enacted.last(), Some(&EventKind::Enacted));
}

#[test]
fn r10_a_policy_follows_the_one_in_force_and_does_not_contradict_itself() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, .. } = s.four.clone();
    for version in [0, 1, 3] {
        let change = next(&s, |p| p.version = version);
        assert_eq!(propose(&mut s, &bureau, change), Err(Denial::BadPolicy), "{version}");
    }
    let bad: [&dyn Fn(&mut Policy); 6] = [
        &|p| p.rules = list(vec![]),
        &|p| p.rules = list(vec![p.rules[0].clone(), p.rules[0].clone()]),
        &|p| p.prohibited = list(vec![Prohibition { purpose: None, item: None, category: None }]),
        &|p| p.committee.roles = list(vec![]),
        &|p| p.committee.approvals = 1,
        &|p| p.committee.approvals = 129,
    ];
    for (i, edit) in bad.into_iter().enumerate() {
        let change = next(&s, edit);
        assert_eq!(preview(s.world.state(), s.world.next().height, &change), Err(Denial::BadPolicy), "{i}");
        assert_eq!(propose(&mut s, &bureau, change), Err(Denial::BadPolicy), "{i}");
    }
    // Of two that were proposed as the next, one is.
    let (one, other) = (next(&s, |_| ()), next(&s, |p| p.prohibited = list(vec![no(Purpose::Research)])));
    let (one, other) = (propose(&mut s, &bureau, one).unwrap(), propose(&mut s, &bureau, other).unwrap());
    let (one, other) = (
        s.world.sign(&a, Action::Approve(Approve { proposal: one })),
        s.world.sign(&a, Action::Approve(Approve { proposal: other })),
    );
    let verdicts = s.world.block(vec![one, other]).unwrap();
    assert!(verdicts[0].is_ok());
    assert_eq!(verdicts[1], Err(Denial::BadPolicy));
}

#[test]
fn r14_the_negative_list_beats_a_valid_grant_from_the_block_after_its_own() {
    let listed: [fn(&Scene) -> Prohibition; 3] = [
        |_| no(Purpose::Statistics),
        |s| Prohibition { purpose: None, item: Some(s.item), category: None },
        |_| Prohibition { purpose: None, item: None, category: Some(Category::ClaimDocument) },
    ];
    for prohibition in listed {
        let mut s = Scene::new();
        let Four { bureau, hospital_a: a, insurer, .. } = s.four.clone();
        let grant = s.grant(s.standing(&insurer)).unwrap();
        let change = next(&s, |p| p.prohibited = list(vec![prohibition(&s)]));
        let proposal = propose(&mut s, &bureau, change).unwrap();
        s.request(&insurer, s.ask_statistics(grant)).expect("proposed is not decided");
        let last = s.world.sign(&a, Action::Approve(Approve { proposal }));
        let ask = Action::RequestAccess(Box::new(s.ask_statistics(grant)));
        let request = s.world.sign(&insurer, ask);
        let verdicts = s.world.block(vec![last, request]).unwrap();
        assert!(verdicts.iter().all(Result::is_ok), "in force from the next block on");
        assert_eq!(s.request(&insurer, s.ask_statistics(grant)), Err(Denial::Prohibited));
    }
}

#[test]
fn r21_grading_down_needs_the_source_and_another_of_the_committee() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, hospital_b: b, insurer } = s.four.clone();
    let level = |s: &Scene| s.world.get::<Item>(s.item).level;
    let change = grading(&s, Level::Low);
    assert_eq!(propose(&mut s, &insurer, change.clone()), Err(Denial::NotOnTheCommittee));
    let proposal = propose(&mut s, &b, change.clone()).unwrap();
    approve(&mut s, &bureau, proposal).unwrap();
    assert_eq!(level(&s), Level::Moderate, "two, but not the source");
    approve(&mut s, &a, proposal).unwrap();
    assert_eq!(level(&s), Level::Low);
    let item: Item = s.world.get(s.item);
    assert_eq!(item.graded_height, s.world.at().height);
    let kinds = s.world.kinds(s.item);
    assert_eq!(kinds[kinds.len() - 2..], [EventKind::Enacted, EventKind::Classified]);
    let down = grading(&s, Level::None);
    let proposal = propose(&mut s, &a, down).unwrap();
    assert_eq!(level(&s), Level::Low, "the source alone");
    approve(&mut s, &b, proposal).unwrap();
    assert_eq!(level(&s), Level::None);
}

#[test]
fn r21_what_was_graded_anew_since_is_proposed_anew() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, .. } = s.four.clone();
    let down = grading(&s, Level::Low);
    let proposal = propose(&mut s, &a, down).unwrap();
    classify(&mut s, Level::High).unwrap();
    assert_eq!(approve(&mut s, &bureau, proposal), Err(Denial::StaleChange));
    assert_eq!(s.world.get::<Item>(s.item).level, Level::High);
    for level in [Level::High, Level::Moderate] {
        let change = grading(&s, level);
        let expected = if level == Level::High { Err(Denial::NotGradedDown) } else { Ok(()) };
        assert_eq!(preview(s.world.state(), s.world.next().height, &change), expected, "{level:?}");
    }
}

#[test]
fn r10_r11_a_source_opens_nothing_to_itself() {
    let mut s = Scene::new();
    let (a, item) = (s.four.hospital_a.clone(), s.item);
    let recipients = list(vec![a.institution()]);
    let own = Classify { item, level: Level::Moderate, opening: Opening::Directed, recipients };
    assert_eq!(s.world.run(&a, Action::Classify(own.clone())), Err(Denial::SameInstitution));
    let down = Change::Grading(Classify { level: Level::Low, ..own });
    assert_eq!(propose(&mut s, &a, down), Err(Denial::SameInstitution));
}

#[test]
fn r21_an_opening_alone_does_not_grade_anew() {
    let mut s = Scene::new();
    let before: Item = s.world.get(s.item);
    classify(&mut s, Level::Moderate).unwrap();
    assert_eq!(s.world.get::<Item>(s.item).graded_height, before.graded_height);
    classify(&mut s, Level::High).unwrap();
    assert_eq!(s.world.get::<Item>(s.item).graded_height, s.world.at().height);
}
