//! Random courses of events, against models too simple to be wrong.

use std::collections::BTreeMap;

use assent_ledger::testing::*;
use assent_ledger::{Applied, ParentTurns, ReplayWindow, State, apply};
use assent_proto::event::{Event, EventKind};
use assent_proto::state::GrantState;
use assent_proto::transaction::*;
use assent_proto::{Denial, Hash, ObjectKind, ObjectRef, VerifiedTx, hash, ids::*, merkle};
use proptest::prelude::*;

/// One thing that somebody does: which, and two choices among what there is.
type Step = (u8, u8, u8);

/// What the course has made so far, to be picked from.
struct Course {
    scene: Scene,
    persons: Vec<(Party, Vec<RecordProof>)>,
    grants: Vec<GrantId>,
    permits: Vec<PermitId>,
    products: Vec<Product>,
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(n) % from.len()].clone())
}

impl Course {
    fn new() -> Course {
        let mut scene = Scene::new();
        let (bureau, a) = (scene.four.bureau.clone(), scene.four.hospital_a.clone());
        let other = scene.world.enrol(&bureau, &a, "other");
        let records: Vec<_> = (0..3).map(|i| record(&other, 50 + i, 101)).collect();
        let records = scene.world.anchor(&a, scene.item, &records, &[]);
        let persons = vec![(scene.person.clone(), scene.records.clone()), (other, records)];
        Course { scene, persons, grants: vec![], permits: vec![], products: vec![] }
    }

    /// The transaction of a step. What it names may exist or not, be the author's or another's.
    fn sign(&mut self, (what, x, y): Step) -> Option<VerifiedTx> {
        let offices = self.offices();
        let (person, records) = pick(&self.persons, x)?;
        let office = pick(&offices, y)?;
        match what % 8 {
            0 | 1 => {
                let mut terms = self.scene.standing(&office);
                if what % 8 == 1 {
                    (terms.mode, terms.uses) = (Mode::NTimes, 1 + u32::from(x % 3));
                }
                let tx = self.scene.world.sign(&person, Action::Grant(Box::new(terms)));
                self.grants.push(GrantId(tx.body_id().0));
                Some(tx)
            }
            2 => {
                let grant = pick(&self.grants, y).unwrap_or(GrantId(digest("unseen")));
                Some(self.scene.world.sign(&person, Action::Revoke(Revoke { grant })))
            }
            3 | 4 => {
                let mut request = self.scene.ask_statistics(pick(&self.grants, x / 2)?);
                (request.account, request.records) = (None, list(records[..2].to_vec()));
                let tx = self.scene.world.sign(&office, Action::RequestAccess(Box::new(request)));
                self.permits.push(PermitId(tx.body_id().0));
                Some(tx)
            }
            5 => {
                let leaves: Vec<_> = records[..2].iter().map(|r| r.record.leaf()).collect();
                let deliver = Deliver {
                    permit: pick(&self.permits, y)?,
                    released_height: self.scene.world.at().height,
                    manifest: merkle::root(&leaves),
                    records: 2,
                    package: digest("package"),
                };
                let a = self.scene.four.hospital_a.clone();
                Some(self.scene.world.sign(&a, Action::Deliver(deliver)))
            }
            6 => {
                let attest =
                    AttestErasure { grant: pick(&self.grants, x)?, report: digest("report"), hold: None };
                Some(self.scene.world.sign(&office, Action::AttestErasure(attest)))
            }
            _ => {
                let out = product(&format!("product {}", x % 16), Level::High);
                let inputs: Vec<_> = pick(&self.products, y).map(|p| p.id).into_iter().collect();
                let activity =
                    activity(ActivityKind::Aggregate, &[pick(&self.permits, x)?], &inputs, &[&out]);
                self.products.push(out);
                Some(self.scene.world.sign(&office, activity))
            }
        }
    }

    fn offices(&self) -> [Party; 3] {
        let four = &self.scene.four;
        [four.hospital_a.clone(), four.insurer.clone(), four.hospital_b.clone()]
    }
}

/// Plays a course: in each block, what protects first.
fn play(blocks: &[Vec<Step>]) -> World {
    let mut course = Course::new();
    for steps in blocks {
        let mut txs: Vec<_> = steps.iter().filter_map(|step| course.sign(*step)).collect();
        txs.sort_by_key(|tx| !tx.body().action.protects());
        course.scene.world.block(txs).unwrap();
    }
    course.scene.world
}

