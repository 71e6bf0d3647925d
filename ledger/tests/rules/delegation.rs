//! Guardians and proxies (R15).

use assent_ledger::InvalidBlock;
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::keys::SecretKey;
use assent_proto::state::{Account, Delegation, GrantState, Institution, Role};
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, ids::*};

use crate::identity::{recovery, rotation, sign_with, until_next_is, veto};
use crate::protocol::second_version;

/// 2026-04-01T00:00:00Z: the sandbox's chains begin on the first of January.
const APRIL: TimeMs = TimeMs(1_775_001_600_000);
/// 2051-01-01T00:00:00Z, a hundred quarters after the first of 2026.
const LAST: TimeMs = TimeMs(2_556_144_000_000);

/// The scene's person, who has a delegate; the insurer is a court besides.
pub(crate) struct Pair {
    pub(crate) s: Scene,
    pub(crate) delegate: Party,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let (mut world, four) = World::four();
        world.amend(four.insurer.institution(), |i: &mut Institution| {
            i.roles = list(vec![Role::Insurer, Role::Court]);
        });
        let mut s = Scene::in_world(world, four);
        let delegate = s.person("delegate");
        Pair { s, delegate }
    }

    /// With a delegation until April.
    fn delegated(capacity: Capacity) -> (Pair, DelegationId) {
        let mut pair = Pair::new();
        let asked = pair.ask(capacity);
        let bureau = pair.s.four.bureau.clone();
        let id = pair.confirm(&bureau, asked).unwrap();
        (pair, id)
    }

    fn ask(&self, capacity: Capacity) -> Delegate {
        Delegate {
            ward: self.s.person.account(),
            delegate: self.delegate.account(),
            capacity,
            document: digest("power of attorney"),
            purposes: list(vec![Purpose::ClaimsPayment, Purpose::Treatment]),
            until: APRIL,
        }
    }

    /// Whoever must sign besides: a proxy's ward, a guardian.
    fn signer(&self, asked: &Delegate) -> SecretKey {
        let guardian = asked.capacity == Capacity::Guardian;
        if guardian { self.delegate.key.clone() } else { self.s.person.key.clone() }
    }

    fn confirm(&mut self, by: &Party, asked: Delegate) -> Result<DelegationId, Denial> {
        let signer = self.signer(&asked);
        self.s.world.run_with(by, &signer, Action::Delegate(asked)).map(|id| DelegationId(id.0))
    }

    pub(crate) fn terms(&self, delegation: DelegationId, capacity: Capacity) -> Grant {
        Grant { delegation: Some(delegation), capacity, ..self.s.terms() }
    }

    fn grant(&mut self, terms: Grant) -> Result<GrantId, Denial> {
        let delegate = self.delegate.clone();
        self.s.grant_by(&delegate, terms)
    }

    fn end(&mut self, by: &Party, delegation: DelegationId, cause: DelegationEnd) -> Result<BodyId, Denial> {
        self.s.world.run(by, Action::EndDelegation(EndDelegation { delegation, cause }))
    }

    fn ratify(&mut self, grant: GrantId) -> Result<BodyId, Denial> {
        let ward = self.s.person.clone();
        self.s.world.run(&ward, Action::Ratify(Ratify { grant }))
    }

    fn in_force(&self, id: DelegationId) -> bool {
        self.s.world.get::<Delegation>(id).is_in_force(self.s.world.at().time)
    }

    fn insurer_asks(&mut self, grant: GrantId) -> Result<(), Denial> {
        let insurer = self.s.four.insurer.clone();
        self.s.request(&insurer, self.s.ask(Some(grant))).map(drop)
    }
}

trait Persons {
    fn person(&mut self, name: &str) -> Party;
    fn grant_by(&mut self, by: &Party, terms: Grant) -> Result<GrantId, Denial>;
}

impl Persons for Scene {
    fn person(&mut self, name: &str) -> Party {
        let (bureau, a) = (self.four.bureau.clone(), self.four.hospital_a.clone());
        self.world.enrol(&bureau, &a, name)
    }

    fn grant_by(&mut self, by: &Party, terms: Grant) -> Result<GrantId, Denial> {
        self.world.run(by, Action::Grant(Box::new(terms))).map(|id| GrantId(id.0))
    }
}

const BOTH: [Capacity; 2] = [Capacity::Guardian, Capacity::Proxy];

