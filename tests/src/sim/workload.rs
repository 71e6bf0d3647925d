//! What clients do in a run: real transactions of several kinds, with the races that matter. All are signed
//! before the run begins; ids follow from bodies, so each client knows what it has to wait for.

use assent_ledger::testing::{Four, Party, Scene, World, enrol, secret};
use assent_proto::transaction::{Grant, RequestAccess, Revoke};
use assent_proto::{Action, Author, BodyId, GrantId, VerifiedTx};

use super::{Founding, Random};

/// A client's transaction.
pub struct Step {
    /// It.
    pub tx: VerifiedTx,
    /// What has to be final before it is handed in.
    pub needs: Vec<BodyId>,
    /// The client wakes so many ms after the beginning.
    pub at_ms: u64,
}

/// All transactions of a run, and what must come of them.
#[derive(Default)]
pub struct Workload {
    /// The transactions.
    pub steps: Vec<Step>,
    /// Grants for one use: permitted at most once.
    pub one_time: Vec<GrantId>,
    /// Those of them that are asked for twice and never revoked: permitted once and denied once.
    pub used_up: Vec<GrantId>,
    /// Revoked before they were made: never permitted.
    pub born_revoked: Vec<GrantId>,
}

/// Transactions are signed to live until this long after the founding.
const SIGNED_AT_MS: u64 = 400_000;

/// One life of a person's records, with races over her grants and strangers enrolled meanwhile.
pub fn draw(founding: &Founding, random: &mut Random, spread_ms: u64) -> Workload {
    let mut scene = scene(founding);
    let mut w = Workload::default();
    let ready = w.lay_ground(&mut scene);
    for _ in 0..1 + random.below(2) {
        w.use_twice(&mut scene, &ready, random.below(spread_ms));
    }
    for _ in 0..1 + random.below(2) {
        w.revoke_against_use(&mut scene, &ready, random.below(spread_ms));
    }
    w.revoke_before_grant(&mut scene, &ready, random.below(spread_ms));
    for n in 0..4 + random.below(6) {
        let (bureau, custodian) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
        let key = secret(&format!("stranger {n}"));
        let body = scene.world.body(&bureau, enrol(&custodian, &key));
        let tx = scene.world.seal(&body, &[&bureau.key, &key]);
        w.push(tx, &[], random.below(spread_ms));
    }
    w
}

/// The ledger's sandbox on the chain of the run: its builders sign what the clients hand in.
fn scene(founding: &Founding) -> Scene {
    let genesis = &founding.genesis;
    let mut world = World::found(genesis.hash(), genesis.time(), genesis.leaves());
    world.wait(SIGNED_AT_MS);
    let party = |slug| {
        let found = genesis.institutions().iter().zip(&founding.operators).find(|(e, _)| e.slug == slug);
        let (entry, key) = found.expect("the cast of every chain of tests");
        Party { author: Author::Institution(entry.id), key: key.clone() }
    };
    let four = Four {
        bureau: party("bureau"),
        hospital_a: party("hospital-a"),
        hospital_b: party("hospital-b"),
        insurer: party("insurer"),
    };
    let mut scene = Scene::in_world(world, four);
    scene.settle();
    scene
}

impl Workload {
    fn push(&mut self, tx: VerifiedTx, needs: &[BodyId], at_ms: u64) -> BodyId {
        let id = tx.body_id();
        self.steps.push(Step { tx, needs: needs.to_vec(), at_ms });
        id
    }

    /// Enrolment, items, anchored records, the settlement: what the scene made, handed in anew. Those that
    /// build on others wait for them.
    fn lay_ground(&mut self, scene: &mut Scene) -> Vec<BodyId> {
        let made: Vec<_> = scene.world.blocks().iter().flat_map(|(_, txs)| txs.clone()).collect();
        let mut all = Vec::new();
        for tx in made {
            let anchors = matches!(tx.body().action, Action::AnchorRecords(_));
            let needs = if anchors { all.clone() } else { Vec::new() };
            all.push(self.push(tx, &needs, 0));
        }
        all
    }

    fn grant(&mut self, scene: &mut Scene, terms: Grant, needs: &[BodyId], at_ms: u64) -> GrantId {
        let person = scene.person.clone();
        let tx = scene.world.sign(&person, Action::Grant(Box::new(terms)));
        GrantId(self.push(tx, needs, at_ms).0)
    }

    fn ask(&mut self, scene: &mut Scene, request: RequestAccess, needs: &[BodyId], at_ms: u64) -> BodyId {
        let insurer = scene.four.insurer.clone();
        let tx = scene.world.sign(&insurer, Action::RequestAccess(Box::new(request)));
        self.push(tx, needs, at_ms)
    }

    fn revoke(&mut self, scene: &mut Scene, grant: GrantId, needs: &[BodyId], at_ms: u64) -> BodyId {
        let person = scene.person.clone();
        let tx = scene.world.sign(&person, Action::Revoke(Revoke { grant }));
        self.push(tx, needs, at_ms)
    }

    /// A grant for one use is used through two doors at once.
    fn use_twice(&mut self, scene: &mut Scene, ready: &[BodyId], at_ms: u64) {
        let grant = self.grant(scene, scene.terms(), ready, at_ms);
        let needs = [ready, &[BodyId(grant.0)]].concat();
        for _ in 0..2 {
            self.ask(scene, scene.ask(Some(grant)), &needs, at_ms);
        }
        self.one_time.push(grant);
        self.used_up.push(grant);
    }

    /// A revocation and uses set out at the same moment.
    fn revoke_against_use(&mut self, scene: &mut Scene, ready: &[BodyId], at_ms: u64) {
        let insurer = scene.four.insurer.clone();
        let grant = self.grant(scene, scene.standing(&insurer), ready, at_ms);
        let once = self.grant(scene, scene.terms(), ready, at_ms);
        let needs = [ready, &[BodyId(grant.0), BodyId(once.0)]].concat();
        for _ in 0..2 {
            self.ask(scene, scene.ask_statistics(grant), &needs, at_ms);
        }
        self.ask(scene, scene.ask(Some(once)), &needs, at_ms);
        self.revoke(scene, grant, &needs, at_ms);
        self.revoke(scene, once, &needs, at_ms);
        self.one_time.push(once);
    }

    /// A revocation is final before the grant that it names is handed in.
    fn revoke_before_grant(&mut self, scene: &mut Scene, ready: &[BodyId], at_ms: u64) {
        let person = scene.person.clone();
        let terms = scene.terms();
        let tx = scene.world.sign(&person, Action::Grant(Box::new(terms)));
        let grant = GrantId(tx.body_id().0);
        let revoked = self.revoke(scene, grant, ready, at_ms);
        let granted = self.push(tx, &[ready, &[revoked]].concat(), at_ms);
        self.ask(scene, scene.ask(Some(grant)), &[ready, &[revoked, granted]].concat(), at_ms);
        self.one_time.push(grant);
        self.born_revoked.push(grant);
    }
}
