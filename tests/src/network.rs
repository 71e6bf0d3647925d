//! A network of real `assentd` processes on loopback, each with its own directory, keys and ports.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long to wait for anything before it counts as failed. Conditions are polled; nothing waits this long
/// unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
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

/// Four validators and the founding document.
pub struct Network {
    /// Everything is below this folder.
    pub dir: PathBuf,
    /// The nodes, in the order of [`SLUGS`].
    pub nodes: Vec<Node>,
    running: Running,
}

/// One validator.
pub struct Node {
    /// Its institution.
    pub slug: &'static str,
    /// Its folder.
    pub home: PathBuf,
    /// RPC port.
    pub rpc: u16,
    /// Port of the peer network.
    pub p2p: u16,
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
    /// Founds a chain in `dir`: keys, genesis file, folders, free ports. `passphrase` is the file that opens the
    /// operators' keys.
    pub fn found(dir: &Path, passphrase: &Path) -> io::Result<Network> {
        let mut assent = Command::new(program("assent"));
        assent.args(["--json", "genesis", "devnet", "--nodes", "4", "--out"]).arg(dir);
        assent.arg("--passphrase-file").arg(passphrase);
        let out = assent.stdin(Stdio::null()).output()?;
        if !out.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
        }
        Network::over(dir)
    }

    /// A network whose genesis file and node folders are there already.
    pub fn over(dir: &Path) -> io::Result<Network> {
        let ports = free_ports(2 * SLUGS.len())?;
        let nodes = SLUGS
            .into_iter()
            .zip(ports.chunks(2))
            .map(|(slug, p)| Node { slug, home: dir.join(slug), rpc: p[0], p2p: p[1] })
            .collect();
        let running = Running::default();
        running.with(|c| c.resize_with(SLUGS.len(), || None));
        Ok(Network { dir: dir.to_path_buf(), nodes, running })
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
        format!("http://127.0.0.1:{}", self.nodes[i].rpc)
    }

    /// Starts node `i`; its log goes to `node.log` in its folder.
    pub fn start(&self, i: usize) -> io::Result<()> {
        let node = &self.nodes[i];
        fs::create_dir_all(&node.home)?;
        let log = File::options().create(true).append(true).open(node.home.join("node.log"))?;
        let mut command = Command::new(program("assentd"));
        command.arg("run").arg("--home").arg(&node.home).arg("--genesis").arg(self.genesis());
        command.args(["--rpc", &format!("127.0.0.1:{}", node.rpc)]);
        command.args(["--listen", &format!("/ip4/127.0.0.1/tcp/{}", node.p2p)]);
        for peer in self.nodes.iter().filter(|n| n.slug != node.slug) {
            command.args(["--peer", &format!("/ip4/127.0.0.1/tcp/{}", peer.p2p)]);
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.running.with(|c| c[i] = Some(child));
        Ok(())
    }

    /// Starts all and waits until each answers.
    pub fn start_all(&self) -> io::Result<()> {
        (0..self.nodes.len()).try_for_each(|i| self.start(i))?;
        (0..self.nodes.len()).try_for_each(|i| self.wait_for(i, "an answer", |_| true))
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

    /// The status of node `i`, `None` while it does not answer.
    pub fn status(&self, i: usize) -> Option<Value> {
        let mut command = Command::new(program("assentd"));
        let out =
            command.args(["status", "--json", "--rpc", &self.url(i)]).stdin(Stdio::null()).output().ok()?;
        out.status.success().then(|| serde_json::from_slice(&out.stdout).ok())?
    }

    /// The height of node `i`, 0 while it does not answer.
    pub fn height(&self, i: usize) -> u64 {
        self.status(i).and_then(|s| s["height"].as_u64()).unwrap_or(0)
    }

    /// Waits until node `i`'s status is as wished.
    pub fn wait_for(&self, i: usize, what: &str, wished: impl Fn(&Value) -> bool) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.status(i).is_some_and(|s| wished(&s)) {
            let ended = self.running.with(|c| match c[i].as_mut() {
                Some(child) => child.try_wait(),
                None => Ok(None),
            })?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.nodes[i].home.join("node.log")).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(15).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                let slug = self.nodes[i].slug;
                return Err(io::Error::other(format!("{slug}: no {what}; the end of its log:\n{tail}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until node `i` is at `height` or above.
    pub fn wait_for_height(&self, i: usize, height: u64) -> io::Result<()> {
        self.wait_for(i, &format!("height {height}"), |s| s["height"].as_u64() >= Some(height))
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

impl Drop for Network {
    fn drop(&mut self) {
        // Ends what a failed test left; errors have nowhere to go here.
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
