//! What this machine can do at most, measured in the same run as everything else: figures of one machine mean little on
//! another, their ratio to these means more.

use std::path::Path;
use std::time::{Duration, Instant};

use assent_proto::keys::{Claim, verify_batch};
use assent_proto::{Hash, SecretKey, hash};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use serde_json::{Value, json};

use crate::Failure;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(1);
/// Signatures verified together.
const BATCH: usize = 512;

/// The limits of one core, and of the disk.
pub(crate) struct Limits {
    pub(crate) sig_single: f64,
    pub(crate) sig_batch: f64,
    pub(crate) sign: f64,
    pub(crate) blake3_512: f64,
    pub(crate) synced_batches: f64,
}

impl Limits {
    pub(crate) fn measure(dir: &Path) -> Result<Limits, Failure> {
        let key = |n: usize| SecretKey::from_bytes(&hash::DOCUMENT.hash(&[&n.to_le_bytes()]).0);
        let claim = |n: usize| {
            let (key, message) = (key(n), Hash([n as u8; 32]));
            Claim { key: key.public(), message, signature: key.sign(&message.0) }
        };
        let claims: Vec<_> = (0..BATCH).map(claim).collect();
        let signer = key(0);
        Ok(Limits {
            sig_single: per_second(1, || verify_batch(&claims[..1]).iter().all(|v| *v))?,
            sig_batch: per_second(BATCH, || verify_batch(&claims).iter().all(|v| *v))?,
            sign: per_second(1, || signer.sign(&[1; 32]).0 != [0; 64])?,
            blake3_512: per_second(1, || hash::DOCUMENT.hash(&[&[7; 512]]) != Hash::ZERO)?,
            synced_batches: synced_batches(dir)?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "sig_single_per_core": self.sig_single.round(),
            "sig_batch_per_core": self.sig_batch.round(),
            "sign_per_core": self.sign.round(),
            "blake3_512_bytes_per_core": self.blake3_512.round(),
            "rocksdb_synced_batches": self.synced_batches.round(),
        })
    }
}

/// How often a second something of `n` things is done, on one core. It must come out true, so that it is done at all.
fn per_second(n: usize, mut what: impl FnMut() -> bool) -> Result<f64, Failure> {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        if !std::hint::black_box(what()) {
            return Err("a measured operation failed".into());
        }
        count += n;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Synced writes of 100 rows of 200 bytes.
fn synced_batches(dir: &Path) -> Result<f64, Failure> {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir.join("limits"))?;
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let mut n = 0u64;
    per_second(1, || {
        let mut batch = WriteBatch::default();
        for _ in 0..100 {
            n += 1;
            batch.put(hash::DOCUMENT.hash(&[&n.to_le_bytes()]).0, [n as u8; 200]);
        }
        db.write_opt(batch, &synced).is_ok()
    })
}
