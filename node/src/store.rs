//! RocksDB behind the replica's [`Storage`]: one atomic synced write a block, all indexes inside it.
//!
//! A crash at any byte leaves the last whole block. The vote log is a plain file beside the database: it is
//! appended to before every signature, and what is in it is the consensus crate's to say. Reading for the
//! public interface is [`crate::reader`]'s, over the same handle.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use assent_proto::block::{CertifiedHeader, CommitCertificate};
use assent_proto::evidence::ValidatorLink;
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::{Action, BlockId, Event, GenesisHash, Hash, Height, Leaf, ObjectRef, Receipt};
use assent_replica::{Commit, Gap, Past, Storage, StorageFault, Tip};
use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode, Options, WriteBatch, WriteOptions,
};

use crate::metrics::Metrics;
use crate::reader::{Active, ReadError, Reader};
use crate::tables::*;

/// The database's folder under the node's home.
pub const DATABASE: &str = "db";
/// The vote log under the node's home.
pub const VOTE_LOG: &str = "votes.log";

/// The code in errors that say that what is stored is not what was written.
pub(crate) const DAMAGED: &str = "E-DAMAGED";
/// What all tables together hold in memory before some is written out, bytes.
const WRITE_BUFFERS_BYTES: usize = 64 << 20;
/// The database's write-ahead log, bytes.
const WRITE_LOG_BYTES_MAX: u64 = 128 << 20;
/// RocksDB's notes about itself, for each of its files, bytes.
const OWN_LOG_BYTES_MAX: usize = 4 << 20;

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
    #[error(
        "E-LAYOUT: the database has layout {0}, this assentd reads layout 4. Nothing is converted: move it aside with `assentd repair --home DIR --genesis FILE`, and the node fetches the chain from the others (it keeps its keys and signs nothing below what it signed)"
    )]
    OtherLayout(String),
    /// It is damaged.
    #[error(
        "E-DAMAGED: the database under {path} is damaged: {error}. The disk may be failing. Move it aside with `assentd repair --home DIR --genesis FILE`, and the node fetches the chain from the others"
    )]
    Damaged {
        /// Where.
        path: String,
        /// What is wrong.
        error: String,
    },
}

/// The database and the vote log of one node; locked against a second process.
pub struct Store {
    db: Arc<DB>,
    votes: File,
    /// The proposals of heights that are not decided. Known here, so that dropping them leaves no range tombstones
    /// behind, which every later read would have to pass.
    proposals: BTreeMap<ProposalKey, Bytes>,
    active: Active,
    metrics: Metrics,
}

impl Store {
    /// Opens or founds the database under `home`, and refuses one of another chain.
    pub fn open(home: &Path, genesis: &GenesisHash, metrics: Metrics) -> Result<Store, OpenError> {
        let path = home.join(DATABASE);
        let database = |error: rocksdb::Error| open_error(&path, error);
        let db = DB::open_cf_descriptors(&options(), &path, descriptors()).map_err(database)?;
        let (votes, active) = (open_votes(home)?, Active::default());
        let mut store = Store { db: Arc::new(db), votes, proposals: BTreeMap::new(), active, metrics };
        match store.meta(KEY_GENESIS).map_err(database)? {
            None => store.found(genesis).map_err(database)?,
            Some(found) if found != genesis.as_bytes() => {
                return Err(OpenError::OtherChain { found: hex::encode(found), given: *genesis });
            }
            Some(_) => {}
        }
        match store.meta(KEY_LAYOUT).map_err(database)? {
            Some(layout) if layout == LAYOUT => {
                store.recover_snapshot().map_err(database)?;
                store.proposals = store.undecided().map_err(database)?;
                let gaps = store.reader().gaps().unwrap_or_default();
                store.metrics.missing_blocks.set(gaps.iter().map(Gap::count).sum());
                Ok(store)
            }
            other => {
                Err(OpenError::OtherLayout(String::from_utf8_lossy(&other.unwrap_or_default()).into_owned()))
            }
        }
    }

    /// A handle that reads beside the loop.
    pub fn reader(&self) -> Reader {
        Reader::new(self.db.clone(), self.active.clone())
    }

    /// Which table holds the state; a state that was being taken in when the process ended is wiped.
    fn recover_snapshot(&mut self) -> Result<(), rocksdb::Error> {
        if let Some(table) = self.meta(KEY_LEAVES)? {
            self.active.set(&table);
        }
        if self.meta(KEY_UNFINISHED)?.is_some() {
            tracing::warn!("a state that was being taken in was not finished: it is dropped");
            self.wipe_other_leaves(false)?;
        }
        Ok(())
    }

