//! Puts load on a network and measures what its clients see: persons set out on their way at a given rate, or so many
//! are on their way at one time. A transaction's time counts from when it could have been handed in, so that a network
//! that does not keep up is charged for the wait (no coordinated omission).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use assent_client::rpc::api;
use assent_proto::{Height, Invalid};
use assent_tests::clients::Door;
use assent_tests::mix::{Person, STEPS, Signer, Step, WAVES};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// What is ready is handed in so often.
const TICK: Duration = Duration::from_millis(5);
/// The most transactions in one call; the interface takes no more.
const CALL_MAX: usize = 256;
/// After a measurement what is still on its way may take so long.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// A failed call is repeated after so long.
const RETRY: Duration = Duration::from_millis(250);

/// How much load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// So many transactions a second, whatever the network makes of it.
    Rate(f64),
    /// So many persons on their way at one time.
    Persons(usize),
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Seconds that were measured.
    pub(crate) seconds: f64,
    /// Transactions that became final in them.
    pub(crate) committed: u64,
    /// Transactions that became final at all, before and after them too.
    pub(crate) total: u64,
    /// Those in them, second by second.
    pub(crate) by_second: Vec<u64>,
    /// Times to finality of what was ready in them, in ms, rising.
    pub(crate) finality_ms: Vec<f64>,
    /// Refusals with a hint when to come again.
    pub(crate) busy: u64,
    /// Transactions that were denied, or refused for good: the mix has none.
    pub(crate) failed: u64,
    /// What the first of these was.
    pub(crate) failure: Option<String>,
    /// Transactions under way at the beginning and at the end.
    pub(crate) under_way: (usize, usize),
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.committed as f64 / self.seconds
    }

    /// The time within which a share of the transactions became final, ms.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        quantile(&self.finality_ms, share)
    }

    /// Whether a rate was kept up with: as much came out as went in, and no queue grew.
    pub(crate) fn sustains(&self, rate: f64) -> bool {
        let (before, after) = self.under_way;
        self.per_second() >= 0.97 * rate && (after as f64) < (before as f64).max(rate) * 1.5
    }
}

/// Of rising values, the one below which this share of them lies; no number of none.
pub(crate) fn quantile(rising: &[f64], share: f64) -> f64 {
    let last = rising.len().saturating_sub(1);
    let at = ((rising.len() as f64 * share) as usize).min(last);
    rising.get(at).copied().unwrap_or(f64::NAN)
}

/// What a node says of a transaction that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is final and applied, in this block where that is known.
    Applied(Option<Height>),
    /// Not taken now, or not final within half a minute: to be asked again after so long. Whether it was refused.
    Again(Duration, bool),
    /// Denied, or refused for good.
    Failed(String),
}

impl Fate {
    pub(crate) fn of(outcome: &api::SubmitOutcome) -> Fate {
        match &outcome.receipt {
            Some(receipt) if receipt.code == 0 => Fate::Applied(Some(Height(receipt.height))),
            // An earlier call whose answer was lost had handed it in.
            None if outcome.refused == Invalid::Replay.number() => Fate::Applied(None),
            None if outcome.retry_after_ms > 0 || outcome.refused == 0 => {
                let wait = Duration::from_millis(u64::from(outcome.retry_after_ms)).max(RETRY);
                Fate::Again(wait, outcome.retry_after_ms > 0)
            }
            receipt => {
                let code = receipt.as_ref().map_or(outcome.refused, |r| r.code);
                Fate::Failed(format!("{code} {}", outcome.refused_name))
            }
        }
    }
}

/// A transaction on its way.
#[derive(Clone, Copy)]
struct Item {
    person: usize,
    step: Step,
    ready: Instant,
}

/// What came of a call, of each of its transactions or of none.
enum Answer {
    Outcome(Item, api::SubmitOutcome),
    Again(Vec<Item>),
}

/// A person on her way.
#[derive(Clone, Copy)]
struct Way {
    wave: usize,
    missing: usize,
}

