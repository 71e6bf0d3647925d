//! R24 against an independent judge: random courses of grants, requests and activities go through the ledger,
//! the client walks what came of them, and petgraph must find the same from what was submitted.
//!
//! The reference graph is made of the submitted actions and their verdicts alone; it knows no event and no
//! trail. What the client walks is made of the blocks and the events' links alone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use assent_client::lineage::{self, Entry, Excluded, Node, Source, Step};
use assent_ledger::testing::*;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, VerifiedTx};
use petgraph::algo::is_cyclic_directed;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::test_runner::TestRunner;

/// One thing that somebody does; the numbers choose among what there is by then.
#[derive(Clone, Debug)]
enum Move {
    Grant {
        person: u8,
        agent: u8,
    },
    Revoke {
        grant: u8,
    },
    /// Under a grant, seldom by another than its grantee.
    Ask {
        grant: u8,
        records: u8,
        stray: u8,
    },
    /// Under an opening, for records of several persons at once.
    AskOpen {
        agent: u8,
        records: u8,
    },
    /// Signed now, submitted later, and denied then.
    AskLater {
        agent: u8,
    },
    SubmitLate,
    Make(Make),
    EndBlock,
}

#[derive(Clone, Debug)]
struct Make {
    agent: u8,
    permits: Vec<u8>,
    artifacts: Vec<u8>,
    outputs: usize,
    kind: ActivityKind,
    excluded: Vec<u8>,
    /// The first product is made more sensitive than the inputs.
    lift: bool,
    /// Uses ids again that only denied activities named.
    again: bool,
    flaw: Option<Flaw>,
}

/// What is wrong with an activity, where the course has what it takes.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    OutputOfAnother,
    OutputIsInput,
    OutputTwice,
    InputIsOutput,
    InputTwice,
    ArtifactOfAnother,
    PermitOfAnother,
    PermitUndelivered,
    LevelTooLow,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    use ActivityKind::*;
    use Flaw::*;
    const FLAWS: &[Flaw] = &[
        OutputOfAnother,
        OutputIsInput,
        OutputTwice,
        InputIsOutput,
        InputTwice,
        ArtifactOfAnother,
        PermitOfAnother,
        PermitUndelivered,
        LevelTooLow,
    ];
    let n = any::<u8>;
    let kind = proptest::sample::select(&[Clean, Mask, Aggregate, Reuse, Compute][..]);
    let flaw = proptest::option::weighted(0.25, proptest::sample::select(FLAWS));
    let inputs = (vec(n(), 0..3), vec(n(), 0..4), vec(n(), 0..3));
    let make = (n(), inputs, 1..=4usize, kind, any::<(bool, bool)>(), flaw);
    let make =
        make.prop_map(|(agent, (permits, artifacts, excluded), outputs, kind, (lift, again), flaw)| {
            Move::Make(Make { agent, permits, artifacts, outputs, kind, excluded, lift, again, flaw })
        });
    let one = prop_oneof![
        2 => (n(), n()).prop_map(|(person, agent)| Move::Grant { person, agent }),
        1 => n().prop_map(|grant| Move::Revoke { grant }),
        4 => (n(), n(), n()).prop_map(|(grant, records, stray)| Move::Ask { grant, records, stray }),
        2 => (n(), n()).prop_map(|(agent, records)| Move::AskOpen { agent, records }),
        1 => n().prop_map(|agent| Move::AskLater { agent }),
        1 => proptest::strategy::Just(Move::SubmitLate),
        9 => make,
        3 => proptest::strategy::Just(Move::EndBlock),
    ];
    vec(one, 8..50)
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(n) % from.len()].clone())
}

/// Half of the choices fall on the newest few, so that chains of activities become long.
fn pick_recent<T: Clone>(from: &[T], n: u8) -> Option<T> {
    let newest = if n.is_multiple_of(2) { from.len().saturating_sub(3) } else { 0 };
    pick(&from[newest..], n / 2)
}

