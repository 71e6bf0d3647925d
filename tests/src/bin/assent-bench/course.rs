//! What is measured in which order: one setting at length, and others shortly.

use std::time::Duration;

use assent_proto::TimeMs;
use assent_tests::clients::{self, Catalogue};
use assent_tests::mix::{STEPS, Signer};
use assent_tests::stage::Stage;

use crate::Failure;
use crate::drive::{Drive, Load, Seen};
use crate::limits::Limits;
use crate::report::{Other, Phase, Report};
use crate::setting::Setting;
use crate::usage::Look;

/// Who is killed for the measurement with one down.
const VICTIM: usize = 3;
/// Persons on their way at one time when as much is wanted as the network takes.
const CROWD: usize = 1500;
/// Of what a crowd brought through, so much is tried as a rate, in turn, until one is kept up.
const TRIED: [f64; 4] = [0.95, 0.85, 0.75, 0.6];
/// So much of the peak is load enough for it to matter and little enough to wait for nobody.
const LOW: f64 = 0.02;
/// More than this many transactions a second nobody has seen yet.
const GUESS: f64 = 12_000.0;
/// For how long what is signed is good, ms: somewhat less than the chain allows.
const LIFE_MS: u64 = 9 * 60_000;

/// For how long what is measured.
pub(crate) struct Times {
    quick: bool,
    warm_up: Duration,
    crowd: Duration,
    peak: Duration,
    other: Duration,
}

impl Times {
    pub(crate) fn of(quick: bool) -> Times {
        let [warm_up, crowd, peak, other] = if quick { [2, 6, 12, 6] } else { [5, 20, 60, 20] };
        let seconds = Duration::from_secs;
        Times {
            quick,
            warm_up: seconds(warm_up),
            crowd: seconds(crowd),
            peak: seconds(peak),
            other: seconds(other),
        }
    }
}

/// A network under load, with what has been seen so far.
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) drive: Drive,
    pub(crate) catalogue: Catalogue,
    pub(crate) warm_up: Duration,
    pub(crate) phases: Vec<Phase>,
}

impl Bench {
    /// Founds and starts a network and lays its ground.
    pub(crate) async fn on(setting: &Setting, warm_up: Duration) -> Result<Bench, Failure> {
        let stage = Stage::over(|root, passphrase| setting.found(root, passphrase))?;
        let catalogue = clients::lay_ground(&stage.clients).await;
        let (genesis, cast) = (stage.clients.genesis.hash(), stage.clients.cast.clone());
        let drive =
            Drive { signer: Signer::new(genesis, cast, catalogue), doors: stage.clients.doors.clone() };
        Ok(Bench { stage, drive, catalogue, warm_up, phases: Vec::new() })
    }

    /// Signs as many persons' ways as a load may need, and puts it on.
    pub(crate) async fn phase(
        &mut self,
        name: impl Into<String>,
        load: Load,
        most: f64,
        time: Duration,
    ) -> Seen {
        let name = name.into();
        let transactions = most * (self.warm_up + time).as_secs_f64();
        let in_queue = if let Load::Persons(n) = load { n } else { 0 };
        let count = (transactions / STEPS as f64) as usize + in_queue + 10;
        let persons = self.drive.signer.persons(count, TimeMs(clients::now_ms() + LIFE_MS));
        eprintln!("{name}: {load:.0?} for {} s", time.as_secs());
        let before = Look::at(&self.stage.network);
        let seen = self.drive.run(load, self.warm_up, time, &persons).await;
        let used = Look::at(&self.stage.network).since(&before);
        let phase = Phase { name, load, seen: seen.clone(), used };
        eprintln!(
            "  {:.0} a second; final within {:.0} ms (half), {:.0} ms (99 %); {:.0} us of CPU and 1/{:.0} of a block each",
            seen.per_second(),
            seen.quantile(0.5),
            seen.quantile(0.99),
            phase.cpu_us_per_tx(),
            phase.tx_per_block()
        );
        if let Some(failure) = &seen.failure {
            eprintln!("  {} failed, the first: {failure}", seen.failed);
        }
        self.phases.push(phase);
        seen
    }

    /// As much as the network takes. What goes in first is not measured: caches fill, and nobody knows yet how much
    /// that is.
    pub(crate) async fn crowd(&mut self, name: &str, time: Duration) -> Seen {
        let first = self.phase("first", Load::Persons(CROWD / 3), GUESS, time / 2).await;
        self.phase(name, Load::Persons(CROWD), 3.0 * first.per_second(), time).await
    }
}

/// All that is measured of a setting; where that is the usual one and there is time, others shortly besides.
pub(crate) async fn measure(setting: &Setting, times: &Times) -> Result<Report, Failure> {
    let mut bench = Bench::on(setting, times.warm_up).await?;
    let limits = Limits::measure(bench.stage.dir.path())?;
    let crowd = bench.crowd("crowd", times.crowd).await;
    let mut peak = 0.0;
    for share in TRIED {
        peak = share * crowd.per_second();
        if bench.phase("peak", Load::Rate(peak), peak, times.peak).await.sustains(peak) {
            break;
        }
    }
    let low = (LOW * peak).max(20.0);
    bench.phase("low", Load::Rate(low), low, times.other).await;
    bench.phase("half", Load::Rate(peak / 2.0), peak / 2.0, times.other).await;
    bench.phase("beyond", Load::Rate(peak * 2.0), peak * 2.0, times.other).await;
    // Fewer than four cannot do without one.
    if setting.validators > VICTIM {
        bench.stage.network.kill(VICTIM)?;
        bench.drive.doors.remove(VICTIM);
        let most = 2.0 * crowd.per_second();
        bench.phase("one down, crowd", Load::Persons(CROWD), most, times.crowd).await;
        bench.phase("one down, half", Load::Rate(peak / 2.0), peak / 2.0, times.other).await;
    }
    bench.stage.network.stop_all()?;
    let phases = bench.phases;
    // Its disk is given back before others write to theirs.
    drop(bench.stage);
    let mut others = Vec::new();
    if *setting == Setting::default() && !times.quick {
        for other in Setting::OTHERS {
            others.push(glance(other).await?);
        }
    }
    Ok(Report { setting: *setting, quick: times.quick, limits, phases, others })
}

/// A setting in half a minute: what it takes at most, and how soon it answers at little load.
async fn glance(setting: Setting) -> Result<Other, Failure> {
    if let Err(why) = setting.possible() {
        eprintln!("not measured: {why}");
        return Ok(Other { setting, phases: None });
    }
    let times = Times::of(true);
    let mut bench = Bench::on(&setting, times.warm_up).await?;
    let crowd = bench.crowd(&format!("{setting}: crowd"), times.crowd).await;
    let low = (LOW * crowd.per_second()).max(20.0);
    bench.phase(format!("{setting}: low"), Load::Rate(low), low, times.other).await;
    bench.stage.network.stop_all()?;
    let [_, crowd, low] =
        <[Phase; 3]>::try_from(bench.phases).unwrap_or_else(|_| unreachable!("three were measured"));
    Ok(Other { setting, phases: Some([crowd, low]) })
}
