//! Evidence: one file that proves a claim to anyone who holds the founding document (R29).
//!
//! `Evidence::decode` → [`Evidence::verify`] → [`Verdict`]. Nothing else is asked, of nobody.

use bytes::Bytes;
use serde::Serialize;

use crate::block::{BadCertificate, CertifiedHeader, PROTOCOL_NEWEST, UnknownProtocol};
use crate::code::Invalid;
use crate::envelope;
use crate::event::Event;
use crate::field::{DecodeError, Element, Field, List, Message, messages};
use crate::hash::Hash;
use crate::ids::*;
use crate::merkle::{self, MerklePath};
use crate::state::{Leaf, Object, ObjectKind, ObjectRef, object_hash};
use crate::trie::{BadProof, TrieProof};
use crate::validators::ValidatorSet;
use crate::wire;

messages! {
    /// A final header after which another set votes.
    ValidatorLink {
        /// The header and its certificate by the set before.
        certified: CertifiedHeader,
        /// The set that its `next_validators` names.
        next: ValidatorSet,
    }
    /// This event is on the chain.
    EventClaim {
        /// The event.
        event: Event,
        /// Its place among its block's events.
        path: MerklePath,
        /// The object that it is about, after it.
        #[serde(serialize_with = "crate::field::as_optional_hex")]
        content: Option<Bytes>,
        /// The signed transaction behind it.
        #[serde(serialize_with = "crate::field::as_optional_hex")]
        envelope: Option<Bytes>,
    }
    /// This object stood so after the block.
    StateClaim {
        /// The leaf.
        leaf: Leaf,
        /// Its place in the state trie.
        proof: TrieProof,
    }
    /// There was no such object after the block.
    AbsenceClaim {
        /// The object.
        object: ObjectRef,
        /// Where its key leads.
        proof: TrieProof,
    }
    /// These are all events of the object as of the block.
    TrailClaim {
        /// The object's leaf.
        leaf: Leaf,
        /// Its place in the state trie.
        proof: TrieProof,
        /// All events from the first on.
        events: List<Event, TRAIL_EVENTS_MAX>,
    }
}

/// The most events in one trail claim.
pub const TRAIL_EVENTS_MAX: usize = 100_000;
/// The most changes of the validators that evidence can cross.
pub const LINKS_MAX: usize = 1024;
/// The version of the evidence format.
pub const EVIDENCE_VERSION: u32 = 1;

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Claim {
    Event(Box<EventClaim>),
    State(StateClaim),
    Absence(AbsenceClaim),
    Trail(TrailClaim),
}

/// A claim and all that proves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The final header that the proof leads to.
    pub anchor: CertifiedHeader,
    /// The claim.
    pub claim: Claim,
    /// Every change of the validators below the anchor, from the founding set on.
    pub links: List<ValidatorLink, LINKS_MAX>,
}

impl Element for Evidence {
    type Wire = wire::Evidence;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        use wire::evidence::Claim as W;
        if w.version != EVIDENCE_VERSION {
            return Err(DecodeError::Enum("version"));
        }
        Ok(Evidence {
            anchor: Field::read_field(w.anchor, "anchor")?,
            claim: match w.claim.ok_or(DecodeError::Missing("claim"))? {
                W::Event(c) => Claim::Event(Box::new(Element::read(c, "event")?)),
                W::State(c) => Claim::State(Element::read(c, "state")?),
                W::Absence(c) => Claim::Absence(Element::read(c, "absence")?),
                W::Trail(c) => Claim::Trail(Element::read(c, "trail")?),
            },
            links: Field::read_field(w.links, "links")?,
        })
    }
    fn write(&self) -> Self::Wire {
        use wire::evidence::Claim as W;
        wire::Evidence {
            version: EVIDENCE_VERSION,
            anchor: self.anchor.write_field(),
            claim: Some(match &self.claim {
                Claim::Event(c) => W::Event(c.write()),
                Claim::State(c) => W::State(c.write()),
                Claim::Absence(c) => W::Absence(c.write()),
                Claim::Trail(c) => W::Trail(c.write()),
            }),
            links: self.links.write_field(),
        }
    }
}
crate::field::message_field!(Evidence);
impl Message for Evidence {
    const BYTES_MAX: usize = 128 << 20;
}

/// What the verifier believes beforehand: the founding document, and nothing else.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Names the chain.
    pub genesis: GenesisHash,
    /// Who votes at the founding; later sets are followed link by link.
    pub validators: ValidatorSet,
}