#[test]
fn r15_a_delegate_grants_for_the_ward_whose_grant_it_is() {
    for capacity in BOTH {
        let (mut pair, id) = Pair::delegated(capacity);
        let (ward, delegate) = (pair.s.person.account(), pair.delegate.account());
        for trail in [ObjectRef::from(id), ward.into(), delegate.into()] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&EventKind::Delegated), "{trail:?}");
        }
        pair.s.settle();
        let grant = pair.grant(pair.terms(id, capacity)).unwrap();
        let state: GrantState = pair.s.world.get(grant);
        assert_eq!((state.account, state.signer, state.ratified), (ward, delegate, false));
        for trail in [ObjectRef::from(id), grant.into(), ward.into(), delegate.into()] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&EventKind::Granted), "{trail:?}");
        }
        assert_eq!(pair.insurer_asks(grant), Ok(()), "{capacity:?}");
        let guardianships = pair.s.world.get::<Account>(ward).guardianships;
        assert_eq!(guardianships.first().copied(), (capacity == Capacity::Guardian).then_some(id));
    }
}

#[test]
fn r15_a_delegate_keeps_to_the_delegation() {
    for capacity in BOTH {
        let (mut pair, id) = Pair::delegated(capacity);
        let terms = pair.terms(id, capacity);
        let other = if capacity == Capacity::Proxy { Capacity::Guardian } else { Capacity::Proxy };
        for (name, unfit) in [
            ("another capacity", Grant { capacity: other, ..terms.clone() }),
            ("her own", Grant { capacity: Capacity::Own, ..terms.clone() }),
            ("another purpose", Grant { purpose: Purpose::Research, ..terms.clone() }),
        ] {
            assert_eq!(pair.grant(unfit), Err(Denial::NotTheDelegate), "{name}");
        }
        let unknown = Grant { delegation: Some(DelegationId(digest("none"))), ..terms.clone() };
        assert_eq!(pair.grant(unknown), Err(Denial::NoSuchDelegation));
        let (ward, stranger) = (pair.s.person.clone(), pair.s.person("stranger"));
        for by in [ward, stranger] {
            assert_eq!(pair.s.grant_by(&by, terms.clone()), Err(Denial::NotTheDelegate));
        }
        let without = Grant { delegation: None, ..terms.clone() };
        assert_eq!(pair.grant(without), Err(Denial::BadTerms));
        let second = Grant { purpose: Purpose::Treatment, ..terms };
        assert!(pair.grant(second).is_ok(), "each of the purposes");
    }
}

#[test]
fn r15_a_delegation_says_something_that_can_be() {
    type Edit = fn(&mut Delegate);
    let edits: [(&str, Edit); 4] = [
        ("for oneself", |d| d.capacity = Capacity::Own),
        ("to oneself", |d| d.delegate = d.ward),
        ("for nothing", |d| d.purposes = list(vec![])),
        ("twice for one", |d| d.purposes = list(vec![Purpose::Legal, Purpose::Research, Purpose::Legal])),
    ];
    let mut pair = Pair::new();
    let bureau = pair.s.four.bureau.clone();
    for (name, edit) in edits {
        let mut asked = pair.ask(Capacity::Proxy);
        edit(&mut asked);
        assert_eq!(pair.confirm(&bureau, asked), Err(Denial::BadTerms), "{name}");
    }
    let nobody = Delegate { delegate: AccountId(digest("nobody")), ..pair.ask(Capacity::Proxy) };
    assert_eq!(pair.confirm(&bureau, nobody), Err(Denial::NoSuchAccount));
    let nobodys = Delegate { ward: AccountId(digest("nobody")), ..pair.ask(Capacity::Guardian) };
    assert_eq!(pair.confirm(&bureau, nobodys), Err(Denial::NoSuchAccount));
}

#[test]
fn r15_who_knows_the_wards_papers_confirms_and_a_court_names_guardians() {
    // The bureau enrolled her, hospital A is her custodian, hospital B neither, the insurer is a court.
    for (capacity, court) in [(Capacity::Guardian, Ok(())), (Capacity::Proxy, Err(Denial::NotPermittedRole))]
    {
        let mut pair = Pair::new();
        let Four { bureau, hospital_a, hospital_b, insurer } = pair.s.four.clone();
        let asked = pair.ask(capacity);
        assert_eq!(pair.confirm(&hospital_b, asked.clone()), Err(Denial::NotPermittedRole));
        assert_eq!(pair.confirm(&insurer, asked.clone()).map(drop), court);
        assert!(pair.confirm(&bureau, asked.clone()).is_ok());
        assert!(pair.confirm(&hospital_a, asked).is_ok());
    }
}

