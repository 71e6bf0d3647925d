//! Golden chains: files of whole certified chains, kept for good, and their replay from the founding document alone.
//! A change of the rules that would have decided the past otherwise cannot replay them.
//!
//! A file holds its chain's founding document, its blocks, the certificate of the last (each of the others stands in
//! the block above), and a digest of each block's receipts, which no header names. What a chain tells is `story`.
//! Nothing here knows a rule: blocks are checked and executed, and what comes out is compared.

use assent_genesis::Genesis;
use assent_ledger::testing::World;
use assent_ledger::{
    Applied, BlockContext, ParentTurns, ReplayWindow, State, apply, protocol, turns, validators,
};
use assent_proto::block::{CommitSignature, tx_root};
use assent_proto::envelope::verify;
use assent_proto::field::Message;
use assent_proto::hash::{self, Hash};
use assent_proto::merkle::Mountains;
use assent_proto::validators::{VoteKind, address, vote_message};
use assent_proto::{
    Block, BlockId, CommitCertificate, Event, Header, Height, Receipt, SecretKey, TimeMs, ValidatorSet,
    VerifiedTx,
};
use bytes::Bytes;

pub mod story;

/// With what a file begins.
const MAGIC: &[u8] = b"assent golden chain, format 1\n";
/// Longer than any part of a file may be.
const PART_BYTES_MAX: usize = 1 << 20;

/// A chain as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Golden {
    /// The founding document.
    pub genesis: String,
    /// The blocks from height 1 on, in their canonical encoding.
    pub blocks: Vec<Bytes>,
    /// What certifies the last.
    pub last: CommitCertificate,
    /// Of each block, a digest of its receipts.
    pub receipts: Vec<Hash>,
}

impl Golden {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        let mut part = |bytes: &[u8]| {
            file.extend((bytes.len() as u32).to_le_bytes());
            file.extend(bytes);
        };
        part(self.genesis.as_bytes());
        part(&self.last.encode());
        for (block, receipts) in self.blocks.iter().zip(&self.receipts) {
            part(block);
            part(&receipts.0);
        }
        file
    }

    /// Reads a file, to its last byte.
    pub fn decode(file: &[u8]) -> Result<Golden, String> {
        let mut rest = file.strip_prefix(MAGIC).ok_or("this is no golden chain of this format")?;
        let mut part = || -> Result<Option<&[u8]>, String> {
            if rest.is_empty() {
                return Ok(None);
            }
            let (length, after) = rest.split_first_chunk::<4>().ok_or("the file ends in a length")?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > PART_BYTES_MAX {
                return Err(format!("a part of {length} bytes"));
            }
            let (bytes, after) = after.split_at_checked(length).ok_or("the file ends in a part")?;
            rest = after;
            Ok(Some(bytes))
        };
        let genesis = part()?.ok_or("no founding document")?;
        let genesis = String::from_utf8(genesis.to_vec()).map_err(|e| e.to_string())?;
        let last = CommitCertificate::decode(part()?.ok_or("no certificate")?).map_err(|e| e.to_string())?;
        let (mut blocks, mut receipts) = (Vec::new(), Vec::new());
        while let Some(block) = part()? {
            blocks.push(Bytes::copy_from_slice(block));
            let digest = part()?.ok_or("a block without its receipts")?;
            receipts.push(Hash(digest.try_into().map_err(|_| "a digest of another length")?));
        }
        Ok(Golden { genesis, blocks, last, receipts })
    }

    /// The certificate of a block: the block above carries it.
    pub fn certificate(&self, index: usize) -> Result<CommitCertificate, String> {
        match self.blocks.get(index + 1) {
            None => Ok(self.last.clone()),
            Some(above) => Block::decode(above)
                .map_err(|e| format!("block {}: {e}", index + 2))?
                .parent_certificate
                .ok_or_else(|| format!("block {} carries no certificate", index + 2)),
        }
    }

    /// Replays all of it.
    pub fn replay(&self) -> Result<Replay, String> {
        let mut replay = Replay::found(&self.genesis)?;
        for (index, block) in self.blocks.iter().enumerate() {
            replay = replay.step(block, &self.certificate(index)?, &self.receipts[index])?;
        }
        Ok(replay)
    }
}

/// A chain as far as it was replayed.
#[derive(Clone)]
pub struct Replay {
    genesis: Genesis,
    /// Newest height.
    pub height: Height,
    id: BlockId,
    time: TimeMs,
    /// The state after it.
    pub state: State,
    window: ReplayWindow,
    mountains: Mountains,
    /// Who voted at its height, in the order of their turns.
    turns: Option<Turns>,
    certificate: Option<CommitCertificate>,
    /// All events so far.
    pub events: Vec<Event>,
    /// All receipts so far.
    pub receipts: Vec<Receipt>,
    /// The protocol version of each block.
    pub versions: Vec<u32>,
}

