//! Few leaves that lie together, in one piece of memory: first where each begins and the head of its path, then the
//! leaves themselves, by rising path.

use std::sync::Arc;

use assent_proto::trie::inner_hash;
use assent_proto::{Hash, Leaf, ObjectRef, Trail};
use prost::encoding::{decode_varint, encode_varint};

use super::words::Words;

/// The most leaves in one piece. More take less memory, and more hashing when one of them changes.
pub(super) const FEW_MAX: usize = 8;

/// So many bits of its path are kept with each leaf: enough to tell nearly all leaves apart without hashing keys.
pub(super) const HEAD_BITS: u16 = u32::BITS as u16;

/// Where in a packed leaf its parts begin; the key stands first.
const HASH: usize = 33;
const TRAIL_HEAD: usize = HASH + 32;
const TRAIL_LENGTH: usize = TRAIL_HEAD + 32;

/// Before the leaves: how many, and of each the head of its path and where it ends.
const COUNT: usize = 1;
const ENTRY: usize = 8;

/// A leaf as it is held: key, hash, head and length of the trail, content.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    head: u32,
    bytes: &'a [u8],
}

/// Appends a leaf as it is held.
pub(super) fn pack(leaf: &Leaf, hash: &Hash, words: &Words, out: &mut Vec<u8>) {
    out.extend(leaf.object.key());
    out.extend(hash.0);
    out.extend(leaf.trail.head.0);
    encode_varint(leaf.trail.length, out);
    words.pack(&leaf.content, out);
}

/// Sets the hash of a packed leaf to what it is.
pub(super) fn set_hash(bytes: &mut [u8], words: &Words) {
    let hash = Packed { head: 0, bytes }.leaf(words).hash();
    bytes[HASH..TRAIL_HEAD].copy_from_slice(&hash.0);
}

impl<'a> Packed<'a> {
    /// What [`pack`] wrote of a leaf, with the head of its path.
    pub(super) fn new(head: u32, bytes: &'a [u8]) -> Self {
        Packed { head, bytes }
    }

    pub(super) fn head(&self) -> u32 {
        self.head
    }

    pub(super) fn object(&self) -> ObjectRef {
        ObjectRef::from_key(self.key()).expect("keys of objects are packed")
    }

    pub(super) fn hash(&self) -> Hash {
        hash_at(self.bytes, HASH)
    }

    /// Hashes the key.
    pub(super) fn path(&self) -> Hash {
        self.object().path()
    }

    pub(super) fn leaf(&self, words: &Words) -> Leaf {
        let mut rest = &self.bytes[TRAIL_LENGTH..];
        let length = decode_varint(&mut rest).expect("a length is packed");
        let trail = Trail { length, head: hash_at(self.bytes, TRAIL_HEAD) };
        Leaf { object: self.object(), content: words.unpack(rest).into(), trail }
    }

    /// Bit `bit` of the path.
    pub(super) fn bit(&self, bit: u16) -> bool {
        if bit < HEAD_BITS { self.head >> (HEAD_BITS - 1 - bit) & 1 == 1 } else { self.path().bit(bit) }
    }

    /// The first bits of the path.
    pub(super) fn prefix(&self, bits: u16) -> Hash {
        prefix(self.head, bits).unwrap_or_else(|| self.path().prefix(bits))
    }

    fn key(&self) -> &'a [u8] {
        &self.bytes[..HASH]
    }

    pub(super) fn cmp_path(&self, other: &Packed) -> std::cmp::Ordering {
        self.head.cmp(&other.head).then_with(|| {
            // Paths of one head are those of one key, all but never others.
            if self.key() == other.key() { std::cmp::Ordering::Equal } else { self.path().cmp(&other.path()) }
        })
    }
}

fn hash_at(bytes: &[u8], at: usize) -> Hash {
    Hash(bytes[at..at + 32].try_into().expect("a hash has 32 bytes"))
}

/// The first bits of a path, as they are kept.
pub(super) fn head(path: &Hash) -> u32 {
    let [a, b, c, d, ..] = path.0;
    u32::from_be_bytes([a, b, c, d])
}

/// The first bits of a path by its head, if that has as many.
pub(super) fn prefix(head: u32, bits: u16) -> Option<Hash> {
    let cut = u32::from(HEAD_BITS.checked_sub(bits)?);
    let mut out = Hash::ZERO;
    out.0[..4].copy_from_slice(&(head & u32::MAX.checked_shl(cut).unwrap_or(0)).to_be_bytes());
    Some(out)
}

