//! Conformance vectors of the actions and changes that came with the whole decision: beside those of version 1,
//! whose bytes they leave as they are.

#![allow(clippy::unwrap_used, reason = "what makes the vectors is a test too")]

use assent_proto::field::Message;
use assent_proto::keys::Algorithm;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::*;

fn h(n: u8) -> Hash {
    Hash([n; 32])
}

fn list<T, const MAX: usize>(elements: Vec<T>) -> List<T, MAX> {
    elements.try_into().unwrap()
}

fn record() -> RecordProof {
    let record = Record { account: AccountId(h(2)), commitment: Commitment(h(3)), day: Day(20_000) };
    RecordProof { batch: BatchId(h(4)), record, index: 1, path: list(vec![h(5)]) }
}

fn operator() -> OperatorKey {
    let key = SecretKey::from_bytes(&[42; 32]).public();
    OperatorKey { algorithm: Algorithm::Ed25519, key, not_before: TimeMs(1), not_after: TimeMs(2) }
}

fn propose(change: Change) -> Action {
    Action::Propose(Box::new(Propose { change, until: TimeMs(1_790_000_500_000) }))
}

fn institution() -> ChangeInstitution {
    let key = SecretKey::from_bytes(&[42; 32]);
    let institution = InstitutionId(h(3));
    let message = join_message(&GenesisHash(h(1)), &institution, KeyUse::Operator, &key.public());
    ChangeInstitution {
        institution,
        standing: Standing::Active,
        record: Some(InstitutionRecord {
            roles: list(vec![Role::Hospital]),
            keys: list(vec![operator()]),
            encryption_key: h(6),
            max_level: Level::High,
            jurisdiction: 156,
            rostered_until: Some(TimeMs(3)),
        }),
        possessions: list(vec![Possession { key: key.public(), signature: key.sign(&message.0) }]),
    }
}

fn policy() -> Policy {
    let prohibition = |purpose, item, category| Prohibition { purpose, item, category };
    Policy {
        version: 2,
        rules: list(vec![PurposeRule {
            purpose: Purpose::EmergencyTreatment,
            max_level: Level::High,
            needs_case: false,
            needs_settlement: false,
        }]),
        prohibited: list(vec![
            prohibition(Some(Purpose::Marketing), None, None),
            prohibition(None, Some(ItemId(h(7))), Some(Category::Prescription)),
        ]),
        committee: Committee { roles: list(vec![Role::Regulator, Role::Court]), approvals: 2 },
    }
}

fn emergency() -> AnchorEmergency {
    AnchorEmergency {
        requester: InstitutionId(h(3)),
        item: ItemId(h(7)),
        account: AccountId(h(2)),
        reason: EmergencyReason::AcuteThreat,
        action: UseAction::Read,
        output: Output::Raw,
        records: list(vec![record()]),
        staff: Commitment(h(8)),
        released_at: TimeMs(1_790_000_000_000),
        package: h(9),
    }
}

fn order() -> IssueOrder {
    IssueOrder {
        basis: OrderBasis::CriminalInvestigation,
        document: h(10),
        beneficiary: InstitutionId(h(3)),
        cosigner: InstitutionId(h(4)),
        account: Some(AccountId(h(2))),
        items: list(vec![ItemId(h(7))]),
        categories: list(vec![Category::Settlement]),
        data_from: Day(1),
        data_to: Day(2),
        actions: list(vec![UseAction::Read]),
        output: Output::Masked,
        max_level: Level::Moderate,
        not_after: TimeMs(5),
        notice_from: TimeMs(6),
    }
}

