//! An institution's public piece for a chain that runs already: what is to be known of it, and its operators' keys,
//! each with the signature by which its holder shows that it is to serve the institution on that chain. It holds no
//! secrets; whoever proposes the institution needs nothing else of it.

use std::path::Path;

use assent_genesis::Genesis;
use assent_proto::keys::Algorithm;
use assent_proto::state::{OperatorKey, Role};
use assent_proto::transaction::{InstitutionRecord, KeyUse, Level, Possession, join_message};
use assent_proto::{Hash, InstitutionId, PublicKey, SecretKey, Signature, TimeMs};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::files;
use crate::institution::list;

/// The format of the file.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    genesis: String,
    slug: String,
    roles: Vec<Role>,
    max_level: Level,
    jurisdiction: u32,
    encryption_key: Hash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rostered_until_ms: Option<u64>,
    operators: Vec<OperatorText>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperatorText {
    key: PublicKey,
    not_before_ms: u64,
    not_after_ms: u64,
    possession: String,
}

/// What an institution asks to be known of it, besides its keys.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What it may do.
    pub roles: Vec<Role>,
    /// The highest level that it may receive.
    pub max_level: Level,
    /// ISO 3166-1 numeric.
    pub jurisdiction: u32,
    /// Until when it may act in emergencies.
    pub rostered_until: Option<TimeMs>,
}

/// A piece, every signature of which holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinPiece {
    slug: String,
    record: InstitutionRecord,
    possessions: Vec<Possession>,
}

impl JoinPiece {
    /// Signs with the institution's operator key, valid in this window.
    pub fn sign(
        genesis: &Genesis,
        slug: &str,
        terms: &Terms,
        operator: &SecretKey,
        window: (TimeMs, TimeMs),
        encryption_key: Hash,
    ) -> Result<JoinPiece, Failure> {
        let id = assent_genesis::institution_id(slug);
        let key = operator.public();
        let operator_key =
            OperatorKey { algorithm: Algorithm::Ed25519, key, not_before: window.0, not_after: window.1 };
        let record = InstitutionRecord {
            roles: list("--role", terms.roles.clone())?,
            keys: list("keys", vec![operator_key])?,
            encryption_key,
            max_level: terms.max_level,
            jurisdiction: terms.jurisdiction,
            rostered_until: terms.rostered_until,
        };
        let signature = operator.sign(&join_message(&genesis.hash(), &id, KeyUse::Operator, &key).0);
        let piece =
            JoinPiece { slug: slug.to_owned(), record, possessions: vec![Possession { key, signature }] };
        JoinPiece::parse(genesis, &piece.to_toml(genesis)).map_err(bad)
    }

    /// Reads a file, and refuses one for another chain, or with a bad key or signature.
    pub fn load(genesis: &Genesis, path: &Path) -> Result<JoinPiece, Failure> {
        JoinPiece::parse(genesis, &files::read_text(path)?)
            .map_err(|why| bad(format!("{}: {why}", path.display())))
    }

