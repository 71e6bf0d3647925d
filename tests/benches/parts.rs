//! What the parts of a validator cost, each on one core, in the shapes that the whole has under load. Run by
//! `scripts/bench.sh --parts`; what the whole makes of them is `assent-bench`'s.

use std::hint::black_box;
use std::time::Duration;

use assent_genesis::Genesis;
use assent_genesis::devnet::Devnet;
use assent_genesis::testing::devnet;
use assent_ledger::State;
use assent_ledger::testing::{Party, World, digest};
use assent_node::metrics::Metrics;
use assent_node::store::Store;
use assent_proto::block::{CommitSignature, PROTOCOL_NEWEST, tx_root};
use assent_proto::envelope::{signing_message, verify};
use assent_proto::evidence::{Evidence, Trust};
use assent_proto::field::Message;
use assent_proto::keys::{Claim, verify_batch};
use assent_proto::merkle::Mountains;
use assent_proto::transaction::{Category, Level, Opening};
use assent_proto::validators::{VoteKind, vote_message};
use assent_proto::*;
use assent_replica::{Commit, Storage};
use assent_tests::clients::{Cast, Catalogue};
use assent_tests::mix::{Person, STEPS, Signer, Step};
use bytes::Bytes;
use criterion::{Criterion, Throughput};

/// As in `assentd`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Transactions of a block, as many of each step of a person's way.
const BLOCK: usize = 143 * STEPS;
/// Leaves of a state on which it is executed.
const STATE: u64 = 100_000;
/// Leaves that a block changes, where only the trie is measured.
const CHANGED: u64 = 1000;
/// Signatures verified together.
const BATCH: usize = 512;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    signatures(&mut criterion);
    bytes(&mut criterion);
    trie(&mut criterion);
    blocks(&mut criterion);
    evidence(&mut criterion);
    criterion.final_summary();
}

fn signatures(criterion: &mut Criterion) {
    let distinct: Vec<_> = (0..BATCH).map(claim).collect();
    let mut chain = Chain::found(4, 0);
    let persons = chain.persons(BATCH / STEPS);
    let envelopes = Step::ALL.iter().flat_map(|s| persons.iter().map(|p| chain.envelope(p, *s)));
    let few: Vec<_> = envelopes.flat_map(|bytes| claims(chain.genesis.hash(), &bytes)).take(BATCH).collect();
    let key = distinct[0].key;
    criterion.bench_function("key check", |b| b.iter(|| black_box(&key).check()));
    let mut group = criterion.benchmark_group("signatures");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one", |b| b.iter(|| verify_batch(black_box(&distinct[..1]))));
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("batch of 512, as many keys", |b| b.iter(|| verify_batch(black_box(&distinct))));
    group.throughput(Throughput::Elements(few.len() as u64));
    group.bench_function("batch of 512, three institutions sign most", |b| {
        b.iter(|| verify_batch(black_box(&few)));
    });
    group.finish();
}

fn claim(n: usize) -> Claim {
    let (key, message) = (SecretKey::from_bytes(&digest(&format!("key {n}")).0), digest(&format!("{n}")));
    Claim { key: key.public(), message, signature: key.sign(&message.0) }
}

/// What a validator verifies of an envelope.
fn claims(genesis: GenesisHash, bytes: &Bytes) -> Vec<Claim> {
    let envelope = Envelope::decode(bytes).expect("it was just encoded");
    let claim = |s: &envelope::SignatureEntry| Claim {
        key: s.key,
        message: signing_message(&genesis, s.algorithm, &s.key, &envelope.body),
        signature: s.signature,
    };
    envelope.signatures.iter().map(claim).collect()
}

fn bytes(criterion: &mut Criterion) {
    let mut chain = Chain::found(4, 0);
    let person = chain.persons(1).remove(0);
    let request = chain.envelope(&person, Step::Request);
    let data = [7; 512];
    let mut group = criterion.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(request.len() as u64));
    group.bench_function("a request decoded and encoded again", |b| {
        b.iter(|| {
            let envelope = Envelope::decode(black_box(&request)).expect("it is canonical");
            let body = Body::decode(&envelope.body).expect("it is canonical");
            (body.encode(), envelope.encode())
        });
    });
    group.throughput(Throughput::Bytes(512));
    group.bench_function("BLAKE3 of 512 B", |b| b.iter(|| hash::DOCUMENT.hash(&[black_box(&data)])));
    group.finish();
}

