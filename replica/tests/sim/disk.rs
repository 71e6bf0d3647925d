//! A disk in memory that loses what was not synced when the power goes, and can lose power at any write.

use std::collections::BTreeMap;

use assent_proto::field::Message;
use assent_proto::{Block, BlockId, CommitCertificate, Hash, Height, Leaf, ObjectRef};
use assent_replica::{Commit, Storage, StorageFault, Tip};
use bytes::Bytes;

/// What one validator has written.
#[derive(Clone, Default)]
pub struct Disk {
    pub tip: Option<Tip>,
    pub leaves: BTreeMap<ObjectRef, Leaf>,
    pub blocks: BTreeMap<Height, (Bytes, CommitCertificate)>,
    proposals: BTreeMap<Height, Vec<(u32, BlockId, Bytes)>>,
    log: Vec<u8>,
    synced: usize,
    /// Writes until the power goes: the one that it reaches is not done, and nothing after it.
    fuse: Option<u64>,
}

const POWER_CUT: &str = "power cut";

impl Disk {
    /// Cuts the power at the `writes`-th write from now.
    pub fn cut_power_after(&mut self, writes: u64) {
        self.fuse = Some(writes);
    }

    /// What is left after the power went.
    pub fn after_power_cut(mut self) -> Disk {
        self.log.truncate(self.synced);
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
        self.tip = Some(Tip { certified: commit.certified.clone(), mountains: commit.mountains.clone() });
        self.proposals = self.proposals.split_off(&height.next());
        Ok(())
    }

    fn put_proposal(
        &mut self,
        height: Height,
        round: u32,
        block: &BlockId,
        bytes: &Bytes,
    ) -> Result<(), StorageFault> {
        self.write()?;
        self.proposals.entry(height).or_default().push((round, *block, bytes.clone()));
        Ok(())
    }

    fn proposals(&mut self, height: Height) -> Result<Vec<(u32, Bytes)>, StorageFault> {
        let kept = self.proposals.get(&height).into_iter().flatten();
        Ok(kept.map(|(round, _, bytes)| (*round, bytes.clone())).collect())
    }

    fn log_append(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.write()?;
        self.log.extend_from_slice(bytes);
        Ok(())
    }

    fn log_sync(&mut self) -> Result<(), StorageFault> {
        self.write()?;
        self.synced = self.log.len();
        Ok(())
    }

    fn log_read(&mut self) -> Result<Vec<u8>, StorageFault> {
        Ok(self.log.clone())
    }

    fn log_reset(&mut self) -> Result<(), StorageFault> {
        self.write()?;
        self.log.clear();
        self.synced = 0;
        Ok(())
    }
}
