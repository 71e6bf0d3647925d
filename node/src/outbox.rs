//! Transactions of this node's clients on their way to the other nodes, gathered into few messages.
//!
//! Each message costs every node that hears it a signature to verify. The first after a pause goes at once, so that
//! waiting costs nobody anything while there is little to do. Time is an argument.

use std::time::{Duration, Instant};

use assent_replica::{GOSSIP_BYTES_MAX, TRANSACTIONS_MAX};
use bytes::Bytes;

/// The shortest time between two messages, unless one is full.
const EVERY: Duration = Duration::from_millis(40);
/// Bytes of envelopes in one message, with room for its framing.
const BYTES_MAX: usize = GOSSIP_BYTES_MAX - 1024;
/// What the length before each envelope takes.
const LENGTH_BYTES: usize = 4;

/// Envelopes that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Vec<Bytes>,
    bytes: usize,
    last: Option<Instant>,
}

impl Outbox {
    /// Takes envelopes that fit into one message, and gives the message that is full with what waited before.
    pub(crate) fn add(&mut self, envelopes: Vec<Bytes>) -> Option<Vec<Bytes>> {
        let bytes: usize = envelopes.iter().map(|e| e.len() + LENGTH_BYTES).sum();
        let fits =
            self.bytes + bytes <= BYTES_MAX && self.waiting.len() + envelopes.len() <= TRANSACTIONS_MAX;
        let full = (!fits).then(|| self.empty());
        self.waiting.extend(envelopes);
        self.bytes += bytes;
        full.filter(|message| !message.is_empty())
    }

    /// When what waits is to be sent; none while nothing does.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.last.map_or(now, |last| last + EVERY))
    }

    /// All that waits, if it is time.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        self.due(now).filter(|due| *due <= now)?;
        self.last = Some(now);
        Some(self.empty())
    }

    fn empty(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelopes(count: usize, bytes: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![7; bytes]); count]
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_together_a_little_later() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        assert_eq!((outbox.due(now), outbox.take(now)), (None, None));
        assert_eq!(outbox.add(envelopes(1, 10)), None);
        assert_eq!(outbox.take(now).map(|m| m.len()), Some(1));
        for _ in 0..3 {
            assert_eq!(outbox.add(envelopes(2, 10)), None);
            assert_eq!(outbox.take(now), None);
        }
        assert_eq!(outbox.due(now), Some(now + EVERY));
        assert_eq!(outbox.take(now + EVERY).map(|m| m.len()), Some(6));
        assert_eq!(outbox.due(now + EVERY), None);
        outbox.add(envelopes(1, 10));
        assert_eq!(outbox.take(now + 3 * EVERY).map(|m| m.len()), Some(1), "after a pause at once");
    }

    #[test]
    fn a_full_message_does_not_wait_and_none_is_larger_than_gossip_carries() {
        for (count, bytes) in [(TRANSACTIONS_MAX, 100), (5, 100 << 10)] {
            let mut outbox = Outbox::default();
            let one = envelopes(count, bytes);
            assert_eq!(outbox.add(one.clone()), None, "it waits alone");
            assert_eq!(outbox.add(envelopes(1, bytes)), Some(one));
            let rest = outbox.take(Instant::now()).unwrap();
            let message = assent_replica::PeerMessage::Transactions(rest);
            assert!(message.encode().len() <= GOSSIP_BYTES_MAX);
        }
    }
}
