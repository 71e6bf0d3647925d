//! The way of a transaction's bytes: [`Unverified::decode`], then [`verify_decoded`], which gives a [`VerifiedTx`].
//!
//! Nothing else makes a [`VerifiedTx`], so whatever holds one need not look at signatures again. Whether
//! the keys are the author's registered ones is the ledger's to say: it knows the state.

use bytes::Bytes;
use serde::Serialize;

use crate::code::Invalid;
use crate::field::{Element, List, Message, messages};
use crate::hash;
use crate::hash::Hash;
use crate::ids::*;
use crate::keys::{Algorithm, Claim, PublicKey, SecretKey, Signature, verify_batch};
use crate::mutation::{Mutation, planted};
use crate::transaction::{BODY_BYTES_MAX, Body, body_id};

messages! {
    /// The bytes that travel.
    Envelope {
        /// Canonical encoding of a [`Body`].
        #[serde(serialize_with = "crate::field::as_hex")]
        body: Bytes,
        /// The author's first, then a second one that the action asks for.
        signatures: List<SignatureEntry, 2>,
    }
}

/// A signature with the key that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureEntry {
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Key.
    pub key: PublicKey,
    /// Signature over [`signing_message`].
    pub signature: Signature,
}

impl Element for SignatureEntry {
    type Wire = crate::wire::Signature;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, crate::field::DecodeError> {
        Ok(SignatureEntry {
            algorithm: Element::read(w.algorithm, "algorithm")?,
            key: Element::read(w.key, "key")?,
            signature: Element::read(w.signature, "signature")?,
        })
    }
    fn write(&self) -> Self::Wire {
        crate::wire::Signature {
            algorithm: self.algorithm.write(),
            key: self.key.write(),
            signature: self.signature.write(),
        }
    }
}

/// The most bytes in one envelope: a body, two signatures and their framing.
pub const ENVELOPE_BYTES_MAX: usize = BODY_BYTES_MAX + 256;

/// What a key signs: the chain, the algorithm and the key besides the body, so that a signature means
/// nothing on another chain, under another algorithm or by another key.
pub fn signing_message(genesis: &GenesisHash, algorithm: Algorithm, key: &PublicKey, body: &[u8]) -> Hash {
    hash::SIGN_BODY.hash(&[genesis.as_bytes(), &[algorithm as u8], key.as_bytes(), body])
}

impl SignatureEntry {
    /// Signs a body.
    pub fn sign(genesis: &GenesisHash, key: &SecretKey, body: &[u8]) -> Self {
        let (algorithm, public) = (Algorithm::Ed25519, key.public());
        let signature = key.sign(&signing_message(genesis, algorithm, &public, body).0);
        SignatureEntry { algorithm, key: public, signature }
    }
}

impl Envelope {
    /// Signs a body with one or two keys, the author's first.
    pub fn sign(genesis: &GenesisHash, body: &Body, keys: &[&SecretKey]) -> Envelope {
        let body = body.encode();
        let signatures: Vec<_> = keys.iter().map(|k| SignatureEntry::sign(genesis, k, &body)).collect();
        Envelope { signatures: signatures.try_into().expect("a transaction has one or two signers"), body }
    }

    /// Names the bytes.
    pub fn id(bytes: &[u8]) -> EnvelopeId {
        if planted(Mutation::OneId)
            && let Ok(envelope) = Envelope::decode(bytes)
        {
            return EnvelopeId(hash::ENVELOPE_ID.hash(&[&envelope.body]));
        }
        EnvelopeId(hash::ENVELOPE_ID.hash(&[bytes]))
    }
}

/// A transaction whose bytes are canonical and whose signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTx {
    bytes: Bytes,
    envelope_id: EnvelopeId,
    body_id: BodyId,
    body: Body,
    signers: Vec<PublicKey>,
    new_key_is_sound: bool,
}

impl VerifiedTx {
    /// The envelope's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// Names the bytes.
    pub fn envelope_id(&self) -> EnvelopeId {
        self.envelope_id
    }
    /// Names the thing done.
    pub fn body_id(&self) -> BodyId {
        self.body_id
    }
    /// The thing done.
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The keys that signed, the author's first.
    pub fn signers(&self) -> &[PublicKey] {
        &self.signers
    }
    /// Whether the key that comes with it may be registered ([`PublicKey::check`]); so where none comes. The bytes
    /// alone decide it, and it costs as much as a signature: so it is asked once, here.
    pub fn new_key_is_sound(&self) -> bool {
        self.new_key_is_sound
    }
}

