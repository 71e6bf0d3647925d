//! Events and the trails they join: the record of everything that happened.

use crate::field::{DecodeError, Element, List, Message, enums, messages};
use crate::hash::{self, Hash};
use crate::ids::*;
use crate::state::{ObjectRef, Trail};
use crate::transaction::{ActionKind, Author};

enums! {
    /// What happened.
    EventKind { /** The rules said no; see the code. */ Denied = 1, /** An account was opened. */ Enrolled = 2,
        /** An item entered the catalogue. */ ItemRegistered = 3, /** An item was graded. */ Classified = 4,
        /** Records were anchored. */ Anchored = 5, /** A person authorized. */ Granted = 6, /** A person withdrew. */ Revoked = 7,
        /** A person withdrew what was not yet seen. */ RevokedEarly = 8, /** A use was permitted. */ Permitted = 9,
        /** Records were released. */ Delivered = 10, /** Erasure was attested. */ ErasureAttested = 11,
        /** Lineage was recorded. */ ActivityRecorded = 12, /** An opening was reviewed. */ OpeningReviewed = 13,
        /** A case was settled. */ Settled = 14, /** A revocation opened an erasure duty. */ ErasureDue = 15,
        /** A change was proposed. */ Proposed = 16, /** A change was approved. */ Approved = 17,
        /** A change was decided. */ Enacted = 18, /** A validator was shown to have contradicted itself. */ EquivocationReported = 19,
        /** A validator's key will not vote any more for it. */ ValidatorRemoved = 20,
        /** An object that is over has left the state; this is the last event of its trail. */ Retired = 21,
        /** A custodian will not release; the use is given back. */ NotDelivered = 22,
        /** An account has a new key. */ KeyRotated = 23,
        /** An institution says that an account's owner has lost her key. */ RecoveryApproved = 24,
        /** Enough have said so: unless the old key vetoes, the new one counts from then on. */ RecoveryReady = 25,
        /** The old key vetoed; the account is frozen. */ RecoveryVetoed = 26,
        /** One account may grant for another. */ Delegated = 27,
        /** It may no longer. */ DelegationEnded = 28,
        /** A ward lets a delegate's grant hold. */ Ratified = 29,
        /** An institution changed its own keys. */ OperatorRotated = 30,
        /** A use was permitted in an emergency; review and notice are due. */ EmergencyOpened = 31,
        /** A release in an outage was anchored; review and notice are due. */ EmergencyAnchored = 32,
        /** The same, after the deadline. */ EmergencyAnchoredLate = 33,
        /** The regulator reviewed an emergency. */ EmergencyReviewed = 34,
        /** A person was told of a use. */ PersonNotified = 35,
        /** A court or statute opens access. */ OrderIssued = 36,
        /** What should be erased is kept in storage by law. */ ErasureHeld = 37,
        /** An institution was admitted, or changed. */ Admitted = 38,
        /** An institution may only fulfil its duties. */ Suspended = 39,
        /** It may act again. */ Reinstated = 40,
        /** It may only fulfil its duties, for good. */ Expelled = 41 }
}

messages! {
    /// What happened, to what, by whom.
    EventCore {
        /// Block height.
        height: Height,
        /// Index of the transaction in the block.
        transaction: u32,
        /// Index of the event in the transaction.
        event: u32,
        /// Block time.
        time: TimeMs,
        /// The transaction's body id.
        body: BodyId,
        /// Who asked.
        author: Author,
        /// For what.
        action: ActionKind,
        /// What came of it.
        kind: EventKind,
        /// A denial's code, and 0 where nothing was denied.
        code: u32,
        /// What the event is about: of a denial, the author.
        object: ObjectRef,
        /// The object's [`crate::state::object_hash`] after the transaction; zeros for a denial.
        object_hash: Hash,
    }
    /// The event's place in one trail.
    Link {
        /// The trail.
        trail: ObjectRef,
        /// The event's index in it, from 0.
        index: u64,
        /// The head before the event.
        head_before: Hash,
    }
    /// An event with its places in the trails that it joins.
    Event {
        /// What happened.
        core: EventCore,
        /// Trails in ascending order of their keys.
        links: List<Link, LINKS_MAX>,
    }
    /// What became of one transaction.
    Receipt {
        /// Its body id.
        body: BodyId,
        /// In which block.
        height: Height,
        /// Its index in the block.
        transaction: u32,
        /// Denial code, and 0 when it was applied.
        code: u32,
        /// Index of its first event among the block's.
        first_event: u32,
        /// How many events.
        events: u32,
    }
}

/// The most trails that one event joins: an activity with all its inputs and outputs, their persons and
/// custodians.
pub const LINKS_MAX: usize = 1024;

/// The most bytes of an event: one that joins every trail that it may.
pub const EVENT_BYTES_MAX: usize = 128 << 10;

impl Link {
    /// The trail after the event.
    pub fn after(&self, leaf: &Hash) -> Trail {
        let head = hash::TRAIL_STEP.hash(&[&self.head_before.0, &leaf.0]);
        Trail { length: self.index + 1, head }
    }
}

impl Event {
    /// Reads an event's canonical encoding, up to [`EVENT_BYTES_MAX`].
    pub fn decode_whole(bytes: &[u8]) -> Result<Event, DecodeError> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(DecodeError::TooLarge(EVENT_BYTES_MAX));
        }
        let wire =
            <crate::wire::Event as prost::Message>::decode(bytes).map_err(|_| DecodeError::Malformed)?;
        let event = Event::read(wire, "event")?;
        if event.encode() == bytes { Ok(event) } else { Err(DecodeError::NotCanonical) }
    }

    /// The event's leaf: of its core and its links.
    pub fn leaf(&self) -> Hash {
        let core = self.core.encode();
        let mut links = Vec::with_capacity(8 + self.links.len() * 73);
        links.extend((self.links.len() as u64).to_le_bytes());
        for link in &self.links {
            links.extend(link.trail.key());
            links.extend(link.index.to_le_bytes());
            links.extend(link.head_before.0);
        }
        hash::EVENT.hash(&[&(core.len() as u64).to_le_bytes(), &core, &links])
    }

    /// The link into a trail.
    pub fn link(&self, trail: &ObjectRef) -> Option<&Link> {
        self.links.iter().find(|l| l.trail == *trail)
    }
}
