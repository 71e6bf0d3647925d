//! Ten bad minutes: two who break things, one the wire and one the processes, each as it pleases; clients in between;
//! and then the proof that nothing came of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use assent_client::rpc::api::StatusReply;
use assent_ledger::testing::{digest, enrol};
use assent_proto::SecretKey;
use assent_tests::checker::{self, Findings};
use assent_tests::clients::{self, Door, Outcome};
use assent_tests::hosts::{self, Hosts, Wire};
use assent_tests::network::Network;
use assent_tests::sim::Random;

use crate::Chaos;
use assent_tests::stage::{Clock, Failure, Stage};

/// One-way delays between hosts: in a town, in a country, across an ocean.
const DELAYS_MS: [u64; 3] = [5, 20, 50];
const LOSS_PER_MILLE: u64 = 10;
/// How long everything has, once all is whole again, to come right.
const RECOVERY: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

pub(crate) async fn run(arguments: &Chaos) -> Result<bool, Failure> {
    hosts::possible().map_err(|why| format!("skipped: {why}"))?;
    let hosts = Hosts::new(usize::from(arguments.nodes), arguments.seed)?;
    let mut random = Random::new(arguments.seed);
    ordinary_day(hosts.wire(), &mut random);
    let stage = Stage::set(Some(hosts))?;
    println!(
        "{} validators, {} persons, {} minutes, seed {}; logs in {}",
        arguments.nodes,
        arguments.persons,
        arguments.minutes,
        arguments.seed,
        stage.dir.path().display()
    );
    let by_itself = break_things(&stage, arguments, &mut random).await?;
    let recovered = recover(&stage).await;
    let found = examine(&stage, by_itself, recovered).await?;
    let well = report(&found);
    if arguments.out.is_some() || !well {
        println!("everything is in {}", stage.keep(arguments.out.as_deref())?.display());
    }
    println!("{} passed, {} failed", found.passed.len(), found.failed.len());
    Ok(well)
}

/// What the wire is like when nothing special happens.
fn ordinary_day(wire: &Wire, random: &mut Random) {
    let mut delays = [[0; hosts::HOSTS_MAX]; hosts::HOSTS_MAX];
    let pairs = (0..hosts::HOSTS_MAX).flat_map(|a| (0..a).map(move |b| (a, b)));
    for (a, b) in pairs {
        let delay = random.pick(&DELAYS_MS);
        (delays[a][b], delays[b][a]) = (delay, delay);
    }
    wire.edit(|from, to, path| {
        path.delay = Duration::from_millis(delays[from][to]);
        path.loss_per_mille = LOSS_PER_MILLE;
    });
}

/// Lets clients live and things break until the time is over. Answers which nodes ended by themselves.
async fn break_things(stage: &Stage, arguments: &Chaos, random: &mut Random) -> Result<Vec<String>, Failure> {
    let catalogue = clients::lay_ground(&stage.clients).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut persons = tokio::task::JoinSet::new();
    for n in 0..arguments.persons {
        let pace = Duration::from_millis(arguments.pace_ms);
        persons.spawn(clients::live(stage.clients.clone(), n, arguments.seed, catalogue, stop.clone(), pace));
    }
    let (tell, told) = mpsc::channel();
    let breaker = |seed| Breaker {
        network: stage.network.clone(),
        random: Random::new(seed),
        stop: stop.clone(),
        tell: tell.clone(),
    };
    let (on_wire, on_processes) = (breaker(random.below(1 << 40)), breaker(random.below(1 << 40)));
    let breakers = [
        std::thread::spawn(move || on_wire.break_the_wire()),
        std::thread::spawn(move || on_processes.break_processes()),
    ];
    let mut clock = Clock::start(Duration::from_secs(arguments.minutes * 60));
    while !clock.is_over() {
        told.try_iter().for_each(|line: String| clock.say(&line));
        let heights = heights(&stage.clients.doors).await;
        clock.show(format!("heights {heights:?}; {}", stage.clients.history.tally));
        tokio::time::sleep(POLL).await;
    }
    clock.stop();
    stop.store(true, Ordering::Relaxed);
    let mut by_itself = Vec::new();
    for breaker in breakers {
        by_itself.extend(breaker.join().map_err(|_| "a breaker broke")??);
    }
    println!("all is whole again; the clients wait for their last transactions");
    while persons.join_next().await.transpose()?.is_some() {}
    Ok(by_itself)
}

async fn heights(doors: &[Door]) -> Vec<u64> {
    let mut heights = Vec::new();
    for door in doors {
        let status = tokio::time::timeout(Duration::from_millis(300), clients::status(door)).await;
        heights.push(status.ok().flatten().map_or(0, |s| s.height));
    }
    heights
}

