//! Who is passed over: what a block's parent certificate shows about turns, kept in the state so that every
//! validator passes over the same ones. Time plays no part in it, heights do.
//!
//! A validator that misses its turn costs the others a timeout. It is then passed over: for long while it is
//! silent, and for a few blocks once it is seen to sign again, more of them the more turns it missed in a
//! row. One good turn clears it. Nobody loses a turn altogether: those passed over come last in a height.

use assent_proto::state::{MissedTurn, Turns, Validators};
use assent_proto::{Address, Height, ObjectRef};

use crate::overlay::{Overlay, encode};

/// What the certificate that a block carries shows about the height below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentTurns {
    /// Whose turns passed there without a decision, in their order.
    pub missed: Vec<Address>,
    /// Whose turn led to the decision; none for the founding state.
    pub proposer: Option<Address>,
    /// Who signed.
    pub signers: Vec<Address>,
}

/// Strikes are not counted beyond.
const STRIKES_MAX: u32 = 16;

/// For how many blocks a silent validator is passed over: 4096, then 16384. It is seen to sign long before, if
/// it lives; this is for one whose signatures always come too late to be in a certificate. At fifty blocks a
/// second a dead one costs the others one timeout in more than a minute, later in more than five.
fn silent_rest(strikes: u32) -> u64 {
    if strikes <= 1 { 4096 } else { 16_384 }
}

/// For how many blocks one is passed over that signs: 8, 16, … at most 1024.
fn signing_rest(strikes: u32) -> u64 {
    4 << strikes.min(8)
}

/// Brings the turns up to a block at `height`. Writes nothing where nothing changed. What is passed over at
/// `height` itself stays so, or a restart would read another order of that height out of the state than the
/// one that was kept to.
pub(crate) fn account(state: &mut Overlay, height: Height, parent: &ParentTurns) {
    let Some(below) = height.previous() else { return };
    let before: Turns = state.get(ObjectRef::TURNS).expect("the founding state holds the turns");
    let passed_over = |who: &Address| before.passed_over(who, height);
    let mut missed = before.missed.clone().into_vec();
    for m in missed.iter_mut().filter(|m| Some(m.validator) == parent.proposer) {
        (m.strikes, m.until) = (0, m.until.min(height.next()));
    }
    missed.retain(|m| m.strikes > 0 || passed_over(&m.validator));
    parent.missed.iter().for_each(|who| strike(&mut missed, who, below, passed_over(who)));
    for m in missed.iter_mut().filter(|m| parent.signers.contains(&m.validator)) {
        let back = Height(m.missed.0 + signing_rest(m.strikes)).max(height.next());
        m.until = m.until.min(back);
    }
    if missed[..] != before.missed[..] {
        write(state, height, missed);
    }
}

fn strike(missed: &mut Vec<MissedTurn>, who: &Address, below: Height, passed_over: bool) {
    let at = missed.iter().position(|m| m.validator == *who).unwrap_or_else(|| {
        missed.push(MissedTurn { validator: *who, strikes: 0, missed: below, until: below });
        missed.len() - 1
    });
    let m = &mut missed[at];
    m.strikes = (m.strikes + 1).min(STRIKES_MAX);
    m.until = Height(below.0 + silent_rest(m.strikes));
    if !passed_over {
        m.missed = below;
    }
}

/// Keys that do not vote any more are forgotten, which bounds the list by the largest set.
fn write(state: &mut Overlay, height: Height, mut missed: Vec<MissedTurn>) {
    let validators: Validators =
        state.get(ObjectRef::VALIDATORS).expect("the founding state holds the validators");
    let set = validators.at(height);
    missed.retain(|m| set.by_address(&m.validator).is_some());
    missed.sort_by_key(|m| m.validator);
    let turns = Turns { missed: missed.try_into().expect("at most as many as a set has validators") };
    let (object, content) = encode(ObjectRef::TURNS, &turns);
    state.write(object, content);
}
