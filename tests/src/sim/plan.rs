//! What happens in the run of a seed: how many validators, who lies and how, whose key or disk is not its own,
//! which links fail, whose power goes, whose clock or disk is wrong, what clients want. For a while everything
//! goes wrong, then all is healed, and within a bounded time all correct validators must hold the same chain
//! with everything in it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use assent_replica::SnapshotRule;

use super::byzantine::Behaviour;
use super::disk::{Rot, Unsynced};
use super::network::{Kind, Trouble};
use super::{Founding, Random, Sim, Weather, workload};

/// After this much virtual time from the healing everything must be final everywhere, ms.
pub const HEALED_BOUND_MS: u64 = 120_000;
/// Least and most time in which things go wrong, ms.
const FAULTS_MS: (u64, u64) = (3_000, 8_000);
/// One of so many seeds has machines that are eager to give and take whole states, and one that is away for
/// long.
const EAGER_EVERY: u64 = 5;
/// By so much longer do things go wrong in these, ms; and for so long blocks do not reach who comes back.
const ABSENCE_MS: u64 = 5_000;
const NO_BLOCKS_MS: u64 = 3_000;

/// In so many of a thousand seeds the next protocol version is decided on.
const UPGRADED_OF_1000: u64 = 80;

/// What one of the f validators does, or suffers, that the protocol allows for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It lies.
    Lies(Behaviour),
    /// Two processes run with its key.
    Twin,
    /// It is restarted from an old copy of its disk.
    OldDisk,
    /// It is restarted with an empty disk.
    EmptyDisk,
    /// A bit of its disk flips.
    Rots(Rot),
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The hash of everything that happened.
    pub trace: blake3::Hash,
    /// Validators.
    pub validators: usize,
    /// What was wrong with some of them.
    pub faults: Vec<Fault>,
    /// How often liars lied.
    pub lies: u64,
    /// The height at the end.
    pub height: u64,
    /// Restarts of machines.
    pub restarted: usize,
    /// Machines that stopped because of a damaged disk.
    pub stopped: u64,
    /// How often a correct machine took in a whole state.
    pub states_taken: u64,
    /// How often liars lied about a whole state or a part of one.
    pub false_states: u64,
    /// Uses permitted.
    pub permitted: usize,
    /// Transactions denied.
    pub denied: usize,
    /// What happened, by kind of event.
    pub kinds: BTreeSet<String>,
    /// Changes of the validators.
    pub set_changes: usize,
    /// The protocol version in force at the end.
    pub version: u32,
    /// Virtual time from the healing until everything was final everywhere, ms.
    pub settled_ms: u64,
}

/// The run of a seed. An error says what was wrong; it does not name the seed.
pub fn run_seed(seed: u64) -> Result<Report, String> {
    guarded(seed, None, true)
}

/// The run of a seed in which somebody lies, and so.
pub fn run_against(seed: u64, behaviour: Behaviour) -> Result<Report, String> {
    guarded(seed, Some(behaviour), true)
}

/// The run of a seed as it was before there were the races of the whole decision: what seeds found then stays found.
pub fn run_first(seed: u64) -> Result<Report, String> {
    guarded(seed, None, false)
}

