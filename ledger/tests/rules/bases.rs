//! Each use rests on one basis, which is in force and not the requester's own; whichever it is, the policy,
//! the negative list and the levels bound it (R10, R11, R14, R15, R21).

use assent_ledger::Content;
use assent_ledger::testing::*;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, Leaf, ObjectRef, ids::*};

use crate::emergency::{until, would};
use crate::{emergency, orders};

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut s = Scene::new();
    let (a, insurer) = (s.four.hospital_a.clone(), s.four.insurer.clone());
    match code {
        Denial::SeveralBases => {
            let both = RequestAccess { grant: Some(GrantId(digest("none"))), ..emergency::ask(&s) };
            s.request(&insurer, both).map(drop)
        }
        Denial::GrantSuspended => {
            let grant = s.grant(s.standing(&insurer))?;
            grade(&mut s, &a, Level::High);
            s.request(&insurer, s.ask_statistics(grant)).map(drop)
        }
        Denial::SameInstitution => self_review(),
        _ => unreachable!("{code} is another module's"),
    }
}

fn leaf<T: Content>(object: impl Into<ObjectRef>, value: &T) -> Leaf {
    let object = object.into();
    Leaf { object, content: value.encode(), trail: object.new_trail() }
}

/// The scene on a chain that is founded with more leaves. Its ids are those of a plain scene, which the leaves
/// may name.
fn founded(leaves: impl FnOnce(&Scene) -> Vec<Leaf>) -> Scene {
    let (genesis, ..) = assent_genesis::testing::four();
    let plain = Scene::new();
    let leaves = genesis.leaves().into_iter().chain(leaves(&plain));
    let scene = Scene::in_world(World::found(genesis.hash(), genesis.time(), leaves), plain.four);
    assert_eq!((scene.person.account(), scene.item), (plain.person.account(), plain.item));
    scene
}

fn grade(scene: &mut Scene, by: &Party, level: Level) {
    let (item, opening, recipients) = (scene.item, Opening::Prohibited, list(vec![]));
    scene.world.run(by, Action::Classify(Classify { item, level, opening, recipients })).unwrap();
}

fn would_use(scene: &mut Scene, by: &Party, ask: RequestAccess) -> Result<(), Denial> {
    would(scene, by, Action::RequestAccess(Box::new(ask)))
}

fn self_review() -> Result<(), Denial> {
    let mut s = Scene::new();
    let (bureau, until) = (s.four.bureau.clone(), s.world.at().time.plus(60_000));
    let purpose = Purpose::Statistics;
    let review = ReviewOpening { item: s.item, requester: bureau.institution(), purpose, until };
    s.world.run(&bureau, Action::ReviewOpening(review)).map(drop)
}

#[test]
fn r10_nobody_opens_an_item_to_itself() {
    assert_eq!(self_review(), Err(Denial::SameInstitution));
}

/// On what one try of the table rests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Opening,
    Grant(Level),
    Emergency,
    Order(Level),
}

#[derive(Debug)]
struct Try {
    level: Level,
    opening: Opening,
    on: On,
    purpose: Purpose,
    action: UseAction,
    output: Output,
    receiver: Level,
}

