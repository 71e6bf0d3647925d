//! A disk in memory that can lose power at any write, and then loses or tears what was not synced; whose syncs
//! take time; and whose bits flip. Each value is kept with a checksum, as a database keeps its blocks: what was
//! damaged is not handed out. The vote log is a plain file: consensus has to find the damage itself.

use std::collections::BTreeMap;

use assent_proto::evidence::ValidatorLink;
use assent_proto::field::Message;
use assent_proto::{
    Block, BlockId, CertifiedHeader, CommitCertificate, Event, Hash, Height, Leaf, ObjectRef, Receipt,
};
use assent_replica::{Commit, Gap, Past, Storage, StorageFault, Tip};
use bytes::Bytes;

use super::Random;

/// What one validator has written.
#[derive(Clone, Default)]
pub struct Disk {
    /// The newest final block.
    pub tip: Option<Tip>,
    /// The state at the tip.
    pub leaves: BTreeMap<ObjectRef, Leaf>,
    /// All final blocks.
    pub blocks: BTreeMap<Height, (Bytes, CommitCertificate)>,
    /// What came of each block's transactions.
    pub outcomes: BTreeMap<Height, (Vec<Receipt>, Vec<Event>)>,
    /// Every change of the validators.
    pub links: Vec<ValidatorLink>,
    /// Heights of which something is missing.
    pub gaps: Vec<Gap>,
    /// The state that is being taken in, if one is.
    pub staged: Option<BTreeMap<ObjectRef, Leaf>>,
    /// How long a sync takes, ms.
    pub sync_ms: u64,
    /// Only so many of the newest blocks are kept, if said: for runs longer than memory.
    pub keep: Option<u64>,
    proposals: BTreeMap<Height, Vec<(u32, Bytes, Sum)>>,
    sums: BTreeMap<Place, Sum>,
    log: Vec<u8>,
    /// Where each append to the log ended, of those not synced.
    appended: Vec<usize>,
    synced: usize,
    /// The height that was noted as signed at, outside the log.
    marked: Height,
    /// Writes until the power goes: the one that it reaches is not done, and nothing after it.
    fuse: Option<u64>,
    spent_ms: u64,
}

/// Where a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Block(Height),
    Leaf(ObjectRef),
}

/// A checksum.
type Sum = [u8; 8];

/// What becomes of the writes to the vote log that were not synced when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All are lost.
    Lost,
    /// So many of the writes happen to be there, whole.
    Some,
    /// The last one that is there is cut somewhere, or holds zeros.
    Torn,
}

/// Where a bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rot {
    /// In a final block.
    Block,
    /// In a leaf of the state.
    Leaf,
    /// In the body of a proposal of the height at work.
    Proposal,
    /// In the vote log.
    Log,
}

impl Rot {
    /// All of them.
    pub const ALL: [Rot; 4] = [Rot::Block, Rot::Leaf, Rot::Proposal, Rot::Log];
}

const POWER_CUT: &str = "power cut";

impl Disk {
    /// Cuts the power at the `writes`-th write from now.
    pub fn cut_power_after(&mut self, writes: u64) {
        self.fuse = Some(writes);
    }

    /// A disk like `old`, with what a copy holds or with nothing.
    pub fn in_place_of(old: &Disk, copy: Option<Disk>) -> Disk {
        let (sync_ms, keep) = (old.sync_ms, old.keep);
        Disk { sync_ms, keep, fuse: None, spent_ms: 0, ..copy.unwrap_or_default() }
    }

    /// What is left after the power went.
    pub fn after_power_cut(mut self, unsynced: Unsynced, random: &mut Random) -> Disk {
        let end = match unsynced {
            Unsynced::Lost => self.synced,
            Unsynced::Some => {
                let ends = [&[self.synced], &self.appended[..]].concat();
                random.pick(&ends)
            }
            Unsynced::Torn => self.synced + random.below((self.log.len() - self.synced) as u64 + 1) as usize,
        };
        self.log.truncate(end);
        if unsynced == Unsynced::Torn && end > self.synced && random.chance(300) {
            let from = self.synced + random.below((end - self.synced) as u64) as usize;
            self.log[from..].fill(0);
        }
        self.synced = end;
        self.appended.clear();
        self.fuse = None;
        self.spent_ms = 0;
        self.staged = None;
        self
    }

