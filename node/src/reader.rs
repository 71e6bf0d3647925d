//! What the public interface reads: final blocks, receipts, events, trails, uses. Reads only, beside the loop.
//!
//! Every answer is of final blocks: the writer's batch makes a block visible whole or not at all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use assent_proto::block::{Block, CertifiedHeader, CommitCertificate, tx_root};
use assent_proto::evidence::{Claim, EventClaim, Evidence, LINKS_MAX, ValidatorLink};
use assent_proto::field::{DecodeError, Message};
use assent_proto::merkle::{self, MerklePath};
use assent_proto::state::object_hash;
use assent_proto::{BodyId, Event, Hash, Header, Height, Leaf, List, ObjectRef, Receipt, wire};
use assent_replica::Gap;
use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode};

use crate::tables::*;

/// The most event leaves kept for proofs, over all cached blocks: 32 bytes each.
const CACHED_LEAVES_MAX: usize = 1 << 20;

/// Why a read failed: the database is damaged or the disk is.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// RocksDB.
    #[error("the database: {0}")]
    Database(#[from] rocksdb::Error),
    /// A row.
    #[error("a row of the database does not decode: {0}")]
    Row(#[from] DecodeError),
    /// A row that another one points to is not there.
    #[error("the database lacks {0}")]
    Lacks(&'static str),
    /// What came of a block is not here yet.
    #[error(
        "block {0} is older than the state that this node joined with, and has not been fetched from the others yet: ask again later, or another node"
    )]
    NotYet(Height),
    /// A row is not what was written.
    #[error(
        "{what} at height {height} is damaged; run `assentd repair --home DIR` if it does not come back by itself"
    )]
    Damaged {
        /// Which height.
        height: Height,
        /// Which row.
        what: &'static str,
    },
}

/// Which of the two tables of leaves holds the state at the tip.
#[derive(Clone, Default)]
pub(crate) struct Active(Arc<AtomicBool>);

impl Active {
    pub(crate) fn table(&self) -> &'static str {
        if self.0.load(Ordering::Acquire) { OTHER_LEAVES } else { LEAVES }
    }

    pub(crate) fn other(&self) -> &'static str {
        if self.0.load(Ordering::Acquire) { LEAVES } else { OTHER_LEAVES }
    }

    pub(crate) fn set(&self, table: &[u8]) {
        self.0.store(table == OTHER_LEAVES.as_bytes(), Ordering::Release);
    }
}

/// A reading handle; a clone shares the caches.
#[derive(Clone)]
pub struct Reader {
    db: Arc<DB>,
    active: Active,
    leaves: Arc<Mutex<LeafCache>>,
}

/// The leaves over which recent blocks' event roots stand.
#[derive(Default)]
struct LeafCache {
    blocks: BTreeMap<Height, Arc<Vec<Hash>>>,
    held: usize,
}

impl Reader {
    pub(crate) fn new(db: Arc<DB>, active: Active) -> Reader {
        Reader { db, active, leaves: Arc::default() }
    }

    /// The newest final height; 0 before the first block.
    pub fn height(&self) -> Result<Height, ReadError> {
        Ok(self.tip()?.map_or(Height(0), |t| t.header.height))
    }

    /// The newest certified header.
    pub fn tip(&self) -> Result<Option<CertifiedHeader>, ReadError> {
        self.get(META, KEY_TIP)?.map(|b| Ok(decode(b)?)).transpose()
    }

