//! By which protocol version what a transaction can say came. Before that version is in force it may be in no
//! block: programs that do not know it could not read it. What a version changed in what transactions *do* is not
//! here; the ledger's modules ask the version in force.

use crate::transaction::{Action, ActionKind, Body, Change};

impl Body {
    /// The protocol version without which the transaction may be in no block.
    pub fn since(&self) -> u32 {
        self.action.since()
    }
}

impl ActionKind {
    /// The protocol version that brought it. A new kind has to name one here, or this does not compile; so has a
    /// new field of a message, in `tests/since.txt`.
    pub const fn since(self) -> u32 {
        use ActionKind::*;
        match self {
            Enrol | RegisterItem | Classify | AnchorRecords | Grant | Revoke | RequestAccess | Deliver
            | AttestErasure | RecordActivity | ReviewOpening | Propose | Approve | ReportEquivocation
            | NotDelivered | RotateKey | Recover | VetoRecovery | Delegate | EndDelegation | Ratify
            | RotateOperator | AnchorEmergency | ReviewEmergency | NotifyPerson | IssueOrder => 1,
        }
    }
}

impl Action {
    /// The same of all that the action holds: the newest of its parts.
    pub fn since(&self) -> u32 {
        let inside = match self {
            Action::Propose(p) => p.change.since(),
            _ => 1,
        };
        self.kind().since().max(inside)
    }
}

impl Change {
    /// The protocol version that brought the kind of change.
    pub const fn since(&self) -> u32 {
        match self {
            Change::Validators(_)
            | Change::Nodes(_)
            | Change::Parameters(_)
            | Change::Institution(_)
            | Change::Policy(_)
            | Change::Grading(_)
            | Change::Protocol(_) => 1,
        }
    }
}
