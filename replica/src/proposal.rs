//! Proposals of the height in progress: our own, those of others, their bodies, and our verdict on them.
//!
//! A verdict of invalid is given for deterministic faults alone. A proposal whose body is missing, or whose
//! time is too far from our clock, gets no answer for now; one that a quorum may be locked on is judged without
//! the clock, since refusing it could stop the chain.

use assent_consensus as consensus;
use assent_consensus::SignedProposal;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::{Address, BlockId, CommitCertificate, Header, Height, TimeMs};

use crate::execute::{self, Chain, Executed};
use crate::message::{Part, PeerMessage};
use crate::parts::Taken;
use crate::replica::{Fault, Output, Replica};
use crate::storage::Storage;
use crate::voting::Voting;

/// A body that does not come by itself is asked for after so long, and again, ms.
const BODY_PATIENCE_MS: u64 = 200;
/// Different proposals that are followed in one round: two show that the proposer is a liar.
const SEEN_PER_ROUND_MAX: usize = 2;
/// Proposals that are followed at one height.
const SEEN_MAX: usize = 32;
/// Rounds above our own of which proposals and parts are taken.
const ROUNDS_AHEAD_MAX: u32 = 4;
/// Rounds of the height after the one in progress of which proposals are kept.
const EARLY_ROUNDS: u32 = 2;
/// Executed blocks kept in memory at one height.
const CANDIDATES_MAX: usize = 8;

/// A proposal of the height in progress whose signature holds.
pub(crate) struct Seen {
    header: Header,
    round: u32,
    proposer: Address,
    valid_round: Option<u32>,
    answered: bool,
    /// When the body is asked for next, and how often it was.
    ask_at: TimeMs,
    asked: usize,
}

impl<S: Storage> Replica<S> {
    /// Answers consensus, which wants a block of ours, at once.
    pub(crate) fn propose(&mut self, height: Height, round: u32) -> Result<(), Fault> {
        let Some(me) = self.me().filter(|_| height == self.head.height.next()) else { return Ok(()) };
        let id = match self.built_before(me, height, round) {
            Some(id) => id,
            None => self.build(me, height, round)?,
        };
        let body = self.bodies.get(&id).expect("put there when it was built or restored");
        let header = match self.candidates.get(&id) {
            Some(Ok(executed)) => executed.header.clone(),
            _ => unreachable!("built here, or found valid by built_before"),
        };
        for part in Part::split(height, round, id, &body.bytes) {
            self.out.push(Output::Broadcast(PeerMessage::Part(part)));
        }
        self.drive(consensus::Input::Built { height, round, header })
    }

    /// The block that we built for this very round before a crash: there may be only one.
    fn built_before(&mut self, me: Address, height: Height, round: u32) -> Option<BlockId> {
        let ours = self.bodies.of_height(height).filter(|(_, b)| b.round == round && b.kept);
        let ids: Vec<_> = ours.map(|(id, _)| *id).collect();
        ids.into_iter().find(|id| {
            self.execute_body(id);
            matches!(self.candidates.get(id), Some(Ok(e)) if e.header.builder == me)
        })
    }

    fn build(&mut self, me: Address, height: Height, round: u32) -> Result<BlockId, Fault> {
        let certificate = self.parent_certificate();
        let (executed, block, refused) =
            execute::build(&self.chain, &self.head, certificate, me, self.now, &self.pool);
        for (body, reason) in refused {
            self.pool.remove(&body);
            self.out.push(Output::Dropped { body, reason });
        }
        let id = executed.header.id();
        self.storage.put_proposal(height, round, &id, &executed.bytes)?;
        self.bodies.put(id, round, executed.bytes.clone(), block, true);
        self.remember(id, Ok(executed));
        Ok(id)
    }

    /// The head's certificate with the precommits that came after the decision, so that the slow are seen to
    /// live.
    fn parent_certificate(&self) -> Option<CommitCertificate> {
        let ours = |c: &&CommitCertificate| c.height == self.head.height && c.block == self.head.id;
        self.consensus.certificate().filter(ours).cloned().or_else(|| self.head.certificate.clone())
    }

    /// Sends a body again, for another round.
    pub(crate) fn restream(&mut self, height: Height, round: u32, block: BlockId) -> Result<(), Fault> {
        if height != self.head.height.next() {
            return Ok(());
        }
        self.recall(&block)?;
        if let Some(body) = self.bodies.get(&block) {
            for part in Part::split(height, round, block, &body.bytes) {
                self.out.push(Output::Broadcast(PeerMessage::Part(part)));
            }
        }
        Ok(())
    }

