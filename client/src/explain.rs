//! Would this be permitted, and if not, which rule says so: asked of a node by a party, signed, with nothing
//! committed. What would be requested is told by the same options as in a request (`access`).

use std::path::PathBuf;

use assent_genesis::Genesis;
use assent_proto::code::Invalid;
use assent_proto::question::{Question, SignedQuestion};
use assent_proto::state::Object;
use assent_proto::transaction::{Author, RequestAccess};
use assent_proto::{Commitment, Denial, Hash, InstitutionId, SecretKey};
use clap::Args;
use serde_json::json;

use crate::access::Wanted;
use crate::context::{Context, institution_id};
use crate::error::{EXIT_DENIED, Failure};
use crate::output::Reply;
use crate::rpc::{Explained, Node};
use crate::wallet::{Wallet, WalletFile};
use crate::words::{self, Lang};

/// Who asks, and about which request.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  assent explain --keyfile operator.age --grant GRANT --offer offer.json \\\n      \
        --purpose claims-payment --case CASE --genesis genesis.toml\n  \
        assent explain --wallet lin.wallet --grant GRANT --offer offer.json --purpose claims-payment --case CASE\n  \
        assent explain --keyfile hospital.age --requester insurer --emergency unconscious --offer offer.json\n\
        Only a party is told: who would request, the item's custodian, and of a grant its grantee, whose it is and\n\
        who signed it; of the other bases the person named, unless an order keeps its notice from her.\n\
        Exit 3 when it would be denied."
)]
pub struct ExplainArgs {
    /// Ask as an institution: its key file
    #[arg(long, value_name = "FILE", required_unless_present = "wallet", conflicts_with = "wallet")]
    pub keyfile: Option<PathBuf>,
    /// Ask as a person: her wallet
    #[arg(long, value_name = "FILE")]
    pub wallet: Option<PathBuf>,
    /// Of the wallet, by the account with this custodian; if not given, by that of the records
    #[arg(long, conflicts_with = "keyfile")]
    pub custodian: Option<String>,
    /// Who would request; if not given, who may by the grant or the order, else the institution that asks
    #[arg(long, value_name = "INSTITUTION")]
    pub requester: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wanted: Wanted,
}

/// Asks.
pub fn run(ctx: &Context, args: &ExplainArgs) -> Result<Reply, Failure> {
    let (genesis, mut node) = ctx.connect()?;
    // Who of the staff would act plays no part in the decision, and is not told.
    let request = args.wanted.request(Commitment(Hash::ZERO))?;
    let (asker, key) = asker(ctx, args, &genesis, &request)?;
    let requester = requester(args, &genesis, &mut node, &asker, &request)?;
    let chain = genesis.hash().tag();
    let question = Question { chain, time: words::now(), asker, requester, request: Box::new(request) };
    let signed = SignedQuestion::sign(&genesis.hash(), &question, &key);
    let explained = node.explain(&signed).map_err(|failure| hinted(failure, ctx.lang))?;
    Ok(reply(ctx, &genesis, &question, &explained))
}

fn asker(
    ctx: &Context,
    args: &ExplainArgs,
    genesis: &Genesis,
    request: &RequestAccess,
) -> Result<(Author, SecretKey), Failure> {
    if let Some(keyfile) = &args.keyfile {
        let secrets = ctx.institution(keyfile)?;
        return Ok((Author::Institution(secrets.institution()), secrets.operator()?));
    }
    let wallet = args.wallet.clone().ok_or_else(|| Failure::local("Usage", "name --keyfile or --wallet"))?;
    let wallet = Wallet::open(ctx, &WalletFile { wallet })?;
    let of_records = request.account.filter(|id| args.custodian.is_none() && wallet.accounts().contains(id));
    let account = match of_records {
        Some(account) => account,
        None => wallet.chosen(genesis, args.custodian.as_deref())?,
    };
    Ok((Author::Account(account), wallet.key(&account)?))
}

/// Who would request: named, or by whom the grant or the order may be used.
fn requester(
    args: &ExplainArgs,
    genesis: &Genesis,
    node: &mut Node,
    asker: &Author,
    request: &RequestAccess,
) -> Result<InstitutionId, Failure> {
    if let Some(name) = &args.requester {
        return institution_id(genesis, name);
    }
    let basis = request.grant.map(Into::into).or(request.order.map(Into::into));
    let named = match basis.map(|object| node.object(object)).transpose()?.and_then(|seen| seen.object) {
        Some(Object::Grant(grant)) => Some(grant.terms.grantee),
        Some(Object::Order(order)) => Some(order.terms.beneficiary),
        _ => None,
    };
    match (named, asker) {
        (Some(id), _) => Ok(id),
        (None, Author::Institution(id)) => Ok(*id),
        (None, Author::Account(_)) => Err(Failure::local("Usage", "name who would request with --requester")),
    }
}

