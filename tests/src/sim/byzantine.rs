//! Validators that lie, named for what they do. Each runs a real replica with its real key and alters what
//! leaves it: whatever it says is signed as an honest validator's messages are.

use std::collections::BTreeMap;

use assent_consensus::{ConsensusMessage, SignedProposal, SignedVote};
use assent_ledger::{State, parameters};
use assent_proto::evidence::ValidatorLink;
use assent_proto::field::Message;
use assent_proto::validators::{ValidatorSet, VoteKind};
use assent_proto::{
    Address, Block, BlockId, GenesisHash, Hash, Header, Height, List, SecretKey, Signature, TimeMs,
};
use assent_replica::{Chunk, Offer, Output, Part, PeerMessage, Replica};
use bytes::Bytes;

use super::disk::Disk;
use super::{Founding, Random, forge};

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Tells one half of the validators one vote, the other half another.
    EquivocatesOnVotes,
    /// Proposes one block to one half and another valid one to the other half, and votes for both.
    EquivocatesOnProposals,
    /// Says nothing.
    IsSilent,
    /// Votes for nil whatever it sees.
    VotesNil,
    /// Proposes and does not send the body, or only to one.
    WithholdsParts,
    /// Sends bytes that are no messages, damaged messages, votes in others' names, false tips, parts of
    /// nothing and unsigned transactions, among what it ought to send.
    SendsGarbage,
    /// Signs what it says for another chain too, and sends both.
    SpeaksForOtherChains,
    /// Sends truly signed votes, proposals and parts of ever higher heights and rounds, without end.
    FloodsTheFuture,
    /// Sends old messages of all validators again and again.
    ReplaysOldMessages,
    /// Proposes blocks that break the rules, and votes for them.
    ProposesInvalidBlocks,
    /// Proposes blocks whose time is off: too far from all clocks, or so that some find it timely and some not.
    ProposesUntimely,
    /// Votes and precommits for whatever is proposed, at once and whatever it is locked on.
    VotesForAnything,
    /// Answers those who ask for blocks, bodies, events or a whole state with damaged, cut, swapped or badly
    /// certified ones.
    ServesFalseBlocks,
    /// Says that it has many more blocks than there are, and never sends any.
    PromisesBlocks,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [Behaviour; 14] = [
        Behaviour::EquivocatesOnVotes,
        Behaviour::EquivocatesOnProposals,
        Behaviour::IsSilent,
        Behaviour::VotesNil,
        Behaviour::WithholdsParts,
        Behaviour::SendsGarbage,
        Behaviour::SpeaksForOtherChains,
        Behaviour::FloodsTheFuture,
        Behaviour::ReplaysOldMessages,
        Behaviour::ProposesInvalidBlocks,
        Behaviour::ProposesUntimely,
        Behaviour::VotesForAnything,
        Behaviour::ServesFalseBlocks,
        Behaviour::PromisesBlocks,
    ];
}

/// Old messages that a liar keeps.
const HEARD_MAX: usize = 256;

/// A validator that lies.
pub struct Liar {
    behaviour: Behaviour,
    genesis: GenesisHash,
    key: SecretKey,
    me: usize,
    addresses: Vec<Address>,
    heard: Vec<Bytes>,
    /// The newest block that was proposed, and in which round, to vote for when it ought not.
    proposed: Option<(Height, u32, BlockId)>,
    /// Whether that was voted for already.
    cheered: bool,
    /// Heights above the present one that it has spoken of.
    ahead: u64,
    /// Instead of which block of ours we show which other.
    instead: BTreeMap<BlockId, BlockId>,
    /// How often it lied.
    pub lies: u64,
    /// How often about a whole state or a part of one.
    pub false_states: u64,
}

/// A message on its way to one machine.
type Letter = (usize, Bytes);

impl Liar {
    /// The validator `me` lies so.
    pub fn new(behaviour: Behaviour, founding: &Founding, me: usize) -> Liar {
        Liar {
            behaviour,
            genesis: founding.genesis.hash(),
            key: founding.keys[me].clone(),
            me,
            addresses: founding.addresses.clone(),
            heard: Vec::new(),
            proposed: None,
            cheered: true,
            ahead: 0,
            instead: BTreeMap::new(),
            lies: 0,
            false_states: 0,
        }
    }

