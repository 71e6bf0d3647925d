//! Uses in an emergency and their duties (R17).

use assent_proto::code::Denial;
use assent_proto::ids::*;
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;

pub(crate) fn anchor(_: &Call, _: &InstitutionId, _: &AnchorEmergency) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn review(_: &Call, _: &InstitutionId, _: &ReviewEmergency) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn notify(_: &Call, _: &InstitutionId, _: &NotifyPerson) -> Result<Outcome, Denial> {
    todo!()
}