fn trie(criterion: &mut Criterion) {
    let state = State::from_leaves((0..STATE).map(filler));
    // Half of them are there already and change, half are new.
    let changes: Vec<_> = (STATE - CHANGED / 2..STATE + CHANGED / 2)
        .map(|n| Leaf { content: Bytes::from(vec![1; 400]), ..filler(n) })
        .collect();
    let (root, object) = (state.root(), filler(STATE / 2).object);
    let (leaf, proof) = state.prove(&object);
    let leaf = leaf.expect("it is in the state");
    let mut group = criterion.benchmark_group("state of 100,000 leaves");
    group.bench_function("1,000 leaves changed", |b| b.iter(|| state.with(black_box(&changes)).root()));
    group.bench_function("proof made", |b| b.iter(|| state.prove(black_box(&object))));
    group.bench_function("proof verified", |b| b.iter(|| proof.verify_leaf(&root, black_box(&leaf))));
    group.finish();
}

/// A leaf whose content nobody reads, about as large as a grant's.
fn filler(n: u64) -> Leaf {
    let object = ObjectRef::from(GrantId(digest(&format!("leaf {n}"))));
    Leaf { object, content: Bytes::from(vec![0; 400]), trail: object.new_trail() }
}

fn blocks(criterion: &mut Criterion) {
    let mut chain = Chain::found(4, STATE);
    chain.fill_ways();
    let home = tempfile::tempdir().expect("a folder");
    let genesis = chain.genesis.hash();
    let mut store = Store::open(home.path(), &genesis, Metrics::new().0).expect("a new database");
    // Several, so that each write is of other rows than the one before.
    let commits: Vec<_> = (0..8).map(|_| chain.full_block()).collect();
    let (txs, _) = chain.next_transactions();
    let envelopes: Vec<_> = txs.iter().map(|tx| tx.bytes().clone()).collect();
    let mut group = criterion.benchmark_group("block of 1,001 transactions");
    group.throughput(Throughput::Elements(BLOCK as u64));
    group.bench_function("decoded and verified", |b| b.iter(|| verify(&genesis, black_box(&envelopes))));
    group.bench_function("applied", |b| b.iter(|| chain.world.apply(&txs).expect("a valid block")));
    let mut next = commits.iter().cycle();
    group.bench_function("committed to RocksDB, synced", |b| {
        b.iter(|| store.commit(next.next().expect("it goes round")).expect("the disk takes it"));
    });
    group.finish();
}

fn evidence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evidence of one event verified");
    for validators in [4, 7] {
        let mut chain = Chain::found(validators, 0);
        chain.fill_ways();
        let commit = chain.full_block();
        let home = tempfile::tempdir().expect("a folder");
        let mut store =
            Store::open(home.path(), &chain.genesis.hash(), Metrics::new().0).expect("a new database");
        store.commit(&commit).expect("the disk takes it");
        // Of a grant, with the object after it and the signed transaction.
        let is_grant = |tx: &VerifiedTx| matches!(tx.body().action, Action::Grant(_));
        let at = commit.txs.iter().position(is_grant).expect("a block has grants");
        let evidence = store.reader().evidence(&commit.receipts[at], commit.txs[at].bytes());
        let bytes = evidence.expect("it was just written")[0].encode();
        let trust: Trust = chain.genesis.trust();
        group.bench_function(format!("{validators} validators, {} bytes", bytes.len()), |b| {
            b.iter(|| Evidence::check(black_box(&bytes), &trust).expect("it holds"));
        });
    }
    group.finish();
}

/// A chain without a network, on which as many persons are at each step of their way.
struct Chain {
    genesis: Genesis,
    devnet: Devnet,
    world: World,
    signer: Signer,
    /// Who set out in the same block, the newest last.
    under_way: Vec<(Vec<Person>, usize)>,
    mountains: Mountains,
    parent: BlockId,
}

