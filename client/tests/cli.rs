//! The program as people and scripts run it: exit codes, JSON, passphrases, what it leaves on disk.
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Where no node answers: nothing listens on the first port, and none is ever given it by chance.
const NOBODY: &str = "http://127.0.0.1:1";

/// A folder with a devnet of one node, and the file that opens its keys.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pass"), "correct horse\n").unwrap();
        fs::write(dir.path().join("wrong"), "incorrect\n").unwrap();
        let site = Site { dir };
        let (code, out) =
            site.run("genesis devnet --out net --nodes 1 --institutions 1 --passphrase-file pass");
        assert_eq!((code, out["nodes"][0]["institution"].as_str()), (0, Some("bureau")), "{out}");
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
        command.current_dir(self.dir.path()).args(args.split(' ')).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &str) -> (i32, Value) {
        answer(self.command(args).arg("--json").output().unwrap())
    }
}

fn answer(out: Output) -> (i32, Value) {
    let json = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    (out.status.code().unwrap(), json)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_devnet_has_its_keys_in_private_files_and_one_genesis() {
    let site = Site::new();
    for name in ["net/bureau/consensus.key", "net/bureau/network.key"] {
        let text = fs::read_to_string(site.path(name)).unwrap();
        assert_eq!(hex::decode(text.trim_end()).unwrap().len(), 32);
        assert_eq!(mode(&site.path(name)), 0o600);
    }
    assert_eq!(mode(&site.path("net/bureau/operator.age")), 0o600);
    let (code, shown) = site.run("genesis show --genesis net/genesis.toml");
    assert_eq!((code, shown["validators"].as_array().unwrap().len()), (0, 1));
    let (_, keys) = site.run("institution show --keyfile net/bureau/operator.age --passphrase-file pass");
    assert_eq!(keys["encryption_key"], shown["institutions"][0]["encryption_key"], "packages will open");
    let (code, again) = site.run("genesis devnet --out net --passphrase-file pass");
    assert_eq!((code, again["code_name"].as_str()), (1, Some("FileExists")));
}

#[test]
fn each_failure_has_its_exit_code_and_name() {
    let site = Site::new();
    let check = |args: &str, code: i32, name: &str| {
        let (exit, json) = site.run(args);
        assert_eq!((exit, json["code_name"].as_str()), (code, Some(name)), "{args}: {json}");
    };
    check("institution show --keyfile net/bureau/operator.age --passphrase-file wrong", 1, "WrongPassphrase");
    check("wallet show --wallet net/bureau/operator.age --passphrase-file pass", 1, "NotAKeyFile");
    check("genesis hash", 1, "NoGenesis");
    check("genesis hash --genesis pass", 1, "BadGenesis");
    check("verify pass", 1, "NoGenesis");
    check(&format!("status --genesis net/genesis.toml --node {NOBODY}"), 5, "Unreachable");

    let (exit, json) = site.run("verify pass --genesis net/genesis.toml");
    assert_eq!((exit, json["valid"].as_bool()), (4, Some(false)));
    assert_eq!(site.run("wallet grant --no-such-option").0, 1);
    assert_eq!(site.run("--help").0, 0);
}

/// What a node shows for a proposal is made where its keys are, and needs nothing but them and the genesis file.
#[test]
fn a_nodes_piece_is_made_from_its_folder_and_holds_no_secret() {
    let site = Site::new();
    let piece = |slug: &str, out: &str| {
        site.run(&format!(
            "govern piece --genesis net/genesis.toml --home net/bureau --institution {slug} -o {out}"
        ))
    };
    let (code, made) = piece("bureau", "piece.toml");
    assert_eq!((code, made["institution"].as_str()), (0, Some("bureau")), "{made}");
    let text = fs::read_to_string(site.path("piece.toml")).unwrap();
    assert!(text.contains(made["consensus_key"].as_str().unwrap()));
    for name in ["net/bureau/consensus.key", "net/bureau/network.key"] {
        assert!(!text.contains(fs::read_to_string(site.path(name)).unwrap().trim()), "{name}");
    }
    assert_eq!(piece("bureau", "piece.toml").1["code_name"], "FileExists");
    assert_eq!(piece("nobody", "other.toml").1["code_name"], "NoSuchInstitution");
    fs::set_permissions(site.path("net/bureau/consensus.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(piece("bureau", "other.toml").1["code_name"], "FileNotPrivate");
    fs::set_permissions(site.path("net/bureau/consensus.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(site.path("net/bureau/network.key"), "no key").unwrap();
    assert_eq!(piece("bureau", "other.toml").1["code_name"], "NotAKeyFile");
}

/// Who asks signs: an institution by its key file or a person by her wallet, and never both.
#[test]
fn an_explanation_needs_one_who_asks_and_what_would_be_requested() {
    let site = Site::new();
    let grant = "a".repeat(64);
    let what = format!("--grant {grant} --offer offer.json --purpose treatment --genesis net/genesis.toml");
    let refused = |who: &str, why: &str| {
        let out = site.command(&format!("explain {who}{what}")).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(1) && said.contains(why), "{who}: {said}");
    };
    refused("", "--keyfile <FILE>");
    refused("--keyfile net/bureau/operator.age --wallet lin.wallet ", "cannot be used with");
    refused("--keyfile net/bureau/operator.age --custodian bureau ", "cannot be used with");
    let (code, asked) =
        site.run(&format!("explain --keyfile net/bureau/operator.age {what} --node {NOBODY}"));
    assert_eq!((code, asked["code_name"].as_str()), (5, Some("Unreachable")), "{asked}");
    let help = site.command("explain --help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["Examples:", "--wallet", "--requester", "--offer", "commits nothing", "Exit 3"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}

#[test]
fn governance_without_a_key_or_a_height_is_wrong_use() {
    let site = Site::new();
    for args in [
        "govern propose validators --remove insurer --keyfile net/bureau/operator.age",
        "govern propose validators --remove insurer --from +10",
        "govern propose parameters --dry-run",
        "govern approve xyz --keyfile net/bureau/operator.age",
    ] {
        assert_eq!(site.run(args).0, 1, "{args}");
    }
}

#[test]
fn a_passphrase_comes_from_a_descriptor_and_never_from_the_arguments() {
    let site = Site::new();
    let program = env!("CARGO_BIN_EXE_assent");
    let script = format!("exec {program} --json wallet new --wallet lin.wallet --passphrase-fd 3 3<pass");
    let out = Command::new("sh").arg("-c").arg(script).current_dir(site.dir.path()).output().unwrap();
    assert_eq!(answer(out).0, 0);
    assert_eq!(mode(&site.path("lin.wallet")), 0o600);
    assert_eq!(site.run("wallet show --wallet lin.wallet --passphrase-file pass").1["accounts"], 0);
    let help = site.command("wallet new --help").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("--passphrase <"));
}

#[test]
fn an_enrolment_request_names_the_account_and_stays_in_the_wallet() {
    let site = Site::new();
    site.run("wallet new --wallet lin.wallet --passphrase-file pass");
    let enrol = "wallet enrol-request --wallet lin.wallet --custodian bureau --genesis net/genesis.toml \
                 --passphrase-file pass -o lin.enrol";
    let (code, request) = site.run(enrol);
    assert_eq!(code, 0, "{request}");
    let (_, accounts) = site.run("wallet show --wallet lin.wallet --passphrase-file pass");
    assert_eq!(accounts["accounts"], 1);
    let file: Value = serde_json::from_slice(&fs::read(site.path("lin.enrol")).unwrap()).unwrap();
    assert_eq!(file, request["request"]);
    assert_eq!(site.run(enrol).1["code_name"], "FileExists");
}

/// The help of a command and of all below it: what each is, and for each that does something an example (its group's
/// will do) whose options there are.
fn explained(site: &Site, path: &[&str], group_has_examples: bool) -> usize {
    let out = site.command(&[path, &["--help"]].concat().join(" ")).output().unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && help.len() > 100, "{path:?}");
    let has_examples = help.contains("\nExample");
    let below = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names = below.filter_map(|l| l.strip_prefix("  ")?.split(' ').next());
    let names: Vec<_> = names.filter(|n| !n.is_empty() && *n != "help").collect();
    if names.is_empty() {
        assert!(has_examples || group_has_examples, "{path:?} has no example");
        let lines = help.replace("\\\n", " ");
        let examples = lines.lines().filter(|l| l.starts_with("  assent "));
        for option in examples.flat_map(str::split_whitespace).filter(|w| w.starts_with("--")) {
            let explained =
                |l: &str| l.trim_start().trim_start_matches("-o, ").split(' ').next() == Some(option);
            assert!(help.lines().any(explained), "{path:?} has no {option}:\n{help}");
        }
        return 1;
    }
    let group_has_examples = has_examples && !path.is_empty();
    names.iter().map(|name| explained(site, &[path, &[name]].concat(), group_has_examples)).sum()
}

#[test]
fn every_command_explains_itself() {
    let site = Site::new();
    assert!(explained(&site, &[], false) > 60);
    let long = site.command("--help").output().unwrap();
    assert!(String::from_utf8(long.stdout).unwrap().contains("Exit codes:"));
}

#[test]
fn a_real_network_is_founded_from_pieces_and_no_secret_leaves_its_institution() {
    use assent_genesis::ValidatorPiece;
    use assent_proto::SecretKey;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("pass"), "correct horse\n").unwrap();
    let site = Site { dir };
    for (n, slug) in [(1, "bureau"), (2, "insurer")] {
        let keys = site
            .run(&format!("institution keygen --slug {slug} --keyfile {slug}.age --passphrase-file pass"));
        assert_eq!(keys.0, 0, "{}", keys.1);
        let (consensus, network) = (SecretKey::from_bytes(&[n; 32]), SecretKey::from_bytes(&[n + 9; 32]));
        let piece = ValidatorPiece::sign("real-1", slug, 1, &consensus, &network, None);
        fs::write(site.path(&format!("{slug}.node.toml")), piece.to_toml()).unwrap();
        let (code, made) = site.run(&format!(
            "institution admission --keyfile {slug}.age --passphrase-file pass --chain-id real-1 --name-en {slug} \
             --name-zh 机构 --role {slug} --not-before 2026-01-01 --not-after 2029-12-31 \
             --validator {slug}.node.toml -o {slug}.toml"
        ));
        assert_eq!(code, 0, "{made}");
        let public = fs::read_to_string(site.path(&format!("{slug}.toml"))).unwrap();
        assert!(!public.contains(&hex::encode(consensus.to_bytes())) && !public.contains("SECRET"));
    }
    let found = |pieces: &str, out: &str| {
        site.run(&format!("genesis collect {pieces} --chain-id real-1 --time 2026-12-01T00:00:00Z -o {out}"))
    };
    let (code, first) = found("bureau.toml insurer.toml", "a.toml");
    assert_eq!((code, first["validators"].as_array().map(Vec::len)), (0, Some(2)), "{first}");
    assert_eq!(found("insurer.toml bureau.toml", "b.toml").1["genesis"], first["genesis"], "in any order");
    let rules = String::from_utf8(site.command("genesis rules").output().unwrap().stdout).unwrap();
    fs::write(site.path("rules.toml"), &rules).unwrap();
    fs::write(site.path("other.toml"), rules.replace("heartbeat_ms = 10000", "heartbeat_ms = 5000")).unwrap();
    fs::write(site.path("short.toml"), rules.replace("heartbeat_ms = 10000\n", "")).unwrap();
    let ruled = |rules: &str, out: &str| found(&format!("bureau.toml insurer.toml --rules {rules}"), out).1;
    assert_eq!(ruled("rules.toml", "e.toml")["genesis"], first["genesis"], "the rules that it has anyway");
    let other = ruled("other.toml", "f.toml");
    assert_eq!(other["parameters"]["heartbeat_ms"], 5000);
    assert_ne!(other["genesis"], first["genesis"]);
    let short = ruled("short.toml", "g.toml");
    assert!(short["error"].as_str().unwrap().contains("heartbeat_ms"), "nothing is guessed: {short}");
    assert_eq!(found("bureau.toml bureau.toml", "c.toml").1["code_name"], "BadGenesis");
    let altered = fs::read_to_string(site.path("insurer.toml")).unwrap().replace("insurer", "hospital-a");
    fs::write(site.path("altered.toml"), altered).unwrap();
    assert_eq!(found("bureau.toml altered.toml", "d.toml").1["code_name"], "BadGenesis");
}

/// A devnet of four, beside the site's own.
fn four(site: &Site) -> &'static str {
    let (code, out) = site.run("genesis devnet --out four --nodes 4 --institutions 4 --passphrase-file pass");
    assert_eq!(code, 0, "{out}");
    "--genesis four/genesis.toml --passphrase-file pass"
}

#[test]
fn r41_an_order_is_signed_by_both_on_their_own_machines() {
    let site = Site::new();
    let with = four(&site);
    fs::write(site.path("order.pdf"), "the order").unwrap();
    let order = |cover: &str, out: &str| {
        site.run(&format!(
            "institution order --keyfile four/bureau/operator.age --basis court --document order.pdf \
             --beneficiary insurer --cosigner hospital-a {cover} --not-after 2099-03-31 -o {out} {with}"
        ))
    };
    let (code, drafted) = order("--category settlement", "order.draft");
    assert_eq!(code, 0, "{drafted}");
    assert!(drafted["terms"].to_string().contains("insurance settlements"), "{drafted}");
    assert_eq!(mode(&site.path("order.draft")), 0o600);
    assert_eq!(order("--category settlement", "order.draft").1["code_name"], "FileExists");

    let cosign = |who: &str, draft: &str, more: &str| {
        site.run(&format!(
            "institution cosign --keyfile four/{who}/operator.age --draft {draft} -o order.signed {with}{more}"
        ))
    };
    assert_eq!(cosign("insurer", "order.draft", " --yes").1["code_name"], "BadRequest", "another is named");
    assert_eq!(cosign("hospital-a", "order.draft", "").1["code_name"], "NotConfirmed");
    // Altered on the way: terms of another draft under the signature of this one.
    assert_eq!(order("--category encounter", "other.draft").0, 0);
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(site.path(name)).unwrap()).unwrap() };
    let mut altered = read("order.draft");
    altered["body"] = read("other.draft")["body"].clone();
    fs::write(site.path("altered.draft"), altered.to_string()).unwrap();
    assert_eq!(cosign("hospital-a", "altered.draft", " --yes").1["code_name"], "BadRequest");
    assert!(!site.path("order.signed").exists());

    let submit =
        |draft: &str| site.run(&format!("institution submit --draft {draft} {with} --node {NOBODY}"));
    let (code, signed) = cosign("hospital-a", "order.draft", " --yes");
    assert_eq!((code, &signed["terms"]), (0, &drafted["terms"]), "what is signed is what was drafted");
    assert_eq!(submit("order.signed").0, 5, "nothing is missing but a node");
    assert_eq!(
        order("--data-from 2020-01-01", "none.draft").1["code_name"],
        "Usage",
        "an order covers something"
    );
    let other_chain = site.run(
        "institution cosign --keyfile net/bureau/operator.age --draft order.draft -o x --yes \
         --genesis net/genesis.toml --passphrase-file pass",
    );
    assert_eq!(other_chain.1["code_name"], "BadRequest");
}

