//! Who is admitted, and what is measured of each: rates, shares, what waits to be sent. Measures only: what
//! follows from a reading stands in `conduct.rs`, and is done in `network.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use assent_genesis::Genesis;
use assent_ledger::State;
use assent_proto::validators::address;
use assent_proto::{Address, PublicKey};
use assent_replica::{GOSSIP_BYTES_MAX, MESSAGE_BYTES_MAX};
use bytes::Bytes;
use libp2p::PeerId;
use libp2p::identity;

use crate::network::NetworkError;
use crate::rate::{Meter, Rate, Reading, Scale};
use crate::runner::Share;
use crate::wire::Wire;

/// Bytes of direct messages to one peer that wait. A peer that asks and does not read fills no more.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Direct messages to one peer that wait.
const WAITING_MAX: usize = 1024;
/// Bytes of answers that one question may bring unmeasured.
const ANSWER_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX as u64;
/// Bytes of answers that may be expected of one peer at one time.
const EXPECTED_BYTES_MAX: u64 = 8 * ANSWER_BYTES_MAX;
/// What a gossiped message weighs on the wire besides its own bytes: author, signature, ids, frames.
const GOSSIP_OVERHEAD: u64 = 1024;

/// What its author signed so long before the newest message of its own that we have heard is an old one that somebody
/// repeats, ns. Less than gossip remembers what it has seen, and far more than a message is on its way.
const REPEATED_NS: u64 = 60_000_000_000;

/// A node that may connect: a validator or an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Admitted {
    /// Named by its consensus key.
    pub address: Address,
    /// Names it among peers.
    pub network_key: PublicKey,
}

impl Admitted {
    /// All nodes of the founding document.
    pub fn founding(genesis: &Genesis) -> Vec<Admitted> {
        let nodes = genesis.nodes().iter();
        nodes.map(|n| Admitted { address: n.address(), network_key: n.network_key }).collect()
    }

    /// All nodes of the registry in a state.
    pub fn registered(state: &State) -> Vec<Admitted> {
        let nodes = assent_ledger::nodes(state).nodes;
        nodes.iter().map(|n| Admitted { address: address(&n.key), network_key: n.network_key }).collect()
    }
}

/// The libp2p name of a network key.
pub fn peer_id(key: &PublicKey) -> Result<PeerId, NetworkError> {
    let key_of_peer = identity::ed25519::PublicKey::try_from_bytes(key.as_bytes());
    let key_of_peer = key_of_peer.map_err(|_| NetworkError::Key(*key))?;
    Ok(identity::PublicKey::from(key_of_peer).to_peer_id())
}

/// How much one peer may send. Several times what a busy node needs, so that who is beyond it for long is not
/// just busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages to all, by their author.
    pub gossip_messages: Rate,
    /// Their bytes.
    pub gossip_bytes: Rate,
    /// Questions, each of which may cost an answer of megabytes.
    pub requests: Rate,
    /// Direct messages of all kinds.
    pub direct_messages: Rate,
    /// Bytes of direct messages that answer no question of ours.
    pub unasked_bytes: Rate,
    /// Bytes that are read of all connections, whatever they carry.
    pub wire_bytes: Rate,
    /// Streams that are taken.
    pub streams: Rate,
    /// New connections.
    pub connections: Rate,
    /// Bytes that became no message.
    pub noise_bytes: Rate,
    /// Streams that brought none.
    pub noise_streams: Rate,
}

/// Messages of one peer a second, unless told otherwise.
pub const MESSAGES_PER_SECOND: u64 = 4_000;
/// Questions of one peer a second, unless told otherwise.
pub const REQUESTS_PER_SECOND: u64 = 50;
/// Bytes of one peer a second, unless told otherwise.
pub const BYTES_PER_SECOND: u64 = 64 << 20;