    /// What it does.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Something was said to it.
    pub fn hear(&mut self, bytes: &Bytes) {
        if let Ok(PeerMessage::Consensus(ConsensusMessage::Proposal(p))) = PeerMessage::decode(bytes) {
            self.proposed = Some((p.header.height, p.round, p.header.id()));
            self.cheered = false;
        }
        if self.behaviour == Behaviour::ReplaysOldMessages && self.heard.len() < HEARD_MAX {
            self.heard.push(bytes.clone());
        }
    }

    /// What it says, when its replica would say `outputs`.
    pub fn speak(
        &mut self,
        outputs: Vec<Output>,
        replica: Option<&Replica<Disk>>,
        random: &mut Random,
    ) -> Vec<Letter> {
        use Behaviour as B;
        let twins = self.twins(&outputs, replica, random);
        let mut letters = Vec::new();
        if self.behaviour == B::VotesForAnything {
            self.cheer(&mut letters);
        }
        for output in outputs {
            let (to, message) = match output {
                Output::Broadcast(message) => (self.others(), message),
                Output::Send { to, message } => {
                    (self.addresses.iter().position(|a| *a == to).into_iter().collect(), message)
                }
                _ => continue,
            };
            match self.behaviour {
                B::IsSilent => self.lies += 1,
                B::EquivocatesOnVotes => self.two_votes(&to, message, random, &mut letters),
                B::EquivocatesOnProposals | B::ProposesInvalidBlocks | B::ProposesUntimely => {
                    self.two_blocks(&to, message, &twins, random, &mut letters)
                }
                B::VotesNil => {
                    let message = self.nil(message);
                    post(&to, &message, &mut letters);
                }
                B::WithholdsParts if matches!(message, PeerMessage::Part(_)) => {
                    self.lies += 1;
                    let one: Vec<_> = to.into_iter().filter(|_| random.chance(200)).take(1).collect();
                    post(&one, &message, &mut letters);
                }
                B::SendsGarbage => {
                    post(&to, &message, &mut letters);
                    if random.chance(300) {
                        self.lies += 1;
                        let at = random.pick(&self.others());
                        letters.push((at, self.garbage(&message, random)));
                    }
                }
                B::SpeaksForOtherChains => {
                    if let Some(foreign) = self.foreign(&message) {
                        self.lies += 1;
                        post(&to, &foreign, &mut letters);
                    }
                    post(&to, &message, &mut letters);
                }
                B::FloodsTheFuture => {
                    if let Some(replica) = replica {
                        self.flood(&message, replica.status().height, random, &mut letters);
                    }
                    post(&to, &message, &mut letters);
                }
                B::ReplaysOldMessages => {
                    self.hear(&message.encode());
                    post(&to, &message, &mut letters);
                    for _ in 0..2 {
                        self.lies += 1;
                        letters.push((random.pick(&self.others()), random.pick(&self.heard)));
                    }
                }
                B::ServesFalseBlocks => {
                    let message = self.falsified(message, random);
                    post(&to, &message, &mut letters);
                }
                B::PromisesBlocks => match message {
                    PeerMessage::Blocks(_) => self.lies += 1,
                    // It offers a state, and never sends any of it.
                    PeerMessage::Chunks { .. } => {
                        self.lies += 1;
                        self.false_states += 1;
                    }
                    PeerMessage::Tip { height } => {
                        self.lies += 1;
                        post(&to, &PeerMessage::Tip { height: Height(height.0 + 1_000) }, &mut letters);
                    }
                    message => post(&to, &message, &mut letters),
                },
                B::WithholdsParts | B::VotesForAnything => post(&to, &message, &mut letters),
            }
        }
        letters
    }

    fn others(&self) -> Vec<usize> {
        (0..self.addresses.len()).filter(|at| *at != self.me).collect()
    }

    fn mine(&self, vote: &SignedVote) -> bool {
        vote.validator == self.addresses[self.me]
    }

    fn nil(&mut self, message: PeerMessage) -> PeerMessage {
        match message {
            PeerMessage::Consensus(ConsensusMessage::Vote(v)) if self.mine(&v) => {
                self.lies += v.block.is_some() as u64;
                vote(forge::vote(&self.genesis, &self.key, &v, None))
            }
            other => other,
        }
    }

