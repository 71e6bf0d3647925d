//! How often and how much: token buckets, and meters that tell a burst from a flood. Time is an argument.
//!
//! What a caller does with the answer (drop, wait, disconnect) is said elsewhere.

use std::time::{Duration, Instant};

/// So many tokens a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second; at least 1.
    pub per_second: u64,
    /// Tokens that a full bucket holds; at least 1.
    pub burst: u64,
}

impl Rate {
    /// `per_second` tokens a second, and `seconds` seconds' worth of them at once.
    pub const fn new(per_second: u64, seconds: u64) -> Rate {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Rate { per_second, burst: per_second.saturating_mul(if seconds == 0 { 1 } else { seconds }) }
    }
}

/// A bucket of tokens.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, tokens: rate.burst as f64, at: now }
    }

    /// Takes `n` tokens if there are as many.
    pub fn take(&mut self, n: u64, now: Instant) -> bool {
        self.fill(now);
        let enough = self.tokens >= n as f64;
        if enough {
            self.tokens -= n as f64;
        }
        enough
    }

    /// Takes `n` tokens even if there are fewer, and says how long the debt will stand.
    pub fn owe(&mut self, n: u64, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= n as f64;
        self.until(0)
    }

    /// How long until `n` tokens are there (or the bucket is full), as of the last call that had a time.
    pub fn until(&self, n: u64) -> Duration {
        let lacking = n.min(self.rate.burst) as f64 - self.tokens;
        Duration::from_secs_f64((lacking / self.rate.per_second.max(1) as f64).clamp(0.0, 3600.0))
    }

    /// Whether nothing was taken for so long that forgetting the bucket changes nothing.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.rate.burst as f64
    }

    /// Fills it to the brim.
    pub fn refill(&mut self) {
        self.tokens = self.rate.burst as f64;
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.rate.per_second as f64).min(self.rate.burst as f64);
    }
}

/// What a meter says, the worse the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// Within the rate.
    Within,
    /// Beyond it: not to be served, and nothing worse.
    Over,
    /// Beyond it for so long that no burst explains it. Said once, then the patience is new.
    Flood,
}

/// For how long a peer that stays far beyond its rate is only throttled: once its burst is used up, it may lose
/// as much again. What it loses is forgiven at a quarter of the rate.
const FORGIVEN: u64 = 4;

/// A bucket, and the patience with one who finds it empty again and again.
#[derive(Clone, Debug)]
pub struct Meter {
    bucket: Bucket,
    patience: Bucket,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new(rate: Rate, now: Instant) -> Meter {
        let forgiven = Rate { per_second: (rate.per_second / FORGIVEN).max(1), burst: rate.burst };
        Meter { bucket: Bucket::new(rate, now), patience: Bucket::new(forgiven, now) }
    }

    /// Counts `n`.
    pub fn count(&mut self, n: u64, now: Instant) -> Reading {
        if self.bucket.take(n, now) {
            Reading::Within
        } else if self.patience.take(n, now) {
            Reading::Over
        } else {
            self.patience.refill();
            Reading::Flood
        }
    }
}

/// Weighs what came against what it was good for: bytes that became no message, streams that brought none.
#[derive(Clone, Debug)]
pub struct Scale {
    rate: Rate,
    /// What came in vain; below zero where good things were announced that are still to come.
    vain: f64,
    at: Instant,
}

impl Scale {
    /// A scale that has seen nothing. `rate.per_second` may come in vain for ever, `rate.burst` at once.
    pub fn new(rate: Rate, now: Instant) -> Scale {
        Scale { rate, vain: 0.0, at: now }
    }

    /// Adds what came and what of it was good; true once more than the burst came in vain, and then anew.
    pub fn weigh(&mut self, came: u64, good: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let (burst, forgiven) = (self.rate.burst as f64, passed * self.rate.per_second as f64);
        self.vain = (self.vain + came as f64 - good as f64 - forgiven).max(-burst);
        let tipped = self.vain > burst;
        if tipped {
            self.vain = 0.0;
        }
        tipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate { per_second: 10, burst: 20 };

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(TEN, begin);
        assert!(bucket.take(20, begin) && !bucket.take(1, begin));
        assert_eq!(bucket.until(5), seconds(0.5));
        assert!(!bucket.take(5, begin + seconds(0.4)));
        assert!(bucket.take(5, begin + seconds(0.5)));
        assert!(bucket.is_full(begin + seconds(10.0)));
        assert!(!bucket.take(21, begin + seconds(100.0)), "never more than the burst");
        assert!(bucket.take(20, begin), "an older time takes nothing away");
    }

    #[test]
    fn debt_is_waited_off() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(TEN, begin);
        assert_eq!(bucket.owe(20, begin), Duration::ZERO);
        assert_eq!(bucket.owe(10, begin), seconds(1.0));
        assert_eq!(bucket.owe(10, begin + seconds(1.0)), seconds(1.0));
    }

    #[test]
    fn a_burst_is_throttled_and_a_flood_is_told_again_and_again() {
        let begin = Instant::now();
        let mut meter = Meter::new(TEN, begin);
        let mut read = |n: u32| (0..n).map(|_| meter.count(1, begin)).collect::<Vec<_>>();
        assert!(read(20).iter().all(|r| *r == Reading::Within));
        assert!(read(20).iter().all(|r| *r == Reading::Over));
        for _ in 0..3 {
            assert_eq!(read(21).iter().filter(|r| **r == Reading::Flood).count(), 1);
        }
        assert_eq!(meter.count(1, begin + seconds(1.0)), Reading::Within);
    }

    #[test]
    fn a_little_above_the_rate_is_throttled_for_ever() {
        let begin = Instant::now();
        let mut meter = Meter::new(TEN, begin);
        let readings = (0..12_000).map(|i| meter.count(1, begin + seconds(f64::from(i) / 12.0)));
        let counts = readings.fold((0, 0, 0), |(w, o, f), r| match r {
            Reading::Within => (w + 1, o, f),
            Reading::Over => (w, o + 1, f),
            Reading::Flood => (w, o, f + 1),
        });
        assert!(counts.1 > 1_000 && counts.2 == 0, "{counts:?}");
    }

    #[test]
    fn the_scale_tips_on_what_comes_in_vain_alone() {
        let begin = Instant::now();
        let mut scale = Scale::new(TEN, begin);
        assert!(!scale.weigh(1_000, 1_000, begin), "all of it was good");
        assert!(!scale.weigh(0, 15, begin) && !scale.weigh(30, 0, begin), "the good may be told first");
        assert!(scale.weigh(30, 0, begin), "and what is beyond is in vain");
        assert!(!scale.weigh(20, 0, begin) && scale.weigh(1, 0, begin), "and again");
        assert!((1..1_000).all(|i| !scale.weigh(1, 0, begin + seconds(f64::from(i) / 10.0))));
    }
}
