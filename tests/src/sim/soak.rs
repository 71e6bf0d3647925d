//! A long run under constant load: does anything grow that ought not to? The load is requests that are denied,
//! which leave events and no leaves, and now and then a person who enrols. Machines lose power in turn.
//! Nothing is measured of the process here; who calls it looks at that.

use assent_ledger::testing::{Scene, World};
use assent_proto::transaction::RequestAccess;
use assent_proto::{Action, Commitment, GrantId, Hash, Height};
use assent_replica::Input;

use super::disk::Unsynced;
use super::{Founding, Sim, Weather};

/// One transaction in so many ms.
const EVERY_MS: u64 = 1_000;
/// One enrolment among so many transactions.
const ENROLMENT_EVERY: u64 = 60;
/// Blocks that a disk of the run keeps: more than the replay window has.
const KEPT_BLOCKS: u64 = 2_000;
/// Heights that the watch remembers.
const WATCHED: u64 = 500;
/// A machine loses power so often, ms, and stays off for so long.
const OUTAGE_EVERY_MS: u64 = 1_800_000;
const OUTAGE_MS: u64 = 5_000;
/// The parts of an hour that are run between two looks at whether all is well, ms.
const SLICE_MS: u64 = 60_000;

/// How things are after some hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Virtual hours since the beginning.
    pub hour: u64,
    /// The newest height.
    pub height: u64,
    /// Living leaves of the state.
    pub leaves: usize,
    /// Transactions that wait at all machines together.
    pub waiting: usize,
    /// Messages on their way and other events to come.
    pub queued: usize,
    /// Transactions handed in.
    pub handed_in: u64,
}

/// Runs so many virtual hours of four validators, telling after each.
pub fn soak(seed: u64, hours: u64, tell: &mut dyn FnMut(&Sample)) -> Result<(), String> {
    let founding = Founding::four();
    let request = request(&founding);
    let mut sim = Sim::found(seed, founding.clone(), Weather { lost: 5, repeated: 5, way_ms: 20 });
    sim.keep_blocks(KEPT_BLOCKS);
    sim.start_all();
    let (begun, insurer) = (sim.now, founding.operator("insurer"));
    let mut handed_in = 0;
    for hour in 1..=hours {
        let end = begun.plus(hour * 3_600_000);
        while sim.now < end {
            for n in 0..SLICE_MS / EVERY_MS {
                let tx = if handed_in % ENROLMENT_EVERY == 0 {
                    sim.enrolment(&format!("person {handed_in}"))
                } else {
                    let mut unique = [0; 32];
                    unique[..8].copy_from_slice(&handed_in.to_le_bytes());
                    let staff = Commitment(Hash(unique));
                    let asked = RequestAccess { staff, ..request.clone() };
                    let action = Action::RequestAccess(Box::new(asked));
                    sim.sign(insurer.author, action, &[&insurer.key])
                };
                let at = (handed_in % 4) as usize;
                sim.hand_in(n * EVERY_MS, at, Input::Transactions { txs: vec![tx], gossip: true });
                handed_in += 1;
            }
            outage(&mut sim, begun.0);
            let next = sim.now.plus(SLICE_MS);
            sim.run(2 * SLICE_MS, "a minute passes", |sim| sim.now >= next)?;
            let newest = sim.watch.newest();
            sim.watch.forget_below(Height(newest.0.saturating_sub(WATCHED)));
        }
        tell(&sample(&sim, hour, handed_in));
    }
    Ok(())
}

fn outage(sim: &mut Sim, begun: u64) {
    let passed = sim.now.0 - begun;
    if passed % OUTAGE_EVERY_MS < SLICE_MS {
        let at = (passed / OUTAGE_EVERY_MS % 4) as usize;
        sim.cut_power_in(1, at, 3, Unsynced::Lost);
        sim.start_in(OUTAGE_MS, at);
    }
}

/// A request that names a grant which nobody made.
fn request(founding: &Founding) -> RequestAccess {
    let genesis = &founding.genesis;
    let world = World::found(genesis.hash(), genesis.time(), genesis.leaves());
    let scene = Scene::in_world(world, founding.four_operators());
    scene.ask(Some(GrantId(Hash([5; 32]))))
}

fn sample(sim: &Sim, hour: u64, handed_in: u64) -> Sample {
    let on: Vec<_> = (0..sim.machines()).filter_map(|at| sim.replica(at)).collect();
    Sample {
        hour,
        height: sim.watch.newest().0,
        leaves: on.iter().map(|r| r.storage_ref().leaves.len()).max().unwrap_or_default(),
        waiting: on.iter().map(|r| r.status().pool_transactions).sum(),
        queued: sim.queued(),
        handed_in,
    }
}
