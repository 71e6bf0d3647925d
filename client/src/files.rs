//! Files that hold secrets or personal data: mode 0600, written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The most bytes that any file read here may have.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let size = fs::metadata(path).map_err(|e| Failure::file(path, e))?.len();
    if size > FILE_BYTES_MAX {
        return Err(Failure::file(path, format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(path).map_err(|e| Failure::file(path, e))
}

/// Reads a UTF-8 file.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| Failure::file(path, "is not UTF-8 text"))
}

/// Reads a JSON file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&read(path)?)
        .map_err(|e| Failure::file(path, format!("is not what is expected: {e}")))
}

/// Creates a file of mode 0600 with the bytes; never overwrites one.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let temporary = write_beside(path, bytes)?;
    // A link fails where the name is taken; a rename would replace it.
    let linked = fs::hard_link(&temporary, path);
    drop(fs::remove_file(&temporary));
    linked.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::local(
            "FileExists",
            format!("{}: exists already, and is not overwritten", path.display()),
        ),
        _ => Failure::file(path, e),
    })
}

/// Puts a file of mode 0600 with the bytes in the place of the one that is there, if any, at once.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(&temporary, path).map_err(|e| Failure::file(path, e))
}

/// Refuses a file of secrets that others may read.
pub fn check_private(path: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(path).map_err(|e| Failure::file(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = format!("{}: others may read it; run chmod 600 on it", path.display());
        return Err(Failure::local("FileNotPrivate", message));
    }
    Ok(())
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let mut suffix = [0; 8];
    fill_random(&mut suffix);
    let name = path.file_name().ok_or_else(|| Failure::file(path, "is not a file name"))?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), hex::encode(suffix)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| {
        drop(fs::remove_file(&temporary));
        Failure::file(path, e)
    })?;
    Ok(temporary)
}

/// Fills the bytes from the system's random source; without one there is no safe way on.
pub fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system has a random source");
}

/// 32 random bytes: a salt, a key's seed.
pub fn random_32() -> [u8; 32] {
    let mut bytes = [0; 32];
    fill_random(&mut bytes);
    bytes
}