#[test]
fn r15_a_custodian_that_is_no_hospital_confirms_nothing() {
    let mut pair = Pair::new();
    let (bureau, insurer, delegate) =
        (pair.s.four.bureau.clone(), pair.s.four.insurer.clone(), pair.delegate.clone());
    let ward = pair.s.world.enrol(&bureau, &insurer, "the insurer's");
    let asked = Delegate { ward: ward.account(), ..pair.ask(Capacity::Proxy) };
    let confirm = |pair: &mut Pair, by: &Party| {
        pair.s.world.run_with(by, &ward.key, Action::Delegate(asked.clone())).map(drop)
    };
    assert_eq!(confirm(&mut pair, &insurer), Err(Denial::NotPermittedRole));
    assert_eq!(confirm(&mut pair, &bureau), Ok(()));
    assert_ne!(ward.account(), delegate.account());
}

#[test]
fn r15_it_ends_with_a_quarter_to_come_of_at_most_25_years() {
    let may_first = TimeMs(APRIL.0 + 30 * 86_400_000);
    let now = |pair: &Pair| pair.s.world.next().time;
    let started: fn(&Pair) -> TimeMs = |_| TimeMs(1_767_225_600_000);
    for (name, until, fit) in [
        ("April", (|_| APRIL) as fn(&Pair) -> TimeMs, true),
        ("before April", |_| TimeMs(APRIL.0 - 1), false),
        ("after April's begin", |_| APRIL.plus(1), false),
        ("the last one", |_| LAST, true),
        ("before the last one", |_| TimeMs(LAST.0 - 1), false),
        ("the one after the last", |_| LAST.plus(90 * 86_400_000), false),
        ("this one", started, false),
        ("the end of time", |_| TimeMs(u64::MAX), false),
        ("the beginning", |_| TimeMs(0), false),
    ] {
        let mut pair = Pair::new();
        let (bureau, until) = (pair.s.four.bureau.clone(), until(&pair));
        let asked = Delegate { until, ..pair.ask(Capacity::Proxy) };
        let expected = if fit { Ok(()) } else { Err(Denial::DelegationEndUnfit) };
        assert_eq!(pair.confirm(&bureau, asked).map(drop), expected, "{name}");
    }
    let mut pair = Pair::new();
    let (bureau, asked) = (pair.s.four.bureau.clone(), pair.ask(Capacity::Proxy));
    assert_eq!(
        pair.confirm(&bureau, Delegate { until: may_first, ..asked }),
        Err(Denial::DelegationEndUnfit)
    );
    for (time, fit) in [(APRIL.0 - 1, true), (APRIL.0, false), (APRIL.0 + 1, false)] {
        let mut pair = Pair::new();
        until_next_is(&mut pair.s.world, TimeMs(time));
        let asked = pair.ask(Capacity::Proxy);
        assert_eq!(now(&pair), TimeMs(time));
        assert_eq!(pair.confirm(&bureau, asked).is_ok(), fit, "{time}");
    }
}

#[test]
fn r15_a_ward_does_not_act_for_others() {
    let (mut pair, _) = Pair::delegated(Capacity::Guardian);
    let (bureau, third) = (pair.s.four.bureau.clone(), pair.s.person("third"));
    // Her own ward, and one whose proxy she is to be.
    let chain =
        Delegate { ward: third.account(), delegate: pair.s.person.account(), ..pair.ask(Capacity::Proxy) };
    let confirm = |pair: &mut Pair, asked: &Delegate| {
        pair.s.world.run_with(&bureau, &third.key, Action::Delegate(asked.clone())).map(drop)
    };
    assert_eq!(confirm(&mut pair, &chain), Err(Denial::DelegationChain));
    let later = Delegate { until: LAST, ..chain.clone() };
    until_next_is(&mut pair.s.world, TimeMs(APRIL.0 - 1));
    assert_eq!(confirm(&mut pair, &later), Err(Denial::DelegationChain));
    until_next_is(&mut pair.s.world, APRIL.plus(BLOCK_MS));
    assert_eq!(confirm(&mut pair, &later), Ok(()), "once she is of age");
}

