//! Who institutions are: admission, standing, keys (R18).

use assent_ledger::preview;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::keys::{Algorithm, encryption_public};
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::Validator;
use assent_proto::{Denial, Height, Invalid, ObjectRef, SecretKey, ids::*};

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut s = Scene::new();
    let insurer = s.four.insurer.clone();
    match code {
        Denial::InstitutionSuspended => {
            let clinic = admitted(&mut s, "clinic")?;
            stand(&mut s, &clinic, Standing::Suspended)?;
            s.world.run(&clinic, item_of(7)).map(drop)
        }
        Denial::CustodianSuspended => {
            let clinic = admitted(&mut s, "clinic")?;
            s.world.run(&clinic, item_of(7))?;
            stand(&mut s, &clinic, Standing::Suspended)?;
            let ask = RequestAccess { item: ItemId::of(7, 1), account: None, ..s.ask(None) };
            s.request(&insurer, ask).map(drop)
        }
        Denial::BadKeys => rotate(&mut s, &insurer, None, None).map(drop),
        // Its validator votes.
        Denial::BadInstitution => stand(&mut s, &insurer, Standing::Suspended).map(drop),
        other => unreachable!("{other} is another module's"),
    }
}

/// Proposed by the bureau, approved by the hospitals: three of four are a quorum.
fn decide(s: &mut Scene, change: Change) -> Result<ProposalId, Denial> {
    let Four { bureau, hospital_a, hospital_b, .. } = s.four.clone();
    let proposal = propose(s, &bureau, change)?;
    approve(s, &hospital_a, proposal)?;
    approve(s, &hospital_b, proposal)?;
    Ok(proposal)
}

pub(crate) fn propose(s: &mut Scene, by: &Party, change: Change) -> Result<ProposalId, Denial> {
    let until = s.world.at().time.plus(3_600_000);
    s.world.run(by, Action::Propose(Box::new(Propose { change, until }))).map(|id| ProposalId(id.0))
}

pub(crate) fn approve(s: &mut Scene, by: &Party, proposal: ProposalId) -> Result<BodyId, Denial> {
    s.world.run(by, Action::Approve(Approve { proposal }))
}

fn key(name: &str, not_before: TimeMs, not_after: TimeMs) -> OperatorKey {
    OperatorKey { algorithm: Algorithm::Ed25519, key: secret(name).public(), not_before, not_after }
}

fn described(name: &str) -> InstitutionRecord {
    InstitutionRecord {
        roles: list(vec![Role::Hospital]),
        keys: list(vec![key(name, TimeMs(0), TimeMs(u64::MAX))]),
        encryption_key: encryption_public(&digest(name).0),
        max_level: Level::High,
        jurisdiction: JURISDICTION,
        rostered_until: None,
    }
}

/// An institution of this name, with possessions by these keys, after an edit.
fn change(s: &Scene, name: &str, keys: &[&SecretKey], edit: impl FnOnce(&mut ChangeInstitution)) -> Change {
    let institution = InstitutionId(digest(name));
    let possession = |key: &&SecretKey| {
        let message = join_message(s.world.genesis(), &institution, KeyUse::Operator, &key.public());
        Possession { key: key.public(), signature: key.sign(&message.0) }
    };
    let possessions = list(keys.iter().map(possession).collect());
    let record = Some(described(name));
    let mut change = ChangeInstitution { institution, standing: Standing::Active, record, possessions };
    edit(&mut change);
    Change::Institution(Box::new(change))
}

fn admitted(s: &mut Scene, name: &str) -> Result<Party, Denial> {
    let change = change(s, name, &[&secret(name)], |_| ());
    decide(s, change)?;
    Ok(Party { author: Author::Institution(InstitutionId(digest(name))), key: secret(name) })
}

fn standing(of: &Party, standing: Standing) -> Change {
    let (institution, possessions) = (of.institution(), list(vec![]));
    Change::Institution(Box::new(ChangeInstitution { institution, standing, record: None, possessions }))
}

fn stand(s: &mut Scene, of: &Party, to: Standing) -> Result<ProposalId, Denial> {
    decide(s, standing(of, to))
}

fn item_of(code: u32) -> Action {
    let (category, level, opening) = (Category::TestResult, Level::None, Opening::Unconditional);
    let recipients = list(vec![]);
    Action::RegisterItem(RegisterItem { code, scope: 1, category, level, opening, recipients })
}

