//! What clients do in a run: real transactions of every kind, with the races that matter. All but those that
//! name a height are signed before the run begins; ids follow from bodies, so each client knows what it has to
//! wait for.

use assent_ledger::testing::{
    Four, Party, Scene, World, activity, digest, enrol, list, product, record, secret,
};
use assent_proto::transaction::{
    ActivityKind, AttestErasure, Category, Classify, Deliver, Grant, Level, Opening, Purpose, RecordProof,
    RequestAccess, ReviewOpening, Revoke,
};
use assent_proto::{
    Action, Author, BodyId, Commitment, DelegationId, Denial, GrantId, Hash, InstitutionId, ItemId, List,
    OrderId, PermitId, TimeMs, VerifiedTx, merkle,
};

use super::council::{self, Motion};
use super::races::{self, Ground};
use super::{Founding, Random, Sim};

/// A client's transaction.
pub struct Step {
    /// It.
    pub what: What,
    /// What has to be final before it is handed in, by ticket.
    pub needs: Vec<BodyId>,
    /// The client wakes so many ms after the beginning.
    pub at_ms: u64,
}

/// A transaction, or what it is to be.
#[allow(clippy::large_enum_variant, reason = "a few dozen in a run")]
pub enum What {
    /// Signed before the run; its ticket is its body id.
    Signed(VerifiedTx),
    /// Signed when its time has come.
    Late(Late),
    /// No transaction: a machine of a node that was admitted is switched on.
    Join {
        /// Which.
        at: usize,
        /// Names it.
        ticket: BodyId,
    },
}

/// What names something that is known only in the run.
pub enum Late {
    /// A delivery: it names the newest height that the custodian has seen.
    Deliver {
        /// The custodian.
        by: Party,
        /// Against which permit.
        permit: PermitId,
        /// Over the records.
        manifest: Hash,
        /// How many.
        records: u32,
        /// Names it.
        ticket: BodyId,
    },
    /// A proposal: it names the set in force.
    Propose {
        /// Who moves it.
        by: Party,
        /// What.
        motion: Motion,
        /// Whose node or validator it is about.
        institution: InstitutionId,
        /// Names it.
        ticket: BodyId,
    },
    /// An approval: it names the proposal.
    Approve {
        /// Who approves.
        by: Party,
        /// The proposal's ticket.
        proposal: BodyId,
        /// Names it.
        ticket: BodyId,
    },
}

impl Step {
    /// Names the transaction before it is signed.
    pub fn ticket(&self) -> BodyId {
        match &self.what {
            What::Signed(tx) => tx.body_id(),
            What::Late(
                Late::Deliver { ticket, .. } | Late::Propose { ticket, .. } | Late::Approve { ticket, .. },
            ) => *ticket,
            What::Join { ticket, .. } => *ticket,
        }
    }
}

impl Late {
    /// Signs it now.
    pub fn sign(&self, sim: &Sim) -> VerifiedTx {
        match self {
            Late::Deliver { by, permit, manifest, records, .. } => {
                let (released_height, package) = (sim.watch.newest(), digest("package"));
                let (permit, manifest, records) = (*permit, *manifest, *records);
                let delivery = Deliver { permit, released_height, manifest, records, package };
                sim.sign(by.author, Action::Deliver(delivery), &[&by.key])
            }
            Late::Propose { by, motion, institution, .. } => council::propose(sim, by, motion, *institution),
            Late::Approve { by, proposal, .. } => council::approve(sim, by, sim.body_of(proposal)),
        }
    }
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
    /// Open to all until they are graded anew: no use is permitted after that.
    pub closing: Vec<ItemId>,
    /// Grants that a delegate signs, and by which delegation.
    pub delegated: Vec<(GrantId, DelegationId)>,
    /// Orders, until when they are used, and from when on the person is told.
    pub orders: Vec<(OrderId, TimeMs, TimeMs)>,
    /// Grants for what comes onto the negative list.
    pub prohibited: Vec<GrantId>,
    /// Applied, whatever happens meanwhile.
    pub applied: Vec<BodyId>,
    /// Denied, and so.
    pub denied_as: Vec<(BodyId, Denial)>,
    /// Proposals, which only who has a say may make, and what then has to come of what was asked after all had approved:
    /// a denial, or none.
    pub if_moved: Vec<(BodyId, BodyId, Option<Denial>)>,
    /// At most one of the two is applied.
    pub rivals: Vec<(BodyId, BodyId)>,
    /// Either both are applied or neither.
    pub alike: Vec<(BodyId, BodyId)>,
    /// By a person's key and what replaces that: in its block the first is denied, above it in none.
    pub replaced: Vec<(BodyId, BodyId)>,
    /// By an institution's key and what retires that: above its block the first is in none.
    pub retired: Vec<(BodyId, BodyId)>,
}

