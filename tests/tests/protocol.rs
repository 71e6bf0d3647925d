//! The rules change at a height: every block is made by the version in force there, a program that does not know it
//! votes up to the block below, stops and says what to do, and goes on from the same folder once it is newer. On
//! certified chains through one validator's door, and on four real processes of which one is the older program.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use std::process::{Command, Stdio};
use std::time::Instant;

use assent_client::keyfile::{self, InstitutionSecrets};
use assent_client::rpc::Node;
use assent_genesis::Genesis;
use assent_ledger::testing::*;
use assent_proto::block::PROTOCOL_NEWEST;
use assent_proto::field::Message;
use assent_proto::transaction::{Output as Detail, *};
use assent_proto::validators::{VoteKind, address};
use assent_proto::{
    Address, Block, BlockId, CommitCertificate, Denial, Envelope, Hash, Height, List, SecretKey, TimeMs,
    ids::*,
};
use assent_replica::{
    ConsensusMessage, Fault, Input, Output, Part, PeerMessage, Replica, Rules, SignedProposal, SnapshotRule,
};
use assent_tests::golden::{Golden, certified};
use assent_tests::network::{Network, PATIENCE, program};
use assent_tests::sim::disk::Disk;
use bytes::Bytes;
use serde_json::Value;

type Certified = (Bytes, CommitCertificate);

/// A chain whose second version is in force from a height on, and what its validators hold.
struct Chain {
    genesis: Genesis,
    keys: Vec<SecretKey>,
    golden: Golden,
    from: Height,
}

/// Blocks above the change.
const ABOVE: u64 = 4;

fn chain() -> Chain {
    let (genesis, keys, _) = assent_genesis::testing::four();
    let mut scene = Scene::new();
    let Four { bureau, hospital_a, hospital_b, .. } = scene.four.clone();
    let from = Height(scene.world.next().height.0 + 6);
    let (change, until) = (ChangeProtocol { version: 2, from }, scene.world.at().time.plus(60_000));
    let propose = Propose { change: Change::Protocol(change), until };
    let proposal = ProposalId(scene.world.run(&bureau, Action::Propose(Box::new(propose))).unwrap().0);
    for by in [hospital_a, hospital_b] {
        scene.world.run(&by, Action::Approve(Approve { proposal })).unwrap();
    }
    while scene.world.at().height.0 < from.0 + ABOVE {
        scene.world.block(vec![]).unwrap();
    }
    let golden = certified(&genesis, &scene.world, &keys, &[]).unwrap();
    Chain { genesis, keys, golden, from }
}

impl Chain {
    fn blocks(&self) -> Vec<Certified> {
        let blocks = self.golden.blocks.iter().cloned().enumerate();
        blocks.map(|(i, block)| (block, self.golden.certificate(i).unwrap())).collect()
    }

    fn block(&self, height: Height) -> Block {
        Block::decode(&self.golden.blocks[height.0 as usize - 1]).unwrap()
    }

    fn tip(&self) -> Height {
        Height(self.golden.blocks.len() as u64)
    }

    fn address(&self, at: usize) -> Address {
        address(&self.keys[at].public())
    }

    /// Just after the newest block.
    fn now(&self) -> TimeMs {
        self.block(self.tip()).header.time.plus(1)
    }

    /// An observer, after the newest block.
    fn open(&self, known: u32, disk: Disk) -> Result<Follower<'_>, Fault> {
        self.open_at(self.now(), known, None, disk)
    }

    fn open_at(
        &self,
        now: TimeMs,
        known: u32,
        key: Option<usize>,
        disk: Disk,
    ) -> Result<Follower<'_>, Fault> {
        let key = key.map(|at| self.keys[at].clone());
        let (replica, outputs) = Replica::open_knowing(known, now, self.genesis.clone(), key, disk)?;
        Ok(Follower { chain: self, replica, outputs, now, blamed: 0 })
    }
}

