//! What a block has changed so far, over the state before it; and typed reading of either.

use std::collections::BTreeMap;

use assent_proto::field::Message;
use assent_proto::state::*;
use prost::bytes::Bytes;

use crate::State;

/// What a leaf of the state may hold.
pub trait Content: Message {
    /// The kind of object whose content this is.
    const KIND: ObjectKind;
}

macro_rules! contents {
    ($($t:ident => $kind:ident),* $(,)?) => { $( impl Content for $t { const KIND: ObjectKind = ObjectKind::$kind; } )* };
}
contents!(Institution => Institution, Account => Account, Item => Item, Batch => Batch, Settlement => Settlement,
          GrantState => Grant, Permit => Permit, Artifact => Artifact, Review => Review, Policy => Policy,
          Parameters => Parameters, Validators => Validators, Nodes => Nodes, Turns => Turns,
          Proposal => Proposal, Misconduct => Misconduct, Delegation => Delegation, Order => Order,
          Emergency => Emergency, Protocol => Protocol, Release => Release);

/// Reads an object from the state.
pub fn read<T: Content>(state: &State, object: impl Into<ObjectRef>) -> Option<T> {
    state.get(&expect_kind::<T>(object.into())).map(content)
}

/// The parameters in force; every state has them from its founding.
pub fn parameters(state: &State) -> Parameters {
    read(state, ObjectRef::PARAMETERS).expect("the founding state holds the parameters")
}

/// The policy in force; every state has it from its founding.
pub fn policy(state: &State) -> Policy {
    read(state, ObjectRef::POLICY).expect("the founding state holds the policy")
}

/// Who votes, is to vote, and voted; every state has it from its founding.
pub fn validators(state: &State) -> Validators {
    read(state, ObjectRef::VALIDATORS).expect("the founding state holds the validators")
}

/// Who may connect; every state has it from its founding.
pub fn nodes(state: &State) -> Nodes {
    read(state, ObjectRef::NODES).expect("the founding state holds the nodes")
}

/// The version of the rules in force, and the one that is decided; the oldest until one was decided.
pub fn protocol(state: &State) -> Protocol {
    read(state, ObjectRef::PROTOCOL).unwrap_or_default()
}

/// Who is passed over; every state has it from its founding.
pub fn turns(state: &State) -> Turns {
    read(state, ObjectRef::TURNS).expect("the founding state holds the turns")
}

fn expect_kind<T: Content>(object: ObjectRef) -> ObjectRef {
    assert_eq!(object.kind, T::KIND, "an object is read and written as its own kind");
    object
}

fn content<T: Content>(leaf: &Leaf) -> T {
    decode(&leaf.object, &leaf.content)
}

/// The state holds only what was written from typed values and hashes to its root, so that reading it need
/// not prove again that it is canonical.
pub(crate) fn decode<T: Content>(object: &ObjectRef, content: &Bytes) -> T {
    expect_kind::<T>(*object);
    let wire = <T::Wire as prost::Message>::decode(content.clone()).expect("the state holds encodings");
    T::read(wire, "leaf").expect("the state holds checked values")
}

/// The state as the transactions so far have left it.
pub(crate) struct Overlay<'a> {
    base: &'a State,
    /// None for what has left the state.
    changed: BTreeMap<ObjectRef, Option<Leaf>>,
}

/// What a block does to the leaves of the state.
pub(crate) struct Changes {
    /// The final leaf of every object that changed or whose trail went on, by key.
    pub(crate) written: Vec<Leaf>,
    /// Objects that were there before the block and are not any more, by key.
    pub(crate) removed: Vec<ObjectRef>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn over(base: &'a State) -> Self {
        Overlay { base, changed: BTreeMap::new() }
    }

    pub(crate) fn leaf(&self, object: &ObjectRef) -> Option<&Leaf> {
        match self.changed.get(object) {
            Some(changed) => changed.as_ref(),
            None => self.base.get(object),
        }
    }

    pub(crate) fn has(&self, object: impl Into<ObjectRef>) -> bool {
        self.leaf(&object.into()).is_some()
    }

    pub(crate) fn get<T: Content>(&self, object: impl Into<ObjectRef>) -> Option<T> {
        self.leaf(&expect_kind::<T>(object.into())).map(content)
    }

    /// Writes an object's content; its trail goes on, or begins.
    pub(crate) fn write(&mut self, object: ObjectRef, content: Bytes) {
        if let Some(Some(leaf)) = self.changed.get_mut(&object) {
            leaf.content = content;
            return;
        }
        let trail = self.leaf(&object).map_or_else(|| object.new_trail(), |l| l.trail.clone());
        self.changed.insert(object, Some(Leaf { object, content, trail }));
    }

    /// Sets the trail of an object that exists.
    pub(crate) fn set_trail(&mut self, object: &ObjectRef, trail: Trail) {
        if let Some(Some(leaf)) = self.changed.get_mut(object) {
            leaf.trail = trail;
            return;
        }
        let leaf = self.leaf(object).expect("only objects that exist have a trail");
        let leaf = Leaf { trail, ..leaf.clone() };
        self.changed.insert(*object, Some(leaf));
    }

    /// Takes an object out of the state.
    pub(crate) fn remove(&mut self, object: &ObjectRef) {
        self.changed.insert(*object, None);
    }

    pub(crate) fn into_changes(self) -> Changes {
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for (object, leaf) in self.changed {
            match leaf {
                Some(leaf) => written.push(leaf),
                // What came and went in one block was never in a state.
                None if self.base.get(&object).is_some() => removed.push(object),
                None => {}
            }
        }
        Changes { written, removed }
    }
}

/// The content of an object, ready to be written.
pub(crate) fn encode<T: Content>(object: impl Into<ObjectRef>, value: &T) -> (ObjectRef, Bytes) {
    (expect_kind::<T>(object.into()), value.encode())
}