/// What the rows say of a try; written without a look at the rules. The grants are for treatment, to read and
/// derive, masked; so are the orders, for the law's sake; the review is for statistics; the case is settled.
fn expected(t: &Try) -> Result<(), Denial> {
    use Denial::*;
    let use_case = match t.purpose {
        Purpose::ClaimsPayment | Purpose::Treatment | Purpose::MutualRecognition => Some(Level::High),
        Purpose::EmergencyTreatment | Purpose::Legal => Some(Level::High),
        Purpose::Research | Purpose::Statistics => Some(Level::Moderate),
        Purpose::Operations => Some(Level::Low),
        Purpose::Marketing => None,
    };
    if t.on == On::Opening {
        match t.opening {
            Opening::Prohibited => return Err(NoBasis),
            Opening::AfterReview if t.purpose != Purpose::Statistics => return Err(ReviewMissing),
            Opening::RealName => return Err(RealNameMissing),
            Opening::AfterReview | Opening::Unconditional | Opening::Directed => {}
        }
    }
    let use_case = use_case.ok_or(PurposeNotAllowed)?;
    let special = matches!(t.purpose, Purpose::EmergencyTreatment | Purpose::Legal);
    let basis = match t.on {
        On::Opening if special => return Err(PurposeNotCovered),
        On::Opening => Level::High,
        On::Grant(_) if t.purpose != Purpose::Treatment => return Err(PurposeNotCovered),
        On::Grant(_) if !matches!(t.action, UseAction::Read | UseAction::Derive) => {
            return Err(ActionNotCovered);
        }
        On::Grant(_) if t.output == Output::Raw => return Err(OutputNotCovered),
        On::Emergency if t.purpose != Purpose::EmergencyTreatment => return Err(PurposeNotCovered),
        On::Emergency if !matches!(t.action, UseAction::Read | UseAction::Compute) => {
            return Err(ActionNotCovered);
        }
        On::Emergency => Level::High,
        On::Order(_) if t.purpose != Purpose::Legal => return Err(PurposeNotCovered),
        On::Order(_) if !matches!(t.action, UseAction::Read | UseAction::Derive) => {
            return Err(OrderDoesNotCover);
        }
        On::Order(_) if t.output == Output::Raw => return Err(OrderDoesNotCover),
        On::Grant(level) | On::Order(level) => level,
    };
    if t.level > basis || t.level > t.receiver || t.level > use_case { Err(LevelTooHigh) } else { Ok(()) }
}

/// One item of each level and opening, also those that only governance's exception could make.
struct Table {
    scene: Scene,
    items: Vec<(Level, Opening, ItemId, Vec<RecordProof>)>,
    grants: Vec<(Level, GrantId)>,
    orders: Vec<(Level, OrderId)>,
}

impl Table {
    fn new(receiver: Level) -> Table {
        let mut scene = founded(|plain| {
            let mut user: Institution = plain.world.get(plain.four.hospital_b.institution());
            user.max_level = receiver;
            let mut leaves = vec![leaf(plain.four.hospital_b.institution(), &user)];
            leaves.extend(kinds().map(|(code, level, opening)| {
                let item = Item { level, opening, ..opened(plain, code) };
                leaf(ItemId::of(code, 1), &item)
            }));
            leaves
        });
        scene.settle();
        let items = kinds().map(|(code, level, opening)| {
            let item = ItemId::of(code, 1);
            let records = [record(&scene.person, 1, 100), record(&scene.person, 2, 101)];
            let a = scene.four.hospital_a.clone();
            (level, opening, item, scene.world.anchor(&a, item, &records, &[]))
        });
        let items = items.collect();
        let grants =
            Level::ALL.iter().map(|level| (*level, grant_for_treatment(&mut scene, *level))).collect();
        let orders = Level::ALL.iter().map(|level| (*level, order_to_b(&mut scene, *level))).collect();
        let mut table = Table { scene, items, grants, orders };
        table.review();
        table
    }

    fn review(&mut self) {
        let (bureau, b) = (self.scene.four.bureau.clone(), self.scene.four.hospital_b.institution());
        let until = self.scene.world.at().time.plus(10_000_000);
        for (_, _, item, _) in &self.items {
            let purpose = Purpose::Statistics;
            let review = ReviewOpening { item: *item, requester: b, purpose, until };
            self.scene.world.run(&bureau, Action::ReviewOpening(review)).unwrap();
        }
    }

    fn bases(&self) -> Vec<On> {
        let levels = Level::ALL.iter().copied();
        let both = [On::Opening, On::Emergency].into_iter();
        both.chain(levels.clone().map(On::Grant)).chain(levels.map(On::Order)).collect()
    }

