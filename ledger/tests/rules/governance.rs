//! Who votes, who connects, what all share, and what follows a contradiction: decided by those who run
//! validators, at a stated later height, never so that the chain could stop.

use assent_ledger::testing::*;
use assent_ledger::{ParentTurns, preview, turns, validators};
use assent_proto::event::EventKind;
use assent_proto::keys::Algorithm;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::{POWER_MAX, Validator};
use assent_proto::{Address, Denial, Height, Invalid, ObjectRef, SecretKey, ids::*};

/// The sandbox with its validators' keys.
struct Council {
    world: World,
    parties: Vec<Party>,
    voters: Vec<SecretKey>,
}

impl Council {
    fn new() -> Council {
        let (world, four) = World::four();
        let (_, voters, _) = assent_genesis::testing::four();
        Council { world, parties: vec![four.bureau, four.hospital_a, four.hospital_b, four.insurer], voters }
    }

    fn address(&self, at: usize) -> Address {
        assent_proto::validators::address(&self.voters[at].public())
    }

    fn propose(&mut self, change: Change) -> Result<ProposalId, Denial> {
        let until = self.world.at().time.plus(3_600_000);
        let propose = Action::Propose(Box::new(Propose { change, until }));
        let by = self.parties[0].clone();
        self.world.run(&by, propose).map(|id| ProposalId(id.0))
    }

    fn approve(&mut self, by: usize, proposal: ProposalId) -> Result<BodyId, Denial> {
        let by = self.parties[by].clone();
        self.world.run(&by, Action::Approve(Approve { proposal }))
    }

    /// Proposed by the first, approved by the second and the third: three of four are a quorum.
    fn decide(&mut self, change: Change) -> Result<ProposalId, Denial> {
        let id = self.propose(change)?;
        self.approve(1, id)?;
        self.approve(2, id)?;
        Ok(id)
    }

    fn set(
        &self,
        from: u64,
        keys: &[&SecretKey],
        edit: impl FnOnce(&mut Vec<Validator>),
    ) -> ChangeValidators {
        let (height, state) = (self.world.next().height, self.world.state());
        change_validators(self.world.genesis(), state, height, Height(from), keys, edit)
    }

    fn edit(&self, from: u64, keys: &[&SecretKey], edit: impl FnOnce(&mut Vec<Validator>)) -> Change {
        Change::Validators(self.set(from, keys, edit))
    }

    fn node(&self, of: usize, name: &str) -> NodeAdmission {
        let (key, network) = (secret(name), secret(&format!("{name} network")));
        admission(self.world.genesis(), self.parties[of].institution(), &key, &network)
    }

    fn admit(&mut self, of: usize, name: &str) -> Result<ProposalId, Denial> {
        let change = ChangeNodes { admit: list(vec![self.node(of, name)]), remove: list(vec![]) };
        self.decide(Change::Nodes(change))
    }

    fn validator(&self, of: usize, key: &SecretKey) -> Validator {
        let institution = self.parties[of].institution();
        Validator { algorithm: Algorithm::Ed25519, key: key.public(), power: 1, institution }
    }

    fn keys_at(&self, height: u64) -> Vec<assent_proto::PublicKey> {
        let all = validators(self.world.state());
        all.at(Height(height)).validators.iter().map(|v| v.key).collect()
    }

    fn report(&mut self, by: usize, report: ReportEquivocation) -> Result<BodyId, Denial> {
        let by = self.parties[by].clone();
        self.world.run(&by, Action::ReportEquivocation(Box::new(report)))
    }

    fn contradiction(&self, of: usize) -> ReportEquivocation {
        contradiction(self.world.genesis(), &self.voters[of], Height(1), 0)
    }

    /// The validator is silent from now on as far as the chain can tell.
    fn miss(&mut self, at: usize) {
        self.world.see(ParentTurns { missed: vec![self.address(at)], proposer: None, signers: vec![] });
        self.world.block(vec![]).unwrap();
        self.world.see(ParentTurns::default());
    }
}

/// Takes one validator out of a set.
fn without(at: usize) -> impl Fn(&mut Vec<Validator>) + Copy {
    move |v| {
        v.remove(at);
    }
}

