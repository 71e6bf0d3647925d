//! What the database keeps: everything that a block leaves behind, whole or not at all (R29).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use assent_genesis::testing;
use assent_ledger::testing::{Four, Party, Scene, World};
use assent_node::metrics::Metrics;
use assent_node::reader::{ReadError, Reader};
use assent_node::repair::{REPORT, RepairError, repair};
use assent_node::store::{DATABASE, OpenError, Store};
use assent_proto::block::{PROTOCOL_OLDEST, tx_root};
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::state::Permit;
use assent_proto::transaction::{
    ActivityKind, Category, Deliver, Level, Opening, Product, RecordActivity, RegisterItem, RequestAccess,
};
use assent_proto::{
    Action, Address, ArtifactId, Block, BlockId, CertifiedHeader, CommitCertificate, GenesisHash, Hash,
    Header, Height, ItemId, Leaf, List, ObjectRef, PermitId, VerifiedTx,
};
use assent_replica::{Commit, Gap, Past, Storage, Tip};
use bytes::Bytes;

fn open(home: &Path, genesis: &GenesisHash) -> Store {
    Store::open(home, genesis, Metrics::new().0).unwrap()
}

/// Blocks whose transactions and events are a real ledger's; the certificates are empty, since storage does
/// not look into them.
struct Blocks {
    world: World,
    four: Four,
    mountains: Mountains,
    parent: BlockId,
    next_code: u32,
}

impl Blocks {
    fn new() -> Blocks {
        let (world, four) = World::four();
        Blocks::after(world, four)
    }

    fn after(world: World, four: Four) -> Blocks {
        let parent = BlockId(world.genesis().0);
        Blocks { world, four, mountains: Mountains::default(), parent, next_code: 1 }
    }

    fn next(&mut self, transactions: u32) -> Commit {
        let txs: Vec<_> = (0..transactions).map(|_| self.transaction()).collect();
        self.block(txs)
    }

    fn block(&mut self, txs: Vec<VerifiedTx>) -> Commit {
        let at = self.world.next();
        let applied = self.world.apply(&txs).unwrap();
        let transactions: Vec<Bytes> = txs.iter().map(|t| t.bytes().clone()).collect();
        let header = Header {
            version: PROTOCOL_OLDEST,
            genesis: *self.world.genesis(),
            height: at.height,
            parent: self.parent,
            time: at.time,
            builder: Address([1; 20]),
            tx_root: tx_root(&transactions),
            body_bytes: transactions.iter().map(|t| t.len() as u32).sum(),
            events_root: applied.events_root,
            history_root: self.mountains.root(),
            state_root: applied.state.root(),
            validators: Hash::ZERO,
            next_validators: Hash::ZERO,
            parent_certificate: Hash::ZERO,
        };
        let id = header.id();
        self.mountains.push(&id.0);
        self.parent = id;
        let certificate =
            CommitCertificate { height: at.height, round: 0, block: id, signatures: List::empty() };
        let block = Block { header: header.clone(), transactions, parent_certificate: None }.encode();
        let commit = Commit {
            certified: CertifiedHeader { header, certificate },
            block,
            receipts: applied.receipts,
            events: applied.events,
            leaves: applied.changes,
            removed: applied.removed,
            mountains: self.mountains.clone(),
            txs: txs.clone(),
            next_validators: None,
        };
        self.world.block(txs).unwrap();
        commit
    }

    fn transaction(&mut self) -> VerifiedTx {
        self.next_code += 1;
        let (category, level, opening) = (Category::TestResult, Level::High, Opening::Prohibited);
        let code = self.next_code;
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients: List::empty() };
        self.world.sign(&self.four.hospital_a, Action::RegisterItem(item))
    }
}