/// A signed transaction and what the rules must say to it.
type Planned = (VerifiedTx, Result<(), Denial>);

#[derive(Clone)]
struct Granted {
    id: GrantId,
    person: usize,
    agent: usize,
    revoked: bool,
}

#[derive(Clone)]
struct Permitted {
    id: PermitId,
    agent: usize,
    level: Level,
    /// The agent has the records: delivered, or its own to begin with.
    at_hand: bool,
}

#[derive(Clone)]
struct Made {
    agent: usize,
    product: Product,
}

/// A course over a real ledger, with as much memory as it takes to foretell each verdict.
struct Course {
    scene: Scene,
    persons: Vec<(Party, Vec<RecordProof>)>,
    open: (ItemId, Vec<RecordProof>),
    /// The insurer, and hospital A, which is the custodian of all records itself.
    agents: [Party; 2],
    revocations: Vec<Planned>,
    rest: Vec<Planned>,
    late: Vec<Planned>,
    undelivered: Vec<PermitId>,
    grants: Vec<Granted>,
    permits: Vec<Permitted>,
    products: Vec<Made>,
    /// Requests of any fate, also of none yet.
    requests: Vec<BodyId>,
    named: u32,
    /// Ids of products that only denied activities named.
    free: BTreeSet<ArtifactId>,
    /// Denied activities that would have closed a cycle.
    circular: Vec<(BodyId, RecordActivity)>,
    reference: Reference,
    reused: usize,
}

const CUSTODIAN: usize = 1;

impl Course {
    fn new() -> Course {
        let mut scene = Scene::new();
        let (bureau, a) = (scene.four.bureau.clone(), scene.four.hospital_a.clone());
        let agents = [scene.four.insurer.clone(), a.clone()];
        let mut persons = vec![(scene.person.clone(), scene.records.clone())];
        for (i, name) in ["second", "third"].into_iter().enumerate() {
            let person = scene.world.enrol(&bureau, &a, name);
            let n = 100 * (i as u32 + 1);
            let records: Vec<_> = (0..5).map(|day| record(&person, n + day, 100 + day)).collect();
            let records = scene.world.anchor(&a, scene.item, &records, &[]);
            persons.push((person, records));
        }
        let open = open_records(&mut scene, &a, &persons, &agents);
        let mut course = Course {
            scene,
            persons,
            open,
            agents,
            revocations: vec![],
            rest: vec![],
            late: vec![],
            undelivered: vec![],
            grants: vec![],
            permits: vec![],
            products: vec![],
            requests: vec![BodyId(digest("a request that never comes"))],
            named: 0,
            free: BTreeSet::new(),
            circular: vec![],
            reference: Reference::default(),
            reused: 0,
        };
        // Something to begin with for both.
        for n in 0..2 {
            course.go(Move::Grant { person: n, agent: n });
            course.go(Move::Ask { grant: n, records: 3, stray: 1 });
        }
        course.end_block();
        course
    }

    fn go(&mut self, step: Move) {
        match step {
            Move::Grant { person, agent } => self.grant(person, agent),
            Move::Revoke { grant } => self.revoke(grant),
            Move::Ask { grant, records, stray } => self.ask(grant, records, stray),
            Move::AskOpen { agent, records } => self.ask_open(agent, records),
            Move::AskLater { agent } => self.ask_later(agent),
            Move::SubmitLate => self.rest.append(&mut self.late),
            Move::Make(make) => self.make(&make),
            Move::EndBlock => self.end_block(),
        }
    }

    fn grant(&mut self, person: u8, agent: u8) {
        let (person, agent) = (usize::from(person) % self.persons.len(), usize::from(agent) % 2);
        let terms = self.scene.standing(&self.agents[agent]);
        let tx = self.scene.world.sign(&self.persons[person].0, Action::Grant(Box::new(terms)));
        self.grants.push(Granted { id: GrantId(tx.body_id().0), person, agent, revoked: false });
        self.rest.push((tx, Ok(())));
    }