/// Transactions are signed to live until this long after the founding.
const SIGNED_AT_MS: u64 = 400_000;

/// One life of a person's records, with races over her grants and strangers enrolled meanwhile; and the `races` of
/// the whole decision, drawn from a stream of their own.
pub fn draw(
    founding: &Founding,
    random: &mut Random,
    spread_ms: u64,
    races: Option<&mut Random>,
) -> Workload {
    let mut scene = scene(founding);
    let mut w = Workload::default();
    let open = open_item(&mut scene);
    let ready = w.lay_ground(&mut scene);
    let w = &mut w;
    w.use_twice(&mut scene, &ready, random.below(spread_ms));
    w.revoke_against_use(&mut scene, &ready, random.below(spread_ms));
    w.revoke_before_grant(&mut scene, &ready, random.below(spread_ms));
    for _ in 0..1 + random.below(3) {
        let at_ms = random.below(spread_ms);
        match random.below(6) {
            0 => w.use_twice(&mut scene, &ready, at_ms),
            1 => w.revoke_against_use(&mut scene, &ready, at_ms),
            2 | 3 => w.make_something(&mut scene, &ready, at_ms, random),
            4 => w.grade_against_use(&mut scene, &open, &ready, at_ms),
            _ => w.denied(&mut scene, &ready, at_ms),
        }
    }
    for n in 0..3 + random.below(4) {
        let (bureau, custodian) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
        let key = secret(&format!("stranger {n}"));
        let body = scene.world.body(&bureau, enrol(&custodian, &key));
        let tx = scene.world.seal(&body, &[&bureau.key, &key]);
        w.push(tx, &[], random.below(spread_ms));
    }
    if let Some(random) = races {
        races::draw(w, &mut Ground { founding, scene: &mut scene, ready }, random, spread_ms);
    }
    std::mem::take(w)
}

/// The ledger's sandbox on the chain of the run: its builders sign what the clients hand in.
fn scene(founding: &Founding) -> Scene {
    let genesis = &founding.genesis;
    let mut world = World::found(genesis.hash(), genesis.time(), genesis.leaves());
    world.wait(SIGNED_AT_MS);
    let mut scene = Scene::in_world(world, founding.four_operators());
    scene.settle();
    scene
}

/// An item of hospital A that is open to all, with one record.
struct OpenItem {
    id: ItemId,
    records: Vec<RecordProof>,
}

fn open_item(scene: &mut Scene) -> OpenItem {
    let hospital = scene.four.hospital_a.clone();
    let (category, open) = (Category::ClaimDocument, Opening::Unconditional);
    let id = scene.world.item(&hospital, 9, category, Level::None, open);
    let record = record(&scene.person, 50, 101);
    let records = scene.world.anchor(&hospital, id, &[record], &[]);
    OpenItem { id, records }
}

impl Workload {
    pub(super) fn push(&mut self, tx: VerifiedTx, needs: &[BodyId], at_ms: u64) -> BodyId {
        let id = tx.body_id();
        self.steps.push(Step { what: What::Signed(tx), needs: needs.to_vec(), at_ms });
        id
    }

    pub(super) fn sign(
        &mut self,
        scene: &mut Scene,
        by: &Party,
        action: Action,
        needs: &[BodyId],
        at_ms: u64,
    ) -> BodyId {
        let tx = scene.world.sign(by, action);
        self.push(tx, needs, at_ms)
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
        GrantId(self.sign(scene, &person, Action::Grant(Box::new(terms)), needs, at_ms).0)
    }

