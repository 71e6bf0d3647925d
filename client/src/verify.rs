//! Belief is not needed: evidence checked offline with the genesis file alone (R29); and single look-ups at a
//! node, proved before they are shown.

use std::path::PathBuf;

use assent_proto::evidence::{Claim, Evidence, Verdict};
use assent_proto::field::Element;
use assent_proto::state::Object;
use assent_proto::{BodyId, Hash, ObjectKind, ObjectRef};
use clap::Args;
use serde_json::{Value, json};

use crate::context::{Context, outcome};
use crate::error::{EXIT_PROOF, Failure};
use crate::files;
use crate::output::Reply;
use crate::words::{self, Lang, kebab};

/// Which evidence.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  assent --genesis genesis.toml verify permit.evidence uses.evidence\nExit 4 if any of them proves nothing."
)]
pub struct VerifyArgs {
    /// Evidence files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Checks each file and says in words what it proves.
pub fn run(ctx: &Context, args: &VerifyArgs) -> Result<Reply, Failure> {
    let trust = ctx.genesis()?.trust();
    let (mut list, mut text, mut exit) = (Vec::new(), String::new(), 0);
    for path in &args.files {
        let name = path.display();
        let bytes = files::read(path)?;
        match Evidence::check(&bytes, &trust) {
            Ok((evidence, verdict)) => {
                text += &format!(
                    "{name}: {}\n  {}\n  {} {}, {} {} {} {}\n",
                    ctx.lang.pick("proved", "已证明"),
                    statement(&evidence.claim, &verdict, ctx.lang),
                    ctx.lang.pick("as of", "截至"),
                    words::show_time(verdict.time),
                    verdict.signers,
                    ctx.lang.pick("of", "/"),
                    verdict.validators,
                    ctx.lang.pick(
                        "validators certified it; checked with the genesis file alone",
                        "个验证节点签署；仅凭创世文件核验"
                    ),
                );
                text += &crossed(verdict.changes, ctx.lang);
                text += &details(&evidence.claim, ctx.lang);
                list.push(json!({
                    "file": path, "valid": true, "statement": verdict.statement, "height": verdict.height,
                    "time": verdict.time, "signers": verdict.signers, "validators": verdict.validators,
                    "validator_changes": verdict.changes, "bytes": bytes.len(),
                    "claim": claim_name(&evidence.claim),
                }));
            }
            Err(e) => {
                exit = EXIT_PROOF;
                text += &format!("{name}: {}: {e}\n", ctx.lang.pick("NOT PROVED", "未能证明"));
                list.push(json!({ "file": path, "valid": false, "error": e.to_string() }));
            }
        }
    }
    Ok(Reply::new(json!({ "files": list, "valid": exit == 0 }), text).exit(exit))
}

/// What was crossed between the founding and the block, and what that cannot show: the keys that voted once may
/// be stolen later, and nothing in the file is newer than they are.
fn crossed(changes: usize, lang: Lang) -> String {
    match (changes, lang) {
        (0, _) => String::new(),
        (n, Lang::En) => format!(
            "  {n} changes of the validators followed from the founding, each certified by the set before it; \
             no newer block is pinned: who held two thirds of the keys of an earlier set could make others\n"
        ),
        (n, Lang::Zh) => format!(
            "  自创世起经过 {n} 次验证者变更，每次均由前一集合签署；未锚定更新的区块：掌握早期集合三分之二密钥者可另造变更\n"
        ),
    }
}

/// What is proved, in the reader's language.
fn statement(claim: &Claim, verdict: &Verdict, lang: Lang) -> String {
    let height = verdict.height;
    match (lang, claim) {
        (Lang::En, _) => verdict.statement.clone(),
        (Lang::Zh, Claim::Event(c)) => {
            format!("该事件（{}）已记录在区块 {height}", name(&c.event.core.object))
        }
        (Lang::Zh, Claim::State(c)) => format!("{} 在区块 {height} 之后如所示", name(&c.leaf.object)),
        (Lang::Zh, Claim::Absence(c)) => format!("区块 {height} 之后不存在 {}", name(&c.object)),
        (Lang::Zh, Claim::Trail(c)) => {
            let n = c.events.len();
            format!("所示 {n} 个事件是 {} 的全部事件：完整至区块 {height}", name(&c.leaf.object))
        }
    }
}

fn claim_name(claim: &Claim) -> &'static str {
    match claim {
        Claim::Event(_) => "event",
        Claim::State(_) => "state",
        Claim::Absence(_) => "absence",
        Claim::Trail(_) => "trail",
    }
}