    /// In a new block, for what is planned already does not know of it.
    fn revoke(&mut self, n: u8) {
        self.end_block();
        let n = usize::from(n) % self.grants.len();
        let grant = &mut self.grants[n];
        let verdict = if grant.revoked { Err(Denial::AlreadyRevoked) } else { Ok(()) };
        grant.revoked = true;
        let revoke = Action::Revoke(Revoke { grant: grant.id });
        let tx = self.scene.world.sign(&self.persons[grant.person].0, revoke);
        self.revocations.push((tx, verdict));
    }

    fn ask(&mut self, grant: u8, records: u8, stray: u8) {
        let grant = pick(&self.grants, grant).expect("every course begins with grants");
        let agent = if stray.is_multiple_of(8) { 1 - grant.agent } else { grant.agent };
        let (person, proofs) = &self.persons[grant.person];
        // The last record is of a day that no grant covers.
        let uncovered = records >= 224;
        let mask = usize::from(records & 0b1111) | if uncovered { 0b10000 } else { 0 };
        let request = RequestAccess {
            account: Some(person.account()),
            records: list(chosen(proofs, mask)),
            ..self.scene.ask_statistics(grant.id)
        };
        let verdict = if grant.revoked {
            Err(Denial::GrantRevoked)
        } else if agent != grant.agent {
            Err(Denial::OtherGrantee)
        } else if uncovered {
            Err(Denial::PeriodNotCovered)
        } else {
            Ok(())
        };
        self.request(agent, request, Level::Moderate, verdict);
    }

    fn ask_open(&mut self, agent: u8, records: u8) {
        let (item, proofs) = &self.open;
        let request = RequestAccess {
            grant: None,
            item: *item,
            account: None,
            records: list(chosen(proofs, usize::from(records))),
            ..self.scene.ask_statistics(self.grants[0].id)
        };
        self.request(usize::from(agent) % 2, request, Level::Low, Ok(()));
    }

    fn ask_later(&mut self, agent: u8) {
        let request = self.scene.ask_statistics(GrantId(digest("a grant that never was")));
        let tx = self
            .scene
            .world
            .sign(&self.agents[usize::from(agent) % 2], Action::RequestAccess(Box::new(request)));
        self.requests.push(tx.body_id());
        self.late.push((tx, Err(Denial::NoSuchGrant)));
    }

    fn request(&mut self, agent: usize, request: RequestAccess, level: Level, verdict: Result<(), Denial>) {
        let tx = self.scene.world.sign(&self.agents[agent], Action::RequestAccess(Box::new(request)));
        self.requests.push(tx.body_id());
        if verdict.is_ok() {
            let id = PermitId(tx.body_id().0);
            let at_hand = agent == CUSTODIAN;
            self.permits.push(Permitted { id, agent, level, at_hand });
            if !at_hand {
                self.undelivered.push(id);
            }
        }
        self.rest.push((tx, verdict));
    }

    fn make(&mut self, make: &Make) {
        let agent = usize::from(make.agent) % 2;
        let own: Vec<_> = self.permits.iter().filter(|p| p.agent == agent && p.at_hand).cloned().collect();
        let made: Vec<_> = self.products.iter().filter(|m| m.agent == agent).cloned().collect();
        let permits: BTreeMap<_, _> =
            make.permits.iter().filter_map(|n| pick(&own, *n)).map(|p| (p.id, p.level)).collect();
        let artifacts: BTreeMap<_, _> = make
            .artifacts
            .iter()
            .filter_map(|n| pick_recent(&made, *n))
            .map(|m| (m.product.id, m.product.level))
            .collect();
        let Some(inputs) = permits.values().chain(artifacts.values()).max().copied() else { return };
        let outputs: Vec<_> = (0..make.outputs)
            .map(|i| Product {
                id: self.new_id(make.again),
                level: if make.lift && i == 0 { Level::High } else { inputs },
            })
            .collect();
        let excluded: BTreeSet<_> = make.excluded.iter().filter_map(|n| pick(&self.requests, *n)).collect();
        let mut activity = RecordActivity {
            kind: make.kind,
            permits: list(permits.into_keys().collect()),
            artifacts: list(artifacts.into_keys().collect()),
            outputs: list(outputs),
            plan: digest("plan"),
            excluded: list(excluded.into_iter().collect()),
        };
        let denial = make.flaw.and_then(|flaw| self.spoil(agent, flaw, &mut activity));
        let tx =
            self.scene.world.sign(&self.agents[agent], Action::RecordActivity(Box::new(activity.clone())));
        let made = |product: &Product| Made { agent, product: product.clone() };
        match denial {
            None => self.products.extend(activity.outputs.iter().map(made)),
            Some(_) => self.free.extend(activity.outputs.iter().map(|p| p.id)),
        }
        for made in &self.products {
            self.free.remove(&made.product.id);
        }
        if matches!(make.flaw, Some(Flaw::OutputIsInput | Flaw::InputIsOutput)) && denial.is_some() {
            self.circular.push((tx.body_id(), activity));
        }
        self.rest.push((tx, denial.map_or(Ok(()), Err)));
    }

