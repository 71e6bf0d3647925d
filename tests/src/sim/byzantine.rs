//! Validators that lie, named for what they do. Each runs a real replica with its real key and alters what
//! leaves it: whatever it says is signed as an honest validator's messages are.

use std::collections::BTreeMap;

use assent_consensus::{ConsensusMessage, SignedProposal, SignedVote};
use assent_proto::field::Message;
use assent_proto::validators::VoteKind;
use assent_proto::{Address, Block, BlockId, GenesisHash, Hash, Height, SecretKey, Signature};
use assent_replica::{Output, Part, PeerMessage, Replica};
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
    /// Sends bytes that are no messages, damaged messages, other chains' votes, votes of far heights, false
    /// tips, parts of nothing and unsigned transactions, among what it ought to send.
    SendsGarbage,
    /// Sends old messages of all validators again and again.
    ReplaysOldMessages,
    /// Proposes blocks that break the rules, and votes for them.
    ProposesInvalidBlocks,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [Behaviour; 8] = [
        Behaviour::EquivocatesOnVotes,
        Behaviour::EquivocatesOnProposals,
        Behaviour::IsSilent,
        Behaviour::VotesNil,
        Behaviour::WithholdsParts,
        Behaviour::SendsGarbage,
        Behaviour::ReplaysOldMessages,
        Behaviour::ProposesInvalidBlocks,
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
    /// The newest block that was proposed, to vote for when it ought not.
    proposed: Option<(Height, BlockId)>,
    /// Instead of which block of ours we show which other.
    instead: BTreeMap<BlockId, BlockId>,
    /// How often it lied.
    pub lies: u64,
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
            instead: BTreeMap::new(),
            lies: 0,
        }
    }

    /// What it does.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Something was said to it.
    pub fn hear(&mut self, bytes: &Bytes) {
        if let Ok(PeerMessage::Consensus(ConsensusMessage::Proposal(p))) = PeerMessage::decode(bytes) {
            self.proposed = Some((p.header.height, p.header.id()));
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
                B::EquivocatesOnProposals | B::ProposesInvalidBlocks => {
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
                B::ReplaysOldMessages => {
                    self.hear(&message.encode());
                    post(&to, &message, &mut letters);
                    for _ in 0..2 {
                        self.lies += 1;
                        letters.push((random.pick(&self.others()), random.pick(&self.heard)));
                    }
                }
                B::WithholdsParts => post(&to, &message, &mut letters),
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
            (None, Some((height, id))) if height == v.height => Some(id),
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
                Behaviour::EquivocatesOnProposals => forge::twin(replica.state(), &block),
                Behaviour::ProposesInvalidBlocks => Some(forge::flawed(&block, random).1),
                _ => None,
            };
            if let Some(twin) = twin.filter(|t| t.header.id() != part.block) {
                self.instead.insert(part.block, twin.header.id());
                twins.insert(part.block, twin);
            }
        }
        twins
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
        let (height, id) = self.proposed.filter(|_| random.chance(700)).unwrap_or(unknown);
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
            7 => PeerMessage::CatchUp { from: far }.encode(),
            8 => PeerMessage::GetProposal { height: v.height, round: 0, block: id }.encode(),
            _ => PeerMessage::Transactions(vec![random.bytes(200).into()]).encode(),
        }
    }
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
