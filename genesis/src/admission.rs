//! One institution's public piece of a founding, and how pieces come together.
//!
//! Keys are made where they are used. A node's machine signs a [`ValidatorPiece`] with its consensus and
//! network keys; the institution's operator puts its profile and its nodes' pieces into an [`Admission`] and
//! signs the whole of it. Only public halves and signatures leave either machine.

use std::path::Path;

use assent_proto::state::{Parameters, Policy, Role};
use assent_proto::transaction::Level;
use assent_proto::{Hash, PublicKey, SecretKey, Signature, TimeMs};

use crate::check::{self, Use, possession};
use crate::error::{Fault, GenesisError};
use crate::text::{
    self, AdmissionFile, GenesisFile, InstitutionText, OperatorText, Proof, ValidatorFile, ValidatorText,
};
use crate::time::Moment;
use crate::{FORMAT, InstitutionEntry, NodeEntry};

/// Who an institution is, without its keys for signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its short name: 1 to 40 lower-case letters, digits and hyphens.
    pub slug: String,
    /// Its English name, 1 to 100 characters.
    pub name_en: String,
    /// Its Chinese name, 1 to 100 characters.
    pub name_zh: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// The highest level that it may receive.
    pub max_level: Level,
    /// ISO 3166-1 numeric.
    pub jurisdiction: u32,
    /// The X25519 key that packages for it are encrypted to.
    pub encryption_key: Hash,
    /// Until when it may act in emergencies; none: never.
    pub rostered_until: Option<TimeMs>,
}

/// A key by which an institution acts, with its secret half.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The key.
    pub key: SecretKey,
    /// From when, inclusive, in block time.
    pub not_before: TimeMs,
    /// Until when, inclusive, in block time.
    pub not_after: TimeMs,
}

/// One node's public part of its institution's piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorPiece {
    pub(crate) chain_id: String,
    pub(crate) text: ValidatorText,
}

impl ValidatorPiece {
    /// Signs with both keys of a node that it is to validate for an institution.
    pub fn sign(
        chain_id: &str,
        slug: &str,
        power: u32,
        consensus: &SecretKey,
        network: &SecretKey,
        listen: Option<String>,
    ) -> Self {
        let prove =
            |key: &SecretKey, key_use| Proof(key.sign(&possession(chain_id, slug, key_use, &key.public()).0));
        let text = ValidatorText {
            institution: slug.into(),
            power,
            consensus_key: consensus.public(),
            consensus_proof: prove(consensus, Use::Consensus),
            network_key: network.public(),
            network_proof: prove(network, Use::Network),
            listen,
        };
        ValidatorPiece { chain_id: chain_id.into(), text }
    }

    /// Its consensus key.
    pub fn consensus_key(&self) -> PublicKey {
        self.text.consensus_key
    }

    /// Reads what [`ValidatorPiece::to_toml`] wrote; it is validated when its institution signs its piece.
    pub fn parse(toml: &str) -> Result<Self, GenesisError> {
        let file: ValidatorFile = text::read(toml)?;
        text::check_format(file.format)?;
        Ok(ValidatorPiece { chain_id: file.chain_id, text: file.validator })
    }

    /// As text, to be handed to the institution's operator.
    pub fn to_toml(&self) -> String {
        text::write(&ValidatorFile::from(self), "A validator's public keys, for its institution's operator.")
    }
}

/// One institution's piece: checked, with every proof of possession good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    file: AdmissionFile,
    entry: InstitutionEntry,
    nodes: Vec<NodeEntry>,
}

impl Admission {
    /// Signs an institution's piece with its operators' keys. An institution may have no validators.
    pub fn sign(
        chain_id: &str,
        profile: Profile,
        operators: &[Operator],
        validators: Vec<ValidatorPiece>,
    ) -> Result<Admission, GenesisError> {
        if let Some(v) = validators.iter().find(|v| v.chain_id != chain_id) {
            return Err(
                Fault::OtherChain(v.chain_id.clone()).at(format!("validator {}", v.text.consensus_key))
            );
        }
        let mut file = AdmissionFile {
            format: FORMAT,
            chain_id: chain_id.into(),
            institution: unsigned(profile, operators),
            validators: validators.into_iter().map(|v| v.text).collect(),
        };
        let digest = check::digest_of(&file)?;
        for (o, text) in operators.iter().zip(&mut file.institution.operators) {
            let key_use = Use::Operator(digest);
            let message = possession(chain_id, &file.institution.slug, key_use, &text.key);
            text.proof = Proof(o.key.sign(&message.0));
        }
        Self::checked(file)
    }

    /// Reads and validates a piece's text.
    pub fn parse(toml: &str) -> Result<Admission, GenesisError> {
        Self::checked(text::read(toml)?)
    }

    /// Reads and validates a piece's file.
    pub fn load(path: impl AsRef<Path>) -> Result<Admission, GenesisError> {
        Self::parse(&text::read_file(path.as_ref())?)
    }

    fn checked(file: AdmissionFile) -> Result<Admission, GenesisError> {
        let (entry, nodes) = check::admission(&file)?;
        Ok(Admission { file, entry, nodes })
    }

    /// As text, to be handed to whoever puts the founding document together.
    pub fn to_toml(&self) -> String {
        text::write(&self.file, "An institution's public piece of a founding document. It holds no secrets.")
    }

    /// The chain that it is for.
    pub fn chain_id(&self) -> &str {
        &self.file.chain_id
    }

    /// The institution.
    pub fn institution(&self) -> &InstitutionEntry {
        &self.entry
    }

    /// Its validators' nodes.
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.nodes
    }
}

/// An institution's text as it stands before its operators have signed.
fn unsigned(profile: Profile, operators: &[Operator]) -> InstitutionText {
    let operator = |o: &Operator| OperatorText {
        key: o.key.public(),
        not_before: Moment(o.not_before),
        not_after: Moment(o.not_after),
        proof: Proof(Signature([0; 64])),
    };
    InstitutionText {
        slug: profile.slug,
        name_en: profile.name_en,
        name_zh: profile.name_zh,
        roles: profile.roles,
        max_level: profile.max_level,
        jurisdiction: profile.jurisdiction,
        encryption_key: profile.encryption_key,
        rostered_until: profile.rostered_until.map(Moment),
        operators: operators.iter().map(operator).collect(),
    }
}

/// Puts pieces together, by slug, so that everyone who collects the same pieces gets the same document.
pub(crate) fn collect(
    chain_id: &str,
    time: TimeMs,
    parameters: Parameters,
    policy: Policy,
    mut pieces: Vec<Admission>,
) -> Result<GenesisFile, GenesisError> {
    if let Some(p) = pieces.iter().find(|p| p.chain_id() != chain_id) {
        return Err(Fault::OtherChain(p.chain_id().into()).at(format!("the piece of {:?}", p.entry.slug)));
    }
    pieces.sort_by(|a, b| a.entry.slug.cmp(&b.entry.slug));
    let mut file = GenesisFile {
        format: FORMAT,
        chain_id: chain_id.into(),
        time: Moment(time),
        parameters: (&parameters).into(),
        policy: (&policy).into(),
        institutions: Vec::with_capacity(pieces.len()),
        validators: Vec::new(),
    };
    for piece in pieces {
        file.institutions.push(piece.file.institution);
        file.validators.extend(piece.file.validators);
    }
    Ok(file)
}