/// Everything that the reader can say of a block is what was committed.
fn holds(reader: &Reader, commit: &Commit) {
    let height = commit.height();
    assert_eq!(reader.certified(height).unwrap().as_ref(), Some(&commit.certified));
    let (block, certificate) = reader.block(height).unwrap().unwrap();
    assert_eq!((&block, &certificate), (&commit.block, &commit.certified.certificate));
    assert_eq!(reader.events(height).unwrap(), commit.events);
    for (receipt, tx) in commit.receipts.iter().zip(&commit.txs) {
        assert_eq!(reader.receipt(&receipt.body).unwrap().as_ref(), Some(receipt));
        assert_eq!(&reader.envelope(height, receipt.transaction).unwrap(), tx.bytes());
    }
    for event in &commit.events {
        for link in &event.links {
            let trail = reader.trail(&link.trail, link.index + 1).unwrap();
            assert_eq!(trail.last(), Some(event));
            assert_eq!(trail.len() as u64, link.index + 1);
        }
    }
}

/// Nothing of a block is there.
fn lacks(reader: &Reader, commit: &Commit) {
    let height = commit.height();
    assert!(reader.certified(height).unwrap().is_none());
    assert!(reader.block(height).unwrap().is_none());
    assert!(reader.events(height).unwrap().is_empty());
    for receipt in &commit.receipts {
        assert!(reader.receipt(&receipt.body).unwrap().is_none());
    }
    for leaf in &commit.leaves {
        assert_ne!(reader.leaf(&leaf.object).unwrap().as_ref(), Some(leaf));
    }
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = [3, 0, 7].map(|n| blocks.next(n)).into();
    {
        let mut store = open(home.path(), &genesis);
        assert!(store.tip().unwrap().is_none());
        for commit in &commits {
            store.commit(commit).unwrap();
            assert_eq!(store.tip().unwrap().unwrap().certified, commit.certified);
            holds(&store.reader(), commit);
        }
    }
    let mut store = open(home.path(), &genesis);
    let tip = store.tip().unwrap().unwrap();
    assert_eq!(tip.certified, commits[2].certified);
    assert_eq!(tip.mountains, commits[2].mountains);
    commits.iter().for_each(|c| holds(&store.reader(), c));
    let mut leaves = Vec::new();
    store.leaves(&mut |l| leaves.push(l)).unwrap();
    for leaf in commits.iter().flat_map(|c| &c.leaves) {
        assert!(leaves.iter().any(|l| l.object == leaf.object));
    }
    let item = ObjectRef::from(ItemId::of(2, 1));
    assert_eq!(store.reader().leaf(&item).unwrap(), blocks.world.state().get(&item));
}

/// A torn write-ahead log, cut at many places, gives some whole prefix of the chain and nothing of the rest.
#[test]
fn a_crash_at_any_byte_leaves_the_last_whole_block() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = (1..=4).map(|n| blocks.next(n)).collect();
    let mut store = open(home.path(), &genesis);
    commits.iter().for_each(|c| store.commit(c).unwrap());
    // The process that dies does not close its database: copy it while it is open.
    let log = write_ahead_log(&home.path().join(DATABASE));
    let length = fs::metadata(&log).unwrap().len();
    let mut heights = std::collections::BTreeSet::new();
    for cut in (0..=length).rev().step_by(usize::try_from(length / 40).unwrap().max(1)) {
        let crashed = tempfile::tempdir().unwrap();
        copy(&home.path().join(DATABASE), &crashed.path().join(DATABASE));
        let torn = write_ahead_log(&crashed.path().join(DATABASE));
        fs::OpenOptions::new().write(true).open(torn).unwrap().set_len(cut).unwrap();
        let mut store = open(crashed.path(), &genesis);
        let tip = store.tip().unwrap();
        let height = tip.as_ref().map_or(0, |t| t.certified.header.height.0) as usize;
        if let Some(tip) = tip {
            assert_eq!(tip.certified, commits[height - 1].certified);
            assert_eq!(tip.mountains, commits[height - 1].mountains);
        }
        commits[..height].iter().for_each(|c| holds(&store.reader(), c));
        commits[height..].iter().for_each(|c| lacks(&store.reader(), c));
        heights.insert(height);
    }
    assert_eq!(heights, (0..=4).collect(), "the cuts fell into every block");
    drop(store);
}

