//! Validators are added, re-keyed, re-weighted and removed on real processes by governance transactions, at stated
//! heights, without a restart; what was proved before all changes and after them verifies offline.
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use std::process::{Command, Stdio};
use std::time::Instant;

use assent_client::keyfile::{self, InstitutionSecrets};
use assent_client::rpc::Node;
use assent_genesis::Genesis;
use assent_proto::field::Message;
use assent_proto::transaction::{Action, Author, Body, ReportEquivocation, Statement, StatementKind};
use assent_proto::validators::{VoteKind, address, vote_message};
use assent_proto::{Address, BlockId, Envelope, Hash, Height, SecretKey, TimeMs};
use assent_tests::clients::something;
use assent_tests::network::{Network, PATIENCE, program};
use serde_json::Value;

/// The exit codes of `assent`.
const REFUSED: i32 = 2;
const DENIED: i32 = 3;
/// How far above the newest block a new set votes: room for a proposal and its approvals, a block each, and for what
/// a busy machine needs between them ([`Council::calm`]).
const AHEAD: u64 = 35;

/// A running network in a folder of its own.
struct Council {
    network: Network,
    dir: tempfile::TempDir,
    genesis: Genesis,
    /// Hospital A, by whose transactions the chain goes on.
    secrets: InstitutionSecrets,
    items: u32,
}

