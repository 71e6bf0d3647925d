//! The founding document of a chain: parse, validate, hash; make a devnet.
//!
//! One readable TOML file names the chain, its institutions with their keys, its validators, its policy and
//! its parameters. Whoever holds the file can verify, offline, everything the chain ever says. It is put
//! together from pieces ([`Admission`]): each institution makes its own keys and signs its own piece, and
//! nobody sees another's secrets. No randomness, no clock and no network live here.
//!
//! Read it in the order of the modules: the text (`text`, `time`), what is refused (`check`), one
//! institution's piece (`admission`), the founders' choice of `rules`, and the two ready-made foundings ([`devnet`], [`testing`]).

mod admission;
mod check;
mod defaults;
pub mod devnet;
mod error;
mod rules;
pub mod testing;
mod text;
mod time;

use std::path::Path;

use assent_proto::evidence::Trust;
use assent_proto::field::Message;
use assent_proto::hash;
use assent_proto::state::{Institution, Nodes, Parameters, Policy, Turns, Validators};
use assent_proto::transaction::NodeRecord;
use assent_proto::validators::ValidatorSet;
use assent_proto::{Address, GenesisHash, Height, InstitutionId, Leaf, List, ObjectRef, PublicKey, TimeMs};

pub use admission::{Admission, Operator, Profile, ValidatorPiece};
pub use check::{check_parameters, check_policy};
pub use defaults::{default_parameters, default_policy};
pub use error::{Fault, GenesisError};
pub use rules::Rules;

/// The most bytes that a founding document or a piece of one may have.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most institutions.
pub const INSTITUTIONS_MAX: usize = 256;
/// The format of the file that this build reads and writes.
pub const FORMAT: u32 = 1;

/// A founding document that was found good in every part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The text form, proofs of possession included.
    file: text::GenesisFile,
    time: TimeMs,
    parameters: Parameters,
    policy: Policy,
    institutions: Vec<InstitutionEntry>,
    nodes: Vec<NodeEntry>,
    validators: ValidatorSet,
    hash: GenesisHash,
}

/// An institution as founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstitutionEntry {
    /// Its id: the hash of its slug.
    pub id: InstitutionId,
    /// Its short name: lower-case letters, digits and hyphens.
    pub slug: String,
    /// Its English name.
    pub name_en: String,
    /// Its Chinese name.
    pub name_zh: String,
    /// What goes into the founding state.
    pub institution: Institution,
}

/// A validator's node as founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Whose it is.
    pub institution: InstitutionId,
    /// The key that it votes with.
    pub consensus_key: PublicKey,
    /// The Ed25519 key of its libp2p identity.
    pub network_key: PublicKey,
    /// Voting power, from 1.
    pub power: u32,
    /// Where it may be reached (a libp2p multiaddress); a hint that is no part of the chain's identity.
    pub listen: Option<String>,
}

impl NodeEntry {
    /// The validator's address.
    pub fn address(&self) -> Address {
        assent_proto::validators::address(&self.consensus_key)
    }
}

/// The id of an institution: the hash of its slug.
pub fn institution_id(slug: &str) -> InstitutionId {
    InstitutionId(hash::INSTITUTION_ID.hash(&[slug.as_bytes()]))
}

impl Genesis {
    /// Reads and validates the text of a founding document. Every error names the place.
    pub fn parse(toml: &str) -> Result<Genesis, GenesisError> {
        check::genesis(text::read(toml)?)
    }

    /// Reads and validates a founding document's file.
    pub fn load(path: impl AsRef<Path>) -> Result<Genesis, GenesisError> {
        Self::parse(&text::read_file(path.as_ref())?)
    }

    /// Founds a chain from the institutions' pieces. Their order does not matter: whoever puts the same
    /// pieces together gets the same chain.
    pub fn found(
        chain_id: &str,
        time: TimeMs,
        parameters: Parameters,
        policy: Policy,
        pieces: Vec<Admission>,
    ) -> Result<Genesis, GenesisError> {
        check::genesis(admission::collect(chain_id, time, parameters, policy, pieces)?)
    }

    /// The document as text, from which [`Genesis::parse`] gives the same again.
    pub fn to_toml(&self) -> String {
        text::write(&self.file, "The founding document of an Assent chain. Its hash is the chain's identity.")
    }

    /// Names the chain: the hash over the content, not over the text. Comments, white space, the proofs of
    /// possession and the listen hints are no part of it.
    pub fn hash(&self) -> GenesisHash {
        self.hash
    }

    /// The chain's name.
    pub fn chain_id(&self) -> &str {
        &self.file.chain_id
    }

    /// The founding time: the parent time of block 1.
    pub fn time(&self) -> TimeMs {
        self.time
    }

    /// Who votes, in the order of the document.
    pub fn validators(&self) -> &ValidatorSet {
        &self.validators
    }

    /// Bounds that every validator must share.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What each use case may see.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The founding state: institutions, policy, parameters, validators and nodes, each with a trail that has
    /// seen nothing.
    pub fn leaves(&self) -> Vec<Leaf> {
        let leaf = |object: ObjectRef, content| Leaf { object, content, trail: object.new_trail() };
        let mut leaves: Vec<_> =
            self.institutions.iter().map(|i| leaf(i.id.into(), i.institution.encode())).collect();
        leaves.push(leaf(ObjectRef::POLICY, self.policy.encode()));
        leaves.push(leaf(ObjectRef::policy(self.policy.version), self.policy.encode()));
        leaves.push(leaf(ObjectRef::PARAMETERS, self.parameters.encode()));
        let validators = Validators {
            since: Height(1),
            current: self.validators.clone(),
            pending: None,
            former: List::empty(),
        };
        leaves.push(leaf(ObjectRef::VALIDATORS, validators.encode()));
        let node = |n: &NodeEntry| NodeRecord {
            institution: n.institution,
            key: n.consensus_key,
            network_key: n.network_key,
        };
        let nodes: Vec<_> = self.nodes.iter().map(node).collect();
        let nodes = Nodes { nodes: nodes.try_into().expect("a founding has at most 128 validators") };
        leaves.push(leaf(ObjectRef::NODES, nodes.encode()));
        leaves.push(leaf(ObjectRef::TURNS, Turns { missed: List::empty() }.encode()));
        leaves
    }

    /// The institutions, in the order of the document.
    pub fn institutions(&self) -> &[InstitutionEntry] {
        &self.institutions
    }

    /// An institution by its slug or by the 64 hexadecimal digits of its id.
    pub fn institution(&self, slug_or_hex: &str) -> Option<&InstitutionEntry> {
        let id = InstitutionId::from_hex(slug_or_hex).unwrap_or_else(|| institution_id(slug_or_hex));
        self.institutions.iter().find(|i| i.id == id)
    }

    /// The validators' nodes, in the order of [`Genesis::validators`].
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.nodes
    }

    /// What a verifier trusts who trusts this document.
    pub fn trust(&self) -> Trust {
        Trust { genesis: self.hash, validators: self.validators.clone() }
    }
}
