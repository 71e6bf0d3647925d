//! A transaction that two sign who do not sit at one machine: a file, or a text for a QR code, that goes from one to
//! the other. Of a wallet's request the second signature is there and the institution adds the first and submits; of
//! an institution's draft it is the other way about. Nothing here asks a node.

use std::path::Path;

use assent_genesis::Genesis;
use assent_proto::envelope::{self, SignatureEntry};
use assent_proto::field::{Element, Message};
use assent_proto::transaction::{Action, Body, Delegate, IssueOrder};
use assent_proto::{Author, Envelope, InstitutionId, SecretKey};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::Context;
use crate::error::Failure;
use crate::words::{self, Lang, kebab};
use crate::{files, qr};

/// The kind of the QR text.
const QR: &str = "CS";

/// A body with one of its two signatures, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    kind: Kind,
    /// Canonical bytes of the body, in hexadecimal digits.
    body: String,
    /// The author's signature, as a wire message in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// The other's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "assent-cosign")]
    Draft,
}

impl Draft {
    /// What nobody has signed yet.
    pub fn new(body: &Body) -> Draft {
        Draft { kind: Kind::Draft, body: hex::encode(body.encode()), first: None, second: None }
    }

    /// Signs as the author.
    pub fn sign_first(self, genesis: &Genesis, key: &SecretKey) -> Result<Draft, Failure> {
        let first = Some(self.signed_by(genesis, key)?);
        Ok(Draft { first, ..self })
    }

    /// Signs as the other.
    pub fn sign_second(self, genesis: &Genesis, key: &SecretKey) -> Result<Draft, Failure> {
        let second = Some(self.signed_by(genesis, key)?);
        Ok(Draft { second, ..self })
    }

    fn signed_by(&self, genesis: &Genesis, key: &SecretKey) -> Result<String, Failure> {
        let entry = SignatureEntry::sign(&genesis.hash(), key, &self.bytes()?);
        Ok(hex::encode(entry.write().encode_to_vec()))
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        hex::decode(&self.body).map_err(|e| bad(e.to_string()))
    }

    /// What is to be signed, once it is for this chain.
    pub fn body(&self, genesis: &Genesis) -> Result<Body, Failure> {
        let body = Body::decode(&self.bytes()?).map_err(|e| bad(e.to_string()))?;
        if body.chain != genesis.hash().tag() {
            return Err(bad("it is for another chain"));
        }
        Ok(body)
    }

    /// The transaction, once both have signed and both signatures hold.
    pub fn envelope(&self, genesis: &Genesis) -> Result<Envelope, Failure> {
        let entry = |hex: &Option<String>, who: &str| {
            let hex = hex.as_deref().ok_or_else(|| bad(format!("{who} has not signed")))?;
            let wire = hex::decode(hex).map_err(|e| bad(e.to_string()))?;
            let wire = assent_proto::wire::Signature::decode(&wire[..]).map_err(|e| bad(e.to_string()))?;
            SignatureEntry::read(wire, "signature").map_err(|e| bad(e.to_string()))
        };
        let signatures = vec![entry(&self.first, "its author")?, entry(&self.second, "the other party")?];
        let signatures = signatures.try_into().expect("two signatures");
        let envelope = Envelope { body: self.bytes()?.into(), signatures };
        let verified = envelope::verify(&genesis.hash(), &[envelope.encode()]).remove(0);
        verified.map_err(|e| {
            bad(format!("a signature does not hold, or it is for another chain ({})", e.name()))
        })?;
        Ok(envelope)
    }

    /// Reads a file, or the text of a QR code.
    pub fn read(file_or_text: &str) -> Result<Draft, Failure> {
        if file_or_text.starts_with("ASSENT:") {
            return Draft::from_qr(file_or_text);
        }
        let text = files::read_text(Path::new(file_or_text))?;
        match text.trim_start().starts_with("ASSENT:") {
            true => Draft::from_qr(&text),
            false => serde_json::from_str(&text).map_err(|e| bad(e.to_string())),
        }
    }

    /// As text for a QR code; what is too long for one goes as a file.
    pub fn qr_text(&self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        for part in [Some(&self.body), self.first.as_ref(), self.second.as_ref()] {
            let part = hex::decode(part.map_or("", String::as_str)).map_err(|e| bad(e.to_string()))?;
            let length = u16::try_from(part.len()).map_err(|_| bad("it is too long for a QR code"))?;
            bytes.extend(length.to_le_bytes());
            bytes.extend(part);
        }
        Ok(qr::text(QR, &bytes))
    }

