//! Governance, for institutions that run validators: what is in force, what is proposed, and a hand in deciding it.
//! Everything shown is proved as of a block; only a dry run is a node's word, and says so.

use std::path::{Path, PathBuf};

use assent_genesis::Genesis;
use assent_proto::event::{Event, EventCore, EventKind};
use assent_proto::state::{
    Nodes, Object, ObjectRef, Parameters, Policy, Proposal, Protocol, Role, Turns, Validators,
};
use assent_proto::transaction::{Action, Approve, Change, Propose};
use assent_proto::{Address, Author, Denial, Height, InstitutionId, ProposalId, TimeMs, ValidatorSet};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::change::{self, InForce, NodesArgs, ParametersArgs, ProtocolArgs, ValidatorsArgs, validator_json};
use crate::charter::{self, GradingArgs, InstitutionArgs, PolicyArgs};
use crate::context::{Context, confirm};
use crate::error::Failure;
use crate::files;
use crate::output::Reply;
use crate::piece::Piece;
use crate::rpc::Node;
use crate::words::{self, Lang};

/// How long a proposal is open where nothing else is said: a day.
const OPEN_MS: u64 = 24 * 3_600_000;
/// The exit code of a dry run that finds that the change would be refused.
const EXIT_REFUSED: u8 = 2;

/// The commands of governance.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub enum GovernCommand {
    /// Who votes and is to vote, which nodes may connect, who is passed over until when, the bounds in force: all proved
    Show,
    /// Sign a node's public piece for a chain that runs, with the two keys in its folder
    #[command(after_help = "Example, on the machine of the node:\n  \
        assentd init --home /var/lib/assent\n  \
        assent --genesis genesis.toml govern piece --home /var/lib/assent --institution hospital-a -o piece.toml")]
    Piece {
        /// The node's folder, with consensus.key and network.key (`assentd init`)
        #[arg(long, value_name = "DIR")]
        home: PathBuf,
        /// The institution that runs it; it is on the chain already
        #[arg(long)]
        institution: String,
        /// Where to write it
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Propose a change; most are decided once institutions with more than two thirds of the voting power approve
    #[command(subcommand)]
    Propose(ProposeCommand),
    /// Approve a proposal, after it was shown in words
    #[command(
        after_help = "Example:\n  assent --genesis genesis.toml govern approve PROPOSAL --keyfile operator.age\n\
        The approval that makes more than two thirds of the voting power decides: then the change is judged again."
    )]
    Approve {
        /// Which
        id: ProposalId,
        #[command(flatten)]
        #[allow(missing_docs)]
        signing: Signing,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
    },
    /// All proposals, and what became of each; complete to the height that it names
    Proposals {
        /// Those alone that can still be approved
        #[arg(long)]
        open: bool,
    },
}

const EXAMPLES: &str = "\
Examples. A node joins, is admitted, and votes, without a restart of anything:
  assent --genesis genesis.toml govern piece --home /var/lib/assent --institution hospital-a -o piece.toml
  assent --genesis genesis.toml govern propose nodes --admit piece.toml --keyfile operator.age
  assent --genesis genesis.toml govern approve PROPOSAL --keyfile theirs.age          (by each of the others)
  assent --genesis genesis.toml govern propose validators --add piece.toml --from +5000 --dry-run
  assent --genesis genesis.toml govern propose validators --add piece.toml --from +5000 --keyfile operator.age
A validator whose machine is dead is removed by the others:
  assent --genesis genesis.toml govern propose validators --remove insurer --from +1000 --keyfile operator.age";

