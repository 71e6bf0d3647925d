//! What a custodian does: tell what it holds, release records against a finalised permit that it has checked
//! for itself, and record the delivery (R3).

use std::path::{Path, PathBuf};

use assent_proto::state::{Object, Permit};
use assent_proto::transaction::{Action, Deliver, NotDelivered};
use assent_proto::{AccountId, BodyId, Commitment, Hash, Height, PermitId, TimeMs, merkle};
use clap::Subcommand;
use serde_json::json;

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, act};
use crate::orders::{self, AnchorEmergencyArgs};
use crate::output::Reply;
use crate::package::{Package, package_hash};
use crate::rpc::Node;
use crate::store::{Offer, OfferKind, Store, StoredRecord};
use crate::words;

/// How old the newest block may be, besides the heartbeat, before a release is refused: a node that lags may
/// not know of a revocation.
const STALE_MS: u64 = 60_000;

/// The custodian's commands.
#[derive(Subcommand, Debug)]
pub enum CustodianCommand {
    /// List what the store holds; no content
    #[command(after_help = "Example:\n  assent custodian records --store records.store")]
    Records {
        /// The custodian's store
        #[arg(long, value_name = "FILE")]
        store: PathBuf,
        /// Of this account alone
        #[arg(long)]
        account: Option<AccountId>,
    },
    /// Tell a requester or a person which records there are, with their proofs and without their contents
    #[command(
        after_help = "Example:\n  assent custodian offer --store records.store --record Claim/7a… -o offer.json"
    )]
    Offer {
        /// The custodian's store
        #[arg(long, value_name = "FILE")]
        store: PathBuf,
        /// A record (`Claim/…`); may be repeated
        #[arg(long = "record", value_name = "REFERENCE")]
        records: Vec<String>,
        /// All records of this account
        #[arg(long)]
        account: Option<AccountId>,
        /// Of this resource type alone
        #[arg(long)]
        resource_type: Option<String>,
        /// Where to write it
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check a permit and its proof, release its records encrypted to the grantee, and record the delivery
    #[command(
        after_help = "Example:\n  assent custodian release --keyfile operator.age --permit PERMIT \\\n      \
        --store records.store -o claim.package"
    )]
    Release {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The permit
        #[arg(long)]
        permit: PermitId,
        /// The custodian's store
        #[arg(long, value_name = "FILE")]
        store: PathBuf,
        /// Where to write the package
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Give back the use that a permit consumed: nothing was released on it, and nothing will be
    #[command(
        after_help = "Example:\n  assent custodian not-delivered --keyfile operator.age --permit PERMIT --genesis genesis.toml"
    )]
    NotDelivered {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The permit
        #[arg(long)]
        permit: PermitId,
    },
    /// Draft the anchoring of a release in an emergency while the chain could not be reached
    #[command(
        after_help = "Example:\n  assent custodian anchor-emergency --keyfile operator.age --requester hospital-b \\\n      \
        --reason unconscious --store records.store --record Encounter/7a… --staff COMMITMENT \\\n      \
        --released-at 2026-12-24T23:10:00Z --package sent.bin --expires-in 600 -o outage.draft\n\
        The requester signs it (`assent institution cosign`); then it is submitted (`assent institution submit`)\n\
        before --expires-in has passed."
    )]
    AnchorEmergency(AnchorEmergencyArgs),
    /// Record a delivery that a gateway's own log shows, and that was not made by `release` (reconciliation, R4)
    #[command(
        after_help = "Example:\n  assent custodian report-delivery --keyfile operator.age --permit PERMIT \\\n      \
        --manifest HASH --records 3 --package sent.bin"
    )]
    ReportDelivery {
        #[command(flatten)]
        #[allow(missing_docs)]
        keys: Keys,
        /// The permit that the gateway named
        #[arg(long)]
        permit: PermitId,
        /// The height that it saw; the newest if not given
        #[arg(long)]
        released_height: Option<u64>,
        /// Root over the records released
        #[arg(long, value_parser = words::hash)]
        manifest: Hash,
        /// How many records
        #[arg(long)]
        records: u32,
        /// What was sent
        #[arg(long, value_name = "FILE")]
        package: PathBuf,
    },
}