    fn from_qr(text: &str) -> Result<Draft, Failure> {
        let bytes = qr::parse_any(QR, text)?;
        let mut rest = &bytes[..];
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (part, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = after;
            Some(hex::encode(part))
        };
        let parts = part().zip(part()).zip(part());
        let ((body, first), second) = parts.ok_or_else(|| bad("it is cut short"))?;
        if !rest.is_empty() {
            return Err(bad("it is too long"));
        }
        let some = |s: String| (!s.is_empty()).then_some(s);
        Ok(Draft { kind: Kind::Draft, body, first: some(first), second: some(second) })
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("a draft is plain data")
    }

    /// Writes it to a new file.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        files::create(path, self.json().to_string().as_bytes())
    }
}

/// Refuses a body that is not of this author.
pub fn by(body: &Body, author: InstitutionId) -> Result<(), Failure> {
    match body.author == Author::Institution(author) {
        true => Ok(()),
        false => Err(bad("it is for another institution to submit")),
    }
}

/// A draft that is not to be signed.
pub fn bad(why: impl Into<String>) -> Failure {
    Failure::local("BadRequest", format!("this is not to be signed: {}", why.into()))
}

/// What is signed, in words, one line a term. Only what two sign who do not sit together has words.
pub fn in_words(ctx: &Context, genesis: &Genesis, body: &Body) -> Result<Vec<String>, Failure> {
    let lang = ctx.lang;
    let mut lines = vec![words::asked(body.action.kind(), lang).to_owned()];
    if let Author::Institution(author) = &body.author {
        lines.push(term(lang, ("by", "提交机构"), words::institution(genesis, author, lang)));
    }
    lines.extend(match &body.action {
        Action::Recover(r) => vec![
            term(lang, ("the account", "账户"), r.account),
            term(lang, ("gets the new key", "更换为新密钥"), r.key),
            term(
                lang,
                ("seen in person", "已当面核验"),
                lang.pick(if r.in_person { "yes" } else { "no" }, if r.in_person { "是" } else { "否" }),
            ),
        ],
        Action::Delegate(d) => delegation(d, lang),
        Action::IssueOrder(o) => order(genesis, o, lang),
        Action::AnchorEmergency(a) => vec![
            term(lang, ("used by", "使用方"), words::institution(genesis, &a.requester, lang)),
            term(lang, ("the account", "账户"), a.account),
            term(lang, ("item", "目录项"), a.item),
            term(lang, ("records", "记录数"), a.records.len()),
            term(lang, ("reason", "事由"), kebab(&a.reason)),
            term(
                lang,
                ("action and output", "操作与输出"),
                format!("{}, {}", kebab(&a.action), kebab(&a.output)),
            ),
            term(lang, ("released at", "释放时间"), words::show_time(a.released_at)),
        ],
        _ => return Err(bad("it is nothing that two sign by file")),
    });
    lines.push(term(lang, ("to be submitted before", "提交期限"), words::show_time(body.expires_at)));
    Ok(lines)
}

fn term(lang: Lang, (en, zh): (&str, &str), value: impl std::fmt::Display) -> String {
    format!("  {}: {value}", lang.pick(en, zh))
}

fn delegation(d: &Delegate, lang: Lang) -> Vec<String> {
    let purposes: Vec<_> = d.purposes.iter().map(|p| words::purpose(*p, lang)).collect();
    vec![
        term(lang, ("who may grant", "代理人账户"), d.delegate),
        term(lang, ("for whom", "被代理人账户"), d.ward),
        term(lang, ("as", "身份"), words::capacity(d.capacity, lang)),
        term(lang, ("for", "用途"), purposes.join(lang.pick(", ", "、"))),
        term(lang, ("until", "截止"), words::show_time(d.until)),
        term(lang, ("document", "文件哈希"), d.document),
    ]
}