/// A validator that hears of the chain from the first validator.
struct Follower<'a> {
    chain: &'a Chain,
    replica: Replica<Disk>,
    outputs: Vec<Output>,
    now: TimeMs,
    blamed: usize,
}

impl Follower<'_> {
    /// Time goes on only where it is waited for.
    fn step(&mut self, input: Input) -> Result<(), Fault> {
        if matches!(input, Input::Wake) {
            self.now = self.now.max(self.replica.next_wake().unwrap_or_default());
        }
        self.outputs = self.replica.step(self.now, input)?;
        self.blamed += self.outputs.iter().filter(|o| matches!(o, Output::Misbehaved { .. })).count();
        Ok(())
    }

    fn hear(&mut self, message: PeerMessage) -> Result<(), Fault> {
        self.step(Input::Peer { from: self.chain.address(0), message })
    }

    fn meet(&mut self, tip: Height) -> Result<(), Fault> {
        self.step(Input::PeerUp(self.chain.address(0)))?;
        self.hear(PeerMessage::Tip { height: tip })
    }

    /// Is given the blocks that it asks for until it is at a height, or stops.
    fn follow(&mut self, blocks: &[Certified], to: Height) -> Result<(), Fault> {
        self.meet(Height(blocks.len() as u64))?;
        for _ in 0..100 {
            if self.replica.status().height >= to {
                return Ok(());
            }
            let asked = self.outputs.iter().find_map(|o| match o {
                Output::Send { message: PeerMessage::CatchUp { from, to }, .. } => Some((*from, *to)),
                _ => None,
            });
            match asked {
                Some((from, last)) => {
                    let range = from.0 as usize - 1..(last.0 as usize).min(blocks.len());
                    self.hear(PeerMessage::Blocks(blocks[range].to_vec()))?;
                }
                None => self.step(Input::Wake)?,
            }
        }
        panic!("it stays at height {}", self.replica.status().height);
    }
}

#[test]
fn blocks_are_of_the_version_in_force_at_their_height() {
    let chain = chain();
    for height in 1..=chain.tip().0 {
        let version = chain.block(Height(height)).header.version;
        assert_eq!(version, if height < chain.from.0 { 1 } else { 2 }, "block {height}");
    }
    let mut follower = chain.open(PROTOCOL_NEWEST, Disk::default()).unwrap();
    follower.follow(&chain.blocks()[..chain.from.0 as usize - 2], Height(chain.from.0 - 2)).unwrap();
    let rules = |version, next| Rules { version, next, known: PROTOCOL_NEWEST };
    assert_eq!(follower.replica.status().rules, rules(1, Some((2, chain.from))));
    follower.follow(&chain.blocks(), chain.tip()).unwrap();
    assert_eq!(follower.replica.status().rules, rules(2, None));
    assert_eq!(follower.blamed, 0);
}

#[test]
fn an_older_program_stops_below_the_height_and_a_newer_one_goes_on_from_its_disk() {
    let chain = chain();
    let below = Height(chain.from.0 - 1);
    let mut old = chain.open(1, Disk::default()).unwrap();
    let stopped = Fault::NewerProtocol { height: chain.from, version: 2, known: 1 };
    assert_eq!(old.follow(&chain.blocks(), chain.tip()), Err(stopped.clone()));
    assert_eq!(old.replica.storage_ref().height(), below, "all that it could execute is stored");
    assert_eq!(old.blamed, 0, "nobody is at fault");
    let told = stopped.to_string();
    assert!(told.contains("install a newer program") && told.contains("version 2"), "{told}");

    // What it committed last was told before it stopped, and nothing was asked or signed after that.
    let Follower { replica, .. } = old;
    let disk = replica.into_storage();
    assert_eq!(chain.open(1, disk.clone()).map(|_| ()), Err(stopped), "not a block more after a restart");
    let mut new = chain.open(PROTOCOL_NEWEST, disk).unwrap();
    new.follow(&chain.blocks(), chain.tip()).unwrap();
    let mut fresh = chain.open(PROTOCOL_NEWEST, Disk::default()).unwrap();
    fresh.follow(&chain.blocks(), chain.tip()).unwrap();
    let (new, fresh) = (new.replica.status(), fresh.replica.status());
    assert_eq!((new.height, new.state_root), (fresh.height, fresh.state_root));
}

