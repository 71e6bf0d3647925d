//! The table of rules as a page, RULES.md: for people who do not read code. What the rules are is not said here.

use std::fmt::Write;

use assent_genesis::default_policy;
use assent_proto::code::Denial;
use assent_proto::transaction::{Level, Opening, Output, UseAction};

use super::{Article, Law, Numbered, PURPOSES, PurposeCodes, RULES, Rule};
use crate::rules::Part;

const HEAD: &str = "\
# Rules

Written by `ASSENT_WRITE_RULES=1 cargo test --release -p assent-ledger --lib rules` from `ledger/src/rules.rs`: change it there.
A test fails if this page is not what that table says, if a denial has no rule, and if a module of the rules
refuses with a code that the table does not have for it, or has no more.

**No lawyer has checked this page.** The articles are those that a rule is meant to keep to, as its authors
understand them; where they were not sure, the column is empty. A row is one of the requirements (R9); where
there is none, only the working of the network asks for the rule.

A request is answered by a permit or by one denial; both are on the record for good, with the number, which never
changes. *Takes effect* marks a rule that refuses nothing. Times are those of blocks. In the code, a rule is in
`ledger/src/` under the module named.
";

/// The page.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    for part in PARTS {
        let _ = writeln!(page, "\n## {}\n\n{}\n", title(*part), intro(*part));
        page.push_str("| | step | refused with | when, or what takes effect | row | law | module |\n");
        page.push_str("|---|---|---|---|---|---|---|\n");
        for Numbered { number, rule } in numbered().filter(|n| n.rule.part == *part) {
            let _ = writeln!(page, "{}", line(number, rule));
        }
    }
    page + &use_cases() + &purposes() + &values() + &codes() + &laws()
}

/// All rules in the order of the page.
pub(super) fn numbered() -> impl Iterator<Item = Numbered> {
    let in_order = PARTS.iter().flat_map(|part| RULES.iter().filter(move |rule| rule.part == *part));
    in_order.zip(1..).map(|(rule, number)| Numbered { number, rule })
}

const PARTS: &[Part] = &[
    Part::Decision,
    Part::Grants,
    Part::Persons,
    Part::Delegations,
    Part::Deliveries,
    Part::Emergencies,
    Part::Orders,
    Part::Catalogue,
    Part::Lineage,
    Part::Institutions,
    Part::Changes,
    Part::Everyone,
];

fn title(part: Part) -> &'static str {
    match part {
        Part::Everyone => "Every transaction",
        Part::Decision => "The decision on a request (使用决定)",
        Part::Grants => "Grants and withdrawal (授权与撤回)",
        Part::Persons => "Accounts and keys (账户与密钥)",
        Part::Delegations => "Guardians and proxies (监护与代理)",
        Part::Deliveries => "Deliveries and erasure (交付与删除)",
        Part::Emergencies => "Emergencies (紧急使用)",
        Part::Orders => "Legal orders (法律命令)",
        Part::Catalogue => "Catalogue, grading, opening (目录、分级、开放)",
        Part::Lineage => "Lineage (数据血缘)",
        Part::Institutions => "Institutions (机构)",
        Part::Changes => "Changes that several decide (共同决定的变更)",
    }
}

fn intro(part: Part) -> &'static str {
    match part {
        Part::Decision => {
            "In this order, which is fixed; the first failure names the code. The circuit breaker (R12, R13) will \
             stand after the requester's role, a co-signature (R26) after the settlement; neither is there yet. \
             Whether the requester may act at all is asked before, of every transaction."
        }
        Part::Everyone => "Before any other rule.",
        Part::Persons => {
            "Whether a signature is a current key's is asked before a transaction is in a block."
        }
        Part::Changes => "The same is asked when a change is proposed, when it is decided, and in a dry run.",
        _ => "Steps of one action in the order in which they are asked, as far as that matters.",
    }
}

fn line(number: u32, rule: &Rule) -> String {
    let refusal = |d: Denial| format!("{} `{}`<br>{}", d.number(), d.name(), d.chinese());
    let denial = rule.denial.map_or("*takes effect*".into(), refusal);
    let rows: Vec<_> = rule.rows.iter().map(|row| format!("R{row}")).collect();
    format!(
        "| {number} | {} | {denial} | {} | {} | {} | `{}` |",
        rule.step,
        rule.text,
        or_dash(rows.join(", ")),
        or_dash(cited(rule.law)),
        rule.module
    )
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "–".into() } else { text }
}

fn cited(articles: &[Article]) -> String {
    let articles: Vec<_> = articles.iter().map(|Article(law, at)| format!("{} {at}", short(*law))).collect();
    articles.join(", ")
}

