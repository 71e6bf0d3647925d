//! What can go wrong, and the exit code that says so. Nothing here prints.

use assent_proto::evidence::BadEvidence;
use assent_proto::field::DecodeError;

/// Why a command did not do what was asked. The kind fixes the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Wrong use, or a local file is missing, unreadable or of another kind. Exit 1.
    #[error("{message}")]
    Local {
        /// A short name that stays the same.
        name: &'static str,
        /// What to do about it.
        message: String,
    },
    /// The node or the ledger refused the request; nothing was committed. Exit 2.
    #[error("refused: {number} ({name}): {message}")]
    Refused {
        /// The number of `assent_proto::code::Invalid`, and 0 where the node gave none.
        number: u32,
        /// Its name.
        name: String,
        /// The node's words.
        message: String,
    },
    /// A proof does not verify, or an answer is not about what was asked. Exit 4.
    #[error("not proved: {0}")]
    Proof(String),
    /// The node does not answer. Exit 5.
    #[error("the node does not answer: {0}")]
    Unreachable(String),
}

/// The exit code of a denial: committed, and the rules said no.
pub const EXIT_DENIED: u8 = 3;
/// The exit code of a proof that does not verify.
pub const EXIT_PROOF: u8 = 4;

impl Failure {
    /// A local failure.
    pub fn local(name: &'static str, message: impl Into<String>) -> Failure {
        Failure::Local { name, message: message.into() }
    }

    /// A file that cannot be used.
    pub fn file(path: &std::path::Path, why: impl std::fmt::Display) -> Failure {
        Failure::local("File", format!("{}: {why}", path.display()))
    }

    /// The process's exit code.
    pub fn exit(&self) -> u8 {
        match self {
            Failure::Local { .. } => 1,
            Failure::Refused { .. } => 2,
            Failure::Proof(_) => EXIT_PROOF,
            Failure::Unreachable(_) => 5,
        }
    }

    /// The short name in the output of `--json`.
    pub fn name(&self) -> &str {
        match self {
            Failure::Local { name, .. } => name,
            Failure::Refused { name, .. } => name,
            Failure::Proof(_) => "ProofFails",
            Failure::Unreachable(_) => "Unreachable",
        }
    }

    /// The refusal's number, and 0 for anything else.
    pub fn number(&self) -> u32 {
        match self {
            Failure::Refused { number, .. } => *number,
            _ => 0,
        }
    }
}

impl From<BadEvidence> for Failure {
    fn from(e: BadEvidence) -> Self {
        Failure::Proof(e.to_string())
    }
}

impl From<DecodeError> for Failure {
    fn from(e: DecodeError) -> Self {
        Failure::Proof(e.to_string())
    }
}