    fn new_id(&mut self, again: bool) -> ArtifactId {
        if again && let Some(id) = self.free.pop_first() {
            self.reused += 1;
            return id;
        }
        self.named += 1;
        ArtifactId(digest(&format!("product {}", self.named)))
    }

    /// Spoils a good activity; its denial, or none where the course has nothing to spoil it with.
    fn spoil(&self, agent: usize, flaw: Flaw, a: &mut RecordActivity) -> Option<Denial> {
        let other = |p: &&Permitted| p.agent != agent;
        match flaw {
            Flaw::OutputOfAnother => {
                let id = self.products.last()?.product.id;
                edit(&mut a.outputs, |outputs| outputs.push(Product { id, level: Level::High }));
                Some(Denial::OutputExists)
            }
            Flaw::OutputIsInput => {
                let id = *a.artifacts.first()?;
                edit(&mut a.outputs, |outputs| outputs[0].id = id);
                Some(Denial::OutputExists)
            }
            Flaw::OutputTwice => {
                edit(&mut a.outputs, |outputs| outputs.push(outputs[0].clone()));
                Some(Denial::OutputExists)
            }
            Flaw::InputIsOutput => {
                let id = a.outputs[0].id;
                edit(&mut a.artifacts, |artifacts| artifacts.push(id));
                Some(Denial::NoSuchArtifact)
            }
            Flaw::InputTwice => {
                let id = *a.permits.first()?;
                edit(&mut a.permits, |permits| permits.push(id));
                Some(Denial::DuplicateRecord)
            }
            Flaw::ArtifactOfAnother => {
                let id = self.products.iter().find(|m| m.agent != agent)?.product.id;
                edit(&mut a.artifacts, |artifacts| artifacts.push(id));
                Some(Denial::NotTheMaker)
            }
            Flaw::PermitOfAnother => {
                let id = self.permits.iter().find(other)?.id;
                edit(&mut a.permits, |permits| permits.push(id));
                Some(Denial::NotTheRequester)
            }
            Flaw::PermitUndelivered => {
                let id = self.permits.iter().find(|p| p.agent == agent && !p.at_hand)?.id;
                edit(&mut a.permits, |permits| permits.push(id));
                Some(Denial::NotDelivered)
            }
            Flaw::LevelTooLow => {
                edit(&mut a.outputs, |outputs| outputs[0].level = Level::None);
                Some(Denial::OutputLevelTooLow)
            }
        }
    }

