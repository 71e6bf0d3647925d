//! The public interface of a real node: every bad input gets its code and the node goes on; every answer is
//! evidence that the genesis file alone verifies (R29).
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use assent_node::Config;
use assent_node::api::ledger_client::LedgerClient;
use assent_node::api::{
    BlockRequest, FollowRequest, ObjectRequest, SubmitManyRequest, SubmitOutcome, SubmitRequest,
    TransactionRequest, TransactionStatus, UsesRequest, Wait,
};
use assent_node::clients::ClientLimits;
use assent_proto::envelope::ENVELOPE_BYTES_MAX;
use assent_proto::evidence::{Claim, Evidence};
use assent_proto::field::{Element, Message};
use assent_proto::{
    Author, Block, BlockId, BodyId, CertifiedHeader, Envelope, GenesisHash, Hash, InstitutionId, Invalid,
    ItemId, ObjectRef, SecretKey, TimeMs, merkle, wire,
};
use bytes::Bytes;
use support::*;
use tonic::transport::Channel;
use tonic::{Code, Status};

fn submit(envelope: impl Into<Bytes>, wait: Wait) -> SubmitRequest {
    SubmitRequest { envelope: envelope.into(), wait: wait.into() }
}

/// The code that a refusal carries.
fn coded(status: &Status) -> Option<Invalid> {
    let number = status.metadata().get("assent-code")?.to_str().ok()?.parse().ok()?;
    let invalid = Invalid::from_number(number)?;
    assert_eq!(status.metadata().get("assent-name").unwrap(), invalid.name());
    Some(invalid)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_code_and_the_node_goes_on() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let envelope = good(&devnet, 1);
    let first = client.submit(submit(envelope.clone(), Wait::Final)).await.unwrap().into_inner();
    assert_eq!(first.receipt.as_ref().unwrap().code, 0);

    for (what, bytes, expected) in bad_inputs(&devnet, &envelope) {
        for wait in [Wait::Accepted, Wait::Final] {
            let status = client.submit(submit(bytes.clone(), wait)).await.err().expect(what);
            assert_eq!(coded(&status), Some(expected), "{what}: {status:?}");
        }
    }
    let far_too_large = vec![0; 1 << 20];
    let status = client.submit(submit(far_too_large, Wait::Accepted)).await.err().unwrap();
    assert_eq!(coded(&status), Some(Invalid::TooLarge), "an RPC body over the limit: {status:?}");
    let no_wait = SubmitRequest { envelope: good(&devnet, 3), wait: 77 };
    assert_eq!(client.submit(no_wait).await.err().unwrap().code(), Code::InvalidArgument);

    let next = client.submit(submit(good(&devnet, 2), Wait::Final)).await.unwrap().into_inner();
    assert!(next.receipt.unwrap().height > first.receipt.unwrap().height, "the node goes on");
    node.stop().await;
}

/// Of many at once each has its own answer, whatever the others are.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_have_each_their_own_answer() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let first = good(&devnet, 1);
    client.submit(submit(first.clone(), Wait::Final)).await.unwrap();
    let bad = bad_inputs(&devnet, &first);
    let expected: Vec<_> = bad.iter().map(|(_, _, invalid)| Some(*invalid)).chain([None; 40]).collect();
    let codes = 2..42;
    let envelopes = bad.into_iter().map(|(_, bytes, _)| bytes).chain(codes.map(|code| good(&devnet, code)));
    let request = SubmitManyRequest { envelopes: envelopes.collect(), wait: Wait::Final.into() };
    let outcomes = all_outcomes(&mut client, request.clone()).await;
    let refused: Vec<_> = outcomes.iter().map(|o| Invalid::from_number(o.refused)).collect();
    assert_eq!(refused, expected);
    for (o, expected) in outcomes.iter().zip(&expected) {
        assert_eq!(o.refused_name, expected.map_or("", Invalid::name));
        let receipt = o.receipt.as_ref().map(|r| (r.body.clone(), r.code));
        assert_eq!(receipt, expected.is_none().then(|| (o.body_id.clone(), 0)), "envelope {}", o.index);
    }
    // Once more: what is final is a replay, and nothing is waited for.
    let again = all_outcomes(&mut client, request.clone()).await;
    let replays = again.iter().filter(|o| o.refused == Invalid::Replay.number()).count();
    assert_eq!(replays, 41, "the first one too");

    for count in [0, 257] {
        let envelopes = vec![good(&devnet, 50); count];
        let request = SubmitManyRequest { envelopes, ..request.clone() };
        let status = client.submit_many(request).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{count} at once");
    }
    node.stop().await;
}

