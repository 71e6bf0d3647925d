//! Access (R2, R3): ask a person for an authorization, request records on it, open what was released.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use assent_proto::event::EventKind;
use assent_proto::state::Object;
use assent_proto::transaction::*;
use assent_proto::{
    AccountId, CaseId, Commitment, Day, GrantId, Hash, ItemId, OrderId, PermitId, TimeMs, hash,
};
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, act, list};
use crate::output::Reply;
use crate::package::{Package, package_hash};
use crate::request::AuthorizationRequest;
use crate::rpc::Node;
use crate::store::{Offer, OfferedRecord, Store, StoredRecord};
use crate::words::{self, named};

/// What to ask a person for.
#[derive(Args, Debug)]
pub struct AskArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// Whose data
    #[arg(long)]
    pub account: AccountId,
    /// An item; may be repeated
    #[arg(long = "item")]
    pub items: Vec<ItemId>,
    /// A whole category besides; may be repeated
    #[arg(long = "category", value_parser = named::<Category>)]
    pub categories: Vec<Category>,
    /// For this case alone
    #[arg(long)]
    pub case: Option<CaseId>,
    /// claims-payment, treatment, mutual-recognition, research, statistics, operations, marketing
    #[arg(long, value_parser = named::<Purpose>)]
    pub purpose: Purpose,
    /// read, copy, compute, derive, disclose; may be repeated
    #[arg(long = "action", value_parser = named::<UseAction>, default_value = "read")]
    pub actions: Vec<UseAction>,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// The highest sensitivity
    #[arg(long, value_parser = named::<Level>, default_value = "high")]
    pub max_level: Level,
    /// one-time, n-times, standing
    #[arg(long, value_parser = named::<Mode>, default_value = "one-time")]
    pub mode: Mode,
    /// How many times, for n-times
    #[arg(long)]
    pub uses: Option<u32>,
    /// First day of the data
    #[arg(long, value_parser = words::day, default_value = "1970-01-01")]
    pub data_from: Day,
    /// Last day of the data
    #[arg(long, value_parser = words::day, default_value = "2099-12-31")]
    pub data_to: Day,
    /// From when it is valid; the founding time if not given
    #[arg(long, value_parser = words::time)]
    pub not_before: Option<TimeMs>,
    /// Until when it is valid
    #[arg(long, value_parser = words::time)]
    pub not_after: TimeMs,
    /// How long what is received may be kept
    #[arg(long, default_value_t = 30)]
    pub retention_days: u32,
    /// Whether it may be passed on
    #[arg(long)]
    pub onward: bool,
    /// Where it may be used, ISO 3166-1 numeric; may be repeated
    #[arg(long = "jurisdiction", default_value = "156")]
    pub jurisdictions: Vec<u32>,
    /// consent, contract, statute
    #[arg(long, value_parser = named::<LegalBasis>, default_value = "consent")]
    pub legal_basis: LegalBasis,
    /// Write the request to this file
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What to request.
#[derive(Args, Debug)]
pub struct RequestArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wanted: Wanted,
    /// The acting member of staff; the chain gets a salted commitment
    #[arg(long, default_value = "")]
    pub staff: String,
}

/// What would be requested.
#[derive(Args, Debug)]
pub struct Wanted {
    /// The grant relied on; without one, the item's opening
    #[arg(long)]
    pub grant: Option<GrantId>,
    /// A custodian's offer; may be repeated
    #[arg(long = "offer", value_name = "FILE", required = true)]
    pub offers: Vec<PathBuf>,
    /// Of the offer, these records alone (`Claim/…`); may be repeated
    #[arg(long = "record", value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// For which case
    #[arg(long)]
    pub case: Option<CaseId>,
    /// In an emergency: unconscious, acute-threat, child-without-guardian. Review and notice become due
    #[arg(long, value_name = "REASON", value_parser = named::<EmergencyReason>, conflicts_with_all = ["grant", "order"])]
    pub emergency: Option<EmergencyReason>,
    /// The legal order relied on
    #[arg(long, conflicts_with = "grant")]
    pub order: Option<OrderId>,
    /// What for; an emergency and an order say it themselves
    #[arg(long, value_parser = named::<Purpose>, required_unless_present_any = ["emergency", "order"])]
    pub purpose: Option<Purpose>,
    /// read, copy, compute, derive, disclose
    #[arg(long, value_parser = named::<UseAction>, default_value = "read")]
    pub action: UseAction,
    /// raw, masked, result-only
    #[arg(long, value_parser = named::<Output>, default_value = "raw")]
    pub output: Output,
    /// Do not name the account: the offered records are of several persons
    #[arg(long)]
    pub several_persons: bool,
}

