//! A founding for development: several institutions and nodes whose keys are all made in one place.
//!
//! That one place sees every secret is what a devnet is for; a real chain is founded from [`Admission`]s. The
//! randomness is the caller's, so that this crate has none of its own.

use std::fmt;

use assent_proto::keys::encryption_public;
use assent_proto::state::{Parameters, Policy, Role};
use assent_proto::transaction::Level;
use assent_proto::{Address, SecretKey, TimeMs};

use crate::error::{Fault, GenesisError};
use crate::{Admission, Genesis, Operator, Profile, ValidatorPiece};

/// The most institutions of a devnet: the bureau, the insurer and the hospitals a to z.
pub const INSTITUTIONS_MAX: usize = 28;
/// How long the operator keys of a devnet are valid: five years.
const OPERATOR_LIFE_MS: u64 = 5 * 365 * 86_400_000;
/// China, ISO 3166-1 numeric.
const JURISDICTION: u32 = 156;

/// What is to be founded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The chain's name.
    pub chain_id: String,
    /// The founding time.
    pub time: TimeMs,
    /// How many nodes, 1 to 128; they are dealt out to the institutions in turn.
    pub nodes: usize,
    /// How many institutions, 1 to [`INSTITUTIONS_MAX`]: bureau, hospital-a, hospital-b, insurer, then hospitals.
    pub institutions: usize,
    /// Bounds.
    pub parameters: Parameters,
    /// Use cases.
    pub policy: Policy,
}

/// A founded devnet with all its secrets.
#[derive(Clone, Debug)]
pub struct Devnet {
    /// The founding document.
    pub genesis: Genesis,
    /// Each node's keys, in the order of [`Genesis::nodes`].
    pub nodes: Vec<NodeSecrets>,
    /// Each institution's keys, in the order of [`Genesis::institutions`].
    pub institutions: Vec<InstitutionSecrets>,
}

/// A node's keys.
#[derive(Clone, Debug)]
pub struct NodeSecrets {
    /// Slug of its institution.
    pub institution: String,
    /// The validator's address.
    pub address: Address,
    /// The key that it votes with.
    pub consensus: SecretKey,
    /// The key of its libp2p identity.
    pub network: SecretKey,
}

/// An institution's keys.
#[derive(Clone, Debug)]
pub struct InstitutionSecrets {
    /// Its slug.
    pub slug: String,
    /// The key by which it acts.
    pub operator: SecretKey,
    /// The X25519 key that opens packages for it.
    pub encryption: EncryptionSecret,
}

/// An X25519 secret key; never printed.
#[derive(Clone)]
pub struct EncryptionSecret(pub [u8; 32]);

impl fmt::Debug for EncryptionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionSecret of {:?}", encryption_public(&self.0))
    }
}

/// Founds a devnet with keys of fresh random bytes, which `random` gives, 32 at each call.
pub fn found(plan: &Plan, random: &mut dyn FnMut() -> [u8; 32]) -> Result<Devnet, GenesisError> {
    check(plan)?;
    let mut key = || SecretKey::from_bytes(&random());
    let nodes: Vec<_> = (0..plan.nodes).map(|_| (key(), key())).collect();
    let mut made: Vec<_> = (0..plan.institutions).map(|i| made(i, plan, &nodes, random)).collect();
    made.sort_by(|a, b| a.secrets.slug.cmp(&b.secrets.slug));
    let pieces = made.iter().map(|m| m.admission(plan)).collect::<Result<_, _>>()?;
    let genesis =
        Genesis::found(&plan.chain_id, plan.time, plan.parameters.clone(), plan.policy.clone(), pieces)?;
    let nodes = made.iter().flat_map(|m| m.nodes.iter().cloned()).collect();
    Ok(Devnet { genesis, nodes, institutions: made.into_iter().map(|m| m.secrets).collect() })
}

fn check(plan: &Plan) -> Result<(), GenesisError> {
    let range = |value: usize, max: usize, place: &str| match value {
        1.. if value <= max => Ok(()),
        _ => Err(Fault::Range { value: value as u64, min: 1, max: max as u64 }.at(place)),
    };
    range(plan.nodes, 128, "nodes")?;
    range(plan.institutions, INSTITUTIONS_MAX, "institutions")
}

/// One institution of a devnet in the making.
struct Made {
    profile: Profile,
    secrets: InstitutionSecrets,
    nodes: Vec<NodeSecrets>,
}

fn made(
    i: usize,
    plan: &Plan,
    nodes: &[(SecretKey, SecretKey)],
    random: &mut dyn FnMut() -> [u8; 32],
) -> Made {
    let operator = SecretKey::from_bytes(&random());
    let encryption = EncryptionSecret(random());
    let (slug, name_en, name_zh, roles) = cast(i);
    let own = nodes.iter().skip(i).step_by(plan.institutions);
    let nodes = own.map(|(consensus, network)| NodeSecrets {
        institution: slug.clone(),
        address: assent_proto::validators::address(&consensus.public()),
        consensus: consensus.clone(),
        network: network.clone(),
    });
    Made {
        nodes: nodes.collect(),
        profile: Profile {
            slug: slug.clone(),
            name_en,
            name_zh,
            rostered_until: roles.contains(&Role::Hospital).then(|| plan.time.plus(OPERATOR_LIFE_MS)),
            roles,
            max_level: Level::High,
            jurisdiction: JURISDICTION,
            encryption_key: encryption_public(&encryption.0),
        },
        secrets: InstitutionSecrets { slug, operator, encryption },
    }
}

impl Made {
    /// Signs the piece just as a real institution would.
    fn admission(&self, plan: &Plan) -> Result<Admission, GenesisError> {
        let piece = |n: &NodeSecrets| {
            ValidatorPiece::sign(&plan.chain_id, &n.institution, 1, &n.consensus, &n.network, None)
        };
        let operator = Operator {
            key: self.secrets.operator.clone(),
            not_before: plan.time,
            not_after: plan.time.plus(OPERATOR_LIFE_MS),
        };
        let pieces = self.nodes.iter().map(piece).collect();
        Admission::sign(&plan.chain_id, self.profile.clone(), &[operator], pieces)
    }
}

/// The cast: slug, names and roles of the `i`-th institution.
fn cast(i: usize) -> (String, String, String, Vec<Role>) {
    let hospital = |letter: char| {
        let upper = letter.to_ascii_uppercase();
        (
            format!("hospital-{letter}"),
            format!("Hospital {upper}"),
            format!("{upper}医院"),
            vec![Role::Hospital],
        )
    };
    match i {
        0 => {
            let roles = vec![Role::Bureau, Role::Regulator, Role::Auditor];
            ("bureau".into(), "Healthcare Security Bureau".into(), "医疗保障局".into(), roles)
        }
        1 => hospital('a'),
        2 => hospital('b'),
        3 => ("insurer".into(), "Insurer".into(), "商业保险公司".into(), vec![Role::Insurer]),
        n => hospital(char::from(b'c' + (n - 4) as u8)),
    }
}