    fn ask(&mut self, scene: &mut Scene, request: RequestAccess, needs: &[BodyId], at_ms: u64) -> BodyId {
        let insurer = scene.four.insurer.clone();
        self.sign(scene, &insurer, Action::RequestAccess(Box::new(request)), needs, at_ms)
    }

    fn revoke(&mut self, scene: &mut Scene, grant: GrantId, needs: &[BodyId], at_ms: u64) -> BodyId {
        let person = scene.person.clone();
        self.sign(scene, &person, Action::Revoke(Revoke { grant }), needs, at_ms)
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

    /// A permit, its delivery handed in twice, two activities on what came of it; then the grant is revoked and
    /// the erasure attested. Sometimes the revocation races the delivery.
    fn make_something(&mut self, scene: &mut Scene, ready: &[BodyId], at_ms: u64, random: &mut Random) {
        let (insurer, hospital) = (scene.four.insurer.clone(), scene.four.hospital_a.clone());
        let grant = self.grant(scene, scene.standing(&insurer), ready, at_ms);
        let request = scene.ask_statistics(grant);
        let leaves: Vec<_> = request.records.iter().map(|p| p.record.leaf()).collect();
        let asked = self.ask(scene, request, &[BodyId(grant.0)], at_ms);
        let permit = PermitId(asked.0);
        let (manifest, records) = (merkle::root(&leaves), leaves.len() as u32);
        let mut delivered = Vec::new();
        for n in 0..2 {
            let ticket = BodyId(digest(&format!("delivery {n} of {}", asked.0)));
            let late = Late::Deliver { by: hospital.clone(), permit, manifest, records, ticket };
            self.steps.push(Step { what: What::Late(late), needs: vec![asked], at_ms });
            delivered.push(ticket);
        }
        let first = product(&format!("first of {}", asked.0), Level::Moderate);
        let second = product(&format!("second of {}", asked.0), Level::High);
        let mask = activity(ActivityKind::Mask, &[permit], &[], &[&first]);
        let masked = self.sign(scene, &insurer, mask, &delivered, at_ms);
        let reuse = activity(ActivityKind::Aggregate, &[], &[first.id], &[&second]);
        self.sign(scene, &insurer, reuse, &[masked], at_ms);
        let after = if random.chance(500) { vec![masked] } else { vec![asked] };
        let revoked = self.revoke(scene, grant, &after, at_ms);
        let erasure = AttestErasure { grant, report: digest("report"), hold: None };
        self.sign(scene, &insurer, Action::AttestErasure(erasure), &[revoked, masked], at_ms);
    }

    /// An item that is open to all is closed while somebody uses it.
    fn grade_against_use(&mut self, scene: &mut Scene, open: &OpenItem, ready: &[BodyId], at_ms: u64) {
        let hospital = scene.four.hospital_a.clone();
        for _ in 0..2 {
            let request = RequestAccess {
                item: open.id,
                account: None,
                purpose: Purpose::Statistics,
                case: None,
                records: list(open.records.clone()),
                ..scene.ask(None)
            };
            self.ask(scene, request, ready, at_ms);
        }
        let (level, opening) = (Level::High, Opening::Prohibited);
        let closed = Classify { item: open.id, level, opening, recipients: List::empty() };
        self.sign(scene, &hospital, Action::Classify(closed), ready, at_ms);
        self.closing.push(open.id);
    }

    /// Requests that no rule permits, and a review that only its purpose profits from.
    fn denied(&mut self, scene: &mut Scene, ready: &[BodyId], at_ms: u64) {
        let (bureau, stranger) = (scene.four.bureau.clone(), scene.four.hospital_b.clone());
        let invented = GrantId(digest("a grant that nobody made"));
        self.ask(scene, scene.ask(Some(invented)), ready, at_ms);
        let marketing = RequestAccess { purpose: Purpose::Marketing, ..scene.ask(None) };
        self.ask(scene, marketing, ready, at_ms);
        let until = TimeMs(scene.world.at().time.0 + 3_600_000);
        let requester = scene.four.insurer.institution();
        let review = ReviewOpening { item: scene.item, requester, purpose: Purpose::Research, until };
        self.sign(scene, &bureau, Action::ReviewOpening(review), ready, at_ms);
        let down = Classify {
            item: scene.item,
            level: Level::None,
            opening: Opening::Unconditional,
            recipients: List::empty(),
        };
        self.sign(scene, &stranger, Action::Classify(down), ready, at_ms);
        let anonymous = RequestAccess { staff: Commitment(digest("other staff")), ..scene.ask(None) };
        self.ask(scene, anonymous, ready, at_ms);
    }
}

/// What is done to change who votes while everything else goes on: a node is admitted and comes, votes, and
/// then perhaps somebody leaves, is replaced or weighs more. Between them persons are enrolled, so that heights
/// pass.
pub fn govern(sim: &mut Sim, founding: &Founding, random: &mut Random, faultless: bool, at_ms: u64) {
    let council = council_of(founding);
    let institution = council[random.below(3) as usize].institution();
    let name = "a node that came later";
    let at = sim.add_joiner(name);
    let mut needs = decide(sim, &council, institution, &Motion::Admit(name.into()), &[], at_ms);
    let ticket = BodyId(digest("it came"));
    sim.employ(vec![Step { what: What::Join { at, ticket }, needs, at_ms }]);
    let set = &founding.genesis.validators().validators;
    let own: Vec<_> = set.iter().filter(|v| v.institution == institution).map(|v| v.key).collect();
    let old = random.pick(&own);
    let seat = match random.below(3) {
        0 => Motion::Replace(old, name.into()),
        _ => Motion::Seat(name.into()),
    };
    needs = decide(sim, &council, institution, &seat, &[ticket], at_ms);
    needs = pass_time(sim, "first", &needs);
    if faultless {
        let staying: Vec<_> = set.iter().map(|v| v.key).filter(|key| *key != old).collect();
        let key = random.pick(&staying);
        let motion = match random.below(2) {
            0 => Motion::Weigh(key, 2),
            _ => Motion::Unseat(key),
        };
        needs = decide(sim, &council, institution, &motion, &needs, at_ms);
        pass_time(sim, "second", &needs);
    } else {
        decide(sim, &council, institution, &Motion::Punish, &needs, at_ms);
    }
}

/// The next protocol version is decided on while everything else goes on, and heights pass until it is in force.
pub fn upgrade(sim: &mut Sim, founding: &Founding, at_ms: u64) {
    let council = council_of(founding);
    let decided = decide(sim, &council, council[0].institution(), &Motion::Upgrade, &[], at_ms);
    pass_time(sim, "upgrade", &decided);
}

/// Institutions that together decide.
fn council_of(founding: &Founding) -> Vec<Party> {
    ["bureau", "hospital-a", "hospital-b"].map(|s| founding.operator(s)).into()
}

fn decide(
    sim: &mut Sim,
    council: &[Party],
    institution: InstitutionId,
    motion: &Motion,
    needs: &[BodyId],
    at_ms: u64,
) -> Vec<BodyId> {
    let way = council::way(motion, council, institution, needs, at_ms);
    sim.employ(way.steps);
    way.decided
}

/// One enrolment after the other, so that as many heights pass.
fn pass_time(sim: &mut Sim, name: &str, needs: &[BodyId]) -> Vec<BodyId> {
    let mut needs = needs.to_vec();
    for n in 0..8 {
        let tx = sim.enrolment(&format!("{name} {n}"));
        let ticket = tx.body_id();
        sim.employ(vec![Step { what: What::Signed(tx), needs, at_ms: 0 }]);
        needs = vec![ticket];
    }
    needs
}

impl Founding {
    /// Who acts for the four.
    pub fn four_operators(&self) -> Four {
        Four::of(|slug| self.operator(slug))
    }

    /// Who acts for an institution.
    pub fn operator(&self, slug: &str) -> Party {
        let mut entries = self.genesis.institutions().iter().zip(&self.operators);
        let (entry, key) = entries.find(|(e, _)| e.slug == slug).expect("the cast of every chain of tests");
        Party { author: Author::Institution(entry.id), key: key.clone() }
    }
}
