//! Plain words: names of values on the command line, dates, and the notice that a person is shown before she
//! signs, in English and Chinese. The notice is made of the terms and the genesis file alone, so that anyone
//! can make it again and compare its hash with the one in the grant.

use assent_genesis::Genesis;
use assent_proto::event::{EventCore, EventKind};
use assent_proto::field::Message;
use assent_proto::state::Item;
use assent_proto::transaction::*;
use assent_proto::{AccountId, Day, Hash, InstitutionId, ItemId, TimeMs};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The language of what people read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    /// English
    #[default]
    En,
    /// 中文
    Zh,
}

impl Lang {
    /// Chooses between the two.
    pub fn pick<'a>(self, en: &'a str, zh: &'a str) -> &'a str {
        match self {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }

    /// As the grant names it.
    pub fn language(self) -> Language {
        match self {
            Lang::En => Language::English,
            Lang::Zh => Language::Chinese,
        }
    }
}

/// A value's name on the command line and in JSON: `claims-payment`.
pub fn kebab<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        _ => String::from("?"),
    }
}

/// Reads a value by its name.
pub fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|e| e.to_string())
}

/// Reads `2026-11-22`.
pub fn day(text: &str) -> Result<Day, String> {
    let date: jiff::civil::Date =
        text.parse().map_err(|_| format!("{text}: a date looks like 2026-11-22"))?;
    let days = date.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
    u32::try_from(days).map(Day).map_err(|_| format!("{text}: before 1970"))
}

/// Reads `2026-11-22` (the end of that day, UTC) or `2026-11-22T08:00:00Z`.
pub fn time(text: &str) -> Result<TimeMs, String> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    if let Ok(Day(d)) = day(text) {
        return Ok(TimeMs((u64::from(d) + 1) * DAY_MS - 1));
    }
    let stamp: jiff::Timestamp =
        text.parse().map_err(|_| format!("{text}: a time looks like 2026-11-22 or 2026-11-22T08:00:00Z"))?;
    u64::try_from(stamp.as_millisecond()).map(TimeMs).map_err(|_| format!("{text}: before 1970"))
}

/// Reads the first day of a quarter, `2030-04-01`: its first moment, UTC.
pub fn quarter(text: &str) -> Result<TimeMs, String> {
    let day = day(text)?;
    let first = ["01-01", "04-01", "07-01", "10-01"].iter().any(|end| show_day(day).ends_with(end));
    match first {
        true => Ok(TimeMs(u64::from(day.0) * 24 * 60 * 60 * 1000)),
        false => Err(format!("{text}: the first day of a quarter is expected, such as 2030-04-01")),
    }
}

/// Reads 64 hexadecimal digits.
pub fn hash(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "64 hexadecimal digits are expected".to_owned())
}

/// Shows a day.
pub fn show_day(Day(day): Day) -> String {
    let epoch = jiff::civil::date(1970, 1, 1);
    let date = epoch.checked_add(jiff::SignedDuration::from_hours(i64::from(day) * 24));
    date.map(|d| d.to_string()).unwrap_or_else(|_| format!("day {day}"))
}

/// Shows a time to the second, in UTC.
pub fn show_time(TimeMs(ms): TimeMs) -> String {
    let whole_seconds = i64::try_from(ms / 1000).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    whole_seconds.map(|t| t.to_string()).unwrap_or_else(|| format!("{ms} ms"))
}

