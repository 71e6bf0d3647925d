//! From what the storage holds to a running validator: nothing is believed that can be computed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use assent_consensus::{Consensus, Timeouts};
use assent_genesis::Genesis;
use assent_ledger::{BlockContext, ParentTurns, ReplayWindow, State, apply};
use assent_proto::block::PROTOCOL_NEWEST;
use assent_proto::envelope::{Envelope, verify};
use assent_proto::field::Message;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::transaction::body_id;
use assent_proto::{Block, Body, BodyId, GenesisHash, Header, Height, SecretKey, TimeMs};

use crate::backfill::Backfill;
use crate::catchup::CatchUp;
use crate::divergence::Recent;
use crate::execute::{Chain, Head};
use crate::inquiry::Inquiry;
use crate::parts::Bodies;
use crate::pool::Pool;
use crate::replica::{Fault, Output, Replica};
use crate::snapshot::Snapshots;
use crate::storage::{Storage, Tip, stored_state};
use crate::voting::Voting;

impl<S: Storage> Replica<S> {
    /// Starts from what the storage holds: the founding state, or the newest committed block. It votes at the
    /// heights at which its key is in the set of validators, and follows at the others.
    pub fn open(
        now: TimeMs,
        genesis: Genesis,
        key: Option<SecretKey>,
        storage: S,
    ) -> Result<(Self, Vec<Output>), Fault> {
        Replica::open_knowing(PROTOCOL_NEWEST, now, genesis, key, storage)
    }

    /// The same as if the program knew protocol versions up to `known` alone: how a program behaves that is older
    /// than its chain can be rehearsed before there is such a chain.
    pub fn open_knowing(
        known: u32,
        now: TimeMs,
        genesis: Genesis,
        key: Option<SecretKey>,
        mut storage: S,
    ) -> Result<(Self, Vec<Output>), Fault> {
        let chain = Chain { genesis: genesis.hash() };
        let (head, founding) = match storage.tip()? {
            None => (Head::founding(&genesis), genesis.leaves()),
            Some(tip) => (restore(&genesis, tip, &mut storage)?, Vec::new()),
        };
        let mut replica = Replica {
            bodies: restore_bodies(&mut storage, head.height.next())?,
            key: key.as_ref().map(SecretKey::public),
            consensus: Consensus::new(chain.genesis, key, Timeouts::default()),
            catch_up: CatchUp::default(),
            backfill: Backfill::new(storage.gaps()?),
            snapshots: Snapshots::new(genesis.clone()),
            pool: Pool::new(genesis.institutions().len()),
            resumes: !storage.log_read()?.is_empty(),
            storage,
            chain,
            known: known.min(PROTOCOL_NEWEST),
            outdated: None,
            founding,
            head,
            now,
            gathers_until: now,
            awaiting_body: false,
            work: VecDeque::new(),
            out: Vec::new(),
            seen: BTreeMap::new(),
            early: BTreeMap::new(),
            candidates: BTreeMap::new(),
            abstaining: None,
            recent: Recent::default(),
            case: None,
            inquiry: Inquiry::default(),
            contradicted: BTreeSet::new(),
        };
        replica.check_known()?;
        replica.consensus.committed(replica.head.height);
        replica.know_voters();
        replica.follow_nodes();
        let outputs = replica.settle()?;
        Ok((replica, outputs))
    }
}

/// The head as the stored tip and leaves make it, if they agree.
pub(crate) fn restore<S: Storage>(genesis: &Genesis, tip: Tip, storage: &mut S) -> Result<Head, Fault> {
    let header = tip.certified.header;
    let (height, given) = (header.height, genesis.hash());
    if header.genesis != given {
        return Err(Fault::OtherGenesis { stored: header.genesis, given });
    }
    let state = stored_state(storage)?;
    if state.root() != header.state_root {
        return Err(Fault::DamagedState { height, stored: state.root(), header: header.state_root });
    }
    let state =
        if planted(Mutation::ApplyTwice) { applied_again(storage, &given, &header, state)? } else { state };
    if tip.mountains.count() != height.0 {
        return Err(Fault::DamagedBlock { height, what: "the history does not count as many blocks" });
    }
    Ok(Head {
        height,
        id: header.id(),
        time: header.time,
        own: Voting::at(&state, height),
        next: Voting::at(&state, height.next()),
        parameters: assent_ledger::parameters(&state),
        protocol: assent_ledger::protocol(&state),
        window: restore_window(storage, &given, height, header.time, &state)?,
        state,
        mountains: tip.mountains,
        certificate: Some(tip.certified.certificate),
    })
}

/// The bodies that may not come again: of all blocks so young that one of their transactions may not have
/// expired yet.
fn restore_window<S: Storage>(
    storage: &mut S,
    genesis: &GenesisHash,
    tip: Height,
    now: TimeMs,
    state: &State,
) -> Result<ReplayWindow, Fault> {
    let life = assent_ledger::parameters(state).transaction_life_ms;
    let mut window = ReplayWindow::new();
    let mut height = tip;
    while height > Height(0) {
        let damaged = |what| Fault::DamagedBlock { height, what };
        let (bytes, _) = storage.block(height)?.ok_or(damaged("it is missing"))?;
        let block = Block::decode(&bytes).map_err(|_| damaged("it cannot be decoded"))?;
        if block.header.time.plus(life) < now {
            break;
        }
        for envelope in &block.transactions {
            let (body, expires_at) =
                identify(genesis, envelope).ok_or(damaged("a transaction cannot be decoded"))?;
            window.remember(body, expires_at);
        }
        height = height.previous().expect("above 0");
    }
    window.advance(now);
    Ok(window)
}

/// A committed transaction's body id and expiry; its signatures were verified before it was committed.
fn identify(genesis: &GenesisHash, envelope: &[u8]) -> Option<(BodyId, TimeMs)> {
    let envelope = Envelope::decode(envelope).ok()?;
    let body = Body::decode(&envelope.body).ok()?;
    Some((body_id(genesis, &envelope.body), body.expires_at))
}

/// Bodies of the undecided height: our own must be proposed again as they were, and others may be decided.
fn restore_bodies<S: Storage>(storage: &mut S, height: Height) -> Result<Bodies, Fault> {
    let mut bodies = Bodies::default();
    for (round, bytes) in storage.proposals(height)? {
        let block = Block::decode(&bytes)
            .map_err(|_| Fault::DamagedBlock { height, what: "a proposal cannot be decoded" })?;
        bodies.put(block.header.id(), round, bytes, block, true);
    }
    Ok(bodies)
}

/// For [`Mutation::ApplyTwice`] alone.
fn applied_again<S: Storage>(
    storage: &mut S,
    genesis: &GenesisHash,
    header: &Header,
    state: State,
) -> Result<State, Fault> {
    let Some((bytes, _)) = storage.block(header.height)? else { return Ok(state) };
    let Ok(block) = Block::decode(&bytes) else { return Ok(state) };
    let txs: Vec<_> = verify(genesis, &block.transactions).into_iter().flatten().collect();
    let context = BlockContext { height: header.height, time: header.time };
    let again = apply(&state, &ReplayWindow::new(), context, &ParentTurns::default(), &txs);
    Ok(again.map_or(state, |applied| applied.state))
}
