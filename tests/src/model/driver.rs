//! Runs sequences against the ledger and the model, block by block, and says where they disagree. Every transaction is
//! signed and verified, and goes the way of `check` and `apply`. A failing sequence is cut down to what fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use assent_ledger::testing::{digest, list};
use assent_ledger::{
    Applied, BlockContext, ParentTurns, ReplayWindow, State, apply, check, parameters, protocol, read,
};
use assent_proto::code::{Denial, Invalid};
use assent_proto::envelope::VerifiedTx;
use assent_proto::event::{Event, EventKind};
use assent_proto::ids::*;
use assent_proto::keys::Algorithm;
use assent_proto::state::*;
use assent_proto::transaction::*;

use super::generator::{Generator, persons};
use super::objects::plain;
use super::world::{self, FOUNDINGS, World, case, wallet};
use super::{Done, Happening, Model};

/// What sequences have shown.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Sequences.
    pub sequences: u64,
    /// Transactions in blocks.
    pub transactions: u64,
    /// Of these applied.
    pub applied: u64,
    /// How often each kind of action was applied.
    pub kinds: BTreeMap<ActionKind, u64>,
    /// How often each denial was given.
    pub denials: BTreeMap<Denial, u64>,
    /// How often each reason not to be in a block was given.
    pub invalid: BTreeMap<Invalid, u64>,
    /// How often each event happened.
    pub events: BTreeMap<EventKind, u64>,
}

/// Where the two sides part.
#[derive(Clone)]
pub struct Disagreement {
    seed: u64,
    what: String,
    blocks: Vec<Block>,
}

type Block = (BlockContext, Vec<VerifiedTx>);

/// Both sides at one height.
#[derive(Clone)]
struct Sides {
    model: Model,
    state: State,
    window: ReplayWindow,
}

/// Runs the sequence of a seed.
pub fn run_seed(seed: u64, coverage: &mut Coverage) -> Result<(), Disagreement> {
    static STARTS: LazyLock<Vec<(Sides, World)>> = LazyLock::new(|| (0..FOUNDINGS).map(begin).collect());
    let (start, world) = &STARTS[(seed % FOUNDINGS) as usize];
    let mut sides = start.clone();
    let mut generator = Generator::new(world.clone(), seed);
    let mut blocks = Vec::new();
    let length = 6 + seed % 9;
    for n in 0..=length {
        let at = generator.next(&sides.model);
        let mut then = sides.model.clone();
        then.at = at;
        let txs = if n < length { generator.block(&then) } else { generator.probe(&then) };
        blocks.push((at, txs));
        let (at, txs) = blocks.last().expect("it was just pushed");
        if let Err(what) = sides.step(*at, txs, coverage) {
            return Err(Disagreement { seed, what, blocks: cut_down(start, blocks) });
        }
    }
    coverage.sequences += 1;
    sides.compare_all().map_err(|what| Disagreement { seed, what, blocks })
}

