//! The state: a compressed binary trie over [`ObjectRef::path`], hashed by the rules of `assent_proto::trie`.
//!
//! It is persistent: a version shares with the one before it all that did not change, so older versions stay
//! valid for readers and for speculative execution, and a clone costs nothing. The root depends on the leaves
//! alone, never on the order in which they came. No storage lives here.
//!
//! Memory is what it costs, so few leaves that lie together are held in one piece (`few`), in which the trie's lowest
//! nodes are not stored but hashed again when one of them changes; above them each node holds the hashes of its
//! children, so that a change touches no neighbour. How leaves are divided so depends on the leaves alone, too.

use std::sync::Arc;

use assent_proto::trie::{LeafDigest, TrieEnd, TrieFork, TrieProof, TrieStep, inner_hash};
use assent_proto::{Hash, Leaf, List, ObjectRef};

use few::{FEW_MAX, Few, Packed};
use words::Words;

mod few;
mod gather;
mod words;

pub use gather::Gather;

/// A version of the state.
#[derive(Clone, Debug, Default)]
pub struct State {
    root: Option<Tree>,
    len: usize,
    words: Arc<Words>,
}

/// Leaves that lie together, at least one, with their hash.
#[derive(Clone, Debug)]
struct Tree {
    node: Node,
    hash: Hash,
}

#[derive(Clone, Debug)]
enum Node {
    /// All of them.
    Few(Few),
    /// They are more than [`FEW_MAX`].
    Inner(Arc<Inner>),
}

/// In the order in which a descent looks at it.
#[derive(Debug)]
#[repr(C)]
struct Inner {
    /// The first bit in which the leaves below differ.
    bit: u8,
    /// The first bits of what they share before it.
    head: u32,
    children: [Node; 2],
    hashes: [Hash; 2],
}

impl State {
    /// The state of these leaves; of several for one object, the last.
    pub fn from_leaves(leaves: impl IntoIterator<Item = Leaf>) -> State {
        let mut gather = Gather::default();
        leaves.into_iter().for_each(|leaf| gather.add(&leaf));
        gather.state()
    }

    /// The root: [`Hash::ZERO`] of the empty state.
    pub fn root(&self) -> Hash {
        self.root.as_ref().map_or(Hash::ZERO, |root| root.hash)
    }

    /// How many leaves.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no leaf.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The leaf of an object.
    pub fn get(&self, object: &ObjectRef) -> Option<Leaf> {
        self.find(object).map(|packed| packed.leaf(&self.words))
    }

    /// Whether an object has a leaf.
    pub fn has(&self, object: &ObjectRef) -> bool {
        self.find(object).is_some()
    }