/// The load on a network, through these doors in turn.
pub(crate) struct Drive {
    pub(crate) signer: Signer,
    pub(crate) doors: Vec<Door>,
}

struct Running<'a> {
    drive: &'a Drive,
    persons: &'a [Person],
    ways: Vec<Way>,
    on_their_way: usize,
    ready: Vec<Vec<Item>>,
    later: VecDeque<(Instant, Item)>,
    under_way: usize,
    newest: Height,
    answers: mpsc::UnboundedSender<Answer>,
    seen: Seen,
    window: (Instant, Instant),
}

impl Drive {
    /// Puts load on for a while after a warm-up, and waits until all is final. Persons must be enough for it.
    pub(crate) async fn run(
        &self,
        load: Load,
        warm_up: Duration,
        time: Duration,
        persons: &[Person],
    ) -> Seen {
        let (answers, mut hear) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let mut running = Running {
            drive: self,
            persons,
            ways: Vec::with_capacity(persons.len()),
            on_their_way: 0,
            ready: vec![Vec::new(); self.doors.len()],
            later: VecDeque::new(),
            under_way: 0,
            newest: Height(0),
            answers,
            seen: Seen {
                seconds: time.as_secs_f64(),
                by_second: vec![0; time.as_secs() as usize + 1],
                ..Seen::default()
            },
            window: (begun + warm_up, begun + warm_up + time),
        };
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut opened, mut closed) = (false, false);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let now = Instant::now();
                    if !opened && now >= running.window.0 {
                        opened = true;
                        running.seen.under_way.0 = running.under_way;
                    }
                    if now < running.window.1 {
                        running.set_out(load, now - begun);
                    } else if !closed {
                        closed = true;
                        running.seen.under_way.1 = running.under_way;
                    }
                    running.hand_in(now);
                    let idle = running.under_way == 0;
                    if closed && (idle || now > running.window.1 + DRAIN_MAX) {
                        break;
                    }
                }
                Some(answer) = hear.recv() => running.take(answer),
            }
        }
        let mut seen = running.seen;
        seen.failed += running.under_way as u64;
        if running.under_way > 0 {
            seen.failure.get_or_insert(format!("{} were not final in a minute", running.under_way));
        }
        seen.finality_ms.sort_by(f64::total_cmp);
        seen
    }
}

