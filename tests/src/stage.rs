//! What the programs that load or harm a network need: one with clients, ended and cleared away whatever happens, and a
//! clock on the terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use crate::clients::{Cast, Clients, History};
use crate::hosts::{self, Hosts};
use crate::network::Network;

/// Why a program could not do its work.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const PASSPHRASE: &str = "nobody relies on this";
/// Without a terminal a line tells the progress so often.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// A running network with clients.
pub struct Stage {
    /// The network.
    pub network: Arc<Network>,
    /// Clients with a door to each node.
    pub clients: Clients,
    /// Where they write down what they were told.
    pub history: PathBuf,
    /// Removed at the end, unless told to stay.
    pub dir: tempfile::TempDir,
}

impl Stage {
    /// Starts as many validators as there are hosts, or four on loopback.
    pub fn set(hosts: Option<Hosts>) -> Result<Stage, Failure> {
        Stage::over(|root, passphrase| match hosts {
            Some(hosts) => Network::found_on(hosts, root, passphrase),
            None => Network::found(root, passphrase),
        })
    }

    /// Starts the network that is founded in a folder, with the file that opens the operators' keys.
    pub fn over(found: impl FnOnce(&Path, &Path) -> std::io::Result<Network>) -> Result<Stage, Failure> {
        let dir = tempfile::Builder::new().prefix("assent-network-").tempdir()?;
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, format!("{PASSPHRASE}\n"))?;
        let root = dir.path().join("network");
        let network = found(&root, &passphrase)?;
        end_on_interrupt(&network)?;
        network.start_all()?;
        let genesis = Arc::new(Genesis::load(network.genesis())?);
        let cast = Cast::open(&root, &genesis, PASSPHRASE).map_err(|e| e.to_string())?;
        let history = dir.path().join("history.jsonl");
        let told = Arc::new(History::create(&history)?);
        let urls: Vec<_> = (0..network.nodes.len()).map(|i| network.url(i)).collect();
        let clients = Clients::new(genesis, cast, &urls, told)?;
        Ok(Stage { network: Arc::new(network), clients, history, dir })
    }

    /// Moves everything there.
    pub fn keep(self, out: Option<&Path>) -> Result<PathBuf, Failure> {
        self.network.stop_all()?;
        let from = self.dir.keep();
        let Some(out) = out else { return Ok(from) };
        // Between file systems it cannot be renamed; then it stays where it is.
        match std::fs::rename(&from, out) {
            Ok(()) => Ok(out.to_path_buf()),
            Err(_) => Ok(from),
        }
    }
}

/// Ctrl-C and SIGTERM end the processes and remove the hosts.
fn end_on_interrupt(network: &Network) -> Result<(), Failure> {
    let (running, hosts) = (network.running(), network.hosts.as_ref().map(Hosts::name));
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        eprintln!("\ninterrupted; ending the nodes");
        // Nothing is left to tell if this fails: the process ends here.
        let _ = running.stop_all();
        if let Some(name) = hosts {
            hosts::remove(name);
        }
        std::process::exit(130);
    });
    Ok(())
}

/// A clock that counts to an end, with a line of text.
pub struct Clock {
    begun: Instant,
    length: Duration,
    bar: ProgressBar,
    told: Instant,
}

impl Clock {
    /// It begins to run.
    pub fn start(length: Duration) -> Clock {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {elapsed}/{prefix} {msg}");
            ProgressBar::new(length.as_secs()).with_style(style.expect("a template that indicatif reads"))
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(format!("{}s", length.as_secs()));
        Clock { begun: Instant::now(), length, bar, told: Instant::now() }
    }

    /// Whether its time has passed.
    pub fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.length
    }

    /// Whole seconds since it began.
    pub fn seconds(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    /// Shows where it stands, with a text.
    pub fn show(&mut self, text: String) {
        self.bar.set_position(self.seconds().min(self.length.as_secs()));
        if self.bar.is_hidden() && self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            eprintln!("{:>5} s  {text}", self.seconds());
        }
        self.bar.set_message(text);
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{:>5} s  {line}", self.seconds()));
    }

    /// Clears the line.
    pub fn stop(&self) {
        self.bar.finish_and_clear();
    }
}