    /// A block's bytes with its certificate: just what was committed, or an error.
    pub fn block(&self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, ReadError> {
        let Some(block) = self.block_bytes(height)? else { return Ok(None) };
        let certificate = self.certificate(height)?;
        let damaged = ReadError::Damaged { height, what: "the block" };
        // The id names every byte of the header, and the header every transaction and the parent's certificate.
        let whole = Block::decode(&block).map_err(|_| ReadError::Damaged { height, what: "the block" })?;
        let holds = whole.header.id() == certificate.block
            && whole.header.height == height
            && tx_root(&whole.transactions) == whole.header.tx_root;
        if holds { Ok(Some((block, certificate))) } else { Err(damaged) }
    }

    fn block_bytes(&self, height: Height) -> Result<Option<Bytes>, ReadError> {
        match self.get(BLOCKS, &height_key(height))? {
            Some(key) if key.len() == size_of::<ProposalKey>() => {
                let block = self.get(PROPOSALS, &key)?;
                block.map(Some).ok_or(ReadError::Lacks("a block that was decided"))
            }
            row => Ok(row),
        }
    }

    /// Every change of the validators below a height, in order: what evidence for that height needs.
    pub fn links(&self, below: Height) -> Result<Vec<ValidatorLink>, ReadError> {
        let mut links = Vec::new();
        for row in self.db.iterator_cf(self.table(LINKS), IteratorMode::Start) {
            let (key, value) = row?;
            if key[..] >= height_key(below)[..] {
                break;
            }
            links.push(decode(value.into_vec().into())?);
        }
        Ok(links)
    }

    /// Heights of which events, receipts and uses are not here yet, since this node joined with a later state.
    pub fn gaps(&self) -> Result<Vec<Gap>, ReadError> {
        let Some(bytes) = self.get(META, KEY_GAPS)? else { return Ok(Vec::new()) };
        read_gaps(&bytes).ok_or(ReadError::Lacks("a readable list of what is missing"))
    }

    /// An error while older blocks are missing: what is found nowhere may be in one of them.
    pub fn all_are_here(&self) -> Result<(), ReadError> {
        self.gaps()?.last().map_or(Ok(()), |gap| Err(ReadError::NotYet(gap.to)))
    }

    /// A final header with its certificate.
    pub fn certified(&self, height: Height) -> Result<Option<CertifiedHeader>, ReadError> {
        let Some(header) = self.get(HEADERS, &height_key(height))? else { return Ok(None) };
        let header: Header = decode(header)?;
        Ok(Some(CertifiedHeader { header, certificate: self.certificate(height)? }))
    }

    fn certificate(&self, height: Height) -> Result<CommitCertificate, ReadError> {
        let bytes = self.get(CERTIFICATES, &height_key(height))?;
        Ok(decode(bytes.ok_or(ReadError::Lacks("a certificate"))?)?)
    }

    /// What became of a body.
    pub fn receipt(&self, body: &BodyId) -> Result<Option<Receipt>, ReadError> {
        self.get(RECEIPTS, body.as_bytes())?.map(|b| Ok(decode(b)?)).transpose()
    }

    /// The signed bytes of a transaction.
    pub fn envelope(&self, height: Height, transaction: u32) -> Result<Bytes, ReadError> {
        let block = self.block_bytes(height)?.ok_or(ReadError::Lacks("a block"))?;
        let block = <wire::Block as prost::Message>::decode(block).map_err(|_| DecodeError::Malformed)?;
        let bytes = block.transactions.get(transaction as usize);
        // A copy, so that one envelope does not keep its whole block in memory.
        bytes.map(|b| Bytes::copy_from_slice(b)).ok_or(ReadError::Lacks("a transaction"))
    }

    /// All events of a block.
    pub fn events(&self, height: Height) -> Result<Vec<Event>, ReadError> {
        if self.gaps()?.iter().any(|g| g.holds(height)) {
            return Err(ReadError::NotYet(height));
        }
        let mut events = Vec::new();
        let from = place_key(height, 0);
        for row in self.db.iterator_cf(self.table(EVENTS), IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = row?;
            match read_place(&key) {
                Some((h, _)) if h == height => {
                    for event in in_row(value.into_vec().into())? {
                        events.push(decode(event)?);
                    }
                }
                _ => break,
            }
        }
        Ok(events)
    }

    fn event(&self, height: Height, index: u32) -> Result<Event, ReadError> {
        let (row, within) = event_row(height, index);
        let row = self.get(EVENTS, &row)?.ok_or(ReadError::Lacks("an event"))?;
        let event = in_row(row)?.into_iter().nth(within).ok_or(ReadError::Lacks("an event"))?;
        Ok(decode(event)?)
    }

    /// The first `length` events of a trail.
    pub fn trail(&self, trail: &ObjectRef, length: u64) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::new();
        let from = trail_key(trail, 0);
        let rows = self.db.iterator_cf(self.table(TRAILS), IteratorMode::From(&from, Direction::Forward));
        for row in rows {
            let (key, places) = row?;
            let missing = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(events.len());
            // A row is skipped over only where an older block is missing.
            if missing == 0 || key[..] != trail_key(trail, events.len() as u64) {
                break;
            }
            let places = Places::read(&places).ok_or(ReadError::Lacks("an event's place"))?;
            for index in places.indexes.into_iter().take(missing) {
                events.push(self.event(places.height, index)?);
            }
        }
        match self.gaps()?.last() {
            // The index of a trail is complete once every block is.
            Some(gap) if (events.len() as u64) < length => Err(ReadError::NotYet(gap.to)),
            _ => Ok(events),
        }
    }