/// What is proposed.
#[derive(Subcommand, Debug)]
pub enum ProposeCommand {
    /// Who is to vote, from a height on
    #[command(after_help = "Examples:\n  \
        assent govern propose validators --add piece.toml --power hospital-c=2 --from +5000 --keyfile operator.age\n  \
        assent govern propose validators --remove insurer --from 81000 --keyfile operator.age\n  \
        assent govern propose validators --replace-key hospital-b new-piece.toml --from +5000 --keyfile operator.age\n\
        Refused where, of the new set, the validators known to be alive are no quorum (NoLiveQuorum): those that\n\
        vote now and are not passed over. Nodes of new keys are admitted before, and best run as observers already.")]
    Validators {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: ValidatorsArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// Which nodes may connect, validators' and observers'
    #[command(
        after_help = "Example:\n  assent govern propose nodes --admit piece.toml --keyfile operator.age"
    )]
    Nodes {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: NodesArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// Who an institution is, and whether it may act
    #[command(after_help = "Examples:\n  \
        assent govern propose institution --admit hospital-z.toml --keyfile operator.age\n  \
        assent govern propose institution --suspend insurer --keyfile operator.age\n  \
        assent govern propose institution --change hospital-a --rostered-until 2027-12-31 --keyfile operator.age\n\
        One whose validators vote, or are to vote, is not suspended or expelled: they go before. Nobody approves\n\
        what widens what it may do itself.")]
    Institution {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: InstitutionArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// What data may be used for, and what it may never be used for; decided by the committee of the policy in force
    #[command(after_help = "Example:\n  \
        assent genesis rules > rules.toml\n  \
        assent govern propose policy --rules rules.toml --keyfile operator.age\n\
        Earlier grants keep what the policy allowed that they name, where the new one allows it too.")]
    Policy {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: PolicyArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// An item graded down: decided by its source and one more institution of the committee
    #[command(after_help = "Example:\n  \
        assent govern propose grading --item ITEM --level low --opening directed --recipient insurer \\\n      \
        --keyfile operator.age")]
    Grading {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: GradingArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// The bounds that all validators share
    #[command(after_help = "Example:\n  \
        assent govern propose parameters --set heartbeat_ms=5000 --set equivocation=remove --keyfile operator.age")]
    Parameters {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: ParametersArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
    /// By which version of the rules blocks are made, from a height on
    #[command(after_help = "Examples:\n  \
        assent govern propose protocol --to 2 --from +50000 --dry-run\n  \
        assent govern propose protocol --to 2 --from +50000 --keyfile operator.age\n\
        Before: every node runs a program that knows the version (`assentd --version`). A node that does not know\n\
        it votes up to the block below that height, then stops and says so; with a newer program it goes on.\n\
        A version that is decided cannot be taken back, and no other can be decided before it is in force.")]
    Protocol {
        #[command(flatten)]
        #[allow(missing_docs)]
        args: ProtocolArgs,
        #[command(flatten)]
        #[allow(missing_docs)]
        proposing: Proposing,
    },
}

/// By whom a proposal is made, and until when it can be approved.
#[derive(Args, Debug)]
pub struct Proposing {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signing: Signing,
    /// Until when it can be approved: a day from now unless said, thirty days at most
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub until: Option<TimeMs>,
}

/// With which key, or whether to sign at all.
#[derive(Args, Debug)]
pub struct Signing {
    /// The institution's key file; a dry run can do without
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    pub keyfile: Option<PathBuf>,
    /// Submit nothing: say whether the change would be refused now, and why. It is the word of the node that is asked
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs one.
pub fn run(ctx: &Context, command: &GovernCommand) -> Result<Reply, Failure> {
    match command {
        GovernCommand::Show => show(ctx),
        GovernCommand::Piece { home, institution, out } => piece(ctx, home, institution, out),
        GovernCommand::Propose(c) => propose(ctx, c),
        GovernCommand::Approve { id, signing, yes } => approve(ctx, *id, signing, *yes),
        GovernCommand::Proposals { open } => proposals(ctx, *open),
    }
}

fn piece(ctx: &Context, home: &Path, institution: &str, out: &Path) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let piece = Piece::of_home(&genesis, home, institution)?;
    files::create(out, piece.to_toml(&genesis).as_bytes())?;
    let record = piece.record();
    let json = json!({
        "file": out, "institution": institution, "consensus_key": record.key, "network_key": record.network_key,
        "address": assent_proto::validators::address(&record.key),
    });
    let text = format!(
        "{}: the public piece of a node of {institution}; it holds no secrets\nconsensus key  {}\nnetwork key    {}",
        out.display(),
        record.key,
        record.network_key
    );
    Ok(Reply::new(json, text))
}

// ---- what is in force

/// What is in force, each part proved; they may be of different blocks, and the lowest height counts.
struct Present {
    validators: Validators,
    nodes: Nodes,
    turns: Turns,
    parameters: Parameters,
    policy: Policy,
    protocol: Protocol,
    height: Height,
    time: TimeMs,
}

impl Present {
    fn ask(node: &mut Node) -> Result<Present, Failure> {
        // The first is the oldest: a node may not go back behind what it has shown.
        let validators = node.validators()?;
        Ok(Present {
            nodes: node.nodes()?.value,
            turns: node.turns()?.value,
            parameters: node.parameters()?.value,
            policy: node.policy()?.value,
            protocol: node.protocol()?,
            height: validators.height,
            time: validators.time,
            validators: validators.value,
        })
    }

    /// Who votes on the next block.
    fn set(&self) -> &ValidatorSet {
        self.validators.at(self.height.next())
    }

    /// The version that is decided and not in force on the next block.
    fn next_protocol(&self) -> Option<(u32, Height)> {
        let next = self.protocol.next.as_ref().filter(|next| next.from > self.height.next())?;
        Some((next.version, next.from))
    }

    /// Whether a validator's turn comes last in the next block. Who left the set is forgotten later.
    fn passes_over(&self, validator: &Address) -> bool {
        let height = self.height.next();
        self.set().by_address(validator).is_some() && self.turns.passed_over(validator, height)
    }

    /// What a change is told against.
    fn in_force(&self, node: &mut Node, change: &Change) -> Result<InForce, Failure> {
        Ok(InForce {
            set: self.set().clone(),
            nodes: self.nodes.clone(),
            parameters: self.parameters.clone(),
            policy: self.policy.clone(),
            protocol: self.protocol.at(self.height.next()),
            institution: match change {
                Change::Institution(c) => node.institution(c.institution)?,
                _ => None,
            },
            item: match change {
                Change::Grading(c) => node.item(c.item)?,
                _ => None,
            },
        })
    }
}

fn show(ctx: &Context) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let now = Present::ask(&mut node)?;
    Ok(Reply::new(present_json(&genesis, &now), present_text(&genesis, &now, ctx.lang)))
}

fn present_json(genesis: &Genesis, now: &Present) -> Value {
    let set = |s: &ValidatorSet| s.validators.iter().map(|v| validator_json(genesis, v)).collect::<Vec<_>>();
    let pending = now.validators.pending.as_ref().filter(|p| p.from > now.height.next());
    let former = now.validators.former.iter().map(|f| {
        let mut value = validator_json(genesis, &f.validator);
        value["until"] = json!(f.until);
        value
    });
    let nodes = now.nodes.nodes.iter().map(|n| {
        json!({
            "institution": words::slug(genesis, &n.institution), "key": n.key, "network_key": n.network_key,
            "address": assent_proto::validators::address(&n.key),
            "votes": now.set().validators.iter().any(|v| v.key == n.key),
        })
    });
    let turns = now.turns.missed.iter().map(|m| {
        json!({
            "address": m.validator, "institution": whose(genesis, now, &m.validator), "strikes": m.strikes,
            "missed": m.missed, "until": m.until,
            "passed_over": now.passes_over(&m.validator),
        })
    });
    json!({
        "height": now.height, "as_of": now.time,
        "validators": set(now.set()), "total_power": now.set().total_power(),
        "pending": pending.map(|p| json!({ "from": p.from, "validators": set(&p.set) })),
        "former": former.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(),
        "turns": turns.collect::<Vec<_>>(), "parameters": now.parameters, "policy": now.policy,
        "protocol": now.protocol.at(now.height.next()),
        "next_protocol": now.next_protocol().map(|(version, from)| json!({ "version": version, "from": from })),
    })
}

/// The institution of an address that votes.
fn whose(genesis: &Genesis, now: &Present, address: &Address) -> Option<String> {
    now.set().by_address(address).map(|(_, v)| words::slug(genesis, &v.institution))
}

fn present_text(genesis: &Genesis, now: &Present, lang: Lang) -> String {
    let mut lines = vec![format!(
        "{} {}, {}",
        lang.pick("in force after block", "在以下区块之后有效："),
        now.height,
        words::show_time(now.time)
    )];
    lines.push(format!(
        "{} {}",
        lang.pick("protocol version", "协议版本"),
        now.protocol.at(now.height.next())
    ));
    if let Some((version, from)) = now.next_protocol() {
        lines.push(format!(
            "{} {version}, {} {from}",
            lang.pick("decided: protocol version", "已通过：协议版本"),
            lang.pick("from block", "自区块")
        ));
    }
    let set = |s: &ValidatorSet, lines: &mut Vec<String>| {
        for v in &s.validators {
            let slug = words::slug(genesis, &v.institution);
            lines.push(format!("  {slug:<12} {}  {} {}", v.key, lang.pick("power", "权重"), v.power));
        }
    };
    lines.push(format!(
        "{} ({} {})",
        lang.pick("validators", "验证者"),
        lang.pick("total power", "总权重"),
        now.set().total_power()
    ));
    set(now.set(), &mut lines);
    if let Some(p) = now.validators.pending.as_ref().filter(|p| p.from > now.height.next()) {
        lines.push(format!("{} {}", lang.pick("validators from block", "验证者，自区块"), p.from));
        set(&p.set, &mut lines);
    }
    for f in &now.validators.former {
        lines.push(format!(
            "{} {}: {} {}",
            lang.pick("voted to block", "投票至区块"),
            f.until,
            words::slug(genesis, &f.validator.institution),
            f.validator.key
        ));
    }
    lines.push(lang.pick("nodes", "节点").to_owned());
    for n in &now.nodes.nodes {
        let votes = now.set().validators.iter().any(|v| v.key == n.key);
        let slug = words::slug(genesis, &n.institution);
        let role = if votes { lang.pick("votes", "投票") } else { lang.pick("observes", "观察") };
        lines.push(format!("  {slug:<12} {}  {role}", n.key));
    }
    lines.extend(turns_text(genesis, now, lang));
    lines.push(lang.pick("parameters", "参数").to_owned());
    for (name, value) in change::parameter_values(&now.parameters) {
        lines.push(format!("  {name:<24} {value}"));
    }
    lines.extend(charter::policy_in_words(&now.policy, None, lang));
    lines.join("\n")
}

fn turns_text(genesis: &Genesis, now: &Present, lang: Lang) -> Vec<String> {
    let passed_over = now.turns.missed.iter().filter(|m| now.passes_over(&m.validator));
    let line = |m: &assent_proto::state::MissedTurn| {
        let who = whose(genesis, now, &m.validator).unwrap_or_default();
        format!(
            "{}: {who} {} {} {} ({} {})",
            lang.pick("passed over", "轮次靠后"),
            m.validator,
            lang.pick("below block", "至区块"),
            m.until,
            lang.pick("turns missed:", "错过轮次："),
            m.strikes
        )
    };
    let lines: Vec<_> = passed_over.map(line).collect();
    match lines.is_empty() {
        true => vec![lang.pick("nobody is passed over", "无人轮次靠后").to_owned()],
        false => lines,
    }
}

// ---- proposals

fn propose(ctx: &Context, command: &ProposeCommand) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let now = Present::ask(&mut node)?;
    let (change, proposing) = match command {
        ProposeCommand::Validators { args, proposing } => {
            (change::validators(&genesis, now.set(), now.height, args)?, proposing)
        }
        ProposeCommand::Nodes { args, proposing } => (change::nodes(&genesis, args)?, proposing),
        ProposeCommand::Parameters { args, proposing } => {
            (change::parameters(&now.parameters, args)?, proposing)
        }
        ProposeCommand::Institution { args, proposing } => {
            (charter::institution(&genesis, args, |id| node.institution(id))?, proposing)
        }
        ProposeCommand::Protocol { args, proposing } => (change::protocol(now.height, args)?, proposing),
        ProposeCommand::Policy { args, proposing } => (charter::policy(&now.policy, args)?, proposing),
        ProposeCommand::Grading { args, proposing } => {
            let item = node.item(args.item)?;
            let item =
                item.ok_or_else(|| Failure::local("NoSuchItem", "the item is not in the catalogue"))?;
            (charter::grading(&genesis, &item, args)?, proposing)
        }
    };
    let in_force = now.in_force(&mut node, &change)?;
    let told = change::in_words(&genesis, &change, Some(&in_force), ctx.lang);
    let until = proposing.until.unwrap_or_else(|| words::now().plus(OPEN_MS));
    if proposing.signing.dry_run {
        let own = own(ctx, &proposing.signing)?;
        let denial = own.map(|own| no_say(&mut node, &now, &own, &change)).transpose()?.flatten();
        return dry_run(ctx, &mut node, &change, denial, &told);
    }
    let secrets = ctx.institution(proposing.signing.keyfile()?)?;
    let action = Action::Propose(Box::new(Propose { change, until }));
    let done = ctx.act(&genesis, &mut node, &secrets, action)?;
    let id = ProposalId(done.done.tx.body_id().0);
    let enacted = done.done.events.iter().any(|e| e.core.kind == EventKind::Enacted);
    let reply = done.reply(ctx.lang);
    let told = told.join("\n");
    let next = match (reply.exit, enacted) {
        (0, true) => ctx.lang.pick("decided", "已通过").to_owned(),
        (0, false) => format!("{} {id}", ctx.lang.pick("proposal", "提案")),
        _ => String::new(),
    };
    let text = format!("{told}\n{}\n{next}", reply.text);
    let reply = Reply { text, ..reply };
    Ok(match reply.exit {
        0 => reply.with("proposal", id).with("enacted", enacted).with("until", until),
        // A denial leaves no proposal behind.
        _ => reply,
    })
}

impl Signing {
    fn keyfile(&self) -> Result<&Path, Failure> {
        self.keyfile
            .as_deref()
            .ok_or_else(|| Failure::local("Usage", "name the key file with --keyfile FILE"))
    }
}

/// Of a dry run with a key file: whose it is.
fn own(ctx: &Context, signing: &Signing) -> Result<Option<InstitutionId>, Failure> {
    signing.keyfile.as_ref().map(|keyfile| Ok(ctx.institution(keyfile)?.institution())).transpose()
}

/// Why an institution has no say in a change, as far as the proved state says.
fn no_say(
    node: &mut Node,
    now: &Present,
    own: &InstitutionId,
    change: &Change,
) -> Result<Option<Denial>, Failure> {
    Ok(match change {
        Change::Validators(_)
        | Change::Nodes(_)
        | Change::Parameters(_)
        | Change::Institution(_)
        | Change::Protocol(_) => {
            (!runs_a_validator(now.set(), own)).then_some(Denial::NotAValidatorsInstitution)
        }
        Change::Grading(c) if node.item(c.item)?.is_some_and(|i| i.custodian == *own) => None,
        Change::Grading(_) | Change::Policy(_) => {
            let roles = node.institution(*own)?.map(|i| i.roles).unwrap_or_default();
            let on_it = |role: &Role| roles.contains(role);
            (!now.policy.committee.roles.iter().any(on_it)).then_some(Denial::NotOnTheCommittee)
        }
    })
}

fn runs_a_validator(set: &ValidatorSet, institution: &InstitutionId) -> bool {
    set.validators.iter().any(|v| v.institution == *institution)
}

/// What would become of a change now: what the proved state says already, else what the node says.
fn dry_run(
    ctx: &Context,
    node: &mut Node,
    change: &Change,
    proved: Option<Denial>,
    told: &[String],
) -> Result<Reply, Failure> {
    let lang = ctx.lang;
    let preview = node.preview(change)?;
    let denial = proved.or(preview.denial);
    let verdict = match denial {
        None => lang.pick("it could be decided", "可以通过").to_owned(),
        Some(d) => format!(
            "{}: {} ({}, {})",
            lang.pick("it would be refused", "将被拒绝"),
            lang.pick(d.english(), d.chinese()),
            d.name(),
            d.number()
        ),
    };
    let whose_word = match proved {
        Some(_) => lang.pick("proved by the state", "由状态证明").to_owned(),
        None => format!(
            "{} {} {} {}; {}",
            lang.pick("as the node", "依据节点"),
            ctx.node,
            lang.pick("says of block", "对区块的陈述："),
            preview.height,
            lang.pick(
                "nothing proves it, and the chain decides by the state of then",
                "无证明，以届时链上状态为准"
            ),
        ),
    };
    let text = format!(
        "{}\n{}: {verdict}\n{whose_word}",
        told.join("\n"),
        lang.pick("dry run, nothing was submitted", "试运行，未提交")
    );
    let json = json!({
        "dry_run": true, "refused": denial.is_some(), "code": denial.map_or(0, Denial::number),
        "code_name": denial.map_or("", Denial::name), "message": verdict, "height": preview.height,
        "proved": proved.is_some(), "change": told,
    });
    Ok(Reply::new(json, text).exit(if denial.is_some() { EXIT_REFUSED } else { 0 }))
}

fn approve(ctx: &Context, id: ProposalId, signing: &Signing, yes: bool) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let proposal = the_proposal(&mut node, id)?.ok_or_else(|| {
        let why = "it was never made, or it is over and has left the state";
        Failure::local("NoSuchProposal", format!("there is no proposal {id} to approve: {why}"))
    })?;
    let now = Present::ask(&mut node)?;
    let told = in_words(&genesis, &mut node, &proposal, &now, ctx.lang)?;
    if signing.dry_run {
        let own = own(ctx, signing)?;
        let no_say = own.map(|own| no_say(&mut node, &now, &own, &proposal.change)).transpose()?.flatten();
        let denial = no_say.or_else(|| cannot_approve(&proposal, &now, own));
        return dry_run(ctx, &mut node, &proposal.change, denial, &told);
    }
    let shown = listed(&genesis, &id, &proposal, &now, &told, ctx.lang);
    if !yes && !confirm(&format!("{shown}\n{}", ctx.lang.pick("Do you approve this?", "您是否批准？")))?
    {
        return Err(Failure::local("NotConfirmed", "nothing was signed"));
    }
    let secrets = ctx.institution(signing.keyfile()?)?;
    let done = ctx.act(&genesis, &mut node, &secrets, Action::Approve(Approve { proposal: id }))?;
    let enacted = done.done.events.iter().any(|e| e.core.kind == EventKind::Enacted);
    let reply = done.reply(ctx.lang);
    let outcome = match (reply.exit, enacted) {
        (0, true) => ctx.lang.pick("; decided", "；已通过"),
        _ => "",
    };
    let text = format!("{}\n{}{outcome}", told.join("\n"), reply.text);
    Ok(Reply { text, ..reply }.with("proposal", id).with("enacted", enacted))
}

/// Why an approval by whoever has a say would be refused, as far as the proved state says.
fn cannot_approve(proposal: &Proposal, now: &Present, own: Option<InstitutionId>) -> Option<Denial> {
    if proposal.enacted.is_some() {
        return Some(Denial::ProposalEnacted);
    }
    if now.time > proposal.until {
        return Some(Denial::ProposalExpired);
    }
    own.filter(|own| proposal.approvals.contains(own)).map(|_| Denial::AlreadyApproved)
}

fn the_proposal(node: &mut Node, id: ProposalId) -> Result<Option<Proposal>, Failure> {
    match node.object(id.into())?.object {
        Some(Object::Proposal(p)) => Ok(Some(*p)),
        Some(_) => Err(Failure::Proof(format!("{id} is something else than a proposal"))),
        None => Ok(None),
    }
}

/// A proposal that has left the state, as the transaction that made it and the validators' trail tell it. Both are
/// proved; approvals of institutions that voted no more when others came are still among these.
fn retired(node: &mut Node, proposed: &Event, trail: &[Event]) -> Result<Proposal, Failure> {
    let id = proposed.core.object;
    let tx = node.transaction(proposed.core.body, true)?;
    let tx =
        tx.ok_or_else(|| Failure::Proof(format!("the transaction {} is not final", proposed.core.body)))?;
    let own: Vec<_> = trail.iter().filter(|e| e.link(&id).is_some()).map(|e| &e.core).collect();
    let (Action::Propose(propose), Author::Institution(proposer)) = (&tx.body().action, tx.body().author)
    else {
        return Err(Failure::Proof(format!("{} is said to be a proposal and is none", id.id)));
    };
    let approves = |core: &&EventCore| matches!(core.kind, EventKind::Proposed | EventKind::Approved);
    let approvals = own.iter().copied().filter(approves).filter_map(|core| match core.author {
        Author::Institution(id) => Some(id),
        Author::Account(_) => None,
    });
    let approvals: Vec<_> = approvals.collect();
    Ok(Proposal {
        proposer,
        change: propose.change.clone(),
        until: propose.until,
        approvals: approvals.try_into().map_err(|_| Failure::Proof("too many have approved".into()))?,
        enacted: own.iter().find(|core| core.kind == EventKind::Enacted).map(|core| core.height),
        height: proposed.core.height,
    })
}

/// All proposals: the validators' trail has each, and its proof shows that none is missing.
fn proposals(ctx: &Context, open: bool) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let trail = node.trail(ObjectRef::VALIDATORS)?;
    let trail = trail.ok_or_else(|| Failure::Proof("the state holds no validators".into()))?;
    let now = Present::ask(&mut node)?;
    let (mut list, mut text) = (Vec::new(), String::new());
    for event in trail.events.iter().filter(|e| e.core.kind == EventKind::Proposed) {
        let id = ProposalId(event.core.object.id);
        let held = the_proposal(&mut node, id)?;
        let in_state = held.is_some();
        let proposal = match held {
            Some(proposal) => proposal,
            None => retired(&mut node, event, &trail.events)?,
        };
        if open && standing(&proposal, &now) != Standing::Open {
            continue;
        }
        let told = in_words(&genesis, &mut node, &proposal, &now, ctx.lang)?;
        text += &format!("{}\n", listed(&genesis, &id, &proposal, &now, &told, ctx.lang));
        let mut entry = proposal_json(&genesis, &id, &proposal, &now, &told, event.core.height);
        entry["in_state"] = json!(in_state);
        list.push(entry);
    }
    text += &format!(
        "{} {}; {} {}",
        list.len(),
        ctx.lang.pick("proposals", "个提案"),
        ctx.lang.pick("complete to block", "完整至区块"),
        trail.height
    );
    let json = json!({ "proposals": list, "complete_to_height": trail.height, "as_of": trail.time });
    Ok(Reply::new(json, text))
}