/// Why evidence proves nothing. Each says which part failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvidence {
    /// The file is not evidence.
    #[error("the file is not evidence: {0}")]
    Decode(#[from] DecodeError),
    /// The header is of another chain.
    #[error("the header is of another chain")]
    OtherChain,
    /// The header names another validator set than the one that the links lead to.
    #[error(
        "the header names other validators than those that the genesis file and the changes shown lead to: \
         a change is missing, or the header is of another chain"
    )]
    OtherValidators,
    /// A change of the validators.
    #[error("change {number} of the validators, at height {height}, does not hold: {why}")]
    Link {
        /// Its place among the changes shown, from 1.
        number: usize,
        /// At which height.
        height: Height,
        /// What is wrong.
        why: BadLink,
    },
    /// The certificate.
    #[error("the header is not final: {0}")]
    Certificate(#[from] BadCertificate),
    /// The header is final, and this program is too old to say what it means.
    #[error(transparent)]
    Newer(#[from] UnknownProtocol),
    /// The state proof.
    #[error("the state proof fails: {0}")]
    State(#[from] BadProof),
    /// The event's place in its block.
    #[error("the event is not among the events of block {0}")]
    EventPath(Height),
    /// The event speaks of another block.
    #[error("the event says another height or time than the header")]
    EventHeader,
    /// The object's content.
    #[error("the object's content is not what the event commits to")]
    Content,
    /// The object's content does not decode.
    #[error("the object's content does not decode: {0}")]
    Object(DecodeError),
    /// The envelope's body.
    #[error("the signed transaction is not the one the event names")]
    OtherTransaction,
    /// The envelope's signatures.
    #[error("the signed transaction does not verify: {0}")]
    Transaction(Invalid),
    /// The trail.
    #[error("the trail breaks at event {0}: something is missing, added or changed")]
    Trail(u64),
    /// The trail's end.
    #[error("the trail has {given} events, the state says {expected}")]
    TrailLength {
        /// Events in the file.
        given: u64,
        /// Events according to the state.
        expected: u64,
    },
}

/// Why a change of the validators is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// Changes come in ascending order, and below the header that they lead to.
    #[error("it is not above the change before it, or not below the header that the changes lead to")]
    Order,
    /// The header is of another chain.
    #[error("its header is of another chain")]
    OtherChain,
    /// The set that the changes before lead to does not vote at its height.
    #[error(
        "its header names other validators than those that the changes before it lead to: \
         one is missing, or out of its place"
    )]
    Missing,
    /// Its header changes nothing.
    #[error("its header does not change the validators")]
    Unchanged,
    /// The set shown is not the one that the header names.
    #[error("the next validators shown are not those that its header names")]
    OtherNext,
    /// Another change stood in its place before; see [`crate::epochs`].
    #[error("another change was shown in its place before")]
    OtherHistory,
    /// The certificate.
    #[error("its header is not final: {0}")]
    Certificate(#[from] BadCertificate),
}

/// What evidence proves.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// As of which block.
    pub height: Height,
    /// The block's time.
    pub time: TimeMs,
    /// How many validators certified it.
    pub signers: usize,
    /// How many voted.
    pub validators: usize,
    /// How many changes of the validators lie between the founding and the block.
    pub changes: usize,
    /// In words.
    pub statement: String,
}

impl Evidence {
    /// Reads and verifies in one go: what a verifier does with a file.
    pub fn check(bytes: &[u8], trust: &Trust) -> Result<(Evidence, Verdict), BadEvidence> {
        let evidence = <Evidence as Message>::decode(bytes)?;
        let verdict = evidence.verify(trust)?;
        Ok((evidence, verdict))
    }

    /// Verifies every part and says in words what is proved.
    pub fn verify(&self, trust: &Trust) -> Result<Verdict, BadEvidence> {
        self.verify_by(trust, &trust.follow(&self.links)?)
    }

    /// Verifies all but the changes of the validators, which lead to `set`.
    pub(crate) fn verify_by(&self, trust: &Trust, set: &ValidatorSet) -> Result<Verdict, BadEvidence> {
        let last = self.links.last().map(|l| l.certified.header.height);
        if let Some(height) = last.filter(|h| *h >= self.anchor.header.height) {
            return Err(BadEvidence::Link { number: self.links.len(), height, why: BadLink::Order });
        }
        verify_header(&self.anchor, trust, set)?;
        let header = &self.anchor.header;
        header.check_known(PROTOCOL_NEWEST)?;
        let height = header.height;
        let statement = match &self.claim {
            Claim::Event(c) => self.verify_event(c, trust)?,
            Claim::State(c) => {
                c.proof.verify_leaf(&header.state_root, &c.leaf)?;
                Object::decode(c.leaf.object.kind, &c.leaf.content).map_err(BadEvidence::Object)?;
                format!("{} stood as shown after block {height}", name(&c.leaf.object))
            }
            Claim::Absence(c) => {
                c.proof.verify_absence(&header.state_root, &c.object)?;
                let over = match c.object.kind {
                    ObjectKind::Proposal => ": none was made, or it was over and had left the state",
                    _ => "",
                };
                format!("there was no {} in the state after block {height}{over}", name(&c.object))
            }
            Claim::Trail(c) => {
                c.proof.verify_leaf(&header.state_root, &c.leaf)?;
                verify_trail(&c.leaf, &c.events)?;
                format!(
                    "the {} events shown are all that happened to {}: complete to block {height}",
                    c.events.len(),
                    name(&c.leaf.object)
                )
            }
        };
        Ok(Verdict {
            height,
            time: header.time,
            signers: self.anchor.certificate.signatures.len(),
            validators: set.validators.len(),
            changes: self.links.len(),
            statement,
        })
    }

