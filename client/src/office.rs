//! What institutions do for persons across a counter, and with their own keys: recoveries, delegations, the review
//! and notice of emergencies, rotation, the piece by which they join a chain that runs (R15, R16, R17, R18).

use std::path::{Path, PathBuf};

use assent_genesis::Genesis;
use assent_proto::keys::Algorithm;
use assent_proto::state::{OperatorKey, Role};
use assent_proto::transaction::*;
use assent_proto::{Author, DelegationId, PermitId, PublicKey, TimeMs, hash};
use clap::Args;
use serde_json::json;

use crate::context::{Context, Done, confirm};
use crate::cosign::{self, Draft};
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, act};
use crate::join::{JoinPiece, Terms};
use crate::keyfile::{self, InstitutionSecrets, Settled};
use crate::output::Reply;
use crate::rpc::Node;
use crate::words::{self, named};

/// A wallet's request that the institution signs and submits.
#[derive(Args, Debug)]
pub struct RequestFile {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// The wallet's request: its file, or the text of its QR code
    #[arg(long, value_name = "FILE|TEXT")]
    pub request: String,
    /// Sign without asking
    #[arg(long)]
    pub yes: bool,
}

/// A new operator key.
#[derive(Args, Debug)]
pub struct RotateArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// From when the new key is valid; from the newest block on if not given
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub not_before: Option<TimeMs>,
    /// Until when it is valid
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub not_after: TimeMs,
    /// Leave the old key valid: other machines have it still
    #[arg(long)]
    pub keep: bool,
}

/// What a piece says of its institution, at a founding or later.
#[derive(Args, Debug)]
pub struct Described {
    /// bureau, hospital, insurer, regulator, auditor, processor, court; may be repeated
    #[arg(long = "role", required = true, value_parser = named::<Role>)]
    pub roles: Vec<Role>,
    /// The highest level that it may receive
    #[arg(long, value_parser = named::<Level>, default_value = "high")]
    pub max_level: Level,
    /// ISO 3166-1 numeric
    #[arg(long, default_value_t = 156)]
    pub jurisdiction: u32,
    /// Until when it may act in emergencies; never if not given
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub rostered_until: Option<TimeMs>,
    /// From when the operator key is valid
    #[arg(long, value_parser = words::time)]
    pub not_before: TimeMs,
    /// Until when the operator key is valid
    #[arg(long, value_parser = words::time)]
    pub not_after: TimeMs,
}

/// A piece for a chain that runs.
#[derive(Args, Debug)]
pub struct JoinArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub described: Described,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Says that a person who lost her key holds a new one.
pub(crate) fn recover(ctx: &Context, args: &RequestFile) -> Result<Reply, Failure> {
    countersign(ctx, args, |action| match action {
        Action::Recover(r) => Some(json!({ "account": r.account, "key": r.key, "in_person": r.in_person })),
        _ => None,
    })
}

/// Confirms that one person may grant for another.
pub(crate) fn delegate(ctx: &Context, args: &RequestFile) -> Result<Reply, Failure> {
    let reply = countersign(ctx, args, |action| match action {
        Action::Delegate(d) => Some(json!({ "ward": d.ward, "delegate": d.delegate, "until": d.until })),
        _ => None,
    })?;
    let delegation = reply.json["body_id"].clone();
    Ok(if reply.exit == 0 { reply.with("delegation", delegation) } else { reply })
}

/// Signs a wallet's request as its author, after it was shown in words, and submits it.
fn countersign(
    ctx: &Context,
    args: &RequestFile,
    about: impl Fn(&Action) -> Option<serde_json::Value>,
) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let draft = Draft::read(&args.request)?;
    let body = draft.body(&genesis)?;
    let about = about(&body.action).ok_or_else(|| cosign::bad("it asks for something else"))?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    cosign::by(&body, secrets.institution())?;
    let told = asked(ctx, &genesis, &body, args.yes)?;
    let envelope = draft.sign_first(&genesis, &secrets.operator()?)?.envelope(&genesis)?;
    let (done, seconds) = node.submit(&envelope)?;
    let reply = Done { done, seconds }.reply(ctx.lang);
    let text = format!("{}\n{}", told.join("\n"), reply.text);
    Ok(Reply { text, ..reply }.with("request", about))
}

/// Shows what is to be signed and asks, unless it is signed without.
pub(crate) fn asked(
    ctx: &Context,
    genesis: &Genesis,
    body: &Body,
    yes: bool,
) -> Result<Vec<String>, Failure> {
    let told = cosign::in_words(ctx, genesis, body)?;
    let question = ctx.lang.pick("Do you sign this?", "您是否签署？");
    if !yes && !confirm(&format!("{}\n{question}", told.join("\n")))? {
        return Err(Failure::local("NotConfirmed", "nothing was signed"));
    }
    Ok(told)
}

/// Ends a delegation by death or by a court.
pub(crate) fn end_delegation(
    ctx: &Context,
    keys: &Keys,
    delegation: DelegationId,
    cause: DelegationEnd,
) -> Result<Reply, Failure> {
    if cause == DelegationEnd::Revoked {
        return Err(Failure::local(
            "Usage",
            "only the two themselves revoke it: assent wallet end-delegation",
        ));
    }
    let reply = act(ctx, keys, Action::EndDelegation(EndDelegation { delegation, cause }))?;
    Ok(reply.with("delegation", delegation))
}

