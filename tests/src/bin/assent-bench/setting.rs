//! On what a measurement stands: how many validators, on which cores, how far from each other.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use assent_tests::hosts::{self, Hosts};
use assent_tests::network::Network;
use serde_json::{Value, json};

use crate::Failure;

/// The core that all validators share, if they are to share one.
const CORE: usize = 0;

/// What differs between networks that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// How many.
    pub(crate) validators: usize,
    /// All of them on one core; clients where the system puts them.
    pub(crate) one_core: bool,
    /// How long everything takes from one to another, ms; 0 on loopback.
    pub(crate) delay_ms: u64,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting { validators: 4, one_core: false, delay_ms: 0 }
    }
}

impl Setting {
    /// What is measured besides, shortly, where nothing else was asked for.
    pub(crate) const OTHERS: [Setting; 3] = [
        Setting { validators: 1, one_core: true, delay_ms: 0 },
        Setting { validators: 7, one_core: false, delay_ms: 0 },
        Setting { validators: 4, one_core: false, delay_ms: 20 },
    ];

    /// Whether this machine has what it takes; if not, what is missing.
    pub(crate) fn possible(&self) -> Result<(), Failure> {
        if self.one_core {
            let asked = Command::new("taskset").arg("--version").stdout(Stdio::null()).status();
            asked.map_err(|e| format!("{self}: taskset (package util-linux): {e}"))?;
        }
        if self.delay_ms > 0 {
            hosts::possible().map_err(|e| format!("{self}: {e}"))?;
        }
        Ok(())
    }

    /// Founds such a network. Links with a delay lie between network namespaces and pass through this process, whose
    /// CPU time is not counted as the validators'.
    pub(crate) fn found(&self, root: &Path, passphrase: &Path) -> io::Result<Network> {
        let mut network = if self.delay_ms > 0 {
            let hosts = Hosts::new(self.validators, 0)?;
            hosts.wire().edit(|_, _, path| path.delay = Duration::from_millis(self.delay_ms));
            Network::found_on(hosts, root, passphrase)?
        } else {
            Network::found_of(self.validators, root, passphrase)?
        };
        network.core = self.one_core.then_some(CORE);
        Ok(network)
    }

    /// For a report.
    pub(crate) fn json(&self) -> Value {
        json!({ "validators": self.validators, "one_core": self.one_core, "delay_ms": self.delay_ms })
    }

    /// Of an earlier report. The first reports named no more than the number of validators.
    pub(crate) fn of(report: &Value) -> Option<Setting> {
        let setting = report.get("setting").unwrap_or(report);
        Some(Setting {
            validators: setting["validators"].as_u64()? as usize,
            one_core: setting["one_core"].as_bool().unwrap_or_default(),
            delay_ms: setting["delay_ms"].as_u64().unwrap_or_default(),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} validator{}", self.validators, if self.validators == 1 { "" } else { "s" })?;
        if self.one_core {
            write!(f, ", one core")?;
        }
        if self.delay_ms > 0 {
            write!(f, ", {} ms", self.delay_ms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_of_which_setting_it_is() {
        for setting in Setting::OTHERS {
            assert_eq!(Setting::of(&json!({ "tps": 1.0, "setting": setting.json() })), Some(setting));
        }
        assert_eq!(Setting::of(&json!({ "tps": 1.0, "validators": 4 })), Some(Setting::default()));
        assert_eq!(Setting::of(&json!({ "sizes": [] })), None, "another kind of report");
    }

    #[test]
    fn settings_are_named_apart() {
        let names = Setting::OTHERS.map(|s| s.to_string());
        assert_eq!(names, ["1 validator, one core", "7 validators", "4 validators, 20 ms"]);
    }
}
