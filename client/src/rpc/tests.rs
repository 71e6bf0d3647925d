//! A node that lies, over a real connection: whatever it answers that is not proved, or not about what was
//! asked, is refused.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use assent_proto::transaction::*;
use assent_proto::{AccountId, BatchId, CertifiedHeader, Commitment, Day, Leaf, List, Trail as TrailHead};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response};

use super::api::ledger_server::{Ledger, LedgerServer};
use super::*;
use crate::testing::*;

/// What the node answers; tests change it while it runs.
#[derive(Default)]
struct Script {
    evidence: Vec<Bytes>,
    transaction: Option<api::TransactionReply>,
    blocks: Vec<api::BlockEvents>,
    preview: api::PreviewReply,
    explain: api::ExplainReply,
    /// What it was asked last.
    asked: Bytes,
    /// So many calls more find nothing final within the time that a node waits.
    late: u32,
}

impl Script {
    fn in_time(&mut self) -> Result<(), Status> {
        let late = self.late > 0;
        self.late = self.late.saturating_sub(1);
        if late { Err(Status::deadline_exceeded("not final within 30 seconds")) } else { Ok(()) }
    }
}

type Shared = Arc<Mutex<Script>>;
struct Liar(Shared);

#[tonic::async_trait]
impl Ledger for Liar {
    async fn submit(&self, _: Request<api::SubmitRequest>) -> Result<Response<api::SubmitReply>, Status> {
        self.0.lock().unwrap().in_time()?;
        let mut metadata = MetadataMap::new();
        metadata.insert("assent-code", "11".parse().unwrap());
        metadata.insert("assent-name", "Expired".parse().unwrap());
        Err(Status::with_metadata(Code::InvalidArgument, "too late", metadata))
    }
    async fn get_transaction(
        &self,
        _: Request<api::TransactionRequest>,
    ) -> Result<Response<api::TransactionReply>, Status> {
        let mut script = self.0.lock().unwrap();
        script.in_time()?;
        let reply = script.transaction.clone();
        reply.map(Response::new).ok_or_else(|| Status::not_found("none"))
    }
    async fn get_object(
        &self,
        _: Request<api::ObjectRequest>,
    ) -> Result<Response<api::EvidenceReply>, Status> {
        let mut script = self.0.lock().unwrap();
        let evidence =
            if script.evidence.len() > 1 { script.evidence.remove(0) } else { script.evidence[0].clone() };
        Ok(Response::new(api::EvidenceReply { evidence }))
    }
    async fn get_trail(
        &self,
        request: Request<api::ObjectRequest>,
    ) -> Result<Response<api::EvidenceReply>, Status> {
        self.get_object(request).await
    }
    async fn get_block(&self, _: Request<api::BlockRequest>) -> Result<Response<api::BlockReply>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    type SubmitManyStream = tokio_stream::Empty<Result<api::SubmitManyReply, Status>>;
    async fn submit_many(
        &self,
        _: Request<api::SubmitManyRequest>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
    type FollowStream = tokio_stream::Iter<std::vec::IntoIter<Result<api::BlockEvents, Status>>>;
    async fn follow(&self, _: Request<api::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let blocks: Vec<_> = self.0.lock().unwrap().blocks.iter().cloned().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(blocks)))
    }
    async fn get_uses(&self, _: Request<api::UsesRequest>) -> Result<Response<api::UsesReply>, Status> {
        Ok(Response::new(api::UsesReply { body_ids: vec![Bytes::from_static(b"short")] }))
    }
    async fn preview_change(
        &self,
        _: Request<api::PreviewRequest>,
    ) -> Result<Response<api::PreviewReply>, Status> {
        Ok(Response::new(self.0.lock().unwrap().preview.clone()))
    }
    async fn explain(
        &self,
        request: Request<api::ExplainRequest>,
    ) -> Result<Response<api::ExplainReply>, Status> {
        let mut script = self.0.lock().unwrap();
        script.asked = request.into_inner().question;
        Ok(Response::new(script.explain.clone()))
    }
    async fn get_status(&self, _: Request<api::StatusRequest>) -> Result<Response<api::StatusReply>, Status> {
        Ok(Response::new(api::StatusReply { genesis: Bytes::from_static(&[9; 32]), ..Default::default() }))
    }
}

/// Serves on a free port until the test's process ends.
fn serve(script: Shared) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let server = tonic::transport::Server::builder().add_service(LedgerServer::new(Liar(script)));
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    address
}

fn connect(chain: &Chain) -> (Node, Shared) {
    let script = Shared::default();
    let address = serve(script.clone());
    let mut node = Node::connect(&format!("http://{address}"), &chain.genesis).unwrap();
    node.lag_max = Duration::ZERO;
    (node, script)
}

fn new_trail() -> TrailHead {
    ObjectRef::from(account_id(1)).new_trail()
}

