//! `assentd check` says what a node is on its chain now, not what it was when the chain was founded.

use std::fs;
use std::path::Path;

use assent_node::keys::{self as keyfiles, CONSENSUS_KEY, NETWORK_KEY};
use nix::sys::signal::Signal;

use crate::assentd;
use crate::assentd::Assentd;
use crate::registry::{Keys, decide, keys};
use crate::support::*;

/// What the check prints, or why it fails.
fn check(home: &Path, genesis: &Path) -> Result<String, String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let out = assentd(&["check", "--home", &text(home), "--genesis", &text(genesis)]);
    match out.status.code() {
        Some(0) => Ok(String::from_utf8(out.stdout).unwrap()),
        Some(1) => Err(String::from_utf8(out.stderr).unwrap()),
        other => panic!("{other:?}: {out:?}"),
    }
}

fn put(home: &Path, keys: &Keys) {
    for (name, key) in [(CONSENSUS_KEY, &keys.consensus), (NETWORK_KEY, &keys.network)] {
        fs::remove_file(home.join(name)).unwrap();
        keyfiles::write(&home.join(name), key).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_judges_by_the_newest_state_here_and_a_node_may_run_meanwhile() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let (home, file) = (home.path(), home.path().join("genesis.toml"));
    fs::write(&file, devnet.genesis.to_toml()).unwrap();
    let founded = check(home, &file).unwrap();
    assert!(
        founded.contains("judged by    the genesis file\n") && founded.contains("with 1 of 1"),
        "{founded}"
    );
    assert!(founded.contains("institution  bureau"), "{founded}");

    let node = Assentd::start(home, &devnet.genesis);
    let (observer, stranger) = (keys(1), keys(2));
    decide(&node, &devnet, &[&observer], &[]).await;
    let running = check(home, &file).unwrap();
    assert!(running.contains("after block ") && running.contains("with 1 of 1"), "{running}");
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());

    let validator = keyfiles::Keys::load(home).unwrap();
    put(home, &observer);
    let observes = check(home, &file).unwrap();
    assert!(observes.contains("after block ") && observes.contains("no: it observes"), "{observes}");
    put(home, &stranger);
    let unknown = check(home, &file).unwrap_err();
    assert!(unknown.contains("the registry after block ") && unknown.contains("names no node"), "{unknown}");
    put(home, &Keys { consensus: observer.consensus.clone(), network: validator.network });
    assert!(check(home, &file).unwrap_err().contains("the network key is not the one"));

    // Without the database nothing is known of the admission.
    fs::remove_dir_all(home.join(assent_node::store::DATABASE)).unwrap();
    put(home, &observer);
    let unknown = check(home, &file).unwrap_err();
    assert!(unknown.contains("the genesis file names no node"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_refuses_the_database_of_another_chain() {
    let (devnet, other) = (alone(), assent_genesis::testing::devnet(2, 2));
    let home = home(&devnet, 0);
    let node = Assentd::start(home.path(), &devnet.genesis);
    node.submit(good(&devnet, 1)).await;
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    let file = home.path().join("other.toml");
    fs::write(&file, other.genesis.to_toml()).unwrap();
    assert!(check(home.path(), &file).unwrap_err().contains("the database is of the chain"));
}
