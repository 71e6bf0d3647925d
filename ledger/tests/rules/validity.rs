//! Who may be in a block at all.

use assent_ledger::testing::*;
use assent_ledger::{InvalidBlock, check, parameters};
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::keys::PublicKey;
use assent_proto::state::Institution;
use assent_proto::transaction::*;
use assent_proto::{Hash, Invalid, ids::*};

fn grant_of(scene: &Scene) -> Action {
    Action::Grant(Box::new(scene.terms()))
}

/// Checks, and shows that a block with it says the same.
fn verdict(world: &World, body: &Body, keys: &[&assent_proto::SecretKey]) -> Result<(), Invalid> {
    let tx = world.seal(body, keys);
    let verdict = world.check(&tx);
    let block = world.apply(&[tx]).map(|_| ()).map_err(|e| match e {
        InvalidBlock::Transaction { index: 0, reason } => reason,
        other => panic!("{other}"),
    });
    assert_eq!(verdict, block);
    verdict
}

#[test]
fn r2_a_grant_signed_by_an_institution_is_refused() {
    let mut scene = Scene::new();
    let grant = grant_of(&scene);
    // In its own name, in the person's name, and beside the person's signature.
    let (bureau, person) = (scene.four.bureau.clone(), scene.person.clone());
    let own = scene.world.body(&bureau, grant.clone());
    let hers = scene.world.body(&person, grant);
    assert_eq!(verdict(&scene.world, &own, &[&bureau.key]), Err(Invalid::WrongKey));
    assert_eq!(verdict(&scene.world, &hers, &[&bureau.key]), Err(Invalid::WrongKey));
    assert_eq!(verdict(&scene.world, &hers, &[&person.key, &bureau.key]), Err(Invalid::MissingSignature));
    assert_eq!(verdict(&scene.world, &hers, &[&person.key]), Ok(()));
}

#[test]
fn r2_a_grant_altered_by_one_bit_is_refused() {
    let mut scene = Scene::new();
    let person = scene.person.clone();
    let grant = grant_of(&scene);
    let body = scene.world.body(&person, grant);
    let genesis = *scene.world.genesis();
    let good = Envelope::sign(&genesis, &body, &[&person.key]).encode();
    assert!(verify(&genesis, std::slice::from_ref(&good)).remove(0).is_ok());
    let altered: Vec<_> = (0..good.len())
        .map(|i| {
            let mut bytes = good.to_vec();
            bytes[i] ^= 1 << (i % 8);
            bytes.into()
        })
        .collect();
    for (i, verdict) in verify(&genesis, &altered).into_iter().enumerate() {
        assert!(verdict.is_err(), "a bit of byte {i}");
    }
}

#[test]
fn persons_do_nothing_but_grant_and_revoke() {
    let mut scene = Scene::new();
    let person = scene.person.clone();
    let request = Action::RequestAccess(Box::new(scene.ask(None)));
    let body = scene.world.body(&person, request);
    assert_eq!(verdict(&scene.world, &body, &[&person.key]), Err(Invalid::WrongKey));
}

#[test]
fn expiry_is_bounded_on_both_sides() {
    let mut scene = Scene::new();
    let (person, grant) = (scene.person.clone(), grant_of(&scene));
    let time = scene.world.next().time;
    let life = parameters(scene.world.state()).transaction_life_ms;
    let body = scene.world.body(&person, grant);
    for (expires_at, expected) in [
        (TimeMs(time.0 - 1), Err(Invalid::Expired)),
        (time, Ok(())),
        (time.plus(life), Ok(())),
        (time.plus(life + 1), Err(Invalid::TooFarAhead)),
        (TimeMs(u64::MAX), Err(Invalid::TooFarAhead)),
    ] {
        let body = Body { expires_at, ..body.clone() };
        assert_eq!(verdict(&scene.world, &body, &[&person.key]), expected, "{expires_at}");
    }
}

#[test]
fn a_replay_is_refused_as_long_as_it_could_be_in_time() {
    let mut scene = Scene::new();
    let (person, grant) = (scene.person.clone(), grant_of(&scene));
    let tx = scene.world.sign(&person, grant);
    scene.world.submit(tx.clone()).unwrap();
    assert_eq!(scene.world.check(&tx), Err(Invalid::Replay));
    let left = tx.body().expires_at.0 - scene.world.next().time.0;
    scene.world.wait(left - BLOCK_MS);
    scene.world.block(vec![]).unwrap();
    scene.world.wait(0);
    let window = scene.world.window();
    let (state, last) = (scene.world.state(), tx.body().expires_at);
    assert_eq!(
        check(state, window, &parameters(state), last, &tx),
        Err(Invalid::Replay),
        "at its last moment"
    );
    assert_eq!(check(state, window, &parameters(state), last.plus(1), &tx), Err(Invalid::Expired));
}

#[test]
fn the_same_body_under_another_signature_is_a_replay() {
    // A real-name requester's second signature makes another envelope only if it is another key's; the id
    // that counts is the body's, so an envelope that is unlike the first in any byte changes nothing.
    let mut scene = Scene::new();
    let (person, grant) = (scene.person.clone(), grant_of(&scene));
    let body = scene.world.body(&person, grant);
    let (first, other) = (scene.world.seal(&body, &[&person.key]), secret("somebody else"));
    let second = scene.world.seal(&body, &[&person.key, &other]);
    assert_ne!(first.envelope_id(), second.envelope_id());
    assert_eq!(first.body_id(), second.body_id());
    let block = scene.world.apply(&[first.clone(), second.clone()]).map(|_| ());
    assert_eq!(block, Err(InvalidBlock::Duplicate { index: 1 }));
    scene.world.submit(first).unwrap();
    assert_eq!(scene.world.check(&second), Err(Invalid::Replay));
}

