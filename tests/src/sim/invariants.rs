//! What must hold after every step, watched from outside: over what machines say to each other and to their
//! clients, and over what is on their disks. Only correct machines are held to it.

use std::collections::{BTreeMap, BTreeSet};

use assent_consensus::ConsensusMessage;
use assent_genesis::Genesis;
use assent_ledger::State;
use assent_proto::envelope::verify;
use assent_proto::event::EventKind;
use assent_proto::field::Message;
use assent_proto::transaction::body_id;
use assent_proto::validators::{Validator, ValidatorSet, VoteKind};
use assent_proto::{
    Address, Block, BlockId, BodyId, CommitCertificate, Envelope, Event, GenesisHash, GrantId, Hash, Height,
    ObjectKind, ObjectRef, Receipt, merkle,
};
use assent_replica::{Commit, PeerMessage};

use super::disk::Disk;
use super::rights::Rights;
use super::workload::Workload;

/// What a validator may sign once for a height and a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signed {
    Proposal,
    Prevote,
    Precommit,
}

/// Whose statement, for which height and round, of which kind.
type Said = (Address, Height, u32, Signed);

/// A machine as far as others' statements are concerned: its address, and its present life if it is honest.
pub type Mind = (Address, Option<u64>);

/// Everything seen so far, and the first thing that was wrong.
pub struct Watch {
    genesis: GenesisHash,
    /// Who votes from which height on.
    sets: BTreeMap<Height, ValidatorSet>,
    /// Block and state root at each height, by the first correct machine that had it.
    chain: BTreeMap<Height, (BlockId, Hash)>,
    /// What each machine has told to be final.
    told: Vec<BTreeMap<Height, BlockId>>,
    said: BTreeMap<Said, Option<BlockId>>,
    /// Which machines have heard of it in which of their lives, while who said it had not lost its power.
    heard: BTreeMap<Said, BTreeSet<(usize, u64)>>,
    /// Who was heard to prevote for what, liars too.
    prevotes: BTreeMap<(Height, u32, BlockId), BTreeSet<Address>>,
    /// What each correct machine has precommitted, by round.
    locks: BTreeMap<(Address, Height), BTreeMap<u32, BlockId>>,
    /// Blocks whose every part was looked at from outside.
    looked_at: BTreeSet<BlockId>,
    /// Heights whose events were read.
    read: BTreeSet<Height>,
    /// Final transactions with their heights and codes: 0 for applied.
    verdicts: BTreeMap<BodyId, (Height, u32)>,
    /// What happened, by kind.
    kinds: BTreeSet<String>,
    /// Uses permitted on each grant, by height.
    permits: BTreeMap<ObjectRef, Vec<Height>>,
    revoked: BTreeMap<ObjectRef, Height>,
    one_time: BTreeSet<ObjectRef>,
    /// Items that are graded anew at most once, to be closed; and when they were.
    closing: BTreeSet<ObjectRef>,
    closed: BTreeMap<ObjectRef, Height>,
    rights: Rights,
    broken: Option<String>,
}

impl Watch {
    /// Over so many machines of a chain.
    pub fn new(machines: usize, genesis: &Genesis) -> Watch {
        Watch {
            genesis: genesis.hash(),
            sets: [(Height(0), genesis.validators().clone())].into(),
            chain: BTreeMap::new(),
            told: vec![BTreeMap::new(); machines],
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            prevotes: BTreeMap::new(),
            locks: BTreeMap::new(),
            looked_at: BTreeSet::new(),
            read: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            kinds: BTreeSet::new(),
            permits: BTreeMap::new(),
            revoked: BTreeMap::new(),
            one_time: BTreeSet::new(),
            closing: BTreeSet::new(),
            closed: BTreeMap::new(),
            rights: Rights::new(genesis.parameters()),
            broken: None,
        }
    }

    /// One more machine is watched.
    pub fn add_machine(&mut self) {
        self.told.push(BTreeMap::new());
    }

    /// Who votes at a height.
    fn validators(&self, height: Height) -> &ValidatorSet {
        let (_, set) = self.sets.range(..=height).next_back().expect("the founding set is there");
        set
    }

    /// How often the set of validators changed.
    pub fn set_changes(&self) -> usize {
        self.sets.len() - 1
    }