impl Limits {
    /// All limits from the three that an operator may want to choose.
    pub fn new(messages: u64, requests: u64, bytes: u64) -> Limits {
        let at_least = |burst: u64, whole: usize| burst.max(whole as u64);
        Limits {
            gossip_messages: Rate::new(messages, 4),
            gossip_bytes: Rate { per_second: bytes / 2, burst: at_least(bytes * 2, 8 * GOSSIP_BYTES_MAX) },
            requests: Rate::new(requests, 4),
            direct_messages: Rate::new(messages, 4),
            unasked_bytes: Rate { per_second: bytes / 64, burst: at_least(bytes, MESSAGE_BYTES_MAX) },
            wire_bytes: Rate::new(bytes, 1),
            streams: Rate::new(messages, 4),
            connections: Rate::new(1, 20),
            // What is on its way in several streams has not become a message yet.
            noise_bytes: Rate { per_second: bytes / 32, burst: at_least(bytes, 6 * MESSAGE_BYTES_MAX) },
            noise_streams: Rate::new(20, 20),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::new(MESSAGES_PER_SECOND, REQUESTS_PER_SECOND, BYTES_PER_SECOND)
    }
}

/// One admitted peer.
pub(crate) struct Peer {
    pub(crate) address: Address,
    /// With it it signs what it says to all.
    pub(crate) network_key: PublicKey,
    /// Its room in the loop's inbox.
    pub(crate) share: Share,
    /// Whether it listens to consensus.
    pub(crate) up: bool,
    pub(crate) outgoing: Outgoing,
    /// The newest number of what it said to all, since it is connected.
    newest: u64,
    gossip_messages: Meter,
    gossip_bytes: Meter,
    requests: Meter,
    direct_messages: Meter,
    unasked_bytes: Meter,
    connections: Meter,
    /// Bytes of answers that are still expected.
    expected: u64,
    noise: Noise,
}

/// What came on a peer's wire, weighed against what it became.
struct Noise {
    wire: Arc<Wire>,
    bytes: Scale,
    streams: Scale,
    weighed: (u64, u64),
    good_bytes: u64,
    good_streams: u64,
}

/// Direct messages to one peer.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) waiting: VecDeque<Bytes>,
    pub(crate) waiting_bytes: usize,
    pub(crate) in_flight: usize,
}

impl Outgoing {
    /// Lets a message wait, if there is room.
    pub(crate) fn push(&mut self, bytes: Bytes) -> bool {
        let room = self.waiting.len() < WAITING_MAX && self.waiting_bytes + bytes.len() <= WAITING_BYTES_MAX;
        if room {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(bytes);
        }
        room
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let bytes = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes.len();
        Some(bytes)
    }
}

impl Peer {
    pub(crate) fn new(node: Admitted, share: Share, wire: Arc<Wire>, limits: &Limits) -> Peer {
        let now = Instant::now();
        let meter = |rate| Meter::new(rate, now);
        Peer {
            address: node.address,
            network_key: node.network_key,
            share,
            up: false,
            outgoing: Outgoing::default(),
            newest: 0,
            gossip_messages: meter(limits.gossip_messages),
            gossip_bytes: meter(limits.gossip_bytes),
            requests: meter(limits.requests),
            direct_messages: meter(limits.direct_messages),
            unasked_bytes: meter(limits.unasked_bytes),
            connections: meter(limits.connections),
            expected: 0,
            noise: Noise {
                wire,
                bytes: Scale::new(limits.noise_bytes, now),
                streams: Scale::new(limits.noise_streams, now),
                weighed: (0, 0),
                good_bytes: 0,
                good_streams: 0,
            },
        }
    }

    /// Whether a message that it signed is no repetition. Its clock may have been set back before it connected.
    pub(crate) fn is_fresh(&mut self, number: u64) -> bool {
        let fresh = number.saturating_add(REPEATED_NS) >= self.newest;
        if self.up {
            self.newest = self.newest.max(number);
        }
        fresh
    }

    /// Its last connection is gone; says whether it listened to consensus.
    pub(crate) fn disconnected(&mut self) -> bool {
        self.outgoing = Outgoing::default();
        self.newest = 0;
        std::mem::take(&mut self.up)
    }

