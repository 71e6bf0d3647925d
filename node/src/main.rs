//! assentd's command line: reads arguments, starts the node, turns signals and errors into an end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use assent_genesis::{Genesis, ValidatorPiece};
use assent_node::api::ledger_client::LedgerClient;
use assent_node::api::{StatusReply, StatusRequest};
use assent_node::clients::{self, ClientLimits};
use assent_node::keys::Keys;
use assent_node::network::{self, Limits, peer_id};
use assent_node::standing::{Vote, standing};
use assent_node::{Config, Node, NodeError, repair};
use assent_proto::block::{PROTOCOL_NEWEST, PROTOCOL_OLDEST};
use assent_proto::validators::address;
use assent_replica::{Fault, SnapshotRule};
use clap::{Args, Parser, Subcommand, ValueEnum};
use libp2p::Multiaddr;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

type Failure = Box<dyn std::error::Error>;

/// A node of an Assent chain: a validator, or an observer that follows and answers.
#[derive(Parser)]
#[command(name = "assentd", version, long_version = LONG_VERSION.as_str(), after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// With the protocol versions that it knows: whether it can go on with a chain.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!("{}\nprotocol versions {PROTOCOL_OLDEST} to {PROTOCOL_NEWEST}", env!("CARGO_PKG_VERSION"))
});

const EXAMPLES: &str = "Examples:
  assentd init --home /var/lib/assent --chain-id yantai-1 --institution hospital-a > node.toml
  assentd check --home /var/lib/assent --genesis genesis.toml
  assentd run --home /var/lib/assent --genesis genesis.toml
  assentd status

Exit codes:
  0  done
  1  the node stopped on a fault, or a command failed
  2  wrong arguments
  3  the node stopped because its database is damaged or has parted from the chain: `assentd repair`
  4  the node stopped because the chain goes on by a protocol version that this program does not know: install a
     newer program and start it with the same folder";

const RUN_EXAMPLES: &str = "Examples:
  assentd run --home /var/lib/assent --genesis genesis.toml --listen /ip4/0.0.0.0/tcp/26650
  assentd run --home /var/lib/assent --genesis genesis.toml --listen /ip4/0.0.0.0/tcp/26650 \\
      --peer bureau@/ip4/192.0.2.7/tcp/26650 --log-format json

The address of --rpc serves gRPC, and figures for Prometheus at /metrics. It is not encrypted: for clients
beyond this machine put a proxy with TLS before it.";

const INIT_EXAMPLES: &str = "Examples:
  assentd init --home /var/lib/assent --chain-id yantai-1 --institution hospital-a \\
      --listen /ip4/192.0.2.8/tcp/26650 > node.toml
  assentd init --home /var/lib/assent

The first is for a founding: node.toml goes to `assent institution admission`. The second is enough for a
node that joins a running chain: `assent govern piece` reads its keys.";

const STATUS_EXAMPLES: &str = "Example:
  assentd status --rpc http://127.0.0.1:26651 --json";

const CHECK_EXAMPLES: &str = "Example:
  assentd check --home /var/lib/assent --genesis genesis.toml";

const REPAIR_EXAMPLES: &str = "Example:
  assentd repair --home /var/lib/assent --genesis genesis.toml

Stop the node before, start it afterwards. The old database is kept beside the new one.";

#[derive(Subcommand)]
enum Command {
    /// Run the node until it is told to stop (SIGTERM or SIGINT; a second one ends it at once).
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Make the node's two keys, and print its public piece for the genesis file.
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
    /// Ask a running node how it is.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Check that keys, genesis file and database fit together, and say what this node is on its chain: a validator,
    /// an observer, or unknown (exit code 1). By the newest state in its database; by the genesis file while that is
    /// empty. The node may run meanwhile.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Move a damaged or diverged database aside, so that the node fetches the chain from the others. Keys and
    /// vote log stay, and nothing is signed at or below the height of the newest signature.
    #[command(after_help = REPAIR_EXAMPLES)]
    Repair(Check),
}