/// One who breaks things, mends them, and breaks others. What it broke is whole when it returns.
struct Breaker {
    network: Arc<Network>,
    random: Random,
    stop: Arc<AtomicBool>,
    tell: mpsc::Sender<String>,
}

type Ended = std::io::Result<Vec<String>>;

impl Breaker {
    fn say(&self, line: String) {
        // Nobody listens any more once the time is over.
        let _ = self.tell.send(line);
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.random.below((to - from) * 1000))
    }

    /// Waits, but not past the end.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn any(&mut self) -> usize {
        self.random.below(self.network.nodes.len() as u64) as usize
    }

    /// All nodes in an order of chance.
    fn shuffled(&mut self) -> Vec<usize> {
        let mut all: Vec<_> = (0..self.network.nodes.len()).collect();
        for i in (1..all.len()).rev() {
            all.swap(i, self.random.below(i as u64 + 1) as usize);
        }
        all
    }

    fn break_the_wire(mut self) -> Ended {
        let network = self.network.clone();
        let hosts = network.hosts.as_ref().expect("chaos has hosts");
        while !self.stop.load(Ordering::Relaxed) {
            let calm = self.seconds(2, 8);
            self.wait(calm);
            let (order, time) = (self.shuffled(), self.seconds(4, 15));
            let half = order.len() / 2;
            match self.random.below(6) {
                0 => self.part(hosts, &[&order[..half], &order[half..]], time),
                1 => self.part(hosts, &[&order[1..]], time),
                2 => self.part(hosts, &[&order[2..]], time),
                3 => self.deafen(hosts, order[0], time),
                4 => self.storm(hosts, time),
                _ => self.flap(hosts, order[0], time)?,
            }
        }
        Ok(Vec::new())
    }

    fn part(&self, hosts: &Hosts, groups: &[&[usize]], time: Duration) {
        self.say(format!("parted for {time:.1?}: {groups:?}, the rest alone"));
        hosts.wire().partition(groups);
        self.wait(time);
        hosts.wire().heal();
    }

    /// It is heard, and hears nothing.
    fn deafen(&self, hosts: &Hosts, node: usize, time: Duration) {
        self.say(format!("node {node} hears nothing for {time:.1?}"));
        hosts.wire().edit(|_, to, path| path.open = to != node);
        self.wait(time);
        hosts.wire().heal();
    }

    /// Everything takes three times as long, and ten times as much is lost.
    fn storm(&self, hosts: &Hosts, time: Duration) {
        self.say(format!("bad lines for {time:.1?}"));
        hosts.wire().edit(|_, _, path| {
            path.delay *= 3;
            path.loss_per_mille = 10 * LOSS_PER_MILLE;
        });
        self.wait(time);
        hosts.wire().edit(|_, _, path| {
            path.delay /= 3;
            path.loss_per_mille = LOSS_PER_MILLE;
        });
    }

    fn flap(&self, hosts: &Hosts, node: usize, time: Duration) -> std::io::Result<()> {
        self.say(format!("node {node}'s link flaps for {time:.1?}"));
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
            hosts.set_link(node, false)?;
            self.wait(Duration::from_secs(1));
            hosts.set_link(node, true)?;
            self.wait(Duration::from_secs(1));
        }
        Ok(())
    }

    fn break_processes(mut self) -> Ended {
        let mut by_itself = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let calm = self.seconds(3, 12);
            self.wait(calm);
            let order = self.shuffled();
            match self.random.below(10) {
                0..=4 => self.kill(&order[..1])?,
                5 => self.kill(&order[..2])?,
                6 => self.kill(&order)?,
                _ => self.pause()?,
            }
            by_itself.extend(self.raise_the_fallen()?);
        }
        Ok(by_itself)
    }

    fn kill(&mut self, nodes: &[usize]) -> std::io::Result<()> {
        let time = self.seconds(0, 8);
        self.say(format!("kill -9 for {time:.1?}: {nodes:?}"));
        nodes.iter().try_for_each(|i| self.network.kill(*i))?;
        self.wait(time);
        nodes.iter().try_for_each(|i| self.network.start(*i))
    }

    fn pause(&mut self) -> std::io::Result<()> {
        let (node, time) = (self.any(), self.seconds(1, 10));
        self.say(format!("node {node} is paused for {time:.1?}"));
        self.network.pause(node)?;
        self.wait(time);
        self.network.resume(node)
    }

    /// A node that has ended though nobody ended it is a finding; it is started again all the same.
    fn raise_the_fallen(&self) -> Ended {
        let mut fallen = Vec::new();
        for (i, node) in self.network.nodes.iter().enumerate() {
            if self.network.has_ended(i)? {
                let log = self.network.log(i);
                let last = log.lines().rev().find(|l| l.contains("ERROR") || l.contains("fault"));
                fallen.push(format!("node {i} ({}): {}", node.slug, last.unwrap_or("its log says nothing")));
                self.say(format!("node {i} ended by itself"));
                self.network.start(i)?;
            }
        }
        Ok(fallen)
    }
}