/// Does what governance answers with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    let mut c = Council::new();
    let shorter = without(3);
    let parameters = || default_parameters_with(|_| ());
    match code {
        Denial::NoSuchProposal => c.approve(1, ProposalId(digest("none"))).map(drop),
        Denial::ProposalExpired => {
            let id = c.propose(parameters())?;
            c.world.wait(3_600_000);
            c.approve(1, id).map(drop)
        }
        Denial::ProposalEnacted => {
            let id = c.decide(parameters())?;
            c.approve(3, id).map(drop)
        }
        Denial::AlreadyApproved => {
            let id = c.propose(parameters())?;
            c.approve(0, id).map(drop)
        }
        Denial::NotAValidatorsInstitution => {
            c.decide(c.edit(10, &[], shorter))?;
            while c.world.next().height < Height(10) {
                c.world.block(vec![]).unwrap();
            }
            let id = c.propose(parameters())?;
            c.approve(3, id).map(drop)
        }
        Denial::StaleChange => {
            let stale = c.edit(100, &[], |v| v[0].power = 2);
            c.decide(c.edit(10, &[], shorter))?;
            while c.world.next().height < Height(10) {
                c.world.block(vec![]).unwrap();
            }
            c.propose(stale).map(drop)
        }
        Denial::ChangePending => {
            c.decide(c.edit(10, &[], shorter))?;
            c.propose(c.edit(20, &[], |v| v[0].power = 2)).map(drop)
        }
        Denial::ActivationOutOfRange => {
            let soon = c.world.next().height.0 + 1;
            c.propose(c.edit(soon, &[], shorter)).map(drop)
        }
        Denial::NoLiveQuorum => {
            c.miss(3);
            // One of three is known to be silent, and two of three are no quorum.
            c.propose(c.edit(20, &[], without(0))).map(drop)
        }
        Denial::BadValidatorSet => c.propose(c.edit(20, &[], Vec::clear)).map(drop),
        Denial::MissingPossession => {
            c.admit(0, "new")?;
            let new = c.validator(0, &secret("new"));
            c.propose(c.edit(20, &[], |v| v.push(new))).map(drop)
        }
        Denial::BadNodes => {
            let remove = list(vec![c.voters[0].public()]);
            c.propose(Change::Nodes(ChangeNodes { admit: list(vec![]), remove })).map(drop)
        }
        Denial::BadParameters => c.propose(default_parameters_with(|p| p.heartbeat_ms = 0)).map(drop),
        Denial::AlreadyReported => {
            c.report(0, c.contradiction(1))?;
            c.report(2, c.contradiction(1)).map(drop)
        }
        Denial::NotAValidatorThen => {
            let stranger = contradiction(c.world.genesis(), &secret("stranger"), Height(1), 0);
            c.report(0, stranger).map(drop)
        }
        Denial::TooManyProposals => (0..=PROPOSALS_MAX).try_for_each(|_| c.propose(parameters()).map(drop)),
        other => unreachable!("{other} is not governance's"),
    }
}

fn default_parameters_with(edit: impl FnOnce(&mut Parameters)) -> Change {
    let mut parameters = assent_genesis::default_parameters();
    parameters.heartbeat_ms = 7_000;
    edit(&mut parameters);
    Change::Parameters(parameters)
}

#[test]
fn a_change_is_in_force_with_the_approval_that_makes_the_quorum_and_votes_from_its_height_on() {
    let mut c = Council::new();
    let id = c.propose(c.edit(10, &[], without(3))).unwrap();
    c.approve(1, id).unwrap();
    assert!(validators(c.world.state()).pending.is_none(), "two of four are no quorum");
    assert_eq!(c.keys_at(10).len(), 4);
    c.approve(2, id).unwrap();
    assert_eq!((c.keys_at(9).len(), c.keys_at(10).len()), (4, 3));
    let decided: Proposal = c.world.get(id);
    assert_eq!(decided.enacted, Some(c.world.at().height));
    let all = validators(c.world.state());
    let former = [FormerValidator { validator: c.validator(3, &c.voters[3]), until: Height(9) }];
    assert_eq!(all.former[..], former);
    assert_eq!(
        c.world.kinds(id),
        [EventKind::Proposed, EventKind::Approved, EventKind::Approved, EventKind::Enacted]
    );
}

