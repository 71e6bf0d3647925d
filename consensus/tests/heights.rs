//! What goes from one height to the next: who votes, whose turn it is, what came early, what comes late, and who
//! contradicted himself.
#![allow(clippy::unwrap_used)]

mod common;

use assent_consensus::*;
use assent_proto::block::CommitSignature;
use assent_proto::field::List;
use assent_proto::validators::VoteKind::{self, Precommit, Prevote};
use assent_proto::*;
use common::{Chain, MemoryLog, chain};

/// Node 0 before or at a height, and its log.
struct Seat {
    chain: Chain,
    node: Consensus,
    log: MemoryLog,
    now: u64,
}

impl Seat {
    fn of(chain: Chain) -> Seat {
        let node = chain.consensus(0);
        Seat { chain, node, log: MemoryLog::default(), now: 0 }
    }

    fn at(height: u64) -> Seat {
        let mut seat = Seat::of(chain());
        let turns = seat.chain.turns(height);
        seat.begin(height, turns);
        seat
    }

    fn begin(&mut self, height: u64, turns: Turns) -> Vec<Output> {
        self.log = MemoryLog { mark: self.log.mark, ..Default::default() };
        let now = TimeMs(self.now);
        self.node.start_height(now, Height(height), turns, None, b"", &mut self.log).unwrap()
    }

    fn take(&mut self, input: Input) -> Vec<Output> {
        self.now += 1;
        self.node.step(TimeMs(self.now), input, &mut self.log).unwrap()
    }

    fn hear(&mut self, message: impl Into<Said>) -> Vec<Output> {
        let Said(message) = message.into();
        self.take(Input::Message(message))
    }

    fn header(&self, height: u64, salt: u64) -> Header {
        let builder = self.chain.address(self.chain.proposer(height, 0));
        self.chain.header(height, BlockId(self.chain.genesis.0), builder, salt)
    }

    /// Everyone but node 0 precommits a block.
    fn decide(&mut self, header: &Header) -> Vec<Output> {
        let height = header.height.0;
        let p = self.chain.proposer(height, 0);
        let mut outputs = self.hear(self.chain.proposal(p, 0, header.clone()));
        outputs.extend(self.take(Input::Received {
            height: header.height,
            round: 0,
            proposer: self.chain.address(p),
            valid_round: None,
            header: header.clone(),
            valid: true,
        }));
        for kind in [Prevote, Precommit] {
            for i in [1, 2] {
                outputs.extend(self.hear(self.chain.vote(i, kind, height, 0, Some(header.id()))));
            }
        }
        outputs
    }

    fn certified(&self, header: &Header, signers: &[usize]) -> CertifiedHeader {
        let block = header.id();
        let sign = |i: &usize| CommitSignature {
            validator: self.chain.set.by_address(&self.chain.address(*i)).unwrap().0,
            signature: self.chain.vote(*i, Precommit, header.height.0, 0, Some(block)).signature,
        };
        let mut signatures: Vec<_> = signers.iter().map(sign).collect();
        signatures.sort_by_key(|s| s.validator);
        let signatures = List::try_from(signatures).unwrap();
        let certificate = CommitCertificate { height: header.height, round: 0, block, signatures };
        CertifiedHeader { header: header.clone(), certificate }
    }
}

struct Said(ConsensusMessage);

impl From<SignedVote> for Said {
    fn from(vote: SignedVote) -> Said {
        Said(ConsensusMessage::Vote(vote))
    }
}

impl From<SignedProposal> for Said {
    fn from(proposal: SignedProposal) -> Said {
        Said(ConsensusMessage::Proposal(proposal))
    }
}

fn evidence(outputs: &[Output]) -> Vec<Evidence> {
    let evidence = |o: &Output| match o {
        Output::Equivocation(e) => Some(e.clone()),
        _ => None,
    };
    outputs.iter().filter_map(evidence).collect()
}

fn refusals(outputs: &[Output]) -> Vec<Refusal> {
    let refused = |o: &Output| match o {
        Output::Refused { reason } => Some(*reason),
        _ => None,
    };
    outputs.iter().filter_map(refused).collect()
}

fn votes(outputs: &[Output]) -> usize {
    outputs.iter().filter(|o| matches!(o, Output::Broadcast(ConsensusMessage::Vote(_)))).count()
}

fn block(n: u8) -> Option<BlockId> {
    Some(BlockId(Hash([n; 32])))
}

fn without(set: &ValidatorSet, who: &Address) -> ValidatorSet {
    let rest = set.validators.iter().filter(|v| v.address() != *who).cloned();
    ValidatorSet { validators: List::try_from(rest.collect::<Vec<_>>()).unwrap() }
}

fn turns_of(set: &ValidatorSet, height: u64) -> Turns {
    Turns { set: set.clone(), order: set.turns(Height(height), |_| false) }
}

