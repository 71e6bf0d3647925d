//! The node's clock: wall time in milliseconds that never goes back, which the replica relies on.

use std::time::{SystemTime, UNIX_EPOCH};

use assent_proto::TimeMs;

/// A clock that stands still where the wall clock is set back.
#[derive(Debug, Default)]
pub struct Clock {
    latest: TimeMs,
}

impl Clock {
    /// The time, at least that of the last call.
    pub fn now(&mut self) -> TimeMs {
        self.latest = self.latest.max(wall());
        self.latest
    }
}

/// The wall clock.
fn wall() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
