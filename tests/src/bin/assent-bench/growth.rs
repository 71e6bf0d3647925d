//! One validator whose state grows: what becomes of throughput, memory, restart and proofs with the number of grants that
//! live in it. The chain is filled through the public interface; its own speed is the limit. Each size has a chain of its
//! own, since the usual mix leaves hundreds of thousands of leaves behind.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_client::rpc::api;
use assent_ledger::testing::{Party, digest, enrol, list, one_use};
use assent_proto::evidence::Evidence;
use assent_proto::field::Element;
use assent_proto::transaction::{Action, Grant, Mode, Purpose, UseAction};
use assent_proto::{AccountId, Author, BodyId, CaseId, GrantId, Hash, ObjectRef, SecretKey, TimeMs};
use assent_tests::clients::{self, Cast, Catalogue, Door, now_ms};
use assent_tests::mix::Signer;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::Failure;
use crate::compare::flat;
use crate::course::Bench;
use crate::fill::fill;
use crate::lineage::{self, Lineage};
use crate::plot::{self, Axis, Line};
use crate::report::{commit, machine, round};
use crate::setting::Setting;
use crate::usage::Look;

/// Standing grants of one person: so enrolments are one transaction in a hundred.
const GRANTS_EACH: usize = 100;
/// For how long the usual mix is measured at each size, and before.
const MIX: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(5);
/// For how long what is signed on the way is good, ms.
const LIFE_MS: u64 = 5 * 60_000;
/// How long grants live: none ends while they are counted.
const GRANT_LIFE_MS: u64 = 10 * 365 * 86_400_000;
/// A restart may take so long.
const RESTART_MAX: Duration = Duration::from_secs(900);
/// Of fewer leaves nothing can be told from what the process needs anyway.
const LEAVES_MIN: f64 = 50_000.0;
/// How often evidence is verified for one figure.
const VERIFIED: u32 = 200;

/// A count as people write it: `100k`, `1M`, `1_000_000`.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let count = digits.replace('_', "").parse::<usize>().ok().and_then(|n| n.checked_mul(factor));
    count.filter(|n| *n > 0).ok_or_else(|| format!("{text} is not a number like 100k or 10M"))
}

/// What was seen at one size.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Standing grants.
    pub(crate) grants: usize,
    /// All leaves with them.
    pub(crate) leaves: f64,
    /// Grants a second while the state grew to it.
    pub(crate) filled_per_second: f64,
    /// Of the usual mix, a second.
    pub(crate) tps: f64,
    pub(crate) cpu_us_per_tx: f64,
    /// Resident memory after the filling, after a restart, and after the mix.
    pub(crate) rss_mib: f64,
    pub(crate) restarted_rss_mib: f64,
    pub(crate) mix_rss_mib: f64,
    /// After the restart, what is more than that of the empty chain, for each leaf; no number of few.
    pub(crate) memory_bytes_per_leaf: f64,
    pub(crate) disk_bytes: u64,
    /// From the start of the program to an answer with the height before.
    pub(crate) restart_s: f64,
    /// The evidence of a grant's state.
    pub(crate) evidence_bytes: usize,
    pub(crate) evidence_verified_ms: f64,
}

impl Size {
    pub(crate) fn json(&self) -> Value {
        json!({
            "grants": self.grants, "leaves": self.leaves, "filled_per_second": round(self.filled_per_second, 0),
            "tps": round(self.tps, 1), "cpu_us_per_tx": round(self.cpu_us_per_tx, 1),
            "rss_mib": round(self.rss_mib, 1), "restarted_rss_mib": round(self.restarted_rss_mib, 1),
            "mix_rss_mib": round(self.mix_rss_mib, 1),
            "memory_bytes_per_leaf": round(self.memory_bytes_per_leaf, 1), "disk_bytes": self.disk_bytes,
            "restart_s": round(self.restart_s, 3), "evidence_bytes": self.evidence_bytes,
            "evidence_verified_ms": round(self.evidence_verified_ms, 4),
        })
    }
}

/// What makes the transactions that fill the chain.
pub(crate) struct Maker {
    pub(crate) signer: Signer,
    pub(crate) cast: Cast,
    pub(crate) catalogue: Catalogue,
}

impl Maker {
    /// Signs so that it may wait a while.
    pub(crate) fn sign(&self, by: &Party, action: Action, second: Option<&SecretKey>) -> (BodyId, Bytes) {
        self.signer.sign(TimeMs(now_ms() + LIFE_MS), by, action, second)
    }

