//! Messages for heights that have not begun here. Each is verified before it is kept, and a validator has one
//! place for each thing that it may say, so nobody can crowd out another.

use std::collections::BTreeMap;

use assent_proto::{Address, GenesisHash, Height};

use crate::Refusal;
use crate::context::{At, Roster, Who};
use crate::log::What;
use crate::message::ConsensusMessage;
use crate::signing::what;

/// How many heights above the present one are kept.
const HEIGHTS_MAX: u64 = 4;
/// The highest round of a later height that is kept.
const ROUND_MAX: u32 = 9;

/// At most 4 heights × 128 validators × 30 messages.
#[derive(Debug, Default)]
pub(crate) struct Ahead(BTreeMap<Height, BTreeMap<(u32, What, Address), ConsensusMessage>>);

impl Ahead {
    /// Keeps a vote or a proposal. Certificates are not kept: who has one repeats it.
    pub(crate) fn keep(
        &mut self,
        genesis: &GenesisHash,
        roster: &Roster,
        now: Height,
        message: ConsensusMessage,
    ) -> Result<(), Refusal> {
        let (height, round) = (message.height(), message.round());
        if height.0.saturating_sub(now.0) > HEIGHTS_MAX || round > ROUND_MAX {
            return Err(Refusal::TooFarAhead);
        }
        let (what, who, signed, signature) = match &message {
            ConsensusMessage::Proposal(p) => {
                if p.header.genesis != *genesis {
                    return Err(Refusal::OtherChain);
                }
                if roster.proposer(At(height.0), round).address != Who(p.proposer) {
                    return Err(Refusal::Stranger);
                }
                (What::Proposal, p.proposer, p.message(genesis), p.signature)
            }
            ConsensusMessage::Vote(v) => (what(v.kind), v.validator, v.message(genesis), v.signature),
            ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => return Ok(()),
        };
        let voter = roster.voter(&Who(who)).ok_or(Refusal::Stranger)?;
        let place = (round, what, who);
        if self.0.get(&height).is_some_and(|kept| kept.contains_key(&place)) {
            return Ok(());
        }
        if !voter.key.verify(&signed.0, &signature) {
            return Err(Refusal::BadSignature);
        }
        self.0.entry(height).or_default().insert(place, message);
        Ok(())
    }

    pub(crate) fn has(&self, height: Height) -> bool {
        self.0.contains_key(&height)
    }

    /// Takes the messages of a height, by round, and drops those of the heights below.
    pub(crate) fn take(&mut self, height: Height) -> Vec<ConsensusMessage> {
        let kept = self.0.remove(&height).unwrap_or_default();
        self.drop_through(height);
        kept.into_values().collect()
    }

    pub(crate) fn drop_through(&mut self, height: Height) {
        self.0.retain(|h, _| *h > height);
    }
}
