//! What validators were heard to say, once their signatures hold: statements of the height at work, of the one
//! before it and of the next few, and each validator's newest. Two statements that contradict each other are
//! found here, as soon as the second is verified. Nothing unverified is kept, and a validator has one place for
//! each thing that it may say, so nobody can crowd out another. No rule of voting here.

use std::collections::BTreeMap;

use assent_proto::{Address, GenesisHash, Height, PublicKey, ValidatorSet};

use crate::context::{Roster, Who};
use crate::log::What;
use crate::message::{ConsensusMessage, SignedProposal};
use crate::signing::what;
use crate::{Evidence, Floor, FloorStep, Refusal};

/// How many heights above the present one are kept.
const HEIGHTS_MAX: u64 = 4;
/// The highest round of a later height that is kept.
const ROUND_MAX: u32 = 9;
/// Rounds below the present one whose statements are still compared with what comes.
const ROUNDS_BEHIND: u32 = 16;
/// Validator sets whose members are known: the newest, and those before it.
const SETS_MAX: usize = 3;
/// Validators whose newest statement is kept; those last heard at the lowest heights make room.
const NEWEST_MAX: usize = 1024;

/// One validator's place for one thing that it may say at a height.
type Place = (u32, What, Address);

#[derive(Clone, Copy, Debug)]
struct Member {
    key: PublicKey,
    /// Whether it is of the newest set.
    current: bool,
}

#[derive(Debug)]
struct Said {
    message: ConsensusMessage,
    /// Whether it was told that it contradicts another.
    told: bool,
}

/// At most 6 heights × 128 validators × about 30 rounds × 3 kinds, and one statement of each validator.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    sets: Vec<ValidatorSet>,
    keys: BTreeMap<Address, Member>,
    said: BTreeMap<Height, BTreeMap<Place, Said>>,
    newest: BTreeMap<Address, ConsensusMessage>,
}

impl Heard {
    /// From now on statements of its members are taken for heights to come; it counts as the newest set.
    pub(crate) fn know(&mut self, set: &ValidatorSet) {
        if self.sets.first() == Some(set) {
            return;
        }
        self.sets.retain(|s| s != set);
        self.sets.insert(0, set.clone());
        self.sets.truncate(SETS_MAX);
        self.keys.clear();
        for (age, set) in self.sets.iter().enumerate() {
            for v in &set.validators {
                self.keys.entry(v.address()).or_insert(Member { key: v.key, current: age == 0 });
            }
        }
    }

    /// Keeps a vote or a proposal for a height above `now`. Whether its author may vote there, and whose turn it
    /// is, is judged when the height begins. Certificates are not kept: who has one repeats it.
    pub(crate) fn keep(
        &mut self,
        genesis: &GenesisHash,
        me: &Address,
        now: Height,
        message: ConsensusMessage,
    ) -> Result<Option<Evidence>, Refusal> {
        let Some((round, _, who)) = place(&message) else { return Ok(None) };
        let far = message.height().0.saturating_sub(now.0) > HEIGHTS_MAX || round > ROUND_MAX;
        // Our own word of a height far above is proof that the disk is an old copy: never too far.
        if far && who != *me {
            return Err(Refusal::TooFarAhead);
        }
        if matches!(&message, ConsensusMessage::Proposal(p) if p.header.genesis != *genesis) {
            return Err(Refusal::OtherChain);
        }
        let key = self.keys.get(&who).ok_or(Refusal::NotKnownYet)?.key;
        if !self.is_news(&message) {
            return Ok(None);
        }
        if !holds(genesis, &key, &message) {
            return Err(Refusal::BadSignature);
        }
        if far {
            self.renew(who, message);
            return Ok(None);
        }
        Ok(self.note(message))
    }

    /// Remembers a statement whose signature holds; gives it with an earlier one if the two contradict each
    /// other, the first time.
    pub(crate) fn note(&mut self, message: ConsensusMessage) -> Option<Evidence> {
        let place = place(&message)?;
        self.renew(place.2, message.clone());
        let said = self.said.entry(message.height()).or_default();
        let Some(before) = said.get_mut(&place) else {
            said.insert(place, Said { message, told: false });
            return None;
        };
        let evidence = contradiction(&before.message, &message).filter(|_| !before.told);
        before.told |= evidence.is_some();
        evidence
    }

