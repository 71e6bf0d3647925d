//! Which timers run, and the bounds of how long. Time is what the caller says it is.

use std::collections::BTreeMap;

use arc_malachitebft_core_types::{Round, Timeout, TimeoutKind};
use assent_proto::TimeMs;

use crate::message::enums;
use crate::pace::Pace;

/// How long a validator waits, in milliseconds. In round 0 it is between a least and a most, by what was observed
/// lately; each round waits a step longer than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a proposal, before it prevotes nil: the most in round 0 of a network that is not slow beyond it.
    pub propose: u64,
    /// The least.
    pub propose_min: u64,
    /// More of it for each further round.
    pub propose_step: u64,
    /// For more votes, once a quorum voted and did not agree: the most.
    pub vote: u64,
    /// The least.
    pub vote_min: u64,
    /// More of it for each further round.
    pub vote_step: u64,
    /// Between repetitions of its own last votes.
    pub rebroadcast: u64,
    /// The longest wait, whatever the round and whatever was observed.
    pub max: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            propose: 1000,
            propose_min: 150,
            propose_step: 500,
            vote: 500,
            vote_min: 100,
            vote_step: 250,
            rebroadcast: 1000,
            max: 30_000,
        }
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

    pub(crate) fn schedule(&mut self, now: TimeMs, pace: &Pace, timeout: &Timeout) {
        if let Some((step, round)) = Step::of(timeout) {
            self.0.insert((step, round), now.plus(pace.wait(step, round)));
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
