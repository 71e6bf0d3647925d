//! Four real processes on loopback: what operators do to them, and what clients see of it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assent_tests::network::{Network, SLUGS, program};
use serde_json::Value;

/// A running network in a folder of its own.
struct Devnet {
    network: Network,
    dir: tempfile::TempDir,
}

impl Devnet {
    fn start() -> Devnet {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, "nobody relies on this\n").expect("a passphrase file");
        let network = Network::found(&dir.path().join("network"), &passphrase).expect("a devnet");
        network.start_all().expect("four nodes");
        Devnet { network, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs `assent` against a node; answers its exit code and JSON.
    fn assent(&self, node: usize, args: &[&str]) -> (i32, Value) {
        let out = Command::new(program("assent"))
            .args([
                "--json",
                "--node",
                &self.network.url(node),
                "--passphrase-file",
                &self.path("passphrase"),
            ])
            .arg("--genesis")
            .arg(self.network.genesis())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("assent starts");
        let text = String::from_utf8_lossy(&out.stdout);
        let reply = serde_json::from_str(&text).unwrap_or_else(|_| {
            panic!("{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        });
        (out.status.code().expect("an exit code"), reply)
    }

    /// A transaction by hospital A's operator, through a node, waited for until it is final.
    fn register(&self, node: usize, code: u32) -> Value {
        let keyfile = self.path("network/hospital-a/operator.age");
        let item = format!(
            "institution register-item --code {code} --scope 1 --category test-result --level moderate \
             --opening prohibited"
        );
        let args: Vec<_> = item.split(' ').chain(["--keyfile", &keyfile]).collect();
        let (exit, reply) = self.assent(node, &args);
        assert_eq!(exit, 0, "{reply}");
        reply
    }

    /// Everybody reaches the height, and has the same state after it.
    fn agree_at(&self, height: u64) {
        for i in 0..4 {
            self.network.wait_for_height(i, height).expect("the chain goes on");
        }
        let status = |i| self.network.answer(i).expect("an answer");
        let all: Vec<_> = (0..4).map(status).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert!(a["height"] != b["height"] || a["state_root"] == b["state_root"], "{a} {b}");
            }
        }
    }
}

fn height(reply: &Value) -> u64 {
    reply["height"].as_u64().expect("a height")
}

/// A transaction given to any validator is committed, whoever's turn it is to propose.
#[test]
fn any_validator_takes_a_transaction_and_all_have_it() {
    let net = Devnet::start();
    for (node, code) in [0, 1, 2, 3, 0, 1, 2, 3].into_iter().zip(1..) {
        let reply = net.register(node, code);
        let id = reply["body_id"].as_str().expect("an id");
        for other in 0..4 {
            let (exit, seen) = net.assent(other, &["tx", id, "--wait"]);
            assert_eq!((exit, &seen["height"]), (0, &reply["height"]), "node {other}");
        }
    }
}

/// SIGTERM to all four, and the chain goes on where it was after they start again.
#[test]
fn all_four_stop_and_start_again() {
    let net = Devnet::start();
    let before = height(&net.register(0, 1));
    net.agree_at(before);
    for i in 0..4 {
        net.network.stop(i).expect("a clean end");
    }
    net.network.start_all().expect("four nodes");
    for i in 0..4 {
        assert!(net.network.height(i).expect("an answer") >= before, "what was acknowledged is there");
    }
    let after = height(&net.register(2, 2));
    assert!(after > before);
    net.agree_at(after);
}

/// kill -9: the others go on; started again, it catches up by certified blocks and takes part, so that the
/// chain then goes on without another one.
#[test]
fn a_killed_node_catches_up_and_takes_part() {
    let net = Devnet::start();
    net.register(0, 1);
    net.network.kill(3).expect("it is gone");
    let mut last = 0;
    for code in 2..12 {
        last = height(&net.register(0, code));
    }
    net.network.start(3).expect("it starts");
    net.network.wait_for_height(3, last).expect("it catches up");
    // Three of four are a quorum only with the one that came back.
    net.network.kill(0).expect("another is gone");
    let after = height(&net.register(3, 12));
    assert!(after > last);
    for i in 1..4 {
        net.network.wait_for_height(i, after).expect("the chain goes on");
    }
}

/// Quorum loss and return: with two of four gone the others say that they wait, use next to no processor time while a
/// transaction is pending, acknowledge nothing, and go on once the two are back.
#[test]
fn waiting_for_a_quorum_is_told_and_costs_little() {
    const WINDOW: Duration = Duration::from_secs(10);
    let net = Devnet::start();
    let before = height(&net.register(0, 1));
    net.agree_at(before);
    net.network.kill(2).expect("gone");
    net.network.kill(3).expect("gone");
    let pending = std::thread::scope(|s| {
        let waiting = s.spawn(|| net.register(0, 2));
        for i in 0..2 {
            let told = |s: &Value| {
                s["waiting_for_quorum"] == true && s["pool_transactions"] == 1 && s["validators"] == 4
            };
            net.network.wait_for(i, "word that it waits for a quorum", told).expect("it says so");
        }
        let height_of = |i| net.network.height(i).expect("an answer");
        // What the dead had part in deciding, one of the two may still have from the other.
        let level = |s: &Value| s["height"] == height_of(1);
        net.network.wait_for(0, "the height of the other", level).expect("they are level");
        let used = |i| net.network.usage(i).expect("it runs").cpu;
        let (begun, first, stuck) = (Instant::now(), [used(0), used(1)], height_of(0));
        // Nothing is waited for here: this is the length of what is measured, and a busy machine makes it longer.
        std::thread::sleep(WINDOW);
        for (i, first) in first.into_iter().enumerate() {
            let (cpu, waited) = (used(i) - first, begun.elapsed());
            println!("node {i} used {cpu:?} of a processor in {waited:?} of waiting");
            assert!(cpu < waited / 10, "node {i} used {cpu:?} of a processor in {waited:?} of waiting");
        }
        assert_eq!(height_of(0), stuck, "nothing is decided without a quorum");
        let back = Instant::now();
        net.network.start(2).expect("starts");
        net.network.start(3).expect("starts");
        let reply = waiting.join().expect("it becomes final");
        println!("final {:.1?} after they were started again", back.elapsed());
        assert!(height(&reply) > stuck);
        reply
    });
    for i in 0..4 {
        let told = |s: &Value| s["waiting_for_quorum"] == false;
        net.network.wait_for(i, "word that there is a quorum", told).expect("it says so");
    }
    net.agree_at(height(&pending));
}

/// A validator's disk is lost and it starts with its keys alone: it fetches everything and takes part again, so that
/// the chain then goes on without another one.
#[test]
fn a_node_with_an_empty_disk_joins() {
    let net = Devnet::start();
    let mut last = 0;
    for code in 1..6 {
        last = height(&net.register(0, code));
    }
    net.network.wait_for_height(3, last).expect("it has all");
    net.network.kill(3).expect("gone");
    for entry in std::fs::read_dir(&net.network.nodes[3].home).expect("its folder") {
        let path = entry.expect("a file").path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("key" | "age") => {}
            _ if path.is_dir() => std::fs::remove_dir_all(&path).expect("removed"),
            _ => std::fs::remove_file(&path).expect("removed"),
        }
    }
    last = height(&net.register(0, 6));
    net.network.start(3).expect("it starts");
    net.network.wait_for_height(3, last).expect("it has all again");
    // Three of four are a quorum only with the one that came back.
    net.network.kill(0).expect("another is gone");
    let after = height(&net.register(3, 7));
    for i in 1..4 {
        net.network.wait_for_height(i, after).expect("the chain goes on");
    }
}

/// A real founding: each institution makes its own keys and shows a public piece; whoever puts the pieces together
/// gets the same document; the network runs on it.
#[test]
fn institutions_found_a_chain_without_seeing_each_others_keys() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = dir.path().join("network");
    let at = |name: &str| root.join(name).display().to_string();
    let run = |name: &str, args: &[&str]| {
        let out = Command::new(program(name)).args(args).stdin(Stdio::null()).output().expect("it starts");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    std::fs::create_dir(&root).expect("a folder");
    let mut pieces = Vec::new();
    for (slug, role) in SLUGS.into_iter().zip(["bureau", "hospital", "hospital", "insurer"]) {
        let (pass, key, node, piece) = (
            at(&format!("{slug}.pass")),
            at(&format!("{slug}.age")),
            at(&format!("{slug}.node")),
            at(&format!("{slug}.toml")),
        );
        std::fs::write(&pass, format!("{slug}'s own\n")).expect("a file");
        let made =
            run("assentd", &["init", "--home", &at(slug), "--chain-id", "real", "--institution", slug]);
        std::fs::write(&node, made).expect("a file");
        let keygen = ["--passphrase-file", &pass, "institution", "keygen", "--slug", slug, "--keyfile", &key];
        run("assent", &keygen);
        run(
            "assent",
            &[
                "--passphrase-file",
                &pass,
                "institution",
                "admission",
                "--keyfile",
                &key,
                "--chain-id",
                "real",
                "--name-en",
                slug,
                "--name-zh",
                slug,
                "--role",
                role,
                "--validator",
                &node,
                "--not-before",
                "2020-01-01",
                "--not-after",
                "2099-12-31",
                "-o",
                &piece,
            ],
        );
        let public = std::fs::read_to_string(&piece).expect("a piece");
        for secret in ["consensus.key", "network.key"] {
            let secret = std::fs::read_to_string(root.join(slug).join(secret)).expect("a key file");
            assert!(!public.contains(secret.trim()), "a piece holds no secret");
        }
        pieces.push(piece);
    }
    let collect = |out: &str, order: &[&str]| {
        let fixed = ["genesis", "collect", "--chain-id", "real", "--time", "2026-01-01T00:00:00Z", "-o", out];
        run("assent", &[&fixed, order].concat());
        run("assent", &["--genesis", out, "genesis", "hash"])
    };
    let mut order: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let one = collect(&at("genesis.toml"), &order);
    order.reverse();
    assert_eq!(one, collect(&at("theirs.toml"), &order), "everybody founds the same chain");
    let network = Network::over(&root).expect("a network");
    network.start_all().expect("four nodes");
    for i in 0..4 {
        network.wait_for_height(i, 1).expect("a first block");
    }
}

/// A wrong passphrase opens nothing and says so; the program's exit code and code name tell scripts.
#[test]
fn a_wrong_passphrase_is_refused_by_name() {
    let net = Devnet::start();
    std::fs::write(net.path("wrong"), "another\n").expect("a file");
    let keyfile = net.path("network/hospital-a/operator.age");
    let out = Command::new(program("assent"))
        .args([
            "--json",
            "--passphrase-file",
            &net.path("wrong"),
            "institution",
            "show",
            "--keyfile",
            &keyfile,
        ])
        .output()
        .expect("assent starts");
    assert_eq!(out.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(reply["code_name"], "WrongPassphrase", "{reply}");
}
