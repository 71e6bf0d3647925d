//! Real processes on loopback whose disks are lost or damaged: a node joins by a whole state and gets the older
//! blocks afterwards; a damaged or diverged one stops with the command that repairs it, and is back after that
//! command. What the operator is shown meanwhile is part of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use assent_client::error::Failure;
use assent_client::keyfile::{self, InstitutionSecrets};
use assent_client::rpc::{Final, Node};
use assent_genesis::Genesis;
use assent_proto::evidence::{Claim, Evidence};
use assent_proto::field::Message;
use assent_proto::state::Object;
use assent_proto::transaction::{Action, Author, Body};
use assent_proto::validators::address;
use assent_proto::{Address, BodyId, Envelope, Hash, Height, Leaf, ObjectRef, SecretKey, TimeMs};
use assent_tests::clients::something;
use assent_tests::network::{Network, PATIENCE, program};
use rocksdb::{DB, IteratorMode, Options};
use serde_json::Value;

/// Everybody here offers and takes states in early.
const EARLY: [&str; 4] = ["--snapshot-behind", "32", "--snapshot-every", "64"];
/// Blocks that are made while a node is away: so many that fetching the older ones takes a while.
const BLOCKS: u64 = 180;
/// The node to which everything happens, and one that is up all the time.
const VICTIM: usize = 3;
const OTHER: usize = 1;
/// How often a disk is lost at most until it is seen in time how what was on it comes back.
const LOST_MAX: u32 = 5;
/// The exit code of a node whose database has to be repaired.
const REPAIR: i32 = 3;

/// A running network in a folder of its own.
struct Devnet {
    network: Network,
    genesis: Genesis,
    /// Hospital A, by whose transactions the chain goes on.
    secrets: InstitutionSecrets,
    /// Connections to the nodes, made once each.
    clients: Vec<Option<Node>>,
    items: u32,
    /// How often the victim's disk was lost.
    lost: u32,
    dir: tempfile::TempDir,
}

impl Devnet {
    fn start(arguments: &[&str]) -> Devnet {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = dir.path().join("passphrase");
        fs::write(&passphrase, "nobody relies on this\n").unwrap();
        let network = Network::found(&dir.path().join("network"), &passphrase).unwrap();
        (0..4).for_each(|i| network.start_with(i, arguments).unwrap());
        (0..4).for_each(|i| drop(network.answer(i).unwrap()));
        let genesis = Genesis::load(network.genesis()).unwrap();
        let keyfile = dir.path().join("network/hospital-a/operator.age");
        let secrets = keyfile::open(&keyfile, &"nobody relies on this".to_owned().into()).unwrap();
        let clients = (0..4).map(|_| None).collect();
        Devnet { network, genesis, secrets, clients, items: 0, lost: 0, dir }
    }

    fn home(&self) -> &Path {
        &self.network.nodes[VICTIM].home
    }

    fn client(&mut self, node: usize) -> &mut Node {
        let connect = || Node::connect(&self.network.url(node), &self.genesis).unwrap();
        self.clients[node].get_or_insert_with(connect)
    }

    /// A transaction through a node, waited for until it is final.
    fn register_at(&mut self, node: usize) -> Final {
        self.items += 1;
        let now = jiff::Timestamp::now().as_millisecond() as u64;
        let body = Body {
            chain: self.genesis.hash().tag(),
            expires_at: TimeMs(now + 300_000),
            author: Author::Institution(self.secrets.institution()),
            action: Action::RegisterItem(something(self.items)),
        };
        let key = self.secrets.operator().unwrap();
        let envelope = Envelope::sign(&self.genesis.hash(), &body, &[&key]);
        let (done, _) = self.client(node).submit(&envelope).unwrap();
        assert_eq!(done.denial(), None);
        done
    }

    fn register(&mut self) -> Final {
        self.register_at(OTHER)
    }

    /// Makes blocks up to a height; gives the transactions.
    fn grow_to(&mut self, height: u64) -> Vec<Final> {
        let mut all = vec![self.register()];
        while all.last().is_none_or(|newest| newest.height.0 < height) {
            all.push(self.register());
        }
        all
    }

    /// A final transaction as a node has it, its evidence verified.
    fn seen(&mut self, node: usize, id: BodyId) -> Result<Option<Final>, Failure> {
        self.client(node).transaction(id, false)
    }

