//! On what a request may rest (R11, R17, R41): a grant, the item's opening type, an emergency, a legal order;
//! and what each asks at a step of the order. The order itself, and what is asked of all alike, is `access`.

use std::borrow::Cow;

use assent_proto::List;
use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::state::*;
use assent_proto::transaction::*;

use crate::access::{Ask, review_ref};
use crate::apply::Call;
use crate::rules::Ground;
use crate::{emergency, orders};

/// The one thing that a request rests on.
pub(crate) enum Basis {
    /// The person's, or her delegate's, authorization.
    Grant(Box<GrantState>),
    /// How the item is open to whom; that it is so is seen when the basis is found.
    Opening,
    /// There was no time to ask.
    Emergency {
        /// When the records were released, if that was before the chain could be asked.
        released_at: Option<TimeMs>,
    },
    /// A court or a statute wants it.
    Order(Box<Order>),
}

impl Basis {
    /// The basis that a request names. Without any, it is the item's opening.
    pub(crate) fn of(
        call: &Call,
        by: &InstitutionId,
        request: &RequestAccess,
        item: &Item,
    ) -> Result<Basis, Denial> {
        match (request.grant, request.emergency, request.order) {
            (Some(id), None, None) => {
                call.state.get(id).map(|g| Basis::Grant(Box::new(g))).ok_or(Denial::NoSuchGrant)
            }
            (None, Some(_), None) => Ok(Basis::Emergency { released_at: None }),
            (None, None, Some(id)) => {
                call.state.get(id).map(|o| Basis::Order(Box::new(o))).ok_or(Denial::NoSuchOrder)
            }
            (None, None, None) => open_to(call, by, request, item).map(|()| Basis::Opening),
            _ => Err(Denial::SeveralBases),
        }
    }

    /// Which it is.
    pub(crate) fn ground(&self) -> Ground {
        match self {
            Basis::Grant(_) => Ground::Grant,
            Basis::Opening => Ground::Opening,
            Basis::Emergency { .. } => Ground::Emergency,
            Basis::Order(_) => Ground::Order,
        }
    }

    /// What the policy in force says of a use case; for a grant, whatever is stricter in the one that was in
    /// force when it was signed.
    pub(crate) fn rule(&self, call: &Call, purpose: Purpose) -> Option<PurposeRule> {
        let now = call.policy.rule(purpose)?;
        let Some(signed_under) = self.policy(call) else { return Some(now.clone()) };
        let then = signed_under.rule(purpose)?;
        Some(PurposeRule {
            purpose,
            max_level: now.max_level.min(then.max_level),
            needs_case: now.needs_case || then.needs_case,
            needs_settlement: now.needs_settlement || then.needs_settlement,
        })
    }