    /// Whether a statement would teach anything: its place is empty, or it contradicts what is there and nothing
    /// was told of that. If not, it is not worth a verification.
    pub(crate) fn is_news(&self, message: &ConsensusMessage) -> bool {
        match self.at(message) {
            Some(before) => !before.told && contradiction(&before.message, message).is_some(),
            None => true,
        }
    }

    /// Whether a statement contradicts one that is here, and nothing was told of that.
    pub(crate) fn is_contradicted(&self, message: &ConsensusMessage) -> bool {
        self.at(message).is_some_and(|b| !b.told && contradiction(&b.message, message).is_some())
    }

    /// Whether this very statement, with this signature, was verified before.
    pub(crate) fn has(&self, message: &ConsensusMessage) -> bool {
        self.at(message).is_some_and(|said| said.message == *message)
    }

    fn at(&self, message: &ConsensusMessage) -> Option<&Said> {
        self.said.get(&message.height())?.get(&place(message)?)
    }

    /// All that was said of a height, by round.
    pub(crate) fn of(&self, height: Height) -> impl Iterator<Item = &ConsensusMessage> {
        self.said.get(&height).into_iter().flat_map(|said| said.values().map(|s| &s.message))
    }

    /// Whether a member of the newest set said something of a height.
    pub(crate) fn has_any(&self, height: Height) -> bool {
        let member = |who: &Address| self.keys.get(who).is_some_and(|m| m.current);
        self.said.get(&height).is_some_and(|said| said.keys().any(|(_, _, who)| member(who)))
    }

    /// The newest that a validator was heard to say.
    pub(crate) fn newest(&self, who: &Address) -> Option<&ConsensusMessage> {
        self.newest.get(who)
    }

    /// Whether a statement is newer than all that its author was heard to say.
    pub(crate) fn is_newest(&self, who: &Address, message: &ConsensusMessage) -> bool {
        self.newest.get(who).is_none_or(|before| Floor::of(before) < Floor::of(message))
    }

    /// The key of a member of a set that is known.
    pub(crate) fn key(&self, who: &Address) -> Option<PublicKey> {
        self.keys.get(who).map(|member| member.key)
    }

    /// Drops what was said of the heights below.
    pub(crate) fn forget_below(&mut self, height: Height) {
        self.said.retain(|h, _| *h >= height);
    }

    /// Drops what was said of a height in rounds long past.
    pub(crate) fn enter(&mut self, height: Height, round: u32) {
        if let Some(said) = self.said.get_mut(&height) {
            said.retain(|(r, _, _), _| *r >= round.saturating_sub(ROUNDS_BEHIND));
        }
    }

    /// Remembers a statement whose signature holds as its author's newest, if it is.
    pub(crate) fn renew(&mut self, who: Address, message: ConsensusMessage) {
        if self.is_newest(&who, &message) {
            self.newest.insert(who, message);
        }
        if self.newest.len() > NEWEST_MAX {
            let oldest = self.newest.iter().min_by_key(|(_, m)| Floor::of(m)).map(|(who, _)| *who);
            self.newest.remove(&oldest.expect("there are more than none"));
        }
    }
}

impl Floor {
    /// Where a statement stands.
    pub fn of(message: &ConsensusMessage) -> Self {
        let step = place(message).map_or(FloorStep::Proposal, |(_, what, _)| step_of(what));
        Floor { height: message.height(), round: message.round(), step }
    }
}

/// The place of a statement; certificates have none.
pub(crate) fn place(message: &ConsensusMessage) -> Option<Place> {
    match message {
        ConsensusMessage::Proposal(p) => Some((p.round, What::Proposal, p.proposer)),
        ConsensusMessage::Vote(v) => Some((v.round, what(v.kind), v.validator)),
        ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => None,
    }
}

