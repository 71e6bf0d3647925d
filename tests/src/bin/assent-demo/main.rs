//! The demo: four validators as separate processes, and a story told through the public RPC with `assent`.
//!
//! `main` sets up and cleans up, [`stage`] runs programs and shows progress, [`story`] holds the twelve steps.

mod stage;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use stage::Stage;

/// Run the story of a consent, from enrolment to offline proof, over four validators on this machine.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  assent-demo\n  assent-demo --lang zh --keep --out /tmp/assent")]
struct Args {
    /// Language of the story.
    #[arg(long, value_enum, default_value = "en")]
    lang: Lang,
    /// Leave the network running at the end and print how to talk to it.
    #[arg(long)]
    keep: bool,
    /// Folder for the genesis file, the evidence, summary.json and everything else; must be empty or absent.
    /// Without it a new folder is made under the system's temporary folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder of the FHIR records.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fhir"))]
    fixtures: PathBuf,
}

/// The story's languages.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lang {
    /// Chinese.
    Zh,
    /// English.
    En,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("\nassent-demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut stage = Stage::set(args.lang, args.out, args.fixtures)?;
    let running = stage.network.running();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupted = running.clone();
    runtime.spawn(async move {
        if stage::interrupt().await.is_ok() {
            eprintln!("\ninterrupted; ending the nodes");
            // Nothing is left to tell if this fails: the process ends here.
            let _ = interrupted.stop_all();
            std::process::exit(130);
        }
    });
    let told = story::tell(&mut stage);
    if let Err(e) = &told {
        stage.failed(e.as_ref());
    }
    stage.write_summary(told.is_ok())?;
    if args.keep {
        if told.is_ok() {
            stage.network.start_all()?;
        }
        stage.say_how_to_go_on();
        // The processes outlive this one on request.
        stage.network.leave_running();
    } else {
        stage.network.stop_all()?;
    }
    Ok(if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
