//! The keys of persons: rotation, loss, theft (R16).

use assent_ledger::testing::*;
use assent_ledger::{InvalidBlock, parameters};
use assent_proto::event::EventKind;
use assent_proto::field::{List, Message};
use assent_proto::keys::{Algorithm, SecretKey};
use assent_proto::state::{Account, GrantState, Institution, Leaf, Permit, Recovery, Role};
use assent_proto::transaction::*;
use assent_proto::{Denial, Invalid, ObjectRef, VerifiedTx, ids::*};

const ED: Algorithm = Algorithm::Ed25519;

pub(crate) fn rotation(to: &SecretKey) -> Action {
    Action::RotateKey(RotateKey { algorithm: ED, key: to.public() })
}

pub(crate) fn recovery(account: AccountId, to: &SecretKey, in_person: bool) -> Action {
    Action::Recover(Recover { account, algorithm: ED, key: to.public(), in_person })
}

pub(crate) fn veto(of: &SecretKey) -> Action {
    Action::VetoRecovery(VetoRecovery { key: of.public() })
}

/// Lets the next block have this time.
pub(crate) fn until_next_is(world: &mut World, time: TimeMs) {
    world.wait(time.0.checked_sub(world.next().time.0).expect("time goes forward"));
}

/// Signs with two keys.
pub(crate) fn sign_with(world: &mut World, by: &Party, second: &SecretKey, action: Action) -> VerifiedTx {
    let body = world.body(by, action);
    world.seal(&body, &[&by.key, second])
}

fn delay(world: &World) -> u64 {
    parameters(world.state()).recovery_delay_ms
}

/// The person by another key.
fn with(person: &Party, key: &SecretKey) -> Party {
    Party { key: key.clone(), ..person.clone() }
}

fn account(s: &Scene) -> Account {
    s.world.get(s.person.account())
}

impl Recovering {
    /// The bureau and hospital A say in two blocks that the scene's person has lost her key.
    fn ready() -> Recovering {
        let mut r = Recovering::begun();
        r.approve(false, "hospital-a").unwrap();
        let ready_at = account(&r.s).recovery.unwrap().ready_at.unwrap();
        assert_eq!(ready_at, r.s.world.at().time.plus(delay(&r.s.world)));
        Recovering { ready_at, ..r }
    }

    /// The bureau alone has said so.
    fn begun() -> Recovering {
        let mut r =
            Recovering { s: Scene::new(), old: secret("person"), new: secret("new"), ready_at: TimeMs(0) };
        r.approve(false, "bureau").unwrap();
        r
    }

    /// The old key vetoed.
    fn frozen() -> Recovering {
        let mut r = Recovering::ready();
        r.old_acts(veto(&secret("new"))).unwrap();
        assert!(account(&r.s).frozen);
        r
    }

    fn approve(&mut self, in_person: bool, who: &str) -> Result<BodyId, Denial> {
        let new = self.new.clone();
        self.approve_key(&new, in_person, who)
    }

    fn approve_key(&mut self, key: &SecretKey, in_person: bool, who: &str) -> Result<BodyId, Denial> {
        let by = self.office(who);
        let asked = recovery(self.s.person.account(), key, in_person);
        self.s.world.run_with(&by, key, asked)
    }

    fn office(&self, who: &str) -> Party {
        let four = &self.s.four;
        let office = match who {
            "bureau" => &four.bureau,
            "hospital-a" => &four.hospital_a,
            "hospital-b" => &four.hospital_b,
            _ => &four.insurer,
        };
        office.clone()
    }

    fn old_acts(&mut self, action: Action) -> Result<BodyId, Denial> {
        let person = with(&self.s.person, &self.old);
        self.s.world.run(&person, action)
    }

    fn new_acts(&mut self, action: Action) -> Result<BodyId, Denial> {
        let person = with(&self.s.person, &self.new);
        self.s.world.run(&person, action)
    }

