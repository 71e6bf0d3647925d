//! A chain by hand, for tests: headers certified by the founding validators, over one leaf of state and a few
//! events, with all their evidence. No ledger runs here.

use assent_genesis::Genesis;
use assent_proto::block::{CommitSignature, PROTOCOL_OLDEST};
use assent_proto::event::{EventCore, EventKind};
use assent_proto::evidence::{Claim, EventClaim, Evidence, StateClaim, TrailClaim, ValidatorLink};
use assent_proto::field::{List, Message};
use assent_proto::keys::Algorithm;
use assent_proto::merkle::{self, MerklePath};
use assent_proto::state::{Account, ObjectRef, object_hash};
use assent_proto::transaction::{Action, Author, Body, Revoke, body_id};
use assent_proto::trie::{LeafDigest, TrieEnd, TrieProof};
use assent_proto::validators::{VoteKind, vote_message};
use assent_proto::{
    AccountId, BlockId, CertifiedHeader, CommitCertificate, Envelope, Event, GrantId, Hash, Header, Height,
    Leaf, Link, SecretKey, TimeMs, Trail, ValidatorSet,
};
use prost::bytes::Bytes;

/// The chain so far.
pub(crate) struct Chain {
    pub(crate) genesis: Genesis,
    keys: Vec<SecretKey>,
    /// Who votes on the next block.
    set: ValidatorSet,
    pub(crate) links: Vec<ValidatorLink>,
    parent: BlockId,
    height: Height,
}

impl Chain {
    pub(crate) fn new() -> Chain {
        let (genesis, keys, _) = assent_genesis::testing::four();
        let parent = BlockId(genesis.hash().0);
        let set = genesis.validators().clone();
        Chain { genesis, keys, set, links: Vec::new(), parent, height: Height(0) }
    }

    /// The next block's final header.
    pub(crate) fn block(&mut self, events: &[Event], state_root: Hash) -> CertifiedHeader {
        self.block_before(events, state_root, self.set.clone())
    }

    /// The next block's final header, after which the validator of this index does not vote any more.
    pub(crate) fn block_without(&mut self, leaves: usize, state_root: Hash) -> CertifiedHeader {
        let mut rest = self.set.validators.to_vec();
        rest.remove(leaves);
        let next = ValidatorSet { validators: rest.try_into().unwrap() };
        let certified = self.block_before(&[], state_root, next.clone());
        self.keys.remove(leaves);
        self.set = next.clone();
        self.links.push(ValidatorLink { certified: certified.clone(), next });
        certified
    }

    fn block_before(&mut self, events: &[Event], state_root: Hash, next: ValidatorSet) -> CertifiedHeader {
        self.height = self.height.next();
        let set = &self.set;
        let header = Header {
            version: PROTOCOL_OLDEST,
            genesis: self.genesis.hash(),
            height: self.height,
            parent: self.parent,
            time: time(self.height),
            builder: set.validators[0].address(),
            tx_root: Hash::ZERO,
            body_bytes: 0,
            events_root: merkle::root(&leaves(events)),
            history_root: Hash::ZERO,
            state_root,
            validators: set.hash(),
            next_validators: next.hash(),
            parent_certificate: Hash::ZERO,
        };
        let id = header.id();
        let sign = |i: usize| {
            let address = set.validators[i].address();
            let message =
                vote_message(&self.genesis.hash(), VoteKind::Precommit, self.height, 0, Some(&id), &address);
            CommitSignature { validator: i as u32, signature: self.keys[i].sign(&message.0) }
        };
        let signatures = (0..set.validators.len().min(3)).map(sign).collect::<Vec<_>>().try_into().unwrap();
        let certificate = CommitCertificate { height: self.height, round: 0, block: id, signatures };
        self.parent = id;
        CertifiedHeader { header, certificate }
    }

    pub(crate) fn next_height(&self) -> Height {
        self.height.next()
    }

