//! The figures as a table for people, as JSON for programs, and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use assent_tests::mix::{SIGNATURES, STEPS};
use serde_json::{Value, json};

use crate::Failure;
use crate::compare::flat;
use crate::drive::{Load, Seen};
use crate::limits::Limits;
use crate::plot::{self, Axis, Line};
use crate::setting::Setting;
use crate::usage::Look;

/// One load.
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) load: Load,
    pub(crate) seen: Seen,
    pub(crate) used: Look,
}

/// Another setting at a glance: with a crowd and at little load; neither where this machine does not allow it.
pub(crate) struct Other {
    pub(crate) setting: Setting,
    pub(crate) phases: Option<[Phase; 2]>,
}

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) setting: Setting,
    pub(crate) quick: bool,
    pub(crate) limits: Limits,
    pub(crate) phases: Vec<Phase>,
    pub(crate) others: Vec<Other>,
}

impl Report {
    /// The last of that name: the peak may have been tried more than once.
    fn find(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().rev().find(|p| p.name == name)
    }

    fn phase(&self, name: &str) -> &Phase {
        self.find(name).expect("this phase is always measured")
    }

    /// All phases, those of the other settings last.
    fn rows(&self) -> impl Iterator<Item = &Phase> {
        self.phases.iter().chain(self.others.iter().filter_map(|o| o.phases.as_ref()).flatten())
    }

    /// What all signatures of a transaction cost all validators, on all their cores: more a second cannot be verified.
    fn signature_limit(&self, validators: usize) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let cores = if self.setting.one_core { 1.0 } else { cores as f64 };
        let each = SIGNATURES as f64 / STEPS as f64;
        self.limits.sig_batch * cores / (validators as f64 * each)
    }

    pub(crate) fn json(&self) -> Value {
        let (peak, low, half) = (self.phase("peak"), self.phase("low"), self.phase("half"));
        let (crowd, beyond) = (self.phase("crowd"), self.phase("beyond"));
        let down = self.find("one down, crowd").zip(self.find("one down, half"));
        let (seen, used) = (&peak.seen, &peak.used);
        let thousands = seen.total as f64 / 1000.0;
        let validators = used.cpu.len().max(1);
        let by_thread: serde_json::Map<_, _> = used
            .cpu_by_thread
            .iter()
            .map(|(name, s)| (name.clone(), json!(round(s / thousands, 4))))
            .filter(|(_, s)| s.as_f64() > Some(0.0))
            .collect();
        let limit = self.signature_limit(validators);
        json!({
            "machine": machine(),
            "commit": commit(),
            "setting": self.setting.json(),
            "quick": self.quick,
            "tps": round(seen.per_second(), 1),
            "sustained": matches!(peak.load, Load::Rate(rate) if seen.sustains(rate)),
            "finality_ms": {
                "p50": round(low.seen.quantile(0.5), 1), "p90": round(low.seen.quantile(0.9), 1),
                "p99": round(half.seen.quantile(0.99), 1), "max": round(half.seen.quantile(1.0), 1),
            },
            "cpu_s_per_1000_tx": round(peak.cpu_us_per_tx() / 1000.0, 4),
            "cpu_s_per_1000_tx_by_thread": by_thread,
            "clients_cpu_s_per_1000_tx": round(used.own_cpu / thousands, 4),
            "disk_bytes_per_tx": round(used.disk as f64 / seen.total as f64 / validators as f64, 1),
            "written_bytes_per_tx": round(used.written as f64 / seen.total as f64 / validators as f64, 1),
            "wire_bytes_per_tx": round(used.sent / seen.total as f64 / validators as f64, 1),
            "fsyncs_per_block": round(used.fsyncs / used.height / validators as f64, 2),
            "tx_per_block": round(peak.tx_per_block(), 1),
            "rss_mib": round(used.rss_mib, 1),
            "limit": self.limits.json(),
            "signature_limit_tps": limit.round(),
            "ratio_to_signature_limit": round(seen.per_second() / limit, 4),
            "one_down": down.map(|(down_crowd, down_half)| json!({
                "tps_ratio": round(down_crowd.seen.per_second() / crowd.seen.per_second(), 3),
                "p99_ratio": round(down_half.seen.quantile(0.99) / half.seen.quantile(0.99), 3),
            })),
            "beyond": {
                "tps_ratio": round(beyond.seen.per_second() / seen.per_second(), 3),
                "refused_with_a_hint": beyond.seen.busy,
            },
            "other_settings": self.others.iter().map(Other::json).collect::<serde_json::Map<_, _>>(),
            "failed": self.rows().map(|p| p.seen.failed).sum::<u64>(),
            "phases": self.rows().map(Phase::json).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<31}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}{:>7}\n",
            self.setting.to_string(),
            "offered/s",
            "final/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            "CPU us/tx",
            "tx/block",
            "refused",
            "failed"
        );
        for phase @ Phase { name, load, seen, .. } in self.rows() {
            let offered = match load {
                Load::Rate(rate) => format!("{rate:.0}"),
                Load::Persons(_) => "-".into(),
            };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| seen.quantile(share));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:<31}{offered:>9}{:>9.0}{p50:>9.1}{p90:>9.1}{p99:>9.1}{max:>9.1}{:>10.0}{:>9.1}{:>9}{:>7}",
                seen.per_second(),
                phase.cpu_us_per_tx(),
                phase.tx_per_block(),
                seen.busy,
                seen.failed
            );
        }
        for Other { setting, .. } in self.others.iter().filter(|o| o.phases.is_none()) {
            let _ = writeln!(text, "{:<31}not measured: this machine does not allow it", setting.to_string());
        }
        text.push('\n');
        for (name, value) in flat(&self.json()) {
            if value.is_number() {
                let _ = writeln!(text, "{name:<52}{:>14}", value.to_string());
            }
        }
        text
    }

    pub(crate) fn write(&self, out: &Path) -> Result<(), Failure> {
        fs::create_dir_all(out)?;
        fs::write(out.join("results.json"), serde_json::to_string_pretty(&self.json())? + "\n")?;
        fs::write(out.join("results.txt"), self.table())?;
        fs::write(out.join("results.svg"), self.svg())?;
        Ok(())
    }

    /// Time to finality by share of the transactions, on a scale of powers of ten, a line for each load.
    fn svg(&self) -> String {
        let shares = [0, 25, 50, 75, 90, 99].map(|n: u32| (n.into(), format!("{n} %")));
        let x = Axis { ends: (0.0, 100.0), by_powers: false, marks: shares.into() };
        let line = |phase: &Phase| Line {
            name: format!("{}: {:.0}/s", phase.name, phase.seen.per_second()),
            points: (0..=200)
                .map(|n| f64::from(n) / 2.0)
                .map(|share| (share, phase.seen.quantile(share / 100.0)))
                .collect(),
        };
        let lines: Vec<_> = self.rows().map(line).collect();
        plot::draw(&x, &Axis::powers(0, 5, " ms"), &lines, "share of transactions that were final within")
    }
}

