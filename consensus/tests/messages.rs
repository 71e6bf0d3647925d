//! What comes from outside is hostile: one encoding for each message, bounds, and a reason for each refusal.
#![allow(clippy::unwrap_used)]

mod common;

use assent_consensus::message::{MESSAGE_BYTES_MAX, PolkaVote, ROUND_MAX, RoundVote};
use assent_consensus::*;
use assent_proto::field::List;
use assent_proto::validators::VoteKind;
use assent_proto::*;
use common::{Chain, MemoryLog, chain};
use proptest::prelude::*;

fn samples(c: &Chain) -> Vec<ConsensusMessage> {
    let header = c.header(1, BlockId(c.genesis.0), c.address(0), 0);
    let id = header.id();
    let prevote = |i: usize| c.vote(i, VoteKind::Prevote, 1, 2, Some(id));
    let polka = |i: usize| PolkaVote { validator: c.address(i), signature: prevote(i).signature };
    let precommit = |i: usize| {
        let v = c.vote(i, VoteKind::Precommit, 1, 2, None);
        RoundVote { kind: v.kind, block: v.block, validator: v.validator, signature: v.signature }
    };
    let again = SignedProposal { valid_round: Some(0), ..c.proposal(1, 3, header.clone()) };
    vec![
        ConsensusMessage::Proposal(c.proposal(0, 0, header)),
        ConsensusMessage::Proposal(again),
        ConsensusMessage::Vote(prevote(0)),
        ConsensusMessage::Vote(c.vote(1, VoteKind::Precommit, 7, 0, None)),
        ConsensusMessage::Polka(Polka {
            height: Height(1),
            round: 2,
            block: id,
            prevotes: List::try_from((0..3).map(polka).collect::<Vec<_>>()).unwrap(),
        }),
        ConsensusMessage::SkipRound(SkipRound {
            height: Height(1),
            round: 2,
            precommits: true,
            votes: List::try_from((0..3).map(precommit).collect::<Vec<_>>()).unwrap(),
        }),
    ]
}

#[test]
fn one_message_has_one_encoding() {
    for message in samples(&chain()) {
        let bytes = message.encode();
        assert_eq!(ConsensusMessage::decode(&bytes).unwrap(), message);
        for cut in 0..bytes.len() {
            assert!(ConsensusMessage::decode(&bytes[..cut]).is_err(), "cut at {cut}: {message:?}");
        }
        for extra in 0..=255 {
            assert!(ConsensusMessage::decode(&[&bytes[..], &[extra]].concat()).is_err());
        }
        assert!(ConsensusMessage::decode(&[&bytes[..], &bytes[..]].concat()).is_err(), "said twice");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.to_vec();
                other[at] ^= 1 << bit;
                if let Ok(m) = ConsensusMessage::decode(&other) {
                    assert_ne!(m, message);
                    assert_eq!(m.encode(), other);
                }
            }
        }
    }
}

#[test]
fn messages_are_bounded() {
    let c = chain();
    let mut vote = c.vote(0, VoteKind::Prevote, 1, ROUND_MAX, None);
    assert!(ConsensusMessage::decode(&ConsensusMessage::Vote(vote.clone()).encode()).is_ok());
    vote.round = ROUND_MAX + 1;
    assert!(ConsensusMessage::decode(&ConsensusMessage::Vote(vote).encode()).is_err());
    assert!(ConsensusMessage::decode(&vec![10; MESSAGE_BYTES_MAX + 1]).is_err());
    // The largest message there is fits.
    let v = c.vote(0, VoteKind::Precommit, u64::MAX, ROUND_MAX, Some(BlockId(Hash([7; 32]))));
    let entry = RoundVote { kind: v.kind, block: v.block, validator: v.validator, signature: v.signature };
    let votes = List::try_from(vec![entry; 128]).unwrap();
    let largest = SkipRound { height: Height(u64::MAX), round: ROUND_MAX, precommits: true, votes };
    let bytes = ConsensusMessage::SkipRound(largest).encode();
    assert!(ConsensusMessage::decode(&bytes).is_ok(), "{} bytes", bytes.len());
}