fn write_ahead_log(database: &Path) -> std::path::PathBuf {
    let logs = fs::read_dir(database).unwrap().map(|e| e.unwrap().path());
    let mut logs: Vec<_> = logs.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    logs.pop().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// R24, R5: what used a record, a permit and a product is found in chain order; a denied request used nothing.
#[test]
fn uses_are_found_in_chain_order() {
    let home = tempfile::tempdir().unwrap();
    let mut scene = Scene::new();
    let insurer = scene.four.insurer.clone();
    let grant = scene.grant(scene.standing(&insurer)).unwrap();
    let (permitted, denied) = (scene.ask_statistics(grant), scene.ask(None));
    let record = scene.records[0].record.commitment.0;
    let hospital = scene.four.hospital_a.clone();
    let Scene { world, four, item, .. } = scene;
    let mut blocks = Blocks::after(world, four);
    let mut store = open(home.path(), blocks.world.genesis());
    let reader = store.reader();
    let mut run = |blocks: &mut Blocks, by: &Party, actions: Vec<Action>| -> Vec<(Bytes, u32)> {
        let txs = actions.into_iter().map(|a| blocks.world.sign(by, a)).collect();
        let commit = blocks.block(txs);
        store.commit(&commit).unwrap();
        commit.receipts.iter().map(|r| (Bytes::copy_from_slice(r.body.as_bytes()), r.code)).collect()
    };
    let request = |r: &RequestAccess| Action::RequestAccess(Box::new(r.clone()));

    let asked = run(&mut blocks, &insurer, vec![request(&denied), request(&permitted), request(&permitted)]);
    assert!(asked[0].1 != 0 && asked[1].1 == 0 && asked[2].1 == 0);
    assert_eq!(reader.uses(&record, 10).unwrap(), [asked[1].0.clone(), asked[2].0.clone()]);
    assert_eq!(reader.uses(&record, 1).unwrap().len(), 1, "bounded");
    assert!(reader.uses(&item.0, 10).unwrap().is_empty());

    let permit = Hash(asked[1].0[..].try_into().unwrap());
    let p: Permit = blocks.world.get(PermitId(permit));
    let released_height = blocks.world.at().height;
    let (manifest, records, package) = (p.manifest, p.records, Hash([3; 32]));
    let deliver = Deliver { permit: PermitId(permit), released_height, manifest, records, package };
    let delivered = run(&mut blocks, &hospital, vec![Action::Deliver(deliver)]);
    assert_eq!(delivered[0].1, 0);
    let product = |id| Product { id: ArtifactId(Hash([id; 32])), level: Level::High };
    let activity = |permits: Vec<PermitId>, artifacts: Vec<ArtifactId>, output| {
        Action::RecordActivity(Box::new(RecordActivity {
            kind: ActivityKind::Aggregate,
            permits: permits.try_into().unwrap(),
            artifacts: artifacts.try_into().unwrap(),
            outputs: vec![product(output)].try_into().unwrap(),
            plan: Hash([7; 32]),
            excluded: List::empty(),
        }))
    };
    let first = run(&mut blocks, &insurer, vec![activity(vec![PermitId(permit)], vec![], 1)]);
    let second = run(&mut blocks, &insurer, vec![activity(vec![], vec![product(1).id], 2)]);
    assert_eq!((first[0].1, second[0].1), (0, 0));
    assert_eq!(reader.uses(&permit, 10).unwrap(), [delivered[0].0.clone(), first[0].0.clone()]);
    assert_eq!(reader.uses(&product(1).id.0, 10).unwrap(), [second[0].0.clone()]);
    assert!(reader.uses(&product(2).id.0, 10).unwrap().is_empty());
}

#[test]
fn proposals_survive_until_their_height_is_committed() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commit = blocks.next(1);
    let (one, two) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
    let id = |n| BlockId(Hash([n; 32]));
    {
        let mut store = open(home.path(), &genesis);
        store.put_proposal(Height(1), 0, &id(1), &one).unwrap();
        store.put_proposal(Height(1), 3, &id(2), &two).unwrap();
        store.put_proposal(Height(2), 0, &id(3), &two).unwrap();
        store.put_proposal(Height(1), 0, &id(1), &one).unwrap();
    }
    let mut store = open(home.path(), &genesis);
    assert_eq!(store.proposals(Height(1)).unwrap(), [(0, one), (3, two.clone())]);
    store.commit(&commit).unwrap();
    assert!(store.proposals(Height(1)).unwrap().is_empty());
    assert_eq!(store.proposals(Height(2)).unwrap(), [(0, two)]);
}

