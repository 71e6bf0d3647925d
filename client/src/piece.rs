//! A node's public piece for a chain that runs already: its two public keys, and the signatures by which they
//! show that their owner wants them to serve an institution there. It holds no secrets; whoever proposes the node
//! needs nothing else of it.

use std::path::Path;

use assent_genesis::Genesis;
use assent_proto::keys::Algorithm;
use assent_proto::transaction::{KeyUse, NodeAdmission, NodeRecord, Possession, join_message};
use assent_proto::{InstitutionId, PublicKey, SecretKey, Signature, Validator};
use serde::{Deserialize, Serialize};

use crate::context::institution_id;
use crate::error::Failure;
use crate::files;
use crate::keyfile::secret_key;

/// The format of the file.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    genesis: String,
    institution: String,
    consensus_key: PublicKey,
    consensus_possession: String,
    network_key: PublicKey,
    network_possession: String,
}

/// A piece, every signature of which holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    record: NodeRecord,
    possession: Signature,
    network_possession: Signature,
}

impl Piece {
    /// Signs with the keys in a node's folder.
    pub fn of_home(genesis: &Genesis, home: &Path, slug: &str) -> Result<Piece, Failure> {
        let key = |name: &str| {
            let path = home.join(name);
            files::check_private(&path)?;
            secret_key(files::read_text(&path)?.trim()).map_err(|_| {
                Failure::local(
                    "NotAKeyFile",
                    format!("{}: 64 hexadecimal digits are expected", path.display()),
                )
            })
        };
        Ok(Piece::sign(genesis, institution_id(genesis, slug)?, &key("consensus.key")?, &key("network.key")?))
    }

    /// Signs that these keys are to serve the institution on this chain.
    pub fn sign(
        genesis: &Genesis,
        institution: InstitutionId,
        consensus: &SecretKey,
        network: &SecretKey,
    ) -> Piece {
        let prove = |key: &SecretKey, key_use| {
            key.sign(&join_message(&genesis.hash(), &institution, key_use, &key.public()).0)
        };
        Piece {
            record: NodeRecord { institution, key: consensus.public(), network_key: network.public() },
            possession: prove(consensus, KeyUse::Consensus),
            network_possession: prove(network, KeyUse::Network),
        }
    }

    /// Reads a file, and refuses one for another chain, of an unknown institution, or with a bad key or signature.
    pub fn load(genesis: &Genesis, path: &Path) -> Result<Piece, Failure> {
        Piece::parse(genesis, &files::read_text(path)?)
            .map_err(|why| Failure::local("BadPiece", format!("{}: {why}", path.display())))
    }

    fn parse(genesis: &Genesis, toml: &str) -> Result<Piece, String> {
        let text: Text = toml::from_str(toml).map_err(|e| format!("is not a node's piece: {e}"))?;
        if text.format != FORMAT {
            return Err(format!("is of format {}, and this build reads {FORMAT}", text.format));
        }
        if text.genesis != genesis.hash().to_string() {
            return Err("is for another chain".into());
        }
        let known = genesis.institution(&text.institution);
        let institution =
            known.ok_or_else(|| format!("names {}, which the chain does not know", text.institution))?.id;
        let check = |key: PublicKey, key_use, hex: &str, field: &str| {
            key.check().map_err(|e| format!("its {field}_key is no good: {e}"))?;
            let signature =
                signature(hex).ok_or_else(|| format!("its {field}_possession is no signature"))?;
            let message = join_message(&genesis.hash(), &institution, key_use, &key);
            match key.verify(&message.0, &signature) {
                true => Ok(signature),
                false => Err(format!("its {field}_possession is not signed by its {field}_key")),
            }
        };
        let (key, network_key) = (text.consensus_key, text.network_key);
        Ok(Piece {
            possession: check(key, KeyUse::Consensus, &text.consensus_possession, "consensus")?,
            network_possession: check(network_key, KeyUse::Network, &text.network_possession, "network")?,
            record: NodeRecord { institution, key, network_key },
        })
    }

    /// As text, to be handed to whoever proposes the node.
    pub fn to_toml(&self, genesis: &Genesis) -> String {
        let text = Text {
            format: FORMAT,
            genesis: genesis.hash().to_string(),
            institution: crate::words::slug(genesis, &self.record.institution),
            consensus_key: self.record.key,
            consensus_possession: hex::encode(self.possession.0),
            network_key: self.record.network_key,
            network_possession: hex::encode(self.network_possession.0),
        };
        let body = toml::to_string(&text).expect("keys and signatures are plain text");
        format!("# A node's public keys, for a proposal on a chain that runs. It holds no secrets.\n{body}")
    }

    /// Who it is.
    pub fn record(&self) -> &NodeRecord {
        &self.record
    }

    /// What admits it.
    pub fn admission(&self) -> NodeAdmission {
        NodeAdmission {
            record: self.record.clone(),
            possession: self.possession,
            network_possession: self.network_possession,
        }
    }

    /// As a validator.
    pub fn validator(&self, power: u32) -> Validator {
        let NodeRecord { institution, key, .. } = self.record;
        Validator { algorithm: Algorithm::Ed25519, key, power, institution }
    }

    /// What shows that it wants to vote.
    pub fn possession(&self) -> Possession {
        Possession { key: self.record.key, signature: self.possession }
    }
}

fn signature(text: &str) -> Option<Signature> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(Signature(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(genesis: &Genesis) -> Piece {
        let (consensus, network) = (SecretKey::from_bytes(&[21; 32]), SecretKey::from_bytes(&[22; 32]));
        Piece::sign(genesis, assent_genesis::institution_id("hospital-a"), &consensus, &network)
    }

    #[test]
    fn a_piece_reads_as_it_was_written_and_holds_no_secret() {
        let (genesis, ..) = assent_genesis::testing::four();
        let made = piece(&genesis);
        let text = made.to_toml(&genesis);
        assert_eq!(Piece::parse(&genesis, &text), Ok(made));
        for secret in [[21u8; 32], [22; 32]] {
            assert!(!text.contains(&hex::encode(secret)));
        }
    }

    #[test]
    fn a_piece_whose_keys_did_not_sign_for_this_chain_and_institution_is_refused() {
        let (genesis, ..) = assent_genesis::testing::four();
        let text = piece(&genesis).to_toml(&genesis);
        let refused = |from: &str, to: &str, why: &str| {
            assert!(text.contains(from));
            let error = Piece::parse(&genesis, &text.replace(from, to)).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused("hospital-a", "hospital-b", "is not signed by its consensus_key");
        refused("hospital-a", "nobody", "does not know");
        refused("format = 1", "format = 2", "format 2");
        refused(&genesis.hash().to_string(), &"00".repeat(32), "another chain");
        refused(&piece(&genesis).record.key.to_string(), &"00".repeat(32), "no good");
        refused(&hex::encode(piece(&genesis).network_possession.0), &"11".repeat(64), "network_possession");
        refused("network_key", "nettwork_key", "not a node's piece");
    }
}
