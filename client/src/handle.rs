//! How an institution learns a person's handle: from the person's own wallet, never from a directory (R18).
//! The institution asks for the account at one custodian; the wallet answers with a signature by the account's
//! key. Both fit a QR code.

use assent_genesis::Genesis;
use assent_proto::hash;
use assent_proto::state::Account;
use assent_proto::transaction::Purpose;
use assent_proto::{AccountId, Hash, InstitutionId, PublicKey, SecretKey, Signature, TimeMs};

use crate::error::Failure;
use crate::files;
use crate::keyfile::InstitutionSecrets;
use crate::qr;

/// How long a question may be answered.
const LIFE_MS: u64 = 10 * 60 * 1000;
const UNSIGNED_BYTES: usize = 8 + 32 + 32 + 1 + 16 + 8;
const QUESTION_BYTES: usize = UNSIGNED_BYTES + 32 + 64;
const ANSWER_BYTES: usize = 32 + 64;

/// "Which account of yours is with this custodian?"
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub institution: InstitutionId,
    /// For the account with whom.
    pub custodian: InstitutionId,
    /// What for.
    pub purpose: Purpose,
    /// Until when.
    pub expires_at: TimeMs,
    bytes: [u8; QUESTION_BYTES],
}

impl Question {
    /// Asks, signed by the institution's operator.
    pub fn ask(
        genesis: &Genesis,
        secrets: &InstitutionSecrets,
        custodian: InstitutionId,
        purpose: Purpose,
        now: TimeMs,
    ) -> Result<Question, Failure> {
        let mut nonce = [0; 16];
        files::fill_random(&mut nonce);
        let (institution, expires_at) = (secrets.institution(), now.plus(LIFE_MS));
        let mut bytes = Vec::with_capacity(QUESTION_BYTES);
        bytes.extend(genesis.hash().tag().0);
        bytes.extend(institution.as_bytes());
        bytes.extend(custodian.as_bytes());
        bytes.push(purpose as u8);
        bytes.extend(nonce);
        bytes.extend(expires_at.0.to_le_bytes());
        let key = secrets.operator()?;
        let message = question_message(genesis, &bytes);
        bytes.extend(key.public().as_bytes());
        bytes.extend(key.sign(&message.0).0);
        let bytes = bytes.try_into().expect("the lengths add up");
        Ok(Question { institution, custodian, purpose, expires_at, bytes })
    }

    /// As text for a QR code.
    pub fn text(&self) -> String {
        qr::text("HQ", &self.bytes)
    }

    /// Reads one and checks its signature; whose key that is, [`Question::asked_by`] says.
    pub fn parse(genesis: &Genesis, text: &str) -> Result<Question, Failure> {
        let bytes: [u8; QUESTION_BYTES] = qr::parse("HQ", text)?;
        let bad =
            |why: &str| Failure::local("BadQuestion", format!("the question is not to be answered: {why}"));
        let hash_at = |from: usize| Hash(bytes[from..from + 32].try_into().expect("32 bytes"));
        if bytes[..8] != genesis.hash().tag().0 {
            return Err(bad("it is of another chain"));
        }
        let question = Question {
            institution: InstitutionId(hash_at(8)),
            custodian: InstitutionId(hash_at(40)),
            purpose: *Purpose::ALL
                .iter()
                .find(|p| **p as u8 == bytes[72])
                .ok_or_else(|| bad("its purpose is unknown"))?,
            expires_at: TimeMs(u64::from_le_bytes(bytes[89..97].try_into().expect("8 bytes"))),
            bytes,
        };
        let key = question.key();
        let signature = Signature(bytes[129..].try_into().expect("64 bytes"));
        if !key.verify(&question_message(genesis, &bytes[..UNSIGNED_BYTES]).0, &signature) {
            return Err(bad("its signature does not hold"));
        }
        Ok(question)
    }

    fn key(&self) -> PublicKey {
        PublicKey(Hash(self.bytes[97..129].try_into().expect("32 bytes")))
    }

    /// Refuses a question that was not signed by one of the institution's keys as they are now.
    pub fn asked_by(&self, operators: &[PublicKey]) -> Result<(), Failure> {
        match operators.contains(&self.key()) {
            true => Ok(()),
            false => Err(Failure::local(
                "BadQuestion",
                "the question is not to be answered: it is not signed by a key of who is said to ask",
            )),
        }
    }

    /// The person's answer, as text for a QR code.
    pub fn answer(&self, genesis: &Genesis, account: &AccountId, key: &SecretKey) -> String {
        let signature = key.sign(&self.answer_message(genesis, account).0);
        qr::text("HA", &[&account.as_bytes()[..], &signature.0].concat())
    }