impl Running<'_> {
    /// Lets as many persons set out as the load wants by now.
    fn set_out(&mut self, load: Load, elapsed: Duration) {
        let wanted = match load {
            Load::Rate(rate) => (elapsed.as_secs_f64() * rate / STEPS as f64) as usize,
            Load::Persons(most) => self.ways.len() + most.saturating_sub(self.on_their_way),
        };
        while self.ways.len() < wanted.min(self.persons.len()) {
            self.ways.push(Way { wave: 0, missing: 0 });
            self.on_their_way += 1;
            self.begin_wave(self.ways.len() - 1);
        }
    }

    fn begin_wave(&mut self, person: usize) {
        let steps = WAVES[self.ways[person].wave];
        self.ways[person].missing = steps.len();
        for step in steps {
            let item = Item { person, step: *step, ready: Instant::now() };
            self.ready[person % self.drive.doors.len()].push(item);
            self.under_way += 1;
        }
    }

    /// Hands in all that is ready, as few calls as possible.
    fn hand_in(&mut self, now: Instant) {
        while self.later.front().is_some_and(|(due, _)| *due <= now) {
            let (_, item) = self.later.pop_front().expect("looked at above");
            self.ready[item.person % self.drive.doors.len()].push(item);
        }
        for (door, ready) in self.drive.doors.iter().zip(&mut self.ready) {
            for items in std::mem::take(ready).chunks(CALL_MAX) {
                let envelope =
                    |i: &Item| self.drive.signer.envelope(&self.persons[i.person], i.step, self.newest);
                let request = api::SubmitManyRequest {
                    envelopes: items.iter().map(envelope).collect(),
                    wait: api::Wait::Final.into(),
                };
                tokio::spawn(call(door.clone(), request, items.to_vec(), self.answers.clone()));
            }
        }
    }

    fn take(&mut self, answer: Answer) {
        let now = Instant::now();
        let (item, outcome) = match answer {
            Answer::Outcome(item, outcome) => (item, outcome),
            Answer::Again(items) => {
                self.later.extend(items.into_iter().map(|item| (now + RETRY, item)));
                return;
            }
        };
        match Fate::of(&outcome) {
            Fate::Applied(height) => {
                self.newest = height.map_or(self.newest, |height| self.newest.max(height));
                self.finished(item, now);
            }
            Fate::Again(wait, refused) => {
                self.seen.busy += u64::from(refused);
                self.later.push_back((now + wait, item));
            }
            Fate::Failed(why) => {
                self.seen.failure.get_or_insert(format!("{:?}: {why}", item.step));
                self.seen.failed += 1;
                self.under_way -= 1;
                self.on_their_way -= 1;
            }
        }
    }

    fn finished(&mut self, item: Item, now: Instant) {
        self.under_way -= 1;
        self.seen.total += 1;
        let (from, to) = self.window;
        if (from..to).contains(&now) {
            self.seen.committed += 1;
            self.seen.by_second[(now - from).as_secs() as usize] += 1;
        }
        if (from..to).contains(&item.ready) {
            self.seen.finality_ms.push((now - item.ready).as_secs_f64() * 1000.0);
        }
        let way = &mut self.ways[item.person];
        way.missing -= 1;
        if way.missing > 0 {
            return;
        }
        way.wave += 1;
        if way.wave < WAVES.len() {
            self.begin_wave(item.person);
        } else {
            self.on_their_way -= 1;
        }
    }
}

/// One call; tells of each transaction as soon as the node does.
async fn call(
    mut door: Door,
    request: api::SubmitManyRequest,
    items: Vec<Item>,
    answers: mpsc::UnboundedSender<Answer>,
) {
    let mut open: Vec<_> = items.into_iter().map(Some).collect();
    if let Ok(reply) = door.submit_many(request).await {
        let mut replies = reply.into_inner();
        while let Ok(Some(reply)) = replies.message().await {
            for outcome in reply.outcomes {
                if let Some(item) = open.get_mut(outcome.index as usize).and_then(Option::take) {
                    // Nobody listens once the measurement is over.
                    let _ = answers.send(Answer::Outcome(item, outcome));
                }
            }
        }
    }
    let left: Vec<_> = open.into_iter().flatten().collect();
    if !left.is_empty() {
        let _ = answers.send(Answer::Again(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!(
            [0.0, 0.5, 0.95, 0.99, 1.0].map(|q| quantile(&values, q)),
            [1.0, 51.0, 96.0, 100.0, 100.0]
        );
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_rate_is_kept_up_with_if_as_much_comes_out_and_no_queue_grows() {
        let seen =
            |committed, after| Seen { seconds: 10.0, committed, under_way: (100, after), ..Seen::default() };
        assert!(seen(9_800, 120).sustains(1000.0));
        assert!(!seen(9_600, 120).sustains(1000.0), "too little came out");
        assert!(!seen(10_000, 1_600).sustains(1000.0), "the queue grew");
    }

    #[test]
    fn what_may_still_become_final_is_asked_again() {
        let outcome = |refused, retry_after_ms| api::SubmitOutcome {
            refused,
            retry_after_ms,
            ..api::SubmitOutcome::default()
        };
        assert_eq!(Fate::of(&outcome(Invalid::Replay.number(), 0)), Fate::Applied(None));
        assert_eq!(Fate::of(&outcome(0, 0)), Fate::Again(RETRY, false));
        assert_eq!(Fate::of(&outcome(9, 900)), Fate::Again(Duration::from_millis(900), true));
        let bad = Invalid::BadSignature.number();
        assert!(matches!(Fate::of(&outcome(bad, 0)), Fate::Failed(_)));
    }
}
