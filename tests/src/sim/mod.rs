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
mod races;
mod rights;
pub mod run;
pub mod soak;
pub mod workload;

use std::sync::LazyLock;

use assent_genesis::devnet::Devnet;
use assent_genesis::testing::{devnet, devnet_within};
use assent_genesis::{Genesis, default_parameters};
use assent_proto::state::Parameters;
use assent_proto::{Address, SecretKey};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub use network::Weather;
pub use plan::{Fault, Report, run_against, run_first, run_seed};
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
        Founding::usual(4)
    }

    /// Seven validators of the same four institutions.
    pub fn seven() -> Founding {
        Founding::usual(7)
    }

    /// So many validators of the same four institutions: 4, 7 or 10.
    pub fn usual(nodes: usize) -> Founding {
        static MADE: LazyLock<[Founding; 3]> = LazyLock::new(|| SIZES.map(|n| devnet(n, 4).into()));
        one_of(&MADE, nodes)
    }

    /// The same on a chain in which delays and deadlines are of seconds, not of days: they come in a run.
    pub fn hasty(nodes: usize) -> Founding {
        static MADE: LazyLock<[Founding; 3]> = LazyLock::new(|| {
            let hasty = Parameters {
                recovery_delay_ms: 3_000,
                emergency_anchor_ms: 5_000,
                emergency_review_ms: 3_000,
                emergency_notice_ms: 3_000,
                ..default_parameters()
            };
            SIZES.map(|n| devnet_within(n, 4, hasty.clone()).into())
        });
        one_of(&MADE, nodes)
    }
}

const SIZES: [usize; 3] = [4, 7, 10];

fn one_of(made: &[Founding; 3], nodes: usize) -> Founding {
    made.iter().find(|f| f.keys.len() == nodes).expect("4, 7 or 10").clone()
}

impl From<Devnet> for Founding {
    fn from(made: Devnet) -> Founding {
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