/// The local clock.
pub fn now() -> TimeMs {
    TimeMs(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// An institution's name for people; its id where the genesis file does not know it.
pub fn institution(genesis: &Genesis, id: &InstitutionId, lang: Lang) -> String {
    match genesis.institutions().iter().find(|i| i.id == *id) {
        Some(i) => lang.pick(&i.name_en, &i.name_zh).to_owned(),
        None => id.to_string(),
    }
}

/// An institution's short name.
pub fn slug(genesis: &Genesis, id: &InstitutionId) -> String {
    genesis.institutions().iter().find(|i| i.id == *id).map_or_else(|| id.to_string(), |i| i.slug.clone())
}

/// What a catalogue item is, for people.
pub fn category(c: Category, lang: Lang) -> &'static str {
    match c {
        Category::ClaimDocument => lang.pick("claim documents", "理赔单证"),
        Category::TestResult => lang.pick("test results", "检验检查结果"),
        Category::Encounter => lang.pick("visits", "就诊记录"),
        Category::Settlement => lang.pick("insurance settlements", "医保结算"),
        Category::Prescription => lang.pick("prescriptions", "处方"),
    }
}

/// What a use is for, for people.
pub fn purpose(p: Purpose, lang: Lang) -> &'static str {
    match p {
        Purpose::ClaimsPayment => lang.pick("paying a claim", "理赔给付"),
        Purpose::Treatment => lang.pick("treatment", "诊疗"),
        Purpose::MutualRecognition => {
            lang.pick("reusing a test result instead of testing again", "检验检查结果互认")
        }
        Purpose::Research => lang.pick("research", "科学研究"),
        Purpose::Statistics => lang.pick("statistics", "统计"),
        Purpose::Operations => lang.pick("running the institution", "机构运营"),
        Purpose::Marketing => lang.pick("marketing", "营销"),
        Purpose::EmergencyTreatment => lang.pick("treatment in an emergency", "急救诊疗"),
        Purpose::Legal => lang.pick("what a court or statute orders", "依法律命令"),
    }
}

fn action(a: UseAction, lang: Lang) -> &'static str {
    match a {
        UseAction::Read => lang.pick("read", "查阅"),
        UseAction::Copy => lang.pick("keep a copy", "留存副本"),
        UseAction::Compute => lang.pick("compute on it", "计算"),
        UseAction::Derive => lang.pick("make new data of it", "加工派生"),
        UseAction::Disclose => lang.pick("pass it on", "对外提供"),
    }
}

fn output(o: Output, lang: Lang) -> &'static str {
    match o {
        Output::Raw => lang.pick("the records as they are", "原始记录"),
        Output::Masked => lang.pick("masked records", "脱敏后的记录"),
        Output::ResultOnly => lang.pick("a result alone, no records", "仅结果，不含记录"),
    }
}

/// A sensitivity, for people.
pub fn level(l: Level, lang: Lang) -> &'static str {
    match l {
        Level::None => lang.pick("not sensitive", "不敏感"),
        Level::Low => lang.pick("low", "低"),
        Level::Moderate => lang.pick("moderate", "中"),
        Level::High => lang.pick("high", "高"),
    }
}

fn legal_basis(b: LegalBasis, lang: Lang) -> &'static str {
    match b {
        LegalBasis::Consent => lang.pick("your consent", "个人同意"),
        LegalBasis::Contract => lang.pick("a contract with you", "与您的合同"),
        LegalBasis::Statute => lang.pick("a statute", "法律规定"),
    }
}

fn how_often(terms: &Grant, lang: Lang) -> String {
    match (terms.mode, lang) {
        (Mode::OneTime, Lang::En) => "once, and never again".into(),
        (Mode::OneTime, Lang::Zh) => "仅一次，用后即止".into(),
        (Mode::NTimes, Lang::En) => format!("at most {} times", terms.uses),
        (Mode::NTimes, Lang::Zh) => format!("最多 {} 次", terms.uses),
        (Mode::Standing, Lang::En) => "as often as needed until it ends".into(),
        (Mode::Standing, Lang::Zh) => "有效期内不限次数".into(),
    }
}

/// A catalogue item with its id, as the ledger has it.
pub type NamedItem = (ItemId, Item);