fn use_cases() -> String {
    let policy = default_policy();
    let mut text = String::from(
        "\n## Use case × level\n\nThe policy that a chain is founded with unless its founders write another (version 1). \
         A use case without a line is not permitted. Changed by the committee only, and kept version by version.\n\n\
         | use case | highest level | needs a case | needs its settlement |\n|---|---|---|---|\n",
    );
    for rule in &policy.rules {
        let (case, settlement) = (yes(rule.needs_case), yes(rule.needs_settlement));
        let _ = writeln!(text, "| {:?} | {:?} | {case} | {settlement} |", rule.purpose, rule.max_level);
    }
    let roles: Vec<_> = policy.committee.roles.iter().map(|role| format!("{role:?}")).collect();
    let (roles, approvals) = (roles.join(" and "), policy.committee.approvals);
    let _ = writeln!(
        text,
        "\nCommittee: {approvals} institutions, {roles} among them. The negative list is empty."
    );
    text
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn purposes() -> String {
    let mut text = String::from(
        "\n## Purposes and their standard codes\n\n\
         Sources: HL7 Terminology, code system v3-ActReason (`http://terminology.hl7.org/CodeSystem/v3-ActReason`, \
         displays of version 2.1.0); GA4GH Data Use Ontology (`https://github.com/EBISPOT/DUO`, `duo.csv` at 726b06e). \
         DUO speaks of research and care with datasets, so most purposes have no term there.\n\n\
         | number | purpose | v3-ActReason | DUO | fit |\n|---|---|---|---|---|\n",
    );
    for PurposeCodes { purpose, act_reason: (code, display), duo, fit } in PURPOSES {
        let duo = or_dash(duo.map_or(String::new(), |(code, label)| format!("{code} {label}")));
        let _ = writeln!(text, "| {} | {purpose:?} | {code} {display} | {duo} | {fit} |", *purpose as u8);
    }
    text
}

fn values() -> String {
    let mut text = String::from("\n## Other coded values\n\n| what | numbers and names |\n|---|---|\n");
    let mut row = |what: &str, values: Vec<String>| {
        let _ = writeln!(text, "| {what} | {} |", values.join(", "));
    };
    row("levels, least sensitive first", Level::ALL.iter().map(|v| named(*v as u8, v)).collect());
    row("opening types", Opening::ALL.iter().map(|v| named(*v as u8, v)).collect());
    row("actions", UseAction::ALL.iter().map(|v| named(*v as u8, v)).collect());
    row("outputs, most revealing first", Output::ALL.iter().map(|v| named(*v as u8, v)).collect());
    row("jurisdictions", vec!["ISO 3166-1 numeric (China is 156)".into()]);
    text
}

fn named(number: u8, value: &impl std::fmt::Debug) -> String {
    format!("{number} {value:?}")
}

fn codes() -> String {
    let mut text = String::from(
        "\n## Denials and their sentences\n\n| code | name | English | 中文 |\n|---|---|---|---|\n",
    );
    for d in Denial::ALL {
        let _ = writeln!(text, "| {} | `{}` | {} | {} |", d.number(), d.name(), d.english(), d.chinese());
    }
    text
}

fn laws() -> String {
    let mut text = String::from("\n## Laws\n\n| short | law |\n|---|---|\n");
    for law in LAWS {
        let _ = writeln!(text, "| {} | {} |", short(*law), full(*law));
    }
    text
}

const LAWS: &[Law] =
    &[Law::Pipl, Law::DataSecurity, Law::CivilCode, Law::Signatures, Law::BasicHealth, Law::Gdpr];

fn short(law: Law) -> &'static str {
    match law {
        Law::Pipl => "PIPL",
        Law::DataSecurity => "DSL",
        Law::CivilCode => "民法典",
        Law::Signatures => "电子签名法",
        Law::BasicHealth => "健康促进法",
        Law::Gdpr => "GDPR",
    }
}

