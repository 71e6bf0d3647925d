//! A peer that speaks all of assentd's protocols under a key of its own, and keeps to none of their rules.

use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_node::network::{direct_protocol, message_id};
use assent_node::signed::{Author, Topic};
use assent_proto::{Height, SecretKey};
use assent_replica::PeerMessage;
use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, gossipsub, identity::Keypair, noise, request_response, tcp, yamux};

use crate::assentd::Assentd;
use crate::support::PATIENCE;

/// What a peer may speak; as much as assentd itself does.
#[derive(NetworkBehaviour)]
pub struct Spy {
    pub gossip: gossipsub::Behaviour,
    pub direct: request_response::Behaviour<Raw>,
}

/// Sends bytes as they are, and takes any answer.
#[derive(Clone, Default)]
pub struct Raw;

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

/// What a peer says to all, in its own name.
pub struct Voice {
    topic: gossipsub::IdentTopic,
    author: Author,
}

impl Voice {
    /// Says it of consensus, signed; gives whether it was sent.
    pub fn say(&mut self, swarm: &mut Swarm<Spy>, message: &[u8]) -> bool {
        let bytes = self.author.sign(Topic::Consensus, message);
        self.pass_on(swarm, bytes)
    }

    /// Sends what somebody is said to have said.
    pub fn pass_on(&self, swarm: &mut Swarm<Spy>, bytes: Vec<u8>) -> bool {
        swarm.behaviour_mut().gossip.publish(self.topic.clone(), bytes).is_ok()
    }
}

/// A peer that speaks all of assentd's protocols under a key of its own.
pub fn spy(key: &SecretKey, genesis: &Genesis) -> (Swarm<Spy>, Voice) {
    let author = Author::new(key.clone(), genesis.hash());
    let key = keypair(key);
    let chain = hex::encode(genesis.hash().tag().0);
    let topic = gossipsub::IdentTopic::new(format!("assent/{chain}/consensus"));
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("/assent/{chain}/gossip"))
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .message_id_fn(message_id)
        // Offers nothing again of what it has sent.
        .history_length(1)
        .history_gossip(0)
        .max_transmit_size(1 << 20)
        // A flood waits on the wire and not in the memory of who makes it.
        .connection_handler_queue_len(256)
        .build()
        .unwrap();
    let mut gossip = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).unwrap();
    gossip.subscribe(&topic).unwrap();
    let protocol = libp2p::StreamProtocol::try_from_owned(direct_protocol(&genesis.hash())).unwrap();
    let direct = request_response::Behaviour::new(
        [(protocol, request_response::ProtocolSupport::Full)],
        // What a node that stands still has not read yet is not given up, or more would be opened beside it.
        request_response::Config::default().with_request_timeout(PATIENCE),
    );
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Spy { gossip, direct })
        .unwrap()
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    (swarm, Voice { topic, author })
}

/// What a peer got from the node until it was shut out, or `None` for one that was let in.
#[derive(Debug, Default, PartialEq)]
pub struct Got {
    pub subscriptions: usize,
    pub messages: usize,
    pub answers: usize,
    pub shut_out: bool,
}

pub async fn dial(swarm: &mut Swarm<Spy>, node: &Assentd, stop_at_subscription: bool) -> Got {
    swarm.dial(node.listen.clone()).unwrap();
    let mut got = Got::default();
    let events = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    // Asks for the chain at once, before the other side can have refused.
                    let ask = PeerMessage::CatchUp { from: Height(1), to: Height(9) }.encode();
                    let frame = [&(ask.len() as u32).to_be_bytes()[..], &ask].concat();
                    swarm.behaviour_mut().direct.send_request(&peer_id, frame);
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
    let ended = tokio::time::timeout(PATIENCE, events).await;
    ended.unwrap_or_else(|_| {
        panic!("neither let in nor shut out: {}", std::fs::read_to_string(&node.log).unwrap())
    });
    got
}

/// Dials until it is let in: the node may not know yet that it may, or be too busy to shake hands in time.
pub async fn dial_until_let_in(swarm: &mut Swarm<Spy>, node: &Assentd) -> Got {
    let begun = Instant::now();
    loop {
        let got = dial(swarm, node, true).await;
        if !got.shut_out {
            return got;
        }
        let log = || std::fs::read_to_string(&node.log).unwrap();
        assert!(begun.elapsed() < PATIENCE, "never let in: {}", log());
    }
}

pub fn keypair(key: &SecretKey) -> Keypair {
    Keypair::ed25519_from_bytes(key.to_bytes()).unwrap()
}
