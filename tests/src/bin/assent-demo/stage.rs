//! Running programs, showing progress, keeping score. What is told stands in `story`.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use assent_tests::network::{Network, program};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::Lang;

/// What a step may fail with.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Exit code of `assent` when a transaction can be in no block.
pub(crate) const REFUSED: i32 = 2;
/// Exit code of `assent` when the rules deny.
pub(crate) const DENIED: i32 = 3;
/// Exit code of `assent` when a proof does not verify.
pub(crate) const NOT_PROVED: i32 = 4;

/// Of every key file.
const PASSPHRASE: &str = "the demo's passphrase protects fictitious persons";
/// log2 of scrypt's N for the institutions' key files.
const LIGHT: u8 = 10;

/// The network, the folder, and the score so far.
pub(crate) struct Stage {
    pub(crate) lang: Lang,
    pub(crate) network: Network,
    pub(crate) out: PathBuf,
    pub(crate) fixtures: PathBuf,
    passphrase: PathBuf,
    bar: ProgressBar,
    steps: Vec<Value>,
    current: Option<(usize, String, Instant)>,
    finality: Mutex<Vec<f64>>,
    /// The highest block that a reply named: whichever node is asked next must have it.
    seen: AtomicU64,
    figures: Mutex<serde_json::Map<String, Value>>,
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn interrupt() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
    Ok(())
}

