//! Many transactions at once, through all four validators: blocks of several parts, full pools, refusals with a hint.
//! Nothing is timed here but for information; what is asserted is that each is committed exactly once, everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use assent_client::keyfile::{self, InstitutionSecrets};
use assent_client::rpc::api;
use assent_client::rpc::api::ledger_client::LedgerClient;
use assent_genesis::Genesis;
use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::transaction::{Enrol, body_id};
use assent_proto::{Action, Author, Block, Body, BodyId, Envelope, SecretKey, TimeMs, hash};
use assent_tests::network::{Network, PATIENCE};

const TRANSACTIONS: u64 = 4000;
const CLIENTS_PER_NODE: usize = 16;

/// Enrolments of fresh keys, each signed by the bureau and by its own key.
fn enrolments(genesis: &Genesis, bureau: &InstitutionSecrets) -> Vec<(BodyId, Vec<u8>)> {
    let operator = bureau.operator().expect("a key");
    let custodian = genesis.institution("hospital-a").expect("an institution").id;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis()
            as u64;
    (0..TRANSACTIONS)
        .map(|i| {
            let key = SecretKey::from_bytes(&hash::DOCUMENT.hash(&[b"load", &i.to_le_bytes()]).0);
            let enrol = Enrol { custodian, algorithm: Algorithm::Ed25519, key: key.public() };
            let body = Body {
                chain: genesis.hash().tag(),
                expires_at: TimeMs(now + 300_000),
                author: Author::Institution(bureau.institution()),
                action: Action::Enrol(enrol),
            };
            let envelope = Envelope::sign(&genesis.hash(), &body, &[&operator, &key]);
            (body_id(&genesis.hash(), &body.encode()), envelope.encode().to_vec())
        })
        .collect()
}

/// Submits one; a refusal because of a full pool says when to try again, and is followed.
async fn submit(client: &mut LedgerClient<tonic::transport::Channel>, envelope: Vec<u8>) -> u64 {
    let mut refused = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request =
            api::SubmitRequest { envelope: envelope.clone().into(), wait: api::Wait::Accepted as i32 };
        let status = match client.submit(request).await {
            Ok(_) => return refused,
            Err(status) => status,
        };
        let hint = status.metadata().get("retry-after-ms").and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = hint.unwrap_or_else(|| panic!("refused without a hint: {status:?}"));
        assert!(Instant::now() < deadline, "still refused: {status:?}");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}

/// How often each body stands in the chain of a node, up to `height`, and the ids of its blocks.
async fn committed(
    url: &str,
    genesis: &Genesis,
    height: u64,
) -> (BTreeMap<BodyId, u32>, Vec<assent_proto::BlockId>) {
    let mut client =
        LedgerClient::connect(url.to_string()).await.expect("an answer").max_decoding_message_size(32 << 20);
    let (mut times, mut blocks) = (BTreeMap::new(), Vec::new());
    for height in 1..=height {
        let reply = client.get_block(api::BlockRequest { height }).await.expect("a block").into_inner();
        let block = Block::decode(&reply.block).expect("canonical");
        blocks.push(block.header.id());
        for tx in &block.transactions {
            let envelope = Envelope::decode(tx).expect("canonical");
            *times.entry(body_id(&genesis.hash(), &envelope.body)).or_insert(0) += 1;
        }
    }
    (times, blocks)
}

/// R7 at large: what was accepted by any validator is committed once, on all of them, in the same blocks.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_at_once_are_each_committed_once_everywhere() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let passphrase = dir.path().join("passphrase");
    std::fs::write(&passphrase, "nobody relies on this\n").expect("a file");
    let network = Arc::new(Network::found(&dir.path().join("network"), &passphrase).expect("a devnet"));
    network.start_all().expect("four nodes");
    let genesis = Genesis::load(network.genesis()).expect("the genesis file");
    let keyfile = dir.path().join("network/bureau/operator.age");
    let bureau =
        keyfile::open(&keyfile, &SecretString::from("nobody relies on this")).expect("the bureau's keys");
    let all = enrolments(&genesis, &bureau);

    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for (n, part) in all.chunks(all.len().div_ceil(4 * CLIENTS_PER_NODE)).enumerate() {
        let (url, part) = (network.url(n % 4), part.to_vec());
        clients.spawn(async move {
            let mut client = LedgerClient::connect(url).await.expect("an answer");
            let mut refused = 0;
            for (_, envelope) in part {
                refused += submit(&mut client, envelope).await;
            }
            refused
        });
    }
    let refused: u64 = clients.join_all().await.into_iter().sum();
    let accepted = started.elapsed();
    for i in 0..4 {
        network.wait_for(i, "empty pool", |s| s["pool_transactions"] == 0).expect("all are committed");
    }
    let taken = started.elapsed();
    let height = (0..4).map(|i| network.height(i).expect("an answer")).max().expect("four nodes");
    println!(
        "{TRANSACTIONS} transactions accepted in {accepted:.1?} with {refused} refusals, final in {taken:.1?}: {:.0}/s in {height} blocks",
        TRANSACTIONS as f64 / taken.as_secs_f64()
    );
    let mut first = None;
    for i in 0..4 {
        network.wait_for_height(i, height).expect("all reach the height");
        let (times, blocks) = committed(&network.url(i), &genesis, height).await;
        assert_eq!(times.len() as u64, TRANSACTIONS, "node {i} has all");
        assert!(all.iter().all(|(id, _)| times.get(id) == Some(&1)), "node {i} has each once");
        assert_eq!(first.get_or_insert_with(|| blocks.clone()), &blocks, "the same blocks on node {i}");
    }
}
