//! Binary Merkle trees over lists (shape of RFC 6962), and the Merkle mountain range over block ids.

use crate::field::{List, messages};
use crate::hash::{self, Hash};

messages! {
    /// The place of a leaf in a tree of `count` leaves.
    MerklePath {
        /// Index of the leaf.
        index: u32,
        /// Leaves of the tree.
        count: u32,
        /// Siblings from the leaf up.
        siblings: List<Hash, 32>,
    }
}

fn leaf(value: &Hash) -> Hash {
    hash::MERKLE_LEAF.hash(&[&value.0])
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    hash::MERKLE_INNER.hash(&[&left.0, &right.0])
}

/// Binds the count, so that a tree of another size cannot pass for this one.
fn crown(count: u64, top: &Hash) -> Hash {
    hash::MERKLE_ROOT.hash(&[&count.to_le_bytes(), &top.0])
}

/// The root over the values.
pub fn root(values: &[Hash]) -> Hash {
    crown(values.len() as u64, &top(values))
}

fn top(values: &[Hash]) -> Hash {
    match values {
        [] => Hash::ZERO,
        [one] => leaf(one),
        _ => {
            let (left, right) = values.split_at(split(values.len()));
            inner(&top(left), &top(right))
        }
    }
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

/// The siblings of the value at `index`, from the leaf up; `index` must be below the number of values.
pub fn path(values: &[Hash], index: usize) -> Vec<Hash> {
    assert!(index < values.len(), "a path leads to a value of the tree");
    if values.len() == 1 {
        return Vec::new();
    }
    let (left, right) = values.split_at(split(values.len()));
    let (mut below, sibling) = if index < left.len() {
        (path(left, index), top(right))
    } else {
        (path(right, index - left.len()), top(left))
    };
    below.push(sibling);
    below
}

/// Whether `value` stands at `index` of the tree of `count` values under `root`.
pub fn verify(root: &Hash, value: &Hash, index: u64, count: u64, siblings: &[Hash]) -> bool {
    fn climb(value: &Hash, index: u64, count: u64, siblings: &[Hash]) -> Option<Hash> {
        if count == 1 {
            return siblings.is_empty().then(|| leaf(value));
        }
        let (sibling, below) = siblings.split_last()?;
        let half = count.next_power_of_two() / 2;
        if index < half {
            Some(inner(&climb(value, index, half, below)?, sibling))
        } else {
            Some(inner(sibling, &climb(value, index - half, count - half, below)?))
        }
    }
    index < count
        && count <= 1 << 32
        && climb(value, index, count, siblings).is_some_and(|top| crown(count, &top) == *root)
}

/// The peaks of a Merkle mountain range: what must be kept to append to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mountains {
    count: u64,
    peaks: Vec<Hash>,
}

impl Mountains {
    /// From its stored parts; `None` if the number of peaks does not fit the count.
    pub fn from_parts(count: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == count.count_ones() as usize).then_some(Mountains { count, peaks })
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The peaks, highest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a value.
    pub fn push(&mut self, value: &Hash) {
        let mut top = leaf(value);
        for _ in 0..self.count.trailing_ones() {
            let left = self.peaks.pop().expect("as many peaks as bits of the count");
            top = inner(&left, &top);
        }
        self.peaks.push(top);
        self.count += 1;
    }

    /// The root: of the count and the peaks.
    pub fn root(&self) -> Hash {
        self.peaks.iter().fold(hash::HISTORY.hasher().number(self.count), |h, p| h.hash(p)).end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize) -> Vec<Hash> {
        (0..n).map(|i| hash::RECORD.hash(&[&i.to_le_bytes()])).collect()
    }

    proptest! {
        #[test]
        fn paths_prove_their_place_and_no_other(n in 1usize..70, at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
            let v = values(n);
            let (i, j) = (at.index(n), other.index(n));
            let (root, p) = (root(&v), path(&v, i));
            prop_assert!(verify(&root, &v[i], i as u64, n as u64, &p));
            prop_assert_eq!(verify(&root, &v[j], i as u64, n as u64, &p), i == j);
            prop_assert_eq!(verify(&root, &v[i], j as u64, n as u64, &p), i == j);
            prop_assert!(!verify(&root, &v[i], i as u64, n as u64 + 1, &p));
        }
    }

    #[test]
    fn mountains_merge_like_a_counter() {
        let mut m = Mountains::default();
        let mut roots = std::collections::BTreeSet::new();
        for v in values(100) {
            m.push(&v);
            assert_eq!(m.peaks().len(), m.count().count_ones() as usize);
            assert!(roots.insert(m.root()));
        }
        assert_eq!(Mountains::from_parts(m.count(), m.peaks().to_vec()), Some(m));
    }
}