impl Council {
    fn start() -> Council {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = dir.path().join("passphrase");
        std::fs::write(&passphrase, "nobody relies on this\n").unwrap();
        let network = Network::found(&dir.path().join("network"), &passphrase).unwrap();
        network.start_all().unwrap();
        let genesis = Genesis::load(network.genesis()).unwrap();
        let keyfile = dir.path().join("network/hospital-a/operator.age");
        let secrets = keyfile::open(&keyfile, &"nobody relies on this".to_owned().into()).unwrap();
        Council { network, dir, genesis, secrets, items: 0 }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn keyfile(&self, slug: &str) -> String {
        self.path(&format!("network/{slug}/operator.age"))
    }

    /// Runs `assent` against a node; gives its exit code and JSON.
    fn try_assent(&self, node: usize, args: &[&str]) -> (i32, Value) {
        let url = self.network.url(node);
        let out = Command::new(program("assent"))
            .args(["--json", "--node", &url, "--passphrase-file", &self.path("passphrase"), "--genesis"])
            .arg(self.network.genesis())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        // What follows the chain prints a line for each event before its answer.
        let reply = serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr)));
        (out.status.code().unwrap(), reply)
    }

    /// A step on the way to a new set of validators. On a busy machine a living one may miss its turn at any moment;
    /// then the step is denied and changes nothing, and is taken again once that one is back. None if the chain came
    /// too near to where the new set was to vote meanwhile.
    fn step(&mut self, args: &[&str]) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (exit, reply) = self.try_assent(BUREAU, args);
            match (exit, reply["code_name"].as_str()) {
                (0, _) => return Some(reply),
                (DENIED, Some("ActivationOutOfRange")) => return None,
                (REFUSED | DENIED, Some("NoLiveQuorum")) if Instant::now() < deadline => self.calm(),
                _ => panic!("{args:?}: {reply}"),
            }
        }
    }

    fn assent(&self, args: &[&str]) -> Value {
        let (exit, reply) = self.try_assent(0, args);
        assert_eq!(exit, 0, "{args:?}: {reply}");
        reply
    }

    /// Proposes as the bureau and has the others approve until it is decided; gives the proposal's id. None if it was
    /// to be in force before it could be decided.
    fn try_decide(&mut self, change: &[&str], approvers: &[&str]) -> Option<String> {
        let (bureau, mut args) = (self.keyfile("bureau"), vec!["govern", "propose"]);
        args.extend(change);
        args.extend(["--keyfile", &bureau]);
        let proposed = self.step(&args)?;
        let id = proposed["proposal"].as_str().unwrap().to_owned();
        assert_eq!(proposed["enacted"], false, "one of several does not decide alone");
        for (i, slug) in approvers.iter().enumerate() {
            let keyfile = self.keyfile(slug);
            let approved = self.step(&["govern", "approve", &id, "--yes", "--keyfile", &keyfile])?;
            assert_eq!(approved["enacted"], i + 1 == approvers.len(), "{slug} on {change:?}: {approved}");
        }
        Some(id)
    }

    fn decide(&mut self, change: &[&str], approvers: &[&str]) -> String {
        self.try_decide(change, approvers).unwrap()
    }

    /// Lets the chain go on until nobody's turn comes last but that of the dead: a set is accepted only if those who
    /// are known to be alive are a quorum of it, and on a busy machine a living one may have missed a turn.
    fn calm(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let dead = self.address(INSURER).to_string();
        loop {
            let shown = self.assent(&["govern", "show"]);
            let late = |t: &&Value| t["passed_over"] == true && t["address"] != dead.as_str();
            if !shown["turns"].as_array().unwrap().iter().any(|t| late(&t)) {
                return;
            }
            assert!(Instant::now() < deadline, "{shown}");
            // A block at a time: who stands still cannot come back, however far the others go.
            let here = self.register();
            for node in (0..self.network.nodes.len()).filter(|i| self.network.pid(*i).is_some()) {
                self.network.wait_for_height(node, here).unwrap();
            }
        }
    }

    /// Has it decided who votes, and the chain go on until they do; gives the first height at which they do.
    fn change(&mut self, options: &[&str], approvers: &[&str]) -> u64 {
        self.calm();
        let from = format!("+{AHEAD}");
        let dry = [&["govern", "propose", "validators", "--from", &from, "--dry-run"], options].concat();
        let dry = self.step(&dry).unwrap();
        assert_eq!((&dry["refused"], &dry["proved"]), (&Value::Bool(false), &Value::Bool(false)), "{dry}");
        let (deadline, change) =
            (Instant::now() + PATIENCE, [&["validators", "--from", &from], options].concat());
        while self.try_decide(&change, approvers).is_none() {
            assert!(Instant::now() < deadline, "never in time: {change:?}");
        }
        let shown = self.assent(&["govern", "show"]);
        let from = shown["pending"]["from"].as_u64().unwrap();
        assert_ne!(shown["pending"]["validators"], shown["validators"]);
        while self.register() < from {}
        let now = self.assent(&["govern", "show"]);
        assert_eq!(now["validators"], shown["pending"]["validators"]);
        assert_eq!(now["pending"], Value::Null);
        from
    }

    fn node(&self, i: usize) -> Node {
        Node::connect(&self.network.url(i), &self.genesis).unwrap()
    }

    /// A transaction, waited for until it is final; gives its height.
    fn register(&mut self) -> u64 {
        self.items += 1;
        self.submit(Action::RegisterItem(something(self.items)))
    }

    fn submit(&self, action: Action) -> u64 {
        let secrets = &self.secrets;
        let now = jiff::Timestamp::now().as_millisecond() as u64;
        let body = Body {
            chain: self.genesis.hash().tag(),
            expires_at: TimeMs(now + 300_000),
            author: Author::Institution(secrets.institution()),
            action,
        };
        let envelope = Envelope::sign(&self.genesis.hash(), &body, &[&secrets.operator().unwrap()]);
        let (done, _) = self.node(0).submit(&envelope).unwrap();
        assert_eq!(done.denial(), None);
        done.height.0
    }

    /// Makes a further node's keys and its piece for an institution, and starts it.
    fn join(&mut self, name: &str, institution: &str) -> (usize, String) {
        let (at, piece) = (self.network.join(name).unwrap(), self.path(&format!("{name}.toml")));
        let home = self.network.nodes[at].home.display().to_string();
        self.assent(&["govern", "piece", "--home", &home, "--institution", institution, "-o", &piece]);
        self.network.start(at).unwrap();
        (at, piece)
    }

    fn consensus_key(&self, node: usize) -> SecretKey {
        let text = std::fs::read_to_string(self.network.nodes[node].home.join("consensus.key")).unwrap();
        SecretKey::from_bytes(&Hash::from_hex(text.trim()).unwrap().0)
    }

    fn address(&self, node: usize) -> Address {
        address(&self.consensus_key(node).public())
    }

    /// Who certified a block, as a node has it.
    fn signers(&self, node: usize, height: u64) -> Vec<Address> {
        self.network.wait_for_height(node, height).unwrap();
        let mut signers = Vec::new();
        let follow = self.node(node).follow(Height(height), Height(height), |block| {
            signers = block.signers;
            Ok(true)
        });
        follow.unwrap();
        signers
    }

    /// Waits for a block from this height on that the node's own vote certifies.
    fn votes_from(&mut self, node: usize, from: u64) {
        let (deadline, mut height, who) = (Instant::now() + PATIENCE, from, self.address(node));
        while !self.signers(node, height).contains(&who) {
            assert!(Instant::now() < deadline, "its votes are in no certificate up to block {height}");
            self.register();
            height += 1;
        }
    }

    fn export(&self, what: &[&str], file: &str) -> String {
        let path = self.path(file);
        self.assent(&[&["audit", "export", "-o", &path], what].concat());
        path
    }
}