    /// A proposal came; consensus has it already.
    pub(crate) fn proposal_heard(&mut self, proposal: SignedProposal) {
        let next = self.head.height.next();
        if proposal.header.height == next.next() {
            return self.proposal_came_early(proposal);
        }
        let SignedProposal { round, valid_round, ref header, proposer, .. } = proposal;
        let id = header.id();
        if let Some(seen) = self.seen.get_mut(&id) {
            let news = seen.valid_round.is_none() && valid_round.is_some();
            if news && signed(&self.chain, &self.head.next, &proposal) {
                seen.valid_round = valid_round;
            }
            return;
        }
        let rivals = self.seen.values().filter(|s| s.round == round).count();
        let far = header.height != next || round > self.round().saturating_add(ROUNDS_AHEAD_MAX);
        if far || rivals >= SEEN_PER_ROUND_MAX || !signed(&self.chain, &self.head.next, &proposal) {
            return;
        }
        while self.seen.len() >= SEEN_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, s)| s.round).map(|(id, _)| *id);
            oldest.and_then(|id| self.seen.remove(&id));
        }
        let ask_at = self.now.plus(BODY_PATIENCE_MS);
        let header = proposal.header;
        let seen = Seen { header, round, proposer, valid_round, answered: false, ask_at, asked: 0 };
        self.seen.insert(id, seen);
    }

    /// Keeps a proposal of the height after the one in progress. Whose turn it is there may depend on the block
    /// that is not decided yet, so there is one place for each who could have it.
    fn proposal_came_early(&mut self, proposal: SignedProposal) {
        let place = (proposal.round, proposal.proposer);
        if proposal.round >= EARLY_ROUNDS || self.early.contains_key(&place) {
            return;
        }
        let voting = self.voting_after_next();
        let key = voting.by_address(&proposal.proposer).map(|v| v.key);
        if key.is_some_and(|k| k.verify(&proposal.message(&self.chain.genesis).0, &proposal.signature)) {
            self.early.insert(place, proposal);
        }
    }

    /// Who will vote at the height after the one in progress, as far as it is known.
    fn voting_after_next(&self) -> Voting {
        Voting::at(&self.head.state, self.head.height.next().next())
    }

    /// A height is over: what came early for the next is looked at.
    pub(crate) fn leave_proposals(&mut self) {
        self.candidates.clear();
        self.seen.clear();
        let next = self.head.height.next();
        self.bodies.advance(next);
        for proposal in std::mem::take(&mut self.early).into_values() {
            if proposal.header.height == next {
                self.proposal_heard(proposal);
            }
        }
    }

    /// A part came.
    pub(crate) fn part_heard(&mut self, from: Address, part: Part) {
        let next = self.head.height.next();
        let (round, turn) = if part.height == next {
            (self.round(), self.head.next.proposer(part.round))
        } else if part.height == next.next() {
            (0, self.voting_after_next().proposer(part.round))
        } else {
            return;
        };
        if part.round > round.saturating_add(ROUNDS_AHEAD_MAX) {
            return;
        }
        if self.bodies.take(self.now, from, turn == from, part) == Taken::Lied {
            self.blame(from, "it sent a body that is not the block asked for");
        }
    }

    /// Answers every proposal that can be answered; says whether there was one.
    pub(crate) fn judge_proposals(&mut self) -> Result<bool, Fault> {
        let open = self.seen.iter().filter(|(id, s)| !s.answered && self.bodies.get(id).is_some());
        let open: Vec<_> = open.map(|(id, _)| *id).collect();
        for id in open {
            self.execute_body(&id);
            let valid = self.candidates.get(&id).is_some_and(Result::is_ok);
            let seen = &self.seen[&id];
            let locked = seen.valid_round.is_some();
            if valid && !locked && !self.timely(seen.header.time) {
                continue;
            }
            let valid = valid && (self.timely(seen.header.time) || !planted(Mutation::UntimelyIsInvalid));
            let Seen { header, round, proposer, valid_round, .. } = seen;
            let (height, round, proposer, valid_round) = (header.height, *round, *proposer, *valid_round);
            let header = header.clone();
            self.keep_body(&id)?;
            self.seen.get_mut(&id).expect("looked at above").answered = true;
            self.drive(consensus::Input::Received { height, round, proposer, valid_round, header, valid })?;
            return Ok(true);
        }
        Ok(false)
    }

    fn timely(&self, time: TimeMs) -> bool {
        time.0.abs_diff(self.now.0) <= self.head.parameters.clock_bound_ms
    }

    /// A body must survive a crash before it is voted for.
    fn keep_body(&mut self, id: &BlockId) -> Result<(), Fault> {
        let Some(body) = self.bodies.get_mut(id).filter(|b| !b.kept) else { return Ok(()) };
        self.storage.put_proposal(body.height, body.round, id, &body.bytes)?;
        body.kept = true;
        Ok(())
    }

    /// Executes a body that is here, once.
    pub(crate) fn execute_body(&mut self, id: &BlockId) {
        if self.candidates.contains_key(id) {
            return;
        }
        let Some(body) = self.bodies.get_mut(id) else { return };
        let bytes = body.bytes.clone();
        let decoded = body.block.take().map_or_else(|| execute::decode(id, &bytes), Ok);
        let verdict = decoded.and_then(|b| execute::execute(&self.chain, &self.head, &self.pool, b, bytes));
        self.remember(*id, verdict);
    }

    fn remember(&mut self, id: BlockId, verdict: Result<Executed, execute::Reject>) {
        while self.candidates.len() >= CANDIDATES_MAX {
            // The least useful: of the lowest round. It can be executed again from its body.
            let round = |id: &BlockId| self.bodies.get(id).map(|b| b.round);
            let least = self.candidates.keys().min_by_key(|id| round(id)).copied();
            least.and_then(|id| self.candidates.remove(&id));
        }
        self.candidates.insert(id, verdict);
    }

    /// Brings back from disk a body that memory has let go.
    pub(crate) fn recall(&mut self, id: &BlockId) -> Result<(), Fault> {
        if self.bodies.get(id).is_none() {
            let height = self.head.height.next();
            for (round, bytes) in self.storage.proposals(height)? {
                if let Ok(block) = execute::decode(id, &bytes) {
                    self.bodies.put(*id, round, bytes, block, true);
                }
            }
        }
        Ok(())
    }

    /// Asks for bodies that do not come by themselves: of the proposer first, then of the others in turn.
    pub(crate) fn ask_for_bodies(&mut self) {
        let (now, height) = (self.now, self.head.height.next());
        let missing = self.seen.iter().filter(|(id, s)| s.ask_at <= now && self.bodies.get(id).is_none());
        let missing: Vec<_> = missing.map(|(id, _)| *id).collect();
        for block in missing {
            let peers = self.catch_up.in_turn(now);
            let seen = self.seen.get_mut(&block).expect("listed above");
            let newest = self.bodies.newest(&block).unwrap_or_default().plus(BODY_PATIENCE_MS);
            seen.ask_at = newest.max(now.plus(BODY_PATIENCE_MS));
            if newest > now {
                continue; // parts are still coming
            }
            let first = if seen.asked == 0 { peers.iter().find(|p| **p == seen.proposer) } else { None };
            let Some(to) = first.or(peers.first()).copied() else { continue };
            seen.asked += 1;
            let round = seen.round;
            self.bodies.ask(now, height, round, block, to);
            self.out.push(Output::Send { to, message: PeerMessage::GetProposal { height, round, block } });
        }
    }

    /// Answers a peer that asks for a body.
    pub(crate) fn serve_body(
        &mut self,
        to: Address,
        height: Height,
        round: u32,
        block: BlockId,
    ) -> Result<(), Fault> {
        if height <= self.head.height {
            self.tell_tip_to(to);
            return Ok(());
        }
        if height != self.head.height.next() || !self.catch_up.may_serve(&to, self.now) {
            return Ok(());
        }
        self.recall(&block)?;
        if let Some(body) = self.bodies.get(&block) {
            for part in Part::split(height, round, block, &body.bytes) {
                self.out.push(Output::Send { to, message: PeerMessage::Part(part) });
            }
        }
        Ok(())
    }

    /// When a proposal that waits for its time, or for its body, has to be looked at again.
    pub(crate) fn next_proposal_wake(&self) -> Option<TimeMs> {
        let bound = self.head.parameters.clock_bound_ms;
        let wake = |(id, seen): (&BlockId, &Seen)| match self.bodies.get(id) {
            None => Some(seen.ask_at),
            Some(_) if seen.answered => None,
            // What is too old will not become timely.
            Some(_) => Some(TimeMs(seen.header.time.0.saturating_sub(bound))).filter(|due| *due > self.now),
        };
        self.seen.iter().filter_map(wake).min()
    }
}

/// Whether the validator whose turn it is signed the proposal.
fn signed(chain: &Chain, voting: &Voting, proposal: &SignedProposal) -> bool {
    let key = voting.by_address(&proposal.proposer).map(|v| v.key);
    proposal.proposer == voting.proposer(proposal.round)
        && key.is_some_and(|k| k.verify(&proposal.message(&chain.genesis).0, &proposal.signature))
}
