//! The auditor's and the regulator's view: lineage from proved answers, evidence files, and supervision of
//! every block (R4, R24, R28, R29).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use assent_genesis::Genesis;
use assent_proto::code::Denial;
use assent_proto::event::{Event, EventKind};
use assent_proto::transaction::{Action, ActionKind, Author};
use assent_proto::{AccountId, ArtifactId, BodyId, Commitment, GrantId, Height, ObjectRef, PermitId, TimeMs};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::duties::{self, Duties};
use crate::error::Failure;
use crate::files;
use crate::lineage::{self, Entry, Graph, Source, Step};
use crate::misconduct;
use crate::output::Reply;
use crate::rpc::{BlockView, Node, denial_name};
use crate::verify::object_ref;
use crate::words::{self, Lang, kebab};

/// The auditor's commands.
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Trace a product back to records and grants, or a record, product or grant forward to all made of it
    #[command(after_help = "Examples:\n  assent audit trace --artifact A --genesis genesis.toml\n  \
        assent audit trace --record COMMITMENT --account ACCOUNT\n  assent audit trace --grant GRANT --as-of 120")]
    Trace(TraceArgs),
    /// Write evidence to a file that `assent verify` checks offline
    #[command(after_help = "Examples:\n  assent audit export --event BODY_ID -o permit.evidence\n  \
        assent audit export --trail account:ID -o uses.evidence\n  assent audit export --object grant:ID -o grant.evidence")]
    Export {
        #[command(flatten)]
        #[allow(missing_docs)]
        what: What,
        /// Of the transaction's events, this one
        #[arg(long, default_value_t = 0)]
        index: usize,
        /// Where to write it
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print every event of every block, each block verified, from a height on
    #[command(after_help = "Examples:\n  assent --genesis genesis.toml audit follow\n  \
        assent --genesis genesis.toml --json audit follow --from 1000 --to tip")]
    Follow {
        /// From this height
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// To this height, or `tip`; without it, live until interrupted
        #[arg(long, value_name = "HEIGHT")]
        to: Option<String>,
    },
    /// Verify every block from the first to the newest and report: counts, unmatched deliveries, and what is open or
    /// overdue: erasures, reviews and notices of emergencies
    #[command(after_help = "Example:\n  assent --genesis genesis.toml audit supervise")]
    Supervise,
    /// Validators that were shown to have contradicted themselves: both statements verified again, and what followed
    #[command(after_help = "Example:\n  assent --genesis genesis.toml audit misconduct\n\
        The list is complete to the height that it names. Each report's two signatures are verified here, by the\n\
        key that voted; no node and no reporter is believed.")]
    Misconduct,
}

/// Where to start.
#[derive(Args, Debug)]
#[group(skip)]
pub struct TraceArgs {
    /// Back from this product
    #[arg(long, group = "start")]
    pub artifact: Option<ArtifactId>,
    /// Forward from this product
    #[arg(long, group = "start")]
    pub from_artifact: Option<ArtifactId>,
    /// Forward from this record, by its commitment
    #[arg(long, group = "start")]
    pub record: Option<Commitment>,
    /// Forward from this grant: what its revocation concerns
    #[arg(long, group = "start")]
    pub grant: Option<GrantId>,
    /// The record's account; without it, it is looked up in the node's index
    #[arg(long, requires = "record")]
    pub account: Option<AccountId>,
    /// As of this height
    #[arg(long, value_name = "HEIGHT")]
    pub as_of: Option<u64>,
}

/// What to prove.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct What {
    /// That a transaction's event is on the chain
    #[arg(long, value_name = "BODY_ID")]
    pub event: Option<BodyId>,
    /// That these are all events of an object (`account:ID`)
    #[arg(long, value_name = "KIND:ID", value_parser = object_ref)]
    pub trail: Option<ObjectRef>,
    /// That an object stands so, or that there is none (`grant:ID`)
    #[arg(long, value_name = "KIND:ID", value_parser = object_ref)]
    pub object: Option<ObjectRef>,
}

