//! Headers, blocks, and the certificates that make them final.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::field::{DecodeError, Element, Field, List, Message, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::keys::{Claim, Signature, verify_batch};
use crate::validators::{ValidatorSet, VoteKind, vote_message};
use crate::wire;

/// A block's id: the hash of its header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId(pub Hash);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl Element for BlockId {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        Hash::read(w, field).map(BlockId)
    }
    fn write(&self) -> Bytes {
        self.0.write()
    }
}
crate::field::plain_field!(BlockId);

messages! {
    /// What validators agree on: everything about a block, with the roots after it.
    Header {
        /// The protocol version in force at its height; see [`crate::state::Protocol`].
        version: u32,
        /// The chain.
        genesis: GenesisHash,
        /// Height, from 1.
        height: Height,
        /// Id of the block below; of block 1, the genesis hash.
        parent: BlockId,
        /// Block time; later than the parent's.
        time: TimeMs,
        /// The validator that built it.
        builder: Address,
        /// Merkle root over the envelope ids.
        tx_root: Hash,
        /// Bytes of all envelopes.
        body_bytes: u32,
        /// Merkle root over the leaves of this block's events.
        events_root: Hash,
        /// Mountain range over the ids of earlier blocks.
        history_root: Hash,
        /// State trie after this block.
        state_root: Hash,
        /// Hash of the validator set of this height.
        validators: Hash,
        /// Hash of the validator set of the next height.
        next_validators: Hash,
        /// Hash of the parent's certificate, which the block carries; zeros in block 1.
        parent_certificate: Hash,
    }
    /// More than two thirds of the voting power precommitted to a block.
    CommitCertificate {
        /// Height.
        height: Height,
        /// Round in which it was decided.
        round: u32,
        /// The block.
        block: BlockId,
        /// By ascending validator index, each at most once.
        signatures: List<CommitSignature, 128>,
    }
    /// One validator's precommit.
    CommitSignature {
        /// Index in the validator set.
        validator: u32,
        /// Over [`vote_message`].
        signature: Signature,
    }
    /// A header that is final.
    CertifiedHeader {
        /// The header.
        header: Header,
        /// Its certificate.
        certificate: CommitCertificate,
    }
}

/// The protocol version by which every chain begins.
pub const PROTOCOL_OLDEST: u32 = 1;
/// The newest protocol version whose rules this build knows. A later one comes into force by a proposal, at a
/// height (see [`crate::state::Protocol`]); what a version changed is asked of the version in force, never of the
/// build.
pub const PROTOCOL_NEWEST: u32 = 2;
/// The most transactions that a block may hold, whatever the parameters say.
pub const BLOCK_TRANSACTIONS_MAX: usize = 65_536;
/// The most bytes of a block's encoding, whatever the parameters say.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;

/// A header with the transactions and the parent's certificate that it commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// Envelopes in the order of execution: what protects first.
    pub transactions: Vec<Bytes>,
    /// The parent's certificate; absent in block 1 alone.
    pub parent_certificate: Option<CommitCertificate>,
}

impl Element for Block {
    type Wire = wire::Block;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        if w.transactions.len() > BLOCK_TRANSACTIONS_MAX {
            return Err(DecodeError::Bounds("transactions"));
        }
        Ok(Block {
            header: Field::read_field(w.header, "header")?,
            transactions: w.transactions,
            parent_certificate: Field::read_field(w.parent_certificate, "parent_certificate")?,
        })
    }
    fn write(&self) -> Self::Wire {
        wire::Block {
            header: self.header.write_field(),
            transactions: self.transactions.clone(),
            parent_certificate: self.parent_certificate.write_field(),
        }
    }
}
crate::field::message_field!(Block);
impl Message for Block {
    const BYTES_MAX: usize = BLOCK_BYTES_MAX;
}

impl Header {
    /// The block's id.
    pub fn id(&self) -> BlockId {
        BlockId(hash::BLOCK_ID.hash(&[&self.encode()]))
    }
}

/// A block is made by rules that came after this program. Nobody is at fault: its operator installs a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "block {height} is of protocol version {version}, and this program knows versions up to {known}: install a newer program"
)]
pub struct UnknownProtocol {
    /// The block's height.
    pub height: Height,
    /// Its version.
    pub version: u32,
    /// The newest version that is known.
    pub known: u32,
}

impl Header {
    /// Whether a program that knows versions up to `known` can say what the block means.
    pub fn check_known(&self, known: u32) -> Result<(), UnknownProtocol> {
        let Header { version, height, .. } = *self;
        if version <= known { Ok(()) } else { Err(UnknownProtocol { height, version, known }) }
    }
}

/// The transaction root over envelopes.
pub fn tx_root(transactions: &[Bytes]) -> Hash {
    let ids: Vec<_> = transactions.iter().map(|t| crate::envelope::Envelope::id(t).0).collect();
    crate::merkle::root(&ids)
}

/// Why a certificate does not make a block final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// For another height or block.
    #[error("the certificate is for another block")]
    OtherBlock,
    /// Names a validator that is not in the set, or one twice, or not in order.
    #[error("the certificate's signers are not validators in ascending order")]
    Signers,
    /// A signature does not hold.
    #[error("signature of validator {0} in the certificate does not hold")]
    Signature(u32),
    /// Not more than two thirds of the voting power.
    #[error("the certificate has {0} of {1} voting power, which is no quorum")]
    NoQuorum(u64, u64),
}

impl CommitCertificate {
    /// Names the certificate in the next header.
    pub fn hash(&self) -> Hash {
        hash::CERTIFICATE.hash(&[&self.encode()])
    }

    /// Whether it certifies `block` at `height` by a quorum of `set`; every signature must hold.
    pub fn verify(
        &self,
        genesis: &GenesisHash,
        set: &ValidatorSet,
        height: Height,
        block: &BlockId,
    ) -> Result<(), BadCertificate> {
        if self.height != height || self.block != *block {
            return Err(BadCertificate::OtherBlock);
        }
        if !self.signatures.is_sorted_by(|a, b| a.validator < b.validator) {
            return Err(BadCertificate::Signers);
        }
        let mut power = 0;
        let mut claims = Vec::with_capacity(self.signatures.len());
        for s in &self.signatures {
            let v = set.validators.get(s.validator as usize).ok_or(BadCertificate::Signers)?;
            power += u64::from(v.power);
            let kind = VoteKind::Precommit;
            let message = vote_message(genesis, kind, height, self.round, Some(block), &v.address());
            claims.push(Claim { key: v.key, message, signature: s.signature });
        }
        if let Some(i) = verify_batch(&claims).iter().position(|ok| !ok) {
            return Err(BadCertificate::Signature(self.signatures[i].validator));
        }
        if !set.is_quorum(power) {
            return Err(BadCertificate::NoQuorum(power, set.total_power()));
        }
        Ok(())
    }
}
