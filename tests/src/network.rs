//! A network of real `assentd` processes, each with its own directory, keys and ports: on loopback, or each on a
//! host of its own ([`crate::hosts`]).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::hosts::Hosts;

/// How long to wait for anything before it counts as failed. Conditions are polled; nothing waits this long
/// unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// The institutions of the devnet, one validator each.
pub const SLUGS: [&str; 4] = ["bureau", "hospital-a", "hospital-b", "insurer"];

/// A program of this workspace, beside the running one.
pub fn program(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a program knows its path");
    let mut dir = exe.parent().expect("a program lies in a folder").to_path_buf();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built; run cargo build --release --workspace --bins", path.display());
    path
}

/// The ports of a node that has a host to itself.
const PORTS: (u16, u16) = (26_651, 26_650);

/// Validators and the founding document.
pub struct Network {
    /// Everything is below this folder.
    pub dir: PathBuf,
    /// The nodes, dealt out to [`SLUGS`] in turn.
    pub nodes: Vec<Node>,
    /// Where each runs, if not on loopback.
    pub hosts: Option<Hosts>,
    /// The one core on which all nodes run, if they are to share one.
    pub core: Option<usize>,
    running: Running,
}

/// One validator.
pub struct Node {
    /// Its folder's name: its institution, with a number from the institution's second node on.
    pub slug: String,
    /// Its folder.
    pub home: PathBuf,
    /// Where clients reach it.
    pub rpc: SocketAddrV4,
    /// Where peers reach it.
    pub p2p: SocketAddrV4,
}

/// What a process uses up, as the kernel says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time on a processor since it started.
    pub cpu: Duration,
    /// Memory that is its own or shared, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

/// The running processes; shared with whoever must end them on an interrupt.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<Vec<Option<Child>>>>);

impl Running {
    fn with<T>(&self, f: impl FnOnce(&mut Vec<Option<Child>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks all to end, waits, and ends by force what does not.
    pub fn stop_all(&self) -> io::Result<()> {
        let children: Vec<Child> = self.with(|c| c.iter_mut().filter_map(Option::take).collect());
        for child in &children {
            signal(child, Signal::SIGTERM)?;
            // One that was paused hears it only then.
            signal(child, Signal::SIGCONT)?;
        }
        children.into_iter().try_for_each(wait)
    }
}

fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, signal).or_else(|e| if e == nix::errno::Errno::ESRCH { Ok(()) } else { Err(e.into()) })
}

