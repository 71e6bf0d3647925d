//! Who votes changes while the chain goes on: by real governance transactions, over whole validators in the
//! simulator, at stated heights, without restarts and through them; who is silent is passed over and comes back.

#![allow(clippy::unwrap_used)] // the helpers of a test fail as the test does

use assent_ledger::testing::{Party, change_validators, digest, secret};
use assent_proto::transaction::{Approve, Change, Propose};
use assent_proto::validators::{Validator, ValidatorSet};
use assent_proto::{Action, Address, BodyId, Height, ProposalId, SecretKey};
use assent_tests::sim::council::{Motion, way};
use assent_tests::sim::disk::Unsynced;
use assent_tests::sim::workload::{Step, What};
use assent_tests::sim::{Founding, Sim, Weather};

/// A new set votes so many heights above the newest one when it is proposed: room for three blocks.
const AHEAD: u64 = 12;

/// A chain whose institutions decide things.
struct Council {
    sim: Sim,
    founding: Founding,
    persons: u32,
}

impl Council {
    fn new(seed: u64) -> Council {
        let sim = Sim::new(seed, Weather::FAIR);
        Council { sim, founding: Founding::four(), persons: 0 }
    }

    /// Proposed and approved, and in the state.
    fn decide(&mut self, motion: &Motion) {
        let council = ["bureau", "hospital-a", "hospital-b"].map(|slug| self.founding.operator(slug));
        let way = way(motion, &council, council[0].institution(), &[], 0);
        self.sim.employ(way.steps);
        self.until("it is decided", |sim| way.decided.iter().all(|d| sim.is_final(d)));
    }

    fn until(&mut self, what: &str, done: impl Fn(&Sim) -> bool) {
        self.sim.run_until(120_000, what, done);
    }

    /// One enrolment after the other, until the chain is so high.
    fn pass(&mut self, height: Height) {
        while self.sim.newest_state().0 < height {
            self.persons += 1;
            let tx = self.sim.enrolment(&format!("person {}", self.persons));
            self.sim.submit_in(0, tx);
            self.until("a person is enrolled", |sim| sim.all_final());
        }
    }

    /// The set that votes at a height above the newest.
    fn set(&self, height: Height) -> ValidatorSet {
        assent_ledger::validators(&self.sim.newest_state().1).at(height).clone()
    }

    /// Decides on a set by three of the four institutions; says from which height on it votes.
    fn resolve(&mut self, keys: &[&SecretKey], edit: impl FnOnce(&mut Vec<Validator>)) -> Height {
        let genesis = self.sim.genesis.hash();
        let (newest, state) = self.sim.newest_state();
        let from = Height(newest.0 + AHEAD);
        let change = change_validators(&genesis, &state, newest.next(), from, keys, edit);
        let until = self.sim.now.plus(600_000);
        let propose = Propose { change: Change::Validators(change), until };
        let council = ["bureau", "hospital-a", "hospital-b"].map(|slug| self.founding.operator(slug));
        let id = self.submit(&council[0], Action::Propose(Box::new(propose)));
        for by in &council[1..] {
            self.submit(by, Action::Approve(Approve { proposal: ProposalId(id.0) }));
        }
        let pending = assent_ledger::validators(&self.sim.newest_state().1).pending;
        assert_eq!(pending.map(|p| p.from), Some(from), "denied: {:?}", self.codes(newest));
        from
    }

    fn submit(&mut self, by: &Party, action: Action) -> BodyId {
        let tx = self.sim.sign(by.author, action, &[&by.key]);
        let body = tx.body_id();
        self.sim.submit_in(0, tx);
        self.until("it is final", |sim| sim.is_final(&body));
        body
    }

    /// Decides on a set, and lets the chain come to where it votes.
    fn enact(&mut self, keys: &[&SecretKey], edit: impl FnOnce(&mut Vec<Validator>)) -> Height {
        let from = self.resolve(keys, edit);
        self.pass(Height(from.0 + 4));
        from
    }

    /// What came of the transactions above a height.
    fn codes(&self, above: Height) -> Vec<u32> {
        let at = (0..self.sim.machines()).max_by_key(|at| self.sim.height(*at)).unwrap();
        let outcomes = self.sim.disk(at).outcomes.range(above.next()..);
        outcomes.flat_map(|(_, (receipts, _))| receipts.iter().map(|r| r.code)).collect()
    }

    /// The header of a block, as a machine holds it.
    fn header(&self, at: usize, height: Height) -> assent_proto::Header {
        self.sim.disk(at).read(height).expect("it is above the height").header
    }

    fn newcomer(&mut self, name: &str) -> usize {
        self.decide(&Motion::Admit(name.into()));
        let at = self.sim.add_joiner(name);
        let ticket = BodyId(digest(&format!("{name} came")));
        self.sim.employ(vec![Step { what: What::Join { at, ticket }, needs: Vec::new(), at_ms: 0 }]);
        self.until("it came", |sim| sim.is_final(&ticket));
        at
    }

    fn votes(&self, at: usize) -> bool {
        self.sim.replica(at).expect("it is on").status().voting
    }

    fn passed_over(&self, at: usize) -> Vec<Address> {
        self.sim.replica(at).expect("it is on").status().passed_over
    }
}

