//! The way to a node, and the reason why no node need be trusted: every reply is verified against the genesis
//! file, and checked to be about what was asked, before anything of it is handed on. Synchronous: one call
//! after the other, on a runtime of its own.

use std::future::Future;
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_proto::code::Denial;
use assent_proto::epochs::Epochs;
use assent_proto::event::EventKind;
use assent_proto::evidence::{Claim, Evidence};
use assent_proto::field::{Element, Message};
use assent_proto::question::SignedQuestion;
use assent_proto::state::{
    Account, Institution, Item, Nodes, Object, ObjectRef, Parameters, Policy, Protocol, Turns, Validators,
};
use assent_proto::transaction::Change;
use assent_proto::{
    AccountId, Address, BlockId, Body, BodyId, Envelope, Event, GenesisHash, Hash, Height, InstitutionId,
    ItemId, TimeMs, ValidatorSet, VerifiedTx, envelope, merkle,
};
use prost::bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::error::Failure;

/// The messages and the client that `rpc.proto` gives.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod api {
    tonic::include_proto!("assent.v1");
}

use api::ledger_client::LedgerClient;

/// The most bytes of one reply: a trail claim of the greatest size.
const REPLY_BYTES_MAX: usize = 130 << 20;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take; a node answers a wait after 30 s at the latest.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may lag behind what it has shown before.
const LAG_MAX: Duration = Duration::from_secs(10);
/// How long a submitted transaction is waited for.
const FINAL_TIMEOUT: Duration = Duration::from_secs(120);

/// How much of a node's own words is shown.
const MESSAGE_CHARS_MAX: usize = 500;

/// A connection to one node, and what is believed: the genesis file beforehand, and each change of the
/// validators once it is verified.
pub struct Node {
    runtime: tokio::runtime::Runtime,
    client: LedgerClient<Channel>,
    epochs: Epochs,
    /// The highest height that this node has proved to us.
    floor: Height,
    lag_max: Duration,
}

/// An object as of a final block, or that there is none.
pub struct Seen {
    /// The object.
    pub object: Option<Object>,
    /// As of this height.
    pub height: Height,
    /// And this block time.
    pub time: TimeMs,
    /// The proof.
    pub evidence: Bytes,
}

/// All events of an object as of a final block.
pub struct Trail {
    /// The object's events, first to last.
    pub events: Vec<Event>,
    /// Complete to this height.
    pub height: Height,
    /// Its block time.
    pub time: TimeMs,
    /// The proof.
    pub evidence: Bytes,
}

/// A final transaction: its signed bytes, and its events with their proofs.
pub struct Final {
    /// The transaction, its signatures verified.
    pub tx: VerifiedTx,
    /// Its events, in order.
    pub events: Vec<Event>,
    /// What each event's object was after it, where the node said.
    pub objects: Vec<Option<Object>>,
    /// The proof of each event.
    pub evidence: Vec<Bytes>,
    /// In this block.
    pub height: Height,
    /// At this block time.
    pub time: TimeMs,
}

impl Final {
    /// The denial, if the rules said no.
    pub fn denial(&self) -> Option<u32> {
        self.events.iter().find(|e| e.core.kind == EventKind::Denied).map(|e| e.core.code)
    }

    /// `applied`, `permitted` or `denied`.
    pub fn outcome(&self) -> &'static str {
        match self.denial() {
            Some(_) => "denied",
            None if self.events.iter().any(|e| e.core.kind == EventKind::Permitted) => "permitted",
            None => "applied",
        }
    }

    /// The body.
    pub fn body(&self) -> &Body {
        self.tx.body()
    }
}

/// The name of a denial's number; the number where this build does not know it.
pub fn denial_name(code: u32) -> String {
    Denial::from_number(code).map_or_else(|| code.to_string(), |d| d.name().to_owned())
}

/// All events of one final block, proved to be all.
pub struct BlockView {
    /// The block.
    pub id: BlockId,
    /// The block below.
    pub parent: BlockId,
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: TimeMs,
    /// The validators that certified it, as far as this node has their signatures.
    pub signers: Vec<Address>,
    /// The validators that vote on the next one, where they are others than those that voted on this.
    pub next_validators: Option<ValidatorSet>,
    /// Its events.
    pub events: Vec<Event>,
}