/// Runs one.
pub fn run(ctx: &Context, command: &AuditCommand) -> Result<Reply, Failure> {
    match command {
        AuditCommand::Trace(args) => trace(ctx, args),
        AuditCommand::Export { what, index, out } => export(ctx, what, *index, out),
        AuditCommand::Follow { from, to } => follow(ctx, Height(*from), to.as_deref()),
        AuditCommand::Supervise => supervise(ctx),
        AuditCommand::Misconduct => misconduct::list(ctx),
    }
}

/// Lineage from a node: every transaction comes with the proof of its event, every trail with the proof that
/// it is complete, so that nothing can be left out.
pub struct Proved<'a> {
    node: &'a mut Node,
    entries: BTreeMap<BodyId, Option<Entry>>,
    trails: BTreeMap<ObjectRef, Vec<Step>>,
    /// Every trail is complete at least to here.
    complete_to: Option<Height>,
}

impl<'a> Proved<'a> {
    /// Remembers what the node has proved, to ask for nothing twice.
    pub fn new(node: &'a mut Node) -> Proved<'a> {
        Proved { node, entries: BTreeMap::new(), trails: BTreeMap::new(), complete_to: None }
    }
}

impl Source for Proved<'_> {
    type Error = Failure;

    fn entry(&mut self, id: BodyId) -> Result<Option<Entry>, Failure> {
        if !self.entries.contains_key(&id) {
            let found = self.node.transaction(id, false)?.map(|tx| Entry {
                height: tx.height,
                time: tx.time,
                author: tx.body().author,
                action: tx.body().action.clone(),
                denied: tx.denial(),
            });
            self.entries.insert(id, found);
        }
        Ok(self.entries[&id].clone())
    }

    fn trail(&mut self, object: ObjectRef) -> Result<Vec<Step>, Failure> {
        if !self.trails.contains_key(&object) {
            let trail = self.node.trail(object)?;
            let steps = match &trail {
                Some(trail) => {
                    self.complete_to = Some(self.complete_to.map_or(trail.height, |h| h.min(trail.height)));
                    trail.events.iter().map(step).collect()
                }
                None => Vec::new(),
            };
            self.trails.insert(object, steps);
        }
        Ok(self.trails[&object].clone())
    }
}

fn step(event: &Event) -> Step {
    Step { kind: event.core.kind, body: event.core.body, height: event.core.height }
}

fn trace(ctx: &Context, args: &TraceArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let as_of = Height(args.as_of.unwrap_or(u64::MAX));
    let account = match (args.record, args.account) {
        (Some(record), None) => Some(account_of(&mut node, record)?),
        (_, given) => given,
    };
    let mut source = Proved::new(&mut node);
    let (graph, start, back) = match (args.artifact, args.from_artifact, args.record.zip(account), args.grant)
    {
        (Some(a), ..) => (lineage::ancestors(&mut source, a, as_of)?, lineage::Node::Artifact(a), true),
        (_, Some(a), ..) => (lineage::descendants(&mut source, a, as_of)?, lineage::Node::Artifact(a), false),
        (_, _, Some((r, account)), _) => {
            (lineage::descendants_of_record(&mut source, account, r, as_of)?, lineage::Node::Record(r), false)
        }
        (.., Some(g)) => (lineage::impact(&mut source, g, as_of)?, lineage::Node::Grant(g), false),
        _ => return Err(Failure::local("Usage", "name --artifact, --from-artifact, --record or --grant")),
    };
    let complete_to = source.complete_to;
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    draw(&genesis, &graph, start, back, 0, ctx.lang, &mut shown, &mut text);
    if let Some(height) = complete_to {
        text += &format!(
            "{} {height}\n",
            ctx.lang.pick("every step proved; complete to block", "每一步均已证明；完整至区块")
        );
    }
    Ok(Reply::new(graph_json(&genesis, &graph, start, back, complete_to), text))
}

/// Whose a record is, found through a transaction that used it: the node's index leads there, the signed
/// request proves it.
fn account_of(node: &mut Node, record: Commitment) -> Result<AccountId, Failure> {
    for body in node.uses(record.0)? {
        let tx = node.transaction(body, false)?;
        let Some(Action::RequestAccess(r)) = tx.as_ref().map(|t| &t.body().action) else { continue };
        if let Some(found) = r.records.iter().find(|p| p.record.commitment == record) {
            return Ok(found.record.account);
        }
    }
    let message = "the node knows of no use of this record; with --account its absence can be proved";
    Err(Failure::local("NoSuchRecord", message))
}

