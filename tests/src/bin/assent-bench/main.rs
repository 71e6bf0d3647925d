//! Measures networks on this machine from their clients' side: how much they take, how soon it is final, and what that
//! costs, beside what the machine can do at most. Nothing is asserted; figures are for comparing within one run, or two
//! runs on one machine.

mod compare;
mod course;
mod drive;
mod limits;
mod plot;
mod report;
mod setting;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use assent_tests::stage::Failure;
use clap::Parser;

use crate::course::Times;
use crate::setting::Setting;

#[derive(Parser)]
#[command(
    name = "assent-bench",
    about = "Measures throughput, time to finality and what they cost, with validators on this machine",
    long_about = None,
    after_help = "examples:\n  scripts/bench.sh\n  scripts/bench.sh --quick --against before.json\n  \
        scripts/bench.sh --validators 7 --delay 20"
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
    let setting = arguments.setting();
    setting.possible()?;
    let before = arguments.against.as_deref().map(|path| compare::read(path, &setting)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
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

    fn setting(line: &str) -> Option<Setting> {
        let words = std::iter::once("assent-bench").chain(line.split_whitespace());
        Arguments::try_parse_from(words).ok().map(|a| a.setting())
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
