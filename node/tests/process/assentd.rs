//! A real assentd: started, asked, signalled, and killed when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_node::api::StatusReply;
use assent_node::api::ledger_client::LedgerClient;
use bytes::Bytes;
use libp2p::Multiaddr;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{FREE, PATIENCE, make_final, status_of};

/// A running assentd; killed when dropped.
pub struct Assentd {
    child: Child,
    pub log: PathBuf,
    pub rpc: String,
    pub listen: Multiaddr,
}

impl Assentd {
    pub fn start(home: &Path, genesis: &Genesis) -> Assentd {
        Assentd::start_with(home, genesis, &[])
    }

    pub fn start_with(home: &Path, genesis: &Genesis, arguments: &[&str]) -> Assentd {
        let file = home.join("genesis.toml");
        fs::write(&file, genesis.to_toml()).unwrap();
        let log = home.join("assentd.log");
        let child = Command::new(env!("CARGO_BIN_EXE_assentd"))
            .env_remove("RUST_LOG")
            .args(["run", "--rpc", "127.0.0.1:0", "--listen", FREE, "--log-format", "json"])
            .arg("--home")
            .arg(home)
            .arg("--genesis")
            .arg(&file)
            .args(arguments)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut node = Assentd { child, log, rpc: String::new(), listen: Multiaddr::empty() };
        let ready: serde_json::Value = serde_json::from_str(&node.logged("\"ready\"")).unwrap();
        let fields = &ready["fields"];
        node.rpc = format!("http://{}", fields["rpc"].as_str().unwrap());
        let listen = fields["listen"].as_str().unwrap();
        node.listen = listen.trim_matches(['[', ']']).parse().unwrap();
        node
    }

    /// The first line of the log with this in it, waited for.
    pub fn logged(&mut self, needle: &str) -> String {
        let begun = Instant::now();
        loop {
            // Before the log is read: it may end right after that line.
            let ended = self.child.try_wait().unwrap().is_some();
            let text = fs::read_to_string(&self.log).unwrap();
            if let Some(line) = text.lines().find(|l| l.contains(needle) && l.ends_with('}')) {
                return line.into();
            }
            assert!(begun.elapsed() < PATIENCE, "no {needle:?} in the log:\n{text}");
            assert!(!ended, "assentd ended:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn ended(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "assentd does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub async fn status(&self) -> StatusReply {
        status_of(&mut LedgerClient::connect(self.rpc.clone()).await.unwrap()).await
    }

    pub async fn height(&self) -> u64 {
        self.status().await.height
    }

    /// Waits until its status is as wished.
    pub async fn wait_for(&self, what: &str, wished: impl Fn(&StatusReply) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if wished(&status) {
                return;
            }
            let (height, connected) = (status.height, status.connected);
            assert!(begun.elapsed() < PATIENCE, "no {what}, but block {height}, {connected} connected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has the block of this height: what is final at one node may still be on its way to another.
    pub async fn reaches(&self, height: u64) {
        self.wait_for(&format!("block {height}"), |status| status.height >= height).await;
    }

    /// Makes a transaction final and gives the code of its receipt and its height.
    pub async fn submit(&self, envelope: Bytes) -> (u32, u64) {
        let mut client = LedgerClient::connect(self.rpc.clone()).await.unwrap();
        let receipt = make_final(&mut client, envelope).await;
        (receipt.code, receipt.height)
    }

    /// What a metric stands at, with its labels as they are printed; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let host = self.rpc.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// How often a line with all of these in it is in the log.
    pub fn count(&self, needles: &[&str]) -> usize {
        let text = fs::read_to_string(&self.log).unwrap();
        text.lines().filter(|l| needles.iter().all(|n| l.contains(n))).count()
    }

    /// The most memory that it ever used, bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Assentd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
