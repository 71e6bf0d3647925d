//! Changes of what all validators share: built from command-line options on what is in force, and told in words.
//! Nothing here asks a node or signs.

use std::path::PathBuf;

use assent_genesis::Genesis;
use assent_proto::block::PROTOCOL_NEWEST;
use assent_proto::state::{Institution, Item, Nodes, Parameters, Policy};
use assent_proto::transaction::{Change, ChangeNodes, ChangeProtocol, ChangeValidators, Consequence};
use assent_proto::{Height, PublicKey, Validator, ValidatorSet};
use clap::Args;
use serde_json::{Value, json};

use crate::charter;
use crate::error::Failure;
use crate::institution::list;
use crate::piece::Piece;
use crate::words::{self, Lang, named};

/// Who is to vote.
#[derive(Args, Debug, Default)]
pub struct ValidatorsArgs {
    /// A node that is to vote, by its piece (`assent govern piece`); it is admitted as a node before. May be repeated
    #[arg(long = "add", value_name = "PIECE")]
    pub add: Vec<PathBuf>,
    /// A validator that is to vote no more: its key, its address, or its institution if that has one. May be repeated
    #[arg(long = "remove", value_name = "VALIDATOR")]
    pub remove: Vec<String>,
    /// A validator that is to vote with another key, by that key's piece; power and place stay
    #[arg(long, num_args = 2, action = clap::ArgAction::Append, value_names = ["VALIDATOR", "PIECE"])]
    pub replace_key: Vec<String>,
    /// The voting power of a validator, a new one's too (its key, or its institution); 1 where a new one has none
    #[arg(long = "power", value_name = "VALIDATOR=N")]
    pub power: Vec<String>,
    /// First height at which the new set votes, or so many blocks from the newest one: 5000 or +5000. The last
    /// approval must be in a block at least two below it, or the change is refused then
    #[arg(long, value_name = "HEIGHT")]
    pub from: String,
}

/// Who may connect.
#[derive(Args, Debug, Default)]
pub struct NodesArgs {
    /// A node that may connect, by its piece (`assent govern piece`). May be repeated
    #[arg(long = "admit", value_name = "PIECE")]
    pub admit: Vec<PathBuf>,
    /// The consensus key of a node that may connect no more; one that votes must stop voting before. May be repeated
    #[arg(long = "remove", value_name = "KEY")]
    pub remove: Vec<String>,
}

/// The bounds that all share.
#[derive(Args, Debug, Default)]
pub struct ParametersArgs {
    /// A parameter and its new value, such as heartbeat_ms=5000 or equivocation=remove. May be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", required = true)]
    pub set: Vec<String>,
}

/// By which version of the rules blocks are made.
#[derive(Args, Debug, Default)]
pub struct ProtocolArgs {
    /// The version: the one after that in force
    #[arg(long = "to", value_name = "VERSION")]
    pub to: u32,
    /// First height at which it is in force, or so many blocks from the newest one: 50000 or +50000. The last
    /// approval must be in a block at least two below it, or the change is refused then
    #[arg(long, value_name = "HEIGHT")]
    pub from: String,
}

/// Builds a change of the protocol version.
pub fn protocol(newest: Height, args: &ProtocolArgs) -> Result<Change, Failure> {
    Ok(Change::Protocol(ChangeProtocol { version: args.to, from: height(&args.from, newest)? }))
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::local("Usage", message)
}

