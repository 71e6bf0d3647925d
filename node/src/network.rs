//! One libp2p swarm: who may connect, and how validators' messages travel. What they mean is the replica's.
//!
//! ```text
//! TCP ─▶ Noise (who is it?) ─▶ admitted? ─▶ metered ─▶ Yamux streams ─▶ gossip | direct messages
//!                                 └─ no: closed and logged; no protocol is ever spoken with it
//! ```
//!
//! Admitted are the nodes of the registry on chain (of genesis before the first block), validators and
//! observers. Messages are bounded, decoded and attributed to their author here: what is said to all is signed
//! (`signed.rs`), so a message is its author's, whoever passed it on. An author sends it to each peer that it is
//! connected to; who misses a connection to somebody asks, by listening to the topic `relay`, to be passed on what
//! all others say; and what was lost on the way is offered by its id twice a second. What is beyond a peer's rates is
//! dropped or not read (`peers.rs`, `wire.rs`); what a peer's misbehaviour does to it is decided in `conduct.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_proto::hash::GOSSIP_ID;
use assent_proto::{Address, GenesisHash, PublicKey, SecretKey};
use assent_replica::{GOSSIP_BYTES_MAX, PeerMessage};
use bytes::Bytes;
use futures::StreamExt;
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{self, MessageAcceptance, MessageAuthenticity, MessageId, PublishError, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, Transport, identity, noise, ping, request_response, swarm, tcp};
use libp2p_allow_block_list::{self as allow_list, AllowedPeers, NotAllowed};
use libp2p_connection_limits::{self as limits, ConnectionLimits};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::conduct::{Conduct, Consequence, Offence};
pub use crate::direct::direct_protocol;
use crate::direct::{self, DirectCodec, IN_FLIGHT_MAX};
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::peers::{self, Changes, Peer, gossip_weight};
pub use crate::peers::{
    Admitted, BYTES_PER_SECOND, Limits, MESSAGES_PER_SECOND, REQUESTS_PER_SECOND, peer_id,
};
use crate::rate::Reading;
use crate::runner::{Inbox, NoRoom};
use crate::signed::{Author, FRAME_BYTES, Signed, Topic};
use crate::wire::Wires;

/// Commands that wait for the swarm.
const COMMANDS_MAX: usize = 4096;
/// Connections between two nodes: each may have dialled the other twice.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Connections in each direction: those of 256 nodes, the most that the registry holds.
const CONNECTIONS_MAX: u32 = 256 * CONNECTIONS_PER_PEER_MAX;
/// Connections that are not authenticated yet.
const PENDING_MAX: u32 = 64;
/// How long a connection may take until it is authenticated.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Streams of one connection that a peer opened and whose protocol is not agreed yet.
const NEGOTIATING_MAX: usize = 32;
/// First and longest wait before a peer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long a connected peer may take to say what it listens to. Gossip says it on the first connection alone: to a
/// peer that started anew while we still held a connection to its former process, it never does. Then all is closed
/// and dialled again.
const MUTE_MAX: Duration = Duration::from_secs(5);
/// Nobody dials who is connected. A peer that dials though we have been connected to it for longer than both may have
/// dialled each other at once has lost that connection without our hearing of it.
const DIALLED_TWICE_MAX: Duration = Duration::from_secs(10);
/// What gossip adds to a message with its frame: the topic, lengths.
const GOSSIP_FRAME_BYTES: usize = 1024;
/// Bytes of message ids that are offered or asked for at one time, and how many of them: half a second's, several times.
const OFFER_BYTES_MAX: usize = 64 << 10;
const OFFER_MAX: usize = 1500;
/// Gossiped messages that wait for a peer that does not read.
const GOSSIP_WAITING_MAX: usize = 1024;

/// What the swarm is told to do.
#[derive(Debug)]
pub enum Command {
    /// Tell all nodes.
    Broadcast(PeerMessage),
    /// Tell one.
    Send {
        /// Whom.
        to: Address,
        /// What.
        message: PeerMessage,
    },
    /// A peer broke the protocol above the network.
    Punish {
        /// Who.
        peer: Address,
        /// How.
        what: &'static str,
    },
    /// Admit these nodes and no others.
    Admit(Vec<Admitted>),
    /// Close everything.
    Stop,
}