/// A founding and the first blocks: persons, items, records.
fn begin(n: u64) -> (Sides, World) {
    let founded = world::found(n);
    let mut sides = Sides { model: founded.model, state: founded.state, window: ReplayWindow::new() };
    let mut generator = Generator::opening(founded.world);
    let institution = |slug: &str| assent_genesis::institution_id(slug);
    let bureau = Author::Institution(institution("bureau"));
    let enrol = |i: u64, custodian: &str| {
        let key = wallet(i).public();
        let enrol = Enrol { custodian: institution(custodian), algorithm: Algorithm::Ed25519, key };
        (bureau, Action::Enrol(enrol))
    };
    let custodians = ["hospital-a", "hospital-a", "hospital-a", "hospital-b", "bureau"];
    sides.open(&mut generator, custodians.iter().zip(0..).map(|(c, i)| enrol(i, c)).collect());

    let item = |by: &str, code, category, level, opening, to: &[&str]| {
        let recipients = list(to.iter().map(|s| institution(s)).collect());
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients };
        (Author::Institution(institution(by)), Action::RegisterItem(item))
    };
    sides.open(
        &mut generator,
        vec![
            item("hospital-a", 1, Category::ClaimDocument, Level::Moderate, Opening::Prohibited, &[]),
            item("hospital-a", 2, Category::TestResult, Level::Low, Opening::RealName, &[]),
            item("hospital-a", 3, Category::Encounter, Level::High, Opening::Prohibited, &[]),
            item("hospital-b", 4, Category::TestResult, Level::Moderate, Opening::AfterReview, &[]),
            item(
                "bureau",
                5,
                Category::Settlement,
                Level::Moderate,
                Opening::Directed,
                &["insurer", "hospital-e"],
            ),
            item("hospital-b", 6, Category::Prescription, Level::None, Opening::Unconditional, &[]),
        ],
    );

    let everybody = persons(&sides.model);
    let custodian_of = |m: &Model, p: AccountId| m.person(p).map(|p| p.custodian);
    let mut anchors = Vec::new();
    for id in sides.model.items() {
        let custodian = sides.model.item(id).expect("it was just registered").custodian;
        let own = |p: &AccountId| custodian_of(&sides.model, *p) == Some(custodian);
        let records: Vec<_> = everybody
            .iter()
            .copied()
            .filter(own)
            .flat_map(|account| {
                [100, 103].map(|day| Record {
                    account,
                    commitment: Commitment(digest(&format!("{id} {day}"))),
                    day: Day(day),
                })
            })
            .collect();
        let settled = sides.model.item(id).is_some_and(|i| i.category == Category::Settlement);
        let settles = if settled { vec![case(0)] } else { vec![] };
        let anchor = assent_ledger::testing::anchor_of(id, &records, &settles);
        generator.world.anchored.insert(anchor.root, records);
        anchors.push((Author::Institution(custodian), Action::AnchorRecords(anchor)));
    }
    sides.open(&mut generator, anchors);
    (sides, generator.world)
}

impl Sides {
    /// A block of what every sequence begins with.
    fn open(&mut self, generator: &mut Generator, actions: Vec<(Author, Action)>) {
        let at = BlockContext { height: self.model.at.height.next(), time: self.model.at.time.plus(1000) };
        let mut then = self.model.clone();
        then.at = at;
        let signed = |(author, action)| generator.signed(&then, author, action).expect("everybody has a key");
        let bodies: Vec<_> = actions.into_iter().map(signed).collect();
        let txs = generator.sealed(bodies);
        let mut coverage = Coverage::default();
        self.step(at, &txs, &mut coverage).expect("the two sides agree on the first blocks");
        assert_eq!(coverage.applied, txs.len() as u64, "all of the first blocks is applied");
    }

    /// One block on both sides.
    fn step(&mut self, at: BlockContext, txs: &[VerifiedTx], coverage: &mut Coverage) -> Result<(), String> {
        let txs = self.admitted(at, txs, coverage)?;
        let applied = apply(&self.state, &self.window, at, &ParentTurns::default(), &txs);
        let applied = applied.map_err(|e| format!("block {}: {e}", at.height))?;
        let done = self.model.block(at, &txs).to_vec();
        for (i, d) in done.iter().enumerate() {
            compare_receipt(&self.model, d, &applied, i).map_err(|what| {
                format!("block {}, transaction {i} ({:?}): {what}", at.height, d.asked.action.kind())
            })?;
            coverage.count(d);
        }
        self.state = applied.state.clone();
        self.window.committed(at.time, &txs);
        for leaf in &applied.changes {
            self.compare_object(&leaf.object).map_err(|what| format!("block {}: {what}", at.height))?;
        }
        for object in &applied.removed {
            if self.model.objects().contains(object) {
                return Err(format!(
                    "block {}: {object:?} has left the state, the model keeps it",
                    at.height
                ));
            }
        }
        Ok(())
    }

    /// What may be in the block: both sides must say the same of each.
    fn admitted(
        &mut self,
        at: BlockContext,
        txs: &[VerifiedTx],
        coverage: &mut Coverage,
    ) -> Result<Vec<VerifiedTx>, String> {
        let mut model = self.model.clone();
        model.at = at;
        let mut admitted: Vec<VerifiedTx> = Vec::new();
        for tx in txs {
            let bounds = parameters(&self.state);
            let version = protocol(&self.state).at(at.height);
            let theirs = check(&self.state, &self.window, &bounds, version, at.time, tx);
            let ours = model.valid(tx);
            if theirs != ours {
                let body = tx.body();
                return Err(format!(
                    "block {}: valid? ledger {theirs:?}, model {ours:?}: {body:?}",
                    at.height
                ));
            }
            match ours {
                Ok(()) if admitted.iter().all(|a| a.body_id() != tx.body_id()) => admitted.push(tx.clone()),
                Ok(()) => (),
                Err(code) => *coverage.invalid.entry(code).or_default() += 1,
            }
        }
        Ok(admitted)
    }

