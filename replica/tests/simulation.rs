//! Four validators under a virtual clock, over a bad network and failing power; one small seeded simulation.
//!
//! A failing run names its seed: `SEED=17 cargo test -p assent-replica --test simulation` runs that one alone,
//! `SEEDS=1000` so many.

mod sim;

use assent_proto::Height;
use sim::{Sim, Weather};

/// Twenty persons are enrolled through any validator, in foul weather; one machine loses power at some write
/// and comes back seconds later.
fn crash_run(seed: u64) -> Sim {
    let mut sim = Sim::new(seed, Weather::FOUL);
    for n in 0..20 {
        let (tx, ms) = (sim.enrolment(&format!("person {n}")), sim.draw(12_000));
        sim.submit_in(ms, tx);
    }
    let (victim, ms, writes, off) = (sim.draw(4) as usize, sim.draw(6_000), sim.draw(40), sim.draw(6_000));
    sim.cut_power_in(ms, victim, writes);
    sim.start_in(ms + 2_000 + off, victim);
    sim.run_until(
        300_000,
        "everything handed in becomes final everywhere, and who crashed votes again",
        |sim| {
            let back = sim.came_back.get(&victim).copied();
            sim.all_final() && back.is_some_and(|height| sim.has_voted_above(victim, height.next().next()))
        },
    );
    sim
}

fn seeds(n: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..std::env::var("SEEDS").map_or(n, |n| n.parse().expect("SEEDS is a number"))).collect(),
    }
}

#[test]
fn four_agree_through_loss_reordering_and_a_crash() {
    for seed in seeds(20) {
        let mut sim = crash_run(seed);
        sim.check_agreement();
        println!("seed {seed}: heights {:?}, {} answers with blocks", sim.heights(), sim.blocks_sent);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (a, b, c) = (crash_run(7).trace(), crash_run(7).trace(), crash_run(8).trace());
    assert_eq!(a, b);
    assert_ne!(a, c, "another seed is another run");
}

#[test]
fn who_was_away_for_long_catches_up_by_certified_blocks_and_votes_again() {
    let mut sim = Sim::new(1, Weather::FAIR);
    sim.run_for(500);
    sim.stop(2);
    for n in 0..120 {
        let tx = sim.enrolment(&format!("person {n}"));
        sim.submit_in(n * 400, tx);
    }
    sim.run_until(300_000, "three go on", |sim| sim.height(0) > Height(80));
    assert!(sim.height(2) < Height(5));
    sim.start(2);
    sim.run_until(300_000, "the fourth catches up", |sim| {
        sim.all_final() && sim.has_voted_above(2, Height(80))
    });
    assert!(sim.blocks_sent >= 2, "more blocks than one answer holds");
    sim.check_agreement();
}

#[test]
fn the_chain_goes_on_after_all_lost_power_at_once() {
    for seed in seeds(5) {
        let mut sim = Sim::new(seed, Weather::FOUL);
        for n in 0..6 {
            let tx = sim.enrolment(&format!("person {n}"));
            sim.submit_in(n * 700, tx);
        }
        let ms = 500 + sim.draw(3_000);
        sim.run_for(ms);
        (0..4).for_each(|at| sim.stop(at));
        (0..4).for_each(|at| sim.start(at));
        sim.run_until(300_000, "all is final after the restart", |sim| sim.all_final());
        sim.check_agreement();
    }
}

#[test]
fn a_clock_that_is_wrong_costs_rounds_and_not_the_chain() {
    for (seed, ahead) in [(3, 10_000), (4, 2_500), (5, 60_000)] {
        let mut sim = Sim::new(seed, Weather::FAIR);
        sim.skew[1] = ahead;
        for n in 0..10 {
            let tx = sim.enrolment(&format!("person {n}"));
            sim.submit_in(n * 900, tx);
        }
        sim.run_until(600_000, "a clock that is ahead does not stop the chain", |sim| sim.all_final());
        sim.check_agreement();
    }
}

#[test]
fn an_idle_chain_makes_no_blocks_but_the_heartbeat() {
    let mut sim = Sim::new(1, Weather::FAIR);
    sim.run_for(1_000);
    let before = sim.height(0);
    let beat = sim.genesis.parameters().heartbeat_ms;
    sim.run_for(5 * beat);
    let made = sim.height(0).0 - before.0;
    assert!((4..=5).contains(&made), "{made} blocks in five heartbeats");
    let tx = sim.enrolment("person");
    sim.submit_in(0, tx);
    let start = sim.now;
    sim.run_until(beat, "a transaction does not wait for the heartbeat", |sim| sim.all_final());
    assert!(sim.now.0 - start.0 < 500, "{} ms", sim.now.0 - start.0);
}
