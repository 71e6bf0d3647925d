//! Questions whether a request would be permitted, to a real node: its parties are told and nothing is committed;
//! whoever else asks, or asks of what does not exist, hears one and the same answer; and nobody asks without bounds.
#![allow(clippy::unwrap_used, reason = "helpers of tests may stop at once")]

mod support;

use std::time::Duration;

use assent_genesis::devnet::Devnet;
use assent_genesis::{institution_id, testing};
use assent_ledger::testing::{Party, anchor_of, digest, enrol, list, one_use, record, secret};
use assent_node::Config;
use assent_node::api::ledger_client::LedgerClient;
use assent_node::api::{ExplainReply, ExplainRequest, SubmitRequest, Wait};
use assent_node::clients::ClientLimits;
use assent_node::rate::Rate;
use assent_proto::field::Message;
use assent_proto::question::{QUESTION_BYTES_MAX, Question, SignedQuestion};
use assent_proto::transaction::*;
use assent_proto::{Denial, Envelope, GenesisHash, Hash, Invalid, List, ids::*, merkle};
use bytes::Bytes;
use support::*;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// One node of a chain with four institutions; a person at hospital A has granted the insurer two uses of a record.
struct Scene {
    node: Running,
    client: LedgerClient<Channel>,
    devnet: Devnet,
    person: Party,
    grant: GrantId,
    records: Vec<RecordProof>,
    sequence: u64,
    _home: TempDir,
}

impl Scene {
    async fn start(clients: ClientLimits) -> Scene {
        let devnet = testing::devnet(1, 4);
        let home = home(&devnet, 0);
        let node = Running::start_config(Config { clients, ..config(home.path(), &devnet.genesis) }).await;
        let client = node.client().await;
        let person = Party { author: Author::Account(AccountId(Hash::ZERO)), key: secret("person") };
        let grant = GrantId(Hash::ZERO);
        let mut scene =
            Scene { node, client, devnet, person, grant, records: Vec::new(), sequence: 0, _home: home };
        scene.furnish().await;
        scene
    }

    async fn furnish(&mut self) {
        let (bureau, a, insurer) = (self.party("bureau"), self.party("hospital-a"), self.party("insurer"));
        let key = self.person.key.clone();
        let enrolled = self.run(&bureau, Some(&key), enrol(&a, &key)).await;
        self.person.author = Author::Account(AccountId(enrolled.0));
        let (category, level, opening) = (Category::ClaimDocument, Level::Moderate, Opening::Prohibited);
        let register =
            RegisterItem { code: 1, scope: 1, category, level, opening, recipients: List::empty() };
        self.run(&a, None, Action::RegisterItem(register)).await;
        let records = [record(&self.person, 0, 100)];
        let anchored = self.run(&a, None, Action::AnchorRecords(anchor_of(item(), &records, &[]))).await;
        let path = list(merkle::path(&[records[0].leaf()], 0));
        let [record] = records;
        self.records = vec![RecordProof { batch: BatchId(anchored.0), record, index: 0, path }];
        let once = one_use(&insurer, item(), CaseId(digest("none")), now().plus(3_600_000), digest("notice"));
        let terms = Grant { case: None, purpose: Purpose::Treatment, mode: Mode::NTimes, uses: 2, ..once };
        let person = self.person.clone();
        self.grant = GrantId(self.run(&person, None, Action::Grant(Box::new(terms))).await.0);
    }

    fn party(&self, slug: &str) -> Party {
        let made = self.devnet.institutions.iter().find(|i| i.slug == slug).unwrap();
        Party { author: Author::Institution(institution_id(slug)), key: made.operator.clone() }
    }

    async fn submit(
        &mut self,
        by: &Party,
        second: Option<&assent_proto::SecretKey>,
        action: Action,
    ) -> (BodyId, u32) {
        self.sequence += 1;
        let genesis = self.devnet.genesis.hash();
        let expires_at = now().plus(LIFE_MS + self.sequence);
        let body = Body { chain: genesis.tag(), expires_at, author: by.author, action };
        let keys: Vec<_> = std::iter::once(&by.key).chain(second).collect();
        let envelope = Envelope::sign(&genesis, &body, &keys).encode();
        let receipt = make_final(&mut self.client, envelope).await;
        (BodyId(Hash(receipt.body[..].try_into().unwrap())), receipt.code)
    }

