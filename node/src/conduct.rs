//! What a peer's misbehaviour does to the peer: the table of offences, and what is remembered of each peer.
//!
//! Being slow, late or too busy is no offence: it is throttled where it is noticed, and nothing more. Pure: the
//! network measures, and carries out what is decided here. Peers that are not admitted never come so far.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// Bytes that are no message of the protocol, or too many of them.
    Garbage,
    /// A message that decodes but breaks the protocol: a false signature, a transaction that does not verify.
    Protocol,
    /// Messages to all, far beyond the rate for long.
    GossipFlood,
    /// Asking, far beyond the rate for long.
    RequestFlood,
    /// Direct messages or bytes that nobody asked for, far beyond the rate for long.
    DirectFlood,
    /// Bytes or streams that became no message, far beyond what an honest network loses.
    Noise,
    /// Connecting again and again.
    Reconnecting,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// What is beyond the rate is dropped or waits.
    Throttle,
    /// Its connections are closed; it may come back at once.
    Disconnect,
    /// Its connections are closed, and it is not let in for so long.
    Ban(Duration),
}

impl Consequence {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Consequence::Throttle => "throttle",
            Consequence::Disconnect => "disconnect",
            Consequence::Ban(_) => "ban",
        }
    }
}

/// A row of the table.
struct Rule {
    offence: Offence,
    /// Its name in logs and metrics.
    name: &'static str,
    /// How many times within [`MEMORY`] it is forgiven with a closed connection before it is answered by a ban.
    forgiven: u32,
}

/// The table. A correct node does nothing of this; a node of another version, or one on a network that loses
/// and repeats, might do the lower ones once in a while, so these are forgiven at first.
const RULES: [Rule; 7] = [
    // Nothing that a network or an overloaded machine does turns a message into another one: Noise
    // authenticates every byte. Who sends garbage is broken or hostile.
    Rule { offence: Offence::Garbage, name: "garbage", forgiven: 0 },
    // The same, one layer up: a correct node signs what it says and verifies what it passes on.
    Rule { offence: Offence::Protocol, name: "protocol", forgiven: 0 },
    // The rates are several times what a busy node needs; still a queue may come loose after a partition.
    Rule { offence: Offence::GossipFlood, name: "gossip_flood", forgiven: 1 },
    Rule { offence: Offence::RequestFlood, name: "request_flood", forgiven: 1 },
    Rule { offence: Offence::DirectFlood, name: "direct_flood", forgiven: 1 },
    // Measured with the widest tolerance, since what a bad network loses looks the same.
    Rule { offence: Offence::Noise, name: "noise", forgiven: 2 },
    // A flapping link reconnects too.
    Rule { offence: Offence::Reconnecting, name: "reconnecting", forgiven: 4 },
];

/// How long offences are remembered that were forgiven, and bans that are over.
const MEMORY: Duration = Duration::from_secs(600);
/// The first ban. Long enough to stop harm, short enough that one mishap costs a validator a few blocks.
pub const BAN_MIN: Duration = Duration::from_secs(10);
/// The longest ban.
pub const BAN_MAX: Duration = Duration::from_secs(600);

impl Offence {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        self.rule().name
    }

    fn rule(self) -> &'static Rule {
        RULES.iter().find(|r| r.offence == self).expect("the table has a row for every offence")
    }
}

/// What is remembered of one peer.
#[derive(Debug, Default)]
struct Record {
    /// When each offence last happened, and how many times in a row.
    offences: BTreeMap<Offence, (Instant, u32)>,
    banned_until: Option<Instant>,
    /// Bans in a row, each less than [`MEMORY`] after the last.
    bans: u32,
    last_ban_end: Option<Instant>,
}

/// What is remembered of all peers. No more of them than are admitted.
#[derive(Debug, Default)]
pub struct Conduct {
    records: BTreeMap<PeerId, Record>,
}

impl Conduct {
    /// Notes an offence of one of `admitted` peers and says what follows. Nothing more follows while a ban is in
    /// force. No more than a third are banned at one time: more cannot be faulty, or the chain has other worries,
    /// so a correct node would be among them, banned by a mistake of ours. Beyond it peers are disconnected.
    pub fn offended(&mut self, peer: PeerId, offence: Offence, admitted: usize, now: Instant) -> Consequence {
        let room = self.banned() < (admitted / 3).max(1);
        let record = self.records.entry(peer).or_default();
        if let Some(until) = record.banned_until {
            return Consequence::Ban(until.saturating_duration_since(now));
        }
        let (last, times) = record.offences.entry(offence).or_insert((now, 0));
        *times = if now.saturating_duration_since(*last) > MEMORY { 1 } else { times.saturating_add(1) };
        *last = now;
        let forgiven = *times <= offence.rule().forgiven;
        if forgiven || !room { Consequence::Disconnect } else { record.ban(now) }
    }