fn proof_fails<T>(outcome: Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Proof(_)))
}

fn final_reply(envelope: &Bytes, evidence: Vec<Bytes>) -> api::TransactionReply {
    let status = api::TransactionStatus::Final as i32;
    api::TransactionReply { status, receipt: None, envelope: envelope.clone(), evidence }
}

fn one_leaf(chain: &mut Chain, n: u8) -> (CertifiedHeader, Leaf) {
    let leaf = account_leaf(n, ObjectRef::from(account_id(n)).new_trail());
    (chain.block(&[], leaf.hash()), leaf)
}

#[test]
fn an_object_is_shown_only_with_its_proof() {
    let mut chain = Chain::new();
    let (anchor, leaf) = one_leaf(&mut chain, 1);
    let good = state_evidence(&anchor, &leaf);
    let (mut node, script) = connect(&chain);
    let mut ask = |evidence: Bytes, account: AccountId| {
        script.lock().unwrap().evidence = vec![evidence];
        node.object(account.into())
    };
    assert!(matches!(ask(good.clone(), account_id(1)).unwrap().object, Some(Object::Account(_))));
    assert!(proof_fails(ask(good.clone(), account_id(2))), "it is about another account");
    let mut changed = good.to_vec();
    changed[good.len() / 2] ^= 1;
    assert!(proof_fails(ask(changed.into(), account_id(1))));
    let other = account_leaf(1, TrailHead { length: 7, head: Hash::ZERO });
    assert!(
        proof_fails(ask(state_evidence(&anchor, &other), account_id(1))),
        "the state does not hold it so"
    );
}

#[test]
fn a_node_may_not_go_back_behind_what_it_has_shown() {
    let mut chain = Chain::new();
    let (old, leaf) = one_leaf(&mut chain, 1);
    let new = chain.block(&[], leaf.hash());
    let (mut node, script) = connect(&chain);
    script.lock().unwrap().evidence = vec![state_evidence(&new, &leaf), state_evidence(&old, &leaf)];
    assert_eq!(node.object(leaf.object).unwrap().height, Height(2));
    assert!(proof_fails(node.object(leaf.object)));
    // Behind for a moment is no lie.
    node.lag_max = Duration::from_secs(10);
    script.lock().unwrap().evidence = vec![state_evidence(&old, &leaf), state_evidence(&new, &leaf)];
    assert_eq!(node.object(leaf.object).unwrap().height, Height(2));
}

#[test]
fn a_transaction_is_shown_only_with_its_own_events_in_turn() {
    let mut chain = Chain::new();
    let (body, envelope) = chain.envelope(1);
    let (_, other_envelope) = chain.envelope(2);
    let first = event(&chain, &body, 0, &new_trail());
    let second = event(&chain, &body, 1, &first.links[0].after(&first.leaf()));
    let events = [first, second];
    let anchor = chain.block(&events, Hash::ZERO);
    let proofs: Vec<_> = (0..2).map(|i| event_evidence(&anchor, &events, i, &envelope)).collect();
    let id = body_id(&chain.genesis.hash(), &body.encode());
    let (mut node, script) = connect(&chain);
    let mut ask = |envelope: &Bytes, evidence: Vec<Bytes>| {
        script.lock().unwrap().transaction = Some(final_reply(envelope, evidence));
        node.transaction(id, false)
    };
    let shown = ask(&envelope, proofs.clone()).unwrap().unwrap();
    assert_eq!((shown.events.len(), shown.outcome(), shown.height), (2, "applied", Height(1)));
    assert!(proof_fails(ask(&other_envelope, proofs.clone())), "another transaction");
    assert!(proof_fails(ask(&envelope, vec![])), "no event");
    assert!(proof_fails(ask(&envelope, vec![proofs[1].clone()])), "the first event is missing");
    assert!(proof_fails(ask(&envelope, vec![proofs[0].clone(), proofs[0].clone()])), "one twice");
    let mut bad_signature = envelope.to_vec();
    *bad_signature.last_mut().unwrap() ^= 1;
    assert!(proof_fails(ask(&bad_signature.into(), proofs)));
}

/// A node waits half a minute for finality and says that it was in vain; who asked it goes on waiting.
#[test]
fn what_is_not_final_within_one_call_is_asked_for_again() {
    let mut chain = Chain::new();
    let (body, envelope) = chain.envelope(1);
    let events = [event(&chain, &body, 0, &new_trail())];
    let anchor = chain.block(&events, Hash::ZERO);
    let (mut node, script) = connect(&chain);
    let reply = final_reply(&envelope, vec![event_evidence(&anchor, &events, 0, &envelope)]);
    script.lock().unwrap().transaction = Some(reply);
    script.lock().unwrap().late = 1;
    let id = body_id(&chain.genesis.hash(), &body.encode());
    assert!(node.transaction(id, true).unwrap().is_none(), "not yet, and no failure");
    script.lock().unwrap().late = 3;
    let signed = <Envelope as Message>::decode(&envelope).unwrap();
    assert_eq!(node.submit(&signed).unwrap().0.height, Height(1));
}

