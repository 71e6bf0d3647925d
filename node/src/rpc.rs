//! The public interface: the gRPC service of `rpc.proto`, and what else the same port serves.
//!
//! Answers are final blocks and proofs; a refusal is a status whose metadata name its code. Database reads run
//! on blocking threads. Nothing here decides whether a transaction is good: [`crate::intake`] and the pool do.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assent_genesis::Genesis;
use assent_proto::envelope::ENVELOPE_BYTES_MAX;
use assent_proto::evidence::{AbsenceClaim, Claim, Evidence, StateClaim, TRAIL_EVENTS_MAX, TrailClaim};
use assent_proto::field::{Element, Message};
use assent_proto::transaction::Change;
use assent_proto::validators::address;
use assent_proto::{BodyId, Denial, Hash, Height, Invalid, ObjectRef, PublicKey, Receipt, wire};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use crate::api::ledger_server::{Ledger, LedgerServer};
use crate::api::{self, TransactionStatus, Wait};
use crate::clients::{Clients, Refusal};
use crate::explain::{Desk, Unanswered};
use crate::feed::{Feed, Outcome, View};
use crate::intake::{Accepted, Intake};
use crate::metrics::Metrics;
use crate::port::connections;
use crate::progress::Condition;
use crate::reader::{ReadError, Reader};
use crate::runner::Inbox;

/// How long a call waits for finality.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// When a busy node is to be asked again, ms.
const RETRY_AFTER_MS: u64 = 250;
/// The most bytes of a request. An envelope that is somewhat too large is told so by its code.
const REQUEST_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(REQUEST_BYTES_MAX >= 2 * ENVELOPE_BYTES_MAX);
/// The most transactions that are handed in at once.
const MANY_MAX: usize = 256;
/// The most body ids in one answer.
const USES_MAX: usize = 100_000;
/// Streams of events at one time.
const FOLLOWERS_MAX: usize = 256;
/// Blocks of events that a stream holds ready.
const FOLLOW_AHEAD: usize = 4;
/// Calls of one connection at one time.
const CALLS_PER_CONNECTION_MAX: usize = 1024;

/// What never changes while the node runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain.
    pub genesis: Arc<Genesis>,
    /// The node's consensus key: names it in the registry.
    pub key: PublicKey,
}

impl Identity {
    /// The name of the institution that runs this node, by the registry of nodes; empty if it is in none.
    fn institution(&self, view: Option<&View>) -> String {
        let registered =
            view.and_then(|v| Some(assent_ledger::nodes(&v.state).by_key(&self.key)?.institution));
        let founding =
            || self.genesis.nodes().iter().find(|n| n.consensus_key == self.key).map(|n| n.institution);
        let institution = registered.or_else(founding);
        let entry = institution.and_then(|id| self.genesis.institutions().iter().find(|i| i.id == id));
        entry.map(|i| i.name_en.clone()).unwrap_or_default()
    }
}

/// What the service asks.
#[derive(Clone)]
pub struct Service {
    /// Who the node is.
    pub identity: Identity,
    /// Takes transactions.
    pub intake: Intake,
    /// The newest state, and the fates of transactions.
    pub feed: Arc<Feed>,
    /// Final blocks.
    pub reader: Reader,
    /// How the replica is.
    pub inbox: Inbox,
    /// Counters.
    pub metrics: Metrics,
    /// Room for streams of events.
    pub followers: Arc<Semaphore>,
    /// What each client has going on.
    pub(crate) clients: Clients,
    /// Where parties' questions are answered.
    pub(crate) desk: Desk,
    /// Set when the node shuts down: what waits then gives up.
    pub stop: watch::Receiver<bool>,
}

/// Room for streams of events.
pub fn follower_room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(FOLLOWERS_MAX))
}

#[tonic::async_trait]
impl Ledger for Service {
    async fn submit(
        &self,
        request: tonic::Request<api::SubmitRequest>,
    ) -> Result<tonic::Response<api::SubmitReply>, Status> {
        let request = request.into_inner();
        let begun = Instant::now();
        let wait = Wait::try_from(request.wait).map_err(|_| Status::invalid_argument("wait is unknown"))?;
        let Accepted { body, fate } =
            self.intake.submit(request.envelope, wait == Wait::Final).await.map_err(refusal)?;
        let receipt = match fate {
            None => None,
            Some(fate) => {
                let receipt = self.hear(fate).await?;
                Metrics::observe(&self.metrics.finality, begun.elapsed());
                Some(receipt.write())
            }
        };
        Ok(tonic::Response::new(api::SubmitReply { body_id: body.write(), receipt }))
    }