/// Who knows what somebody asks for and hands it in under another signature keeps nobody from it, and from hearing of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_body_under_a_wrong_signature_changes_nothing_for_the_right_one() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let stranger = SecretKey::from_bytes(&[77; 32]);
    let soon = now().plus(LIFE_MS);
    let both = |code| {
        let body = register(&devnet, code, soon);
        [&stranger, operator(&devnet)]
            .map(|key| Envelope::sign(&devnet.genesis.hash(), &body, &[key]).encode())
    };
    let mut envelopes = Vec::new();
    for code in 0..20 {
        let [wrong, right] = both(code);
        envelopes.extend(if code % 2 == 0 { [wrong, right] } else { [right, wrong] });
    }
    let request = SubmitManyRequest { envelopes, wait: Wait::Final.into() };
    for o in all_outcomes(&mut client, request).await {
        let code = o.index / 2;
        if (o.index % 2 == 1) == (code % 2 == 0) {
            assert_eq!((o.refused, o.receipt.map(|r| r.code)), (0, Some(0)), "the right one of {code}");
        } else {
            // Behind the right one it says nothing new, so it is taken for it.
            assert!(code % 2 == 1 || o.refused == Invalid::WrongKey.number(), "the wrong one of {code}");
        }
    }
    node.stop().await;
}

/// The outcomes in the order of their envelopes, one for each.
async fn all_outcomes(client: &mut LedgerClient<Channel>, request: SubmitManyRequest) -> Vec<SubmitOutcome> {
    let count = request.envelopes.len() as u32;
    let mut replies = client.submit_many(request).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        outcomes.extend(reply.outcomes);
    }
    outcomes.sort_by_key(|o| o.index);
    assert!(outcomes.iter().map(|o| o.index).eq(0..count));
    outcomes
}

fn bad_inputs(devnet: &assent_genesis::devnet::Devnet, good: &Bytes) -> Vec<(&'static str, Bytes, Invalid)> {
    let genesis = devnet.genesis.hash();
    let soon = now().plus(LIFE_MS);
    let key = operator(devnet);
    let body = register(devnet, 999, soon);
    let other_chain = GenesisHash(Hash([8; 32]));
    let mut named_other = body.clone();
    named_other.chain = other_chain.tag();
    let mut nobody = body.clone();
    nobody.author = Author::Institution(InstitutionId(Hash([5; 32])));
    let stranger = SecretKey::from_bytes(&[77; 32]);
    let sealed = |body: &assent_proto::Body, key: &SecretKey| Envelope::sign(&genesis, body, &[key]).encode();
    let mut flipped = sealed(&body, key).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut unknown_field = good.to_vec();
    unknown_field.extend([0x78, 0x01]);
    vec![
        ("nothing", Bytes::new(), Invalid::MissingSignature),
        ("garbage", Bytes::from(vec![0xff; 100]), Invalid::Malformed),
        ("truncated", good.slice(..good.len() - 1), Invalid::Malformed),
        ("oversized", Bytes::from(vec![0; ENVELOPE_BYTES_MAX + 1]), Invalid::TooLarge),
        ("fields out of order", out_of_order(good), Invalid::NotCanonical),
        ("an unknown field", unknown_field.into(), Invalid::NotCanonical),
        ("an unknown enum number", unknown_category(devnet, soon), Invalid::OutOfBounds),
        (
            "for another chain",
            Envelope::sign(&other_chain, &named_other, &[key]).encode(),
            Invalid::WrongChain,
        ),
        (
            "signed for another chain",
            Envelope::sign(&other_chain, &body, &[key]).encode(),
            Invalid::BadSignature,
        ),
        ("a flipped bit in the signature", flipped.into(), Invalid::BadSignature),
        ("an unknown author", sealed(&nobody, key), Invalid::UnknownAuthor),
        ("another's key", sealed(&body, &stranger), Invalid::WrongKey),
        ("expired", seal(devnet, &register(devnet, 9, TimeMs(now().0 - 60_000))), Invalid::Expired),
        ("too far ahead", seal(devnet, &register(devnet, 9, now().plus(86_400_000))), Invalid::TooFarAhead),
        ("a replay", good.clone(), Invalid::Replay),
    ]
}

