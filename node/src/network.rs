//! One libp2p swarm: who may connect, and how validators' messages travel. What they mean is the replica's.
//!
//! ```text
//! TCP ─▶ Noise (who is it?) ─▶ admitted by genesis? ─▶ Yamux streams ─▶ gossip | direct messages
//!                                    └─ no: closed and logged; no protocol is ever spoken with it
//! ```
//!
//! Messages are bounded, decoded and attributed to their author here. A message that does not decode is its
//! author's fault (gossip is signed), and closes its connections for half a minute.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_proto::{Address, GenesisHash, PublicKey, SecretKey};
use assent_replica::{GOSSIP_BYTES_MAX, MESSAGE_BYTES_MAX, PeerMessage};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::gossipsub::{self, MessageAcceptance, MessageAuthenticity, PublishError, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, ListenError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity, noise, ping, tcp, yamux};
use libp2p_allow_block_list::{self as allow_list, AllowedPeers, NotAllowed};
use libp2p_connection_limits::{self as limits, ConnectionLimits};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::runner::{Inbox, NoRoom};

/// How long a peer that broke the protocol is kept out.
const BAN: Duration = Duration::from_secs(30);
/// Commands that wait for the swarm.
const COMMANDS_MAX: usize = 4096;
/// Direct messages to one peer that are on their way at once; the rest waits.
const IN_FLIGHT_MAX: usize = 4;
/// Bytes of direct messages to one peer that wait.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Direct messages to one peer that wait.
const WAITING_MAX: usize = 1024;
/// Connections between two nodes: each may have dialled the other twice.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Connections that are not authenticated yet.
const PENDING_MAX: u32 = 64;
/// First and longest wait before a peer is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// What gossip adds to a message: author, signature, topic.
const GOSSIP_FRAME_BYTES: usize = 1024;

/// What the swarm is told to do.
#[derive(Debug)]
pub enum Command {
    /// Tell all validators.
    Broadcast(PeerMessage),
    /// Tell one.
    Send {
        /// Whom.
        to: Address,
        /// What.
        message: PeerMessage,
    },
    /// Keep a peer out for a while.
    Punish {
        /// Whom.
        peer: Address,
        /// For what.
        what: &'static str,
    },
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
    #[error("network key {0} in the genesis file cannot be used")]
    Key(PublicKey),
}

/// Which peer is which validator.
#[derive(Clone, Debug)]
pub struct Directory {
    by_peer: BTreeMap<PeerId, Address>,
    by_address: BTreeMap<Address, PeerId>,
}

impl Directory {
    /// All validators of the founding document but the one with this network key.
    pub fn new(genesis: &Genesis, own: &PublicKey) -> Result<Directory, NetworkError> {
        let mut directory = Directory { by_peer: BTreeMap::new(), by_address: BTreeMap::new() };
        for node in genesis.nodes().iter().filter(|n| n.network_key != *own) {
            let (peer, address) = (peer_id(&node.network_key)?, node.address());
            directory.by_peer.insert(peer, address);
            directory.by_address.insert(address, peer);
        }
        Ok(directory)
    }
}

/// The libp2p name of a network key.
pub fn peer_id(key: &PublicKey) -> Result<PeerId, NetworkError> {
    let key_of_peer = identity::ed25519::PublicKey::try_from_bytes(key.as_bytes());
    let key_of_peer = key_of_peer.map_err(|_| NetworkError::Key(*key))?;
    Ok(identity::PublicKey::from(key_of_peer).to_peer_id())
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
    /// Who is admitted.
    pub directory: Directory,
    /// Where to listen.
    pub listen: Multiaddr,
    /// Whom to dial.
    pub peers: Vec<(Option<PeerId>, Multiaddr)>,
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
    directory: Directory,
    topics: Topics,
    links: Vec<Link>,
    outgoing: BTreeMap<PeerId, Outgoing>,
    up: BTreeSet<PeerId>,
    banned: BTreeMap<PeerId, Instant>,
}

struct Topics {
    transactions: TopicHash,
    consensus: TopicHash,
}

/// An address to be dialled whenever there is no connection to who is behind it.
struct Link {
    address: Multiaddr,
    peer: Option<PeerId>,
    dialling: Option<ConnectionId>,
    next: Instant,
    wait: Duration,
}

