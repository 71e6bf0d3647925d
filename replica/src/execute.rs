//! Where ledger and consensus meet: from waiting transactions to a block, from a received block to a verdict.
//!
//! Everything here is decided from the block and the newest final state alone. Time of day, peers, rounds and
//! storage are none of its business.

use bytes::Bytes;

use assent_ledger::{Applied, BlockContext, ParentTurns, ReplayWindow, State};
use assent_proto::block::{BLOCK_BYTES_MAX, BadCertificate, tx_root};
use assent_proto::field::Message;
use assent_proto::merkle::Mountains;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::state::{Parameters, Protocol};
use assent_proto::{
    Address, Block, BlockId, BodyId, CommitCertificate, DecodeError, Envelope, GenesisHash, Hash, Header,
    Height, Invalid, TimeMs, VerifiedTx, envelope,
};

use crate::pool::{Pool, Room};
use crate::voting::Voting;

/// What never changes on a chain.
pub(crate) struct Chain {
    /// Its name.
    pub(crate) genesis: GenesisHash,
}

/// The newest final block, and what the next one builds on.
pub(crate) struct Head {
    /// Its height; 0 for the founding state.
    pub(crate) height: Height,
    /// Its id; the genesis hash for the founding state.
    pub(crate) id: BlockId,
    /// Its time.
    pub(crate) time: TimeMs,
    /// The state after it.
    pub(crate) state: State,
    /// Bodies that may not come again.
    pub(crate) window: ReplayWindow,
    /// Over all block ids so far.
    pub(crate) mountains: Mountains,
    /// What made it final; none for the founding state.
    pub(crate) certificate: Option<CommitCertificate>,
    /// The bounds in force.
    pub(crate) parameters: Parameters,
    /// The version of the rules, and the one that is decided.
    pub(crate) protocol: Protocol,
    /// Who voted at its height: verifies the certificate that the next block carries, and names who missed a
    /// turn.
    pub(crate) own: Voting,
    /// Who votes at the next height.
    pub(crate) next: Voting,
}

/// A block with all that it does.
pub(crate) struct Executed {
    /// The header, every field of which holds.
    pub(crate) header: Header,
    /// The block's canonical encoding.
    pub(crate) bytes: Bytes,
    /// Its transactions.
    pub(crate) txs: Vec<VerifiedTx>,
    /// What they do.
    pub(crate) applied: Applied,
}

