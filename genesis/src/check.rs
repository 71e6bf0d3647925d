//! What a founding document may hold, part by part, and the hash over it. Each refusal names the place.

use std::collections::BTreeMap;

use assent_proto::block::{BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX};
use assent_proto::envelope::ENVELOPE_BYTES_MAX;
use assent_proto::field::Message;
use assent_proto::keys::{Algorithm, Claim, check_encryption_key, verify_batch};
use assent_proto::state::{
    Committee, Institution, OperatorKey, Parameters, Policy, Prohibition, PurposeRule, Role,
};
use assent_proto::transaction::Standing;
use assent_proto::validators::{POWER_MAX, Validator, ValidatorSet};
use assent_proto::{GenesisHash, Hash, InstitutionId, List, PublicKey, TimeMs, hash};

use crate::error::{Fault, GenesisError};
use crate::text::{
    AdmissionFile, GenesisFile, InstitutionText, ParametersText, PolicyText, Proof, ValidatorText,
    check_format,
};
use crate::time::TIME_MAX;
use crate::{Genesis, INSTITUTIONS_MAX, InstitutionEntry, NodeEntry, institution_id};

type Result<T> = std::result::Result<T, GenesisError>;

/// Checks a whole document.
pub(crate) fn genesis(file: GenesisFile) -> Result<Genesis> {
    check_format(file.format)?;
    slug(&file.chain_id, "chain_id")?;
    let time = moment(file.time.0, "time")?;
    let parameters = parameters(&file.parameters)?;
    let policy = policy(&file.policy)?;
    let mut pieces = Pieces::default();
    count(file.institutions.len(), INSTITUTIONS_MAX, "institutions")?;
    for (i, text) in file.institutions.iter().enumerate() {
        pieces.institution(text, place("institutions", i, &text.slug), Some(time))?;
    }
    count(file.validators.len(), List::<Validator, 128>::MAX, "validators")?;
    for (i, text) in file.validators.iter().enumerate() {
        pieces.node(text, place("validators", i, &text.institution))?;
    }
    pieces.prove(&file.chain_id, &file.institutions, &file.validators)?;

    let validators: Vec<_> = pieces.nodes.iter().map(validator).collect();
    let validators = ValidatorSet { validators: list(validators, "validators")? };
    let hash = content_hash(&file.chain_id, time, &parameters, &policy, &pieces);
    let Pieces { institutions, nodes, .. } = pieces;
    Ok(Genesis { file, time, parameters, policy, institutions, nodes, validators, hash })
}

/// Checks one institution's piece; what it says together with the others' is checked when they are collected.
pub(crate) fn admission(file: &AdmissionFile) -> Result<(InstitutionEntry, Vec<NodeEntry>)> {
    let mut pieces = unproved(file)?;
    pieces.prove(&file.chain_id, std::slice::from_ref(&file.institution), &file.validators)?;
    Ok((pieces.institutions.remove(0), pieces.nodes))
}

/// What the operators of an institution's piece sign; all but their proofs must be good.
pub(crate) fn digest_of(file: &AdmissionFile) -> Result<Hash> {
    let pieces = unproved(file)?;
    Ok(admission_digest(&file.chain_id, &pieces.institutions[0], &pieces.nodes.iter().collect::<Vec<_>>()))
}

fn unproved(file: &AdmissionFile) -> Result<Pieces> {
    check_format(file.format)?;
    slug(&file.chain_id, "chain_id")?;
    let mut pieces = Pieces::default();
    pieces.institution(&file.institution, "institution".into(), None)?;
    let max = List::<Validator, 128>::MAX;
    if file.validators.len() > max {
        return Err(Fault::TooMany(max).at("validators"));
    }
    for (i, text) in file.validators.iter().enumerate() {
        pieces.node(text, place("validators", i, &text.institution))?;
    }
    Ok(pieces)
}

/// What was read so far, with the places at which each slug and key stands.
#[derive(Default)]
struct Pieces {
    institutions: Vec<InstitutionEntry>,
    nodes: Vec<NodeEntry>,
    slugs: BTreeMap<InstitutionId, String>,
    /// A key for one use is a key for no other, so that no signature can be taken for another's.
    keys: BTreeMap<Hash, String>,
}