    /// Every object of both sides, and what is reported.
    fn compare_all(&self) -> Result<(), String> {
        let theirs: BTreeSet<_> = self.state.leaves().map(|l| l.object).collect();
        let ours: BTreeSet<_> = self.model.objects().into_iter().collect();
        if theirs != ours {
            let more: Vec<_> = theirs.symmetric_difference(&ours).collect();
            return Err(format!("only one side has {more:?}"));
        }
        ours.iter().try_for_each(|object| self.compare_object(object))?;
        self.compare_reports()
    }

    /// Erasures that are due or overdue (R9).
    fn compare_reports(&self) -> Result<(), String> {
        let bounds = parameters(&self.state);
        for id in self.model.grants() {
            let theirs = read::<GrantState>(&self.state, id).and_then(|g| g.erasure_due(&bounds));
            let mut then = self.model.clone();
            then.at.height = then.at.height.next();
            let ours = then.erasure_due(id);
            if theirs != ours {
                return Err(format!("erasure of {id} is due at: ledger {theirs:?}, model {ours:?}"));
            }
        }
        Ok(())
    }

    fn compare_object(&self, object: &ObjectRef) -> Result<(), String> {
        let leaf = self.state.get(object);
        let theirs = leaf.map(|l| Object::decode(object.kind, &l.content).expect("a state is canonical"));
        match (object.kind, theirs) {
            // Who is passed over is no rule of this table; nobody misses a turn here.
            (ObjectKind::Turns, _) => Ok(()),
            (_, Some(Object::Validators(v))) => self.compare_validators(&v),
            (_, Some(Object::Protocol(p))) => self.compare_versions(&p),
            (_, theirs) => {
                let now = self.model.at.time;
                let theirs = theirs.map(|o| plain(o, now));
                let ours = self.model.object(object).map(|o| plain(o, now));
                if theirs == ours {
                    return Ok(());
                }
                Err(format!("{object:?}\n  ledger {theirs:?}\n  model  {ours:?}"))
            }
        }
    }

    fn compare_versions(&self, p: &Protocol) -> Result<(), String> {
        let now = self.model.at.height;
        for height in [0, 1, 2, 3, 7, 1_000_001].map(|ahead| Height(now.0 + ahead)) {
            let (theirs, ours) = (p.at(height), self.model.version_at(height));
            if theirs != ours {
                return Err(format!("version at {height}: ledger {theirs}, model {ours}"));
            }
        }
        Ok(())
    }

    fn compare_validators(&self, v: &Validators) -> Result<(), String> {
        let now = self.model.at.height;
        for ahead in [0, 1, 2, 3, 7, 1_000_001] {
            let height = Height(now.0 + ahead);
            let (theirs, ours) = (v.at(height), self.model.set_at(height));
            if *theirs != ours {
                return Err(format!("who votes at {height}\n  ledger {theirs:?}\n  model  {ours:?}"));
            }
        }
        Ok(())
    }
}

fn compare_receipt(model: &Model, d: &Done, applied: &Applied, i: usize) -> Result<(), String> {
    let receipt = &applied.receipts[i];
    let theirs = Denial::from_number(receipt.code);
    let ours = d.verdict.as_ref().err().copied();
    if theirs != ours {
        return Err(format!("ledger {theirs:?}, model {ours:?}"));
    }
    let from = receipt.first_event as usize;
    let events = &applied.events[from..from + receipt.events as usize];
    match &d.verdict {
        Err(code) => compare_denial(model, d, *code, events),
        Ok(ours) => compare_events(ours, events),
    }
}

/// The same events, in whichever order, on the trails that they must join.
fn compare_events(ours: &[Happening], events: &[Event]) -> Result<(), String> {
    let mut left: Vec<_> = events.iter().collect();
    for h in ours {
        let found = left.iter().position(|e| (e.core.kind, e.core.object) == (h.kind, h.object));
        let Some(found) = found else { return Err(two_lists(ours, events)) };
        compare_trails(left.remove(found), &h.trails)
            .map_err(|e| format!("{e}\n{}", two_lists(ours, events)))?;
    }
    if left.is_empty() { Ok(()) } else { Err(two_lists(ours, events)) }
}