proptest! {
    #[test]
    fn garbage_is_refused_or_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(m) = ConsensusMessage::decode(&bytes) {
            prop_assert_eq!(&m.encode()[..], &bytes[..]);
        }
    }
}

struct Seat {
    chain: Chain,
    node: Consensus,
    log: MemoryLog,
}

fn seat() -> Seat {
    let chain = chain();
    let (mut node, mut log) = (chain.consensus(0), MemoryLog::default());
    node.start_height(TimeMs(0), Height(1), chain.turns(1), None, b"", &mut log).unwrap();
    Seat { chain, node, log }
}

impl Seat {
    fn hear(&mut self, message: ConsensusMessage) -> Vec<Refusal> {
        self.take(Input::Message(message))
    }

    fn take(&mut self, input: Input) -> Vec<Refusal> {
        let outputs = self.node.step(TimeMs(1), input, &mut self.log).unwrap();
        let reason = |o: &Output| match o {
            Output::Refused { reason } => Some(*reason),
            _ => None,
        };
        outputs.iter().filter_map(reason).collect()
    }
}

#[test]
fn a_stranger_and_a_forger_are_refused_now_and_ahead() {
    let mut seat = seat();
    let outsider = SecretKey::from_bytes(&[99; 32]);
    for height in [1, 3] {
        let mut vote = seat.chain.vote(1, VoteKind::Prevote, height, 0, None);
        vote.signature.0[5] ^= 1;
        assert_eq!(seat.hear(ConsensusMessage::Vote(vote.clone())), [Refusal::BadSignature]);
        vote.validator = Address([8; 20]);
        vote.signature = outsider.sign(vote.message(&seat.chain.genesis).as_bytes());
        // Ahead, it may be a validator of a set that we do not know yet.
        let stranger = if height == 1 { Refusal::Stranger } else { Refusal::NotKnownYet };
        assert_eq!(seat.hear(ConsensusMessage::Vote(vote)), [stranger]);

        // A proposal out of turn, one for another chain, one with a bad signature.
        let p = seat.chain.proposer(height, 0);
        let header = seat.chain.header(height, BlockId(Hash::ZERO), seat.chain.address(p), 0);
        // Whose turn it is ahead is judged when the height begins.
        if height == 1 {
            let wrong = seat.chain.proposal((p + 1) % 4, 0, header.clone());
            assert_eq!(seat.hear(ConsensusMessage::Proposal(wrong)), [Refusal::Stranger]);
        }
        let foreign = Header { genesis: GenesisHash(Hash([1; 32])), ..header.clone() };
        let foreign = seat.chain.proposal(p, 0, foreign);
        assert_eq!(seat.hear(ConsensusMessage::Proposal(foreign)), [Refusal::OtherChain]);
        let mut forged = seat.chain.proposal(p, 0, header);
        forged.header.time = TimeMs(1);
        assert_eq!(seat.hear(ConsensusMessage::Proposal(forged)), [Refusal::BadSignature]);
        assert!(!seat.node.has_messages_for(Height(3)));
    }
    let good = seat.chain.vote(1, VoteKind::Prevote, 3, 0, None);
    assert_eq!(seat.hear(ConsensusMessage::Vote(good)), []);
    assert!(seat.node.has_messages_for(Height(3)));
}

#[test]
fn what_is_far_ahead_is_dropped() {
    let mut seat = seat();
    for (height, round) in [(1, 11), (1, ROUND_MAX), (2, 10), (6, 0), (u64::MAX, 0)] {
        let vote = seat.chain.vote(1, VoteKind::Prevote, height, round, None);
        assert_eq!(seat.hear(ConsensusMessage::Vote(vote)), [Refusal::TooFarAhead], "{height}/{round}");
    }
    for (height, round) in [(1, 10), (2, 9), (5, 0)] {
        let vote = seat.chain.vote(1, VoteKind::Prevote, height, round, None);
        assert_eq!(seat.hear(ConsensusMessage::Vote(vote)), [], "{height}/{round}");
    }
}