    type SubmitManyStream = Pin<Box<dyn Stream<Item = Result<api::SubmitManyReply, Status>> + Send>>;

    async fn submit_many(
        &self,
        request: tonic::Request<api::SubmitManyRequest>,
    ) -> Result<tonic::Response<Self::SubmitManyStream>, Status> {
        let client = request.remote_addr().map(|a| a.ip());
        let api::SubmitManyRequest { envelopes, wait } = request.into_inner();
        let wait = Wait::try_from(wait).map_err(|_| Status::invalid_argument("wait is unknown"))?;
        if !(1..=MANY_MAX).contains(&envelopes.len()) {
            return Err(Status::invalid_argument(format!("1 to {MANY_MAX} envelopes at once")));
        }
        let more = envelopes.len() as u64 - 1;
        self.clients.more_calls(client, more, Instant::now()).map_err(|refusal| self.exceeded(refusal))?;
        let service = Arc::new(self.clone());
        let one = |(index, envelope)| service.clone().outcome(index, envelope, wait == Wait::Final);
        let outcomes: FuturesUnordered<_> = (0u32..).zip(envelopes).map(one).collect();
        let replies = outcomes.ready_chunks(MANY_MAX).map(|outcomes| Ok(api::SubmitManyReply { outcomes }));
        Ok(tonic::Response::new(Box::pin(replies)))
    }

    async fn get_transaction(
        &self,
        request: tonic::Request<api::TransactionRequest>,
    ) -> Result<tonic::Response<api::TransactionReply>, Status> {
        let request = request.into_inner();
        let body: BodyId = argument(request.body_id, "body_id")?;
        let mut receipt = self.receipt(body).await?;
        if receipt.is_none() && request.wait {
            receipt = Some(self.until_final(body).await?);
        }
        let reply = match receipt {
            Some(receipt) => self.final_transaction(receipt).await?,
            None if self.feed.is_pending(&body) => transaction_reply(TransactionStatus::Pending),
            None => {
                // What an older block holds that is not here yet is not called unknown.
                self.read(Reader::all_are_here).await?;
                transaction_reply(TransactionStatus::Unknown)
            }
        };
        Ok(tonic::Response::new(reply))
    }

    async fn get_object(
        &self,
        request: tonic::Request<api::ObjectRequest>,
    ) -> Result<tonic::Response<api::EvidenceReply>, Status> {
        let object = object(request.into_inner())?;
        let view = self.view()?;
        let claim = match view.state.prove(&object) {
            (Some(leaf), proof) => Claim::State(StateClaim { leaf, proof }),
            (None, proof) => Claim::Absence(AbsenceClaim { object, proof }),
        };
        self.evidence_reply(&view, claim).await
    }

    async fn get_trail(
        &self,
        request: tonic::Request<api::ObjectRequest>,
    ) -> Result<tonic::Response<api::EvidenceReply>, Status> {
        let object = object(request.into_inner())?;
        let view = self.view()?;
        let claim = match view.state.prove(&object) {
            (None, proof) => Claim::Absence(AbsenceClaim { object, proof }),
            (Some(leaf), proof) => {
                let length = leaf.trail.length;
                if length > TRAIL_EVENTS_MAX as u64 {
                    return Err(Status::resource_exhausted(format!(
                        "the trail has {length} events, too many for one answer"
                    )));
                }
                let events = self.read(move |r| r.trail(&object, length)).await?;
                let events = events
                    .try_into()
                    .map_err(|_| Status::internal("a trail is longer than its leaf says"))?;
                Claim::Trail(TrailClaim { leaf, proof, events })
            }
        };
        self.evidence_reply(&view, claim).await
    }