#[test]
fn a_new_validator_needs_a_node_and_a_possession_and_the_next_change_builds_on_the_set() {
    let mut c = Council::new();
    let key = secret("new");
    let new = c.validator(2, &key);
    let add = |c: &Council, from| c.edit(from, &[&key], |v| v.push(new.clone()));
    assert_eq!(c.propose(add(&c, 20)), Err(Denial::BadValidatorSet), "it has no node yet");
    c.admit(2, "new").unwrap();
    c.decide(add(&c, 20)).unwrap();
    while c.world.next().height < Height(20) {
        c.world.block(vec![]).unwrap();
    }
    assert_eq!(c.keys_at(20).last(), Some(&key.public()));
    // Institution 2 has two of five now; with two others it is a quorum, and the set can change again.
    c.decide(c.edit(40, &[], |v| v[4].power = 3)).unwrap();
    let all = validators(c.world.state());
    assert_eq!((all.since, all.at(Height(40)).total_power()), (Height(20), 7));
    assert!(all.former.is_empty());
}

#[test]
fn what_could_stop_the_chain_is_refused_beforehand() {
    let mut c = Council::new();
    for name in ["five", "six"] {
        c.admit(0, name).unwrap();
    }
    let keys = ["five", "six"].map(secret);
    let both = c.edit(50, &[&keys[0], &keys[1]], |v| v.extend(keys.iter().map(|k| c.validator(0, k))));
    let one = c.edit(50, &[&keys[0]], |v| v.push(c.validator(0, &keys[0])));
    let preview = |c: &Council, change: &Change| preview(c.world.state(), c.world.next().height, change);
    assert_eq!(preview(&c, &both), Err(Denial::NoLiveQuorum), "four of six are not more than two thirds");
    assert_eq!(preview(&c, &one), Ok(()));
    c.miss(3);
    assert_eq!(preview(&c, &one), Err(Denial::NoLiveQuorum), "three of five");
    assert_eq!(c.propose(one.clone()), Err(Denial::NoLiveQuorum), "the chain says what the dry run said");
    let without_the_silent = c.edit(50, &[], without(3));
    assert_eq!(preview(&c, &without_the_silent), Ok(()), "the dead can be taken out");
    // A good turn shows that it lives.
    c.world.see(ParentTurns { missed: vec![], proposer: Some(c.address(3)), signers: vec![] });
    c.world.block(vec![]).unwrap();
    assert_eq!(preview(&c, &one), Ok(()));
}

type Edit<'a> = Box<dyn Fn(&mut Vec<Validator>) + 'a>;

#[test]
fn malformed_sets_and_nodes_are_refused() {
    let c = Council::new();
    let stranger = secret("stranger");
    let bad: Vec<Edit> = vec![
        Box::new(|v| v.push(v[0].clone())),
        Box::new(|v| v[0].power = 0),
        Box::new(|v| v[0].power = POWER_MAX + 1),
        Box::new(|v| v[0].institution = InstitutionId(digest("none"))),
        Box::new(|v| v[0].institution = v[1].institution),
        Box::new(|v| v[0].key = stranger.public()),
    ];
    for (i, edit) in bad.iter().enumerate() {
        let change = c.edit(20, &[&stranger], |v| edit(v));
        let verdict = preview(c.world.state(), c.world.next().height, &change);
        assert_eq!(verdict, Err(Denial::BadValidatorSet), "case {i}");
    }
    let of_voter = NodeAdmission {
        record: NodeRecord { key: c.voters[0].public(), ..c.node(0, "new").record },
        ..c.node(0, "new")
    };
    let one_key = NodeAdmission {
        record: NodeRecord { network_key: secret("new").public(), ..c.node(0, "new").record },
        ..c.node(0, "new")
    };
    let nodes = |admit: Vec<NodeAdmission>, remove: Vec<_>| {
        let change = Change::Nodes(ChangeNodes { admit: list(admit), remove: list(remove) });
        preview(c.world.state(), c.world.next().height, &change)
    };
    assert_eq!(nodes(vec![], vec![]), Err(Denial::BadNodes), "nothing is no change");
    assert_eq!(nodes(vec![of_voter], vec![]), Err(Denial::BadNodes));
    assert_eq!(nodes(vec![one_key], vec![]), Err(Denial::BadNodes));
    assert_eq!(nodes(vec![c.node(0, "new"), c.node(1, "new")], vec![]), Err(Denial::BadNodes));
    assert_eq!(nodes(vec![], vec![stranger.public()]), Err(Denial::BadNodes));
    assert_eq!(nodes(vec![c.node(0, "new")], vec![]), Ok(()));
    // A voter's node may get a new network key, and nothing else.
    let moved = admission(c.world.genesis(), c.parties[0].institution(), &c.voters[0], &secret("moved"));
    let taken = admission(c.world.genesis(), c.parties[1].institution(), &c.voters[0], &secret("moved"));
    assert_eq!(nodes(vec![moved], vec![c.voters[0].public()]), Ok(()));
    assert_eq!(nodes(vec![taken], vec![c.voters[0].public()]), Err(Denial::BadNodes));
}

