//! Changes of who institutions are, and of what data may be used for: built from command-line options on what is in
//! force, and told in words. Nothing here asks a node or signs.

use std::path::PathBuf;

use assent_genesis::{Genesis, Rules};
use assent_proto::state::{Institution, Item, OperatorKey, Policy, Prohibition, PurposeRule, Role};
use assent_proto::transaction::*;
use assent_proto::{InstitutionId, ItemId, TimeMs};
use clap::Args;

use crate::context::institution_id;
use crate::error::Failure;
use crate::institution::{Class, list};
use crate::join::JoinPiece;
use crate::words::{self, Lang, kebab, named};

/// An institution as it is to be.
#[derive(Args, Debug, Default)]
pub struct InstitutionArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub which: Which,
    /// With --change: its roles, all of them. May be repeated
    #[arg(long = "role", value_parser = named::<Role>)]
    pub roles: Vec<Role>,
    /// With --change: the highest level that it may receive
    #[arg(long, value_parser = named::<Level>)]
    pub max_level: Option<Level>,
    /// With --change: until when it may act in emergencies
    #[arg(long, value_name = "TIME", value_parser = words::time)]
    pub rostered_until: Option<TimeMs>,
}

/// Which institution, and what with it.
#[derive(Args, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// A new one, by its piece (`assent institution join-piece`)
    #[arg(long, value_name = "PIECE")]
    pub admit: Option<PathBuf>,
    /// One that is there, by a new piece: all that is known of it is replaced
    #[arg(long, value_name = "PIECE")]
    pub renew: Option<PathBuf>,
    /// One that may only fulfil its duties until it is reinstated
    #[arg(long, value_name = "INSTITUTION")]
    pub suspend: Option<String>,
    /// One that may act again
    #[arg(long, value_name = "INSTITUTION")]
    pub reinstate: Option<String>,
    /// One that may only fulfil its duties, for good
    #[arg(long, value_name = "INSTITUTION")]
    pub expel: Option<String>,
    /// One that is there: roles, level, roster
    #[arg(long, value_name = "INSTITUTION")]
    pub change: Option<String>,
}

/// What data may be used for.
#[derive(Args, Debug)]
pub struct PolicyArgs {
    /// A file as `assent genesis rules` prints it: its policy counts, its parameters do not; the version is the next
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,
}

/// An item as it is to be graded.
#[derive(Args, Debug)]
pub struct GradingArgs {
    /// The item
    #[arg(long)]
    pub item: ItemId,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub class: Class,
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::local("Usage", message)
}

/// Builds a change of an institution; `known` tells how one stands on the chain.
pub fn institution(
    genesis: &Genesis,
    args: &InstitutionArgs,
    mut known: impl FnMut(InstitutionId) -> Result<Option<Institution>, Failure>,
) -> Result<Change, Failure> {
    let w = &args.which;
    let amended = !args.roles.is_empty() || args.max_level.is_some() || args.rostered_until.is_some();
    if amended != w.change.is_some() {
        return Err(usage(
            "--change goes with --role, --max-level or --rostered-until, and nothing else does",
        ));
    }
    let standing = |name: &String, standing| -> Result<Change, Failure> {
        Ok(of(institution_id(genesis, name)?, standing, None, Vec::new()))
    };
    match (&w.admit, &w.renew, &w.suspend, &w.reinstate, &w.expel, &w.change) {
        (Some(path), ..) => {
            let piece = JoinPiece::load(genesis, path)?;
            if known(piece.institution())?.is_some() {
                let message = format!("{}: the chain knows it already; use --renew", piece.slug());
                return Err(Failure::local("InstitutionExists", message));
            }
            Ok(by_piece(&piece, Standing::Active, piece.possessions()))
        }
        (_, Some(path), ..) => {
            let piece = JoinPiece::load(genesis, path)?;
            let now = there(known(piece.institution())?, piece.slug())?;
            let new = |p: &&Possession| !now.keys.iter().any(|k| k.key == p.key);
            let possessions: Vec<_> = piece.possessions().iter().filter(new).cloned().collect();
            Ok(by_piece(&piece, now.standing, &possessions))
        }
        (_, _, Some(name), ..) => standing(name, Standing::Suspended),
        (_, _, _, Some(name), ..) => standing(name, Standing::Active),
        (_, _, _, _, Some(name), _) => standing(name, Standing::Expelled),
        (.., Some(name)) => {
            let id = institution_id(genesis, name)?;
            let now = there(known(id)?, name)?;
            let record = changed(&now, args)?;
            Ok(of(id, now.standing, Some(record), Vec::new()))
        }
        _ => Err(usage("name --admit, --renew, --suspend, --reinstate, --expel or --change")),
    }
}

