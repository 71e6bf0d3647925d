//! How the database is laid out: column families and keys. Numbers are big-endian, so that the order of the
//! keys is the order of the chain. Writing is [`crate::store`]'s, reading [`crate::reader`]'s.

use assent_proto::field::{DecodeError, Element, Message};
use assent_proto::{Event, Height, ObjectRef};
use assent_replica::Gap;
use bytes::Bytes;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, Options};

/// Names the chain, the layout and the tip.
pub(crate) const META: &str = "meta";
/// Height to header.
pub(crate) const HEADERS: &str = "headers";
/// Height to whole block, or to its key in [`PROPOSALS`] if it was kept there before it was decided.
pub(crate) const BLOCKS: &str = "blocks";
/// Height to commit certificate.
pub(crate) const CERTIFICATES: &str = "certificates";
/// Body id to receipt.
pub(crate) const RECEIPTS: &str = "receipts";
/// Height and index in the block of the first of up to [`EVENTS_A_ROW`] events, to these.
pub(crate) const EVENTS: &str = "events";
/// Object to its leaf in the state.
pub(crate) const LEAVES: &str = "leaves";
/// Object and index in its trail of the first event of a block, to that block's height and the indexes in it of all its
/// events that joined the trail.
pub(crate) const TRAILS: &str = "trails";
/// Id of what was used, height and transaction index to the body that used it.
pub(crate) const USES: &str = "uses";
/// Height, round and block id to a block: those of heights that are not decided yet, and decided ones, which stay where
/// they are rather than being written a second time.
pub(crate) const PROPOSALS: &str = "proposals";
/// Height to a certified header after which other validators vote, with the next set.
pub(crate) const LINKS: &str = "links";
/// As [`LEAVES`]: one of the two holds the state at the tip, the other one that is being taken in, or nothing.
pub(crate) const OTHER_LEAVES: &str = "other-leaves";

/// All of them.
pub(crate) const ALL: [&str; 12] = [
    META,
    HEADERS,
    BLOCKS,
    CERTIFICATES,
    RECEIPTS,
    EVENTS,
    LEAVES,
    TRAILS,
    USES,
    PROPOSALS,
    LINKS,
    OTHER_LEAVES,
];

/// In [`META`]: the genesis hash.
pub(crate) const KEY_GENESIS: &[u8] = b"genesis";
/// In [`META`]: the layout's version.
pub(crate) const KEY_LAYOUT: &[u8] = b"layout";
/// In [`META`]: the newest certified header.
pub(crate) const KEY_TIP: &[u8] = b"tip";
/// In [`META`]: the newest height at which this node signed something, as 8 bytes.
pub(crate) const KEY_SIGNED: &[u8] = b"signed";
/// In [`META`]: the mountain range over the block ids.
pub(crate) const KEY_MOUNTAINS: &[u8] = b"mountains";
/// In [`META`]: which of the two tables holds the state at the tip; [`LEAVES`] if nothing is said.
pub(crate) const KEY_LEAVES: &[u8] = b"leaves";
/// In [`META`]: there while the table that does not hold the state at the tip may hold anything.
pub(crate) const KEY_UNFINISHED: &[u8] = b"unfinished";
/// In [`META`]: heights of which something is missing, as pairs of the lowest and the highest.
pub(crate) const KEY_GAPS: &[u8] = b"gaps";
/// The layout that this build reads and writes.
pub(crate) const LAYOUT: &[u8] = b"4";

/// Events in one row: some kilobytes. A row for each costs more to write than the event; one for all of a block's more
/// to read than the event that is looked for.
pub(crate) const EVENTS_A_ROW: usize = 16;

/// What one table holds in memory before it is written out, bytes. All together are bounded by the store.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// In which steps a table's buffer grows, bytes: small, since most of the tables hold little.
const WRITE_BUFFER_STEP_BYTES: usize = 128 << 10;
/// Leaves are written at random and hardly read but at a start: twice as many files as for other tables wait to be merged,
/// so that they are merged half as often.
const LEAVES_UNSORTED_FILES: i32 = 8;
/// As many as RocksDB has unless told otherwise.
const LEVELS: usize = 7;
/// Blocks, indexes and filters of all tables that were read, bytes.
const READ_CACHE_BYTES: usize = 32 << 20;

/// Each column family with its options: blocks and events are compressed once they have come to rest, hashes cannot be.
/// One cache for all: by
/// default each table has one of its own, and keeps the indexes of its files in memory beside it, without a bound.
pub(crate) fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(READ_CACHE_BYTES));
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let descriptor = |name: &&str| {
        let mut options = Options::default();
        let compressed = matches!(*name, BLOCKS | PROPOSALS | EVENTS | LEAVES | OTHER_LEAVES);
        let compression = if compressed { DBCompressionType::Lz4 } else { DBCompressionType::None };
        options.set_compression_type(compression);
        // What is in the first level is soon written anew.
        options.set_num_levels(LEVELS as i32);
        options.set_compression_per_level(
            &[&[DBCompressionType::None], &[compression; LEVELS - 1][..]].concat(),
        );
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_arena_block_size(WRITE_BUFFER_STEP_BYTES);
        if matches!(*name, LEAVES | OTHER_LEAVES) {
            options.set_level_zero_file_num_compaction_trigger(LEAVES_UNSORTED_FILES);
        }
        options.set_block_based_table_factory(&tables);
        ColumnFamilyDescriptor::new(*name, options)
    };
    ALL.iter().map(descriptor).collect()
}