#[test]
fn r15_who_becomes_a_ward_grants_for_nobody_any_more() {
    let (mut pair, id) = Pair::delegated(Capacity::Proxy);
    let (bureau, third) = (pair.s.four.bureau.clone(), pair.s.person("third"));
    let terms = pair.terms(id, Capacity::Proxy);
    assert!(pair.grant(terms.clone()).is_ok());
    let guarded =
        Delegate { ward: pair.delegate.account(), delegate: third.account(), ..pair.ask(Capacity::Guardian) };
    let guardianship = pair.s.world.run_with(&bureau, &third.key, Action::Delegate(guarded)).unwrap();
    assert_eq!(pair.grant(terms.clone()), Err(Denial::DelegationChain));
    pair.end(&third, DelegationId(guardianship.0), DelegationEnd::Revoked).unwrap();
    assert!(pair.grant(terms).is_ok());
}

#[test]
fn r15_under_version_1_of_two_guardianships_the_longer_shows() {
    let (mut pair, short) = Pair::delegated(Capacity::Guardian);
    let (bureau, ward) = (pair.s.four.bureau.clone(), pair.s.person.account());
    let shown = |pair: &Pair| pair.s.world.get::<Account>(ward).guardianships.first().copied();
    let asked = pair.ask(Capacity::Guardian);
    let long = pair.confirm(&bureau, Delegate { until: LAST, ..asked.clone() }).unwrap();
    assert_eq!(shown(&pair), Some(long));
    let again = pair.confirm(&bureau, asked.clone()).unwrap();
    assert_eq!(shown(&pair), Some(long), "a shorter one hides nothing");
    assert!(pair.in_force(short) && pair.in_force(again));
    let equal = pair.confirm(&bureau, Delegate { until: LAST, ..asked.clone() }).unwrap();
    assert_eq!(shown(&pair), Some(equal), "of two alike the later");
    let guardian = pair.delegate.clone();
    pair.end(&guardian, equal, DelegationEnd::Revoked).unwrap();
    let next = pair.confirm(&bureau, asked).unwrap();
    assert_eq!(shown(&pair), Some(next), "one that has ended gives way");
}

#[test]
fn r15_whoever_has_one_guardian_left_is_a_ward() {
    let (mut pair, id) = Pair::delegated(Capacity::Proxy);
    let (bureau, third) = (pair.s.four.bureau.clone(), pair.s.person("third"));
    let terms = pair.terms(id, Capacity::Proxy);
    let ward = pair.delegate.account();
    second_version(&mut pair.s);
    let guard = |pair: &mut Pair, until| {
        let asked = Delegate { ward, delegate: third.account(), until, ..pair.ask(Capacity::Guardian) };
        let id = pair.s.world.run_with(&bureau, &third.key, Action::Delegate(asked)).unwrap();
        DelegationId(id.0)
    };
    let (long, short) = (guard(&mut pair, LAST), guard(&mut pair, APRIL));
    pair.end(&third, long, DelegationEnd::Revoked).unwrap();
    assert_eq!(pair.grant(terms.clone()), Err(Denial::DelegationChain), "the one that lasts longer is over");
    pair.end(&third, short, DelegationEnd::Revoked).unwrap();
    assert!(pair.grant(terms.clone()).is_ok(), "both are");
    // What is over makes room; of nine in force the eight that last longest show.
    for _ in 0..9 {
        guard(&mut pair, APRIL);
    }
    let last = guard(&mut pair, LAST);
    let shown = pair.s.world.get::<Account>(ward).guardianships;
    assert_eq!((shown.len(), shown.first()), (8, Some(&last)));
    assert!(!shown.contains(&long) && !shown.contains(&short));
}

#[test]
fn r15_a_key_in_dispute_delegates_nothing() {
    for capacity in BOTH {
        let mut pair = Pair::new();
        let (bureau, asked) = (pair.s.four.bureau.clone(), pair.ask(capacity));
        let signs = if capacity == Capacity::Guardian { asked.delegate } else { asked.ward };
        let other = if capacity == Capacity::Guardian { asked.ward } else { asked.delegate };
        let new = secret("new");
        pair.s.world.run_with(&bureau, &new, recovery(other, &new, false)).unwrap();
        assert!(pair.confirm(&bureau, asked.clone()).is_ok(), "the other's dispute is not the signer's");
        pair.s.world.run_with(&bureau, &new, recovery(signs, &new, false)).unwrap();
        assert_eq!(pair.confirm(&bureau, asked), Err(Denial::AccountFrozen));
    }
}

