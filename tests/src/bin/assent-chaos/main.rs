//! Real validators under bad conditions, and under load. `chaos` breaks networks and processes while clients go on,
//! and has everything checked afterwards; `measure` and `soak` put load on a network that nobody disturbs and say
//! what came of it. What a node does is not decided here, and what is right is in `assent_tests::checker`.

mod chaos;
mod measure;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

use assent_tests::hosts;
use assent_tests::stage::Failure;
use clap::{Args, Parser, Subcommand};

/// Real validators on hosts of their own (network namespaces) among failing networks, kill -9 and pauses, while
/// clients submit; then an independent checker reads every node and all that the clients were told.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  assent-chaos --minutes 10
  assent-chaos --nodes 7 --minutes 10 --seed 3
  assent-chaos measure
  assent-chaos soak --minutes 30"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    chaos: Chaos,
    /// Remove what runs that were killed have left behind, and do nothing else.
    #[arg(long)]
    clean: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Throughput and time to finality on loopback: all four up, then one of them killed.
    Measure(Measure),
    /// Constant load on loopback: memory, file descriptors and heights of each node from time to time.
    Soak(Soak),
}

/// What happens to the network and to the processes.
#[derive(Args)]
pub(crate) struct Chaos {
    /// How many validators: 4 or 7.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=7))]
    nodes: u8,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Chooses faults, delays and losses. When each takes effect is up to this machine: a seed does not repeat a run
    /// exactly, as that of the simulation does.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many persons live their lives at once.
    #[arg(long, default_value_t = 8)]
    persons: u64,
    /// Pause between two things that a person does, ms.
    #[arg(long, default_value_t = 200)]
    pace_ms: u64,
    /// Where to leave the nodes' folders and logs and the clients' history. Without it they are removed if all is well.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What load is measured.
#[derive(Args)]
pub(crate) struct Measure {
    /// For how long each of the four times.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Moderate load: so many transactions a second, whatever the network makes of it.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Saturating load: so many clients, each of which submits as soon as its last transaction is final.
    #[arg(long, default_value_t = 512)]
    clients: usize,
}

/// What load is borne for how long.
#[derive(Args)]
pub(crate) struct Soak {
    /// For how long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Transactions a second.
    #[arg(long, default_value_t = 40)]
    rate: u64,
    /// Seconds between two lines.
    #[arg(long, default_value_t = 60)]
    every: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("assent-chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(cli: Cli) -> Result<bool, Failure> {
    if cli.clean {
        let removed = hosts::clean()?;
        println!("{} runs' namespaces and bridges removed", removed.len());
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match cli.command {
        None => runtime.block_on(chaos::run(&cli.chaos)),
        Some(Command::Measure(m)) => runtime.block_on(measure::run(&m)).map(|()| true),
        Some(Command::Soak(s)) => runtime.block_on(soak::run(&s)).map(|()| true),
    }
}
