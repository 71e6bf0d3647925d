//! What a block has changed so far, over the state before it; and typed reading of either.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;

use assent_proto::field::Message;
use assent_proto::state::*;
use prost::bytes::Bytes;

use crate::State;

/// What a leaf of the state may hold.
pub trait Content: Message + Clone + 'static {
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
    state.get(&expect_kind::<T>(object.into())).as_ref().map(content)
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
    /// What was looked at or changed: transactions of one block are about the same objects again and again.
    seen: RefCell<BTreeMap<ObjectRef, Seen>>,
}

/// An object as it is now.
struct Seen {
    /// None for what is not in the state.
    leaf: Option<Leaf>,
    /// The content, read, once it was asked for.
    read: Option<Box<dyn Any>>,
    changed: bool,
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
        Overlay { base, seen: RefCell::default() }
    }

    /// Looks at an object's leaf, and at nothing else meanwhile.
    pub(crate) fn look<R>(&self, object: &ObjectRef, at: impl FnOnce(Option<&Leaf>) -> R) -> R {
        let mut seen = self.seen.borrow_mut();
        at(look_up(self.base, &mut seen, object).leaf.as_ref())
    }

    pub(crate) fn has(&self, object: impl Into<ObjectRef>) -> bool {
        self.look(&object.into(), |leaf| leaf.is_some())
    }

    pub(crate) fn get<T: Content>(&self, object: impl Into<ObjectRef>) -> Option<T> {
        let mut seen = self.seen.borrow_mut();
        let seen = look_up(self.base, &mut seen, &expect_kind::<T>(object.into()));
        let leaf = seen.leaf.as_ref()?;
        let read = seen.read.get_or_insert_with(|| Box::new(content::<T>(leaf)));
        Some(read.downcast_ref::<T>().expect("an object has the type of its kind").clone())
    }

    /// Writes an object's content; its trail goes on, or begins.
    pub(crate) fn write(&mut self, object: ObjectRef, content: Bytes) {
        let seen = self.changed(&object);
        seen.read = None;
        match &mut seen.leaf {
            Some(leaf) => leaf.content = content,
            none => *none = Some(Leaf { object, content, trail: object.new_trail() }),
        }
    }

    /// Sets the trail of an object that exists.
    pub(crate) fn set_trail(&mut self, object: &ObjectRef, trail: Trail) {
        self.changed(object).leaf.as_mut().expect("only objects that exist have a trail").trail = trail;
    }

    /// Takes an object out of the state.
    pub(crate) fn remove(&mut self, object: &ObjectRef) {
        let seen = self.changed(object);
        (seen.leaf, seen.read) = (None, None);
    }

    pub(crate) fn into_changes(self) -> Changes {
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for (object, seen) in self.seen.into_inner() {
            match seen.leaf {
                _ if !seen.changed => {}
                Some(leaf) => written.push(leaf),
                // What came and went in one block was never in a state.
                None if self.base.has(&object) => removed.push(object),
                None => {}
            }
        }
        Changes { written, removed }
    }

    /// An object that changes.
    fn changed(&mut self, object: &ObjectRef) -> &mut Seen {
        let seen = look_up(self.base, self.seen.get_mut(), object);
        seen.changed = true;
        seen
    }
}

fn look_up<'m>(base: &State, seen: &'m mut BTreeMap<ObjectRef, Seen>, object: &ObjectRef) -> &'m mut Seen {
    seen.entry(*object).or_insert_with(|| Seen { leaf: base.get(object), read: None, changed: false })
}

/// The content of an object, ready to be written.
pub(crate) fn encode<T: Content>(object: impl Into<ObjectRef>, value: &T) -> (ObjectRef, Bytes) {
    (expect_kind::<T>(object.into()), value.encode())
}