fn rotate(
    s: &mut Scene,
    by: &Party,
    add: Option<(&SecretKey, TimeMs, TimeMs)>,
    retire: Option<&SecretKey>,
) -> Result<BodyId, Denial> {
    let new = add.map(|(k, from, to)| OperatorKey {
        algorithm: Algorithm::Ed25519,
        key: k.public(),
        not_before: from,
        not_after: to,
    });
    let action = Action::RotateOperator(RotateOperator { add: new, retire: retire.map(SecretKey::public) });
    match add {
        Some((second, ..)) => s.world.run_with(by, second, action),
        None => s.world.run(by, action),
    }
}

#[test]
fn r18_admitted_by_the_quorum_and_not_before() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, hospital_b: b, .. } = s.four.clone();
    let (id, clinic) = (InstitutionId(digest("clinic")), secret("clinic"));
    let admission = change(&s, "clinic", &[&clinic], |_| ());
    assert_eq!(preview(s.world.state(), s.world.next().height, &admission), Ok(()));
    let proposal = propose(&mut s, &bureau, admission).unwrap();
    approve(&mut s, &a, proposal).unwrap();
    let party = Party { author: Author::Institution(id), key: clinic };
    let early = s.world.sign(&party, item_of(7));
    assert_eq!(s.world.check(&early), Err(Invalid::UnknownAuthor), "two of four are no quorum");
    approve(&mut s, &b, proposal).unwrap();
    assert_eq!(s.world.kinds(id), [EventKind::Enacted, EventKind::Admitted]);
    s.world.run(&party, item_of(7)).unwrap();
}

#[test]
fn r18_who_cannot_be_is_not_admitted() {
    let mut s = Scene::new();
    let bureau = s.four.bureau.clone();
    let clinic = secret("clinic");
    let edited = |s: &Scene, edit: &dyn Fn(&mut InstitutionRecord)| {
        change(s, "clinic", &[&clinic], |c| edit(c.record.as_mut().unwrap()))
    };
    let faults: [&dyn Fn(&mut InstitutionRecord); 6] = [
        &|r| r.roles = list(vec![]),
        &|r| r.roles = list(vec![Role::Hospital, Role::Hospital]),
        &|r| r.jurisdiction = 0,
        &|r| r.jurisdiction = 1000,
        &|r| r.encryption_key = assent_proto::Hash([0; 32]),
        &|r| r.keys = list(vec![key("clinic", TimeMs(2), TimeMs(1))]),
    ];
    for (i, fault) in faults.into_iter().enumerate() {
        let change = edited(&s, fault);
        assert_eq!(propose(&mut s, &bureau, change), Err(Denial::BadInstitution), "fault {i}");
    }
    let twice = edited(&s, &|r| r.keys = list(vec![r.keys[0].clone(), r.keys[0].clone()]));
    assert_eq!(propose(&mut s, &bureau, twice), Err(Denial::BadInstitution));
    let none = change(&s, "clinic", &[], |c| c.record.as_mut().unwrap().keys = list(vec![]));
    assert_eq!(propose(&mut s, &bureau, none), Err(Denial::BadInstitution), "no key");
    let unproved = change(&s, "clinic", &[], |_| ());
    assert_eq!(propose(&mut s, &bureau, unproved), Err(Denial::MissingPossession));
    for standing in [Standing::Suspended, Standing::Expelled] {
        let change = change(&s, "clinic", &[&clinic], |c| c.standing = standing);
        assert_eq!(propose(&mut s, &bureau, change), Err(Denial::BadInstitution), "{standing:?}");
    }
    let unknown = change(&s, "clinic", &[], |c| c.record = None);
    assert_eq!(propose(&mut s, &bureau, unknown), Err(Denial::BadInstitution), "nothing is known of it");
}

