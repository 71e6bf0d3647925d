//! Bodies of proposed blocks: taken apart, put together again, kept while their height is undecided.
//!
//! Parts carry no signature. What protects is that a whole body must hash to the block id that the signed
//! proposal names, and that memory is bounded whatever comes: so many streams for a round, so many bodies.

use std::collections::BTreeMap;

use bytes::Bytes;

use assent_proto::{Address, Block, BlockId, Height, TimeMs};

use crate::execute;
use crate::message::Part;

/// The most streams that may be open for one round of one height, besides those asked for.
const STREAMS_PER_ROUND_MAX: usize = 2;
/// The most streams of all.
const STREAMS_MAX: usize = 16;
/// The most whole bodies kept in memory; those that were answered are on disk too.
const BODIES_MAX: usize = 16;

/// A whole body.
pub(crate) struct Body {
    pub(crate) height: Height,
    /// The round in which it came first.
    pub(crate) round: u32,
    /// The block's canonical encoding.
    pub(crate) bytes: Bytes,
    /// The same decoded, until it is executed.
    pub(crate) block: Option<Block>,
    /// Whether it is on disk.
    pub(crate) kept: bool,
}

/// Bodies and the streams that become bodies.
#[derive(Default)]
pub(crate) struct Bodies {
    streams: BTreeMap<Key, Stream>,
    whole: BTreeMap<BlockId, Body>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    height: Height,
    round: u32,
    block: BlockId,
    /// Whom we asked for it; without, anyone may add.
    asked: Option<Address>,
}

struct Stream {
    by_proposer: bool,
    parts: Vec<Option<Bytes>>,
    newest: TimeMs,
}

/// What came of a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is one of several, or is not wanted.
    Waiting,
    /// The body is whole.
    Whole,
    /// The body is not what the one we asked says that it is.
    Lied,
}

impl Bodies {
    /// Takes a part; `by_proposer` says whether whose turn it is sent it.
    pub(crate) fn take(&mut self, now: TimeMs, from: Address, by_proposer: bool, part: Part) -> Taken {
        if self.whole.contains_key(&part.block) {
            return Taken::Waiting;
        }
        let Some(key) = self.open(from, by_proposer, &part) else { return Taken::Waiting };
        let of = part.of as usize;
        let stream = self.streams.entry(key).or_insert_with(|| Stream {
            by_proposer,
            parts: vec![None; of],
            newest: now,
        });
        if stream.parts.is_empty() {
            stream.parts = vec![None; of];
        }
        if stream.parts.len() != of {
            return Taken::Waiting;
        }
        match stream.parts.get_mut(part.index as usize) {
            Some(slot @ None) => *slot = Some(part.bytes),
            _ => return Taken::Waiting,
        }
        stream.newest = now;
        if stream.parts.iter().any(Option::is_none) {
            return Taken::Waiting;
        }
        let stream = self.streams.remove(&key).expect("taken from above");
        self.complete(key, stream)
    }

    /// The stream that a part belongs to, if there is room for it.
    fn open(&mut self, from: Address, by_proposer: bool, part: &Part) -> Option<Key> {
        let Part { height, round, block, .. } = *part;
        let asked = Key { height, round, block, asked: Some(from) };
        if self.streams.contains_key(&asked) {
            return Some(asked);
        }
        let key = Key { asked: None, ..asked };
        if self.streams.contains_key(&key) {
            return Some(key);
        }
        let others: Vec<_> = self
            .streams
            .iter()
            .filter(|(k, _)| (k.height, k.round, k.asked) == (height, round, None))
            .map(|(k, s)| (*k, s.by_proposer))
            .collect();
        if others.len() >= STREAMS_PER_ROUND_MAX {
            // Whoever's turn it is displaces what another opened in its round.
            let (displaced, _) = others.iter().find(|(_, by)| by_proposer && !by)?;
            self.streams.remove(displaced);
        }
        self.make_room();
        Some(key)
    }

    fn make_room(&mut self) {
        while self.streams.len() >= STREAMS_MAX {
            let oldest = self.streams.iter().min_by_key(|(_, s)| s.newest).map(|(k, _)| *k);
            oldest.and_then(|k| self.streams.remove(&k));
        }
    }

    fn complete(&mut self, key: Key, stream: Stream) -> Taken {
        let bytes: Bytes = match <[_; 1]>::try_from(stream.parts) {
            Ok([one]) => one.expect("no part is missing"),
            Err(parts) => parts.into_iter().flatten().flatten().collect::<Vec<u8>>().into(),
        };
        match execute::decode(&key.block, &bytes) {
            Ok(block) if block.header.height == key.height => {
                self.put(key.block, key.round, bytes, block, false);
                Taken::Whole
            }
            _ if key.asked.is_some() => Taken::Lied,
            _ => Taken::Waiting,
        }
    }

    /// Prepares for the parts that a peer is asked for.
    pub(crate) fn ask(&mut self, now: TimeMs, height: Height, round: u32, block: BlockId, of: Address) {
        self.streams.retain(|k, _| !(k.block == block && k.asked.is_some()));
        self.make_room();
        // How many parts there are is not known yet: the first to come says it.
        let key = Key { height, round, block, asked: Some(of) };
        self.streams.insert(key, Stream { by_proposer: false, parts: Vec::new(), newest: now });
    }

    /// When the newest part of a block came.
    pub(crate) fn newest(&self, block: &BlockId) -> Option<TimeMs> {
        self.streams.iter().filter(|(k, _)| k.block == *block).map(|(_, s)| s.newest).max()
    }

    /// A whole body.
    pub(crate) fn get(&self, block: &BlockId) -> Option<&Body> {
        self.whole.get(block)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, block: &BlockId) -> Option<&mut Body> {
        self.whole.get_mut(block)
    }

    /// All whole bodies of a height.
    pub(crate) fn of_height(&self, height: Height) -> impl Iterator<Item = (&BlockId, &Body)> {
        self.whole.iter().filter(move |(_, b)| b.height == height)
    }

    /// Keeps a whole body; `kept` says that it is on disk.
    pub(crate) fn put(&mut self, id: BlockId, round: u32, bytes: Bytes, block: Block, kept: bool) {
        while self.whole.len() >= BODIES_MAX {
            let least =
                self.whole.iter().min_by_key(|(_, b)| (!b.kept, b.height, b.round)).map(|(id, _)| *id);
            least.and_then(|id| self.whole.remove(&id));
        }
        self.streams.retain(|k, _| k.block != id);
        let height = block.header.height;
        self.whole.insert(id, Body { height, round, bytes, block: Some(block), kept });
    }

    /// Forgets what is below a height.
    pub(crate) fn advance(&mut self, height: Height) {
        self.streams.retain(|k, _| k.height >= height);
        self.whole.retain(|_, b| b.height >= height);
    }
}
