//! Evidence: one file that proves a claim to anyone who holds the founding document (R29).
//!
//! `Evidence::decode` → [`Evidence::verify`] → [`Verdict`]. Nothing else is asked, of nobody.

use bytes::Bytes;
use serde::Serialize;

use crate::block::{BadCertificate, CertifiedHeader};
use crate::code::Invalid;
use crate::envelope;
use crate::event::Event;
use crate::field::{DecodeError, Element, Field, List, Message, messages};
use crate::ids::*;
use crate::merkle::{self, MerklePath};
use crate::state::{Leaf, Object, ObjectRef, object_hash};
use crate::trie::{BadProof, TrieProof};
use crate::validators::ValidatorSet;
use crate::wire;

messages! {
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
    /// Who votes. Until validator sets can change, the founding one.
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
    /// The header names another validator set than the founding document.
    #[error("the header names validators that the genesis file does not know")]
    OtherValidators,
    /// The certificate.
    #[error("the header is not final: {0}")]
    Certificate(#[from] BadCertificate),
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

/// What evidence proves.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// As of which block.
    pub height: Height,
    /// The block's time.
    pub time: TimeMs,
    /// How many validators certified it.
    pub signers: usize,
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
        verify_header(&self.anchor, trust)?;
        let header = &self.anchor.header;
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
                format!("there was no {} after block {height}", name(&c.object))
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
        let what = format!("{:?}", core.kind).to_lowercase();
        Ok(format!("event {what} of {} is on the chain in block {}", name(&core.object), header.height))
    }
}

/// Whether a header is final on the chain that is trusted.
pub fn verify_header(anchor: &CertifiedHeader, trust: &Trust) -> Result<(), BadEvidence> {
    let header = &anchor.header;
    if header.genesis != trust.genesis {
        return Err(BadEvidence::OtherChain);
    }
    if header.validators != trust.validators.hash() {
        return Err(BadEvidence::OtherValidators);
    }
    anchor.certificate.verify(&trust.genesis, &trust.validators, header.height, &header.id())?;
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
    format!("{} {}", format!("{:?}", object.kind).to_lowercase(), object.id)
}