impl Other {
    /// By the setting's name, what it makes of a crowd and how soon it answers.
    fn json(&self) -> (String, Value) {
        let [crowd, low] = match &self.phases {
            Some(phases) => phases,
            None => return (self.setting.to_string(), Value::Null),
        };
        let figures = json!({
            "tps": round(crowd.seen.per_second(), 1), "cpu_us_per_tx": round(crowd.cpu_us_per_tx(), 1),
            "p50_ms": round(low.seen.quantile(0.5), 1), "p99_ms": round(low.seen.quantile(0.99), 1),
        });
        (self.setting.to_string(), figures)
    }
}

impl Phase {
    /// CPU time of all validators for a transaction, µs.
    pub(crate) fn cpu_us_per_tx(&self) -> f64 {
        self.used.cpu.iter().sum::<f64>() * 1e6 / self.seen.total as f64
    }

    pub(crate) fn tx_per_block(&self) -> f64 {
        self.seen.total as f64 / self.used.height
    }

    fn json(&self) -> Value {
        let Phase { name, load, seen, .. } = self;
        let offered = if let Load::Rate(rate) = load { json!(round(*rate, 1)) } else { Value::Null };
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| round(seen.quantile(share), 1));
        json!({
            "name": name, "offered": offered, "tps": round(seen.per_second(), 1),
            "p50": p50, "p90": p90, "p99": p99, "max": max,
            "cpu_us_per_tx": round(self.cpu_us_per_tx(), 1), "tx_per_block": round(self.tx_per_block(), 1),
            "busy": seen.busy, "failed": seen.failed, "by_second": seen.by_second,
        })
    }
}

pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

pub(crate) fn machine() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    json!({ "cpu": model.map_or("unknown", |(_, name)| name.trim()), "cores": cores, "arch": std::env::consts::ARCH })
}

/// What was measured, as git names it; empty outside a repository.
pub(crate) fn commit() -> String {
    let said = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    said.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
}
