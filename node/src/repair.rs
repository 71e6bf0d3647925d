//! What an operator is left with when a node stops for good: a report of what differs, a command that moves the
//! database aside, and exit codes that scripts can tell apart.
//!
//! Nothing is thrown away, and nothing is forgotten that keeps the node from contradicting itself: its keys, its
//! vote log and the height of its newest signature stay. The chain itself comes back from the other nodes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use assent_proto::field::Message;
use assent_proto::{CertifiedHeader, GenesisHash, Height};
use assent_replica::{Divergence, Fault, Storage, StorageFault};
use rocksdb::{DB, Options};

use crate::metrics::Metrics;
use crate::node::NodeError;
use crate::store::{DAMAGED, DATABASE, OpenError, Store};
use crate::tables::{KEY_GENESIS, KEY_SIGNED, KEY_TIP, META, read_height};

/// Where a node that parted from the chain leaves what it found out, under its home.
pub const REPORT: &str = "divergence.json";
/// Where the new database is made before it takes the place of the old one, under the node's home.
const WORKSHOP: &str = "repair.new";

/// The exit code of a node that stopped because its database must be repaired.
pub const EXIT_REPAIR: u8 = 3;

/// The exit code of a node that stopped because its program is older than the rules of its chain.
pub const EXIT_NEWER: u8 = 4;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where the old database is now.
    pub aside: PathBuf,
    /// The height of the newest signature of this node, if the old database could still tell it. Nothing is
    /// signed at it or below.
    pub signed: Option<Height>,
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// There is nothing.
    #[error("there is no database under {0}: nothing to repair")]
    NoDatabase(PathBuf),
    /// The node runs.
    #[error("the database under {0} is in use: stop the node first")]
    Running(PathBuf),
    /// It holds another chain.
    #[error(
        "the database under {path} is of the chain with genesis {found}, the genesis file given is {given}"
    )]
    OtherChain {
        /// Where.
        path: PathBuf,
        /// In the database.
        found: String,
        /// In the genesis file.
        given: GenesisHash,
    },
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The new database.
    #[error("the new database: {0}")]
    Open(#[from] OpenError),
    /// Writing to it.
    #[error("the new database: {0}")]
    Storage(#[from] StorageFault),
}

/// Moves the database under `home` aside and founds an empty one, with which the node catches up from the others.
/// The node must not run.
pub fn repair(home: &Path, genesis: &GenesisHash) -> Result<Repaired, RepairError> {
    let path = home.join(DATABASE);
    if !path.is_dir() {
        return Err(RepairError::NoDatabase(home.into()));
    }
    let old = look(&path, genesis)?;
    let report = home.join(REPORT);
    let told = fs::read(&report).ok().and_then(|bytes| reported_height(&bytes));
    let name = if told.is_some() { "diverged" } else { "damaged" };
    let height = told.or(old.height).unwrap_or_default();
    let aside = free_name(home, &format!("{DATABASE}.{name}-{}", height.0));

    // The new one is whole before the old one goes: a crash in between leaves one or the other.
    let workshop = home.join(WORKSHOP);
    if workshop.exists() {
        fs::remove_dir_all(&workshop).map_err(at(&workshop))?;
    }
    fs::create_dir_all(&workshop).map_err(at(&workshop))?;
    let mut store = Store::open(&workshop, genesis, Metrics::new().0)?;
    if let Some(signed) = old.signed {
        store.log_mark(signed)?;
    }
    drop(store);
    fs::rename(&path, &aside).map_err(at(&path))?;
    fs::rename(workshop.join(DATABASE), &path).map_err(at(&path))?;
    fs::remove_dir_all(&workshop).map_err(at(&workshop))?;
    if report.exists() {
        fs::rename(&report, aside.join(REPORT)).map_err(at(&report))?;
    }
    File::open(home).and_then(|d| d.sync_all()).map_err(at(home))?;
    Ok(Repaired { aside, signed: old.signed })
}

/// What the old database can still tell.
#[derive(Default)]
struct Old {
    height: Option<Height>,
    signed: Option<Height>,
}

/// Opens the old database as it is, which a running node prevents. One that cannot be read tells nothing.
fn look(path: &Path, genesis: &GenesisHash) -> Result<Old, RepairError> {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    let tables = match DB::list_cf(&options, path) {
        Ok(tables) => tables,
        Err(_) => return Ok(Old::default()),
    };
    let db = match DB::open_cf(&options, path, tables) {
        Ok(db) => db,
        Err(error) if error.to_string().to_lowercase().contains("lock") => {
            return Err(RepairError::Running(path.into()));
        }
        Err(_) => return Ok(Old::default()),
    };
    let read = |key: &[u8]| db.cf_handle(META).and_then(|meta| db.get_cf(meta, key).ok().flatten());
    if let Some(found) = read(KEY_GENESIS).filter(|found| found != genesis.as_bytes()) {
        let (path, found) = (path.into(), hex::encode(found));
        return Err(RepairError::OtherChain { path, found, given: *genesis });
    }
    let tip = read(KEY_TIP).and_then(|bytes| CertifiedHeader::decode(&bytes).ok());
    Ok(Old {
        height: tip.map(|t| t.header.height),
        signed: read(KEY_SIGNED).and_then(|bytes| read_height(&bytes)),
    })
}

fn free_name(home: &Path, name: &str) -> PathBuf {
    let first = home.join(name);
    let others = (2u32..).map(|n| home.join(format!("{name}.{n}")));
    std::iter::once(first).chain(others).find(|path| !path.exists()).expect("names without end")
}

fn at(path: &Path) -> impl Fn(io::Error) -> RepairError {
    move |error| RepairError::Io { path: path.into(), error }
}

/// What the operator is told after a node stopped, if the database has to be repaired; a divergence is also
/// written into the node's home. `genesis` is the founding document with which it was started.
pub fn after(home: &Path, genesis: &Path, error: &NodeError) -> Option<String> {
    let command = format!("assentd repair --home {} --genesis {}", quoted(home), quoted(genesis));
    let then = "It keeps the keys and the vote log, and moves the database aside; start the node again, and it \
                fetches the chain from the others";
    match error {
        NodeError::Fault(Fault::Explained(d)) => {
            let path = home.join(REPORT);
            let written = fs::write(&path, report(d)).map_err(at(&path));
            let place = match written {
                Ok(()) => format!("The report is in {}.", path.display()),
                Err(error) => format!("The report could not be written: {error}."),
            };
            let cause = match d.damaged.is_empty() {
                true => {
                    "The rules gave another result here: compare the versions of assentd before you repair"
                }
                false => "The memory of this machine changed what it held: have it tested before you repair",
            };
            Some(format!(
                "E-DIVERGED: this node has parted from the chain at height {} and signs nothing more. {place}\n\
                 {cause}.\nRepair: {command}\n{then}.",
                d.height
            ))
        }
        NodeError::Fault(Fault::Diverged { height, .. } | Fault::CertifiedInvalid { height, .. }) => {
            Some(format!(
                "E-DIVERGED: this node has parted from the chain at height {height} and signs nothing more; \
                 nobody was connected who could say where.\nRepair: {command}\n{then}."
            ))
        }
        // These name their code and the cause themselves.
        NodeError::Store(OpenError::Damaged { .. } | OpenError::OtherLayout(_)) => {
            Some(format!("Repair: {command}\n{then}."))
        }
        NodeError::Fault(fault) if is_damage(fault) => Some(format!(
            "E-DAMAGED: the database cannot be used; the disk may be failing.\nRepair: {command}\n{then}."
        )),
        _ => None,
    }
}

/// Whether what is stored is not what was written.
fn is_damage(fault: &Fault) -> bool {
    match fault {
        Fault::DamagedState { .. } | Fault::DamagedBlock { .. } => true,
        Fault::Storage(fault) => fault.0.contains("Corruption") || fault.0.contains(DAMAGED),
        _ => false,
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

fn report(d: &Divergence) -> Vec<u8> {
    let object = |o: &assent_proto::ObjectRef| serde_json::json!({ "kind": format!("{:?}", o.kind).to_lowercase(), "id": o.id.to_string() });
    let report = serde_json::json!({
        "height": d.height.0,
        "block": d.block.to_string(),
        "what": d.what,
        "transaction": d.transaction.map(|(index, body)| {
            serde_json::json!({ "index": index, "body": body.to_string() })
        }),
        "object": d.key.as_ref().map(object),
        "leaf_here": d.ours.map(|h| h.to_string()),
        "leaf_of_the_others": d.theirs.map(|h| h.to_string()),
        "told_by_peers": d.told_by,
        "damaged_in_memory": d.damaged.iter().map(object).collect::<Vec<_>>(),
    });
    format!("{report:#}\n").into_bytes()
}

fn reported_height(bytes: &[u8]) -> Option<Height> {
    let report: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    report.get("height")?.as_u64().map(Height)
}
