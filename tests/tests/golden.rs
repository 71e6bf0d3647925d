//! The past stays as it was: every golden chain in `tests/golden` is replayed from its founding document to the
//! same roots, events and receipts, by the ledger alone and by a whole validator that catches up.
//!
//! A golden chain of a released version is never written again. What comes later is told by another chain with a
//! file of its own, written by
//!
//! ```text
//! ASSENT_WRITE_GOLDEN=chain-1.bin cargo test --release --workspace --test golden
//! ```
//!
//! which refuses to replace a file. Before its first release alone one may be replaced: with
//! `ASSENT_GOLDEN_IS_UNRELEASED=yes` besides.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use assent_genesis::Genesis;
use assent_proto::event::EventKind;
use assent_proto::transaction::ActionKind;
use assent_proto::{Block, Denial, Height, TimeMs, field::Message};
use assent_replica::{Input, PeerMessage, Replica};
use assent_tests::golden::{Golden, Replay, certified, story};
use assent_tests::sim::Random;
use assent_tests::sim::disk::Disk;

/// Large enough to hold everything once, small enough to be kept for good.
const FILE_BYTES_MAX: u64 = 400 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every golden chain there is, by name.
fn chains() -> Vec<(String, Golden)> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "bin"));
    files.sort();
    let read = |path: PathBuf| {
        let file = std::fs::read(&path).unwrap();
        assert!(file.len() as u64 <= FILE_BYTES_MAX, "{}: {} bytes", path.display(), file.len());
        let golden = Golden::decode(&file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(golden.encode(), file, "{}: not as it was written", path.display());
        (path.file_name().unwrap().to_string_lossy().into_owned(), golden)
    };
    let chains: Vec<_> = files.into_iter().map(read).collect();
    assert!(!chains.is_empty(), "there is no golden chain in {}", folder().display());
    chains
}

#[test]
fn a_golden_chain_is_written_when_asked_for_and_never_over_another() {
    let Ok(name) = std::env::var("ASSENT_WRITE_GOLDEN") else { return };
    let path = folder().join(&name);
    let unreleased = std::env::var("ASSENT_GOLDEN_IS_UNRELEASED").is_ok_and(|v| v == "yes");
    assert!(unreleased || !path.exists(), "{name} is there: the past is not written again");
    let told = story::first();
    let golden = certified(&told.genesis, &told.world, &told.keys, &told.missed).unwrap();
    let file = golden.encode();
    println!("{name}: {} blocks, {} bytes", golden.blocks.len(), file.len());
    std::fs::write(path, file).unwrap();
}

#[test]
fn golden_chains_replay_to_the_same_roots_events_and_receipts() {
    for (name, golden) in chains() {
        let replay = golden.replay().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(replay.height.0 as usize, golden.blocks.len(), "{name}");
    }
}

#[test]
fn golden_chains_hold_every_kind_of_transaction_and_event_and_both_versions() {
    let (mut actions, mut kinds, mut codes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut versions, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for (name, golden) in chains() {
        let replay = golden.replay().unwrap_or_else(|e| panic!("{name}: {e}"));
        actions.extend(replay.events.iter().map(|e| e.core.action));
        kinds.extend(replay.events.iter().map(|e| e.core.kind));
        denied.extend(replay.events.iter().filter(|e| e.core.code > 0).map(|e| e.core.action));
        codes.extend(replay.receipts.iter().filter_map(|r| Denial::from_number(r.code)));
        let rises = replay.versions.windows(2).all(|v| v[0] == v[1] || v[0] + 1 == v[1]);
        assert!(rises, "{name}: {:?}", replay.versions);
        versions.extend(replay.versions);
    }
    let missing: Vec<_> = ActionKind::ALL.iter().filter(|a| !actions.contains(a)).collect();
    assert!(missing.is_empty(), "no golden chain has {missing:?}: a new kind needs a new chain");
    let missing: Vec<_> = EventKind::ALL.iter().filter(|k| !kinds.contains(k)).collect();
    assert!(missing.is_empty(), "no golden chain has {missing:?}: a new kind needs a new chain");
    assert!(codes.len() >= 40, "{} codes: {codes:?}", codes.len());
    assert!(denied.len() >= 12, "{denied:?}");
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [1, 2]);
    println!("{} denial codes", codes.len());
}