/// Why a block is not valid on the newest final state. All of it is deterministic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reject {
    /// The bytes are no block.
    #[error("the bytes are not a block: {0}")]
    Malformed(DecodeError),
    /// The body is not the one that the header commits to: whoever sent it lies.
    #[error("the {0} of the body is not what the header says")]
    OtherBody(&'static str),
    /// A field of the header breaks a rule.
    #[error("the header's {0} breaks the rules")]
    Header(&'static str),
    /// The parent's certificate does not hold.
    #[error("the parent's certificate: {0}")]
    Certificate(BadCertificate),
    /// A transaction's bytes or signatures do not hold.
    #[error("transaction {0}: {1}")]
    Transaction(usize, Invalid),
    /// The ledger refuses the transactions together.
    #[error("the ledger refuses the block: {0}")]
    Ledger(assent_ledger::InvalidBlock),
    /// What the header claims is not what comes out.
    #[error("the {what} is {ours}, not {header}")]
    Root {
        /// Which root.
        what: &'static str,
        /// Computed.
        ours: Hash,
        /// Claimed.
        header: Hash,
    },
}

impl Head {
    /// The founding state.
    pub(crate) fn founding(genesis: &assent_genesis::Genesis) -> Head {
        let state = State::from_leaves(genesis.leaves());
        Head {
            protocol: assent_ledger::protocol(&state),
            own: Voting::at(&state, Height(0)),
            next: Voting::at(&state, Height(1)),
            height: Height(0),
            id: BlockId(genesis.hash().0),
            time: genesis.time(),
            state,
            window: ReplayWindow::new(),
            mountains: Mountains::default(),
            certificate: None,
            parameters: genesis.parameters().clone(),
        }
    }

    /// The head after a block became final. The window goes on with the new one: nothing asks the old one any more.
    pub(crate) fn after(
        &mut self,
        header: &Header,
        txs: &[VerifiedTx],
        certificate: CommitCertificate,
        applied: &Applied,
    ) -> Head {
        let id = header.id();
        let mut mountains = self.mountains.clone();
        mountains.push(&id.0);
        let mut window = std::mem::take(&mut self.window);
        window.committed(header.time, txs);
        Head {
            height: header.height,
            id,
            time: header.time,
            own: Voting::at(&applied.state, header.height),
            next: Voting::at(&applied.state, header.height.next()),
            parameters: assent_ledger::parameters(&applied.state),
            protocol: assent_ledger::protocol(&applied.state),
            state: applied.state.clone(),
            window,
            mountains,
            certificate: Some(certificate),
        }
    }

    /// The version by whose rules the next block is made.
    pub(crate) fn next_version(&self) -> u32 {
        self.protocol.at(self.height.next())
    }

    /// The time of a block built on it at `now`.
    pub(crate) fn next_time(&self, now: TimeMs) -> TimeMs {
        now.max(self.time.plus(1))
    }

    /// Whether a transaction may be in a block of that time.
    pub(crate) fn check(&self, time: TimeMs, tx: &VerifiedTx) -> Result<(), Invalid> {
        assent_ledger::check(&self.state, &self.window, &self.parameters, self.next_version(), time, tx)
    }

    /// Executes the next block, which carries this certificate of the head.
    fn apply(
        &self,
        time: TimeMs,
        certificate: Option<&CommitCertificate>,
        txs: &[VerifiedTx],
    ) -> Result<Applied, assent_ledger::InvalidBlock> {
        let context = BlockContext { height: self.height.next(), time };
        let turns = certificate.map_or_else(ParentTurns::default, |c| self.own.shown_by(c));
        assent_ledger::apply(&self.state, &self.window, context, &turns, txs)
    }
}

/// Builds the next block at `now` from what waits, with this certificate of the head. Also names the waiting
/// transactions that are not valid any more.
pub(crate) fn build(
    chain: &Chain,
    head: &Head,
    certificate: Option<CommitCertificate>,
    builder: Address,
    now: TimeMs,
    pool: &Pool,
) -> (Executed, Block, Vec<(BodyId, Invalid)>) {
    let time = head.next_time(now);
    let (mut txs, refused) = choose(head, time, pool);
    let applied = head.apply(time, certificate.as_ref(), &txs).unwrap_or_else(|_| {
        // Each alone passed the ledger's check, so together they pass too; should they not, a block without
        // them keeps the chain going.
        debug_assert!(false, "the ledger's check and its execution disagree");
        txs.clear();
        head.apply(time, certificate.as_ref(), &[]).expect("an empty block can always be executed")
    });
    let transactions: Vec<_> = txs.iter().map(|t| t.bytes().clone()).collect();
    let header = Header {
        version: head.next_version(),
        genesis: chain.genesis,
        height: head.height.next(),
        parent: head.id,
        time,
        builder,
        tx_root: tx_root(&transactions),
        body_bytes: transactions.iter().map(Bytes::len).sum::<usize>() as u32,
        events_root: applied.events_root,
        history_root: head.mountains.root(),
        state_root: applied.state.root(),
        validators: head.next.hash(),
        next_validators: next_validators(head, &applied),
        parent_certificate: certificate_hash(certificate.as_ref()),
    };
    let block = Block { header, transactions, parent_certificate: certificate };
    let bytes = block.encode();
    (Executed { header: block.header.clone(), bytes, txs, applied }, block, refused)
}

/// The hash of the set that votes at the height above the block that was just executed.
fn next_validators(head: &Head, applied: &Applied) -> Hash {
    assent_ledger::validators(&applied.state).at(head.height.next().next()).hash()
}

fn certificate_hash(certificate: Option<&CommitCertificate>) -> Hash {
    certificate.map_or(Hash::ZERO, CommitCertificate::hash)
}

/// As many as a block may hold: all that wait, or a fair share of each institution's.
fn choose(head: &Head, time: TimeMs, pool: &Pool) -> (Vec<VerifiedTx>, Vec<(BodyId, Invalid)>) {
    let transactions = head.parameters.block_transactions_max as usize;
    let room = Room { transactions, bytes: block_bytes(&head.parameters) };
    let mut refused = Vec::new();
    let txs = pool.choose(room, |tx| match head.check(time, tx) {
        Ok(()) => true,
        Err(reason) => {
            refused.push((tx.body_id(), reason));
            false
        }
    });
    (txs, refused)
}

/// Bytes of transactions that fit into a block, with room for the framing of the most transactions.
fn block_bytes(parameters: &Parameters) -> usize {
    (parameters.block_bytes_max as usize).min(BLOCK_BYTES_MAX - (512 << 10))
}

/// Decodes a block's bytes and checks that they belong to the header of that id.
pub(crate) fn decode(id: &BlockId, bytes: &[u8]) -> Result<Block, Reject> {
    let block = Block::decode(bytes).map_err(Reject::Malformed)?;
    if block.header.id() != *id {
        return Err(Reject::OtherBody("header"));
    }
    if tx_root(&block.transactions) != block.header.tx_root {
        return Err(Reject::OtherBody("transaction root"));
    }
    if certificate_hash(block.parent_certificate.as_ref()) != block.header.parent_certificate {
        return Err(Reject::OtherBody("parent certificate"));
    }
    Ok(block)
}

/// Executes a decoded block on the head and compares every field of its header.
pub(crate) fn execute(
    chain: &Chain,
    head: &Head,
    pool: &Pool,
    block: Block,
    bytes: Bytes,
) -> Result<Executed, Reject> {
    check_header(chain, head, &block.header)?;
    check_size(head, &block)?;
    check_parent_certificate(chain, head, &block)?;
    let txs = verified(chain, pool, &block.transactions)?;
    let certificate = block.parent_certificate.as_ref();
    let applied = head.apply(block.header.time, certificate, &txs).map_err(Reject::Ledger)?;
    let root =
        |what, ours, header| if ours == header { Ok(()) } else { Err(Reject::Root { what, ours, header }) };
    root("history root", head.mountains.root(), block.header.history_root)?;
    root("events root", applied.events_root, block.header.events_root)?;
    root("state root", applied.state.root(), block.header.state_root)?;
    root("next validators", next_validators(head, &applied), block.header.next_validators)?;
    Ok(Executed { header: block.header, bytes, txs, applied })
}

/// What a block does here, whatever its header says of it; none if it cannot be executed.
pub(crate) fn outcome(chain: &Chain, head: &Head, pool: &Pool, block: &Block) -> Option<Applied> {
    let txs = verified(chain, pool, &block.transactions).ok()?;
    head.apply(block.header.time, block.parent_certificate.as_ref(), &txs).ok()
}

fn check_header(chain: &Chain, head: &Head, header: &Header) -> Result<(), Reject> {
    let rules = [
        ("version", header.version == head.next_version()),
        ("genesis", header.genesis == chain.genesis),
        ("height", header.height == head.height.next()),
        ("parent", header.parent == head.id),
        ("time", header.time > head.time),
        ("builder", head.next.holds(&header.builder)),
        ("validators", header.validators == head.next.hash()),
    ];
    match rules.iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(Reject::Header(what)),
        None => Ok(()),
    }
}