fn actions() -> Vec<(&'static str, Action)> {
    let key = SecretKey::from_bytes(&[43; 32]).public();
    let (algorithm, account) = (Algorithm::Ed25519, AccountId(h(2)));
    let hold = Some(Hold { reason: HoldReason::Litigation, until: TimeMs(4) });
    let recover = Recover { account, algorithm, key, in_person: true };
    let delegate = Delegate {
        ward: account,
        delegate: AccountId(h(11)),
        capacity: Capacity::Guardian,
        document: h(10),
        purposes: list(vec![Purpose::Treatment, Purpose::ClaimsPayment]),
        until: TimeMs(1_790_812_800_000),
    };
    let end = EndDelegation { delegation: DelegationId(h(12)), cause: DelegationEnd::Court };
    let rotate = RotateOperator { add: Some(operator()), retire: Some(key) };
    let grading = Classify {
        item: ItemId(h(7)),
        level: Level::Low,
        opening: Opening::Directed,
        recipients: list(vec![InstitutionId(h(3))]),
    };
    vec![
        ("hold", Action::AttestErasure(AttestErasure { grant: GrantId(h(9)), report: h(10), hold })),
        ("not delivered", Action::NotDelivered(NotDelivered { permit: PermitId(h(9)) })),
        ("key rotation", Action::RotateKey(RotateKey { algorithm, key })),
        ("recovery", Action::Recover(recover)),
        ("veto", Action::VetoRecovery(VetoRecovery { key })),
        ("delegation", Action::Delegate(delegate)),
        ("end of a delegation", Action::EndDelegation(end)),
        ("ratification", Action::Ratify(Ratify { grant: GrantId(h(9)) })),
        ("operator rotation", Action::RotateOperator(rotate)),
        ("emergency", Action::AnchorEmergency(Box::new(emergency()))),
        (
            "review of an emergency",
            Action::ReviewEmergency(ReviewEmergency { permit: PermitId(h(9)), verdict: Verdict::Abuse }),
        ),
        ("notice", Action::NotifyPerson(NotifyPerson { permit: PermitId(h(9)), notice: h(10) })),
        ("order", Action::IssueOrder(Box::new(order()))),
        ("change of an institution", propose(Change::Institution(Box::new(institution())))),
        ("change of the policy", propose(Change::Policy(policy()))),
        ("grading down", propose(Change::Grading(grading))),
    ]
}

fn body(action: Action) -> Body {
    Body {
        chain: GenesisHash(h(1)).tag(),
        expires_at: TimeMs(1_790_000_000_000),
        author: Author::Institution(InstitutionId(h(3))),
        action,
    }
}

fn vectors() -> String {
    actions().into_iter().map(|(name, a)| format!("{name}: {}\n", hex::encode(body(a).encode()))).collect()
}

#[test]
fn bytes_of_the_decisions_actions_stay() {
    let (is, should) = (vectors(), include_str!("decision.txt"));
    for (is, should) in is.lines().zip(should.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(is.len(), should.len(), "all of them:\n{is}");
}

#[test]
fn each_reads_back_and_no_other_bytes_are_it() {
    for (name, action) in actions() {
        let body = body(action);
        let bytes = body.encode();
        assert_eq!(Body::decode(&bytes), Ok(body.clone()), "{name}");
        for cut in 0..bytes.len() {
            assert_ne!(Body::decode(&bytes[..cut]).ok(), Some(body.clone()), "{name} cut at {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.extend([0x78, 0x01]);
        assert!(Body::decode(&longer).is_err(), "{name} with a field of its own");
        let signed = Envelope::sign(&GenesisHash(h(1)), &body, &[&SecretKey::from_bytes(&[42; 32])]);
        let tx = envelope::verify(&GenesisHash(h(1)), &[signed.encode()]).remove(0);
        assert_eq!(tx.map(|tx| tx.body().clone()), Ok(body), "{name}");
    }
}

/// R18: a possession is for one institution, one use and one chain, and of a key that the change names.
#[test]
fn r18_a_possession_is_of_a_key_that_is_named_and_for_this_institution() {
    let verdict = |change: ChangeInstitution| {
        let body = body(propose(Change::Institution(Box::new(change))));
        let signed = Envelope::sign(&GenesisHash(h(1)), &body, &[&SecretKey::from_bytes(&[42; 32])]);
        envelope::verify(&GenesisHash(h(1)), &[signed.encode()]).remove(0).map(|_| ())
    };
    assert_eq!(verdict(institution()), Ok(()));
    let other = ChangeInstitution { institution: InstitutionId(h(99)), ..institution() };
    assert_eq!(verdict(other), Err(Invalid::BadSignature));
    let unnamed = ChangeInstitution { record: None, ..institution() };
    assert_eq!(verdict(unnamed), Err(Invalid::OutOfBounds));
}
