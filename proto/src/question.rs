//! A question to a node: would this request be permitted. Its bytes, its bounds, and who has signed it; not who
//! may ask (that is the ledger's to say) and not how often (the node's).
//!
//! What is signed is hashed for this purpose alone: a question is never a transaction or a vote, nor either of
//! them a question.

use bytes::Bytes;
use serde::Serialize;

use crate::code::Invalid;
use crate::envelope::SignatureEntry;
use crate::field::{DecodeError, Element, Field, Message, message_field, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::keys::{Algorithm, PublicKey, SecretKey};
use crate::transaction::{Action, Author, BODY_BYTES_MAX, RequestAccess};
use crate::wire;

message_field!(SignatureEntry);

messages! {
    /// The bytes that travel.
    SignedQuestion {
        /// Canonical encoding of a [`Question`].
        #[serde(serialize_with = "crate::field::as_hex")]
        question: Bytes,
        /// The asker's.
        signature: SignatureEntry,
    }
}

/// Would this be permitted now, and if not, which rule says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The chain it is for.
    pub chain: ChainTag,
    /// When it was asked.
    pub time: TimeMs,
    /// Who asks.
    pub asker: Author,
    /// Who would request.
    pub requester: InstitutionId,
    /// What it would request.
    pub request: Box<RequestAccess>,
}

impl Element for Question {
    type Wire = wire::Question;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        let request = w.request.ok_or(DecodeError::Missing("request"))?;
        // Through the same door as in a transaction: what could not be requested cannot be asked about.
        let Action::RequestAccess(request) =
            Action::read(wire::body::Action::RequestAccess(request), "request")?
        else {
            return Err(DecodeError::Malformed);
        };
        Ok(Question {
            chain: Field::read_field(w.chain, "chain")?,
            time: Field::read_field(w.time, "time")?,
            asker: Field::read_field(w.asker, "asker")?,
            requester: Field::read_field(w.requester, "requester")?,
            request,
        })
    }
    fn write(&self) -> Self::Wire {
        wire::Question {
            chain: self.chain.write_field(),
            time: self.time.write_field(),
            asker: self.asker.write_field(),
            requester: self.requester.write_field(),
            request: Some(self.request.write()),
        }
    }
}
impl Message for Question {
    const BYTES_MAX: usize = BODY_BYTES_MAX;
}

/// The most bytes in one signed question.
pub const QUESTION_BYTES_MAX: usize = BODY_BYTES_MAX + 128;

/// What an asker's key signs: besides the question the chain, the algorithm and the key.
pub fn question_message(
    genesis: &GenesisHash,
    algorithm: Algorithm,
    key: &PublicKey,
    question: &[u8],
) -> Hash {
    hash::SIGN_QUESTION.hash(&[genesis.as_bytes(), &[algorithm as u8], key.as_bytes(), question])
}

impl SignedQuestion {
    /// Signs a question.
    pub fn sign(genesis: &GenesisHash, question: &Question, key: &SecretKey) -> SignedQuestion {
        let (algorithm, public, question) = (Algorithm::Ed25519, key.public(), question.encode());
        let signature = key.sign(&question_message(genesis, algorithm, &public, &question).0);
        SignedQuestion { question, signature: SignatureEntry { algorithm, key: public, signature } }
    }
}

/// A question whose bytes are canonical and whose signature holds. Whether the key is the asker's is the ledger's
/// to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedQuestion {
    question: Question,
    signer: PublicKey,
}