    fn two_votes(&mut self, to: &[usize], message: PeerMessage, random: &mut Random, out: &mut Vec<Letter>) {
        let PeerMessage::Consensus(ConsensusMessage::Vote(v)) = &message else {
            return post(to, &message, out);
        };
        let other = match (v.block, self.proposed) {
            (Some(_), _) => None,
            (None, Some((height, _, id))) if height == v.height => Some(id),
            (None, _) => Some(BlockId(Hash([9; 32]))),
        };
        let other = vote(forge::vote(&self.genesis, &self.key, v, other));
        self.lies += 1;
        let (one, rest) = halves(to, random);
        post(&one, &message, out);
        post(&rest, &other, out);
        if random.chance(200) {
            post(&one, &other, out);
        }
    }

    /// Prevotes and precommits for the newest proposal, at once.
    fn cheer(&mut self, out: &mut Vec<Letter>) {
        let Some((height, round, id)) = self.proposed.filter(|_| !self.cheered) else { return };
        self.cheered = true;
        self.lies += 1;
        for kind in [VoteKind::Prevote, VoteKind::Precommit] {
            let cheer = vote(self.own_vote(kind, height, round, id));
            post(&self.others(), &cheer, out);
        }
    }

    fn own_vote(&self, kind: VoteKind, height: Height, round: u32, id: BlockId) -> SignedVote {
        let (validator, signature) = (self.addresses[self.me], Signature([0; 64]));
        let blank = SignedVote { kind, height, round, block: Some(id), validator, signature };
        forge::vote(&self.genesis, &self.key, &blank, Some(id))
    }

    /// The same, truly signed, for another chain.
    fn foreign(&self, message: &PeerMessage) -> Option<PeerMessage> {
        let other = GenesisHash(Hash([1; 32]));
        match message {
            PeerMessage::Consensus(ConsensusMessage::Vote(v)) if self.mine(v) => {
                Some(vote(forge::vote(&other, &self.key, v, v.block)))
            }
            PeerMessage::Consensus(ConsensusMessage::Proposal(p)) => {
                let header = Header { genesis: other, ..p.header.clone() };
                let forged = forge::proposal(&other, &self.key, p, header);
                Some(PeerMessage::Consensus(ConsensusMessage::Proposal(forged)))
            }
            _ => None,
        }
    }

    /// Messages of heights and rounds to come, each truly signed.
    fn flood(&mut self, message: &PeerMessage, tip: Height, random: &mut Random, out: &mut Vec<Letter>) {
        for _ in 0..3 {
            self.ahead += 1;
            self.lies += 1;
            let far = if random.chance(500) { 1 + self.ahead % 4 } else { self.ahead };
            let (height, round) = (Height(tip.0 + far), random.below(1 + far) as u32);
            let id = BlockId(Hash([random.below(256) as u8; 32]));
            let message = match (random.below(4), message) {
                (0, PeerMessage::Consensus(ConsensusMessage::Proposal(p))) => {
                    let header = Header { height, ..p.header.clone() };
                    let forged = forge::proposal(&self.genesis, &self.key, p, header);
                    PeerMessage::Consensus(ConsensusMessage::Proposal(forged))
                }
                (1, _) => {
                    let bytes = random.bytes(300).into();
                    PeerMessage::Part(Part { height, round, block: id, index: 0, of: 1, bytes })
                }
                (2, _) => vote(self.own_vote(VoteKind::Prevote, height, round, id)),
                _ => vote(self.own_vote(VoteKind::Precommit, height, round, id)),
            };
            post(&self.others(), &message, out);
        }
    }