    async fn run(&mut self, by: &Party, second: Option<&assent_proto::SecretKey>, action: Action) -> BodyId {
        let (id, code) = self.submit(by, second, action).await;
        assert_eq!(code, 0);
        id
    }

    /// What keeps to the grant.
    fn request(&self) -> RequestAccess {
        RequestAccess {
            grant: Some(self.grant),
            item: item(),
            account: Some(self.person.account()),
            case: None,
            purpose: Purpose::Treatment,
            action: UseAction::Read,
            output: Output::Masked,
            records: list(self.records.clone()),
            staff: Commitment(Hash::ZERO),
            person: None,
            emergency: None,
            order: None,
        }
    }

    /// The insurer would use; somebody asks now.
    fn question(&self, asker: &Party) -> Question {
        Question {
            chain: self.devnet.genesis.hash().tag(),
            time: now(),
            asker: asker.author,
            requester: institution_id("insurer"),
            request: Box::new(self.request()),
        }
    }

    fn signed(&self, question: &Question, key: &assent_proto::SecretKey) -> Bytes {
        SignedQuestion::sign(&self.devnet.genesis.hash(), question, key).encode()
    }

    async fn ask_bytes(&self, question: impl Into<Bytes>) -> Result<ExplainReply, Status> {
        let request = ExplainRequest { question: question.into() };
        self.client.clone().explain(request).await.map(tonic::Response::into_inner)
    }

    async fn ask(&self, asker: &Party) -> Result<ExplainReply, Status> {
        self.ask_bytes(self.signed(&self.question(asker), &asker.key)).await
    }
}

fn item() -> ItemId {
    ItemId::of(1, 1)
}

fn coded(status: &Status) -> Option<Invalid> {
    let number = status.metadata().get("assent-code")?.to_str().ok()?.parse().ok()?;
    let invalid = Invalid::from_number(number)?;
    assert_eq!(status.metadata().get("assent-name").unwrap(), invalid.name());
    Some(invalid)
}

/// All that a refused client can see.
fn seen(status: &Status) -> (Code, String, Vec<(String, String)>) {
    let metadata = status.metadata().clone().into_headers();
    let mut all: Vec<_> = metadata
        .iter()
        .filter(|(name, _)| name.as_str() != "date")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    all.sort();
    (status.code(), status.message().to_owned(), all)
}

/// R7: every party is told the same, asking uses nothing up, and the answer follows what was done.
#[tokio::test(flavor = "multi_thread")]
async fn parties_are_told_and_nothing_is_committed() {
    let mut scene = Scene::start(ClientLimits::default()).await;
    let (insurer, a) = (scene.party("insurer"), scene.party("hospital-a"));
    let height = status_of(&mut scene.client).await.height;
    for asker in [&insurer, &a, &scene.person.clone()] {
        let told = scene.ask(asker).await.unwrap();
        assert_eq!((told.code, told.rule, told.uses_left), (0, 0, Some(1)));
        assert!(told.height > height && told.permit_until > told.time && told.rows.is_empty());
    }
    let use_it = Action::RequestAccess(Box::new(scene.request()));
    for left in [Some(1), Some(0)] {
        assert_eq!(scene.ask(&insurer).await.unwrap().uses_left, left);
        assert_eq!(scene.submit(&insurer, None, use_it.clone()).await.1, 0);
    }
    let told = scene.ask(&insurer).await.unwrap();
    assert_eq!(told.code, Denial::GrantExhausted.number());
    assert!(told.rule > 0 && told.rows == [6, 7, 8] && told.permit_until == 0);
    assert_eq!(scene.submit(&insurer, None, use_it).await.1, told.code, "as it was told");

    let metrics = page(&scene.node.rpc, "/metrics").await;
    for line in
        ["assent_explained_total{code=\"Permitted\"} 5", "assent_explained_total{code=\"GrantExhausted\"} 1"]
    {
        assert!(metrics.lines().any(|l| l == line), "no {line:?} in\n{metrics}");
    }
    assert!(!metrics.contains(&scene.grant.to_string()));
    scene.node.stop().await;
}

