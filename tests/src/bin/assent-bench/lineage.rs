//! Many recorded activities, and how long an auditor's question takes among them: all that a product was made of, and all
//! that was made of it, each step proved, as `assent audit trace` asks.

use std::sync::Arc;
use std::time::Instant;

use assent_client::audit::Proved;
use assent_client::lineage::{ancestors, descendants};
use assent_client::rpc::Node;
use assent_genesis::Genesis;
use assent_ledger::testing::{Party, activity, anchor_of, digest, product, record};
use assent_proto::transaction::{
    Action, ActivityKind, Deliver, Level, Purpose, Record, RecordProof, RequestAccess, UseAction,
};
use assent_proto::{ArtifactId, BatchId, CaseId, Commitment, GrantId, Hash, Height, PermitId, merkle};
use assent_tests::clients::{self, proofs, use_of};
use assent_tests::sim::Random;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::Failure;
use crate::drive::quantile;
use crate::fill::fill;
use crate::growth::{Growth, Maker};
use crate::report::round;

/// Activities on one permit: a tree in which each product is made of another one, and two are made of each.
const TREE: usize = 127;
/// Trees on the records of one person.
const TREES_EACH: usize = 50;
/// Questions of each kind.
const QUESTIONS: usize = 300;

/// What was seen.
pub(crate) struct Lineage {
    pub(crate) activities: usize,
    /// Activities a second while they were recorded.
    pub(crate) filled_per_second: f64,
    /// Milliseconds of each question, rising: back from a product, and forward.
    pub(crate) back_ms: Vec<f64>,
    pub(crate) forward_ms: Vec<f64>,
    /// Things in an answer, on average.
    pub(crate) back_nodes: f64,
    pub(crate) forward_nodes: f64,
}

impl Lineage {
    pub(crate) fn json(&self) -> Value {
        let way = |ms: &[f64], nodes| {
            json!({
                "p50_ms": round(quantile(ms, 0.5), 2), "p95_ms": round(quantile(ms, 0.95), 2),
                "max_ms": round(quantile(ms, 1.0), 2), "nodes": round(nodes, 1),
            })
        };
        json!({
            "activities": self.activities, "filled_per_second": round(self.filled_per_second, 0),
            "back": way(&self.back_ms, self.back_nodes), "forward": way(&self.forward_ms, self.forward_nodes),
        })
    }
}

/// Records so many activities and asks.
pub(crate) async fn measure(growth: &Growth, activities: usize) -> Result<Lineage, Failure> {
    eprintln!("recording {activities} activities");
    let trees = activities.div_ceil(TREE);
    let permits = permits(growth, trees).await?;
    let begun = Instant::now();
    // A product is there before another is made of it: one level of all trees after the other.
    let mut from = 0;
    while from < TREE {
        let level = from + 1;
        let (maker, permits) = (growth.maker.clone(), permits.clone());
        let make = move |n: usize| step(&maker, permits[n / level], n / level, from + n % level);
        fill(growth.door(), "activities", trees * level, make).await?;
        from += level;
    }
    let activities = trees * TREE;
    let filled_per_second = activities as f64 / begun.elapsed().as_secs_f64();
    let (url, genesis) = (growth.bench.stage.network.url(0), growth.bench.stage.clients.genesis.clone());
    let asked = tokio::task::spawn_blocking(move || ask(&url, &genesis, activities)).await?;
    let [(back_ms, back_nodes), (forward_ms, forward_nodes)] = asked?;
    Ok(Lineage { activities, filled_per_second, back_ms, forward_ms, back_nodes, forward_nodes })
}

/// The `n`-th activity of a tree: the first on its permit, each other on the product of the one above it.
fn step(maker: &Maker, permit: PermitId, tree: usize, n: usize) -> Bytes {
    let made = product(&name(tree, n), Level::Moderate);
    let above = n.checked_sub(1).map(|n| ArtifactId(digest(&name(tree, n / 2))));
    let action = match above {
        None => activity(ActivityKind::Reuse, &[permit], &[], &[&made]),
        Some(above) => activity(ActivityKind::Reuse, &[], &[above], &[&made]),
    };
    maker.sign(&maker.cast.insurer, action, None).1
}

fn name(tree: usize, n: usize) -> String {
    format!("product {n} of tree {tree}")
}