/// A height.
pub(crate) fn height_key(height: Height) -> [u8; 8] {
    height.0.to_be_bytes()
}

/// Reads what [`height_key`] wrote.
pub(crate) fn read_height(bytes: &[u8]) -> Option<Height> {
    Some(Height(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// Gaps in one value.
pub(crate) fn write_gaps(gaps: &[Gap]) -> Vec<u8> {
    gaps.iter().flat_map(|g| [height_key(g.from), height_key(g.to)]).flatten().collect()
}

/// Reads what [`write_gaps`] wrote.
pub(crate) fn read_gaps(bytes: &[u8]) -> Option<Vec<Gap>> {
    let (pairs, rest) = bytes.as_chunks::<16>();
    let gap = |pair: &[u8; 16]| {
        let (from, to) = pair.split_at(8);
        Some(Gap { from: read_height(from)?, to: read_height(to)? })
    };
    if rest.is_empty() { pairs.iter().map(gap).collect() } else { None }
}

/// A place in a block.
pub(crate) fn place_key(height: Height, index: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&height_key(height));
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Reads what [`place_key`] wrote.
pub(crate) fn read_place(bytes: &[u8]) -> Option<(Height, u32)> {
    let (height, index) = bytes.split_at_checked(8)?;
    let height = u64::from_be_bytes(height.try_into().ok()?);
    Some((Height(height), u32::from_be_bytes(index.try_into().ok()?)))
}

/// The key of the row in which an event stands, and its place in it.
pub(crate) fn event_row(height: Height, index: u32) -> ([u8; 12], usize) {
    let within = index % EVENTS_A_ROW as u32;
    (place_key(height, index - within), within as usize)
}

/// The events of one row, each behind its length.
pub(crate) fn write_events(events: &[Event]) -> Vec<u8> {
    let mut row = Vec::new();
    for event in events.iter().map(Message::encode) {
        row.extend((event.len() as u32).to_be_bytes());
        row.extend(event);
    }
    row
}

/// Takes apart what [`write_events`] wrote.
pub(crate) fn read_events(mut row: Bytes) -> Option<Vec<Bytes>> {
    let mut events = Vec::new();
    while let Some(length) = row.first_chunk() {
        let end = 4 + u32::from_be_bytes(*length) as usize;
        if row.len() < end {
            return None;
        }
        events.push(row.split_to(end).split_off(4));
    }
    row.is_empty().then_some(events)
}

/// Some events of a block, by their indexes.
pub(crate) struct Places {
    pub(crate) height: Height,
    pub(crate) indexes: Vec<u32>,
}

impl Places {
    pub(crate) fn write(&self) -> Vec<u8> {
        let indexes = self.indexes.iter().flat_map(|i| i.to_be_bytes());
        height_key(self.height).into_iter().chain(indexes).collect()
    }

    /// Reads what [`Places::write`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Option<Places> {
        let (height, indexes) = bytes.split_at_checked(8)?;
        let (indexes, rest) = indexes.as_chunks::<4>();
        let indexes = indexes.iter().map(|i| u32::from_be_bytes(*i)).collect();
        rest.is_empty().then_some(Places { height: read_height(height)?, indexes })
    }
}

/// A place in a trail.
pub(crate) fn trail_key(trail: &ObjectRef, index: u64) -> [u8; 41] {
    let mut key = [0; 41];
    key[..33].copy_from_slice(&trail.key());
    key[33..].copy_from_slice(&index.to_be_bytes());
    key
}

/// A use of something, in chain order among its uses.
pub(crate) fn use_key(id: &[u8; 32], height: Height, transaction: u32) -> [u8; 44] {
    let mut key = [0; 44];
    key[..32].copy_from_slice(id);
    key[32..].copy_from_slice(&place_key(height, transaction));
    key
}

/// Where a proposal stands. Shorter than any block.
pub(crate) type ProposalKey = [u8; 44];

/// A proposal.
pub(crate) fn proposal_key(height: Height, round: u32, block: &[u8; 32]) -> ProposalKey {
    let mut key = [0; 44];
    key[..12].copy_from_slice(&place_key(height, round));
    key[12..].copy_from_slice(block);
    key
}

/// Reads a message that this node wrote itself: the bounds on what comes from outside do not apply.
pub(crate) fn decode<T: Element<Wire: prost::Message + Default>>(bytes: Bytes) -> Result<T, DecodeError> {
    let wire = <T::Wire as prost::Message>::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    T::read(wire, "stored")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_row_of_events_is_none() {
        let row: Bytes = [&[0, 0, 0, 2, 7, 7][..], &[0, 0, 0, 0], &[0, 0, 0, 1, 9]].concat().into();
        let whole: Vec<Bytes> = [&[7, 7][..], &[], &[9]].map(Bytes::copy_from_slice).to_vec();
        assert_eq!(read_events(row.clone()), Some(whole.clone()));
        let ends = [0, 6, 10, row.len()];
        for cut in 0..row.len() {
            let read = read_events(row.slice(..cut));
            let expected = ends.iter().position(|end| *end == cut).map(|n| whole[..n].to_vec());
            assert_eq!(read, expected, "cut at {cut}");
        }
        assert_eq!(read_events(Bytes::from_static(&[0xff; 9])), None);
    }
}