fn graph_json(
    genesis: &Genesis,
    graph: &Graph,
    start: lineage::Node,
    back: bool,
    complete_to: Option<Height>,
) -> Value {
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .map(|(node, entry)| {
            let mut value = serde_json::to_value(node).expect("plain data");
            if let Some(e) = entry {
                value["height"] = json!(e.height);
                value["time"] = json!(e.time);
                value["by"] = json!(author(genesis, &e.author));
                value["what"] = json!(what(&e.action));
                value["account"] = json!(account(e));
            }
            value
        })
        .collect();
    let edges: Vec<_> = graph.edges.iter().map(|(from, to)| json!({ "from": from, "to": to })).collect();
    let excluded: Vec<_> = graph
        .excluded
        .iter()
        .map(|x| {
            json!({
                "activity": x.activity, "request": x.request, "account": x.account, "code": x.code,
                "code_name": if x.code == 0 { String::new() } else { denial_name(x.code) },
            })
        })
        .collect();
    json!({
        "start": start, "direction": if back { "back" } else { "forward" }, "nodes": nodes, "edges": edges,
        "excluded": excluded, "complete_to_height": complete_to,
    })
}

pub(crate) fn author(genesis: &Genesis, author: &Author) -> String {
    match author {
        Author::Institution(id) => words::slug(genesis, id),
        Author::Account(id) => format!("account {id}"),
    }
}

fn account(entry: &Entry) -> Option<AccountId> {
    match (&entry.action, &entry.author) {
        (Action::RequestAccess(r), _) => r.account,
        (_, Author::Account(id)) => Some(*id),
        _ => None,
    }
}

/// What a transaction of the graph did, in a word.
fn what(action: &Action) -> String {
    match action {
        Action::RecordActivity(a) => kebab(&a.kind),
        Action::RequestAccess(r) => kebab(&r.purpose),
        Action::Grant(g) => kebab(&g.mode),
        other => kebab(&other.kind()),
    }
}

/// How deep a tree is drawn; the graph itself is walked to its end.
const DEPTH_MAX: usize = 100;

/// Draws the tree below a thing; what was drawn before is named and not drawn again.
#[allow(clippy::too_many_arguments)]
fn draw(
    genesis: &Genesis,
    graph: &Graph,
    node: lineage::Node,
    back: bool,
    depth: usize,
    lang: Lang,
    shown: &mut BTreeSet<lineage::Node>,
    text: &mut String,
) {
    let indent = "  ".repeat(depth);
    let about = match graph.nodes.get(&node) {
        Some(Some(e)) => format!(
            "  {} {} {} {}",
            what(&e.action),
            lang.pick("by", "由"),
            author(genesis, &e.author),
            words::show_time(e.time)
        ),
        _ => String::new(),
    };
    let again = !shown.insert(node);
    let mark = if again { lang.pick("  (above)", "（见上）") } else { "" };
    *text += &format!("{indent}{} {}{about}{mark}\n", kind_name(node, lang), &node.id().to_string()[..16]);
    if again {
        return;
    }
    if depth == DEPTH_MAX {
        *text += &format!("{indent}  … {}\n", lang.pick("deeper: see --json", "更深层级请用 --json 查看"));
        return;
    }
    for x in graph.excluded.iter().filter(|x| lineage::Node::Activity(x.activity) == node) {
        let why = match Denial::from_number(x.code) {
            Some(d) => lang.pick(d.english(), d.chinese()),
            None => lang.pick("no such denied request on the chain", "链上无此被拒请求"),
        };
        *text += &format!(
            "{indent}  {} {}: {why}\n",
            lang.pick("left out: request", "已排除：请求"),
            &x.request.to_string()[..16]
        );
    }
    let next: Vec<_> = if back { graph.inputs(node).collect() } else { graph.outputs(node).collect() };
    for child in next {
        draw(genesis, graph, child, back, depth + 1, lang, shown, text);
    }
}

