//! Four real processes on hosts of their own, over a wire like a wide-area network's: 20 ms from one to the other,
//! one frame of a hundred lost. The wire is cut in two, one host is cut off, a link flaps, a process is killed, while
//! clients go on; then the checker reads it all.
//!
//! It needs the right to make network namespaces (root, or CAP_NET_ADMIN and CAP_SYS_ADMIN), bridges and VXLAN. Where
//! that is missing it says so on standard error, in spite of the capture of passing tests.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assent_client::rpc::api::TransactionStatus;
use assent_genesis::Genesis;
use assent_proto::{Action, BodyId, Height};
use assent_tests::checker;
use assent_tests::clients::{self, Cast, Clients, History, Outcome, Signed};
use assent_tests::hosts::{self, Hosts};
use assent_tests::network::{Network, PATIENCE};

/// For how long a network that must not go on is watched. It cannot be wrong at any length: only what is final ends it.
const WATCH: Duration = Duration::from_secs(6);
const POLL: Duration = Duration::from_millis(100);
const PASSPHRASE: &str = "nobody relies on this";

/// Says a line past the capture of output.
#[allow(clippy::explicit_write, reason = "eprintln is captured")]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// A network on hosts, with clients.
struct Field {
    network: Network,
    clients: Clients,
    dir: tempfile::TempDir,
}

impl Field {
    async fn lay_out(count: usize) -> Field {
        let hosts = Hosts::new(count, 20).unwrap();
        hosts.wire().edit(|_, _, path| {
            path.delay = Duration::from_millis(20);
            path.loss_per_mille = 10;
        });
        let dir = tempfile::tempdir().unwrap();
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
        let network = Network::found_on(hosts, &dir.path().join("network"), &passphrase).unwrap();
        network.start_all().unwrap();
        let genesis = Arc::new(Genesis::load(network.genesis()).unwrap());
        let cast = Cast::open(&network.dir, &genesis, PASSPHRASE).unwrap();
        let history = Arc::new(History::create(&dir.path().join("history.jsonl")).unwrap());
        let urls: Vec<_> = (0..count).map(|i| network.url(i)).collect();
        let clients = Clients::new(genesis, cast, &urls, history).unwrap();
        Field { network, clients, dir }
    }

    fn hosts(&self) -> &Hosts {
        self.network.hosts.as_ref().unwrap()
    }

    /// A transaction that nothing stands in the way of.
    fn probe(&self) -> Signed {
        let cast = &self.clients.cast;
        let key = assent_proto::SecretKey::from_bytes(
            &assent_ledger::testing::digest(&format!("probe {}", self.clients.fresh())).0,
        );
        let action: Action = assent_ledger::testing::enrol(&cast.hospital_b, &key);
        self.clients.sign(&cast.bureau, action, Some(&key)).about("probe", None)
    }

    /// Hands a probe in through this door, in the background.
    fn send_probe(&self, door: usize) -> (BodyId, tokio::task::JoinHandle<Outcome>) {
        // Only through this door: the client must not find its way round the cut.
        let mut clients = self.clients.clone();
        clients.doors = vec![self.clients.doors[door].clone()];
        let probe = self.probe();
        (probe.id, tokio::spawn(async move { clients.submit("probe", 0, &probe).await }))
    }

    async fn height(&self, i: usize) -> u64 {
        clients::status(&self.clients.doors[i]).await.map_or(0, |s| s.height)
    }