/// The regulator's verdict on an emergency.
pub(crate) fn review(
    ctx: &Context,
    keys: &Keys,
    permit: PermitId,
    verdict: Verdict,
) -> Result<Reply, Failure> {
    let reply = act(ctx, keys, Action::ReviewEmergency(ReviewEmergency { permit, verdict }))?;
    Ok(reply.with("permit", permit))
}

/// Puts on record that the person was told.
pub(crate) fn notify(ctx: &Context, keys: &Keys, permit: PermitId, notice: &Path) -> Result<Reply, Failure> {
    let notice = hash::DOCUMENT.hash(&[&files::read(notice)?]);
    let reply = act(ctx, keys, Action::NotifyPerson(NotifyPerson { permit, notice }))?;
    Ok(reply.with("permit", permit).with("notice", notice))
}

/// Attests that what was received is erased, or that the law keeps it in storage.
pub(crate) fn attest_erasure(
    ctx: &Context,
    keys: &Keys,
    grant: assent_proto::GrantId,
    report: &Path,
    hold: Option<(HoldReason, TimeMs)>,
) -> Result<Reply, Failure> {
    let report = hash::DOCUMENT.hash(&[&files::read(report)?]);
    let hold = hold.map(|(reason, until)| Hold { reason, until });
    let held = hold.is_some();
    let reply = act(ctx, keys, Action::AttestErasure(AttestErasure { grant, report, hold }))?;
    Ok(reply.with("grant", grant).with("report", report).with("held", held))
}

/// Signs the piece by which an institution joins a chain that runs.
pub(crate) fn join_piece(ctx: &Context, args: &JoinArgs) -> Result<Reply, Failure> {
    let genesis = ctx.genesis()?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let terms = Terms {
        roles: args.described.roles.clone(),
        max_level: args.described.max_level,
        jurisdiction: args.described.jurisdiction,
        rostered_until: args.described.rostered_until,
    };
    let window = (args.described.not_before, args.described.not_after);
    let (operator, encryption) = (secrets.operator()?, secrets.encryption_key()?);
    let piece = JoinPiece::sign(&genesis, &secrets.slug, &terms, &operator, window, encryption)?;
    files::create(&args.out, piece.to_toml(&genesis).as_bytes())?;
    let text = format!("{}: the public piece of {}; it holds no secrets", args.out.display(), secrets.slug);
    let json = json!({ "file": args.out, "slug": secrets.slug, "institution": piece.institution(), "operator_key": operator.public() });
    Ok(Reply::new(json, text))
}

// ---- its own keys

/// Replaces the operator key. The new one is in the key file before anybody sees it, the old one until the chain
/// has the new one: whenever this stops, running it again goes on.
pub(crate) fn rotate(ctx: &Context, args: &RotateArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let path = &args.keys.keyfile;
    let passphrase = ctx.passphrase()?;
    let mut secrets: InstitutionSecrets = keyfile::open(path, &passphrase)?;
    let (keys, time) = own_keys(&mut node, &secrets)?;
    if secrets.settle(&keys)? == Settled::New {
        keyfile::replace(path, &secrets, &passphrase)?;
        return finished(ctx, &secrets);
    }
    let (old, new) = (secrets.operator()?, secrets.prepare()?);
    keyfile::replace(path, &secrets, &passphrase)?;
    let add = OperatorKey {
        algorithm: Algorithm::Ed25519,
        key: new.public(),
        not_before: args.not_before.unwrap_or(time),
        not_after: args.not_after,
    };
    let retire = (!args.keep).then(|| old.public());
    let action = Action::RotateOperator(RotateOperator { add: Some(add), retire });
    let body = ctx.body(&genesis, Author::Institution(secrets.institution()), action);
    let done = ctx.send(&genesis, &mut node, &body, &[&old, &new])?;
    let reply = done.reply(ctx.lang).with("operator_key", new.public()).with("retired", retire);
    if reply.exit == 0 {
        secrets.settle(&[new.public()])?;
        keyfile::replace(path, &secrets, &passphrase)?;
    }
    Ok(reply)
}

/// An earlier rotation became final, and this file did not know.
fn finished(ctx: &Context, secrets: &InstitutionSecrets) -> Result<Reply, Failure> {
    let key = secrets.operator()?.public();
    let text = ctx.lang.pick("the rotation begun before is finished", "此前开始的密钥更换已完成");
    Ok(Reply::new(json!({ "resumed": true, "operator_key": key }), format!("{text}: {key}")))
}

fn own_keys(node: &mut Node, secrets: &InstitutionSecrets) -> Result<(Vec<PublicKey>, TimeMs), Failure> {
    let seen = node.object(secrets.institution().into())?;
    match seen.object {
        Some(assent_proto::state::Object::Institution(i)) => {
            Ok((i.keys.iter().map(|k| k.key).collect(), seen.time))
        }
        _ => {
            Err(Failure::local("NoSuchInstitution", format!("{}: the chain does not know it", secrets.slug)))
        }
    }
}

/// Retires a key of the institution's.
pub(crate) fn retire(ctx: &Context, keys: &Keys, key: &PublicKey) -> Result<Reply, Failure> {
    let action = Action::RotateOperator(RotateOperator { add: None, retire: Some(*key) });
    Ok(act(ctx, keys, action)?.with("retired", key))
}
