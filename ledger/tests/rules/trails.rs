//! Random courses of events, against models too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use assent_ledger::testing::*;
use assent_ledger::{Applied, ParentTurns, ReplayWindow, State, apply};
use assent_proto::event::{Event, EventKind};
use assent_proto::keys::{Algorithm, SecretKey};
use assent_proto::state::{Account, Delegation, GrantState, OperatorKey, Order, Parameters, Policy};
use assent_proto::transaction::*;
use assent_proto::{Author, Denial, Hash, ObjectKind, ObjectRef, VerifiedTx, hash, ids::*, merkle};
use proptest::prelude::*;

use crate::emergency;
use crate::identity::{recovery, rotation, sign_with, veto};

/// One thing that somebody does: which, and two choices among what there is.
type Step = (u8, u8, u8);

/// What the course has made so far, to be picked from.
struct Course {
    scene: Scene,
    persons: Vec<(Party, Vec<RecordProof>)>,
    grants: Vec<GrantId>,
    permits: Vec<PermitId>,
    products: Vec<Product>,
    delegations: Vec<DelegationId>,
    orders: Vec<OrderId>,
    proposals: Vec<ProposalId>,
    /// Every key that a person has had or is to have.
    keys: Vec<SecretKey>,
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(n) % from.len()].clone())
}

impl Course {
    /// Delays and deadlines are of a few blocks, so that a course reaches what comes after them.
    fn new() -> Course {
        let (mut world, four) = World::four();
        world.amend(ObjectRef::PARAMETERS, |p: &mut Parameters| {
            (p.recovery_delay_ms, p.emergency_anchor_ms) = (2 * BLOCK_MS, 4 * BLOCK_MS);
            (p.emergency_review_ms, p.emergency_notice_ms) = (3 * BLOCK_MS, 2 * BLOCK_MS);
        });
        let mut scene = Scene::in_world(world, four);
        let (bureau, a) = (scene.four.bureau.clone(), scene.four.hospital_a.clone());
        let other = scene.world.enrol(&bureau, &a, "other");
        let records: Vec<_> = (0..3).map(|i| record(&other, 50 + i, 101)).collect();
        let records = scene.world.anchor(&a, scene.item, &records, &[]);
        let persons = vec![(scene.person.clone(), scene.records.clone()), (other, records)];
        let keys = ["person", "other", "key 0", "key 1", "key 2"].map(secret).into();
        Course {
            scene,
            persons,
            grants: vec![],
            permits: vec![],
            products: vec![],
            delegations: vec![],
            orders: vec![],
            proposals: vec![],
            keys,
        }
    }

    /// The transaction of a step. What it names may exist or not, be the author's or another's.
    fn sign(&mut self, (what, x, y): Step) -> Option<VerifiedTx> {
        let offices = self.offices();
        let (person, records) = pick(&self.persons, x)?;
        let (person, office) = (self.with_her_key(&person), pick(&offices, y)?);
        let what = what % KINDS;
        match what {
            0 | 1 => {
                let mut terms = self.scene.standing(&office);
                if what == 1 {
                    (terms.mode, terms.uses) = (Mode::NTimes, 1 + u32::from(x % 3));
                }
                Some(self.granted(&person, terms))
            }
            2 => {
                let grant = pick(&self.grants, y).unwrap_or(GrantId(digest("unseen")));
                Some(self.scene.world.sign(&person, Action::Revoke(Revoke { grant })))
            }
            3 | 4 => {
                let mut request = self.scene.ask_statistics(pick(&self.grants, x / 2)?);
                (request.account, request.records) = (None, list(records[..2].to_vec()));
                Some(self.asked(&office, request))
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
                let until = self.scene.world.at().time.plus(3 * BLOCK_MS);
                let hold = (y % 2 == 0).then_some(Hold { reason: HoldReason::Litigation, until });
                let attest = AttestErasure { grant: pick(&self.grants, x)?, report: digest("report"), hold };
                Some(self.scene.world.sign(&office, Action::AttestErasure(attest)))
            }
            7 => {
                let out = product(&format!("product {}", x % 16), Level::High);
                let inputs: Vec<_> = pick(&self.products, y).map(|p| p.id).into_iter().collect();
                let activity =
                    activity(ActivityKind::Aggregate, &[pick(&self.permits, x)?], &inputs, &[&out]);
                self.products.push(out);
                Some(self.scene.world.sign(&office, activity))
            }
            _ => self.sign_of_persons((what, x, y)).or_else(|| self.sign_of_institutions((what, x, y))),
        }
    }