/// What a node says of a change before it is proposed. It is the node's word: nothing proves it.
pub struct Preview {
    /// The rule that would refuse it, and none if it could be decided.
    pub denial: Option<Denial>,
    /// In the block of this height.
    pub height: Height,
}

/// What a node says would become of a request. It is the node's word: nothing proves it.
pub struct Explained {
    /// The rule's code; none if it would be permitted.
    pub denial: Option<Denial>,
    /// The rule's number, as the node's version counts them.
    pub rule: Option<u32>,
    /// Rows of the requirements that it follows.
    pub rows: Vec<u32>,
    /// In the block of this height.
    pub height: Height,
    /// At this time.
    pub time: TimeMs,
    /// Until when the permit could be released on.
    pub permit_until: Option<TimeMs>,
    /// Of a grant that counts its uses, how many would be left.
    pub uses_left: Option<u32>,
}

/// A part of the state that is there from the founding on, proved as of a block.
pub struct Proved<T> {
    /// The part.
    pub value: T,
    /// As of this height.
    pub height: Height,
    /// And this block time.
    pub time: TimeMs,
}

impl Node {
    /// Connects.
    pub fn connect(url: &str, genesis: &Genesis) -> Result<Node, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::local("Runtime", e.to_string()))?;
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|e| {
                Failure::local(
                    "BadUrl",
                    format!("{url}: {e}; a node's address looks like http://127.0.0.1:26651"),
                )
            })?
            .connect_timeout(CONNECT_TIMEOUT);
        let channel = runtime
            .block_on(endpoint.connect())
            .map_err(|e| Failure::Unreachable(format!("{url}: {}", innermost(&e))))?;
        let client = LedgerClient::new(channel).max_decoding_message_size(REPLY_BYTES_MAX);
        let epochs = Epochs::new(genesis.trust());
        Ok(Node { runtime, client, epochs, floor: Height(0), lag_max: LAG_MAX })
    }

    fn call<T>(&self, reply: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        self.runtime
            .block_on(async { tokio::time::timeout(CALL_TIMEOUT, reply).await })
            .map_err(|_| Failure::Unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))?
            .map(Response::into_inner)
            .map_err(|s| refusal(&s))
    }

    /// A call that waits for finality; `None` if the node waited for as long as it does, and in vain.
    fn call_and_wait<T>(
        &self,
        reply: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, Failure> {
        let in_time = async {
            match reply.await {
                Err(status) if status.code() == Code::DeadlineExceeded => Ok(Response::new(None)),
                other => other.map(|reply| Response::new(Some(reply.into_inner()))),
            }
        };
        self.call(in_time)
    }

    fn genesis(&self) -> &GenesisHash {
        &self.epochs.trust().genesis
    }

    /// Verifies a piece of evidence; a node that shows less than it has shown is not believed.
    fn check(&mut self, bytes: &[u8]) -> Result<Evidence, Failure> {
        Ok(self.epochs.check(bytes)?.0)
    }

    /// Asks again until the answer is not older than what the node has shown before.
    fn current(
        &mut self,
        mut ask: impl FnMut(&mut Node) -> Result<Bytes, Failure>,
    ) -> Result<(Evidence, Bytes), Failure> {
        let begun = Instant::now();
        loop {
            let bytes = ask(self)?;
            let evidence = self.check(&bytes)?;
            let height = evidence.anchor.header.height;
            if height >= self.floor {
                self.floor = height;
                return Ok((evidence, bytes));
            }
            if begun.elapsed() > self.lag_max {
                let message =
                    format!("the node answers as of block {height} and has shown block {}", self.floor);
                return Err(Failure::Proof(message));
            }
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
        }
    }

    /// An object as of the newest final block.
    pub fn object(&mut self, object: ObjectRef) -> Result<Seen, Failure> {
        let (evidence, bytes) = self.current(|node| {
            let mut client = node.client.clone();
            let request = api::ObjectRequest { object: Some(object.write()) };
            Ok(node.call(client.get_object(request))?.evidence)
        })?;
        let header = &evidence.anchor.header;
        let found = match &evidence.claim {
            Claim::State(c) if c.leaf.object == object => Some(Object::decode(object.kind, &c.leaf.content)?),
            Claim::Absence(c) if c.object == object => None,
            _ => return Err(other_answer("object", &object.id)),
        };
        Ok(Seen { object: found, height: header.height, time: header.time, evidence: bytes })
    }

    /// All events of an object as of the newest final block; `None` if there is no such object.
    pub fn trail(&mut self, object: ObjectRef) -> Result<Option<Trail>, Failure> {
        let (evidence, bytes) = self.current(|node| {
            let mut client = node.client.clone();
            let request = api::ObjectRequest { object: Some(object.write()) };
            Ok(node.call(client.get_trail(request))?.evidence)
        })?;
        let (height, time) = (evidence.anchor.header.height, evidence.anchor.header.time);
        match evidence.claim {
            Claim::Trail(c) if c.leaf.object == object => {
                Ok(Some(Trail { events: c.events.into_vec(), height, time, evidence: bytes }))
            }
            Claim::Absence(c) if c.object == object => Ok(None),
            _ => Err(other_answer("trail", &object.id)),
        }
    }

    /// A final transaction; `None` while it is unknown or pending. With `wait`, the node answers when it is
    /// final or after 30 s.
    pub fn transaction(&mut self, id: BodyId, wait: bool) -> Result<Option<Final>, Failure> {
        let mut client = self.client.clone();
        let request = api::TransactionRequest { body_id: id.write(), wait };
        let reply = self.call_and_wait(client.get_transaction(request))?;
        let Some(reply) = reply.filter(|r| r.status == api::TransactionStatus::Final as i32) else {
            return Ok(None);
        };
        let tx = envelope::verify(self.genesis(), std::slice::from_ref(&reply.envelope)).remove(0);
        let tx = tx.map_err(|e| Failure::Proof(format!("the transaction's bytes: {e}")))?;
        if tx.body_id() != id {
            return Err(other_answer("transaction", &id.0));
        }
        self.final_of(tx, reply.evidence).map(Some)
    }

    /// Checks that the evidence is of this transaction's events, one after the other in one block.
    fn final_of(&mut self, tx: VerifiedTx, evidence: Vec<Bytes>) -> Result<Final, Failure> {
        let (mut events, mut objects, mut place) = (Vec::<Event>::new(), Vec::new(), None);
        for bytes in &evidence {
            let checked = self.check(bytes)?;
            let Claim::Event(claim) = checked.claim else {
                return Err(other_answer("event", &tx.body_id().0));
            };
            let core = &claim.event.core;
            let at = (core.height, core.transaction, core.time);
            let in_turn = core.event as usize == events.len() && *place.get_or_insert(at) == at;
            if core.body != tx.body_id() || core.author != tx.body().author || !in_turn {
                return Err(other_answer("event", &tx.body_id().0));
            }
            let object = claim.content.as_ref().map(|c| Object::decode(core.object.kind, c)).transpose()?;
            objects.push(object);
            events.push(claim.event);
        }
        let (height, _, time) =
            place.ok_or_else(|| Failure::Proof("a final transaction has no event".into()))?;
        self.floor = self.floor.max(height);
        Ok(Final { tx, events, objects, evidence, height, time })
    }

    /// Submits a signed transaction and waits until it is final; gives it with the seconds it took.
    pub fn submit(&mut self, envelope: &Envelope) -> Result<(Final, f64), Failure> {
        let begun = Instant::now();
        let id = assent_proto::transaction::body_id(self.genesis(), &envelope.body);
        let mut client = self.client.clone();
        let request = api::SubmitRequest { envelope: envelope.encode(), wait: api::Wait::Final as i32 };
        self.call_and_wait(client.submit(request))?;
        while begun.elapsed() < FINAL_TIMEOUT {
            if let Some(done) = self.transaction(id, true)? {
                return Ok((done, begun.elapsed().as_secs_f64()));
            }
        }
        Err(Failure::Unreachable(format!(
            "{id} was accepted, but is not final after {} s",
            FINAL_TIMEOUT.as_secs()
        )))
    }

    /// Transactions that used a record, permit or product, as far as this node's index says: the list has no
    /// proof of its own, each transaction has.
    pub fn uses(&mut self, id: Hash) -> Result<Vec<BodyId>, Failure> {
        let mut client = self.client.clone();
        let reply = self.call(client.get_uses(api::UsesRequest { id: id.write() }))?;
        Ok(reply.body_ids.into_iter().map(|b| BodyId::read(b, "body_ids")).collect::<Result<_, _>>()?)
    }

    /// How the node says it is. Nothing here is proved but that it is of our chain, if it tells the truth.
    pub fn status(&mut self) -> Result<api::StatusReply, Failure> {
        let mut client = self.client.clone();
        let status = self.call(client.get_status(api::StatusRequest {}))?;
        if status.genesis != self.genesis().write() {
            return Err(Failure::Proof("the node is of another chain".into()));
        }
        Ok(status)
    }

    /// Whether a change could be decided in the next block, as the node says.
    pub fn preview(&mut self, change: &Change) -> Result<Preview, Failure> {
        let mut client = self.client.clone();
        let reply = self.call(client.preview_change(api::PreviewRequest { change: Some(change.write()) }))?;
        Ok(Preview { denial: told_denial(reply.code)?, height: Height(reply.height) })
    }

    /// What would become of a request, as the node tells a party to it.
    pub fn explain(&mut self, question: &SignedQuestion) -> Result<Explained, Failure> {
        let mut client = self.client.clone();
        let request = api::ExplainRequest { question: question.encode() };
        let reply = self.call(client.explain(request))?;
        let denial = told_denial(reply.code)?;
        Ok(Explained {
            denial,
            rule: Some(reply.rule).filter(|rule| *rule != 0),
            rows: reply.rows,
            height: Height(reply.height),
            time: TimeMs(reply.time),
            permit_until: denial.is_none().then_some(TimeMs(reply.permit_until)),
            uses_left: reply.uses_left,
        })
    }

    /// Who votes, is to vote, and voted.
    pub fn validators(&mut self) -> Result<Proved<Validators>, Failure> {
        self.founded(ObjectRef::VALIDATORS, |o| if let Object::Validators(v) = o { Some(v) } else { None })
    }

    /// Who may connect.
    pub fn nodes(&mut self) -> Result<Proved<Nodes>, Failure> {
        self.founded(ObjectRef::NODES, |o| if let Object::Nodes(n) = o { Some(n) } else { None })
    }

    /// Who is passed over.
    pub fn turns(&mut self) -> Result<Proved<Turns>, Failure> {
        self.founded(ObjectRef::TURNS, |o| if let Object::Turns(t) = o { Some(t) } else { None })
    }

    /// The bounds in force.
    pub fn parameters(&mut self) -> Result<Proved<Parameters>, Failure> {
        self.founded(ObjectRef::PARAMETERS, |o| if let Object::Parameters(p) = o { Some(p) } else { None })
    }

    /// The policy in force.
    pub fn policy(&mut self) -> Result<Proved<Policy>, Failure> {
        self.founded(ObjectRef::POLICY, |o| if let Object::Policy(p) = o { Some(p) } else { None })
    }

    /// The version of the rules in force, and the one that is decided; the oldest until one was decided.
    pub fn protocol(&mut self) -> Result<Protocol, Failure> {
        match self.object(ObjectRef::PROTOCOL)?.object {
            Some(Object::Protocol(p)) => Ok(p),
            Some(_) => Err(other_answer("protocol", &ObjectRef::PROTOCOL.id)),
            None => Ok(Protocol::default()),
        }
    }

    /// An institution, if there is such a one.
    pub fn institution(&mut self, id: InstitutionId) -> Result<Option<Institution>, Failure> {
        match self.object(id.into())?.object {
            Some(Object::Institution(i)) => Ok(Some(i)),
            Some(_) => Err(other_answer("institution", &id.0)),
            None => Ok(None),
        }
    }

    /// A catalogue item, if there is such a one.
    pub fn item(&mut self, id: ItemId) -> Result<Option<Item>, Failure> {
        match self.object(id.into())?.object {
            Some(Object::Item(i)) => Ok(Some(i)),
            Some(_) => Err(other_answer("item", &id.0)),
            None => Ok(None),
        }
    }

    /// A person's account, if there is such a one, as of a block time.
    pub fn account(&mut self, id: AccountId) -> Result<Option<(Account, TimeMs)>, Failure> {
        let seen = self.object(id.into())?;
        match seen.object {
            Some(Object::Account(a)) => Ok(Some((a, seen.time))),
            Some(_) => Err(other_answer("account", &id.0)),
            None => Ok(None),
        }
    }

    fn founded<T>(
        &mut self,
        object: ObjectRef,
        part: impl Fn(Object) -> Option<T>,
    ) -> Result<Proved<T>, Failure> {
        let seen = self.object(object)?;
        let value = seen.object.and_then(part).ok_or_else(|| {
            Failure::Proof("the state lacks what it holds from the founding on: is the genesis file of this build's format?".into())
        })?;
        Ok(Proved { value, height: seen.height, time: seen.time })
    }

    /// Every block from `from` to `to` (0 for without end), each verified, handed to `each` in order without
    /// a gap; it stops when `each` says `false`.
    pub fn follow(
        &mut self,
        from: Height,
        to: Height,
        mut each: impl FnMut(BlockView) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        if from > Height(1) {
            // Who votes there is known once all changes up to now are; from block 1 on the blocks tell.
            self.validators()?;
        }
        let Node { runtime, client, epochs, .. } = self;
        let (genesis, mut client) = (epochs.trust().genesis, client.clone());
        let request = api::FollowRequest { from_height: from.0, to_height: to.0 };
        runtime.block_on(async {
            let mut stream = client.follow(request).await.map_err(|s| refusal(&s))?.into_inner();
            let (mut next, mut below) = (from, (from == Height(1)).then_some(BlockId(genesis.0)));
            while let Some(block) = stream.next().await {
                let view = verify_block(block.map_err(|s| refusal(&s))?, epochs)?;
                if view.height != next || below.is_some_and(|b| b != view.parent) {
                    return Err(Failure::Proof(format!(
                        "block {} does not follow on block {}",
                        view.height,
                        next.0 - 1
                    )));
                }
                (next, below) = (next.next(), Some(view.id));
                if !each(view)? || next.0 == to.0 + 1 {
                    return Ok(());
                }
            }
            match to.0 {
                0 => Err(Failure::Unreachable("the node ended the stream".into())),
                _ => Err(Failure::Proof(format!("the node left out blocks {next} to {to}"))),
            }
        })
    }
}

