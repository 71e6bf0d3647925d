//! Who persons are to the ledger: enrolment. Keys that sign are for `check` to look at.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Account, Role};
use assent_proto::transaction::{Enrol, Recover, RotateKey, VetoRecovery};

use crate::apply::Call;
use crate::outcome::Outcome;

/// Opens an account. Only a bureau has seen the person's papers.
pub(crate) fn enrol(call: &Call, by: &InstitutionId, enrol: &Enrol) -> Result<Outcome, Denial> {
    if !call.author(by).has(Role::Bureau) {
        return Err(Denial::NotPermittedRole);
    }
    if !call.state.has(enrol.custodian) {
        return Err(Denial::NoSuchInstitution);
    }
    let id = AccountId(call.body.0);
    let account = Account {
        enroller: *by,
        custodian: enrol.custodian,
        algorithm: enrol.algorithm,
        key: enrol.key,
        enrolled_height: call.block.height,
        early: Default::default(),
        recovery: None,
        frozen: false,
        guardianship: None,
    };
    Ok(Outcome::default().write(id, &account).event(EventKind::Enrolled, id, [enrol.custodian.into()]))
}

pub(crate) fn rotate(_: &Call, _: &AccountId, _: &RotateKey) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn veto(_: &Call, _: &AccountId, _: &VetoRecovery) -> Result<Outcome, Denial> {
    todo!()
}

pub(crate) fn recover(_: &Call, _: &InstitutionId, _: &Recover) -> Result<Outcome, Denial> {
    todo!()
}
