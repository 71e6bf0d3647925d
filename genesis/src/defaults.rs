//! The parameters and the policy that a chain starts with unless its founders write others.

use assent_proto::List;
use assent_proto::state::{Committee, Parameters, Policy, PurposeRule, Role};
use assent_proto::transaction::{Consequence, Level, Purpose};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Bounds for a chain among institutions of one country.
pub fn default_parameters() -> Parameters {
    Parameters {
        transaction_life_ms: 10 * MINUTE_MS,
        permit_life_ms: DAY_MS,
        // Fifteen days to answer a request for erasure.
        erasure_deadline_ms: 15 * DAY_MS,
        block_bytes_max: 4 << 20,
        block_transactions_max: 8192,
        clock_bound_ms: 2_000,
        heartbeat_ms: 10_000,
        // Who is shown to have lied is looked at by people before anything else happens.
        equivocation: Consequence::Record,
        recovery_approvals: 2,
        recovery_delay_ms: 3 * DAY_MS,
        emergency_permit_life_ms: 60 * MINUTE_MS,
        emergency_anchor_ms: DAY_MS,
        emergency_review_ms: 7 * DAY_MS,
        emergency_notice_ms: 2 * DAY_MS,
    }
}

/// What each use case may see at most. Marketing has no rule, hence is never permitted.
pub fn default_policy() -> Policy {
    let rule = |purpose, max_level, needs_case, needs_settlement| PurposeRule {
        purpose,
        max_level,
        needs_case,
        needs_settlement,
    };
    let rules = vec![
        // An insurer sees a claim's documents for one matter, and only once it is settled.
        rule(Purpose::ClaimsPayment, Level::High, true, true),
        rule(Purpose::Treatment, Level::High, false, false),
        rule(Purpose::MutualRecognition, Level::High, false, false),
        rule(Purpose::Research, Level::Moderate, false, false),
        rule(Purpose::Statistics, Level::Moderate, false, false),
        rule(Purpose::Operations, Level::Low, false, false),
        rule(Purpose::EmergencyTreatment, Level::High, false, false),
        rule(Purpose::Legal, Level::High, false, false),
    ];
    Policy {
        version: 1,
        rules: List::try_from(rules).expect("eight rules are at most 32"),
        prohibited: List::empty(),
        // Who supervises and who holds data decide together.
        committee: Committee {
            roles: List::try_from(vec![Role::Regulator, Role::Hospital]).expect("two roles are at most four"),
            approvals: 2,
        },
    }
}