fn wait(mut child: Child) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("a node did not end on SIGTERM and was killed"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

impl Network {
    /// Founds a chain of four in `dir`: keys, genesis file, folders, free ports. `passphrase` is the file that opens
    /// the operators' keys.
    pub fn found(dir: &Path, passphrase: &Path) -> io::Result<Network> {
        Network::found_of(SLUGS.len(), dir, passphrase)
    }

    /// As [`Network::found`], with so many validators.
    pub fn found_of(count: usize, dir: &Path, passphrase: &Path) -> io::Result<Network> {
        make_devnet(dir, passphrase, count)?;
        Network::local(count, dir)
    }

    /// As [`Network::found`], with a validator on each host.
    pub fn found_on(hosts: Hosts, dir: &Path, passphrase: &Path) -> io::Result<Network> {
        make_devnet(dir, passphrase, hosts.count())?;
        let at = |i| (hosts.client_address(i), hosts.peer_address(i));
        let addresses = (0..hosts.count()).map(at);
        let addresses =
            addresses.map(|(c, p)| (SocketAddrV4::new(c, PORTS.0), SocketAddrV4::new(p, PORTS.1))).collect();
        Ok(Network::with(dir, addresses, Some(hosts)))
    }

    /// A network of four on loopback whose genesis file and node folders are there already.
    pub fn over(dir: &Path) -> io::Result<Network> {
        Network::local(SLUGS.len(), dir)
    }

    fn local(count: usize, dir: &Path) -> io::Result<Network> {
        let ports = free_ports(2 * count)?;
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let addresses = ports.chunks(2).map(|p| (local(p[0]), local(p[1]))).collect();
        Ok(Network::with(dir, addresses, None))
    }

    fn with(dir: &Path, addresses: Vec<(SocketAddrV4, SocketAddrV4)>, hosts: Option<Hosts>) -> Network {
        let node = |(i, (rpc, p2p))| {
            let slug = folder(i);
            Node { home: dir.join(&slug), slug, rpc, p2p }
        };
        let nodes: Vec<_> = addresses.into_iter().enumerate().map(node).collect();
        let running = Running::default();
        running.with(|c| c.resize_with(nodes.len(), || None));
        Network { dir: dir.to_path_buf(), nodes, hosts, core: None, running }
    }

    /// Makes the keys of a further node on loopback, which the founding document does not know, in a folder of this
    /// name; gives its index. It is not started.
    pub fn join(&mut self, name: &str) -> io::Result<usize> {
        let home = self.dir.join(name);
        let made = Command::new(program("assentd")).arg("init").arg("--home").arg(&home).output()?;
        if !made.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        let ports = free_ports(2)?;
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        self.nodes.push(Node { slug: name.into(), home, rpc: local(ports[0]), p2p: local(ports[1]) });
        self.running.with(|c| c.push(None));
        Ok(self.nodes.len() - 1)
    }

    /// The founding document.
    pub fn genesis(&self) -> PathBuf {
        self.dir.join("genesis.toml")
    }

    /// The handle by which an interrupt ends the processes.
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    /// Where node `i` answers.
    pub fn url(&self, i: usize) -> String {
        format!("http://{}", self.nodes[i].rpc)
    }

    /// Starts node `i`; its log goes to `node.log` in its folder.
    pub fn start(&self, i: usize) -> io::Result<()> {
        self.start_with(i, &[])
    }

    /// As [`Network::start`], with further arguments.
    pub fn start_with(&self, i: usize, arguments: &[&str]) -> io::Result<()> {
        let node = &self.nodes[i];
        fs::create_dir_all(&node.home)?;
        let log = File::options().create(true).append(true).open(node.home.join("node.log"))?;
        let mut command = self.command(i);
        command.arg("run").arg("--home").arg(&node.home).arg("--genesis").arg(self.genesis());
        command.args(["--rpc", &node.rpc.to_string(), "--listen", &multiaddress(&node.p2p)]);
        for peer in self.nodes.iter().filter(|n| n.slug != node.slug) {
            command.args(["--peer", &multiaddress(&peer.p2p)]);
        }
        command.args(arguments);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.running.with(|c| c[i] = Some(child));
        Ok(())
    }

    /// The node's program, on its host and its core. What stands before it becomes the program: it has the process id
    /// that we see.
    fn command(&self, i: usize) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(hosts) = &self.hosts {
            words.extend(["ip", "netns", "exec", &hosts.namespace(i)].map(OsString::from));
        }
        if let Some(core) = self.core {
            words.extend(["taskset", "--cpu-list", &core.to_string()].map(OsString::from));
        }
        words.push(program("assentd").into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Starts all and waits until each answers.
    pub fn start_all(&self) -> io::Result<()> {
        (0..self.nodes.len()).try_for_each(|i| self.start(i))?;
        (0..self.nodes.len()).try_for_each(|i| self.answer(i).map(drop))
    }

    /// Ends node `i` as an operator would.
    pub fn stop(&self, i: usize) -> io::Result<()> {
        match self.running.with(|c| c[i].take()) {
            Some(child) => signal(&child, Signal::SIGTERM).and_then(|()| wait(child)),
            None => Ok(()),
        }
    }

    /// Ends node `i` as a power cut would.
    pub fn kill(&self, i: usize) -> io::Result<()> {
        match self.running.with(|c| c[i].take()) {
            Some(mut child) => child.kill().and_then(|()| child.wait()).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Halts node `i` where it stands.
    pub fn pause(&self, i: usize) -> io::Result<()> {
        self.tell(i, Signal::SIGSTOP)
    }

    /// Lets a paused node go on.
    pub fn resume(&self, i: usize) -> io::Result<()> {
        self.tell(i, Signal::SIGCONT)
    }

    fn tell(&self, i: usize, what: Signal) -> io::Result<()> {
        self.running.with(|c| c[i].as_ref().map_or(Ok(()), |child| signal(child, what)))
    }

    /// The log of node `i` so far.
    pub fn log(&self, i: usize) -> String {
        fs::read_to_string(self.nodes[i].home.join("node.log")).unwrap_or_default()
    }

    /// Whether node `i` was started and has ended by itself.
    pub fn has_ended(&self, i: usize) -> io::Result<bool> {
        self.running.with(|c| c[i].as_mut().map_or(Ok(false), |child| Ok(child.try_wait()?.is_some())))
    }

    /// Waits until node `i` ends by itself, and gives its exit code.
    pub fn wait_for_end(&self, i: usize) -> io::Result<Option<i32>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.running.with(|c| c[i].as_mut().map_or(Ok(None), Child::try_wait))?;
            if let Some(status) = ended {
                self.running.with(|c| c[i] = None);
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} does not end", self.nodes[i].slug)));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The process of node `i`; `None` while it does not run.
    pub fn pid(&self, i: usize) -> Option<u32> {
        self.running.with(|c| c[i].as_ref().map(Child::id))
    }

    /// What node `i` has used up; `None` while it does not run.
    pub fn usage(&self, i: usize) -> Option<Usage> {
        usage(self.pid(i)?)
    }

    /// The page of node `i`'s counters.
    pub fn metrics(&self, i: usize) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.nodes[i].rpc)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }

    /// The status of node `i`, `None` if it does not answer now: also a node that is well may be too busy to.
    pub fn status(&self, i: usize) -> Option<Value> {
        let mut command = Command::new(program("assentd"));
        let out =
            command.args(["status", "--json", "--rpc", &self.url(i)]).stdin(Stdio::null()).output().ok()?;
        out.status.success().then(|| serde_json::from_slice(&out.stdout).ok())?
    }

    /// The status of node `i`, once it answers.
    pub fn answer(&self, i: usize) -> io::Result<Value> {
        self.wait_for(i, "an answer", |_| true)
    }

    /// The height of node `i`, once it answers.
    pub fn height(&self, i: usize) -> io::Result<u64> {
        let answer = self.answer(i)?;
        answer["height"].as_u64().ok_or_else(|| io::Error::other(format!("no height in {answer}")))
    }

    /// Waits until node `i`'s status is as wished, and gives it.
    pub fn wait_for(&self, i: usize, what: &str, wished: impl Fn(&Value) -> bool) -> io::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.status(i).filter(&wished) {
                return Ok(status);
            }
            if self.has_ended(i)? || Instant::now() > deadline {
                let log = self.log(i);
                let tail: Vec<_> = log.lines().rev().take(15).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                let slug = &self.nodes[i].slug;
                return Err(io::Error::other(format!("{slug}: no {what}; the end of its log:\n{tail}")));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until node `i` is at `height` or above.
    pub fn wait_for_height(&self, i: usize, height: u64) -> io::Result<()> {
        self.wait_for(i, &format!("height {height}"), |s| s["height"].as_u64() >= Some(height)).map(drop)
    }

    /// Ends all.
    pub fn stop_all(&self) -> io::Result<()> {
        self.running.stop_all()
    }
}

impl Network {
    /// Lets the processes outlive this one.
    pub fn leave_running(&self) {
        self.running.with(|c| c.iter_mut().for_each(|child| drop(child.take())));
    }
}

fn make_devnet(dir: &Path, passphrase: &Path, nodes: usize) -> io::Result<()> {
    let mut assent = Command::new(program("assent"));
    assent.args(["--json", "genesis", "devnet", "--nodes", &nodes.to_string(), "--out"]).arg(dir);
    assent.arg("--passphrase-file").arg(passphrase);
    let out = assent.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()))
}

/// The folder that `assent genesis devnet` gives to the `i`-th node.
fn folder(i: usize) -> String {
    let slug = SLUGS[i % SLUGS.len()];
    match i / SLUGS.len() {
        0 => slug.into(),
        n => format!("{slug}-{}", n + 1),
    }
}

fn multiaddress(address: &SocketAddrV4) -> String {
    format!("/ip4/{}/tcp/{}", address.ip(), address.port())
}

/// Time on a processor of a process or a thread, from its `stat` of proc(5).
pub fn cpu_of(stat: &Path) -> Option<Duration> {
    /// Linux counts processor time so for user space, whatever the kernel's own tick.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string(stat).ok()?;
    // The name, which may hold anything, ends with the last parenthesis; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Reads proc(5).
fn usage(pid: u32) -> Option<Usage> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage {
        cpu: cpu_of(&proc.join("stat"))?,
        resident_bytes: kib << 10,
        descriptors: fs::read_dir(proc.join("fd")).ok()?.count(),
    })
}

impl Drop for Network {
    fn drop(&mut self) {
        // Ends what a failed test left, before its hosts go; errors have nowhere to go here.
        let _ = self.running.stop_all();
    }
}

/// Ports that are free now, all different, and no two calls in this process give the same one. They lie below
/// those that the system gives to outgoing connections, so that none is taken before a node listens on it, or
/// while it is down.
fn free_ports(n: usize) -> io::Result<Vec<u16>> {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut found = Vec::with_capacity(n);
    for _ in 0..COUNT {
        // Another process starts elsewhere.
        let at = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + at % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
        if found.len() == n {
            return Ok(found);
        }
    }
    Err(io::Error::other("no free ports between 10000 and 30000"))
}
