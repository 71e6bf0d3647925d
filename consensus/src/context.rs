//! The types by which Malachite's core knows the protocol: thin covers over `assent-proto`. Conversions
//! between the core's certificates and our messages are in `convert`; nothing here decides anything.

use std::fmt;
use std::sync::Arc;

use arc_malachitebft_core_types as core;
use arc_malachitebft_core_types::{NilOrVal, Round, SignedExtension, VoteType};
use assent_proto as proto;
use assent_proto::{BlockId, Header, PublicKey, SecretKey, Signature};

use crate::types::Turns;

/// A validator's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who(pub(crate) proto::Address);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl core::Address for Who {}

/// A height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct At(pub(crate) u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl core::Height for At {
    const ZERO: Self = At(0);
    const INITIAL: Self = At(1);
    fn increment_by(&self, n: u64) -> Self {
        At(self.0.saturating_add(n))
    }
    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(At)
    }
    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// What is decided: a header, named by its id. The body travels elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    id: BlockId,
    header: Arc<Header>,
}

impl Value {
    pub(crate) fn of(header: Header) -> Self {
        Value { id: header.id(), header: Arc::new(header) }
    }
    pub(crate) fn block(&self) -> BlockId {
        self.id
    }
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }
}

// The id is the header's hash: it alone says which value this is.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Value {}
impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Value {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}
impl core::Value for Value {
    type Id = BlockId;
    fn id(&self) -> BlockId {
        self.id
    }
}

/// A proposal, unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) height: At,
    pub(crate) round: Round,
    pub(crate) value: Value,
    pub(crate) valid_round: Round,
    pub(crate) proposer: Who,
}

impl core::Proposal<Protocol> for Proposal {
    fn height(&self) -> At {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &Value {
        &self.value
    }
    fn take_value(self) -> Value {
        self.value
    }
    fn pol_round(&self) -> Round {
        self.valid_round
    }
    fn validator_address(&self) -> &Who {
        &self.proposer
    }
}

/// A vote, unsigned. Votes carry no extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) kind: VoteType,
    pub(crate) height: At,
    pub(crate) round: Round,
    pub(crate) value: NilOrVal<BlockId>,
    pub(crate) validator: Who,
}

impl core::Vote<Protocol> for Vote {
    fn height(&self) -> At {
        self.height
    }
    fn round(&self) -> Round {
        self.round
    }
    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }
    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }
    fn vote_type(&self) -> VoteType {
        self.kind
    }
    fn validator_address(&self) -> &Who {
        &self.validator
    }
    fn extension(&self) -> Option<&SignedExtension<Protocol>> {
        None
    }
    fn take_extension(&mut self) -> Option<SignedExtension<Protocol>> {
        None
    }
    fn extend(self, _: SignedExtension<Protocol>) -> Self {
        self
    }
}

/// A validator with its address worked out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) address: Who,
    pub(crate) key: PublicKey,
    pub(crate) power: u64,
}

impl core::Validator<Protocol> for Voter {
    fn address(&self) -> &Who {
        &self.address
    }
    fn public_key(&self) -> &PublicKey {
        &self.key
    }
    fn voting_power(&self) -> u64 {
        self.power
    }
}

/// The validators in the order of the chain's set, which certificates refer to, and the order of their turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roster(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    set: proto::ValidatorSet,
    voters: Vec<Voter>,
    order: Vec<u32>,
}

impl Roster {
    /// Nobody: before the first height begins.
    pub(crate) fn nobody() -> Self {
        let set = proto::ValidatorSet { validators: Default::default() };
        Roster(Arc::new(Inner { set, voters: Vec::new(), order: Vec::new() }))
    }

    /// Unless the order names each validator once.
    pub(crate) fn of(turns: Turns) -> Option<Self> {
        let Turns { set, order } = turns;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if set.validators.is_empty() || !sorted.into_iter().eq(0..set.validators.len() as u32) {
            return None;
        }
        let voter =
            |v: &proto::Validator| Voter { address: Who(v.address()), key: v.key, power: u64::from(v.power) };
        let voters = set.validators.iter().map(voter).collect();
        Some(Roster(Arc::new(Inner { set, voters, order })))
    }
    pub(crate) fn set(&self) -> &proto::ValidatorSet {
        &self.0.set
    }
    pub(crate) fn at(&self, index: usize) -> Option<&Voter> {
        self.0.voters.get(index)
    }
    pub(crate) fn index(&self, who: &Who) -> Option<usize> {
        self.0.voters.iter().position(|v| v.address == *who)
    }
    pub(crate) fn voter(&self, who: &Who) -> Option<&Voter> {
        self.0.voters.iter().find(|v| v.address == *who)
    }
    pub(crate) fn total_power(&self) -> u64 {
        self.0.set.total_power()
    }
    pub(crate) fn proposer(&self, round: u32) -> &Voter {
        let turn = self.0.order[round as usize % self.0.order.len()];
        &self.0.voters[turn as usize]
    }
}

impl core::ValidatorSet<Protocol> for Roster {
    fn count(&self) -> usize {
        self.0.voters.len()
    }
    fn total_voting_power(&self) -> u64 {
        self.total_power()
    }
    fn get_by_address(&self, address: &Who) -> Option<&Voter> {
        self.voter(address)
    }
    fn get_by_index(&self, index: usize) -> Option<&Voter> {
        self.0.voters.get(index)
    }
}

/// Bodies do not pass through the core, so it knows no part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoPart {}

impl core::ProposalPart<Protocol> for NoPart {
    fn is_first(&self) -> bool {
        match *self {}
    }
    fn is_last(&self) -> bool {
        match *self {}
    }
}

/// Ed25519 as `assent-proto` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme;

impl core::SigningScheme for Scheme {
    type DecodingError = &'static str;
    type Signature = Signature;
    type PublicKey = PublicKey;
    type PrivateKey = SecretKey;
    fn decode_signature(bytes: &[u8]) -> Result<Signature, &'static str> {
        bytes.try_into().map(Signature).map_err(|_| "a signature has 64 bytes")
    }
    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }
    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, &'static str> {
        let bytes = bytes.try_into().map_err(|_| "a public key has 32 bytes")?;
        Ok(PublicKey(proto::Hash(bytes)))
    }
    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }
}

/// The protocol, for the core.
#[derive(Clone, Debug)]
pub(crate) struct Protocol;

impl core::Context for Protocol {
    type Address = Who;
    type Height = At;
    type ProposalPart = NoPart;
    type Proposal = Proposal;
    type Validator = Voter;
    type ValidatorSet = Roster;
    type Timeouts = core::LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = ();
    type SigningScheme = Scheme;

    fn select_proposer<'a>(&self, set: &'a Roster, _: At, round: Round) -> &'a Voter {
        set.proposer(round.as_u32().unwrap_or(0))
    }

    fn new_proposal(
        &self,
        height: At,
        round: Round,
        value: Value,
        valid_round: Round,
        proposer: Who,
    ) -> Proposal {
        Proposal { height, round, value, valid_round, proposer }
    }

    fn new_prevote(&self, height: At, round: Round, value: NilOrVal<BlockId>, validator: Who) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, validator }
    }

    fn new_precommit(&self, height: At, round: Round, value: NilOrVal<BlockId>, validator: Who) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, validator }
    }
}