    fn verify_event(&self, c: &EventClaim, trust: &Trust) -> Result<String, BadEvidence> {
        let (header, core) = (&self.anchor.header, &c.event.core);
        if core.height != header.height || core.time != header.time {
            return Err(BadEvidence::EventHeader);
        }
        let (index, count) = (u64::from(c.path.index), u64::from(c.path.count));
        if !merkle::verify(&header.events_root, &c.event.leaf(), index, count, &c.path.siblings) {
            return Err(BadEvidence::EventPath(header.height));
        }
        if let Some(content) = &c.content {
            if object_hash(&core.object, content) != core.object_hash {
                return Err(BadEvidence::Content);
            }
            Object::decode(core.object.kind, content).map_err(BadEvidence::Object)?;
        }
        if let Some(bytes) = &c.envelope {
            let tx = envelope::verify(&trust.genesis, std::slice::from_ref(bytes)).remove(0);
            let tx = tx.map_err(BadEvidence::Transaction)?;
            if tx.body_id() != core.body || tx.body().author != core.author {
                return Err(BadEvidence::OtherTransaction);
            }
        }
        let what = hyphened(&core.kind);
        Ok(format!("event {what} of {} is on the chain in block {}", name(&core.object), header.height))
    }
}

impl Trust {
    /// The set that votes after the changes shown, each certified by the set before it.
    pub fn follow(&self, links: &[ValidatorLink]) -> Result<ValidatorSet, BadEvidence> {
        let (mut set, mut below) = (&self.validators, Height(0));
        for (i, link) in links.iter().enumerate() {
            let height = link.certified.header.height;
            link.verify(self, set, below).map_err(|why| BadEvidence::Link { number: i + 1, height, why })?;
            (set, below) = (&link.next, height);
        }
        Ok(set.clone())
    }
}

impl ValidatorLink {
    /// Whether the change holds that follows on a set, whose own change was at the height `below`; 0 for the
    /// founding.
    pub fn verify(&self, trust: &Trust, set: &ValidatorSet, below: Height) -> Result<(), BadLink> {
        let header = &self.certified.header;
        if header.height <= below {
            return Err(BadLink::Order);
        }
        if header.next_validators == header.validators {
            return Err(BadLink::Unchanged);
        }
        if header.next_validators != self.next.hash() {
            return Err(BadLink::OtherNext);
        }
        verify_header(&self.certified, trust, set).map_err(|e| match e {
            BadEvidence::Certificate(e) => BadLink::Certificate(e),
            BadEvidence::OtherChain => BadLink::OtherChain,
            _ => BadLink::Missing,
        })
    }
}

/// Whether a header is final on the chain that is trusted, by the set that votes at its height.
pub fn verify_header(anchor: &CertifiedHeader, trust: &Trust, set: &ValidatorSet) -> Result<(), BadEvidence> {
    let header = &anchor.header;
    if header.genesis != trust.genesis {
        return Err(BadEvidence::OtherChain);
    }
    if header.validators != set.hash() {
        return Err(BadEvidence::OtherValidators);
    }
    anchor.certificate.verify(&trust.genesis, set, header.height, &header.id())?;
    Ok(())
}

/// Whether the events are the object's whole trail, first to last.
fn verify_trail(leaf: &Leaf, events: &[Event]) -> Result<(), BadEvidence> {
    if events.len() as u64 != leaf.trail.length {
        return Err(BadEvidence::TrailLength { given: events.len() as u64, expected: leaf.trail.length });
    }
    let mut trail = leaf.object.new_trail();
    for event in events {
        let at = trail.length;
        let link = event.link(&leaf.object).ok_or(BadEvidence::Trail(at))?;
        if link.index != at || link.head_before != trail.head {
            return Err(BadEvidence::Trail(at));
        }
        trail = link.after(&event.leaf());
    }
    if trail == leaf.trail { Ok(()) } else { Err(BadEvidence::Trail(trail.length)) }
}

fn name(object: &ObjectRef) -> String {
    match object.id {
        // There is one of its kind.
        Hash::ZERO => hyphened(&object.kind),
        id => format!("{} {id}", hyphened(&object.kind)),
    }
}

/// A variant's name as it stands in JSON: `equivocation-reported`.
fn hyphened(variant: &impl std::fmt::Debug) -> String {
    let mut name = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}
