//! What the node's tests share: a founded chain on disk, a running node, signed transactions.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assent_genesis::devnet::Devnet;
use assent_genesis::{Genesis, testing};
use assent_node::api::ledger_client::LedgerClient;
use assent_node::api::{StatusReply, StatusRequest, SubmitRequest, TransactionRequest, Wait};
use assent_node::keys::{self, CONSENSUS_KEY, NETWORK_KEY};
use assent_node::{Config, Node, NodeError};
use assent_proto::field::Message;
use assent_proto::transaction::{Category, Level, Opening, RegisterItem};
use assent_proto::{Action, Author, Body, Envelope, List, SecretKey, TimeMs, wire};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

pub const FREE: &str = "/ip4/127.0.0.1/tcp/0";
/// How long anything is waited for that must come.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// For how long what is signed here is good: longer than anything that is waited for.
pub const LIFE_MS: u64 = 300_000;

/// A chain of one validator, so that one node makes blocks by itself.
pub fn alone() -> Devnet {
    testing::devnet(1, 1)
}

/// A node's directory with the keys of node `i`.
pub fn home(devnet: &Devnet, i: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    keys::write(&dir.path().join(CONSENSUS_KEY), &devnet.nodes[i].consensus).unwrap();
    keys::write(&dir.path().join(NETWORK_KEY), &devnet.nodes[i].network).unwrap();
    dir
}

/// How a node is started on free ports, without peers.
pub fn config(home: &Path, genesis: &Genesis) -> Config {
    Config {
        home: home.into(),
        genesis: genesis.clone(),
        rpc: "127.0.0.1:0".parse().unwrap(),
        listen: FREE.parse().unwrap(),
        peers: Vec::new(),
        limits: Default::default(),
        clients: Default::default(),
        snapshots: Default::default(),
        newest_protocol: assent_proto::block::PROTOCOL_NEWEST,
    }
}

/// A node that runs in this process.
pub struct Running {
    pub rpc: String,
    pub listen: libp2p::Multiaddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), NodeError>>,
}

impl Running {
    pub async fn start(home: &Path, genesis: &Genesis) -> Running {
        Self::start_with(home, genesis, Vec::new()).await
    }

    pub async fn start_with(home: &Path, genesis: &Genesis, peers: Vec<String>) -> Running {
        Self::start_config(Config { peers, ..config(home, genesis) }).await
    }

    pub async fn start_config(config: Config) -> Running {
        let node = Node::start(config).await.unwrap();
        let (rpc, listen) = (format!("http://{}", node.rpc_address()), node.addresses()[0].clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(node.run(async move {
            let _ = stopped.await;
        }));
        Running { rpc, listen, stop, task }
    }

    pub async fn client(&self) -> LedgerClient<Channel> {
        LedgerClient::connect(self.rpc.clone()).await.unwrap().max_decoding_message_size(64 << 20)
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

pub fn now() -> TimeMs {
    TimeMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// The bureau registers an item; each code is another transaction.
pub fn register(devnet: &Devnet, code: u32, expires_at: TimeMs) -> Body {
    Body {
        chain: devnet.genesis.hash().tag(),
        expires_at,
        author: Author::Institution(devnet.genesis.institution("bureau").unwrap().id),
        action: Action::RegisterItem(RegisterItem {
            code,
            scope: 370_600,
            category: Category::Settlement,
            level: Level::High,
            opening: Opening::Prohibited,
            recipients: List::empty(),
        }),
    }
}

pub fn operator(devnet: &Devnet) -> &SecretKey {
    &devnet.institutions.iter().find(|i| i.slug == "bureau").unwrap().operator
}

pub fn seal(devnet: &Devnet, body: &Body) -> Bytes {
    Envelope::sign(&devnet.genesis.hash(), body, &[operator(devnet)]).encode()
}

pub fn good(devnet: &Devnet, code: u32) -> Bytes {
    seal(devnet, &register(devnet, code, now().plus(LIFE_MS)))
}

/// Hands a transaction in, and waits until it is final: on a busy machine longer than one call does.
pub async fn make_final(client: &mut LedgerClient<Channel>, envelope: Bytes) -> wire::Receipt {
    let begun = Instant::now();
    let submit = SubmitRequest { envelope, wait: Wait::Accepted.into() };
    let body_id = client.submit(submit).await.unwrap().into_inner().body_id;
    loop {
        let ask = TransactionRequest { body_id: body_id.clone(), wait: true };
        match client.get_transaction(ask).await {
            Ok(reply) => return reply.into_inner().receipt.unwrap(),
            Err(status) => {
                let late = status.code() == Code::DeadlineExceeded && begun.elapsed() < PATIENCE;
                assert!(late, "{status:?}");
            }
        }
    }
}

/// How a node says that it is, once it does: one that is busy may have no answer at once.
pub async fn status_of(client: &mut LedgerClient<Channel>) -> StatusReply {
    let begun = Instant::now();
    loop {
        match client.get_status(StatusRequest {}).await {
            Ok(reply) => return reply.into_inner(),
            Err(status) => {
                let busy = status.code() == Code::Unavailable && begun.elapsed() < PATIENCE;
                assert!(busy, "{status:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a page of the public interface answers, headers and all.
pub async fn page(rpc: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = rpc.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
