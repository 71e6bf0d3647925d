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

    fn record(n: u8) -> StoredRecord {
        let (salt, content) = (Hash([n; 32]), format!("{{\"n\":{n}}}"));
        StoredRecord {
            reference: format!("Claim/{n}"),
            account: assent_proto::AccountId(Hash([1; 32])),
            day: assent_proto::Day(n.into()),
            salt,
            commitment: crate::store::commitment(&salt, &content),
            content,
            item: assent_proto::ItemId::of(1, 1),
            batch: assent_proto::BatchId(Hash::ZERO),
            index: n.into(),
            path: Vec::new(),
        }
    }

    fn permit(records: &[StoredRecord]) -> Permit {
        let leaves: Vec<_> = records.iter().map(|r| r.record().leaf()).collect();
        Permit {
            grant: None,
            item: assent_proto::ItemId::of(1, 1),
            account: None,
            requester: assent_genesis::institution_id("insurer"),
            custodian: assent_genesis::institution_id("hospital-a"),
            case: None,
            purpose: assent_proto::transaction::Purpose::ClaimsPayment,
            action: assent_proto::transaction::UseAction::Read,
            output: assent_proto::transaction::Output::Raw,
            level: assent_proto::transaction::Level::High,
            manifest: merkle::root(&leaves),
            records: leaves.len() as u32,
            staff: assent_proto::Commitment(Hash::ZERO),
            height: assent_proto::Height(1),
            expires_at: assent_proto::TimeMs(1),
            delivered_height: None,
            order: None,
            emergency: None,
            undelivered: false,
            notified_height: None,
        }
    }

    #[test]
    fn r3_a_package_opens_for_the_grantee_alone_and_holds_just_what_was_permitted() {
        let (grantee, stranger) = (Identity::generate(), Identity::generate());
        let records = vec![record(1), record(2)];
        let permit = permit(&records);
        let package = Package { permit: PermitId(Hash([9; 32])), records };
        let sealed = package.seal(&key_of(&grantee.to_public()).unwrap()).unwrap();
        assert_eq!(Package::open(&sealed, &stranger).err().unwrap().name(), "NotForUs");
        let opened = Package::open(&sealed, &grantee).unwrap();
        assert_eq!(opened, package);
        opened.check(&permit).unwrap();

        let altered = |change: &dyn Fn(&mut Vec<StoredRecord>)| {
            let mut p = package.clone();
            change(&mut p.records);
            p.check(&permit).err().map(|f| f.exit())
        };
        assert_eq!(altered(&|r| r[0].content.push(' ')), Some(4), "another content");
        assert_eq!(altered(&|r| r[0].salt = Hash::ZERO), Some(4), "another salt");
        assert_eq!(altered(&|r| r[0].day.0 += 1), Some(4), "another day");
        assert_eq!(altered(&|r| drop(r.pop())), Some(4), "one missing");
        assert_eq!(altered(&|r| r.push(record(3))), Some(4), "one more than permitted");
        assert_eq!(altered(&|r| r.swap(0, 1)), Some(4), "another order");
    }
}