/// A block that was kept before it was decided is not written a second time; another body that came under its id, or
/// none, is never taken for it.
#[test]
fn a_block_is_what_was_committed_whatever_was_proposed() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = (0..4).map(|_| blocks.next(3)).collect();
    let lie = Bytes::from_static(b"a lie");
    let check = |store: &mut Store, commits: &[Commit]| {
        for commit in commits {
            let (block, _) = store.block(commit.height()).unwrap().expect("it is there");
            assert_eq!(block, commit.block);
            for (index, tx) in (0..).zip(&commit.txs) {
                assert_eq!(store.reader().envelope(commit.height(), index).unwrap(), tx.bytes());
            }
            assert!(store.proposals(commit.height()).unwrap().is_empty());
        }
    };
    {
        let mut store = open(home.path(), &genesis);
        for (kept, commit) in commits.iter().enumerate() {
            let (height, id) = (commit.height(), commit.certified.header.id());
            let propose =
                |store: &mut Store, round, bytes| store.put_proposal(height, round, &id, bytes).unwrap();
            match kept {
                0 => {}
                1 => propose(&mut store, 0, &lie),
                2 => propose(&mut store, 2, &commit.block),
                _ => {
                    propose(&mut store, 1, &lie);
                    propose(&mut store, 1, &commit.block);
                    propose(&mut store, 4, &commit.block);
                }
            }
            store.commit(commit).unwrap();
        }
        check(&mut store, &commits);
    }
    let mut store = open(home.path(), &genesis);
    check(&mut store, &commits);
    // What is decided later leaves the blocks before it alone.
    let next = blocks.next(1);
    store.put_proposal(next.height(), 0, &next.certified.header.id(), &next.block).unwrap();
    drop(store);
    let mut store = open(home.path(), &genesis);
    assert_eq!(store.proposals(next.height()).unwrap(), [(0, next.block.clone())]);
    store.commit(&next).unwrap();
    check(&mut store, &[commits, vec![next]].concat());
}

#[test]
fn the_vote_log_is_appended_to_and_emptied() {
    let home = tempfile::tempdir().unwrap();
    let genesis = testing::four().0.hash();
    {
        let mut store = open(home.path(), &genesis);
        store.log_append(b"first").unwrap();
        store.log_sync().unwrap();
        store.log_append(b" second").unwrap();
        assert_eq!(store.log_read().unwrap(), b"first second");
        store.log_append(b" third").unwrap();
        store.log_sync().unwrap();
    }
    let mut store = open(home.path(), &genesis);
    assert_eq!(store.log_read().unwrap(), b"first second third");
    store.log_reset().unwrap();
    assert!(store.log_read().unwrap().is_empty());
    store.log_append(b"anew").unwrap();
    assert_eq!(store.log_read().unwrap(), b"anew");
}

#[test]
fn a_database_of_another_chain_or_in_use_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let genesis = testing::four().0.hash();
    let store = open(home.path(), &genesis);
    let again = Store::open(home.path(), &genesis, Metrics::new().0);
    assert!(matches!(again, Err(OpenError::Database { .. })), "a second process is kept out");
    drop(store);
    let other = GenesisHash(Hash([9; 32]));
    assert!(matches!(Store::open(home.path(), &other, Metrics::new().0), Err(OpenError::OtherChain { .. })));
    open(home.path(), &genesis);
}

