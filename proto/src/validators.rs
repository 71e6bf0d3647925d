//! Who votes, with what weight, and what a vote signs.

use crate::block::BlockId;
use crate::field::{List, Message, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::keys::{Algorithm, PublicKey};

messages! {
    /// A validator: its consensus key, its weight, and the institution that it belongs to.
    Validator {
        /// Algorithm.
        algorithm: Algorithm,
        /// Consensus key.
        key: PublicKey,
        /// Voting power, 1 to [`POWER_MAX`].
        power: u32,
        /// Institution.
        institution: InstitutionId,
    }
    /// The validators of one height, in the order that certificates refer to.
    ValidatorSet {
        /// 1 to 128.
        validators: List<Validator, 128>,
    }
}

/// The most voting power of one validator.
pub const POWER_MAX: u32 = 1_000_000;

impl Validator {
    /// Its address.
    pub fn address(&self) -> Address {
        address(&self.key)
    }
}

/// The address of the validator that votes with a key.
pub fn address(key: &PublicKey) -> Address {
    let h = hash::ADDRESS.hash(&[key.as_bytes()]);
    let mut a = [0; 20];
    a.copy_from_slice(&h.0[..20]);
    Address(a)
}

impl ValidatorSet {
    /// Names the set in headers.
    pub fn hash(&self) -> Hash {
        hash::VALIDATORS.hash(&[&self.encode()])
    }

    /// All voting power.
    pub fn total_power(&self) -> u64 {
        self.validators.iter().map(|v| u64::from(v.power)).sum()
    }

    /// Whether `power` is more than two thirds of all.
    pub fn is_quorum(&self, power: u64) -> bool {
        power * 3 > self.total_power() * 2
    }

    /// The index and validator of an address.
    pub fn by_address(&self, address: &Address) -> Option<(u32, &Validator)> {
        self.validators.iter().enumerate().find(|(_, v)| v.address() == *address).map(|(i, v)| (i as u32, v))
    }

    /// The order of turns at a height, as indexes of validators: round `r` is that of entry `r`, beginning again
    /// at the end. It moves on by one each height; those passed over come last, so that they cost the others
    /// nothing and yet nobody's turn is lost.
    pub fn turns(&self, height: Height, passed_over: impl Fn(&Address) -> bool) -> Vec<u32> {
        let n = self.validators.len() as u64;
        let rotated = (0..n).map(|i| ((height.0 + i) % n) as u32);
        let late = |i: &u32| passed_over(&self.validators[*i as usize].address());
        let (late, mut order): (Vec<_>, Vec<_>) = rotated.partition(late);
        order.extend(late);
        order
    }
}

/// What a proposer signs.
pub fn proposal_message(
    genesis: &GenesisHash,
    height: Height,
    round: u32,
    valid_round: Option<u32>,
    block: &BlockId,
    proposer: &Address,
) -> Hash {
    hash::SIGN_PROPOSAL
        .hasher()
        .bytes(genesis.as_bytes())
        .number(height.0)
        .number(u64::from(round))
        .number(valid_round.map_or(0, |r| u64::from(r) + 1))
        .hash(&block.0)
        .bytes(&proposer.0)
        .end()
}

/// The two kinds of vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum VoteKind {
    /// First vote of a round.
    Prevote = 1,
    /// Second vote of a round; a quorum of them certifies a block.
    Precommit = 2,
}

/// What a validator signs when it votes; `None` votes for nil.
pub fn vote_message(
    genesis: &GenesisHash,
    kind: VoteKind,
    height: Height,
    round: u32,
    block: Option<&BlockId>,
    validator: &Address,
) -> Hash {
    let (some, id) = match block {
        Some(id) => (1, id.0),
        None => (0, Hash::ZERO),
    };
    hash::SIGN_VOTE
        .hasher()
        .bytes(genesis.as_bytes())
        .number(kind as u64)
        .number(height.0)
        .number(u64::from(round))
        .number(some)
        .hash(&id)
        .bytes(&validator.0)
        .end()
}
