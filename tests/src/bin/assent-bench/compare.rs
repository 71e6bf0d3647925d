//! A report beside an earlier one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Failure;
use crate::setting::Setting;

/// A change of more than this share is worth a look.
const CHANGE: f64 = 0.10;

/// An earlier report, if it is of the same setting: figures of another one say nothing about a change.
pub(crate) fn read(path: &Path, setting: &Setting) -> Result<Value, Failure> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
    let report = serde_json::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
    match Setting::of(&report) {
        Some(before) if before == *setting => Ok(report),
        Some(before) => Err(format!("{name} is of {before}, not of {setting}: these do not compare").into()),
        None => Err(format!("{name} is not a results.json").into()),
    }
}

/// What changed by more than a tenth.
pub(crate) fn changes(before: &Value, now: &Value) -> String {
    let mut text = String::new();
    for (what, word) in [("machine", "on another machine"), ("quick", "for another time")] {
        if before[what] != now[what] {
            let _ = writeln!(text, "\nmeasured {word} before: this says little");
        }
    }
    text.push_str("\nchanged by more than 10 %:\n");
    let before = flat(before);
    for (name, value) in flat(now) {
        let then = before.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.as_f64());
        if let (Some(then), Some(now)) = (then, value.as_f64())
            && (now - then).abs() > CHANGE * then.abs()
        {
            let _ = writeln!(text, "{name:<52}{then:>14}{now:>14}  x{:.2}", now / then);
        }
    }
    text
}

/// All figures by their path; what belongs to one phase or one second is left out.
pub(crate) fn flat(value: &Value) -> Vec<(String, Value)> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_changes_of_more_than_a_tenth_are_named() {
        let before = json!({ "tps": 1000.0, "rss_mib": 100.0, "limit": { "sign": 10.0 }, "gone": 1.0 });
        let now = json!({ "tps": 1100.0, "rss_mib": 111.0, "limit": { "sign": 5.0 }, "new": 1.0 });
        let text = changes(&before, &now);
        let named: Vec<_> = text.lines().skip(2).map(|l| l.split_whitespace().next().unwrap()).collect();
        assert_eq!(named, ["limit.sign", "rss_mib"]);
        assert!(text.contains("x0.50") && text.contains("x1.11"));
    }

    #[test]
    fn another_machine_is_told() {
        let report = |cpu| json!({ "machine": { "cpu": cpu }, "tps": 1.0 });
        assert!(changes(&report("a"), &report("b")).contains("another machine"));
        assert!(!changes(&report("a"), &report("a")).contains("another machine"));
    }

    #[test]
    fn a_report_of_another_setting_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let seven = Setting { validators: 7, ..Setting::default() };
        fs::write(file.path(), json!({ "setting": seven.json() }).to_string()).unwrap();
        assert!(read(file.path(), &seven).is_ok());
        let refused = read(file.path(), &Setting::default()).unwrap_err().to_string();
        assert!(refused.ends_with("is of 7 validators, not of 4 validators: these do not compare"));
    }
}
