//! What befalls a person's keys, and who grants for whom: rotation, loss and recovery, veto, delegations, and the
//! ward's word on what her delegate granted (R15, R16). The wallet itself is [`crate::wallet`].

use std::path::{Path, PathBuf};

use assent_genesis::Genesis;
use assent_proto::event::EventKind;
use assent_proto::keys::Algorithm;
use assent_proto::state::{Account, Delegation, Object, Recovery};
use assent_proto::transaction::*;
use assent_proto::{AccountId, DelegationId, GrantId, InstitutionId, SecretKey, TimeMs, hash};
use clap::Args;
use serde_json::{Value, json};

use crate::context::{Context, confirm, institution_id};
use crate::cosign::{self, Draft};
use crate::error::Failure;
use crate::files;
use crate::institution::list;
use crate::keyfile::Settled;
use crate::output::Reply;
use crate::qr;
use crate::rpc::Node;
use crate::wallet::{Wallet, WalletFile};
use crate::words::{self, Lang, kebab, named};

/// One account of a wallet's.
#[derive(Args, Debug, Clone)]
pub struct AccountArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wallet: WalletFile,
    /// The account with this custodian; not needed where the wallet has one account
    #[arg(long)]
    pub custodian: Option<String>,
}

/// A recovery, asked for by the new key.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wallet: WalletFile,
    /// The account whose key was lost
    #[arg(long)]
    pub account: AccountId,
    /// The institution that is to say so; each of those needed gets a request of its own
    #[arg(long)]
    pub institution: String,
    /// Write the request to this file
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A delegation, asked for by the one of the two who must sign it.
#[derive(Args, Debug)]
pub struct DelegateArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub account: AccountArgs,
    /// guardian: this wallet's account will grant for the other. proxy: the other will grant for this wallet's
    #[arg(long = "as", value_name = "CAPACITY", value_parser = named::<Capacity>)]
    pub capacity: Capacity,
    /// The other account
    #[arg(long, value_name = "ACCOUNT")]
    pub with: AccountId,
    /// For what; may be repeated
    #[arg(long = "purpose", required = true, value_parser = named::<Purpose>)]
    pub purposes: Vec<Purpose>,
    /// Until this day, the first of a quarter, so that no birthday shows
    #[arg(long, value_name = "DAY", value_parser = words::quarter)]
    pub until: TimeMs,
    /// The power of attorney or the court's decision, of which the chain gets the hash
    #[arg(long, value_name = "FILE")]
    pub document: PathBuf,
    /// The institution that confirms it
    #[arg(long)]
    pub institution: String,
    /// Write the request to this file
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Replaces an account's key. The new one is in the wallet before anybody sees it, the old one until the chain has
/// the new one: whenever this stops, running it again goes on.
pub(crate) fn rotate(ctx: &Context, args: &AccountArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let mut wallet = Wallet::open(ctx, &args.wallet)?;
    let id = wallet.chosen(&genesis, args.custodian.as_deref())?;
    let (account, time) = on_chain(&mut node, &id)?;
    if wallet.settle(&id, &account.key_at(time))? == Settled::New {
        let text = ctx.lang.pick("the rotation begun before is finished", "此前开始的密钥更换已完成");
        return Ok(Reply::new(json!({ "account": id, "resumed": true, "key": account.key_at(time) }), text));
    }
    let old = wallet.key(&id)?;
    let new = wallet.prepare(&id)?;
    let action = Action::RotateKey(RotateKey { algorithm: Algorithm::Ed25519, key: new.public() });
    let body = ctx.body(&genesis, Author::Account(id), action);
    let reply = ctx.send(&genesis, &mut node, &body, &[&old, &new])?.reply(ctx.lang);
    if reply.exit == 0 {
        wallet.settle(&id, &new.public())?;
    }
    Ok(reply.with("account", id).with("key", new.public()))
}

/// Makes a key for an account whose key was lost, and the request by which an institution says so.
pub(crate) fn recover_request(ctx: &Context, args: &RecoverArgs) -> Result<Reply, Failure> {
    free(args.out.as_deref())?;
    let (genesis, mut node) = ctx.connect()?;
    let institution = institution_id(&genesis, &args.institution)?;
    let mut wallet = Wallet::open(ctx, &args.wallet)?;
    let (account, time) = on_chain(&mut node, &args.account)?;
    let key = wallet.recovering(&args.account, account.custodian)?;
    if account.key_at(time) == key.public() {
        return Err(Failure::local("NothingToRecover", "the wallet holds the key that the chain has"));
    }
    if account.recovery.as_ref().is_some_and(|r| r.key != key.public() && in_progress(r, time)) {
        let message =
            "another recovery of the account is in progress; if it is not yours, tell the bureau at once";
        return Err(Failure::local("OtherRecovery", message));
    }
    // A frozen account is recovered across a counter alone.
    let in_person = account.frozen;
    let algorithm = Algorithm::Ed25519;
    let action = Action::Recover(Recover { account: args.account, algorithm, key: key.public(), in_person });
    let reply = request(ctx, &genesis, institution, action, &key, args.out.as_deref())?;
    Ok(reply.with("account", args.account).with("key", key.public()).with("in_person", in_person))
}