/// The notice: what is asked, in plain words, one line a term. `items` are those that the terms name.
pub fn notice(
    genesis: &Genesis,
    account: &AccountId,
    terms: &Grant,
    items: &[NamedItem],
    lang: Lang,
) -> String {
    let mut lines = vec![lang.pick("AUTHORIZATION", "授权书").to_owned()];
    let mut line = |en: &str, zh: &str, value: String| lines.push(format!("{}: {value}", lang.pick(en, zh)));
    let comma = lang.pick(", ", "、");
    line("Who may use it", "使用方", institution(genesis, &terms.grantee, lang));
    line("Whose data", "数据主体账户", account.to_string());
    if terms.capacity != Capacity::Own {
        line("You sign for this person as", "您代为签署，身份", capacity(terms.capacity, lang).to_owned());
    }
    line("What", "数据内容", contents(genesis, terms, items, lang));
    line(
        "From the period",
        "数据期间",
        format!("{} {} {}", show_day(terms.data_from), lang.pick("to", "至"), show_day(terms.data_to)),
    );
    line("For", "用途", purpose(terms.purpose, lang).to_owned());
    line(
        "For the one case",
        "事项",
        terms.case.map_or_else(|| lang.pick("any", "不限").to_owned(), |c| c.to_string()),
    );
    line(
        "It may",
        "允许的操作",
        terms.actions.iter().map(|a| action(*a, lang)).collect::<Vec<_>>().join(comma),
    );
    line("It receives", "输出形式", output(terms.output, lang).to_owned());
    line("Highest sensitivity", "最高敏感级别", level(terms.max_level, lang).to_owned());
    line("How often", "使用次数", how_often(terms, lang));
    line("Not before", "生效时间", show_time(terms.not_before));
    line("Not after", "截止时间", show_time(terms.not_after));
    line("It may be kept", "保存期限", format!("{} {}", terms.retention_days, lang.pick("days", "天")));
    line(
        "It may be passed on",
        "可否转提供",
        lang.pick(if terms.onward { "yes" } else { "no" }, if terms.onward { "可以" } else { "不可以" })
            .to_owned(),
    );
    line(
        "In the countries",
        "适用法域",
        terms.jurisdictions.iter().map(|j| country(*j, lang)).collect::<Vec<_>>().join(comma),
    );
    line("Legal basis", "法律依据", legal_basis(terms.legal_basis, lang).to_owned());
    line("Policy version", "政策版本", terms.policy_version.to_string());
    lines.push(
        lang.pick(
            "You may withdraw at any time. Uses made before stand; what was received must then be erased.",
            "您可以随时撤回。撤回前的使用不受影响，已接收的数据须予删除。",
        )
        .to_owned(),
    );
    lines.join("\n")
}

fn contents(genesis: &Genesis, terms: &Grant, items: &[NamedItem], lang: Lang) -> String {
    let named = terms.items.iter().map(|id| match items.iter().find(|(i, _)| i == id) {
        Some((_, item)) => {
            let held_by = institution(genesis, &item.custodian, lang);
            match lang {
                Lang::En => format!(
                    "{} held by {held_by} (item {}/{})",
                    category(item.category, lang),
                    item.code,
                    item.scope
                ),
                Lang::Zh => format!(
                    "{held_by}的{}（目录项 {}/{}）",
                    category(item.category, lang),
                    item.code,
                    item.scope
                ),
            }
        }
        None => id.to_string(),
    });
    let kinds = terms.categories.iter().map(|c| match lang {
        Lang::En => format!("all {}", category(*c, lang)),
        Lang::Zh => format!("全部{}", category(*c, lang)),
    });
    named.chain(kinds).collect::<Vec<_>>().join(lang.pick("; ", "；"))
}

/// In which capacity somebody signs, for people.
pub fn capacity(c: Capacity, lang: Lang) -> &'static str {
    match c {
        Capacity::Own => lang.pick("for oneself", "本人"),
        Capacity::Guardian => lang.pick("guardian", "监护人"),
        Capacity::Proxy => lang.pick("proxy", "受托代理人"),
    }
}

/// Whether an institution may act, for people.
pub fn standing(s: Standing, lang: Lang) -> &'static str {
    match s {
        Standing::Active => lang.pick("may act", "可正常行事"),
        Standing::Suspended => lang.pick("suspended: may only fulfil its duties", "暂停：仅可履行义务"),
        Standing::Expelled => {
            lang.pick("expelled: may only fulfil its duties, for good", "除名：永久仅可履行义务")
        }
    }
}