/// The same fields, the signatures before the body: protobuf reads it, but it is not the one encoding.
fn out_of_order(good: &Bytes) -> Bytes {
    let wire = <wire::Envelope as prost::Message>::decode(good.clone()).unwrap();
    let part = |body, signatures| prost::Message::encode_to_vec(&wire::Envelope { body, signatures });
    [part(Bytes::new(), wire.signatures), part(wire.body, Vec::new())].concat().into()
}

fn unknown_category(devnet: &assent_genesis::devnet::Devnet, expires_at: TimeMs) -> Bytes {
    let mut body = register(devnet, 9, expires_at).write();
    let Some(wire::body::Action::RegisterItem(item)) = &mut body.action else {
        panic!("an item is registered")
    };
    item.category = 99;
    let body = Bytes::from(prost::Message::encode_to_vec(&body));
    let entry = assent_proto::envelope::SignatureEntry::sign(&devnet.genesis.hash(), operator(devnet), &body);
    let envelope = wire::Envelope { body, signatures: vec![entry.write()] };
    prost::Message::encode_to_vec(&envelope).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_evidence_that_the_genesis_file_verifies() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let trust = devnet.genesis.trust();
    let check = |bytes: &Bytes| Evidence::check(bytes, &trust).unwrap().0;

    let envelope = good(&devnet, 42);
    let reply = client.submit(submit(envelope.clone(), Wait::Final)).await.unwrap().into_inner();
    let receipt = reply.receipt.unwrap();
    assert_eq!((receipt.code, &receipt.body), (0, &reply.body_id));

    let tx = TransactionRequest { body_id: reply.body_id.clone(), wait: false };
    let tx = client.get_transaction(tx).await.unwrap().into_inner();
    assert!(tx.status() == TransactionStatus::Final);
    assert_eq!(tx.envelope, envelope);
    assert_eq!(tx.evidence.len(), receipt.events as usize);
    let event = check(&tx.evidence[0]);
    let Claim::Event(claim) = &event.claim else { panic!("an event is claimed") };
    assert_eq!(claim.envelope.as_ref(), Some(&envelope));
    assert!(claim.content.is_some(), "the item has not changed since");
    // R29: a flipped byte anywhere is refused.
    for i in (0..tx.evidence[0].len()).step_by(7) {
        let mut bad = tx.evidence[0].to_vec();
        bad[i] ^= 1;
        assert!(Evidence::check(&bad, &trust).is_err(), "byte {i}");
    }

    let item = ObjectRef::from(ItemId::of(42, 370_600));
    let asked = |object: ObjectRef| ObjectRequest { object: Some(object.write()) };
    let state = client.get_object(asked(item)).await.unwrap().into_inner();
    let Claim::State(state) = check(&state.evidence).claim else { panic!("the item is there") };
    assert_eq!(Some(&state.leaf.content), claim.content.as_ref());
    let none = client.get_object(asked(ItemId::of(43, 370_600).into())).await.unwrap().into_inner();
    assert!(matches!(check(&none.evidence).claim, Claim::Absence(_)));
    let trail = client.get_trail(asked(item)).await.unwrap().into_inner();
    let Claim::Trail(trail) = check(&trail.evidence).claim else { panic!("the item has a trail") };
    assert_eq!(trail.events.iter().collect::<Vec<_>>(), [&claim.event]);

    let unknown = TransactionRequest { body_id: Bytes::from(vec![1; 32]), wait: false };
    let unknown = client.get_transaction(unknown).await.unwrap().into_inner();
    assert!(unknown.status() == TransactionStatus::Unknown);
    let uses = client.get_uses(UsesRequest { id: Bytes::from(vec![1; 32]) }).await.unwrap().into_inner();
    assert!(uses.body_ids.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_out_of_shape_are_refused() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let short = || Bytes::from_static(b"short");
    let tx = client.get_transaction(TransactionRequest { body_id: short(), wait: true }).await;
    assert_eq!(tx.err().unwrap().code(), Code::InvalidArgument);
    let object = client.get_object(ObjectRequest { object: None }).await;
    assert_eq!(object.err().unwrap().code(), Code::InvalidArgument);
    let kind = wire::ObjectRef { kind: 99, id: Bytes::from(vec![0; 32]) };
    let object = client.get_trail(ObjectRequest { object: Some(kind) }).await;
    assert_eq!(object.err().unwrap().code(), Code::InvalidArgument);
    assert_eq!(
        client.get_uses(UsesRequest { id: short() }).await.err().unwrap().code(),
        Code::InvalidArgument
    );
    let follow = client.follow(FollowRequest { from_height: 0, to_height: 0 }).await;
    assert_eq!(follow.err().unwrap().code(), Code::InvalidArgument);
    let block = client.get_block(BlockRequest { height: u64::MAX }).await;
    assert_eq!(block.err().unwrap().code(), Code::NotFound);
    node.stop().await;
}

/// R4: a follower sees every block's events under its certified root, from the first block on and then live.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_event_and_then_the_new_ones() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    for code in 1..=3 {
        client.submit(submit(good(&devnet, code), Wait::Final)).await.unwrap();
    }
    let follow = FollowRequest { from_height: 1, to_height: 0 };
    let mut stream = client.clone().follow(follow).await.unwrap().into_inner();
    let last = client.submit(submit(good(&devnet, 4), Wait::Final)).await.unwrap().into_inner();
    let last = BodyId::read(last.body_id, "body").unwrap();
    let trust = devnet.genesis.trust();
    let mut bodies = Vec::new();
    let mut parent = BlockId(devnet.genesis.hash().0);
    while !bodies.contains(&last) {
        let block = stream.message().await.unwrap().unwrap();
        let header = CertifiedHeader::read(block.header.unwrap(), "header").unwrap();
        assent_proto::evidence::verify_header(&header, &trust, &trust.validators).unwrap();
        assert_eq!(header.header.parent, parent, "no block is left out");
        parent = header.header.id();
        let events: Vec<assent_proto::Event> =
            block.events.into_iter().map(|e| Element::read(e, "event").unwrap()).collect();
        let leaves: Vec<_> = events.iter().map(assent_proto::Event::leaf).collect();
        assert_eq!(merkle::root(&leaves), header.header.events_root, "no event is left out");
        bodies.extend(events.iter().map(|e| e.core.body));
    }
    assert_eq!(bodies.len(), 4);

    let newest = client.get_block(BlockRequest { height: 0 }).await.unwrap().into_inner();
    let block = <Block as Message>::decode(&newest.block).unwrap();
    let certificate = Element::read(newest.certificate.unwrap(), "certificate").unwrap();
    let certified = CertifiedHeader { header: block.header, certificate };
    assent_proto::evidence::verify_header(&certified, &trust, &trust.validators).unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_goes_on_where_it_was() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let first = client.submit(submit(good(&devnet, 1), Wait::Final)).await.unwrap().into_inner();
    let before = status_of(&mut client).await;
    drop(client);
    node.stop().await;

    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    let after = status_of(&mut client).await;
    assert!(after.height >= before.height);
    assert!(after.voting && !after.waiting_for_quorum && after.target_height >= after.height);
    assert_eq!((after.validators, after.connected, after.admitted_peers), (1, 0, 0));
    assert_eq!(after.institution, devnet.genesis.institution("bureau").unwrap().name_en);
    let known = TransactionRequest { body_id: first.body_id, wait: false };
    let known = client.get_transaction(known).await.unwrap().into_inner();
    assert!(known.status() == TransactionStatus::Final);
    let replay = client.submit(submit(known.envelope, Wait::Final)).await.err().unwrap();
    assert_eq!(coded(&replay), Some(Invalid::Replay), "the replay window survives a restart");
    let next = client.submit(submit(good(&devnet, 2), Wait::Final)).await.unwrap().into_inner();
    assert!(next.receipt.unwrap().height > first.receipt.unwrap().height);
    node.stop().await;
}