    /// Every leaf, by rising path.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf> {
        self.root.iter().flat_map(|root| packed(&root.node)).map(|packed| packed.leaf(&self.words))
    }

    /// The leaf of an object with the proof that it is there, or the proof that there is none.
    pub fn prove(&self, object: &ObjectRef) -> (Option<Leaf>, TrieProof) {
        let path = object.path();
        let (end, proof) = self.way(|fork| shares(&path, fork).then(|| path.bit(fork.bit)));
        let leaf = end.and_then(|place| place.only()).map(|packed| packed.leaf(&self.words));
        (leaf.filter(|leaf| leaf.object == *object), proof)
    }

    /// The leaves under the first `bits` bits of `prefix` by rising path, with the proof that they are all
    /// ([`TrieProof::verify_subtree`]). The other bits of `prefix` must be zeros.
    pub fn subtree(&self, prefix: &Hash, bits: u16) -> (Vec<Leaf>, TrieProof) {
        let above = |fork: &Fork| fork.bit < bits && shares(prefix, fork);
        let (end, proof) = self.way(|fork| above(fork).then(|| prefix.bit(fork.bit)));
        let below = end.filter(|place| place.first().path().prefix(bits) == *prefix);
        (below.iter().flat_map(Place::leaves).map(|packed| packed.leaf(&self.words)).collect(), proof)
    }

    /// Into how many bits of their paths the leaves are divided, so that on average at most `most` share them.
    pub fn bits_for(&self, most: usize) -> u16 {
        let parts = self.len.div_ceil(most.max(1)).next_power_of_two();
        parts.trailing_zeros() as u16
    }

    /// The objects whose leaf is not what its hash says: the memory failed.
    pub fn unsound(&self) -> Vec<ObjectRef> {
        let all = self.root.iter().flat_map(|root| packed(&root.node));
        all.filter(|packed| packed.leaf(&self.words).hash() != packed.hash())
            .map(|packed| packed.object())
            .collect()
    }

    /// The version in which one leaf is not what its hash says, as a fault of the memory leaves it. For tests:
    /// nothing else makes such a state.
    #[doc(hidden)]
    pub fn damaged(&self, leaf: Leaf) -> State {
        fn put(node: &Node, path: &Hash, leaf: &Packed) -> Node {
            match node {
                Node::Few(few) => Node::Few(Few::of(&few.with(&[*leaf]))),
                Node::Inner(n) => {
                    let mut children = n.children.clone();
                    let at = usize::from(path.bit(n.bit.into()));
                    children[at] = put(&children[at], path, leaf);
                    Node::Inner(Arc::new(Inner { children, ..**n }))
                }
            }
        }
        let held = self.find(&leaf.object).expect("only a leaf that is there can be damaged");
        let mut bytes = Vec::new();
        few::pack(&leaf, &held.hash(), &self.words, &mut bytes);
        let path = leaf.object.path();
        let leaf = Packed::new(few::head(&path), &bytes);
        let damaged = |root: &Tree| Tree { node: put(&root.node, &path, &leaf), hash: root.hash };
        State { root: self.root.as_ref().map(damaged), ..self.clone() }
    }

    /// The version in which each of these leaves stands at its object's key, of several for one object the
    /// last. This version stays as it is. Nodes that several changes share are hashed once.
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = &'a Leaf>) -> State {
        let mut words = self.words.clone();
        let mut bytes = Vec::new();
        let mut ends: Vec<_> = changes
            .into_iter()
            .map(|leaf| {
                if words.lacks(&leaf.object) {
                    Arc::make_mut(&mut words).learn(&leaf.object);
                }
                let from = bytes.len();
                few::pack(leaf, &leaf.hash(), &words, &mut bytes);
                (leaf.object.path(), from..bytes.len())
            })
            .collect();
        // Of equal paths the last comes first, and is the one kept.
        ends.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(y.start.cmp(&x.start)));
        ends.dedup_by(|(a, _), (b, _)| a == b);
        let incoming: Vec<_> =
            ends.into_iter().map(|(path, range)| Packed::new(few::head(&path), &bytes[range])).collect();
        if incoming.is_empty() {
            return self.clone();
        }
        let mut added = 0;
        let root = match &self.root {
            None => {
                added = incoming.len();
                build(&incoming)
            }
            Some(root) => merge(&root.node, &root.hash, &incoming, &mut added),
        };
        State { root: Some(root), len: self.len + added, words }
    }

    /// The version without an object's leaf.
    pub fn without(&self, object: &ObjectRef) -> State {
        if !self.has(object) {
            return self.clone();
        }
        let root = self.root.as_ref().and_then(|root| remove(root, object, &object.path()));
        State { root, len: self.len - 1, words: self.words.clone() }
    }

    fn find(&self, object: &ObjectRef) -> Option<Packed<'_>> {
        let path = object.path();
        let mut node = &self.root.as_ref()?.node;
        loop {
            match node {
                Node::Few(few) => return few.find(object, &path),
                Node::Inner(n) => node = &n.children[usize::from(path.bit(n.bit.into()))],
            }
        }
    }

    /// The way from the root, at each fork to the side that is told, until none is told or there is only one leaf;
    /// where it ends, and the proof of that.
    fn way(&self, side: impl Fn(&Fork) -> Option<bool>) -> (Option<Place<'_>>, TrieProof) {
        let Some(root) = &self.root else {
            return (None, TrieProof { steps: List::empty(), end: TrieEnd::Empty });
        };
        let mut place = Place::of(&root.node);
        let mut steps = Vec::new();
        let end = loop {
            let Some(fork) = place.fork() else { break TrieEnd::Leaf(self.digest(&place.first())) };
            let Some(right) = side(&fork) else { break TrieEnd::Fork(fork.shown()) };
            let [(left_place, left), (right_place, other)] = fork.sides;
            let (next, sibling) = if right { (right_place, left) } else { (left_place, other) };
            steps.push(TrieStep { bit: fork.bit.into(), sibling });
            place = next;
        };
        let steps = List::try_from(steps).expect("bits rise along the way, so there are at most 256 steps");
        (Some(place), TrieProof { steps, end })
    }

    fn digest(&self, packed: &Packed) -> LeafDigest {
        let leaf = packed.leaf(&self.words);
        LeafDigest { object: leaf.object, object_hash: leaf.object_hash(), trail: leaf.trail }
    }
}