/// The door to the swarm.
#[derive(Clone)]
pub struct Commands(mpsc::Sender<Command>);

impl Commands {
    /// Tells the swarm, and fails at once where it has no room.
    pub fn send(&self, command: Command) -> Result<(), NoRoom> {
        self.0.try_send(command).map_err(|_| NoRoom)
    }

    /// Closes the swarm, waiting for room to say so.
    pub async fn stop(&self) {
        // It has ended already if this fails.
        let _ = self.0.send(Command::Stop).await;
    }
}

/// The swarm's end of the door.
pub struct Orders(mpsc::Receiver<Command>);

/// A new door.
pub fn commands() -> (Commands, Orders) {
    let (door, orders) = mpsc::channel(COMMANDS_MAX);
    (Commands(door), Orders(orders))
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: Multiaddr,
        /// Why.
        error: String,
    },
    /// A peer is not written as it should be.
    #[error("peer {0}: {1}; write it as /ip4/192.0.2.7/tcp/26650 or institution@/ip4/192.0.2.7/tcp/26650")]
    Peer(String, String),
    /// The stack does not come up.
    #[error("the network stack: {0}")]
    Stack(String),
    /// A network key of the genesis file is not one that libp2p can use.
    #[error("network key {0} cannot be used")]
    Key(PublicKey),
}

/// Reads `[INSTITUTION@]MULTIADDRESS`. A named institution must have one validator, whose key is then expected.
pub fn parse_peer(genesis: &Genesis, text: &str) -> Result<(Option<PeerId>, Multiaddr), NetworkError> {
    let wrong = |why: &str| NetworkError::Peer(text.into(), why.into());
    let (name, address) = match text.split_once('@') {
        Some((name, address)) => (Some(name), address),
        None => (None, text),
    };
    let address: Multiaddr = address.parse().map_err(|_| wrong("not a multiaddress"))?;
    if !address.iter().any(|part| matches!(part, Protocol::Tcp(_))) {
        return Err(wrong("no TCP port in the multiaddress"));
    }
    let Some(name) = name else { return Ok((None, address)) };
    let institution =
        genesis.institution(name).ok_or_else(|| wrong("no such institution in the genesis file"))?;
    let mut nodes = genesis.nodes().iter().filter(|n| n.institution == institution.id);
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok((Some(peer_id(&node.network_key)?), address)),
        (None, _) => Err(wrong("the institution has no validator")),
        (Some(_), Some(_)) => Err(wrong("the institution has several validators; give the address alone")),
    }
}

/// What the swarm needs to know.
pub struct Settings<'a> {
    /// Names this node.
    pub key: &'a SecretKey,
    /// The chain: part of every protocol's name.
    pub genesis: GenesisHash,
    /// Who is admitted; this node may be among them.
    pub nodes: Vec<Admitted>,
    /// Where to listen.
    pub listen: Multiaddr,
    /// Whom to dial.
    pub peers: Vec<(Option<PeerId>, Multiaddr)>,
    /// How much one peer may send.
    pub limits: Limits,
}

/// Whom the swarm tells.
pub struct Outlets {
    /// The loop.
    pub inbox: Inbox,
    /// Verifies gossiped transactions.
    pub intake: Intake,
    /// Counters.
    pub metrics: Metrics,
}

/// A swarm that listens and is ready to run.
pub struct Network {
    swarm: Swarm<Behaviour>,
    orders: Orders,
    outlets: Outlets,
    limits: Limits,
    wires: Wires,
    genesis: GenesisHash,
    author: Author,
    peers: BTreeMap<PeerId, Peer>,
    by_address: BTreeMap<Address, PeerId>,
    by_key: BTreeMap<PublicKey, PeerId>,
    conduct: Conduct,
    topics: Topics,
    links: Vec<Link>,
    /// Since when there is a connection.
    since: BTreeMap<PeerId, Instant>,
    /// Whether a connection is missed, and the others were asked to pass on what is said.
    asks_relay: bool,
    outbox: Outbox,
    /// What all gossip weighed on the wire since the peers were weighed.
    gossip_weight: u64,
}

struct Topics {
    transactions: TopicHash,
    consensus: TopicHash,
    /// Nothing is said on it: who listens asks to be passed on what others say.
    relay: gossipsub::IdentTopic,
}

