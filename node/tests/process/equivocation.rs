//! A validator that contradicts itself in front of one node stands on the chain soon after, for all to see: real
//! processes, a real libp2p peer with a validator's keys.

use std::time::{Duration, Instant};

use assent_genesis::devnet::Devnet;
use assent_genesis::testing;
use assent_node::api::ObjectRequest;
use assent_node::api::ledger_client::LedgerClient;
use assent_proto::evidence::{Claim, Evidence};
use assent_proto::field::Element;
use assent_proto::state::{Misconduct, Object};
use assent_proto::transaction::{ReportEquivocation, Statement, StatementKind};
use assent_proto::validators::{VoteKind, address, vote_message};
use assent_proto::{BlockId, Hash, Height, ObjectKind, ObjectRef};
use assent_replica::{ConsensusMessage, PeerMessage, SignedVote};
use futures::{FutureExt, StreamExt};
use libp2p::Swarm;

use crate::assentd::Assentd;
use crate::spy::{Spy, Voice, dial_until_let_in, spy};
use crate::support::*;

/// Contradictions that a node saw.
const SEEN: &str = "assent_equivocations_total";

fn vote(devnet: &Devnet, height: Height, block: Option<u8>) -> SignedVote {
    let (genesis, key) = (devnet.genesis.hash(), &devnet.nodes[3].consensus);
    let (block, validator) = (block.map(|b| BlockId(Hash([b; 32]))), address(&key.public()));
    let message = vote_message(&genesis, VoteKind::Prevote, height, 0, block.as_ref(), &validator);
    let signature = key.sign(message.as_bytes());
    SignedVote { kind: VoteKind::Prevote, height, round: 0, block, validator, signature }
}

/// Where the contradiction will stand.
fn misconduct(devnet: &Devnet, height: Height) -> ObjectRef {
    let statement = |v: SignedVote| Statement { block: v.block, valid_round: None, signature: v.signature };
    let statements = [Some(1), None].map(|block| statement(vote(devnet, height, block)));
    let key = devnet.nodes[3].consensus.public();
    let report = ReportEquivocation::of(key, height, 0, StatementKind::Prevote, statements).unwrap();
    report.id().into()
}

/// Votes twice at the height that a node works at, until the node has seen it; gives the height. The vote for a height
/// may come when it is decided: one block later it is still compared, two blocks later no more.
async fn contradict(devnet: &Devnet, node: &Assentd, liar: &mut Swarm<Spy>, voice: &mut Voice) -> Height {
    let begun = Instant::now();
    loop {
        let height = Height(node.height().await + 1);
        for block in [Some(1), None] {
            let message = ConsensusMessage::Vote(vote(devnet, height, block));
            assert!(voice.say(liar, &PeerMessage::Consensus(message).encode()));
        }
        loop {
            while liar.next().now_or_never().is_some() {}
            let over = node.height().await > height.0 + 1;
            if node.metric(SEEN).await > 0 {
                return height;
            }
            if over {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "it is not seen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_comes_onto_the_chain() {
    let devnet = testing::devnet(4, 4);
    let homes: Vec<_> = (0..3).map(|i| home(&devnet, i)).collect();
    let mut nodes: Vec<Assentd> = Vec::new();
    for home in &homes {
        let peers: Vec<_> = nodes.iter().flat_map(|n| ["--peer".to_owned(), n.listen.to_string()]).collect();
        let arguments: Vec<_> = peers.iter().map(String::as_str).collect();
        nodes.push(Assentd::start_with(home.path(), &devnet.genesis, &arguments));
    }
    let (code, decided) = nodes[1].submit(good(&devnet, 1)).await;
    assert_eq!(code, 0, "three of four decide");

    for node in &nodes {
        node.reaches(decided).await;
    }
    let (mut liar, mut voice) = spy(&devnet.nodes[3].network, &devnet.genesis);
    dial_until_let_in(&mut liar, &nodes[0]).await;
    let height = contradict(&devnet, &nodes[0], &mut liar, &mut voice).await;

    // Another node than the one that the liar spoke to shows it, with a proof that the genesis file checks.
    let mut client = LedgerClient::connect(nodes[2].rpc.clone()).await.unwrap();
    let object = misconduct(&devnet, height);
    let begun = Instant::now();
    let shown = loop {
        while liar.next().now_or_never().is_some() {}
        let asked = ObjectRequest { object: Some(object.write()) };
        let reply = client.get_object(asked).await.unwrap().into_inner();
        match Evidence::check(&reply.evidence, &devnet.genesis.trust()).unwrap().0.claim {
            Claim::State(state) => break state.leaf,
            _ => assert!(begun.elapsed() < PATIENCE, "it is not on the chain"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let Ok(Object::Misconduct(shown)) = Object::decode(ObjectKind::Misconduct, &shown.content) else {
        panic!("a misconduct stands there");
    };
    let Misconduct { validator, height: at, round, what, removed_from, .. } = shown;
    assert_eq!((validator, at, round), (devnet.nodes[3].consensus.public(), height, 0));
    assert_eq!((what, removed_from), (StatementKind::Prevote, None), "recorded, as genesis says");
    // The three go on without the liar.
    assert_eq!(nodes[2].submit(good(&devnet, 2)).await.0, 0);
    assert_eq!(nodes[0].metric(SEEN).await, 1, "told once");
}
