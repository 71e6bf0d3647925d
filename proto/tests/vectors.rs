//! Conformance vectors: bytes and ids that must never change for protocol version 1, since old signatures and old
//! evidence depend on them. A change here is a new protocol version, with vectors of its own beside these.

#![allow(clippy::unwrap_used, reason = "what makes the vectors is a test too")]

use assent_proto::block::{BlockId, Header, tx_root};
use assent_proto::envelope::signing_message;
use assent_proto::event::{Event, EventCore, EventKind, Link};
use assent_proto::evidence::{AbsenceClaim, Claim, Evidence, ValidatorLink};
use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::merkle::{self, Mountains};
use assent_proto::state::{ObjectKind, ObjectRef, Parameters, leaf_hash, object_hash};
use assent_proto::transaction::*;
use assent_proto::trie::inner_hash;
use assent_proto::trie::{TrieEnd, TrieProof};
use assent_proto::validators::{Validator, ValidatorSet, VoteKind, proposal_message, vote_message};
use assent_proto::*;

fn h(n: u8) -> Hash {
    Hash([n; 32])
}

fn grant() -> Body {
    Body {
        chain: GenesisHash(h(1)).tag(),
        expires_at: TimeMs(1_790_000_000_000),
        author: Author::Account(AccountId(h(2))),
        action: Action::Grant(Box::new(Grant {
            grantee: InstitutionId(h(3)),
            capacity: Capacity::Own,
            items: vec![ItemId::of(101, 1), ItemId(h(4))].try_into().unwrap(),
            categories: vec![Category::TestResult].try_into().unwrap(),
            data_from: Day(0),
            data_to: Day(20_000),
            case: Some(CaseId(h(5))),
            purpose: Purpose::ClaimsPayment,
            actions: vec![UseAction::Read, UseAction::Copy].try_into().unwrap(),
            output: Output::Raw,
            max_level: Level::High,
            mode: Mode::OneTime,
            uses: 1,
            not_before: TimeMs(0),
            not_after: TimeMs(1_800_000_000_000),
            retention_days: 30,
            onward: false,
            jurisdictions: vec![156].try_into().unwrap(),
            legal_basis: LegalBasis::Consent,
            notice: h(6),
            language: Language::Chinese,
            policy_version: 1,
            delegation: None,
        })),
    }
}

fn header() -> Header {
    Header {
        version: 1,
        genesis: GenesisHash(h(1)),
        height: Height(7),
        parent: BlockId(h(2)),
        time: TimeMs(1_790_000_000_001),
        builder: Address([3; 20]),
        tx_root: h(4),
        body_bytes: 1234,
        events_root: h(5),
        history_root: h(6),
        state_root: h(7),
        validators: h(8),
        next_validators: h(9),
        parent_certificate: h(10),
    }
}

fn event() -> Event {
    let trail = ObjectRef { kind: ObjectKind::Account, id: h(2) };
    Event {
        core: EventCore {
            height: Height(7),
            transaction: 1,
            event: 0,
            time: TimeMs(1_790_000_000_001),
            body: BodyId(h(9)),
            author: Author::Account(AccountId(h(2))),
            action: ActionKind::Grant,
            kind: EventKind::Granted,
            code: 0,
            object: ObjectRef { kind: ObjectKind::Grant, id: h(9) },
            object_hash: h(11),
        },
        links: vec![Link { trail, index: 0, head_before: trail.new_trail().head }].try_into().unwrap(),
    }
}

fn by(action: Action) -> Body {
    Body {
        chain: GenesisHash(h(1)).tag(),
        expires_at: TimeMs(1_790_000_000_000),
        author: Author::Institution(InstitutionId(h(3))),
        action,
    }
}

fn propose(change: Change) -> Body {
    by(Action::Propose(Box::new(Propose { change, until: TimeMs(1_790_000_500_000) })))
}

fn validator_of(key: &SecretKey) -> Validator {
    Validator { algorithm: Algorithm::Ed25519, key: key.public(), power: 1, institution: InstitutionId(h(3)) }
}

fn possession(key: &SecretKey, key_use: KeyUse) -> Signature {
    key.sign(&join_message(&GenesisHash(h(1)), &InstitutionId(h(3)), key_use, &key.public()).0)
}