#[test]
fn r15_a_delegates_key_in_dispute_grants_nothing_and_a_wards_does_not_matter() {
    let (mut pair, id) = Pair::delegated(Capacity::Guardian);
    let (bureau, ward, delegate, new) =
        (pair.s.four.bureau.clone(), pair.s.person.clone(), pair.delegate.clone(), secret("new"));
    let terms = pair.terms(id, Capacity::Guardian);
    pair.s.world.run_with(&bureau, &new, recovery(ward.account(), &new, false)).unwrap();
    pair.s.world.run(&ward, veto(&new)).unwrap();
    assert!(pair.s.world.get::<Account>(ward.account()).frozen);
    assert!(pair.grant(terms.clone()).is_ok());
    pair.s.world.run_with(&bureau, &new, recovery(delegate.account(), &new, false)).unwrap();
    assert_eq!(pair.grant(terms), Err(Denial::AccountFrozen));
}

#[test]
fn r15_in_the_block_of_a_rotation_the_old_key_delegates_nothing() {
    for capacity in BOTH {
        let mut pair = Pair::new();
        let (bureau, asked, new) = (pair.s.four.bureau.clone(), pair.ask(capacity), secret("new"));
        let (signer, key) = (
            if capacity == Capacity::Guardian { pair.delegate.clone() } else { pair.s.person.clone() },
            pair.signer(&asked),
        );
        let rotate = sign_with(&mut pair.s.world, &signer, &new, rotation(&new));
        let confirm = sign_with(&mut pair.s.world, &bureau, &key, Action::Delegate(asked));
        let order = pair.s.world.apply(&[confirm.clone(), rotate.clone()]).map(drop);
        assert_eq!(order, Err(InvalidBlock::PhaseOrder { index: 1 }));
        let verdicts = pair.s.world.block(vec![rotate.clone(), confirm]).unwrap();
        assert_eq!(verdicts, [Ok(rotate.body_id()), Err(Denial::KeyReplaced)], "{capacity:?}");
    }
}

/// Who ends a delegation, and why, and whether that is theirs to do.
fn enders(pair: &mut Pair) -> Vec<(&'static str, Party, DelegationEnd, bool)> {
    use DelegationEnd::{Court, Death, Revoked};
    let Four { bureau, hospital_a, insurer: court, .. } = pair.s.four.clone();
    let (ward, delegate, stranger) =
        (pair.s.person.clone(), pair.delegate.clone(), pair.s.person("stranger"));
    vec![
        ("ward", ward.clone(), Revoked, true),
        ("ward", ward.clone(), Death, false),
        ("ward", ward, Court, false),
        ("delegate", delegate.clone(), Revoked, true),
        ("delegate", delegate.clone(), Death, false),
        ("delegate", delegate, Court, false),
        ("stranger", stranger, Revoked, false),
        ("issuer", bureau.clone(), Revoked, false),
        ("issuer", bureau.clone(), Death, true),
        ("issuer", bureau, Court, true),
        ("custodian", hospital_a.clone(), Death, false),
        ("custodian", hospital_a, Court, false),
        ("court", court.clone(), Revoked, false),
        ("court", court.clone(), Death, true),
        ("court", court, Court, true),
    ]
}

#[test]
fn r15_each_end_suspends_its_grants_until_the_ward_ratifies() {
    for i in 0..15 {
        let (mut pair, id) = Pair::delegated(Capacity::Guardian);
        pair.s.settle();
        let (name, by, cause, fit) = enders(&mut pair).remove(i);
        let terms = pair.terms(id, Capacity::Guardian);
        let (grant, ward) = (pair.grant(terms.clone()).unwrap(), pair.s.person.account());
        let ended = pair.end(&by, id, cause).map(drop);
        if !fit {
            assert_eq!(ended, Err(Denial::DelegationEndUnfit), "{name} {cause:?}");
            assert!(pair.in_force(id));
            continue;
        }
        assert_eq!(ended, Ok(()), "{name} {cause:?}");
        let at = pair.s.world.at();
        let state = pair.s.world.get::<Delegation>(id).ended.unwrap();
        assert_eq!((state.cause, state.height, state.time), (cause, at.height, at.time));
        for trail in [ObjectRef::from(id), ward.into(), pair.delegate.account().into(), by_ref(&by)] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&EventKind::DelegationEnded), "{name}");
        }
        assert_eq!(pair.end(&by, id, cause), Err(Denial::AlreadyEnded));
        assert_eq!(pair.grant(terms), Err(Denial::DelegationOver));
        assert_eq!(pair.insurer_asks(grant), Err(Denial::DelegationOver), "{name} {cause:?}");

        pair.ratify(grant).unwrap();
        let insurer = pair.s.four.insurer.institution();
        for trail in [ObjectRef::from(grant), ward.into(), pair.delegate.account().into(), insurer.into()] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&EventKind::Ratified), "{name}");
        }
        assert_eq!(pair.insurer_asks(grant), Ok(()), "{name} {cause:?}");
    }
}

