//! Who may be in a block at all.

use assent_ledger::testing::*;
use assent_ledger::{InvalidBlock, check, parameters};
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::keys::{Algorithm, PublicKey};
use assent_proto::state::{Institution, OperatorKey};
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
fn r2_persons_and_institutions_each_do_what_is_theirs() {
    let mut scene = Scene::new();
    let (person, bureau, new) = (scene.person.clone(), scene.four.bureau.clone(), secret("new"));
    let (grant, delegation) = (GrantId(digest("grant")), DelegationId(digest("delegation")));
    let revoked = DelegationEnd::Revoked;
    // The action, the second signature that it needs, whether a person may ask for it, and an institution.
    let actions = [
        (grant_of(&scene), None, true, false),
        (Action::Revoke(Revoke { grant }), None, true, false),
        (crate::identity::rotation(&new), Some(&new), true, false),
        (crate::identity::veto(&new), None, true, false),
        (Action::Ratify(Ratify { grant }), None, true, false),
        (Action::EndDelegation(EndDelegation { delegation, cause: revoked }), None, true, true),
        (crate::identity::recovery(person.account(), &new, false), Some(&new), false, true),
        (enrol(&scene.four.hospital_a, &new), Some(&new), false, true),
        (Action::RequestAccess(Box::new(scene.ask(None))), None, false, true),
    ];
    for (action, second, persons, institutions) in actions {
        for (by, may) in [(&person, persons), (&bureau, institutions)] {
            let body = scene.world.body(by, action.clone());
            let keys: Vec<_> = [Some(&by.key), second].into_iter().flatten().collect();
            let expected = if may { Ok(()) } else { Err(Invalid::WrongKey) };
            assert_eq!(
                verdict(&scene.world, &body, &keys),
                expected,
                "{:?} by {:?}",
                action.kind(),
                by.author
            );
        }
    }
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
        check(state, window, &parameters(state), 1, last, &tx),
        Err(Invalid::Replay),
        "at its last moment"
    );
    assert_eq!(check(state, window, &parameters(state), 1, last.plus(1), &tx), Err(Invalid::Expired));
}