#[test]
fn signatures_inside_a_body_are_asked_at_the_door() {
    let mut c = Council::new();
    let mut forged = c.contradiction(1);
    forged.second.signature.0[5] ^= 1;
    let body = c.world.body(&c.parties[0].clone(), Action::ReportEquivocation(Box::new(forged)));
    assert_eq!(verdict(&c, &body, 0), Err(Invalid::BadSignature));
    let mut node = c.node(0, "new");
    node.network_possession = node.possession;
    let change = Change::Nodes(ChangeNodes { admit: list(vec![node]), remove: list(vec![]) });
    let body =
        c.world.body(&c.parties[0].clone(), Action::Propose(Box::new(Propose { change, until: TimeMs(0) })));
    assert_eq!(verdict(&c, &body, 0), Err(Invalid::BadSignature));
    // A possession of a key that is not in the set is no shape that a change has.
    let mut set = c.set(20, &[&c.voters[0]], |_| ());
    set.possessions = list(vec![Possession { key: secret("other").public(), ..set.possessions[0].clone() }]);
    let change = Change::Validators(set);
    let body =
        c.world.body(&c.parties[0].clone(), Action::Propose(Box::new(Propose { change, until: TimeMs(0) })));
    assert_eq!(verdict(&c, &body, 0), Err(Invalid::OutOfBounds));
}

fn verdict(c: &Council, body: &assent_proto::Body, by: usize) -> Result<(), Invalid> {
    use assent_proto::field::Message;
    let genesis = c.world.genesis();
    let bytes = assent_proto::Envelope::sign(genesis, body, &[&c.parties[by].key]).encode();
    assent_proto::envelope::verify(genesis, &[bytes]).remove(0).map(drop)
}

/// R4: what was proposed, approved and reported is listed completely by the one trail of the validators.
#[test]
fn every_proposal_and_report_is_on_the_validators_trail() {
    let mut c = Council::new();
    let by_bounds = c.decide(default_parameters_with(|_| ())).unwrap();
    let by_node = c.admit(1, "fifth").unwrap();
    c.report(0, c.contradiction(1)).unwrap();
    use EventKind::{Approved, Enacted, EquivocationReported, Proposed, Retired};
    let first = [Proposed, Approved, Approved, Enacted];
    let second = [Proposed, Retired, Approved, Approved, Enacted];
    assert_eq!(c.world.kinds(ObjectRef::VALIDATORS), [&first[..], &second, &[EquivocationReported]].concat());
    let listed: Vec<_> = c
        .world
        .trail(ObjectRef::VALIDATORS)
        .iter()
        .filter(|e| e.core.kind == Proposed)
        .map(|e| e.core.object)
        .collect();
    assert_eq!(listed, [by_bounds.into(), by_node.into()]);
}

