//! The replay window: the ids of the bodies that were committed and have not yet expired, by the second in which they
//! expire. It follows the chain, block by block; what is only proposed leaves no trace in it.

use std::collections::{BTreeMap, BTreeSet};

use assent_proto::{BodyId, TimeMs, VerifiedTx};

/// Body ids with their expiry, for as long as a replay could come.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    seconds: BTreeMap<u64, BTreeSet<BodyId>>,
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
        self.seconds.get(&second(expires_at)).is_some_and(|ids| ids.contains(body))
    }

    /// A block of that time with these transactions is final.
    pub fn committed(&mut self, time: TimeMs, txs: &[VerifiedTx]) {
        self.advance(time);
        for tx in txs {
            self.remember(tx.body_id(), tx.body().expires_at);
        }
    }

    /// Remembers a committed body.
    pub fn remember(&mut self, body: BodyId, expires_at: TimeMs) {
        self.seconds.entry(second(expires_at)).or_default().insert(body);
    }

    /// Forgets what had expired before `time`. An entry may stay up to a second longer; it changes no
    /// verdict, since expiry is looked at before replay.
    pub fn advance(&mut self, time: TimeMs) {
        while self.seconds.first_key_value().is_some_and(|(expires, _)| *expires < second(time)) {
            self.seconds.pop_first();
        }
    }

    /// How many bodies are remembered.
    pub fn len(&self) -> usize {
        self.seconds.values().map(BTreeSet::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::Hash;
    use proptest::prelude::*;

    /// As of a body that carries its expiry.
    fn id(n: u16, expires_at: u64) -> BodyId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        bytes[2..10].copy_from_slice(&expires_at.to_le_bytes());
        BodyId(Hash(bytes))
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(entries in prop::collection::vec((any::<u16>(), 0u64..5000), 0..300), now in 0u64..6000) {
            let mut window = ReplayWindow::new();
            let mut model = BTreeSet::new();
            for (n, expiry) in entries {
                if model.insert((n, expiry)) {
                    window.remember(id(n, expiry), TimeMs(expiry));
                }
            }
            prop_assert_eq!(window.len(), model.len());
            prop_assert!(model.iter().all(|(n, expiry)| window.contains(&id(*n, *expiry), TimeMs(*expiry))));
            window.advance(TimeMs(now));
            for (n, expiry) in &model {
                if *expiry >= now {
                    prop_assert!(window.contains(&id(*n, *expiry), TimeMs(*expiry)));
                }
                if *expiry + 1000 <= now {
                    prop_assert!(!window.contains(&id(*n, *expiry), TimeMs(*expiry)));
                }
            }
        }
    }
}
