//! Foundings with keys from fixed bytes, for tests alone: everybody knows these keys.

use std::sync::LazyLock;

use assent_proto::state::Parameters;
use assent_proto::{SecretKey, TimeMs};

use crate::devnet::{self, Devnet, Plan};
use crate::{Genesis, default_parameters, default_policy};

/// The founding time of test chains: 2026-01-01T00:00:00Z.
pub const TIME: TimeMs = TimeMs(1_767_225_600_000);

/// Four validators of four institutions (`bureau`, `hospital-a`, `hospital-b`, `insurer`): the document, the
/// consensus keys in the order of its validators, the operator keys in the order of its institutions.
pub fn four() -> (Genesis, Vec<SecretKey>, Vec<SecretKey>) {
    // Made once a process: without optimisation its keys and proofs take a noticeable time.
    static FOUR: LazyLock<Devnet> = LazyLock::new(|| devnet(4, 4));
    let consensus = FOUR.nodes.iter().map(|n| n.consensus.clone()).collect();
    (FOUR.genesis.clone(), consensus, FOUR.institutions.iter().map(|i| i.operator.clone()).collect())
}

/// A devnet of so many nodes in so many institutions, the same at every call.
pub fn devnet(nodes: usize, institutions: usize) -> Devnet {
    devnet_within(nodes, institutions, default_parameters())
}

/// The same within other bounds.
pub fn devnet_within(nodes: usize, institutions: usize, parameters: Parameters) -> Devnet {
    let plan = Plan {
        chain_id: "assent-test".into(),
        time: TIME,
        nodes,
        institutions,
        parameters,
        policy: default_policy(),
    };
    let mut n = 0u64;
    let mut fixed = || {
        n += 1;
        let mut seed = *b"assent: a key that everyone know";
        seed[24..].copy_from_slice(&n.to_le_bytes());
        seed
    };
    devnet::found(&plan, &mut fixed).expect("a plan of 1 to 128 nodes and 1 to 28 institutions is good")
}

#[cfg(test)]
mod tests {
    #[test]
    fn four_is_as_told() {
        let (g, consensus, operators) = super::four();
        let slugs: Vec<_> = g.institutions().iter().map(|i| i.slug.as_str()).collect();
        assert_eq!(slugs, ["bureau", "hospital-a", "hospital-b", "insurer"]);
        for i in 0..4 {
            assert_eq!(g.validators().validators[i].key, consensus[i].public());
            assert_eq!(g.validators().validators[i].institution, g.institutions()[i].id);
            assert_eq!(g.institutions()[i].institution.keys[0].key, operators[i].public());
        }
    }
}