#[test]
fn what_a_version_brought_is_in_no_block_before_it_is_in_force() {
    let mut scene = Scene::new();
    let (person, bureau, grant) = (scene.person.clone(), scene.four.bureau.clone(), grant_of(&scene));
    let time = scene.world.next().time;
    let protocol = Change::Protocol(ChangeProtocol { version: 2, from: Height(50) });
    let propose = Action::Propose(Box::new(Propose { change: protocol, until: time.plus(1000) }));
    for tx in [scene.world.sign(&person, grant), scene.world.sign(&bureau, propose)] {
        let (state, window) = (scene.world.state(), scene.world.window());
        let at = |version| check(state, window, &parameters(state), version, time, &tx);
        let since = tx.body().since();
        assert_eq!((at(since - 1), at(since), at(since + 1)), (Err(Invalid::NotYetActive), Ok(()), Ok(())));
    }
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
    let at = |time| check(world.state(), world.window(), &parameters(world.state()), 1, time, &tx);
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
            algorithm: Algorithm::Ed25519,
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

#[test]
fn r16_r18_a_key_that_comes_signs_second_and_is_sound() {
    let mut scene = Scene::new();
    let (person, bureau) = (scene.person.clone(), scene.four.bureau.clone());
    let (new, other) = (secret("new"), secret("other"));
    let mut small_order = [0; 32];
    small_order[0] = 1;
    type Make = fn(PublicKey, AccountId) -> Action;
    let rotate: Make = |key, _| Action::RotateKey(RotateKey { algorithm: Algorithm::Ed25519, key });
    let recover: Make = |key, account| {
        Action::Recover(Recover { account, algorithm: Algorithm::Ed25519, key, in_person: false })
    };
    let operator: Make = |key, _| {
        let algorithm = Algorithm::Ed25519;
        let key = OperatorKey { algorithm, key, not_before: TimeMs(0), not_after: TimeMs(u64::MAX) };
        Action::RotateOperator(RotateOperator { add: Some(key), retire: None })
    };
    for (by, make) in [(&person, rotate), (&bureau, recover), (&bureau, operator)] {
        let body = scene.world.body(by, make(new.public(), person.account()));
        assert_eq!(verdict(&scene.world, &body, &[&by.key]), Err(Invalid::MissingSignature));
        assert_eq!(verdict(&scene.world, &body, &[&by.key, &other]), Err(Invalid::WrongKey));
        assert_eq!(verdict(&scene.world, &body, &[&by.key, &by.key]), Err(Invalid::WrongKey));
        assert_eq!(verdict(&scene.world, &body, &[&new, &by.key]), Err(Invalid::WrongKey));
        assert_eq!(verdict(&scene.world, &body, &[&by.key, &new]), Ok(()));
        for bytes in [small_order, [0xff; 32]] {
            let body = scene.world.body(by, make(PublicKey(Hash(bytes)), person.account()));
            assert_eq!(verdict(&scene.world, &body, &[&by.key, &new]), Err(Invalid::BadKey));
        }
    }
    let retire = RotateOperator { add: None, retire: Some(bureau.key.public()) };
    let body = scene.world.body(&bureau, Action::RotateOperator(retire));
    assert_eq!(verdict(&scene.world, &body, &[&bureau.key, &bureau.key]), Err(Invalid::MissingSignature));
    assert_eq!(verdict(&scene.world, &body, &[&bureau.key]), Ok(()));
}

#[test]
fn r15_a_proxys_ward_signs_second_and_a_guardian() {
    let mut scene = Scene::new();
    let (bureau, a, ward) = (scene.four.bureau.clone(), scene.four.hospital_a.clone(), scene.person.clone());
    let delegate = scene.world.enrol(&bureau, &a, "delegate");
    for (capacity, signs, other) in [
        (Capacity::Proxy, &ward, &delegate),
        (Capacity::Guardian, &delegate, &ward),
        (Capacity::Own, &ward, &delegate),
    ] {
        let (document, purposes) = (digest("document"), list(vec![Purpose::Treatment]));
        let (ward, delegate, until) = (ward.account(), delegate.account(), TimeMs(0));
        let asked = Delegate { ward, delegate, capacity, document, purposes, until };
        let body = scene.world.body(&bureau, Action::Delegate(asked.clone()));
        assert_eq!(verdict(&scene.world, &body, &[&bureau.key]), Err(Invalid::MissingSignature));
        assert_eq!(verdict(&scene.world, &body, &[&bureau.key, &other.key]), Err(Invalid::WrongKey));
        assert_eq!(verdict(&scene.world, &body, &[&bureau.key, &bureau.key]), Err(Invalid::WrongKey));
        assert_eq!(verdict(&scene.world, &body, &[&bureau.key, &signs.key]), Ok(()));
        let nobody = AccountId(digest("nobody"));
        let unknown = Delegate { ward: nobody, delegate: nobody, ..asked };
        let body = scene.world.body(&bureau, Action::Delegate(unknown));
        assert_eq!(verdict(&scene.world, &body, &[&bureau.key, &signs.key]), Err(Invalid::WrongKey));
    }
}

#[test]
fn r17_r41_an_operator_of_the_other_institution_signs_second_while_its_key_is_valid() {
    let (mut world, four) = World::four();
    let (from, until) = (TimeMs(1_767_225_700_000), TimeMs(1_767_225_800_000));
    world.amend(four.insurer.institution(), |insurer: &mut Institution| {
        let mut key = insurer.keys[0].clone();
        (key.not_before, key.not_after) = (from, until);
        insurer.keys = list(vec![key]);
    });
    let mut scene = Scene::in_world(world, four);
    let Four { bureau, hospital_a, insurer, .. } = scene.four.clone();
    let anchored = |requester| {
        Action::AnchorEmergency(Box::new(AnchorEmergency {
            requester,
            item: scene.item,
            account: scene.person.account(),
            reason: EmergencyReason::Unconscious,
            action: UseAction::Read,
            output: Output::Raw,
            records: list(scene.records[..1].to_vec()),
            staff: Commitment(digest("staff")),
            released_at: TimeMs(0),
            package: digest("package"),
        }))
    };
    let ordered = |cosigner| {
        Action::IssueOrder(Box::new(IssueOrder {
            basis: OrderBasis::Court,
            document: digest("order"),
            beneficiary: hospital_a.institution(),
            cosigner,
            account: None,
            items: list(vec![scene.item]),
            categories: list(vec![]),
            data_from: Day(0),
            data_to: Day(1),
            actions: list(vec![UseAction::Read]),
            output: Output::Raw,
            max_level: Level::High,
            not_after: until,
            notice_from: TimeMs(0),
        }))
    };
    let nobody = InstitutionId(digest("nobody"));
    let cases = [
        (&hospital_a, anchored(insurer.institution()), anchored(nobody)),
        (&bureau, ordered(insurer.institution()), ordered(nobody)),
    ];
    for (by, action, unknown) in cases {
        let sealed = |scene: &mut Scene, action: &Action, keys: &[&assent_proto::SecretKey]| {
            let body = scene.world.body(by, action.clone());
            scene.world.seal(&Body { expires_at: until.plus(1), ..body }, keys)
        };
        let at = |scene: &Scene, time, tx: &_| {
            check(scene.world.state(), scene.world.window(), &parameters(scene.world.state()), 1, time, tx)
        };
        let alone = sealed(&mut scene, &action, &[&by.key]);
        assert_eq!(at(&scene, from, &alone), Err(Invalid::MissingSignature));
        let own = sealed(&mut scene, &action, &[&by.key, &by.key]);
        assert_eq!(at(&scene, from, &own), Err(Invalid::WrongKey));
        let both = sealed(&mut scene, &action, &[&by.key, &insurer.key]);
        assert_eq!(at(&scene, TimeMs(from.0 - 1), &both), Err(Invalid::WrongKey));
        assert_eq!(at(&scene, from, &both), Ok(()));
        assert_eq!(at(&scene, until, &both), Ok(()));
        assert_eq!(at(&scene, until.plus(1), &both), Err(Invalid::WrongKey));
        let unknown = sealed(&mut scene, &unknown, &[&by.key, &insurer.key]);
        assert_eq!(at(&scene, from, &unknown), Err(Invalid::WrongKey));
    }
}