/// What an older block leaves behind is the same whether it was executed here or fetched from others.
#[test]
fn a_filled_block_leaves_what_a_committed_one_does() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = [3, 1, 4].map(|n| blocks.next(n)).into();
    let mut store = open(home.path(), &genesis);
    let gap = Gap { from: Height(1), to: Height(3) };
    store.begin_snapshot().unwrap();
    store.put_leaves(&blocks.world.state().leaves().collect::<Vec<_>>()).unwrap();
    let last = &commits[2];
    let tip = Tip { certified: last.certified.clone(), mountains: last.mountains.clone() };
    store.finish_snapshot(&tip, &[], &[gap]).unwrap();
    let reader = store.reader();
    assert!(matches!(reader.events(Height(2)), Err(ReadError::NotYet(Height(2)))), "not an empty list");
    for (commit, left) in commits.iter().zip([2u64, 1, 0]).rev() {
        let bodies = commit.txs.iter().map(|tx| (tx.body_id(), tx.body().clone())).collect();
        let past = Past {
            certified: commit.certified.clone(),
            block: commit.block.clone(),
            bodies,
            receipts: commit.receipts.clone(),
            events: commit.events.clone(),
        };
        let below = commit.height().previous().unwrap();
        let gaps: Vec<_> = (below.0 > 0).then_some(Gap { from: Height(1), to: below }).into_iter().collect();
        store.fill(&past, &gaps).unwrap();
        assert_eq!(store.gaps().unwrap(), gaps, "{left}");
    }
    commits.iter().for_each(|c| holds(&reader, c));
    drop((store, reader));
    let store = open(home.path(), &genesis);
    commits.iter().for_each(|c| holds(&store.reader(), c));
    for leaf in blocks.world.state().leaves() {
        assert_eq!(store.reader().leaf(&leaf.object).unwrap(), Some(leaf));
    }
}

/// A state that is being taken in is nowhere to be seen before it is whole, and gone after a crash.
#[test]
fn a_state_is_taken_in_whole_or_not_at_all() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let first = blocks.next(2);
    let before: Vec<_> = blocks.world.state().leaves().collect();
    let later: Vec<_> = (0..3).map(|_| blocks.next(2)).collect();
    let after: Vec<_> = blocks.world.state().leaves().collect();
    let stored = |store: &mut Store| {
        let mut leaves = Vec::new();
        store.leaves(&mut |l| leaves.push(l)).unwrap();
        leaves.sort_by_key(|l| l.object.path());
        leaves
    };
    let mut commit = first.clone();
    commit.leaves = before.clone();
    let tip = Tip { certified: later[2].certified.clone(), mountains: later[2].mountains.clone() };
    {
        let mut store = open(home.path(), &genesis);
        store.commit(&commit).unwrap();
        store.begin_snapshot().unwrap();
        store.put_leaves(&after[..after.len() / 2]).unwrap();
        assert_eq!(stored(&mut store), before);
        assert_eq!(store.tip().unwrap().unwrap().certified, first.certified);
    }
    {
        let mut store = open(home.path(), &genesis);
        assert_eq!(stored(&mut store), before, "what was not finished is gone");
        store.begin_snapshot().unwrap();
        store.put_leaves(&[leaf_of_nobody()]).unwrap();
        // Begun anew: what came before does not stay.
        store.begin_snapshot().unwrap();
        for part in after.chunks(3) {
            store.put_leaves(part).unwrap();
        }
        store.finish_snapshot(&tip, &[], &[Gap { from: Height(2), to: Height(4) }]).unwrap();
        assert_eq!(stored(&mut store), after);
    }
    let mut store = open(home.path(), &genesis);
    assert_eq!(stored(&mut store), after);
    assert_eq!(store.tip().unwrap().unwrap().certified, later[2].certified);
    assert_eq!(store.gaps().unwrap(), [Gap { from: Height(2), to: Height(4) }]);
    // And the state goes on in its new table.
    let next = blocks.next(1);
    store.commit(&next).unwrap();
    for leaf in &next.leaves {
        assert_eq!(store.reader().leaf(&leaf.object).unwrap().as_ref(), Some(leaf));
    }
    drop(store);
    let mut store = open(home.path(), &genesis);
    let held: Vec<_> = blocks.world.state().leaves().collect();
    assert_eq!(stored(&mut store), held);
}

