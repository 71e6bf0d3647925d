//! The way of a message: lost, late, twice, overtaken, held back. Who says what to whom is decided elsewhere.

use std::collections::BTreeSet;

use assent_proto::TimeMs;

use super::Random;

/// How the network treats messages that no [`Trouble`] concerns.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of 1000 messages, so many are lost.
    pub lost: u64,
    /// Of 1000 messages, so many come twice.
    pub repeated: u64,
    /// Longest way, ms; the way of each message is drawn, so that they overtake each other.
    pub way_ms: u64,
}

impl Weather {
    /// Nothing is lost, and little overtakes.
    pub const FAIR: Weather = Weather { lost: 0, repeated: 0, way_ms: 5 };
    /// Everything happens.
    pub const FOUL: Weather = Weather { lost: 80, repeated: 30, way_ms: 60 };
}

/// What is wrong with some links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing comes through.
    Cut,
    /// What is sent comes at the end, all at once.
    Clogged,
    /// Precommits are lost: blocks are locked on and not decided.
    NoPrecommits,
    /// Answers with blocks are lost, the largest there are: who is behind has to find another way.
    NoBlocks,
}

/// What is on its way, as far as it matters to the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To all.
    ToAll,
    /// A precommit, to all.
    Precommit,
    /// To one, over a connection: it may be late or be lost with it, but does not come twice.
    ToOne,
    /// As that; an answer with blocks.
    Blocks,
}

impl Told {
    fn is_to_one(self) -> bool {
        matches!(self, Told::ToOne | Told::Blocks)
    }
}

/// Links out of order for a while. One-way: a partition has one for each direction that it cuts.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What is wrong.
    pub kind: Kind,
    /// Senders.
    pub from: BTreeSet<usize>,
    /// Receivers.
    pub to: BTreeSet<usize>,
    /// When the links are in order again.
    pub until: TimeMs,
}

/// The network between the machines.
pub struct Network {
    /// The weather.
    pub weather: Weather,
    troubles: Vec<Trouble>,
}

impl Network {
    /// A network without trouble.
    pub fn new(weather: Weather) -> Network {
        Network { weather, troubles: Vec::new() }
    }

    /// Puts links out of order.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }

    /// Puts everything in order, for good.
    pub fn heal(&mut self) {
        self.troubles.clear();
        self.weather = Weather::FAIR;
    }

    /// After how many ms each copy of a message arrives; none if it is lost.
    pub fn ways(&self, now: TimeMs, from: usize, to: usize, what: Told, random: &mut Random) -> Vec<u64> {
        let Weather { lost, repeated, way_ms } = self.weather;
        let mut held = 0;
        for t in &self.troubles {
            if now < t.until && t.from.contains(&from) && t.to.contains(&to) {
                match t.kind {
                    Kind::Cut => return Vec::new(),
                    Kind::NoPrecommits if what == Told::Precommit => return Vec::new(),
                    Kind::NoBlocks if what == Told::Blocks => return Vec::new(),
                    Kind::NoPrecommits | Kind::NoBlocks => {}
                    Kind::Clogged => held = held.max(t.until.0 - now.0),
                }
            }
        }
        if random.chance(lost) {
            return Vec::new();
        }
        let copies = if random.chance(repeated) && !what.is_to_one() { 2 } else { 1 };
        (0..copies).map(|_| held + 1 + random.below(way_ms)).collect()
    }
}