/// Builds the set that is to vote, from the one that votes at the height after `newest`.
pub fn validators(
    genesis: &Genesis,
    set: &ValidatorSet,
    newest: Height,
    args: &ValidatorsArgs,
) -> Result<Change, Failure> {
    let mut validators = set.validators.to_vec();
    let mut possessions = Vec::new();
    for pair in args.replace_key.chunks(2) {
        let at = find(genesis, &validators, &pair[0])?;
        let piece = Piece::load(genesis, pair[1].as_ref())?;
        if piece.record().institution != validators[at].institution {
            let message = "the new key is another institution's; use --remove and --add";
            return Err(Failure::local("OtherInstitution", message));
        }
        validators[at] = piece.validator(validators[at].power);
        possessions.push(piece.possession());
    }
    for who in &args.remove {
        let at = find(genesis, &validators, who)?;
        validators.remove(at);
    }
    for path in &args.add {
        let piece = Piece::load(genesis, path)?;
        validators.push(piece.validator(1));
        possessions.push(piece.possession());
    }
    for setting in &args.power {
        let (who, power) = assignment(setting)?;
        let at = find(genesis, &validators, who)?;
        validators[at].power = power.parse().map_err(|_| usage(format!("{setting}: a power is a number")))?;
    }
    // A key that votes already has shown that it is held.
    possessions.retain(|p| !set.validators.iter().any(|v| v.key == p.key));
    if validators[..] == set.validators[..] {
        return Err(usage("nothing changes: name --add, --remove, --replace-key or --power"));
    }
    Ok(Change::Validators(ChangeValidators {
        replaces: set.hash(),
        validators: list("validators", validators)?,
        from: height(&args.from, newest)?,
        possessions: list("new keys", possessions)?,
    }))
}

/// `5000`, or `+5000` from the newest height.
fn height(text: &str, newest: Height) -> Result<Height, Failure> {
    let number = |digits: &str| {
        digits
            .parse::<u64>()
            .map_err(|_| usage(format!("{text}: a height looks like 5000, or +50 from the newest block")))
    };
    match text.strip_prefix('+') {
        Some(more) => Ok(Height(newest.0.saturating_add(number(more)?))),
        None => number(text).map(Height),
    }
}

fn assignment(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=').ok_or_else(|| usage(format!("{text}: NAME=VALUE is expected")))
}

/// A validator by key, address, or institution where that has one.
fn find(genesis: &Genesis, validators: &[Validator], who: &str) -> Result<usize, Failure> {
    let exact = |v: &Validator| v.key.to_string() == who || v.address().to_string() == who;
    if let Some(at) = validators.iter().position(exact) {
        return Ok(at);
    }
    let of = |v: &Validator| words::slug(genesis, &v.institution) == who;
    let found: Vec<_> = validators.iter().enumerate().filter(|(_, v)| of(v)).map(|(i, _)| i).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::local(
            "NoSuchValidator",
            format!("{who}: no validator has this key or address, and no institution of this name runs one"),
        )),
        _ => Err(Failure::local(
            "NoSuchValidator",
            format!("{who}: runs {} validators; name the key of the one that is meant", found.len()),
        )),
    }
}

/// Builds a change of the nodes.
pub fn nodes(genesis: &Genesis, args: &NodesArgs) -> Result<Change, Failure> {
    let load = |path: &PathBuf| Piece::load(genesis, path).map(|p| p.admission());
    let admit = args.admit.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let key = |text: &String| {
        PublicKey::from_hex(text).ok_or_else(|| usage(format!("{text}: 64 hexadecimal digits are expected")))
    };
    let remove = args.remove.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    if admit.is_empty() && remove.is_empty() {
        return Err(usage("nothing changes: name --admit or --remove"));
    }
    Ok(Change::Nodes(ChangeNodes { admit: list("--admit", admit)?, remove: list("--remove", remove)? }))
}

/// Builds the bounds from those in force.
pub fn parameters(now: &Parameters, args: &ParametersArgs) -> Result<Change, Failure> {
    let mut new = now.clone();
    for setting in &args.set {
        let (name, value) = assignment(setting)?;
        set_parameter(&mut new, name, value)?;
    }
    assent_genesis::check_parameters(&new).map_err(|e| Failure::local("BadParameters", e.to_string()))?;
    if new == *now {
        return Err(usage("nothing changes: these values are in force already"));
    }
    Ok(Change::Parameters(new))
}