#[derive(Args)]
struct Run {
    /// The node's directory: keys, database, vote log.
    #[arg(long)]
    home: PathBuf,
    /// The founding document.
    #[arg(long)]
    genesis: PathBuf,
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:26651")]
    rpc: SocketAddr,
    /// Where peers connect.
    #[arg(long, default_value = "/ip4/127.0.0.1/tcp/26650")]
    listen: Multiaddr,
    /// A peer to dial, as MULTIADDRESS or INSTITUTION@MULTIADDRESS; repeat it for more. Without any, the
    /// addresses in the genesis file are dialled.
    #[arg(long = "peer", value_name = "PEER")]
    peers: Vec<String>,
    #[command(flatten)]
    peer_limits: PeerLimits,
    #[command(flatten)]
    client_limits: ClientFlags,
    #[command(flatten)]
    snapshots: SnapshotFlags,
    /// Know no protocol version above this, as if the program were older. For rehearsing an upgrade: the node stops,
    /// with exit code 4, at the height at which a later version comes into force.
    #[arg(long, help_heading = "Protocol", value_name = "VERSION", default_value_t = PROTOCOL_NEWEST, value_parser = clap::value_parser!(u32).range(i64::from(PROTOCOL_OLDEST)..=i64::from(PROTOCOL_NEWEST)))]
    newest_protocol: u32,
    /// How to log, on standard error. RUST_LOG chooses what.
    #[arg(long, help_heading = "Log", value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// How much one peer may send. Beyond it a peer is throttled; far beyond it for long, disconnected and banned.
#[derive(Args)]
#[command(
    next_help_heading = "What one peer may send (beyond it: throttled; far beyond it for long: disconnected, banned)"
)]
struct PeerLimits {
    /// Messages a second.
    #[arg(long, value_name = "N", default_value_t = network::MESSAGES_PER_SECOND, value_parser = clap::value_parser!(u64).range(1..1 << 32))]
    peer_messages: u64,
    /// Questions a second: for blocks, proposals, snapshots.
    #[arg(long, value_name = "N", default_value_t = network::REQUESTS_PER_SECOND, value_parser = clap::value_parser!(u64).range(1..1 << 32))]
    peer_requests: u64,
    /// Bytes a second.
    #[arg(long, value_name = "BYTES", default_value_t = network::BYTES_PER_SECOND, value_parser = clap::value_parser!(u64).range(1 << 16..1 << 40))]
    peer_bytes: u64,
}

/// How much one client may ask. Clients on the same machine are the operator's own and not limited.
#[derive(Args)]
#[command(next_help_heading = "What one client may ask (beyond it: refused, with the time to wait)")]
struct ClientFlags {
    /// Calls a second of one address (of one /64 network with IPv6).
    #[arg(long, value_name = "N", default_value_t = clients::CALLS_PER_SECOND, value_parser = clap::value_parser!(u64).range(1..1 << 32))]
    client_calls: u64,
    /// Connections of one address at one time.
    #[arg(long, value_name = "N", default_value_t = clients::CONNECTIONS)]
    client_connections: usize,
    /// Limit clients on the same machine too.
    #[arg(long)]
    limit_local_clients: bool,
}

/// When a whole state goes from node to node instead of block after block.
#[derive(Args)]
#[command(next_help_heading = "Whole states instead of block after block")]
struct SnapshotFlags {
    /// Blocks behind the others from which on this node takes in their state at a recent height, proved against a
    /// certified header, and fetches the older blocks afterwards. Fewer: it is back sooner, but answers about the
    /// time before only once those blocks are here. More: it executes every block itself.
    #[arg(long, value_name = "BLOCKS", default_value_t = SnapshotRule::default().behind, value_parser = clap::value_parser!(u64).range(16..1 << 40))]
    snapshot_behind: u64,
    /// Blocks between two states that this node keeps for others, two at a time. Give all nodes the same number: a
    /// state is fetched from all that have kept it, at once. Before the first such height the newest is offered.
    #[arg(long, value_name = "BLOCKS", default_value_t = SnapshotRule::default().every, value_parser = clap::value_parser!(u64).range(16..1 << 40))]
    snapshot_every: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Args)]
struct Init {
    /// The node's directory; made if it is not there.
    #[arg(long)]
    home: PathBuf,
    /// The chain that the node is for; with --institution it gives the node's piece.
    #[arg(long, requires = "institution")]
    chain_id: Option<String>,
    /// The short name of the institution that runs the node.
    #[arg(long, requires = "chain_id")]
    institution: Option<String>,
    /// Its voting power.
    #[arg(long, default_value_t = 1)]
    power: u32,
    /// The multiaddress by which peers reach it, as a hint in the genesis file.
    #[arg(long)]
    listen: Option<Multiaddr>,
}