/// Runs one.
pub fn run(ctx: &Context, command: &CustodianCommand) -> Result<Reply, Failure> {
    match command {
        CustodianCommand::Records { store, account } => records(store, *account),
        CustodianCommand::Offer { store, records, account, resource_type, out } => {
            offer(store, records, *account, resource_type.as_deref(), out)
        }
        CustodianCommand::Release { keys, permit, store, out } => release(ctx, keys, *permit, store, out),
        CustodianCommand::NotDelivered { keys, permit } => {
            let reply = act(ctx, keys, Action::NotDelivered(NotDelivered { permit: *permit }))?;
            Ok(reply.with("permit", permit))
        }
        CustodianCommand::AnchorEmergency(args) => orders::anchor_emergency(ctx, args),
        CustodianCommand::ReportDelivery { keys, permit, released_height, manifest, records, package } => {
            let package = package_hash(&files::read(package)?);
            report(ctx, keys, *permit, released_height.map(Height), *manifest, *records, package)
        }
    }
}

fn records(store: &Path, account: Option<AccountId>) -> Result<Reply, Failure> {
    let store = Store::open(store)?;
    let chosen = store.records.iter().filter(|r| account.is_none_or(|a| a == r.account));
    let (mut list, mut text) = (Vec::new(), String::new());
    for r in chosen {
        text += &format!("{}  {}  {}\n", words::show_day(r.day), r.reference, r.account);
        list.push(json!({
            "reference": r.reference, "account": r.account, "day": words::show_day(r.day), "item": r.item,
            "batch": r.batch, "commitment": r.commitment,
        }));
    }
    Ok(Reply::new(json!({ "records": list }), text))
}

fn offer(
    store: &Path,
    references: &[String],
    account: Option<AccountId>,
    resource_type: Option<&str>,
    out: &Path,
) -> Result<Reply, Failure> {
    let store = Store::open(store)?;
    let of_type = |r: &StoredRecord| {
        resource_type.is_none_or(|t| r.reference.split_once('/').is_some_and(|(kind, _)| kind == t))
    };
    let mut records =
        references.iter().map(|r| store.find(r).map(StoredRecord::offered)).collect::<Result<Vec<_>, _>>()?;
    if let Some(account) = account {
        let theirs = store.records.iter().filter(|r| r.account == account && of_type(r));
        records.extend(theirs.map(StoredRecord::offered));
    }
    if records.is_empty() {
        return Err(Failure::local("NoRecords", "no such records; name them with --record or --account"));
    }
    let references: Vec<_> = records.iter().map(|r| r.reference.clone()).collect();
    let items: std::collections::BTreeSet<_> = records.iter().map(|r| r.item).collect();
    let commitments: Vec<_> = records.iter().map(|r| r.commitment).collect();
    let text = format!("{}: {} records, without their contents", out.display(), references.len());
    let offer = Offer { kind: OfferKind::Offer, records };
    files::create(out, &serde_json::to_vec(&offer).expect("an offer is plain data"))?;
    Ok(Reply::new(
        json!({ "file": out, "records": references, "items": items, "commitments": commitments }),
        text,
    ))
}

fn release(ctx: &Context, keys: &Keys, id: PermitId, store: &Path, out: &Path) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let checked = check_permit(&mut node, id)?;
    let permit = &checked.permit;
    if permit.custodian != secrets.institution() {
        let custodian = words::slug(&genesis, &permit.custodian);
        return Err(not_released(format!("the permit is for records that {custodian} holds")));
    }
    let records = permitted_records(&Store::open(store)?, &checked)?;
    let package = Package { permit: id, records };
    package.check(permit)?;
    let Some(Object::Institution(grantee)) = node.object(permit.requester.into())?.object else {
        return Err(Failure::Proof("the grantee is not on the chain".into()));
    };
    let sealed = package.seal(&grantee.encryption_key)?;
    files::create(out, &sealed)?;

    let reply =
        report(ctx, keys, id, Some(checked.height), permit.manifest, permit.records, package_hash(&sealed));
    match &reply {
        Ok(r) if r.exit == 0 => {}
        // The delivery may yet be committed, and the package cannot be made a second time.
        Err(Failure::Unreachable(why)) => {
            let message = format!("{why}; do not send {} before its delivery is on the chain", out.display());
            return Err(Failure::Unreachable(message));
        }
        // What the chain does not take as delivered does not leave the house.
        _ => drop(std::fs::remove_file(out)),
    }
    let reply = reply?;
    let text = format!(
        "{} records for {}, encrypted: {}\n{}",
        permit.records,
        words::slug(&genesis, &permit.requester),
        out.display(),
        reply.text
    );
    Ok(Reply { text, ..reply }.with("package", out).with("permit", id).with("records", permit.records))
}