fn check_size(head: &Head, block: &Block) -> Result<(), Reject> {
    let bytes: usize = block.transactions.iter().map(Bytes::len).sum();
    if block.header.body_bytes as usize != bytes || bytes > block_bytes(&head.parameters) {
        return Err(Reject::Header("body length"));
    }
    if block.transactions.len() > head.parameters.block_transactions_max as usize {
        return Err(Reject::Header("number of transactions"));
    }
    Ok(())
}

/// The certificate that the block carries need not be the one that we hold: any quorum does.
fn check_parent_certificate(chain: &Chain, head: &Head, block: &Block) -> Result<(), Reject> {
    match &block.parent_certificate {
        None if head.height == Height(0) => Ok(()),
        Some(_) if planted(Mutation::SkipParentCertificate) => Ok(()),
        Some(certificate) if head.height > Height(0) => certificate
            .verify(&chain.genesis, head.own.set(), head.height, &head.id)
            .map_err(Reject::Certificate),
        _ => Err(Reject::Header("parent certificate")),
    }
}

/// The transactions, those that did not wait in the pool verified in one batch.
fn verified(chain: &Chain, pool: &Pool, transactions: &[Bytes]) -> Result<Vec<VerifiedTx>, Reject> {
    let known: Vec<_> = transactions.iter().map(|t| pool.get(&Envelope::id(t))).collect();
    let unseen: Vec<_> =
        transactions.iter().zip(&known).filter(|(_, k)| k.is_none()).map(|(t, _)| t.clone()).collect();
    let mut verdicts = envelope::verify(&chain.genesis, &unseen).into_iter();
    known
        .into_iter()
        .enumerate()
        .map(|(i, k)| match k {
            Some(tx) => Ok(tx.clone()),
            None => {
                let verdict = verdicts.next().expect("one verdict for each unseen transaction");
                verdict.map_err(|reason| Reject::Transaction(i, reason))
            }
        })
        .collect()
}