#[derive(Args)]
struct Status {
    /// The node's public interface.
    #[arg(long, default_value = "http://127.0.0.1:26651")]
    rpc: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Check {
    /// The node's directory.
    #[arg(long)]
    home: PathBuf,
    /// The founding document.
    #[arg(long)]
    genesis: PathBuf,
}

/// A state of millions of small leaves, of which each block drops some and makes others, leaves glibc's allocator with
/// holes that it searches for ever longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(run) => run_node(run),
        Command::Init(init) => init_node(init),
        Command::Status(status) => runtime().and_then(|r| r.block_on(show_status(status))),
        Command::Check(check) => check_node(check),
        Command::Repair(check) => repair_node(check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assentd: {error}");
            match (error.downcast_ref::<NeedsRepair>(), error.downcast_ref::<NodeError>()) {
                (Some(_), _) => ExitCode::from(repair::EXIT_REPAIR),
                (_, Some(NodeError::Fault(Fault::NewerProtocol { .. }))) => {
                    ExitCode::from(repair::EXIT_NEWER)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Why the node stopped, and what the operator is to do.
#[derive(Debug, thiserror::Error)]
#[error("{error}\n{hint}")]
struct NeedsRepair {
    error: NodeError,
    hint: String,
}

fn repair_node(args: Check) -> Result<(), Failure> {
    let genesis = Genesis::load(&args.genesis)?;
    let done = repair::repair(&args.home, &genesis.hash())?;
    println!("The old database is in {}.", done.aside.display());
    match done.signed {
        Some(height) => println!("Nothing is signed at height {height} or below: this node signed there."),
        None => println!(
            "The old database could not tell at which height this node signed last, or it never did: the node \
             asks the other validators before it signs."
        ),
    }
    println!("Start the node: it fetches the chain from the others.");
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn run_node(run: Run) -> Result<(), Failure> {
    start_log(run.log_format);
    let genesis = Genesis::load(&run.genesis)?;
    let chain = genesis.chain_id().to_owned();
    let hash = genesis.hash();
    let limits = run.peer_limits;
    let limits = Limits::new(limits.peer_messages, limits.peer_requests, limits.peer_bytes);
    let (rpc, listen, peers) = (run.rpc, run.listen, run.peers);
    let c = run.client_limits;
    let clients = ClientLimits::new(c.client_calls, c.client_connections, c.limit_local_clients);
    let home = run.home.clone();
    let s = run.snapshots;
    let snapshots =
        SnapshotRule { every: s.snapshot_every, behind: s.snapshot_behind, ..SnapshotRule::default() };
    let newest_protocol = run.newest_protocol;
    let config =
        Config { home: run.home, genesis, rpc, listen, peers, limits, clients, snapshots, newest_protocol };
    let runtime = runtime()?;
    let result: Result<(), Failure> = runtime.block_on(async {
        let stop = stop_signal()?;
        let node = Node::start(config).await?;
        tracing::info!(
            chain, genesis = %hash, version = assent_node::VERSION, rpc = %node.rpc_address(),
            listen = ?node.addresses(), peer = %node.peer_id(), "ready"
        );
        node.run(stop).await?;
        Ok(())
    });
    match &result {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(%error, "stopped on a fault"),
    }
    result.map_err(|error| -> Failure {
        match error.downcast::<NodeError>() {
            Ok(error) => match repair::after(&home, &run.genesis, &error) {
                Some(hint) => NeedsRepair { error: *error, hint }.into(),
                None => error,
            },
            Err(other) => other,
        }
    })
}

/// What is logged unless RUST_LOG says otherwise: consensus logs every vote, libp2p every hiccup.
const LOG_FILTER: &str = "info,arc_malachitebft_core_consensus=warn,libp2p_gossipsub=error";

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Completes at the first SIGTERM or SIGINT; the second one ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tell, hear) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        };
        next().await;
        tracing::info!("shutting down; a second signal ends at once");
        // The node may have stopped by itself.
        let _ = tell.send(());
        next().await;
        std::process::exit(130);
    });
    Ok(async move {
        let _ = hear.await;
    })
}

fn init_node(init: Init) -> Result<(), Failure> {
    let keys = Keys::create(&init.home)?;
    let (consensus, network) = (keys.consensus.public(), keys.network.public());
    eprintln!("keys made in {}; keep a copy of them where nobody else can read it", init.home.display());
    eprintln!("peer id  {}", peer_id(&network)?);
    match (&init.chain_id, &init.institution) {
        (Some(chain), Some(institution)) => {
            let listen = init.listen.map(|a| a.to_string());
            let piece =
                ValidatorPiece::sign(chain, institution, init.power, &keys.consensus, &keys.network, listen);
            print!("{}", piece.to_toml());
        }
        _ => println!("consensus_key = \"{consensus}\"\nnetwork_key = \"{network}\""),
    }
    Ok(())
}