#[test]
fn r18_suspended_fulfils_its_duties_alone_and_comes_back_expelled_never() {
    let mut s = Scene::new();
    let clinic = admitted(&mut s, "clinic").unwrap();
    assert_eq!(stand(&mut s, &clinic, Standing::Active), Err(Denial::BadInstitution), "nothing changes");
    stand(&mut s, &clinic, Standing::Suspended).unwrap();
    assert_eq!(s.world.run(&clinic, item_of(7)), Err(Denial::InstitutionSuspended));
    let permit = PermitId(digest("none"));
    let not = Action::NotDelivered(NotDelivered { permit });
    assert_eq!(s.world.run(&clinic, not), Err(Denial::NoSuchPermit), "a duty is judged as ever");
    let next = secret("next");
    rotate(&mut s, &clinic, Some((&next, TimeMs(0), TimeMs(u64::MAX))), None).unwrap();
    stand(&mut s, &clinic, Standing::Active).unwrap();
    s.world.run(&clinic, item_of(7)).unwrap();
    stand(&mut s, &clinic, Standing::Expelled).unwrap();
    assert_eq!(s.world.run(&clinic, item_of(8)), Err(Denial::InstitutionSuspended));
    assert_eq!(stand(&mut s, &clinic, Standing::Active), Err(Denial::BadInstitution), "for good");
    let kinds = s.world.kinds(clinic.institution());
    for kind in [EventKind::Suspended, EventKind::Reinstated, EventKind::Expelled] {
        assert_eq!(kinds.iter().filter(|k| **k == kind).count(), 1, "{kind:?}");
    }
}

#[test]
fn r18_suspension_counts_in_its_own_block_for_what_comes_after_it() {
    for before in [true, false] {
        let mut s = Scene::new();
        let Four { bureau, hospital_a: a, hospital_b: b, .. } = s.four.clone();
        let clinic = admitted(&mut s, "clinic").unwrap();
        let proposal = propose(&mut s, &bureau, standing(&clinic, Standing::Suspended)).unwrap();
        approve(&mut s, &a, proposal).unwrap();
        let last = s.world.sign(&b, Action::Approve(Approve { proposal }));
        let act = s.world.sign(&clinic, item_of(7));
        let (txs, of) = if before { (vec![act, last], 0) } else { (vec![last, act], 1) };
        let verdicts = s.world.block(txs).unwrap();
        let expected = if before { None } else { Some(Denial::InstitutionSuspended) };
        assert_eq!(verdicts[of].err(), expected);
    }
}

#[test]
fn r18_whose_validators_vote_now_or_soon_is_not_suspended_and_suspended_gets_none() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::VALIDATORS, |v: &mut Validators| {
        let leaving = v.current.clone();
        v.current.validators = list(leaving.validators[..3].to_vec());
        v.pending = Some(PendingSet { from: Height(100), set: leaving });
    });
    let mut s = Scene::in_world(world, four);
    let insurer = s.four.insurer.clone();
    for to in [Standing::Suspended, Standing::Expelled] {
        assert_eq!(stand(&mut s, &insurer, to), Err(Denial::BadInstitution), "decided to vote");
    }
    let clinic = admitted(&mut s, "clinic").unwrap();
    stand(&mut s, &clinic, Standing::Suspended).unwrap();
    let (node, network) = (secret("node"), secret("node network"));
    let admit = list(vec![admission(s.world.genesis(), clinic.institution(), &node, &network)]);
    let nodes = Change::Nodes(ChangeNodes { admit, remove: list(vec![]) });
    assert_eq!(decide(&mut s, nodes), Err(Denial::BadNodes));
}

#[test]
fn r10_no_institution_has_a_say_in_what_itself_may_do() {
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, .. } = s.four.clone();
    let before: Institution = s.world.get(a.institution());
    let with = |edit: &dyn Fn(&mut InstitutionRecord)| {
        let Institution { roles, keys, encryption_key, max_level, jurisdiction, rostered_until, .. } =
            before.clone();
        let mut record =
            InstitutionRecord { roles, keys, encryption_key, max_level, jurisdiction, rostered_until };
        edit(&mut record);
        let (institution, standing) = (a.institution(), Standing::Active);
        let (record, possessions) = (Some(record), list(vec![]));
        Change::Institution(Box::new(ChangeInstitution { institution, standing, record, possessions }))
    };
    let wider: [&dyn Fn(&mut InstitutionRecord); 3] =
        [&|r| r.roles = list(vec![Role::Hospital, Role::Regulator]), &|r| r.jurisdiction = 840, &|r| {
            r.rostered_until = r.rostered_until.map(|t| t.plus(1))
        }];
    for (i, edit) in wider.into_iter().enumerate() {
        assert_eq!(propose(&mut s, &a, with(edit)), Err(Denial::SameInstitution), "{i}");
        let proposal = propose(&mut s, &bureau, with(edit)).unwrap();
        assert_eq!(approve(&mut s, &a, proposal), Err(Denial::SameInstitution), "{i}");
    }
    let other_key = with(&|r| r.encryption_key = encryption_public(&digest("other").0));
    propose(&mut s, &a, other_key).expect("that gives it nothing");
    let less = with(&|r| r.max_level = Level::Low);
    propose(&mut s, &a, less).unwrap();
}

