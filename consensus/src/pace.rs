//! How long to wait: learnt from how long things took lately, within bounds, and longer with every failed round.
//! All that is known here are the times of inputs; no clock of anyone else counts.
//!
//! A wait too short costs a round, so what took longer is believed at once and what took less only bit by bit.
//! Within a height each round waits a step longer than the one before, whatever was learnt: with that, validators
//! whose disks are slow or whose messages take long come to one round that is long enough for all. Where that took
//! several rounds although their proposals did arrive, the next heights begin with more patience.

use std::collections::BTreeMap;

use assent_proto::TimeMs;

use crate::timers::{Step, Timeouts};

/// A wait is so many times what the same took at the most lately.
const MARGIN: u64 = 3;
/// A shorter observation takes this part of the difference off.
const FORGETS: u64 = 16;
/// Rounds of a height whose times are kept: a proposal later than that teaches nothing.
const ROUNDS_MAX: usize = 8;
/// So many rounds must fail in which a proposal was heard, before the next heights get more patience. One
/// validator alone, which has one turn among several, cannot bring that about.
const SLOW_ROUNDS: usize = 2;

/// The longest that something took lately, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Longest(u64);

impl Longest {
    fn observe(&mut self, took: u64, most: u64) {
        let took = took.min(most);
        let shorter = self.0.saturating_sub(took);
        self.0 = took.max(self.0 - shorter.div_ceil(FORGETS));
    }

    fn wait(self, least: u64, most: u64) -> u64 {
        self.0.saturating_mul(MARGIN).min(most).max(least)
    }
}

/// When what was heard in a round.
#[derive(Clone, Copy, Debug)]
struct Times {
    began: TimeMs,
    proposal: Option<TimeMs>,
    body: Option<TimeMs>,
}

impl Times {
    /// When the proposal and the block were both here.
    fn complete(&self) -> Option<TimeMs> {
        Some(self.proposal?.max(self.body?))
    }
}

/// What was learnt, and the rounds of the height at work.
#[derive(Debug)]
pub(crate) struct Pace {
    bounds: Timeouts,
    proposal: Longest,
    votes: Longest,
    /// More of each wait, ms.
    patience: u64,
    rounds: BTreeMap<u32, Times>,
}

impl Pace {
    /// Begins with the longest waits.
    pub(crate) fn new(bounds: Timeouts) -> Self {
        let unknown = |most: u64| Longest(most.div_ceil(MARGIN));
        Pace {
            proposal: unknown(bounds.propose),
            votes: unknown(bounds.vote),
            bounds,
            patience: 0,
            rounds: BTreeMap::new(),
        }
    }

    /// How long a timer of a round runs, ms.
    pub(crate) fn wait(&self, step: Step, round: u32) -> u64 {
        let Timeouts { propose, propose_min, propose_step, vote, vote_min, vote_step, rebroadcast, max } =
            self.bounds;
        let (base, more) = match step {
            Step::Propose => (self.proposal.wait(propose_min, propose) + self.patience, propose_step),
            Step::Prevote | Step::Precommit => (self.votes.wait(vote_min, vote) + self.patience, vote_step),
            Step::Rebroadcast => (rebroadcast, 0),
        };
        // A timer of no length would fire for ever within one wake.
        base.saturating_add(more.saturating_mul(u64::from(round))).min(max).max(1)
    }

    pub(crate) fn begin_height(&mut self) {
        self.rounds.clear();
    }

    pub(crate) fn enter(&mut self, round: u32, now: TimeMs) {
        self.rounds.entry(round).or_insert(Times { began: now, proposal: None, body: None });
        while self.rounds.len() > ROUNDS_MAX {
            self.rounds.pop_first();
        }
    }

    /// A verified proposal of a round came; not one of our own.
    pub(crate) fn proposal(&mut self, round: u32, now: TimeMs) {
        self.came(round, |times| times.proposal = times.proposal.or(Some(now)));
    }

    /// A block of a round came and was executed.
    pub(crate) fn body(&mut self, round: u32, now: TimeMs) {
        self.came(round, |times| times.body = times.body.or(Some(now)));
    }