    fn check(&mut self, item: usize, on: On, (purpose, action, output): (Purpose, UseAction, Output)) {
        let b = self.scene.four.hospital_b.clone();
        let receiver = self.scene.world.get::<Institution>(b.institution()).max_level;
        let (level, opening, item, records) = self.items[item].clone();
        let granted = |l| self.grants.iter().find(|(level, _)| *level == l).map(|g| g.1);
        let ordered = |l| self.orders.iter().find(|(level, _)| *level == l).map(|o| o.1);
        let (grant, emergency, order) = match on {
            On::Opening => (None, None, None),
            On::Grant(l) => (granted(l), None, None),
            On::Emergency => (None, Some(EmergencyReason::AcuteThreat), None),
            On::Order(l) => (None, None, ordered(l)),
        };
        let records = list(records);
        let ask = RequestAccess {
            grant,
            emergency,
            order,
            item,
            purpose,
            action,
            output,
            records,
            ..self.scene.ask(None)
        };
        let tried = Try { level, opening, on, purpose, action, output, receiver };
        assert_eq!(would_use(&mut self.scene, &b, ask), expected(&tried), "{tried:?}");
    }
}

/// Item codes with their level and opening.
fn kinds() -> impl Iterator<Item = (u32, Level, Opening)> {
    let all = Level::ALL.iter().flat_map(|l| Opening::ALL.iter().map(|o| (*l, *o)));
    all.enumerate().map(|(i, (level, opening))| (1000 + i as u32, level, opening))
}

/// An item of hospital A that is directed to hospital B.
fn opened(scene: &Scene, code: u32) -> Item {
    Item {
        code,
        scope: 1,
        category: Category::TestResult,
        custodian: scene.four.hospital_a.institution(),
        level: Level::None,
        opening: Opening::Directed,
        recipients: list(vec![scene.four.hospital_b.institution()]),
        graded_height: Height(0),
    }
}

fn grant_for_treatment(scene: &mut Scene, max_level: Level) -> GrantId {
    let b = scene.four.hospital_b.clone();
    let terms = Grant {
        items: list(vec![]),
        categories: list(vec![Category::TestResult]),
        purpose: Purpose::Treatment,
        max_level,
        ..scene.standing(&b)
    };
    scene.grant(terms).unwrap()
}

fn order_to_b(scene: &mut Scene, max_level: Level) -> OrderId {
    let (bureau, insurer) = (scene.four.bureau.clone(), scene.four.insurer.clone());
    let terms = IssueOrder {
        beneficiary: scene.four.hospital_b.institution(),
        cosigner: insurer.institution(),
        items: list(vec![]),
        categories: list(vec![Category::TestResult]),
        max_level,
        ..orders::terms(scene)
    };
    let action = Action::IssueOrder(Box::new(terms));
    OrderId(scene.world.run_with(&bureau, &insurer.key, action).unwrap().0)
}

#[test]
fn r10_r11_every_level_opening_basis_purpose_action_and_output() {
    let mut table = Table::new(Level::High);
    for item in 0..table.items.len() {
        for on in table.bases() {
            for purpose in Purpose::ALL {
                for action in UseAction::ALL {
                    for output in Output::ALL {
                        table.check(item, on, (*purpose, *action, *output));
                    }
                }
            }
        }
    }
}

#[test]
fn r11_every_level_that_the_receiver_may_see_with_every_level_opening_basis_and_purpose() {
    for receiver in Level::ALL {
        let mut table = Table::new(*receiver);
        for item in 0..table.items.len() {
            for on in table.bases() {
                for purpose in Purpose::ALL {
                    table.check(item, on, (*purpose, UseAction::Read, Output::Masked));
                }
            }
        }
    }
}

#[test]
fn a_request_rests_on_one_basis() {
    let mut scene = Scene::new();
    scene.settle();
    let b = scene.four.hospital_b.clone();
    let grant = scene.grant(scene.standing(&b)).unwrap();
    let order = order_to_b(&mut scene, Level::High);
    for bits in 0..8u8 {
        let named = |bit: u8| bits & bit != 0;
        let ask = RequestAccess {
            grant: named(1).then_some(grant),
            emergency: named(2).then_some(EmergencyReason::AcuteThreat),
            order: named(4).then_some(order),
            ..scene.ask(None)
        };
        let verdict = would_use(&mut scene, &b, ask).unwrap_err();
        assert_eq!(verdict == Denial::SeveralBases, bits.count_ones() > 1, "{bits:03b}: {verdict}");
    }
}