/// A place in the binary trie, stored or not.
#[derive(Clone)]
enum Place<'a> {
    Inner(&'a Inner),
    /// Of few leaves those of these indexes, at least one.
    Few(&'a Few, usize, usize),
}

/// What is at a place where the leaves below part.
struct Fork<'a> {
    bit: u16,
    /// What they share.
    prefix: Hash,
    sides: [(Place<'a>, Hash); 2],
}

impl<'a> Place<'a> {
    fn of(node: &'a Node) -> Self {
        match node {
            Node::Few(few) => Place::Few(few, 0, few.len()),
            Node::Inner(inner) => Place::Inner(inner),
        }
    }

    fn leaves(&self) -> impl Iterator<Item = Packed<'a>> + use<'a> {
        let (stored, (few, from, to)) = match *self {
            Place::Inner(n) => (Some(&n.children), (None, 0, 0)),
            Place::Few(few, from, to) => (None, (Some(few), from, to)),
        };
        let of_few = few.into_iter().flat_map(move |few| (from..to).map(|i| few.at(i)));
        stored.into_iter().flatten().flat_map(packed).chain(of_few)
    }

    fn first(&self) -> Packed<'a> {
        match self {
            Place::Inner(n) => n.children[0].first(),
            Place::Few(few, from, _) => few.at(*from),
        }
    }

    /// The leaf, if it is the only one.
    fn only(&self) -> Option<Packed<'a>> {
        match self {
            Place::Few(few, from, to) if to - from == 1 => Some(few.at(*from)),
            _ => None,
        }
    }

    fn fork(&self) -> Option<Fork<'a>> {
        match *self {
            Place::Inner(n) => {
                let [left, right] = &n.children;
                let sides = [(Place::of(left), n.hashes[0]), (Place::of(right), n.hashes[1])];
                Some(Fork { bit: n.bit.into(), prefix: n.prefix(), sides })
            }
            Place::Few(few, from, to) => {
                let leaves: Vec<_> = (from..to).map(|i| few.at(i)).collect();
                let (bit, left, right) = few::part(&leaves)?;
                let middle = from + left.len();
                let sides = [
                    (Place::Few(few, from, middle), few::hash(left)),
                    (Place::Few(few, middle, to), few::hash(right)),
                ];
                Some(Fork { bit, prefix: leaves[0].prefix(bit), sides })
            }
        }
    }
}

impl Fork<'_> {
    fn shown(&self) -> TrieFork {
        let [(_, left), (_, right)] = self.sides;
        TrieFork { bit: self.bit.into(), prefix: self.prefix, left, right }
    }
}

/// Whether a path has what all leaves below the fork share.
fn shares(path: &Hash, fork: &Fork) -> bool {
    path.prefix(fork.bit) == fork.prefix
}

/// The leaves below a node, by rising path.
fn packed(node: &Node) -> impl Iterator<Item = Packed<'_>> {
    let mut open = vec![node];
    let few = std::iter::from_fn(move || {
        loop {
            match open.pop()? {
                Node::Few(few) => return Some(few),
                Node::Inner(n) => open.extend([&n.children[1], &n.children[0]]),
            }
        }
    });
    few.flat_map(|few| (0..few.len()).map(|i| few.at(i)))
}

impl Node {
    /// The first leaf below.
    fn first(&self) -> Packed<'_> {
        match self {
            Node::Few(few) => few.at(0),
            Node::Inner(n) => n.children[0].first(),
        }
    }
}

impl Inner {
    fn child(&self, side: usize) -> Tree {
        Tree { node: self.children[side].clone(), hash: self.hashes[side] }
    }

