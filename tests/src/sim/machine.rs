//! One machine: its power, its clock, its disk, and the replica that runs on it.

use assent_genesis::Genesis;
use assent_proto::{Address, SecretKey, TimeMs};
use assent_replica::{Fault, Input, Output, Replica, SnapshotRule};

use super::Random;
use super::byzantine::Liar;
use super::disk::{Disk, Rot, Unsynced};

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
    /// The address that it votes and speaks under. Two machines with one key have the same.
    pub address: Address,
    /// How far its clock is ahead, or behind, ms.
    pub ahead_ms: i64,
    /// What it is instead of correct.
    pub liar: Option<Liar>,
    /// Whether another machine runs with its key.
    pub twin: bool,
    /// Whether its disk is not what it wrote: an old copy, an empty one, or its vote log damaged. It may have
    /// to abstain.
    pub forgot: bool,
    /// Whether a bit of its disk has flipped: it may stop, and is then repaired.
    pub rotten: bool,
    /// Whether it belongs to no founding node: it connects once it is admitted.
    pub came_later: bool,
    /// Whether it has not been switched on for the first time.
    pub absent: bool,
    /// Steps of its replicas.
    pub steps: u64,
    /// How often it was switched on.
    pub life: u64,
    /// Until when it does nothing: it waits for its disk, or its process was stopped.
    pub busy_until: TimeMs,
    /// What becomes of its log's unsynced writes when its power goes.
    pub unsynced: Unsynced,
    /// When its replica offers and wants whole states.
    pub rule: SnapshotRule,
    /// When its replica wants to be woken, by its own clock.
    wake: Option<TimeMs>,
    /// The disk as it was copied some time ago.
    copy: Option<Disk>,
    key: SecretKey,
    power: Power,
}

impl Machine {
    /// A machine with an empty disk, off.
    pub fn new(key: SecretKey) -> Machine {
        Machine {
            address: assent_proto::validators::address(&key.public()),
            ahead_ms: 0,
            liar: None,
            twin: false,
            forgot: false,
            rotten: false,
            came_later: false,
            absent: false,
            steps: 0,
            life: 0,
            busy_until: TimeMs(0),
            unsynced: Unsynced::Lost,
            rule: SnapshotRule::default(),
            wake: None,
            copy: None,
            key,
            power: Power::Off(Disk::default()),
        }
    }

    /// Another process with the same key, off.
    pub fn second(&mut self) -> Machine {
        self.twin = true;
        Machine { twin: true, rule: self.rule, ..Machine::new(self.key.clone()) }
    }

    /// A node that is to be admitted later, off.
    pub fn later(key: SecretKey) -> Machine {
        Machine { came_later: true, absent: true, ..Machine::new(key) }
    }

    /// The key that it votes with.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Whether it lets another node connect, as its own state says.
    pub fn admits(&self, other: &Machine) -> bool {
        let key = other.key.public();
        self.replica().is_some_and(|r| assent_ledger::nodes(r.state()).by_key(&key).is_some())
    }

    /// Whether it is held to never contradicting itself and to never abstaining.
    pub fn is_sound(&self) -> bool {
        self.liar.is_none() && !self.twin && !self.forgot
    }

    /// What it reads on its clock.
    pub fn clock(&self, now: TimeMs) -> TimeMs {
        TimeMs(now.0.saturating_add_signed(self.ahead_ms))
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

    fn disk_mut(&mut self) -> Option<&mut Disk> {
        match &mut self.power {
            Power::On(replica) => Some(replica.storage()),
            Power::Off(disk) => Some(disk),
            Power::Gone => None,
        }
    }

    /// When it has to be woken, by the simulation's clock.
    pub fn next_wake(&self) -> Option<TimeMs> {
        let wake = TimeMs(self.wake?.0.saturating_add_signed(-self.ahead_ms));
        Some(wake.max(self.busy_until))
    }

    /// Cuts the power at a write to come.
    pub fn cut_power_after(&mut self, writes: u64) {
        if let Power::On(replica) = &mut self.power {
            replica.storage().cut_power_after(writes);
        }
    }

    /// Sets how long its disk takes for a sync.
    pub fn slow_disk(&mut self, sync_ms: u64) {
        if let Some(disk) = self.disk_mut() {
            disk.sync_ms = sync_ms;
        }
    }

    /// Keeps only so many blocks on its disk.
    pub fn keep_blocks(&mut self, keep: u64) {
        if let Some(disk) = self.disk_mut() {
            disk.keep = Some(keep);
        }
    }

    /// Flips a bit of its disk; says whether there was one to flip.
    pub fn rot(&mut self, what: Rot, random: &mut Random) -> bool {
        let flipped = self.disk_mut().is_some_and(|disk| disk.rot(what, random));
        match what {
            Rot::Log => self.forgot |= flipped,
            _ => self.rotten |= flipped,
        }
        flipped
    }

    /// Copies its disk away, as a backup of a running machine does.
    pub fn copy_disk(&mut self) {
        if !matches!(self.power, Power::Gone) {
            self.copy = Some(self.disk().clone());
        }
    }

    /// Puts the copy, or without one an empty disk, in the place of its disk. It must be off.
    pub fn replace_disk(&mut self) {
        if let Power::Off(disk) = &mut self.power {
            *disk = Disk::in_place_of(disk, self.copy.take());
            (self.forgot, self.rotten) = (true, false);
        }
    }

    /// One step of the replica, if it is on. Its clock goes on while its disk works.
    pub fn step(&mut self, now: TimeMs, input: Input) -> Option<Result<Vec<Output>, Fault>> {
        let clock = self.clock(now);
        let Power::On(replica) = &mut self.power else { return None };
        let outputs = replica.step(clock, input);
        self.busy_until = self.busy_until.max(now.plus(replica.storage().take_spent()));
        self.wake = replica.next_wake();
        self.steps += 1;
        Some(outputs)
    }

    /// Takes the power away; says whether it was on.
    pub fn stop(&mut self, random: &mut Random) -> bool {
        self.wake = None;
        match std::mem::replace(&mut self.power, Power::Gone) {
            Power::On(replica) => {
                self.power = Power::Off(replica.into_storage().after_power_cut(self.unsynced, random));
                self.busy_until = TimeMs(0);
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
        self.wake = None;
        self.power = Power::Gone;
    }

    /// Gives it power. Nothing, if it has power. What it could not open stays on its disk.
    pub fn start(&mut self, now: TimeMs, genesis: &Genesis) -> Option<Result<Vec<Output>, Fault>> {
        let disk = match std::mem::replace(&mut self.power, Power::Gone) {
            Power::Off(disk) => disk,
            other => {
                self.power = other;
                return None;
            }
        };
        let kept = disk.clone();
        self.life += 1;
        let opened = Replica::open(self.clock(now), genesis.clone(), Some(self.key.clone()), disk);
        Some(match opened {
            Ok((mut replica, outputs)) => {
                replica.set_snapshot_rule(self.rule);
                self.busy_until = now.plus(replica.storage().take_spent());
                self.wake = replica.next_wake();
                self.power = Power::On(Box::new(replica));
                Ok(outputs)
            }
            Err(fault) => {
                self.power = Power::Off(kept);
                Err(fault)
            }
        })
    }
}
