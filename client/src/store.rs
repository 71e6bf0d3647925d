//! What a custodian keeps of the records it anchored: content, salt, and the record's place in its batch. The
//! file is personal data; losing a salt erases what its commitment means.

use std::path::Path;

use assent_proto::field::List;
use assent_proto::transaction::{Record, RecordProof};
use assent_proto::{AccountId, BatchId, Commitment, Day, Hash, ItemId, hash, merkle};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::files;

/// A record with all that proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRecord {
    /// How the custodian calls it: `Claim/…`.
    pub reference: String,
    /// Whose.
    pub account: AccountId,
    /// The day it speaks of.
    pub day: Day,
    /// Salt of the commitment.
    pub salt: Hash,
    /// The record itself, byte for byte as it was anchored.
    pub content: String,
    /// Salted commitment to the content.
    pub commitment: Commitment,
    /// Its catalogue item.
    pub item: ItemId,
    /// Its batch.
    pub batch: BatchId,
    /// Index in the batch.
    pub index: u32,
    /// Siblings from the leaf up.
    pub path: Vec<Hash>,
}

impl StoredRecord {
    /// The record as the chain knows it.
    pub fn record(&self) -> Record {
        Record { account: self.account, commitment: self.commitment, day: self.day }
    }

    /// Whether the content under its salt gives the commitment.
    pub fn commitment_holds(&self) -> bool {
        commitment(&self.salt, &self.content) == self.commitment
    }

    /// What a requester needs to know of it: no content, no salt.
    pub fn offered(&self) -> OfferedRecord {
        OfferedRecord {
            reference: self.reference.clone(),
            item: self.item,
            batch: self.batch,
            account: self.account,
            commitment: self.commitment,
            day: self.day,
            index: self.index,
            path: self.path.clone(),
        }
    }
}

/// Commits to a record's content.
pub fn commitment(salt: &Hash, content: &str) -> Commitment {
    Commitment(hash::commit(&salt.0, "record", content.as_bytes()))
}

/// A record's place on the chain, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedRecord {
    /// How the custodian calls it.
    pub reference: String,
    /// Its catalogue item.
    pub item: ItemId,
    /// Its batch.
    pub batch: BatchId,
    /// Whose.
    pub account: AccountId,
    /// Salted commitment.
    pub commitment: Commitment,
    /// The day it speaks of.
    pub day: Day,
    /// Index in the batch.
    pub index: u32,
    /// Siblings from the leaf up.
    pub path: Vec<Hash>,
}

impl OfferedRecord {
    /// The proof that a request brings.
    pub fn proof(&self) -> Result<RecordProof, Failure> {
        let record = Record { account: self.account, commitment: self.commitment, day: self.day };
        let path = List::try_from(self.path.clone())
            .map_err(|_| Failure::local("BadOffer", format!("{}: its path is too long", self.reference)))?;
        Ok(RecordProof { batch: self.batch, record, index: self.index, path })
    }

    /// Whether the record stands in a batch of this root and count.
    pub fn stands_in(&self, root: &Hash, count: u32) -> bool {
        let leaf = Record { account: self.account, commitment: self.commitment, day: self.day }.leaf();
        merkle::verify(root, &leaf, u64::from(self.index), u64::from(count), &self.path)
    }
}

/// What a custodian hands to a requester: which records there are, with their proofs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Always `assent-offer`.
    pub kind: OfferKind,
    /// The records.
    pub records: Vec<OfferedRecord>,
}

/// The kind of an offer file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfferKind {
    /// The only one.
    #[serde(rename = "assent-offer")]
    Offer,
}

/// The custodian's file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// All records, in the order in which they were anchored.
    pub records: Vec<StoredRecord>,
}

impl Store {
    /// Opens a store; a file that is not there is an empty store.
    pub fn open(path: &Path) -> Result<Store, Failure> {
        if !path.exists() {
            return Ok(Store::default());
        }
        files::check_private(path)?;
        files::read_json(path)
    }

    /// Writes it in one go, mode 0600.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        files::replace(path, &serde_json::to_vec(self).expect("a store is plain data"))
    }

    /// The newest record of that name.
    pub fn find(&self, reference: &str) -> Result<&StoredRecord, Failure> {
        self.records
            .iter()
            .rev()
            .find(|r| r.reference == reference)
            .ok_or_else(|| Failure::local("NoSuchRecord", format!("{reference}: not in the store")))
    }
}

/// One FHIR resource, as far as the client looks into it.
pub struct Resource {
    /// `Claim`.
    pub kind: String,
    /// `Claim/…`.
    pub reference: String,
    /// `Patient/…`: whose.
    pub subject: String,
    /// The day that it speaks of.
    pub day: Day,
    /// The line as it came.
    pub content: String,
}

impl Resource {
    /// Reads one line of FHIR NDJSON.
    pub fn parse(line: &str) -> Result<Resource, Failure> {
        let bad = |what: &str| Failure::local("BadResource", format!("a FHIR resource {what}"));
        let value: serde_json::Value = serde_json::from_str(line).map_err(|_| bad("is not JSON"))?;
        let text = |pointer: &str| value.pointer(pointer).and_then(|v| v.as_str());
        let kind = text("/resourceType").ok_or_else(|| bad("has no resourceType"))?;
        let id = text("/id").ok_or_else(|| bad("has no id"))?;
        let subject = text("/subject/reference").or(text("/patient/reference"));
        let subject = subject.ok_or_else(|| bad("has no subject or patient"))?;
        let times =
            ["/effectiveDateTime", "/period/start", "/created", "/date", "/billablePeriod/start", "/issued"];
        let time = times.iter().find_map(|t| text(t)).ok_or_else(|| bad("has no date"))?;
        let day =
            time.get(..10).and_then(|d| crate::words::day(d).ok()).ok_or_else(|| bad("has a bad date"))?;
        Ok(Resource {
            kind: kind.to_owned(),
            reference: format!("{kind}/{id}"),
            subject: subject.to_owned(),
            day,
            content: line.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_says_whose_and_when() {
        let line = r#"{"resourceType":"Claim","id":"c1","patient":{"reference":"Patient/p"},"created":"2022-05-02T11:30:51+00:00"}"#;
        let r = Resource::parse(line).unwrap();
        assert_eq!((r.reference.as_str(), r.subject.as_str(), r.day), ("Claim/c1", "Patient/p", Day(19114)));
        for bad in [
            "",
            "{}",
            "[1]",
            r#"{"resourceType":"Claim","id":"c","created":"2022-05-02"}"#,
            &line.replace("2022-05", "2022-15"),
        ] {
            assert_eq!(Resource::parse(bad).err().unwrap().name(), "BadResource", "{bad}");
        }
    }
}