    /// Keys, wards, and what a ward lets hold.
    fn sign_of_persons(&mut self, (what, x, y): Step) -> Option<VerifiedTx> {
        let (person, _) = pick(&self.persons, x)?;
        let (other, _) = pick(&self.persons, x.wrapping_add(1))?;
        let (person, other) = (self.with_her_key(&person), self.with_her_key(&other));
        let key = pick(&self.keys, y)?;
        let bureau = self.scene.four.bureau.clone();
        let world = &mut self.scene.world;
        match what {
            8 => Some(sign_with(world, &person, &key, rotation(&key))),
            9 | 10 => {
                let by = if what == 9 { bureau } else { self.scene.four.hospital_b.clone() };
                let (in_person, account) = (y % 4 == 3, person.account());
                Some(sign_with(world, &by, &key, recovery(account, &key, in_person)))
            }
            11 => Some(world.sign(&person, veto(&key))),
            12 => {
                let delegate = Action::Delegate(Delegate {
                    ward: person.account(),
                    delegate: other.account(),
                    capacity: Capacity::Guardian,
                    document: digest("the register's entry"),
                    purposes: list(vec![Purpose::Statistics]),
                    until: QUARTER,
                });
                let tx = sign_with(world, &bureau, &other.key, delegate);
                self.delegations.push(DelegationId(tx.body_id().0));
                Some(tx)
            }
            13 => {
                let delegation = Some(pick(&self.delegations, y)?);
                let insurer = self.scene.four.insurer.clone();
                let terms =
                    Grant { capacity: Capacity::Guardian, delegation, ..self.scene.standing(&insurer) };
                Some(self.granted(&person, terms))
            }
            14 => {
                let delegation = pick(&self.delegations, y)?;
                let (by, cause) = match x % 3 {
                    0 => (bureau, DelegationEnd::Death),
                    _ => (person, DelegationEnd::Revoked),
                };
                Some(world.sign(&by, Action::EndDelegation(EndDelegation { delegation, cause })))
            }
            15 => {
                let ratify = Action::Ratify(Ratify { grant: pick(&self.grants, y)? });
                Some(self.scene.world.sign(&person, ratify))
            }
            _ => None,
        }
    }

    /// What rests on no word of hers, what is not released, and what institutions change.
    fn sign_of_institutions(&mut self, (what, x, y): Step) -> Option<VerifiedTx> {
        let Four { bureau, hospital_a: a, hospital_b: b, insurer } = self.scene.four.clone();
        let office = pick(&self.offices(), y)?;
        let now = self.scene.world.at().time;
        match what {
            16 => {
                let not = NotDelivered { permit: pick(&self.permits, y)? };
                Some(self.scene.world.sign(&a, Action::NotDelivered(not)))
            }
            17 => {
                let request = emergency::ask(&self.scene);
                Some(self.asked(&office, request))
            }
            18 => {
                let ago = u64::from(x % 8) * BLOCK_MS;
                let anchor = emergency::released(&self.scene, TimeMs(now.0 - ago));
                let action = Action::AnchorEmergency(Box::new(anchor));
                let tx = sign_with(&mut self.scene.world, &a, &b.key, action);
                self.permits.push(PermitId(tx.body_id().0));
                Some(tx)
            }
            19 => {
                let (permit, verdict) = (pick(&self.permits, x)?, Verdict::GoodFaith);
                let review = Action::ReviewEmergency(ReviewEmergency { permit, verdict });
                Some(self.scene.world.sign(&bureau, review))
            }
            20 => {
                let notify = NotifyPerson { permit: pick(&self.permits, x)?, notice: digest("letter") };
                Some(self.scene.world.sign(&office, Action::NotifyPerson(notify)))
            }
            21 => {
                let order = Action::IssueOrder(Box::new(self.order(&insurer, &a, x, now)));
                let tx = sign_with(&mut self.scene.world, &bureau, &a.key, order);
                self.orders.push(OrderId(tx.body_id().0));
                Some(tx)
            }
            22 => {
                let (purpose, order) = (Purpose::Legal, Some(pick(&self.orders, x)?));
                let request = RequestAccess { case: None, purpose, order, ..self.scene.ask(None) };
                Some(self.asked(&insurer, request))
            }
            23 => {
                let key = pick(&self.keys, x)?;
                let (add, retire) = match y % 2 {
                    0 => (Some(operator(&key)), None),
                    _ => (None, Some(key.public())),
                };
                let rotate = Action::RotateOperator(RotateOperator { add, retire });
                match y % 2 {
                    0 => Some(sign_with(&mut self.scene.world, &office, &key, rotate)),
                    _ => Some(self.scene.world.sign(&office, rotate)),
                }
            }
            24 => {
                let mut policy: Policy = self.scene.world.get(ObjectRef::POLICY);
                policy.version += 1;
                let propose = Propose { change: Change::Policy(policy), until: now.plus(8 * BLOCK_MS) };
                let tx = self.scene.world.sign(&bureau, Action::Propose(Box::new(propose)));
                self.proposals.push(ProposalId(tx.body_id().0));
                Some(tx)
            }
            25 => {
                let approve = Action::Approve(Approve { proposal: pick(&self.proposals, x)? });
                Some(self.scene.world.sign(&office, approve))
            }
            _ => None,
        }
    }