fn kind_name(node: lineage::Node, lang: Lang) -> &'static str {
    match node {
        lineage::Node::Record(_) => lang.pick("record", "记录"),
        lineage::Node::Grant(_) => lang.pick("grant", "授权"),
        lineage::Node::Permit(_) => lang.pick("permit", "许可"),
        lineage::Node::Activity(_) => lang.pick("activity", "加工活动"),
        lineage::Node::Artifact(_) => lang.pick("product", "产品"),
    }
}

fn export(ctx: &Context, what: &What, index: usize, out: &Path) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let evidence = match (what.event, what.trail, what.object) {
        (Some(body), ..) => {
            let done = node.transaction(body, true)?;
            let done = done.ok_or_else(|| Failure::local("NotFinal", format!("{body} is not final")))?;
            let found = done.evidence.get(index).cloned();
            found.ok_or_else(|| {
                Failure::local("Usage", format!("{body} has {} events", done.evidence.len()))
            })?
        }
        (_, Some(object), _) => match node.trail(object)? {
            Some(trail) => trail.evidence,
            None => {
                return Err(Failure::local(
                    "NoSuchObject",
                    "there is no such object; --object exports the proof",
                ));
            }
        },
        (.., Some(object)) => node.object(object)?.evidence,
        _ => return Err(Failure::local("Usage", "name --event, --trail or --object")),
    };
    let trust = ctx.genesis()?.trust();
    let (_, verdict) = assent_proto::evidence::Evidence::check(&evidence, &trust)?;
    files::create(out, &evidence)?;
    let text = format!("{}: {} bytes\n{}", out.display(), evidence.len(), verdict.statement);
    let json = json!({
        "file": out, "bytes": evidence.len(), "statement": verdict.statement, "height": verdict.height,
        "signers": verdict.signers, "validator_changes": verdict.changes,
    });
    Ok(Reply::new(json, text))
}