/// A transaction whose bytes are canonical and whose signatures nobody has looked at: for who wants to know what it
/// says before spending time on them.
pub struct Unverified {
    tx: VerifiedTx,
    claims: Vec<Claim>,
}

impl Unverified {
    /// Decodes an envelope.
    pub fn decode(genesis: &GenesisHash, bytes: &Bytes) -> Result<Unverified, Invalid> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        let envelope = <Envelope as Message>::decode(bytes)?;
        if envelope.signatures.is_empty() {
            return Err(Invalid::MissingSignature);
        }
        let body = Body::decode(&envelope.body)?;
        if body.chain != genesis.tag() {
            return Err(Invalid::WrongChain);
        }
        let mut claims: Vec<_> = envelope
            .signatures
            .iter()
            .map(|s| Claim {
                key: s.key,
                message: signing_message(genesis, s.algorithm, &s.key, &envelope.body),
                signature: s.signature,
            })
            .collect();
        claims.append(&mut body.action.claims(genesis)?);
        let tx = VerifiedTx {
            bytes: bytes.clone(),
            envelope_id: Envelope::id(bytes),
            body_id: body_id(genesis, &envelope.body),
            new_key_is_sound: false,
            body,
            signers: envelope.signatures.iter().map(|s| s.key).collect(),
        };
        Ok(Unverified { tx, claims })
    }

    /// What it asks for; whether its author does, nobody knows yet.
    pub fn body(&self) -> &Body {
        &self.tx.body
    }
}

/// Decodes envelopes and verifies their signatures together. The verdicts come in the order of the input
/// and do not depend on the neighbours.
pub fn verify(genesis: &GenesisHash, envelopes: &[Bytes]) -> Vec<Result<VerifiedTx, Invalid>> {
    verify_decoded(envelopes.iter().map(|bytes| Unverified::decode(genesis, bytes)).collect())
}

/// As [`verify`], of envelopes that were decoded, or refused, before.
pub fn verify_decoded(decoded: Vec<Result<Unverified, Invalid>>) -> Vec<Result<VerifiedTx, Invalid>> {
    let mut claims = Vec::with_capacity(decoded.len());
    let decoded: Vec<_> = decoded
        .into_iter()
        .map(|d| {
            let mut d = d?;
            let from = claims.len();
            claims.append(&mut d.claims);
            Ok((d.tx, from..claims.len()))
        })
        .collect();
    let verdicts = verify_batch(&claims);
    decoded
        .into_iter()
        .map(|d: Result<_, Invalid>| {
            let (mut tx, range) = d?;
            if !verdicts[range].iter().all(|v| *v) {
                return Err(Invalid::BadSignature);
            }
            tx.new_key_is_sound = tx.body.action.new_key().is_none_or(|key| key.check().is_ok());
            Ok(tx)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Action, Author, Revoke};

    fn genesis(n: u8) -> GenesisHash {
        GenesisHash(Hash([n; 32]))
    }

    fn envelope(signed_for: u8, named: u8) -> Bytes {
        let key = SecretKey::from_bytes(&[9; 32]);
        let body = Body {
            chain: genesis(named).tag(),
            expires_at: TimeMs(1000),
            author: Author::Account(AccountId(Hash([3; 32]))),
            action: Action::Revoke(Revoke { grant: GrantId(Hash([4; 32])) }),
        };
        Envelope::sign(&genesis(signed_for), &body, &[&key]).encode()
    }

    fn verdict(bytes: Bytes) -> Result<(), Invalid> {
        verify(&genesis(1), &[bytes]).remove(0).map(|_| ())
    }

    #[test]
    fn each_flaw_has_its_code() {
        let good = envelope(1, 1);
        assert_eq!(verdict(good.clone()), Ok(()));
        assert_eq!(verdict(envelope(2, 2)), Err(Invalid::WrongChain));
        assert_eq!(verdict(envelope(2, 1)), Err(Invalid::BadSignature));
        assert_eq!(verdict(Bytes::from(vec![0xff; 100])), Err(Invalid::Malformed));
        assert_eq!(verdict(good.slice(..good.len() - 1)), Err(Invalid::Malformed));
        assert_eq!(verdict(Bytes::from(vec![0; ENVELOPE_BYTES_MAX + 1])), Err(Invalid::TooLarge));
        let mut unknown_field = good.to_vec();
        unknown_field.extend([0x78, 0x01]);
        assert_eq!(verdict(unknown_field.into()), Err(Invalid::NotCanonical));
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let good = envelope(1, 1);
        for i in 0..good.len() {
            let mut bad = good.to_vec();
            bad[i] ^= 1;
            assert!(verdict(bad.into()).is_err(), "byte {i}");
        }
    }
}