/// Proves that all is well again: through every door a transaction becomes final, every node is connected to all
/// others, and all are at one height. Answers what came of each.
async fn recover(stage: &Stage) -> Vec<Result<String, String>> {
    let begun = Instant::now();
    let mut checks = Vec::new();
    for door in 0..stage.clients.doors.len() {
        let outcome = tokio::time::timeout(RECOVERY, probe(stage, door)).await;
        let what = format!("a transaction handed in at node {door} after the last fault becomes final");
        checks.push(match outcome {
            Ok(Outcome::Final { code: 0, .. }) => Ok(format!("{what} ({:.1?} after it)", begun.elapsed())),
            other => Err(format!("{what}: {other:?}")),
        });
    }
    let others = stage.clients.doors.len() as u32 - 1;
    let all = |seen: &[StatusReply]| seen.iter().all(|s| s.peers == others);
    let told = |seen: &[StatusReply]| format!("{:?}", seen.iter().map(|s| s.peers).collect::<Vec<_>>());
    checks.push(until(stage, "every node is connected to all others", all, told).await);
    let level =
        |seen: &[StatusReply]| seen.iter().all(|s| s.height == seen[0].height && s.pool_transactions == 0);
    let told = |seen: &[StatusReply]| format!("{:?}", seen.iter().map(|s| s.height).collect::<Vec<_>>());
    checks.push(until(stage, "all nodes are at one height with nothing left to do", level, told).await);
    checks
}

/// A transaction that nothing stands in the way of, through this door alone.
async fn probe(stage: &Stage, door: usize) -> Outcome {
    let mut clients = stage.clients.clone();
    clients.doors = vec![stage.clients.doors[door].clone()];
    let key = SecretKey::from_bytes(&digest(&format!("probe {}", clients.fresh())).0);
    let action = enrol(&clients.cast.hospital_b, &key);
    let tx = clients.sign(&clients.cast.bureau, action, Some(&key)).about("probe", None);
    clients.submit("probe", 0, &tx).await
}

/// Asks all nodes until what they say is as wished.
async fn until(
    stage: &Stage,
    what: &str,
    wished: impl Fn(&[StatusReply]) -> bool,
    told: impl Fn(&[StatusReply]) -> String,
) -> Result<String, String> {
    let begun = Instant::now();
    loop {
        let mut seen = Vec::new();
        for door in &stage.clients.doors {
            seen.extend(clients::status(door).await);
        }
        if seen.len() == stage.clients.doors.len() && wished(&seen) {
            return Ok(what.into());
        }
        if begun.elapsed() > RECOVERY {
            return Err(format!("{what}: {}", told(&seen)));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn examine(
    stage: &Stage,
    by_itself: Vec<String>,
    recovered: Vec<Result<String, String>>,
) -> Result<Findings, Failure> {
    let network = &stage.network;
    stage.clients.history.flush()?;
    println!("clients were told: {}", stage.clients.history.tally);
    if let Some(hosts) = &network.hosts {
        println!("frames: {:?}", hosts.wire().traffic());
    }
    let urls: Vec<_> = (0..network.nodes.len()).map(|i| network.url(i)).collect();
    let homes: Vec<_> = network.nodes.iter().map(|node| node.home.clone()).collect();
    let mut ended = Ok(());
    let halt = || ended = network.stop_all();
    let mut found = checker::check(&stage.clients.genesis, &urls, Some(&stage.history), &homes, halt).await;
    ended?;
    for check in recovered {
        match check {
            Ok(what) => found.passed.push(what),
            Err(why) => found.failed.push(why),
        }
    }
    match by_itself.as_slice() {
        [] => found.passed.push("no node ended by itself".into()),
        fallen => found.failed.push(format!("no node ends by itself: {fallen:#?}")),
    }
    Ok(found)
}

fn report(found: &Findings) -> bool {
    println!("{:#?}", found.chain);
    found.passed.iter().for_each(|what| println!("  ok      {what}"));
    found.failed.iter().for_each(|what| println!("  FAILED  {what}"));
    found.is_clean()
}