/// What happened, for people.
pub fn event(kind: EventKind, lang: Lang) -> &'static str {
    match kind {
        EventKind::Denied => lang.pick("denied", "被拒绝"),
        EventKind::Enrolled => lang.pick("an account was opened", "已开户"),
        EventKind::ItemRegistered => lang.pick("an item entered the catalogue", "数据项已登记"),
        EventKind::Classified => lang.pick("an item was graded", "数据项已分级"),
        EventKind::Anchored => lang.pick("records were anchored", "记录已存证"),
        EventKind::Granted => lang.pick("a person authorized", "个人已授权"),
        EventKind::Revoked => lang.pick("a person withdrew", "个人已撤回"),
        EventKind::RevokedEarly => lang.pick("a person withdrew what was not yet seen", "个人提前撤回"),
        EventKind::Permitted => lang.pick("a use was permitted", "使用已许可"),
        EventKind::Delivered => lang.pick("records were released", "记录已交付"),
        EventKind::ErasureAttested => lang.pick("erasure was attested", "已证明删除"),
        EventKind::ActivityRecorded => lang.pick("lineage was recorded", "血缘已记录"),
        EventKind::OpeningReviewed => lang.pick("an opening was reviewed", "开放已审核"),
        EventKind::Settled => lang.pick("a case was settled", "事项已结算"),
        EventKind::ErasureDue => lang.pick("an erasure became due", "产生删除义务"),
        EventKind::Proposed => lang.pick("a change was proposed", "变更已提议"),
        EventKind::Approved => lang.pick("a change was approved", "变更已批准"),
        EventKind::Enacted => lang.pick("a change was decided", "变更已通过"),
        EventKind::EquivocationReported => {
            lang.pick("a validator was shown to have contradicted itself", "验证者自相矛盾已被举证")
        }
        EventKind::ValidatorRemoved => lang.pick("a validator's key loses its vote", "验证者密钥被移出"),
        EventKind::Retired => lang.pick("what is over has left the state", "已终结的对象移出状态"),
        EventKind::NotDelivered => {
            lang.pick("a custodian will not release; the use is given back", "保管机构不予交付，使用次数退回")
        }
        EventKind::KeyRotated => lang.pick("an account has a new key", "账户密钥已更换"),
        EventKind::RecoveryApproved => {
            lang.pick("an institution says that an account's key was lost", "机构确认账户密钥遗失")
        }
        EventKind::RecoveryReady => lang.pick(
            "a lost key will be replaced, unless its holder vetoes",
            "遗失的密钥将被更换，除非原密钥持有人否决",
        ),
        EventKind::RecoveryVetoed => {
            lang.pick("a recovery was vetoed; the account is frozen", "恢复被否决，账户已冻结")
        }
        EventKind::Delegated => lang.pick("one account may grant for another", "代理关系已确认"),
        EventKind::DelegationEnded => {
            lang.pick("one account may no longer grant for another", "代理关系已终止")
        }
        EventKind::Ratified => lang.pick("a person lets a delegate's grant hold", "本人已追认代理授权"),
        EventKind::OperatorRotated => lang.pick("an institution changed its keys", "机构已更换操作密钥"),
        EventKind::EmergencyOpened => lang.pick(
            "a use was permitted in an emergency; review and notice are due",
            "急救使用已许可，待审查与告知",
        ),
        EventKind::EmergencyAnchored => lang.pick(
            "a release in an outage was anchored; review and notice are due",
            "离线急救释放已补登，待审查与告知",
        ),
        EventKind::EmergencyAnchoredLate => {
            lang.pick("a release in an outage was anchored after the deadline", "离线急救释放逾期补登")
        }
        EventKind::EmergencyReviewed => lang.pick("an emergency was reviewed", "急救使用已审查"),
        EventKind::PersonNotified => lang.pick("the person was told of a use", "已告知本人"),
        EventKind::OrderIssued => lang.pick("a legal order was issued", "法律命令已签发"),
        EventKind::ErasureHeld => {
            lang.pick("what should be erased is kept in storage by law", "应删除的数据依法留存")
        }
        EventKind::Admitted => lang.pick("an institution was admitted or changed", "机构已准入或变更"),
        EventKind::Suspended => lang.pick("an institution was suspended", "机构已被暂停"),
        EventKind::Reinstated => lang.pick("an institution may act again", "机构已恢复"),
        EventKind::Expelled => lang.pick("an institution was expelled", "机构已被除名"),
    }
}

