//! The demo is a test: the whole story, twice in a row, in both languages, and afterwards a search of everything
//! that the nodes wrote for what must never be there.

use std::path::Path;
use std::process::{Command, Stdio};

use assent_genesis::Genesis;
use assent_proto::evidence::Evidence;
use assent_tests::canary::Canaries;
use assent_tests::network::{SLUGS, program};
use serde_json::Value;

fn demo(out: &Path, lang: &str) -> (String, Value) {
    let run = Command::new(program("assent-demo"))
        .args(["--lang", lang, "--out"])
        .arg(out)
        .stdin(Stdio::null())
        .output()
        .expect("the demo starts");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{text}\n{}", String::from_utf8_lossy(&run.stderr));
    let summary = std::fs::read(out.join("summary.json")).expect("a summary");
    (text, serde_json::from_slice(&summary).expect("JSON"))
}

fn words() -> Vec<String> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fhir/persons.json");
    let persons: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixtures).expect("fixtures")).expect("JSON");
    let mut words: Vec<String> = persons
        .iter()
        .flat_map(|p| ["name", "national_id", "phone"].map(|f| p[f].as_str().expect("text").to_string()))
        .collect();
    // Content: what was billed and measured.
    words.extend(["General examination of patient", "Hemoglobin", "resourceType"].map(String::from));
    words
}

/// R29: evidence of a real chain, each byte changed in turn; every one is refused.
fn every_flipped_byte_is_refused(out: &Path) {
    let trust = Genesis::load(out.join("genesis.toml")).expect("the genesis file").trust();
    for name in ["permit", "delivery", "uses-hospital-a"] {
        let file = out.join(format!("evidence/{name}.evidence"));
        let good = std::fs::read(file).expect("an evidence file");
        assert!(Evidence::check(&good, &trust).is_ok(), "{name}");
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1 << (i % 8);
            assert!(Evidence::check(&bad, &trust).is_err(), "{name}, byte {i}");
        }
    }
}

/// R1, R2, R3, R5 to R9, R24, R28, R29 as told; R1: no identity and no content in any table, log or file of a node.
#[test]
fn the_story_comes_out_as_told_twice_and_leaves_no_identity_on_any_node() {
    let words = words();
    let canaries = Canaries::new(words.iter().map(String::as_str));
    for lang in ["en", "zh"] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let (text, summary) = demo(&out, lang);
        assert_eq!(summary["outcome"], "ok", "{text}");
        let steps = summary["steps"].as_array().expect("steps");
        assert_eq!(steps.len(), 12, "{text}");
        assert!(steps.iter().all(|s| s["outcome"] == "ok"));
        assert_eq!(summary["figures"]["records_anchored"], 260);
        for slug in SLUGS {
            let home = out.join("network").join(slug);
            assert_eq!(canaries.search_files(&home).expect("readable"), []);
            let (leaks, entries) = canaries.search_database(&home.join("db")).expect("readable");
            assert_eq!(leaks, []);
            assert!(entries > 1000, "{entries} entries were read");
        }
        assert_eq!(canaries.search_files(&out.join("evidence")).expect("readable"), []);
        every_flipped_byte_is_refused(&out);
    }
}