    fn parse(genesis: &Genesis, toml: &str) -> Result<JoinPiece, String> {
        let text: Text = toml::from_str(toml).map_err(|e| format!("is not an institution's piece: {e}"))?;
        if text.format != FORMAT {
            return Err(format!("is of format {}, and this build reads {FORMAT}", text.format));
        }
        if text.genesis != genesis.hash().to_string() {
            return Err("is for another chain".into());
        }
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=40).contains(&text.slug.len()) || !text.slug.chars().all(letters) {
            return Err("its slug is not 1 to 40 lower-case letters, digits and hyphens".into());
        }
        let id = assent_genesis::institution_id(&text.slug);
        let mut keys = Vec::new();
        let mut possessions = Vec::new();
        for o in &text.operators {
            possessions.push(proved(genesis, &id, o)?);
            let (not_before, not_after) = (TimeMs(o.not_before_ms), TimeMs(o.not_after_ms));
            if not_before > not_after {
                return Err(format!("the key {} ends before it begins", o.key));
            }
            keys.push(OperatorKey { algorithm: Algorithm::Ed25519, key: o.key, not_before, not_after });
        }
        if keys.is_empty() || text.roles.is_empty() {
            return Err("it has no key or no role".into());
        }
        assent_proto::keys::check_encryption_key(&text.encryption_key)
            .map_err(|e| format!("its encryption_key is no good: {e}"))?;
        let record = InstitutionRecord {
            roles: text.roles.try_into().map_err(|_| "has too many roles")?,
            keys: keys.try_into().map_err(|_| "has too many keys")?,
            encryption_key: text.encryption_key,
            max_level: text.max_level,
            jurisdiction: text.jurisdiction,
            rostered_until: text.rostered_until_ms.map(TimeMs),
        };
        Ok(JoinPiece { slug: text.slug, record, possessions })
    }

    /// As text, to be handed to whoever proposes the institution.
    pub fn to_toml(&self, genesis: &Genesis) -> String {
        let operator = |k: &OperatorKey| {
            let signature = self.possessions.iter().find(|p| p.key == k.key).map(|p| p.signature.0);
            OperatorText {
                key: k.key,
                not_before_ms: k.not_before.0,
                not_after_ms: k.not_after.0,
                possession: signature.map(hex::encode).unwrap_or_default(),
            }
        };
        let text = Text {
            format: FORMAT,
            genesis: genesis.hash().to_string(),
            slug: self.slug.clone(),
            roles: self.record.roles.to_vec(),
            max_level: self.record.max_level,
            jurisdiction: self.record.jurisdiction,
            encryption_key: self.record.encryption_key,
            rostered_until_ms: self.record.rostered_until.map(|t| t.0),
            operators: self.record.keys.iter().map(operator).collect(),
        };
        let body = toml::to_string(&text).expect("keys and signatures are plain text");
        format!(
            "# An institution's public piece, for a proposal on a chain that runs. It holds no secrets.\n{body}"
        )
    }

    /// Which institution it is.
    pub fn institution(&self) -> InstitutionId {
        assent_genesis::institution_id(&self.slug)
    }

    /// Its short name.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// What is to be known of it.
    pub fn record(&self) -> &InstitutionRecord {
        &self.record
    }

    /// What shows that it holds its keys.
    pub fn possessions(&self) -> &[Possession] {
        &self.possessions
    }
}

fn proved(genesis: &Genesis, id: &InstitutionId, o: &OperatorText) -> Result<Possession, String> {
    let key = o.key;
    key.check().map_err(|e| format!("the key {key} is no good: {e}"))?;
    let mut bytes = [0; 64];
    hex::decode_to_slice(&o.possession, &mut bytes)
        .map_err(|_| format!("the possession of {key} is malformed"))?;
    let signature = Signature(bytes);
    match key.verify(&join_message(&genesis.hash(), id, KeyUse::Operator, &key).0, &signature) {
        true => Ok(Possession { key, signature }),
        false => Err(format!("{key} has not signed for this institution and chain")),
    }
}

fn bad(why: String) -> Failure {
    Failure::local("BadPiece", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::keys::encryption_public;

    fn piece(genesis: &Genesis) -> JoinPiece {
        let terms = Terms {
            roles: vec![Role::Hospital],
            max_level: Level::High,
            jurisdiction: 156,
            rostered_until: Some(TimeMs(7)),
        };
        let key = SecretKey::from_bytes(&[41; 32]);
        let window = (TimeMs(1), TimeMs(2));
        JoinPiece::sign(genesis, "hospital-z", &terms, &key, window, encryption_public(&[42; 32])).unwrap()
    }

    #[test]
    fn r18_an_institutions_piece_reads_as_written_and_holds_no_secret() {
        let (genesis, ..) = assent_genesis::testing::four();
        let text = piece(&genesis).to_toml(&genesis);
        assert_eq!(JoinPiece::parse(&genesis, &text), Ok(piece(&genesis)));
        assert!(!text.contains(&hex::encode([41; 32])) && !text.contains(&hex::encode([42; 32])));
    }

    #[test]
    fn r18_a_piece_that_did_not_sign_for_this_institution_and_chain_is_refused() {
        let (genesis, ..) = assent_genesis::testing::four();
        let text = piece(&genesis).to_toml(&genesis);
        let refused = |from: &str, to: &str, why: &str| {
            assert!(text.contains(from), "{from}\n{text}");
            let error = JoinPiece::parse(&genesis, &text.replace(from, to)).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused("hospital-z", "hospital-y", "has not signed");
        refused("hospital-z", "Hospital Z", "its slug");
        refused("format = 1", "format = 2", "format 2");
        refused(&genesis.hash().to_string(), &"00".repeat(32), "another chain");
        refused("not_after_ms = 2", "not_after_ms = 0", "ends before");
        refused("roles = [\"hospital\"]", "roles = []", "no role");
        refused("slug", "slugg", "not an institution's piece");
    }
}