    /// Enrols so many persons at hospital A, whom nobody has seen yet: their names begin so.
    pub(crate) async fn enrol(
        self: &Arc<Self>,
        door: &Door,
        name: &str,
        count: usize,
    ) -> Result<Vec<Party>, Failure> {
        let enrolment = |n| {
            let key = SecretKey::from_bytes(&digest(&format!("{name} {n}")).0);
            let action = enrol(&self.cast.hospital_a, &key);
            let (id, bytes) = self.sign(&self.cast.bureau, action, Some(&key));
            (Party { author: Author::Account(AccountId(id.0)), key }, bytes)
        };
        let mut persons = Vec::with_capacity(count);
        // What is signed ages: not all at once.
        for from in (0..count).step_by(100_000) {
            let numbers = from..(from + 100_000).min(count);
            let (new, signed): (Vec<_>, Vec<_>) = numbers.map(enrolment).unzip();
            fill(door, "persons", signed.len(), move |n| signed[n].clone()).await?;
            persons.extend(new);
        }
        Ok(persons)
    }

    /// A person's standing grant to the insurer for statistics; `unique` tells it from her others.
    pub(crate) fn grant(&self, person: &Party, unique: Hash) -> (BodyId, Bytes) {
        let until = TimeMs(now_ms() + GRANT_LIFE_MS);
        let terms = Grant {
            case: None,
            purpose: Purpose::Statistics,
            actions: list(vec![UseAction::Read, UseAction::Derive]),
            mode: Mode::Standing,
            uses: 0,
            ..one_use(&self.cast.insurer, self.catalogue.claims, CaseId(unique), until, unique)
        };
        self.sign(person, Action::Grant(Box::new(terms)), None)
    }
}

/// A chain that grows.
pub(crate) struct Growth {
    pub(crate) bench: Bench,
    pub(crate) maker: Arc<Maker>,
    /// Resident memory of the empty chain, MiB.
    empty_mib: f64,
}

impl Growth {
    /// An empty chain of one validator.
    pub(crate) async fn begin() -> Result<Growth, Failure> {
        let setting = Setting { validators: 1, ..Setting::default() };
        let bench = Bench::on(&setting, WARM_UP).await?;
        let (genesis, cast) = (bench.stage.clients.genesis.hash(), bench.stage.clients.cast.clone());
        let catalogue = bench.catalogue;
        let maker = Maker { signer: Signer::new(genesis, cast.clone(), catalogue), cast, catalogue };
        let empty_mib = Look::at(&bench.stage.network).rss_mib;
        Ok(Growth { bench, maker: Arc::new(maker), empty_mib })
    }

    pub(crate) fn door(&self) -> &Door {
        &self.bench.drive.doors[0]
    }

    /// Grows to so many grants and measures there.
    async fn at(&mut self, grants: usize) -> Result<Size, Failure> {
        eprintln!("growing to {grants} grants");
        let (filled_per_second, grant) = self.grow(grants).await?;
        let filled = Look::at(&self.bench.stage.network);
        let restart_s = self.restart().await?;
        let restarted = Look::at(&self.bench.stage.network);
        let memory = (restarted.rss_mib - self.empty_mib) * f64::from(1 << 20);
        let (evidence_bytes, evidence_verified_ms) = self.evidence(grant).await?;
        let seen = self.bench.crowd(&format!("{grants} grants"), MIX).await;
        Ok(Size {
            grants,
            leaves: filled.leaves,
            filled_per_second,
            tps: seen.per_second(),
            cpu_us_per_tx: self.bench.phases.last().map_or(f64::NAN, |p| p.cpu_us_per_tx()),
            rss_mib: filled.rss_mib,
            restarted_rss_mib: restarted.rss_mib,
            mix_rss_mib: Look::at(&self.bench.stage.network).rss_mib,
            memory_bytes_per_leaf: if filled.leaves < LEAVES_MIN { f64::NAN } else { memory / filled.leaves },
            disk_bytes: filled.disk,
            restart_s,
            evidence_bytes,
            evidence_verified_ms,
        })
    }

    /// How many grants came in a second, and one of them.
    async fn grow(&self, grants: usize) -> Result<(f64, GrantId), Failure> {
        let (maker, door) = (self.maker.clone(), self.door());
        let persons = maker.enrol(door, "grower", grants.div_ceil(GRANTS_EACH)).await?;
        let make = move |n: usize| maker.grant(&persons[n / GRANTS_EACH], digest(&format!("notice {n}")));
        // One by itself, to know its id.
        let (id, bytes) = make(0);
        fill(door, "grants", 1, move |_| bytes.clone()).await?;
        let per_second = fill(door, "grants", grants - 1, move |n| make(n + 1).1).await?;
        Ok((per_second, GrantId(id.0)))
    }

