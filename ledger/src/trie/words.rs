//! What stands again and again in the contents of leaves is held once: the ids of institutions and items. Nearly every
//! leaf names two or three of them, a fifth of its bytes.
//!
//! A version's words are those of the one before it and perhaps some more behind them, so that what was packed by
//! older words is read by newer ones. They say how leaves are held, never what they are: no root depends on them.

use std::collections::BTreeMap;

use assent_proto::state::ObjectKind;
use assent_proto::{Hash, ObjectRef};

/// As a field of a message: its length before it.
const BYTES: usize = 33;

/// Ids with their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    ids: Vec<Hash>,
    numbers: BTreeMap<Hash, u16>,
}

impl Words {
    /// Whether an object's id is to be learnt: until the numbers are used up.
    pub(super) fn lacks(&self, object: &ObjectRef) -> bool {
        matches!(object.kind, ObjectKind::Institution | ObjectKind::Item)
            && self.ids.len() <= usize::from(u16::MAX)
            && !self.numbers.contains_key(&object.id)
    }

    /// Learns an id that it lacks.
    pub(super) fn learn(&mut self, object: &ObjectRef) {
        self.numbers.insert(object.id, self.ids.len() as u16);
        self.ids.push(object.id);
    }

    /// Appends a content: how many words are in it, of each where it stood and its number, and the rest.
    pub(super) fn pack(&self, content: &[u8], out: &mut Vec<u8>) {
        let count = out.len();
        out.push(0);
        let mut at = 0;
        while let Some((place, number)) = self.next(content, at).filter(|_| out[count] < u8::MAX) {
            out[count] += 1;
            out.extend(place.to_le_bytes());
            out.extend(number.to_le_bytes());
            at = usize::from(place) + BYTES;
        }
        let places = out[count + 1..].to_vec();
        let mut from = 0;
        for (place, _) in pairs(&places) {
            out.extend_from_slice(&content[from..place]);
            from = place + BYTES;
        }
        out.extend_from_slice(&content[from..]);
    }

    /// The content that was packed.
    pub(super) fn unpack(&self, packed: &[u8]) -> Vec<u8> {
        let (count, rest) = packed.split_first().expect("a count is packed");
        let (places, mut rest) = rest.split_at(usize::from(*count) * 4);
        let mut content = Vec::with_capacity(rest.len() + usize::from(*count) * BYTES);
        for (place, number) in pairs(places) {
            let (before, behind) = rest.split_at(place - content.len());
            content.extend_from_slice(before);
            content.push(BYTES as u8 - 1);
            content.extend_from_slice(&self.ids[number].0);
            rest = behind;
        }
        content.extend_from_slice(rest);
        content
    }

    /// The next word in a content from a place on.
    fn next(&self, content: &[u8], from: usize) -> Option<(u16, u16)> {
        let windows = content.get(from..)?.windows(BYTES).enumerate();
        let mut lengths = windows.filter(|(_, window)| window[0] == BYTES as u8 - 1);
        lengths.find_map(|(i, window)| {
            let id = Hash(window[1..].try_into().expect("a hash has 32 bytes"));
            Some((u16::try_from(from + i).ok()?, *self.numbers.get(&id)?))
        })
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[a, b, c, d]| (u16::from_le_bytes([*a, *b]).into(), u16::from_le_bytes([*c, *d]).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn institution(n: u8) -> ObjectRef {
        ObjectRef { kind: ObjectKind::Institution, id: Hash([n; 32]) }
    }

    proptest! {
        /// Whatever a content holds, also what only looks like a word, and whatever is learnt later.
        #[test]
        fn a_content_comes_back(
            pieces in prop::collection::vec(prop_oneof![
                (0..6u8).prop_map(|n| [&[32][..], &[n; 32]].concat()),
                prop::collection::vec(prop_oneof![Just(32u8), 0..6u8, any::<u8>()], 0..40),
            ], 0..400),
        ) {
            let content = pieces.concat();
            let mut words = Words::default();
            (0..4).for_each(|n| words.learn(&institution(n)));
            let mut packed = Vec::new();
            words.pack(&content, &mut packed);
            prop_assert_eq!(words.unpack(&packed), content.clone());
            words.learn(&institution(4));
            prop_assert_eq!(words.unpack(&packed), content);
        }
    }

    #[test]
    fn ids_that_are_known_take_four_bytes() {
        let mut words = Words::default();
        words.learn(&institution(1));
        assert!(words.lacks(&institution(2)) && !words.lacks(&institution(1)));
        let content = [&[10, 32][..], &[1; 32], &[18, 32], &[2; 32]].concat();
        let mut packed = Vec::new();
        words.pack(&content, &mut packed);
        assert_eq!(packed.len(), 1 + 4 + content.len() - 33);
    }
}