impl Wanted {
    /// The request, by a member of staff.
    pub(crate) fn request(&self, staff: Commitment) -> Result<RequestAccess, Failure> {
        let records = offered(&self.offers, &self.references)?;
        let first =
            records.first().ok_or_else(|| Failure::local("NoRecords", "the offers have no such records"))?;
        if let Some(other) = records.iter().find(|r| r.item != first.item) {
            return Err(Failure::local(
                "Usage",
                format!("{} is of another item; one request is for one item", other.reference),
            ));
        }
        let proofs = records.iter().map(OfferedRecord::proof).collect::<Result<Vec<_>, _>>()?;
        Ok(RequestAccess {
            grant: self.grant,
            item: first.item,
            account: (!self.several_persons).then_some(first.account),
            case: self.case,
            purpose: self.purpose()?,
            action: self.action,
            output: self.output,
            records: list("--record", proofs)?,
            staff,
            person: None,
            emergency: self.emergency,
            order: self.order,
        })
    }

    fn purpose(&self) -> Result<Purpose, Failure> {
        let own = match (self.emergency, self.order) {
            (Some(_), _) => Some(Purpose::EmergencyTreatment),
            (_, Some(_)) => Some(Purpose::Legal),
            _ => None,
        };
        self.purpose.or(own).ok_or_else(|| Failure::local("Usage", "name what for with --purpose"))
    }
}

/// Makes the request for a person's wallet, under the policy in force.
pub(crate) fn ask(ctx: &Context, args: &AskArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let terms = Grant {
        grantee: secrets.institution(),
        capacity: Capacity::Own,
        items: list("--item", args.items.clone())?,
        categories: list("--category", args.categories.clone())?,
        data_from: args.data_from,
        data_to: args.data_to,
        case: args.case,
        purpose: args.purpose,
        actions: list("--action", args.actions.clone())?,
        output: args.output,
        max_level: args.max_level,
        mode: args.mode,
        uses: match args.mode {
            Mode::OneTime => 1,
            Mode::NTimes => {
                args.uses.ok_or_else(|| Failure::local("Usage", "--mode n-times needs --uses"))?
            }
            Mode::Standing => 0,
        },
        not_before: args.not_before.unwrap_or_else(|| genesis.time()),
        not_after: args.not_after,
        retention_days: args.retention_days,
        onward: args.onward,
        jurisdictions: list("--jurisdiction", args.jurisdictions.clone())?,
        legal_basis: args.legal_basis,
        notice: Hash::ZERO,
        language: ctx.lang.language(),
        policy_version: node.policy()?.value.version,
        delegation: None,
    };
    let request = AuthorizationRequest::sign(&genesis, &secrets, args.account, &terms)?;
    let request = serde_json::to_value(&request).expect("a request is plain data");
    if let Some(out) = &args.out {
        files::create(out, request.to_string().as_bytes())?;
    }
    let text = match &args.out {
        Some(out) => format!("{}: show it to the person's wallet", out.display()),
        None => request.to_string(),
    };
    Ok(Reply::new(json!({ "request": request, "file": args.out }), text))
}