/// Of a recovery that has not replaced the key yet: whether it still can.
fn in_progress(recovery: &Recovery, time: TimeMs) -> bool {
    recovery.ready_at.unwrap_or(recovery.until) >= time
}

/// Asks an institution to confirm that one may grant for the other.
pub(crate) fn delegate_request(ctx: &Context, args: &DelegateArgs) -> Result<Reply, Failure> {
    free(args.out.as_deref())?;
    let genesis = ctx.genesis()?;
    let institution = institution_id(&genesis, &args.institution)?;
    let wallet = Wallet::open(ctx, &args.account.wallet)?;
    let own = wallet.chosen(&genesis, args.account.custodian.as_deref())?;
    let (ward, delegate) = match args.capacity {
        Capacity::Guardian => (args.with, own),
        Capacity::Proxy => (own, args.with),
        Capacity::Own => return Err(Failure::local("Usage", "--as guardian or --as proxy")),
    };
    let document = hash::DOCUMENT.hash(&[&files::read(&args.document)?]);
    let purposes = list("--purpose", args.purposes.clone())?;
    let (capacity, until) = (args.capacity, args.until);
    let action = Action::Delegate(Delegate { ward, delegate, capacity, document, purposes, until });
    let reply = request(ctx, &genesis, institution, action, &wallet.key(&own)?, args.out.as_deref())?;
    Ok(reply.with("ward", ward).with("delegate", delegate))
}

/// A body of an institution's, signed second by the wallet: as a file, and as a QR code where one holds it.
fn request(
    ctx: &Context,
    genesis: &Genesis,
    institution: InstitutionId,
    action: Action,
    key: &SecretKey,
    out: Option<&Path>,
) -> Result<Reply, Failure> {
    let body = ctx.body(genesis, Author::Institution(institution), action);
    let draft = Draft::new(&body).sign_second(genesis, key)?;
    if let Some(out) = out {
        draft.write(out)?;
    }
    let text = draft.qr_text()?;
    let qr = qr::picture(&text).ok();
    let told = cosign::in_words(ctx, genesis, &body)?.join("\n");
    let shown = format!("{told}\n{}{text}", qr.as_ref().map(|q| format!("{q}\n")).unwrap_or_default());
    let json = json!({ "request": draft.json(), "text": text, "qr": qr, "file": out, "expires_at": body.expires_at });
    Ok(Reply::new(json, shown))
}

fn free(out: Option<&Path>) -> Result<(), Failure> {
    match out.filter(|o| o.exists()) {
        Some(taken) => {
            let message = format!("{}: exists already, and is not overwritten", taken.display());
            Err(Failure::local("FileExists", message))
        }
        None => Ok(()),
    }
}

/// Ends a recovery that the account's owner did not ask for; the account is frozen until she was seen in person.
pub(crate) fn veto(ctx: &Context, args: &AccountArgs, yes: bool) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let mut wallet = Wallet::open(ctx, &args.wallet)?;
    let id = wallet.chosen(&genesis, args.custodian.as_deref())?;
    let (account, time) = on_chain(&mut node, &id)?;
    let recovery = account.recovery.as_ref();
    let recovery =
        recovery.ok_or_else(|| Failure::local("NoRecovery", "there is no recovery of this account"))?;
    let by: Vec<_> = recovery.approvals.iter().map(|i| words::institution(&genesis, i, ctx.lang)).collect();
    let told = match ctx.lang {
        Lang::En => format!(
            "A recovery to the key {} was confirmed by {}. A veto ends it and freezes the account: it can withdraw \
             and grant nothing until you were seen in person.",
            recovery.key,
            by.join(", ")
        ),
        Lang::Zh => format!(
            "{}已确认将账户密钥更换为 {}。否决将终止该恢复并冻结账户：当面核验前只能撤回，不能授权。",
            by.join("、"),
            recovery.key
        ),
    };
    if !yes && !confirm(&format!("{told}\n{}", ctx.lang.pick("Do you veto it?", "您是否否决？")))? {
        return Err(Failure::local("NotConfirmed", "nothing was signed"));
    }
    wallet.settle(&id, &account.key_at(time))?;
    let action = Action::VetoRecovery(VetoRecovery { key: recovery.key });
    Ok(sign(ctx, &genesis, &mut node, &wallet, id, action)?.with("account", id).with("vetoed", recovery.key))
}