/// Whether the signature of a statement holds.
pub(crate) fn holds(genesis: &GenesisHash, key: &PublicKey, message: &ConsensusMessage) -> bool {
    match message {
        ConsensusMessage::Proposal(p) => key.verify(&p.message(genesis).0, &p.signature),
        ConsensusMessage::Vote(v) => key.verify(&v.message(genesis).0, &v.signature),
        ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => false,
    }
}

/// Where a kind of statement stands in a round.
pub(crate) fn step_of(what: What) -> FloorStep {
    match what {
        What::Proposal => FloorStep::Proposal,
        What::Prevote => FloorStep::Prevote,
        What::Precommit => FloorStep::Precommit,
    }
}

/// Two statements for one place that an honest validator does not both make.
fn contradiction(a: &ConsensusMessage, b: &ConsensusMessage) -> Option<Evidence> {
    match (a, b) {
        (ConsensusMessage::Vote(a), ConsensusMessage::Vote(b)) if a.block != b.block => {
            Some(Evidence::Votes(a.clone(), b.clone()))
        }
        (ConsensusMessage::Proposal(a), ConsensusMessage::Proposal(b)) if differ(a, b) => {
            Some(Evidence::Proposals(Box::new((a.clone(), b.clone()))))
        }
        _ => None,
    }
}

fn differ(a: &SignedProposal, b: &SignedProposal) -> bool {
    (&a.header, a.valid_round) != (&b.header, b.valid_round)
}

/// The key of a member of a roster.
pub(crate) fn key_in(roster: &Roster, who: &Address) -> Option<PublicKey> {
    roster.voter(&Who(*who)).map(|v| v.key)
}

#[cfg(test)]
mod tests {
    use assent_proto::Signature;
    use assent_proto::validators::VoteKind;

    use super::*;
    use crate::SignedVote;

    fn vote(n: u32, height: u64, round: u32) -> ConsensusMessage {
        let mut who = [0; 20];
        who[..4].copy_from_slice(&n.to_be_bytes());
        ConsensusMessage::Vote(SignedVote {
            kind: VoteKind::Prevote,
            height: Height(height),
            round,
            block: None,
            validator: Address(who),
            signature: Signature([0; 64]),
        })
    }

    #[test]
    fn each_validators_newest_is_kept_up_to_a_bound_and_the_oldest_make_room() {
        let mut heard = Heard::default();
        let many = 3 * NEWEST_MAX as u32;
        for n in 0..many {
            heard.note(vote(n, 1 + u64::from(n / 100), 0));
            heard.note(vote(n, 1, 0));
            heard.forget_below(Height(u64::from(n / 100)));
            assert!(heard.newest.len() <= NEWEST_MAX && heard.said.len() <= 3);
        }
        let newest = |n| heard.newest.get(&place(&vote(n, 1, 0)).unwrap().2).map(Floor::of);
        assert_eq!(newest(many - 1).map(|f| f.height), Some(Height(1 + u64::from((many - 1) / 100))));
        assert_eq!(newest(0), None);
    }

    #[test]
    fn rounds_long_past_are_dropped() {
        let mut heard = Heard::default();
        for round in 0..10_000 {
            heard.enter(Height(1), round);
            heard.note(vote(1, 1, round + 10));
            assert!(heard.of(Height(1)).count() <= ROUNDS_BEHIND as usize + 11);
        }
    }

    #[test]
    fn sets_of_long_ago_are_unknown_again() {
        let mut heard = Heard::default();
        let set = |n: u8| {
            let key = assent_proto::SecretKey::from_bytes(&[n; 32]).public();
            let institution = assent_proto::InstitutionId(assent_proto::Hash::ZERO);
            let algorithm = assent_proto::keys::Algorithm::Ed25519;
            let validator = assent_proto::Validator { algorithm, key, power: 1, institution };
            ValidatorSet { validators: vec![validator].try_into().unwrap() }
        };
        for n in 1..9 {
            heard.know(&set(n));
            heard.know(&set(n));
            assert!(heard.keys.len() <= SETS_MAX && heard.sets.len() <= SETS_MAX);
            assert!(heard.keys[&set(n).validators[0].address()].current);
        }
    }
}
