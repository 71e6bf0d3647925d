//! A validator never contradicts what it signed: the intent is durable before the signature, a log that is
//! damaged anywhere is not used, and a signature that it does not remember silences it.
#![allow(clippy::unwrap_used)]

mod common;

use assent_consensus::log::LOST;
use assent_consensus::*;
use assent_proto::validators::VoteKind;
use assent_proto::{BlockId, Hash, Header, Height, TimeMs};
use common::{Chain, MemoryLog, chain};

fn signed_by(outputs: &[Output], who: assent_proto::Address) -> Vec<SignedVote> {
    let vote = |o: &Output| match o {
        Output::Broadcast(ConsensusMessage::Vote(v)) if v.validator == who => Some(v.clone()),
        _ => None,
    };
    outputs.iter().filter_map(vote).collect()
}

/// Node 0 in height 1, where another proposes: it receives the proposal and the others' votes.
struct Script {
    chain: Chain,
    header: Header,
    inputs: Vec<Input>,
}

fn script() -> Script {
    let chain = chain();
    // A height in which node 0 does not propose in round 0.
    assert_ne!(chain.proposer(1, 0), 0);
    let p = chain.proposer(1, 0);
    let header = chain.header(1, BlockId(chain.genesis.0), chain.address(p), 0);
    let id = header.id();
    let (a, b) = match p {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    let say = |m| Input::Message(m);
    let inputs = vec![
        say(ConsensusMessage::Proposal(chain.proposal(p, 0, header.clone()))),
        Input::Received {
            height: Height(1),
            round: 0,
            proposer: chain.address(p),
            valid_round: None,
            header: header.clone(),
            valid: true,
        },
        say(ConsensusMessage::Vote(chain.vote(a, VoteKind::Prevote, 1, 0, Some(id)))),
        say(ConsensusMessage::Vote(chain.vote(b, VoteKind::Prevote, 1, 0, Some(id)))),
        say(ConsensusMessage::Vote(chain.vote(a, VoteKind::Precommit, 1, 0, Some(id)))),
    ];
    Script { chain, header, inputs }
}

/// Plays the script into a fresh node, and gives what it said and its log.
fn play(s: &Script, log: &mut MemoryLog) -> Result<Vec<Output>, Fault> {
    let mut node = s.chain.consensus(0);
    let mut outputs = node.start_height(TimeMs(0), Height(1), s.chain.turns(1), None, b"", log)?;
    for input in &s.inputs {
        outputs.extend(node.step(TimeMs(10), input.clone(), log)?);
    }
    Ok(outputs)
}

fn restart(s: &Script, bytes: &[u8], log: &mut MemoryLog) -> (Consensus, Vec<Output>) {
    let mut node = s.chain.consensus(0);
    let outputs = node.start_height(TimeMs(50), Height(1), s.chain.turns(1), None, bytes, log).unwrap();
    (node, outputs)
}

fn abstention(outputs: &[Output]) -> Option<Abstention> {
    outputs.iter().find_map(|o| match o {
        Output::Abstaining { why, .. } => Some(*why),
        _ => None,
    })
}

/// Where each frame ends.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    let mut at = 0;
    while at < bytes.len() {
        at += 12 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at);
    }
    ends
}

#[test]
fn it_prevotes_and_precommits_and_replay_says_the_very_same() {
    let s = script();
    let mut log = MemoryLog::default();
    let votes = signed_by(&play(&s, &mut log).unwrap(), s.chain.address(0));
    let kinds: Vec<_> = votes.iter().map(|v| (v.kind, v.block)).collect();
    assert_eq!(kinds, [(VoteKind::Prevote, Some(s.header.id())), (VoteKind::Precommit, Some(s.header.id()))]);

    let mut again = MemoryLog::default();
    let (_, outputs) = restart(&s, &log.all(), &mut again);
    assert_eq!(signed_by(&outputs, s.chain.address(0)), votes);
    assert!(again.all().is_empty(), "what the log holds is not written again");
}

#[test]
fn a_log_cut_at_any_frame_leads_to_the_same_votes() {
    let s = script();
    let mut log = MemoryLog::default();
    let votes = signed_by(&play(&s, &mut log).unwrap(), s.chain.address(0));
    let bytes = log.all();
    for end in frame_ends(&bytes) {
        let mut rest = MemoryLog { durable: bytes[..end].to_vec(), ..Default::default() };
        let held = rest.all();
        let (mut node, mut outputs) = restart(&s, &held, &mut rest);
        for input in &s.inputs {
            outputs.extend(node.step(TimeMs(60), input.clone(), &mut rest).unwrap());
        }
        let mut said = signed_by(&outputs, s.chain.address(0));
        said.dedup();
        assert_eq!(said, votes, "log cut at {end}");
        assert_eq!(abstention(&outputs), None);
        // The log that was continued is whole, and leads there once more.
        let (_, outputs) = restart(&s, &rest.all(), &mut MemoryLog::default());
        assert_eq!(signed_by(&outputs, s.chain.address(0)), votes, "continued at {end}");
    }
}