/// What the claim shows, beyond that it holds.
fn details(claim: &Claim, lang: Lang) -> String {
    match claim {
        Claim::Event(c) => format!("  {}\n", words::happened(&c.event.core, lang)),
        Claim::Trail(c) => {
            let line = |e: &assent_proto::Event| {
                format!("  {}  {}\n", words::show_time(e.core.time), words::happened(&e.core, lang))
            };
            c.events.iter().map(line).collect()
        }
        Claim::State(_) | Claim::Absence(_) => String::new(),
    }
}

/// Which transaction.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  assent --genesis genesis.toml tx BODY_ID --wait")]
pub struct TxArgs {
    /// Its body id
    pub body_id: BodyId,
    /// Wait up to 30 s until it is final
    #[arg(long)]
    pub wait: bool,
}

/// What became of a transaction.
pub fn tx(ctx: &Context, args: &TxArgs) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    match node.transaction(args.body_id, args.wait)? {
        Some(done) => {
            let reply = outcome(&done, ctx.lang);
            let body = serde_json::to_value(done.body()).expect("a body is plain data");
            Ok(Reply { exit: 0, ..reply }.with("body", body))
        }
        None => Ok(Reply::new(json!({ "body_id": args.body_id, "outcome": "not-final" }), "not final")),
    }
}

/// Which object.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  assent --genesis genesis.toml object grant:ID\n  \
    assent --genesis genesis.toml object validators")]
pub struct ObjectArgs {
    /// `grant:ID`, `permit:ID`, `account:ID`, `item:ID`, `batch:ID`, `settlement:CASE`, `institution:ID`,
    /// `proposal:ID`, `misconduct:ID`, and alone of their kind `validators`, `nodes`, `turns`, `parameters`, `policy`
    #[arg(value_parser = object_ref)]
    pub object: ObjectRef,
}

/// An object as of the newest final block.
pub fn object(ctx: &Context, args: &ObjectArgs) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let seen = node.object(args.object)?;
    let content = seen.object.as_ref().map_or(Value::Null, content);
    let json = json!({ "object": name(&args.object), "found": seen.object.is_some(), "content": content, "height": seen.height, "as_of": seen.time });
    let text = serde_json::to_string_pretty(&json).expect("plain data");
    Ok(Reply::new(json, text))
}

/// An object's fields, without the name of its kind around them.
fn content(object: &Object) -> Value {
    match serde_json::to_value(object) {
        Ok(Value::Object(map)) => map.into_iter().next().map_or(Value::Null, |(_, v)| v),
        _ => Value::Null,
    }
}

/// `kind:id`, or the kind alone where there is one of it.
pub fn name(object: &ObjectRef) -> String {
    match SINGLETONS.contains(object) {
        true => kebab(&object.kind),
        false => format!("{}:{}", kebab(&object.kind), object.id),
    }
}

/// Objects of which there is one.
const SINGLETONS: [ObjectRef; 5] =
    [ObjectRef::POLICY, ObjectRef::PARAMETERS, ObjectRef::VALIDATORS, ObjectRef::NODES, ObjectRef::TURNS];

/// Reads `kind:id`, or the kind alone where there is one of it.
pub fn object_ref(text: &str) -> Result<ObjectRef, String> {
    let wrong = || format!("{text}: an object looks like grant:64-hexadecimal-digits");
    if let Some(one) = SINGLETONS.iter().find(|o| kebab(&o.kind) == text) {
        return Ok(*one);
    }
    let (kind, id) = text.split_once(':').ok_or_else(wrong)?;
    let kind: ObjectKind = words::named(kind)?;
    Ok(ObjectRef { kind, id: Hash::from_hex(id).ok_or_else(wrong)? })
}

