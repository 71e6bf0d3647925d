//! Ed25519 keys and signatures. Signed with `ed25519-dalek`; verified under ZIP-215 with `ed25519-zebra`,
//! whose single and batch verdicts agree on every input, so that honest validators cannot differ.

use std::fmt;

use bytes::Bytes;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use ed25519_dalek::Signer;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::field::{DecodeError, Element, enums, plain_field};
use crate::hash::{self, Hash};

enums! {
    /// A signature algorithm, named inside the signed bytes.
    Algorithm { /** Ed25519 under ZIP-215. */ Ed25519 = 1 }
}

/// A public key as it came in. [`PublicKey::check`] says whether it may be registered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub Hash);

/// Why a key may not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not the canonical encoding of a point.
    #[error("the key is not the canonical encoding of a curve point")]
    NotCanonical,
    /// Of small order: signatures under it prove nothing.
    #[error("the key is of small order")]
    SmallOrder,
    /// Has a torsion component: several keys would verify the same signatures.
    #[error("the key has a torsion component")]
    Torsion,
}

impl PublicKey {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text).map(PublicKey)
    }

    /// Canonical, not of small order, torsion-free: asked at every door by which a key gets in, and never
    /// inside signature validity.
    pub fn check(&self) -> Result<(), BadKey> {
        let point = CompressedEdwardsY(self.0.0).decompress().ok_or(BadKey::NotCanonical)?;
        if !is_canonical(&self.0.0) {
            return Err(BadKey::NotCanonical);
        }
        if point.is_small_order() {
            return Err(BadKey::SmallOrder);
        }
        if !is_torsion_free(&point) {
            return Err(BadKey::Torsion);
        }
        Ok(())
    }

    /// Verifies one signature under ZIP-215.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        VerificationKey::try_from(self.0.0)
            .is_ok_and(|k| k.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
    }
}

/// 2^255 - 19, little-endian.
const P: [u8; 32] = {
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    p
};

/// Whether bytes that are those of a point are what the point would be written as: y below p, and no sign on the two
/// points whose x is 0. Without the inversion that writing the point takes.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    let signed = bytes[31] != y[31];
    let (mut one, mut minus_one) = ([0; 32], P);
    one[0] = 1;
    minus_one[0] -= 1;
    y.iter().rev().lt(P.iter().rev()) && !(signed && (y == one || y == minus_one))
}

/// Whether l, the order of the group, times the point is nothing: l - 1 times it is then its opposite. In variable time,
/// since keys are public.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO) == -point
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl Element for PublicKey {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        Hash::read(w, field).map(PublicKey)
    }
    fn write(&self) -> Bytes {
        self.0.write()
    }
}
plain_field!(PublicKey);

/// A signature: 64 bytes, as yet unverified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}
impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}
impl Element for Signature {
    type Wire = Bytes;
    fn read(w: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        w[..].try_into().map(Signature).map_err(|_| DecodeError::Length(field))
    }
    fn write(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}
plain_field!(Signature);

/// A secret key; wiped when dropped, never printed.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// From 32 random bytes, which the caller drew from the system.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        SecretKey(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The 32 bytes, to be stored encrypted.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(Hash(self.0.verifying_key().to_bytes()))
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {:?}", self.public())
    }
}

/// The X25519 public key of a 32-byte secret, to which packages are encrypted.
pub fn encryption_public(secret: &[u8; 32]) -> Hash {
    Hash(MontgomeryPoint::mul_base_clamped(*secret).0)
}

/// Whether packages may be encrypted to an X25519 key: canonical, and not of small order, since what is
/// agreed on with such a key is known to everyone.
pub fn check_encryption_key(key: &Hash) -> Result<(), BadKey> {
    if !key.0.iter().rev().lt(P.iter().rev()) {
        return Err(BadKey::NotCanonical);
    }
    if MontgomeryPoint(key.0).mul_clamped([0; 32]).is_identity() {
        return Err(BadKey::SmallOrder);
    }
    Ok(())
}

/// A signature to verify: key, message, signature.
pub struct Claim {
    /// By whom.
    pub key: PublicKey,
    /// Over what.
    pub message: Hash,
    /// The signature.
    pub signature: Signature,
}

/// Verifies many signatures in one multiscalar multiplication and says of each whether it holds. The
/// coefficients come from a hash over the whole batch, so that no clock and no randomness is needed and
/// nobody can choose a signature after knowing its coefficient.
pub fn verify_batch(claims: &[Claim]) -> Vec<bool> {
    let mut seed = hash::BATCH_SEED.hasher();
    let mut items = Vec::with_capacity(claims.len());
    for c in claims {
        seed = seed.hash(&c.key.0).hash(&c.message).bytes(&c.signature.0);
        let key = VerificationKeyBytes::from(c.key.0.0);
        items.push(batch::Item::from((key, ed25519_zebra::Signature::from(c.signature.0), &c.message.0)));
    }
    let mut verdicts = vec![true; claims.len()];
    let rng = ChaCha20Rng::from_seed(seed.end().0);
    settle(&items, &mut verdicts, rng);
    verdicts
}

