//! A whole state made of leaves that come one by one, in any order: they are set down packed, divided by the first
//! byte of their paths, and then built part by part, each part given back once its tree stands. So memory never
//! holds much more than the leaves once, and two threads share the hashing.

use std::sync::Arc;

use assent_proto::{Hash, Leaf};

use super::few::{self, Packed};
use super::words::Words;
use super::{State, Tree, build};

/// The parts: one for each first byte of a path.
const PARTS: usize = 256;

/// The most bytes of a block in which leaves are set down, if there are several in it: large, so that what is given
/// back is of use for other sizes at once.
const BLOCK_BYTES: usize = 512 << 10;

/// Up to so many leaves one thread hashes alone.
const FEW_LEAVES: usize = 1 << 16;

/// Leaves on their way into a [`State`]; of several for one object, the last counts.
pub struct Gather {
    parts: Vec<Part>,
    len: usize,
    words: Words,
}

/// Blocks of leaves, each leaf after the head of its path and its length.
#[derive(Clone, Default)]
struct Part(Vec<Vec<u8>>);

const BEFORE: usize = 8;

impl Default for Gather {
    fn default() -> Self {
        Gather { parts: vec![Part::default(); PARTS], len: 0, words: Words::default() }
    }
}

impl Gather {
    /// One more leaf.
    pub fn add(&mut self, leaf: &Leaf) {
        if self.words.lacks(&leaf.object) {
            self.words.learn(&leaf.object);
        }
        let path = leaf.object.path();
        self.parts[usize::from(path.0[0])].add(&path, leaf, &self.words);
        self.len += 1;
    }

    /// The state of the leaves.
    pub fn state(mut self) -> State {
        let words = &self.words;
        if self.len <= FEW_LEAVES {
            self.parts.iter_mut().for_each(|part| part.hash(words));
        } else {
            let (left, right) = self.parts.split_at_mut(PARTS / 2);
            std::thread::scope(|scope| {
                scope.spawn(|| left.iter_mut().for_each(|part| part.hash(words)));
                right.iter_mut().for_each(|part| part.hash(words));
            });
        }
        let (root, len) = raise(&mut self.parts);
        State { root, len, words: Arc::new(self.words) }
    }
}

/// The tree of some parts, of which there are a power of two, and how many leaves it has.
fn raise(parts: &mut [Part]) -> (Option<Tree>, usize) {
    if let [part] = parts {
        return std::mem::take(part).build();
    }
    let bit = (PARTS / parts.len()).trailing_zeros() as u16;
    let (left, right) = parts.split_at_mut(parts.len() / 2);
    let ((left, on_left), (right, on_right)) = (raise(left), raise(right));
    let tree = match (left, right) {
        (Some(left), Some(right)) => {
            let prefix = left.node.first().prefix(bit);
            Some(Tree::join(bit, &prefix, left, right))
        }
        (left, right) => left.or(right),
    };
    (tree, on_left + on_right)
}

impl Part {
    fn add(&mut self, path: &Hash, leaf: &Leaf, words: &Words) {
        if self.0.last().is_none_or(|block| block.len() + leaf.content.len() > BLOCK_BYTES) {
            self.0.push(Vec::new());
        }
        let block = self.0.last_mut().expect("there is one now");
        let at = block.len();
        block.extend([0; BEFORE]);
        few::pack(leaf, &Hash::ZERO, words, block);
        let size = (block.len() - at - BEFORE) as u32;
        block[at..at + 4].copy_from_slice(&few::head(path).to_le_bytes());
        block[at + 4..at + BEFORE].copy_from_slice(&size.to_le_bytes());
    }

    /// Sets the hashes, which are most of the work and need no order.
    fn hash(&mut self, words: &Words) {
        for mut rest in self.0.iter_mut().map(Vec::as_mut_slice) {
            while let Some((before, behind)) = rest.split_first_chunk_mut::<BEFORE>() {
                let (leaf, behind) = behind.split_at_mut(read(before).1);
                few::set_hash(leaf, words);
                rest = behind;
            }
        }
    }

    fn build(self) -> (Option<Tree>, usize) {
        let mut leaves: Vec<Packed> = self.0.iter().flat_map(|block| packed(block)).collect();
        // Of those with one key the last comes first, and is the one kept.
        leaves.reverse();
        leaves.sort_by(Packed::cmp_path);
        leaves.dedup_by(|a, b| a.cmp_path(b).is_eq());
        ((!leaves.is_empty()).then(|| build(&leaves)), leaves.len())
    }
}

fn packed(mut block: &[u8]) -> impl Iterator<Item = Packed<'_>> {
    std::iter::from_fn(move || {
        let (before, rest) = block.split_first_chunk::<BEFORE>()?;
        let (head, size) = read(before);
        let (leaf, rest) = rest.split_at(size);
        block = rest;
        Some(Packed::new(head, leaf))
    })
}

/// The head of a leaf's path, and the leaf's length.
fn read(before: &[u8; BEFORE]) -> (u32, usize) {
    let [a, b, c, d, size @ ..] = *before;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(size) as usize)
}
