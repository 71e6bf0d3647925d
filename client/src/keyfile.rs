//! Key files: JSON with secrets, encrypted with a passphrase in the age format (scrypt, N = 2^16, r = 8,
//! p = 1), mode 0600. Any age implementation can decrypt one. Nothing here asks for the passphrase.

use std::path::Path;

use age::secrecy::{ExposeSecret, SecretString};
use assent_proto::{InstitutionId, PublicKey, SecretKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::files;

/// The work factor: log2 of scrypt's N. 2^16 takes about 64 MiB and a quarter of a second.
pub const WORK_FACTOR_LOG2: u8 = 16;
/// The highest work factor that is accepted of a file, so that a planted one cannot exhaust the machine.
const WORK_FACTOR_LOG2_MAX: u8 = 20;

/// What a key file holds; the tag keeps one kind from being taken for another.
pub trait Secrets: Serialize + DeserializeOwned {
    /// Names the kind inside the file.
    const KIND: &'static str;
}

#[derive(Serialize, Deserialize)]
struct Framed<T> {
    kind: String,
    version: u32,
    secrets: T,
}

/// Creates a key file; never overwrites one.
pub fn create<T: Secrets>(path: &Path, secrets: &T, passphrase: &SecretString) -> Result<(), Failure> {
    files::create(path, &seal(secrets, passphrase)?)
}

/// Puts changed secrets in the place of an existing key file, at once.
pub fn replace<T: Secrets>(path: &Path, secrets: &T, passphrase: &SecretString) -> Result<(), Failure> {
    files::replace(path, &seal(secrets, passphrase)?)
}

/// Opens a key file.
pub fn open<T: Secrets>(path: &Path, passphrase: &SecretString) -> Result<T, Failure> {
    files::check_private(path)?;
    let mut identity = age::scrypt::Identity::new(passphrase.clone());
    identity.set_max_work_factor(WORK_FACTOR_LOG2_MAX);
    let plain = age::decrypt(&identity, &files::read(path)?).map_err(|e| match e {
        age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
            Failure::local("WrongPassphrase", format!("{}: the passphrase is wrong", path.display()))
        }
        other => Failure::local("NotAKeyFile", format!("{}: {other}", path.display())),
    })?;
    let framed: Framed<T> = serde_json::from_slice(&plain).map_err(|_| {
        Failure::local("NotAKeyFile", format!("{}: holds something else than {}", path.display(), T::KIND))
    })?;
    if framed.kind != T::KIND || framed.version != 1 {
        let message = format!("{}: holds {}, not {}", path.display(), framed.kind, T::KIND);
        return Err(Failure::local("NotAKeyFile", message));
    }
    Ok(framed.secrets)
}

fn seal<T: Secrets>(secrets: &T, passphrase: &SecretString) -> Result<Vec<u8>, Failure> {
    #[derive(Serialize)]
    struct Frame<'a, T> {
        kind: &'static str,
        version: u32,
        secrets: &'a T,
    }
    let plain =
        serde_json::to_vec(&Frame { kind: T::KIND, version: 1, secrets }).expect("secrets are plain data");
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(WORK_FACTOR_LOG2);
    age::encrypt(&recipient, &plain).map_err(|e| Failure::local("Encrypt", e.to_string()))
}

/// An institution's secrets: the operator key that signs for it, and the age identity that opens packages.
#[derive(Serialize, Deserialize)]
pub struct InstitutionSecrets {
    /// The institution's short name in the genesis file.
    pub slug: String,
    /// Seed of the operator key, 64 hexadecimal digits.
    operator: String,
    /// The age identity, `AGE-SECRET-KEY-1…`.
    age_identity: String,
    /// Seed of the operator key that is to come, from before the chain hears of it until it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Which of two keys the chain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The one that was there before.
    Old,
    /// The one that was to come: it is the key now.
    New,
}

/// The key that is to come: the one that waits already, or a fresh one. Save the file before anybody sees it.
pub(crate) fn prepare(next: &mut Option<String>) -> Result<SecretKey, Failure> {
    secret_key(next.get_or_insert_with(|| hex::encode(files::random_32())))
}

/// Takes the key that was to come over once the chain has it; until then both stay.
pub(crate) fn settle(
    key: &mut String,
    next: &mut Option<String>,
    on_chain: &[PublicKey],
) -> Result<Settled, Failure> {
    let has = |seed: &str| Ok::<_, Failure>(on_chain.contains(&secret_key(seed)?.public()));
    if let Some(new) =
        next.as_deref().map(|n| Ok::<_, Failure>(has(n)?.then(|| n.to_owned()))).transpose()?.flatten()
    {
        (*key, *next) = (new, None);
        return Ok(Settled::New);
    }
    match has(key)? {
        true => Ok(Settled::Old),
        false => Err(Failure::local(
            "KeyReplaced",
            "the chain has another key: this one was replaced from elsewhere",
        )),
    }
}

impl Secrets for InstitutionSecrets {
    const KIND: &'static str = "assent-institution";
}

impl InstitutionSecrets {
    /// Draws fresh secrets.
    pub fn generate(slug: &str) -> Self {
        let identity = age::x25519::Identity::generate();
        InstitutionSecrets {
            slug: slug.to_owned(),
            operator: hex::encode(files::random_32()),
            next: None,
            age_identity: identity.to_string().expose_secret().to_owned(),
        }
    }

