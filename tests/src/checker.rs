//! An independent check of what a network has done: it reads every node's chain, through the public interface and
//! from the disk, and what clients were told, and proves from these alone that the ledger kept its promises.
//!
//! Only `proto` and the founding document are used: no rule is executed here, and no node is believed. A header's
//! certificate makes it final; roots bind transactions and events to it; events say what was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assent_client::rpc::api;
use assent_genesis::Genesis;
use assent_proto::block::{PROTOCOL_NEWEST, PROTOCOL_OLDEST, tx_root};
use assent_proto::event::EventKind;
use assent_proto::evidence::Evidence;
use assent_proto::field::{Element, Message};
use assent_proto::merkle::{self, Mountains};
use assent_proto::transaction::{Action, Mode};
use assent_proto::validators::ValidatorSet;
use assent_proto::{
    Block, BlockId, BodyId, CertifiedHeader, CommitCertificate, Event, Hash, Header, Height, ObjectKind,
    ObjectRef, Trail, envelope,
};
use serde_json::Value;

use crate::clients::{self, Door, door};

/// What was proved, and what was found wrong.
#[derive(Debug, Default)]
pub struct Findings {
    /// What holds.
    pub passed: Vec<String>,
    /// What does not.
    pub failed: Vec<String>,
    /// Figures.
    pub chain: Figures,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Blocks of one chain.
    pub blocks: u64,
    /// Transactions in it.
    pub transactions: u64,
    /// Permitted uses.
    pub permits: u64,
    /// Denied requests.
    pub denials: u64,
    /// Revocations.
    pub revocations: u64,
    /// The highest round in which a block was decided.
    pub highest_round: u32,
    /// What clients were told is final.
    pub acknowledged: u64,
}