/// However much is proposed, the state keeps a bounded number of each institution's.
#[test]
fn an_institution_has_so_many_open_proposals_and_what_is_over_makes_room() {
    let mut c = Council::new();
    let change = || default_parameters_with(|_| ());
    let held =
        |c: &Council| c.world.state().leaves().filter(|l| l.object.kind == ObjectKind::Proposal).count();
    let first = c.propose(change()).unwrap();
    let rest: Vec<_> = (1..PROPOSALS_MAX).map(|_| c.propose(change()).unwrap()).collect();
    assert_eq!(held(&c), PROPOSALS_MAX);
    let before = c.world.state().root();
    assert_eq!(c.propose(change()), Err(Denial::TooManyProposals));
    assert_ne!(c.world.state().root(), before, "the denial is on its trail");
    // Another's are its own, and so is the room for them.
    let until = c.world.at().time.plus(600_000);
    let propose = Action::Propose(Box::new(Propose { change: change(), until }));
    let other = c.parties[1].clone();
    c.world.run(&other, propose).unwrap();
    // One is decided: it stays until its institution proposes again.
    c.approve(1, rest[3]).unwrap();
    c.approve(2, rest[3]).unwrap();
    assert_eq!((held(&c), c.world.get::<Proposal>(rest[3]).enacted.is_some()), (PROPOSALS_MAX + 1, true));
    let next = c.propose(change()).unwrap();
    assert_eq!(held(&c), PROPOSALS_MAX + 1);
    assert!(c.world.state().get(&rest[3].into()).is_none());
    let listed = c.world.get::<Institution>(c.parties[0].institution()).proposals;
    let open = [first].into_iter().chain(rest.iter().copied().filter(|id| *id != rest[3])).chain([next]);
    assert!(listed.iter().copied().eq(open), "oldest first: {listed:?}");
    assert_eq!(c.propose(change()), Err(Denial::TooManyProposals));
    // All the others' time passes: the next is alone.
    c.world.wait(3_600_000);
    let alone = c.propose(change()).unwrap();
    assert_eq!(c.world.get::<Institution>(c.parties[0].institution()).proposals[..], [alone]);
    assert_eq!(held(&c), 2, "and the other institution's, which has not proposed since");
}

/// R4: what has left the state is absent from it, cannot come again, and its whole history stays on the chain.
#[test]
fn what_has_left_the_state_stays_provable_and_cannot_be_approved_or_repeated() {
    let mut c = Council::new();
    let until = c.world.at().time.plus(3_600_000);
    let action = Action::Propose(Box::new(Propose { change: default_parameters_with(|_| ()), until }));
    let proposer = c.parties[0].clone();
    let tx = c.world.sign(&proposer, action);
    let over = ProposalId(c.world.submit(tx.clone()).unwrap().0);
    c.approve(1, over).unwrap();
    c.approve(2, over).unwrap();
    let last: Proposal = c.world.get(over);
    let state = c.world.state().clone();
    // A refused one moves nothing.
    assert_eq!(c.propose(c.edit(20, &[], Vec::clear)), Err(Denial::BadValidatorSet));
    assert!(c.world.state().get(&over.into()).is_some());
    c.propose(default_parameters_with(|_| ())).unwrap();

    let (leaf, proof) = c.world.state().prove(&over.into());
    assert!(leaf.is_none());
    proof.verify_absence(&c.world.state().root(), &over.into()).unwrap();
    let again = assent_ledger::State::from_leaves(c.world.state().leaves());
    assert_eq!(again.root(), c.world.state().root(), "as if it had never been");

    assert_eq!(c.approve(3, over), Err(Denial::NoSuchProposal));
    assert_eq!(c.world.check(&tx), Err(Invalid::Replay));
    c.world.wait(600_000);
    c.world.block(vec![]).unwrap();
    assert_eq!(c.world.check(&tx), Err(Invalid::Expired));

    use EventKind::{Approved, Enacted, Proposed, Retired};
    assert_eq!(c.world.kinds(over), [Proposed, Approved, Approved, Enacted, Retired]);
    let mut trail = ObjectRef::from(over).new_trail();
    for event in c.world.trail(over) {
        let link = event.link(&over.into()).unwrap();
        assert_eq!((link.index, link.head_before), (trail.length, trail.head));
        assert!(event.link(&ObjectRef::VALIDATORS).is_some(), "the validators' trail has all of it");
        trail = link.after(&event.leaf());
    }
    let held = state.get(&over.into()).unwrap();
    let retired = c.world.trail(over).pop().unwrap();
    assert_eq!(retired.link(&over.into()).unwrap().head_before, held.trail.head, "it names the final head");
    assert_eq!(retired.core.object_hash, held.object_hash(), "and the final content");
    assert_eq!(last.enacted, Some(c.world.trail(over)[3].core.height));
}