impl Pieces {
    fn institution(&mut self, text: &InstitutionText, place: String, founding: Option<TimeMs>) -> Result<()> {
        let at = |field: &str| format!("{place}.{field}");
        slug(&text.slug, &at("slug"))?;
        let id = institution_id(&text.slug);
        if let Some(other) = self.slugs.insert(id, at("slug")) {
            return Err(Fault::Duplicate(other).at(at("slug")));
        }
        name(&text.name_en, &at("name_en"))?;
        name(&text.name_zh, &at("name_zh"))?;
        range(text.jurisdiction.into(), 1, 999, &at("jurisdiction"))?;
        let institution = Institution {
            roles: roles(text, &at("roles"))?,
            keys: self.operators(text, &at("operators"), founding)?,
            encryption_key: self.encryption_key(&text.encryption_key, at("encryption_key"))?,
            max_level: text.max_level,
            jurisdiction: text.jurisdiction,
            proposals: List::empty(),
            standing: Standing::Active,
            rostered_until: text.rostered_until.map(|m| m.0),
            emergencies: List::empty(),
        };
        let (slug, name_en, name_zh) = (text.slug.clone(), text.name_en.clone(), text.name_zh.clone());
        self.institutions.push(InstitutionEntry { id, slug, name_en, name_zh, institution });
        Ok(())
    }

    fn operators(
        &mut self,
        text: &InstitutionText,
        at: &str,
        founding: Option<TimeMs>,
    ) -> Result<List<OperatorKey, 8>> {
        count(text.operators.len(), List::<OperatorKey, 8>::MAX, at)?;
        let mut keys = Vec::with_capacity(text.operators.len());
        for (i, o) in text.operators.iter().enumerate() {
            let key = self.key(o.key, format!("{at}[{i}].key"))?;
            let not_before = moment(o.not_before.0, &format!("{at}[{i}].not_before"))?;
            let not_after = moment(o.not_after.0, &format!("{at}[{i}].not_after"))?;
            if not_after < not_before {
                return Err(Fault::Window.at(format!("{at}[{i}]")));
            }
            if founding.is_some_and(|f| not_after < f) {
                return Err(Fault::ExpiredAtFounding.at(format!("{at}[{i}].not_after")));
            }
            keys.push(OperatorKey { algorithm: Algorithm::Ed25519, key, not_before, not_after });
        }
        list(keys, at)
    }

    fn node(&mut self, text: &ValidatorText, place: String) -> Result<()> {
        let at = |field: &str| format!("{place}.{field}");
        let institution = institution_id(&text.institution);
        if !self.slugs.contains_key(&institution) {
            return Err(Fault::UnknownInstitution(text.institution.clone()).at(at("institution")));
        }
        match text.power {
            0 => return Err(Fault::ZeroPower.at(at("power"))),
            p if p > POWER_MAX => return Err(Fault::PowerTooHigh.at(at("power"))),
            _ => {}
        }
        if text.listen.as_ref().is_some_and(|l| l.len() > 200 || !l.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Fault::Listen.at(at("listen")));
        }
        let consensus_key = self.key(text.consensus_key, at("consensus_key"))?;
        let network_key = self.key(text.network_key, at("network_key"))?;
        let (power, listen) = (text.power, text.listen.clone());
        self.nodes.push(NodeEntry { institution, consensus_key, network_key, power, listen });
        Ok(())
    }

    fn key(&mut self, key: PublicKey, place: String) -> Result<PublicKey> {
        key.check().map_err(|e| Fault::Key(e).at(&place))?;
        self.once(key.0, place)?;
        Ok(key)
    }

    fn encryption_key(&mut self, key: &Hash, place: String) -> Result<Hash> {
        check_encryption_key(key).map_err(|e| Fault::Key(e).at(&place))?;
        self.once(*key, place)?;
        Ok(*key)
    }

    fn once(&mut self, key: Hash, place: String) -> Result<()> {
        match self.keys.insert(key, place.clone()) {
            Some(other) => Err(Fault::Duplicate(other).at(place)),
            None => Ok(()),
        }
    }

    /// Verifies every proof of possession, in one batch.
    fn prove(
        &self,
        chain: &str,
        institutions: &[InstitutionText],
        validators: &[ValidatorText],
    ) -> Result<()> {
        let mut claims = Vec::new();
        let mut claim = |slug: &str, key_use, key: PublicKey, proof: Proof| {
            claims.push(Claim { key, message: possession(chain, slug, key_use, &key), signature: proof.0 });
        };
        for (entry, text) in self.institutions.iter().zip(institutions) {
            let nodes: Vec<_> = self.nodes.iter().filter(|n| n.institution == entry.id).collect();
            let digest = admission_digest(chain, entry, &nodes);
            text.operators.iter().for_each(|o| claim(&text.slug, Use::Operator(digest), o.key, o.proof));
        }
        for v in validators {
            claim(&v.institution, Use::Consensus, v.consensus_key, v.consensus_proof);
            claim(&v.institution, Use::Network, v.network_key, v.network_proof);
        }
        match verify_batch(&claims).iter().position(|ok| !ok) {
            Some(bad) => Err(Fault::Possession.at(&self.keys[&claims[bad].key.0])),
            None => Ok(()),
        }
    }
}

