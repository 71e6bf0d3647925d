//! BLAKE3 under one context per purpose, so that bytes hashed for one purpose mean nothing in another.

use std::fmt;
use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 32-byte BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl PartialOrd for Hash {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hash {
    /// By bytes. Hashes that differ do so in the first eight, all but never later: compared as a number in place.
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let head = |hash: &Hash| hash.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        head(self).cmp(&head(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl Hash {
    /// Stands where there is nothing to hash.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Bit `i` of the hash, counted from the most significant bit of the first byte; `i` below 256.
    pub fn bit(&self, i: u16) -> bool {
        self.0[usize::from(i / 8)] >> (7 - i % 8) & 1 == 1
    }

    /// The first `bits` bits, the others zero; `bits` up to 256.
    pub fn prefix(&self, bits: u16) -> Hash {
        let mut out = [0; 32];
        let whole = usize::from(bits / 8);
        out[..whole].copy_from_slice(&self.0[..whole]);
        if !bits.is_multiple_of(8) {
            out[whole] = self.0[whole] & (0xff << (8 - bits % 8));
        }
        Hash(out)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Hash> {
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out).ok()?;
        Some(Hash(out))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Hash::from_hex(&text).ok_or_else(|| serde::de::Error::custom("64 hexadecimal digits are expected"))
    }
}

/// A purpose of hashing: a context string whose key is derived once.
pub struct Domain(LazyLock<ContextKey>);

impl Domain {
    /// Starts a hash for this purpose.
    pub fn hasher(&self) -> Hasher {
        Hasher(blake3::Hasher::new_from_context_key(&self.0))
    }

    /// Hashes the parts one after the other. Use it where every part but the last has a fixed length.
    pub fn hash(&self, parts: &[&[u8]]) -> Hash {
        // In place: a hasher is large, and moving it costs more than hashing little.
        let mut hasher = blake3::Hasher::new_from_context_key(&self.0);
        for part in parts {
            hasher.update(part);
        }
        Hash(*hasher.finalize().as_bytes())
    }
}

/// A hash in the making. Numbers are little-endian and fixed in length, so parts cannot run together.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds bytes whose length the reader knows.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Adds bytes of any length, their length first.
    pub fn sized(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u64).bytes(bytes)
    }

    /// Adds a number.
    pub fn number(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    /// Adds a hash.
    pub fn hash(self, h: &Hash) -> Self {
        self.bytes(&h.0)
    }

    /// Ends the hash.
    pub fn end(self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

macro_rules! domains {
    ($( $(#[$doc:meta])* $name:ident = $context:literal; )*) => {
        $( $(#[$doc])* pub static $name: Domain = Domain(LazyLock::new(|| hash_derive_key_context($context))); )*
    };
}

domains! {
    /// The founding document.
    GENESIS = "assent 2026-11 genesis";
    /// What a transaction does: replay protection, receipts, object ids.
    BODY_ID = "assent 2026-11 body id";
    /// The bytes of a transaction: caches, gossip, the block's transaction root.
    ENVELOPE_ID = "assent 2026-11 envelope id";
    /// What a wallet or operator signs.
    SIGN_BODY = "assent 2026-11 sign body";
    /// What a validator signs.
    SIGN_VOTE = "assent 2026-11 sign vote";
    /// What a proposer signs.
    SIGN_PROPOSAL = "assent 2026-11 sign proposal";
    /// What a node signs of what it says to all.
    SIGN_GOSSIP = "assent 2026-11 sign gossip";
    /// A message to all, with its author's frame.
    GOSSIP_ID = "assent 2026-11 gossip id";
    /// What a wallet signs off chain, to tell an institution a handle.
    SIGN_HANDLE = "assent 2026-11 sign handle";
    /// What a party signs to ask whether a request would be permitted.
    SIGN_QUESTION = "assent 2026-11 sign question";
    /// A block's id: the hash of its header.
    BLOCK_ID = "assent 2026-11 block id";
    /// A commit certificate.
    CERTIFICATE = "assent 2026-11 commit certificate";
    /// A validator set.
    VALIDATORS = "assent 2026-11 validator set";
    /// A validator's address.
    ADDRESS = "assent 2026-11 validator address";
    /// A catalogue item's id, from code and scope.
    ITEM_ID = "assent 2026-11 item id";
    /// A review's id, from item, requester and purpose.
    REVIEW_ID = "assent 2026-11 review id";
    /// A release in an outage, from who used which records when.
    RELEASE_ID = "assent 2026-11 release id";
    /// A record in an anchored batch.
    RECORD = "assent 2026-11 record";
    /// An object's content, without its trail.
    OBJECT = "assent 2026-11 object";
    /// A leaf of the state trie.
    TRIE_LEAF = "assent 2026-11 trie leaf";
    /// An inner node of the state trie.
    TRIE_INNER = "assent 2026-11 trie inner";
    /// A key's path in the state trie.
    TRIE_KEY = "assent 2026-11 trie key";
    /// A leaf of a Merkle tree.
    MERKLE_LEAF = "assent 2026-11 merkle leaf";
    /// An inner node of a Merkle tree.
    MERKLE_INNER = "assent 2026-11 merkle inner";
    /// A Merkle root with its leaf count.
    MERKLE_ROOT = "assent 2026-11 merkle root";
    /// A Merkle mountain range.
    HISTORY = "assent 2026-11 history";
    /// An event.
    EVENT = "assent 2026-11 event";
    /// The beginning of a trail.
    TRAIL_START = "assent 2026-11 trail start";
    /// A step of a trail.
    TRAIL_STEP = "assent 2026-11 trail step";
    /// An institution's id, from its slug.
    INSTITUTION_ID = "assent 2026-11 institution id";
    /// What an institution brings to the founding.
    ADMISSION = "assent 2026-11 admission";
    /// What a key signs to show that its owner holds it.
    POSSESSION = "assent 2026-11 possession";
    /// What a key signs to vote or to connect on a chain that runs already.
    JOIN = "assent 2026-11 join";
    /// A contradiction's id.
    MISCONDUCT_ID = "assent 2026-11 misconduct id";
    /// Off-chain documents: notices, plans, reports, packages.
    DOCUMENT = "assent 2026-11 document";
    /// Coefficients of a batch verification.
    BATCH_SEED = "assent 2026-11 batch seed";
}

/// Commits to bytes under a random 32-byte salt that stays off chain; destroying the salt erases what the
/// commitment means (R1). `what` says what is committed to, and separates the kinds from each other.
pub fn commit(salt: &[u8; 32], what: &str, content: &[u8]) -> Hash {
    let keyed = Hasher(blake3::Hasher::new_keyed(salt));
    keyed.sized(what.as_bytes()).bytes(content).end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_keeps_just_the_leading_bits() {
        let h = Hash([0xff; 32]);
        assert_eq!(h.prefix(0), Hash::ZERO);
        assert_eq!(h.prefix(256), h);
        let p = h.prefix(13);
        assert_eq!((p.0[0], p.0[1], p.0[2]), (0xff, 0b1111_1000, 0));
        assert!(p.bit(12) && !p.bit(13));
    }

    #[test]
    fn domains_and_salts_separate() {
        assert_ne!(BODY_ID.hash(&[b"x"]), ENVELOPE_ID.hash(&[b"x"]));
        assert_ne!(commit(&[1; 32], "record", b"x"), commit(&[2; 32], "record", b"x"));
        assert_ne!(commit(&[1; 32], "record", b"x"), commit(&[1; 32], "case", b"x"));
    }
}
