//! Measures networks on this machine from their clients' side: how much they take, how soon it is final, and what that
//! costs, beside what the machine can do at most. Nothing is asserted; figures are for comparing within one run, or two
//! runs on one machine.

mod compare;
mod course;
mod drive;
mod fill;
mod growth;
mod limits;
mod lineage;
mod plot;
mod report;
mod setting;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use assent_tests::stage::Failure;
use clap::Parser;

use crate::course::Times;
use crate::growth::parse_count;
use crate::setting::Setting;

/// What growth and lineage do not heed.
const OF_A_SETTING: [&str; 5] = ["quick", "validators", "one_core", "delay", "against"];
/// What growth goes to unless told. Ten million take long, so only on request.
const SIZES: [&str; 3] = ["1k", "100k", "1M"];
/// Activities that are recorded unless told.
const ACTIVITIES: usize = 100_000;

#[derive(Parser)]
#[command(
    name = "assent-bench",
    about = "Measures throughput, time to finality and what they cost, with validators on this machine",
    long_about = None,
    after_help = "examples:\n  scripts/bench.sh\n  scripts/bench.sh --quick --against before.json\n  \
        scripts/bench.sh --validators 7 --delay 20\n  scripts/bench.sh --growth 1k 1M 10M --lineage 10M"
)]
struct Arguments {
    /// Two minutes instead of ten, and the one setting alone.
    #[arg(long)]
    quick: bool,
    /// So many validators.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    validators: u8,
    /// All validators on one core.
    #[arg(long)]
    one_core: bool,
    /// Links on which everything takes so long, each way: needs network namespaces, so root.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    delay: u64,
    /// Instead of all that: one validator with so many standing grants, and what becomes of its throughput, memory,
    /// restart and proofs.
    #[arg(long, value_name = "N", conflicts_with_all = OF_A_SETTING, num_args = 0.., value_parser = parse_count, default_missing_values = SIZES)]
    growth: Vec<usize>,
    /// After growth, or alone: so many recorded activities, and how long a question of lineage takes among them.
    #[arg(long, value_name = "N", conflicts_with_all = OF_A_SETTING, num_args = 0..=1, value_parser = parse_count, default_missing_value = "100k")]
    lineage: Option<usize>,
    /// Where results.json, results.txt and results.svg go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// An earlier results.json of the same setting: changes of more than 10 % are shown.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Arguments {
    fn setting(&self) -> Setting {
        Setting { validators: self.validators.into(), one_core: self.one_core, delay_ms: self.delay }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assent-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if !arguments.growth.is_empty() || arguments.lineage.is_some() {
        let activities = arguments.lineage.unwrap_or(ACTIVITIES);
        let grown = runtime.block_on(growth::measure(arguments.growth.clone(), activities))?;
        grown.write(&arguments.out)?;
        print!("{}", grown.table());
        println!("written to {}", arguments.out.display());
        return Ok(());
    }
    let setting = arguments.setting();
    setting.possible()?;
    let before = arguments.against.as_deref().map(|path| compare::read(path, &setting)).transpose()?;
    let report = runtime.block_on(course::measure(&setting, &Times::of(arguments.quick)))?;
    report.write(&arguments.out)?;
    print!("{}", report.table());
    if let Some(before) = before {
        print!("{}", compare::changes(&before, &report.json()));
    }
    println!("written to {}", arguments.out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Arguments> {
        let words = std::iter::once("assent-bench").chain(line.split_whitespace());
        Arguments::try_parse_from(words).ok()
    }

    fn setting(line: &str) -> Option<Setting> {
        read(line).map(|a| a.setting())
    }

    #[test]
    fn growth_has_sizes_of_its_own_or_those_that_are_named() {
        let sizes = |line| read(line).map(|a| (a.growth, a.lineage));
        assert_eq!(sizes(""), Some((vec![], None)));
        assert_eq!(sizes("--growth"), Some((vec![1_000, 100_000, 1_000_000], None)));
        assert_eq!(sizes("--growth 5k 1M --lineage"), Some((vec![5_000, 1_000_000], Some(100_000))));
        assert_eq!(sizes("--lineage 10M"), Some((vec![], Some(10_000_000))));
        assert_eq!(sizes("--growth many"), None);
        assert_eq!(sizes("--growth 1k --quick"), None, "growth has one length");
    }

    #[test]
    fn options_make_a_setting() {
        assert_eq!(setting(""), Some(Setting::default()));
        assert_eq!(setting("--validators 1 --one-core"), Some(Setting::OTHERS[0]));
        assert_eq!(setting("--quick --delay 20"), Some(Setting::OTHERS[2]));
        assert_eq!(setting("--validators 0"), None);
        assert_eq!(setting("--delay 5000"), None);
    }
}
