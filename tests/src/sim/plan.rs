//! What happens in the run of a seed: how many validators, who lies and how, which links fail, whose power
//! goes, whose clock is wrong, what clients want. For a while everything goes wrong, then all is healed, and
//! within a bounded time all correct validators must hold the same chain with everything in it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::byzantine::Behaviour;
use super::disk::Unsynced;
use super::network::{Kind, Trouble};
use super::{Founding, Random, Sim, Weather, workload};

/// After this much virtual time from the healing everything must be final everywhere, ms.
pub const HEALED_BOUND_MS: u64 = 120_000;
/// Least and most time in which things go wrong, ms.
const FAULTS_MS: (u64, u64) = (4_000, 10_000);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The hash of everything that happened.
    pub trace: blake3::Hash,
    /// Validators.
    pub validators: usize,
    /// What the liars among them did.
    pub behaviours: Vec<Behaviour>,
    /// How often they lied.
    pub lies: u64,
    /// The height at the end.
    pub height: u64,
    /// Restarts of machines.
    pub restarted: usize,
    /// Uses permitted.
    pub permitted: usize,
    /// Transactions denied.
    pub denied: usize,
    /// Virtual time from the healing until everything was final everywhere, ms.
    pub settled_ms: u64,
}

/// The run of a seed. An error says what was wrong; it does not name the seed.
pub fn run_seed(seed: u64) -> Result<Report, String> {
    let run = AssertUnwindSafe(|| run(seed));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

fn run(seed: u64) -> Result<Report, String> {
    // A stream of its own, so that what is planned does not hang on what happens.
    let mut random = Random::new(seed ^ 0x5eed << 48);
    let founding = if random.chance(60) { Founding::seven() } else { Founding::four() };
    let n = founding.keys.len();
    let workload_of = founding.clone();
    let mut sim = Sim::found(seed, founding, weather(&mut random));
    let liars = liars(n, &mut random);
    for (at, behaviour) in &liars {
        sim.corrupt(*at, *behaviour);
    }
    sim.start_all();
    let faults_ms = FAULTS_MS.0 + random.below(FAULTS_MS.1 - FAULTS_MS.0);
    let mut work = workload::draw(&workload_of, &mut random, faults_ms);
    sim.watch.expect(&work);
    links(&mut sim, n, faults_ms, &mut random);
    power(&mut sim, n, liars.is_empty(), faults_ms, &mut random);
    clocks(&mut sim, n, faults_ms, &mut random);
    sim.heal_in(faults_ms);
    let healed = sim.now.plus(faults_ms);
    sim.employ(std::mem::take(&mut work.steps));
    let what = "all is final at all correct validators after the healing";
    sim.run(faults_ms + HEALED_BOUND_MS, what, |sim| sim.now >= healed && sim.all_final())?;
    sim.watch.check_outcome(&work);
    sim.check_disks()?;
    Ok(Report {
        trace: sim.trace(),
        validators: n,
        behaviours: liars.iter().map(|(_, b)| *b).collect(),
        lies: sim.lies(),
        height: sim.height(sim.correct()[0]).0,
        restarted: sim.came_back.len(),
        permitted: sim.watch.permitted(),
        denied: sim.watch.denied(),
        settled_ms: sim.now.0 - healed.0,
    })
}

fn weather(random: &mut Random) -> Weather {
    match random.below(3) {
        0 => Weather::FAIR,
        1 => Weather::FOUL,
        _ => Weather { lost: random.below(150), repeated: random.below(80), way_ms: 1 + random.below(200) },
    }
}

/// At most a third, less one: in two of three runs somebody lies.
fn liars(n: usize, random: &mut Random) -> Vec<(usize, Behaviour)> {
    if random.chance(333) {
        return Vec::new();
    }
    let first = random.below(n as u64) as usize;
    let count = if n == 7 { 2 } else { 1 };
    (0..count).map(|i| ((first + 3 * i) % n, random.pick(&Behaviour::ALL))).collect()
}

/// Partitions, one-way or both ways, and clogged links.
fn links(sim: &mut Sim, n: usize, faults_ms: u64, random: &mut Random) {
    for _ in 0..random.below(4) {
        let (at, lasts) = (random.below(faults_ms), 300 + random.below(4_000));
        let until = sim.now.plus(at + lasts);
        let kind = if random.chance(300) { Kind::Clogged } else { Kind::Cut };
        let (from, to): (BTreeSet<_>, BTreeSet<_>) = (0..n).partition(|_| random.chance(400));
        if random.chance(500) {
            let back = Trouble { kind, from: to.clone(), to: from.clone(), until };
            sim.trouble_in(at, back);
        }
        sim.trouble_in(at, Trouble { kind, from, to, until });
    }
}

/// Power that goes at some write, of one machine after the other or of all at once. A torn log makes a
/// validator abstain for the height, which counts as a fault of its own: one at most, and no liar beside it.
fn power(sim: &mut Sim, n: usize, may_tear: bool, faults_ms: u64, random: &mut Random) {
    let torn = may_tear && random.chance(300);
    let victim = random.below(n as u64) as usize;
    let correct = sim.correct();
    let all_at = random.chance(80).then(|| random.below(faults_ms));
    for at in correct {
        let unsynced = match random.below(2) {
            _ if torn && at == victim => Unsynced::Torn,
            0 => Unsynced::Lost,
            _ => Unsynced::Some,
        };
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

fn clocks(sim: &mut Sim, n: usize, faults_ms: u64, random: &mut Random) {
    for at in 0..n {
        sim.skew_in(0, at, random.below(300));
        if random.chance(60) {
            sim.skew_in(random.below(faults_ms), at, random.below(8_000));
        }
    }
}
