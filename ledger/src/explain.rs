//! What the rules would say of a request, without a block: asked of the state as it is, by the very functions that
//! decide in one. And who may ask that: parties alone, found in the state, not by what a question says of itself.
//! Nothing is decided here, and nothing is written.

use assent_proto::Hash;
use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::state::*;
use assent_proto::transaction::*;

use crate::access::Refusal;
use crate::apply::{Call, may_act};
use crate::check::signs_for;
use crate::outcome::Outcome;
use crate::overlay::Overlay;
use crate::rules::{self, Numbered};
use crate::{BlockContext, State, access, parameters, policy, protocol, read};

/// What the rules would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The use would be permitted.
    Permitted {
        /// Until when the permit could be released on.
        until: TimeMs,
        /// Of a grant that counts its uses, how many would be left after this one.
        uses_left: Option<u32>,
    },
    /// It would be denied.
    Denied {
        /// By this code.
        denial: Denial,
        /// And this rule of the table.
        rule: Option<Numbered>,
    },
}

impl Verdict {
    /// 0 if it would be permitted, else the number of the denial.
    pub fn code(&self) -> u32 {
        match self {
            Verdict::Permitted { .. } => 0,
            Verdict::Denied { denial, .. } => denial.number(),
        }
    }
}

/// What would become of a request if it stood alone in the next block. None where no block could hold it: the
/// requester does not exist, or the person who is to sign second does not, or it says what only a later protocol
/// version brings.
pub fn explain(
    state: &State,
    block: BlockContext,
    requester: &InstitutionId,
    request: &RequestAccess,
) -> Option<Verdict> {
    read::<Institution>(state, *requester)?;
    if let Some(person) = request.person {
        read::<Account>(state, person)?;
    }
    let action = Action::RequestAccess(Box::new(request.clone()));
    let version = protocol(state).at(block.height);
    if action.since() > version {
        return None;
    }
    let (parameters, policy) = (parameters(state), policy(state));
    let call = Call {
        state: &Overlay::over(state),
        parameters: &parameters,
        policy: &policy,
        version,
        block,
        // Nothing is written under this id, and an institution's decision does not look at the key.
        body: BodyId(Hash::ZERO),
        signer: PublicKey(Hash::ZERO),
    };
    let standing = may_act(&call, &Author::Institution(*requester), &action).map_err(Refusal::of_standing);
    Some(match standing.and_then(|()| access::judge(&call, requester, request)) {
        Ok(outcome) => permitted(&call, &outcome, request),
        Err(refusal) => Verdict::Denied { denial: refusal.denial, rule: rules::of_refusal(&refusal) },
    })
}

fn permitted(call: &Call, outcome: &Outcome, request: &RequestAccess) -> Verdict {
    let permit: Permit = outcome.written(PermitId(call.body.0)).expect("who permits makes a permit");
    let grant = request.grant.and_then(|id| outcome.written::<GrantState>(id));
    let counted = grant.filter(|grant| grant.terms.mode != Mode::Standing);
    let uses_left = counted.map(|grant| grant.terms.uses.saturating_sub(grant.used));
    Verdict::Permitted { until: permit.expires_at, uses_left }
}

/// Whether this key is one by which an asker may sign at this time.
pub fn may_sign(state: &State, time: TimeMs, asker: &Author, key: &PublicKey) -> bool {
    signs_for(&Overlay::over(state), time, asker, key).unwrap_or(false)
}

/// Whether somebody is a party to what a request names, at this time. Of all that it names, or a party to one thing
/// could learn of another.
///
/// - Of a grant: its grantee, whose it is, who signed it, and the item's custodian if the account is one there.
/// - Of a legal order: who may use it; the custodian whose item it covers; and the person, once no notice is
///   deferred (R41).
/// - Of an emergency or an opening: the requester, the item's custodian, and the person named if her account is one
///   there.
pub fn may_ask(
    state: &State,
    time: TimeMs,
    asker: &Author,
    requester: &InstitutionId,
    request: &RequestAccess,
) -> bool {
    let Some(item) = read::<Item>(state, request.item) else { return false };
    let known = read::<Institution>(state, *requester).is_some();
    let scene = Parties { state, time, asker, requester, request, item: &item };
    let of_named = [
        request.grant.map(|id| scene.of_grant(&id)),
        request.order.map(|id| scene.of_order(&id)),
        request.emergency.map(|_| scene.of_use()),
    ];
    let mut of_named = of_named.into_iter().flatten().peekable();
    known && if of_named.peek().is_some() { of_named.all(|party| party) } else { scene.of_use() }
}

struct Parties<'a> {
    state: &'a State,
    time: TimeMs,
    asker: &'a Author,
    requester: &'a InstitutionId,
    request: &'a RequestAccess,
    item: &'a Item,
}

impl Parties<'_> {
    fn of_grant(&self, id: &GrantId) -> bool {
        let Some(grant) = read::<GrantState>(self.state, *id) else { return false };
        match self.asker {
            Author::Account(person) => *person == grant.account || *person == grant.signer,
            Author::Institution(by) => {
                *by == grant.terms.grantee || (self.holds_item(by) && self.is_here(&grant.account))
            }
        }
    }

    fn of_order(&self, id: &OrderId) -> bool {
        let Some(Order { terms, .. }) = read::<Order>(self.state, *id) else { return false };
        let covered =
            terms.items.contains(&self.request.item) || terms.categories.contains(&self.item.category);
        let about = terms.account.or(self.request.account);
        match self.asker {
            Author::Institution(by) if *by == terms.beneficiary => true,
            Author::Institution(by) => {
                covered && self.holds_item(by) && terms.account.is_none_or(|person| self.is_here(&person))
            }
            Author::Account(person) => {
                let told = self.time >= terms.notice_from;
                told && covered && about == Some(*person) && self.is_here(person)
            }
        }
    }

    fn of_use(&self) -> bool {
        match self.asker {
            Author::Institution(by) => by == self.requester || self.holds_item(by),
            Author::Account(person) => self.request.account == Some(*person) && self.is_here(person),
        }
    }

    fn holds_item(&self, by: &InstitutionId) -> bool {
        self.item.custodian == *by
    }

    /// Whether the account is one with the item's custodian.
    fn is_here(&self, person: &AccountId) -> bool {
        let account = read::<Account>(self.state, *person);
        account.is_some_and(|account| account.custodian == self.item.custodian)
    }
}
