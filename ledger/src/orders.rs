//! Access by order of a court or by statute (R41).

use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;

pub(crate) fn issue(_: &Call, _: &InstitutionId, _: &IssueOrder) -> Result<Outcome, Denial> {
    todo!()
}
