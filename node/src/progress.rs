//! What an operator is told while the validator runs: that the quorum is gone or back, how far it has caught
//! up, what it still lacks, that it abstains or has parted from the chain. Pure: looks at one condition after
//! another and says the lines; nothing is decided here.

use std::time::{Duration, Instant};

use assent_proto::Height;
use assent_replica::{Replica, Status, Storage, Taking};

/// How long the quorum must be gone before it is told: peers that reconnect at once are no news.
const QUORUM_GRACE: Duration = Duration::from_secs(2);
/// The shortest time between two lines about catching up.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// The same about older blocks, which nobody waits for.
const OLDER_EVERY: Duration = Duration::from_secs(10);
/// The same about a program that will be too old: it is to be replaced in time.
const TOO_OLD_EVERY: Duration = Duration::from_secs(600);
/// Blocks behind the others from which on it is told at all: to be a few behind is how blocks come.
const BEHIND: u64 = 8;

/// How the validator is, and what it is busy with besides new blocks.
#[derive(Clone, Debug)]
pub struct Condition {
    /// How it is.
    pub status: Status,
    /// The state that is being taken in, if one is.
    pub taking: Option<Taking>,
    /// Older blocks that are still to be fetched.
    pub missing: u64,
    /// Whether the next block, which a quorum certified, comes out differently here, and the others are asked why.
    pub diverged: bool,
}

impl Condition {
    pub(crate) fn of<S: Storage>(replica: &Replica<S>) -> Condition {
        let progress = replica.progress();
        let (taking, missing) = (progress.snapshot, progress.missing);
        Condition { status: replica.status(), taking, missing, diverged: replica.is_diverged() }
    }
}

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
    /// A whole state is being taken in.
    Taking(Taking),
    /// Older blocks are being fetched.
    OlderMissing(u64),
    /// All of them are here.
    OlderComplete,
    /// It has parted from the chain at this height.
    Diverged(Height),
    /// It began or ceased to vote.
    Voting(bool),
    /// It signs nothing at this height.
    Abstaining(String),
    /// Another version of the rules is decided.
    NextRules { version: u32, from: Height },
    /// The same, and this program does not know it.
    TooOld { version: u32, from: Height, known: u32, left: u64 },
}

/// What was seen and told last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    quorum_gone: Option<Instant>,
    quorum_told: bool,
    catch_up: Option<CatchUp>,
    /// When it was told last, while it goes on.
    taking: Option<Instant>,
    older: Option<Instant>,
    diverged: bool,
    voting: Option<bool>,
    abstaining: Option<String>,
    rules: Option<(u32, Height)>,
    too_old: Option<Instant>,
}

#[derive(Debug)]
struct CatchUp {
    from: Height,
    told: Instant,
}