impl Stage {
    /// Makes the folder, founds the chain.
    pub(crate) fn set(lang: Lang, out: Option<PathBuf>, fixtures: PathBuf) -> Result<Stage, Failure> {
        let out = match out {
            Some(dir) => dir,
            None => std::env::temp_dir().join(format!("assent-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&out)?;
        if fs::read_dir(&out)?.next().is_some() {
            return Err(format!("{} is not empty", out.display()).into());
        }
        let out = out.canonicalize()?;
        let passphrase = out.join("passphrase");
        fs::write(&passphrase, format!("{PASSPHRASE}\n"))?;
        let network = Network::found(&out.join("network"), &passphrase)?;
        for node in &network.nodes {
            lighten(&node.home.join("operator.age"))?;
        }
        fs::copy(network.genesis(), out.join("genesis.toml"))?;
        fs::create_dir_all(out.join("evidence"))?;
        fs::create_dir_all(out.join("work"))?;
        let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("  {spinner} {msg}")?);
        bar.enable_steady_tick(Duration::from_millis(120));
        Ok(Stage {
            lang,
            network,
            out,
            fixtures,
            passphrase,
            bar,
            steps: Vec::new(),
            current: None,
            finality: Mutex::new(Vec::new()),
            seen: AtomicU64::new(0),
            figures: Mutex::new(serde_json::Map::new()),
        })
    }

    /// Chooses by the story's language.
    pub(crate) fn t<'t>(&self, zh: &'t str, en: &'t str) -> &'t str {
        if self.lang == Lang::Zh { zh } else { en }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, n: usize, zh: &str, en: &str) {
        self.end_step();
        let title = self.t(zh, en).to_string();
        self.bar.suspend(|| println!("\n{n}. {title}"));
        self.current = Some((n, title, Instant::now()));
    }

    /// Ends the step that is under way, as having come out as told.
    pub(crate) fn end_step(&mut self) {
        if let Some((n, title, since)) = self.current.take() {
            let seconds = since.elapsed().as_secs_f64();
            self.steps.push(json!({"step": n, "title": title, "outcome": "ok", "seconds": seconds}));
        }
    }

    /// Notes that the step under way failed.
    pub(crate) fn failed(&mut self, why: &dyn std::error::Error) {
        if let Some((n, title, _)) = self.current.take() {
            self.bar.suspend(|| println!("   ✗ {why}"));
            self.steps.push(json!({"step": n, "title": title, "outcome": "failed", "why": why.to_string()}));
        }
    }

    /// Says what happened.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        self.bar.suspend(|| println!("   {}", text.as_ref()));
    }

    /// Says what can be proved from now on.
    pub(crate) fn provable(&self, zh: &str, en: &str) {
        let head = self.t("现在可证明：", "Now provable: ");
        self.say(format!("✓ {head}{}", self.t(zh, en)));
    }

    /// Shows something as it is, such as a QR code.
    pub(crate) fn show(&self, text: &str) {
        self.bar.suspend(|| text.lines().for_each(|l| println!("     {l}")));
    }

    /// Shows what is being done right now.
    pub(crate) fn doing(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Notes a figure for the summary.
    pub(crate) fn figure(&self, name: &str, value: impl Into<Value>) {
        lock(&self.figures).insert(name.into(), value.into());
    }

    /// Adds to a figure.
    pub(crate) fn add_figure(&self, name: &str, more: u64) {
        let before = lock(&self.figures).get(name).and_then(Value::as_u64).unwrap_or(0);
        self.figure(name, before + more);
    }

    /// Does something for each of many, a few at a time; the answers come in order.
    pub(crate) fn each<T: Sync, R: Send>(
        &self,
        all: &[T],
        each: impl Fn(&Stage, usize, &T) -> Result<R, Failure> + Sync,
    ) -> Result<Vec<R>, Failure> {
        const AT_ONCE: usize = 4;
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        std::thread::scope(|s| {
            for _ in 0..AT_ONCE {
                s.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(one) = all.get(i) else { return };
                        // A failure crosses threads as its words.
                        lock(&done).push((i, each(self, i, one).map_err(|e| e.to_string())));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(i, _)| *i);
        done.into_iter().map(|(_, r)| r.map_err(Failure::from)).collect()
    }

    /// The story's language as an argument.
    pub(crate) fn lang_code(&self) -> &'static str {
        self.t("zh", "en")
    }

    /// A path in the demo's folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.out.join(name)
    }

    /// A working file in the demo's folder.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.out.join("work").join(name)
    }

    /// The command `assent`, with the genesis file and the passphrase, asking node `i`.
    pub(crate) fn assent(&self, node: usize, args: &[&str]) -> Command {
        let mut command = Command::new(program("assent"));
        command.arg("--genesis").arg(self.network.genesis());
        command.args(["--node", &self.network.url(node)]);
        command.arg("--passphrase-file").arg(&self.passphrase).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `assent` and expects it to succeed.
    pub(crate) fn run(&self, node: usize, args: &[&str]) -> Result<Value, Failure> {
        self.expect(0, node, args)
    }

    /// Runs `assent` and expects an exit code; answers what it printed.
    pub(crate) fn expect(&self, code: i32, node: usize, args: &[&str]) -> Result<Value, Failure> {
        let (exit, reply) = self.outcome(node, args)?;
        if exit == code {
            Ok(reply)
        } else {
            Err(format!("assent {}: exit {exit}, not {code}: {reply}", args.join(" ")).into())
        }
    }

    /// Runs `assent`; answers its exit code and what it printed.
    pub(crate) fn outcome(&self, node: usize, args: &[&str]) -> io::Result<(i32, Value)> {
        self.catch_up(node)?;
        let out = self.assent(node, args).arg("--json").output()?;
        let reply = match serde_json::from_slice(&out.stdout) {
            Ok(reply) => reply,
            Err(_) => Value::String(String::from_utf8_lossy(&out.stderr).into_owned()),
        };
        if let Some(seconds) = reply["seconds"].as_f64() {
            lock(&self.finality).push(seconds);
            self.seen.fetch_max(reply["height"].as_u64().unwrap_or(0), Ordering::Relaxed);
        }
        Ok((out.status.code().unwrap_or(-1), reply))
    }

    /// What is final at one node reaches the others a moment later; the story asks them in turn.
    fn catch_up(&self, node: usize) -> io::Result<()> {
        match self.seen.load(Ordering::Relaxed) {
            0 => Ok(()),
            height => self.network.wait_for_height(node, height),
        }
    }

    /// Stops all nodes; nothing is asked of them from then on.
    pub(crate) fn stop_nodes(&self) -> io::Result<()> {
        self.seen.store(0, Ordering::Relaxed);
        self.network.stop_all()
    }

    /// Runs `assent` and answers what it says to people.
    pub(crate) fn words(&self, node: usize, args: &[&str]) -> Result<String, Failure> {
        self.catch_up(node)?;
        let out = self.assent(node, args).output()?;
        let words = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            Ok(words)
        } else {
            Err(format!("assent {}: {}\n{words}", args.join(" "), out.status).into())
        }
    }

    /// Expects a denial of this name.
    pub(crate) fn denied(&self, name: &str, node: usize, args: &[&str]) -> Result<Value, Failure> {
        let reply = self.expect(DENIED, node, args)?;
        same(&reply["code_name"], name, "denial")?;
        Ok(reply)
    }

    /// The finality that clients saw, in seconds, at a share of the transactions.
    fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = lock(&self.finality).clone();
        sorted.sort_by(f64::total_cmp);
        let at = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(at.saturating_sub(1)).copied()
    }