    async fn get_block(
        &self,
        request: tonic::Request<api::BlockRequest>,
    ) -> Result<tonic::Response<api::BlockReply>, Status> {
        let asked = request.into_inner().height;
        let found = self
            .read(move |r| {
                let height = if asked == 0 { r.height()? } else { Height(asked) };
                r.block(height)
            })
            .await?;
        let (block, certificate) =
            found.ok_or_else(|| Status::not_found("there is no final block at this height"))?;
        Ok(tonic::Response::new(api::BlockReply { block, certificate: Some(certificate.write()) }))
    }

    type FollowStream = ReceiverStream<Result<api::BlockEvents, Status>>;

    async fn follow(
        &self,
        request: tonic::Request<api::FollowRequest>,
    ) -> Result<tonic::Response<Self::FollowStream>, Status> {
        let client = request.remote_addr().map(|a| a.ip());
        let api::FollowRequest { from_height, to_height } = request.into_inner();
        if from_height == 0 || (to_height != 0 && to_height < from_height) {
            return Err(Status::invalid_argument(
                "heights run from 1, and to_height is not below from_height",
            ));
        }
        let share = self.clients.stream(client).map_err(|refusal| self.exceeded(refusal))?;
        let room = self.followers.clone().try_acquire_owned();
        let room = room.map_err(|_| busy("too many streams of events", RETRY_AFTER_MS))?;
        let (send, receive) = mpsc::channel(FOLLOW_AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            let last = if to_height == 0 { u64::MAX } else { to_height };
            let end = tokio::select! {
                end = service.feed_follower(from_height, last, &send) => end,
                () = stopped(service.stop.clone()) => Err(Status::unavailable("the node is shutting down")),
            };
            if let Err(status) = end {
                // The follower may have gone, or be too far behind to hear it.
                let _ = send.try_send(Err(status));
            }
            drop((room, share));
        });
        Ok(tonic::Response::new(ReceiverStream::new(receive)))
    }

    async fn get_uses(
        &self,
        request: tonic::Request<api::UsesRequest>,
    ) -> Result<tonic::Response<api::UsesReply>, Status> {
        let id: Hash = argument(request.into_inner().id, "id")?;
        let body_ids = self.read(move |r| r.uses(&id, USES_MAX + 1)).await?;
        if body_ids.len() > USES_MAX {
            return Err(Status::resource_exhausted(format!(
                "more than {USES_MAX} uses, too many for one answer"
            )));
        }
        Ok(tonic::Response::new(api::UsesReply { body_ids }))
    }

    async fn preview_change(
        &self,
        request: tonic::Request<api::PreviewRequest>,
    ) -> Result<tonic::Response<api::PreviewReply>, Status> {
        let change =
            request.into_inner().change.ok_or_else(|| Status::invalid_argument("change is missing"))?;
        let change = Change::read(change, "change").map_err(|e| Status::invalid_argument(e.to_string()))?;
        let view = self.view()?;
        let height = view.certified.header.height.next();
        let denial = assent_ledger::preview(&view.state, height, &change).err();
        Ok(tonic::Response::new(api::PreviewReply {
            code: denial.map_or(0, Denial::number),
            name: denial.map_or_else(String::new, |d| d.name().into()),
            height: height.0,
        }))
    }

    async fn explain(
        &self,
        request: tonic::Request<api::ExplainRequest>,
    ) -> Result<tonic::Response<api::ExplainReply>, Status> {
        let client = request.remote_addr().map(|a| a.ip());
        self.clients.question(client, Instant::now()).map_err(|refusal| self.exceeded(refusal))?;
        let answer = self.desk.answer(self.view()?, request.into_inner().question).await;
        answer.map(tonic::Response::new).map_err(|why| match why {
            Unanswered::Refused(reason) => refusal(reason),
            Unanswered::TooOften(retry) => {
                self.exceeded(Refusal { what: "too many questions of one asker", retry })
            }
            Unanswered::Failed => Status::internal("the node failed; see its log"),
        })
    }

    async fn get_status(
        &self,
        _: tonic::Request<api::StatusRequest>,
    ) -> Result<tonic::Response<api::StatusReply>, Status> {
        let Condition { status, taking, missing, diverged } = self.condition().await?;
        let identity = &self.identity;
        let validator = if status.voting { address(&identity.key).to_string() } else { String::new() };
        Ok(tonic::Response::new(api::StatusReply {
            genesis: identity.genesis.hash().write(),
            validator,
            institution: identity.institution(self.feed.view().as_deref()),
            height: status.height.0,
            block_time: status.time.0,
            round: status.round,
            peers: self.metrics.peers.get() as u32,
            pool_transactions: status.pool_transactions as u32,
            pool_bytes: status.pool_bytes as u64,
            catching_up: status.catching_up,
            version: crate::VERSION.into(),
            state_root: status.state_root.write(),
            waiting_for_quorum: status.waiting_for_quorum,
            connected: status.connected as u32,
            validators: status.validators as u32,
            voting: status.voting,
            passed_over: status.passed_over.iter().map(ToString::to_string).collect(),
            target_height: status.target.0,
            abstaining: status.abstaining.map(|why| why.to_string()).unwrap_or_default(),
            inquiring: status.inquiring,
            admitted_peers: self.metrics.admitted.get() as u32,
            peer_bans: self.metrics.bans.get() as u32,
            taking: taking.map(|t| api::Taking { height: t.height.0, parts: t.parts, of: t.of }),
            missing_blocks: missing,
            diverged,
            protocol: status.rules.version,
            known_protocol: status.rules.known,
            next_protocol: status.rules.next.map_or(0, |(version, _)| version),
            next_protocol_from: status.rules.next.map_or(0, |(_, from)| from.0),
        }))
    }
}