/// What a key is for, in its proof of possession.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Consensus,
    Network,
    /// An operator speaks for the institution: its proof covers the whole piece, so that nobody on the way
    /// can change a role, a power or an encryption key.
    Operator(Hash),
}

/// What a key signs to show that its owner holds it, and wants to be founded with this chain.
pub(crate) fn possession(chain_id: &str, slug: &str, key_use: Use, key: &PublicKey) -> Hash {
    let (kind, digest) = match key_use {
        Use::Consensus => (1, Hash::ZERO),
        Use::Network => (2, Hash::ZERO),
        Use::Operator(digest) => (3, digest),
    };
    let h = hash::POSSESSION.hasher().sized(chain_id.as_bytes()).sized(slug.as_bytes());
    h.number(kind).hash(&digest).number(Algorithm::Ed25519 as u64).hash(&key.0).end()
}

/// What an institution brings in, whatever the order of its validators.
pub(crate) fn admission_digest(chain_id: &str, entry: &InstitutionEntry, nodes: &[&NodeEntry]) -> Hash {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|n| n.consensus_key);
    let start = add_institution(hash::ADMISSION.hasher().sized(chain_id.as_bytes()), entry);
    nodes.iter().fold(start.number(nodes.len() as u64), |h, n| add_node(h, n)).end()
}

/// The chain's identity: everything in the document but the proofs and the listen hints.
fn content_hash(
    chain_id: &str,
    time: TimeMs,
    parameters: &Parameters,
    policy: &Policy,
    pieces: &Pieces,
) -> GenesisHash {
    let h = hash::GENESIS.hasher().number(crate::FORMAT.into()).sized(chain_id.as_bytes()).number(time.0);
    let h = h.sized(&parameters.encode()).sized(&policy.encode());
    let h = pieces.institutions.iter().fold(h.number(pieces.institutions.len() as u64), add_institution);
    let h = pieces.nodes.iter().fold(h.number(pieces.nodes.len() as u64), add_node);
    GenesisHash(h.end())
}

fn add_institution(h: hash::Hasher, entry: &InstitutionEntry) -> hash::Hasher {
    let h = h.sized(entry.slug.as_bytes()).sized(entry.name_en.as_bytes()).sized(entry.name_zh.as_bytes());
    h.sized(&entry.institution.encode())
}

fn add_node(h: hash::Hasher, node: &NodeEntry) -> hash::Hasher {
    h.sized(&validator(node).encode()).hash(&node.network_key.0)
}

pub(crate) fn validator(node: &NodeEntry) -> Validator {
    Validator {
        algorithm: Algorithm::Ed25519,
        key: node.consensus_key,
        power: node.power,
        institution: node.institution,
    }
}

pub(crate) fn parameters(p: &ParametersText) -> Result<Parameters> {
    let p = p.into();
    check_parameters(&p)?;
    Ok(p)
}

/// Whether every parameter is within its bounds, at the founding and whenever they are changed.
pub fn check_parameters(p: &Parameters) -> Result<()> {
    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    let check = |value, min, max, name| range(value, min, max, &format!("parameters.{name}"));
    check(p.transaction_life_ms, 1_000, HOUR_MS, "transaction_life_ms")?;
    check(p.permit_life_ms, 1_000, 30 * DAY_MS, "permit_life_ms")?;
    check(p.erasure_deadline_ms, 1_000, 365 * DAY_MS, "erasure_deadline_ms")?;
    // A block must hold the largest transaction, and stay below its own bound with header and framing.
    let (min, max) = (ENVELOPE_BYTES_MAX as u64, BLOCK_BYTES_MAX as u64 / 2);
    check(p.block_bytes_max.into(), min, max, "block_bytes_max")?;
    check(p.block_transactions_max.into(), 1, BLOCK_TRANSACTIONS_MAX as u64, "block_transactions_max")?;
    check(p.clock_bound_ms, 100, 60_000, "clock_bound_ms")?;
    check(p.heartbeat_ms, 100, HOUR_MS, "heartbeat_ms")?;
    check(p.recovery_approvals.into(), 1, 8, "recovery_approvals")?;
    check(p.recovery_delay_ms, 1_000, 365 * DAY_MS, "recovery_delay_ms")?;
    check(p.emergency_permit_life_ms, 1_000, DAY_MS, "emergency_permit_life_ms")?;
    check(p.emergency_anchor_ms, 1_000, 30 * DAY_MS, "emergency_anchor_ms")?;
    check(p.emergency_review_ms, 1_000, 365 * DAY_MS, "emergency_review_ms")?;
    check(p.emergency_notice_ms, 1_000, 365 * DAY_MS, "emergency_notice_ms")
}