/// A question is answered for a minute: one that is not has often been asked by a wrong clock.
fn hinted(failure: Failure, lang: Lang) -> Failure {
    let clock = [Invalid::Expired.number(), Invalid::TooFarAhead.number()];
    match failure {
        Failure::Refused { number, name, .. } if clock.contains(&number) => {
            let message = lang.pick(
                "the question's time is more than a minute from the node's: is this machine's clock right?",
                "问题的时间与节点相差超过一分钟：请检查本机时钟",
            );
            Failure::Refused { number, name, message: message.into() }
        }
        Failure::Refused { number, name, .. } if number == Invalid::NotAParty.number() => {
            let message = lang.pick(Invalid::NotAParty.english(), Invalid::NotAParty.chinese());
            Failure::Refused { number, name, message: message.into() }
        }
        other => other,
    }
}

fn reply(ctx: &Context, genesis: &Genesis, question: &Question, explained: &Explained) -> Reply {
    let Explained { denial, rule, rows, height, time, permit_until, uses_left } = explained;
    let json = json!({
        "would_be": if denial.is_some() { "denied" } else { "permitted" },
        "code": denial.map_or(0, Denial::number),
        "code_name": denial.map_or("", Denial::name),
        "rule": rule,
        "rows": rows.iter().map(|row| format!("R{row}")).collect::<Vec<_>>(),
        "requester": question.requester,
        "permit_until": permit_until,
        "uses_left": uses_left,
        "height": height,
        "time": time,
        "committed": false,
        "proved": false,
    });
    let requester = words::slug(genesis, &question.requester);
    let text = format!("{}\n{}", verdict(ctx.lang, &requester, explained), whose_word(ctx, explained));
    Reply::new(json, text).exit(if denial.is_some() { EXIT_DENIED } else { 0 })
}

fn verdict(lang: Lang, requester: &str, explained: &Explained) -> String {
    let Some(denial) = explained.denial else {
        let permitted = lang.pick("would be permitted", "将获许可");
        return format!("{requester}: {permitted}{}", permit(lang, explained));
    };
    let rows: Vec<_> = explained.rows.iter().map(|row| format!("R{row}")).collect();
    let rule = match explained.rule {
        Some(rule) if rows.is_empty() => format!("\n  RULES.md {rule}"),
        Some(rule) => format!("\n  RULES.md {rule}: {}", rows.join(", ")),
        None => String::new(),
    };
    format!(
        "{requester}: {}: {} ({}, {}){rule}",
        lang.pick("would be denied", "将被拒绝"),
        lang.pick(denial.english(), denial.chinese()),
        denial.name(),
        denial.number()
    )
}

fn permit(lang: Lang, explained: &Explained) -> String {
    let until = explained.permit_until.map_or_else(String::new, |until| {
        let words = lang.pick("the permit could be released on until", "许可可用于交付至");
        format!("\n  {words} {}", words::show_time(until))
    });
    let left = explained.uses_left.map_or_else(String::new, |left| {
        let words = lang.pick("uses of the grant that would be left", "授权剩余次数");
        format!("\n  {words}: {left}")
    });
    until + &left
}

fn whose_word(ctx: &Context, explained: &Explained) -> String {
    let lang = ctx.lang;
    format!(
        "{}\n{} {} {} {} ({}); {}",
        lang.pick("nothing was committed", "未作任何提交"),
        lang.pick("as the node", "依据节点"),
        ctx.node,
        lang.pick("says of block", "对区块的陈述："),
        explained.height,
        words::show_time(explained.time),
        lang.pick(
            "nothing proves it, and the chain decides by the state of then",
            "无证明，以届时链上状态为准"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::{Height, TimeMs};

    fn explained(denial: Option<Denial>) -> Explained {
        Explained {
            denial,
            rule: denial.map(|_| 14),
            rows: if denial.is_some() { vec![6, 7] } else { Vec::new() },
            height: Height(41),
            time: TimeMs(0),
            permit_until: denial.is_none().then_some(TimeMs(60_000)),
            uses_left: denial.is_none().then_some(0),
        }
    }

    #[test]
    fn a_verdict_names_code_sentence_rule_and_row_in_both_languages() {
        let denied = explained(Some(Denial::GrantExhausted));
        let text = verdict(Lang::En, "insurer", &denied);
        assert_eq!(
            text,
            "insurer: would be denied: The grant's uses are used up. (GrantExhausted, 5)\n  RULES.md 14: R6, R7"
        );
        let text = verdict(Lang::Zh, "insurer", &denied);
        assert!(text.contains("将被拒绝: 授权次数已用完。") && text.contains("R6, R7"), "{text}");
        let text = verdict(Lang::En, "insurer", &explained(None));
        assert!(text.contains("would be permitted") && text.contains("1970-01-01") && text.contains(": 0"));
    }

    #[test]
    fn a_refusal_says_what_to_do_and_never_more_than_its_code() {
        let refused = |reason: Invalid, message: &str| Failure::Refused {
            number: reason.number(),
            name: reason.name().into(),
            message: message.into(),
        };
        let late = hinted(refused(Invalid::Expired, "its time has passed"), Lang::En);
        assert!(late.to_string().contains("clock") && late.exit() == 2, "{late}");
        let stranger = hinted(refused(Invalid::NotAParty, "the grant is of another"), Lang::En);
        assert!(!stranger.to_string().contains("of another"), "a node's words are not passed on: {stranger}");
        assert_eq!((stranger.number(), stranger.name()), (16, "NotAParty"));
    }
}
