//! Evidence that crosses changes of the validators (R29): a chain by hand on which several sets vote one after
//! the other, and everything that a forger could do to the changes that lead from one to the next.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

use assent_proto::block::{BadCertificate, CommitSignature, PROTOCOL_OLDEST};
use assent_proto::epochs::Epochs;
use assent_proto::evidence::*;
use assent_proto::field::{List, Message};
use assent_proto::keys::Algorithm;
use assent_proto::trie::{LeafDigest, TrieEnd, TrieProof};
use assent_proto::validators::{VoteKind, vote_message};
use assent_proto::*;

fn genesis() -> GenesisHash {
    GenesisHash(Hash([1; 32]))
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

/// A set of these keys, one vote each.
fn set(keys: &[u8]) -> ValidatorSet {
    let validator = |n: &u8| Validator {
        algorithm: Algorithm::Ed25519,
        key: key(*n).public(),
        power: 1,
        institution: InstitutionId(Hash([*n; 32])),
    };
    ValidatorSet { validators: keys.iter().map(validator).collect::<Vec<_>>().try_into().unwrap() }
}

fn leaf() -> Leaf {
    let content = assent_proto::state::Settlement {
        batch: BatchId(Hash([7; 32])),
        settler: InstitutionId(Hash([8; 32])),
        height: Height(1),
    };
    let object = ObjectRef::from(CaseId(Hash([9; 32])));
    Leaf { object, content: content.encode(), trail: object.new_trail() }
}

/// A header at a height after which `next` votes, certified by those of `voters` (indexes) of the set `by`.
fn certified(height: u64, by: &[u8], next: &[u8], voters: &[usize]) -> CertifiedHeader {
    let (now, next) = (set(by), set(next));
    let header = Header {
        version: PROTOCOL_OLDEST,
        genesis: genesis(),
        height: Height(height),
        parent: BlockId(Hash([2; 32])),
        time: TimeMs(1_790_000_000_000 + height),
        builder: now.validators[0].address(),
        tx_root: Hash::ZERO,
        body_bytes: 0,
        events_root: Hash::ZERO,
        history_root: Hash::ZERO,
        state_root: leaf().hash(),
        validators: now.hash(),
        next_validators: next.hash(),
        parent_certificate: Hash([3; 32]),
    };
    let id = header.id();
    let sign = |i: &usize| {
        let address = now.validators[*i].address();
        let message = vote_message(&genesis(), VoteKind::Precommit, Height(height), 0, Some(&id), &address);
        CommitSignature { validator: *i as u32, signature: key(by[*i]).sign(&message.0) }
    };
    let signatures: Vec<_> = voters.iter().map(sign).collect();
    let signatures = signatures.try_into().unwrap();
    CertifiedHeader {
        header,
        certificate: CommitCertificate { height: Height(height), round: 0, block: id, signatures },
    }
}

/// Certified by as few as make a quorum.
fn by_quorum(height: u64, by: &[u8], next: &[u8]) -> CertifiedHeader {
    let voters: Vec<_> = (0..by.len() * 2 / 3 + 1).collect();
    certified(height, by, next, &voters)
}

fn link(height: u64, by: &[u8], next: &[u8]) -> ValidatorLink {
    ValidatorLink { certified: by_quorum(height, by, next), next: set(next) }
}

/// The sets of the chain: one joins, one gets another key, one leaves.
const SETS: [&[u8]; 4] = [&[11, 12, 13, 14], &[11, 12, 13, 14, 15], &[11, 12, 13, 16, 15], &[12, 13, 16, 15]];
/// The last heights at which each of them but the last votes.
const HEIGHTS: [u64; 3] = [10, 25, 40];

fn links() -> Vec<ValidatorLink> {
    (0..3).map(|i| link(HEIGHTS[i], SETS[i], SETS[i + 1])).collect()
}

fn trust() -> Trust {
    Trust { genesis: genesis(), validators: set(SETS[0]) }
}

/// The trie has one leaf.
fn proof(leaf: &Leaf) -> TrieProof {
    let digest =
        LeafDigest { object: leaf.object, object_hash: leaf.object_hash(), trail: leaf.trail.clone() };
    TrieProof { steps: List::empty(), end: TrieEnd::Leaf(digest) }
}

fn claim() -> Claim {
    let leaf = leaf();
    Claim::State(StateClaim { proof: proof(&leaf), leaf })
}

/// The leaf has seen no event.
fn trail_claim() -> Claim {
    let leaf = leaf();
    Claim::Trail(TrailClaim { proof: proof(&leaf), leaf, events: List::empty() })
}

fn evidence(anchor: CertifiedHeader, links: Vec<ValidatorLink>) -> Evidence {
    Evidence { anchor, claim: claim(), links: links.try_into().unwrap() }
}

/// Anchored above all changes.
fn across() -> Evidence {
    evidence(by_quorum(60, SETS[3], SETS[3]), links())
}

fn refused(links: Vec<ValidatorLink>) -> BadEvidence {
    evidence(by_quorum(60, SETS[3], SETS[3]), links).verify(&trust()).unwrap_err()
}

fn which(error: BadEvidence) -> (usize, u64, BadLink) {
    let BadEvidence::Link { number, height, why } = error else { panic!("no change is blamed: {error}") };
    (number, height.0, why)
}

#[test]
fn r29_evidence_of_every_epoch_verifies_with_the_genesis_alone() {
    let links = links();
    for (epoch, height) in [(0, 5), (0, 10), (1, 11), (1, 25), (2, 26), (3, 41), (3, 60)] {
        let next = if HEIGHTS.contains(&height) { SETS[epoch + 1] } else { SETS[epoch] };
        let made = evidence(by_quorum(height, SETS[epoch], next), links[..epoch].to_vec());
        let (read, verdict) = Evidence::check(&made.encode(), &trust()).unwrap();
        assert_eq!(read, made);
        assert_eq!((verdict.height, verdict.changes), (Height(height), epoch));
        assert_eq!(verdict.validators, SETS[epoch].len());
    }
}

/// Every bit, since a byte can be changed into any other: a claim's kind once lay one bit from another's, and a
/// proof of an object that had seen no event was also one that it had seen none.
#[test]
fn r29_every_changed_bit_of_evidence_with_a_change_is_refused() {
    // One validator each, so that there are few signatures to look at.
    let state = evidence(by_quorum(20, &[12], &[12]), vec![link(10, &[11], &[12])]);
    let trail = Evidence { claim: trail_claim(), ..state.clone() };
    let trust = Trust { genesis: genesis(), validators: set(&[11]) };
    for made in [state, trail] {
        let good = made.encode();
        Evidence::check(&good, &trust).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                assert!(Evidence::check(&bad, &trust).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Evidence::check(&good[..at], &trust).is_err(), "cut at byte {at}");
        }
    }
}