/// Every trail, computed from nothing but the events in their order.
fn naive_trails(events: &[Event]) -> BTreeMap<ObjectRef, (u64, Hash)> {
    let mut trails = BTreeMap::new();
    for event in events {
        for link in &event.links {
            let start = hash::TRAIL_START.hash(&[&link.trail.key()]);
            let (length, head) = trails.entry(link.trail).or_insert((0, start));
            assert_eq!((link.index, link.head_before), (*length, *head));
            *head = hash::TRAIL_STEP.hash(&[&head.0, &event.leaf().0]);
            *length += 1;
        }
    }
    trails
}

/// Replays a chain from its founding, each block twice.
fn replay(world: &World) -> (State, ReplayWindow, Vec<Event>) {
    let (mut state, mut window, mut events) = (world.founding().clone(), ReplayWindow::new(), Vec::new());
    for (at, txs) in world.blocks() {
        let once: Applied = apply(&state, &window, *at, &ParentTurns::default(), txs).unwrap();
        let twice = apply(&state, &window, *at, &ParentTurns::default(), txs).unwrap();
        assert_eq!((once.state.root(), once.events_root), (twice.state.root(), twice.events_root));
        assert_eq!((&once.receipts, &once.changes), (&twice.receipts, &twice.changes));
        assert!(once.changes.is_sorted_by(|a, b| a.object.key() < b.object.key()));
        assert_eq!(state.with(once.changes.iter().cloned()).root(), once.state.root());
        let leaves: Vec<_> = once.events.iter().map(Event::leaf).collect();
        assert_eq!(merkle::root(&leaves), once.events_root);
        let counted: u32 = once.receipts.iter().map(|r| r.events).sum();
        assert_eq!((counted as usize, once.receipts.len()), (once.events.len(), txs.len()));
        for receipt in &once.receipts {
            let own = &once.events[receipt.first_event as usize..][..receipt.events as usize];
            assert!(own.iter().all(|e| e.core.body == receipt.body && e.core.code == receipt.code));
        }
        events.extend(once.events);
        (state, window) = (once.state, once.window);
    }
    (state, window, events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn trails_roots_and_counters_agree_with_plain_models(
        blocks in prop::collection::vec(prop::collection::vec(any::<Step>(), 0..8), 1..16),
    ) {
        let world = play(&blocks);
        let (state, window, events) = replay(&world);
        prop_assert_eq!(state.root(), world.state().root());
        prop_assert_eq!(&events[..], world.events());
        prop_assert_eq!(window.len(), world.window().len());

        for (object, (length, head)) in naive_trails(&events) {
            let leaf = state.get(&object).expect("a trail is of an object that exists");
            prop_assert_eq!((leaf.trail.length, leaf.trail.head), (length, head));
            if object.kind == ObjectKind::Grant {
                uses_are_counted(&world, GrantId(object.id))?;
            }
        }
    }
}

/// R7, R8, R9 on any course: as many permits as counted, never more than granted, none after a revocation.
fn uses_are_counted(world: &World, id: GrantId) -> Result<(), TestCaseError> {
    let grant: GrantState = world.get(id);
    let kinds = world.kinds(id);
    let permits = kinds.iter().filter(|k| **k == EventKind::Permitted).count();
    prop_assert_eq!(permits, grant.used as usize);
    prop_assert!(grant.terms.mode == Mode::Standing || grant.used <= grant.terms.uses);
    let deliveries = kinds.iter().filter(|k| **k == EventKind::Delivered).count();
    prop_assert_eq!(deliveries, grant.delivered as usize);
    if let Some(revoked) = kinds.iter().position(|k| *k == EventKind::Revoked) {
        prop_assert!(!kinds[revoked..].contains(&EventKind::Permitted));
    }
    Ok(())
}

#[test]
fn a_course_reaches_permits_deliveries_and_products() {
    // The random courses would prove little if all they did were denied.
    let grant_a = (0, 0, 0);
    let blocks = [
        vec![grant_a, (0, 0, 1)],
        vec![(3, 0, 0), (3, 2, 1)],
        vec![(5, 0, 1)],
        vec![(7, 0, 0)],
        vec![(2, 0, 1)],
    ];
    let world = play(&blocks);
    for kind in
        [EventKind::Permitted, EventKind::Delivered, EventKind::ActivityRecorded, EventKind::ErasureDue]
    {
        assert!(world.events().iter().any(|e| e.core.kind == kind), "{kind:?}");
    }
    assert!(world.events().iter().all(|e| e.core.code == 0), "{:?}", Denial::from_number(0));
}