fn two_lists(ours: &[Happening], theirs: &[Event]) -> String {
    let name = |k: EventKind, o: &ObjectRef| format!("{k:?} of {:?} {}", o.kind, &o.id.to_string()[..8]);
    let trails = |t: Vec<&ObjectRef>| t.iter().map(|o| format!("{:?}", o.kind)).collect::<Vec<_>>().join(" ");
    let ours =
        ours.iter().map(|h| format!("{} [{}]", name(h.kind, &h.object), trails(h.trails.iter().collect())));
    let links = |e: &Event| e.links.iter().map(|l| l.trail).collect::<Vec<_>>();
    let told =
        |e: &Event| format!("{} [{}]", name(e.core.kind, &e.core.object), trails(links(e).iter().collect()));
    let theirs: Vec<_> = theirs.iter().map(told).collect();
    format!("  ledger {theirs:#?}\n  model  {:#?}", ours.collect::<Vec<_>>())
}

/// A denial joins the trail of who asked, and of a grant that was matched.
fn compare_denial(model: &Model, d: &Done, code: Denial, events: &[Event]) -> Result<(), String> {
    let [e] = events else { return Err(format!("{} events of a denial", events.len())) };
    if (e.core.kind, e.core.code, e.core.object) != (EventKind::Denied, code.number(), d.asked.author_ref()) {
        return Err(format!("a denial told as {:?}", e.core));
    }
    let theirs: BTreeSet<_> = e.links.iter().map(|l| l.trail).collect();
    let (must, may) = model.denial_trails(&d.asked);
    let more: Vec<_> = theirs
        .iter()
        .filter(|o| o.kind == ObjectKind::Account && !must.contains(o) && !may.contains(o))
        .collect();
    if must.is_subset(&theirs) && more.is_empty() {
        return Ok(());
    }
    Err(format!("denied {code:?} on {theirs:?}, must be on {must:?}, and may be on {may:?}"))
}

/// Whether an event joins the trails that it must. What a person's trail shows is hers alone to see: there no more
/// than that.
fn compare_trails(e: &Event, ours: &BTreeSet<ObjectRef>) -> Result<(), String> {
    let theirs: BTreeSet<_> = e.links.iter().map(|l| l.trail).collect();
    let missing: Vec<_> = ours.difference(&theirs).collect();
    let more: Vec<_> = theirs.difference(ours).filter(|o| o.kind == ObjectKind::Account).collect();
    if missing.is_empty() && more.is_empty() {
        return Ok(());
    }
    Err(format!("{:?} is not on the trails {missing:?}, and is on {more:?} too", e.core.kind))
}

/// As short a sequence as still fails.
fn cut_down(start: &Sides, mut blocks: Vec<Block>) -> Vec<Block> {
    let fails = |blocks: &[Block]| {
        let mut sides = start.clone();
        let mut coverage = Coverage::default();
        let mut steps = blocks.iter().map(|(at, txs)| sides.step(*at, txs, &mut coverage));
        steps.any(|r| r.is_err())
    };
    for b in (0..blocks.len()).rev() {
        for t in (0..blocks[b].1.len()).rev() {
            let mut fewer = blocks.clone();
            fewer[b].1.remove(t);
            if fails(&fewer) {
                blocks = fewer;
            }
        }
    }
    blocks
}

impl Coverage {
    fn count(&mut self, d: &Done) {
        self.transactions += 1;
        match &d.verdict {
            Ok(events) => {
                self.applied += 1;
                *self.kinds.entry(d.asked.action.kind()).or_default() += 1;
                for h in events {
                    *self.events.entry(h.kind).or_default() += 1;
                }
            }
            Err(code) => *self.denials.entry(*code).or_default() += 1,
        }
    }
}

impl fmt::Debug for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        writeln!(
            f,
            "again: ASSENT_MODEL_FROM={} ASSENT_MODEL_SEQUENCES=1 cargo test --release --workspace --test model",
            self.seed
        )?;
        for (at, txs) in self.blocks.iter().filter(|(_, txs)| !txs.is_empty()) {
            writeln!(f, "block {} at {}:", at.height, at.time)?;
            for tx in txs {
                let body = tx.body();
                writeln!(f, "  {} by {:?}: {:?}", tx.body_id(), body.author, body.action)?;
            }
        }
        Ok(())
    }
}