/// Halves a batch that fails until the bad signatures stand alone.
fn settle(items: &[batch::Item], verdicts: &mut [bool], mut rng: ChaCha20Rng) {
    match items {
        [] => {}
        [item] => verdicts[0] = item.clone().verify_single().is_ok(),
        _ => {
            let mut verifier = batch::Verifier::new();
            items.iter().for_each(|i| verifier.queue(i.clone()));
            if verifier.verify(&mut rng).is_err() {
                let half = items.len() / 2;
                let (left, right) = verdicts.split_at_mut(half);
                settle(&items[..half], left, rng.clone());
                settle(&items[half..], right, rng);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(i: u8) -> Claim {
        let key = SecretKey::from_bytes(&[i; 32]);
        let message = Hash([i; 32]);
        Claim { key: key.public(), message, signature: key.sign(&message.0) }
    }

    #[test]
    fn a_batch_names_just_the_bad_ones() {
        let mut claims: Vec<_> = (0..33).map(claim).collect();
        claims[7].signature.0[40] ^= 1;
        claims[20].message = Hash::ZERO;
        let verdicts = verify_batch(&claims);
        let bad: Vec<_> = (0..33).filter(|i| !verdicts[*i]).collect();
        assert_eq!(bad, [7, 20]);
        for (c, v) in claims.iter().zip(verdicts) {
            assert_eq!(c.key.verify(&c.message.0, &c.signature), v, "single and batch verdicts agree");
        }
    }

    #[test]
    fn bad_encryption_keys_are_named() {
        assert_eq!(check_encryption_key(&encryption_public(&[7; 32])), Ok(()));
        assert_eq!(check_encryption_key(&Hash::ZERO), Err(BadKey::SmallOrder));
        let mut one = Hash::ZERO;
        one.0[0] = 1;
        assert_eq!(check_encryption_key(&one), Err(BadKey::SmallOrder));
        assert_eq!(check_encryption_key(&Hash([0xff; 32])), Err(BadKey::NotCanonical));
    }

    /// What the curve's own library says of a key, slower.
    fn said(key: &PublicKey) -> Result<(), BadKey> {
        let point = CompressedEdwardsY(key.0.0).decompress().ok_or(BadKey::NotCanonical)?;
        match () {
            () if point.compress().0 != key.0.0 => Err(BadKey::NotCanonical),
            () if point.is_small_order() => Err(BadKey::SmallOrder),
            () if !point.is_torsion_free() => Err(BadKey::Torsion),
            () => Ok(()),
        }
    }

    #[test]
    fn keys_are_judged_as_the_library_would() {
        use curve25519_dalek::constants::EIGHT_TORSION;
        let mut judged = Vec::new();
        // Every encoding near 0, p and 2^255, with and without the sign.
        for (start, n) in (0..=255).flat_map(|n| [([0; 32], n), ([0xff; 32], n), (P, n)]) {
            for sign in [0, 0x80] {
                let mut bytes: [u8; 32] = start;
                (bytes[0], bytes[31]) = (n, bytes[31] & 0x7f | sign);
                judged.push(PublicKey(Hash(bytes)));
            }
        }
        for n in 0..64u8 {
            let point =
                CompressedEdwardsY(SecretKey::from_bytes(&[n; 32]).public().0.0).decompress().unwrap();
            judged.extend(EIGHT_TORSION.map(|t| PublicKey(Hash((point + t).compress().0))));
            judged.push(PublicKey(Hash([n; 32])));
        }
        judged.extend(EIGHT_TORSION.map(|t| PublicKey(Hash(t.compress().0))));
        let all = [Ok(()), Err(BadKey::NotCanonical), Err(BadKey::SmallOrder), Err(BadKey::Torsion)];
        assert!(all.iter().all(|v| judged.iter().any(|k| said(k) == *v)), "each verdict occurs");
        for key in judged {
            assert_eq!(key.check(), said(&key), "{}", key.0);
        }
    }

    #[test]
    fn bad_keys_are_named() {
        use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
        let key = |p: curve25519_dalek::EdwardsPoint| PublicKey(Hash(p.compress().0));
        assert_eq!(key(EIGHT_TORSION[1]).check(), Err(BadKey::SmallOrder));
        assert_eq!(key(ED25519_BASEPOINT_POINT + EIGHT_TORSION[1]).check(), Err(BadKey::Torsion));
        assert_eq!(PublicKey(Hash([0xff; 32])).check(), Err(BadKey::NotCanonical));
        assert_eq!(SecretKey::from_bytes(&[1; 32]).public().check(), Ok(()));
    }
}
