//! Validators that were shown to have contradicted themselves, as the auditor reads it: each report's statements
//! verified again by the key that voted, and what followed.

use assent_genesis::Genesis;
use assent_proto::event::EventKind;
use assent_proto::state::{Misconduct, Object, ObjectRef};
use assent_proto::transaction::{Action, ReportEquivocation, Statement};
use assent_proto::{Height, PublicKey};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Failure;
use crate::output::Reply;
use crate::rpc::{Final, Node};
use crate::words::{self, Lang};

/// All reports on the chain: the validators' trail has each, and its proof shows that none is missing.
pub(crate) fn list(ctx: &Context) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    let trail = node.trail(ObjectRef::VALIDATORS)?;
    let trail = trail.ok_or_else(|| Failure::Proof("the state holds no validators".into()))?;
    let reported = trail.events.iter().filter(|e| e.core.kind == EventKind::EquivocationReported);
    let mut reports = Vec::new();
    for event in reported {
        let tx = node.transaction(event.core.body, true)?;
        let tx = tx.ok_or_else(|| Failure::Proof(format!("the report {} is not final", event.core.body)))?;
        reports.push(report(&mut node, &tx)?);
    }
    let consequence = node.parameters()?.value.equivocation;
    let mut text = String::new();
    reports.iter().for_each(|r| text += &r.text(&genesis, ctx.lang));
    text += &format!(
        "{}: {}; {} {}; {}: {}",
        ctx.lang.pick("contradictions of validators", "验证者自相矛盾"),
        reports.len(),
        ctx.lang.pick("complete to block", "完整至区块"),
        trail.height,
        ctx.lang.pick("what follows one now", "现行后果"),
        words::consequence(consequence, ctx.lang),
    );
    let json = json!({
        "reports": reports.iter().map(|r| r.json(&genesis)).collect::<Vec<_>>(),
        "complete_to_height": trail.height, "as_of": trail.time, "consequence_in_force": consequence,
    });
    Ok(Reply::new(json, text))
}

/// A report that is on the chain. It exists only with both statements' signatures verified.
struct Report {
    said: ReportEquivocation,
    misconduct: Misconduct,
    signed_by: PublicKey,
    body: assent_proto::BodyId,
}

/// The transaction was made by `envelope::verify`, from its bytes, here: it would not be there if a signature of
/// one of the two statements did not hold.
fn report(node: &mut Node, tx: &Final) -> Result<Report, Failure> {
    let Action::ReportEquivocation(said) = &tx.body().action else {
        return Err(Failure::Proof(format!("{} is no report of a contradiction", tx.tx.body_id())));
    };
    let Some(Object::Misconduct(misconduct)) = node.object(said.id().into())?.object else {
        return Err(Failure::Proof(format!("the report {} left nothing on the chain", tx.tx.body_id())));
    };
    Ok(Report { said: (**said).clone(), misconduct, signed_by: tx.tx.signers()[0], body: tx.tx.body_id() })
}

impl Report {
    fn json(&self, genesis: &Genesis) -> Value {
        let (said, m) = (&self.said, &self.misconduct);
        let statement = |s: &Statement| json!({ "block": s.block, "valid_round": s.valid_round, "signature": s.signature, "verified": true });
        json!({
            "id": said.id(), "validator": said.validator,
            "address": assent_proto::validators::address(&said.validator),
            "institution": words::slug(genesis, &m.institution), "height": said.height, "round": said.round,
            "what": said.what, "first": statement(&said.first), "second": statement(&said.second),
            "reporter": words::slug(genesis, &m.reporter), "signed_by": self.signed_by, "reported": m.reported,
            "body_id": self.body, "consequence": if m.removed_from.is_some() { "remove" } else { "record" },
            "removed_from": m.removed_from,
        })
    }

    fn text(&self, genesis: &Genesis, lang: Lang) -> String {
        let (said, m) = (&self.said, &self.misconduct);
        let (who, by) =
            (words::institution(genesis, &m.institution, lang), words::slug(genesis, &m.reporter));
        let says = |s: &Statement| {
            s.block.map_or_else(|| lang.pick("nil", "空").to_owned(), |b| b.to_string()[..16].to_owned())
        };
        let what = words::statement(said.what, lang);
        let followed = followed(m.removed_from, lang);
        match lang {
            Lang::En => format!(
                "{who}, validator {}: two {what} at height {}, round {}: for {} and for {}; both signatures verified\n  \
                 reported by {by} in block {}: {followed}\n",
                said.validator,
                said.height,
                said.round,
                says(&said.first),
                says(&said.second),
                m.reported,
            ),
            Lang::Zh => format!(
                "{who}，验证者 {}：在高度 {} 第 {} 轮有两个{what}：{} 与 {}；两个签名均已核验\n  \
                 由 {by} 在区块 {} 举证：{followed}\n",
                said.validator,
                said.height,
                said.round,
                says(&said.first),
                says(&said.second),
                m.reported,
            ),
        }
    }
}

fn followed(removed_from: Option<Height>, lang: Lang) -> String {
    match (removed_from, lang) {
        (Some(height), Lang::En) => format!("its key votes no more from block {height} on"),
        (Some(height), Lang::Zh) => format!("其密钥自区块 {height} 起不再投票"),
        (None, _) => lang.pick("it is on record", "记录在链").to_owned(),
    }
}