    /// Makes a block of what is planned. What it permitted is delivered first thing in the next.
    fn end_block(&mut self) {
        let mut planned = std::mem::take(&mut self.revocations);
        planned.append(&mut self.rest);
        let txs = planned.iter().map(|(tx, _)| tx.clone()).collect();
        let verdicts = self.scene.world.block(txs).expect("the course makes valid blocks");
        let height = self.scene.world.at().height;
        for ((tx, foretold), verdict) in planned.iter().zip(verdicts) {
            let (id, action) = (tx.body_id(), &tx.body().action);
            assert_eq!(verdict.map(|_| ()), *foretold, "{action:?}");
            self.reference.tell(height, id, action, verdict.err());
        }
        for id in std::mem::take(&mut self.undelivered) {
            let delivery = Action::Deliver(self.scene.delivery(id));
            let tx = self.scene.world.sign(&self.agents[CUSTODIAN], delivery);
            self.rest.push((tx, Ok(())));
            self.permits.iter_mut().filter(|p| p.id == id).for_each(|p| p.at_hand = true);
        }
    }

    fn finish(&mut self) {
        self.rest.append(&mut self.late);
        self.end_block();
        self.end_block();
    }

    fn questions(&self) -> Vec<Question> {
        let ids = (1..=self.named).map(|n| ArtifactId(digest(&format!("product {n}"))));
        let grants = self.grants.iter().map(|g| Question::Impact(g.id));
        let records = self.persons.iter().flat_map(|(_, records)| records).chain(&self.open.1);
        ids.flat_map(|id| [Question::Ancestors(id), Question::Descendants(id)])
            .chain(grants)
            .chain(records.map(|p| Question::Record(p.record.account, p.record.commitment)))
            .collect()
    }
}

/// An item open to both agents after review, with two records of each person; one commitment is the same for all, as a
/// careless custodian could have it.
fn open_records(
    scene: &mut Scene,
    source: &Party,
    persons: &[(Party, Vec<RecordProof>)],
    agents: &[Party; 2],
) -> (ItemId, Vec<RecordProof>) {
    let (category, level, opening) = (Category::TestResult, Level::Low, Opening::AfterReview);
    let item = RegisterItem { code: 7, scope: 1, category, level, opening, recipients: list(Vec::new()) };
    scene.world.run(source, Action::RegisterItem(item)).expect("the source registers");
    let item = ItemId::of(7, 1);
    let regulator = scene.four.bureau.clone();
    for agent in agents {
        let (requester, purpose) = (agent.institution(), Purpose::Statistics);
        let review = ReviewOpening { item, requester, purpose, until: TimeMs(u64::MAX) };
        scene.world.run(&regulator, Action::ReviewOpening(review)).expect("the regulator reviews");
    }
    let records: Vec<_> = (0u32..)
        .zip(persons)
        .flat_map(|(i, (p, _))| [record(p, 900 + i, 100), record(p, 999, 101)])
        .collect();
    (item, scene.world.anchor(source, item, &records, &[]))
}

/// The records whose bit is set, at least one.
fn chosen(proofs: &[RecordProof], mask: usize) -> Vec<RecordProof> {
    let mask = if mask.is_multiple_of(1 << proofs.len()) { 1 } else { mask };
    (0..proofs.len()).filter(|i| mask >> i & 1 == 1).map(|i| proofs[i].clone()).collect()
}

fn edit<T: Clone, const MAX: usize>(
    of: &mut assent_proto::field::List<T, MAX>,
    change: impl FnOnce(&mut Vec<T>),
) {
    let mut elements = of.to_vec();
    change(&mut elements);
    *of = list(elements);
}

/// What is asked of the graph.
#[derive(Clone, Copy, Debug)]
enum Question {
    Ancestors(ArtifactId),
    Descendants(ArtifactId),
    Record(AccountId, Commitment),
    Impact(GrantId),
}

/// What is found: the things with their transactions' heights, how they hang together, whose data stayed out.
type Answer = (BTreeMap<Node, Option<Height>>, BTreeSet<(Node, Node)>, BTreeSet<Excluded>);

/// The client's answer.
fn walk(chain: &mut Chain, question: Question, as_of: Height) -> Answer {
    let found = match question {
        Question::Ancestors(id) => lineage::ancestors(chain, id, as_of),
        Question::Descendants(id) => lineage::descendants(chain, id, as_of),
        Question::Record(account, record) => lineage::descendants_of_record(chain, account, record, as_of),
        Question::Impact(id) => lineage::impact(chain, id, as_of),
    };
    let Ok(graph) = found;
    let nodes = graph.nodes.into_iter().map(|(node, entry)| (node, entry.map(|e| e.height))).collect();
    (nodes, graph.edges, graph.excluded)
}