fn check_node(check: Check) -> Result<(), Failure> {
    let genesis = Genesis::load(&check.genesis)?;
    let keys = Keys::load(&check.home)?;
    println!("chain        {} ({})", genesis.chain_id(), genesis.hash());
    let found = standing(&check.home, &genesis, &keys)?;
    let institution = genesis.institution(&found.institution.to_string());
    println!("judged by    {}", found.source);
    println!("institution  {}", institution.map_or("unknown to the genesis file", |i| &i.slug));
    println!("address      {}", address(&keys.consensus.public()));
    println!("peer id      {}", peer_id(&keys.network.public())?);
    match found.vote {
        Vote::Now { power, total } => println!("votes        on the next block, with {power} of {total}"),
        Vote::From(height) => println!("votes        from block {height} on; until then it observes"),
        Vote::Until(height) => println!("votes        no more: it did up to block {height}, and observes"),
        Vote::No => println!("votes        no: it observes"),
    }
    Ok(())
}

async fn show_status(status: Status) -> Result<(), Failure> {
    let channel = tonic::transport::Endpoint::from_shared(status.rpc.clone())?;
    let channel = channel.connect().await.map_err(|e| format!("no node answers at {}: {e}", status.rpc))?;
    let s = LedgerClient::new(channel).get_status(StatusRequest {}).await?.into_inner();
    if status.json {
        let json = serde_json::json!({
            "genesis": hex::encode(&s.genesis), "validator": s.validator, "institution": s.institution,
            "height": s.height, "block_time": s.block_time, "round": s.round, "peers": s.peers,
            "pool_transactions": s.pool_transactions, "pool_bytes": s.pool_bytes,
            "catching_up": s.catching_up, "version": s.version, "state_root": hex::encode(&s.state_root),
            "waiting_for_quorum": s.waiting_for_quorum, "connected": s.connected,
            "validators": s.validators, "voting": s.voting, "passed_over": s.passed_over,
            "target_height": s.target_height, "abstaining": s.abstaining, "inquiring": s.inquiring,
            "admitted_peers": s.admitted_peers, "peer_bans": s.peer_bans,
            "taking": s.taking.map(|t| serde_json::json!({ "height": t.height, "parts": t.parts, "of": t.of })),
            "missing_blocks": s.missing_blocks, "diverged": s.diverged, "protocol": s.protocol,
            "known_protocol": s.known_protocol, "next_protocol": s.next_protocol,
            "next_protocol_from": s.next_protocol_from,
        });
        println!("{json:#}");
        return Ok(());
    }
    print_status(&s);
    Ok(())
}

fn print_status(s: &StatusReply) {
    let who = match (s.voting, s.institution.is_empty()) {
        (true, _) => format!("{} ({})", s.institution, s.validator),
        (false, false) => format!("{}, observer", s.institution),
        (false, true) => "observer".into(),
    };
    let behind = s.target_height.saturating_sub(s.height);
    let state = match s.catching_up {
        _ if s.diverged => "parted from the chain at the next".into(),
        _ if s.taking.is_some() => format!("far behind: {behind} blocks to {}", s.target_height),
        true if behind > 1 => format!("catching up: {behind} blocks to {}", s.target_height),
        true => "catching up".into(),
        false => "in step".into(),
    };
    println!("node        {who}, assentd {}", s.version);
    println!("chain       {}", hex::encode(&s.genesis));
    println!("protocol    version {}; this program knows up to {}", s.protocol, s.known_protocol);
    if s.next_protocol > 0 {
        println!("            version {} from block {} on", s.next_protocol, s.next_protocol_from);
    }
    if s.next_protocol > s.known_protocol {
        println!("            too old: it stops there; install a newer program before");
    }
    println!("height      {}, {state}, round {} of the next", s.height, s.round);
    println!("state root  {}", hex::encode(&s.state_root));
    if let Some(t) = &s.taking {
        println!(
            "snapshot    a state at height {} is being taken in: {} of {} parts",
            t.height, t.parts, t.of
        );
    }
    if s.missing_blocks > 0 {
        println!("older       {} blocks are still missing: being fetched from the others", s.missing_blocks);
    }
    if s.diverged {
        println!("diverged    it signs nothing more and asks the others where; then it stops, see its log");
    }
    println!(
        "peers       {} connected of {} admitted, {} banned",
        s.connected, s.admitted_peers, s.peer_bans
    );
    let quorum = if s.waiting_for_quorum {
        "too few are connected: waiting for a quorum"
    } else {
        "a quorum is connected"
    };
    println!("validators  {}, {quorum}", s.validators);
    if !s.passed_over.is_empty() {
        println!("passed over {}", s.passed_over.join(", "));
    }
    if s.inquiring {
        println!("votes       none yet: it asks the others first what they have seen of it");
    } else if !s.abstaining.is_empty() {
        println!("votes       none at this height: {}", s.abstaining);
    }
    println!("pool        {} transactions, {} bytes", s.pool_transactions, s.pool_bytes);
}