fn set_parameter(p: &mut Parameters, name: &str, value: &str) -> Result<(), Failure> {
    fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
        value.parse().map_err(|_| usage(format!("{name}={value}: a whole number in its range is expected")))
    }
    match name {
        "transaction_life_ms" => p.transaction_life_ms = number(name, value)?,
        "permit_life_ms" => p.permit_life_ms = number(name, value)?,
        "erasure_deadline_ms" => p.erasure_deadline_ms = number(name, value)?,
        "block_bytes_max" => p.block_bytes_max = number(name, value)?,
        "block_transactions_max" => p.block_transactions_max = number(name, value)?,
        "clock_bound_ms" => p.clock_bound_ms = number(name, value)?,
        "heartbeat_ms" => p.heartbeat_ms = number(name, value)?,
        "recovery_approvals" => p.recovery_approvals = number(name, value)?,
        "recovery_delay_ms" => p.recovery_delay_ms = number(name, value)?,
        "emergency_permit_life_ms" => p.emergency_permit_life_ms = number(name, value)?,
        "emergency_anchor_ms" => p.emergency_anchor_ms = number(name, value)?,
        "emergency_review_ms" => p.emergency_review_ms = number(name, value)?,
        "emergency_notice_ms" => p.emergency_notice_ms = number(name, value)?,
        "equivocation" => {
            p.equivocation =
                named::<Consequence>(value).map_err(|e| usage(format!("{name}={value}: {e}")))?;
        }
        _ => {
            let known: Vec<_> = parameter_values(p).into_iter().map(|(n, _)| n).collect();
            return Err(usage(format!("{name}: there is no such parameter; there are {}", known.join(", "))));
        }
    }
    Ok(())
}

/// Every parameter by name.
pub fn parameter_values(p: &Parameters) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(p) else { return Vec::new() };
    let text = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    fields.into_iter().map(|(name, v)| (name, text(v))).collect()
}

/// What is in force where a change is judged, as far as its words need it.
pub struct InForce {
    /// Who votes.
    pub set: ValidatorSet,
    /// Who may connect.
    pub nodes: Nodes,
    /// The bounds.
    pub parameters: Parameters,
    /// What data may be used for.
    pub policy: Policy,
    /// By which version of the rules blocks are made.
    pub protocol: u32,
    /// The institution that the change is about, where it is about one that is there.
    pub institution: Option<Institution>,
    /// The item that it is about.
    pub item: Option<Item>,
}

/// A change in words: where `now` is given, one line for each thing that is other than what is in force; else all
/// that it says.
pub fn in_words(genesis: &Genesis, change: &Change, now: Option<&InForce>, lang: Lang) -> Vec<String> {
    match change {
        Change::Validators(c) => validators_in_words(genesis, c, now, lang),
        Change::Nodes(c) => nodes_in_words(genesis, c, now, lang),
        Change::Parameters(p) => parameters_in_words(p, now),
        Change::Institution(c) => {
            let before = now.and_then(|n| n.institution.as_ref());
            charter::institution_in_words(genesis, c, before, lang)
        }
        Change::Policy(p) => charter::policy_in_words(p, now.map(|n| &n.policy), lang),
        Change::Grading(c) => charter::grading_in_words(genesis, c, now.and_then(|n| n.item.as_ref()), lang),
        Change::Protocol(c) => protocol_in_words(c, now, lang),
    }
}

fn protocol_in_words(change: &ChangeProtocol, now: Option<&InForce>, lang: Lang) -> Vec<String> {
    let ChangeProtocol { version, from } = change;
    let before = now.map(|now| format!("{} → ", now.protocol)).unwrap_or_default();
    let mut lines = vec![format!(
        "{} {before}{version}, {} {from}",
        lang.pick("protocol version", "协议版本"),
        lang.pick("from block", "自区块"),
    )];
    if *version > PROTOCOL_NEWEST {
        lines.push(format!(
            "{} {PROTOCOL_NEWEST}; {}",
            lang.pick("this program knows versions up to", "本程序所知的最高版本为"),
            lang.pick(
                "approve only once every validator's node runs one that knows it: others stop at that block",
                "请待所有验证节点升级后再批准：未升级的节点将在该区块停止"
            ),
        ));
    }
    lines
}

fn parameters_in_words(new: &Parameters, now: Option<&InForce>) -> Vec<String> {
    let after = parameter_values(new).into_iter();
    match now {
        None => after.map(|(name, value)| format!("{name}: {value}")).collect(),
        Some(now) => after
            .zip(parameter_values(&now.parameters))
            .filter(|(a, b)| a != b)
            .map(|((name, a), (_, b))| format!("{name}: {b} → {a}"))
            .collect(),
    }
}