    /// From keys that were drawn elsewhere: the operator key, and the X25519 secret that opens packages.
    pub fn from_parts(slug: &str, operator: &SecretKey, encryption: &[u8; 32]) -> Result<Self, Failure> {
        let secrets = InstitutionSecrets {
            slug: slug.to_owned(),
            operator: hex::encode(operator.to_bytes()),
            next: None,
            age_identity: crate::package::identity_text(encryption),
        };
        secrets.identity()?;
        Ok(secrets)
    }

    /// The operator key.
    pub fn operator(&self) -> Result<SecretKey, Failure> {
        secret_key(&self.operator)
    }

    /// The operator key that is to come; save the file before anybody sees it.
    pub fn prepare(&mut self) -> Result<SecretKey, Failure> {
        prepare(&mut self.next)
    }

    /// Takes it over once it is among the keys that the chain has.
    pub fn settle(&mut self, on_chain: &[PublicKey]) -> Result<Settled, Failure> {
        settle(&mut self.operator, &mut self.next, on_chain)
    }

    /// What opens packages sent to the institution.
    pub fn identity(&self) -> Result<age::x25519::Identity, Failure> {
        self.age_identity.parse().map_err(|e: &str| Failure::local("NotAKeyFile", e))
    }

    /// The X25519 public key that packages are encrypted to.
    pub fn encryption_key(&self) -> Result<assent_proto::Hash, Failure> {
        crate::package::key_of(&self.identity()?.to_public())
    }

    /// The institution's id.
    pub fn institution(&self) -> InstitutionId {
        assent_genesis::institution_id(&self.slug)
    }
}

/// Reads a secret key from 64 hexadecimal digits.
pub fn secret_key(text: &str) -> Result<SecretKey, Failure> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text, &mut seed)
        .map_err(|_| Failure::local("NotAKeyFile", "a secret key is 64 hexadecimal digits"))?;
    Ok(SecretKey::from_bytes(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn passphrase(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn a_key_file_is_private_and_opens_with_its_passphrase_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.age");
        let secrets = InstitutionSecrets::generate("bureau");
        create(&path, &secrets, &passphrase("right")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read(&path).unwrap();
        assert!(!text.windows(64).any(|w| w == secrets.operator.as_bytes()), "the seed is not in the clear");

        let opened: InstitutionSecrets = open(&path, &passphrase("right")).unwrap();
        assert_eq!(opened.operator().unwrap().public(), secrets.operator().unwrap().public());
        assert_eq!(opened.encryption_key().unwrap(), secrets.encryption_key().unwrap());
        let wrong = open::<InstitutionSecrets>(&path, &passphrase("wrong")).err().unwrap();
        assert_eq!((wrong.name(), wrong.exit()), ("WrongPassphrase", 1));
        assert!(!wrong.to_string().contains(&secrets.operator));
    }

    #[test]
    fn a_key_file_is_never_overwritten_and_refused_when_others_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.age");
        create(&path, &InstitutionSecrets::generate("bureau"), &passphrase("x")).unwrap();
        let before = std::fs::read(&path).unwrap();
        let again = create(&path, &InstitutionSecrets::generate("bureau"), &passphrase("x")).err().unwrap();
        assert_eq!(again.name(), "FileExists");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open_to_all = open::<InstitutionSecrets>(&path, &passphrase("x")).err().unwrap();
        assert_eq!(open_to_all.name(), "FileNotPrivate");
    }

    #[test]
    fn r18_a_rotation_that_stops_anywhere_loses_no_key_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.age");
        let right = passphrase("x");
        let mut secrets = InstitutionSecrets::generate("bureau");
        let old = secrets.operator().unwrap().public();
        create(&path, &secrets, &right).unwrap();
        let new = secrets.prepare().unwrap().public();
        replace(&path, &secrets, &right).unwrap();

        // It stopped before the chain heard of it, or the chain said no: the old key signs, the new one waits.
        let mut before: InstitutionSecrets = open(&path, &right).unwrap();
        assert_eq!(before.settle(&[old]).unwrap(), Settled::Old);
        assert_eq!(before.operator().unwrap().public(), old);
        assert_eq!(before.prepare().unwrap().public(), new, "the same again, not a third");

        // It stopped after: the new key is found on the chain, whether the old one stayed there or not.
        for on_chain in [&[new][..], &[old, new]] {
            let mut after: InstitutionSecrets = open(&path, &right).unwrap();
            assert_eq!(after.settle(on_chain).unwrap(), Settled::New);
            assert_eq!(after.operator().unwrap().public(), new);
            assert_ne!(after.prepare().unwrap().public(), new, "the next rotation draws a fresh one");
        }
        let other = SecretKey::from_bytes(&[1; 32]).public();
        let mut foreign: InstitutionSecrets = open(&path, &right).unwrap();
        assert_eq!(foreign.settle(&[other]).unwrap_err().name(), "KeyReplaced");
        assert_eq!(foreign.operator().unwrap().public(), old);
        assert_eq!(foreign.prepare().unwrap().public(), new);
    }

    #[test]
    fn damaged_and_foreign_files_are_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.age");
        create(&path, &InstitutionSecrets::generate("bureau"), &passphrase("x")).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for broken in [&b"not age at all"[..], &bytes[..bytes.len() - 1], &[]] {
            std::fs::write(&path, broken).unwrap();
            let failure = open::<InstitutionSecrets>(&path, &passphrase("x")).err().unwrap();
            assert_eq!(failure.exit(), 1, "{failure}");
        }
    }
}