/// An open proposal is told by what it would change, one that is over by all that it says.
fn in_words(
    genesis: &Genesis,
    node: &mut Node,
    p: &Proposal,
    now: &Present,
    lang: Lang,
) -> Result<Vec<String>, Failure> {
    let open = standing(p, now) == Standing::Open;
    let against = open.then(|| now.in_force(node, &p.change)).transpose()?;
    Ok(change::in_words(genesis, &p.change, against.as_ref(), lang))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Enacted,
    Expired,
}

impl Standing {
    fn name(self, lang: Lang) -> &'static str {
        match self {
            Standing::Open => lang.pick("open", "待批准"),
            Standing::Enacted => lang.pick("decided", "已通过"),
            Standing::Expired => lang.pick("expired", "已过期"),
        }
    }
}

fn standing(p: &Proposal, now: &Present) -> Standing {
    match p.enacted {
        Some(_) => Standing::Enacted,
        None if now.time > p.until => Standing::Expired,
        None => Standing::Open,
    }
}

/// The voting power, by the set in force, of those who approve.
fn approving(p: &Proposal, set: &ValidatorSet) -> u64 {
    let of = set.validators.iter().filter(|v| p.approvals.contains(&v.institution));
    of.map(|v| u64::from(v.power)).sum()
}

fn proposal_json(
    genesis: &Genesis,
    id: &ProposalId,
    p: &Proposal,
    now: &Present,
    told: &[String],
    proposed: Height,
) -> Value {
    let what = match &p.change {
        Change::Validators(_) => "validators",
        Change::Nodes(_) => "nodes",
        Change::Parameters(_) => "parameters",
        Change::Institution(_) => "institution",
        Change::Policy(_) => "policy",
        Change::Grading(_) => "grading",
        Change::Protocol(_) => "protocol",
    };
    json!({
        "id": id, "what": what, "standing": standing(p, now).name(Lang::En), "proposed": proposed,
        "proposer": words::slug(genesis, &p.proposer), "until": p.until, "enacted": p.enacted,
        "approvals": p.approvals.iter().map(|a| words::slug(genesis, a)).collect::<Vec<_>>(),
        "approving_power": approving(p, now.set()), "total_power": now.set().total_power(), "change": told,
    })
}