fn propose_validators() -> Body {
    let key = SecretKey::from_bytes(&[42; 32]);
    propose(Change::Validators(ChangeValidators {
        replaces: h(12),
        validators: vec![validator_of(&key)].try_into().unwrap(),
        from: Height(5000),
        possessions: vec![Possession { key: key.public(), signature: possession(&key, KeyUse::Consensus) }]
            .try_into()
            .unwrap(),
    }))
}

fn propose_nodes() -> Body {
    let (key, network) = (SecretKey::from_bytes(&[42; 32]), SecretKey::from_bytes(&[43; 32]));
    let record =
        NodeRecord { institution: InstitutionId(h(3)), key: key.public(), network_key: network.public() };
    let admission = NodeAdmission {
        record,
        possession: possession(&key, KeyUse::Consensus),
        network_possession: possession(&network, KeyUse::Network),
    };
    propose(Change::Nodes(ChangeNodes {
        admit: vec![admission].try_into().unwrap(),
        remove: vec![PublicKey(h(13))].try_into().unwrap(),
    }))
}

fn propose_parameters() -> Body {
    propose(Change::Parameters(Parameters {
        transaction_life_ms: 1,
        permit_life_ms: 2,
        erasure_deadline_ms: 3,
        block_bytes_max: 4,
        block_transactions_max: 5,
        clock_bound_ms: 6,
        heartbeat_ms: 7,
        equivocation: Consequence::Remove,
        recovery_approvals: 0,
        recovery_delay_ms: 0,
        emergency_permit_life_ms: 0,
        emergency_anchor_ms: 0,
        emergency_review_ms: 0,
        emergency_notice_ms: 0,
    }))
}

fn propose_protocol() -> Body {
    propose(Change::Protocol(ChangeProtocol { version: 2, from: Height(5000) }))
}

fn report() -> ReportEquivocation {
    let (genesis, key) = (GenesisHash(h(1)), SecretKey::from_bytes(&[42; 32]));
    let who = validator_of(&key).address();
    let say = |block: Option<BlockId>| {
        let message = vote_message(&genesis, VoteKind::Precommit, Height(7), 2, block.as_ref(), &who);
        Statement { block, valid_round: None, signature: key.sign(&message.0) }
    };
    let said = [say(Some(BlockId(h(14)))), say(None)];
    ReportEquivocation::of(key.public(), Height(7), 2, StatementKind::Precommit, said).unwrap()
}

fn reporting() -> Body {
    by(Action::ReportEquivocation(Box::new(report())))
}

/// Its signatures are none; it is here for its bytes.
fn linked_evidence() -> Evidence {
    let certificate =
        CommitCertificate { height: Height(7), round: 1, block: header().id(), signatures: List::empty() };
    let anchor = CertifiedHeader { header: header(), certificate };
    let set = ValidatorSet {
        validators: vec![validator_of(&SecretKey::from_bytes(&[42; 32]))].try_into().unwrap(),
    };
    let object = ObjectRef { kind: ObjectKind::Proposal, id: h(9) };
    let proof = TrieProof { steps: List::empty(), end: TrieEnd::Empty };
    Evidence {
        claim: Claim::Absence(AbsenceClaim { object, proof }),
        links: vec![ValidatorLink { certified: anchor.clone(), next: set }].try_into().unwrap(),
        anchor,
    }
}