    /// Of the scene's person's records; every second one defers that she is told.
    fn order(&self, beneficiary: &Party, cosigner: &Party, x: u8, now: TimeMs) -> IssueOrder {
        let not_after = now.plus(u64::from(x % 16) * BLOCK_MS);
        let notice_from = if x.is_multiple_of(2) { now.plus(4 * BLOCK_MS) } else { TimeMs(0) };
        let order = self.scene.order(beneficiary, cosigner, not_after);
        IssueOrder { basis: OrderBasis::PublicHealth, notice_from, ..order }
    }

    fn granted(&mut self, by: &Party, terms: Grant) -> VerifiedTx {
        let tx = self.scene.world.sign(by, Action::Grant(Box::new(terms)));
        self.grants.push(GrantId(tx.body_id().0));
        tx
    }

    fn asked(&mut self, by: &Party, request: RequestAccess) -> VerifiedTx {
        let tx = self.scene.world.sign(by, Action::RequestAccess(Box::new(request)));
        self.permits.push(PermitId(tx.body_id().0));
        tx
    }

    /// A person by the key that signs for her in the next block.
    fn with_her_key(&self, person: &Party) -> Party {
        let account: Account = self.scene.world.get(person.account());
        let current = account.key_at(self.scene.world.next().time);
        let key = self.keys.iter().find(|key| key.public() == current).unwrap();
        Party { key: key.clone(), ..person.clone() }
    }

    fn offices(&self) -> [Party; 3] {
        let four = &self.scene.four;
        [four.hospital_a.clone(), four.insurer.clone(), four.hospital_b.clone()]
    }
}

/// How many kinds of steps there are.
const KINDS: u8 = 26;
/// 2030-01-01T00:00:00Z, the first moment of a quarter ahead.
const QUARTER: TimeMs = TimeMs(1_893_456_000_000);

fn operator(key: &SecretKey) -> OperatorKey {
    let (algorithm, not_before, not_after) = (Algorithm::Ed25519, TimeMs(0), QUARTER);
    OperatorKey { algorithm, key: key.public(), not_before, not_after }
}