fn by_ref(party: &Party) -> ObjectRef {
    match party.author {
        Author::Institution(id) => id.into(),
        Author::Account(id) => id.into(),
    }
}

#[test]
fn r15_at_its_date_it_is_over_by_itself() {
    for (time, over) in [(APRIL.0 - 1, false), (APRIL.0, true), (APRIL.0 + 1, true)] {
        let verdict = |ok: bool, denial| if ok { Ok(()) } else { Err(denial) };
        let granted = || {
            let (mut pair, id) = Pair::delegated(Capacity::Proxy);
            pair.s.settle();
            let terms = Grant { not_after: LAST, ..pair.terms(id, Capacity::Proxy) };
            let grant = pair.grant(terms.clone()).unwrap();
            until_next_is(&mut pair.s.world, TimeMs(time));
            (pair, id, terms, grant)
        };
        let (mut pair, _, terms, _) = granted();
        assert_eq!(pair.grant(terms).map(drop), verdict(!over, Denial::DelegationOver), "grant at {time}");
        let (mut pair, _, _, grant) = granted();
        assert_eq!(pair.insurer_asks(grant), verdict(!over, Denial::DelegationOver), "use at {time}");
        let (mut pair, id, _, _) = granted();
        let ward = pair.s.person.clone();
        let ended = pair.end(&ward, id, DelegationEnd::Revoked).map(drop);
        assert_eq!(ended, verdict(!over, Denial::AlreadyEnded), "end at {time}");
        let (mut pair, _, _, grant) = granted();
        assert_eq!(pair.ratify(grant).map(drop), verdict(over, Denial::NothingToRatify), "ratify at {time}");
        assert_eq!(pair.s.world.get::<GrantState>(grant).ratified, over);
    }
}

#[test]
fn r15_the_ward_ratifies_what_lapsed_once() {
    let (mut pair, id) = Pair::delegated(Capacity::Guardian);
    pair.s.settle();
    let terms = pair.terms(id, Capacity::Guardian);
    let (hers, revoked) = (pair.grant(terms.clone()).unwrap(), pair.grant(terms).unwrap());
    let own = pair.s.grant(pair.s.terms()).unwrap();
    let (ward, delegate) = (pair.s.person.clone(), pair.delegate.clone());
    assert_eq!(pair.ratify(own), Err(Denial::NothingToRatify));
    assert_eq!(pair.ratify(GrantId(digest("none"))), Err(Denial::NoSuchGrant));
    pair.s.revoke(revoked).unwrap();
    pair.end(&delegate, id, DelegationEnd::Revoked).unwrap();
    assert_eq!(pair.ratify(revoked), Err(Denial::NothingToRatify), "what was withdrawn stays so");
    let others = Action::Ratify(Ratify { grant: hers });
    assert_eq!(pair.s.world.run(&delegate, others), Err(Denial::NotTheGrantor));
    pair.ratify(hers).unwrap();
    assert_eq!(pair.ratify(hers), Err(Denial::NothingToRatify));
    // And she can withdraw it still.
    pair.s.world.run(&ward, Action::Revoke(Revoke { grant: hers })).unwrap();
    assert_eq!(pair.insurer_asks(hers), Err(Denial::GrantRevoked));
}

#[test]
fn r15_a_key_in_dispute_ends_a_delegation_and_ratifies_nothing() {
    let (mut pair, id) = Pair::delegated(Capacity::Guardian);
    let terms = pair.terms(id, Capacity::Guardian);
    let grant = pair.grant(terms).unwrap();
    let (ward, bureau, new) = (pair.s.person.clone(), pair.s.four.bureau.clone(), secret("new"));
    pair.s.world.run_with(&bureau, &new, recovery(ward.account(), &new, false)).unwrap();
    pair.end(&ward, id, DelegationEnd::Revoked).unwrap();
    assert_eq!(pair.ratify(grant), Err(Denial::AccountFrozen));
}