    /// Whether the old and the new key may sign in the next block.
    fn sign_next(&mut self) -> (Result<(), Invalid>, Result<(), Invalid>) {
        let revoke = Action::Revoke(Revoke { grant: GrantId(digest("any")) });
        let (old, new) = (with(&self.s.person, &self.old), with(&self.s.person, &self.new));
        let (by_old, by_new) = (self.s.world.sign(&old, revoke.clone()), self.s.world.sign(&new, revoke));
        (self.s.world.check(&by_old), self.s.world.check(&by_new))
    }
}

/// A person who lost her key, and how far its replacement is.
struct Recovering {
    s: Scene,
    old: SecretKey,
    new: SecretKey,
    ready_at: TimeMs,
}

const OLD_SIGNS: (Result<(), Invalid>, Result<(), Invalid>) = (Ok(()), Err(Invalid::WrongKey));
const NEW_SIGNS: (Result<(), Invalid>, Result<(), Invalid>) = (Err(Invalid::WrongKey), Ok(()));

#[test]
fn r16_the_old_key_is_refused_after_rotation_and_grants_survive() {
    let mut r =
        Recovering { s: Scene::new(), old: secret("person"), new: secret("new"), ready_at: TimeMs(0) };
    r.s.settle();
    let insurer = r.s.four.insurer.clone();
    let grant = r.s.grant(r.s.terms()).unwrap();
    let person = r.s.person.clone();
    r.s.world.run_with(&person, &r.new, rotation(&r.new)).unwrap();
    assert_eq!(r.s.world.kinds(person.account()).last(), Some(&EventKind::KeyRotated));
    assert_eq!(account(&r.s).key, r.new.public());
    assert_eq!(r.sign_next(), NEW_SIGNS);
    assert!(r.s.request(&insurer, r.s.ask(Some(grant))).is_ok());
    r.new_acts(Action::Revoke(Revoke { grant })).unwrap();
    let again = r.s.world.get::<GrantState>(grant);
    assert!(again.revocation.is_some(), "what the old key granted the new one withdraws");
}

#[test]
fn r16_in_the_block_of_a_rotation_the_old_key_gives_nothing_after_it() {
    let mut s = Scene::new();
    let (person, new) = (s.person.clone(), secret("new"));
    let rotate = sign_with(&mut s.world, &person, &new, rotation(&new));
    let grant = s.world.sign(&person, Action::Grant(Box::new(s.terms())));
    let by_new = s.world.sign(&with(&person, &new), Action::Grant(Box::new(s.terms())));

    let order = s.world.apply(&[grant.clone(), rotate.clone()]).map(drop);
    assert_eq!(order, Err(InvalidBlock::PhaseOrder { index: 1 }), "what protects stands first");
    let early = s.world.apply(&[rotate.clone(), by_new.clone()]).map(drop);
    let refused = InvalidBlock::Transaction { index: 1, reason: Invalid::WrongKey };
    assert_eq!(early, Err(refused), "the new key signs from the next height");

    let id = GrantId(grant.body_id().0);
    let verdicts = s.world.block(vec![rotate.clone(), grant]).unwrap();
    assert_eq!(verdicts, [Ok(rotate.body_id()), Err(Denial::KeyReplaced)]);
    assert!(s.world.state().get(&id.into()).is_none());
    assert!(s.world.submit(by_new).is_ok());
}

