//! What was made of what.

use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::Artifact;
use assent_proto::transaction::*;
use assent_proto::{Denial, ids::*};

/// Hospital A holds a permit on its own records under a standing grant.
fn own_permit(scene: &mut Scene) -> PermitId {
    let a = scene.four.hospital_a.clone();
    let grant = scene.grant(scene.standing(&a)).unwrap();
    scene.request(&a, scene.ask_statistics(grant)).unwrap()
}

#[test]
fn r24_products_are_new_and_never_less_sensitive_than_what_went_in() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let permit = own_permit(&mut scene);
    let mut record = |permits: &[PermitId], artifacts: &[ArtifactId], outputs: &[&Product]| {
        let activity = activity(ActivityKind::Aggregate, permits, artifacts, outputs);
        scene.world.run(&a, activity).map(|_| ())
    };
    let (clean, low) = (product("clean", Level::Moderate), product("low", Level::Low));
    assert_eq!(record(&[permit], &[], &[&low]), Err(Denial::OutputLevelTooLow));
    assert_eq!(record(&[permit], &[], &[&clean, &clean]), Err(Denial::OutputExists));
    assert_eq!(record(&[permit], &[], &[&clean]), Ok(()));
    assert_eq!(record(&[permit], &[], &[&clean]), Err(Denial::OutputExists), "an output id is used once");
    assert_eq!(record(&[], &[clean.id], &[&clean]), Err(Denial::OutputExists), "so no cycle closes");
    assert_eq!(record(&[], &[clean.id], &[&low]), Err(Denial::OutputLevelTooLow), "through products too");
    let high = product("high", Level::High);
    assert_eq!(record(&[], &[clean.id], &[&high]), Ok(()));
    let after_high = product("after high", Level::Moderate);
    assert_eq!(record(&[], &[clean.id, high.id], &[&after_high]), Err(Denial::OutputLevelTooLow));
}

#[test]
fn r24_an_activity_joins_the_trails_of_all_that_went_in_and_came_out() {
    let mut scene = Scene::new();
    let a = scene.four.hospital_a.clone();
    let permit = own_permit(&mut scene);
    let (one, two) = (product("one", Level::High), product("two", Level::Moderate));
    let first = activity(ActivityKind::Clean, &[permit], &[], &[&one]);
    scene.world.run(&a, first).unwrap();
    let body = scene
        .world
        .run(&a, activity(ActivityKind::Mask, &[permit], &[one.id], &[&product("x", Level::High), &two]));
    assert_eq!(body.map(|_| ()), Err(Denial::OutputLevelTooLow));
    let two = Product { level: Level::High, ..two };
    let activity = activity(ActivityKind::Mask, &[permit], &[one.id], &[&product("x", Level::High), &two]);
    let body = scene.world.run(&a, activity).unwrap();
    let trails: [assent_proto::ObjectRef; 5] =
        [permit.into(), scene.person.account().into(), one.id.into(), two.id.into(), a.institution().into()];
    for trail in trails {
        let event = *scene.world.trail(trail).last().unwrap();
        assert_eq!((event.core.kind, event.core.body), (EventKind::ActivityRecorded, body), "{trail:?}");
    }
    let artifact: Artifact = scene.world.get(two.id);
    assert_eq!((artifact.activity, artifact.agent), (body, a.institution()));
}

#[test]
fn r24_data_comes_in_only_with_a_permit_that_allows_it() {
    let mut scene = Scene::new();
    scene.settle();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let grant = scene.grant(scene.terms()).unwrap();
    let reading = scene.request(&insurer, scene.ask(Some(grant))).unwrap();
    let out = product("out", Level::High);
    let record = |scene: &mut Scene, by: &Party, kind| {
        scene.world.run(by, activity(kind, &[reading], &[], &[&out])).map(|_| ())
    };
    assert_eq!(record(&mut scene, &a, ActivityKind::Reuse), Err(Denial::NotTheRequester));
    assert_eq!(record(&mut scene, &insurer, ActivityKind::Reuse), Err(Denial::NotDelivered));
    let delivery = scene.delivery(reading);
    scene.deliver(&a, delivery).unwrap();
    assert_eq!(record(&mut scene, &insurer, ActivityKind::Aggregate), Err(Denial::ActionNotPermitted));
    assert_eq!(record(&mut scene, &insurer, ActivityKind::Reuse), Ok(()));
}

#[test]
fn r28_mutual_recognition_appears_in_both_trails() {
    let mut scene = Scene::new();
    let (a, b) = (scene.four.hospital_a.clone(), scene.four.hospital_b.clone());
    let results = scene.world.item(&a, 30, Category::TestResult, Level::Moderate, Opening::Prohibited);
    scene.item = results;
    let result = record(&scene.person, 77, 101);
    scene.records = scene.world.anchor(&a, results, &[result.clone(), record(&scene.person, 78, 102)], &[]);
    let purpose = Purpose::MutualRecognition;
    let terms = Grant { grantee: b.institution(), purpose, output: Output::Raw, ..scene.terms() };
    let grant = scene.grant(terms).unwrap();
    let records = list(vec![scene.records[0].clone()]);
    let ask = RequestAccess { purpose, output: Output::Raw, records, ..scene.ask(Some(grant)) };
    let permit = scene.request(&b, ask).unwrap();
    let delivery = scene.delivery(permit);
    scene.deliver(&a, delivery).unwrap();
    let reused = product("the result in hospital B's record", Level::Moderate);
    scene.world.run(&b, activity(ActivityKind::Reuse, &[permit], &[], &[&reused])).unwrap();
    let expected = [EventKind::Permitted, EventKind::Delivered, EventKind::ActivityRecorded];
    let trails: [assent_proto::ObjectRef; 3] =
        [a.institution().into(), b.institution().into(), scene.person.account().into()];
    for trail in trails {
        let kinds = scene.world.kinds(trail);
        assert_eq!(kinds[kinds.len() - 3..], expected, "{trail:?}");
    }
}

#[test]
fn r24_the_largest_activity_fits_its_event() {
    // 256 permits of 256 persons: their trails, the permits', sixteen products', one event.
    let mut scene = Scene::new();
    let (a, bureau) = (scene.four.hospital_a.clone(), scene.four.bureau.clone());
    let persons: Vec<_> = (0..256).map(|i| scene.world.enrol(&bureau, &a, &format!("person {i}"))).collect();
    let item = scene.world.item(&a, 40, Category::Encounter, Level::None, Opening::Unconditional);
    let records: Vec<_> = persons.iter().zip(0..).map(|(person, i)| record(person, i, 100)).collect();
    let proofs = scene.world.anchor(&a, item, &records, &[]);
    let requests: Vec<_> = persons
        .iter()
        .zip(proofs)
        .map(|(person, proof)| RequestAccess {
            item,
            account: Some(person.account()),
            case: None,
            purpose: Purpose::Statistics,
            action: UseAction::Derive,
            records: list(vec![proof]),
            ..scene.ask(None)
        })
        .collect();
    let permits: Vec<_> = requests.into_iter().map(|r| scene.request(&a, r).unwrap()).collect();
    let outputs: Vec<_> = (0..16).map(|i| product(&format!("product {i}"), Level::None)).collect();
    let outputs: Vec<_> = outputs.iter().collect();
    scene.world.run(&a, activity(ActivityKind::Aggregate, &permits, &[], &outputs)).unwrap();
    let event = scene.world.events().last().unwrap();
    assert_eq!(event.links.len(), 256 + 256 + 16 + 1);
    assert!(event.links.is_sorted_by(|x, y| x.trail < y.trail));
}
