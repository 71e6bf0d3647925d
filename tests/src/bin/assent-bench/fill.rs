//! Puts many transactions on the chain as fast as it takes them, signed on all cores as they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use assent_client::rpc::api;
use assent_tests::clients::Door;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::Failure;
use crate::drive::Fate;

/// Transactions in a call; the interface takes no more.
const CALL: usize = 256;
/// Calls at one time: some blocks' worth, and less than the pool holds.
const CALLS: usize = 48;
/// Progress is told so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Nothing of a call became final for so long: it never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// Has `count` transactions become final, each made by its number, in any order; says how many a second.
pub(crate) async fn fill(
    door: &Door,
    what: &str,
    count: usize,
    make: impl Fn(usize) -> Bytes + Send + Sync + 'static,
) -> Result<f64, Failure> {
    let (make, next, done) = (Arc::new(make), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut calls = JoinSet::<Result<(), Failure>>::new();
    for _ in 0..CALLS.min(count.div_ceil(CALL)) {
        let (mut door, make, next, done) = (door.clone(), make.clone(), next.clone(), done.clone());
        calls.spawn(async move {
            loop {
                let from = next.fetch_add(CALL, Ordering::Relaxed);
                if from >= count {
                    return Ok(());
                }
                let (make, numbers) = (make.clone(), from..(from + CALL).min(count));
                let signed = numbers.len();
                let sign = move || numbers.map(|n| make(n)).collect();
                submit(&mut door, tokio::task::spawn_blocking(sign).await?).await?;
                done.fetch_add(signed, Ordering::Relaxed);
            }
        });
    }
    let begun = Instant::now();
    let per_second = |done: usize| done as f64 / begun.elapsed().as_secs_f64();
    let mut tell = tokio::time::interval_at(tokio::time::Instant::now() + TOLD_EVERY, TOLD_EVERY);
    loop {
        tokio::select! {
            ended = calls.join_next() => match ended {
                Some(ended) => ended??,
                None => return Ok(per_second(count)),
            },
            _ = tell.tick() => {
                let done = done.load(Ordering::Relaxed);
                eprintln!("  {done} of {count} {what}, {:.0} a second", per_second(done));
            }
        }
    }
}

/// Hands these in until all are final.
async fn submit(door: &mut Door, mut open: Vec<Bytes>) -> Result<(), Failure> {
    let mut moved = Instant::now();
    loop {
        let (wait, left) = call(door, &open).await?;
        if left.is_empty() {
            return Ok(());
        }
        if left.len() < open.len() {
            moved = Instant::now();
        }
        if moved.elapsed() > PATIENCE {
            return Err(format!("{} transactions do not become final", left.len()).into());
        }
        open = left;
        tokio::time::sleep(wait).await;
    }
}

/// Hands these in once; gives those that are to be handed in again, and when.
async fn call(door: &mut Door, envelopes: &[Bytes]) -> Result<(Duration, Vec<Bytes>), Failure> {
    let (mut left, mut wait) = (vec![true; envelopes.len()], Duration::from_millis(250));
    let request = api::SubmitManyRequest { envelopes: envelopes.to_vec(), wait: api::Wait::Final.into() };
    if let Ok(reply) = door.submit_many(request).await {
        let mut replies = reply.into_inner();
        while let Ok(Some(reply)) = replies.message().await {
            for outcome in reply.outcomes {
                match Fate::of(&outcome) {
                    Fate::Applied(_) => {
                        if let Some(left) = left.get_mut(outcome.index as usize) {
                            *left = false;
                        }
                    }
                    Fate::Again(after, _) => wait = wait.max(after),
                    Fate::Failed(why) => return Err(format!("a transaction failed: {why}").into()),
                }
            }
        }
    }
    let left = envelopes.iter().zip(left).filter(|(_, left)| *left).map(|(bytes, _)| bytes.clone());
    Ok((wait, left.collect()))
}
