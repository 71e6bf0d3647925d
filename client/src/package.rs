//! The package that a custodian releases: records with their salts, encrypted to the grantee's key (age,
//! X25519), and what the grantee checks when opening it (R3).

use age::x25519::{Identity, Recipient};
use assent_proto::state::Permit;
use assent_proto::{Hash, PermitId, hash, merkle};
use bech32::{Bech32, Hrp};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::store::StoredRecord;

/// What is inside a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The permit that it is released on.
    pub permit: PermitId,
    /// The records, in the order in which they were permitted.
    pub records: Vec<StoredRecord>,
}

impl Package {
    /// Encrypts it to an institution's encryption key.
    pub fn seal(&self, to: &Hash) -> Result<Vec<u8>, Failure> {
        let plain = serde_json::to_vec(self).expect("a package is plain data");
        age::encrypt(&recipient(to)?, &plain).map_err(|e| Failure::local("Encrypt", e.to_string()))
    }

    /// Decrypts one.
    pub fn open(bytes: &[u8], identity: &Identity) -> Result<Package, Failure> {
        let plain = age::decrypt(identity, bytes).map_err(|e| {
            Failure::local("NotForUs", format!("the package does not open with this key: {e}"))
        })?;
        serde_json::from_slice(&plain)
            .map_err(|e| Failure::local("NotAPackage", format!("the package holds something else: {e}")))
    }

    /// Whether these are just the records that were permitted, unaltered: each content under its salt gives
    /// the commitment, and the records give the permit's manifest.
    pub fn check(&self, permit: &Permit) -> Result<(), Failure> {
        if let Some(bad) = self.records.iter().find(|r| !r.commitment_holds()) {
            let message = format!("{} is not the content that {} commits to", bad.reference, bad.commitment);
            return Err(Failure::Proof(message));
        }
        let leaves: Vec<_> = self.records.iter().map(|r| r.record().leaf()).collect();
        if merkle::root(&leaves) != permit.manifest || leaves.len() as u64 != u64::from(permit.records) {
            return Err(Failure::Proof("the records are not those that the permit names".into()));
        }
        Ok(())
    }
}

/// The hash by which a delivery names the encrypted package.
pub fn package_hash(bytes: &[u8]) -> Hash {
    hash::DOCUMENT.hash(&[bytes])
}

/// The age recipient of an X25519 key.
pub fn recipient(key: &Hash) -> Result<Recipient, Failure> {
    let text = bech32::encode::<Bech32>(Hrp::parse_unchecked("age"), &key.0).expect("32 bytes fit");
    text.parse().map_err(|e: &str| Failure::local("BadEncryptionKey", e))
}

/// The age identity of an X25519 secret.
pub(crate) fn identity_text(secret: &[u8; 32]) -> String {
    bech32::encode_upper::<Bech32>(Hrp::parse_unchecked("age-secret-key-"), secret).expect("32 bytes fit")
}

/// The X25519 key of an age recipient.
pub fn key_of(recipient: &Recipient) -> Result<Hash, Failure> {
    let bad = || Failure::local("BadEncryptionKey", "the age recipient is not an X25519 key");
    let (_, bytes) = bech32::decode(&recipient.to_string()).map_err(|_| bad())?;
    bytes.try_into().map(Hash).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_recipients_convert_both_ways() {
        let identity = Identity::generate();
        let key = key_of(&identity.to_public()).unwrap();
        assert_eq!(recipient(&key).unwrap(), identity.to_public());
        let secret = [0x42; 32];
        let identity: Identity = identity_text(&secret).parse().unwrap();
        assert_eq!(key_of(&identity.to_public()).unwrap(), assent_proto::keys::encryption_public(&secret));
    }
}