    /// It wrote a message to all.
    pub(crate) fn gossiped(&mut self, bytes: usize, now: Instant) -> Reading {
        self.gossip_messages.count(1, now).max(self.gossip_bytes.count(bytes as u64, now))
    }

    /// It sent a direct message. Bytes that we asked for are not measured.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) -> Reading {
        let bytes = bytes as u64;
        self.noise.good_bytes += bytes;
        self.noise.good_streams += 1;
        let unasked = bytes.saturating_sub(self.expected);
        self.expected = self.expected.saturating_sub(bytes);
        self.direct_messages.count(1, now).max(self.unasked_bytes.count(unasked, now))
    }

    /// It asked something.
    pub(crate) fn requested(&mut self, now: Instant) -> Reading {
        self.requests.count(1, now)
    }

    /// It connected.
    pub(crate) fn connected(&mut self, now: Instant) -> Reading {
        // The streams on which each side says hello to gossip and ping.
        self.noise.good_streams += 4;
        self.connections.count(1, now)
    }

    /// It was asked something.
    pub(crate) fn asked(&mut self) {
        self.expected = (self.expected + ANSWER_BYTES_MAX).min(EXPECTED_BYTES_MAX);
    }

    /// Weighs its noise. `gossip` is what all gossip weighed since the last time: each peer may bring us
    /// all of it once more.
    pub(crate) fn weigh(&mut self, gossip: u64, now: Instant) -> bool {
        let noise = &mut self.noise;
        let (bytes, streams) = noise.wire.counts();
        let came = (bytes - noise.weighed.0, streams - noise.weighed.1);
        noise.weighed = (bytes, streams);
        let good = (std::mem::take(&mut noise.good_bytes), std::mem::take(&mut noise.good_streams));
        // Both are weighed, whatever the first says.
        let loud = noise.bytes.weigh(came.0, good.0.saturating_add(2 * gossip), now);
        noise.streams.weigh(came.1, good.1, now) || loud
    }

    /// How long its wire was throttled since the last time.
    pub(crate) fn take_waited(&self) -> std::time::Duration {
        self.noise.wire.take_waited()
    }
}

/// What a gossiped message weighs on the wire.
pub(crate) fn gossip_weight(bytes: usize) -> u64 {
    bytes as u64 + GOSSIP_OVERHEAD
}

/// What changes when another list of nodes is admitted.
pub(crate) struct Changes {
    pub(crate) come: BTreeMap<PeerId, Admitted>,
    pub(crate) gone: Vec<PeerId>,
}

