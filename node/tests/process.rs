//! assentd as a process: who may connect, what it logs, how it ends.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use assent_genesis::{Genesis, testing};
use assent_node::api::ledger_client::LedgerClient;
use assent_node::api::{StatusRequest, SubmitRequest, Wait};
use assent_node::network::direct_protocol;
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, gossipsub, identity::Keypair, noise, request_response, tcp, yamux,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running assentd; killed when dropped.
struct Assentd {
    child: Child,
    log: PathBuf,
    rpc: String,
    listen: Multiaddr,
}

impl Assentd {
    fn start(home: &Path, genesis: &Genesis) -> Assentd {
        let file = home.join("genesis.toml");
        fs::write(&file, genesis.to_toml()).unwrap();
        let log = home.join("assentd.log");
        let child = Command::new(env!("CARGO_BIN_EXE_assentd"))
            .args(["run", "--rpc", "127.0.0.1:0", "--listen", FREE, "--log-format", "json"])
            .arg("--home")
            .arg(home)
            .arg("--genesis")
            .arg(&file)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut node = Assentd { child, log, rpc: String::new(), listen: Multiaddr::empty() };
        let ready: serde_json::Value = serde_json::from_str(&node.logged("\"ready\"")).unwrap();
        let fields = &ready["fields"];
        node.rpc = format!("http://{}", fields["rpc"].as_str().unwrap());
        let listen = fields["listen"].as_str().unwrap();
        node.listen = listen.trim_matches(['[', ']']).parse().unwrap();
        node
    }

    /// The first line of the log with this in it, waited for.
    fn logged(&mut self, needle: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&self.log).unwrap();
            if let Some(line) = text.lines().find(|l| l.contains(needle) && l.ends_with('}')) {
                return line.into();
            }
            assert!(begun.elapsed() < PATIENCE, "no {needle:?} in the log:\n{text}");
            assert!(self.child.try_wait().unwrap().is_none(), "assentd ended:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn ended(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "assentd does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    async fn height(&self) -> u64 {
        let mut client = LedgerClient::connect(self.rpc.clone()).await.unwrap();
        client.get_status(StatusRequest {}).await.unwrap().into_inner().height
    }
}

impl Drop for Assentd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a peer may speak; as much as assentd itself does.
#[derive(NetworkBehaviour)]
struct Spy {
    gossip: gossipsub::Behaviour,
    direct: request_response::Behaviour<Raw>,
}

/// Sends bytes as they are, and takes any answer.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = libp2p::StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;
    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &Self::Protocol,
        io: &mut T,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        futures::AsyncReadExt::read_to_end(io, &mut bytes).await?;
        Ok(bytes)
    }
    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        protocol: &Self::Protocol,
        io: &mut T,
    ) -> std::io::Result<Vec<u8>> {
        self.read_request(protocol, io).await
    }
    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &Self::Protocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        futures::AsyncWriteExt::write_all(io, &bytes).await
    }
    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        protocol: &Self::Protocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        self.write_request(protocol, io, bytes).await
    }
}

/// A peer that speaks all of assentd's protocols under a key of its own.
fn spy(key: Keypair, genesis: &Genesis) -> (Swarm<Spy>, gossipsub::IdentTopic) {
    let chain = hex::encode(genesis.hash().tag().0);
    let topic = gossipsub::IdentTopic::new(format!("assent/{chain}/consensus"));
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("/assent/{chain}/gossip"))
        .max_transmit_size(1 << 20)
        .build()
        .unwrap();
    let author = gossipsub::MessageAuthenticity::Signed(key.clone());
    let mut gossip = gossipsub::Behaviour::new(author, config).unwrap();
    gossip.subscribe(&topic).unwrap();
    let protocol = libp2p::StreamProtocol::try_from_owned(direct_protocol(&genesis.hash())).unwrap();
    let direct = request_response::Behaviour::new(
        [(protocol, request_response::ProtocolSupport::Full)],
        request_response::Config::default(),
    );
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Spy { gossip, direct })
        .unwrap()
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    (swarm, topic)
}

/// What a peer got from the node until it was shut out, or `None` for one that was let in.
#[derive(Debug, Default, PartialEq)]
struct Got {
    subscriptions: usize,
    messages: usize,
    answers: usize,
    shut_out: bool,
}