#[test]
fn r21_grading_up_suspends_the_grants_below_it() {
    let mut scene = Scene::new();
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let signed = Grant { purpose: Purpose::Treatment, ..scene.standing(&insurer) };
    let (low, high) = (signed.clone(), Grant { max_level: Level::High, ..signed.clone() });
    let (low, high) = (scene.grant(low).unwrap(), scene.grant(high).unwrap());
    let ask =
        |scene: &Scene, grant| RequestAccess { purpose: Purpose::Treatment, ..scene.ask_statistics(grant) };
    for grant in [low, high] {
        let ask = ask(&scene, grant);
        assert_eq!(would_use(&mut scene, &insurer, ask), Ok(()));
    }
    grade(&mut scene, &a, Level::High);
    let later = scene.grant(signed).unwrap();
    let verdicts = [(low, Err(Denial::GrantSuspended)), (high, Ok(())), (later, Err(Denial::LevelTooHigh))];
    for (grant, expected) in verdicts {
        let ask = ask(&scene, grant);
        assert_eq!(would_use(&mut scene, &insurer, ask), expected);
    }
}

#[test]
fn r21_a_grant_of_the_height_of_the_grading_was_not_graded_over() {
    for granted_first in [true, false] {
        let mut scene = Scene::new();
        let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
        let terms = scene.standing(&insurer);
        let person = scene.person.clone();
        let granting = scene.world.sign(&person, Action::Grant(Box::new(terms)));
        let grant = GrantId(granting.body_id().0);
        let (item, opening, recipients) = (scene.item, Opening::Prohibited, list(vec![]));
        let grading = Classify { item, level: Level::High, opening, recipients };
        let grading = scene.world.sign(&a, Action::Classify(grading));
        let both = if granted_first { vec![granting, grading] } else { vec![grading, granting] };
        assert!(scene.world.block(both).unwrap().iter().all(Result::is_ok));
        assert_eq!(scene.request(&insurer, scene.ask_statistics(grant)), Err(Denial::LevelTooHigh));
    }
}

fn prohibition(purpose: bool, item: bool, category: bool) -> Prohibition {
    Prohibition {
        purpose: purpose.then_some(Purpose::Statistics),
        item: item.then(|| ItemId::of(1, 1)),
        category: category.then_some(Category::ClaimDocument),
    }
}

fn with_policy(edit: impl FnOnce(&mut Policy)) -> Scene {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::POLICY, edit);
    Scene::in_world(world, four)
}

#[test]
fn r14_the_negative_list_beats_a_valid_grant() {
    for bits in 1..8u8 {
        let listed = prohibition(bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let mut scene = with_policy(|p| p.prohibited = list(vec![listed.clone()]));
        let insurer = scene.four.insurer.clone();
        let grant = scene.grant(scene.standing(&insurer)).unwrap();
        let ask = scene.ask_statistics(grant);
        assert_eq!(scene.request(&insurer, ask), Err(Denial::Prohibited), "{listed:?}");
    }
    let others = [
        Prohibition { purpose: Some(Purpose::Research), ..prohibition(true, true, true) },
        Prohibition { item: Some(ItemId::of(2, 1)), ..prohibition(true, true, true) },
        Prohibition { category: Some(Category::Encounter), ..prohibition(true, true, true) },
    ];
    let mut scene = with_policy(|p| p.prohibited = list(others.to_vec()));
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    scene.request(&insurer, scene.ask_statistics(grant)).expect("each entry misses in one thing");
}

#[test]
fn r14_the_negative_list_is_asked_before_any_basis() {
    let mut scene = with_policy(|p| p.prohibited = list(vec![prohibition(false, true, false)]));
    let b = scene.four.hospital_b.clone();
    let none = Some(GrantId(digest("none")));
    let order = Some(OrderId(digest("none")));
    let emergency = Some(EmergencyReason::AcuteThreat);
    let plain = scene.ask(None);
    let asks = [
        plain.clone(),
        RequestAccess { grant: none, ..plain.clone() },
        RequestAccess { order, ..plain.clone() },
        RequestAccess { emergency, ..plain.clone() },
        RequestAccess { grant: none, order, emergency, ..plain.clone() },
    ];
    for ask in asks {
        assert_eq!(would_use(&mut scene, &b, ask), Err(Denial::Prohibited));
    }
    let elsewhere = RequestAccess { item: ItemId(digest("none")), ..plain };
    assert_eq!(would_use(&mut scene, &b, elsewhere), Err(Denial::NoSuchItem));
}

/// A use under a grant that was signed under version 1, while version 2 is in force. Both are edits of the
/// founding policy, which has a rule for statistics up to moderate.
fn under_two_policies(
    signed: impl FnOnce(&mut Policy),
    in_force: impl FnOnce(&mut Policy),
) -> Result<(), Denial> {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::policy(1), signed);
    world.amend(ObjectRef::POLICY, |p: &mut Policy| {
        p.version = 2;
        in_force(p);
    });
    let mut scene = Scene::in_world(world, four);
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    scene.request(&insurer, scene.ask_statistics(grant)).map(drop)
}