fn order(genesis: &Genesis, o: &IssueOrder, lang: Lang) -> Vec<String> {
    let any = || lang.pick("anyone's", "不限").to_owned();
    let covered = o.items.iter().map(|i| i.to_string());
    let covered: Vec<_> =
        covered.chain(o.categories.iter().map(|c| words::category(*c, lang).into())).collect();
    let actions: Vec<_> = o.actions.iter().map(kebab).collect();
    let deferred = o.notice_from.0 > 0;
    vec![
        term(lang, ("rests on", "依据"), kebab(&o.basis)),
        term(lang, ("document", "文件哈希"), o.document),
        term(lang, ("who may use", "使用方"), words::institution(genesis, &o.beneficiary, lang)),
        term(lang, ("signed with", "共同签署方"), words::institution(genesis, &o.cosigner, lang)),
        term(lang, ("whose records", "数据主体账户"), o.account.map_or_else(any, |a| a.to_string())),
        term(lang, ("what", "数据内容"), covered.join(lang.pick(", ", "、"))),
        term(
            lang,
            ("from the period", "数据期间"),
            format!(
                "{} {} {}",
                words::show_day(o.data_from),
                lang.pick("to", "至"),
                words::show_day(o.data_to)
            ),
        ),
        term(
            lang,
            ("actions and output", "操作与输出"),
            format!("{}, {}", actions.join(" "), kebab(&o.output)),
        ),
        term(lang, ("highest level", "最高级别"), words::level(o.max_level, lang)),
        term(lang, ("until", "截止"), words::show_time(o.not_after)),
        match deferred {
            true => {
                term(lang, ("the person is told from", "告知本人起始时间"), words::show_time(o.notice_from))
            }
            false => term(lang, ("the person is told", "告知本人"), lang.pick("at once", "立即")),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::keys::Algorithm;
    use assent_proto::transaction::Recover;
    use assent_proto::{AccountId, Hash, TimeMs};

    fn body(genesis: &Genesis, author: &str, key: &SecretKey) -> Body {
        let (account, algorithm) = (AccountId(Hash([1; 32])), Algorithm::Ed25519);
        let recover = Recover { account, algorithm, key: key.public(), in_person: false };
        let author = Author::Institution(assent_genesis::institution_id(author));
        let (chain, expires_at) = (genesis.hash().tag(), TimeMs(9));
        Body { chain, expires_at, author, action: Action::Recover(recover) }
    }

    #[test]
    fn r16_both_signatures_go_by_file_and_by_qr_code() {
        let (genesis, ..) = assent_genesis::testing::four();
        let (office, person) = (SecretKey::from_bytes(&[8; 32]), SecretKey::from_bytes(&[9; 32]));
        let asked = Draft::new(&body(&genesis, "bureau", &person)).sign_second(&genesis, &person).unwrap();
        let text = asked.qr_text().unwrap();
        assert!(qr::picture(&text).is_ok());
        assert_eq!(Draft::read(&text).unwrap(), asked);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("draft");
        asked.write(&file).unwrap();
        assert_eq!(Draft::read(file.to_str().unwrap()).unwrap(), asked);
        assert_eq!(asked.write(&file).unwrap_err().name(), "FileExists");

        let half = asked.envelope(&genesis).unwrap_err();
        assert!(half.to_string().contains("its author has not signed"), "{half}");
        let whole = asked.sign_first(&genesis, &office).unwrap();
        let envelope = whole.envelope(&genesis).unwrap();
        let tx = envelope::verify(&genesis.hash(), &[envelope.encode()]).remove(0).unwrap();
        assert_eq!(tx.signers(), [office.public(), person.public()]);
        by(&whole.body(&genesis).unwrap(), assent_genesis::institution_id("bureau")).unwrap();
        let other = by(&whole.body(&genesis).unwrap(), assent_genesis::institution_id("insurer"));
        assert_eq!(other.unwrap_err().name(), "BadRequest");
    }

    #[test]
    fn r16_what_was_altered_after_it_was_signed_is_refused() {
        let (genesis, ..) = assent_genesis::testing::four();
        let (office, person) = (SecretKey::from_bytes(&[8; 32]), SecretKey::from_bytes(&[9; 32]));
        let sign = |body: &Body| {
            let half = Draft::new(body).sign_second(&genesis, &person).unwrap();
            half.sign_first(&genesis, &office).unwrap()
        };
        let (one, two) =
            (sign(&body(&genesis, "bureau", &person)), sign(&body(&genesis, "insurer", &person)));
        let mixed = Draft { body: two.body.clone(), ..one.clone() };
        assert_eq!(mixed.envelope(&genesis).unwrap_err().name(), "BadRequest");
        let foreign = Body { chain: assent_proto::ChainTag([0; 8]), ..body(&genesis, "bureau", &person) };
        assert_eq!(sign(&foreign).body(&genesis).unwrap_err().name(), "BadRequest");
        let text = one.qr_text().unwrap();
        for broken in [&text[..text.len() - 8], "ASSENT:CS:", "ASSENT:HQ:AA", "ASSENT:CS:AAAA"] {
            assert_eq!(Draft::read(broken).unwrap_err().exit(), 1, "{broken}");
        }
    }
}