#[test]
fn r29_every_changed_byte_of_evidence_with_several_changes_is_refused() {
    let good = across().encode();
    Evidence::check(&good, &trust()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(Evidence::check(&bad, &trust()).is_err(), "byte {at}");
    }
}

#[test]
fn a_dropped_change_is_found() {
    let all = links();
    let without = |i: usize| [&all[..i], &all[i + 1..]].concat();
    assert_eq!(which(refused(without(0))), (1, 25, BadLink::Missing));
    assert_eq!(which(refused(without(1))), (2, 40, BadLink::Missing));
    assert_eq!(
        refused(without(2)),
        BadEvidence::OtherValidators,
        "the last one is missed by the header itself"
    );
    assert_eq!(refused(Vec::new()), BadEvidence::OtherValidators);
}

#[test]
fn swapped_and_repeated_changes_are_found() {
    let all = links();
    let [a, b, c] = [0, 1, 2].map(|i| all[i].clone());
    assert_eq!(which(refused(vec![b.clone(), a.clone(), c.clone()])), (1, 25, BadLink::Missing));
    assert_eq!(which(refused(vec![a.clone(), c.clone(), b.clone()])), (2, 40, BadLink::Missing));
    assert_eq!(which(refused(vec![a.clone(), a.clone(), b, c])), (2, 10, BadLink::Order));
    // The set shown beside the header is another one's.
    let mut swapped = all;
    swapped[1].next = swapped[2].next.clone();
    assert_eq!(which(refused(swapped)), (2, 25, BadLink::OtherNext));
    assert_eq!(which(refused(vec![a.clone(), link(20, SETS[1], SETS[1])])), (2, 20, BadLink::Unchanged));
}

#[test]
fn a_forged_change_is_found() {
    let all = links();
    let with = |i: usize, forged: ValidatorLink| {
        let mut links = all.clone();
        links[i] = forged;
        which(refused(links))
    };
    // The forger's own keys, under the header that names the true validators.
    let mine: &[u8] = &[91, 92, 93, 94, 95];
    let mut forged = link(25, mine, SETS[2]);
    forged.certified.header.validators = set(SETS[1]).hash();
    forged.certified.certificate.block = forged.certified.header.id();
    let (number, height, why) = with(1, forged);
    assert_eq!((number, height), (2, 25));
    assert!(matches!(why, BadLink::Certificate(BadCertificate::Signature(0))), "{why}");
    // Validators who vote no more: their set is not the one in force.
    assert_eq!(with(1, link(25, SETS[0], SETS[2])), (2, 25, BadLink::Missing));
    // Too few of those who vote: 3 of 5.
    let few = ValidatorLink { certified: certified(25, SETS[1], SETS[2], &[0, 1, 2]), next: set(SETS[2]) };
    assert_eq!(with(1, few), (2, 25, BadLink::Certificate(BadCertificate::NoQuorum(3, 5))));
    // A set of the forger's under a true header.
    let mut planted = all[2].clone();
    planted.next = set(mine);
    assert_eq!(with(2, planted), (3, 40, BadLink::OtherNext));
    // A true change of another chain.
    let mut elsewhere = all[0].clone();
    elsewhere.certified.header.genesis = GenesisHash(Hash([5; 32]));
    assert_eq!(with(0, elsewhere), (1, 10, BadLink::OtherChain));
}