fn validators_in_words(
    genesis: &Genesis,
    change: &ChangeValidators,
    now: Option<&InForce>,
    lang: Lang,
) -> Vec<String> {
    let power = lang.pick("power", "权重");
    let name =
        |v: &Validator| format!("{} {} ({power} {})", words::slug(genesis, &v.institution), v.key, v.power);
    let mut lines = match now.filter(|now| now.set.hash() == change.replaces) {
        Some(now) => difference(&now.set.validators, &change.validators, name),
        None => change.validators.iter().map(|v| format!("= {}", name(v))).collect(),
    };
    let next = ValidatorSet { validators: change.validators.clone() };
    lines.push(format!(
        "{} {}: {} {}, {} {}",
        lang.pick("from block", "自区块"),
        change.from,
        next.validators.len(),
        lang.pick("validators", "个验证者"),
        lang.pick("total power", "总权重"),
        next.total_power(),
    ));
    if now.is_some_and(|now| now.set.hash() != change.replaces) {
        lines.push(lang.pick("made for another set than the one in force", "针对的不是现行集合").to_owned());
    }
    lines
}

fn difference(before: &[Validator], after: &[Validator], name: impl Fn(&Validator) -> String) -> Vec<String> {
    let among = |list: &[Validator], v: &Validator| list.iter().find(|o| o.key == v.key).cloned();
    let mut lines = Vec::new();
    for v in before {
        match among(after, v) {
            None => lines.push(format!("- {}", name(v))),
            Some(new) if new.power != v.power => lines.push(format!("~ {} → {}", name(v), new.power)),
            Some(_) => {}
        }
    }
    lines.extend(after.iter().filter(|v| among(before, v).is_none()).map(|v| format!("+ {}", name(v))));
    lines
}

fn nodes_in_words(genesis: &Genesis, change: &ChangeNodes, now: Option<&InForce>, lang: Lang) -> Vec<String> {
    let leaving = change.remove.iter().map(|key| match now.map(|now| now.nodes.by_key(key)) {
        Some(Some(n)) => format!("- {} {key}", words::slug(genesis, &n.institution)),
        Some(None) => format!("- {key} ({})", lang.pick("no such node", "无此节点")),
        None => format!("- {key}"),
    });
    let joining = change.admit.iter().map(|a| {
        format!(
            "+ {} {} ({} {})",
            words::slug(genesis, &a.record.institution),
            a.record.key,
            lang.pick("network key", "网络密钥"),
            a.record.network_key
        )
    });
    leaving.chain(joining).collect()
}

