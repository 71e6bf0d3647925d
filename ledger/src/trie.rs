//! The state: a compressed binary trie over [`ObjectRef::path`], hashed by the rules of `assent_proto::trie`.
//!
//! It is persistent: a version shares with the one before it all that did not change, so older versions stay
//! valid for readers and for speculative execution, and a clone costs nothing. The root depends on the leaves
//! alone, never on the order in which they came. Nodes keep no prefix: on the way down only the deciding bits
//! are looked at, and the leaf at the end tells where a key really parts from the trie. No storage lives here.

use std::sync::Arc;

use assent_proto::trie::{LeafDigest, TrieEnd, TrieFork, TrieProof, TrieStep, inner_hash};
use assent_proto::{Hash, Leaf, List, ObjectRef};

/// A version of the state.
#[derive(Clone, Debug, Default)]
pub struct State {
    root: Option<Node>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Arc<LeafNode>),
    Inner(Arc<InnerNode>),
}

#[derive(Debug)]
struct LeafNode {
    leaf: Leaf,
    hash: Hash,
}

#[derive(Debug)]
struct InnerNode {
    /// The first bit in which the leaves below differ.
    bit: u8,
    hash: Hash,
    left: Node,
    right: Node,
}

/// A leaf on its way into the trie.
#[derive(Clone)]
struct Incoming {
    path: Hash,
    leaf: Arc<LeafNode>,
    /// The first bit in which the path differs from every leaf of the trie; [`SAME`] if its key is there.
    parts: u16,
}

/// No bit: the paths are the same.
const SAME: u16 = 256;

impl State {
    /// The state of these leaves; of several for one object, the last.
    pub fn from_leaves(leaves: impl IntoIterator<Item = Leaf>) -> State {
        State::default().with(leaves)
    }

    /// The root: [`Hash::ZERO`] of the empty state.
    pub fn root(&self) -> Hash {
        self.root.as_ref().map_or(Hash::ZERO, Node::hash)
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
    pub fn get(&self, object: &ObjectRef) -> Option<&Leaf> {
        let leaf = &nearest(self.root.as_ref()?, &object.path()).leaf;
        (leaf.object == *object).then_some(leaf)
    }

    /// Every leaf, by rising path.
    pub fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        self.root.iter().flat_map(below)
    }

    /// The leaf of an object with the proof that it is there, or the proof that there is none.
    pub fn prove(&self, object: &ObjectRef) -> (Option<Leaf>, TrieProof) {
        let Some(root) = &self.root else {
            return (None, TrieProof { steps: List::empty(), end: TrieEnd::Empty });
        };
        let path = object.path();
        let near = nearest(root, &path);
        let found = near.leaf.object == *object;
        let near_path = if found { path } else { near.leaf.object.path() };
        let parts = common_bits(&path, &near_path);

        let mut steps = Vec::new();
        let mut node = root;
        let end = loop {
            match node {
                Node::Leaf(l) => break TrieEnd::Leaf(digest(&l.leaf)),
                Node::Inner(n) if u16::from(n.bit) > parts => break TrieEnd::Fork(n.fork(&near_path)),
                Node::Inner(n) => {
                    let (next, sibling) = n.children(&path);
                    steps.push(TrieStep { bit: n.bit.into(), sibling: sibling.hash() });
                    node = next;
                }
            }
        };
        let steps = List::try_from(steps).expect("bits rise along the way, so there are at most 256 steps");
        (found.then(|| near.leaf.clone()), TrieProof { steps, end })
    }

    /// The leaves under the first `bits` bits of `prefix` by rising path, with the proof that they are all
    /// ([`TrieProof::verify_subtree`]). The other bits of `prefix` must be zeros.
    pub fn subtree(&self, prefix: &Hash, bits: u16) -> (Vec<&Leaf>, TrieProof) {
        let Some(root) = &self.root else {
            return (Vec::new(), TrieProof { steps: List::empty(), end: TrieEnd::Empty });
        };
        let near = nearest(root, prefix).leaf.object.path();
        let parts = common_bits(prefix, &near).min(bits);
        let mut steps = Vec::new();
        let mut node = root;
        let end = loop {
            match node {
                Node::Leaf(l) => break TrieEnd::Leaf(digest(&l.leaf)),
                Node::Inner(n) if u16::from(n.bit) >= parts => break TrieEnd::Fork(n.fork(&near)),
                Node::Inner(n) => {
                    let (next, sibling) = n.children(prefix);
                    steps.push(TrieStep { bit: n.bit.into(), sibling: sibling.hash() });
                    node = next;
                }
            }
        };
        let leaves = if parts == bits { below(node).collect() } else { Vec::new() };
        let steps = List::try_from(steps).expect("bits rise along the way, so there are at most 256 steps");
        (leaves, TrieProof { steps, end })
    }

    /// Into how many bits of their paths the leaves are divided, so that on average at most `most` share them.
    pub fn bits_for(&self, most: usize) -> u16 {
        let parts = self.len.div_ceil(most.max(1)).next_power_of_two();
        parts.trailing_zeros() as u16
    }

