//! One machine: its power, its clock, its disk, and the replica that runs on it.

use assent_genesis::Genesis;
use assent_proto::{SecretKey, TimeMs};
use assent_replica::{Fault, Input, Output, Replica};

use super::Random;
use super::byzantine::Liar;
use super::disk::{Disk, Unsynced};

/// A machine that is on, or what is left of one that is off.
#[allow(clippy::large_enum_variant, reason = "never held in numbers")]
enum Power {
    On(Box<Replica<Disk>>),
    Off(Disk),
    /// Taken apart for a moment, or for good after a liar's replica stopped.
    Gone,
}

/// A machine with a validator's key.
pub struct Machine {
    /// How far its clock is ahead, ms.
    pub ahead_ms: u64,
    /// What it is instead of correct.
    pub liar: Option<Liar>,
    /// What becomes of its log's unsynced writes when its power goes.
    pub unsynced: Unsynced,
    key: SecretKey,
    power: Power,
}

impl Machine {
    /// A machine with an empty disk, off.
    pub fn new(key: SecretKey) -> Machine {
        let power = Power::Off(Disk::default());
        Machine { ahead_ms: 0, liar: None, unsynced: Unsynced::Lost, key, power }
    }

    /// What it reads on its clock.
    pub fn clock(&self, now: TimeMs) -> TimeMs {
        now.plus(self.ahead_ms)
    }

    /// The replica, if it is on.
    pub fn replica(&self) -> Option<&Replica<Disk>> {
        match &self.power {
            Power::On(replica) => Some(replica),
            _ => None,
        }
    }

    /// The disk, whether it is on or off.
    pub fn disk(&self) -> &Disk {
        match &self.power {
            Power::On(replica) => replica.storage_ref(),
            Power::Off(disk) => disk,
            Power::Gone => panic!("a liar that stopped has no disk to look at"),
        }
    }

    /// When it has to be woken, by the simulation's clock.
    pub fn next_wake(&self) -> Option<TimeMs> {
        let wake = self.replica()?.next_wake()?;
        Some(TimeMs(wake.0.saturating_sub(self.ahead_ms)))
    }

    /// Cuts the power at a write to come.
    pub fn cut_power_after(&mut self, writes: u64) {
        if let Power::On(replica) = &mut self.power {
            replica.storage().cut_power_after(writes);
        }
    }

    /// One step of the replica, if it is on.
    pub fn step(&mut self, now: TimeMs, input: Input) -> Option<Result<Vec<Output>, Fault>> {
        let now = self.clock(now);
        match &mut self.power {
            Power::On(replica) => Some(replica.step(now, input)),
            _ => None,
        }
    }

    /// Takes the power away; says whether it was on.
    pub fn stop(&mut self, random: &mut Random) -> bool {
        match std::mem::replace(&mut self.power, Power::Gone) {
            Power::On(replica) => {
                self.power = Power::Off(replica.into_storage().after_power_cut(self.unsynced, random));
                true
            }
            other => {
                self.power = other;
                false
            }
        }
    }

    /// A liar's replica stopped itself; it stays away.
    pub fn discard(&mut self) {
        self.power = Power::Gone;
    }

    /// Gives it power. Nothing, if it has power.
    pub fn start(&mut self, now: TimeMs, genesis: &Genesis) -> Option<Result<Vec<Output>, Fault>> {
        let disk = match std::mem::replace(&mut self.power, Power::Gone) {
            Power::Off(disk) => disk,
            other => {
                self.power = other;
                return None;
            }
        };
        let opened = Replica::open(self.clock(now), genesis.clone(), Some(self.key.clone()), disk);
        Some(opened.map(|(replica, outputs)| {
            self.power = Power::On(Box::new(replica));
            outputs
        }))
    }
}
