//! What two institutions sign and one submits, by a draft that goes from one to the other: legal orders (R41), and
//! releases in an emergency that are anchored after an outage (R17).

use std::path::{Path, PathBuf};

use assent_proto::field::Message;
use assent_proto::transaction::*;
use assent_proto::{AccountId, Commitment, Day, Hash, InstitutionId, ItemId, TimeMs, hash};
use clap::Args;
use serde_json::json;

use crate::context::{Context, Done, institution_id};
use crate::cosign::{self, Draft};
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, list};
use crate::office::asked;
use crate::output::Reply;
use crate::package::package_hash;
use crate::store::Store;
use crate::words::{self, named};

/// A legal order.
#[derive(Args, Debug)]
pub struct OrderArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// court, criminal-investigation, public-health, insurance-supervision
    #[arg(long, value_parser = named::<OrderBasis>)]
    pub basis: OrderBasis,
    /// The order itself, of which the chain gets the hash
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// Who may use
    #[arg(long, value_name = "INSTITUTION")]
    pub beneficiary: String,
    /// Who signs too
    #[arg(long, value_name = "INSTITUTION")]
    pub cosigner: String,
    /// One person's records; anyone's if not given
    #[arg(long)]
    pub account: Option<AccountId>,
    /// An item; may be repeated
    #[arg(long = "item")]
    pub items: Vec<ItemId>,
    /// A whole category besides; may be repeated
    #[arg(long = "category", value_parser = named::<Category>)]
    pub categories: Vec<Category>,
    /// First day of the data
    #[arg(long, value_parser = words::day, default_value = "1970-01-01")]
    pub data_from: Day,
    /// Last day of the data
    #[arg(long, value_parser = words::day, default_value = "2099-12-31")]
    pub data_to: Day,
    /// read, copy, compute, derive, disclose; may be repeated
    #[arg(long = "action", value_parser = named::<UseAction>, default_value = "read")]
    pub actions: Vec<UseAction>,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// The highest sensitivity
    #[arg(long, value_parser = named::<Level>, default_value = "high")]
    pub max_level: Level,
    /// Until when it may be used
    #[arg(long, value_parser = words::time)]
    pub not_after: TimeMs,
    /// Uses before this are not shown to the person: notice is deferred. Without it she sees them at once
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub notice_from: Option<TimeMs>,
    /// Where to write the draft
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// A release in an outage.
#[derive(Args, Debug)]
pub struct AnchorEmergencyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// Who used the records
    #[arg(long, value_name = "INSTITUTION")]
    pub requester: String,
    /// unconscious, acute-threat, child-without-guardian
    #[arg(long, value_parser = named::<EmergencyReason>)]
    pub reason: EmergencyReason,
    /// read, compute
    #[arg(long, value_parser = named::<UseAction>, default_value = "read")]
    pub action: UseAction,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// The custodian's store
    #[arg(long, value_name = "FILE")]
    pub store: PathBuf,
    /// A record that was released (`Encounter/…`); may be repeated
    #[arg(long = "record", value_name = "REFERENCE", required = true)]
    pub records: Vec<String>,
    /// The requester's commitment to the member of staff who acted, from the record that both signed then
    #[arg(long, value_parser = words::hash)]
    pub staff: Hash,
    /// When they were released
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub released_at: TimeMs,
    /// What was handed over
    #[arg(long, value_name = "FILE")]
    pub package: PathBuf,
    /// Where to write the draft
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Drafts an order and signs it first.
pub(crate) fn order(ctx: &Context, args: &OrderArgs) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    if args.items.is_empty() && args.categories.is_empty() {
        return Err(Failure::local("Usage", "an order covers something: name --item or --category"));
    }
    let document = hash::DOCUMENT.hash(&[&files::read(&args.document)?]);
    let action = Action::IssueOrder(Box::new(IssueOrder {
        basis: args.basis,
        document,
        beneficiary: institution_id(&genesis, &args.beneficiary)?,
        cosigner: institution_id(&genesis, &args.cosigner)?,
        account: args.account,
        items: list("--item", args.items.clone())?,
        categories: list("--category", args.categories.clone())?,
        data_from: args.data_from,
        data_to: args.data_to,
        actions: list("--action", args.actions.clone())?,
        output: args.output,
        max_level: args.max_level,
        not_after: args.not_after,
        notice_from: args.notice_from.unwrap_or(TimeMs(0)),
    }));
    draft(ctx, &args.keys, action, &args.out)
}

