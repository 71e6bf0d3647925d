//! From a contradiction that consensus saw to the transaction that puts it on the chain, where the auditor sees it.
//!
//! Every validator that sees one could report it, and one report is enough: they take turns, block by block, and
//! none reports what stands on the chain already. What follows on the chain is decided by the ledger.

use std::collections::BTreeMap;

use assent_ledger::State;
use assent_proto::envelope::verify;
use assent_proto::field::Message;
use assent_proto::state::Validators;
use assent_proto::transaction::{ReportEquivocation, Statement, StatementKind};
use assent_proto::validators::{VoteKind, address};
use assent_proto::{
    Action, Address, Author, Body, Envelope, GenesisHash, Height, MisconductId, ObjectRef, PublicKey,
    SecretKey, TimeMs, VerifiedTx,
};
use assent_replica::Evidence;

/// Contradictions that wait to be reported.
const PENDING_MAX: usize = 64;
/// How often one is reported if the report does not come onto the chain.
const ATTEMPTS_MAX: u32 = 3;
/// Blocks between two attempts.
const ATTEMPT_EVERY: u64 = 20;
/// The most that a report's life is ahead of block time, ms; less if the chain allows less.
const LIFE_MS: u64 = 60_000;

/// What is to be reported, and when.
#[derive(Clone, Debug)]
struct Pending {
    report: ReportEquivocation,
    due: Height,
    attempts: u32,
}

/// Reports contradictions in the name of the institution whose validator this is.
#[derive(Debug)]
pub(crate) struct Reporter {
    genesis: GenesisHash,
    key: SecretKey,
    pending: BTreeMap<MisconductId, Pending>,
}

impl Reporter {
    pub(crate) fn new(genesis: GenesisHash, key: SecretKey) -> Reporter {
        Reporter { genesis, key, pending: BTreeMap::new() }
    }

    /// Whether there is nothing to report.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes note of a contradiction, as of a state at a height.
    pub(crate) fn seen(&mut self, evidence: &Evidence, state: &State, height: Height) {
        let validators = assent_ledger::validators(state);
        let Some(report) = report(evidence, &validators) else { return };
        let id = report.id();
        if self.pending.len() >= PENDING_MAX || on_chain(state, id) {
            return;
        }
        let due = Height(height.0.saturating_add(self.turn(&report, &validators, height)));
        self.pending.entry(id).or_insert(Pending { report, due, attempts: 0 });
    }

    /// The reports that are due at a height whose block time is `time`. None from a node that does not vote.
    pub(crate) fn due(&mut self, state: &State, height: Height, time: TimeMs) -> Vec<VerifiedTx> {
        self.pending.retain(|id, p| p.attempts < ATTEMPTS_MAX && !on_chain(state, *id));
        let validators = assent_ledger::validators(state);
        let own = self.key.public();
        let voters = &validators.at(height.next()).validators;
        let Some(own) = voters.iter().find(|v| v.key == own) else { return Vec::new() };
        let life = LIFE_MS.min(assent_ledger::parameters(state).transaction_life_ms);
        let mut envelopes = Vec::new();
        for pending in self.pending.values_mut().filter(|p| p.due <= height) {
            pending.due = Height(height.0.saturating_add(ATTEMPT_EVERY));
            pending.attempts += 1;
            let body = Body {
                chain: self.genesis.tag(),
                expires_at: time.plus(life),
                author: Author::Institution(own.institution),
                action: Action::ReportEquivocation(Box::new(pending.report.clone())),
            };
            envelopes.push(Envelope::sign(&self.genesis, &body, &[&self.key]).encode());
        }
        // What does not verify was no contradiction: consensus has checked the signatures, so this holds.
        verify(&self.genesis, &envelopes).into_iter().flatten().collect()
    }

    /// After how many blocks it is this validator's turn: another one begins at each height.
    fn turn(&self, report: &ReportEquivocation, validators: &Validators, height: Height) -> u64 {
        let own = address(&self.key.public());
        let others: Vec<Address> = validators
            .at(height.next())
            .validators
            .iter()
            .filter(|v| v.key != report.validator)
            .map(|v| v.address())
            .collect();
        let Some(index) = others.iter().position(|a| *a == own) else { return others.len() as u64 };
        let n = others.len() as u64;
        (index as u64 + n - report.height.0 % n) % n
    }
}

fn on_chain(state: &State, id: MisconductId) -> bool {
    state.get(&ObjectRef::from(id)).is_some()
}

/// The report of a contradiction; none if nobody on the chain has the key.
fn report(evidence: &Evidence, validators: &Validators) -> Option<ReportEquivocation> {
    let (who, height, round, what, statements) = match evidence {
        Evidence::Votes(one, two) => {
            let what = match one.kind {
                VoteKind::Prevote => StatementKind::Prevote,
                VoteKind::Precommit => StatementKind::Precommit,
            };
            let statement = |v: &assent_replica::SignedVote| Statement {
                block: v.block,
                valid_round: None,
                signature: v.signature,
            };
            (one.validator, one.height, one.round, what, [statement(one), statement(two)])
        }
        Evidence::Proposals(two) => {
            let statement = |p: &assent_replica::SignedProposal| Statement {
                block: Some(p.header.id()),
                valid_round: p.valid_round,
                signature: p.signature,
            };
            let (one, two) = &**two;
            let statements = [statement(one), statement(two)];
            (one.proposer, one.header.height, one.round, StatementKind::Proposal, statements)
        }
    };
    ReportEquivocation::of(key_of(&who, validators)?, height, round, what, statements)
}

