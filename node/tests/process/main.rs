//! assentd as a process: who may connect, what misbehaving costs, what it logs, how it ends.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod assentd;
mod documents;
mod equivocation;
mod floods;
mod registry;
mod spy;
mod standing;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use assent_genesis::devnet::Devnet;
use assent_genesis::testing;
use assent_node::signed::{Author, Topic};
use assent_proto::SecretKey;
use assentd::Assentd;
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use nix::sys::signal::Signal;
use spy::{Got, dial, dial_until_let_in, keypair, spy};
use support::*;

/// A peer that genesis does not admit gets not one byte of any protocol, and is logged. R1's gossip is not for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_and_logged() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    node.submit(good(&devnet, 1)).await;
    for n in 0..3 {
        let key = SecretKey::from_bytes(&[200 + n; 32]);
        let name = keypair(&key).public().to_peer_id().to_string();
        let (mut stranger, _) = spy(&key, &devnet.genesis);
        let begun = Instant::now();
        // One that is too busy to shake hands in time shuts it out too, and does not know whom.
        while node.count(&[&name]) == 0 {
            let got = dial(&mut stranger, &node, false).await;
            assert_eq!(got, Got { shut_out: true, ..Got::default() });
            assert!(begun.elapsed() < PATIENCE, "{name} is not logged");
        }
        let line = node.logged(&name);
        assert!(line.contains("refused a stranger") && line.contains("/ip4/127.0.0.1/tcp/"), "{line}");
    }
    assert!(node.height().await >= 1, "the node goes on");
}

/// The same peer under a validator's key is let in: what the stranger did not get is there to be had.
#[tokio::test(flavor = "multi_thread")]
async fn a_validator_is_let_in_and_kept_out_once_it_sends_garbage() {
    let devnet = testing::devnet(4, 4);
    kept_out_for(&devnet, |author| author.sign(Topic::Consensus, b"no message of consensus")).await;
}

/// What another validator is said to have said and did not sign is the fault of who passed it on.
#[tokio::test(flavor = "multi_thread")]
async fn a_validator_is_kept_out_once_it_says_something_in_anothers_name() {
    let devnet = testing::devnet(4, 4);
    let framed = devnet.nodes[2].network.clone();
    kept_out_for(&devnet, |author| {
        let mut bytes = author.sign(Topic::Consensus, b"whatever");
        bytes[..32].copy_from_slice(framed.public().as_bytes());
        bytes
    })
    .await;
}

async fn kept_out_for(devnet: &Devnet, said: impl FnOnce(&mut Author) -> Vec<u8>) {
    let home = home(devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    let key = &devnet.nodes[1].network;
    let (mut validator, voice) = spy(key, &devnet.genesis);
    assert_eq!(dial_until_let_in(&mut validator, &node).await.subscriptions, 1);

    let bytes = said(&mut Author::new(key.clone(), devnet.genesis.hash()));
    assert!(voice.pass_on(&mut validator, bytes));
    let closed =
        async { while !matches!(validator.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is disconnected");
    let line = node.logged("broke the protocol");
    assert!(line.contains(&keypair(key).public().to_peer_id().to_string()), "{line}");
    assert!(line.contains("is banned for a while"), "{line}");
    let again = dial(&mut validator, &node, true).await;
    assert!(again.shut_out || node.count(&["a ban is over"]) > 0, "and kept out for a while");
    assert_eq!(node.height().await, 0, "the node goes on");
}

/// A node dials from a port of its own. From the one that it listens on, two that dial each other at one time open a
/// single connection which neither accepts, and fail to shake hands as long as they keep time.
#[test]
fn a_node_does_not_dial_from_where_it_listens() {
    let devnet = testing::devnet(4, 4);
    let home = home(&devnet, 0);
    let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", peer.local_addr().unwrap().port());
    let node = Assentd::start_with(home.path(), &devnet.genesis, &["--peer", &address]);
    let (_, from) = peer.accept().unwrap();
    assert!(!node.listen.to_string().ends_with(&format!("/tcp/{}", from.port())), "{from} {}", node.listen);
}

/// What two of three say that are all needed, and are not connected to each other, the third passes on.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_connected_to_another_decides_with_it_through_a_third() {
    let devnet = testing::devnet(4, 4);
    let homes: Vec<_> = (0..4).map(|i| home(&devnet, i)).collect();
    let start = |i: usize, peers: &[&Assentd]| {
        let peers: Vec<_> = peers.iter().map(|p| p.listen.to_string()).collect();
        let arguments: Vec<_> = peers.iter().flat_map(|p| ["--peer", p]).collect();
        Assentd::start_with(homes[i].path(), &devnet.genesis, &arguments)
    };
    let third = start(0, &[]);
    let fourth = start(1, &[&third]);
    let two = [start(2, &[&third, &fourth]), start(3, &[&third, &fourth])];
    assert_eq!(two[0].submit(good(&devnet, 1)).await.0, 0);
    assert_eq!(two[1].submit(good(&devnet, 2)).await.0, 0);
    drop(fourth);
    for code in 3..=10 {
        assert_eq!(two[code as usize % 2].submit(good(&devnet, code)).await.0, 0, "transaction {code}");
    }
    for one in &two {
        one.wait_for("connection to one other alone", |status| status.connected == 1).await;
    }
}

/// One of four alone decides nothing, and says so in its status, its metrics and its log.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_it_waits_and_says_so() {
    let devnet = testing::devnet(4, 4);
    let home = home(&devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    let line = node.logged("the quorum is gone");
    assert!(line.contains("\"validators\":4"), "{line}");
    let status = node.status().await;
    assert!(status.waiting_for_quorum && status.voting && !status.validator.is_empty());
    assert_eq!((status.validators, status.connected, status.admitted_peers), (4, 0, 3));
    assert_eq!(node.metric("assent_waiting_for_quorum").await, 1);
    assert_eq!(node.metric("assent_validators").await, 4);
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_assentd"))
        .args(["status", "--rpc", &node.rpc])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("waiting for a quorum") && shown.contains("0 connected of 3 admitted"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_cleanly_and_it_starts_again() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Assentd::start(home.path(), &devnet.genesis);
    node.submit(good(&devnet, 1)).await;
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