fn leaf_of_nobody() -> Leaf {
    let object = ObjectRef::from(ItemId::of(999, 999));
    Leaf { object, content: Bytes::from_static(b"nobody"), trail: object.new_trail() }
}

/// Every change of the validators is kept with the block that decided it, and evidence gets those below it.
#[test]
fn changes_of_validators_are_kept_as_links() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let next = testing::four().0.validators().clone();
    let mut store = open(home.path(), &genesis);
    let commits: Vec<_> = (0..5)
        .map(|i| {
            let mut commit = blocks.next(1);
            commit.next_validators = (i % 2 == 1).then(|| next.clone());
            store.commit(&commit).unwrap();
            commit
        })
        .collect();
    let links = store.links().unwrap();
    let heights: Vec<_> = links.iter().map(|l| l.certified.header.height.0).collect();
    assert_eq!(heights, [2, 4]);
    assert!(links.iter().all(|l| l.next == next));
    assert_eq!(store.reader().links(Height(2)).unwrap().len(), 0, "a change counts from the next height on");
    assert_eq!(store.reader().links(Height(3)).unwrap(), links[..1]);
    let receipt = &commits[4].receipts[0];
    let evidence = store.reader().evidence(receipt, commits[4].txs[0].bytes()).unwrap();
    assert_eq!(evidence[0].links[..], links[..]);
}

#[test]
fn a_database_of_an_earlier_layout_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let genesis = testing::four().0.hash();
    drop(open(home.path(), &genesis));
    {
        let mut options = rocksdb::Options::default();
        options.create_missing_column_families(true);
        let path = home.path().join(DATABASE);
        let tables = rocksdb::DB::list_cf(&options, &path).unwrap();
        let db = rocksdb::DB::open_cf(&options, &path, tables).unwrap();
        db.put_cf(db.cf_handle("meta").unwrap(), b"layout", b"1").unwrap();
    }
    let error = Store::open(home.path(), &genesis, Metrics::new().0).err().unwrap();
    let words = error.to_string();
    assert!(words.starts_with("E-LAYOUT") && words.contains("assentd repair"), "{words}");
    assert!(words.contains("layout 1") && words.contains("layout 4"), "{words}");
}

/// A value that RocksDB hands out whole and that is not what was committed is not handed on.
#[test]
fn a_block_that_is_not_what_was_committed_is_found_when_it_is_read() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = (0..3).map(|_| blocks.next(3)).collect();
    {
        let mut store = open(home.path(), &genesis);
        commits.iter().for_each(|c| store.commit(c).unwrap());
    }
    let length = commits[1].block.len();
    for at in (0..length).step_by(length / 12) {
        let mut bytes = commits[1].block.to_vec();
        bytes[at] ^= 4;
        {
            let options = rocksdb::Options::default();
            let path = home.path().join(DATABASE);
            let tables = rocksdb::DB::list_cf(&options, &path).unwrap();
            let db = rocksdb::DB::open_cf(&options, &path, tables).unwrap();
            db.put_cf(db.cf_handle("blocks").unwrap(), 2u64.to_be_bytes(), &bytes).unwrap();
        }
        let metrics = Metrics::new().0;
        let mut store = Store::open(home.path(), &genesis, metrics.clone()).unwrap();
        let read = store.reader().block(Height(2));
        assert!(matches!(read, Err(ReadError::Damaged { height: Height(2), .. })), "byte {at}: {read:?}");
        assert_eq!(store.block(Height(2)).unwrap(), None, "served to nobody");
        assert_eq!(metrics.damaged.get(), 1);
        assert!(store.block(Height(1)).unwrap().is_some() && store.block(Height(3)).unwrap().is_some());
    }
}