    fn address(&self, node: usize) -> Address {
        let text = fs::read_to_string(self.network.nodes[node].home.join("consensus.key")).unwrap();
        address(&SecretKey::from_bytes(&Hash::from_hex(text.trim()).unwrap().0).public())
    }

    /// Lets the chain go on until a node's own vote certifies a block.
    fn takes_part(&mut self, node: usize) {
        let (deadline, who) = (Instant::now() + PATIENCE, self.address(node));
        let mut signers = Vec::new();
        while !signers.contains(&who) {
            assert!(Instant::now() < deadline, "its votes are in no certificate:\n{}", self.tail());
            let height = self.register().height;
            let follow = self.client(OTHER).follow(height, height, |block| {
                signers = block.signers;
                Ok(true)
            });
            follow.unwrap();
        }
    }

    /// The chain goes on although another validator is gone: three of four are a quorum only with this one.
    fn is_needed(&mut self) {
        self.network.kill(0).unwrap();
        let height = self.register_at(VICTIM).height.0;
        (1..4).for_each(|i| self.network.wait_for_height(i, height).unwrap());
        let roots: Vec<_> = (1..4).map(|i| self.block_id(i, Height(height))).collect();
        assert!(roots.iter().all(|r| *r == roots[0]), "{roots:?}");
    }

    fn block_id(&mut self, node: usize, height: Height) -> String {
        let mut id = String::new();
        let follow = self.client(node).follow(height, height, |block| {
            id = block.id.to_string();
            Ok(true)
        });
        follow.unwrap();
        id
    }

    /// The victim is gone, and all that it wrote with it.
    fn lose_the_disk(&mut self) {
        self.network.kill(VICTIM).unwrap();
        self.clients[VICTIM] = None;
        self.lost += 1;
        let aside = self.dir.path().join(format!("lost-{}", self.lost));
        fs::create_dir(&aside).unwrap();
        for lost in ["db", "votes.log"] {
            fs::rename(self.home().join(lost), aside.join(lost)).unwrap();
        }
    }

    /// The log of the victim since this many bytes.
    fn log_since(&self, from: usize) -> String {
        self.network.log(VICTIM)[from..].to_owned()
    }