    /// The objects whose leaf is not what its hash says: the memory failed.
    pub fn unsound(&self) -> Vec<ObjectRef> {
        let mut open: Vec<&Node> = self.root.iter().collect();
        let mut unsound = Vec::new();
        while let Some(node) = open.pop() {
            match node {
                Node::Leaf(l) if l.leaf.hash() != l.hash => unsound.push(l.leaf.object),
                Node::Leaf(_) => {}
                Node::Inner(n) => open.extend([&n.right, &n.left]),
            }
        }
        unsound
    }

    /// The version in which one leaf is not what its hash says, as a fault of the memory leaves it. For tests:
    /// nothing else makes such a state.
    #[doc(hidden)]
    pub fn damaged(&self, leaf: Leaf) -> State {
        fn put(node: &Node, path: &Hash, leaf: Leaf) -> Node {
            match node {
                Node::Leaf(l) => Node::Leaf(Arc::new(LeafNode { leaf, hash: l.hash })),
                Node::Inner(n) => {
                    let (bit, hash) = (n.bit, n.hash);
                    let (left, right) = match path.bit(bit.into()) {
                        true => (n.left.clone(), put(&n.right, path, leaf)),
                        false => (put(&n.left, path, leaf), n.right.clone()),
                    };
                    Node::Inner(Arc::new(InnerNode { bit, hash, left, right }))
                }
            }
        }
        let path = leaf.object.path();
        let held = self.get(&leaf.object).is_some();
        assert!(held, "only a leaf that is there can be damaged");
        State { root: self.root.as_ref().map(|root| put(root, &path, leaf)), len: self.len }
    }

    /// The version in which each of these leaves stands at its object's key, of several for one object the
    /// last. This version stays as it is. Nodes that several changes share are hashed once.
    pub fn with(&self, changes: impl IntoIterator<Item = Leaf>) -> State {
        let mut incoming: Vec<_> = changes.into_iter().map(|leaf| self.incoming(leaf)).collect();
        incoming.sort_by_key(|i| i.path);
        // The sort keeps the order of equal paths; the last of them must stand first to be the one kept.
        incoming.reverse();
        incoming.dedup_by(|a, b| a.path == b.path);
        incoming.reverse();
        if incoming.is_empty() {
            return self.clone();
        }
        let new = incoming.iter().filter(|i| i.parts != SAME || self.root.is_none()).count();
        let root = match &self.root {
            None => build(&incoming),
            Some(root) => merge(root, &incoming),
        };
        State { root: Some(root), len: self.len + new }
    }

    /// The version without an object's leaf.
    pub fn without(&self, object: &ObjectRef) -> State {
        if self.get(object).is_none() {
            return self.clone();
        }
        let root = self.root.as_ref().and_then(|root| remove(root, &object.path()));
        State { root, len: self.len - 1 }
    }

    fn incoming(&self, leaf: Leaf) -> Incoming {
        let path = leaf.object.path();
        let parts = match self.root.as_ref().map(|root| &nearest(root, &path).leaf.object) {
            None => SAME,
            Some(object) if *object == leaf.object => SAME,
            Some(object) => common_bits(&path, &object.path()),
        };
        let hash = leaf.hash();
        Incoming { path, leaf: Arc::new(LeafNode { leaf, hash }), parts }
    }
}

impl Node {
    fn hash(&self) -> Hash {
        match self {
            Node::Leaf(l) => l.hash,
            Node::Inner(n) => n.hash,
        }
    }

    /// An inner node at `bit`; `path` is that of any key below it.
    fn inner(bit: u16, path: &Hash, left: Node, right: Node) -> Node {
        let hash = inner_hash(bit, &path.prefix(bit), &left.hash(), &right.hash());
        let bit = u8::try_from(bit).expect("two different paths differ in one of 256 bits");
        Node::Inner(Arc::new(InnerNode { bit, hash, left, right }))
    }
}

impl InnerNode {
    /// The child on a path's side, and the other one.
    fn children(&self, path: &Hash) -> (&Node, &Node) {
        if path.bit(self.bit.into()) { (&self.right, &self.left) } else { (&self.left, &self.right) }
    }

    fn fork(&self, path_below: &Hash) -> TrieFork {
        TrieFork {
            bit: self.bit.into(),
            prefix: path_below.prefix(self.bit.into()),
            left: self.left.hash(),
            right: self.right.hash(),
        }
    }
}

/// The leaves below a node, by rising path.
fn below(node: &Node) -> impl Iterator<Item = &Leaf> {
    let mut open = vec![node];
    std::iter::from_fn(move || {
        loop {
            match open.pop()? {
                Node::Leaf(l) => return Some(&l.leaf),
                Node::Inner(n) => open.extend([&n.right, &n.left]),
            }
        }
    })
}

fn digest(leaf: &Leaf) -> LeafDigest {
    LeafDigest { object: leaf.object, object_hash: leaf.object_hash(), trail: leaf.trail.clone() }
}