#[test]
fn r10_the_stricter_of_two_policies_decides() {
    type Edit = fn(&mut Policy);
    fn rule(p: &mut Policy, edit: impl Fn(&mut PurposeRule)) {
        let mut rules = p.rules.to_vec();
        rules.iter_mut().filter(|r| r.purpose == Purpose::Statistics).for_each(edit);
        p.rules = list(rules);
    }
    let strict: [(Edit, Denial); 5] = [
        (|p| rule(p, |r| r.max_level = Level::Low), Denial::LevelTooHigh),
        (|p| rule(p, |r| r.needs_case = true), Denial::CaseMissing),
        (|p| rule(p, |r| r.needs_settlement = true), Denial::NotSettled),
        (
            |p| {
                let others = p.rules.iter().filter(|r| r.purpose != Purpose::Statistics);
                p.rules = list(others.cloned().collect());
            },
            Denial::PurposeNotAllowed,
        ),
        (|p| p.prohibited = list(vec![prohibition(true, false, false)]), Denial::Prohibited),
    ];
    assert_eq!(under_two_policies(|_| (), |_| ()), Ok(()));
    for (edit, denial) in strict {
        assert_eq!(under_two_policies(edit, |_| ()), Err(denial), "a loosening widens no grant");
        assert_eq!(under_two_policies(|_| (), edit), Err(denial), "a tightening binds every grant");
        assert_eq!(under_two_policies(edit, edit), Err(denial));
    }
}

#[test]
fn r10_a_grant_under_a_policy_that_never_was_permits_nothing() {
    let mut scene = founded(|plain| {
        let terms = Grant { policy_version: 7, ..plain.standing(&plain.four.insurer) };
        vec![leaf(GrantId(digest("old")), &signed(plain, terms, false))]
    });
    let insurer = scene.four.insurer.clone();
    let ask = scene.ask_statistics(GrantId(digest("old")));
    assert_eq!(scene.request(&insurer, ask), Err(Denial::PurposeNotAllowed));
}

#[test]
fn r10_openings_are_judged_by_the_policy_in_force_alone() {
    let (mut world, four) = World::four();
    world.amend(ObjectRef::policy(1), |p: &mut Policy| p.rules = list(vec![]));
    world.amend(ObjectRef::POLICY, |p: &mut Policy| p.version = 2);
    let mut scene = Scene::in_world(world, four);
    let (a, insurer) = (scene.four.hospital_a.clone(), scene.four.insurer.clone());
    let recipients = list(vec![insurer.institution()]);
    let (item, level, opening) = (scene.item, Level::Moderate, Opening::Directed);
    scene.world.run(&a, Action::Classify(Classify { item, level, opening, recipients })).unwrap();
    let ask = RequestAccess { purpose: Purpose::Statistics, case: None, ..scene.ask(None) };
    scene.request(&insurer, ask).unwrap();
}