impl Chain {
    fn found(validators: usize, leaves: u64) -> Chain {
        let devnet = devnet(validators, 4);
        let genesis = devnet.genesis.clone();
        let party = |slug: &str| {
            let key = devnet.institutions.iter().find(|i| i.slug == slug).map(|i| i.operator.clone());
            let id = genesis.institution(slug).expect("a devnet has the four").id;
            Party { author: Author::Institution(id), key: key.expect("each has its key") }
        };
        let cast = Cast {
            bureau: party("bureau"),
            hospital_a: party("hospital-a"),
            hospital_b: party("hospital-b"),
            insurer: party("insurer"),
        };
        let leaves = genesis.leaves().into_iter().chain((0..leaves).map(filler));
        let mut world = World::found(genesis.hash(), genesis.time(), leaves);
        let (level, shut) = (Level::Moderate, Opening::Prohibited);
        let claims = world.item(&cast.hospital_a, 1, Category::ClaimDocument, level, shut);
        let settlements = world.item(&cast.bureau, 2, Category::Settlement, level, shut);
        let signer = Signer::new(genesis.hash(), cast, Catalogue { claims, settlements });
        let parent = BlockId(genesis.hash().0);
        let (under_way, mountains) = (Vec::new(), Mountains::default());
        Chain { genesis, devnet, world, signer, under_way, mountains, parent }
    }

    fn persons(&mut self, count: usize) -> Vec<Person> {
        self.signer.persons(count, self.world.at().time.plus(60_000))
    }

    fn envelope(&self, person: &Person, step: Step) -> Bytes {
        self.signer.envelope(person, step, self.world.at().height)
    }

    /// Until the next block has all steps.
    fn fill_ways(&mut self) {
        for _ in 1..STEPS {
            let (txs, under_way) = self.next_transactions();
            self.under_way = under_way;
            self.world.block(txs).expect("a valid block");
        }
    }

    /// The next step of all who are under way and the first of some more; and who is under way then.
    fn next_transactions(&mut self) -> (Vec<VerifiedTx>, Vec<(Vec<Person>, usize)>) {
        let new = self.persons(BLOCK / STEPS);
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.push((new, 0));
        let of = |(persons, step): &(Vec<Person>, usize)| {
            persons.iter().map(|p| self.envelope(p, Step::ALL[*step])).collect::<Vec<_>>()
        };
        let envelopes: Vec<_> = under_way.iter().flat_map(of).collect();
        under_way.iter_mut().for_each(|(_, step)| *step += 1);
        under_way.retain(|(_, step)| *step < STEPS);
        let verified = verify(&self.genesis.hash(), &envelopes).into_iter();
        (verified.map(|tx| tx.expect("the signer makes valid transactions")).collect(), under_way)
    }

    /// The next block with all that it leaves behind, certified by all validators.
    fn full_block(&mut self) -> Commit {
        let (txs, under_way) = self.next_transactions();
        self.under_way = under_way;
        let applied = self.world.apply(&txs).expect("a valid block");
        assert!(applied.receipts.iter().all(|r| r.code == 0), "nothing of the mix is denied");
        let (at, set) = (self.world.next(), self.genesis.validators());
        let transactions: Vec<_> = txs.iter().map(|tx| tx.bytes().clone()).collect();
        let header = Header {
            version: PROTOCOL_NEWEST,
            genesis: self.genesis.hash(),
            height: at.height,
            parent: self.parent,
            time: at.time,
            builder: set.validators[0].address(),
            tx_root: tx_root(&transactions),
            body_bytes: transactions.iter().map(|t| t.len() as u32).sum(),
            events_root: applied.events_root,
            history_root: self.mountains.root(),
            state_root: applied.state.root(),
            validators: set.hash(),
            next_validators: set.hash(),
            parent_certificate: Hash::ZERO,
        };
        self.parent = header.id();
        self.mountains.push(&self.parent.0);
        let certificate = self.certify(&header);
        let commit = Commit {
            block: Block { header: header.clone(), transactions, parent_certificate: None }.encode(),
            certified: CertifiedHeader { header, certificate },
            receipts: applied.receipts,
            events: applied.events,
            leaves: applied.changes,
            removed: applied.removed,
            mountains: self.mountains.clone(),
            txs: txs.clone(),
            next_validators: None,
        };
        self.world.block(txs).expect("it was just applied");
        commit
    }

    fn certify(&self, header: &Header) -> CommitCertificate {
        let (genesis, block) = (self.genesis.hash(), header.id());
        let sign = |(index, validator): (usize, &Validator)| {
            let who = validator.address();
            let node = self.devnet.nodes.iter().find(|n| n.address == who).expect("a devnet has all keys");
            let message = vote_message(&genesis, VoteKind::Precommit, header.height, 0, Some(&block), &who);
            CommitSignature { validator: index as u32, signature: node.consensus.sign(&message.0) }
        };
        let signatures: Vec<_> = self.genesis.validators().validators.iter().enumerate().map(sign).collect();
        let signatures = signatures.try_into().expect("a set has at most 128 validators");
        CommitCertificate { height: header.height, round: 0, block, signatures }
    }
}