fn full(law: Law) -> &'static str {
    match law {
        Law::Pipl => "中华人民共和国个人信息保护法: a number in brackets is an item of article 13",
        Law::DataSecurity => "中华人民共和国数据安全法",
        Law::CivilCode => "中华人民共和国民法典",
        Law::Signatures => "中华人民共和国电子签名法",
        Law::BasicHealth => "中华人民共和国基本医疗卫生与健康促进法",
        Law::Gdpr => "Regulation (EU) 2016/679: for comparison, and for parties that it binds",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use assent_proto::transaction::Purpose;

    use super::*;
    use crate::rules::{Ground, RULES_MAX};

    /// R10: people can read all of them, and none is missing.
    #[test]
    fn every_denial_has_a_rule_and_there_are_not_too_many() {
        assert!(RULES.len() <= RULES_MAX, "{} rules", RULES.len());
        let told: BTreeSet<_> = RULES.iter().filter_map(|rule| rule.denial).collect();
        let missing: Vec<_> = Denial::ALL.iter().filter(|d| !told.contains(d)).collect();
        assert!(missing.is_empty(), "no rule tells of {missing:?}");
    }

    /// What each module that decides refuses with, read from its source: the table neither lacks a refusal nor
    /// keeps one that is gone.
    #[test]
    fn each_module_refuses_with_what_the_table_says_of_it() {
        for (module, source) in MODULES {
            let told: BTreeSet<_> = RULES
                .iter()
                .filter(|r| r.module == *module)
                .filter_map(|r| r.denial)
                .map(Denial::name)
                .collect();
            let code = source.split("#[cfg(test)]").next().unwrap_or(source);
            let refused: BTreeSet<_> = code.split("Denial::").skip(1).map(identifier).collect();
            assert_eq!(told, refused, "of module {module}: the table on the left, its code on the right");
        }
        let known = |rule: &&Rule| MODULES.iter().any(|(module, _)| rule.module == *module);
        assert_eq!(RULES.iter().filter(known).count(), RULES.len(), "a rule names a module that is none");
    }

    fn identifier(text: &str) -> &str {
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(text)
    }

    macro_rules! modules {
        ($($name:literal),*) => { &[$( ($name, include_str!(concat!("../", $name, ".rs"))), )*] };
    }

    const MODULES: &[(&str, &str)] = modules![
        "access",
        "apply",
        "basis",
        "catalogue",
        "committee",
        "consent",
        "delegation",
        "delivery",
        "emergency",
        "governance",
        "identity",
        "institutions",
        "lineage",
        "orders"
    ];

    /// Modules that decide cannot be forgotten: whichever says `Denial::` is in the list.
    #[test]
    fn every_module_that_refuses_is_read() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let helper = matches!(name.as_str(), "rules" | "testing" | "outcome" | "overlay" | "lib");
            if path.extension().is_some_and(|e| e == "rs") && !helper {
                let refuses = std::fs::read_to_string(&path).unwrap().contains("Denial::");
                let listed = MODULES.iter().any(|(module, _)| *module == name);
                assert!(!refuses || listed, "{name}.rs refuses and is not in the list of modules");
            }
        }
    }

    #[test]
    fn parts_purposes_laws_and_cells_are_complete() {
        assert!(RULES.iter().all(|rule| PARTS.contains(&rule.part)), "a part is not on the page");
        let purposes: Vec<_> = PURPOSES.iter().map(|p| p.purpose).collect();
        assert_eq!(purposes, Purpose::ALL, "every purpose, in the order of the numbers");
        let cells = RULES.iter().flat_map(|rule| [rule.step, rule.text]);
        assert!(cells.into_iter().all(|cell| !cell.is_empty() && !cell.contains(['|', '\n'])));
        let rows = RULES.iter().flat_map(|rule| rule.rows);
        assert!(rows.into_iter().all(|row| (1..=42).contains(row)), "the requirements have 42 rows");
        let cited = RULES.iter().flat_map(|rule| rule.law);
        assert!(cited.into_iter().all(|Article(law, _)| LAWS.contains(law)));
    }

    /// A refusal of the decision names one rule: none shares its step, its code and its basis with another.
    #[test]
    fn step_code_and_basis_name_one_rule() {
        let refusals: Vec<_> = RULES
            .iter()
            .filter(|rule| matches!(rule.part, Part::Decision | Part::Everyone) && rule.denial.is_some())
            .collect();
        let grounds = [Ground::Opening, Ground::Grant, Ground::Emergency, Ground::Order];
        for ground in grounds.map(Some).into_iter().chain([None]) {
            for rule in &refusals {
                let same = |other: &&&Rule| {
                    (other.step, other.denial) == (rule.step, rule.denial) && other.is_asked_of(ground)
                };
                assert!(refusals.iter().filter(same).count() <= 1, "{rule:?} on {ground:?}");
            }
        }
    }

    #[test]
    fn rules_md_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../RULES.md");
        if std::env::var_os("ASSENT_WRITE_RULES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "RULES.md is not what the table says. Write it anew:\n    \
             ASSENT_WRITE_RULES=1 cargo test --release -p assent-ledger --lib rules"
        );
    }
}