    /// The policy under which a grant was signed. One that cannot be found permits nothing.
    pub(crate) fn policy<'a>(&self, call: &Call<'a>) -> Option<Cow<'a, Policy>> {
        let Basis::Grant(grant) = self else { return None };
        let version = grant.terms.policy_version;
        if version == call.policy.version {
            return Some(Cow::Borrowed(call.policy));
        }
        Some(Cow::Owned(call.state.get(ObjectRef::policy(version)).unwrap_or_else(permits_nothing)))
    }

    /// A grant is neither withdrawn nor used up, its delegate's word holds, and its item was not graded up
    /// over it since (R7, R15, R21).
    pub(crate) fn state(&self, ask: &Ask) -> Result<(), Denial> {
        let Basis::Grant(grant) = self else { return Ok(()) };
        if grant.revocation.is_some() {
            return Err(Denial::GrantRevoked);
        }
        if grant.terms.mode != Mode::Standing && grant.used >= grant.terms.uses {
            return Err(Denial::GrantExhausted);
        }
        if !signature_holds(ask.call, grant) {
            return Err(Denial::DelegationOver);
        }
        if ask.item.level > grant.terms.max_level && ask.item.graded_height > grant.granted_height {
            return Err(Denial::GrantSuspended);
        }
        Ok(())
    }

    pub(crate) fn time(&self, ask: &Ask) -> Result<(), Denial> {
        let time = ask.call.block.time;
        match self {
            Basis::Grant(grant) if time < grant.terms.not_before => Err(Denial::GrantNotYetValid),
            Basis::Grant(grant) if time > grant.terms.not_after => Err(Denial::GrantExpired),
            Basis::Emergency { released_at: Some(at) } if *at > time => Err(Denial::ReleaseTimeUnknown),
            Basis::Order(order) if time > order.terms.not_after => Err(Denial::OrderExpired),
            _ => Ok(()),
        }
    }

    /// It is the requester's to rely on.
    pub(crate) fn user(&self, ask: &Ask) -> Result<(), Denial> {
        match self {
            Basis::Grant(grant) if grant.terms.grantee != ask.by => Err(Denial::OtherGrantee),
            Basis::Order(order) if order.terms.beneficiary != ask.by => Err(Denial::NotTheBeneficiary),
            Basis::Emergency { released_at } => emergency::may_use(ask, *released_at),
            _ => Ok(()),
        }
    }

    /// Whether a use case that needs a case needs one here too: an emergency has none yet.
    pub(crate) fn can_need_case(&self) -> bool {
        !matches!(self, Basis::Emergency { .. })
    }

    /// The one matter that it is for.
    pub(crate) fn case(&self) -> Option<CaseId> {
        match self {
            Basis::Grant(grant) => grant.terms.case,
            _ => None,
        }
    }

    /// Whose it is, where the request need not say so.
    pub(crate) fn person(&self) -> Option<AccountId> {
        match self {
            Basis::Grant(grant) => Some(grant.account),
            _ => None,
        }
    }

    /// Whose records are meant is who the basis is for. An emergency's use is of one person, who is told of
    /// it; so is a use of which a person is told later (R17, R41).
    pub(crate) fn account(&self, ask: &Ask) -> Result<(), Denial> {
        let named = ask.request.account;
        match self {
            Basis::Grant(grant) if named.is_some_and(|a| a != grant.account) => Err(Denial::OtherAccount),
            Basis::Order(order) if order.terms.account.is_some_and(|a| Some(a) != named) => {
                Err(Denial::OrderDoesNotCover)
            }
            Basis::Order(_) if named.is_none() && orders::defers_notice(ask.call, ask.request.order) => {
                Err(Denial::AccountMissing)
            }
            Basis::Emergency { .. } if named.is_none() => Err(Denial::AccountMissing),
            _ => Ok(()),
        }
    }

    pub(crate) fn item(&self, ask: &Ask) -> Result<(), Denial> {
        let (item, category) = (&ask.request.item, &ask.item.category);
        let (items, categories, otherwise) = match self {
            Basis::Grant(g) => (&g.terms.items, &g.terms.categories, Denial::ItemNotCovered),
            Basis::Order(o) => (&o.terms.items, &o.terms.categories, Denial::OrderDoesNotCover),
            Basis::Opening | Basis::Emergency { .. } => return Ok(()),
        };
        if items.contains(item) || categories.contains(category) { Ok(()) } else { Err(otherwise) }
    }

    /// The day that a record speaks of is in the period.
    pub(crate) fn day(&self, day: Day) -> Result<(), Denial> {
        let (period, otherwise) = match self {
            Basis::Grant(g) => (g.terms.data_from..=g.terms.data_to, Denial::PeriodNotCovered),
            Basis::Order(o) => (o.terms.data_from..=o.terms.data_to, Denial::OrderDoesNotCover),
            Basis::Opening | Basis::Emergency { .. } => return Ok(()),
        };
        if period.contains(&day) { Ok(()) } else { Err(otherwise) }
    }

    /// An emergency is for treatment in it, an order for the law's sake; neither is anything's for being open.
    pub(crate) fn purpose(&self, purpose: Purpose) -> Result<(), Denial> {
        let covered = match self {
            Basis::Grant(grant) => purpose == grant.terms.purpose,
            Basis::Opening => !matches!(purpose, Purpose::EmergencyTreatment | Purpose::Legal),
            Basis::Emergency { .. } => purpose == Purpose::EmergencyTreatment,
            Basis::Order(_) => purpose == Purpose::Legal,
        };
        if covered { Ok(()) } else { Err(Denial::PurposeNotCovered) }
    }

    /// Outputs are ordered from the most revealing: a basis for one covers those after it.
    pub(crate) fn action(&self, ask: &Ask) -> Result<(), Denial> {
        let (action, output) = (ask.request.action, ask.request.output);
        match self {
            Basis::Grant(grant) if !grant.terms.actions.contains(&action) => Err(Denial::ActionNotCovered),
            Basis::Grant(grant) if output < grant.terms.output => Err(Denial::OutputNotCovered),
            Basis::Emergency { .. } if !matches!(action, UseAction::Read | UseAction::Compute) => {
                Err(Denial::ActionNotCovered)
            }
            Basis::Order(order) if !order.terms.actions.contains(&action) || output < order.terms.output => {
                Err(Denial::OrderDoesNotCover)
            }
            _ => Ok(()),
        }
    }

    /// The highest level that it covers.
    pub(crate) fn max_level(&self) -> Level {
        match self {
            Basis::Grant(grant) => grant.terms.max_level,
            Basis::Order(order) => order.terms.max_level,
            Basis::Opening | Basis::Emergency { .. } => Level::High,
        }
    }

    pub(crate) fn jurisdiction(&self, ask: &Ask) -> Result<(), Denial> {
        match self {
            Basis::Grant(g) if !g.terms.jurisdictions.contains(&ask.requester.jurisdiction) => {
                Err(Denial::OutsideJurisdiction)
            }
            _ => Ok(()),
        }
    }

    /// How long its permit may be released; not at all where the release is what it tells.
    pub(crate) fn permit_life_ms(&self, call: &Call) -> u64 {
        match self {
            Basis::Emergency { released_at: Some(_) } => 0,
            Basis::Emergency { released_at: None } => call.parameters.emergency_permit_life_ms,
            _ => call.parameters.permit_life_ms,
        }
    }

    /// Whether the records were released before the chain was asked.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self, Basis::Emergency { released_at: Some(_) })
    }
}

