//! The allow-list follows the registry on chain: who is admitted by a decision of the institutions connects at
//! once, who is removed is disconnected at once, and nobody restarts.

use assent_genesis::devnet::Devnet;
use assent_proto::transaction::{
    Change, ChangeNodes, KeyUse, NodeAdmission, NodeRecord, Propose, join_message,
};
use assent_proto::{Action, Author, Body, List, SecretKey, TimeMs};
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;

use crate::assentd::Assentd;
use crate::spy::{Got, dial, dial_until_let_in, spy};
use crate::support::*;

/// A node's two keys.
pub struct Keys {
    pub consensus: SecretKey,
    pub network: SecretKey,
}

pub fn keys(n: u8) -> Keys {
    Keys { consensus: SecretKey::from_bytes(&[n; 32]), network: SecretKey::from_bytes(&[n + 100; 32]) }
}

/// The bureau, which has the only validator, decides who may connect.
pub async fn decide(node: &Assentd, devnet: &Devnet, admit: &[&Keys], remove: &[&Keys]) {
    let (genesis, bureau) = (devnet.genesis.hash(), devnet.genesis.institution("bureau").unwrap().id);
    let admission = |keys: &&Keys| {
        let sign = |key: &SecretKey, key_use| {
            key.sign(join_message(&genesis, &bureau, key_use, &key.public()).as_bytes())
        };
        NodeAdmission {
            record: NodeRecord {
                institution: bureau,
                key: keys.consensus.public(),
                network_key: keys.network.public(),
            },
            possession: sign(&keys.consensus, KeyUse::Consensus),
            network_possession: sign(&keys.network, KeyUse::Network),
        }
    };
    let list = |keys: &[&Keys]| keys.iter().map(|k| k.consensus.public()).collect::<Vec<_>>();
    let change = ChangeNodes {
        admit: List::try_from(admit.iter().map(admission).collect::<Vec<_>>()).unwrap(),
        remove: list(remove).try_into().unwrap(),
    };
    let expires_at = now().plus(LIFE_MS);
    let propose = Propose { change: Change::Nodes(change), until: TimeMs(expires_at.0 + 60_000) };
    let body = Body {
        chain: genesis.tag(),
        expires_at,
        author: Author::Institution(bureau),
        action: Action::Propose(Box::new(propose)),
    };
    assert_eq!(node.submit(seal(devnet, &body)).await.0, 0, "the change is decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_admitted_and_removed_by_decision_without_restart() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let mut node = Assentd::start(home.path(), &devnet.genesis);
    let observer = keys(1);
    let refused = Got { shut_out: true, ..Got::default() };
    let (mut peer, _) = spy(&observer.network, &devnet.genesis);
    assert_eq!(dial(&mut peer, &node, false).await, refused, "a stranger");

    decide(&node, &devnet, &[&observer], &[]).await;
    // The decision is final a moment before the network knows.
    let got = dial_until_let_in(&mut peer, &node).await;
    assert_eq!(got.subscriptions, 1, "admitted");
    assert_eq!(node.status().await.admitted_peers, 1);

    decide(&node, &devnet, &[], &[&observer]).await;
    let closed =
        async { while !matches!(peer.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("it is disconnected at once");
    node.logged("no longer admitted");
    assert_eq!(dial(&mut peer, &node, false).await, refused, "a stranger again");
}

/// The registry outlives a restart: the list is that of the stored state, not of the genesis file.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_admitted_is_admitted_after_a_restart() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Assentd::start(home.path(), &devnet.genesis);
    let observer = keys(2);
    decide(&node, &devnet, &[&observer], &[]).await;
    drop(node);
    let node = Assentd::start(home.path(), &devnet.genesis);
    let (mut peer, _) = spy(&observer.network, &devnet.genesis);
    assert_eq!(dial_until_let_in(&mut peer, &node).await.subscriptions, 1);
}