/// A grant's state from the founding on.
fn signed(scene: &Scene, terms: Grant, ratified: bool) -> GrantState {
    GrantState {
        account: scene.person.account(),
        terms,
        granted_height: Height(0),
        used: 0,
        delivered: 0,
        revocation: None,
        erased_height: None,
        signer: AccountId(digest("delegate")),
        ratified,
        hold: None,
    }
}

const END: TimeMs = TimeMs(assent_genesis::testing::TIME.0 + 1_000_000);

/// A delegation that is in force until [`END`] or has ended, and the grant that was signed by it.
struct Delegated {
    known: bool,
    ended: bool,
    ratified: bool,
}

impl Delegated {
    fn scene(self, edit: impl FnOnce(&mut Grant)) -> Scene {
        let id = DelegationId(digest("delegation"));
        founded(|plain| {
            let mut terms = Grant {
                delegation: Some(id),
                capacity: Capacity::Guardian,
                not_after: END.plus(1_000_000),
                ..plain.standing(&plain.four.insurer)
            };
            edit(&mut terms);
            let ended = Ended { cause: DelegationEnd::Revoked, height: Height(0), time: TimeMs(0) };
            let delegation = Delegation {
                ward: plain.person.account(),
                delegate: AccountId(digest("delegate")),
                capacity: Capacity::Guardian,
                issuer: plain.four.bureau.institution(),
                document: digest("register"),
                purposes: list(vec![Purpose::Statistics]),
                until: END,
                ended: self.ended.then_some(ended),
            };
            let grant = leaf(GrantId(digest("delegated")), &signed(plain, terms, self.ratified));
            std::iter::once(grant).chain(self.known.then(|| leaf(id, &delegation))).collect()
        })
    }

    fn verdict(self, at: TimeMs) -> Result<(), Denial> {
        let mut scene = self.scene(|_| ());
        let insurer = scene.four.insurer.clone();
        until(&mut scene, at);
        let ask = scene.ask_statistics(GrantId(digest("delegated")));
        would_use(&mut scene, &insurer, ask)
    }
}

#[test]
fn r15_a_delegates_grant_holds_as_long_as_the_delegation() {
    let over = Err(Denial::DelegationOver);
    for (offset, expected) in [(0, Ok(())), (1, over), (2, over)] {
        let at = TimeMs(END.0 - 1 + offset);
        let in_force = |ratified| Delegated { known: true, ended: false, ratified };
        assert_eq!(in_force(false).verdict(at), expected, "end - 1 + {offset}");
        assert_eq!(in_force(true).verdict(at), Ok(()), "the ward lets it hold");
        assert_eq!(Delegated { known: true, ended: true, ratified: false }.verdict(at), over);
        assert_eq!(Delegated { known: true, ended: true, ratified: true }.verdict(at), Ok(()));
        assert_eq!(Delegated { known: false, ended: false, ratified: false }.verdict(at), over);
    }
}

#[test]
fn the_states_of_a_grant_are_asked_in_their_order_and_before_its_times() {
    let grant = GrantId(digest("delegated"));
    let late = |g: &mut Grant| (g.not_after, g.max_level) = (TimeMs(1), Level::None);
    let verdict = |ratified, edit: fn(&mut Grant)| {
        let mut scene = Delegated { known: true, ended: true, ratified }.scene(edit);
        let insurer = scene.four.insurer.clone();
        let ask = scene.ask_statistics(grant);
        scene.request(&insurer, ask).unwrap_err()
    };
    let used_up: fn(&mut Grant) =
        |g| (g.mode, g.uses, g.not_after, g.max_level) = (Mode::NTimes, 0, TimeMs(1), Level::None);
    assert_eq!(verdict(false, used_up), Denial::GrantExhausted);
    assert_eq!(verdict(false, late), Denial::DelegationOver);
    assert_eq!(verdict(true, late), Denial::GrantSuspended);
    assert_eq!(verdict(true, |g| g.not_after = TimeMs(1)), Denial::GrantExpired);
}