#[test]
fn r15_no_such_delegation_ends() {
    let (mut pair, _) = Pair::delegated(Capacity::Guardian);
    let ward = pair.s.person.clone();
    let none = DelegationId(digest("none"));
    assert_eq!(pair.end(&ward, none, DelegationEnd::Revoked), Err(Denial::NoSuchDelegation));
}

#[test]
fn r15_an_end_in_the_block_of_a_grant_or_use_comes_first() {
    let (mut pair, id) = Pair::delegated(Capacity::Guardian);
    pair.s.settle();
    let terms = pair.terms(id, Capacity::Guardian);
    let grant = pair.grant(terms.clone()).unwrap();
    let (ward, delegate, insurer) =
        (pair.s.person.clone(), pair.delegate.clone(), pair.s.four.insurer.clone());
    let world = &mut pair.s.world;
    let over = Action::EndDelegation(EndDelegation { delegation: id, cause: DelegationEnd::Revoked });
    let end = world.sign(&ward, over);
    let granting = world.sign(&delegate, Action::Grant(Box::new(terms)));
    let using = Action::RequestAccess(Box::new(pair.s.ask(Some(grant))));
    let using = pair.s.world.sign(&insurer, using);
    let ratifying = pair.s.world.sign(&ward, Action::Ratify(Ratify { grant }));
    for last in [&granting, &using] {
        let order = pair.s.world.apply(&[last.clone(), end.clone()]).map(drop);
        assert_eq!(order, Err(InvalidBlock::PhaseOrder { index: 1 }));
    }
    // Use against ratification, which is no protection: the block's order decides.
    let codes =
        |txs: &[_]| pair.s.world.apply(txs).unwrap().receipts.iter().map(|r| r.code).collect::<Vec<_>>();
    let over = Denial::DelegationOver.number();
    assert_eq!(codes(&[end.clone(), granting, using.clone(), ratifying.clone()]), [0, over, over, 0]);
    assert_eq!(codes(&[end, ratifying, using]), [0, 0, 0]);
}

#[test]
fn r9_r15_ward_and_signer_revoke_and_nobody_else() {
    let (mut pair, id) = Pair::delegated(Capacity::Proxy);
    let second = Delegate { purposes: list(vec![Purpose::ClaimsPayment]), ..pair.ask(Capacity::Proxy) };
    let other = pair.s.person("another delegate");
    let bureau = pair.s.four.bureau.clone();
    let by_other = Delegate { delegate: other.account(), ..second };
    pair.confirm(&bureau, by_other).unwrap();
    let (ward, delegate) = (pair.s.person.clone(), pair.delegate.clone());
    for by in [&ward, &delegate] {
        let grant = pair.grant(pair.terms(id, Capacity::Proxy)).unwrap();
        let revoke = Action::Revoke(Revoke { grant });
        assert_eq!(pair.s.world.run(&other, revoke.clone()), Err(Denial::NotTheGrantor));
        pair.s.world.run(by, revoke.clone()).unwrap();
        for trail in [ObjectRef::from(grant), ward.account().into(), delegate.account().into()] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&EventKind::Revoked));
        }
        assert_eq!(pair.s.world.run(by, revoke), Err(Denial::AlreadyRevoked));
    }
}

#[test]
fn r9_r15_a_revocation_comes_before_its_use_in_a_block_whoever_of_the_two_signs_it() {
    for by_ward in [true, false] {
        let (mut pair, id) = Pair::delegated(Capacity::Guardian);
        pair.s.settle();
        let terms = pair.terms(id, Capacity::Guardian);
        let grant = pair.grant(terms).unwrap();
        let by = if by_ward { pair.s.person.clone() } else { pair.delegate.clone() };
        let insurer = pair.s.four.insurer.clone();
        let revoke = pair.s.world.sign(&by, Action::Revoke(Revoke { grant }));
        let using = Action::RequestAccess(Box::new(pair.s.ask(Some(grant))));
        let using = pair.s.world.sign(&insurer, using);
        let order = pair.s.world.apply(&[using.clone(), revoke.clone()]).map(drop);
        assert_eq!(order, Err(InvalidBlock::PhaseOrder { index: 1 }));
        let verdicts = pair.s.world.block(vec![revoke.clone(), using]).unwrap();
        assert_eq!(verdicts, [Ok(revoke.body_id()), Err(Denial::GrantRevoked)]);
    }
}