    /// Waits for words in the log of the victim: they come up to half a second after what they are about.
    fn wait_for_log(&self, from: usize, told: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log_since(from).contains(told) {
            assert!(Instant::now() < deadline, "{told}: {}", self.tail());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn tail(&self) -> String {
        let log = self.network.log(VICTIM);
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// What `assentd status` prints.
    fn status_text(&self) -> String {
        let url = self.network.url(VICTIM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let out = Command::new(program("assentd")).args(["status", "--rpc", &url]).output().unwrap();
            if out.status.success() {
                return String::from_utf8(out.stdout).unwrap();
            }
            // It may be too busy to answer at once.
            assert!(Instant::now() < deadline, "{out:?}");
        }
    }

    /// What a metric stands at; it follows what it tells of by up to half a second.
    fn metric(&self, name: &str) -> u64 {
        let page = self.network.metrics(VICTIM).unwrap();
        let line =
            page.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {page}"));
        line.trim().parse().unwrap()
    }

    fn wait_for_metric(&self, name: &str, wished: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name) != wished {
            assert!(Instant::now() < deadline, "{name} is {}, not {wished}", self.metric(name));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Runs the command that a stopped node named, as it stands in its log.
    fn run_what_it_names(&self, log: &str) -> Output {
        let named = log.lines().find_map(|l| l.strip_prefix("Repair: ")).unwrap_or_else(|| panic!("{log}"));
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", program("assentd").parent().unwrap().display());
        Command::new("sh").args(["-c", named]).env("PATH", path).stdin(Stdio::null()).output().unwrap()
    }

    /// The stopped victim is started, finds what happened to its disk, and is back after the command that it names;
    /// gives what it said.
    fn stops_and_is_repaired(&mut self) -> String {
        let from = self.network.log(VICTIM).len();
        self.network.start(VICTIM).unwrap();
        assert_eq!(self.network.wait_for_end(VICTIM).unwrap(), Some(REPAIR), "{}", self.tail());
        let log = self.log_since(from);
        assert!(log.contains("E-DAMAGED"), "{log}");
        self.is_repaired(&log);
        log
    }

    fn is_repaired(&mut self, log: &str) {
        let databases = self.databases();
        let done = self.run_what_it_names(log);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(self.databases(), databases + 1, "the old database is kept");
        self.clients[VICTIM] = None;
        self.network.start(VICTIM).unwrap();
        let newest = self.register().height.0;
        self.network.wait_for_height(VICTIM, newest).unwrap();
        self.takes_part(VICTIM);
    }

    fn databases(&self) -> usize {
        let names = fs::read_dir(self.home()).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|n| n.to_str().is_some_and(|n| n == "db" || n.starts_with("db."))).count()
    }

    /// The files of the victim's database whose names begin or end so.
    fn files(&self, named: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let all = fs::read_dir(self.home().join("db")).unwrap().map(|e| e.unwrap().path());
        let found: Vec<_> =
            all.filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(&named)).collect();
        assert!(!found.is_empty(), "no such file");
        found
    }
}

/// R29, for a node that joins by a whole state: its disk is lost, it takes in the state of the others, votes, and
/// proves what came after; what came before is fetched in the background, and then it proves that too.
#[test]
fn a_node_joins_by_a_whole_state_and_gets_the_older_blocks_afterwards() {
    let mut net = Devnet::start(&EARLY);
    let early = net.register();
    net.network.wait_for_height(VICTIM, early.height.0).unwrap();
    net.lose_the_disk();
    let begun = Instant::now();
    let all = net.grow_to(BLOCKS);
    let last = all.last().unwrap();
    println!("{} blocks in {:.1?}", last.height.0, begun.elapsed());

    let (begun, from) = (Instant::now(), net.network.log(VICTIM).len());
    let taking = loop {
        net.network.start_with(VICTIM, &EARLY).unwrap();
        net.network.answer(VICTIM).unwrap();
        if let Some(taking) = what_is_missing_is_shown(&mut net, &all) {
            break taking;
        }
        // It had everything before anybody could look: once more.
        assert!(net.lost < LOST_MAX, "nothing is ever seen to be missing:\n{}", net.tail());
        net.lose_the_disk();
    };
    println!("a state that was being taken in was seen {taking} times; joined after {:.1?}", begun.elapsed());
    net.network.wait_for_height(VICTIM, last.height.0).unwrap();
    net.takes_part(VICTIM);
    let after = net.register();
    net.network.wait_for_height(VICTIM, after.height.0).unwrap();
    let seen = net.seen(VICTIM, after.tx.body_id()).unwrap().unwrap();
    assert_eq!((seen.height, seen.events), (after.height, after.events), "it proves what came after");

    let complete = |s: &Value| s["missing_blocks"] == 0 && s["taking"].is_null();
    net.network.wait_for(VICTIM, "end of the older blocks", complete).unwrap();
    println!("complete after {:.1?}", begun.elapsed());
    net.wait_for_metric("assent_missing_blocks ", 0);
    net.wait_for_metric("assent_snapshot_height ", 0);
    let seen = net.seen(VICTIM, early.tx.body_id()).unwrap().unwrap();
    assert_eq!((seen.height, seen.events), (early.height, early.events), "and what was before");
    every_block_is_the_same(&mut net, last.height);
    for told in ["taking in a whole state", "a state was taken in whole", "all older blocks are here"] {
        net.wait_for_log(from, told);
    }
    net.is_needed();
}

/// Waits until older blocks are missing and holds the others there, so that what the operator is shown can be read;
/// gives how often a state was seen being taken in, and nothing if no block was missing any more by then.
fn what_is_missing_is_shown(net: &mut Devnet, all: &[Final]) -> Option<usize> {
    let (deadline, mut taking) = (Instant::now() + PATIENCE, 0);
    loop {
        // One that is busy taking in a state may have no answer.
        let status = net.client(VICTIM).status();
        taking += usize::from(status.as_ref().is_ok_and(|s| s.taking.is_some()));
        if status.as_ref().is_ok_and(|s| s.missing_blocks > 0) {
            break;
        }
        if status.as_ref().is_ok_and(|s| s.taking.is_none() && s.height >= all[all.len() - 1].height.0) {
            return None;
        }
        let status = status.map(|s| s.height);
        assert!(Instant::now() < deadline, "nothing is missing: {status:?}\n{}", net.tail());
    }
    (0..3).for_each(|i| net.network.pause(i).unwrap());
    let Some((status, missing)) = what_is_shown(net) else {
        (0..3).for_each(|i| net.network.resume(i).unwrap());
        return None;
    };
    assert!(missing < BLOCKS + 64, "{status}");
    // What is not here yet is not called unknown; what is above the state is to come as always.
    let height = Height(status["height"].as_u64().unwrap());
    let older: Vec<_> = all.iter().filter(|t| t.height <= height).collect();
    let mut later = 0;
    for transaction in &older {
        match net.seen(VICTIM, transaction.tx.body_id()) {
            Err(error) if error.to_string().contains("ask again later") => later += 1,
            Err(error) => panic!("{error}"),
            Ok(None) => panic!("what an older block holds is called unknown"),
            Ok(Some(_)) => {}
        }
    }
    let others = height.0 - older.len() as u64;
    assert!(later <= missing && missing <= later + others, "{later} and at most {others} make {missing}");
    println!("{missing} blocks are missing, {later} of {} transactions not here yet", older.len());
    (0..3).for_each(|i| net.network.resume(i).unwrap());
    Some(taking)
}

/// The status, and how many blocks are missing as status, text and metric say alike: what was on its way when the others
/// were paused still comes in. Nothing if no block is missing any more.
fn what_is_shown(net: &Devnet) -> Option<(Value, u64)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (before, text) = (net.network.answer(VICTIM).unwrap(), net.status_text());
        let (metric, after) = (net.metric("assent_missing_blocks "), net.network.answer(VICTIM).unwrap());
        let missing = after["missing_blocks"].as_u64().unwrap();
        let told = text.contains(&format!("{missing} blocks are still missing"));
        if missing == 0 {
            return None;
        }
        if told && metric == missing && before["missing_blocks"] == missing {
            return Some((after, missing));
        }
        assert!(Instant::now() < deadline, "{after}\n{text}\nmetric {metric}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Both nodes have the same events in every block; a client checks each block's events against its header.
fn every_block_is_the_same(net: &mut Devnet, to: Height) {
    let mut chains = Vec::new();
    for node in [OTHER, VICTIM] {
        let mut blocks = Vec::new();
        let follow = net.client(node).follow(Height(1), to, |block| {
            blocks.push((block.id, block.events.len()));
            Ok(true)
        });
        follow.unwrap();
        assert_eq!(blocks.len() as u64, to.0);
        chains.push(blocks);
    }
    assert!(chains[0] == chains[1], "two histories");
}

/// Bytes flip in the files of a stopped node's database: it does not go on with them, says so with a code and the
/// command, and is back after exactly that command, whatever the file.
#[test]
fn a_damaged_database_is_found_and_repaired_by_the_command_that_it_names() {
    let mut net = Devnet::start(&[]);
    net.grow_to(30);

    // What is in the log of the database is moved into tables at the next start.
    stop_at_the_tip(&mut net);
    flip(&net.files(|n| n.ends_with(".log")), 3);
    net.stops_and_is_repaired();

    stop_at_the_tip(&mut net);
    flip(&net.files(|n| n.starts_with("MANIFEST")), 3);
    net.stops_and_is_repaired();

    stop_at_the_tip(&mut net);
    net.network.start(VICTIM).unwrap();
    net.network.answer(VICTIM).unwrap();
    net.network.stop(VICTIM).unwrap();
    flip(&net.files(|n| n.ends_with(".sst")), 40);
    net.stops_and_is_repaired();

    // A row that is whole and not what was written: no checksum of the disk finds it, the root of the state does.
    stop_at_the_tip(&mut net);
    let at = lengthen_a_trail(&net.home().join("db"));
    println!("changed {at:?} on the disk");
    let log = net.stops_and_is_repaired();
    assert!(log.contains("the stored state at height"), "{log}");
    net.is_needed();
}

/// A byte flips in the memory of a running validator: the next block comes out differently there. It signs nothing
/// more, says where it parted, and stops; the command that it names brings it back.
#[test]
fn a_node_whose_memory_fails_parts_from_the_chain_and_is_repaired() {
    let mut net = Devnet::start(&[]);
    let newest = net.grow_to(10).last().unwrap().height.0;
    net.network.wait_for_height(VICTIM, newest).unwrap();
    let object = ObjectRef::from(net.secrets.institution());
    let (content, at) = content_of(&mut net, object);

    let from = net.network.log(VICTIM).len();
    net.network.pause(VICTIM).unwrap();
    let flipped = flip_in_memory(net.network.pid(VICTIM).unwrap(), &content, at);
    println!("{} bytes of content stood {flipped} times in its memory", content.len());
    assert!(flipped > 0);
    net.network.resume(VICTIM).unwrap();
    // Written in the institution's own name: its trail, and so its leaf, changes.
    let parted = net.register().height.0;
    assert_eq!(net.network.wait_for_end(VICTIM).unwrap(), Some(REPAIR), "{}", net.tail());
    let log = net.log_since(from);
    assert!(log.contains("E-DIVERGED"), "{log}");
    assert!(log.contains("this node has parted from the chain; it signs nothing more"), "{log}");

    let report = net.home().join("divergence.json");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    println!("{report:#}");
    assert!(report["height"].as_u64().unwrap() <= parted, "{report}");
    assert_eq!(report["object"]["id"], object.id.to_string(), "{report}");
    assert_eq!(report["damaged_in_memory"][0]["id"], object.id.to_string(), "{report}");
    assert_ne!(report["leaf_here"], report["leaf_of_the_others"], "{report}");
    net.is_repaired(&log);
    let height = report["height"].as_u64().unwrap();
    assert!(net.home().join(format!("db.diverged-{height}/divergence.json")).exists());
    net.is_needed();
}

/// What the state holds of an institution, proved, and where in it stands the key to which packages are encrypted:
/// no rule reads that, and any 32 bytes will do.
fn content_of(net: &mut Devnet, object: ObjectRef) -> (Vec<u8>, usize) {
    let seen = net.client(OTHER).object(object).unwrap();
    let evidence = <Evidence as Message>::decode(&seen.evidence).unwrap();
    let (Claim::State(claim), Some(Object::Institution(institution))) = (evidence.claim, seen.object) else {
        panic!("there is no such institution");
    };
    let (content, key) = (claim.leaf.content.to_vec(), institution.encryption_key.0);
    let at = content.windows(32).position(|bytes| bytes == key).unwrap();
    (content, at)
}

/// Stops the victim as an operator would, once it has all blocks.
fn stop_at_the_tip(net: &mut Devnet) {
    let newest = net.register().height.0;
    net.network.wait_for_height(VICTIM, newest).unwrap();
    net.network.stop(VICTIM).unwrap();
}

/// Flips a bit in each of so many places, evenly over each file.
fn flip(files: &[PathBuf], places: usize) {
    for path in files {
        let mut bytes = fs::read(path).unwrap();
        for place in 1..=places {
            let at = bytes.len() * place / (places + 1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
            }
        }
        fs::write(path, bytes).unwrap();
    }
}

/// Makes the trail of one leaf in a closed database longer by one than it is; gives whose.
fn lengthen_a_trail(path: &Path) -> ObjectRef {
    let options = Options::default();
    let tables = DB::list_cf(&options, path).unwrap();
    let db = DB::open_cf(&options, path, &tables).unwrap();
    let tables = ["leaves", "other-leaves"].map(|name| db.cf_handle(name).unwrap());
    let rows = tables.iter().find_map(|t| Some((*t, db.iterator_cf(*t, IteratorMode::Start).next()?)));
    let (table, row) = rows.expect("one of the two tables holds the state");
    let (key, value) = row.unwrap();
    let mut leaf = Leaf::decode(&value).unwrap();
    leaf.trail.length += 1;
    db.put_cf(table, key, leaf.encode()).unwrap();
    leaf.object
}

/// Flips a bit at `at` of each copy of `content` in the memory of a process that stands still; gives how many there
/// were.
fn flip_in_memory(pid: u32, content: &[u8], at: usize) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter_map(heap).map(|(from, to)| flip_between(&mut memory, from, to, (content, at))).sum()
}

/// The bounds of a mapping that holds data of the process alone: readable, writable, private, of no file.
fn heap(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let file = fields.nth(2)? != "0";
    let special = fields.next().is_some_and(|name| name != "[heap]");
    let (from, to) = range.split_once('-')?;
    let hex = |s| u64::from_str_radix(s, 16).ok();
    (rights == "rw-p" && !file && !special).then_some((hex(from)?, hex(to)?))
}

fn flip_between(memory: &mut File, from: u64, to: u64, (content, at): (&[u8], usize)) -> usize {
    let mut bytes = vec![0; (to - from) as usize];
    memory.seek(SeekFrom::Start(from)).unwrap();
    if memory.read_exact(&mut bytes).is_err() {
        return 0; // a mapping without memory behind it
    }
    let places: Vec<_> = (0..bytes.len().saturating_sub(content.len()))
        .filter(|at| bytes[*at..].starts_with(content))
        .collect();
    for place in &places {
        memory.seek(SeekFrom::Start(from + (place + at) as u64)).unwrap();
        memory.write_all(&[content[at] ^ 1]).unwrap();
    }
    places.len()
}