/// The blocks and events of a ledger, up to a height.
struct Chain {
    entries: BTreeMap<BodyId, Entry>,
    trails: BTreeMap<ObjectRef, Vec<Step>>,
}

impl Chain {
    fn of(world: &World, to: Height) -> Chain {
        let denials: BTreeMap<_, _> = world
            .events()
            .iter()
            .filter(|e| e.core.kind == EventKind::Denied)
            .map(|e| (e.core.body, e.core.code))
            .collect();
        let mut entries = BTreeMap::new();
        for (at, txs) in world.blocks().iter().filter(|(at, _)| at.height <= to) {
            for tx in txs {
                let (author, action) = (tx.body().author, tx.body().action.clone());
                let denied = denials.get(&tx.body_id()).copied();
                let entry = Entry { height: at.height, time: at.time, author, action, denied };
                entries.insert(tx.body_id(), entry);
            }
        }
        let mut trails: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in world.events().iter().filter(|e| e.core.height <= to) {
            let step = Step { kind: event.core.kind, body: event.core.body, height: event.core.height };
            for link in &event.links {
                let trail = trails.entry(link.trail).or_default();
                assert_eq!(link.index, trail.len() as u64, "a trail has no gaps");
                trail.push(step);
            }
        }
        Chain { entries, trails }
    }

    /// Every trail is as long as the state says.
    fn assert_complete(&self, world: &World) {
        for (object, steps) in &self.trails {
            let leaf = world.state().get(object).expect("events join trails of what exists");
            assert_eq!(leaf.trail.length, steps.len() as u64);
        }
    }
}

impl Source for Chain {
    type Error = Infallible;
    fn entry(&mut self, id: BodyId) -> Result<Option<Entry>, Infallible> {
        Ok(self.entries.get(&id).cloned())
    }
    fn trail(&mut self, object: ObjectRef) -> Result<Vec<Step>, Infallible> {
        Ok(self.trails.get(&object).cloned().unwrap_or_default())
    }
}

/// A thing, and when its transaction was applied, if it has one of its own.
#[derive(Clone, Copy, Debug)]
struct Thing {
    node: Node,
    at: Option<Height>,
}

/// What became of a request or anything else that was submitted.
struct Told {
    height: Height,
    account: Option<AccountId>,
    denied: Option<Denial>,
}

/// The graph as the submitted actions and their verdicts have it. Records are told apart by account too.
#[derive(Default)]
struct Reference {
    graph: DiGraph<Thing, Height>,
    index: BTreeMap<(Option<AccountId>, Node), NodeIndex>,
    excluded: Vec<(Height, BodyId, BodyId)>,
    told: BTreeMap<BodyId, Told>,
}

impl Reference {
    fn tell(&mut self, height: Height, id: BodyId, action: &Action, denied: Option<Denial>) {
        let account = match action {
            Action::RequestAccess(r) => r.account,
            _ => None,
        };
        self.told.insert(id, Told { height, account, denied });
        if denied.is_some() {
            return;
        }
        match action {
            Action::Grant(_) => {
                self.add(None, Node::Grant(GrantId(id.0)), Some(height));
            }
            Action::RequestAccess(r) => {
                let permit = self.add(None, Node::Permit(PermitId(id.0)), Some(height));
                for Record { account, commitment, .. } in r.records.iter().map(|p| &p.record) {
                    let record = self.add(Some(*account), Node::Record(*commitment), None);
                    self.graph.update_edge(record, permit, height);
                }
                if let Some(grant) = r.grant {
                    self.graph.update_edge(self.index[&(None, Node::Grant(grant))], permit, height);
                }
            }
            Action::RecordActivity(a) => {
                self.record(height, id, a);
                self.excluded.extend(a.excluded.iter().map(|request| (height, id, *request)));
            }
            _ => {}
        }
    }