/// How the node says it is.
pub fn status(ctx: &Context) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let s = node.status()?;
    let state_root = Hash::read(s.state_root.clone(), "state_root")?;
    let json = json!({
        "height": s.height, "block_time": s.block_time, "round": s.round, "peers": s.peers,
        "pool_transactions": s.pool_transactions, "pool_bytes": s.pool_bytes, "catching_up": s.catching_up,
        "validator": s.validator, "institution": s.institution, "version": s.version, "state_root": state_root,
        "voting": s.voting, "validators": s.validators, "connected": s.connected,
        "waiting_for_quorum": s.waiting_for_quorum, "passed_over": s.passed_over,
        "target_height": s.target_height, "abstaining": s.abstaining, "inquiring": s.inquiring,
        "protocol": s.protocol, "known_protocol": s.known_protocol, "next_protocol": s.next_protocol,
        "next_protocol_from": s.next_protocol_from,
    });
    // The node chose these texts: they go out quoted, so that they cannot steer a terminal.
    let mut text = format!(
        "{:?} ({:?}): block {}, {} peers, {} transactions waiting",
        s.institution, s.version, s.height, s.peers, s.pool_transactions,
    );
    let mut add = |holds: bool, en: &'static str, zh: &'static str| {
        if holds {
            text += ctx.lang.pick(en, zh);
        }
    };
    add(s.voting, ", votes", "，投票");
    add(!s.voting, ", observes", "，观察");
    add(s.catching_up, ", catching up", "，正在追赶");
    add(s.waiting_for_quorum, ", too few validators are connected: waiting", "，在线验证者不足，等待中");
    add(!s.abstaining.is_empty(), ", signs nothing at this height", "，本高度不签名");
    if !s.abstaining.is_empty() {
        text += &format!(" ({:?})", s.abstaining);
    }
    if s.next_protocol > s.known_protocol {
        text += &format!(
            "{} {} {} {}",
            ctx.lang
                .pick("; too old: the chain changes to protocol version", "；程序过旧：链将升级至协议版本"),
            s.next_protocol,
            ctx.lang.pick("at block", "，于区块"),
            s.next_protocol_from
        );
    }
    Ok(Reply::new(json, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use assent_proto::Trail;

    fn context(dir: &std::path::Path, chain: &Chain) -> Context {
        let genesis = dir.join("genesis.toml");
        std::fs::write(&genesis, chain.genesis.to_toml()).unwrap();
        Context {
            genesis: Some(genesis),
            node: String::new(),
            json: true,
            lang: Lang::En,
            passphrase_file: None,
            passphrase_fd: None,
            expires_in: 300,
        }
    }

    /// R29: any changed byte of any kind of evidence file is refused, and the program says so.
    #[test]
    fn r29_every_changed_byte_of_an_evidence_file_is_refused() {
        let mut chain = Chain::new();
        let (body, envelope) = chain.envelope(1);
        let happened = event(&chain, &body, 0, &assent_proto::ObjectRef::from(account_id(1)).new_trail());
        let leaf = account_leaf(1, happened.links[0].after(&happened.leaf()));
        let events = [happened];
        let anchor = chain.block(&events, leaf.hash());
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(dir.path(), &chain);
        for (name, evidence) in [
            ("event", event_evidence(&anchor, &events, 0, &envelope)),
            ("state", state_evidence(&anchor, &leaf)),
            ("trail", trail_evidence(&anchor, &leaf, &events)),
        ] {
            let file = dir.path().join(name);
            let verdict = |bytes: &[u8]| {
                std::fs::write(&file, bytes).unwrap();
                run(&ctx, &VerifyArgs { files: vec![file.clone()] }).unwrap()
            };
            let good = verdict(&evidence);
            assert_eq!(
                (good.exit, good.json["files"][0]["claim"].as_str()),
                (0, Some(name)),
                "{}",
                good.text
            );
            for at in 0..evidence.len() {
                let mut bad = evidence.to_vec();
                bad[at] ^= 1 << (at % 8);
                let reply = verdict(&bad);
                assert_eq!(reply.exit, EXIT_PROOF, "{name}: byte {at}: {}", reply.text);
                assert!(reply.json["files"][0]["error"].as_str().is_some_and(|e| !e.is_empty()));
            }
            assert_eq!(verdict(&evidence[..evidence.len() - 1]).exit, EXIT_PROOF, "cut short");
        }
    }

    #[test]
    fn objects_read_as_they_are_named() {
        let grant = ObjectRef { kind: ObjectKind::Grant, id: Hash([7; 32]) };
        for object in SINGLETONS.into_iter().chain([grant]) {
            assert_eq!(object_ref(&name(&object)), Ok(object));
        }
        for bad in ["grant", "grant:7", "validator", "", "turns:"] {
            assert!(object_ref(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_words_say_what_is_proved_and_as_of_when() {
        let mut chain = Chain::new();
        let leaf = account_leaf(1, Trail { length: 0, head: Hash::ZERO });
        let anchor = chain.block(&[], leaf.hash());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        std::fs::write(&file, state_evidence(&anchor, &leaf)).unwrap();
        let reply = run(&context(dir.path(), &chain), &VerifyArgs { files: vec![file] }).unwrap();
        assert!(reply.text.contains("stood as shown after block 1"), "{}", reply.text);
        assert!(reply.text.contains("2026-01-01T00:00:01Z, 3 of 4 validators"), "{}", reply.text);
    }
}
