//! What a liar can make with its own key: votes and proposals that contradict what it said, and blocks that
//! break the rules. How it uses them is decided in [`super::byzantine`].

use assent_consensus::{SignedProposal, SignedVote};
use assent_ledger::{BlockContext, ParentTurns, ReplayWindow, State, apply};
use assent_proto::block::tx_root;
use assent_proto::envelope::verify;
use assent_proto::field::Message;
use assent_proto::{
    Block, BlockId, CommitCertificate, Envelope, GenesisHash, Hash, Header, Height, SecretKey, Signature,
    TimeMs,
};
use assent_replica::{Part, PeerMessage};
use bytes::Bytes;

use super::Random;

/// The same vote for something else, signed.
pub fn vote(genesis: &GenesisHash, key: &SecretKey, vote: &SignedVote, block: Option<BlockId>) -> SignedVote {
    let mut forged = SignedVote { block, ..vote.clone() };
    forged.signature = key.sign(&forged.message(genesis).0);
    forged
}

/// The same proposal of another header, signed.
pub fn proposal(
    genesis: &GenesisHash,
    key: &SecretKey,
    proposal: &SignedProposal,
    header: Header,
) -> SignedProposal {
    let mut forged = SignedProposal { header, signature: Signature([0; 64]), ..proposal.clone() };
    forged.signature = key.sign(&forged.message(genesis).0);
    forged
}

/// A block's parts for the round of a proposal.
pub fn parts(height: Height, round: u32, block: &Block) -> Vec<PeerMessage> {
    let (id, bytes) = (block.header.id(), block.encode());
    Part::split(height, round, id, &bytes).into_iter().map(PeerMessage::Part).collect()
}

/// Another valid block in the place of one: empty, and a little later. `state` is the state before it.
pub fn twin(genesis: &GenesisHash, state: &State, block: &Block) -> Option<Block> {
    rebuilt(genesis, state, block, block.header.time.plus(1), &[])
}

/// The block with another time and other transactions, executed, so that its roots hold. `state` is the state
/// before it. None if the ledger refuses it.
pub fn rebuilt(
    genesis: &GenesisHash,
    state: &State,
    block: &Block,
    time: TimeMs,
    transactions: &[Bytes],
) -> Option<Block> {
    let txs: Vec<_> = verify(genesis, transactions).into_iter().collect::<Result<_, _>>().ok()?;
    let context = BlockContext { height: block.header.height, time };
    let parent = block.parent_certificate.as_ref().map_or_else(ParentTurns::default, |c| shown(state, c));
    let applied = apply(state, &ReplayWindow::new(), context, &parent, &txs).ok()?;
    let mut rebuilt = Block { transactions: transactions.to_vec(), ..block.clone() };
    rebuilt.header.time = time;
    rebuilt.header.events_root = applied.events_root;
    rebuilt.header.state_root = applied.state.root();
    commit_to_body(&mut rebuilt);
    Some(rebuilt)
}

/// What the parent's certificate shows of the turns that led to it.
fn shown(state: &State, certificate: &CommitCertificate) -> ParentTurns {
    let turns = assent_ledger::turns(state);
    let set = assent_ledger::validators(state).at(certificate.height).clone();
    let order = set.turns(certificate.height, |a| turns.passed_over(a, certificate.height));
    let address = |index: u32| set.validators[index as usize].address();
    let turn = |round: usize| address(order[round % order.len()]);
    let round = certificate.round as usize;
    ParentTurns {
        missed: (0..round.min(order.len())).map(turn).collect(),
        proposer: Some(turn(round)),
        signers: certificate.signatures.iter().map(|s| address(s.validator)).collect(),
    }
}

fn commit_to_body(block: &mut Block) {
    block.header.tx_root = tx_root(&block.transactions);
    block.header.body_bytes = block.transactions.iter().map(Bytes::len).sum::<usize>() as u32;
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// Not the state after it.
    StateRoot,
    /// Not the root over its events.
    EventsRoot,
    /// Not the root over earlier blocks.
    HistoryRoot,
    /// What protects stands last, if there is something that does; else the order is another.
    PhaseOrder,
    /// A body that everyone knows, under a signature that does not hold.
    BadSignature,
    /// One transaction twice.
    Twice,
    /// Not later than its parent.
    TimeBack,
    /// An hour ahead of all clocks.
    TimeAhead,
    /// On another parent.
    Parent,
    /// A parent certificate without a quorum.
    NoQuorum,
}

/// Those that only some blocks can have stand here more than once.
const FLAWS: [Flaw; 14] = [
    Flaw::BadSignature,
    Flaw::BadSignature,
    Flaw::PhaseOrder,
    Flaw::NoQuorum,
    Flaw::StateRoot,
    Flaw::EventsRoot,
    Flaw::HistoryRoot,
    Flaw::PhaseOrder,
    Flaw::BadSignature,
    Flaw::Twice,
    Flaw::TimeBack,
    Flaw::TimeAhead,
    Flaw::Parent,
    Flaw::NoQuorum,
];

/// The block with a flaw that suits it; the rest of its header agrees with its body, and where the rules allow
/// it with what the body does.
pub fn flawed(genesis: &GenesisHash, state: &State, block: &Block, random: &mut Random) -> (Flaw, Block) {
    let suits = |flaw: &Flaw| match flaw {
        Flaw::PhaseOrder => block.transactions.len() > 1,
        Flaw::BadSignature | Flaw::Twice => !block.transactions.is_empty(),
        Flaw::NoQuorum => block.parent_certificate.is_some(),
        _ => true,
    };
    let flaw = random.pick(&FLAWS.into_iter().filter(suits).collect::<Vec<_>>());
    (flaw, spoil(genesis, state, block, flaw))
}

fn spoil(genesis: &GenesisHash, state: &State, block: &Block, flaw: Flaw) -> Block {
    let mut b = block.clone();
    match flaw {
        Flaw::StateRoot => b.header.state_root = flip(b.header.state_root),
        Flaw::EventsRoot => b.header.events_root = flip(b.header.events_root),
        Flaw::HistoryRoot => b.header.history_root = flip(b.header.history_root),
        Flaw::PhaseOrder => {
            b.transactions.reverse();
            // Only a ledger that does not mind the order can execute it.
            if let Some(executed) = rebuilt(genesis, state, &b, b.header.time, &b.transactions) {
                b = executed;
            }
        }
        Flaw::BadSignature => b.transactions[0] = badly_signed(&b.transactions[0]),
        Flaw::Twice => b.transactions.push(b.transactions[0].clone()),
        Flaw::TimeBack => b.header.time = TimeMs(1),
        Flaw::TimeAhead => b.header.time = b.header.time.plus(3_600_000),
        Flaw::Parent => b.header.parent = BlockId(flip(b.header.parent.0)),
        Flaw::NoQuorum => {
            let certificate = b.parent_certificate.as_mut().expect("suits only blocks with one");
            certificate.signatures =
                certificate.signatures.iter().take(1).cloned().collect::<Vec<_>>().try_into().expect("one");
            b.header.parent_certificate = certificate.hash();
        }
    }
    commit_to_body(&mut b);
    b
}

/// The same body in an envelope whose signature does not hold.
pub fn badly_signed(envelope: &Bytes) -> Bytes {
    let mut envelope = Envelope::decode(envelope).expect("a transaction of a block of ours");
    let mut signatures = envelope.signatures.clone().into_vec();
    signatures[0].signature.0[7] ^= 1;
    envelope.signatures = signatures.try_into().expect("as many as before");
    envelope.encode()
}

fn flip(mut hash: Hash) -> Hash {
    hash.0[0] ^= 1;
    hash
}