/// What was asked for, for people.
pub fn asked(kind: ActionKind, lang: Lang) -> &'static str {
    match kind {
        ActionKind::Enrol => lang.pick("open an account", "开户"),
        ActionKind::RegisterItem => lang.pick("register an item", "登记数据项"),
        ActionKind::Classify => lang.pick("grade an item", "数据分级"),
        ActionKind::AnchorRecords => lang.pick("anchor records", "存证"),
        ActionKind::Grant => lang.pick("authorize", "授权"),
        ActionKind::Revoke => lang.pick("withdraw an authorization", "撤回授权"),
        ActionKind::RequestAccess => lang.pick("use records", "请求使用"),
        ActionKind::Deliver => lang.pick("release records", "交付"),
        ActionKind::AttestErasure => lang.pick("attest erasure", "证明删除"),
        ActionKind::RecordActivity => lang.pick("record lineage", "登记血缘"),
        ActionKind::ReviewOpening => lang.pick("review an opening", "审核开放"),
        ActionKind::Propose => lang.pick("propose a change", "提议变更"),
        ActionKind::Approve => lang.pick("approve a change", "批准变更"),
        ActionKind::ReportEquivocation => lang.pick("report a contradiction", "举报自相矛盾"),
        ActionKind::NotDelivered => lang.pick("tell that nothing was released", "声明未交付"),
        ActionKind::RotateKey => lang.pick("change an account's key", "更换账户密钥"),
        ActionKind::Recover => lang.pick("recover an account", "恢复账户"),
        ActionKind::VetoRecovery => lang.pick("veto a recovery", "否决恢复"),
        ActionKind::Delegate => lang.pick("confirm a delegation", "确认代理关系"),
        ActionKind::EndDelegation => lang.pick("end a delegation", "终止代理关系"),
        ActionKind::Ratify => lang.pick("ratify a delegate's grant", "追认代理授权"),
        ActionKind::RotateOperator => lang.pick("change an institution's keys", "更换机构操作密钥"),
        ActionKind::AnchorEmergency => lang.pick("anchor a release in an outage", "补登离线急救释放"),
        ActionKind::ReviewEmergency => lang.pick("review an emergency", "审查急救使用"),
        ActionKind::NotifyPerson => lang.pick("tell the person of a use", "告知本人"),
        ActionKind::IssueOrder => lang.pick("issue a legal order", "签发法律命令"),
    }
}

/// An event in words: what happened, and of a denial what was asked for and why not.
pub fn happened(core: &EventCore, lang: Lang) -> String {
    match assent_proto::Denial::from_number(core.code) {
        Some(d) => format!(
            "{} ({}): {}",
            event(core.kind, lang),
            asked(core.action, lang),
            lang.pick(d.english(), d.chinese())
        ),
        None => event(core.kind, lang).to_owned(),
    }
}

/// What a validator signed, for people.
pub fn statement(kind: StatementKind, lang: Lang) -> &'static str {
    match kind {
        StatementKind::Prevote => lang.pick("prevotes", "预投票"),
        StatementKind::Precommit => lang.pick("precommits", "预提交"),
        StatementKind::Proposal => lang.pick("proposals", "提案"),
    }
}

/// What follows a contradiction, for people.
pub fn consequence(c: Consequence, lang: Lang) -> &'static str {
    match c {
        Consequence::Record => lang.pick("it is on record", "记录在链"),
        Consequence::Remove => lang.pick(
            "its key loses its vote, where a quorum is left without it",
            "若余下验证者足法定数量则移出",
        ),
    }
}

fn country(code: u32, lang: Lang) -> String {
    match code {
        156 => lang.pick("China", "中国").to_owned(),
        other => format!("ISO {other:03}"),
    }
}

/// The hash by which a grant names the notice that was shown.
pub fn notice_hash(notice: &str) -> Hash {
    assent_proto::hash::DOCUMENT.hash(&[notice.as_bytes()])
}

/// The terms as they are signed once this notice was shown.
pub fn with_notice(terms: &Grant, notice: &str, lang: Lang) -> Grant {
    Grant { notice: notice_hash(notice), language: lang.language(), ..terms.clone() }
}