fn there(found: Option<Institution>, name: &str) -> Result<Institution, Failure> {
    found.ok_or_else(|| Failure::local("NoSuchInstitution", format!("{name}: the chain does not know it")))
}

fn by_piece(piece: &JoinPiece, standing: Standing, possessions: &[Possession]) -> Change {
    of(piece.institution(), standing, Some(piece.record().clone()), possessions.to_vec())
}

fn of(
    institution: InstitutionId,
    standing: Standing,
    record: Option<InstitutionRecord>,
    possessions: Vec<Possession>,
) -> Change {
    let possessions = possessions.try_into().expect("as many as a piece has keys");
    Change::Institution(Box::new(ChangeInstitution { institution, standing, record, possessions }))
}

fn changed(now: &Institution, args: &InstitutionArgs) -> Result<InstitutionRecord, Failure> {
    Ok(InstitutionRecord {
        roles: if args.roles.is_empty() { now.roles.clone() } else { list("--role", args.roles.clone())? },
        keys: now.keys.clone(),
        encryption_key: now.encryption_key,
        max_level: args.max_level.unwrap_or(now.max_level),
        jurisdiction: now.jurisdiction,
        rostered_until: args.rostered_until.or(now.rostered_until),
    })
}

/// Builds the policy that follows the one in force.
pub fn policy(now: &Policy, args: &PolicyArgs) -> Result<Change, Failure> {
    let path = &args.rules;
    let rules =
        Rules::load(path).map_err(|e| Failure::local("BadPolicy", format!("{}: {e}", path.display())))?;
    if (Policy { version: now.version, ..rules.policy.clone() }) == *now {
        return Err(usage("nothing changes: this policy is in force already"));
    }
    let version =
        now.version.checked_add(1).ok_or_else(|| Failure::local("BadPolicy", "there is no next version"))?;
    Ok(Change::Policy(Policy { version, ..rules.policy }))
}

/// Builds an item's grading down.
pub fn grading(genesis: &Genesis, now: &Item, args: &GradingArgs) -> Result<Change, Failure> {
    let Class { level, opening, recipients } = &args.class;
    if *level >= now.level {
        let message = "that is no grading down; the source itself grades up: assent institution classify";
        return Err(Failure::local("NotGradedDown", message));
    }
    let ids = recipients.iter().map(|r| institution_id(genesis, r)).collect::<Result<Vec<_>, _>>()?;
    let recipients = list("--recipient", ids)?;
    Ok(Change::Grading(Classify { item: args.item, level: *level, opening: *opening, recipients }))
}

// ---- in words

/// An institution's change in words, against how it stands.
pub fn institution_in_words(
    genesis: &Genesis,
    change: &ChangeInstitution,
    now: Option<&Institution>,
    lang: Lang,
) -> Vec<String> {
    let name = words::slug(genesis, &change.institution);
    let becomes = words::standing(change.standing, lang);
    let mut lines = vec![match now {
        None => format!("{name}: {becomes}"),
        Some(now) if now.standing == change.standing => name,
        Some(now) => format!("{name}: {} → {becomes}", words::standing(now.standing, lang)),
    }];
    if let Some(record) = &change.record {
        lines.extend(record_in_words(record, now, lang));
    }
    lines
}