#[test]
fn r16_of_two_rotations_in_one_block_the_first_counts() {
    let mut s = Scene::new();
    let (person, one, two) = (s.person.clone(), secret("one"), secret("two"));
    let first = sign_with(&mut s.world, &person, &one, rotation(&one));
    let second = sign_with(&mut s.world, &person, &two, rotation(&two));
    for (a, b, key) in [(&first, &second, &one), (&second, &first, &two)] {
        let applied = s.world.apply(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(applied.receipts[1].code, Denial::KeyReplaced.number());
        let after: Account = assent_ledger::read(&applied.state, person.account()).unwrap();
        assert_eq!(after.key, key.public());
    }
}

#[test]
fn r16_k_institutions_replace_a_lost_key_after_the_delay() {
    let mut r = Recovering::ready();
    let id = r.s.person.account();
    let tail = [EventKind::RecoveryApproved, EventKind::RecoveryApproved, EventKind::RecoveryReady];
    assert!(r.s.world.kinds(id).ends_with(&tail));
    assert!(r.s.world.kinds(r.s.four.bureau.institution()).ends_with(&tail), "its enroller is told");
    for (time, expected) in
        [(r.ready_at.0 - 1, OLD_SIGNS), (r.ready_at.0, NEW_SIGNS), (r.ready_at.0 + 1, NEW_SIGNS)]
    {
        until_next_is(&mut r.s.world, TimeMs(time));
        assert_eq!(r.sign_next(), expected, "{time}");
    }
    r.s.person.key = r.new.clone();
    assert!(r.s.grant(r.s.terms()).is_ok());
    assert_eq!(r.s.world.get::<Account>(id).key_at(r.s.world.at().time), r.new.public());
}

#[test]
fn r16_what_is_written_after_a_recovery_holds_the_new_key() {
    let mut r = Recovering::ready();
    until_next_is(&mut r.s.world, r.ready_at);
    r.new_acts(Action::Revoke(Revoke { grant: GrantId(digest("to come")) })).unwrap();
    let (key, recovery) = (account(&r.s).key, account(&r.s).recovery);
    assert_eq!((key, recovery), (r.new.public(), None));
    // And a new loss begins anew.
    let newest = secret("newest");
    r.approve_key(&newest, false, "hospital-a").unwrap();
    let begun = account(&r.s).recovery.unwrap();
    assert_eq!((begun.key, begun.ready_at, begun.approvals.len()), (newest.public(), None, 1));
    assert_eq!(r.sign_next(), NEW_SIGNS);
}

#[test]
fn r16_a_new_loss_begins_on_the_recovered_key_though_nobody_wrote_it() {
    let mut r = Recovering::ready();
    until_next_is(&mut r.s.world, r.ready_at);
    r.approve_key(&secret("newest"), false, "bureau").unwrap();
    assert_eq!(account(&r.s).key, r.new.public());
    assert_eq!(r.sign_next(), NEW_SIGNS);
    // Whoever has the recovered key may veto, as its owner then.
    r.new_acts(veto(&secret("newest"))).unwrap();
    assert!(account(&r.s).frozen);
}

#[test]
fn r16_a_recovered_key_rotates() {
    let mut r = Recovering::ready();
    until_next_is(&mut r.s.world, r.ready_at);
    let (person, newest) = (with(&r.s.person, &r.new), secret("newest"));
    r.s.world.run_with(&person, &newest, rotation(&newest)).unwrap();
    assert_eq!((account(&r.s).key, account(&r.s).recovery), (newest.public(), None));
    assert_eq!(r.sign_next(), (Err(Invalid::WrongKey), Err(Invalid::WrongKey)));
}

#[test]
fn r16_while_a_recovery_runs_the_key_withdraws_and_gives_nothing() {
    for mut r in [Recovering::begun(), Recovering::ready()] {
        let terms = Action::Grant(Box::new(r.s.terms()));
        assert_eq!(r.old_acts(terms), Err(Denial::AccountFrozen));
        let (person, thiefs) = (r.s.person.clone(), secret("thief's"));
        let rotated = r.s.world.run_with(&person, &thiefs, rotation(&thiefs));
        assert_eq!(rotated, Err(Denial::AccountFrozen), "a thief cannot shake it off");
        assert!(account(&r.s).recovery.is_some());
        let revoke = Action::Revoke(Revoke { grant: GrantId(digest("any")) });
        assert!(r.old_acts(revoke).is_ok());
    }
}

#[test]
fn r16_a_recovery_without_enough_approvals_is_forgotten() {
    for (late, joins) in [(0, true), (1, false)] {
        let mut r = Recovering::begun();
        let until = account(&r.s).recovery.unwrap().until;
        assert_eq!(until, r.s.world.at().time.plus(delay(&r.s.world)));
        until_next_is(&mut r.s.world, until.plus(late));
        r.approve(false, "hospital-a").unwrap();
        let recovery = account(&r.s).recovery.unwrap();
        assert_eq!(recovery.ready_at.is_some(), joins, "{late} ms after");
        assert_eq!(recovery.approvals.len(), if joins { 2 } else { 1 });
    }
    for (late, expected) in [(0, false), (1, true)] {
        let mut r = Recovering::begun();
        let until = account(&r.s).recovery.unwrap().until.plus(late);
        until_next_is(&mut r.s.world, until);
        let mut terms = r.s.terms();
        terms.not_after = until.plus(1_000);
        assert_eq!(r.s.grant(terms).is_ok(), expected, "{late} ms after");
    }
}

#[test]
fn r16_who_may_recover_whom_and_how() {
    let mut r = Recovering::begun();
    assert_eq!(r.approve(false, "insurer"), Err(Denial::NotPermittedRole));
    assert_eq!(r.approve(false, "bureau"), Err(Denial::AlreadyApproved));
    assert_eq!(r.approve(true, "hospital-a"), Err(Denial::AccountNotFrozen));
    assert_eq!(r.approve_key(&secret("other"), false, "hospital-a"), Err(Denial::OtherRecovery));
    let nobody = recovery(AccountId(digest("nobody")), &r.new, false);
    let (bureau, new) = (r.s.four.bureau.clone(), r.new.clone());
    assert_eq!(r.s.world.run_with(&bureau, &new, nobody), Err(Denial::NoSuchAccount));

    r.approve(false, "hospital-b").unwrap();
    let ready = account(&r.s).recovery;
    assert_eq!(r.approve(false, "bureau"), Err(Denial::AlreadyApproved));
    assert_eq!(r.approve(false, "hospital-a"), Err(Denial::OtherRecovery), "enough have spoken");
    assert_eq!(account(&r.s).recovery, ready, "and nothing puts it off");
}

#[test]
fn r16_strangers_to_a_person_cannot_take_her_account() {
    let mut r =
        Recovering { s: Scene::new(), old: secret("person"), new: secret("new"), ready_at: TimeMs(0) };
    r.approve(false, "hospital-a").unwrap();
    assert_eq!(r.approve(false, "hospital-b"), Err(Denial::NotPermittedRole), "the enroller's seat");
    assert_eq!(account(&r.s).recovery.unwrap().approvals.len(), 1);
    r.approve(false, "bureau").unwrap();
    assert!(account(&r.s).recovery.unwrap().ready_at.is_some());
}

/// A scene whose person's account was enrolled by an institution that cannot speak any more.
fn orphaned(edit: impl FnOnce(&Four, &mut Institution, &mut Account)) -> (World, Four, AccountId) {
    let (genesis, ..) = assent_genesis::testing::four();
    let (world, four) = World::four();
    let (id, insurer) = (AccountId(digest("orphan")), four.insurer.institution());
    let mut enroller: Institution = world.get(insurer);
    let mut account = Account {
        enroller: insurer,
        custodian: four.hospital_a.institution(),
        algorithm: ED,
        key: secret("person").public(),
        enrolled_height: Height(0),
        early: List::empty(),
        recovery: None,
        frozen: false,
        guardianships: list(vec![]),
    };
    edit(&four, &mut enroller, &mut account);
    let leaf = |object: ObjectRef, content| Leaf { object, content, trail: object.new_trail() };
    let changed = [leaf(insurer.into(), enroller.encode()), leaf(id.into(), account.encode())];
    let leaves = genesis.leaves().into_iter().filter(|l| l.object != insurer.into()).chain(changed);
    (World::found(genesis.hash(), genesis.time(), leaves.collect::<Vec<_>>()), four, id)
}

#[test]
fn r16_an_enroller_that_cannot_speak_is_not_waited_for() {
    type Edit = fn(&mut Institution);
    let edits: [(&str, Edit, bool); 5] = [
        ("a bureau", |i| i.roles = list(vec![Role::Bureau]), false),
        ("a hospital", |i| i.roles = list(vec![Role::Hospital]), false),
        ("suspended", |i| (i.roles, i.standing) = (list(vec![Role::Bureau]), Standing::Suspended), true),
        ("expelled", |i| (i.roles, i.standing) = (list(vec![Role::Bureau]), Standing::Expelled), true),
        ("an insurer", |i| i.roles = list(vec![Role::Insurer]), true),
    ];
    for (name, edit, alone) in edits {
        let (mut world, four, id) = orphaned(|_, enroller, _| edit(enroller));
        let new = secret("new");
        world.run_with(&four.hospital_a, &new, recovery(id, &new, false)).unwrap();
        let second = world.run_with(&four.hospital_b, &new, recovery(id, &new, false));
        assert_eq!(second.map(drop), if alone { Ok(()) } else { Err(Denial::NotPermittedRole) }, "{name}");
    }
}

#[test]
fn r16_the_word_of_an_institution_that_was_suspended_since_is_worth_nothing() {
    for (standing, ready) in [(Standing::Active, true), (Standing::Suspended, false)] {
        let new = secret("new");
        let (mut world, four, id) = orphaned(|four, spoke, account| {
            (spoke.roles, spoke.standing) = (list(vec![Role::Hospital]), standing);
            account.enroller = four.bureau.institution();
            account.recovery = Some(Recovery {
                algorithm: ED,
                key: new.public(),
                in_person: false,
                approvals: list(vec![four.insurer.institution()]),
                until: TimeMs(u64::MAX),
                ready_at: None,
            });
        });
        world.run_with(&four.bureau, &new, recovery(id, &new, false)).unwrap();
        let recovery = world.get::<Account>(id).recovery.unwrap();
        assert_eq!(recovery.ready_at.is_some(), ready, "{standing:?}");
    }
}

#[test]
fn r16_one_institution_is_enough_where_the_chain_says_so() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::PARAMETERS, |p: &mut assent_proto::state::Parameters| p.recovery_approvals = 1);
    let mut s = Scene::in_world(world, four);
    let (a, bureau, new) = (s.four.hospital_a.clone(), s.four.bureau.clone(), secret("new"));
    let asked = recovery(s.person.account(), &new, false);
    assert_eq!(s.world.run_with(&a, &new, asked.clone()), Err(Denial::NotPermittedRole));
    assert_eq!(account(&s).recovery, None);
    s.world.run_with(&bureau, &new, asked).unwrap();
    assert!(account(&s).recovery.unwrap().ready_at.is_some());
}

