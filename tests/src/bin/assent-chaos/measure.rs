//! Throughput and time to finality as clients see them, with all four validators up and with one of them killed, in
//! one run, so that the ratio does not depend on the machine. Nothing is asserted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assent_client::rpc::api;
use assent_ledger::testing::{anchor_of, digest, enrol};
use assent_proto::transaction::{Action, Record};
use assent_proto::{Commitment, Day, SecretKey, ids::*};
use assent_tests::clients::{self, Catalogue, Clients, Door, Signed};

use crate::Measure;
use assent_tests::stage::{Failure, Stage};

/// At the beginning of each measurement so much is not counted: caches fill, and a dead validator is found dead.
const WARM_UP: Duration = Duration::from_secs(5);
/// Who is killed.
const VICTIM: usize = 3;

/// What came of one load.
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    failed: usize,
}

pub(crate) async fn run(arguments: &Measure) -> Result<(), Failure> {
    let stage = Stage::set(None)?;
    let catalogue = clients::lay_ground(&stage.clients).await;
    println!("{:<34}{:>12}{:>12}{:>12}{:>10}", "", "per second", "p50 ms", "p99 ms", "failed");
    let mut all = Vec::new();
    for victim in [None, Some(VICTIM)] {
        if let Some(victim) = victim {
            stage.network.kill(victim)?;
        }
        let doors: Vec<_> =
            (0..4).filter(|i| Some(*i) != victim).map(|i| stage.clients.doors[i].clone()).collect();
        let load = Load { clients: stage.clients.clone(), doors, catalogue };
        let time = Duration::from_secs(arguments.seconds);
        let who = if victim.is_none() { "all four up" } else { "one of four down" };
        let moderate = load.constant(arguments.rate, time).await;
        show(&format!("{who}, {} a second", arguments.rate), &moderate);
        let full = load.saturating(arguments.clients, time).await;
        show(&format!("{who}, {} clients", arguments.clients), &full);
        all.push((moderate, full));
    }
    let [(moderate, full), (moderate_down, full_down)] = &all[..] else {
        return Ok(());
    };
    println!(
        "one down against all up: throughput {:.2}, p50 {:.2}, p99 {:.2} at moderate load; p50 {:.2}, p99 {:.2} at full load",
        full_down.per_second / full.per_second,
        moderate_down.p50_ms / moderate.p50_ms,
        moderate_down.p99_ms / moderate.p99_ms,
        full_down.p50_ms / full.p50_ms,
        full_down.p99_ms / full.p99_ms
    );
    Ok(())
}

fn show(what: &str, f: &Figures) {
    println!("{what:<34}{:>12.0}{:>12.0}{:>12.0}{:>10}", f.per_second, f.p50_ms, f.p99_ms, f.failed);
}

/// Load from institutions in turn, through the doors in turn.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) clients: Clients,
    pub(crate) doors: Vec<Door>,
    pub(crate) catalogue: Catalogue,
}

impl Load {
    /// An enrolment by the bureau, or records anchored by hospital A or the bureau.
    fn transaction(&self, n: u64) -> Signed {
        let (c, cast) = (&self.clients, &self.clients.cast);
        match n % 3 {
            0 => {
                let key = SecretKey::from_bytes(&digest(&format!("load {}", c.fresh())).0);
                c.sign(&cast.bureau, enrol(&cast.hospital_b, &key), Some(&key))
            }
            1 => c.sign(&cast.hospital_a, self.anchoring(self.catalogue.claims), None),
            _ => c.sign(&cast.bureau, self.anchoring(self.catalogue.settlements), None),
        }
    }

    fn anchoring(&self, item: ItemId) -> Action {
        let n = self.clients.fresh();
        let account = AccountId(digest("some account"));
        let record =
            Record { account, commitment: Commitment(digest(&format!("record {n}"))), day: Day(100) };
        Action::AnchorRecords(anchor_of(item, &[record], &[]))
    }

    fn door(&self, n: u64) -> Door {
        self.doors[n as usize % self.doors.len()].clone()
    }

    /// So many transactions a second, started on time whatever became of those before.
    async fn constant(&self, rate: u64, time: Duration) -> Figures {
        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
        let (begun, mut sent) = (Instant::now(), tokio::task::JoinSet::new());
        let mut n = 0;
        while begun.elapsed() < WARM_UP + time {
            tick.tick().await;
            let (tx, door, counts) = (self.transaction(n), self.door(n), begun.elapsed() >= WARM_UP);
            sent.spawn(async move { (finality(door, &tx).await, counts) });
            n += 1;
        }
        let taken = sent.join_all().await;
        let counted: Vec<_> = taken.into_iter().filter(|(_, counts)| *counts).map(|(t, _)| t).collect();
        figures(counted, time)
    }

    /// So many clients, each with one transaction under way.
    async fn saturating(&self, clients: usize, time: Duration) -> Figures {
        let (begun, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut workers = tokio::task::JoinSet::new();
        for w in 0..clients as u64 {
            let (load, stop) = (self.clone(), stop.clone());
            workers.spawn(async move {
                let (mut taken, mut n) = (Vec::new(), w);
                while !stop.load(Ordering::Relaxed) {
                    let one = finality(load.door(w), &load.transaction(n)).await;
                    if (WARM_UP..WARM_UP + time).contains(&begun.elapsed()) {
                        taken.push(one);
                    }
                    n += 1;
                }
                taken
            });
        }
        tokio::time::sleep(WARM_UP + time).await;
        stop.store(true, Ordering::Relaxed);
        let taken = workers.join_all().await.into_iter().flatten().collect();
        figures(taken, time)
    }
}

/// How long it takes until a node says that a transaction is final; `None` where it never says so.
pub(crate) async fn finality(mut door: Door, tx: &Signed) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < clients::LIFE {
        let request = api::SubmitRequest { envelope: tx.bytes.clone(), wait: api::Wait::Final as i32 };
        let status = match door.submit(request).await {
            Ok(_) => return Some(begun.elapsed()),
            Err(status) => status,
        };
        let wait = status.metadata().get("retry-after-ms").and_then(|v| v.to_str().ok()?.parse().ok());
        tokio::time::sleep(Duration::from_millis(wait?)).await;
    }
    None
}

fn figures(taken: Vec<Option<Duration>>, time: Duration) -> Figures {
    let failed = taken.iter().filter(|t| t.is_none()).count();
    let mut ms: Vec<_> = taken.into_iter().flatten().map(|t| t.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms.get(((ms.len() as f64 * share) as usize).min(ms.len().saturating_sub(1)));
    Figures {
        per_second: ms.len() as f64 / time.as_secs_f64(),
        p50_ms: at(0.5).copied().unwrap_or(f64::NAN),
        p99_ms: at(0.99).copied().unwrap_or(f64::NAN),
        failed,
    }
}