    /// What those who ask for blocks get instead.
    fn falsified(&mut self, message: PeerMessage, random: &mut Random) -> PeerMessage {
        match message {
            PeerMessage::Blocks(mut blocks) if !blocks.is_empty() => {
                self.lies += 1;
                let at = random.below(blocks.len() as u64) as usize;
                match random.below(5) {
                    0 => blocks[at].0 = damaged(&blocks[at].0, random),
                    1 => blocks.truncate(at),
                    2 => blocks.rotate_left(at),
                    3 => {
                        let few = blocks[at].1.signatures.iter().take(1).cloned().collect::<Vec<_>>();
                        blocks[at].1.signatures = few.try_into().expect("one");
                    }
                    _ => {
                        let mut all = blocks[at].1.signatures.clone().into_vec();
                        all[0].signature.0[5] ^= 1;
                        blocks[at].1.signatures = all.try_into().expect("as many as before");
                    }
                }
                PeerMessage::Blocks(blocks)
            }
            PeerMessage::Part(mut part) => {
                self.lies += 1;
                part.bytes = damaged(&part.bytes, random);
                PeerMessage::Part(part)
            }
            PeerMessage::Snapshot(Some(offer)) if random.chance(500) => {
                (self.lies, self.false_states) = (self.lies + 1, self.false_states + 1);
                PeerMessage::Snapshot(Some(Box::new(false_offer(*offer, random))))
            }
            PeerMessage::Chunks { block, first, chunks } if !chunks.is_empty() => {
                (self.lies, self.false_states) = (self.lies + 1, self.false_states + 1);
                PeerMessage::Chunks { block, first, chunks: false_parts(chunks, random) }
            }
            PeerMessage::Events(mut blocks) if blocks.iter().any(|b| !b.events.is_empty()) => {
                self.lies += 1;
                blocks.iter_mut().flat_map(|b| b.events.iter_mut()).for_each(|e| e.core.code ^= 1);
                PeerMessage::Events(blocks)
            }
            other => other,
        }
    }

    /// The blocks that stand beside those that these outputs propose.
    fn twins(
        &mut self,
        outputs: &[Output],
        replica: Option<&Replica<Disk>>,
        random: &mut Random,
    ) -> BTreeMap<BlockId, Block> {
        let mut twins = BTreeMap::new();
        for output in outputs {
            let Output::Broadcast(PeerMessage::Part(part)) = output else { continue };
            let Some(block) = whole(part) else { continue };
            let Some(replica) = replica.filter(|r| r.status().height.next() == part.height) else { continue };
            let twin = match self.behaviour {
                Behaviour::EquivocatesOnProposals => forge::twin(&self.genesis, replica.state(), &block),
                Behaviour::ProposesInvalidBlocks => {
                    Some(forge::flawed(&self.genesis, replica.state(), &block, random).1)
                }
                Behaviour::ProposesUntimely => self.untimely(replica.state(), &block, random),
                _ => None,
            };
            // With one id for body and envelope another body could stand under the same header.
            if let Some(twin) = twin.filter(|t| *t != block) {
                self.instead.insert(part.block, twin.header.id());
                twins.insert(part.block, twin);
            }
        }
        twins
    }

    /// The same block with a time that some or all clocks find wrong.
    fn untimely(&self, state: &State, block: &Block, random: &mut Random) -> Option<Block> {
        let bound = parameters(state).clock_bound_ms;
        let time = block.header.time;
        let time = match random.below(4) {
            // Some find it timely, some not, and it becomes timely soon.
            0 | 1 => time.plus(bound.saturating_sub(100) + random.below(400)),
            2 => time.plus(bound + 1_000 + random.below(10_000)),
            _ => TimeMs(time.0.saturating_sub(random.below(2 * bound))),
        };
        forge::rebuilt(&self.genesis, state, block, time, &block.transactions)
    }

    /// Shows its block to some and the other one to the rest: of an invalid one, everyone is the rest.
    fn two_blocks(
        &mut self,
        to: &[usize],
        message: PeerMessage,
        twins: &BTreeMap<BlockId, Block>,
        random: &mut Random,
        out: &mut Vec<Letter>,
    ) {
        let (one, rest) = match self.behaviour {
            Behaviour::EquivocatesOnProposals => {
                to.iter().partition::<Vec<usize>, _>(|at| **at % 2 == self.me / 2 % 2)
            }
            _ => (Vec::new(), to.to_vec()),
        };
        let lie: Vec<PeerMessage> = match &message {
            PeerMessage::Part(p) => match twins.get(&p.block) {
                Some(twin) => forge::parts(p.height, p.round, twin),
                None => return post(to, &message, out),
            },
            PeerMessage::Consensus(ConsensusMessage::Proposal(p)) => match twins.get(&p.header.id()) {
                Some(twin) => vec![self.propose(p, twin)],
                None => return post(to, &message, out),
            },
            PeerMessage::Consensus(ConsensusMessage::Vote(v)) if self.mine(v) => {
                match v.block.and_then(|id| self.instead.get(&id)) {
                    Some(id) => vec![vote(forge::vote(&self.genesis, &self.key, v, Some(*id)))],
                    None => return post(to, &message, out),
                }
            }
            _ => return post(to, &message, out),
        };
        self.lies += 1;
        post(&one, &message, out);
        let all = random.chance(100);
        for lie in &lie {
            post(if all { to } else { &rest }, lie, out);
        }
    }