/// Drafts the anchoring of a release in an outage and signs it first.
pub(crate) fn anchor_emergency(ctx: &Context, args: &AnchorEmergencyArgs) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let store = Store::open(&args.store)?;
    let records = args.records.iter().map(|r| store.find(r)).collect::<Result<Vec<_>, _>>()?;
    let first =
        records.first().ok_or_else(|| Failure::local("NoRecords", "name the records with --record"))?;
    if records.iter().any(|r| (r.item, r.account) != (first.item, first.account)) {
        return Err(Failure::local("Usage", "one anchoring is for one person's records of one item"));
    }
    let proofs = records.iter().map(|r| r.offered().proof()).collect::<Result<Vec<_>, _>>()?;
    let action = Action::AnchorEmergency(Box::new(AnchorEmergency {
        requester: institution_id(&genesis, &args.requester)?,
        item: first.item,
        account: first.account,
        reason: args.reason,
        action: args.action,
        output: args.output,
        records: list("--record", proofs)?,
        staff: Commitment(args.staff),
        released_at: args.released_at,
        package: package_hash(&files::read(&args.package)?),
    }));
    draft(ctx, &args.keys, action, &args.out)
}

fn draft(ctx: &Context, keys: &Keys, action: Action, out: &Path) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let body = ctx.body(&genesis, Author::Institution(secrets.institution()), action);
    let draft = Draft::new(&body).sign_first(&genesis, &secrets.operator()?)?;
    draft.write(out)?;
    let told = cosign::in_words(ctx, &genesis, &body)?;
    let id = body_id(&genesis.hash(), &body.encode());
    let json = json!({ "file": out, "body_id": id, "expires_at": body.expires_at, "terms": told, "draft": draft.json() });
    let next = ctx.lang.pick(
        "to be signed by the other (assent institution cosign)",
        "待对方签署（assent institution cosign）",
    );
    Ok(Reply::new(json, format!("{}\n{}: {next}", told.join("\n"), out.display())))
}

/// Signs another's draft second.
pub(crate) fn cosign(
    ctx: &Context,
    keys: &Keys,
    file: &str,
    out: &Path,
    yes: bool,
) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let draft = Draft::read(file)?;
    let body = draft.body(&genesis)?;
    let secrets = ctx.institution(&keys.keyfile)?;
    if second_of(&body.action) != Some(secrets.institution()) {
        return Err(cosign::bad("it names another institution as the one that signs second"));
    }
    let told = asked(ctx, &genesis, &body, yes)?;
    let signed = draft.sign_second(&genesis, &secrets.operator()?)?;
    // Refused here rather than by the chain: the author's signature is there and holds.
    signed.envelope(&genesis)?;
    signed.write(out)?;
    let json = json!({ "file": out, "expires_at": body.expires_at, "terms": told, "draft": signed.json() });
    let next = ctx
        .lang
        .pick("signed by both (assent institution submit)", "双方已签署（assent institution submit）");
    Ok(Reply::new(json, format!("{}\n{}: {next}", told.join("\n"), out.display())))
}

/// Which institution signs a draft second.
fn second_of(action: &Action) -> Option<InstitutionId> {
    match action {
        Action::IssueOrder(o) => Some(o.cosigner),
        Action::AnchorEmergency(a) => Some(a.requester),
        _ => None,
    }
}

/// Submits a draft that both have signed; needs no key.
pub(crate) fn submit(ctx: &Context, file: &str) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let draft = Draft::read(file)?;
    let body = draft.body(&genesis)?;
    let told = cosign::in_words(ctx, &genesis, &body)?;
    let (done, seconds) = node.submit(&draft.envelope(&genesis)?)?;
    let reply = Done { done, seconds }.reply(ctx.lang);
    let text = format!("{}\n{}", told.join("\n"), reply.text);
    let id = reply.json["body_id"].clone();
    let reply = Reply { text, ..reply };
    Ok(match (&body.action, reply.exit) {
        (Action::IssueOrder(_), 0) => reply.with("order", id),
        (Action::AnchorEmergency(_), 0) => reply.with("permit", id),
        _ => reply,
    })
}