    /// Writes summary.json and says the end.
    pub(crate) fn write_summary(&mut self, ok: bool) -> Result<(), Failure> {
        self.end_step();
        self.bar.finish_and_clear();
        let (p50, p99) = (self.quantile(0.50), self.quantile(0.99));
        let transactions = lock(&self.finality).len();
        let summary = json!({
            "outcome": if ok { "ok" } else { "failed" },
            "steps": self.steps,
            "finality_seconds": {"p50": p50, "p99": p99, "transactions": transactions},
            "figures": *lock(&self.figures),
        });
        fs::write(self.path("summary.json"), serde_json::to_string_pretty(&summary)? + "\n")?;
        let text = self.t("结果、创世文件与证据在此文件夹：", "Summary, genesis file and evidence are in");
        println!("\n{text} {}", self.out.display());
        if let (Some(p50), Some(p99)) = (p50, p99) {
            let words = self.t("最终确认（客户端所见）", "Finality as clients saw it");
            println!("{words}: p50 {:.0} ms, p99 {:.0} ms, n = {}", p50 * 1e3, p99 * 1e3, transactions);
        }
        println!(
            "{}",
            if ok {
                self.t("一切如所述。", "Everything came out as told.")
            } else {
                self.t("未能如所述完成。", "It did not come out as told.")
            }
        );
        Ok(())
    }

    /// For `--keep`: what to type next.
    pub(crate) fn say_how_to_go_on(&self) {
        println!("\n{}", self.t("网络仍在运行：", "The network is still running:"));
        for (i, node) in self.network.nodes.iter().enumerate() {
            println!("  {:<11} {}", node.slug, self.network.url(i));
        }
        let assent = program("assent");
        println!(
            "  {} --genesis {} --node {} status",
            assent.display(),
            self.network.genesis().display(),
            self.network.url(0)
        );
        println!("  {} pkill -TERM assentd", self.t("结束：", "to end it:"));
    }
}

/// Makes a key file quick to open. Guessing a passphrase is slow by design, a quarter of a second a try, and the
/// institutions open theirs at each of their some hundred and fifty steps: that would be most of the demo's time,
/// and there is nothing here to guess.
fn lighten(path: &Path) -> Result<(), Failure> {
    let passphrase = || SecretString::from(PASSPHRASE.to_owned());
    let plain = age::decrypt(&age::scrypt::Identity::new(passphrase()), &fs::read(path)?)?;
    let mut recipient = age::scrypt::Recipient::new(passphrase());
    recipient.set_work_factor(LIGHT);
    Ok(fs::write(path, age::encrypt(&recipient, &plain)?)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Expects a value.
pub(crate) fn same(is: &Value, should: &str, what: &str) -> Result<(), Failure> {
    if is == should { Ok(()) } else { Err(format!("{what} is {is}, not {should:?}").into()) }
}

/// Expects something to hold.
pub(crate) fn holds(ok: bool, what: &str) -> Result<(), Failure> {
    if ok { Ok(()) } else { Err(format!("this should hold: {what}").into()) }
}

/// A text field of a reply.
pub(crate) fn text(reply: &Value, field: &str) -> Result<String, Failure> {
    reply[field].as_str().map(String::from).ok_or_else(|| format!("no {field} in {reply}").into())
}