/// Direct messages to one peer.
#[derive(Default)]
struct Outgoing {
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    in_flight: usize,
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
        let (mut swarm, topics) = swarm(&settings)?;
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
        Ok(Network {
            swarm,
            orders,
            outlets,
            directory: settings.directory,
            topics,
            links: settings.peers.into_iter().map(link).collect(),
            outgoing: BTreeMap::new(),
            up: BTreeSet::new(),
            banned: BTreeMap::new(),
        })
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
            tokio::select! {
                event = self.swarm.select_next_some() => self.happened(event),
                command = self.orders.0.recv() => match command {
                    Some(Command::Broadcast(message)) => self.broadcast(&message),
                    Some(Command::Send { to, message }) => self.send(to, &message),
                    Some(Command::Punish { peer, what }) => self.punish(peer, what),
                    Some(Command::Stop) | None => return,
                },
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn broadcast(&mut self, message: &PeerMessage) {
        let topic = match message {
            PeerMessage::Transactions(_) => &self.topics.transactions,
            _ => &self.topics.consensus,
        };
        let bytes = message.encode();
        if bytes.len() > GOSSIP_BYTES_MAX {
            tracing::error!(bytes = bytes.len(), "a message to all is larger than gossip carries; not sent");
            return;
        }
        self.outlets.metrics.bytes_out.inc_by(bytes.len() as u64);
        match self.swarm.behaviour_mut().gossip.publish(topic.clone(), bytes) {
            Ok(_) | Err(PublishError::Duplicate | PublishError::NoPeersSubscribedToTopic) => {}
            Err(error) => {
                self.outlets.metrics.dropped.inc();
                tracing::warn!(%error, "a message to all was not sent");
            }
        }
    }

    fn send(&mut self, to: Address, message: &PeerMessage) {
        let Some(peer) = self.directory.by_address.get(&to).copied() else { return };
        if !self.swarm.is_connected(&peer) {
            return;
        }
        let bytes = message.encode();
        let outgoing = self.outgoing.entry(peer).or_default();
        if outgoing.waiting.len() >= WAITING_MAX || outgoing.waiting_bytes + bytes.len() > WAITING_BYTES_MAX {
            self.outlets.metrics.dropped.inc();
            return;
        }
        outgoing.waiting_bytes += bytes.len();
        outgoing.waiting.push_back(bytes);
        self.flush(peer);
    }

    /// Sends what waits for a peer, a few at a time.
    fn flush(&mut self, peer: PeerId) {
        let Some(outgoing) = self.outgoing.get_mut(&peer) else { return };
        while outgoing.in_flight < IN_FLIGHT_MAX {
            let Some(bytes) = outgoing.waiting.pop_front() else { return };
            outgoing.waiting_bytes -= bytes.len();
            outgoing.in_flight += 1;
            self.outlets.metrics.bytes_out.inc_by(bytes.len() as u64);
            self.swarm.behaviour_mut().direct.send_request(&peer, bytes);
        }
    }

    /// A direct message has arrived, or will not.
    fn landed(&mut self, peer: PeerId) {
        if let Some(outgoing) = self.outgoing.get_mut(&peer) {
            outgoing.in_flight = outgoing.in_flight.saturating_sub(1);
            self.flush(peer);
        }
    }

    fn punish(&mut self, peer: Address, what: &'static str) {
        let Some(id) = self.directory.by_address.get(&peer).copied() else { return };
        tracing::warn!(validator = %peer, peer = %id, what, "a peer broke the protocol and is kept out for a while");
        self.banned.insert(id, Instant::now() + BAN);
        self.swarm.behaviour_mut().allowed.disallow_peer(id);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let free: Vec<_> = self.banned.iter().filter(|(_, until)| **until <= now).map(|(p, _)| *p).collect();
        for peer in free {
            self.banned.remove(&peer);
            self.swarm.behaviour_mut().allowed.allow_peer(peer);
        }
        for link in &mut self.links {
            let connected = link.peer.is_some_and(|p| self.swarm.is_connected(&p));
            if connected || link.dialling.is_some() || link.next > now {
                continue;
            }
            let options = match link.peer {
                Some(peer) => DialOpts::peer_id(peer).addresses(vec![link.address.clone()]).build(),
                None => DialOpts::unknown_peer_id().address(link.address.clone()).build(),
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

    fn lost(&mut self, peer: PeerId, cause: Option<String>) {
        let cause = cause.unwrap_or_else(|| "closed".into());
        tracing::info!(%peer, validator = self.name(&peer), cause, "disconnected");
        self.outgoing.remove(&peer);
        if self.up.remove(&peer) {
            self.outlets.metrics.peers.set(self.up.len() as u64);
            if let Some(address) = self.directory.by_peer.get(&peer) {
                self.outlets.inbox.down(*address);
            }
        }
    }

    /// An incoming connection came to nothing.
    fn refused(&self, address: &Multiaddr, peer: Option<PeerId>, error: ListenError) {
        let stranger =
            matches!(&error, ListenError::Denied { cause } if cause.downcast_ref::<NotAllowed>().is_some());
        match peer {
            Some(peer) if stranger && !self.directory.by_peer.contains_key(&peer) => {
                self.outlets.metrics.strangers.inc();
                tracing::warn!(%peer, %address, "refused a stranger: its key is not in the genesis file");
            }
            _ => tracing::debug!(%address, ?peer, %error, "an incoming connection failed"),
        }
    }

    fn heard(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.gossiped(message);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, topic })
                if topic == self.topics.consensus =>
            {
                self.ready(peer_id);
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
    fn ready(&mut self, peer: PeerId) {
        if let Some(address) = self.directory.by_peer.get(&peer).copied()
            && self.up.insert(peer)
        {
            self.outlets.metrics.peers.set(self.up.len() as u64);
            self.outlets.inbox.up(address);
        }
    }

    fn gossiped(&mut self, message: gossipsub::Message) -> MessageAcceptance {
        let bytes = Bytes::from(message.data);
        self.outlets.metrics.bytes_in.inc_by(bytes.len() as u64);
        let author = message.source.and_then(|s| self.directory.by_peer.get(&s).copied());
        let Some(author) = author else { return MessageAcceptance::Reject };
        let decoded = if bytes.len() > GOSSIP_BYTES_MAX { None } else { PeerMessage::decode(&bytes).ok() };
        let transactions = message.topic == self.topics.transactions;
        match decoded {
            Some(m) if matches!(m, PeerMessage::Transactions(_)) == transactions => {
                self.deliver(author, m, bytes.len());
                MessageAcceptance::Accept
            }
            _ => {
                self.punish(author, "gossiped bytes that are no message of their topic");
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
                let Some(from) = self.directory.by_peer.get(&peer).copied() else { return };
                match PeerMessage::decode(&request) {
                    Ok(message) => self.deliver(from, message, request.len()),
                    Err(_) => self.punish(from, "sent bytes that are no message"),
                }
            }
            Event::Message { peer, message: Message::Response { .. }, .. } => self.landed(peer),
            Event::OutboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a direct message was not delivered");
                self.landed(peer);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a direct message did not arrive whole");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn deliver(&self, from: Address, message: PeerMessage, bytes: usize) {
        match message {
            PeerMessage::Transactions(envelopes) => self.outlets.intake.gossiped(from, envelopes),
            message => {
                if self.outlets.inbox.peer(from, message, bytes).is_err() {
                    self.outlets.metrics.dropped.inc();
                }
            }
        }
    }

    fn name(&self, peer: &PeerId) -> String {
        self.directory.by_peer.get(peer).map_or_else(|| "unknown".into(), Address::to_string)
    }
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

fn swarm(settings: &Settings<'_>) -> Result<(Swarm<Behaviour>, Topics), NetworkError> {
    let stack = |e: &dyn std::fmt::Display| NetworkError::Stack(e.to_string());
    let keypair = identity::Keypair::ed25519_from_bytes(settings.key.to_bytes()).map_err(|e| stack(&e))?;
    let (gossip, topics) = gossip(&keypair, &settings.genesis).map_err(|e| stack(&e))?;
    let behaviour = Behaviour {
        allowed: allowed(&settings.directory),
        limits: limits::Behaviour::new(connection_limits(settings.directory.by_peer.len())),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(5))),
        gossip,
        direct: direct(&settings.genesis),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|e| stack(&e))?
        .with_behaviour(|_| behaviour)
        .map_err(|e| stack(&e))?
        .with_swarm_config(|c| {
            c.with_idle_connection_timeout(Duration::from_secs(365 * 86_400))
                .with_max_negotiating_inbound_streams(32)
        })
        .with_connection_timeout(Duration::from_secs(5))
        .build();
    Ok((swarm, topics))
}

fn allowed(directory: &Directory) -> allow_list::Behaviour<AllowedPeers> {
    let mut list = allow_list::Behaviour::<AllowedPeers>::default();
    for peer in directory.by_peer.keys() {
        list.allow_peer(*peer);
    }
    list
}

fn connection_limits(validators: usize) -> ConnectionLimits {
    let all = u32::try_from(validators).unwrap_or(u32::MAX).saturating_mul(CONNECTIONS_PER_PEER_MAX);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX + all))
        .with_max_established_incoming(Some(all))
        .with_max_established_outgoing(Some(all))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
}

fn gossip(keypair: &identity::Keypair, genesis: &GenesisHash) -> Result<(Gossip, Topics), String> {
    let chain = hex::encode(genesis.tag().0);
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("/assent/{chain}/gossip"))
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX + GOSSIP_FRAME_BYTES)
        .duplicate_cache_time(Duration::from_secs(120))
        .heartbeat_interval(Duration::from_millis(500))
        .flood_publish(true)
        .build()
        .map_err(|e| e.to_string())?;
    let topic = |name: &str| gossipsub::IdentTopic::new(format!("assent/{chain}/{name}"));
    let (transactions, consensus) = (topic("transactions"), topic("consensus"));
    let topics = Topics { transactions: transactions.hash(), consensus: consensus.hash() };
    let known = HashSet::from([topics.transactions.clone(), topics.consensus.clone()]);
    let filter = gossipsub::WhitelistSubscriptionFilter(known);
    let author = MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = Gossip::new_with_subscription_filter(author, config, filter)?;
    for topic in [transactions, consensus] {
        gossip.subscribe(&topic).map_err(|e| e.to_string())?;
    }
    Ok((gossip, topics))
}

