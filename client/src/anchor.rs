//! Anchoring (存证, R1): records become salted commitments in batches; contents and salts stay in the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use assent_proto::field::Message;
use assent_proto::transaction::*;
use assent_proto::{AccountId, BatchId, CaseId, Hash, ItemId, merkle};
use clap::Args;

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, list};
use crate::output::Reply;
use crate::store::{self, Resource, Store, StoredRecord};

/// What to anchor.
#[derive(Args, Debug)]
pub struct AnchorArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// Their catalogue item
    #[arg(long)]
    pub item: ItemId,
    /// FHIR resources, one JSON object a line
    #[arg(long, value_name = "NDJSON")]
    pub records: PathBuf,
    /// Of these resource types alone; may be repeated
    #[arg(long = "resource-type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Of these resources alone (`Claim/…`); may be repeated
    #[arg(long = "record", value_name = "REFERENCE")]
    pub references: Vec<String>,
    /// Which FHIR subject is which account, as JSON
    #[arg(long, value_name = "JSON")]
    pub accounts: PathBuf,
    /// The custodian's store of contents, salts and proofs; made if it is not there
    #[arg(long, value_name = "FILE")]
    pub store: PathBuf,
    /// A case that these settlements settle; may be repeated
    #[arg(long = "settles", value_name = "CASE")]
    pub settles: Vec<CaseId>,
}

/// Anchors the chosen records, each batch in a transaction of its own.
pub(crate) fn anchor(ctx: &Context, args: &AnchorArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let secrets = ctx.institution(&args.keys.keyfile)?;
    let resources = chosen(args)?;
    if resources.is_empty() {
        return Err(Failure::local(
            "NoRecords",
            format!("{}: nothing to anchor in it", args.records.display()),
        ));
    }
    let mut store = Store::open(&args.store)?;
    let (mut batches, mut text, mut settles) = (Vec::new(), String::new(), args.settles.clone());
    for part in resources.chunks(RECORDS_PER_BATCH_MAX as usize) {
        let (root, records) = batch(args.item, part);
        let settles = list("--settles", std::mem::take(&mut settles))?;
        let action =
            Action::AnchorRecords(AnchorRecords { item: args.item, root, count: part.len() as u32, settles });
        let body = ctx.body(&genesis, Author::Institution(secrets.institution()), action);
        let id = BatchId(body_id(&genesis.hash(), &body.encode()).0);
        // Salts are stored before the chain sees the commitments: what is anchored can always be opened.
        let kept = store.records.len();
        store.records.extend(records.into_iter().map(|r| StoredRecord { batch: id, ..r }));
        store.save(&args.store)?;
        let done = ctx.send(&genesis, &mut node, &body, &[&secrets.operator()?])?;
        let reply =
            done.reply(ctx.lang).with("batch", id).with("records", part.len()).with("item", args.item);
        text += &format!("{}, {} records\n", reply.text, part.len());
        if reply.exit != 0 {
            store.records.truncate(kept);
            store.save(&args.store)?;
            return Ok(reply);
        }
        batches.push(reply.json);
    }
    let last = batches.last().cloned().unwrap_or_default();
    let reply = Reply::new(last, text).with("records", resources.len());
    Ok(reply.with("batches", batches))
}

/// The records that were chosen, each with its account.
fn chosen(args: &AnchorArgs) -> Result<Vec<(Resource, AccountId)>, Failure> {
    let accounts: BTreeMap<String, AccountId> = files::read_json(&args.accounts)?;
    let mut out = Vec::new();
    for (i, line) in
        files::read_text(&args.records)?.lines().enumerate().filter(|(_, l)| !l.trim().is_empty())
    {
        let resource = Resource::parse(line).map_err(|e| {
            Failure::local("BadResource", format!("{} line {}: {e}", args.records.display(), i + 1))
        })?;
        let wanted = (args.types.is_empty() || args.types.contains(&resource.kind))
            && (args.references.is_empty() || args.references.contains(&resource.reference));
        if wanted {
            let account = *accounts.get(&resource.subject).ok_or_else(|| {
                Failure::local(
                    "NoSuchAccount",
                    format!("line {}: {} has no account in the map", i + 1, resource.subject),
                )
            })?;
            out.push((resource, account));
        }
    }
    Ok(out)
}

/// Salts and commits to the records, and gives the root over them with each record's path.
fn batch(item: ItemId, part: &[(Resource, AccountId)]) -> (Hash, Vec<StoredRecord>) {
    let mut records: Vec<_> = part
        .iter()
        .enumerate()
        .map(|(i, (resource, account))| {
            let salt = Hash(files::random_32());
            StoredRecord {
                reference: resource.reference.clone(),
                account: *account,
                day: resource.day,
                salt,
                commitment: store::commitment(&salt, &resource.content),
                content: resource.content.clone(),
                item,
                batch: BatchId(Hash::ZERO),
                index: i as u32,
                path: Vec::new(),
            }
        })
        .collect();
    let leaves: Vec<_> = records.iter().map(|r| r.record().leaf()).collect();
    for (i, record) in records.iter_mut().enumerate() {
        record.path = merkle::path(&leaves, i);
    }
    (merkle::root(&leaves), records)
}