#[test]
fn r16_the_old_key_vetoes_until_the_last_moment_of_the_delay() {
    let mut r = Recovering::ready();
    until_next_is(&mut r.s.world, TimeMs(r.ready_at.0 - 1));
    r.old_acts(veto(&secret("new"))).unwrap();
    let id = r.s.person.account();
    assert_eq!(r.s.world.kinds(id).last(), Some(&EventKind::RecoveryVetoed));
    let approver = r.s.four.hospital_a.institution();
    assert_eq!(r.s.world.kinds(approver).last(), Some(&EventKind::RecoveryVetoed), "who vouched is told");
    until_next_is(&mut r.s.world, r.ready_at.plus(BLOCK_MS));
    assert_eq!(r.sign_next(), OLD_SIGNS, "vetoed for good");

    for late in [0, 1] {
        let mut r = Recovering::ready();
        until_next_is(&mut r.s.world, r.ready_at.plus(late));
        let old = with(&r.s.person, &r.old);
        let by_old = r.s.world.sign(&old, veto(&secret("new")));
        assert_eq!(r.s.world.check(&by_old), Err(Invalid::WrongKey));
        assert_eq!(r.new_acts(veto(&secret("new"))), Err(Denial::NoRecovery));
    }
}

#[test]
fn r16_a_veto_names_the_recovery_that_it_ends() {
    let mut s = Scene::new();
    let person = s.person.clone();
    assert_eq!(s.world.run(&person, veto(&secret("new"))), Err(Denial::NoRecovery));
    assert!(!account(&s).frozen);
    for mut r in [Recovering::begun(), Recovering::ready()] {
        assert_eq!(r.old_acts(veto(&secret("other"))), Err(Denial::NoRecovery));
        assert!(r.old_acts(veto(&secret("new"))).is_ok());
    }
    // One that time has ended needs none.
    let mut r = Recovering::begun();
    let until = account(&r.s).recovery.unwrap().until;
    until_next_is(&mut r.s.world, until.plus(1));
    assert_eq!(r.old_acts(veto(&secret("new"))), Err(Denial::NoRecovery));
}