fn record_in_words(new: &InstitutionRecord, now: Option<&Institution>, lang: Lang) -> Vec<String> {
    let roles = |roles: &[Role]| roles.iter().map(kebab).collect::<Vec<_>>().join(" ");
    let until = |t: Option<TimeMs>| t.map_or_else(|| lang.pick("never", "无").to_owned(), words::show_time);
    let mut lines = Vec::new();
    let mut line = |name: &str, before: Option<String>, after: String| match before {
        Some(before) if before == after => {}
        Some(before) => lines.push(format!("  {name}: {before} → {after}")),
        None => lines.push(format!("  {name}: {after}")),
    };
    line(lang.pick("roles", "角色"), now.map(|n| roles(&n.roles)), roles(&new.roles));
    let level = |l| words::level(l, lang).to_owned();
    line(lang.pick("highest level", "最高级别"), now.map(|n| level(n.max_level)), level(new.max_level));
    let country = |c: u32| c.to_string();
    line(lang.pick("jurisdiction", "法域"), now.map(|n| country(n.jurisdiction)), country(new.jurisdiction));
    let key = |k: assent_proto::Hash| k.to_string();
    line(
        lang.pick("encryption key", "加密公钥"),
        now.map(|n| key(n.encryption_key)),
        key(new.encryption_key),
    );
    line(
        lang.pick("emergencies until", "急救名册至"),
        now.map(|n| until(n.rostered_until)),
        until(new.rostered_until),
    );
    lines.extend(keys_in_words(&new.keys, now.map_or(&[], |n| &n.keys), lang));
    lines
}

fn keys_in_words(new: &[OperatorKey], old: &[OperatorKey], lang: Lang) -> Vec<String> {
    let told = |sign: &str, k: &OperatorKey| {
        format!(
            "  {sign} {} {}, {} {} {}",
            lang.pick("operator key", "操作密钥"),
            k.key,
            words::show_time(k.not_before),
            lang.pick("to", "至"),
            words::show_time(k.not_after)
        )
    };
    let gone = old.iter().filter(|k| !new.contains(k)).map(|k| told("-", k));
    gone.chain(new.iter().filter(|k| !old.contains(k)).map(|k| told("+", k))).collect()
}

/// A policy in words: against the one in force what is other, else all of it.
pub fn policy_in_words(new: &Policy, now: Option<&Policy>, lang: Lang) -> Vec<String> {
    let version = lang.pick("policy version", "政策版本");
    let mut lines = vec![match now {
        Some(now) => format!("{version}: {} → {}", now.version, new.version),
        None => format!("{version}: {}", new.version),
    }];
    let rules = now.map_or(&[][..], |n| &n.rules);
    let rule = |r: &PurposeRule| rule_in_words(r, lang);
    lines.extend(only(rules, &new.rules).map(|r| format!("- {}", rule(r))));
    lines.extend(only(&new.rules, rules).map(|r| format!("+ {}", rule(r))));
    let prohibited = now.map_or(&[][..], |n| &n.prohibited);
    let never = lang.pick("never", "禁止");
    let entry = |p: &Prohibition| format!("{never}: {}", prohibition_in_words(p, lang));
    lines.extend(only(prohibited, &new.prohibited).map(|p| format!("- {}", entry(p))));
    lines.extend(only(&new.prohibited, prohibited).map(|p| format!("+ {}", entry(p))));
    if now.is_none_or(|n| n.committee != new.committee) {
        let roles: Vec<_> = new.committee.roles.iter().map(kebab).collect();
        lines.push(format!(
            "{}: {} {} {}",
            lang.pick("the next change is decided by", "下次变更的决定方"),
            new.committee.approvals,
            lang.pick("institutions, among them one of each:", "个机构，须包含各角色："),
            roles.join(" ")
        ));
    }
    lines
}

fn only<'a, T: PartialEq>(these: &'a [T], those: &'a [T]) -> impl Iterator<Item = &'a T> {
    these.iter().filter(|t| !those.contains(t))
}

fn rule_in_words(r: &PurposeRule, lang: Lang) -> String {
    let mut text = format!(
        "{}: {} {}",
        words::purpose(r.purpose, lang),
        lang.pick("up to level", "最高级别"),
        words::level(r.max_level, lang)
    );
    if r.needs_case {
        text += lang.pick(", for one case", "，须指明事项");
    }
    if r.needs_settlement {
        text += lang.pick(", once it is settled", "，须已结算");
    }
    text
}

