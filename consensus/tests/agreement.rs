//! Four validators agree: with loss, reordering, dead proposers, crashes and one that lies.

mod common;

use assent_consensus::{Evidence, Refusal};
use common::Network;

#[test]
fn four_validators_agree_over_several_heights() {
    let mut network = Network::new(1, 4, 0);
    network.run_to(10);
    for node in &network.nodes {
        assert!(node.evidence.is_empty() && node.abstained.is_empty());
        // A body may come when its height is over.
        assert!(node.refused.iter().all(|r| *r == Refusal::NotAsked));
    }
}

#[test]
fn they_agree_through_loss_and_reordering() {
    for seed in 0..12 {
        let mut network = Network::new(seed, 4, 150);
        network.run_to(6);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut network = Network::new(77, 4, 100);
        network.crash(400, 2, 900);
        network.run_to(5);
        (network.trace, network.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn three_of_four_go_on_without_the_fourth() {
    let mut network = Network::new(3, 4, 0);
    network.kill(2);
    network.run_to(8);
    let rounds: Vec<_> = network.nodes[0].decided.iter().map(|c| c.certificate.round).collect();
    assert!(rounds.contains(&1), "the dead proposer's turn was passed over: {rounds:?}");
}

/// Waits are learnt by each from its own clock; a network slower than the longest first wait ends in agreement all
/// the same, and costs fewer rounds once it is known.
#[test]
fn slow_networks_and_clocks_apart_cost_rounds_at_first_and_are_learnt() {
    for (seed, delay) in [(1, 5), (2, 400), (3, 1_500), (4, 3_000)] {
        let mut network = Network::new(seed, 4, 0);
        network.delay = delay;
        network.skew = [0, 700, 90_000, 3_600_000, 0, 0, 0, 0];
        network.run_to(24);
        let rounds: Vec<u32> = network.nodes[0].decided.iter().map(|c| c.certificate.round).collect();
        assert!(rounds[16..].iter().all(|round| *round <= 2), "{delay} ms: {rounds:?}");
        assert!(network.nodes.iter().all(|n| n.evidence.is_empty()));
    }
}

#[test]
fn on_a_fast_network_a_dead_proposer_costs_little() {
    let time_of = |dead: bool| {
        let mut network = Network::new(9, 4, 0);
        network.run_to(80);
        if dead {
            network.kill(2);
        }
        let (before, heights) = (network.now, network.heights()[0] + 40);
        network.run_to(heights);
        network.now - before
    };
    let (all, three) = (time_of(false), time_of(true));
    // A quarter of the heights wait for the dead one: 0.6 s each (of virtual time), where the longest waits are 1.7 s.
    assert!(three - all < 40 / 4 * 900, "{all} ms with all, {three} ms with three of four");
}

#[test]
fn an_observer_decides_what_the_validators_decide() {
    let mut network = Network::new(4, 5, 50);
    network.run_to(6);
    assert_eq!(network.nodes[4].log.syncs, 0, "an observer signs nothing");
}

#[test]
fn a_crash_at_any_moment_never_makes_a_validator_contradict_itself() {
    for seed in 0..25 {
        let mut network = Network::new(1000 + seed, 4, 80);
        for k in 0..6 {
            let (time, down) = (30 + k * 600 + network.below(500), 20 + network.below(1500));
            let node = network.below(4) as usize;
            network.crash(time, node, down);
        }
        network.run_to(6);
        for node in &network.nodes {
            assert!(node.evidence.is_empty(), "seed {seed}");
            assert!(node.abstained.is_empty(), "a log cut at a whole frame is used: seed {seed}");
        }
    }
}

#[test]
fn every_validator_crashes_at_once_and_the_chain_goes_on() {
    for seed in 0..10 {
        let mut network = Network::new(2000 + seed, 4, 0);
        let time = 20 + seed * 17;
        (0..4).for_each(|node| network.crash(time, node, 100));
        network.run_to(4);
        assert!(network.nodes.iter().all(|n| n.abstained.is_empty() && n.evidence.is_empty()));
    }
}

#[test]
fn a_torn_log_is_cut_where_it_was_synced_and_used() {
    for seed in 0..25 {
        let mut network = Network::new(3000 + seed, 4, 0);
        network.torn = true;
        let time = 20 + seed * 13;
        network.crash(time, 1, 60);
        network.crash(time + 40, 2, 60);
        network.run_to(4);
        assert!(network.nodes.iter().all(|n| n.evidence.is_empty() && n.abstained.is_empty()), "seed {seed}");
    }
}

#[test]
fn a_validator_that_votes_twice_is_reported_and_cannot_split_the_others() {
    let mut network = Network::new(5, 4, 0);
    network.traitor = Some(3);
    network.run_to(6);
    let traitor = network.chain.address(3);
    let mut reports = 0;
    for node in &network.nodes[..3] {
        for evidence in &node.evidence {
            let Evidence::Votes(a, b) = evidence else { panic!("nobody proposed twice") };
            assert!(a.validator == traitor && b.validator == traitor && a.block != b.block);
            assert_eq!((a.height, a.round, a.kind), (b.height, b.round, b.kind));
            reports += 1;
        }
    }
    assert!(reports > 0);
}