#[test]
fn r16_a_thiefs_veto_does_not_give_him_the_account() {
    let mut r = Recovering::frozen();
    let grant = Action::Grant(Box::new(r.s.terms()));
    assert_eq!(r.old_acts(grant), Err(Denial::AccountFrozen));
    let (person, his) = (r.s.person.clone(), secret("thief's"));
    assert_eq!(r.s.world.run_with(&person, &his, rotation(&his)), Err(Denial::AccountFrozen));
    assert_eq!(r.old_acts(veto(&secret("new"))), Err(Denial::AccountFrozen));
    assert!(r.old_acts(Action::Revoke(Revoke { grant: GrantId(digest("any")) })).is_ok());

    // From afar nobody replaces the key; across a counter k do, at once, and he has no say in it.
    assert_eq!(r.approve(false, "bureau"), Err(Denial::AccountFrozen));
    r.approve(true, "hospital-a").unwrap();
    assert!(account(&r.s).frozen, "one is not enough");
    assert_eq!(r.old_acts(veto(&secret("new"))), Err(Denial::AccountFrozen));
    assert_eq!(r.approve(true, "hospital-b"), Err(Denial::NotPermittedRole), "the enroller's seat");
    r.approve(true, "bureau").unwrap();
    let after = account(&r.s);
    assert_eq!((after.key, after.frozen, after.recovery), (r.new.public(), false, None));
    assert_eq!(r.sign_next(), NEW_SIGNS);
    let tail = [EventKind::RecoveryApproved, EventKind::RecoveryReady];
    assert!(r.s.world.kinds(person.account()).ends_with(&tail));
    r.s.person.key = r.new.clone();
    assert!(r.s.grant(r.s.terms()).is_ok());
}

