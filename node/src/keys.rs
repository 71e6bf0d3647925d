//! The node's two secret keys on disk: 64 hexadecimal digits in a file that its owner alone can read.
//!
//! No secret is printed or logged here, and none leaves this module but as a [`SecretKey`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use assent_proto::{Hash, SecretKey};

/// Signs votes and proposals.
pub const CONSENSUS_KEY: &str = "consensus.key";
/// Names the node to its peers.
pub const NETWORK_KEY: &str = "network.key";

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A key must never be written over: a lost consensus key cannot be had back.
    #[error("{0} exists already; move it away if you mean to make new keys")]
    Exists(PathBuf),
    /// Others can read it.
    #[error("{0} can be read by others (mode {1:o}); run: chmod 600 {0}")]
    TooOpen(PathBuf, u32),
    /// Not a key.
    #[error("{0} is not a key file: 64 hexadecimal digits are expected")]
    NotAKey(PathBuf),
    /// The system has no randomness.
    #[error("the system gave no randomness: {0}")]
    Randomness(String),
}

/// The node's secrets.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs votes and proposals.
    pub consensus: SecretKey,
    /// Names the node to its peers.
    pub network: SecretKey,
}

impl Keys {
    /// Draws two keys and writes them under `home`, which is made if it is not there. Writes over nothing.
    pub fn create(home: &Path) -> Result<Keys, KeyError> {
        make_home(home)?;
        let paths = [home.join(CONSENSUS_KEY), home.join(NETWORK_KEY)];
        if let Some(path) = paths.iter().find(|p| p.exists()) {
            return Err(KeyError::Exists(path.clone()));
        }
        let keys = Keys { consensus: draw()?, network: draw()? };
        write(&paths[0], &keys.consensus)?;
        write(&paths[1], &keys.network)?;
        Ok(keys)
    }

    /// Reads the two keys under `home`.
    pub fn load(home: &Path) -> Result<Keys, KeyError> {
        Ok(Keys { consensus: read(&home.join(CONSENSUS_KEY))?, network: read(&home.join(NETWORK_KEY))? })
    }
}

/// Makes the node's directory, for its owner alone.
pub fn make_home(home: &Path) -> Result<(), KeyError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(home);
    made.map_err(|error| KeyError::Io { path: home.into(), error })
}

fn draw() -> Result<SecretKey, KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| KeyError::Randomness(e.to_string()))?;
    Ok(SecretKey::from_bytes(&seed))
}

/// Writes a new file and makes it durable before anybody registers the public key.
pub fn write(path: &Path, key: &SecretKey) -> Result<(), KeyError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
        _ => KeyError::Io { path: path.into(), error },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(format!("{}\n", hex::encode(key.to_bytes())).as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Reads a key file, and refuses one that others can read.
pub fn read(path: &Path) -> Result<SecretKey, KeyError> {
    let io = |error| KeyError::Io { path: path.into(), error };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen(path.into(), mode));
    }
    let mut text = String::new();
    file.take(128).read_to_string(&mut text).map_err(io)?;
    let bytes = Hash::from_hex(text.trim()).ok_or_else(|| KeyError::NotAKey(path.into()))?;
    Ok(SecretKey::from_bytes(bytes.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_come_back_and_are_never_written_over() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().join("node");
        let made = Keys::create(&home).unwrap();
        let read = Keys::load(&home).unwrap();
        assert_eq!(made.consensus.public(), read.consensus.public());
        assert_eq!(made.network.public(), read.network.public());
        assert_ne!(made.consensus.public(), made.network.public());
        assert!(matches!(Keys::create(&home), Err(KeyError::Exists(_))));
        assert_eq!(fs::metadata(home.join(CONSENSUS_KEY)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Keys::create(home.path()).unwrap();
        let path = home.path().join(NETWORK_KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keys::load(home.path()), Err(KeyError::TooOpen(_, 0o640))));
    }

    #[test]
    fn a_damaged_key_file_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Keys::create(home.path()).unwrap();
        fs::write(home.path().join(CONSENSUS_KEY), "not hexadecimal").unwrap();
        assert!(matches!(Keys::load(home.path()), Err(KeyError::NotAKey(_))));
    }
}
