//! How long each step of a round may take, and which timers run. Time is what the caller says it is.

use std::collections::BTreeMap;

use arc_malachitebft_core_types::{Round, Timeout, TimeoutKind};
use assent_proto::TimeMs;

use crate::message::enums;

/// How long a validator waits, in milliseconds; each round waits a step longer than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a proposal, before it prevotes nil.
    pub propose: u64,
    /// More of it for each further round.
    pub propose_step: u64,
    /// For more votes, once a quorum voted and did not agree.
    pub vote: u64,
    /// More of it for each further round.
    pub vote_step: u64,
    /// Between repetitions of its own last votes.
    pub rebroadcast: u64,
    /// The longest wait, whatever the round.
    pub max: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            propose: 1000,
            propose_step: 500,
            vote: 500,
            vote_step: 250,
            rebroadcast: 1000,
            max: 30_000,
        }
    }
}

impl Timeouts {
    fn of(&self, step: Step, round: u32) -> u64 {
        let (base, more) = match step {
            Step::Propose => (self.propose, self.propose_step),
            Step::Prevote | Step::Precommit => (self.vote, self.vote_step),
            Step::Rebroadcast => (self.rebroadcast, 0),
        };
        // A timer of no length would fire for ever within one wake.
        base.saturating_add(more.saturating_mul(u64::from(round))).min(self.max).max(1)
    }
}

enums! {
    /// What a timer is for.
    pub(crate) Step {
        /// A proposal should have come.
        Propose = 1,
        /// Prevotes should have agreed.
        Prevote = 2,
        /// Precommits should have agreed.
        Precommit = 3,
        /// Say it again.
        Rebroadcast = 4,
    }
}

impl Step {
    /// The core's timer as ours; `None` for the one that a height with a target time would use, which no
    /// height of ours has.
    pub(crate) fn of(timeout: &Timeout) -> Option<(Step, u32)> {
        let step = match timeout.kind {
            TimeoutKind::Propose => Step::Propose,
            TimeoutKind::Prevote => Step::Prevote,
            TimeoutKind::Precommit => Step::Precommit,
            TimeoutKind::Rebroadcast => Step::Rebroadcast,
            TimeoutKind::FinalizeHeight(_) => return None,
        };
        Some((step, timeout.round.as_u32()?))
    }

    pub(crate) fn timeout(self, round: u32) -> Timeout {
        let kind = match self {
            Step::Propose => TimeoutKind::Propose,
            Step::Prevote => TimeoutKind::Prevote,
            Step::Precommit => TimeoutKind::Precommit,
            Step::Rebroadcast => TimeoutKind::Rebroadcast,
        };
        Timeout::new(Round::new(round), kind)
    }
}

/// The timers that run, at most one for each step and round.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeMap<(Step, u32), TimeMs>);

impl Timers {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn cancel(&mut self, timeout: &Timeout) {
        if let Some(key) = Step::of(timeout) {
            self.0.remove(&key);
        }
    }

    pub(crate) fn schedule(&mut self, now: TimeMs, timeouts: &Timeouts, timeout: &Timeout) {
        if let Some((step, round)) = Step::of(timeout) {
            self.0.insert((step, round), now.plus(timeouts.of(step, round)));
        }
    }

    pub(crate) fn next(&self) -> Option<TimeMs> {
        self.0.values().min().copied()
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn take_due(&mut self, now: TimeMs) -> Option<Timeout> {
        let (due, key) = self.0.iter().map(|(key, due)| (*due, *key)).min()?;
        if due > now {
            return None;
        }
        self.0.remove(&key);
        Some(key.0.timeout(key.1))
    }
}
