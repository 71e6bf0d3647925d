//! The rules that founders choose for their chain, the parameters and the policy, as a file of their own. It has the
//! two tables of the founding document and is as strict: what it does not say is not guessed.

use std::path::Path;

use assent_proto::state::{Parameters, Policy};

use crate::error::GenesisError;
use crate::text::{self, RulesFile};
use crate::{check, default_parameters, default_policy};

/// What every validator of a chain shares from its founding on, besides who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Bounds.
    pub parameters: Parameters,
    /// What each use case may see.
    pub policy: Policy,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { parameters: default_parameters(), policy: default_policy() }
    }
}

impl Rules {
    /// Reads and validates the text of such a file: both tables, every field. Every error names the place.
    pub fn parse(toml: &str) -> Result<Rules, GenesisError> {
        let file: RulesFile = text::read(toml)?;
        Ok(Rules { parameters: check::parameters(&file.parameters)?, policy: check::policy(&file.policy)? })
    }

    /// Reads and validates such a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Rules, GenesisError> {
        Self::parse(&text::read_file(path.as_ref())?)
    }

    /// As text, from which [`Rules::parse`] gives the same again.
    pub fn to_toml(&self) -> String {
        let file = RulesFile { parameters: (&self.parameters).into(), policy: (&self.policy).into() };
        text::write(
            &file,
            "The rules of a chain to be founded. All founders need the same. Times in milliseconds.",
        )
    }
}
