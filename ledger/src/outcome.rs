//! From what a rule decided to events with their places in trails, and receipts.
//!
//! A rule reads the state and returns an [`Outcome`] or a denial; only this file turns either into writes,
//! so a denial can leave nothing behind but its event.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::{Event, EventCore, EventKind, Link, Receipt};
use assent_proto::hash::Hash;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::{ActionKind, Author};
use prost::bytes::Bytes;

use crate::BlockContext;
use crate::overlay::{Content, Overlay, decode, encode};

/// What a transaction does: objects to write, then events in order; then what is over leaves the state.
#[derive(Default)]
pub(crate) struct Outcome {
    writes: Vec<(ObjectRef, Bytes)>,
    happenings: Vec<Happening>,
    retired: Vec<ObjectRef>,
}

struct Happening {
    kind: EventKind,
    object: ObjectRef,
    trails: Vec<ObjectRef>,
}

impl Outcome {
    /// Writes an object.
    pub(crate) fn write<T: Content>(mut self, object: impl Into<ObjectRef>, value: &T) -> Self {
        self.writes.push(encode(object, value));
        self
    }

    /// What it writes of an object so far.
    pub(crate) fn written<T: Content>(&self, object: impl Into<ObjectRef>) -> Option<T> {
        let object = object.into();
        let (object, content) = self.writes.iter().rev().find(|(written, _)| *written == object)?;
        Some(decode(object, content))
    }

    /// Tells what happened to an object. The event joins its trail, the author's, and `trails`.
    pub(crate) fn event(
        mut self,
        kind: EventKind,
        object: impl Into<ObjectRef>,
        trails: impl IntoIterator<Item = ObjectRef>,
    ) -> Self {
        self.happenings.push(Happening { kind, object: object.into(), trails: trails.into_iter().collect() });
        self
    }

    /// An object is over: it leaves the state, and the event that says so is the last of its trail. Its id can
    /// come again only if the body that made it could.
    pub(crate) fn retire(
        mut self,
        object: impl Into<ObjectRef>,
        trails: impl IntoIterator<Item = ObjectRef>,
    ) -> Self {
        let object = object.into();
        self.retired.push(object);
        self.event(EventKind::Retired, object, trails)
    }
}

/// Who asked for what, in which transaction.
pub(crate) struct Origin {
    pub(crate) transaction: u32,
    pub(crate) body: BodyId,
    pub(crate) author: Author,
    pub(crate) action: ActionKind,
}

/// The events and receipts of a block in the making.
pub(crate) struct Record {
    block: BlockContext,
    pub(crate) events: Vec<Event>,
    pub(crate) leaves: Vec<Hash>,
    pub(crate) receipts: Vec<Receipt>,
}

impl Record {
    pub(crate) fn of(block: BlockContext) -> Self {
        Record { block, events: Vec::new(), leaves: Vec::new(), receipts: Vec::new() }
    }

    /// Writes what a transaction does and tells it.
    pub(crate) fn applied(&mut self, state: &mut Overlay, origin: &Origin, outcome: Outcome) {
        let first_event = self.events.len();
        for (object, content) in outcome.writes {
            state.write(object, content);
        }
        for (i, happening) in outcome.happenings.into_iter().enumerate() {
            let hash = state.look(&happening.object, |leaf| leaf.map(Leaf::object_hash));
            let hash = hash.expect("an event is about an object that was written");
            let core = self.core(origin, i as u32, happening.kind, happening.object, hash);
            self.join(state, core, happening.trails);
        }
        outcome.retired.iter().for_each(|object| state.remove(object));
        self.receipt(origin, first_event, 0);
    }

    /// Tells that the rules said no. Of `trails` only those of existing objects are joined.
    pub(crate) fn denied(
        &mut self,
        state: &mut Overlay,
        origin: &Origin,
        denial: Denial,
        trails: Vec<ObjectRef>,
    ) {
        let first_event = self.events.len();
        let mut core = self.core(origin, 0, EventKind::Denied, object_of(origin.author), Hash::ZERO);
        core.code = denial.number();
        self.join(state, core, trails);
        self.receipt(origin, first_event, denial.number());
    }

    fn core(
        &self,
        from: &Origin,
        event: u32,
        kind: EventKind,
        object: ObjectRef,
        object_hash: Hash,
    ) -> EventCore {
        EventCore {
            height: self.block.height,
            transaction: from.transaction,
            event,
            time: self.block.time,
            body: from.body,
            author: from.author,
            action: from.action,
            kind,
            code: 0,
            object,
            object_hash,
        }
    }

    /// Enters the event into the trails in the order of their keys and moves each on by it.
    fn join(&mut self, state: &mut Overlay, core: EventCore, trails: Vec<ObjectRef>) {
        let trails: BTreeSet<_> = trails.into_iter().chain([core.object, object_of(core.author)]).collect();
        let links: Vec<_> = trails
            .into_iter()
            .filter_map(|object| {
                let Trail { length: index, head: head_before } =
                    state.look(&object, |leaf| leaf.map(|leaf| leaf.trail.clone()))?;
                Some(Link { trail: object, index, head_before })
            })
            .collect();
        let event = Event { core, links: links.try_into().expect("an action's inputs bound its trails") };
        let leaf = event.leaf();
        for link in &event.links {
            state.set_trail(&link.trail, link.after(&leaf));
        }
        self.events.push(event);
        self.leaves.push(leaf);
    }

    fn receipt(&mut self, origin: &Origin, first_event: usize, code: u32) {
        self.receipts.push(Receipt {
            body: origin.body,
            height: self.block.height,
            transaction: origin.transaction,
            code,
            first_event: first_event as u32,
            events: (self.events.len() - first_event) as u32,
        });
    }
}

fn object_of(author: Author) -> ObjectRef {
    match author {
        Author::Institution(id) => id.into(),
        Author::Account(id) => id.into(),
    }
}
