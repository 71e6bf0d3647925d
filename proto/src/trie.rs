//! Proofs of what the state trie holds, and the hashing rules of its nodes.
//!
//! The trie is binary, over the bits of [`ObjectRef::path`], and compressed: an inner node stands only where
//! two leaves part. It hashes its bit position and the prefix that all leaves below it share; a leaf hashes
//! its full key. So a proof's end can be neither moved to another place nor invented (R29). The root is
//! [`Hash::ZERO`] for the empty trie, a leaf's hash for one leaf.

use serde::Serialize;

use crate::field::{DecodeError, Element, Field, List, Message, messages};
use crate::hash::{self, Hash};
use crate::state::{Leaf, ObjectRef, Trail, leaf_hash};
use crate::wire;

messages! {
    /// One inner node on the way from the root: which bit it decides on, and the child not taken.
    TrieStep {
        /// Bit position, 0 to 255, rising along the way.
        bit: u32,
        /// Hash of the child not taken.
        sibling: Hash,
    }
    /// A leaf by its hashes.
    LeafDigest {
        /// Its key.
        object: ObjectRef,
        /// Hash of its content.
        object_hash: Hash,
        /// Its trail.
        trail: Trail,
    }
    /// An inner node below which the key cannot be, since its prefix differs.
    TrieFork {
        /// Bit position.
        bit: u32,
        /// What all leaves below share.
        prefix: Hash,
        /// Left child.
        left: Hash,
        /// Right child.
        right: Hash,
    }
}

/// Where the way of a key ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrieEnd {
    /// The trie is empty.
    Empty,
    /// A leaf: the key's own, or another's.
    Leaf(LeafDigest),
    /// An inner node whose prefix the key does not share.
    Fork(TrieFork),
}

/// The way of a key from the root to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrieProof {
    /// Inner nodes passed.
    pub steps: List<TrieStep, 256>,
    /// Where it ends.
    pub end: TrieEnd,
}

impl Element for TrieProof {
    type Wire = wire::TrieProof;
    fn read(w: Self::Wire, _: &'static str) -> Result<Self, DecodeError> {
        use wire::trie_proof::End;
        Ok(TrieProof {
            steps: Field::read_field(w.steps, "steps")?,
            end: match w.end.ok_or(DecodeError::Missing("end"))? {
                End::Empty(_) => TrieEnd::Empty,
                End::Leaf(l) => TrieEnd::Leaf(Element::read(l, "leaf")?),
                End::Fork(f) => TrieEnd::Fork(Element::read(f, "fork")?),
            },
        })
    }
    fn write(&self) -> Self::Wire {
        use wire::trie_proof::End;
        wire::TrieProof {
            steps: self.steps.write_field(),
            end: Some(match &self.end {
                TrieEnd::Empty => End::Empty(wire::Empty {}),
                TrieEnd::Leaf(l) => End::Leaf(l.write()),
                TrieEnd::Fork(f) => End::Fork(f.write()),
            }),
        }
    }
}
crate::field::message_field!(TrieProof);
impl Message for TrieProof {}

/// The hash of an inner node at `bit`, whose leaves share `prefix` (zeros from `bit` on).
pub fn inner_hash(bit: u16, prefix: &Hash, left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0; 98];
    bytes[..2].copy_from_slice(&bit.to_le_bytes());
    bytes[2..34].copy_from_slice(&prefix.0);
    bytes[34..66].copy_from_slice(&left.0);
    bytes[66..].copy_from_slice(&right.0);
    hash::TRIE_INNER.hash(&[&bytes])
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// Bit positions out of range or order.
    #[error("the proof's way is malformed")]
    Malformed,
    /// It leads to another root.
    #[error("the proof leads to another root")]
    OtherRoot,
    /// It ends elsewhere than the claim says.
    #[error("the proof ends at another object, or shows that there is one where none was claimed")]
    OtherEnd,
}

impl TrieProof {
    /// Whether the trie under `root` holds just this leaf at its key.
    pub fn verify_leaf(&self, root: &Hash, leaf: &Leaf) -> Result<(), BadProof> {
        match &self.end {
            TrieEnd::Leaf(d)
                if d.object == leaf.object
                    && d.object_hash == leaf.object_hash()
                    && d.trail == leaf.trail =>
            {
                self.climb(root, &leaf.object.path())
            }
            _ => Err(BadProof::OtherEnd),
        }
    }

    /// Whether the trie under `root` holds nothing at the object's key.
    pub fn verify_absence(&self, root: &Hash, object: &ObjectRef) -> Result<(), BadProof> {
        let path = object.path();
        let last = self.steps.last().map(|s| s.bit);
        match &self.end {
            TrieEnd::Empty if self.steps.is_empty() => {}
            TrieEnd::Empty => return Err(BadProof::Malformed),
            // The other leaf must lie where the key would: they part only below the last step.
            TrieEnd::Leaf(d) => {
                if d.object == *object {
                    return Err(BadProof::OtherEnd);
                }
                if !shares(&d.object.path(), &path, last)? {
                    return Err(BadProof::OtherEnd);
                }
            }
            // The fork must lie where the key would, and not lie on the key's way.
            TrieEnd::Fork(f) => {
                let bit = bit(f.bit)?;
                if last.is_some_and(|l| l >= f.bit) || f.prefix.prefix(bit) != f.prefix {
                    return Err(BadProof::Malformed);
                }
                if !shares(&f.prefix, &path, last)? || path.prefix(bit) == f.prefix {
                    return Err(BadProof::OtherEnd);
                }
            }
        }
        self.climb(root, &path)
    }