/// A flipped byte in a table file is found by its checksum: the old block is not served, the state stops the
/// node with the command that repairs it.
#[test]
fn rot_in_the_files_is_found_and_never_used() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = (0..30).map(|_| blocks.next(10)).collect();
    {
        let mut store = open(home.path(), &genesis);
        commits.iter().for_each(|c| store.commit(c).unwrap());
    }
    // Reopening moves what was in the log into table files.
    drop(open(home.path(), &genesis));
    let files = fs::read_dir(home.path().join(DATABASE)).unwrap().map(|e| e.unwrap().path());
    let files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "sst")).collect();
    assert!(files.len() >= 5, "{files:?}");
    let mut found = 0;
    for file in files {
        let rotten = tempfile::tempdir().unwrap();
        copy(&home.path().join(DATABASE), &rotten.path().join(DATABASE));
        let path = rotten.path().join(DATABASE).join(file.file_name().unwrap());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 4;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut store = match Store::open(rotten.path(), &genesis, Metrics::new().0) {
            Ok(store) => store,
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
                found += 1;
                continue;
            }
        };
        let mut leaves = Vec::new();
        let mut damaged = store.leaves(&mut |l| leaves.push(l)).is_err();
        for commit in &commits {
            let height = commit.height();
            match store.block(height).unwrap() {
                Some((block, _)) => assert_eq!(block, commit.block),
                None => damaged = true,
            }
            match store.events(height).unwrap() {
                Some(events) => assert_eq!(events, commit.events),
                None => damaged = true,
            }
        }
        found += u32::from(damaged);
    }
    assert!(found >= 3, "rot was found in {found} files");
}

/// The command that repairs keeps what keeps the node from contradicting itself.
#[test]
fn a_repair_moves_the_database_aside_and_keeps_the_height_of_the_newest_signature() {
    let home = tempfile::tempdir().unwrap();
    let mut blocks = Blocks::new();
    let genesis = *blocks.world.genesis();
    let commits: Vec<_> = (0..3).map(|_| blocks.next(2)).collect();
    assert!(matches!(repair(home.path(), &genesis), Err(RepairError::NoDatabase(_))));
    let mut store = open(home.path(), &genesis);
    commits.iter().for_each(|c| store.commit(c).unwrap());
    store.log_mark(Height(4)).unwrap();
    store.log_append(b"what was signed at 4").unwrap();
    store.log_sync().unwrap();
    assert!(matches!(repair(home.path(), &genesis), Err(RepairError::Running(_))), "it runs");
    drop(store);
    let other = GenesisHash(Hash([9; 32]));
    assert!(matches!(repair(home.path(), &other), Err(RepairError::OtherChain { .. })));

    fs::write(home.path().join(REPORT), br#"{ "height": 4 }"#).unwrap();
    let done = repair(home.path(), &genesis).unwrap();
    assert_eq!(done.signed, Some(Height(4)));
    assert_eq!(done.aside, home.path().join("db.diverged-4"));
    assert!(done.aside.join(REPORT).exists() && !home.path().join(REPORT).exists());
    let mut store = open(home.path(), &genesis);
    assert!(store.tip().unwrap().is_none(), "an empty chain");
    assert_eq!(store.log_marked().unwrap(), Height(4));
    assert_eq!(store.log_read().unwrap(), b"what was signed at 4", "the vote log stays");
    drop(store);

    // Once more, now damaged beyond reading: it is moved aside all the same, under a name of its own.
    fs::write(home.path().join(DATABASE).join("CURRENT"), b"nonsense").unwrap();
    let done = repair(home.path(), &genesis).unwrap();
    assert_eq!((done.signed, done.aside), (None, home.path().join("db.damaged-0")));
    open(home.path(), &genesis);
}