/// A validator for programs.
pub fn validator_json(genesis: &Genesis, v: &Validator) -> Value {
    json!({
        "institution": words::slug(genesis, &v.institution), "key": v.key, "address": v.address(), "power": v.power,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::SecretKey;

    struct Bench {
        genesis: Genesis,
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let (genesis, ..) = assent_genesis::testing::four();
            Bench { genesis, dir: tempfile::tempdir().unwrap() }
        }

        fn piece(&self, slug: &str, n: u8) -> PathBuf {
            let (consensus, network) = (SecretKey::from_bytes(&[n; 32]), SecretKey::from_bytes(&[n + 1; 32]));
            let piece =
                Piece::sign(&self.genesis, assent_genesis::institution_id(slug), &consensus, &network);
            let path = self.dir.path().join(format!("{slug}-{n}.toml"));
            std::fs::write(&path, piece.to_toml(&self.genesis)).unwrap();
            path
        }

        fn build(&self, args: ValidatorsArgs) -> Result<ChangeValidators, Failure> {
            let args = ValidatorsArgs { from: "+10".into(), ..args };
            match validators(&self.genesis, self.genesis.validators(), Height(7), &args)? {
                Change::Validators(c) => Ok(c),
                other => panic!("{other:?}"),
            }
        }

        fn in_force(&self) -> InForce {
            InForce {
                set: self.genesis.validators().clone(),
                nodes: Nodes { nodes: assent_proto::List::empty() },
                parameters: self.genesis.parameters().clone(),
                policy: self.genesis.policy().clone(),
                protocol: 1,
                institution: None,
                item: None,
            }
        }
    }

    #[test]
    fn a_set_is_changed_by_what_is_named_and_by_nothing_else() {
        let b = Bench::new();
        let before = &b.genesis.validators().validators;
        let add =
            b.build(ValidatorsArgs { add: vec![b.piece("insurer", 50)], ..Default::default() }).unwrap();
        assert_eq!((add.from, add.validators.len(), add.possessions.len()), (Height(17), 5, 1));
        assert_eq!(add.validators[..4], before[..]);
        assert_eq!(add.replaces, b.genesis.validators().hash());

        let key = before[1].key.to_string();
        let less =
            b.build(ValidatorsArgs { remove: vec![key, "bureau".into()], ..Default::default() }).unwrap();
        assert_eq!(less.validators[..], before[2..]);
        assert!(less.possessions.is_empty());

        let piece = b.piece("hospital-b", 60).display().to_string();
        let replace_key = vec![before[2].address().to_string(), piece];
        let again = ValidatorsArgs { replace_key, power: vec!["hospital-b=7".into()], ..Default::default() };
        let again = b.build(again).unwrap();
        assert_ne!(again.validators[2].key, before[2].key);
        assert_eq!((again.validators[2].power, again.validators.len()), (7, 4));
        assert_eq!(again.possessions[0].key, again.validators[2].key);
        let told = in_words(&b.genesis, &Change::Validators(again), Some(&b.in_force()), Lang::En);
        assert!(told[0].starts_with("- hospital-b") && told[1].starts_with("+ hospital-b"), "{told:?}");
        assert_eq!(told[2], "from block 17: 4 validators, total power 10");
    }

    #[test]
    fn wrong_use_is_told_by_name() {
        let b = Bench::new();
        let named = |args: ValidatorsArgs, name: &str| {
            let failure = b.build(args).unwrap_err();
            assert_eq!((failure.name(), failure.exit()), (name, 1), "{failure}");
        };
        named(ValidatorsArgs::default(), "Usage");
        named(ValidatorsArgs { remove: vec!["nobody".into()], ..Default::default() }, "NoSuchValidator");
        named(ValidatorsArgs { power: vec!["bureau".into()], ..Default::default() }, "Usage");
        named(ValidatorsArgs { power: vec!["bureau=many".into()], ..Default::default() }, "Usage");
        let add = vec![b.piece("bureau", 70), b.piece("bureau", 80)];
        named(
            ValidatorsArgs { add, power: vec!["bureau=2".into()], ..Default::default() },
            "NoSuchValidator",
        );
        let other = b.piece("insurer", 90).display().to_string();
        let replace_key = vec!["bureau".into(), other];
        named(ValidatorsArgs { replace_key, ..Default::default() }, "OtherInstitution");
        for (from, good) in [("12", true), ("+3", true), ("-1", false), ("soon", false), ("", false)] {
            assert_eq!(height(from, Height(7)).is_ok(), good, "{from}");
        }
        assert_eq!(nodes(&b.genesis, &NodesArgs::default()).unwrap_err().name(), "Usage");
    }

    #[test]
    fn every_parameter_can_be_set_by_its_name_within_its_bounds() {
        let now = assent_genesis::default_parameters();
        for (name, value) in parameter_values(&now) {
            let value = match value.parse::<u64>() {
                Ok(n) => (n + 1).to_string(),
                Err(_) => "remove".into(),
            };
            let set = ParametersArgs { set: vec![format!("{name}={value}")] };
            let Change::Parameters(new) = parameters(&now, &set).unwrap() else { panic!("{name}") };
            let changed: Vec<_> =
                parameter_values(&new).into_iter().filter(|p| !parameter_values(&now).contains(p)).collect();
            assert_eq!(changed, [(name, value)]);
        }
        for (set, name) in [
            ("heartbeat_ms=1", "BadParameters"),
            ("heartbeat_ms=never", "Usage"),
            ("equivocation=forgive", "Usage"),
            ("colour=red", "Usage"),
            ("heartbeat_ms", "Usage"),
        ] {
            let set = ParametersArgs { set: vec![set.into()] };
            assert_eq!(parameters(&now, &set).unwrap_err().name(), name);
        }
        let same = ParametersArgs { set: vec![format!("heartbeat_ms={}", now.heartbeat_ms)] };
        assert_eq!(parameters(&now, &same).unwrap_err().name(), "Usage");
    }
}
