//! The catalogue: sources, levels, openings, anchors.

use assent_ledger::testing::*;
use assent_proto::Denial;
use assent_proto::event::EventKind;
use assent_proto::state::{Batch, Item, Settlement};
use assent_proto::transaction::*;

/// Whether DESIGN's table lets a level be opened so without governance's exception.
fn table(level: Level, opening: Opening) -> bool {
    match (level, opening) {
        (_, Opening::Prohibited) | (Level::None, _) => true,
        (Level::High, _) | (_, Opening::Unconditional) => false,
        (Level::Low | Level::Moderate, Opening::AfterReview | Opening::RealName | Opening::Directed) => true,
    }
}

#[test]
fn r11_every_level_with_every_opening_with_and_without_recipients() {
    let (mut world, four) = World::four();
    let recipient = list(vec![four.insurer.institution()]);
    let mut code = 0;
    for level in Level::ALL {
        for opening in Opening::ALL {
            for recipients in [list(vec![]), recipient.clone()] {
                code += 1;
                let expected = match table(*level, *opening) {
                    false => Err(Denial::OpeningNotAllowed),
                    true if (*opening == Opening::Directed) == recipients.is_empty() => {
                        Err(Denial::RecipientsMismatch)
                    }
                    true => Ok(()),
                };
                let (category, scope) = (Category::TestResult, 1);
                let item = RegisterItem {
                    code,
                    scope,
                    category,
                    level: *level,
                    opening: *opening,
                    recipients: recipients.clone(),
                };
                let registered = world.run(&four.hospital_a, Action::RegisterItem(item)).map(|_| ());
                assert_eq!(registered, expected, "register {level:?} {opening:?}");

                let item =
                    world.item(&four.hospital_a, 1000 + code, category, Level::None, Opening::Prohibited);
                let classify = Classify { item, level: *level, opening: *opening, recipients };
                let graded = world.run(&four.hospital_a, Action::Classify(classify)).map(|_| ());
                assert_eq!(graded, expected, "classify {level:?} {opening:?}");
            }
        }
    }
}

#[test]
fn r1_anchoring_commits_to_records_and_shows_none() {
    let scene = Scene::new();
    let batch: Batch = scene.world.get(scene.records[0].batch);
    assert_eq!((batch.count, batch.item), (5, scene.item));
    assert_eq!(scene.world.kinds(scene.item), [EventKind::ItemRegistered, EventKind::Anchored]);
    assert!(!scene.world.kinds(scene.person.account()).contains(&EventKind::Anchored));
}

#[test]
fn r6_only_the_bureaus_settlements_settle_cases() {
    let mut scene = Scene::new();
    scene.settle();
    let settlement: Settlement = scene.world.get(scene.case);
    assert_eq!(settlement.settler, scene.four.bureau.institution());
    assert_eq!(scene.world.kinds(scene.case), [EventKind::Settled]);
}

#[test]
fn r20_a_source_keeps_its_item() {
    let mut scene = Scene::new();
    let (b, item) = (scene.four.hospital_b.clone(), scene.item);
    let classify =
        Classify { item, level: Level::High, opening: Opening::Prohibited, recipients: list(vec![]) };
    assert_eq!(scene.world.run(&b, Action::Classify(classify)), Err(Denial::NotTheSource));
    let anchor = Action::AnchorRecords(anchor_of(item, &[record(&scene.person, 9, 100)], &[]));
    assert_eq!(scene.world.run(&b, anchor), Err(Denial::NotTheSource));
}

#[test]
fn r21_grading_up_closes_what_a_grant_may_see() {
    let mut scene = Scene::new();
    scene.settle();
    let grant = scene.grant(scene.terms()).unwrap();
    let (a, insurer, item) = (scene.four.hospital_a.clone(), scene.four.insurer.clone(), scene.item);
    let classify =
        Classify { item, level: Level::High, opening: Opening::Prohibited, recipients: list(vec![]) };
    scene.world.run(&a, Action::Classify(classify.clone())).unwrap();
    assert_eq!(scene.world.get::<Item>(item).level, Level::High);
    assert_eq!(scene.request(&insurer, scene.ask(Some(grant))), Err(Denial::GrantSuspended));
    let down = Classify { level: Level::Low, ..classify };
    assert_eq!(scene.world.run(&a, Action::Classify(down)), Err(Denial::GradingDown));
    assert_eq!(scene.world.get::<Item>(item).level, Level::High);
}

#[test]
fn r1_custody_is_true_to_life() {
    let (mut world, four) = World::four();
    let mut register = |by: &Party, category| {
        let code = 50 + category as u32;
        let (level, opening, recipients) = (Level::Low, Opening::Prohibited, list(vec![]));
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients };
        world.run(by, Action::RegisterItem(item)).map(|_| ())
    };
    assert_eq!(register(&four.hospital_a, Category::Settlement), Err(Denial::NotPermittedRole));
    assert_eq!(register(&four.bureau, Category::Settlement), Ok(()));
    assert_eq!(register(&four.hospital_a, Category::Prescription), Ok(()));
    assert_eq!(register(&four.insurer, Category::Encounter), Err(Denial::NotPermittedRole));
}

#[test]
fn r6_a_case_is_not_settled_by_other_records() {
    let mut scene = Scene::new();
    let bureau = scene.four.bureau.clone();
    let level = Level::Moderate;
    let item = scene.world.item(&bureau, 61, Category::ClaimDocument, level, Opening::Prohibited);
    let anchor = Action::AnchorRecords(anchor_of(item, &[record(&scene.person, 1, 100)], &[scene.case]));
    assert_eq!(scene.world.run(&bureau, anchor), Err(Denial::NotPermittedRole));
    assert!(scene.world.kinds(scene.case).is_empty());
}