/// How many leading bits two heads share.
pub(super) fn common_head(a: u32, b: u32) -> u16 {
    (a ^ b).leading_zeros() as u16
}

/// How many leading bits two paths share; 256 if they are the same.
pub(super) fn common(a: &Hash, b: &Hash) -> u16 {
    match a.0.iter().zip(&b.0).position(|(x, y)| x != y) {
        Some(i) => i as u16 * 8 + (a.0[i] ^ b.0[i]).leading_zeros() as u16,
        None => 256,
    }
}

/// Where sorted leaves part: the first bit in which they differ, and those on each side. None of a single leaf.
pub(super) fn part<'p, 'a>(leaves: &'p [Packed<'a>]) -> Option<(u16, &'p [Packed<'a>], &'p [Packed<'a>])> {
    let [first, .., last] = leaves else { return None };
    let bit = match common_head(first.head, last.head) {
        HEAD_BITS => common(&first.path(), &last.path()),
        bit => bit,
    };
    let (left, right) = split(leaves, bit);
    Some((bit, left, right))
}

/// Where the first path with a 1 at `bit` stands, among sorted paths that agree on all bits before it.
pub(super) fn split<'p, 'a>(leaves: &'p [Packed<'a>], bit: u16) -> (&'p [Packed<'a>], &'p [Packed<'a>]) {
    leaves.split_at(leaves.partition_point(|packed| !packed.bit(bit)))
}

/// The hash of the trie of sorted leaves; at least one.
pub(super) fn hash(leaves: &[Packed]) -> Hash {
    match part(leaves) {
        None => leaves[0].hash(),
        Some((bit, left, right)) => inner_hash(bit, &leaves[0].prefix(bit), &hash(left), &hash(right)),
    }
}

/// At most [`FEW_MAX`] leaves, at least one, by rising path.
#[derive(Clone, Debug)]
pub(super) struct Few(Arc<[u8]>);

impl Few {
    pub(super) fn of(leaves: &[Packed]) -> Few {
        let begin = COUNT + leaves.len() * ENTRY;
        let size = begin + leaves.iter().map(|packed| packed.bytes.len()).sum::<usize>();
        // Of known length, so that it is allocated once, where it stays.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size).collect();
        let out = Arc::get_mut(&mut bytes).expect("nobody else has it yet");
        out[0] = leaves.len() as u8;
        let mut end = begin;
        for (i, packed) in leaves.iter().enumerate() {
            let (at, from) = (COUNT + i * ENTRY, end);
            end += packed.bytes.len();
            out[from..end].copy_from_slice(packed.bytes);
            out[at..at + 4].copy_from_slice(&packed.head.to_le_bytes());
            out[at + 4..at + ENTRY].copy_from_slice(&(end as u32).to_le_bytes());
        }
        Few(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0[0].into()
    }

    pub(super) fn at(&self, i: usize) -> Packed<'_> {
        let from = if i == 0 { COUNT + self.len() * ENTRY } else { self.number(i - 1, 4) as usize };
        Packed { head: self.number(i, 0), bytes: &self.0[from..self.number(i, 4) as usize] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Packed<'_>> {
        (0..self.len()).map(|i| self.at(i))
    }

    pub(super) fn find(&self, object: &ObjectRef, path: &Hash) -> Option<Packed<'_>> {
        let (head, key) = (head(path), object.key());
        (0..self.len())
            .filter(|i| self.number(*i, 0) == head)
            .map(|i| self.at(i))
            .find(|packed| packed.key() == key)
    }

    /// These leaves and sorted others, which take the place of those with their keys.
    pub(super) fn with<'a>(&'a self, incoming: &[Packed<'a>]) -> Vec<Packed<'a>> {
        let mut leaves = Vec::with_capacity(self.len() + incoming.len());
        let mut held = self.iter().peekable();
        for new in incoming {
            leaves.extend(std::iter::from_fn(|| held.next_if(|old| old.cmp_path(new).is_lt())));
            held.next_if(|old| old.cmp_path(new).is_eq());
            leaves.push(*new);
        }
        leaves.extend(held);
        leaves
    }

    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Few) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn number(&self, i: usize, part: usize) -> u32 {
        let at = COUNT + i * ENTRY + part;
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("a number has 4 bytes"))
    }
}