#[test]
fn the_block_below_the_height_is_told_before_the_older_program_stops() {
    let chain = chain();
    let below = Height(chain.from.0 - 1);
    let mut old = chain.open(1, Disk::default()).unwrap();
    old.follow(&chain.blocks()[..below.0 as usize], below).unwrap();
    let told = |o: &Output| matches!(o, Output::Committed(c, _) if c.height() == below);
    assert!(old.outputs.iter().any(told), "{:?}", old.outputs);
    assert_eq!(old.replica.next_wake(), Some(old.now), "it says so at once");
    assert!(matches!(old.step(Input::Wake), Err(Fault::NewerProtocol { .. })));
}

#[test]
fn an_older_program_far_behind_takes_in_no_state_of_a_version_that_it_does_not_know() {
    let chain = chain();
    let mut new = chain.open(PROTOCOL_NEWEST, Disk::default()).unwrap();
    new.follow(&chain.blocks(), chain.tip()).unwrap();
    new.hear(PeerMessage::AskSnapshot).unwrap();
    let offer = new.outputs.iter().find_map(|o| match o {
        Output::Send { message: PeerMessage::Snapshot(Some(offer)), .. } => Some(offer.clone()),
        _ => None,
    });
    let offer = offer.expect("it offers its newest state");
    for (known, expected) in [
        (PROTOCOL_NEWEST, Ok(())),
        (1, Err(Fault::NewerProtocol { height: chain.tip(), version: 2, known: 1 })),
    ] {
        let mut behind = chain.open(known, Disk::default()).unwrap();
        behind.replica.set_snapshot_rule(SnapshotRule { every: 1, behind: 1, ..SnapshotRule::default() });
        behind.meet(chain.tip()).unwrap();
        let asks = |o: &Output| matches!(o, Output::Send { message: PeerMessage::AskSnapshot, .. });
        assert!(behind.outputs.iter().any(asks), "{:?}", behind.outputs);
        let heard = behind.hear(PeerMessage::Snapshot(Some(offer.clone())));
        let heard = heard.and_then(|()| behind.step(Input::Wake));
        assert_eq!(heard, expected, "known: {known}");
        assert_eq!((behind.blamed, behind.replica.storage_ref().height()), (0, Height(0)));
    }
}

/// What a validator at the height below the change prevotes on a proposal whose block says a version.
fn prevote_on(chain: &Chain, version: u32) -> Option<BlockId> {
    let below = Height(chain.from.0 - 1);
    let mut block = chain.block(chain.from);
    block.header.version = version;
    // The one whose turn it is, and another: not the first, of whom it hears of the chain.
    let proposer = chain.keys.iter().position(|k| address(&k.public()) == block.header.builder).unwrap();
    let voter = if proposer == 1 { 2 } else { 1 };
    let timely = block.header.time;
    let mut voter = chain.open_at(timely, PROTOCOL_NEWEST, Some(voter), Disk::default()).unwrap();
    voter.follow(&chain.blocks()[..below.0 as usize], below).unwrap();
    for peer in (0..4).map(|i| chain.address(i)) {
        voter.step(Input::PeerUp(peer)).unwrap();
        voter.step(Input::Peer { from: peer, message: PeerMessage::Votes(None) }).unwrap();
    }
    let mut proposal = SignedProposal {
        header: block.header.clone(),
        round: 0,
        valid_round: None,
        proposer: chain.address(proposer),
        signature: chain.keys[proposer].sign(b"not yet"),
    };
    proposal.signature = chain.keys[proposer].sign(&proposal.message(&chain.genesis.hash()).0);
    let (from, mut vote) = (chain.address(proposer), None);
    let parts = Part::split(chain.from, 0, block.header.id(), &block.encode());
    let messages = std::iter::once(PeerMessage::Consensus(ConsensusMessage::Proposal(proposal)));
    for message in messages.chain(parts.into_iter().map(PeerMessage::Part)) {
        voter.step(Input::Peer { from, message }).unwrap();
        for output in &voter.outputs {
            if let Output::Broadcast(PeerMessage::Consensus(ConsensusMessage::Vote(v))) = output
                && v.kind == VoteKind::Prevote
            {
                vote = Some(v.block);
            }
        }
    }
    vote.expect("it votes on what it has seen whole")
}