/// Prints events as they come; with `--json`, one line an event.
fn follow(ctx: &Context, from: Height, to: Option<&str>) -> Result<Reply, Failure> {
    use std::io::Write;
    let (genesis, mut node) = ctx.connect()?;
    let to = match to {
        None => Height(0),
        Some("tip") => Height(node.status()?.height),
        Some(n) => Height(n.parse().map_err(|_| Failure::local("Usage", "--to is a height or tip"))?),
    };
    let (mut blocks, mut events) = (0u64, 0u64);
    node.follow(from, to, |block| {
        blocks += 1;
        let mut out = std::io::stdout().lock();
        for event in &block.events {
            events += 1;
            let line = match ctx.json {
                true => event_json(&genesis, event).to_string(),
                false => event_line(&genesis, event, ctx.lang),
            };
            // A reader that went away has seen enough.
            if writeln!(out, "{line}").is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let text = format!("{events} events in {blocks} blocks, each block verified");
    Ok(Reply::new(json!({ "blocks": blocks, "events": events }), text))
}

fn event_json(genesis: &Genesis, event: &Event) -> Value {
    let c = &event.core;
    json!({
        "height": c.height, "time": c.time, "by": author(genesis, &c.author), "action": c.action, "kind": c.kind,
        "code": c.code, "code_name": if c.code == 0 { String::new() } else { denial_name(c.code) },
        "object": crate::verify::name(&c.object), "body_id": c.body,
    })
}

fn event_line(genesis: &Genesis, event: &Event, lang: Lang) -> String {
    let c = &event.core;
    format!(
        "{:>6}  {}  {}: {}",
        c.height,
        words::show_time(c.time),
        author(genesis, &c.author),
        words::happened(c, lang)
    )
}

/// What the regulator learns from all events of all blocks.
#[derive(Default)]
struct Supervision {
    blocks: u64,
    events: u64,
    kinds: BTreeMap<String, u64>,
    denials: BTreeMap<String, u64>,
    unmatched: Vec<Value>,
    duties: Duties,
    undelivered: BTreeSet<ObjectRef>,
    tip: Option<(Height, TimeMs)>,
    fewest_signers: Option<usize>,
    /// Heights after which other validators vote.
    changes: Vec<Height>,
    governance: Governance,
}

/// What those who run validators decided, and what was shown of them.
#[derive(Default)]
struct Governance {
    proposed: u64,
    enacted: u64,
    contradictions: u64,
    removed: u64,
}

impl Supervision {
    fn block(&mut self, genesis: &Genesis, block: &BlockView) {
        self.blocks += 1;
        self.tip = Some((block.height, block.time));
        self.fewest_signers =
            Some(self.fewest_signers.map_or(block.signers.len(), |n| n.min(block.signers.len())));
        self.changes.extend(block.next_validators.is_some().then_some(block.height));
        for event in &block.events {
            self.event(genesis, event);
        }
    }

    fn event(&mut self, genesis: &Genesis, event: &Event) {
        let core = &event.core;
        self.events += 1;
        *self.kinds.entry(kebab(&core.kind)).or_default() += 1;
        self.duties.event(core);
        match core.kind {
            EventKind::Denied => {
                *self.denials.entry(denial_name(core.code)).or_default() += 1;
                if core.action == ActionKind::Deliver {
                    self.unmatched.push(event_json(genesis, event));
                }
            }
            EventKind::Permitted => {
                self.undelivered.insert(core.object);
            }
            EventKind::Delivered | EventKind::NotDelivered => {
                self.undelivered.remove(&core.object);
            }
            // It was released before it was permitted.
            EventKind::EmergencyAnchored | EventKind::EmergencyAnchoredLate => {
                self.undelivered.remove(&PermitId(core.object.id).into());
            }
            EventKind::Proposed => self.governance.proposed += 1,
            EventKind::Enacted => self.governance.enacted += 1,
            EventKind::EquivocationReported => self.governance.contradictions += 1,
            EventKind::ValidatorRemoved => self.governance.removed += 1,
            _ => {}
        }
    }
}

fn supervise(ctx: &Context) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let tip = Height(node.status()?.height);
    let mut all = Supervision::default();
    if tip > Height(0) {
        node.follow(Height(1), tip, |block| {
            all.block(&genesis, &block);
            Ok(true)
        })?;
    }
    let (height, time) = all.tip.unwrap_or((Height(0), genesis.time()));
    let bounds = node.parameters()?.value;
    let erasures = all.duties.erasures(&mut node, &bounds, time)?;
    let emergencies = all.duties.emergencies(&genesis, &mut node, time)?;
    let lang = ctx.lang;
    let mut text = format!(
        "{} {} {} {}\n",
        all.events,
        lang.pick("events in blocks 1 to", "个事件，区块 1 至"),
        height,
        lang.pick("- every block verified, none missing", "——逐块核验，无一缺失"),
    );
    all.kinds.iter().for_each(|(kind, n)| text += &format!("  {kind}: {n}\n"));
    all.denials.iter().for_each(|(code, n)| text += &format!("  denied {code}: {n}\n"));
    text += &format!(
        "{}: {}\n",
        lang.pick("deliveries without a matching permit", "未匹配许可的交付"),
        all.unmatched.len()
    );
    for d in &all.unmatched {
        text += &format!("  block {}: {} {}\n", d["height"], d["by"], d["code_name"]);
    }
    text += &duties::in_words(&erasures, &emergencies, lang);
    let g = &all.governance;
    text += &format!(
        "{}: {} / {}; {}: {}; {}: {}\n",
        lang.pick("changes proposed / decided", "变更提议/通过"),
        g.proposed,
        g.enacted,
        lang.pick("changes of the validators", "验证者变更"),
        all.changes.len(),
        lang.pick(
            "contradictions of validators (assent audit misconduct)",
            "验证者自相矛盾（assent audit misconduct）"
        ),
        g.contradictions,
    );
    let json = json!({
        "height": height, "time": time, "blocks": all.blocks, "events": all.events, "kinds": all.kinds,
        "denials": all.denials, "unmatched_deliveries": all.unmatched, "open_erasure_duties": erasures,
        "open_emergencies": emergencies,
        "permits_not_delivered": all.undelivered.len(), "fewest_signers": all.fewest_signers, "complete": true,
        "governance": {
            "proposed": g.proposed, "enacted": g.enacted, "contradictions": g.contradictions, "removed": g.removed,
            "validator_changes_after": all.changes,
        },
    });
    Ok(Reply::new(json, text))
}
