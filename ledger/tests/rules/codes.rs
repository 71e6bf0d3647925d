//! Every denial code is reachable, and used where its sentence says.

use assent_ledger::parameters;
use assent_ledger::testing::*;
use assent_proto::state::{Institution, Role};
use assent_proto::transaction::*;
use assent_proto::{Denial, ObjectRef, ids::*};

#[test]
fn every_denial_can_be_provoked() {
    for code in Denial::ALL {
        assert_eq!(provoke(*code), Err(*code), "{code}");
    }
}

/// Does what the rules answer with this code. A new code does not compile until it has its scenario.
fn provoke(code: Denial) -> Result<(), Denial> {
    use Denial::*;
    let mut s = Scene::new();
    let Four { bureau, hospital_a: a, hospital_b: b, insurer } = s.four.clone();
    match code {
        NotPermittedRole => supervisor_asks(),
        NoBasis => s.request(&insurer, s.ask(None)).map(drop),
        NoSuchGrant => s.request(&insurer, s.ask(Some(GrantId(digest("none"))))).map(drop),
        GrantRevoked => {
            let grant = s.grant(s.terms())?;
            s.revoke(grant)?;
            s.request(&insurer, s.ask(Some(grant))).map(drop)
        }
        GrantExhausted => {
            s.settle();
            let grant = s.grant(s.terms())?;
            s.request(&insurer, s.ask(Some(grant)))?;
            s.request(&insurer, s.ask(Some(grant))).map(drop)
        }
        GrantNotYetValid => use_of(|g| g.not_before = g.not_after, |_, _| ()),
        GrantExpired => {
            let grant = s.grant(s.terms())?;
            s.world.wait(3_600_000);
            s.request(&insurer, s.ask(Some(grant))).map(drop)
        }
        OtherGrantee => {
            let grant = s.grant(s.terms())?;
            s.request(&b, s.ask(Some(grant))).map(drop)
        }
        OtherCase => use_of(|_| (), |_, r| r.case = Some(CaseId(digest("other")))),
        CaseMissing => use_of(|_| (), |_, r| r.case = None),
        OtherAccount => use_of(|_| (), |_, r| r.account = Some(AccountId(digest("other")))),
        OtherCustodian => use_of(|_| (), |s, r| r.item = s.settlements),
        ItemNotCovered => use_of(|g| g.items = list(vec![ItemId(digest("other"))]), |_, _| ()),
        NoSuchItem => use_of(|_| (), |_, r| r.item = ItemId(digest("other"))),
        PeriodNotCovered => use_of(|_| (), |s, r| r.records = list(vec![s.records[4].clone()])),
        RecordNotAnchored => {
            use_of(|_| (), |s, r| r.records = list(vec![RecordProof { index: 1, ..s.records[0].clone() }]))
        }
        PurposeNotCovered => use_of(|g| g.purpose = Purpose::Treatment, |_, _| ()),
        PurposeNotAllowed => {
            use_of(|g| g.purpose = Purpose::Marketing, |_, r| r.purpose = Purpose::Marketing)
        }
        ActionNotCovered => use_of(|_| (), |_, r| r.action = UseAction::Disclose),
        OutputNotCovered => use_of(|_| (), |_, r| r.output = Output::Raw),
        LevelTooHigh => use_of(|g| g.max_level = Level::Low, |_, _| ()),
        OutsideJurisdiction => use_of(|g| g.jurisdictions = list(vec![840]), |_, _| ()),
        NotSettled => {
            let grant = s.grant(s.terms())?;
            s.request(&insurer, s.ask(Some(grant))).map(drop)
        }
        OpeningProhibited => s.request(&insurer, RequestAccess { account: None, ..s.ask(None) }).map(drop),
        ReviewMissing => open(s, Opening::AfterReview),
        RealNameMissing => open(s, Opening::RealName),
        NotARecipient => open(s, Opening::Directed),
        OpeningNotAllowed => register(s, 5, Level::High, Opening::RealName),
        ItemTaken => register(s, 1, Level::High, Opening::Prohibited),
        NotTheSource => {
            let anchor = anchor_of(s.item, &[record(&s.person, 1, 1)], &[]);
            s.world.run(&b, Action::AnchorRecords(anchor)).map(drop)
        }
        GradingDown => {
            let (item, recipients) = (s.item, list(vec![]));
            let down = Classify { item, level: Level::Low, opening: Opening::Prohibited, recipients };
            s.world.run(&a, Action::Classify(down)).map(drop)
        }
        NotTheGrantor => {
            let grant = s.grant(s.terms())?;
            let other = s.world.enrol(&bureau, &a, "other");
            s.world.run(&other, Action::Revoke(Revoke { grant })).map(drop)
        }
        AlreadyRevoked => {
            let grant = s.grant(s.terms())?;
            s.revoke(grant)?;
            s.revoke(grant).map(drop)
        }
        TooManyEarlyRevocations => {
            (0..17).try_for_each(|i| s.revoke(GrantId(digest(&i.to_string()))).map(drop))
        }
        NoSuchPermit => delivery_of(&a, |_, d| d.permit = PermitId(digest("none"))),
        NotTheCustodian => delivery_of(&b, |_, _| ()),
        PermitDead => delivery_of(&a, |s, _| s.world.wait(parameters(s.world.state()).permit_life_ms)),
        AlreadyDelivered => delivery_of(&a, |s, d| {
            s.deliver(&s.four.hospital_a.clone(), d.clone()).unwrap();
        }),
        ManifestMismatch => delivery_of(&a, |_, d| d.records -= 1),
        ReleaseHeightUnknown => delivery_of(&a, |_, d| d.released_height = d.released_height.next()),
        NoErasureDuty => {
            let grant = s.grant(s.terms())?;
            s.revoke(grant)?;
            let attest = AttestErasure { grant, report: digest("report"), hold: None };
            s.world.run(&insurer, Action::AttestErasure(attest)).map(drop)
        }
        OutputExists => derive(&a, Level::High, |s, a| {
            let first = activity(ActivityKind::Clean, &[own_permit(s)], &[], &[&product("out", Level::High)]);
            s.world.run(a, first).unwrap();
        }),
        OutputLevelTooLow => derive(&a, Level::Low, |_, _| ()),
        NotTheRequester => derive(&b, Level::High, |_, _| ()),
        NoSuchArtifact => {
            let inputs = [ArtifactId(digest("none"))];
            let activity = activity(ActivityKind::Clean, &[], &inputs, &[&product("out", Level::High)]);
            s.world.run(&a, activity).map(drop)
        }
        NotTheMaker => {
            let (made, next) = (product("made", Level::High), product("next", Level::High));
            let first = activity(ActivityKind::Clean, &[own_permit(&mut s)], &[], &[&made]);
            s.world.run(&a, first)?;
            s.world.run(&b, activity(ActivityKind::Clean, &[], &[made.id], &[&next])).map(drop)
        }
        NotDelivered | ActionNotPermitted => {
            s.settle();
            let grant = s.grant(s.terms())?;
            let permit = s.request(&insurer, s.ask(Some(grant)))?;
            if code == ActionNotPermitted {
                let delivery = s.delivery(permit);
                s.deliver(&a, delivery)?;
            }
            let activity = activity(ActivityKind::Clean, &[permit], &[], &[&product("out", Level::High)]);
            s.world.run(&insurer, activity).map(drop)
        }
        BadTerms => s.grant(Grant { uses: 2, ..s.terms() }).map(drop),
        NoSuchInstitution => s.grant(Grant { grantee: InstitutionId(digest("none")), ..s.terms() }).map(drop),
        AlreadySettled => {
            s.settle();
            let anchor = anchor_of(s.settlements, &[record(&s.person, 1, 1)], &[s.case]);
            s.world.run(&bureau, Action::AnchorRecords(anchor)).map(drop)
        }
        DuplicateRecord => {
            let anchor = anchor_of(s.settlements, &[record(&s.person, 1, 1)], &[s.case, s.case]);
            s.world.run(&bureau, Action::AnchorRecords(anchor)).map(drop)
        }
        RecipientsMismatch => register(s, 5, Level::Low, Opening::Directed),
        NoSuchProposal
        | ProposalExpired
        | ProposalEnacted
        | AlreadyApproved
        | NotAValidatorsInstitution
        | StaleChange
        | ChangePending
        | ActivationOutOfRange
        | NoLiveQuorum
        | BadValidatorSet
        | MissingPossession
        | BadNodes
        | BadParameters
        | AlreadyReported
        | NotAValidatorThen
        | TooManyProposals => crate::governance::provoke(code),
        InstitutionSuspended | CustodianSuspended | BadKeys | BadInstitution => {
            crate::institutions::provoke(code)
        }
        Prohibited | BadPolicy | NotOnTheCommittee | NotGradedDown => crate::policy::provoke(code),
        KeyReplaced | AccountFrozen | AccountNotFrozen | OtherRecovery | NoRecovery | NoSuchAccount => {
            crate::identity::provoke(code)
        }
        DelegationOver | NoSuchDelegation | NotTheDelegate | DelegationEndUnfit | DelegationChain
        | AlreadyEnded | NothingToRatify => crate::delegation::provoke(code),
        GrantSuspended | SameInstitution | SeveralBases => crate::bases::provoke(code),
        NotRostered | EmergencyDutyOverdue | TooManyEmergencies | AccountMissing | NoSuchEmergency
        | AlreadyReviewed | AlreadyNotified | ReleaseTimeUnknown => crate::emergency::provoke(code),
        NoSuchOrder | OrderExpired | NotTheBeneficiary | OrderDoesNotCover | NoNoticeDue => {
            crate::orders::provoke(code)
        }
        AlreadyUndelivered => crate::delivery::provoke(code),
        AlreadyAnchored | BadProtocol => crate::protocol::provoke(code),
    }
}