#[test]
fn changes_at_or_above_the_header_prove_nothing_about_it() {
    for height in [30, 40] {
        let made = evidence(by_quorum(height, SETS[3], SETS[3]), links());
        assert_eq!(which(made.verify(&trust()).unwrap_err()), (3, 40, BadLink::Order));
    }
}

/// What README says of sizes: printed here, and bounded so that it stays true.
#[test]
fn the_size_of_a_change_is_known() {
    for n in [4u8, 7] {
        let before: Vec<u8> = (1..=n).collect();
        let after: Vec<u8> = (2..=n + 1).collect();
        let plain = evidence(by_quorum(60, &before, &before), Vec::new()).encode().len();
        let one = evidence(by_quorum(60, &after, &after), vec![link(10, &before, &after)]).encode().len();
        let change = one - plain;
        println!(
            "{n} validators: evidence of a state {plain} bytes, each change of the validators {change} more"
        );
        assert!(plain <= 2048, "{plain}");
        assert!(change <= 2048, "{change}");
    }
}

#[test]
fn what_was_verified_once_is_remembered_and_nothing_else_believed() {
    let (all, mut epochs) = (links(), Epochs::new(trust()));
    assert_eq!(epochs.follow(&all[..1]).unwrap(), &set(SETS[1]));
    assert_eq!(epochs.follow(&all).unwrap(), &set(SETS[3]));
    assert_eq!(epochs.follow(&[]).unwrap(), &set(SETS[0]), "evidence from before all changes");
    assert_eq!(epochs.changes(), 3);
    for (height, epoch) in [(1, 0), (10, 0), (11, 1), (25, 1), (26, 2), (41, 3), (1000, 3)] {
        assert_eq!(epochs.at(Height(height)), &set(SETS[epoch]), "{height}");
    }
    let good = across().encode();
    assert_eq!(epochs.check(&good).unwrap().1.changes, 3);
    // Certified by others of the same set: the same change.
    let mut others = all.clone();
    others[0].certified = certified(10, SETS[0], SETS[1], &[1, 2, 3]);
    assert!(epochs.follow(&others).is_ok());
    // Certified, and yet not what was shown before: the chain has forked, or its old keys were stolen.
    let mut fork = all.clone();
    fork[1] = link(26, SETS[1], SETS[2]);
    assert_eq!(which(epochs.follow(&fork).unwrap_err()), (2, 26, BadLink::OtherHistory));
    // What is refused is not remembered.
    let mut fresh = Epochs::new(trust());
    let mut bad = all;
    bad[1].next = set(&[91]);
    assert_eq!(which(fresh.follow(&bad).unwrap_err()), (2, 25, BadLink::OtherNext));
    assert_eq!(fresh.changes(), 1);
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        // The signatures of changes that are known are not looked at again; all else is.
        if let Ok((read, _)) = epochs.check(&bad) {
            assert!(
                read.links
                    .iter()
                    .zip(across().links.iter())
                    .all(|(a, b)| { a.certified.header == b.certified.header && a.next == b.next })
            );
            assert_eq!((read.anchor, read.claim), (across().anchor, across().claim), "byte {at}");
        }
    }
}

#[test]
fn a_chain_read_in_order_leads_from_set_to_set() {
    let mut epochs = Epochs::new(trust());
    for (height, epoch) in [(1, 0), (9, 0), (10, 0), (11, 1), (25, 1), (26, 2), (40, 2), (41, 3)] {
        let next = if HEIGHTS.contains(&height) { SETS[epoch + 1] } else { SETS[epoch] };
        let header = by_quorum(height, SETS[epoch], next);
        if height == 10 {
            let forged = set(&[91, 92]);
            assert_eq!(which(epochs.header(&header, None).unwrap_err()), (1, 10, BadLink::OtherNext));
            assert_eq!(
                which(epochs.header(&header, Some(&forged)).unwrap_err()),
                (1, 10, BadLink::OtherNext)
            );
        }
        epochs.header(&header, Some(&set(next))).unwrap();
        // Read a second time, it is nothing new.
        epochs.header(&header, Some(&set(next))).unwrap();
    }
    assert_eq!(epochs.changes(), 3);
    let late = by_quorum(42, SETS[0], SETS[0]);
    assert_eq!(epochs.header(&late, None), Err(BadEvidence::OtherValidators));
    let fork = by_quorum(25, SETS[1], SETS[3]);
    let error = epochs.header(&fork, Some(&set(SETS[3]))).unwrap_err();
    assert_eq!(which(error), (2, 25, BadLink::OtherHistory));
}
