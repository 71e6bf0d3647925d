//! Legal orders (R41). Rules 126 to 132.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{ObjectRef, Role};
use assent_proto::transaction::*;

use super::{Asked, Model, Verdict, event, has_role, refuse};

impl Model {
    pub(crate) fn order(&self, id: OrderId) -> Option<&IssueOrder> {
        match &self.done(id.0)?.asked.action {
            Action::IssueOrder(o) => Some(o),
            _ => None,
        }
    }

    pub(crate) fn orders(&self) -> Vec<OrderId> {
        let issued = self.applied().filter(|d| matches!(d.asked.action, Action::IssueOrder(_)));
        issued.map(|d| OrderId(d.asked.body.0)).collect()
    }

    pub(crate) fn issue_order(&self, asked: &Asked, a: &IssueOrder) -> Verdict {
        let (id, author) = (asked.institution(), self.author(asked));
        let may = has_role(&author, Role::Court) || has_role(&author, Role::Regulator);
        refuse(Denial::NotPermittedRole, !may)?;
        let one = id == a.cosigner || id == a.beneficiary || a.cosigner == a.beneficiary;
        refuse(Denial::SameInstitution, one)?;
        let known = [a.cosigner, a.beneficiary].iter().all(|i| self.institution(*i).is_some());
        refuse(Denial::NoSuchInstitution, !known)?;
        refuse(Denial::InstitutionSuspended, !self.is_active(a.cosigner) || !self.is_active(a.beneficiary))?;
        refuse(Denial::NoSuchAccount, a.account.is_some_and(|p| self.person(p).is_none()))?;
        let something = !a.items.is_empty() || !a.categories.is_empty();
        let good =
            something && !a.actions.is_empty() && a.data_from <= a.data_to && a.not_after > self.at.time;
        refuse(Denial::BadTerms, !good)?;
        let told = a.account.filter(|_| self.at.time >= a.notice_from);
        let parties: [ObjectRef; 3] = [id.into(), a.cosigner.into(), a.beneficiary.into()];
        let trails = parties.into_iter().chain(told.map(ObjectRef::from));
        Ok(vec![event(EventKind::OrderIssued, OrderId(asked.body.0), trails)])
    }
}