#[test]
fn authors_are_registered_and_sign_by_current_keys() {
    let mut scene = Scene::new();
    let grant = grant_of(&scene);
    let stranger = Party { author: Author::Account(AccountId(digest("nobody"))), key: secret("nobody") };
    let body = scene.world.body(&stranger, grant);
    assert_eq!(verdict(&scene.world, &body, &[&stranger.key]), Err(Invalid::UnknownAuthor));
    let unknown =
        Party { author: Author::Institution(InstitutionId(digest("nobody"))), key: secret("nobody") };
    let request = Action::RequestAccess(Box::new(scene.ask(None)));
    let body = scene.world.body(&unknown, request);
    assert_eq!(verdict(&scene.world, &body, &[&unknown.key]), Err(Invalid::UnknownAuthor));
}

#[test]
fn operator_keys_count_within_their_validity_in_block_time() {
    let (mut world, four) = World::four();
    let (from, until) = (world.next().time, world.next().time.plus(BLOCK_MS));
    world.amend(four.bureau.institution(), |bureau: &mut Institution| {
        let mut key = bureau.keys[0].clone();
        (key.not_before, key.not_after) = (from, until);
        bureau.keys = list(vec![key]);
    });
    let new = secret("new");
    let body = world.body(&four.bureau, enrol(&four.hospital_a, &new));
    let tx = world.seal(&body, &[&four.bureau.key, &new]);
    let at = |time| check(world.state(), world.window(), &parameters(world.state()), time, &tx);
    assert_eq!(at(TimeMs(from.0 - 1)), Err(Invalid::WrongKey));
    assert_eq!(at(from), Ok(()));
    assert_eq!(at(until), Ok(()));
    assert_eq!(at(until.plus(1)), Err(Invalid::WrongKey));
}

#[test]
fn enrolment_proves_possession_of_a_sound_key() {
    let (mut world, four) = World::four();
    let (bureau, new, other) = (&four.bureau, secret("new"), secret("other"));
    let body = world.body(bureau, enrol(&four.hospital_a, &new));
    assert_eq!(verdict(&world, &body, &[&bureau.key]), Err(Invalid::MissingSignature));
    assert_eq!(verdict(&world, &body, &[&bureau.key, &other]), Err(Invalid::WrongKey));
    assert_eq!(verdict(&world, &body, &[&new, &bureau.key]), Err(Invalid::WrongKey));
    assert_eq!(verdict(&world, &body, &[&bureau.key, &new]), Ok(()));

    let mut small_order = [0; 32];
    small_order[0] = 1;
    for bytes in [small_order, [0xff; 32]] {
        let key = PublicKey(Hash(bytes));
        let action = Action::Enrol(Enrol {
            custodian: four.hospital_a.institution(),
            algorithm: assent_proto::keys::Algorithm::Ed25519,
            key,
        });
        let body = world.body(bureau, action);
        assert_eq!(verdict(&world, &body, &[&bureau.key, &new]), Err(Invalid::BadKey));
    }
}

#[test]
fn a_real_name_requester_signs_second() {
    let mut scene = Scene::new();
    let (insurer, person) = (scene.four.insurer.clone(), scene.person.clone());
    let named = |account| RequestAccess { person: Some(account), ..scene.ask(None) };
    let (hers, nobodys) = (named(person.account()), named(AccountId(digest("nobody"))));
    let body = scene.world.body(&insurer, Action::RequestAccess(Box::new(hers)));
    assert_eq!(verdict(&scene.world, &body, &[&insurer.key]), Err(Invalid::MissingSignature));
    assert_eq!(verdict(&scene.world, &body, &[&insurer.key, &insurer.key]), Err(Invalid::WrongKey));
    assert_eq!(verdict(&scene.world, &body, &[&insurer.key, &person.key]), Ok(()));
    let body = scene.world.body(&insurer, Action::RequestAccess(Box::new(nobodys)));
    assert_eq!(verdict(&scene.world, &body, &[&insurer.key, &person.key]), Err(Invalid::WrongKey));
}

#[test]
fn a_key_enrolled_in_a_block_signs_from_the_next() {
    let (mut world, four) = World::four();
    let new = secret("new");
    let body = world.body(&four.bureau, enrol(&four.hospital_a, &new));
    let enrolment = world.seal(&body, &[&four.bureau.key, &new]);
    let account = AccountId(enrolment.body_id().0);
    let party = Party { author: Author::Account(account), key: new };
    let revoke = Action::Revoke(Revoke { grant: GrantId(digest("later")) });
    let same_block = world.sign(&party, revoke);
    let refused = InvalidBlock::Transaction { index: 0, reason: Invalid::UnknownAuthor };
    assert_eq!(world.apply(&[same_block.clone(), enrolment.clone()]).map(|_| ()), Err(refused));
    world.submit(enrolment).unwrap();
    assert_eq!(world.check(&same_block), Ok(()));
}

#[test]
fn the_replay_window_forgets_what_has_expired() {
    let mut scene = Scene::new();
    assert!(scene.world.window().len() > 2);
    scene.world.wait(parameters(scene.world.state()).transaction_life_ms + BLOCK_MS);
    scene.world.block(vec![]).unwrap();
    assert!(scene.world.window().is_empty());
}
