//! RocksDB behind the replica's [`Storage`]: one atomic synced write a block, all indexes inside it.
//!
//! A crash at any byte leaves the last whole block. The vote log is a plain file beside the database: it is
//! appended to before every signature, and what is in it is the consensus crate's to say. Reading for the
//! public interface is [`crate::reader`]'s, over the same handle.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use assent_proto::block::CommitCertificate;
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::{Action, BlockId, GenesisHash, Hash, Height, Leaf, VerifiedTx};
use assent_replica::{Commit, Storage, StorageFault, Tip};
use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRecoveryMode, IteratorMode, Options, WriteBatch, WriteOptions};

use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::tables::*;

/// The database's folder under the node's home.
pub const DATABASE: &str = "db";
/// The vote log under the node's home.
pub const VOTE_LOG: &str = "votes.log";

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// RocksDB.
    #[error("the database under {path}: {error}")]
    Database {
        /// Where.
        path: String,
        /// Why.
        error: rocksdb::Error,
    },
    /// The vote log.
    #[error("the vote log {path}: {error}")]
    VoteLog {
        /// Where.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It holds another chain.
    #[error("the database is of the chain with genesis {found}, the genesis file given is {given}")]
    OtherChain {
        /// In the database.
        found: String,
        /// In the genesis file.
        given: GenesisHash,
    },
    /// It was written by another version.
    #[error("the database has layout {0}, this assentd reads layout 1")]
    OtherLayout(String),
}

/// The database and the vote log of one node; locked against a second process.
pub struct Store {
    db: Arc<DB>,
    votes: File,
    /// Keys of the proposals that are kept. Known here, so that dropping them leaves no range tombstones
    /// behind, which every later read would have to pass.
    proposals: BTreeSet<[u8; 44]>,
    metrics: Metrics,
}

impl Store {
    /// Opens or founds the database under `home`, and refuses one of another chain.
    pub fn open(home: &Path, genesis: &GenesisHash, metrics: Metrics) -> Result<Store, OpenError> {
        let path = home.join(DATABASE);
        let database = |error| OpenError::Database { path: path.display().to_string(), error };
        let db = DB::open_cf_descriptors(&options(), &path, descriptors()).map_err(database)?;
        let mut store =
            Store { db: Arc::new(db), votes: open_votes(home)?, proposals: BTreeSet::new(), metrics };
        store.proposals = store.kept_proposals().map_err(database)?;
        match store.meta(KEY_GENESIS).map_err(database)? {
            None => store.found(genesis).map_err(database)?,
            Some(found) if found != genesis.as_bytes() => {
                return Err(OpenError::OtherChain { found: hex::encode(found), given: *genesis });
            }
            Some(_) => {}
        }
        match store.meta(KEY_LAYOUT).map_err(database)? {
            Some(layout) if layout == LAYOUT => Ok(store),
            other => {
                Err(OpenError::OtherLayout(String::from_utf8_lossy(&other.unwrap_or_default()).into_owned()))
            }
        }
    }

    /// A handle that reads beside the loop.
    pub fn reader(&self) -> Reader {
        Reader::new(self.db.clone())
    }

    fn found(&self, genesis: &GenesisHash) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_GENESIS, genesis.as_bytes());
        batch.put_cf(self.table(META), KEY_LAYOUT, LAYOUT);
        self.write(batch)
    }

    fn kept_proposals(&self) -> Result<BTreeSet<[u8; 44]>, rocksdb::Error> {
        let rows = self.db.iterator_cf(self.table(PROPOSALS), IteratorMode::Start);
        rows.filter_map(|row| row.map(|(key, _)| key[..].try_into().ok()).transpose()).collect()
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        self.db.get_cf(self.table(META), key)
    }

    fn table(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every table is opened with the database")
    }

    fn write(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.metrics.fsyncs.inc();
        self.db.write_opt(batch, &options)
    }

    /// Everything that a block leaves behind, in one batch.
    fn block_batch(&self, commit: &Commit) -> WriteBatch {
        let header = &commit.certified.header;
        let height = header.height;
        let at = height_key(height);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_TIP, commit.certified.encode());
        batch.put_cf(self.table(META), KEY_MOUNTAINS, write_mountains(&commit.mountains));
        batch.put_cf(self.table(HEADERS), at, header.encode());
        batch.put_cf(self.table(BLOCKS), at, &commit.block);
        batch.put_cf(self.table(CERTIFICATES), at, commit.certified.certificate.encode());
        for leaf in &commit.leaves {
            batch.put_cf(self.table(LEAVES), leaf.object.key(), leaf.encode());
        }
        self.add_receipts(&mut batch, commit);
        self.add_events(&mut batch, commit);
        for key in self.proposals.range(..proposal_key(height.next(), 0, &[0; 32])) {
            batch.delete_cf(self.table(PROPOSALS), key);
        }
        batch
    }

    fn add_receipts(&self, batch: &mut WriteBatch, commit: &Commit) {
        for (tx, receipt) in commit.txs.iter().zip(&commit.receipts) {
            batch.put_cf(self.table(RECEIPTS), receipt.body.as_bytes(), receipt.encode());
            if receipt.code == 0 {
                for id in used(tx) {
                    let key = use_key(id.as_bytes(), receipt.height, receipt.transaction);
                    batch.put_cf(self.table(USES), key, receipt.body.as_bytes());
                }
            }
        }
    }

    fn add_events(&self, batch: &mut WriteBatch, commit: &Commit) {
        let height = commit.certified.header.height;
        for (index, event) in (0u32..).zip(&commit.events) {
            let place = place_key(height, index);
            batch.put_cf(self.table(EVENTS), place, event.encode());
            for link in &event.links {
                batch.put_cf(self.table(TRAILS), trail_key(&link.trail, link.index), place);
            }
        }
    }
}

