//! An admitted peer that floods is throttled, then disconnected, then banned for a while; the node goes on
//! committing, its memory stays bounded, and the ban ends. Real processes, real libp2p; the limits are set low,
//! so that a test machine can exceed them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use assent_genesis::devnet::Devnet;
use assent_node::api::ledger_client::LedgerClient;
use assent_proto::{BlockId, Hash, Height};
use assent_replica::{PART_BYTES_MAX, Part, PeerMessage};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Swarm, gossipsub, request_response};
use tokio::task::JoinHandle;

use crate::assentd::Assentd;
use crate::registry::{decide, keys};
use crate::spy::{Spy, SpyEvent, Voice, dial, dial_until_let_in, spy};
use crate::support::*;

/// Generous: a quiet node needs about 30 MB.
const MEMORY_MAX: u64 = 512 << 20;
/// Direct messages of the flooding peer that are on their way at once: no more than assentd takes at one time, so
/// that each is a message and not noise.
const OUTSTANDING_MAX: usize = 12;

/// What a flooding peer does each time it may.
type Flood = fn(&mut Flooder);

struct Flooder {
    swarm: Swarm<Spy>,
    voice: Voice,
    /// The node, once it listens to gossip.
    node: Option<PeerId>,
    dialling: bool,
    outstanding: usize,
    sent: u64,
}