/// Metrics, health and the gRPC health service share the port.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_served_on_the_same_port() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let node = Running::start(home.path(), &devnet.genesis).await;
    let mut client = node.client().await;
    client.submit(submit(good(&devnet, 1), Wait::Final)).await.unwrap();
    client.submit(submit(Bytes::from(vec![0xff; 9]), Wait::Final)).await.err().unwrap();
    let metrics = page(&node.rpc, "/metrics").await;
    for line in
        ["assent_transactions_total 1", "assent_rejected_total{code=\"Malformed\"} 1", "assent_peers 0"]
    {
        assert!(metrics.lines().any(|l| l == line), "no {line:?} in\n{metrics}");
    }
    let begun = Instant::now();
    let mut health = page(&node.rpc, "/health").await;
    // A validator that does not answer at once is not well.
    while health.starts_with("HTTP/1.1 503") && begun.elapsed() < PATIENCE {
        health = page(&node.rpc, "/health").await;
    }
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"status\":\"ok\""), "{health}");
    let channel = tonic::transport::Endpoint::from_shared(node.rpc.clone()).unwrap().connect().await.unwrap();
    let mut grpc = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = tonic_health::pb::HealthCheckRequest { service: "assent.v1.Ledger".into() };
    let answer = grpc.check(asked).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    node.stop().await;
}