    /// Until the condition holds at a node.
    async fn wait_for(&self, i: usize, what: &str, wished: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wished(self.height(i).await) {
            assert!(
                Instant::now() < deadline,
                "node {i}: no {what}; it stands at {}\n{}",
                self.height(i).await,
                tail(&self.network.log(i))
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// A probe becomes final through this door; answers in which block.
    async fn goes_on(&self, door: usize) -> Height {
        let begun = Instant::now();
        let (_, probe) = self.send_probe(door);
        applied(tokio::time::timeout(PATIENCE, probe).await.expect("it goes on").unwrap(), begun)
    }

    /// Nothing that was handed in at these doors becomes final there.
    async fn stands_still(&self, probes: &[(usize, BodyId)]) {
        let begun = Instant::now();
        while begun.elapsed() < WATCH {
            for (door, id) in probes {
                let fate = clients::fate(&self.clients.doors[*door], id).await;
                assert!(fate != Some(TransactionStatus::Final), "final at node {door} without a quorum");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn applied(outcome: Outcome, begun: Instant) -> Height {
    match outcome {
        Outcome::Final { height, code: 0 } => {
            say(&format!("  final after {:.1?}", begun.elapsed()));
            height
        }
        other => panic!("{other:?} after {:?}", begun.elapsed()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_validators_survive_a_bad_network() {
    if let Err(why) = hosts::possible() {
        say(&format!("skipped: four_validators_survive_a_bad_network: {why}"));
        return;
    }
    let field = Field::lay_out(4).await;
    let catalogue = clients::lay_ground(&field.clients).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut persons = tokio::task::JoinSet::new();
    for n in 0..6 {
        let pace = Duration::from_millis(100);
        persons.spawn(clients::live(field.clients.clone(), n, 7, catalogue, stop.clone(), pace));
    }
    halves(&field).await;
    one_cut_off(&field).await;
    a_link_flaps(&field).await;
    one_is_killed(&field).await;
    one_dies_unheard(&field).await;

    stop.store(true, Ordering::Relaxed);
    while persons.join_next().await.transpose().unwrap().is_some() {}
    everything_holds(&field).await;
}

/// 2|2: neither side goes on; healed, both do.
async fn halves(field: &Field) {
    say("two against two");
    field.hosts().wire().partition(&[&[0, 1], &[2, 3]]);
    let (left, right) = (field.send_probe(0), field.send_probe(2));
    field.stands_still(&[(0, left.0), (2, right.0)]).await;
    let healed = Instant::now();
    field.hosts().wire().heal();
    applied(left.1.await.unwrap(), healed);
    applied(right.1.await.unwrap(), healed);
}

/// 1|3: the three go on, the one does not; healed, it catches up.
async fn one_cut_off(field: &Field) {
    say("one against three");
    field.hosts().wire().partition(&[&[0, 1, 2]]);
    let alone = field.send_probe(3);
    let mut last = Height(0);
    for door in 0..3 {
        last = field.goes_on(door).await;
    }
    field.stands_still(&[(3, alone.0)]).await;
    assert!(field.height(3).await < last.0, "it has what was decided without it");
    let healed = Instant::now();
    field.hosts().wire().heal();
    field.wait_for(3, "catching up", |h| h >= last.0).await;
    say(&format!("  caught up after {:.1?}", healed.elapsed()));
    applied(alone.1.await.unwrap(), healed);
}

/// A link that goes down and up every second: the others go on, and it is there again in the end.
async fn a_link_flaps(field: &Field) {
    say("a flapping link");
    for _ in 0..5 {
        field.hosts().set_link(1, false).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        field.hosts().set_link(1, true).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let last = field.goes_on(0).await;
    let begun = Instant::now();
    field.wait_for(1, "catching up", |h| h >= last.0).await;
    say(&format!("  caught up after {:.1?}", begun.elapsed()));
}

/// kill -9: the three go on; started again, it catches up.
async fn one_is_killed(field: &Field) {
    say("kill -9");
    field.network.kill(2).unwrap();
    let last = field.goes_on(0).await;
    field.network.start(2).unwrap();
    let begun = Instant::now();
    field.wait_for(2, "catching up", |h| h >= last.0).await;
    say(&format!("  caught up after {:.1?}", begun.elapsed()));
}

/// A host is cut off, and its process ends without the others' hearing of it; it is back while they still believe in
/// their connections to the old one. All are connected to all again, and the new one takes part.
async fn one_dies_unheard(field: &Field) {
    say("a death unheard");
    field.hosts().wire().partition(&[&[0, 1, 2]]);
    field.network.kill(3).unwrap();
    // The kernel's farewells, repeated at ever longer intervals, are lost meanwhile.
    tokio::time::sleep(Duration::from_secs(6)).await;
    field.hosts().wire().heal();
    field.network.start(3).unwrap();
    let begun = Instant::now();
    let last = field.goes_on(0).await;
    field.wait_for(3, "catching up", |h| h >= last.0).await;
    let deadline = Instant::now() + PATIENCE;
    for i in 0..4 {
        while clients::status(&field.clients.doors[i]).await.is_none_or(|s| s.peers != 3) {
            assert!(Instant::now() < deadline, "node {i} misses a peer\n{}", tail(&field.network.log(i)));
            tokio::time::sleep(POLL).await;
        }
    }
    say(&format!("  all are connected after {:.1?}", begun.elapsed()));
    field.network.kill(0).unwrap();
    let last = field.goes_on(3).await;
    field.network.start(0).unwrap();
    field.wait_for(0, "catching up", |h| h >= last.0).await;
}

/// Everybody reaches one height, and the checker finds nothing wrong.
async fn everything_holds(field: &Field) {
    let n = field.network.nodes.len();
    field.clients.history.flush().unwrap();
    settle(field, n).await;
    let urls: Vec<_> = (0..n).map(|i| field.network.url(i)).collect();
    let homes: Vec<_> = field.network.nodes.iter().map(|node| node.home.clone()).collect();
    let history = field.dir.path().join("history.jsonl");
    let halt = || field.network.stop_all().unwrap();
    let found = checker::check(&field.clients.genesis, &urls, Some(&history), &homes, halt).await;
    say(&format!("{:?}; {}; {:?}", found.chain, field.clients.history.tally, field.hosts().wire().traffic()));
    assert!(found.is_clean(), "{:#?}", found.failed);
}

/// With nothing to do, blocks come by heartbeat alone: all are at one height between two of them.
async fn settle(field: &Field, n: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut heights = Vec::new();
        for i in 0..n {
            heights.push(field.height(i).await);
        }
        if heights.iter().all(|h| *h == heights[0] && *h > 0) {
            return;
        }
        assert!(Instant::now() < deadline, "heights {heights:?}");
        tokio::time::sleep(POLL).await;
    }
}