/// The change is at that height and at no other: in the headers, and in who votes.
fn changed_at(c: &Council, from: Height, before: &ValidatorSet) {
    let (last, first) = (Height(from.0 - 1), from);
    let (below, above) = (c.header(0, last), c.header(0, first));
    assert_eq!(below.validators, before.hash());
    assert_eq!(below.next_validators, above.validators);
    assert_ne!(above.validators, below.validators, "from height {from} on another set votes");
    assert_eq!(c.header(0, Height(from.0 - 2)).next_validators, before.hash());
}

#[test]
fn validators_are_added_rekeyed_reweighted_and_removed_at_their_heights() {
    let mut c = Council::new(7);
    let bureau = c.founding.operator("bureau").institution();
    let at = c.newcomer("fifth");
    c.pass(Height(c.sim.newest_state().0.0 + 2));
    assert!(!c.votes(at), "a node that is admitted observes");
    assert_eq!(c.sim.height(at), c.sim.height(0), "and follows");

    let before = c.set(Height(c.sim.newest_state().0.0 + 1));
    let from = c.enact(&[&secret("fifth")], |set| {
        set.push(Validator { key: secret("fifth").public(), institution: bureau, ..set[0].clone() });
    });
    changed_at(&c, from, &before);
    assert!(c.votes(at), "without a restart");
    let index = c.set(from).by_address(&c.sim.addresses[at]).unwrap().0;
    let certificates = c.sim.disk(0).blocks.range(from..).map(|(_, (_, certificate))| certificate.clone());
    let signs = certificates.filter(|c| c.signatures.iter().any(|s| s.validator == index)).count();
    assert!(signs > 0, "its precommits count");

    let before = c.set(Height(from.0 + 5));
    // Whose node takes its place is of the same institution.
    let of_bureau = |v: &Validator| v.institution == bureau;
    let old = c.sim.genesis.validators().validators.iter().position(of_bureau).unwrap();
    let rest: Vec<usize> = (0..4).filter(|at| *at != old).collect();
    let sixth = c.newcomer("sixth");
    let from = c.enact(&[&secret("sixth")], |set| set[old].key = secret("sixth").public());
    changed_at(&c, from, &before);
    assert!(c.votes(sixth) && !c.votes(old), "the old key observes");

    let before = c.set(Height(from.0 + 5));
    let from = c.enact(&[], |set| set[rest[0]].power = 2);
    changed_at(&c, from, &before);
    assert_eq!(c.set(Height(from.0 + 5)).total_power(), 6);

    let before = c.set(Height(from.0 + 5));
    let from = c.enact(&[], |set| {
        set.remove(rest[1]);
    });
    changed_at(&c, from, &before);
    assert!(!c.votes(rest[1]));
    c.pass(Height(from.0 + 8));
    c.until("those that do not vote any more follow", |sim| {
        [1, 2, 3, at, sixth].iter().all(|other| sim.height(*other) == sim.height(0))
    });
    c.sim.check_agreement();
}

#[test]
fn a_change_survives_that_all_lose_power_before_it_and_at_it() {
    for early in [0, 1, 2, 3, 4] {
        let mut c = Council::new(11 + early);
        let before = c.set(Height(1));
        let from = c.resolve(&[], |set| set[1].power = 3);
        c.pass(Height(from.0 + 1 - early));
        for at in 0..4 {
            c.sim.cut_power_in(0, at, early, Unsynced::Lost);
        }
        c.sim.run_for(50);
        (0..4).for_each(|at| c.sim.stop(at));
        c.sim.start_all();
        c.pass(Height(from.0 + 3));
        c.until("all are at the same height", |sim| sim.all_final());
        changed_at(&c, from, &before);
        c.sim.check_agreement();
    }
}

#[test]
fn who_is_silent_is_passed_over_costs_one_round_and_comes_back() {
    let mut c = Council::new(3);
    c.pass(Height(4));
    let (away, from) = (3, c.sim.newest_state().0);
    let who = c.sim.addresses[away];
    c.sim.stop(away);
    let on = |c: &Council| c.sim.newest_state().0;
    let mut next = from;
    while next.0 < from.0 + 24 {
        c.persons += 1;
        let tx = c.sim.enrolment(&format!("person {}", c.persons));
        let ticket = tx.body_id();
        c.sim.submit_in(0, tx);
        c.until("a person is enrolled", |sim| sim.is_final(&ticket));
        next = on(&c);
    }
    assert_eq!(c.passed_over(0), [who]);
    let rounds: Vec<u32> =
        c.sim.disk(0).blocks.range(from.next()..).map(|(_, (_, certificate))| certificate.round).collect();
    let lost = rounds.iter().filter(|r| **r > 0).count();
    assert!((1..=2).contains(&lost), "one turn of {} heights: {rounds:?}", rounds.len());

    c.sim.start(away);
    let back = on(&c);
    c.until("it has caught up", |sim| sim.height(3) >= back);
    for _ in 0..24 {
        c.pass(on(&c).next());
    }
    assert_eq!(c.passed_over(0), [], "its signatures and its next turn clear it");
    let built =
        c.sim.disk(0).blocks.range(back.next()..).filter(|(height, _)| c.header(0, **height).builder == who);
    assert!(built.count() > 0, "it proposes again");
    c.sim.check_agreement();
}
