//! The TOML form of the founding document and of an institution's piece of it. Only shape is here: which
//! fields there are and of which type. What their values may be is `check`'s to say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use assent_proto::state::{Parameters, Policy, Prohibition, PurposeRule, Role};
use assent_proto::transaction::{Category, Consequence, Level, Purpose};
use assent_proto::{Hash, ItemId, PublicKey, Signature};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Fault, GenesisError};
use crate::time::Moment;
use crate::{FILE_BYTES_MAX, ValidatorPiece};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenesisFile {
    pub(crate) format: u32,
    pub(crate) chain_id: String,
    pub(crate) time: Moment,
    pub(crate) parameters: ParametersText,
    pub(crate) policy: PolicyText,
    pub(crate) institutions: Vec<InstitutionText>,
    pub(crate) validators: Vec<ValidatorText>,
}

/// Two tables of [`GenesisFile`], in a file of their own before there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RulesFile {
    pub(crate) parameters: ParametersText,
    pub(crate) policy: PolicyText,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdmissionFile {
    pub(crate) format: u32,
    pub(crate) chain_id: String,
    pub(crate) institution: InstitutionText,
    #[serde(default)]
    pub(crate) validators: Vec<ValidatorText>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstitutionText {
    pub(crate) slug: String,
    pub(crate) name_en: String,
    pub(crate) name_zh: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) max_level: Level,
    /// ISO 3166-1 numeric.
    pub(crate) jurisdiction: u32,
    pub(crate) encryption_key: Hash,
    /// Until when it may act in emergencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rostered_until: Option<Moment>,
    pub(crate) operators: Vec<OperatorText>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorText {
    pub(crate) key: PublicKey,
    pub(crate) not_before: Moment,
    pub(crate) not_after: Moment,
    pub(crate) proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidatorText {
    pub(crate) institution: String,
    pub(crate) power: u32,
    pub(crate) consensus_key: PublicKey,
    pub(crate) consensus_proof: Proof,
    pub(crate) network_key: PublicKey,
    pub(crate) network_proof: Proof,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<String>,
}

/// What stands in a node's own file until its institution signs its piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidatorFile {
    pub(crate) format: u32,
    pub(crate) chain_id: String,
    pub(crate) validator: ValidatorText,
}

impl From<&ValidatorPiece> for ValidatorFile {
    fn from(p: &ValidatorPiece) -> Self {
        ValidatorFile { format: crate::FORMAT, chain_id: p.chain_id.clone(), validator: p.text.clone() }
    }
}

/// A signature that proves possession of a key, in 128 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof(pub(crate) Signature);

impl Serialize for Proof {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Proof {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(String::deserialize(d)?, &mut bytes)
            .map_err(|_| de::Error::custom("128 hexadecimal digits are expected"))?;
        Ok(Proof(Signature(bytes)))
    }
}

macro_rules! mirrored {
    ($text:ident of $message:ident { $( $f:ident: $t:ty ),* }) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $text { $( pub(crate) $f: $t, )* }
        impl From<&$message> for $text {
            fn from(m: &$message) -> Self { $text { $( $f: m.$f, )* } }
        }
        impl From<&$text> for $message {
            fn from(t: &$text) -> Self { $message { $( $f: t.$f, )* } }
        }
    };
}

mirrored!(ParametersText of Parameters {
    transaction_life_ms: u64, permit_life_ms: u64, erasure_deadline_ms: u64, block_bytes_max: u32,
    block_transactions_max: u32, clock_bound_ms: u64, heartbeat_ms: u64,
    equivocation: Consequence, recovery_approvals: u32, recovery_delay_ms: u64, emergency_permit_life_ms: u64,
    emergency_anchor_ms: u64, emergency_review_ms: u64, emergency_notice_ms: u64
});
mirrored!(RuleText of PurposeRule { purpose: Purpose, max_level: Level, needs_case: bool, needs_settlement: bool });

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyText {
    pub(crate) version: u32,
    pub(crate) rules: Vec<RuleText>,
    /// The negative list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) prohibited: Vec<ProhibitionText>,
    pub(crate) committee: CommitteeText,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitteeText {
    pub(crate) roles: Vec<Role>,
    pub(crate) approvals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProhibitionText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<Purpose>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<ItemId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) category: Option<Category>,
}

impl From<&Prohibition> for ProhibitionText {
    fn from(p: &Prohibition) -> Self {
        ProhibitionText { purpose: p.purpose, item: p.item, category: p.category }
    }
}

impl From<&ProhibitionText> for Prohibition {
    fn from(t: &ProhibitionText) -> Self {
        Prohibition { purpose: t.purpose, item: t.item, category: t.category }
    }
}

impl From<&Policy> for PolicyText {
    fn from(p: &Policy) -> Self {
        PolicyText {
            version: p.version,
            rules: p.rules.iter().map(RuleText::from).collect(),
            prohibited: p.prohibited.iter().map(ProhibitionText::from).collect(),
            committee: CommitteeText { roles: p.committee.roles.to_vec(), approvals: p.committee.approvals },
        }
    }
}

/// Reads a document's text: its shape alone.
pub(crate) fn read<T: DeserializeOwned>(toml: &str) -> Result<T, GenesisError> {
    if toml.len() > FILE_BYTES_MAX {
        return Err(GenesisError::TooLarge);
    }
    toml::from_str(toml).map_err(|e| GenesisError::Text(e.to_string()))
}

/// Reads a file, of which it never takes more than [`FILE_BYTES_MAX`] into memory.
pub(crate) fn read_file(path: &Path) -> Result<String, GenesisError> {
    let fault = |error| GenesisError::Read { path: path.display().to_string(), error };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(GenesisError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| GenesisError::Text("it is not UTF-8 text".into()))
}

/// Writes a checked document under a line that says what it is.
pub(crate) fn write<T: Serialize>(document: &T, title: &str) -> String {
    let body = toml::to_string(document).expect("a checked document holds nothing that TOML cannot hold");
    format!("# {title}\n{body}")
}

/// Whether a format number is this build's.
pub(crate) fn check_format(format: u32) -> Result<(), GenesisError> {
    if format == crate::FORMAT { Ok(()) } else { Err(Fault::Format.at("format")) }
}