    /// What the leaves below share.
    fn prefix(&self) -> Hash {
        match few::prefix(self.head, self.bit.into()) {
            Some(prefix) => prefix,
            None => self.children[0].first().path().prefix(self.bit.into()),
        }
    }

    /// How many leading bits a leaf's path shares with all leaves below; at most [`Inner::bit`].
    fn shared(&self, leaf: &Packed) -> u16 {
        let bit = self.bit.into();
        let head = few::common_head(self.head, leaf.head());
        if head < few::HEAD_BITS || bit <= few::HEAD_BITS {
            return head.min(bit);
        }
        few::common(&self.prefix(), &leaf.path()).min(bit)
    }
}

impl Tree {
    /// Two trees whose leaves share `prefix` and part at `bit`.
    fn inner(bit: u16, prefix: &Hash, left: Tree, right: Tree) -> Tree {
        let hash = inner_hash(bit, prefix, &left.hash, &right.hash);
        let bit = u8::try_from(bit).expect("two different paths differ in one of 256 bits");
        let (children, hashes) = ([left.node, right.node], [left.hash, right.hash]);
        Tree { node: Node::Inner(Arc::new(Inner { bit, head: few::head(prefix), children, hashes })), hash }
    }

    /// The same, of which each may have become small.
    fn join(bit: u16, prefix: &Hash, left: Tree, right: Tree) -> Tree {
        match (&left.node, &right.node) {
            (Node::Few(l), Node::Few(r)) if l.len() + r.len() <= FEW_MAX => {
                let leaves: Vec<_> = l.iter().chain(r.iter()).collect();
                let hash = inner_hash(bit, prefix, &left.hash, &right.hash);
                Tree { node: Node::Few(Few::of(&leaves)), hash }
            }
            _ => Tree::inner(bit, prefix, left, right),
        }
    }
}

/// A tree of sorted leaves with different paths; at least one.
fn build(leaves: &[Packed]) -> Tree {
    if leaves.len() <= FEW_MAX {
        return Tree { node: Node::Few(Few::of(leaves)), hash: few::hash(leaves) };
    }
    let (bit, left, right) = few::part(leaves).expect("there are several");
    Tree::inner(bit, &leaves[0].prefix(bit), build(left), build(right))
}

/// The tree of a node and its hash with sorted leaves of different paths, which all belong where it stands. Each level
/// goes to a higher bit, so there are at most 257.
fn merge(node: &Node, hash: &Hash, incoming: &[Packed], added: &mut usize) -> Tree {
    let (Some(first), Some(last)) = (incoming.first(), incoming.last()) else {
        return Tree { node: node.clone(), hash: *hash };
    };
    let n = match node {
        Node::Few(few) => {
            let leaves = few.with(incoming);
            *added += leaves.len() - few.len();
            return build(&leaves);
        }
        Node::Inner(n) => n,
    };
    // They are sorted: those that share least with all that is below are at the ends.
    let (at_first, at_last) = (n.shared(first), n.shared(last));
    let bit = at_first.min(at_last);
    let (left, right) = few::split(incoming, bit);
    let prefix = first.prefix(bit);
    if bit == n.bit.into() {
        let left = merge(&n.children[0], &n.hashes[0], left, added);
        let right = merge(&n.children[1], &n.hashes[1], right, added);
        return Tree::inner(bit, &prefix, left, right);
    }
    // Some part from all that is below: a new node stands above.
    let strangers_are_right = if at_first == bit { first.bit(bit) } else { last.bit(bit) };
    let (left, right) = if strangers_are_right {
        *added += right.len();
        (merge(node, hash, left, added), build(right))
    } else {
        *added += left.len();
        (build(left), merge(node, hash, right, added))
    };
    Tree::inner(bit, &prefix, left, right)
}

