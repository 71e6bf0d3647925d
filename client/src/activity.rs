//! Lineage as it is recorded (R24): what an institution made of what, on which permits.

use std::path::PathBuf;

use assent_proto::transaction::*;
use assent_proto::{ArtifactId, BodyId, Hash, PermitId, hash};
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::Failure;
use crate::files;
use crate::institution::{Keys, act, list};
use crate::output::Reply;
use crate::words::{kebab, named};

/// What was made.
#[derive(Args, Debug)]
pub struct ActivityArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: Keys,
    /// clean, mask, aggregate, reuse, compute
    #[arg(long, value_parser = named::<ActivityKind>)]
    pub kind: ActivityKind,
    /// A permit whose records went in; may be repeated
    #[arg(long = "permit")]
    pub permits: Vec<PermitId>,
    /// An earlier product that went in; may be repeated
    #[arg(long = "artifact")]
    pub artifacts: Vec<ArtifactId>,
    /// A new product, `LEVEL` or `LEVEL:NAME`; the chain gets a salted commitment to the name; may be repeated
    #[arg(long = "product", required = true, value_name = "LEVEL[:NAME]")]
    pub products: Vec<String>,
    /// The program or plan, of which the chain gets the hash
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// A denied request whose data stayed out; may be repeated
    #[arg(long = "exclude", value_name = "BODY_ID")]
    pub excluded: Vec<BodyId>,
}

/// Records an activity.
pub(crate) fn activity(ctx: &Context, args: &ActivityArgs) -> Result<Reply, Failure> {
    let (mut outputs, mut artifacts) = (Vec::new(), Vec::new());
    for product in &args.products {
        let (level, name) = product.split_once(':').unwrap_or((product, ""));
        let level: Level = named(level).map_err(|e| Failure::local("Usage", e))?;
        let salt = Hash(files::random_32());
        let id = ArtifactId(hash::commit(&salt.0, "product", name.as_bytes()));
        outputs.push(Product { id, level });
        artifacts.push(json!({ "id": id, "level": kebab(&level), "name": name, "salt": salt }));
    }
    let plan = args.plan.as_deref().map(files::read).transpose()?.unwrap_or_default();
    let action = Action::RecordActivity(Box::new(RecordActivity {
        kind: args.kind,
        permits: list("--permit", args.permits.clone())?,
        artifacts: list("--artifact", args.artifacts.clone())?,
        outputs: list("--product", outputs)?,
        plan: hash::DOCUMENT.hash(&[&plan]),
        excluded: list("--exclude", args.excluded.clone())?,
    }));
    let reply = act(ctx, &args.keys, action)?;
    let activity = reply.json["body_id"].clone();
    let text =
        artifacts.iter().fold(reply.text.clone(), |t, a| format!("{t}\nproduct {} {}", a["id"], a["name"]));
    Ok(Reply { text, ..reply }.with("activity", activity).with("artifacts", artifacts))
}