fn guarded(seed: u64, behaviour: Option<Behaviour>, races: bool) -> Result<Report, String> {
    let run = AssertUnwindSafe(|| run(seed, behaviour, races));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

fn run(seed: u64, behaviour: Option<Behaviour>, races: bool) -> Result<Report, String> {
    // A stream of its own, so that what is planned does not hang on what happens.
    let mut random = Random::new(seed ^ 0x5eed << 48);
    let n = match random.below(1000) {
        0..20 => 10,
        20..80 => 7,
        _ => 4,
    };
    let founding = if races { Founding::hasty(n) } else { Founding::usual(n) };
    let workload_of = founding.clone();
    let mut sim = Sim::found(seed, founding, weather(&mut random));
    let mut eager = eager(seed);
    let longer = if eager.is_some() { ABSENCE_MS } else { 0 };
    let faults_ms = FAULTS_MS.0 + random.below(FAULTS_MS.1 - FAULTS_MS.0) + longer;
    let mut faults = faults(seed, n, &mut random);
    if let Some(behaviour) = behaviour {
        faults = vec![(random.below(n as u64) as usize, Fault::Lies(behaviour))];
    }
    if let Some(random) = &mut eager {
        let behind = 3 + random.below(6);
        sim.rule_snapshots(SnapshotRule { every: 1 + random.below(4), behind, part_leaves: 2 });
    }
    for (at, fault) in &faults {
        befall(&mut sim, *at, *fault, faults_ms, &mut random);
    }
    sim.start_all();
    let mut races = races.then(|| Random::new(seed ^ 0xace5 << 48));
    let mut work = workload::draw(&workload_of, &mut random, faults_ms, races.as_mut());
    sim.watch.expect(&work);
    links(&mut sim, n, faults_ms, &mut random);
    power(&mut sim, faults_ms, &mut random);
    clocks(&mut sim, n, faults_ms, &mut random);
    pauses(&mut sim, n, faults_ms, &mut random);
    if let Some(random) = &mut eager {
        absence(&mut sim, faults_ms, faults.len() < (n - 1) / 3, random);
    }
    sim.heal_in(faults_ms);
    let healed = sim.now.plus(faults_ms);
    sim.employ(std::mem::take(&mut work.steps));
    if random.chance(60) {
        // Only where all are honest may anyone leave, or weigh more.
        workload::govern(&mut sim, &workload_of, &mut random, faults.is_empty(), 1_000);
    }
    if let Some(random) = &mut races
        && random.chance(UPGRADED_OF_1000)
    {
        workload::upgrade(&mut sim, &workload_of, random.below(faults_ms));
    }
    let what = "all is final at all correct validators after the healing, and nothing older is missing";
    let settled = |sim: &Sim| sim.now >= healed && sim.all_final() && sim.all_filled();
    sim.run(faults_ms + HEALED_BOUND_MS, what, settled)?;
    sim.watch.check_outcome(&work);
    sim.watch.check_races(&work);
    sim.check_disks()?;
    let (height, newest) = sim.newest_state();
    Ok(Report {
        trace: sim.trace(),
        validators: n,
        faults: faults.into_iter().map(|(_, fault)| fault).collect(),
        lies: sim.lies(),
        height: sim.height(sim.correct()[0]).0,
        restarted: sim.came_back.len(),
        stopped: sim.stopped,
        states_taken: sim.states_taken,
        false_states: sim.false_states(),
        permitted: sim.watch.permitted(),
        denied: sim.watch.denied(),
        kinds: sim.watch.kinds().clone(),
        set_changes: sim.watch.set_changes(),
        version: assent_ledger::protocol(&newest).at(height),
        settled_ms: sim.now.0 - healed.0,
    })
}

/// What is drawn for a seed with whole states; a stream of its own again, so that the other seeds stay as they
/// are.
fn eager(seed: u64) -> Option<Random> {
    (seed % EAGER_EVERY == 2).then(|| Random::new(seed ^ 0xea9e << 48))
}

/// A machine without a fault of its own is off for most of the time, and comes back with its disk, or, where
/// one more may have a fault, with an empty one. As few blocks as there are would be here before any state, so
/// mostly answers with blocks are lost for a while.
fn absence(sim: &mut Sim, faults_ms: u64, may_forget: bool, random: &mut Random) {
    let at = random.pick(&sim.sound());
    let (gone, back) = (300 + random.below(700), faults_ms - NO_BLOCKS_MS - random.below(1_000));
    if random.chance(800) {
        let from = (0..sim.machines()).filter(|other| *other != at).collect();
        let until = sim.now.plus(faults_ms);
        sim.trouble_in(back, Trouble { kind: Kind::NoBlocks, from, to: [at].into(), until });
    }
    sim.cut_power_in(gone, at, random.below(5), Unsynced::Lost);
    if may_forget && random.chance(700) {
        sim.replace_disk_in(back, at);
    } else {
        sim.start_in(back, at);
    }
}

fn weather(random: &mut Random) -> Weather {
    match random.below(3) {
        0 => Weather::FAIR,
        1 => Weather::FOUL,
        _ => Weather { lost: random.below(150), repeated: random.below(80), way_ms: 1 + random.below(200) },
    }
}

/// Up to f of 3f + 1 validators. Each kind of liar comes up in turn, so that no stretch of seeds lacks one.
fn faults(seed: u64, n: usize, random: &mut Random) -> Vec<(usize, Fault)> {
    let first = random.below(n as u64) as usize;
    let slots = (0..(n - 1) / 3).map(|i| (first + 3 * i) % n);
    let turn = seed as usize;
    let mut drawn = Vec::new();
    for (i, at) in slots.enumerate() {
        let fault = match random.below(1000) {
            0..300 => continue,
            300..700 => Fault::Lies(Behaviour::ALL[(turn + i) % Behaviour::ALL.len()]),
            700..780 => Fault::Twin,
            780..860 => Fault::OldDisk,
            860..920 => Fault::EmptyDisk,
            _ => Fault::Rots(random.pick(&Rot::ALL)),
        };
        drawn.push((at, fault));
    }
    drawn
}

fn befall(sim: &mut Sim, at: usize, fault: Fault, faults_ms: u64, random: &mut Random) {
    let (early, late) = (random.below(faults_ms / 2), random.below(faults_ms / 2));
    match fault {
        Fault::Lies(behaviour) => sim.corrupt(at, behaviour),
        Fault::Twin => {
            sim.double(at);
        }
        Fault::OldDisk => {
            sim.copy_disk_in(early, at);
            sim.replace_disk_in(early + 1 + late, at);
        }
        Fault::EmptyDisk => sim.replace_disk_in(early + late, at),
        Fault::Rots(what) => {
            sim.rot_in(early, at, what);
            // What is damaged is read when it starts.
            if random.chance(700) {
                sim.start_in(early + random.below(2_000), at);
            }
        }
    }
}

/// Partitions, one-way or both ways, and clogged links.
fn links(sim: &mut Sim, n: usize, faults_ms: u64, random: &mut Random) {
    for _ in 0..random.below(4) {
        let (at, lasts) = (random.below(faults_ms), 300 + random.below(4_000));
        let until = sim.now.plus(at + lasts);
        let kind = random.pick(&[Kind::Cut, Kind::Cut, Kind::Clogged, Kind::NoPrecommits]);
        let (from, to): (BTreeSet<_>, BTreeSet<_>) = (0..n).partition(|_| random.chance(400));
        if random.chance(500) {
            let back = Trouble { kind, from: to.clone(), to: from.clone(), until };
            sim.trouble_in(at, back);
        }
        sim.trouble_in(at, Trouble { kind, from, to, until });
    }
}

/// Power that goes at some write, of one machine after the other or of all at once, and then the vote logs of
/// all of them may be torn.
fn power(sim: &mut Sim, faults_ms: u64, random: &mut Random) {
    let all_at = random.chance(80).then(|| random.below(faults_ms));
    for at in sim.correct() {
        let unsynced = random.pick(&[Unsynced::Lost, Unsynced::Some, Unsynced::Torn]);
        for _ in 0..random.below(3).saturating_sub(1) {
            let ms = random.below(faults_ms);
            sim.cut_power_in(ms, at, random.below(40), unsynced);
            sim.start_in(ms + 200 + random.below(5_000), at);
        }
        if let Some(ms) = all_at {
            sim.cut_power_in(ms, at, random.below(3), unsynced);
            sim.start_in(ms + 2_000, at);
        }
    }
}

/// Clocks that are a little off, and some that are off by more than is allowed.
fn clocks(sim: &mut Sim, n: usize, faults_ms: u64, random: &mut Random) {
    for at in 0..n {
        sim.skew_in(0, at, random.below(600) as i64 - 300);
        if random.chance(60) {
            sim.skew_in(random.below(faults_ms), at, random.below(12_000) as i64 - 4_000);
        }
    }
}

/// Processes that are stopped for a while, and disks that are slow to sync: a little, or so that a machine does
/// not keep up.
fn pauses(sim: &mut Sim, n: usize, faults_ms: u64, random: &mut Random) {
    let usual = if random.chance(300) { 1 + random.below(8) } else { 0 };
    for at in 0..n {
        sim.slow_disk_in(0, at, usual);
        if random.chance(100) {
            let (ms, lasts) = (random.below(faults_ms), 500 + random.below(4_000));
            sim.pause_in(ms, at, lasts);
        }
        if random.chance(80) {
            let ms = random.below(faults_ms);
            sim.slow_disk_in(ms, at, 20 + random.below(400));
            sim.slow_disk_in(ms + 500 + random.below(3_000), at, usual);
        }
    }
}