// ---- who votes

#[test]
fn a_validator_that_is_removed_observes_and_one_that_is_added_votes() {
    let mut seat = Seat::of(chain());
    let me = seat.chain.address(0);
    let others = without(&seat.chain.set, &me);
    for (height, member) in [(1, true), (2, false), (3, false), (4, true)] {
        let set = if member { seat.chain.set.clone() } else { others.clone() };
        seat.node.committed(Height(height - 1));
        let turns = turns_of(&set, height);
        let p = (1..4).find(|i| {
            let first = &set.validators[turns.order[0] as usize];
            first.address() == seat.chain.address(*i)
        });
        seat.begin(height, turns);
        assert_eq!(seat.node.is_voting(), member);
        // Its own turn or another's: some time later it has voted, or not.
        let mut outputs = Vec::new();
        if let Some(p) = p {
            let header = seat.chain.header(height, BlockId(Hash::ZERO), seat.chain.address(p), 0);
            outputs.extend(seat.hear(seat.chain.proposal(p, 0, header)));
        }
        seat.now += 5_000;
        outputs.extend(seat.take(Input::Wake));
        assert_eq!(votes(&outputs) > 0, member, "height {height}");
        assert_eq!(seat.log.syncs > 0, member, "an observer writes nothing");
    }
}

#[test]
fn whoever_was_removed_has_no_vote_and_whoever_was_added_has_one() {
    let mut seat = Seat::of(chain());
    let gone = seat.chain.address(3);
    let set = without(&seat.chain.set, &gone);
    let turns = turns_of(&set, 1);
    seat.begin(1, turns);
    assert_eq!(refusals(&seat.hear(seat.chain.vote(3, Prevote, 1, 0, None))), [Refusal::Stranger]);
    assert_eq!(refusals(&seat.hear(seat.chain.vote(2, Prevote, 1, 0, None))), []);
    // Of three, three are needed; node 0 alone does not make its quorum with one other.
    let header = seat.chain.header(1, BlockId(Hash::ZERO), seat.chain.address(1), 0);
    let outputs = seat.take(Input::Certified(seat.certified(&header, &[1, 2, 3])));
    assert_eq!(refusals(&outputs), [Refusal::BadCertificate]);
    // The next set has it again: known before its height begins, it is heard.
    let all = seat.chain.set.clone();
    assert_eq!(refusals(&seat.hear(seat.chain.vote(3, Prevote, 2, 0, None))), []);
    seat.node.know(&all);
    assert!(seat.node.has_messages_for(Height(2)));
}

#[test]
fn turns_are_as_the_order_says() {
    let mut seat = Seat::of(chain());
    let index = |seat: &Seat, i: usize| seat.chain.set.by_address(&seat.chain.address(i)).unwrap().0;
    // Node 0 first, then 2, 1, 3, whatever the height.
    let order: Vec<u32> = [0, 2, 1, 3].map(|i| index(&seat, i)).to_vec();
    let outputs = seat.begin(1, Turns { set: seat.chain.set.clone(), order });
    assert!(matches!(outputs[..], [Output::GetValue { round: 0, .. }]), "{outputs:?}");
    for (round, turn) in [(1, 2), (2, 1), (3, 3), (5, 2)] {
        for i in 1..4 {
            let header = seat.chain.header(1, BlockId(Hash::ZERO), seat.chain.address(i), 0);
            let outputs = seat.hear(seat.chain.proposal(i, round, header));
            let expected: &[Refusal] = if i == turn { &[] } else { &[Refusal::Stranger] };
            assert_eq!(refusals(&outputs), expected, "round {round}, node {i}");
        }
    }
}

// ---- what comes early

#[test]
fn turns_are_judged_when_the_height_begins() {
    let mut seat = Seat::at(1);
    let header = seat.header(2, 0);
    let p = seat.chain.proposer(2, 0);
    for i in [1, 2, 3] {
        assert_eq!(seat.hear(seat.chain.proposal(i, 0, header.clone())), []);
    }
    seat.node.committed(Height(1));
    let turns = seat.chain.turns(2);
    let outputs = seat.begin(2, turns);
    let strangers = [1, 2, 3].iter().filter(|i| **i != p).count();
    assert_eq!(refusals(&outputs), vec![Refusal::Stranger; strangers]);
    assert_eq!(outputs.len(), strangers + usize::from(p == 0), "{outputs:?}");
}

#[test]
fn before_any_height_the_set_that_was_told_of_is_known() {
    let mut seat = Seat::of(chain());
    assert_eq!(refusals(&seat.hear(seat.chain.vote(1, Prevote, 1, 0, None))), []);
    assert!(seat.node.has_messages_for(Height(1)));
    let mut stranger = Consensus::new(seat.chain.genesis, None, Timeouts::default());
    let vote = Input::Message(ConsensusMessage::Vote(seat.chain.vote(1, Prevote, 1, 0, None)));
    let outputs = stranger.step(TimeMs(1), vote, &mut MemoryLog::default()).unwrap();
    assert_eq!(refusals(&outputs), [Refusal::NotKnownYet]);
}