#[test]
fn certificates_that_do_not_hold_are_refused() {
    let mut seat = seat();
    let all = samples(&seat.chain);
    for message in &all[4..] {
        let mut forged = message.clone();
        match &mut forged {
            ConsensusMessage::Polka(p) => {
                let mut votes = p.prevotes.clone().into_vec();
                votes[2] = votes[1].clone();
                p.prevotes = List::try_from(votes).unwrap();
            }
            ConsensusMessage::SkipRound(s) => {
                let mut votes = s.votes.clone().into_vec();
                votes[0].signature.0[0] ^= 1;
                s.votes = List::try_from(votes).unwrap();
            }
            _ => unreachable!(),
        }
        assert_eq!(seat.hear(forged), [Refusal::BadCertificate]);
        let mut few = message.clone();
        match &mut few {
            ConsensusMessage::Polka(p) => {
                p.prevotes = List::try_from(p.prevotes[..2].to_vec()).unwrap();
            }
            ConsensusMessage::SkipRound(s) => s.votes = List::try_from(s.votes[..2].to_vec()).unwrap(),
            _ => unreachable!(),
        }
        assert_eq!(seat.hear(few), [Refusal::BadCertificate]);
        assert_eq!(seat.hear(message.clone()), []);
    }
    assert_eq!(seat.node.round(), 2, "precommits of a quorum lead into their round");
    seat.take(Input::Wake);
    seat.node.step(TimeMs(60_000), Input::Wake, &mut seat.log).unwrap();
    assert!(seat.node.round() > 2, "and, once time is up, out of it");
}

#[test]
fn a_certified_block_ends_the_height_and_a_false_one_does_not() {
    let mut seat = seat();
    let c = &seat.chain;
    let header = c.header(1, BlockId(c.genesis.0), c.address(1), 0);
    let id = header.id();
    let index = |i: usize| c.set.by_address(&c.address(i)).unwrap().0;
    let sign = |i: usize| assent_proto::block::CommitSignature {
        validator: index(i),
        signature: c.vote(i, VoteKind::Precommit, 1, 0, Some(id)).signature,
    };
    let mut signatures: Vec<_> = [1, 2, 3].into_iter().map(sign).collect();
    signatures.sort_by_key(|s| s.validator);
    let certificate = |signatures| CommitCertificate {
        height: Height(1),
        round: 0,
        block: id,
        signatures: List::try_from(signatures).unwrap(),
    };
    let few = CertifiedHeader { header: header.clone(), certificate: certificate(signatures[..2].to_vec()) };
    let good = CertifiedHeader { header, certificate: certificate(signatures) };
    let mut other = good.clone();
    other.header.time = TimeMs(5);
    assert_eq!(seat.take(Input::Certified(few)), [Refusal::BadCertificate]);
    assert_eq!(seat.take(Input::Certified(other)), [Refusal::BadCertificate]);
    let decided = seat.node.step(TimeMs(2), Input::Certified(good.clone()), &mut seat.log).unwrap();
    assert_eq!(decided, [Output::Decided { certified: good.clone() }]);
    assert_eq!(seat.node.next_wake(), None);
    assert_eq!(seat.take(Input::Certified(good)), [Refusal::NotAsked]);
}

#[test]
fn answers_that_nobody_asked_for_are_refused() {
    let mut seat = seat();
    let header = seat.chain.header(1, BlockId(seat.chain.genesis.0), seat.chain.address(0), 0);
    let built = Input::Built { height: Height(1), round: 0, header: header.clone() };
    assert_eq!(seat.take(built), [Refusal::NotAsked], "it is not our turn");
    let received = Input::Received {
        height: Height(2),
        round: 0,
        proposer: seat.chain.address(1),
        valid_round: None,
        header,
        valid: true,
    };
    assert_eq!(seat.take(received), [Refusal::NotAsked]);
}
