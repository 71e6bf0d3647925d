//! Questions of parties: would this request be permitted. Who asks shows by a signature that is fresh; whoever is no
//! party, or asks of what does not exist, hears one code and nothing else. What the rules say is the ledger's to
//! tell, from the newest final state; nothing is committed, and the replica's thread hears nothing of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assent_ledger::{BlockContext, Verdict, explain, may_ask, may_sign};
use assent_proto::question::{Question, VerifiedQuestion};
use assent_proto::transaction::Author;
use assent_proto::{Denial, GenesisHash, Invalid, TimeMs};
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::api;
use crate::clock::Clock;
use crate::feed::View;
use crate::metrics::Metrics;
use crate::rate::{Bucket, Rate};

/// For how long a question is answered, before and after the time that it names: a recorded one is soon of no use.
pub const FRESH: Duration = Duration::from_secs(60);
/// How often one asker may ask.
pub const ASKER_RATE: Rate = Rate { per_second: 5, burst: 40 };
/// Questions that are looked into at one time.
const AT_ONCE_MAX: usize = 8;
/// Askers whose rate is remembered; those beyond share one.
const ASKERS_MAX: usize = 8192;

/// Where questions are answered.
#[derive(Clone)]
pub(crate) struct Desk {
    genesis: GenesisHash,
    clock: Arc<Mutex<Clock>>,
    askers: Arc<Mutex<Askers>>,
    room: Arc<Semaphore>,
    metrics: Metrics,
}

/// Why a question is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// By this code.
    Refused(Invalid),
    /// The asker asks too often: again after this.
    TooOften(Duration),
    /// By a fault of this node.
    Failed,
}

impl Desk {
    pub(crate) fn new(genesis: GenesisHash, metrics: Metrics) -> Desk {
        Desk {
            genesis,
            clock: Arc::default(),
            askers: Arc::default(),
            room: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            metrics,
        }
    }

    /// Answers from a state, on a blocking thread; counts it, and writes one line of log without what was asked.
    pub(crate) async fn answer(
        &self,
        view: Arc<View>,
        bytes: Bytes,
    ) -> Result<api::ExplainReply, Unanswered> {
        // Those who wait for room are calls, which are bounded.
        let Ok(room) = self.room.clone().acquire_owned().await else { return Err(Unanswered::Failed) };
        let desk = self.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let _room = room;
            let now = desk.lock_clock().now();
            desk.judge(&view, &bytes, now, Instant::now())
        });
        let Ok((asker, outcome)) = judged.await else { return Err(Unanswered::Failed) };
        let name = name(&outcome);
        self.metrics.explain(name);
        tracing::info!(asker, outcome = name, "a question was asked");
        outcome
    }

    /// What to answer, and which kind of asker it is; its kind is known once its signature is.
    fn judge(
        &self,
        view: &View,
        bytes: &[u8],
        now: TimeMs,
        instant: Instant,
    ) -> (&'static str, Result<api::ExplainReply, Unanswered>) {
        match self.known(view, bytes, now) {
            Err(reason) => ("unknown", Err(Unanswered::Refused(reason))),
            Ok(question) => (kind(&question.asker), self.told(view, &question, now, instant)),
        }
    }

    /// The question, once it is certain who asks and when. What the bytes alone show has its own code; that
    /// somebody does not exist, and that a signature is not his, have the same.
    fn known(&self, view: &View, bytes: &[u8], now: TimeMs) -> Result<Question, Invalid> {
        let asked = VerifiedQuestion::verify(&self.genesis, bytes).map_err(|reason| match reason {
            Invalid::BadSignature => Invalid::NotAParty,
            other => other,
        })?;
        let question = asked.question();
        timely(question.time, now)?;
        let time = view.certified.header.time;
        if !may_sign(&view.state, time, &question.asker, asked.signer()) {
            return Err(Invalid::NotAParty);
        }
        Ok(question.clone())
    }

    fn told(
        &self,
        view: &View,
        question: &Question,
        now: TimeMs,
        instant: Instant,
    ) -> Result<api::ExplainReply, Unanswered> {
        let askers = self.askers.lock();
        askers.unwrap_or_else(PoisonError::into_inner).take(question.asker, instant)?;
        let Question { asker, requester, request, .. } = question;
        let header = &view.certified.header;
        if !may_ask(&view.state, header.time, asker, requester, request) {
            return Err(Unanswered::Refused(Invalid::NotAParty));
        }
        let block = BlockContext { height: header.height.next(), time: now.max(header.time) };
        let verdict = explain(&view.state, block, requester, request);
        let verdict = verdict.ok_or(Unanswered::Refused(Invalid::NotAParty))?;
        Ok(reply(&verdict, block))
    }

    fn lock_clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timely(asked: TimeMs, now: TimeMs) -> Result<(), Invalid> {
    let window = FRESH.as_millis() as u64;
    if asked.plus(window) < now {
        return Err(Invalid::Expired);
    }
    if asked > now.plus(window) {
        return Err(Invalid::TooFarAhead);
    }
    Ok(())
}