#[test]
fn r4_a_list_of_uses_is_complete_or_refused() {
    let mut chain = Chain::new();
    let (body, _) = chain.envelope(1);
    let first = event(&chain, &body, 0, &new_trail());
    let second = event(&chain, &body, 1, &first.links[0].after(&first.leaf()));
    let leaf = account_leaf(1, second.links[0].after(&second.leaf()));
    let events = [first, second];
    let anchor = chain.block(&events, leaf.hash());
    let (mut node, script) = connect(&chain);
    let mut ask = |events: &[Event]| {
        script.lock().unwrap().evidence = vec![trail_evidence(&anchor, &leaf, events)];
        node.trail(leaf.object)
    };
    assert_eq!(ask(&events).unwrap().unwrap().events.len(), 2);
    for part in [&events[..1], &events[1..], &[], &[events[1].clone(), events[0].clone()]] {
        assert!(proof_fails(ask(part)));
    }
}

#[test]
fn r4_a_chain_with_a_block_or_an_event_missing_is_refused() {
    let mut chain = Chain::new();
    let (body, _) = chain.envelope(1);
    let mut blocks = Vec::new();
    for _ in 0..3 {
        let events = [event(&chain, &body, 0, &new_trail())];
        let header = chain.block(&events, Hash::ZERO);
        let events = events.iter().map(Element::write).collect();
        blocks.push(api::BlockEvents { header: Some(header.write()), events, next_validators: None });
    }
    let (mut node, script) = connect(&chain);
    let mut ask = |blocks: Vec<api::BlockEvents>| {
        script.lock().unwrap().blocks = blocks;
        let mut seen = 0;
        node.follow(Height(1), Height(3), |b| {
            seen += b.events.len();
            Ok(true)
        })
        .map(|()| seen)
    };
    assert_eq!(ask(blocks.clone()).unwrap(), 3);
    assert!(proof_fails(ask(blocks[..2].to_vec())), "the last block is missing");
    assert!(proof_fails(ask(vec![blocks[0].clone(), blocks[2].clone()])), "a block is missing");
    assert!(proof_fails(ask(blocks[1..].to_vec())), "the first block is missing");
    let mut silent = blocks.clone();
    silent[1].events.clear();
    assert!(proof_fails(ask(silent)), "an event is missing");
    let mut uncertified = blocks;
    if let Some(c) = uncertified[2].header.as_mut().and_then(|h| h.certificate.as_mut()) {
        c.signatures.pop();
    }
    assert!(proof_fails(ask(uncertified)), "two of four validators are no quorum");
}

/// R29: who votes is followed from the founding on, change by change, in answers and in the chain read in order.
#[test]
fn r29_who_votes_is_followed_and_never_assumed() {
    let mut chain = Chain::new();
    let leaf = account_leaf(1, ObjectRef::from(account_id(1)).new_trail());
    let first = chain.block(&[], leaf.hash());
    let changing = chain.block_without(3, leaf.hash());
    let after = chain.block(&[], leaf.hash());
    let changing_again = chain.block_without(0, leaf.hash());
    let last = chain.block(&[], leaf.hash());
    let links = chain.links.clone();
    let (mut node, script) = connect(&chain);
    let mut ask = |anchor: &CertifiedHeader, links: &[assent_proto::evidence::ValidatorLink]| {
        script.lock().unwrap().evidence = vec![linked_evidence(anchor, &leaf, links)];
        node.object(leaf.object)
    };
    assert!(proof_fails(ask(&last, &[])), "no change is shown");
    assert!(proof_fails(ask(&last, &links[..1])), "one is missing");
    assert!(proof_fails(ask(&last, &links[1..])), "the other is missing");
    assert_eq!(ask(&after, &links[..1]).unwrap().height, Height(3));
    assert_eq!(ask(&last, &links).unwrap().height, Height(5));
    let mut other = links.clone();
    other[0].next = chain.genesis.validators().clone();
    assert!(proof_fails(ask(&last, &other)), "another set than was shown before");

    let (mut node, script) = connect(&chain);
    let block = |header: &CertifiedHeader, next: Option<usize>| api::BlockEvents {
        header: Some(header.write()),
        events: Vec::new(),
        next_validators: next.map(|i| links[i].next.write()),
    };
    let good = vec![
        block(&first, None),
        block(&changing, Some(0)),
        block(&after, None),
        block(&changing_again, Some(1)),
        block(&last, None),
    ];
    let mut follow = |blocks: Vec<api::BlockEvents>, from: u64| {
        script.lock().unwrap().blocks = blocks;
        script.lock().unwrap().evidence = vec![linked_evidence(&last, &leaf, &links)];
        let mut seen = Vec::new();
        node.follow(Height(from), Height(5), |b| {
            seen.push((b.signers.len(), b.next_validators.map(|s| s.validators.len())));
            Ok(true)
        })
        .map(|()| seen)
    };
    let mut silent = good.clone();
    silent[1].next_validators = None;
    assert!(proof_fails(follow(silent, 1)), "the next set is not shown");
    let mut forged = good.clone();
    forged[1].next_validators = Some(links[1].next.write());
    assert!(proof_fails(follow(forged, 1)), "it is not the one that the header names");
    assert_eq!(follow(good, 1).unwrap(), [(3, None), (3, Some(3)), (3, None), (3, Some(2)), (2, None)]);
}