fn vectors() -> String {
    let genesis = GenesisHash(h(1));
    let key = SecretKey::from_bytes(&[42; 32]);
    let body = grant();
    let envelope = Envelope::sign(&genesis, &body, &[&key]).encode();
    let object = ObjectRef { kind: ObjectKind::Grant, id: h(9) };
    let content = object_hash(&object, b"content");
    let mut mountains = Mountains::default();
    (1..=5).for_each(|n| mountains.push(&h(n)));
    let validator = Validator {
        algorithm: Algorithm::Ed25519,
        key: key.public(),
        power: 1,
        institution: InstitutionId(h(3)),
    };
    let set = ValidatorSet { validators: vec![validator.clone()].try_into().unwrap() };
    let address = validator.address();
    let block = header().id();
    let joining = |key_use| join_message(&genesis, &InstitutionId(h(3)), key_use, &key.public());
    let vote = |kind, id: Option<&BlockId>| vote_message(&genesis, kind, Height(7), 2, id, &address);
    let lines = [
        ("grant body", hex::encode(body.encode())),
        ("body id", body_id(&genesis, &body.encode()).to_string()),
        (
            "signing message",
            signing_message(&genesis, Algorithm::Ed25519, &key.public(), &body.encode()).to_string(),
        ),
        ("envelope", hex::encode(&envelope)),
        ("envelope id", Envelope::id(&envelope).to_string()),
        ("item id", ItemId::of(101, 1).to_string()),
        (
            "record leaf",
            Record { account: AccountId(h(1)), commitment: Commitment(h(2)), day: Day(3) }.leaf().to_string(),
        ),
        ("commitment", hash::commit(&[7; 32], "record", b"content").to_string()),
        ("header", hex::encode(header().encode())),
        ("block id", block.to_string()),
        ("transaction root", tx_root(&[envelope]).to_string()),
        ("merkle root of five", merkle::root(&[1, 2, 3, 4, 5].map(h)).to_string()),
        ("mountains of five", mountains.root().to_string()),
        ("event", hex::encode(event().encode())),
        ("event leaf", event().leaf().to_string()),
        ("trail after it", event().links[0].after(&event().leaf()).head.to_string()),
        ("object hash", content.to_string()),
        ("trie leaf", leaf_hash(&object, &content, &object.new_trail()).to_string()),
        ("trie path", object.path().to_string()),
        ("trie inner", inner_hash(13, &h(0xff).prefix(13), &h(1), &h(2)).to_string()),
        ("validator address", address.to_string()),
        ("validator set", set.hash().to_string()),
        ("prevote nil", vote(VoteKind::Prevote, None).to_string()),
        ("precommit", vote(VoteKind::Precommit, Some(&block)).to_string()),
        (
            "proposal without a valid round",
            proposal_message(&genesis, Height(7), 2, None, &block, &address).to_string(),
        ),
        (
            "proposal with valid round 0",
            proposal_message(&genesis, Height(7), 2, Some(0), &block, &address).to_string(),
        ),
        ("joining consensus key", joining(KeyUse::Consensus).to_string()),
        ("joining network key", joining(KeyUse::Network).to_string()),
        ("proposed validators body", hex::encode(propose_validators().encode())),
        ("proposed nodes body", hex::encode(propose_nodes().encode())),
        ("proposed parameters body", hex::encode(propose_parameters().encode())),
        ("proposed protocol body", hex::encode(propose_protocol().encode())),
        ("approval body", hex::encode(by(Action::Approve(Approve { proposal: ProposalId(h(9)) })).encode())),
        ("report body", hex::encode(reporting().encode())),
        ("misconduct id", report().id().to_string()),
        ("evidence with a change of the validators", hex::encode(linked_evidence().encode())),
    ];
    lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[test]
fn bytes_and_ids_of_version_1_stay() {
    let (is, should) = (vectors(), include_str!("vectors.txt"));
    for (is, should) in is.lines().zip(should.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(is.len(), should.len(), "all of them:\n{is}");
}

#[test]
fn the_vectors_decode_to_what_they_were_made_of() {
    let find = |name: &str| {
        let line = include_str!("vectors.txt").lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        hex::decode(line.unwrap()).unwrap()
    };
    assert_eq!(Body::decode(&find("grant body")), Ok(grant()));
    assert_eq!(<Header as Message>::decode(&find("header")), Ok(header()));
    assert_eq!(<Event as Message>::decode(&find("event")), Ok(event()));
    let tx = envelope::verify(&GenesisHash(h(1)), &[find("envelope").into()]).remove(0);
    assert_eq!(tx.map(|tx| tx.body().clone()), Ok(grant()));
    assert_eq!(
        <Evidence as Message>::decode(&find("evidence with a change of the validators")),
        Ok(linked_evidence())
    );
    for (name, body) in [
        ("proposed validators body", propose_validators()),
        ("proposed nodes body", propose_nodes()),
        ("proposed parameters body", propose_parameters()),
        ("proposed protocol body", propose_protocol()),
        ("report body", reporting()),
    ] {
        assert_eq!(Body::decode(&find(name)), Ok(body.clone()), "{name}");
        // The signatures inside hold, or the transaction would be none.
        let signed = Envelope::sign(&GenesisHash(h(1)), &body, &[&SecretKey::from_bytes(&[42; 32])]);
        let tx = envelope::verify(&GenesisHash(h(1)), &[signed.encode()]).remove(0);
        assert_eq!(tx.map(|tx| tx.body().clone()), Ok(body), "{name}");
    }
}
