//! What must hold after every step, watched from outside: over what machines say to each other and to their
//! clients, and over what is on their disks. Only correct machines are held to it.

use std::collections::{BTreeMap, BTreeSet};

use assent_consensus::ConsensusMessage;
use assent_proto::event::EventKind;
use assent_proto::field::Message;
use assent_proto::transaction::body_id;
use assent_proto::validators::VoteKind;
use assent_proto::{
    Address, BlockId, BodyId, Envelope, Event, GenesisHash, GrantId, Hash, Height, ObjectKind, ObjectRef,
    Receipt,
};
use assent_replica::{Commit, PeerMessage};

use super::disk::Disk;
use super::workload::Workload;

/// What a validator may sign once for a height and a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signed {
    Proposal,
    Prevote,
    Precommit,
}

/// Everything seen so far, and the first thing that was wrong.
#[derive(Default)]
pub struct Watch {
    /// Block and state root at each height, by the first correct machine that had it.
    chain: BTreeMap<Height, (BlockId, Hash)>,
    /// What each machine has told to be final.
    told: Vec<BTreeMap<Height, BlockId>>,
    said: BTreeMap<(Address, Height, u32, Signed), Option<BlockId>>,
    /// Heights whose events were read.
    read: BTreeSet<Height>,
    /// Final transactions with their codes: 0 for applied.
    verdicts: BTreeMap<BodyId, u32>,
    /// Uses permitted on each grant, by height.
    permits: BTreeMap<ObjectRef, Vec<Height>>,
    revoked: BTreeMap<ObjectRef, Height>,
    one_time: BTreeSet<ObjectRef>,
    broken: Option<String>,
}

impl Watch {
    /// Over so many machines.
    pub fn new(machines: usize) -> Watch {
        Watch { told: vec![BTreeMap::new(); machines], ..Watch::default() }
    }

    /// Holds the chain to what a workload says of its grants.
    pub fn expect(&mut self, workload: &Workload) {
        self.one_time.extend(workload.one_time.iter().map(|g| ObjectRef::from(*g)));
    }