impl Service {
    fn view(&self) -> Result<Arc<View>, Status> {
        self.feed.view().ok_or_else(|| Status::unavailable("there is no final block yet"))
    }

    /// Reads the database on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Status> {
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || read(&reader)).await;
        let answer = answer.map_err(|_| Status::internal("the node failed; see its log"))?;
        answer.map_err(|error| match error {
            ReadError::NotYet(_) => Status::unavailable(error.to_string()),
            error => {
                tracing::error!(%error, "reading for a client failed");
                Status::internal("the node's database failed; see its log")
            }
        })
    }

    /// A claim about a final state, with every change of the validators up to there.
    async fn evidence_reply(
        &self,
        view: &View,
        claim: Claim,
    ) -> Result<tonic::Response<api::EvidenceReply>, Status> {
        let below = view.certified.header.height;
        let links = assent_proto::List::try_from(self.read(move |r| r.links(below)).await?);
        let links =
            links.map_err(|_| Status::internal("more changes of the validators than evidence can cross"))?;
        let evidence = Evidence { anchor: view.certified.clone(), claim, links };
        Ok(tonic::Response::new(api::EvidenceReply { evidence: evidence.encode() }))
    }

    /// What comes of one transaction among several.
    async fn outcome(self: Arc<Self>, index: u32, envelope: Bytes, follows: bool) -> api::SubmitOutcome {
        let begun = Instant::now();
        let mut outcome = api::SubmitOutcome { index, ..Default::default() };
        let refused = match self.intake.submit(envelope, follows).await {
            Err(reason) => reason,
            Ok(Accepted { body, fate }) => {
                outcome.body_id = body.write();
                let Some(fate) = fate else { return outcome };
                match self.outcome_of(fate).await {
                    Ok(Ok(receipt)) => {
                        Metrics::observe(&self.metrics.finality, begun.elapsed());
                        outcome.receipt = Some(receipt.write());
                        return outcome;
                    }
                    Ok(Err(reason)) => reason,
                    // Not within the time that one waits, or the node is shutting down.
                    Err(_) => return outcome,
                }
            }
        };
        outcome.refused = refused.number();
        outcome.refused_name = refused.name().into();
        outcome.retry_after_ms = if refused == Invalid::Busy { RETRY_AFTER_MS as u32 } else { 0 };
        outcome
    }

    async fn receipt(&self, body: BodyId) -> Result<Option<Receipt>, Status> {
        self.read(move |r| r.receipt(&body)).await
    }

    /// Waits for a body's receipt. Hears first and reads then, so that nothing falls between.
    async fn until_final(&self, body: BodyId) -> Result<Receipt, Status> {
        let fate = self.feed.wait(body);
        match self.receipt(body).await? {
            Some(receipt) => Ok(receipt),
            None => self.hear(fate).await,
        }
    }

    async fn hear(&self, fate: oneshot::Receiver<Outcome>) -> Result<Receipt, Status> {
        self.outcome_of(fate).await?.map_err(refusal)
    }

    /// What becomes of a transaction, as long as one waits for it.
    async fn outcome_of(&self, fate: oneshot::Receiver<Outcome>) -> Result<Outcome, Status> {
        let going_down =
            || Status::unavailable("the node is shutting down; the transaction may still become final");
        let late =
            "not final within 30 seconds; it may still become final until it expires: ask for it again";
        tokio::select! {
            outcome = fate => outcome.map_err(|_| going_down()),
            () = tokio::time::sleep(WAIT_MAX) => Err(Status::deadline_exceeded(late)),
            () = stopped(self.stop.clone()) => Err(going_down()),
        }
    }

    async fn final_transaction(&self, receipt: Receipt) -> Result<api::TransactionReply, Status> {
        self.read(move |r| {
            let envelope = r.envelope(receipt.height, receipt.transaction)?;
            let evidence = r.evidence(&receipt, &envelope)?;
            Ok(api::TransactionReply {
                status: TransactionStatus::Final.into(),
                receipt: Some(receipt.write()),
                envelope,
                evidence: evidence.iter().map(Message::encode).collect(),
            })
        })
        .await
    }

    /// Sends block after block as fast as the follower takes them, then each new one.
    async fn feed_follower(
        &self,
        from: u64,
        to: u64,
        send: &mpsc::Sender<Result<api::BlockEvents, Status>>,
    ) -> Result<(), Status> {
        let mut news = self.feed.watch();
        let mut next = Height(from);
        while next.0 <= to {
            let newest = news.borrow_and_update().as_ref().map_or(Height(0), |v| v.certified.header.height);
            if newest < next {
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return Ok(()) },
                    () = send.closed() => return Ok(()),
                }
                continue;
            }
            let block = self.read(move |r| block_events(r, next)).await?;
            if send.send(Ok(block)).await.is_err() {
                return Ok(());
            }
            next = next.next();
        }
        Ok(())
    }

    /// Counts a client that has too much of something, and tells it when to come again.
    fn exceeded(&self, refusal: Refusal) -> Status {
        self.metrics.exceeded(refusal.what);
        busy(refusal.what, u64::try_from(refusal.retry.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    async fn condition(&self) -> Result<Condition, Status> {
        let condition = tokio::time::timeout(Duration::from_secs(5), self.inbox.condition()).await;
        match condition {
            Ok(Ok(condition)) => Ok(condition),
            _ => Err(Status::unavailable(
                "the validator does not answer; it may be catching up or shutting down",
            )),
        }
    }
}

/// Completes when the node shuts down.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is gone when the node is.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn block_events(reader: &Reader, height: Height) -> Result<api::BlockEvents, ReadError> {
    let header = reader.certified(height)?.ok_or(ReadError::Lacks("a header"))?;
    let events = reader.events(height)?.iter().map(Element::write).collect();
    let changes = header.header.next_validators != header.header.validators;
    let link = if changes { reader.links(height.next())?.pop() } else { None };
    let next_validators = link.map(|l| l.next.write());
    Ok(api::BlockEvents { header: Some(header.write()), events, next_validators })
}

fn transaction_reply(status: TransactionStatus) -> api::TransactionReply {
    api::TransactionReply {
        status: status.into(),
        receipt: None,
        envelope: Bytes::new(),
        evidence: Vec::new(),
    }
}

fn argument<T: Element<Wire = Bytes>>(bytes: Bytes, name: &'static str) -> Result<T, Status> {
    T::read(bytes, name).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn object(request: api::ObjectRequest) -> Result<ObjectRef, Status> {
    let object: wire::ObjectRef =
        request.object.ok_or_else(|| Status::invalid_argument("object is missing"))?;
    ObjectRef::read(object, "object").map_err(|e| Status::invalid_argument(e.to_string()))
}

/// A refusal as a status that carries its code.
pub fn refusal(reason: Invalid) -> Status {
    let code = match reason {
        Invalid::Malformed
        | Invalid::NotCanonical
        | Invalid::TooLarge
        | Invalid::OutOfBounds
        | Invalid::WrongChain
        | Invalid::BadKey => Code::InvalidArgument,
        Invalid::MissingSignature
        | Invalid::BadSignature
        | Invalid::UnknownAuthor
        | Invalid::WrongKey
        | Invalid::NotAParty => Code::PermissionDenied,
        Invalid::Expired | Invalid::TooFarAhead | Invalid::NotYetActive => Code::FailedPrecondition,
        Invalid::Replay => Code::AlreadyExists,
        Invalid::Busy => Code::ResourceExhausted,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert("assent-code", reason.number().into());
    metadata.insert("assent-name", tonic::metadata::MetadataValue::from_static(reason.name()));
    if reason == Invalid::Busy {
        metadata.insert("retry-after-ms", RETRY_AFTER_MS.into());
    }
    Status::with_metadata(code, reason.english(), metadata)
}

fn busy(what: &str, retry_after_ms: u64) -> Status {
    let refusal = refusal(Invalid::Busy);
    let mut metadata = refusal.metadata().clone();
    metadata.insert("retry-after-ms", retry_after_ms.into());
    Status::with_metadata(refusal.code(), what, metadata)
}

/// What the routes beside the service need.
#[derive(Clone)]
struct Pages {
    service: Service,
    registry: Arc<Registry>,
}

/// Serves everything on one port until the service's `stop` is set; then lets running calls end.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    registry: Registry,
) -> Result<(), tonic::transport::Error> {
    let stop = service.stop.clone();
    let pages = Pages { service: service.clone(), registry: Arc::new(registry) };
    let limited = service.clone();
    let incoming = connections(listener, service.clients.clone(), service.metrics.clone());
    let ledger = LedgerServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LedgerServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are the build's own");
    let mut routes = Routes::new(ledger).add_service(health_service).add_service(reflection);
    let router = std::mem::take(routes.axum_router_mut())
        .layer(middleware::from_fn(name_oversize))
        .route("/metrics", get(metrics_page).with_state(pages.clone()))
        .route("/health", get(health_page).with_state(pages))
        .layer(middleware::from_fn_with_state(limited, limit_client));
    tonic::transport::Server::builder()
        .accept_http1(true)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, stopped(stop))
        .await
}

/// Serves a client as far as its share goes, whatever it calls.
async fn limit_client(Shared(service): Shared<Service>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<TcpConnectInfo>();
    let client = connection.and_then(|c| c.remote_addr()).map(|a| a.ip());
    match service.clients.call(client, Instant::now()) {
        Ok(_going) => next.run(request).await,
        Err(refusal) => {
            let status = service.exceeded(refusal);
            let grpc = request.headers().get(header::CONTENT_TYPE);
            let grpc = grpc.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
            if grpc { status.into_http() } else { too_many(&status, refusal) }
        }
    }
}

/// The same for who does not speak gRPC.
fn too_many(status: &Status, refusal: Refusal) -> Response {
    let mut response = (StatusCode::TOO_MANY_REQUESTS, status.message().to_owned()).into_response();
    let ms = u64::try_from(refusal.retry.as_millis()).unwrap_or(u64::MAX);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    headers.insert("retry-after-ms", HeaderValue::from(ms.max(1)));
    response
}

/// A request beyond [`REQUEST_BYTES_MAX`] is refused before the service sees it; its refusal gets the code too.
async fn name_oversize(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let oversize = headers.get("grpc-status").is_some_and(|s| s == "11");
    if oversize && !headers.contains_key("assent-code") {
        headers.insert("assent-code", HeaderValue::from(Invalid::TooLarge.number()));
        headers.insert("assent-name", HeaderValue::from_static(Invalid::TooLarge.name()));
    }
    response
}

async fn metrics_page(Shared(pages): Shared<Pages>) -> Response {
    if let Ok(condition) = pages.service.condition().await {
        pages.service.metrics.show(&condition);
    }
    let leaves = pages.service.feed.view().map_or(0, |view| view.state.len());
    pages.service.metrics.state_leaves.set(leaves as u64);
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn health_page(Shared(pages): Shared<Pages>) -> Response {
    match pages.service.condition().await {
        Ok(Condition { status: s, .. }) => axum::Json(serde_json::json!({
            "status": "ok",
            "height": s.height.0,
            "catching_up": s.catching_up,
            "peers": pages.service.metrics.peers.get(),
            "waiting_for_quorum": s.waiting_for_quorum,
        }))
        .into_response(),
        Err(status) => {
            let body = axum::Json(serde_json::json!({ "status": "failed", "error": status.message() }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// Binds the port.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