pub(crate) fn policy(text: &PolicyText) -> Result<Policy> {
    let policy = Policy {
        version: text.version,
        rules: list(text.rules.iter().map(PurposeRule::from).collect(), "policy.rules")?,
        prohibited: list(text.prohibited.iter().map(Prohibition::from).collect(), "policy.prohibited")?,
        committee: Committee {
            roles: list(text.committee.roles.clone(), "policy.committee.roles")?,
            approvals: text.committee.approvals,
        },
    };
    check_policy(&policy)?;
    Ok(policy)
}

/// Whether a policy says one thing of each use case, at the founding and whenever it is changed.
pub fn check_policy(policy: &Policy) -> Result<()> {
    range(policy.version.into(), 1, u32::MAX.into(), "policy.version")?;
    count(policy.rules.len(), List::<PurposeRule, 32>::MAX, "policy.rules")?;
    let mut seen = BTreeMap::new();
    for (i, rule) in policy.rules.iter().enumerate() {
        let place = format!("policy.rules[{i}]");
        if rule.needs_settlement && !rule.needs_case {
            return Err(Fault::SettlementWithoutCase.at(place));
        }
        if let Some(other) = seen.insert(rule.purpose, place.clone()) {
            return Err(Fault::Duplicate(other).at(place));
        }
    }
    for (i, p) in policy.prohibited.iter().enumerate() {
        if p.purpose.is_none() && p.item.is_none() && p.category.is_none() {
            return Err(Fault::ProhibitsEverything.at(format!("policy.prohibited[{i}]")));
        }
    }
    let Committee { roles, approvals } = &policy.committee;
    count(roles.len(), List::<Role, 4>::MAX, "policy.committee.roles")?;
    for (i, role) in roles.iter().enumerate() {
        if roles[..i].contains(role) {
            let at = format!("policy.committee.roles[{i}]");
            return Err(Fault::Duplicate("policy.committee.roles".into()).at(at));
        }
    }
    // Of two roles two institutions decide, and a proposal remembers so many approvals.
    let max = List::<InstitutionId, 128>::MAX as u64;
    range((*approvals).into(), roles.len() as u64, max, "policy.committee.approvals")
}

fn roles(text: &InstitutionText, at: &str) -> Result<List<assent_proto::state::Role, 8>> {
    count(text.roles.len(), 8, at)?;
    for (i, role) in text.roles.iter().enumerate() {
        if let Some(other) = text.roles[..i].iter().position(|r| r == role) {
            return Err(Fault::Duplicate(format!("{at}[{other}]")).at(format!("{at}[{i}]")));
        }
    }
    list(text.roles.clone(), at)
}

fn place(list: &str, index: usize, slug: &str) -> String {
    // The slug helps a reader to find the place, but it is as yet unchecked: no more of it than fits a line.
    let slug: String = slug.chars().take(40).collect();
    format!("{list}[{index}] ({slug:?})")
}

fn slug(text: &str, at: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=40).contains(&text.len())
        && text.bytes().all(fits)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good { Ok(()) } else { Err(Fault::Slug.at(at)) }
}

fn name(text: &str, at: &str) -> Result<()> {
    let good = (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Fault::Name.at(at)) }
}

fn moment(time: TimeMs, at: &str) -> Result<TimeMs> {
    range(time.0, 1, TIME_MAX.0, at)?;
    Ok(time)
}

fn range(value: u64, min: u64, max: u64, at: &str) -> Result<()> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Fault::Range { value, min, max }.at(at)) }
}

fn count(n: usize, max: usize, at: &str) -> Result<()> {
    match n {
        0 => Err(Fault::Empty.at(at)),
        n if n > max => Err(Fault::TooMany(max).at(at)),
        _ => Ok(()),
    }
}

fn list<T, const MAX: usize>(items: Vec<T>, at: &str) -> Result<List<T, MAX>> {
    List::try_from(items).map_err(|_| Fault::TooMany(MAX).at(at))
}