/// The leaf at which a path's bits lead to: no leaf shares more leading bits with the path.
fn nearest<'a>(mut node: &'a Node, path: &Hash) -> &'a LeafNode {
    loop {
        match node {
            Node::Leaf(l) => return l,
            Node::Inner(n) => node = n.children(path).0,
        }
    }
}

/// How many leading bits two paths share.
fn common_bits(a: &Hash, b: &Hash) -> u16 {
    match a.0.iter().zip(&b.0).position(|(x, y)| x != y) {
        Some(i) => i as u16 * 8 + (a.0[i] ^ b.0[i]).leading_zeros() as u16,
        None => SAME,
    }
}

/// Where the first path with a 1 at `bit` stands, among sorted paths that agree on all bits before it.
fn split(incoming: &[Incoming], bit: u16) -> (&[Incoming], &[Incoming]) {
    incoming.split_at(incoming.partition_point(|i| !i.path.bit(bit)))
}

/// A trie of sorted leaves with different paths; at least one.
fn build(incoming: &[Incoming]) -> Node {
    match incoming {
        [one] => Node::Leaf(one.leaf.clone()),
        [first, .., last] => {
            let bit = common_bits(&first.path, &last.path);
            let (left, right) = split(incoming, bit);
            Node::inner(bit, &first.path, build(left), build(right))
        }
        [] => unreachable!("a trie is built of at least one leaf"),
    }
}

/// `node` with sorted leaves of different paths, which all belong where it stands. Each level goes to a higher
/// bit, so there are at most 257.
fn merge(node: &Node, incoming: &[Incoming]) -> Node {
    let Some(first) = incoming.first() else { return node.clone() };
    let parts = incoming.iter().map(|i| i.parts).min().expect("there is a first");
    let here = match node {
        Node::Leaf(_) => SAME,
        Node::Inner(n) => n.bit.into(),
    };
    if parts < here {
        return part(node, incoming, parts);
    }
    match node {
        // Its own key alone: every other leaf parts from it at some bit.
        Node::Leaf(_) => Node::Leaf(first.leaf.clone()),
        Node::Inner(n) => {
            let (left, right) = split(incoming, here);
            Node::inner(here, &first.path, merge(&n.left, left), merge(&n.right, right))
        }
    }
}

/// A new inner node above `node` at `bit`, in which some of the leaves part from all that is below `node`.
fn part(node: &Node, incoming: &[Incoming], bit: u16) -> Node {
    let stranger = incoming.iter().find(|i| i.parts == bit).expect("the bit is that of one of them");
    let (left, right) = split(incoming, bit);
    let (left, right) = match stranger.path.bit(bit) {
        true => (merge(node, left), build(right)),
        false => (build(left), merge(node, right)),
    };
    Node::inner(bit, &stranger.path, left, right)
}

/// `node` without the leaf at `path`, which is below it.
fn remove(node: &Node, path: &Hash) -> Option<Node> {
    let Node::Inner(n) = node else { return None };
    let (kept, other) = n.children(path);
    let Some(kept) = remove(kept, path) else { return Some(other.clone()) };
    let (left, right) = if path.bit(n.bit.into()) { (other.clone(), kept) } else { (kept, other.clone()) };
    Some(Node::inner(n.bit.into(), path, left, right))
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
            assert_eq!(state.get(&object(n)), expected.as_ref());
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
                state = state.with(puts.iter().map(|(n, v)| leaf(*n, *v)));
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
            let one_by_one = leaves(&model).fold(start, |s, l| s.with([l]));
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
                let found: Vec<Leaf> = found.into_iter().cloned().collect();
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
            prop_assert_eq!(all, state.leaves().cloned().collect::<Vec<_>>());
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
            let other = state.with([leaf(n, model.get(&n).map_or(0, |v| v ^ 1))]);
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
        assert_eq!((state.len(), state.get(&object(1))), (2, Some(&leaf(1, 3))));
        let state = state.with([leaf(2, 5), leaf(2, 6)]);
        assert_eq!((state.len(), state.get(&object(2))), (2, Some(&leaf(2, 6))));
    }

    #[test]
    fn a_version_shares_what_did_not_change() {
        let before = State::from_leaves((0..1000).map(|n| leaf(n, 1)));
        let after = before.with([leaf(7, 2)]);
        let (mut shared, mut own) = (0, 0);
        let mut open = vec![(before.root.clone().unwrap(), after.root.clone().unwrap())];
        while let Some((b, a)) = open.pop() {
            match (b, a) {
                (Node::Inner(b), Node::Inner(a)) if !Arc::ptr_eq(&b, &a) => {
                    own += 1;
                    open.push((b.left.clone(), a.left.clone()));
                    open.push((b.right.clone(), a.right.clone()));
                }
                (Node::Leaf(b), Node::Leaf(a)) if !Arc::ptr_eq(&b, &a) => own += 1,
                _ => shared += 1,
            }
        }
        let (_, proof) = after.prove(&object(7));
        assert_eq!((own, shared), (proof.steps.len() + 1, proof.steps.len()));
    }
}