    /// Whether the trie under `root` holds just these leaves, by rising path, at the keys whose paths begin with
    /// the first `bits` bits of `prefix`: none of them elsewhere, none left out (R29). The way ends at the top of
    /// that subtree; where there is none, at what shows that there is none.
    pub fn verify_subtree(
        &self,
        root: &Hash,
        prefix: &Hash,
        bits: u16,
        leaves: &[Leaf],
    ) -> Result<(), BadProof> {
        let last = self.steps.last().map(|s| s.bit);
        let beyond = last.is_some_and(|l| l >= u32::from(bits));
        if bits > 256 || prefix.prefix(bits) != *prefix || beyond {
            return Err(BadProof::Malformed);
        }
        let below = self.ends_below(prefix, bits, last)?;
        match (below, subtree_hash(prefix, bits, leaves)?) {
            (Some(end), Some(top)) if end == top => {}
            (None, None) => {}
            _ => return Err(BadProof::OtherEnd),
        }
        self.climb(root, prefix)
    }

    /// The hash of the end if all below it lies under the prefix, none if nothing does.
    fn ends_below(&self, prefix: &Hash, bits: u16, last: Option<u32>) -> Result<Option<Hash>, BadProof> {
        match &self.end {
            TrieEnd::Empty if self.steps.is_empty() => Ok(None),
            TrieEnd::Empty => Err(BadProof::Malformed),
            TrieEnd::Leaf(d) => {
                let path = d.object.path();
                if !shares(&path, prefix, last)? {
                    return Err(BadProof::OtherEnd);
                }
                let hash = leaf_hash(&d.object, &d.object_hash, &d.trail);
                Ok((path.prefix(bits) == *prefix).then_some(hash))
            }
            TrieEnd::Fork(f) => {
                let at = bit(f.bit)?;
                if last.is_some_and(|l| l >= f.bit) || f.prefix.prefix(at) != f.prefix {
                    return Err(BadProof::Malformed);
                }
                // A fork on the prefix's own way is no end: the way goes on below it.
                if !shares(&f.prefix, prefix, last)? || at < bits && prefix.prefix(at) == f.prefix {
                    return Err(BadProof::OtherEnd);
                }
                let hash = inner_hash(at, &f.prefix, &f.left, &f.right);
                Ok((at >= bits && f.prefix.prefix(bits) == *prefix).then_some(hash))
            }
        }
    }

    /// Hashes from the end up to the root along `path`.
    fn climb(&self, root: &Hash, path: &Hash) -> Result<(), BadProof> {
        if !self.steps.is_sorted_by(|a, b| a.bit < b.bit) {
            return Err(BadProof::Malformed);
        }
        let mut node = match &self.end {
            TrieEnd::Empty => Hash::ZERO,
            TrieEnd::Leaf(d) => leaf_hash(&d.object, &d.object_hash, &d.trail),
            TrieEnd::Fork(f) => inner_hash(bit(f.bit)?, &f.prefix, &f.left, &f.right),
        };
        for step in self.steps.iter().rev() {
            let bit = bit(step.bit)?;
            let (left, right) = if path.bit(bit) { (step.sibling, node) } else { (node, step.sibling) };
            node = inner_hash(bit, &path.prefix(bit), &left, &right);
        }
        if node == *root { Ok(()) } else { Err(BadProof::OtherRoot) }
    }
}

/// The hash of the trie of these leaves; they must rise by path and lie under the prefix.
fn subtree_hash(prefix: &Hash, bits: u16, leaves: &[Leaf]) -> Result<Option<Hash>, BadProof> {
    let hashes: Vec<_> = leaves.iter().map(|l| (l.object.path(), l.hash())).collect();
    let rise = hashes.is_sorted_by(|a, b| a.0 < b.0);
    if !rise || hashes.iter().any(|(path, _)| path.prefix(bits) != *prefix) {
        return Err(BadProof::Malformed);
    }
    Ok(top(&hashes))
}

/// Each level goes to a higher bit, so there are at most 257.
fn top(leaves: &[(Hash, Hash)]) -> Option<Hash> {
    let ((first, hash), (last, _)) = (leaves.first()?, leaves.last()?);
    let Some(byte) = first.0.iter().zip(&last.0).position(|(a, b)| a != b) else { return Some(*hash) };
    let bit = byte as u16 * 8 + (first.0[byte] ^ last.0[byte]).leading_zeros() as u16;
    let (left, right) = leaves.split_at(leaves.partition_point(|(path, _)| !path.bit(bit)));
    Some(inner_hash(bit, &first.prefix(bit), &top(left)?, &top(right)?))
}

fn bit(n: u32) -> Result<u16, BadProof> {
    if n < 256 { Ok(n as u16) } else { Err(BadProof::Malformed) }
}

/// Whether two paths are the same up to and including bit `last`.
fn shares(a: &Hash, b: &Hash, last: Option<u32>) -> Result<bool, BadProof> {
    let bits = match last {
        Some(l) => bit(l)? + 1,
        None => 0,
    };
    Ok(a.prefix(bits) == b.prefix(bits))
}