#[test]
fn a_proposal_of_another_version_than_the_one_in_force_is_refused() {
    let chain = chain();
    assert_eq!(prevote_on(&chain, 2), Some(chain.block(chain.from).header.id()));
    for version in [0, 1, 3, u32::MAX] {
        assert_eq!(prevote_on(&chain, version), None, "version {version}");
    }
}

// ---- real processes

/// The older program.
const OLD: usize = 3;
/// How far above the newest block the version changes: room for a proposal and its approvals.
const AHEAD: u64 = 25;

struct Consortium {
    network: Network,
    dir: tempfile::TempDir,
    genesis: Genesis,
    sequence: u64,
}

impl Consortium {
    /// Four nodes, the last of which knows the first version alone.
    fn start() -> Consortium {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("passphrase"), "nobody relies on this\n").unwrap();
        let network = Network::found(&dir.path().join("network"), &dir.path().join("passphrase")).unwrap();
        (0..OLD).for_each(|i| network.start(i).unwrap());
        network.start_with(OLD, &["--newest-protocol", "1"]).unwrap();
        (0..=OLD).for_each(|i| drop(network.answer(i).unwrap()));
        let genesis = Genesis::load(network.genesis()).unwrap();
        Consortium { network, dir, genesis, sequence: 0 }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn party(&self, slug: &str) -> Party {
        let file = self.dir.path().join(format!("network/{slug}/operator.age"));
        let secrets: InstitutionSecrets =
            keyfile::open(&file, &"nobody relies on this".to_owned().into()).unwrap();
        Party { author: Author::Institution(secrets.institution()), key: secrets.operator().unwrap() }
    }