impl Topics {
    fn hash(&self, topic: Topic) -> TopicHash {
        match topic {
            Topic::Transactions => self.transactions.clone(),
            Topic::Consensus => self.consensus.clone(),
        }
    }

    /// No others are listened to.
    fn of(&self, hash: &TopicHash) -> Topic {
        if *hash == self.transactions { Topic::Transactions } else { Topic::Consensus }
    }
}

/// An address to be dialled whenever there is no connection to who is behind it.
struct Link {
    address: Multiaddr,
    peer: Option<PeerId>,
    dialling: Option<ConnectionId>,
    next: Instant,
    wait: Duration,
}

type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, gossipsub::WhitelistSubscriptionFilter>;

/// The allow-list stands first: it refuses before any other protocol hears of the connection.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    allowed: allow_list::Behaviour<AllowedPeers>,
    limits: limits::Behaviour,
    ping: ping::Behaviour,
    gossip: Gossip,
    direct: request_response::Behaviour<DirectCodec>,
}

impl Network {
    /// Makes the swarm, listens, and waits until the address is known.
    pub async fn listen(
        settings: Settings<'_>,
        orders: Orders,
        outlets: Outlets,
    ) -> Result<Network, NetworkError> {
        let wires = Wires::new(settings.limits.wire_bytes, settings.limits.streams);
        let (mut swarm, topics) = swarm(&settings, wires.clone())?;
        let listen = |error: String| NetworkError::Listen { address: settings.listen.clone(), error };
        swarm.listen_on(settings.listen.clone()).map_err(|e| listen(e.to_string()))?;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { .. } => break,
                SwarmEvent::ListenerClosed { reason: Err(e), .. } => return Err(listen(e.to_string())),
                SwarmEvent::ListenerError { error, .. } => return Err(listen(error.to_string())),
                _ => {}
            }
        }
        let link =
            |(peer, address)| Link { address, peer, dialling: None, next: Instant::now(), wait: REDIAL.0 };
        let mut network = Network {
            swarm,
            orders,
            outlets,
            limits: settings.limits,
            wires,
            genesis: settings.genesis,
            author: Author::new(settings.key.clone(), settings.genesis),
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_key: BTreeMap::new(),
            conduct: Conduct::default(),
            topics,
            links: settings.peers.into_iter().map(link).collect(),
            since: BTreeMap::new(),
            asks_relay: false,
            outbox: Outbox::default(),
            gossip_weight: 0,
        };
        network.admit(&settings.nodes);
        Ok(network)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.swarm.listeners().cloned().collect()
    }

    /// This node's name.
    pub fn peer_id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(REDIAL.0);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.outbox.due(Instant::now());
            tokio::select! {
                event = self.swarm.select_next_some() => self.happened(event),
                command = self.orders.0.recv() => match command {
                    Some(Command::Broadcast(PeerMessage::Transactions(envelopes))) => self.gather(envelopes),
                    Some(Command::Broadcast(message)) => self.broadcast(&message),
                    Some(Command::Send { to, message }) => self.send(to, &message),
                    Some(Command::Punish { peer, what }) => self.punish(peer, what),
                    Some(Command::Admit(nodes)) => self.admit(&nodes),
                    Some(Command::Stop) | None => return,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.send_gathered();
                }
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Lets in who has come into the registry, and shuts out who has left it.
    pub fn admit(&mut self, nodes: &[Admitted]) {
        let own = self.peer_id();
        let Changes { come, gone } = peers::changes(&self.peers, nodes, &own);
        for id in gone {
            self.dismiss(&id);
        }
        for (id, node) in come {
            let peer = Peer::new(node, self.outlets.inbox.share(), self.wires.admit(id), &self.limits);
            self.peers.insert(id, peer);
            self.by_address.insert(node.address, id);
            self.by_key.insert(node.network_key, id);
            self.swarm.behaviour_mut().allowed.allow_peer(id);
            tracing::debug!(peer = %id, validator = %node.address, "admitted");
        }
        self.outlets.metrics.admitted.set(self.peers.len() as u64);
    }

    fn dismiss(&mut self, id: &PeerId) {
        self.swarm.behaviour_mut().allowed.disallow_peer(*id);
        self.wires.remove(id);
        self.conduct.forget(id);
        let Some(peer) = self.peers.remove(id) else { return };
        self.by_address.remove(&peer.address);
        self.by_key.remove(&peer.network_key);
        if peer.up {
            self.outlets.inbox.down(peer.address);
        }
        self.count_peers();
        tracing::info!(peer = %id, validator = %peer.address, "no longer admitted: it has left the registry");
    }

    fn gather(&mut self, envelopes: Vec<Bytes>) {
        if let Some(full) = self.outbox.add(envelopes) {
            self.broadcast(&PeerMessage::Transactions(full));
        }
        self.send_gathered();
    }

    fn send_gathered(&mut self) {
        if let Some(envelopes) = self.outbox.take(Instant::now()) {
            self.broadcast(&PeerMessage::Transactions(envelopes));
        }
    }

    fn broadcast(&mut self, message: &PeerMessage) {
        if is_question(message) {
            self.peers.values_mut().for_each(Peer::asked);
        }
        let topic = topic(message);
        let bytes = message.encode();
        if bytes.len() > GOSSIP_BYTES_MAX {
            tracing::error!(bytes = bytes.len(), "a message to all is larger than gossip carries; not sent");
            return;
        }
        self.outlets.metrics.bytes_out.inc_by(bytes.len() as u64);
        self.gossip_weight += gossip_weight(bytes.len());
        let signed = self.author.sign(topic, &bytes);
        match self.swarm.behaviour_mut().gossip.publish(self.topics.hash(topic), signed) {
            Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => {
                self.outlets.metrics.dropped.inc();
                tracing::warn!(%error, "a message to all was not sent");
            }
        }
    }

    fn send(&mut self, to: Address, message: &PeerMessage) {
        let Some(id) = self.by_address.get(&to).copied().filter(|id| self.swarm.is_connected(id)) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if is_question(message) {
            peer.asked();
        }
        if peer.outgoing.push(message.encode()) {
            self.flush(id);
        } else {
            self.outlets.metrics.dropped.inc();
        }
    }

    /// Sends what waits for a peer, a few at a time.
    fn flush(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        while peer.outgoing.in_flight < IN_FLIGHT_MAX {
            let Some(bytes) = peer.outgoing.pop() else { return };
            peer.outgoing.in_flight += 1;
            self.outlets.metrics.bytes_out.inc_by(bytes.len() as u64);
            self.swarm.behaviour_mut().direct.send_request(&id, bytes);
        }
    }

    /// A direct message has arrived, or will not.
    fn landed(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.outgoing.in_flight = peer.outgoing.in_flight.saturating_sub(1);
            self.flush(id);
        }
    }

    fn punish(&mut self, peer: Address, what: &'static str) {
        if let Some(id) = self.by_address.get(&peer).copied() {
            self.offended(id, Offence::Protocol, what);
        }
    }

    /// Does to a peer what the table says.
    fn offended(&mut self, id: PeerId, offence: Offence, what: &str) {
        let Some(peer) = self.peers.get(&id) else { return };
        let already = self.conduct.is_banned(&id);
        let consequence = self.conduct.offended(id, offence, self.peers.len(), Instant::now());
        self.outlets.metrics.offence(offence.name(), consequence.name());
        if already {
            return;
        }
        let (validator, kind) = (peer.address, offence.name());
        match consequence {
            Consequence::Throttle => {}
            Consequence::Disconnect => {
                tracing::warn!(%validator, peer = %id, kind, what, "a peer broke the protocol and is disconnected");
                // It may have gone by itself.
                let _ = self.swarm.disconnect_peer_id(id);
            }
            Consequence::Ban(time) => {
                let seconds = time.as_secs();
                tracing::warn!(%validator, peer = %id, kind, what, seconds, "a peer broke the protocol and is banned for a while");
                self.swarm.behaviour_mut().allowed.disallow_peer(id);
                self.outlets.metrics.bans.set(self.conduct.banned() as u64);
            }
        }
    }

    /// Whether what a peer sent is to be looked at, by how much it has sent.
    fn within(&mut self, id: PeerId, reading: Reading, offence: Offence) -> bool {
        match reading {
            Reading::Within => true,
            Reading::Over => {
                self.outlets.metrics.offence(offence.name(), Consequence::Throttle.name());
                false
            }
            Reading::Flood => {
                self.offended(id, offence, "it went on far beyond its rate");
                false
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for peer in self.conduct.lift(now) {
            self.swarm.behaviour_mut().allowed.allow_peer(peer);
            tracing::info!(%peer, validator = self.name(&peer), "a ban is over");
        }
        self.outlets.metrics.bans.set(self.conduct.banned() as u64);
        self.weigh(now);
        self.ask_relay();
        self.close_mute(now);
        self.dial(now);
    }

    /// Asks to be passed on what the others say, as long as there is one from whom it does not come by itself.
    fn ask_relay(&mut self) {
        let misses = self.peers.values().any(|p| !p.up);
        if misses != self.asks_relay {
            self.asks_relay = misses;
            let gossip = &mut self.swarm.behaviour_mut().gossip;
            if misses {
                // The topic is one of those that it may listen to.
                let _ = gossip.subscribe(&self.topics.relay);
            } else {
                gossip.unsubscribe(&self.topics.relay);
            }
        }
    }

    fn weigh(&mut self, now: Instant) {
        let gossip = std::mem::take(&mut self.gossip_weight);
        let mut loud = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.weigh(gossip, now) {
                loud.push(*id);
            }
            let waited = peer.take_waited();
            self.outlets.metrics.throttled_us.inc_by(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        }
        for id in loud {
            self.offended(id, Offence::Noise, "far more bytes or streams came than messages");
        }
    }

    fn dial(&mut self, now: Instant) {
        for link in &mut self.links {
            let wanted = link.peer.is_none_or(|p| {
                self.peers.contains_key(&p) && !self.conduct.is_banned(&p) && !self.swarm.is_connected(&p)
            });
            if !wanted || link.dialling.is_some() || link.next > now {
                continue;
            }
            // From a port of its own. Two that dial each other at one time from the ports that they listen on open
            // one TCP connection which neither accepts; both then begin the handshake, and both again the next time.
            let address = link.address.clone();
            let options = match link.peer {
                Some(peer) => DialOpts::peer_id(peer).addresses(vec![address]).allocate_new_port().build(),
                None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
            };
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => link.dialling = Some(connection),
                Err(error) => {
                    tracing::debug!(address = %link.address, %error, "cannot dial");
                    link.back_off();
                }
            }
        }
    }

    fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.heard(event),
            SwarmEvent::ConnectionEstablished {
                peer_id, connection_id, endpoint, num_established, ..
            } => {
                if let Some(link) = self.links.iter_mut().find(|l| l.dialling == Some(connection_id)) {
                    link.reached(peer_id);
                }
                if num_established.get() == 1 {
                    let address = endpoint.get_remote_address();
                    tracing::info!(peer = %peer_id, validator = self.name(&peer_id), %address, "connected");
                }
                self.begin(peer_id, endpoint.is_listener());
                self.connected(peer_id, connection_id, endpoint.is_dialer());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, cause, .. } => {
                self.lost(peer_id, cause.map(|c| c.to_string()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(link) = self.links.iter_mut().find(|l| l.dialling == Some(connection_id)) {
                    tracing::debug!(address = %link.address, %error, "dialling failed");
                    link.back_off();
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.refused(&send_back_addr, peer_id, error);
            }
            SwarmEvent::ListenerClosed { reason, .. } => tracing::error!(?reason, "no longer listening"),
            _ => {}
        }
    }

    /// Who connects again and again is let in only so often. Whom this node dialled is not to blame for it.
    fn connected(&mut self, id: PeerId, connection: ConnectionId, dialled: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let reading = peer.connected(Instant::now());
        if !dialled && !self.within(id, reading, Offence::Reconnecting) {
            self.swarm.close_connection(connection);
        }
    }

    fn lost(&mut self, id: PeerId, cause: Option<String>) {
        let cause = cause.unwrap_or_else(|| "closed".into());
        tracing::info!(peer = %id, validator = self.name(&id), cause, "disconnected");
        self.since.remove(&id);
        self.swarm.behaviour_mut().gossip.remove_explicit_peer(&id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.disconnected() {
            self.outlets.inbox.down(peer.address);
            self.count_peers();
        }
    }

    fn count_peers(&self) {
        self.outlets.metrics.peers.set(self.peers.values().filter(|p| p.up).count() as u64);
    }

    /// Notes since when there is a connection; closes those that the peer knows nothing of any more.
    fn begin(&mut self, peer: PeerId, incoming: bool) {
        let since = *self.since.entry(peer).or_insert_with(Instant::now);
        if incoming && since.elapsed() > DIALLED_TWICE_MAX {
            // Once: what was lost may take its time to close, and the peer dials again meanwhile. Closing that too
            // each time would make it one that reconnects too often.
            self.since.insert(peer, Instant::now());
            tracing::info!(%peer, validator = self.name(&peer), "dialled anew; closing what it has lost");
            // It is connected: this closes every connection to it.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Closes connections to peers that do not say what they listen to.
    fn close_mute(&mut self, now: Instant) {
        let up = |peer: &PeerId| self.peers.get(peer).is_some_and(|p| p.up);
        let late = |since: &Instant| now.saturating_duration_since(*since) > MUTE_MAX;
        let mute: Vec<_> = self.since.iter().filter(|(p, s)| late(s) && !up(p)).map(|(p, _)| *p).collect();
        for peer in mute {
            tracing::info!(%peer, validator = self.name(&peer), "does not say what it listens to; closing");
            // It may have gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// An incoming connection came to nothing.
    fn refused(&self, address: &Multiaddr, peer: Option<PeerId>, error: ListenError) {
        let stranger =
            matches!(&error, ListenError::Denied { cause } if cause.downcast_ref::<NotAllowed>().is_some());
        match peer {
            Some(peer) if stranger && !self.peers.contains_key(&peer) => {
                self.outlets.metrics.strangers.inc();
                tracing::warn!(%peer, %address, "refused a stranger: its key is not in the registry of nodes");
            }
            _ => tracing::debug!(%address, ?peer, %error, "an incoming connection failed"),
        }
    }

    fn heard(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.gossiped(propagation_source, message);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, topic })
                if topic == self.topics.consensus =>
            {
                self.ready(peer_id);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, topic })
                if topic == self.topics.relay.hash() =>
            {
                self.swarm.behaviour_mut().gossip.add_explicit_peer(&peer_id);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Unsubscribed { peer_id, topic })
                if topic == self.topics.relay.hash() =>
            {
                self.swarm.behaviour_mut().gossip.remove_explicit_peer(&peer_id);
            }
            BehaviourEvent::Gossip(gossipsub::Event::SlowPeer { peer_id, .. }) => {
                tracing::warn!(peer = %peer_id, validator = self.name(&peer_id), "a peer does not keep up");
            }
            BehaviourEvent::Direct(event) => self.direct(event),
            // A peer that does not speak ping is none the worse; one that no longer answers is gone.
            BehaviourEvent::Ping(ping::Event { result: Err(ping::Failure::Unsupported), .. }) => {}
            BehaviourEvent::Ping(ping::Event { connection, result: Err(error), peer }) => {
                tracing::debug!(%peer, %error, "no answer to a ping; closing");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    /// A peer listens to consensus: from now on what is said to all reaches it.
    fn ready(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id).filter(|p| !p.up) {
            peer.up = true;
            self.outlets.inbox.up(peer.address);
            self.count_peers();
        }
    }

    /// A message to all is its author's, and each author has a rate. An author who is not admitted here may be
    /// so where the registry is newer or older: that is nobody's fault. A signature that does not hold is the fault
    /// of who passed the message on: an honest node looks at it before.
    fn gossiped(&mut self, from: PeerId, message: gossipsub::Message) -> MessageAcceptance {
        let now = Instant::now();
        self.outlets.metrics.bytes_in.inc_by(message.data.len() as u64);
        self.gossip_weight += gossip_weight(message.data.len());
        let topic = self.topics.of(&message.topic);
        let Some(signed) = Signed::read(message.data.into()) else {
            self.offended(from, Offence::Garbage, "passed on bytes that are no message to all");
            return MessageAcceptance::Reject;
        };
        let author = self.by_key.get(&signed.author()).copied();
        let author = author.and_then(|id| Some((id, self.peers.get_mut(&id)?)));
        let Some((id, author)) = author else { return MessageAcceptance::Ignore };
        if !signed.holds(&self.genesis, topic) {
            self.offended(from, Offence::Garbage, "passed on a message that its author did not sign");
            return MessageAcceptance::Reject;
        }
        if !author.is_fresh(signed.number()) {
            // Old ones by the thousand shall not count as a flood of the author's.
            return MessageAcceptance::Ignore;
        }
        let bytes = signed.message();
        let reading = author.gossiped(bytes.len(), now);
        if !self.within(id, reading, Offence::GossipFlood) {
            return MessageAcceptance::Ignore;
        }
        let decoded = if bytes.len() > GOSSIP_BYTES_MAX { None } else { PeerMessage::decode(&bytes).ok() };
        match decoded {
            Some(m) if self::topic(&m) == topic => {
                if is_question(&m) && !self.may_ask(id, now) {
                    return MessageAcceptance::Ignore;
                }
                self.deliver(id, m, bytes.len());
                MessageAcceptance::Accept
            }
            _ => {
                self.offended(id, Offence::Garbage, "gossiped bytes that are no message of their topic");
                MessageAcceptance::Reject
            }
        }
    }

    fn direct(&mut self, event: request_response::Event<Bytes, ()>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.outlets.metrics.bytes_in.inc_by(request.len() as u64);
                // It may have gone; then it will ask again.
                let _ = self.swarm.behaviour_mut().direct.send_response(channel, ());
                self.sent(peer, &request);
            }
            Event::Message { peer, message: Message::Response { .. }, .. } => self.landed(peer),
            Event::OutboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a direct message was not delivered");
                self.landed(peer);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a direct message did not arrive whole");
                if direct::is_garbage(&error) {
                    self.offended(peer, Offence::Garbage, "announced a direct message beyond the bound");
                }
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn sent(&mut self, id: PeerId, bytes: &Bytes) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let reading = peer.sent(bytes.len(), now);
        if !self.within(id, reading, Offence::DirectFlood) {
            return;
        }
        match PeerMessage::decode(bytes) {
            Ok(m) if is_question(&m) && !self.may_ask(id, now) => {}
            Ok(message) => self.deliver(id, message, bytes.len()),
            Err(_) => self.offended(id, Offence::Garbage, "sent bytes that are no message"),
        }
    }

    fn may_ask(&mut self, id: PeerId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let reading = peer.requested(now);
        self.within(id, reading, Offence::RequestFlood)
    }

    fn deliver(&self, from: PeerId, message: PeerMessage, bytes: usize) {
        let Some(peer) = self.peers.get(&from) else { return };
        match message {
            PeerMessage::Transactions(envelopes) => {
                self.outlets.intake.gossiped(peer.address, &peer.share, envelopes);
            }
            message => {
                if self.outlets.inbox.peer(peer.address, &peer.share, message, bytes).is_err() {
                    self.outlets.metrics.dropped.inc();
                }
            }
        }
    }

    fn name(&self, peer: &PeerId) -> String {
        self.peers.get(peer).map_or_else(|| "unknown".into(), |p| p.address.to_string())
    }
}

fn topic(message: &PeerMessage) -> Topic {
    match message {
        PeerMessage::Transactions(_) => Topic::Transactions,
        _ => Topic::Consensus,
    }
}

/// Whether a message asks for an answer, which costs more than the question.
fn is_question(message: &PeerMessage) -> bool {
    use PeerMessage as M;
    matches!(
        message,
        M::GetProposal { .. }
            | M::CatchUp { .. }
            | M::AskVotes
            | M::AskSnapshot
            | M::AskChunks { .. }
            | M::AskEvents { .. }
            | M::AskOutcome { .. }
    )
}

impl Link {
    fn reached(&mut self, peer: PeerId) {
        self.peer = Some(peer);
        self.dialling = None;
        self.wait = REDIAL.0;
        self.next = Instant::now() + self.wait;
    }

    fn back_off(&mut self) {
        self.dialling = None;
        self.next = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(REDIAL.1);
    }
}

fn swarm(settings: &Settings<'_>, wires: Wires) -> Result<(Swarm<Behaviour>, Topics), NetworkError> {
    let stack = |e: &dyn std::fmt::Display| NetworkError::Stack(e.to_string());
    let keypair = identity::Keypair::ed25519_from_bytes(settings.key.to_bytes()).map_err(|e| stack(&e))?;
    let (gossip, topics) = gossip(&settings.genesis).map_err(|e| stack(&e))?;
    let behaviour = Behaviour {
        allowed: allow_list::Behaviour::default(),
        limits: limits::Behaviour::new(connection_limits()),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(5))),
        gossip,
        direct: direct::behaviour(&settings.genesis),
    };
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(&keypair).map_err(|e| stack(&e))?)
        .multiplex_ext(move |peer, _| wires.upgrade(peer))
        .timeout(HANDSHAKE_MAX)
        .boxed();
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(365 * 86_400))
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX);
    Ok((Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config), topics))
}