    /// Flips a bit, if there is something in that place; says whether.
    pub fn rot(&mut self, what: Rot, random: &mut Random) -> bool {
        let flip = |bytes: &[u8], random: &mut Random| {
            let mut bytes = bytes.to_vec();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            bytes
        };
        match what {
            Rot::Block => {
                let n = self.blocks.len() as u64;
                // One of the newest: old ones may never be read again.
                let back = random.below(n.clamp(1, 8));
                let Some((bytes, _)) = self.blocks.values_mut().nth_back(back as usize) else { return false };
                *bytes = flip(bytes, random).into();
            }
            Rot::Leaf => {
                // Some leaves have no content.
                let full: Vec<_> = self.leaves.values_mut().filter(|leaf| !leaf.content.is_empty()).collect();
                let at = random.below(full.len().max(1) as u64) as usize;
                let Some(leaf) = full.into_iter().nth(at) else { return false };
                leaf.content = flip(&leaf.content, random).into();
            }
            Rot::Proposal => {
                let Some((_, bytes, _)) = self.proposals.values_mut().flatten().next_back() else {
                    return false;
                };
                *bytes = flip(bytes, random).into();
            }
            Rot::Log if self.log.is_empty() => return false,
            Rot::Log => self.log = flip(&self.log, random),
        }
        true
    }

    /// Whether a fault is the power cut.
    pub fn is_power_cut(fault: &StorageFault) -> bool {
        fault.0 == POWER_CUT
    }

    /// How long writes have taken since this was asked last, ms.
    pub fn take_spent(&mut self) -> u64 {
        std::mem::take(&mut self.spent_ms)
    }

    /// The newest committed height.
    pub fn height(&self) -> Height {
        self.tip.as_ref().map_or(Height(0), |t| t.certified.header.height)
    }

    /// Whether it is told to lack what a height left behind: it joined by a later state.
    pub fn lacks(&self, height: Height) -> bool {
        self.gaps.iter().any(|gap| gap.holds(height))
    }

    /// Block id and state root at a height.
    pub fn at(&self, height: Height) -> Option<(BlockId, Hash)> {
        let block = self.read(height)?;
        Some((block.header.id(), block.header.state_root))
    }

    /// A committed block.
    pub fn read(&self, height: Height) -> Option<Block> {
        self.blocks.get(&height).map(|(bytes, _)| Block::decode(bytes).expect("a stored block decodes"))
    }