/// Who votes at a height, and whose turn each round is.
#[derive(Clone)]
struct Turns {
    set: ValidatorSet,
    order: Vec<u32>,
}

impl Turns {
    fn at(state: &State, height: Height) -> Turns {
        let (set, late) = (validators(state).at(height).clone(), turns(state));
        let order = set.turns(height, |a| late.passed_over(a, height));
        Turns { set, order }
    }

    fn proposer(&self, round: u32) -> assent_proto::Address {
        self.set.validators[self.order[round as usize % self.order.len()] as usize].address()
    }

    /// What the certificate of their height shows of their turns.
    fn shown(&self, certificate: &CommitCertificate) -> ParentTurns {
        let signer = |s: &CommitSignature| Some(self.set.validators.get(s.validator as usize)?.address());
        ParentTurns {
            missed: (0..certificate.round).take(self.order.len()).map(|r| self.proposer(r)).collect(),
            proposer: Some(self.proposer(certificate.round)),
            signers: certificate.signatures.iter().filter_map(signer).collect(),
        }
    }
}

impl Replay {
    /// The founding state.
    pub fn found(genesis: &str) -> Result<Replay, String> {
        let genesis = Genesis::parse(genesis).map_err(|e| e.to_string())?;
        Ok(Replay {
            height: Height(0),
            id: BlockId(genesis.hash().0),
            time: genesis.time(),
            state: State::from_leaves(genesis.leaves()),
            window: ReplayWindow::new(),
            mountains: Mountains::default(),
            turns: None,
            certificate: None,
            events: Vec::new(),
            receipts: Vec::new(),
            versions: Vec::new(),
            genesis,
        })
    }

    /// Checks and executes the next block, and compares what comes out with what its header says.
    pub fn step(
        &self,
        bytes: &[u8],
        certificate: &CommitCertificate,
        receipts: &Hash,
    ) -> Result<Replay, String> {
        let at = self.height.next();
        let wrong = |what: &str| format!("block {at}: {what}");
        let block = Block::decode(bytes).map_err(|e| wrong(&e.to_string()))?;
        let genesis = self.genesis.hash();
        let voting = Turns::at(&self.state, at);
        certificate
            .verify(&genesis, &voting.set, at, &block.header.id())
            .map_err(|e| wrong(&e.to_string()))?;
        self.check_parent(&block).map_err(|e| wrong(&e))?;
        let verified = verify(&genesis, &block.transactions).into_iter().collect::<Result<Vec<_>, _>>();
        let txs = verified.map_err(|e| wrong(&e.to_string()))?;
        let applied = self.execute(block.header.time, &txs)?;
        let certificate = certificate.clone();
        let header = self.header(&block, &applied, &voting);
        if header != block.header {
            return Err(wrong(&format!("it says {:?}, and {header:?} comes out", block.header)));
        }
        if digest(&applied.receipts) != *receipts {
            return Err(wrong("its receipts are others than they were"));
        }
        Ok(self.clone().after(block.header, &txs, applied, voting, certificate))
    }

    fn check_parent(&self, block: &Block) -> Result<(), String> {
        let hash = block.parent_certificate.as_ref().map_or(Hash::ZERO, CommitCertificate::hash);
        if hash != block.header.parent_certificate || block.parent_certificate != self.certificate {
            return Err("it carries another certificate of its parent".into());
        }
        if block.header.time <= self.time {
            return Err("it is not later than its parent".into());
        }
        Ok(())
    }

    fn execute(&self, time: TimeMs, txs: &[VerifiedTx]) -> Result<Applied, String> {
        let context = BlockContext { height: self.height.next(), time };
        let shown = self.turns.as_ref().zip(self.certificate.as_ref()).map(|(t, c)| t.shown(c));
        apply(&self.state, &self.window, context, &shown.unwrap_or_default(), txs)
            .map_err(|e| format!("block {}: {e}", context.height))
    }

    /// The header that the block has to have. Its time and builder are its own to say.
    fn header(&self, block: &Block, applied: &Applied, voting: &Turns) -> Header {
        let height = self.height.next();
        let builds = voting.set.by_address(&block.header.builder).is_some();
        Header {
            version: protocol(&self.state).at(height),
            genesis: self.genesis.hash(),
            height,
            parent: self.id,
            time: block.header.time,
            builder: if builds { block.header.builder } else { assent_proto::Address([0; 20]) },
            tx_root: tx_root(&block.transactions),
            body_bytes: block.transactions.iter().map(Bytes::len).sum::<usize>() as u32,
            events_root: applied.events_root,
            history_root: self.mountains.root(),
            state_root: applied.state.root(),
            validators: voting.set.hash(),
            next_validators: validators(&applied.state).at(height.next()).hash(),
            parent_certificate: self.certificate.as_ref().map_or(Hash::ZERO, CommitCertificate::hash),
        }
    }