    /// Seconds from the start after a power cut until the node answers with all that it had.
    async fn restart(&self) -> Result<f64, Failure> {
        let network = &self.bench.stage.network;
        let before = clients::status(self.door()).await.ok_or("the node does not answer")?.height;
        network.kill(0)?;
        let begun = Instant::now();
        network.start(0)?;
        while clients::status(self.door()).await.is_none_or(|s| s.height < before) {
            if begun.elapsed() > RESTART_MAX || network.has_ended(0)? {
                return Err(format!("no restart; the log is in {}", network.nodes[0].home.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Bytes of the evidence of a grant's state, and ms to verify it as a file.
    async fn evidence(&self, grant: GrantId) -> Result<(usize, f64), Failure> {
        let request = api::ObjectRequest { object: Some(ObjectRef::from(grant).write()) };
        let bytes = self.door().clone().get_object(request).await?.into_inner().evidence;
        let trust = self.bench.stage.clients.genesis.trust();
        let begun = Instant::now();
        for _ in 0..VERIFIED {
            Evidence::check(&bytes, &trust)?;
        }
        Ok((bytes.len(), begun.elapsed().as_secs_f64() * 1000.0 / f64::from(VERIFIED)))
    }
}

/// All sizes, and the questions of lineage among many activities.
pub(crate) struct Grown {
    sizes: Vec<Size>,
    lineage: Lineage,
}

/// Grows a chain to each of these sizes; on the last one, or an empty one, as many activities are recorded.
pub(crate) async fn measure(mut sizes: Vec<usize>, activities: usize) -> Result<Grown, Failure> {
    sizes.sort_unstable();
    let mut seen = Vec::new();
    let mut growth = Growth::begin().await?;
    for (n, grants) in sizes.into_iter().enumerate() {
        if n > 0 {
            // The one before ends first, and its disk is given back.
            drop(growth);
            growth = Growth::begin().await?;
        }
        let size = growth.at(grants).await?;
        eprintln!("{}", size.json());
        seen.push(size);
    }
    let lineage = lineage::measure(&growth, activities).await?;
    growth.bench.stage.network.stop_all()?;
    Ok(Grown { sizes: seen, lineage })
}

impl Grown {
    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": machine(), "commit": commit(), "sizes": self.sizes.iter().map(Size::json).collect::<Vec<_>>(),
            "lineage": self.lineage.json(),
        })
    }

    /// A column for each size.
    pub(crate) fn table(&self) -> String {
        let columns: Vec<_> = self.sizes.iter().map(|s| flat(&s.json())).collect();
        let mut text = String::new();
        // Writing to a string does not fail.
        for (row, (name, _)) in columns.first().into_iter().flatten().enumerate() {
            let _ = write!(text, "{name:<26}");
            for column in &columns {
                let _ = write!(text, "{:>14}", column[row].1.to_string());
            }
            text.push('\n');
        }
        text.push_str("\nlineage\n");
        for (name, value) in flat(&self.lineage.json()) {
            let _ = writeln!(text, "{name:<26}{:>14}", value.to_string());
        }
        text
    }

    /// Over the number of leaves, both on scales of powers of ten.
    fn svg(&self) -> String {
        let line = |name: &str, of: &dyn Fn(&Size) -> f64| Line {
            name: name.into(),
            points: self.sizes.iter().map(|s| (s.leaves, of(s))).collect(),
        };
        let lines = [
            line("usual mix, a second", &|s| s.tps),
            line("filling, grants a second", &|s| s.filled_per_second),
            line("restart, ms", &|s| s.restart_s * 1000.0),
            line("memory of a leaf, bytes", &|s| s.memory_bytes_per_leaf),
            line("evidence of a grant, bytes", &|s| s.evidence_bytes as f64),
        ];
        plot::draw(&Axis::powers(3, 8, ""), &Axis::powers(0, 6, ""), &lines, "leaves of the state")
    }

    pub(crate) fn write(&self, out: &Path) -> Result<(), Failure> {
        fs::create_dir_all(out)?;
        fs::write(out.join("growth.json"), serde_json::to_string_pretty(&self.json())? + "\n")?;
        fs::write(out.join("growth.txt"), self.table())?;
        fs::write(out.join("growth.svg"), self.svg())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        let counts = ["7", "1k", "100K", "1M", "10m", "1_000_000"].map(parse_count);
        assert_eq!(counts.map(Result::unwrap), [7, 1_000, 100_000, 1_000_000, 10_000_000, 1_000_000]);
        for bad in ["", "0", "k", "-1", "1.5M", "1kk", "99999999999999999999", "99999999999999M"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }
}