    /// Holds the chain to what a workload says of its grants.
    pub fn expect(&mut self, workload: &Workload) {
        self.one_time.extend(workload.one_time.iter().map(|g| ObjectRef::from(*g)));
        self.closing.extend(workload.closing.iter().map(|item| ObjectRef::from(*item)));
        self.rights.expect(workload);
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

    /// The newest final height.
    pub fn newest(&self) -> Height {
        self.chain.keys().next_back().copied().unwrap_or_default()
    }

    /// At which height a transaction became final.
    pub fn height_of(&self, body: &BodyId) -> Option<Height> {
        self.verdicts.get(body).map(|(height, _)| *height)
    }

    /// The newest height that a machine has told of.
    pub fn height(&self, at: usize) -> Height {
        self.told[at].keys().next_back().copied().unwrap_or_default()
    }

    /// A correct machine says that a block is final.
    pub fn committed(&mut self, at: usize, commit: &Commit, state: &State) {
        let (height, id) = (commit.height(), commit.block_id());
        let newest = self.height(at);
        self.must(height == newest.next(), || format!("machine {at} told {height:?} after {newest:?}"));
        self.told[at].insert(height, id);
        self.agree(at, height, (id, commit.state_root()));
        if commit.next_validators.is_some() {
            let next = height.next();
            let set = assent_ledger::validators(state).at(next).clone();
            let first = self.sets.entry(next).or_insert_with(|| set.clone()) == &set;
            self.must(first, || format!("two sets vote at {next:?}"));
        }
        if self.read_outcome(height, &commit.receipts, &commit.events) {
            self.look_at(at, &commit.block, &commit.certified.certificate);
        }
    }

    /// A correct machine says that it has taken in the whole state after a block.
    pub fn joined(&mut self, at: usize, height: Height, block: (BlockId, Hash)) {
        let newest = self.height(at);
        self.must(height > newest, || format!("machine {at} took in {height:?} after {newest:?}"));
        self.told[at].insert(height, block.0);
        self.agree(at, height, block);
    }

    /// What anyone can check of a final block without executing it: its certificate, the one of its parent
    /// that it carries, every signature, and that what protects stands first.
    fn look_at(&mut self, at: usize, bytes: &[u8], certificate: &CommitCertificate) {
        let Ok(block) = Block::decode(bytes) else {
            return self.violated(format!("machine {at} committed what is no block"));
        };
        let (height, id) = (block.header.height, block.header.id());
        if !self.looked_at.insert(id) {
            return;
        }
        let holds = certificate.verify(&self.genesis, self.validators(height), height, &id);
        self.must(holds.is_ok(), || format!("machine {at}: the certificate of {height:?}: {holds:?}"));
        let parent = height.previous().expect("blocks begin at 1");
        let carried = match &block.parent_certificate {
            None => parent == Height(0),
            Some(c) => {
                let set = self.validators(parent);
                c.verify(&self.genesis, set, parent, &block.header.parent).is_ok()
                    && c.hash() == block.header.parent_certificate
            }
        };
        self.must(carried, || format!("machine {at}: {height:?} does not carry its parent's certificate"));
        let txs: Result<Vec<_>, _> = verify(&self.genesis, &block.transactions).into_iter().collect();
        let Ok(txs) = txs else {
            return self.violated(format!("machine {at}: {height:?} holds a bad signature"));
        };
        let protects: Vec<_> = txs.iter().map(|tx| tx.body().action.protects()).collect();
        self.must(protects.is_sorted_by(|a, b| a >= b), || {
            format!("machine {at}: in {height:?} what protects does not stand first")
        });
    }

    /// No two blocks at a height, and equal roots at equal heights.
    fn agree(&mut self, at: usize, height: Height, block: (BlockId, Hash)) {
        let first = *self.chain.entry(height).or_insert(block);
        self.must(first == block, || {
            format!("two blocks at {height:?}: machine {at} holds {block:?}, another {first:?}")
        });
    }

    /// Says whether it was news.
    fn read_outcome(&mut self, height: Height, receipts: &[Receipt], events: &[Event]) -> bool {
        if !self.read.insert(height) {
            return false;
        }
        for r in receipts {
            let before = self.verdicts.insert(r.body, (height, r.code));
            self.must(before.is_none(), || format!("{:?} is final twice", r.body));
        }
        events.iter().for_each(|e| self.read_event(height, e));
        if let Err(what) = self.rights.read(height, events) {
            self.violated(what);
        }
        true
    }

    fn read_event(&mut self, height: Height, event: &Event) {
        self.kinds.insert(format!("{:?}", event.core.kind));
        let items: Vec<_> =
            event.links.iter().map(|l| l.trail).filter(|t| self.closing.contains(t)).collect();
        for item in items {
            if event.core.kind == EventKind::Classified {
                self.closed.entry(item).or_insert(height);
            }
            let closed = self.closed.get(&item).copied();
            self.must(event.core.kind != EventKind::Permitted || closed.is_none(), || {
                format!("{item:?} was used in {height:?}, closed in {closed:?}")
            });
        }
        let grants: Vec<_> =
            event.links.iter().map(|l| l.trail).filter(|t| t.kind == ObjectKind::Grant).collect();
        for grant in grants {
            match event.core.kind {
                EventKind::Permitted => {
                    self.permits.entry(grant).or_default().push(height);
                    let uses = self.permits[&grant].len();
                    let once = self.one_time.contains(&grant);
                    self.must(!once || uses == 1, || {
                        format!("{grant:?} is for one use, permitted {uses} and none given back")
                    });
                    let revoked = self.revoked.get(&grant).copied();
                    self.must(revoked.is_none(), || format!("{grant:?} permitted after {revoked:?}"));
                }
                EventKind::NotDelivered => drop(self.permits.entry(grant).or_default().pop()),
                EventKind::Revoked => {
                    let used = self.permits.get(&grant).and_then(|uses| uses.last()).copied();
                    self.must(used != Some(height), || {
                        format!("{grant:?} was used in {height:?}, which revoked it")
                    });
                    self.revoked.insert(grant, height);
                }
                _ => {}
            }
        }
    }

    /// Somebody, who may lie, says something to others in its own name.
    pub fn overhears(&mut self, author: &Address, message: &PeerMessage) {
        match message {
            PeerMessage::Consensus(ConsensusMessage::Vote(v)) if v.validator == *author => {
                if let Some(id) = v.block.filter(|_| v.kind == VoteKind::Prevote) {
                    self.prevotes.entry((v.height, v.round, id)).or_default().insert(*author);
                }
            }
            // In it stand votes that a liar may have told nobody otherwise.
            PeerMessage::Consensus(ConsensusMessage::Polka(p)) => {
                let heard = self.prevotes.entry((p.height, p.round, p.block)).or_default();
                heard.extend(p.prevotes.iter().map(|v| v.validator));
            }
            _ => {}
        }
    }

    /// Whether a quorum was heard to prevote so; `me` need not be heard.
    fn polka(&self, height: Height, round: u32, id: BlockId, me: &Address) -> bool {
        let set = self.validators(height);
        let heard = self.prevotes.get(&(height, round, id));
        let voted = |a: &Address| a == me || heard.is_some_and(|heard| heard.contains(a));
        let power = |v: &Validator| if voted(&v.address()) { u64::from(v.power) } else { 0 };
        set.is_quorum(set.validators.iter().map(power).sum())
    }

    /// A machine hears what another says in its own name.
    pub fn hears(&mut self, at: usize, life: u64, author: &Address, message: &PeerMessage) {
        let statement = statement(message).filter(|((by, ..), _)| by == author);
        // Of two that contradict each other the first is what must be remembered.
        if let Some((said, _)) = statement.filter(|(said, value)| self.said.get(said) == Some(value)) {
            self.heard.entry(said).or_default().insert((at, life));
        }
    }

    /// Whether whoever asks a quorum is told of a statement of its own: those who might answer in the place of
    /// those who know of it are no quorum together with it.
    fn is_remembered(&self, said: &Said, minds: &[Mind]) -> bool {
        let (me, height, ..) = said;
        let heard = self.heard.get(said);
        let knows = |who: &Address| {
            let known = |(at, (address, life)): (usize, &Mind)| {
                address == who && life.is_some_and(|life| heard.is_some_and(|h| h.contains(&(at, life))))
            };
            minds.iter().enumerate().any(known)
        };
        let set = self.validators(*height);
        let silent = |v: &&Validator| v.address() == *me || !knows(&v.address());
        !set.is_quorum(set.validators.iter().filter(silent).map(|v| u64::from(v.power)).sum())
    }

    /// A correct machine says something to others: it never contradicts what it signed, over restarts too, and
    /// keeps to what it is locked on. Whose disk was replaced, so that it `forgot`, knows what it said before
    /// only from the others: it is held to as much as they remember.
    pub fn says(&mut self, me: &Address, message: &PeerMessage, forgot: Option<&[Mind]>) {
        self.overhears(me, message);
        let Some((said, value)) = statement(message).filter(|((by, ..), _)| by == me) else { return };
        let (author, height, round, signed) = said;
        let first = *self.said.entry(said).or_insert(value);
        let held = forgot.is_none_or(|minds| first == value || self.is_remembered(&said, minds));
        self.must(first == value || !held, || {
            format!("{author} signed two {signed:?} for {height:?} round {round}: {first:?}, {value:?}")
        });
        if let Some(id) = value.filter(|_| held) {
            self.keeps_lock(me, height, round, signed, id, forgot);
        }
    }

    /// Who precommitted a block prevotes for another only after a quorum prevoted for that one, not before its
    /// own precommit's round; and a precommit follows a quorum of prevotes.
    fn keeps_lock(
        &mut self,
        me: &Address,
        height: Height,
        round: u32,
        signed: Signed,
        id: BlockId,
        forgot: Option<&[Mind]>,
    ) {
        match signed {
            Signed::Proposal => {}
            Signed::Precommit => {
                let polka = self.polka(height, round, id, me);
                self.must(polka, || {
                    format!("{me} precommitted at {height:?} round {round} without a quorum")
                });
                self.locks.entry((*me, height)).or_default().insert(round, id);
            }
            Signed::Prevote => {
                let locks = self.locks.get(&(*me, height));
                let newest = locks.and_then(|l| l.range(..round).next_back()).map(|(r, id)| (*r, *id));
                let Some((locked, _)) = newest.filter(|(_, locked)| *locked != id) else { return };
                let precommit = (*me, height, locked, Signed::Precommit);
                let free = (locked..round).any(|r| self.polka(height, r, id, me))
                    || forgot.is_some_and(|minds| !self.is_remembered(&precommit, minds));
                self.must(free, || {
                    format!("{me}, locked in round {locked} of {height:?}, prevoted for another in {round}")
                });
            }
        }
    }

    /// A machine's disk was replaced by one that holds less: what it told is still on the chain, which the
    /// others are held to.
    pub fn replaced(&mut self, at: usize, disk: &Disk) {
        self.told[at].retain(|height, _| *height <= disk.height());
    }

    /// Forgets what was said and told long before a height: for runs longer than memory.
    pub fn forget_below(&mut self, height: Height) {
        self.said.retain(|(_, h, _, _), _| *h >= height);
        self.heard.retain(|(_, h, _, _), _| *h >= height);
        self.locks.retain(|(_, h), _| *h >= height);
        self.prevotes = self.prevotes.split_off(&(height, 0, BlockId(Hash([0; 32]))));
        self.chain = self.chain.split_off(&height);
        self.read = self.read.split_off(&height);
        self.told.iter_mut().for_each(|told| *told = told.split_off(&height));
        self.verdicts.retain(|_, (h, _)| *h >= height);
        self.looked_at.clear();
    }

    /// A correct machine came back: nothing that it acknowledged is missing, and what it had stored without
    /// telling is on the chain.
    pub fn restarted(&mut self, at: usize, disk: &Disk) {
        for (height, id) in self.told[at].clone() {
            let stored = disk.at(height).map(|(id, _)| id);
            let lacks = stored.is_none() && disk.lacks(height);
            self.must(lacks || stored == Some(id), || {
                format!("machine {at} lost {height:?} that it had told")
            });
        }
        for height in (self.height(at).0 + 1..=disk.height().0).map(Height) {
            let Some(block) = disk.at(height) else {
                let gap = disk.lacks(height);
                self.must(gap, || format!("machine {at} has no block at {height:?}"));
                continue;
            };
            self.agree(at, height, block);
            self.told[at].insert(height, block.0);
            let Some((receipts, events)) = disk.outcomes.get(&height) else { continue };
            if self.read_outcome(height, receipts, events) {
                let (bytes, certificate) = &disk.blocks[&height];
                self.look_at(at, bytes, certificate);
            }
        }
    }

    /// What a disk holds in the end: the chain without gaps, each transaction once, leaves that are its state;
    /// each block carries its parent's certificate.
    pub fn check_disk(&mut self, at: usize, disk: &Disk) {
        let (mut seen, mut whole) = (BTreeSet::new(), true);
        for height in (1..=disk.height().0).map(Height) {
            let Some(block) = disk.read(height) else {
                whole = false;
                let gap = disk.lacks(height);
                self.must(gap, || format!("machine {at} has no block at {height:?}"));
                continue;
            };
            self.agree(at, height, (block.header.id(), block.header.state_root));
            for bytes in &block.transactions {
                let envelope = Envelope::decode(bytes).expect("committed");
                let id = body_id(&self.genesis, &envelope.body);
                self.must(seen.insert(id), || format!("machine {at} holds {id:?} twice"));
            }
            let (bytes, certificate) = &disk.blocks[&height];
            self.look_at(at, bytes, certificate);
            if let Some((receipts, events)) = disk.outcomes.get(&height) {
                self.check_outcome_of(at, &block, receipts, events);
            }
        }
        let missing = self.verdicts.keys().find(|id| !seen.contains(id)).copied();
        self.must(missing.is_none() || !whole, || {
            format!("machine {at} lacks {missing:?}, which was acknowledged")
        });
        let stored = assent_ledger::State::from_leaves(disk.leaves.values().cloned()).root();
        let header = disk.at(disk.height()).map(|(_, root)| root);
        self.must(header.is_none_or(|r| r == stored), || {
            format!("machine {at}: the leaves are not the state")
        });
    }

    /// What a disk says came of a block, executed here or fetched, is what its header says and clients were told.
    fn check_outcome_of(&mut self, at: usize, block: &Block, receipts: &[Receipt], events: &[Event]) {
        let height = block.header.height;
        let leaves: Vec<_> = events.iter().map(Event::leaf).collect();
        self.must(merkle::root(&leaves) == block.header.events_root, || {
            format!("machine {at} holds other events of {height:?} than its header's")
        });
        let told = |r: &Receipt| self.verdicts.get(&r.body) == Some(&(height, r.code));
        let same = receipts.len() == block.transactions.len() && receipts.iter().all(told);
        self.must(same, || format!("machine {at} holds other receipts of {height:?} than were told"));
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

    /// What must have come of the races of the whole decision.
    pub fn check_races(&mut self, w: &Workload) {
        let at = |id: &BodyId, watch: &Watch| watch.verdicts.get(id).copied();
        for id in &w.applied {
            let came = at(id, self);
            self.must(came.is_some_and(|(_, code)| code == 0), || {
                format!("{id:?} was not applied: {came:?}")
            });
        }
        for (proposal, id, why) in &w.if_moved {
            let moved = at(proposal, self).is_some_and(|(_, code)| code == 0);
            let (came, due) = (at(id, self), why.map_or(0, |denial| denial.number()));
            self.must(!moved || came.is_some_and(|(_, code)| code == due), || {
                format!("{id:?} should be {why:?} after {proposal:?}: {came:?}")
            });
        }
        for (id, why) in &w.denied_as {
            let came = at(id, self);
            let so = came.is_some_and(|(_, code)| code == why.number());
            self.must(so, || format!("{id:?} was not denied as {}: {came:?}", why.name()));
        }
        let applied = |id: &BodyId, watch: &Watch| at(id, watch).is_some_and(|(_, code)| code == 0);
        for (one, other) in &w.rivals {
            let both = applied(one, self) && applied(other, self);
            self.must(!both, || format!("{one:?} and {other:?} were both applied"));
        }
        for (one, other) in &w.alike {
            let same = applied(one, self) == applied(other, self);
            self.must(same, || format!("of {one:?} and {other:?} one was applied"));
        }
        for (old, by) in w.replaced.iter().chain(&w.retired) {
            let (came, gone) = (at(old, self), at(by, self).map(|(height, _)| height));
            let above = came.is_some_and(|(height, _)| gone.is_some_and(|gone| height > gone));
            self.must(!above, || format!("{old:?} by a key that was gone since {gone:?}: {came:?}"));
        }
        for (old, by) in &w.replaced {
            let (came, gone) = (at(old, self), at(by, self).map(|(height, _)| height));
            let beside = came.is_some_and(|(height, code)| Some(height) == gone && code == 0);
            self.must(!beside, || format!("{old:?} by a key that was replaced in its block: {came:?}"));
        }
    }

    /// How many uses were permitted.
    pub fn permitted(&self) -> usize {
        self.permits.values().map(Vec::len).sum()
    }

    /// How many transactions were denied.
    pub fn denied(&self) -> usize {
        self.verdicts.values().filter(|(_, code)| *code != 0).count()
    }

    /// The kinds of events that there were.
    pub fn kinds(&self) -> &BTreeSet<String> {
        &self.kinds
    }
}

/// What somebody states, and for which block.
fn statement(message: &PeerMessage) -> Option<(Said, Option<BlockId>)> {
    let PeerMessage::Consensus(message) = message else { return None };
    let (author, signed, value) = match message {
        ConsensusMessage::Vote(v) if v.kind == VoteKind::Prevote => (v.validator, Signed::Prevote, v.block),
        ConsensusMessage::Vote(v) => (v.validator, Signed::Precommit, v.block),
        ConsensusMessage::Proposal(p) => (p.proposer, Signed::Proposal, Some(p.header.id())),
        _ => return None,
    };
    Some(((author, message.height(), message.round(), signed), value))
}