    fn propose(&self, p: &SignedProposal, twin: &Block) -> PeerMessage {
        let forged = forge::proposal(&self.genesis, &self.key, p, twin.header.clone());
        PeerMessage::Consensus(ConsensusMessage::Proposal(forged))
    }

    fn garbage(&self, message: &PeerMessage, random: &mut Random) -> Bytes {
        let far = Height(random.below(u64::MAX));
        // What is at work now, else it would be dropped unread.
        let unknown = (Height(1 + random.below(40)), BlockId(Hash([random.below(256) as u8; 32])));
        let newest = self.proposed.map(|(height, _, id)| (height, id));
        let (height, id) = newest.filter(|_| random.chance(700)).unwrap_or(unknown);
        let mut v = SignedVote {
            kind: VoteKind::Precommit,
            height,
            round: random.below(3) as u32,
            block: Some(id),
            validator: random.pick(&self.addresses),
            signature: Signature([3; 64]),
        };
        match random.below(10) {
            0 => random.bytes(100).into(),
            1 => damaged(&message.encode(), random),
            2 => vote(v).encode(),
            3 => {
                v.validator = self.addresses[self.me];
                vote(forge::vote(&GenesisHash(Hash([1; 32])), &self.key, &v, Some(id))).encode()
            }
            4 => {
                v.validator = self.addresses[self.me];
                v.height = far;
                vote(forge::vote(&self.genesis, &self.key, &v, Some(id))).encode()
            }
            5 => PeerMessage::Tip { height: far }.encode(),
            6 => {
                let part = Part {
                    height: v.height,
                    round: 0,
                    block: id,
                    index: 0,
                    of: 1,
                    bytes: random.bytes(90).into(),
                };
                PeerMessage::Part(part).encode()
            }
            7 => PeerMessage::CatchUp { from: far, to: Height(1) }.encode(),
            8 => PeerMessage::GetProposal { height: v.height, round: 0, block: id }.encode(),
            _ => PeerMessage::Transactions(vec![random.bytes(200).into()]).encode(),
        }
    }
}

/// An offer whose state, history or division into parts is another.
fn false_offer(mut offer: Offer, random: &mut Random) -> Offer {
    match random.below(4) {
        0 => offer.certified.header.state_root.0[0] ^= 1,
        1 => offer.mountains.push(&Hash([7; 32])),
        2 => offer.links.push(ValidatorLink {
            certified: offer.certified.clone(),
            next: ValidatorSet { validators: List::empty() },
        }),
        _ => offer.bits = offer.bits.saturating_add(9),
    }
    offer
}

/// Parts in which a leaf is changed or left out, or which stand in another order.
fn false_parts(mut chunks: Vec<Chunk>, random: &mut Random) -> Vec<Chunk> {
    let full = chunks.iter_mut().find(|c| !c.leaves.is_empty());
    match (random.below(3), full) {
        (0, Some(chunk)) => chunk.leaves[0].trail.length += 1,
        (1, Some(chunk)) => {
            chunk.leaves.pop();
        }
        _ => chunks.reverse(),
    }
    chunks
}

fn vote(vote: SignedVote) -> PeerMessage {
    PeerMessage::Consensus(ConsensusMessage::Vote(vote))
}

fn post(to: &[usize], message: &PeerMessage, out: &mut Vec<Letter>) {
    let bytes = message.encode();
    out.extend(to.iter().map(|at| (*at, bytes.clone())));
}

fn halves(to: &[usize], random: &mut Random) -> (Vec<usize>, Vec<usize>) {
    to.iter().partition(|_| random.chance(500))
}

/// The block of a body that is one part.
fn whole(part: &Part) -> Option<Block> {
    if part.of == 1 { Block::decode(&part.bytes).ok() } else { None }
}

fn damaged(bytes: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << random.below(8);
    bytes.into()
}