    fn record(&mut self, height: Height, id: BodyId, a: &RecordActivity) {
        let activity = self.add(None, Node::Activity(id), Some(height));
        for permit in &a.permits {
            self.graph.update_edge(self.index[&(None, Node::Permit(*permit))], activity, height);
        }
        for artifact in &a.artifacts {
            let artifact = self.add(None, Node::Artifact(*artifact), None);
            self.graph.update_edge(artifact, activity, height);
        }
        for product in &a.outputs {
            let product = self.add(None, Node::Artifact(product.id), None);
            self.graph.update_edge(activity, product, height);
        }
    }

    fn add(&mut self, account: Option<AccountId>, node: Node, at: Option<Height>) -> NodeIndex {
        let graph = &mut self.graph;
        *self.index.entry((account, node)).or_insert_with(|| graph.add_node(Thing { node, at }))
    }

    /// The graph as of a height, under the same indices.
    fn as_of(&self, height: Height) -> DiGraph<Thing, Height> {
        self.graph.filter_map(|_, thing| Some(*thing), |_, at| (*at <= height).then_some(*at))
    }

    /// petgraph's answer in [`Reference::as_of`] this height.
    fn answer(&self, graph: &DiGraph<Thing, Height>, question: Question, as_of: Height) -> Answer {
        let (back, start) = match question {
            Question::Ancestors(id) => (true, (None, Node::Artifact(id))),
            Question::Descendants(id) => (false, (None, Node::Artifact(id))),
            Question::Record(account, record) => (false, (Some(account), Node::Record(record))),
            Question::Impact(id) => (false, (None, Node::Grant(id))),
        };
        let Some(index) = self.index.get(&start) else {
            return (BTreeMap::from([(start.1, None)]), BTreeSet::new(), BTreeSet::new());
        };
        let reached = reached(graph, *index, back);
        let nodes: BTreeMap<_, _> = reached
            .iter()
            .map(|i| (graph[*i].node, graph[*i].at.filter(|height| *height <= as_of)))
            .collect();
        let edges = graph
            .edge_references()
            .filter(|e| reached.contains(&e.source()) && reached.contains(&e.target()))
            .map(|e| (graph[e.source()].node, graph[e.target()].node))
            .collect();
        let excluded = self
            .excluded
            .iter()
            .filter(|(at, activity, _)| *at <= as_of && nodes.contains_key(&Node::Activity(*activity)))
            .map(|(_, activity, request)| self.stayed_out(*activity, *request, as_of))
            .collect();
        (nodes, edges, excluded)
    }

    fn stayed_out(&self, activity: BodyId, request: BodyId, as_of: Height) -> Excluded {
        let told = self.told.get(&request).filter(|told| told.height <= as_of);
        let code = told.and_then(|t| t.denied).map_or(0, Denial::number);
        Excluded { activity, request, account: told.and_then(|t| t.account), code }
    }
}

fn reached(graph: &DiGraph<Thing, Height>, start: NodeIndex, back: bool) -> BTreeSet<NodeIndex> {
    let mut found = BTreeSet::new();
    if back {
        let mut dfs = Dfs::new(Reversed(graph), start);
        while let Some(index) = dfs.next(Reversed(graph)) {
            found.insert(index);
        }
    } else {
        let mut dfs = Dfs::new(graph, start);
        while let Some(index) = dfs.next(graph) {
            found.insert(index);
        }
    }
    found
}

/// What all courses together came to, so that the test cannot pass on empty graphs.
#[derive(Debug, Default)]
struct Tally {
    products: usize,
    longest: usize,
    widest: usize,
    outputs_refused: usize,
    circles_refused: usize,
    ids_reused: usize,
    stayed_out: usize,
    used_before_revocation: usize,
    changed_over_time: usize,
}