/// What an applied transaction used: records by their commitments, permits and products by their ids.
fn used(tx: &VerifiedTx) -> Vec<Hash> {
    match &tx.body().action {
        Action::RequestAccess(a) => a.records.iter().map(|r| r.record.commitment.0).collect(),
        Action::Deliver(a) => vec![a.permit.0],
        Action::RecordActivity(a) => {
            a.permits.iter().map(|p| p.0).chain(a.artifacts.iter().map(|p| p.0)).collect()
        }
        _ => Vec::new(),
    }
}

impl Storage for Store {
    fn tip(&mut self) -> Result<Option<Tip>, StorageFault> {
        let Some(certified) = self.meta(KEY_TIP).map_err(|e| fault("reading the tip", e))? else {
            return Ok(None);
        };
        let certified = decode(certified.into()).map_err(|e| fault("reading the tip", e))?;
        let mountains = self.meta(KEY_MOUNTAINS).map_err(|e| fault("reading the history", e))?;
        let mountains = mountains.and_then(|m| read_mountains(&m));
        let mountains = mountains.ok_or_else(|| fault("reading the history", "it is missing or damaged"))?;
        Ok(Some(Tip { certified, mountains }))
    }

    fn leaves(&mut self, each: &mut dyn FnMut(Leaf)) -> Result<(), StorageFault> {
        for row in self.db.iterator_cf(self.table(LEAVES), IteratorMode::Start) {
            let (_, value) = row.map_err(|e| fault("reading the state", e))?;
            each(decode(value.into_vec().into()).map_err(|e| fault("reading the state", e))?);
        }
        Ok(())
    }

    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault> {
        self.reader().block(height).map_err(|e| fault("reading a block", e))
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StorageFault> {
        let begun = Instant::now();
        self.write(self.block_batch(commit)).map_err(|e| fault("committing a block", e))?;
        self.proposals = self.proposals.split_off(&proposal_key(commit.height().next(), 0, &[0; 32]));
        Metrics::observe(&self.metrics.commit_time, begun.elapsed());
        Ok(())
    }

    fn put_proposal(
        &mut self,
        height: Height,
        round: u32,
        block: &BlockId,
        bytes: &Bytes,
    ) -> Result<(), StorageFault> {
        let mut batch = WriteBatch::default();
        let key = proposal_key(height, round, block.0.as_bytes());
        batch.put_cf(self.table(PROPOSALS), key, bytes);
        self.write(batch).map_err(|e| fault("keeping a proposal", e))?;
        self.proposals.insert(key);
        Ok(())
    }

    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault> {
        let mut found = Vec::new();
        let of_height = proposal_key(height, 0, &[0; 32])..proposal_key(height.next(), 0, &[0; 32]);
        for key in self.proposals.range(of_height) {
            let value =
                self.db.get_cf(self.table(PROPOSALS), key).map_err(|e| fault("reading proposals", e))?;
            let bytes = value.ok_or_else(|| fault("reading proposals", "one is missing"))?;
            let (_, round) = read_place(&key[..12]).expect("a proposal's key begins with its place");
            found.push((round, bytes.into()));
        }
        Ok(found)
    }

    fn log_append(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.votes.write_all(bytes).map_err(|e| fault("appending to the vote log", e))
    }

    fn log_sync(&mut self) -> Result<(), StorageFault> {
        self.metrics.fsyncs.inc();
        self.votes.sync_data().map_err(|e| fault("syncing the vote log", e))
    }

    fn log_read(&mut self) -> Result<Vec<u8>, StorageFault> {
        let mut bytes = Vec::new();
        let read = self.votes.seek(SeekFrom::Start(0)).and_then(|_| self.votes.read_to_end(&mut bytes));
        read.map_err(|e| fault("reading the vote log", e))?;
        Ok(bytes)
    }

    fn log_reset(&mut self) -> Result<(), StorageFault> {
        self.metrics.fsyncs.inc();
        self.votes
            .set_len(0)
            .and_then(|()| self.votes.sync_data())
            .map_err(|e| fault("emptying the vote log", e))
    }
}

fn fault(doing: &str, error: impl std::fmt::Display) -> StorageFault {
    StorageFault(format!("{doing}: {error}"))
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A torn last write is the block that was not acknowledged; damage anywhere before it must stop the node.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(256 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_open_files(512);
    options
}

/// Opens the vote log for appending and makes its name durable.
fn open_votes(home: &Path) -> Result<File, OpenError> {
    let path = home.join(VOTE_LOG);
    let error = |error| OpenError::VoteLog { path: path.display().to_string(), error };
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path).map_err(error)?;
    File::open(home).and_then(|d| d.sync_all()).map_err(error)?;
    Ok(file)
}

fn write_mountains(mountains: &Mountains) -> Vec<u8> {
    let mut bytes = mountains.count().to_be_bytes().to_vec();
    mountains.peaks().iter().for_each(|p| bytes.extend(p.as_bytes()));
    bytes
}

fn read_mountains(bytes: &[u8]) -> Option<Mountains> {
    let (count, peaks) = bytes.split_at_checked(8)?;
    let (peaks, rest) = peaks.as_chunks::<32>();
    let peaks = peaks.iter().map(|p| Hash(*p)).collect();
    if rest.is_empty() {
        Mountains::from_parts(u64::from_be_bytes(count.try_into().ok()?), peaks)
    } else {
        None
    }
}