/// One validator says all that it can of heights to come, and says it again and again with other contents.
#[test]
fn a_flooder_of_heights_to_come_has_one_place_for_each_thing() {
    let mut seat = Seat::at(1);
    let mut told = Vec::new();
    for height in 2..9 {
        for round in 0..14 {
            for kind in [Prevote, Precommit] {
                for content in 0..5 {
                    told.extend(seat.hear(seat.chain.vote(3, kind, height, round, block(content))));
                }
            }
        }
    }
    let far = refusals(&told);
    assert!(far.iter().all(|r| *r == Refusal::TooFarAhead));
    // Heights 2 to 5 and rounds 0 to 9 are kept: one of each kind, and told of once as a contradiction.
    assert_eq!(evidence(&told).len(), 4 * 10 * 2);
    assert_eq!(far.len(), 7 * 14 * 2 * 5 - 4 * 10 * 2 * 5);
    // Nobody is crowded out.
    assert_eq!(seat.hear(seat.chain.vote(1, Prevote, 2, 0, None)), []);
    // What was kept comes to the core when the height begins, and is not told of a second time.
    seat.node.committed(Height(4));
    let turns = seat.chain.turns(5);
    let outputs = seat.begin(5, turns);
    assert_eq!(evidence(&outputs), []);
    let again = seat.hear(seat.chain.vote(3, Prevote, 5, 0, block(9)));
    assert_eq!(evidence(&again), []);
}

// ---- contradictions

#[test]
fn a_contradiction_is_told_at_once_and_once() {
    for kind in [Prevote, Precommit] {
        let mut seat = Seat::at(1);
        let (a, b) = (seat.chain.vote(3, kind, 1, 0, block(1)), seat.chain.vote(3, kind, 1, 0, None));
        assert_eq!(evidence(&seat.hear(a.clone())), []);
        assert_eq!(evidence(&seat.hear(b.clone())), [Evidence::Votes(a.clone(), b.clone())]);
        for content in 0..9 {
            assert_eq!(evidence(&seat.hear(seat.chain.vote(3, kind, 1, 0, block(content)))), []);
        }
        for m in [a, b] {
            assert_eq!(evidence(&seat.hear(m)), []);
        }
        // Another round is another contradiction.
        seat.hear(seat.chain.vote(2, kind, 1, 1, None));
        assert_eq!(evidence(&seat.hear(seat.chain.vote(2, kind, 1, 1, block(1)))).len(), 1);
    }
}

#[test]
fn two_proposals_of_one_round_are_told_of_once() {
    let mut seat = Seat::at(1);
    let p = seat.chain.proposer(1, 0);
    assert_ne!(p, 0);
    let proposals: Vec<_> = (0..4).map(|n| seat.chain.proposal(p, 0, seat.header(1, n))).collect();
    assert_eq!(evidence(&seat.hear(proposals[0].clone())), []);
    assert_eq!(evidence(&seat.hear(proposals[0].clone())), []);
    let pair = Box::new((proposals[0].clone(), proposals[1].clone()));
    assert_eq!(evidence(&seat.hear(proposals[1].clone())), [Evidence::Proposals(pair)]);
    for p in proposals {
        assert_eq!(evidence(&seat.hear(p)), []);
    }
}

#[test]
fn a_vote_inside_a_certificate_contradicts_as_well() {
    let mut seat = Seat::at(1);
    seat.hear(seat.chain.vote(3, Prevote, 1, 0, None));
    let id = block(4).unwrap();
    let prevote = |i| message::PolkaVote {
        validator: seat.chain.address(i),
        signature: seat.chain.vote(i, Prevote, 1, 0, Some(id)).signature,
    };
    let prevotes = List::try_from([1, 2, 3].map(prevote).to_vec()).unwrap();
    let polka = Polka { height: Height(1), round: 0, block: id, prevotes };
    let told = evidence(&seat.take(Input::Message(ConsensusMessage::Polka(polka))));
    assert!(matches!(&told[..], [Evidence::Votes(a, b)] if a.block.is_none() && b.block == Some(id)));
}

