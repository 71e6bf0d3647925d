//! The replay window: the ids of the bodies that were committed and have not yet expired.
//!
//! Ids are kept by the second in which they expire, and there in sorted runs that are merged when they have
//! grown alike. Runs never change, so that cloning a window of millions copies some thousand pointers, and a
//! block that is executed and then not decided costs nothing but its own ids.

use std::collections::BTreeMap;
use std::sync::Arc;

use assent_proto::{BodyId, TimeMs};

/// One second's ids: sorted runs, each longer than the next.
type Runs = Vec<Arc<[BodyId]>>;

/// Body ids with their expiry, for as long as a replay could come.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    seconds: BTreeMap<u64, Runs>,
}

fn second(expires_at: TimeMs) -> u64 {
    expires_at.0 / 1000
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a body was committed. A body carries its expiry, so the same id has the same expiry; once
    /// that has passed the answer no longer matters and may be no.
    pub fn contains(&self, body: &BodyId, expires_at: TimeMs) -> bool {
        let runs = self.seconds.get(&second(expires_at));
        runs.is_some_and(|runs| runs.iter().any(|run| run.binary_search(body).is_ok()))
    }

    /// Remembers a committed body.
    pub fn remember(&mut self, body: BodyId, expires_at: TimeMs) {
        let runs = self.seconds.entry(second(expires_at)).or_default();
        let mut run: Arc<[BodyId]> = Arc::new([body]);
        while let Some(last) = runs.pop_if(|last| last.len() <= run.len()) {
            run = merge(&last, &run);
        }
        runs.push(run);
    }

    /// Forgets what had expired before `time`. An entry may stay up to a second longer; it changes no
    /// verdict, since expiry is looked at before replay.
    pub fn advance(&mut self, time: TimeMs) {
        self.seconds = self.seconds.split_off(&second(time));
    }

    /// How many bodies are remembered.
    pub fn len(&self) -> usize {
        self.seconds.values().flatten().map(|run| run.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty()
    }
}

fn merge(a: &[BodyId], b: &[BodyId]) -> Arc<[BodyId]> {
    let mut all = [a, b].concat();
    all.sort();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::Hash;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn id(n: u16) -> BodyId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        BodyId(Hash(bytes))
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(entries in prop::collection::vec((any::<u16>(), 0u64..5000), 0..300), now in 0u64..6000) {
            let mut window = ReplayWindow::new();
            let mut model = BTreeSet::new();
            for (n, expiry) in entries {
                if model.insert((n, expiry)) {
                    window.remember(id(n), TimeMs(expiry));
                }
            }
            prop_assert_eq!(window.len(), model.len());
            let before = window.clone();
            window.advance(TimeMs(now));
            for (n, expiry) in &model {
                prop_assert!(before.contains(&id(*n), TimeMs(*expiry)), "an older version stays valid");
                if *expiry >= now {
                    prop_assert!(window.contains(&id(*n), TimeMs(*expiry)));
                }
                if *expiry + 1000 <= now {
                    prop_assert!(!window.contains(&id(*n), TimeMs(*expiry)));
                }
            }
        }
    }
}