fn reply(verdict: &Verdict, block: BlockContext) -> api::ExplainReply {
    let (until, uses_left, rule) = match verdict {
        Verdict::Permitted { until, uses_left } => (until.0, *uses_left, None),
        Verdict::Denied { rule, .. } => (0, None, *rule),
    };
    api::ExplainReply {
        code: verdict.code(),
        rule: rule.map_or(0, |r| r.number),
        rows: rule.map_or(&[][..], |r| r.rule.rows).iter().map(|row| u32::from(*row)).collect(),
        height: block.height.0,
        time: block.time.0,
        permit_until: until,
        uses_left,
    }
}

fn kind(asker: &Author) -> &'static str {
    match asker {
        Author::Institution(_) => "institution",
        Author::Account(_) => "account",
    }
}

/// The outcome's name: of a code, and of nothing that was asked.
fn name(outcome: &Result<api::ExplainReply, Unanswered>) -> &'static str {
    match outcome {
        Ok(reply) => Denial::from_number(reply.code).map_or("Permitted", Denial::name),
        Err(Unanswered::Refused(reason)) => reason.name(),
        Err(Unanswered::TooOften(_)) => Invalid::Busy.name(),
        Err(Unanswered::Failed) => "Failed",
    }
}

/// How often each asker has asked of late. Only who has shown who he is gets in here.
#[derive(Debug, Default)]
struct Askers {
    known: HashMap<Author, Bucket>,
    others: Option<Bucket>,
}

impl Askers {
    fn take(&mut self, asker: Author, now: Instant) -> Result<(), Unanswered> {
        let full = self.known.len() >= ASKERS_MAX && !self.known.contains_key(&asker);
        if full {
            self.known.retain(|_, bucket| !bucket.is_full(now));
        }
        let fresh = || Bucket::new(ASKER_RATE, now);
        let bucket = if self.known.len() >= ASKERS_MAX && !self.known.contains_key(&asker) {
            self.others.get_or_insert_with(fresh)
        } else {
            self.known.entry(asker).or_insert_with(fresh)
        };
        if bucket.take(1, now) {
            return Ok(());
        }
        Err(Unanswered::TooOften(bucket.until(1).max(Duration::from_millis(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::{AccountId, Hash};

    fn person(n: u32) -> Author {
        let mut id = Hash::ZERO;
        id.0[..4].copy_from_slice(&n.to_be_bytes());
        Author::Account(AccountId(id))
    }

    #[test]
    fn a_question_is_answered_for_a_minute_either_way() {
        let now = TimeMs(1_790_000_000_000);
        let at = |ms: i64| timely(TimeMs(now.0.strict_add_signed(ms)), now);
        assert_eq!([-60_000, 0, 60_000].map(at), [Ok(()); 3]);
        assert_eq!(at(-60_001), Err(Invalid::Expired));
        assert_eq!(at(60_001), Err(Invalid::TooFarAhead));
        assert_eq!(timely(TimeMs(u64::MAX), now), Err(Invalid::TooFarAhead));
        assert_eq!(timely(TimeMs(0), now), Err(Invalid::Expired));
    }

    #[test]
    fn one_asker_has_his_rate_and_takes_nobody_elses() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        for _ in 0..ASKER_RATE.burst {
            askers.take(person(1), now).unwrap();
        }
        let Err(Unanswered::TooOften(wait)) = askers.take(person(1), now) else { panic!("it is too much") };
        assert_eq!(wait, Duration::from_millis(200));
        assert_eq!(askers.take(person(2), now), Ok(()));
        assert_eq!(askers.take(person(1), now + wait), Ok(()), "the hint is right");
    }

    #[test]
    fn the_memory_of_askers_is_bounded_and_the_quiet_are_forgotten() {
        let (mut askers, now) = (Askers::default(), Instant::now());
        let many = 2 * ASKERS_MAX as u32;
        let refused = (0..many).filter(|n| askers.take(person(*n), now).is_err()).count();
        assert_eq!(askers.known.len(), ASKERS_MAX);
        assert!(refused > 0, "those beyond share one");
        let later = now + Duration::from_secs(60);
        askers.take(person(many), later).unwrap();
        assert_eq!(askers.known.len(), 1);
    }
}