fn prohibition_in_words(p: &Prohibition, lang: Lang) -> String {
    let parts = [
        p.purpose.map(|p| words::purpose(p, lang).to_owned()),
        p.item.map(|i| i.to_string()),
        p.category.map(|c| words::category(c, lang).to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(lang.pick(" of ", "："))
}

/// A grading in words.
pub fn grading_in_words(genesis: &Genesis, c: &Classify, now: Option<&Item>, lang: Lang) -> Vec<String> {
    let level = words::level(c.level, lang);
    let opening = kebab(&c.opening);
    let mut lines = vec![match now {
        Some(i) => format!(
            "{} {}/{} ({}, {}): {} → {level}, {} → {opening}",
            lang.pick("item", "目录项"),
            i.code,
            i.scope,
            words::category(i.category, lang),
            words::institution(genesis, &i.custodian, lang),
            words::level(i.level, lang),
            kebab(&i.opening),
        ),
        None => format!("{} {}: {level}, {opening}", lang.pick("item", "目录项"), c.item),
    }];
    let to = lang.pick("open to", "开放给");
    lines.extend(c.recipients.iter().map(|r| format!("  {to} {}", words::slug(genesis, r))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::{Height, SecretKey};

    fn known(genesis: &Genesis, id: InstitutionId) -> Option<Institution> {
        genesis.institutions().iter().find(|i| i.id == id).map(|i| i.institution.clone())
    }

    fn build(genesis: &Genesis, args: InstitutionArgs) -> Result<ChangeInstitution, Failure> {
        match institution(genesis, &args, |id| Ok(known(genesis, id)))? {
            Change::Institution(c) => Ok(*c),
            other => panic!("{other:?}"),
        }
    }

    fn piece(genesis: &Genesis, dir: &std::path::Path, slug: &str) -> PathBuf {
        let terms = crate::join::Terms {
            roles: vec![Role::Regulator],
            max_level: Level::Low,
            jurisdiction: 156,
            rostered_until: None,
        };
        let (key, window) = (SecretKey::from_bytes(&[61; 32]), (TimeMs(1), TimeMs(2)));
        let encryption = assent_proto::keys::encryption_public(&[62; 32]);
        let piece = JoinPiece::sign(genesis, slug, &terms, &key, window, encryption).unwrap();
        let path = dir.join(slug);
        std::fs::write(&path, piece.to_toml(genesis)).unwrap();
        path
    }

    #[test]
    fn r18_institutions_are_admitted_renewed_suspended_reinstated_expelled_and_changed() {
        let (genesis, ..) = assent_genesis::testing::four();
        let dir = tempfile::tempdir().unwrap();
        let which = |w: Which| InstitutionArgs { which: w, ..Default::default() };
        let path = piece(&genesis, dir.path(), "regulator-z");
        let admitted =
            build(&genesis, which(Which { admit: Some(path.clone()), ..Default::default() })).unwrap();
        assert_eq!((admitted.standing, admitted.possessions.len()), (Standing::Active, 1));
        let told = institution_in_words(&genesis, &admitted, None, Lang::En);
        assert!(told.iter().any(|l| l == "  roles: regulator"), "{told:?}");
        assert!(told.iter().any(|l| l.starts_with("  + operator key")), "{told:?}");

        let there = piece(&genesis, dir.path(), "insurer");
        let again = build(&genesis, which(Which { admit: Some(there.clone()), ..Default::default() }));
        assert_eq!(again.unwrap_err().name(), "InstitutionExists");
        let renewed = build(&genesis, which(Which { renew: Some(there), ..Default::default() })).unwrap();
        let before = known(&genesis, renewed.institution).unwrap();
        let told = institution_in_words(&genesis, &renewed, Some(&before), Lang::En);
        assert!(told.iter().any(|l| l.starts_with("  roles: insurer → regulator")), "{told:?}");
        assert!(told.iter().any(|l| l.starts_with("  - operator key")), "{told:?}");
        let unknown = build(&genesis, which(Which { renew: Some(path), ..Default::default() }));
        assert_eq!(unknown.unwrap_err().name(), "NoSuchInstitution");

        let name = || Some("insurer".to_owned());
        for (w, standing) in [
            (Which { suspend: name(), ..Default::default() }, Standing::Suspended),
            (Which { reinstate: name(), ..Default::default() }, Standing::Active),
            (Which { expel: name(), ..Default::default() }, Standing::Expelled),
        ] {
            let change = build(&genesis, which(w)).unwrap();
            assert_eq!((change.standing, change.record), (standing, None));
        }
        let nothing = build(&genesis, which(Which { change: name(), ..Default::default() }));
        assert_eq!(nothing.unwrap_err().name(), "Usage");
        let stray = InstitutionArgs {
            roles: vec![Role::Court],
            ..which(Which { suspend: name(), ..Default::default() })
        };
        assert_eq!(build(&genesis, stray).unwrap_err().name(), "Usage");
        let rostered = InstitutionArgs {
            which: Which { change: name(), ..Default::default() },
            rostered_until: Some(TimeMs(1000)),
            ..Default::default()
        };
        let rostered = build(&genesis, rostered).unwrap();
        assert!(rostered.possessions.is_empty());
        let told = institution_in_words(&genesis, &rostered, Some(&before), Lang::En);
        assert_eq!(told, ["insurer", "  emergencies until: never → 1970-01-01T00:00:01Z"]);
    }

    #[test]
    fn r10_a_policy_from_a_rules_file_is_the_next_version_and_told_by_its_differences() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.toml");
        let mut rules = Rules::default();
        std::fs::write(&path, rules.to_toml()).unwrap();
        let now = rules.policy.clone();
        let args = PolicyArgs { rules: path.clone() };
        assert_eq!(policy(&now, &args).unwrap_err().name(), "Usage", "it is in force already");
        let fewer: Vec<_> = now.rules.iter().filter(|r| r.purpose != Purpose::Operations).cloned().collect();
        rules.policy.rules = fewer.try_into().unwrap();
        let never = Prohibition { purpose: Some(Purpose::Research), item: None, category: None };
        rules.policy.prohibited = vec![never].try_into().unwrap();
        std::fs::write(&path, rules.to_toml()).unwrap();
        let Change::Policy(new) = policy(&now, &args).unwrap() else { panic!() };
        assert_eq!(new.version, now.version + 1);
        let told = policy_in_words(&new, Some(&now), Lang::En);
        assert_eq!(
            told,
            ["policy version: 1 → 2", "- running the institution: up to level low", "+ never: research",]
        );
        assert!(policy_in_words(&new, None, Lang::Zh).len() > new.rules.len());
        std::fs::write(&path, "version = 1").unwrap();
        assert_eq!(policy(&now, &args).unwrap_err().name(), "BadPolicy");
    }

    #[test]
    fn r21_only_grading_down_is_proposed() {
        let (genesis, ..) = assent_genesis::testing::four();
        let item = Item {
            code: 101,
            scope: 1,
            category: Category::ClaimDocument,
            custodian: assent_genesis::institution_id("hospital-a"),
            level: Level::Moderate,
            opening: Opening::Prohibited,
            recipients: assent_proto::List::empty(),
            graded_height: Height(1),
        };
        let args = |level| GradingArgs {
            item: ItemId::of(101, 1),
            class: Class { level, opening: Opening::Directed, recipients: vec!["insurer".into()] },
        };
        for level in [Level::Moderate, Level::High] {
            assert_eq!(grading(&genesis, &item, &args(level)).unwrap_err().name(), "NotGradedDown");
        }
        let Change::Grading(c) = grading(&genesis, &item, &args(Level::Low)).unwrap() else { panic!() };
        let told = grading_in_words(&genesis, &c, Some(&item), Lang::En);
        assert_eq!(
            told,
            [
                "item 101/1 (claim documents, Hospital A): moderate → low, prohibited → directed",
                "  open to insurer",
            ]
        );
    }
}
