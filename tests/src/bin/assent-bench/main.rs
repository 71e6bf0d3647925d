//! Measures a network of four validators on this machine, from its clients' side: how much it takes, how soon it is
//! final, and what that costs, beside what the machine can do at most. Nothing is asserted; figures are for comparing
//! within one run, or two runs on one machine.

mod drive;
mod limits;
mod report;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use assent_proto::TimeMs;
use assent_tests::clients;
use assent_tests::mix::{STEPS, Signer};
use assent_tests::stage::{Failure, Stage};
use clap::Parser;

use crate::drive::{Drive, Load, Seen};
use crate::limits::Limits;
use crate::report::{Phase, Report};
use crate::usage::Look;

/// Who is killed for the measurement with one down.
const VICTIM: usize = 3;
/// Persons on their way at one time when as much is wanted as the network takes.
const CROWD: usize = 1500;
/// Of what a crowd brought through, so much is tried as a rate, in turn, until one is kept up.
const TRIED: [f64; 4] = [0.95, 0.85, 0.75, 0.6];
/// So much of the peak is load enough for it to matter and little enough to wait for nobody.
const LOW: f64 = 0.02;
/// For how long what is signed is good, ms: somewhat less than the chain allows.
const LIFE_MS: u64 = 9 * 60_000;

#[derive(Parser)]
#[command(
    name = "assent-bench",
    about = "Measures throughput, time to finality and what they cost, with four validators on this machine",
    long_about = None,
    after_help = "examples:\n  scripts/bench.sh\n  scripts/bench.sh --quick --against before.json"
)]
struct Arguments {
    /// Two minutes instead of ten.
    #[arg(long)]
    quick: bool,
    /// Where results.json, results.txt and results.svg go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// An earlier results.json: changes of more than 10 % are shown.
    #[arg(long)]
    against: Option<PathBuf>,
}

/// For how long what is measured, s.
struct Times {
    warm_up: Duration,
    crowd: Duration,
    peak: Duration,
    other: Duration,
}

impl Times {
    fn of(quick: bool) -> Times {
        let [warm_up, crowd, peak, other] = if quick { [2, 6, 12, 6] } else { [5, 20, 60, 20] };
        let seconds = Duration::from_secs;
        Times { warm_up: seconds(warm_up), crowd: seconds(crowd), peak: seconds(peak), other: seconds(other) }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> Result<(), Failure> {
        let before = arguments.against.as_deref().map(report::read).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let report = runtime.block_on(measure(&Times::of(arguments.quick)))?;
        report.write(&arguments.out)?;
        print!("{}", report.table());
        if let Some(before) = before {
            print!("{}", report.against(&before));
        }
        println!("written to {}", arguments.out.display());
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assent-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever measures, with what has been seen so far.
struct Bench {
    stage: Stage,
    drive: Drive,
    warm_up: Duration,
    phases: Vec<Phase>,
}

impl Bench {
    /// Signs as many persons' ways as a load may need, and puts it on.
    async fn phase(&mut self, name: &'static str, load: Load, most: f64, time: Duration) -> Seen {
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
}

async fn measure(times: &Times) -> Result<Report, Failure> {
    let stage = Stage::set(None)?;
    let limits = Limits::measure(stage.dir.path())?;
    let catalogue = clients::lay_ground(&stage.clients).await;
    let (genesis, cast) = (stage.clients.genesis.hash(), stage.clients.cast.clone());
    let drive = Drive { signer: Signer::new(genesis, cast, catalogue), doors: stage.clients.doors.clone() };
    let mut bench = Bench { stage, drive, warm_up: times.warm_up, phases: Vec::new() };
    // What goes in first is not measured: caches fill, and nobody knows yet how much can be taken.
    let first = bench.phase("first", Load::Persons(CROWD / 3), 6_000.0, times.crowd / 2).await;
    let crowd = bench.phase("crowd", Load::Persons(CROWD), 3.0 * first.per_second(), times.crowd).await;
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
    bench.stage.network.kill(VICTIM)?;
    bench.drive.doors.remove(VICTIM);
    let most = 2.0 * crowd.per_second();
    bench.phase("one down, crowd", Load::Persons(CROWD), most, times.crowd).await;
    bench.phase("one down, half", Load::Rate(peak / 2.0), peak / 2.0, times.other).await;
    bench.stage.network.stop_all()?;
    Ok(Report { limits, phases: bench.phases })
}