fn permits_nothing() -> Policy {
    let committee = Committee { roles: List::empty(), approvals: 0 };
    Policy { version: 0, rules: List::empty(), prohibited: List::empty(), committee }
}

/// Who signed may still sign for the account, or the account's own word stands by it (R15).
fn signature_holds(call: &Call, grant: &GrantState) -> bool {
    let Some(id) = grant.terms.delegation else { return true };
    let in_force = |d: Delegation| d.is_in_force(call.block.time);
    grant.ratified || call.state.get::<Delegation>(id).is_some_and(in_force)
}

/// Whether the item's opening type is a basis for the request (R11). Of an item that is not open, a request
/// for one person's records lacks her grant (`NoBasis`); any other asks for what is not open at all.
fn open_to(call: &Call, by: &InstitutionId, request: &RequestAccess, item: &Item) -> Result<(), Denial> {
    let (open, otherwise) = match item.opening {
        Opening::Prohibited if request.account.is_some() => (false, Denial::NoBasis),
        Opening::Prohibited => (false, Denial::OpeningProhibited),
        Opening::AfterReview => (reviewed(call, by, request), Denial::ReviewMissing),
        Opening::RealName => (request.person.is_some(), Denial::RealNameMissing),
        Opening::Directed => (item.recipients.contains(by), Denial::NotARecipient),
        Opening::Unconditional => (true, Denial::NoBasis),
    };
    if open { Ok(()) } else { Err(otherwise) }
}

fn reviewed(call: &Call, by: &InstitutionId, request: &RequestAccess) -> bool {
    let review = call.state.get::<Review>(review_ref(&request.item, by, request.purpose));
    review.is_some_and(|r| r.until >= call.block.time)
}
