//! The Assent protocol: messages, canonical bytes, ids, signatures, headers, certificates, proofs.
//!
//! All that a wallet or an auditor needs, and nothing that a node needs: no runtime, no storage, no sockets.
//! Read it in the order of the modules: bytes ([`hash`], [`field`]), what is signed ([`transaction`],
//! [`envelope`], [`keys`]), what it becomes ([`state`], [`event`]), what is agreed on ([`block`],
//! [`validators`]), and what can be proved of it ([`merkle`], [`trie`], [`evidence`]). What a party may ask without
//! anything being done is [`question`].

pub mod block;
pub mod code;
pub mod envelope;
pub mod epochs;
pub mod event;
pub mod evidence;
pub mod field;
pub mod hash;
pub mod ids;
pub mod keys;
pub mod merkle;
pub mod mutation;
pub mod question;
pub mod since;
pub mod state;
pub mod transaction;
pub mod trie;
pub mod validators;

/// The messages as `prost` generates them from `proto/schema`. Everything else in this crate is the checked
/// form of one of these; nothing outside this crate should build them but for transport.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/assent.v1.rs"));
}

/// The schema's file descriptor set, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use block::{Block, BlockId, CertifiedHeader, CommitCertificate, Header};
pub use code::{Denial, Invalid};
pub use envelope::{Envelope, VerifiedTx};
pub use event::{Event, EventCore, Link, Receipt};
pub use field::{DecodeError, List};
pub use hash::Hash;
pub use ids::*;
pub use keys::{PublicKey, SecretKey, Signature};
pub use state::{Leaf, ObjectKind, ObjectRef, Trail};
pub use transaction::{Action, Author, Body};
pub use validators::{Validator, ValidatorSet};
