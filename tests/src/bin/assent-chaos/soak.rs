//! Constant load for a long time, and what each node takes for it: memory, file descriptors. Nine of ten transactions
//! change an object that is there, one makes a new one, so that the state grows by a known and small amount.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use assent_ledger::testing::{digest, enrol};
use assent_proto::transaction::{Action, Classify, Level, Opening};
use assent_proto::{List, SecretKey};
use assent_tests::clients::{self, Clients, Signed};
use assent_tests::network::Usage;

use crate::Soak;
use crate::measure::finality;
use assent_tests::stage::{Clock, Failure, Stage};

/// Of so many transactions one makes a new object.
const ONE_NEW_OF: u64 = 10;
/// What DESIGN allows a living leaf.
const LEAF_BYTES: u64 = 300;

/// What became of the load so far.
#[derive(Default)]
struct Tally {
    applied: AtomicU64,
    failed: AtomicU64,
    leaves: AtomicU64,
}

pub(crate) async fn run(arguments: &Soak) -> Result<(), Failure> {
    let stage = Stage::set(None)?;
    let catalogue = clients::lay_ground(&stage.clients).await;
    let (tally, mut sent) = (Arc::new(Tally::default()), tokio::task::JoinSet::new());
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / arguments.rate.max(1)));
    let mut clock = Clock::start(Duration::from_secs(arguments.minutes * 60));
    let (mut n, mut told, mut first) = (0u64, None, None);
    println!(
        "{:>7} {:>10} {:>7} {:>9}  each node: height, MiB resident, file descriptors",
        "s", "applied", "failed", "new leaves"
    );
    while !clock.is_over() {
        tick.tick().await;
        let (tx, new) = transaction(&stage.clients, &catalogue, n);
        let (door, tally_of_it) = (stage.clients.doors[n as usize % 4].clone(), tally.clone());
        sent.spawn(async move { count(&tally_of_it, finality(door, &tx).await.is_some(), new) });
        while sent.try_join_next().is_some() {}
        n += 1;
        let due = clock.seconds() / arguments.every.max(1);
        if told != Some(due) {
            told = Some(due);
            let usage = tell(&stage, &clock, &tally).await;
            // The first third is for filling caches and the window of replay protection.
            if first.is_none() && clock.seconds() * 3 >= arguments.minutes * 60 {
                first = Some((clock.seconds(), tally.leaves.load(Ordering::Relaxed), usage));
            }
        }
        clock.show(format!("{} applied", tally.applied.load(Ordering::Relaxed)));
    }
    clock.stop();
    sent.join_all().await;
    let last = tell(&stage, &clock, &tally).await;
    if let Some((since, leaves, usage)) = first {
        growth(since, clock.seconds(), tally.leaves.load(Ordering::Relaxed) - leaves, &usage, &last);
    }
    Ok(())
}

/// One of ten is an enrolment; the others grade an item as it is graded already.
fn transaction(clients: &Clients, catalogue: &clients::Catalogue, n: u64) -> (Signed, bool) {
    let cast = &clients.cast;
    if n.is_multiple_of(ONE_NEW_OF) {
        let key = SecretKey::from_bytes(&digest(&format!("soak {n}")).0);
        return (clients.sign(&cast.bureau, enrol(&cast.hospital_b, &key), Some(&key)), true);
    }
    let (by, item) = if n.is_multiple_of(2) {
        (&cast.bureau, catalogue.settlements)
    } else {
        (&cast.hospital_a, catalogue.claims)
    };
    let grade =
        Classify { item, level: Level::Moderate, opening: Opening::Prohibited, recipients: List::empty() };
    (clients.sign(by, Action::Classify(grade), None), false)
}

fn count(tally: &Tally, applied: bool, new: bool) {
    let counter = if applied { &tally.applied } else { &tally.failed };
    counter.fetch_add(1, Ordering::Relaxed);
    if applied && new {
        tally.leaves.fetch_add(1, Ordering::Relaxed);
    }
}

async fn tell(stage: &Stage, clock: &Clock, tally: &Tally) -> Vec<Usage> {
    let (mut line, mut all) = (String::new(), Vec::new());
    for (i, door) in stage.clients.doors.iter().enumerate() {
        let height = clients::status(door).await.map_or(0, |s| s.height);
        let usage = stage.network.usage(i).unwrap_or_default();
        line += &format!("  {height} {:.1} {}", mebibytes(usage.resident_bytes), usage.descriptors);
        all.push(usage);
    }
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{:>7} {:>10} {:>7} {:>9} {line}",
        clock.seconds(),
        n(&tally.applied),
        n(&tally.failed),
        n(&tally.leaves)
    );
    all
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How each node grew since a third of the time was over, without what the new leaves may take.
fn growth(since: u64, until: u64, leaves: u64, first: &[Usage], last: &[Usage]) {
    println!("from {since} s to {until} s, {leaves} new leaves at {LEAF_BYTES} B taken off:");
    for (i, (a, b)) in first.iter().zip(last).enumerate() {
        let grown = b.resident_bytes as f64 - a.resident_bytes as f64 - (leaves * LEAF_BYTES) as f64;
        println!(
            "  node {i}: {:+.1} MiB of {:.1}, {:+} file descriptors of {}",
            grown / f64::from(1 << 20),
            mebibytes(b.resident_bytes),
            b.descriptors as i64 - a.descriptors as i64,
            b.descriptors
        );
    }
}