/// What comes and goes in one block was in no state.
#[test]
fn a_proposal_may_come_and_go_within_a_block() {
    let mut c = Council::new();
    let until = c.world.at().time.plus(3_600_000);
    let propose = || Action::Propose(Box::new(Propose { change: default_parameters_with(|_| ()), until }));
    let proposer = c.parties[0].clone();
    let first = c.world.sign(&proposer, propose());
    let proposal = ProposalId(first.body_id().0);
    let mut txs = vec![first];
    for by in [1, 2] {
        let by = c.parties[by].clone();
        txs.push(c.world.sign(&by, Action::Approve(Approve { proposal })));
    }
    txs.push(c.world.sign(&proposer, propose()));
    let applied = c.world.apply(&txs).unwrap();
    assert!(applied.removed.is_empty() && applied.changes.iter().all(|l| l.object != proposal.into()));
    assert!(c.world.block(txs).unwrap().iter().all(Result::is_ok));
    assert!(c.world.state().get(&proposal.into()).is_none());
    assert_eq!(c.world.kinds(proposal).last(), Some(&EventKind::Retired));
    assert_eq!(c.world.state().root(), applied.state.root());
    // In a block of its own it is told to the storage.
    let second = c.world.get::<Institution>(c.parties[0].institution()).proposals[0];
    c.approve(1, second).unwrap();
    c.approve(2, second).unwrap();
    let third = c.world.sign(&proposer, propose());
    assert_eq!(c.world.apply(&[third]).unwrap().removed, [ObjectRef::from(second)]);
}

#[test]
fn a_contradiction_is_recorded_once_and_a_voting_key_may_report_it() {
    let mut c = Council::new();
    let report = c.contradiction(1);
    // Hospital B's node has no operator's key; it reports by the key that it votes with.
    let node = Party { author: c.parties[2].author, key: c.voters[2].clone() };
    c.world.run(&node, Action::ReportEquivocation(Box::new(report.clone()))).unwrap();
    let found: Misconduct = c.world.get(report.id());
    assert_eq!((found.institution, found.reporter), (c.parties[1].institution(), c.parties[2].institution()));
    assert_eq!(found.removed_from, None, "the parameters say that it is recorded");
    assert_eq!(c.keys_at(100).len(), 4);
    let kinds = c.world.kinds(c.parties[1].institution());
    assert_eq!(kinds, [EventKind::EquivocationReported], "it is on the offender's trail");
    // By that key nothing else can be done, and nobody else's institution can be spoken for.
    let approve = c.world.sign(&node, Action::Approve(Approve { proposal: ProposalId(digest("none")) }));
    assert_eq!(c.world.check(&approve), Err(Invalid::WrongKey));
    let posing = Party { author: c.parties[0].author, key: c.voters[2].clone() };
    let posed = c.world.sign(&posing, Action::ReportEquivocation(Box::new(report)));
    assert_eq!(c.world.check(&posed), Err(Invalid::WrongKey));
}

#[test]
fn where_governance_says_so_the_key_is_removed_unless_no_quorum_were_left() {
    let remove = default_parameters_with(|p| p.equivocation = Consequence::Remove);
    let mut c = Council::new();
    c.decide(remove.clone()).unwrap();
    c.report(0, c.contradiction(1)).unwrap();
    let height = c.world.at().height.0;
    let found: Misconduct = c.world.get(c.contradiction(1).id());
    assert_eq!(found.removed_from, Some(Height(height + 2)));
    assert_eq!((c.keys_at(height + 1).len(), c.keys_at(height + 2).len()), (4, 3));
    assert!(!c.keys_at(height + 2).contains(&c.voters[1].public()));
    // The removed key's earlier contradictions can still be shown, later ones cannot.
    c.world.block(vec![]).unwrap();
    let genesis = *c.world.genesis();
    let late = contradiction(&genesis, &c.voters[1], Height(height + 2), 0);
    assert_eq!(c.report(0, late), Err(Denial::NotAValidatorThen));
    c.report(0, contradiction(&genesis, &c.voters[1], Height(height), 3)).unwrap();
    // Two of the three that are left are alive: removing one of these could stop the chain.
    c.miss(3);
    c.report(0, c.contradiction(2)).unwrap();
    let found: Misconduct = c.world.get(c.contradiction(2).id());
    assert_eq!(found.removed_from, None);
}