fn direct(genesis: &GenesisHash) -> request_response::Behaviour<DirectCodec> {
    let protocol =
        StreamProtocol::try_from_owned(direct_protocol(genesis)).expect("the name begins with a slash");
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(20))
        .with_max_concurrent_streams(4 * IN_FLIGHT_MAX);
    request_response::Behaviour::new([(protocol, ProtocolSupport::Full)], config)
}

/// The name of the protocol of direct messages on a chain.
pub fn direct_protocol(genesis: &GenesisHash) -> String {
    format!("/assent/{}/direct/1", hex::encode(genesis.tag().0))
}

/// A direct message: its length in four bytes, big-endian, then the message. The answer has no bytes.
#[derive(Clone, Default)]
struct DirectCodec;

impl request_response::Codec for DirectCodec {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a direct message is too large"));
        }
        // Grows with what arrives, not with what is announced.
        let mut bytes = Vec::new();
        io.take(length as u64).read_to_end(&mut bytes).await?;
        if bytes.len() == length { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        match io.read(&mut [0; 1]).await? {
            0 => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer has no bytes")),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(&request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
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

    #[test]
    fn the_directory_holds_every_validator_but_this_one() {
        let (genesis, ..) = testing::four();
        let own = &genesis.nodes()[2];
        let directory = Directory::new(&genesis, &own.network_key).unwrap();
        assert_eq!(directory.by_peer.len(), 3);
        for (peer, address) in &directory.by_peer {
            assert_eq!(directory.by_address.get(address), Some(peer));
            assert_ne!(*address, own.address());
        }
    }

    /// A length beyond the bound is refused before anything is read, and a lie about it is noticed.
    #[test]
    fn direct_messages_are_bounded() {
        let read = |bytes: Vec<u8>| {
            let protocol = StreamProtocol::new("/test");
            let mut io = futures::io::Cursor::new(bytes);
            let codec = &mut DirectCodec;
            futures::executor::block_on(request_response::Codec::read_request(codec, &protocol, &mut io))
        };
        let framed = |length: u32, body: &[u8]| [&length.to_be_bytes()[..], body].concat();
        assert_eq!(read(framed(3, b"abc")).unwrap(), Bytes::from_static(b"abc"));
        assert_eq!(read(framed(4, b"abc")).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let large = u32::try_from(MESSAGE_BYTES_MAX).unwrap() + 1;
        assert_eq!(read(framed(large, b"abc")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
