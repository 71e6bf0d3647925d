//! A disk in memory that can lose power at any write, and then loses or tears what was not synced.

use std::collections::BTreeMap;

use assent_proto::field::Message;
use assent_proto::{Block, BlockId, CommitCertificate, Event, Hash, Height, Leaf, ObjectRef, Receipt};
use assent_replica::{Commit, Storage, StorageFault, Tip};
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
    proposals: BTreeMap<Height, Vec<(u32, Bytes)>>,
    log: Vec<u8>,
    /// Where each append to the log ended, of those not synced.
    appended: Vec<usize>,
    synced: usize,
    /// Writes until the power goes: the one that it reaches is not done, and nothing after it.
    fuse: Option<u64>,
}

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

const POWER_CUT: &str = "power cut";

impl Disk {
    /// Cuts the power at the `writes`-th write from now.
    pub fn cut_power_after(&mut self, writes: u64) {
        self.fuse = Some(writes);
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
        self
    }

    /// Whether a fault is the power cut.
    pub fn is_power_cut(fault: &StorageFault) -> bool {
        fault.0 == POWER_CUT
    }

    /// The newest committed height.
    pub fn height(&self) -> Height {
        self.tip.as_ref().map_or(Height(0), |t| t.certified.header.height)
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
}

impl Storage for Disk {
    fn tip(&mut self) -> Result<Option<Tip>, StorageFault> {
        Ok(self.tip.clone())
    }

    fn leaves(&mut self, each: &mut dyn FnMut(Leaf)) -> Result<(), StorageFault> {
        self.leaves.values().cloned().for_each(each);
        Ok(())
    }

    fn block(&mut self, height: Height) -> Result<Option<(Bytes, CommitCertificate)>, StorageFault> {
        Ok(self.blocks.get(&height).cloned())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), StorageFault> {
        self.write()?;
        let height = commit.height();
        assert_eq!(height, self.height().next(), "blocks are committed in order, each once");
        assert_eq!(commit.mountains.count(), height.0);
        self.leaves.extend(commit.leaves.iter().map(|l| (l.object, l.clone())));
        self.blocks.insert(height, (commit.block.clone(), commit.certified.certificate.clone()));
        self.outcomes.insert(height, (commit.receipts.clone(), commit.events.clone()));
        self.tip = Some(Tip { certified: commit.certified.clone(), mountains: commit.mountains.clone() });
        self.proposals = self.proposals.split_off(&height.next());
        Ok(())
    }

    fn put_proposal(
        &mut self,
        height: Height,
        round: u32,
        _: &BlockId,
        bytes: &Bytes,
    ) -> Result<(), StorageFault> {
        self.write()?;
        self.proposals.entry(height).or_default().push((round, bytes.clone()));
        Ok(())
    }

    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault> {
        Ok(self.proposals.get(&height).cloned().unwrap_or_default())
    }

    fn log_append(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.write()?;
        self.log.extend_from_slice(bytes);
        self.appended.push(self.log.len());
        Ok(())
    }

    fn log_sync(&mut self) -> Result<(), StorageFault> {
        self.write()?;
        self.synced = self.log.len();
        self.appended.clear();
        Ok(())
    }

    fn log_read(&mut self) -> Result<Vec<u8>, StorageFault> {
        Ok(self.log.clone())
    }

    fn log_reset(&mut self) -> Result<(), StorageFault> {
        self.write()?;
        self.log.clear();
        self.appended.clear();
        self.synced = 0;
        Ok(())
    }
}
