//! Who institutions are: admission, standing, keys (R18).

use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;

pub(crate) fn rotate_operator(_: &Call, _: &InstitutionId, _: &RotateOperator) -> Result<Outcome, Denial> {
    todo!()
}