#[test]
fn r16_the_owner_gets_her_frozen_account_back_by_the_key_that_she_kept() {
    let mut r = Recovering::frozen();
    let old = r.old.clone();
    for office in ["bureau", "hospital-b"] {
        r.approve_key(&old, true, office).unwrap();
    }
    assert_eq!(r.sign_next(), OLD_SIGNS);
    assert!(r.s.grant(r.s.terms()).is_ok());
}

#[test]
fn r16_a_veto_in_the_block_that_would_make_a_recovery_ready_comes_first() {
    let mut r = Recovering::begun();
    let (a, new) = (r.office("hospital-a"), r.new.clone());
    let person = r.s.person.clone();
    let last = sign_with(&mut r.s.world, &a, &new, recovery(person.account(), &new, false));
    let vetoed = r.s.world.sign(&person, veto(&new));
    let order = r.s.world.apply(&[last.clone(), vetoed.clone()]).map(drop);
    assert_eq!(order, Err(InvalidBlock::PhaseOrder { index: 1 }));
    let verdicts = r.s.world.block(vec![vetoed.clone(), last]).unwrap();
    assert_eq!(verdicts, [Ok(vetoed.body_id()), Err(Denial::AccountFrozen)]);
    assert!(account(&r.s).frozen);
}

#[test]
fn r16_both_orders_of_two_recoveries_in_one_block_leave_one() {
    let mut s = Scene::new();
    let (bureau, b, person) = (s.four.bureau.clone(), s.four.hospital_b.clone(), s.person.clone());
    let (one, two) = (secret("one"), secret("two"));
    let first = sign_with(&mut s.world, &bureau, &one, recovery(person.account(), &one, false));
    let second = sign_with(&mut s.world, &b, &two, recovery(person.account(), &two, false));
    for (txs, key) in [([&first, &second], &one), ([&second, &first], &two)] {
        let applied = s.world.apply(&txs.map(Clone::clone)).unwrap();
        assert_eq!(applied.receipts[1].code, Denial::OtherRecovery.number());
        let after: Account = assent_ledger::read(&applied.state, person.account()).unwrap();
        assert_eq!(after.recovery.unwrap().key, key.public());
    }
}

