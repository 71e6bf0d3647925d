//! What the operator's tables say is so: metrics, flags and the consequences of misbehaviour.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use assent_node::conduct::{Conduct, Consequence, Offence};
use assent_node::metrics::Metrics;
use assent_proto::Invalid;
use libp2p::PeerId;

use crate::assentd;

fn operating() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../OPERATING.md")).unwrap()
}

/// What stands between the first two backquotes of each row of the tables, without labels.
fn named(prefix: &str) -> BTreeSet<String> {
    let text = operating();
    let first = text.lines().filter_map(|l| l.strip_prefix("| `")?.split(['`', '{']).next());
    first.filter(|name| name.starts_with(prefix)).map(String::from).collect()
}

#[test]
fn every_metric_is_in_the_table_and_no_other() {
    let (metrics, registry) = Metrics::new();
    // What has labels is shown once it has been counted.
    metrics.exceeded("calls");
    metrics.offence("garbage", "ban");
    metrics.reject(Invalid::Busy);
    metrics.explain("Permitted");
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let types = page.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let name = |(name, kind)| if kind == "counter" { format!("{name}_total") } else { String::from(name) };
    assert_eq!(named("assent_"), types.map(name).collect());
}

#[test]
fn every_flag_is_in_a_table_and_no_other() {
    let help = String::from_utf8(assentd(&["run", "--help"]).stdout).unwrap();
    let flags = help.lines().filter_map(|l| l.trim_start().strip_prefix("--")?.split(' ').next());
    let flags = flags.map(|f| format!("--{f}")).filter(|f| !matches!(f.as_str(), "--home" | "--genesis"));
    // Where the last column names the flag, or the text does.
    let text = operating();
    for flag in flags {
        assert!(text.contains(&format!("`{flag}`")), "{flag} is not in OPERATING.md");
    }
    for flag in named("--") {
        assert!(help.contains(&flag), "{flag} is no flag");
    }
}

#[test]
fn every_offence_is_in_the_table_with_how_often_it_is_forgiven() {
    use Offence::*;
    let (text, now) = (operating(), Instant::now());
    let offences = [Garbage, Protocol, GossipFlood, RequestFlood, DirectFlood, Noise, Reconnecting];
    for offence in offences {
        let (mut conduct, peer) = (Conduct::default(), PeerId::random());
        let verdicts = std::iter::repeat_with(|| conduct.offended(peer, offence, 9, now));
        let forgiven = verdicts.take_while(|c| *c == Consequence::Disconnect).count();
        let row = text.lines().find(|l| l.starts_with(&format!("| `{}` |", offence.name())));
        let row = row.unwrap_or_else(|| panic!("{} is not in OPERATING.md", offence.name()));
        assert!(row.ends_with(&format!("| {forgiven} |")), "{row}: it is {forgiven}");
    }
}

#[test]
fn every_command_has_an_example() {
    for command in ["run", "init", "status", "check", "repair"] {
        let help = String::from_utf8(assentd(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains(&format!("  assentd {command} ")), "{help}");
    }
}