/// Whether the header is final and the events are all of its block's.
fn verify_block(block: api::BlockEvents, epochs: &mut Epochs) -> Result<BlockView, Failure> {
    let wire = block.header.ok_or_else(|| Failure::Proof("a block without a header".into()))?;
    let certified = assent_proto::CertifiedHeader::read(wire, "header")?;
    let shown = block.next_validators.map(|w| ValidatorSet::read(w, "next_validators")).transpose()?;
    epochs.header(&certified, shown.as_ref())?;
    let header = &certified.header;
    let events: Vec<_> =
        block.events.into_iter().map(|e| Event::read(e, "events")).collect::<Result<_, _>>()?;
    let leaves: Vec<_> = events.iter().map(Event::leaf).collect();
    let theirs = |e: &Event| e.core.height == header.height && e.core.time == header.time;
    if merkle::root(&leaves) != header.events_root || !events.iter().all(theirs) {
        return Err(Failure::Proof(format!("the events shown are not those of block {}", header.height)));
    }
    let set = epochs.at(header.height);
    let signed = certified.certificate.signatures.iter().map(|s| s.validator as usize);
    Ok(BlockView {
        id: header.id(),
        parent: header.parent,
        height: header.height,
        time: header.time,
        signers: signed.filter_map(|i| set.validators.get(i)).map(|v| v.address()).collect(),
        next_validators: shown.filter(|_| header.next_validators != header.validators),
        events,
    })
}

/// A denial that a node tells of without a proof.
fn told_denial(code: u32) -> Result<Option<Denial>, Failure> {
    match code {
        0 => Ok(None),
        code => Denial::from_number(code).map(Some).ok_or_else(|| {
            Failure::Proof(format!("the node refuses with code {code}, which this build does not know"))
        }),
    }
}

fn other_answer(what: &str, id: &Hash) -> Failure {
    Failure::Proof(format!("the node answered about another {what} than {id}"))
}

/// What a gRPC status means: a coded refusal, or that there is no talking to the node.
fn refusal(status: &Status) -> Failure {
    let text = |key: &str| status.metadata().get(key).and_then(|v| v.to_str().ok());
    let message: String = status.message().chars().take(MESSAGE_CHARS_MAX).collect();
    if let (Some(number), Some(name)) =
        (text("assent-code").and_then(|n| n.parse().ok()), text("assent-name"))
    {
        return Failure::Refused { number, name: name.chars().take(40).collect(), message };
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            Failure::Unreachable(format!("{:?}: {message}", status.code()))
        }
        code => Failure::Refused { number: 0, name: format!("{code:?}"), message },
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