fn retry_after_ms(status: &Status) -> u64 {
    assert_eq!((status.code(), coded(status)), (Code::ResourceExhausted, Some(Invalid::Busy)), "{status:?}");
    status.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse().unwrap()
}

/// A client that calls too often is refused with a hint that is right; after it, it is served again.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_beyond_its_rate_is_told_when_to_come_again() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let clients = ClientLimits::new(2, 64, true);
    let node = Running::start_config(Config { clients, ..config(home.path(), &devnet.genesis) }).await;
    let mut client = node.client().await;
    let nothing = || UsesRequest { id: Bytes::from(vec![1; 32]) };
    let refused = async |client: &mut LedgerClient<Channel>| {
        for _ in 0..1_000 {
            if let Err(status) = client.get_uses(nothing()).await {
                return status;
            }
        }
        panic!("never refused");
    };
    let retry = retry_after_ms(&refused(&mut client).await);
    assert!((1..=500).contains(&retry), "{retry}");
    tokio::time::sleep(Duration::from_millis(retry + 1)).await;
    client.get_uses(nothing()).await.expect("the hint is right");

    // A machine that is busy between two calls may have let the next one be served again.
    let begun = Instant::now();
    let page = loop {
        retry_after_ms(&refused(&mut client).await);
        let page = page(&node.rpc, "/health").await;
        if page.contains("retry-after") || begun.elapsed() > PATIENCE {
            break page;
        }
    };
    assert!(page.starts_with("HTTP/1.1 429") && page.contains("retry-after: 1"), "{page}");
    assert!(page.contains("retry-after-ms: "), "{page}");
    node.stop().await;
}

/// Streams of events are refused one by one, and connections beyond a client's share closed at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_share_of_streams_and_connections() {
    let devnet = alone();
    let home = home(&devnet, 0);
    let clients = ClientLimits { streams: 2, ..ClientLimits::new(1_000, 3, true) };
    let node = Running::start_config(Config { clients, ..config(home.path(), &devnet.genesis) }).await;
    let mut client = node.client().await;
    let follow = || FollowRequest { from_height: 1, to_height: 0 };
    let mut streams = vec![client.follow(follow()).await.unwrap(), client.follow(follow()).await.unwrap()];
    retry_after_ms(&client.follow(follow()).await.err().unwrap());
    streams.pop();
    let begun = Instant::now();
    while let Err(status) = client.follow(follow()).await {
        retry_after_ms(&status);
        assert!(begun.elapsed() < PATIENCE, "its room is free again");
    }

    use tokio::io::AsyncReadExt;
    let host = node.rpc.strip_prefix("http://").unwrap();
    let mut open = Vec::new();
    // One is the client's own; whoever is let in is not answered before it asks.
    for _ in 0..2 {
        open.push(tokio::net::TcpStream::connect(host).await.unwrap());
    }
    let mut refused = tokio::net::TcpStream::connect(host).await.unwrap();
    let mut byte = [0];
    let closed = tokio::time::timeout(PATIENCE, refused.read(&mut byte)).await;
    assert!(matches!(closed.expect("closed at once"), Ok(0) | Err(_)));
    drop(open);
    let uses = client.get_uses(UsesRequest { id: Bytes::from(vec![1; 32]) }).await;
    uses.expect("its first connection goes on");
    node.stop().await;
}