/// One use by the insurer under the scene's terms, after edits to the grant and the request.
fn use_of(
    terms: impl FnOnce(&mut Grant),
    ask: impl FnOnce(&Scene, &mut RequestAccess),
) -> Result<(), Denial> {
    let mut s = Scene::new();
    s.settle();
    let mut granted = s.terms();
    terms(&mut granted);
    let grant = s.grant(granted)?;
    let mut request = s.ask(Some(grant));
    ask(&s, &mut request);
    let insurer = s.four.insurer.clone();
    s.request(&insurer, request).map(drop)
}

/// A delivery by somebody on the insurer's permit, after an edit.
fn delivery_of(by: &Party, edit: impl FnOnce(&mut Scene, &mut Deliver)) -> Result<(), Denial> {
    let mut s = Scene::new();
    s.settle();
    let grant = s.grant(s.terms())?;
    let insurer = s.four.insurer.clone();
    let permit = s.request(&insurer, s.ask(Some(grant)))?;
    let mut delivery = s.delivery(permit);
    edit(&mut s, &mut delivery);
    s.deliver(by, delivery).map(drop)
}

/// A product of this level by somebody, from hospital A's permit on its own records.
fn derive(by: &Party, level: Level, before: impl FnOnce(&mut Scene, &Party)) -> Result<(), Denial> {
    let mut s = Scene::new();
    let a = s.four.hospital_a.clone();
    before(&mut s, &a);
    let permit = own_permit(&mut s);
    s.world.run(by, activity(ActivityKind::Clean, &[permit], &[], &[&product("out", level)])).map(drop)
}