#[test]
fn r15_a_delegation_is_asked_for_by_the_one_who_must_sign_it() {
    let site = Site::new();
    fs::write(site.path("birth.pdf"), "born").unwrap();
    site.run("wallet new --wallet mother.wallet --passphrase-file pass");
    let (_, enrolled) = site.run(
        "wallet enrol-request --wallet mother.wallet --custodian bureau --genesis net/genesis.toml \
         --passphrase-file pass",
    );
    let own = enrolled["account"].clone();
    let other = "ab".repeat(32);
    let ask = |capacity: &str, until: &str, out: &str| {
        site.run(&format!(
            "wallet delegate-request --wallet mother.wallet --as {capacity} --with {other} --purpose treatment \
             --until {until} --document birth.pdf --institution bureau -o {out} --genesis net/genesis.toml \
             --passphrase-file pass"
        ))
    };
    let (code, guardian) = ask("guardian", "2031-04-01", "guardian.json");
    assert_eq!((code, &guardian["delegate"], guardian["ward"].as_str()), (0, &own, Some(&other[..])));
    let file: Value = serde_json::from_slice(&fs::read(site.path("guardian.json")).unwrap()).unwrap();
    assert_eq!(file, guardian["request"]);
    assert!(guardian["text"].as_str().unwrap().starts_with("ASSENT:CS:") && guardian["qr"].is_string());
    let (_, proxy) = ask("proxy", "2031-04-01", "proxy.json");
    assert_eq!((&proxy["ward"], proxy["delegate"].as_str()), (&own, Some(&other[..])));
    assert_eq!(ask("guardian", "2031-04-02", "x").0, 1, "no birthday shows");
    assert_eq!(ask("own", "2031-04-01", "x").1["code_name"], "Usage");
    assert_eq!(ask("proxy", "2031-04-01", "proxy.json").1["code_name"], "FileExists");
}