/// Who decides on an open proposal, and how far it has come.
fn who_decides(p: &Proposal, now: &Present, lang: Lang) -> String {
    match &p.change {
        Change::Policy(_) => {
            let roles: Vec<_> = now.policy.committee.roles.iter().map(words::kebab).collect();
            format!(
                "{} {} {}, {} {}",
                p.approvals.len(),
                lang.pick("of", "/"),
                now.policy.committee.approvals,
                lang.pick("institutions decide, one of each:", "个机构即通过，须含各角色："),
                roles.join(" ")
            )
        }
        Change::Grading(_) => lang
            .pick("its source and one more of the committee decide", "来源机构与另一委员会成员批准即通过")
            .to_owned(),
        _ => format!(
            "{} {} {}, {}",
            approving(p, now.set()),
            lang.pick("of", "/"),
            now.set().total_power(),
            lang.pick("more than two thirds decide", "超过三分之二即通过"),
        ),
    }
}

fn listed(
    genesis: &Genesis,
    id: &ProposalId,
    p: &Proposal,
    now: &Present,
    told: &[String],
    lang: Lang,
) -> String {
    let approvals: Vec<_> = p.approvals.iter().map(|a| words::slug(genesis, a)).collect();
    let standing = standing(p, now);
    let mut text = format!(
        "{id}  {}\n  {} {}, {} {}; {}: {}",
        standing.name(lang),
        lang.pick("by", "提议方"),
        words::slug(genesis, &p.proposer),
        lang.pick("until", "截止"),
        words::show_time(p.until),
        lang.pick("approved by", "批准方"),
        approvals.join(" "),
    );
    if let Some(height) = p.enacted {
        text += &format!("; {} {height}", lang.pick("in block", "于区块"));
    }
    if standing == Standing::Open {
        text += &format!(" ({})", who_decides(p, now, lang));
    }
    told.iter().for_each(|line| text += &format!("\n    {line}"));
    text
}