/// A validator that has nothing but the founding document catches up with all of it.
#[test]
fn a_validator_catches_up_with_the_golden_chains() {
    for (name, golden) in chains() {
        let genesis = Genesis::parse(&golden.genesis).unwrap();
        let peer = genesis.nodes()[0].address();
        let certified = |(i, b): (usize, &bytes::Bytes)| (b.clone(), golden.certificate(i).unwrap());
        let blocks: Vec<_> = golden.blocks.iter().enumerate().map(certified).collect();
        let time = Block::decode(&blocks.last().unwrap().0).unwrap().header.time;
        let mut now = time.plus(1);
        let (mut replica, mut outputs) = Replica::open(now, genesis, None, Disk::default()).unwrap();
        let tip = PeerMessage::Tip { height: Height(blocks.len() as u64) };
        for input in [Input::PeerUp(peer), Input::Peer { from: peer, message: tip }] {
            outputs.extend(replica.step(now, input).unwrap());
        }
        for _ in 0..10 * blocks.len() {
            let asked = outputs.iter().find_map(|o| match o {
                assent_replica::Output::Send { message: PeerMessage::CatchUp { from, to }, .. } => {
                    Some((*from, *to))
                }
                _ => None,
            });
            let input = match asked {
                Some((from, to)) => {
                    let range = from.0 as usize - 1..(to.0 as usize).min(blocks.len());
                    Input::Peer { from: peer, message: PeerMessage::Blocks(blocks[range].to_vec()) }
                }
                None => Input::Wake,
            };
            now = now.max(replica.next_wake().unwrap_or(TimeMs(0)));
            outputs = replica.step(now, input).unwrap();
            if replica.status().height.0 as usize == blocks.len() {
                break;
            }
        }
        let root = golden.replay().unwrap().state.root();
        let status = replica.status();
        assert_eq!((status.height.0 as usize, status.state_root), (blocks.len(), root), "{name}");
        assert_eq!(status.rules.version, 2, "{name}");
    }
}

/// Bytes that are flipped in every block, and the certificate that was flipped besides.
const FLIPS: usize = 12;

#[test]
fn a_byte_flipped_anywhere_in_a_block_fails_the_replay() {
    let mut random = Random::new(7);
    for (name, golden) in chains() {
        let mut replay = Replay::found(&golden.genesis).unwrap();
        for (index, block) in golden.blocks.iter().enumerate() {
            let (certificate, receipts) = (golden.certificate(index).unwrap(), golden.receipts[index]);
            for _ in 0..FLIPS {
                let (at, bit) = (random.below(block.len() as u64) as usize, 1 << random.below(8));
                let mut bad = block.to_vec();
                bad[at] ^= bit;
                let flipped = replay.step(&bad, &certificate, &receipts);
                assert!(flipped.is_err(), "{name}, block {}: byte {at} means nothing", index + 1);
            }
            let mut other = receipts;
            other.0[index % 32] ^= 1;
            assert!(replay.step(block, &certificate, &other).is_err(), "{name}: receipts of {}", index + 1);
            let mut forged = certificate.clone();
            let mut signatures = forged.signatures.into_vec();
            signatures[0].signature.0[index % 64] ^= 1;
            forged.signatures = signatures.try_into().unwrap();
            assert!(replay.step(block, &forged, &receipts).is_err(), "{name}: certificate of {}", index + 1);
            replay = replay.step(block, &certificate, &receipts).unwrap();
        }
    }
}

#[test]
fn a_file_that_was_cut_or_grew_is_no_golden_chain() {
    let (name, golden) = chains().swap_remove(0);
    let file = golden.encode();
    let wrong = |bytes: &[u8]| Golden::decode(bytes).and_then(|g| g.replay()).map(|r| r.height);
    let whole = golden.blocks.len() as u64;
    for cut in [1, 31, 33, 40, 500] {
        assert_ne!(wrong(&file[..file.len() - cut]), Ok(Height(whole)), "{name}: {cut} bytes less");
    }
    assert!(wrong(&[&file[..], b"x"].concat()).is_err());
    assert!(wrong(&file[1..]).is_err() && wrong(b"").is_err());
    let mut short = golden.clone();
    short.blocks.remove(3);
    short.receipts.remove(3);
    assert!(short.replay().is_err(), "a block left out");
    let mut swapped = golden;
    swapped.blocks.swap(4, 5);
    assert!(swapped.replay().is_err(), "two blocks change places");
}
