//! A seeded simulation of whole validators in one thread: the very replica that the node runs, under a virtual
//! clock, over a network and disks that fail, among validators that lie. Everything follows from the seed: two
//! runs of one seed give the same hash of all that happened.
//!
//! No sockets, no wall clock, no randomness but the seed's. What is asserted stands in [`invariants`]; what
//! happens to whom is drawn in [`plan`].

pub mod byzantine;
pub mod council;
pub mod disk;
pub mod forge;
pub mod invariants;
pub mod machine;
pub mod network;
pub mod plan;
pub mod run;
pub mod soak;
pub mod workload;

use std::sync::LazyLock;

use assent_genesis::Genesis;
use assent_proto::{Address, SecretKey};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub use network::Weather;
pub use plan::{Fault, Report, run_against, run_seed};
pub use run::Sim;

/// A chain's founding document with the secrets that its institutions hold.
#[derive(Clone)]
pub struct Founding {
    /// The document.
    pub genesis: Genesis,
    /// Consensus keys, in the order of the validators.
    pub keys: Vec<SecretKey>,
    /// Operator keys, in the order of the institutions: bureau, hospital A, hospital B, insurer.
    pub operators: Vec<SecretKey>,
    /// Validators' addresses, in their order.
    pub addresses: Vec<Address>,
}

impl Founding {
    /// Four validators.
    pub fn four() -> Founding {
        static FOUR: LazyLock<Founding> = LazyLock::new(|| Founding::of(4));
        FOUR.clone()
    }

    /// Seven validators of the same four institutions.
    pub fn seven() -> Founding {
        static SEVEN: LazyLock<Founding> = LazyLock::new(|| Founding::of(7));
        SEVEN.clone()
    }

    /// Ten validators of the same four institutions.
    pub fn ten() -> Founding {
        static TEN: LazyLock<Founding> = LazyLock::new(|| Founding::of(10));
        TEN.clone()
    }

    fn of(nodes: usize) -> Founding {
        let made = assent_genesis::testing::devnet(nodes, 4);
        let addresses: Vec<_> = made.genesis.validators().validators.iter().map(|v| v.address()).collect();
        let key = |address: &Address| {
            let node = made.nodes.iter().find(|n| n.address == *address).expect("each validator is a node");
            node.consensus.clone()
        };
        Founding {
            keys: addresses.iter().map(key).collect(),
            operators: made.institutions.iter().map(|i| i.operator.clone()).collect(),
            addresses,
            genesis: made.genesis,
        }
    }
}

/// All the randomness of a run.
pub struct Random(ChaCha20Rng);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    /// True in so many of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of a list that is not empty.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }

    /// So many bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.0.next_u64() as u8).collect()
    }
}