/// Whoever is no party cannot tell what exists from what does not.
#[tokio::test(flavor = "multi_thread")]
async fn all_others_hear_one_and_the_same() {
    let mut scene = Scene::start(ClientLimits::default()).await;
    let (bureau, a, b) = (scene.party("bureau"), scene.party("hospital-a"), scene.party("hospital-b"));
    let insurer = scene.party("insurer");
    let key = secret("bystander");
    let enrolled = scene.run(&bureau, Some(&key), enrol(&a, &key)).await;
    let bystander = Party { author: Author::Account(AccountId(enrolled.0)), key };
    let nobody = Party { author: Author::Account(AccountId(digest("nobody"))), key: secret("nobody") };
    let no_house =
        Party { author: Author::Institution(InstitutionId(digest("none"))), key: secret("nobody") };

    let base = scene.question(&insurer);
    let with = |edit: &dyn Fn(&mut Question)| {
        let mut question = base.clone();
        edit(&mut question);
        scene.signed(&question, &insurer.key)
    };
    let of = |asker: &Party| scene.signed(&scene.question(asker), &asker.key);
    let mut flipped = of(&insurer).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let cases: Vec<(&str, Bytes)> = vec![
        ("another institution", of(&b)),
        ("who enrolled her", of(&bureau)),
        ("another person", of(&bystander)),
        ("a person who is none", of(&nobody)),
        ("an institution that is none", of(&no_house)),
        ("a bystander who names herself", {
            let mut question = scene.question(&bystander);
            question.request.account = Some(bystander.account());
            question.request.person = Some(bystander.account());
            scene.signed(&question, &bystander.key)
        }),
        ("another as the requester", {
            let question = Question { requester: b.institution(), ..scene.question(&b) };
            scene.signed(&question, &b.key)
        }),
        ("no such grant", with(&|q| q.request.grant = Some(GrantId(digest("none"))))),
        ("no such item", with(&|q| q.request.item = ItemId(digest("none")))),
        ("no such requester", with(&|q| q.requester = InstitutionId(digest("none")))),
        ("no such second signer", with(&|q| q.request.person = Some(AccountId(digest("none"))))),
        ("no such order", with(&|q| q.request.order = Some(OrderId(digest("none"))))),
        ("another's key", scene.signed(&base, &b.key)),
        ("a key of nobody", scene.signed(&base, &secret("nobody"))),
        ("a false signature", flipped.into()),
    ];
    let mut answers = Vec::new();
    for (what, bytes) in cases {
        let status = scene.ask_bytes(bytes).await.err().expect(what);
        assert_eq!(coded(&status), Some(Invalid::NotAParty), "{what}: {status:?}");
        answers.push((what, seen(&status)));
    }
    for (what, answer) in &answers {
        assert_eq!(*answer, answers[0].1, "{what}");
    }
    assert_eq!(scene.ask(&insurer).await.unwrap().code, 0, "the node goes on");
    scene.node.stop().await;
}