/// A permit that may be released on, as of a block.
struct Checked {
    permit: Permit,
    commitments: Vec<Commitment>,
    height: Height,
}

/// Whether the permit is final, alive, and its grant not revoked, by proofs against the genesis file; and
/// whether the node's view is fresh enough to say so.
fn check_permit(node: &mut Node, id: PermitId) -> Result<Checked, Failure> {
    // The request itself: it waits until this node has it, and tells which records were permitted.
    let request = node.transaction(BodyId(id.0), true)?;
    let request = request.ok_or_else(|| not_released(format!("the request {id} is not final")))?;
    if let Some(code) = request.denial() {
        return Err(not_released(format!("the request was denied: {}", crate::rpc::denial_name(code))));
    }
    let Action::RequestAccess(asked) = &request.body().action else {
        return Err(not_released(format!("{id} is not a request for access")));
    };
    let seen = node.object(id.into())?;
    let Some(Object::Permit(permit)) = seen.object else {
        return Err(not_released(format!("there is no permit {id}")));
    };
    fresh(node.parameters()?.value.heartbeat_ms, seen.time)?;
    if permit.delivered_height.is_some() {
        return Err(not_released("it was delivered on before"));
    }
    if permit.undelivered {
        return Err(not_released("it was said before that nothing will be released on it"));
    }
    if seen.time >= permit.expires_at {
        return Err(not_released(format!("it expired at {}", words::show_time(permit.expires_at))));
    }
    let mut height = seen.height;
    if let Some(grant) = permit.grant {
        let seen = node.object(grant.into())?;
        match seen.object {
            Some(Object::Grant(g)) if g.revocation.is_none() => height = height.min(seen.height),
            Some(Object::Grant(_)) => return Err(not_released("its grant was revoked")),
            _ => return Err(Failure::Proof("the permit's grant is not on the chain".into())),
        }
    }
    let commitments = asked.records.iter().map(|p| p.record.commitment).collect();
    Ok(Checked { permit: *permit, commitments, height })
}

fn fresh(heartbeat_ms: u64, time: TimeMs) -> Result<(), Failure> {
    let oldest = words::now().0.saturating_sub(2 * heartbeat_ms + STALE_MS);
    if time.0 < oldest {
        let message =
            format!("the node's newest block is of {}: too old to release on", words::show_time(time));
        return Err(not_released(message));
    }
    Ok(())
}

fn permitted_records(store: &Store, checked: &Checked) -> Result<Vec<StoredRecord>, Failure> {
    let find = |c: &Commitment| {
        let found = store.records.iter().find(|r| r.commitment == *c).cloned();
        found.ok_or_else(|| {
            Failure::local("NoSuchRecord", format!("the store has no record of commitment {c}"))
        })
    };
    let records = checked.commitments.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let leaves: Vec<_> = records.iter().map(|r| r.record().leaf()).collect();
    if merkle::root(&leaves) != checked.permit.manifest {
        return Err(Failure::Proof("the records in the store are not those that the permit names".into()));
    }
    Ok(records)
}

fn report(
    ctx: &Context,
    keys: &Keys,
    permit: PermitId,
    released: Option<Height>,
    manifest: Hash,
    records: u32,
    package: Hash,
) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let released_height = match released {
        Some(height) => height,
        None => node.object(secrets.institution().into())?.height,
    };
    let action = Action::Deliver(Deliver { permit, released_height, manifest, records, package });
    let reply = ctx.act(&genesis, &mut node, &secrets, action)?.reply(ctx.lang);
    let delivery = reply.json["body_id"].clone();
    Ok(reply.with("delivery", delivery).with("released_height", released_height))
}

fn not_released(why: impl Into<String>) -> Failure {
    Failure::local("NotReleased", format!("nothing was released: {}", why.into()))
}