    /// The first thing that was wrong.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Something was wrong.
    pub fn violated(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    /// Whether a client was told that its transaction is final.
    pub fn is_final(&self, body: &BodyId) -> bool {
        self.verdicts.contains_key(body)
    }

    /// The newest height that a machine has told of.
    pub fn height(&self, at: usize) -> Height {
        self.told[at].keys().next_back().copied().unwrap_or_default()
    }

    /// A correct machine says that a block is final.
    pub fn committed(&mut self, at: usize, commit: &Commit) {
        let (height, id) = (commit.height(), commit.block_id());
        let newest = self.height(at);
        self.must(height == newest.next(), || format!("machine {at} told {height:?} after {newest:?}"));
        self.told[at].insert(height, id);
        self.agree(at, height, (id, commit.state_root()));
        self.read_outcome(height, &commit.receipts, &commit.events);
    }

    /// No two blocks at a height, and equal roots at equal heights.
    fn agree(&mut self, at: usize, height: Height, block: (BlockId, Hash)) {
        let first = *self.chain.entry(height).or_insert(block);
        self.must(first == block, || {
            format!("two blocks at {height:?}: machine {at} holds {block:?}, another {first:?}")
        });
    }

    fn read_outcome(&mut self, height: Height, receipts: &[Receipt], events: &[Event]) {
        if !self.read.insert(height) {
            return;
        }
        for r in receipts {
            let before = self.verdicts.insert(r.body, r.code);
            self.must(before.is_none(), || format!("{:?} is final twice", r.body));
        }
        events.iter().for_each(|e| self.read_event(height, e));
    }

    fn read_event(&mut self, height: Height, event: &Event) {
        let grants: Vec<_> =
            event.links.iter().map(|l| l.trail).filter(|t| t.kind == ObjectKind::Grant).collect();
        for grant in grants {
            match event.core.kind {
                EventKind::Permitted => {
                    self.permits.entry(grant).or_default().push(height);
                    let uses = self.permits[&grant].len();
                    let once = self.one_time.contains(&grant);
                    self.must(!once || uses == 1, || format!("{grant:?} is for one use, permitted {uses}"));
                    let revoked = self.revoked.get(&grant).copied();
                    self.must(revoked.is_none(), || format!("{grant:?} permitted after {revoked:?}"));
                }
                EventKind::Revoked => {
                    self.revoked.insert(grant, height);
                }
                _ => {}
            }
        }
    }

    /// A correct machine says something to others: it never contradicts what it signed, over restarts too.
    pub fn says(&mut self, me: &Address, message: &PeerMessage) {
        let PeerMessage::Consensus(message) = message else { return };
        let (signed, author, value) = match message {
            ConsensusMessage::Vote(v) if v.kind == VoteKind::Prevote => {
                (Signed::Prevote, v.validator, v.block)
            }
            ConsensusMessage::Vote(v) => (Signed::Precommit, v.validator, v.block),
            ConsensusMessage::Proposal(p) => (Signed::Proposal, p.proposer, Some(p.header.id())),
            _ => return,
        };
        if author != *me {
            return;
        }
        let (height, round) = (message.height(), message.round());
        let first = *self.said.entry((author, height, round, signed)).or_insert(value);
        self.must(first == value, || {
            format!("{author} signed two {signed:?} for {height:?} round {round}: {first:?}, {value:?}")
        });
    }

    /// A correct machine came back: nothing that it acknowledged is missing, and what it had stored without
    /// telling is on the chain.
    pub fn restarted(&mut self, at: usize, disk: &Disk) {
        for (height, id) in self.told[at].clone() {
            let stored = disk.at(height).map(|(id, _)| id);
            self.must(stored == Some(id), || format!("machine {at} lost {height:?} that it had told"));
        }
        for height in (self.height(at).0 + 1..=disk.height().0).map(Height) {
            let Some(block) = disk.at(height) else {
                return self.violated(format!("machine {at} has no block at {height:?}"));
            };
            self.agree(at, height, block);
            self.told[at].insert(height, block.0);
            let (receipts, events) = &disk.outcomes[&height];
            self.read_outcome(height, receipts, events);
        }
    }

    /// What a disk holds in the end: the chain without gaps, each transaction once, leaves that are its state.
    pub fn check_disk(&mut self, at: usize, genesis: &GenesisHash, disk: &Disk) {
        let mut seen = BTreeSet::new();
        for height in (1..=disk.height().0).map(Height) {
            let Some(block) = disk.read(height) else {
                return self.violated(format!("machine {at} has no block at {height:?}"));
            };
            self.agree(at, height, (block.header.id(), block.header.state_root));
            for bytes in &block.transactions {
                let envelope = Envelope::decode(bytes).expect("committed");
                let id = body_id(genesis, &envelope.body);
                self.must(seen.insert(id), || format!("machine {at} holds {id:?} twice"));
            }
        }
        let missing = self.verdicts.keys().find(|id| !seen.contains(id)).copied();
        self.must(missing.is_none(), || format!("machine {at} lacks {missing:?}, which was acknowledged"));
        let stored = assent_ledger::State::from_leaves(disk.leaves.values().cloned()).root();
        let header = disk.at(disk.height()).map(|(_, root)| root);
        self.must(header.is_none_or(|r| r == stored), || {
            format!("machine {at}: the leaves are not the state")
        });
    }

    /// What must have come of a workload whose every transaction is final.
    pub fn check_outcome(&mut self, workload: &Workload) {
        let uses = |w: &Watch, g: &GrantId| w.permits.get(&ObjectRef::from(*g)).map_or(0, Vec::len);
        for grant in &workload.used_up {
            let n = uses(self, grant);
            self.must(n == 1, || format!("{grant:?} was used twice at once and permitted {n} times"));
        }
        for grant in &workload.born_revoked {
            let n = uses(self, grant);
            self.must(n == 0, || format!("{grant:?} was revoked before it was made and permitted {n} times"));
        }
    }

    /// How many uses were permitted.
    pub fn permitted(&self) -> usize {
        self.permits.values().map(Vec::len).sum()
    }

    /// How many transactions were denied.
    pub fn denied(&self) -> usize {
        self.verdicts.values().filter(|code| **code != 0).count()
    }
}