/// Who is admitted is counted by peer; strangers only until Noise has shown who they are.
fn connection_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(CONNECTIONS_MAX))
        .with_max_established_incoming(Some(CONNECTIONS_MAX))
        .with_max_established_outgoing(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
}

/// Without authors and signatures of its own, since messages bring theirs; and without a mesh, in which each message
/// would come from every side though all are connected with all.
fn gossip(genesis: &GenesisHash) -> Result<(Gossip, Topics), String> {
    let chain = hex::encode(genesis.tag().0);
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("/assent/{chain}/gossip"))
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .message_id_fn(message_id)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX + FRAME_BYTES + GOSSIP_FRAME_BYTES)
        .duplicate_cache_time(Duration::from_secs(120))
        .heartbeat_interval(Duration::from_millis(500))
        .flood_publish(true)
        .mesh_outbound_min(0)
        .mesh_n_low(0)
        .mesh_n(0)
        .mesh_n_high(1)
        .history_gossip(2)
        .max_control_message_size(OFFER_BYTES_MAX)
        .max_control_messages_sent(OFFER_MAX)
        .connection_handler_queue_len(GOSSIP_WAITING_MAX)
        .build()
        .map_err(|e| e.to_string())?;
    let topic = |name: &str| gossipsub::IdentTopic::new(format!("assent/{chain}/{name}"));
    let (transactions, consensus, relay) = (topic("transactions"), topic("consensus"), topic("relay"));
    let topics = Topics { transactions: transactions.hash(), consensus: consensus.hash(), relay };
    let known = [&topics.transactions, &topics.consensus, &topics.relay.hash()].map(Clone::clone).into();
    let filter = gossipsub::WhitelistSubscriptionFilter(known);
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)?;
    for topic in [transactions, consensus] {
        gossip.subscribe(&topic).map_err(|e| e.to_string())?;
    }
    Ok((gossip, topics))
}