    fn after(
        self,
        header: Header,
        txs: &[VerifiedTx],
        applied: Applied,
        voting: Turns,
        certificate: CommitCertificate,
    ) -> Replay {
        let mut replay = self;
        replay.id = header.id();
        replay.mountains.push(&replay.id.0);
        (replay.height, replay.time) = (header.height, header.time);
        replay.state = applied.state;
        replay.window.committed(header.time, txs);
        (replay.turns, replay.certificate) = (Some(voting), Some(certificate));
        replay.events.extend(applied.events);
        replay.receipts.extend(applied.receipts);
        replay.versions.push(header.version);
        replay
    }
}

/// A digest of receipts, in their order.
fn digest(receipts: &[Receipt]) -> Hash {
    let h = hash::DOCUMENT.hasher().number(receipts.len() as u64);
    receipts.iter().fold(h, |h, r| h.sized(&r.encode())).end()
}

/// Makes certified blocks of what a world without a network did: `keys` vote as far as a quorum needs them. In
/// round 0, but at the heights that `missed` names, where the first in turn was silent.
pub fn certified(
    genesis: &Genesis,
    world: &World,
    keys: &[SecretKey],
    missed: &[Height],
) -> Result<Golden, String> {
    let toml = genesis.to_toml();
    let mut replay = Replay::found(&toml)?;
    let (mut blocks, mut receipts) = (Vec::new(), Vec::new());
    for (context, txs) in world.blocks() {
        let round = u32::from(missed.contains(&context.height));
        let voting = Turns::at(&replay.state, context.height);
        let applied = replay.execute(context.time, txs)?;
        let transactions: Vec<_> = txs.iter().map(|tx| tx.bytes().clone()).collect();
        let parent_certificate = replay.certificate.clone();
        let builder = voting.proposer(round);
        let mut block = Block { header: unsealed(builder, context), transactions, parent_certificate };
        block.header = replay.header(&block, &applied, &voting);
        let certificate = certify(genesis, &voting.set, &block.header, round, keys);
        let (bytes, digest) = (block.encode(), digest(&applied.receipts));
        replay = replay.step(&bytes, &certificate, &digest)?;
        blocks.push(bytes);
        receipts.push(digest);
    }
    if replay.state.root() != world.state().root() {
        return Err("the chain ends in another state than the world that it was made of".into());
    }
    let last = replay.certificate.ok_or("a chain of no block")?;
    Ok(Golden { genesis: toml, blocks, last, receipts })
}

/// A header of which nothing stands yet but what its block says itself.
fn unsealed(builder: assent_proto::Address, context: &BlockContext) -> Header {
    Header {
        version: 0,
        genesis: assent_proto::GenesisHash(Hash::ZERO),
        height: context.height,
        parent: BlockId(Hash::ZERO),
        time: context.time,
        builder,
        tx_root: Hash::ZERO,
        body_bytes: 0,
        events_root: Hash::ZERO,
        history_root: Hash::ZERO,
        state_root: Hash::ZERO,
        validators: Hash::ZERO,
        next_validators: Hash::ZERO,
        parent_certificate: Hash::ZERO,
    }
}

/// A certificate by as many of the set as make a quorum.
fn certify(
    genesis: &Genesis,
    set: &ValidatorSet,
    header: &Header,
    round: u32,
    keys: &[SecretKey],
) -> CommitCertificate {
    let (block, mut power, mut signatures) = (header.id(), 0, Vec::new());
    for (index, validator) in set.validators.iter().enumerate() {
        let Some(key) = keys.iter().find(|k| k.public() == validator.key) else { continue };
        if set.is_quorum(power) {
            break;
        }
        power += u64::from(validator.power);
        let (kind, who) = (VoteKind::Precommit, address(&validator.key));
        let message = vote_message(&genesis.hash(), kind, header.height, round, Some(&block), &who);
        signatures.push(CommitSignature { validator: index as u32, signature: key.sign(&message.0) });
    }
    let signatures = signatures.try_into().expect("a set has at most 128 validators");
    CommitCertificate { height: header.height, round, block, signatures }
}

/// What the certificate of a world's newest block shows if it was decided in the second round: the first in turn
/// was silent, and the others signed.
pub fn silent_first(world: &World, keys: &[SecretKey], genesis: &Genesis) -> ParentTurns {
    let height = world.at().height;
    let voting = Turns::at(world.state(), height);
    let header = unsealed(voting.proposer(1), &world.at());
    voting.shown(&certify(genesis, &voting.set, &header, 1, keys))
}
