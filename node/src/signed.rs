//! A message to all as it travels: who wrote it, a number, the author's signature, the message.
//!
//! ```text
//! author's network key, 32 bytes ‖ number, 8, little-endian ‖ signature, 64 ‖ message
//! ```
//!
//! Gossip brings each message from several sides and throws all but the first away, by the hash of all its bytes. So
//! the signature is verified here, once, and not by gossip's own means, which verify it before they look whether
//! the message is known. The number is the author's time when it was signed, in ns, and rises: it makes two messages of
//! one content two, and shows what is repeated from long ago.

use std::time::{SystemTime, UNIX_EPOCH};

use assent_proto::hash::SIGN_GOSSIP;
use assent_proto::{GenesisHash, Hash, PublicKey, SecretKey, Signature};
use bytes::{BufMut, Bytes, BytesMut};

const KEY: usize = 32;
const NUMBER: usize = 8;
const SIGNATURE: usize = 64;

/// What stands before the message.
pub const FRAME_BYTES: usize = KEY + NUMBER + SIGNATURE;

/// What a message is about: a signature under one topic holds under no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Transactions of clients.
    Transactions = 1,
    /// Everything that is said among validators.
    Consensus = 2,
}

/// Signs what this node says to all.
pub struct Author {
    key: SecretKey,
    genesis: GenesisHash,
    number: u64,
}

impl Author {
    /// Nothing was signed yet.
    pub fn new(key: SecretKey, genesis: GenesisHash) -> Author {
        Author { key, genesis, number: 0 }
    }

    /// The message with its frame.
    pub fn sign(&mut self, topic: Topic, message: &[u8]) -> Vec<u8> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.number = u64::try_from(since.as_nanos()).unwrap_or_default().max(self.number + 1);
        let number = self.number.to_le_bytes();
        let signature = self.key.sign(&signed(&self.genesis, topic, &number, message).0);
        let mut bytes = BytesMut::with_capacity(FRAME_BYTES + message.len());
        bytes.put_slice(self.key.public().as_bytes());
        bytes.put_slice(&number);
        bytes.put_slice(&signature.0);
        bytes.put_slice(message);
        bytes.into()
    }
}

/// A message with its frame, as it came.
pub struct Signed(Bytes);

impl Signed {
    /// None of bytes too few for the frame.
    pub fn read(bytes: Bytes) -> Option<Signed> {
        (bytes.len() >= FRAME_BYTES).then_some(Signed(bytes))
    }

    /// Who wrote it, if the signature holds.
    pub fn author(&self) -> PublicKey {
        PublicKey(Hash(self.part(0)))
    }

    /// The author's time when it was signed, ns.
    pub fn number(&self) -> u64 {
        u64::from_le_bytes(self.part(KEY))
    }

    /// Whether the author signed it, for this chain and topic.
    pub fn holds(&self, genesis: &GenesisHash, topic: Topic) -> bool {
        let number: [u8; NUMBER] = self.part(KEY);
        let signature = Signature(self.part(KEY + NUMBER));
        self.author().verify(&signed(genesis, topic, &number, &self.0[FRAME_BYTES..]).0, &signature)
    }

    /// The message without its frame.
    pub fn message(&self) -> Bytes {
        self.0.slice(FRAME_BYTES..)
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("the frame is whole")
    }
}

fn signed(genesis: &GenesisHash, topic: Topic, number: &[u8; NUMBER], message: &[u8]) -> Hash {
    SIGN_GOSSIP.hash(&[&genesis.0.0, &[topic as u8], number, message])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENESIS: GenesisHash = GenesisHash(Hash([1; 32]));

    #[test]
    fn a_signature_holds_for_its_author_chain_topic_number_and_message_alone() {
        let mut author = Author::new(SecretKey::from_bytes(&[7; 32]), GENESIS);
        let bytes = author.sign(Topic::Consensus, b"a vote");
        let read = |bytes: &[u8]| Signed::read(Bytes::copy_from_slice(bytes)).unwrap();
        let again = author.sign(Topic::Consensus, b"a vote");
        assert!(read(&again).number() > read(&bytes).number(), "said twice, it is two messages");
        let whole = read(&bytes);
        assert_eq!((whole.author(), &whole.message()[..]), (author.key.public(), &b"a vote"[..]));
        assert!(whole.holds(&GENESIS, Topic::Consensus));
        assert!(!whole.holds(&GENESIS, Topic::Transactions));
        assert!(!whole.holds(&GenesisHash(Hash([2; 32])), Topic::Consensus));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(!read(&other).holds(&GENESIS, Topic::Consensus), "byte {at}");
        }
        assert!(!read(&bytes[..bytes.len() - 1]).holds(&GENESIS, Topic::Consensus));
        assert!(!read(&bytes[..FRAME_BYTES]).holds(&GENESIS, Topic::Consensus));
        assert!(Signed::read(Bytes::copy_from_slice(&bytes[..FRAME_BYTES - 1])).is_none());
    }
}
