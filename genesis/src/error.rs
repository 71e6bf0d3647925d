//! Why a founding document, or a piece of one, is refused: the place, what is wrong there, and what to do.

use assent_proto::keys::BadKey;
use assent_proto::validators::POWER_MAX;

use crate::{FILE_BYTES_MAX, FORMAT};

/// Why a founding document is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {error}")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// More than [`FILE_BYTES_MAX`].
    #[error("the document is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not TOML, or with fields that are missing, unknown or of the wrong type; says at which line.
    #[error("the document is not well formed: {0}")]
    Text(String),
    /// One part is wrong.
    #[error("{place}: {fault}")]
    At {
        /// Where in the document.
        place: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a part of a founding document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("this build reads format {FORMAT} only")]
    Format,
    #[error("1 to 40 lower-case letters, digits and hyphens are expected, with no hyphen at either end")]
    Slug,
    #[error("1 to 100 characters without control characters are expected")]
    Name,
    #[error("printable ASCII without spaces, at most 200 characters, is expected")]
    Listen,
    #[error("{value} is outside of {min} to {max}")]
    Range { value: u64, min: u64, max: u64 },
    #[error("there must be at least one")]
    Empty,
    #[error("there are more than {0}")]
    TooMany(usize),
    #[error("the same stands at {0}; each may stand once")]
    Duplicate(String),
    #[error("no institution has the slug {0:?}; add it under [[institutions]] or correct the name")]
    UnknownInstitution(String),
    #[error("the voting power is zero; give 1 to {POWER_MAX}, or leave the validator out")]
    ZeroPower,
    #[error("the voting power is above {POWER_MAX}")]
    PowerTooHigh,
    #[error("{0}; make a new key")]
    Key(#[from] BadKey),
    #[error(
        "the proof of possession does not hold; whoever owns the key must sign the piece anew, for this \
         chain id and with the content as it stands here"
    )]
    Possession,
    #[error("the key's validity ends before it begins")]
    Window,
    #[error("the key's validity ends before the founding time")]
    ExpiredAtFounding,
    #[error("a purpose that needs a settlement needs a case: set needs_case = true")]
    SettlementWithoutCase,
    #[error("name a purpose, an item or a category: this would prohibit everything")]
    ProhibitsEverything,
    #[error("the piece was made for the chain {0:?}; it must be made anew for this chain")]
    OtherChain(String),
}

impl Fault {
    pub(crate) fn at(self, place: impl Into<String>) -> GenesisError {
        GenesisError::At { place: place.into(), fault: self }
    }
}