/// Plays a course: in each block what may be in it, and what protects first.
fn play(blocks: &[Vec<Step>]) -> World {
    let mut course = Course::new();
    for steps in blocks {
        let txs = steps.iter().filter_map(|step| course.sign(*step)).collect::<Vec<_>>();
        let mut txs: Vec<_> = txs.into_iter().filter(|tx| course.scene.world.check(tx).is_ok()).collect();
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
        let written = state.with(&once.changes);
        let changed = once.removed.iter().fold(written, |state, object| state.without(object));
        assert_eq!(changed.root(), once.state.root());
        let leaves: Vec<_> = once.events.iter().map(Event::leaf).collect();
        assert_eq!(merkle::root(&leaves), once.events_root);
        let counted: u32 = once.receipts.iter().map(|r| r.events).sum();
        assert_eq!((counted as usize, once.receipts.len()), (once.events.len(), txs.len()));
        for receipt in &once.receipts {
            let own = &once.events[receipt.first_event as usize..][..receipt.events as usize];
            assert!(own.iter().all(|e| e.core.body == receipt.body && e.core.code == receipt.code));
        }
        events.extend(once.events);
        state = once.state;
        window.committed(at.time, txs);
    }
    (state, window, events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn trails_roots_and_counters_agree_with_plain_models(
        blocks in prop::collection::vec(prop::collection::vec(any::<Step>(), 0..12), 1..16),
    ) {
        agrees_with_plain_models(&play(&blocks))?;
    }
}

fn agrees_with_plain_models(world: &World) -> Result<(), TestCaseError> {
    let (state, window, events) = replay(world);
    prop_assert_eq!(state.root(), world.state().root());
    prop_assert_eq!(&events[..], world.events());
    prop_assert_eq!(window.len(), world.window().len());
    for (object, (length, head)) in naive_trails(&events) {
        let last = world.trail(object).last().map(|e| (e.core.kind, e.core.object));
        let over = last == Some((EventKind::Retired, object));
        prop_assert_eq!(state.get(&object).is_none(), over, "what is over has left the state");
        let Some(leaf) = state.get(&object) else { continue };
        prop_assert_eq!((leaf.trail.length, leaf.trail.head), (length, head));
        match object.kind {
            ObjectKind::Grant => {
                uses_are_counted(world, GrantId(object.id))?;
                no_use_is_of_a_delegation_that_ended(world, GrantId(object.id))?;
            }
            ObjectKind::Permit => it_is_answered_once(world, PermitId(object.id))?,
            ObjectKind::Order => nobody_is_told_before_the_time(world, OrderId(object.id))?,
            _ => {}
        }
    }
    events.iter().try_for_each(|event| joins_the_trails_of_those_concerned(world, event))
}

/// R5, R15, R16, R17: which trails an event joins, from what stands in the state, by a list of its own.
fn joins_the_trails_of_those_concerned(world: &World, event: &Event) -> Result<(), TestCaseError> {
    let core = &event.core;
    let author: ObjectRef = match core.author {
        Author::Account(id) => id.into(),
        Author::Institution(id) => id.into(),
    };
    let others: Vec<ObjectRef> = match core.kind {
        EventKind::KeyRotated | EventKind::OperatorRotated => vec![],
        EventKind::RecoveryApproved | EventKind::RecoveryReady => {
            vec![world.get::<Account>(core.object).enroller.into()]
        }
        EventKind::Delegated | EventKind::DelegationEnded => {
            let delegation: Delegation = world.get(core.object);
            vec![delegation.ward.into(), delegation.delegate.into()]
        }
        EventKind::Ratified => {
            let grant: GrantState = world.get(core.object);
            vec![grant.terms.grantee.into(), grant.signer.into()]
        }
        EventKind::ErasureHeld => vec![world.get::<GrantState>(core.object).account.into()],
        _ => return Ok(()),
    };
    let joined: BTreeSet<_> = event.links.iter().map(|l| l.trail).collect();
    let concerned: BTreeSet<_> = [core.object, author].into_iter().chain(others).collect();
    prop_assert_eq!(joined, concerned, "{:?}", core.kind);
    Ok(())
}

/// R15: between the end of a delegation and the ward's own word, no grant under it is used.
fn no_use_is_of_a_delegation_that_ended(world: &World, id: GrantId) -> Result<(), TestCaseError> {
    let grant: GrantState = world.get(id);
    let Some(by) = grant.terms.delegation.map(ObjectRef::from) else { return Ok(()) };
    let (mut over, mut ratified) = (false, false);
    for event in world.events() {
        over |= event.core.kind == EventKind::DelegationEnded && event.core.object == by;
        ratified |= event.core.kind == EventKind::Ratified && event.core.object == id.into();
        let used = event.core.kind == EventKind::Permitted && event.link(&id.into()).is_some();
        prop_assert!(!used || !over || ratified);
    }
    Ok(())
}

/// What was permitted is released, or given back, or neither; never twice.
fn it_is_answered_once(world: &World, id: PermitId) -> Result<(), TestCaseError> {
    let answers = [EventKind::Delivered, EventKind::NotDelivered];
    let answered = world.kinds(id).iter().filter(|kind| answers.contains(kind)).count();
    prop_assert!(answered <= 1);
    Ok(())
}

/// R41: no event about an order or its use joins a person's trail before she may be told.
fn nobody_is_told_before_the_time(world: &World, id: OrderId) -> Result<(), TestCaseError> {
    let order: Order = world.get(id);
    for event in world.trail(id) {
        let person = event.links.iter().any(|l| l.trail.kind == ObjectKind::Account);
        prop_assert!(!person || event.core.time >= order.terms.notice_from);
    }
    Ok(())
}

/// R7, R8, R9 on any course: as many permits as counted, never more than granted, none after a revocation.
fn uses_are_counted(world: &World, id: GrantId) -> Result<(), TestCaseError> {
    let grant: GrantState = world.get(id);
    let kinds = world.kinds(id);
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    let (permits, given_back) = (count(EventKind::Permitted), count(EventKind::NotDelivered));
    prop_assert_eq!(permits - given_back, grant.used as usize);
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
    let reached =
        [EventKind::Permitted, EventKind::Delivered, EventKind::ActivityRecorded, EventKind::ErasureDue];
    all_happen(&world, &reached);
    assert!(world.events().iter().all(|e| e.core.code == 0), "{:?}", Denial::from_number(0));
}

fn all_happen(world: &World, kinds: &[EventKind]) {
    for kind in kinds {
        assert!(world.events().iter().any(|e| e.core.kind == *kind), "{kind:?}");
    }
}

#[test]
fn a_course_reaches_every_kind_of_event_of_the_whole_decision() {
    let blocks: &[&[Step]] = &[
        // The scene's person grants; the other becomes her guardian, and grants for her.
        &[(0, 0, 1), (12, 0, 0)],
        &[(13, 1, 0)],
        &[(3, 0, 1), (3, 2, 1)],
        // One use is released, the other given back; then both grants are over.
        &[(5, 0, 0), (16, 0, 1)],
        &[(2, 0, 0), (14, 0, 0)],
        &[(6, 0, 4), (15, 0, 1)],
        &[(6, 0, 1), (8, 1, 2)],
        // Emergencies: now, in an outage, and in one long ago.
        &[(17, 0, 2), (18, 0, 0)],
        &[(18, 7, 0)],
        &[(19, 2, 0), (20, 2, 2)],
        // A recovery that is vetoed, and papers.
        &[(9, 0, 8), (10, 0, 8)],
        &[(11, 0, 8)],
        &[(9, 0, 19), (10, 0, 19)],
        // Orders, one of which defers notice; an operator's key; the policy.
        &[(21, 5, 0), (21, 6, 0)],
        &[(22, 0, 0), (22, 1, 0)],
        &[(23, 2, 4), (24, 0, 0)],
        &[(23, 2, 1), (25, 0, 0)],
    ];
    let world = play(&blocks.iter().map(|steps| steps.to_vec()).collect::<Vec<_>>());
    let reached = [
        EventKind::NotDelivered,
        EventKind::ErasureHeld,
        EventKind::ErasureAttested,
        EventKind::Delegated,
        EventKind::DelegationEnded,
        EventKind::Ratified,
        EventKind::KeyRotated,
        EventKind::EmergencyOpened,
        EventKind::EmergencyAnchored,
        EventKind::EmergencyAnchoredLate,
        EventKind::EmergencyReviewed,
        EventKind::PersonNotified,
        EventKind::RecoveryApproved,
        EventKind::RecoveryReady,
        EventKind::RecoveryVetoed,
        EventKind::OrderIssued,
        EventKind::OperatorRotated,
        EventKind::Proposed,
        EventKind::Enacted,
    ];
    all_happen(&world, &reached);
    agrees_with_plain_models(&world).unwrap();
}