    /// A signed transaction of the account.
    pub(crate) fn envelope(&self, grant: u8) -> (Body, Bytes) {
        let action = Action::Revoke(Revoke { grant: GrantId(Hash([grant; 32])) });
        let chain = self.genesis.hash().tag();
        let body = Body { chain, expires_at: TimeMs(9), author: Author::Account(account_id(1)), action };
        let bytes = Envelope::sign(&self.genesis.hash(), &body, &[&account_key()]).encode();
        (body, bytes)
    }
}

pub(crate) fn time(height: Height) -> TimeMs {
    assent_genesis::testing::TIME.plus(height.0 * 1000)
}

pub(crate) fn leaves(events: &[Event]) -> Vec<Hash> {
    events.iter().map(Event::leaf).collect()
}

pub(crate) fn account_id(n: u8) -> AccountId {
    AccountId(Hash([n; 32]))
}

pub(crate) fn account_key() -> SecretKey {
    SecretKey::from_bytes(&[5; 32])
}

/// An account's leaf, with the trail that it has.
pub(crate) fn account_leaf(n: u8, trail: Trail) -> Leaf {
    let account = Account {
        enroller: assent_genesis::institution_id("bureau"),
        custodian: assent_genesis::institution_id("hospital-a"),
        algorithm: Algorithm::Ed25519,
        key: account_key().public(),
        enrolled_height: Height(1),
        early: List::empty(),
        recovery: None,
        frozen: false,
        guardianships: List::empty(),
    };
    Leaf { object: account_id(n).into(), content: account.encode(), trail }
}

/// A trie of one leaf: its root is the leaf's hash, and the way there has no steps.
fn alone(leaf: &Leaf) -> TrieProof {
    let digest =
        LeafDigest { object: leaf.object, object_hash: leaf.object_hash(), trail: leaf.trail.clone() };
    TrieProof { steps: List::empty(), end: TrieEnd::Leaf(digest) }
}

/// An event of the account by a body of the account's, entering its trail.
pub(crate) fn event(chain: &Chain, body: &Body, index: u32, trail: &Trail) -> Event {
    let object: ObjectRef = account_id(1).into();
    let content = account_leaf(1, trail.clone()).content;
    let core = EventCore {
        height: chain.next_height(),
        transaction: 0,
        event: index,
        time: time(chain.next_height()),
        body: body_id(&chain.genesis.hash(), &body.encode()),
        author: body.author,
        action: body.action.kind(),
        kind: EventKind::Revoked,
        code: 0,
        object,
        object_hash: object_hash(&object, &content),
    };
    let link = Link { trail: object, index: trail.length, head_before: trail.head };
    Event { core, links: vec![link].try_into().unwrap() }
}

pub(crate) fn event_evidence(
    anchor: &CertifiedHeader,
    events: &[Event],
    i: usize,
    envelope: &Bytes,
) -> Bytes {
    let siblings = merkle::path(&leaves(events), i).try_into().unwrap();
    let path = MerklePath { index: i as u32, count: events.len() as u32, siblings };
    let content = Some(account_leaf(1, Trail { length: 0, head: Hash::ZERO }).content);
    let claim = EventClaim { event: events[i].clone(), path, content, envelope: Some(envelope.clone()) };
    evidence(anchor, Claim::Event(Box::new(claim)), &[])
}

fn evidence(anchor: &CertifiedHeader, claim: Claim, links: &[ValidatorLink]) -> Bytes {
    Evidence { anchor: anchor.clone(), claim, links: links.to_vec().try_into().unwrap() }.encode()
}

pub(crate) fn state_evidence(anchor: &CertifiedHeader, leaf: &Leaf) -> Bytes {
    linked_evidence(anchor, leaf, &[])
}

pub(crate) fn linked_evidence(anchor: &CertifiedHeader, leaf: &Leaf, links: &[ValidatorLink]) -> Bytes {
    let claim = Claim::State(StateClaim { leaf: leaf.clone(), proof: alone(leaf) });
    evidence(anchor, claim, links)
}

pub(crate) fn trail_evidence(anchor: &CertifiedHeader, leaf: &Leaf, events: &[Event]) -> Bytes {
    let events = events.to_vec().try_into().unwrap();
    evidence(anchor, Claim::Trail(TrailClaim { leaf: leaf.clone(), proof: alone(leaf), events }), &[])
}