fn own_permit(s: &mut Scene) -> PermitId {
    let a = s.four.hospital_a.clone();
    let grant = s.grant(s.standing(&a)).unwrap();
    s.request(&a, s.ask_statistics(grant)).unwrap()
}

/// Hospital B asks for an item that is open in some way, and not to it.
fn open(mut s: Scene, opening: Opening) -> Result<(), Denial> {
    let (a, b) = (s.four.hospital_a.clone(), s.four.hospital_b.clone());
    let directed = (opening == Opening::Directed).then(|| s.four.insurer.institution());
    let recipients = list(directed.into_iter().collect());
    let classify = Classify { item: s.item, level: Level::Moderate, opening, recipients };
    s.world.run(&a, Action::Classify(classify))?;
    s.request(&b, s.ask(None)).map(drop)
}

fn register(mut s: Scene, code: u32, level: Level, opening: Opening) -> Result<(), Denial> {
    let (category, recipients) = (Category::ClaimDocument, list(vec![]));
    let item = RegisterItem { code, scope: 1, category, level, opening, recipients };
    let a = s.four.hospital_a.clone();
    s.world.run(&a, Action::RegisterItem(item)).map(drop)
}

/// The insurer is an auditor now, and an auditor has no use for the data.
fn supervisor_asks() -> Result<(), Denial> {
    let (mut world, four) = World::four();
    let insurer = four.insurer.clone();
    world.amend(ObjectRef::from(insurer.institution()), |i: &mut Institution| {
        i.roles = list(vec![Role::Auditor])
    });
    let mut s = Scene::in_world(world, four);
    s.settle();
    let grant = s.grant(s.terms())?;
    s.request(&insurer, s.ask(Some(grant))).map(drop)
}