/// The height ends by catch-up right behind the second statement: the evidence is out already; and one whose
/// second statement is in the certificate itself is found there.
#[test]
fn catch_up_does_not_swallow_a_contradiction() {
    let mut seat = Seat::at(1);
    let header = seat.header(1, 0);
    seat.hear(seat.chain.vote(1, Prevote, 1, 0, None));
    assert_eq!(evidence(&seat.hear(seat.chain.vote(1, Prevote, 1, 0, block(1)))).len(), 1);
    seat.hear(seat.chain.vote(3, Precommit, 1, 0, None));
    let certified = seat.certified(&header, &[1, 2, 3]);
    let outputs = seat.take(Input::Certified(certified.clone()));
    assert_eq!(outputs.last(), Some(&Output::Decided { certified }));
    let told = evidence(&outputs);
    assert!(matches!(&told[..], [Evidence::Votes(a, _)] if a.validator == seat.chain.address(3)), "{told:?}");
    // And after the decision, the next height at work.
    let late = |seat: &mut Seat, content| evidence(&seat.hear(seat.chain.vote(2, Precommit, 1, 0, content)));
    assert_eq!(late(&mut seat, block(8)).len(), 1);
    let turns = seat.chain.turns(2);
    seat.begin(2, turns);
    assert_eq!(late(&mut seat, block(9)), [], "told already");
    assert_eq!(evidence(&seat.hear(seat.chain.vote(3, Precommit, 1, 0, block(5)))), [], "told already");
}

// ---- what comes late

#[test]
fn late_precommits_extend_the_certificate_of_the_newest_decision() {
    let mut seat = Seat::at(1);
    assert_eq!(seat.node.certificate(), None);
    let header = seat.header(1, 0);
    let outputs = seat.decide(&header);
    let Some(Output::Decided { certified }) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(certified.certificate.signatures.len(), 3);
    assert_eq!(seat.node.certificate(), Some(&certified.certificate));

    let late = |kind: VoteKind, height, round, content| seat_vote(&chain(), kind, height, round, content);
    let id = header.id();
    for other in [
        late(Prevote, 1, 0, Some(id)),
        late(Precommit, 1, 1, Some(id)),
        late(Precommit, 1, 0, block(3)),
        late(Precommit, 1, 0, None),
    ] {
        assert_eq!(seat.hear(other), []);
        assert_eq!(seat.node.certificate().unwrap().signatures.len(), 3);
    }
    let mut forged = late(Precommit, 1, 0, Some(id));
    forged.signature.0[9] ^= 1;
    assert_eq!(refusals(&seat.hear(forged)), [Refusal::BadSignature]);

    // While the next height is at work too: its proposer may still look.
    let turns = seat.chain.turns(2);
    seat.begin(2, turns);
    assert_eq!(seat.hear(late(Precommit, 1, 0, Some(id))), []);
    let grown = seat.node.certificate().unwrap().clone();
    assert_eq!(grown.signatures.len(), 4);
    grown.verify(&seat.chain.genesis, &seat.chain.set, Height(1), &id).unwrap();
    assert_eq!(seat.hear(late(Precommit, 1, 0, Some(id))), [], "once");
    assert_eq!(seat.node.certificate(), Some(&grown));

    // Blocks that came without consensus leave none.
    seat.node.committed(Height(2));
    assert_eq!(seat.node.certificate(), None);
}

fn seat_vote(chain: &Chain, kind: VoteKind, height: u64, round: u32, block: Option<BlockId>) -> SignedVote {
    chain.vote(3, kind, height, round, block)
}

/// Who lost its disk may ask for it: it never said anything that anybody heard in time.
#[test]
fn what_comes_too_late_for_its_height_is_still_its_authors_newest_word() {
    let mut seat = Seat::at(1);
    seat.node.committed(Height(5));
    let newest =
        |seat: &Seat| seat.node.newest_statement(&seat.chain.address(3)).map(|f| (f.height, f.round));
    let late = |height, round| chain().vote(3, Prevote, height, round, None);
    let mut forged = late(2, 1);
    forged.signature.0[9] ^= 1;
    assert_eq!(refusals(&seat.hear(forged)), [Refusal::BadSignature]);
    assert_eq!(newest(&seat), None);
    assert_eq!(seat.hear(late(2, 1)), []);
    assert_eq!(newest(&seat), Some((Height(2), 1)));
    assert_eq!(seat.hear(late(2, 0)), [], "older");
    assert_eq!(seat.hear(late(1, 7)), [], "older");
    assert_eq!(newest(&seat), Some((Height(2), 1)));
}

#[test]
fn a_certificate_from_a_peer_gains_the_precommits_heard_before() {
    let mut seat = Seat::at(1);
    let header = seat.header(1, 0);
    seat.hear(seat.chain.vote(3, Precommit, 1, 0, Some(header.id())));
    let certified = seat.certified(&header, &[0, 1, 2]);
    let outputs = seat.take(Input::Certified(certified.clone()));
    assert_eq!(outputs, [Output::Decided { certified }]);
    let certificate = seat.node.certificate().unwrap();
    assert_eq!(certificate.signatures.len(), 4);
    certificate.verify(&seat.chain.genesis, &seat.chain.set, Height(1), &header.id()).unwrap();
}