#[test]
fn r18_an_institutions_piece_for_a_running_chain_holds_no_secret() {
    let site = Site::new();
    site.run("institution keygen --slug hospital-z --keyfile z.age --passphrase-file pass");
    let piece = "institution join-piece --keyfile z.age --genesis net/genesis.toml --role hospital \
                 --not-before 2026-01-01 --not-after 2029-12-31 -o z.toml --passphrase-file pass";
    let (code, made) = site.run(piece);
    assert_eq!((code, made["slug"].as_str()), (0, Some("hospital-z")), "{made}");
    let text = fs::read_to_string(site.path("z.toml")).unwrap();
    assert!(text.contains(made["operator_key"].as_str().unwrap()) && !text.contains("SECRET"));
    assert_eq!(site.run(piece).1["code_name"], "FileExists");
    let backwards = piece.replace("2029-12-31", "2025-12-31").replace("z.toml", "y.toml");
    assert_eq!(site.run(&backwards).1["code_name"], "BadPiece");
}

#[test]
fn what_goes_together_or_not_is_wrong_use() {
    let site = Site::new();
    let id = "ab".repeat(32);
    for args in [
        format!("institution request --keyfile k --offer o --grant {id} --emergency unconscious"),
        format!("institution request --keyfile k --offer o --grant {id} --order {id} --purpose legal"),
        format!("institution request --keyfile k --offer o --grant {id}"),
        format!("institution attest-erasure --keyfile k --grant {id} --report r --hold litigation"),
        "govern propose institution --keyfile k".to_owned(),
        "govern propose institution --suspend a --expel b --keyfile k".to_owned(),
        "govern propose policy --dry-run".to_owned(),
    ] {
        let (code, json) = site.run(&args);
        assert_eq!((code, json), (1, Value::Null), "{args}");
    }
}