/// Every question as of several heights: the client's walk of the whole chain, its walk of the chain as it
/// was then, and petgraph agree.
fn compare(course: &Course, tally: &mut Tally) {
    let world = &course.scene.world;
    let last = world.at().height;
    let mut whole = Chain::of(world, last);
    whole.assert_complete(world);
    let questions = course.questions();
    let mut edges = BTreeSet::new();
    let mut earlier: Vec<Option<Answer>> = vec![None; questions.len()];
    for as_of in (0..=4).map(|i| Height(last.0 * i / 4)).chain([Height(u64::MAX)]) {
        let mut then = Chain::of(world, as_of);
        let graph = course.reference.as_of(as_of);
        for (question, earlier) in questions.iter().zip(&mut earlier) {
            let answer = walk(&mut whole, *question, as_of);
            assert_eq!(
                answer,
                course.reference.answer(&graph, *question, as_of),
                "{question:?} as of {as_of}"
            );
            assert_eq!(answer, walk(&mut then, *question, Height(u64::MAX)), "{question:?} at {as_of}");
            edges.extend(answer.1.iter().copied());
            count(course, question, &answer, tally);
            tally.changed_over_time += usize::from(earlier.as_ref().is_some_and(|e| *e != answer));
            *earlier = Some(answer);
        }
    }
    assert!(!is_cyclic_directed(&as_graph(&edges)), "what the client found has no cycle");
}

fn count(course: &Course, question: &Question, (nodes, _, excluded): &Answer, tally: &mut Tally) {
    let activities = nodes.keys().filter(|n| matches!(n, Node::Activity(_))).count();
    match question {
        Question::Ancestors(_) => tally.longest = tally.longest.max(activities),
        Question::Impact(id) => {
            let revoked = course.grants.iter().any(|g| g.id == *id && g.revoked);
            tally.used_before_revocation += usize::from(revoked && activities > 0);
        }
        _ => tally.widest = tally.widest.max(activities),
    }
    tally.stayed_out += excluded.iter().filter(|x| x.code != 0).count();
}

fn as_graph(edges: &BTreeSet<(Node, Node)>) -> DiGraph<Node, ()> {
    let mut graph = DiGraph::new();
    let mut index = BTreeMap::new();
    for (from, to) in edges {
        let [from, to] = [from, to].map(|n| *index.entry(*n).or_insert_with(|| graph.add_node(*n)));
        graph.add_edge(from, to, ());
    }
    graph
}

#[test]
fn r24_ancestors_descendants_and_impact_are_those_of_a_graph_library() {
    let total = RefCell::new(Tally::default());
    let config = ProptestConfig {
        cases: 384,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let run = TestRunner::new(config).run(&moves(), |moves| {
        let mut course = Course::new();
        moves.into_iter().for_each(|step| course.go(step));
        course.finish();

        let mut tally = total.borrow_mut();
        compare(&course, &mut tally);
        assert!(!is_cyclic_directed(&course.reference.graph), "what was applied has no cycle");
        let refused = |told: &&Told| told.denied == Some(Denial::OutputExists);
        tally.products += course.products.len();
        tally.outputs_refused += course.reference.told.values().filter(refused).count();
        tally.circles_refused += course.circular.len();
        tally.ids_reused += course.reused;
        // Each of these alone, had it been applied, would have closed one.
        let sound = course.reference.graph.clone();
        for (id, activity) in std::mem::take(&mut course.circular) {
            course.reference.record(Height(u64::MAX), id, &activity);
            assert!(is_cyclic_directed(&course.reference.graph));
            course.reference.graph = sound.clone();
            course.reference.index.retain(|_, i| i.index() < sound.node_count());
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let t = total.into_inner();
    assert!(t.products > 100 && t.longest > 4 && t.widest > 4, "{t:?}");
    assert!(t.outputs_refused > 0 && t.circles_refused > 0 && t.ids_reused > 0, "{t:?}");
    assert!(t.stayed_out > 0 && t.used_before_revocation > 0 && t.changed_over_time > 0, "{t:?}");
}