    /// Bodies that used the record, permit or product, in chain order, at most `max`.
    ///
    /// As long as older blocks are missing there is no answer: one that lacks uses would look like a whole one.
    pub fn uses(&self, id: &Hash, max: usize) -> Result<Vec<Bytes>, ReadError> {
        self.all_are_here()?;
        let mut bodies = Vec::new();
        let from = use_key(id.as_bytes(), Height(0), 0);
        for row in
            self.db.iterator_cf(self.table(USES), IteratorMode::From(&from, Direction::Forward)).take(max)
        {
            let (key, body) = row?;
            if key.get(..32) != Some(id.as_bytes()) {
                break;
            }
            bodies.push(body.into_vec().into());
        }
        Ok(bodies)
    }

    /// The newest leaf of an object.
    pub fn leaf(&self, object: &ObjectRef) -> Result<Option<Leaf>, ReadError> {
        self.get(self.active.table(), &object.key())?.map(|b| Ok(decode(b)?)).transpose()
    }

    /// Evidence for each event of a transaction, with its signed bytes and, as long as the object has not
    /// changed since, the object after the event.
    pub fn evidence(&self, receipt: &Receipt, envelope: &Bytes) -> Result<Vec<Evidence>, ReadError> {
        let anchor = self.certified(receipt.height)?.ok_or(ReadError::Lacks("a header"))?;
        let leaves = self.event_leaves(receipt.height)?;
        let links: List<ValidatorLink, LINKS_MAX> = self.links(receipt.height)?.try_into()?;
        let mut evidence = Vec::new();
        for index in receipt.first_event..receipt.first_event.saturating_add(receipt.events) {
            if index as usize >= leaves.len() {
                return Err(ReadError::Lacks("an event"));
            }
            let event = self.event(receipt.height, index)?;
            let siblings = merkle::path(&leaves, index as usize);
            let claim = EventClaim {
                path: MerklePath { index, count: leaves.len() as u32, siblings: siblings.try_into()? },
                content: self.content_after(&event)?,
                event,
                envelope: Some(envelope.clone()),
            };
            let claim = Claim::Event(Box::new(claim));
            evidence.push(Evidence { anchor: anchor.clone(), claim, links: links.clone() });
        }
        Ok(evidence)
    }

    fn content_after(&self, event: &Event) -> Result<Option<Bytes>, ReadError> {
        let core = &event.core;
        let leaf = self.leaf(&core.object)?;
        Ok(leaf.map(|l| l.content).filter(|c| object_hash(&core.object, c) == core.object_hash))
    }

    /// The leaves under a block's events root.
    fn event_leaves(&self, height: Height) -> Result<Arc<Vec<Hash>>, ReadError> {
        if let Some(leaves) = self.cache().blocks.get(&height) {
            return Ok(leaves.clone());
        }
        let leaves: Arc<Vec<Hash>> = Arc::new(self.events(height)?.iter().map(Event::leaf).collect());
        self.cache().keep(height, leaves.clone());
        Ok(leaves)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LeafCache> {
        self.leaves.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.db.get_cf(self.table(table), key)?.map(Bytes::from))
    }

    fn table(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every table is opened with the database")
    }
}

fn in_row(row: Bytes) -> Result<Vec<Bytes>, ReadError> {
    read_events(row).ok_or(ReadError::Lacks("a readable row of events"))
}

impl LeafCache {
    /// Adds a block and drops the lowest ones beyond the bound.
    fn keep(&mut self, height: Height, leaves: Arc<Vec<Hash>>) {
        if let Some(old) = self.blocks.insert(height, leaves.clone()) {
            self.held -= old.len();
        }
        self.held += leaves.len();
        while self.held > CACHED_LEAVES_MAX {
            let Some((_, dropped)) = self.blocks.pop_first() else { break };
            self.held -= dropped.len();
        }
    }
}