    /// Runs `assent` against the first node; gives its exit code and JSON.
    fn assent(&self, args: &str) -> (i32, Value) {
        let out = Command::new(program("assent"))
            .args(["--json", "--node", &self.network.url(0), "--passphrase-file", &self.path("passphrase")])
            .arg("--genesis")
            .arg(self.network.genesis())
            .args(args.split(' '))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let reply = serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("{args}: {text}{}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code().unwrap(), reply)
    }

    fn node(&self) -> Node {
        Node::connect(&self.network.url(0), &self.genesis).unwrap()
    }

    /// A transaction, waited for until it is final: its body's id and height, or why it was denied.
    fn run(
        &mut self,
        by: &Party,
        second: Option<&SecretKey>,
        action: Action,
    ) -> Result<(BodyId, u64), Denial> {
        self.sequence += 1;
        let now = jiff::Timestamp::now().as_millisecond() as u64;
        let expires_at = TimeMs(now + 200_000 + self.sequence);
        let body = Body { chain: self.genesis.hash().tag(), expires_at, author: by.author, action };
        let keys: Vec<_> = std::iter::once(&by.key).chain(second).collect();
        let envelope = Envelope::sign(&self.genesis.hash(), &body, &keys);
        let (done, _) = self.node().submit(&envelope).unwrap();
        match done.denial() {
            None => Ok((done.tx.body_id(), done.height.0)),
            Some(code) => Err(Denial::from_number(code).unwrap()),
        }
    }

    /// Makes the chain go on by a block; gives its height.
    fn block(&mut self) -> u64 {
        let hospital = self.party("hospital-a");
        let item = RegisterItem {
            code: 1_000 + self.sequence as u32,
            scope: 9,
            category: Category::TestResult,
            level: Level::Moderate,
            opening: Opening::Prohibited,
            recipients: List::empty(),
        };
        self.run(&hospital, None, Action::RegisterItem(item)).unwrap().1
    }

    /// A use by order, of which the person can be told at once.
    fn use_by_order(&mut self) -> PermitId {
        let [bureau, a, b, insurer] =
            ["bureau", "hospital-a", "hospital-b", "insurer"].map(|s| self.party(s));
        let key = secret("person");
        let account = self.run(&bureau, Some(&key), enrol(&a, &key)).unwrap().0;
        let person = Party { author: Author::Account(AccountId(account.0)), key };
        let item = RegisterItem {
            code: 1,
            scope: 1,
            category: Category::ClaimDocument,
            level: Level::Moderate,
            opening: Opening::Prohibited,
            recipients: List::empty(),
        };
        self.run(&a, None, Action::RegisterItem(item)).unwrap();
        let (item, held) = (ItemId::of(1, 1), record(&person, 1, 100));
        let anchored = Action::AnchorRecords(anchor_of(item, std::slice::from_ref(&held), &[]));
        let batch = BatchId(self.run(&a, None, anchored).unwrap().0.0);
        let terms = IssueOrder {
            basis: OrderBasis::InsuranceSupervision,
            document: digest("order"),
            beneficiary: insurer.institution(),
            cosigner: b.institution(),
            account: Some(person.account()),
            items: list(vec![item]),
            categories: List::empty(),
            data_from: Day(100),
            data_to: Day(100),
            actions: list(vec![UseAction::Read]),
            output: Detail::Masked,
            max_level: Level::Moderate,
            not_after: TimeMs(u64::MAX),
            notice_from: TimeMs(0),
        };
        let order = self.run(&bureau, Some(&b.key), Action::IssueOrder(Box::new(terms))).unwrap().0;
        let proof = RecordProof { batch, record: held, index: 0, path: List::empty() };
        let ask = RequestAccess {
            grant: None,
            item,
            account: Some(person.account()),
            case: None,
            purpose: Purpose::Legal,
            action: UseAction::Read,
            output: Detail::Masked,
            records: list(vec![proof]),
            staff: Commitment(digest("staff")),
            person: None,
            emergency: None,
            order: Some(OrderId(order.0)),
        };
        PermitId(self.run(&insurer, None, Action::RequestAccess(Box::new(ask))).unwrap().0.0)
    }

    fn tell(&mut self, permit: PermitId) -> Result<u64, Denial> {
        let insurer = self.party("insurer");
        let notify = Action::NotifyPerson(NotifyPerson { permit, notice: digest("told") });
        self.run(&insurer, None, notify).map(|(_, height)| height)
    }

    fn signers(&self, height: u64) -> Vec<Address> {
        let mut signers = Vec::new();
        let follow = self.node().follow(Height(height), Height(height), |block| {
            signers = block.signers;
            Ok(true)
        });
        follow.unwrap();
        signers
    }

    fn address(&self, node: usize) -> Address {
        let text = std::fs::read_to_string(self.network.nodes[node].home.join("consensus.key")).unwrap();
        address(&SecretKey::from_bytes(&Hash::from_hex(text.trim()).unwrap().0).public())
    }

    /// Goes on until a block is certified with a node's vote.
    fn votes(&mut self, node: usize) {
        let (deadline, who) = (Instant::now() + PATIENCE, self.address(node));
        loop {
            let height = self.block();
            // The others go on without one that lags: they shall not come to where the version changes meanwhile.
            self.network.wait_for_height(node, height).unwrap();
            if self.signers(height).contains(&who) {
                return;
            }
            assert!(Instant::now() < deadline, "its vote is in no certificate up to block {height}");
        }
    }

    /// Has version 2 decided; gives its height.
    fn decide(&self) -> u64 {
        let operator =
            |slug: &str| format!("--keyfile {}", self.path(&format!("network/{slug}/operator.age")));
        let (bureau, from) = (operator("bureau"), format!("--from +{AHEAD}"));
        let (exit, dry) = self.assent(&format!("govern propose protocol --to 3 {from} --dry-run"));
        assert_eq!((exit, dry["code_name"].as_str()), (2, Some("BadProtocol")), "{dry}");
        let (exit, dry) = self.assent(&format!("govern propose protocol --to 2 {from} --dry-run"));
        assert_eq!((exit, &dry["refused"]), (0, &Value::Bool(false)), "{dry}");
        let (exit, proposed) = self.assent(&format!("govern propose protocol --to 2 {from} {bureau}"));
        assert_eq!(exit, 0, "{proposed}");
        let id = proposed["proposal"].as_str().unwrap();
        for slug in ["hospital-a", "hospital-b"] {
            let (exit, approved) = self.assent(&format!("govern approve {id} --yes {}", operator(slug)));
            assert_eq!((exit, &approved["enacted"]), (0, &Value::Bool(slug == "hospital-b")), "{approved}");
        }
        let (_, shown) = self.assent("govern show");
        assert_eq!(
            (&shown["protocol"], &shown["next_protocol"]["version"]),
            (&1.into(), &2.into()),
            "{shown}"
        );
        shown["next_protocol"]["from"].as_u64().unwrap()
    }
}

#[test]
fn a_node_of_the_older_version_and_newer_ones_are_one_network_up_to_the_height() {
    let mut c = Consortium::start();
    let permit = c.use_by_order();
    for _ in 0..2 {
        c.tell(permit).expect("by the first version she can be told again");
    }
    c.votes(OLD);

    let from = c.decide();
    let told = |s: &Value| s["next_protocol"] == 2 && s["known_protocol"] == 1 && s["protocol"] == 1;
    c.network.wait_for(OLD, "word of the version to come", told).unwrap();
    c.votes(OLD);
    let here = c.network.answer(OLD).expect("it runs still: the version is not in force");
    assert!(here["height"].as_u64().unwrap() < from, "{here}");
    // The log is written a moment after the status knows.
    c.network.wait_for(OLD, "warning in its log", |_| c.network.log(OLD).contains("E-TOO-OLD")).unwrap();
    assert!(!c.network.log(0).contains("E-TOO-OLD"));

    // The others go on; it stops below the height, says why, and does the same when it is started again.
    while c.block() < from {}
    assert_eq!(c.network.wait_for_end(OLD).unwrap(), Some(4));
    let log = c.network.log(OLD);
    let why = format!("block {from} is made by protocol version 2, and this program knows versions up to 1");
    assert!(log.contains(&why) && log.contains("install a newer program"), "{log}");
    c.network.start_with(OLD, &["--newest-protocol", "1"]).unwrap();
    assert_eq!(c.network.wait_for_end(OLD).unwrap(), Some(4));

    // The second version has its effect.
    c.tell(permit).expect("the first time since");
    assert_eq!(c.tell(permit), Err(Denial::AlreadyNotified));
    assert_eq!(c.assent("govern show").1["protocol"], 2);

    // With the newer program it goes on from its folder, to the same state, and votes.
    c.network.start(OLD).unwrap();
    let tip = c.block();
    c.network.wait_for_height(OLD, tip).unwrap();
    let same = |s: &Value| {
        let other = c.network.answer(0).unwrap();
        (&s["height"], &s["state_root"]) == (&other["height"], &other["state_root"]) && s["protocol"] == 2
    };
    c.network.wait_for(OLD, "the state of the others", same).unwrap();
    c.votes(OLD);
    for node in 0..OLD {
        let log = c.network.log(node);
        assert!(!log.contains("misbehav") && !log.contains("banned"), "nobody is blamed: {log}");
    }
}