    fn write(&mut self) -> Result<(), StorageFault> {
        match &mut self.fuse {
            Some(0) => return Err(StorageFault(POWER_CUT.into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn synced_write(&mut self) -> Result<(), StorageFault> {
        self.write()?;
        self.spent_ms += self.sync_ms;
        Ok(())
    }

    fn keep_block(&mut self, certified: &CertifiedHeader, block: &Bytes) {
        let height = certified.header.height;
        self.sums.insert(Place::Block(height), sum(block));
        self.blocks.insert(height, (block.clone(), certified.certificate.clone()));
    }

    fn check(&self, place: Place, bytes: &[u8]) -> Result<(), StorageFault> {
        match self.sums.get(&place) {
            Some(kept) if *kept == sum(bytes) => Ok(()),
            _ => Err(mismatch(&format!("{place:?}"))),
        }
    }

    fn forget_old(&mut self, height: Height) {
        let Some(keep) = self.keep.filter(|keep| height.0 > *keep) else { return };
        let first = Height(height.0 - keep);
        self.blocks = self.blocks.split_off(&first);
        self.outcomes = self.outcomes.split_off(&first);
        self.sums.remove(&Place::Block(Height(first.0 - 1)));
    }
}

fn sum(bytes: &[u8]) -> Sum {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

fn mismatch(place: &str) -> StorageFault {
    StorageFault(format!("the checksum of {place} does not hold"))
}

impl Storage for Disk {
    fn tip(&mut self) -> Result<Option<Tip>, StorageFault> {
        Ok(self.tip.clone())
    }

    fn leaves(&mut self, each: &mut dyn FnMut(Leaf)) -> Result<(), StorageFault> {
        for leaf in self.leaves.values() {
            self.check(Place::Leaf(leaf.object), &leaf.encode())?;
            each(leaf.clone());
        }
        Ok(())
    }

    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault> {
        let Some((bytes, certificate)) = self.blocks.get(&height) else { return Ok(None) };
        // What is damaged is as good as missing.
        let whole = self.check(Place::Block(height), bytes).is_ok();
        Ok(whole.then(|| (bytes.clone(), certificate.clone())))
    }

    fn events(&mut self, height: Height) -> Result<Option<Vec<Event>>, StorageFault> {
        Ok(self.outcomes.get(&height).map(|(_, events)| events.clone()))
    }

    fn links(&mut self) -> Result<Vec<ValidatorLink>, StorageFault> {
        Ok(self.links.clone())
    }

    fn gaps(&mut self) -> Result<Vec<Gap>, StorageFault> {
        Ok(self.gaps.clone())
    }

    fn fill(&mut self, past: &Past, gaps: &[Gap]) -> Result<(), StorageFault> {
        self.write()?;
        self.keep_block(&past.certified, &past.block);
        let outcome = (past.receipts.clone(), past.events.clone());
        self.outcomes.insert(past.certified.header.height, outcome);
        self.gaps = gaps.to_vec();
        Ok(())
    }

    fn begin_snapshot(&mut self) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.staged = Some(BTreeMap::new());
        Ok(())
    }

    fn put_leaves(&mut self, leaves: &[Leaf]) -> Result<(), StorageFault> {
        self.write()?;
        let staged = self.staged.as_mut().expect("a snapshot was begun");
        staged.extend(leaves.iter().map(|l| (l.object, l.clone())));
        Ok(())
    }

    fn put_block(&mut self, certified: &CertifiedHeader, block: &Bytes) -> Result<(), StorageFault> {
        self.write()?;
        self.keep_block(certified, block);
        Ok(())
    }

    fn finish_snapshot(
        &mut self,
        tip: &Tip,
        links: &[ValidatorLink],
        gaps: &[Gap],
    ) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.leaves = self.staged.take().expect("a snapshot was begun");
        for leaf in self.leaves.values() {
            self.sums.insert(Place::Leaf(leaf.object), sum(&leaf.encode()));
        }
        self.tip = Some(tip.clone());
        self.links = links.to_vec();
        self.gaps = gaps.to_vec();
        self.proposals.clear();
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StorageFault> {
        self.synced_write()?;
        let height = commit.height();
        assert_eq!(height, self.height().next(), "blocks are committed in order, each once");
        assert_eq!(commit.mountains.count(), height.0);
        for leaf in &commit.leaves {
            self.sums.insert(Place::Leaf(leaf.object), sum(&leaf.encode()));
            self.leaves.insert(leaf.object, leaf.clone());
        }
        for object in &commit.removed {
            self.sums.remove(&Place::Leaf(*object));
            self.leaves.remove(object);
        }
        self.keep_block(&commit.certified, &commit.block);
        if let Some(next) = &commit.next_validators {
            self.links.push(ValidatorLink { certified: commit.certified.clone(), next: next.clone() });
        }
        self.outcomes.insert(height, (commit.receipts.clone(), commit.events.clone()));
        self.tip = Some(Tip { certified: commit.certified.clone(), mountains: commit.mountains.clone() });
        self.proposals = self.proposals.split_off(&height.next());
        self.forget_old(height);
        Ok(())
    }

    fn put_proposal(
        &mut self,
        height: Height,
        round: u32,
        _: &BlockId,
        bytes: &Bytes,
    ) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.proposals.entry(height).or_default().push((round, bytes.clone(), sum(bytes)));
        Ok(())
    }

    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault> {
        let kept = self.proposals.get(&height).into_iter().flatten();
        let checked = |(round, bytes, kept): &(u32, Bytes, Sum)| {
            if *kept == sum(bytes) { Ok((*round, bytes.clone())) } else { Err(mismatch("a proposal")) }
        };
        kept.map(checked).collect()
    }

    fn log_append(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.write()?;
        self.log.extend_from_slice(bytes);
        self.appended.push(self.log.len());
        Ok(())
    }

    fn log_sync(&mut self) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.synced = self.log.len();
        self.appended.clear();
        Ok(())
    }

    fn log_read(&mut self) -> Result<Vec<u8>, StorageFault> {
        Ok(self.log.clone())
    }

    fn log_reset(&mut self) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.log.clear();
        self.appended.clear();
        self.synced = 0;
        Ok(())
    }

    fn log_truncate(&mut self, bytes: usize) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.log.truncate(bytes);
        self.appended.clear();
        self.synced = self.log.len();
        Ok(())
    }

    fn log_mark(&mut self, height: Height) -> Result<(), StorageFault> {
        self.synced_write()?;
        self.marked = height;
        Ok(())
    }

    fn log_marked(&mut self) -> Result<Height, StorageFault> {
        Ok(self.marked)
    }
}
