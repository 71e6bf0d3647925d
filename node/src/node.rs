//! Puts a node together and takes it apart again: keys, database, replica, network, interface, in the order
//! in which each needs the one before.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use assent_genesis::Genesis;
use assent_replica::{Fault, Replica, SnapshotRule};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clients::{ClientLimits, Clients};
use crate::clock::Clock;
use crate::explain::Desk;
use crate::feed::{Feed, View};
use crate::intake;
use crate::keys::{KeyError, Keys, make_home};
use crate::metrics::Metrics;
use crate::network::{self, Admitted, Commands, Limits, Network, NetworkError, parse_peer};
use crate::rpc::{self, Identity, Service};
use crate::runner::{self, Inbox, Runner};
use crate::store::{OpenError, Store};

/// How long running calls have to end when the node shuts down.
const GRACE: Duration = Duration::from_secs(3);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory: keys, database, vote log.
    pub home: PathBuf,
    /// The chain.
    pub genesis: Genesis,
    /// Where the public interface listens; port 0 takes a free one.
    pub rpc: SocketAddr,
    /// Where peers connect; port 0 takes a free one.
    pub listen: Multiaddr,
    /// Whom to dial, as `[INSTITUTION@]MULTIADDRESS`. If there are none, the addresses in the genesis file.
    pub peers: Vec<String>,
    /// How much one peer may send.
    pub limits: Limits,
    /// How much one client may ask.
    pub clients: ClientLimits,
    /// When whole states are kept for others, and wanted from them.
    pub snapshots: SnapshotRule,
    /// The newest protocol version that it is to know, at most the program's own.
    pub newest_protocol: u32,
}

