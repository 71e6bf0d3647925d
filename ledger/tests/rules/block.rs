//! What holds between the transactions of one block.

use assent_ledger::InvalidBlock;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::state::{GrantState, Parameters};
use assent_proto::transaction::*;
use assent_proto::{Denial, Invalid, ObjectRef, ids::*};

fn request_of(scene: &mut Scene, grant: GrantId) -> assent_proto::VerifiedTx {
    let insurer = scene.four.insurer.clone();
    let request = scene.ask(Some(grant));
    scene.world.sign(&insurer, Action::RequestAccess(Box::new(request)))
}

#[test]
fn r7_twice_in_one_block_is_exactly_one_permit() {
    let mut scene = Scene::new();
    scene.settle();
    let grant = scene.grant(scene.terms()).unwrap();
    let (first, second) = (request_of(&mut scene, grant), request_of(&mut scene, grant));
    let id = first.body_id();
    let verdicts = scene.world.block(vec![first, second]).unwrap();
    assert_eq!(verdicts, [Ok(id), Err(Denial::GrantExhausted)]);
    assert_eq!(scene.world.get::<GrantState>(grant).used, 1);
    let permits = scene.world.kinds(grant).iter().filter(|k| **k == EventKind::Permitted).count();
    assert_eq!(permits, 1);
}

#[test]
fn r8_a_resubmission_counts_once() {
    let mut scene = Scene::new();
    let terms = Grant { mode: Mode::NTimes, uses: 2, ..scene.terms() };
    scene.settle();
    let grant = scene.grant(terms).unwrap();
    let tx = request_of(&mut scene, grant);
    let twice = scene.world.apply(&[tx.clone(), tx.clone()]).map(|_| ());
    assert_eq!(twice, Err(InvalidBlock::Duplicate { index: 1 }));
    scene.world.submit(tx.clone()).unwrap();
    assert_eq!(scene.world.check(&tx), Err(Invalid::Replay));
    assert_eq!(scene.world.get::<GrantState>(grant).used, 1);
}

#[test]
fn r9_revoke_and_use_in_one_block_is_refused() {
    let mut scene = Scene::new();
    scene.settle();
    let grant = scene.grant(scene.terms()).unwrap();
    let person = scene.person.clone();
    let usage = request_of(&mut scene, grant);
    let revoke = scene.world.sign(&person, Action::Revoke(Revoke { grant }));
    let wrong = scene.world.apply(&[usage.clone(), revoke.clone()]).map(|_| ());
    assert_eq!(wrong, Err(InvalidBlock::PhaseOrder { index: 1 }), "what protects stands first");
    let id = revoke.body_id();
    let verdicts = scene.world.block(vec![revoke, usage]).unwrap();
    assert_eq!(verdicts, [Ok(id), Err(Denial::GrantRevoked)]);
}

#[test]
fn r9_a_revocation_before_its_grant_in_one_block() {
    let mut scene = Scene::new();
    scene.settle();
    let person = scene.person.clone();
    let terms = scene.terms();
    let granting = scene.world.sign(&person, Action::Grant(Box::new(terms)));
    let grant = GrantId(granting.body_id().0);
    let revoke = scene.world.sign(&person, Action::Revoke(Revoke { grant }));
    let usage = request_of(&mut scene, grant);
    let verdicts = scene.world.block(vec![revoke, granting, usage]).unwrap();
    assert_eq!(verdicts[2], Err(Denial::GrantRevoked));
    assert_eq!(scene.world.kinds(grant), [EventKind::Granted, EventKind::Revoked, EventKind::Denied]);
}

#[test]
fn r20_the_same_item_in_one_block_has_one_source() {
    let (mut world, four) = World::four();
    let item = RegisterItem {
        code: 7,
        scope: 1,
        category: Category::TestResult,
        level: Level::Low,
        opening: Opening::Prohibited,
        recipients: list(vec![]),
    };
    let a = world.sign(&four.hospital_a, Action::RegisterItem(item.clone()));
    let b = world.sign(&four.hospital_b, Action::RegisterItem(item));
    let id = a.body_id();
    assert_eq!(world.block(vec![a, b]).unwrap(), [Ok(id), Err(Denial::ItemTaken)]);
    let source = world.get::<assent_proto::state::Item>(ItemId::of(7, 1)).custodian;
    assert_eq!(source, four.hospital_a.institution());
}

#[test]
fn a_dependency_inside_a_block_is_decided_in_block_order() {
    let mut scene = Scene::new();
    scene.settle();
    let person = scene.person.clone();
    let terms = scene.terms();
    let granting = scene.world.sign(&person, Action::Grant(Box::new(terms)));
    let grant = GrantId(granting.body_id().0);
    let (early, late) = (request_of(&mut scene, grant), request_of(&mut scene, grant));
    let verdicts = scene.world.block(vec![early, granting, late]).unwrap();
    assert_eq!(verdicts[0], Err(Denial::NoSuchGrant));
    assert!(verdicts[1].is_ok() && verdicts[2].is_ok());
}

#[test]
fn blocks_are_bounded_in_count_and_bytes() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::PARAMETERS, |p: &mut Parameters| p.block_transactions_max = 2);
    let mut txs: Vec<_> = (0..3)
        .map(|i| {
            let key = secret(&format!("key {i}"));
            let body = world.body(&four.bureau, enrol(&four.hospital_a, &key));
            world.seal(&body, &[&four.bureau.key, &key])
        })
        .collect();
    assert_eq!(world.apply(&txs).map(|_| ()), Err(InvalidBlock::TooLarge));
    txs.pop();
    assert!(world.apply(&txs).is_ok());
    let bytes: usize = txs.iter().map(|tx| tx.bytes().len()).sum();
    world.amend(ObjectRef::PARAMETERS, |p: &mut Parameters| p.block_bytes_max = bytes as u32 - 1);
    assert_eq!(world.apply(&txs).map(|_| ()), Err(InvalidBlock::TooLarge));
}

#[test]
fn an_empty_block_changes_nothing() {
    let scene = Scene::new();
    let applied = scene.world.apply(&[]).unwrap();
    assert_eq!(applied.state.root(), scene.world.state().root());
    assert!(applied.events.is_empty() && applied.receipts.is_empty() && applied.changes.is_empty());
}