    /// Empties the table of leaves that does not hold the state at the tip, and says whether it may fill again.
    fn wipe_other_leaves(&self, unfinished: bool) -> Result<(), rocksdb::Error> {
        let other = self.table(self.active.other());
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(other, &[0u8; 1][..], &[0xffu8; 40][..]);
        match unfinished {
            true => batch.put_cf(self.table(META), KEY_UNFINISHED, b""),
            false => batch.delete_cf(self.table(META), KEY_UNFINISHED),
        }
        self.write(batch)?;
        // Without it every later read of the table would have to pass what was deleted.
        self.db.compact_range_cf(other, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Writes without waiting for the disk: a later synced write makes it durable too.
    fn write_later(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write_opt(batch, &WriteOptions::default())
    }

    /// `block` is the whole block, or the key of the proposal that became it.
    fn block_rows(&self, batch: &mut WriteBatch, certified: &CertifiedHeader, block: &[u8]) {
        let at = height_key(certified.header.height);
        batch.put_cf(self.table(HEADERS), at, certified.header.encode());
        batch.put_cf(self.table(BLOCKS), at, block);
        batch.put_cf(self.table(CERTIFICATES), at, certified.certificate.encode());
    }

    fn put_gaps(&self, batch: &mut WriteBatch, gaps: &[Gap]) {
        if gaps.is_empty() {
            batch.delete_cf(self.table(META), KEY_GAPS);
        } else {
            batch.put_cf(self.table(META), KEY_GAPS, write_gaps(gaps));
        }
    }

    fn found(&self, genesis: &GenesisHash) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_GENESIS, genesis.as_bytes());
        batch.put_cf(self.table(META), KEY_LAYOUT, LAYOUT);
        self.write(batch)
    }

    fn undecided(&self) -> Result<BTreeMap<ProposalKey, Bytes>, rocksdb::Error> {
        // Who cannot read the tip stops there, before anything is decided.
        let Ok(tip) = self.reader().height() else { return Ok(BTreeMap::new()) };
        let above = proposal_key(tip.next(), 0, &[0; 32]);
        let from = IteratorMode::From(&above, Direction::Forward);
        let rows = self.db.iterator_cf(self.table(PROPOSALS), from);
        let read =
            |(key, block): (Box<[u8]>, Box<[u8]>)| Some((key[..].try_into().ok()?, block.into_vec().into()));
        rows.filter_map(|row| row.map(read).transpose()).collect()
    }

    fn undecided_at(&self, height: Height) -> impl Iterator<Item = (&ProposalKey, &Bytes)> {
        self.proposals.range(proposal_key(height, 0, &[0; 32])..proposal_key(height.next(), 0, &[0; 32]))
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
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_TIP, commit.certified.encode());
        batch.put_cf(self.table(META), KEY_MOUNTAINS, write_mountains(&commit.mountains));
        // A body under the block's id need not be the block: who proposed it may have lied.
        let kept = self.undecided_at(height).find(|(_, block)| **block == commit.block).map(|(key, _)| key);
        self.block_rows(&mut batch, &commit.certified, kept.map_or(&commit.block[..], |key| key));
        let leaves = self.table(self.active.table());
        for leaf in &commit.leaves {
            batch.put_cf(leaves, leaf.object.key(), leaf.encode());
        }
        for object in &commit.removed {
            batch.delete_cf(leaves, object.key());
        }
        if let Some(next) = &commit.next_validators {
            let link = ValidatorLink { certified: commit.certified.clone(), next: next.clone() };
            batch.put_cf(self.table(LINKS), height_key(height), link.encode());
        }
        let actions = commit.txs.iter().map(|tx| &tx.body().action);
        self.add_receipts(&mut batch, actions, &commit.receipts);
        self.add_events(&mut batch, height, &commit.events);
        let over = self.proposals.range(..proposal_key(height.next(), 0, &[0; 32]));
        for (key, _) in over.filter(|(key, _)| Some(*key) != kept) {
            batch.delete_cf(self.table(PROPOSALS), key);
        }
        batch
    }

    fn add_receipts<'a>(
        &self,
        batch: &mut WriteBatch,
        actions: impl Iterator<Item = &'a Action>,
        receipts: &[Receipt],
    ) {
        for (action, receipt) in actions.zip(receipts) {
            batch.put_cf(self.table(RECEIPTS), receipt.body.as_bytes(), receipt.encode());
            if receipt.code == 0 {
                for id in used(action) {
                    let key = use_key(id.as_bytes(), receipt.height, receipt.transaction);
                    batch.put_cf(self.table(USES), key, receipt.body.as_bytes());
                }
            }
        }
    }

    fn add_events(&self, batch: &mut WriteBatch, height: Height, events: &[Event]) {
        let mut trails: BTreeMap<ObjectRef, (u64, Places)> = BTreeMap::new();
        for (first, row) in (0u32..).step_by(EVENTS_A_ROW).zip(events.chunks(EVENTS_A_ROW)) {
            batch.put_cf(self.table(EVENTS), place_key(height, first), write_events(row));
        }
        for (index, event) in (0u32..).zip(events) {
            for link in &event.links {
                let first = || (link.index, Places { height, indexes: Vec::new() });
                trails.entry(link.trail).or_insert_with(first).1.indexes.push(index);
            }
        }
        for (trail, (first, places)) in &trails {
            batch.put_cf(self.table(TRAILS), trail_key(trail, *first), places.write());
        }
    }
}