    /// Whether a ban is in force.
    pub fn is_banned(&self, peer: &PeerId) -> bool {
        self.records.get(peer).is_some_and(|r| r.banned_until.is_some())
    }

    /// Bans in force.
    pub fn banned(&self) -> usize {
        self.records.values().filter(|r| r.banned_until.is_some()).count()
    }

    /// Lifts the bans whose time has come and says whose; forgets what is long past.
    pub fn lift(&mut self, now: Instant) -> Vec<PeerId> {
        let mut free = Vec::new();
        self.records.retain(|peer, record| {
            if record.banned_until.is_some_and(|until| until <= now) {
                record.banned_until = None;
                free.push(*peer);
            }
            record.matters(now)
        });
        free
    }

    /// Forgets a peer that is no longer admitted.
    pub fn forget(&mut self, peer: &PeerId) {
        self.records.remove(peer);
    }
}

impl Record {
    fn ban(&mut self, now: Instant) -> Consequence {
        let recent = self.last_ban_end.is_some_and(|end| now.saturating_duration_since(end) <= MEMORY);
        self.bans = if recent { self.bans.saturating_add(1) } else { 0 };
        let time = BAN_MIN.saturating_mul(1 << self.bans.min(16)).min(BAN_MAX);
        self.banned_until = Some(now + time);
        self.last_ban_end = self.banned_until;
        Consequence::Ban(time)
    }

    fn matters(&self, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= MEMORY;
        self.banned_until.is_some()
            || self.last_ban_end.as_ref().is_some_and(recent)
            || self.offences.values().any(|(at, _)| recent(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(c: Consequence) -> Duration {
        match c {
            Consequence::Ban(time) => time,
            other => panic!("no ban: {other:?}"),
        }
    }

    #[test]
    fn each_offence_stands_once_in_the_table_with_a_name_of_its_own() {
        for rule in &RULES {
            assert_eq!(RULES.iter().filter(|r| r.offence == rule.offence).count(), 1);
            assert_eq!(RULES.iter().filter(|r| r.name == rule.name).count(), 1);
        }
    }

    #[test]
    fn bans_double_up_to_a_bound_and_are_forgotten() {
        let (mut conduct, peer, mut now) = (Conduct::default(), PeerId::random(), Instant::now());
        let mut expected = BAN_MIN;
        for _ in 0..10 {
            let time = ban(conduct.offended(peer, Offence::Garbage, 9, now));
            assert_eq!(time, expected);
            let still = conduct.offended(peer, Offence::Garbage, 9, now + time / 2);
            assert_eq!(ban(still), time / 2, "an offence during the ban does not make it longer");
            assert!(conduct.lift(now + time / 2).is_empty() && conduct.is_banned(&peer));
            now += time;
            assert_eq!(conduct.lift(now), [peer]);
            assert!(!conduct.is_banned(&peer) && conduct.banned() == 0);
            expected = (expected * 2).min(BAN_MAX);
        }
        now += MEMORY + Duration::from_secs(1);
        assert!(conduct.lift(now).is_empty() && conduct.records.is_empty(), "nothing is kept for ever");
        assert_eq!(ban(conduct.offended(peer, Offence::Garbage, 9, now)), BAN_MIN);
    }

    #[test]
    fn what_a_bad_network_may_look_like_is_forgiven_at_first() {
        let now = Instant::now();
        for rule in &RULES {
            let (mut conduct, peer) = (Conduct::default(), PeerId::random());
            for _ in 0..rule.forgiven {
                assert_eq!(conduct.offended(peer, rule.offence, 9, now), Consequence::Disconnect);
            }
            assert_eq!(ban(conduct.offended(peer, rule.offence, 9, now)), BAN_MIN);
            conduct.forget(&peer);
            assert!(!conduct.is_banned(&peer));
            // Once an hour is never too often.
            let hours = (1..5).map(|h| now + Duration::from_secs(3600 * h));
            if rule.forgiven > 0 {
                assert!(
                    hours
                        .map(|at| conduct.offended(peer, rule.offence, 9, at))
                        .all(|c| c == Consequence::Disconnect)
                );
            }
        }
    }

    #[test]
    fn never_more_than_a_third_is_banned_at_one_time() {
        for (admitted, most) in [(1, 1), (3, 1), (6, 2), (9, 3)] {
            let (mut conduct, now) = (Conduct::default(), Instant::now());
            let peers: Vec<_> = (0..admitted).map(|_| PeerId::random()).collect();
            let mut offend = |peer: &PeerId, at| conduct.offended(*peer, Offence::Garbage, admitted, at);
            let banned = peers.iter().filter(|p| matches!(offend(p, now), Consequence::Ban(_))).count();
            assert_eq!(banned, most);
            assert_eq!(conduct.lift(now + BAN_MIN).len(), most);
            let last = conduct.offended(peers[admitted - 1], Offence::Garbage, admitted, now + BAN_MIN);
            assert!(matches!(last, Consequence::Ban(_)), "there is room again");
        }
    }
}