    fn came(&mut self, round: u32, note: impl FnOnce(&mut Times)) {
        let Some(times) = self.rounds.get_mut(&round).filter(|t| t.complete().is_none()) else { return };
        note(times);
        if let Some(complete) = times.complete() {
            let took = elapsed(times.began, complete);
            self.proposal.observe(took, self.bounds.propose);
        }
    }

    /// The height was decided in a round.
    pub(crate) fn decided(&mut self, round: u32, now: TimeMs) {
        // From the proposal to the decision votes are exchanged twice.
        if let Some(complete) = self.rounds.get(&round).and_then(Times::complete) {
            self.votes.observe(elapsed(complete, now).div_ceil(2), self.bounds.vote);
        }
        let slow = self.rounds.range(..round).filter(|(_, t)| t.proposal.is_some()).count();
        if slow >= SLOW_ROUNDS {
            let more = (self.patience * 2).max(self.bounds.propose_step);
            self.patience = more.min(self.bounds.max);
        } else if round == 0 {
            self.patience -= self.patience.div_ceil(FORGETS);
        }
        self.rounds.clear();
    }
}

/// Time may stand still or go back; then nothing took long.
fn elapsed(from: TimeMs, to: TimeMs) -> u64 {
    to.0.saturating_sub(from.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network in which a proposal takes `proposal` ms and an exchange of votes `vote` ms.
    struct Network {
        pace: Pace,
        now: u64,
        proposal: u64,
        vote: u64,
    }

    impl Network {
        fn new(proposal: u64, vote: u64) -> Self {
            Network { pace: Pace::new(Timeouts::default()), now: 1_000, proposal, vote }
        }

        fn propose_wait(&self) -> u64 {
            self.pace.wait(Step::Propose, 0)
        }

        fn vote_wait(&self) -> u64 {
            self.pace.wait(Step::Prevote, 0)
        }

        /// So many heights in which everybody proposes.
        fn heights(&mut self, count: usize) {
            for _ in 0..count {
                self.height(|_| false);
            }
        }

        /// One height: a round fails if its proposal comes after its wait, or never. Gives the rounds that failed.
        fn height(&mut self, dead: impl Fn(u32) -> bool) -> u32 {
            self.pace.begin_height();
            let mut arrivals: Vec<(u64, u32)> = Vec::new();
            for round in 0..100 {
                let (began, wait) = (self.now, self.pace.wait(Step::Propose, round));
                self.pace.enter(round, TimeMs(began));
                if !dead(round) {
                    arrivals.push((began + self.proposal, round));
                }
                let in_time = !dead(round) && self.proposal <= wait;
                self.now = if in_time { began + self.proposal } else { began + wait };
                for (at, of) in arrivals.iter().filter(|(at, _)| *at <= self.now) {
                    self.pace.proposal(*of, TimeMs(*at));
                    self.pace.body(*of, TimeMs(*at));
                }
                arrivals.retain(|(at, _)| *at > self.now);
                if in_time {
                    self.now += 2 * self.vote;
                    self.pace.decided(round, TimeMs(self.now));
                    return round;
                }
                self.now += 2 * self.pace.wait(Step::Prevote, round);
            }
            panic!("no round was long enough");
        }
    }

    #[test]
    fn nothing_is_known_at_first_and_the_longest_waits_apply() {
        let network = Network::new(0, 0);
        assert_eq!((network.propose_wait(), network.vote_wait()), (1000, 500));
        assert_eq!(network.pace.wait(Step::Propose, 3), 2500);
        assert_eq!(network.pace.wait(Step::Rebroadcast, 3), 1000);
    }

    #[test]
    fn on_a_fast_network_the_waits_shrink_slowly_to_their_least() {
        let mut network = Network::new(10, 2);
        let mut before = network.propose_wait();
        for _ in 0..10 {
            assert_eq!(network.height(|_| false), 0);
            assert!(network.propose_wait() <= before && before - network.propose_wait() <= 70);
            before = network.propose_wait();
        }
        assert!(before > 400, "not in ten heights: {before}");
        network.heights(100);
        assert_eq!((network.propose_wait(), network.vote_wait()), (150, 100));
        assert_eq!(network.pace.wait(Step::Propose, 2), 1150, "a failed round waits longer all the same");
    }

    #[test]
    fn a_slower_network_is_believed_at_once() {
        let mut network = Network::new(10, 2);
        network.heights(200);
        (network.proposal, network.vote) = (120, 60);
        assert_eq!(network.height(|_| false), 0);
        assert_eq!((network.propose_wait(), network.vote_wait()), (360, 180));
        network.proposal = 600;
        assert_eq!(network.height(|_| false), 1, "one round fails, the next is long enough");
        assert_eq!(network.propose_wait(), 1000);
        for _ in 0..20 {
            assert_eq!(network.height(|_| false), 0, "and it is remembered");
        }
    }

    #[test]
    fn a_dead_proposer_teaches_nothing() {
        let mut network = Network::new(10, 2);
        network.heights(200);
        for _ in 0..50 {
            assert_eq!(network.height(|round| round == 0), 1);
            assert_eq!(network.height(|round| round < 2), 2);
        }
        assert_eq!(network.propose_wait(), 150);
    }

    #[test]
    fn a_network_slower_than_the_longest_wait_is_met_with_patience_up_to_a_bound() {
        let mut network = Network::new(4_000, 300);
        let first = network.height(|_| false);
        assert!(first >= 4, "{first}");
        let later: Vec<u32> = (0..12).map(|_| network.height(|_| false)).collect();
        assert!(later[6..].iter().all(|rounds| *rounds < 2), "{later:?}");
        network.proposal = 25_000;
        for _ in 0..40 {
            network.height(|_| false);
        }
        assert!(network.propose_wait() <= 30_000);
        assert_eq!(network.pace.wait(Step::Propose, 90), 30_000);
        // And it wears off.
        network.proposal = 10;
        network.heights(400);
        assert_eq!(network.propose_wait(), 150);
    }

    #[test]
    fn a_late_validator_cannot_wait_the_others_out() {
        // One of four always proposes just too late: its turns fail, and the waits stay within their bounds.
        let mut network = Network::new(20, 2);
        for height in 0..400u64 {
            network.proposal = 20;
            if height % 4 == 0 {
                let wait = network.propose_wait();
                network.pace.begin_height();
                network.pace.enter(0, TimeMs(network.now));
                network.now += wait;
                network.pace.enter(1, TimeMs(network.now));
                for round in [0, 1] {
                    network.pace.proposal(round, TimeMs(network.now + 5));
                    network.pace.body(round, TimeMs(network.now + 5));
                }
                network.now += 10;
                network.pace.decided(1, TimeMs(network.now));
            } else {
                assert_eq!(network.height(|_| false), 0);
            }
            assert!(network.propose_wait() <= 1000);
        }
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm() {
        let mut network = Network::new(10, 2);
        network.heights(200);
        network.pace.begin_height();
        network.pace.enter(0, TimeMs(network.now));
        network.now -= 900;
        network.pace.proposal(0, TimeMs(network.now));
        network.pace.body(0, TimeMs(network.now));
        network.pace.decided(0, TimeMs(network.now - 50));
        assert_eq!(network.propose_wait(), 150);
        network.pace.begin_height();
        network.pace.enter(0, TimeMs(network.now));
        network.now = u64::MAX - 1_000_000;
        network.pace.proposal(0, TimeMs(network.now));
        network.pace.body(0, TimeMs(network.now));
        network.pace.decided(0, TimeMs(network.now));
        assert_eq!(network.propose_wait(), 1000, "no more than the longest");
        network.heights(100);
        assert_eq!(network.propose_wait(), 150);
    }

    #[test]
    fn what_is_kept_of_a_height_is_bounded() {
        let mut pace = Pace::new(Timeouts::default());
        for round in 0..1000 {
            pace.enter(round, TimeMs(u64::from(round)));
            pace.proposal(round + 5, TimeMs(7));
        }
        assert_eq!(pace.rounds.len(), ROUNDS_MAX);
    }
}