/// The terms as hexadecimal digits, for a request file.
pub fn terms_hex(terms: &Grant) -> String {
    hex::encode(terms.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_genesis::institution_id;
    use assent_proto::{CaseId, field::List};

    fn terms() -> Grant {
        Grant {
            grantee: institution_id("insurer"),
            capacity: Capacity::Own,
            items: vec![ItemId::of(101, 1)].try_into().unwrap(),
            categories: List::empty(),
            data_from: day("2022-01-01").unwrap(),
            data_to: day("2022-12-31").unwrap(),
            case: Some(CaseId(Hash([0xab; 32]))),
            purpose: Purpose::ClaimsPayment,
            actions: vec![UseAction::Read].try_into().unwrap(),
            output: Output::Raw,
            max_level: Level::High,
            mode: Mode::OneTime,
            uses: 1,
            not_before: time("2026-11-22T00:00:00Z").unwrap(),
            not_after: time("2026-12-31").unwrap(),
            retention_days: 30,
            onward: false,
            jurisdictions: vec![156].try_into().unwrap(),
            legal_basis: LegalBasis::Consent,
            notice: Hash::ZERO,
            language: Language::English,
            policy_version: 1,
            delegation: None,
        }
    }

    fn shown(lang: Lang) -> String {
        let (genesis, ..) = assent_genesis::testing::four();
        let item = Item {
            code: 101,
            scope: 1,
            category: Category::ClaimDocument,
            custodian: institution_id("hospital-a"),
            level: Level::High,
            opening: Opening::Prohibited,
            recipients: List::empty(),
            graded_height: assent_proto::Height(1),
        };
        notice(&genesis, &AccountId(Hash([1; 32])), &terms(), &[(ItemId::of(101, 1), item)], lang)
    }

    #[test]
    fn r2_a_person_reads_every_term_in_plain_words() {
        let text = shown(Lang::En);
        for line in [
            "What: claim documents held by Hospital A (item 101/1)",
            "From the period: 2022-01-01 to 2022-12-31",
            "For: paying a claim",
            "For the one case: abababab",
            "It may: read",
            "It receives: the records as they are",
            "How often: once, and never again",
            "Not after: 2026-12-31T23:59:59Z",
            "It may be kept: 30 days",
            "It may be passed on: no",
            "In the countries: China",
            "You may withdraw at any time.",
        ] {
            assert!(text.contains(line), "{line}\n--\n{text}");
        }
        let zh = shown(Lang::Zh);
        for line in ["用途: 理赔给付", "使用次数: 仅一次，用后即止", "可否转提供: 不可以", "您可以随时撤回"]
        {
            assert!(zh.contains(line), "{line}\n--\n{zh}");
        }
    }

    #[test]
    fn everything_that_can_happen_has_words_in_both_languages() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in EventKind::ALL {
            assert!(seen.insert(event(*kind, Lang::En)) && seen.insert(event(*kind, Lang::Zh)), "{kind:?}");
            assert!(!event(*kind, Lang::Zh).is_ascii(), "{kind:?}");
        }
        for kind in ActionKind::ALL {
            assert!(seen.insert(asked(*kind, Lang::En)) && seen.insert(asked(*kind, Lang::Zh)), "{kind:?}");
            assert!(!asked(*kind, Lang::Zh).is_ascii(), "{kind:?}");
        }
    }

    #[test]
    fn the_notice_is_bound_to_the_grant_and_differs_by_language_and_terms() {
        let (en, zh) = (shown(Lang::En), shown(Lang::Zh));
        assert_ne!(notice_hash(&en), notice_hash(&zh));
        let signed = with_notice(&terms(), &zh, Lang::Zh);
        assert_eq!((signed.notice, signed.language), (notice_hash(&zh), Language::Chinese));
    }

    #[test]
    fn days_and_times_read_as_they_are_shown() {
        assert_eq!(day("1970-01-02"), Ok(Day(1)));
        assert_eq!(show_day(day("2026-11-22").unwrap()), "2026-11-22");
        assert_eq!(time("1970-01-01"), Ok(TimeMs(86_399_999)));
        assert_eq!(show_time(TimeMs(1_500)), "1970-01-01T00:00:01Z");
        assert_eq!(quarter("1970-04-01"), Ok(TimeMs(90 * 86_400_000)));
        for bad in ["1970-04-02", "1970-05-01", "1970-12-31", "soon"] {
            assert!(quarter(bad).is_err(), "{bad}");
        }
        for bad in ["", "2026-13-01", "1969-12-31", "tomorrow"] {
            assert!(day(bad).is_err() && time(bad).is_err(), "{bad}");
        }
        assert_eq!(show_time(TimeMs(u64::MAX)), format!("{} ms", u64::MAX));
    }
}