    /// Whose account answers, unverified.
    pub fn claimed(text: &str) -> Result<AccountId, Failure> {
        let bytes: [u8; ANSWER_BYTES] = qr::parse("HA", text)?;
        Ok(AccountId(Hash(bytes[..32].try_into().expect("32 bytes"))))
    }

    /// Whether the answer is by the key that the chain has for the account, and for the custodian asked about.
    pub fn check(&self, genesis: &Genesis, text: &str, account: &Account) -> Result<AccountId, Failure> {
        let bytes: [u8; ANSWER_BYTES] = qr::parse("HA", text)?;
        let id = Question::claimed(text)?;
        let signature = Signature(bytes[32..].try_into().expect("64 bytes"));
        if account.custodian != self.custodian {
            return Err(Failure::Proof("the answer names an account with another custodian".into()));
        }
        if !account.key.verify(&self.answer_message(genesis, &id).0, &signature) {
            return Err(Failure::Proof(
                "the answer is not signed by the account's key for this question".into(),
            ));
        }
        Ok(id)
    }

    fn answer_message(&self, genesis: &Genesis, account: &AccountId) -> Hash {
        hash::SIGN_HANDLE.hash(&[b"answer", genesis.hash().as_bytes(), &self.bytes, account.as_bytes()])
    }
}

fn question_message(genesis: &Genesis, unsigned: &[u8]) -> Hash {
    hash::SIGN_HANDLE.hash(&[b"question", genesis.hash().as_bytes(), unsigned])
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_genesis::institution_id;
    use assent_proto::field::List;
    use assent_proto::keys::Algorithm;

    fn asked() -> (Genesis, Question, SecretKey, Account) {
        let (genesis, _, operators) = assent_genesis::testing::four();
        // The operators stand in the order of the institutions.
        let (asker, operator) = genesis
            .institutions()
            .iter()
            .find_map(|i| operators.iter().find(|o| i.institution.keys[0].key == o.public()).map(|o| (i, o)))
            .unwrap();
        let secrets = InstitutionSecrets::from_parts(&asker.slug, operator, &[7; 32]).unwrap();
        let custodian = institution_id("hospital-a");
        let question =
            Question::ask(&genesis, &secrets, custodian, Purpose::ClaimsPayment, TimeMs(5)).unwrap();
        let key = SecretKey::from_bytes(&[3; 32]);
        let account = Account {
            enroller: institution_id("bureau"),
            custodian,
            algorithm: Algorithm::Ed25519,
            key: key.public(),
            enrolled_height: assent_proto::Height(1),
            early: List::empty(),
            recovery: None,
            frozen: false,
            guardianships: List::empty(),
        };
        (genesis, question, key, account)
    }

    #[test]
    fn r18_a_handle_comes_from_the_person_and_fits_a_small_qr_code() {
        let (genesis, question, key, account) = asked();
        let read = Question::parse(&genesis, &question.text()).unwrap();
        assert_eq!(read, question);
        let id = AccountId(Hash([8; 32]));
        let answer = read.answer(&genesis, &id, &key);
        assert_eq!(question.check(&genesis, &answer, &account).unwrap(), id);
        let side =
            |t: &str| qrcode::QrCode::with_error_correction_level(t, qrcode::EcLevel::M).unwrap().width();
        assert!(side(&answer) <= 49, "the answer fits version 8");
        assert!(side(&question.text()) <= 61, "the question fits version 11");
    }

    #[test]
    fn an_answer_to_another_question_by_another_key_or_account_fails() {
        let (genesis, question, key, account) = asked();
        let (_, other_question, ..) = asked();
        let id = AccountId(Hash([8; 32]));
        let answer = question.answer(&genesis, &id, &key);
        assert!(other_question.check(&genesis, &answer, &account).is_err(), "the nonce differs");
        let forged = question.answer(&genesis, &id, &SecretKey::from_bytes(&[4; 32]));
        assert!(question.check(&genesis, &forged, &account).is_err());
        let elsewhere = Account { custodian: institution_id("hospital-b"), ..account };
        assert!(question.check(&genesis, &answer, &elsewhere).is_err());
    }

    #[test]
    fn a_changed_question_is_not_answered() {
        let (genesis, question, ..) = asked();
        for at in 0..QUESTION_BYTES {
            let mut bytes = question.bytes;
            bytes[at] ^= 1;
            assert!(Question::parse(&genesis, &qr::text("HQ", &bytes)).is_err(), "byte {at}");
        }
    }
}
