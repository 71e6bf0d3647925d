//! The ledger against the reference model: random sequences of all actions, compared block by block (R1 to R18, R20,
//! R21, R24, R41). More of them, or one that failed, by
//! `ASSENT_MODEL_FROM=n ASSENT_MODEL_SEQUENCES=n cargo test --release --workspace --test model -- --nocapture`.

use assent_proto::code::{Denial, Invalid};
use assent_proto::transaction::ActionKind;
use assent_tests::model::{Coverage, run_seed};

/// Sequences in an ordinary run of the tests.
const SEQUENCES: u64 = 1000;

/// How many disagreements are shown before the rest is left.
const SHOWN_MAX: usize = 12;

/// Denials that the sequences of an ordinary run do not show, and why.
const SELDOM: &[(Denial, &str)] = &[
    (
        Denial::OutputNotCovered,
        "once in a thousand sequences: a request is refused for something else before",
    ),
    (Denial::NotTheMaker, "once in a thousand: products of two institutions must be there"),
    (Denial::NoLiveQuorum, "once in a thousand: several validators must come at once"),
    (
        Denial::AlreadyAnchored,
        "once in some thousand: version 2 must be in force, and an outage be told twice",
    ),
];

/// Reasons to be in no block that are not the ledger's to give, or that nobody can sign here.
const ELSEWHERE: &[&str] = &[
    "Malformed",
    "NotCanonical",
    "TooLarge",
    "OutOfBounds",
    "WrongChain",
    "BadSignature",
    "Busy",
    // A key that may not be registered has no secret key to sign with.
    "BadKey",
    // Nothing has come with a later version that a body could hold.
    "NotYetActive",
    // Of questions, not of transactions.
    "NotAParty",
];

#[test]
fn ledger_and_model_agree() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let from = number("ASSENT_MODEL_FROM").unwrap_or(0);
    let sequences = number("ASSENT_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let mut seen = Coverage::default();
    let mut failed = Vec::new();
    for seed in from..from + sequences {
        if let Err(disagreement) = run_seed(seed, &mut seen) {
            println!("{disagreement:?}");
            failed.push(seed);
            if failed.len() >= SHOWN_MAX {
                break;
            }
        }
    }
    println!("{seen:#?}");
    assert!(failed.is_empty(), "seeds {failed:?} fail, as printed above");
    if (from, sequences) == (0, SEQUENCES) {
        everything_happened(&seen);
    }
}

/// Agreement about what never happens would prove nothing.
fn everything_happened(seen: &Coverage) {
    let kinds: Vec<_> = ActionKind::ALL.iter().filter(|k| !seen.kinds.contains_key(k)).collect();
    assert!(kinds.is_empty(), "never applied: {kinds:?}");
    let seldom = |d: &&Denial| SELDOM.iter().any(|(s, _)| s == *d);
    let denials: Vec<_> =
        Denial::ALL.iter().filter(|d| !seldom(d) && !seen.denials.contains_key(d)).collect();
    assert!(denials.is_empty(), "never denied: {denials:?}");
    let invalid: Vec<_> = Invalid::ALL
        .iter()
        .filter(|i| !ELSEWHERE.contains(&i.name()) && !seen.invalid.contains_key(i))
        .collect();
    assert!(invalid.is_empty(), "never invalid: {invalid:?}");
    let share = seen.applied * 100 / seen.transactions;
    assert!(share >= 35, "only {share} of a hundred transactions are applied");
}