#[test]
fn r18_a_suspended_custodians_items_are_used_by_nobody() {
    let item = ItemId::of(70, 1);
    for standing in [Standing::Active, Standing::Suspended, Standing::Expelled] {
        let mut scene = founded(|plain| {
            let b = plain.four.hospital_b.institution();
            let mut custodian: Institution = plain.world.get(b);
            custodian.standing = standing;
            let kept = Item { custodian: b, opening: Opening::Unconditional, ..opened(plain, 70) };
            vec![leaf(b, &custodian), leaf(item, &kept)]
        });
        let insurer = scene.four.insurer.clone();
        let plain = RequestAccess { item, purpose: Purpose::Statistics, ..scene.ask(None) };
        let grant = Some(GrantId(digest("none")));
        let several = RequestAccess { grant, ..emergency::ask(&scene) };
        let several = RequestAccess { item, ..several };
        let expected = match standing {
            Standing::Active => [Denial::OtherCustodian, Denial::SeveralBases],
            _ => [Denial::CustodianSuspended; 2],
        };
        let verdicts = [plain, several].map(|ask| would_use(&mut scene, &insurer, ask).unwrap_err());
        assert_eq!(verdicts, expected, "{standing:?}");
    }
}

#[test]
fn r2_a_grant_is_used_from_its_first_moment_to_its_last() {
    let (first, last) = (END, END.plus(5));
    let cases = [
        (END.0 - 1, Err(Denial::GrantNotYetValid)),
        (first.0, Ok(())),
        (first.0 + 1, Ok(())),
        (last.0 - 1, Ok(())),
        (last.0, Ok(())),
        (last.0 + 1, Err(Denial::GrantExpired)),
    ];
    for (at, expected) in cases {
        let mut scene = Scene::new();
        let insurer = scene.four.insurer.clone();
        let terms = Grant { not_before: first, not_after: last, ..scene.standing(&insurer) };
        let grant = scene.grant(terms).unwrap();
        until(&mut scene, TimeMs(at));
        let ask = scene.ask_statistics(grant);
        assert_eq!(would_use(&mut scene, &insurer, ask), expected, "{at}");
    }
}

#[test]
fn r11_a_review_lasts_until_its_last_moment() {
    for (offset, expected) in [(0, Ok(())), (1, Ok(())), (2, Err(Denial::ReviewMissing))] {
        let mut scene = Scene::new();
        let (bureau, a, insurer) =
            (scene.four.bureau.clone(), scene.four.hospital_a.clone(), scene.four.insurer.clone());
        let (item, purpose, recipients) = (scene.item, Purpose::Statistics, list(vec![]));
        let (level, opening) = (Level::Moderate, Opening::AfterReview);
        scene.world.run(&a, Action::Classify(Classify { item, level, opening, recipients })).unwrap();
        let review = ReviewOpening { item, requester: insurer.institution(), purpose, until: END };
        scene.world.run(&bureau, Action::ReviewOpening(review)).unwrap();
        until(&mut scene, TimeMs(END.0 - 1 + offset));
        let ask = RequestAccess { purpose, case: None, ..scene.ask(None) };
        assert_eq!(would_use(&mut scene, &insurer, ask), expected, "end - 1 + {offset}");
    }
}

#[test]
fn r11_days_at_the_edges_of_the_period() {
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let terms = Grant { data_from: Day(101), data_to: Day(103), ..scene.standing(&insurer) };
    let grant = scene.grant(terms).unwrap();
    let ordered = IssueOrder { data_from: Day(101), data_to: Day(103), ..orders::terms(&scene) };
    let order = orders::issue(&mut scene, ordered).unwrap();
    for (i, inside) in [false, true, true, true, false].into_iter().enumerate() {
        let records = || list(vec![scene.records[i].clone()]);
        let by_grant = RequestAccess { records: records(), ..scene.ask_statistics(grant) };
        let by_order = RequestAccess { records: records(), ..orders::ask(&scene, order) };
        let expected = |no| if inside { Ok(()) } else { Err(no) };
        let verdict = would_use(&mut scene, &insurer, by_grant);
        assert_eq!(verdict, expected(Denial::PeriodNotCovered), "day {}", 100 + i);
        let verdict = would_use(&mut scene, &insurer, by_order);
        assert_eq!(verdict, expected(Denial::OrderDoesNotCover), "day {}", 100 + i);
    }
}
