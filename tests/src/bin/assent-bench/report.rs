//! The figures as a table for people, as JSON for programs, and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use assent_tests::mix::{SIGNATURES, STEPS};
use serde_json::{Value, json};

use crate::Failure;
use crate::drive::{Load, Seen};
use crate::limits::Limits;
use crate::usage::Look;

/// A change of more than this share is worth a look.
const CHANGE: f64 = 0.10;

/// One load.
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
    pub(crate) seen: Seen,
    pub(crate) used: Look,
}

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) limits: Limits,
    pub(crate) phases: Vec<Phase>,
}

/// An earlier report.
pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

impl Report {
    /// The last of that name: the peak may have been tried more than once.
    fn phase(&self, name: &str) -> &Phase {
        self.phases.iter().rev().find(|p| p.name == name).expect("every phase is measured")
    }

    /// What all signatures of a transaction cost all validators, on all cores: more a second cannot be verified.
    fn signature_limit(&self, validators: usize) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
        let each = SIGNATURES as f64 / STEPS as f64;
        self.limits.sig_batch * cores / (validators as f64 * each)
    }

    pub(crate) fn json(&self) -> Value {
        let (peak, low, half) = (self.phase("peak"), self.phase("low"), self.phase("half"));
        let (crowd, beyond) = (self.phase("crowd"), self.phase("beyond"));
        let (down_crowd, down_half) = (self.phase("one down, crowd"), self.phase("one down, half"));
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
            "validators": validators,
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
            "one_down": {
                "tps_ratio": round(down_crowd.seen.per_second() / crowd.seen.per_second(), 3),
                "p99_ratio": round(down_half.seen.quantile(0.99) / half.seen.quantile(0.99), 3),
            },
            "beyond": {
                "tps_ratio": round(beyond.seen.per_second() / seen.per_second(), 3),
                "refused_with_a_hint": beyond.seen.busy,
            },
            "failed": self.phases.iter().map(|p| p.seen.failed).sum::<u64>(),
            "phases": self.phases.iter().map(Phase::json).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<17}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}{:>7}\n",
            "",
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
        for phase @ Phase { name, load, seen, .. } in &self.phases {
            let offered = match load {
                Load::Rate(rate) => format!("{rate:.0}"),
                Load::Persons(_) => "-".into(),
            };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| seen.quantile(share));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:<17}{offered:>9}{:>9.0}{p50:>9.1}{p90:>9.1}{p99:>9.1}{max:>9.1}{:>10.0}{:>9.1}{:>9}{:>7}",
                seen.per_second(),
                phase.cpu_us_per_tx(),
                phase.tx_per_block(),
                seen.busy,
                seen.failed
            );
        }
        text.push('\n');
        for (name, value) in flat(&self.json()) {
            if value.is_number() {
                let _ = writeln!(text, "{name:<52}{:>14}", value.to_string());
            }
        }
        text
    }

    /// What changed by more than a tenth since an earlier report.
    pub(crate) fn against(&self, before: &Value) -> String {
        let (before, now) = (flat(before), flat(&self.json()));
        let mut text = String::from("\nchanged by more than 10 %:\n");
        for (name, value) in &now {
            let then = before.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.as_f64());
            if let (Some(then), Some(now)) = (then, value.as_f64())
                && (now - then).abs() > CHANGE * then.abs()
            {
                let _ = writeln!(text, "{name:<52}{then:>14}{now:>14}  x{:.2}", now / then);
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
        const SIZE: (f64, f64) = (760.0, 420.0);
        const FRAME: (f64, f64, f64, f64) = (70.0, 30.0, 520.0, 330.0);
        const COLOURS: [&str; 8] =
            ["#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666"];
        let (left, top, width, height) = FRAME;
        let y = |ms: f64| top + height * (1.0 - (ms.max(1.0).log10() / 5.0).min(1.0));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            SIZE.0, SIZE.1
        );
        for power in 0..=5 {
            let (ms, at) = (10f64.powi(power), y(10f64.powi(power)));
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at}h{width}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{ms} ms</text>",
                left - 8.0,
                at + 4.0
            );
        }
        for share in [0, 25, 50, 75, 90, 99] {
            let x = left + width * f64::from(share) / 100.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{share} %</text>",
                top + height + 18.0
            );
        }
        for (phase, colour) in self.phases.iter().zip(COLOURS.iter().cycle()) {
            let point = |n: u32| {
                let share = f64::from(n) / 200.0;
                format!("{:.1},{:.1}", left + width * share, y(phase.seen.quantile(share)))
            };
            let points: Vec<_> = (0..=200).map(point).collect();
            let at = self.phases.iter().position(|p| std::ptr::eq(p, phase)).unwrap_or_default() as f64;
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}: {:.0}/s</text>",
                points.join(" "),
                left + width + 12.0,
                top + 14.0 + 18.0 * at,
                phase.name,
                phase.seen.per_second()
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\">share of transactions that were final within</text>\n</svg>",
            SIZE.1 - 12.0
        );
        svg
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

/// All figures by their path; what belongs to one phase or one second is left out.
fn flat(value: &Value) -> Vec<(String, Value)> {
    let Value::Object(map) = value else { return Vec::new() };
    map.iter()
        .filter(|(name, _)| *name != "phases")
        .flat_map(|(name, value)| match value {
            Value::Object(_) => {
                flat(value).into_iter().map(|(inner, v)| (format!("{name}.{inner}"), v)).collect()
            }
            _ => vec![(name.clone(), value.clone())],
        })
        .collect()
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn machine() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    json!({ "cpu": model.map_or("unknown", |(_, name)| name.trim()), "cores": cores, "arch": std::env::consts::ARCH })
}

/// What was measured, as git names it; empty outside a repository.
fn commit() -> String {
    let said = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    said.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default()
}
