//! The simulation finds what it is there to find: each fault that is planted into consensus, execution or
//! recovery is caught within a stated number of seeds. Runs with the feature `mutations` alone.

use assent_proto::mutation::{Mutation, plant};
use assent_tests::sim::run_seed;

/// The first seed that catches a planted fault, and what it says.
fn first_to_catch(mutation: Mutation, seeds: u64) -> Option<(u64, String)> {
    let caught = |seed| {
        plant(Some(mutation));
        let result = run_seed(seed);
        plant(None);
        result.err().map(|why| (seed, why))
    };
    (0..seeds).find_map(caught)
}

/// Caught within so many seeds, which pass without it.
fn is_caught(mutation: Mutation, within: u64) {
    let Some((seed, why)) = first_to_catch(mutation, within) else {
        panic!("{mutation:?} was not caught within {within} seeds");
    };
    let first = why.lines().next().unwrap_or_default();
    println!("{mutation:?} caught by seed {seed}: {first}");
    run_seed(seed).unwrap_or_else(|why| panic!("seed {seed} without a fault: {why}"));
}

#[test]
fn a_log_that_is_not_synced_is_caught_within_100_seeds() {
    is_caught(Mutation::SkipLogSync, 100);
}

#[test]
fn a_lock_forgotten_over_a_restart_is_caught_within_300_seeds() {
    is_caught(Mutation::ForgetLock, 300);
}

#[test]
fn votes_that_nobody_signed_are_caught_within_100_seeds() {
    is_caught(Mutation::UnsignedVotes, 100);
}

#[test]
fn calling_an_untimely_locked_value_invalid_is_caught_within_300_seeds() {
    is_caught(Mutation::UntimelyIsInvalid, 300);
}

#[test]
fn one_id_for_body_and_envelope_is_caught_within_300_seeds() {
    is_caught(Mutation::OneId, 300);
}

#[test]
fn revocations_executed_in_block_order_are_caught_within_100_seeds() {
    is_caught(Mutation::RevokeInBlockOrder, 100);
}

#[test]
fn a_parent_certificate_that_nobody_checks_is_caught_within_300_seeds() {
    is_caught(Mutation::SkipParentCertificate, 300);
}

#[test]
fn a_block_applied_twice_after_a_crash_is_caught_within_100_seeds() {
    is_caught(Mutation::ApplyTwice, 100);
}

#[test]
fn a_validator_that_does_not_heed_what_others_saw_of_it_is_caught_within_300_seeds() {
    is_caught(Mutation::IgnoreFloor, 300);
}
