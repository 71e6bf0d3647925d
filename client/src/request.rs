//! The authorization request: what an institution asks a person to sign, signed by the institution, so that
//! the wallet shows nothing that nobody asked.

use assent_genesis::Genesis;
use assent_proto::field::Message;
use assent_proto::state::Object;
use assent_proto::transaction::{Capacity, Grant};
use assent_proto::{AccountId, Hash, InstitutionId, PublicKey, Signature, hash};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::keyfile::InstitutionSecrets;
use crate::rpc::Node;
use crate::words::{NamedItem, terms_hex};

/// What an institution asks a person to sign. The notice's hash and language are the wallet's to fill in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationRequest {
    kind: Kind,
    /// Whose data.
    pub account: AccountId,
    /// Canonical bytes of the terms, in hexadecimal digits.
    terms: String,
    /// The institution's operator key.
    key: PublicKey,
    /// Its signature.
    signature: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "assent-authorization-request")]
    Request,
}

impl AuthorizationRequest {
    /// Asks.
    pub fn sign(
        genesis: &Genesis,
        secrets: &InstitutionSecrets,
        account: AccountId,
        terms: &Grant,
    ) -> Result<Self, Failure> {
        let key = secrets.operator()?;
        let signature = key.sign(&message(genesis, &account, &terms.encode()).0);
        let signature = hex::encode(signature.0);
        Ok(AuthorizationRequest {
            kind: Kind::Request,
            account,
            terms: terms_hex(terms),
            key: key.public(),
            signature,
        })
    }

    /// The terms, once it is certain that the grantee itself asks for them.
    /// `operators` tells the keys by which an institution may sign now.
    pub fn check(
        &self,
        genesis: &Genesis,
        operators: impl FnOnce(&InstitutionId) -> Result<Vec<PublicKey>, Failure>,
    ) -> Result<Grant, Failure> {
        let bad = |why: &str| Failure::local("BadRequest", format!("the request is not to be signed: {why}"));
        let bytes = hex::decode(&self.terms).map_err(|_| bad("its terms are not hexadecimal digits"))?;
        let terms = Grant::decode(&bytes).map_err(|e| bad(&e.to_string()))?;
        if terms.capacity != Capacity::Own || terms.delegation.is_some() {
            return Err(bad("whether somebody signs for another is for the wallet to say"));
        }
        if !operators(&terms.grantee)?.contains(&self.key) {
            return Err(bad("it is signed by another than who would receive the data"));
        }
        let mut signature = [0; 64];
        hex::decode_to_slice(&self.signature, &mut signature)
            .map_err(|_| bad("its signature is malformed"))?;
        if !self.key.verify(&message(genesis, &self.account, &bytes).0, &Signature(signature)) {
            return Err(bad("its signature does not hold"));
        }
        Ok(terms)
    }
}

fn message(genesis: &Genesis, account: &AccountId, terms: &[u8]) -> Hash {
    hash::SIGN_HANDLE.hash(&[b"request", genesis.hash().as_bytes(), account.as_bytes(), terms])
}

/// The catalogue items that the terms name, as the chain has them.
pub fn items(node: &mut Node, terms: &Grant) -> Result<Vec<NamedItem>, Failure> {
    let mut found = Vec::new();
    for id in &terms.items {
        match node.object((*id).into())?.object {
            Some(Object::Item(item)) => found.push((*id, item)),
            _ => return Err(Failure::local("NoSuchItem", format!("{id}: not in the catalogue"))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::field::List;
    use assent_proto::transaction::*;
    use assent_proto::{Day, ItemId, TimeMs};

    fn terms(grantee: &str) -> Grant {
        Grant {
            grantee: assent_genesis::institution_id(grantee),
            capacity: Capacity::Own,
            items: vec![ItemId::of(1, 1)].try_into().unwrap(),
            categories: List::empty(),
            data_from: Day(0),
            data_to: Day(9),
            case: None,
            purpose: Purpose::Treatment,
            actions: vec![UseAction::Read].try_into().unwrap(),
            output: Output::Raw,
            max_level: Level::Low,
            mode: Mode::OneTime,
            uses: 1,
            not_before: TimeMs(0),
            not_after: TimeMs(9),
            retention_days: 1,
            onward: false,
            jurisdictions: List::empty(),
            legal_basis: LegalBasis::Consent,
            notice: Hash::ZERO,
            language: Language::English,
            policy_version: 1,
            delegation: None,
        }
    }

    #[test]
    fn r2_a_wallet_shows_only_what_the_grantee_itself_asks() {
        let devnet = assent_genesis::testing::devnet(4, 4);
        let insurer = devnet.institutions.iter().find(|i| i.slug == "insurer").unwrap();
        let secrets =
            InstitutionSecrets::from_parts("insurer", &insurer.operator, &insurer.encryption.0).unwrap();
        let account = AccountId(Hash([1; 32]));
        let check = |request: AuthorizationRequest| {
            request.check(&devnet.genesis, |id| {
                let known = devnet.genesis.institutions().iter().filter(|i| i.id == *id);
                Ok(known.flat_map(|i| i.institution.keys.iter().map(|k| k.key)).collect())
            })
        };
        let ask = |terms| AuthorizationRequest::sign(&devnet.genesis, &secrets, account, &terms).unwrap();
        assert_eq!(check(ask(terms("insurer"))).unwrap(), terms("insurer"));
        // A key that was rotated out signs nothing any more; a delegation is not the institution's to name.
        let rotated = ask(terms("insurer")).check(&devnet.genesis, |_| Ok(Vec::new()));
        assert_eq!(rotated.unwrap_err().name(), "BadRequest");
        assert!(check(ask(Grant { capacity: Capacity::Proxy, ..terms("insurer") })).is_err());
        // In another's name, for another's data, or with other terms: refused.
        assert!(check(ask(terms("hospital-a"))).is_err());
        let redirected = AuthorizationRequest { account: AccountId(Hash([2; 32])), ..ask(terms("insurer")) };
        assert!(check(redirected).is_err());
        let widened = Grant { uses: 9, ..terms("insurer") };
        let widened = AuthorizationRequest { terms: terms_hex(&widened), ..ask(terms("insurer")) };
        assert!(check(widened).is_err());
    }
}