impl VerifiedQuestion {
    /// Reads a signed question and verifies its signature. What is wrong with it is seen from its bytes alone.
    pub fn verify(genesis: &GenesisHash, bytes: &[u8]) -> Result<VerifiedQuestion, Invalid> {
        if bytes.len() > QUESTION_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        let SignedQuestion { question, signature: by } = SignedQuestion::decode(bytes)?;
        let message = question_message(genesis, by.algorithm, &by.key, &question);
        let question = Question::decode(&question)?;
        if question.chain != genesis.tag() {
            return Err(Invalid::WrongChain);
        }
        if !by.key.verify(&message.0, &by.signature) {
            return Err(Invalid::BadSignature);
        }
        Ok(VerifiedQuestion { question, signer: by.key })
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The key that signed.
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{self, Envelope};
    use crate::field::List;
    use crate::transaction::*;

    fn genesis(n: u8) -> GenesisHash {
        GenesisHash(Hash([n; 32]))
    }

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[9; 32])
    }

    fn request(records: usize) -> RequestAccess {
        let record =
            Record { account: AccountId(Hash([2; 32])), commitment: Commitment(Hash([3; 32])), day: Day(4) };
        let proof = RecordProof { batch: BatchId(Hash([5; 32])), record, index: 1, path: List::empty() };
        RequestAccess {
            grant: Some(GrantId(Hash([6; 32]))),
            item: ItemId(Hash([7; 32])),
            account: None,
            case: None,
            purpose: Purpose::Treatment,
            action: UseAction::Read,
            output: Output::Raw,
            records: vec![proof; records].try_into().unwrap(),
            staff: Commitment(Hash::ZERO),
            person: None,
            emergency: None,
            order: None,
        }
    }

    fn question(named: u8, records: usize) -> Question {
        Question {
            chain: genesis(named).tag(),
            time: TimeMs(1_790_000_000_000),
            asker: Author::Institution(InstitutionId(Hash([8; 32]))),
            requester: InstitutionId(Hash([8; 32])),
            request: Box::new(request(records)),
        }
    }

    fn signed(for_chain: u8, named: u8) -> Bytes {
        SignedQuestion::sign(&genesis(for_chain), &question(named, 1), &key()).encode()
    }

    fn verdict(bytes: &[u8]) -> Result<(), Invalid> {
        VerifiedQuestion::verify(&genesis(1), bytes).map(|_| ())
    }

    #[test]
    fn each_flaw_has_its_code_and_none_needs_the_state() {
        let good = signed(1, 1);
        let read = VerifiedQuestion::verify(&genesis(1), &good).unwrap();
        assert_eq!((read.question(), read.signer()), (&question(1, 1), &key().public()));
        assert_eq!(verdict(&signed(2, 2)), Err(Invalid::WrongChain));
        assert_eq!(verdict(&signed(2, 1)), Err(Invalid::BadSignature));
        assert_eq!(verdict(&[0xff; 100]), Err(Invalid::Malformed));
        assert_eq!(verdict(&[]), Err(Invalid::OutOfBounds));
        assert_eq!(verdict(&vec![0; QUESTION_BYTES_MAX + 1]), Err(Invalid::TooLarge));
        let longer = [&good[..], &[0x78, 0x01]].concat();
        assert_eq!(verdict(&longer), Err(Invalid::NotCanonical));
        for records in [0, 33] {
            let mut wire = question(1, 1).write();
            let request = wire.request.as_mut().unwrap();
            request.records = vec![request.records[0].clone(); records];
            let question = prost::Message::encode_to_vec(&wire);
            let message = question_message(&genesis(1), Algorithm::Ed25519, &key().public(), &question);
            let signature = key().sign(&message.0);
            let entry = SignatureEntry { algorithm: Algorithm::Ed25519, key: key().public(), signature };
            let bytes = SignedQuestion { question: question.into(), signature: entry }.encode();
            assert_eq!(verdict(&bytes), Err(Invalid::OutOfBounds), "{records} records");
        }
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let good = signed(1, 1);
        for i in 0..good.len() {
            let mut bad = good.to_vec();
            bad[i] ^= 1;
            assert!(verdict(&bad).is_err(), "byte {i}");
            assert!(verdict(&good[..i]).is_err(), "cut at {i}");
        }
    }

    /// Whatever the bytes are: what signs a transaction signs no question of the same bytes, and the reverse.
    #[test]
    fn a_signature_of_one_purpose_is_none_of_another() {
        let (genesis, key) = (genesis(1), key());
        let ask = question(1, 1);
        let body = Body {
            chain: genesis.tag(),
            expires_at: ask.time,
            author: ask.asker,
            action: Action::RequestAccess(ask.request.clone()),
        };
        let as_question = SignedQuestion {
            question: ask.encode(),
            signature: SignatureEntry::sign(&genesis, &key, &ask.encode()),
        };
        assert_eq!(verdict(&as_question.encode()), Err(Invalid::BadSignature));
        let message = question_message(&genesis, Algorithm::Ed25519, &key.public(), &body.encode());
        let mut envelope = Envelope::sign(&genesis, &body, &[&key]);
        let mut entry = envelope.signatures[0].clone();
        entry.signature = key.sign(&message.0);
        envelope.signatures = vec![entry].try_into().unwrap();
        let tx = envelope::verify(&genesis, &[envelope.encode()]).remove(0);
        assert_eq!(tx.map(|_| ()), Err(Invalid::BadSignature));
        // The frames themselves cannot be mistaken either.
        assert!(verdict(&Envelope::sign(&genesis, &body, &[&key]).encode()).is_err());
        let read = envelope::verify(&genesis, &[signed(1, 1)]).remove(0);
        assert!(read.is_err());
    }

    #[test]
    fn the_bytes_stay() {
        let (algorithm, bytes) = (Algorithm::Ed25519, question(1, 1).encode());
        let message = question_message(&genesis(1), algorithm, &key().public(), &bytes);
        let is = format!("question: {}\nmessage: {message}\n", hex::encode(&bytes));
        assert_eq!(is, include_str!("../tests/question.txt"));
    }

    #[test]
    fn the_largest_question_fits() {
        let mut all = question(1, 32);
        let path: Vec<_> = (0..12).map(|n| Hash([n; 32])).collect();
        let proof =
            RecordProof { path: path.try_into().unwrap(), index: u32::MAX, ..all.request.records[0].clone() };
        all.request.records = vec![proof; 32].try_into().unwrap();
        let bytes = SignedQuestion::sign(&genesis(1), &all, &key()).encode();
        assert_eq!(verdict(&bytes), Ok(()), "{} bytes", bytes.len());
    }
}