/// Of a message's hash: nobody finds two messages of one id, and offers stay short.
const ID_BYTES: usize = 20;

/// By what gossip knows a message: by all of it and its topic, so that nobody can keep it from the others by a false one
/// that looks the same, or by the same on another topic.
pub fn message_id(message: &gossipsub::Message) -> MessageId {
    let hash = GOSSIP_ID.hasher().sized(message.topic.as_str().as_bytes()).bytes(&message.data).end();
    MessageId::new(&hash.as_bytes()[..ID_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_genesis::testing;

    #[test]
    fn peers_are_read_and_named_by_their_institution() {
        let (genesis, ..) = testing::four();
        let address = "/ip4/192.0.2.7/tcp/26650";
        assert_eq!(parse_peer(&genesis, address).unwrap(), (None, address.parse().unwrap()));
        let (peer, _) = parse_peer(&genesis, &format!("hospital-a@{address}")).unwrap();
        let hospital = genesis.institution("hospital-a").unwrap().id;
        let node = genesis.nodes().iter().find(|n| n.institution == hospital).unwrap();
        assert_eq!(peer, Some(peer_id(&node.network_key).unwrap()));
        for wrong in ["", "192.0.2.7:26650", "nobody@/ip4/192.0.2.7/tcp/26650", "hospital-a@nowhere"] {
            assert!(matches!(parse_peer(&genesis, wrong), Err(NetworkError::Peer(..))), "{wrong}");
        }
        let several = testing::devnet(6, 4).genesis;
        assert!(parse_peer(&several, &format!("bureau@{address}")).is_err(), "two validators, one name");
    }
}