#[test]
fn a_dry_run_is_the_nodes_word_and_known_to_be() {
    let chain = Chain::new();
    let (mut node, script) = connect(&chain);
    let change = Change::Parameters(chain.genesis.parameters().clone());
    let mut ask = |code: u32| {
        script.lock().unwrap().preview = api::PreviewReply { code, name: "?".into(), height: 9 };
        node.preview(&change)
    };
    let good = ask(0).unwrap();
    assert_eq!((good.denial, good.height), (None, Height(9)));
    assert_eq!(ask(Denial::NoLiveQuorum.number()).unwrap().denial, Some(Denial::NoLiveQuorum));
    assert!(proof_fails(ask(9999)), "a code that nobody knows");
}

#[test]
fn an_explanation_is_the_nodes_word_and_the_question_is_signed_by_who_asks() {
    use assent_proto::question::{Question, VerifiedQuestion};
    let chain = Chain::new();
    let (mut node, script) = connect(&chain);
    let key = account_key();
    let proof = RecordProof {
        batch: BatchId(Hash::ZERO),
        record: Record { account: account_id(1), commitment: Commitment(Hash::ZERO), day: Day(1) },
        index: 0,
        path: List::empty(),
    };
    let request = RequestAccess {
        grant: None,
        item: ItemId(Hash::ZERO),
        account: None,
        case: None,
        purpose: Purpose::Treatment,
        action: UseAction::Read,
        output: Output::Raw,
        records: vec![proof].try_into().unwrap(),
        staff: Commitment(Hash::ZERO),
        person: None,
        emergency: None,
        order: None,
    };
    let question = Question {
        chain: chain.genesis.hash().tag(),
        time: TimeMs(1),
        asker: Author::Account(account_id(1)),
        requester: InstitutionId(Hash::ZERO),
        request: Box::new(request),
    };
    let signed = SignedQuestion::sign(&chain.genesis.hash(), &question, &key);
    let mut ask = |reply: api::ExplainReply| {
        script.lock().unwrap().explain = reply;
        node.explain(&signed)
    };
    let plain = api::ExplainReply { height: 9, time: 8, ..Default::default() };
    let permitted = ask(api::ExplainReply { permit_until: 7, uses_left: Some(0), ..plain.clone() }).unwrap();
    assert_eq!((permitted.denial, permitted.rule), (None, None));
    assert_eq!((permitted.permit_until, permitted.uses_left), (Some(TimeMs(7)), Some(0)));
    let code = Denial::GrantRevoked.number();
    let denied = ask(api::ExplainReply { code, rule: 13, rows: vec![9], ..plain.clone() }).unwrap();
    assert_eq!((denied.denial, denied.rule, denied.rows), (Some(Denial::GrantRevoked), Some(13), vec![9]));
    assert_eq!((denied.height, denied.time, denied.permit_until), (Height(9), TimeMs(8), None));
    assert!(proof_fails(ask(api::ExplainReply { code: 9999, ..plain })), "a code that nobody knows");
    let sent = script.lock().unwrap().asked.clone();
    let heard = VerifiedQuestion::verify(&chain.genesis.hash(), &sent).unwrap();
    assert_eq!((heard.question(), heard.signer()), (&question, &key.public()));
}

#[test]
fn refusals_keep_their_code_and_silence_has_its_own() {
    let chain = Chain::new();
    let (mut node, _script) = connect(&chain);
    let (_, bytes) = chain.envelope(1);
    let envelope = <Envelope as Message>::decode(&bytes).unwrap();
    let refused = node.submit(&envelope).err().unwrap();
    assert_eq!((refused.number(), refused.name(), refused.exit()), (11, "Expired", 2));
    assert!(proof_fails(node.status()), "the node is of another chain");
    assert!(proof_fails(node.uses(Hash::ZERO)), "an id of five bytes");

    // Nothing listens on the first port, and none is ever given it by chance.
    let silent = Node::connect("http://127.0.0.1:1", &chain.genesis).err().unwrap();
    assert_eq!(silent.exit(), 5);
}