/// `tree` without the leaf of an object, which is below it.
fn remove(tree: &Tree, object: &ObjectRef, path: &Hash) -> Option<Tree> {
    match &tree.node {
        Node::Few(few) => {
            let leaves: Vec<_> = few.iter().filter(|packed| packed.object() != *object).collect();
            (!leaves.is_empty()).then(|| build(&leaves))
        }
        Node::Inner(n) => {
            let mut sides = [0, 1].map(|i| Some(n.child(i)));
            let at = usize::from(path.bit(n.bit.into()));
            sides[at] = sides[at].as_ref().and_then(|tree| remove(tree, object, path));
            let bit = n.bit.into();
            match sides {
                [Some(left), Some(right)] => Some(Tree::join(bit, &path.prefix(bit), left, right)),
                [left, right] => left.or(right),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use assent_proto::field::Message;
    use assent_proto::{ObjectKind, Trail};
    use proptest::prelude::*;

    use super::*;

    fn object(n: u16) -> ObjectRef {
        let mut id = Hash::ZERO;
        id.0[..2].copy_from_slice(&n.to_le_bytes());
        ObjectRef { kind: ObjectKind::ALL[usize::from(n) % ObjectKind::ALL.len()], id }
    }

    fn leaf(n: u16, value: u8) -> Leaf {
        let object = object(n);
        let trail = Trail { length: value.into(), head: object.new_trail().head };
        Leaf { object, content: vec![value; 3].into(), trail }
    }

    type Model = BTreeMap<u16, u8>;

    fn leaves(model: &Model) -> impl DoubleEndedIterator<Item = Leaf> {
        model.iter().map(|(n, v)| leaf(*n, *v))
    }

    /// The root by its definition alone, bit by bit over the whole set.
    fn naive_root(model: &Model) -> Hash {
        fn over(set: &[(Hash, Hash)], bit: u16) -> Hash {
            match set {
                [] => Hash::ZERO,
                [(_, leaf)] => *leaf,
                _ => {
                    let (ones, zeros): (Vec<_>, Vec<_>) = set.iter().copied().partition(|(p, _)| p.bit(bit));
                    if ones.is_empty() || zeros.is_empty() {
                        return over(set, bit + 1);
                    }
                    let (left, right) = (over(&zeros, bit + 1), over(&ones, bit + 1));
                    inner_hash(bit, &set[0].0.prefix(bit), &left, &right)
                }
            }
        }
        over(&leaves(model).map(|l| (l.object.path(), l.hash())).collect::<Vec<_>>(), 0)
    }

    fn agrees(state: &State, model: &Model) {
        assert_eq!(state.root(), naive_root(model));
        assert_eq!((state.len(), state.is_empty()), (model.len(), model.is_empty()));
        for n in 0..=300 {
            let expected = model.get(&n).map(|v| leaf(n, *v));
            assert_eq!(state.get(&object(n)), expected);
            assert_eq!(state.has(&object(n)), expected.is_some());
            let (found, proof) = state.prove(&object(n));
            let proof = TrieProof::decode(&proof.encode()).expect("a proof has a canonical encoding");
            assert_eq!(found, expected);
            match expected {
                Some(leaf) => proof.verify_leaf(&state.root(), &leaf).unwrap(),
                None => proof.verify_absence(&state.root(), &object(n)).unwrap(),
            }
        }
        let listed: Vec<_> = state.leaves().map(|l| l.object.path()).collect();
        assert!(listed.is_sorted() && listed.len() == model.len());
    }

    /// One batch: leaves to put, and then objects to take away.
    type Batch = (Vec<(u16, u8)>, Vec<u16>);

    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        let puts = prop::collection::vec((0..300u16, any::<u8>()), 0..60);
        prop::collection::vec((puts, prop::collection::vec(0..300u16, 0..20)), 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// R29: the root, what is held and every proof are those of the model, after any history; older
        /// versions stay as they were.
        #[test]
        fn any_history_agrees_with_the_model(batches in batches()) {
            let (mut state, mut model) = (State::default(), Model::new());
            let mut versions = vec![(state.clone(), model.clone())];
            for (puts, takes) in batches {
                state = state.with(&puts.iter().map(|(n, v)| leaf(*n, *v)).collect::<Vec<_>>());
                model.extend(puts);
                versions.push((state.clone(), model.clone()));
                for n in takes {
                    state = state.without(&object(n));
                    model.remove(&n);
                }
                versions.push((state.clone(), model.clone()));
            }
            for (state, model) in versions {
                agrees(&state, &model);
            }
        }

        /// The root depends on the set alone: forwards, backwards, one by one, or with a detour.
        #[test]
        fn the_root_has_no_history(model in prop::collection::btree_map(any::<u16>(), any::<u8>(), 0..80), detour in any::<u16>()) {
            let root = State::from_leaves(leaves(&model)).root();
            prop_assert_eq!(root, naive_root(&model));
            prop_assert_eq!(State::from_leaves(leaves(&model).rev()).root(), root);
            let start = State::from_leaves([leaf(detour, 1)]);
            let one_by_one = leaves(&model).fold(start, |s, l| s.with([&l]));
            if model.contains_key(&detour) {
                prop_assert_eq!(one_by_one.root(), root);
            } else {
                prop_assert_eq!(one_by_one.without(&object(detour)).root(), root);
                prop_assert_ne!(one_by_one.root(), root);
            }
        }

        /// R29: the subtrees of a length of prefix are the state, each proved; no leaf can be left out of one,
        /// added, changed or taken from another, and a proof fits no other prefix.
        #[test]
        fn subtrees_are_proved_and_make_up_the_state(
            model in prop::collection::btree_map(0..2000u16, any::<u8>(), 0..120),
            bits in 0u16..9,
            pick in any::<prop::sample::Index>(),
        ) {
            let state = State::from_leaves(leaves(&model));
            let root = state.root();
            let prefix = |i: u16| {
                let mut bytes = [0; 32];
                bytes[..2].copy_from_slice(&(u32::from(i) << (16 - bits)).to_be_bytes()[2..]);
                Hash(bytes)
            };
            let mut all = Vec::new();
            for i in 0..1u16 << bits {
                let (found, proof) = state.subtree(&prefix(i), bits);
                let proof = TrieProof::decode(&proof.encode()).expect("canonical");
                proof.verify_subtree(&root, &prefix(i), bits, &found).unwrap();
                let other = if bits == 0 { Hash([0xff; 32]) } else { prefix(i ^ 1) };
                prop_assert!(found.is_empty() || proof.verify_subtree(&root, &other, bits, &found).is_err());
                prop_assert!(proof.verify_subtree(&Hash([1; 32]), &prefix(i), bits, &found).is_err());
                if !found.is_empty() {
                    let at = pick.index(found.len());
                    let mut fewer = found.clone();
                    let taken = fewer.remove(at);
                    prop_assert!(proof.verify_subtree(&root, &prefix(i), bits, &fewer).is_err());
                    let mut changed = found.clone();
                    changed[at].trail.length += 1;
                    prop_assert!(proof.verify_subtree(&root, &prefix(i), bits, &changed).is_err());
                    let mut twice = found.clone();
                    twice.insert(at, taken);
                    prop_assert!(proof.verify_subtree(&root, &prefix(i), bits, &twice).is_err());
                    prop_assert!(proof.verify_subtree(&root, &prefix(i), bits, &[]).is_err());
                } else {
                    prop_assert!(proof.verify_subtree(&root, &prefix(i), bits, &[leaf(7, 7)]).is_err());
                }
                all.extend(found);
            }
            prop_assert_eq!(all, state.leaves().collect::<Vec<_>>());
        }

        /// R29: no end of one prefix's way passes for another's, empty or not.
        #[test]
        fn an_empty_subtree_cannot_be_invented(
            model in prop::collection::btree_map(0..2000u16, any::<u8>(), 1..40),
            a in any::<u8>(),
            b in any::<u8>(),
            bits in 1u16..9,
        ) {
            let state = State::from_leaves(leaves(&model));
            let prefix = |n: u8| Hash([n; 32]).prefix(bits);
            let (_, proof) = state.subtree(&prefix(a), bits);
            let (there, _) = state.subtree(&prefix(b), bits);
            if !there.is_empty() {
                prop_assert!(proof.verify_subtree(&state.root(), &prefix(b), bits, &[]).is_err());
            }
        }

        /// R29: a proof holds for no other root, leaf or object, and with no step or end changed.
        #[test]
        fn a_changed_proof_proves_nothing(
            model in prop::collection::btree_map(0..300u16, any::<u8>(), 1..60),
            n in 0..300u16, at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let state = State::from_leaves(leaves(&model));
            let (found, proof) = state.prove(&object(n));
            let holds = |proof: &TrieProof, root: &Hash| match &found {
                Some(leaf) => proof.verify_leaf(root, leaf).is_ok(),
                None => proof.verify_absence(root, &object(n)).is_ok(),
            };
            prop_assert!(holds(&proof, &state.root()));
            let other = state.with([&leaf(n, model.get(&n).map_or(0, |v| v ^ 1))]);
            prop_assert!(!holds(&proof, &other.root()));
            // Never both: present and absent.
            match &found {
                Some(l) => {
                    prop_assert!(proof.verify_absence(&state.root(), &object(n)).is_err());
                    let mut changed = l.clone();
                    changed.trail.length += 1;
                    prop_assert!(proof.verify_leaf(&state.root(), &changed).is_err());
                    let mut changed = l.clone();
                    changed.content = vec![9; 4].into();
                    prop_assert!(proof.verify_leaf(&state.root(), &changed).is_err());
                }
                None => prop_assert!(proof.verify_leaf(&state.root(), &leaf(n, 0)).is_err()),
            }
            // Every byte of the encoding counts.
            let mut bytes = proof.encode().to_vec();
            let i = at.index(bytes.len());
            bytes[i] ^= flip;
            if let Ok(changed) = TrieProof::decode(&bytes) {
                prop_assert!(!holds(&changed, &state.root()), "byte {} of the proof does not matter", i);
            }
            // Nor may a step be left out.
            let mut steps = proof.steps.to_vec();
            if !steps.is_empty() {
                steps.remove(at.index(steps.len()));
                let changed = TrieProof { steps: steps.try_into().unwrap(), end: proof.end.clone() };
                prop_assert!(!holds(&changed, &state.root()));
            }
        }
    }

    /// R29: absence is proved at each of the three ends that a way can have.
    #[test]
    fn absence_has_three_ends() {
        let mut seen = BTreeSet::new();
        for size in [0, 1, 2, 40] {
            let state = State::from_leaves((0..size).map(|n| leaf(n, 1)));
            for n in 1000..1200 {
                let (found, proof) = state.prove(&object(n));
                assert_eq!(found, None);
                proof.verify_absence(&state.root(), &object(n)).unwrap();
                seen.insert(match proof.end {
                    TrieEnd::Empty => "empty",
                    TrieEnd::Leaf(_) => "other leaf",
                    TrieEnd::Fork(_) => "fork",
                });
            }
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["empty", "fork", "other leaf"]);
    }

    /// R29: a proof of one key's absence cannot be used for a key that is there.
    #[test]
    fn absence_cannot_be_borrowed() {
        let state = State::from_leaves((0..40).map(|n| leaf(n, 1)));
        for absent in 1000..1100 {
            let (_, proof) = state.prove(&object(absent));
            for present in 0..40 {
                assert!(proof.verify_absence(&state.root(), &object(present)).is_err());
            }
        }
    }

    #[test]
    fn of_several_leaves_for_one_object_the_last_stands() {
        let state = State::from_leaves([leaf(1, 1), leaf(2, 1), leaf(1, 2), leaf(1, 3)]);
        assert_eq!((state.len(), state.get(&object(1))), (2, Some(leaf(1, 3))));
        let state = state.with(&[leaf(2, 5), leaf(2, 6)]);
        assert_eq!((state.len(), state.get(&object(2))), (2, Some(leaf(2, 6))));
    }

    #[test]
    fn a_version_shares_what_did_not_change() {
        let before = State::from_leaves((0..1000).map(|n| leaf(n, 1)));
        let after = before.with([&leaf(7, 2)]);
        let (mut shared, mut own) = (0, 0);
        let mut open = vec![(&before.root.as_ref().unwrap().node, &after.root.as_ref().unwrap().node)];
        while let Some(pair) = open.pop() {
            match pair {
                (Node::Inner(b), Node::Inner(a)) if !Arc::ptr_eq(b, a) => {
                    own += 1;
                    open.extend(b.children.iter().zip(&a.children));
                }
                (Node::Few(b), Node::Few(a)) if !b.is_same(a) => own += 1,
                _ => shared += 1,
            }
        }
        let (_, proof) = after.prove(&object(7));
        assert!(own <= proof.steps.len() + 1 && own > 5, "{own} nodes are new");
        assert_eq!(shared, own - 1, "each new node but the last has one child that is shared");
    }
}