/// So many delivered permits of the insurer, on the standing grants of some persons.
async fn permits(growth: &Growth, count: usize) -> Result<Arc<Vec<PermitId>>, Failure> {
    let (maker, door) = (&growth.maker, growth.door());
    let persons = maker.enrol(door, "traced", count.div_ceil(TREES_EACH)).await?;
    let records: Vec<_> = persons.iter().map(|p| records(maker, p)).collect();
    let anchors: Vec<_> = records.iter().map(|(_, bytes)| bytes.clone()).collect();
    fill(door, "batches", anchors.len(), move |n| anchors[n].clone()).await?;
    let grants: Vec<_> =
        (0..).zip(&persons).map(|(n, p)| maker.grant(p, digest(&format!("trace {n}")))).collect();
    let granted: Vec<_> = grants.iter().map(|(_, bytes)| bytes.clone()).collect();
    fill(door, "grants", granted.len(), move |n| granted[n].clone()).await?;
    let request = |n: usize| {
        let of = n / TREES_EACH;
        let staff = Commitment(digest(&format!("analyst {n}")));
        let (item, account, case) = (maker.catalogue.claims, persons[of].account(), CaseId(Hash::ZERO));
        let asked = use_of(item, GrantId(grants[of].0.0), account, case, records[of].0.clone(), staff);
        let (purpose, action) = (Purpose::Statistics, UseAction::Derive);
        let asked = RequestAccess { case: None, purpose, action, ..asked };
        maker.sign(&maker.cast.insurer, Action::RequestAccess(Box::new(asked)), None)
    };
    let requests: Vec<_> = (0..count).map(request).collect();
    let permits: Arc<Vec<_>> = Arc::new(requests.iter().map(|(id, _)| PermitId(id.0)).collect());
    fill(door, "requests", count, move |n| requests[n].1.clone()).await?;
    let status = clients::status(door).await.ok_or("the node does not answer")?;
    let (maker, delivered) = (maker.clone(), permits.clone());
    let manifests: Vec<_> = records.iter().map(|(proofs, _)| manifest(proofs)).collect();
    let deliver = move |n: usize| {
        let (manifest, count) = manifests[n / TREES_EACH];
        let delivery = Deliver {
            permit: delivered[n],
            released_height: Height(status.height),
            manifest,
            records: count,
            package: digest("package"),
        };
        maker.sign(&maker.cast.hospital_a, Action::Deliver(delivery), None).1
    };
    fill(door, "deliveries", count, deliver).await?;
    Ok(permits)
}

/// Two records of a person with their places in a batch, and its anchoring.
fn records(maker: &Maker, person: &Party) -> (Vec<RecordProof>, Bytes) {
    let records: Vec<Record> = (0..2).map(|i| record(person, i, 100 + i)).collect();
    let anchor = anchor_of(maker.catalogue.claims, &records, &[]);
    let (id, bytes) = maker.sign(&maker.cast.hospital_a, Action::AnchorRecords(anchor), None);
    (proofs(BatchId(id.0), &records), bytes)
}

fn manifest(proofs: &[RecordProof]) -> (Hash, u32) {
    let leaves: Vec<_> = proofs.iter().map(|p| p.record.leaf()).collect();
    (merkle::root(&leaves), leaves.len() as u32)
}

/// Milliseconds, rising, and things in an answer on average: back, and forward.
type Asked = [(Vec<f64>, f64); 2];

/// Asks about products at random, one question after the other.
fn ask(url: &str, genesis: &Genesis, activities: usize) -> Result<Asked, Failure> {
    let (mut node, mut random) = (Node::connect(url, genesis).map_err(|e| e.to_string())?, Random::new(1));
    let mut way = |forward: bool| -> Result<(Vec<f64>, f64), Failure> {
        let (mut ms, mut nodes) = (Vec::with_capacity(QUESTIONS), 0);
        for _ in 0..QUESTIONS {
            let at = random.below(activities as u64) as usize;
            let artifact = ArtifactId(digest(&name(at / TREE, at % TREE)));
            let begun = Instant::now();
            // Nothing is remembered from one question to the next.
            let (mut source, newest) = (Proved::new(&mut node), Height(u64::MAX));
            let graph = match forward {
                true => descendants(&mut source, artifact, newest),
                false => ancestors(&mut source, artifact, newest),
            };
            nodes += graph.map_err(|e| e.to_string())?.nodes.len();
            ms.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        ms.sort_by(f64::total_cmp);
        Ok((ms, nodes as f64 / QUESTIONS as f64))
    };
    Ok([way(false)?, way(true)?])
}