#[test]
fn who_misses_turns_is_passed_over_longer_each_time_and_comes_back() {
    let mut c = Council::new();
    let who = c.address(2);
    let entry = |c: &Council| turns(c.world.state()).missed.iter().find(|m| m.validator == who).cloned();
    let see = |missed: bool, proposer: Option<Address>, signs: bool| ParentTurns {
        missed: if missed { vec![who] } else { vec![] },
        proposer,
        signers: if signs { vec![who] } else { vec![] },
    };
    let mut rests = Vec::new();
    for _ in 0..3 {
        c.world.see(see(true, None, false));
        c.world.block(vec![]).unwrap();
        let below = c.world.at().height.0 - 1;
        rests.push(entry(&c).unwrap().until.0 - below);
        assert!(!turns(c.world.state()).passed_over(&who, Height(1)), "what was kept to stays");
        assert!(turns(c.world.state()).passed_over(&who, c.world.next().height));
    }
    assert_eq!(rests, [4096, 16_384, 16_384]);
    // It signs: it comes back after fewer blocks, counted from the first turn that it missed.
    c.world.see(see(false, None, true));
    c.world.block(vec![]).unwrap();
    assert_eq!(entry(&c).unwrap().until, Height(4 << 3));
    c.world.see(see(false, Some(who), true));
    c.world.block(vec![]).unwrap();
    let (cleared, height) = (entry(&c).unwrap(), c.world.at().height);
    assert_eq!((cleared.strikes, cleared.until), (0, height.next()), "a good turn clears it");
    assert!(!turns(c.world.state()).passed_over(&who, c.world.next().height));
    c.world.block(vec![]).unwrap();
    assert_eq!(entry(&c), None);
}

/// A restarted validator has the state after the newest block alone, and must find the order of that height.
#[test]
fn the_order_of_a_height_is_the_same_read_before_and_after_its_block() {
    let mut c = Council::new();
    let mut random = 7u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut late = 0;
    for _ in 0..600 {
        let (height, before) = (c.world.next().height, turns(c.world.state()));
        let set = validators(c.world.state()).at(height).clone();
        let order = set.turns(height, |a| before.passed_over(a, height));
        late += usize::from(order != set.turns(height, |_| false));
        let who = |n: u64| c.address(n as usize);
        c.world.see(ParentTurns {
            missed: (0..below(3)).map(|_| who(below(4))).collect(),
            proposer: (below(4) > 0).then(|| who(below(4))),
            signers: (0..3).map(|_| who(below(4))).collect(),
        });
        c.world.block(vec![]).unwrap();
        let after = turns(c.world.state());
        assert_eq!(set.turns(height, |a| after.passed_over(a, height)), order, "at {height}");
    }
    assert!((100..600).contains(&late), "the order was another at {late} heights");
}

#[test]
fn the_order_of_turns_leaves_nobody_out() {
    let c = Council::new();
    let all = validators(c.world.state());
    let set = all.at(Height(1));
    assert_eq!(set.turns(Height(6), |_| false), [2, 3, 0, 1]);
    let late = [c.address(2), c.address(0)];
    assert_eq!(set.turns(Height(6), |a| late.contains(a)), [3, 1, 2, 0]);
    assert_eq!(set.turns(Height(6), |_| true), [2, 3, 0, 1]);
}

#[test]
fn turns_and_validators_are_proved_by_the_state_root() {
    let mut c = Council::new();
    let before = c.world.state().root();
    c.miss(1);
    assert_ne!(c.world.state().root(), before);
    let unchanged = c.world.state().root();
    c.world.block(vec![]).unwrap();
    assert_eq!(c.world.state().root(), unchanged, "a block without news writes nothing");
    assert!(c.world.state().get(&ObjectRef::TURNS).is_some());
}