/// What an applied transaction used: records by their commitments, permits and products by their ids.
fn used(action: &Action) -> Vec<Hash> {
    match action {
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
        let damaged = |e| fault("reading the tip", format!("{DAMAGED}: {e}"));
        let certified = decode(certified.into()).map_err(damaged)?;
        let mountains = self.meta(KEY_MOUNTAINS).map_err(|e| fault("reading the history", e))?;
        let mountains = mountains.and_then(|m| read_mountains(&m));
        let mountains = mountains
            .ok_or_else(|| fault("reading the history", format!("{DAMAGED}: it is missing or no history")))?;
        Ok(Some(Tip { certified, mountains }))
    }

    fn leaves(&mut self, each: &mut dyn FnMut(Leaf)) -> Result<(), StorageFault> {
        for row in self.db.iterator_cf(self.table(self.active.table()), IteratorMode::Start) {
            let (_, value) = row.map_err(|e| fault("reading the state", e))?;
            let leaf = decode(value.into_vec().into());
            each(leaf.map_err(|e| fault("reading the state", format!("{DAMAGED}: a leaf: {e}")))?);
        }
        Ok(())
    }

    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault> {
        match self.reader().block(height) {
            Ok(block) => Ok(block),
            Err(damage) if is_damage(&damage) => {
                self.metrics.damaged.inc();
                tracing::error!(
                    height = height.0, %damage,
                    "E-DAMAGED: a stored block is damaged; it is not used, and fetched again from the others"
                );
                Ok(None)
            }
            Err(error) => Err(fault("reading a block", error)),
        }
    }

    fn events(&mut self, height: Height) -> Result<Option<Vec<Event>>, StorageFault> {
        match self.reader().events(height) {
            Ok(events) => Ok(Some(events)),
            Err(ReadError::NotYet(_)) => Ok(None),
            Err(damage) if is_damage(&damage) => {
                self.metrics.damaged.inc();
                tracing::error!(
                    height = height.0, %damage,
                    "E-DAMAGED: stored events are damaged; they are not used, and fetched again from the others"
                );
                Ok(None)
            }
            Err(error) => Err(fault("reading events", error)),
        }
    }

    fn links(&mut self) -> Result<Vec<ValidatorLink>, StorageFault> {
        self.reader().links(Height(u64::MAX)).map_err(|e| fault("reading the changes of validators", e))
    }

    fn gaps(&mut self) -> Result<Vec<Gap>, StorageFault> {
        self.reader().gaps().map_err(|e| fault("reading what is missing", e))
    }

    fn fill(&mut self, past: &Past, gaps: &[Gap]) -> Result<(), StorageFault> {
        let mut batch = WriteBatch::default();
        let height = past.certified.header.height;
        self.block_rows(&mut batch, &past.certified, &past.block);
        let actions = past.bodies.iter().map(|(_, body)| &body.action);
        self.add_receipts(&mut batch, actions, &past.receipts);
        self.add_events(&mut batch, height, &past.events);
        self.put_gaps(&mut batch, gaps);
        self.write_later(batch).map_err(|e| fault("writing an older block", e))?;
        self.metrics.missing_blocks.set(gaps.iter().map(Gap::count).sum());
        Ok(())
    }

    fn begin_snapshot(&mut self) -> Result<(), StorageFault> {
        self.wipe_other_leaves(true).map_err(|e| fault("beginning to take in a state", e))?;
        tracing::info!("this node is far behind: it takes in a whole state from the others");
        Ok(())
    }

    fn put_leaves(&mut self, leaves: &[Leaf]) -> Result<(), StorageFault> {
        let table = self.table(self.active.other());
        let mut batch = WriteBatch::default();
        for leaf in leaves {
            batch.put_cf(table, leaf.object.key(), leaf.encode());
        }
        self.write_later(batch).map_err(|e| fault("taking in a state", e))
    }

    fn put_block(&mut self, certified: &CertifiedHeader, block: &Bytes) -> Result<(), StorageFault> {
        let mut batch = WriteBatch::default();
        self.block_rows(&mut batch, certified, block);
        self.write_later(batch).map_err(|e| fault("taking in a block", e))
    }

    fn finish_snapshot(
        &mut self,
        tip: &Tip,
        links: &[ValidatorLink],
        gaps: &[Gap],
    ) -> Result<(), StorageFault> {
        let active = self.active.other();
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_TIP, tip.certified.encode());
        batch.put_cf(self.table(META), KEY_MOUNTAINS, write_mountains(&tip.mountains));
        batch.put_cf(self.table(META), KEY_LEAVES, active.as_bytes());
        for link in links {
            batch.put_cf(self.table(LINKS), height_key(link.certified.header.height), link.encode());
        }
        self.put_gaps(&mut batch, gaps);
        for key in self.proposals.keys() {
            batch.delete_cf(self.table(PROPOSALS), key);
        }
        // The mark that the other table may hold anything stays: that is the old state from now on.
        self.write(batch).map_err(|e| fault("finishing to take in a state", e))?;
        self.proposals.clear();
        self.active.set(active.as_bytes());
        self.wipe_other_leaves(false).map_err(|e| fault("dropping the state before", e))?;
        tracing::info!(height = tip.certified.header.height.0, "a state was taken in whole");
        Ok(())
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
        self.proposals.insert(key, bytes.clone());
        Ok(())
    }

    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault> {
        let round =
            |key: &ProposalKey| read_place(&key[..12]).expect("a proposal's key begins with its place").1;
        Ok(self.undecided_at(height).map(|(key, block)| (round(key), block.clone())).collect())
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

    fn log_truncate(&mut self, bytes: usize) -> Result<(), StorageFault> {
        self.metrics.fsyncs.inc();
        self.votes
            .set_len(bytes as u64)
            .and_then(|()| self.votes.sync_data())
            .map_err(|e| fault("cutting the torn end off the vote log", e))
    }

    fn log_mark(&mut self, height: Height) -> Result<(), StorageFault> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.table(META), KEY_SIGNED, height.0.to_be_bytes());
        self.write(batch).map_err(|e| fault("noting the height of a signature", e))
    }

    fn log_marked(&mut self) -> Result<Height, StorageFault> {
        let doing = "reading the height of the newest signature";
        match self.meta(KEY_SIGNED).map_err(|e| fault(doing, e))? {
            None => Ok(Height(0)),
            Some(bytes) => match bytes[..].try_into() {
                Ok(bytes) => Ok(Height(u64::from_be_bytes(bytes))),
                Err(_) => Err(fault(doing, "it has not 8 bytes")),
            },
        }
    }
}

fn fault(doing: &str, error: impl std::fmt::Display) -> StorageFault {
    StorageFault(format!("{doing}: {error}"))
}

/// Whether a row is not what was written, rather than that it cannot be read at all.
fn is_damage(error: &ReadError) -> bool {
    match error {
        ReadError::Database(error) => error.kind() == ErrorKind::Corruption,
        ReadError::Row(_) | ReadError::Lacks(_) | ReadError::Damaged { .. } => true,
        ReadError::NotYet(_) => false,
    }
}

fn open_error(path: &Path, error: rocksdb::Error) -> OpenError {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::Corruption => OpenError::Damaged { path, error: error.to_string() },
        _ => OpenError::Database { path, error },
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A torn last write is the block that was not acknowledged; damage anywhere before it must stop the node.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // By default each table may hold two buffers of 64 MiB: a node that writes little would grow for hours before
    // it wrote the first of them out. One bound for all tables writes out the table that waited longest.
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    // A table that is seldom written to keeps the log from being cut. It also bounds how much a start reads again.
    options.set_max_total_wal_size(WRITE_LOG_BYTES_MAX);
    options.set_max_log_file_size(OWN_LOG_BYTES_MAX);
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