/// Compares the peers that are admitted with those that shall be. A node whose consensus key has changed goes
/// and comes. A key that libp2p cannot use is left out: nobody can show it.
pub(crate) fn changes(peers: &BTreeMap<PeerId, Peer>, nodes: &[Admitted], own: &PeerId) -> Changes {
    let named = |n: &Admitted| match peer_id(&n.network_key) {
        Ok(peer) => (peer != *own).then_some((peer, *n)),
        Err(error) => {
            tracing::error!(%error, "a node of the registry cannot be admitted");
            None
        }
    };
    let mut come: BTreeMap<PeerId, Admitted> = nodes.iter().filter_map(named).collect();
    let mut gone = Vec::new();
    for (id, peer) in peers {
        match come.get(id) {
            Some(node) if node.address == peer.address => {
                come.remove(id);
            }
            _ => gone.push(*id),
        }
    }
    Changes { come, gone }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner;
    use assent_genesis::testing;
    use std::time::Duration;

    fn peer(limits: &Limits) -> (Peer, Arc<Wire>) {
        let wire = Wire::new(limits.wire_bytes, limits.streams);
        let (inbox, _) = runner::inbox();
        let (genesis, ..) = testing::four();
        (Peer::new(Admitted::founding(&genesis)[0], inbox.share(), wire.clone(), limits), wire)
    }

    /// The worst reading that comes of doing something so often.
    fn worst(n: usize, mut each: impl FnMut() -> Reading) -> Reading {
        (0..n).map(|_| each()).max().unwrap()
    }

    #[test]
    fn a_busy_validator_is_within_the_default_limits() {
        let now = Instant::now();
        let (mut peer, _) = peer(&Limits::default());
        // Ten seconds of 10,000 transactions a second of 500 bytes, all through one node, which proposes them.
        for second in 0..10 {
            let at = now + Duration::from_secs(second);
            assert_eq!(worst(1_000, || peer.gossiped(5_000, at)), Reading::Within);
            assert_eq!(worst(20, || peer.gossiped(256 << 10, at)), Reading::Within);
            assert_eq!(worst(20, || peer.requested(at)), Reading::Within);
            assert_eq!(worst(100, || peer.sent(100, at)), Reading::Within);
        }
    }

    #[test]
    fn what_was_signed_long_ago_is_a_repetition_until_its_author_connects_anew() {
        let (mut peer, _) = peer(&Limits::default());
        let second = 1_000_000_000;
        assert!(peer.is_fresh(100 * second) && peer.is_fresh(1), "who is not connected is not measured");
        peer.up = true;
        assert!(peer.is_fresh(100 * second) && peer.is_fresh(50 * second));
        assert!(!peer.is_fresh(39 * second));
        assert!(peer.disconnected() && !peer.up);
        peer.up = true;
        assert!(peer.is_fresh(39 * second), "its clock was set back");
    }

    #[test]
    fn what_was_asked_for_is_not_measured_and_what_was_not_is() {
        let now = Instant::now();
        let limits = Limits::new(1_000, 50, 1 << 20);
        let (mut peer, _) = peer(&limits);
        for _ in 0..100 {
            peer.asked();
            assert_eq!(peer.sent(MESSAGE_BYTES_MAX, now), Reading::Within);
            assert_eq!(peer.sent(MESSAGE_BYTES_MAX, now), Reading::Within);
        }
        assert_eq!(worst(6, || peer.sent(MESSAGE_BYTES_MAX, now)), Reading::Flood);
    }

    #[test]
    fn noise_is_what_became_no_message() {
        let now = Instant::now();
        let (mut peer, _) = peer(&Limits::default());
        assert!(!peer.weigh(0, now));
        assert_eq!(peer.noise.weighed, (0, 0));
        // Every stream brings a message: no noise, however many.
        for _ in 0..10_000 {
            peer.sent(10, now);
        }
        assert!(!peer.weigh(0, now));
    }

    #[test]
    fn another_list_of_nodes_makes_peers_come_and_go() {
        let (genesis, ..) = testing::four();
        let all = Admitted::founding(&genesis);
        let limits = Limits::default();
        let own = peer_id(&all[0].network_key).unwrap();
        let first = changes(&BTreeMap::new(), &all[..3], &own);
        assert_eq!((first.come.len(), first.gone.len()), (2, 0), "this node is not its own peer");
        let mut peers = BTreeMap::new();
        for (id, node) in first.come {
            let (mut peer, _) = peer(&limits);
            peer.address = node.address;
            peers.insert(id, peer);
        }
        let none = changes(&peers, &all[..3], &own);
        assert!(none.come.is_empty() && none.gone.is_empty());
        let next = changes(&peers, &[all[0], all[2], all[3]], &own);
        assert_eq!(
            next.come.into_iter().collect::<Vec<_>>(),
            [(peer_id(&all[3].network_key).unwrap(), all[3])]
        );
        assert_eq!(next.gone, [peer_id(&all[1].network_key).unwrap()]);
        let rekeyed = Admitted { address: all[3].address, network_key: all[2].network_key };
        let rekeyed = changes(&peers, &[all[1], rekeyed], &own);
        assert_eq!((rekeyed.come.len(), rekeyed.gone.len()), (1, 1), "under another consensus key it is new");
    }
}
