//! How the institutions of a run change who votes: proposals and approvals, signed when their time has come,
//! for they name the set in force and a height to come; and reports of contradictions, made as the node makes
//! them. What the ledger thinks of it is the ledger's to say.

use assent_consensus::{Evidence, SignedProposal, SignedVote};
use assent_genesis::institution_id;
use assent_ledger::State;
use assent_ledger::testing::{JURISDICTION, Party, admission, change_validators, digest, list, secret};
use assent_proto::keys::{Algorithm, encryption_public};
use assent_proto::state::{OperatorKey, Prohibition, Role, Validators};
use assent_proto::transaction::*;
use assent_proto::validators::{Validator, VoteKind};
use assent_proto::{
    Action, Address, Author, BodyId, Height, InstitutionId, List, ProposalId, PublicKey, SecretKey, TimeMs,
    VerifiedTx,
};

use super::Sim;
use super::workload::{Late, Step, What};

/// A set decided on votes, and a protocol version is in force, so many heights above the newest one when it was proposed: late enough for the
/// approvals, soon enough to come in the run.
const AHEAD: u64 = 8;
/// Proposals stay open for so long, ms.
const OPEN_MS: u64 = 600_000;

/// What is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Motion {
    /// A node of this name may connect.
    Admit(String),
    /// An admitted node votes.
    Seat(String),
    /// An admitted node votes in the place of the validator with this key.
    Replace(PublicKey, String),
    /// The validator with this key votes no more.
    Unseat(PublicKey),
    /// The validator with this key has this power.
    Weigh(PublicKey, u32),
    /// Who contradicts itself is removed.
    Punish,
    /// A hospital of this name becomes an institution.
    Welcome(String),
    /// Whether the institution of this name may act.
    Stand(String, Standing),
    /// No use for this is permitted any more.
    Prohibit(Purpose),
    /// The next protocol version takes force.
    Upgrade,
}

impl Motion {
    /// The change that it means on a state, for a set to come.
    fn change(&self, sim: &Sim, state: &State, newest: Height, institution: InstitutionId) -> Change {
        let genesis = sim.genesis.hash();
        let edit = |keys: &[&SecretKey], edit: &dyn Fn(&mut Vec<Validator>)| {
            let from = Height(newest.0 + AHEAD);
            Change::Validators(change_validators(&genesis, state, newest.next(), from, keys, edit))
        };
        let seat = |key: &SecretKey, power| Validator {
            algorithm: Algorithm::Ed25519,
            key: key.public(),
            power,
            institution,
        };
        match self {
            Motion::Admit(name) => {
                let (key, network) = (secret(name), secret(&format!("{name}: network")));
                let admit = list(vec![admission(&genesis, institution, &key, &network)]);
                Change::Nodes(ChangeNodes { admit, remove: list(Vec::new()) })
            }
            Motion::Seat(name) => {
                let key = secret(name);
                edit(&[&key], &|set| set.push(seat(&key, 1)))
            }
            Motion::Replace(old, name) => {
                let key = secret(name);
                edit(&[&key], &|set| {
                    if let Some(v) = set.iter_mut().find(|v| v.key == *old) {
                        *v = Validator { institution: v.institution, ..seat(&key, v.power) };
                    }
                })
            }
            Motion::Unseat(key) => edit(&[], &|set| set.retain(|v| v.key != *key)),
            Motion::Weigh(key, power) => edit(&[], &|set| {
                set.iter_mut().filter(|v| v.key == *key).for_each(|v| v.power = *power);
            }),
            Motion::Punish => {
                let mut parameters = assent_ledger::parameters(state);
                parameters.equivocation = Consequence::Remove;
                Change::Parameters(parameters)
            }
            Motion::Welcome(name) => Change::Institution(Box::new(welcome(sim, &newcomer(name)))),
            Motion::Stand(name, standing) => Change::Institution(Box::new(ChangeInstitution {
                institution: newcomer(name).institution(),
                standing: *standing,
                record: None,
                possessions: List::empty(),
            })),
            Motion::Prohibit(purpose) => {
                let mut policy = assent_ledger::policy(state);
                let entry = Prohibition { purpose: Some(*purpose), item: None, category: None };
                policy.version += 1;
                policy.prohibited = list([policy.prohibited.into_vec(), vec![entry]].concat());
                Change::Policy(policy)
            }
            Motion::Upgrade => {
                let version = assent_ledger::protocol(state).at(newest) + 1;
                Change::Protocol(ChangeProtocol { version, from: Height(newest.0 + AHEAD) })
            }
        }
    }
}

/// Who acts for an institution that is not there yet.
pub(super) fn newcomer(name: &str) -> Party {
    Party { author: Author::Institution(institution_id(name)), key: secret(name) }
}