#[test]
fn r9_r15_a_delegates_grant_is_born_revoked_by_either_of_the_two() {
    for (by_ward, by_delegate, by_stranger) in
        [(true, false, false), (false, true, false), (true, true, false), (false, false, true)]
    {
        let (mut pair, id) = Pair::delegated(Capacity::Guardian);
        let (ward, delegate, stranger) =
            (pair.s.person.clone(), pair.delegate.clone(), pair.s.person("stranger"));
        let terms = Action::Grant(Box::new(pair.terms(id, Capacity::Guardian)));
        let granting = pair.s.world.sign(&delegate, terms);
        let grant = GrantId(granting.body_id().0);
        for (by, does) in [(&ward, by_ward), (&delegate, by_delegate), (&stranger, by_stranger)] {
            if does {
                pair.s.world.run(by, Action::Revoke(Revoke { grant })).unwrap();
            }
        }
        pair.s.world.submit(granting).unwrap();
        let revoked = pair.s.world.get::<GrantState>(grant).revocation.is_some();
        assert_eq!(revoked, by_ward || by_delegate);
        for party in [&ward, &delegate] {
            assert!(pair.s.world.get::<Account>(party.account()).early.is_empty(), "no longer remembered");
        }
        let last = if revoked { EventKind::Revoked } else { EventKind::Granted };
        for trail in [ObjectRef::from(grant), ward.account().into(), delegate.account().into()] {
            assert_eq!(pair.s.world.kinds(trail).last(), Some(&last));
        }
    }
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let (mut pair, id) = Pair::delegated(Capacity::Guardian);
    let (bureau, ward, third) = (pair.s.four.bureau.clone(), pair.s.person.clone(), pair.s.person("third"));
    let terms = pair.terms(id, Capacity::Guardian);
    match code {
        Denial::DelegationOver => {
            pair.s.settle();
            let grant = pair.grant(terms)?;
            pair.end(&ward, id, DelegationEnd::Revoked)?;
            pair.insurer_asks(grant)
        }
        Denial::NoSuchDelegation => {
            pair.end(&ward, DelegationId(digest("none")), DelegationEnd::Revoked).map(drop)
        }
        Denial::NotTheDelegate => pair.s.grant_by(&third, terms).map(drop),
        Denial::DelegationEndUnfit => pair.end(&ward, id, DelegationEnd::Death).map(drop),
        Denial::DelegationChain => {
            let (ward, delegate) = (third.account(), ward.account());
            let asked = Delegate { ward, delegate, ..pair.ask(Capacity::Proxy) };
            pair.s.world.run_with(&bureau, &third.key, Action::Delegate(asked)).map(drop)
        }
        Denial::AlreadyEnded => {
            pair.end(&ward, id, DelegationEnd::Revoked)?;
            pair.end(&ward, id, DelegationEnd::Revoked).map(drop)
        }
        Denial::NothingToRatify => {
            let grant = pair.grant(terms)?;
            pair.ratify(grant).map(drop)
        }
        _ => unreachable!("another module's"),
    }
}

#[test]
fn r15_a_denied_withdrawal_or_ratification_joins_the_grant_of_the_two_and_of_nobody_else() {
    let (mut pair, id) = Pair::delegated(Capacity::Proxy);
    let terms = pair.terms(id, Capacity::Proxy);
    let grant = pair.grant(terms).unwrap();
    let (ward, delegate, stranger) =
        (pair.s.person.clone(), pair.delegate.clone(), pair.s.person("stranger"));
    pair.s.revoke(grant).unwrap();
    let (revoke, ratify) = (Action::Revoke(Revoke { grant }), Action::Ratify(Ratify { grant }));
    for (by, action, joins) in [
        (&ward, &revoke, true),
        (&delegate, &revoke, true),
        (&stranger, &revoke, false),
        (&ward, &ratify, true),
        (&delegate, &ratify, false),
        (&stranger, &ratify, false),
    ] {
        let before = pair.s.world.kinds(grant).len();
        assert!(pair.s.world.run(by, action.clone()).is_err());
        let after = pair.s.world.kinds(grant);
        assert_eq!(after.len() - before, usize::from(joins), "{:?} by {:?}", action.kind(), by.author);
        assert!(!joins || after.last() == Some(&EventKind::Denied));
    }
}
