//! The question that a validator asks after a start, before it signs anything: what is the newest that you have
//! seen of me? A disk that is an old copy cannot be told from a good one by itself; others may remember.
//!
//! It is best effort: who restarted too has forgotten. An answer is a statement with our own signature, so
//! nobody can invent one to silence us; the most that a liar can do is to answer that it has seen nothing.

use std::collections::BTreeMap;

use assent_consensus::{ConsensusMessage, Floor};
use assent_proto::mutation::{Mutation, planted};
use assent_proto::{Address, GenesisHash, PublicKey, TimeMs};

use crate::message::PeerMessage;
use crate::replica::{Output, Replica};
use crate::storage::Storage;
use crate::voting::Voting;

/// Who does not answer is asked again after so long, ms.
const ASK_AGAIN_MS: u64 = 500;
/// Longer than the list of nodes can be.
const PEERS_MAX: usize = 512;

/// The question, while it is open, and what came of it.
#[derive(Default)]
pub(crate) struct Inquiry {
    asked: BTreeMap<Address, TimeMs>,
    /// Who answered.
    answered: BTreeMap<Address, Option<Floor>>,
    /// Enough have answered.
    closed: bool,
    /// The newest statement of ours that anyone showed.
    floor: Option<Floor>,
}

impl Inquiry {
    /// The newest statement of ours that others have shown.
    pub(crate) fn floor(&self) -> Option<Floor> {
        self.floor
    }

    /// Whether a validator may sign: those who have answered and it itself are a quorum, or were once.
    fn suffices(&self, me: &Address, voting: &Voting) -> bool {
        self.closed || voting.is_quorum(|a| a == me || self.answered.contains_key(a))
    }

    /// A connection went: the question may be lost.
    pub(crate) fn down(&mut self, peer: &Address) {
        self.asked.remove(peer);
    }
}

impl<S: Storage> Replica<S> {
    /// Whether the next height may begin here: not as a voter before enough have been asked.
    pub(crate) fn may_begin(&self) -> bool {
        self.me().is_none_or(|me| {
            let voting = &self.head.next;
            !voting.holds(&me) || self.inquiry.suffices(&me, voting)
        })
    }

    /// A height begins: from then on our own memory is as good as that of the others.
    pub(crate) fn close_inquiry(&mut self) {
        if self.me().is_some_and(|me| self.head.next.holds(&me)) {
            self.inquiry.closed = true;
            self.inquiry.asked.clear();
            self.inquiry.answered.clear();
        }
    }

    /// Asks those who vote and have not answered.
    pub(crate) fn ask_for_votes(&mut self) {
        for to in self.silent().filter(|(_, due)| *due <= self.now).map(|(a, _)| a).collect::<Vec<_>>() {
            self.inquiry.asked.insert(to, self.now);
            self.out.push(Output::Send { to, message: PeerMessage::AskVotes });
        }
    }

    /// When somebody has to be asked again.
    pub(crate) fn next_question(&self) -> Option<TimeMs> {
        self.silent().map(|(_, due)| due).min()
    }

    /// Validators that are connected and have not answered, and when they are asked next.
    fn silent(&self) -> impl Iterator<Item = (Address, TimeMs)> {
        let open = !self.may_begin();
        let voters = self.head.next.addresses().iter().filter(move |_| open);
        let silent = voters.filter(|a| self.catch_up.is_up(a) && !self.inquiry.answered.contains_key(*a));
        silent.map(|a| (*a, self.inquiry.asked.get(a).map_or(TimeMs(0), |at| at.plus(ASK_AGAIN_MS))))
    }

    /// Answers a validator that has started.
    pub(crate) fn votes_asked(&mut self, from: Address) {
        if self.catch_up.may_serve(&from, self.now) {
            let newest = self.consensus.newest_message(&from).cloned().map(Box::new);
            self.out.push(Output::Send { to: from, message: PeerMessage::Votes(newest) });
        }
    }

    /// An answer came; only the first of each counts.
    pub(crate) fn votes_heard(&mut self, from: Address, newest: Option<Box<ConsensusMessage>>) {
        let Some(key) = self.key.filter(|_| !self.inquiry.closed) else { return };
        let asked = self.inquiry.asked.contains_key(&from) && self.inquiry.answered.len() < PEERS_MAX;
        if !asked || self.inquiry.answered.contains_key(&from) {
            return;
        }
        if newest.as_ref().is_some_and(|m| !said_by(&key, &self.chain.genesis, m)) {
            return self.blame(from, "it showed a vote of ours that we did not sign");
        }
        let floor = newest.map(|m| Floor::of(&m)).filter(|_| !planted(Mutation::IgnoreFloor));
        self.inquiry.floor = self.inquiry.floor.max(floor);
        self.inquiry.answered.insert(from, floor);
    }
}

/// Whether a key signed a statement.
fn said_by(key: &PublicKey, genesis: &GenesisHash, message: &ConsensusMessage) -> bool {
    let me = assent_proto::validators::address(key);
    match message {
        ConsensusMessage::Vote(v) => v.validator == me && key.verify(&v.message(genesis).0, &v.signature),
        ConsensusMessage::Proposal(p) => {
            p.proposer == me
                && p.header.genesis == *genesis
                && key.verify(&p.message(genesis).0, &p.signature)
        }
        ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => false,
    }
}
