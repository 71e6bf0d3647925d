//! Who may grant for another (R15).

use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;

pub(crate) fn delegate(_: &Call, _: &InstitutionId, _: &Delegate) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn end(_: &Call, _: &Author, _: &EndDelegation) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn ratify(_: &Call, _: &AccountId, _: &Ratify) -> Result<Outcome, Denial> {
    todo!()
}