impl Progress {
    /// Looks at how the validator is and says what is news.
    pub(crate) fn look(&mut self, condition: &Condition, now: Instant) -> Vec<Line> {
        let status = &condition.status;
        let mut lines = Vec::new();
        lines.extend(self.parting(condition));
        lines.extend(self.quorum(status, now));
        lines.extend(self.taking(condition.taking, now));
        lines.extend(self.catching_up(status, now));
        lines.extend(self.older(condition.missing, now));
        lines.extend(self.rules(status, now));
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

    /// Whether it was told that a whole state is being taken in.
    pub(crate) fn is_taking(&self) -> bool {
        self.taking.is_some()
    }

    /// When to look again although nothing happens.
    pub(crate) fn next_look(&self, now: Instant) -> Option<Duration> {
        let quorum = self.quorum_gone.filter(|_| !self.quorum_told).map(|since| since + QUORUM_GRACE);
        let catch_up = self.catch_up.as_ref().map(|c| c.told + PROGRESS_EVERY);
        let taking = self.taking.map(|told| told + PROGRESS_EVERY);
        let older = self.older.map(|told| told + OLDER_EVERY);
        let too_old = self.too_old.map(|told| told + TOO_OLD_EVERY);
        let due = [quorum, catch_up, taking, older, too_old].into_iter().flatten().min()?;
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

    fn parting(&mut self, condition: &Condition) -> Option<Line> {
        let before = std::mem::replace(&mut self.diverged, condition.diverged);
        (condition.diverged && !before).then(|| Line::Diverged(condition.status.height.next()))
    }

    fn taking(&mut self, taking: Option<Taking>, now: Instant) -> Option<Line> {
        let Some(taking) = taking else {
            self.taking = None;
            return None;
        };
        due(&mut self.taking, now, PROGRESS_EVERY).then_some(Line::Taking(taking))
    }

    fn older(&mut self, missing: u64, now: Instant) -> Option<Line> {
        if missing == 0 {
            return self.older.take().map(|_| Line::OlderComplete);
        }
        due(&mut self.older, now, OLDER_EVERY).then_some(Line::OlderMissing(missing))
    }

    /// A version of the rules that is decided is told once; one that this program does not know, again and again.
    fn rules(&mut self, status: &Status, now: Instant) -> Option<Line> {
        let (before, next) = (self.rules, status.rules.next);
        self.rules = next;
        if let Some((version, from)) = status.rules.ends() {
            let left = from.0.saturating_sub(status.height.0);
            let line = Line::TooOld { version, from, known: status.rules.known, left };
            return due(&mut self.too_old, now, TOO_OLD_EVERY).then_some(line);
        }
        self.too_old = None;
        next.filter(|_| before != next).map(|(version, from)| Line::NextRules { version, from })
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

/// Whether something that goes on is to be told again; it is then taken as told.
fn due(told: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let due = told.is_none_or(|told| now.saturating_duration_since(told) >= every);
    if due {
        *told = Some(now);
    }
    due
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
            Line::Taking(Taking { height, parts, of }) => {
                tracing::info!(height = height.0, parts, of, "taking in a whole state");
            }
            Line::OlderMissing(missing) => {
                tracing::info!(missing, "older blocks are being fetched in the background");
            }
            Line::OlderComplete => tracing::info!("all older blocks are here"),
            Line::Diverged(height) => tracing::error!(
                height = height.0,
                "E-DIVERGED: this node has parted from the chain; it signs nothing more and asks the others where"
            ),
            Line::Voting(true) => tracing::info!("this node is a validator now and votes"),
            Line::Voting(false) => tracing::info!("this node is no validator any more and observes"),
            Line::Abstaining(why) => tracing::warn!(why, "nothing is signed at this height"),
            Line::NextRules { version, from } => {
                tracing::info!(version, height = from.0, "the chain changes to another protocol version");
            }
            Line::TooOld { version, from, known, left } => tracing::error!(
                version,
                height = from.0,
                known,
                left,
                "E-TOO-OLD: the chain changes to a protocol version that this program does not know; it stops at \
                 that height: install a newer program before, and start it with the same folder"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::{Hash, TimeMs};
    use assent_replica::Rules;

    fn condition(height: u64, target: u64, waiting_for_quorum: bool) -> Condition {
        let status = Status {
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
            rules: Rules { version: 1, next: None, known: 1 },
        };
        Condition { status, taking: None, missing: 0, diverged: false }
    }

    #[test]
    fn a_version_that_is_not_known_is_told_again_and_again_and_one_that_is_known_once() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut look = |second: u64, known: u32, next: Option<(u32, Height)>| {
            let mut condition = condition(10, 10, false);
            condition.status.rules = Rules { version: 1, next, known };
            progress.look(&condition, begin + Duration::from_secs(second))
        };
        let next = Some((2, Height(50)));
        let told = [Line::TooOld { version: 2, from: Height(50), known: 1, left: 40 }];
        assert!(look(0, 1, None).is_empty());
        assert_eq!(look(1, 1, next), told);
        assert!(look(600, 1, next).is_empty());
        assert_eq!(look(601, 1, next), told);
        assert!(look(602, 2, None).is_empty());
        assert_eq!(look(603, 2, next), [Line::NextRules { version: 2, from: Height(50) }]);
        assert!(look(2000, 2, next).is_empty());
    }

    #[test]
    fn the_quorum_is_told_once_when_it_is_gone_and_once_when_it_is_back() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut look = |second: f64, gone: bool| {
            progress.look(&condition(1, 1, gone), begin + Duration::from_secs_f64(second))
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
        progress.look(&condition(1, 1, false), begin);
        assert_eq!(progress.next_look(begin), None);
        progress.look(&condition(1, 1, true), begin);
        assert_eq!(progress.next_look(begin), Some(QUORUM_GRACE));
        progress.look(&condition(1, 1, true), begin + QUORUM_GRACE);
        assert_eq!(progress.next_look(begin), None, "told; waiting costs nothing");
    }

    #[test]
    fn catching_up_is_told_at_most_every_two_seconds_with_its_share() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut lines = Vec::new();
        for tenth in 0..=100u64 {
            let now = begin + Duration::from_millis(100 * tenth);
            lines.extend(progress.look(&condition(100 + tenth, 200, false), now));
        }
        let percent = lines.iter().filter_map(|l| match l {
            Line::CatchingUp { percent, .. } => Some(*percent),
            _ => None,
        });
        assert_eq!(percent.collect::<Vec<_>>(), [0, 20, 40, 60, 80]);
        assert_eq!(lines.last(), Some(&Line::CaughtUp { height: Height(200) }));
        assert!(
            progress.look(&condition(300, 303, false), begin).is_empty(),
            "a few blocks behind is no news"
        );
    }

    #[test]
    fn a_state_and_older_blocks_are_told_while_they_come_and_their_end_once() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        let mut look = |second: u64, parts: Option<u32>, missing: u64| {
            let taking = parts.map(|parts| Taking { height: Height(90), parts, of: 4 });
            let condition = Condition { taking, missing, ..condition(90, 90, false) };
            progress.look(&condition, begin + Duration::from_secs(second))
        };
        let taking = |parts| vec![Line::Taking(Taking { height: Height(90), parts, of: 4 })];
        assert!(look(0, None, 0).is_empty());
        assert_eq!(look(1, Some(0), 0), taking(0));
        assert!(look(2, Some(2), 0).is_empty(), "told a second ago");
        assert_eq!(look(3, Some(3), 0), taking(3));
        assert_eq!(look(4, None, 90), [Line::OlderMissing(90)]);
        assert!(look(13, None, 50).is_empty());
        assert_eq!(look(14, None, 40), [Line::OlderMissing(40)]);
        assert_eq!(look(15, None, 0), [Line::OlderComplete]);
        assert!(look(30, None, 0).is_empty());
        assert_eq!(look(31, None, 1), [Line::OlderMissing(1)], "a block was found damaged");
        assert_eq!(progress.next_look(begin + Duration::from_secs(31)), Some(OLDER_EVERY));
    }

    #[test]
    fn parting_from_the_chain_is_told_at_once_and_first() {
        let (mut progress, begin) = (Progress::default(), Instant::now());
        progress.look(&condition(7, 7, false), begin);
        let parted = Condition { diverged: true, ..condition(7, 30, false) };
        let lines = progress.look(&parted, begin);
        assert_eq!(lines.first(), Some(&Line::Diverged(Height(8))));
        assert!(!progress.look(&parted, begin).contains(&Line::Diverged(Height(8))));
    }
}