/// Why a node does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Its database, read for the public interface.
    #[error(transparent)]
    Read(#[from] crate::reader::ReadError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The replica found something that it must not go on with.
    #[error("the validator stopped: {0}")]
    Fault(#[from] Fault),
    /// The port of the public interface.
    #[error("cannot serve on {address}: {error}")]
    Rpc {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A part of the node ended that must not.
    #[error("{0}")]
    Broken(&'static str),
}

/// A running node.
pub struct Node {
    rpc: SocketAddr,
    addresses: Vec<Multiaddr>,
    peer_id: PeerId,
    inbox: Inbox,
    network: Commands,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    swarm: JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), Fault>>,
    thread: thread::JoinHandle<()>,
}

impl Node {
    /// Opens everything and starts serving.
    pub async fn start(config: Config) -> Result<Node, NodeError> {
        make_home(&config.home)?;
        let keys = Keys::load(&config.home)?;
        let genesis = &config.genesis;
        let (metrics, registry) = Metrics::new();
        let store = Store::open(&config.home, &genesis.hash(), metrics.clone())?;
        let reader = store.reader();
        let (inbox, mail) = runner::inbox();
        let (network, orders) = network::commands();
        let feed = Arc::new(Feed::default());
        let intake =
            intake::start(genesis.hash(), inbox.clone(), network.clone(), feed.clone(), metrics.clone());

        let outlets =
            network::Outlets { inbox: inbox.clone(), intake: intake.clone(), metrics: metrics.clone() };
        let mut swarm = Network::listen(settings(&config, &keys)?, orders, outlets).await?;
        let (addresses, peer_id) = (swarm.addresses(), swarm.peer_id());
        let rpc_error = |error| NodeError::Rpc { address: config.rpc, error };
        let listener = rpc::bind(config.rpc).await.map_err(rpc_error)?;
        let rpc = listener.local_addr().map_err(rpc_error)?;

        let mut clock = Clock::default();
        let now = clock.now();
        let (founding, key) = (genesis.clone(), Some(keys.consensus.clone()));
        let known = config.newest_protocol;
        let open = move || Replica::open_knowing(known, now, founding, key, store);
        let opened = tokio::task::spawn_blocking(open).await;
        let (mut replica, first) =
            opened.map_err(|_| NodeError::Broken("the replica panicked while opening"))??;
        replica.set_snapshot_rule(config.snapshots);
        swarm.admit(&Admitted::registered(replica.state()));
        if !replica.status().voting {
            tracing::warn!("this node's consensus key is not a validator's: it observes until it is");
        }
        let tip = reader.tip()?;
        metrics.height.set(tip.as_ref().map_or(0, |t| t.header.height.0));
        // Opening may have committed blocks besides; what they changed is among `first`, and shown after this.
        let view = tip.filter(|t| t.header.state_root == replica.state().root());
        let view = view.map(|certified| View { certified, state: replica.state().clone() });
        feed.begin(view);

        let outlets =
            runner::Outlets { network: network.clone(), feed: feed.clone(), metrics: metrics.clone() };
        let key = keys.consensus.clone();
        let runner = Runner::new(replica, genesis.hash(), key, clock, outlets);
        let (tell, ended) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("replica".into())
            .spawn(move || {
                // Nobody listens any more if the node is being dropped.
                let _ = tell.send(runner.run(first, mail));
            })
            .map_err(|_| NodeError::Broken("no thread could be started"))?;

        let swarm = tokio::spawn(swarm.run());
        let (stop, stopped) = watch::channel(false);
        let followers = rpc::follower_room();
        let desk = Desk::new(genesis.hash(), metrics.clone());
        let inbox_of_service = inbox.clone();
        let identity = Identity { genesis: Arc::new(genesis.clone()), key: keys.consensus.public() };
        let service = Service {
            identity,
            intake,
            feed,
            reader,
            inbox: inbox_of_service,
            metrics,
            followers,
            clients: Clients::new(config.clients),
            desk,
            stop: stopped,
        };
        let server = tokio::spawn(rpc::serve(listener, service, registry));
        Ok(Node { rpc, addresses, peer_id, inbox, network, stop, server, swarm, ended, thread })
    }

    /// Where the public interface listens.
    pub fn rpc_address(&self) -> SocketAddr {
        self.rpc
    }

    /// Where peers connect.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// The node's name among peers.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Runs until `until` completes or something fails, then shuts down: the interface first, so that nothing
    /// new comes in, then the loop after its current step, then the network.
    pub async fn run(mut self, until: impl Future<Output = ()>) -> Result<(), NodeError> {
        let end = tokio::select! {
            () = until => End::Asked,
            ended = &mut self.ended => End::Replica(ended.ok()),
            _ = &mut self.swarm => End::Network,
            _ = &mut self.server => End::Interface,
        };
        self.stop.send_replace(true);
        let (cause, ended) = match end {
            End::Replica(ended) => (None, ended),
            End::Asked => (None, self.end_loop().await),
            End::Network => (Some("the network task ended"), self.end_loop().await),
            End::Interface => (Some("the public interface ended"), self.end_loop().await),
        };
        self.network.stop().await;
        // Neither can end in a way that changes anything now; the database closes with the last handle.
        if !self.swarm.is_finished() {
            let _ = self.swarm.await;
        }
        if !self.server.is_finished() && tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        // It says nothing that `ended` does not.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
        ended.ok_or(NodeError::Broken("the replica's thread panicked"))??;
        cause.map_or(Ok(()), |part| Err(NodeError::Broken(part)))
    }

    async fn end_loop(&mut self) -> Option<Result<(), Fault>> {
        self.inbox.stop();
        (&mut self.ended).await.ok()
    }
}

/// What ends a node.
enum End {
    Asked,
    /// `None` if its thread panicked.
    Replica(Option<Result<(), Fault>>),
    Network,
    Interface,
}

fn settings<'a>(config: &Config, keys: &'a Keys) -> Result<network::Settings<'a>, NodeError> {
    let genesis = &config.genesis;
    let own = keys.network.public();
    let hints = genesis.nodes().iter().filter(|n| n.network_key != own).filter_map(|n| n.listen.clone());
    let peers = if config.peers.is_empty() { hints.collect() } else { config.peers.clone() };
    Ok(network::Settings {
        key: &keys.network,
        genesis: genesis.hash(),
        nodes: Admitted::founding(genesis),
        listen: config.listen.clone(),
        peers: peers.iter().map(|p| parse_peer(genesis, p)).collect::<Result<_, _>>()?,
        limits: config.limits,
    })
}
