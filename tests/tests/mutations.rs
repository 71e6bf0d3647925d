//! The simulation finds what it is there to find: each fault that is planted into consensus, execution or
//! recovery is caught within a stated number of seeds. Runs with the feature `mutations` alone.

use assent_proto::mutation::{Mutation, plant};
use assent_tests::sim::byzantine::Behaviour;
use assent_tests::sim::{Report, run_against, run_seed};

/// The run of a seed, with a liar of a kind if that is who profits from the fault.
fn run(seed: u64, liar: Option<Behaviour>) -> Result<Report, String> {
    liar.map_or_else(|| run_seed(seed), |behaviour| run_against(seed, behaviour))
}

/// Caught within so many seeds; and the seed that catches it passes without it.
fn is_caught(mutation: Mutation, liar: Option<Behaviour>, within: u64) {
    let caught = |seed| {
        plant(Some(mutation));
        let result = run(seed, liar);
        plant(None);
        result.err().map(|why| (seed, why))
    };
    let Some((seed, why)) = (0..within).find_map(caught) else {
        panic!("{mutation:?} was not caught within {within} seeds");
    };
    let first = why.lines().next().unwrap_or_default();
    println!("{mutation:?} caught by seed {seed}: {first}");
    run(seed, liar).unwrap_or_else(|why| panic!("seed {seed} without a fault: {why}"));
}

#[test]
fn a_log_that_is_not_synced_is_caught_within_30_seeds() {
    is_caught(Mutation::SkipLogSync, None, 30);
}

#[test]
fn a_lock_forgotten_over_a_restart_is_caught_within_100_seeds() {
    is_caught(Mutation::ForgetLock, None, 100);
}

#[test]
fn votes_that_nobody_signed_are_caught_within_60_seeds() {
    is_caught(Mutation::UnsignedVotes, Some(Behaviour::SendsGarbage), 60);
}

#[test]
fn calling_an_untimely_locked_value_invalid_is_caught_within_100_seeds() {
    is_caught(Mutation::UntimelyIsInvalid, None, 100);
}

#[test]
fn one_id_for_body_and_envelope_is_caught_within_60_seeds() {
    is_caught(Mutation::OneId, Some(Behaviour::ProposesInvalidBlocks), 60);
}

#[test]
fn revocations_executed_in_block_order_are_caught_within_60_seeds() {
    is_caught(Mutation::RevokeInBlockOrder, None, 60);
}

#[test]
fn a_parent_certificate_that_nobody_checks_is_caught_within_60_seeds() {
    is_caught(Mutation::SkipParentCertificate, Some(Behaviour::ProposesInvalidBlocks), 60);
}

#[test]
fn a_block_applied_twice_after_a_crash_is_caught_within_30_seeds() {
    is_caught(Mutation::ApplyTwice, None, 30);
}

#[test]
fn a_validator_that_does_not_heed_what_others_saw_of_it_is_caught_within_100_seeds() {
    is_caught(Mutation::IgnoreFloor, None, 100);
}
