//! Who votes at a height and whose turn it is in each round, read from the state below it. What a certificate
//! shows about the turns of its height is read here too. Nothing here is remembered: what holds at a height
//! follows from the state alone, so that a restart or a snapshot leads to the same.

use assent_consensus::Turns;
use assent_ledger::{ParentTurns, State};
use assent_proto::validators::Validator;
use assent_proto::{Address, CommitCertificate, Hash, Height, ValidatorSet};

/// The validators of one height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voting {
    set: ValidatorSet,
    hash: Hash,
    /// In the order of the set.
    addresses: Vec<Address>,
    /// Indexes in the set: round `r` is the turn of entry `r`, counted around.
    order: Vec<u32>,
}

impl Voting {
    /// Who votes at a height above the newest block, or at its own, as the state after it says. For the height
    /// of the newest block itself it gives what the state before gave: what a block changes counts from the next
    /// height on.
    pub(crate) fn at(state: &State, height: Height) -> Voting {
        let set = assent_ledger::validators(state).at(height).clone();
        let turns = assent_ledger::turns(state);
        let order = set.turns(height, |a| turns.passed_over(a, height));
        let addresses = set.validators.iter().map(Validator::address).collect();
        Voting { hash: set.hash(), addresses, order, set }
    }

    /// The set.
    pub(crate) fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// Names the set in headers.
    pub(crate) fn hash(&self) -> Hash {
        self.hash
    }

    /// What consensus has to know of a height.
    pub(crate) fn turns(&self) -> Turns {
        Turns { set: self.set.clone(), order: self.order.clone() }
    }

    /// Everyone who votes.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The validator of an address.
    pub(crate) fn by_address(&self, address: &Address) -> Option<&Validator> {
        let index = self.addresses.iter().position(|a| a == address)?;
        Some(&self.set.validators[index])
    }

    /// Whether an address votes.
    pub(crate) fn holds(&self, address: &Address) -> bool {
        self.addresses.contains(address)
    }

    /// Whether those that `present` names are more than two thirds of the power.
    pub(crate) fn is_quorum(&self, present: impl Fn(&Address) -> bool) -> bool {
        let power = self.addresses.iter().zip(&self.set.validators).filter(|(a, _)| present(a));
        self.set.is_quorum(power.map(|(_, v)| u64::from(v.power)).sum())
    }

    /// Whose turn a round is.
    pub(crate) fn proposer(&self, round: u32) -> Address {
        self.addresses[self.order[round as usize % self.order.len()] as usize]
    }

    /// What this height's certificate, as the next block carries it, shows about the turns.
    pub(crate) fn shown_by(&self, certificate: &CommitCertificate) -> ParentTurns {
        let passed = (certificate.round as usize).min(self.order.len());
        let signer = |index: u32| self.addresses.get(index as usize).copied();
        ParentTurns {
            missed: (0..passed as u32).map(|round| self.proposer(round)).collect(),
            proposer: Some(self.proposer(certificate.round)),
            signers: certificate.signatures.iter().filter_map(|s| signer(s.validator)).collect(),
        }
    }
}