impl Findings {
    fn note(&mut self, what: impl Into<String>, result: Result<(), String>) {
        let what = what.into();
        match result {
            Ok(()) => self.passed.push(what),
            Err(why) => self.failed.push(format!("{what}: {why}")),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// One node's chain, as far as the checks need it.
#[derive(Default)]
struct Chain {
    /// From height 1.
    blocks: Vec<(BlockId, Hash)>,
    /// Where each body stands, and with what code.
    verdicts: BTreeMap<BodyId, (Height, u32)>,
    /// The grants for one use.
    one_time: BTreeSet<ObjectRef>,
    permits: BTreeMap<ObjectRef, Vec<Height>>,
    /// How many uses custodians gave back.
    given_back: BTreeMap<ObjectRef, usize>,
    revoked: BTreeMap<ObjectRef, Height>,
    figures: Figures,
}

/// Reads and checks everything. `homes` are the nodes' folders and may be empty: then no disk is read; nodes whose
/// disks are read must have stopped writing or be stopped by `halt`, which is called once the nodes have been asked.
pub async fn check(
    genesis: &Genesis,
    urls: &[String],
    history: Option<&Path>,
    homes: &[PathBuf],
    halt: impl FnOnce(),
) -> Findings {
    let mut findings = Findings::default();
    let mut chains = Vec::new();
    let goal = highest(urls).await;
    for (i, url) in urls.iter().enumerate() {
        let what = format!("node {i}: certificates, hash chain, roots, signatures and trails of every block");
        let chain = read_chain(genesis, url, goal).await;
        findings.note(what, chain.as_ref().map(|_| ()).map_err(Clone::clone));
        chains.push(chain.unwrap_or_default());
    }
    findings.note("the nodes say the height and state root of their newest block", tips(urls, &chains).await);
    findings.note("no two nodes hold different blocks at a height", no_fork(&chains));
    findings.note("all nodes are at the same height and state root", one_tip(&chains));
    if let Some(chain) = chains.iter().max_by_key(|c| c.blocks.len()) {
        findings.chain = chain.figures;
        findings.note("grants for one use are permitted at most once", at_most_once(chain));
        findings.note("no use is permitted after its grant's revocation", none_after_revocation(chain));
    }
    if let Some(path) = history {
        match read_history(path) {
            Ok(history) => check_history(&mut findings, &chains, &history),
            Err(why) => findings.note("the clients' history can be read", Err(why)),
        }
    }
    halt();
    for (i, home) in homes.iter().enumerate() {
        let what = format!("node {i}: its disk holds the chain that it shows");
        let result = chains.get(i).ok_or("it showed none".into()).and_then(|c| on_disk(genesis, home, c));
        findings.note(what, result);
    }
    findings
}

// ---- One node's chain

/// How long a node may take to answer, and to reach the height that another one had.
const LAG_MAX: Duration = Duration::from_secs(60);

/// The newest height that a node tells of. All are read up to there: heartbeats go on meanwhile.
async fn highest(urls: &[String]) -> Height {
    let mut highest = 0;
    for url in urls {
        // Of one that does not answer the reading tells.
        highest = highest.max(standing(url).await.map_or(0, |s| s.height));
    }
    Height(highest)
}

/// How a node says that it is; it may be too busy to answer at once.
async fn standing(url: &str) -> Result<api::StatusReply, String> {
    let door = door(url).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    while begun.elapsed() < LAG_MAX {
        if let Some(status) = clients::status(&door).await {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no answer within {} s", LAG_MAX.as_secs()))
}

/// Reads a node's chain up to a height, which it reaches if it is not there yet.
async fn read_chain(genesis: &Genesis, url: &str, goal: Height) -> Result<Chain, String> {
    let mut client = door(url).map_err(|e| e.to_string())?;
    let mut walk = Walk::new(genesis, announced_sets(&mut client).await?);
    let follow = api::FollowRequest { from_height: 1, to_height: goal.0 };
    let mut events = client.follow(follow).await.map_err(|e| e.to_string())?.into_inner();
    for height in (1..=goal.0).map(Height) {
        let of_block = tokio::time::timeout(LAG_MAX, events.message()).await;
        let of_block = of_block.map_err(|_| format!("it does not reach block {height} of {goal}"))?;
        let of_block = of_block.map_err(|e| e.to_string())?;
        let of_block = of_block.ok_or_else(|| format!("the events end before block {height}"))?.events;
        let of_block = of_block.into_iter().map(|e| Event::read(e, "event"));
        let of_block = of_block.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        let (block, certificate) = read_block(&mut client, height).await?;
        walk.step(&block, certificate, &of_block).map_err(|why| format!("block {height}: {why}"))?;
    }
    Ok(walk.chain)
}

/// The validator sets that came after the founding one, as the node shows them. They need no proof of their own: the
/// headers announce their hashes.
async fn announced_sets(client: &mut Door) -> Result<Vec<ValidatorSet>, String> {
    let request = api::ObjectRequest { object: Some(ObjectRef::VALIDATORS.write()) };
    let reply = client.get_object(request).await.map_err(|e| e.to_string())?.into_inner();
    let evidence = <Evidence as Message>::decode(&reply.evidence).map_err(|e| e.to_string())?;
    Ok(evidence.links.into_vec().into_iter().map(|link| link.next).collect())
}

async fn read_block(client: &mut Door, height: Height) -> Result<(Block, CommitCertificate), String> {
    let request = api::BlockRequest { height: height.0 };
    let reply = client.get_block(request).await.map_err(|e| format!("block {height}: {e}"))?.into_inner();
    let block = Block::decode(&reply.block).map_err(|e| e.to_string())?;
    let certificate = reply.certificate.ok_or_else(|| format!("block {height} without a certificate"))?;
    Ok((block, CommitCertificate::read(certificate, "certificate").map_err(|e| e.to_string())?))
}

/// A walk up a chain, holding what the next block has to follow on.
struct Walk<'a> {
    genesis: &'a Genesis,
    sets: BTreeMap<Hash, ValidatorSet>,
    chain: Chain,
    below: Option<CertifiedHeader>,
    mountains: Mountains,
    trails: BTreeMap<ObjectRef, Trail>,
}

fn must(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

impl<'a> Walk<'a> {
    fn new(genesis: &'a Genesis, later: Vec<ValidatorSet>) -> Walk<'a> {
        let sets = later.into_iter().chain([genesis.validators().clone()]);
        Walk {
            genesis,
            sets: sets.map(|set| (set.hash(), set)).collect(),
            chain: Chain::default(),
            below: None,
            mountains: Mountains::default(),
            trails: BTreeMap::new(),
        }
    }

    fn step(
        &mut self,
        block: &Block,
        certificate: CommitCertificate,
        events: &[Event],
    ) -> Result<(), String> {
        let header = &block.header;
        let id = header.id();
        self.check_place(header)?;
        self.certified(&certificate, header)?;
        self.check_parent_certificate(block)?;
        self.check_transactions(block)?;
        self.check_events(header, block.transactions.len(), events)?;
        let figures = &mut self.chain.figures;
        figures.blocks += 1;
        figures.transactions += block.transactions.len() as u64;
        figures.highest_round = figures.highest_round.max(certificate.round);
        self.mountains.push(&id.0);
        self.chain.blocks.push((id, header.state_root));
        self.below = Some(CertifiedHeader { header: header.clone(), certificate });
        Ok(())
    }

    /// The header follows on the one below.
    fn check_place(&self, header: &Header) -> Result<(), String> {
        let below = self.below.as_ref().map(|b| &b.header);
        let height = below.map_or(Height(0), |b| b.height).next();
        let parent = below.map_or(BlockId(self.genesis.hash().0), Header::id);
        let version = below.map_or(PROTOCOL_OLDEST, |b| b.version);
        let follows = (version..=version + 1).contains(&header.version);
        must(follows, || format!("version {} after version {version}", header.version))?;
        header.check_known(PROTOCOL_NEWEST).map_err(|e| e.to_string())?;
        must(header.genesis == self.genesis.hash(), || "it is of another chain".into())?;
        must(header.height == height, || format!("it says height {}", header.height))?;
        must(header.parent == parent, || "it does not follow on the block below".into())?;
        let earliest = below.map_or(self.genesis.time(), |b| b.time);
        must(header.time > earliest, || "its time is not later than the one below".into())?;
        must(header.history_root == self.mountains.root(), || "its history root is wrong".into())?;
        let announced = below.map_or(self.genesis.validators().hash(), |b| b.next_validators);
        must(header.validators == announced, || "its validators are not those announced".into())?;
        let builder = self.set(&header.validators)?.by_address(&header.builder);
        must(builder.is_some(), || "its builder is no validator".into())
    }

    /// The set of a hash that a header names.
    fn set(&self, hash: &Hash) -> Result<&ValidatorSet, String> {
        self.sets.get(hash).ok_or_else(|| format!("no validators are known of hash {hash}"))
    }

    fn certified(&self, certificate: &CommitCertificate, header: &Header) -> Result<(), String> {
        let set = self.set(&header.validators)?;
        let verdict = certificate.verify(&self.genesis.hash(), set, header.height, &header.id());
        verdict.map_err(|e| e.to_string())
    }

    fn check_parent_certificate(&self, block: &Block) -> Result<(), String> {
        match (&block.parent_certificate, &self.below) {
            (None, None) => {
                must(block.header.parent_certificate == Hash::ZERO, || "a certificate of nothing".into())
            }
            (Some(certificate), Some(below)) => {
                let named = certificate.hash() == block.header.parent_certificate;
                must(named, || "it carries another certificate of its parent than it names".into())?;
                self.certified(certificate, &below.header)
                    .map_err(|e| format!("its parent's certificate: {e}"))
            }
            _ => Err("a certificate of the parent is there without need, or missing".into()),
        }
    }

    /// Every transaction is under the root, is signed, protects first, and is there for the first time.
    fn check_transactions(&mut self, block: &Block) -> Result<(), String> {
        let (header, txs) = (&block.header, &block.transactions);
        must(tx_root(txs) == header.tx_root, || "its transaction root is wrong".into())?;
        let bytes: usize = txs.iter().map(|t| t.len()).sum();
        must(bytes == header.body_bytes as usize, || "it says another length of its body".into())?;
        let mut protecting = true;
        for tx in envelope::verify(&self.genesis.hash(), txs) {
            let tx = tx.map_err(|e| format!("a transaction is invalid: {e}"))?;
            must(protecting || !tx.body().action.protects(), || "what protects does not come first".into())?;
            protecting = tx.body().action.protects();
            must(tx.body().expires_at >= header.time, || format!("{} had expired", tx.body_id()))?;
            if let Action::Grant(terms) = &tx.body().action
                && terms.mode == Mode::OneTime
            {
                self.chain.one_time.insert(ObjectRef::from(assent_proto::GrantId(tx.body_id().0)));
            }
            let before = self.chain.verdicts.insert(tx.body_id(), (header.height, 0));
            must(before.is_none(), || format!("{} is there for the second time", tx.body_id()))?;
        }
        Ok(())
    }

    /// The events are all of the block's, each is of one of its transactions, and each trail goes on where it was.
    fn check_events(&mut self, header: &Header, transactions: usize, events: &[Event]) -> Result<(), String> {
        let leaves: Vec<_> = events.iter().map(Event::leaf).collect();
        must(merkle::root(&leaves) == header.events_root, || {
            "the events are not those of the header".into()
        })?;
        let mut spoken_of = BTreeSet::new();
        for (event, leaf) in events.iter().zip(&leaves) {
            let core = &event.core;
            let of_block = core.height == header.height && core.time == header.time;
            must(of_block, || "an event says another height or time".into())?;
            spoken_of.insert(core.transaction);
            self.check_links(event, leaf)?;
            self.read_event(event)?;
        }
        let all = spoken_of.len() == transactions && spoken_of.iter().all(|t| (*t as usize) < transactions);
        must(all, || "a transaction has no event".into())
    }

    fn check_links(&mut self, event: &Event, leaf: &Hash) -> Result<(), String> {
        for link in &event.links {
            let trail = self.trails.entry(link.trail).or_insert_with(|| link.trail.new_trail());
            let follows = link.index == trail.length && link.head_before == trail.head;
            must(follows, || format!("a trail of {:?} breaks at {}", link.trail.kind, link.index))?;
            *trail = link.after(leaf);
        }
        Ok(())
    }

    fn read_event(&mut self, event: &Event) -> Result<(), String> {
        let core = &event.core;
        let verdict = self.chain.verdicts.get_mut(&core.body);
        let verdict = verdict.filter(|(height, _)| *height == core.height);
        let verdict =
            verdict.ok_or_else(|| format!("an event of {}, which is not in the block", core.body))?;
        match core.kind {
            EventKind::Denied => {
                verdict.1 = core.code;
                self.chain.figures.denials += 1;
            }
            EventKind::Permitted => self.chain.figures.permits += 1,
            EventKind::Revoked => self.chain.figures.revocations += 1,
            _ => {}
        }
        for grant in event.links.iter().map(|l| l.trail).filter(|t| t.kind == ObjectKind::Grant) {
            match core.kind {
                EventKind::Permitted => self.chain.permits.entry(grant).or_default().push(core.height),
                EventKind::Revoked => {
                    self.chain.revoked.insert(grant, core.height);
                }
                EventKind::NotDelivered => *self.chain.given_back.entry(grant).or_default() += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

// ---- All chains

async fn tips(urls: &[String], chains: &[Chain]) -> Result<(), String> {
    for (i, (url, chain)) in urls.iter().zip(chains).enumerate() {
        let reply = standing(url).await?;
        let Some((_, root)) = reply.height.checked_sub(1).and_then(|at| chain.blocks.get(at as usize)) else {
            continue; // It has gone on since it was read.
        };
        must(reply.state_root == root.0.as_slice(), || format!("node {i} says another root than its block"))?;
    }
    Ok(())
}

fn no_fork(chains: &[Chain]) -> Result<(), String> {
    let mut first: Vec<(BlockId, Hash)> = Vec::new();
    for (i, chain) in chains.iter().enumerate() {
        let differs = first.iter().zip(&chain.blocks).position(|(a, b)| a != b);
        must(differs.is_none(), || format!("node {i} at height {}", differs.unwrap_or_default() + 1))?;
        if chain.blocks.len() > first.len() {
            first.clone_from(&chain.blocks);
        }
    }
    must(!first.is_empty(), || "no node showed a block".into())
}

fn one_tip(chains: &[Chain]) -> Result<(), String> {
    let tips: BTreeSet<_> = chains.iter().map(|c| (c.blocks.len(), c.blocks.last())).collect();
    must(tips.len() == 1, || {
        format!("heights {:?}", chains.iter().map(|c| c.blocks.len()).collect::<Vec<_>>())
    })
}

fn at_most_once(chain: &Chain) -> Result<(), String> {
    let given_back = |g| chain.given_back.get(g).copied().unwrap_or(0);
    let uses = |g| chain.permits.get(g).map_or(0, Vec::len).saturating_sub(given_back(g));
    let twice = chain.one_time.iter().find(|g| uses(g) > 1);
    must(twice.is_none(), || format!("{twice:?} was permitted at {:?}", twice.map(|g| &chain.permits[g])))
}

fn none_after_revocation(chain: &Chain) -> Result<(), String> {
    let late = chain.revoked.iter().find(|(grant, at)| {
        chain.permits.get(grant).is_some_and(|uses| uses.iter().any(|height| height >= at))
    });
    must(late.is_none(), || format!("{late:?}"))
}

// ---- What clients were told

/// A line of a history.
struct Told {
    body: BodyId,
    what: String,
    grant: Option<String>,
    verdict: Option<(Height, u32)>,
}

fn read_history(path: &Path) -> Result<Vec<Told>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.lines().map(|line| read_line(line).ok_or_else(|| format!("the line {line}"))).collect()
}

fn read_line(line: &str) -> Option<Told> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let verdict = match entry["outcome"].as_str()? {
        "final" => Some((Height(entry["height"].as_u64()?), entry["code"].as_u64()? as u32)),
        _ => None,
    };
    Some(Told {
        body: BodyId::from_hex(entry["body"].as_str()?)?,
        what: entry["what"].as_str()?.to_string(),
        grant: entry["grant"].as_str().map(str::to_string),
        verdict,
    })
}

fn check_history(findings: &mut Findings, chains: &[Chain], history: &[Told]) {
    findings.chain.acknowledged = history.iter().filter(|t| t.verdict.is_some()).count() as u64;
    let what = "everything acknowledged as final is on every node, at that height and with that verdict";
    findings.note(what, nothing_lost(chains, history));
    findings.note("of two uses of a grant at once just one was permitted", one_of_two(history));
    findings.note("what was asked for after a revocation was acknowledged is denied", denied_after(history));
}

fn nothing_lost(chains: &[Chain], history: &[Told]) -> Result<(), String> {
    for (i, chain) in chains.iter().enumerate() {
        for told in history {
            let Some(verdict) = told.verdict else { continue };
            let found = chain.verdicts.get(&told.body);
            must(found == Some(&verdict), || {
                format!("node {i} has {found:?} for {}, of which a client was told {verdict:?}", told.body)
            })?;
        }
    }
    must(history.iter().any(|t| t.verdict.is_some()), || "nothing was acknowledged at all".into())
}

fn one_of_two(history: &[Told]) -> Result<(), String> {
    let mut by_grant: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for told in history.iter().filter(|t| t.what == "compete") {
        if let (Some(grant), Some((_, code))) = (&told.grant, told.verdict) {
            by_grant.entry(grant).or_default().push(code);
        }
    }
    let both: Vec<_> = by_grant.iter().filter(|(_, codes)| codes.len() == 2).collect();
    let wrong = both.iter().find(|(_, codes)| codes.iter().filter(|code| **code == 0).count() != 1);
    must(wrong.is_none(), || format!("{wrong:?}"))?;
    must(!both.is_empty(), || "no grant was asked for twice".into())
}

fn denied_after(history: &[Told]) -> Result<(), String> {
    let mut after =
        history.iter().filter(|t| t.what == "after-revocation").filter_map(|t| t.verdict).peekable();
    must(after.peek().is_some(), || "nothing was asked for after a revocation".into())?;
    let permitted = after.find(|(_, code)| *code == 0);
    must(permitted.is_none(), || format!("permitted at {permitted:?}"))
}

// ---- Disks

/// Height, round and id of a proposal; no block is as short.
const PROPOSAL_KEY_BYTES: usize = 44;

/// Opens a node's database read-only and compares every block and certificate with what the node showed.
fn on_disk(genesis: &Genesis, home: &Path, shown: &Chain) -> Result<(), String> {
    let (options, path) = (rocksdb::Options::default(), home.join("db"));
    let families = rocksdb::DB::list_cf(&options, &path).map_err(|e| e.to_string())?;
    let db =
        rocksdb::DB::open_cf_for_read_only(&options, &path, &families, false).map_err(|e| e.to_string())?;
    let family = |name: &str| db.cf_handle(name).ok_or_else(|| format!("there is no table {name}"));
    let (blocks, proposals, certificates) =
        (family("blocks")?, family("proposals")?, family("certificates")?);
    for (height, (id, _)) in (1u64..).zip(&shown.blocks) {
        let read = |table, key: &[u8], what: &str| {
            let found = db.get_cf(table, key).map_err(|e| e.to_string())?;
            found.ok_or_else(|| format!("there is no {what} at height {height}"))
        };
        let at = height.to_be_bytes();
        let mut block = read(blocks, &at, "block")?;
        // One that was kept before it was decided stands there still, under this key.
        if block.len() == PROPOSAL_KEY_BYTES {
            block = read(proposals, &block, "block among the proposals")?;
        }
        let block = Block::decode(&block).map_err(|e| format!("block {height}: {e}"))?;
        must(block.header.id() == *id, || format!("it holds another block at height {height}"))?;
        must(tx_root(&block.transactions) == block.header.tx_root, || format!("block {height} is torn"))?;
        let certificate = read(certificates, &at, "certificate")?;
        let certificate = CommitCertificate::decode(&certificate).map_err(|e| e.to_string())?;
        must(certificate.block == *id, || format!("the certificate at {height} is of another block"))?;
        let (hash, set) = (genesis.hash(), genesis.validators());
        if set.hash() == block.header.validators {
            certificate
                .verify(&hash, set, Height(height), id)
                .map_err(|e| format!("height {height}: {e}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use assent_proto::block::CommitSignature;
    use assent_proto::validators::{VoteKind, vote_message};
    use assent_proto::{GrantId, SecretKey};

    use super::*;

    /// Empty blocks, signed by the founding validators.
    struct Forge {
        genesis: Genesis,
        keys: Vec<SecretKey>,
    }

    impl Forge {
        fn new() -> Forge {
            let (genesis, keys, _) = assent_genesis::testing::four();
            Forge { genesis, keys }
        }

        fn certify(&self, header: &Header) -> CommitCertificate {
            let (set, id) = (self.genesis.validators(), header.id());
            let sign = |i: usize| {
                let (kind, address) = (VoteKind::Precommit, set.validators[i].address());
                let message = vote_message(&self.genesis.hash(), kind, header.height, 0, Some(&id), &address);
                CommitSignature { validator: i as u32, signature: self.keys[i].sign(&message.0) }
            };
            let signatures = (0..3).map(sign).collect::<Vec<_>>().try_into().expect("three");
            CommitCertificate { height: header.height, round: 0, block: id, signatures }
        }

        fn next(&self, walk: &Walk) -> Block {
            let set = self.genesis.validators();
            let below = walk.below.as_ref();
            let height = below.map_or(Height(0), |b| b.header.height).next();
            let parent_certificate = below.map(|b| b.certificate.clone());
            let header = Header {
                version: PROTOCOL_OLDEST,
                genesis: self.genesis.hash(),
                height,
                parent: below.map_or(BlockId(self.genesis.hash().0), |b| b.header.id()),
                time: self.genesis.time().plus(1000 * height.0),
                builder: set.validators[0].address(),
                tx_root: tx_root(&[]),
                body_bytes: 0,
                events_root: merkle::root(&[]),
                history_root: walk.mountains.root(),
                state_root: Hash::ZERO,
                validators: set.hash(),
                next_validators: set.hash(),
                parent_certificate: parent_certificate.as_ref().map_or(Hash::ZERO, CommitCertificate::hash),
            };
            Block { header, transactions: Vec::new(), parent_certificate }
        }

        /// Two good blocks, and a third as it is made.
        fn third(&self, make: impl FnOnce(&mut Block, &Forge) -> CommitCertificate) -> Result<(), String> {
            let mut walk = Walk::new(&self.genesis, Vec::new());
            for _ in 0..2 {
                let block = self.next(&walk);
                walk.step(&block, self.certify(&block.header), &[]).expect("good");
            }
            let mut block = self.next(&walk);
            let certificate = make(&mut block, self);
            walk.step(&block, certificate, &[])
        }
    }

    /// Every way in which a block may be wrong without a transaction in it is seen.
    #[test]
    fn wrong_blocks_are_seen() {
        let forge = Forge::new();
        assert_eq!(forge.third(|b, f| f.certify(&b.header)), Ok(()));
        type Edit = fn(&mut Block);
        let edits: [(Edit, &str); 9] = [
            (|b| b.header.parent = BlockId(Hash([7; 32])), "does not follow"),
            (|b| b.header.height = Height(4), "says height 4"),
            (|b| b.header.history_root = Hash::ZERO, "history root"),
            (|b| b.header.time = assent_proto::TimeMs(0), "not later"),
            (|b| b.header.validators = Hash([1; 32]), "not those announced"),
            (|b| b.header.tx_root = Hash([1; 32]), "transaction root"),
            (|b| b.header.events_root = Hash([1; 32]), "events are not"),
            (|b| b.parent_certificate = None, "missing"),
            (|b| b.header.parent_certificate = Hash([1; 32]), "another certificate of its parent"),
        ];
        for (edit, why) in edits {
            let found = forge.third(|b, f| {
                edit(b);
                f.certify(&b.header)
            });
            assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{why}: {found:?}");
        }
        let too_few = forge.third(|b, f| {
            let mut certificate = f.certify(&b.header);
            let two = certificate.signatures.into_vec().into_iter().take(2).collect::<Vec<_>>();
            certificate.signatures = two.try_into().expect("two");
            certificate
        });
        assert!(too_few.is_err_and(|e| e.contains("no quorum")));
    }

    fn grant(n: u8) -> ObjectRef {
        GrantId(Hash([n; 32])).into()
    }

    #[test]
    fn a_second_use_of_a_grant_for_one_use_is_seen() {
        let mut chain = Chain::default();
        chain.one_time.insert(grant(1));
        chain.permits.insert(grant(1), vec![Height(4)]);
        chain.permits.insert(grant(2), vec![Height(4), Height(5)]);
        assert_eq!(at_most_once(&chain), Ok(()), "the second grant is not for one use");
        chain.permits.insert(grant(1), vec![Height(4), Height(9)]);
        assert!(at_most_once(&chain).is_err());
    }

    #[test]
    fn a_use_after_a_revocation_is_seen() {
        let mut chain = Chain::default();
        chain.permits.insert(grant(1), vec![Height(4)]);
        chain.revoked.insert(grant(1), Height(5));
        assert_eq!(none_after_revocation(&chain), Ok(()));
        // Revocations go first in their block.
        chain.permits.insert(grant(1), vec![Height(5)]);
        assert!(none_after_revocation(&chain).is_err());
    }

    #[test]
    fn forks_and_laggards_are_seen() {
        let chain = |ids: &[u8]| {
            let blocks = ids.iter().map(|n| (BlockId(Hash([*n; 32])), Hash::ZERO)).collect();
            Chain { blocks, ..Chain::default() }
        };
        assert_eq!(no_fork(&[chain(&[1]), chain(&[1, 2]), chain(&[1, 2])]), Ok(()));
        assert!(no_fork(&[chain(&[1]), chain(&[1, 2]), chain(&[1, 3])]).is_err());
        assert!(no_fork(&[chain(&[])]).is_err(), "nothing proves nothing");
        assert!(one_tip(&[chain(&[1]), chain(&[1, 2])]).is_err());
        assert_eq!(one_tip(&[chain(&[1, 2]), chain(&[1, 2])]), Ok(()));
    }

    fn told(n: u8, what: &str, verdict: Option<(u64, u32)>) -> Told {
        let verdict = verdict.map(|(height, code)| (Height(height), code));
        Told { body: BodyId(Hash([n; 32])), what: what.into(), grant: Some("g".into()), verdict }
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_seen() {
        let mut chain = Chain::default();
        chain.verdicts.insert(BodyId(Hash([1; 32])), (Height(3), 5));
        let chains = [chain];
        assert_eq!(nothing_lost(&chains, &[told(1, "use", Some((3, 5))), told(2, "use", None)]), Ok(()));
        for lost in [told(2, "use", Some((3, 0))), told(1, "use", Some((4, 5))), told(1, "use", Some((3, 0)))]
        {
            assert!(nothing_lost(&chains, &[lost]).is_err());
        }
    }

    #[test]
    fn two_permits_or_none_for_two_uses_at_once_are_seen() {
        let pair = |a, b| [told(1, "compete", Some((3, a))), told(2, "compete", Some((3, b)))];
        assert_eq!(one_of_two(&pair(0, 5)), Ok(()));
        assert!(
            one_of_two(&pair(0, 0)).is_err() && one_of_two(&pair(5, 5)).is_err() && one_of_two(&[]).is_err()
        );
        assert!(denied_after(&[told(1, "after-revocation", Some((3, 0)))]).is_err());
        assert_eq!(denied_after(&[told(1, "after-revocation", Some((3, 4)))]), Ok(()));
    }

    #[test]
    fn lines_of_a_history_are_read_whole_or_not_at_all() {
        let body = "ab".repeat(32);
        let line = format!(r#"{{"what":"use","body":"{body}","outcome":"final","height":3,"code":0}}"#);
        let told = read_line(&line).expect("a good line");
        assert_eq!((told.verdict, told.grant), (Some((Height(3), 0)), None));
        assert!(read_line(&line[..line.len() - 2]).is_none(), "a torn line");
        assert!(read_line(&line.replace("height", "h")).is_none(), "final without a height");
    }
}