#[test]
fn r18_a_change_of_oneself_that_is_decided_at_once_keeps_the_list_of_proposals() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::VALIDATORS, |v: &mut Validators| {
        let power = |(i, v): (usize, &Validator)| Validator { power: [100, 1][i.min(1)], ..v.clone() };
        v.current.validators = list(v.current.validators.iter().enumerate().map(power).collect());
    });
    let mut s = Scene::in_world(world, four);
    let bureau = s.four.bureau.clone();
    let before: Institution = s.world.get(bureau.institution());
    let encryption_key = encryption_public(&digest("other").0);
    let Institution { roles, keys, max_level, jurisdiction, rostered_until, .. } = before;
    let record = InstitutionRecord { roles, keys, encryption_key, max_level, jurisdiction, rostered_until };
    let change = ChangeInstitution {
        institution: bureau.institution(),
        standing: Standing::Active,
        record: Some(record),
        possessions: list(vec![]),
    };
    let id = propose(&mut s, &bureau, Change::Institution(Box::new(change))).unwrap();
    let after: Institution = s.world.get(bureau.institution());
    assert_eq!((after.encryption_key, &after.proposals[..]), (encryption_key, &[id][..]));
}

#[test]
fn r18_operator_keys_rotate_and_one_that_counts_is_left() {
    let mut s = Scene::new();
    let insurer = s.four.insurer.clone();
    let (old, new) = (insurer.key.clone(), secret("new"));
    let far = TimeMs(u64::MAX);
    // Which windows let the new key be the only one: times are the block's.
    for (from, to, allowed) in
        [(0, 0, true), (1, 1, false), (-1, -1, false), (-1, 0, true), (0, 1, true), (1, 0, false)]
    {
        let now = s.world.next().time.0 as i64;
        let mut trial = Scene::new();
        assert_eq!(trial.world.next().time.0 as i64, now);
        let window = (&new, TimeMs((now + from) as u64), TimeMs((now + to) as u64));
        let verdict = rotate(&mut trial, &insurer, Some(window), Some(&old)).map(drop);
        assert_eq!(verdict, if allowed { Ok(()) } else { Err(Denial::BadKeys) }, "{from} to {to}");
    }
    assert_eq!(rotate(&mut s, &insurer, None, Some(&old)), Err(Denial::BadKeys), "none would be left");
    assert_eq!(rotate(&mut s, &insurer, None, Some(&new)), Err(Denial::BadKeys), "not there");
    assert_eq!(rotate(&mut s, &insurer, Some((&old, TimeMs(0), far)), None), Err(Denial::BadKeys), "there");
    rotate(&mut s, &insurer, Some((&new, TimeMs(0), far)), None).unwrap();
    let renewed = Party { key: new.clone(), ..insurer.clone() };
    rotate(&mut s, &renewed, None, Some(&old)).unwrap();
    let tx = s.world.sign(&insurer, item_of(7));
    assert_eq!(s.world.check(&tx), Err(Invalid::WrongKey), "the old key is gone");
    for i in 0..7 {
        rotate(&mut s, &renewed, Some((&secret(&i.to_string()), TimeMs(0), far)), None).unwrap();
    }
    let ninth = secret("ninth");
    assert_eq!(rotate(&mut s, &renewed, Some((&ninth, TimeMs(0), far)), None), Err(Denial::BadKeys));
    rotate(&mut s, &renewed, Some((&ninth, TimeMs(0), far)), Some(&new)).expect("one comes as one goes");
    let rotated = s.world.kinds(insurer.institution());
    assert_eq!(rotated.iter().filter(|k| **k == EventKind::OperatorRotated).count(), 10);
}