#[test]
fn a_log_damaged_at_any_byte_makes_it_abstain() {
    let s = script();
    let mut log = MemoryLog::default();
    play(&s, &mut log).unwrap();
    let bytes = log.all();
    assert!(bytes.len() > 1000);
    let ends = frame_ends(&bytes);
    let must_abstain = |bytes: &[u8], what: &str| {
        let mut rest = MemoryLog::default();
        let (mut node, mut outputs) = restart(&s, bytes, &mut rest);
        assert!(matches!(abstention(&outputs), Some(Abstention::Log(_))), "{what}: {outputs:?}");
        // A validator would prevote nil now; with the rest of the script, it would precommit.
        outputs.extend(node.step(TimeMs(9_000), Input::Wake, &mut rest).unwrap());
        for input in s.inputs.iter().filter(|_| what.starts_with('a')) {
            outputs.extend(node.step(TimeMs(9_001), input.clone(), &mut rest).unwrap());
        }
        assert!(signed_by(&outputs, s.chain.address(0)).is_empty(), "{what}");
        assert!(rest.all().is_empty(), "{what}: the damaged log stays as it is");
    };
    must_abstain(LOST, "a lost log");
    for cut in (0..bytes.len()).filter(|cut| !ends.contains(cut)) {
        must_abstain(&bytes[..cut], &format!("cut at {cut}"));
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        must_abstain(&flipped, &format!("byte {at} flipped"));
    }
    // Frames that are whole by themselves, but left out, repeated or exchanged.
    for pair in ends.windows(3) {
        let [a, b, c] = [pair[0], pair[1], pair[2]];
        must_abstain(&[&bytes[..a], &bytes[b..]].concat(), "a frame left out");
        must_abstain(&[&bytes[..b], &bytes[a..]].concat(), "a frame repeated");
        must_abstain(&[&bytes[..a], &bytes[b..c], &bytes[a..b], &bytes[c..]].concat(), "frames exchanged");
    }
}

#[test]
fn nothing_is_signed_that_the_log_could_not_hold() {
    let s = script();
    let mut whole = MemoryLog::default();
    play(&s, &mut whole).unwrap();
    let mut faults = 0;
    for fails_after in 0..40 {
        let mut log = MemoryLog { fails_after: Some(fails_after), ..Default::default() };
        let mut node = s.chain.consensus(0);
        let turns = s.chain.turns(1);
        let mut fault = node.start_height(TimeMs(0), Height(1), turns, None, b"", &mut log).err();
        for input in &s.inputs {
            if fault.is_some() {
                break;
            }
            match node.step(TimeMs(10), input.clone(), &mut log) {
                Ok(outputs) => {
                    let said = signed_by(&outputs, s.chain.address(0));
                    assert!(said.len() <= log.syncs, "every vote that was said had its intent synced");
                }
                Err(e) => fault = Some(e),
            }
        }
        if let Some(fault) = fault {
            faults += 1;
            assert!(matches!(fault, Fault::Log(_)));
            assert_eq!(node.step(TimeMs(99), Input::Wake, &mut log), Err(Fault::Stopped));
        }
    }
    assert!((5..40).contains(&faults), "{faults}");
}

#[test]
fn an_own_signature_that_it_does_not_remember_silences_it() {
    let s = script();
    let mut log = MemoryLog::default();
    let (mut node, _) = restart(&s, b"", &mut log);
    let old = s.chain.vote(0, VoteKind::Prevote, 1, 0, Some(BlockId(Hash([9; 32]))));
    let heard = Input::Message(ConsensusMessage::Vote(old));
    let mut outputs = node.step(TimeMs(5), heard, &mut log).unwrap();
    assert_eq!(abstention(&outputs), Some(Abstention::UnknownSignature));
    for input in &s.inputs {
        outputs.extend(node.step(TimeMs(60), input.clone(), &mut log).unwrap());
    }
    assert!(signed_by(&outputs, s.chain.address(0)).is_empty());
    let held = log.all();
    let (_, outputs) = restart(&s, &held, &mut log);
    assert_eq!(abstention(&outputs), Some(Abstention::Before), "a restart does not make it forget");
}

#[test]
fn its_own_votes_coming_back_do_not_silence_it() {
    let s = script();
    let mut log = MemoryLog::default();
    let votes = signed_by(&play(&s, &mut log).unwrap(), s.chain.address(0));
    let held = log.all();
    let (mut node, _) = restart(&s, &held, &mut log);
    for vote in votes {
        let outputs = node.step(TimeMs(70), Input::Message(ConsensusMessage::Vote(vote)), &mut log).unwrap();
        assert_eq!(abstention(&outputs), None);
    }
}

#[test]
fn a_log_of_another_height_is_told_from_this_ones() {
    let s = script();
    let mut log = MemoryLog::default();
    play(&s, &mut log).unwrap();
    let held = log.all();
    // Of the height below: the height begins anew, behind it.
    let mut node = s.chain.consensus(0);
    node.committed(Height(1));
    let outputs = node.start_height(TimeMs(50), Height(2), s.chain.turns(2), None, &held, &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
    let both = log.all();
    assert!(both.len() > held.len());
    let mut node = s.chain.consensus(0);
    node.committed(Height(1));
    let outputs = node.start_height(TimeMs(50), Height(2), s.chain.turns(2), None, &both, &mut log).unwrap();
    assert_eq!(abstention(&outputs), None);
    // Of a height above: the store is older than the log.
    let (_, outputs) = restart(&s, &both, &mut MemoryLog::default());
    assert!(matches!(abstention(&outputs), Some(Abstention::Log(_))));
}

#[test]
fn heights_begin_in_order() {
    let s = script();
    let mut log = MemoryLog::default();
    let (mut node, _) = restart(&s, b"", &mut log);
    let again = node.start_height(TimeMs(60), Height(1), s.chain.turns(1), None, b"", &mut log);
    assert_eq!(again, Err(Fault::Order { wanted: Height(1), last: Height(1) }));
}