/// Requests access: a permit or a coded denial.
pub(crate) fn request(ctx: &Context, args: &RequestArgs) -> Result<Reply, Failure> {
    let salt = Hash(files::random_32());
    let staff = Commitment(hash::commit(&salt.0, "staff", args.staff.as_bytes()));
    let action = Action::RequestAccess(Box::new(args.wanted.request(staff)?));
    let reply = act(ctx, &args.keys, action)?;
    let permit = if reply.exit == 0 { reply.json["body_id"].clone() } else { Value::Null };
    Ok(reply.with("permit", permit).with("grant", args.wanted.grant).with("staff_salt", salt))
}

/// The records of the offers, or those of them that were named.
fn offered(offers: &[PathBuf], references: &[String]) -> Result<Vec<OfferedRecord>, Failure> {
    let mut all = Vec::new();
    for path in offers {
        all.extend(files::read_json::<Offer>(path)?.records);
    }
    if references.is_empty() {
        return Ok(all);
    }
    let find = |reference: &String| {
        let found = all.iter().find(|r| r.reference == *reference).cloned();
        found.ok_or_else(|| Failure::local("NoSuchRecord", format!("{reference}: not offered")))
    };
    references.iter().map(find).collect()
}

/// Opens a package; every record is checked against the chain before any is written.
pub(crate) fn open(
    ctx: &Context,
    keys: &Keys,
    package: &Path,
    out: Option<&Path>,
    store: Option<&Path>,
) -> Result<Reply, Failure> {
    let (_, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&keys.keyfile)?;
    let bytes = files::read(package)?;
    let opened = Package::open(&bytes, &secrets.identity()?)?;
    let Some(Object::Permit(permit)) = node.object(opened.permit.into())?.object else {
        return Err(Failure::Proof(format!("there is no permit {} on the chain", opened.permit)));
    };
    opened.check(&permit)?;
    in_batches(&mut node, &opened.records)?;
    let delivered = delivered_package(&mut node, opened.permit)?;
    if delivered.is_some_and(|h| h != package_hash(&bytes)) {
        return Err(Failure::Proof("the delivery on the chain names another package".into()));
    }
    if let Some(out) = out {
        let lines: String = opened.records.iter().map(|r| format!("{}\n", r.content)).collect();
        files::create(out, lines.as_bytes())?;
    }
    if let Some(path) = store {
        let mut kept = Store::open(path)?;
        kept.records.extend(opened.records.iter().cloned());
        kept.save(path)?;
    }
    let references: Vec<_> = opened.records.iter().map(|r| r.reference.clone()).collect();
    let text =
        format!("{} records, each as it was anchored:\n  {}", references.len(), references.join("\n  "));
    Ok(Reply::new(
        json!({ "permit": opened.permit, "records": references, "verified": true, "delivery_matches": delivered.is_some(), "file": out }),
        text,
    ))
}

/// Whether every record stands in a batch on the chain.
fn in_batches(node: &mut Node, records: &[StoredRecord]) -> Result<(), Failure> {
    let mut batches = BTreeMap::new();
    for record in records {
        let batch = match batches.entry(record.batch) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match node.object(record.batch.into())?.object {
                Some(Object::Batch(batch)) => new.insert(batch),
                _ => {
                    return Err(Failure::Proof(format!(
                        "{}: its batch is not on the chain",
                        record.reference
                    )));
                }
            },
        };
        if !record.offered().stands_in(&batch.root, batch.count) || batch.item != record.item {
            return Err(Failure::Proof(format!("{}: is not in the batch that it names", record.reference)));
        }
    }
    Ok(())
}

/// The hash of the package that the chain says was delivered on the permit, if it was.
fn delivered_package(node: &mut Node, permit: PermitId) -> Result<Option<Hash>, Failure> {
    let trail = node.trail(permit.into())?;
    let events = trail.map(|t| t.events).unwrap_or_default();
    let delivered = events.iter().find(|e| e.core.kind == EventKind::Delivered);
    let Some(event) = delivered else { return Ok(None) };
    let tx = node.transaction(event.core.body, false)?;
    match tx.as_ref().map(|t| &t.body().action) {
        Some(Action::Deliver(d)) if d.permit == permit => Ok(Some(d.package)),
        _ => Err(Failure::Proof("the node does not show the delivery that the trail names".into())),
    }
}