/// Lets a delegate's grant hold although the delegation has ended.
pub(crate) fn ratify(ctx: &Context, file: &WalletFile, grant: GrantId) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let Some(Object::Grant(g)) = node.object(grant.into())?.object else {
        return Err(Failure::local("NoSuchGrant", format!("{grant} is not on the chain")));
    };
    wallet.key(&g.account)?;
    let action = Action::Ratify(Ratify { grant });
    Ok(sign(ctx, &genesis, &mut node, &wallet, g.account, action)?.with("grant", grant))
}

/// Ends a delegation, as the one or the other.
pub(crate) fn end_delegation(ctx: &Context, file: &WalletFile, id: DelegationId) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let delegation = delegation(&mut node, id)?;
    let hers = [delegation.ward, delegation.delegate].into_iter().find(|a| wallet.key(a).is_ok());
    let account = hers.ok_or_else(|| {
        Failure::local("NoSuchAccount", "the delegation is of two accounts that the wallet does not have")
    })?;
    let cause = DelegationEnd::Revoked;
    let action = Action::EndDelegation(EndDelegation { delegation: id, cause });
    Ok(sign(ctx, &genesis, &mut node, &wallet, account, action)?.with("delegation", id))
}

/// Who may grant for whom, of the wallet's accounts.
pub(crate) fn delegations(ctx: &Context, file: &WalletFile) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let wallet = Wallet::open(ctx, file)?;
    let (mut found, mut text) = (Vec::<Value>::new(), String::new());
    for account in wallet.accounts() {
        let Some(trail) = node.trail(account.into())? else { continue };
        let confirmed = trail.events.iter().filter(|e| e.core.kind == EventKind::Delegated);
        for id in confirmed.map(|e| DelegationId(e.core.object.id)).collect::<Vec<_>>() {
            let d = delegation(&mut node, id)?;
            let in_force = d.is_in_force(trail.time);
            text += &format!("{id}  {}\n", told(&genesis, &d, &account, in_force, ctx.lang));
            found.push(json!({
                "delegation": id, "ward": d.ward, "delegate": d.delegate, "as": kebab(&d.capacity),
                "purposes": d.purposes, "until": d.until, "in_force": in_force,
                "ended": d.ended.as_ref().map(|e| kebab(&e.cause)), "issuer": words::slug(&genesis, &d.issuer),
            }));
        }
    }
    Ok(Reply::new(json!({ "delegations": found }), text))
}

fn told(genesis: &Genesis, d: &Delegation, own: &AccountId, in_force: bool, lang: Lang) -> String {
    let direction = match d.delegate == *own {
        true => format!("{} {}", lang.pick("you may grant for", "您可代理"), d.ward),
        false => format!("{} {}", lang.pick("may grant for you:", "您的代理人："), d.delegate),
    };
    format!(
        "{direction} ({}, {} {}, {} {}){}",
        words::capacity(d.capacity, lang),
        lang.pick("until", "截止"),
        words::show_time(d.until),
        lang.pick("confirmed by", "确认机构"),
        words::institution(genesis, &d.issuer, lang),
        if in_force { "" } else { lang.pick(", over", "，已终止") }
    )
}

/// A delegation on the chain.
pub(crate) fn delegation(node: &mut Node, id: DelegationId) -> Result<Delegation, Failure> {
    match node.object(id.into())?.object {
        Some(Object::Delegation(d)) => Ok(d),
        _ => Err(Failure::local("NoSuchDelegation", format!("there is no delegation {id} on the chain"))),
    }
}

fn on_chain(node: &mut Node, id: &AccountId) -> Result<(Account, TimeMs), Failure> {
    let found = node.account(*id)?;
    found.ok_or_else(|| Failure::local("NoSuchAccount", format!("there is no account {id} on the chain")))
}

fn sign(
    ctx: &Context,
    genesis: &Genesis,
    node: &mut Node,
    wallet: &Wallet,
    account: AccountId,
    action: Action,
) -> Result<Reply, Failure> {
    let body = ctx.body(genesis, Author::Account(account), action);
    Ok(ctx.send(genesis, node, &body, &[&wallet.key(&account)?])?.reply(ctx.lang))
}