fn welcome(sim: &Sim, who: &Party) -> ChangeInstitution {
    let (institution, key) = (who.institution(), who.key.public());
    let message = join_message(&sim.genesis.hash(), &institution, KeyUse::Operator, &key);
    let record = InstitutionRecord {
        roles: list(vec![Role::Hospital]),
        keys: list(vec![OperatorKey {
            algorithm: Algorithm::Ed25519,
            key,
            not_before: TimeMs(0),
            not_after: sim.now.plus(365 * 86_400_000),
        }]),
        encryption_key: encryption_public(&[7; 32]),
        max_level: Level::High,
        jurisdiction: JURISDICTION,
        rostered_until: None,
    };
    ChangeInstitution {
        institution,
        standing: Standing::Active,
        record: Some(record),
        possessions: list(vec![Possession { key, signature: who.key.sign(&message.0) }]),
    }
}

/// A motion on its way: the proposal and the approvals, by institutions that together suffice.
pub struct Way {
    /// The steps.
    pub steps: Vec<Step>,
    /// Once these are final it is decided.
    pub decided: Vec<BodyId>,
}

/// The steps of a motion of the first of `council`, which the others approve. `institution` is whose new node
/// or validator it is about.
pub fn way(
    motion: &Motion,
    council: &[Party],
    institution: InstitutionId,
    needs: &[BodyId],
    at_ms: u64,
) -> Way {
    let named = |what: &str| BodyId(digest(&format!("{what} {motion:?}")));
    let (proposal, mut steps, mut decided) = (named("propose"), Vec::new(), Vec::new());
    for (n, by) in council.iter().enumerate() {
        let (late, ticket, needs) = if n == 0 {
            let motion = motion.clone();
            (
                Late::Propose { by: by.clone(), motion, institution, ticket: proposal },
                proposal,
                needs.to_vec(),
            )
        } else {
            let ticket = named(&format!("approve {n}"));
            (Late::Approve { by: by.clone(), proposal, ticket }, ticket, vec![proposal])
        };
        steps.push(Step { what: What::Late(late), needs, at_ms });
        decided.push(ticket);
    }
    Way { steps, decided }
}

/// Signs a proposal now.
pub(super) fn propose(sim: &Sim, by: &Party, motion: &Motion, institution: InstitutionId) -> VerifiedTx {
    let (height, state) = sim.newest_state();
    let until = sim.now.plus(OPEN_MS);
    let change = motion.change(sim, &state, height, institution);
    sim.sign(by.author, Action::Propose(Box::new(Propose { change, until })), &[&by.key])
}

/// Signs an approval now.
pub(super) fn approve(sim: &Sim, by: &Party, proposal: BodyId) -> VerifiedTx {
    let action = Action::Approve(Approve { proposal: ProposalId(proposal.0) });
    sim.sign(by.author, action, &[&by.key])
}

/// The report of a contradiction by a validator that saw it, as the node makes it; none if the chain does not
/// know whose key it is, or if the reporter does not vote.
pub(super) fn report(sim: &Sim, reporter: &SecretKey, evidence: &Evidence) -> Option<VerifiedTx> {
    let (_, state) = sim.newest_state();
    let validators = assent_ledger::validators(&state);
    let report = report_of(evidence, &validators)?;
    let own = validators.current.validators.iter().find(|v| v.key == reporter.public())?;
    let author = Author::Institution(own.institution);
    Some(sim.sign(author, Action::ReportEquivocation(Box::new(report)), &[reporter]))
}

fn report_of(evidence: &Evidence, validators: &Validators) -> Option<ReportEquivocation> {
    let of_vote = |v: &SignedVote| Statement { block: v.block, valid_round: None, signature: v.signature };
    let of_proposal = |p: &SignedProposal| Statement {
        block: Some(p.header.id()),
        valid_round: p.valid_round,
        signature: p.signature,
    };
    let (who, height, round, what, statements) = match evidence {
        Evidence::Votes(one, two) => {
            let what = match one.kind {
                VoteKind::Prevote => StatementKind::Prevote,
                VoteKind::Precommit => StatementKind::Precommit,
            };
            (one.validator, one.height, one.round, what, [of_vote(one), of_vote(two)])
        }
        Evidence::Proposals(two) => {
            let (one, two) = &**two;
            let what = StatementKind::Proposal;
            (one.proposer, one.header.height, one.round, what, [of_proposal(one), of_proposal(two)])
        }
    };
    ReportEquivocation::of(key_of(&who, validators)?, height, round, what, statements)
}

fn key_of(who: &Address, validators: &Validators) -> Option<PublicKey> {
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    let former = validators.former.iter().map(|f| &f.validator);
    let mut all = validators.current.validators.iter().chain(pending).chain(former);
    all.find(|v| v.address() == *who).map(|v| v.key)
}