/// What the bytes alone show has codes of its own: they tell nothing of the state.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_of_now_is_refused_by_its_code() {
    let scene = Scene::start(ClientLimits::default()).await;
    let insurer = scene.party("insurer");
    let good = scene.question(&insurer);
    let at = |time: TimeMs| scene.signed(&Question { time, ..good.clone() }, &insurer.key);
    let other = GenesisHash(Hash([8; 32]));
    let foreign = Question { chain: other.tag(), ..good.clone() };
    let bytes = scene.signed(&good, &insurer.key);
    let body = Body {
        chain: good.chain,
        expires_at: now().plus(LIFE_MS),
        author: good.asker,
        action: Action::RequestAccess(good.request.clone()),
    };
    let transaction = Envelope::sign(&scene.devnet.genesis.hash(), &body, &[&insurer.key]).encode();
    let cases: Vec<(&str, Bytes, Invalid)> = vec![
        ("an old one", at(TimeMs(now().0 - 120_000)), Invalid::Expired),
        ("one of the future", at(now().plus(120_000)), Invalid::TooFarAhead),
        (
            "for another chain",
            SignedQuestion::sign(&other, &foreign, &insurer.key).encode(),
            Invalid::WrongChain,
        ),
        ("truncated", bytes.slice(..bytes.len() - 1), Invalid::Malformed),
        ("nothing", Bytes::new(), Invalid::OutOfBounds),
        ("too large", Bytes::from(vec![0; QUESTION_BYTES_MAX + 1]), Invalid::TooLarge),
        ("far too large", Bytes::from(vec![0; 1 << 20]), Invalid::TooLarge),
        ("a transaction", transaction, Invalid::OutOfBounds),
    ];
    for (what, bytes, code) in cases {
        let status = scene.ask_bytes(bytes).await.err().expect(what);
        assert_eq!(coded(&status), Some(code), "{what}: {status:?}");
    }
    // Nor is a question a transaction.
    let submitted = SubmitRequest { envelope: bytes, wait: Wait::Accepted.into() };
    let status = scene.client.clone().submit(submitted).await.err().unwrap();
    assert!(matches!(coded(&status), Some(Invalid::Malformed | Invalid::OutOfBounds)), "{status:?}");
    assert_eq!(scene.ask(&insurer).await.unwrap().code, 0);
    scene.node.stop().await;
}

async fn until_refused(scene: &Scene, asker: &Party) -> u64 {
    for _ in 0..10_000 {
        if let Err(status) = scene.ask(asker).await {
            assert_eq!((status.code(), coded(&status)), (Code::ResourceExhausted, Some(Invalid::Busy)));
            return status.metadata().get("retry-after-ms").unwrap().to_str().unwrap().parse().unwrap();
        }
    }
    panic!("never refused");
}

/// One asker has a rate that is nobody else's, and is told when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn an_asker_beyond_its_rate_is_told_when_to_come_again() {
    let scene = Scene::start(ClientLimits::default()).await;
    let insurer = scene.party("insurer");
    let retry = until_refused(&scene, &insurer).await;
    assert!((1..=200).contains(&retry), "{retry}");
    assert_eq!(scene.ask(&scene.person).await.unwrap().code, 0, "another is served");
    // Who names the insurer without its key takes none of its questions.
    tokio::time::sleep(Duration::from_millis(retry + 1)).await;
    let forged = scene.signed(&scene.question(&insurer), &secret("nobody"));
    for _ in 0..50 {
        assert_eq!(coded(&scene.ask_bytes(forged.clone()).await.err().unwrap()), Some(Invalid::NotAParty));
    }
    assert_eq!(scene.ask(&insurer).await.unwrap().code, 0, "the hint is right");
    scene.node.stop().await;
}

/// And so has one address, whoever asks there.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_beyond_its_rate_is_refused_before_it_is_known_who_asks() {
    let limits = ClientLimits { questions: Rate::new(1, 3), ..ClientLimits::new(10_000, 64, true) };
    let scene = Scene::start(limits).await;
    let (insurer, b) = (scene.party("insurer"), scene.party("hospital-b"));
    let stranger = scene.signed(&scene.question(&b), &b.key);
    let mut codes = Vec::new();
    while codes.last() != Some(&Some(Invalid::Busy)) && codes.len() < 1_000 {
        codes.push(coded(&scene.ask_bytes(stranger.clone()).await.err().unwrap()));
    }
    assert_eq!(codes[..3], [Some(Invalid::NotAParty); 3]);
    assert_eq!(codes.last(), Some(&Some(Invalid::Busy)));
    let retry = until_refused(&scene, &insurer).await;
    assert!((1..=1_000).contains(&retry), "{retry}");
    status_of(&mut scene.client.clone()).await;
    scene.node.stop().await;
}
