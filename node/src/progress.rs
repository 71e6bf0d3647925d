//! What an operator is told while the validator runs: that the quorum is gone or back, how far it has caught
//! up, that it abstains. Pure: looks at one status after another and says the lines; nothing is decided here.

use std::time::{Duration, Instant};

use assent_proto::Height;
use assent_replica::Status;

/// How long the quorum must be gone before it is told: peers that reconnect at once are no news.
const QUORUM_GRACE: Duration = Duration::from_secs(2);
/// The shortest time between two lines about catching up.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// Blocks behind the others from which on it is told at all: to be a few behind is how blocks come.
const BEHIND: u64 = 8;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Too few validators are connected.
    QuorumGone { connected: usize, validators: usize },
    /// There are enough again.
    QuorumBack { away: Duration },
    /// Still catching up.
    CatchingUp { height: Height, target: Height, percent: u64 },
    /// Done.
    CaughtUp { height: Height },
    /// It began or ceased to vote.
    Voting(bool),
    /// It signs nothing at this height.
    Abstaining(String),
}

/// What was seen and told last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    quorum_gone: Option<Instant>,
    quorum_told: bool,
    catch_up: Option<CatchUp>,
    voting: Option<bool>,
    abstaining: Option<String>,
}

#[derive(Debug)]
struct CatchUp {
    from: Height,
    told: Instant,
}

impl Progress {
    /// Looks at a status and says what is news.
    pub(crate) fn look(&mut self, status: &Status, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        lines.extend(self.quorum(status, now));
        lines.extend(self.catching_up(status, now));
        if self.voting != Some(status.voting) {
            let first = self.voting.replace(status.voting).is_none();
            lines.extend((!first).then_some(Line::Voting(status.voting)));
        }
        let abstaining = status.abstaining.as_ref().map(ToString::to_string);
        if abstaining != self.abstaining {
            self.abstaining = abstaining.clone();
            lines.extend(abstaining.map(Line::Abstaining));
        }
        lines
    }

    /// When to look again although nothing happens.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        let quorum = self.quorum_gone.filter(|_| !self.quorum_told).map(|since| since + QUORUM_GRACE);
        let catch_up = self.catch_up.as_ref().map(|c| c.told + PROGRESS_EVERY);
        let due = quorum.into_iter().chain(catch_up).min()?;
        Some(due.saturating_duration_since(now))
    }

    fn quorum(&mut self, status: &Status, now: Instant) -> Option<Line> {
        if status.waiting_for_quorum {
            let since = *self.quorum_gone.get_or_insert(now);
            let tell = !self.quorum_told && now.saturating_duration_since(since) >= QUORUM_GRACE;
            self.quorum_told |= tell;
            let (connected, validators) = (status.connected, status.validators);
            return tell.then_some(Line::QuorumGone { connected, validators });
        }
        let since = self.quorum_gone.take()?;
        let away = now.saturating_duration_since(since);
        std::mem::take(&mut self.quorum_told).then_some(Line::QuorumBack { away })
    }

    fn catching_up(&mut self, status: &Status, now: Instant) -> Option<Line> {
        let (height, target) = (status.height, status.target.max(status.height));
        let behind = target.0 - height.0;
        let Some(run) = &mut self.catch_up else {
            if behind < BEHIND {
                return None;
            }
            self.catch_up = Some(CatchUp { from: height, told: now });
            return Some(Line::CatchingUp { height, target, percent: 0 });
        };
        if behind <= 1 && !status.catching_up {
            self.catch_up = None;
            return Some(Line::CaughtUp { height });
        }
        if now.saturating_duration_since(run.told) < PROGRESS_EVERY {
            return None;
        }
        run.told = now;
        let (done, all) = (height.0.saturating_sub(run.from.0), target.0.saturating_sub(run.from.0).max(1));
        Some(Line::CatchingUp { height, target, percent: done.saturating_mul(100) / all })
    }
}

impl Line {
    /// Writes it to the log.
    pub(crate) fn log(&self) {
        match self {
            Line::QuorumGone { connected, validators } => tracing::warn!(
                connected,
                validators,
                "the quorum is gone: too few validators are connected; nothing is decided until they are back"
            ),
            Line::QuorumBack { away } => {
                tracing::warn!(seconds = away.as_secs(), "the quorum is back");
            }
            Line::CatchingUp { height, target, percent } => {
                tracing::info!(height = height.0, target = target.0, percent, "catching up");
            }
            Line::CaughtUp { height } => tracing::info!(height = height.0, "caught up"),
            Line::Voting(true) => tracing::info!("this node is a validator now and votes"),
            Line::Voting(false) => tracing::info!("this node is no validator any more and observes"),
            Line::Abstaining(why) => tracing::warn!(why, "nothing is signed at this height"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::{Hash, TimeMs};

    fn status(height: u64, target: u64, waiting_for_quorum: bool) -> Status {
        Status {
            height: Height(height),
            time: TimeMs(0),
            round: 0,
            pool_transactions: 0,
            pool_bytes: 0,
            catching_up: height < target,
            state_root: Hash::ZERO,
            abstaining: None,
            waiting_for_quorum,
            inquiring: false,
            connected: 1,
            validators: 4,
            voting: true,
            passed_over: Vec::new(),
            target: Height(target),
        }
    }

    #[test]
    fn the_quorum_is_told_once_when_it_is_gone_and_once_when_it_is_back() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut look = |second: f64, gone: bool| {
            progress.look(&status(1, 1, gone), begin + Duration::from_secs_f64(second))
        };
        assert!(look(0.0, false).is_empty() && look(1.0, true).is_empty() && look(1.5, false).is_empty());
        assert!(look(2.0, true).is_empty() && look(3.9, true).is_empty(), "a short gap is no news");
        assert_eq!(look(4.0, true), [Line::QuorumGone { connected: 1, validators: 4 }]);
        assert!(look(60.0, true).is_empty());
        assert_eq!(look(62.0, false), [Line::QuorumBack { away: Duration::from_secs(60) }]);
        assert!(look(63.0, false).is_empty());
    }

    #[test]
    fn it_asks_to_look_again_only_while_something_is_open() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        progress.look(&status(1, 1, false), begin);
        assert_eq!(progress.next_look(begin), None);
        progress.look(&status(1, 1, true), begin);
        assert_eq!(progress.next_look(begin), Some(QUORUM_GRACE));
        progress.look(&status(1, 1, true), begin + QUORUM_GRACE);
        assert_eq!(progress.next_look(begin), None, "told; waiting costs nothing");
    }

    #[test]
    fn catching_up_is_told_at_most_every_two_seconds_with_its_share() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut lines = Vec::new();
        for tenth in 0..=100u64 {
            let now = begin + Duration::from_millis(100 * tenth);
            lines.extend(progress.look(&status(100 + tenth, 200, false), now));
        }
        let percent = lines.iter().filter_map(|l| match l {
            Line::CatchingUp { percent, .. } => Some(*percent),
            _ => None,
        });
        assert_eq!(percent.collect::<Vec<_>>(), [0, 20, 40, 60, 80]);
        assert_eq!(lines.last(), Some(&Line::CaughtUp { height: Height(200) }));
        assert!(progress.look(&status(300, 303, false), begin).is_empty(), "a few blocks behind is no news");
    }
}