const BUREAU: usize = 0;
const HOSPITAL_B: usize = 2;
const INSURER: usize = 3;

#[test]
fn validators_change_while_the_chain_goes_on() {
    let mut c = Council::start();
    let before = c.register();
    let item = "institution register-item --code 1 --scope 1 --category test-result --level moderate \
                --opening prohibited";
    let keyfile = c.keyfile("hospital-a");
    let first = c.assent(&item.split(' ').chain(["--keyfile", &keyfile]).collect::<Vec<_>>());
    let old = c.export(&["--event", first["body_id"].as_str().unwrap()], "before.evidence");
    assert!(before > 0);

    // The bounds that all share.
    let id = c.decide(&["parameters", "--set", "permit_life_ms=7200000"], &["hospital-a", "hospital-b"]);
    assert_eq!(c.assent(&["govern", "show"])["parameters"]["permit_life_ms"], 7_200_000);
    let (exit, late) =
        c.try_assent(BUREAU, &["govern", "approve", &id, "--yes", "--keyfile", &c.keyfile("insurer")]);
    assert_eq!((exit, late["code_name"].as_str()), (DENIED, Some("ProposalEnacted")));

    // Two nodes join: refused by their peers until they are admitted, observers from then on.
    let (fifth, fifth_piece) = c.join("fifth", "hospital-a");
    let (sixth, sixth_piece) = c.join("sixth", "hospital-b");
    c.decide(&["nodes", "--admit", &fifth_piece, "--admit", &sixth_piece], &["hospital-a", "hospital-b"]);
    let here = c.register();
    for node in [fifth, sixth] {
        c.network.wait_for_height(node, here).unwrap();
        assert_eq!(c.network.answer(node).unwrap()["voting"], false);
    }

    what_could_stop_the_chain_is_refused(&mut c, &fifth_piece, &sixth_piece);

    let joined = c.change(&["--add", &fifth_piece], &["hospital-a", "hospital-b"]);
    c.votes_from(fifth, joined);
    assert!(!c.signers(fifth, joined - 1).contains(&c.address(fifth)), "it voted before its height");

    // One of five is dead: a quorum needs the new one. The others remove it.
    c.network.kill(INSURER).unwrap();
    let alone = c.register();
    let signed = c.signers(BUREAU, alone);
    assert!(signed.contains(&c.address(fifth)) && !signed.contains(&c.address(INSURER)), "{signed:?}");
    let removed = c.change(&["--remove", "insurer"], &["hospital-a", "hospital-b"]);
    // Its node starts again and follows, without a vote.
    c.network.start(INSURER).unwrap();
    let later = c.register();
    assert!(later > removed);
    c.network.wait_for_height(INSURER, later).unwrap();
    assert_eq!(c.network.answer(INSURER).unwrap()["voting"], false);
    let (exit, denied) = c.try_assent(
        BUREAU,
        &[
            "govern",
            "propose",
            "parameters",
            "--set",
            "heartbeat_ms=9000",
            "--keyfile",
            &c.keyfile("insurer"),
        ],
    );
    assert_eq!((exit, denied["code_name"].as_str()), (DENIED, Some("NotAValidatorsInstitution")));

    // Another key for a validator: the node that has it votes, the one that had the old one goes on as an observer.
    let rekeyed = c.change(&["--replace-key", "hospital-b", &sixth_piece], &["hospital-a"]);
    c.votes_from(sixth, rekeyed);
    let later = c.register();
    c.network.wait_for_height(HOSPITAL_B, later).unwrap();
    assert_eq!(c.network.answer(HOSPITAL_B).unwrap()["voting"], false);

    // Another weight.
    let weighted = c.change(&["--power", "bureau=2"], &["hospital-a"]);
    let shown = c.assent(&["govern", "show"]);
    assert_eq!(shown["total_power"], 5);
    let power = |slug: &str| {
        let all = shown["validators"].as_array().unwrap();
        all.iter().filter(|v| v["institution"] == slug).map(|v| v["power"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((power("bureau"), power("hospital-a"), power("hospital-b"), power("insurer")), (2, 2, 1, 0));
    assert_eq!(shown["former"].as_array().unwrap().len(), 2);

    contradiction_is_on_record(&c);
    supervised(&c, &[joined, removed, rekeyed, weighted]);
    let new = c.export(&["--object", "validators"], "after.evidence");
    let trail = c.export(&["--trail", "validators"], "trail.evidence");
    for node in 0..c.network.nodes.len() {
        c.network.stop(node).unwrap();
    }
    let verified = c.assent(&["verify", &old, &new, &trail]);
    let changes: Vec<_> = verified["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["validator_changes"].as_u64().unwrap())
        .collect();
    assert_eq!((&verified["valid"], &changes[..]), (&Value::Bool(true), &[0, 4, 4][..]), "{verified}");
    every_changed_byte_fails(&c, &new);
}

/// Two new validators at once could stop the chain if they are not there: known before, and refused by the chain.
fn what_could_stop_the_chain_is_refused(c: &mut Council, fifth: &str, sixth: &str) {
    let both = ["govern", "propose", "validators", "--add", fifth, "--add", sixth, "--from", "+100"];
    let (exit, dry) = c.try_assent(BUREAU, &[&both[..], &["--dry-run"]].concat());
    assert_eq!((exit, dry["code_name"].as_str()), (REFUSED, Some("NoLiveQuorum")), "{dry}");
    assert_eq!(dry["proved"], false, "it is the node's word");
    let keyfile = c.keyfile("bureau");
    let (exit, denied) = c.try_assent(BUREAU, &[&both[..], &["--keyfile", &keyfile]].concat());
    assert_eq!((exit, denied["code_name"].as_str()), (DENIED, Some("NoLiveQuorum")), "{denied}");
}

/// Hospital B's old key is shown to have voted twice at one height: anyone's auditor sees it, and verifies it.
fn contradiction_is_on_record(c: &Council) {
    let key = c.consensus_key(HOSPITAL_B);
    let statement = |n: u8| {
        let block = Some(BlockId(Hash([n; 32])));
        let who = address(&key.public());
        let message = vote_message(&c.genesis.hash(), VoteKind::Prevote, Height(3), 0, block.as_ref(), &who);
        Statement { block, valid_round: None, signature: key.sign(&message.0) }
    };
    let report = ReportEquivocation::of(
        key.public(),
        Height(3),
        0,
        StatementKind::Prevote,
        [statement(1), statement(2)],
    );
    c.submit(Action::ReportEquivocation(Box::new(report.unwrap())));
    let listed = c.assent(&["audit", "misconduct"]);
    let reports = listed["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 1, "{listed}");
    let r = &reports[0];
    assert_eq!((r["institution"].as_str(), r["reporter"].as_str()), (Some("hospital-b"), Some("hospital-a")));
    assert_eq!((r["what"].as_str(), r["consequence"].as_str()), (Some("prevote"), Some("record")));
    assert_eq!((&r["first"]["verified"], &r["second"]["verified"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(r["removed_from"], Value::Null);
}

/// Everybody who reads the chain sees what was decided, completely, whichever node is asked.
fn supervised(c: &Council, from: &[u64]) {
    let height = c.network.height(BUREAU).unwrap();
    for node in 0..c.network.nodes.len() {
        c.network.wait_for_height(node, height).unwrap();
        let (exit, report) = c.try_assent(node, &["audit", "supervise"]);
        assert_eq!((exit, &report["complete"]), (0, &Value::Bool(true)), "node {node}: {report}");
        let after: Vec<_> = from.iter().map(|h| h - 1).collect();
        assert_eq!(report["governance"]["validator_changes_after"], serde_json::json!(after), "node {node}");
        assert_eq!(report["governance"]["contradictions"], 1);
        let (_, listed) = c.try_assent(node, &["govern", "proposals"]);
        // What was not decided in time, if anything, was proposed anew.
        let decided = listed["proposals"].as_array().unwrap().iter().filter(|p| p["standing"] == "decided");
        assert_eq!(decided.count(), 6, "of the bounds, of the nodes, four of the validators: {listed}");
    }
    // From the middle on, the set is known from the changes before.
    let (exit, _) = c.try_assent(BUREAU, &["audit", "follow", "--from", &from[1].to_string(), "--to", "tip"]);
    assert_eq!(exit, 0);
}

/// R29, on a file of a real chain with four changes of the validators.
fn every_changed_byte_fails(c: &Council, file: &str) {
    let (good, trust) = (std::fs::read(file).unwrap(), c.genesis.trust());
    assert!(assent_proto::evidence::Evidence::check(&good, &trust).is_ok());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(assent_proto::evidence::Evidence::check(&bad, &trust).is_err(), "byte {at}");
    }
    let evidence = <assent_proto::evidence::Evidence as Message>::decode(&good).unwrap();
    let links: usize = evidence.links.iter().map(|l| l.encode().len()).sum();
    println!("evidence of who votes across four changes: {} bytes, {links} of them the changes", good.len());
    // Nothing below a change is proved by it: without the last one the file proves nothing.
    let mut cut = evidence.clone();
    cut.links = evidence.links[..3].to_vec().try_into().unwrap();
    assert!(cut.verify(&trust).is_err());
}