impl Flooder {
    /// Takes all that has happened.
    fn poll(&mut self) {
        while let Some(Some(event)) = self.swarm.next().now_or_never() {
            match event {
                SwarmEvent::ConnectionClosed { num_established: 0, .. } => {
                    (self.node, self.dialling, self.outstanding) = (None, false, 0);
                }
                SwarmEvent::OutgoingConnectionError { .. } => self.dialling = false,
                SwarmEvent::Behaviour(SpyEvent::Gossip(gossipsub::Event::Subscribed { peer_id, .. })) => {
                    (self.node, self.dialling) = (Some(peer_id), false);
                }
                SwarmEvent::Behaviour(SpyEvent::Direct(
                    request_response::Event::OutboundFailure { .. }
                    | request_response::Event::Message {
                        message: request_response::Message::Response { .. },
                        ..
                    },
                )) => self.outstanding = self.outstanding.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn gossip(&mut self, message: &PeerMessage) {
        self.sent += u64::from(self.voice.say(&mut self.swarm, &message.encode()));
    }

    fn send(&mut self, frame: Vec<u8>) {
        if let Some(node) = self.node.filter(|_| self.outstanding < OUTSTANDING_MAX) {
            self.swarm.behaviour_mut().direct.send_request(&node, frame);
            self.outstanding += 1;
            self.sent += 1;
        }
    }

    fn direct(&mut self, message: &PeerMessage) {
        let bytes = message.encode();
        self.send([&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat());
    }
}

fn part() -> PeerMessage {
    let (block, bytes) = (BlockId(Hash([7; 32])), Bytes::from(vec![9; PART_BYTES_MAX]));
    PeerMessage::Part(Part { height: Height(1 << 40), round: 0, block, index: 0, of: 2, bytes })
}

/// Commits one transaction after another, and counts them.
fn committing(node: &Assentd, devnet: &Devnet) -> (Arc<AtomicU64>, Arc<AtomicBool>, JoinHandle<()>) {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (rpc, devnet) = (node.rpc.clone(), devnet.clone());
    let (counted, stopped) = (count.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let mut client = LedgerClient::connect(rpc).await.unwrap();
        for code in 1.. {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            assert_eq!(make_final(&mut client, good(&devnet, code)).await.code, 0);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (count, stop, task)
}

/// Floods until the ban, and checks all that must hold then and afterwards.
async fn flooded(kind: &str, arguments: &[&str], forgiven: usize, flood: Flood) {
    let devnet = alone();
    let home = home(&devnet, 0);
    let mut node = Assentd::start_with(home.path(), &devnet.genesis, arguments);
    let observer = keys(3);
    decide(&node, &devnet, &[&observer], &[]).await;
    let (count, stop, task) = committing(&node, &devnet);
    let (swarm, voice) = spy(&observer.network, &devnet.genesis);
    let mut flooder = Flooder { swarm, voice, node: None, dialling: false, outstanding: 0, sent: 0 };

    let begun = Instant::now();
    let before = count.load(Ordering::Relaxed);
    // Until the ban; and until a transaction was committed since the flood began, which a slow disk may make the later.
    while node.count(&["is banned for a while"]) == 0 || count.load(Ordering::Relaxed) == before {
        let log = || std::fs::read_to_string(&node.log).unwrap();
        assert!(!task.is_finished() && begun.elapsed() < 3 * PATIENCE, "no ban, or no commit: {}", log());
        if flooder.node.is_none() && !flooder.dialling {
            flooder.dialling = flooder.swarm.dial(node.listen.clone()).is_ok();
        }
        for _ in 0..200 {
            flooder.poll();
            if flooder.node.is_some() {
                flood(&mut flooder);
            }
            tokio::task::yield_now().await;
        }
        // Lets other tasks of this thread go on, and the node, which may share its core.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let line = node.logged("is banned for a while");
    assert!(line.contains(&format!("\"kind\":\"{kind}\"")), "{line}");
    assert_eq!(
        node.count(&[&format!("\"kind\":\"{kind}\""), "is disconnected"]),
        forgiven,
        "forgiven at first"
    );
    let offences = async |consequence: &str| {
        let labels = format!("{{kind=\"{kind}\",consequence=\"{consequence}\"}}");
        node.metric(&format!("assent_peer_offences_total{labels}")).await
    };
    assert!(offences("ban").await >= 1);
    assert_eq!(offences("disconnect").await, forgiven as u64);
    if kind != "noise" {
        assert!(offences("throttle").await > 0, "throttled before");
    }

    // It is kept out, and the node goes on.
    let at_ban = count.load(Ordering::Relaxed);
    let (mut swarm, _) = spy(&observer.network, &devnet.genesis);
    let got = dial(&mut swarm, &node, true).await;
    assert!(got.shut_out || node.count(&["a ban is over"]) > 0, "banned");
    assert!(node.peak_memory() < MEMORY_MAX, "{} bytes at most", node.peak_memory());
    println!("{kind}: {} sent, {at_ban} committed, {} MB at most", flooder.sent, node.peak_memory() >> 20);

    // The ban ends by itself.
    drop(flooder);
    node.logged("a ban is over");
    let got = if got.shut_out { dial_until_let_in(&mut swarm, &node).await } else { got };
    assert_eq!(got.subscriptions, 1, "let in again");
    let before = count.load(Ordering::Relaxed);
    while count.load(Ordering::Relaxed) == before {
        assert!(!task.is_finished() && begun.elapsed() < 6 * PATIENCE, "the node commits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.metric("assent_peer_bans").await, 0);
    stop.store(true, Ordering::Relaxed);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_small_messages_to_all() {
    let tip = |f: &mut Flooder| f.gossip(&PeerMessage::Tip { height: Height(1) });
    flooded("gossip_flood", &["--peer-messages", "50"], 1, tip).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bytes_to_all() {
    flooded("gossip_flood", &["--peer-bytes", "1048576"], 1, |f| f.gossip(&part())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions() {
    let ask = |f: &mut Flooder| {
        let block = BlockId(Hash([7; 32]));
        f.direct(&PeerMessage::GetProposal { height: Height(1), round: 0, block });
    };
    flooded("request_flood", &["--peer-requests", "10"], 1, ask).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bytes_that_nobody_asked_for() {
    flooded("direct_flood", &["--peer-bytes", "16777216"], 1, |f| f.direct(&part())).await;
}

/// Streams that are opened and bring no message.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_streams() {
    flooded("noise", &[], 2, |f| f.send(vec![0, 0, 0, 9])).await;
}