/// The key of a validator that votes, is to vote, or has voted.
fn key_of(who: &Address, validators: &Validators) -> Option<PublicKey> {
    let pending = validators.pending.iter().flat_map(|p| &p.set.validators);
    let former = validators.former.iter().map(|f| &f.validator);
    let mut all = validators.current.validators.iter().chain(pending).chain(former);
    all.find(|v| v.address() == *who).map(|v| v.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_genesis::testing;
    use assent_proto::validators::vote_message;
    use assent_proto::{BlockId, Hash};
    use assent_replica::SignedVote;

    const NOW: TimeMs = TimeMs(1_800_000_000_000);

    struct Chain {
        genesis: GenesisHash,
        state: State,
        keys: Vec<SecretKey>,
    }

    fn chain() -> Chain {
        let devnet = testing::devnet(4, 4);
        let state = State::from_leaves(devnet.genesis.leaves());
        let validators = assent_ledger::validators(&state);
        // In the order of the set.
        let key = |v: &assent_proto::Validator| {
            devnet.nodes.iter().map(|n| &n.consensus).find(|k| k.public() == v.key).unwrap().clone()
        };
        let keys = validators.current.validators.iter().map(key).collect();
        Chain { genesis: devnet.genesis.hash(), state, keys }
    }

    fn vote(chain: &Chain, key: &SecretKey, block: Option<u8>) -> SignedVote {
        let block = block.map(|b| BlockId(Hash([b; 32])));
        let (kind, height, validator) = (VoteKind::Prevote, Height(7), address(&key.public()));
        let message = vote_message(&chain.genesis, kind, height, 2, block.as_ref(), &validator);
        SignedVote { kind, height, round: 2, block, validator, signature: key.sign(message.as_bytes()) }
    }

    fn contradiction(chain: &Chain, liar: &SecretKey) -> Evidence {
        Evidence::Votes(vote(chain, liar, Some(1)), vote(chain, liar, None))
    }

    /// One validator after another reports it, each with a transaction that holds and names its institution.
    #[test]
    fn a_contradiction_is_reported_by_one_validator_at_a_time() {
        let chain = chain();
        let evidence = contradiction(&chain, &chain.keys[3]);
        let mut turns = Vec::new();
        for key in &chain.keys[..3] {
            let mut reporter = Reporter::new(chain.genesis, key.clone());
            reporter.seen(&evidence, &chain.state, Height(7));
            let height = (7..20).find(|h| {
                !reporter.pending.is_empty() && {
                    let txs = reporter.due(&chain.state, Height(*h), NOW);
                    for tx in &txs {
                        let validators = assent_ledger::validators(&chain.state);
                        let own =
                            validators.current.validators.iter().find(|v| v.key == key.public()).unwrap();
                        assert_eq!(tx.body().author, Author::Institution(own.institution));
                        let Action::ReportEquivocation(report) = &tx.body().action else {
                            panic!("a report")
                        };
                        assert_eq!(report.validator, chain.keys[3].public());
                    }
                    !txs.is_empty()
                }
            });
            turns.push(height.unwrap());
        }
        turns.sort_unstable();
        assert_eq!(turns, [7, 8, 9]);
    }

    #[test]
    fn it_is_tried_again_a_few_times_and_then_no_more() {
        let chain = chain();
        let mut reporter = Reporter::new(chain.genesis, chain.keys[0].clone());
        let evidence = contradiction(&chain, &chain.keys[3]);
        reporter.seen(&evidence, &chain.state, Height(7));
        reporter.seen(&evidence, &chain.state, Height(7));
        let reports = (7..1_000).flat_map(|h| reporter.due(&chain.state, Height(h), NOW.plus(h))).count();
        assert_eq!(reports, ATTEMPTS_MAX as usize);
        assert!(reporter.pending.is_empty());
    }

    #[test]
    fn what_is_no_contradiction_or_not_this_nodes_to_say_is_not_reported() {
        let chain = chain();
        let (liar, stranger) = (&chain.keys[3], SecretKey::from_bytes(&[9; 32]));
        let same = Evidence::Votes(vote(&chain, liar, Some(1)), vote(&chain, liar, Some(1)));
        let nobody = contradiction(&chain, &stranger);
        let mut reporter = Reporter::new(chain.genesis, chain.keys[0].clone());
        for evidence in [&same, &nobody] {
            reporter.seen(evidence, &chain.state, Height(7));
        }
        assert!(reporter.pending.is_empty());
        let mut observer = Reporter::new(chain.genesis, stranger);
        observer.seen(&contradiction(&chain, liar), &chain.state, Height(7));
        assert!((7..100).all(|h| observer.due(&chain.state, Height(h), NOW).is_empty()));
    }

    /// A signature that does not hold makes a transaction that does not verify, which is not handed in.
    #[test]
    fn forged_evidence_goes_nowhere() {
        let chain = chain();
        let mut forged = vote(&chain, &chain.keys[3], Some(1));
        forged.signature = chain.keys[2].sign(b"something else");
        let evidence = Evidence::Votes(forged, vote(&chain, &chain.keys[3], None));
        let mut reporter = Reporter::new(chain.genesis, chain.keys[0].clone());
        reporter.seen(&evidence, &chain.state, Height(7));
        assert!((7..100).all(|h| reporter.due(&chain.state, Height(h), NOW).is_empty()));
    }
}