#[test]
fn r16_in_the_block_that_makes_a_frozen_account_whole_the_old_key_gives_nothing_after_it() {
    let mut r = Recovering::frozen();
    r.approve(true, "bureau").unwrap();
    let (a, new, person) = (r.office("hospital-a"), r.new.clone(), r.s.person.clone());
    let last = sign_with(&mut r.s.world, &a, &new, recovery(person.account(), &new, true));
    let grant = r.s.world.sign(&person, Action::Grant(Box::new(r.s.terms())));
    let codes = |applied: assent_ledger::Applied| applied.receipts.iter().map(|r| r.code).collect::<Vec<_>>();
    let after = r.s.world.apply(&[last.clone(), grant.clone()]).map(codes);
    assert_eq!(after, Ok(vec![0, Denial::KeyReplaced.number()]));
    let before = r.s.world.apply(&[grant, last]).map(codes);
    assert_eq!(before, Ok(vec![Denial::AccountFrozen.number(), 0]));
}

#[test]
fn r16_a_real_name_request_by_a_key_replaced_in_its_block_is_denied() {
    let mut s = Scene::new();
    let (a, insurer, person) = (s.four.hospital_a.clone(), s.four.insurer.clone(), s.person.clone());
    let (level, opening, recipients) = (Level::Moderate, Opening::RealName, list(vec![]));
    let item = Classify { item: s.item, level, opening, recipients };
    s.world.run(&a, Action::Classify(item)).unwrap();
    let ask = RequestAccess {
        person: Some(person.account()),
        purpose: Purpose::Statistics,
        case: None,
        ..s.ask(None)
    };
    let ask = sign_with(&mut s.world, &insurer, &person.key, Action::RequestAccess(Box::new(ask)));
    let new = secret("new");
    let rotate = sign_with(&mut s.world, &person, &new, rotation(&new));
    let verdicts = s.world.block(vec![rotate.clone(), ask]).unwrap();
    assert_eq!(verdicts, [Ok(rotate.body_id()), Err(Denial::KeyReplaced)]);
    let again = RequestAccess {
        person: Some(person.account()),
        purpose: Purpose::Statistics,
        case: None,
        ..s.ask(None)
    };
    let permit = s.world.run_with(&insurer, &new, Action::RequestAccess(Box::new(again))).unwrap();
    assert_eq!(s.world.get::<Permit>(PermitId(permit.0)).requester, insurer.institution());
}

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut r = Recovering::begun();
    let (bureau, new, other) = (r.office("bureau"), r.new.clone(), secret("other"));
    match code {
        Denial::KeyReplaced => {
            let mut s = Scene::new();
            let person = s.person.clone();
            let rotate = sign_with(&mut s.world, &person, &new, rotation(&new));
            let grant = s.world.sign(&person, Action::Grant(Box::new(s.terms())));
            s.world.block(vec![rotate, grant]).unwrap().remove(1)
        }
        Denial::AccountFrozen => r.old_acts(Action::Grant(Box::new(r.s.terms()))),
        Denial::AccountNotFrozen => r.approve(true, "hospital-a"),
        Denial::OtherRecovery => r.approve_key(&other, false, "hospital-a"),
        Denial::NoRecovery => r.old_acts(veto(&other)),
        Denial::NoSuchAccount => {
            r.s.world.run_with(&bureau, &new, recovery(AccountId(digest("nobody")), &new, false))
        }
        _ => unreachable!("another module's"),
    }
    .map(drop)
}
