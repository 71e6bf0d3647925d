//! Runs a stretch of seeds of the simulation, with progress, and stops at the first that fails. What happens
//! in a run is in `assent_tests::sim`; nothing is decided here.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use assent_tests::sim::soak::{Sample, soak};
use assent_tests::sim::{Report, run_seed};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Whole validators under a virtual clock, with failing networks, disks and power and with validators that lie.
/// Each seed is one run and always the same one.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs at a time; as many as there are cores unless said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints a line for each seed.
    #[arg(long)]
    verbose: bool,
    /// Instead of seeds: so many hours of virtual time under constant load, with what is in memory after each.
    #[arg(long, conflicts_with_all = ["seeds", "jobs"])]
    hours: Option<u64>,
}

/// Without a terminal a line tells the progress after so many seeds.
const PASSED_TOLD: u64 = 500;

type Outcome = (u64, Result<Report, String>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(hours) = arguments.hours {
        return long_run(arguments.from, hours);
    }
    let bar = progress(arguments.seeds);
    let (passed, failed) = run_all(&arguments, &bar);
    bar.finish_and_clear();
    if let Some((seed, why)) = &failed {
        println!("seed {seed} failed: {why}");
        println!("replay: scripts/simulate.sh --seeds 1 --from {seed}");
    }
    println!("{passed} passed, {} failed", u64::from(failed.is_some()));
    if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints one line for each hour.
fn long_run(seed: u64, hours: u64) -> ExitCode {
    println!(
        "{:>5} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "hour", "height", "leaves", "waiting", "queued", "memory kB"
    );
    let result = soak(seed, hours, &mut |s| {
        let memory = resident_kb().map_or("?".into(), |kb| kb.to_string());
        let Sample { hour, height, leaves, waiting, queued, .. } = s;
        println!("{hour:>5} {height:>8} {leaves:>8} {waiting:>8} {queued:>8} {memory:>10}");
    });
    match result {
        Ok(()) => {
            println!("{hours} hours passed");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("failed: {why}");
            println!("replay: scripts/simulate.sh --hours {hours} --from {seed}");
            ExitCode::FAILURE
        }
    }
}

/// Memory that this process holds.
fn resident_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn progress(seeds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    ProgressBar::new(seeds).with_style(style.expect("a template that indicatif reads"))
}

/// Runs seeds until all are done or one fails. Of those that fail at the same time, the lowest is told.
fn run_all(arguments: &Arguments, bar: &ProgressBar) -> (u64, Option<(u64, String)>) {
    let end = arguments.from.saturating_add(arguments.seeds);
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let (next, stop) = (AtomicU64::new(arguments.from), AtomicBool::new(false));
    let (tell, told) = mpsc::channel::<Outcome>();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (next, stop, tell) = (&next, &stop, tell.clone());
            scope.spawn(move || work(next, stop, end, &tell));
        }
        drop(tell);
        let (mut passed, mut failed) = (0, None::<(u64, String)>);
        for (seed, result) in told {
            bar.inc(1);
            match result {
                Ok(report) => {
                    passed += 1;
                    if bar.is_hidden() && passed % PASSED_TOLD == 0 {
                        eprintln!("{passed} of {} seeds passed", arguments.seeds);
                    }
                    if arguments.verbose {
                        bar.suspend(|| println!("seed {seed}: {report:?}"));
                    }
                }
                Err(why) if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) => {
                    failed = Some((seed, why));
                }
                Err(_) => {}
            }
        }
        (passed, failed)
    })
}

fn work(next: &AtomicU64, stop: &AtomicBool, end: u64, tell: &mpsc::Sender<Outcome>) {
    while !stop.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let result = run_seed(seed);
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        if tell.send((seed, result)).is_err() {
            return;
        }
    }
}