async fn dial(swarm: &mut Swarm<Spy>, node: &Assentd, stop_at_subscription: bool) -> Got {
    swarm.dial(node.listen.clone()).unwrap();
    let mut got = Got::default();
    let events = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    // Asks for the chain at once, before the other side can have refused.
                    let catch_up_from_1 = [&9u32.to_be_bytes()[..], &[5], &1u64.to_le_bytes()[..]].concat();
                    swarm.behaviour_mut().direct.send_request(&peer_id, catch_up_from_1);
                }
                SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. } => {
                    got.shut_out = true;
                    return;
                }
                SwarmEvent::Behaviour(SpyEvent::Gossip(gossipsub::Event::Subscribed { .. })) => {
                    got.subscriptions += 1;
                    if stop_at_subscription {
                        return;
                    }
                }
                SwarmEvent::Behaviour(SpyEvent::Gossip(gossipsub::Event::Message { .. })) => {
                    got.messages += 1
                }
                SwarmEvent::Behaviour(SpyEvent::Direct(request_response::Event::Message { .. })) => {
                    got.answers += 1
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, events).await.expect("the peer is let in or shut out");
    got
}

fn keypair(key: &assent_proto::SecretKey) -> Keypair {
    Keypair::ed25519_from_bytes(key.to_bytes()).unwrap()
}

/// A peer that genesis does not admit gets not one byte of any protocol, and is logged. R1's gossip is not for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_and_logged() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    let mut client = LedgerClient::connect(node.rpc.clone()).await.unwrap();
    let submit = SubmitRequest { envelope: good(&devnet, 1), wait: Wait::Final.into() };
    client.submit(submit).await.unwrap();
    for _ in 0..3 {
        let key = Keypair::generate_ed25519();
        let name = key.public().to_peer_id().to_string();
        let (mut stranger, _) = spy(key, &devnet.genesis);
        let got = dial(&mut stranger, &node, false).await;
        assert_eq!(got, Got { shut_out: true, ..Got::default() });
        let line = node.logged(&name);
        assert!(line.contains("refused a stranger") && line.contains("/ip4/127.0.0.1/tcp/"), "{line}");
    }
    assert!(node.height().await >= 1, "the node goes on");
}

/// The same peer under a validator's key is let in: what the stranger did not get is there to be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_validator_is_let_in_and_kept_out_once_it_sends_garbage() {
    let devnet = testing::devnet(4, 4);
    let home = home(&devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    let (mut validator, topic) = spy(keypair(&devnet.nodes[1].network), &devnet.genesis);
    let got = dial(&mut validator, &node, true).await;
    let log = || fs::read_to_string(&node.log).unwrap();
    assert_eq!((got.subscriptions, got.shut_out), (1, false), "{}", log());

    validator.behaviour_mut().gossip.publish(topic, b"no message of consensus".to_vec()).unwrap();
    let closed =
        async { while !matches!(validator.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is disconnected");
    node.logged("broke the protocol");
    let again = dial(&mut validator, &node, true).await;
    assert!(again.shut_out, "and kept out for a while");
    assert_eq!(node.height().await, 0, "the node goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_cleanly_and_it_starts_again() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Assentd::start(home.path(), &devnet.genesis);
    let mut client = LedgerClient::connect(node.rpc.clone()).await.unwrap();
    let submit = SubmitRequest { envelope: good(&devnet, 1), wait: Wait::Final.into() };
    client.submit(submit).await.unwrap();
    let before = node.height().await;
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    let node = Assentd::start(home.path(), &devnet.genesis);
    assert!(node.height().await >= before);
    node.signal(Signal::SIGKILL);
    assert!(!node.ended().success());
    let node = Assentd::start(home.path(), &devnet.genesis);
    assert!(node.height().await >= before, "nothing acknowledged is lost");
    node.signal(Signal::SIGINT);
    assert!(node.ended().success());
}

fn assentd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assentd"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn init_makes_keys_once_and_prints_a_piece_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("node");
    let home = home.to_str().unwrap();
    let init = ["init", "--home", home, "--chain-id", "yantai-1", "--institution", "hospital-a"];
    let made = assentd(&init);
    assert!(made.status.success(), "{made:?}");
    let piece = String::from_utf8(made.stdout).unwrap();
    let piece = assent_genesis::ValidatorPiece::parse(&piece).unwrap();
    let keys = assent_node::keys::Keys::load(Path::new(home)).unwrap();
    assert_eq!(piece.consensus_key(), keys.consensus.public());
    for secret in [&keys.consensus, &keys.network] {
        assert!(!piece.to_toml().contains(&hex::encode(secret.to_bytes())));
    }
    let again = assentd(&init);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
}

#[test]
fn a_missing_genesis_or_open_key_file_ends_it_with_a_clear_message() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let path = home.path().to_str().unwrap();
    let none = assentd(&["run", "--home", path, "--genesis", "/nowhere/genesis.toml"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("/nowhere/genesis.toml"));
    let file = home.path().join("genesis.toml");
    fs::write(&file, devnet.genesis.to_toml()).unwrap();
    let key = home.path().join(assent_node::keys::CONSENSUS_KEY);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(key, mode).unwrap();
    let open = assentd(&["run", "--home", path, "--genesis", file.to_str().unwrap()]);
    assert_eq!(open.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&open.stderr).contains("can be read by others"));
}
